"""A table of values under digests in one SQLite file, which many processes read and write at once.

A value is a number of 64-bit words. It stands behind its own digest and before a checksum of both, and the first 64
bits of the digest are its row's number: a value that is damaged, or belongs to another digest, counts as absent.
Nothing is kept in order: whoever writes last loses at most its own last transaction.
"""

import os
import sqlite3
import threading
import time
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

import numpy as np

from . import _claims
from ._checksums import EXTRA_WORDS, seal, unseal
from ._file import Transactions, bytes_of_file, count_pages, open_for_reading, open_for_writing, reading
from ._limits import Limits, bytes_of_row

# Rows of one statement. sqlite3 keeps a statement prepared while its text stays the same.
_ROWS_PER_STATEMENT = 500
# Rows that are read while other threads wait.
_ROWS_PER_LOOK = 5000

# Rows that are evicted together, and seconds for which a use of theirs is not written down again.
_ROWS_PER_BLOCK = 1000
_USE_RESOLUTION = 3600
# The share of the entries that goes where less was not enough.
_EVICTED_SHARE = 1 / 8


def _marks(n):
    return ",".join("?" * n)


def _pieces(sequence):
    return (sequence[start : start + _ROWS_PER_STATEMENT] for start in range(0, len(sequence), _ROWS_PER_STATEMENT))


