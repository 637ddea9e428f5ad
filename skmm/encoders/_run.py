"""One encoding of a column: its items, their rows, its errors and its progress."""

import os
import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, nullcontext
from itertools import compress
from multiprocessing import current_process

import numpy as np
from tqdm.auto import tqdm

from .._columns import present_rows
from .._threads import MAX_BYTES_AHEAD, in_order
from .._torch import available_cpus, divided_threads, expected_place
from .._warnings import warn
from ..exceptions import RejectedItem
from ..store import ItemDigests, content_key, find_store

# Steps in which callbacks hear of the progress of an encoding.
N_STEPS = 100

# Seconds between two looks at what other workers encode, at first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


class ProgressBar:
    """Tells the user, and scikit-learn's callbacks in ``N_STEPS`` steps, how far an encoding is."""

    def __init__(self, encoder, n_items, progress):
        self._bar = tqdm(total=n_items, desc=type(encoder).__name__, unit="item") if encoder.verbose else None
        self._encoder, self._progress = encoder, progress
        self._n_items, self._n_done, self._n_steps = n_items, 0, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()

    def update(self, n):
        """Count ``n`` more items as done."""
        self._n_done += n
        while self._progress is not None and self._n_steps * self._n_items < self._n_done * N_STEPS:
            self._n_steps += 1
            step = self._progress.subcontext(task_name="encode")
            step.call_on_fit_task_begin(estimator=self._encoder)
            step.call_on_fit_task_end(estimator=self._encoder)
        if self._bar is not None:
            self._bar.update(n)


def is_list(item):
    """Return whether a cell is a list of items: a list, a tuple, or an array of pictures."""
    return isinstance(item, (list, tuple)) or (isinstance(item, np.ndarray) and item.ndim == 4)


def unnest(items, present):
    """Return the items in the cells of some rows one after the other, the row of each, and its place in a list.

    The place is None where the cell is no list.
    """
    flat, rows, places = [], [], []
    for row in present:
        cell = items[row]
        elements = cell if is_list(cell) else [cell]
        flat.extend(elements)
        rows += [row] * len(elements)
        places.extend(range(len(elements)) if is_list(cell) else [None])
    return flat, np.array(rows, dtype=np.intp), places


