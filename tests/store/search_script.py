"""A search over 8 candidates and 5 folds that records each batch that goes through the network, in all processes.

As a script: python search_script.py kind model store n_jobs backend. The folder for the records is in SEARCH_RECORDS.
"""

import os
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skmm import ImageEncoder, TextEncoder
from skmm.encoders import _run

N_ITEMS = 180


def record(name, *words):
    with open(Path(os.environ["SEARCH_RECORDS"]) / name, "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


class Recording:
    def _load_model(self, *args):
        record("loads.txt", os.getpid())
        return super()._load_model(*args)

    def _encode_batch(self, batch, model):
        record("batches.txt", os.getpid(), threading.get_ident(), len(batch))
        # Batches that last let workers meet, also where they share one core.
        time.sleep(0.01)
        return super()._encode_batch(batch, model)


class RecordingTextEncoder(Recording, TextEncoder):
    pass


class RecordingImageEncoder(Recording, ImageEncoder):
    pass


def make_items(kind):
    """Return 240 items, of which 180 differ, and their labels."""
    numbers = np.random.default_rng(0).permutation(240) % N_ITEMS
    if kind == "text":
        items = [f"text {number}" for number in numbers]
    else:
        images = np.random.default_rng(1).integers(256, size=(N_ITEMS, 8, 8, 3), dtype=np.uint8)
        items = [images[number] for number in numbers]
    return items, numbers % 3


def search(kind, model, store, n_jobs, backend):
    """Return the best score of the search."""
    items, y = make_items(kind)
    make_encoder = {"text": RecordingTextEncoder, "image": RecordingImageEncoder}[kind]
    pipe = make_pipeline(make_encoder(model, store=store, device="cpu", batch_size=8), RidgeClassifier())
    grid = {"ridgeclassifier__alpha": [10.0**i for i in range(-3, 5)]}
    with joblib.parallel_config(backend=backend):
        return GridSearchCV(pipe, grid, cv=5, n_jobs=n_jobs, error_score="raise").fit(items, y).best_score_


def pretend_gpu(device, precision):
    # As for a real one, whose settings are a part of the key of an embedding.
    import torch  # noqa: F401

    return "cuda", "float32"


# In each process, since workers import this file as well. Networks run on the CPU all the same.
if "HAS_GPU" in os.environ:
    _run.expected_place = pretend_gpu

if __name__ == "__main__":
    # Classes of a script are sent to workers as a copy of their code, those of a module by its name.
    import search_script

    kind, model, store, n_jobs, backend = sys.argv[1:]
    score = search_script.search(kind, model, store, int(n_jobs), backend)
    print("torch" in sys.modules, float(score))
