"""Filling in of missing modalities, from the modalities that a row has."""

from numbers import Integral, Real

import numpy as np
from scipy import linalg
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.utils import gen_batches

from .._array_api import like, namespace
from .._missing import missing_blocks
from .._validation import Interval, StrOptions
from ._base import BlockTransformer


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
        Ridge r of ``strategy="regression"``, on columns of unit variance. "auto" is the Ledoit-Wolf
        estimate.

    n_neighbors : int, default=15
        Number of neighbours of ``strategy="neighbors"``.

    add_indicator : bool, default=False
        Whether to append one column per block that is 1 where it was missing and 0 elsewhere.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block, as in :class:`ConcatFusion`. Inside :class:`ModalityFuser` it is set
        by the fuser.

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

    **Missing blocks.** A row without any block gets the means of all columns (for ``"zero"``, zeros). A
    single missing cell becomes the mean of its column, whatever the strategy. A block that is missing
    in every row at ``fit`` raises an error.

    Strategies that can fill blocks in take an imputer as their parameter ``imputer``. Before any other, it goes
    into a pipeline; inside of :class:`ModalityFuser` the strategy after it gets the blocks as well, unless
    ``add_indicator`` is set.

    References
    ----------
    .. [1] R. J. A. Little and D. B. Rubin, "Statistical Analysis with Missing Data", Wiley (2002).
    .. [2] O. Troyanskaya et al., "Missing value estimation methods for DNA microarrays",
       Bioinformatics 17 (2001).

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

    def __init__(self, strategy="mean", *, regularization="auto", n_neighbors=15, add_indicator=False, blocks=None):
        self.strategy = strategy
        self.regularization = regularization
        self.n_neighbors = n_neighbors
        self.add_indicator = add_indicator
        self.blocks = blocks

    def _check_library(self, X):
        if self.strategy in ("regression", "neighbors") and not isinstance(X, np.ndarray):
            raise TypeError(
                f"ModalityImputer(strategy={self.strategy!r}) takes NumPy arrays only, got {type(X).__module__}; "
                "convert X first, or fill in means."
            )

    def _fit_blocks(self, X, y):
        self.regularization_ = None
        if self.strategy in ("mean", "zero"):
            return
        missing = missing_blocks(X, self.blocks_)
        filled = self._fill(X)
        self._spreads = np.ones(X.shape[1])
        for columns, absent in zip(self.blocks_.values(), missing.T, strict=True):
            self._spreads[columns] = _spread(filled[~absent, columns], self._means[columns])
        Z = self._standardize(filled)
        blocks = list(self.blocks_.values())
        if self.strategy == "regression":
            self._model = _ConditionalExpectation(blocks).fit(Z, missing, self.regularization)
            self.regularization_ = self._model.regularization
        else:
            self._model = _NearestRows(blocks, self.n_neighbors).fit(Z, missing)

    def _standardize(self, filled):
        """Unit variance by column, in float64 up to the result."""
        Z = np.empty_like(filled)
        for columns in self.blocks_.values():
            Z[:, columns] = (filled[:, columns] - self._means[columns]) / self._spreads[columns]
        return Z

    def _transform_blocks(self, X):
        missing = missing_blocks(X, self.blocks_)
        filled = self._fill(X)
        xp = namespace(X)
        if self.strategy != "mean" and missing.any():
            if self.strategy == "zero":
                expected = xp.zeros_like(filled)
            else:
                expected = self._model.predict(self._standardize(filled), missing) * self._spreads + self._means
                expected = expected.astype(X.dtype)
            filled = xp.where(like(self._by_column(missing), X) != 0, expected, filled)
        if self.add_indicator:
            return xp.concat([filled, like(missing, X)], axis=1)
        return filled

    def _by_column(self, missing):
        """Spread a mask of blocks over their columns."""
        mask = np.empty((len(missing), self.n_features_in_), dtype=bool)
        for columns, absent in zip(self.blocks_.values(), missing.T, strict=True):
            mask[:, columns] = absent[:, None]
        return mask

    def _names_out(self, input_features):
        return input_features

    def _added_names(self):
        names = self.blocks_ if self.add_indicator else []
        return np.array([f"{name}__missing" if name else "missing" for name in names], dtype=object)


def _spread(X, means):
    """Standard deviation of each column; 1 for one that varies by rounding only."""
    spread = np.sqrt(np.mean((X - means) ** 2, axis=0))
    noise = 10 * np.finfo(X.dtype).eps * np.sqrt(len(X)) * np.abs(means)
    return np.where(spread > noise, spread, 1.0)


