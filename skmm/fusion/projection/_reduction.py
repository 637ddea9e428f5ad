"""Linear maps of one block to fewer dimensions, which strategies use before they join blocks."""

import numpy as np
from scipy import linalg

from ..._array_api import namespace, precise_dtype, to_numpy
from ._pca import PCAFusion


def principal_axes(X, n_components, random_state):
    """Give the mean of a block's rows and its leading principal axes.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        The rows that have the block, without NaN.

    n_components : int
        Upper bound of the number of axes, clipped to the numerical rank but not below 1.

    random_state : int, RandomState instance or None
        Used by the randomised solver.

    Returns
    -------
    mean : ndarray of shape (n_features,)
        Mean of the rows.

    axes : ndarray of shape (n_features, n_axes)
        Orthonormal axes.
    """
    fusion = PCAFusion(n_components, scaling=None, random_state=random_state).fit(X)
    return fusion._means, to_numpy(fusion.projections_[""].components_).T


def random_axes(n_features, n_components, random_state):
    """Give a matrix of shape (n_features, n_components) that keeps inner products in expectation."""
    return random_state.normal(size=(n_features, n_components)) / np.sqrt(n_components)


def rotations_to_agree(parts, present, max_iter=50, tol=1e-6):
    """Give the rotations that bring the blocks closest to their mean: generalised Procrustes analysis.

    Parameters
    ----------
    parts : list of array of shape (n_samples, n_components)
        Centred blocks in one dimension.

    present : array of shape (n_samples, n_blocks)
        1 where a row has a block, 0 where its part means nothing; of the library of the parts.

    max_iter : int, default=50
        Most rounds over the blocks.

    tol : float, default=1e-6
        Relative gain of agreement in one round below which to stop.

    Returns
    -------
    rotations : ndarray of shape (n_blocks, n_components, n_components)
        Orthogonal matrices; the first is the identity.
    """
    n_blocks, n_components = len(parts), parts[0].shape[1]
    xp = namespace(present)
    joined = xp.concat([part * present[:, b : b + 1] for b, part in enumerate(parts)], axis=1)
    joined = xp.astype(joined, precise_dtype(joined))
    products = to_numpy(joined.T @ joined).reshape(n_blocks, n_components, n_blocks, n_components)
    rotations = np.tile(np.eye(n_components), (n_blocks, 1, 1))
    before = 0.0
    for i in range(max_iter):
        agreement = 0.0
        for b in range(1, n_blocks):
            # The inner products with the other blocks, at first with those that are rotated already, add up to most for
            # the polar factor.
            known = range(b if i == 0 else n_blocks)
            others = sum(products[b, :, a] @ rotations[a] for a in known if a != b)
            left, values, right = linalg.svd(others)
            rotations[b] = left @ right
            agreement += values.sum()
        if agreement <= before * (1 + tol):
            break
        before = agreement
    return rotations
