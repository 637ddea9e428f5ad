"""Feature-level fusion by a weighted sum of one kernel per modality, and the kernels of single blocks."""

from copy import copy
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from scipy.spatial.distance import pdist
from sklearn.utils import check_random_state, gen_batches

from .._sklearn import Interval, StrOptions
from .._typing import Blocks, RandomState
from ._base import N_COMPONENTS, signs_by_largest
from ._imputer import ImputedBlockTransformer
from ._weights import fixed_weights, probe_target

KERNELS = {"linear", "rbf", "poly", "precomputed"}
KERNEL_CONSTRAINTS = {
    "kernel": [StrOptions(KERNELS), dict],
    "gamma": [StrOptions({"scale", "median"}), Interval(Real, 0, None, closed="neither"), dict],
    "degree": [Interval(Real, 0, None, closed="neither")],
    "coef0": [Interval(Real, None, None, closed="neither")],
}
# Rows whose kernels are in memory at once.
_BATCH = 4096
# Landmarks between which the median of distances is taken.
_ROWS_OF_MEDIAN = 1000


class KernelFusion(ImputedBlockTransformer):
    r"""Join the blocks by a weighted sum of kernels, given as explicit features.

    With :math:`\tilde k_b` the kernel of block b, centred in its feature space and divided by its mean over
    equal rows, and :math:`P_i` the blocks that row i has, the joint kernel is

    .. math:: k(i, j) = \frac{\sum_{b \in P_i \cap P_j} w_b\, \tilde k_b(x_{ib}, x_{jb})}
              {\sqrt{\sum_{b \in P_i} w_b \sum_{b \in P_j} w_b}}.

    Its leading eigenvectors over the landmarks, which are all rows of ``fit`` or a random sample of them,
    make features whose inner products approximate k: kernel principal components, or the Nystroem method.

    Parameters
    ----------
    n_components : int, default=128
        Upper bound of the number of features; it is clipped to the numerical rank of the joint kernel. The default is
        twice that of :class:`PCAFusion`, as a kernel's features spread over more dimensions than the columns.

    kernel : {"rbf", "linear", "poly", "precomputed"} or dict of str to these, default="rbf"
        Kernel of all blocks, or by block. A precomputed one, which needs ``scaling=None``, has as columns
        its values for the rows of ``fit``.

    gamma : "scale", "median", float or dict of str to these, default="scale"
        Coefficient of "rbf", :math:`\exp(-\gamma\|x - x'\|^2)`, and "poly", for all blocks or by block. "scale" is the
        inverse of the total variance of each block, "median" the inverse of the median squared distance of its rows.

    degree : float, default=3
        Degree of "poly", :math:`(\gamma\,x^\top x' + c_0)^{degree}`.

    coef0 : float, default=1
        Constant :math:`c_0` of "poly".

    weights : dict of str to float, array-like of shape (n_blocks,), "alignment", "agreement" or None, default=None
        Weight of each kernel; None means equal ones. ``"alignment"``: the centred alignment of the kernel with
        that of the target (an indicator per class, or the numbers), which needs ``y``.
        ``"agreement"``: the mean of its alignments with the other blocks' kernels.

    n_landmarks : int, default=1000
        Most rows of ``fit`` that features are made from; the time of ``fit`` grows with its cube.

    scaling : {"std"} or None, default="std"
        Whether columns are brought to unit variance before. Factors of whole blocks have no influence.

    imputer : {"mean", "zero", "regression", "neighbors"}, ModalityImputer or None, default=None
        What fills in missing blocks before all else, as in :class:`ConcatFusion`. None: as the notes say.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block, as in :class:`ConcatFusion`.

    random_state : int, RandomState instance or None, default=None
        Seed of the sample of landmarks, where there are more rows. Pass an int for output that is the same in
        every fit.

    Attributes
    ----------
    weights_ : dict of str to float
        Weight of each kernel; they add up to 1.

    eigenvalues_ : ndarray of shape (n_components_,)
        Eigenvalues of the joint kernel of the landmarks.

    n_components_ : int
        Number of features.

    imputer_ : ModalityImputer or None
        What missing blocks are filled in by.

    blocks_ : dict of str to slice
        Columns of each block, closed.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    KernelCCAFusion : Keeps what the blocks agree on.
    sklearn.decomposition.KernelPCA : Of one kernel. sklearn.kernel_approximation.Nystroem : Of one kernel, not centred.

    Notes
    -----
    **Missing blocks.** The sum is over the blocks that both rows have, and is divided by the weights that
    each row has, as the formula says; k stays a kernel. A row thus lies where its other blocks say, and
    a row without any block becomes zeros. A block that is missing in all landmarks has weight 0.

    A precomputed kernel cannot go through cross-validation, which takes rows of X but never columns.

    References
    ----------
    .. [1] N. Cristianini, J. Shawe-Taylor, A. Elisseeff and J. Kandola, "On kernel-target alignment", NIPS (2001).
    .. [2] C. Cortes, M. Mohri and A. Rostamizadeh, "Algorithms for learning kernels based on centered alignment",
       Journal of Machine Learning Research 13 (2012).
    .. [3] C. K. I. Williams and M. Seeger, "Using the Nystroem method to speed up kernel machines", NIPS (2000).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skmm.fusion import KernelFusion
    >>> X, y = load_iris(return_X_y=True)
    >>> blocks = {"sepal": slice(0, 2), "petal": slice(2, 4)}
    >>> fusion = KernelFusion(10, weights="alignment", blocks=blocks)
    >>> fusion.fit_transform(X, y).shape
    (150, 10)
    >>> {name: round(weight, 2) for name, weight in fusion.weights_.items()}
    {'sepal': 0.38, 'petal': 0.62}
    """

    _weights_from_y = ("alignment",)
    _parameter_constraints: dict = {
        **ImputedBlockTransformer._parameter_constraints,
        "n_components": N_COMPONENTS,
        **KERNEL_CONSTRAINTS,
        "weights": [dict, "array-like", StrOptions({"alignment", "agreement"}), None],
        "n_landmarks": [Interval(Integral, 1, None, closed="left")],
        "scaling": [StrOptions({"std"}), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int = 128,
        *,
        kernel: str | dict[str, str] = "rbf",
        gamma: float | str | dict[str, float | str] = "scale",
        degree: float = 3,
        coef0: float = 1,
        weights: dict[str, float] | ArrayLike | str | None = None,
        n_landmarks: int = 1000,
        scaling: str | None = "std",
        imputer: object = None,
        blocks: Blocks = None,
        random_state: RandomState = None,
    ):
        self.n_components = n_components
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.weights = weights
        self.n_landmarks = n_landmarks
        self.scaling = scaling
        self.imputer = imputer
        self.blocks = blocks
        self.random_state = random_state

    def _fit_blocks(self, X, y):
        kernels = make_kernels(self, len(X))
        landmarks = np.arange(len(X))
        if len(X) > self.n_landmarks:
            random_state = check_random_state(self.random_state)
            landmarks = np.sort(random_state.choice(landmarks, self.n_landmarks, replace=False))
        present = ~self._missing(X)[landmarks]
        filled = self._fill(X)
        self._kernels, matrices = [], []
        for (name, columns), rows in zip(self.blocks_.items(), present.T, strict=True):
            kernel = kernels[name].fit(filled[:, columns], landmarks[rows])
            self._kernels.append(kernel)
            matrices.append(np.zeros((len(landmarks), len(landmarks))))
            matrices[-1][np.ix_(rows, rows)] = kernel.centered / kernel.size
        weights = self._resolve_weights(matrices, present, None if y is None else y[landmarks])
        self.weights_ = dict(zip(self.blocks_, weights.tolist(), strict=True))
        self._present = present

        share = inverse_root(present @ weights)
        joint = sum(weight * K for weight, K in zip(weights, matrices, strict=True)) * np.outer(share, share)
        self.eigenvalues_, vectors = leading_eigenpairs(joint, self.n_components)
        self.n_components_ = len(self.eigenvalues_)
        self._vectors = share[:, None] * vectors * inverse_root(self.eigenvalues_)

    def _resolve_weights(self, matrices, present, y):
        if not isinstance(self.weights, str):
            weights = fixed_weights(self)
        elif self.weights == "alignment":
            target = probe_target(y)
            L = target @ target.T
            weights = [kernel_alignment(K, L, rows) for K, rows in zip(matrices, present.T, strict=True)]
        else:
            m = len(matrices)
            pairs = np.zeros((m, m))
            for a in range(m):
                for b in range(a):
                    both = present[:, a] & present[:, b]
                    pairs[a, b] = pairs[b, a] = kernel_alignment(matrices[a], matrices[b], both)
            weights = pairs.sum(axis=1)
        weights = np.where(present.any(axis=0), np.maximum(weights, 0), 0)
        return weights / weights.sum() if weights.any() else np.full(len(matrices), 1 / len(matrices))

    def _transform_blocks(self, X):
        out = np.empty((len(X), self.n_components_), dtype=X.dtype)
        weights = np.array(list(self.weights_.values()))
        for batch in gen_batches(len(X), _BATCH):
            filled = self._fill(X[batch])
            present = ~self._missing(X[batch])
            total = np.zeros((len(filled), self.n_components_))
            for b, columns in enumerate(self.blocks_.values()):
                rows, kernel = present[:, b], self._kernels[b]
                if rows.any() and weights[b] > 0:
                    values = kernel(filled[rows, columns]) / kernel.size
                    total[rows] += weights[b] * values @ self._vectors[self._present[:, b]]
            out[batch] = total * inverse_root(present @ weights)[:, None]
        return out

    def _names_out(self, input_features):
        return self._joint_names(self.n_components_)


def inverse_root(values):
    """Return one over the square root; 0 for 0."""
    return np.divide(1.0, np.sqrt(values), out=np.zeros_like(values), where=values > 0)


# Kernels of single blocks, and how much kernels agree.


class BlockKernel:
    """Kernel between rows of one block and the landmarks it was fitted on, centred at their mean.

    Fitted, it holds the ``centered`` kernel of the landmarks, and as ``size`` the mean of its diagonal; infinite if
    nothing varies, so that the kernel divided by it is 0.
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
            if isinstance(self.gamma, str):
                size = self.landmarks.var(axis=0).sum() if self.gamma == "scale" else self._median_distance()
                self.gamma = 1 / size if size > 0 else 1.0
        K = self.evaluate(X[rows])
        self.means = K.mean(axis=0)
        if not np.isfinite(self.means).all():
            raise ValueError(
                f"The kernel {self.kernel!r} with gamma={self.gamma}, degree={self.degree} and coef0={self.coef0} is "
                "not finite for some rows; pass a smaller degree that is a whole number."
            )
        self.centered = K - self.means - self.means[:, None] + self.means.mean()
        size = self.centered.trace() / len(rows)
        # The centred kernel of a constant block is nothing but rounding.
        self.size = size if size > 1e-12 * np.abs(K).max() else np.inf
        return self

    def __call__(self, X):
        """Return the centred kernel between rows and landmarks, of shape (n_samples, n_landmarks)."""
        values = self.evaluate(X)
        return values - values.mean(axis=1, keepdims=True) - self.means + self.means.mean()

    def evaluate(self, X):
        """Return the kernel between rows and landmarks, not centred, in the dtype of the landmarks."""
        if self.kernel == "precomputed":
            return X[:, self.rows].astype(np.float64, copy=False)
        X = (X - self.origin).astype(self.landmarks.dtype, copy=False)
        K = X @ self.landmarks.T
        if self.kernel == "linear":
            return K
        K *= self.gamma if self.kernel == "poly" else 2 * self.gamma
        if self.kernel == "poly":
            K += self.coef0
            return K**self.degree
        K -= self.gamma * np.vecdot(X, X)[:, None]
        K -= self.gamma * np.vecdot(self.landmarks, self.landmarks)
        # Rounding can make a squared distance negative.
        return np.exp(np.minimum(K, 0, out=K), out=K)

    def astype(self, dtype):
        """Return the kernel, fitted, with landmarks of a dtype and without what only a fit needs."""
        kernel = copy(self)
        del kernel.centered
        if self.kernel != "precomputed":
            kernel.landmarks = self.landmarks.astype(dtype)
        return kernel

    def _median_distance(self):
        """Return the median of the squared distances of landmarks."""
        sample = self.landmarks[:_ROWS_OF_MEDIAN]
        return np.median(pdist(sample, "sqeuclidean")) if len(sample) > 1 else 0.0


def make_kernels(fusion, n_samples):
    """Return the kernel of each block by name, not yet fitted; raise if ``kernel`` does not fit the blocks."""
    owner, blocks = type(fusion).__name__, fusion.blocks_
    kernels = fusion.kernel if isinstance(fusion.kernel, dict) else dict.fromkeys(blocks, fusion.kernel)
    if kernels.keys() != blocks.keys():
        raise ValueError(f"{owner}: kernel names the blocks {sorted(kernels)}, X has the blocks {sorted(blocks)}.")
    for name, value in kernels.items():
        if value not in (kinds := sorted(KERNELS)):
            raise ValueError(f"{owner}: kernel[{name!r}] must be one of {kinds}, got {value!r}.")
        width = blocks[name].stop - blocks[name].start
        if value == "precomputed" and fusion.scaling is not None:
            raise ValueError(f"{owner}: precomputed kernels cannot be scaled by column; pass scaling=None.")
        if value == "precomputed" and width != n_samples:
            raise ValueError(
                f"{owner}: block {name!r} of a precomputed kernel needs one column for each of the {n_samples} "
                f"rows of fit, got {width}."
            )
    gammas = fusion.gamma if isinstance(fusion.gamma, dict) else dict.fromkeys(blocks, fusion.gamma)
    if gammas.keys() != blocks.keys():
        raise ValueError(f"{owner}: gamma names the blocks {sorted(gammas)}, X has the blocks {sorted(blocks)}.")
    for name, value in gammas.items():
        if value not in ("scale", "median") and not (isinstance(value, Real) and value > 0):
            raise ValueError(f"{owner}: gamma[{name!r}] must be 'scale', 'median' or above 0, got {value!r}.")
    return {name: BlockKernel(kernels[name], gammas[name], fusion.degree, fusion.coef0) for name in blocks}


def leading_eigenpairs(kernel, n_components):
    """Return up to so many of the largest eigenvalues of a centred kernel matrix, and their vectors.

    Those that are rounding are left out; where all are, one vector of zeros stands for them. The sum of the cubes of
    each other vector is positive.
    """
    n = len(kernel)
    values, vectors = linalg.eigh(kernel, subset_by_index=[max(0, n - n_components), n - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    varying = values > 10 * n * np.finfo(np.float64).eps * np.abs(values).max()
    if not varying.any():
        return np.zeros(1), np.zeros((n, 1))
    values, vectors = values[varying], vectors[:, varying]
    return values, vectors * _signs_by_skewness(vectors)


def _signs_by_skewness(vectors):
    """Return the signs that make the sum of cubes of each column positive, whatever the order of the rows."""
    cubes = (vectors**3).sum(axis=0)
    lopsided = np.abs(cubes) > 1e-6 * (np.abs(vectors) ** 3).sum(axis=0)
    return np.where(lopsided, np.where(cubes < 0, -1.0, 1.0), signs_by_largest(vectors))


def kernel_alignment(K, L, rows):
    r"""Return the centred alignment :math:`\langle K_c, L_c\rangle_F / (\|K_c\|_F \|L_c\|_F)` over a mask of rows.

    It is 0 if one of the kernels is constant, or if there are no rows.
    """
    if not rows.any():
        return 0.0
    K, L = _centered(K[np.ix_(rows, rows)]), _centered(L[np.ix_(rows, rows)])
    size = np.linalg.norm(K) * np.linalg.norm(L)
    return float(np.sum(K * L) / size) if size > 0 else 0.0


def _centered(K):
    rows = K.mean(axis=1, keepdims=True)
    return K - rows - rows.T + rows.mean()
