"""Bad items, one at a time between good ones: refused with their row, or missing, and no other row changes."""

import builtins
import io
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.base import clone
from torch import nn

from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder
from skmm.encoders._run import EncodingRun

RNG = np.random.default_rng(0)
PHOTOS = list(RNG.integers(256, size=(4, 20, 24, 3), dtype=np.uint8))
SOUNDS = [(16000, RNG.normal(size=1600)) for _ in range(4)]
CLIPS = [list(RNG.integers(256, size=(3 + i, 20, 24, 3), dtype=np.uint8)) for i in range(4)]
NOISE = RNG.bytes(1500)
TEXTS = ["a cat", "the dog sat on the mat", "mat", "on the mat the cat sat"]


@pytest.fixture(scope="module")
def encoders(tiny_text_model):
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    waves = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 8, 80, 40), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    plain = {"precision": "float32", "store": None}
    options = {"preprocess": {"input_size": (3, 32, 32)}, **plain}
    return {
        "text": (TextEncoder(tiny_text_model, **plain), TEXTS),
        "image": (ImageEncoder(convolution, **options), PHOTOS),
        "audio": (AudioEncoder(waves.eval(), **plain), SOUNDS),
        "video": (VideoEncoder(convolution, **options), CLIPS),
    }


def between(good, bad):
    return [*good[:2], bad, *good[2:]]


