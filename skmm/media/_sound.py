"""Decoding of sound: from whatever a cell holds to one waveform at the rate that is asked for.

As for images, what cannot be decoded raises :class:`RejectedItem` with the reason.
"""

import io
import os
import re
from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np

from .._optional import import_optional_dependency
from ..exceptions import RejectedItem
from ._columns import describe_item
from ._image import open_file
from ._sound_files import is_cut_ogg, open_mp3

# Rates from slow sensors to ultrasound; what lies beyond is a damaged header or another number.
_LOWEST_RATE, _HIGHEST_RATE = 100, 1_000_000

# More than this many channels is a spectrogram or an image rather than a recording.
_MAX_CHANNELS = 64

# Samples that one recording may come to: over 6 hours at 48 kHz, 18 at 16 kHz, 4 GB. Silence is compressed so well,
# and resampling from a low rate adds so much, that kilobytes could otherwise fill the memory.
_MAX_SAMPLES = 2**30
# Where the rate is raised more than this many times, as from slow sensors, what comes of it is limited to more
# than an hour at 16 kHz.
_MAX_RATIO, _MAX_SAMPLES_BEYOND = 16, 2**26

# Frames read at a time: what a header claims is never allocated before it is there.
_FRAMES_PER_READ = 2**20

# Lines in which libsndfile notes that a header promises more bytes than the file has.
_SHORT_OF = re.compile(r"^ *(?:riff|riff size|data|data size|form|ssnd) *: (\d+) \(should be (\d+)\)", re.I | re.M)
# Recorders that write to a pipe put about the largest 31-bit or 32-bit number where they do not know the size.
_UNKNOWN_SIZE = 0x7F000000
# Files that lack a byte of padding at their end are common, and sound all right.
_HARMLESS_BYTES = 8


def load_audio(item, rate=None, array_rate=None):
    """Decode one recording to a mono waveform.

    Parameters
    ----------
    item : str, path-like, bytes, tuple, dict or array-like
        - a path, or the bytes of a file, in a format that libsndfile reads (WAV, FLAC, OGG, MP3, AIFF, ...);
        - a pair ``(sampling_rate, waveform)``, the order of :func:`scipy.io.wavfile.read`;
        - a dict with "sampling_rate" and "array", or with "bytes" or "path", as the `datasets` library has it;
        - a bare waveform, whose rate is ``array_rate``.

        A waveform has one dimension, or two for several channels: the shorter axis holds the channels,
        the last one if both are equal. Their mean is taken. Floats are taken as they are, full scale from -1
        to 1; int8, uint8, int16 and int32 are divided by their full scale.

    rate : float or None, default=None
        Rate in Hz to resample to; None keeps that of the recording.

    array_rate : float or None, default=None
        Rate in Hz of bare waveforms; None refuses them.

    Returns
    -------
    waveform : ndarray of shape (n_times,), dtype float32
        The waveform, at least one value; not to be written to. It has ``ceil(n * rate / own_rate)`` values.

    own_rate : float
        Rate of the recording before it was resampled.

    Raises
    ------
    RejectedItem
        If the recording has more than 2**30 samples (6 hours at 48 kHz), in a file or after it was resampled, or
        more than 2**26 after its rate was raised more than 16 times (70 minutes at 16 kHz, from less than 1 kHz).
        If the item is no sound, or cannot be decoded, or was cut off. This cannot be known, and what is there
        counts, of an MP3 without a header that gives its length (Xing, Info, VBRI), and of an OGG that ends with a
        whole page, though the page be not marked as the last: some recorders do not mark it.
    """
    waveform, own_rate = _read(item, rate, array_rate)
    if len(waveform) == 0:
        raise RejectedItem("the recording is empty, it has no samples")
    if not np.isfinite(waveform).all():
        raise RejectedItem("the waveform has values that are NaN, infinite or too large for 32 bits")
    if rate is not None and rate != own_rate:
        _check_length(len(waveform), own_rate, rate)
        waveform = resample(waveform, own_rate, rate)
    return waveform, own_rate


