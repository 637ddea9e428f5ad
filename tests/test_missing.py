"""What counts as missing, for items, rows and cells."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from skmm._missing import is_missing_item, missing_rows
from skmm._moments import column_means, fill_missing


@pytest.mark.parametrize(
    "item",
    [None, np.nan, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), "", Path("")],
    ids=repr,
)
def test_missing_items(item):
    assert is_missing_item(item)


@pytest.mark.parametrize(
    "item",
    ["a", " ", 0, 0.0, False, b"", Path("a"), np.zeros(2), np.full(2, np.nan), [], (8000, np.zeros(3))],
    ids=repr,
)
def test_present_items(item):
    assert not is_missing_item(item)


COLUMN = ["a", None, "", "d"]
EXPECTED = [False, True, True, False]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(COLUMN),
        pd.Series(COLUMN, dtype=object),
        pd.Series(COLUMN, dtype="category"),
        pd.Series(COLUMN, dtype="string[pyarrow]"),
        pl.Series(COLUMN),
        np.array(COLUMN, dtype=object),
        np.array(COLUMN, dtype=object)[:, None],
        pd.DataFrame({"a": COLUMN}),
        pl.DataFrame({"a": COLUMN}),
    ],
    ids=lambda column: f"{type(column).__module__}-{type(column).__name__}-{getattr(column, 'dtype', '')}",
)
def test_rows_of_one_column(column):
    assert_array_equal(missing_rows(column), EXPECTED)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, lambda data: pd.DataFrame(data).to_numpy(dtype=object)])
def test_a_row_is_missing_if_all_of_its_columns_are(frame):
    data = {"a": [1.0, None, None, np.nan], "b": ["x", "", "z", None], "c": [None, None, None, None]}
    assert_array_equal(missing_rows(frame(data)), [False, True, False, True])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (np.array([1.0, np.nan]), [False, True]),
        (np.array([[1.0, np.nan], [np.nan, np.nan]], dtype=np.float32), [False, True]),
        (np.array([1, 0]), [False, False]),
        (np.full((2, 3, 3), np.nan), [False, False]),
        (sparse.csr_array(np.zeros((2, 3))), [False, False]),
        (pl.Series([1, None]), [False, True]),
        (pl.Series([1.0, float("nan"), None]), [False, True, True]),
        (pl.Series([b"x", None]), [False, True]),
        (pl.Series([[1, 2], None], dtype=pl.Array(pl.UInt8, 2)), [False, True]),
        (pd.Series([1, None], dtype="Int64"), [False, True]),
        (pd.Series([pd.Timestamp(0), None]), [False, True]),
        (pd.Series([True, None], dtype="boolean"), [False, True]),
    ],
    ids=str,
)
def test_rows_of_other_types(column, expected):
    assert_array_equal(missing_rows(column), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.1, -1e9 / 3, 1e-30, 0.0])
def test_mean_of_a_constant_column_is_its_value(value, dtype):
    X = np.full((9001, 2), value, dtype=dtype)
    X[:5000, 1] = np.nan
    assert_array_equal(column_means(X), X[-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_filling(dtype):
    X = np.array([[1, np.nan, np.nan], [3, 4, np.nan]], dtype=dtype)
    means = column_means(X)
    assert_array_equal(means, [2, 4, 0])
    filled = fill_missing(X, means)
    assert_array_equal(filled, [[1, 4, 0], [3, 4, 0]])
    assert filled.dtype == dtype
    assert np.isnan(X[0, 1])
    assert fill_missing(filled, means) is filled
