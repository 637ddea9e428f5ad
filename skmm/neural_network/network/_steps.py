"""Rows of a step, and epochs of a fit, where they are left to the number of rows."""

import math

# Steps of the optimiser that max_epochs="auto" aims at, and its bounds.
_STEPS = 600
_EPOCHS = 30, 100


def resolve_batch_size(batch_size, n_samples):
    """Give the number of rows of a step.

    Parameters
    ----------
    batch_size : int or "auto"
        Parameter of the network.

    n_samples : int
        Rows to learn from.

    Returns
    -------
    size : int
        From 1 to ``n_samples``.
    """
    if batch_size == "auto":
        # Of few rows smaller batches, or an epoch has hardly a step; yet as few steps as do, for these cost time.
        batch_size = min(200, max(64, n_samples // 40))
    return min(batch_size, n_samples)


def resolve_epochs(max_epochs, batch_size, n_samples):
    """Give the number of epochs.

    Parameters
    ----------
    max_epochs, batch_size : int or "auto"
        Parameters of the network.

    n_samples : int
        Rows to learn from.

    Returns
    -------
    n_epochs : int
        At least 1.
    """
    if max_epochs != "auto":
        return max_epochs
    n_steps = math.ceil(n_samples / resolve_batch_size(batch_size, n_samples))
    fewest, most = _EPOCHS
    return min(most, max(fewest, math.ceil(_STEPS / n_steps)))
