"""CCAFusion against the analytic solution and scikit-learn's iterative CCA."""

import os
import pickle
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.cross_decomposition import CCA, PLSSVD
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler, normalize

from skmm import CCAFusion, KernelCCAFusion, PLSFusion
from skmm.fusion.joint._cca import RIDGES, BlockCovariance, canonical_weights, held_out_correlations

BLOCKS = {"a": slice(0, 5), "b": slice(5, None)}


def linked(n=400, widths=(5, 4), rank=2, noise=0.5, seed=0):
    """Blocks that share ``rank`` latent variables."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, rank))
    return np.hstack([latent @ rng.normal(size=(rank, p)) + noise * rng.normal(size=(n, p)) for p in widths])


def analytic(A, B, ridge_a=0.0, ridge_b=0.0):
    """Canonical correlations and weights by the generalised eigenproblem of the textbook."""
    A, B = A - A.mean(axis=0), B - B.mean(axis=0)
    p = A.shape[1]
    S = np.cov(np.hstack([A, B]), rowvar=False)
    Saa, Sbb, Sab = S[:p, :p], S[p:, p:], S[:p, p:]
    Saa = (1 - ridge_a) * Saa + ridge_a * np.trace(Saa) / p * np.eye(p)
    Sbb = (1 - ridge_b) * Sbb + ridge_b * np.trace(Sbb) / len(Sbb) * np.eye(len(Sbb))
    squared, weights = linalg.eigh(Sab @ linalg.solve(Sbb, Sab.T), Saa)
    return np.sqrt(np.clip(squared[::-1], 0, None)), weights[:, ::-1]


def test_two_blocks_are_the_analytic_solution():
    X = linked()
    fusion = CCAFusion(4, regularization=0, blocks=BLOCKS)
    out = fusion.fit_transform(X)
    correlations, weights = analytic(X[:, :5], X[:, 5:])
    assert_allclose(fusion.correlations_, correlations[:4], atol=1e-12)
    expected = (X[:, :5] - X[:, :5].mean(axis=0)) @ weights[:, :4]
    signs = np.sign((expected * out[:, :4]).sum(axis=0))
    assert_allclose(out[:, :4], expected * signs / expected.std(axis=0, ddof=1), atol=1e-9)
    # Variates: unit variance, uncorrelated but for their own pair.
    identity, cross = np.eye(4), np.diag(correlations[:4])
    assert_allclose(np.cov(out, rowvar=False), np.block([[identity, cross], [cross, identity]]), atol=1e-10)


def test_two_blocks_are_scikit_learns_up_to_sign():
    X = linked(noise=0.3)
    out = CCAFusion(2, regularization=0, blocks=BLOCKS).fit_transform(X)
    stock = CCA(2, tol=1e-12, max_iter=10_000).fit(X[:, :5], X[:, 5:])
    for ours, theirs in zip((out[:, :2], out[:, 2:]), stock.transform(X[:, :5], X[:, 5:]), strict=True):
        for k in range(2):
            assert_allclose(abs(np.corrcoef(ours[:, k], theirs[:, k])[0, 1]), 1, atol=1e-6)


def test_ridge_is_the_analytic_solution():
    X = linked()
    fusion = CCAFusion(3, regularization={"a": 0.3, "b": 0.1}, scaling=None, blocks=BLOCKS)
    out = fusion.fit_transform(X)
    _, weights = analytic(X[:, :5], X[:, 5:], 0.3, 0.1)
    for k in range(3):
        assert_allclose(abs(np.corrcoef(out[:, k], X[:, :5] @ weights[:, k])[0, 1]), 1, atol=1e-10)
    achieved = [np.corrcoef(out[:, k], out[:, 3 + k])[0, 1] for k in range(3)]
    assert_allclose(fusion.correlations_, achieved, atol=1e-10)


def test_full_ridge_is_pls_by_svd():
    X = linked()
    out = CCAFusion(2, regularization=1, blocks=BLOCKS).fit_transform(X)
    theirs, _ = PLSSVD(2).fit(X[:, :5], X[:, 5:]).transform(X[:, :5], X[:, 5:])
    for k in range(2):
        assert_allclose(abs(np.corrcoef(out[:, k], theirs[:, k])[0, 1]), 1, atol=1e-10)


def test_auto_ridge_is_ledoit_wolf():
    X = linked(n=40)
    fusion = CCAFusion(2, regularization="auto", blocks=BLOCKS).fit(X)
    for name, columns in BLOCKS.items():
        block = StandardScaler().fit_transform(X[:, columns])
        assert_allclose(fusion.regularization_[name], LedoitWolf().fit(block).shrinkage_)
        assert 0 < fusion.regularization_[name] < 1


def test_more_blocks_are_the_generalised_eigenproblem():
    X = linked(widths=(5, 4, 3))
    blocks = {"a": slice(0, 5), "b": slice(5, 9), "c": slice(9, None)}
    fusion = CCAFusion(3, regularization=0, scaling=None, blocks=blocks).fit(X)
    S = np.cov(X, rowvar=False)
    D = linalg.block_diag(*[S[columns, columns] for columns in blocks.values()])
    _, vectors = linalg.eigh(S, D)
    for k in range(3):
        v = vectors[:, -1 - k]
        for name, columns in blocks.items():
            ours = fusion.weights_[name][:, k]
            assert_allclose(abs(ours @ v[columns]) / linalg.norm(ours) / linalg.norm(v[columns]), 1, atol=1e-9)
    assert_allclose(np.diff(fusion.correlations_) <= 1e-9, True)


def test_more_columns_than_rows():
    X = linked(n=30, widths=(60, 80))
    blocks = {"a": slice(0, 60), "b": slice(60, None)}
    fusion = CCAFusion(2, regularization=0.2, scaling=None, blocks=blocks)
    out = fusion.fit_transform(X)
    _, weights = analytic(X[:, :60], X[:, 60:], 0.2, 0.2)
    for k in range(2):
        assert_allclose(abs(np.corrcoef(out[:, k], X[:, :60] @ weights[:, k])[0, 1]), 1, atol=1e-8)


def test_plain_cca_with_too_few_rows_warns():
    with pytest.warns(UserWarning, match="some correlations are 1 whatever the data") as record:
        fusion = CCAFusion(2, regularization=0, blocks={"a": slice(0, 60), "b": slice(60, None)}).fit(
            np.random.default_rng(0).normal(size=(30, 120))
        )
    assert record[0].filename == __file__
    assert_allclose(fusion.correlations_, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CCAFusion(2, blocks={"a": slice(0, 60), "b": slice(60, None)}).fit(linked(n=30, widths=(60, 80)))


def test_collinear_and_constant_columns():
    X = linked()
    more = np.hstack([X[:, :5], X[:, [0]] * 2 - X[:, [1]], np.ones((len(X), 1)), X[:, 5:]])
    fusion = CCAFusion(10, regularization=0, blocks={"a": slice(0, 7), "b": slice(7, None)}).fit(more)
    assert fusion.n_components_ == 4
    assert_allclose(fusion.correlations_, analytic(X[:, :5], X[:, 5:])[0][:4], atol=1e-10)
    with pytest.raises(ValueError, match="block 'a' does not vary"):
        CCAFusion(blocks=BLOCKS).fit(np.hstack([np.ones((9, 5)), np.eye(9, 4)]))


@pytest.mark.parametrize("scaling", ["std", None])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_rounding_of_float32_is_no_rank(scaling, offset):
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(200, 2))
    A, B = (latent + 0.5 * rng.normal(size=(200, 2)) + offset for _ in range(2))
    X = np.hstack([A, 2 * A[:, [0]] - A[:, [1]], B, B.sum(axis=1, keepdims=True)])
    blocks = {"a": slice(0, 3), "b": slice(3, None)}
    new = rng.normal(size=(100, 6)) + offset
    for dtype in (np.float64, np.float32):
        fusion = CCAFusion(3, regularization=0, scaling=scaling, blocks=blocks).fit(X.astype(dtype))
        assert fusion.n_components_ == 2
        assert np.abs(fusion.transform(new.astype(dtype))).max() < 20


@pytest.mark.parametrize("scaling", ["std", None])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1])
def test_constant_blocks_are_named(scaling, value):
    X = linked()
    X[:, :5] = value
    with pytest.raises(ValueError, match="block 'a' does not vary"):
        CCAFusion(scaling=scaling, blocks=BLOCKS).fit(X)
    with pytest.raises(ValueError, match="block 'a' does not vary"):
        CCAFusion(scaling=scaling, blocks=BLOCKS).fit(X[:3])
    # More columns than rows, some of which lack a block; the constant block is the last.
    X[0, :5] = X[1, 5:] = np.nan
    with pytest.raises(ValueError, match="block 'a' does not vary over the 4 rows"):
        CCAFusion(scaling=scaling, blocks={"b": slice(0, 4), "a": slice(4, None)}).fit(np.roll(X, -5, axis=1)[:6, :])


def test_a_missing_block_gets_its_conditional_expectation():
    X = linked()
    fusion = CCAFusion(3, regularization=0, blocks=BLOCKS).fit(X)
    full = fusion.transform(X)
    half = X.copy()
    half[:, 5:] = np.nan
    out = fusion.transform(half)
    assert_allclose(out[:, :3], full[:, :3])
    assert_allclose(out[:, 3:], full[:, :3] * fusion.correlations_, atol=1e-9)
    # No linear prediction from the block that is there does better.
    best = full[:, :3] @ linalg.lstsq(full[:, :3], full[:, 3:])[0]
    assert_allclose(out[:, 3:], best, atol=1e-9)
    assert_allclose(fusion.transform(np.full((2, 9), np.nan)), 0, atol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_missing_block_by_conditioning_a_normal_distribution(ridge):
    X = linked(widths=(5, 4, 3))
    fusion = CCAFusion(2, regularization=ridge, blocks=THREE).fit(X)
    # The columns of all blocks are normal with the moments of the sample, and the variates are linear in them.
    mean, S = X.mean(axis=0), np.cov(X, rowvar=False)
    W = linalg.block_diag(*fusion.weights_.values())
    new = linked(n=7, widths=(5, 4, 3), seed=1)
    for absent in (["a"], ["b"], ["a", "c"]):
        gone = new.copy()
        for name in absent:
            gone[:, THREE[name]] = np.nan
        rows = np.repeat([name in absent for name in THREE], 2)
        known = W[:, ~rows]
        slopes = linalg.solve(known.T @ S @ known, known.T @ S @ W[:, rows])
        out = fusion.transform(gone)
        assert_allclose(out[:, rows], (new - mean) @ known @ slopes, atol=1e-10)
        assert_allclose(out[:, ~rows], (new - mean) @ known, atol=1e-10)
    # Of two blocks and no ridge the variates hold all that the columns of one tell of those of the other.
    two = CCAFusion(2, regularization=0, blocks=BLOCKS).fit(X[:, :9])
    gone = new[:, :9].copy()
    gone[:, 5:] = np.nan
    expected = mean[5:9] + (new[:, :5] - mean[:5]) @ linalg.solve(S[:5, :5], S[:5, 5:9])
    assert_allclose(two.transform(gone)[:, 2:], (expected - mean[5:9]) @ two.weights_["b"], atol=1e-10)


def test_missing_blocks_among_three():
    X = linked(widths=(5, 4, 3))
    blocks = {"a": slice(0, 5), "b": slice(5, 9), "c": slice(9, None)}
    fusion = CCAFusion(2, blocks=blocks).fit(X)
    full = fusion.transform(X)
    gone = X.copy()
    gone[:100, 5:9] = np.nan
    gone[50:200, 9:] = np.nan
    out = fusion.transform(gone)
    assert_allclose(out[200:], full[200:])
    present = np.hstack([full[:, :2], full[:, 4:]])
    best = present @ linalg.lstsq(present, full[:, 2:4])[0]
    assert_allclose(out[:50, 2:4], best[:50], atol=1e-8)
    best = full[:, :2] @ linalg.lstsq(full[:, :2], full[:, 2:])[0]
    assert_allclose(out[50:100, 2:], best[50:100], atol=1e-8)


def test_fit_learns_from_the_rows_that_have_both_blocks():
    X = linked()
    gone = X.copy()
    gone[:30, :5] = np.nan
    gone[30:60, 5:] = np.nan
    with_gaps = CCAFusion(2, regularization=0, blocks=BLOCKS).fit(gone)
    complete = CCAFusion(2, regularization=0, blocks=BLOCKS).fit(X[60:])
    assert_allclose(with_gaps.correlations_, complete.correlations_, atol=1e-10)
    gone[:, :5][60:] = np.nan
    with pytest.raises(ValueError, match="at least 2 with block 'a' and the same other block, got 0"):
        CCAFusion(blocks=BLOCKS).fit(gone)


def test_mean_output_and_names():
    X = linked()
    concat = CCAFusion(2, blocks=BLOCKS).fit(X)
    mean = CCAFusion(2, output="mean", blocks=BLOCKS).fit(X)
    out = concat.transform(X)
    assert_allclose(mean.transform(X), (out[:, :2] + out[:, 2:]) / 2)
    assert_array_equal(mean.get_feature_names_out(), ["ccafusion0", "ccafusion1"])
    assert_array_equal(
        concat.get_feature_names_out(), ["a__ccafusion0", "a__ccafusion1", "b__ccafusion0", "b__ccafusion1"]
    )


def test_signs_do_not_depend_on_the_order_of_rows():
    X = linked()
    order = np.random.default_rng(1).permutation(len(X))
    fusion = CCAFusion(3, blocks=BLOCKS)
    first, second = fusion.fit(X).transform(X), fusion.fit(X[order]).transform(X)
    assert_allclose(first, second, atol=1e-8)


def test_float32_and_float64_agree():
    X = linked().astype(np.float32)
    single = CCAFusion(2, blocks=BLOCKS).fit(X)
    double = CCAFusion(2, blocks=BLOCKS).fit(X.astype(np.float64))
    assert single.transform(X).dtype == np.float32
    assert_allclose(single.correlations_, double.correlations_, atol=1e-6)
    assert_allclose(single.transform(X), double.transform(X.astype(np.float64)), atol=1e-4)


def test_float32_far_from_zero_is_centred():
    X = (linked() + 12345.678).astype(np.float32)
    fusion = CCAFusion(2, blocks=BLOCKS)
    assert_allclose(fusion.fit_transform(X).mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    predicted = fusion.predict_modality(X[:, :5], "a", "b").mean(axis=0, dtype=np.float64)
    assert_allclose(predicted, X[:, 5:].mean(axis=0, dtype=np.float64), rtol=1e-7)


@pytest.mark.parametrize(
    ("regularization", "message"),
    [
        ({"a": 0.1}, r"names the blocks \['a'\], X has the blocks \['a', 'b'\]"),
        ({"a": 0.1, "b": 2}, r"regularization\['b'\] must be 'auto' or in \[0, 1\], got 2"),
        (1.5, "'regularization' parameter of CCAFusion"),
    ],
)
def test_wrong_regularization(regularization, message):
    with pytest.raises(ValueError, match=message):
        CCAFusion(regularization=regularization, blocks=BLOCKS).fit(linked())


def test_one_block_is_refused():
    with pytest.raises(ValueError, match="CCAFusion needs at least 2 blocks"):
        CCAFusion().fit(linked())


THREE = {"a": slice(0, 5), "b": slice(5, 9), "c": slice(9, None)}


def cosines(ours, theirs):
    """Absolute correlations of columns."""
    k = ours.shape[1]
    return np.abs(np.corrcoef(ours.T, theirs.T)[:k, k:].diagonal())


@pytest.mark.parametrize("ridge", [0.0, 0.2, 1.0])
def test_sumcor_is_the_generalised_eigenproblem(ridge):
    X = linked(widths=(5, 4, 3))
    fusion = CCAFusion(3, objective="sumcor", regularization=ridge, scaling=None, blocks=THREE).fit(X)
    S = np.cov(X, rowvar=False)
    own = [S[columns, columns] for columns in THREE.values()]
    within = linalg.block_diag(*[(1 - ridge) * s + ridge * np.trace(s) / len(s) * np.eye(len(s)) for s in own])
    _, vectors = linalg.eigh(S - linalg.block_diag(*own), within)
    for name, columns in THREE.items():
        assert_allclose(cosines(X[:, columns] @ fusion.weights_[name], X[:, columns] @ vectors[columns, :-4:-1]), 1)


@pytest.mark.parametrize("ridge", [0.0, 0.2, 1.0])
def test_maxvar_regresses_on_what_the_blocks_explain_together(ridge):
    X = linked(n=60, widths=(5, 4, 3))
    fusion = CCAFusion(3, regularization=ridge, scaling=None, blocks=THREE).fit(X)
    Z = X - X.mean(axis=0)
    explained, maps = 0, {}
    for name, columns in THREE.items():
        own = Z[:, columns]
        s = own.T @ own / 59
        maps[name] = linalg.solve((1 - ridge) * s + ridge * np.trace(s) / len(s) * np.eye(len(s)), own.T)
        explained = explained + own @ maps[name]
    _, G = linalg.eigh(explained)
    for name, columns in THREE.items():
        assert_allclose(cosines(X[:, columns] @ fusion.weights_[name], X[:, columns] @ maps[name] @ G[:, :-4:-1]), 1)


def test_objectives_agree_without_a_ridge_and_with_two_blocks():
    X = linked(widths=(5, 4, 3))
    first, second = (
        CCAFusion(3, objective=objective, regularization=0, blocks=THREE).fit_transform(X)
        for objective in ("maxvar", "sumcor")
    )
    assert_allclose(first, second, atol=1e-9)
    first, second = (
        CCAFusion(3, objective=objective, blocks=BLOCKS).fit_transform(X[:, :9]) for objective in ("maxvar", "sumcor")
    )
    assert_array_equal(first, second)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_cca_zoo_finds_the_same(ridge):
    zoo = pytest.importorskip("cca_zoo.linear")
    X = StandardScaler().fit_transform(linked(widths=(5, 4, 3))) * np.sqrt(399 / 400)
    for objective, stock in (("maxvar", zoo.GCCA), ("sumcor", zoo.MCCA)):
        fusion = CCAFusion(3, objective=objective, regularization=ridge, scaling=None, blocks=THREE).fit(X)
        theirs = stock(3, shrinkage=ridge).fit([X[:, columns] for columns in THREE.values()])
        for columns, ours, weights in zip(THREE.values(), fusion.weights_.values(), theirs.weights_, strict=True):
            assert_allclose(cosines(X[:, columns] @ ours, X[:, columns] @ weights), 1, atol=1e-9)
    two = zoo.CCA(3).fit([X[:, :5], X[:, 5:9]]).transform([X[:, :5], X[:, 5:9]])
    fusion = CCAFusion(3, regularization=0, blocks=BLOCKS).fit(X[:, :9])
    assert_allclose(fusion.correlations_, np.corrcoef(*[z.T for z in two])[:3, 3:].diagonal(), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scaling", ["std", None])
@pytest.mark.parametrize("widths", [(60, 80), (60, 5), (60, 5, 40)])
def test_the_dual_is_the_primal(widths, scaling, dtype):
    X = (linked(n=50, widths=widths) * np.geomspace(0.1, 3, sum(widths)) + 5).astype(dtype)
    ends = np.cumsum(widths)
    blocks = {f"b{i}": slice(end - width, end) for i, (end, width) in enumerate(zip(ends, widths, strict=True))}
    for regularization in (0.1, "auto"):
        dual = CCAFusion(3, regularization=regularization, scaling=scaling, blocks=blocks).fit(X)
        # Repeated rows change no covariance but for the factor of n - 1; the primal side has rows enough.
        primal = CCAFusion(3, regularization=dual.regularization_, scaling=scaling, blocks=blocks).fit(
            np.tile(X, (3, 1))
        )
        assert max(widths) > len(X)
        tolerance = 1e-8 if dtype == np.float64 else 1e-3
        assert_allclose(dual.correlations_, primal.correlations_, rtol=tolerance)
        scale = np.sqrt((3 * 50 - 1) / (3 * 49))
        for name in blocks:
            weights = primal.weights_[name]
            assert_allclose(dual.weights_[name] * scale, weights, atol=tolerance * np.abs(weights).max())
            assert_allclose(dual.loadings_[name], primal.loadings_[name], atol=tolerance)


@pytest.mark.parametrize("widths", [(5, 4), (60, 4), (60, 80)])
def test_auto_ridge_heeds_no_rows_with_a_single_block(widths):
    X = linked(n=90, widths=widths)
    blocks = {"a": slice(0, widths[0]), "b": slice(widths[0], None)}
    X[50:, blocks["b"]] = np.nan
    ridges = [CCAFusion(2, regularization="auto", blocks=blocks).fit(rows).regularization_ for rows in (X, X[:50])]
    assert_allclose(list(ridges[0].values()), list(ridges[1].values()), rtol=1e-10)


def test_auto_ridge_of_wide_blocks_is_ledoit_wolf():
    X = linked(n=50, widths=(60, 80))
    blocks = {"a": slice(0, 60), "b": slice(60, None)}
    fusion = CCAFusion(2, regularization="auto", blocks=blocks).fit(X)
    for name, columns in blocks.items():
        block = StandardScaler().fit_transform(X[:, columns])
        assert_allclose(fusion.regularization_[name], LedoitWolf().fit(block).shrinkage_)


def test_twenty_thousand_columns():
    X = linked(n=200, widths=(20_000, 500), noise=2).astype(np.float32)
    blocks = {"a": slice(0, 20_000), "b": slice(20_000, None)}
    fusion = CCAFusion(4, blocks=blocks).fit(X[:150])
    # Two variables are shared, over noise of four times their variance in every column.
    held_out = np.split(fusion.transform(X[150:]), 2, axis=1)
    assert (cosines(*held_out)[:2] > 0.9).all()


@pytest.mark.parametrize("regularization", [0.0, 0.3, "auto"])
@pytest.mark.parametrize("cls", [CCAFusion, PLSFusion])
def test_two_rows(cls, regularization):
    X = linked()[:2]
    fusion = cls(blocks=BLOCKS) if cls is PLSFusion else cls(regularization=regularization, blocks=BLOCKS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = fusion.fit_transform(X)
    assert out.shape == (2, 2)
    assert_allclose(fusion.correlations_, 1)


def test_duplicated_columns_do_not_matter():
    X = linked()
    twice = np.hstack([X[:, :5], X[:, :2], X[:, 5:]])
    blocks = {"a": slice(0, 7), "b": slice(7, None)}
    for ridge, options in ((0.0, {}), (1e-3, {})):
        fusion = CCAFusion(4, regularization=ridge, blocks=blocks).fit(twice)
        plain = CCAFusion(4, regularization=ridge, blocks=BLOCKS).fit(X, **options)
        assert_allclose(fusion.correlations_, plain.correlations_, atol=1e-8 if ridge == 0 else 1e-3)
        assert np.isfinite(fusion.transform(twice)).all()


@pytest.mark.parametrize("objective", ["maxvar", "sumcor"])
@pytest.mark.parametrize("ridge", [0.0, 0.1, 1.0])
def test_components_do_not_collapse(objective, ridge):
    # Rank 2 in the second block and more components asked for than anything can give.
    X = linked(widths=(6, 2, 5))
    X = np.hstack([X[:, :6], X[:, 6:8] @ np.random.default_rng(3).normal(size=(2, 4)), X[:, 8:]])
    blocks = {"a": slice(0, 6), "b": slice(6, 10), "c": slice(10, None)}
    fusion = CCAFusion(8, objective=objective, regularization=ridge, blocks=blocks)
    out = fusion.fit_transform(X)
    k = fusion.n_components_
    parts = dict(zip(blocks, np.split(out, 3, axis=1), strict=True))
    for name in ("a", "c"):
        assert_allclose(parts[name].std(axis=0, ddof=1), 1, rtol=1e-6)
        assert np.linalg.matrix_rank(parts[name], tol=1e-6) == k
    assert np.isfinite(out).all()


def test_blocks_in_any_order_of_columns():
    X = linked()
    swapped = np.hstack([X[:, 5:], X[:, :5]])
    fusion = CCAFusion(3, blocks={"a": slice(4, None), "b": slice(0, 4)})
    assert_allclose(fusion.fit_transform(swapped), CCAFusion(3, blocks=BLOCKS).fit_transform(X), atol=1e-10)


@pytest.mark.parametrize("objective", ["maxvar", "sumcor"])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_more_than_two_blocks_use_the_rows_that_have_pairs(objective, ridge):
    X = linked(widths=(5, 4, 3))
    gone = X.copy()
    gone[:150, :5] = np.nan
    gone[150:250, 5:9] = np.nan
    gone[250:300, :9] = np.nan
    fusion = CCAFusion(2, objective=objective, regularization=ridge, scaling=None, blocks=THREE).fit(gone)
    rows = {"a": slice(150, 400), "b": [*range(150), *range(300, 400)], "c": slice(0, 250)}
    have = {name: np.isin(np.arange(400), np.arange(400)[index]) for name, index in rows.items()}
    have["c"] = np.r_[np.ones(250, bool), np.zeros(50, bool), np.ones(100, bool)]
    have["a"][250:300] = False
    n_blocks = np.sum(list(have.values()), axis=0)
    assert_array_equal(fusion.n_pairs_, [[(have[a] & have[b] & (n_blocks > 1)).sum() for b in THREE] for a in THREE])
    agreement, within = np.zeros((12, 12)), np.zeros((12, 12))
    for a, own in THREE.items():
        for b, other in THREE.items():
            both = have[a] & have[b] & (n_blocks > 1)
            left, right = X[both, own], X[both, other]
            s = (left - left.mean(axis=0)).T @ (right - right.mean(axis=0)) / (both.sum() - 1)
            if a != b:
                agreement[own, other] = both.sum() * s
            else:
                within[own, own] = (1 - ridge) * s + ridge * np.trace(s) / len(s) * np.eye(len(s))
                if objective == "maxvar":
                    # What a block explains of itself counts in rows of all blocks, not in rows of two.
                    agreement[own, own] = (both & (n_blocks == 3)).sum() * (s - within[own, own])
    _, vectors = linalg.eigh(agreement, within)
    for name, columns in THREE.items():
        assert_allclose(cosines(X[:, columns] @ fusion.weights_[name], X[:, columns] @ vectors[columns, :-3:-1]), 1)
    assert np.isfinite(fusion.transform(gone)).all()


def halves_of_digits(n_train=1200):
    """Upper half, lower half and one-hot class of digits; rows to fit and to test, and the classes of the latter."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = np.hstack([X, np.eye(10)[y]])[order], y[order]
    return X[:n_train], X[n_train:], y[n_train:]


