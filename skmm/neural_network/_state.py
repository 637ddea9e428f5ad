"""States of modules and optimisers as arrays, which any device and any safe format can hold."""

import numpy as np


def to_arrays(state):
    """Give a nested state with each tensor turned into an array."""
    if hasattr(state, "detach"):
        return state.detach().cpu().numpy()
    return _map(to_arrays, state)


def to_tensors(state):
    """Give a nested state with each array turned into a tensor."""
    if isinstance(state, np.ndarray):
        import torch

        return torch.from_numpy(state.copy())
    return _map(to_tensors, state)


def _map(function, state):
    if isinstance(state, dict):
        return {key: function(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(function(value) for value in state)
    return state
