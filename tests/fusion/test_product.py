"""ProductFusion against einsum, and its sketches against the exact inner products."""

import pickle
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import ConcatFusion, ProductFusion

BLOCKS = {"a": slice(0, 3), "b": slice(3, 5), "c": slice(5, None)}
RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, size=(40, 9))
METHODS = ["outer", "hadamard", "compact"]


def units(data, blocks=BLOCKS):
    """Blocks centred, each with a total variance of 1."""
    scaled = ConcatFusion(blocks=blocks).fit_transform(data)
    return [scaled[:, columns] / np.sqrt(data.shape[1] / len(blocks)) for columns in blocks.values()]


def ahead(block):
    return np.hstack([np.ones((len(block), 1)), block])


def test_outer_is_einsum():
    a, b, c = units(X)
    assert_allclose([part.var(axis=0).sum() for part in (a, b, c)], 1)
    fusion = ProductFusion(blocks=BLOCKS)
    expected = np.einsum("ni,nj,nk->nijk", ahead(a), ahead(b), ahead(c)).reshape(40, -1)
    assert_allclose(fusion.fit_transform(X), expected, atol=1e-12)
    assert fusion.n_components_ == {"a": 3, "b": 2, "c": 4}
    assert_array_equal(fusion.get_feature_names_out(), [f"productfusion{i}" for i in range(60)])


def test_outer_of_principal_components():
    fusion = ProductFusion(n_components=2, blocks=BLOCKS)
    a, b, c = units(X)
    a, c = PCA(2).fit_transform(a), PCA(2).fit_transform(c)
    expected = np.einsum("ni,nj,nk->nijk", ahead(a), ahead(b), ahead(c)).reshape(40, -1)
    assert_allclose(fusion.fit_transform(X), expected, atol=1e-9)


def test_width_is_bounded():
    assert ProductFusion(max_features=40, blocks=BLOCKS).fit(X).n_components_ == {"a": 2, "b": 2, "c": 2}
    assert ProductFusion(max_features=48, blocks=BLOCKS).fit_transform(X).shape == (40, 48)
    with pytest.raises(ValueError, match=r"n_components=3 .* has 48 columns, max_features is 47; use n_components=2"):
        ProductFusion(n_components=3, max_features=47, blocks=BLOCKS).fit(X)
    with pytest.raises(ValueError, match="of 3 blocks has at least 8 columns, max_features is 7"):
        ProductFusion(max_features=7, blocks=BLOCKS).fit(X)
    with pytest.raises(ValueError, match="has 60 columns, max_features is 59"):
        ProductFusion(n_components=None, max_features=59, blocks=BLOCKS).fit(X)
    for method in ("hadamard", "compact"):
        assert ProductFusion(method, max_features=5, blocks=BLOCKS).fit_transform(X).shape == (40, 5)


def test_one_block_is_refused():
    with pytest.raises(ValueError, match="ProductFusion needs at least 2 blocks"):
        ProductFusion().fit(X)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hadamard", "compact"])
def test_sketches_are_unbiased(method):
    rows = X[:8].copy()
    rows[0, :3] = np.nan
    rows[1, 3:] = np.nan
    exact = ProductFusion(blocks=BLOCKS).fit(X).transform(rows)
    truth = exact @ exact.T
    grams = []
    for seed in range(1000):
        out = ProductFusion(method, max_features=64, random_state=seed, blocks=BLOCKS).fit(X).transform(rows)
        grams.append(out @ out.T)
    grams = np.array(grams)
    spread = grams.std(axis=0, ddof=1)
    # 36 different entries at 4.5 standard errors: a choice of seeds fails by chance once in 4,000 (Bonferroni, normal).
    assert (np.abs(grams.mean(axis=0) - truth) <= 4.5 * spread / np.sqrt(len(grams)) + 1e-9).all()
    assert spread.max() > 0.1


@pytest.mark.parametrize("method", ["hadamard", "compact"])
def test_more_features_are_closer(method):
    exact = ProductFusion(blocks=BLOCKS).fit_transform(X)
    truth = exact @ exact.T

    def error(width):
        sketches = [
            ProductFusion(method, max_features=width, random_state=seed, blocks=BLOCKS).fit_transform(X)
            for seed in range(20)
        ]
        return np.mean([(out @ out.T - truth) ** 2 for out in sketches])

    # Variances fall with the width: 16 times here, and half of that is far outside what seeds do.
    assert error(16 * 16) < error(16) / 8


def test_compact_is_the_sketch_of_the_tensor_product():
    fusion = ProductFusion("compact", max_features=16, random_state=0, blocks=BLOCKS)
    out = fusion.fit_transform(X)
    buckets, signs = [], []
    for sketch in fusion._sketches:
        dense = sketch.toarray()
        buckets.append(np.append(0, np.abs(dense).argmax(axis=1)))
        signs.append(np.append(1, dense.sum(axis=1)))
    tensor = np.einsum("ni,nj,nk->nijk", *map(ahead, units(X)))
    expected = np.zeros((40, 16))
    for i, j, k in np.ndindex(tensor.shape[1:]):
        place = (buckets[0][i] + buckets[1][j] + buckets[2][k]) % 16
        expected[:, place] += signs[0][i] * signs[1][j] * signs[2][k] * tensor[:, i, j, k]
    assert_allclose(out, expected, atol=1e-10)


