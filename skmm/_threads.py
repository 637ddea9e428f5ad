"""Work that threads do ahead of time: in order, and no more of it than memory should hold."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice

# Bytes of results that wait at a time, beyond which only the next in line is worked on.
BYTES_HELD = 256 * 1024**2


class _Room:
    """Counts the bytes of results that wait; who comes while there are too many waits to become the first in line.

    Parameters
    ----------
    size : callable
        Gives the bytes of a result.
    """

    def __init__(self, size):
        self._size = size
        self._changed = threading.Condition()
        self._first = 0
        self._held = {}
        self._is_closed = False

    def run(self, function, task, position):
        """Apply the function to the task at a position of the line, once there is room."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or position == self._first or sum(self._held.values()) <= BYTES_HELD
            )
            if self._is_closed:
                return None
        result = function(task)
        with self._changed:
            self._held[position] = self._size(result)
        return result

    def advance(self):
        """Let go of the first result in line."""
        with self._changed:
            self._held.pop(self._first, None)
            self._first += 1
            self._changed.notify_all()

    def close(self):
        """Let nobody wait any longer."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def in_pool(function, tasks, pool, ahead, chunk=1):
    """Yield (task, function(task)) in the order of the tasks, computed in a pool ahead of time.

    Parameters
    ----------
    function : callable
        Takes a task.

    tasks : iterable
        Tasks; they are taken from it in the caller's thread.

    pool : Executor
        What computes; others may use it at the same time.

    ahead : int
        Chunks of tasks, done or not, that wait at most.

    chunk : int, default=1
        Tasks that are done one after the other.
    """

    def run(some):
        return [(task, function(task)) for task in some]

    tasks, waiting = iter(tasks), deque()
    try:
        while some := list(islice(tasks, chunk)):
            waiting.append(pool.submit(run, some))
            if len(waiting) > ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        # Whoever stops early does not wait for what is not needed any more.
        for future in waiting:
            future.cancel()


def in_order(function, tasks, n_threads, ahead=None, size=None):
    """Yield (task, function(task)) in the order of the tasks, computed in threads at most ``ahead`` tasks early.

    Parameters
    ----------
    function : callable
        Takes a task.

    tasks : iterable
        Tasks.

    n_threads : int
        Threads; 0 computes in the caller's.

    ahead : int or None, default=None
        Results and tasks that wait at most; None is twice the threads.

    size : callable or None, default=None
        Gives the bytes of a result. While more than ``BYTES_HELD`` wait, threads finish what they are at, and
        begin nothing but the next in line. None does not count them.
    """
    if n_threads == 0:
        for task in tasks:
            yield task, function(task)
        return
    room = _Room(size or (lambda result: 0))

    def run(numbered):
        position, task = numbered
        return room.run(function, task, position)

    with (
        ThreadPoolExecutor(n_threads) as pool,
        closing(in_pool(run, enumerate(tasks), pool, 2 * n_threads if ahead is None else ahead)) as line,
    ):
        try:
            for (_, task), result in line:
                yield task, result
                room.advance()
        finally:
            room.close()
