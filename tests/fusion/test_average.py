"""AverageFusion: what is averaged, how blocks are aligned, and weights."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA

from skmm import AverageFusion, ConcatFusion

BLOCKS = {"a": slice(0, 5), "b": slice(5, 9), "c": slice(9, None)}
WIDTHS = (5, 4, 7)


def linked(n=150, widths=WIDTHS, noise=0.2, seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 3))
    return np.hstack([latent @ rng.normal(size=(3, p)) + noise * rng.normal(size=(n, p)) for p in widths])


def without(X, **rows):
    X = X.copy()
    for name, index in rows.items():
        X[index, BLOCKS[name]] = np.nan
    return X


def test_it_is_the_weighted_mean_of_principal_components():
    X = linked()
    fusion = AverageFusion(3, align=False, weights={"a": 1, "b": 2, "c": 1}, blocks=BLOCKS)
    scaled = ConcatFusion(blocks=BLOCKS).fit_transform(X)
    parts = [PCA(3).fit_transform(scaled[:, columns]) for columns in BLOCKS.values()]
    assert_allclose(fusion.fit_transform(X), (parts[0] + 2 * parts[1] + parts[2]) / 4, atol=1e-9)
    assert fusion.weights_ == {"a": 0.25, "b": 0.5, "c": 0.25}
    assert_array_equal(fusion.get_feature_names_out(), ["averagefusion0", "averagefusion1", "averagefusion2"])


def test_blocks_of_lower_rank_are_padded():
    X = linked()
    fusion = AverageFusion(7, align=False, weights=[0, 1, 0], blocks=BLOCKS)
    out = fusion.fit_transform(X)
    scaled = ConcatFusion(blocks=BLOCKS).fit_transform(X)
    assert_allclose(out[:, :4], PCA().fit_transform(scaled[:, 5:9]), atol=1e-9)
    assert_array_equal(out[:, 4:], 0)
    assert AverageFusion(99, blocks=BLOCKS).fit(X).n_components_ == 7


def test_aligned_blocks_that_are_rotations_of_each_other_become_one():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(60, 4)) * [4, 3, 2, 1]
    rotations = [np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2)]
    X = np.hstack([A, A @ rotations[0] + 5, A @ rotations[1]])
    blocks = {"a": slice(0, 4), "b": slice(4, 8), "c": slice(8, 12)}
    out = AverageFusion(4, blocks=blocks).fit_transform(X)
    alone = AverageFusion(4, weights=[1, 0, 0], blocks=blocks).fit_transform(X)
    assert_allclose(out, alone, atol=1e-5)
    # Also where each row lacks one of them.
    gone = X.copy()
    for b, columns in enumerate(blocks.values()):
        gone[b::3, columns] = np.nan
    centred = gone - np.nanmean(gone, axis=0)
    fusion = AverageFusion(4, scaling=None, blocks=blocks).fit(X)
    assert_allclose(fusion.transform(gone), fusion.transform(X), atol=1e-5)
    assert np.isfinite(AverageFusion(4, blocks=blocks).fit_transform(centred)).all()


def test_alignment_never_lowers_the_agreement():
    X = linked(noise=1.0)

    def spread(align):
        fusion = AverageFusion(4, align=align, blocks=BLOCKS).fit(X)
        parts = np.stack(
            [fusion.transform(without(X, **dict.fromkeys(set(BLOCKS) - {name}, slice(None)))) for name in BLOCKS]
        )
        return np.sum((parts - parts.mean(axis=0)) ** 2), np.sum(parts**2)

    aligned, size = spread(True)
    plain, same = spread(False)
    assert_allclose(size, same)
    assert aligned < 0.8 * plain


def test_random_maps_keep_inner_products_in_expectation():
    X = linked(n=12)
    scaled = ConcatFusion(blocks=BLOCKS).fit_transform(X)
    truth = scaled @ scaled.T / 9
    grams = []
    for seed in range(400):
        out = AverageFusion(8, reduction="random", random_state=seed, blocks=BLOCKS).fit_transform(X)
        grams.append(out @ out.T)
    grams = np.array(grams)
    error = (grams.mean(axis=0) - truth) / (grams.std(axis=0, ddof=1) / np.sqrt(len(grams)))
    # 78 different entries at 4.5 standard errors: fails by chance once in 1,900 choices of seeds (Bonferroni).
    assert np.abs(error).max() < 4.5


@pytest.mark.parametrize("reduction", ["pca", "random"])
def test_missing_blocks_leave_the_average(reduction):
    X = linked()
    fusion = AverageFusion(4, reduction=reduction, weights=[1, 2, 3], random_state=0, blocks=BLOCKS).fit(X)
    alone = {name: fusion.transform(without(X, **dict.fromkeys(set(BLOCKS) - {name}, slice(None)))) for name in BLOCKS}
    assert_allclose(fusion.transform(X), (alone["a"] + 2 * alone["b"] + 3 * alone["c"]) / 6)
    assert_allclose(fusion.transform(without(X, b=slice(None))), (alone["a"] + 3 * alone["c"]) / 4)
    assert_array_equal(fusion.transform(np.full((2, 16), np.nan)), 0)


@pytest.mark.parametrize("reduction", ["pca", "random"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows_and_constant_columns(reduction, n):
    X = linked(n=n)
    X[:, BLOCKS["b"]] = 0.1
    out = AverageFusion(reduction=reduction, random_state=0, blocks=BLOCKS).fit_transform(X)
    assert np.isfinite(out).all()


def test_learned_weights_prefer_the_block_that_knows():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = rng.normal(size=(300, 16))
    X[:, 5:9] += 2 * np.eye(3)[y] @ rng.normal(size=(3, 4))
    for target in (y, np.array(["x", "y", "z"])[y], y + 0.1 * rng.normal(size=300)):
        weights = AverageFusion(4, weights="cv", blocks=BLOCKS).fit(X, target).weights_
        assert weights["b"] > 2 * max(weights["a"], weights["c"])
        assert_allclose(sum(weights.values()), 1)


@pytest.mark.parametrize("reduction", ["pca", "random"])
def test_float32(reduction):
    X = without(linked(), a=[3, 4], c=[4]).astype(np.float32)
    fusion = AverageFusion(3, reduction=reduction, random_state=0, blocks=BLOCKS)
    single, double = fusion.fit_transform(X), fusion.fit_transform(X.astype(np.float64))
    assert single.dtype == np.float32
    assert_allclose(single, double, atol=1e-3)


def test_pickle():
    X = linked()
    fusion = AverageFusion(reduction="random", random_state=0, blocks=BLOCKS).fit(X)
    assert_array_equal(pickle.loads(pickle.dumps(fusion)).transform(X), fusion.transform(X))
