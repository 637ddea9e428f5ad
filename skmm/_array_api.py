"""Arrays of other libraries (torch, cupy, ...), let in by scikit-learn's array API dispatch, beside NumPy's.

What is as large as X is computed where X lives; moments, weights and all else that is small is NumPy's, in float64.
"""

import numpy as np

from ._sklearn import convert_to_numpy, get_namespace_and_device, max_precision_float_dtype


def namespace(X):
    """Give the functions for an array: its library's, or NumPy's without dispatch."""
    return get_namespace_and_device(X)[0]


def float_dtypes(X):
    """Give the dtypes that X may keep, the one that others are converted to first."""
    xp = namespace(X)
    return [xp.float64, xp.float32] if precise_dtype(X) == xp.float64 else [xp.float32]


def precise_dtype(X):
    """Give the most precise floating dtype of the device of X, float64 where it exists."""
    xp, _, device = get_namespace_and_device(X)
    return max_precision_float_dtype(xp, device)


def is_single(X):
    """Tell whether an array is of float32."""
    return X.dtype == namespace(X).float32


def to_numpy(X):
    """Give an array of any library as NumPy's, on the CPU."""
    return X if isinstance(X, np.ndarray) else convert_to_numpy(X, namespace(X))


def like(values, X, *, precise=False):
    """Give a NumPy array in the library, on the device and in the dtype of X.

    Parameters
    ----------
    values : ndarray
        What is converted.

    X : array
        What it shall go with.

    precise : bool, default=False
        Whether to take the most precise dtype of the device instead, float64 where it exists.

    Returns
    -------
    converted : array
        The values.
    """
    xp, _, device = get_namespace_and_device(X)
    dtype = precise_dtype(X) if precise else X.dtype
    return values.astype(dtype) if isinstance(X, np.ndarray) else xp.asarray(values, dtype=dtype, device=device)


def chunks_of_rows(X, n_rows=4096):
    """Yield slices that together cover the rows of X, of so many rows each."""
    for start in range(0, X.shape[0], n_rows):
        yield slice(start, min(start + n_rows, X.shape[0]))


def take_rows(X, rows):
    """Give rows of X, by a NumPy mask or by NumPy positions; X itself where a mask has them all."""
    if rows.dtype == bool and rows.all():
        return X
    if isinstance(X, np.ndarray):
        return X[rows]
    xp, _, device = get_namespace_and_device(X)
    positions = np.flatnonzero(rows) if rows.dtype == bool else rows
    return xp.take(X, xp.asarray(positions, device=device), axis=0)
