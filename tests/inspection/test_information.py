import numpy as np
import pytest
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal

from skmm.inspection import linear_cka, modality_gap, mutual_information


def gaussian_pair(information, n_samples, n_columns, seed=0):
    """Return blocks whose columns are correlated in pairs, with this much mutual information in all."""
    rng = np.random.default_rng(seed)
    correlation = np.sqrt(1 - np.exp(-2 * information / n_columns))
    A = rng.normal(size=(n_samples, n_columns))
    return A, correlation * A + np.sqrt(1 - correlation**2) * rng.normal(size=(n_samples, n_columns))


class TestGaussian:
    @pytest.mark.parametrize("information", [2, 6, 10])
    def test_truth(self, information):
        A, B = gaussian_pair(information, 2000, 20)
        result = mutual_information(A, B, n_permutations=0, random_state=0)
        assert_allclose(result.estimate, information, rtol=0, atol=0.2)
        assert result.interval[0] < information < result.interval[1]
        # Monotone maps of columns change nothing, nor do linear maps of a block up to the ranks of its columns.
        cubed = mutual_information(A, B**3, n_subsamples=0, n_permutations=0)
        assert_allclose(cubed.estimate, result.estimate, rtol=1e-6)

    def test_one_column_each(self):
        A, B = gaussian_pair(0.5, 5000, 1)
        assert_allclose(mutual_information(A, B, n_subsamples=0, n_permutations=0).estimate, 0.5, atol=0.05)

    def test_is_symmetric(self):
        A, B = gaussian_pair(1, 300, 4)
        results = [mutual_information(*pair, n_subsamples=0, n_permutations=0).estimate for pair in ((A, B), (B, A))]
        assert_allclose(*results)

    def test_wide_blocks_are_reduced(self):
        rng = np.random.default_rng(0)
        A, B = gaussian_pair(3, 600, 5)
        wide = [X @ rng.normal(size=(5, 300)) + 0.01 * rng.normal(size=(600, 300)) for X in (A, B)]
        result = mutual_information(*wide, n_components=5, n_permutations=0, random_state=0)
        assert result.n_components == (5, 5)
        assert_allclose(result.estimate, 3, atol=0.4)
        assert mutual_information(*wide, n_subsamples=0, n_permutations=0).n_components == (30, 30)

    def test_shuffled_pairs_tell_nothing(self):
        A, B = gaussian_pair(1, 400, 4)
        dependent = mutual_information(A, B, n_subsamples=0, random_state=0)
        assert dependent.pvalue < 0.05
        shuffled = mutual_information(A, np.random.default_rng(1).permutation(B), random_state=0)
        assert shuffled.pvalue > 0.05
        assert abs(shuffled.null.mean()) < 0.02
        assert shuffled.interval[0] < 0 < shuffled.interval[1]

    @pytest.mark.slow
    def test_intervals_cover_no_dependence(self):
        covered = 0
        for seed in range(100):
            A, B = np.random.default_rng(seed).normal(size=(2, 300, 3))
            low, high = mutual_information(A, B, n_permutations=0, random_state=seed).interval
            covered += low < 0 < high
        assert covered >= 90


class TestBounds:
    @pytest.mark.parametrize("method", [pytest.param(name, marks=pytest.mark.slow) for name in ("infonce", "smile")])
    def test_sees_what_is_not_linear(self, method):
        A, _ = gaussian_pair(1, 400, 1)
        B = np.abs(A) + 0.05 * np.random.default_rng(1).normal(size=A.shape)
        options = {"n_subsamples": 0, "n_permutations": 0, "random_state": 0}
        assert mutual_information(A, B, method, **options).estimate > 0.7
        assert mutual_information(A, B, **options).estimate < 0.1

    @pytest.mark.slow
    @pytest.mark.parametrize(("method", "error"), [("infonce", 0.2), ("smile", 0.35)])
    def test_truth(self, method, error):
        A, B = gaussian_pair(1, 2000, 2)
        result = mutual_information(A, B, method, n_subsamples=0, n_permutations=0, random_state=0)
        assert_allclose(result.estimate, 1, atol=error)

    @pytest.mark.slow
    def test_infonce_is_bounded(self):
        A, _ = gaussian_pair(1, 200, 2)
        result = mutual_information(A, A, "infonce", n_subsamples=0, n_permutations=0, random_state=0)
        assert 2 < result.estimate < np.log(100)

    @pytest.mark.parametrize("method", ["gaussian", pytest.param("infonce", marks=pytest.mark.slow)])
    def test_repeats(self, method):
        A, B = gaussian_pair(1, 60, 2)
        options = {"n_subsamples": 1, "n_permutations": 1, "random_state": 3}
        first = mutual_information(A, B, method, **options)
        with parallel_config("threading"):
            second = mutual_information(A, B, method, n_jobs=2, **options)
        assert first.estimate == second.estimate
        assert_array_equal(first.null, second.null)


