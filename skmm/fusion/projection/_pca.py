"""Feature-level fusion by principal components, and the base of all projections of blocks."""

from numbers import Integral, Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from sklearn.decomposition import PCA
from sklearn.utils.metaestimators import available_if

from ..._columns import column_means
from ..._sklearn import Interval, fit_context
from ..._typing import Blocks, Matrix, RandomState
from .._base import LEVEL, N_COMPONENTS, SCALING, missing_blocks, signs_by_largest
from .._imputer import ImputedBlockTransformer
from .._moments import BlockMoments, take_rows

# Variance, relative to the largest, below which a direction of a covariance matrix is rounding.
_SMALLEST_VARIANCE = 1e-12


class BlockProjection(ImputedBlockTransformer):
    """Base of the strategies with one projection per block, or one for all blocks together, as ``level`` says.

    A concrete one writes ``_fit_projection(X, y, name)``, which returns an object with ``transform`` and
    ``n_components_``.
    """

    def _fit_blocks(self, X, y):
        filled = self._fill(X)
        self.projections_ = {}
        for name, columns in self._projected_slices().items():
            present = ~missing_blocks(X, {name: columns})[:, 0]
            targets = None if y is None else y[present]
            self.projections_[name] = self._fit_projection(take_rows(filled[:, columns], present), targets, name)
        self._count_components()

    def _count_components(self):
        self.n_components_ = {name: int(projection.n_components_) for name, projection in self.projections_.items()}

    def _transform_blocks(self, X):
        filled = self._fill(X)
        slices = self._projected_slices()
        scores = [self.projections_[name].transform(filled[:, columns]) for name, columns in slices.items()]
        return np.hstack(scores).astype(X.dtype, copy=False)

    def _projected_slices(self):
        """Return the slices of columns that get a projection each."""
        return self.blocks_ if self.level == "modality" else {"": slice(0, self.n_features_in_)}

    def _names_out(self, input_features):
        return self._block_names(self.n_components_)


def _can_stream(estimator):
    """Return True if there is no imputer, which needs all rows at hand; else raise an AttributeError that says so."""
    if estimator.imputer is not None:
        raise AttributeError(
            f"PCAFusion: partial_fit cannot fill in missing blocks, got imputer={estimator.imputer!r}; pass "
            "imputer=None."
        )
    return True


