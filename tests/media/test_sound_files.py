"""Sound in files and videos: read to its end in every format, alike by both readers, and refused where it is cut."""

import io
import struct

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skmm.exceptions import RejectedItem
from skmm.media._sound import load_audio, load_sound_track
from skmm.media._video import sample_frames

av = pytest.importorskip("av", reason='needs pip install "skmm[audio]"')
soundfile = pytest.importorskip("soundfile", reason='needs pip install "skmm[audio]"')

ID3 = b"ID3\x04\0\0" + bytes([0, 0, 2, 0]) + bytes(256)


def noise(rate, seconds, seed=0):
    """Noise that comes and goes, for the bit rate to vary; 16 bits hold it exactly."""
    times = np.arange(int(rate * seconds)) / rate
    swell = np.abs(np.sin(2 * times)) ** 8
    return (np.random.default_rng(seed).normal(0, 8000, len(times)) * swell).clip(-32768, 32767).astype(np.int16)


def by_libsndfile(waveform, rate, format, subtype=None):
    buffer = io.BytesIO()
    channels = 1 if waveform.ndim == 1 else waveform.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, format=format, subtype=subtype) as file:
        # libsndfile cannot take a minute of OGG at once.
        for start in range(0, len(waveform), rate):
            file.write(waveform[start : start + rate])
    return buffer.getvalue()


