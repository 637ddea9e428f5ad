"""Joint embedding by canonical correlation analysis and, as its extreme, by partial least squares, in closed form.

The file follows the computation: the estimators; scaled covariances of the blocks; what whitens the ridged covariance
of each block; the weights, as singular vectors or eigenvectors of the whitened covariance; the ridge, chosen by
held-out rows; blocks with more columns than rows.
"""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from scipy.linalg import blas
from sklearn.utils import gen_batches
from sklearn.utils.metaestimators import available_if

from ..._columns import CHUNK_OF_ROWS, column_means, fill_missing
from ..._sklearn import Interval, StrOptions, fit_context
from ..._typing import Blocks, Matrix
from ..._warnings import warn
from .._base import group_folds
from .._moments import (
    BlockMoments,
    block_moments,
    consecutive_slices,
    ledoit_wolf_shrinkage,
    present_blocks,
    take_rows,
)
from ._base import JointEmbedding
from ._target import TARGET, target_block

# Smallest relative Cholesky pivot with which products in float32 are precise enough: their error in a correlation is
# about 1e-8 over the pivot.
_SINGLE_PIVOT = 1e-2
# Smallest relative Cholesky pivot with which the factor is used to whiten a block.
_PIVOT = 1e-8
# Smallest variance along a direction, relative to the largest of the block, with which the direction is used: an error
# of 1e-15 in a product, relative to the largest, moves a correlation by up to 1e-5 there.
_SMALLEST_VARIANCE = 1e-10
# A column counts as constant if its variance is less than this many times what rounding each number once makes, as
# numbers that were computed are rounded more than once.
_ROUNDINGS = 16
# A variate counts as constant if its variance is less than this share of what a full ridge alone would give it.
_FLAT = 1e-10
# Columns of a wide block that are multiplied at a time.
_WIDE_CHUNK = 2048

# The ridges that regularization="cv" chooses from.
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# One fit with the first ridge and one step of subspace iteration from there with the second: the weights of all ridges
# lie close to the span of both.
_SOLVED_RIDGE, _STEPPED_RIDGE = 0.07, 0.5
# One row of so many is held out, once. Five folds in turn choose hardly better, of few rows too
# (benchmarks/cca_ridge.py): all ridges are judged by the same rows and share their noise.
_HELD_OUT_ONE_OF = 5


def _can_stream(estimator):
    """Return True if a fit needs nothing but sums over rows; else raise an AttributeError that says why not."""
    if estimator.target is not None:
        raise AttributeError(
            f"{type(estimator).__name__}: partial_fit learns from no target; use target=None, or fit on all rows."
        )
    ridge = estimator.regularization
    if any(isinstance(value, str) for value in (ridge.values() if isinstance(ridge, dict) else [ridge])):
        raise AttributeError(
            f"{type(estimator).__name__}: partial_fit needs a regularization given as numbers, got {ridge!r}, for "
            "which all rows must be at hand."
        )
    return True