HALVES = {"up": slice(0, 32), "low": slice(32, 64), "label": slice(64, 74)}


def precision_at_10(fusion, X, y):
    """Share of the class of an upper half among the ten nearest lower halves."""
    up, low = (normalize(fusion.transform_modality(X[:, HALVES[name]], name)) for name in ("up", "low"))
    nearest = np.argsort(-up @ low.T, axis=1)[:, :10]
    return (y[nearest] == y[:, None]).mean()


@pytest.mark.parametrize(
    "fusion",
    [CCAFusion(9), CCAFusion(9, objective="sumcor"), PLSFusion(9), KernelCCAFusion(9, n_landmarks=150, random_state=0)],
    ids=["maxvar", "sumcor", "pls", "kernel"],
)
def test_more_pairs_and_more_labels_are_never_worse_than_none(fusion):
    X, new, y = halves_of_digits()

    def precision(rows, blocks):
        return precision_at_10(clone(fusion).set_params(blocks=blocks).fit(rows), new, y)

    paired = []
    for n_pairs in (0, 20, 50, 100, 200, 1200):
        # A row has both halves, or one of them; all have the label.
        rows, middle = X.copy(), (1200 + n_pairs) // 2
        rows[n_pairs:middle, HALVES["low"]] = rows[middle:, HALVES["up"]] = np.nan
        paired.append(precision(rows, HALVES))
    labelled = [precision(X[:, :64], {name: HALVES[name] for name in ("up", "low")})]
    for n_labels in (20, 50, 100, 200, 1200):
        rows = X.copy()
        rows[n_labels:, HALVES["label"]] = np.nan
        labelled.append(precision(rows, HALVES))
    assert min(labelled) > labelled[0] - 0.01
    # Pairs agree in more than their class, so that classes lose a little of the nine components to other agreement.
    assert min(paired) > paired[0] - 0.03


