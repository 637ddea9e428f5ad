"""ModalityImputer against the conditional normal expectation and scikit-learn's KNNImputer."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.covariance import LedoitWolf
from sklearn.impute import KNNImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import CCAFusion, ConcatFusion, ModalityFuser, ModalityImputer, PCAFusion

BLOCKS = {"a": slice(0, 3), "b": slice(3, 5), "c": slice(5, None)}
STRATEGIES = ["mean", "zero", "regression", "neighbors"]


def linked(n=200, widths=(3, 2, 4), seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 2))
    parts = [latent @ rng.normal(size=(2, p)) + 0.3 * rng.normal(size=(n, p)) for p in widths]
    return np.hstack(parts) * rng.uniform(0.5, 20, sum(widths)) + rng.normal(size=sum(widths)) * 5


def without(X, **rows):
    X = X.copy()
    for name, index in rows.items():
        X[index, BLOCKS[name]] = np.nan
    return X


def conditional(X, covariance, inside, outside):
    """Textbook: mean of the normal distribution of some columns, given the others."""
    weights = np.linalg.solve(covariance[np.ix_(inside, inside)], covariance[np.ix_(inside, outside)])
    mean = X.mean(axis=0)
    return mean[outside] + (X[:, inside] - mean[inside]) @ weights


@pytest.mark.parametrize("gone", [["a"], ["b"], ["a", "c"]])
def test_regression_is_the_conditional_normal_expectation(gone):
    X = linked()
    imputer = ModalityImputer("regression", regularization=0, blocks=BLOCKS).fit(X)
    out = imputer.transform(without(X, **dict.fromkeys(gone, slice(None))))
    outside = np.concatenate([np.arange(9)[BLOCKS[name]] for name in gone])
    inside = np.setdiff1d(np.arange(9), outside)
    assert_allclose(out[:, outside], conditional(X, np.cov(X, rowvar=False), inside, outside), rtol=1e-9)
    assert_array_equal(out[:, inside], X[:, inside])


def test_auto_ridge_is_ledoit_wolf():
    X = linked(n=30)
    imputer = ModalityImputer("regression", blocks=BLOCKS).fit(X)
    scaler = StandardScaler().fit(X)
    stock = LedoitWolf().fit(scaler.transform(X))
    assert_allclose(imputer.regularization_, stock.shrinkage_)
    outside, inside = np.arange(3), np.arange(3, 9)
    Z = scaler.transform(X)
    expected = scaler.inverse_transform(np.hstack([conditional(Z, stock.covariance_, inside, outside), Z[:, inside]]))
    assert_allclose(imputer.transform(without(X, a=slice(None))), expected, rtol=1e-9)


def test_more_columns_than_rows_are_the_same_regression():
    # A ridge on rotated columns is the ridge on the columns, so tiling changes nothing but its size.
    X = linked(n=40, widths=(3, 2, 60))
    blocks = {"a": slice(0, 3), "b": slice(3, 5), "c": slice(5, None)}
    imputer = ModalityImputer("regression", regularization=0.2, blocks=blocks).fit(X)
    gone = X.copy()
    gone[:, :3] = np.nan
    Z = StandardScaler().fit_transform(X)
    covariance = 0.8 * np.cov(Z, rowvar=False, bias=True)
    rank = 3 + 2 + 39
    covariance[np.diag_indices(65)] += 0.2 * 65 / rank
    expected = conditional(Z, covariance, np.arange(3, 65), np.arange(3)) * X[:, :3].std(axis=0) + X[:, :3].mean(axis=0)
    assert_allclose(imputer.transform(gone)[:, :3], expected, rtol=1e-8)


def test_what_the_other_blocks_say_beats_means():
    X = linked()
    gone = without(X, c=slice(0, 50), b=slice(30, 80))
    errors = {
        strategy: np.mean((ModalityImputer(strategy, blocks=BLOCKS).fit_transform(gone) - X) ** 2)
        for strategy in STRATEGIES
    }
    assert errors["regression"] < 0.5 * errors["mean"]
    assert errors["neighbors"] < 0.5 * errors["mean"]


def test_neighbors_are_scikit_learns_for_blocks_of_one_column():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    X[rng.random(X.shape) < 0.2] = np.nan
    X = (X - np.nanmean(X, axis=0)) / np.nanstd(X, axis=0)
    blocks = {name: slice(i, i + 1) for i, name in enumerate("abcd")}
    ours = ModalityImputer("neighbors", n_neighbors=3, blocks=blocks).fit(X)
    stock = KNNImputer(n_neighbors=3).fit(X)
    assert_allclose(ours.transform(X), stock.transform(X), atol=1e-12)
    new = rng.normal(size=(600, 4))
    new[rng.random(new.shape) < 0.3] = np.nan
    assert_allclose(ours.transform(new), stock.transform(new), atol=1e-12)


def test_mean_and_zero():
    X = linked()
    gone = without(X, b=[0, 1], c=[1])
    gone[5, 0] = np.nan
    for strategy, filling in [("mean", np.nanmean(gone, axis=0)), ("zero", np.zeros(9))]:
        out = ModalityImputer(strategy, blocks=BLOCKS).fit_transform(gone)
        expected = gone.copy()
        expected[[0, 1], 3:5] = filling[3:5]
        expected[1, 5:] = filling[5:]
        expected[5, 0] = np.nanmean(gone[:, 0])
        assert_allclose(out, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_complete_data_come_back_and_single_cells_get_the_mean(strategy):
    X = linked()
    imputer = ModalityImputer(strategy, blocks=BLOCKS).fit(X)
    assert_array_equal(imputer.transform(X), X)
    gone = X.copy()
    gone[3, 1] = np.nan
    expected = X.copy()
    expected[3, 1] = X[:, 1].mean()
    assert_allclose(imputer.transform(gone), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_without_any_block(strategy):
    X = linked()
    X[7] = np.nan
    out = ModalityImputer(strategy, blocks=BLOCKS).fit_transform(X)
    assert_allclose(out[7], np.where(strategy == "zero", 0, np.delete(linked(), 7, axis=0).mean(axis=0)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_columns_that_are_never_there(strategy):
    X = linked()
    X[:, 3] = np.nan
    imputer = ModalityImputer(strategy, blocks=BLOCKS).fit(X)
    assert_array_equal(imputer.transform(X)[:, 3], 0)
    # What fit never saw has no influence later.
    assert_array_equal(imputer.transform(linked()), imputer.transform(X))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_constant_and_doubled_columns(strategy):
    X = linked()
    X[:, 1] = 0.1
    X[:, 4] = X[:, 3]
    X[:, 6] = 2 * X[:, 0]
    gone = without(X, a=slice(0, 20), b=slice(10, 30), c=slice(40, 60))
    for regularization in (0, "auto"):
        out = ModalityImputer(strategy, regularization=regularization, blocks=BLOCKS).fit_transform(gone)
        assert np.isfinite(out).all()
        assert np.abs(out).max() < 3 * np.abs(X).max()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows(strategy, n):
    X = linked(n=n)
    if n > 1:
        X = without(X, a=[0], c=[n - 1])
    assert np.isfinite(ModalityImputer(strategy, blocks=BLOCKS).fit_transform(X)).all()


def test_indicator():
    X = without(linked(), b=[0, 4])
    frame = pd.DataFrame(X, columns=[f"{name}__{i}" for name in BLOCKS for i in range(9)[BLOCKS[name]]])
    imputer = ModalityImputer(add_indicator=True, blocks="prefix").set_output(transform="pandas")
    out = imputer.fit_transform(frame)
    assert list(out.columns[9:]) == ["a__missing", "b__missing", "c__missing"]
    assert_array_equal(out.to_numpy()[:, 9:], np.isnan(X[:, [0, 3, 5]]))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_float32(strategy):
    X = without(linked(), a=slice(0, 30), c=slice(20, 60)).astype(np.float32)
    out = ModalityImputer(strategy, blocks=BLOCKS).fit_transform(X)
    assert out.dtype == np.float32
    expected = ModalityImputer(strategy, blocks=BLOCKS).fit_transform(X.astype(np.float64))
    assert_allclose(out, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("strategy", ["regression", "neighbors"])
def test_float32_far_from_zero(strategy):
    # As a column of pressures in Pascal, which varies little for its size.
    X = np.tile(linked(), (10, 1)) + np.where(np.arange(9) == 3, 3e5, 0)
    X = without(X, a=slice(0, 30)).astype(np.float32)
    imputer = ModalityImputer(strategy, blocks=BLOCKS)
    assert_allclose(imputer.fit_transform(X), imputer.fit_transform(X.astype(np.float64)), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pickle_and_input_untouched(strategy):
    X = without(linked(), a=slice(0, 30))
    before = X.copy()
    imputer = ModalityImputer(strategy, blocks=BLOCKS).fit(X)
    out = imputer.transform(X)
    assert_array_equal(X, before)
    assert_array_equal(pickle.loads(pickle.dumps(imputer)).transform(X), out)


def test_the_strategy_after_an_imputer_knows_the_blocks():
    X = without(linked(), a=slice(0, 30), c=slice(20, 60))
    modalities = [(name, "passthrough", columns) for name, columns in BLOCKS.items()]
    fusion = make_pipeline(ModalityImputer("regression"), CCAFusion(2))
    ours = ModalityFuser(modalities, fusion=fusion).fit(X)
    imputed = ModalityImputer("regression", blocks=BLOCKS).fit_transform(X)
    assert_array_equal(ours.transform(X), CCAFusion(2, blocks=ours.blocks_).fit_transform(imputed))
    # With indicators the columns are no longer those of the blocks.
    fusion = make_pipeline(ModalityImputer(add_indicator=True), PCAFusion(2))
    assert ModalityFuser(modalities, fusion=fusion).fit(X).fusion_[-1].blocks is None
    with pytest.raises(ValueError, match=r"The fuser sets 'concatfusion__blocks' of its fusion"):
        ModalityFuser(modalities, fusion=make_pipeline(ModalityImputer(), ConcatFusion(blocks=BLOCKS))).fit(X)


def test_means_are_those_that_strategies_fill_in():
    X = without(linked(), a=slice(0, 30), c=slice(20, 60))
    X[70, 4] = np.nan
    assert_array_equal(
        ModalityImputer(blocks=BLOCKS).fit_transform(X), ConcatFusion(scaling=None, blocks=BLOCKS).fit_transform(X)
    )
