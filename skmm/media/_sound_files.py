"""What libsndfile does not say of sound files: whether an MP3 declares its length, and whether an OGG was cut off.

It guesses the length of an MP3 without a header of its own from its size and the bit rate at its beginning, and
reads no further than that.
"""

import io
import struct

_ID3_HEADER = 10
# Bytes from which the first frame, and the header that gives the length of the file, can be read.
_MP3_HEAD = 64

# A page of an OGG begins with its name and version. Behind its header are up to 255 lengths of up to 255 bytes.
_OGG_PAGE = b"OggS\0"
_OGG_PAGE_HEADER = 27
_LONGEST_OGG_PAGE = _OGG_PAGE_HEADER + 255 + 255 * 255

# Bytes of the shortest frame there is, of 8 kbit/s at 24 kHz.
_SHORTEST_MP3_FRAME = 24


def open_mp3(stream):
    """Have the length of an MP3 declared where its first frame does not, for it to be read to its end.

    Parameters
    ----------
    stream : binary file
        Any sound file, at its beginning.

    Returns
    -------
    stream : binary file
        The file itself unless it is an MP3 without a Xing or Info header. To those a frame with such a header is
        prepended: it declares what their VBRI header does, or else more frames than there can be.

    has_length : bool
        Whether the file can tell how long it is; False for an MP3 without any of these headers.
    """
    start = _skip_id3(stream)
    stream.seek(start)
    head = stream.read(_MP3_HEAD)
    stream.seek(0)
    if not _is_layer_3(head):
        return stream, True
    is_mpeg_1, is_mono = head[1] & 0b1000, head[3] >> 6 == 3
    side_bytes = (17 if is_mono else 32) if is_mpeg_1 else (9 if is_mono else 17)
    tag = head[4 + side_bytes :]
    # The first of its flags says that the number of frames follows.
    if tag[:4] in (b"Xing", b"Info") and tag[7:8] and tag[7] & 1:
        return stream, True
    stream.seek(start)
    content = stream.read()
    has_length = head[36:40] == b"VBRI" and len(head) >= 54
    # The frame of the header is decoded like any other, and counts.
    n_frames = struct.unpack(">I", head[50:54])[0] + 1 if has_length else len(content) // _SHORTEST_MP3_FRAME + 1
    # No checksum, 64 kbit/s or 40 of the lower rates, no padding: room for the header at all sampling rates.
    frame = bytes([0xFF, head[1] | 1, 0x50 | head[2] & 0b1100, head[3]]) + bytes(side_bytes)
    frame += struct.pack(">4sII", b"Xing", 1, min(n_frames, 2**32 - 1))
    return io.BytesIO(frame.ljust(_frame_bytes(head), b"\0") + content), has_length


def _skip_id3(stream):
    """Position behind the ID3v2 tags at the beginning of a file."""
    start = 0
    while True:
        stream.seek(start)
        tag = stream.read(_ID3_HEADER)
        if len(tag) < _ID3_HEADER or tag[:3] != b"ID3":
            return start
        size = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        start += size + _ID3_HEADER * (2 if tag[5] & 0b10000 else 1)


def _is_layer_3(head):
    """Whether a frame of MPEG audio, layer III, begins here."""
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] & 0b11000 != 0b01000
        and head[1] & 0b110 == 0b010
        and head[2] >> 4 != 15
        and head[2] & 0b1100 != 0b1100
    )


def _frame_bytes(head):
    """Length of the frame that is prepended."""
    halvings = {3: 0, 2: 1, 0: 2}[head[1] >> 3 & 3]
    rate = (44100, 48000, 32000)[head[2] >> 2 & 3] >> halvings
    return 72 * 40_000 // rate if halvings else 144 * 64_000 // rate


def is_cut_ogg(stream):
    """Whether an OGG ends in the middle of a page.

    Parameters
    ----------
    stream : binary file
        An OGG.

    Returns
    -------
    is_cut : bool
        False as well for files that end with a whole page that is not marked as the last: some recorders (that of
        Android, for one) never mark it, so this is no sign of damage. What follows a page so marked is no sound.
    """
    size = stream.seek(0, io.SEEK_END)
    # A page that was cut off is shorter, and so is one that is followed by less than the name of the next.
    stream.seek(max(0, size - _LONGEST_OGG_PAGE - len(_OGG_PAGE)))
    tail = stream.read()
    start = tail.rfind(_OGG_PAGE)
    if start < 0:
        return False
    page = tail[start:]
    if len(page) < _OGG_PAGE_HEADER:
        return True
    n_segments = page[26]
    end = _OGG_PAGE_HEADER + n_segments + sum(page[_OGG_PAGE_HEADER : _OGG_PAGE_HEADER + n_segments])
    is_last = page[5] & 4
    return len(page) < end or (len(page) > end and not is_last)
