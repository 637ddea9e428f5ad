"""Digests of data, items and files: two items share one only if they are the same content in the same form."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import stat
import time

import numpy as np

# Raised whenever the code changes what encoders compute beyond rounding.
_FORMAT = 3

# Changes of rounding in libraries come with minor versions.
_VERSION_PARTS = 2

# Levels of containers within one another: a pair of a rate and frames as nested lists has five. A list may hold itself.
_MAX_DEPTH = 10

# A file that was modified less than so many seconds ago is read each time: a second change could leave its time as it
# is. Two seconds is the coarsest clock of a file system (FAT).
_YOUNG_SECONDS = 2

# Larger items are known by their path, size and time of modification instead of their content.
_MAX_HASHED_BYTES = 2**28

# Files whose digests this process remembers.
_MAX_FILES = 200_000

# Signature of a file -> digest of its content.
_file_digests = {}


def digest_of(*values):
    """Return a digest of 32 bytes of plain data."""
    return hashlib.blake2b(repr((_FORMAT, *values)).encode(), digest_size=32, person=b"skmm identity").digest()


@functools.lru_cache(maxsize=64)
def minor_version(package):
    """Return the minor version of an installed package as text, "" if there is none; it is not imported."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
    return ".".join(version.split("+")[0].split(".")[:_VERSION_PARTS])


def minor_versions(packages):
    """Return packages with their minor versions."""
    return [(package, minor_version(package)) for package in packages]


def public_name(kind):
    """Return the name of a class that stays the same when private files are moved: its package and its own name."""
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def text_digests(texts, context):
    """Return the digests of texts within a context of 32 bytes; None for what is no text, or not valid Unicode."""
    # These parameters are hashed with the first block of the text; a key would be a block of its own. Copies share
    # the cost of reading them.
    empty = hashlib.blake2b(digest_size=32, salt=context[:16], person=context[16:]).copy
    digests = []
    for text in texts:
        try:
            # Called on the class: other objects have a method of that name as well.
            content = str.encode(text)
        except (TypeError, UnicodeEncodeError):
            digests.append(None)
            continue
        hasher = empty()
        hasher.update(content)
        digests.append(hasher.digest())
    return digests


def content_key(item, strings_are_paths=True):
    """Return a hashable key that two items share only if they are the same content; None if that is unknown.

    Parameters
    ----------
    item : object
        Item that is not missing.

    strings_are_paths : bool, default=True
        Whether a string names a file, as a path object of the same text does; else it is a text.

    Returns
    -------
    key : tuple, bytes or None
        Texts and paths stand for themselves; files are not read.
    """
    if isinstance(item, str):
        return "path" if strings_are_paths else "text", str.__str__(item)
    if isinstance(item, os.PathLike):
        return "path", os.fspath(item)
    hasher = hashlib.blake2b(digest_size=32)
    return hasher.digest() if _add_content(hasher, item, _add_path) else None


