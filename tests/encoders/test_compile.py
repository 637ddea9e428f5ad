"""compile=True: the rows of the network as it is, and nothing of the caller's changed."""

import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder, clear_models

IMAGES = np.random.default_rng(0).integers(256, size=(11, 32, 32, 3), dtype=np.uint8)
SOUNDS = [(16000, np.random.default_rng(i).normal(size=2000 + 400 * (i % 3))) for i in range(7)]
SLOW = ["timm", "clip", "clap", "video"]
TEXTS = ["cat", "the cat sat on the mat", "a dog on the mat", "cat dog", "on on on on on on on on on on on"]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    clear_models()
    yield
    torch._dynamo.reset()
    clear_models()


@pytest.fixture
def counting(monkeypatch):
    """Stands for the C++ compiler, which takes minutes: torch traces as ever, and what it traced runs as it is."""
    counter = CompileCounter()
    compile_function = torch.compile

    def compile_with_counter(*args, **options):
        return compile_function(*args, **{**options, "backend": counter})

    monkeypatch.setattr(torch, "compile", compile_with_counter)
    compile_module = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: compile_module(self, **{**options, "backend": counter})
    )
    return counter


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPU")
def test_a_real_compilation():
    module = network()
    encoder = ImageEncoder(module, preprocess={"input_size": (3, 32, 32)}, precision="float32", compile=True)
    plain = clone(encoder).set_params(compile=False).fit_transform(IMAGES)
    assert counters["stats"]["unique_graphs"] == 0
    assert_allclose(encoder.fit_transform(IMAGES), plain, atol=1e-5)
    assert counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", *SLOW])
def test_named_models(kind, counting, request, make_audio_model):
    if kind == "clap":
        encoder, X = AudioEncoder(make_audio_model(kind)), SOUNDS
    elif kind == "video":
        encoder, X = VideoEncoder(request.getfixturevalue("tiny_video_model")), [list(IMAGES), list(IMAGES[:3])]
    elif kind == "text":
        encoder, X = TextEncoder(request.getfixturevalue("tiny_text_model")), TEXTS
    else:
        encoder, X = ImageEncoder(request.getfixturevalue(f"tiny_{'image' if kind == 'timm' else kind}_model")), IMAGES
    encoder.set_params(precision="float32")
    plain = encoder.fit_transform(X)
    assert counting.frame_count == 0
    compiled = clone(encoder).set_params(compile=True)
    assert_allclose(compiled.fit_transform(X), plain, atol=1e-5 * np.abs(plain).max())
    assert counting.frame_count > 0
    # The network without compile=True is one of its own, and as it was.
    n_frames = counting.frame_count
    assert_allclose(encoder.fit_transform(X[:2]), plain[:2], atol=1e-5 * np.abs(plain).max())
    assert counting.frame_count == n_frames


def test_a_module_in_memory_is_compiled_once_and_never_changed(counting):
    module = network()
    encoder = ImageEncoder(module, preprocess={"input_size": (3, 32, 32)}, precision="float32", compile=True)
    first = encoder.fit_transform(IMAGES)
    n_frames = counting.frame_count
    assert n_frames > 0
    with torch.no_grad():
        module[0].weight.mul_(2)
        module[0].bias.mul_(2)
    assert_allclose(clone(encoder).fit_transform(IMAGES), 2 * first, rtol=1e-5)
    assert counting.frame_count == n_frames
    assert module._compiled_call_impl is None


def test_copies_of_a_module_are_not_compiled_again(counting):
    encoder = AudioEncoder(nn.Sequential(nn.Linear(400, 3)).train(), window=0.025, precision="float32", compile=True)
    items = [(16000, np.ones(800)), (16000, np.zeros(400))]
    encoder.fit_transform(items)
    n_frames = counting.frame_count
    encoder.fit_transform(items)
    assert counting.frame_count == n_frames