class TestInput:
    def test_rows_with_nan_are_left_out(self):
        A, B = gaussian_pair(1, 100, 2)
        A[3, 0] = B[7, 1] = np.nan
        keep = np.delete(np.arange(100), [3, 7])
        options = {"n_subsamples": 0, "n_permutations": 0}
        result = mutual_information(A, B, **options)
        assert result.n_samples == 98
        assert result.estimate == mutual_information(A[keep], B[keep], **options).estimate
        assert linear_cka(A, B) == linear_cka(A[keep], B[keep])

    def test_constant_columns_tell_nothing(self):
        A, B = gaussian_pair(1, 100, 2)
        options = {"n_subsamples": 0, "n_permutations": 0}
        with_constant = mutual_information(np.column_stack([A, np.ones(100)]), B, **options)
        assert_allclose(with_constant.estimate, mutual_information(A, B, **options).estimate)

    def test_errors(self):
        A, B = gaussian_pair(1, 30, 2)
        with pytest.raises(ValueError, match="at least 20 rows with both blocks, got 10"):
            mutual_information(A[:10], B[:10])
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            mutual_information(A, B[:-1])
        with pytest.raises(ValueError, match="No row has both blocks"):
            mutual_information(np.full((30, 2), np.nan), B)
        with pytest.raises(ValueError, match="'method' parameter"):
            mutual_information(A, B, "mine")


def test_modality_gap():
    rng = np.random.default_rng(0)
    X = rng.normal(loc=[5, 0, 0], size=(50, 3))
    assert modality_gap(X, 7 * X) == 0
    units = X / np.linalg.norm(X, axis=1, keepdims=True)
    other = rng.normal(size=(40, 3))
    other_units = other / np.linalg.norm(other, axis=1, keepdims=True)
    assert_allclose(modality_gap(X, other), np.linalg.norm(units.mean(axis=0) - other_units.mean(axis=0)))
    with pytest.raises(ValueError, match="not in one space"):
        modality_gap(X, X[:, :2])
    with pytest.raises(ValueError, match="X_b has no row"):
        modality_gap(X, np.full((2, 3), np.nan))


class TestLinearCka:
    def test_definition(self):
        rng = np.random.default_rng(0)
        A, B = rng.normal(size=(40, 3)), rng.normal(size=(40, 5))
        center = np.eye(40) - 1 / 40
        K, L = (center @ X @ X.T @ center for X in (A, B))
        expected = np.sum(K * L) / np.sqrt(np.sum(K * K) * np.sum(L * L))
        assert_allclose(linear_cka(A, B), expected)
        # The products of rows, where there are fewer.
        wide = [rng.normal(size=(10, n)) for n in (30, 40)]
        center = np.eye(10) - 1 / 10
        K, L = (center @ X @ X.T @ center for X in wide)
        assert_allclose(linear_cka(*wide), np.sum(K * L) / np.sqrt(np.sum(K * K) * np.sum(L * L)))

    def test_rotations_shifts_and_scales(self):
        rng = np.random.default_rng(0)
        A = rng.normal(size=(40, 3))
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        assert_allclose(linear_cka(A, 5 * A @ rotation - 2), 1)

    def test_constant_blocks(self):
        assert np.isnan(linear_cka(np.ones((5, 2)), np.arange(10.0).reshape(5, 2)))
