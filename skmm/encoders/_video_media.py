"""Decoding of videos: from whatever a cell holds to a few frames, or to the sound.

What cannot be decoded raises :class:`RejectedItem`, as in ``_media``. Frames are handed on one by one, so
memory holds those that were chosen and never the whole video.
"""

import io
import os
import sys
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real

import numpy as np
from PIL import Image

from .._optional import import_optional_dependency
from .._validation import RejectedItem
from ._media import load_image, open_file

# Decoders that draw text as pictures.
_TEXT_CODECS = {"ansi", "bintext", "idf", "xbin"}

# Frames between the one at hand and a keyframe further on that make seeking cheaper than decoding on.
_WORTH_SEEKING = 12

_READ_BYTES = 1 << 18


@dataclass
class Timeline:
    """When the frames of a video are on screen.

    Parameters
    ----------
    times : ndarray of shape (n_frames,), dtype int64
        When each frame appears, increasing, in ticks.

    end : int
        When the last frame disappears.

    tick : Fraction or None
        Seconds per tick; None if nothing says how fast the frames follow each other.

    is_key : ndarray of shape (n_frames,), dtype bool
        Whether a frame can be decoded without another one.

    slack : Fraction
        Ticks by which a frame may be late because its time was rounded.
    """

    times: np.ndarray
    end: int
    tick: Fraction | None
    is_key: np.ndarray
    slack: Fraction = Fraction(1, 16)

    @classmethod
    def of_stamps(cls, stamps, last, tick, is_key):
        """Make one from time stamps, of which ``last`` is how long the last frame stays (0 if unknown).

        Stamps at a constant distance up to rounding are counted instead: containers round differently, and
        what is chosen should not depend on that.
        """
        times = np.asarray(stamps, dtype=np.int64)
        is_key = np.asarray(is_key, dtype=bool)
        n_gaps = len(times) - 1
        if n_gaps == 0:
            return cls(np.zeros(1, dtype=np.int64), 1, tick * max(1, last), is_key)
        length = int(times[-1] - times[0])
        if (np.abs((times - times[0]) * n_gaps - np.arange(len(times)) * length) <= n_gaps).all():
            return cls(np.arange(len(times)), len(times), tick * Fraction(length, n_gaps), is_key)
        last = last if last > 0 else int(np.median(np.diff(times)))
        return cls(times, int(times[-1]) + last, tick, is_key, Fraction(1, 2))

    @classmethod
    def of_count(cls, n_frames, tick, is_key=None):
        """Make one of frames that follow each other at a constant rate."""
        is_key = np.ones(n_frames, dtype=bool) if is_key is None else np.asarray(is_key, dtype=bool)
        return cls(np.arange(n_frames), n_frames, tick, is_key)


