"""Decoding of videos: from any form of an item to a few frames, or :class:`RejectedItem`."""

import sys
from collections.abc import Mapping
from fractions import Fraction
from numbers import Real

import numpy as np
from PIL import Image

from .._columns import shorten
from ..exceptions import RejectedItem
from ._container import open_container, video_stream
from ._files import describe_keys, is_file, open_file, reason_of, unwrap_file
from ._image import load_image
from ._timeline import Timeline, choose_frames, exact_rate

# Number of frames up to a later keyframe from which seeking to it is cheaper than decoding all of them.
_WORTH_SEEKING = 12

# Decoders that read the alpha channel, which WebM keeps apart from the colours.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def sample_frames(item, sampling="uniform", n_frames=8, fps=1.0, background="white", prepare=None):
    """Decode some frames of a video, one by one: memory never holds the whole video.

    An item is a path or the bytes of a file, a dict with "bytes" or "path", an array (frames, height, width) or
    (frames, height, width, channels), a list of images in any form that :func:`load_image` takes, or a pair of a number
    of frames per second and one of these two. Which frames is decided as by :func:`choose_frames`. ``prepare`` is
    applied to each, an array (height, width, 3) of uint8, as soon as it is decoded.

    Return a list of the results for each distinct frame, in the order of time, and an array with the position in it of
    each chosen frame.
    """

    def choose(timeline):
        return choose_frames(timeline, sampling, n_frames, fps)

    prepare = prepare or (lambda frame: frame)
    file = unwrap_file(item)
    if is_file(file):
        with open_file(file, "a video file") as stream:
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
    """Return frames in memory as a sequence of images, and their rate as a Fraction or None."""
    if isinstance(item, Mapping):
        raise RejectedItem(f'a dict must have "bytes" or "path" of a video, got the keys {describe_keys(item)}')
    rate = None
    is_pair = isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], (np.ndarray, list, tuple))
    if is_pair and isinstance(item[0], Real) and not isinstance(item[0], bool):
        rate, item = item
        # Integers beyond the range of floats are numbers as well.
        if not 0 < rate <= sys.float_info.max:
            raise RejectedItem(f"frames per second must be positive and finite, got {shorten(repr(rate))}")
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
    """Choose frames by the packets' time stamps, without decoding; if that fails, by the frames that decode."""
    timeline, stamps = _read_stamps(stream, background)
    if timeline is not None:
        positions, samples = np.unique(choose(timeline), return_inverse=True)
        for may_seek in (True, False):
            frames = _decode_positions(stream, stamps, timeline.is_key, positions, may_seek, background, prepare)
            if frames is not None:
                return frames, samples
    timeline = _decode_timeline(stream, background)
    positions, samples = np.unique(choose(timeline), return_inverse=True)
    remaining, frames = set(positions.tolist()), []
    with open_container(stream) as container:
        video = _Video(container, background)
        for position, frame in enumerate(video.frames()):
            if position in remaining:
                frames.append(prepare(video.to_rgb(frame)))
                remaining.remove(position)
            if not remaining:
                break
    return frames, samples


def _read_stamps(stream, background):
    """Return a timeline and the time stamps of all frames, read without decoding; None twice if they say too little."""
    with open_container(stream) as container:
        video = _Video(container, background)
        packets = [
            (packet.pts, bool(packet.is_keyframe), packet.duration or 0)
            for packet in video.packets()
            if not packet.is_discard
        ]
        tick = video.stream.time_base
    stamps = {pts for pts, _, _ in packets}
    if not packets or None in stamps or len(stamps) < len(packets) or not tick:
        return None, None
    packets.sort()
    times, is_key, durations = (list(values) for values in zip(*packets, strict=True))
    return Timeline.of_stamps(times, durations[-1], Fraction(tick), is_key), times


def _decode_timeline(stream, background):
    """Decode the whole video; return the timeline of the frames that can be decoded."""
    with open_container(stream) as container:
        video = _Video(container, background)
        frames = [(frame.pts, bool(frame.key_frame), frame.duration or 0) for frame in video.frames()]
        tick, rate = video.stream.time_base, video.stream.average_rate or video.stream.guessed_rate
    if not frames:
        raise RejectedItem("no frame of the video can be decoded")
    times, is_key, durations = (list(values) for values in zip(*frames, strict=True))
    if tick and None not in times and (np.diff(times) > 0).all():
        return Timeline.of_stamps(times, durations[-1], Fraction(tick), is_key)
    return Timeline.of_count(len(frames), 1 / Fraction(rate) if rate else None, is_key)


