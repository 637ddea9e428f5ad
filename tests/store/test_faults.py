"""Processes that are killed and files that are damaged: nothing that was kept is lost, and nothing wrong is given."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import skmm
from skmm import EmbeddingStore

# Forks three processes that read and write, and 50 writers, one after the other, that it kills at random moments.
KILLS = """
import os, random, signal, sys, time, warnings
import numpy as np
from skmm import EmbeddingStore

warnings.simplefilter("error")
WIDTH, BATCH = 24, 20

def keys_of(numbers):
    return [np.random.PCG64(int(i)).random_raw(4).tobytes() for i in numbers]

def rows_of(numbers):
    words = [np.random.PCG64(int(i) + 10**6).random_raw(WIDTH // 2) for i in numbers]
    return (np.stack(words).view(np.uint32) % 2**20).astype(np.float32)

def check(store, numbers):
    '''Give how many of the numbers are there; each as it was computed.'''
    rows, n = rows_of(numbers), 0
    def take(positions, found):
        nonlocal n
        n += len(positions)
        wrong.extend(positions[(found != rows[positions]).any(axis=1)])

    wrong = []
    store.get_rows(keys_of(numbers), WIDTH, take)
    assert not wrong
    return n

def put(store, numbers):
    store.put_rows(keys_of(numbers), rows_of(numbers))

folder, stop = sys.argv[1], time.monotonic() + 120
others = []
for seed in range(3):
    child = os.fork()
    if child == 0:
        rng, store, code = np.random.default_rng(seed), EmbeddingStore(folder), 1
        try:
            while not os.path.exists(folder + ".done") and time.monotonic() < stop:
                numbers = rng.choice(2000, 60, replace=False)
                check(store, numbers)
                put(store, numbers[:BATCH])
                time.sleep(0.002)
            code = 0
        finally:
            os._exit(code)
    others.append(child)

committed, chance = set(), random.Random(0)
for kill in range(50):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        store, code = EmbeddingStore(folder), 1
        try:
            for start in range(2000 + 1000 * kill, 3000 + 1000 * kill, BATCH):
                put(store, range(start, start + BATCH))
                os.write(into, b"%d\\n" % start)
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    # Not before it has begun.
    told = os.read(out, 100)
    time.sleep(chance.random() * 0.03)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(out, 1 << 16):
        told += more
    os.close(out)
    for line in told.split():
        committed.update(range(int(line), int(line) + BATCH))

open(folder + ".done", "w").close()
assert [os.waitpid(child, 0)[1] for child in others] == [0, 0, 0]
with EmbeddingStore(folder) as store:
    numbers = sorted(committed)
    assert check(store, numbers) == len(numbers) >= 50 * BATCH
    everything = range(2000 + 1000 * 50)
    print(len(numbers), check(store, everything), store.info()["entries"])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_writers(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(skmm.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path / "store")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    n_committed, n_right, n_entries = map(int, done.stdout.split())
    # What was written and not told of may be there as well, and is right.
    assert n_committed <= n_right == n_entries


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
    """Read and mend a store with damage; give how many rows were there before and after."""
    with warnings.catch_warnings(), EmbeddingStore(folder, max_bytes=2**30) as store:
        warnings.simplefilter("ignore")
        before = read(store)
        lost = np.isnan(before).any(axis=1)
        np.testing.assert_array_equal(before[~lost], ROWS[~lost])
        if lost.any():
            store.put_rows([key for key, is_lost in zip(KEYS, lost, strict=True) if is_lost], ROWS[lost])
        after = read(store)
        is_there = ~np.isnan(after).any(axis=1)
        np.testing.assert_array_equal(after[is_there], ROWS[is_there])
        store.info()
    return N - int(lost.sum()), int(is_there.sum())


@pytest.mark.parametrize("which", [0, 1], ids=["database", "log"])
def test_changed_bytes(files, tmp_path, which):
    rng = np.random.default_rng(0)
    n_lost = n_mended = 0
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
        n_mended += n_before < n_after == N
    # Else the damage was in no place that counts.
    assert n_lost > 50
    assert n_mended > 30


@pytest.mark.parametrize("which", [0, 1], ids=["database", "log"])
def test_truncated_files(files, tmp_path, which):
    for trial, part in enumerate(np.linspace(0, 1, 25)):
        folder = tmp_path / str(trial)
        folder.mkdir()
        for name, content in files[which].items():
            (folder / name).write_bytes(content[: int(part * len(content))])
        check_damaged(folder)