class _ConditionalExpectation:
    """Expectation of the missing blocks given the present ones, under a normal model of centred columns."""

    def __init__(self, blocks):
        self.blocks = blocks

    def fit(self, Z, missing, regularization):
        n_blocks = len(self.blocks)
        self.bases = [_basis(Z[~absent, columns]) for columns, absent in zip(self.blocks, missing.T, strict=True)]
        # Rows that lack a block hold its mean, zero, and so add nothing to the products.
        parts = [Z[:, columns].astype(np.float64) for columns in self.blocks]
        parts = [part if basis is None else part @ basis for part, basis in zip(parts, self.bases, strict=True)]
        ends = np.cumsum([part.shape[1] for part in parts])
        self.slices = [slice(end - part.shape[1], end) for part, end in zip(parts, ends, strict=True)]
        T = np.hstack(parts)
        present = (~missing).astype(np.float64)
        count = np.maximum(present.T @ present, 1)
        covariance = T.T @ T
        for a in range(n_blocks):
            for b in range(n_blocks):
                covariance[self.slices[a], self.slices[b]] /= count[a, b]
        if missing.any():
            values, vectors = linalg.eigh(covariance)
            if values[0] < 0:
                covariance = (vectors * np.maximum(values, 0)) @ vectors.T
        if regularization == "auto":
            regularization = ledoit_wolf_shrinkage(T, assume_centered=True) if len(T) > 1 else 1.0
        self.regularization = float(regularization)
        floor = self.regularization * np.trace(covariance) / len(covariance)
        self.covariance = (1 - self.regularization) * covariance
        self.covariance[np.diag_indices_from(covariance)] += floor
        return self

    def predict(self, Z, missing):
        out = np.zeros_like(Z)
        parts = [
            Z[:, columns] if basis is None else Z[:, columns] @ basis.astype(Z.dtype)
            for columns, basis in zip(self.blocks, self.bases, strict=True)
        ]
        for pattern in np.unique(missing[missing.any(axis=1) & ~missing.all(axis=1)], axis=0):
            rows = (missing == pattern).all(axis=1)
            absent, present = np.flatnonzero(pattern), np.flatnonzero(~pattern)
            known = np.hstack([parts[b][rows] for b in present])
            inside = np.concatenate([np.arange(self.slices[b].start, self.slices[b].stop) for b in present])
            own = self.covariance[np.ix_(inside, inside)]
            for b in absent:
                weights = self._solve(own, self.covariance[inside, self.slices[b]]).astype(Z.dtype)
                expected = known @ weights
                basis = self.bases[b]
                out[rows, self.blocks[b]] = expected if basis is None else expected @ basis.T.astype(Z.dtype)
        return out

    def _solve(self, covariance, target):
        if self.regularization > 1e-8 and covariance.trace() > 0:
            return linalg.solve(covariance, target, assume_a="pos")
        return linalg.pinvh(covariance) @ target


def _basis(Z):
    """Principal axes of a block with fewer rows than columns, None for any other."""
    n_samples, n_features = Z.shape
    if n_samples >= n_features:
        return None
    _, s, Vt = linalg.svd(Z.astype(np.float64), full_matrices=False)
    rank = max(1, np.count_nonzero(s > s[0] * n_features * np.finfo(Z.dtype).eps))
    return Vt[:rank].T


class _NearestRows:
    """Mean of a block over the fitted rows that are nearest in the blocks that both rows have."""

    def __init__(self, blocks, n_neighbors):
        self.blocks = blocks
        self.n_neighbors = n_neighbors

    def fit(self, Z, missing):
        self.Z = Z
        self.missing = missing
        return self

    def predict(self, Z, missing):
        out = np.zeros_like(Z)
        for batch in gen_batches(len(Z), 512):
            rows = np.arange(batch.start, batch.stop)[missing[batch].any(axis=1)]
            if len(rows):
                distances = self._distances(Z[rows], missing[rows])
                for b, columns in enumerate(self.blocks):
                    lacking = missing[rows, b]
                    donors = np.flatnonzero(~self.missing[:, b])
                    if lacking.any() and len(donors):
                        out[rows[lacking], columns] = self._mean_of_nearest(
                            distances[np.ix_(lacking, donors)], self.Z[donors, columns]
                        )
        return out

    def _distances(self, Z, missing):
        """Mean over the shared blocks of the mean squared difference of columns; infinite without any."""
        total = np.zeros((len(Z), len(self.Z)))
        shared = np.zeros_like(total)
        for b, columns in enumerate(self.blocks):
            both = ~missing[:, [b]] & ~self.missing[:, b]
            theirs, ours = self.Z[:, columns], Z[:, columns]
            squared = (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1) - 2 * ours @ theirs.T
            total += np.where(both, np.maximum(squared, 0) / ours.shape[1], 0)
            shared += both
        return np.divide(total, shared, out=np.full_like(total, np.inf), where=shared > 0)

    def _mean_of_nearest(self, distances, donors):
        k = min(self.n_neighbors, len(donors))
        nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
        usable = np.isfinite(np.take_along_axis(distances, nearest, axis=1))
        weights = usable / np.maximum(usable.sum(axis=1, keepdims=True), 1)
        return np.einsum("rk,rkp->rp", weights, donors[nearest])
