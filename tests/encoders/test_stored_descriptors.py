"""Descriptors keep their rows in the store, as encoders do."""

import io
import pickle

import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from skmm import AudioDescriptor, EmbeddingStore, ImageDescriptor
from skmm.model_selection import compare_fusions
from skmm.store import _private_folder

RATE = 16_000
RNG = np.random.default_rng(0)
ITEMS = {
    "image": list(RNG.integers(256, size=(12, 16, 16, 3), dtype=np.uint8)),
    "audio": [(RATE, RNG.normal(size=1600) / 9) for _ in range(12)],
}
DESCRIPTORS = {
    "image": lambda **options: ImageDescriptor(["hog", "color"], size=16, **options),
    "audio": lambda **options: AudioDescriptor(["mfcc", "rms"], **options),
}
per_kind = pytest.mark.parametrize("kind", DESCRIPTORS)


@pytest.fixture
def n_described(monkeypatch):
    """Counts of the items that descriptors prepared and encoded."""
    counts = {"prepared": 0, "encoded": 0}
    for owner in (ImageDescriptor, AudioDescriptor):

        def prepare(self, item, prepare=owner._prepare_item):
            counts["prepared"] += 1
            return prepare(self, item)

        def encode(self, batch, model, encode=owner._encode_batch):
            counts["encoded"] += len(batch)
            return encode(self, batch, model)

        monkeypatch.setattr(owner, "_prepare_item", prepare)
        monkeypatch.setattr(owner, "_encode_batch", encode)
    return counts


@per_kind
@pytest.mark.parametrize("store", ["auto", "path", "object", None])
def test_items_are_described_once(kind, store, n_described, tmp_path):
    pytest.importorskip("librosa")
    store = {"path": tmp_path, "object": EmbeddingStore(tmp_path)}.get(store, store)
    descriptor = DESCRIPTORS[kind](store=store)
    rows = descriptor.fit_transform(ITEMS[kind])
    assert n_described == {"prepared": 12, "encoded": 12}
    for again in (descriptor, clone(descriptor).fit(ITEMS[kind]), pickle.loads(pickle.dumps(descriptor))):
        if store is not None or again is descriptor:
            assert_array_equal(again.transform(ITEMS[kind]), rows)
    assert n_described["encoded"] == (24 if store is None else 12)
    # To the bit what is computed without a store.
    assert_array_equal(DESCRIPTORS[kind](store=None).fit_transform(ITEMS[kind]), rows)


@per_kind
def test_rows_are_known_by_the_parameters_that_decide_them(kind, n_described, tmp_path):
    pytest.importorskip("librosa")
    options = {"image": {"background": "red", "orientations": 4, "size": 24}, "audio": {"n_fft": 512, "n_mfcc": 5}}[
        kind
    ]
    store = EmbeddingStore(tmp_path)
    DESCRIPTORS[kind](store=store).fit_transform(ITEMS[kind][:1])
    for number, (name, value) in enumerate(options.items(), start=2):
        descriptor = DESCRIPTORS[kind](store=store).set_params(**{name: value})
        expected = clone(descriptor).set_params(store=None).fit_transform(ITEMS[kind][:1])
        assert_array_equal(descriptor.fit_transform(ITEMS[kind][:1]), expected)
        assert store.info()["entries"] == number
    # These change no row.
    other = DESCRIPTORS[kind](store=store, on_error="missing", verbose=True, root=tmp_path)
    if kind == "image":
        other.set_params(pooling="max")
    n_encoded = n_described["encoded"]
    other.fit_transform(ITEMS[kind][:1])
    assert n_described["encoded"] == n_encoded


@pytest.mark.slow
def test_a_comparison_describes_each_recording_once(n_described):
    """Whatever the strategies, folds and repeats."""
    pytest.importorskip("librosa")
    X = pd.DataFrame({"sound": ITEMS["audio"] * 2, "photo": ITEMS["image"] * 2, "x": RNG.normal(size=24)})
    modalities = [
        ("sound", DESCRIPTORS["audio"](), "sound"),
        ("photo", DESCRIPTORS["image"](), "photo"),
        ("x", "passthrough", ["x"]),
    ]
    compare_fusions(
        LogisticRegression(), X, np.arange(24) % 2, modalities=modalities, cv=3, n_repeats=2, random_state=0
    )
    assert n_described == {"prepared": 24, "encoded": 24}


def test_a_changed_file_is_described_again(tmp_path, n_described):
    descriptor = ImageDescriptor("pixels", size=8, store=tmp_path / "store")
    rows = []
    for value in (10, 200):
        Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(tmp_path / "a.png")
        rows.append(descriptor.fit_transform([tmp_path / "a.png"] * 2)[0, 0])
    assert rows == pytest.approx([10 / 255, 200 / 255])
    assert n_described["encoded"] == 2


def test_bad_items_are_not_kept(tmp_path):
    store = EmbeddingStore(tmp_path)
    descriptor = ImageDescriptor("pixels", size=8, store=store, on_error="missing")
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 3 items could not be encoded"):
            rows = descriptor.fit_transform([ITEMS["image"][0], b"bad", None])
        assert np.isnan(rows[1:]).all()
        assert len(descriptor.errors_) == 1
    assert store.info()["entries"] == 1


def _describe(descriptor, items):
    return descriptor.transform(items), str(_private_folder.private_folder())


@pytest.mark.slow
def test_workers_find_the_private_store():
    stream = io.BytesIO()
    Image.fromarray(ITEMS["image"][0]).save(stream, "PNG")
    descriptor = ImageDescriptor("pixels", size=8).fit([stream.getvalue()])
    results = Parallel(n_jobs=2)(delayed(_describe)(descriptor, [stream.getvalue()]) for _ in range(2))
    assert {folder for _, folder in results} == {str(_private_folder.private_folder())}
    assert_array_equal(results[0][0], descriptor.transform([stream.getvalue()]))
