"""KernelFusion against scikit-learn's kernel PCA and a direct computation of alignments."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA, KernelPCA
from sklearn.metrics.pairwise import linear_kernel, polynomial_kernel, rbf_kernel
from sklearn.preprocessing import StandardScaler

from skmm import KernelFusion
from skmm.fusion._kernel import BlockKernel, kernel_alignment

BLOCKS = {"a": slice(0, 3), "b": slice(3, 5), "c": slice(5, None)}
RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, size=(80, 9))
Y = np.arange(80) % 3


def alignment(K, L):
    return kernel_alignment(K, L, np.ones(len(K), dtype=bool))


def centering(n):
    return np.eye(n) - 1 / n


def unit(kernel):
    """Centred, with a mean diagonal of 1."""
    H = centering(len(kernel))
    kernel = H @ kernel @ H
    return kernel / np.mean(np.diag(kernel))


def without(data, **rows):
    data = data.copy()
    for name, index in rows.items():
        data[index, BLOCKS[name]] = np.nan
    return data


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly"])
def test_features_have_the_inner_products_of_the_weighted_sum(kernel):
    fusion = KernelFusion(80, kernel=kernel, degree=2, weights=[1, 2, 1], blocks=BLOCKS)
    out = fusion.fit_transform(X)
    Z = StandardScaler().fit_transform(X)
    functions = {
        "rbf": lambda A: rbf_kernel(A, gamma=1 / A.shape[1]),
        "linear": linear_kernel,
        "poly": lambda A: polynomial_kernel(A, degree=2, gamma=1 / A.shape[1], coef0=1),
    }
    a, b, c = (unit(functions[kernel](Z[:, columns])) for columns in BLOCKS.values())
    assert_allclose(out @ out.T, (a + 2 * b + c) / 4, atol=1e-10)
    assert fusion.weights_ == {"a": 0.25, "b": 0.5, "c": 0.25}
    assert_allclose(fusion.transform(X), out, atol=1e-10)
    assert_array_equal(fusion.get_feature_names_out()[:2], ["kernelfusion0", "kernelfusion1"])


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_far_from_zero(kernel):
    fusion = KernelFusion(5, kernel=kernel, scaling=None, blocks=BLOCKS)
    assert_allclose(fusion.fit_transform(X + 1e8), fusion.fit_transform(X), atol=1e-6)


def test_signs_do_not_depend_on_the_order_of_rows():
    many = np.random.default_rng(1).normal(size=(300, 9))
    fusion = KernelFusion(60, blocks=BLOCKS)
    expected = fusion.fit_transform(many)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(300)
        assert_allclose(fusion.fit(many[order]).transform(many), expected, atol=1e-8)


def test_one_block_is_scikit_learns_kernel_pca():
    out = KernelFusion(5, kernel="rbf", gamma=0.1, scaling=None).fit(X[:60])
    stock = KernelPCA(5, kernel="rbf", gamma=0.1).fit(X[:60])
    ours, theirs = out.transform(X), stock.transform(X)
    ratio = np.sqrt(stock.eigenvalues_ / out.eigenvalues_)
    assert_allclose(ratio, ratio[0])
    signs = np.sign((ours * theirs).sum(axis=0))
    assert_allclose(ours * signs * ratio, theirs, atol=1e-9)


def test_linear_kernels_are_the_principal_components_of_scaled_blocks():
    out = KernelFusion(4, kernel="linear", blocks=BLOCKS).fit_transform(X)
    Z = StandardScaler().fit_transform(X)
    joined = np.hstack([Z[:, columns] / np.sqrt(Z[:, columns].shape[1] * 3) for columns in BLOCKS.values()])
    expected = PCA(4).fit_transform(joined)
    assert_allclose(np.abs(out), np.abs(expected), atol=1e-9)


def test_kernels_by_block_and_precomputed_ones():
    Z = StandardScaler().fit_transform(X)
    mixed = KernelFusion(6, kernel={"a": "rbf", "b": "linear", "c": "poly"}, blocks=BLOCKS).fit_transform(X[:60])
    Z = StandardScaler().fit(X[:60]).transform(X)
    gammas = [1 / Z[:60, columns].var(axis=0).sum() for columns in BLOCKS.values()]
    a, b, c = (Z[:, columns] for columns in BLOCKS.values())
    joined = np.hstack(
        [
            rbf_kernel(a, a[:60], gamma=gammas[0]),
            linear_kernel(b, b[:60]),
            polynomial_kernel(c, c[:60], gamma=gammas[2], degree=3, coef0=1),
        ]
    )
    blocks = {"a": slice(0, 60), "b": slice(60, 120), "c": slice(120, None)}
    fusion = KernelFusion(6, kernel="precomputed", scaling=None, blocks=blocks)
    assert_allclose(fusion.fit_transform(joined[:60]), mixed, atol=1e-9)
    expected = KernelFusion(6, kernel={"a": "rbf", "b": "linear", "c": "poly"}, blocks=BLOCKS).fit(X[:60]).transform(X)
    assert_allclose(fusion.transform(joined), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kernel": "precomputed"}, "precomputed kernels cannot be scaled by column; pass scaling=None"),
        ({"kernel": "precomputed", "scaling": None}, "block 'a' .* one column for each of the 80 rows of fit, got 3"),
        ({"kernel": {"a": "rbf"}}, r"kernel names the blocks \['a'\], X has the blocks \['a', 'b', 'c'\]"),
        ({"kernel": {"a": "rbf", "b": "rbf", "c": "cosine"}}, r"kernel\['c'\] must be one of .*, got 'cosine'"),
        ({"kernel": {"a": "rbf", "b": "rbf", "c": ["rbf"]}}, r"kernel\['c'\] must be one of .*, got \['rbf'\]"),
        ({"kernel": "cosine"}, "'kernel' parameter of KernelFusion"),
        ({"kernel": "poly", "degree": 2.5}, "kernel 'poly' .* degree=2.5 .* not finite .* whole number"),
        ({"weights": "cv"}, "'weights' parameter of KernelFusion"),
        ({"weights": "alignment"}, "requires y to be passed"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in power")
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        KernelFusion(**parameters, blocks=BLOCKS).fit(X)


def test_alignment_is_the_formula():
    A, B = X[:, :3] @ X[:, :3].T, rbf_kernel(X[:, 3:5])
    H = centering(80)
    A_c, B_c = H @ A @ H, H @ B @ H
    expected = np.trace(A_c @ B_c) / np.sqrt(np.trace(A_c @ A_c) * np.trace(B_c @ B_c))
    assert_allclose(alignment(A, B), expected)
    assert_allclose(alignment(A, 3 * A + 5), 1)
    assert alignment(A, np.ones((80, 80))) == 0


def test_weights_by_alignment():
    Z = StandardScaler().fit_transform(X)
    kernels = [rbf_kernel(Z[:, columns], gamma=1 / Z[:, columns].shape[1]) for columns in BLOCKS.values()]
    labels = np.array(["x", "y", "z"])[Y]
    expected = np.array([alignment(kernel, labels[:, None] == labels) for kernel in kernels])
    weights = KernelFusion(weights="alignment", blocks=BLOCKS).fit(X, labels).weights_
    assert_allclose(list(weights.values()), expected / expected.sum())
    target = X[:, 0]
    expected = np.array([alignment(kernel, np.outer(target, target)) for kernel in kernels])
    weights = KernelFusion(weights="alignment", blocks=BLOCKS).fit(X, target).weights_
    assert_allclose(list(weights.values()), expected / expected.sum())
    assert weights["a"] > 2 * weights["b"]


def test_weights_as_an_array():
    expected = KernelFusion(weights=dict(zip(BLOCKS, (1, 2, 3), strict=True)), blocks=BLOCKS).fit(X).weights_
    assert KernelFusion(weights=np.array([1.0, 2.0, 3.0]), blocks=BLOCKS).fit(X).weights_ == expected


def test_weights_by_agreement():
    data = X.copy()
    data[:, 3:5] = data[:, :2] + 0.1 * RNG.normal(size=(80, 2))
    Z = StandardScaler().fit_transform(data)
    a, b, c = (rbf_kernel(Z[:, columns], gamma=1 / Z[:, columns].shape[1]) for columns in BLOCKS.values())
    ab, ac, bc = alignment(a, b), alignment(a, c), alignment(b, c)
    expected = np.array([ab + ac, ab + bc, ac + bc]) / (2 * (ab + ac + bc))
    weights = KernelFusion(weights="agreement", blocks=BLOCKS).fit(data).weights_
    assert_allclose(list(weights.values()), expected)
    assert weights["c"] < min(weights["a"], weights["b"])
    assert KernelFusion(weights="agreement").fit(X).weights_ == {"": 1.0}


def test_missing_blocks_renormalise_the_sum():
    gone = without(X, a=slice(0, 20), b=slice(10, 30))
    fusion = KernelFusion(80, kernel="linear", weights=[1, 2, 1], scaling=None, blocks=BLOCKS)
    out = fusion.fit_transform(gone)
    total = np.zeros((80, 80))
    shares = np.zeros(80)
    for weight, columns in zip([0.25, 0.5, 0.25], BLOCKS.values(), strict=True):
        there = ~np.isnan(gone[:, columns]).any(axis=1)
        total[np.ix_(there, there)] += weight * unit(linear_kernel(gone[there][:, columns]))
        shares += weight * there
    assert_allclose(out @ out.T, total / np.sqrt(np.outer(shares, shares)), atol=1e-10)
    assert_array_equal(fusion.transform(np.full((2, 9), np.nan)), 0)
    # In rows with a single block, the joint kernel is that of the block.
    only = fusion.transform(without(X, b=slice(None), c=slice(None)))
    weight = unit(linear_kernel(gone[20:, :3]))
    expected = weight / np.sqrt(shares[20:] / 0.25)
    assert_allclose((only @ out.T)[20:, 20:], expected, atol=1e-10)


def test_landmarks_approximate_and_are_exact_where_they_span():
    many = RNG.normal(size=(500, 9))
    exact = KernelFusion(9, kernel="linear", n_landmarks=500, blocks=BLOCKS).fit_transform(many)
    some = KernelFusion(9, kernel="linear", n_landmarks=60, random_state=0, blocks=BLOCKS).fit_transform(many)
    assert some.shape == (500, 9)
    # The sizes of the blocks come from the landmarks, so inner products agree up to a factor per block.
    assert np.corrcoef((exact @ exact.T).ravel(), (some @ some.T).ravel())[0, 1] > 0.99
    again = KernelFusion(9, kernel="linear", n_landmarks=60, random_state=0, blocks=BLOCKS).fit(many)
    assert_array_equal(again.transform(many), some)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("weights", [None, "alignment", "agreement"])
@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly"])
def test_odd_data(kernel, weights):
    constant = X.copy()
    constant[:, 3:5] = 0.1
    once = without(X, b=slice(1, None))
    once[4, 6] = np.nan
    once[5] = np.nan
    for data in (constant, once, X[:2], without(X[:3], a=[0], b=[1]), np.ones((4, 9))):
        fusion = KernelFusion(kernel=kernel, weights=weights, blocks=BLOCKS)
        out = fusion.fit_transform(data, Y[: len(data)])
        assert np.isfinite(out).all()
        assert np.isfinite(fusion.transform(X)).all()
    # Landmarks that all lack the block.
    fusion = KernelFusion(kernel=kernel, weights=weights, n_landmarks=5, random_state=1, blocks=BLOCKS).fit(once, Y)
    assert fusion.weights_["b"] == 0
    assert np.isfinite(fusion.transform(X)).all()


def test_rank_is_not_exceeded():
    doubled = np.hstack([X[:, :3], X[:, :3]])
    for dtype in (np.float64, np.float32):
        fusion = KernelFusion(kernel="linear", blocks={"a": slice(0, 3), "b": slice(3, 6)}).fit(doubled.astype(dtype))
        assert fusion.n_components_ == 3


def test_float32():
    fusion = KernelFusion(6, blocks=BLOCKS)
    single, double = fusion.fit_transform(X.astype(np.float32)), fusion.fit_transform(X)
    assert single.dtype == np.float32
    assert_allclose(single, double, atol=1e-4)


def test_batches_and_pickles(monkeypatch):
    fusion = KernelFusion(6, blocks=BLOCKS).fit(X)
    expected = fusion.transform(X)
    monkeypatch.setattr("skmm.fusion._kernel._BATCH", 7)
    assert_allclose(fusion.transform(X), expected, atol=1e-12)
    assert_allclose(pickle.loads(pickle.dumps(fusion)).transform(X), expected, atol=1e-12)


def test_centred_kernel_is_the_kernel_of_centred_features():
    kernel = BlockKernel("linear", "scale", 3, 1).fit(X, np.arange(50))
    centred = X - X[:50].mean(axis=0)
    assert_allclose(kernel(X), centred @ centred[:50].T, atol=1e-10)
    assert_allclose(kernel.centered, centred[:50] @ centred[:50].T, atol=1e-10)


@pytest.mark.parametrize("seed", range(10))
def test_signs_do_not_depend_on_rounding(seed):
    X = np.random.default_rng(seed).normal(size=(2, 15))
    blocks = {"a": slice(0, 6), "b": slice(6, 11), "c": slice(11, None)}
    for rows in (X, X[::-1], X.astype(np.float32)):
        # Two centred rows are opposites, so that rounding makes either entry the largest.
        assert_allclose(KernelFusion(blocks=blocks).fit_transform(rows), [[1], [-1]], rtol=1e-5)