class PCAFusion(BlockProjection):
    r"""Reduce the blocks to their principal components, each alone or all together.

    The projection of a centred matrix :math:`Z` (one block, or all blocks side by side) is :math:`Z W` with

    .. math:: W = \arg\max_{W^\top W = I} \operatorname{tr}(W^\top Z^\top Z W).

    Parameters
    ----------
    n_components : int, float or None, default=64
        Upper bound of the number of components per projection; it is clipped to the numerical rank
        of the block, but not below 1. A float in (0, 1): as many as explain this share of the variance.
        None: as many as possible. The default is that of :class:`AverageFusion`.

    level : {"modality", "joint"}, default="modality"
        One projection per block, or one of the concatenated blocks.

    scaling : {"norm", "std"} or None, default="norm"
        How the blocks are scaled before the projection, as in :class:`ConcatFusion`.

    whiten : bool, default=False
        Give every component unit variance.

    imputer : {"mean", "zero", "regression", "neighbors"}, ModalityImputer or None, default=None
        What fills in missing blocks before all else, as in :class:`ConcatFusion`. None: as the notes say.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block, as in :class:`ConcatFusion`.

    random_state : int, RandomState instance or None, default=None
        Used where :class:`~sklearn.decomposition.PCA` picks its randomised solver, that is for
        blocks with more than 1,000 rows and columns of which fewer than 80 % are kept.

    Attributes
    ----------
    projections_ : dict of str to PCA
        The fitted projections by block; for ``level="joint"`` one, named "".

    n_components_ : dict of str to int
        Number of components of each projection.

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
    LDAFusion : Supervised counterpart.
    CCAFusion : Keeps what the blocks have in common.

    Notes
    -----
    **Missing blocks.** With ``level="modality"`` a block's projection is learned from the rows that have the block.
    With ``level="joint"`` all rows count, and each missing cell is the mean of its column. A block that is missing at
    ``transform`` counts as the mean of its columns, so that its own scores are their mean.

    **Data larger than memory.** ``partial_fit`` takes X in batches, and computes the components from
    covariances; those whose standard deviation is below 1e-6 of the largest are rounding, and left out.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skmm.fusion import PCAFusion
    >>> X, y = load_iris(return_X_y=True)
    >>> fusion = PCAFusion(1, blocks={"sepal": slice(0, 2), "petal": slice(2, 4)})
    >>> fusion.fit_transform(X).shape
    (150, 2)
    >>> fusion.get_feature_names_out().tolist()
    ['sepal__pcafusion0', 'petal__pcafusion0']
    """

    _parameter_constraints: dict = {
        **BlockProjection._parameter_constraints,
        "n_components": [*N_COMPONENTS, Interval(Real, 0, 1, closed="neither"), None],
        "level": LEVEL,
        "scaling": SCALING,
        "whiten": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int | float | None = 64,
        *,
        level: str = "modality",
        scaling: str | None = "norm",
        whiten: bool = False,
        imputer: object = None,
        blocks: Blocks = None,
        random_state: RandomState = None,
    ):
        self.n_components = n_components
        self.level = level
        self.scaling = scaling
        self.whiten = whiten
        self.imputer = imputer
        self.blocks = blocks
        self.random_state = random_state

    def _fit_scale(self, X):
        super()._fit_scale(X)
        if self._scales is None:
            # The solver for many rows loses digits far from zero, so that columns are centred in any case.
            self._scales = np.ones(X.shape[1])

    def _fit_blocks(self, X, y):
        self.__dict__.pop("_moments", None)
        super()._fit_blocks(X, y)

    def _fit_projection(self, X, y, name):
        n_components = self.n_components
        if isinstance(n_components, Integral):
            n_components = min(n_components, *X.shape)
        varies = bool((np.abs(X - X[:1]) > np.finfo(X.dtype).eps * np.abs(X[:1])).any())
        if not varies:
            # Shares of no variance are undefined; a single component that is always zero is defined.
            n_components = 1
        # The next steps need arrays, whatever the global configuration says.
        pca = PCA(n_components, random_state=self.random_state).set_output(transform="default")
        with np.errstate(invalid="warn" if varies else "ignore"):
            pca.fit(X)
        rank = max(1, _numerical_rank(pca.explained_variance_, X))
        if rank < pca.n_components_:
            # Components beyond the rank are rounding, which whitening would blow up.
            pca.set_params(n_components=rank).fit(X)
        pca.components_ = pca.components_ * signs_by_largest(pca.components_.T)[:, None].astype(X.dtype)
        # The components do not depend on it.
        return pca.set_params(whiten=self.whiten and varies)

    @available_if(_can_stream)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Matrix, y: ArrayLike | None = None) -> Self:
        """Learn from more rows.

        Covariances of the columns are stored, from which the components are computed again, so that the result is the
        one of ``fit`` on all rows so far; but what ``fit`` fills with means (single missing cells and, with
        ``level="joint"``, missing blocks) is filled with those of the first batch. The first call after ``fit`` starts
        from the beginning. Only available with ``imputer=None``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side, with NaN in missing cells.

        y : None
            Ignored.

        Returns
        -------
        self : PCAFusion
            The strategy fitted to all rows so far.
        """
        first = not hasattr(self, "_moments")
        X = self._validate(X, reset=first)
        if first:
            self.imputer_ = None
            self._resolve_blocks(X)
            shift = column_means(X)
            self._moments = {
                name: BlockMoments(shift[columns], {name: slice(0, columns.stop - columns.start)}, min_present=1)
                for name, columns in self._projected_slices().items()
            }
        slices = self._projected_slices()
        for name, columns in slices.items():
            self._moments[name].add(X[:, columns])
        self._means, variances = np.zeros(X.shape[1]), np.zeros(X.shape[1])
        covariances, n_rows = {}, {}
        for name, columns in slices.items():
            moments = self._moments[name]
            n_rows[name] = moments.n_rows()[name]
            if n_rows[name] == 0:
                self._raise_without_values(name)
            self._means[columns] = moments.means()
            covariances[name] = moments.covariance()
            variances[columns] = np.diag(covariances[name]) * (n_rows[name] - 1) / n_rows[name]
        self._empty, self._scales = np.zeros(X.shape[1], dtype=bool), np.ones(X.shape[1])
        if self.scaling is not None:
            self._set_scales(variances, max(n_rows.values()))
        self.projections_ = {}
        for name, columns in slices.items():
            S = covariances[name] / np.outer(self._scales[columns], self._scales[columns])
            pca = _pca_of_covariance(S, n_rows[name], self.n_components, X.dtype)
            self.projections_[name] = pca.set_params(whiten=self.whiten and bool(S.any()))
        self._count_components()
        return self


def principal_axes(X, n_components, random_state):
    """Return the mean of the rows of a block without NaN, and up to so many principal axes, as orthonormal columns.

    Their number is clipped to the numerical rank, but not below 1.
    """
    fusion = PCAFusion(n_components, scaling=None, random_state=random_state).fit(X)
    return fusion._means, fusion.projections_[""].components_.T


def _numerical_rank(variances, X):
    """Return the number of directions whose variance is more than rounding of the entries of X makes."""
    n_samples, n_features = X.shape
    noise = np.finfo(X.dtype).eps * np.abs(X).max() * (np.sqrt(n_samples) + np.sqrt(n_features))
    return int(np.count_nonzero(np.sqrt(variances * max(n_samples - 1, 1)) > 4 * noise))


def _pca_of_covariance(S, n_rows, n_components, dtype):
    """Return the :class:`~sklearn.decomposition.PCA`, as if fitted, of columns with mean 0 and this covariance.

    It has at least one component, and no more than the covariance has directions that vary.
    """
    values, vectors = linalg.eigh(S)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    total = values.sum()
    shares = values / total if total > 0 else np.zeros_like(values)
    k = max(1, np.count_nonzero(values > _SMALLEST_VARIANCE * values[0]))
    if isinstance(n_components, Integral):
        k = min(n_components, k)
    elif n_components is not None:
        k = min(int(np.searchsorted(np.cumsum(shares), n_components, side="right")) + 1, k)
    axes = vectors[:, :k] * signs_by_largest(vectors[:, :k])

    pca = PCA(k).set_output(transform="default")
    pca.n_features_in_ = len(S)
    pca.n_samples_ = n_rows
    pca.n_components_ = k
    pca.components_ = np.ascontiguousarray(axes.T, dtype=dtype)
    pca.mean_ = np.zeros(len(S), dtype=dtype)
    pca.explained_variance_ = values[:k].astype(dtype)
    pca.explained_variance_ratio_ = shares[:k].astype(dtype)
    pca.singular_values_ = np.sqrt(values[:k] * (n_rows - 1)).astype(dtype)
    pca.noise_variance_ = float(values[k:].mean()) if k < len(values) else 0.0
    return pca
