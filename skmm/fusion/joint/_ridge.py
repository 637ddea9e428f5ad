"""The ridge under which the blocks agree most in rows that were held out."""

import numpy as np
from scipy import linalg

from ._canonical import FLAT, block_whitening, leading_directions

RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# Solved exactly; with one step of subspace iteration from there under the other, the solutions of all ridges lie close
# to the span.
_SOLVED, _STEPPED = 0.07, 0.5
# One row of so many is held out, once. Five folds in turn choose hardly better, of few rows too
# (benchmarks/cca_ridge.py): all ridges meet the same rows, whose noise they share.
_ONE_OF = 5


def parts_for_choice(n_samples):
    """Give the rows to learn from and those held out: every k-th one, so that sorted rows do no harm."""
    k = min(_ONE_OF, n_samples // 2)
    return [slice(i, None, k) for i in range(1, k)], [slice(0, None, k)]


def choose_ridge(covariance, train, test, n_components, objective):
    """Give the ridge, one for all blocks, whose weights correlate most in held-out rows.

    Parameters
    ----------
    covariance : BlockCovariance
        Of all rows; it says which columns count, and their scales.

    train, test : BlockMoments
        Moments of the rows to learn from and of those held out, as in :func:`parts_for_choice`.

    n_components, objective
        As in :func:`canonical_weights`.

    Returns
    -------
    ridge : float
        One of ``RIDGES``; the smaller of equals.
    """
    reduced, bases = reduce_to_snapshots(covariance, covariance.of(train), n_components, objective)
    held_out = test.projected(covariance.in_units(bases)).covariance()
    return RIDGES[int(np.argmax(held_out_correlations(reduced, held_out, n_components, objective)))]


def reduce_to_snapshots(covariance, train, n_components, objective):
    """Project a covariance on the span of a few solutions, so that the others cost next to nothing.

    The axes are those in which each block is diagonal, as it is then under every ridge. Given are the covariance on
    them, and the axes of each block.
    """
    # Ridges differ by far more than its rounding.
    S = train.astype(np.float32)
    inner = covariance._replace(matrix=S)
    names, slices = list(inner.blocks), list(inner.blocks.values())
    solved = leading_directions(inner, dict.fromkeys(names, _SOLVED), n_components, objective)[0]
    stepped = _step(inner, solved, _STEPPED)
    spans = [linalg.qr(np.hstack([solved[name], stepped[name]]), mode="economic")[0] for name in names]
    products = [[S[own, other] @ Q for other, Q in zip(slices, spans, strict=True)] for own in slices]
    turns = [linalg.eigh(Q.T @ products[i][i])[1] for i, Q in enumerate(spans)]
    bases = [Q @ turn for Q, turn in zip(spans, turns, strict=True)]
    small = np.block(
        [[B.T @ P @ turn for P, turn in zip(row, turns, strict=True)] for B, row in zip(bases, products, strict=True)]
    )
    ends = np.cumsum([B.shape[1] for B in bases]).tolist()
    blocks = {name: slice(end - B.shape[1], end) for name, B, end in zip(names, bases, ends, strict=True)}
    reduced = inner._replace(matrix=small, blocks=blocks, noises=dict.fromkeys(blocks, 0.0))
    return reduced, dict(zip(names, bases, strict=True))


def _step(covariance, weights, ridge):
    """Regress, with a ridge, the sum of the other blocks' variates on each block."""
    S, blocks = covariance.matrix, covariance.blocks
    stepped = {}
    for name, own in blocks.items():
        whitening = block_whitening(covariance, name, ridge)
        sums = sum(S[own, other] @ weights[b] for b, other in blocks.items() if b != name)
        stepped[name] = whitening.weights(whitening.left(np.asfortranarray(sums)))
    return stepped


def held_out_correlations(train, test, n_components, objective):
    """Mean correlation, in a second covariance, of the variates learned from a first whose blocks are diagonal.

    All of ``RIDGES`` are solved side by side, as :func:`canonical_weights` would one by one.

    Parameters
    ----------
    train : BlockCovariance
        Where each block is a diagonal matrix.

    test : ndarray of shape (n_features, n_features)
        Covariance of the same columns in other rows.

    n_components, objective
        As in :func:`canonical_weights`.

    Returns
    -------
    correlations : ndarray of shape (len(RIDGES),)
        Mean over the pairs of blocks and the components.
    """
    names, slices = list(train.blocks), list(train.blocks.values())
    k = min(n_components, *(own.stop - own.start for own in slices))
    variances = np.maximum(np.diag(train.matrix), 0)
    targets = np.concatenate([np.full(own.stop - own.start, train.targets[name]) for name, own in train.blocks.items()])
    ridges = np.array(RIDGES)[:, None]
    scales = (((1 - ridges) * variances + ridges * targets) ** -0.5).astype(train.matrix.dtype)
    if len(names) == 2:
        a, b = slices
        agreement = scales[:, a, None] * train.matrix[a, b] * scales[:, None, b]
        # Takes less time than singular vectors do. Lengths do not matter here, nor do correlations of next to nothing.
        right = np.linalg.eigh(agreement.transpose(0, 2, 1) @ agreement)[1][:, :, -k:]
        directions = [agreement @ right, right]
    else:
        agreement = scales[:, :, None] * train.matrix * scales[:, None, :]
        if objective == "sumcor":
            agreement[:, np.arange(len(variances)), np.arange(len(variances))] = 1
        stacks = np.linalg.eigh(agreement)[1][:, :, -k:]
        directions = [stacks[:, own] for own in slices]
    weights = [scales[:, own, None] * direction for own, direction in zip(slices, directions, strict=True)]
    spreads = []
    for own, W in zip(slices, weights, strict=True):
        learned = (W**2 * variances[own, None]).sum(axis=1)
        spread = np.sqrt(np.maximum((W * (test[own, own] @ W)).sum(axis=1), 0))
        # What did not vary, no component was made of.
        spreads.append(np.where(learned > FLAT * learned.max(axis=1, keepdims=True), spread, 0.0))
    total = np.zeros(len(RIDGES))
    for i, own in enumerate(slices):
        for j in range(i):
            moments = (weights[i] * (test[own, slices[j]] @ weights[j])).sum(axis=1)
            products = spreads[i] * spreads[j]
            total += np.divide(moments, products, out=np.zeros_like(moments), where=products > 0).sum(axis=1)
    return total / (n_components * len(names) * (len(names) - 1) / 2)