def test_pairs_of_few_rows_count_for_little_whatever_the_order_of_blocks():
    X, new, _ = halves_of_digits()
    X[20:, HALVES["label"]] = np.nan
    two = CCAFusion(9, blocks={"up": slice(0, 32), "low": slice(32, None)}).fit(X[:, :64])
    few = CCAFusion(9, blocks=HALVES).fit(X)
    for name in ("up", "low"):
        block = new[:, HALVES[name]]
        assert (cosines(few.transform_modality(block, name), two.transform_modality(block, name)) > 0.95).all()
    assert_allclose(few.correlations_, two.correlations_, atol=0.02)
    assert_array_equal(few.n_pairs_, [[1200, 1200, 20], [1200, 1200, 20], [20, 20, 20]])
    turned = CCAFusion(9, blocks={name: HALVES[name] for name in ("label", "low", "up")}).fit(X)
    assert_allclose(turned.correlations_, few.correlations_)
    assert_array_equal(turned.n_pairs_, few.n_pairs_[::-1, ::-1])


NARROW = {"a": slice(0, 60), "b": slice(60, 110), "c": slice(110, None)}


@pytest.mark.parametrize("objective", ["maxvar", "sumcor"])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_narrow_block_contributes_where_it_can(objective, ridge):
    X = linked(n=500, widths=(60, 50, 2), rank=10, noise=2.0)
    fusion = CCAFusion(80, objective=objective, regularization=ridge, scaling=None, blocks=NARROW).fit(X)
    assert fusion.n_components_ == 50
    S = np.cov(X, rowvar=False)
    own = [S[columns, columns] for columns in NARROW.values()]
    within = linalg.block_diag(*[(1 - ridge) * s + ridge * np.trace(s) / len(s) * np.eye(len(s)) for s in own])
    _, vectors = linalg.eigh(S if objective == "maxvar" else S - linalg.block_diag(*own), within)
    expected = {name: X[:, columns] @ vectors[columns, :-51:-1] for name, columns in NARROW.items()}
    variates = {name: X[:, columns] @ fusion.weights_[name] for name, columns in NARROW.items()}
    for name in NARROW:
        assert_allclose(cosines(variates[name], expected[name]), 1, atol=1e-6)
    for name in ("a", "b"):
        assert_allclose(variates[name].std(axis=0, ddof=1), 1)
    # Two columns cannot vary independently in fifty components.
    largest = np.max([values.std(axis=0, ddof=1) for values in expected.values()], axis=0)
    assert_allclose(variates["c"].std(axis=0, ddof=1), expected["c"].std(axis=0, ddof=1) / largest, atol=1e-9)
    assert np.isfinite(fusion.predict_modality(X[:, NARROW["a"]], "a", "c")).all()


