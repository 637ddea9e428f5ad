"""MP3 files that do not say how long they are are read to their end, and OGG files that were cut off are refused."""

import io
import struct

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skmm.exceptions import RejectedItem
from skmm.media._sound import load_audio

av = pytest.importorskip("av", reason='needs pip install "skmm[video]"')
soundfile = pytest.importorskip("soundfile", reason='needs pip install "skmm[audio]"')

ID3 = b"ID3\x04\0\0" + bytes([0, 0, 2, 0]) + bytes(256)


def noise(rate, seconds, seed=0):
    """Noise that comes and goes, for the bit rate to vary."""
    times = np.arange(int(rate * seconds)) / rate
    swell = np.abs(np.sin(2 * times)) ** 8
    return (np.random.default_rng(seed).normal(0, 8000, len(times)) * swell).clip(-32768, 32767).astype(np.int16)


def written(waveform, rate, format, codec, layout="mono", varying=False, **options):
    """A file of ffmpeg."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if varying:
            # "qscale", in units of 1 / 118.
            stream.codec_context.flags |= 2
            stream.codec_context.global_quality = 4 * 118
        else:
            stream.bit_rate = 64000
        n_channels = {"mono": 1, "stereo": 2}[layout]
        frame = av.AudioFrame.from_ndarray(np.repeat(waveform, n_channels)[None], format="s16", layout=layout)
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return buffer.getvalue()


def mp3(rate, seconds, has_header, **options):
    options |= {"write_xing": str(int(has_header)), "id3v2_version": "0", "write_id3v1": "0"}
    return written(noise(rate, seconds), rate, "mp3", "libmp3lame", **options)


def assert_same_sound(found, expected):
    """Equal but for the silence that encoders put before and after, some 1,200 samples each."""
    assert len(expected) <= len(found) < len(expected) + 3000
    loudest = max(0, int(np.argmax(np.abs(expected))) - 500)
    around = found[loudest : loudest + 4000]
    start = int(np.argmax(np.correlate(around, expected[loudest : loudest + 1000])))
    assert_allclose(found[start : start + len(expected)], expected, atol=1e-6)


@pytest.mark.parametrize("tag", [b"", ID3, ID3 + ID3], ids=["plain", "ID3v2", "twice ID3v2"])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("rate", [8000, 24000, 44100])
def test_mp3_without_a_header_is_read_to_its_end(rate, varying, layout, tag):
    options = {"layout": layout, "varying": varying}
    bare, complete = (mp3(rate, 3.7, has_header, **options) for has_header in (False, True))
    assert b"Xing" not in bare
    assert b"Info" not in bare
    assert_same_sound(load_audio(tag + bare)[0], load_audio(tag + complete)[0])


def test_mp3_whose_first_frame_is_lost(tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(24000, 3), 24000, format="MP3")
    complete = buffer.getvalue()
    second = complete.index(complete[:2], 4)
    path = tmp_path / "sound.mp3"
    path.write_bytes(complete[second:])
    assert b"Xing" in complete[:second]
    assert_same_sound(load_audio(path)[0], load_audio(complete)[0])


def test_mp3_with_a_header_that_does_not_tell_the_number_of_frames():
    complete = bytearray(mp3(24000, 2, True, varying=True))
    expected = load_audio(bytes(complete))[0]
    complete[complete.index(b"Xing") + 7] = 0
    assert_same_sound(load_audio(bytes(complete))[0], expected)


@pytest.mark.parametrize("varying", [False, True])
def test_mp3_with_a_header_of_fraunhofers_encoder(varying):
    complete = mp3(24000, 5, True, varying=varying)
    place = complete.index(b"Xing" if varying else b"Info")
    n_frames = struct.unpack(">I", complete[place + 8 : place + 12])[0]
    end = complete.index(complete[:2], 4)
    header = b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, len(complete), n_frames, 0, 1, 2, 1)
    content = complete[:4] + bytes(32) + header.ljust(end - 36, b"\0") + complete[end:]
    assert_same_sound(load_audio(content)[0], load_audio(complete)[0])
    for share in (0.2, 0.5, 0.95):
        with pytest.raises(RejectedItem, match="truncated"):
            load_audio(content[: int(share * len(content))])


@pytest.mark.parametrize("tag", [b"", ID3], ids=["plain", "ID3v2"])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_truncated_mp3_is_refused_if_it_says_how_long_it_is(varying, share, tag):
    content = tag + mp3(24000, 10, True, varying=varying)
    with pytest.raises(RejectedItem, match="truncated"):
        load_audio(content[: int(share * len(content))])


def test_of_truncated_mp3_without_a_header_counts_what_is_there():
    content = mp3(24000, 10, False)
    whole, half = load_audio(content)[0], load_audio(content[: len(content) // 2])[0]
    assert 0.48 < len(half) / len(whole) < 0.52
    assert_array_equal(half, whole[: len(half)])


def test_id3_before_other_formats():
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(8000, 1), 8000, format="FLAC")
    assert_array_equal(load_audio(ID3 + buffer.getvalue())[0], noise(8000, 1) / np.float32(2**15))


def test_mp3_with_nothing_but_its_beginning():
    content = mp3(24000, 1, False)
    for n_bytes in (2, 3, 4, 30, 100):
        with pytest.raises(RejectedItem):
            load_audio(content[:n_bytes])


def ogg(writer, seconds=60):
    rate = 48000
    waveform = noise(rate, seconds)
    if writer == "ffmpeg, Opus":
        return written(waveform, rate, "ogg", "libopus")
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, format="OGG", subtype=writer.split()[-1].upper()) as file:
        # libsndfile cannot take a minute at once.
        for start in range(0, len(waveform), rate):
            file.write(waveform[start : start + rate])
    return buffer.getvalue()


def unmarked(content):
    """An OGG whose last page is not marked as the last, as Android's recorder writes them."""
    start = content.rindex(b"OggS")
    page = bytearray(content[start:])
    page[5] &= ~4
    # Samples up to here: without the mark, those of whole packets (of Opus, 10 ms).
    position = struct.unpack("<q", page[6:14])[0]
    page[6:14] = struct.pack("<q", position if b"vorbis" in content[:64] else -(-position // 480) * 480)
    page[22:26] = bytes(4)
    remainder = 0
    for byte in page:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x04C11DB7 if remainder >> 31 else 0)) & 0xFFFFFFFF
    page[22:26] = struct.pack("<I", remainder)
    return content[:start] + bytes(page)


