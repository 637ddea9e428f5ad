"""Items small enough to be shown side by side: pictures, frames of videos, spectrograms of sounds, texts."""

import base64
import io
from html import escape

import numpy as np
from PIL import Image

from .._columns import describe_item, is_missing_item
from ..encoders import kind_of_item
from ..exceptions import RejectedItem
from ..media import load_audio, load_image, locate_file, sample_frames

# Kinds of items that are shown as a picture.
PICTURED = ("image", "audio", "video")

# Rate that a waveform without one is shown at, samples per frame of a spectrogram, and the seconds that it shows.
_USUAL_RATE = 16_000
_FRAME = 512
_MOST_SECONDS = 10
# Decibels below the loudest point that are shown, and the colours from there to it.
_DECIBELS = 70
_COLORS = np.array([(13, 8, 60), (120, 28, 109), (215, 70, 70), (252, 165, 45), (252, 255, 190)])
# Characters of a text in a page.
_MOST_CHARACTERS = 160


def kinds_of_columns(frames, kinds, owner):
    """Return column -> kind of its items: "image", "audio", "video" or "text".

    Parameters
    ----------
    frames : list of DataFrame
        Items; columns of one name hold the same kind.

    kinds : dict or None
        Kinds that are known; the others are those of most items.

    owner : str
        Name of the display, for the error message.
    """
    kinds, allowed = dict(kinds or {}), (*PICTURED, "text")
    columns = dict.fromkeys(column for frame in frames for column in frame.columns)
    unknown = [column for column in kinds if column not in columns]
    if unknown or not set(kinds.values()) <= set(allowed):
        raise ValueError(f"{owner}: kinds must map columns of {[*columns]} to one of {allowed}, got {kinds!r}.")
    for column in columns.keys() - kinds.keys():
        items = [item for frame in frames if column in frame for item in frame[column] if not is_missing_item(item)]
        judged = [kind_of_item(item) for item in items]
        kind = max(PICTURED, key=judged.count)
        kinds[column] = kind if 2 * judged.count(kind) > len(items) else "text"
    return kinds


def picture_of(item, kind, root=None, side=160):
    """Return an item as a picture of at most ``side`` pixels, an array of uint8; None if it cannot be read.

    Parameters
    ----------
    item : object
        Item that is not missing.

    kind : {"image", "audio", "video"}
        A video is shown by the frame in its middle, a sound by its spectrogram.

    root : str, path-like or None, default=None
        Folder below which relative paths are looked up.

    side : int, default=160
        Longest side.
    """
    try:
        item = locate_file(item, root)
        if kind == "audio":
            return spectrogram(*load_audio(item, array_rate=_USUAL_RATE), side)
        if kind == "image" and isinstance(item, list | tuple) and item:
            # A list of images is one item.
            item = item[0]
        pixels = sample_frames(item, n_frames=1)[0][0] if kind == "video" else load_image(item, enough=side)
    except RejectedItem:
        return None
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def spectrogram(waveform, rate, side):
    """Return the spectrogram of a waveform as a picture, low frequencies at the bottom."""
    waveform = np.pad(waveform[: int(_MOST_SECONDS * rate)], (0, max(0, _FRAME - len(waveform))))
    starts = np.linspace(0, len(waveform) - _FRAME, side).astype(int)
    frames = waveform[starts[:, np.newaxis] + np.arange(_FRAME)] * np.hanning(_FRAME)
    power = np.abs(np.fft.rfft(frames, axis=1)).T[::-1] ** 2
    levels = 10 * np.log10(np.maximum(power, 1e-12))
    shares = np.clip(1 + (levels - levels.max()) / _DECIBELS, 0, 1)
    places = np.linspace(0, 1, len(_COLORS))
    pixels = np.stack([np.interp(shares, places, channel) for channel in _COLORS.T], axis=2)
    return np.asarray(Image.fromarray(pixels.astype(np.uint8)).resize((side, side)))


def text_of(item):
    """Return an item as a text of one line."""
    if isinstance(item, str):
        return " ".join(item.split())
    if isinstance(item, list | tuple | set) and all(isinstance(element, str) for element in item):
        return ", ".join(item)
    if isinstance(item, float | np.floating):
        return f"{item:.4g}"
    return str(item) if np.isscalar(item) or hasattr(item, "isoformat") else describe_item(item)


def item_html(item, kind, root=None):
    """Return an item as HTML that needs nothing from elsewhere."""
    if is_missing_item(item):
        return '<p class="soft">missing</p>'
    if kind not in PICTURED:
        text = text_of(item)
        return f"<p>{escape(text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + '…')}</p>"
    pixels = picture_of(item, kind, root)
    if pixels is None:
        return f'<p class="soft">{escape(describe_item(item))} cannot be read</p>'
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    title = escape(describe_item(item), quote=True)
    return f'<img alt="{kind}" title="{title}" src="data:image/png;base64,{data}">'