@pytest.mark.parametrize("fusion", [CCAFusion(10), PLSFusion(10), KernelCCAFusion(10, kernel="linear", random_state=0)])
def test_a_narrow_block_does_not_cut_the_space_of_the_others(fusion):
    X = linked(n=600, widths=(60, 50), rank=10, noise=2.0)
    X = np.hstack([X, np.random.default_rng(1).normal(size=(600, 2))])
    train, new = X[:400], X[400:]
    two = clone(fusion).set_params(blocks={"a": NARROW["a"], "b": slice(60, None)}).fit(train[:, :110])
    three = fusion.set_params(blocks=NARROW).fit(train)
    assert three.n_components_ == two.n_components_ == 10

    def rank(fusion):
        a, b = (normalize(fusion.transform_modality(new[:, NARROW[name]], name)) for name in ("a", "b"))
        similarity = a @ b.T
        return (similarity > np.diag(similarity)[:, None]).sum(axis=1).mean()

    assert rank(three) < 1.25 * rank(two)
    # The ridge is chosen for the components that are learned.
    if not isinstance(fusion, PLSFusion):
        assert fusion.set_params(regularization="cv").fit(train).n_components_ == 10


@pytest.mark.parametrize(("n_pairs", "n_components"), [(0, 1), (2, 1), (3, 2), (4, 3), (50, 4)])
def test_components_end_with_what_the_rows_of_a_pair_can_tell(n_pairs, n_components):
    X = linked(n=100, widths=(5, 4, 1))
    # The single column of c meets a and b in all of their rows, they meet each other in a few.
    X[n_pairs:50, :5] = X[50:, 5:9] = np.nan
    assert CCAFusion(blocks=THREE).fit(X).n_components_ == n_components


