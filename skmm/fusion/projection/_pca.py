"""Feature-level fusion by principal components."""

from numbers import Integral, Real

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from ..._array_api import float_dtypes, like, namespace, to_numpy
from ..._missing import column_means
from ..._sklearn import Interval, fit_context
from .._base import LEVEL, N_COMPONENTS, SCALING, signs_by_largest
from ..joint import BlockMoments
from ._base import BlockProjection
from ._streamed_pca import pca_from_covariance


def _fills_nothing_in(estimator):
    """Tell whether there is no imputer, which would need all rows at hand."""
    if estimator.imputer is not None:
        raise AttributeError(
            f"PCAFusion: partial_fit fills no blocks in, got imputer={estimator.imputer!r}; pass imputer=None."
        )
    return True


class PCAFusion(BlockProjection):
    r"""Reduce the blocks to their principal components, each alone or all together.

    The projection of a centred matrix :math:`Z` (one block, or all blocks side by side) is
    :math:`Z W` with

    .. math:: W = \arg\max_{W^\top W = I} \operatorname{tr}(W^\top Z^\top Z W).

    Parameters
    ----------
    n_components : int, float or None, default=64
        Upper bound of the number of components per projection; it is clipped to the numerical rank
        of the block, but not below 1. A float in (0, 1): as many as explain this share of the variance.
        None: as many as possible.

    level : {"modality", "joint"}, default="modality"
        One projection per block, or one of the concatenated blocks.

    scaling : {"norm", "std"} or None, default="norm"
        How the blocks are scaled before the projection, as in :class:`ConcatFusion`.

    whiten : bool, default=False
        Give every component unit variance.

    imputer : {"mean", "zero", "regression", "neighbors"}, ModalityImputer or None, default=None
        How missing blocks are filled in before all else: a strategy of :class:`ModalityImputer`, or one with
        parameters of its own, whose indicators, if any, are appended to what comes out. None: as the notes say.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block, as in :class:`ConcatFusion`. Inside :class:`ModalityFuser` it is set
        by the fuser.

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
    **Missing blocks.** With ``level="modality"`` a block's projection is learned from the rows that
    have the block. With ``level="joint"`` all rows count, and each missing cell is the mean of its
    column. A block that is missing at ``transform`` counts as the mean of its columns, so that its
    own scores are their mean. A block that is missing in every row at ``fit`` raises an error.

    **Data larger than memory.** ``partial_fit`` takes X in batches, and computes the components from
    covariances; those whose standard deviation is below 1e-6 of the largest are rounding, and left out.

    **Other arrays** (torch, CuPy) come in by scikit-learn's array API dispatch, and stay on their device.

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
        n_components=64,
        *,
        level="modality",
        scaling="norm",
        whiten=False,
        imputer=None,
        blocks=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.level = level
        self.scaling = scaling
        self.whiten = whiten
        self.imputer = imputer
        self.blocks = blocks
        self.random_state = random_state

    @available_if(_fills_nothing_in)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Go on learning with more rows.

        Kept are the covariances of the columns, of which the components are computed anew, so that the result is the
        one of ``fit`` on all rows so far; but what ``fit`` fills with means (single missing cells and, with
        ``level="joint"``, missing blocks) is filled with those of the first batch. The first call after ``fit`` begins
        anew. Only available with ``imputer=None``.

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
        X = validate_data(self, X, dtype=float_dtypes(X), ensure_all_finite="allow-nan", reset=first)
        if first:
            self.imputer_ = None
            self._resolve_blocks(X)
            shift = column_means(X)
            self._moments = {
                name: BlockMoments(shift[columns], {name: slice(0, columns.stop - columns.start)}, together=1)
                for name, columns in self._parts().items()
            }
        self._means, variances = np.zeros(X.shape[1]), np.zeros(X.shape[1])
        covariances = {}
        for name, columns in self._parts().items():
            moments = self._moments[name]
            moments.add(X[:, columns])
            n_rows = int(moments.counts[0, 0])
            self._check_seen(name, n_rows > 0)
            self._means[columns] = moments.means()
            covariances[name] = moments.covariance()
            variances[columns] = np.diag(covariances[name]) * (n_rows - 1) / n_rows
        self._empty, self._scales = np.zeros(X.shape[1], dtype=bool), np.ones(X.shape[1])
        if self.scaling is not None:
            self._set_scales(variances, n_rows)
        self.projections_ = {}
        for name, columns in self._parts().items():
            S = covariances[name] / self._scales[columns] / self._scales[columns, None]
            n_rows = int(self._moments[name].counts[0, 0])
            pca = pca_from_covariance(S, n_rows, self.n_components, X)
            self.projections_[name] = pca.set_params(whiten=self.whiten and bool(S.any()))
        self.n_components_ = {name: pca.n_components_ for name, pca in self.projections_.items()}
        return self

    def _fit_scale(self, X):
        super()._fit_scale(X)
        if self._scales is None:
            # Far from zero, the solver of many rows loses what varies; it gets centred columns in any case.
            self._scales = np.ones(X.shape[1])

    def _fit_blocks(self, X, y):
        self.__dict__.pop("_moments", None)
        super()._fit_blocks(X, y)

    def _fit_projection(self, X, y, name):
        n_components = self.n_components
        if isinstance(n_components, Integral):
            n_components = min(n_components, *X.shape)
        xp = namespace(X)
        varies = bool(xp.any(xp.abs(X - X[:1, :]) > xp.finfo(X.dtype).eps * xp.abs(X[:1, :])))
        if not varies:
            # Shares of no variance are undefined; one component that is always zero is not.
            n_components = 1
        # Whatever the global configuration says, what is computed on here are arrays.
        pca = PCA(n_components, random_state=self.random_state).set_output(transform="default")
        with np.errstate(invalid="warn" if varies else "ignore"):
            pca.fit(X)
        rank = max(1, _numerical_rank(to_numpy(pca.explained_variance_), X))
        if rank < pca.n_components_:
            # What is beyond the rank is rounding noise, which whitening would blow up.
            pca.set_params(n_components=rank).fit(X)
        signs = signs_by_largest(to_numpy(pca.components_).T)
        pca.components_ = pca.components_ * like(signs[:, None], pca.components_)
        # The components do not depend on it.
        return pca.set_params(whiten=self.whiten and varies)

    @staticmethod
    def _width(projection):
        return projection.n_components_


def _numerical_rank(variances, X):
    """Number of directions whose variance is more than what rounding of the entries of X makes."""
    n_samples, n_features = X.shape
    xp = namespace(X)
    noise = xp.finfo(X.dtype).eps * float(xp.max(xp.abs(X))) * (np.sqrt(n_samples) + np.sqrt(n_features))
    return int(np.count_nonzero(np.sqrt(variances * max(n_samples - 1, 1)) > 4 * noise))
