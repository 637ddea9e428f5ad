"""What all encoders share: from a column of items to one float32 row per item.

A concrete encoder writes two hooks, ``_prepare_item`` (one item, on the CPU, may refuse it; it may run
in threads) and ``_encode_batch`` (a list of prepared items to rows). Everything else stands here once: the forms in
which a column may arrive, missing items, bad items, duplicates, progress, names and tags.
"""

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain

import narwhals.stable.v2 as nw
import numpy as np
from joblib import cpu_count
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from .._missing import is_missing_item
from .._validation import ItemError, RejectedItem, StrOptions, fit_context


def column_items(X, owner, rows_are_items=False):
    """Give the items of a column as a sequence, whatever container holds them.

    Parameters
    ----------
    X : Series, DataFrame with one column, array-like or sequence
        The column. An array with more than two dimensions holds one item per entry of its first.

    owner : str
        Who asks, for the error messages.

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
            f"got {type(X).__name__}; wrap a single item in a list."
        )
    if len(items) == 0:
        raise ValueError(f"{owner} got 0 items, while a minimum of 1 is required.")
    return items


def _series_items(series):
    """Items of a narwhals series, nested numeric entries as arrays, nulls as None."""
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
    """Give numpy's type for the numbers in a nested column, None if they are none that numpy knows."""
    while isinstance(dtype, (nw.Array, nw.List)):
        dtype = dtype.inner
    try:
        return np.dtype(str(dtype).lower()) if dtype.is_integer() or dtype.is_float() else None
    except TypeError:
        return None


def _nested_array(values, dtype):
    """Turn a list of lists into an array; a ragged one becomes an array of objects, for the encoder to judge."""
    for kind in (dtype, None, object):
        # Integers with a null between them fit no integer type.
        with suppress(ValueError, TypeError):
            return np.asarray(values, dtype=kind)
    return values


def describe_item(item):
    """Give a short text that lets a reader find an item: the string or path itself, else its shape."""
    if isinstance(item, (str, os.PathLike)):
        text = repr(os.fspath(item))
        return text if len(text) <= 120 else text[:117] + "..."
    if isinstance(item, (bytes, bytearray)):
        return f"{len(item)} bytes"
    if isinstance(item, np.ndarray):
        return f"array of shape {item.shape} and dtype {item.dtype}"
    if isinstance(item, tuple) and len(item) == 2:
        return f"pair of {describe_item(item[0])} and {describe_item(item[1])}"
    if np.isscalar(item):
        return f"{type(item).__name__} {item!r}"
    return f"{type(item).__module__}.{type(item).__name__} object"


def content_key(item):
    """Give a hashable value that two items share only if they are the same content, or None.

    Strings and paths stand for themselves, arrays and PIL images for their pixels, shape and type; pairs such
    as (sampling rate, waveform) for what they hold. None says that nothing is known of the item's content.
    """
    if isinstance(item, (str, bytes)):
        return type(item).__name__, item
    if isinstance(item, os.PathLike):
        return "path", os.fspath(item)
    if isinstance(item, np.ndarray) and item.dtype != object:
        # As bytes: dates offer no buffer.
        digest = hashlib.sha256(item.tobytes()).digest()
        return "array", item.shape, item.dtype.str, digest
    if isinstance(item, tuple) and len(item) == 2:
        parts = [("number", part) if isinstance(part, (int, float)) else content_key(part) for part in item]
        return None if None in parts else ("pair", *parts)
    if hasattr(item, "tobytes") and hasattr(item, "mode") and hasattr(item, "size"):
        try:
            pixels = hashlib.sha256(item.tobytes()).digest()
            # Kept beside the pixels, and yet they decide how these look: palette, transparency, orientation.
            palette = item.getpalette() if item.mode in ("P", "PA") else None
            looks = repr((palette, item.info.get("transparency"), item.getexif().get(0x0112)))
        # Not decoded before now, and damaged: that is for the encoder to refuse.
        except Exception:
            return None
        return "image", item.size, item.mode, looks, pixels
    return None