def test_float32_products_are_redone_where_columns_are_nearly_collinear():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(2000, 3))
    for gap in (1.0, 3e-1, 1e-1, 3e-2, 1e-2, 1e-3, 1e-4):
        A = latent @ rng.normal(size=(3, 6)) + gap * rng.normal(size=(2000, 6))
        B = latent @ rng.normal(size=(3, 5)) + rng.normal(size=(2000, 5))
        X = np.hstack([A, B]).astype(np.float32)
        blocks = {"a": slice(0, 6), "b": slice(6, None)}
        single = CCAFusion(5, regularization=0, blocks=blocks).fit(X)
        double = CCAFusion(5, regularization=0, blocks=blocks).fit(X.astype(np.float64))
        assert_allclose(single.correlations_, double.correlations_, atol=2e-6)


@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("widths", [(5, 4), (5, 4, 3)])
def test_correlations_do_not_depend_on_the_basis_of_a_block(widths, gap):
    X = linked(n=500, widths=widths)
    rng = np.random.default_rng(0)
    ends = np.cumsum(widths)
    blocks = {f"b{i}": slice(end - width, end) for i, (end, width) in enumerate(zip(ends, widths, strict=True))}
    mixed = np.empty_like(X)
    for columns in blocks.values():
        # Orthonormal columns, mixed by a matrix of known singular values; in exact arithmetic it has no influence.
        Q = linalg.qr(X[:, columns] - X[:, columns].mean(axis=0), mode="economic")[0]
        width = Q.shape[1]
        left, right = (linalg.qr(rng.normal(size=(width, width)))[0] for _ in range(2))
        mixed[:, columns] = Q * np.sqrt(500) @ (left * np.geomspace(1, gap, width)) @ right
    fusion = CCAFusion(3, regularization=0, blocks=blocks)
    expected = clone(fusion).fit(X).correlations_
    for scaling in ("std", None):
        fusion.set_params(scaling=scaling)
        assert_allclose(fusion.fit(mixed).correlations_, expected, atol=1e-15 / gap**2 + 1e-13)
        # The numbers are rounded to float32 here, which moves the smallest direction by 6e-8 over the gap.
        assert_allclose(fusion.fit(mixed.astype(np.float32)).correlations_, expected, atol=(1e-7 / gap) ** 2 * 4 + 1e-6)


