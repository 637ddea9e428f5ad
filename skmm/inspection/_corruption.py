"""Ways to spoil the items of a modality without taking them away."""

import narwhals.stable.v2 as nw
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from .._missing import is_missing_item

# Default strengths; missing_modality_curve says what they mean.
STRENGTHS = {"noise": 1.0, "blur": 0.05, "drop_words": 0.5}
_CHANNELS = (1, 3, 4)


def corrupt(part, corruption, strength, rng):
    """Spoil all present items of a modality.

    Parameters
    ----------
    part : DataFrame or ndarray of shape (n_samples, n_columns)
        Columns of the modality.

    corruption : {"noise", "blur", "drop_words"} or callable
        What to do; a callable gets an item and the random state, and gives an item.

    strength : float or None
        How much of it; None means the default.

    rng : RandomState instance
        Source of the noise.

    Returns
    -------
    part : DataFrame or ndarray of shape (n_samples, n_columns)
        A new table.
    """
    if callable(corruption):
        return _each_column(part, lambda items: [corruption(item, rng) for item in items])
    strength = STRENGTHS[corruption] if strength is None else strength
    if corruption == "noise":
        numbers = _as_numbers(part)
        if numbers is not None:
            scale = strength * np.nanstd(numbers, axis=0, dtype=np.float64)
            return _like(part, numbers + (rng.normal(size=numbers.shape) * scale).astype(numbers.dtype))
        return _each_column(part, lambda items: _add_noise(items, strength, rng))
    if corruption == "blur":
        return _each_column(part, lambda items: [_blur(item, strength) for item in items])
    return _each_column(part, lambda items: [_drop_words(item, strength, rng) for item in items])


def _as_numbers(part):
    """Give a matrix of floats if all columns are numbers, else None."""
    if isinstance(part, np.ndarray):
        return part.astype(np.result_type(part, np.float32)) if part.dtype.kind in "iuf" else None
    frame = nw.from_native(part, eager_only=True)
    if not all(dtype.is_numeric() for dtype in frame.schema.values()):
        return None
    return frame.select(nw.all().cast(nw.Float64)).to_numpy()


def _like(part, numbers):
    """Give a matrix as a table of the kind of ``part``."""
    if isinstance(part, np.ndarray):
        return numbers
    if nw.dependencies.is_polars_dataframe(part):
        return part.with_columns(
            [type(column)(column.name, values) for column, values in zip(part.get_columns(), numbers.T, strict=True)]
        )
    return type(part)(numbers, index=part.index, columns=part.columns)


def _each_column(part, change):
    """Change the present items of each column."""
    if isinstance(part, np.ndarray):
        changed = np.empty(part.shape, dtype=object)
        for position in range(part.shape[1]):
            _fill(changed[:, position], _changed(part[:, position], change))
        return changed.astype(np.float64) if part.dtype.kind in "iuf" else changed
    if nw.dependencies.is_polars_dataframe(part):
        columns = []
        for column in part.get_columns():
            items = [item.tolist() if isinstance(item, np.ndarray) else item for item in _changed(column, change)]
            dtype = None if column.dtype.is_numeric() else column.dtype
            columns.append(type(column)(column.name, items, dtype=dtype))
        return part.with_columns(columns)
    changed = part.copy()
    for position in range(part.shape[1]):
        column = part.iloc[:, position]
        items = np.empty(len(part), dtype=object)
        _fill(items, _changed(column, change))
        new = type(column)(items, index=part.index, dtype=object)
        changed.isetitem(position, new.infer_objects() if column.dtype.kind in "iuf" else new)
    return changed


def _fill(cells, items):
    # One by one, for arrays of one shape would be taken for one large array.
    for row, item in enumerate(items):
        cells[row] = item


def _changed(column, change):
    """Give the items of a column as a list, the present ones changed."""
    items = list(column)
    present = [row for row, item in enumerate(items) if not is_missing_item(item)]
    for row, item in zip(present, change([items[row] for row in present]), strict=True):
        items[row] = item
    return items


def _open(item, what):
    """Give the array inside an item, and the function that puts another one there."""
    if isinstance(item, Image.Image):
        image = item.convert("RGB") if item.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB") else item
        return np.asarray(image), lambda array: array
    if isinstance(item, dict) and "array" in item:
        array, close = _open(item["array"], what)
        return array, lambda changed: {**item, "array": close(changed)}
    if isinstance(item, tuple) and len(item) == 2 and np.isscalar(item[0]):
        array, close = _open(item[1], what)
        return array, lambda changed: (item[0], close(changed))
    array = np.asarray(item)
    if isinstance(item, (str, bytes)) or array.dtype.kind not in "biuf" or not array.ndim:
        raise ValueError(
            f"corruption={what!r} works on {'numbers, ' if what == 'noise' else ''}arrays and PIL images, got "
            f"{type(item).__name__}; pass a callable that takes an item and a random state and gives an item."
        )
    return array, lambda changed: changed


def _add_noise(items, strength, rng):
    opened = [_open(item, "noise") for item in items]
    arrays = [array for array, _ in opened]
    if not arrays:
        return []
    scale = strength * np.sqrt(np.mean([array.var(dtype=np.float64) for array in arrays]))
    # Floats have no bounds of their own, but images and sounds keep to theirs.
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
            "and a random state and gives an item."
        )
    words = item.split()
    if not words:
        return item
    kept = rng.uniform(size=len(words)) >= strength
    # An empty text would be a missing one.
    kept[rng.randint(len(words))] |= not kept.any()
    return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)
