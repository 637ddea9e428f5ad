"""Columns: those of the one X and of its modalities, what is missing in them, and the items that they hold."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import narwhals.stable.v2 as nw
import numpy as np
from joblib import effective_n_jobs
from scipy import sparse
from sklearn.utils import check_array, check_consistent_length, column_or_1d, gen_batches
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from ._sklearn import check_feature_names, check_n_features, get_column_indices

# Rows that are converted to float64 at a time.
CHUNK_OF_ROWS = 4096
# Names of the dtypes of strings of pandas.
_STRINGS = ("str", "string")
# Longest text of an item in a message.
_LONGEST_TEXT = 120


def is_data_frame(X):
    """Tell whether X is a data frame of any library (pandas, polars, ...)."""
    # The usual kinds first, since the general question takes long.
    if nw.dependencies.is_pandas_dataframe(X) or nw.dependencies.is_polars_dataframe(X):
        return True
    if isinstance(X, (np.ndarray, list)) or nw.dependencies.is_pandas_series(X):
        return False
    return nw.dependencies.is_into_dataframe(X)


def is_series(X):
    """Tell whether X is a series of any library."""
    return nw.dependencies.is_pandas_series(X) or (
        not isinstance(X, (np.ndarray, list)) and nw.dependencies.is_into_series(X)
    )


def from_arrow(X):
    """Return a pyarrow Table as a pandas DataFrame, an array of pyarrow as a Series, and all else as it is.

    Numbers, strings, dates and dictionaries become what pandas has for them, with NaN where a cell is null. Nested and
    binary columns stay in Arrow's memory.
    """
    pa = sys.modules.get("pyarrow")
    if pa is None:
        return X
    if isinstance(X, (pa.Array, pa.ChunkedArray)):
        return from_arrow(pa.table([X], names=["items"])).iloc[:, 0].rename(None)
    if isinstance(X, pa.RecordBatch):
        X = pa.Table.from_batches([X])
    if not isinstance(X, pa.Table):
        return X
    import pandas as pd

    def dtype_of(kind):
        stays = pa.types.is_nested(kind) or "binary" in str(kind)
        return pd.ArrowDtype(kind) if stays else None

    # The metadata of pandas would turn a column into the index.
    return X.to_pandas(types_mapper=dtype_of, ignore_metadata=True)


def _with_plain_times(X):
    """Return a pandas frame with the dates and durations of Arrow as those of pandas, and all else as it is."""
    if not nw.dependencies.is_pandas_dataframe(X):
        return X
    times = {
        label: dtype.pyarrow_dtype.to_pandas_dtype()
        for label, dtype in X.dtypes.items()
        if dtype.kind in "mM" and hasattr(dtype, "pyarrow_dtype")
    }
    return X.astype(times) if times and X.columns.is_unique else X


def check_table(estimator, X):
    """Check that X is an eager data frame or a 2-D array, with cells of any type; return it, a list as an array.

    A pyarrow Table is returned as a pandas DataFrame; skrub and scikit-learn expect dates in the types of pandas.
    Errors name the estimator, or the function if that is passed as a string.
    """
    owner = estimator if isinstance(estimator, str) else type(estimator).__name__
    X = _with_plain_times(from_arrow(X))
    if not (nw.dependencies.is_pandas_dataframe(X) or nw.dependencies.is_polars_dataframe(X)):
        if is_data_frame(X) or nw.dependencies.is_polars_lazyframe(X):
            raise TypeError(
                "X must be a pandas or polars DataFrame, a pyarrow Table or a 2-D array, got "
                f"{type(X).__module__}.{type(X).__name__}; collect or convert it first."
            )
        X = check_array(X, dtype=None, ensure_all_finite=False, estimator=estimator)
        if not isinstance(X, np.ndarray):
            raise TypeError(
                f"{owner} takes data frames and NumPy arrays, got {type(X).__module__}; convert X "
                "first, or use a strategy of fusion alone, which takes arrays of other libraries."
            )
    elif len(X) == 0:
        raise ValueError(f"Found 0 sample(s) in the data frame, while {owner} needs at least 1.")
    return X


def check_X(estimator, X, *, reset):
    """Check the one X of a composite as :func:`check_table` does, and its columns.

    Sets or compares ``n_features_in_`` and ``feature_names_in_``. Fitted and applied to data
    frames, a composite finds its columns by name, so it is not compared with the whole header then.
    """
    X = check_table(estimator, X)
    if reset or not (is_data_frame(X) and hasattr(estimator, "feature_names_in_")):
        check_feature_names(estimator, X, reset=reset)
        check_n_features(estimator, X, reset=reset)
    return X


def check_target(X, y, owner, *, numeric):
    """Check y against X and return it as an array: 1-D, or 2-D for several labels or outputs."""
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None.")
    y = check_array(y, ensure_2d=False, dtype="numeric" if numeric else None, input_name="y")
    if numeric and y.dtype.kind in "mM":
        raise ValueError(
            f"{owner} takes numbers as y, got dates or times of the type {y.dtype}; pass, for example, days since one."
        )
    if y.ndim != 2 or y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    if not numeric:
        if y.dtype == object and y.ndim == 1:
            missing = [row for row, label in enumerate(y) if is_missing_item(label) and not isinstance(label, str)]
            if missing:
                raise ValueError(
                    f"{owner}: y has no class in {len(missing)} rows, the first of them row {missing[0]}; leave them "
                    "out."
                )
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            raise ValueError(
                f"{owner} takes one class per row, or a matrix of 0 and 1 with one column per label, "
                f"got y of shape {y.shape} that is {kind}."
            )
        if y.ndim == 2 and not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"{owner} takes several labels as a matrix of 0 and 1, got y with the values "
                f"{np.unique(y).tolist()}; pass (y == {np.max(y)}).astype(int)."
            )
    return y


def row_labels(X):
    """Return the labels of the rows: the index of a pandas DataFrame, else their positions."""
    return X.index.to_numpy() if hasattr(X, "iloc") else np.arange(X.shape[0])


def check_groups(groups, n_samples):
    """Return the groups as an array of shape (n_samples,), or None."""
    if groups is None:
        return None
    groups = check_array(groups, ensure_2d=False, dtype=None, input_name="groups")
    if groups.ndim == 2 and groups.shape[1] == 1:
        groups = groups[:, 0]
    if groups.shape != (n_samples,):
        raise ValueError(f"groups must have one entry for each of the {n_samples} rows, got shape {groups.shape}.")
    return groups


def group_codes(*groups):
    """Return checked groups as numbers, which are the same for equal groups in all of the arrays."""
    import pandas as pd

    codes = pd.factorize(np.concatenate([np.asarray(values, dtype=object) for values in groups]))[0]
    if (codes < 0).any():
        raise ValueError("groups are missing in some rows; leave these rows out.")
    return np.split(codes, np.cumsum([len(values) for values in groups])[:-1])


def check_splits(splits, n_samples, owner):
    """Return splits with positions in place of masks; raise unless every row is left out exactly once."""
    splits = [tuple(map(np.asarray, split)) for split in splits]
    splits = [tuple(np.flatnonzero(rows) if rows.dtype == bool else rows for rows in split) for split in splits]
    left_out = np.sort(np.concatenate([test for _, test in splits]))
    if not np.array_equal(left_out, np.arange(n_samples)):
        raise ValueError(
            f"{owner}: cv must leave out every row exactly once, as KFold does, but its {len(splits)} splits leave "
            f"out {len(np.unique(left_out))} of {n_samples} rows, {len(left_out)} times in all; pass a number of "
            "folds."
        )
    return splits


def check_columns(estimator, X, *, reset):
    """Set or compare ``n_features_in_`` and ``feature_names_in_`` for the columns of one modality.

    A series, a list or an array of items is one column.
    """
    check_feature_names(estimator, X, reset=reset)
    shape = getattr(X, "shape", (len(X),))
    n_features = shape[1] if len(shape) == 2 else 1
    if reset:
        estimator.n_features_in_ = n_features
    elif n_features != estimator.n_features_in_:
        raise ValueError(
            f"X has {n_features} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} "
            "features as input."
        )


def check_can_be_sent(X, n_jobs):
    """Raise if worker processes could not get X: polars cannot pickle columns of Python objects."""
    if nw.dependencies.is_polars_dataframe(X) and effective_n_jobs(n_jobs) > 1:
        names = [name for name, dtype in nw.from_native(X).schema.items() if dtype == nw.Object]
        if names:
            raise ValueError(
                f"n_jobs={n_jobs} needs columns that can be sent to other processes, polars cannot pickle its Object "
                f"columns {names}; use n_jobs=1, or columns of type String, Binary, Array or List."
            )


def resolve_columns(X, columns, name):
    """Return the positions of a modality's columns in X, and whether a single column was meant.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n_samples, n_features)
        Input data.

    columns : str, int, list, slice, mask or callable
        Selection in the sense of :class:`~sklearn.compose.ColumnTransformer`.

    name : str
        Name of the modality, for the error messages.

    Returns
    -------
    positions : list of int
        Selected columns.

    single : bool
        True if a scalar selected one column, which then reaches the estimator as 1-D.
    """
    if callable(columns):
        columns = columns(X)
    try:
        if columns is None:
            raise TypeError("None selects nothing")
        positions = get_column_indices(X, columns)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Modality {name!r}: columns={columns!r} cannot be selected from X with n_features = {X.shape[1]}"
            f"{_describe_header(X)} ({error})."
        ) from error
    if not positions:
        raise ValueError(
            f"Modality {name!r} selects no column: columns={columns!r}, while X has n_features = {X.shape[1]}."
        )
    return positions, np.isscalar(columns)


def _describe_header(X):
    """Return the part of a message that says which columns a data frame has, and how they can be selected."""
    if not is_data_frame(X):
        return ""
    labels = list(X.columns)
    if all(isinstance(label, str) for label in labels):
        return f"; X has the columns {shortened(labels)}"
    return (
        f"; X has the labels {shortened(labels)}, which are not all strings: select its columns by position, or rename "
        "them to strings"
    )


def shortened(names, limit=20):
    """Return a list of names as text, with no more than ``limit`` of them."""
    names = list(names)
    return f"{names}" if len(names) <= limit else f"{names[:limit]} and {len(names) - limit} more"


def column_positions(X, names, positions, modality):
    """Return the positions of named columns in a data frame, or raise if one is missing.

    Parameters
    ----------
    X : DataFrame of shape (n_samples, n_features)
        Data to predict for, or to transform.

    names : ndarray of str
        Names of the columns of a modality.

    positions : list of int
        Their positions in ``fit``. No column is searched where they have the same names.

    modality : str
        Name of the modality, for the error message.
    """
    header = list(X.columns)
    if max(positions) < len(header) and [header[position] for position in positions] == list(names):
        return positions
    position_of = {label: position for position, label in reversed(list(enumerate(header)))}
    missing = [name for name in names if name not in position_of]
    if missing:
        raise ValueError(
            f"Modality {modality!r}: columns are missing in X: {shortened(missing)}; X has the columns "
            f"{shortened(header)}. Where the modality is missing in all rows, add them filled with None."
        )
    return [position_of[name] for name in names]


def is_missing_item(item):
    """Return whether one item is missing: None, NaN, ``pd.NA``, an empty string or path, or a dict of a file with none.

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
    if isinstance(item, dict):
        # As data sets write a file that they do not have.
        return bool(item) and item.keys() <= {"bytes", "path"} and all(map(is_missing_item, item.values()))
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
    if is_data_frame(X):
        return _missing_in_frame(X)
    if is_series(X) or X.ndim == 1:
        return _missing_in_column(X)
    if X.ndim > 2 or X.dtype.kind in "biu":
        return np.zeros(X.shape[0], dtype=bool)
    return _missing_in_matrix(X)


