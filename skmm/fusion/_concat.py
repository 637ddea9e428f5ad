"""Feature-level fusion by concatenation."""

from ._base import SCALING, BlockTransformer


class ConcatFusion(BlockTransformer):
    r"""Put the blocks side by side, scaled so that none drowns the others.

    With :math:`m` blocks and :math:`p` columns in all, column :math:`j` of block :math:`b` becomes

    .. math:: z_{ij} = \frac{x_{ij} - \bar x_j}{s_j} \sqrt{\frac{p}{m\,v_b}}

    where for ``scaling="std"`` :math:`s_j` is the column's standard deviation and :math:`v_b` the
    number of columns of the block that vary, and for ``scaling="norm"`` :math:`s_j = 1` and
    :math:`v_b` is the sum of the variances of the block's columns. In both cases each block has the
    same total variance, :math:`p / m`, whatever its width and units.

    Parameters
    ----------
    scaling : {"norm", "std"} or None, default="norm"
        - ``"norm"``: one factor per block, which keeps the columns' relative variances. Embeddings
          carry meaning in these; columns of a table in different units want a StandardScaler first.
        - ``"std"``: every column to unit variance, then one factor per block.
        - ``None``: the blocks as they come.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block. ``"prefix"`` reads them from the part of the column names before the
        first ``__``; None means one block. Inside :class:`ModalityFuser` it is set by the fuser.

    Attributes
    ----------
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
    **Missing blocks.** Means and variances come from the cells that are there. A missing cell, and
    so each cell of a missing block, becomes the mean of its column, at ``fit`` and at ``transform``.
    A column without any value at ``fit`` becomes zeros.

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

    _parameter_constraints: dict = {**BlockTransformer._parameter_constraints, "scaling": SCALING}

    def __init__(self, *, scaling="norm", blocks=None):
        self.scaling = scaling
        self.blocks = blocks

    def _fit_blocks(self, X, y):
        pass

    def _transform_blocks(self, X):
        return self._fill(X)

    def _names_out(self, input_features):
        return input_features
