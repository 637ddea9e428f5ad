"""Blocks with more columns than rows, by their coordinates in the span of the rows: the dual side."""

from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.linalg import blas

from ..joint import _CUT, CONSTANT

_COLUMNS = 2048


class RowSpace(NamedTuple):
    """Coordinates of the rows of a block in the space that they span.

    Any covariance of the block, ridged or not, and any weights that can matter live there.
    """

    coordinates: np.ndarray  # (n_samples, rank); NaN in rows in which the block is missing
    dual: np.ndarray  # (n_present, rank), from rows to a basis of the space
    target: float  # mean variance of the columns that vary


def row_space(X_block, present, scaling):
    """Give the row space of a centred block, and means and scales of its columns.

    Parameters
    ----------
    X_block : ndarray of shape (n_samples, n_features)
        The block, with NaN in missing cells.

    present : ndarray of shape (n_samples,), dtype bool
        Rows that have the block.

    scaling : bool
        Whether columns are brought to unit variance.

    Returns
    -------
    space : RowSpace
        The coordinates.

    means, scales : ndarray of shape (n_features,)
        Of the columns; the scale of one that does not vary is infinite.
    """
    n_samples, n_features = X_block.shape
    n_present = np.count_nonzero(present)
    means, scales = np.zeros(n_features), np.full(n_features, np.inf)
    gram = np.zeros((n_present, n_present), order="F")
    total, noise = 0.0, 0.0
    for start in range(0, n_features, _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        Z = X_block[present, columns].astype(np.float64)
        missing = np.isnan(Z)
        counts = (~missing).sum(axis=0)
        Z[missing] = 0
        means[columns] = np.divide(Z.sum(axis=0), counts, out=np.zeros(Z.shape[1]), where=counts > 0)
        Z -= means[columns]
        Z[missing] = 0
        variances = (Z**2).sum(axis=0) / (n_present - 1)
        rounding = np.finfo(X_block.dtype).eps ** 2 * (means[columns] ** 2 + variances)
        varies = variances > CONSTANT * rounding
        scales[columns] = np.where(varies, np.sqrt(variances) if scaling else 1.0, np.inf)
        Z /= scales[columns]
        gram = blas.dsyrk(1.0, Z.T, beta=1.0, c=gram, trans=1, lower=1, overwrite_c=1)
        total += (variances / scales[columns] ** 2).sum()
        noise = max(noise, (rounding / scales[columns] ** 2).max())
    values, vectors = linalg.eigh(gram, lower=True, overwrite_a=True)
    noise *= (np.sqrt(n_present) + np.sqrt(n_features)) ** 2
    kept = values > max(_CUT * values[-1], noise)
    lengths = np.sqrt(values[kept])
    coordinates = np.full((n_samples, len(lengths)), np.nan)
    coordinates[present] = vectors[:, kept] * lengths
    n_varying = np.count_nonzero(np.isfinite(scales))
    return RowSpace(coordinates, vectors[:, kept] / lengths, total / max(n_varying, 1)), means, scales


def primal_weights(X_block, present, means, scales, dual_weights):
    """Give weights of the columns of a block, in its units, from those of its rows."""
    weights = np.empty((X_block.shape[1], dual_weights.shape[1]))
    for start in range(0, len(weights), _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        Z = X_block[present, columns].astype(np.float64)
        Z -= means[columns]
        Z[np.isnan(Z)] = 0
        weights[columns] = (Z.T @ dual_weights) / scales[columns, None] ** 2
    return weights
