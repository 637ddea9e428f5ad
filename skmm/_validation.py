"""Checks of modalities and blocks, shared parameter constraints and errors.

This is the only module that imports private names of scikit-learn; the others take them from here.
"""

import narwhals.stable.v2 as nw
import numpy as np
from joblib import effective_n_jobs
from scipy import sparse
from sklearn.base import _fit_context as fit_context
from sklearn.metrics._scorer import _BaseScorer as BaseScorer
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils._array_api import _convert_to_numpy as convert_to_numpy
from sklearn.utils._array_api import _max_precision_float_dtype as max_precision_float_dtype
from sklearn.utils._array_api import get_namespace_and_device
from sklearn.utils._indexing import _get_column_indices
from sklearn.utils._metadata_requests import _raise_for_params as raise_for_params
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions, validate_params
from sklearn.utils._repr_html.estimator import _VisualBlock as VisualBlock
from sklearn.utils._user_interface import _print_elapsed_time as log_elapsed_time
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _get_feature_names,
)
from sklearn.utils.validation import (
    _check_feature_names_in as check_feature_names_in,
)
from sklearn.utils.validation import (
    _check_method_params as check_method_params,
)
from sklearn.utils.validation import (
    _check_sample_weight as check_sample_weight,
)

__all__ = [
    "BaseComposition",
    "BaseScorer",
    "HasMethods",
    "Interval",
    "StrOptions",
    "VisualBlock",
    "check_feature_names_in",
    "check_method_params",
    "check_sample_weight",
    "convert_to_numpy",
    "fit_context",
    "get_namespace_and_device",
    "has_callbacks",
    "log_elapsed_time",
    "max_precision_float_dtype",
    "raise_for_params",
    "safe_indexing",
    "validate_params",
]


class RejectedItem(ValueError):
    """Raised by an encoder's ``_prepare_item`` for an item that it cannot read; the text is the reason."""


class ItemError(ValueError):
    """An item that could not be encoded.

    Parameters
    ----------
    row : int
        Position of the item in the X that was passed.

    item : str
        The string or path itself, or a short description of anything larger.

    reason : str
        What is wrong with it.

    owner : str
        Encoder that met it, with the modality's name if it worked inside a composite.
    """

    def __init__(self, row, item, reason, owner):
        super().__init__(row, item, reason, owner)
        self.row = row
        self.item = item
        self.reason = reason
        self.owner = owner

    def __str__(self):
        return (
            f'{self.owner}: row {self.row}: {self.item}: {self.reason}; mend the item, or pass on_error="missing" '
            "to treat such items as missing."
        )


class BranchItemError(ItemError):
    """An item that a branch of a network could not read; branches take no ``on_error``."""

    def __str__(self):
        return (
            f"{self.owner}: row {self.row}: {self.item}: {self.reason}; mend the item, or set it to None, which makes "
            "it a missing one."
        )


def has_callbacks(estimator):
    """Tell whether scikit-learn's callbacks listen to an estimator, its own or those of what holds it."""
    return bool(getattr(estimator, "_skl_callbacks", ()))


def is_data_frame(X):
    """Tell whether X is a data frame of any library (pandas, polars, ...)."""
    return nw.dependencies.is_into_dataframe(X)


def check_table(estimator, X):
    """Check that X is an eager data frame or a 2-D array, cells of any type; give it, lists as an array."""
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
        _check_feature_names(estimator, X, reset=reset)
        _check_n_features(estimator, X, reset=reset)
    return X


def check_target(X, y, owner, *, numeric):
    """Check y against X and give it as an array: 1-D, or 2-D for several labels or outputs."""
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
    return y


def check_columns(estimator, X, *, reset):
    """Set or compare ``n_features_in_`` and ``feature_names_in_`` for the columns of one modality.

    A series, a list or an array of items is one column.
    """
    _check_feature_names(estimator, X, reset=reset)
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
    """Give the positions of a modality's columns in X, and whether a single column was meant.

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
        True if a scalar selected one column, which is then handed on as 1-D.
    """
    if callable(columns):
        columns = columns(X)
    try:
        if columns is None:
            raise TypeError("None selects nothing")
        positions = _get_column_indices(X, columns)
    except (TypeError, ValueError) as error:
        known = f"; X has the columns {list(_get_feature_names(X))}" if is_data_frame(X) else ""
        raise ValueError(
            f"Modality {name!r}: columns={columns!r} cannot be selected from X with n_features = {X.shape[1]}"
            f"{known} ({error})."
        ) from error
    if not positions:
        raise ValueError(
            f"Modality {name!r} selects no column: columns={columns!r}, while X has n_features = {X.shape[1]}."
        )
    return positions, np.isscalar(columns)


def columns_by_name(X, names, modality):
    """Give the positions of named columns in a data frame, or say which of them are absent."""
    header = nw.from_native(X, eager_only=True).columns
    absent = [name for name in names if name not in header]
    if absent:
        raise ValueError(f"Modality {modality!r}: columns are missing in X: {absent}; X has the columns {header}.")
    return [header.index(name) for name in names]


