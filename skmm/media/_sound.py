"""Decoding of sound: from any form of an item to one waveform, at the rate that is asked for, or RejectedItem.

WAV, FLAC, OGG and the like are read by libsndfile, which opens a short file in a twentieth of the time and is exact to
the sample; all others by FFmpeg.
"""

import io
import re
import zlib
from collections.abc import Mapping
from itertools import chain
from numbers import Integral, Real

import numpy as np

from .._columns import describe_item
from .._optional import import_optional_dependency
from ..exceptions import RejectedItem
from ._container import NamelessFile, has_decoder, open_container, video_stream
from ._files import describe_keys, is_file, open_file, reason_of, unwrap_file
from ._video import frames_in_memory

# Rates from slow sensors to ultrasound; others come from a damaged header, or are no rate.
_LOWEST_RATE, _HIGHEST_RATE = 100, 1_000_000

# More channels than this are a spectrogram or an image rather than a recording.
_MAX_CHANNELS = 64

# Samples of one recording: over 6 hours at 48 kHz, 18 at 16 kHz, 4 GB. Silence is compressed so well, and resampling
# from a low rate adds so much, that kilobytes could otherwise fill the memory.
_MAX_SAMPLES = 2**30
# Limit where the rate is raised more than _MAX_RATIO times, as from slow sensors: more than an hour at 16 kHz.
_MAX_RATIO, _MAX_SAMPLES_BEYOND = 16, 2**26

# Frames read at a time: no more is allocated than the file holds, whatever its header claims.
_FRAMES_PER_READ = 2**20

# Lines in which libsndfile notes that a header promises more bytes than the file has.
_SHORT_OF = re.compile(r"^ *(?:riff|riff size|data|data size|form|ssnd) *: (\d+) \(should be (\d+)\)", re.I | re.M)
# Recorders that write to a pipe put about the largest 31-bit or 32-bit number where they do not know the size.
_UNKNOWN_SIZE = 0x7F000000
# libsndfile's number of frames where a FLAC does not say it.
_UNKNOWN_FRAMES = 2**62
# First bytes of MP3; of several files that were joined libsndfile would read the first alone.
_MPEG_STARTS = (b"ID3", b"\xff")
# Files that lack a byte of padding at their end are common, and complete otherwise.
_HARMLESS_BYTES = 8

# Seconds by which the length that a file states may exceed its sound: some formats count in milliseconds or in frames.
_LENGTH_TOLERANCE = 0.005
_LENGTH_TOLERANCES = {"asf": 0.2, "flv": 0.05, "matroska,webm": 0.05}
# Samples of padding at the end that FFmpeg may leave, at most the longest frame of Vorbis.
_LONGEST_PADDING = 8192

# An OGG is a sequence of pages: name and version, flags, other fields, then up to 255 lengths of up to 255 bytes each.
_OGG_PAGE, _OGG_FLAGS, _OGG_CHECKSUM, _OGG_PAGE_HEADER = b"OggS\0", 5, slice(22, 26), 27
_OGG_FIRST_PAGE = 2
# Bytes with their bits in reverse order: the checksum of OGG is that of zlib with all bits reversed.
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def load_audio(item, rate=None, array_rate=None):
    """Decode one recording; return a mono waveform of float32, at least one value, and the recording's own rate.

    An item is a path or the bytes of a file, a pair ``(sampling_rate, waveform)``, a dict with "sampling_rate" and
    "array" or with "bytes" or "path", or a bare waveform at ``array_rate`` (None refuses these). Of a video the sound
    track is read. A waveform has one dimension, or two for several channels: the shorter axis holds the channels, the
    last one if both are equal. Their mean is taken. Full scale of floats is from -1 to 1; int8, uint8, int16 and int32
    are divided by theirs. With a ``rate`` the waveform is resampled to ``ceil(n * rate / own_rate)`` values. It may
    share memory with the item.

    RejectedItem is raised if the item is no sound, cannot be decoded, is too long, or is truncated or damaged where the
    file shows it: an MP3 without a header and an OGG that ends after a whole page do not. Of a file with pictures the
    sound counts as far as it can be decoded, as its frames do.
    """
    file = unwrap_file(item)
    if isinstance(item, Mapping) and item.get("array") is not None:
        if "sampling_rate" not in item:
            raise RejectedItem('a dict with "array" must have "sampling_rate" as well')
        waveform, own_rate = _to_mono(item["array"]), _check_rate(item["sampling_rate"])
    elif is_file(file):
        with open_file(file, "a sound file") as stream:
            sound = _read_file(stream, rate, mono=True)
        if sound is None:
            raise RejectedItem("the file has no sound track")
        waveform, own_rate = sound
    else:
        waveform, own_rate = _read_array(item, array_rate)
    return _finish(waveform, own_rate, rate), own_rate