def by_ffmpeg(waveform, rate, format, codec, layout="mono", varying=False, folder=None, **options):
    """A file of FFmpeg; those whose header is written in the end need a folder."""
    buffer = io.BytesIO() if folder is None else str(folder / "sound")
    with av.open(buffer, "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if codec == "wavpack":
            stream.codec_context.format = "s16p"
        if varying:
            # In units of 1 / 118.
            stream.options = {"flags": "+qscale", "global_quality": str(4 * 118)}
        else:
            stream.bit_rate = 64000
        n_channels = {"mono": 1, "stereo": 2}[layout]
        frame = av.AudioFrame.from_ndarray(np.repeat(waveform, n_channels)[None], format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue() if folder is None else (folder / "sound").read_bytes()


def mp3(rate, seconds, has_header, seed=0, **options):
    options |= {"write_xing": str(int(has_header)), "id3v2_version": "0", "write_id3v1": "0"}
    return by_ffmpeg(noise(rate, seconds, seed), rate, "mp3", "libmp3lame", **options)


def reason_of(item, load=load_audio, **options):
    with pytest.raises(RejectedItem) as caught:
        load(item, **options)
    return str(caught.value)


def assert_same_sound(actual, expected, atol=1e-6, padding=3000):
    """Equal but for the silence that encoders put before and after, some 1,200 samples each."""
    assert abs(len(actual) - len(expected)) <= padding
    loudest = max(0, int(np.argmax(np.abs(expected))) - 500)
    around = actual[max(0, loudest - padding) : loudest + 1000 + padding]
    shift = (
        int(np.argmax(np.correlate(around, expected[loudest : loudest + 1000]))) + max(0, loudest - padding) - loudest
    )
    start, end = max(0, -shift), min(len(expected), len(actual) - shift)
    assert end - start > 0.9 * len(expected)
    assert_allclose(actual[start + shift : end + shift], expected[start:end], atol=atol)


# Format and codec of FFmpeg, and the largest share of the loudest sample by which the sound may differ in the mean.
COMPRESSED = {
    "AAC": ("adts", "aac", 0.1),
    "M4A": ("ipod", "aac", 0.1),
    "M4A, lossless": ("ipod", "alac", 0),
    "fragmented MP4": ("mp4", "aac", 0.1),
    "MP2": ("mp2", "mp2", 0.1),
    "MP3": ("mp3", "libmp3lame", 0.1),
    "MP3 in WAV": ("wav", "libmp3lame", 0.1),
    "OGG of Opus": ("ogg", "libopus", 0.1),
    "OGG of FLAC": ("ogg", "flac", 0),
    "WebM of Opus": ("webm", "libopus", 0.1),
    "Matroska of FLAC": ("matroska", "flac", 0),
    "WMA": ("asf", "wmav2", 0.1),
    "AC-3": ("ac3", "ac3", 0.1),
    "WavPack": ("wv", "wavpack", 0),
}


def compressed(name, folder, seconds=3.0, rate=48000):
    form, codec, _ = COMPRESSED[name]
    options = {"movflags": "frag_keyframe+empty_moov"} if name == "fragmented MP4" else {}
    is_seekable = form == "ipod"
    return by_ffmpeg(noise(rate, seconds), rate, form, codec, folder=folder if is_seekable else None, **options)


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_formats_are_read_whole_and_alike(name, tmp_path):
    content = compressed(name, tmp_path)
    waveform, rate = load_audio(content)
    expected = noise(48000, 3) / np.float32(2**15)
    assert rate == 48000
    tolerance = COMPRESSED[name][2]
    if tolerance == 0:
        assert_allclose(waveform, expected, atol=1e-7)
    else:
        # Frames of the codec before and after.
        assert -3000 < len(waveform) - len(expected) < 3000
        envelope = [
            np.abs(x[: 48000 * 3 // 4800 * 4800 - 4800].reshape(-1, 4800)).mean(axis=1) for x in (waveform, expected)
        ]
        assert_allclose(*envelope, atol=tolerance * np.abs(expected).max())
    track_rate, track = load_sound_track(content)
    assert track_rate == rate
    assert_array_equal(track, waveform)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
@pytest.mark.parametrize("form", ["WAV", "FLAC", "AIFF", "OGG"])
def test_samples_equal_those_of_libsndfile(form, subtype):
    if subtype not in soundfile.available_subtypes(form):
        subtype = None
    content = by_libsndfile(np.stack([noise(16000, 1), noise(16000, 1, seed=1)], axis=1), 16000, form, subtype)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    assert_allclose(load_audio(content)[0], expected.mean(axis=1), atol=3e-7)
    assert_allclose(load_sound_track(content, mono=False)[1], expected, atol=3e-7)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS", "FLAC"])
def test_chained_ogg_is_read_whole(subtype):
    first, second = (
        by_ffmpeg(noise(48000, 1, seed), 48000, "ogg", "flac")
        if subtype == "FLAC"
        else by_libsndfile(noise(48000, 1, seed), 48000, "OGG", subtype)
        for seed in range(2)
    )
    both = load_audio(first + second)[0]
    # The overlap of frames at the joint; the end of each is cut by its own length.
    assert 96000 <= len(both) < 96000 + 1024
    assert_array_equal(both[:48000], load_audio(first)[0])
    assert_array_equal(load_sound_track(first + second)[1], both)
    if subtype == "FLAC":
        assert_array_equal(both[48000:], load_audio(second)[0])


# The samples that each link of Opus skips are no loss.
@pytest.mark.parametrize("n_links", [2, 3])
@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.5, 1, 3.7])
@pytest.mark.parametrize(("rate", "subtype"), [(16000, "VORBIS"), (16000, "OPUS"), (48000, "OPUS"), (48000, "VORBIS")])
def test_chained_ogg_of_any_length_is_no_damage(rate, subtype, seconds, n_links):
    link = by_libsndfile(noise(rate, seconds), rate, "OGG", subtype)
    n_times = len(load_audio(link)[0])
    chained = load_audio(link * n_links)[0]
    assert n_times == int(rate * seconds)
    assert_array_equal(chained, np.tile(load_audio(link)[0], n_links))


@pytest.mark.parametrize("has_header", [False, True])
def test_joined_mp3_is_read_whole(has_header):
    pieces = [mp3(24000, 2, has_header, seed) for seed in range(3)]
    joined = load_audio(b"".join(pieces))[0]
    lengths = [len(load_audio(content)[0]) for content in pieces]
    assert -1152 <= len(joined) - sum(lengths) < 3 * 3 * 1152
    assert_array_equal(load_sound_track(b"".join(pieces))[1], joined)
    assert_array_equal(joined[:40000], load_audio(pieces[0])[0][:40000])


@pytest.mark.parametrize(("form", "codec"), [("adts", "aac"), ("mp2", "mp2")])
def test_other_joined_files_are_read_whole(form, codec):
    pieces = [by_ffmpeg(noise(48000, 1, seed), 48000, form, codec) for seed in range(2)]
    assert len(load_audio(b"".join(pieces))[0]) == sum(len(load_audio(content)[0]) for content in pieces)


@pytest.mark.parametrize("tag", [b"", ID3, ID3 + ID3], ids=["plain", "ID3v2", "twice ID3v2"])
@pytest.mark.parametrize(
    ("rate", "varying", "layout"), [(8000, True, "mono"), (24000, False, "stereo"), (44100, True, "stereo")]
)
def test_mp3_without_a_header_is_read_to_its_end(rate, varying, layout, tag):
    options = {"layout": layout, "varying": varying}
    bare, complete = (mp3(rate, 3.7, has_header, **options) for has_header in (False, True))
    assert b"Xing" not in bare
    assert b"Info" not in bare
    for end in (b"", b"TAG" + bytes(125)):
        assert_same_sound(load_audio(tag + bare + end)[0], load_audio(tag + complete + end)[0])


def test_mp3_whose_first_frame_is_lost(tmp_path):
    complete = by_libsndfile(noise(24000, 3), 24000, "MP3")
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


def test_mp3_with_a_header_of_fraunhofers_encoder():
    complete = mp3(24000, 5, True, varying=True)
    place = complete.index(b"Xing")
    n_frames = struct.unpack(">I", complete[place + 8 : place + 12])[0]
    end = complete.index(complete[:2], 4)
    header = b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, len(complete), n_frames, 0, 1, 2, 1)
    content = complete[:4] + bytes(32) + header.ljust(end - 36, b"\0") + complete[end:]
    assert_same_sound(load_audio(content)[0], load_audio(complete)[0])
    for share in (0.2, 0.5, 0.95):
        assert "truncated" in reason_of(content[: int(share * len(content))])


@pytest.mark.parametrize("tag", [b"", ID3], ids=["plain", "ID3v2"])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.98])
def test_truncated_mp3_is_refused_if_it_says_how_long_it_is(varying, share, tag):
    content = tag + mp3(24000, 10, True, varying=varying)
    assert "truncated" in reason_of(content[: int(share * len(content))])


