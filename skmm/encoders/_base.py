"""What all encoders share: from a column of items to one float32 row per item.

A concrete encoder writes two hooks, ``_prepare_item`` (one item, on the CPU, may refuse it; it may run
in threads) and ``_encode_batch`` (a list of prepared items to rows). Everything else stands here once: the forms in
which a column may arrive, missing items, bad items, duplicates, progress, names and tags.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from .._missing import is_missing_item
from .._sklearn import StrOptions, fit_context
from .._threads import BYTES_HELD, in_order, in_pool
from .._torch import available_cpus, divided_threads
from .._validation import has_callbacks
from ..exceptions import ItemError, RejectedItem
from ..media import column_items, describe_item
from ..store import content_key
from ._rounds import rounds_of, side_by_side

# Steps in which callbacks hear of an encoding's progress.
_TICKS = 100

# Tasks in which the items of a window are prepared: few cost less, many end at the same time.
_TASKS_PER_WINDOW = 8


class _Bar(tqdm):
    """Progress bar that also tells scikit-learn's callbacks how far the encoding is, in ``_TICKS`` steps."""

    def __init__(self, encoder, n_items, progress):
        super().__init__(total=n_items, desc=type(encoder).__name__, unit="item", disable=not encoder.verbose)
        self._encoder, self._progress = encoder, progress
        self._n_items, self._n_done, self._n_ticks = n_items, 0, 0

    def update(self, n=1):
        """Count ``n`` more items as done."""
        self._n_done += n
        while self._progress is not None and self._n_ticks * self._n_items < self._n_done * _TICKS:
            self._n_ticks += 1
            step = self._progress.subcontext(task_name="encode")
            step.call_on_fit_task_begin(estimator=self._encoder)
            step.call_on_fit_task_end(estimator=self._encoder)
        return super().update(n)