def _missing_in_column(column):
    """Return the mask of the missing items in one column: a series of any kind, or a 1-D array."""
    if nw.dependencies.is_pandas_series(column):
        if isinstance(column.dtype, np.dtype):
            column = column.to_numpy()
        elif column.dtype.name in _STRINGS:
            return np.fromiter(map(is_missing_item, column.tolist()), dtype=bool, count=len(column))
    if isinstance(column, np.ndarray):
        if column.dtype.kind == "f":
            return np.isnan(column)
        if column.dtype.kind in "biu":
            return np.zeros(column.shape[0], dtype=bool)
        return np.fromiter(map(is_missing_item, column), dtype=bool, count=len(column))
    column = nw.from_native(column, series_only=True)
    if column.dtype.is_numeric():
        missing = column.is_null().to_numpy()
        return missing | column.is_nan().fill_null(True).to_numpy() if column.dtype.is_float() else missing
    return np.fromiter(map(is_missing_item, column.to_list()), dtype=bool, count=len(column))


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
    if numeric.all():
        return _missing_in_matrix(frame.to_numpy())
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


def column_means(X):
    """Return the mean of each column over its finite cells; 0 for a column without any.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Numbers, with NaN in missing cells.

    Returns
    -------
    means : ndarray of shape (n_features,), dtype float64
        What :func:`fill_missing` puts into missing cells. The mean of a constant column is exactly its value:
        a difference by rounding would look like variation to whatever divides by standard deviations.
    """
    count, total = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    smallest = np.full(X.shape[1], np.inf)
    for rows in gen_batches(len(X), CHUNK_OF_ROWS):
        Z = X[rows]
        present = ~np.isnan(Z)
        count += present.sum(axis=0)
        total += np.where(present, Z, 0).sum(axis=0, dtype=np.float64)
        if np.isinf(smallest).any():
            # Some value of each column, to compare the mean with.
            smallest = np.where(np.isinf(smallest), np.where(present, Z, np.inf).min(axis=0), smallest)
    means = np.divide(total, count, out=np.zeros(X.shape[1]), where=count > 0)
    rounding = 10 * np.finfo(np.float64).eps * np.sqrt(count) * np.abs(means)
    return np.where(np.abs(means - smallest) <= rounding, smallest, means)


