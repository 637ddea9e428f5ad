"""What decides the numbers an encoder gives, as a digest: only encoders with the same one share entries of a store."""

import enum
import functools
import hashlib
import importlib.metadata
import os
import sys
import types
import weakref
from contextlib import suppress

import numpy as np

from .._torch import divided_threads, first_line
from ._items import FileDigests

# Raised whenever the code changes what encoders compute beyond rounding.
_FORMAT = 1

# Files of a checkpoint that no loader here reads: documentation, and weights in the formats of other frameworks.
_IGNORED_ENDINGS = (
    ".gif",
    ".gguf",
    ".h5",
    ".jpeg",
    ".jpg",
    ".md",
    ".msgpack",
    ".onnx",
    ".ot",
    ".pdf",
    ".png",
    ".tflite",
)
_IGNORED_FOLDERS = ("onnx", "openvino", "coreml")

# What stands for libraries in the identity: changes of rounding come with minor versions.
_MINOR_PARTS = 2


class Unidentifiable(Exception):
    """Nothing tells what decides the numbers of an encoder; the text is the reason."""


def digest_of(*parts):
    """Give a digest of 32 bytes of plain data."""
    return hashlib.blake2b(repr((_FORMAT, *parts)).encode(), digest_size=32, person=b"skmm identity").digest()


@functools.lru_cache(maxsize=64)
def minor_version(package):
    """Give the minor version of an installed package as text, "" if there is none; it is not imported."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
    return ".".join(version.split("+")[0].split(".")[:_MINOR_PARTS])


def checkpoint_files(folder):
    """Give the names of the files below a folder, within it and sorted; folders that are links are looked into."""
    names, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        where = os.path.realpath(parent)
        # A link to a folder above goes round for ever.
        folders[:] = [] if where in seen else sorted(name for name in folders if not name.startswith("."))
        seen.add(where)
        names += [os.path.relpath(os.path.join(parent, name), folder) for name in files]
    return sorted(names)


def folder_digest(folder, store):
    """Give a digest of the files of a checkpoint, whatever the folder is called.

    Parameters
    ----------
    folder : str
        Folder.

    store : EmbeddingStore
        What remembers the digests of files.

    Returns
    -------
    digest : bytes
        Digest of names and contents.
    """
    names = [name for name in checkpoint_files(folder) if _is_read(name)]
    paths = [os.path.join(folder, name) for name in names]
    digests = FileDigests(store).of(paths)
    if None in digests:
        raise Unidentifiable(f"{paths[digests.index(None)]!r} cannot be read")
    return digest_of("files", list(zip(names, digests, strict=True)))


def _is_read(name):
    *folders, file = name.split(os.sep)
    is_ignored = file.startswith(".") or file.lower().endswith(_IGNORED_ENDINGS)
    return not is_ignored and not any(folder in _IGNORED_FOLDERS for folder in folders)


def cached_snapshot(names, revision, cache=None):
    """Give the folder of the hub's local cache with a model's files, None if it is not there.

    Parameters
    ----------
    names : list of str
        Names that the model may have on the hub.

    revision : str or None
        Branch, tag or commit.

    cache : str or None, default=None
        Folder of the cache; None is that of the hub's library.

    Returns
    -------
    folder : str or None
        The folder.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        # Of a model whose configuration a library brings along, only the weights are there.
        for marker in ("modules.json", "config.json", "model.safetensors"):
            # Loaders know more forms of names than the cache does.
            with suppress(ValueError):
                path = try_to_load_from_cache(name, marker, cache_dir=cache, revision=revision)
                if isinstance(path, str):
                    return os.path.dirname(path)
    return None


def module_digest(module, encode_probe):
    """Give a digest of a module in memory.

    Its tensors and its ``repr`` say most, but not what hooks, attributes and code do: so what it makes of a fixed
    input counts as well.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    encode_probe : callable
        Called without arguments, gives the rows of the fixed input as an ndarray.

    Returns
    -------
    digest : bytes
        Digest.

    Raises
    ------
    Unidentifiable
        If the module holds what cannot be read, or gives other rows each time.
    """
    rows = _single_threaded(encode_probe)
    known = _tensor_digests.get(module)
    versions = _tensor_versions(module)
    if known is None or versions is None or known[0] != versions:
        if not np.array_equal(rows, _single_threaded(encode_probe), equal_nan=True):
            raise Unidentifiable("the module gives other numbers each time")
        known = versions, _tensor_digest(module)
        _tensor_digests[module] = known
    parts = [(name, _qualified_name(type(part))) for name, part in module.named_modules()]
    return digest_of("module", known[1], repr(module), parts, rows.shape, rows.tobytes())


