"""Imputation of missing modalities, from the modalities that a row has."""

from numbers import Integral, Real

import numpy as np
from scipy import linalg
from sklearn.base import clone
from sklearn.utils import gen_batches

from .._columns import CHUNK_OF_ROWS, column_variances
from .._sklearn import Interval, StrOptions
from .._typing import Blocks
from ._base import BlockTransformer
from ._moments import consecutive_slices, ledoit_wolf_shrinkage, take_rows


class ModalityImputer(BlockTransformer):
    r"""Fill in the blocks that a row lacks, from the blocks that it has.

    With ``strategy="regression"`` the columns are taken to be jointly normal, and the missing ones
    (m) become their conditional expectation given those that are present (p),

    .. math:: \hat x_m = \bar x_m + \tilde\Sigma_{mp} \tilde\Sigma_{pp}^{-1} (x_p - \bar x_p), \qquad
              \tilde\Sigma = (1 - r)\,\Sigma + r\,\frac{\operatorname{tr}\Sigma}{p}\,I,

    which is a ridge regression for each pattern of missing blocks. With ``strategy="neighbors"`` they
    become the mean over the rows of ``fit`` that have the block and are nearest in the blocks that both
    rows have, each block at the same total variance.

    Parameters
    ----------
    strategy : {"mean", "zero", "regression", "neighbors"}, default="mean"
        What a missing block becomes: the mean of its columns, zeros, what a regression on the present
        blocks says, or the mean of its nearest neighbours.

    regularization : "auto" or float in [0, 1], default="auto"
        Ridge r of ``strategy="regression"``, on columns of unit variance. "auto" is the Ledoit-Wolf estimate.

    n_neighbors : int, default=15
        Number of neighbours of ``strategy="neighbors"``.

    add_indicator : bool, default=False
        Whether to append one column per block that is 1 where it was missing and 0 elsewhere.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block, as in :class:`ConcatFusion`.

    Attributes
    ----------
    regularization_ : float or None
        The ridge of ``strategy="regression"``.

    blocks_ : dict of str to slice
        Columns of each block, closed.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    sklearn.impute.KNNImputer : Neighbours by single cells.
    sklearn.impute.IterativeImputer : Regressions by single cells.
    ConcatFusion : Fills in means, and scales the blocks.

    Notes
    -----
    Covariances come, for each pair of blocks, from the rows that have both, and are moved to the
    nearest positive semidefinite matrix where that matters. A block with fewer rows than columns is
    rotated to its principal components before, which changes no prediction. Memory grows with the
    square of the number of columns for ``"regression"``; ``"neighbors"`` keeps the rows of ``fit``.

    **Missing blocks.** A row without any block gets the means of all columns (for ``"zero"``, zeros).

    Strategies that can fill blocks in take an imputer as their parameter ``imputer``. Before any other, it goes
    into a pipeline; inside of :class:`ModalityFuser` the strategy after it gets the blocks as well, unless
    ``add_indicator`` is set.

    References
    ----------
    .. [1] R. J. A. Little and D. B. Rubin, "Statistical Analysis with Missing Data", Wiley (2002).
    .. [2] O. Troyanskaya et al., "Missing value estimation methods for DNA microarrays", Bioinformatics 17 (2001).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.fusion import ModalityImputer
    >>> X = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 5.0], [3.0, np.nan]])
    >>> blocks = {"a": slice(0, 1), "b": slice(1, 2)}
    >>> ModalityImputer(blocks=blocks).fit_transform(X)[3]
    array([3., 3.])
    >>> ModalityImputer("neighbors", n_neighbors=1, blocks=blocks).fit_transform(X)[3]
    array([3., 5.])
    """

    _parameter_constraints: dict = {
        **BlockTransformer._parameter_constraints,
        "strategy": [StrOptions({"mean", "zero", "regression", "neighbors"})],
        "regularization": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "add_indicator": ["boolean"],
    }

    def __init__(
        self,
        strategy: str = "mean",
        *,
        regularization: float | str = "auto",
        n_neighbors: int = 15,
        add_indicator: bool = False,
        blocks: Blocks = None,
    ):
        self.strategy = strategy
        self.regularization = regularization
        self.n_neighbors = n_neighbors
        self.add_indicator = add_indicator
        self.blocks = blocks

    def _fit_blocks(self, X, y):
        self.regularization_ = None
        if self.strategy in ("mean", "zero"):
            return
        missing = self._missing(X)
        spreads = np.sqrt(column_variances(X, self._means))
        # A standard deviation that rounding can make of a constant counts as 1.
        noise = 10 * np.finfo(np.float64).eps * np.sqrt(len(X)) * np.abs(self._means)
        self._spreads = np.where(spreads > noise, spreads, 1.0)
        Z = self._standardize(self._fill(X))
        if self.strategy == "regression":
            self._model = _ConditionalExpectation(Z, missing, self.blocks_, self.regularization)
            self.regularization_ = self._model.regularization
        else:
            self._model = _NearestRows(Z, missing, self.blocks_, self.n_neighbors)

    def _standardize(self, filled):
        """Return columns of unit variance, computed in float64 up to the result."""
        Z = np.empty_like(filled)
        for rows in gen_batches(len(filled), CHUNK_OF_ROWS):
            Z[rows] = (filled[rows] - self._means) / self._spreads
        return Z

    def _transform_blocks(self, X):
        missing = self._missing(X)
        filled = self._fill(X)
        if self.strategy != "mean" and missing.any():
            expected = np.zeros_like(filled)
            if self.strategy != "zero":
                expected = self._model.predict(self._standardize(filled), missing)
                expected = expected * self._spreads.astype(X.dtype) + self._means.astype(X.dtype)
            # With a block missing, what was filled is a copy.
            for columns, rows in zip(self.blocks_.values(), missing.T, strict=True):
                filled[rows, columns] = expected[rows, columns]
        if self.add_indicator:
            return np.hstack([filled, missing.astype(X.dtype)])
        return filled

    def _names_out(self, input_features):
        return np.concatenate([input_features, self._indicator_names()])

    def _indicator_names(self):
        names = self.blocks_ if self.add_indicator else []
        return np.array([f"{name}__missing" if name else "missing" for name in names], dtype=object)


