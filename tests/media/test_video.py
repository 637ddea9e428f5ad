"""The frames that are chosen are the right ones in every container; what is no video says why."""

import builtins
import io
import struct
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from skmm.exceptions import RejectedItem
from skmm.media import _video
from skmm.media._image import load_image
from skmm.media._sound import load_sound_track
from skmm.media._video import sample_frames

pytest.importorskip("av")

FORMATS = {
    "ffv1": {},
    "mp4": {"codec": "libx264", "container": "mp4", "pixels": "yuv420p"},
    "mpeg4": {"codec": "mpeg4", "container": "mp4", "pixels": "yuv420p"},
    "avi": {"codec": "mpeg4", "container": "avi", "pixels": "yuv420p"},
    "webm": {"codec": "libvpx-vp9", "container": "webm", "pixels": "yuv420p"},
    "matroska": {"codec": "libx264", "pixels": "yuv420p"},
    "transport stream": {"codec": "libx264", "container": "mpegts", "pixels": "yuv420p"},
    "raw": {"codec": "libx264", "container": "h264", "pixels": "yuv420p"},
    "gif": {"codec": "gif", "container": "gif", "pixels": "rgb8"},
    "mjpeg": {"codec": "mjpeg", "container": "avi", "pixels": "yuvj420p"},
}


@pytest.fixture(params=FORMATS)
def any_format(request, make_video):
    return lambda *args, **options: make_video(*args, **{**FORMATS[request.param], **options})


# A raw stream carries no times.
TIMED = [name for name in FORMATS if name != "raw"]


def numbers(item, *args, **options):
    """Which of the grey frames were chosen, in order and as often."""
    frames, samples = sample_frames(item, *args, **options)
    found = np.array([frame.mean() for frame in frames]) / 5
    assert np.abs(found - found.round()).max() < 0.45
    return found.round().astype(int)[samples].tolist()


def grey(n_frames, height=8, width=8):
    return np.repeat(5 * np.arange(n_frames, dtype=np.uint8), height * width).reshape(n_frames, height, width)


def reason_of(item, **options):
    with pytest.raises(RejectedItem) as caught:
        sample_frames(item, **options)
    return str(caught.value)


