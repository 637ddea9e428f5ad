"""Joint embedding by canonical correlation analysis in the feature spaces of kernels."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state, gen_batches

from ..._columns import CHUNK_OF_ROWS
from ..._sklearn import Interval
from ..._typing import Blocks, RandomState
from .._kernel import KERNEL_CONSTRAINTS, inverse_root, leading_eigenpairs, make_kernels
from .._moments import consecutive_slices
from ._base import JointEmbedding
from ._cca import CCAFusion

# Errors and warnings of CCAFusion on the features of kernels name the estimator that the user knows.
_CCAOfFeatures = type("KernelCCAFusion", (CCAFusion,), {})


class KernelCCAFusion(JointEmbedding):
    r"""Map all blocks into one space in which they agree, by functions that need not be linear.

    For two blocks with centred kernel matrices :math:`K_1, K_2`, the pairs of functions
    :math:`f_b(x) = \sum_i \alpha_{bi}\, \tilde k_b(x_i, x)` are, one after the other,

    .. math:: \max_{\alpha_1, \alpha_2} \alpha_1^\top K_1 K_2 \alpha_2 \quad\text{subject to}\quad
              \frac{1 - r_b}{n}\,\alpha_b^\top K_b^2 \alpha_b
              + r_b \frac{\operatorname{tr} K_b}{n\,d_b}\,\alpha_b^\top K_b \alpha_b = 1,

    where :math:`d_b` is the rank of :math:`K_b`. That is :class:`CCAFusion` on the kernel principal components
    of each block, which is how it is computed, for any number of blocks. With linear kernels it is CCAFusion.

    Parameters
    ----------
    n_components : int, default=32
        Upper bound of the number of components, with the limits of :class:`CCAFusion`.

    kernel : {"rbf", "linear", "poly", "precomputed"} or dict of str to these, default="rbf"
        Kernel of all blocks, or by block. A precomputed one, which needs ``scaling=None``, has as columns
        its values for the rows of ``fit``.

    gamma : "scale" or float, default="scale"
        Coefficient of "rbf" and "poly", as in :class:`KernelFusion`.

    degree : float, default=3
        Degree of "poly".

    coef0 : float, default=1
        Constant of "poly".

    objective : {"maxvar", "sumcor"}, default="maxvar"
        What is maximised over more than two blocks, as in :class:`CCAFusion`.

    regularization : float in [0, 1], "auto", "cv" or dict of str to these but "cv", default=0.3
        Ridge :math:`r_b`, as in :class:`CCAFusion`. As kernels of full rank make any blocks agree perfectly,
        it must not be 0 for these.

    n_landmarks : int, default=300
        Most rows of ``fit`` that functions are made from, per block; where there are more, a random sample
        stands for them (the Nystroem method). All rows are used in any case to find which functions agree.

    scaling : {"std"} or None, default="std"
        Whether columns are brought to unit variance before.

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
        **{name: CCAFusion._parameter_constraints[name] for name in ("objective", "regularization", "scaling")},
        **KERNEL_CONSTRAINTS,
        "n_landmarks": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    }
    _learns_out_of_fold = True

    def __init__(
        self,
        n_components: int = 32,
        *,
        kernel: str | dict[str, str] = "rbf",
        gamma: float | str = "scale",
        degree: float = 3,
        coef0: float = 1,
        objective: str = "maxvar",
        regularization: float | str | dict[str, float | str] = 0.3,
        n_landmarks: int = 300,
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

    def _fit_blocks(self, X, y, groups=None):
        kernels = make_kernels(self, len(X))
        random_state = check_random_state(self.random_state)
        present = ~self._missing(X)
        filled = self._fill(X)
        self._maps, features = {}, {}
        for (name, columns), rows in zip(self.blocks_.items(), present.T, strict=True):
            landmarks = np.flatnonzero(rows)
            if len(landmarks) > self.n_landmarks:
                landmarks = np.sort(random_state.choice(landmarks, self.n_landmarks, replace=False))
            kernel = kernels[name].fit(filled[:, columns], landmarks)
            values, vectors = leading_eigenpairs(kernel.centered, len(landmarks))
            self._maps[name] = (kernel, vectors * inverse_root(values))
            features[name] = np.full((len(X), len(values)), np.nan)
            features[name][rows] = self._features(filled[rows, columns], name)
        self._cca = _CCAOfFeatures(
            self.n_components,
            objective=self.objective,
            regularization=self.regularization,
            scaling=None,
            target=self.target,
            blocks=consecutive_slices({name: block.shape[1] for name, block in features.items()}),
        ).fit(np.hstack(list(features.values())), y, groups=groups)
        # Formats that store names of classes, such as skops, find CCAFusion again.
        self._cca.__class__ = CCAFusion
        self.regularization_ = self._cca.regularization_
        self.n_components_, self.n_pairs_ = self._cca.n_components_, self._cca.n_pairs_
        self._signs = self._learn_space(
            X, [self._cca.transform_modality(block, name) for name, block in features.items()], self.blocks_
        )
        self.correlations_ = self._cca.correlations_

    def _features(self, X_block, name):
        """Return the kernel principal components of one block; zeros if its kernel is constant."""
        kernel, axes = self._maps[name]
        features = np.empty((len(X_block), axes.shape[1]))
        for rows in gen_batches(len(X_block), CHUNK_OF_ROWS):
            features[rows] = kernel(X_block[rows]) @ axes
        return features

    def _score_block(self, X_block, name):
        variates = self._cca.transform_modality(self._features(X_block, name), name)
        return (variates * self._signs).astype(X_block.dtype)
