"""Decoding of media: from whatever a cell holds to one plain array.

What cannot be decoded raises :class:`RejectedItem`, whose text says what is wrong and what to do but not
which item it was: the encoder that asked adds that.
"""

import io
import os
import stat

import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from ..exceptions import RejectedItem

_CHANNELS = (1, 3, 4)

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
    """Read a colour.

    Parameters
    ----------
    color : str or sequence of 3 int
        A name or code that Pillow knows ("white", "#ffffff"), or red, green and blue from 0 to 255.

    Returns
    -------
    rgb : tuple of 3 int
        Red, green and blue from 0 to 255.

    Raises
    ------
    ValueError
        If it is no such colour.
    """
    if isinstance(color, str):
        return ImageColor.getrgb(color)[:3]
    rgb = tuple(color)
    if len(rgb) != 3 or not all(isinstance(v, (int, np.integer)) and 0 <= v <= 255 for v in rgb):
        raise ValueError(f"a color is a name, a code such as '#ffffff' or 3 integers from 0 to 255, got {color!r}")
    return tuple(int(v) for v in rgb)


def check_background(background):
    """Raise unless ``background`` is a colour."""
    try:
        parse_color(background)
    except ValueError as error:
        raise ValueError(
            f"background must be a color that Pillow knows, or red, green and blue from 0 to 255, got {background!r}."
        ) from error


def load_image(item, background="white", enough=None):
    """Decode one image to 8-bit red, green and blue.

    Parameters
    ----------
    item : str, path-like, bytes, PIL image or ndarray
        A path, the bytes of a file, or an image in memory. Files and PIL images are turned upright by
        their EXIF orientation; of a file with several frames the first counts, of a PIL image the
        current one. Arrays are grey (height, width), or have 1, 3 or 4 channels on the last axis or, failing
        that, on the first. Their range is that of the dtype: bool, uint8, uint16 in full, floats
        from 0 to 1; other integers must lie in 0 to 255. PIL modes of more than 8 bits read alike: "I" and
        "I;16" from 0 to 65535, "F" from 0 to 1.

    background : str or sequence of 3 int, default="white"
        Colour behind transparent pixels, as for :func:`parse_color`.

    enough : int or None, default=None
        Pixels per side that the caller makes use of. A JPEG file is then decoded at the smallest of its
        scales (1/2, 1/4, 1/8) that leaves twice as many, which is faster and changes what a resize
        gives by little. None decodes in full.

    Returns
    -------
    image : ndarray of shape (height, width, 3), dtype uint8
        The image; it may share memory with ``item`` and is not to be written to.

    Raises
    ------
    RejectedItem
        If the item is no image, or one that cannot be decoded.

    Notes
    -----
    Files that declare more pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` are refused before they are decoded.
    """
    if isinstance(item, np.ndarray):
        return _array_to_rgb(item, background)
    if isinstance(item, Image.Image):
        return _image_to_rgb(item, background, None)
    if isinstance(item, (bytes, bytearray, memoryview)):
        if len(item) == 0:
            raise RejectedItem("no bytes at all, expected those of an image file")
        return _decode(io.BytesIO(item), background, enough)
    if isinstance(item, (str, os.PathLike)):
        with open_file(item, "an image file") as stream:
            return _decode(stream, background, enough)
    raise RejectedItem(
        f"an image is a path, the bytes of a file, a PIL image or a numpy array, got an object of type "
        f"{type(item).__name__}"
    )


def open_file(path, kind):
    """Open a file for reading, or say why that cannot be.

    Parameters
    ----------
    path : str or path-like
        Path of a plain file.

    kind : str
        What the file should be, for the messages: "an image file".

    Returns
    -------
    stream : binary file
        The open file; the caller closes it.

    Raises
    ------
    RejectedItem
        If there is no such file, it is empty, or it cannot be read.
    """
    if isinstance(path, str) and path.lower().startswith(("http://", "https://")):
        raise RejectedItem("this is a web address and nothing is fetched; download the file and pass its path")
    try:
        status = os.stat(path)
        # Only plain files: to open a pipe or a device could wait for ever.
        if not stat.S_ISREG(status.st_mode):
            found = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise RejectedItem(f"this is {found}, pass the path of {kind}")
        if status.st_size == 0:
            raise RejectedItem("the file is empty (0 bytes)")
        return open(path, "rb")
    except FileNotFoundError:
        where = "" if os.path.isabs(path) else f" (looked for in {os.getcwd()})"
        raise RejectedItem(f"the file does not exist{where}") from None
    except PermissionError:
        raise RejectedItem("no permission to read the file") from None
    except RejectedItem:
        raise
    # A ValueError here means a null character in the path.
    except (OSError, ValueError) as error:
        raise RejectedItem(f"this cannot be opened as a path ({error})") from error


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
        raise RejectedItem(f"too large to decode safely ({error}); {_bomb_advice()}") from None
    except MemoryError:
        raise
    # Damaged headers make Pillow's plugins raise errors of almost any type.
    except Exception as error:
        raise RejectedItem(f"the image cannot be decoded, the file looks damaged ({error})") from error
    with image:
        return _image_to_rgb(image, background, enough)


def _bomb_advice():
    return "make the image smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"


def _image_to_rgb(image, background, enough):
    width, height = image.size
    if width == 0 or height == 0:
        raise RejectedItem(f"the image has no pixels, its size is {width} x {height}")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise RejectedItem(
            f"too large to decode safely: it declares {width} x {height} pixels, the limit is {limit}; {_bomb_advice()}"
        )
    if image.format == "EPS":
        raise RejectedItem("an EPS file is a program rather than pixels; convert it to PNG")
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
            f"the image cannot be decoded, it is truncated, damaged or of an unknown kind ({error})"
        ) from error
    if image.mode == "I":
        if values.min() < 0 or values.max() > 65535:
            raise RejectedItem(
                f"pixels of mode I must lie in 0 to 65535, got values from {values.min()} to {values.max()}; "
                'convert the image to mode "L" or "RGB"'
            )
        values = values.astype(np.uint16)
    return _array_to_rgb(values, background)


def _upright(image):
    """Turn a loaded image as its EXIF orientation asks."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    # A damaged EXIF block says nothing about orientation, and does not spoil the pixels.
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
    pixels = _to_uint8(array)
    if pixels.shape[2] == 4:
        # Weighted mean of the pixel and what lies behind it, rounded.
        alpha = pixels[:, :, 3:].astype(np.uint16)
        behind = np.array(parse_color(background), dtype=np.uint16)
        blend = pixels[:, :, :3] * alpha + behind * (255 - alpha)
        return ((blend + np.uint16(127)) // np.uint16(255)).astype(np.uint8)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)


def _to_uint8(values):
    """Bring pixels of any accepted dtype to 0..255."""
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
    # Interpolation leaves the range by rounding errors of this order.
    if low < -1e-6 or high > 1 + 1e-6:
        raise RejectedItem(
            f"float pixels must lie in 0 to 1, got values from {low:g} to {high:g}; rescale them, or convert the "
            "array to uint8"
        )
    return np.rint(np.clip(values, 0, 1).astype(np.float32, copy=False) * np.float32(255)).astype(np.uint8)