class TestSampling:
    @pytest.mark.parametrize("n_frames", [1, 4, 5, 25])
    def test_uniform_takes_the_middle_of_equal_parts(self, any_format, n_frames):
        expected = [(2 * i + 1) * 25 // (2 * n_frames) for i in range(n_frames)]
        assert numbers(any_format(), n_frames=n_frames) == expected

    def test_uniform_repeats_frames_of_short_videos(self, make_video):
        assert numbers(make_video(3), n_frames=7) == [0, 0, 1, 1, 1, 2, 2]
        frames, _ = sample_frames(make_video(3), n_frames=7)
        assert len(frames) == 3

    @pytest.mark.parametrize("fps", [1, 2.5, 5, 10, 20, 0.01])
    @pytest.mark.parametrize("name", TIMED)
    def test_fps(self, make_video, name, fps):
        expected = [int(k * 10 / fps + 1e-6) for k in range(int(np.ceil(2.5 * fps)))]
        assert numbers(make_video(**FORMATS[name]), "fps", 1000, fps) == expected

    @pytest.mark.parametrize("fps", [29.97, 30, 10, 7])
    def test_fps_where_the_container_rounds_times(self, make_video, fps):
        # Matroska's clock has a tick of 1 ms.
        video = make_video(50, rate=30)
        assert numbers(video, "fps", 1000, fps) == [
            int(k * 30 / fps + 1 / 16) for k in range(int(np.ceil(50 / 30 * fps - 1e-3)))
        ]

    def test_fps_gives_as_many_as_asked_at_most(self, make_video):
        assert numbers(make_video(), "fps", 5, 10) == [2, 7, 12, 17, 22]

    def test_keyframes(self, make_video):
        assert numbers(make_video(45, gop=20), "keyframes", 8) == [0, 20, 40]
        assert numbers(make_video(45, gop=5), "keyframes", 3) == [5, 20, 35]
        assert numbers(make_video(7, gop=1), "keyframes", 8) == list(range(7))
        assert numbers(make_video(45, gop=20, **FORMATS["webm"]), "keyframes", 8) == [0, 20, 40]

    def test_time_counts_where_the_rate_varies(self, make_video):
        # Frames 0 to 8 within a second, frame 9 from then on; the last one stays as long as the usual gap.
        video = make_video(11, stamps=[*range(9), 10, 99])
        assert numbers(video, n_frames=5) == [9, 9, 9, 9, 9][:0] + [8 + (10 * k + 10 >= 10) for k in range(5)]
        assert numbers(video, "fps", 100, 1) == [0, *[9] * 9]
        assert numbers(video, "fps", 100, 2)[:3] == [0, 5, 9]

    def test_frames_in_memory(self):
        clip = grey(25)
        assert numbers(clip, n_frames=5) == [2, 7, 12, 17, 22]
        assert numbers(list(clip), n_frames=5) == [2, 7, 12, 17, 22]
        assert numbers(clip, "keyframes", 5) == [2, 7, 12, 17, 22]
        assert numbers((10, clip), "fps", 100, 2.5) == [0, 4, 8, 12, 16, 20, 24]
        assert numbers((10.0, list(clip)), "fps", 100, 2.5) == [0, 4, 8, 12, 16, 20, 24]
        assert numbers((1e-9, clip[:2]), "fps", 100, 1e-9) == [0, 1]
        assert numbers((10, clip), "fps", 2, 1e300) == [6, 18]
        assert "pass (frame_rate, frames)" in reason_of(clip, sampling="fps")

    def test_only_the_chosen_frames_are_kept(self, make_video):
        kept = []
        sample_frames(make_video(), n_frames=3, prepare=lambda frame: kept.append(frame.shape))
        assert kept == [(48, 64, 3)] * 3


class TestSeeking:
    """Far frames are reached by seeking; that must change nothing but the work."""

    @pytest.fixture
    def attempts(self, monkeypatch):
        found, original = [], _video._decode_positions

        def note(stream, stamps, is_key, positions, may_seek, *args):
            frames = original(stream, stamps, is_key, positions, may_seek, *args)
            found.append((may_seek, frames is not None))
            return frames

        monkeypatch.setattr(_video, "_decode_positions", note)
        return found

    @pytest.mark.parametrize("sampling", ["uniform", "keyframes", "fps"])
    def test_frames_are_those_of_decoding_all(self, any_format, sampling, monkeypatch):
        frames = [np.full((32, 32, 3), 5 * (i % 50), np.uint8) for i in range(150)]
        video = any_format(frames=frames, gop=25)
        found, samples = sample_frames(video, sampling, 3, 0.2)
        with monkeypatch.context() as patch:
            patch.setattr(_video, "_read_stamps", lambda *_: (None, None))
            expected, expected_samples = sample_frames(video, sampling, 3, 0.2)
        assert_array_equal(samples, expected_samples)
        assert_array_equal(found, expected)

    def test_far_frames_are_not_reached_by_decoding(self, make_video, attempts, monkeypatch):
        decoded = []
        to_frames = _video._Video.frames

        def note(video, keyframes=None):
            for frame in to_frames(video, keyframes):
                decoded.append(frame.pts)
                yield frame

        monkeypatch.setattr(_video._Video, "frames", note)
        frames = [np.full((32, 32, 3), i, np.uint8) for i in range(200)]
        sample_frames(make_video(frames=frames, gop=20), n_frames=2)
        assert attempts == [(True, True)]
        assert len(decoded) < 60

    def test_seeking_that_lands_elsewhere_is_noticed(self, make_video, attempts, monkeypatch):
        frames = [np.full((32, 32, 3), i, np.uint8) for i in range(200)]
        video = make_video(frames=frames, gop=20)
        original = _video._Video.seek
        monkeypatch.setattr(_video._Video, "seek", lambda video, stamp: original(video, 0))
        # Landing too early costs time only.
        assert [frame.mean() for frame in sample_frames(video, n_frames=2)[0]] == [50, 150]
        assert attempts == [(True, True)]
        attempts.clear()
        monkeypatch.setattr(_video._Video, "seek", lambda video, stamp: original(video, stamp + 2000))
        assert [frame.mean() for frame in sample_frames(video, n_frames=2)[0]] == [50, 150]
        assert attempts == [(True, False), (False, True)]


class TestForms:
    def test_forms_of_a_file(self, make_video, tmp_path):
        content = make_video()
        path = tmp_path / "video.txt"
        path.write_bytes(content)
        dicts = {"bytes": content, "path": None}, {"bytes": None, "path": str(path)}
        for item in (content, bytearray(content), memoryview(content), path, str(path), np.str_(path), *dicts):
            assert numbers(item, n_frames=5) == [2, 7, 12, 17, 22]

    def test_frames_in_memory_are_read_like_images(self, tmp_path):
        rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 7, 3), dtype=np.uint8)
        Image.fromarray(rgb[3]).save(tmp_path / "3.png")
        mixed = [rgb[0], Image.fromarray(rgb[1]), rgb[2] / 255, {"bytes": None, "path": str(tmp_path / "3.png")}]
        objects = np.empty(4, dtype=object)
        objects[:] = mixed
        for item in (rgb, np.moveaxis(rgb, 3, 1), rgb / 255, rgb.astype(np.int64), mixed, tuple(mixed), objects):
            frames, samples = sample_frames(item, n_frames=4)
            assert_array_equal(frames, rgb)
            assert_array_equal(samples, range(4))

    def test_transparent_frames(self, make_video):
        clear = np.zeros((1, 8, 8, 4), np.uint8)
        assert_array_equal(sample_frames(clear, background=(9, 8, 7))[0][0][0, 0], [9, 8, 7])
        half = np.zeros((16, 16, 4), np.uint8)
        half[:, 8:] = (10, 20, 30, 255)
        video = make_video(frames=[half], pixels="bgra")
        (frame,), _ = sample_frames(video, background=(9, 8, 7))
        assert_array_equal(frame[0, [0, 15]], [[9, 8, 7], [10, 20, 30]])

    @pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
    @pytest.mark.parametrize("sampling", ["uniform", "keyframes"])
    def test_transparent_webm(self, make_video, codec, sampling):
        # The right half is clear, and its hidden colour is red as well.
        half = np.zeros((48, 64, 4), np.uint8)
        half[...] = (255, 0, 0, 0)
        half[:, :32, 3] = 255
        video = make_video(frames=[half] * 40, codec=codec, container="webm", pixels="yuva420p", gop=5)
        frames, _ = sample_frames(video, sampling, n_frames=2, background=(0, 255, 0))
        for frame in frames:
            assert_allclose(frame[:, :28], np.broadcast_to([255, 0, 0], (48, 28, 3)), atol=6)
            assert_allclose(frame[:, 36:], np.broadcast_to([0, 255, 0], (48, 28, 3)), atol=6)

    # EXIF orientation, and the matrix that means it: (x, y) is shown at (a x + c y, b x + d y).
    @pytest.mark.parametrize(
        ("orientation", "matrix"),
        [
            (1, (1, 0, 0, 1)),
            (2, (-1, 0, 0, 1)),
            (3, (-1, 0, 0, -1)),
            (4, (1, 0, 0, -1)),
            (5, (0, 1, 1, 0)),
            (6, (0, 1, -1, 0)),
            (7, (0, -1, -1, 0)),
            (8, (0, -1, 1, 0)),
        ],
    )
    def test_orientations_are_those_of_images(self, make_video, orientation, matrix):
        corner = np.zeros((32, 48, 3), np.uint8)
        corner[:16, :16] = 255
        corner[:8, 16:] = 100
        content = bytearray(make_video(frames=[corner] * 3, codec="mpeg4", container="mp4", pixels="yuv420p"))
        place = content.index(b"tkhd") + 4 + 40
        a, b, c, d = (value << 16 for value in matrix)
        content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        stream, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(corner).save(stream, "PNG", exif=exif)
        frames, _ = sample_frames(bytes(content), n_frames=1)
        assert_allclose(frames[0], load_image(stream.getvalue()), atol=40)

    @pytest.mark.parametrize(("aspect", "width"), [("1/1", 64), ("2/1", 128), ("1/2", 32), ("16/15", 68)])
    def test_pixels_are_square(self, make_video, aspect, width):
        left = np.zeros((48, 64, 3), np.uint8)
        left[:, :32] = 255
        video = make_video(frames=[left] * 3, codec="mpeg4", container="mp4", pixels="yuv420p", aspect=aspect)
        (frame, *_), _ = sample_frames(video, n_frames=1)
        assert frame.shape == (48, width, 3)
        assert_allclose(frame[:, : width // 2 - 8], 255, atol=8)
        assert_allclose(frame[:, width // 2 + 8 :], 0, atol=8)

    def test_pixels_that_are_very_wide_count_for_the_limit(self, make_video, monkeypatch):
        video = make_video(3, codec="mpeg4", container="mp4", pixels="yuv420p", aspect="20/1")
        # Enough for the frame as it is stored, with the margin in which FFmpeg decodes it.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1280 * 48 - 1)
        assert "frames of 1280 x 48 pixels" in reason_of(video)

    # Numbers of color spaces: BT.709, BT.601, BT.2020.
    @pytest.mark.parametrize("space", [1, 6, 9])
    def test_colors_follow_the_matrix_that_the_file_states(self, make_video, space):
        color = np.broadcast_to(np.array([200, 40, 20], np.uint8), (48, 64, 3))
        video = make_video(frames=[color] * 3, codec="libx264", container="mp4", pixels="yuv444p", color_space=space)
        (frame, *_), _ = sample_frames(video, n_frames=1)
        assert_allclose(frame, color, atol=4)

    def test_containers_that_state_neither_length_nor_count(self, make_video):
        import av

        video = make_video(options={"live": "1"})
        with av.open(io.BytesIO(video)) as container:
            assert container.duration is None
            assert container.streams.video[0].frames == 0
        assert numbers(video, n_frames=5) == [2, 7, 12, 17, 22]


class TestDamage:
    @pytest.mark.parametrize("name", TIMED)
    def test_truncated_videos_count_as_far_as_they_go(self, make_video, name):
        frames = [np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8) for i in range(25)]
        options = {"frag_size": "1", "movflags": "+frag_keyframe+empty_moov"}
        video = make_video(frames=frames, gop=5, options=options, **FORMATS[name])
        whole, _ = sample_frames(video, "fps", 100, 10)
        assert len(whole) == 25
        part, samples = sample_frames(video[: int(0.6 * len(video))], "fps", 100, 10)
        assert 5 <= len(part) < 25
        # Of the frame in which the file ends, some decoders give the upper part.
        assert_array_equal(part[:-1], whole[: len(part) - 1])
        uniform, _ = sample_frames(video[: int(0.6 * len(video))], n_frames=1)
        assert_array_equal(uniform[0], whole[len(part) // 2])
        assert_array_equal(samples, range(len(part)))

    def test_an_index_that_promises_too_much(self, make_video, tmp_path):
        # The index comes first and counts 25 frames, the data of the later ones is gone.
        frames = [np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8) for i in range(25)]
        options = {"movflags": "faststart"}
        video = make_video(frames=frames, options=options, path=tmp_path / "a.mp4", **FORMATS["mpeg4"])
        assert video.index(b"moov") < video.index(b"mdat")
        whole, _ = sample_frames(video, n_frames=25)
        cut, _ = sample_frames(video[: len(video) // 2], n_frames=4)
        n_left = len(sample_frames(video[: len(video) // 2], "fps", 100, 10)[0])
        assert 5 <= n_left <= 15
        assert_array_equal(cut, [whole[(2 * i + 1) * n_left // 8] for i in range(4)])

    def test_frames_that_do_not_decode_are_left_out(self, make_video):
        frames = [np.full((32, 32, 3), 5 * i, np.uint8) for i in range(25)]
        video = bytearray(make_video(frames=frames, gop=1, codec="png", container="mov", pixels="rgb24"))
        starts = [i for i in range(len(video)) if video.startswith(b"\x89PNG", i)]
        assert len(starts) == 25
        for start in starts[20:]:
            video[start : start + 8] = b"spoilt!!"
        assert numbers(bytes(video), n_frames=25) == [(2 * i + 1) * 20 // 50 for i in range(25)]
        # Whether the others decode is not tried where the chosen ones do.
        assert numbers(bytes(video), n_frames=1) == [12]
        for start in starts[:20]:
            video[start : start + 8] = b"spoilt!!"
        assert "no frame of the video can be decoded" in reason_of(bytes(video))

    def test_tables_larger_than_memory_are_refused_not_out_of_memory(self, make_video):
        video = make_video(codec="mpeg4", container="mp4", pixels="yuv420p")
        reasons = []
        # Behind the name of a table come 4 bytes of version and flags, then its length; in one a size stands before it.
        for table in (b"stts", b"stsc", b"stsz", b"stco", b"stss", b"ctts"):
            for place in (8, 12):
                damaged = bytearray(video)
                start = video.find(table) + place
                damaged[start : start + 4] = b"\xff\xff\xff\x7f"
                try:
                    sample_frames(bytes(damaged), n_frames=4)
                except RejectedItem as rejected:
                    reasons.append(str(rejected))
        assert any("Cannot allocate memory" in reason for reason in reasons)

    @pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9])
    def test_any_damage_gives_frames_or_a_reason(self, any_format, share):
        video = bytearray(any_format())
        rng = np.random.default_rng(int(100 * share))
        for place in rng.integers(0, len(video), max(1, int(share * len(video) / 4))):
            video[place] = rng.integers(256)
        try:
            frames, samples = sample_frames(bytes(video), n_frames=4)
        except RejectedItem:
            return
        assert len(samples) == 4
        assert all(frame.ndim == 3 and frame.dtype == np.uint8 for frame in frames)


class TestRejected:
    @pytest.mark.parametrize(
        ("item", "reason"),
        [
            (b"", "no bytes at all"),
            (b"just a text, of several words\n" * 40, "no sound or video in a format that FFmpeg can read"),
            (bytes(range(256)) * 20, "no sound or video"),
            (3, "got an object of type int"),
            ({"a": 1}, 'a dict must have "bytes" or "path" of a video, got the keys [\'a\']'),
            ("A" * 266_960, "a string of 266,960 characters that is no path"),
            (np.zeros(3), r"array of shape (3,) is no video"),
            (np.zeros((2, 3, 4, 5, 6)), "is no video"),
            (np.zeros((48, 64, 3), np.uint8), "looks like a single image"),
            (np.zeros((0, 8, 8), np.uint8), "a video without frames"),
            ([], "a video without frames"),
            (np.zeros((4, 0, 8), np.uint8), "frame 0: the array has no pixels"),
            (np.full((4, 8, 8), np.nan), "frame 0: the array has pixels that are NaN or infinite"),
            ([np.zeros((8, 8)), None], "frame 1: an image is a path"),
            ((0, np.zeros((4, 8, 8))), "frames per second must be positive"),
            ((True, np.zeros((4, 8, 8))), "frame 0: an image is a path"),
            ((float("nan"), np.zeros((4, 8, 8))), "frames per second must be positive"),
            ((10**400, np.zeros((4, 8, 8))), "frames per second must be positive"),
            ((float("inf"), np.zeros((4, 8, 8))), "frames per second must be positive"),
            (np.array(None, dtype=object), "got an object of type ndarray"),
            (Image.new("RGB", (8, 8)), "got an object of type Image"),
            ("https://example.org/a.mp4", "nothing is fetched"),
            ("nowhere.mp4", "the file does not exist (looked for in "),
            ("a\0b", "cannot be opened as a path"),
        ],
    )
    def test_reasons(self, item, reason):
        assert reason in reason_of(item)

    def test_files(self, tmp_path):
        assert "this is a directory, pass the path of a video file" in reason_of(tmp_path)
        (tmp_path / "empty.mp4").touch()
        assert "the file is empty" in reason_of(tmp_path / "empty.mp4")
        # By its name alone this would be taken for a film of letters.
        text = tmp_path / "text.txt"
        text.write_text("hello, this is a text\n" * 40)
        assert "no sound or video" in reason_of(text)

    def test_no_permission(self, make_video, tmp_path, monkeypatch):
        path = tmp_path / "secret.mkv"
        path.write_bytes(make_video())

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
        assert "no permission" in reason_of(path)

    def test_sound_alone_is_no_video(self, make_video):
        sound = np.zeros((1, 4000), np.int16)
        assert reason_of(make_video(0, sound=sound, container="wav")) == (
            "the file has no video stream, or none that can be decoded"
        )

    def test_covers_of_albums_are_no_video(self, make_video):
        import av
        from av.stream import Disposition

        stream = io.BytesIO()
        with av.open(stream, "w", format="mp4") as file:
            cover = file.add_stream("mjpeg", rate=1)
            cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
            cover.disposition = Disposition.attached_pic.value
            track = file.add_stream("aac", rate=8000, layout="mono")
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            picture = picture.reformat(format="yuvj420p")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), format="fltp", layout="mono")
            picture.pts, sound.pts, sound.sample_rate = 0, 0, 8000
            for part, frame in ((cover, picture), (track, sound)):
                file.mux(part.encode(frame))
                file.mux(part.encode())
        assert "no video stream" in reason_of(stream.getvalue())
        rate, wave = load_sound_track(stream.getvalue())
        assert rate == 8000
        assert len(wave) >= 4000

    def test_nothing_but_the_item_is_read(self, make_video, tmp_path):
        other = tmp_path / "other.mp4"
        other.write_bytes(make_video(**FORMATS["mpeg4"]))
        listed = f"ffconcat version 1.0\nfile {other.name}\n".encode()
        played = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{other}\n#EXT-X-ENDLIST\n".encode()
        for name, content in {"list.ffconcat": listed, "list.m3u8": played}.items():
            (tmp_path / name).write_bytes(content)
            for item in (content, tmp_path / name):
                assert "no sound or video" in reason_of(item)

    def test_frames_of_too_many_pixels(self, make_video, monkeypatch):
        video = make_video(3, size=(64, 64))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)
        assert len(sample_frames(video)[0]) == 3
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
        assert "too large to decode safely: it declares frames of 64 x 64 pixels" in reason_of(video)

    @pytest.mark.parametrize("name", ["ValueError", "OSError", "ExternalError", "InvalidDataError"])
    def test_formats_of_pixels_that_cannot_be_converted(self, name):
        import av

        def to_ndarray(**_):
            error = getattr(av.error, name, None)
            raise error(1, "no conversion") if error else getattr(builtins, name)("no conversion")

        video = object.__new__(_video._Video)
        video.stream = SimpleNamespace(sample_aspect_ratio=None)
        pixels = SimpleNamespace(name="xyz", has_palette=False, components=[])
        with pytest.raises(RejectedItem, match=r"frames of format xyz cannot be converted \(no conversion\)"):
            video.to_rgb(SimpleNamespace(format=pixels, width=4, height=4, to_ndarray=to_ndarray))

    def test_threads_decode_side_by_side(self, make_video):
        video = make_video(**FORMATS["mp4"])
        expected, results = sample_frames(video)[0], []
        threads = [threading.Thread(target=lambda: results.append(sample_frames(video)[0])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        for result in results:
            assert_array_equal(result, expected)
