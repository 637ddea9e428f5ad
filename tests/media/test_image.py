"""Every form in which an image may come decodes to the same pixels; every bad one says what is wrong."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from skmm.exceptions import RejectedItem
from skmm.media._image import load_image, parse_color


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def reason_of(item, **options):
    with pytest.raises(RejectedItem) as caught:
        load_image(item, **options)
    return str(caught.value)


def as_path(content, folder):
    path = folder / "image.png"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "form",
    [
        lambda rgb, folder: rgb,
        lambda rgb, folder: np.asfortranarray(rgb),
        lambda rgb, folder: np.moveaxis(rgb, 2, 0),
        lambda rgb, folder: rgb / 255,
        lambda rgb, folder: (rgb / 255).astype(np.float32),
        lambda rgb, folder: (rgb / 255).astype(np.float16),
        lambda rgb, folder: rgb.astype(np.uint16) * 257,
        lambda rgb, folder: (rgb.astype(np.uint16) * 257).astype(">u2"),
        lambda rgb, folder: rgb.astype(np.int64),
        lambda rgb, folder: np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]),
        lambda rgb, folder: Image.fromarray(rgb),
        lambda rgb, folder: Image.fromarray(rgb).convert("RGBA"),
        lambda rgb, folder: encoded(Image.fromarray(rgb)),
        lambda rgb, folder: bytearray(encoded(Image.fromarray(rgb))),
        lambda rgb, folder: memoryview(encoded(Image.fromarray(rgb))),
        lambda rgb, folder: encoded(Image.fromarray(rgb), "TIFF"),
        lambda rgb, folder: Image.open(io.BytesIO(encoded(Image.fromarray(rgb)))),
        lambda rgb, folder: as_path(encoded(Image.fromarray(rgb)), folder),
        lambda rgb, folder: str(as_path(encoded(Image.fromarray(rgb)), folder)),
        lambda rgb, folder: np.str_(as_path(encoded(Image.fromarray(rgb)), folder)),
    ],
)
def test_colour_forms_decode_to_the_same_pixels(rgb, tmp_path, form):
    image = load_image(form(rgb, tmp_path))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, rgb)


@pytest.mark.parametrize(
    "form",
    [
        lambda grey: grey,
        lambda grey: grey[:, :, np.newaxis],
        lambda grey: grey[np.newaxis],
        lambda grey: grey / 255,
        lambda grey: grey.astype(np.uint16) * 257,
        lambda grey: Image.fromarray(grey),
        lambda grey: Image.fromarray(grey).convert("LA"),
        lambda grey: Image.fromarray(grey).convert("P"),
        lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
        lambda grey: Image.fromarray(grey.astype(np.int32) * 257),
        lambda grey: Image.fromarray((grey / 255).astype(np.float32)),
        lambda grey: encoded(Image.fromarray(grey.astype(np.uint16) * 257)),
        lambda grey: encoded(Image.fromarray(grey), "GIF"),
    ],
)
def test_grey_forms_decode_to_three_equal_channels(rgb, form):
    grey = rgb[:, :, 0]
    np.testing.assert_array_equal(load_image(form(grey)), np.dstack([grey] * 3))


def test_bool_and_binary_images_are_black_and_white():
    mask = np.array([[True, False], [False, True]])
    expected = np.dstack([np.where(mask, 255, 0)] * 3)
    np.testing.assert_array_equal(load_image(mask), expected)
    np.testing.assert_array_equal(load_image(Image.fromarray(mask)), expected)


def test_sixteen_bits_round_to_the_nearest_of_eight():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(load_image(values)[:, :, 0], np.rint(values / 257))


def test_floats_round_to_the_nearest_and_bear_rounding_errors():
    values = np.array([[0.0, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4, 1 + 1e-7]])
    assert load_image(values)[0, :, 0].tolist() == [0, 0, 1, 255]


def test_channels_on_the_last_axis_win():
    array = np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4)
    assert load_image(array).shape == (3, 5, 3)
    assert load_image(array[:, :, :2]).shape == (5, 2, 3)


@pytest.mark.parametrize("background", ["white", "#102030", (16, 32, 48), "black"])
def test_transparency_shows_the_background(rgb, background):
    alpha = np.arange(rgb.shape[0] * rgb.shape[1], dtype=np.uint8).reshape(rgb.shape[:2]) * 4
    rgba = np.dstack([rgb, alpha])
    share = alpha[:, :, np.newaxis] / 255
    expected = np.rint(rgb * share + np.array(parse_color(background)) * (1 - share))
    for item in (rgba, np.moveaxis(rgba, 2, 0), Image.fromarray(rgba), encoded(Image.fromarray(rgba))):
        np.testing.assert_array_equal(load_image(item, background), expected)


@pytest.mark.parametrize("mode", ["LA", "La", "RGBa", "PA"])
def test_other_modes_with_transparency_show_the_background(mode):
    if mode == "PA":
        image = Image.new("PA", (2, 1), (0, 255))
        image.putpalette([200, 200, 200])
        image.putpixel((1, 0), (0, 0))
    else:
        image = Image.merge("LA", [Image.new("L", (2, 1), 200), Image.new("L", (2, 1), 255)])
        image.putpixel((1, 0), (200, 0))
        image = image.convert("RGBA").convert("RGBa") if mode == "RGBa" else image.convert(mode)
    assert load_image(image, "red")[0].tolist() == [[200, 200, 200], [255, 0, 0]]


def test_transparent_palette_entry_shows_the_background():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    content = encoded(palette, "PNG", transparency=1)
    assert load_image(content, "red")[0].tolist() == [[10, 20, 30], [255, 0, 0]]


def test_cmyk_is_converted():
    cmyk = Image.new("CMYK", (3, 2), (0, 255, 255, 0))
    assert load_image(cmyk)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(rgb, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(rgb), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    np.testing.assert_array_equal(load_image(content), expected)
    np.testing.assert_array_equal(load_image(Image.open(io.BytesIO(content))), expected)


def test_rotated_tiff_is_turned_only_once(rgb):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(rgb), "TIFF", exif=exif)
    np.testing.assert_array_equal(load_image(content), np.rot90(rgb, -1))


def test_damaged_exif_does_not_spoil_the_pixels(rgb):
    content = encoded(Image.fromarray(rgb), "PNG", exif=b"Exif\0\0no tiff header at all")
    np.testing.assert_array_equal(load_image(content), rgb)


def test_first_frame_of_an_animation(rgb):
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 2
    np.testing.assert_array_equal(load_image(content), rgb)


def test_items_are_not_changed(rgb):
    before = rgb.copy()
    image = Image.fromarray(rgb).convert("RGBA")
    pixels = image.tobytes()
    load_image(rgb)
    load_image(image)
    np.testing.assert_array_equal(rgb, before)
    assert (image.mode, image.tobytes()) == ("RGBA", pixels)


def test_file_is_closed_and_can_be_removed(rgb, tmp_path, recwarn):
    path = as_path(encoded(Image.fromarray(rgb)), tmp_path)
    load_image(path)
    path.unlink()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (3, "object of type int"),
        (2.5, "object of type float"),
        (np.float32(1), "object of type float32"),
        ([[0, 1], [1, 0]], "object of type list"),
        ({"bytes": b"", "path": None}, r"a dict must have .* got the keys \['bytes', 'path'\]"),
        (b"", "no bytes at all"),
        (b"GIF, said the frog", "not an image in a format that Pillow can read"),
        ("https://example.org/cat.png", "nothing is fetched"),
        ("a\0b", "cannot be opened as a path"),
        ("x" * 100_000, "a string of 100,000 characters that is no path.* base64"),
        ("data:image/png;base64,iVBORw0KGgo=", "a data URL"),
        (np.zeros(5, np.uint8), r"shape \(5,\) is no image"),
        (np.zeros((5, 5, 2), np.uint8), r"shape \(5, 5, 2\) is no image"),
        (np.zeros((1, 5, 5, 3), np.uint8), r"shape \(1, 5, 5, 3\) is no image"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (Image.new("L", (0, 5)), "no pixels"),
        (np.full((2, 2), np.nan), "NaN or infinite"),
        (np.full((2, 2), np.inf), "NaN or infinite"),
        (np.array([[0.0, 255.0]]), "must lie in 0 to 1, got values from 0 to 255"),
        (np.array([[-0.5, 0.5]]), "must lie in 0 to 1, got values from -0.5"),
        (np.array([[0, 256]]), "must lie in 0 to 255, got values from 0 to 256"),
        (np.array([[-1, 5]], dtype=np.int16), "must lie in 0 to 255, got values from -1"),
        (np.array([["a", "b"]]), "must be numbers or bool"),
        (np.array([[None, 1]]), "must be numbers or bool"),
        (np.ones((2, 2), dtype=complex), "must be numbers or bool"),
        (Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)), "mode I must lie in 0 to 65535"),
        (Image.fromarray(np.array([[0, 7]], dtype=np.float32)), "must lie in 0 to 1"),
    ],
)
def test_rejection_says_why(item, reason):
    with pytest.raises(RejectedItem, match=reason) as caught:
        load_image(item)
    assert len(str(caught.value)) < 500


def test_dicts_of_files(rgb, tmp_path):
    content = encoded(Image.fromarray(rgb))
    path = as_path(content, tmp_path)
    for item in (
        {"bytes": content, "path": None},
        {"bytes": bytearray(content), "path": "gone.png"},
        {"bytes": None, "path": str(path)},
        {"path": path},
    ):
        np.testing.assert_array_equal(load_image(item), rgb)


def test_pil_images_that_lost_their_file(rgb, tmp_path):
    path = as_path(encoded(Image.fromarray(rgb)), tmp_path)
    with Image.open(path) as image:
        pass
    assert "closed before its pixels were read; call image.load() first" in reason_of(image)
    with Image.open(path) as image:
        image.load()
    np.testing.assert_array_equal(load_image(image), rgb)
    image = Image.fromarray(rgb)
    image.close()
    assert "Operation on closed image" in reason_of(image)


def test_rejected_files_say_why(tmp_path, monkeypatch):
    assert "does not exist" in reason_of(tmp_path / "absent.png")
    monkeypatch.chdir(tmp_path)
    assert f"does not exist (looked for in {os.getcwd()})" in reason_of("absent.png")
    assert "a directory" in reason_of(tmp_path)
    assert "0 bytes" in reason_of(as_path(b"", tmp_path))
    assert "not an image" in reason_of(as_path(b"plain text", tmp_path))
    (tmp_path / "file").write_bytes(b"x")
    assert "cannot be opened as a path" in reason_of(tmp_path / "file" / "below")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in reason_of(tmp_path / "pipe")


def test_unreadable_file_says_so(rgb, tmp_path, monkeypatch):
    # Simulated, for whoever runs as root may read everything.
    def refuse(*args):
        raise PermissionError("denied")

    path = as_path(encoded(Image.fromarray(rgb)), tmp_path)
    monkeypatch.setattr("builtins.open", refuse)
    assert "no permission" in reason_of(path)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF"])
def test_truncated_files_are_refused(format):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format)
    assert load_image(content).shape == (64, 64, 3)
    assert "cannot be decoded" in reason_of(content[: len(content) // 2])


def test_truncated_pil_image_is_refused():
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "PNG")
    assert "truncated" in reason_of(Image.open(io.BytesIO(content[: len(content) // 2])))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [10, 40])
def test_more_pixels_than_the_limit_are_refused_before_decoding(rgb, monkeypatch, limit):
    # 63 pixels: above both limits, and above twice the lower one, where Pillow itself refuses.
    content = encoded(Image.fromarray(rgb))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded"))
    assert "too large to decode safely" in reason_of(content)


def test_limit_can_be_raised_or_lifted(rgb, monkeypatch):
    content = encoded(Image.fromarray(rgb))
    for limit in (63, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        np.testing.assert_array_equal(load_image(content), rgb)


def test_limit_holds_where_warnings_are_errors(rgb, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    content = encoded(Image.fromarray(rgb))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "too large to decode safely" in reason_of(content)


def test_eps_is_refused():
    assert "EPS" in reason_of(encoded(Image.new("RGB", (4, 4)), "EPS"))


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_without_its_plugin_says_what_to_install(brand, monkeypatch):
    # Another test may have registered it.
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    assert "install pillow-heif" in reason_of(b"\0\0\0\x18ftyp" + brand + bytes(12) + b"mif1heic")


def test_reason_does_not_repeat_the_item(tmp_path):
    path = tmp_path / "some_rare_name.png"
    path.write_bytes(b"plain text")
    assert "some_rare_name" not in reason_of(path)
    assert "some_rare_name" not in reason_of(Path("some_rare_name_that_is_absent.png"))


@pytest.mark.parametrize("color", ["no such color", (1, 2), (1, 2, 256), (0.5, 0.5, 0.5)])
def test_bad_colors(color):
    with pytest.raises(ValueError, match="color"):
        parse_color(color)
