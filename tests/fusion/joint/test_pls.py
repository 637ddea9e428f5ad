"""PLSFusion against scikit-learn's decomposition, and as the end of the ridge of CCAFusion."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg
from sklearn.cross_decomposition import PLSSVD

from skmm import CCAFusion, PLSFusion

TWO = {"a": slice(0, 5), "b": slice(5, 9)}
THREE = {"a": slice(0, 5), "b": slice(5, 9), "c": slice(9, None)}


def linked(n=200):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)) @ rng.normal(size=(3, 12)) + rng.normal(size=(n, 12)) * np.linspace(0.2, 2, 12) + 5


def cosines(ours, theirs):
    k = ours.shape[1]
    return np.abs(np.corrcoef(ours.T, theirs.T)[:k, k:].diagonal())


@pytest.mark.parametrize("scaling", ["std", None])
def test_two_blocks_are_scikit_learns_up_to_variance(scaling):
    X = linked()[:, :9]
    theirs = PLSSVD(3, scale=scaling == "std").fit_transform(X[:, :5], X[:, 5:])
    fusion = PLSFusion(3, scaling=scaling, blocks=TWO)
    for ours, expected in zip(np.split(fusion.fit_transform(X), 2, axis=1), theirs, strict=True):
        assert_allclose(cosines(ours, expected), 1, atol=1e-10)
        assert_allclose(ours.std(axis=0, ddof=1), 1)


def test_three_blocks_are_eigenvectors_of_the_cross_covariances():
    X = linked()
    fusion = PLSFusion(3, scaling=None, blocks=THREE).fit(X)
    S = np.cov(X, rowvar=False)
    units = np.concatenate(
        [np.full(c.indices(12)[1] - c.start, np.trace(S[c, c]) / len(S[c, c])) for c in THREE.values()]
    )
    scaled = S / np.sqrt(np.outer(units, units))
    _, vectors = linalg.eigh(scaled - linalg.block_diag(*[scaled[own, own] for own in THREE.values()]))
    for name, own in THREE.items():
        weights = vectors[own, :-4:-1] / np.sqrt(units[own])[:, None]
        assert_allclose(cosines(X[:, own] @ fusion.weights_[name], X[:, own] @ weights), 1, atol=1e-10)


def test_it_is_cca_with_a_full_ridge():
    X = linked()
    expected = CCAFusion(3, objective="sumcor", regularization=1, blocks=THREE).fit(X)
    fusion = PLSFusion(3, blocks=THREE).fit(X)
    assert_allclose(fusion.transform(X), expected.transform(X))
    assert_allclose(fusion.correlations_, expected.correlations_)


def test_more_columns_than_rows():
    X = linked(4)
    first, second = np.split(PLSFusion(blocks=TWO).fit_transform(X[:, :9]), 2, axis=1)
    theirs = PLSSVD(1).fit_transform(X[:, :5], X[:, 5:9])
    assert first.shape == (4, 3)
    assert_allclose(cosines(first[:, :1], theirs[0]), 1)
    assert_allclose(cosines(second[:, :1], theirs[1]), 1)


def test_names():
    fusion = PLSFusion(1, output="mean", blocks=TWO).fit(linked()[:, :9])
    assert_array_equal(fusion.get_feature_names_out(), ["plsfusion0"])
    assert PLSFusion(1, blocks=TWO).fit(linked()[:, :9]).get_feature_names_out().tolist() == [
        "a__plsfusion0",
        "b__plsfusion0",
    ]
