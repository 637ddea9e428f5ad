"""What the store is for: a search encodes no item twice, whatever the folds, candidates and runs."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import skmm

FOLDER = Path(__file__).parent


@pytest.fixture
def records(tmp_path, monkeypatch):
    """Return a function that returns the processes, threads and rows of the batches since its last call."""
    monkeypatch.setenv("SEARCH_RECORDS", str(tmp_path))
    monkeypatch.syspath_prepend(FOLDER)

    def read():
        file = tmp_path / "batches.txt"
        batches = [tuple(map(int, line.split())) for line in file.read_text().splitlines()] if file.exists() else []
        file.write_text("")
        return batches

    return read


@pytest.fixture
def search_in_process(tmp_path, records, tiny_text_model, tiny_image_model):
    """Return a function that runs the search in a new process: whether torch was imported, and the score."""
    models = {"text": tiny_text_model, "image": tiny_image_model}

    def run(kind="text", store="auto", n_jobs=1, backend="loky", **environment):
        paths = os.pathsep.join([str(Path(skmm.__file__).parents[1]), str(FOLDER)])
        arguments = [kind, models[kind], str(store), str(n_jobs), backend]
        done = subprocess.run(
            [sys.executable, str(FOLDER / "search_script.py"), *arguments],
            env={
                **os.environ,
                "PYTHONPATH": paths,
                "TMPDIR": str(tmp_path),
                "PYTHONWARNINGS": "error:The embedding",
                **environment,
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        # Private folders are removed at exit.
        assert not list(tmp_path.glob("skmm-store-*"))
        has_torch, score = done.stdout.split()
        return has_torch == "True", float(score)

    return run


def check_work(batches, n_items, n_workers):
    """Check that all items were encoded, by no more workers than there are, and by no worker twice."""
    rows_of = Counter()
    for *worker, n_rows in batches:
        rows_of[tuple(worker)] += n_rows
    assert len({process for process, _ in rows_of}) <= n_workers
    assert max(rows_of.values()) <= n_items <= rows_of.total()


def test_each_item_is_encoded_once(records, tiny_text_model):
    from search_script import N_ITEMS, search

    search("text", tiny_text_model, "auto", 1, "loky")
    assert sum(n_rows for *_, n_rows in records()) == N_ITEMS


def test_threads(records, tiny_text_model):
    from search_script import N_ITEMS, search

    score = search("text", tiny_text_model, "auto", 2, "threading")
    check_work(records(), N_ITEMS, 1)
    assert search("text", tiny_text_model, "auto", 2, "threading") == score
    assert records() == []


@pytest.mark.slow
def test_two_workers_and_a_later_run(search_in_process, records, tmp_path):
    from search_script import N_ITEMS

    _, score = search_in_process(store=tmp_path / "store", n_jobs=2)
    check_work(records(), N_ITEMS, 2)
    # Another process encodes nothing in the same store, and needs no torch.
    assert search_in_process(store=tmp_path / "store") == (False, score)
    assert records() == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "backend", "n_jobs"), [("text", "multiprocessing", 2), ("image", "loky", 4)])
def test_kinds_of_workers(search_in_process, records, tmp_path, kind, backend, n_jobs):
    from search_script import N_ITEMS

    _, score = search_in_process(kind, tmp_path / "store", n_jobs, backend)
    check_work(records(), N_ITEMS, n_jobs)
    assert search_in_process(kind, tmp_path / "store", n_jobs, backend) == (False, score)
    assert records() == []


@pytest.mark.slow
def test_workers_that_share_a_gpu_take_turns(search_in_process, records, tmp_path):
    from search_script import N_ITEMS

    search_in_process(n_jobs=4, HAS_GPU="1")
    assert sum(n_rows for *_, n_rows in records()) == N_ITEMS
    # One worker encodes an item for the width, two the training rows of two folds, which are all items.
    loads = (tmp_path / "loads.txt").read_text().split()
    assert 1 <= len(loads) == len(set(loads)) <= 3
