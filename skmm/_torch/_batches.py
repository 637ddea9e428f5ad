"""Batches that run out of memory are halved, and the process remembers it."""

import threading
import weakref

from .._optional import imported
from ..exceptions import first_line

_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error):
    """Return whether an exception says that a device, or the machine, ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    import torch

    is_typed = isinstance(error, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError))
    return is_typed or any(text in str(error).lower() for text in _OUT_OF_MEMORY_TEXTS)


def free_cached_memory():
    """Return memory that torch caches to the device, if torch is in use."""
    torch = imported("torch")
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


class BatchLimit:
    """How large a batch may be, learned from running out of memory. Threads may share one."""

    def __init__(self):
        self._lock = threading.Lock()
        self._cost = None

    def rows(self, n_rows, cost):
        """Return how many of ``n_rows`` items of one cost to try at a time."""
        return n_rows if self._cost is None else max(1, min(n_rows, int(self._cost // cost)))

    def lower(self, cost):
        """Record that more than ``cost`` in total does not fit."""
        with self._lock:
            self._cost = cost if self._cost is None else min(self._cost, cost)


_limits = weakref.WeakKeyDictionary()


_limits_lock = threading.Lock()


def batch_limit(network, device):
    """Return the limit of a network on a device; it is forgotten with the network, or by ``clear_models``.

    Parameters
    ----------
    network : object
        The network, or an object that represents it from one call to the next.

    device : torch.device
        Device on which it runs.

    Returns
    -------
    limit : BatchLimit
        The same object for every caller.
    """
    with _limits_lock:
        return _limits.setdefault(network, {}).setdefault(str(device), BatchLimit())


def forget_limits():
    """Forget all limits."""
    with _limits_lock:
        _limits.clear()


def run_with_backoff(function, batch, limit=None, cost=1):
    """Apply a function to a batch, in smaller and smaller batches while memory runs out.

    Parameters
    ----------
    function : callable
        Maps a list of items to an ndarray with one row per item.

    batch : list
        Items, at least one.

    limit : BatchLimit or None, default=None
        Limit to start from and to update; None starts without one.

    cost : float, default=1
        Share of the limit that each item takes, in any unit that stays the same from call to call.

    Returns
    -------
    rows : ndarray of shape (len(batch), ...)
        Results of the function, in the order of the items.

    Raises
    ------
    MemoryError
        If a single item does not fit. Every other error of the function is passed on unchanged.
    """
    import numpy as np

    limit = BatchLimit() if limit is None else limit
    start, results = 0, []
    while start < len(batch):
        attempt = batch[start : start + limit.rows(len(batch), cost)]
        try:
            results.append(function(attempt))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(attempt) == 1:
                raise MemoryError(
                    f"a single item does not fit into the device's memory ({first_line(error)}); "
                    'use a smaller model or shorter items, precision="bfloat16", or device="cpu".'
                ) from error
        else:
            start += len(attempt)
            continue
        # Outside of the handler: its traceback refers to the tensors of the attempt that failed.
        limit.lower((len(attempt) + 1) // 2 * cost)
        free_cached_memory()
    return results[0] if len(results) == 1 else np.concatenate(results)
