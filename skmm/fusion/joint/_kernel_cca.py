"""Joint embedding by canonical correlation analysis in the feature spaces of kernels."""

from numbers import Integral

import numpy as np
from scipy import linalg
from scipy.linalg import lapack
from sklearn.utils import check_random_state, gen_batches

from ..._columns import column_means
from ..._sklearn import Interval, StrOptions
from ..._typing import Blocks, RandomState
from .._kernel import KERNEL_CONSTRAINTS, make_kernels
from .._moments import BlockMoments, consecutive_slices, take_rows
from ._base import JointEmbedding
from ._cca import CCAFusion
from ._target import TARGET, target_block

# Landmarks of all blocks together with n_landmarks="auto". Their covariance takes 128 MB in float64.
_LANDMARKS = 4000
# Kernels in memory at once, and those that are stored in a fit: up to 2 GiB in float64.
_BATCH = 2**20
_STORED = 2**28
# Numbers that stay in the cache of a core.
_CACHED = 2**16
# Smallest squared distance of a landmark from the span of others, relative to the largest from the mean, with which it
# is used. What is left out has next to no variance.
_SMALLEST_PIVOT = 1e-6
# Kurtosis above which a column gets less than unit variance. It is 3 for normal columns, 6 for Laplace's, and about
# 1 / q for one that differs in a small share q of the rows.
_LARGEST_KURTOSIS = 5.0
# Largest error of variates, whose variance is 1, with which kernels are evaluated in float32.
_SINGLE_ERROR = 1e-4

# Errors and warnings of CCAFusion on functions name the estimator that the user knows.
_CCAOfFunctions = type("KernelCCAFusion", (CCAFusion,), {})