def load_sound_track(item, rate=None, mono=True):
    """Decode the sound track of a video, given as for :func:`sample_frames`, or a file with nothing but sound.

    Return the rate in Hz, and samples of float32 of shape (n_times,), or (n_times, n_channels) if there are several
    and ``mono`` is False. Return None if there is no sound track, or the item is frames in memory. Raise as
    :func:`load_audio` does.
    """
    file = unwrap_file(item)
    if not is_file(file):
        frames_in_memory(item)
        return None
    with open_file(file, "a video file") as stream:
        sound = _read_file(stream, rate, mono)
    if sound is None:
        return None
    samples, own_rate = sound
    return (own_rate if rate is None else rate), _finish(samples, own_rate, rate)


def _finish(samples, own_rate, rate):
    """Return samples that are all finite, resampled where another rate is asked for."""
    if len(samples) == 0:
        raise RejectedItem("the recording is empty, it has no samples")
    if not np.isfinite(samples).all():
        raise RejectedItem("the waveform has values that are NaN, infinite or too large for 32 bits")
    if rate is None or rate == own_rate:
        return samples
    _check_length(len(samples), own_rate, rate)
    return resample(samples, own_rate, rate)


def resample(waveform, from_rate, to_rate):
    """Return a waveform (n_times,) or (n_times, n_channels) at another rate, without what that rate cannot hold.

    It has ``ceil(n_times * to_rate / from_rate)`` samples.
    """
    soxr = import_optional_dependency("soxr", "audio")
    resampled = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    # soxr rounds the length in another way, down to nothing for a single value.
    n_times = int(np.ceil(len(waveform) * to_rate / from_rate))
    resampled = resampled[:n_times]
    padding = [(0, n_times - len(resampled))] + [(0, 0)] * (waveform.ndim - 1)
    return np.pad(resampled, padding, mode="edge" if len(resampled) else "constant")


def _check_length(n_times, own_rate, rate):
    """Raise if a recording would fill the memory once it is at the rate that is asked for."""
    ratio = rate / own_rate
    limit = _MAX_SAMPLES if ratio <= _MAX_RATIO else _MAX_SAMPLES_BEYOND
    if n_times * ratio > limit:
        raise RejectedItem(
            f"the recording is too long: at {rate:g} Hz it would have more than {limit} samples; cut it into parts"
            + ("" if ratio <= _MAX_RATIO else f", or correct its sampling rate of {own_rate:g} Hz")
        )


def _check_rate(rate):
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise RejectedItem(f"the sampling rate must be a number, in Hz, got {describe_item(rate)}")
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise RejectedItem(
            f"a sampling rate lies between {_LOWEST_RATE} and {_HIGHEST_RATE} Hz, got {describe_item(rate)}"
        )
    return int(rate) if isinstance(rate, Integral) or float(rate).is_integer() else float(rate)


class _Samples:
    """The samples of one recording, collected block by block, and the mean of their channels if ``mono``.

    ``own_rate`` is their rate in Hz, ``rate`` that to which they will be resampled, or None.
    """

    def __init__(self, own_rate, rate, mono):
        self.own_rate = _check_rate(own_rate)
        self.n_times = 0
        self._rate, self._mono = rate, mono
        self._blocks = []

    def check_rate(self, rate):
        """Raise if another block has another rate."""
        if rate != self.own_rate:
            raise RejectedItem(
                f"the sampling rate changes from {self.own_rate} to {rate} Hz within the file; convert it to one rate"
            )

    def add(self, block):
        """Add a block of shape (n_times, n_channels), unless the recording becomes too long."""
        self.n_times += len(block)
        # The samples are in memory together, those of all channels if they are kept.
        n_values = self.n_times * (1 if self._mono else block.shape[1])
        _check_length(n_values, self.own_rate, self.own_rate)
        _check_length(n_values, self.own_rate, self._rate or self.own_rate)
        if block.shape[1] > 1 and self._mono:
            block = block.mean(axis=1, keepdims=True)
        if self._blocks and self._blocks[0].shape[1] != block.shape[1]:
            raise RejectedItem(
                f"the number of channels changes from {self._blocks[0].shape[1]} to {block.shape[1]} within the file; "
                "convert it to one number"
            )
        self._blocks.append(block)

    def remove_end(self, n_times):
        """Remove the last samples."""
        self.n_times -= n_times
        while n_times > 0:
            block = self._blocks.pop()
            if len(block) > n_times:
                self._blocks.append(block[:-n_times])
            n_times -= len(block)

    def join(self):
        """Return all samples, of shape (n_times,) or (n_times, n_channels), and their rate."""
        if self.n_times == 0:
            raise RejectedItem("the file holds no sound, it is empty or truncated")
        samples = np.concatenate(self._blocks)
        return (samples[:, 0] if samples.shape[1] == 1 else samples), self.own_rate


