"""Torch's threads: shared among workers, and not available in forked processes."""

import os
import threading
from contextlib import contextmanager

from joblib import cpu_count

# Calls that divide torch's threads at the moment, and the number of threads before the first of them.
_n_divisions, _n_undivided = 0, None
_divisions_lock = threading.Lock()


@contextmanager
def divided_threads():
    """Share torch's threads among workers, which are threads themselves.

    Yields
    ------
    divide : callable
        To be called in each worker with the number of workers. At the end the caller's number of threads is restored.
    """
    global _n_divisions, _n_undivided
    import torch

    with _divisions_lock:
        # New threads start with the number that was set last, which may be the share of a worker.
        if _n_divisions == 0:
            _n_undivided = torch.get_num_threads()
        _n_divisions += 1
        n_threads = _n_undivided

    def divide(n_workers):
        share = max(1, n_threads // n_workers)
        # Each call makes torch drop the kernels that it has prepared.
        if torch.get_num_threads() != share:
            torch.set_num_threads(share)

    try:
        yield divide
    finally:
        # The number that a worker sets is also the default of threads created later.
        torch.set_num_threads(n_threads)
        with _divisions_lock:
            _n_divisions -= 1


# The process in which a network ran on several threads of torch: its forked children lack these threads.
_ran_in = None


def note_run():
    """Record that a network is about to run in this process."""
    global _ran_in
    import torch

    check_not_forked()
    if torch.get_num_threads() > 1:
        _ran_in = os.getpid()


def check_not_forked():
    """Raise if this process was forked from one in which a network had run: torch would hang.

    Raises
    ------
    RuntimeError
        Names the alternatives.
    """
    if _ran_in is not None and _ran_in != os.getpid():
        raise RuntimeError(
            "This process was forked from one in which a network had already run, and torch hangs in such a process. "
            "Use joblib's default backend (loky), or encode everything before the fork with a store, so that the "
            "forked processes find it there."
        )


def available_cpus():
    """Return the number of threads that this process may keep busy: in joblib's workers their share of the cores."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = cpu_count()
    return min(cores, int(limit)) if limit.isdigit() and int(limit) else cores
