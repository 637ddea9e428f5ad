"""What all joint embeddings share: blocks that are mapped into one space, and from there to each other.

A concrete strategy writes ``_score_block``, which gives the variates of one block, and ends its
``_fit_blocks`` with ``_set_space`` (or ``_learn_space``, which reads what that needs from the rows).
All that concerns missing blocks, outputs and cross-modal mapping follows from the second moments kept there.
"""

import numpy as np
from scipy import linalg
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from ..._array_api import chunks_of_rows, float_dtypes, like, namespace, take_rows, to_numpy
from ..._missing import column_means, column_variances, fill_missing, missing_blocks
from ..._sklearn import StrOptions
from .._base import N_COMPONENTS, BlockTransformer, signs_by_largest
from ._moments import present_with_others


class JointEmbedding(BlockTransformer):
    """Base of the strategies that map every block into one space of ``n_components_`` dimensions."""

    _parameter_constraints: dict = {
        **BlockTransformer._parameter_constraints,
        "n_components": N_COMPONENTS,
        "output": [StrOptions({"concat", "mean", "sum"})],
    }
    _min_blocks = 2
    _min_samples = 2

    def transform_modality(self, X_block, name):
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
            Variates of the block; zeros, their mean, in rows in which it is missing.
        """
        X_block, missing = self._check_block(X_block, name)
        variates = self._score_block(X_block, name)
        return variates * like(~missing[:, None], variates)

    def predict_modality(self, X_block, source, target):
        """Predict one modality from another, by way of the joint space.

        It is the linear regression of the target's columns on the variates of the source, as learned
        in ``fit``.

        Parameters
        ----------
        X_block : array-like of shape (n_samples, n_source_features)
            Columns of the source block, in the units of ``fit``, with NaN in missing cells.

        source : str
            Name of the block that is given.

        target : str
            Name of the block that is wanted.

        Returns
        -------
        X_target : ndarray of shape (n_samples, n_target_features)
            Expected columns of the target block, in the units of ``fit``; their means in rows in which
            the source is missing.
        """
        variates = self.transform_modality(X_block, source)
        own = self._own(source)
        columns = self._columns(target)
        slopes = _solve(self._covariance[own, own], self._cross[target][:, own].T)
        return variates @ like(slopes, variates) + like(self._means[columns], variates)

    def score(self, X, y=None):
        """Give the mean correlation of the variates of different blocks in X.

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
        X = validate_data(self, X, dtype=float_dtypes(X), ensure_all_finite="allow-nan", reset=False)
        self._check_library(X)
        X = self._scale(X)
        missing = missing_blocks(X, self.blocks_)
        variates = [to_numpy(scores) for scores in self._score_blocks(X)]
        correlations = []
        for a in range(len(self.blocks_)):
            for b in range(a):
                both = ~(missing[:, a] | missing[:, b])
                if np.count_nonzero(both) > 1:
                    correlations.append(_paired_correlations(variates[a][both], variates[b][both]))
        if not correlations:
            raise ValueError(f"{type(self).__name__}: score needs at least 2 rows that have the same two blocks.")
        return float(np.mean(correlations))

    def _transform_blocks(self, X):
        k = self.n_components_
        missing = missing_blocks(X, self.blocks_)
        xp = namespace(X)
        scores = xp.concat(self._score_blocks(X), axis=1)
        for pattern in np.unique(missing[missing.any(axis=1)], axis=0):
            rows = (missing == pattern).all(axis=1)
            absent = np.repeat(pattern, k)
            expected = _solve(self._covariance[np.ix_(~absent, ~absent)], self._covariance[np.ix_(~absent, absent)])
            if isinstance(scores, np.ndarray):
                scores[np.ix_(rows, absent)] = scores[np.ix_(rows, ~absent)] @ expected.astype(X.dtype)
            else:
                # Other libraries need not be able to assign to some rows of some columns.
                completion = np.diag(~absent).astype(np.float64)
                completion[np.ix_(~absent, absent)] = expected
                rows = like(rows[:, None], scores) != 0
                scores = xp.where(rows, scores @ like(completion, scores), scores)
        if self.output == "concat":
            return scores
        scores = xp.reshape(scores, (X.shape[0], len(self.blocks_), k))
        return xp.mean(scores, axis=1) if self.output == "mean" else xp.sum(scores, axis=1)

    def _score_blocks(self, X):
        """Give the variates of each block of the scaled matrix; of missing blocks they mean nothing."""
        filled = self._fill(X)
        return [self._score_block(filled[:, columns], name) for name, columns in self.blocks_.items()]

    def _score_block(self, X_block, name):
        """Give the variates of one block, scaled and without NaN, as a new array."""
        raise NotImplementedError

    def _check_block(self, X_block, name):
        """Give one block scaled and without NaN, and the mask of the rows in which it is missing."""
        check_is_fitted(self)
        columns = self._columns(name)
        X_block = check_array(X_block, dtype=float_dtypes(X_block), ensure_all_finite="allow-nan", estimator=self)
        self._check_library(X_block)
        width = columns.stop - columns.start
        if X_block.shape[1] != width:
            raise ValueError(
                f"{type(self).__name__}: block {name!r} has {width} columns, got an array with {X_block.shape[1]}."
            )
        X_block = self._scale_columns(X_block, columns)
        means = self._means[columns] if self._scales is None else np.zeros(width)
        return fill_missing(X_block, means), missing_blocks(X_block, {name: slice(0, width)})[:, 0]

    def _columns(self, name):
        if name not in self.blocks_:
            raise ValueError(f"{type(self).__name__}: there is no block {name!r}; the blocks are {list(self.blocks_)}.")
        return self.blocks_[name]

    def _own(self, name):
        """Positions of a block's variates among those of all blocks."""
        start = list(self.blocks_).index(name) * self.n_components_
        return slice(start, start + self.n_components_)

    def _set_space(self, covariance, cross, variances):
        """Learn from second moments; ``n_components_`` is set before.

        Parameters
        ----------
        covariance : ndarray of shape (n_blocks * n_components_, n_blocks * n_components_)
            Covariance of the variates of all blocks, block by block.

        cross : dict of str to ndarray of shape (n_block_features, n_blocks * n_components_)
            Covariance of the columns of each block, in the units of X, with the variates of all blocks.

        variances : dict of str to ndarray of shape (n_block_features,)
            Variances of these columns.

        Returns
        -------
        signs : ndarray of shape (n_components_,)
            What the strategy has to multiply its own variates by: the largest loading of the first
            block is positive, component by component.
        """
        m, k = len(self.blocks_), self.n_components_
        loadings = {}
        for name, products in cross.items():
            own = self._own(name)
            spread = np.sqrt(np.outer(variances[name], np.diag(covariance)[own]))
            loadings[name] = np.divide(products[:, own], spread, out=np.zeros_like(spread), where=spread > 0)
        signs = signs_by_largest(loadings[next(iter(self.blocks_))])
        all_signs = np.tile(signs, m)

        self._covariance = _nearest_covariance(covariance) * np.outer(all_signs, all_signs)
        self._cross = {name: products * all_signs for name, products in cross.items()}
        self.loadings_ = {name: values * signs for name, values in loadings.items()}
        spread = np.sqrt(np.diag(self._covariance))
        correlations = self._covariance / np.where(spread > 0, spread, 1.0) / np.where(spread > 0, spread, 1.0)[:, None]
        by_pair = correlations.reshape(m, k, m, k).diagonal(axis1=1, axis2=3)
        self.correlations_ = np.mean([by_pair[a, b] for a in range(m) for b in range(a)], axis=0)
        return signs

    def _learn_space(self, X, variates):
        """Learn from rows, as :meth:`_set_space` does from moments.

        Each covariance comes from the rows that have both of its blocks; rows with fewer than two blocks are left out.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            The scaled matrix, with NaN in missing cells.

        variates : list of ndarray of shape (n_samples, n_components_)
            Variates of each block; those of missing blocks are not read.

        Returns
        -------
        signs : ndarray of shape (n_components_,)
            As :meth:`_set_space` gives them.
        """
        m, k = len(self.blocks_), self.n_components_
        present = present_with_others(X, self.blocks_)
        filled = self._fill(X)
        covariance = np.zeros((m * k, m * k))
        cross = {name: np.zeros((columns.stop - columns.start, m * k)) for name, columns in self.blocks_.items()}
        variances = {}
        for a, (name, columns) in enumerate(self.blocks_.items()):
            units = np.ones(len(cross[name])) if self._scales is None else self._scales[columns]
            own = take_rows(filled[:, columns], present[:, a])
            variances[name] = column_variances(own, column_means(own)) * len(own) / (len(own) - 1) * units**2
            for b in range(m):
                both = present[:, a] & present[:, b]
                if np.count_nonzero(both) > 1:
                    others = variates[b][both] - variates[b][both].mean(axis=0, dtype=np.float64)
                    others /= np.count_nonzero(both) - 1
                    part = slice(b * k, (b + 1) * k)
                    covariance[a * k : (a + 1) * k, part] = variates[a][both].T @ others
                    own = take_rows(filled[:, columns], both)
                    # In float64, without a copy of the block.
                    products = sum(own[rows].T.astype(np.float64) @ others[rows] for rows in chunks_of_rows(own))
                    cross[name][:, part] = products * units[:, None]
        return self._set_space(covariance, cross, variances)

    def _names_out(self, input_features):
        if self.output == "concat":
            return self._block_names(dict.fromkeys(self.blocks_, self.n_components_))
        return self._joint_names(self.n_components_)


def _solve(covariance, right):
    """Give the coefficients of a regression from its moments, least in norm where collinear."""
    return linalg.lstsq(covariance, right)[0]


def _paired_correlations(A, B):
    """Correlation of each column of A with the same column of B; 0 where one does not vary."""
    A, B = (Z - Z.mean(axis=0, dtype=np.float64) for Z in (A, B))
    spread = np.sqrt((A**2).sum(axis=0) * (B**2).sum(axis=0))
    return np.divide((A * B).sum(axis=0), spread, out=np.zeros_like(spread), where=spread > 0)


def _nearest_covariance(covariance):
    """Clip what is no covariance, as estimates from different rows may be, and keep the variances."""
    values, vectors = linalg.eigh((covariance + covariance.T) / 2)
    if values[0] >= -1e-10 * values[-1]:
        return covariance
    clipped = (vectors * np.maximum(values, 0)) @ vectors.T
    lost = np.diag(clipped)
    factors = np.sqrt(np.divide(np.diag(covariance), lost, out=np.zeros_like(lost), where=lost > 0))
    return clipped * np.outer(factors, factors)
