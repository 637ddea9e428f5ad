"""The SQLite file of a store: opening it, whoever wrote it, and changing it in transactions."""

import os
import sqlite3
import time
from contextlib import contextmanager

from ._limits import PAGE_BYTES

# Written into the file; one that another version wrote is left alone.
VERSION = 2
_APPLICATION = 0x736B6D6D

# Seconds that a writer waits for others, and one that empties the log waits for readers.
_TIMEOUT = 30
_LOG_TIMEOUT = 2

# Memory for pages, so that folds which read the same rows do not fetch them anew.
_CACHE_BYTES = 2**25

# Blocks of small facts about encoders and files have numbers below 0: they are evicted, but not counted as entries.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, block INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS of_block ON entries (block);
CREATE TABLE IF NOT EXISTS blocks (id INTEGER PRIMARY KEY, last_used INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS claims
(id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, time INTEGER NOT NULL, has_begun INTEGER NOT NULL)
"""


class StoreError(Exception):
    """A store cannot be used; the text is the reason."""


class OlderVersion(StoreError):
    """A store was written by an older version."""


def _connect(path, options):
    # URIs take percent signs; the lock of the engine stands for the check of threads.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
    )
    # Text can only be a damaged value, to be looked at as any other.
    connection.text_factory = bytes
    connection.execute(f"PRAGMA cache_size = {-_CACHE_BYTES // 1024}")
    return connection


def open_for_writing(path, is_lasting, limits):
    """Open a store's file, created if it is not there.

    Parameters
    ----------
    path : Path
        The file.

    is_lasting : bool
        Whether what was written must survive a crash of the machine.

    limits : Limits or None
        Limits of its size.

    Returns
    -------
    connection : sqlite3.Connection
        Connection in autocommit mode.
    """
    connection = _connect(path, "mode=rwc")
    try:
        # These ask for the file's lock without the patience that other statements have.
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                _prepare(connection, is_lasting, limits)
                return connection
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
    except BaseException:
        connection.close()
        raise


def _prepare(connection, is_lasting, limits):
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if is_lasting else 'OFF'}")
    if not _holds_store(connection):
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    if limits is not None:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA max_page_count = {limits.n_pages}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _holds_store(connection):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def open_for_reading(path):
    """Open a store's file in a place where nothing can be written."""
    if not path.exists():
        raise StoreError("it holds no store, and one cannot be created in a folder that is read-only")
    # A write-ahead log needs files of its own; where they cannot be had, the table is read as it lies there.
    for options in ("mode=ro", "mode=ro&immutable=1"):
        connection = _connect(path, options)
        try:
            _holds_store(connection)
            connection.execute("SELECT count(*) FROM blocks").fetchone()
            return connection
        except sqlite3.OperationalError:
            connection.close()
            if "immutable" in options:
                raise
        except BaseException:
            connection.close()
            raise


def _holds_store(connection):
    """Tell whether the file holds a store, or nothing; raise if it holds something else."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application not in (_APPLICATION, 0) or (n_tables and application == 0):
        raise StoreError("its file is a database of something else")
    if application == _APPLICATION and version != VERSION:
        kind, error = ("a newer", StoreError) if version > VERSION else ("an older", OlderVersion)
        raise error(f"{kind} version of skmm wrote it (format {version}, this one knows {VERSION})")
    return application == _APPLICATION


def bytes_of_file(path):
    """Give the length of a file, 0 if there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def count_pages(connection):
    """Give the bytes of a page, the number of pages, and how many of these are free."""
    return [
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    ]


@contextmanager
def reading(connection):
    """Let several statements read what one moment left; give the function that executes them."""
    connection.execute("BEGIN")
    try:
        yield connection.execute
    finally:
        # Some errors have ended it.
        if connection.in_transaction:
            connection.execute("COMMIT")


class Transactions:
    """Write transactions of one connection, rolled back if anything goes wrong; none begins with a long log.

    Parameters
    ----------
    connection : sqlite3.Connection
        From ``open_for_writing``.

    limits : Limits or None
        Limits of the file's size.
    """

    def __init__(self, connection, limits):
        self._connection = connection
        self._step = None if limits is None else limits.log_bytes
        # Bytes of the log beyond which it is to be emptied.
        self._longest = self._step
        self._log = None

    def __enter__(self):
        self._connection.execute("BEGIN IMMEDIATE")
        # While nobody else can write.
        while self._step is not None and self._log_is_long():
            self._connection.execute("ROLLBACK")
            self._empty_log()
            self._connection.execute("BEGIN IMMEDIATE")
        return self._connection.execute

    def __exit__(self, kind, error, traceback):
        # Some errors, a full disk among them, roll back on their own.
        if self._connection.in_transaction:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")

    def _log_is_long(self):
        if self._log is None:
            (_, _, path) = self._connection.execute("PRAGMA database_list").fetchone()
            self._log = os.fsdecode(path) + "-wal"
        return bytes_of_file(self._log) > self._longest

    def _empty_log(self):
        """Fold the log into the database and cut it off, as soon as nobody reads what it was before."""
        execute = self._connection.execute
        execute(f"PRAGMA busy_timeout = {1000 * _LOG_TIMEOUT}")
        (is_busy, _, _) = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        execute(f"PRAGMA busy_timeout = {1000 * _TIMEOUT}")
        # Who stopped in the middle of reading must not make others wait each time.
        self._longest = self._longest + self._step if is_busy else self._step
