"""Kernels of single blocks, centred in their feature space, and how much kernels agree."""

import numpy as np
from scipy import linalg
from sklearn.metrics.pairwise import pairwise_kernels

from ._base import signs_by_largest

KERNELS = {"linear", "rbf", "poly", "precomputed"}


class BlockKernel:
    """Kernel between rows of one block and the landmarks it was fitted on, centred at their mean.

    Parameters
    ----------
    kernel : {"linear", "rbf", "poly", "precomputed"}
        Kind of the kernel.

    gamma : float or "scale"
        Coefficient of "rbf" and "poly"; "scale" is the inverse of the block's total variance.

    degree : float
        Degree of "poly".

    coef0 : float
        Constant of "poly".

    Attributes
    ----------
    centered : ndarray of shape (n_landmarks, n_landmarks)
        Centred kernel of the landmarks.

    size : float
        Mean of its diagonal; infinite if nothing varies, so that the kernel divided by it is 0.
    """

    def __init__(self, kernel, gamma, degree, coef0):
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0

    def fit(self, X, rows):
        """Learn from some rows of X, the landmarks. A precomputed kernel is a matrix X of its values for all rows."""
        self.rows = rows
        if len(rows) == 0:
            self.centered, self.size = np.zeros((0, 0)), np.inf
            return self
        if self.kernel != "precomputed":
            self.landmarks = X[rows].astype(np.float64)
            # Inner products of numbers near zero are precise, and these kernels do not depend on the origin.
            self.origin = self.landmarks.mean(axis=0) if self.kernel in ("linear", "rbf") else 0.0
            self.landmarks -= self.origin
            if self.gamma == "scale":
                variance = self.landmarks.var(axis=0).sum()
                self.gamma = 1 / variance if variance > 0 else 1.0
        K = self._evaluate(X[rows])
        self.means = K.mean(axis=0)
        self.centered = K - self.means - self.means[:, None] + self.means.mean()
        size = self.centered.trace() / len(rows)
        # The centred kernel of a constant block is nothing but rounding.
        self.size = size if size > 1e-12 * np.abs(K).max() else np.inf
        return self

    def __call__(self, X):
        """Return the centred kernel between rows and landmarks, of shape (n_samples, n_landmarks)."""
        values = self._evaluate(X)
        return values - values.mean(axis=1, keepdims=True) - self.means + self.means.mean()

    def _evaluate(self, X):
        X = X.astype(np.float64, copy=False)
        if self.kernel == "precomputed":
            return X[:, self.rows]
        options = {
            "linear": {},
            "rbf": {"gamma": self.gamma},
            "poly": {"gamma": self.gamma, "degree": self.degree, "coef0": self.coef0},
        }
        return pairwise_kernels(X - self.origin, self.landmarks, metric=self.kernel, **options[self.kernel])


def check_kernels(estimator, kernel, scaling, blocks, n_samples):
    """Return the kernel of each block by name; raise if ``kernel`` does not fit the blocks."""
    kernels = kernel if isinstance(kernel, dict) else dict.fromkeys(blocks, kernel)
    if kernels.keys() != blocks.keys():
        raise ValueError(f"{estimator}: kernel names the blocks {sorted(kernels)}, X has the blocks {sorted(blocks)}.")
    for name, value in kernels.items():
        if value not in (kinds := sorted(KERNELS)):
            raise ValueError(f"{estimator}: kernel[{name!r}] must be one of {kinds}, got {value!r}.")
        width = blocks[name].stop - blocks[name].start
        if value == "precomputed" and scaling is not None:
            raise ValueError(f"{estimator}: precomputed kernels cannot be scaled by column; pass scaling=None.")
        if value == "precomputed" and width != n_samples:
            raise ValueError(
                f"{estimator}: block {name!r} of a precomputed kernel needs one column for each of the {n_samples} "
                f"rows of fit, got {width}."
            )
    return kernels


def leading_eigenpairs(kernel, n_components):
    """Return the largest eigenvalues of a centred kernel matrix, without those that are rounding, and their vectors.

    Parameters
    ----------
    kernel : ndarray of shape (n, n)
        Symmetric, positive semidefinite.

    n_components : int
        Upper bound of their number.

    Returns
    -------
    values : ndarray of shape (n_components,)
        In descending order; none if the kernel is zero.

    vectors : ndarray of shape (n, n_components)
        Each with a positive sum of cubes.
    """
    n = len(kernel)
    if n == 0:
        return np.zeros(0), np.zeros((0, 0))
    values, vectors = linalg.eigh(kernel, subset_by_index=[max(0, n - n_components), n - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    varying = values > 10 * n * np.finfo(np.float64).eps * np.abs(values).max(initial=0)
    values, vectors = values[varying], vectors[:, varying]
    return values, vectors * _signs_by_skewness(vectors)


def _signs_by_skewness(vectors):
    """Return the signs that make the sum of cubes of each column positive, whatever the order of the rows."""
    cubes = (vectors**3).sum(axis=0)
    lopsided = np.abs(cubes) > 1e-6 * (np.abs(vectors) ** 3).sum(axis=0)
    return np.where(lopsided, np.where(cubes < 0, -1.0, 1.0), signs_by_largest(vectors))


def kernel_alignment(K, L):
    r"""Centred alignment of two kernel matrices, :math:`\langle K_c, L_c\rangle_F / (\|K_c\|_F \|L_c\|_F)`.

    Parameters
    ----------
    K, L : ndarray of shape (n, n)
        Kernel matrices of the same rows.

    Returns
    -------
    alignment : float
        Between 0 and 1 for kernels; 0 if one of them is constant.
    """
    K, L = _centered(K), _centered(L)
    size = np.linalg.norm(K) * np.linalg.norm(L)
    return float(np.sum(K * L) / size) if size > 0 else 0.0


def _centered(K):
    rows = K.mean(axis=1, keepdims=True)
    return K - rows - rows.T + rows.mean()