class CCAFusion(JointEmbedding):
    r"""Map all blocks into one space in which they agree: canonical correlation analysis.

    For two blocks with covariances :math:`\Sigma_{11}, \Sigma_{22}` and cross-covariance
    :math:`\Sigma_{12}`, the pairs of weights are, one after the other,

    .. math:: \max_{w_1, w_2} w_1^\top \Sigma_{12} w_2 \quad\text{subject to}\quad
              w_b^\top \tilde\Sigma_{bb} w_b = 1, \qquad
              \tilde\Sigma_{bb} = (1 - r_b)\,\Sigma_{bb} + r_b\,\frac{\operatorname{tr}\Sigma_{bb}}{p_b} I,

    each pair uncorrelated (in :math:`\tilde\Sigma`) with those before it. For more than two blocks see ``objective``.
    All is solved exactly, from covariances, and for blocks with more columns than rows from inner products of rows. The
    variates, the projections :math:`Z_b w_b`, are scaled to unit variance.

    Parameters
    ----------
    n_components : int, default=32
        Upper bound of the number of components. It is clipped to the most that a pair of blocks can agree in: the
        smaller rank of the two, and one less than the rows that have both. A block of lower rank than that takes part
        in all components, but cannot vary independently in each: its variates have the share of the component that
        it explains, relative to the block that explains most, in place of unit variance. The default is half of that
        of :class:`PCAFusion`, as what blocks share has fewer dimensions than what they hold.

    objective : {"maxvar", "sumcor"}, default="maxvar"
        What is maximised over more than two blocks; with two it is the above either way.

        - ``"maxvar"``, generalised CCA: variables :math:`g`, uncorrelated with each other, that the ridge regressions
          on the blocks explain best together, :math:`\max_g \sum_b g^\top Z_b \tilde\Sigma_{bb}^{-1} Z_b^\top g`; the
          weights are these regressions.
        - ``"sumcor"``, multiset CCA: the sum of covariances over the pairs of blocks,
          :math:`\max_w \sum_{a \neq b} w_a^\top \Sigma_{ab} w_b` subject to
          :math:`\sum_b w_b^\top \tilde\Sigma_{bb} w_b = 1`. Without a ridge both give the same variates.

        Where blocks are missing, :math:`\Sigma_{ab}` has the weight :math:`n_{ab} / n` by the rows that have both, and
        "maxvar" counts what a block explains of itself only as far as rows have more than two blocks.

    regularization : float in [0, 1], "auto", "cv" or dict of str to these but "cv", default=0.3
        Ridge :math:`r_b`, for all blocks or by block: 0 is plain CCA, 1 maximises covariance
        (:class:`PLSFusion`). "auto" is the Ledoit-Wolf estimate of each block. "cv" picks one of ten
        values from .001 to .9 for all blocks, by the mean correlation in a fifth of the rows, every fifth one,
        that is held out; choosing costs up to 1.5 fits. Classifiers of the variates mostly do better with more
        ridge than correlation asks for, which the default heeds. A target has the ridge of all blocks, or none where
        they are given by block.

    scaling : {"std"} or None, default="std"
        Whether columns are brought to unit variance before. Plain CCA does not depend on it; the ridge pulls columns of
        small variance down, hence unit variance for all. Factors of whole blocks have no influence either way.

    target : "block" or None, default=None
        "block" makes y one more block, in which the others agree as well: classes are one-hot, floats that are not all
        whole are numbers, several targets stand side by side, and all columns are brought to unit variance. A row may
        lack it: -1, for classes, and NaN say so. Rows that have a single block and a label are learned from, and one
        block is enough, as in discriminant analysis. Only ``fit`` uses it; score with cross-validation.

    weighting : "correlation" or None, default=None
        "correlation" multiplies the variates of each component by ``correlations_ ** power``, entry by entry, so that
        in distances components count for what the blocks agree in. Of 64 cases on emoji the class is retrieved better
        in 60, the pair in 49, and classification gains in 52 (``benchmarks/joint.py``). None leaves unit variance, for
        estimators that scale by themselves. Predictions of modalities and scores do not depend on it.

    power : float, default=2
        Power of the correlations; without influence if ``weighting`` is None.

    output : {"concat", "mean", "sum"}, default="concat"
        The variates of all blocks side by side, or their mean or sum over the blocks.

    blocks : dict of str to slice or "prefix", default=None
        Columns of each block, as in :class:`ConcatFusion`, at least two; with ``target="block"`` at least one.

    Attributes
    ----------
    weights_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Weights of the centred columns of each block, in the units of X.

    loadings_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Correlation of each column with the variates of its block.

    correlations_ : ndarray of shape (n_components_,)
        Correlation of the variates of each component in the rows of ``fit``, averaged over the pairs of blocks. Pairs
        count by the rows that have both blocks, and by the deviations of their variates. A target is a block here.

    n_pairs_ : ndarray of shape (n_blocks, n_blocks)
        Rows of ``fit`` that have both blocks of a pair, in the order of ``blocks_``; on the diagonal those that have
        the block and any other. A target is the last.

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
    PLSFusion : Maximises covariance, not correlation.
    PCAFusion : Keeps what varies, not what agrees.
    sklearn.cross_decomposition.CCA : Iterative algorithm for two blocks, without a ridge.

    Notes
    -----
    **Missing blocks.** Each covariance is learned from the rows that have both of its blocks, and counts in proportion
    to them, so that with more than two blocks a row counts for what it has, where complete rows may be few. Rows with
    one block say nothing about agreement and are left out of the fit. At ``transform`` the variates of a missing block
    are their conditional expectation, under a normal model, given the variates of the blocks that the row has; for two
    blocks and no ridge that is the other block's variate times the canonical correlation. A row without any block
    becomes zeros. A block that shares fewer than two rows with any other at ``fit`` raises an error.

    **Labels.** Over all items of all modalities, with a constant sum of squares, ``target="block"`` minimises

    .. math:: \sum_{ij} w_{ij} \lVert \varphi(x_i) - \psi(y_j) \rVert^2, \qquad
              w_{ij} = [i, j \text{ are a pair}] + \frac{c}{m_{ij}} [i, j \text{ are of one class}],

    where the class has :math:`m_{ij}` items: the variate of a class ties its items together as these weights do, with
    a factor c that is 2 over the agreement of the component where all rows are complete ("sumcor" or no ridge, and no
    ridge for the target). One block without a ridge is discriminant analysis; with several it is near to generalised
    multiview analysis [5]_.

    **Precision.** Products are summed up in float64, chunk by chunk. Those of a float32 X are computed in float32 as
    long as no column is nearly a combination of others (the smallest relative pivot of the Cholesky factors stays above
    .01; correlations are then right to about 1e-6), and again in float64 otherwise. Directions of a block whose
    standard deviation is below 1e-5 of the largest are left out where there is no ridge.

    **Data larger than memory.** ``partial_fit`` takes X in batches, with a ridge given as numbers.

    With as many columns as rows and no ridge the blocks can be made to agree perfectly on nothing; a warning says so.

    References
    ----------
    .. [1] H. Hotelling, "Relations between two sets of variates", Biometrika 28 (1936).
    .. [2] H. D. Vinod, "Canonical ridge and econometrics of joint production", Journal of Econometrics 4 (1976).
    .. [3] J. R. Kettenring, "Canonical analysis of several sets of variables", Biometrika 58 (1971).
    .. [4] J. D. Carroll, "Generalization of canonical correlation analysis to three or more sets of variables",
       Proceedings of the 76th Annual Convention of the APA (1968).
    .. [5] A. Sharma, A. Kumar, H. Daume III and D. W. Jacobs, "Generalized multiview analysis: a discriminative latent
       space", CVPR (2012).

    Examples
    --------
    >>> from sklearn.datasets import load_linnerud
    >>> import numpy as np
    >>> from skmm.fusion import CCAFusion
    >>> exercise, body = load_linnerud(return_X_y=True)
    >>> fusion = CCAFusion(2, regularization=0, blocks={"exercise": slice(0, 3), "body": slice(3, 6)})
    >>> fusion.fit_transform(np.hstack([exercise, body])).shape
    (20, 4)
    >>> fusion.correlations_.round(3)
    array([0.796, 0.201])
    >>> fusion.predict_modality([[5, 162, 60]], source="exercise", target="body").round()
    array([[177.,  35.,  56.]])
    """

    _parameter_constraints: dict = {
        **JointEmbedding._parameter_constraints,
        "objective": [StrOptions({"maxvar", "sumcor"})],
        "regularization": [StrOptions({"auto", "cv"}), Interval(Real, 0, 1, closed="both"), dict],
        "scaling": [StrOptions({"std"}), None],
    }
    _learns_out_of_fold = True
    # Scales are folded into covariances and weights, so that no scaled copy of X is made.
    _scales_itself = True

    def __init__(
        self,
        n_components: int = 32,
        *,
        objective: str = "maxvar",
        regularization: float | str | dict[str, float | str] = 0.3,
        scaling: str | None = "std",
        target: str | None = None,
        weighting: str | None = None,
        power: float = 2,
        output: str = "concat",
        blocks: Blocks = None,
    ):
        self.n_components = n_components
        self.objective = objective
        self.regularization = regularization
        self.scaling = scaling
        self.target = target
        self.weighting = weighting
        self.power = power
        self.output = output
        self.blocks = blocks

    @available_if(_can_stream)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Matrix, y: ArrayLike | None = None) -> Self:
        """Learn from more rows.

        Sums over the rows are stored, from which the weights are computed again, so that the result is the one of
        ``fit`` on all rows so far; but single missing cells count as the mean of the first batch. The first call
        after ``fit`` starts from the beginning. Only available with ridges given as numbers and without a target: the
        others need all rows at hand.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side, with NaN in missing cells.

        y : None
            Ignored.

        Returns
        -------
        self : estimator
            The strategy fitted to all rows so far.
        """
        first = not hasattr(self, "_moments")
        X = self._validate(X, reset=first)
        if first:
            self._resolve_blocks(X)
            self._fit_scale(X)
            self._moments = BlockMoments(column_means(X), self.blocks_)
        self._moments.add(X)
        self._check_pairs(self._moments.counts, self.blocks_)
        covariance, weights, _ = self._solve([self._moments], None, X.dtype)
        self._set_weights(covariance, weights)
        return self

    def _fit_blocks(self, X, y, groups=None):
        self.__dict__.pop("_moments", None)
        blocks, n_features = self.blocks_, X.shape[1]
        if y is not None:
            X = np.hstack([X, target_block(y, type(self).__name__).astype(X.dtype)])
            blocks = {**blocks, TARGET: slice(n_features, X.shape[1])}
        present = present_blocks(X, blocks)
        counts = present.T.astype(np.float64) @ present
        self._check_pairs(counts, blocks)
        wide = [
            name
            for (name, columns), n_rows in zip(blocks.items(), np.diag(counts), strict=True)
            if columns.stop - columns.start > n_rows
        ]
        subsets = self._subsets(len(X), groups)
        if wide:
            self._fit_row_spaces(X, blocks, subsets, present, wide)
        else:
            self._fit_columns(X, blocks, subsets)
        self._means = self._means[:n_features]

    def _fit_columns(self, X, blocks, subsets):
        """Fit from the covariance of the columns; of a float32 X, from products in float32 if they are good enough."""
        for single in (True, False) if X.dtype == np.float32 else (False,):
            moments = block_moments(X, blocks, subsets, single=single)
            if single and not all(np.isfinite(np.diag(subset.products)).all() for subset in moments):
                # Squares overflow float32.
                continue
            covariance, weights, whitenings = self._solve(moments, X, X.dtype)
            if not single or min(whitening.pivot for whitening in whitenings.values()) > _SINGLE_PIVOT:
                break
        self._set_weights(covariance, weights)

    def _fit_row_spaces(self, X, blocks, subsets, present, wide):
        """Fit with the wide blocks in coordinates of the span of their rows, which are fewer than their columns."""
        standardized = self._standardized()
        spaces, coordinates = {}, []
        for i, (name, columns) in enumerate(blocks.items()):
            if name in wide:
                spaces[name] = row_space(X[:, columns], present[:, i], standardized[name])
                if spaces[name].coordinates.shape[1] == 0:
                    self._raise_constant(name, np.count_nonzero(present[:, i]))
                coordinates.append(spaces[name].coordinates)
            else:
                Z = X[:, columns].astype(np.float64)
                coordinates.append(np.where(present[:, [i]], fill_missing(Z, column_means(Z)), np.nan))
        reduced = consecutive_slices({name: Z.shape[1] for name, Z in zip(blocks, coordinates, strict=True)})
        R = np.hstack(coordinates)
        moments = block_moments(R, reduced, subsets)
        covariance, weights, _ = self._solve(moments, R, X.dtype, spaces)

        means = covariance.means
        self._means = np.zeros(X.shape[1])
        self.weights_, variates = covariance.in_units(weights), []
        for i, (name, columns) in enumerate(blocks.items()):
            variates.append((R[:, reduced[name]] - means[reduced[name]]) @ self.weights_[name])
            if name in spaces:
                self._means[columns] = spaces[name].means
                self.weights_[name] = primal_weights(X[:, columns], present[:, i], spaces[name], self.weights_[name])
            else:
                self._means[columns] = means[reduced[name]]
        signs = self._learn_space(X, variates, blocks)
        self.weights_ = {name: self.weights_[name] * signs for name in self.blocks_}

    def _solve(self, subset_moments, X, dtype, spaces=None):
        """Set ridges and ``n_components_``; return the scaled covariance, and weights and whitenings of its blocks.

        The moments are those of the subsets of rows that :meth:`_subsets` returns. The rows X, whose dtype in ``fit``
        was this one, are not needed for ridges given as numbers. Blocks in coordinates of row spaces bring these along.
        """
        moments, spaces = sum(subset_moments[1:], subset_moments[0]), spaces or {}
        standardized = {name: value and name not in spaces for name, value in self._standardized().items()}
        targets = {name: space.target for name, space in spaces.items()}
        covariance = block_covariance(moments, dtype, standardized, targets)
        for name, columns in covariance.blocks.items():
            if columns.start == columns.stop:
                self._raise_constant(name, covariance.n_rows[name])
        ridges = self._resolve_ridges(covariance, subset_moments, X)
        weights, whitenings = canonical_weights(covariance, ridges, self.n_components, self.objective)
        self.regularization_ = {name: ridges[name] for name in self.blocks_}
        self.n_components_ = next(iter(weights.values())).shape[1]
        self.n_pairs_ = moments.counts.astype(int)
        n_rows = int(moments.counts[moments.counts > 1].min())
        rank = sum(whitening.rank for whitening in whitenings.values())
        if not any(self.regularization_.values()) and rank > n_rows - 1:
            warn(
                f"{type(self).__name__}: the blocks have {rank} independent columns together and only {n_rows} rows, "
                "so some correlations are 1 whatever the data; use a regularization, such as 'auto'."
            )
        return covariance, weights, whitenings

    def _set_weights(self, covariance, weights):
        """Set the weights in the units of X, and learn the joint space from the covariance."""
        self._means = covariance.means
        W = linalg.block_diag(*weights.values())
        # Covariances of the columns with the variates.
        products = covariance.matrix @ W
        n_features = len(covariance.means)
        cross, variances = np.zeros((n_features, W.shape[1])), np.zeros(n_features)
        cross[covariance.varying] = products * covariance.scales[:, None]
        variances[covariance.varying] = np.diag(covariance.matrix) * covariance.scales**2
        cross, variances = ({name: C[columns] for name, columns in self.blocks_.items()} for C in (cross, variances))
        signs = self._set_space(W.T @ products, cross, variances)
        in_units = covariance.in_units(weights)
        self.weights_ = {name: in_units[name] * signs for name in self.blocks_}

    def _score_block(self, X_block, name):
        means, weights = self._means[self.blocks_[name]], self.weights_[name]
        centers = means.astype(X_block.dtype)
        # Rounding of the means would move the variates; their part of them is subtracted.
        shift = ((means - centers) @ weights).astype(X_block.dtype)
        weights = weights.astype(X_block.dtype)
        variates = np.empty((len(X_block), self.n_components_), dtype=X_block.dtype)
        for rows in gen_batches(len(X_block), CHUNK_OF_ROWS):
            variates[rows] = (X_block[rows] - centers) @ weights - shift
        return variates

    def _raise_constant(self, name, n_rows):
        raise ValueError(
            f"{type(self).__name__}: block {name!r} does not vary over the {n_rows} rows that have it; leave out the "
            "modality."
        )

    def _standardized(self):
        """Return, by block, whether its columns are brought to unit variance."""
        # Without a ridge the scales have no influence but on rounding.
        return {
            name: self.scaling == "std" or name == TARGET or ridge == 0
            for name, ridge in self._ridges_by_block().items()
        }

    def _ridges_by_block(self):
        """Return the parameter ``regularization`` by block, and for a target."""
        ridges = self.regularization
        if not isinstance(ridges, dict):
            return dict.fromkeys([*self.blocks_, TARGET], ridges)
        if ridges.keys() != self.blocks_.keys():
            raise ValueError(
                f"{type(self).__name__}: regularization names the blocks {sorted(ridges)}, X has the blocks "
                f"{sorted(self.blocks_)}."
            )
        for name, value in ridges.items():
            if value != "auto" and not (isinstance(value, Real) and 0 <= value <= 1):
                raise ValueError(
                    f"{type(self).__name__}: regularization[{name!r}] must be 'auto' or in [0, 1], got {value!r}."
                )
        return {**ridges, TARGET: 0}

    def _subsets(self, n_samples, groups):
        """Return the rows to learn from and, where a ridge is chosen by them, those held out.

        Both are lists of slices, or of arrays of positions of a few rows each.
        """
        if self.regularization != "cv":
            return [[slice(None)]]
        if n_samples < 4:
            raise ValueError(
                f"{type(self).__name__}: regularization='cv' needs at least 4 rows, got {n_samples}; give a number."
            )
        if groups is not None:
            held_out = group_folds(groups, _HELD_OUT_ONE_OF) == 0
            return [
                [rows[chunk] for chunk in gen_batches(len(rows), CHUNK_OF_ROWS)]
                for rows in (np.flatnonzero(~held_out), np.flatnonzero(held_out))
            ]
        # Every k-th row is held out, so that the order of sorted rows does no harm.
        k = min(_HELD_OUT_ONE_OF, n_samples // 2)
        return [slice(i, None, k) for i in range(1, k)], [slice(0, None, k)]

    def _resolve_ridges(self, covariance, subset_moments, X):
        """Return the ridge of each block as a number; the parameters are those of :meth:`_solve`."""
        ridges = self._ridges_by_block()
        if self.regularization == "cv":
            ridges = dict.fromkeys(ridges, choose_ridge(covariance, *subset_moments, self.n_components, self.objective))
        return {
            name: _ledoit_wolf(covariance, X, name) if ridges[name] == "auto" else float(ridges[name])
            for name in covariance.blocks
        }


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
        Upper bound of the number of components, with the limits of :class:`CCAFusion`.

    scaling : {"std"} or None, default="std"
        Whether columns are brought to unit variance before. Factors of whole blocks have no influence.

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
        Columns of each block, as in :class:`ConcatFusion`, at least two; with ``target="block"`` at least one.

    Attributes
    ----------
    weights_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Weights of the centred columns of each block, in the units of X.

    loadings_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Correlation of each column with the variates of its block.

    correlations_ : ndarray of shape (n_components_,)
        Correlation of the variates of each component in the rows of ``fit``, averaged over the pairs of blocks. Pairs
        count by the rows that have both blocks, and by the deviations of their variates. A target is a block here.

    n_pairs_ : ndarray of shape (n_blocks, n_blocks)
        Rows of ``fit`` that have both blocks of a pair, in the order of ``blocks_``; on the diagonal those that have
        the block and any other. A target is the last.

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
    rows that have both blocks and counts in proportion to them, and the variates of a missing block are their
    conditional expectation given those of the others.

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
        target: str | None = None,
        weighting: str | None = None,
        power: float = 2,
        output: str = "concat",
        blocks: Blocks = None,
    ):
        self.n_components = n_components
        self.scaling = scaling
        self.target = target
        self.weighting = weighting
        self.power = power
        self.output = output
        self.blocks = blocks