class EncodingRun:
    """One call of an encoder: whatever is found out about it is found out once.

    Equal items form a group ``(key, rows)``: the key is the digest under which the store knows the item, None without
    a store or where the content is unknown; the rows are those in which the item stands. Groups that the store does
    not hold are prepared, collected in windows of bounded size, and encoded in batches.

    Several workers may encode the same items at once. Each starts at another place and claims every batch in the store
    before it runs the network. What another worker has claimed is left for the end: most of it is stored by then, and
    the rest is waited for.

    Parameters
    ----------
    encoder : ItemEncoder
        The encoder.

    items : sequence, default=()
        The column.

    present : list of int, default=()
        Its rows that are not missing.

    Attributes
    ----------
    source : ModelSource or None
        Where the encoder's model comes from.

    store : EmbeddingStore or None
        Where rows are kept.

    kind, dtype : str
        Kind of the device, "cpu", "cuda", ..., and name of the precision.

    identity : bytes or None
        Digest of everything that decides the rows besides the items; None if no store is used.

    model : object or None
        What the encoder's hooks work with; loaded when it is first needed.

    torch_model : object or None
        The same with its network in torch, where the model runs in another library.

    errors : list of ItemError
        Items that could not be encoded.

    rows : ndarray of shape (n_items,) or None
        Rows of the output to which the items belong, where a cell of the column is a list of items; each of these is
        encoded, and stored, by itself, and what else is said of rows here is said of their numbers.
    """

    def __init__(self, encoder, items=(), present=()):
        self.encoder = encoder
        self.items = items
        self.present = present
        self.rows = None
        if encoder._pools_lists and any(is_list(items[row]) for row in present):
            self._n_rows = len(items)
            self.items, self.rows, self._places = unnest(items, present)
            self.present = present_rows(self.items)
        self.errors = []
        place = encoder._place()
        self.source = encoder._find_source()
        self.store = find_store(encoder.store) if encoder._stores_rows else None
        self.kind, self.dtype = expected_place(*place)
        # Number under which this call claims entries of the store, its upper bits those of the process; its claims; and
        # groups that others have claimed.
        self._owner = os.getpid() << 32 | secrets.randbits(32)
        self._claims = set()
        self._claimed_elsewhere = []

    def __getattr__(self, name):
        """Find the identity, or the model, when it is first asked for.

        Not by ``functools.cached_property``: up to Python 3.11 one lock for all runs guards its values, so that a slow
        model in one thread would stop all others.
        """
        if name == "identity":
            self.identity = None if self.store is None else self.encoder._find_identity(self)
        elif name == "torch_model":
            self.torch_model = self.encoder._get_tuned_model(self)
        elif name == "model":
            is_torch = getattr(self.encoder, "backend", "torch") == "torch"
            self.model = self.torch_model if is_torch else self.encoder._convert(self.torch_model)
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return vars(self)[name]

    def encode(self, progress=None):
        """Encode all items, or read their rows from the store.

        Parameters
        ----------
        progress : CallbackContext or None, default=None
            Where callbacks hear of the progress.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features_out_)
            One row per item; missing ones and those that could not be encoded have NaN.

        errors : list of ItemError
            Items that could not be encoded, in the order of the rows.
        """
        if self.encoder._output_dtype is object:
            self.X_out = np.full(len(self.items), None, dtype=object)
        else:
            self.X_out = np.full((len(self.items), self.encoder.n_features_out_), np.nan, dtype=np.float32)
        groups = self._group()
        with ProgressBar(self.encoder, len(groups), progress) as self.bar:
            missing = self._read(groups)
            self.n_missing = len(missing)
            if self.identity is not None:
                self.store.hits += len(groups) - len(missing)
                self.store.misses += len(missing)
            self.bar.update(len(groups) - len(missing))
            if missing:
                self._encode_missing(missing)
        self.warn_of_errors()
        return self.X_out if self.rows is None else self._pool(), self.errors

    def _pool(self):
        """Return one row for each cell, pooled from those of its items that were encoded; NaN if there are none."""
        is_encoded = ~np.isnan(self.X_out[:, 0])
        rows, starts, counts = np.unique(self.rows[is_encoded], return_index=True, return_counts=True)
        pooled = np.full((self._n_rows, self.X_out.shape[1]), np.nan, dtype=np.float32)
        if len(rows):
            values = self.X_out[is_encoded]
            if self.encoder.pooling == "max":
                values = np.maximum.reduceat(values, starts)
            else:
                values = np.add.reduceat(values, starts, dtype=np.float64) / counts[:, np.newaxis]
            pooled[rows] = self.encoder._finish_rows(values.astype(np.float32))
        return pooled

    def warn_of_errors(self):
        """Sort the errors by row, and warn if there are any."""
        self.errors.sort(key=lambda error: error.row)
        if self.errors:
            first = self.errors[0]
            warn(
                f"{type(self.encoder).__name__}: {len(self.errors)} of {len(self.items)} items could not be encoded "
                f"and count as missing (the first: {first.item}: {first.reason}); find_errors(X) lists what cannot be "
                "read."
            )

    def _group(self):
        """Return a list of groups ``(key, rows)`` of equal items."""
        items = [self.items[row] for row in self.present]
        if self.identity is None:
            keys = [content_key(item, self.encoder._strings_are_paths) for item in items]
        else:
            self.digests = ItemDigests(self.identity, self.store, self.encoder._strings_are_paths)
            keys = self.digests.of(items)
        rows_of = {}
        for row, key in zip(self.present, keys, strict=True):
            rows_of.setdefault(row if key is None else key, []).append(row)
        if self.identity is None:
            return [(None, rows) for rows in rows_of.values()]
        return [(None if isinstance(key, int) else key, rows) for key, rows in rows_of.items()]

    def _read(self, groups):
        """Write the rows that the store holds to the output; return the groups that it does not hold."""
        if self.identity is None:
            return groups
        with_key = [group for group in groups if group[0] is not None]
        first_rows = np.array([rows[0] for _, rows in with_key], dtype=np.intp)
        is_missing = np.ones(len(with_key), dtype=bool)

        def take(positions, stored):
            self.X_out[first_rows[positions]] = self.encoder._finish_rows(stored)
            is_missing[positions] = False

        self.store.get_rows([key for key, _ in with_key], self.X_out.shape[1], take)
        for rows in (rows for _, rows in with_key if len(rows) > 1):
            self.X_out[rows[1:]] = self.X_out[rows[0]]
        if len(with_key) == len(groups):
            return list(compress(groups, is_missing))
        still_missing = iter(is_missing)
        return [group for group in groups if group[0] is None or next(still_missing)]

    def _encode_missing(self, groups):
        """Encode groups that the store does not hold; on shared devices one process after the other."""
        if self.identity is None:
            self._encode_groups(groups)
            return
        # The memory of a GPU holds few copies of a model.
        takes_turns = self.kind != "cpu"
        try:
            with self.store.one_at_a_time() if takes_turns else nullcontext():
                self._encode_groups(self._rotate(self._read_again(groups) if takes_turns else groups))
                self._wait_for_others()
        finally:
            if self._claims:
                self.store.release(self._owner)

    def _wait_for_others(self):
        """Read the rows of the groups that others had claimed, or encode them where the claims have ended."""
        pause = _FIRST_PAUSE
        while self._claimed_elsewhere:
            groups, self._claimed_elsewhere = self._read_again(self._claimed_elsewhere), []
            free = self._claim(groups)
            if free:
                self._encode_groups(free)
            if len(self._claimed_elsewhere) == len(groups):
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _claim(self, groups):
        """Return the groups that this call is to encode; those that others encode are left for the end."""
        # A single item is sooner encoded than claimed.
        if self.identity is None or self.n_missing == 1:
            return groups
        is_free = iter(self.store.claim([key for key, _ in groups if key is not None], self._owner))
        free = []
        for group in groups:
            is_mine = group[0] is None or next(is_free)
            (free if is_mine else self._claimed_elsewhere).append(group)
        self._claims.update(key for key, _ in free if key is not None)
        return free

    def _rotate(self, groups):
        """Let groups begin at the place where this process starts."""
        first = int(_start_of_worker() * len(groups))
        return groups[first:] + groups[:first]

    def _read_again(self, groups):
        """Return the groups that are still missing."""
        missing = self._read(groups)
        self.bar.update(len(groups) - len(missing))
        return missing

    def _encode_groups(self, groups):
        """Encode groups that no other worker encodes."""
        encoder = self.encoder
        self.window = encoder._window_on(self.kind)
        n_workers = encoder._n_workers(self.kind) if len(groups) > 1 else 1
        if n_workers == 1:
            n_threads = available_cpus() if encoder._prepare_in_threads and len(groups) > 1 else 0
            for result in self._encode_chunk(groups, n_threads):
                self._record(*result)
            return
        # Chunks of equal length, as many for each worker, so that all end at about the same time.
        n_chunks = n_workers * -(-len(groups) // (n_workers * self.window))
        chunks = (groups[i * len(groups) // n_chunks : (i + 1) * len(groups) // n_chunks] for i in range(n_chunks))
        # Everything is closed at once if an error ends the loop early, and the threads with it.
        with ExitStack() as stack:
            divide = stack.enter_context(divided_threads())
            pool = stack.enter_context(ThreadPoolExecutor(n_workers, initializer=divide, initargs=(n_workers,)))
            for results in stack.enter_context(closing(pool.map(self._encode_unclaimed, chunks))):
                for result in results:
                    self._record(*result)

    def _encode_unclaimed(self, groups):
        """Claim groups before they are prepared, and encode those that nobody else encodes."""
        return list(self._encode_chunk(self._claim(groups)))

    def _record(self, errors, n_finished):
        self.errors += errors
        self.bar.update(n_finished)

    def _prepare(self, group):
        try:
            return self.encoder._prepare_item(self.items[group[1][0]])
        except RejectedItem as rejected:
            return rejected

    def _encode_chunk(self, groups, n_threads=0):
        """Prepare groups, in threads if there are any, and encode them in windows of bounded size.

        Yields
        ------
        errors : list of ItemError
            Items that could not be encoded.

        n_finished : int
            Number of groups that are finished.
        """
        encoder = self.encoder
        size = encoder._prepared_bytes
        if n_threads:
            pairs = in_order(self._prepare, groups, n_threads, 2 * self.window, size=size)
        else:
            pairs = ((group, self._prepare(group)) for group in groups)
        with closing(pairs):
            window, n_bytes = [], 0
            for group, item in pairs:
                if isinstance(item, RejectedItem):
                    yield self._reject(group, item), 1
                    continue
                window.append((group, item))
                n_bytes += 0 if size is None else size(item)
                if len(window) == self.window or n_bytes > MAX_BYTES_AHEAD:
                    yield from self._encode_window(window)
                    window, n_bytes = [], 0
            if window:
                yield from self._encode_window(window)

    def _encode_window(self, window):
        """Encode pairs of a group and its prepared item; yield as ``_encode_chunk`` does, for each batch."""
        groups, prepared = zip(*window, strict=True)
        for positions in self._rotate(list(self.encoder._batches(prepared, self.model))):
            free = {id(group) for group in self._claim([groups[position] for position in positions])}
            positions = [position for position in positions if id(groups[position]) in free]
            if positions:
                batch = [groups[position] for position in positions]
                yield self._encode_batch(batch, [prepared[position] for position in positions]), len(positions)

    def _encode_batch(self, groups, prepared):
        """Encode prepared items, write their rows to the output and the store; return the errors."""
        rows = np.asarray(self.encoder._encode_batch(prepared, self.model))
        self._check_shape(rows, groups)
        # Other outputs than numbers are always valid.
        is_valid = np.isfinite(rows).all(axis=1) if rows.dtype.kind == "f" else np.ones(len(rows), dtype=bool)
        if self.identity is not None:
            self._store(groups, rows, is_valid)
        errors = []
        for group, row, valid in zip(groups, self.encoder._finish_rows(rows), is_valid, strict=True):
            if valid:
                for number in group[1]:
                    self.X_out[number] = row
            else:
                errors += self._reject(group, "the encoder returned values that are not finite")
        return errors

    def _check_shape(self, rows, groups):
        width = self.X_out.shape[1:]
        if rows.shape == (len(groups), *width):
            return
        numbers = {
            row if self.rows is None else int(self.rows[row]) for _, rows_of_item in groups for row in rows_of_item
        }
        numbers = sorted(numbers)
        named = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
        rows_named = f"row {named}" if len(numbers) == 1 else f"rows {named}"
        if self.source is None and not hasattr(self.encoder, "model"):
            raise ValueError(
                f"{type(self.encoder).__name__}: _encode_batch returned an array of shape {rows.shape} for "
                f"{rows_named}, where {(len(groups), *width)} was expected by n_features_out_, which _fit_width set."
            )
        raise ValueError(
            f"{type(self.encoder).__name__}: the model returned an array of shape {rows.shape} for {rows_named}, where "
            f"{(len(groups), *width)} was expected, as it had {width[0]} features when the encoder was fitted. Let the "
            "model return the same number of features for every item, for example by pooling over time or positions "
            "inside it, or call fit again if the model was changed."
        )

    def _store(self, groups, rows, is_valid):
        keys = [key for key, _ in groups]
        is_stored = is_valid & np.array([key is not None for key in keys])
        if self.digests.have_files:
            is_stored &= self.digests.are_unchanged(keys)
        rejected = [key for key, valid in zip(keys, is_valid, strict=True) if not valid and key in self._claims]
        if rejected:
            # Others are not to wait for what is never stored.
            self.store.release(self._owner, rejected)
            self._claims.difference_update(rejected)
        if is_stored.any():
            stored = list(compress(keys, is_stored))
            self.store.put_rows(stored, rows[is_stored])
            # Writing an entry ends the claim on it.
            self._claims.difference_update(stored)

    def _reject(self, group, reason):
        """Return the errors of a bad item, one for each row; raise the first with ``on_error="raise"``."""
        errors = [self._error(number, reason) for number in group[1]]
        if self.encoder.on_error == "raise":
            raise errors[0] from (reason if isinstance(reason, Exception) else None)
        return errors

    def _error(self, number, reason):
        row, place = (number, None) if self.rows is None else (int(self.rows[number]), self._places[number])
        return self.encoder._error(row, self.items[number], reason, place)


def _start_of_worker():
    """Return the place, from 0 to 1, at which a process of joblib or multiprocessing starts; 0 in any other process.

    Processes are numbered in their names; the binary digits of these numbers, reversed, are far apart.
    """
    number = re.search(r"-(\d+)$", current_process().name)
    digits = "" if number is None else format(int(number[1]) - 1, "b")
    return sum(int(digit) / 2 ** (power + 1) for power, digit in enumerate(reversed(digits)))
