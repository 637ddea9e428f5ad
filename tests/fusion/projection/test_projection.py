"""PCAFusion and LDAFusion against scikit-learn's PCA and LDA on the same blocks."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from skmm import AverageFusion, ConcatFusion, LDAFusion, PCAFusion

X, Y = load_wine(return_X_y=True)
BLOCKS = {"a": slice(0, 8), "b": slice(8, None)}


def assert_equal_but_for_signs(ours, theirs):
    assert_allclose(ours * np.sign((ours * theirs).sum(axis=0)), theirs, atol=1e-9)


def test_pca_of_each_block_is_scikit_learns():
    out = PCAFusion(3, scaling=None, blocks=BLOCKS).fit_transform(X)
    assert_allclose(out[:, :3], PCA(3).fit_transform(X[:, :8]), atol=1e-9)
    assert_allclose(out[:, 3:], PCA(3).fit_transform(X[:, 8:]), atol=1e-9)


def test_joint_pca_is_scikit_learns():
    joined = ConcatFusion(blocks=BLOCKS).fit_transform(X)
    fusion = PCAFusion(4, level="joint", blocks=BLOCKS)
    assert_allclose(fusion.fit_transform(X), PCA(4).fit_transform(joined), atol=1e-9)
    assert_array_equal(fusion.get_feature_names_out(), [f"pcafusion{i}" for i in range(4)])
    assert fusion.n_components_ == {"": 4}


def test_pca_share_of_variance_and_whitening():
    fusion = PCAFusion(0.8, scaling="std", whiten=True, blocks=BLOCKS)
    out = fusion.fit_transform(X)
    for name, columns in BLOCKS.items():
        stock = PCA(0.8).fit(StandardScaler().fit_transform(X[:, columns]))
        assert fusion.n_components_[name] == stock.n_components_
    assert_allclose(out.var(axis=0, ddof=1), 1)


@pytest.mark.parametrize("level", ["modality", "joint"])
def test_pca_far_from_zero(level):
    fusion = PCAFusion(3, level=level, scaling=None, blocks=BLOCKS)
    units = StandardScaler().fit_transform(X)
    expected = fusion.fit_transform(units)
    assert_allclose(fusion.fit_transform(units + 1e9), expected, atol=1e-5)
    assert_allclose(fusion.fit_transform((units + 1e3).astype(np.float32)), expected, atol=1e-3)
    assert_allclose(
        fusion.partial_fit(units[:50] + 1e9).partial_fit(units[50:] + 1e9).transform(units + 1e9), expected, atol=1e-5
    )


@pytest.mark.parametrize("cls", [PCAFusion, AverageFusion])
def test_signs_where_coefficients_tie(cls):
    # Two standardised columns have components (1, 1) and (1, -1), whatever else they are.
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(200, 1))
    data = np.hstack([latent, -latent, rng.normal(size=(200, 2))]) + 0.3 * rng.normal(size=(200, 4))
    fusion = cls(2, scaling="std", blocks={"a": slice(0, 2), "b": slice(2, None)})
    expected = fusion.fit_transform(data)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(200)
        assert_allclose(fusion.fit(data[order]).transform(data), expected, atol=1e-8)
    assert_allclose(fusion.fit(data.astype(np.float32)).transform(data), expected, atol=1e-4)
    if cls is PCAFusion:
        assert_allclose(fusion.fit(data[:0:-1]).partial_fit(data).transform(data), expected, atol=1e-8)


def test_number_of_components_is_an_upper_bound():
    fusion = PCAFusion(6, blocks=BLOCKS).fit(X)
    assert fusion.n_components_ == {"a": 6, "b": 5}
    # Four rows differ in three directions.
    assert PCAFusion(64, blocks=BLOCKS).fit(X[:4]).n_components_ == {"a": 3, "b": 3}
    assert PCAFusion(None, blocks=BLOCKS).fit(X).n_components_ == {"a": 8, "b": 5}


@pytest.mark.parametrize(("shrinkage", "solver"), [(None, "svd"), ("auto", "eigen"), (0.3, "eigen")])
def test_lda_of_each_block_is_scikit_learns(shrinkage, solver):
    out = LDAFusion(shrinkage=shrinkage, scaling=None, blocks=BLOCKS).fit_transform(X, Y)
    stock = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage)
    assert_equal_but_for_signs(out[:, :2], stock.fit(X[:, :8], Y).transform(X[:, :8]))
    assert_equal_but_for_signs(out[:, 2:], stock.fit(X[:, 8:], Y).transform(X[:, 8:]))


def test_joint_lda_is_scikit_learns():
    fusion = LDAFusion(1, level="joint", scaling=None, blocks=BLOCKS)
    stock = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=1)
    assert_equal_but_for_signs(fusion.fit_transform(X, Y), stock.fit(X, Y).transform(X))
    assert_array_equal(fusion.get_feature_names_out(), ["ldafusion0"])


@pytest.mark.parametrize("shrinkage", [None, "auto", 0.3])
@pytest.mark.parametrize("more_columns_than_rows", [False, True])
def test_lda_share_of_variance(shrinkage, more_columns_than_rows):
    data, y = wide() if more_columns_than_rows else (X, Y)
    whole = LDAFusion(shrinkage=shrinkage).fit(data, y)
    ratios = whole.projections_[""].explained_variance_ratio_
    shares = np.cumsum(ratios) / ratios.sum()
    for count in range(1, len(shares) + 1):
        below = shares[count - 2] if count > 1 else 0.0
        for share in (below + 1e-6, 0.5 * (below + shares[count - 1]), shares[count - 1] - 1e-6):
            fusion = LDAFusion(share, shrinkage=shrinkage).fit(data, y)
            assert fusion.n_components_ == {"": count}
            assert_allclose(fusion.transform(data), whole.transform(data)[:, :count])
            assert len(fusion.get_feature_names_out()) == count


def test_lda_share_where_shrinkage_makes_variances_negative():
    # Scikit-learn divides by their sum and sorts the ratios, which then belong to other directions.
    rng = np.random.default_rng(0)
    y = np.arange(200) % 3
    latent = rng.normal(size=(200, 3)) + 0.3 * y[:, None]
    data = latent @ rng.normal(size=(3, 16)) + rng.normal(size=(200, 16))
    whole = LDAFusion().fit(data, y).projections_[""]
    assert whole.total_ < 0
    assert np.isnan(whole.explained_variance_ratio_).all()
    first, second = np.maximum(whole.variances_, 0)
    assert first > second
    share = first / (first + second)
    assert LDAFusion(share - 1e-6).fit(data, y).n_components_ == {"": 1}
    assert share == 1 or LDAFusion((1 + share) / 2).fit(data, y).n_components_ == {"": 2}


def test_lda_share_where_nothing_varies():
    fusion = LDAFusion(0.9).fit(np.full((12, 4), 0.1), np.arange(12) % 3)
    assert fusion.n_components_ == {"": 1}


@pytest.mark.parametrize("shrinkage", [None, "auto"])
def test_lda_signs_do_not_depend_on_the_order(shrinkage):
    fusion = LDAFusion(shrinkage=shrinkage, blocks=BLOCKS)
    first = fusion.fit(X, Y).transform(X)
    order = np.random.default_rng(1).permutation(len(X))
    assert_allclose(fusion.fit(X[order], Y[order]).transform(X), first, atol=1e-8)
    for projection in fusion.projections_.values():
        used = projection.scalings_[:, :2]
        assert (used[np.abs(used).argmax(axis=0), [0, 1]] > 0).all()


@pytest.mark.parametrize("labels", [np.array(["x", "y", "z"])[Y], Y == 0, Y + 10.0])
def test_lda_takes_any_labels(labels):
    n_classes = len(np.unique(labels))
    assert LDAFusion(blocks=BLOCKS).fit_transform(X, labels).shape == (len(X), 2 * (n_classes - 1))


@pytest.mark.parametrize("fusion", [PCAFusion(2, blocks=BLOCKS), LDAFusion(blocks=BLOCKS)])
def test_a_block_is_learned_from_the_rows_that_have_it(fusion):
    data = X.copy()
    data[::4, :8] = np.nan
    out = fusion.fit_transform(data, Y)
    has = np.arange(len(X)) % 4 > 0
    alone = type(fusion)(fusion.n_components, blocks={"a": slice(0, 8)}).fit_transform(X[has][:, :8], Y[has])
    # PCA components of a scaled block differ by the factor of the block; directions do not.
    assert_allclose(abs(np.corrcoef(out[has, 0], alone[:, 0])[0, 1]), 1)
    assert_allclose(out[~has, :2], np.broadcast_to(out[has, :2].mean(axis=0), (np.sum(~has), 2)), atol=1e-9)
    everything = type(fusion)(fusion.n_components, blocks=BLOCKS).fit_transform(X, Y)
    assert_allclose(abs(np.corrcoef(out[:, 2], everything[:, 2])[0, 1]), 1)


@pytest.mark.parametrize("level", ["modality", "joint"])
@pytest.mark.parametrize("cls", [PCAFusion, LDAFusion])
def test_rows_without_any_block(cls, level):
    data = X.copy()
    data[5] = np.nan
    out = cls(level=level, blocks=BLOCKS).fit_transform(data, Y)
    assert np.isfinite(out).all()
    # The mean row has the mean scores.
    assert_allclose(out[5], np.delete(out, 5, axis=0).mean(axis=0), atol=1e-9)


def test_a_block_that_is_never_there():
    data = X.copy()
    data[:, :8] = np.nan
    with pytest.raises(ValueError, match="block 'a' is missing in every row"):
        PCAFusion(blocks=BLOCKS).fit(data)
    data = X.copy()
    data[Y != 1, :8] = np.nan
    with pytest.raises(
        ValueError, match="at least 2 classes in the rows that have block 'a', got 1 class: 1; leave out the modality"
    ):
        LDAFusion(blocks=BLOCKS).fit(data, Y)


@pytest.mark.filterwarnings("error")
def test_lda_of_a_class_with_one_row():
    rows = np.flatnonzero((Y != 2) | (np.arange(len(Y)) == len(Y) - 1))
    assert LDAFusion(blocks=BLOCKS).fit_transform(X[rows], Y[rows]).shape == (len(rows), 4)


def test_lda_says_what_is_wrong_with_y():
    with pytest.raises(ValueError, match="Unknown label type"):
        LDAFusion().fit(X, X[:, 0])
    with pytest.raises(ValueError, match="more rows than classes"):
        LDAFusion().fit(X[:5], np.arange(5))


@pytest.mark.parametrize("shrinkage", [None, "auto", 0.0, 0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lda_where_nothing_varies_within_classes(shrinkage, dtype):
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    noise = rng.normal(size=(30, 2))
    for block in [np.eye(3)[y], np.full((30, 3), 0.1) * [1, 10, 1e6], np.column_stack([np.eye(3)[y], y])]:
        k = block.shape[1]
        fusion = LDAFusion(shrinkage=shrinkage, blocks={"k": slice(0, k), "t": slice(k, None)})
        out = fusion.fit_transform(np.hstack([block, noise]).astype(dtype), y)
        assert out.shape == (30, 4)
        assert np.isfinite(out).all()
        assert np.abs(out).max() < 1e4
    # The one-hot block tells the classes apart, and still does in one column each.
    centers = np.array([out[y == label, :2].mean(axis=0) for label in range(3)])
    assert (np.linalg.norm(centers - np.roll(centers, 1, axis=0), axis=1) > 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whitened_components_stay_small_on_new_rows(dtype):
    rng = np.random.default_rng(0)
    blocks = {"a": slice(0, 40), "b": slice(40, None)}
    fusion = PCAFusion(whiten=True, blocks=blocks).fit(rng.normal(size=(30, 80)).astype(dtype))
    assert fusion.n_components_ == {"a": 29, "b": 29}
    assert np.abs(fusion.transform(rng.normal(size=(50, 80)).astype(dtype))).max() < 100
    X = rng.normal(size=(50, 6))
    doubled = np.hstack([X, X[:, :3] * 2]).astype(dtype)
    fusion = PCAFusion(whiten=True).fit(doubled)
    assert fusion.n_components_ == {"": 6}
    assert_allclose(fusion.transform(doubled).var(axis=0, ddof=1), 1, rtol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_components", [5, 0.9, None])
@pytest.mark.parametrize("whiten", [False, True])
def test_pca_of_a_block_that_does_not_vary(n_components, whiten):
    data = np.hstack([np.full((20, 3), 0.1), np.random.default_rng(0).normal(size=(20, 3))]).astype(np.float32)
    one_row = data.copy()
    one_row[1:, :3] = np.nan
    for X in (data, one_row):
        fusion = PCAFusion(n_components, whiten=whiten, blocks={"a": slice(0, 3), "b": slice(3, None)})
        out = fusion.fit_transform(X)
        assert fusion.n_components_["a"] == 1
        assert np.isfinite(out).all()
        assert_allclose(out[:, 0], 0, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_global_output_configuration(container):
    for fusion in [PCAFusion(2, blocks=BLOCKS), LDAFusion(blocks=BLOCKS), ConcatFusion(blocks=BLOCKS)]:
        expected = fusion.fit_transform(X, Y)
        with sklearn.config_context(transform_output=container):
            out = fusion.fit_transform(X, Y)
        assert list(out.columns) == list(fusion.get_feature_names_out())
        assert_allclose(out.to_numpy(), expected)


def test_lda_shrunk_by_a_number_does_not_depend_on_units():
    wide = X * np.where(np.arange(X.shape[1]) < 8, 1000, 1)
    fusion = LDAFusion(level="joint", shrinkage=0.5, blocks=BLOCKS)
    assert_allclose(fusion.fit_transform(wide, Y), fusion.fit_transform(X, Y), rtol=1e-6)


@pytest.mark.parametrize("cls", [PCAFusion, LDAFusion])
@pytest.mark.parametrize("level", ["modality", "joint"])
def test_float32_and_float64_agree(cls, level):
    fusion = cls(2, level=level, blocks=BLOCKS)
    double = fusion.fit_transform(X, Y)
    single = fusion.fit_transform(X.astype(np.float32), Y)
    assert single.dtype == np.float32
    # The columns of wine differ by 1e4 in scale, and LDA's eigenproblem squares that.
    assert_allclose(single, double, rtol=2e-2, atol=2e-3 * np.abs(double).max())


@pytest.mark.parametrize("n_components", [3, 0.9, None])
@pytest.mark.parametrize("level", ["modality", "joint"])
@pytest.mark.parametrize("scaling", ["norm", "std", None])
def test_partial_fit_of_pca_is_fit(scaling, level, n_components):
    data = X.copy()
    if level == "modality":
        data[::4, :8] = np.nan
    fusion = PCAFusion(n_components, level=level, scaling=scaling, whiten=True, blocks=BLOCKS)
    whole = clone(fusion).fit(data)
    parts = clone(fusion)
    for rows in (data[:60], data[60:61], data[61:]):
        assert parts.partial_fit(rows) is parts
    assert parts.n_components_ == whole.n_components_
    # Of up to 1e7 between the variances of the columns.
    assert_allclose(parts.transform(data), whole.transform(data), atol=1e-5)
    for name, projection in parts.projections_.items():
        stock = whole.projections_[name]
        assert_allclose(projection.explained_variance_, stock.explained_variance_, rtol=1e-6)
        assert_allclose(projection.explained_variance_ratio_, stock.explained_variance_ratio_, atol=1e-9)
        assert_allclose(projection.noise_variance_, stock.noise_variance_, atol=1e-9)
    # Fit starts from the beginning, and so does partial_fit after it.
    parts.fit(data[:100])
    assert_allclose(parts.partial_fit(data).transform(data), whole.transform(data), atol=1e-5)


def test_batches_of_pca_count_for_all_blocks_whichever_is_missing():
    for name, columns in BLOCKS.items():
        first = X[:60].copy()
        first[:, columns] = np.nan
        fusion = PCAFusion(2, blocks=BLOCKS)
        with pytest.raises(ValueError, match=f"block '{name}' is missing in every row"):
            fusion.partial_fit(first)
        expected = clone(fusion).fit(np.vstack([first, X[60:]])).transform(X)
        assert_allclose(fusion.partial_fit(X[60:]).transform(X), expected, atol=1e-8)


def test_partial_fit_of_pca_without_variance_or_rows():
    fusion = PCAFusion(blocks=BLOCKS).partial_fit(X[:1])
    assert_allclose(fusion.transform(X[:1]), 0, atol=1e-12)
    gone = X[:5].copy()
    gone[:, :8] = np.nan
    with pytest.raises(ValueError, match="block 'a' is missing in every row"):
        PCAFusion(blocks=BLOCKS).partial_fit(gone)
    single = PCAFusion(3, blocks=BLOCKS).partial_fit(X[:90].astype(np.float32)).partial_fit(X[90:].astype(np.float32))
    assert single.transform(X.astype(np.float32)).dtype == np.float32


def wide(n=40, p=90, n_classes=3):
    """More columns than rows, of different scales, one of them constant; one class has a single row."""
    rng = np.random.default_rng(0)
    y = np.r_[np.arange(n - 1) % n_classes, n_classes]
    return (rng.normal(size=(n, p)) + rng.normal(size=(n_classes + 1, p))[y]) * np.r_[0, np.geomspace(1, 9, p - 1)], y


@pytest.mark.filterwarnings("ignore:Only one sample available")
@pytest.mark.parametrize("level", ["modality", "joint"])
@pytest.mark.parametrize("shrinkage", ["auto", 0.3])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_lda_of_more_columns_than_rows_is_scikit_learns(shrinkage, level, offset):
    data, y = wide()
    data = data + offset
    blocks = {"a": slice(0, 45), "b": slice(45, None)}
    out = LDAFusion(shrinkage=shrinkage, level=level, scaling=None, blocks=blocks).fit(data, y)
    for name, projection in out.projections_.items():
        block = data[:, blocks.get(name, slice(None))]
        stock = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage).fit(block, y)
        expected = stock.transform(block)
        assert_equal_but_for_signs(projection.transform(block), expected)
        assert projection.scalings_.shape == (block.shape[1], 3)
        assert_allclose(projection.explained_variance_ratio_, stock.explained_variance_ratio_[:3], atol=1e-9)


@pytest.mark.parametrize("n_columns", [20, 90])
def test_lda_with_full_shrinkage_is_the_limit(n_columns):
    data, y = wide(p=n_columns)
    fusion = LDAFusion(shrinkage=1.0, scaling=None).fit(data, y)
    means = np.array([data[y == label].mean(axis=0) for label in range(4)])[y]
    B, W = np.cov(means, rowvar=False), np.cov(data - means, rowvar=False)
    # What is left of first order where both scatters become multiples of the identity.
    axes = np.linalg.eigh(B - np.trace(B) / np.trace(W) * W)[1][:, :-4:-1]
    found = fusion.projections_[""].scalings_[:, :3]
    assert_allclose(np.abs((axes.T @ (found / np.linalg.norm(found, axis=0))).diagonal()), 1, atol=1e-5)


@pytest.mark.parametrize("shrinkage", ["auto", 0.0, 0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lda_of_wide_blocks_in_which_little_varies(shrinkage, dtype):
    y = np.arange(12) % 3
    noise = np.random.default_rng(0).normal(size=(12, 30))
    # Classes without scatter, a block without any, and classes of pairs, whose shrinkage is 0.
    for block, labels in [(np.eye(3)[y] @ noise[:3], y), (np.full((12, 30), 0.1), y), (noise, np.arange(12) % 6)]:
        out = LDAFusion(shrinkage=shrinkage).fit_transform(block.astype(dtype), labels)
        assert np.isfinite(out).all()
        assert np.abs(out).max() < 1e4


def test_lda_of_twenty_thousand_columns():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    data = (rng.normal(size=(200, 20_000)) + 0.2 * rng.normal(size=(4, 20_000))[y]).astype(np.float32)
    fusion = LDAFusion().fit(data[:150], y[:150])
    assert fusion.transform(data).dtype == np.float32
    centers = np.array([fusion.transform(data[:150])[y[:150] == label].mean(axis=0) for label in range(4)])
    distances = np.linalg.norm(fusion.transform(data[150:])[:, None] - centers, axis=2)
    assert (distances.argmin(axis=1) == y[150:]).mean() > 0.9
