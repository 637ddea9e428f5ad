"""The private folder of a process tree: created once, shared with its workers, removed at exit."""

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
    # Windows: folders of killed processes stay until the system cleans up its temporary files.
    fcntl = None

_PREFIX = "skmm-store-"
_OWNER = "owner"

# Seconds after which a folder without an owner's file counts as abandoned: its owner may be about to create the file.
_GRACE = 3600

_lock = threading.Lock()
_folder = None
# The owner's file of a folder that this process has created, locked until it ends.
_owner_file = None


def private_folder():
    """Return the private folder of this process tree, created if there is none yet.

    Returns
    -------
    folder : Path
        A folder that only this user may enter.

    Raises
    ------
    OSError
        If it cannot be created.
    """
    global _folder, _owner_file
    with _lock:
        if _folder is None or not _folder.is_dir():
            _sweep()
            _folder, _owner_file = _create()
        return _folder


def adopt_folder(folder):
    """Use the private folder of the process that sent work to this one, unless this one has a folder already."""
    global _folder
    with _lock:
        if (_folder is None or not _folder.is_dir()) and _is_private(folder):
            _folder = Path(folder)


def _is_private(folder):
    """Return whether a path is a folder, not a link, that belongs to this user and that no other user may enter."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    is_protected = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o077)
    return stat.S_ISDIR(status.st_mode) and is_protected


def _create():
    """Return a new folder and its owner's file."""
    while True:
        # mkdtemp makes it accessible to this user only.
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Locked while the owner, or a process forked from it, lives.
        owner_file = open(folder / _OWNER, "w")  # noqa: SIM115 - closed by _remove
        if fcntl is not None:
            fcntl.flock(owner_file, fcntl.LOCK_EX)
        # Another process may have swept the folder away before the file was locked.
        if (folder / _OWNER).exists():
            break
        owner_file.close()
    atexit.register(_remove, folder, owner_file, os.getpid())
    return folder, owner_file


def _remove(folder, owner_file, owner):
    # Forked children inherit this call, but do not own the folder.
    if os.getpid() == owner:
        owner_file.close()
        shutil.rmtree(folder, ignore_errors=True)


def _sweep():
    """Remove the folders of processes that were killed."""
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        if not _is_private(folder):
            continue
        with suppress(OSError):
            try:
                # Open for writing, since some file systems lock only such files.
                file = open(folder / _OWNER, "r+")  # noqa: SIM115 - closed below
            except FileNotFoundError:
                if folder.stat().st_mtime < time.time() - _GRACE:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            with file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