def resample(waveform, from_rate, to_rate):
    """Change the sampling rate of a waveform, without what the new rate cannot hold.

    Parameters
    ----------
    waveform : ndarray of shape (n_times,), dtype float32
        At least one value.

    from_rate : float
        Its rate in Hz.

    to_rate : float
        Rate to change it to.

    Returns
    -------
    resampled : ndarray of shape (ceil(n_times * to_rate / from_rate),), dtype float32
        The same sound.
    """
    soxr = import_optional_dependency("soxr", "audio")
    resampled = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    # Rounded in its own way, down to nothing for a single value.
    n_times = int(np.ceil(len(waveform) * to_rate / from_rate))
    resampled = resampled[:n_times]
    return np.pad(resampled, (0, n_times - len(resampled)), mode="edge" if len(resampled) else "constant")


def _check_length(n_times, own_rate, rate):
    """Refuse what would fill the memory once it is at the rate that is asked for."""
    ratio = rate / own_rate
    limit = _MAX_SAMPLES if ratio <= _MAX_RATIO else _MAX_SAMPLES_BEYOND
    if n_times * ratio > limit:
        raise RejectedItem(
            f"the recording is too long: at {rate:g} Hz it would have more than {limit} samples; pass it in parts"
            + ("" if ratio <= _MAX_RATIO else f", or correct its sampling rate of {own_rate:g} Hz")
        )


def _read(item, rate, array_rate):
    """Give the waveform in float32 and its own rate; files must not be too long for the rate that is asked for."""
    if isinstance(item, (bytes, bytearray, memoryview)):
        if len(item) == 0:
            raise RejectedItem("no bytes at all, expected those of a sound file")
        return _decode(io.BytesIO(item), rate)
    if isinstance(item, (str, os.PathLike)):
        with open_file(item, "a sound file") as stream:
            return _decode(stream, rate)
    if isinstance(item, Mapping):
        return _read_mapping(item, rate)
    if isinstance(item, (tuple, list)) and len(item) == 2:
        first, second = map(_dimensions, item)
        if second > first:
            return _to_mono(item[1]), _check_rate(item[0])
        if first > second:
            raise RejectedItem("this looks like (waveform, sampling_rate); pass (sampling_rate, waveform)")
    if isinstance(item, tuple):
        raise RejectedItem(f"a tuple must be a pair (sampling_rate, waveform), got {describe_item(item)}")
    if _dimensions(item) > 0:
        if array_rate is None:
            raise RejectedItem(
                "the sampling rate of a bare waveform is unknown; pass (sampling_rate, waveform), or set the "
                "encoder's sampling_rate"
            )
        return _to_mono(item), _check_rate(array_rate)
    raise RejectedItem(
        "a recording is a path, the bytes of a file, a pair (sampling_rate, waveform) or a waveform, got "
        f"{describe_item(item)}"
    )


def _dimensions(value):
    """Dimensions of an array, list or tensor; 0 for what is none."""
    if isinstance(value, (list, tuple)):
        return 1
    return getattr(value, "ndim", 0) if hasattr(value, "__array__") else 0


def _read_mapping(item, rate):
    if item.get("array") is not None:
        if "sampling_rate" not in item:
            raise RejectedItem('a dict with "array" must have "sampling_rate" as well')
        return _to_mono(item["array"]), _check_rate(item["sampling_rate"])
    for name in ("bytes", "path"):
        content = item.get(name)
        if isinstance(content, (bytes, str, os.PathLike)) and content not in (b"", ""):
            return _read(content, rate, None)
    raise RejectedItem(
        f'a dict must have "sampling_rate" and "array", or "bytes", or "path", got the keys {sorted(map(str, item))}'
    )


def _check_rate(rate):
    if isinstance(rate, (bool, np.bool_)) or not isinstance(rate, (Real, np.number)):
        raise RejectedItem(f"the sampling rate must be a number, in Hz, got {rate!r}")
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise RejectedItem(
            f"a sampling rate of {rate} Hz is implausible; it must lie between {_LOWEST_RATE} and {_HIGHEST_RATE}"
        )
    return int(rate) if isinstance(rate, Integral) or float(rate).is_integer() else float(rate)