def refused(encoder, good, bad):
    """Check that ``bad`` is refused in all three ways and spoils nothing; give the reason."""
    X, expected = between(good, bad), encoder.fit_transform(good)
    (error,) = encoder.find_errors(X)
    assert error.row == 2
    with pytest.raises(ValueError, match=rf"{type(encoder).__name__}: row 2: "):
        encoder.transform(X)
    lenient = type(encoder)(**{**encoder.get_params(deep=False), "on_error": "missing"})
    with pytest.warns(UserWarning, match="1 of 5 items could not be encoded"):
        out = lenient.fit_transform(X)
    assert [error.row for error in lenient.errors_] == [2]
    assert np.isnan(out[2]).all()
    # In other batches perhaps.
    assert_allclose(np.delete(out, 2, axis=0), expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    return error.reason


def accepted(encoder, good, item):
    """Check that ``item`` gets a row, and spoils no other; give its row."""
    expected = encoder.fit_transform(good)
    out = encoder.transform(between(good, item))
    assert np.isfinite(out).all()
    np.testing.assert_allclose(np.delete(out, 2, axis=0), expected, atol=1e-5)
    return out[2]


FILE_ENCODERS = ["image", "audio", "video"]


def skip_without_decoder(kind):
    if kind != "image":
        pytest.importorskip({"audio": "soundfile", "video": "av"}[kind])


@pytest.mark.parametrize("kind", FILE_ENCODERS)
@pytest.mark.parametrize("case", ["zero bytes", "text", "directory", "missing path", "empty bytes", "wrong content"])
def test_files(encoders, kind, case, tmp_path):
    skip_without_decoder(kind)
    path = tmp_path / f"item.{ {'image': 'png', 'audio': 'wav', 'video': 'mp4'}[kind] }"
    path.write_bytes({"zero bytes": b"", "text": b"This is no media file. " * 40}.get(case, NOISE))
    item = {"directory": tmp_path, "missing path": tmp_path / "no.png", "empty bytes": b""}.get(case, path)
    assert refused(*encoders[kind], str(item) if item is path else item)


@pytest.mark.parametrize("kind", FILE_ENCODERS)
def test_no_permission(encoders, kind, tmp_path, monkeypatch):
    path = tmp_path / "closed"
    path.write_bytes(b"secret")
    opened = builtins.open

    # Root may read everything, so the system's answer is played here.
    def refuse(name, *args, **options):
        if name == path:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(name, *args, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    assert "no permission" in refused(*encoders[kind], path)


@pytest.mark.parametrize("kind", FILE_ENCODERS)
@pytest.mark.parametrize("item", ["a text in a column of media", 3.5, 7, "nowhere \ud800", "null \0 character"])
def test_texts_and_numbers(encoders, kind, item):
    assert refused(*encoders[kind], item)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_truncated_images(encoders, format):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(256, size=(64, 64, 3), dtype=np.uint8)).save(buffer, format)
    assert refused(*encoders["image"], buffer.getvalue()[: len(buffer.getvalue()) // 2])


def test_an_extension_means_nothing(encoders, tmp_path):
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(PHOTOS[0]).save(path, "PNG")
    encoder, good = encoders["image"]
    # In batches of another size: equal up to rounding.
    assert_allclose(accepted(encoder, good, str(path)), encoder.transform(good)[0], rtol=1e-6)


@pytest.mark.parametrize("form", ["bytes", "path"])
def test_decompression_bomb(encoders, tmp_path, form, monkeypatch):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compressobj(9)
    pixels = b"".join(rows.compress(bytes(6251 * 100)) for _ in range(500)) + rows.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert len(bomb) < 400_000
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)

    def load(image):
        assert image.size[0] < 50_000
        return decode(image)

    decode = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", load)
    reason = refused(*encoders["image"], bomb if form == "bytes" else path)
    assert "too large to decode safely" in reason


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_waveforms_that_are_not_finite(encoders, value):
    waveform = np.zeros(1600)
    waveform[-1] = value
    assert "NaN, infinite" in refused(*encoders["audio"], (16000, waveform))


@pytest.mark.parametrize(("kind", "unit"), [("image", "pixels"), ("video", "pixels"), ("audio", "samples")])
def test_masked_arrays(encoders, kind, unit, tmp_path):
    encoder, good = encoders[kind]
    rate, content = good[0] if kind == "audio" else (None, np.array(good[0]))
    masked = np.ma.array(content, mask=np.arange(content.size).reshape(content.shape) == 3)
    bad, plain = [item if rate is None else (rate, item) for item in (masked, np.ma.array(content))]
    assert f"masked {unit}; give them a value" in refused(encoder, good, bad)
    accepted(encoder, good, plain)
    # Its values beneath the mask are in the store.
    kept = clone(encoder).set_params(store=tmp_path)
    kept.fit_transform([plain])
    with pytest.raises(ValueError, match=f"masked {unit}"):
        kept.transform([bad])


@pytest.mark.parametrize("n_times", [1, 16000])
def test_silence_and_one_sample_are_sound(encoders, n_times):
    accepted(*encoders["audio"], (16000, np.zeros(n_times)))


def test_truncated_sound(encoders):
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, SOUNDS[0][1] / 9, 16000, format="WAV")
    assert "truncated" in refused(*encoders["audio"], buffer.getvalue()[:1000])


def test_video_without_frames(encoders, make_video):
    sound_alone = make_video(0, sound=np.zeros((1, 8000), dtype=np.int16))
    assert refused(*encoders["video"], sound_alone)
    assert refused(*encoders["video"], [])
    assert refused(*encoders["video"], np.zeros((0, 8, 8, 3), dtype=np.uint8))


def test_video_with_a_damaged_tail_counts_as_far_as_it_goes(encoders, make_video):
    encoder, good = encoders["video"]
    whole = make_video(40, codec="mpeg4", container="avi", pixels="yuv420p")
    accepted(encoder, good, whole[: len(whole) * 2 // 3])
    accepted(encoder, good, whole[: len(whole) * 2 // 3] + RNG.bytes(len(whole) // 3))


@pytest.mark.parametrize("item", ["cat \ud800", "\udfff", 3, 2.5, b"cat", ["cat"], True, np.float32(1)])
def test_what_is_no_text(encoders, item):
    assert refused(*encoders["text"], item)


@pytest.mark.parametrize("unit", ["the cat sat ", "漢字", "x", "😀 ", " ", "y" * 5000 + " "])
def test_huge_texts_are_cut_before_they_are_tokenized(encoders, unit, monkeypatch):
    encoder, good = encoders["text"]
    text = "mat " + unit * (10_000_000 // len(unit.encode()))
    model, lengths = EncodingRun(encoder.fit(good), []).model, []
    tokens = model._tokens
    monkeypatch.setattr(model, "_tokens", lambda texts, *rest: lengths.extend(map(len, texts)) or tokens(texts, *rest))
    row = accepted(encoder, good, text)
    # 30 tokens are read.
    assert max(lengths) <= 30_000
    assert sum(lengths) < 100_000
    # What is cut off would not have counted.
    np.testing.assert_allclose(row, encoder.transform([text[:200_000]])[0], atol=1e-6)


def png(width, height):
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("size", [(65_000, 1), (1, 65_000)])
@pytest.mark.parametrize("form", ["bytes", "pil", "array", "frame"])
def test_thin_images_are_not_blown_up(encoders, size, form):
    encoder, good = encoders["video" if form == "frame" else "image"]
    bad = {
        "bytes": lambda: png(*size),
        "pil": lambda: Image.new("RGB", size),
        "array": lambda: np.zeros((*size[::-1], 3), np.uint8),
        "frame": lambda: [png(*size)],
    }[form]()
    reason = refused(encoder, good, bad)
    assert re.search(r"too thin to be resized: of \d+ x \d+ pixels, with 37 for the shorter side", reason)


def test_thin_images_for_clip(tiny_clip_model):
    encoder = ImageEncoder(tiny_clip_model, precision="float32", store=None)
    assert "too thin to be resized" in refused(encoder, PHOTOS, png(65_000, 1))


def test_long_images_are_accepted(encoders):
    encoder, good = encoders["image"]
    accepted(encoder, good, png(4_000, 4))
    squashed = clone(encoder).set_params(preprocess={"input_size": (3, 32, 32), "crop_mode": "squash"})
    accepted(squashed, good, png(65_000, 1))


def test_preprocessing_that_fails_for_an_item(encoders):
    def preprocess(image):
        if image.width == 5:
            raise ZeroDivisionError("no width")
        return torch.zeros(3, 8, 8) + np.asarray(image).mean()

    def preprocess_sound(waveform):
        if len(waveform) == 500:
            raise IndexError("too short")
        return waveform

    encoder = clone(encoders["audio"][0]).set_params(preprocess=preprocess_sound)
    assert "preprocess raised IndexError (too short)" in refused(encoder, SOUNDS, (16000, np.zeros(500)))
    encoder = clone(encoders["image"][0]).set_params(preprocess=preprocess)
    assert "preprocess raised ZeroDivisionError (no width)" in refused(encoder, PHOTOS, png(5, 5))
    with pytest.raises(ValueError, match=r"row 2: .*preprocess raised") as caught:
        encoder.transform(between(PHOTOS, png(5, 5)))
    causes = [caught.value.__cause__, caught.value.__cause__.__cause__]
    assert isinstance(causes[1], ZeroDivisionError)
