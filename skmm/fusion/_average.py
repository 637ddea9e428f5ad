"""Feature-level fusion by a weighted average of the blocks in a common dimension."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from sklearn.utils import check_random_state

from .._columns import column_means
from .._sklearn import StrOptions
from .._typing import Blocks, RandomState
from ._base import N_COMPONENTS, SCALING
from ._imputer import ImputedBlockTransformer
from ._moments import take_rows
from ._weights import WEIGHTS, fixed_weights, learn_weights, probe_rows, probe_target
from .projection import principal_axes


class AverageFusion(ImputedBlockTransformer):
    r"""Average the blocks, each brought to a common number of dimensions.

    With :math:`P_i` the blocks that row i has, and the map :math:`R_b` of block b to the common
    dimension, a row becomes

    .. math:: z_i = \frac{\sum_{b \in P_i} w_b\, R_b^\top x_{ib}}{\sum_{b \in P_i} w_b}.

    The first principal component of one block has nothing to do with the first of another, not even its sign, so the
    components of each block are rotated until the blocks agree as well as rotations can make them: generalised
    Procrustes analysis, which minimises the squared distance of each row's blocks to their mean. Random maps keep inner
    products in expectation, so that the average is then a sketch of the weighted concatenation in fewer dimensions.

    Parameters
    ----------
    n_components : int, default=64
        Number of dimensions. An upper bound for ``reduction="pca"``, where the block of the highest rank decides (the
        others are padded with zeros), and for ``reduction="random"``, where it is the number of columns of X.

    reduction : {"pca", "random"}, default="pca"
        How the blocks come to the common dimension: by their principal components, or by a matrix of
        independent normal numbers.

    align : bool, default=True
        Whether principal components are rotated to agree.

    weights : dict of str to float, array-like of shape (n_blocks,), "cv" or None, default=None
        Weight of each block; None means equal ones. ``"cv"`` learns them from ``y``, as in :class:`ConcatFusion`: the
        average from which a ridge regression has the smallest error over 5 folds.

    scaling : {"norm", "std"} or None, default="norm"
        How the blocks are scaled before, as in :class:`ConcatFusion`.

    imputer : {"mean", "zero", "regression", "neighbors"}, ModalityImputer or None, default=None
        What fills in missing blocks before all else, as in :class:`ConcatFusion`. None: as the notes say.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block, as in :class:`ConcatFusion`.

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
    learned from the rows that have it, and rotated to the mean of the others in these rows.

    References
    ----------
    .. [1] J. C. Gower, "Generalized Procrustes analysis", Psychometrika 40 (1975).
    .. [2] W. B. Johnson and J. Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space", Contemporary
       Mathematics 26 (1984).

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
        **ImputedBlockTransformer._parameter_constraints,
        "weights": WEIGHTS,
        "n_components": N_COMPONENTS,
        "reduction": [StrOptions({"pca", "random"})],
        "align": ["boolean"],
        "scaling": SCALING,
        "random_state": ["random_state"],
    }
    _learns_out_of_fold = True
    _weights_from_y = ("cv",)

    def __init__(
        self,
        n_components: int = 64,
        *,
        reduction: str = "pca",
        align: bool = True,
        weights: dict[str, float] | ArrayLike | str | None = None,
        scaling: str | None = "norm",
        imputer: object = None,
        blocks: Blocks = None,
        random_state: RandomState = None,
    ):
        self.n_components = n_components
        self.reduction = reduction
        self.align = align
        self.weights = weights
        self.scaling = scaling
        self.imputer = imputer
        self.blocks = blocks
        self.random_state = random_state

    def _fit_blocks(self, X, y, groups=None):
        missing = self._missing(X)
        filled = self._fill(X)
        random_state = check_random_state(self.random_state)
        bound = min(self.n_components, X.shape[1])
        self._maps = []
        for columns, rows in zip(self.blocks_.values(), ~missing.T, strict=True):
            block = take_rows(filled[:, columns], rows)
            if self.reduction == "pca":
                self._maps.append(principal_axes(block, bound, random_state))
            else:
                # Keeps inner products in expectation.
                axes = random_state.normal(size=(block.shape[1], bound)) / np.sqrt(bound)
                self._maps.append((column_means(block), axes))
        self.n_components_ = k = max(axes.shape[1] for _, axes in self._maps)
        # Blocks of fewer dimensions are padded with zeros.
        self._maps = [(mean, np.pad(axes, ((0, 0), (0, k - axes.shape[1])))) for mean, axes in self._maps]
        if self.reduction == "pca" and self.align:
            rotations = rotations_to_agree(self._project(X), ~missing)
            self._maps = [(mean, axes @ rotation) for (mean, axes), rotation in zip(self._maps, rotations, strict=True)]
        weights = self._learned_weights(X, y, groups) if self._needs_y() else fixed_weights(self)
        self.weights_ = dict(zip(self.blocks_, (weights / weights.sum()).tolist(), strict=True))

    def _learned_weights(self, X, y, groups):
        rows, folds = probe_rows(y, groups)
        projected, missing = self._project(X[rows]), self._missing(X[rows])

        def combine(weights):
            return weights.sum() * _average(projected, missing, weights)

        return learn_weights(combine, projected, probe_target(y[rows]), folds)

    def _project(self, X):
        """Return each block in the common dimension, of shape (n_samples, n_components_)."""
        filled = self._fill(X)
        return [
            (filled[:, columns] - mean.astype(X.dtype)) @ axes.astype(X.dtype)
            for (mean, axes), columns in zip(self._maps, self.blocks_.values(), strict=True)
        ]

    def _transform_blocks(self, X):
        return _average(self._project(X), self._missing(X), np.array(list(self.weights_.values())))

    def _names_out(self, input_features):
        return self._joint_names(self.n_components_)


def _average(projected, missing, weights):
    """Return the weighted mean of the blocks that each row has; 0 if it has none."""
    present = ~missing * weights
    total = present.sum(axis=1, keepdims=True)
    shares = np.divide(present, total, out=np.zeros_like(present), where=total > 0).astype(projected[0].dtype)
    return sum(block * shares[:, b : b + 1] for b, block in enumerate(projected))


def rotations_to_agree(projected, present, max_iter=50, tol=1e-6):
    """Return the rotations that bring the blocks closest to their mean: generalised Procrustes analysis.

    The blocks are centred, in one dimension; their missing rows are not read. The first rotation is the identity.
    Rounds over the blocks end when one adds a share of less than ``tol`` to their agreement.
    """
    n_blocks, n_components = len(projected), projected[0].shape[1]
    joined = np.hstack([block * present[:, [b]] for b, block in enumerate(projected)]).astype(np.float64, copy=False)
    products = (joined.T @ joined).reshape(n_blocks, n_components, n_blocks, n_components)
    rotations = np.tile(np.eye(n_components), (n_blocks, 1, 1))
    previous = 0.0
    for i in range(max_iter):
        agreement = 0.0
        for b in range(1, n_blocks):
            # The sum of the inner products with the other blocks is largest for the polar factor. In the first round
            # only blocks before this one have been rotated.
            rotated = range(b if i == 0 else n_blocks)
            products_with_rotated = sum(products[b, :, a] @ rotations[a] for a in rotated if a != b)
            left, values, right = linalg.svd(products_with_rotated)
            rotations[b] = left @ right
            agreement += values.sum()
        if agreement <= previous * (1 + tol):
            break
        previous = agreement
    return rotations
