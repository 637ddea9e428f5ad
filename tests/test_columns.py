"""Columns of modalities: how they are selected, found again by name, and passed through as numbers."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import Bunch

from skmm import ModalityFuser, ModalityStackingClassifier, ModalityVotingClassifier, MultimodalNetClassifier
from skmm._columns import check_table
from skmm._composition import dense_block

COLUMNS = {
    "boolean": pd.array([True, None, False], dtype="boolean"),
    "bool[pyarrow]": pd.array([True, None, False], dtype="bool[pyarrow]"),
    "objects with NA": pd.Series([1, pd.NA, 0], dtype=object),
    "objects with None": pd.Series([True, None, False], dtype=object),
    "Int64": pd.array([1, None, 0], dtype="Int64"),
    "int64[pyarrow]": pd.array([1, None, 0], dtype="int64[pyarrow]"),
    "Float32": pd.array([1, None, 0], dtype="Float32"),
    "Float64": pd.array([1, None, 0], dtype="Float64"),
    "double[pyarrow]": pd.array([1, None, 0], dtype="double[pyarrow]"),
    "float": np.array([1, np.nan, 0]),
    "text of numbers": pd.Series(["1", "", "0"], dtype=object),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("beside", [None, "float", "boolean", "Int64"])
def test_missing_cells_of_any_kind_pass_through_as_nan(kind, beside):
    X = pd.DataFrame({"x": COLUMNS[kind]} | ({} if beside is None else {"y": COLUMNS[beside]}))
    assert_array_equal(dense_block(X, "table"), np.column_stack([[1, np.nan, 0]] * X.shape[1]))
    fuser = ModalityFuser([("table", "passthrough", slice(0, None))])
    assert_allclose(fuser.fit_transform(X), fuser.fit_transform(X.astype(object).to_numpy()))


@pytest.mark.parametrize("kind", ["int64", "uint8", "float", "double", "bool", pa.decimal128(22, 2)], ids=str)
@pytest.mark.parametrize("convert", [lambda table: table, pl.from_arrow], ids=["Arrow", "polars"])
def test_null_cells_of_arrow_and_polars_pass_through_as_nan(kind, convert):
    X = convert(pa.table({"x": pa.array([1, None, 0]).cast(kind), "y": [1.0, None, 3.0]}))
    fuser = ModalityFuser([("x", "passthrough", ["x"]), ("y", "passthrough", ["y"])]).fit(X)
    blocks = fuser._transform_modalities(check_table(fuser, X), {"x": Bunch(transform={}), "y": Bunch(transform={})})
    assert_array_equal(blocks, [[1, 1], [np.nan, np.nan], [0, 3]])


@pytest.mark.parametrize("kind", ["pandas", "polars", "array"])
def test_a_column_that_holds_no_numbers_is_named(kind):
    X = pd.DataFrame({"price": [1.0, 2.0, 3.0], "place": ["farm", None, "city"]})
    X = {"pandas": X, "polars": pl.from_pandas(X), "array": X.to_numpy(dtype=object)}[kind]
    column = "1" if kind == "array" else "'place'"
    with pytest.raises(ValueError, match=rf"Modality 'table': column {column} holds 'farm', which is not a number"):
        ModalityFuser([("table", "passthrough", [0, 1])]).fit(X)


def composites(columns):
    """Composites of all kinds with one modality."""
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    return {
        "fuser": ModalityFuser([("table", StandardScaler(), columns)]),
        "voter": ModalityVotingClassifier([("table", tree, columns)]),
        "stacker": ModalityStackingClassifier([("table", tree, columns)], cv=2, passthrough=True),
        "network": MultimodalNetClassifier(
            [("table", StandardScaler(), columns)], width=4, max_epochs=1, random_state=0
        ),
    }


per_kind = pytest.mark.parametrize("kind", composites([0]))


@per_kind
@pytest.mark.parametrize(
    ("labels", "columns"), [([10, 20], [10]), ([("g", "a"), ("g", "b")], ["g"]), (["a", "b"], ["c"])]
)
def test_labels_that_cannot_be_selected_name_the_modality_and_the_columns(kind, labels, columns):
    X = pd.DataFrame(np.ones((4, 2)), columns=labels)
    with pytest.raises(ValueError, match=r"Modality 'table': columns=.* X has the ") as caught:
        composites(columns)[kind].fit(X, [0, 1, 0, 1])
    assert str(labels) in str(caught.value)
    assert ("by position" in str(caught.value)) == (labels != ["a", "b"])


@per_kind
def test_columns_of_other_labels_are_selected_by_position(kind):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    frame = pd.DataFrame(X, columns=pd.MultiIndex.from_tuples([("g", "a"), ("g", "b"), ("h", "a")]))
    expected = composites([0, 2])[kind].fit(X, y).transform(X)
    for labels in (frame.columns, [7, 8, 9]):
        assert_allclose(composites([0, 2])[kind].fit(frame.set_axis(labels, axis=1), y).transform(frame), expected)


@per_kind
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_are_found_by_name_wherever_they_stand(kind, library):
    rng = np.random.default_rng(0)
    X, y = pd.DataFrame(rng.normal(size=(40, 3)), columns=list("abc")), np.arange(40) % 2
    convert = pl.from_pandas if library == "polars" else pd.DataFrame
    fitted = composites(["c", "a"])[kind].fit(convert(X), y)
    expected = fitted.transform(convert(X))
    for names in ("cba", "ca", "ac"):
        assert_array_equal(fitted.transform(convert(X[list(names)])), expected)
    assert_array_equal(fitted.transform(convert(X.assign(d=1)[list("dacb")])), expected)


@per_kind
def test_a_missing_column_says_how_to_add_it(kind):
    X, y = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=list("ab")), np.arange(40) % 2
    fitted = composites(["a", "b"])[kind].fit(X, y)
    message = r"Modality 'table': columns are missing in X: \['b'\]; X has the columns \['a', 'c'\].*add .* with None"
    with pytest.raises(ValueError, match=message):
        fitted.transform(X.rename(columns={"b": "c"}))


def test_messages_about_wide_frames_are_short():
    X = pd.DataFrame(np.ones((3, 1000)), columns=[f"a_rather_long_name_{i}" for i in range(1000)])
    fuser = ModalityFuser([("table", "passthrough", list(X.columns))]).fit(X)
    with pytest.raises(ValueError, match="and 980 more") as caught:
        fuser.transform(X.set_axis([f"b{i}" for i in range(1000)], axis=1))
    assert len(str(caught.value)) < 2000
    with pytest.raises(ValueError, match="and 980 more"):
        ModalityFuser([("table", "passthrough", ["price"])]).fit(X)


def test_a_frame_with_the_columns_of_fit_is_not_searched():
    """Nothing is compared by name, and no column is looked at twice, for one row of a wide frame."""
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 500)), columns=[f"x{i}" for i in range(500)])
    fuser = ModalityFuser([("table", make_pipeline(StandardScaler()), list(X.columns))]).fit(X)
    assert fuser._positions(X[:1], "table") is fuser._columns["table"][0]
    assert fuser._positions(X[:1].assign(more=1), "table") is fuser._columns["table"][0]
    assert fuser._positions(X[:1][X.columns[::-1]], "table") == list(range(499, -1, -1))
