"""Rows as tensors, and what goes through a network without gradients."""

from contextlib import contextmanager, nullcontext

import numpy as np

from ..._torch import batch_limit, run_with_backoff

# Rows that go through the network at a time where no gradient is needed.
_ROWS_AT_ONCE = 1024


class Rows:
    """Tensors with one row per sample.

    Parameters
    ----------
    inputs : list of tuple of Tensor
        What the network takes of each modality.

    mask : Tensor of shape (n_samples, n_modalities) or None
        True where a modality is present; None if all are everywhere.

    targets : Tensor, tuple of Tensor or None, default=None
        What the criterion takes.

    weights : Tensor of shape (n_samples,) or None, default=None
        Weights of the rows, of mean 1; None weighs all alike.
    """

    def __init__(self, inputs, mask, targets=None, weights=None):
        self.inputs = inputs
        self.mask = mask
        self.targets = targets
        self.weights = weights

    def __len__(self):
        return len(self.inputs[0][0])

    def map(self, function):
        """Give the rows with a function applied to every tensor."""
        return Rows(*(_map(function, part) for part in (self.inputs, self.mask, self.targets, self.weights)))

    def take(self, indices):
        """Give the rows at some positions."""
        return self.map(lambda tensor: tensor.index_select(0, indices))

    def slice(self, start, stop):
        """Give neighbouring rows, without a copy."""
        return self.map(lambda tensor: tensor[start:stop])


def _map(function, part):
    if part is None:
        return None
    if isinstance(part, (list, tuple)):
        return type(part)(_map(function, inner) for inner in part)
    return function(part)


@contextmanager
def seeded(seed, device):
    """Seed torch inside, with gradients on, and leave its global random state and mode as they were."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(seed)
        yield


def apply(network, rows, function, device, autocast=None):
    """Apply a function to a network and batches of rows, without gradients and with dropout off.

    Parameters
    ----------
    network : Network
        In evaluation mode.

    rows : Rows
        On the CPU.

    function : callable
        Takes rows on the device and gives a tensor with one row each.

    device : torch.device
        Where the network is.

    autocast : torch.dtype or None, default=None
        Half precision to compute in, or None.

    Returns
    -------
    values : ndarray of shape (n_samples, ...)
        What the function gave for all rows.
    """
    import torch

    def compute(part):
        with precise(device, autocast):
            values = function(part)
        return values.to(next(network.parameters()).dtype).cpu().numpy()

    with torch.inference_mode():
        return in_pieces(network, rows, compute, device)


def in_pieces(network, rows, function, device):
    """Apply a function that needs no gradients to some rows at a time, to fewer where memory runs out."""
    limit = batch_limit(network, device)

    def compute(indices):
        return function(rows.slice(indices[0], indices[-1] + 1).map(lambda tensor: tensor.to(device)))

    ends = [*range(_ROWS_AT_ONCE, len(rows), _ROWS_AT_ONCE), len(rows)]
    return np.concatenate(
        [run_with_backoff(compute, range(*part), limit) for part in zip([0, *ends], ends, strict=False)]
    )


def precise(device, autocast):
    """Compute inside in a half precision, or in that of the tensors if there is none."""
    import torch

    return nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)
