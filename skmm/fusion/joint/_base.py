"""What all joint embeddings share: blocks that are mapped into one space, and from there to each other.

A concrete strategy writes ``_score_block``, which returns the variates of one block, and ends its
``_fit_blocks`` with ``_set_space`` (or ``_learn_space``, which computes the moments that it needs from rows).
Completion of missing blocks, outputs and prediction of one modality from another follow from these second moments.
"""

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from sklearn.utils import check_consistent_length, gen_batches
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ..._columns import CHUNK_OF_ROWS, column_means, column_variances
from ..._sklearn import Interval, StrOptions
from ..._typing import Matrix
from .._base import N_COMPONENTS, BlockTransformer, missing_blocks, signs_by_largest
from .._moments import consecutive_slices, present_blocks, take_rows

# Smallest variance of a combination of variates, relative to the largest, from which others are predicted. Blocks that
# agree perfectly have combinations that are nothing but rounding.
_SMALLEST_VARIANCE = 1e-10


def _compares_blocks(estimator):
    """Return True if there can be two blocks; else raise an AttributeError that says why not."""
    if estimator.blocks is None:
        raise AttributeError(f"{type(estimator).__name__}: score compares blocks, but blocks=None is a single one.")
    return True


class JointEmbedding(BlockTransformer):
    """Base of the strategies that map every block into one space of ``n_components_`` dimensions.

    A strategy has the parameters ``n_components``, ``target``, ``weighting``, ``power``, ``output`` and ``blocks``.
    """

    _parameter_constraints: dict = {
        **BlockTransformer._parameter_constraints,
        "n_components": N_COMPONENTS,
        "target": [StrOptions({"block"}), None],
        "weighting": [StrOptions({"correlation"}), None],
        "power": [Interval(Real, 0, None, closed="left")],
        "output": [StrOptions({"concat", "mean", "sum"})],
    }
    _min_samples = 2

    @property
    def _min_blocks(self):
        return 1 if self._needs_y() else 2

    def _needs_y(self):
        return self.target == "block"

    def _validate_fit(self, X, y):
        # Labels may be missing, so that y is checked where it is encoded.
        X = self._validate(X, None if y is None else "no_validation", reset=True, ensure_min_samples=self._min_samples)
        if not self._needs_y():
            return X, None
        check_consistent_length(X, y)
        return X, y

    def transform_modality(self, X_block: Matrix, name: str) -> np.ndarray:
        """Map one modality into the joint space.

        Parameters
        ----------
        X_block : array-like of shape (n_samples, n_block_features)
            Columns of one block, in the units of ``fit``, with NaN in missing cells.

        name : str
            Name of the block.

        Returns
        -------
        variates : ndarray of shape (n_samples, n_components_)
            Variates of the block, weighted as ``weighting`` says; zeros, their mean, in rows in which it is missing.
        """
        return self._weigh(self._unweighted_variates(X_block, name))

    def _unweighted_variates(self, X_block, name):
        """Return the variates of a block as they are before any weighting."""
        check_is_fitted(self)
        columns = self._columns_of(name)
        X_block = self._validate_block(X_block)
        width = columns.stop - columns.start
        if X_block.shape[1] != width:
            raise ValueError(
                f"{type(self).__name__}: block {name!r} has {width} columns, got an array with {X_block.shape[1]}."
            )
        X_block = self._scale(X_block, columns)
        missing = missing_blocks(X_block, {name: slice(0, width)})[:, 0]
        variates = self._score_block(self._fill(X_block, columns), name)
        variates[missing] = 0
        return variates

    def predict_modality(self, X_block: Matrix, source: str, target: str) -> np.ndarray:
        """Predict one modality from another, by way of the joint space.

        It is the linear regression of the target's columns on the variates of the source, as learned in ``fit``.

        Parameters
        ----------
        X_block : array-like of shape (n_samples, n_source_features)
            Columns of the source block, in the units of ``fit``, with NaN in missing cells.

        source : str
            Name of the block that X_block is.

        target : str
            Name of the block to predict.

        Returns
        -------
        X_target : ndarray of shape (n_samples, n_target_features)
            Expected columns of the target block, in the units of ``fit``; their means in rows in which
            the source is missing.
        """
        variates = self._unweighted_variates(X_block, source)
        means = self._means[self._columns_of(target)]
        k = self._variates_of(source)
        slopes = _regression(self._covariance[k, k], self._cross[target][:, k].T)
        return variates @ slopes.astype(variates.dtype) + means.astype(variates.dtype)

    @available_if(_compares_blocks)
    def score(self, X: Matrix, y: ArrayLike | None = None) -> float:
        """Return the mean correlation of the variates of different blocks in X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side, with NaN in missing cells.

        y : None
            Ignored.

        Returns
        -------
        score : float
            Mean of the correlations over the components and the pairs of blocks, each from the rows that
            have both blocks; a component that does not vary counts as 0.

        Raises
        ------
        ValueError
            If no two rows of X have the same two blocks.
        """
        check_is_fitted(self)
        X = self._scale(self._validate(X, reset=False))
        present = ~self._missing(X)
        variates = self._score_blocks(X)
        correlations = []
        for a in range(len(self.blocks_)):
            for b in range(a):
                both = present[:, a] & present[:, b]
                if np.count_nonzero(both) > 1:
                    correlations.append(_paired_correlations(variates[a][both], variates[b][both]))
        if not correlations:
            raise ValueError(f"{type(self).__name__}: score needs at least 2 rows that have the same two blocks.")
        return float(np.mean(correlations))

    def _transform_blocks(self, X):
        missing = missing_blocks(X, self.blocks_)
        variates = np.hstack(self._score_blocks(X))
        for pattern in np.unique(missing[missing.any(axis=1)], axis=0):
            # The conditional expectation of the variates of missing blocks, given the others.
            rows = (missing == pattern).all(axis=1)
            m = np.repeat(pattern, self.n_components_)
            slopes = _regression(self._covariance[np.ix_(~m, ~m)], self._covariance[np.ix_(~m, m)])
            variates[np.ix_(rows, m)] = variates[np.ix_(rows, ~m)] @ slopes.astype(X.dtype)
        by_block = self._weigh(variates.reshape(len(X), len(self.blocks_), self.n_components_))
        if self.output == "concat":
            return by_block.reshape(len(X), -1)
        return by_block.mean(axis=1) if self.output == "mean" else by_block.sum(axis=1)

    def _weigh(self, variates):
        """Return variates, with components on the last axis, multiplied by what ``weighting`` says."""
        if self.weighting is None:
            return variates
        return variates * (np.maximum(self.correlations_, 0) ** self.power).astype(variates.dtype)

    def _score_blocks(self, X):
        """Return the variates of each block of the scaled matrix; those of missing blocks mean nothing."""
        filled = self._fill(X)
        return [self._score_block(filled[:, columns], name) for name, columns in self.blocks_.items()]

    def _score_block(self, X_block, name):
        """Return the variates of one block, scaled and without NaN, as a new array."""
        raise NotImplementedError

    def _check_pairs(self, counts, blocks):
        """Raise unless every block meets another one in two rows."""
        together = counts - np.diag(np.diag(counts))
        for name, most in zip(blocks, together.max(axis=0), strict=True):
            if most < 2:
                raise ValueError(
                    f"{type(self).__name__} learns from rows that have two blocks, and needs at least 2 with block "
                    f"{name!r} and the same other block, got {int(most)}; leave out a modality that is rarely present."
                )

    def _columns_of(self, name):
        """Return the slice of a block's columns."""
        if name not in self.blocks_:
            raise ValueError(f"{type(self).__name__}: there is no block {name!r}; the blocks are {list(self.blocks_)}.")
        return self.blocks_[name]

    def _variates_of(self, name):
        """Return the slice of a block's variates among those of all blocks."""
        start = list(self.blocks_).index(name) * self.n_components_
        return slice(start, start + self.n_components_)

    def _set_space(self, covariance, cross, variances):
        """Learn from the covariance of the variates of all blocks; ``n_components_`` and ``n_pairs_`` are set before.

        By block, ``cross`` holds the covariance of the columns with these variates, and ``variances`` the variances of
        the columns, both in the units of X. Return the signs by which the strategy multiplies its variates, so that the
        largest loading of the first block is positive, component by component. A target may follow the blocks; it
        counts for the correlations only.
        """
        k = self.n_components_
        m = len(covariance) // k
        loadings = {}
        for name in self.blocks_:
            products, variates = cross[name], self._variates_of(name)
            spreads = np.sqrt(np.outer(variances[name], np.diag(covariance)[variates]))
            loadings[name] = np.divide(products[:, variates], spreads, out=np.zeros_like(spreads), where=spreads > 0)
        signs = signs_by_largest(loadings[next(iter(self.blocks_))])
        all_signs = np.tile(signs, m)

        covariance = nearest_covariance(covariance) * np.outer(all_signs, all_signs)
        of_blocks = slice(0, len(self.blocks_) * k)
        self._covariance = covariance[of_blocks, of_blocks]
        self._cross = {name: cross[name][:, of_blocks] * all_signs[of_blocks] for name in self.blocks_}
        self.loadings_ = {name: values * signs for name, values in loadings.items()}
        covariances = covariance.reshape(m, k, m, k).diagonal(axis1=1, axis2=3)
        deviations = np.sqrt(covariances.diagonal().T)
        # Pairs count by their rows, and by the deviations of their variates.
        n_pairs = np.where(np.eye(m, dtype=bool), 0, self.n_pairs_[:m, :m])[:, :, None]
        sums = (n_pairs * covariances).sum(axis=(0, 1))
        bounds = (n_pairs * deviations[:, None] * deviations).sum(axis=(0, 1))
        self.correlations_ = np.divide(sums, bounds, out=np.zeros(k), where=bounds > 0)
        return signs

    def _learn_space(self, X, variates, blocks):
        """Learn from rows, as :meth:`_set_space` does from moments; return the same signs.

        The matrix, which has these blocks, is scaled, with NaN in missing cells, and there are variates for each block;
        those of missing blocks are not read. Each covariance comes from the rows that have both of its blocks; rows
        with fewer than two blocks are left out.
        """
        k = self.n_components_
        present = present_blocks(X, blocks)
        filled = self._fill(X)
        slices = list(consecutive_slices(dict.fromkeys(blocks, k)).values())
        covariance = np.zeros((slices[-1].stop, slices[-1].stop))
        cross, variances = {}, {}
        for a, (name, columns) in enumerate(blocks.items()):
            units = 1.0 if self._scales is None else self._scales[columns]
            rows_of_block = take_rows(filled[:, columns], present[:, a])
            n = len(rows_of_block)
            variances[name] = column_variances(rows_of_block, column_means(rows_of_block)) * n / (n - 1) * units**2
            cross[name] = np.zeros((columns.stop - columns.start, len(covariance)))
            # Other blocks that are present in the same rows go together.
            for both, together in _by_rows(present[:, [a]] & present):
                if np.count_nonzero(both) < 2:
                    continue
                centered = np.hstack([take_rows(variates[b], both) for b in together])
                centered = centered - centered.mean(axis=0, dtype=np.float64)
                centered /= np.count_nonzero(both) - 1
                columns_b = np.concatenate([np.arange(slices[b].start, slices[b].stop) for b in together])
                covariance[slices[a], columns_b] = take_rows(variates[a], both).T @ centered
                rows_of_both = take_rows(filled[:, columns], both)
                # In float64, without a copy of the block.
                products = sum(
                    rows_of_both[chunk].T.astype(np.float64) @ centered[chunk]
                    for chunk in gen_batches(len(rows_of_both), CHUNK_OF_ROWS)
                )
                cross[name][:, columns_b] = (products.T * units).T
        return self._set_space(covariance, cross, variances)

    def _names_out(self, input_features):
        if self.output == "concat":
            return self._block_names(dict.fromkeys(self.blocks_, self.n_components_))
        return self._joint_names(self.n_components_)


