"""The embedding store: one row per item and encoder, shared by folds, clones, threads and processes."""

import json
import os
import shutil
import sqlite3
import threading
import warnings
import weakref
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ._checksums import DIGEST_WORDS
from ._engine import Engine
from ._file import OlderVersion, StoreError
from ._limits import SMALLEST_BYTES
from ._private_folder import private_folder

try:
    import fcntl
except ImportError:
    fcntl = None

_FILE = "embeddings.sqlite"
_LOCK = "encoding.lock"

# What the private store of a process tree may take at most, and of the free space on its disk.
_PRIVATE_BYTES = 16 * 2**30
_PRIVATE_SHARE = 0.25

# Damage can turn the numbers in a file into anything, and even the texts of SQLite's own errors.
_OF_DAMAGE = (OverflowError, TypeError, UnicodeDecodeError)


def _as_digests(keys):
    return np.frombuffer(b"".join(keys), dtype=np.uint64).reshape(-1, DIGEST_WORDS)


class EmbeddingStore:
    """Embeddings that are kept: what one encoder computed, no other computes again.

    Give it to the ``store`` parameter of encoders, or give that the path alone. Processes may share a store, on one
    machine and at the same time. An entry is found by a digest of the item's content and of everything that
    decides its embedding: files or tensors of the model, revision, preprocessing, precision, kind
    of device and versions of the libraries. What changes any of these begins entries of its own.

    Parameters
    ----------
    path : str or path-like
        Folder of the store on a local disk, made when it is first written to. Whoever may read the folder can use
        its entries.

    max_bytes : int, default=None
        Bytes that the folder may take on the disk, at least 2**24 (16 MiB). Beyond that the entries that were used
        least recently go, up to a thousand at a time. None sets no limit.

    See Also
    --------
    skmm.encoders.TextEncoder : An encoder with a store.

    Notes
    -----
    What goes wrong with a store costs time, not results: where it cannot be opened, read or written (a full
    disk, a folder without locks, a file of a newer version), one warning says so and encoding goes on without
    it. From a folder that is read-only entries are read, and none are added. An entry that is damaged is
    noticed by its checksum, and computed again.

    The folder holds one SQLite database, with its write-ahead log beside it while it is in use. Nothing in it is
    ever executed. Recency of use is tracked to the hour, so that reading writes next to nothing.

    ``max_bytes`` holds for all of it, the log included, and for what is written through objects with that limit. Up to
    a quarter, and no more than 64 MiB, is for the log; values fill about two thirds of the rest. A database that is
    larger already grows no further, and shrinks with ``clear()``. The log may be longer for as long as a process that
    reads is stopped in the middle of it. Rows too long for a transaction, 1 MB for the smallest limit, are not kept.

    Objects with one path are interchangeable; ``hits`` and ``misses`` are counted by each object in each process.

    Examples
    --------
    >>> import tempfile
    >>> from skmm import EmbeddingStore, TextEncoder
    >>> with tempfile.TemporaryDirectory() as folder, EmbeddingStore(folder) as store:
    ...     X = TextEncoder(store=store).fit_transform(["a cat", "a dog", "a cat"])
    ...     X = TextEncoder(store=store).fit_transform(["a dog", "a cow"])
    ...     info = store.info()
    >>> info["entries"], info["hits"], info["misses"]
    (3, 1, 3)
    """

    def __init__(self, path, max_bytes=None):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path must be a str or path-like, got {type(path).__name__}.")
        if max_bytes is not None and not (isinstance(max_bytes, int) and max_bytes >= SMALLEST_BYTES):
            raise ValueError(f"max_bytes must be an integer of at least {SMALLEST_BYTES} or None, got {max_bytes!r}.")
        # A worker may have another working folder.
        self.path = Path(os.path.abspath(os.path.expanduser(path)))
        self.max_bytes = max_bytes
        self._is_lasting = True
        self._reset()
        _stores.add(self)

    def _reset(self):
        self._lock = threading.Lock()
        self._engine = None
        # Why this process goes on without the store, or without writing to it.
        self._broken = self._unwritable = None
        self.hits = self.misses = 0

    def __getstate__(self):
        return {name: getattr(self, name) for name in ("path", "max_bytes", "_is_lasting")}

    def __setstate__(self, state):
        vars(self).update(state)
        self._reset()
        _stores.add(self)

    def __sklearn_clone__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def __repr__(self):
        limit = "" if self.max_bytes is None else f", max_bytes={self.max_bytes}"
        text = f"{type(self).__name__}({os.fspath(self.path)!r}{limit})"
        # Looking must not make a folder.
        if not (self.path / _FILE).exists():
            return f"<{text}: empty>"
        info = self.info()
        return (
            f"<{text}: {info['entries']:,} entries, {info['bytes']:,} bytes, "
            f"{info['hits']:,} hits, {info['misses']:,} misses>"
        )

    def info(self):
        """Tell how full the store is, and how much it was used by this object in this process.

        Returns
        -------
        info : dict
            "entries", "bytes", "max_bytes", "hits" and "misses": entries in the store, bytes that its files take on
            the disk, the limit of these, and distinct items that were found and not found by encoders. "entries"
            and "bytes" are 0 where the store cannot be opened.
        """
        counts = self._try(lambda engine: engine.count()) or (0, 0)
        return {
            "entries": counts[0],
            "bytes": counts[1],
            "max_bytes": self.max_bytes,
            "hits": self.hits,
            "misses": self.misses,
        }

    def clear(self):
        """Delete all entries. A database that cannot be opened any more, or is of an older version, is made anew.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        # Whatever went wrong before, try again.
        self.close()
        try:
            self._open().clear()
        except (sqlite3.Error, StoreError, *_OF_DAMAGE) as error:
            if not _can_be_made_anew(error):
                raise OSError(f"{self._name()} cannot be cleared ({error}).") from error
            for suffix in ("", "-wal", "-shm"):
                (self.path / (_FILE + suffix)).unlink(missing_ok=True)
        finally:
            self.close()

    def close(self):
        """Let go of the store's file. The store stays usable: it opens the file again when it next needs it."""
        with self._lock:
            engine, self._engine = self._engine, None
            self._broken = self._unwritable = None
        if engine is not None:
            engine.close()

    def _name(self):
        return f"The embedding store {os.fspath(self.path)!r}"

    def _open(self):
        """Give the open engine of this process."""
        with self._lock:
            if self._engine is None:
                if not self.path.exists():
                    self.path.mkdir(parents=True, exist_ok=True)
                self._engine = Engine(self.path / _FILE, self.max_bytes, self._is_lasting)
            return self._engine

    def _try(self, use):
        """Apply a function to the engine; give None, with one warning in this process, where that cannot be."""
        if self._broken is not None:
            return None
        try:
            return use(self._open())
        except (sqlite3.Error, OSError, StoreError, *_OF_DAMAGE) as error:
            self._broken = str(error)
            remedy = "; clear() makes it anew" if _can_be_made_anew(error) else ""
            _warn(f"{self._name()} cannot be used ({error}){remedy}. Encoding goes on without it.")
        return None

    def _try_writing(self, write):
        """Apply a function that writes to the engine; where that cannot be, warn once and write no more."""
        if self._unwritable is not None:
            return None

        def attempt(engine):
            if not engine.is_writable:
                raise _Unwritable("its folder or file is read-only")
            try:
                return write(engine)
            except sqlite3.OperationalError as error:
                raise _Unwritable(str(error)) from error

        try:
            return self._try(attempt)
        except _Unwritable as error:
            self._unwritable = str(error)
            _warn(f"{self._name()} cannot be written ({error}). What is encoded from now on is not kept.")
        return None

    def get_rows(self, keys, n_features, take):
        """Call ``take`` with positions in ``keys`` and their rows of float32, for those that have one of this width."""

        def take_words(positions, words):
            take(positions, words.view(np.float32)[:, :n_features])

        if keys:
            self._try(lambda engine: engine.read(_as_digests(keys), -(-n_features // 2), take_words))

    def put_rows(self, keys, rows):
        """Keep rows of float32 under their digests."""
        n_features = rows.shape[1]
        padded = np.zeros((len(rows), n_features + n_features % 2), dtype=np.float32)
        padded[:, :n_features] = rows
        self._try_writing(lambda engine: engine.write(_as_digests(keys), padded.view(np.uint64)))

    def claim(self, keys, owner, begins=True, takes_over=False):
        """Claim what is to be computed; give the mask of the digests that nobody else computes, or has computed.

        Parameters
        ----------
        keys : list of bytes
            Digests.

        owner : int
            From ``new_owner``.

        begins : bool, default=True
            Whether computing begins now. Before it does, others may take over.

        takes_over : bool, default=False
            Whether what others have claimed and not begun with is claimed from them.

        Returns
        -------
        is_mine : ndarray of shape (len(keys),), dtype bool
            What is claimed now; all of it where nothing can be written.
        """

        def claim(engine):
            return engine.claim(_as_digests(keys), owner, begins, takes_over)

        free = self._try_writing(claim) if keys else None
        return np.ones(len(keys), dtype=bool) if free is None else free

    def release(self, owner):
        """Give up all claims of somebody."""
        if self._engine is not None:
            self._try_writing(lambda engine: engine.release(owner))

    def release_entries(self, keys):
        """Give up the claims on what was computed, and is not kept."""
        if keys:
            self._try_writing(lambda engine: engine.release_entries(_as_digests(keys)))

    def get_digests(self, keys):
        """Give a list of the digests that are kept under digests, None where there is none."""
        found = [None] * len(keys)

        def take(positions, words):
            for position, digest in zip(positions, words, strict=True):
                found[position] = digest.tobytes()

        if keys:
            self._try(lambda engine: engine.read(_as_digests(keys), DIGEST_WORDS, take))
        return found

    def put_digests(self, keys, digests):
        """Keep digests under digests."""
        self._try_writing(lambda engine: engine.write(_as_digests(keys), _as_digests(digests), are_facts=True))

    def get_fact(self, key):
        """Give the plain data that is kept under a digest, None if there is none."""
        words = self._try(lambda engine: engine.read_one(_as_digests([key])))
        return None if words is None else json.loads(words.tobytes())

    def put_fact(self, key, fact):
        """Keep plain data, which JSON can hold, under a digest."""
        text = json.dumps(fact).encode()
        words = np.frombuffer(text + b" " * (-len(text) % 8), dtype=np.uint64)
        self._try_writing(lambda engine: engine.write(_as_digests([key]), words[None], are_facts=True))

    @contextmanager
    def one_at_a_time(self):
        """Let one process or thread at a time into the block, as far as the folder has locks."""
        file = None
        if fcntl is not None and self._try_writing(lambda engine: True):
            try:
                file = open(self.path / _LOCK, "a")  # noqa: SIM115 - closed below
                fcntl.flock(file, fcntl.LOCK_EX)
            # Without the lock more than one computes, which costs time only.
            except OSError:
                pass
        try:
            yield
        finally:
            if file is not None:
                file.close()


class _Unwritable(Exception):
    """A store takes no entries; the text is the reason."""


def _can_be_made_anew(error):
    if isinstance(error, sqlite3.OperationalError):
        return False
    return isinstance(error, (OlderVersion, sqlite3.DatabaseError, *_OF_DAMAGE))


def _warn(message):
    warnings.warn(message, UserWarning, stacklevel=2)


# All stores of this process.
_stores = weakref.WeakSet()
_shared_lock = threading.Lock()
# What is held still while this process forks.
_suspended = []


def _suspend():
    """Close all files: what SQLite knows of its locks must not be taken over by a process that does not hold them."""
    _shared_lock.acquire()
    for store in list(_stores):
        store._lock.acquire()
        engine = store._engine
        if engine is not None:
            engine.suspend()
        _suspended.append((store, engine))


def _resume():
    for store, engine in _suspended:
        if engine is not None:
            engine.resume()
        store._lock.release()
    _suspended.clear()
    _shared_lock.release()


def _resume_in_child():
    for store, _ in _suspended:
        store.hits = store.misses = 0
    _resume()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_suspend, after_in_parent=_resume, after_in_child=_resume_in_child)

# Folder -> the store of this process for it.
_shared = {}


def find_store(store):
    """Give the store that the ``store`` parameter of an encoder means.

    Parameters
    ----------
    store : {"auto"}, str, path-like, EmbeddingStore or None
        "auto" is the private store of this process tree.

    Returns
    -------
    store : EmbeddingStore or None
        None where there is to be none, and for "auto" where no folder can be made.
    """
    if store is None or isinstance(store, EmbeddingStore):
        return store
    is_private = isinstance(store, str) and store == "auto"
    if is_private:
        try:
            folder = private_folder()
        except OSError as error:
            with _shared_lock:
                if not _shared.get("auto"):
                    _shared["auto"] = str(error)
                    _warn(f"No private folder for embeddings can be made ({error}); encoding goes on without a store.")
            return None
    else:
        folder = Path(os.path.abspath(os.path.expanduser(store)))
    with _shared_lock:
        if folder not in _shared:
            _shared[folder] = EmbeddingStore(folder, _private_limit(folder) if is_private else None)
            _shared[folder]._is_lasting = not is_private
        return _shared[folder]


def _private_limit(folder):
    return max(SMALLEST_BYTES, min(_PRIVATE_BYTES, int(_PRIVATE_SHARE * shutil.disk_usage(folder).free)))
