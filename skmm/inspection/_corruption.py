"""Corruptions of the items of a modality: noise, blur, dropped words, or a function of the user."""

import narwhals.stable.v2 as nw
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from .._columns import is_missing_item

# Default strengths, in the units that missing_modality_curve documents.
STRENGTHS = {"noise": 1.0, "blur": 0.05, "drop_words": 0.5}
_CHANNELS = (1, 3, 4)


def corrupt(table, corruption, strength, rng):
    """Return the columns of a modality with all present items corrupted.

    A callable takes an item and a random state and returns an item. A strength of None is the corruption's default.
    """
    if callable(corruption):
        return _each_column(table, lambda items: [corruption(item, rng) for item in items])
    strength = STRENGTHS[corruption] if strength is None else strength
    if corruption == "noise":
        numbers = _as_numbers(table)
        if numbers is not None:
            scale = strength * np.nanstd(numbers, axis=0, dtype=np.float64)
            return _like(table, numbers + (rng.normal(size=numbers.shape) * scale).astype(numbers.dtype))
        return _each_column(table, lambda items: _add_noise(items, strength, rng))
    if corruption == "blur":
        return _each_column(table, lambda items: [_blur(item, strength) for item in items])
    return _each_column(table, lambda items: [_drop_words(item, strength, rng) for item in items])


def _as_numbers(table):
    """Return the columns as a matrix of floats; None if some are not numbers."""
    if isinstance(table, np.ndarray) and table.dtype.kind in "iuf":
        return table.astype(np.result_type(table, np.float32))
    if not nw.dependencies.is_polars_dataframe(table):
        import pandas as pd

        # Columns of objects may hold nothing but numbers, as in an array of dtype object.
        table = pd.DataFrame(table).infer_objects()
    frame = nw.from_native(table, eager_only=True)
    if not all(dtype.is_numeric() for dtype in frame.schema.values()):
        return None
    return frame.select(nw.all().cast(nw.Float64)).to_numpy()


def _like(table, numbers):
    """Return a matrix as a table of the same kind as ``table``."""
    if isinstance(table, np.ndarray):
        return numbers
    if nw.dependencies.is_polars_dataframe(table):
        return table.with_columns(
            [type(column)(column.name, values) for column, values in zip(table.get_columns(), numbers.T, strict=True)]
        )
    return type(table)(numbers, index=table.index, columns=table.columns)


def _each_column(table, change):
    """Return the table with ``change`` applied to the list of present items of each column."""
    if isinstance(table, np.ndarray):
        import pandas as pd

        changed = _each_column(pd.DataFrame(table), change)
        return changed.to_numpy(dtype=float if table.dtype.kind in "iuf" else object)
    if nw.dependencies.is_polars_dataframe(table):
        columns = []
        for column in table.get_columns():
            items = [item.tolist() if isinstance(item, np.ndarray) else item for item in _changed(column, change)]
            dtype = None if column.dtype.is_numeric() else column.dtype
            columns.append(type(column)(column.name, items, dtype=dtype))
        return table.with_columns(columns)
    changed = table.copy()
    for position in range(table.shape[1]):
        column = table.iloc[:, position]
        items = np.empty(len(table), dtype=object)
        # One by one: NumPy would join arrays of equal shape to one large array.
        for row, item in enumerate(_changed(column, change)):
            items[row] = item
        new = type(column)(items, index=table.index, dtype=object)
        changed.isetitem(position, new.infer_objects() if column.dtype.kind in "iuf" else new)
    return changed


def _changed(column, change):
    """Return the items of a column as a list, with ``change`` applied to the present ones."""
    items = list(column)
    present = [row for row, item in enumerate(items) if not is_missing_item(item)]
    for row, item in zip(present, change([items[row] for row in present]), strict=True):
        items[row] = item
    return items


def _open(item, corruption):
    """Return the array inside an item, and a function that returns the item with another array."""
    if isinstance(item, Image.Image):
        image = item.convert("RGB") if item.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB") else item
        return np.asarray(image), lambda array: array
    if isinstance(item, dict) and "array" in item:
        array, close = _open(item["array"], corruption)
        return array, lambda changed: {**item, "array": close(changed)}
    if isinstance(item, tuple) and len(item) == 2 and np.isscalar(item[0]):
        array, close = _open(item[1], corruption)
        return array, lambda changed: (item[0], close(changed))
    array = np.asarray(item)
    if isinstance(item, (str, bytes)) or array.dtype.kind not in "biuf" or not array.ndim:
        raise ValueError(
            f"corruption={corruption!r} works on {'numbers, ' if corruption == 'noise' else ''}arrays and PIL images, "
            f"got {type(item).__name__}; pass a callable that takes an item and a random state and returns an item."
        )
    return array, lambda changed: changed


def _add_noise(items, strength, rng):
    opened = [_open(item, "noise") for item in items]
    arrays = [array for array, _ in opened]
    if not arrays:
        return []
    scale = strength * np.sqrt(np.mean([array.var(dtype=np.float64) for array in arrays]))
    # Floats may have any value, but those of images and sounds stay within their range.
    low, high = min(array.min() for array in arrays), max(array.max() for array in arrays)
    noisy = []
    for array, close in opened:
        changed = array + rng.normal(scale=scale, size=array.shape)
        if array.dtype.kind in "iu":
            info = np.iinfo(array.dtype)
            changed = np.clip(np.rint(changed), info.min, info.max)
        else:
            changed = np.clip(changed, low, high)
        noisy.append(close(changed.astype(array.dtype)))
    return noisy


def _blur(item, strength):
    array, close = _open(item, "blur")
    if array.ndim == 2:
        axes = (0, 1)
    elif array.ndim == 3:
        axes = (0, 1) if array.shape[2] in _CHANNELS else (1, 2)
    elif array.ndim == 4 and array.shape[3] in _CHANNELS:
        axes = (1, 2)
    else:
        raise ValueError(f"corruption='blur' works on images and videos, got an array of shape {array.shape}.")
    sigma = strength * min(array.shape[axis] for axis in axes)
    blurred = gaussian_filter(array.astype(np.float64), sigma, axes=axes)
    return close((np.rint(blurred) if array.dtype.kind in "biu" else blurred).astype(array.dtype))


def _drop_words(item, strength, rng):
    if not isinstance(item, str):
        raise ValueError(
            f"corruption='drop_words' works on strings, got {type(item).__name__}; pass a callable that takes an item "
            "and a random state and returns an item."
        )
    words = item.split()
    if not words:
        return item
    remains = rng.uniform(size=len(words)) >= strength
    # At least one word remains, because an empty text is a missing one.
    remains[rng.randint(len(words))] |= not remains.any()
    return " ".join(word for word, remain in zip(words, remains, strict=True) if remain)