def _read_file(stream, rate, mono):
    """Return the samples of a file and their rate; None if it is a video without sound."""
    start = stream.read(len(_OGG_PAGE))
    stream.seek(0)
    if start == _OGG_PAGE:
        return _read_ogg(stream, rate, mono)
    samples = None if start.startswith(_MPEG_STARTS) else _read_by_libsndfile(stream, rate, mono)
    return _read_by_ffmpeg(stream, rate, mono) if samples is None else samples.join()


def _read_ogg(stream, rate, mono):
    """Return the samples of an OGG and their rate, of all links if it is a chained one."""
    content = stream.read()
    starts = _ogg_links(content)
    if starts is None:
        return _read_by_ffmpeg(stream, rate, mono)
    total = None
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        # One by one, since in the whole file FFmpeg drops short links of Opus, and the end of short ones of Vorbis.
        link = io.BytesIO(content[start:end])
        samples = _read_by_libsndfile(link, rate, mono)
        sound = _read_by_ffmpeg(link, rate, mono) if samples is None else samples.join()
        if sound is None:
            return None
        block, own_rate = sound
        total = total or _Samples(own_rate, rate, mono)
        total.check_rate(own_rate)
        total.add(block if block.ndim == 2 else block[:, np.newaxis])
    return total.join()


def _ogg_links(content):
    """Return where the links of an OGG start; None if it begins with several streams, such as pictures and sound.

    Raise if a page is damaged or incomplete: decoders leave it out without an error.
    """
    first_pages, n_pages, start = [], 0, 0
    while content.startswith(_OGG_PAGE, start):
        page = content[start : start + _OGG_PAGE_HEADER + 255 + 255 * 255]
        n_lengths = page[_OGG_PAGE_HEADER - 1] if len(page) >= _OGG_PAGE_HEADER else 255
        n_bytes = _OGG_PAGE_HEADER + n_lengths + sum(page[_OGG_PAGE_HEADER : _OGG_PAGE_HEADER + n_lengths])
        if len(page) < n_bytes:
            raise RejectedItem("the file is truncated: it ends in the middle of a page of the OGG")
        if page[_OGG_CHECKSUM] != _ogg_checksum(page[:n_bytes]):
            raise RejectedItem(f"the file is damaged: page {n_pages} of the OGG has a wrong checksum")
        if page[_OGG_FLAGS] & _OGG_FIRST_PAGE:
            if n_pages == len(first_pages) == 1:
                return None
            first_pages.append(start)
        n_pages += 1
        start += n_bytes
    # A tag may follow the last page.
    if start < len(content) and _OGG_PAGE.startswith(content[start:]):
        raise RejectedItem("the file is truncated: it ends in the middle of a page of the OGG")
    if _OGG_PAGE in content[start:]:
        raise RejectedItem(f"the file is damaged: page {n_pages} of the OGG does not start behind the one before")
    return first_pages


def _ogg_checksum(page):
    """Return the four bytes of checksum that belong to a page."""
    page = page[: _OGG_CHECKSUM.start] + bytes(4) + page[_OGG_CHECKSUM.stop :]
    reversed_sum = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_sum:032b}"[::-1], 2).to_bytes(4, "little")