OGG_WRITERS = ["libsndfile, Vorbis", "libsndfile, Opus", "ffmpeg, Opus"]


@pytest.mark.parametrize("writer", OGG_WRITERS)
def test_truncated_ogg(writer):
    content = ogg(writer)
    assert len(load_audio(content)[0]) == 60 * 48000
    for share in (0.3, 0.5, 0.9, 0.99):
        with pytest.raises(RejectedItem, match="truncated: it ends in the middle of a page"):
            load_audio(content[: int(share * len(content))])
    # In the header, in its table of lengths, and in the last byte.
    last = content.rindex(b"OggS")
    for n_bytes in (last + 1, last + 4, last + 10, last + 28, len(content) - 1):
        with pytest.raises(RejectedItem, match="truncated"):
            load_audio(content[:n_bytes])


@pytest.mark.parametrize("writer", OGG_WRITERS)
@pytest.mark.parametrize("seconds", [0.001, 1, 3.7])
def test_whole_ogg(writer, seconds, tmp_path):
    content = ogg(writer, seconds)
    expected = load_audio(content)[0]
    path = tmp_path / "sound.ogg"
    path.write_bytes(content)
    assert_array_equal(load_audio(path)[0], expected)
    # A tag is no part of the last page; the second of two chained streams has its own.
    for after in (b"TAG" + bytes(125), ogg(f"libsndfile, {writer.split()[-1]}", 1)):
        assert_array_equal(load_audio(content + after)[0][: len(expected)], expected)


@pytest.mark.parametrize("writer", OGG_WRITERS[:2])
def test_ogg_without_a_mark_on_its_last_page(writer):
    content = ogg(writer, 10)
    expected = load_audio(content)[0]
    found = load_audio(unmarked(content))[0]
    # The mark also says where in the last packet the sound ends.
    assert len(expected) <= len(found) < len(expected) + 48000
    assert_array_equal(found[: len(expected)], expected)


def test_ogg_that_was_cut_between_pages_counts_as_far_as_it_goes():
    content = ogg("libsndfile, Opus", 10)
    pages = content.split(b"OggS")
    half = load_audio(b"OggS".join(pages[: len(pages) // 2]))[0]
    assert 0.3 < len(half) / (10 * 48000) < 0.6
