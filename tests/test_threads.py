"""Work ahead of time: order, bounds by number and by bytes, early ends and errors."""

import threading
from contextlib import closing

import joblib
import pytest
from joblib.parallel import ThreadingBackend
from sklearn.utils.parallel import delayed

from skmm import _threads
from skmm._threads import in_order, parallel_results


class Worker:
    """Counts how many tasks have begun beyond those that were taken."""

    def __init__(self):
        self.lock = threading.Lock()
        self.begun = self.taken = self.most = 0

    def __call__(self, task):
        with self.lock:
            self.begun += 1
            self.most = max(self.most, self.begun - self.taken)
        return task * task

    def run(self, *args, **options):
        out = []
        for task, result in in_order(self, *args, **options):
            assert result == task * task
            with self.lock:
                self.taken += 1
            out.append(task)
        return out


@pytest.mark.parametrize("n_threads", [0, 1, 4])
def test_everything_comes_in_order(n_threads):
    assert Worker().run(range(200), n_threads) == list(range(200))


def test_no_more_tasks_than_allowed_wait():
    worker = Worker()
    worker.run(range(100), 2, ahead=5)
    assert worker.most <= 7


@pytest.mark.parametrize("n_threads", [1, 3])
def test_large_results_hold_the_threads_back(monkeypatch, n_threads):
    monkeypatch.setattr(_threads, "MAX_BYTES_AHEAD", 10)
    worker = Worker()
    assert worker.run(range(60), n_threads, ahead=50, size=lambda result: 6) == list(range(60))
    # One waits for each thread; beyond them one that was just submitted, and one just taken.
    assert worker.most <= n_threads + 2


def test_results_larger_than_all_room_still_come(monkeypatch):
    monkeypatch.setattr(_threads, "MAX_BYTES_AHEAD", 10)
    assert Worker().run(range(20), 2, ahead=8, size=lambda result: 1000) == list(range(20))


def test_who_stops_early_leaves_no_thread(monkeypatch):
    monkeypatch.setattr(_threads, "MAX_BYTES_AHEAD", 10)
    # Those of others may end meanwhile.
    before = set(threading.enumerate())
    with closing(in_order(Worker(), range(1000), 3, ahead=50, size=lambda result: 11)) as line:
        assert next(line) == (0, 0)
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before


def test_errors_are_passed_on(monkeypatch):
    monkeypatch.setattr(_threads, "MAX_BYTES_AHEAD", 0)
    before = set(threading.enumerate())

    def divide(task):
        return 1 / (task - 3)

    with pytest.raises(ZeroDivisionError):
        list(in_order(divide, range(50), 2, ahead=8, size=lambda result: 1))
    assert not set(threading.enumerate()) - before


def test_no_more_tasks_are_taken_than_may_wait():
    taken = []
    with closing(in_order(abs, (taken.append(i) or i for i in range(100)), 1, ahead=2)) as results:
        assert next(results) == (0, 0)
    assert len(taken) == 3


class AllAtTheEnd(ThreadingBackend):
    """A backend that returns lists alone, as that of Ray does."""

    supports_return_generator = False


@pytest.mark.parametrize("backend", ["loky", "threading", "all at the end"])
def test_results_of_any_backend(backend):
    joblib.register_parallel_backend("all at the end", AllAtTheEnd)
    with joblib.parallel_config(backend=backend):
        results = parallel_results((delayed(abs)(-number) for number in range(5)), n_jobs=2, batch_size=1)
        assert next(results) == 0
        assert list(results) == [1, 2, 3, 4]