class ItemDigests:
    """Digests of items within a context, and whether their files have stayed the same since.

    Parameters
    ----------
    context : bytes of length 32
        Everything that the digests depend on besides the content.

    store : EmbeddingStore
        Remembers the digests of files.

    strings_are_paths : bool, default=True
        Whether a string names a file; else it is a text.
    """

    def __init__(self, context, store, strings_are_paths=True):
        self._context = context
        self._store = store
        self._strings_are_paths = strings_are_paths
        # Whether any item is a file, or holds one.
        self.have_files = False
        # Path -> (signature, digest) of files that were read, and digest of an item -> paths that it holds.
        self._files = {}
        self._paths_of = {}

    def of(self, items):
        """Return the digests of items that are not missing, None for those whose content is unknown."""
        if not self._strings_are_paths:
            digests = zip(items, text_digests(items, self._context), strict=True)
            return [digest if isinstance(item, str) else self._digest(item) for item, digest in digests]
        self._read([item for item in items if isinstance(item, (str, os.PathLike))])
        return [self._digest(item) for item in items]

    def are_unchanged(self, digests):
        """Return a mask of the items, by their digests, whose files have not been modified meanwhile."""
        return np.array(
            [
                all(file_signature(path) == self._files[path][0] for path in self._paths_of.get(digest, ()))
                for digest in digests
            ]
        )

    def _digest(self, item):
        hasher = hashlib.blake2b(digest_size=32, key=self._context)
        paths = []

        def add_file(hasher, path, depth):
            paths.append(path)
            return self._add_file(hasher, path, depth)

        if not _add_content(hasher, item, add_file):
            return None
        digest = hasher.digest()
        if paths:
            self.have_files = True
            self._paths_of.setdefault(digest, paths)
        return digest

    def _read(self, paths):
        """Compute the digests of files, and note what tells whether they change later."""
        signatures = {path: file_signature(path) for path in paths}
        digests = file_digests(signatures.values(), self._store)
        self._files |= dict(zip(signatures, zip(signatures.values(), digests, strict=True), strict=True))

    def _add_file(self, hasher, path, depth):
        if path not in self._files:
            self._read([path])
        _, digest = self._files[path]
        if digest is None:
            # Data sets keep the original name of a file beside its bytes: such a file need not exist.
            hasher.update(f"no file {os.fspath(path)!r} ".encode())
            return depth > 0 and not os.path.exists(path)
        # Decoders may take a hint from the extension of the name.
        extension = os.path.splitext(os.fsdecode(path))[1].lower().encode("utf-8", "surrogateescape")
        hasher.update(b"file %d " % len(extension) + extension + digest)
        return True


def _add_path(hasher, path, depth):
    hasher.update(f"path {os.fspath(path)!r} ".encode())
    return True


def _add_content(hasher, item, add_file, depth=0):
    """Add an item to a hash, each element with its type and length; return whether all of its content is known."""
    if depth > _MAX_DEPTH:
        return False
    if isinstance(item, (str, os.PathLike)):
        return add_file(hasher, item, depth)
    if _is_plain_buffer(item):
        # Inside a container only bytes are the content of a file; other buffers may be read as numbers.
        kind = "bytes" if depth == 0 or isinstance(item, bytes) else type(item).__name__
        hasher.update(f"{kind} {len(item)} ".encode())
        hasher.update(item)
        return True
    if item is None or isinstance(item, (bool, int, float, np.number, np.bool_)):
        return _add_number(hasher, item)
    if isinstance(item, np.ndarray):
        return _add_array(hasher, item, add_file, depth)
    if isinstance(item, (tuple, list)):
        kind = "tuple" if isinstance(item, tuple) else "list"
        hasher.update(f"{kind} {len(item)} ".encode())
        if set(map(type, item)) == {float}:
            hasher.update(np.array(item))
            return True
        return all(_add_content(hasher, element, add_file, depth + 1) for element in item)
    if isinstance(item, dict):
        hasher.update(b"dict %d " % len(item))
        return all(
            isinstance(name, str)
            and _add_content(hasher, name.encode("utf-8", "surrogatepass"), add_file, depth + 1)
            and _add_content(hasher, element, add_file, depth + 1)
            for name, element in item.items()
        )
    if hasattr(item, "tobytes") and hasattr(item, "getexif"):
        return _add_image(hasher, item)
    if hasattr(item, "__array__"):
        return _add_array_like(hasher, item, add_file, depth)
    return False


def _is_plain_buffer(item):
    """Return whether an item is a sequence of bytes; memory views of other numbers are for the encoder to judge."""
    if isinstance(item, memoryview):
        try:
            return item.format == "B" and item.ndim == 1 and item.c_contiguous
        except ValueError:
            # The view was released.
            return False
    return isinstance(item, (bytes, bytearray))


def _add_number(hasher, number):
    """Add a number with its type; NumPy's own types for Python's numbers, and subclasses of these, are the same."""
    value = number.item() if isinstance(number, np.generic) else number
    if value is None:
        hasher.update(b"none ")
        return True
    kind = next((base for base in (bool, int, float) if isinstance(value, base)), None)
    if kind is None:
        return False
    is_usual = not isinstance(number, np.generic) or number.dtype == np.dtype(kind)
    try:
        # Subclasses may write themselves in another way.
        text = kind.__repr__(value)
        hasher.update(f"number {kind.__name__ if is_usual else number.dtype.str} {text} ".encode())
    except ValueError:
        # Python does not write integers of thousands of digits.
        return False
    return True


