"""Containers of video and sound: opening them safely, and decoding their streams as far as they go."""

import io
import os

from PIL import Image

from .._optional import import_optional_dependency
from ..exceptions import RejectedItem
from ._image import open_file

# Decoders that draw text as pictures.
_TEXT_CODECS = {"ansi", "bintext", "idf", "xbin"}

_READ_BYTES = 1 << 18


def is_file(item):
    """Tell whether an item is a file, by its path or its bytes, rather than frames in memory."""
    return isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview))


def open_item(item):
    """Open such an item for reading, or refuse it."""
    if isinstance(item, (str, os.PathLike)):
        return open_file(item, "a video file")
    if len(item) == 0:
        raise RejectedItem("no bytes at all, expected those of a video file")
    return io.BytesIO(item)


class _Nameless:
    """A file without its name, which would have a say in what format it is taken for."""

    def __init__(self, stream):
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell


def open_container(stream):
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
            f"the content is not a video in a format that PyAV can read, or its header is damaged ({reason_of(error)})"
        ) from error


def reason_of(error):
    """Give what an error of the library says, without its type and the name of the file."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def video_stream(container):
    """Give the video stream of a container: no cover of an album, no text drawn as pictures; else None."""
    from av.stream import Disposition

    for stream in [container.streams.best("video"), *container.streams.video]:
        if not has_decoder(stream) or stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context.name not in _TEXT_CODECS:
            return stream
    return None


def has_decoder(stream):
    """Tell whether there is a stream, and its codec is known here."""
    return stream is not None and stream.codec_context is not None


def opened_video(container):
    """Give the video stream, ready to be decoded, or refuse the file."""
    stream = video_stream(container)
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


def packets_of(container, stream):
    """Yield the packets of a stream that are whole, up to where the file is damaged."""
    import av

    try:
        for packet in container.demux(stream):
            if not packet.is_corrupt:
                yield packet
    except (av.error.FFmpegError, OSError):
        return


def decoded_frames(container, stream, seen=None):
    """Yield the frames of a stream that can be decoded, and note the time stamps of keyframes that were read."""
    import av

    def decode(packet):
        try:
            return stream.codec_context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            return ()

    for packet in packets_of(container, stream):
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