def _read_by_libsndfile(stream, rate, mono):
    """Return the samples of a WAV, a FLAC or the like; None if the file is to be read by FFmpeg."""
    soundfile = import_optional_dependency("soundfile", "audio")
    samples = None
    try:
        with soundfile.SoundFile(NamelessFile(stream)) as file:
            # libsndfile loses its place in a FLAC of unknown length, and cuts MPEG in a WAV short.
            if file.subtype.startswith("MPEG") or (file.format == "FLAC" and file.frames >= _UNKNOWN_FRAMES):
                return None
            samples = _Samples(file.samplerate, rate, mono)
            n_declared, notes = file.frames, file.extra_info
            while len(block := file.read(_FRAMES_PER_READ, dtype="float32", always_2d=True)):
                samples.add(block)
    except soundfile.LibsndfileError as error:
        if samples is None:
            return None
        raise RejectedItem(
            f"the sound cannot be decoded, the file looks truncated or damaged ({reason_of(error.error_string)})"
        ) from error
    except (MemoryError, RejectedItem):
        raise
    # Damaged files raise other errors as well, where libsndfile reads from the stream.
    except Exception as error:
        raise RejectedItem(f"the sound cannot be decoded ({reason_of(error)})") from error
    _check_complete(samples.n_times, n_declared, notes)
    return samples


def _check_complete(n_times, n_declared, notes):
    """Raise if a file ends before its header says; libsndfile reads most of these without an error."""
    sizes = [(int(declared), int(actual)) for declared, actual in _SHORT_OF.findall(notes)]
    if any(actual + _HARMLESS_BYTES < declared < _UNKNOWN_SIZE for declared, actual in sizes):
        declared, actual = max(sizes)
        raise RejectedItem(f"the file is truncated: its header declares {declared} bytes, it has {actual}")
    if n_times < n_declared < _UNKNOWN_FRAMES:
        raise RejectedItem(f"the file is truncated: its header declares {n_declared} frames, {n_times} could be read")


def _read_by_ffmpeg(stream, rate, mono):
    """Return the samples of a file that FFmpeg decodes, and their rate; None if it is a video without sound."""
    with open_container(stream) as container:
        stream_of_sound = container.streams.best("audio")
        has_pictures = video_stream(container) is not None
        if stream_of_sound is None:
            if has_pictures:
                return None
            raise RejectedItem("the file has neither a video stream nor a sound track")
        if not has_decoder(stream_of_sound):
            raise RejectedItem("the codec of the sound track is not known")
        track = _Track(container, stream_of_sound)
        samples = track.decode(rate, mono)
        # Of a video, the sound that can be decoded counts, as its frames do.
        if not has_pictures:
            track.check_complete(samples.n_times)
        samples.remove_end(track.count_padding(samples.n_times))
        return samples.join()