def choose_frames(timeline, sampling, n_frames, fps):
    """Choose frames of a video.

    Parameters
    ----------
    timeline : Timeline
        When its frames are on screen.

    sampling : {"uniform", "keyframes", "fps"}
        - "uniform": the frames on screen in the middle of each of ``n_frames`` equal parts of the time;
          a frame that is on screen in several counts as often;
        - "keyframes": all frames that can be decoded on their own, at most ``n_frames``;
        - "fps": the frames on screen every 1 / ``fps`` seconds from the start, at most ``n_frames``.

        If there are more than ``n_frames``, those in the middle of ``n_frames`` equal parts of the list remain.

    n_frames : int
        Number of frames.

    fps : float
        Frames per second, for "fps" only.

    Returns
    -------
    positions : ndarray of int
        Positions of the chosen frames, not decreasing, at least one.

    Raises
    ------
    RejectedItem
        If "fps" is asked of frames without a rate.
    """
    times, start = timeline.times, int(timeline.times[0])
    span = timeline.end - start
    if sampling == "keyframes":
        keys = np.flatnonzero(timeline.is_key)
        # Where no frame says so, the first one must be.
        keys = keys if len(keys) else np.zeros(1, dtype=np.int64)
        return keys if len(keys) <= n_frames else keys[_middles(len(keys), n_frames)]
    if sampling == "uniform":
        moments = [start + Fraction((2 * i + 1) * span, 2 * n_frames) for i in range(n_frames)]
    else:
        if timeline.tick is None:
            raise RejectedItem(
                'these frames have no rate, which sampling="fps" needs; pass (frame_rate, frames) instead of frames'
            )
        step = 1 / (_rate(fps) * timeline.tick)
        n_moments = max(1, -(-(span - timeline.slack) // step))
        order = range(n_moments) if n_moments <= n_frames else _middles(n_moments, n_frames)
        moments = [start + timeline.slack + int(k) * step for k in order]
    # Times are integers: what has begun at a moment has begun at its whole part.
    return np.searchsorted(times, [moment.__floor__() for moment in moments], side="right") - 1


def _rate(fps):
    """Give frames per second as a fraction: the simple one that a float stands for."""
    return Fraction(float(fps)).limit_denominator(10**6) or Fraction(float(fps))


def _middles(total, n_parts):
    """Positions in the middle of each of some equal parts of a list."""
    return np.array([(2 * i + 1) * total // (2 * n_parts) for i in range(n_parts)])


def sample_frames(item, sampling="uniform", n_frames=8, fps=1.0, background="white", prepare=None):
    """Decode some frames of a video.

    Parameters
    ----------
    item : str, path-like, bytes, ndarray, list, or tuple of (float, ndarray or list)
        A path, the bytes of a file, or frames in memory: an array (frames, height, width) or (frames, height,
        width, channels), a list of images in any form that :func:`load_image` takes, or one of these with
        its frames per second before it.

    sampling, n_frames, fps
        Which frames, as for :func:`choose_frames`.

    background : str or sequence of 3 int, default="white"
        Colour behind transparent pixels.

    prepare : callable, default=None
        Applied to each frame, an array (height, width, 3) of uint8, as soon as it is decoded; None
        keeps the frame.

    Returns
    -------
    frames : list
        What ``prepare`` gave for each distinct frame, in the order of time.

    samples : ndarray of int
        Position in ``frames`` of each chosen frame.

    Raises
    ------
    RejectedItem
        If the item is no video, or no frame of it can be decoded.
    """

    def choose(timeline):
        return choose_frames(timeline, sampling, n_frames, fps)

    prepare = prepare or (lambda frame: frame)
    if _is_file(item):
        with _open_item(item) as stream:
            return _sample_file(stream, choose, background, prepare)
    images, rate = _frames_in_memory(item)
    positions, samples = np.unique(
        choose(Timeline.of_count(len(images), None if rate is None else 1 / rate)), return_inverse=True
    )
    frames = []
    for position in positions:
        try:
            frames.append(prepare(load_image(images[position], background)))
        except RejectedItem as rejected:
            raise RejectedItem(f"frame {position}: {rejected}") from rejected
    return frames, samples


def load_sound(item, sampling_rate=None, mono=True):
    """Decode the sound track of a video.

    Parameters
    ----------
    item : object
        A video in any form that :func:`sample_frames` takes, or a file with nothing but sound.

    sampling_rate : int or None, default=None
        Samples per second of the result; None keeps those of the file.

    mono : bool, default=True
        Whether to give the mean of the channels.

    Returns
    -------
    sound : tuple of (int, ndarray) or None
        Samples per second, and samples of float32 of shape (n_samples,), or (n_samples, n_channels) if there
        are several. None if there is no sound track, or the item is frames in memory.

    Raises
    ------
    RejectedItem
        If the item is no video, or nothing of its sound can be decoded.
    """
    if not _is_file(item):
        _frames_in_memory(item)
        return None
    with _open_item(item) as stream, _container(stream) as container:
        track = container.streams.best("audio")
        if track is None:
            if _video_stream(container) is None:
                raise RejectedItem("the file has neither a video stream nor a sound track")
            return None
        return _decode_sound(container, track, sampling_rate, mono)


def _is_file(item):
    return isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview))


def _open_item(item):
    if isinstance(item, (str, os.PathLike)):
        return open_file(item, "a video file")
    if len(item) == 0:
        raise RejectedItem("no bytes at all, expected those of a video file")
    return io.BytesIO(item)


def _frames_in_memory(item):
    """Give frames as a sequence of images, and their rate as a Fraction or None."""
    rate = None
    is_pair = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], Real)
    if is_pair and isinstance(item[1], (np.ndarray, list, tuple)):
        rate, item = item
        # Integers beyond the range of floats are numbers as well.
        if not 0 < rate <= sys.float_info.max:
            raise RejectedItem(f"frames per second must be positive and finite, got {rate!r}")
        rate = _rate(rate)
    if isinstance(item, np.ndarray) and item.dtype != object:
        if item.ndim not in (3, 4):
            raise RejectedItem(
                f"an array of shape {item.shape} is no video; expected (frames, height, width) or (frames, height, "
                "width, channels)"
            )
        if item.ndim == 3 and item.shape[2] in (3, 4):
            raise RejectedItem(
                f"an array of shape {item.shape} looks like a single image; a video of one frame has a leading axis "
                "of 1, and grey frames this narrow a trailing one"
            )
    elif not isinstance(item, (list, tuple, np.ndarray)) or getattr(item, "ndim", 1) == 0:
        raise RejectedItem(
            "a video is a path, the bytes of a file, an array (frames, height, width, channels), a list of images, or "
            f"(frame_rate, frames), got an object of type {type(item).__name__}"
        )
    if len(item) == 0:
        raise RejectedItem("a video without frames")
    return item, rate