# The ridge of Ledoit and Wolf.


def _ledoit_wolf(covariance, X, name):
    """Return the ridge of one block by Ledoit and Wolf."""
    rows, columns = covariance.blocks[name], covariance.columns[name]
    # Rows with a single block are not in the covariance either.
    X_block = take_rows(X[:, columns], present_blocks(X, covariance.columns).any(axis=1))
    # A factor of 0 leaves a column out.
    factors = np.zeros(X_block.shape[1])
    factors[covariance.varying[rows] - columns.start] = 1 / covariance.scales[rows]
    fourth_powers = 0.0
    for chunk in gen_batches(len(X_block), CHUNK_OF_ROWS):
        Z = (X_block[chunk] - covariance.means[columns]) * factors
        squares = np.vecdot(Z, Z)
        if np.isnan(squares).any():
            # Missing cells count as means, so that a missing row adds nothing.
            squares = np.nansum(Z * Z, axis=1)
        fourth_powers += np.vecdot(squares, squares)
    S = covariance.matrix[rows, rows]
    return ledoit_wolf_shrinkage(S, covariance.targets[name], covariance.n_rows[name], fourth_powers)


# Covariances of the blocks.


class BlockCovariance(NamedTuple):
    """Covariance of the scaled columns that vary, block after block, and what is known about the blocks, by name."""

    matrix: np.ndarray
    blocks: dict  # slices of the matrix
    columns: dict  # slices of all columns
    means: np.ndarray  # of all columns, in their units
    varying: np.ndarray  # positions of the columns of the matrix among all
    scales: np.ndarray  # what these columns were divided by
    targets: dict  # variance that a full ridge gives every column
    noises: dict  # variance that rounding of X can make, along the worst direction
    n_rows: dict  # rows behind the block
    n_pairs: np.ndarray  # rows behind each pair of blocks

    def of(self, moments):
        """Return the covariance of other rows in the same columns and scales."""
        return _restrict(moments.covariance(), self.varying, self.scales)

    def in_units(self, weights):
        """Return weights of all columns of each block in their own units, from those of the columns that vary."""
        unscaled = {}
        for name, rows in self.blocks.items():
            columns = self.columns[name]
            unscaled[name] = np.zeros((columns.stop - columns.start, weights[name].shape[1]))
            unscaled[name][self.varying[rows] - columns.start] = weights[name] / self.scales[rows, None]
        return unscaled


