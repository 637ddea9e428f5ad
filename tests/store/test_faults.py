"""Processes that are killed and files that are damaged: nothing stored is lost, and no wrong row is returned."""

import os
import signal
import time
import traceback
import warnings

import numpy as np
import pytest

from skmm import EmbeddingStore

# Rows of the test with killed processes: their width, and how many are written at once.
KILLED_WIDTH, BATCH = 24, 20


def numbered_keys(numbers):
    return [np.random.PCG64(int(i)).random_raw(4).tobytes() for i in numbers]


def numbered_rows(numbers):
    words = [np.random.PCG64(int(i) + 10**6).random_raw(KILLED_WIDTH // 2) for i in numbers]
    return (np.stack(words).view(np.uint32) % 2**20).astype(np.float32)


def count_rows(store, numbers):
    """Return how many of the numbers have a row; raise if a row is wrong."""
    out = np.full((len(numbers), KILLED_WIDTH), np.nan, dtype=np.float32)
    store.get_rows(numbered_keys(numbers), KILLED_WIDTH, out.__setitem__)
    is_stored = ~np.isnan(out).any(axis=1)
    np.testing.assert_array_equal(out[is_stored], numbered_rows(numbers)[is_stored])
    return int(is_stored.sum())


def put_rows(store, numbers):
    store.put_rows(numbered_keys(numbers), numbered_rows(numbers))


def fork(function):
    """Return the id of a child process that calls a function, and ends with status 0 if that raises nothing."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("n_kills", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_writers(tmp_path, n_kills):
    folder, end, parent = tmp_path / "store", tmp_path / "end", os.getpid()

    def read_and_write(seed):
        rng, store = np.random.default_rng(seed), EmbeddingStore(folder)
        while not end.exists() and os.getppid() == parent:
            numbers = rng.choice(2000, 60, replace=False)
            count_rows(store, numbers)
            put_rows(store, numbers[:BATCH])
            time.sleep(0.002)

    def write_and_report(first, pipe):
        store = EmbeddingStore(folder)
        for start in range(first, first + 1000, BATCH):
            put_rows(store, range(start, start + BATCH))
            os.write(pipe, b"%d\n" % start)

    bystanders = [fork(lambda seed=seed: read_and_write(seed)) for seed in range(3)]
    committed, rng = set(), np.random.default_rng(0)
    try:
        for kill in range(n_kills):
            reports, pipe = os.pipe()
            child = fork(lambda kill=kill, pipe=pipe: write_and_report(2000 + 1000 * kill, pipe))
            os.close(pipe)
            # Not before it has begun.
            text = os.read(reports, 100)
            time.sleep(0.03 * rng.random())
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            while more := os.read(reports, 1 << 16):
                text += more
            os.close(reports)
            for start in map(int, text.split()):
                committed.update(range(start, start + BATCH))
    finally:
        end.touch()
        statuses = [os.waitpid(child, 0)[1] for child in bystanders]
    assert statuses == [0, 0, 0]
    with EmbeddingStore(folder) as store:
        assert count_rows(store, sorted(committed)) == len(committed) >= n_kills * BATCH
        # What was written and not reported may be stored as well, and is right.
        assert count_rows(store, range(2000 + 1000 * n_kills)) == store.info()["entries"]


N, WIDTH = 400, 32
KEYS = [row.tobytes() for row in np.random.default_rng(0).integers(2**63, size=(N, 4), dtype=np.uint64)]
ROWS = np.random.default_rng(1).normal(size=(N, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Bytes of a store's files: a database, and one with part of its rows in the write-ahead log."""
    folder = tmp_path_factory.mktemp("whole")
    with EmbeddingStore(folder) as store:
        store.put_rows(KEYS[:300], ROWS[:300])
    plain = {"embeddings.sqlite": (folder / "embeddings.sqlite").read_bytes()}
    with EmbeddingStore(folder) as store:
        store.put_rows(KEYS[300:], ROWS[300:])
        logged = {path.name: path.read_bytes() for path in folder.glob("*.sqlite*") if not path.name.endswith("shm")}
    return [plain, logged]


def read(store):
    out = np.full((N, WIDTH), np.nan, dtype=np.float32)
    store.get_rows(KEYS, WIDTH, out.__setitem__)
    return out


def check_damaged(folder):
    """Read a damaged store and write what is missing; return how many rows it had before and after."""
    with warnings.catch_warnings(), EmbeddingStore(folder, max_bytes=2**30) as store:
        warnings.simplefilter("ignore")
        before = read(store)
        lost = np.isnan(before).any(axis=1)
        np.testing.assert_array_equal(before[~lost], ROWS[~lost])
        if lost.any():
            store.put_rows([key for key, is_lost in zip(KEYS, lost, strict=True) if is_lost], ROWS[lost])
        after = read(store)
        is_stored = ~np.isnan(after).any(axis=1)
        np.testing.assert_array_equal(after[is_stored], ROWS[is_stored])
        store.info()
    return N - int(lost.sum()), int(is_stored.sum())


@pytest.mark.parametrize("which", [0, 1], ids=["database", "log"])
def test_changed_bytes(files, tmp_path, which):
    rng = np.random.default_rng(0)
    n_lost = n_repaired = 0
    for trial in range(150):
        folder = tmp_path / str(trial)
        folder.mkdir()
        for name, content in files[which].items():
            damaged = bytearray(content)
            for place in rng.integers(len(damaged), size=1 if trial % 3 else 20):
                damaged[place] ^= rng.integers(1, 256)
            (folder / name).write_bytes(damaged)
        n_before, n_after = check_damaged(folder)
        n_lost += n_before < (300, N)[which]
        n_repaired += n_before < n_after == N
    # Else the damage was in no place that counts.
    assert n_lost > 50
    assert n_repaired > 30


@pytest.mark.parametrize("which", [0, 1], ids=["database", "log"])
def test_truncated_files(files, tmp_path, which):
    for trial, part in enumerate(np.linspace(0, 1, 25)):
        folder = tmp_path / str(trial)
        folder.mkdir()
        for name, content in files[which].items():
            (folder / name).write_bytes(content[: int(part * len(content))])
        check_damaged(folder)
