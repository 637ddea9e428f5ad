"""What strategies learn out of fold, they learn from folds that split no group."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

from skmm import AverageFusion, CCAFusion, ConcatFusion, KernelCCAFusion, ModalityFuser, PCAFusion
from skmm.fusion._base import group_folds
from skmm.fusion._weights import probe_rows
from skmm.fusion.joint._cca import RIDGES

BLOCKS = {"copies": slice(0, 30), "good": slice(30, None)}


def copies(seed=0):
    """A block whose rows are almost copies within a group, and tell the groups apart but not their labels; a good one.

    Labels are those of the groups, so that folds which split groups make the copies look good.
    """
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(60), 5))
    y = (np.arange(60) % 2)[groups]
    block = rng.normal(size=(60, 30))[groups] + 0.1 * rng.normal(size=(300, 30))
    return np.hstack([block, rng.normal(size=(300, 5)) + 0.6 * y[:, None]]), y, groups


@pytest.mark.parametrize("n_groups", [2, 4, 5, 23])
def test_folds_split_no_group_and_are_of_much_the_same_size(n_groups):
    groups = np.random.default_rng(0).integers(n_groups, size=200)
    folds = group_folds(np.array([f"speaker {i}" for i in groups]), 5)
    assert len(np.unique(folds)) == min(n_groups, 5)
    assert all(len(set(folds[groups == group])) == 1 for group in range(n_groups))
    assert n_groups < 20 or np.ptp(np.bincount(folds)) < 15
    with pytest.raises(ValueError, match="at least 2 groups, got 1"):
        group_folds(np.zeros(9), 5)


def test_probes_split_no_group():
    _, y, groups = copies()
    rows, folds = probe_rows(y, groups)
    assert_array_equal(np.sort(rows), np.arange(len(y)))
    assert all(len(set(folds[groups[rows] == group])) == 1 for group in range(60))


@pytest.mark.parametrize("cls", [ConcatFusion, AverageFusion])
def test_weights_by_groups_trust_copies_less(cls):
    for seed in range(3):
        X, y, groups = copies(seed)
        fusion = cls(weights="cv", blocks=BLOCKS)
        split, grouped = (clone(fusion).fit(X, y, groups=g).weights_ for g in (None, groups))
        assert grouped["copies"] / grouped["good"] < split["copies"] / split["good"]


def test_ridge_by_groups_is_the_one_of_an_exhaustive_search():
    # Rows of a group share what is private to their blocks, which correlates by chance.
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    shared = rng.normal(size=(200, 2))
    X = shared @ rng.normal(size=(2, 40)) + 3 * rng.normal(size=(40, 40))[groups] + 0.5 * rng.normal(size=(200, 40))
    blocks = {"a": slice(0, 20), "b": slice(20, None)}
    fusion = CCAFusion(2, regularization="cv", blocks=blocks).fit(X, groups=groups)
    held_out = next(GroupKFold(5).split(X, groups=groups))[1]
    train = np.setdiff1d(np.arange(200), held_out)
    scores = [CCAFusion(2, regularization=ridge, blocks=blocks).fit(X[train]).score(X[held_out]) for ridge in RIDGES]
    chosen = fusion.regularization_["a"]
    assert scores[RIDGES.index(chosen)] > max(scores) - 2e-3
    assert chosen > CCAFusion(2, regularization="cv", blocks=blocks).fit(X).regularization_["a"]


def test_ridge_by_groups_of_wide_blocks_and_kernels():
    X, _, groups = copies()
    wide = {"a": slice(0, 25), "b": slice(25, None)}
    rows = groups < 4
    by_group = CCAFusion(2, regularization="cv", blocks=wide).fit(X[rows], groups=groups[rows])
    assert set(by_group.regularization_.values()) <= set(RIDGES)
    kernel = KernelCCAFusion(2, kernel="linear", regularization="cv", blocks=BLOCKS).fit(X, groups=groups)
    inner = CCAFusion(2, regularization="cv", scaling="std", blocks=BLOCKS).fit(X, groups=groups)
    assert_allclose(kernel.correlations_, inner.correlations_, atol=1e-2)


@pytest.mark.parametrize("fusion", [ConcatFusion(weights="cv"), PCAFusion(3)])
def test_groups_reach_the_strategy_by_metadata_routing(fusion):
    X, y, groups = copies()
    modalities = [(name, "passthrough", columns) for name, columns in BLOCKS.items()]
    expected = clone(fusion).set_params(blocks=BLOCKS).fit(X, y, groups=groups).transform(X)
    with sklearn.config_context(enable_metadata_routing=True):
        assert_allclose(ModalityFuser(modalities, fusion=fusion).fit(X, y, groups=groups).transform(X), expected)
        pipe = make_pipeline(ModalityFuser(modalities, fusion=fusion), Ridge())
        search = GridSearchCV(pipe, {"ridge__alpha": [1.0]}, cv=GroupKFold(3)).fit(X, y, groups=groups)
        assert_allclose(search.best_estimator_[0].transform(X), expected)


def test_groups_of_another_length():
    X, y, groups = copies()
    with pytest.raises(ValueError, match="groups must have one entry for each"):
        ConcatFusion(weights="cv", blocks=BLOCKS).fit(X, y, groups=groups[:-1])
