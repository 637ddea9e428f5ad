"""The embedding store: one row per item and encoder, shared by folds, clones, threads and processes."""

import json
import os
import shutil
import sqlite3
import threading
import weakref
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Self

import numpy as np

from .._typing import PathType
from .._warnings import warn
from ._engine import DIGEST_WORDS, Engine, OlderVersion, StoreError
from ._private_folder import private_folder

try:
    import fcntl
except ImportError:
    fcntl = None

_FILE = "embeddings.sqlite"
_LOCK = "encoding.lock"

_SMALLEST_LIMIT = 2**24

# Limit of the private store of a process tree: bytes, and the share of the free space on its disk.
_PRIVATE_BYTES = 16 * 2**30
_PRIVATE_SHARE = 0.25

# Errors that damaged numbers and texts in a file raise, beside SQLite's own.
_DAMAGE_ERRORS = (OverflowError, TypeError, UnicodeDecodeError)


class EmbeddingStore:
    """Embeddings on disk, so that nothing is encoded twice with the same model.

    Pass it to the ``store`` parameter of encoders; passing its path alone has the same effect. Several processes of
    one machine may share a store at the same time. An entry is found by a digest of the item's content and of
    everything that decides its embedding: files or tensors of the model, revision, preprocessing, precision, kind of
    device and versions of the libraries. After a change of any of these, items are encoded and stored again.

    Parameters
    ----------
    path : str or path-like
        Folder of the store on a local disk, created when it is first written to. Whoever may read the folder can use
        its entries.

    max_bytes : int, default=None
        Bytes that the store may take on the disk, at least 2**24 (16 MiB). When it is full, the half of the entries
        that was used least recently is dropped. None sets no limit.

    Attributes
    ----------
    hits, misses : int
        Distinct items whose embeddings encoders found and did not find, through this object in this process.

    See Also
    --------
    skmm.encoders.TextEncoder : An encoder with a store.

    Notes
    -----
    A problem with the store costs time and never changes results. If it cannot be opened, read or written (a full
    disk, a folder without locks, a file of a newer version), one warning says so and encoding goes on without it.
    Entries of a read-only folder are read, and none are added. A damaged entry is recognized by its checksum, and
    encoded again. A folder that is deleted while it is in use is created again.

    The folder holds one SQLite database, with its write-ahead log beside it while it is in use. Nothing in it is
    ever executed. The time of last use is recorded to the hour, so that reading hardly ever writes.

    ``max_bytes`` is a limit of the database, for what is written through objects with that limit. The write-ahead log
    comes on top: as a rule about 16 MiB, more while another process reads for long, and nothing once all processes
    have closed the store. A database that is larger already grows no further, and shrinks with ``clear()``.

    Objects with one path are interchangeable, but for what they count.

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

    def __init__(self, path: PathType, max_bytes: int | None = None) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path must be a str or path-like, got {type(path).__name__}.")
        if max_bytes is not None and not (isinstance(max_bytes, Integral) and max_bytes >= _SMALLEST_LIMIT):
            raise ValueError(f"max_bytes must be an integer of at least {_SMALLEST_LIMIT} or None, got {max_bytes!r}.")
        # Absolute, since a worker may have another working folder.
        self.path = Path(os.path.abspath(os.path.expanduser(path)))
        self.max_bytes = max_bytes
        self._is_lasting = True
        self._reset()
        _stores.add(self)

    def _reset(self):
        self._lock = threading.Lock()
        self._engine = None
        # Why this process does not use the store, or does not write to it; None if it does.
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self):
        limit = "" if self.max_bytes is None else f", max_bytes={self.max_bytes}"
        text = f"{type(self).__name__}({os.fspath(self.path)!r}{limit})"
        # Opening the store would create its folder.
        if not (self.path / _FILE).exists():
            return f"<{text}: empty>"
        info = self.info()
        return (
            f"<{text}: {info['entries']:,} entries, {info['bytes']:,} bytes, "
            f"{info['hits']:,} hits, {info['misses']:,} misses>"
        )

    def info(self) -> dict:
        """Return how full the store is, and how much it was used through this object in this process.

        Returns
        -------
        info : dict
            "entries" and "bytes": entries in the store and the size of its files on the disk, 0 if it cannot be
            opened; "max_bytes", "hits" and "misses": as the parameter and attributes.
        """
        counts = self._try(Engine.count) or (0, 0)
        return {
            "entries": counts[0],
            "bytes": counts[1],
            "max_bytes": self.max_bytes,
            "hits": self.hits,
            "misses": self.misses,
        }

    def clear(self) -> None:
        """Delete all entries.

        A database that is damaged or of an older version is deleted, and recreated when it is next used.

        Raises
        ------
        OSError
            If the folder cannot be written, or the database is of a newer version or no store.
        """
        # Forget earlier problems, which may be fixed by now.
        self.close()
        try:
            self._open().clear()
        except (sqlite3.Error, StoreError, *_DAMAGE_ERRORS) as error:
            if not _can_be_recreated(error):
                raise OSError(f"{self._name()} cannot be cleared ({error}).") from error
            for suffix in ("", "-wal", "-shm"):
                (self.path / (_FILE + suffix)).unlink(missing_ok=True)
        finally:
            self.close()

    def close(self) -> None:
        """Close the store's file. The next use opens it again."""
        with self._lock:
            engine, self._engine = self._engine, None
            self._broken = self._unwritable = None
        if engine is not None:
            engine.close()

    def _name(self):
        return f"The embedding store {os.fspath(self.path)!r}"

    def _open(self):
        """Return the engine of this process; its folder is created if it does not exist, or was deleted meanwhile."""
        with self._lock:
            # A private folder that was deleted is replaced by another one.
            is_deleted = self._engine is not None and self._is_lasting and not os.path.exists(self._engine.path)
            if is_deleted:
                # It opens the new file when it is next used.
                self._engine.close()
            if self._engine is None or is_deleted:
                if self.path.is_file():
                    raise StoreError("its path is that of a file, and a store is a folder")
                self.path.mkdir(parents=True, exist_ok=True)
            if self._engine is None:
                self._engine = Engine(self.path / _FILE, self.max_bytes, self._is_lasting)
            return self._engine

    def _try(self, use, *args):
        """Return the result of a method of the engine; after a failure warn once, and return None from then on."""
        if self._broken is not None:
            return None
        try:
            return use(self._open(), *args)
        except (sqlite3.Error, OSError, StoreError, *_DAMAGE_ERRORS) as error:
            self._broken = str(error)
            remedy = "; clear() recreates it" if _can_be_recreated(error) else ""
            warn(f"{self._name()} cannot be used ({error}){remedy}. Encoding goes on without it.")
        return None

    def _try_writing(self, write, *args):
        """Return the result of a method of the engine that writes; after a failure warn once, and write no more."""
        if self._unwritable is not None:
            return None
        try:
            return self._try(_attempt, write, *args)
        except _Unwritable as error:
            self._unwritable = str(error)
            warn(f"{self._name()} cannot be written ({error}). What is encoded from now on is not stored.")
        return None

    def get_rows(self, keys, n_features, take):
        """Pass the rows that are stored with a given width to a function.

        Parameters
        ----------
        keys : list of bytes
            Digests, all different.

        n_features : int
            Width of the rows.

        take : callable
            Called for some of the rows at a time with their positions in ``keys`` and an array of shape
            (n_positions, n_features), dtype float32.
        """

        def take_words(positions, words):
            take(positions, words.view(np.float32)[:, :n_features])

        if keys:
            self._try(Engine.read, _as_digests(keys), -(-n_features // 2), take_words)

    def put_rows(self, keys, rows):
        """Store rows of float32 under their digests; a digest that has a row already keeps it."""
        n_features = rows.shape[1]
        padded = np.zeros((len(rows), n_features + n_features % 2), dtype=np.float32)
        padded[:, :n_features] = rows
        self._try_writing(Engine.write, _as_digests(keys), padded.view(np.uint64))

    def claim(self, keys, owner):
        """Claim what is about to be computed; return a mask of the digests that nobody else computes or has stored.

        Parameters
        ----------
        keys : list of bytes
            Digests, all different.

        owner : int
            Number of the call that claims them.

        Returns
        -------
        is_claimed : ndarray of shape (len(keys),), dtype bool
            True for all if nothing can be written.
        """
        is_claimed = self._try_writing(Engine.claim, _as_digests(keys), owner) if keys else None
        return np.ones(len(keys), dtype=bool) if is_claimed is None else is_claimed

    def release(self, owner, keys=None):
        """End the claims on digests that were not stored; without digests all claims of the owner."""
        digests = None if keys is None else _as_digests(keys)
        self._try_writing(Engine.release, digests, owner)

    def get_digests(self, keys):
        """Return a list of the digests that are stored under digests, None for those without one."""
        digests = [None] * len(keys)

        def take(positions, words):
            for position, digest in zip(positions, words, strict=True):
                digests[position] = digest.tobytes()

        if keys:
            self._try(Engine.read, _as_digests(keys), DIGEST_WORDS, take)
        return digests

    def put_digests(self, keys, digests):
        """Store digests under digests."""
        self._try_writing(Engine.write, _as_digests(keys), _as_digests(digests), True)

    def get_array(self, key):
        """Return the array of float32 that is stored under a digest, with its shape; None if there is none."""
        words = self._try(Engine.read_one, _as_digests([key]))
        if words is None:
            return None
        n_dimensions = int(words[0])
        shape = words[1 : 1 + n_dimensions].astype(int)
        return words[1 + n_dimensions :].view(np.float32)[: shape.prod()].reshape(shape)

    def put_array(self, key, array):
        """Store an array of float32 of any shape under a digest."""
        numbers = np.zeros(array.size + array.size % 2, dtype=np.float32)
        numbers[: array.size] = array.ravel()
        words = np.concatenate([np.array([array.ndim, *array.shape], dtype=np.uint64), numbers.view(np.uint64)])
        self._try_writing(Engine.write, _as_digests([key]), words[None], True)

    def get_fact(self, key):
        """Return the plain data that is stored under a digest, None if there is none."""
        words = self._try(Engine.read_one, _as_digests([key]))
        return None if words is None else json.loads(words.tobytes())

    def put_fact(self, key, fact):
        """Store plain data, which JSON can represent, under a digest."""
        text = json.dumps(fact).encode()
        words = np.frombuffer(text + b" " * (-len(text) % 8), dtype=np.uint64)
        self._try_writing(Engine.write, _as_digests([key]), words[None], True)

    @contextmanager
    def one_at_a_time(self):
        """Let one process or thread at a time into the block, if the folder supports locks."""
        file = None
        if fcntl is not None and self._try_writing(lambda engine: True):
            try:
                file = open(self.path / _LOCK, "a")  # noqa: SIM115 - closed below
                fcntl.flock(file, fcntl.LOCK_EX)
            # Without the lock several compute the same, which costs time only.
            except OSError:
                pass
        try:
            yield
        finally:
            if file is not None:
                file.close()


class _Unwritable(Exception):
    """A store cannot be written; the text is the reason."""


def _attempt(engine, write, *args):
    try:
        return write(engine, *args)
    except sqlite3.OperationalError as error:
        raise _Unwritable(str(error)) from error


def _as_digests(keys):
    return np.frombuffer(b"".join(keys), dtype=np.uint64).reshape(-1, DIGEST_WORDS)


def _can_be_recreated(error):
    if isinstance(error, sqlite3.OperationalError):
        return False
    return isinstance(error, (OlderVersion, sqlite3.DatabaseError, *_DAMAGE_ERRORS))


# All stores of this process.
_stores = weakref.WeakSet()
_shared_lock = threading.Lock()
# Pairs of a store and its engine that are suspended while this process forks.
_suspended = []


def _suspend():
    """Close all files: SQLite in the child would believe that it holds locks that only the parent holds."""
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
    """Return the store that the ``store`` parameter of an encoder stands for.

    Parameters
    ----------
    store : {"auto"}, str, path-like, EmbeddingStore or None
        "auto" is the private store of this process tree.

    Returns
    -------
    store : EmbeddingStore or None
        None without a store, and for "auto" if no folder can be created.
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
                    warn(
                        f"No private folder for embeddings can be created ({error}); encoding goes on without a store."
                    )
            return None
    else:
        folder = Path(os.path.abspath(os.path.expanduser(store)))
    with _shared_lock:
        if folder not in _shared:
            _shared[folder] = EmbeddingStore(folder, _private_limit(folder) if is_private else None)
            _shared[folder]._is_lasting = not is_private
        return _shared[folder]


def _private_limit(folder):
    return max(_SMALLEST_LIMIT, min(_PRIVATE_BYTES, int(_PRIVATE_SHARE * shutil.disk_usage(folder).free)))
