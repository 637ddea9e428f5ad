"""The private folder of a process tree: made once, found by its workers, removed in the end."""

import atexit
import os
import shutil
import stat
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:
    # Windows: folders of killed processes stay until its own clean-up of temporary files.
    fcntl = None

_PREFIX = "skmm-store-"
_OWNER = "owner"

# Seconds that a folder without an owner's file may be on its way to getting one.
_GRACE = 3600

_lock = threading.Lock()
_folder = None
# Of a folder that this process has made, locked as long as it lives.
_owner_file = None


def private_folder():
    """Give the private folder of this process tree, made now if there is none yet.

    Returns
    -------
    folder : Path
        A folder that only this user may enter.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    global _folder, _owner_file
    with _lock:
        if _folder is None or not _folder.is_dir():
            _sweep()
            _folder, _owner_file = _make()
        return _folder


def adopt_folder(folder):
    """Use the folder of a process tree that this process turns out to belong to, unless it has one already."""
    global _folder
    with _lock:
        if (_folder is None or not _folder.is_dir()) and _is_private(folder):
            _folder = Path(folder)


def _is_private(folder):
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    is_mine = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    return stat.S_ISDIR(found.st_mode) and is_mine


def _make():
    while True:
        # For its owner alone, says mkdtemp.
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Its lock says that the owner, or a process forked from it, lives.
        owner_file = open(folder / _OWNER, "w")  # noqa: SIM115 - closed by _remove
        if fcntl is not None:
            fcntl.flock(owner_file, fcntl.LOCK_EX)
        # A sweep may have been faster than the lock.
        if (folder / _OWNER).exists():
            break
        owner_file.close()
    atexit.register(_remove, folder, owner_file, os.getpid())
    return folder, owner_file


def _remove(folder, owner_file, owner):
    # Forked children inherit this call, and not the folder.
    if os.getpid() == owner:
        owner_file.close()
        shutil.rmtree(folder, ignore_errors=True)


def _sweep():
    """Remove the folders whose owners died without doing so."""
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        if not _is_private(folder):
            continue
        with suppress(OSError):
            try:
                # To write: not every file system locks what is open for reading.
                file = open(folder / _OWNER, "r+")  # noqa: SIM115 - closed below
            except FileNotFoundError:
                if folder.stat().st_mtime < time.time() - _GRACE:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            with file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