def test_of_truncated_mp3_without_a_header_counts_what_is_there():
    content = mp3(24000, 10, False)
    complete, half = load_audio(content)[0], load_audio(content[: len(content) // 2])[0]
    assert 0.48 < len(half) / len(complete) < 0.52
    # The last frame is incomplete.
    assert_array_equal(half[:-1152], complete[: len(half) - 1152])


# The others do not say how long they are.
@pytest.mark.parametrize("name", [name for name in COMPRESSED if name not in ("MP2", "AC-3")])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused(name, share, tmp_path):
    content = compressed(name, tmp_path)
    for load in (load_audio, load_sound_track):
        assert reason_of(content[: int(share * len(content))], load)


def test_id3_before_other_formats():
    content = by_libsndfile(noise(8000, 1), 8000, "FLAC")
    assert_array_equal(load_audio(ID3 + content)[0], noise(8000, 1) / np.float32(2**15))


def test_mp3_with_nothing_but_its_beginning():
    content = mp3(24000, 1, False)
    for n_bytes in (2, 3, 4, 30, 100):
        assert reason_of(content[:n_bytes])


def piped_flac(seconds=10.0):
    """A FLAC whose header leaves the number of samples and the checksum open, as written to a pipe."""
    content = bytearray(by_libsndfile(noise(48000, seconds), 48000, "FLAC"))
    # The last 36 of the 64 bits from byte 18 on are the number of samples; then follows the checksum.
    content[21] &= 0xF0
    content[22:42] = bytes(20)
    return content


def test_piped_flac():
    content = piped_flac()
    assert_array_equal(load_audio(bytes(content))[0], noise(48000, 10) / np.float32(2**15))
    for share in (0.3, 0.9, 0.999):
        assert "truncated" in reason_of(bytes(content[: int(share * len(content))]))
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    assert "damaged" in reason_of(bytes(content))


OGG_WRITERS = ["libsndfile, Vorbis", "libsndfile, Opus", "FFmpeg, Opus"]


def ogg(writer, seconds=10):
    if writer == "FFmpeg, Opus":
        return by_ffmpeg(noise(48000, seconds), 48000, "ogg", "libopus")
    return by_libsndfile(noise(48000, seconds), 48000, "OGG", writer.split()[-1].upper())


def unmarked(content):
    """An OGG whose last page is not marked as the last, as Android's recorder writes them."""
    start = content.rindex(b"OggS")
    page = bytearray(content[start:])
    page[5] &= ~4
    # Samples up to this page: without the mark, those of complete packets (of Opus, 10 ms).
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


@pytest.mark.parametrize("writer", OGG_WRITERS)
def test_truncated_ogg(writer):
    content = ogg(writer)
    assert len(load_audio(content)[0]) == 10 * 48000
    for share in (0.3, 0.9, 0.99):
        assert "truncated: it ends in the middle of a page" in reason_of(content[: int(share * len(content))])
    # In the header, in its table of lengths, and in the last byte.
    last = content.rindex(b"OggS")
    for n_bytes in (last + 1, last + 4, last + 10, last + 28, len(content) - 1):
        assert "truncated" in reason_of(content[:n_bytes])


@pytest.mark.parametrize("writer", OGG_WRITERS)
@pytest.mark.parametrize("seconds", [1, 10])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_damage_inside_an_ogg(writer, seconds, share):
    content = bytearray(ogg(writer, seconds))
    content[int(share * len(content))] ^= 1
    assert "damaged" in reason_of(bytes(content))
    # A byte that is lost.
    del content[int(share * len(content))]
    assert reason_of(bytes(content)).startswith(("the file is damaged", "the file is truncated"))


@pytest.mark.parametrize("writer", OGG_WRITERS)
@pytest.mark.parametrize("seconds", [0.001, 1, 3.7])
def test_complete_ogg(writer, seconds, tmp_path):
    content = ogg(writer, seconds)
    expected = load_audio(content)[0]
    assert len(expected) == int(48000 * seconds)
    path = tmp_path / "sound.ogg"
    path.write_bytes(content)
    assert_array_equal(load_audio(path)[0], expected)
    # A tag does not belong to the last page.
    assert_array_equal(load_audio(content + b"TAG" + bytes(125))[0], expected)


@pytest.mark.parametrize("writer", OGG_WRITERS[:2])
def test_ogg_without_a_mark_on_its_last_page(writer):
    content = ogg(writer, 10)
    expected = load_audio(content)[0]
    actual = load_audio(unmarked(content))[0]
    # The mark also says where in the last packet the sound ends.
    assert len(expected) <= len(actual) < len(expected) + 48000
    assert_array_equal(actual[: len(expected)], expected)


def test_ogg_that_was_cut_between_pages_counts_as_far_as_it_goes():
    content = ogg("libsndfile, Opus", 10)
    pages = content.split(b"OggS")
    half = load_audio(b"OggS".join(pages[: len(pages) // 2]))[0]
    assert 0.3 < len(half) / (10 * 48000) < 0.6


@pytest.mark.parametrize(("form", "codec"), [("adts", "aac"), ("ogg", "libopus"), ("mp3", "libmp3lame")])
def test_files_whose_rate_changes_are_refused(form, codec):
    pieces = [by_ffmpeg(noise(rate, 1), rate, form, codec) for rate in (48000, 24000)]
    assert "sampling rate changes" in reason_of(b"".join(pieces))


def test_files_of_other_kinds_say_so(make_video):
    assert reason_of(make_video(3)) == "the file has no sound track"
    assert "no sound or video" in reason_of(b"just a text\n" * 40)


def test_too_long_sound_is_not_decoded_to_its_end(make_video, monkeypatch):
    monkeypatch.setattr("skmm.media._sound._MAX_SAMPLES", 20_000)
    video = make_video(5, sound=np.zeros((2, 80_000), np.int16))
    piece = by_ffmpeg(noise(48000, 2), 48000, "ogg", "libopus")
    for item in (video, piece):
        for load in (load_audio, load_sound_track):
            assert "would have more than 20000 samples; cut it into parts" in reason_of(item, load)
    # All channels are in memory where they are kept.
    stereo = make_video(5, sound=np.zeros((2, 12_000), np.int16))
    assert len(load_sound_track(stereo)[1]) == 12_000
    assert "would have more than" in reason_of(stereo, load_sound_track, mono=False)
    # Also by resampling.
    monkeypatch.setattr("skmm.media._sound._MAX_SAMPLES_BEYOND", 20_000)
    assert "would have more than" in reason_of(stereo, load_sound_track, rate=200_000)


class TestTracksOfVideos:
    def sound(self, n_times=8000):
        return np.random.default_rng(0).integers(-(2**15), 2**15, (2, n_times)).astype(np.int16)

    def test_samples_are_those_of_the_track(self, make_video):
        sound = self.sound()
        video = make_video(5, sound=sound[:1])
        rate, waveform = load_sound_track(video)
        assert rate == 8000
        assert waveform.dtype == np.float32
        assert_array_equal(waveform, sound[0] / np.float32(2**15))
        assert_array_equal(load_audio(video)[0], waveform)

    def test_channels(self, make_video):
        sound = self.sound()
        video = make_video(5, sound=sound)
        _, waveform = load_sound_track(video, mono=False)
        assert_array_equal(waveform, sound.T / np.float32(2**15))
        _, waveform = load_sound_track(video)
        assert waveform.shape == (8000,)
        assert_allclose(waveform, sound.mean(axis=0) / 2**15, atol=1e-6)

    @pytest.mark.parametrize("mono", [True, False])
    def test_resampling(self, make_video, mono):
        wave = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
        sound = np.round(2**14 * np.stack([wave, -wave / 2])).astype(np.int16)
        video = make_video(5, sound=sound, sampling_rate=16000)
        rate, resampled = load_sound_track(video, 8000, mono)
        assert rate == 8000
        assert len(resampled) == 8000
        expected = sound[:, 200:15800:2].T / 2**15
        assert_allclose(resampled[100:7900], expected.mean(axis=1) if mono else expected, atol=2e-3)
        if mono:
            assert_array_equal(load_audio(video, 8000)[0], resampled)

    def test_ogg_of_pictures(self, make_video):
        frames = [np.full((32, 32, 3), 10 * i, np.uint8) for i in range(20)]
        options = {"frames": frames, "codec": "libvpx", "container": "ogg", "pixels": "yuv420p"}
        assert load_sound_track(make_video(**options)) is None
        content = make_video(**options, sound=self.sound(80_000)[:1], sound_codec="flac")
        complete = load_sound_track(content)[1]
        assert_array_equal(load_audio(content)[0], complete)
        assert 0 < len(load_sound_track(content[: len(content) // 2])[1]) < len(complete)

    def test_no_sound(self, make_video):
        assert load_sound_track(make_video(5)) is None
        frames = np.zeros((4, 8, 8), dtype=np.uint8)
        assert load_sound_track(frames) is None
        assert load_sound_track((10, list(frames))) is None

    def test_dicts_of_files(self, make_video, tmp_path):
        path = tmp_path / "film.mkv"
        path.write_bytes(make_video(5, sound=self.sound()))
        expected = load_sound_track(path)[1]
        for item in ({"bytes": path.read_bytes(), "path": "gone.mkv"}, {"bytes": None, "path": str(path)}):
            assert_array_equal(load_sound_track(item)[1], expected)

    @pytest.mark.parametrize("item", [b"", b"just a text\n" * 40, 3, np.zeros(3), [], "nowhere.mp4", {"path": None}])
    def test_items_that_are_no_video_give_the_same_reason_as_for_frames(self, item):
        assert reason_of(item, load_sound_track) == reason_of(item, sample_frames)

    def test_of_a_truncated_video_counts_what_can_be_decoded(self, make_video):
        sound = self.sound(80_000)[:1]
        frames = [np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8) for i in range(100)]
        content = make_video(frames=frames, codec="mpeg4", pixels="yuv420p", sound=sound, sound_codec="aac")
        complete = load_sound_track(content)[1]
        cut = content[: int(0.99 * len(content))]
        _, waveform = load_sound_track(cut)
        assert 0 < len(waveform) < len(complete)
        assert_array_equal(waveform, complete[: len(waveform)])
        assert_array_equal(load_audio(cut)[0], waveform)


@pytest.mark.parametrize(("table", "ends_the_file"), [(b"stsz", False), (b"stsz", True), (b"trun", False)])
def test_what_the_header_of_an_mp4_claims_is_not_allocated(make_video, table, ends_the_file, tmp_path):
    fragments = {"movflags": "frag_keyframe+empty_moov"} if table == b"trun" else {}
    options = {"codec": "mpeg4", "container": "mp4", "pixels": "yuv420p", "options": fragments}
    content = bytearray(make_video(path=tmp_path / "film.mp4", **options))
    assert len(sample_frames(bytes(content))[0]) > 0
    place = content.index(table) + 8
    # One size for 30 million samples, of which FFmpeg would make an index of 1 GB.
    content[place : place + 8] = struct.pack(">II", *((100, 30_000_000) if table == b"stsz" else (30_000_000, 0)))
    if ends_the_file:
        # A length of 0 means that the box is the last one.
        place = content.index(b"moov")
        assert place - 4 + int.from_bytes(content[place - 4 : place]) == len(content)
        content[place - 4 : place] = bytes(4)
    for load in (load_audio, load_sound_track, sample_frames):
        assert "it declares 30000000 samples in" in reason_of(bytes(content), load)
