"""Precision: the dtype of X, and products in half precision by autocast, slow on most CPUs but right on all."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from skmm import MultimodalNetClassifier, MultimodalNetRegressor
from skmm.neural_network import (
    AudioBranch,
    GradientModulation,
    ImageBranch,
    MultimodalNetMultiTask,
    SequenceBranch,
    TextBranch,
    distill,
)
from skmm.neural_network.network import FUSIONS

NAMES = sorted(FUSIONS)
QUICK = {"width": 16, "max_epochs": 10, "learning_rate": 0.003, "dropout": 0.0, "random_state": 0, "device": "cpu"}
BRANCHES = {
    "text": [TextBranch(n_hidden=8), TextBranch("transformer", n_embedding=8, n_hidden=8)],
    "image": [ImageBranch(size=8, channels=(4,), n_hidden=8)],
    "sound": [AudioBranch(n_hidden=8), AudioBranch("gru", n_hidden=8)],
    "series": [SequenceBranch(n_hidden=8), SequenceBranch("gru", n_hidden=8)],
}
CASES = [(branch, column) for column, branches in BRANCHES.items() for branch in branches]


@pytest.fixture(scope="module")
def raw():
    """Give raw items of four kinds and a column of numbers, with some of them missing, and three classes."""
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    shades = rng.integers(60, size=(30, 9, 9, 3)) + 80 * y[:, None, None, None]
    X = pd.DataFrame(
        {
            "text": [["a red fox", "two hens", "an owl at night"][k] for k in y],
            "image": list(shades.astype(np.uint8)),
            "sound": [(16000, np.sin(np.arange(3200) * (k + 1) / 10).astype(np.float32)) for k in y],
            "series": [np.sin(np.arange(20) * (k + 1) / 3) + 0.1 * rng.normal(size=20) for k in y],
            "number": np.float32(y + rng.normal(size=30)),
        }
    )
    X.loc[3, ["text", "image", "sound", "series"]] = None
    X.loc[4, "number"] = np.nan
    return X, y


def both(column, branch, fusion="gated", **options):
    modalities = [(column, branch, column), ("number", "passthrough", ["number"])]
    return [
        MultimodalNetClassifier(modalities, fusion, precision=precision, **{**QUICK, **options})
        for precision in ("float32", "bfloat16")
    ]


def dtypes_of(network):
    """Give the dtypes that the linear layers of a network compute from now on, a set that fills."""
    found = set()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda layer, inputs, output: found.add(output.dtype))
    return found


def assert_close_but_not_equal(full, half):
    assert full.dtype == half.dtype == np.float32
    assert not np.array_equal(full, half)
    # bfloat16 has 8 bits, and errors grow over the epochs.
    assert_allclose(half, full, atol=0.05)


@pytest.mark.parametrize(("branch", "column"), CASES)
def test_branches_in_half_precision_come_close(branch, column, raw):
    X, y = raw
    full, half = (net.fit(X, y) for net in both(column, branch))
    assert_close_but_not_equal(full.predict_proba(X), half.predict_proba(X))
    assert_close_but_not_equal(full.transform(X), half.transform(X))
    assert {weights.dtype for weights in half.network_.parameters()} == {torch.float32}


@pytest.mark.parametrize("fusion", NAMES)
def test_fusions_in_half_precision_come_close(fusion, raw):
    X, y = raw
    full, half = (net.fit(X, y) for net in both("text", TextBranch(n_hidden=8), fusion))
    assert_close_but_not_equal(full.predict_proba(X), half.predict_proba(X))
    if hasattr(half, "explain"):
        weights = half.explain(X)
        # Sums of weights are as exact as in full precision.
        assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
        assert weights.loc[3].tolist() == [0, 1]
        assert_allclose(weights, full.explain(X), atol=0.05)


@pytest.mark.parametrize("loss", ["squared", "huber", "quantile"])
def test_modulation_and_validation_in_half_precision(loss, raw):
    X, y = raw
    modalities = [("text", TextBranch(n_hidden=8), "text"), ("number", "passthrough", ["number"])]
    options = {**QUICK, "modulation": GradientModulation(), "early_stopping": True, "validation_fraction": 0.3}
    full, half = (
        MultimodalNetRegressor(modalities, "film", loss=loss, precision=precision, **options).fit(X, y)
        for precision in ("float32", "bfloat16")
    )
    assert_close_but_not_equal(full.predict(X), half.predict(X))
    assert_allclose(half.validation_scores_, full.validation_scores_, atol=0.02)


def test_several_tasks_in_half_precision(raw):
    X, y = raw
    targets = pd.DataFrame({"class": y, "number": 1.0 * y, "label": y > 0})
    modalities = [("text", TextBranch(n_hidden=8), "text"), ("number", "passthrough", ["number"])]
    full, half = (
        MultimodalNetMultiTask(modalities, precision=precision, **QUICK).fit(X, targets)
        for precision in ("float32", "bfloat16")
    )
    assert_close_but_not_equal(full.predict_proba(X).to_numpy(), half.predict_proba(X).to_numpy())


def test_students_in_half_precision(raw):
    X, y = raw
    full, half = both("text", TextBranch(n_hidden=8))
    full.fit(X, y)
    students = [distill(full, X, student=net.set_params(number="drop")) for net in (full, half)]
    known = X[X["text"].notna()]
    assert_close_but_not_equal(*(student.predict_proba(known) for student in students))


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_half_precision_for_raw_items_where_it_is_native(native, raw, monkeypatch):
    X, y = raw
    monkeypatch.setattr("skmm._torch._cpu_has_amx", lambda: native)
    modalities = [("text", TextBranch(n_hidden=8), "text"), ("number", "passthrough", ["number"])]
    for kept, half in ((modalities, native), (modalities[1:], False)):
        known = X[X["number"].notna()]
        net = MultimodalNetClassifier(kept, **{**QUICK, "max_epochs": 1}).fit(known, y[X["number"].notna()])
        assert dtypes_after(net, known) == {torch.bfloat16 if half else torch.float32}


def test_half_precision_computes_float32_networks(small, halves):
    X, y = small
    X32 = X.astype(np.float32)
    full, half = (
        MultimodalNetRegressor(halves, precision=precision, **QUICK).fit(X32, y)
        for precision in ("float32", "bfloat16")
    )
    assert_close_but_not_equal(full.predict(X32), half.predict(X32))
    # A precision that is asked for holds for features in float64 as well.
    for precision, expected in (("float32", full), ("bfloat16", half)):
        double = MultimodalNetRegressor(halves, precision=precision, **QUICK).fit(X, y)
        assert {weights.dtype for weights in double.network_.parameters()} == {torch.float32}
        assert_allclose(double.predict(X), expected.predict(X32), atol=0.02)


def test_float16_scales_the_loss_so_that_small_gradients_count(small, halves):
    X, y = small
    # Gradients of a loss this small are 0 in float16 unless it is scaled up.
    options = {**QUICK, "loss": lambda outputs, targets, weights: 1e-7 * ((outputs - targets) ** 2).mean()}
    full, half = (
        MultimodalNetRegressor(halves, precision=precision, **options).fit(X, y) for precision in ("float32", "float16")
    )
    assert dtypes_after(half, X) == {torch.float16}
    learned = 1 - full.loss_curve_[-1] / full.loss_curve_[0]
    assert learned > 0.01
    assert 1 - half.loss_curve_[-1] / half.loss_curve_[0] == pytest.approx(learned, rel=0.1)


def dtypes_after(net, X):
    dtypes = dtypes_of(net.network_)
    net.predict(X)
    return dtypes


@pytest.mark.parametrize("fusion", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_computes_in_the_dtype_of_X(fusion, dtype, small, halves):
    X, y = small
    net = MultimodalNetRegressor(halves, fusion, **QUICK).fit(X.astype(dtype), y)
    assert {p.dtype for p in net.network_.parameters()} == {torch.float32 if dtype == np.float32 else torch.float64}
    assert net.predict(X.astype(dtype)).dtype == dtype
    assert net.transform(X.astype(dtype)).dtype == dtype
