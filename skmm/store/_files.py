"""Digests of files: what is in them, read again only when something about them has changed."""

import functools
import hashlib
import os
import platform
import re
import stat
import sys
import time

# Seconds for which a file's times must lie back before its digest is remembered: a later change within the
# resolution of the clock would leave them as they are. Two seconds is the coarsest clock of a file system (FAT).
# The clock of a server may be wrong by more.
_LIES_BACK = {"local": 2.5, "network": 86_400}

# File systems that note each change of a file by a clock of their own, which no user can set back. Of others, such as
# FAT, which has no such time, or FUSE, which may be anything, nothing is remembered.
_KINDS = {
    **dict.fromkeys(
        ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs"), "local"
    ),
    **dict.fromkeys(("squashfs", "tmpfs", "xfs", "zfs"), "local"),
    **dict.fromkeys(("beegfs", "ceph", "gpfs", "lustre", "nfs", "nfs4"), "network"),
}

_MOUNTS = "/proc/self/mountinfo"

# Files whose digests this process remembers at a time.
_MOST_FILES = 200_000

# Signature -> digest.
_seen_files = {}


class FileDigests:
    """Digests of files by their content, remembered as long as a file's inode, size and times stay as they were.

    Parameters
    ----------
    store : EmbeddingStore or None, default=None
        Where digests are remembered beyond this process.
    """

    def __init__(self, store=None):
        self._store = store

    def of(self, paths):
        """Give a list with the digest of each file, None for what cannot be read.

        Parameters
        ----------
        paths : list of str or path-like
            Files, in any order.

        Returns
        -------
        digests : list of bytes or None
            One for each path.
        """
        signatures = [_file_signature(path) for path in paths]
        unknown = {s: path for s, path in zip(signatures, paths, strict=True) if s is not None and s not in _seen_files}
        if unknown and self._store is not None:
            keys = [_signature_key(signature) for signature in unknown]
            found = zip(list(unknown), self._store.get_digests(keys), strict=True)
            for signature, digest in found:
                if digest is not None:
                    _remember_file(signature, digest)
                    del unknown[signature]
        fresh, lasting = {}, {}
        for signature, path in unknown.items():
            fresh[signature], is_lasting = _hash_file(path, signature)
            if is_lasting:
                _remember_file(signature, fresh[signature])
                lasting[_signature_key(signature)] = fresh[signature]
        if lasting and self._store is not None:
            self._store.put_digests(list(lasting), list(lasting.values()))
        return [fresh[s] if s in fresh else _seen_files.get(s) for s in signatures]


def _remember_file(signature, digest):
    if len(_seen_files) >= _MOST_FILES:
        _seen_files.clear()
    _seen_files[signature] = digest


def _file_signature(path):
    """Give what changes whenever a file does; None if it is no file, or cannot be found."""
    try:
        # As opening it would: a link to another file is another file.
        found = os.stat(path)
        where = os.path.abspath(os.fsdecode(path))
        if not stat.S_ISREG(found.st_mode):
            return None
        if file_system_kind(os.path.dirname(where), found.st_dev) == "network":
            # Only opening a file asks the server whether what is known of it still holds.
            with open(where, "rb") as file:
                found = os.fstat(file.fileno())
    except (OSError, ValueError):
        return None
    return where, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@functools.lru_cache(maxsize=4096)
def file_system_kind(folder, device):
    """Tell what the times of files in a folder are worth.

    Parameters
    ----------
    folder : str
        Absolute path.

    device : int
        Its device: what is mounted there may change.

    Returns
    -------
    kind : {"local", "network", None}
        None where a change may leave a file's times as they were.
    """
    if not sys.platform.startswith("linux"):
        # Windows calls the creation of a file st_ctime, so that a change of its times goes unnoticed.
        return None if os.name == "nt" else "local"
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split(" ") for line in file]
    except OSError:
        return None
    where, name, longest = os.path.join(os.path.realpath(folder), ""), None, 0
    for mount in mounts:
        # Blanks and the like stand there as octal numbers.
        point = os.path.join(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), mount[4]), "")
        # Of two at one place the later hides the earlier.
        if where.startswith(point) and len(point) >= longest:
            name, longest = mount[mount.index("-") + 1], len(point)
    return _KINDS.get(name)


def _signature_key(signature):
    # With the machine: elsewhere the same numbers may mean another file.
    return hashlib.blake2b(repr((platform.node(), signature)).encode(), digest_size=32, person=b"skmm file").digest()


def _hash_file(path, signature):
    """Give the digest of a file, and whether it may be remembered under the signature that was read before."""
    started = time.time()
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None, False
    where, device = signature[:2]
    kind = file_system_kind(os.path.dirname(where), device)
    has_settled = kind is not None and max(signature[-2:]) / 1e9 < started - _LIES_BACK[kind]
    return digest, has_settled and _file_signature(path) == signature
