"""Columns of items: the forms in which a column may arrive, and how a message names an item."""

import os
from collections.abc import Sequence
from contextlib import suppress

import narwhals.stable.v2 as nw
import numpy as np

# Longest text of an item in a message.
_LONGEST_TEXT = 120


def column_items(X, owner, rows_are_items=False):
    """Return the items of a column as a sequence, whatever container holds them.

    Parameters
    ----------
    X : Series, DataFrame with one column, array-like or sequence
        The column. An array with more than two dimensions holds one item per entry of its first.

    owner : str
        Name of the encoder, for the error messages.

    rows_are_items : bool, default=False
        Whether each row of a numeric array with two dimensions is an item.

    Returns
    -------
    items : sequence of length n_samples
        Items; arrays for nested numeric columns.

    Raises
    ------
    ValueError
        If there is more than one column, or no row.
    """
    if nw.dependencies.is_into_dataframe(X):
        frame = nw.from_native(X, eager_only=True)
        if frame.shape[1] != 1:
            raise ValueError(
                f"{owner} encodes one column of items, got {frame.shape[1]} columns: {frame.columns[:5]}; "
                "give each column a modality of its own."
            )
        X = frame[:, 0].to_native()
    if nw.dependencies.is_into_series(X):
        items = _series_items(nw.from_native(X, series_only=True))
    elif isinstance(X, np.ndarray):
        if X.ndim == 0:
            raise ValueError(f"{owner} encodes a column of items, got a single {X.dtype} value; wrap it in a list.")
        if X.ndim == 2 and X.shape[1] != 1 and not (rows_are_items and X.dtype.kind in "iuf"):
            raise ValueError(
                f"{owner} encodes one column of items, got an array of shape {X.shape}; "
                "select one column, or pass an array with one item per entry of its first dimension."
            )
        items = X[:, 0] if X.ndim == 2 and X.shape[1] == 1 else X
    elif isinstance(X, Sequence) and not isinstance(X, (str, bytes)):
        items = X
    else:
        raise ValueError(
            f"{owner} encodes a column of items (series, one-column data frame, array or list), "
            f"got {type(X).__name__}; make a list of it, or wrap a single item in one."
        )
    if len(items) == 0:
        raise ValueError(f"{owner} got 0 items, while a minimum of 1 is required.")
    return items


def _series_items(series):
    """Return the items of a narwhals series: nested numbers as arrays, nulls as None."""
    if isinstance(series.dtype, (nw.Array, nw.List)):
        items = np.full(len(series), None, dtype=object)
        present = np.flatnonzero(~series.is_null().to_numpy())
        if isinstance(series.dtype, nw.Array):
            values = series.drop_nulls().to_numpy() if len(present) else ()
        else:
            dtype = _number_type(series.dtype)
            values = (_nested_array(value, dtype) for value in series.drop_nulls().to_list())
        for row, value in zip(present, values, strict=True):
            items[row] = value
        return items
    return series.to_list()


def _number_type(dtype):
    """Return NumPy's type for the numbers in a nested column; None if NumPy has no such type."""
    while isinstance(dtype, (nw.Array, nw.List)):
        dtype = dtype.inner
    try:
        return np.dtype(str(dtype).lower()) if dtype.is_integer() or dtype.is_float() else None
    except TypeError:
        return None


def _nested_array(values, dtype):
    """Return a list of lists as an array; a ragged one becomes an array of objects, for the encoder to judge."""
    for candidate in (dtype, None, object):
        # Integers with a null between them fit no integer type.
        with suppress(ValueError, TypeError):
            return np.asarray(values, dtype=candidate)
    return values


def describe_item(item):
    """Return a short text that lets a reader find an item: the string or path itself, else its type or shape."""
    if isinstance(item, (str, os.PathLike)):
        return shorten(repr(os.fspath(item)))
    if isinstance(item, (bytes, bytearray)):
        return f"{len(item)} bytes"
    if isinstance(item, np.ndarray):
        return f"array of shape {item.shape} and dtype {item.dtype}"
    if isinstance(item, tuple) and len(item) == 2:
        return shorten(f"pair of {describe_item(item[0])} and {describe_item(item[1])}")
    if np.isscalar(item):
        return shorten(f"{type(item).__name__} {_number_text(item)}")
    return f"{type(item).__module__}.{type(item).__name__} object"


def _number_text(number):
    # Python refuses to write integers of thousands of digits.
    try:
        return repr(number)
    except ValueError:
        return "of very many digits"


def shorten(text):
    """Return a text cut to a length that suits a message."""
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."
