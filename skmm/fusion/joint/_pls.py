"""Joint embedding by partial least squares, in closed form."""

from ..._sklearn import StrOptions
from ..._typing import Blocks
from ._base import JointEmbedding
from ._cca import CCAFusion


class PLSFusion(CCAFusion):
    r"""Map all blocks into one space in which they vary together: partial least squares.

    For two blocks with cross-covariance :math:`\Sigma_{12}` the pairs of weights are its leading singular vectors,

    .. math:: \max_{w_1, w_2} w_1^\top \Sigma_{12} w_2 \quad\text{subject to}\quad
              w_b^\top w_b = 1,

    each orthogonal to those before it. For more blocks they are the leading eigenvectors of the matrix of all
    cross-covariances, each block at the same mean variance,

    .. math:: \max_w \sum_{a \neq b} w_a^\top \Sigma_{ab} w_b \quad\text{subject to}\quad
              \sum_b w_b^\top w_b = 1.

    It is :class:`CCAFusion` with ``objective="sumcor"`` and a ridge of 1: blocks of more columns than rows need no
    ridge to choose, at the price of directions that vary much and agree little. The variates, the projections
    :math:`Z_b w_b`, are scaled to unit variance.

    Parameters
    ----------
    n_components : int, default=32
        Upper bound of the number of components, as in :class:`CCAFusion`; it is clipped to the smallest rank of a
        block.

    scaling : {"std"} or None, default="std"
        Whether columns are brought to unit variance before. Factors of whole blocks have no influence.

    output : {"concat", "mean", "sum"}, default="concat"
        The variates of all blocks side by side, or their mean or sum over the blocks.

    blocks : dict of str to slice or "prefix", default=None
        Columns of each block, as in :class:`ConcatFusion`, at least two.

    Attributes
    ----------
    weights_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Weights of the centred columns of each block, in the units of X.

    loadings_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Correlation of each column with the variates of its block.

    correlations_ : ndarray of shape (n_components_,)
        Correlation of the variates of each component in the rows of ``fit``, averaged over the pairs of blocks.

    regularization_ : dict of str to float
        The ridge of each block: 1.

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
    CCAFusion : Maximises correlation, with a ridge in between.
    sklearn.cross_decomposition.PLSSVD : The same for two blocks, with variates of their own variance.

    Notes
    -----
    **Missing blocks**, precision and ``partial_fit`` are as with :class:`CCAFusion`: each covariance comes from the
    rows that have both blocks, and the variates of a missing block are their conditional expectation given those of
    the others.

    References
    ----------
    .. [1] J. A. Wegelin, "A survey of partial least squares (PLS) methods, with emphasis on the two-block case",
       Technical Report 371, University of Washington (2000).

    Examples
    --------
    >>> from sklearn.datasets import load_linnerud
    >>> import numpy as np
    >>> from skmm.fusion import PLSFusion
    >>> exercise, body = load_linnerud(return_X_y=True)
    >>> fusion = PLSFusion(2, blocks={"exercise": slice(0, 3), "body": slice(3, 6)})
    >>> fusion.fit_transform(np.hstack([exercise, body])).shape
    (20, 4)
    >>> fusion.correlations_.round(3)
    array([0.554, 0.177])
    """

    _parameter_constraints: dict = {**JointEmbedding._parameter_constraints, "scaling": [StrOptions({"std"}), None]}

    # The ridged covariance of CCA's constraint is then a multiple of the identity: w' w = 1.
    objective = "sumcor"
    regularization = 1.0

    def __init__(
        self,
        n_components: int = 32,
        *,
        scaling: str | None = "std",
        output: str = "concat",
        blocks: Blocks = None,
    ):
        self.n_components = n_components
        self.scaling = scaling
        self.output = output
        self.blocks = blocks
