"""Decoding of images: from any form of an item to one array of red, green and blue, or :class:`RejectedItem`."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from .._columns import shorten
from ..exceptions import RejectedItem
from ._files import describe_keys, is_file, open_file, reason_of, unwrap_file

_CHANNELS = (1, 3, 4)

_BOMB_ADVICE = "make the image smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"

# Bytes 4 to 12 of HEIC files, still images and sequences.
_HEIF_STARTS = {b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")}

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def parse_color(color):
    """Return red, green and blue, integers from 0 to 255, of a colour: those three, or a name or code of Pillow's."""
    if isinstance(color, str):
        return ImageColor.getrgb(color)[:3]
    rgb = tuple(color)
    if len(rgb) != 3 or not all(isinstance(v, (int, np.integer)) and 0 <= v <= 255 for v in rgb):
        raise ValueError(
            f"a color is a name, a code such as '#ffffff' or 3 integers from 0 to 255, got {shorten(repr(color))}"
        )
    return tuple(int(v) for v in rgb)


def check_background(background):
    """Raise unless ``background`` is a colour."""
    try:
        parse_color(background)
    except ValueError as error:
        raise ValueError(
            "background must be a color that Pillow knows, or red, green and blue from 0 to 255, got "
            f"{shorten(repr(background))}."
        ) from error


def load_image(item, background="white", enough=None):
    """Decode one image to an array (height, width, 3) of uint8, which may share memory with the item.

    An item is a path, the bytes of a file, a dict with "bytes" or "path", a PIL image or an array. Files and PIL images
    are turned upright by their EXIF orientation; of a file with several frames the first counts, of a PIL image the
    current one. Arrays are grey (height, width), or have 1, 3 or 4 channels on the last axis or, failing that, on the
    first. Their range is that of the dtype: bool, uint8, uint16 in full, floats from 0 to 1; other integers must lie in
    0 to 255. PIL modes of more than 8 bits likewise: "I" and "I;16" to 65535, "F" from 0 to 1. ``background`` is the
    colour behind transparent pixels.

    ``enough`` is the number of pixels per side that the caller makes use of. A JPEG file is then decoded at the
    smallest of its scales (1/2, 1/4, 1/8) that leaves twice as many, which is faster and hardly changes a resized
    image.

    RejectedItem is raised if the item is no image, cannot be decoded, or has more pixels than Pillow's limit.
    """
    if isinstance(item, np.ndarray):
        return _array_to_rgb(item, background)
    if isinstance(item, Image.Image):
        return _image_to_rgb(item, background, None)
    file = unwrap_file(item)
    if is_file(file):
        with open_file(file, "an image file") as stream:
            return _decode(stream, background, enough)
    if isinstance(item, Mapping):
        raise RejectedItem(f'a dict must have "bytes" or "path" of an image, got the keys {describe_keys(item)}')
    raise RejectedItem(
        f"an image is a path, the bytes of a file, a PIL image or a numpy array, got an object of type "
        f"{type(item).__name__}"
    )