def _decode_positions(stream, stamps, is_key, positions, may_seek, background, prepare):
    """Decode the frames at some positions of a list of time stamps; return None if one of them cannot be reached."""
    # For each frame the position of the last keyframe up to it, or 0 if there is none.
    key_before = np.maximum.accumulate(np.where(is_key, np.arange(len(stamps)), 0))
    results = []
    with open_container(stream) as container:
        video = _Video(container, background)
        if is_key[positions].all():
            video.skip_all_but_keyframes()
        current, keyframes, frames = 0, None, video.frames()
        for position in positions:
            key = key_before[position]
            if may_seek and key - current > _WORTH_SEEKING:
                if not video.seek(stamps[key]):
                    return None
                keyframes = set()
                frames = video.frames(keyframes)
            for frame in frames:
                if frame.pts is not None and frame.pts >= stamps[position]:
                    break
            else:
                return None
            # Some formats seek inexactly, and a frame that is decoded without its keyframe shows garbage.
            if frame.pts != stamps[position] or (keyframes is not None and stamps[key] not in keyframes):
                return None
            current = position
            results.append(prepare(video.to_rgb(frame)))
    return results


class _Video:
    """The video stream of an open container, and the decoder of its frames.

    RejectedItem is raised if the container has no video, or one of more pixels than Pillow's limit.
    """

    def __init__(self, container, background):
        self._container = container
        self._background = background
        self.stream = video_stream(container)
        if self.stream is None:
            raise RejectedItem("the file has no video stream, or none that can be decoded")
        self._decoder = self._make_decoder()
        self._check_size(self._decoder.width, self._decoder.height)
        if Image.MAX_IMAGE_PIXELS is not None:
            # The size of the frames may grow within a stream.
            self._decoder.options = {**self._decoder.options, "max_pixels": str(Image.MAX_IMAGE_PIXELS)}
        # Videos are decoded side by side, each in a thread of its own.
        self._decoder.thread_count = 1

    def _make_decoder(self):
        """Return FFmpeg's own decoder, or for VP8 and VP9 with transparency libvpx's, which alone yields it."""
        import av

        context = self.stream.codec_context
        name = _ALPHA_DECODERS.get(context.name)
        if name is None or self.stream.metadata.get("alpha_mode") != "1":
            return context
        decoder = av.CodecContext.create(name, "r")
        decoder.extradata = context.extradata
        decoder.width, decoder.height = context.width, context.height
        return decoder

    def _check_size(self, width, height):
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and width * height > limit:
            raise RejectedItem(
                f"too large to decode safely: it declares frames of {width} x {height} pixels, the limit is {limit}; "
                "make the video smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            )

    def packets(self):
        """Yield the packets that are whole, up to where the file is damaged."""
        import av

        try:
            for packet in self._container.demux(self.stream):
                # The last packet is empty and means the end.
                if packet.size and not packet.is_corrupt:
                    yield packet
        except (av.error.FFmpegError, OSError):
            return

    def frames(self, keyframes=None):
        """Yield the frames that can be decoded; the time stamps of keyframes that were read go into a set."""
        for packet in self.packets():
            if keyframes is not None and packet.is_keyframe:
                keyframes.add(packet.pts)
            yield from self._decode(packet)
        yield from self._decode(None)

    def _decode(self, packet):
        import av

        try:
            return [frame for frame in self._decoder.decode(packet) if not frame.is_corrupt]
        except (av.error.FFmpegError, ValueError):
            return []

    def skip_all_but_keyframes(self):
        """Decode keyframes only, where the decoder can skip others."""
        self._decoder.skip_frame = "NONKEY"

    def seek(self, stamp):
        """Go to the last keyframe up to a time stamp; return whether that was possible."""
        import av

        try:
            self._container.seek(stamp, stream=self.stream, backward=True)
        except (av.error.FFmpegError, OSError, ValueError):
            return False
        self._decoder.flush_buffers()
        return True

    def to_rgb(self, frame):
        """Return a decoded frame as it is to be seen: upright, of square pixels, in red, green and blue."""
        import av

        has_alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
        width = max(1, round(frame.width * (self.stream.sample_aspect_ratio or 1)))
        self._check_size(width, frame.height)
        try:
            pixels = frame.to_ndarray(format="rgba" if has_alpha else "rgb24", width=width)
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise RejectedItem(
                f"frames of format {frame.format.name} cannot be converted ({reason_of(error)})"
            ) from error
        return load_image(_upright(pixels, frame), self._background)


def _upright(pixels, frame):
    """Return pixels turned and mirrored as the display matrix of a frame says."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # A pixel (x, y) is shown at (a x + c y, b x + d y), up to a shift.
    a, b, _, c, d, *_ = np.frombuffer(matrix, dtype=np.int32).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