class ImputedBlockTransformer(BlockTransformer):
    """Base of the strategies with a parameter ``imputer``, which fills missing blocks in before they are joined."""

    _parameter_constraints: dict = {
        **BlockTransformer._parameter_constraints,
        "imputer": [*ModalityImputer._parameter_constraints["strategy"], ModalityImputer, None],
    }

    def _fit_impute(self, X):
        """Fill in what is missing; return the blocks, and columns to append to the output, None for none."""
        imputer = ModalityImputer(self.imputer) if isinstance(self.imputer, str) else clone(self.imputer)
        if imputer.blocks is not None:
            raise ValueError(
                f"{type(self).__name__} sets the blocks of its imputer; leave them at None, got {imputer.blocks!r}."
            )
        # The next steps need arrays, whatever the global configuration says.
        blocks = None if "" in self.blocks_ else self.blocks_
        self.imputer_ = imputer.set_params(blocks=blocks).set_output(transform="default")
        return self._split(self.imputer_.fit_transform(X))

    def _impute(self, X):
        return self._split(self.imputer_.transform(X))

    def _split(self, filled):
        """Split the indicators, which belong to no block, from the blocks."""
        width = self.n_features_in_
        return (filled, None) if filled.shape[1] == width else (filled[:, :width], filled[:, width:])