# Module -> (identities and versions of its tensors, digest of their values).
_tensor_digests = weakref.WeakKeyDictionary()


def _single_threaded(function):
    """Call a function on one thread of torch: other numbers of threads round otherwise."""
    import torch

    with divided_threads(torch.get_num_threads()) as divide:
        divide()
        return function()


def _tensors(module):
    """Give the state of a module by name, with the buffers that its state dict leaves out."""
    return {**dict(module.named_buffers()), **module.state_dict(keep_vars=True)}


def _tensor_versions(module):
    """Give what changes whenever torch writes to a tensor of the module, None if that is not tracked."""
    try:
        return [(name, id(x), x.data_ptr(), x._version) for name, x in _tensors(module).items()]
    except (AttributeError, RuntimeError):
        return None


def _tensor_digest(module):
    import torch

    hasher = hashlib.blake2b(digest_size=32)
    for name, x in sorted(_tensors(module).items()):
        if isinstance(x, torch.Tensor):
            try:
                values = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            except (RuntimeError, NotImplementedError, TypeError) as error:
                raise Unidentifiable(f"the values of its {name!r} cannot be read: {first_line(error)}") from error
            hasher.update(repr((name, str(x.dtype), tuple(x.shape))).encode())
            hasher.update(values)
        else:
            hasher.update(repr((name, describe(x))).encode())
    return hasher.digest()


def _qualified_name(thing):
    return f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def describe(thing):
    """Describe a callable, or another object, as plain data that is the same in every process.

    Functions count by their code, defaults and closures, objects by their class and attributes.

    Parameters
    ----------
    thing : object
        What decides numbers.

    Returns
    -------
    description : nested tuples of plain data
        Equal only for things that do the same, as far as they do not depend on global names.

    Raises
    ------
    Unidentifiable
        If an object hides what it holds.
    """
    return _describe(thing, ())


def _describe(thing, outer):
    if thing is None or thing is Ellipsis or isinstance(thing, (bool, int, float, complex, str, bytes)):
        return _qualified_name(type(thing)), repr(thing)
    if any(thing is other for other in outer):
        return ("again", [thing is other for other in outer].index(True))
    outer = (*outer, thing)
    if isinstance(thing, (tuple, list)):
        return _qualified_name(type(thing)), *(_describe(part, outer) for part in thing)
    if isinstance(thing, (dict, types.MappingProxyType)):
        return "dict", *((_describe(name, outer), _describe(value, outer)) for name, value in thing.items())
    if isinstance(thing, (set, frozenset)):
        return "set", *sorted(repr(_describe(part, outer)) for part in thing)
    if isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
        return "array", thing.dtype.str, thing.shape, hashlib.blake2b(thing.tobytes()).digest()
    if isinstance(thing, (type, types.BuiltinFunctionType, types.ModuleType, np.ufunc)):
        return "name", _qualified_name(thing), getattr(thing, "__name__", "")
    if isinstance(thing, types.CodeType):
        constants = tuple(_describe(constant, outer) for constant in thing.co_consts)
        return "code", thing.co_code, thing.co_names, thing.co_varnames, constants
    if isinstance(thing, types.FunctionType):
        cells = tuple(cell.cell_contents for cell in thing.__closure__ or ())
        parts = (thing.__code__, thing.__defaults__, thing.__kwdefaults__, cells)
        return "function", _qualified_name(thing), *(_describe(part, outer) for part in parts)
    if isinstance(thing, types.MethodType):
        return "method", _describe(thing.__func__, outer), _describe(thing.__self__, outer)
    if isinstance(thing, functools.partial):
        return "partial", *(_describe(part, outer) for part in (thing.func, thing.args, thing.keywords))
    if isinstance(thing, (np.dtype, np.generic)):
        return _qualified_name(type(thing)), str(thing)
    if isinstance(thing, enum.Enum):
        return "enum", _qualified_name(type(thing)), thing.name
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(thing, torch.nn.Module):
        tensors = _tensor_digest(thing) if _tensors(thing) else b""
        return "module", repr(thing), tensors, *(_describe(_plain_vars(part), outer) for part in thing.modules())
    if torch is not None and isinstance(thing, torch.Tensor):
        return "tensor", *_describe(thing.detach().cpu().numpy(), outer)
    if torch is not None and isinstance(thing, (torch.dtype, torch.device)):
        return "torch", repr(thing)
    if hasattr(thing, "__dict__"):
        return "object", _qualified_name(type(thing)), _describe(vars(thing), outer)
    raise Unidentifiable(f"it depends on a {_qualified_name(type(thing))}, which does not tell what it holds")


def _plain_vars(part):
    return {name: value for name, value in vars(part).items() if not name.startswith("_")}
