"""Digests of what items contain, whatever form they come in."""

import hashlib
import os
from contextlib import suppress

import numpy as np

# Levels of containers within one another: a pair of a rate and frames as nested lists has five. A list may hold itself.
_DEEPEST = 10


# Numbers of a list that are written down at a time.
_NUMBERS_AT_ONCE = 4096


def content_key(item, strings_are_paths=True):
    """Give a hashable value that two items share only if they are the same content, or None.

    Parameters
    ----------
    item : object
        Item that is not missing.

    strings_are_paths : bool, default=True
        Whether a string names a file, as a path object of the same text does; else it is a text.

    Returns
    -------
    key : tuple or None
        Strings and paths stand for themselves, arrays and PIL images for their pixels, shape and type, buffers for
        their bytes; pairs such as (sampling rate, waveform), lists and dicts for what they hold. None says that
        nothing is known of the item's content.
    """
    if isinstance(item, str):
        return "path" if strings_are_paths else "text", item
    if isinstance(item, os.PathLike):
        return "path", os.fspath(item)
    if _is_plain_buffer(item):
        return "bytes", hashlib.sha256(item).digest()
    if isinstance(item, np.ndarray) and not item.dtype.hasobject:
        # As bytes: dates offer no buffer.
        digest = hashlib.sha256(item.tobytes()).digest()
        return "array", item.shape, item.dtype.str, digest
    if isinstance(item, (tuple, list, dict, np.ndarray)):
        hasher = hashlib.sha256()
        return ("parts", hasher.digest()) if _add_content(hasher, item, None) else None
    return _image_key(item)


def _is_plain_buffer(item):
    """Tell whether an item is bytes in a row, and nothing else; views of other numbers are for the encoder to judge."""
    if isinstance(item, memoryview):
        # A view that was released has no attributes.
        with suppress(ValueError):
            return item.format == "B" and item.ndim == 1 and item.c_contiguous
        return False
    return isinstance(item, (bytes, bytearray))


def _image_key(item):
    """Give what tells PIL images apart, None for what is none, or cannot be read."""
    if not (hasattr(item, "tobytes") and hasattr(item, "mode") and hasattr(item, "size")):
        return None
    try:
        pixels = hashlib.sha256(item.tobytes()).digest()
        # Kept beside the pixels, and yet they decide how these look: palette, transparency, orientation.
        palette = (item.palette.mode, item.getpalette(None)) if item.mode in ("P", "PA") else None
        looks = repr((palette, item.info.get("transparency"), item.getexif().get(0x0112)))
    # Not decoded before now, and damaged: that is for the encoder to refuse.
    except Exception:
        return None
    return "image", item.size, item.mode, looks, pixels


def text_digests(texts, context):
    """Give the digests of texts within a context of 32 bytes; None for what is no text, or not valid Unicode."""
    # These parameters are hashed with the first block of the text; a key would be a block of its own. Copies share
    # the work of reading them.
    empty = hashlib.blake2b(digest_size=32, salt=context[:16], person=context[16:]).copy
    digests = []
    for text in texts:
        try:
            # Of nothing but strings: other things have a method of that name as well.
            content = str.encode(text)
        except (TypeError, UnicodeEncodeError):
            digests.append(None)
            continue
        hasher = empty()
        hasher.update(content)
        digests.append(hasher.digest())
    return digests


def content_digest(item, context, files):
    """Give a digest of an item's content within a context, None if nothing is known of the content.

    Parameters
    ----------
    item : object
        Item that is not missing; strings are paths.

    context : bytes of length 32
        What the digest depends on beside the content.

    files : FileDigests
        What knows the digests of files.

    Returns
    -------
    digest : bytes of length 32 or None
        Two items share it only if they are the same content in the same form.
    """
    hasher = hashlib.blake2b(digest_size=32, key=context)
    return hasher.digest() if _add_content(hasher, item, files) else None