@pytest.mark.parametrize("regularization", [0.01, 0.3, "auto", "cv"])
@pytest.mark.parametrize(("n", "widths"), [(400, (5, 4)), (400, (5, 4, 3)), (30, (40, 4))])
def test_factors_of_whole_blocks_do_not_matter(n, widths, regularization):
    X = linked(n=n, widths=widths)
    ends = np.cumsum(widths)
    blocks = {f"b{i}": slice(end - width, end) for i, (end, width) in enumerate(zip(ends, widths, strict=True))}
    fusion = CCAFusion(2, regularization=regularization, scaling=None, blocks=blocks)
    expected = fusion.fit_transform(X)
    for factor in (1e-30, 1e30):
        scaled = X * np.where(np.arange(X.shape[1]) < widths[0], factor, 1)
        assert_allclose(fusion.fit_transform(scaled), expected, atol=1e-8)


def test_values_that_overflow_products_in_float32():
    X = linked()
    huge = (X * 1e25).astype(np.float32)
    assert_allclose(
        CCAFusion(3, blocks=BLOCKS).fit(huge).correlations_, CCAFusion(3, blocks=BLOCKS).fit(X).correlations_, atol=1e-5
    )


def test_no_copy_of_x():
    X = np.random.default_rng(0).normal(size=(40_000, 60)).astype(np.float32)
    fusion = CCAFusion(4, blocks={"a": slice(0, 30), "b": slice(30, None)})
    tracemalloc.start()
    fusion.fit(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Chunks of 2**21 cells would hold most of it; all other arrays are small.
    assert peak < 0.9 * X.astype(np.float64).nbytes + 4e6


@pytest.mark.parametrize("fusion", [CCAFusion(3, blocks=THREE), PLSFusion(3, blocks=THREE)])
@pytest.mark.parametrize("missing", [False, True])
def test_partial_fit_is_fit(fusion, missing):
    X = linked(widths=(5, 4, 3)) + 100
    if missing:
        X[::3, :5] = np.nan
        X[1::5, 9:] = np.nan
    whole = clone(fusion).fit(X)
    # A batch of one block alone adds nothing.
    alone = X[:10].copy()
    alone[:, 5:] = np.nan
    parts = clone(fusion)
    for rows in (X[:50], X[50:57], X[57:], alone):
        assert parts.partial_fit(rows) is parts
    assert_allclose(parts.transform(X), whole.transform(X), atol=1e-9)
    assert_allclose(parts.correlations_, whole.correlations_, atol=1e-10)
    assert_array_equal(parts.n_pairs_, whole.n_pairs_)
    copied = pickle.loads(pickle.dumps(parts))
    assert_allclose(copied.partial_fit(X).transform(X), whole.transform(X), atol=1e-1)
    assert_allclose(parts.fit(X[:200]).transform(X), clone(fusion).fit(X[:200]).transform(X))
    assert_allclose(parts.partial_fit(X[:200]).transform(X), clone(fusion).fit(X[:200]).transform(X), atol=1e-9)


def test_partial_fit_needs_numbers():
    for regularization in ("auto", "cv", {"a": 0.1, "b": "auto"}):
        fusion = CCAFusion(regularization=regularization, blocks=BLOCKS)
        assert not hasattr(fusion, "partial_fit")
        with pytest.raises(AttributeError) as caught:
            fusion.partial_fit(linked())
        assert "needs a regularization given as numbers" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="at least 2 with block 'a' and the same other block, got 1"):
        CCAFusion(blocks=BLOCKS).partial_fit(linked()[:1])


