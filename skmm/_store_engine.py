"""A table of values under digests in one SQLite file, which many processes read and write at once.

A value is a number of 64-bit words. It stands behind its own digest and a checksum of both, and the first 64 bits
of the digest are its row's number: a value that is damaged, or belongs to another digest, counts as absent.
Nothing is kept in order: whoever writes last loses at most its own last transaction.
"""

import os
import sqlite3
import threading
import time
from contextlib import suppress
from itertools import compress
from pathlib import Path

import numpy as np

# Written into the file; one that a newer version wrote is left alone.
VERSION = 1
_APPLICATION = 0x736B6D6D

# Words of a digest, and what precedes a value's own words: its digest and the checksum.
DIGEST_WORDS = 4
_HEAD_WORDS = DIGEST_WORDS + 1

# Rows of one statement. sqlite3 keeps a statement prepared while its text stays the same.
_ROWS_PER_STATEMENT = 500

# Rows that are evicted together, and seconds for which a use of theirs is not written down again.
_ROWS_PER_BLOCK = 1000
_USE_RESOLUTION = 3600
# What values fill of the pages of a file in which they come and go in random places, at worst.
_FILL = 0.7

# The block of what is never evicted: small facts about encoders and files.
_FACTS = 0

# Seconds that a writer waits for others, and after which a claim of somebody is void.
_TIMEOUT = 30
_CLAIM_SECONDS = 600

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, block INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS of_block ON entries (block);
CREATE TABLE IF NOT EXISTS blocks (id INTEGER PRIMARY KEY, last_used INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS claims (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, time INTEGER NOT NULL);
"""


class StoreError(Exception):
    """A store cannot be used; the text is the reason."""


def _marks(n):
    return ",".join("?" * n)


def _checksums(values):
    """Give the checksums of values, an array (n, words) of heads and words.

    Each word counts with an odd factor of its own, so that no change of a single word, and no exchange of two,
    goes unnoticed.
    """
    n_words = values.shape[1]
    factors = np.arange(1, n_words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    factors[DIGEST_WORDS] = 0
    return values @ factors + np.uint64(n_words)


def _all_have_length(values, n_bytes):
    """Tell whether values are bytes of one length; damage to a file turns them into anything."""
    try:
        return set(map(len, values)) == {n_bytes}
    except TypeError:
        return False


class Engine:
    """An open table; threads of one process may share it.

    Parameters
    ----------
    path : path-like
        File of the table, created if its folder can be written.

    max_bytes : int or None, default=None
        Bytes that the file may take, about; None for no limit.

    is_lasting : bool, default=True
        Whether what was written must survive a crash of the machine.

    Raises
    ------
    StoreError
        If the file was written by a newer version or is no store.

    sqlite3.Error, OSError
        If the file cannot be opened.
    """

    def __init__(self, path, max_bytes=None, is_lasting=True):
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.is_writable = os.access(self.path if self.path.exists() else self.path.parent, os.W_OK) and os.access(
            self.path.parent, os.W_OK
        )
        self._lock = threading.Lock()
        # Rows that were read and turned out to be damaged: the next write replaces them.
        self._damaged = set()
        # Block -> when its use was last written down, as far as this process knows.
        self._last_used = {}
        self._is_lasting = is_lasting
        self._opened = self._open()

    def _open(self):
        return self._open_for_writing(self._is_lasting) if self.is_writable else self._open_for_reading()

    @property
    def _connection(self):
        """The connection, opened again after a fork."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def suspend(self):
        """Close the file until ``resume`` lets the next use open it again; other threads wait for that."""
        self._lock.acquire()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def resume(self):
        """End what ``suspend`` began."""
        self._lock.release()

    def _connect(self, options):
        # URIs take percent signs; the lock of this class stands for the check of threads.
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{options}",
            uri=True,
            timeout=_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        # Text can only be a damaged value, to be looked at as any other.
        connection.text_factory = bytes
        return connection

    def _open_for_writing(self, is_lasting):
        connection = self._connect("mode=rwc")
        try:
            # These ask for the file's lock without the patience that other statements have.
            deadline = time.monotonic() + _TIMEOUT
            while True:
                try:
                    self._prepare(connection, is_lasting)
                    return connection
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
        except BaseException:
            connection.close()
            raise

    def _prepare(self, connection, is_lasting):
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if is_lasting else 'OFF'}")
        if not self._check_version(connection):
            # Rows of usual widths fill these pages well.
            connection.execute("PRAGMA page_size = 16384")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._check_version(connection):
                for statement in _SCHEMA.strip().split("\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _open_for_reading(self):
        if not self.path.exists():
            raise StoreError("it holds no store, and one cannot be created in a folder that is read-only")
        # A write-ahead log needs files of its own; where they cannot be had, the table is read as it lies there.
        for options in ("mode=ro", "mode=ro&immutable=1"):
            connection = self._connect(options)
            try:
                self._check_version(connection)
                connection.execute("SELECT count(*) FROM blocks").fetchone()
                return connection
            except sqlite3.OperationalError:
                connection.close()
                if "immutable" in options:
                    raise
            except BaseException:
                connection.close()
                raise

    def _check_version(self, connection):
        """Tell whether the file holds a store; raise if it holds something else."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application not in (_APPLICATION, 0) or (n_tables and application == 0):
            raise StoreError("its file is a database of something else")
        if version > VERSION:
            raise StoreError(f"a newer version of skmm wrote it (format {version}, this one knows {VERSION})")
        return application == _APPLICATION

    def close(self):
        """Close the file."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()

    def read(self, digests, n_words):
        """Yield (positions, words) of the values that are there and whole, in pieces.

        Parameters
        ----------
        digests : ndarray of shape (n, 4), dtype uint64
            Digests, all different.

        n_words : int
            Words of each value.

        Yields
        ------
        positions : ndarray of shape (m,)
            Where these digests stand in ``digests``.

        words : ndarray of shape (m, n_words), dtype uint64
            Their values; read-only.
        """
        ids = digests[:, 0].view(np.int64)
        order = np.argsort(ids)
        n_bytes = 8 * (_HEAD_WORDS + n_words)
        blocks = set()
        for start in range(0, len(order), _ROWS_PER_STATEMENT):
            piece = order[start : start + _ROWS_PER_STATEMENT]
            sorted_ids = ids[piece]
            statement = f"SELECT id, block, value FROM entries WHERE id IN ({_marks(len(piece))})"
            with self._lock:
                rows = self._connection.execute(statement, sorted_ids.tolist()).fetchall()
            if not rows:
                continue
            found, of_block, values = zip(*rows, strict=True)
            blocks.update(of_block)
            if not _all_have_length(values, n_bytes):
                fits = [_all_have_length([value], n_bytes) for value in values]
                self._damaged.update(i for i, fit in zip(found, fits, strict=True) if not fit)
                found, values = list(compress(found, fits)), list(compress(values, fits))
                if not values:
                    continue
            found = np.array(found, dtype=np.int64)
            values = np.frombuffer(b"".join(values), dtype=np.uint64).reshape(len(found), -1)
            positions = piece[np.minimum(np.searchsorted(sorted_ids, found), len(piece) - 1)]
            whole = (values[:, :DIGEST_WORDS] == digests[positions]).all(axis=1)
            whole &= values[:, DIGEST_WORDS] == _checksums(values)
            if whole.all():
                yield positions, values[:, _HEAD_WORDS:]
            else:
                self._damaged.update(found[~whole].tolist())
                yield positions[whole], values[whole, _HEAD_WORDS:]
        self._note_use(blocks)

    def read_one(self, digests):
        """Give the words of one value of any length, None if it is not there or not whole."""
        row_id = digests.view(np.int64)[0, :1].tolist()
        with self._lock:
            found = self._connection.execute("SELECT value FROM entries WHERE id = ?", row_id).fetchone()
        n_words = (len(found[0]) if found and isinstance(found[0], bytes) else 0) // 8 - _HEAD_WORDS
        for _, words in self.read(digests, n_words) if n_words > 0 else ():
            return words[0] if len(words) else None
        return None

    def _note_use(self, blocks):
        """Write down that blocks were used, unless that was done lately."""
        now = int(time.time())
        blocks = [block for block in blocks if self._last_used.get(block, 0) < now - _USE_RESOLUTION]
        if not blocks or not self.is_writable:
            return
        self._last_used.update(dict.fromkeys(blocks, now))
        # Whoever reads need not know that nothing can be written just now.
        with self._lock, suppress(sqlite3.OperationalError):
            for start in range(0, len(blocks), _ROWS_PER_STATEMENT):
                piece = blocks[start : start + _ROWS_PER_STATEMENT]
                old = f"id IN ({_marks(len(piece))}) AND last_used < ?"
                limits = [*piece, now - _USE_RESOLUTION]
                if self._connection.execute(f"SELECT 1 FROM blocks WHERE {old} LIMIT 1", limits).fetchone():
                    self._connection.execute(f"UPDATE blocks SET last_used = ? WHERE {old}", [now, *limits])

    def write(self, digests, words, are_facts=False):
        """Write values in one transaction, and give up the claims on them; what is there already stays.

        Parameters
        ----------
        digests : ndarray of shape (n, 4), dtype uint64
            Digests, all different.

        words : ndarray of shape (n, n_words), dtype uint64
            Their values.

        are_facts : bool, default=False
            Whether these values are never evicted, nor counted.
        """
        values = np.zeros((len(digests), _HEAD_WORDS + words.shape[1]), dtype=np.uint64)
        values[:, :DIGEST_WORDS] = digests
        values[:, _HEAD_WORDS:] = words
        values[:, DIGEST_WORDS] = _checksums(values)
        ids = digests[:, 0].view(np.int64).tolist()
        n_bytes = values.shape[1] * 8
        buffer = memoryview(values.tobytes())
        # In the order of the table, which writes fewer pages.
        order = sorted(range(len(ids)), key=ids.__getitem__)
        with self._lock, self._transaction() as execute:
            damaged = self._damaged.intersection(ids)
            if damaged:
                execute(f"DELETE FROM entries WHERE id IN ({_marks(len(damaged))})", list(damaged))
            block = _FACTS if are_facts else self._block_for(len(ids), n_bytes)
            inserted = self._connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
                ((ids[i], block, buffer[i * n_bytes : (i + 1) * n_bytes]) for i in order),
            )
            execute("UPDATE blocks SET bytes = bytes + ? WHERE id = ?", (inserted.rowcount * n_bytes, block))
            self._connection.executemany("DELETE FROM claims WHERE id = ?", ((i,) for i in ids))
        self._damaged -= damaged

    def _transaction(self):
        return _Transaction(self._connection)

    def _block_for(self, n_rows, row_bytes):
        """Give the block that new rows go to, making room for them first."""
        execute = self._connection.execute
        full = _ROWS_PER_BLOCK
        if self.max_bytes is not None:
            self._make_room(n_rows * row_bytes)
            full = max(1, min(full, self.max_bytes // (32 * row_bytes)))
        (block,) = execute("SELECT max(id) FROM blocks").fetchone()
        if block is not None:
            (n_there,) = execute("SELECT count(*) FROM entries WHERE block = ?", (block,)).fetchone()
        if block is None or n_there >= full:
            block = (block or _FACTS) + 1
            execute("INSERT INTO blocks VALUES (?, ?, 0)", (block, int(time.time())))
        return block

    def _make_room(self, n_bytes):
        """Delete the blocks that were not used for the longest time, until there is room."""
        execute = self._connection.execute
        (surplus,) = execute("SELECT coalesce(sum(bytes), 0) FROM blocks").fetchone()
        surplus += n_bytes - int(_FILL * self.max_bytes)
        for block, freed in execute("SELECT id, bytes FROM blocks ORDER BY last_used, id").fetchall():
            if surplus <= 0:
                break
            execute("DELETE FROM entries WHERE block = ?", (block,))
            execute("DELETE FROM blocks WHERE id = ?", (block,))
            surplus -= freed

    def _used_bytes(self):
        size, n_pages, n_free = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count")
        )
        return size * (n_pages - n_free)

    def claim(self, digests, owner):
        """Claim entries that are about to be computed; give the mask of those that nobody else has claimed or written.

        A claim keeps nobody from writing: it only tells others to begin elsewhere.
        """
        ids = digests[:, 0].view(np.int64)
        now = int(time.time())
        others = set()
        with self._lock, self._transaction() as execute:
            execute("DELETE FROM claims WHERE time < ?", (now - _CLAIM_SECONDS,))
            for start in range(0, len(ids), _ROWS_PER_STATEMENT):
                piece = ids[start : start + _ROWS_PER_STATEMENT].tolist()
                statement = f"SELECT id FROM claims WHERE id IN ({_marks(len(piece))}) AND owner <> ?"
                others.update(i for (i,) in execute(statement, [*piece, owner]))
                # Written since the caller looked, which also ends a claim.
                statement = f"SELECT id FROM entries WHERE id IN ({_marks(len(piece))})"
                others.update({i for (i,) in execute(statement, piece)} - self._damaged)
            free = ~np.isin(ids, list(others)) if others else np.ones(len(ids), dtype=bool)
            self._connection.executemany(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", ((i, owner, now) for i in ids[free].tolist())
            )
        return free

    def release(self, owner):
        """Give up all claims of somebody."""
        with self._lock:
            self._connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))

    def clear(self):
        """Delete everything and give the space back."""
        with self._lock:
            with self._transaction() as execute:
                for table in ("entries", "blocks", "claims"):
                    execute(f"DELETE FROM {table}")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._last_used.clear()
            self._damaged.clear()

    def count(self):
        """Give the number of entries, facts left out, and the bytes in use."""
        with self._lock:
            (n,) = self._connection.execute("SELECT count(*) FROM entries WHERE block > ?", (_FACTS,)).fetchone()
            return n, self._used_bytes()


class _Transaction:
    """A write transaction, rolled back if anything goes wrong in it."""

    def __init__(self, connection):
        self._connection = connection

    def __enter__(self):
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection.execute

    def __exit__(self, kind, error, traceback):
        # Some errors, a full disk among them, roll back on their own.
        if self._connection.in_transaction:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")
