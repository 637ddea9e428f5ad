"""Claims on entries of a store: who computes what, so that several that meet the same items share the work."""

import os
import secrets
import time

import numpy as np

# Seconds for which a claim holds at most.
_SECONDS = 600

# Bits of an owner's number beside those of its process.
_OWNER_BITS = 40
_PROCESS_BITS = 22

# Entries of one statement.
_AT_ONCE = 500


def new_owner():
    """Give a number for somebody in this process who claims entries."""
    return (os.getpid() % 2**_PROCESS_BITS) << _OWNER_BITS | secrets.randbits(_OWNER_BITS)


def _is_gone(owner):
    """Tell whether the process of an owner has ended, as far as that can be known."""
    # Elsewhere this signal would be one.
    if os.name != "posix":
        return False
    try:
        os.kill(owner >> _OWNER_BITS, 0)
    except ProcessLookupError:
        return True
    # It is another user's.
    except OSError:
        return False
    return False


def claim(connection, ids, owner, begins, takes_over, is_damaged):
    """Claim entries that are to be computed, within a transaction.

    A claim keeps nobody from writing: it only tells others to begin elsewhere.

    Parameters
    ----------
    connection : sqlite3.Connection
        Connection.

    ids : ndarray of shape (n,), dtype int64
        Numbers of the entries, all different.

    owner : int
        From ``new_owner``.

    begins : bool
        Whether computing begins now. Before it does, others may take over.

    takes_over : bool
        Whether what others have claimed and not begun with is claimed from them.

    is_damaged : set of int
        Entries that do not count as written.

    Returns
    -------
    is_mine : ndarray of shape (n,), dtype bool
        What is claimed now: what nobody else has claimed or written.
    """
    now = int(time.time())
    others = set()
    # A clock may also have been set back.
    connection.execute("DELETE FROM claims WHERE abs(time - ?) > ?", (now, _SECONDS))
    for start in range(0, len(ids), _AT_ONCE):
        piece = ids[start : start + _AT_ONCE].tolist()
        which = f"id IN ({','.join('?' * len(piece))})"
        statement = f"SELECT id, owner FROM claims WHERE {which} AND owner <> ?" + " AND has_begun" * takes_over
        claims = connection.execute(statement, [*piece, owner]).fetchall()
        gone = set(filter(_is_gone, {who for _, who in claims}))
        others.update(i for i, who in claims if who not in gone)
        # Written since the caller looked, which also ends a claim.
        others.update({i for (i,) in connection.execute(f"SELECT id FROM entries WHERE {which}", piece)} - is_damaged)
    is_mine = ~np.isin(ids, list(others)) if others else np.ones(len(ids), dtype=bool)
    connection.executemany(
        "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", ((i, owner, now, begins) for i in ids[is_mine].tolist())
    )
    return is_mine


def release(connection, ids):
    """Give up the claims on entries, whoever made them."""
    connection.executemany("DELETE FROM claims WHERE id = ?", ((i,) for i in ids))


def release_all(connection, owner):
    """Give up all claims of somebody."""
    connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
