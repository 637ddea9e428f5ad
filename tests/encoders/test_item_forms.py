"""Every form of an item that the guide's tables name is read as they say: one test per row, one row per test."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image, features
from torch import nn

from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"

RATE = 16_000
SOUND = np.round(np.sin(np.arange(1600) / 9) * np.linspace(0.2, 0.9, 1600) * 2**15).astype(np.int16)
LONG_SOUND = np.round(np.sin(np.arange(160_000) / 9) * np.linspace(0.2, 0.9, 160_000) * 2**15).astype(np.int16)
# Smooth, so that lossy formats keep it.
RGB = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(256, size=(3, 4, 3), dtype=np.uint8)).resize((48, 32))
)
GREY = RGB[:, :, 0]
CLIP = np.stack([RGB, RGB // 2, RGB[::-1]])


class Pixels(nn.Module):
    """Colours of 16 regions of an image."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)


class Loudness(nn.Module):
    """Mean and size of 10 stretches of a waveform."""

    def forward(self, x):
        parts = x[:, : x.shape[1] // 10 * 10].reshape(len(x), 10, -1)
        return torch.cat([parts.mean(2), parts.abs().mean(2)], 1)


PLAIN = {"input_size": (3, 32, 32), "mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture
def encoders(tiny_text_model):
    return {
        "text": TextEncoder(tiny_text_model),
        "image": ImageEncoder(Pixels(), preprocess=PLAIN, background="blue", precision="float32"),
        "audio": AudioEncoder(Loudness(), sampling_rate=RATE, precision="float32"),
        "video": VideoEncoder(Pixels(), preprocess=PLAIN, n_frames=3, precision="float32"),
    }


def photo(form="PNG", image=None, **options):
    stream = io.BytesIO()
    (Image.fromarray(RGB) if image is None else image).save(stream, form, **options)
    return stream.getvalue()


def needs(feature):
    if not features.check(feature):
        pytest.skip(f"this Pillow is built without {feature}")


def recording(form="WAV", samples=SOUND, **options):
    soundfile = pytest.importorskip("soundfile", reason='needs pip install "skmm[audio]"')
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format=form, **options)
    return stream.getvalue()


def stored(content, folder):
    path = folder / "item"
    path.write_bytes(content)
    return path


def avif():
    needs("avif")
    return photo("AVIF", quality=100)


def heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    return photo("HEIF", quality=100)


def webp():
    needs("webp")
    return photo("WEBP", lossless=True)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 3
    return photo("PNG", Image.fromarray(RGB[::-1, ::-1]), exif=exif)


def animation():
    frames = [Image.fromarray(frame) for frame in CLIP]
    return photo("PNG", frames[0], save_all=True, append_images=frames[1:])


def two_pictures():
    behind = [Image.fromarray(255 - RGB)]
    return photo("MPO", Image.fromarray(RGB), save_all=True, append_images=behind, quality=99)


def png_of_16_bits():
    height, width, _ = RGB.shape
    rows = (RGB.astype(np.uint16) * 256 + 255).astype(">u2").reshape(height, -1)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def see_through():
    return np.dstack([RGB, np.zeros_like(GREY)])


def film(make_video):
    return make_video(frames=list(CLIP))


def compressed(folder, form, codec):
    """A file of FFmpeg, which puts up to 0.06 s of silence before and behind the sound."""
    import av

    with av.open(str(folder / "sound"), "w", format=form) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        stream.bit_rate = 32_000
        frame = av.AudioFrame.from_ndarray(LONG_SOUND[np.newaxis], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return (folder / "sound").read_bytes()


# Form as the guide writes it -> what makes an item of it from (folder, make_video), what it reads like, tolerance; a
# list of these where a row names several forms.
BLUE = np.zeros_like(RGB) + np.array([0, 0, 255], dtype=np.uint8)
GREYS = np.dstack([GREY] * 3)
EXACT, CLOSE = 1e-6, 0.03
FORMS = {
    "text": {"string": (lambda *_: "the cat", "the cat", EXACT)},
    "image": {
        "path, as a string": (lambda folder, _: str(stored(photo(), folder)), RGB, EXACT),
        "path object": (lambda folder, _: stored(photo(), folder), RGB, EXACT),
        "bytes of a file": (lambda *_: photo(), RGB, EXACT),
        "`bytearray` or `memoryview` of a file": [
            (lambda *_: bytearray(photo()), RGB, EXACT),
            (lambda *_: memoryview(photo()), RGB, EXACT),
        ],
        'dict with "bytes" or "path"': [
            (lambda *_: {"bytes": photo(), "path": "gone.png"}, RGB, EXACT),
            (lambda folder, _: {"bytes": None, "path": str(stored(photo(), folder))}, RGB, EXACT),
        ],
        "PIL image": (lambda *_: Image.fromarray(RGB), RGB, EXACT),
        "array (height, width, 3), uint8": (lambda *_: RGB, RGB, EXACT),
        "array (3, height, width)": (lambda *_: np.moveaxis(RGB, 2, 0), RGB, EXACT),
        "array (height, width), or of 1 channel": (lambda *_: GREY[None], GREYS, EXACT),
        "array of 4 channels": (lambda *_: see_through(), BLUE, EXACT),
        "array of floats": (lambda *_: RGB / 255, RGB, EXACT),
        "array of bool": (lambda *_: GREY > 99, GREYS // 1 * 0 + np.uint8(255) * (GREYS > 99), EXACT),
        "array of uint16": (lambda *_: RGB.astype(np.uint16) * 257, RGB, EXACT),
        "array of other integers": (lambda *_: RGB.astype(np.int64), RGB, EXACT),
        "list or tuple of images, or an array (images, height, width, channels)": [
            (lambda *_: [RGB, photo(), None], RGB, EXACT),
            (lambda folder, _: (str(stored(photo(), folder)), {"bytes": photo()}), RGB, EXACT),
            (lambda *_: np.stack([RGB, RGB]), RGB, EXACT),
        ],
        "JPEG, also CMYK or with more pictures behind the first": [
            (lambda *_: photo("JPEG", Image.fromarray(RGB).convert("CMYK"), quality=99), RGB, CLOSE),
            (lambda *_: two_pictures(), RGB, CLOSE),
        ],
        "PNG of 16 bits per colour": (lambda *_: png_of_16_bits(), RGB, EXACT),
        "grey PNG of 16 bits": (lambda *_: photo("PNG", Image.fromarray(GREY.astype(np.uint16) * 257)), GREYS, EXACT),
        "file with a palette": (lambda *_: photo("GIF", Image.fromarray(GREY)), GREYS, EXACT),
        "file with transparent pixels": (lambda *_: photo("PNG", Image.fromarray(see_through())), BLUE, EXACT),
        "file with an EXIF orientation": (lambda *_: turned(), RGB, EXACT),
        "animation": (lambda *_: animation(), RGB, EXACT),
        "WebP": (lambda *_: webp(), RGB, EXACT),
        "AVIF, where Pillow reads it": (lambda *_: avif(), RGB, CLOSE),
        "HEIC, by the plugin pillow-heif": (lambda *_: heic(), RGB, CLOSE),
    },
    "audio": {
        "path, as a string": (lambda folder, _: str(stored(recording(), folder)), SOUND / 2**15, EXACT),
        "path object": (lambda folder, _: stored(recording(), folder), SOUND / 2**15, EXACT),
        "bytes of a WAV file": (lambda *_: recording(), SOUND / 2**15, EXACT),
        "bytes of a FLAC file": (lambda *_: recording("FLAC"), SOUND / 2**15, EXACT),
        "bytes of an OGG file": (lambda *_: recording("OGG"), SOUND / 2**15, CLOSE),
        "bytes of an MP3 file": (lambda *_: recording("MP3"), SOUND / 2**15, CLOSE),
        "bytes of an AIFF file": (lambda *_: recording("AIFF"), SOUND / 2**15, EXACT),
        "bytes of an M4A, AAC, OPUS or WMA file": [
            (lambda folder, _: compressed(folder, "ipod", "aac"), LONG_SOUND / 2**15, CLOSE),
            (lambda folder, _: compressed(folder, "adts", "aac"), LONG_SOUND / 2**15, CLOSE),
            (lambda folder, _: compressed(folder, "ogg", "libopus"), LONG_SOUND / 2**15, CLOSE),
            (lambda folder, _: compressed(folder, "asf", "wmav2"), LONG_SOUND / 2**15, CLOSE),
        ],
        "video file": (lambda _, make: make(sound=[SOUND], sampling_rate=RATE), SOUND / 2**15, EXACT),
        "`bytearray` or `memoryview` of a file": [
            (lambda *_: bytearray(recording()), SOUND / 2**15, EXACT),
            (lambda *_: memoryview(recording()), SOUND / 2**15, EXACT),
        ],
        "pair `(sampling_rate, waveform)`, tuple or list": [
            (lambda *_: (RATE, SOUND / 2**15), SOUND / 2**15, EXACT),
            (lambda *_: [RATE, SOUND / 2**15], SOUND / 2**15, EXACT),
        ],
        'dict with "sampling_rate" and "array"': (
            lambda *_: {"sampling_rate": RATE, "array": SOUND / 2**15},
            SOUND / 2**15,
            EXACT,
        ),
        'dict with "bytes" or "path"': [
            (lambda *_: {"bytes": recording(), "path": "gone.wav"}, SOUND / 2**15, EXACT),
            (lambda folder, _: {"bytes": None, "path": str(stored(recording(), folder))}, SOUND / 2**15, EXACT),
        ],
        "waveform as a list or a torch tensor": [
            (lambda *_: (RATE, (SOUND / 2**15).tolist()), SOUND / 2**15, EXACT),
            (lambda *_: (RATE, torch.from_numpy(SOUND / 2**15)), SOUND / 2**15, EXACT),
        ],
        "bare waveform": (lambda *_: SOUND / 2**15, SOUND / 2**15, EXACT),
        "waveform of integers": (lambda *_: (RATE, SOUND), SOUND / 2**15, EXACT),
        "waveform of several channels": (lambda *_: (RATE, np.stack([SOUND / 2**14, 0 * SOUND])), SOUND / 2**15, EXACT),
        "recording of another rate": (lambda *_: (2 * RATE, np.repeat(SOUND, 2)), SOUND / 2**15, CLOSE),
    },
    "video": {
        "path, as a string": (lambda folder, make: str(stored(film(make), folder)), CLIP, EXACT),
        "path object": (lambda folder, make: stored(film(make), folder), CLIP, EXACT),
        "bytes of a file": (lambda _, make: film(make), CLIP, EXACT),
        "`bytearray` or `memoryview` of a file": [
            (lambda _, make: bytearray(film(make)), CLIP, EXACT),
            (lambda _, make: memoryview(film(make)), CLIP, EXACT),
        ],
        'dict with "bytes" or "path"': [
            (lambda _, make: {"bytes": film(make), "path": "gone.mkv"}, CLIP, EXACT),
            (lambda folder, make: {"bytes": None, "path": str(stored(film(make), folder))}, CLIP, EXACT),
        ],
        "array (frames, height, width, channels)": (lambda *_: CLIP, CLIP, EXACT),
        "array (frames, height, width)": (lambda *_: CLIP[..., 0], np.repeat(CLIP[..., :1], 3, axis=3), EXACT),
        "list or tuple of images": [
            (lambda folder, _: [stored(photo(), folder), *CLIP[1:]], CLIP, EXACT),
            (lambda folder, _: (stored(photo(), folder), *CLIP[1:]), CLIP, EXACT),
        ],
        "pair `(frame_rate, frames)`": (lambda *_: (10.0, CLIP), CLIP, EXACT),
    },
}


def documented():
    """Give the (modality, form) of each row of the guide's table."""
    table = GUIDE.read_text(encoding="utf-8").split("| modality | an item may be |")[1].split("\n\n")[0]
    return re.findall(r"^\| (\w+) \| (.+?) \|", table, flags=re.MULTILINE)


@pytest.mark.parametrize(("kind", "form"), documented())
def test_each_row_of_the_table(kind, form, encoders, tmp_path, request):
    make_video = request.getfixturevalue("make_video") if kind in ("audio", "video") else None
    forms = FORMS[kind][form]
    for make, like, tolerance in forms if isinstance(forms, list) else [forms]:
        # Neither of them alone, so that the form of one says nothing about the column.
        rows = encoders[kind].fit_transform([make(tmp_path, make_video), None, like])
        assert np.isnan(rows[1]).all()
        assert_allclose(rows[0], rows[2], atol=tolerance)
        assert np.abs(rows[2]).max() > 0.1


def test_each_test_is_a_row_of_the_table():
    assert sorted(documented()) == sorted((kind, form) for kind, forms in FORMS.items() for form in forms)