def available_cpus():
    """Give the number of threads that this process may keep busy: in joblib's workers their share of the cores."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = cpu_count()
    return min(cores, int(limit)) if limit.isdigit() and int(limit) else cores


class ItemEncoder(TransformerMixin, BaseEstimator):
    """Base of the transformers from a column of items to a float32 matrix.

    Subclasses set ``n_features_out_`` in ``_fit_width`` and write ``_prepare_item`` and
    ``_encode_batch``; they may override ``_batches`` to group prepared items.
    """

    _parameter_constraints: dict = {"on_error": [StrOptions({"raise", "missing"})], "verbose": ["boolean"]}

    # Prepared items held at a time (twice that with threads): memory is bounded by a window, not by X.
    _window = 256
    _prepare_in_threads = False
    # Whether a row of numbers can be an item, as a waveform can.
    _rows_are_items = False

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the width of the output. The items are counted, not encoded.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of items.

        y : ignored
            Present for API consistency.

        Returns
        -------
        self : estimator
            The fitted encoder; ``errors_`` is empty.
        """
        self._check_column(X, reset=True)
        self._fit_width()
        self.errors_ = []
        return self

    def fit_transform(self, X, y=None):
        """Fit, then encode. Unlike ``transform`` it records what it could not encode in ``errors_``.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of items.

        y : ignored
            Present for API consistency.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features_out_), dtype float32
            One row per item, NaN for missing ones.
        """
        self.fit(X)
        X_out, self.errors_ = self._encode(self._items(X))
        return X_out

    def transform(self, X):
        """Encode a column of items.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of items.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features_out_), dtype float32
            One row per item, NaN for missing ones.

        Raises
        ------
        ValueError
            If an item cannot be encoded and ``on_error="raise"``; it names the row.
        """
        check_is_fitted(self)
        return self._encode(self._check_column(X, reset=False))[0]

    def find_errors(self, X):
        """List the items that cannot be read, without encoding any.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of items. Missing items are no errors.

        Returns
        -------
        errors : list of ItemError
            One per bad item in row order, each with ``row``, ``item`` and ``reason``.
        """
        items = self._items(X)
        errors = []
        for row, item in enumerate(items):
            if is_missing_item(item):
                continue
            try:
                self._prepare_item(item)
            except RejectedItem as rejected:
                errors.append(self._error(row, item, rejected))
        return errors

    def get_feature_names_out(self, input_features=None):
        """Get the names of the output columns: "0", "1", ...

        Parameters
        ----------
        input_features : ignored
            Present for API consistency.

        Returns
        -------
        feature_names_out : ndarray of shape (n_features_out_,), dtype object
            Names; a composite puts the modality's name before them.
        """
        check_is_fitted(self)
        return np.array([str(i) for i in range(self.n_features_out_)], dtype=object)

    def _fit_width(self):
        """Set ``n_features_out_``."""
        raise NotImplementedError

    def _prepare_item(self, item):
        """Turn one item that is not missing into what ``_encode_batch`` takes, or raise RejectedItem."""
        raise NotImplementedError

    def _get_model(self):
        """Give what ``_batches`` and ``_encode_batch`` work with during one call; None if they need nothing."""

    def _encode_batch(self, batch, model):
        """Turn a list of prepared items into an array of shape (len(batch), n_features_out_)."""
        raise NotImplementedError

    def _batches(self, prepared, model):
        """Yield lists of positions in ``prepared`` that are encoded together."""
        yield list(range(len(prepared)))

    def _items(self, X):
        return column_items(X, type(self).__name__, self._rows_are_items)

    def _check_column(self, X, reset):
        items = self._items(X)
        name = None
        if nw.dependencies.is_into_dataframe(X):
            name = nw.from_native(X, eager_only=True).columns[0]
        if reset:
            self.n_features_in_ = 1
            if isinstance(name, str):
                self.feature_names_in_ = np.array([name], dtype=object)
            elif hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        elif isinstance(name, str) and hasattr(self, "feature_names_in_") and name != self.feature_names_in_[0]:
            raise ValueError(
                f"{type(self).__name__} was fitted on column {self.feature_names_in_[0]!r} and got column {name!r}; "
                "pass the same column."
            )
        return items

    def _error(self, row, item, reason):
        return ItemError(row, describe_item(item), str(reason), type(self).__name__)

    def _encode(self, items):
        """Encode all items; give the matrix and the errors, in row order."""
        rows_of = {}
        for row, item in enumerate(items):
            if not is_missing_item(item):
                rows_of.setdefault(content_key(item) or row, []).append(row)
        X_out = np.full((len(items), self.n_features_out_), np.nan, dtype=np.float32)
        errors = []
        groups = list(rows_of.values())
        model = self._get_model()
        with tqdm(total=len(groups), desc=type(self).__name__, unit="item", disable=not self.verbose) as bar:
            for window in self._prepared_windows(items, groups):
                self._encode_window(items, window, model, X_out, errors, bar)
        errors.sort(key=lambda error: error.row)
        if errors:
            first = errors[0]
            warnings.warn(
                f"{type(self).__name__}: {len(errors)} of {len(items)} items could not be encoded and count as "
                f"missing (the first: {first.item}: {first.reason}); find_errors(X) lists them.",
                UserWarning,
                stacklevel=3,
            )
        return X_out, errors

    def _prepared_windows(self, items, groups):
        """Yield lists of (rows, prepared item or RejectedItem); threads prepare one window ahead."""

        def prepare(rows):
            try:
                return rows, self._prepare_item(items[rows[0]])
            except RejectedItem as rejected:
                return rows, rejected

        windows = [groups[start : start + self._window] for start in range(0, len(groups), self._window)]
        if not self._prepare_in_threads or len(groups) == 1:
            for window in windows:
                yield [prepare(rows) for rows in window]
            return
        with ThreadPoolExecutor(available_cpus()) as pool:
            ahead = deque()
            try:
                for window in windows:
                    ahead.append([pool.submit(prepare, rows) for rows in window])
                    if len(ahead) > 1:
                        yield [future.result() for future in ahead.popleft()]
                while ahead:
                    yield [future.result() for future in ahead.popleft()]
            finally:
                # Whoever stops early does not wait for what is not needed any more.
                for future in chain.from_iterable(ahead):
                    future.cancel()

    def _encode_window(self, items, window, model, X_out, errors, bar):
        """Encode prepared items, each at all its rows, into ``X_out``; what fails goes to ``errors``."""

        def reject(rows, reason):
            found = [self._error(row, items[row], reason) for row in rows]
            if self.on_error == "raise":
                raise found[0] from (reason if isinstance(reason, Exception) else None)
            errors.extend(found)

        prepared, rows_of_prepared = [], []
        for rows, item in window:
            if isinstance(item, RejectedItem):
                reject(rows, item)
                bar.update()
            else:
                prepared.append(item)
                rows_of_prepared.append(rows)
        for positions in self._batches(prepared, model) if prepared else ():
            vectors = self._encode_batch([prepared[position] for position in positions], model)
            finite = np.isfinite(vectors).all(axis=1)
            for position, vector, is_finite in zip(positions, vectors, finite, strict=True):
                if is_finite:
                    X_out[rows_of_prepared[position]] = vector
                else:
                    reject(rows_of_prepared[position], "the encoder gave values that are not finite")
            bar.update(len(positions))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags
