"""The ridge under which the blocks agree most in rows that were held out."""

import numpy as np
from scipy import linalg

from ._canonical import canonical_weights

RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# Solved exactly; the solutions of the others lie close to the span of theirs.
_SNAPSHOTS = (0.003, 0.1, 0.9)
_N_FOLDS = 5
# With this many rows a fifth of them tells ridges apart, and one split does.
_ROWS_FOR_ONE_SPLIT = 2000


def parts_for_splits(n_samples):
    """Give the rows of the parts that :func:`splits_of_parts` makes splits of.

    Every k-th row, so that sorted rows do no harm.
    """
    n_folds = min(_N_FOLDS, n_samples // 2)
    folds = [[slice(i, None, n_folds)] for i in range(n_folds)]
    if n_samples >= _ROWS_FOR_ONE_SPLIT:
        return [folds[0], [rows for fold in folds[1:] for rows in fold]]
    return folds


def splits_of_parts(moments):
    """Give pairs of moments, of the rows to learn from and of those held out."""
    if len(moments) == 2:
        return [(moments[1], moments[0])]
    total = sum(moments[1:], moments[0])
    return [(total - part, part) for part in moments]


def choose_ridge(covariance, splits, n_components, objective):
    """Give the ridge, one for all blocks, whose weights correlate most in held-out rows.

    Parameters
    ----------
    covariance : BlockCovariance
        Of all rows; it says which columns count, and their scales.

    splits : list of (BlockMoments, BlockMoments)
        Moments of the rows to learn from and of those held out.

    n_components, objective
        As in :func:`canonical_weights`.

    Returns
    -------
    ridge : float
        One of ``RIDGES``; the smaller of equals.
    """
    scores = np.zeros(len(RIDGES))
    for train, test in splits:
        inner, outer = reduce_to_snapshots(
            covariance, covariance.of(train), covariance.of(test), n_components, objective
        )
        for i, ridge in enumerate(RIDGES):
            scores[i] += held_out_correlation(inner, outer, ridge, n_components, objective)
    return RIDGES[int(np.argmax(scores))]


def reduce_to_snapshots(covariance, train, test, n_components, objective):
    """Project both covariances on the span of a few solutions, so that the others cost next to nothing."""
    inner = covariance._replace(matrix=train)
    snapshots = [
        canonical_weights(inner, dict.fromkeys(inner.blocks, ridge), n_components, objective).weights
        for ridge in _SNAPSHOTS
    ]
    bases = [linalg.orth(np.hstack([weights[name] for weights in snapshots])) for name in inner.blocks]
    B = linalg.block_diag(*bases)
    ends = np.cumsum([basis.shape[1] for basis in bases]).tolist()
    blocks = {
        name: slice(end - basis.shape[1], end) for name, basis, end in zip(inner.blocks, bases, ends, strict=True)
    }
    small = inner._replace(matrix=B.T @ train @ B, blocks=blocks, noises=dict.fromkeys(blocks, 0.0))
    return small, B.T @ test @ B


def held_out_correlation(train, test, ridge, n_components, objective):
    """Mean correlation, in a second covariance, of the variates learned from a first."""
    weights = canonical_weights(train, dict.fromkeys(train.blocks, ridge), n_components, objective).weights
    W = linalg.block_diag(*weights.values())
    m = len(weights)
    k = W.shape[1] // m
    moments = W.T @ test @ W
    spread = np.sqrt(np.maximum(np.diag(moments), 0))
    products = np.outer(spread, spread)
    correlations = np.divide(moments, products, out=np.zeros_like(moments), where=products > 0)
    by_pair = correlations.reshape(m, k, m, k).diagonal(axis1=1, axis2=3)
    # A component that was left out agrees on nothing.
    return np.mean([by_pair[a, b].sum() for a in range(m) for b in range(a)]) / n_components