class _Track:
    """Decoding of one stream of sound by FFmpeg. ``damage`` is what the first error of it said, or None."""

    def __init__(self, container, stream):
        self._container, self._stream = container, stream
        self.damage = None
        # Position of the first packet in the file.
        self._start = None
        # Seconds at which the first frame begins and the last one ends, by their time stamps.
        self._begin, self._end = None, 0.0

    def decode(self, rate, mono):
        """Return all samples that can be decoded, as :class:`_Samples`."""
        own_rate = self._stream.codec_context.sample_rate
        if not own_rate:
            raise RejectedItem("the sound track does not state its sampling rate")
        if self._stream.codec_context.name == "flac":
            # FFmpeg ignores wrong checksums otherwise.
            self._stream.codec_context.options = {"err_detect": "crccheck+explode"}
        samples = _Samples(own_rate, rate, mono)
        for packet in chain(self._packets(), [None]):
            for frame in self._decode_packet(packet):
                samples.check_rate(frame.sample_rate)
                values = frame.to_ndarray()
                n_channels = len(frame.layout.channels)
                # Planar formats hold one row per channel, packed ones a single row.
                values = values.T if frame.format.is_planar else values.reshape(-1, n_channels)
                samples.add(_to_float(values))
                if frame.pts is not None and frame.time_base:
                    begin = float(frame.pts * frame.time_base)
                    self._begin = begin if self._begin is None else self._begin
                    self._end = begin + frame.samples / own_rate
        return samples

    def _packets(self):
        """Yield the packets that are complete, and note the first damage."""
        import av

        try:
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt:
                    self.damage = self.damage or "a part of it is incomplete"
                # The last packet is empty and means the end.
                elif packet.size:
                    self._start = packet.pos if self._start is None else self._start
                    yield packet
        except (av.error.FFmpegError, OSError) as error:
            self.damage = self.damage or reason_of(error)

    def _decode_packet(self, packet):
        """Return the frames of a packet that can be decoded, and note the first damage; None ends the decoding."""
        import av

        context = self._stream.codec_context
        try:
            frames = context.decode(packet)
        except (av.error.FFmpegError, ValueError) as error:
            # Where MPEG files were joined, or tags stand between them, single frames cannot be decoded.
            if not context.name.startswith(("mp1", "mp2", "mp3")):
                self.damage = self.damage or reason_of(error)
            return []
        if any(frame.is_corrupt for frame in frames):
            self.damage = self.damage or "a frame of it is damaged"
        return [frame for frame in frames if not frame.is_corrupt]

    def check_complete(self, n_times):
        """Raise if anything of the sound could not be decoded, as far as the file shows it."""
        if self.damage is not None:
            raise RejectedItem(f"the file is truncated or damaged ({self.damage})")
        seconds = n_times / self._stream.codec_context.sample_rate
        expected = self._expected_seconds()
        if seconds < expected:
            raise RejectedItem(
                f"the file is truncated or damaged: {expected:.2f} s of sound are expected, {seconds:.2f} s could be "
                "decoded"
            )

    def _expected_seconds(self):
        """Return the least length of an undamaged sound, by what the file states; 0 if it states nothing."""
        name = self._container.format.name
        tolerance = _LENGTH_TOLERANCES.get(name, _LENGTH_TOLERANCE)
        # The stamps of a FLAC count all samples, also those that could not be decoded.
        by_stamps = self._end - (self._begin or 0) - tolerance if name == "flac" else 0
        # The header of an OGG states no length; what FFmpeg reports includes samples that are to be skipped.
        return max(by_stamps, 0 if name == "ogg" else self._stated_seconds() - tolerance)

    def count_padding(self, n_times):
        """Return how many samples at the end are behind the length that the track states."""
        if self._stream.duration is None:
            return 0
        stated = round(self._stated_seconds() * self._stream.codec_context.sample_rate)
        return n_times - stated if 0 < stated < n_times <= stated + _LONGEST_PADDING else 0

    def _stated_seconds(self):
        """Return the length that the file states; 0 if FFmpeg estimates it by the bit rate, or nothing states it."""
        stream, container = self._stream, self._container
        if stream.duration is not None and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / 1e6
        estimate = 8 * (container.size - (self._start or 0)) / (stream.codec_context.bit_rate or np.inf)
        return 0 if abs(seconds - estimate) <= 1e-3 * seconds else seconds


def _read_array(item, array_rate):
    """Return the mono waveform of an item in memory, and its rate."""
    if isinstance(item, (tuple, list)) and len(item) == 2:
        first, second = map(_n_dimensions, item)
        if second > first:
            return _to_mono(item[1]), _check_rate(item[0])
        if first > second:
            raise RejectedItem("this looks like (waveform, sampling_rate); pass (sampling_rate, waveform)")
    if isinstance(item, tuple):
        raise RejectedItem(f"a tuple must be a pair (sampling_rate, waveform), got {describe_item(item)}")
    if isinstance(item, Mapping):
        raise RejectedItem(
            f'a dict must have "sampling_rate" and "array", or "bytes", or "path", got the keys {describe_keys(item)}'
        )
    if _n_dimensions(item) > 0:
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


def _n_dimensions(value):
    """Return the number of dimensions of an array, list, series or tensor; 0 for other objects."""
    if isinstance(value, (list, tuple)):
        return 1
    return np.ndim(value) if hasattr(value, "__array__") else 0


def _to_mono(waveform):
    """Return a waveform of any accepted type and shape in float32 and one dimension."""
    # A tensor of torch, which may need a gradient or be on a GPU.
    if hasattr(waveform, "detach"):
        waveform = waveform.detach().cpu()
    if np.ma.is_masked(waveform):
        raise RejectedItem("the waveform has masked samples; give them a value, with its method filled")
    try:
        waveform = np.asarray(waveform)
    # Tensors raise errors of their own.
    except (ValueError, TypeError, RuntimeError) as error:
        raise RejectedItem(f"this is no waveform ({reason_of(error)})") from None
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
    """Return samples of any accepted dtype as float32, full scale from -1 to 1."""
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
