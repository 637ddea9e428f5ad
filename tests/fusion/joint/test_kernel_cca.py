"""KernelCCAFusion against CCAFusion, the dual eigenproblem and functions that are known."""

import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, stats
from scipy.spatial.distance import pdist
from sklearn.base import clone
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.preprocessing import StandardScaler

from skmm import CCAFusion, KernelCCAFusion, KernelFusion
from skmm.fusion.joint import _kernel_cca

BLOCKS = {"a": slice(0, 4), "b": slice(4, 7), "c": slice(7, None)}
TWO = {"a": slice(0, 4), "b": slice(4, None)}


def linked(n=150, widths=(4, 3, 5), seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 2))
    return np.hstack([latent @ rng.normal(size=(2, p)) + 0.5 * rng.normal(size=(n, p)) for p in widths])


def circle(n=400, seed=0):
    """The same angle as a point, and as a wave of its double; no linear relation."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    X = np.column_stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), rng.normal(size=n)])
    return X, {"point": slice(0, 2), "wave": slice(2, 4)}


@pytest.mark.parametrize("blocks", [TWO, BLOCKS])
@pytest.mark.parametrize("regularization", [0, 0.2, "auto", "cv"])
@pytest.mark.parametrize("n_landmarks", [1000, 40])
def test_linear_kernels_are_cca(blocks, regularization, n_landmarks):
    X, new = linked(), linked(seed=1)
    ours = KernelCCAFusion(
        2, kernel="linear", regularization=regularization, n_landmarks=n_landmarks, random_state=0, blocks=blocks
    ).fit(X)
    theirs = CCAFusion(2, regularization=regularization, blocks=blocks).fit(X)
    assert_allclose(ours.correlations_, theirs.correlations_, atol=1e-7)
    assert_allclose(ours.transform(new), theirs.transform(new), atol=1e-6)
    for name, loadings in theirs.loadings_.items():
        assert_allclose(ours.loadings_[name], loadings, atol=1e-7)
    if regularization != "auto":
        assert ours.regularization_ == theirs.regularization_
    gone = new.copy()
    gone[:50, :4] = np.nan
    assert_allclose(ours.transform(gone), theirs.transform(gone), atol=1e-6)
    own = new[:, blocks["a"]]
    assert_allclose(ours.transform_modality(own, "a"), theirs.transform_modality(own, "a"), atol=1e-6)
    assert_allclose(ours.predict_modality(own, "a", "b"), theirs.predict_modality(own, "a", "b"), atol=1e-6)
    assert_allclose(ours.score(new), theirs.score(new), atol=1e-7)


def test_it_solves_the_dual_eigenproblem():
    X = linked(n=60)
    ridge = 0.2
    fusion = KernelCCAFusion(3, regularization=ridge, blocks=TWO).fit(X)
    Z = StandardScaler().fit_transform(X)
    H = np.eye(60) - 1 / 60
    kernels = [H @ rbf_kernel(Z[:, c], gamma=1 / Z[:, c].shape[1]) @ H for c in TWO.values()]
    penalties = [
        (1 - ridge) / 60 * K @ K + ridge * np.trace(K) / 60 / np.linalg.matrix_rank(K, hermitian=True) * K
        for K in kernels
    ]
    cross = kernels[0] @ kernels[1] / 60
    zero = np.zeros_like(cross)
    # The constant is in the null space of both sides.
    right = linalg.block_diag(*penalties) + 1e-12 * np.eye(120)
    _, vectors = linalg.eigh(np.block([[zero, cross], [cross.T, zero]]), right)
    out = fusion.transform(X)
    for k in range(3):
        for b in range(2):
            function = kernels[b] @ vectors[60 * b : 60 * (b + 1), -1 - k]
            assert_allclose(abs(np.corrcoef(out[:, 3 * b + k], function)[0, 1]), 1, atol=1e-5)


def test_what_no_linear_function_sees():
    X, blocks = circle()
    new, _ = circle(seed=1)
    linear = CCAFusion(1, blocks=blocks).fit(X)
    fusion = KernelCCAFusion(1, regularization=0.01, blocks=blocks).fit(X)
    assert abs(linear.score(new)) < 0.2
    assert fusion.score(new) > 0.95
    # From the point the wave is predicted, though the map back is linear in the variates.
    predicted = fusion.predict_modality(new[:, :2], "point", "wave")
    assert np.corrcoef(predicted[:, 0], new[:, 2])[0, 1] > 0.95


def test_precomputed_kernels():
    X, new = linked(n=80), linked(n=30, seed=1)
    fusion = KernelCCAFusion(2, scaling=None, gamma=0.3, n_landmarks=50, random_state=0, blocks=BLOCKS).fit(X)
    joined, joined_new = (
        np.hstack([rbf_kernel(data[:, columns], X[:, columns], gamma=0.3) for columns in BLOCKS.values()])
        for data in (X, new)
    )
    blocks = {"a": slice(0, 80), "b": slice(80, 160), "c": slice(160, None)}
    precomputed = KernelCCAFusion(
        2, kernel="precomputed", scaling=None, n_landmarks=50, random_state=0, blocks=blocks
    ).fit(joined)
    out, expected = precomputed.transform(joined_new), fusion.transform(new)
    # Signs are a matter of the loadings, which are those of columns of the kernel here.
    assert_allclose(out, expected * np.tile(np.sign((out * expected).sum(axis=0)[:2]), 3), atol=1e-7)
    # A row without block b has neither a row nor a column in its kernel.
    X[5, BLOCKS["b"]] = np.nan
    expected = KernelCCAFusion(2, kernel="linear", scaling=None, blocks=BLOCKS).fit(X).transform(X)
    gone = np.hstack([linear_kernel(np.nan_to_num(X[:, columns])) for columns in BLOCKS.values()])
    gone[5, 80:160] = np.nan
    gone[:, 85] = np.nan
    out = KernelCCAFusion(2, kernel="precomputed", scaling=None, blocks=blocks).fit(gone).transform(gone)
    assert_allclose(out, expected * np.tile(np.sign((out * expected).sum(axis=0)[:2]), 3), atol=1e-6)
    with pytest.raises(ValueError, match="KernelCCAFusion: precomputed kernels cannot be scaled"):
        KernelCCAFusion(kernel="precomputed", blocks=blocks).fit(joined)


def test_missing_blocks():
    X = linked()
    gone = X.copy()
    gone[:30, BLOCKS["a"]] = np.nan
    gone[20:50, BLOCKS["b"]] = np.nan
    gone[60] = np.nan
    fusion = KernelCCAFusion(2, blocks=BLOCKS)
    out = fusion.fit_transform(gone)
    assert np.isfinite(out).all()
    assert_array_equal(out[60], 0)
    full = fusion.transform(X)
    assert_allclose(out[70:], full[70:])
    assert np.corrcoef(out[:30, 0], full[:30, 0])[0, 1] > 0.7


def test_missing_blocks_where_the_others_agree_perfectly():
    blocks = {"a": slice(0, 50), "b": slice(50, 56), "c": slice(56, None)}
    # Which data show rounding depends on the machine.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 64)) + rng.normal(size=(30, 64))
        for columns in blocks.values():
            X[rng.random(30) < 0.2, columns] = np.nan
        fusion = KernelCCAFusion(3, regularization=0.1, blocks=blocks)
        assert_allclose(fusion.fit(X[::-1]).transform(X), fusion.fit(X).transform(X), atol=1e-8)


def test_errors_and_warnings_name_this_estimator():
    X = linked()
    constant, once = X.copy(), X.copy()
    constant[:, BLOCKS["b"]] = 0.1
    once[1:, BLOCKS["b"]] = np.nan
    with pytest.raises(ValueError, match=r"^KernelCCAFusion: block 'b' does not vary"):
        KernelCCAFusion(blocks=BLOCKS).fit(constant)
    with pytest.raises(ValueError, match=r"^KernelCCAFusion learns from rows that have two blocks.*'b'"):
        KernelCCAFusion(blocks=BLOCKS).fit(once)
    with pytest.raises(ValueError, match=r"^KernelCCAFusion: regularization names the blocks \['a'\]"):
        KernelCCAFusion(regularization={"a": 0.1}, blocks=BLOCKS).fit(X)
    with pytest.raises(ValueError, match="KernelCCAFusion needs at least 2 blocks"):
        KernelCCAFusion().fit(X)
    with pytest.warns(UserWarning, match=r"^KernelCCAFusion: the blocks have"):
        KernelCCAFusion(regularization=0, blocks=BLOCKS).fit(X)


def test_few_rows_and_doubled_columns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (2, 3, 5):
            assert np.isfinite(KernelCCAFusion(blocks=BLOCKS).fit_transform(linked(n=n))).all()
        X = linked()
        X[:, 5] = X[:, 4]
        assert np.isfinite(KernelCCAFusion(blocks=BLOCKS).fit_transform(X)).all()


def test_no_float64_copy_of_x():
    X = np.random.default_rng(0).normal(size=(20_000, 200)).astype(np.float32)
    fusion = KernelCCAFusion(4, n_landmarks=20, random_state=0, blocks={"a": slice(0, 100), "b": slice(100, None)})
    tracemalloc.start()
    fusion.fit(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A scaled copy in float32, and features of 40 columns; of one block in float64 it would be one more X.
    assert peak < 3 * X.nbytes


def test_outputs_and_names():
    X = linked()
    concat = KernelCCAFusion(2, blocks=BLOCKS).fit(X)
    out = concat.transform(X).reshape(len(X), 3, 2)
    assert list(concat.get_feature_names_out()[:3]) == [
        "a__kernelccafusion0",
        "a__kernelccafusion1",
        "b__kernelccafusion0",
    ]
    mean = clone(concat).set_params(output="mean").fit(X)
    assert_allclose(mean.transform(X), out.mean(axis=1))
    assert list(mean.get_feature_names_out()) == ["kernelccafusion0", "kernelccafusion1"]
    assert_allclose(clone(concat).set_params(output="sum").fit(X).transform(X), out.sum(axis=1))


def test_float32_pickle_and_seed():
    X = linked()
    fusion = KernelCCAFusion(2, n_landmarks=50, random_state=0, blocks=BLOCKS)
    double = fusion.fit_transform(X)
    assert_array_equal(pickle.loads(pickle.dumps(fusion)).transform(X), fusion.transform(X))
    assert_array_equal(clone(fusion).fit_transform(X), double)
    single = fusion.fit_transform(X.astype(np.float32))
    assert single.dtype == np.float32
    assert_allclose(single, double, atol=1e-3)


def test_gamma_by_block_and_by_the_median():
    X, new = linked(), linked(seed=1)
    gammas = {"a": 0.1, "b": "scale", "c": "median"}
    fusion = KernelCCAFusion(2, gamma=gammas, scaling=None, blocks=BLOCKS).fit(X)
    by_hand = {
        "a": 0.1,
        "b": 1 / X[:, BLOCKS["b"]].var(axis=0).sum(),
        "c": 1 / np.median(pdist(X[:, BLOCKS["c"]]) ** 2),
    }
    given = KernelCCAFusion(2, gamma=by_hand, scaling=None, blocks=BLOCKS).fit(X)
    assert_allclose(fusion.transform(new), given.transform(new))
    assert np.abs(fusion.transform(new) - clone(fusion).set_params(gamma="scale").fit(X).transform(new)).max() > 0.01
    joint = KernelFusion(5, gamma=gammas, scaling=None, blocks=BLOCKS).fit_transform(X)
    assert_allclose(joint, KernelFusion(5, gamma=by_hand, scaling=None, blocks=BLOCKS).fit_transform(X))
    for cls in (KernelCCAFusion, KernelFusion):
        with pytest.raises(ValueError, match=rf"^{cls.__name__}: gamma names the blocks \['a'\]"):
            cls(gamma={"a": 1}, blocks=BLOCKS).fit(X)
        with pytest.raises(ValueError, match=rf"^{cls.__name__}: gamma\['b'\] must be 'scale', 'median' or above 0"):
            cls(gamma={"a": 1, "b": 0, "c": 1}, blocks=BLOCKS).fit(X)
    # The median of a block that is mostly constant.
    X[:140, BLOCKS["b"]] = 1
    assert np.isfinite(KernelCCAFusion(2, gamma="median", blocks=BLOCKS).fit_transform(X)).all()


def test_landmarks_are_as_many_as_rows_and_memory_allow(monkeypatch):
    X = linked()
    automatic = KernelCCAFusion(2, blocks=BLOCKS).fit(X)
    assert_array_equal(automatic.transform(X), KernelCCAFusion(2, n_landmarks=150, blocks=BLOCKS).fit(X).transform(X))
    monkeypatch.setattr(_kernel_cca, "_LANDMARKS", 120)
    few = KernelCCAFusion(2, random_state=0, blocks=BLOCKS)
    expected = clone(few).set_params(n_landmarks=40).fit(X).transform(X)
    assert_array_equal(few.fit(X).transform(X), expected)
    assert np.abs(expected - automatic.transform(X)).max() > 0.01


@pytest.mark.parametrize("regularization", [0.2, "auto", "cv"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_kernels_that_are_not_stored_are_evaluated_again(regularization, dtype, monkeypatch):
    X = linked().astype(dtype)
    X[:30, BLOCKS["a"]] = X[20:50, BLOCKS["b"]] = np.nan
    y = np.arange(150) % 3
    fusion = KernelCCAFusion(2, regularization=regularization, target="block", blocks=BLOCKS)
    expected = fusion.fit(X, y).transform(X)
    loadings = fusion.loadings_
    monkeypatch.setattr(_kernel_cca, "_STORED", 0)
    monkeypatch.setattr(_kernel_cca, "_BATCH", 5000)
    atol = 1e-9 if dtype == np.float64 else 1e-5
    assert_allclose(fusion.fit(X, y).transform(X), expected, atol=atol)
    assert_allclose(fusion.loadings_["c"], loadings["c"], atol=atol)


def test_features_are_not_stored():
    X = np.random.default_rng(0).normal(size=(4000, 8))
    blocks = {"a": slice(0, 4), "b": slice(4, None)}
    fusion = KernelCCAFusion(4, n_landmarks=200, random_state=0, blocks=blocks)
    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_kernel_cca, "_STORED", 0)
        patch.setattr(_kernel_cca, "_BATCH", 2**16)
        fusion.fit(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Kernels of all rows take 12.8 MB, the covariance of all landmarks 1.3 MB.
    assert peak < 1e7


@pytest.mark.parametrize("regularization", [0.3, 0.01, 0])
def test_float32_is_used_where_it_holds(regularization):
    X, new = linked(400), linked(400, seed=1)
    X, new = X + 1000, new + 1000
    fusion = KernelCCAFusion(2, regularization=regularization, n_landmarks=60, random_state=0, blocks=BLOCKS)
    expected = fusion.fit(X.astype(np.float32).astype(float)).transform(new.astype(np.float32).astype(float))
    out = fusion.fit(X.astype(np.float32)).transform(new.astype(np.float32))
    assert_allclose(out, expected, atol=1e-3 * np.abs(expected).max())
    kernel, functions, _ = fusion._maps["a"]
    assert kernel.landmarks.dtype == functions.dtype == (np.float32 if regularization == 0.3 else np.float64)


def test_columns_that_are_nearly_constant_decide_nothing():
    X, new = np.split(linked(800), 2)
    # In one of 100 rows, each of these is 1.
    rare = (np.random.default_rng(1).random((800, 20)) < 0.01).astype(float)
    noisy, noisy_new = np.split(np.hstack([rare, linked(800)]), 2)
    blocks = {"a": slice(0, 24), "b": slice(24, 27), "c": slice(27, None)}
    damped = KernelCCAFusion(2, blocks=blocks).fit(noisy)
    scaler = StandardScaler().fit(noisy)
    blown = KernelCCAFusion(2, scaling=None, blocks=blocks).fit(scaler.transform(noisy))
    plain = KernelCCAFusion(2, blocks=BLOCKS).fit(X)
    assert damped.score(noisy_new) > plain.score(new) - 0.05
    assert damped.score(noisy_new) > blown.score(scaler.transform(noisy_new)) + 0.02
    # Of other columns the variance is 1; of these 5 over the kurtosis, whatever their unit.
    variances, kurtoses = _kernel_cca.variances_and_kurtoses(noisy, noisy.mean(axis=0))
    assert_allclose(variances, noisy.var(axis=0))
    assert_allclose(kurtoses, stats.kurtosis(noisy, fisher=False))
    units = np.linspace(1e-6, 1e6, noisy.shape[1])
    assert_allclose(
        clone(damped).fit(noisy * units).transform(noisy_new * units), damped.transform(noisy_new), atol=1e-6
    )
    gone = noisy.copy()
    gone[::7, 3] = np.nan
    expected = stats.kurtosis(gone, fisher=False, nan_policy="omit")
    assert_allclose(_kernel_cca.variances_and_kurtoses(gone, np.nanmean(gone, axis=0))[1], expected)
    constant = np.column_stack([np.full(10, 0.1), np.full(10, np.nan), [1e100, *[0.0] * 9]])
    assert_array_equal(_kernel_cca.variances_and_kurtoses(constant[:, :2], np.array([0.1, 0]))[1], 0)
    assert np.isfinite(_kernel_cca.variances_and_kurtoses(constant, np.array([0.1, 0, 1e99]))[1]).all()