class Engine:
    """An open table; threads of one process may share it.

    Parameters
    ----------
    path : path-like
        File of the table, created if its folder can be written.

    max_bytes : int or None, default=None
        Bytes that the folder may take; None for no limit.

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
        self._limits = None if max_bytes is None else Limits(max_bytes)
        self.is_writable = os.access(self.path if self.path.exists() else self.path.parent, os.W_OK) and os.access(
            self.path.parent, os.W_OK
        )
        self._lock = threading.Lock()
        # Rows that were read and turned out to be damaged: the next write replaces them.
        self._damaged = set()
        # Block -> when its use was last written down, as far as this process knows.
        self._last_used = {}
        self._is_lasting = is_lasting
        self._open()

    def _open(self):
        if self.is_writable:
            self._opened = open_for_writing(self.path, self._is_lasting, self._limits)
        else:
            self._opened = open_for_reading(self.path)
        self._transactions = Transactions(self._opened, self._limits)

    @property
    def _connection(self):
        """The connection, opened again after a fork."""
        if self._opened is None:
            self._open()
        return self._opened

    @property
    def _transaction(self):
        """What begins and ends transactions; the lock is held around them."""
        if self._opened is None:
            self._open()
        return self._transactions

    def suspend(self):
        """Close the file until ``resume`` lets the next use open it again; other threads wait for that."""
        self._lock.acquire()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def resume(self):
        """End what ``suspend`` began."""
        self._lock.release()

    def close(self):
        """Close the file."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()

    def read(self, digests, n_words, take):
        """Hand out the values that are there and whole.

        Parameters
        ----------
        digests : ndarray of shape (n, 4), dtype uint64
            Digests, all different.

        n_words : int
            Words of each value.

        take : callable
            Called for some of them at a time, while other threads wait, with positions (m,) in ``digests`` and
            words (m, n_words), dtype uint64, read-only.
        """
        ids = digests[:, 0].view(np.int64)
        order = np.argsort(ids)
        blocks = set()
        for start in range(0, len(order), _ROWS_PER_LOOK):
            # Each statement on its own would take the locks of the file, and look through its log, anew.
            with self._lock, reading(self._connection) as execute:
                for piece in _pieces(order[start : start + _ROWS_PER_LOOK]):
                    statement = f"SELECT id, block, value FROM entries WHERE id IN ({_marks(len(piece))})"
                    rows = execute(statement, ids[piece].tolist()).fetchall()
                    if rows:
                        found, of_block, values = zip(*rows, strict=True)
                        blocks.update(of_block)
                        take(*self._take_whole(digests, piece, np.array(found, dtype=np.int64), values, n_words))
        self._note_use(blocks)

    def _take_whole(self, digests, piece, found, values, n_words):
        """Give positions and words of values that are whole, of those found for a piece of the digests in order."""
        is_whole, of_digests, words = unseal(values, n_words)
        ids = digests[piece, 0].view(np.int64)
        positions = piece[np.minimum(np.searchsorted(ids, found[is_whole]), len(piece) - 1)]
        is_right = (of_digests == digests[positions]).all(axis=1)
        if is_whole.all() and is_right.all():
            return positions, words
        self._damaged.update(found[~is_whole].tolist(), found[is_whole][~is_right].tolist())
        return positions[is_right], words[is_right]

    def read_one(self, digests):
        """Give the words of one value of any length, None if it is not there or not whole."""
        row_id = digests.view(np.int64)[0, :1].tolist()
        with self._lock:
            found = self._connection.execute("SELECT value FROM entries WHERE id = ?", row_id).fetchone()
        n_words = (len(found[0]) if found and isinstance(found[0], bytes) else 0) // 8 - EXTRA_WORDS
        taken = []
        if n_words > 0:
            self.read(digests, n_words, lambda _, words: taken.extend(words))
        return taken[0] if taken else None

    def _note_use(self, blocks):
        """Write down that blocks were used, unless that was done lately."""
        now = int(time.time())
        blocks = [block for block in blocks if self._last_used.get(block, 0) < now - _USE_RESOLUTION]
        if not blocks or not self.is_writable:
            return
        self._last_used.update(dict.fromkeys(blocks, now))
        # Whoever reads need not know that nothing can be written just now.
        with self._lock, suppress(sqlite3.OperationalError):
            for piece in _pieces(blocks):
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
            Whether these values are not counted as entries.
        """
        sealed = seal(digests, words)
        n_bytes = len(sealed[0]) if sealed else 0
        rows = list(zip(digests[:, 0].view(np.int64).tolist(), sealed, strict=True))
        # In the order of the table, which writes fewer pages.
        rows.sort(key=itemgetter(0))
        at_once = len(rows)
        if self._limits is not None:
            at_once = self._limits.rows_per_transaction(n_bytes)
            if not at_once:
                self.release_entries(digests)
                return
        for start in range(0, len(rows), at_once or 1):
            self._write_at_once(rows[start : start + at_once], n_bytes, 1 - 2 * are_facts)

    def _write_at_once(self, rows, n_bytes, sign):
        """Write rows of one length, as many as one transaction may."""
        if self._limits is None:
            self._insert(rows, n_bytes, sign)
            return
        new_bytes = len(rows) * bytes_of_row(n_bytes)
        self._evict(lambda n_there: n_there + new_bytes - self._limits.value_bytes)
        while True:
            try:
                with self._lock:
                    self._connection.execute(f"PRAGMA max_page_count = {self._limits.n_pages_of_values}")
                try:
                    self._insert(rows, n_bytes, sign)
                    return
                finally:
                    with self._lock:
                        self._connection.execute(f"PRAGMA max_page_count = {self._limits.n_pages}")
            except sqlite3.OperationalError as error:
                # Rows of some lengths fill their pages badly.
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL or not self._is_full(len(rows), n_bytes):
                    raise
                if not self._evict(lambda n_there: max(new_bytes, int(_EVICTED_SHARE * n_there))):
                    raise

    def _insert(self, rows, n_bytes, sign):
        with self._lock, self._transaction as execute:
            damaged = self._damaged.intersection(i for i, _ in rows)
            if damaged:
                execute(f"DELETE FROM entries WHERE id IN ({_marks(len(damaged))})", list(damaged))
            block = self._block_for(n_bytes, sign)
            inserted = self._connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
                ((i, block, value) for i, value in rows),
            )
            n_new = inserted.rowcount * bytes_of_row(n_bytes)
            execute("UPDATE blocks SET bytes = bytes + ? WHERE id = ?", (n_new, block))
            _claims.release(self._connection, [i for i, _ in rows])
        self._damaged -= damaged

    def _block_for(self, n_bytes, sign):
        """Give the block that new rows go to; those of facts have a sign of -1."""
        execute = self._connection.execute
        full = _ROWS_PER_BLOCK
        if self._limits is not None:
            full = max(1, min(full, self._limits.value_bytes // (32 * bytes_of_row(n_bytes))))
        (last,) = execute("SELECT coalesce(max(id * ?), 0) FROM blocks", (sign,)).fetchone()
        block = sign * max(last, 0)
        if block:
            (n_there,) = execute("SELECT count(*) FROM entries WHERE block = ?", (block,)).fetchone()
        if not block or n_there >= full:
            block += sign
            execute("INSERT INTO blocks VALUES (?, ?, 0)", (block, int(time.time())))
        return block

    def _is_full(self, n_rows, n_bytes):
        """Tell whether it is the limit, not the disk, that leaves no place for rows."""
        with self._lock:
            _, n_pages, n_free = count_pages(self._connection)
        return n_pages - n_free + self._limits.pages_for(n_rows, n_bytes) > self._limits.n_pages_of_values

    def _evict(self, find_surplus):
        """Delete the blocks that were not used for the longest time; give the bytes of their rows.

        Parameters
        ----------
        find_surplus : callable
            Takes the bytes of all rows, and gives how many have to go.
        """
        n_evicted, surplus = 0, None
        while surplus is None or n_evicted < surplus:
            with self._lock, self._transaction as execute:
                if surplus is None:
                    (n_there,) = execute("SELECT coalesce(sum(bytes), 0) FROM blocks").fetchone()
                    surplus = find_surplus(n_there)
                    if surplus <= 0:
                        break
                oldest = execute("SELECT id, bytes FROM blocks ORDER BY last_used, abs(id) LIMIT 1").fetchone()
                if oldest is None:
                    break
                block, n_bytes = oldest
                n_evicted += self._evict_at_once(block, n_bytes)
        return n_evicted

    def _evict_at_once(self, block, n_bytes):
        """Delete rows of a block, as many as one transaction may, and the block with the last of them."""
        execute = self._connection.execute
        (n_rows,) = execute("SELECT count(*) FROM entries WHERE block = ?", (block,)).fetchone()
        at_once = max(1, self._limits.rows_per_transaction(n_bytes // max(1, n_rows)))
        if n_rows <= at_once:
            execute("DELETE FROM entries WHERE block = ?", (block,))
            execute("DELETE FROM blocks WHERE id = ?", (block,))
            return n_bytes
        part = at_once * n_bytes // n_rows
        chosen = "SELECT id FROM entries WHERE block = ? LIMIT ?"
        execute(f"DELETE FROM entries WHERE id IN ({chosen})", (block, at_once))
        execute("UPDATE blocks SET bytes = bytes - ? WHERE id = ?", (part, block))
        return part

    def claim(self, digests, owner, begins=True, takes_over=False):
        """Claim entries that are to be computed: ``_claims.claim``."""
        with self._lock, self._transaction:
            ids = digests[:, 0].view(np.int64)
            return _claims.claim(self._connection, ids, owner, begins, takes_over, self._damaged)

    def release(self, owner):
        """Give up all claims of somebody."""
        with self._lock, self._transaction:
            _claims.release_all(self._connection, owner)

    def release_entries(self, digests):
        """Give up the claims on entries that were not written."""
        with self._lock, self._transaction:
            _claims.release(self._connection, digests[:, 0].view(np.int64).tolist())

    def clear(self):
        """Delete everything and give the space back."""
        with self._lock:
            with self._transaction as execute:
                for table in ("entries", "blocks", "claims"):
                    execute(f"DELETE FROM {table}")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._last_used.clear()
            self._damaged.clear()

    def count(self):
        """Give the number of entries, facts left out, and the bytes of all files."""
        with self._lock:
            (n,) = self._connection.execute("SELECT count(*) FROM entries WHERE block > 0").fetchone()
        return n, sum(bytes_of_file(self.path.with_name(self.path.name + end)) for end in ("", "-wal", "-shm"))
