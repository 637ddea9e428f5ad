"""Feature-level fusion by linear projections: principal components and discriminants."""

from numbers import Integral, Real

import numpy as np
from scipy import linalg
from sklearn.decomposition import PCA
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from .._array_api import float_dtypes, namespace, take_rows, to_numpy
from .._missing import column_means, missing_blocks
from .._validation import Interval, StrOptions, fit_context
from ._base import LEVEL, N_COMPONENTS, SCALING
from ._discriminants import fit_discriminants
from ._imputed import ImputedBlockTransformer
from ._moments import BlockMoments
from ._streamed_pca import pca_from_covariance


class _ProjectionFusion(ImputedBlockTransformer):
    """One projection per block, or one for all blocks together, as ``level`` says."""

    def _fit_blocks(self, X, y):
        filled = self._fill(X)
        self.projections_ = {}
        for name, columns in self._parts().items():
            present = ~missing_blocks(X, {name: columns})[:, 0]
            self.projections_[name] = self._fit_projection(
                take_rows(filled[:, columns], present), None if y is None else take_rows(y, present), name
            )
        self.n_components_ = {name: self._width(projection) for name, projection in self.projections_.items()}

    def _transform_blocks(self, X):
        xp = namespace(X)
        filled = self._fill(X)
        parts = []
        for name, columns in self._parts().items():
            parts.append(xp.astype(self.projections_[name].transform(filled[:, columns]), X.dtype, copy=False))
        return xp.concat(parts, axis=1)

    def _parts(self):
        """The slices that get a projection each."""
        return self.blocks_ if self.level == "modality" else {"": slice(0, self.n_features_in_)}

    def _names_out(self, input_features):
        return self._block_names(self.n_components_)


def _fills_nothing_in(estimator):
    """Tell whether there is no imputer, which would need all rows at hand."""
    if estimator.imputer is not None:
        raise AttributeError(
            f"PCAFusion: partial_fit fills no blocks in, got imputer={estimator.imputer!r}; pass imputer=None."
        )
    return True


class PCAFusion(_ProjectionFusion):
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
        **ImputedBlockTransformer._parameter_constraints,
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
        self._empty, self._scales = np.zeros(X.shape[1], dtype=bool), None
        if self.scaling is not None:
            self._set_scales(variances, n_rows)
        self.projections_ = {}
        for name, columns in self._parts().items():
            mean, S = self._means[columns], covariances[name]
            if self._scales is not None:
                mean = np.zeros(len(S))
                S = S / self._scales[columns] / self._scales[columns, None]
            n_rows = int(self._moments[name].counts[0, 0])
            pca = pca_from_covariance(S, mean, n_rows, self.n_components, X)
            self.projections_[name] = pca.set_params(whiten=self.whiten and bool(S.any()))
        self.n_components_ = {name: pca.n_components_ for name, pca in self.projections_.items()}
        return self

    def _fit_blocks(self, X, y):
        self.__dict__.pop("_moments", None)
        super()._fit_blocks(X, y)

    def _fit_projection(self, X, y, name):
        n_components = self.n_components
        if isinstance(n_components, Integral):
            n_components = min(n_components, *X.shape)
        xp = namespace(X)
        varies = bool(xp.any(xp.abs(X - X[:1, :]) > 1e-7 * xp.abs(X[:1, :])))
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