class _ConditionalExpectation:
    """Expectation of the missing blocks given the present ones, under a normal model of centred columns."""

    def __init__(self, Z, missing, blocks, regularization):
        self.blocks = list(blocks.values())
        self.bases = [
            _basis(take_rows(Z[:, columns], ~rows)) for columns, rows in zip(self.blocks, missing.T, strict=True)
        ]
        # Columns of the covariance, by position of the block.
        self.slices = consecutive_slices({b: self._rotated(Z[:1], b).shape[1] for b in range(len(blocks))})
        n_samples = len(Z)
        n_features = self.slices[len(blocks) - 1].stop
        products, fourth_powers = np.zeros((n_features, n_features)), 0.0
        for rows in gen_batches(len(Z), CHUNK_OF_ROWS):
            # Rows that lack a block hold its mean, zero, and so add nothing to the products.
            chunk = Z[rows].astype(np.float64)
            T = np.hstack([self._rotated(chunk, b) for b in range(len(blocks))])
            products += T.T @ T
            fourth_powers += np.sum(np.sum(T * T, axis=1) ** 2)
        if regularization == "auto":
            free = max(n_samples - 1, 1)
            target = np.trace(products) / free / n_features
            estimable = n_samples > 1 and target > 0
            regularization = (
                ledoit_wolf_shrinkage(products / free, target, n_samples, fourth_powers) if estimable else 1.0
            )
        self.regularization = float(regularization)

        present = (~missing).astype(np.float64)
        counts = np.maximum(present.T @ present, 1)
        covariance = products
        for a, rows in self.slices.items():
            for b, columns in self.slices.items():
                covariance[rows, columns] /= counts[a, b]
        if missing.any():
            # Covariances from different rows need not fit together.
            values, vectors = linalg.eigh(covariance)
            if values[0] < 0:
                covariance = (vectors * np.maximum(values, 0)) @ vectors.T
        floor = self.regularization * np.trace(covariance) / n_features
        self.covariance = (1 - self.regularization) * covariance
        self.covariance[np.diag_indices_from(covariance)] += floor

    def predict(self, Z, missing):
        filled = Z.copy()
        for pattern in np.unique(missing, axis=0):
            # A row without any block keeps zeros, the means.
            if pattern.any() and not pattern.all():
                rows = (missing == pattern).all(axis=1)
                filled[rows] = self._expect(Z[rows], pattern)
        return filled

    def _expect(self, Z, pattern):
        """Fill the missing blocks of rows that lack the same ones."""
        present = np.repeat(~pattern, [columns.stop - columns.start for columns in self.slices.values()])
        x = np.hstack([self._rotated(Z, b) for b in np.flatnonzero(~pattern)])
        for b in np.flatnonzero(pattern):
            slopes = self._solve(self.covariance[np.ix_(present, present)], self.covariance[present, self.slices[b]])
            slopes = slopes if self.bases[b] is None else slopes @ self.bases[b].T
            Z[:, self.blocks[b]] = x @ slopes.astype(Z.dtype)
        return Z

    def _rotated(self, Z, b):
        """Return one block in the columns of the covariance."""
        block, basis = Z[:, self.blocks[b]], self.bases[b]
        return block if basis is None else block @ basis.astype(Z.dtype)

    def _solve(self, covariance, cross):
        if self.regularization > 1e-8 and covariance.trace() > 0:
            return linalg.solve(covariance, cross, assume_a="pos")
        return linalg.pinvh(covariance) @ cross


def _basis(Z):
    """Return the principal axes of a block with fewer rows than columns, None for any other."""
    n_samples, n_features = Z.shape
    if n_samples >= n_features:
        return None
    _, s, Vt = linalg.svd(Z.astype(np.float64), full_matrices=False)
    rank = max(1, np.count_nonzero(s > s[0] * n_features * np.finfo(Z.dtype).eps))
    return Vt[:rank].T


class _NearestRows:
    """Mean of a block over the fitted rows that are nearest in the blocks that both rows have."""

    def __init__(self, Z, missing, blocks, n_neighbors):
        self.Z = Z
        self.missing = missing
        self.blocks = list(blocks.values())
        self.n_neighbors = n_neighbors

    def predict(self, Z, missing):
        out = np.zeros_like(Z)
        for batch in gen_batches(len(Z), 512):
            rows = batch.start + np.flatnonzero(missing[batch].any(axis=1))
            if len(rows) == 0:
                continue
            distances = self._distances(Z[rows], missing[rows])
            for b, columns in enumerate(self.blocks):
                lacking = missing[rows, b]
                if lacking.any():
                    donors = np.flatnonzero(~self.missing[:, b])
                    out[rows[lacking], columns] = self._mean_of_nearest(
                        distances[np.ix_(lacking, donors)], self.Z[donors, columns]
                    )
        return out

    def _distances(self, Z, missing):
        """Return the mean over the shared blocks of the mean squared difference of columns; infinite without any."""
        total = np.zeros((len(Z), len(self.Z)))
        shared = np.zeros_like(total)
        for b, columns in enumerate(self.blocks):
            both = ~missing[:, [b]] & ~self.missing[:, b]
            A, B = Z[:, columns], self.Z[:, columns]
            squares = (A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1) - 2 * A @ B.T
            total += np.where(both, np.maximum(squares, 0) / A.shape[1], 0)
            shared += both
        return np.divide(total, shared, out=np.full_like(total, np.inf), where=shared > 0)

    def _mean_of_nearest(self, distances, donors):
        k = min(self.n_neighbors, len(donors))
        nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
        usable = np.isfinite(np.take_along_axis(distances, nearest, axis=1))
        weights = usable / np.maximum(usable.sum(axis=1, keepdims=True), 1)
        return np.einsum("rk,rkp->rp", weights, donors[nearest])
