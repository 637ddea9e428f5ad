"""Items: the forms in which a column of them may arrive, what tells two of them apart, and how to name one."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress

import narwhals.stable.v2 as nw
import numpy as np


def column_items(X, owner, rows_are_items=False):
    """Give the items of a column as a sequence, whatever container holds them.

    Parameters
    ----------
    X : Series, DataFrame with one column, array-like or sequence
        The column. An array with more than two dimensions holds one item per entry of its first.

    owner : str
        Who asks, for the error messages.

    rows_are_items : bool, default=False
        Whether each row of a numeric array with two dimensions is an item.

    Returns
    -------
    items : sequence of length n_samples
        Items; arrays for nested numeric columns.

    Raises
    ------
    ValueError
        If there is more than one column, or no row.
    """
    if nw.dependencies.is_into_dataframe(X):
        frame = nw.from_native(X, eager_only=True)
        if frame.shape[1] != 1:
            raise ValueError(
                f"{owner} encodes one column of items, got {frame.shape[1]} columns: {frame.columns[:5]}; "
                "give each column a modality of its own."
            )
        X = frame[:, 0].to_native()
    if nw.dependencies.is_into_series(X):
        items = _series_items(nw.from_native(X, series_only=True))
    elif isinstance(X, np.ndarray):
        if X.ndim == 0:
            raise ValueError(f"{owner} encodes a column of items, got a single {X.dtype} value; wrap it in a list.")
        if X.ndim == 2 and X.shape[1] != 1 and not (rows_are_items and X.dtype.kind in "iuf"):
            raise ValueError(
                f"{owner} encodes one column of items, got an array of shape {X.shape}; "
                "select one column, or pass an array with one item per entry of its first dimension."
            )
        items = X[:, 0] if X.ndim == 2 and X.shape[1] == 1 else X
    elif isinstance(X, Sequence) and not isinstance(X, (str, bytes)):
        items = X
    else:
        raise ValueError(
            f"{owner} encodes a column of items (series, one-column data frame, array or list), "
            f"got {type(X).__name__}; make a list of it, or wrap a single item in one."
        )
    if len(items) == 0:
        raise ValueError(f"{owner} got 0 items, while a minimum of 1 is required.")
    return items


def _series_items(series):
    """Items of a narwhals series, nested numeric entries as arrays, nulls as None."""
    if isinstance(series.dtype, (nw.Array, nw.List)):
        items = np.full(len(series), None, dtype=object)
        present = np.flatnonzero(~series.is_null().to_numpy())
        if isinstance(series.dtype, nw.Array):
            values = series.drop_nulls().to_numpy() if len(present) else ()
        else:
            dtype = _number_type(series.dtype)
            values = (_nested_array(value, dtype) for value in series.drop_nulls().to_list())
        for row, value in zip(present, values, strict=True):
            items[row] = value
        return items
    return series.to_list()


def _number_type(dtype):
    """Give numpy's type for the numbers in a nested column, None if they are none that numpy knows."""
    while isinstance(dtype, (nw.Array, nw.List)):
        dtype = dtype.inner
    try:
        return np.dtype(str(dtype).lower()) if dtype.is_integer() or dtype.is_float() else None
    except TypeError:
        return None


def _nested_array(values, dtype):
    """Turn a list of lists into an array; a ragged one becomes an array of objects, for the encoder to judge."""
    for kind in (dtype, None, object):
        # Integers with a null between them fit no integer type.
        with suppress(ValueError, TypeError):
            return np.asarray(values, dtype=kind)
    return values