class LDAFusion(_ProjectionFusion):
    r"""Reduce the blocks to the directions that separate the classes.

    With the scatter between classes :math:`S_b` and within classes :math:`S_w` of a block, or of
    all blocks side by side, the projection is

    .. math:: W = \arg\max_{W^\top S_w W = I} \operatorname{tr}(W^\top S_b W).

    Parameters
    ----------
    n_components : int or None, default=None
        Upper bound of the number of components per projection; it is clipped to the number of
        classes less one and to the columns of the block. None: as many as possible.

    level : {"modality", "joint"}, default="modality"
        One projection per block, or one of the concatenated blocks.

    shrinkage : "auto", float in [0, 1] or None, default="auto"
        Shrinkage of :math:`S_w`, without which a projection of many columns fits noise. "auto" is
        the Ledoit-Wolf estimate, None is none (the singular value decomposition then handles
        collinear columns).

    scaling : {"norm", "std"} or None, default="std"
        How the columns are scaled before the projection, as in :class:`ConcatFusion`. Shrinkage by a
        number depends on it, the rest does not.

    imputer : {"mean", "zero", "regression", "neighbors"}, ModalityImputer or None, default=None
        How missing blocks are filled in before all else: a strategy of :class:`ModalityImputer`, or one with
        parameters of its own, whose indicators, if any, are appended to what comes out. None: as the notes say.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block, as in :class:`ConcatFusion`. Inside :class:`ModalityFuser` it is set
        by the fuser.

    Attributes
    ----------
    projections_ : dict of str to LinearDiscriminantAnalysis
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
    PCAFusion : Unsupervised counterpart.

    Notes
    -----
    The labels are learned by heart where rows are few and columns many; score with cross-validation,
    as a pipeline does, never on the rows that the projection was learned from. Where the scatter within
    classes is singular (a column that is constant within each class, say), a ten-thousandth of the mean
    variance of the columns is added to its diagonal.

    With shrinkage the scatter matrices of a block with no more columns than rows are formed, and the time of a fit
    grows with the cube of the columns: seconds for 2,000 of them. Of wider blocks they are not, with the same result,
    and the time grows with the columns and the square of the rows: seconds for 20,000 columns and 200 rows. Their
    projections have no ``covariance_``.

    **Missing blocks.** With ``level="modality"`` a block's projection is learned from the rows that
    have the block. With ``level="joint"`` all rows count, and each missing cell is the mean of its
    column. A block that is missing at ``transform`` counts as the mean of its columns, so that its
    own scores are their mean. A block that is missing at ``fit`` in every row, or in all rows but
    those of one class, raises an error.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skmm.fusion import LDAFusion
    >>> X, y = load_iris(return_X_y=True)
    >>> fusion = LDAFusion(blocks={"sepal": slice(0, 2), "petal": slice(2, 4)})
    >>> fusion.fit_transform(X, y).shape
    (150, 4)
    >>> fusion.n_components_
    {'sepal': 2, 'petal': 2}
    """

    _parameter_constraints: dict = {
        **ImputedBlockTransformer._parameter_constraints,
        "n_components": [*N_COMPONENTS, None],
        "level": LEVEL,
        "shrinkage": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both"), None],
        "scaling": SCALING,
    }

    def __init__(
        self, n_components=None, *, level="modality", shrinkage="auto", scaling="std", imputer=None, blocks=None
    ):
        self.n_components = n_components
        self.level = level
        self.shrinkage = shrinkage
        self.scaling = scaling
        self.imputer = imputer
        self.blocks = blocks

    def _validate_fit(self, X, y):
        X, y = validate_data(self, X, y, dtype=float_dtypes(X), ensure_all_finite="allow-nan")
        if self.shrinkage is not None and not isinstance(X, np.ndarray):
            raise ValueError(
                f"LDAFusion takes {type(X).__module__} arrays only without shrinkage, as scikit-learn's LDA does, "
                f"got shrinkage={self.shrinkage!r}; pass shrinkage=None, or NumPy arrays."
            )
        check_classification_targets(y)
        return X, y

    def _fit_projection(self, X, y, name):
        y = to_numpy(y)
        n_classes = len(np.unique(y))
        where = f" in the rows that have block {name!r}" if name else ""
        if n_classes < 2:
            raise ValueError(f"LDAFusion needs at least 2 classes{where}, got 1 class: {y[0]}.")
        if X.shape[0] <= n_classes:
            raise ValueError(
                f"LDAFusion needs more rows than classes{where}, got {X.shape[0]} rows of {n_classes} classes; "
                "is y a continuous target?"
            )
        bound = min(n_classes - 1, X.shape[1])
        n_components = bound if self.n_components is None else min(self.n_components, bound)
        try:
            return fit_discriminants(X, y, self.shrinkage, n_components)
        except linalg.LinAlgError:
            raise ValueError(
                f"LDAFusion: no class varies{where}; that needs NumPy arrays, got {type(X).__module__} arrays."
            ) from None

    @staticmethod
    def _width(projection):
        return projection._max_components

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
