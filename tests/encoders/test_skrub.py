"""Encoders inside skrub, where each of several columns gets a clone of its own."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_array_equal
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import ImageDescriptor, ModalityFuser, TextEncoder, TunedEncoder

TEXTS = pd.DataFrame(
    {
        "caption": ["the cat", "a dog", None, "the mat"] * 5,
        "title": ["a red dog", "the cat", "a mat", ""] * 5,
        "price": np.arange(20.0),
    },
    index=np.arange(20)[::-1],
)
Y = np.arange(20) % 2


@pytest.fixture
def encoder(tiny_text_model):
    return TextEncoder(tiny_text_model)


def names(*columns):
    return [f"{column}_{i}" for column in columns for i in range(16)]


@pytest.mark.parametrize(
    "column",
    [TEXTS["caption"], TEXTS[["caption"]], pl.from_pandas(TEXTS)["caption"]],
    ids=["series", "frame", "polars"],
)
def test_output_is_named_after_the_column(encoder, column):
    fitted = encoder.fit(column)
    assert list(fitted.get_feature_names_out()) == names("caption")
    assert list(fitted.set_output(transform="pandas").transform(column).columns) == names("caption")
    # Without the column's name where a composite puts one of its own before it.
    assert list(fitted.get_feature_names_out(["caption"])) == [str(i) for i in range(16)]
    assert list(encoder.fit(column.to_numpy()).get_feature_names_out()) == [str(i) for i in range(16)]


def test_names_of_descriptors():
    column = pd.Series([np.zeros((8, 8), dtype=np.uint8)], name="photo")
    descriptor = ImageDescriptor("color", color_bins=2).fit(column)
    assert descriptor.get_feature_names_out()[:2].tolist() == ["photo_color_r0", "photo_color_r1"]
    assert ImageDescriptor("color").fit(column.rename(None)).get_feature_names_out()[0] == "color_r0"


def test_composites_put_the_name_of_the_modality_first(encoder):
    triples = [("text", encoder, "caption")]
    expected = [f"text__{i}" for i in range(16)]
    assert list(ModalityFuser(triples).fit(TEXTS).get_feature_names_out()) == expected
    union = ColumnTransformer(triples).set_output(transform="pandas")
    assert list(union.fit_transform(TEXTS).columns) == list(union.get_feature_names_out()) == expected


def import_skrub():
    return pytest.importorskip("skrub", reason="needs skrub")


@pytest.mark.parametrize("convert", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
def test_apply_to_cols(encoder, convert):
    skrub = import_skrub()
    X = convert(TEXTS)
    applied = skrub.ApplyToCols(encoder, cols=["caption", "title"])
    out = applied.fit_transform(X)
    assert type(out) is type(X)
    assert list(out.columns) == list(applied.get_feature_names_out()) == [*names("caption", "title"), "price"]
    for column in ("caption", "title"):
        rows = out[names(column)].to_numpy()
        assert_array_equal(rows, encoder.fit_transform(TEXTS[column]))
    assert list(applied.transform(X[:3]).columns) == list(out.columns)
    if convert is not pl.from_pandas:
        assert_array_equal(out.index, TEXTS.index)


def test_pipelines_and_the_table_vectorizer(encoder):
    skrub = import_skrub()
    piped = skrub.ApplyToCols(make_pipeline(encoder), cols=["caption"]).fit_transform(TEXTS)
    assert list(piped.columns) == [*names("caption"), "title", "price"]
    vectorizer = skrub.TableVectorizer(high_cardinality=encoder, cardinality_threshold=2)
    assert set(names("caption", "title")) < set(vectorizer.fit_transform(TEXTS).columns)


def test_data_ops(encoder):
    skrub = import_skrub()
    X, y = skrub.X(TEXTS), skrub.y(Y)
    encoded = X.skb.apply(encoder, cols=["caption", "title"])
    assert list(encoded.skb.eval().columns) == [*names("caption", "title"), "price"]
    learner = encoded.fillna(0).skb.apply(LogisticRegression(), y=y).skb.make_learner()
    learner.fit({"X": TEXTS, "y": Y})
    assert learner.predict({"X": TEXTS}).shape == (20,)


def test_an_encoder_that_learns_from_the_target(encoder):
    skrub = import_skrub()
    tuned = TunedEncoder(encoder, n_layers=1, max_epochs=1, random_state=0)
    applied = skrub.ApplyToCols(tuned, cols=["caption"])
    out = applied.fit_transform(TEXTS, Y)
    assert list(out.columns) == [*names("caption"), "title", "price"]