def column_variances(X, means):
    """Return the variance of each column over its finite cells, divided by their number; 0 for a column without any.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Numbers, with NaN in missing cells.

    means : ndarray of shape (n_features,)
        Their means, from :func:`column_means`.

    Returns
    -------
    variances : ndarray of shape (n_features,), dtype float64
        The variances.
    """
    count, squares, residue = (np.zeros(X.shape[1]) for _ in range(3))
    for rows in gen_batches(len(X), CHUNK_OF_ROWS):
        Z = X[rows] - means
        present = ~np.isnan(Z)
        Z[~present] = 0
        count += present.sum(axis=0)
        squares += (Z * Z).sum(axis=0)
        residue += Z.sum(axis=0)
    count = np.maximum(count, 1)
    # The means are rounded, which adds the square of the mean residue.
    return np.maximum(squares / count - (residue / count) ** 2, 0)


def fill_missing(X, means):
    """Replace each NaN by its column's mean; X itself is returned if it has no NaN.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Numbers, with NaN in missing cells. Never changed.

    means : ndarray of shape (n_features,)
        The value for the missing cells of each column.

    Returns
    -------
    X_filled : ndarray of shape (n_samples, n_features)
        Numbers without NaN, in the dtype of X.
    """
    missing = np.isnan(X)
    return np.where(missing, means.astype(X.dtype), X) if missing.any() else X