def support(fusion):
    """Columns of a compact product that some product of columns of X is sketched into."""
    width = fusion.max_features
    reached = np.eye(1, width, dtype=bool)[0]
    for sketch in fusion._sketches:
        buckets = {0, *np.flatnonzero(np.abs(sketch.toarray()).any(axis=0)).tolist()}
        reached = np.any([np.roll(reached, bucket) for bucket in buckets], axis=0)
    return reached


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("max_features", [20, 97, 1000, 2048, 4093])
def test_compact_products_that_are_zero_are_exactly_zero(max_features, dtype):
    for seed in range(5):
        fusion = ProductFusion("compact", max_features=max_features, random_state=seed, blocks=BLOCKS)
        out = fusion.fit_transform(X.astype(dtype))
        reached = support(fusion)
        assert (out[:, ~reached] == 0).all()
        # No product is lost.
        assert (out[:, reached] != 0).any(axis=0).all()


def test_constant_columns_add_no_rounding_to_compact_products():
    constant = X.copy()
    constant[:, 3:5] = 0.1
    fusion = ProductFusion("compact", random_state=0, blocks=BLOCKS)
    out = fusion.fit_transform(constant)
    varies = np.ptp(out, axis=0) > 0
    # One column for the 1, one for each column that varies and for each product of two of them; fewer by collisions.
    assert np.count_nonzero(varies) <= 3 + 4 + 3 * 4
    assert out[:, varies].std(axis=0).min() > 1e-6


def test_a_scaler_behind_compact_products_does_not_blow_up_rounding():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(160, 6))
    pipe = make_pipeline(
        ProductFusion("compact", blocks={"a": slice(0, 3), "b": slice(3, 6)}, random_state=0), StandardScaler()
    )
    together = pipe.fit_transform(data)
    assert_allclose(np.vstack([pipe.transform(data[[i]]) for i in range(160)]), together, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_block_is_neutral(method):
    fusion = ProductFusion(method, random_state=0, blocks=BLOCKS).fit(X)
    gone = X.copy()
    gone[:, 3:5] = np.nan
    at_mean = X.copy()
    at_mean[:, 3:5] = X[:, 3:5].mean(axis=0)
    assert_allclose(fusion.transform(gone), fusion.transform(at_mean), atol=1e-10)
    a, _, c = units(X)
    out = fusion.transform(gone)
    if method == "outer":
        kept = np.einsum("ni,nk->nik", ahead(a), ahead(c))
        assert_allclose(out.reshape(40, 4, 3, 5)[:, :, 0], kept, atol=1e-10)
        assert_allclose(out.reshape(40, 4, 3, 5)[:, :, 1:], 0, atol=1e-10)
    nothing = fusion.transform(np.full((1, 9), np.nan))[0]
    ones = np.full(2048, 1 / np.sqrt(2048)) if method == "hadamard" else np.eye(1, len(nothing))[0]
    assert_allclose(nothing, ones, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scaling", ["norm", "std", None])
def test_constant_columns_and_few_rows(method, scaling):
    data = X.copy()
    data[:, 0] = 0.1
    data[1:, 3:5] = np.nan
    data[4, 6] = np.nan
    data[5] = np.nan
    for rows in (1, 2, 40):
        fusion = ProductFusion(method, n_components=2, scaling=scaling, random_state=0, blocks=BLOCKS).fit(data[:rows])
        out = fusion.transform(data)
        assert np.isfinite(out).all()
        # One row has block b, so that it is its own mean.
        assert_allclose(fusion.transform(np.where(np.isnan(data), data[0], data))[:4], out[:4], atol=1e-12)


@pytest.mark.parametrize("method", ["hadamard", "compact"])
def test_memory_grows_with_the_columns_not_with_their_square(method):
    data = np.random.default_rng(0).normal(size=(20, 3000)).astype(np.float32)
    fusion = ProductFusion(
        method, max_features=64, random_state=0, blocks={"a": slice(0, 2900), "b": slice(2900, None)}
    )
    tracemalloc.start()
    fusion.fit_transform(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A square of columns would be 67 MB in float64; the signs of "hadamard" are 3000 x 64.
    assert peak < 8e6


@pytest.mark.parametrize("method", METHODS)
def test_float32(method):
    fusion = ProductFusion(method, max_features=50, random_state=0, blocks=BLOCKS)
    single, double = fusion.fit_transform(X.astype(np.float32)), fusion.fit_transform(X)
    assert single.dtype == np.float32
    assert_allclose(single, double, atol=1e-4)
    assert fusion.transform(X.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("method", METHODS)
def test_rows_do_not_depend_on_each_other_and_pickles_agree(method):
    many = np.tile(X, (20, 1))
    fusion = ProductFusion(method, random_state=0, blocks=BLOCKS).fit(X)
    out = fusion.transform(many)
    assert_allclose(out[790:], fusion.transform(many[790:]), atol=1e-12)
    assert_array_equal(pickle.loads(pickle.dumps(fusion)).transform(many), out)
    again = ProductFusion(method, random_state=0, blocks=BLOCKS).fit(X)
    assert_array_equal(again.transform(many), out)