def block_covariance(moments, dtype, standardized, targets):
    """Return the scaled covariance of the columns that vary, as the rounding of rows of this dtype tells.

    By block, ``standardized`` says whether columns are brought to unit variance, and ``targets`` what scales the ridge
    where that is not the mean variance of the columns.
    """
    S, means, n_rows = moments.covariance(), moments.means(), moments.n_rows()
    variances = np.diag(S).copy()
    # Twelve times the variance of a number that is rounded once.
    rounding = np.finfo(dtype).eps ** 2 * (means**2 + variances)
    varies = variances > _ROUNDINGS * rounding
    blocks, positions, units, ridge_targets, noises, end = {}, [], [], {}, {}, 0
    for name, columns in moments.blocks.items():
        varying = columns.start + np.flatnonzero(varies[columns])
        blocks[name] = slice(end, end := end + len(varying))
        # Factors of whole blocks have no influence; at a mean variance of 1 products in float32 stay in its range.
        mean = variances[varying].mean() if len(varying) else 1.0
        unit = variances[varying] if standardized[name] else np.full(len(varying), mean)
        ridge_targets[name] = float(targets[name] / mean) if name in targets else 1.0
        spread = (1 + np.sqrt(len(varying) / max(n_rows[name] - 1, 1))) ** 2
        noises[name] = float((rounding[varying] / unit).max(initial=0) * spread)
        positions.append(varying)
        units.append(unit)
    varying, scales = np.concatenate(positions), np.sqrt(np.concatenate(units))
    matrix = _restrict(S, varying, scales)
    return BlockCovariance(
        matrix, blocks, moments.blocks, means, varying, scales, ridge_targets, noises, n_rows, moments.counts
    )


