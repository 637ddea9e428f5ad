"""Frames of AudioBranch, series of SequenceBranch, and layers that hear no padding."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from skmm.encoders import AudioDescriptor
from skmm.neural_network import AudioBranch, SequenceBranch

RNG = np.random.default_rng(0)


def test_frames_are_librosas_log_mel_spectrogram_from_its_loudest_frame():
    librosa = pytest.importorskip("librosa")
    sound = RNG.normal(size=8000).astype(np.float32)
    branch = AudioBranch(n_mels=20, n_fft=256, hop_length=128, target_rate=8000)
    frames, lengths = branch.fit([(8000, sound)]).prepare([(8000, sound)])
    power = librosa.feature.melspectrogram(y=sound, sr=8000, n_fft=256, hop_length=128, n_mels=20)
    expected = 1 + librosa.power_to_db(power, ref=np.max) / 40
    np.testing.assert_allclose(frames[0], expected.T, atol=1e-5)
    assert lengths.tolist() == [expected.shape[1]]
    assert frames.dtype == np.float32
    assert -1 <= frames.min() < frames.max() == 1


def test_loudness_silence_and_long_recordings():
    branch = AudioBranch(target_rate=8000, hop_length=80, max_seconds=0.5).fit(["a.wav"])
    sound = RNG.normal(size=8000).astype(np.float32)
    frames, lengths = branch.prepare([(8000, sound), (8000, sound / 8), (8000, np.zeros(4000, dtype=np.float32))])
    np.testing.assert_allclose(frames[0], frames[1], atol=1e-4)
    assert lengths.tolist() == [51, 51, 51]
    assert np.isfinite(frames).all()


def test_frames_are_those_of_descriptors_but_for_fewer_bands():
    branch, descriptor = AudioBranch().get_params(), AudioDescriptor().get_params()
    different = {name for name in branch.keys() & descriptor.keys() if branch[name] != descriptor[name]}
    assert different == {"n_mels"}
    assert branch["n_mels"] < descriptor["n_mels"]


def test_rows_of_a_matrix_are_bare_waveforms():
    sounds = RNG.normal(size=(3, 4000)).astype(np.float32)
    pairs = [(16000, sound) for sound in sounds]
    expected = AudioBranch().fit(pairs).prepare(pairs)[0]
    np.testing.assert_array_equal(AudioBranch(sampling_rate=16000).fit(sounds).prepare(sounds)[0], expected)
    with pytest.raises(ValueError, match=r"row 0: .*the sampling rate of a bare waveform is unknown"):
        AudioBranch().fit(sounds).prepare(sounds)


def test_series_are_standardised_by_channel():
    series = [RNG.normal([1, 100], [2, 50], size=(n, 2)) for n in (5, 9)]
    branch = SequenceBranch().fit(series)
    together = np.concatenate(series)
    np.testing.assert_allclose(branch.mean_, together.mean(axis=0))
    np.testing.assert_allclose(branch.scale_, together.std(axis=0))
    steps, lengths = branch.prepare(series)
    assert steps.shape == (2, 9, 2)
    assert lengths.tolist() == [5, 9]
    np.testing.assert_allclose(steps[0, :5], (series[0] - branch.mean_) / branch.scale_)
    assert (steps[0, 5:] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_of_series_stays(dtype):
    series = RNG.normal(size=(3, 5)).astype(dtype)
    assert SequenceBranch().fit(series).prepare(series)[0].dtype == dtype


def test_all_forms_of_series_of_one_channel_agree():
    matrix = RNG.normal(size=(3, 5))
    forms = [
        matrix,
        matrix[:, :, None],
        list(matrix),
        pd.Series(list(matrix)),
        pd.DataFrame(matrix),
        pl.DataFrame(matrix),
        pl.Series("s", matrix.tolist()),
    ]
    expected = SequenceBranch().fit(matrix).prepare(matrix)
    for form in forms:
        for a, b in zip(SequenceBranch().fit(form).prepare(form), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_missing_readings_are_means_and_series_end_where_readings_do():
    table = np.array([[1.0, np.nan, 3.0, 4.0], [2.0, 6.0, np.nan, np.nan]])
    branch = SequenceBranch().fit(table)
    assert branch.mean_[0] == pytest.approx(16 / 5)
    steps, lengths = branch.prepare(table)
    assert lengths.tolist() == [4, 2]
    assert steps[0, 1, 0] == 0
    assert SequenceBranch(max_length=3).fit(table).prepare(table)[1].tolist() == [3, 2]


def test_constant_channels_are_centred():
    steps, _ = SequenceBranch().fit([[5.0, 5.0]]).prepare([[5.0, 6.0]])
    np.testing.assert_array_equal(steps[0, :, 0], [0, 1])


@pytest.mark.parametrize("architecture", ["cnn", "gru"])
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_padding_is_not_heard(architecture, pooling):
    series = RNG.normal(size=(1, 11))
    branch = SequenceBranch(architecture, pooling=pooling, n_layers=3).fit(series)
    module = branch.make_module().double().eval()
    steps, lengths = map(torch.from_numpy, branch.prepare(series))
    longer = torch.zeros(2, 30, 1, dtype=torch.float64)
    longer[0, :11] = steps[0]
    # A second row that reaches the end, so that the first keeps its padding.
    longer[1] = 1
    torch.testing.assert_close(module(longer, torch.tensor([11, 30]))[0], module(steps, lengths)[0])
    assert not torch.allclose(module(longer, torch.tensor([12, 30]))[0], module(steps, lengths)[0])


@pytest.mark.parametrize("branch", [AudioBranch, SequenceBranch])
def test_even_kernels_are_refused(branch):
    with pytest.raises(ValueError, match=f"{branch.__name__}: kernel_size must be odd, got 4"):
        branch(kernel_size=4).fit([[1.0, 2.0]])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["abc"], "row 0: 'abc': a series is an array of real numbers"),
        ([["1", "2"]], "row 0: .* a series is an array of real numbers"),
        ([np.array([1j, 2])], "row 0: .* a series is an array of real numbers"),
        ([np.array(["2020-01-01"], dtype="datetime64[D]")], "row 0: .* a series is an array of real numbers"),
        ([[1.0], []], "row 1: .* at least one step, got"),
        ([[1.0, np.inf]], "row 0: .*the series has infinite values"),
        ([np.zeros((2, 2)), np.zeros(3)], "row 1: .*the series has 1 channels where 2 were expected"),
        ([np.zeros((2, 2, 2))], "row 0: .*a series has the shape"),
        ([[np.nan, np.nan]], "the series hold no number"),
    ],
)
def test_bad_series(items, message):
    with pytest.raises(ValueError, match=message):
        SequenceBranch().fit(items)
