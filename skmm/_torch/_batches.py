"""Batches that run out of memory are halved."""

import threading
import weakref

from ..exceptions import first_line
from ._memory import free_cached_memory, is_out_of_memory


class BatchLimit:
    """How large a batch may be, as far as running out of memory has taught. Threads may share one."""

    def __init__(self):
        self._lock = threading.Lock()
        self._cost = None

    def rows(self, n_rows, cost):
        """Give how many of ``n_rows`` items of one cost to try at a time."""
        return n_rows if self._cost is None else max(1, min(n_rows, int(self._cost // cost)))

    def lower(self, cost):
        """Note that more than ``cost`` in all does not fit."""
        with self._lock:
            self._cost = cost if self._cost is None else min(self._cost, cost)


_limits = weakref.WeakKeyDictionary()


_limits_lock = threading.Lock()


def batch_limit(network, device):
    """Get the one limit of a network on a device; it is forgotten with the network, or by ``clear_models``.

    Parameters
    ----------
    network : object
        The network, or whatever stands for it from one call to the next.

    device : torch.device
        Where it runs.

    Returns
    -------
    limit : BatchLimit
        The same object for every caller.
    """
    with _limits_lock:
        return _limits.setdefault(network, {}).setdefault(str(device), BatchLimit())


def forget_limits():
    """Forget what running out of memory has taught."""
    with _limits_lock:
        _limits.clear()


def run_with_backoff(function, batch, limit=None, cost=1):
    """Apply a function to a batch, in smaller and smaller pieces while memory runs out.

    Parameters
    ----------
    function : callable
        Takes a list of items and gives an ndarray with one row per item.

    batch : list
        Items, at least one.

    limit : BatchLimit or None, default=None
        Where what was learned is kept, and what pieces start from; None forgets it.

    cost : float, default=1
        What each item takes of the limit, in any unit that stays the same from call to call.

    Returns
    -------
    rows : ndarray of shape (len(batch), ...)
        What the function gave, in the order of the items.

    Raises
    ------
    MemoryError
        If a single item does not fit. Every other error of the function is passed on as it is.
    """
    import numpy as np

    limit = BatchLimit() if limit is None else limit
    start, parts = 0, []
    while start < len(batch):
        piece = batch[start : start + limit.rows(len(batch), cost)]
        try:
            parts.append(function(piece))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(piece) == 1:
                raise MemoryError(
                    f"a single item does not fit into the device's memory ({first_line(error)}); "
                    'use a smaller model or shorter items, precision="bfloat16", or device="cpu".'
                ) from error
        else:
            start += len(piece)
            continue
        # Outside of the handler: its traceback holds the tensors of the attempt that failed.
        limit.lower((len(piece) + 1) // 2 * cost)
        free_cached_memory()
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