def check_block_name(name):
    """Raise unless ``name`` can name a modality or block: a non-empty string without "__"."""
    if not isinstance(name, str) or not name or "__" in name:
        raise ValueError(f"Names of modalities and blocks are non-empty strings without '__', got {name!r}.")


def resolve_blocks(blocks, n_features, feature_names=None, *, owner, min_blocks=1):
    """Give the blocks of a matrix as closed slices, in the order given.

    Parameters
    ----------
    blocks : dict of str to slice, "prefix" or None
        The constructor parameter. None means one block of all columns; "prefix" reads the part of
        each column's name before the first "__".

    n_features : int
        Columns of the matrix.

    feature_names : array-like of str or None, default=None
        Names of the columns, needed for "prefix".

    owner : str
        Name of the estimator, for the error messages.

    min_blocks : int, default=1
        Fewest blocks that make sense to the estimator.

    Returns
    -------
    slices : dict of str to slice
        Disjoint slices that together cover all columns. The only block of ``blocks=None`` is named "".
    """
    if blocks is None:
        slices = {"": slice(0, n_features)}
    elif blocks == "prefix":
        slices = _blocks_from_prefixes(feature_names, owner)
    else:
        slices = {}
        for name, columns in blocks.items():
            check_block_name(name)
            if not isinstance(columns, slice) or columns.step not in (None, 1):
                raise ValueError(f"{owner}: blocks[{name!r}] must be a slice without a step, got {columns!r}.")
            start, stop, _ = columns.indices(n_features)
            if start >= stop:
                raise ValueError(
                    f"{owner}: block {name!r} selects no column: {columns!r}, while X has n_features = {n_features}."
                )
            slices[name] = slice(start, stop)
        end = 0
        for name, columns in sorted(slices.items(), key=lambda block: block[1].start):
            if columns.start != end:
                raise ValueError(
                    f"{owner}: blocks must cover each column exactly once, but {name!r} starts at column "
                    f"{columns.start} where {end} was expected."
                )
            end = columns.stop
        if end != n_features:
            raise ValueError(f"{owner}: blocks end at column {end}, while X has n_features = {n_features}.")
    if len(slices) < min_blocks:
        raise ValueError(
            f"{owner} needs at least {min_blocks} blocks (modalities), got {len(slices)}; use it as the fusion of a "
            "ModalityFuser with several modalities, or pass blocks={'a': slice(0, k), 'b': slice(k, None)}."
        )
    return slices


def _blocks_from_prefixes(feature_names, owner):
    if feature_names is None:
        raise ValueError(f"{owner}: blocks='prefix' needs a data frame with string column names, got an array.")
    slices = {}
    for position, feature in enumerate(feature_names):
        name, separator, _ = feature.partition("__")
        if not separator:
            raise ValueError(f"{owner}: blocks='prefix' needs names such as 'text__0', got {feature!r}.")
        if name not in slices:
            slices[name] = slice(position, position + 1)
        elif slices[name].stop == position:
            slices[name] = slice(slices[name].start, position + 1)
        else:
            raise ValueError(
                f"{owner}: blocks='prefix' needs contiguous columns, but {name!r} comes back at {feature!r}."
            )
    return slices


def dense_block(output, name, max_bytes=2**31):
    """Turn what a modality's transformer returned into a dense 2-D float array.

    float32 stays float32, everything else becomes float64. A sparse output is densified while the
    result stays under ``max_bytes`` (2 GiB by default).
    """
    if sparse.issparse(output):
        size = output.shape[0] * output.shape[1] * max(output.dtype.itemsize, 4)
        if size > max_bytes:
            raise ValueError(
                f"Modality {name!r}: its sparse output of shape {output.shape} would take {size / 2**30:.1f} GiB "
                f"as a dense block, the bound is {max_bytes / 2**30:.0f} GiB; reduce it first, "
                "for example with TruncatedSVD."
            )
        output = output.toarray()
    elif is_data_frame(output):
        output = nw.from_native(output, eager_only=True).to_numpy()
    output = np.asarray(output)
    if output.ndim != 2:
        raise ValueError(
            f"Modality {name!r}: its transformer must return a 2-D matrix, got an array of shape {output.shape}."
        )
    if output.dtype.kind in "mM":
        raise ValueError(f"Modality {name!r} holds dates or times, not numbers; give it a transformer.")
    if np.iscomplexobj(output):
        raise ValueError(f"Complex data not supported: modality {name!r} holds complex numbers.")
    if output.dtype == np.float32:
        return output
    try:
        return output.astype(np.float64, copy=False)
    except ValueError as error:
        raise ValueError(
            f"Modality {name!r} holds values that are no numbers ({error}); give it an encoder or a transformer."
        ) from error
