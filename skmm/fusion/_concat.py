"""Feature-level fusion by concatenation."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA

from .._typing import Blocks
from ._base import SCALING
from ._imputer import ImputedBlockTransformer
from ._weights import WEIGHTS, fixed_weights, learn_weights, probe_rows, probe_target

# Principal components of a block that stand for it while weights are learned.
_PROBE_COMPONENTS = 48


class ConcatFusion(ImputedBlockTransformer):
    r"""Put the blocks side by side, scaled so that none drowns the others.

    With :math:`m` blocks and :math:`p` columns in all, column :math:`j` of block :math:`b` becomes

    .. math:: z_{ij} = w_b \frac{x_{ij} - \bar x_j}{s_j} \sqrt{\frac{p}{m\,v_b}}

    where for ``scaling="std"`` :math:`s_j` is the column's standard deviation and :math:`v_b` the
    number of columns of the block that vary, and for ``scaling="norm"`` :math:`s_j = 1` and
    :math:`v_b` is the sum of the variances of the block's columns. In both cases each block has the
    same total variance, :math:`p / m`, whatever its width and units, before its weight :math:`w_b`.

    Parameters
    ----------
    scaling : {"norm", "std"} or None, default="norm"
        - ``"norm"``: one factor per block, which keeps the columns' relative variances. Embeddings
          carry meaning in these; columns of a table in different units want a StandardScaler first.
        - ``"std"``: every column to unit variance, then one factor per block.
        - ``None``: the blocks as they come.

    weights : dict of str to float, array-like of shape (n_blocks,), "cv" or None, default=None
        Factor of each block after scaling; None means 1. ``"cv"`` learns them from ``y``: the ridge regression on the
        weighted blocks (of an indicator per class, or of the numbers) that has the smallest error over 5 folds. That is
        ridge regression with a penalty per block; the weights are searched one after the other on at most 2,000 rows
        and 48 principal components per block, and their squares have mean 1. What follows has to heed scale, as a
        penalised linear model, nearest neighbours or a kernel does; a StandardScaler would undo all weights.

    imputer : {"mean", "zero", "regression", "neighbors"}, ModalityImputer or None, default=None
        How missing blocks are filled in before all else: a strategy of :class:`ModalityImputer`, or one with
        parameters of its own, whose indicators, if any, are appended to what comes out. None: as the notes say.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block. ``"prefix"`` reads them from the part of the column names before the
        first ``__``; None means one block. Inside :class:`ModalityFuser` it is set by the fuser.

    Attributes
    ----------
    weights_ : dict of str to float
        Factor of each block.

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
    PCAFusion : Reduces the blocks by principal components.
    ModalityFuser : Applies transformers to modalities and fuses what they give.

    Notes
    -----
    **Missing blocks.** Means and variances come from the cells that are present. A missing cell, and so each cell of a
    missing block, becomes the mean of its column, at ``fit`` and at ``transform``. A column without any value at
    ``fit`` becomes zeros. With this strategy and all others, a single missing cell in a block that is present counts as
    the mean of its column, and a block that is missing in every row at ``fit`` raises an error.

    References
    ----------
    .. [1] A. O. Nunez-Elizalde, A. G. Huth and J. L. Gallant, "Voxelwise encoding models with non-spherical
       multivariate normal priors", NeuroImage 197 (2019).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.fusion import ConcatFusion
    >>> X = np.array([[0.0, 2.0, 100.0], [2.0, 4.0, 300.0], [1.0, 3.0, np.nan]])
    >>> fusion = ConcatFusion(scaling="norm", blocks={"text": slice(0, 2), "price": slice(2, None)})
    >>> fusion.fit_transform(X).round(2)
    array([[-1.06, -1.06, -1.22],
           [ 1.06,  1.06,  1.22],
           [ 0.  ,  0.  ,  0.  ]])
    """

    _parameter_constraints: dict = {
        **ImputedBlockTransformer._parameter_constraints,
        "scaling": SCALING,
        "weights": WEIGHTS,
    }
    _learns_out_of_fold = True
    _weights_from_y = ("cv",)

    def __init__(
        self,
        *,
        scaling: str | None = "norm",
        weights: dict[str, float] | ArrayLike | str | None = None,
        imputer: object = None,
        blocks: Blocks = None,
    ):
        self.scaling = scaling
        self.weights = weights
        self.imputer = imputer
        self.blocks = blocks

    def _fit_blocks(self, X, y, groups=None):
        if self.weights is None:
            self.weights_ = dict.fromkeys(self.blocks_, 1.0)
            return
        weights = self._learned_weights(X, y, groups) if self._needs_y() else fixed_weights(self)
        self.weights_ = dict(zip(self.blocks_, weights.tolist(), strict=True))

    def _learned_weights(self, X, y, groups):
        rows, folds = probe_rows(y, groups)
        filled = self._fill(X[rows]).astype(np.float64)
        blocks = []
        for columns in self.blocks_.values():
            block = filled[:, columns] - filled[:, columns].mean(axis=0)
            if block.shape[1] > _PROBE_COMPONENTS:
                n_components = min(_PROBE_COMPONENTS, len(block))
                pca = PCA(n_components, svd_solver="randomized", random_state=0).set_output(transform="default")
                block = pca.fit_transform(block)
            blocks.append(block)

        def combine(weights):
            return np.hstack([weight * block for weight, block in zip(weights, blocks, strict=True)])

        return learn_weights(combine, blocks, probe_target(y[rows]), folds)

    def _transform_blocks(self, X):
        X = self._fill(X)
        if set(self.weights_.values()) == {1}:
            return X
        factors = np.empty(X.shape[1], dtype=X.dtype)
        for name, columns in self.blocks_.items():
            factors[columns] = self.weights_[name]
        return X * factors

    def _names_out(self, input_features):
        return input_features
