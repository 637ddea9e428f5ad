"""A table of values under digests in one SQLite file, which many processes read and write at once.

A value is a sequence of 64-bit words. It is stored between its own digest and a checksum of both, in the row whose
number is the first 64 bits of the digest. A value that is damaged, or belongs to another digest, counts as missing.
The last transaction of a process that is killed may be lost; every earlier one stays.
"""

import os
import sqlite3
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from itertools import compress
from operator import itemgetter
from pathlib import Path

import numpy as np

# Identify a file as a store, and the format of its tables.
_APPLICATION = 0x736B6D6D
VERSION = 3

# Bytes of values beyond which a block takes no more rows.
_BLOCK_BYTES = 2**20
# Seconds after which a further use of a block is recorded.
_USE_RESOLUTION = 3600
# Largest share of the limit that one transaction adds.
_TRANSACTION_SHARE = 1 / 16
# Pages beyond the limit that dropping rows may use, since deleting can split pages of the index.
_SPARE_PAGES = 64

# Bytes of a page, which rows of usual widths fill well.
_PAGE_BYTES = 16384
# Bytes of the write-ahead log that stay on the disk after its content was moved to the table.
_LOG_BYTES = 2**26
# Bytes of pages that a connection caches, so that folds which read the same rows read the file once.
_CACHE_BYTES = 2**25

# Seconds that a process waits for the locks of others.
_TIMEOUT = 30

# Rows of one statement. sqlite3 reuses a prepared statement as long as its text is the same.
_ROWS_PER_STATEMENT = 500
# Rows that are read before other threads get their turn.
_ROWS_PER_TURN = 5000

# Seconds after which a claim has no effect any more: whoever made it was killed, or needs longer than that for a batch.
_SECONDS = 60

# 64-bit words of a digest, and of all that is saved with the words of a value: the digest and the checksum.
DIGEST_WORDS = 4
EXTRA_WORDS = DIGEST_WORDS + 1

# The CRC-32 of any bytes followed by their own CRC-32.
_RESIDUE = 0x2144DF1C


class StoreError(Exception):
    """A store cannot be used; the text is the reason."""


class OlderVersion(StoreError):
    """A store was written by an older version."""


def _is_alive(process):
    """Return whether a process of this machine is running; True if that is unknown."""
    if os.name == "nt":
        # There a signal of any number ends the process.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It belongs to another user.
        return True
    return True


class Claims:
    """The table of claims of one store.

    A claim keeps nobody from writing an entry. It tells others that its entry is being computed, and ends when that is
    written. All methods run within a transaction of the caller.

    Parameters
    ----------
    connection : sqlite3.Connection
        Open connection to the store.
    """

    SCHEMA = "CREATE TABLE claims (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, time INTEGER NOT NULL)"

    def __init__(self, connection):
        self._connection = connection

    def make(self, ids, owner, damaged):
        """Claim the entries that are neither written nor claimed by others.

        Parameters
        ----------
        ids : ndarray of shape (n,), dtype int64
            Numbers of the entries, all different.

        owner : int
            Who claims them, with the number of the process in the bits above the lower 32; claims of one owner do not
            exclude each other, and those of processes that have ended are void.

        damaged : set of int
            Numbers of written entries that have to be computed again.

        Returns
        -------
        is_claimed : ndarray of shape (n,), dtype bool
            True where the owner has the claim.
        """
        execute, now = self._connection.execute, int(time.time())
        # Also of the future: a clock may have been set back.
        execute("DELETE FROM claims WHERE abs(time - ?) > ?", (now, _SECONDS))
        taken = set()
        for start in range(0, len(ids), _ROWS_PER_STATEMENT):
            batch = ids[start : start + _ROWS_PER_STATEMENT].tolist()
            chosen = f"id IN ({','.join('?' * len(batch))})"
            claims = execute(f"SELECT id, owner FROM claims WHERE {chosen} AND owner <> ?", [*batch, owner]).fetchall()
            living = {other for other in {other for _, other in claims} if _is_alive(other >> 32)}
            taken |= {i for i, other in claims if other in living}
            taken |= {i for (i,) in execute(f"SELECT id FROM entries WHERE {chosen}", batch)} - damaged
        is_claimed = ~np.isin(ids, list(taken)) if taken else np.ones(len(ids), dtype=bool)
        rows = ((i, owner, now) for i in ids[is_claimed].tolist())
        self._connection.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", rows)
        return is_claimed

    def end(self, ids):
        """End the claims on entries, whoever made them."""
        self._connection.executemany("DELETE FROM claims WHERE id = ?", ((i,) for i in ids))

    def end_all(self, owner):
        """End all claims of an owner."""
        self._connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))


