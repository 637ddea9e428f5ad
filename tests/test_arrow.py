"""Tables and columns of pyarrow, wherever data frames and series go."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skmm import (
    ModalityFuser,
    ModalityStackingClassifier,
    ModalityVotingClassifier,
    MultimodalNetClassifier,
)
from skmm._columns import column_items, from_arrow, is_missing_item, missing_rows
from skmm.encoders import ImageDescriptor, TextEncoder
from skmm.fusion import CCAFusion
from skmm.inspection import missing_modality_curve, modality_contributions, modality_importance
from skmm.model_selection import compare_fusions

N = 40
RNG = np.random.default_rng(0)
Y = np.arange(N) % 2
PHOTOS = [None if i % 7 == 0 else photo for i, photo in enumerate(RNG.integers(256, size=(N, 4, 3)).astype(np.uint8))]
FRAME = pd.DataFrame(
    {
        "price": np.where(RNG.random(N) < 0.2, np.nan, Y + RNG.normal(size=N)),
        "place": RNG.choice(["farm", "city"], size=N),
        "photo": PHOTOS,
    }
)
TABLE = pa.table(
    {
        "price": pa.array(FRAME["price"], from_pandas=True),
        "place": pa.array(FRAME["place"].tolist()).dictionary_encode(),
        "photo": pa.array([None if p is None else p.tolist() for p in PHOTOS], pa.list_(pa.list_(pa.uint8()))),
    }
)


def modalities(finish=make_pipeline):
    return [
        ("price", finish(StandardScaler()), ["price"]),
        ("place", finish(OneHotEncoder(sparse_output=False)), ["place"]),
        ("photo", finish(ImageDescriptor("pixels", size=(8, 8))), "photo"),
    ]


def finish(*steps):
    return make_pipeline(*steps, LogisticRegression())


ESTIMATORS = {
    "fuser": make_pipeline(ModalityFuser(modalities()), LogisticRegression()),
    "voter": ModalityVotingClassifier(modalities(finish)),
    "stacker": ModalityStackingClassifier(modalities(finish), cv=3, passthrough=ModalityFuser(modalities())),
    "network": MultimodalNetClassifier(modalities(), width=4, max_epochs=1, random_state=0),
}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_composites_take_a_table_as_the_frame_of_the_same_cells(kind):
    estimator = ESTIMATORS[kind]
    fitted = estimator.fit(TABLE, Y)
    # Columns are found by name in either.
    for X in (TABLE, TABLE.select(["photo", "place", "price"]), FRAME):
        assert_allclose(fitted.predict_proba(X), estimator.fit(FRAME, Y).predict_proba(FRAME), rtol=1e-6)
    assert_allclose(
        cross_val_predict(estimator, TABLE, Y, cv=3, method="predict_proba"),
        cross_val_predict(estimator, FRAME, Y, cv=3, method="predict_proba"),
        rtol=1e-6,
    )


@pytest.mark.slow
def test_inspection_takes_a_table():
    fitted = ESTIMATORS["voter"].fit(FRAME, Y)
    for X in (FRAME, TABLE):
        results = (
            modality_importance(fitted, X, Y, random_state=0).importances_mean,
            modality_importance(fitted, X, Y, method="permutation", random_state=0).importances_mean,
            missing_modality_curve(fitted, X, Y, n_repeats=2, random_state=0).scores,
            modality_contributions(fitted, X).contributions,
        )
        if X is FRAME:
            expected = results
    for result, of_frame in zip(results, expected, strict=True):
        assert_allclose(np.asarray(result), np.asarray(of_frame))


def test_compare_fusions_takes_a_table_and_a_column_as_target():
    scores = [
        compare_fusions(
            LogisticRegression(), X, y, modalities=modalities(), levels=("single", "feature"), cv=3, random_state=0
        ).to_frame()
        for X, y in ((FRAME, Y), (TABLE, pa.chunked_array([Y])))
    ]
    assert_array_equal(scores[0]["mean"], scores[1]["mean"])


@pytest.mark.parametrize(
    "column",
    [
        TABLE.select(["photo"]),
        TABLE["photo"],
        TABLE["photo"].combine_chunks(),
        TABLE.select(["photo"]).to_batches()[0],
        pa.chunked_array([TABLE["photo"].combine_chunks()[:9], TABLE["photo"].combine_chunks()[9:]]),
    ],
    ids=["table", "column", "array", "batch", "chunks"],
)
def test_encoders_take_one_column(column):
    descriptor = ImageDescriptor("pixels", size=(8, 8))
    assert_array_equal(descriptor.fit_transform(column), descriptor.fit_transform(FRAME["photo"]))
    assert_array_equal(descriptor.transform(column), descriptor.transform(FRAME["photo"]))


def test_an_encoder_knows_the_name_of_its_column(tiny_text_model):
    encoder = TextEncoder(tiny_text_model).fit(TABLE.select(["place"]))
    assert encoder.feature_names_in_.tolist() == ["place"]
    with pytest.raises(ValueError, match="fitted on column 'place' and got column 'photo'"):
        encoder.transform(TABLE.select(["photo"]))
    with pytest.raises(ValueError, match="encodes one column of items, got 3 columns"):
        encoder.transform(TABLE)


def test_joint_embeddings_take_a_table():
    names = ["a__0", "a__1", "b__0", "b__1"]
    X = RNG.normal(size=(N, 4))
    table = pa.table(dict(zip(names, X.T, strict=True)))
    fusion = CCAFusion(1, blocks="prefix").fit(table)
    assert_allclose(fusion.transform(table), fusion.transform(table.to_pandas()))
    fuser = ModalityFuser([("a", "passthrough", names[:2]), ("b", "passthrough", names[2:])], CCAFusion(1)).fit(table)
    expected = fuser.transform_modality(table.to_pandas(), "a")
    assert_allclose(fuser.transform_modality(table, "a"), expected)


def test_a_table_is_read_as_it_stands():
    """The metadata of pandas names columns that were an index; they are columns of a table nevertheless."""
    table = pa.Table.from_pandas(pd.DataFrame({"a": [1.0, 2.0]}, index=pd.Index(["x", "y"], name="key")))
    assert from_arrow(table).columns.tolist() == ["a", "key"]
    with pytest.raises(ValueError, match=r"Found 0 sample\(s\) in the data frame"):
        ModalityFuser([("a", "passthrough", ["a"])]).fit(table[:0])


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view", pa.binary(1)])
def test_bytes_stay_in_the_memory_of_arrow(kind):
    column = from_arrow(pa.table({"a": pa.array([b"x", None], kind)}))["a"]
    assert isinstance(column.dtype, pd.ArrowDtype)
    assert column_items(column, "Encoder")[0] == b"x"
    assert_array_equal(missing_rows(column), [False, True])


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_strings_of_all_kinds(kind):
    column = from_arrow(pa.array(["x", None], kind))
    assert [None if is_missing_item(item) else item for item in column_items(column, "Encoder")] == ["x", None]
    assert_array_equal(missing_rows(column), [False, True])


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
@pytest.mark.parametrize("container", ["Arrow", "chunks", "pandas", "polars"])
@pytest.mark.parametrize(
    "cells",
    [
        [[1, 2, 3], None, [4], [], [5, 6]],
        [[1, None], [2, 3]],
        [None, None],
        [[], []],
        [[2]],
    ],
    ids=str,
)
def test_lists_of_numbers_are_arrays(cells, container, kind):
    """Whatever the container, also where it is a slice of a longer one, or in chunks."""
    whole = pa.array([[9], *cells, [8]], kind(pa.int32()))
    column = whole[1:-1]
    column = {
        "Arrow": column,
        "chunks": pa.chunked_array([column[:1], column[1:]]),
        "pandas": pd.Series(whole, dtype=pd.ArrowDtype(whole.type))[1:-1],
        "polars": pl.from_arrow(whole)[1:-1],
    }[container]
    items = column_items(column, "Encoder")
    assert len(items) == len(cells)
    for item, cell in zip(items, cells, strict=True):
        if cell is None:
            assert is_missing_item(item)
        else:
            assert item.tolist() == cell
            assert item.dtype == (object if None in cell else np.int32)


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ns", "Europe/Rome"), pa.date32(), pa.duration("s")])
def test_times_of_arrow_in_a_pandas_frame(kind):
    times = pd.Series(pa.array([None, *range(86_400, 86_430)], pa.int32()).cast(pa.int64()).to_pandas())
    column = pa.array(times, from_pandas=True).cast(pa.int64())
    column = column.cast(pa.int32()).cast(kind) if kind == pa.date32() else column.cast(kind)
    X = pd.DataFrame({"size": np.linspace(0, 1, 31), "time": pd.Series(pd.arrays.ArrowExtensionArray(column))})
    fuser = ModalityFuser().fit(X)
    assert np.isfinite(fuser.transform(X)).all()
    assert X.dtypes["time"] == pd.ArrowDtype(kind)
