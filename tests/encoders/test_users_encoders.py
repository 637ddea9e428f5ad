"""Encoders of users: subclasses of the public bases, and modules that keep something between calls."""

import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.callback import ProgressBar
from torch import nn

from skmm import EmbeddingStore
from skmm.encoders import ImageEncoder, ItemEncoder, TextEncoder


@pytest.fixture
def store(tmp_path):
    with EmbeddingStore(tmp_path / "store") as store:
        yield store


def test_a_subclass_that_loads_other_weights_has_rows_of_its_own(tiny_text_model, store):
    class Doubled(TextEncoder):
        def _load_model(self, source, device, dtype):
            model = super()._load_model(source, device, dtype)
            with torch.no_grad():
                for parameter in model.network.parameters():
                    parameter.mul_(2)
            return model

    first = Doubled(tiny_text_model, store=store).fit_transform(["cat"])
    plain = TextEncoder(tiny_text_model, store=store).fit_transform(["cat"])
    assert not np.allclose(first, plain)
    assert_allclose(plain, TextEncoder(tiny_text_model, store=None).fit_transform(["cat"]), atol=1e-6)


class Shifted(TextEncoder):
    """Adds a parameter to each row."""

    def __init__(self, model="", *, shift=0, store="auto", on_error="raise", verbose=False):
        super().__init__(model, store=store, on_error=on_error, verbose=verbose)
        self.shift = shift

    def get_params(self, deep=True):
        return {name: getattr(self, name) for name in ("model", "shift", "store", "on_error", "verbose")}

    def _settings(self, source):
        return super(TextEncoder, self)._settings(source)

    def _forward(self, model, batch):
        return super()._forward(model, batch) + float(np.sum(self.shift))


def test_a_version_tells_changes_of_the_code_apart(tiny_text_model, store):
    Shifted(tiny_text_model, store=store).fit_transform(["cat"])
    assert (store.hits, store.misses) == (0, 1)

    class Changed(Shifted):
        _version = 1

    Changed.__qualname__ = Shifted.__qualname__
    Changed(tiny_text_model, store=store).fit_transform(["cat"])
    assert (store.hits, store.misses) == (0, 2)
    Shifted(tiny_text_model, store=store).fit_transform(["cat"])
    assert (store.hits, store.misses) == (1, 2)


def test_parameters_that_are_no_plain_data_leave_out_the_store(tiny_text_model, store):
    first = Shifted(tiny_text_model, shift=(1, 2), store=store).fit_transform(["cat"])
    second = Shifted(tiny_text_model, shift=(1, 3), store=store).fit_transform(["cat"])
    assert_allclose(second, first + 1, atol=1e-5)
    with pytest.warns(UserWarning, match="embeddings are not kept.*parameter shift is no plain data, but a ndarray"):
        third = Shifted(tiny_text_model, shift=np.arange(2000), store=store).fit_transform(["cat"])
    assert_allclose(third, first - 3 + np.arange(2000).sum(), rtol=1e-4)


class Lengths(ItemEncoder):
    """Counts what it prepares."""

    _strings_are_paths = False
    n_prepared = 0

    def __init__(self, unit=1, *, store=None, on_error="raise", verbose=False):
        self.unit, self.store, self.on_error, self.verbose = unit, store, on_error, verbose

    def _fit_width(self):
        self.n_features_out_ = 1

    def _prepare_item(self, item):
        type(self).n_prepared += 1
        return len(item)

    def _encode_batch(self, batch, model):
        return np.array(batch, dtype=np.float32)[:, None] * np.sum(self.unit)


def test_an_encoder_of_items_may_have_a_parameter_called_store():
    assert_array_equal(Lengths(store="somewhere").fit_transform(["ab", "c"]), [[2], [1]])


def test_an_encoder_of_items_may_keep_its_rows(store):
    class Stored(Lengths):
        _stores_rows = True
        n_prepared = 0

    for _ in range(2):
        assert_array_equal(Stored(store=store).fit_transform(["ab", "c", "ab"]), [[2], [1], [2]])
    assert (Stored.n_prepared, store.hits, store.misses) == (2, 2, 2)
    # Parameters and the version have a part in the rows, what to do with errors has none.
    assert_array_equal(Stored(3, store=store, on_error="missing").fit_transform(["ab"]), [[6]])
    Stored(store=store, on_error="missing", verbose=True).fit_transform(["c"])
    assert Stored.n_prepared == 3
    Stored._version = 1
    Stored(store=store).fit_transform(["c"])
    assert Stored.n_prepared == 4
    with pytest.warns(UserWarning, match="nothing is kept in the store.*parameter unit is no plain data"):
        assert_array_equal(Stored(np.ones(2), store=store).fit_transform(["c"]), [[2]])


def test_a_module_that_keeps_something_between_its_layers():
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(16, 1000)
            self.body.register_forward_hook(self.keep)

        def keep(self, module, inputs, output):
            self.kept = output

        def forward(self, x):
            self.head(x.new_zeros(200, 16))
            self.body(x)
            self.head(self.kept)
            return self.kept

    torch.manual_seed(0)
    module = Hooked().eval()
    images = np.random.default_rng(0).integers(256, size=(90, 24, 24, 3), dtype=np.uint8)
    config = {"input_size": (3, 24, 24), "crop_pct": 1.0}
    encoder = ImageEncoder(module, preprocess=config, device="cpu", batch_size=8, store=None)
    X = encoder.fit_transform(images)
    for start in range(0, 90, 30):
        assert_allclose(encoder.transform(images[start : start + 30]), X[start : start + 30], atol=1e-5)


def test_a_slow_module_in_one_thread_stops_no_other_encoder(tiny_text_model):
    go, begun = threading.Event(), threading.Event()

    def slow(image):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go.wait(600)
        return torch.zeros(3, 8, 8)

    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    texts = TextEncoder(tiny_text_model).fit(["cat"])
    thread = threading.Thread(
        target=ImageEncoder(module, preprocess=slow).fit_transform, args=([np.zeros((8, 8, 3), np.uint8)],)
    )
    thread.start()
    try:
        assert begun.wait(600)
        # Would wait for ever if the encoders shared a lock.
        assert texts.transform(["cat"]).shape == texts.fit_transform(["dog"]).shape
    finally:
        go.set()
        thread.join()


def test_clones_keep_their_callbacks(tiny_text_model):
    encoder = TextEncoder(tiny_text_model).set_callbacks(ProgressBar())
    assert clone(encoder)._skl_callbacks == encoder._skl_callbacks