def _decode(stream, rate):
    """Read a sound file block by block, until it is at its end or too long."""
    soundfile = import_optional_dependency("soundfile", "audio")
    blocks, n_frames = [], 0
    try:
        stream, has_length = open_mp3(stream)
        with soundfile.SoundFile(stream) as file:
            own_rate, format, notes = _check_rate(file.samplerate), file.format, file.extra_info
            declared = file.frames if has_length else 0
            while True:
                block = file.read(_FRAMES_PER_READ, dtype="float32", always_2d=True)
                if len(block) == 0:
                    break
                n_frames += len(block)
                _check_length(n_frames, own_rate, own_rate)
                _check_length(n_frames, own_rate, rate or own_rate)
                blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
    except soundfile.LibsndfileError as error:
        # Code 1 is an unknown format, 18 an unknown kind of a known one.
        if error.code == 1 and not blocks:
            raise RejectedItem(
                "the content is not sound in a format that libsndfile reads; convert it to WAV, FLAC, OGG or MP3"
            ) from None
        raise RejectedItem(
            f"the sound cannot be decoded, the file looks truncated or damaged ({error.error_string})"
        ) from error
    except (MemoryError, RejectedItem):
        raise
    # Files without a header, and damage that trips the reading of the stream.
    except Exception as error:
        raise RejectedItem(f"the sound cannot be decoded ({error})") from error
    _check_complete(n_frames, declared, notes)
    if format == "OGG" and is_cut_ogg(stream):
        raise RejectedItem("the file is truncated: it ends in the middle of a page of the OGG")
    return np.concatenate(blocks), own_rate


def _check_complete(n_frames, declared, notes):
    """Refuse a file that ends before its header says; libsndfile reads most of these without a word."""
    missing = [(int(said), int(there)) for said, there in _SHORT_OF.findall(notes)]
    if any(there + _HARMLESS_BYTES < said < _UNKNOWN_SIZE for said, there in missing):
        said, there = max(missing)
        raise RejectedItem(f"the file is truncated: its header declares {said} bytes, {there} are there")
    # Where it cannot know the number it says the largest there is.
    if n_frames < declared < 2**62:
        raise RejectedItem(f"the file is truncated: its header declares {declared} frames, {n_frames} could be read")
    if n_frames == 0:
        raise RejectedItem("the file holds no sound, it is empty or truncated")


def _to_mono(waveform):
    """Bring a waveform of any accepted type and shape to float32 and one dimension."""
    try:
        waveform = np.asarray(waveform)
    except (ValueError, TypeError) as error:
        raise RejectedItem(f"this is no waveform ({error})") from None
    if waveform.ndim not in (1, 2):
        raise RejectedItem(
            f"an array of shape {waveform.shape} is no waveform; expected (n_times,), or (n_times, n_channels) or "
            "(n_channels, n_times)"
        )
    if waveform.size == 0:
        raise RejectedItem(f"the recording is empty, its shape is {waveform.shape}")
    if waveform.ndim == 2 and min(waveform.shape) > _MAX_CHANNELS:
        raise RejectedItem(
            f"an array of shape {waveform.shape} is no waveform: {min(waveform.shape)} channels are too many; a "
            "recording has 1 or 2 dimensions, and its channels are the shorter one"
        )
    values = _to_float(waveform)
    if values.ndim == 2:
        values = values.mean(axis=0 if values.shape[0] < values.shape[1] else 1)
    return np.ascontiguousarray(values)


def _to_float(values):
    """Bring samples of any accepted dtype to floats, full scale from -1 to 1."""
    kind, width = values.dtype.kind, values.dtype.itemsize
    if kind == "f":
        # What overflows becomes infinite, and is refused with all that is not finite.
        with np.errstate(over="ignore"):
            return values.astype(np.float32, copy=False)
    if kind == "u" and width == 1:
        return (values.astype(np.float32) - 128) / 128
    if kind == "i" and width <= 4:
        return values.astype(np.float32) / np.float32(2.0 ** (8 * width - 1))
    raise RejectedItem(
        f"samples of dtype {values.dtype} have no known full scale; convert the waveform to floats from -1 to 1, or to "
        "int16"
    )