def _add_array(hasher, array, add_file, depth):
    hasher.update(f"array {array.dtype.str} {array.shape} ".encode())
    if np.ma.is_masked(array):
        hasher.update(b"mask " + np.ma.getmaskarray(array).tobytes())
    if array.dtype == object:
        return all(_add_content(hasher, element, add_file, depth + 1) for element in array.ravel().tolist())
    if array.dtype.hasobject:
        return False
    # As bytes: dates offer no buffer.
    hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return True


def _add_array_like(hasher, item, add_file, depth):
    """Add a tensor, a series or another object that converts itself to an array."""
    try:
        array = np.asarray(item.detach().cpu() if hasattr(item, "detach") else item)
    # Whatever its conversion raises is for the encoder to report.
    except Exception:
        return False
    return _add_array(hasher, array, add_file, depth + 1)


def _add_image(hasher, image):
    """Add a PIL image: its pixels, and the palette, transparency and orientation that decide how they look."""
    try:
        pixels = image.tobytes()
        palette = (image.palette.mode, image.getpalette(None)) if image.mode in ("P", "PA") else None
        appearance = palette, image.info.get("transparency"), image.getexif().get(0x0112)
    # An image that is decoded only now, and is damaged, is for the encoder to refuse.
    except Exception:
        return False
    hasher.update(f"image {image.size} {image.mode} {appearance!r} ".encode())
    hasher.update(pixels)
    return True


def file_signature(path):
    """Return what changes when a file is modified, as git sees it; None if there is no such file."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return None
        return os.path.abspath(os.fsdecode(path)), status.st_ino, status.st_size, status.st_mtime_ns
    except (OSError, ValueError):
        return None


def file_digests(signatures, store=None, whole=False):
    """Return the digests of files, read only if they are not remembered.

    Parameters
    ----------
    signatures : iterable of tuple or None
        From :func:`file_signature`.

    store : EmbeddingStore or None, default=None
        Remembers digests beyond this process.

    whole : bool, default=False
        Whether files of more than 256 MiB are read as well; else their signature stands for their content.

    Returns
    -------
    digests : list of bytes or None
        One for each signature; None for what is None, or cannot be read.
    """
    signatures = list(signatures)
    unknown = list(dict.fromkeys(s for s in signatures if s is not None and s not in _file_digests))
    if unknown and store is not None:
        stored = store.get_digests([_signature_key(signature) for signature in unknown])
        for signature, digest in zip(unknown, stored, strict=True):
            if digest is not None:
                _remember(signature, digest)
        unknown = [signature for signature, digest in zip(unknown, stored, strict=True) if digest is None]
    young, lasting = {}, {}
    for signature in unknown:
        digest, is_lasting = _hash_file(signature, whole)
        young[signature] = digest
        if is_lasting:
            _remember(signature, digest)
            lasting[_signature_key(signature)] = digest
    if lasting and store is not None:
        store.put_digests(list(lasting), list(lasting.values()))
    return [young.get(signature, _file_digests.get(signature)) for signature in signatures]


def _remember(signature, digest):
    if len(_file_digests) >= _MAX_FILES:
        _file_digests.clear()
    _file_digests[signature] = digest


def _signature_key(signature):
    # With the machine: elsewhere the same numbers may mean another file.
    return hashlib.blake2b(repr((platform.node(), signature)).encode(), digest_size=32, person=b"skmm file").digest()


def _hash_file(signature, whole):
    """Return the digest of a file, and whether it may be remembered."""
    path, _, size, modified = signature
    if size > _MAX_HASHED_BYTES and not whole:
        return _signature_key(signature), False
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None, False
    return digest, abs(time.time() - modified / 1e9) > _YOUNG_SECONDS and file_signature(path) == signature