def _restrict(S, columns, scales):
    if not np.array_equal(columns, np.arange(len(S))):
        S = S[np.ix_(columns, columns)]
    S /= scales
    S /= scales[:, None]
    return S


# Whitening by the ridged covariance of each block.


class Whitening(NamedTuple):
    """Products with a matrix W for which W' S W = I, where S is the ridged covariance of a block."""

    left: Callable  # W' M
    right: Callable  # M W
    weights: Callable  # W M
    rank: int  # columns of W
    pivot: float  # of the Cholesky factor of S: the smallest, relative to its column's variance; 0 if there is none


def block_whitening(covariance, name, ridge):
    """Return the whitening of one block: by its Cholesky factor or, if that is imprecise, in directions that vary."""
    columns, target, noise = covariance.blocks[name], covariance.targets[name], covariance.noises[name]
    # Symmetric, so that the transpose, in the order of the Fortran routines, is the same.
    ridged = ((1 - ridge) * covariance.matrix[columns, columns]).T
    ridged.T.flat[:: len(ridged) + 1] += ridge * target
    variances = np.diag(ridged)
    factor, failed = linalg.get_lapack_funcs("potrf", (ridged,))(ridged, lower=1)
    pivot = 0.0 if failed else (np.diag(factor) ** 2 / variances).min()
    # Written so that NaN fails.
    if pivot > _PIVOT and pivot * variances.min() > 100 * noise:
        solve = partial(linalg.get_blas_funcs("trsm", (factor,)), 1.0, factor, lower=1)
        return Whitening(solve, partial(solve, side=1, trans_a=1), partial(solve, trans_a=1), len(factor), pivot)
    values, vectors = linalg.eigh(ridged)
    varying = values > max(_SMALLEST_VARIANCE * values[-1], (1 - ridge) * noise)
    W = vectors[:, varying] / np.sqrt(values[varying])
    return Whitening(lambda M: W.T @ M, lambda M: M @ W, lambda M: W @ M, W.shape[1], pivot)


