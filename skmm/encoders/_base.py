"""What all encoders share: from a column of items to one float32 row per item."""

import os
from collections.abc import Mapping
from contextlib import suppress
from numbers import Number
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted

from .._columns import column_items, describe_item, from_arrow, is_data_frame, is_missing_item, is_series, present_rows
from .._sklearn import StrOptions, fit_context
from .._typing import Items
from .._warnings import warn
from ..exceptions import ItemError, RejectedItem
from ..media import locate_file
from ..store import Unidentifiable, adopt_folder, digest_of, minor_versions, private_folder, public_name
from ._run import N_STEPS, EncodingRun, is_list


def _is_plain(value):
    """Return whether the ``repr`` of a value tells all of it, in this process and in any other."""
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (str, bytes, bool, Number, os.PathLike))


class ItemEncoder(CallbackSupportMixin, TransformerMixin, BaseEstimator):
    """Base of the transformers from a column of items to a float32 matrix, for encoders of your own.

    A subclass writes three hooks:

    - ``_fit_width()`` sets ``n_features_out_``;
    - ``_prepare_item(item)`` turns one item that is not missing into whatever is encoded, on the CPU, or raises
      :class:`~skmm.exceptions.RejectedItem` with the reason why it cannot; any other error passes through as it is;
    - ``_encode_batch(batch, model)`` turns a list of prepared items into an array of shape
      (len(batch), n_features_out_), which becomes float32; ``model`` is None here and the network in a
      :class:`ModelEncoder`.

    The base class accepts all forms in which a column may arrive, encodes equal items once, gives missing items rows
    of NaN, reports bad items by their row, and shows progress.

    Attributes
    ----------
    n_features_in_ : int
        1, the column of items.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    n_features_out_ : int
        Width of the rows.

    errors_ : list of ItemError
        Items that the last ``fit_transform`` could not encode.

    Notes
    -----
    The ``__init__`` of a subclass takes and sets ``on_error`` ("raise" or "missing") and ``verbose``. To have its
    parameters validated, it sets ``_parameter_constraints = {**ItemEncoder._parameter_constraints, ...}`` in the manner
    of scikit-learn. Empty lists and dicts are not missing. Class attributes that it may set: ``_prepare_in_threads``
    (False) prepares items in threads, ``_rows_are_items`` (False) says that a row of a 2-D array of numbers is an item,
    as a waveform is, ``_strings_are_paths`` (True) that a string names a file rather than being a text, and
    ``_items_are_files`` (False) that a dict with "bytes" or "path" stands for that file, and that relative paths are
    below the encoder's parameter ``root``.

    An encoder with ``_stores_rows`` (False) keeps its rows in the store that its parameter ``store`` names, as
    :class:`ImageDescriptor` does. They are known by the name of the class, its parameters, which then are plain data,
    the versions of the packages that ``_libraries()`` returns, and the class attribute ``_version``: raise it when a
    change of the code changes the rows.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.encoders import ItemEncoder
    >>> from skmm.exceptions import RejectedItem
    >>> class LetterCounter(ItemEncoder):
    ...     _strings_are_paths = False
    ...
    ...     def __init__(self, letters="abc", *, on_error="raise", verbose=False):
    ...         self.letters = letters
    ...         self.on_error = on_error
    ...         self.verbose = verbose
    ...
    ...     def _fit_width(self):
    ...         self.n_features_out_ = len(self.letters)
    ...
    ...     def _prepare_item(self, item):
    ...         if not isinstance(item, str):
    ...             raise RejectedItem(f"expected a string, got {type(item).__name__}")
    ...         return item.lower()
    ...
    ...     def _encode_batch(self, batch, model):
    ...         return np.array([[text.count(letter) for letter in self.letters] for text in batch], dtype=np.float32)
    >>> LetterCounter().fit_transform(["Abba", None])
    array([[ 2.,  2.,  0.],
           [nan, nan, nan]], dtype=float32)
    """

    _parameter_constraints: dict = {"on_error": [StrOptions({"raise", "missing"})], "verbose": ["boolean"]}

    # Maximum number of prepared items in memory (three times as many with threads).
    _window = 256
    _prepare_in_threads = False
    _rows_are_items = False
    _strings_are_paths = True
    # Whether an item is a file, or holds one: relative paths are then below the parameter ``root``.
    _items_are_files = False
    # Whether a cell may be a list of items, whose rows are pooled as the parameter ``pooling`` says.
    _pools_lists = False
    # Whether rows are kept in the store that the parameter ``store`` names.
    _stores_rows = False
    # Parameters that have no part in the rows, or a part of their own in the identity; and those of a class.
    _housekeeping = {"on_error", "store", "verbose"}
    _not_in_rows: set = set()
    # Part of the identity: to be raised when the code changes what it makes of an item.
    _version = 0
    # For skrub, which then fits a clone to each of several columns.
    __single_column_transformer__ = True
    _column_name = None
    # object for an output that is one column of objects.
    _output_dtype = np.float32

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Items, y: object = None) -> Self:
        """Learn the width of the output. The items are counted, not encoded.

        Parameters
        ----------
        X : Series, one-column DataFrame or Table, array-like or list of n_samples items
            Column of items.

        y : ignored
            Present for API consistency.

        Returns
        -------
        self : estimator
            The fitted encoder; ``errors_`` is empty.
        """
        progress = self._init_callback_context().call_on_fit_task_begin(estimator=self, X=X, y=y)
        self._start(X)
        self.errors_ = []
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Items, y: object = None) -> np.ndarray:
        """Fit, then encode. Unlike ``transform`` it records what it could not encode in ``errors_``.

        Parameters
        ----------
        X : Series, one-column DataFrame or Table, array-like or list of n_samples items
            Column of items.

        y : ignored
            Present for API consistency.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features_out_), dtype float32
            One row per item, NaN for missing ones.
        """
        progress = self._init_callback_context(max_subtasks=N_STEPS)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        # Callbacks are set on the encoder or on a composite around it.
        has_callbacks = bool(getattr(self, "_skl_callbacks", ()))
        X_out, self.errors_ = self._start(X).encode(progress if has_callbacks else None)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
        return X_out

    def transform(self, X: Items) -> np.ndarray:
        """Encode a column of items.

        Parameters
        ----------
        X : Series, one-column DataFrame or Table, array-like or list of n_samples items
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
        return EncodingRun(self, *self._check_column(X, reset=False)).encode()[0]

    def find_errors(self, X: Items) -> list[ItemError]:
        """List the items that cannot be read, without encoding any.

        Items of which the network makes values that are not finite are not among them; ``errors_`` has these too.

        Parameters
        ----------
        X : Series, one-column DataFrame or Table, array-like or list of n_samples items
            Column of items. Missing items are no errors.

        Returns
        -------
        errors : list of ItemError
            One per bad item in row order, each with ``row``, ``item`` and ``reason``.
        """
        self._validate_params()
        self._check_parameters()
        items = self._items(X)
        errors = []
        for row in present_rows(items):
            cell = items[row]
            elements = enumerate(cell) if self._pools_lists and is_list(cell) else [(None, cell)]
            for place, item in elements:
                try:
                    _ = is_missing_item(item) or self._prepare_item(item)
                except RejectedItem as rejected:
                    errors.append(self._error(row, item, rejected, place))
        return errors

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Get the names of the output columns: "caption_0", "caption_1", ... if ``fit`` saw the column "caption".

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            If it is passed, the column's name is left out: "0", "1", ... So do composites, which put the modality's
            name before these.

        Returns
        -------
        feature_names_out : ndarray of shape (n_features_out_,), dtype object
            Names.
        """
        check_is_fitted(self)
        has_prefix = input_features is None and self._column_name is not None
        prefix = f"{self._column_name}_" if has_prefix else ""
        return np.array([f"{prefix}{name}" for name in self._feature_names()], dtype=object)

    def _start(self, X, kind_of_run=EncodingRun):
        """Check the column and the parameters, learn the width, and return the run that encodes the column."""
        items = self._check_column(X, reset=True)
        self._check_parameters()
        run = kind_of_run(self, *items)
        self._learn(run)
        return run

    def _learn(self, run):
        """Learn what ``fit`` learns, in a run of the encoder."""
        self._fit_width()

    def _check_parameters(self):
        """Raise if parameters are wrong, or do not go together, in a way that their constraints cannot describe."""

    def _fit_width(self):
        """Set ``n_features_out_``."""
        raise NotImplementedError(f"{type(self).__name__} has no method _fit_width; write it, see ItemEncoder.")

    def _feature_names(self):
        """Return the names of the output columns, without that of the input."""
        return range(self.n_features_out_)

    def _prepare_item(self, item):
        """Turn one item that is not missing into what ``_encode_batch`` takes, or raise RejectedItem."""
        raise NotImplementedError(f"{type(self).__name__} has no method _prepare_item; write it, see ItemEncoder.")

    def _encode_batch(self, batch, model):
        """Turn a list of prepared items into an array of shape (len(batch), n_features_out_)."""
        raise NotImplementedError(f"{type(self).__name__} has no method _encode_batch; write it, see ItemEncoder.")

    def _batches(self, prepared, model):
        """Yield lists of positions in ``prepared`` that are encoded together."""
        yield list(range(len(prepared)))

    def _prepared_bytes(self, prepared):
        """Return the bytes of a prepared item; 0 if it is small, or rejected."""
        return getattr(prepared, "nbytes", 0)

    def _n_workers(self, kind):
        """Return how many threads prepare and encode side by side on a kind of device; 1 for none but the caller's."""
        return 1

    def _window_on(self, kind):
        """Return the maximum number of prepared items in memory on a kind of device."""
        return self._window

    def _settings(self, source):
        """Return the parameters that have a part in the rows, as plain data."""
        params = self.get_params(deep=False)
        names = sorted(params.keys() - self._housekeeping - self._not_in_rows)
        for name in names:
            if not _is_plain(params[name]):
                raise Unidentifiable(f"its parameter {name} is no plain data, but a {type(params[name]).__name__}")
        return [(name, params[name]) for name in names]

    def _libraries(self):
        """Return the packages whose versions have a part in the rows."""
        return ()

    def _find_identity(self, run):
        """Return a digest of everything that decides the rows of this encoder; None, with a warning, if unknown."""
        try:
            settings = self._settings(None)
        except Unidentifiable as problem:
            warn(
                f"{type(self).__name__}: nothing is kept in the store, since nothing tells what decides it ({problem})."
            )
            return None
        return digest_of(public_name(type(self)), self._version, minor_versions(self._libraries()), settings)

    def _place(self):
        """Return the device and the precision that the encoder computes on and in, as users name them."""
        return getattr(self, "device", "cpu"), getattr(self, "precision", "float32")

    def _find_source(self):
        """Return where the model comes from; None if there is no model."""

    def _get_model(self, run):
        """Return what ``_batches`` and ``_encode_batch`` work with; None if they need nothing."""

    def _get_tuned_model(self, run):
        """Return the model with weights that were tuned to a target, if there are any."""
        return self._get_model(run)

    def _finish_rows(self, rows):
        """Turn rows as ``_encode_batch`` returns them, and as a store keeps them, into rows of the output."""
        return rows

    def _items(self, X):
        """Return the items of a column, each as ``_prepare_item`` takes it."""
        items = column_items(X, type(self).__name__, self._rows_are_items)
        if not self._items_are_files or (isinstance(items, np.ndarray) and items.dtype != object):
            return items
        if self.root is None and not any(map(_holds_others, items)):
            return items
        return [locate_file(item, self.root) for item in items]

    def _check_column(self, X, reset):
        """Return the items of a column and the rows that have one; compare its name with that in ``fit``, or set it."""
        items = self._items(X)
        present = present_rows(items)
        X = from_arrow(X)
        name = X.columns[0] if is_data_frame(X) else None
        if reset:
            self.n_features_in_ = 1
            label = X.name if is_series(X) else name
            self._column_name = label if isinstance(label, str) and label else None
            if isinstance(name, str):
                self.feature_names_in_ = np.array([name], dtype=object)
            elif hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        elif isinstance(name, str) and hasattr(self, "feature_names_in_") and name != self.feature_names_in_[0]:
            raise ValueError(
                f"{type(self).__name__} was fitted on column {self.feature_names_in_[0]!r} and got column {name!r}; "
                "pass the same column."
            )
        return items, present

    def _error(self, row, item, reason, place=None):
        """Return the error of an item; ``place`` is its position in a list, where the cell is one."""
        reason = str(reason) if place is None else f"item {place} of a list: {reason}"
        return ItemError(row, describe_item(item), reason, type(self).__name__)

    def __reduce_ex__(self, protocol):
        make, arguments, state, *rest = super().__reduce_ex__(protocol)
        # Workers find the private store by its path. joblib.hash, whose result must not depend on the session,
        # pickles with protocol 3; processes communicate in a later one.
        if self._stores_rows and self.store == "auto" and protocol > 3:
            with suppress(OSError):
                state = {**state, "_private_folder": os.fspath(private_folder())}
        return make, arguments, state, *rest

    def __setstate__(self, state):
        state = dict(state)
        folder = state.pop("_private_folder", None)
        if folder is not None:
            adopt_folder(folder)
        super().__setstate__(state)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _holds_others(item):
    """Tell whether an item is a dict or a sequence, which may hold files."""
    return isinstance(item, (Mapping, list, tuple)) or (isinstance(item, np.ndarray) and item.dtype.kind in "OU")
