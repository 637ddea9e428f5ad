"""Descriptors of sound equal librosa's; items, missing and bad ones behave as for every encoder."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError

from skmm.encoders import AudioDescriptor
from skmm.exceptions import ItemError
from skmm.media import SpectralFeatures

librosa = pytest.importorskip("librosa", reason='needs pip install "skmm[audio]"')

RATE = 16000
ALL = (
    *("mfcc", "mfcc_delta", "mfcc_delta2", "logmel", "chroma", "centroid", "bandwidth", "rolloff"),
    *("contrast", "flatness", "zcr", "rms"),
)


def sound(n_times=8000, seed=0):
    """A chord that fades, with noise."""
    rng = np.random.default_rng(seed)
    times = np.arange(n_times) / RATE
    chord = sum(np.sin(2 * np.pi * pitch * times) for pitch in rng.uniform(100, 3000, 3))
    return (0.1 * chord * np.exp(-2 * times) + 0.01 * rng.normal(size=n_times)).astype(np.float32)


@pytest.fixture(scope="module")
def items():
    return [(RATE, sound(8000 + 500 * seed, seed)) for seed in range(4)]


def reference(y, n_fft=1024, hop_length=256):
    """librosa's own features of a waveform, with its own parameters."""
    grid = {"n_fft": n_fft, "hop_length": hop_length}
    mel = librosa.feature.melspectrogram(y=y, sr=RATE, n_mels=64, **grid)
    mfcc = librosa.feature.mfcc(y=y, sr=RATE, n_mfcc=20, n_mels=64, **grid)
    return {
        "mfcc": mfcc,
        "mfcc_delta": librosa.feature.delta(mfcc, mode="nearest"),
        "mfcc_delta2": librosa.feature.delta(mfcc, order=2, mode="nearest"),
        "logmel": librosa.power_to_db(mel),
        "chroma": librosa.feature.chroma_stft(y=y, sr=RATE, tuning=0.0, **grid),
        "centroid": librosa.feature.spectral_centroid(y=y, sr=RATE, **grid),
        "bandwidth": librosa.feature.spectral_bandwidth(y=y, sr=RATE, **grid),
        "rolloff": librosa.feature.spectral_rolloff(y=y, sr=RATE, **grid),
        "contrast": librosa.feature.spectral_contrast(y=y, sr=RATE, n_bands=5, **grid),
        "flatness": librosa.feature.spectral_flatness(y=y, **grid),
        "zcr": librosa.feature.zero_crossing_rate(y, frame_length=n_fft, hop_length=hop_length),
        "rms": librosa.feature.rms(y=y, frame_length=n_fft, hop_length=hop_length),
    }


