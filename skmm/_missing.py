"""What "missing" means in skmm: for an item, and for a row of a modality."""

import os

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse


def is_missing_item(item):
    """Return whether one item is missing: None, NaN, ``pd.NA``, or an empty string or path.

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
    # By name, so that pandas need not be installed.
    return type(item).__name__ in ("NAType", "NaTType")


def missing_rows(X):
    """Return the mask of the rows in which a modality is missing.

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
        return _missing_in_frame(X)
    if nw.dependencies.is_into_series(X) or X.ndim == 1:
        return _missing_in_column(X)
    if X.ndim > 2 or X.dtype.kind in "biu":
        return np.zeros(X.shape[0], dtype=bool)
    return _missing_in_matrix(X)


def _missing_in_column(column):
    """Return the mask of the missing items in one column: a series of any kind, or a 1-D array."""
    if nw.dependencies.is_into_series(column):
        column = nw.from_native(column, series_only=True)
        if column.dtype.is_numeric():
            missing = column.is_null().to_numpy()
            return missing | column.is_nan().fill_null(True).to_numpy() if column.dtype.is_float() else missing
    elif column.dtype.kind == "f":
        return np.isnan(column)
    elif column.dtype.kind in "biu":
        return np.zeros(column.shape[0], dtype=bool)
    return np.fromiter((is_missing_item(item) for item in column), dtype=bool, count=len(column))


def _missing_in_matrix(X):
    """Return the mask of the rows of a 2-D array that are missing in every column."""
    missing = np.ones(X.shape[0], dtype=bool)
    if X.shape[1] > 0:
        # Only rows that lack the first column can lack all of them; most often there are none.
        missing = _missing_in_column(X[:, 0])
        rows = np.flatnonzero(missing)
        if X.dtype.kind == "f":
            missing[rows] = np.isnan(X[rows]).all(axis=1)
        else:
            missing[rows] = [all(is_missing_item(item) for item in X[row]) for row in rows]
    return missing


def _missing_in_frame(frame):
    """Return the mask of the rows of a data frame that are missing in every column.

    A frame may have thousands of columns, so they are not looked at one by one: all numbers become one matrix, the
    other columns another, and only of the rows that may still be missing.
    """
    if frame.shape[1] == 0:
        return np.ones(len(frame), dtype=bool)
    cells = frame.iloc if hasattr(frame, "iloc") else frame
    # A copy: the mask of a column may be read-only.
    missing = np.array(_missing_in_column(cells[:, 0]))
    if frame.shape[1] == 1 or not missing.any():
        return missing
    numeric = np.array([_is_number(dtype) for dtype in frame.dtypes], dtype=bool)
    numbers, others = np.flatnonzero(numeric).tolist(), np.flatnonzero(~numeric).tolist()
    rows = np.flatnonzero(missing)
    if numbers:
        missing[rows] = missing_rows(cells[rows, numbers].to_numpy())
        rows = np.flatnonzero(missing)
    if others and len(rows) > 0:
        # Polars makes no array of columns whose dtypes have none in common, such as dates beside an empty column.
        selected = cells[rows, others]
        items = selected.iter_rows() if nw.dependencies.is_polars_dataframe(selected) else selected.to_numpy()
        missing[rows] = [all(is_missing_item(item) for item in row) for row in items]
    return missing


def _is_number(dtype):
    """Return whether a column of a data frame consists of plain numbers, which become a matrix of floats."""
    return dtype.kind in "iuf" if isinstance(dtype, np.dtype) else hasattr(dtype, "is_float") and dtype.is_numeric()
