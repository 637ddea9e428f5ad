"""Containers of video and sound: opening them safely, their streams and the packets of these."""

import os
import re
import struct

from .._optional import import_optional_dependency
from ..exceptions import RejectedItem
from ._files import reason_of

# Decoders that draw text as pictures.
_TEXT_CODECS = {"ansi", "bintext", "idf", "xbin"}

_READ_BYTES = 1 << 18

# Tables of an MP4 that state how many samples there are without listing them, in the header and in fragments.
_SAMPLE_COUNTS = {
    b"moov": re.compile(rb"stsz.{4}(?!\0{4}).{4}(.{4})", re.DOTALL),
    b"moof": re.compile(rb"trun.{4}(.{4})", re.DOTALL),
}
_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}


class NamelessFile:
    """A file without its name, from whose ending libraries would guess a format."""

    def __init__(self, stream):
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell


def open_container(stream):
    """Return an open container of PyAV, which reads nothing but this stream; the caller closes it.

    Raise RejectedItem if FFmpeg does not know the format, or the header is damaged.
    """
    av = import_optional_dependency("av", "video")
    _check_sample_counts(stream)
    stream.seek(0)
    try:
        return av.open(
            NamelessFile(stream),
            # Playlists and session descriptions name other files and hosts.
            container_options={"protocol_whitelist": "none"},
            buffer_size=_READ_BYTES,
            metadata_errors="replace",
        )
    # FFmpeg's refusal of a table of the size that a damaged header claims is a MemoryError too, and an FFmpegError.
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise RejectedItem(
            f"the content is no sound or video in a format that FFmpeg can read, or its header is damaged "
            f"({reason_of(error)})"
        ) from error


def _check_sample_counts(stream):
    """Raise if an MP4 claims more samples than it has bytes: FFmpeg would allocate an index of them on opening."""
    size = stream.seek(0, os.SEEK_END)
    start, length = 0, 8
    while length >= 8 and start + 8 <= size:
        stream.seek(start)
        length, name = struct.unpack(">I4s", stream.read(8))
        if start == 0 and name not in _FIRST_BOXES:
            return
        if length == 1:
            length = int.from_bytes(stream.read(8))
        elif length == 0:
            # The last box, up to the end of the file.
            length = size - start
        for count in _SAMPLE_COUNTS[name].findall(stream.read(length)) if name in _SAMPLE_COUNTS else ():
            n_samples = int.from_bytes(count)
            if n_samples > size:
                raise RejectedItem(f"the header is damaged: it declares {n_samples} samples in {size} bytes")
        start += length


def video_stream(container):
    """Return the video stream, no cover of an album and no text drawn as pictures; None if there is none."""
    from av.stream import Disposition

    for stream in [container.streams.best("video"), *container.streams.video]:
        if not has_decoder(stream) or stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context.name not in _TEXT_CODECS:
            return stream
    return None


def has_decoder(stream):
    """Return whether there is a stream, and FFmpeg can decode it."""
    return stream is not None and stream.codec_context is not None