def describe_item(item):
    """Give a short text that lets a reader find an item: the string or path itself, else its shape."""
    if isinstance(item, (str, os.PathLike)):
        text = repr(os.fspath(item))
        return text if len(text) <= 120 else text[:117] + "..."
    if isinstance(item, (bytes, bytearray)):
        return f"{len(item)} bytes"
    if isinstance(item, np.ndarray):
        return f"array of shape {item.shape} and dtype {item.dtype}"
    if isinstance(item, tuple) and len(item) == 2:
        return f"pair of {describe_item(item[0])} and {describe_item(item[1])}"
    if np.isscalar(item):
        return f"{type(item).__name__} {item!r}"
    return f"{type(item).__module__}.{type(item).__name__} object"


def content_key(item):
    """Give a hashable value that two items share only if they are the same content, or None.

    Strings and paths stand for themselves, arrays and PIL images for their pixels, shape and type; pairs such
    as (sampling rate, waveform) for what they hold. None says that nothing is known of the item's content.
    """
    if isinstance(item, (str, bytes)):
        return type(item).__name__, item
    if isinstance(item, os.PathLike):
        return "path", os.fspath(item)
    if isinstance(item, np.ndarray) and item.dtype != object:
        # As bytes: dates offer no buffer.
        digest = hashlib.sha256(item.tobytes()).digest()
        return "array", item.shape, item.dtype.str, digest
    if isinstance(item, tuple) and len(item) == 2:
        parts = [("number", part) if isinstance(part, (int, float)) else content_key(part) for part in item]
        return None if None in parts else ("pair", *parts)
    if hasattr(item, "tobytes") and hasattr(item, "mode") and hasattr(item, "size"):
        try:
            pixels = hashlib.sha256(item.tobytes()).digest()
            # Kept beside the pixels, and yet they decide how these look: palette, transparency, orientation.
            palette = (item.palette.mode, item.getpalette(None)) if item.mode in ("P", "PA") else None
            looks = repr((palette, item.info.get("transparency"), item.getexif().get(0x0112)))
        # Not decoded before now, and damaged: that is for the encoder to refuse.
        except Exception:
            return None
        return "image", item.size, item.mode, looks, pixels
    return None


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


def holds_files(item):
    """Tell whether an item is a path, or holds one, so that its content may change on the disk."""
    if isinstance(item, dict):
        return any(map(holds_files, item.values()))
    if isinstance(item, (tuple, list)):
        return any(map(holds_files, item))
    return isinstance(item, (str, os.PathLike))


def _add_content(hasher, item, files):
    """Add an item to a hash, each part with its type and length; tell whether its content is known."""
    if isinstance(item, (str, os.PathLike)):
        (digest,) = files.of([item])
        # Decoders may take a hint from the ending of the name.
        ending = os.path.splitext(os.fsdecode(item))[1].lower().encode("utf-8", "surrogateescape")
        hasher.update(b"file %d " % len(ending) + ending + (digest or b""))
        return digest is not None
    if isinstance(item, (bytes, bytearray)):
        hasher.update(b"bytes %d " % len(item))
        hasher.update(item)
        return True
    if isinstance(item, (bool, int, float, np.number, np.bool_)):
        value = item.item() if isinstance(item, np.generic) else item
        hasher.update(f"number {value!r} ".encode())
        return True
    if isinstance(item, np.ndarray):
        hasher.update(f"array {item.dtype.str} {item.shape} ".encode())
        if item.dtype == object:
            return all(_add_content(hasher, part, files) for part in item.ravel())
        if item.dtype.hasobject:
            return False
        # As bytes: dates offer no buffer.
        hasher.update(np.ascontiguousarray(item).reshape(-1).view(np.uint8))
        return True
    if isinstance(item, (tuple, list)):
        hasher.update(b"list %d " % len(item))
        return all(_add_content(hasher, part, files) for part in item)
    if isinstance(item, dict):
        hasher.update(b"dict %d " % len(item))
        return all(
            isinstance(name, str) and _add_content(hasher, name.encode(), files) and _add_content(hasher, part, files)
            for name, part in item.items()
        )
    key = content_key(item)
    if key is None:
        return False
    hasher.update(repr(key).encode())
    return True
