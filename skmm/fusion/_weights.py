"""Weights of blocks: given, equal, or learned by cross-validation of a ridge probe."""

import numpy as np
from scipy import linalg
from sklearn.preprocessing import LabelBinarizer, StandardScaler
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import validate_data

from .._array_api import float_dtypes
from .._sklearn import StrOptions
from ._imputed import ImputedBlockTransformer

# Rows that a probe looks at, and folds of it. More rows hardly move a handful of weights.
PROBE_ROWS = 2000
PROBE_FOLDS = 5
# Learned weights lie between its inverse and this, so that whatever follows keeps in reach of every block.
LARGEST_WEIGHT = 8.0


class WeightedBlockTransformer(ImputedBlockTransformer):
    """Base of the strategies with a parameter ``weights``."""

    _learned_from_y = "cv"

    _parameter_constraints: dict = {
        **ImputedBlockTransformer._parameter_constraints,
        "weights": [dict, "array-like", StrOptions({"cv"}), None],
    }

    def _validate_fit(self, X, y):
        if not self._needs_y():
            return super()._validate_fit(X, y)
        return validate_data(
            self,
            X,
            y,
            dtype=float_dtypes(X),
            ensure_all_finite="allow-nan",
            ensure_min_samples=max(2, self._min_samples),
            multi_output=True,
        )

    def _needs_y(self):
        return isinstance(self.weights, str) and self.weights == self._learned_from_y

    def _given_weights(self):
        """Give one number per block, from numbers or None."""
        owner, names = type(self).__name__, list(self.blocks_)
        if self.weights is None:
            return np.ones(len(names))
        if isinstance(self.weights, dict):
            if self.weights.keys() != self.blocks_.keys():
                raise ValueError(
                    f"{owner}: weights names the blocks {sorted(self.weights)}, X has the blocks {sorted(names)}."
                )
            weights = np.array([self.weights[name] for name in names], dtype=np.float64)
        else:
            weights = np.asarray(self.weights, dtype=np.float64)
        if weights.shape != (len(names),):
            raise ValueError(
                f"{owner}: weights must be one number for each of the {len(names)} blocks {names}, "
                f"got an array of shape {weights.shape}."
            )
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise ValueError(f"{owner}: weights must be finite, not negative and not all 0, got {weights.tolist()}.")
        return weights

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self._needs_y()
        return tags


def probe_rows(y):
    """Give the rows that a probe uses and their folds, both spread evenly over the sorted target."""
    first = y if y.ndim == 1 else y[:, 0]
    order = np.argsort(first, kind="stable")
    order = order[:: -(-len(order) // PROBE_ROWS)]
    return order, np.arange(len(order)) % PROBE_FOLDS


def probe_target(y):
    """Give the centred columns that a probe predicts: an indicator per class, or standardised numbers."""
    if y.ndim == 1 and type_of_target(y) in ("binary", "multiclass"):
        target = LabelBinarizer().fit_transform(y).astype(np.float64)
        return target - target.mean(axis=0)
    return StandardScaler().fit_transform(y.reshape(len(y), -1).astype(np.float64))


def probe_error(Z, target, folds):
    """Cross-validated mean squared error of a ridge regression with a penalty of one per row."""
    gram, moment = Z.T @ Z, Z.T @ target
    error = 0.0
    for fold in range(PROBE_FOLDS):
        test = folds == fold
        own = Z[test]
        left = gram - own.T @ own
        left[np.diag_indices_from(left)] += np.count_nonzero(~test)
        coefficients = linalg.solve(left, moment - own.T @ target[test], assume_a="pos")
        error += np.sum((target[test] - own @ coefficients) ** 2)
    return error / len(Z)


def learn_weights(combine, n_blocks, target, folds):
    """Search the weights of blocks, one after the other, for the smallest error of a ridge probe.

    As the penalty is fixed, large weights mean a small penalty: first all of them are scaled, which
    chooses the penalty; then each is halved, doubled and so on, as long as that lowers the error by a thousandth.

    Parameters
    ----------
    combine : callable
        Gives the matrix that the probe sees for an array of weights; homogeneous of degree one.

    n_blocks : int
        Number of weights.

    target : ndarray of shape (n_samples, n_targets)
        What the probe predicts.

    folds : ndarray of shape (n_samples,)
        Fold of each row.

    Returns
    -------
    weights : ndarray of shape (n_blocks,)
        Weights whose squares have mean one.
    """
    scales = 4.0 ** np.arange(-4, 5)
    errors = [probe_error(combine(np.full(n_blocks, scale)), target, folds) for scale in scales]
    best = min(errors)
    scale = scales[np.argmin(errors)]
    weights = np.ones(n_blocks)
    for _ in range(3):
        before = best
        for b in range(n_blocks):
            start = weights[b]
            for factor in (0.25, 0.5, 2.0, 4.0):
                trial = weights.copy()
                trial[b] = np.clip(factor * start, 1 / LARGEST_WEIGHT, LARGEST_WEIGHT)
                error = probe_error(combine(scale * trial), target, folds)
                if error < (1 - 1e-3) * best:
                    best, weights = error, trial
        if best == before:
            break
    return weights / np.sqrt(np.mean(weights**2))
