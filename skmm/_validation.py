"""Checks of X, y and the columns of modalities."""

import narwhals.stable.v2 as nw
import numpy as np
from joblib import effective_n_jobs
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from ._sklearn import check_feature_names, check_n_features, get_column_indices


def has_callbacks(estimator):
    """Tell whether scikit-learn's callbacks listen to an estimator, set on it or on a composite around it."""
    return bool(getattr(estimator, "_skl_callbacks", ()))


def is_data_frame(X):
    """Tell whether X is a data frame of any library (pandas, polars, ...)."""
    return nw.dependencies.is_into_dataframe(X)


def check_table(estimator, X):
    """Check that X is an eager data frame or a 2-D array, with cells of any type; return it, a list as an array."""
    if not (nw.dependencies.is_pandas_dataframe(X) or nw.dependencies.is_polars_dataframe(X)):
        if nw.dependencies.is_into_dataframe(X) or nw.dependencies.is_polars_lazyframe(X):
            raise TypeError(
                f"X must be a pandas or polars DataFrame, or a 2-D array, got {type(X).__module__}.{type(X).__name__}; "
                "collect or convert it first."
            )
        X = check_array(X, dtype=None, ensure_all_finite=False, estimator=estimator)
        if not isinstance(X, np.ndarray):
            raise TypeError(
                f"{type(estimator).__name__} takes data frames and NumPy arrays, got {type(X).__module__}; convert X "
                "first, or use a strategy of fusion alone, which takes arrays of other libraries."
            )
    elif len(X) == 0:
        raise ValueError(f"Found 0 sample(s) in the data frame, while {type(estimator).__name__} needs at least 1.")
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
    if y.ndim != 2 or y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    if not numeric:
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
        Their positions in ``fit``. No column is searched where the header is the same there.

    modality : str
        Name of the modality, for the error message.
    """
    header = np.asarray(X.columns, dtype=object)
    if max(positions) < len(header) and np.array_equal(header[positions], names):
        return positions
    position_of = {label: position for position, label in reversed(list(enumerate(header)))}
    missing = [name for name in names if name not in position_of]
    if missing:
        raise ValueError(
            f"Modality {modality!r}: columns are missing in X: {shortened(missing)}; X has the columns "
            f"{shortened(header)}. Where the modality is missing in all rows, add them filled with None."
        )
    return [position_of[name] for name in names]
