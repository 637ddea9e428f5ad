"""Columns of modalities come out of any X and go back where they were."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skmm import ModalityFuser, ModalityVotingClassifier
from skmm._columns import missing_rows
from skmm.inspection._columns import ModalityColumns, blank, find_composite, mix, shuffle

N = 4
COLUMNS = {
    "int": [1, 2, 3, 4],
    "float": [0.5, 1.5, np.nan, 2.5],
    "text": ["a", "b", "c", "d"],
    "bool": [True, False, True, True],
    "item": [np.full((2, 2), i) for i in range(N)],
}
MODALITIES = {"image": "item", "numbers": ["float", "int"], "text": "text"}
ROWS = np.array([True, False, False, True])


def pandas_frame():
    return pd.DataFrame(COLUMNS, index=[7, 7, 3, 1])


def polars_frame():
    return pl.DataFrame({name: values for name, values in COLUMNS.items() if name != "item"}).with_columns(
        item=pl.Series(np.array(COLUMNS["item"]))
    )


def cells(table):
    """A list of columns, with None for what is missing and lists for arrays."""
    return {
        name: [
            None if missing_rows(np.array([cell, 0], dtype=object))[0] else np.array(cell).tolist()
            for cell in (table[name] if isinstance(table, pd.DataFrame) else table[name].to_list())
        ]
        for name in table.columns
    }


@pytest.mark.parametrize("make", [pandas_frame, polars_frame])
def test_frames(make):
    X = make()
    original = cells(X)
    columns = ModalityColumns(None, X, MODALITIES)
    assert columns.names == ["image", "numbers", "text"]
    assert columns.replace({}) is X
    same = columns.replace({name: columns.table(name) for name in columns.names})
    assert list(same.columns) == list(X.columns)
    assert cells(same) == original
    for name in columns.names:
        table = columns.table(name)
        blanked = mix(table, blank(table), ROWS)
        np.testing.assert_array_equal(missing_rows(blanked), ROWS)
        assert missing_rows(blank(table)).all()
        new = columns.replace({name: blanked})
        assert list(new.columns) == list(X.columns)
        changed = {column for column, values in cells(new).items() if values != original[column]}
        assert changed == set(np.atleast_1d(MODALITIES[name]).tolist())
        order = np.array([2, 0, 3, 1])
        shuffled = shuffle(table, order)
        assert cells(shuffled) == {column: [values[i] for i in order] for column, values in cells(table).items()}
        assert cells(mix(table, shuffled, ROWS)) == {
            column: [
                other if row else first for first, other, row in zip(values, cells(shuffled)[column], ROWS, strict=True)
            ]
            for column, values in cells(table).items()
        }
        if make is pandas_frame:
            assert new.index.tolist() == shuffled.index.tolist() == [7, 7, 3, 1]
    assert cells(X) == original


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, object])
def test_arrays(dtype):
    X = np.arange(12).reshape(4, 3).astype(dtype)
    columns = ModalityColumns(None, X, {"b": [2], "a": slice(0, 1)})
    blanked = columns.replace({"b": mix(columns.table("b"), blank(columns.table("b")), ROWS)})
    expected = X.astype(np.float32 if dtype == np.float32 else np.float64)
    expected[ROWS, 2] = np.nan
    np.testing.assert_array_equal(blanked.astype(expected.dtype), expected)
    assert blanked.dtype == {np.int64: np.float64}.get(dtype, dtype)
    np.testing.assert_array_equal(columns.replace({"a": shuffle(columns.table("a"), [3, 2, 1, 0])})[:, 0], [9, 6, 3, 0])
    assert X.dtype == dtype
    np.testing.assert_array_equal(X, np.arange(12).reshape(4, 3))


def test_arrays_of_strings():
    X = np.array([["a", "b"]] * 4)
    columns = ModalityColumns(None, X, {"text": 0})
    blanked = columns.replace({"text": mix(columns.table("text"), blank(columns.table("text")), ROWS)})
    np.testing.assert_array_equal(missing_rows(blanked[:, 0]), ROWS)
    assert blanked[:, 1].tolist() == ["b"] * 4


def frame(n=12):
    return pd.DataFrame({"n": np.arange(n, dtype=float), "text": ["cat", "dog", "hen", "cow"] * (n // 4), "z": 0})


FUSER = ModalityFuser([("t", TfidfVectorizer(), "text"), ("gone", "drop", ["z"]), ("n", "passthrough", ["n"])])
Y = np.arange(12) % 2


def wrapped():
    pipe = make_pipeline(FUSER, LogisticRegression())
    yield pipe
    yield make_pipeline("passthrough", *[step for _, step in pipe.steps])
    yield GridSearchCV(pipe, {"logisticregression__C": [1, 2]}, cv=2)
    yield CalibratedClassifierCV(pipe, cv=2)
    yield FrozenEstimator(make_pipeline(FUSER, LogisticRegression()).fit(frame(), Y))
    yield ModalityVotingClassifier(
        [("t", make_pipeline(TfidfVectorizer(), LogisticRegression()), "text"), ("n", LogisticRegression(), ["n"])]
    )


@pytest.mark.parametrize("estimator", list(wrapped()), ids=lambda estimator: type(estimator).__name__)
def test_modalities_of_the_estimator(estimator):
    X = frame()
    estimator.fit(X, Y)
    columns = ModalityColumns(estimator, X[["z", "text", "n"]], None)
    assert columns.positions == {"t": [1], "n": [2]}


def test_no_modalities_to_be_found():
    X = frame()
    for steps in ([LogisticRegression()], [FunctionTransformer(), FUSER, LogisticRegression()]):
        estimator = make_pipeline(*steps)
        assert find_composite(estimator) is None
        with pytest.raises(ValueError, match=r"Pipeline neither has modalities nor begins with .* pass modalities="):
            ModalityColumns(estimator, X, None)


@pytest.mark.parametrize("estimator", list(wrapped()), ids=lambda estimator: type(estimator).__name__)
def test_an_estimator_must_be_fitted(estimator):
    if isinstance(estimator, FrozenEstimator):
        # Its clone is itself.
        estimator = estimator.estimator
    with pytest.raises(NotFittedError):
        ModalityColumns(clone(estimator), frame(), None)


def test_bad_modalities():
    X = frame()
    with pytest.raises(ValueError, match="Modalities 'a' and 'b' share column 1 of X"):
        ModalityColumns(None, X, {"a": ["n", "text"], "b": "text"})
    with pytest.raises(ValueError, match=r"modalities must be a dict of names to columns of X, got \{\}"):
        ModalityColumns(None, X, {})
    with pytest.raises(ValueError, match="'a': columns='no' cannot be selected"):
        ModalityColumns(None, X, {"a": "no"})
    with pytest.raises(TypeError, match="pandas or polars"):
        ModalityColumns(None, pl.LazyFrame({"a": [1]}), {"a": "a"})
