"""Every form in which a recording may come decodes to the same waveform; every bad one says what is wrong."""

import io
import struct

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal

from skmm.exceptions import RejectedItem
from skmm.media._sound import load_audio, resample
from skmm.store._content import content_key

soundfile = pytest.importorskip("soundfile", reason='needs pip install "skmm[audio]"')

RATE = 16000


def tone(pitch=440, rate=RATE, seconds=1.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def encoded(waveform, rate=RATE, format="WAV", subtype=None):
    stream = io.BytesIO()
    soundfile.write(stream, waveform, rate, format=format, subtype=subtype)
    return stream.getvalue()


def as_path(content, folder, name="sound.wav"):
    path = folder / name
    path.write_bytes(content)
    return path


def reason_of(item, **options):
    with pytest.raises(RejectedItem) as caught:
        load_audio(item, **options)
    return str(caught.value)


@pytest.fixture(scope="module")
def pcm():
    """A waveform whose values 16 bits hold exactly."""
    return np.round(tone(seconds=0.1) * 2**15).astype(np.int16)


@pytest.mark.parametrize(
    "form",
    [
        lambda pcm, folder: (RATE, pcm),
        lambda pcm, folder: [RATE, pcm],
        lambda pcm, folder: (np.int64(RATE), pcm),
        lambda pcm, folder: (float(RATE), pcm / 2**15),
        lambda pcm, folder: (RATE, (pcm / 2**15).tolist()),
        lambda pcm, folder: (RATE, pcm.astype(np.int32) * 2**16),
        lambda pcm, folder: (RATE, pcm.astype(">i2")),
        lambda pcm, folder: (RATE, pcm[:, np.newaxis]),
        lambda pcm, folder: (RATE, pcm[np.newaxis]),
        lambda pcm, folder: (RATE, np.stack([pcm, pcm])),
        lambda pcm, folder: (RATE, np.stack([pcm, pcm, pcm, pcm], axis=1)),
        lambda pcm, folder: (RATE, np.stack([pcm / 2**14, np.zeros(len(pcm))])),
        lambda pcm, folder: {"array": pcm, "sampling_rate": RATE, "path": None},
        lambda pcm, folder: {"bytes": encoded(pcm), "path": "gone.wav"},
        lambda pcm, folder: {"bytes": None, "path": str(as_path(encoded(pcm), folder))},
        lambda pcm, folder: encoded(pcm),
        lambda pcm, folder: bytearray(encoded(pcm)),
        lambda pcm, folder: memoryview(encoded(pcm)),
        lambda pcm, folder: memoryview(np.repeat(np.frombuffer(encoded(pcm), np.uint8), 2))[::2],
        lambda pcm, folder: encoded(pcm / 2**15, subtype="FLOAT"),
        lambda pcm, folder: encoded(pcm, subtype="PCM_24"),
        lambda pcm, folder: encoded(np.stack([pcm, pcm], axis=1)),
        lambda pcm, folder: encoded(pcm, format="FLAC"),
        lambda pcm, folder: encoded(pcm, format="AIFF"),
        lambda pcm, folder: as_path(encoded(pcm), folder),
        lambda pcm, folder: str(as_path(encoded(pcm, format="FLAC"), folder, "sound.mp3")),
        lambda pcm, folder: np.str_(as_path(encoded(pcm), folder)),
    ],
)
def test_forms_decode_to_the_same_waveform(pcm, tmp_path, form):
    waveform, rate = load_audio(form(pcm, tmp_path))
    assert waveform.dtype == np.float32
    assert rate == RATE
    assert_allclose(waveform, pcm / 2**15, atol=1e-7)


def test_bare_arrays_have_the_rate_that_is_stated(pcm):
    for item in (pcm, pcm / 2**15, (pcm / 2**15).tolist()):
        waveform, rate = load_audio(item, array_rate=RATE)
        assert rate == RATE
        assert_allclose(waveform, pcm / 2**15, atol=1e-7)
    # What says its rate is not overruled.
    assert load_audio((8000, pcm), array_rate=RATE)[1] == 8000


@pytest.mark.parametrize("library", ["torch", "pandas", "polars", "pyarrow"])
def test_waveforms_of_other_libraries(pcm, library):
    module = pytest.importorskip(library)
    make = {"torch": "tensor", "pandas": "Series", "polars": "Series", "pyarrow": "array"}[library]
    waveform = getattr(module, make)(pcm / 2**15)
    for item, options in [
        ((RATE, waveform), {}),
        (waveform, {"array_rate": RATE}),
        ({"sampling_rate": RATE, "array": waveform}, {}),
    ]:
        assert_allclose(load_audio(item, **options)[0], pcm / 2**15, atol=1e-7)
    if library == "torch":
        for tensor in (waveform[None], waveform.clone().requires_grad_()):
            assert_allclose(load_audio((RATE, tensor))[0], pcm / 2**15, atol=1e-7)


@pytest.mark.parametrize(("format", "tolerance"), [("OGG", 0.02), ("MP3", 0.02)])
def test_lossy_formats(format, tolerance):
    sound = tone()
    waveform, rate = load_audio(encoded(sound, format=format))
    assert rate == RATE
    assert len(waveform) == len(sound)
    assert np.sqrt(np.mean((waveform - sound) ** 2)) < tolerance


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-128, 0, 64], np.int8), [-1, 0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        (np.array([-(2**15), 0, 2**14], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
        (np.array([-1.5, 0, 0.5], np.float16), [-1.5, 0, 0.5]),
        (np.array([-1.5, 0, 0.5], np.float64), [-1.5, 0, 0.5]),
    ],
)
def test_full_scale_is_that_of_the_dtype(samples, expected):
    assert_array_equal(load_audio((RATE, samples))[0], np.array(expected, np.float32))


def test_channels_are_the_shorter_axis_and_the_last_of_equal_ones():
    two_by_three = np.array([[1, 2, 3], [5, 6, 7]], np.float32)
    assert_array_equal(load_audio((RATE, two_by_three))[0], [3, 4, 5])
    assert_array_equal(load_audio((RATE, two_by_three.T))[0], [3, 4, 5])
    assert_array_equal(load_audio((RATE, np.array([[1, 3], [5, 7]], np.float32)))[0], [2, 6])


@pytest.mark.parametrize(("from_rate", "to_rate"), [(8000, 16000), (44100, 16000), (48000, 16000), (16000, 22050)])
def test_resampling_keeps_pitch_amplitude_and_time(from_rate, to_rate):
    resampled = load_audio((from_rate, tone(440, from_rate)), to_rate)[0]
    assert resampled.dtype == np.float32
    assert len(resampled) == to_rate
    # The ends, where the filter looks beyond the recording, aside.
    inner = slice(to_rate // 20, -to_rate // 20)
    assert_allclose(resampled[inner], tone(440, to_rate)[inner], atol=1e-3)


def test_resampling_removes_what_the_new_rate_cannot_hold():
    assert np.abs(load_audio((48000, tone(12000, 48000)), 16000)[0][1000:-1000]).max() < 1e-3


@pytest.mark.parametrize(("from_rate", "to_rate"), [(8000, 16000), (44100, 16000), (48000, 16000), (16000, 22050)])
def test_resampling_beside_scipys_polyphase_filter(from_rate, to_rate):
    up, down = to_rate // np.gcd(from_rate, to_rate), from_rate // np.gcd(from_rate, to_rate)
    lowest = min(from_rate, to_rate)
    # Noise of all pitches that both rates hold, up to where filters begin to fall off.
    noise = np.random.default_rng(0).normal(size=from_rate)
    noise = signal.sosfiltfilt(signal.ellip(12, 0.01, 140, 0.8 * lowest / 2, fs=from_rate, output="sos"), noise)
    # A longer filter than scipy's own, whose stop band is at -60 dB.
    taps = signal.firwin(2 * 60 * max(up, down) + 1, 1 / max(up, down), window=("kaiser", 12))
    expected = signal.resample_poly(noise, up, down, window=taps)
    found = resample(noise.astype(np.float32), from_rate, to_rate)
    assert len(found) == len(expected)
    inner = slice(to_rate // 20, -to_rate // 20)
    # 1e-6 at simple ratios; for others soxr interpolates between the taps of its filter.
    atol = 2e-6 if max(up, down) < 10 else 3e-4
    assert_allclose(found[inner], expected[inner], atol=atol)


def test_no_resampling_at_equal_rates(pcm):
    assert_array_equal(load_audio((RATE, pcm), RATE)[0], load_audio((RATE, pcm))[0])


@pytest.mark.parametrize("n_times", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(("from_rate", "to_rate"), [(8000, 16000), (44100, 16000), (48000, 16000), (1000.5, 333)])
def test_length_after_resampling(n_times, from_rate, to_rate):
    resampled = resample(np.ones(n_times, np.float32), from_rate, to_rate)
    assert len(resampled) == int(np.ceil(n_times * to_rate / from_rate))
    assert np.isfinite(resampled).all()


def test_silence_and_a_single_sample_are_sound():
    assert_array_equal(load_audio((RATE, np.zeros(5)))[0], np.zeros(5))
    assert_array_equal(load_audio(encoded(np.zeros(5)))[0], np.zeros(5))
    assert_array_equal(load_audio((RATE, np.array([0.5])))[0], [0.5])
    assert_allclose(load_audio(encoded(np.array([0.5])))[0], [0.5], atol=1e-4)


def test_the_item_is_not_changed(pcm):
    waveform = np.stack([pcm / 2**15] * 2)
    before = waveform.copy()
    load_audio((RATE, waveform), 8000)
    assert_array_equal(waveform, before)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (b"", "no bytes at all"),
        (b"This is no sound. " * 50, "no sound or video in a format that FFmpeg can read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no sound"),
        ("https://example.org/a.wav", "a URL and nothing is fetched; pass the path"),
        ("s3://bucket/a.wav", "a URL and nothing is fetched"),
        ("file:///home/a.wav", "a URL and nothing is fetched"),
        ("nowhere.wav", "does not exist"),
        ("a\0b.wav", "cannot be opened as a path"),
        (3.5, "a recording is a path.* got float 3.5"),
        (object(), r"a recording is a path.* got builtins\.object object"),
        (np.zeros(5), "the sampling rate of a bare waveform is unknown; pass .* set the encoder's sampling_rate"),
        ([0.1, 0.2, 0.3], "the sampling rate of a bare waveform is unknown"),
        ((np.zeros(5), 8000), r"looks like \(waveform, sampling_rate\); pass \(sampling_rate, waveform\)"),
        ((8000, None), "a tuple must be a pair"),
        ((8000, np.zeros(5), 1), "a tuple must be a pair"),
        ((0, np.zeros(5)), "lies between 100 and 1000000 Hz, got int 0"),
        ((-8000, np.zeros(5)), "got int -8000"),
        ((float("nan"), np.zeros(5)), "got float nan"),
        ((10**9, np.zeros(5)), "got int 1000000000"),
        (("8000", np.zeros(5)), "the sampling rate must be a number, in Hz, got '8000'"),
        ((True, np.zeros(5)), "the sampling rate must be a number"),
        ((np.complex64(8000), np.zeros(5)), "the sampling rate must be a number"),
        ((8000, np.zeros(0)), "the recording is empty"),
        ((8000, np.zeros((2, 0))), "the recording is empty"),
        ((8000, []), "the recording is empty"),
        ((8000, np.zeros((2, 2, 2))), r"shape \(2, 2, 2\) is no waveform"),
        ((8000, np.zeros((100, 300))), "100 channels are too many"),
        ((8000, [[1.0], [1.0, 2.0]]), "this is no waveform"),
        ((8000, np.array([1, 2])), "samples of dtype int64 have no known full scale"),
        ((8000, np.array([True])), "samples of dtype bool"),
        ((8000, np.array([1j])), "samples of dtype complex128"),
        ((8000, np.array(["a"])), "samples of dtype <U1"),
        ((8000, np.array([None, 1.0])), "samples of dtype object"),
        ((8000, np.array([0, np.nan])), "NaN, infinite or too large"),
        ((8000, np.array([0, -np.inf])), "NaN, infinite or too large"),
        ((8000, np.array([0, 1e300])), "NaN, infinite or too large"),
        ({"array": [0.0]}, 'a dict with "array" must have "sampling_rate"'),
        ({"text": "a"}, r"got the keys \['text'\]"),
        ({"bytes": None, "path": None}, "a dict must have"),
        ({str(key): key for key in range(10_000)}, "got the keys"),
        ("A" * 266_960, "a string of 266,960 characters that is no path of a file.* base64.b64decode"),
        ("data:audio/wav;base64,UklGRg==", "a data URL"),
        ((10**5000, np.zeros(5)), "got int of very many digits"),
        (("8" * 10**6, np.zeros(5)), "the sampling rate must be a number"),
    ],
    ids=lambda value: None,
)
def test_bad_items(item, reason):
    with pytest.raises(RejectedItem, match=reason) as caught:
        load_audio(item)
    assert len(str(caught.value)) < 500


def test_files_with_values_that_are_not_finite():
    assert "NaN, infinite" in reason_of(encoded(np.array([0, np.nan, 1]), subtype="FLOAT"))


def test_empty_recordings_in_files():
    assert "holds no sound" in reason_of(encoded(np.zeros(0)))


def test_bad_paths(tmp_path):
    assert "a directory, pass the path of a sound file" in reason_of(tmp_path)
    assert "the file is empty (0 bytes)" in reason_of(as_path(b"", tmp_path))
    assert "no sound" in reason_of(as_path(b"some text, and no sound at all" * 9, tmp_path))
    # A name that would make it raw samples of any kind.
    assert "no sound" in reason_of(as_path(bytes(100), tmp_path, "sound.raw"))


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    path = as_path(encoded(tone()), tmp_path)
    # Everything is permitted to root, as whom tests may run.
    monkeypatch.setattr("skmm.media._files.open", refuse, raising=False)
    assert "no permission" in reason_of(path)


# Where almost nothing is left, soundfile itself stumbles over a seek.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "W64", "RF64"])
def test_truncated_files(format, share):
    noise = tone() + np.random.default_rng(0).normal(0, 0.05, RATE).astype(np.float32)
    content = encoded(noise, format=format)
    load_audio(content)
    assert reason_of(content[: int(len(content) * share)])


def test_damage_inside_a_file():
    content = bytearray(encoded(np.random.default_rng(0).normal(0, 0.05, RATE), format="FLAC"))
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    assert "truncated or damaged" in reason_of(bytes(content))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_files_of_recorders_that_did_not_know_the_length(pcm, size):
    content = bytearray(encoded(pcm))
    assert content[36:40] == b"data"
    content[4:8] = content[40:44] = struct.pack("<I", size)
    assert_allclose(load_audio(bytes(content))[0], pcm / 2**15, atol=1e-7)


def test_other_mistakes_in_a_header_do_not_count(pcm):
    content = bytearray(encoded(pcm))
    # Bytes per second, which follow from the rest.
    content[28:32] = struct.pack("<I", 10**6)
    assert_allclose(load_audio(bytes(content))[0], pcm / 2**15, atol=1e-7)


def test_what_a_header_claims_is_not_allocated():
    content = bytearray(encoded(tone(), format="FLAC"))
    # The last 36 of the 64 bits from byte 18 on are the number of samples.
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    assert "truncated" in reason_of(bytes(content))


@pytest.mark.parametrize("n_times", [10**6, 4 * 10**6])
def test_a_few_kilobytes_do_not_fill_the_memory(n_times, monkeypatch):
    def resample(*_):
        raise AssertionError("resampled before the length is checked")

    monkeypatch.setattr("skmm.media._sound.resample", resample)
    content = encoded(np.zeros(n_times, np.float32), rate=100, format="FLAC")
    assert len(content) < 20_000
    too_long = "too long: at 16000 Hz it would have more than 67108864 samples; .* correct its sampling rate of 100 Hz"
    for item in (content, (100, np.zeros(n_times, np.float32)), {"bytes": content}):
        with pytest.raises(RejectedItem, match=too_long):
            load_audio(item, 16000)
    with pytest.raises(RejectedItem, match=too_long):
        load_audio(np.zeros(n_times, np.float32), 16000, array_rate=100)
    assert len(load_audio(content)[0]) == n_times


def test_recordings_that_are_too_long_are_not_read_to_their_end(monkeypatch):
    monkeypatch.setattr("skmm.media._sound._MAX_SAMPLES", 20_000)
    monkeypatch.setattr("skmm.media._sound._FRAMES_PER_READ", 5_000)
    reads = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *args, **options: reads.append(1) or read(*args, **options))
    assert "at 8000 Hz it would have more than 20000 samples; cut it into parts" in reason_of(
        encoded(np.zeros(100_000), rate=8000)
    )
    assert len(reads) == 5
    # Also if less is left of it at the rate that is asked for.
    assert "at 8000 Hz it would" in reason_of(encoded(np.zeros(30_000), rate=8000), rate=4000)
    assert "at 32000 Hz it would" in reason_of((8000, np.zeros(5001)), rate=32000)
    for item in (encoded(np.zeros(5000), rate=8000), (8000, np.zeros(5000))):
        assert len(load_audio(item, 32000)[0]) == 20_000
    # What lies in memory already is limited only by what resampling adds to it.
    assert len(load_audio((8000, np.zeros(100_000)))[0]) == 100_000


def test_slow_sensors_of_ordinary_length():
    assert len(load_audio((100, np.zeros(6000)), 16000)[0]) == 60 * 16000


def test_implausible_rate_in_a_header():
    content = bytearray(encoded(tone()))
    content[24:28], content[28:32] = struct.pack("<I", 3), struct.pack("<I", 6)
    assert "got int 3" in reason_of(bytes(content))


def test_pairs_of_equal_content_have_equal_keys(pcm):
    assert content_key((RATE, pcm)) == content_key((RATE, pcm.copy()))
    assert content_key((RATE, pcm)) != content_key((8000, pcm))
    assert content_key((RATE, pcm)) != content_key((RATE, pcm[::-1]))
    assert content_key((RATE, pcm)) != content_key((RATE, pcm.astype(np.int32)))
    assert content_key((RATE, object())) is None


def test_missing_package_is_named(monkeypatch, pcm):
    import sys

    content = encoded(pcm)
    for name, extra, recording in [("soundfile", "audio", content), ("av", "video", encoded(pcm, format="MP3"))]:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ImportError, match=rf'pip install "skmm\[{extra}\]"'):
                load_audio(recording)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ImportError, match=r'pip install "skmm\[audio\]"'):
        load_audio((RATE, pcm), 8000)
    assert len(load_audio((RATE, pcm), RATE)[0]) == len(pcm)