@pytest.mark.parametrize("n", [200, 2500])
@pytest.mark.parametrize("widths", [(25, 15), (20, 15, 10)])
def test_cross_validated_ridge_is_the_one_of_an_exhaustive_search(n, widths):
    X = linked(n=n, widths=widths, rank=3, noise=2.0 if n < 2000 else 6.0)
    ends = np.cumsum(widths)
    blocks = {f"b{i}": slice(end - width, end) for i, (end, width) in enumerate(zip(ends, widths, strict=True))}
    fusion = CCAFusion(3, regularization="cv", blocks=blocks).fit(X)
    held_out = np.arange(n) % 5 == 0
    scores = [
        CCAFusion(3, regularization=ridge, blocks=blocks).fit(X[~held_out]).score(X[held_out]) for ridge in RIDGES
    ]
    chosen = fusion.regularization_["b0"]
    assert set(fusion.regularization_.values()) == {chosen}
    assert scores[RIDGES.index(chosen)] > max(scores) - 2e-3
    assert_allclose(fusion.weights_["b0"], CCAFusion(3, regularization=chosen, blocks=blocks).fit(X).weights_["b0"])
    assert np.ptp(scores) > 4e-3


@pytest.mark.parametrize("widths", [(7, 4), (4, 6), (6, 3, 5)])
@pytest.mark.parametrize("objective", ["maxvar", "sumcor"])
@pytest.mark.parametrize("complete", [True, False])
def test_all_ridges_side_by_side_are_each_by_itself(complete, objective, widths):
    X = linked(n=300, widths=widths, rank=3, noise=2.0)
    ends = np.cumsum(widths)
    slices = {f"b{i}": slice(end - width, end) for i, (end, width) in enumerate(zip(ends, widths, strict=True))}
    S = np.cov(X[::2], rowvar=False)
    axes = linalg.block_diag(*[linalg.eigh(S[own, own])[1] for own in slices.values()])
    targets, noises = dict.fromkeys(slices, 2.0), dict.fromkeys(slices, 0.0)
    n_pairs = np.array([[120.0, 40, 100], [40, 90, 60], [100, 60, 150]])[: len(widths), : len(widths)]
    if complete:
        n_pairs[:] = 150.0
    train = BlockCovariance(axes.T @ S @ axes, slices, slices, None, None, None, targets, noises, None, n_pairs)
    test = np.cov(X[1::2] @ axes, rowvar=False)
    found = held_out_correlations(train, test, 3, objective)
    for ridge, mean in zip(RIDGES, found, strict=True):
        weights = canonical_weights(train, dict.fromkeys(slices, ridge), 3, objective)[0]
        variates = [X[1::2] @ axes[:, own] @ weights[name] for name, own in slices.items()]
        pairs = [(a, b) for a in range(len(widths)) for b in range(a)]
        correlations = [
            np.mean([np.corrcoef(variates[a][:, i], variates[b][:, i])[0, 1] for i in range(3)]) for a, b in pairs
        ]
        assert_allclose(mean, np.average(correlations, weights=[n_pairs[pair] for pair in pairs]), atol=1e-10)
    # A component that there is no column for agrees on nothing.
    few = sorted(widths)[-2]
    assert_allclose(
        held_out_correlations(train, test, 2 * few, objective) * 2, held_out_correlations(train, test, few, objective)
    )