def _decode(stream, background, enough):
    try:
        image = Image.open(stream)
    except UnidentifiedImageError:
        stream.seek(4)
        if stream.read(8) in _HEIF_STARTS:
            raise RejectedItem(
                "this is a HEIC image, which Pillow reads by a plugin only; install pillow-heif and call "
                "pillow_heif.register_heif_opener()"
            ) from None
        raise RejectedItem("the content is not an image in a format that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedItem(f"too large to decode safely ({reason_of(error)}); {_BOMB_ADVICE}") from None
    except MemoryError:
        raise
    # Damaged headers make Pillow's plugins raise errors of almost any type.
    except Exception as error:
        raise RejectedItem(f"the image cannot be decoded, the file looks damaged ({reason_of(error)})") from error
    with image:
        return _image_to_rgb(image, background, enough)


def _image_to_rgb(image, background, enough):
    width, height = image.size
    if width == 0 or height == 0:
        raise RejectedItem(f"the image has no pixels, its size is {width} x {height}")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise RejectedItem(
            f"too large to decode safely: it declares {width} x {height} pixels, the limit is {limit}; {_BOMB_ADVICE}"
        )
    if image.format == "EPS":
        raise RejectedItem("an EPS file is a program rather than pixels; convert it to PNG")
    if _is_closed(image):
        raise RejectedItem("the file of this PIL image was closed before its pixels were read; call image.load() first")
    try:
        if enough is not None and image.format in ("JPEG", "MPO"):
            image.draft(None, (2 * enough, 2 * enough))
        image.load()
        image = _upright(image)
        if image.mode == "F" or image.mode.startswith("I"):
            values = np.asarray(image)
        elif image.has_transparency_data:
            # Pillow has no direct way from premultiplied grey to RGBA.
            image = image.convert("LA") if image.mode == "La" else image
            values = np.asarray(image.convert("RGBA"))
        else:
            return np.asarray(image.convert("RGB"))
    except MemoryError:
        raise
    # What damaged pixel data raise depends on the format: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise RejectedItem(
            f"the image cannot be decoded, it is truncated, damaged or of an unknown kind ({reason_of(error)})"
        ) from error
    if image.mode == "I":
        if values.min() < 0 or values.max() > 65535:
            raise RejectedItem(
                f"pixels of mode I must lie in 0 to 65535, got values from {values.min()} to {values.max()}; "
                'convert the image to mode "L" or "RGB"'
            )
        values = values.astype(np.uint16)
    return _array_to_rgb(values, background)


def _is_closed(image):
    """Return whether a PIL image has lost its file before it was loaded."""
    return getattr(image, "tile", None) and getattr(image, "fp", None) is None


def _upright(image):
    """Return a loaded image, turned as its EXIF orientation says."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    # A damaged EXIF block has no orientation; the pixels are still good.
    except Exception:
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _array_to_rgb(array, background):
    if array.size == 0:
        raise RejectedItem(f"the array has no pixels, its shape is {array.shape}")
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    elif array.ndim == 3 and array.shape[2] not in _CHANNELS and array.shape[0] in _CHANNELS:
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in _CHANNELS:
        raise RejectedItem(
            f"an array of shape {array.shape} is no image; expected (height, width), or 1, 3 or 4 channels on the "
            "last or the first of 3 axes"
        )
    if np.ma.is_masked(array):
        raise RejectedItem("the array has masked pixels; give them a value, with its method filled")
    pixels = _to_uint8(array)
    if pixels.shape[2] == 4:
        # Mean of the pixel and the background, weighted by alpha and rounded.
        alpha = pixels[:, :, 3:].astype(np.uint16)
        color = np.array(parse_color(background), dtype=np.uint16)
        blend = pixels[:, :, :3] * alpha + color * (255 - alpha)
        return ((blend + np.uint16(127)) // np.uint16(255)).astype(np.uint8)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)


def _to_uint8(values):
    """Return pixels of any accepted dtype as uint8."""
    kind, width = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "u" and width == 1:
        return values
    if kind == "u" and width == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind not in "uif":
        raise RejectedItem(f"pixels must be numbers or bool, got an array of dtype {values.dtype}")
    low, high = values.min(), values.max()
    if kind in "ui":
        if low < 0 or high > 255:
            raise RejectedItem(
                f"{values.dtype} pixels must lie in 0 to 255, got values from {low} to {high}; convert the array to "
                "uint8, to uint16 (0 to 65535) or to floats from 0 to 1"
            )
        return values.astype(np.uint8)
    if not np.isfinite(low) or not np.isfinite(high):
        raise RejectedItem("the array has pixels that are NaN or infinite")
    # Interpolated pixels exceed the range by rounding errors of this order.
    if low < -1e-6 or high > 1 + 1e-6:
        raise RejectedItem(
            f"float pixels must lie in 0 to 1, got values from {low:g} to {high:g}; rescale them, or convert the "
            "array to uint8"
        )
    return np.rint(np.clip(values, 0, 1).astype(np.float32, copy=False) * np.float32(255)).astype(np.uint8)
