"""The rows that a retriever searches: labels, items and classes."""

import warnings

import numpy as np
import pandas as pd

from .._columns import column_items, is_data_frame, shortened
from ._index import GrowingArray


def items_frame(X):
    """Return a table as a data frame of pandas, without a copy where it is one; columns of an array are x0, x1, ..."""
    if not is_data_frame(X):
        return pd.DataFrame(X, columns=[f"x{position}" for position in range(X.shape[1])], copy=False)
    if hasattr(X, "iloc"):
        return X
    columns = {}
    for name in X.columns:
        column = X[name]
        numeric = column.dtype.is_numeric() and not column.null_count()
        columns[name] = column.to_numpy() if numeric else pd.Series(list(column_items(column, name)), dtype=object)
    return pd.DataFrame(columns)


class Gallery:
    """Rows with labels, known by numbers: 0, 1, ... in the order in which they came.

    Parameters
    ----------
    labels : list
        Labels of the first rows.

    items : DataFrame or None
        Their items; None stores none.

    codes : ndarray of int or None
        Their classes, -1 for none.
    """

    def __init__(self, labels, items, codes):
        self.check_new(labels, {})
        self._labels = list(labels)
        self._number_of = {label: number for number, label in enumerate(labels)}
        self._is_present = GrowingArray(np.ones(len(labels), dtype=bool))
        self._chunks = None if items is None else [items]
        self._codes = None if codes is None else GrowingArray(codes)

    def __len__(self):
        return len(self._number_of)

    @property
    def numbers(self):
        """Numbers of the rows that have not been removed, in ascending order."""
        return np.flatnonzero(self._is_present.values)

    @property
    def next_number(self):
        """Number that the next row gets."""
        return len(self._labels)

    @property
    def has_items(self):
        """Whether items are stored."""
        return self._chunks is not None

    def labels(self, numbers):
        """Return the labels of rows."""
        return [self._labels[number] for number in numbers]

    def codes(self, numbers):
        """Return the classes of rows, -1 for none."""
        return self._codes.values[numbers]

    def check_new(self, labels, present=None):
        """Raise unless labels are unique, and no row has one of them."""
        present = self._number_of if present is None else present
        try:
            twice = len(set(labels)) < len(labels)
        except TypeError as error:
            raise TypeError(f"Labels of rows must be hashable, such as integers and strings ({error}).") from error
        if twice:
            repeated = pd.Index(labels)[pd.Index(labels).duplicated()].unique().tolist()
            raise ValueError(
                f"Labels of rows must be unique, got {shortened(repeated, 5)} several times; use "
                "X.reset_index(drop=True), or pass labels to add."
            )
        known = [label for label in labels if label in present]
        if known:
            raise ValueError(
                f"There are rows with the labels {shortened(known, 5)} already; remove these first, or pass other "
                "labels to add."
            )

    def numbers_of(self, labels):
        """Return the numbers of rows; raise if there is no such label."""
        unknown = [label for label in labels if label not in self._number_of]
        if unknown:
            raise KeyError(f"There are no rows with the labels {shortened(unknown, 5)}.")
        return np.array([self._number_of[label] for label in labels], dtype=np.int64)

    def append(self, labels, items, codes):
        """Append rows, whose labels are new."""
        start = self.next_number
        self._number_of |= {label: start + i for i, label in enumerate(labels)}
        self._labels += labels
        self._is_present.append(np.ones(len(labels), dtype=bool))
        if self._codes is not None:
            self._codes.append(np.full(len(labels), -1) if codes is None else codes)
        if self._chunks is not None:
            self._chunks.append(items.reindex(columns=self._chunks[0].columns))
            # A chunk is at least twice as long as the next one, so that a row is copied few times.
            while len(self._chunks) > 1 and len(self._chunks[-2]) < 2 * len(self._chunks[-1]):
                last = self._chunks.pop()
                self._chunks[-1] = _concatenate([self._chunks[-1], last])

    def remove(self, numbers):
        """Remove rows."""
        for number in numbers:
            del self._number_of[self._labels[number]]
        self._is_present.values[numbers] = False

    def take(self, numbers):
        """Return the items of rows, numbered from 0."""
        numbers = np.asarray(numbers, dtype=np.int64)
        ends = np.cumsum([len(chunk) for chunk in self._chunks])
        starts = ends - [len(chunk) for chunk in self._chunks]
        places = np.searchsorted(ends, numbers, side="right")
        order, pieces = [], []
        for i, chunk in enumerate(self._chunks):
            rows = np.flatnonzero(places == i)
            if len(rows) or not i:
                order.append(rows)
                pieces.append(chunk.iloc[numbers[rows] - starts[i]])
        return _concatenate(pieces).iloc[np.argsort(np.concatenate(order))].reset_index(drop=True)

    def compact(self):
        """Forget removed rows if they are more than the others; return the new number of each old one, or None."""
        numbers = self.numbers
        if 2 * len(numbers) >= self.next_number:
            return None
        new_numbers = np.full(self.next_number, -1)
        new_numbers[numbers] = np.arange(len(numbers))
        if self._chunks is not None:
            self._chunks = [self.take(numbers)]
        if self._codes is not None:
            self._codes = GrowingArray(self.codes(numbers))
        self._labels = self.labels(numbers)
        self._number_of = {label: number for number, label in enumerate(self._labels)}
        self._is_present = GrowingArray(np.ones(len(numbers), dtype=bool))
        return new_numbers


def _concatenate(frames):
    """Return frames with the same columns one below the other."""
    if len(frames) == 1:
        return frames[0]
    with warnings.catch_warnings():
        # Columns that are all missing in one of the frames have no say in the type, in later versions of pandas.
        warnings.simplefilter("ignore", FutureWarning)
        return pd.concat(frames, ignore_index=True)
