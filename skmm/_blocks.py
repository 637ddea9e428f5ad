"""Blocks: the columns of a matrix that belong to one modality."""

import reprlib

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse

from ._missing import is_missing_item
from ._validation import is_data_frame


def check_block_name(name):
    """Raise unless ``name`` can name a modality or block: a non-empty string without "__"."""
    if not isinstance(name, str) or not name or "__" in name:
        raise ValueError(f"Names of modalities and blocks are non-empty strings without '__', got {name!r}.")


def resolve_blocks(blocks, n_features, feature_names=None, *, owner, min_blocks=1):
    """Return the blocks of a matrix as closed slices, in the order of ``blocks``.

    Parameters
    ----------
    blocks : dict of str to slice, "prefix" or None
        The constructor parameter. None means one block of all columns; "prefix" reads the part of
        each column's name before the first "__".

    n_features : int
        Columns of the matrix.

    feature_names : array-like of str or None, default=None
        Names of the columns, needed for "prefix".

    owner : str
        Name of the estimator, for the error messages.

    min_blocks : int, default=1
        Fewest blocks that make sense to the estimator.

    Returns
    -------
    slices : dict of str to slice
        Disjoint slices that together cover all columns. The only block of ``blocks=None`` is named "".
    """
    if blocks is None:
        slices = {"": slice(0, n_features)}
    elif blocks == "prefix":
        slices = _blocks_from_prefixes(feature_names, owner)
    else:
        slices = {}
        for name, columns in blocks.items():
            check_block_name(name)
            if not isinstance(columns, slice) or columns.step not in (None, 1):
                raise ValueError(f"{owner}: blocks[{name!r}] must be a slice without a step, got {columns!r}.")
            start, stop, _ = columns.indices(n_features)
            if start >= stop:
                raise ValueError(
                    f"{owner}: block {name!r} selects no column: {columns!r}, while X has n_features = {n_features}."
                )
            slices[name] = slice(start, stop)
        end = 0
        for name, columns in sorted(slices.items(), key=lambda block: block[1].start):
            if columns.start != end:
                raise ValueError(
                    f"{owner}: blocks must cover each column exactly once, but {name!r} starts at column "
                    f"{columns.start} where {end} was expected."
                )
            end = columns.stop
        if end != n_features:
            raise ValueError(f"{owner}: blocks end at column {end}, while X has n_features = {n_features}.")
    if len(slices) < min_blocks:
        raise ValueError(
            f"{owner} needs at least {min_blocks} blocks (modalities), got {len(slices)}; use it as the fusion of a "
            "ModalityFuser with several modalities, or pass blocks={'a': slice(0, k), 'b': slice(k, None)}."
        )
    return slices


def _blocks_from_prefixes(feature_names, owner):
    if feature_names is None:
        raise ValueError(f"{owner}: blocks='prefix' needs a data frame with string column names, got an array.")
    slices = {}
    for position, feature in enumerate(feature_names):
        name, separator, _ = feature.partition("__")
        if not separator:
            raise ValueError(f"{owner}: blocks='prefix' needs names such as 'text__0', got {feature!r}.")
        if name not in slices:
            slices[name] = slice(position, position + 1)
        elif slices[name].stop == position:
            slices[name] = slice(slices[name].start, position + 1)
        else:
            raise ValueError(
                f"{owner}: blocks='prefix' needs contiguous columns, but {name!r} comes back at {feature!r}."
            )
    return slices


def dense_block(output, name, max_bytes=2**31):
    """Turn what a modality's transformer returned into a dense 2-D float array.

    float32 stays float32, everything else becomes float64. A sparse output is densified while the
    result stays under ``max_bytes`` (2 GiB by default).
    """
    if sparse.issparse(output):
        size = output.shape[0] * output.shape[1] * max(output.dtype.itemsize, 4)
        if size > max_bytes:
            raise ValueError(
                f"Modality {name!r}: its sparse output of shape {output.shape} would take {size / 2**30:.1f} GiB "
                f"as a dense block, the bound is {max_bytes / 2**30:.0f} GiB; reduce it first, "
                "for example with TruncatedSVD."
            )
        output = output.toarray()
    labels = None
    if is_data_frame(output):
        labels = list(output.columns)
        output = nw.from_native(output, eager_only=True).to_numpy()
    output = np.asarray(output)
    if output.ndim != 2:
        raise ValueError(
            f"Modality {name!r}: its transformer must return a 2-D matrix, got an array of shape {output.shape}."
        )
    if output.dtype.kind in "mM":
        raise ValueError(f"Modality {name!r} holds dates or times, not numbers; give it a transformer.")
    if np.iscomplexobj(output):
        raise ValueError(f"Complex data not supported: modality {name!r} holds complex numbers.")
    if output.dtype == np.float32:
        return output
    try:
        return output.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        # Cells that NumPy cannot convert: missing ones of other kinds than None, or no numbers.
        labels = range(output.shape[1]) if labels is None else labels
        return np.column_stack([_column_of_floats(*column, name) for column in zip(output.T, labels, strict=True)])


def _column_of_floats(column, label, name):
    """Return a column of objects as float64, NaN where a cell is missing; raise at the first that is no number."""
    values = np.full(len(column), np.nan)
    for row, cell in enumerate(column):
        if not is_missing_item(cell):
            try:
                values[row] = cell
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"Modality {name!r}: column {label!r} holds {reprlib.repr(cell)}, which is not a number ({error}); "
                    "give the modality an encoder or a transformer."
                ) from error
    return values
