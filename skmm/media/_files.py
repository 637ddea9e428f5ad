"""Items that are files: paths, bytes, or dicts of the `datasets` library that hold either."""

import io
import os
import re
import stat
from collections.abc import Mapping
from numbers import Real

import numpy as np

from .._columns import is_missing_item, shorten
from ..exceptions import RejectedItem, first_line

# Longest name of one file in most file systems; a longer string is rather the content of a file.
_LONGEST_NAME = 255

# Of any scheme: https, s3, file, ...
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)

_ENCODED_FILE = "if it holds the file itself in base64, decode it first, with base64.b64decode"


def is_file(item):
    """Return whether an item is a path or the bytes of a file."""
    return isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview))


def unwrap_file(item):
    """Return the file that a dict with "bytes" or "path" holds; None if it holds none, other items as they are."""
    if not isinstance(item, Mapping):
        return item
    for content in (item.get("bytes"), item.get("path")):
        if isinstance(content, os.PathLike) or (is_file(content) and len(content)):
            return content
    return None


def locate_file(item, root=None):
    """Return an item as its decoder reads it, whatever stands beside the file or sound that it holds.

    A dict with "bytes" or "path" becomes these bytes, or else this path; one with "array" becomes that and its rate. A
    relative path becomes one below ``root``, also in a list of images and in a pair of a frame rate and such a list.
    """
    if isinstance(item, Mapping):
        if item.get("array") is not None and "sampling_rate" in item:
            return {name: item[name] for name in ("sampling_rate", "array")}
        file = unwrap_file(item)
        return item if file is None else locate_file(file, root)
    if isinstance(item, (str, os.PathLike)):
        path = os.fsdecode(item)
        if root is None or is_missing_item(item) or _URL.match(path) or path[:5].lower() == "data:":
            return item
        return os.path.join(os.fspath(root), path)
    if isinstance(item, np.ndarray) and item.ndim == 1 and item.dtype.kind in "OU":
        item = item.tolist()
    # A list of numbers is a waveform.
    if isinstance(item, (list, tuple)) and (len(item) == 2 or not any(isinstance(x, Real) for x in item[:1])):
        return type(item)(locate_file(element, root) for element in item) if type(item) in (list, tuple) else item
    return item


def describe_keys(item):
    """Return the keys of a dict as a short text, for the messages."""
    return shorten(str(sorted(map(str, item))))


def open_file(item, kind):
    """Open the path of a regular file, or its bytes, for reading; the caller closes it.

    Raise RejectedItem if this is impossible; ``kind`` says what is expected, for its text: "an image file".
    """
    if not isinstance(item, (str, os.PathLike)):
        if len(item) == 0:
            raise RejectedItem(f"no bytes at all, expected those of {kind}")
        # Copied: BytesIO refuses views of memory that are not contiguous.
        return io.BytesIO(bytes(item))
    if isinstance(item, str):
        _check_string(item, kind)
    try:
        status = os.stat(item)
        # To open a pipe or a device could wait for ever.
        if not stat.S_ISREG(status.st_mode):
            actual = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise RejectedItem(f"this is {actual}, pass the path of {kind}")
        if status.st_size == 0:
            raise RejectedItem("the file is empty (0 bytes)")
        return open(item, "rb")
    except FileNotFoundError:
        folder = "" if os.path.isabs(item) else f" (looked for in {os.getcwd()})"
        raise RejectedItem(f"the file does not exist{folder}") from None
    except PermissionError:
        raise RejectedItem("no permission to read the file") from None
    except RejectedItem:
        raise
    # A ValueError here means a null character in the path.
    except (OSError, ValueError) as error:
        raise RejectedItem(f"this cannot be opened as a path ({reason_of(error)})") from error


def _check_string(item, kind):
    """Raise if a string cannot be meant as the path of a file."""
    if _URL.match(item):
        raise RejectedItem("this is a URL and nothing is fetched; pass the path of a file, downloaded if necessary")
    if item[:5].lower() == "data:":
        raise RejectedItem(f"this is a data URL, pass the path or the bytes of {kind}; {_ENCODED_FILE}")
    if len(item) > _LONGEST_NAME and not os.path.exists(item):
        raise RejectedItem(f"a string of {len(item):,} characters that is no path of a file; {_ENCODED_FILE}")


def reason_of(error):
    """Return what an error says, shortened and without the name of the file."""
    return shorten(getattr(error, "strerror", None) or first_line(error))
