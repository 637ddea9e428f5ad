"""Items that are read batch by batch: the same results as with all in memory, bounded memory, errors, missing rows."""

import pickle
import threading

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import wavfile
from sklearn.base import clone

from skmm.exceptions import BranchItemError
from skmm.neural_network import (
    AudioBranch,
    ImageBranch,
    MultimodalNetClassifier,
    MultimodalNetRegressor,
    TextBranch,
    VideoBranch,
)

N = 40
SMALL = {"width": 8, "random_state": 0, "device": "cpu", "batch_size": 9, "max_epochs": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of pictures and recordings, clips, texts, and classes."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    columns = {name: np.empty(N, dtype=object) for name in ("image", "sound", "clip", "text")}
    for row in range(N):
        pixels = rng.integers(256, size=(20 + row % 3, 24, 3), dtype=np.uint8)
        columns["image"][row] = str(folder / f"{row}.png")
        Image.fromarray(pixels).save(columns["image"][row])
        columns["sound"][row] = str(folder / f"{row}.wav")
        wavfile.write(columns["sound"][row], 8000, rng.normal(size=2000 + 300 * (row % 4)).astype(np.float32))
        columns["clip"][row] = rng.integers(256, size=(3 + row % 5, 12, 16, 3), dtype=np.uint8)
        columns["text"][row] = "the cat sat on the mat " * (1 + row % 4) + "dog" * (row % 2)
    return pd.DataFrame(columns), np.arange(N) % 2


@pytest.fixture
def branches(tiny_text_model, tiny_image_model, make_audio_model):
    return {
        "small text": ("text", TextBranch(n_embedding=8, n_hidden=8)),
        "small image": ("image", ImageBranch(size=16, channels=(4,), n_hidden=8)),
        "small sound": ("sound", AudioBranch(n_hidden=8, n_layers=1, n_mels=8, target_rate=8000)),
        "text": ("text", TextBranch(model=tiny_text_model)),
        "image": ("image", ImageBranch(tiny_image_model, learning_rate=0.01)),
        "sound": ("sound", AudioBranch(model=make_audio_model("wav2vec2_layer"), max_seconds=0.3)),
        "video": ("clip", VideoBranch(tiny_image_model, n_frames=4)),
    }


@pytest.fixture
def read_in_batches(monkeypatch):
    """Give a function that lets networks read items batch by batch from then on."""

    def start():
        monkeypatch.setattr("skmm.neural_network._inputs.MAX_BYTES_HELD", 0)
        monkeypatch.setattr("skmm.neural_network._inputs._MIN_ROWS_TO_READ", 1)

    return start


KINDS = ["small text", "small image", "small sound", "text", "image", "sound", "video"]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in ("image", "video") else kind for kind in KINDS]
)
def test_as_with_all_in_memory(files, branches, read_in_batches, kind):
    X, y = files
    X = X.copy()
    column, branch = branches[kind]
    X.loc[::7, column] = None
    X["number"] = np.arange(float(N))
    net = MultimodalNetClassifier([("m", branch, column), ("number", "passthrough", ["number"])], **SMALL)
    net.set_params(early_stopping=True, validation_fraction=0.2)
    held = clone(net).fit(X, y)
    expected = held.predict_proba(X)
    read_in_batches()
    read = net.fit(X, y)
    assert read.loss_curve_ == held.loss_curve_
    assert read.validation_scores_ == held.validation_scores_
    np.testing.assert_array_equal(read.predict_proba(X), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(read)).predict_proba(X), expected)
    # A batch in which the modality is missing everywhere.
    np.testing.assert_allclose(read.predict_proba(X[::7]), expected[::7], rtol=1e-4, atol=1e-6)


def test_two_modalities_and_none_in_some_rows(files, branches, read_in_batches, monkeypatch):
    for name in ("_N_STEPS", "_MIN_EPOCHS"):
        monkeypatch.setattr(f"skmm.neural_network.network._training.{name}", 2)
    X, y = files
    X = X.copy()
    X.loc[::5, "image"] = None
    X.loc[::2, "text"] = None
    members = [(name, *reversed(branches[kind])) for name, kind in (("a", "small image"), ("b", "text"))]
    net = MultimodalNetRegressor(members, **SMALL, warm_up_head=True)
    held = clone(net).fit(X, y)
    with pytest.warns(UserWarning, match="4 of 40 rows have no modality"):
        expected = held.predict(X)
    read_in_batches()
    with pytest.warns(UserWarning, match="4 of 40 rows have no modality"):
        np.testing.assert_array_equal(net.fit(X, y).predict(X), expected)
    np.testing.assert_array_equal(net.partial_fit(X, y).transform(X), held.partial_fit(X, y).transform(X))


def test_few_rows_at_a_time(files, branches, read_in_batches, monkeypatch):
    X, y = files
    column, branch = branches["small image"]
    read_in_batches()
    counts, threads, prepare = [], set(), ImageBranch._prepare

    def counting(self, X):
        counts.append(len(X))
        threads.add(threading.current_thread())
        return prepare(self, X)

    monkeypatch.setattr(ImageBranch, "_prepare", counting)
    monkeypatch.setattr("skmm.neural_network.network._rows._ROWS_READ_AT_ONCE", 11)
    net = MultimodalNetClassifier([("m", branch, column)], **SMALL).fit(X, y)
    # A few rows tell how large the arrays are, then each row is read once in each epoch.
    assert counts[0] == 16
    assert max(counts[1:]) <= 9
    assert sum(counts[1:]) == 2 * N
    counts.clear()
    net.predict(X)
    assert counts == [16, 11, 11, 11, 7]
    # Beside the thread that trains.
    assert len(threads - {threading.current_thread()}) == 3


def test_arrays_of_small_data_are_held(files, branches, monkeypatch):
    X, y = files
    column, branch = branches["small image"]
    monkeypatch.setattr("skmm.neural_network._inputs._MIN_ROWS_TO_READ", 1)
    n_bytes = 3 * 16 * 16 * N
    for limit, is_held in ((n_bytes, True), (n_bytes - 1, False)):
        monkeypatch.setattr("skmm.neural_network._inputs.MAX_BYTES_HELD", limit)
        net = MultimodalNetClassifier([("m", branch, column)], **SMALL).fit(X, y)
        assert isinstance(net._prepare(X)[0][0], tuple) is is_held


@pytest.mark.parametrize("warms_up", [False, True])
def test_bad_items_are_reported_by_their_row(files, branches, read_in_batches, warms_up):
    X, y = files
    X = X.copy()
    X.loc[:3, "image"] = None
    X.loc[21, "image"] = "no such file.png"
    read_in_batches()
    column, branch = branches["image" if warms_up else "small image"]
    net = MultimodalNetClassifier([("photo", branch, column)], warm_up_head=warms_up, **SMALL)
    with pytest.raises(BranchItemError, match=r"modality 'photo', ImageBranch: row 21: .*no such file.*set it to None"):
        net.fit(X, y)
