"""Descriptors equal their oracles; items, missing and bad ones behave as for every encoder."""

import copy
import io
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from skimage.feature import hog, local_binary_pattern
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError

from skmm.encoders._image_descriptor import ImageDescriptor
from skmm.exceptions import ItemError

ALL = ("hog", "color", "lbp", "pixels")


@pytest.fixture
def colour():
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def grey(colour):
    return colour[..., 0]


def objects(items):
    return np.fromiter(items, dtype=object, count=len(items))


@pytest.mark.parametrize(
    ("orientations", "cell", "block", "size"), [(9, 8, 2, (64, 64)), (6, 16, 1, (64, 64)), (4, 10, 3, (40, 64))]
)
def test_hog_is_that_of_scikit_image(colour, orientations, cell, block, size):
    images = colour[:, : size[0]]
    descriptor = ImageDescriptor(
        "hog", size=size, orientations=orientations, pixels_per_cell=cell, cells_per_block=block
    )
    options = {"orientations": orientations, "pixels_per_cell": (cell, cell), "cells_per_block": (block, block)}
    expected = [hog(image, channel_axis=-1, **options) for image in images]
    np.testing.assert_allclose(descriptor.fit_transform(images), expected, rtol=1e-6)
    # Grey images take a shorter way to the same result.
    expected = [hog(image, **options) for image in images[..., 0]]
    np.testing.assert_allclose(descriptor.fit_transform(images[..., 0]), expected, rtol=1e-6)


@pytest.mark.parametrize("bins", [2, 7, 8, 256])
def test_color_is_the_histogram_of_each_channel(colour, bins):
    described = ImageDescriptor("color", color_bins=bins).fit_transform(colour)
    expected = [
        np.concatenate([np.histogram(image[..., c], bins, range=(0, 256))[0] / 64**2 for c in range(3)])
        for image in colour
    ]
    np.testing.assert_allclose(described, expected, rtol=1e-6)
    np.testing.assert_allclose(described.reshape(5, 3, bins).sum(axis=2), 1, rtol=1e-5)


def test_lbp_is_the_histogram_of_uniform_patterns(grey):
    described = ImageDescriptor("lbp").fit_transform(grey)
    patterns = [local_binary_pattern(image, 8, 1, method="uniform") for image in grey]
    np.testing.assert_allclose(described, [[np.mean(p == k) for k in range(10)] for p in patterns], rtol=1e-6)


def test_lbp_of_colours_is_that_of_their_grey(colour):
    luma = [np.asarray(Image.fromarray(np.rint(image @ [0.299, 0.587, 0.114]).astype(np.uint8))) for image in colour]
    descriptor = ImageDescriptor("lbp")
    np.testing.assert_array_equal(descriptor.fit_transform(colour), descriptor.fit_transform(luma))


def test_pixels_are_the_means_of_whole_cells(colour):
    images = colour[:, :20, :33]
    described = ImageDescriptor("pixels", size=(20, 33), pixels_per_cell=8).fit_transform(images)
    expected = [
        [image[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].mean(axis=(0, 1)) / 255 for i in range(2) for j in range(4)]
        for image in images
    ]
    np.testing.assert_allclose(described.reshape(5, 8, 3), expected, rtol=1e-6)


