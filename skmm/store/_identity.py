"""The identity of a module in memory: a digest of what decides its rows."""

import dataclasses
import hashlib
import random
import re
import sys
import weakref

import numpy as np

from .._torch import divided_threads
from .._warnings import warn
from ..exceptions import first_line
from ._content import digest_of, public_name


class Unidentifiable(Exception):
    """Nothing tells what decides the rows of an encoder; the text is the reason."""


@dataclasses.dataclass
class _ModuleState:
    """What decided the rows of a module in memory when its digest was computed."""

    preprocess: object
    text: str
    tensors: tuple
    first_row: np.ndarray
    digest: bytes
    warned: bool = False

    def change_to(self, other):
        """Return which of the things that a user may have changed differs in another state; None if none does."""
        changes = {
            "its repr changed": self.text != other.text,
            "its tensors changed": self.tensors != other.tensors,
            "it returns other values for the same item": not _same(self.first_row, other.first_row),
        }
        return next((reason for reason, is_changed in changes.items() if is_changed), None)


# States that are remembered of one module.
_MAX_STATES = 16

# Module -> (settings, id of its preprocessing) -> what decided its rows in the last call with these.
_states = weakref.WeakKeyDictionary()


def module_digest(module, preprocess, settings, encode_probe, n_probes=3):
    """Return a digest of a module in memory: its class, ``repr``, tensors and rows of fixed items.

    The code of the module, and of the preprocessing before it, is not looked at. Later calls encode the first item
    only, and all of them if the tensors, the ``repr`` or that row have changed.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    preprocess : object
        What prepares items for the module.

    settings : tuple
        Plain data that the rows depend on besides the module.

    encode_probe : callable
        Maps the number of a fixed item to its row, an ndarray.

    n_probes : int, default=3
        Number of fixed items.

    Returns
    -------
    digest : bytes
        Digest.

    Raises
    ------
    Unidentifiable
        If the module returns other values for the same item twice, or draws random numbers.
    """
    first_row = _on_one_thread(encode_probe, 0)
    # It refers to its preprocessing, so that no other one gets the same id.
    state = _ModuleState(preprocess, _text_of(module), _tensor_versions(module), first_row, b"")
    states, key = _states.setdefault(module, {}), (repr(settings), id(preprocess))
    previous = states.get(key)
    if previous is not None:
        change = previous.change_to(state)
        if change is None:
            return previous.digest
        state.warned = True
        if not previous.warned:
            warn(
                f"{type(module).__name__}: the rows that a store holds of this module are not used any more, since "
                f"{change} between two calls; pass cache_key if its rows are the same nevertheless."
            )
    state.digest = digest_of(
        "module",
        public_name(type(module)),
        state.text,
        _tensor_digest(_tensors_of(module)),
        _steady_rows(encode_probe, n_probes, first_row),
        settings,
    )
    if len(states) >= _MAX_STATES:
        states.clear()
    states[key] = state
    return state.digest


def _steady_rows(encode_probe, n_probes, first_row):
    """Return the rows of all fixed items as plain data, or raise if they are not the same each time."""
    generators = _generator_states()
    rows, repeated = ([_on_one_thread(encode_probe, number) for number in range(n_probes)] for _ in range(2))
    if not all(map(_same, [first_row, *rows], [rows[0], *repeated])):
        raise Unidentifiable("the model returns other values for the same item each time")
    if generators != _generator_states():
        raise Unidentifiable("the model or its preprocessing draws random numbers")
    return [(row.shape, row.dtype.str, row.tobytes()) for row in rows]


def _same(row, other):
    return np.array_equal(row, other, equal_nan=True)


def _on_one_thread(function, *args):
    """Call a function on one thread of torch: results depend on the number of threads by rounding."""
    with divided_threads() as divide:
        divide(sys.maxsize)
        return function(*args)


def _generator_states():
    """Return the states of the global generators of random numbers, as bytes."""
    import torch

    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the generator that users' code draws from
    return random.getstate(), (name, keys.tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


def _text_of(x):
    """Return the ``repr`` of an object without addresses in memory, which are others in each process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(x))


def _weights_of(module):
    """Return the parameters and buffers of a module by name."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def _tensors_of(module):
    """Return the state of a module by name, with the buffers that its state dict leaves out."""
    return _weights_of(module) | module.state_dict(keep_vars=True)


def _tensor_versions(module):
    """Return what changes whenever a tensor of the module is written to."""
    weights, tensors = _weights_of(module), _tensors_of(module)
    # A module may make the rest of its state, such as ``get_extra_state()``, in each call.
    rest = {name: x for name, x in tensors.items() if name not in weights}
    try:
        # Writing through ``data`` is not counted by torch, hence the sums.
        versions = ((name, id(x), x._version, _sum_of_bits(x)) for name, x in sorted(weights.items()))
        return *versions, _tensor_digest(rest)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        # Quantised and other tensors hide their memory: their digest is computed each time.
        return (_tensor_digest(tensors),)


def _sum_of_bits(x):
    import torch

    # Where integers of 64 bits fit, their sum is as fast as memory.
    n_bytes = x.numel() * x.element_size()
    kind = torch.int64 if n_bytes % 8 == 0 and x.data_ptr() % 8 == 0 else torch.uint8
    return x.detach().contiguous().reshape(-1).view(kind).sum().item()


def _tensor_digest(tensors):
    """Return a digest of the values of named tensors, and of the ``repr`` of what is no tensor among them."""
    import torch

    hasher = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        if not isinstance(x, torch.Tensor):
            hasher.update(_text_of((name, x)).encode())
            continue
        hasher.update(repr((name, str(x.dtype), tuple(x.shape))).encode())
        try:
            x = x.int_repr() if x.is_quantized else x
            hasher.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise Unidentifiable(f"the values of its {name!r} cannot be read: {first_line(error)}") from error
    return hasher.digest()
