"""Lists of images in one cell: each image is encoded by itself, and their rows are pooled."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from skmm import EmbeddingStore, ModalityFuser, ModalityVotingClassifier
from skmm.encoders import ImageDescriptor, ImageEncoder, TunedEncoder

IMAGES = np.random.default_rng(0).integers(256, size=(6, 24, 32, 3), dtype=np.uint8)
A, B, C, D, E, F = IMAGES
CELLS = [[A, B, C], D, None, [], [E], (A, None, F), [None]]
MEMBERS = [[A, B, C], [D], [], [], [E], [A, F], []]


class Counting(nn.Module):
    """Mean colours, and the number of images that were seen."""

    def __init__(self):
        super().__init__()
        self.n_seen = 0

    def forward(self, x):
        self.n_seen += len(x)
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def encoder(**options):
    return ImageEncoder(Counting().eval(), preprocess={"input_size": (3, 24, 32)}, cache_key="colours", **options)


ENCODERS = {"network": encoder, "descriptor": lambda **options: ImageDescriptor("pixels", size=(24, 32), **options)}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_list_is_the_mean_or_maximum_of_its_images(kind, pooling):
    pool = {"mean": np.mean, "max": np.max}[pooling]
    make = ENCODERS[kind]
    single = make().fit(IMAGES)
    expected = [
        pool(single.transform(members), axis=0) if members else np.full(single.n_features_out_, np.nan)
        for members in MEMBERS
    ]
    rows = make(pooling=pooling).fit_transform(CELLS)
    assert rows.dtype == np.float32
    assert_allclose(rows, expected, rtol=1e-6)
    assert_array_equal(make(pooling=pooling).fit(CELLS).transform(CELLS), rows)
    # A list of one is the image, to the bit.
    assert_array_equal(rows[[1, 4]], single.transform([D, E]))


def test_pooled_rows_are_of_unit_length_if_asked_for():
    rows = encoder(normalize=True).fit_transform([[A, B], C])
    units = encoder(normalize=True).fit_transform([A, B, C])
    assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert_allclose(rows[0], (units[0] + units[1]) / np.linalg.norm(units[0] + units[1]), rtol=1e-5)
    assert_allclose(rows[1], units[2], rtol=1e-6)


def test_each_image_is_encoded_once_and_stored_by_itself(tmp_path):
    store = EmbeddingStore(tmp_path)
    mean = encoder(store=store).fit([A])
    mean.model.n_seen = 0
    mean.transform([[A, B], [B, C], A, [A, A]])
    assert mean.model.n_seen == 3
    assert store.info()["entries"] == 3
    # Another pooling, and images alone, read the same rows.
    maximum = encoder(store=store, pooling="max").fit([A])
    assert_array_equal(maximum.transform([[A, B]])[0], mean.transform([A, B]).max(axis=0))
    assert maximum.model.n_seen <= 1
    assert store.info()["entries"] == 3


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_bad_image_follows_on_error(kind):
    bad = b"no image"
    cells = [A, [B, bad, None, C], [bad], bad]
    with pytest.raises(ValueError, match=r"row 1: 8 bytes: item 1 of a list: the content is not an image"):
        ENCODERS[kind]().fit_transform(cells)
    ours = ENCODERS[kind](on_error="missing")
    with pytest.warns(UserWarning, match="3 of 7 items could not be encoded"):
        rows = ours.fit_transform(cells)
    assert_allclose(rows[:2], ours.transform([A, [B, C]]))
    assert np.isnan(rows[2:]).all()
    found = [(error.row, error.reason.partition(":")[0]) for error in ours.errors_]
    assert found == [(1, "item 1 of a list"), (2, "item 0 of a list"), (3, found[2][1])]
    assert [(e.row, e.reason) for e in ours.find_errors(cells)] == [(e.row, e.reason) for e in ours.errors_]


def paths(folder):
    names = []
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f"{number}.png")
        names.append(f"{number}.png")
    return names


@pytest.mark.parametrize(
    "column",
    [
        lambda cells: pd.Series(cells),
        lambda cells: pd.Series([None if cell is None else np.array(cell, dtype=object) for cell in cells]),
        lambda cells: pl.Series(cells),
        lambda cells: pa.array(cells),
        lambda cells: pa.array([cell and [{"bytes": None, "path": path} for path in cell] for cell in cells]),
        lambda cells: pl.Series([cell and [{"bytes": None, "path": path} for path in cell] for cell in cells]),
    ],
    ids=["lists", "arrays of objects", "polars", "Arrow", "Arrow of dicts", "polars of dicts"],
)
def test_lists_of_paths_in_columns_of_any_library(column, tmp_path):
    names = paths(tmp_path)
    cells = [names[:3], None, names[3:4], [], names[4:]]
    expected = encoder().fit_transform([IMAGES[:3], None, [D], [], [E, F]])
    assert_array_equal(encoder(root=tmp_path).fit_transform(column(cells)), expected)


@pytest.mark.parametrize("member", [encoder(), ENCODERS["descriptor"]()])
def test_steps_behind_the_encoder_never_see_an_empty_list(member):
    X = pd.DataFrame({"photos": [[A, B], [], [C], D, None, [E, F], [B, F]], "x": np.arange(7.0)})
    fuser = ModalityFuser(
        [("photos", make_pipeline(member, PCA(2)), "photos"), ("x", "passthrough", ["x"])], fusion="concat"
    )
    assert np.isfinite(fuser.fit_transform(X)).all()
    X_pooled = make_pipeline(member, PCA(2)).fit_transform([[A, B], [C], D, [E, F], [B, F]])
    present = [0, 2, 3, 5, 6]
    blocks = fuser.transform(X)[present, :2]
    assert_allclose(np.abs(np.corrcoef(blocks.T, X_pooled.T)[[0, 1], [2, 3]]), 1, rtol=1e-4)
    vote = ModalityVotingClassifier([("photos", make_pipeline(member, LogisticRegression()), "photos")])
    vote.fit(X, [0, 0, 1, 0, 1, 1, 0])
    with pytest.warns(UserWarning, match="no modality"):
        assert_allclose(vote.predict_proba(X)[[1, 4]], [[4 / 7, 3 / 7]] * 2)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("store", ["auto", None])
def test_a_column_of_nothing_but_empty_lists(kind, store):
    ours = ENCODERS[kind](store=store)
    assert np.isnan(ours.fit_transform([[], [None]])).all()
    assert ours.transform([[], []]).shape == (2, ours.n_features_out_)
    assert ours.errors_ == ours.find_errors([[], [None]]) == []


def test_tuning_refuses_lists():
    tuned = TunedEncoder(encoder(), n_layers="all")
    with pytest.raises(ValueError, match="cannot learn from a column with lists of images"):
        tuned.fit([[A, B], C, D, E], [0, 1, 0, 1])
