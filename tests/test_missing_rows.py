"""What counts as missing, for items, rows and cells."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from skmm import _columns
from skmm._columns import column_means, fill_missing, is_missing_item, missing_rows


@pytest.mark.parametrize(
    "item",
    [
        *(None, np.nan, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), "", Path("")),
        *({"bytes": None, "path": None}, {"path": ""}),
    ],
    ids=repr,
)
def test_missing_items(item):
    assert is_missing_item(item)


@pytest.mark.parametrize(
    "item",
    [
        "a",
        " ",
        0,
        0.0,
        False,
        b"",
        Path("a"),
        np.zeros(2),
        np.full(2, np.nan),
        [],
        {},
        (8000, np.zeros(3)),
        {"bytes": b"x"},
    ],
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


def random_columns(rng, n_rows, n_columns):
    """Columns of all kinds, in each of which some cells are missing; in some rows all are, as far as a kind can be."""
    kinds = {
        "float": lambda x: np.nan if x is None else float(x),
        "single": lambda x: np.float32(np.nan if x is None else x),
        "integer": lambda x: 0 if x is None else x,
        "boolean": lambda x: bool(x),
        "text": lambda x: rng.choice(["", None]) if x is None else str(x),
        "bytes": lambda x: None if x is None else b"x",
        "time": lambda x: None if x is None else pd.Timestamp(x, unit="s"),
        "nullable": lambda x: x,
    }
    # Integers and booleans of NumPy are never missing, so that a frame with one has no missing row.
    names = [*kinds] if rng.random() < 0.2 else [name for name in kinds if name not in ("integer", "boolean")]
    gone = rng.random(n_rows) < rng.choice([0, 0.1, 0.6])
    columns = {}
    for i in range(n_columns):
        kind = rng.choice(names)
        missing = gone | (rng.random(n_rows) < rng.choice([0, 0.3, 0.9]))
        columns[f"{kind}{i}"] = [
            kinds[kind](None if lacks else int(x))
            for lacks, x in zip(missing, rng.integers(9, size=n_rows), strict=True)
        ]
    return columns


def as_pandas(columns):
    dtypes = {"single": np.float32, "integer": np.int64, "boolean": bool, "nullable": "Int64"}
    series = {}
    for name, values in columns.items():
        kind = name.rstrip("0123456789")
        series[name] = pd.Series(values, dtype=dtypes.get(kind, object if kind in ("text", "bytes") else None))
    return pd.DataFrame(series)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(
    "convert",
    [
        as_pandas,
        lambda columns: as_pandas(columns).convert_dtypes(),
        lambda columns: as_pandas(columns).to_numpy(dtype=object),
        lambda columns: pl.DataFrame(columns, strict=False),
        lambda columns: as_pandas(columns).select_dtypes("float"),
    ],
    ids=["pandas", "pandas nullable", "array", "polars", "floats"],
)
def test_rows_of_any_table_are_missing_if_each_item_is(convert, seed):
    rng = np.random.default_rng(seed)
    X = convert(random_columns(rng, n_rows=12, n_columns=rng.integers(1, 8)))
    expected = np.ones(12, dtype=bool)
    for j in range(X.shape[1]):
        column = X[:, j] if not hasattr(X, "iloc") else X.iloc[:, j]
        expected &= [is_missing_item(item) for item in column]
    assert_array_equal(missing_rows(X), expected)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_wide_frames_are_not_looked_at_column_by_column(frame, monkeypatch):
    X = np.random.default_rng(0).normal(size=(30, 1200))
    X[3] = np.nan
    calls = []
    original = _columns._missing_in_column
    monkeypatch.setattr(_columns, "_missing_in_column", lambda column: calls.append(1) or original(column))
    assert_array_equal(np.flatnonzero(missing_rows(frame(X))), [3])
    assert len(calls) < 5


def test_columns_of_one_name():
    X = pd.DataFrame([[1.0, np.nan], [np.nan, np.nan]], columns=["a", "a"])
    assert_array_equal(missing_rows(X), [False, True])


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
