"""Joint embeddings by linear weights: all follows from the covariances of the blocks."""

import warnings

import numpy as np
from scipy import linalg
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from ..._array_api import chunks_of_rows, float_dtypes, is_single, like, namespace, to_numpy
from ..._missing import column_means, fill_missing
from ..._sklearn import fit_context
from ..projection import primal_weights, row_space
from ._base import JointEmbedding
from ._canonical import block_covariance, canonical_weights
from ._moments import BlockMoments, moments_of_parts, present_with_others

# Smallest relative Cholesky pivot for which products in float32 do. Their error in a correlation is about 1e-8 over
# the pivot.
_SINGLE_PIVOT = 1e-2


def _can_stream(estimator):
    """Tell whether sums are all that a fit needs; else say what does not stream."""
    estimator._check_streams()
    return True


class LinearEmbedding(JointEmbedding):
    """Base of the joint embeddings by linear weights; a concrete one says how the blocks are ridged.

    Scaling is folded into covariances and weights, so that no scaled copy of X is made.
    """

    @available_if(_can_stream)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Go on learning with more rows.

        Kept are sums, from which the weights are solved for anew, so that the result is the one of ``fit`` on all
        rows so far; but single missing cells count as the mean of the first batch. The first call after ``fit``
        begins anew. Only available with ridges given as numbers: the others need all rows at hand.

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
        X = validate_data(self, X, dtype=float_dtypes(X), ensure_all_finite="allow-nan", reset=first)
        if first:
            self._resolve_blocks(X)
            self._fit_scale(X)
            self._moments = BlockMoments(column_means(X), self.blocks_)
        self._moments.add(X)
        self._check_pairs(self._moments.counts)
        self._finish(self._moments, *self._solve([self._moments], None, is_single(X), self._standardized()))
        return self

    def _fit_scale(self, X):
        self._empty = np.zeros(X.shape[1], dtype=bool)
        self._scales = None

    def _fit_blocks(self, X, y):
        self.__dict__.pop("_moments", None)
        present = present_with_others(X, self.blocks_)
        counts = present.T.astype(np.float64) @ present
        self._check_pairs(counts)
        n_present = dict(zip(self.blocks_, np.diag(counts), strict=True))
        wide = [name for name, columns in self.blocks_.items() if columns.stop - columns.start > n_present[name]]
        if wide:
            self._fit_rows(X, present, wide)
        else:
            self._fit_columns(X)

    def _fit_columns(self, X):
        """Fit from the covariance of the columns."""
        for single in (True, False) if is_single(X) else (False,):
            parts = moments_of_parts(X, self.blocks_, self._parts(X.shape[0]), single=single)
            if single and not all(np.isfinite(np.diag(part.products)).all() for part in parts):
                # Squares overflow float32.
                continue
            covariance, solution = self._solve(parts, X, is_single(X), self._standardized())
            if not single or solution.pivot > _SINGLE_PIVOT:
                break
        self._finish(sum(parts[1:], parts[0]), covariance, solution)

    def _fit_rows(self, X, present, wide):
        """Fit with the blocks that have more columns than rows in coordinates of the span of their rows."""
        # No larger than a square of as many rows, and then small.
        X = to_numpy(X)
        standardized = self._standardized()
        self._means = np.zeros(X.shape[1])
        spaces, means, scales, coordinates, blocks = {}, {}, {}, [], {}
        end = 0
        for i, (name, columns) in enumerate(self.blocks_.items()):
            if name in wide:
                spaces[name], means[name], scales[name] = row_space(X[:, columns], present[:, i], standardized[name])
                coordinates.append(spaces[name].coordinates)
                standardized[name] = False
            else:
                Z = X[:, columns].astype(np.float64)
                coordinates.append(np.where(present[:, [i]], fill_missing(Z, column_means(Z)), np.nan))
            blocks[name] = slice(end, end := end + coordinates[-1].shape[1])
        R = np.hstack(coordinates)
        parts = moments_of_parts(R, blocks, self._parts(len(R)))
        targets = {name: space.target for name, space in spaces.items()}
        covariance, solution = self._solve(parts, R, is_single(X), standardized, targets)

        moments = sum(parts[1:], parts[0])
        own_means = moments.means()
        self.n_components_ = next(iter(solution.weights.values())).shape[1]
        self.weights_ = {}
        variates = []
        for i, (name, columns) in enumerate(self.blocks_.items()):
            weights = np.zeros((blocks[name].stop - blocks[name].start, self.n_components_))
            weights[covariance.columns[name]] = solution.weights[name] / covariance.scales[name][:, None]
            variates.append((R[:, blocks[name]] - own_means[blocks[name]]) @ weights)
            if name in spaces:
                self._means[columns] = means[name]
                dual = spaces[name].dual @ weights
                weights = primal_weights(X[:, columns], present[:, i], means[name], scales[name], dual)
            else:
                self._means[columns] = own_means[blocks[name]]
            self.weights_[name] = weights
        signs = self._learn_space(X, variates)
        self.weights_ = {name: weights * signs for name, weights in self.weights_.items()}

    def _finish(self, moments, covariance, solution):
        """Keep the solution in the units of X."""
        self._means = moments.means()
        self.n_components_ = next(iter(solution.weights.values())).shape[1]
        W = linalg.block_diag(*solution.weights.values())
        products = covariance.matrix @ W
        own_variances = np.diag(covariance.matrix)
        self.weights_, cross, variances = {}, {}, {}
        for name, columns in self.blocks_.items():
            width = columns.stop - columns.start
            kept, own, scales = covariance.columns[name], covariance.blocks[name], covariance.scales[name]
            self.weights_[name] = np.zeros((width, self.n_components_))
            self.weights_[name][kept] = solution.weights[name] / scales[:, None]
            cross[name] = np.zeros((width, W.shape[1]))
            cross[name][kept] = products[own] * scales[:, None]
            variances[name] = np.zeros(width)
            variances[name][kept] = own_variances[own] * scales**2
        signs = self._set_space(W.T @ products, cross, variances)
        self.weights_ = {name: weights * signs for name, weights in self.weights_.items()}

    def _solve(self, parts, X, single, standardized, targets=None):
        """Give the scaled covariance and the weights; X is what the moments come from, None where it is not needed."""
        moments = sum(parts[1:], parts[0])
        covariance = block_covariance(moments, np.float32 if single else np.float64, standardized, targets)
        for name, own in covariance.blocks.items():
            if own.start == own.stop:
                raise ValueError(
                    f"{type(self).__name__}: block {name!r} does not vary over the {covariance.n_rows[name]} rows that "
                    "have it; drop the modality."
                )
        ridges = self._find_ridges(covariance, parts, X)
        solution = canonical_weights(covariance, ridges, self.n_components, self._objective())
        n_rows = int(moments.counts[moments.counts > 1].min())
        if not any(ridges.values()) and sum(solution.ranks.values()) > n_rows - 1:
            warnings.warn(
                f"{type(self).__name__}: the blocks have {sum(solution.ranks.values())} independent columns together "
                f"and only {n_rows} rows, so some correlations are 1 whatever the data; use a regularization, such as "
                "'auto'.",
                UserWarning,
                stacklevel=2,
            )
        return covariance, solution

    def _check_pairs(self, counts):
        """Raise unless every block meets another one in two rows."""
        together = counts - np.diag(np.diag(counts))
        for name, most in zip(self.blocks_, together.max(axis=0), strict=True):
            if most < 2:
                raise ValueError(
                    f"{type(self).__name__} learns from rows that have two blocks, and needs at least 2 with block "
                    f"{name!r} and the same other block, got {int(most)}; leave out a modality that is rarely there."
                )

    def _score_block(self, X_block, name):
        means, weights = self._means[self.blocks_[name]], self.weights_[name]
        centers = like(means, X_block)
        # What rounding the means leaves.
        rest = like((means - to_numpy(centers)) @ weights, X_block)
        weights = like(weights, X_block)
        chunks = [(X_block[rows, :] - centers) @ weights - rest for rows in chunks_of_rows(X_block)]
        return namespace(X_block).concat(chunks, axis=0)

    def _check_streams(self):
        """Raise an AttributeError if a parameter needs all rows at hand."""

    def _parts(self, n_samples):
        """The rows whose moments are wanted apart."""
        return [[slice(None)]]

    def _objective(self):
        """What is maximised over more than two blocks."""
        raise NotImplementedError

    def _standardized(self):
        """Whether the columns of each block are brought to unit variance."""
        raise NotImplementedError

    def _find_ridges(self, covariance, parts, X):
        """Give the ridge of each block; parts and X are as in :meth:`_solve`."""
        raise NotImplementedError