class KernelCCAFusion(JointEmbedding):
    r"""Map all blocks into one space in which they agree, by functions that need not be linear.

    For two blocks with centred kernel matrices :math:`K_1, K_2`, the pairs of functions
    :math:`f_b(x) = \sum_i \alpha_{bi}\, \tilde k_b(x_i, x)` are, one after the other,

    .. math:: \max_{\alpha_1, \alpha_2} \alpha_1^\top K_1 K_2 \alpha_2 \quad\text{subject to}\quad
              \frac{1 - r_b}{n}\,\alpha_b^\top K_b^2 \alpha_b
              + r_b \frac{\operatorname{tr} K_b}{n\,d_b}\,\alpha_b^\top K_b \alpha_b = 1,

    where :math:`d_b` is the rank of :math:`K_b`. That is :class:`CCAFusion`, for any number of blocks, on an
    orthonormal basis of the functions of each block, such as its kernel principal components. With linear kernels it is
    CCAFusion.

    Parameters
    ----------
    n_components : int, default=32
        Upper bound of the number of components, with the limits of :class:`CCAFusion`.

    kernel : {"rbf", "linear", "poly", "precomputed"} or dict of str to these, default="rbf"
        Kernel of all blocks, or by block. A precomputed one, which needs ``scaling=None``, has as columns
        its values for the rows of ``fit``.

    gamma : "scale", "median", float or dict of str to these, default="scale"
        Coefficient of "rbf" and "poly", for all blocks or by block, as in :class:`KernelFusion`.

    degree : float, default=3
        Degree of "poly".

    coef0 : float, default=1
        Constant of "poly".

    objective : {"maxvar", "sumcor"}, default="maxvar"
        What is maximised over more than two blocks, as in :class:`CCAFusion`.

    regularization : float in [0, 1], "auto", "cv" or dict of str to these but "cv", default=0.3
        Ridge :math:`r_b`, as in :class:`CCAFusion`. As kernels of full rank make any blocks agree perfectly,
        it must not be 0 for these.

    n_landmarks : int or "auto", default="auto"
        Most rows of ``fit`` that functions are made from, per block; where there are more, a random sample
        stands for them (the Nystroem method). All rows are used in any case to find which functions agree. "auto" is
        4,000 over the number of blocks, whose covariance takes 128 MB. Fewer save time, which grows with their square
        and the rows, at the price of what is found: of emoji with 1,280 pairs, 300 landmarks find the pair with a mean
        reciprocal rank of .35 and all rows with .47.

    scaling : {"std"} or None, default="std"
        "std" brings columns to unit variance before, but for nearly constant ones: above a kurtosis of 5 the variance
        is 5 over the kurtosis, as a pixel that is black in all but a few pictures would else decide of these how near
        they are to others. None is for columns of one unit, such as pixels.

    target : "block" or None, default=None
        Whether y is one more block, in which the others agree as well: "block" learns from labels, as in
        :class:`CCAFusion`.

    weighting : "correlation" or None, default=None
        Whether variates are multiplied by powers of their correlations, for distances, as in :class:`CCAFusion`.

    power : float, default=2
        Power of the correlations.

    output : {"concat", "mean", "sum"}, default="concat"
        The variates of all blocks side by side, or their mean or sum over the blocks.

    blocks : dict of str to slice or "prefix", default=None
        Columns of each block, as in :class:`ConcatFusion`, at least two.

    random_state : int, RandomState instance or None, default=None
        Seed of the samples of landmarks. Pass an int for output that is the same in every fit.

    Attributes
    ----------
    loadings_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Correlation of each column with the variates of its block.

    correlations_ : ndarray of shape (n_components_,)
        Correlation of the variates of each component in the rows of ``fit``, averaged over the pairs of blocks. Pairs
        count by the rows that have both blocks, and by the deviations of their variates.

    n_pairs_ : ndarray of shape (n_blocks, n_blocks)
        Rows of ``fit`` that have both blocks of a pair, in the order of ``blocks_``; on the diagonal those that have
        the block and any other.

    regularization_ : dict of str to float
        The ridge of each block.

    n_components_ : int
        Number of components.

    blocks_ : dict of str to slice
        Columns of each block, closed.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    CCAFusion : By linear functions.
    KernelFusion : Keeps what varies, not what agrees.

    Notes
    -----
    **Missing blocks.** A block's functions are made from rows that have it, and agreement is learned from the
    rows that have two blocks. At ``transform`` the variates of a missing block are their linear regression on the
    variates of the blocks that the row has. A row without any block becomes zeros. A block that shares
    fewer than two rows with any other at ``fit`` raises an error.

    :meth:`predict_modality` is a linear regression of columns on variates, so no function has to be inverted.
    A precomputed kernel cannot go through cross-validation, which takes rows of X but never columns.

    **Precision and memory.** What is learned from are sums of products of kernels, in float64; functions that have less
    than a millionth of the variance of the largest are left out. The variates of a float32 X are computed in float32 if
    that keeps them to about 1e-4. The kernels of all rows are kept during ``fit`` up to 2 GiB; larger ones are
    evaluated twice.

    References
    ----------
    .. [1] P. L. Lai and C. Fyfe, "Kernel and nonlinear canonical correlation analysis", International Journal of Neural
       Systems 10 (2000).
    .. [2] F. R. Bach and M. I. Jordan, "Kernel independent component analysis", Journal of Machine Learning Research 3
       (2002).
    .. [3] M. Kuss and T. Graepel, "The geometry of kernel canonical correlation analysis", Max Planck Institute for
       Biological Cybernetics, technical report 108 (2003).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.fusion import CCAFusion, KernelCCAFusion
    >>> angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 300)
    >>> X = np.column_stack([np.cos(angle), np.sin(angle), np.cos(2 * angle)])
    >>> blocks = {"point": slice(0, 2), "wave": slice(2, 3)}
    >>> CCAFusion(1, blocks=blocks).fit(X).correlations_.round(1)
    array([0.1])
    >>> KernelCCAFusion(1, regularization=0.01, blocks=blocks).fit(X).correlations_.round(1)
    array([1.])
    """

    _parameter_constraints: dict = {
        **JointEmbedding._parameter_constraints,
        **{name: CCAFusion._parameter_constraints[name] for name in ("objective", "regularization")},
        **KERNEL_CONSTRAINTS,
        "n_landmarks": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left")],
        "scaling": [StrOptions({"std"}), None],
        "random_state": ["random_state"],
    }
    _learns_out_of_fold = True

    def __init__(
        self,
        n_components: int = 32,
        *,
        kernel: str | dict[str, str] = "rbf",
        gamma: float | str | dict[str, float | str] = "scale",
        degree: float = 3,
        coef0: float = 1,
        objective: str = "maxvar",
        regularization: float | str | dict[str, float | str] = 0.3,
        n_landmarks: int | str = "auto",
        scaling: str | None = "std",
        target: str | None = None,
        weighting: str | None = None,
        power: float = 2,
        output: str = "concat",
        blocks: Blocks = None,
        random_state: RandomState = None,
    ):
        self.n_components = n_components
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.objective = objective
        self.regularization = regularization
        self.n_landmarks = n_landmarks
        self.scaling = scaling
        self.target = target
        self.weighting = weighting
        self.power = power
        self.output = output
        self.blocks = blocks
        self.random_state = random_state

    def _fit_scale(self, X):
        if self.scaling is None:
            super()._fit_scale(X)
            return
        self._means = column_means(X)
        self._empty = np.isnan(X).all(axis=0)
        variances, kurtoses = variances_and_kurtoses(X, self._means)
        self._set_scales(variances, len(X))
        # A column that is nearly constant is far from its mean, in deviations, in the few rows that differ.
        self._scales *= np.sqrt(np.maximum(1, kurtoses / _LARGEST_KURTOSIS))

    def _fit_blocks(self, X, y, groups=None):
        cca = _CCAOfFunctions(
            self.n_components, objective=self.objective, regularization=self.regularization, scaling=None
        )
        target = None if y is None else target_block(y, type(self).__name__)
        rows = KernelRows(self._fit_kernels(X), self.blocks_, self._fill(X), ~self._missing(X), target)
        axes = {name: orthonormal_functions(kernel) for name, kernel in rows.kernels.items()}
        if target is not None:
            axes[TARGET] = np.eye(target.shape[1])
        cca.blocks_ = consecutive_slices({name: axes[name].shape[1] for name in self.blocks_})
        # Sums of products of kernels are what is learned from; features of the rows are not stored.
        moments = [sums.projected(axes) for sums in rows.moments(cca._subsets(len(X), groups))]
        cca._check_pairs(sum(sums.counts for sums in moments), axes)
        # Only the ridge of Ledoit and Wolf asks for more.
        ridges = self.regularization.values() if isinstance(self.regularization, dict) else [self.regularization]
        features = rows.projected(axes) if "auto" in ridges else None
        cca._set_weights(*cca._solve(moments, features, np.float64)[:2])
        self.regularization_ = cca.regularization_
        self.n_components_, self.n_pairs_ = cca.n_components_, cca.n_pairs_

        functions = {name: axes[name] @ weights for name, weights in cca.weights_.items()}
        # Rounding of a kernel to float32 moves a variate by about as much times the norm of its function.
        norm = max(np.linalg.norm(combinations, axis=0).max() for combinations in functions.values())
        single = X.dtype == np.float32 and norm * np.finfo(np.float32).eps < _SINGLE_ERROR
        if not single:
            rows.stored = {start: K for start, K in rows.stored.items() if K.dtype == np.float64}
        centers = {name: cca._means[columns] @ cca.weights_[name] for name, columns in cca.blocks_.items()}
        variates = rows.projected(functions) - np.concatenate(list(centers.values()))
        signs = self._learn_space(X, np.split(variates, len(centers), axis=1), self.blocks_)
        self.correlations_ = cca.correlations_
        dtype = np.float32 if single else np.float64
        self._maps = {
            name: (
                rows.kernels[name].astype(dtype),
                (functions[name] * signs).astype(dtype),
                (centers[name] * signs).astype(dtype),
            )
            for name in self.blocks_
        }

    def _fit_kernels(self, X):
        """Return the kernel of each block by name, fitted to its landmarks."""
        kernels, random_state = make_kernels(self, len(X)), check_random_state(self.random_state)
        n_landmarks = max(2, _LANDMARKS // len(self.blocks_)) if self.n_landmarks == "auto" else self.n_landmarks
        filled = self._fill(X)
        for (name, columns), missing in zip(self.blocks_.items(), self._missing(X).T, strict=True):
            landmarks = np.flatnonzero(~missing)
            if len(landmarks) > n_landmarks:
                landmarks = np.sort(random_state.choice(landmarks, n_landmarks, replace=False))
            kernels[name].fit(filled[:, columns], landmarks)
        return kernels

    def _score_block(self, X_block, name):
        kernel, functions, center = self._maps[name]
        variates = np.empty((len(X_block), self.n_components_), dtype=X_block.dtype)
        for rows in gen_batches(len(X_block), max(1, _BATCH // len(functions))):
            variates[rows] = kernel.evaluate(X_block[rows]) @ functions - center
        return variates


class KernelRows:
    """Kernels between the rows of ``fit``, without NaN, and the landmarks of each block, side by side; then a target.

    They are stored in the dtype of X if they are few enough, else evaluated each time.
    """

    def __init__(self, kernels, blocks, X, present, target):
        self.kernels, self.blocks, self.X, self.present, self.target = kernels, blocks, X, present, target
        self.shift = np.concatenate([kernel.means for kernel in kernels.values()])
        widths = {name: len(kernel.means) for name, kernel in kernels.items()}
        if target is not None:
            self.shift = np.concatenate([self.shift, column_means(target)])
            widths[TARGET] = target.shape[1]
        self.slices = consecutive_slices(widths)
        self.batches = list(gen_batches(len(X), max(1, _BATCH // len(self.shift))))
        self.stored = {}

    def moments(self, subsets):
        """Return the moments of subsets of the rows, each a list of slices or of arrays of positions."""
        subset_of = np.empty(len(self.X), dtype=int)
        for i, subset in enumerate(subsets):
            for rows in subset:
                subset_of[rows] = i
        moments = [BlockMoments(self.shift, self.slices) for _ in subsets]
        for batch in self.batches:
            K = self._evaluate(batch)
            for i, sums in enumerate(moments):
                sums.add(take_rows(K, subset_of[batch] == i))
            if len(self.X) * len(self.shift) <= _STORED:
                self.stored[batch.start] = K.astype(self.X.dtype, copy=False)
        return moments

    def projected(self, bases):
        """Return combinations of the kernels of each block, given by a matrix of coefficients, side by side."""
        slices = consecutive_slices({name: basis.shape[1] for name, basis in bases.items()})
        out = np.empty((len(self.X), sum(basis.shape[1] for basis in bases.values())))
        for batch in self.batches:
            K = self.stored[batch.start] if batch.start in self.stored else self._evaluate(batch)
            for name, basis in bases.items():
                out[batch, slices[name]] = K[:, self.slices[name]] @ basis.astype(K.dtype, copy=False)
        return out

    def _evaluate(self, batch):
        """Return the kernels of some rows, with NaN where a block is missing."""
        K = np.full((batch.stop - batch.start, len(self.shift)), np.nan)
        for (name, columns), present in zip(self.blocks.items(), self.present[batch].T, strict=True):
            values = self.kernels[name].evaluate(take_rows(self.X[batch, columns], present))
            if present.all():
                K[:, self.slices[name]] = values
            else:
                K[present, self.slices[name]] = values
        if self.target is not None:
            K[:, self.slices[TARGET]] = self.target[batch]
        return K


def orthonormal_functions(kernel):
    """Return combinations of landmarks, as columns, that are an orthonormal basis of their centred functions.

    It is the Cholesky decomposition of the centred kernel of the landmarks, pivoted, so that the landmarks whose
    functions are combinations of others are left out. For a kernel that is constant it is one column of zeros.
    """
    n = len(kernel.centered)
    if np.isinf(kernel.size):
        return np.zeros((n, 1))
    rounding = 10 * n * np.finfo(np.float64).eps * np.abs(kernel.means).max()
    tolerance = max(_SMALLEST_PIVOT * np.diag(kernel.centered).max(), rounding)
    factor, pivots, rank, _ = lapack.dpstrf(kernel.centered, tol=tolerance)
    basis = np.zeros((n, rank))
    basis[pivots[:rank] - 1] = linalg.solve_triangular(np.triu(factor[:rank, :rank]), np.eye(rank))
    # Of functions centred at the mean of the landmarks.
    return basis - basis.mean(axis=0)


def variances_and_kurtoses(X, means):
    """Return the variance and the kurtosis of each column over its present cells; 0 for a constant column."""
    count, squares, fourths = np.zeros((3, X.shape[1]))
    for rows in gen_batches(len(X), max(1, _CACHED // X.shape[1])):
        Z = X[rows] - means
        Z *= Z
        sums = Z.sum(axis=0)
        if np.isnan(sums).any():
            count -= np.isnan(Z).sum(axis=0)
            sums = np.nan_to_num(Z, copy=False).sum(axis=0)
        count += len(Z)
        squares += sums
        # Fourth powers may leave the range of numbers where squares do not.
        with np.errstate(over="ignore"):
            fourths += np.vecdot(Z, Z, axis=0)
    variances = squares / np.maximum(count, 1)
    fourths = np.minimum(fourths / np.maximum(count, 1), np.finfo(np.float64).max)
    ratios = np.divide(fourths, variances, out=np.zeros_like(variances), where=variances > 0)
    return variances, np.divide(ratios, variances, out=np.zeros_like(variances), where=variances > 0)
