"""Work that threads do ahead of time: in order, and within the bounds of memory."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

# Bytes of results that may wait; beyond that only the next result in order is computed.
MAX_BYTES_AHEAD = 256 * 1024**2


class _Buffer:
    """Counts the bytes of results that wait, and blocks new work while they are too many.

    Only the next result in order is computed then, so that there is always progress.

    Parameters
    ----------
    size : callable
        Returns the bytes of a result.
    """

    def __init__(self, size):
        self._size = size
        self._changed = threading.Condition()
        self._first = 0
        self._bytes = {}
        self._is_closed = False

    def run(self, function, task, position):
        """Apply the function to the task at a position in the order, once there is room for its result."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or position == self._first or sum(self._bytes.values()) <= MAX_BYTES_AHEAD
            )
            if self._is_closed:
                return None
        result = function(task)
        with self._changed:
            self._bytes[position] = self._size(result)
        return result

    def advance(self):
        """Drop the first result in order."""
        with self._changed:
            self._bytes.pop(self._first, None)
            self._first += 1
            self._changed.notify_all()

    def close(self):
        """End all waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def in_pool(function, tasks, pool, ahead):
    """Yield (task, function(task)) in the order of the tasks, computed in a pool ahead of time.

    Parameters
    ----------
    function : callable
        Takes a task.

    tasks : iterable
        Tasks; the caller's thread iterates over them.

    pool : Executor
        Computes the results; it may have other work at the same time.

    ahead : int
        Maximum number of tasks, finished or not, that wait.
    """
    waiting = deque()
    try:
        for task in tasks:
            waiting.append((task, pool.submit(function, task)))
            if len(waiting) > ahead:
                task, future = waiting.popleft()
                yield task, future.result()
        while waiting:
            task, future = waiting.popleft()
            yield task, future.result()
    finally:
        # Whoever stops early does not wait for the remaining tasks.
        for _, future in waiting:
            future.cancel()


def in_order(function, tasks, n_threads, ahead=None, size=None):
    """Yield (task, function(task)) in the order of the tasks, computed in threads ahead of time.

    Parameters
    ----------
    function : callable
        Takes a task.

    tasks : iterable
        Tasks.

    n_threads : int
        Number of threads; 0 computes in the caller's thread.

    ahead : int or None, default=None
        Maximum number of results and tasks that wait; None is twice the number of threads.

    size : callable or None, default=None
        Returns the bytes of a result. While more than ``MAX_BYTES_AHEAD`` wait, threads finish their current task and
        start nothing but the next one in order. None does not count them.
    """
    if n_threads == 0:
        for task in tasks:
            yield task, function(task)
        return
    buffer = _Buffer(size or (lambda result: 0))

    def run(numbered):
        position, task = numbered
        return buffer.run(function, task, position)

    with (
        ThreadPoolExecutor(n_threads) as pool,
        closing(in_pool(run, enumerate(tasks), pool, 2 * n_threads if ahead is None else ahead)) as results,
    ):
        try:
            for (_, task), result in results:
                yield task, result
                buffer.advance()
        finally:
            buffer.close()
