"""Files of any format, cut off and with bytes changed: read as far as that goes, or refused with a reason."""

import io
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, features

from skmm.exceptions import RejectedItem
from skmm.media._image import load_image
from skmm.media._sound import load_audio, load_sound_track as load_sound
from skmm.media._video import sample_frames

# Damages of each file, enough for each kind of damage a few times.
N_DAMAGES = 30

# Smooth and noisy halves, so that compressed files hold more than a header.
PICTURE = np.random.default_rng(0).integers(256, size=(40, 48, 3), dtype=np.uint8)
PICTURE[:, :24] = np.linspace(0, 255, 24, dtype=np.uint8)[None, :, None]
WAVE = np.sin(np.arange(4000) / 9) * np.linspace(0.2, 0.9, 4000)

IMAGES = ["AVIF", "BMP", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"]
SOUNDS = ["AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "W64", "WAV"]
VIDEOS = {
    "mp4": {"codec": "libx264", "pixels": "yuv420p"},
    "avi": {"codec": "mpeg4", "pixels": "yuv420p"},
    "webm": {"codec": "libvpx-vp9", "pixels": "yuv420p"},
    "matroska": {"codec": "ffv1", "pixels": "bgr0"},
    "mpegts": {"codec": "libx264", "pixels": "yuv420p"},
    "gif": {"codec": "gif", "pixels": "rgb8"},
}


def picture(form):
    if form in ("AVIF", "WEBP") and not features.check(form.lower()):
        pytest.skip(f"this Pillow is built without {form}")
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, form)
    return stream.getvalue()


def recording(form):
    soundfile = pytest.importorskip("soundfile")
    stream = io.BytesIO()
    soundfile.write(stream, WAVE, 16_000, format=form)
    return stream.getvalue()


def film(container, make_video):
    frames = [np.roll(PICTURE, 3 * i, axis=1) for i in range(12)]
    # Matroska holds waves as they are; the other containers have no sound here.
    sound = (WAVE[None] * 2**15).astype(np.int16) if container == "matroska" else None
    return make_video(frames=frames, container=container, sound=sound, gop=4, **VIDEOS[container])


def damages(content, n_damages, seed=0):
    """Yield what becomes of a file that is cut off, and whose bytes are flipped, overwritten, lost or repeated."""
    rng = np.random.default_rng(seed)
    for kind in range(n_damages):
        content_now = bytearray(content)
        # Headers are short and decide the most, so every other damage is near the beginning.
        where = int(rng.integers(len(content) if kind % 2 else min(len(content), 200)))
        length = int(rng.integers(1, 20))
        match kind % 6:
            case 0:
                del content_now[int(rng.integers(1, len(content))) :]
            case 1:
                for place in rng.integers(len(content), size=length):
                    content_now[place] ^= 1 << int(rng.integers(8))
            case 2:
                content_now[where] ^= 1 << int(rng.integers(8))
            case 3:
                content_now[where : where + length] = rng.bytes(length)
            case 4:
                content_now[where : where + 4] = b"\xff" * 4
            case 5:
                content_now[where : where + length] = content[: length if kind % 12 == 5 else 0]
        yield bytes(content_now)


def outcomes(read, content, n_damages=N_DAMAGES):
    """Read a file as it is, then damaged; give what was read of the latter. It may be refused, and nothing else."""
    read(content)
    found = []
    for damaged in damages(content, n_damages):
        with suppress(RejectedItem):
            found.append(read(damaged))
    return found


# Of palettes, sizes and chunks that make no sense Pillow says so, and goes on.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", IMAGES)
def test_images(form, monkeypatch):
    # Sizes that a damaged header claims cost no time here.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    for image in outcomes(lambda content: load_image(content, enough=32), picture(form)):
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.size > 0


@pytest.mark.parametrize("form", SOUNDS)
def test_sounds(form):
    pytest.importorskip("soxr")
    for waveform, rate in outcomes(lambda content: load_audio(content, 8000), recording(form)):
        assert waveform.dtype == np.float32
        assert np.isfinite(waveform).all()
        assert waveform.ndim == 1
        assert len(waveform) > 0
        assert rate > 0


@pytest.mark.parametrize("container", VIDEOS)
def test_videos(container, make_video, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    for frames, samples in outcomes(lambda content: sample_frames(content, n_frames=4), film(container, make_video)):
        assert len(samples) == 4
        assert all(frame.dtype == np.uint8 and frame.shape[2] == 3 for frame in frames)


def test_sound_tracks(make_video):
    for rate, waveform in outcomes(load_sound, film("matroska", make_video)):
        assert rate > 0
        assert waveform.dtype == np.float32
        assert len(waveform) > 0
