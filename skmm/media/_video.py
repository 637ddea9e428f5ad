"""Decoding of videos: from whatever a cell holds to a few frames.

What cannot be decoded raises :class:`RejectedItem`, as in ``_media``. Frames are handed on one by one, so
memory holds those that were chosen and never the whole video.
"""

import sys
from fractions import Fraction
from numbers import Real

import numpy as np

from ..exceptions import RejectedItem
from ._container import decoded_frames, is_file, open_container, open_item, opened_video, packets_of, reason_of
from ._image import load_image
from ._timeline import Timeline, choose_frames, exact_rate

# Frames between the one at hand and a keyframe further on that make seeking cheaper than decoding on.
_WORTH_SEEKING = 12


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
    if is_file(item):
        with open_item(item) as stream:
            return _sample_file(stream, choose, background, prepare)
    images, rate = frames_in_memory(item)
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


def frames_in_memory(item):
    """Give frames as a sequence of images, and their rate as a Fraction or None."""
    rate = None
    is_pair = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], Real)
    if is_pair and isinstance(item[1], (np.ndarray, list, tuple)):
        rate, item = item
        # Integers beyond the range of floats are numbers as well.
        if not 0 < rate <= sys.float_info.max:
            raise RejectedItem(f"frames per second must be positive and finite, got {rate!r}")
        rate = exact_rate(rate)
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
    with open_container(stream) as container:
        for position, frame in enumerate(decoded_frames(container, opened_video(container))):
            if position in wanted:
                frames.append(prepare(_to_rgb(frame, background)))
                if len(frames) == len(wanted):
                    break
    return frames, samples


def _scan(stream):
    """Read time stamps without decoding; give a timeline and the stamps, or None twice if they say too little."""
    with open_container(stream) as container:
        video = opened_video(container)
        packets = [
            (packet.pts, bool(packet.is_keyframe), packet.duration or 0)
            for packet in packets_of(container, video)
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
    with open_container(stream) as container:
        video = opened_video(container)
        found = [(frame.pts, bool(frame.key_frame), frame.duration or 0) for frame in decoded_frames(container, video)]
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
    with open_container(stream) as container:
        video = opened_video(container)
        if is_key[positions].all():
            video.codec_context.skip_frame = "NONKEY"
        here, seen, source = 0, None, decoded_frames(container, video)
        for position in positions:
            key = key_before[position]
            if may_seek and key - here > _WORTH_SEEKING:
                if not _seek(container, video, stamps[key]):
                    return None
                seen = set()
                source = decoded_frames(container, video, seen)
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
        raise RejectedItem(f"frames of format {frame.format.name} cannot be converted ({reason_of(error)})") from error
    quarters = round(frame.rotation / 90) % 4
    return load_image(np.rot90(pixels, quarters) if quarters else pixels, background)
