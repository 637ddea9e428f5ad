"""How far a reader has to walk: the files of skmm that one call enters, and how often it changes files."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

import skmm
from skmm import CCAFusion, ModalityFuser, TextEncoder

ROOT = str(Path(skmm.__file__).parent)


def trip(call):
    """Return the number of files that a call enters in this thread, and of its changes between them."""
    files = []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            files.append(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return len(set(files)), sum(a != b for a, b in pairwise(files))


@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger or a measurement of coverage watches the calls")
def test_three_captions(tiny_text_model, tmp_path):
    X = pd.DataFrame({"caption": ["the cat", "a dog", "on the mat"], "weight": [1.0, 2, 3]})

    def fuser(store):
        encoder = TextEncoder(tiny_text_model, device="cpu", store=store)
        return ModalityFuser([("text", encoder, "caption"), ("table", StandardScaler(), ["weight"])])

    # Imports and the loading of models are not the trip.
    fuser(None).fit_transform(X)
    n_files, n_changes = trip(lambda: fuser(tmp_path / "store").fit_transform(X))
    assert n_files <= 16
    assert n_changes <= 90


def test_an_algorithm_reads_top_down():
    X = np.random.default_rng(0).normal(size=(50, 6))
    fusion = CCAFusion(blocks={"a": slice(0, 3), "b": slice(3, 6)})
    n_files, n_changes = trip(lambda: fusion.fit_transform(X))
    assert n_files <= 6
    assert n_changes <= 33
