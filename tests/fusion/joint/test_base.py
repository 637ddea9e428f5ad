"""What joint embeddings share: any modality in, the shared space or another modality out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import normalize

from skmm import CCAFusion, KernelCCAFusion, PLSFusion
from skmm.fusion.joint._base import nearest_covariance

BLOCKS = {"a": slice(0, 5), "b": slice(5, 9), "c": slice(9, None)}
OFFSETS = np.linspace(-20, 20, 12)


def linked(n=300, seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 3))
    return latent @ rng.normal(size=(3, 12)) + 0.5 * rng.normal(size=(n, 12)) + OFFSETS


def two(**options):
    return CCAFusion(4, regularization=0, blocks={"a": slice(0, 5), "b": slice(5, None)}, **options)


@pytest.mark.parametrize("scaling", ["std", None])
def test_one_modality_is_mapped_as_all_are(scaling):
    X = linked()
    fusion = CCAFusion(3, scaling=scaling, blocks=BLOCKS).fit(X)
    out = fusion.transform(X)
    for i, (name, columns) in enumerate(BLOCKS.items()):
        assert_allclose(fusion.transform_modality(X[:, columns], name), out[:, 3 * i : 3 * i + 3], atol=1e-10)
    single = fusion.transform_modality(X[:, :5].astype(np.float32), "a")
    assert single.dtype == np.float32
    assert_allclose(single, out[:, :3], atol=1e-4)


def test_a_missing_row_is_mapped_to_the_mean():
    X = linked()
    fusion = CCAFusion(3, blocks=BLOCKS).fit(X)
    gone = X[:5, :5].copy()
    gone[1] = np.nan
    gone[2, 0] = np.nan
    out = fusion.transform_modality(gone, "a")
    assert_allclose(out[1], 0)
    filled = X[2, :5].copy()
    filled[0] = X[:, 0].mean()
    assert_allclose(out[2], fusion.transform_modality(filled[None], "a")[0])
    assert_allclose(fusion.predict_modality(gone, "a", "b")[1], X[:, 5:9].mean(axis=0))


@pytest.mark.parametrize("scaling", ["std", None])
@pytest.mark.parametrize(("source", "target"), [(slice(0, 5), slice(5, 9)), (slice(5, 9), slice(0, 5))])
def test_prediction_with_all_components_is_least_squares(source, target, scaling):
    X = linked()[:, :9]
    names = ("a", "b") if source.start == 0 else ("b", "a")
    out = two(scaling=scaling).fit(X).predict_modality(X[:, source], *names)
    assert_allclose(out, LinearRegression().fit(X[:, source], X[:, target]).predict(X[:, source]), atol=1e-8)


def test_prediction_of_a_block_from_itself():
    X = linked()[:, :9]
    fusion = two().fit(X)
    # Four variates span the four columns of b.
    assert_allclose(fusion.predict_modality(X[:, 5:], "b", "b"), X[:, 5:], atol=1e-8)


def test_score_is_the_mean_correlation():
    X, new = linked(), linked(seed=0)[::2]
    fusion = CCAFusion(3, blocks=BLOCKS).fit(X)
    assert_allclose(fusion.score(X), fusion.correlations_.mean(), atol=1e-10)
    parts = np.split(fusion.transform(new), 3, axis=1)
    by_hand = [np.corrcoef(parts[a][:, k], parts[b][:, k])[0, 1] for a, b in [(0, 1), (0, 2), (1, 2)] for k in range(3)]
    assert_allclose(fusion.score(new), np.mean(by_hand), atol=1e-10)
    gone = X.copy()
    gone[:, :9] = np.nan
    with pytest.raises(ValueError, match="score needs at least 2 rows that have the same two blocks"):
        fusion.score(gone)


def test_loadings_are_correlations():
    X = linked()
    fusion = CCAFusion(3, blocks=BLOCKS).fit(X)
    out = fusion.transform(X)
    for i, (name, columns) in enumerate(BLOCKS.items()):
        width = columns.indices(12)[1] - columns.start
        expected = np.corrcoef(X[:, columns].T, out[:, 3 * i : 3 * i + 3].T)[:width, width:]
        assert_allclose(fusion.loadings_[name], expected, atol=1e-10)
    assert (fusion.loadings_["a"][np.abs(fusion.loadings_["a"]).argmax(axis=0), range(3)] > 0).all()


@pytest.mark.parametrize("output", ["mean", "sum"])
def test_outputs(output):
    X = linked()
    parts = np.split(CCAFusion(3, blocks=BLOCKS).fit_transform(X), 3, axis=1)
    out = CCAFusion(3, output=output, blocks=BLOCKS).fit_transform(X)
    assert_allclose(out, getattr(np, output)(parts, axis=0), atol=1e-10)


def test_wrong_blocks():
    X = linked()
    fusion = CCAFusion(3, blocks=BLOCKS).fit(X)
    with pytest.raises(ValueError, match=r"there is no block 'z'; the blocks are \['a', 'b', 'c'\]"):
        fusion.transform_modality(X, "z")
    with pytest.raises(ValueError, match="there is no block 'z'"):
        fusion.predict_modality(X[:, :5], "a", "z")
    with pytest.raises(ValueError, match="block 'a' has 5 columns, got an array with 12"):
        fusion.transform_modality(X, "a")


def test_what_is_no_covariance_becomes_one():
    estimate = np.array([[1.0, 0.9, 0.9], [0.9, 1.0, -0.9], [0.9, -0.9, 1.0]])
    nearest = nearest_covariance(estimate)
    assert np.linalg.eigvalsh(estimate).min() < -0.5
    assert np.linalg.eigvalsh(nearest).min() > -1e-12
    assert_allclose(np.diag(nearest), 1)
    sound = np.array([[1.0, 0.5], [0.5, 2.0]])
    assert_allclose(nearest_covariance(sound), sound)


@pytest.mark.parametrize("fusion", [CCAFusion(3), PLSFusion(3), KernelCCAFusion(3, random_state=0)])
def test_weighting_multiplies_variates_by_powers_of_their_correlations(fusion):
    X, new = linked(), linked(seed=1)
    new[:20, :5] = np.nan
    plain = fusion.set_params(blocks=BLOCKS).fit(X)
    for power in (0, 1, 2.5):
        weighted = clone(plain).set_params(weighting="correlation", power=power).fit(X)
        factors = np.maximum(plain.correlations_, 0) ** power
        assert_allclose(weighted.transform(new), plain.transform(new) * np.tile(factors, 3))
        for name, columns in BLOCKS.items():
            block = new[:, columns]
            expected = plain.transform_modality(block, name) * factors
            assert_allclose(weighted.transform_modality(block, name), expected)
        mean = clone(weighted).set_params(output="mean").fit(X)
        assert_allclose(mean.transform(new), np.mean(np.split(weighted.transform(new), 3, axis=1), axis=0), atol=1e-12)
        # What does not depend on distances stays.
        assert_allclose(weighted.correlations_, plain.correlations_)
        assert weighted.score(X) == plain.score(X)
        assert_allclose(weighted.predict_modality(new[:, :5], "a", "b"), plain.predict_modality(new[:, :5], "a", "b"))
        assert weighted.transform(new.astype(np.float32)).dtype == np.float32


def test_components_without_agreement_count_for_nothing_in_weighted_distances():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(400, 2))
    X = np.hstack([latent, rng.normal(size=(400, 20)), latent, rng.normal(size=(400, 20))])
    X += 0.5 * rng.normal(size=X.shape)
    blocks = {"a": slice(0, 22), "b": slice(22, None)}

    def rank(**options):
        fusion = CCAFusion(22, regularization=0.1, blocks=blocks, **options).fit(X[:200])
        a, b = (normalize(fusion.transform_modality(X[200:, columns], name)) for name, columns in blocks.items())
        return ((a @ b.T) > (a * b).sum(axis=1)[:, None]).sum(axis=1).mean()

    assert rank(weighting="correlation", power=3) < rank(weighting="correlation", power=1) < rank()


def test_powers_below_zero_are_refused():
    with pytest.raises(ValueError, match="'power' parameter of CCAFusion"):
        CCAFusion(weighting="correlation", power=-1, blocks=BLOCKS).fit(linked())