# Weights.


def canonical_weights(covariance, ridges, n_components, objective):
    """Return the weights under which the blocks agree most, best first, and the whitening of each block.

    The weights are those of the scaled columns that vary, by block, with a ridge for each; for no more components than
    :func:`largest_rank`. The variates have unit variance, but for blocks of lower rank.
    """
    weights, whitenings = leading_directions(covariance, ridges, n_components, objective)
    return _to_unit_variance(weights, whitenings, covariance), whitenings


def leading_directions(covariance, ridges, n_components, objective):
    """Return what :func:`canonical_weights` does, with variates of any variance."""
    S, blocks = covariance.matrix, covariance.blocks
    whitenings = {name: block_whitening(covariance, name, ridges[name]) for name in blocks}
    k = min(n_components, largest_rank(covariance.n_pairs, [whitening.rank for whitening in whitenings.values()]))
    if len(blocks) == 2:
        (a, columns_a), (b, columns_b) = blocks.items()
        directions = leading_pairs(whitenings[b].right(whitenings[a].left(S[columns_a, columns_b])), k)
    else:
        directions = _leading_stacks(covariance, whitenings, k, objective)
    weights = {
        name: whitening.weights(np.asfortranarray(direction))
        for (name, whitening), direction in zip(whitenings.items(), directions, strict=True)
    }
    return weights, whitenings


def largest_rank(n_pairs, ranks):
    """Return the largest rank of a cross-covariance, from the ranks of the blocks and the rows behind each pair."""
    bounds = np.minimum(np.minimum.outer(ranks, ranks), n_pairs - 1)
    return int(bounds[~np.eye(len(ranks), dtype=bool)].max())


def leading_pairs(M, k):
    """Return the k leading left and right singular vectors of a matrix, as columns.

    The eigenvectors of the smaller product span them; within their span the decomposition is exact, so that small
    singular values keep their digits and vectors of a zero one stay orthonormal.
    """
    if M.shape[0] < M.shape[1]:
        right, left = leading_pairs(M.T, k)
        return left, right
    n = M.shape[1]
    product = linalg.get_blas_funcs("syrk", (M,))(1.0, M, trans=1, lower=1)
    _, V = linalg.eigh(product, lower=True, subset_by_index=[n - k, n - 1], overwrite_a=True, check_finite=False)
    Q, R = linalg.qr(M @ V, mode="economic", check_finite=False)
    left, _, right = linalg.svd(R, check_finite=False)
    return Q @ left, V @ right.T


def pair_weights(n_pairs, objective):
    """Return the weight of the cross-covariance of each pair of blocks: its share n_ab / n of the rows.

    On the diagonal is the weight of what a block explains of itself. A row of two blocks is a problem of two blocks, in
    which only their agreement counts; for "maxvar" it rises to 1 for rows of all blocks.
    """
    weights = n_pairs / n_pairs.max()
    beyond_two = (weights.sum(axis=1) - 2 * np.diag(weights)) / max(len(weights) - 2, 1)
    np.fill_diagonal(weights, beyond_two if objective == "maxvar" else 0)
    return weights


