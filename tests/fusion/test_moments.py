"""Block moments against the covariances that NumPy computes from the same rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skmm.fusion._moments import BlockMoments, block_moments

BLOCKS = {"b": slice(3, 5), "a": slice(0, 3), "c": slice(5, 9)}


def rows(n=300, missing=False):
    X = np.random.default_rng(0).normal(size=(n, 9)) + np.linspace(-100, 100, 9)
    if missing:
        X[::3, :3] = np.nan
        X[1::4, 3:5] = np.nan
        X[:20, :5] = np.nan
    return X


@pytest.mark.parametrize("single", [False, True])
def test_covariance_and_means(single, monkeypatch):
    # Several chunks, the last of them shorter.
    monkeypatch.setattr("skmm.fusion._moments._CHUNK", 9 * 70)
    monkeypatch.setattr("skmm.fusion._moments._TILE", 4)
    X = rows().astype(np.float32 if single else np.float64)
    (moments,) = block_moments(X, BLOCKS, single=single)
    tolerance = 1e-5 if single else 1e-12
    assert_allclose(moments.covariance(), np.cov(X.astype(np.float64), rowvar=False), atol=tolerance)
    assert_allclose(moments.means(), X.mean(axis=0, dtype=np.float64), rtol=tolerance)
    assert moments.n_rows() == {"b": 300, "a": 300, "c": 300}


def test_pairs_of_blocks_meet_in_the_rows_that_have_both():
    X = rows(missing=True)
    (moments,) = block_moments(X, BLOCKS)
    S = moments.covariance()
    present = {name: ~np.isnan(X[:, own]).all(axis=1) for name, own in BLOCKS.items()}
    lonely = sum(mask.astype(int) for mask in present.values()) < 2
    assert lonely.any()
    for a, own in BLOCKS.items():
        here = present[a] & ~lonely
        assert moments.n_rows()[a] == here.sum()
        assert_allclose(moments.means()[own], X[here][:, own].mean(axis=0))
        for b, other in BLOCKS.items():
            both = here & present[b]
            left, right = X[both][:, own], X[both][:, other]
            expected = (left - left.mean(axis=0)).T @ (right - right.mean(axis=0)) / (both.sum() - 1)
            assert_allclose(S[own, other], expected, atol=1e-12)


@pytest.mark.parametrize("missing", [False, True])
def test_moments_add_up(missing):
    X = rows(missing=missing)
    first, second = block_moments(X, BLOCKS, [[slice(0, 100)], [slice(100, 200), slice(200, None)]])
    (total,) = block_moments(X, BLOCKS)
    both = first + second
    assert_allclose(both.covariance(), total.covariance(), atol=1e-10)
    assert_allclose(both.means(), total.means())
    assert_allclose(both.counts, total.counts)


def test_a_missing_cell_is_the_mean():
    X = rows()
    X[0, 0] = X[7, 4] = np.nan
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0), X)
    (moments,) = block_moments(X, BLOCKS)
    assert_allclose(moments.covariance(), np.cov(filled, rowvar=False), atol=1e-12)


def test_one_row_has_no_covariance():
    moments = BlockMoments(np.zeros(9), BLOCKS)
    moments.add(rows(1))
    assert_allclose(moments.covariance(), 0)
    assert_allclose(moments.means(), rows(1)[0])


@pytest.mark.parametrize("missing", [False, True])
def test_moments_of_combinations(missing):
    X = np.random.default_rng(0).normal(size=(50, 9)) + 3
    if missing:
        X[::3, :4] = np.nan
        X[1::4, 4:6] = np.nan
    blocks = {"b": slice(4, 6), "a": slice(0, 4), "c": slice(6, 9)}
    bases = {name: np.random.default_rng(1).normal(size=(own.stop - own.start, 2)) for name, own in blocks.items()}
    whole = BlockMoments(np.full(9, 2.5), blocks)
    whole.add(X)
    combined = {"b": slice(0, 2), "a": slice(2, 4), "c": slice(4, 6)}
    direct = BlockMoments(np.zeros(6), combined)
    direct.add(np.hstack([X[:, own] @ bases[name] for name, own in blocks.items()]))
    found = whole.projected(bases)
    assert found.blocks == combined
    assert_allclose(found.means(), direct.means())
    assert_allclose(found.covariance(), direct.covariance(), atol=1e-12)
