"""States of networks in files: tensors as arrays, for any device and any safe format, and users' modules on the CPU."""

import copy
import copyreg

import numpy as np


def is_module(value):
    """Tell whether a value is a torch module, without importing torch."""
    return hasattr(value, "forward") and hasattr(value, "parameters") and not isinstance(value, type)


class ModuleHolder:
    """Mixin of estimators that may have modules of users among their parameters.

    Pickle, joblib and copy call ``__reduce_ex__``. skops, which stores no tensors, calls ``__reduce__``: raise there,
    with the name of the module, instead of an error about some tensor.
    """

    def __reduce_ex__(self, protocol):
        return copyreg.__newobj__, (type(self),), self.__getstate__()

    def __reduce__(self):
        for module in _modules_in(list(self.get_params(deep=False).values())):
            cls = type(module)
            raise TypeError(
                f"{type(self).__name__}: formats other than pickle and joblib cannot store a module of the user, got "
                f"{cls.__module__}.{cls.__qualname__}; use one of these two."
            )
        return self.__reduce_ex__(2)


def to_arrays(state):
    """Return a nested state with each tensor turned into an array."""
    if hasattr(state, "detach"):
        return state.detach().cpu().numpy()
    return _map(to_arrays, state)


def to_tensors(state):
    """Return a nested state with each array turned into a tensor."""
    if isinstance(state, np.ndarray):
        import torch

        return torch.from_numpy(state.copy())
    return _map(to_tensors, state)


def on_cpu(state):
    """Return a nested state in which copies on the CPU, which all machines have, replace modules on other devices."""
    if is_module(state):
        tensors = [*state.parameters(), *state.buffers()]
        return state if all(tensor.device.type == "cpu" for tensor in tensors) else copy.deepcopy(state).to("cpu")
    # Containers of other types are returned as they are.
    return _map(on_cpu, state) if type(state) in (dict, list, tuple) else state


def _modules_in(state):
    """Return the modules of a nested state."""
    if is_module(state):
        return [state]
    return [m for value in state for m in _modules_in(value)] if isinstance(state, (list, tuple)) else []


def _map(function, state):
    if isinstance(state, dict):
        return {key: function(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(function(value) for value in state)
    return state
