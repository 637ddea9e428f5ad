"""Claims on entries of a store: who computes what at the moment, so that workers share the work."""

import time

import numpy as np

# Seconds after which a claim has no effect any more: whoever made it was killed, or needs longer than that for a batch.
_SECONDS = 60

# Rows of one statement.
_ROWS_PER_STATEMENT = 500


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
            Who claims them; claims of one owner do not exclude each other.

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
            taken |= {i for (i,) in execute(f"SELECT id FROM claims WHERE {chosen} AND owner <> ?", [*batch, owner])}
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
