"""Filling in of missing modalities, from the modalities that a row has."""

from numbers import Integral, Real

import numpy as np
from scipy import linalg
from sklearn.utils import gen_batches

from .._array_api import chunks_of_rows, is_single, like, namespace, precise_dtype, take_rows, to_numpy
from .._missing import column_variances, missing_blocks
from .._sklearn import Interval, StrOptions
from ._base import BlockTransformer
from .joint import ledoit_wolf


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

    **Other arrays** (torch, CuPy) come in by scikit-learn's array API dispatch, and stay on their device,
    but for "neighbors", which raises an error; "regression" takes blocks with fewer rows than columns to the CPU.

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
        if self.strategy == "neighbors" and not isinstance(X, np.ndarray):
            raise TypeError(
                f"ModalityImputer(strategy={self.strategy!r}) takes NumPy arrays only, got {type(X).__module__}; "
                "convert X first, or fill in means or regressions."
            )

    def _fit_blocks(self, X, y):
        self.regularization_ = None
        if self.strategy in ("mean", "zero"):
            return
        missing = missing_blocks(X, self.blocks_)
        spreads = np.sqrt(column_variances(X, self._means))
        # Of a column that varies by rounding only, 1.
        noise = 10 * float(namespace(X).finfo(X.dtype).eps) * np.sqrt(X.shape[0]) * np.abs(self._means)
        self._spreads = np.where(spreads > noise, spreads, 1.0)
        Z = self._standardize(self._fill(X))
        blocks = list(self.blocks_.values())
        if self.strategy == "regression":
            self._model = _ConditionalExpectation(blocks).fit(Z, missing, self.regularization)
            self.regularization_ = self._model.regularization
        else:
            self._model = _NearestRows(blocks, self.n_neighbors).fit(Z, missing)

    def _standardize(self, filled):
        """Unit variance by column, in float64 up to the result."""
        xp = namespace(filled)
        means, spreads = like(self._means, filled, precise=True), like(self._spreads, filled, precise=True)
        Z = xp.empty_like(filled)
        for rows in chunks_of_rows(filled):
            Z[rows, :] = xp.astype((filled[rows, :] - means) / spreads, Z.dtype)
        return Z

    def _transform_blocks(self, X):
        missing = missing_blocks(X, self.blocks_)
        filled = self._fill(X)
        xp = namespace(X)
        if self.strategy != "mean" and missing.any():
            if self.strategy == "zero":
                expected = xp.zeros_like(filled)
            else:
                expected = self._model.predict(self._standardize(filled), missing)
                expected = expected * like(self._spreads, X) + like(self._means, X)
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


class _ConditionalExpectation:
    """Expectation of the missing blocks given the present ones, under a normal model of centred columns."""

    def __init__(self, blocks):
        self.blocks = blocks

    def fit(self, Z, missing, regularization):
        self.bases = [
            _basis(take_rows(Z[:, columns], ~absent)) for columns, absent in zip(self.blocks, missing.T, strict=True)
        ]
        widths = [part.shape[1] for part in self._coordinates(Z[:1, :])]
        ends = np.cumsum(widths).tolist()
        self.slices = [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]
        covariance, fourth = np.zeros((ends[-1], ends[-1])), 0.0
        xp = namespace(Z)
        for rows in chunks_of_rows(Z):
            # Rows that lack a block hold its mean, zero, and so add nothing to the products.
            T = xp.concat(self._coordinates(xp.astype(Z[rows, :], precise_dtype(Z))), axis=1)
            covariance += to_numpy(T.T @ T)
            fourth += float(xp.sum(xp.sum(T * T, axis=1) ** 2))
        n_samples, n_features = Z.shape[0], ends[-1]
        if regularization == "auto":
            free = max(n_samples - 1, 1)
            target = np.trace(covariance) / free / n_features
            estimable = n_samples > 1 and target > 0
            regularization = ledoit_wolf(covariance / free, target, n_samples, fourth) if estimable else 1.0
        self.regularization = float(regularization)

        present = (~missing).astype(np.float64)
        count = np.maximum(present.T @ present, 1)
        for a, own in enumerate(self.slices):
            for b, other in enumerate(self.slices):
                covariance[own, other] /= count[a, b]
        if missing.any():
            values, vectors = linalg.eigh(covariance)
            if values[0] < 0:
                covariance = (vectors * np.maximum(values, 0)) @ vectors.T
        floor = self.regularization * np.trace(covariance) / n_features
        self.covariance = (1 - self.regularization) * covariance
        self.covariance[np.diag_indices_from(covariance)] += floor
        return self

    def predict(self, Z, missing):
        xp = namespace(Z)
        patterns, inverse = np.unique(missing, axis=0, return_inverse=True)
        groups = [np.flatnonzero(inverse.reshape(-1) == i) for i in range(len(patterns))]
        filled = [self._expect(take_rows(Z, rows), pattern) for rows, pattern in zip(groups, patterns, strict=True)]
        return take_rows(xp.concat(filled, axis=0), np.argsort(np.concatenate(groups)))

    def _expect(self, Z, pattern):
        """Fill the missing blocks of rows that lack the same ones; zeros, their mean, where none is there."""
        absent, present = np.flatnonzero(pattern), np.flatnonzero(~pattern)
        if len(absent) == 0 or len(present) == 0:
            return Z
        xp = namespace(Z)
        coordinates = self._coordinates(Z)
        known = xp.concat([coordinates[b] for b in present], axis=1)
        inside = np.concatenate([np.arange(self.slices[b].start, self.slices[b].stop) for b in present])
        own = self.covariance[np.ix_(inside, inside)]
        for b in absent:
            weights = self._solve(own, self.covariance[inside, self.slices[b]])
            weights = weights if self.bases[b] is None else weights @ self.bases[b].T
            Z[:, self.blocks[b]] = known @ like(weights, Z)
        return Z

    def _coordinates(self, Z):
        """Give the blocks in the columns of the covariance."""
        return [
            Z[:, columns] if basis is None else Z[:, columns] @ like(basis, Z)
            for columns, basis in zip(self.blocks, self.bases, strict=True)
        ]

    def _solve(self, covariance, target):
        if self.regularization > 1e-8 and covariance.trace() > 0:
            return linalg.solve(covariance, target, assume_a="pos")
        return linalg.pinvh(covariance) @ target


def _basis(Z):
    """Principal axes of a block with fewer rows than columns, None for any other."""
    n_samples, n_features = Z.shape
    if n_samples >= n_features:
        return None
    eps = np.finfo(np.float32 if is_single(Z) else np.float64).eps
    _, s, Vt = linalg.svd(to_numpy(Z).astype(np.float64), full_matrices=False)
    rank = max(1, np.count_nonzero(s > s[0] * n_features * eps))
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
