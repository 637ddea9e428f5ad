"""Weights of blocks: passed by the user, equal, or learned by cross-validation of a ridge regression, the probe."""

import numpy as np
from scipy import linalg
from sklearn.preprocessing import LabelBinarizer, StandardScaler
from sklearn.utils.multiclass import type_of_target

from .._sklearn import StrOptions
from ._base import group_folds

# Rows that a probe uses, and its folds. More rows hardly change a handful of weights.
PROBE_ROWS = 2000
PROBE_FOLDS = 5
# Learned weights lie between its inverse and this, so that no block is lost for what follows.
LARGEST_WEIGHT = 8.0

# Values of the parameter ``weights`` in every strategy that has it.
WEIGHTS = [dict, "array-like", StrOptions({"cv"}), None]


def fixed_weights(fusion):
    """Return the parameter ``weights`` of a strategy as one number per block; equal ones for None."""
    weights, names, owner = fusion.weights, list(fusion.blocks_), type(fusion).__name__
    if weights is None:
        return np.ones(len(names))
    if isinstance(weights, dict):
        if weights.keys() != set(names):
            weighted = sorted(map(str, weights))
            raise ValueError(f"{owner}: weights names the blocks {weighted}, X has the blocks {sorted(names)}.")
        weights = [weights[name] for name in names]
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(names),):
        raise ValueError(
            f"{owner}: weights must be one number for each of the {len(names)} blocks {names}, "
            f"got an array of shape {weights.shape}."
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ValueError(f"{owner}: weights must be finite, not negative and not all 0, got {weights.tolist()}.")
    return weights


def probe_rows(y, groups=None):
    """Return the rows that a probe uses and their folds, both spread evenly over the sorted target; folds by group."""
    first = y if y.ndim == 1 else y[:, 0]
    order = np.argsort(first, kind="stable")
    order = order[:: -(-len(order) // PROBE_ROWS)]
    if groups is not None:
        return order, group_folds(groups[order], PROBE_FOLDS)
    return order, np.arange(len(order)) % PROBE_FOLDS


def probe_target(y):
    """Return the centred columns that a probe predicts: an indicator per class, or standardised numbers."""
    if y.ndim == 1 and type_of_target(y) in ("binary", "multiclass"):
        target = LabelBinarizer().fit_transform(y).astype(np.float64)
        return target - target.mean(axis=0)
    # An array, whatever the global configuration says.
    scaler = StandardScaler().set_output(transform="default")
    return scaler.fit_transform(y.reshape(len(y), -1).astype(np.float64))


def probe_error(Z, target, folds):
    """Return the cross-validated mean squared error of a ridge regression with a penalty of one per row."""
    gram, moment = Z.T @ Z, Z.T @ target
    error = 0.0
    for fold in np.unique(folds):
        test = folds == fold
        Z_test = Z[test]
        ridged = gram - Z_test.T @ Z_test
        ridged[np.diag_indices_from(ridged)] += np.count_nonzero(~test)
        coefficients = linalg.solve(ridged, moment - Z_test.T @ target[test], assume_a="pos")
        error += np.sum((target[test] - Z_test @ coefficients) ** 2)
    return error / len(Z)


def learn_weights(combine, blocks, target, folds):
    """Return the weights of blocks, whose squares have mean one, with the smallest error of a ridge probe.

    ``combine`` returns the matrix that the probe sees for an array of weights; it is homogeneous of degree one. As the
    penalty is fixed, large weights mean a small penalty: first all of them are scaled, which chooses the penalty; then
    each in turn is halved, doubled and so on, as long as that lowers the error by a thousandth.
    """
    # Of blocks with a total variance of 1, all together.
    variance = sum(block.var(axis=0).sum() for block in blocks)
    scales = 4.0 ** np.arange(-4, 5) / np.sqrt(max(variance, np.finfo(np.float64).tiny))
    weights = np.ones(len(blocks))
    errors = [probe_error(combine(scale * weights), target, folds) for scale in scales]
    best = min(errors)
    scale = scales[np.argmin(errors)]
    for _ in range(3):
        previous_best = best
        for b in range(len(blocks)):
            start = weights[b]
            for factor in (0.25, 0.5, 2.0, 4.0):
                trial = weights.copy()
                trial[b] = np.clip(factor * start, 1 / LARGEST_WEIGHT, LARGEST_WEIGHT)
                error = probe_error(combine(scale * trial), target, folds)
                if error < (1 - 1e-3) * best:
                    best, weights = error, trial
        if best == previous_best:
            break
    return weights / np.sqrt(np.mean(weights**2))