def test_images_are_resized_without_aliasing(colour):
    descriptor = ImageDescriptor("pixels", size=(16, 8), pixels_per_cell=1)
    expected = Image.fromarray(colour[0]).resize((8, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(
        descriptor.fit_transform([colour[0]]).reshape(16, 8, 3), np.asarray(expected) / 255, rtol=1e-6
    )
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    np.testing.assert_allclose(descriptor.fit_transform([stripes]), 0.5, atol=0.05)


def test_int_size_is_a_square(grey):
    square = ImageDescriptor(ALL, size=32).fit_transform(grey)
    np.testing.assert_array_equal(square, ImageDescriptor(ALL, size=(32, 32)).fit_transform(grey))


def test_features_follow_in_the_order_given(colour):
    parts = [ImageDescriptor(feature).fit_transform(colour) for feature in ALL]
    np.testing.assert_array_equal(ImageDescriptor(ALL).fit_transform(colour), np.hstack(parts))
    np.testing.assert_array_equal(ImageDescriptor(list(ALL[::-1])).fit_transform(colour), np.hstack(parts[::-1]))


def test_names_and_width(colour):
    descriptor = ImageDescriptor(ALL, size=32, color_bins=2).fit(colour)
    names = descriptor.get_feature_names_out().tolist()
    colors = ["color_r0", "color_r1", "color_g0", "color_g1", "color_b0", "color_b1"]
    n_hog, n_pixels = 3 * 3 * 4 * 9, 4 * 4 * 3
    expected = [f"hog{i}" for i in range(n_hog)] + colors + [f"lbp{i}" for i in range(10)]
    assert names == expected + [f"pixels{i}" for i in range(n_pixels)]
    assert descriptor.n_features_out_ == len(names)
    assert descriptor.transform(colour).shape == (5, len(names))
    assert ImageDescriptor().fit(colour).n_features_out_ == 7 * 7 * 4 * 9 + 24


def test_output_is_float32_and_fit_decodes_nothing():
    descriptor = ImageDescriptor("color").fit(["no_such_file.png"])
    assert descriptor.errors_ == []
    assert descriptor.transform([np.zeros((4, 4), np.uint8)]).dtype == np.float32


@pytest.mark.parametrize(
    "column",
    [
        lambda grey, folder: list(grey),
        lambda grey, folder: grey,
        lambda grey, folder: np.stack([grey] * 3, axis=3),
        lambda grey, folder: objects(list(grey)),
        lambda grey, folder: objects(list(grey))[:, np.newaxis],
        lambda grey, folder: pd.Series(list(grey)),
        lambda grey, folder: pd.DataFrame({"image": list(grey)}),
        lambda grey, folder: pl.Series("image", grey, dtype=pl.Array(pl.UInt8, (64, 64))),
        lambda grey, folder: pl.DataFrame({"image": pl.Series(grey, dtype=pl.Array(pl.UInt8, (64, 64)))}),
        lambda grey, folder: pl.Series("image", grey.tolist(), dtype=pl.List(pl.List(pl.UInt8))),
        lambda grey, folder: [Image.fromarray(image) for image in grey],
        lambda grey, folder: paths(grey, folder),
        lambda grey, folder: [str(path) for path in paths(grey, folder)],
        lambda grey, folder: pd.Series([str(path) for path in paths(grey, folder)]),
        lambda grey, folder: pl.Series([str(path) for path in paths(grey, folder)]),
        lambda grey, folder: [path.read_bytes() for path in paths(grey, folder)],
        lambda grey, folder: pl.Series([path.read_bytes() for path in paths(grey, folder)]),
    ],
)
def test_every_kind_of_column_gives_the_same_rows(grey, tmp_path, column):
    descriptor = ImageDescriptor(ALL)
    expected = descriptor.fit_transform(grey)
    np.testing.assert_array_equal(descriptor.fit_transform(column(grey, tmp_path)), expected)


def paths(images, folder):
    found = [folder / f"{i}.png" for i in range(len(images))]
    for path, image in zip(found, images, strict=True):
        Image.fromarray(image).save(path)
    return found


@pytest.mark.parametrize(
    "column",
    [
        lambda items: items,
        lambda items: objects(items),
        lambda items: pd.Series(items),
        lambda items: pl.Series(items, dtype=pl.Array(pl.UInt8, (64, 64))),
    ],
)
def test_missing_items_are_rows_of_nan(grey, column):
    items = [None, grey[0], None, grey[1]]
    described = ImageDescriptor(ALL).fit_transform(column(items))
    assert np.isnan(described[[0, 2]]).all()
    np.testing.assert_array_equal(described[[1, 3]], ImageDescriptor(ALL).fit_transform(grey[:2]))


def test_all_kinds_of_missing(grey):
    items = [None, float("nan"), pd.NA, np.nan, "", grey[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described = ImageDescriptor("lbp").fit_transform(items)
    np.testing.assert_array_equal(np.isnan(described).all(axis=1), [True] * 5 + [False])


def test_column_without_any_image():
    assert np.isnan(ImageDescriptor().fit_transform([None, None])).all()


def test_bad_item_raises_with_its_row(grey):
    descriptor = ImageDescriptor()
    with pytest.raises(ItemError, match=r"ImageDescriptor: row 1: 'absent\.png': the file does not exist") as caught:
        descriptor.fit_transform([grey[0], "absent.png", grey[1]])
    assert caught.value.row == 1


def test_bad_items_count_as_missing_if_asked(grey):
    bad = [b"no image", "absent.png", 7]
    items = [grey[0], bad[0], grey[1], bad[1], bad[2], None, bad[1]]
    descriptor = ImageDescriptor(ALL, on_error="missing")
    with pytest.warns(UserWarning, match="4 of 7 items could not be encoded") as caught:
        described = descriptor.fit_transform(items)
    assert len(caught) == 1
    np.testing.assert_array_equal(described[[0, 2]], ImageDescriptor(ALL).fit_transform(grey[:2]))
    assert np.isnan(described[[1, 3, 4, 5, 6]]).all()
    assert [error.row for error in descriptor.errors_] == [1, 3, 4, 6]
    found = descriptor.find_errors(items)
    assert [(e.row, e.item, e.reason) for e in found] == [(e.row, e.item, e.reason) for e in descriptor.errors_]
    assert [error.item for error in found] == ["8 bytes", "'absent.png'", "int 7", "'absent.png'"]


def test_transform_warns_once_and_changes_no_attribute(grey):
    descriptor = ImageDescriptor("color", on_error="missing").fit(grey)
    before = copy.deepcopy(vars(descriptor))
    with pytest.warns(UserWarning, match="1 of 2 items"):
        descriptor.transform([grey[0], b"no image"])
    assert vars(descriptor) == before


def test_duplicates_are_decoded_once(grey, monkeypatch):
    decoded = []
    original = ImageDescriptor._prepare_item
    monkeypatch.setattr(ImageDescriptor, "_prepare_item", lambda self, item: decoded.append(1) or original(self, item))
    items = [grey[0], grey[1], grey[0].copy(), grey[0]]
    described = ImageDescriptor("hog").fit_transform(items)
    assert len(decoded) == 2
    np.testing.assert_array_equal(described[[2, 3]], described[[0, 0]])
    assert (described[0] != described[1]).any()


def test_images_of_equal_pixels_that_look_different_are_no_duplicates():
    def with_transparent(index):
        image = Image.new("P", (8, 8))
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.paste(1, (0, 0, 8, 4))
        stream = io.BytesIO()
        image.save(stream, "PNG", transparency=index)
        return Image.open(stream)

    def with_orientation(value):
        exif = Image.Exif()
        exif[0x0112] = value
        stream = io.BytesIO()
        ramp = np.repeat(np.arange(8, dtype=np.uint8)[:, np.newaxis] * 30, 8, axis=1)
        Image.fromarray(ramp).save(stream, "PNG", exif=exif)
        return Image.open(stream)

    descriptor = ImageDescriptor("pixels", size=8, pixels_per_cell=4)
    for make, values in [(with_transparent, (0, 1)), (with_orientation, (1, 3))]:
        together = descriptor.fit_transform([make(value) for value in values])
        alone = np.vstack([descriptor.fit_transform([make(value)]) for value in values])
        np.testing.assert_array_equal(together, alone)
        assert (alone[0] != alone[1]).any()


def test_pil_image_that_fails_late_is_a_bad_item(grey):
    content = io.BytesIO()
    Image.fromarray(grey[0]).save(content, "PNG")
    broken = Image.open(io.BytesIO(content.getvalue()[:1000]))
    descriptor = ImageDescriptor("hog", on_error="missing")
    with pytest.warns(UserWarning, match="1 of 2 items"):
        described = descriptor.fit_transform([broken, grey[1]])
    np.testing.assert_array_equal(np.isnan(described).any(axis=1), [True, False])
    assert "truncated" in descriptor.errors_[0].reason


def test_array_of_dates_is_a_bad_item():
    with pytest.raises(ItemError, match="must be numbers or bool"):
        ImageDescriptor().fit_transform([np.zeros((4, 4), dtype="M8[D]")])


def test_rows_depend_on_neither_order_nor_neighbours(colour):
    descriptor = ImageDescriptor(ALL).fit(colour)
    described = descriptor.transform(colour)
    order = [3, 0, 4]
    np.testing.assert_array_equal(descriptor.transform(colour[order]), described[order])


def test_more_items_than_a_window_holds(grey, monkeypatch):
    expected = ImageDescriptor("hog").fit_transform(grey)
    monkeypatch.setattr(ImageDescriptor, "_window", 2)
    np.testing.assert_array_equal(ImageDescriptor("hog").fit_transform(grey), expected)


def test_items_are_not_changed(colour):
    items = [colour[0], Image.fromarray(colour[1])]
    before = [np.array(item) for item in items]
    ImageDescriptor(ALL).fit_transform(items)
    for item, copied in zip(items, before, strict=True):
        np.testing.assert_array_equal(np.asarray(item), copied)


def test_background_shows_through(colour):
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    described = ImageDescriptor("color", color_bins=2, background=(255, 0, 0)).fit_transform([clear])
    assert described.tolist() == [[0, 1, 1, 0, 1, 0]]


def test_clone_and_pickle(colour):
    descriptor = ImageDescriptor(ALL, size=32, background=(1, 2, 3))
    described = descriptor.fit_transform(colour)
    copied = clone(descriptor)
    assert copied.get_params() == descriptor.get_params()
    with pytest.raises(NotFittedError):
        copied.transform(colour)
    np.testing.assert_array_equal(copied.fit_transform(colour), described)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(descriptor)).transform(colour), described)


def test_pandas_output(grey):
    frame = pd.DataFrame({"image": list(grey)}, index=list("abcde"))
    descriptor = ImageDescriptor(size=32).set_output(transform="pandas")
    described = descriptor.fit_transform(frame)
    assert described.index.tolist() == list("abcde")
    assert described.columns.tolist() == descriptor.get_feature_names_out().tolist()
    np.testing.assert_array_equal(described, ImageDescriptor(size=32).fit_transform(frame))
    assert descriptor.feature_names_in_.tolist() == ["image"]


@pytest.mark.parametrize("columns", ["image", ["image"]])
def test_in_a_column_transformer(grey, columns):
    frame = pd.DataFrame({"price": np.arange(5.0), "image": list(grey)})
    union = ColumnTransformer([("image", ImageDescriptor("lbp"), columns)], remainder="passthrough")
    described = union.fit_transform(frame)
    np.testing.assert_array_equal(described[:, :10], ImageDescriptor("lbp").fit_transform(grey))
    assert union.get_feature_names_out()[[0, -1]].tolist() == ["image__lbp0", "remainder__price"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"features": "sift"}, "The 'features' parameter of ImageDescriptor must be"),
        ({"features": ("hog", "sift")}, "features must name"),
        ({"features": ("hog", "hog")}, "at most once"),
        ({"features": ("hog", ["color"])}, "features must name"),
        ({"features": ()}, "features must name"),
        ({"size": 0}, "The 'size' parameter"),
        ({"size": (64,)}, "size must be a height and a width"),
        ({"size": (64, 0)}, "size must be a height and a width"),
        ({"size": (64.0, 64)}, "size must be a height and a width"),
        ({"orientations": 0}, "The 'orientations' parameter"),
        ({"pixels_per_cell": 0}, "The 'pixels_per_cell' parameter"),
        ({"cells_per_block": 0}, "The 'cells_per_block' parameter"),
        ({"color_bins": 1}, "The 'color_bins' parameter"),
        ({"color_bins": 257}, "The 'color_bins' parameter"),
        ({"background": "no such color"}, "background must be a color"),
        ({"background": (1, 2, 300)}, "background must be a color"),
        ({"background": 3}, "The 'background' parameter"),
        ({"on_error": "ignore"}, "The 'on_error' parameter"),
        ({"pixels_per_cell": 40}, "blocks of 80 pixels, which do not fit"),
        ({"size": (64, 12)}, "blocks of 16 pixels, which do not fit"),
        ({"features": "pixels", "pixels_per_cell": 65}, "leaves no whole cell"),
    ],
)
def test_bad_parameters(grey, params, message):
    with pytest.raises(ValueError, match=message):
        ImageDescriptor(**params).fit(grey)


def test_cells_matter_only_to_what_has_cells(grey):
    assert ImageDescriptor(("color", "lbp"), pixels_per_cell=65).fit_transform(grey).shape == (5, 34)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 1)}, "size must be"),
        ({"background": "nope"}, "background must be"),
        ({"features": "x"}, "features"),
    ],
)
def test_find_errors_checks_parameters_too(options, message):
    with pytest.raises(ValueError, match=message):
        ImageDescriptor(**options).find_errors(["nowhere.png"])