def column_items(X, owner, rows_are_items=False):
    """Return the items of a column as a sequence, whatever container holds them.

    Parameters
    ----------
    X : Series, DataFrame or Table with one column, Arrow array, array-like or sequence
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
    X = from_arrow(X)
    if is_data_frame(X):
        if X.shape[1] != 1:
            raise ValueError(
                f"{owner} encodes one column of items, got {X.shape[1]} columns: {list(X.columns[:5])}; "
                "give each column a modality of its own."
            )
        X = X.iloc[:, 0] if hasattr(X, "iloc") else nw.from_native(X, eager_only=True)[:, 0].to_native()
    if is_series(X):
        items = _series_items(X)
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


def present_rows(items):
    """Return the rows of a column of items in which there is one."""
    return [row for row, item in enumerate(items) if not is_missing_item(item)]


def _series_items(series):
    """Return the items of a series: nested numbers as arrays, other lists as they are, nulls as missing items."""
    if nw.dependencies.is_pandas_series(series):
        dtype = series.dtype
        if isinstance(dtype, np.dtype) or dtype.name in _STRINGS:
            return series.tolist()
    series = nw.from_native(series, series_only=True)
    if isinstance(series.dtype, (nw.Array, nw.List)) and _holds_numbers(series.dtype):
        items = np.full(len(series), None, dtype=object)
        present = np.flatnonzero(~series.is_null().to_numpy())
        if isinstance(series.dtype, nw.Array):
            values = series.drop_nulls().to_numpy() if len(present) else ()
        else:
            values = _lists_as_arrays(series.drop_nulls())
        for row, value in zip(present, values, strict=True):
            items[row] = value
        return items
    return series.to_list()


def _lists_as_arrays(series):
    """Return the lists of numbers of a series without nulls as arrays."""
    dtype = _number_type(series.dtype)
    if dtype is not None and not isinstance(series.dtype.inner, (nw.Array, nw.List)):
        # polars works without pyarrow.
        with suppress(ImportError):
            lists = series.to_arrow()
            chunks = [chunk for chunk in getattr(lists, "chunks", [lists]) if len(chunk)]
            elements = [chunk.flatten() for chunk in chunks]
            if not any(numbers.null_count for numbers in elements):
                ends = [np.cumsum(chunk.value_lengths().to_numpy(zero_copy_only=False)) for chunk in chunks]
                pairs = zip(elements, ends, strict=True)
                return [row for x, end in pairs for row in np.split(x.to_numpy(zero_copy_only=False), end[:-1])]
    return [_nested_array(value, dtype) for value in series.to_list()]


def _inner_type(dtype):
    """Return the type of the innermost elements of a nested column."""
    while isinstance(dtype, (nw.Array, nw.List)):
        dtype = dtype.inner
    return dtype


def _holds_numbers(dtype):
    """Return whether a nested column holds numbers or booleans, rather than paths, bytes or dicts."""
    return _inner_type(dtype).is_numeric() or _inner_type(dtype) == nw.Boolean


def _number_type(dtype):
    """Return NumPy's type for the numbers in a nested column; None if NumPy has no such type."""
    dtype = _inner_type(dtype)
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
