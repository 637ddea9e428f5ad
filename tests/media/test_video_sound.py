"""The sound tracks of videos: sample by sample, as far as they go; what is no video says why."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skmm.exceptions import RejectedItem
from skmm.media._video import sample_frames
from skmm.media._video_sound import load_sound

pytest.importorskip("av")


def noise(n=8000):
    return np.random.default_rng(0).integers(-(2**15), 2**15, (2, n)).astype(np.int16)


def test_samples_are_those_of_the_track(make_video):
    tone = noise()
    rate, wave = load_sound(make_video(5, sound=tone[:1]))
    assert rate == 8000
    assert wave.dtype == np.float32
    assert_array_equal(wave, tone[0] / np.float32(2**15))


def test_channels(make_video):
    tone = noise()
    video = make_video(5, sound=tone)
    _, wave = load_sound(video, mono=False)
    assert_array_equal(wave, tone.T / np.float32(2**15))
    _, wave = load_sound(video)
    assert wave.shape == (8000,)
    assert_allclose(wave, tone.mean(axis=0) / 2**15, atol=1e-6)


def test_resampling(make_video):
    time = np.arange(16000) / 16000
    wave = np.sin(2 * np.pi * 440 * time)
    video = make_video(5, sound=np.round(2**14 * wave)[None].astype(np.int16), sampling_rate=16000)
    rate, found = load_sound(video, sampling_rate=8000)
    assert rate == 8000
    assert abs(len(found) - 8000) <= 1
    assert_allclose(found[100:7900], wave[200:15800:2] / 2, atol=2e-3)


def test_no_sound(make_video):
    assert load_sound(make_video(5)) is None
    frames = np.zeros((4, 8, 8), dtype=np.uint8)
    assert load_sound(frames) is None
    assert load_sound((10, list(frames))) is None


@pytest.mark.parametrize("item", [b"", b"just a text\n" * 40, 3, np.zeros(3), [], "nowhere.mp4"])
def test_what_is_no_video_says_so_as_for_frames(item):
    reasons = []
    for load in (load_sound, sample_frames):
        with pytest.raises(RejectedItem) as caught:
            load(item)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]


def test_sound_without_pictures(make_video):
    tone = noise()[:1]
    assert_array_equal(load_sound(make_video(0, sound=tone, container="wav"))[1], tone[0] / np.float32(2**15))


def test_truncated(make_video):
    tone = noise(80000)[:1]
    file = make_video(0, sound=tone, container="wav")
    _, wave = load_sound(file[: len(file) // 2])
    assert 20000 < len(wave) <= 40000
    assert_array_equal(wave, tone[0, : len(wave)] / np.float32(2**15))