class _Nameless:
    """A file without its name, which would have a say in what format it is taken for."""

    def __init__(self, stream):
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell


def _container(stream):
    """Open a container for reading, so that nothing but this stream is ever read."""
    av = import_optional_dependency("av", "video")
    stream.seek(0)
    try:
        return av.open(
            _Nameless(stream),
            # Playlists and session descriptions name other files and hosts.
            container_options={"protocol_whitelist": "none"},
            buffer_size=_READ_BYTES,
            metadata_errors="replace",
        )
    # The library's errors derive from many builtin ones, MemoryError among them: tables of the size that a damaged
    # header claims are refused in that way.
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise RejectedItem(
            f"the content is not a video in a format that PyAV can read, or its header is damaged ({_reason(error)})"
        ) from error


def _reason(error):
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _video_stream(container):
    """Give the video stream of a container: no cover of an album, no text drawn as pictures; else None."""
    from av.stream import Disposition

    for stream in [container.streams.best("video"), *container.streams.video]:
        if not _has_decoder(stream) or stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context.name not in _TEXT_CODECS:
            return stream
    return None


def _has_decoder(stream):
    """Tell whether there is a stream, and its codec is known here."""
    return stream is not None and stream.codec_context is not None


def _opened_video(container):
    """Give the video stream, ready to be decoded, or refuse the file."""
    stream = _video_stream(container)
    if stream is None:
        raise RejectedItem("the file has no video stream, or none that can be decoded")
    context = stream.codec_context
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None:
        if context.width * context.height > limit:
            raise RejectedItem(
                f"too large to decode safely: it declares frames of {context.width} x {context.height} pixels, the "
                f"limit is {limit}; make the video smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            )
        # A stream may grow on its way.
        context.options = {**context.options, "max_pixels": str(limit)}
    # Videos are decoded side by side, each in a thread of its own.
    context.thread_count = 1
    return stream


def _packets(container, stream):
    """Yield the packets of a stream that are whole, up to where the file is damaged."""
    import av

    try:
        for packet in container.demux(stream):
            if not packet.is_corrupt:
                yield packet
    except (av.error.FFmpegError, OSError):
        return


def _decoded(container, stream, seen=None):
    """Yield the frames of a stream that can be decoded, and note the time stamps of keyframes that were read."""
    import av

    def decode(packet):
        try:
            return stream.codec_context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            return ()

    for packet in _packets(container, stream):
        # The last packet is empty and means the end.
        if packet.size == 0:
            continue
        if seen is not None and packet.is_keyframe:
            seen.add(packet.pts)
        for frame in decode(packet):
            if not frame.is_corrupt:
                yield frame
    for frame in decode(None):
        if not frame.is_corrupt:
            yield frame


def _sample_file(stream, choose, background, prepare):
    """Choose by the packets' time stamps, which costs no decoding; where that fails, by what decodes."""
    timeline, stamps = _scan(stream)
    if timeline is not None:
        positions, samples = np.unique(choose(timeline), return_inverse=True)
        for may_seek in (True, False):
            frames = _frames_at(stream, stamps, timeline.is_key, positions, may_seek, background, prepare)
            if frames is not None:
                return frames, samples
    timeline = _count(stream)
    positions, samples = np.unique(choose(timeline), return_inverse=True)
    wanted, frames = set(positions.tolist()), []
    with _container(stream) as container:
        for position, frame in enumerate(_decoded(container, _opened_video(container))):
            if position in wanted:
                frames.append(prepare(_to_rgb(frame, background)))
                if len(frames) == len(wanted):
                    break
    return frames, samples


def _scan(stream):
    """Read time stamps without decoding; give a timeline and the stamps, or None twice if they say too little."""
    with _container(stream) as container:
        video = _opened_video(container)
        packets = [
            (packet.pts, bool(packet.is_keyframe), packet.duration or 0)
            for packet in _packets(container, video)
            if packet.size and not packet.is_discard
        ]
        tick = video.time_base
    stamps = {pts for pts, _, _ in packets}
    if not packets or None in stamps or len(stamps) < len(packets) or not tick:
        return None, None
    packets.sort()
    times, is_key, durations = (list(values) for values in zip(*packets, strict=True))
    return Timeline.of_stamps(times, durations[-1], Fraction(tick), is_key), times


def _count(stream):
    """Decode the whole video and give the timeline of the frames that came out."""
    with _container(stream) as container:
        video = _opened_video(container)
        found = [(frame.pts, bool(frame.key_frame), frame.duration or 0) for frame in _decoded(container, video)]
        tick, rate = video.time_base, video.average_rate or video.guessed_rate
    if not found:
        raise RejectedItem("no frame of the video can be decoded")
    times, is_key, durations = (list(values) for values in zip(*found, strict=True))
    if tick and None not in times and (np.diff(times) > 0).all():
        return Timeline.of_stamps(times, durations[-1], Fraction(tick), is_key)
    return Timeline.of_count(len(found), 1 / Fraction(rate) if rate else None, is_key)


def _frames_at(stream, stamps, is_key, positions, may_seek, background, prepare):
    """Decode the frames at some positions of a list of time stamps; None if one of them does not come."""
    # Of each frame the last keyframe up to it; 0, the start, before the first one.
    key_before = np.maximum.accumulate(np.where(is_key, np.arange(len(stamps)), 0))
    frames = []
    with _container(stream) as container:
        video = _opened_video(container)
        if is_key[positions].all():
            video.codec_context.skip_frame = "NONKEY"
        here, seen, source = 0, None, _decoded(container, video)
        for position in positions:
            key = key_before[position]
            if may_seek and key - here > _WORTH_SEEKING:
                if not _seek(container, video, stamps[key]):
                    return None
                seen = set()
                source = _decoded(container, video, seen)
            for frame in source:
                if frame.pts is not None and frame.pts >= stamps[position]:
                    break
            else:
                return None
            # Formats seek with more or less precision: what was decoded without its keyframe is no picture.
            if frame.pts != stamps[position] or (seen is not None and stamps[key] not in seen):
                return None
            here = position
            frames.append(prepare(_to_rgb(frame, background)))
    return frames


def _seek(container, stream, stamp):
    import av

    try:
        container.seek(stamp, stream=stream, backward=True)
    except (av.error.FFmpegError, OSError, ValueError):
        return False
    return True


def _to_rgb(frame, background):
    """Turn a decoded frame upright and into red, green and blue."""
    has_alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
    try:
        pixels = frame.to_ndarray(format="rgba" if has_alpha else "rgb24")
    except MemoryError:
        raise
    except (OSError, ValueError) as error:
        raise RejectedItem(f"frames of format {frame.format.name} cannot be converted ({_reason(error)})") from error
    quarters = round(frame.rotation / 90) % 4
    return load_image(np.rot90(pixels, quarters) if quarters else pixels, background)


def _decode_sound(container, track, sampling_rate, mono):
    """Decode a sound track as far as it can be decoded."""
    import av

    if not _has_decoder(track):
        raise RejectedItem("the codec of the sound track is not known")
    rate = sampling_rate or track.codec_context.sample_rate
    if not rate:
        raise RejectedItem("the sound track does not state its sampling rate")
    resampler = av.AudioResampler(format="fltp", rate=rate)
    parts = []
    try:
        for frame in _decoded(container, track):
            frame.pts = None
            parts.extend(resampler.resample(frame))
        parts.extend(resampler.resample(None))
    except (av.error.FFmpegError, ValueError) as error:
        raise RejectedItem(f"the sound track cannot be converted ({_reason(error)})") from error
    arrays = [part.to_ndarray() for part in parts]
    arrays = [part.mean(axis=0, keepdims=True) if mono else part for part in arrays]
    if not sum(part.shape[1] for part in arrays):
        raise RejectedItem("nothing of the sound track can be decoded")
    sound = np.concatenate(arrays, axis=1)
    return int(rate), np.ascontiguousarray(sound[0] if len(sound) == 1 else sound.T, dtype=np.float32)