def _leading_stacks(covariance, whitenings, k, objective):
    """Return, by block, the k leading eigenvectors of the whitened and weighted covariance of all blocks."""
    S, blocks, pairs = covariance.matrix, covariance.blocks, pair_weights(covariance.n_pairs, objective)
    slices = list(consecutive_slices({name: whitening.rank for name, whitening in whitenings.items()}).values())
    n = slices[-1].stop
    # A diagonal block without weight is the identity, which changes no eigenvector.
    agreement = np.eye(n, dtype=S.dtype)
    for i, (a, columns_a) in enumerate(blocks.items()):
        for j, (b, columns_b) in enumerate(blocks.items()):
            if j <= i and pairs[i, j] > 0:
                whitened = whitenings[b].right(whitenings[a].left(S[columns_a, columns_b]))
                agreement[slices[i], slices[j]] += float(pairs[i, j]) * (whitened - agreement[slices[i], slices[j]])
    _, vectors = linalg.eigh(agreement, lower=True, subset_by_index=[n - k, n - 1], overwrite_a=True)
    return [vectors[rows, ::-1] for rows in slices]


def _to_unit_variance(weights, whitenings, covariance):
    """Scale the weights, and leave out components in which fewer than two blocks vary.

    The variates of a block of lower rank than there are components keep their variance relative to the largest.
    """
    variances = {}
    for name, columns in covariance.blocks.items():
        W = weights[name]
        lengths = np.maximum((W**2).sum(axis=0), np.finfo(float).tiny)
        variances[name] = np.maximum((W * (covariance.matrix[columns, columns] @ W)).sum(axis=0), 0)
        # A direction of a singular block that has a length by the ridge only gets no weights.
        scale = np.diag(covariance.matrix[columns, columns]).mean()
        variances[name][variances[name] <= _FLAT * scale * lengths] = 0
    varies = {name: values > _FLAT * values.max() for name, values in variances.items()}
    shared = np.sum(list(varies.values()), axis=0) >= 2
    # Blocks that agree in nothing at all still get one component.
    shared[0] |= not shared.any()
    largest = np.max(list(variances.values()), axis=0)
    scaled = {}
    for name, W in weights.items():
        units = variances[name] if whitenings[name].rank >= W.shape[1] else largest
        scaled[name] = (W * np.where(varies[name], 1 / np.sqrt(np.where(varies[name], units, 1)), 0))[:, shared]
    return scaled


# The ridge under which the blocks agree most in rows that were held out.


def choose_ridge(covariance, train, test, n_components, objective):
    """Return the one of ``RIDGES``, the same for all blocks, whose weights correlate most in held-out rows.

    Of equals it is the smallest. The covariance, of all rows, says which columns count, and their scales. Moments are
    given of the rows to train on and of those to test with.
    """
    reduced, bases = reduce_to_snapshots(covariance, covariance.of(train), n_components, objective)
    held_out = test.projected(covariance.in_units(bases)).covariance()
    correlations = held_out_correlations(reduced, held_out, n_components, objective)
    # With few rows held out many ridges are equal, but for what float32 rounds.
    return RIDGES[int(np.argmax(correlations >= correlations.max() - 1e-5))]


def reduce_to_snapshots(covariance, train, n_components, objective):
    """Project a covariance on the span of a few solutions, so that the others cost next to nothing.

    Return it, and the axes of each block: those in which the block is diagonal, as it is then under every ridge.
    """
    # The correlations of different ridges differ by far more than float32 rounds them.
    S = train.astype(np.float32)
    single = covariance._replace(matrix=S)
    names, slices = list(single.blocks), list(single.blocks.values())
    solved = leading_directions(single, dict.fromkeys(names, _SOLVED_RIDGE), n_components, objective)[0]
    stepped = _subspace_step(single, solved, _STEPPED_RIDGE)
    spans = [linalg.qr(np.hstack([solved[name], stepped[name]]), mode="economic")[0] for name in names]
    products = [[S[rows, columns] @ Q for columns, Q in zip(slices, spans, strict=True)] for rows in slices]
    turns = [linalg.eigh(Q.T @ products[i][i])[1] for i, Q in enumerate(spans)]
    bases = [Q @ turn for Q, turn in zip(spans, turns, strict=True)]
    small = np.block(
        [[B.T @ P @ turn for P, turn in zip(row, turns, strict=True)] for B, row in zip(bases, products, strict=True)]
    )
    blocks = consecutive_slices({name: B.shape[1] for name, B in zip(names, bases, strict=True)})
    reduced = single._replace(matrix=small, blocks=blocks, noises=dict.fromkeys(blocks, 0.0))
    return reduced, dict(zip(names, bases, strict=True))


def _subspace_step(covariance, weights, ridge):
    """Regress, with a ridge, the weighted sum of the other blocks' variates on each block."""
    S, blocks, pairs = covariance.matrix, covariance.blocks, pair_weights(covariance.n_pairs, "sumcor")
    stepped = {}
    for (name, rows), shares in zip(blocks.items(), pairs.tolist(), strict=True):
        whitening = block_whitening(covariance, name, ridge)
        sums = sum(
            share * (S[rows, columns] @ W)
            for share, columns, W in zip(shares, blocks.values(), weights.values(), strict=True)
            if share > 0
        )
        stepped[name] = whitening.weights(whitening.left(np.asfortranarray(sums)))
    return stepped


