"""What "missing" means in skmm: for an item, for a row of a modality, for a row of a block."""

import os

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse

from ._array_api import chunks_of_rows, like, namespace, precise_dtype, to_numpy


def is_missing_item(item):
    """Tell whether one item is missing: None, NaN, ``pd.NA``, or an empty string or path.

    Parameters
    ----------
    item : object
        One cell of a modality.

    Returns
    -------
    missing : bool
        True if there is nothing to encode.
    """
    if item is None:
        return True
    if isinstance(item, str):
        return item == ""
    if isinstance(item, os.PathLike):
        # Path("") is Path("."): a folder is no item, so both read as the empty path.
        return os.fspath(item) in ("", ".", b"", b".")
    if isinstance(item, (float, np.floating)):
        return bool(np.isnan(item))
    if isinstance(item, (np.datetime64, np.timedelta64)):
        return bool(np.isnat(item))
    # By name, so that nobody needs pandas for this question.
    return type(item).__name__ in ("NAType", "NaTType")


def _missing_in_column(column):
    """Mask of the missing items in one column: a series of any kind, or a 1-D array."""
    if nw.dependencies.is_into_series(column):
        column = nw.from_native(column, series_only=True)
        if column.dtype.is_numeric():
            missing = column.is_null().to_numpy()
            return missing | column.is_nan().fill_null(True).to_numpy() if column.dtype.is_float() else missing
        return np.fromiter((is_missing_item(item) for item in column), dtype=bool, count=len(column))
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype.kind in "biu":
        return np.zeros(column.shape[0], dtype=bool)
    return np.fromiter((is_missing_item(item) for item in column), dtype=bool, count=len(column))


def missing_rows(X):
    """Mask of the rows in which a modality is missing.

    Parameters
    ----------
    X : Series, DataFrame, ndarray or sparse matrix with n_samples rows
        The columns of one modality.

    Returns
    -------
    mask : ndarray of shape (n_samples,), dtype bool
        True where every column of the row is missing. Rows of sparse matrices, and items of
        arrays with more than two dimensions, are always present.
    """
    if sparse.issparse(X):
        return np.zeros(X.shape[0], dtype=bool)
    if nw.dependencies.is_into_dataframe(X):
        columns = (column.to_native() for column in nw.from_native(X, eager_only=True).iter_columns())
        return _missing_in_all(columns, len(X))
    if nw.dependencies.is_into_series(X) or X.ndim == 1:
        return _missing_in_column(X)
    if X.ndim > 2:
        return np.zeros(X.shape[0], dtype=bool)
    return _missing_in_all(X.T, X.shape[0])


def _missing_in_all(columns, n_samples):
    """Mask of the rows that are missing in every column; most often the first column settles it."""
    missing = np.ones(n_samples, dtype=bool)
    for column in columns:
        missing &= _missing_in_column(column)
        if not missing.any():
            break
    return missing


def missing_blocks(X, blocks):
    """Mask of the rows in which each block of a matrix is missing.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Blocks side by side, with NaN in missing cells. Of NumPy, or of another library by array API dispatch.

    blocks : dict of str to slice
        Columns of each block, closed.

    Returns
    -------
    mask : ndarray of shape (n_samples, n_blocks), dtype bool
        True where all columns of the block are NaN.
    """
    if isinstance(X, np.ndarray):
        return np.column_stack([missing_rows(X[:, columns]) for columns in blocks.values()])
    xp = namespace(X)
    return np.column_stack([to_numpy(xp.all(xp.isnan(X[:, columns]), axis=1)) for columns in blocks.values()])


def holds_numbers(X):
    """Tell whether some cell of a matrix is not NaN; the first rows settle it most often.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Data, with NaN in missing cells.

    Returns
    -------
    found : bool
        False if all is missing.
    """
    xp = namespace(X)
    return any(not bool(xp.all(xp.isnan(X[rows, :]))) for rows in chunks_of_rows(X, 256))


def column_means(X):
    """Mean of each column over its finite cells; 0 for a column without any.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Data, with NaN in missing cells.

    Returns
    -------
    means : ndarray of shape (n_features,), dtype float64
        What :func:`fill_missing` puts into missing cells. Of a constant column exactly its value, so that what is
        centred or filled in does not vary by rounding, which whatever divides by spreads would blow up.
    """
    xp = namespace(X)
    count, total = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    values = np.full(X.shape[1], np.inf)
    for rows in chunks_of_rows(X):
        Z = X[rows, :]
        present = ~xp.isnan(Z)
        count += to_numpy(xp.sum(xp.astype(present, xp.int32), axis=0))
        total += to_numpy(xp.sum(xp.where(present, Z, xp.zeros_like(Z)), axis=0, dtype=precise_dtype(Z)))
        if np.isinf(values).any():
            some = to_numpy(xp.min(xp.where(present, Z, xp.full_like(Z, xp.inf)), axis=0))
            values = np.where(np.isinf(values), some, values)
    means = np.divide(total, count, out=np.zeros(X.shape[1]), where=count > 0)
    rounding = 10 * float(xp.finfo(precise_dtype(X)).eps) * np.sqrt(count) * np.abs(means)
    return np.where(np.abs(means - values) <= rounding, values, means)


def column_variances(X, means):
    """Variance of each column over its finite cells, divided by their number; 0 for a column without any.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Data, with NaN in missing cells.

    means : ndarray of shape (n_features,)
        Their means, from :func:`column_means`.

    Returns
    -------
    variances : ndarray of shape (n_features,), dtype float64
        The variances.
    """
    xp = namespace(X)
    count, total, rest = (np.zeros(X.shape[1]) for _ in range(3))
    center = like(means, X, precise=True)
    for rows in chunks_of_rows(X):
        Z = X[rows, :] - center
        present = ~xp.isnan(Z)
        Z = xp.where(present, Z, xp.zeros_like(Z))
        count += to_numpy(xp.sum(xp.astype(present, xp.int32), axis=0))
        total += to_numpy(xp.sum(Z * Z, axis=0))
        rest += to_numpy(xp.sum(Z, axis=0))
    count = np.maximum(count, 1)
    # Less what the rounding of the mean added.
    return np.maximum(total / count - (rest / count) ** 2, 0)


def fill_missing(X, means):
    """Replace each NaN by its column's mean; X itself is returned if it has no NaN.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Data, with NaN in missing cells. Never changed.

    means : ndarray of shape (n_features,)
        The value for the missing cells of each column.

    Returns
    -------
    X_filled : array of shape (n_samples, n_features)
        Data without NaN, in the dtype of X.
    """
    xp = namespace(X)
    missing = xp.isnan(X)
    if not bool(xp.any(missing)):
        return X
    return xp.where(missing, like(means, X), X)