def _by_rows(masks):
    """Return the different columns of a matrix of masks, each with the positions of the columns that are equal."""
    positions = {}
    for i, mask in enumerate(masks.T):
        positions.setdefault(mask.tobytes(), []).append(i)
    return [(masks[:, together[0]], together) for together in positions.values()]


def _regression(covariance, cross):
    """Return the coefficients of a regression from its moments; of equally good ones, the least in norm."""
    return linalg.lstsq(covariance, cross, cond=_SMALLEST_VARIANCE)[0]


def _paired_correlations(A, B):
    """Return the correlation of each column of A with the same column of B; 0 where one does not vary."""
    A, B = (Z - Z.mean(axis=0, dtype=np.float64) for Z in (A, B))
    spreads = np.sqrt((A**2).sum(axis=0) * (B**2).sum(axis=0))
    return np.divide((A * B).sum(axis=0), spreads, out=np.zeros_like(spreads), where=spreads > 0)


def nearest_covariance(covariance):
    """Return a positive semidefinite matrix with the same variances, near an estimate that may be none.

    Covariances that were estimated from different rows need not fit together.
    """
    values, vectors = linalg.eigh((covariance + covariance.T) / 2)
    if values[0] >= -1e-10 * values[-1]:
        return covariance
    clipped = (vectors * np.maximum(values, 0)) @ vectors.T
    variances = np.diag(clipped)
    factors = np.sqrt(np.divide(np.diag(covariance), variances, out=np.zeros_like(variances), where=variances > 0))
    return clipped * np.outer(factors, factors)
