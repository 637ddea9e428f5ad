"""Batches of rows of tables on disk."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import SGDRegressor

from skmm import CCAFusion, ConcatFusion
from skmm.datasets import iter_batches

N_ROWS = 250


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(N_ROWS, 2))
    text, image = (shared @ rng.normal(size=(2, p)) + 0.3 * rng.normal(size=(N_ROWS, p)) for p in (4, 3))
    return text.astype(np.float32), image.astype(np.float32), shared[:, 0]


@pytest.fixture
def folder(views, tmp_path):
    """Parts with two columns of vectors, in some rows missing, and a target."""
    text, image, y = views
    for start in range(0, N_ROWS, 100):
        rows = slice(start, start + 100)
        columns = {}
        for name, block in {"text": text, "image": image}.items():
            values = pa.array(block[rows].ravel())
            missing = np.zeros(len(block[rows]), dtype=bool)
            missing[3] = name == "image"
            kind = pa.list_(pa.float32(), block.shape[1])
            columns[name] = pa.FixedSizeListArray.from_arrays(values, type=kind, mask=pa.array(missing))
        columns["y"] = y[rows]
        pq.write_table(pa.table(columns), tmp_path / f"part-{start:06d}.parquet")
    return tmp_path


@pytest.mark.parametrize("batch_rows", [1, 33, 100, 1000])
def test_batches_are_the_rows_in_order(batch_rows, views, folder):
    text, image, y = views
    batches = list(iter_batches(folder, batch_rows=batch_rows))
    assert max(map(len, batches)) == min(batch_rows, 100)
    X = pd.concat(batches)
    assert list(X) == [*(f"text__{i}" for i in range(4)), *(f"image__{i}" for i in range(3)), "y"]
    assert_array_equal(X.iloc[:, :4], text)
    is_missing = np.arange(N_ROWS) % 100 == 3
    assert_array_equal(X.iloc[~is_missing, 4:7], image[~is_missing])
    assert X.iloc[is_missing, 4:7].isna().all(axis=None)
    assert_array_equal(X["y"], y)


def test_fusion_and_learner_beyond_memory(views, folder):
    cca = CCAFusion(2, regularization=0.1, blocks="prefix")
    for X in iter_batches(folder, ["text", "image"], batch_rows=60):
        cca.partial_fit(X)
    complete = pd.concat(iter_batches(folder, ["text", "image"]))
    expected = CCAFusion(2, regularization=0.1, blocks="prefix").fit(complete)
    assert_allclose(np.abs(cca.transform(complete)), np.abs(expected.transform(complete)), rtol=1e-4, atol=1e-4)
    concat, learner = ConcatFusion(blocks="prefix").fit(complete), SGDRegressor(random_state=0)
    for _ in range(5):
        for X in iter_batches(folder, batch_rows=60):
            y = X.pop("y")
            learner.partial_fit(concat.transform(X), y)
    assert learner.score(concat.transform(complete), views[2]) > 0.8


def test_columns_that_are_missing(folder):
    # At once, not when the first batch is asked for.
    with pytest.raises(ValueError, match=r"has no columns \['video'\]; it has \['text', 'image', 'y'\]"):
        iter_batches(folder, ["text", "video"])
