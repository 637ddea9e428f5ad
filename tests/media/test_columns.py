"""A column holds the same items whatever library keeps it: pandas, polars, Arrow; also for an unpickled encoder."""

import io
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torch import nn

from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")

RNG = np.random.default_rng(0)
RATE = 16_000
TEXTS = ["the cat", None, "a dog on the mat", "the cat"]
PIXELS = RNG.integers(256, size=(3, 6, 8, 3), dtype=np.uint8)
WAVES = [RNG.normal(size=n).astype(np.float32) for n in (800, 900, 1000)]
PLAIN = {"input_size": (3, 32, 32)}


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


class Regions(nn.Module):
    """Means of the parts of an image or a waveform."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x if x.ndim == 4 else x[:, None, None], (2, 3)).flatten(1)


def with_null(items):
    return [items[0], None, *items[1:]]


def sequences(items, arrow_type, polars_type):
    """The same items in each library, as series and as frames of one column."""
    array = pa.array(items, type=arrow_type)
    series = pl.Series("item", items, dtype=polars_type, strict=False)
    return {
        "arrow": pa.chunked_array([array[:2], array[2:]]),
        "arrow table": pa.table({"item": array}),
        "pandas of arrow": pd.Series(array, dtype=pd.ArrowDtype(arrow_type), name="item"),
        "polars": series,
        "polars frame": series.to_frame(),
        "polars in chunks": pl.concat([series[:2], series[2:]], rechunk=False),
    }


def texts():
    return {
        **sequences(TEXTS, pa.string(), pl.String),
        "large strings": pa.chunked_array([pa.array(TEXTS, pa.large_string())]),
        "dictionary": pa.chunked_array([pa.array(TEXTS).dictionary_encode()]),
        "categories of polars": pl.Series(TEXTS, dtype=pl.Categorical),
        "enum of polars": pl.Series(TEXTS, dtype=pl.Enum(["the cat", "a dog on the mat"])),
        "categories of pandas": pd.Series(TEXTS, dtype="category"),
        "strings of pandas": pd.Series(TEXTS, dtype="string"),
    }


def files():
    return sequences(with_null([png(image) for image in PIXELS]), pa.binary(), pl.Binary)


def arrays():
    items = with_null([image.tolist() for image in PIXELS])
    fixed = pl.Series([None if item is None else np.array(item, np.uint8) for item in items], dtype=pl.Object)
    nested = pl.List(pl.List(pl.List(pl.UInt8)))
    return {
        "lists": pl.Series(items, dtype=nested),
        "arrays": pl.Series(items, dtype=pl.Array(pl.UInt8, (6, 8, 3))),
        "objects": fixed,
        "arrow": pa.chunked_array([pa.array(items, pa.list_(pa.list_(pa.list_(pa.uint8()))))]),
    }


def waves():
    return sequences(with_null([wave.tolist() for wave in WAVES]), pa.list_(pa.float32()), pl.List(pl.Float32))


def structs():
    items = with_null([{"sampling_rate": RATE, "array": wave.tolist()} for wave in WAVES])
    arrow = pa.struct({"sampling_rate": pa.int64(), "array": pa.list_(pa.float32())})
    return sequences(items, arrow, pl.Struct({"sampling_rate": pl.Int64, "array": pl.List(pl.Float32)}))


COLUMNS = {
    "texts": ("text", texts, TEXTS),
    "files of images": ("image", files, with_null(list(PIXELS))),
    "arrays of pixels": ("image", arrays, with_null(list(PIXELS))),
    "waveforms": ("audio", waves, with_null(WAVES)),
    "dicts of waveforms": ("audio", structs, with_null(WAVES)),
}


def make(kind, tiny_text_model):
    options = {"precision": "float32", "device": "cpu", "store": None}
    if kind == "text":
        return TextEncoder(tiny_text_model, **options)
    if kind == "audio":
        return AudioEncoder(Regions().eval(), sampling_rate=RATE, **options)
    return {"image": ImageEncoder, "video": VideoEncoder}[kind](Regions().eval(), preprocess=PLAIN, **options)


def assert_near(rows, expected, **options):
    assert_allclose(rows, expected, rtol=0, atol=1e-6 * np.nanmax(np.abs(expected)), **options)


@pytest.mark.parametrize("case", COLUMNS)
def test_any_library(case, tiny_text_model):
    kind, make_columns, items = COLUMNS[case]
    expected = make(kind, tiny_text_model).fit_transform(items)
    assert_array_equal(np.isnan(expected).all(axis=1), [False, True, False, False])
    for name, column in make_columns().items():
        encoder = make(kind, tiny_text_model)
        out = encoder.fit_transform(column)
        assert_near(out, expected, err_msg=name)
        assert encoder.find_errors(column) == []
        twin = pickle.loads(pickle.dumps(encoder))
        assert_near(twin.transform(column), expected, err_msg=f"{name}, unpickled")


def test_videos_in_binary_columns(make_video, tiny_text_model):
    videos = with_null([make_video(5), make_video(7), make_video(9)])
    expected = make("video", tiny_text_model).fit_transform(videos)
    for column in sequences(videos, pa.binary(), pl.Binary).values():
        encoder = make("video", tiny_text_model).fit(column)
        assert_near(pickle.loads(pickle.dumps(encoder)).transform(column), expected)


def test_modules_survive_the_pickle_with_their_weights():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Regions()).eval()
    encoder = ImageEncoder(network, preprocess=PLAIN, precision="float32", device="cpu", store=None)
    expected = encoder.fit_transform(list(PIXELS))
    twin = pickle.loads(pickle.dumps(encoder))
    with torch.no_grad():
        network[0].weight.zero_()
    assert_near(twin.transform(list(PIXELS)), expected)
