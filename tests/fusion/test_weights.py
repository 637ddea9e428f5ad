"""Weights of blocks: what is refused, and what cross-validation chooses."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from skmm import AverageFusion, ConcatFusion
from skmm.fusion._weights import LARGEST_WEIGHT, learn_weights, probe_error, probe_rows, probe_target

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 7))
Y = np.arange(200) % 2
BLOCKS = {"a": slice(0, 3), "b": slice(3, None)}


def test_given_weights_multiply_the_scaled_blocks():
    plain = ConcatFusion(blocks=BLOCKS).fit_transform(X)
    for weights in ({"b": 3, "a": 0.5}, [0.5, 3], np.array([0.5, 3.0])):
        fusion = ConcatFusion(weights=weights, blocks=BLOCKS)
        assert_allclose(fusion.fit_transform(X), plain * np.repeat([0.5, 3], [3, 4]))
        assert fusion.weights_ == {"a": 0.5, "b": 3.0}
    assert ConcatFusion(blocks=BLOCKS).fit(X).weights_ == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("cls", [ConcatFusion, AverageFusion])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1}, r"weights names the blocks \['a'\], X has the blocks \['a', 'b'\]"),
        ([1, 2, 3], r"one number for each of the 2 blocks \['a', 'b'\], got an array of shape \(3,\)"),
        ([1, -1], "not negative and not all 0, got"),
        ([0, 0], "not negative and not all 0, got"),
        ([1, np.inf], "finite"),
        ("auto", "'weights' parameter of"),
    ],
)
def test_wrong_weights(cls, weights, message):
    with pytest.raises(ValueError, match=message):
        cls(weights=weights, blocks=BLOCKS).fit(X)


def test_learned_weights_need_a_target():
    with pytest.raises(ValueError, match="requires y to be passed"):
        ConcatFusion(weights="cv", blocks=BLOCKS).fit(X)


def test_probe_is_a_cross_validated_ridge():
    target = probe_target(X[:, :2] @ RNG.normal(size=(2, 3)) + RNG.normal(size=(200, 3)))
    folds = np.arange(200) % 5
    Z = X[:, 1:]
    # 160 rows are in each training part.
    predicted = cross_val_predict(Ridge(160, fit_intercept=False), Z, target, cv=PredefinedSplit(folds))
    assert_allclose(probe_error(Z, target, folds), np.mean(np.sum((target - predicted) ** 2, axis=1)))


def test_folds_are_spread_over_the_target():
    y = RNG.permutation(np.repeat(["x", "y"], [30, 70]))
    rows, folds = probe_rows(y)
    assert_array_equal(np.sort(rows), np.arange(100))
    for fold in range(5):
        assert np.sum(y[rows][folds == fold] == "x") == 6
    rows, _ = probe_rows(np.arange(10_001))
    assert len(rows) == 1667
    assert len(np.unique(rows)) == 1667


def test_targets_of_the_probe():
    assert probe_target(np.array(["x", "y", "z", "x"])).shape == (4, 3)
    assert probe_target(np.array([0, 1, 1, 0])).shape == (4, 1)
    assert probe_target(np.array([0.5, 1.5, 1.7])).shape == (3, 1)
    assert probe_target(np.arange(8.0).reshape(4, 2)).shape == (4, 2)


def test_no_better_weights_on_a_grid():
    signal = RNG.normal(size=(400, 1))
    parts = [RNG.normal(size=(400, 20)), signal + 0.5 * RNG.normal(size=(400, 3))]
    folds = np.arange(400) % 5

    def combine(weights):
        return np.hstack([weight * part for weight, part in zip(weights, parts, strict=True)])

    weights = learn_weights(combine, parts, signal, folds)
    assert_allclose(np.mean(weights**2), 1)
    assert weights[1] > 5 * weights[0]
    scales = 4.0 ** np.arange(-4, 5)
    found = min(probe_error(combine(scale * weights), signal, folds) for scale in scales)
    equal = min(probe_error(combine(scale * np.ones(2)), signal, folds) for scale in scales)
    assert found < equal
    assert weights.max() / weights.min() <= LARGEST_WEIGHT**2


def test_learned_weights_of_a_concatenation():
    data = X.copy()
    data[:, 5] += 2 * Y
    fusion = ConcatFusion(weights="cv", blocks=BLOCKS)
    out = fusion.fit_transform(data, Y)
    assert fusion.weights_["b"] > 2 * fusion.weights_["a"]
    plain = ConcatFusion(blocks=BLOCKS).fit_transform(data)
    assert_allclose(out, plain * np.repeat(list(fusion.weights_.values()), [3, 4]))
    wide = np.hstack([data, RNG.normal(size=(200, 300))])
    blocks = {"a": slice(0, 3), "b": slice(3, 7), "noise": slice(7, None)}
    weights = ConcatFusion(weights="cv", blocks=blocks).fit(wide, Y).weights_
    assert weights["b"] > 2 * weights["noise"]


def test_learned_weights_with_missing_blocks_and_few_rows():
    data = X.copy()
    data[::3, :3] = np.nan
    data[1::3, 3:] = np.nan
    assert np.isfinite(ConcatFusion(weights="cv", blocks=BLOCKS).fit_transform(data, Y)).all()
    for n in (2, 3):
        assert np.isfinite(ConcatFusion(weights="cv", blocks=BLOCKS).fit_transform(data[:n], Y[:n])).all()
    assert np.isfinite(ConcatFusion(weights="cv", blocks=BLOCKS).fit_transform(np.ones((20, 7)), Y[:20])).all()
