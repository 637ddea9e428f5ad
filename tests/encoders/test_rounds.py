"""Rounds of windows: what is in them, how they are shared, in which threads they are encoded, and how they end."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from skmm.encoders._rounds import rounds_of, side_by_side


def sizes(n_accepted, n_items, n_workers, most_bytes=10**9, size=1):
    rounds = list(rounds_of(((i, i) for i in range(n_accepted)), n_items, n_workers, lambda item: size, most_bytes))
    assert [pair for windows in rounds for window in windows for pair in window] == [(i, i) for i in range(n_accepted)]
    return [[len(window) for window in windows] for windows in rounds]


@pytest.mark.parametrize(
    ("n_accepted", "n_items", "n_workers", "expected"),
    [
        (0, 3, 2, []),
        (1, 3, 2, [[1]]),
        (5, 3, 2, [[3, 2]]),
        (13, 3, 2, [[3, 3], [3, 3], [1]]),
        (15, 3, 2, [[3, 3], [3, 3], [2, 1]]),
        (5, 8, 4, [[2, 2, 1]]),
        (7, 3, 1, [[3], [3], [1]]),
    ],
)
def test_workers_share_what_is_there(n_accepted, n_items, n_workers, expected):
    assert sizes(n_accepted, n_items, n_workers) == expected


def test_rounds_of_large_items_are_short():
    assert sizes(9, 8, 2, most_bytes=10, size=4) == [[2, 1]] * 3
    assert sizes(3, 8, 2, most_bytes=10, size=11) == [[1]] * 3


@pytest.fixture
def pool():
    with ThreadPoolExecutor(3) as pool:
        yield pool


def test_windows_of_a_round_are_encoded_at_the_same_time(pool):
    together, shares = threading.Barrier(3, timeout=600), []

    def encode(window):
        together.wait()
        return sum(window), threading.current_thread() is threading.main_thread()

    rounds = [[[1, 2], [3], [4]], [[5], [6], [7, 8]]]
    found = list(side_by_side(encode, rounds, pool, shares.append))
    assert found == [(3, False), (3, False), (4, False), (5, False), (6, False), (15, False)]
    assert shares == [3] * 6


def test_what_is_alone_is_encoded_by_the_caller(pool):
    shares = []

    def encode(window):
        return sum(window), threading.current_thread() is threading.main_thread()

    found = list(side_by_side(encode, [[[1], [2]], [[3]], [[4], [5]]], pool, shares.append))
    assert found == [(1, False), (2, False), (3, True), (4, False), (5, False)]
    assert shares == [2] * 4


def test_a_round_is_gathered_while_the_one_before_is_encoded(pool):
    is_asked = threading.Event()

    def rounds():
        yield [[1], [2]]
        is_asked.set()
        yield [[3], [4]]

    assert list(side_by_side(lambda window: is_asked.wait(600), rounds(), pool, lambda n: None)) == [True] * 4


def test_errors_are_passed_on(pool):
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda window: 1 / window[0], [[[1], [0]], [[1], [1]]], pool, lambda n: None))