class ItemEncoder(CallbackSupportMixin, TransformerMixin, BaseEstimator):
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
    # Whether a string names a file; else it is a text.
    _strings_are_paths = True

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
        progress = self._init_callback_context().call_on_fit_task_begin(estimator=self, X=X, y=y)
        self._learn(X)
        self.errors_ = []
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    @fit_context(prefer_skip_nested_validation=True)
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
        progress = self._init_callback_context(max_subtasks=_TICKS)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        items, identity = self._learn(X)
        X_out, self.errors_ = self._encode(items, progress if has_callbacks(self) else None, identity)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
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

        Items of which the network makes values that are not finite are not among them; ``errors_`` has these too.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
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

    def _learn(self, X):
        """Check the column and the parameters, learn the width; give the items, and what ``_fit_width`` gives."""
        items = self._check_column(X, reset=True)
        self._check_parameters()
        return items, self._fit_width()

    def _check_parameters(self):
        """Raise if parameters are wrong, or do not go together, in a way that their constraints cannot say."""

    def _fit_width(self):
        """Set ``n_features_out_``; give the identity of the encoder where it was found on the way, else None."""
        raise NotImplementedError

    def _prepare_item(self, item):
        """Turn one item that is not missing into what ``_encode_batch`` takes, or raise RejectedItem."""
        raise NotImplementedError

    def _prepared_bytes(self, prepared):
        """Give the bytes of a prepared item; 0 where it is small, or refused."""
        return getattr(prepared, "nbytes", 0)

    def _get_model(self):
        """Give what ``_batches`` and ``_encode_batch`` work with during one call; None if they need nothing."""

    def _n_workers(self, model):
        """Give the number of threads that prepare and encode windows side by side; 1 for none but the caller's."""
        return 1

    def _encode_batch(self, batch, model):
        """Turn a list of prepared items into an array of shape (len(batch), n_features_out_)."""
        raise NotImplementedError

    def _batches(self, prepared, model):
        """Yield lists of positions in ``prepared`` that are encoded together."""
        yield list(range(len(prepared)))

    def _missing_output(self, n_samples):
        """Give an output in which all items are missing."""
        return np.full((n_samples, self.n_features_out_), np.nan, dtype=np.float32)

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

    def _reject(self, items, rows, reason, errors):
        """Raise an error for a bad item, or note it at all its rows."""
        found = [self._error(row, items[row], reason) for row in rows]
        if self.on_error == "raise":
            raise found[0] from (reason if isinstance(reason, Exception) else None)
        errors.extend(found)

    def _kept_rows(self, X_out, identity=None):
        """Give what a store holds of this encoder's rows, None if there is no store for them."""

    def _check_model_is_same(self, kept):
        """Raise if the model that was got is not the one whose rows the store was asked for."""

    def _have_keys(self, items, keys, kept):
        """Give the mask of the items that still have the content of their keys."""
        raise NotImplementedError

    def _finish_rows(self, rows):
        """Turn rows as the encoder computes them, and as a store keeps them, into rows of the output."""
        return rows

    def _group(self, items, kept):
        """Give a list of (key, rows) of equal items; the key is None without a store or where it has none for them."""
        present = [row for row, item in enumerate(items) if not is_missing_item(item)]
        if kept is None:
            keys = (content_key(items[row], self._strings_are_paths) or row for row in present)
        else:
            keys = self._store_keys([items[row] for row in present], kept)
        rows_of = {}
        for row, key in zip(present, keys, strict=True):
            rows_of.setdefault(row if key is None else key, []).append(row)
        return [(key if isinstance(key, bytes) else None, rows) for key, rows in rows_of.items()]

    def _encode(self, items, progress=None, identity=None):
        """Encode all items, or take their rows from the store; give the matrix and the errors, in row order.

        Every item becomes a row here and nowhere else.
        """
        X_out = self._missing_output(len(items))
        kept = self._kept_rows(X_out, identity)
        groups = self._group(items, kept)
        with _Bar(self, len(groups), progress) as bar:
            if kept is None:
                errors = self._encode_groups(items, groups, X_out, None, bar)
            else:
                missing = kept.look_up(groups, bar.update)
                errors = []
                if missing:
                    with kept.turn():
                        errors += self._encode_groups(items, missing, X_out, kept, bar)
        errors.sort(key=lambda error: error.row)
        if errors:
            first = errors[0]
            warnings.warn(
                f"{type(self).__name__}: {len(errors)} of {len(items)} items could not be encoded and count as "
                f"missing (the first: {first.item}: {first.reason}); find_errors(X) lists what cannot be read.",
                UserWarning,
                stacklevel=3,
            )
        return X_out, errors

    def _encode_groups(self, items, groups, X_out, kept, bar):
        """Encode groups of equal items into ``X_out``; give the errors."""
        errors, first = [], None
        if kept is not None:
            groups = kept.look_again(groups, bar.update)
            readable, first = self._refuse(items, groups, errors)
            bar.update(len(groups) - len(readable))
            groups = readable
        if not groups:
            return errors
        model = self._get_model()
        if kept is not None:
            self._check_model_is_same(kept)
        errors += self._encode_pass(items, groups, model, X_out, kept, bar, first)
        while kept is not None and kept.deferred:
            # Most of it is there by now. Whoever still computes began at the other end.
            errors += self._encode_pass(items, kept.begin_later_pass(), model, X_out, kept, bar)
        return errors

    def _refuse(self, items, groups, errors):
        """Give the groups from the first readable item on, and that item, prepared.

        Where only bad ones are missing, no model is needed.
        """
        for start, (_, rows) in enumerate(groups):
            try:
                return groups[start:], self._prepare_item(items[rows[0]])
            except RejectedItem as rejected:
                self._reject(items, rows, rejected, errors)
        return [], None

    def _encode_pass(self, items, groups, model, X_out, kept, bar, first=None):
        n_workers = self._n_workers(model) if len(groups) > 1 else 1
        length = min(self._window, -(-len(groups) // n_workers))
        errors = []

        def claimed():
            # Where preparing costs much, or is likely to be in vain, others begin elsewhere already there.
            if kept is None or not (self._prepare_in_threads or kept.is_later_pass):
                yield from groups
                return
            for start in range(0, len(groups), length):
                yield from kept.take(groups[start : start + length], bar.update, begins=False)

        def prepare(group):
            if first is not None and group is groups[0]:
                return first
            try:
                return self._prepare_item(items[group[1][0]])
            except RejectedItem as rejected:
                return rejected

        def accepted(prepared):
            for group, item in prepared:
                if isinstance(item, RejectedItem):
                    self._reject(items, group[1], item, errors)
                    bar.update(1)
                else:
                    yield group, item

        def encode(window, report=bar.update):
            return self._encode_window(items, window, model, X_out, kept, report)

        def encode_apart(window):
            counts = []
            return encode(window, counts.append), sum(counts)

        def rounds(prepared):
            return rounds_of(accepted(prepared), self._window, n_workers, self._prepared_bytes, BYTES_HELD)

        # All is closed at once if an error ends the loop early, and the threads with it.
        with ExitStack() as stack:
            if n_workers == 1:
                n_threads = available_cpus() if self._prepare_in_threads and len(groups) > 1 else 0
                line = in_order(prepare, claimed(), n_threads, ahead=2 * self._window, size=self._prepared_bytes)
                prepared = stack.enter_context(closing(line))
                encoded = ((encode(window), 0) for (window,) in rounds(prepared))
            else:
                # The same threads prepare and encode, in the order in which it comes up: more would be in the way.
                divide = stack.enter_context(divided_threads())
                pool = stack.enter_context(ThreadPoolExecutor(n_workers, initializer=divide, initargs=(n_workers,)))
                line = in_pool(prepare, claimed(), pool, ahead=2 * n_workers, chunk=-(-length // _TASKS_PER_WINDOW))
                prepared = stack.enter_context(closing(line))
                encoded = stack.enter_context(closing(side_by_side(encode_apart, rounds(prepared), pool, divide)))
            for found, n_done in encoded:
                errors += found
                bar.update(n_done)
        return errors

    def _encode_window(self, items, window, model, X_out, kept, report):
        """Encode pairs of a group and its prepared item, each at all its rows, into ``X_out``.

        Gives the errors; with ``on_error="raise"`` raises the first.
        """
        errors = []
        groups, prepared = zip(*window, strict=True)
        for positions in self._batches(prepared, model):
            if kept is not None:
                position_of = {id(groups[position]): position for position in positions}
                mine = kept.take([groups[position] for position in positions], report, begins=True)
                positions = [position_of[id(group)] for group in mine]
                if not positions:
                    continue
            vectors = self._encode_batch([prepared[position] for position in positions], model)
            finite = np.isfinite(vectors).all(axis=1)
            if kept is not None:
                whole = [groups[p] for p in positions]
                is_known = finite & self._have_keys([items[rows[0]] for _, rows in whole], [k for k, _ in whole], kept)
                kept.add(whole, vectors, is_known)
            rows = self._finish_rows(vectors)
            for position, row, is_finite in zip(positions, rows, finite, strict=True):
                if is_finite:
                    X_out[groups[position][1]] = row
                else:
                    reason = "the encoder gave values that are not finite"
                    self._reject(items, groups[position][1], reason, errors)
            report(len(positions))
        return errors

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags
