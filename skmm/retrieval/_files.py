"""Retrievers in folders: the estimator as a bundle, arrays as NumPy's, labels and texts as JSON, and checksums."""

import copy
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from .._columns import is_missing_item
from .._warnings import warn
from ._gallery import Gallery
from ._index import ApproximateIndex, GrowingArray, make_index

_ESTIMATOR, _MANIFEST, _ARRAYS, _LABELS, _ITEMS = (
    "estimator",
    "manifest.json",
    "arrays.npz",
    "labels.json",
    "items.json",
)
_FORMAT = 1


def save_retriever(retriever, path, items):
    """Write a fitted retriever into a new folder."""
    from .._bundle import save_bundle

    folder = Path(path)
    if folder.exists():
        raise FileExistsError(f"save writes a new folder, and {os.fspath(folder)!r} exists; choose another.")
    if not isinstance(retriever.rerank, str | None):
        raise ValueError(
            f"save cannot write rerank={retriever.rerank!r}; use the name of a cross-encoder, or "
            "set_params(rerank=None) before, and set it again after load."
        )
    gallery = retriever._gallery
    numbers = gallery.numbers
    new_numbers = np.full(gallery.next_number + 1, -1)
    new_numbers[numbers] = np.arange(len(numbers))
    labels = gallery.labels(numbers)
    _check_labels(labels)
    arrays = {"codes": gallery.codes(numbers)} if hasattr(retriever, "classes_") else {}
    columns = _as_json(gallery.take(numbers), arrays) if items and gallery.has_items else None
    for name, index in retriever.indexes_.items():
        arrays[f"vectors/{name}"], arrays[f"keys/{name}"] = index._vectors(), index._keys()
        # The last of the new numbers, -1, is that of rows that are forgotten.
        arrays[f"rows/{name}"] = new_numbers[retriever._rows_of_key[name].values]
    estimator = copy.copy(retriever)
    estimator._gallery, estimator.indexes_, estimator._rows_of_key = None, {}, {}
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    try:
        save_bundle(unfinished / _ESTIMATOR, estimator)
        np.savez(unfinished / _ARRAYS, **arrays)
        (unfinished / _LABELS).write_text(json.dumps([_plain(label) for label in labels]), encoding="utf-8")
        (unfinished / _ITEMS).write_text(json.dumps(columns), encoding="utf-8")
        for i, index in enumerate(retriever.indexes_.values()):
            if isinstance(index, ApproximateIndex):
                (unfinished / _graph_file(i)).write_bytes(index.graph_bytes())
        files = [file.name for file in unfinished.iterdir() if file.is_file()]
        manifest = {"format": _FORMAT, "checksums": {name: _checksum(unfinished / name) for name in sorted(files)}}
        (unfinished / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def load_retriever(path, trusted):
    """Return the retriever of a folder; an approximate index whose file is damaged is built from the vectors."""
    from .._bundle import load_bundle

    folder = Path(path)
    if not (folder / _MANIFEST).is_file():
        raise FileNotFoundError(
            f"{os.fspath(folder)!r} holds no retriever: it has no file {_MANIFEST!r}; CrossModalRetriever.save writes "
            "one."
        )
    try:
        checksums = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["checksums"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"The file {_MANIFEST!r} of {os.fspath(folder)!r} is damaged ({error}).") from error
    for name in (_ARRAYS, _LABELS, _ITEMS):
        if not _is_sound(folder, name, checksums):
            raise ValueError(
                f"The file {name!r} of the retriever in {os.fspath(folder)!r} is damaged or missing; restore a copy, "
                "or fit and save again."
            )
    retriever = load_bundle(folder / _ESTIMATOR, trusted=trusted)
    with np.load(folder / _ARRAYS, allow_pickle=False) as stored:
        arrays = dict(stored)
    columns = json.loads((folder / _ITEMS).read_text(encoding="utf-8"))
    labels = json.loads((folder / _LABELS).read_text(encoding="utf-8"))
    retriever._gallery = Gallery(labels, None if columns is None else _from_json(columns, arrays), arrays.get("codes"))
    for i, name in enumerate(retriever.blocks_):
        index = make_index(retriever.index)
        vectors, keys, rows = (arrays[f"{kind}/{name}"] for kind in ("vectors", "keys", "rows"))
        graph = None
        if isinstance(index, ApproximateIndex):
            if _is_sound(folder, _graph_file(i), checksums):
                graph = (folder / _graph_file(i)).read_bytes()
            else:
                warn(
                    f"The file {_graph_file(i)!r} of the retriever in {os.fspath(folder)!r} is damaged or missing; the "
                    f"index of modality {name!r} is built again from its vectors."
                )
        retriever.indexes_[name] = index._restore(vectors, keys, len(rows), *([] if graph is None else [graph]))
        retriever._rows_of_key[name] = GrowingArray(rows)
    return retriever


def _graph_file(i):
    return f"graph-{i}.usearch"


def _checksum(file):
    """Return the SHA-256 of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_sound(folder, name, checksums):
    """Return whether a file exists and is as it was written."""
    return (folder / name).is_file() and _checksum(folder / name) == checksums.get(name)


def _plain(value):
    """Return a number of NumPy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def _check_labels(labels):
    """Raise unless labels survive JSON."""
    for label in labels:
        if not isinstance(_plain(label), str | int | float | bool):
            raise TypeError(
                f"save writes labels that are strings and numbers, got {label!r} of the type {type(label).__name__}; "
                "use reset_index() before fit, or strings."
            )


def _as_json(frame, arrays):
    """Return the columns of a frame for JSON, and put what is an array into ``arrays``."""
    columns = []
    for position, (name, column) in enumerate(frame.items()):
        if not isinstance(_plain(name), str | int):
            raise TypeError(f"save writes columns named by strings or integers, got {name!r}; rename it.")
        entry = {"name": _plain(name)}
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufmM":
            arrays[f"column/{position}"] = column.to_numpy()
        else:
            entry["dtype"] = str(column.dtype) if str(column.dtype) in ("object", "str", "string") else "object"
            entry["cells"] = [
                _cell(item, name, f"cell/{position}/{row}", arrays) for row, item in enumerate(column.tolist())
            ]
        columns.append(entry)
    return columns


def _cell(item, column, key, arrays):
    """Return one cell for JSON: an array as the name under which it is stored."""
    item = _plain(item)
    if isinstance(item, np.ndarray) and item.dtype.kind in "biuf":
        arrays[key] = item
        return {"array": key}
    if is_missing_item(item) and not isinstance(item, str):
        return None
    if isinstance(item, os.PathLike):
        return os.fspath(item)
    if isinstance(item, str | int | float | bool):
        return item
    raise TypeError(
        f"save writes items that are strings, paths, numbers, dates and arrays of numbers; column {column!r} holds "
        f"{type(item).__module__}.{type(item).__name__}. Pass items=False to leave the items out."
    )


def _from_json(columns, arrays):
    """Return the frame of columns that :func:`_as_json` returned."""
    series = []
    for position, entry in enumerate(columns):
        if "cells" not in entry:
            series.append(pd.Series(arrays[f"column/{position}"]))
            continue
        cells = np.empty(len(entry["cells"]), dtype=object)
        for row, cell in enumerate(entry["cells"]):
            cells[row] = arrays[cell["array"]] if isinstance(cell, dict) else cell
        series.append(pd.Series(cells, dtype=entry["dtype"]))
    frame = pd.concat(series, axis=1) if series else pd.DataFrame()
    return frame.set_axis([entry["name"] for entry in columns], axis=1)
