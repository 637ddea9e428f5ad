"""Networks on CUDA: items read batch by batch, warm-up, changes of items, slices, half precision, compiled branches."""

import importlib.util
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from torch._dynamo.utils import counters

from skmm import MultimodalNetClassifier
from skmm.neural_network import AudioBranch, ImageBranch, TextBranch, VideoBranch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

N = 40
RNG = np.random.default_rng(0)
ITEMS = {
    "text": ["the cat sat on the mat " * (1 + row % 4) + "dog" * (row % 2) for row in range(N)],
    "image": [RNG.integers(256, size=(20, 24, 3), dtype=np.uint8) for _ in range(N)],
    "sound": [(16000, RNG.normal(size=4000 + 300 * (row % 4)).astype(np.float32)) for row in range(N)],
    "video": [RNG.integers(256, size=(3 + row % 5, 12, 16, 3), dtype=np.uint8) for row in range(N)],
}
KINDS = sorted(ITEMS)


@pytest.fixture(autouse=True)
def all_digits(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def make(tiny_text_model, tiny_image_model, make_audio_model):
    """Give a function that makes a network on one modality of a kind with missing items, its data, and classes."""
    branches = {
        "text": TextBranch(model=tiny_text_model),
        "image": ImageBranch(tiny_image_model),
        "sound": AudioBranch(model=make_audio_model("wav2vec2_layer")),
        "video": VideoBranch(tiny_image_model, n_frames=4),
    }

    def make_case(kind, branch_options=None, **options):
        items = np.empty(N, dtype=object)
        for row, item in enumerate(ITEMS[kind]):
            items[row] = item if row % 7 else None
        X = pd.DataFrame({kind: pd.Series(items, dtype=object), "number": np.arange(float(N))})
        members = [
            (kind, clone(branches[kind]).set_params(**(branch_options or {})), kind),
            ("number", "passthrough", ["number"]),
        ]
        options = {"width": 8, "dropout": 0, "batch_size": 9, "max_epochs": 2, "precision": "float32", **options}
        return MultimodalNetClassifier(members, device="cuda", random_state=0, **options), X, np.arange(N) % 2

    return make_case


@pytest.mark.parametrize("kind", KINDS)
def test_reading_in_batches_changes_nothing(kind, make, monkeypatch):
    net, X, y = make(kind, early_stopping=True, validation_fraction=0.2)
    held = clone(net).fit(X, y)
    monkeypatch.setattr("skmm.neural_network._inputs.MAX_BYTES_HELD", 0)
    monkeypatch.setattr("skmm.neural_network._inputs._MIN_ROWS_TO_READ", 1)
    read = net.fit(X, y)
    assert_allclose(read.loss_curve_, held.loss_curve_, rtol=1e-3)
    assert_allclose(read.validation_scores_, held.validation_scores_, rtol=1e-3)
    assert_allclose(read.predict_proba(X), held.predict_proba(X), atol=1e-3)


@pytest.fixture
def few_epochs(monkeypatch):
    """Let the warm-up have 3 epochs."""
    for name in ("_N_STEPS", "_MIN_EPOCHS"):
        monkeypatch.setattr(f"skmm.neural_network.network._training.{name}", 3)


@pytest.mark.usefixtures("few_epochs")
@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_equals_the_training_of_a_frozen_branch(kind, make):
    net, X, y = make(kind, {"freeze": True}, max_epochs=3, schedule="constant")
    frozen = clone(net).fit(X, y)
    warm = net.set_params(warm_up_head=True, max_epochs=1).fit(X, y)
    assert_allclose(warm.loss_curve_[:3], frozen.loss_curve_, rtol=1e-3)
    loaded = pickle.loads(pickle.dumps(warm.set_params(device="cpu")))
    assert_allclose(loaded.predict_proba(X), warm.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("kind", ["text", "image", "sound"])
def test_changed_items(kind, make):
    net, X, y = make(kind)
    plain = clone(net).fit(X, y)
    changed = net.set_params(**{f"{kind}__augment": True}).fit(X, y)
    assert np.isfinite(changed.loss_curve_).all()
    assert not np.allclose(changed.loss_curve_, plain.loss_curve_, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_slices_add_up(kind, make):
    net, X, y = make(kind)
    whole, sliced = clone(net).fit(X, y), net.set_params(accumulate=3).fit(X, y)
    assert_allclose(sliced.loss_curve_, whole.loss_curve_, rtol=1e-3)


@pytest.mark.usefixtures("few_epochs")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(kind, precision, make):
    net, X, y = make(kind, accumulate=2, warm_up_head=True)
    full = clone(net).fit(X, y)
    half = net.set_params(precision=precision).fit(X, y)
    assert {weights.dtype for weights in half.network_.parameters()} == {torch.float32}
    # The weights of the branches are random, and what they learn is sensitive to rounding.
    assert_allclose(half.loss_curve_[:3], full.loss_curve_[:3], rtol=0.05)
    assert np.isfinite(half.loss_curve_).all()


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not (shutil.which("gcc") or shutil.which("clang")),
    reason="torch.compile needs triton and a C compiler on CUDA",
)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_compiled_branches(kind, make):
    net, X, y = make(kind)
    plain = clone(net).fit(X, y)
    torch._dynamo.reset()
    counters.clear()
    compiled = net.set_params(**{f"{kind}__compile": True}).fit(X, y)
    assert counters["stats"]["unique_graphs"] > 0
    assert_allclose(compiled.loss_curve_, plain.loss_curve_, rtol=1e-3)
    torch._dynamo.reset()