# Rows belong to blocks, which are dropped as a whole. Blocks of facts about encoders and files have negative numbers:
# they are dropped like others, but their rows are not counted as entries.
_SCHEMA = f"""
{Claims.SCHEMA};
CREATE TABLE entries (id INTEGER PRIMARY KEY, block INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX of_block ON entries (block);
CREATE TABLE blocks (id INTEGER PRIMARY KEY, last_used INTEGER NOT NULL, bytes INTEGER NOT NULL)
"""


class Engine:
    """An open table; threads of one process may share it.

    Parameters
    ----------
    path : path-like
        File of the table. It is created if it does not exist, and opened for reading if it cannot be written.

    max_bytes : int or None, default=None
        Size of the file beyond which the half of the rows that was used least recently is dropped; None for no limit.

    is_lasting : bool, default=True
        Whether what was written must survive a crash of the machine.

    Raises
    ------
    StoreError
        If the file was written by another version or is no store.

    sqlite3.Error, OSError
        If the file cannot be opened.
    """

    def __init__(self, path, max_bytes=None, is_lasting=True):
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._is_lasting = is_lasting
        self._lock = threading.Lock()
        # Numbers of rows that were damaged when they were read: the next write replaces them.
        self._damaged = set()
        # Block -> when its use was last recorded, as far as this process knows.
        self._last_used = {}
        self._open()

    def _open(self):
        try:
            self._opened = _open_for_writing(self.path, self._is_lasting)
        except sqlite3.OperationalError as error:
            if not _is_read_only(error):
                raise
            self._opened = _open_for_reading(self.path)

    @property
    def _connection(self):
        """The connection, opened again after a fork."""
        if self._opened is None:
            self._open()
        return self._opened

    def suspend(self):
        """Close the file and block other threads until ``resume``; the next use opens the file again."""
        self._lock.acquire()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def resume(self):
        """Let other threads use the table again."""
        self._lock.release()

    def close(self):
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def read(self, digests, n_words, take):
        """Pass the values that are stored and undamaged to a function.

        Parameters
        ----------
        digests : ndarray of shape (n, 4), dtype uint64
            Digests, all different.

        n_words : int
            Words of each value.

        take : callable
            Called for some of the values at a time, while other threads wait, with positions (m,) in ``digests`` and
            words (m, n_words), dtype uint64, read-only.
        """
        ids = digests[:, 0].view(np.int64)
        order = np.argsort(ids)
        used_blocks = set()
        for turn in _batches(order, _ROWS_PER_TURN):
            # Without a transaction each statement would lock the file and search its log again.
            with self._lock, _transaction(self._connection, "BEGIN") as execute:
                for batch in _batches(turn, _ROWS_PER_STATEMENT):
                    statement = f"SELECT id, block, value FROM entries WHERE id IN ({_placeholders(batch)})"
                    rows = execute(statement, ids[batch].tolist()).fetchall()
                    if rows:
                        row_ids, blocks, values = zip(*rows, strict=True)
                        used_blocks.update(blocks)
                        take(*self._check(digests, batch, np.array(row_ids, dtype=np.int64), values, n_words))
        self._record_use(used_blocks)

    def _check(self, digests, batch, row_ids, values, n_words):
        """Return positions in ``digests`` and words of the values that are undamaged and belong to their digests."""
        is_intact, stored_digests, words = unseal(values, n_words)
        ids = digests[batch, 0].view(np.int64)
        positions = batch[np.minimum(np.searchsorted(ids, row_ids[is_intact]), len(batch) - 1)]
        is_right = (stored_digests == digests[positions]).all(axis=1)
        if is_intact.all() and is_right.all():
            return positions, words
        self._damaged.update(row_ids[~is_intact].tolist(), row_ids[is_intact][~is_right].tolist())
        return positions[is_right], words[is_right]

    def read_one(self, digests):
        """Return the words of one value of any length, None if it is missing or damaged."""
        row_id = digests.view(np.int64)[0, :1].tolist()
        with self._lock:
            row = self._connection.execute("SELECT value FROM entries WHERE id = ?", row_id).fetchone()
        n_words = (len(row[0]) if row and isinstance(row[0], bytes) else 0) // 8 - EXTRA_WORDS
        results = []
        if n_words > 0:
            self.read(digests, n_words, lambda _, words: results.extend(words))
        return results[0] if results else None

    def _record_use(self, blocks):
        """Record that blocks were used, unless that was done lately."""
        time_of_use = int(time.time())
        recent = time_of_use - _USE_RESOLUTION
        blocks = [block for block in blocks if self._last_used.get(block, 0) < recent]
        if not blocks:
            return
        self._last_used.update(dict.fromkeys(blocks, time_of_use))
        # A table that cannot be written, just now or ever, can still be read.
        with self._lock, suppress(sqlite3.OperationalError):
            for batch in _batches(blocks, _ROWS_PER_STATEMENT):
                is_old = f"id IN ({_placeholders(batch)}) AND last_used < ?"
                # Reading needs no lock that a writer holds, so look before writing.
                if self._connection.execute(
                    f"SELECT 1 FROM blocks WHERE {is_old} LIMIT 1", [*batch, recent]
                ).fetchone():
                    self._connection.execute(
                        f"UPDATE blocks SET last_used = ? WHERE {is_old}", [time_of_use, *batch, recent]
                    )

    def write(self, digests, words, are_facts=False):
        """Write values; a digest that has one already keeps it.

        Parameters
        ----------
        digests : ndarray of shape (n, 4), dtype uint64
            Digests, all different.

        words : ndarray of shape (n, n_words), dtype uint64
            Their values.

        are_facts : bool, default=False
            Whether these values are not counted as entries.
        """
        # Neighbours in the table share pages, so fewer are written in this order.
        rows = sorted(zip(digests[:, 0].view(np.int64).tolist(), seal(digests, words), strict=True), key=itemgetter(0))
        if not rows:
            return
        if self._max_bytes is None:
            self._insert(rows, are_facts)
            return
        n_rows = max(1, int(_TRANSACTION_SHARE * self._max_bytes) // len(rows[0][1]))
        for batch in _batches(rows, n_rows):
            self._insert_within_limit(batch, are_facts)

    def _insert_within_limit(self, rows, are_facts):
        """Insert rows, and drop older ones as long as the file has no place for them."""
        while True:
            try:
                self._insert(rows, are_facts)
                return
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_FULL or not self._drop_oldest_half():
                    raise

    def _insert(self, rows, are_facts):
        """Insert rows of equal length in one transaction, and end the claims on them."""
        with self._lock, _transaction(self._connection, "BEGIN IMMEDIATE") as execute:
            self._limit_pages()
            damaged = self._damaged.intersection(row_id for row_id, _ in rows)
            if damaged:
                execute(f"DELETE FROM entries WHERE id IN ({_placeholders(damaged)})", list(damaged))
            block = self._open_block(sign=-1 if are_facts else 1)
            inserted = self._connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
                ((row_id, block, value) for row_id, value in rows),
            )
            n_bytes = inserted.rowcount * len(rows[0][1])
            execute("UPDATE blocks SET bytes = bytes + ? WHERE id = ?", (n_bytes, block))
            Claims(self._connection).end(row_id for row_id, _ in rows)
        self._damaged -= damaged

    def _open_block(self, sign):
        """Return the number of the block that new rows go to, a new one if the last with this sign is full."""
        execute = self._connection.execute
        order = "DESC" if sign > 0 else "ASC"
        block, n_bytes = execute(f"SELECT id, bytes FROM blocks ORDER BY id {order} LIMIT 1").fetchone() or (0, 0)
        if sign * block > 0 and n_bytes < _BLOCK_BYTES:
            return block
        block = sign * max(sign * block, 0) + sign
        execute("INSERT INTO blocks VALUES (?, ?, 0)", (block, int(time.time())))
        return block

    def _limit_pages(self, n_more=0):
        """Let the file take as many pages as its limit allows, and some more; one that is larger grows no further."""
        if self._max_bytes is not None:
            self._connection.execute(f"PRAGMA max_page_count = {self._max_bytes // _PAGE_BYTES + n_more}")

    def _drop_oldest_half(self):
        """Delete the blocks that were used least recently, up to half of all bytes; return False if there are none."""
        with self._lock:
            blocks = self._connection.execute("SELECT id, bytes FROM blocks ORDER BY last_used, abs(id)").fetchall()
        total, n_dropped = sum(n_bytes for _, n_bytes in blocks), 0
        # A transaction for each block keeps the log short, and lets others read and write in between.
        for block, n_bytes in blocks:
            if n_dropped and 2 * (n_dropped + n_bytes) > total:
                break
            with self._lock, _transaction(self._connection, "BEGIN IMMEDIATE") as execute:
                self._limit_pages(n_more=_SPARE_PAGES)
                execute("DELETE FROM entries WHERE block = ?", (block,))
                execute("DELETE FROM blocks WHERE id = ?", (block,))
            n_dropped += n_bytes
        return bool(blocks)

    def claim(self, digests, owner):
        """Claim entries that are about to be computed: see :meth:`Claims.make`."""
        with self._lock, _transaction(self._connection, "BEGIN IMMEDIATE"):
            self._limit_pages(n_more=_SPARE_PAGES)
            return Claims(self._connection).make(digests[:, 0].view(np.int64), owner, self._damaged)

    def release(self, digests, owner):
        """End the claims on entries that were not written; None ends all claims of the owner."""
        with self._lock, _transaction(self._connection, "BEGIN IMMEDIATE"):
            if digests is None:
                Claims(self._connection).end_all(owner)
            else:
                Claims(self._connection).end(digests[:, 0].view(np.int64).tolist())

    def clear(self):
        """Delete all rows and return their space to the disk."""
        with self._lock:
            with _transaction(self._connection, "BEGIN IMMEDIATE") as execute:
                execute("DELETE FROM entries")
                execute("DELETE FROM blocks")
                execute("DELETE FROM claims")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._last_used.clear()
            self._damaged.clear()

    def count(self):
        """Return the number of entries, facts left out, and the bytes of all files."""
        with self._lock:
            (n_entries,) = self._connection.execute("SELECT count(*) FROM entries WHERE block > 0").fetchone()
        files = (self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm"))
        return n_entries, sum(map(_file_bytes, files))


def _open_for_writing(path, is_lasting):
    """Return a connection to a store's file, created if it does not exist."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            return _connect(path, "mode=rwc", lambda connection: _prepare(connection, is_lasting))
        except sqlite3.OperationalError as error:
            # Changing the journal's mode does not wait for locks as other statements do.
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _prepare(connection, is_lasting):
    """Set a connection up for writing, and create the tables in a file that is empty."""
    # Before anything is changed in a file that may belong to something else.
    with _transaction(connection, "BEGIN"):
        _holds_store(connection)
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if is_lasting else 'OFF'}")
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    with _transaction(connection, "BEGIN IMMEDIATE") as execute:
        # Another process may have created the tables in the meantime.
        if not _holds_store(connection):
            for statement in _SCHEMA.split(";"):
                execute(statement)
            execute(f"PRAGMA application_id = {_APPLICATION}")
            execute(f"PRAGMA user_version = {VERSION}")


def _open_for_reading(path):
    """Return a connection to a store's file in a place where nothing can be written."""
    if not path.exists():
        raise StoreError("it holds no store, and its folder is read-only, so that none can be created")
    try:
        return _connect(path, "mode=ro", _check_readable)
    except sqlite3.OperationalError as error:
        if not _is_read_only(error):
            raise
    # Even reading creates files beside one with a write-ahead log. Where that is impossible, nobody is writing either.
    return _connect(path, "mode=ro&immutable=1", _check_readable)


def _check_readable(connection):
    with _transaction(connection, "BEGIN"):
        if not _holds_store(connection):
            raise StoreError("its file is empty and read-only")


def _connect(path, options, prepare):
    """Return a connection in autocommit mode, prepared by a function."""
    connection = sqlite3.connect(
        # Characters with a meaning in URIs are escaped.
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=_TIMEOUT,
        isolation_level=None,
        # Threads take turns by the engine's lock.
        check_same_thread=False,
    )
    try:
        # A text can only be a damaged value, which need not be UTF-8.
        connection.text_factory = bytes
        connection.execute(f"PRAGMA cache_size = {-_CACHE_BYTES // 1024}")
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _holds_store(connection):
    """Return whether a file holds a store, False if it is empty; raise if it holds something else.

    Within a transaction, so that the facts are of one moment: another process may be creating the store.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application not in (_APPLICATION, 0) or (n_tables and application == 0):
        raise StoreError("its file is a database of something else")
    if application == _APPLICATION and version != VERSION:
        age, error = ("a newer", StoreError) if version > VERSION else ("an older", OlderVersion)
        raise error(f"{age} version of skmm wrote it (format {version}, this one knows {VERSION})")
    return application == _APPLICATION


@contextmanager
def _transaction(connection, begin):
    """Run statements as one transaction, rolled back if anything goes wrong; return the function that executes them."""
    connection.execute(begin)
    try:
        yield connection.execute
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, a full disk among them, have ended the transaction.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _primary_code(error):
    """Return SQLite's code of an error without the details that its upper bits add."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_read_only(error):
    """Return whether an error says that a file, or one beside it, cannot be written or created."""
    return _primary_code(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def _file_bytes(path):
    """Return the length of a file, 0 if it does not exist."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _batches(sequence, n_rows):
    return (sequence[start : start + n_rows] for start in range(0, len(sequence), n_rows))


def _placeholders(values):
    return ",".join("?" * len(values))


def _sums(values):
    """Return the upper halves of weighted sums of all words but the last, each with a different odd factor."""
    n_words = values.shape[1] - 1
    factors = np.arange(1, n_words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    return (values[:, :-1] @ factors + np.uint64(n_words)) >> np.uint64(32)


def seal(digests, words):
    """Return values as bytes with their digests and checksums.

    The last word of a sealed value holds two checks of the words before: a weighted sum, and a CRC-32 of the words and
    that sum. They detect each change of up to three bits (in values of up to 11 kB; two bits in longer ones), each
    change within 32 consecutive bits, and other damage but for a share of 2**-64.

    Parameters
    ----------
    digests : ndarray of shape (n, 4), dtype uint64
        Digests of the values.

    words : ndarray of shape (n, n_words), dtype uint64
        Values.

    Returns
    -------
    sealed : list of n memoryviews
        Digest, words and checksum of each value.
    """
    values = np.zeros((len(digests), EXTRA_WORDS + words.shape[1]), dtype=np.uint64)
    values[:, :DIGEST_WORDS] = digests
    values[:, DIGEST_WORDS:-1] = words
    # Halves of words in memory order, so that the CRC is in the last bytes on machines of either byte order.
    ends = values.view("<u4")
    ends[:, -2] = _sums(values)
    for row, end in zip(values.view(np.uint8), ends, strict=True):
        end[-1] = zlib.crc32(row[:-4])
    buffer, n_bytes = memoryview(values.tobytes()), 8 * values.shape[1]
    return [buffer[start : start + n_bytes] for start in range(0, len(buffer), n_bytes)]


def unseal(sealed, n_words):
    """Return the words of sealed values, and which of them are undamaged.

    Parameters
    ----------
    sealed : sequence of n objects
        Sealed values; damaged ones may be of any type and length.

    n_words : int
        Words that a value must have.

    Returns
    -------
    is_intact : ndarray of shape (n,), dtype bool
        Which values are undamaged and have that number of words.

    digests : ndarray of shape (n_intact, 4), dtype uint64
        Digests of the undamaged values.

    words : ndarray of shape (n_intact, n_words), dtype uint64
        Words of the undamaged values; read-only.
    """
    n_bytes = 8 * (EXTRA_WORDS + n_words)
    is_intact = np.ones(len(sealed), dtype=bool)
    try:
        have_length = set(map(len, sealed)) == {n_bytes}
    except TypeError:
        have_length = False
    if not have_length:
        is_intact[:] = [isinstance(value, bytes) and len(value) == n_bytes for value in sealed]
        sealed = list(compress(sealed, is_intact))
    values = np.frombuffer(b"".join(sealed), dtype=np.uint64).reshape(-1, EXTRA_WORDS + n_words)
    is_right = np.fromiter(map(zlib.crc32, sealed), dtype=np.uint32, count=len(sealed)) == _RESIDUE
    is_right &= values.view("<u4")[:, -2] == _sums(values)
    if not is_right.all():
        values = values[is_right]
        is_intact[is_intact] = is_right
    return is_intact, values[:, :DIGEST_WORDS], values[:, DIGEST_WORDS:-1]
