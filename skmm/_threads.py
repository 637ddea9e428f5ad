"""Work at the same time: what threads do ahead, in order and within the bounds of memory; results of joblib."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel

# Bytes of results that may wait.
MAX_BYTES_AHEAD = 256 * 1024**2


def parallel_results(tasks, **options):
    """Yield results of tasks in order, as they come; from backends of joblib that cannot, as Ray's, all at the end.

    Parameters
    ----------
    tasks : iterable
        Calls of functions by scikit-learn's ``delayed``.

    **options
        Parameters of scikit-learn's ``Parallel``.
    """
    as_they_come = get_active_backend()[0].supports_return_generator
    yield from Parallel(**options, return_as="generator" if as_they_come else "list")(tasks)


def in_order(function, tasks, n_threads, ahead=None, size=None):
    """Yield (task, function(task)) in the order of the tasks, computed in threads ahead of time.

    Parameters
    ----------
    function : callable
        Takes a task.

    tasks : iterable
        Tasks; the caller's thread iterates over them.

    n_threads : int
        Number of threads; 0 computes in the caller's thread.

    ahead : int or None, default=None
        Maximum number of tasks, finished or not, that wait; None is twice the number of threads.

    size : callable or None, default=None
        Returns the bytes of a result. As many tasks wait as would fit into ``MAX_BYTES_AHEAD`` if all were as large as
        the largest so far, and never fewer than there are threads. None does not count bytes.
    """
    if n_threads == 0:
        for task in tasks:
            yield task, function(task)
        return
    most = 2 * n_threads if ahead is None else ahead
    # Of results whose size is unknown, one for each thread.
    limit = most if size is None else min(most, n_threads)
    largest, waiting = 1, deque()

    def take():
        nonlocal limit, largest
        task, future = waiting.popleft()
        result = future.result()
        if size is not None:
            largest = max(largest, size(result))
            limit = min(most, max(n_threads, MAX_BYTES_AHEAD // largest))
        return task, result

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for task in tasks:
                waiting.append((task, pool.submit(function, task)))
                while len(waiting) > limit:
                    yield take()
            while waiting:
                yield take()
        finally:
            # Whoever stops early does not wait for the remaining tasks.
            for _, future in waiting:
                future.cancel()
