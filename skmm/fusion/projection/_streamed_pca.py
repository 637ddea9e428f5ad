"""Principal components from a covariance matrix, for rows that came in batches."""

from numbers import Integral

import numpy as np
from scipy import linalg
from sklearn.decomposition import PCA

from ..._array_api import like
from .._base import signs_by_largest

# Variance, relative to the largest, below which a direction is rounding.
_CUT = 1e-12


def pca_from_covariance(S, n_rows, n_components, X):
    """Give a fitted :class:`~sklearn.decomposition.PCA` of columns whose means are zero.

    Parameters
    ----------
    S : ndarray of shape (n_features, n_features)
        Covariance matrix, divided by n - 1.

    n_rows : int
        Rows behind it.

    n_components : int, float or None
        As in :class:`PCAFusion`.

    X : array
        What the arrays of the result are to go with.

    Returns
    -------
    pca : PCA
        With at least one component, and no more than S has directions that vary.
    """
    values, vectors = linalg.eigh(S)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    total = values.sum()
    shares = values / total if total > 0 else np.zeros_like(values)
    rank = max(1, np.count_nonzero(values > _CUT * values[0]))
    if n_components is None:
        wanted = rank
    elif isinstance(n_components, Integral):
        wanted = min(n_components, rank)
    else:
        wanted = min(int(np.searchsorted(np.cumsum(shares), n_components, side="right")) + 1, rank)
    vectors = vectors[:, :wanted]
    vectors = vectors * signs_by_largest(vectors)

    pca = PCA(wanted).set_output(transform="default")
    pca.n_features_in_ = len(S)
    pca.n_samples_ = n_rows
    pca.n_components_ = wanted
    pca.components_ = like(np.ascontiguousarray(vectors.T), X)
    pca.mean_ = like(np.zeros(len(S)), X)
    pca.explained_variance_ = like(values[:wanted], X)
    pca.explained_variance_ratio_ = like(shares[:wanted], X)
    pca.singular_values_ = like(np.sqrt(values[:wanted] * (n_rows - 1)), X)
    pca.noise_variance_ = float(values[wanted:].mean()) if wanted < len(values) else 0.0
    return pca
