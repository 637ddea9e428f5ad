"""What the store is for: a search encodes each item once, whatever the folds, candidates, processes and runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import skmm

# A search over 8 candidates and 5 folds that notes each row that goes through the network, in all processes.
SEARCH = """
import os, sys
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from counting import CountingImageEncoder, CountingTextEncoder
from skmm.datasets import load_glyphs

kind, model, store, n_jobs, backend = sys.argv[1:]
X, y = load_glyphs(n_samples=240, return_X_y=True)
make_encoder = {"text": CountingTextEncoder, "image": CountingImageEncoder}[kind]
encoder = make_encoder(model, store=store, device="cpu", batch_size=8)
n_items = len({getattr(item, "tobytes", item.__str__)() for item in X[kind]})
pipe = make_pipeline(encoder, RidgeClassifier())
grid = {"ridgeclassifier__alpha": [10.0**i for i in range(-3, 5)]}
import joblib
with joblib.parallel_config(backend=backend):
    search = GridSearchCV(pipe, grid, cv=5, n_jobs=int(n_jobs), error_score="raise").fit(X[kind], y)
print(n_items, "torch" in sys.modules, float(search.best_score_))
"""

# Batches that last make workers meet, also where they share one core.
COUNTING = """
import os, threading, time
from pathlib import Path
from skmm import ImageEncoder, TextEncoder
from skmm.encoders import _model

def expected_place(device, precision):
    import torch
    return "cuda", "float32"

if "HAS_GPU" in os.environ:
    # As far as taking turns goes; networks run on the CPU.
    _model.expected_place = expected_place

class Counting:
    def _load_model(self, *args):
        with open(Path(__file__).with_name("loads.txt"), "a") as file:
            file.write(f"{os.getpid()}\\n")
        return super()._load_model(*args)

    def _encode_batch(self, batch, model):
        with open(Path(__file__).with_name("passes.txt"), "a") as file:
            file.write(f"{os.getpid()} {len(batch)}\\n")
        time.sleep(0.03)
        return super()._encode_batch(batch, model)

class CountingTextEncoder(Counting, TextEncoder):
    pass

class CountingImageEncoder(Counting, ImageEncoder):
    pass
"""


@pytest.fixture
def search(tmp_path, tiny_text_model, tiny_image_model):
    """Give a function that runs the search in a new process: number of items, torch imported, score, batches."""
    (tmp_path / "counting.py").write_text(COUNTING)
    (tmp_path / "search.py").write_text(SEARCH)
    passes = tmp_path / "passes.txt"

    models = {"text": tiny_text_model, "image": tiny_image_model}

    def run(store="auto", n_jobs=1, backend="loky", kind="text", **environment):
        passes.write_text("")
        paths = os.pathsep.join([str(Path(skmm.__file__).parents[1]), str(tmp_path)])
        done = subprocess.run(
            [sys.executable, "search.py", kind, models[kind], str(store), str(n_jobs), backend],
            cwd=tmp_path,
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
        n_items, has_torch, score = done.stdout.split()
        batches = [tuple(map(int, line.split())) for line in passes.read_text().splitlines()]
        # Private folders go with their process.
        assert not list(tmp_path.glob("skmm-store-*"))
        return int(n_items), has_torch == "True", float(score), batches

    return run


def test_each_item_is_encoded_once(search):
    n_items, _, _, batches = search()
    assert sum(rows for _, rows in batches) == n_items


def test_two_workers_and_a_later_run(search, tmp_path):
    n_items, _, score, batches = search(tmp_path / "kept", n_jobs=2)
    workers = {worker for worker, _ in batches}
    assert len(workers) <= 2
    duplicates = sum(rows for _, rows in batches) - n_items
    largest = max(rows for _, rows in batches)
    assert 0 <= duplicates <= len(workers) * largest
    # In the same store another process, and the workers of a third, encode nothing and need no torch.
    assert search(tmp_path / "kept") == (n_items, False, score, [])
    assert search(tmp_path / "kept", n_jobs=2) == (n_items, False, score, [])


@pytest.mark.parametrize(
    ("kind", "backend", "n_jobs"),
    [
        ("text", "threading", 2),
        ("text", "multiprocessing", 2),
        ("image", "loky", 4),
        ("image", "threading", 4),
    ],
)
def test_workers_repeat_at_most_a_batch(search, kind, backend, n_jobs):
    n_items, _, _, batches = search(n_jobs=n_jobs, backend=backend, kind=kind)
    duplicates = sum(rows for _, rows in batches) - n_items
    assert 0 <= duplicates <= n_jobs * max(rows for _, rows in batches)
    assert len({worker for worker, _ in batches}) <= n_jobs


def test_workers_that_share_a_gpu_take_turns(search, tmp_path):
    n_items, _, _, batches = search(n_jobs=4, HAS_GPU="1")
    assert sum(rows for _, rows in batches) == n_items
    # One tells the width, two encode the training rows of two folds, and no item is left.
    loads = (tmp_path / "loads.txt").read_text().split()
    assert 1 <= len(loads) == len(set(loads)) <= 3