# A spectrum does not tell an odd length of frames from the even one below it.
@pytest.mark.parametrize("grid", [{}, {"n_fft": 401, "hop_length": 160}], ids=str)
@pytest.mark.parametrize("feature", ALL)
def test_features_are_those_of_librosa(items, feature, grid):
    described = AudioDescriptor(feature, **grid).fit_transform(items)
    expected = []
    for _, waveform in items:
        frames = reference(waveform, **grid)[feature]
        expected.append(np.r_[frames.mean(axis=1), frames.std(axis=1)])
    assert_allclose(described, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_parameters_reach_librosa(items):
    descriptor = AudioDescriptor("mfcc", statistics="mean", n_mfcc=5, n_mels=30, n_fft=512, hop_length=100)
    options = {"sr": 8000, "n_mfcc": 5, "n_mels": 30, "n_fft": 512, "hop_length": 100}
    expected = [
        librosa.feature.mfcc(y=librosa.resample(x, orig_sr=RATE, target_sr=8000, res_type="soxr_hq"), **options)
        for _, x in items
    ]
    described = descriptor.set_params(target_rate=8000).fit_transform(items)
    assert_allclose(described, [frames.mean(axis=1) for frames in expected], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("n_fft", "hop_length"), [(1024, 256), (401, 160), (512, 700)])
@pytest.mark.parametrize("n_times", [1024, 16000 * 5 + 7])
def test_spectra_are_computed_in_pieces(n_fft, hop_length, n_times, monkeypatch):
    waveform = np.random.default_rng(0).normal(size=n_times).astype(np.float32)
    expected = np.abs(librosa.stft(waveform, n_fft=n_fft, hop_length=hop_length))
    sizes = []
    stft = librosa.stft
    monkeypatch.setattr(librosa, "stft", lambda part, **options: sizes.append(len(part)) or stft(part, **options))
    monkeypatch.setattr("skmm.media._spectra._FRAMES_AT_ONCE", 10)
    found = SpectralFeatures(waveform, RATE, n_fft=n_fft, hop_length=hop_length, n_mels=128).magnitude
    assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert max(sizes) <= 9 * hop_length + n_fft


def test_statistics(items):
    names = ["mean", "std", "min", "max", "median"]
    described = AudioDescriptor("centroid", statistics=names).fit_transform(items)
    for row, (_, waveform) in zip(described, items, strict=True):
        frames = reference(waveform)["centroid"][0]
        expected = [frames.mean(), frames.std(), frames.min(), frames.max(), np.median(frames)]
        assert_allclose(row, expected, rtol=1e-4)


def test_features_follow_in_the_order_given(items):
    parts = [AudioDescriptor(feature).fit_transform(items) for feature in ALL]
    assert_array_equal(AudioDescriptor(ALL).fit_transform(items), np.hstack(parts))
    assert_array_equal(AudioDescriptor(list(ALL[::-1])).fit_transform(items), np.hstack(parts[::-1]))


def test_names_and_width(items):
    descriptor = AudioDescriptor(["mfcc", "rms"], n_mfcc=2, statistics=["max", "mean"]).fit(items)
    assert descriptor.get_feature_names_out().tolist() == [
        *("mfcc_max0", "mfcc_max1", "mfcc_mean0", "mfcc_mean1"),
        *("rms_max0", "rms_mean0"),
    ]
    descriptor = AudioDescriptor(ALL).fit(items)
    names = descriptor.get_feature_names_out()
    assert descriptor.n_features_out_ == len(names) == len(set(names)) == 2 * (3 * 20 + 64 + 12 + 6 + 6)
    assert descriptor.transform(items).shape == (4, len(names))


@pytest.mark.parametrize(("target_rate", "n_bands"), [(900, 1), (8000, 4), (16000, 5), (44100, 6), (96000, 6)])
def test_contrast_has_the_octaves_that_fit(target_rate, n_bands):
    descriptor = AudioDescriptor("contrast", statistics="mean", target_rate=target_rate)
    described = descriptor.fit_transform([(target_rate, sound(5000))])
    expected = librosa.feature.spectral_contrast(
        y=sound(5000), sr=target_rate, n_bands=n_bands, n_fft=1024, hop_length=256
    ).mean(axis=1)
    assert_allclose(described, [expected], rtol=1e-4)


@pytest.mark.parametrize("waveform", [np.zeros(1), np.ones(1), np.zeros(8000), np.ones(8000), sound(3), sound(1025)])
def test_silence_and_short_recordings_are_described(waveform):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described = AudioDescriptor(ALL).fit_transform([(RATE, waveform)])
    assert np.isfinite(described).all()


def test_short_recordings_are_filled_up_with_zeros():
    short = sound(300)
    padded = np.r_[short, np.zeros(724, np.float32)]
    assert_array_equal(*AudioDescriptor(ALL).fit_transform([(RATE, short), (RATE, padded)]))


def test_bands_without_a_frequency_do_not_warn(items):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described = AudioDescriptor("logmel", n_mels=128, n_fft=256).fit_transform(items)
    assert np.isfinite(described).all()


def test_columns(items, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    paths = [tmp_path / f"{i}.wav" for i in range(len(items))]
    for path, (rate, waveform) in zip(paths, items, strict=True):
        soundfile.write(path, waveform, rate, subtype="FLOAT")
    descriptor = AudioDescriptor(ALL, sampling_rate=RATE)
    expected = descriptor.fit_transform(items)
    waves = [waveform for _, waveform in items]
    for column in [
        pd.Series(items),
        pd.DataFrame({"sound": items}),
        paths,
        pl.Series([str(path) for path in paths]),
        [path.read_bytes() for path in paths],
        waves,
        pd.Series(waves),
        pl.Series(waves, dtype=pl.List(pl.Float32)),
    ]:
        assert_array_equal(descriptor.fit_transform(column), expected)
    rows = np.stack([waveform[:8000] for waveform in waves])
    assert_array_equal(descriptor.fit_transform(rows), descriptor.fit_transform(list(rows)))


def test_missing_items_are_rows_of_nan(items):
    column = [None, items[0], float("nan"), pd.NA, "", items[1]]
    described = AudioDescriptor().fit_transform(column)
    assert np.isnan(described[[0, 2, 3, 4]]).all()
    assert_array_equal(described[[1, 5]], AudioDescriptor().fit_transform(items[:2]))


def test_bad_items(items):
    column = [items[0], b"no sound", items[1], "absent.wav", 7, None, "absent.wav", sound()]
    with pytest.raises(ItemError, match="AudioDescriptor: row 1: 8 bytes: the content is no sound"):
        AudioDescriptor().fit_transform(column)
    descriptor = AudioDescriptor(on_error="missing")
    with pytest.warns(UserWarning, match="5 of 8 items could not be encoded"):
        described = descriptor.fit_transform(column)
    assert_array_equal(described[[0, 2]], AudioDescriptor().fit_transform(items[:2]))
    assert np.isnan(described[[1, 3, 4, 5, 6, 7]]).all()
    assert [error.row for error in descriptor.errors_] == [1, 3, 4, 6, 7]
    assert [error.reason for error in descriptor.find_errors(column)] == [e.reason for e in descriptor.errors_]


def test_fit_decodes_nothing():
    assert AudioDescriptor().fit(["no_such_file.wav"]).errors_ == []


def test_rows_depend_on_neither_order_nor_neighbours(items, monkeypatch):
    descriptor = AudioDescriptor(ALL).fit(items)
    described = descriptor.transform(items)
    assert described.dtype == np.float32
    assert_array_equal(descriptor.transform([items[3], items[0]]), described[[3, 0]])
    monkeypatch.setattr(AudioDescriptor, "_window", 1)
    assert_array_equal(descriptor.transform(items), described)


def test_transform_changes_neither_descriptor_nor_items(items):
    descriptor = AudioDescriptor(ALL, sampling_rate=8000).fit(items)
    before, waves = copy.deepcopy(vars(descriptor)), [waveform.copy() for _, waveform in items]
    descriptor.transform([*items, items[0][1]])
    assert vars(descriptor) == before
    for (_, waveform), copied in zip(items, waves, strict=True):
        assert_array_equal(waveform, copied)


def test_clone_pickle_and_output(items):
    descriptor = AudioDescriptor("chroma", n_fft=512)
    described = descriptor.fit_transform(items)
    copied = clone(descriptor)
    assert copied.get_params() == descriptor.get_params()
    with pytest.raises(NotFittedError):
        copied.transform(items)
    assert_array_equal(pickle.loads(pickle.dumps(descriptor)).transform(items), described)
    frame = descriptor.set_output(transform="pandas").fit_transform(pd.Series(items, index=list("abcd")).to_frame("s"))
    assert frame.index.tolist() == list("abcd")
    assert frame.columns.tolist() == descriptor.get_feature_names_out().tolist()


def test_in_a_column_transformer(items):
    frame = pd.DataFrame({"price": np.arange(4.0), "sound": items})
    union = ColumnTransformer([("sound", AudioDescriptor("chroma"), "sound")], remainder="passthrough")
    described = union.fit_transform(frame)
    assert_allclose(described[:, :24], AudioDescriptor("chroma").fit_transform(items))
    assert union.get_feature_names_out()[[0, -1]].tolist() == ["sound__chroma_mean0", "remainder__price"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"features": "pitch"}, "The 'features' parameter of AudioDescriptor must be"),
        ({"features": ("mfcc", "pitch")}, "features must name"),
        ({"features": ("mfcc", "mfcc")}, "at most once"),
        ({"features": ()}, "features must name"),
        ({"features": ["mfcc", ["rms"]]}, "features must name"),
        ({"statistics": ["mean", ["std"]]}, "statistics must name"),
        ({"statistics": "mode"}, "The 'statistics' parameter"),
        ({"statistics": ["mean", "mode"]}, "statistics must name"),
        ({"statistics": []}, "statistics must name"),
        ({"n_mfcc": 0}, "The 'n_mfcc' parameter"),
        ({"n_mfcc": 65}, "n_mfcc=65 must be at most n_mels=64"),
        ({"n_fft": 1}, "The 'n_fft' parameter"),
        ({"hop_length": 0}, "The 'hop_length' parameter"),
        ({"target_rate": 0}, "The 'target_rate' parameter"),
        ({"sampling_rate": "8k"}, "The 'sampling_rate' parameter"),
        ({"on_error": "ignore"}, "The 'on_error' parameter"),
        ({"features": "contrast", "target_rate": 800}, "'contrast' needs a target_rate of more than 800 Hz"),
    ],
)
def test_bad_parameters(items, params, message):
    with pytest.raises(ValueError, match=message):
        AudioDescriptor(**params).fit(items)
    with pytest.raises(ValueError, match=message):
        AudioDescriptor(**params).find_errors(items)


def test_missing_package_is_named(monkeypatch, items):
    import sys

    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(ImportError, match=r'pip install "skmm\[audio\]"'):
        AudioDescriptor().fit_transform(items)