def test_cross_validated_ridge_does_not_depend_on_rounding():
    # Two or three held-out rows make many ridges equal.
    for n in (10, 12):
        for seed in range(10):
            X = linked(n=n, seed=seed)
            fusion = CCAFusion(2, regularization="cv", blocks=BLOCKS)
            assert fusion.fit(X * np.pi).regularization_ == fusion.fit(X).regularization_


def test_cross_validated_ridge_of_wide_blocks_and_of_few_rows():
    X = linked(n=50, widths=(60, 80), noise=1.0)
    blocks = {"a": slice(0, 60), "b": slice(60, None)}
    fusion = CCAFusion(2, regularization="cv", blocks=blocks).fit(X)
    assert set(fusion.regularization_.values()) <= set(RIDGES)
    assert fusion.fit(X[:4]).n_components_ >= 1
    with pytest.raises(ValueError, match="regularization='cv' needs at least 4 rows, got 3"):
        fusion.fit(X[:3])


@pytest.mark.parametrize("fusion", [CCAFusion(3, blocks=BLOCKS), PLSFusion(3, blocks=BLOCKS)])
def test_pickling_and_set_output(fusion):
    X = linked()
    fitted = clone(fusion).fit(X)
    again = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(again.transform(X), fitted.transform(X))
    frame = clone(fusion).set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == list(fitted.get_feature_names_out())


def nutrimouse():
    base = Path(os.environ.get("SKMM_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")) / "nutrimouse"
    if not base.is_dir():
        pytest.skip("no nutrimouse data at ../shared/data next to the project, nor at $SKMM_DATA")
    parts = [np.loadtxt(base / f"{name}.csv", delimiter=",", skiprows=1) for name in ("gene", "lipid")]
    return np.hstack(parts), {"genes": slice(0, 120), "lipids": slice(120, None)}


def test_nutrimouse():
    X, blocks = nutrimouse()
    with pytest.warns(UserWarning, match="60 independent columns together and only 40 rows"):
        CCAFusion(3, regularization=0, blocks=blocks).fit(X)
    held_out = []
    for i in range(len(X)):
        fusion = CCAFusion(1, regularization="auto", blocks=blocks).fit(np.delete(X, i, axis=0))
        held_out.append(fusion.transform(X[[i]])[0])
    assert np.corrcoef(np.array(held_out).T)[0, 1] > 0.88


@pytest.mark.parametrize("regularization", [0.0, 0.3, "auto", "cv"])
def test_units_offsets_and_layout_do_not_matter(regularization, tmp_path):
    X = linked()
    fusion = CCAFusion(3, regularization=regularization, blocks=BLOCKS)
    expected = fusion.fit_transform(X)
    np.save(tmp_path / "X.npy", X)
    units = np.geomspace(1e-12, 1e12, X.shape[1])
    for same in (X * units, X * units[::-1], np.asfortranarray(X), np.load(tmp_path / "X.npy", mmap_mode="r")):
        assert_allclose(fusion.fit_transform(same), expected, atol=1e-9)
    assert_allclose(fusion.fit_transform(X + 1e6), expected, atol=1e-7)
    # Integers are the numbers that they are, and float32 is no less precise than what it holds.
    whole = np.round(100 * X).astype(int)
    assert_array_equal(fusion.fit_transform(whole), fusion.fit_transform(whole.astype(float)))
    far = (X + 1e6).astype(np.float32)
    single, double = clone(fusion).fit(far), clone(fusion).fit(far.astype(np.float64))
    assert_allclose(single.correlations_, double.correlations_, atol=1e-6)
