"""Columns of vectors, such as embeddings, that pass through as one column for each of their elements."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import (
    ModalityFuser,
    ModalityStackingClassifier,
    ModalityVotingClassifier,
    MultimodalNetClassifier,
    get_trusted_types,
)
from skmm._columns import from_arrow, missing_rows
from skmm._composition import NumberColumns
from skmm._sklearn import safe_indexing
from skmm.model_selection import compare_fusions

N = 30
VECTORS = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
MISSING = [2, 7]
CELLS = [None if row in MISSING else vector.tolist() for row, vector in enumerate(VECTORS)]
PRICE = np.arange(N, dtype=float)
EXPECTED = np.where(np.isin(np.arange(N), MISSING)[:, None], np.nan, VECTORS)

FIXED = pa.array(CELLS, pa.list_(pa.float32(), 3))
LISTS = pa.array(CELLS, pa.list_(pa.float32()))
FRAMES = {
    "Table of fixed lists": pa.table({"vector": FIXED, "price": PRICE}),
    "Table of lists": pa.table({"vector": LISTS, "price": PRICE}),
    "pandas of fixed lists": pd.DataFrame(
        {"vector": pd.Series(FIXED, dtype=pd.ArrowDtype(FIXED.type)), "price": PRICE}
    ),
    "pandas of lists": pd.DataFrame({"vector": pd.Series(LISTS, dtype=pd.ArrowDtype(LISTS.type)), "price": PRICE}),
    "pandas objects": pd.DataFrame(
        {"vector": [None if row in MISSING else vector for row, vector in enumerate(VECTORS)], "price": PRICE}
    ),
    "pandas lists": pd.DataFrame({"vector": CELLS, "price": PRICE}),
    "polars arrays": pl.DataFrame({"vector": pl.Series(CELLS, dtype=pl.Array(pl.Float32, 3)), "price": PRICE}),
    "polars lists": pl.DataFrame({"vector": pl.Series(CELLS, dtype=pl.List(pl.Float32)), "price": PRICE}),
}
per_kind = pytest.mark.parametrize("kind", FRAMES)


@per_kind
def test_vectors_become_columns(kind):
    X = from_arrow(FRAMES[kind])
    columns = NumberColumns().fit(X)
    assert_array_equal(columns.transform(X), np.column_stack([EXPECTED, PRICE]))
    assert list(columns.get_feature_names_out()) == ["vector_0", "vector_1", "vector_2", "price"]
    alone = NumberColumns().fit(X[["vector"]])
    # Lists of Python's numbers have no dtype.
    assert alone.transform(X[["vector"]]).dtype == (np.float64 if kind == "pandas lists" else np.float32)
    # A column by itself, and cells of an array of objects.
    assert_array_equal(NumberColumns().fit(X["vector"]).transform(X["vector"]), EXPECTED)
    cells = np.empty((N, 2), dtype=object)
    cells[:, 0], cells[:, 1] = CELLS, PRICE
    assert_array_equal(NumberColumns().fit(cells).transform(cells), np.column_stack([EXPECTED, PRICE]))


def composites(kind):
    triples = [("block", "passthrough", ["vector", "price"]), ("price", "passthrough", ["price"])]
    if kind == "fuser":
        return make_pipeline(ModalityFuser(triples), LogisticRegression())
    if kind == "network":
        return MultimodalNetClassifier(triples, width=4, max_epochs=1, random_state=0)
    member = make_pipeline(ModalityFuser(triples), LogisticRegression())
    if kind == "voter":
        return ModalityVotingClassifier([("all", member, ["vector", "price"])])
    stacked = [("price", LogisticRegression(), ["price"])]
    return ModalityStackingClassifier(stacked, passthrough=ModalityFuser(triples[:1]), cv=2)


@per_kind
@pytest.mark.parametrize("composite", ["fuser", "network", "voter", "stacker"])
def test_composites(kind, composite):
    X, y = FRAMES[kind], np.arange(N) % 2
    plain = pd.DataFrame({f"v{i}": EXPECTED[:, i] for i in range(3)} | {"price": PRICE})
    ours = composites(composite).fit(X, y)
    # One row without a vector has all columns all the same.
    rows = safe_indexing(X, MISSING[:1])
    assert_allclose(ours.predict_proba(rows), ours.predict_proba(X)[MISSING[:1]], rtol=1e-5)
    if composite == "fuser":
        triples = [("block", "passthrough", slice(0, None)), ("price", "passthrough", ["price"])]
        expected = make_pipeline(ModalityFuser(triples), LogisticRegression()).fit(plain, y)
        assert_allclose(ours.predict_proba(X), expected.predict_proba(plain), rtol=1e-5)
        names = [*(f"block__vector_{i}" for i in range(3)), "block__price", "price__price"]
        assert list(ours[0].get_feature_names_out()) == names
        assert ours[0].blocks_ == {"block": slice(0, 4), "price": slice(4, 5)}


def test_rows_without_any_vector_are_missing():
    X = FRAMES["polars arrays"]
    fuser = ModalityFuser([("a", "passthrough", "vector"), ("b", "passthrough", ["price"])], fusion="average")
    assert np.isfinite(fuser.fit_transform(X)).all()
    assert_array_equal(missing_rows(X.select("vector")), np.isin(np.arange(N), MISSING))


def test_comparisons_take_vectors():
    X, y = FRAMES["pandas objects"], np.arange(N) % 2
    results = [
        compare_fusions(
            LogisticRegression(),
            X,
            y,
            modalities=[("vector", "passthrough", columns), ("price", "passthrough", ["price"])],
            levels=("single", "feature"),
            cv=2,
            random_state=0,
        ).to_frame()
        for columns in ("vector", ["vector"])
    ]
    assert results[0]["n_failed"].eq(0).all() if "n_failed" in results[0] else results[0]["mean"].notna().all()
    assert_array_equal(results[0]["mean"], results[1]["mean"])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([1.0, 2.0], r"its shape is \(2,\), while fit saw vectors of 3 numbers"),
        (1.0, r"its shape is \(\), while fit saw vectors of 3 numbers"),
        (["a", "b", "c"], "no vector of numbers"),
        ([[1.0], [2.0, 3.0]], "no vector of numbers"),
    ],
)
def test_a_wrong_vector_is_named_by_its_row(cell, message):
    X = FRAMES["pandas lists"].copy()
    fuser = ModalityFuser([("block", "passthrough", ["vector"])]).fit(X)
    X["vector"] = [cell if row == 9 else value for row, value in enumerate(X["vector"])]
    with pytest.raises(
        ValueError, match=r"modality 'block', column 'vector': row 9: .*" + message + ".*set it to None"
    ):
        fuser.transform(X)
    with pytest.raises(ValueError, match="row 9"):
        fuser.fit(X)


@per_kind
def test_an_estimator_that_takes_no_vectors_says_what_does(kind):
    X, y = FRAMES[kind], np.arange(N) % 2
    with pytest.raises(ValueError, match="array element with a sequence") as caught:
        ModalityVotingClassifier([("block", LogisticRegression(), ["vector"])]).fit(X, y)
    assert any("(name, 'passthrough', columns)" in note for note in caught.value.__notes__)
    member = make_pipeline(ModalityFuser([("vector", "passthrough", ["vector"])]), LogisticRegression())
    voter = ModalityVotingClassifier([("block", member, ["vector"])]).fit(X, y)
    with pytest.warns(UserWarning, match="2 of 30 rows have no modality"):
        assert_allclose(voter.predict_proba(X)[MISSING], [[0.5, 0.5]] * 2)


def test_a_column_without_numbers_beside_vectors_is_named():
    X = FRAMES["pandas lists"].assign(place="farm")
    with pytest.raises(ValueError, match=r"Modality 'block': column 'place' holds 'farm', which is not a number"):
        ModalityFuser([("block", "passthrough", ["vector", "place"])]).fit(X)


def test_other_lists_are_no_numbers():
    for cells in ([["a"], ["b"]], [[[1.0]], [[2.0]]], [[], ["b"]]):
        X = pd.DataFrame({"tags": cells})
        with pytest.raises(ValueError, match=r"Modality '\w+': column 'tags' holds .*, which is not a number|row 1"):
            ModalityFuser([("tags", "passthrough", ["tags"])]).fit(X)


def test_a_fitted_fuser_is_saved():
    X = FRAMES["polars arrays"]
    fuser = ModalityFuser([("block", "passthrough", ["vector", "price"])]).fit(X)
    assert_array_equal(pickle.loads(pickle.dumps(fuser)).transform(X), fuser.transform(X))
    skops = pytest.importorskip("skops.io")
    loaded = skops.loads(skops.dumps(fuser), trusted=get_trusted_types())
    assert_array_equal(loaded.transform(X), fuser.transform(X))
