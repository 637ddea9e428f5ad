"""Feature-level fusion by a weighted average of the blocks in a common dimension."""

import numpy as np
from sklearn.utils import check_random_state

from .._array_api import like, take_rows, to_numpy
from .._missing import column_means, missing_blocks
from .._sklearn import StrOptions
from ._base import N_COMPONENTS, SCALING
from ._weights import WeightedBlockTransformer, learn_weights, probe_rows, probe_target
from .projection import principal_axes, random_axes, rotations_to_agree


class AverageFusion(WeightedBlockTransformer):
    r"""Average the blocks, each brought to a common number of dimensions.

    With :math:`P_i` the blocks that row i has, and the map :math:`R_b` of block b to the common
    dimension, a row becomes

    .. math:: z_i = \frac{\sum_{b \in P_i} w_b\, R_b^\top x_{ib}}{\sum_{b \in P_i} w_b}.

    The first principal component of one block has nothing to do with the first of another, not even its
    sign, so the components of each block are rotated until the blocks agree as well as rotations can make
    them: generalised Procrustes analysis, which minimises the squared distance of each row's blocks to
    their mean. Random maps keep inner products in expectation, so that the average is then a sketch of
    the weighted concatenation in fewer dimensions.

    Parameters
    ----------
    n_components : int, default=64
        Number of dimensions. An upper bound for ``reduction="pca"``, where the block of the highest
        rank decides (the others are padded with zeros), and for ``reduction="random"``, where it is the
        number of columns of X.

    reduction : {"pca", "random"}, default="pca"
        How the blocks come to the common dimension: by their principal components, or by a matrix of
        independent normal numbers.

    align : bool, default=True
        Whether principal components are rotated to agree.

    weights : dict of str to float, array-like of shape (n_blocks,), "cv" or None, default=None
        Weight of each block; None means equal ones. ``"cv"`` learns them from ``y``, as
        in :class:`ConcatFusion`: the average from which a ridge regression has the smallest error over
        5 folds.

    scaling : {"norm", "std"} or None, default="norm"
        How the blocks are scaled before, as in :class:`ConcatFusion`.

    imputer : {"mean", "zero", "regression", "neighbors"}, ModalityImputer or None, default=None
        How missing blocks are filled in before all else: a strategy of :class:`ModalityImputer`, or one with
        parameters of its own, whose indicators, if any, are appended to what comes out. None: as the notes say.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block, as in :class:`ConcatFusion`. Inside :class:`ModalityFuser` it is set
        by the fuser.

    random_state : int, RandomState instance or None, default=None
        Seed of the random maps, and of the randomised solver as in :class:`PCAFusion`. Pass an int for
        output that is the same in every fit.

    Attributes
    ----------
    weights_ : dict of str to float
        Weight of each block; they add up to 1.

    n_components_ : int
        Number of dimensions.

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
    ConcatFusion : Keeps the blocks apart.
    sklearn.random_projection.GaussianRandomProjection : Of one block.

    Notes
    -----
    **Missing blocks.** The average is over the blocks that a row has, their weights scaled up to 1. A
    row without any block becomes zeros, the mean of all rows. Principal components of a block are
    learned from the rows that have it, and rotated to the mean of the others in these rows. A block
    that is missing in every row at ``fit`` raises an error. A single missing cell is the mean of its column.

    **Other arrays** (torch, CuPy) come in by scikit-learn's array API dispatch, and stay on their device;
    the rows that ``weights="cv"`` looks at go to the CPU.

    References
    ----------
    .. [1] J. C. Gower, "Generalized Procrustes analysis", Psychometrika 40 (1975).
    .. [2] W. B. Johnson and J. Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert
       space", Contemporary Mathematics 26 (1984).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skmm.fusion import AverageFusion
    >>> X, y = load_iris(return_X_y=True)
    >>> blocks = {"sepal": slice(0, 2), "petal": slice(2, 4)}
    >>> fusion = AverageFusion(2, weights={"sepal": 1, "petal": 3}, blocks=blocks)
    >>> fusion.fit_transform(X).shape
    (150, 2)
    >>> fusion.weights_
    {'sepal': 0.25, 'petal': 0.75}
    """

    _parameter_constraints: dict = {
        **WeightedBlockTransformer._parameter_constraints,
        "n_components": N_COMPONENTS,
        "reduction": [StrOptions({"pca", "random"})],
        "align": ["boolean"],
        "scaling": SCALING,
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components=64,
        *,
        reduction="pca",
        align=True,
        weights=None,
        scaling="norm",
        imputer=None,
        blocks=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.reduction = reduction
        self.align = align
        self.weights = weights
        self.scaling = scaling
        self.imputer = imputer
        self.blocks = blocks
        self.random_state = random_state

    def _fit_blocks(self, X, y):
        missing = missing_blocks(X, self.blocks_)
        filled = self._fill(X)
        random_state = check_random_state(self.random_state)
        bound = min(self.n_components, X.shape[1])
        self._maps = []
        for columns, absent in zip(self.blocks_.values(), missing.T, strict=True):
            block = take_rows(filled[:, columns], ~absent)
            if self.reduction == "pca":
                self._maps.append(principal_axes(block, bound, random_state))
            else:
                self._maps.append((column_means(block), random_axes(block.shape[1], bound, random_state)))
        self.n_components_ = max(axes.shape[1] for _, axes in self._maps)
        # Blocks of fewer dimensions are padded with zeros.
        self._maps = [
            (mean, np.pad(axes, ((0, 0), (0, self.n_components_ - axes.shape[1])))) for mean, axes in self._maps
        ]

        if self.reduction == "pca" and self.align:
            rotations = rotations_to_agree(self._project(X), like(~missing, X))
            self._maps = [(mean, axes @ rotation) for (mean, axes), rotation in zip(self._maps, rotations, strict=True)]

        if self._needs_y():
            y = to_numpy(y)
            rows, folds = probe_rows(y)
            parts, absent = [to_numpy(part) for part in self._project(take_rows(X, rows))], missing[rows]
            size = np.sqrt(max(sum(part.var(axis=0).sum() for part in parts), np.finfo(np.float64).tiny))

            def combine(weights):
                return weights.sum() / size * _average(parts, absent, weights)

            weights = learn_weights(combine, len(parts), probe_target(y[rows]), folds)
        else:
            weights = self._given_weights()
        self.weights_ = dict(zip(self.blocks_, (weights / weights.sum()).tolist(), strict=True))

    def _project(self, X):
        """Give each block in the common dimension, of shape (n_samples, n_components_)."""
        filled = self._fill(X)
        return [
            (filled[:, columns] - like(mean, X)) @ like(axes, X)
            for (mean, axes), columns in zip(self._maps, self.blocks_.values(), strict=True)
        ]

    def _transform_blocks(self, X):
        return _average(self._project(X), missing_blocks(X, self.blocks_), np.array(list(self.weights_.values())))

    def _names_out(self, input_features):
        return self._joint_names(self.n_components_)


def _average(parts, missing, weights):
    """Weighted mean of the parts that are not missing; 0 where all are."""
    present = ~missing * weights
    total = present.sum(axis=1, keepdims=True)
    shares = like(np.divide(present, total, out=np.zeros_like(present), where=total > 0), parts[0])
    return sum(part * shares[:, b : b + 1] for b, part in enumerate(parts))