def held_out_correlations(train, test, n_components, objective):
    """Return the mean correlation, for each of ``RIDGES``, of the variates learned from a first covariance in a second.

    Pairs of blocks count by their rows. The blocks of the first are diagonal matrices, so that all ridges are solved
    side by side, as :func:`canonical_weights` would one by one. The second, of the same columns in other rows, is an
    array.
    """
    slices = list(train.blocks.values())
    widths = [columns.stop - columns.start for columns in slices]
    k = min(n_components, largest_rank(train.n_pairs, widths))
    variances = np.maximum(np.diag(train.matrix), 0)
    targets = np.repeat([train.targets[name] for name in train.blocks], widths)
    ridges = np.array(RIDGES)[:, None]
    scales = (((1 - ridges) * variances + ridges * targets) ** -0.5).astype(train.matrix.dtype)
    if len(slices) == 2:
        a, b = slices
        agreement = scales[:, a, None] * train.matrix[a, b] * scales[:, None, b]
        # Eigenvectors of a product take less time than singular vectors. They are imprecise only where correlations are
        # next to nothing, which add nothing to the mean; the lengths of the directions do not matter.
        right = np.linalg.eigh(agreement.transpose(0, 2, 1) @ agreement)[1][:, :, -k:]
        directions = [agreement @ right, right]
    else:
        pairs = pair_weights(train.n_pairs, objective).repeat(widths, axis=0).repeat(widths, axis=1)
        agreement = pairs.astype(scales.dtype) * (scales[:, :, None] * train.matrix * scales[:, None, :])
        # As in _leading_stacks, the identity stands where a block has no weight.
        diagonal = np.arange(len(variances))
        agreement[:, diagonal, diagonal] += 1 - np.diag(pairs)
        stacks = np.linalg.eigh(agreement)[1][:, :, -k:]
        directions = [stacks[:, rows] for rows in slices]
    weights = [scales[:, rows, None] * direction for rows, direction in zip(slices, directions, strict=True)]
    spreads = []
    for columns, W in zip(slices, weights, strict=True):
        learned = (W**2 * variances[columns, None]).sum(axis=1)
        spread = np.sqrt(np.maximum((W * (test[columns, columns] @ W)).sum(axis=1), 0))
        # Directions that did not vary in training belong to no component.
        spreads.append(np.where(learned > _FLAT * learned.max(axis=1, keepdims=True), spread, 0.0))
    total = np.zeros(len(RIDGES))
    for i, columns in enumerate(slices):
        for j in range(i):
            moments = (weights[i] * (test[columns, slices[j]] @ weights[j])).sum(axis=1)
            products = spreads[i] * spreads[j]
            correlations = np.divide(moments, products, out=np.zeros_like(moments), where=products > 0)
            total += train.n_pairs[i, j] * correlations.sum(axis=1)
    return total / (n_components * np.tril(train.n_pairs, -1).sum())


# Blocks with more columns than rows: any covariance of them, ridged or not, and any weights that can matter live in the
# span of their rows.


class RowSpace(NamedTuple):
    """Coordinates of the rows of a block in the space that they span, and how its columns were centred and scaled."""

    coordinates: np.ndarray  # (n_samples, rank); NaN in rows in which the block is missing
    dual: np.ndarray  # (n_present, rank), from rows to a basis of the space
    target: float  # mean variance of the columns that vary
    means: np.ndarray  # of the columns
    scales: np.ndarray  # of the columns; infinite for one that does not vary


def row_space(X_block, present, standardize):
    """Return the row space of a centred block, from the eigenvectors of the inner products of the rows that have it."""
    n_samples, n_features = X_block.shape
    n_present = np.count_nonzero(present)
    means, scales = np.zeros(n_features), np.full(n_features, np.inf)
    gram = np.zeros((n_present, n_present), order="F")
    total, noise = 0.0, 0.0
    for start in range(0, n_features, _WIDE_CHUNK):
        columns = slice(start, start + _WIDE_CHUNK)
        Z = X_block[present, columns].astype(np.float64)
        missing = np.isnan(Z)
        counts = (~missing).sum(axis=0)
        Z[missing] = 0
        means[columns] = np.divide(Z.sum(axis=0), counts, out=np.zeros(Z.shape[1]), where=counts > 0)
        Z -= means[columns]
        Z[missing] = 0
        variances = (Z**2).sum(axis=0) / (n_present - 1)
        rounding = np.finfo(X_block.dtype).eps ** 2 * (means[columns] ** 2 + variances)
        varies = variances > _ROUNDINGS * rounding
        scales[columns] = np.where(varies, np.sqrt(variances) if standardize else 1.0, np.inf)
        Z /= scales[columns]
        gram = blas.dsyrk(1.0, Z.T, beta=1.0, c=gram, trans=1, lower=1, overwrite_c=1)
        total += (variances / scales[columns] ** 2).sum()
        noise = max(noise, (rounding / scales[columns] ** 2).max())
    values, vectors = linalg.eigh(gram, lower=True, overwrite_a=True)
    noise *= (np.sqrt(n_present) + np.sqrt(n_features)) ** 2
    varying = values > max(_SMALLEST_VARIANCE * values[-1], noise)
    lengths = np.sqrt(values[varying])
    coordinates = np.full((n_samples, len(lengths)), np.nan)
    coordinates[present] = vectors[:, varying] * lengths
    target = total / max(np.count_nonzero(np.isfinite(scales)), 1)
    return RowSpace(coordinates, vectors[:, varying] / lengths, target, means, scales)


def primal_weights(X_block, present, space, weights):
    """Return weights of the columns of a block, in its units, from those of its coordinates in the row space."""
    dual_weights = space.dual @ weights
    primal = np.empty((X_block.shape[1], weights.shape[1]))
    for start in range(0, len(primal), _WIDE_CHUNK):
        columns = slice(start, start + _WIDE_CHUNK)
        Z = X_block[present, columns].astype(np.float64)
        Z -= space.means[columns]
        Z[np.isnan(Z)] = 0
        primal[columns] = (Z.T @ dual_weights) / space.scales[columns, None] ** 2
    return primal
