"""Feature-level fusion by linear discriminants."""

from numbers import Integral, Real

import numpy as np
from scipy import linalg
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from ..._array_api import float_dtypes, to_numpy
from ..._sklearn import Interval, StrOptions
from .._base import LEVEL, N_COMPONENTS, SCALING
from ._base import BlockProjection
from ._discriminants import fit_discriminants, keep_share


class LDAFusion(BlockProjection):
    r"""Reduce the blocks to the directions that separate the classes.

    With the scatter between classes :math:`S_b` and within classes :math:`S_w` of a block, or of
    all blocks side by side, the projection is

    .. math:: W = \arg\max_{W^\top S_w W = I} \operatorname{tr}(W^\top S_b W).

    Parameters
    ----------
    n_components : int, float or None, default=None
        Upper bound of the number of components per projection; it is clipped to the number of
        classes less one and to the columns of the block. A float in (0, 1): as many as explain this share of the
        variance between classes that as many as possible do. None: as many as possible.

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

    **Other arrays** (torch, CuPy) come in by scikit-learn's array API dispatch, and stay on their device;
    without shrinkage only, as by scikit-learn's LDA.

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
        **BlockProjection._parameter_constraints,
        "n_components": [*N_COMPONENTS, Interval(Real, 0, 1, closed="neither"), None],
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
        n_components = min(self.n_components, bound) if isinstance(self.n_components, Integral) else bound
        try:
            lda = fit_discriminants(X, y, self.shrinkage, n_components)
        except linalg.LinAlgError:
            raise ValueError(
                f"LDAFusion: no class varies{where}; that needs NumPy arrays, got {type(X).__module__} arrays."
            ) from None
        share = self.n_components
        return lda if share is None or isinstance(share, Integral) else keep_share(lda, share)

    @staticmethod
    def _width(projection):
        return projection._max_components

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
