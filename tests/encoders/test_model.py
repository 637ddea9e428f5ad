"""What encoders of pretrained networks do with devices and memory, seen without a GPU: copies, outputs, batches."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from torch import nn

from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder
from skmm.encoders._run import EncodingRun

RNG = np.random.default_rng(0)
PLAIN = {"input_size": (3, 32, 32)}
# Of equal size, so that they share batches.
IMAGES = list(RNG.integers(256, size=(4, 40, 40, 3), dtype=np.uint8))
SOUNDS = [(16_000, RNG.normal(size=4000)) for _ in range(4)]
TEXTS = ["the cat", "the dog", "mat on", "sat on"]
CLIPS = [list(RNG.integers(256, size=(4, 40, 40, 3), dtype=np.uint8)) for _ in range(4)]
KINDS = ["text", "clip texts", "clip", "timm", "module", "sound", "sound module", "frames", "clips"]


class Regions(nn.Module):
    """Means of the parts of an image or a waveform."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x if x.ndim == 4 else x[:, None, None], (2, 3)).flatten(1)


@pytest.fixture
def make(request, make_audio_model, monkeypatch):
    """Give a function that makes an encoder of a kind and items for it, which one worker encodes."""
    monkeypatch.setattr(ImageEncoder, "_n_workers", lambda self, kind: 1)

    def make(kind, **options):
        options = {"device": "cpu", "precision": "float32", "store": None, **options}
        folder = {
            **{"text": "tiny_text_model", "clip texts": "tiny_clip_model", "clip": "tiny_clip_model"},
            **{"timm": "tiny_image_model", "frames": "tiny_image_model", "clips": "tiny_video_model"},
        }.get(kind)
        model = Regions().eval() if folder is None else request.getfixturevalue(folder)
        if kind in ("text", "clip texts"):
            return TextEncoder(model, **options), TEXTS
        if kind in ("sound", "sound module"):
            return AudioEncoder(make_audio_model("wav2vec2") if kind == "sound" else model, **options), SOUNDS
        if kind in ("frames", "clips"):
            return VideoEncoder(model, **options), CLIPS
        return ImageEncoder(model, preprocess=PLAIN if kind == "module" else None, **options), IMAGES

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_a_network_gets_is_copied_to_its_device_by_one_function(kind, make, monkeypatch):
    # To CUDA this function copies from pinned memory without waiting (see the tests of _torch).
    encoder, X = make(kind, batch_size=100)
    expected = encoder.fit_transform(X)
    assert np.ptp(expected, axis=0).max() > 1e-3

    def only_the_first(place):
        def copy(x, *args):
            x = place(x, *args)
            return x[:1].expand_as(x).contiguous()

        return copy

    for module in ("_audio", "_timm", "_sentence", "_video"):
        name = f"skmm.encoders.networks.{module}.place"
        monkeypatch.setattr(name, only_the_first(__import__(name.rpartition(".")[0], fromlist=["place"]).place))
    assert_allclose(encoder.transform(X), np.tile(encoder.transform(X[:1]), (4, 1)), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_written_into_one_array(kind, make, monkeypatch):
    encoder, X = make(kind, batch_size=1)
    encoder.fit(X)
    made, make_groups = [], EncodingRun._group
    monkeypatch.setattr(EncodingRun, "_group", lambda self: made.append(self.X_out) or make_groups(self))
    out = encoder.transform([*X, None, *X])
    (output,) = made
    assert out is output
    assert np.isfinite(out[[0, 1, 2, 3, 5, 6, 7, 8]]).all()


def sizes_of_batches(encoder, monkeypatch):
    """List of the numbers of items, or of what is made of them, in all forward passes from here on."""
    sizes, forward = [], type(encoder)._forward

    def note(self, model, batch):
        sizes.append(len(batch))
        return forward(self, model, batch)

    monkeypatch.setattr(type(encoder), "_forward", note)
    return sizes


@pytest.mark.parametrize("kind", ["text", "timm", "frames", "clips", "sound module"])
def test_a_number_is_obeyed(kind, make, monkeypatch):
    encoder, X = make(kind, batch_size=3)
    encoder.fit(X)
    sizes = sizes_of_batches(encoder, monkeypatch)
    encoder.transform(X)
    assert max(sizes) == 3
