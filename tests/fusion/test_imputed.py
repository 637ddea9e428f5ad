"""Strategies that fill missing blocks in, against a ModalityImputer before them."""

import pickle

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skmm import (
    AverageFusion,
    ConcatFusion,
    KernelFusion,
    LDAFusion,
    ModalityFuser,
    ModalityImputer,
    PCAFusion,
    ProductFusion,
)

BLOCKS = {"a": slice(0, 4), "b": slice(4, 6), "c": slice(6, None)}
Y = np.arange(90) % 3
STRATEGIES = [
    AverageFusion(3, weights="cv"),
    ConcatFusion(weights="cv"),
    KernelFusion(4, weights="alignment"),
    LDAFusion(),
    LDAFusion(level="joint"),
    PCAFusion(2),
    PCAFusion(2, level="joint"),
    ProductFusion(),
]
NAMES = ["mean", "zero", "regression", "neighbors"]


def data(seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(90, 2)) + Y[:, None]
    X = np.hstack([latent @ rng.normal(size=(2, p)) + 0.5 * rng.normal(size=(90, p)) for p in (4, 2, 3)]) + 2
    X[:20, 0:4] = np.nan
    X[10:35, 4:6] = np.nan
    X[40:44, 6:] = np.nan
    X[50] = np.nan
    X[60, 2] = X[61, 7] = np.nan
    return X


@pytest.fixture(params=STRATEGIES, ids=str)
def strategy(request):
    return clone(request.param).set_params(blocks=BLOCKS)


@pytest.mark.parametrize("imputer", [*NAMES, ModalityImputer("neighbors", n_neighbors=2)], ids=str)
def test_as_behind_an_imputer(strategy, imputer):
    X, new = data(), data(seed=1)
    before = ModalityImputer(imputer) if isinstance(imputer, str) else clone(imputer)
    before.set_params(blocks=BLOCKS).fit(X)
    expected = clone(strategy).fit(before.transform(X), Y)
    ours = clone(strategy).set_params(imputer=imputer)
    assert_allclose(ours.fit_transform(X, Y), expected.transform(before.transform(X)), atol=1e-12)
    assert_allclose(ours.transform(new), expected.transform(before.transform(new)), atol=1e-12)
    assert ours.imputer_.get_params()["n_neighbors"] == before.n_neighbors
    assert_array_equal(pickle.loads(pickle.dumps(ours)).transform(new), ours.transform(new))
    if imputer != "mean":
        assert not np.allclose(ours.transform(new), clone(strategy).set_params(imputer="mean").fit(X, Y).transform(new))


def test_indicators_are_appended(strategy):
    X, new = data(), data(seed=1)
    plain = clone(strategy).set_params(imputer="regression").fit(X, Y)
    ours = clone(strategy).set_params(imputer=ModalityImputer("regression", add_indicator=True))
    missing = np.column_stack([np.isnan(new[:, columns]).all(axis=1) for columns in BLOCKS.values()])
    assert_array_equal(ours.fit(X, Y).transform(new), np.hstack([plain.transform(new), missing]))
    names = [*plain.get_feature_names_out(), "a__missing", "b__missing", "c__missing"]
    assert list(ours.get_feature_names_out()) == names
    with sklearn.config_context(transform_output="pandas"):
        frame = clone(ours).fit(X, Y).transform(new)
    assert list(frame.columns) == names
    assert_array_equal(frame.to_numpy(), ours.transform(new))


def test_one_block_has_one_indicator():
    X = np.array([[1.0], [np.nan], [3.0]])
    fusion = ConcatFusion(scaling=None, imputer=ModalityImputer(add_indicator=True))
    assert_array_equal(fusion.fit_transform(X), [[1, 0], [2, 1], [3, 0]])
    assert list(fusion.get_feature_names_out()) == ["x0", "missing"]


@pytest.mark.parametrize("imputer", NAMES)
def test_what_is_complete_is_not_copied(imputer):
    X = np.random.default_rng(0).normal(size=(30, 9))
    fusion = ConcatFusion(scaling=None, imputer=imputer, blocks=BLOCKS).fit(data())
    assert np.shares_memory(fusion.transform(X), X)


def test_search():
    X = data()
    modalities = [(name, "passthrough", columns) for name, columns in BLOCKS.items()]
    pipe = Pipeline([("fuse", ModalityFuser(modalities, fusion=ConcatFusion())), ("model", RidgeClassifier())])
    grid = [
        {"fuse__fusion__imputer": [None, *NAMES]},
        {"fuse__fusion__imputer": [ModalityImputer("neighbors")], "fuse__fusion__imputer__n_neighbors": [1, 30]},
    ]
    search = GridSearchCV(pipe, grid, cv=3, error_score="raise").fit(X, Y)
    assert len(set(search.cv_results_["mean_test_score"])) > 3
    for params, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
        if params == {"fuse__fusion__imputer": "regression"}:
            before = Pipeline([("impute", ModalityImputer("regression")), ("concat", ConcatFusion())])
            stock = clone(pipe).set_params(fuse__fusion=before)
            assert score == GridSearchCV(stock, {}, cv=3).fit(X, Y).best_score_


def test_bad_imputers():
    X = data()
    with pytest.raises(ValueError, match="The 'imputer' parameter of PCAFusion must be"):
        PCAFusion(imputer="median", blocks=BLOCKS).fit(X)
    with pytest.raises(ValueError, match="The 'n_neighbors' parameter of ModalityImputer must be"):
        PCAFusion(imputer=ModalityImputer("neighbors", n_neighbors=0), blocks=BLOCKS).fit(X)
    with pytest.raises(ValueError, match=r"PCAFusion sets the blocks of its imputer; leave them at None, got \{'a'"):
        PCAFusion(imputer=ModalityImputer(blocks=BLOCKS), blocks=BLOCKS).fit(X)
    with pytest.raises(AttributeError, match="has no attribute 'partial_fit'") as error:
        PCAFusion(imputer="mean", blocks=BLOCKS).partial_fit(X)
    assert "pass imputer=None" in str(error.value.__cause__)
