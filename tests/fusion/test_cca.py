"""CCAFusion against the analytic solution and scikit-learn's iterative CCA."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg
from sklearn.covariance import LedoitWolf
from sklearn.cross_decomposition import CCA, PLSSVD
from sklearn.preprocessing import StandardScaler

from skmm import CCAFusion

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
    with pytest.warns(UserWarning, match="some correlations are 1 whatever the data"):
        fusion = CCAFusion(2, regularization=0, blocks={"a": slice(0, 60), "b": slice(60, None)}).fit(
            np.random.default_rng(0).normal(size=(30, 120))
        )
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
