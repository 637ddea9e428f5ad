"""Random changes of items in training: what they change and what they leave, and that fits with them repeat."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone

from skmm.neural_network import AudioBranch, ImageBranch, MultimodalNetClassifier, TextBranch
from skmm.neural_network.branches._augment import change_frames, change_images, change_windows, drop_tokens

RNG = np.random.default_rng(0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class TestImages:
    def test_flip(self):
        images = torch.from_numpy(RNG.integers(256, size=(30, 3, 8, 6), dtype=np.uint8))
        (changed,) = change_images((images,), seeded(), ("flip",))
        is_same = (changed == images).flatten(1).all(dim=1)
        is_mirrored = (changed == images.flip(3)).flatten(1).all(dim=1)
        assert changed.dtype == torch.uint8
        assert (is_same ^ is_mirrored).all()
        assert 5 < is_same.sum() < 25

    def test_crop_of_a_ramp_is_a_part_of_it(self):
        ramp = torch.linspace(0, 255, 64).round().byte()
        images = torch.stack([ramp.expand(3, 64, 64), ramp[:, None].expand(3, 64, 64)]).repeat(20, 1, 1, 1)
        (changed,) = change_images((images,), seeded(), ("crop",))
        across = changed[::2].double()[:, 0, 32, 1:-1]
        down = changed[1::2].double()[:, 0, 1:-1, 32]
        for lines in (across, down):
            slopes = (lines[:, -1] - lines[:, 0]) / (lines.shape[1] - 1) / (255 / 63)
            assert slopes.min() > 0.79
            assert slopes.max() < 1.01
            assert slopes.std() > 0.03
            # In a straight line, and from different places.
            middle = (lines[:, :1] + lines[:, -1:]) / 2
            assert (lines.mean(dim=1, keepdim=True) - middle).abs().max() < 2
            assert lines[:, 0].std() > 3

    def test_colours(self):
        grey = torch.full((40, 3, 4, 4), 100, dtype=torch.uint8)
        (changed,) = change_images((grey,), seeded(), ("color",))
        # One colour stays one colour, and grey stays grey: only the brightness is another.
        assert (changed == changed[:, :1, :1, :1]).all()
        levels = changed[:, 0, 0, 0].double()
        assert 80 <= levels.min() < 90 < 110 < levels.max() <= 120
        red = torch.zeros(40, 3, 4, 4, dtype=torch.uint8)
        red[:, 0, :2] = 200
        (changed,) = change_images((red,), seeded(), ("color",))
        assert (changed[:, 0, :2] > changed[:, 1, :2]).all()

    def test_nothing(self):
        images = torch.from_numpy(RNG.integers(256, size=(3, 3, 8, 6), dtype=np.uint8))
        assert torch.equal(change_images((images,), seeded(), ())[0], images)


LENGTHS = torch.tensor([40, 25, 40, 1])
FRAMES = torch.from_numpy(RNG.normal(size=(4, 50, 6))).float()
INSIDE = (torch.arange(40) < LENGTHS[:, None])[:, :, None].expand(4, 40, 6)


class TestSound:
    def test_shift_turns_a_recording(self):
        seen = set()
        for seed in range(20):
            changed, lengths = change_frames((FRAMES, LENGTHS), seeded(seed), ("shift",))
            assert lengths is LENGTHS
            assert changed.shape == (4, 40, 6)
            for row, (before, after, n) in enumerate(zip(FRAMES, changed, LENGTHS, strict=True)):
                turns = [k for k in range(-4, 5) if torch.equal(before[:n].roll(k, 0), after[:n])]
                assert turns
                assert torch.equal(before[n:40], after[n:])
                seen.update(turns if row == 0 else ())
        assert len(seen) > 4

    def test_noise(self):
        changed, _ = change_frames((FRAMES, LENGTHS), seeded(), ("noise",))
        difference = changed - FRAMES[:, :40]
        assert (difference[~INSIDE] == 0).all()
        for row, n in enumerate(LENGTHS[:3]):
            share = difference[row, :n].std() / FRAMES[row, :n].std()
            assert 0 < share < 0.22

    def test_masks(self):
        counts = []
        for seed in range(20):
            changed, _ = change_frames((FRAMES, LENGTHS), seeded(seed), ("mask",))
            is_masked = changed != FRAMES[:, :40]
            assert (changed[is_masked] == -1).all()
            assert not is_masked[~INSIDE].any()
            # Whole steps and whole bands.
            steps, bands = is_masked.all(dim=2), (is_masked | ~INSIDE).all(dim=1)
            expected = (steps[:, :, None] | bands[:, None, :]) & INSIDE
            assert torch.equal(is_masked[:3], expected[:3])
            counts.append((steps[0].sum().item(), bands[0].sum().item()))
        assert max(counts)[0] in (3, 4)
        assert {n for _, n in counts} >= {0, 1}
        assert max(n for _, n in counts) <= 2

    def test_waveforms_of_several_windows(self):
        extents = torch.tensor([[[30, 32, 32, 32], [10, 16, 16, 16]], [[20, 24, 24, 24], [0, 0, 0, 0]]])
        waveforms = torch.from_numpy(RNG.normal(size=(2, 2, 32)))
        padding = torch.ones(2, 2, 32, dtype=torch.int8)
        for names in (("shift",), ("noise",), ("mask",), ("noise", "shift", "mask")):
            tensors = change_windows((extents, waveforms, padding), seeded(1), names)
            assert tensors[0] is extents
            assert tensors[2] is padding
            assert not torch.equal(tensors[1], waveforms)
            for before, after, n in zip(
                waveforms.flatten(0, 1), tensors[1].flatten(0, 1), (30, 10, 20, 0), strict=True
            ):
                assert torch.equal(before[n:], after[n:])
                if names == ("shift",):
                    assert any(torch.equal(before[:n].roll(k), after[:n]) for k in range(-3, 4))

    @pytest.mark.parametrize("order", ["bands first", "time first", "with a channel"])
    def test_spectrograms_are_shifted_in_time(self, order):
        spectra = torch.from_numpy(RNG.normal(size=(1, 1, 30, 8)))
        extents = torch.tensor([[[500, 1000, 30]]])
        values = {
            "bands first": spectra.transpose(2, 3),
            "time first": spectra,
            "with a channel": spectra[:, :, None],
        }[order]
        for seed in range(5):
            _, changed = change_windows((extents, values), seeded(seed), ("shift",))
            assert changed.shape == values.shape
            changed = changed.transpose(2, 3) if order == "bands first" else changed.reshape(spectra.shape)
            # Half of it holds sound.
            before, after = spectra[0, 0], changed[0, 0]
            assert torch.equal(before[15:], after[15:])
            assert any(torch.equal(before[:15].roll(k, 0), after[:15]) for k in (-2, -1, 0, 1, 2))


def test_tokens():
    mask = (torch.arange(50) < torch.tensor([50, 20])[:, None]).int().repeat(20, 1)
    tokens = torch.from_numpy(RNG.integers(5, 100, size=(40, 50)).astype(np.int32))
    tokens[:, 0], tokens[:, 19] = 1, 2
    kinds = torch.zeros_like(tokens)
    out = drop_tokens((mask, tokens, kinds), seeded(), (), share=0.3, number=4, special=[0, 1, 2, 3, 4])
    assert out[0] is mask
    assert out[2] is kinds
    is_changed = out[1] != tokens
    assert (out[1][is_changed] == 4).all()
    assert not is_changed[(mask == 0) | (tokens < 5)].any()
    assert is_changed[(mask == 1) & (tokens >= 5)].double().mean().item() == pytest.approx(0.3, abs=0.04)


def items(kind):
    return {
        "image": lambda i: RNG.integers(256, size=(20, 24, 3), dtype=np.uint8),
        "sound": lambda i: (8000, RNG.normal(size=2000 + 300 * (i % 4)).astype(np.float32)),
        "text": lambda i: "the cat sat on the mat " * (1 + i % 4),
    }[kind]


@pytest.fixture
def branches(tiny_text_model, tiny_image_model, make_audio_model):
    return {
        "small image": ImageBranch(size=16, channels=(4,), n_hidden=8),
        "small sound": AudioBranch(n_hidden=8, n_layers=1, n_mels=8, target_rate=8000),
        "text": TextBranch(model=tiny_text_model, token_dropout=0.3),
        "image": ImageBranch(tiny_image_model),
        "sound": AudioBranch(model=make_audio_model("wav2vec2_layer")),
        "spectrum sound": AudioBranch(model=make_audio_model("ast")),
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("small image", "small sound", "text", "sound"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("image", "spectrum sound")),
    ],
)
def test_fits_repeat_whatever_reads_the_items(branches, kind, monkeypatch):
    column, n = kind.split()[-1], 24
    values = np.empty(n, dtype=object)
    for row in range(n):
        values[row] = items(column)(row)
    X = pd.DataFrame({column: pd.Series(values, dtype=object)})
    y = np.arange(n) % 2
    branch = clone(branches[kind])
    options = {"width": 8, "max_epochs": 2, "batch_size": 7, "random_state": 0, "device": "cpu", "dropout": 0}
    net = MultimodalNetClassifier([(column, branch, column)], **options)
    plain = clone(net).fit(X, y)
    net.set_params(**{f"{column}__augment": True})
    held = clone(net).fit(X, y)
    assert held.loss_curve_ != plain.loss_curve_
    # Predictions change nothing at random.
    assert_array_equal(held.predict_proba(X), held.predict_proba(X))
    monkeypatch.setattr("skmm.neural_network._inputs.MAX_BYTES_HELD", 0)
    monkeypatch.setattr("skmm.neural_network._inputs._MIN_ROWS_TO_READ", 1)
    for n_threads in (1, 3):
        monkeypatch.setattr("skmm.neural_network.branches._base.available_cpus", lambda n=n_threads: n)
        first, second = clone(net).fit(X, y), clone(net).fit(X, y)
        assert first.loss_curve_ == second.loss_curve_
        assert_array_equal(first.predict_proba(X), second.predict_proba(X))
        if column != "sound" and kind != "text":
            assert first.loss_curve_ == held.loss_curve_


@pytest.mark.parametrize("branch", [ImageBranch(), AudioBranch()])
def test_names_are_checked(branch):
    X = [items("image" if isinstance(branch, ImageBranch) else "sound")(0)]
    with pytest.raises(ValueError, match=r"augment is a callable, True, or some of \[.*got \['spin'\]"):
        clone(branch).set_params(augment=["spin"]).fit(X)
    assert clone(branch).set_params(augment=branch._changes[:1]).fit(X)._training.augment is not None
    assert clone(branch).set_params(augment=False).fit(X)._training.augment is None


def test_the_small_network_of_texts_has_its_own():
    with pytest.raises(ValueError, match="augment=True is for a pretrained model"):
        TextBranch(augment=True).fit(["a"])