def holds_files(item, depth=0):
    """Tell whether an item is a path, or holds one, so that its content may change on the disk."""
    if isinstance(item, (str, os.PathLike)):
        return True
    if isinstance(item, dict):
        parts = item.values()
    elif isinstance(item, (tuple, list)):
        parts = item
    elif isinstance(item, np.ndarray) and item.dtype == object:
        parts = item.ravel()
    else:
        return False
    return depth >= _DEEPEST or any(holds_files(part, depth + 1) for part in parts)


def _add_content(hasher, item, files, depth=0):
    """Add an item to a hash, each part with its type and length; tell whether its content is known.

    Without something that knows the digests of files, paths stand for themselves.
    """
    if depth > _DEEPEST:
        return False
    if isinstance(item, (str, os.PathLike)):
        return _add_file(hasher, item, files, is_part=depth > 0)
    if _is_plain_buffer(item):
        # As a part, an array may be made of what is no bytes.
        kind = "bytes" if depth == 0 or isinstance(item, bytes) else type(item).__name__
        hasher.update(f"{kind} {len(item)} ".encode())
        hasher.update(item)
        return True
    if isinstance(item, (bool, int, float, np.number, np.bool_)):
        return _add_number(hasher, item)
    if isinstance(item, np.ndarray):
        hasher.update(f"array {item.dtype.str} {item.shape} ".encode())
        if item.dtype == object:
            return all(_add_content(hasher, part, files, depth + 1) for part in item.ravel())
        if item.dtype.hasobject:
            return False
        # As bytes: dates offer no buffer.
        hasher.update(np.ascontiguousarray(item).reshape(-1).view(np.uint8))
        return True
    if isinstance(item, (tuple, list)):
        # Only a tuple is a pair for all encoders. Stores knew tuples by this name before lists had one of their own.
        kind = "list" if isinstance(item, tuple) else "sequence"
        hasher.update(f"{kind} {len(item)} ".encode())
        if set(map(type, item)) == {float}:
            _add_floats(hasher, item)
            return True
        return all(_add_content(hasher, part, files, depth + 1) for part in item)
    if isinstance(item, dict):
        hasher.update(b"dict %d " % len(item))
        return all(
            isinstance(name, str)
            and _add_content(hasher, name.encode("utf-8", "surrogatepass"), files, depth + 1)
            and _add_content(hasher, part, files, depth + 1)
            for name, part in item.items()
        )
    if item is None:
        hasher.update(b"none ")
        return True
    key = _image_key(item)
    if key is None:
        return False
    hasher.update(repr(key).encode())
    return True


def _add_file(hasher, path, files, is_part):
    if files is None:
        hasher.update(f"path {os.fspath(path)!r} ".encode())
        return True
    (digest,) = files.of([path])
    if digest is None:
        # Beside the bytes of a file often stands the name that it had elsewhere.
        hasher.update(f"no file {os.fspath(path)!r} ".encode())
        return is_part and not os.path.exists(path)
    # Decoders may take a hint from the ending of the name.
    ending = os.path.splitext(os.fsdecode(path))[1].lower().encode("utf-8", "surrogateescape")
    hasher.update(b"file %d " % len(ending) + ending + digest)
    return True


def _add_number(hasher, number):
    """Add a number, with its type unless a list of Python's own numbers makes an array of that type."""
    value = number.item() if isinstance(number, np.generic) else number
    if isinstance(number, np.generic) and number.dtype != np.dtype(type(value)):
        hasher.update(f"scalar {number.dtype.str} ".encode())
    try:
        hasher.update(f"number {value!r} ".encode())
    except ValueError:
        # Integers of thousands of digits are not written down.
        return False
    return True


def _add_floats(hasher, numbers):
    """Do as ``_add_number`` for each item of a list of floats, faster."""
    for start in range(0, len(numbers), _NUMBERS_AT_ONCE):
        part = numbers[start : start + _NUMBERS_AT_ONCE]
        hasher.update("".join([f"number {number!r} " for number in part]).encode())
