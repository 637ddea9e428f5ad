"""What CUDA changes: precision, copies, memory that runs out, pickles that go to a machine without it."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from skmm._memory import free_memory
from skmm._torch import place, resolve_device, resolve_precision
from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(20, 40, 40, 3), dtype=np.uint8)
SOUNDS = [(16000, RNG.normal(size=4000 + 100 * (i % 3))) for i in range(8)]
TEXTS = [f"the cat {i} sat on the mat" + " cat" * (i % 5) for i in range(20)]
PLAIN = {"input_size": (3, 32, 32)}
KINDS = ["text", "timm", "clip", "module", "audio", "video"]


class Means(nn.Module):
    """Mean of each channel; with ``share`` it asks for that part of the free memory for each image."""

    def __init__(self, share=0.0):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.share = share
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        if self.share:
            total = torch.cuda.get_device_properties(x.device).total_memory
            torch.empty(int(total * self.share) * len(x), dtype=torch.uint8, device=x.device)
        return x.mean(dim=(2, 3)) * self.factor


@pytest.fixture
def make(request, make_audio_model):
    def make(kind, **options):
        if kind == "text":
            return TextEncoder(request.getfixturevalue("tiny_text_model"), **options), TEXTS
        if kind == "audio":
            return AudioEncoder(make_audio_model("wav2vec2_layer"), **options), SOUNDS
        if kind == "video":
            return VideoEncoder(request.getfixturevalue("tiny_video_model"), **options), [list(IMAGES[:6])] * 2
        if kind == "module":
            return ImageEncoder(Means(), preprocess=PLAIN, **options), IMAGES
        return ImageEncoder(
            request.getfixturevalue({"timm": "tiny_image_model", "clip": "tiny_clip_model"}[kind]), **options
        ), IMAGES

    return make


def test_auto_is_cuda_in_half_precision_where_that_is_native():
    device = resolve_device("auto")
    assert device.type == "cuda"
    assert device.index is not None
    major = torch.cuda.get_device_capability(device)[0]
    expected = torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32
    assert resolve_precision("auto", device) is expected


@pytest.mark.parametrize("kind", KINDS)
def test_rows_equal_those_of_the_cpu(kind, make, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    encoder, X = make(kind, device="cpu", precision="float32")
    expected = encoder.fit_transform(X)
    on_gpu, _ = make(kind, device="cuda", precision="float32")
    out = on_gpu.fit_transform(X)
    assert out.dtype == np.float32
    # Other kernels sum in another order.
    assert_allclose(out, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_near(kind, make):
    encoder, X = make(kind, device="cpu", precision="float32")
    expected = encoder.fit_transform(X)
    out = make(kind)[0].fit_transform(X)
    assert out.dtype == np.float32
    cosine = (out * expected).sum(axis=1) / np.linalg.norm(out, axis=1) / np.linalg.norm(expected, axis=1)
    assert (cosine > 0.99).all()


def test_copies_go_through_pinned_memory(monkeypatch):
    seen = []
    to = torch.Tensor.to

    def note(x, *args, **options):
        seen.append((x.device.type, x.is_pinned(), options.get("non_blocking")))
        return to(x, *args, **options)

    device = resolve_device("cuda")
    x = torch.rand(64, 64)
    monkeypatch.setattr(torch.Tensor, "to", note)
    copy = place(x, device, torch.float16)
    assert seen == [("cpu", True, True)]
    assert copy.device == device
    assert copy.dtype is torch.float16
    assert place(torch.ones(3, dtype=torch.int64), device, torch.float16).dtype is torch.int64


def test_free_memory_counts_what_torch_keeps():
    device = resolve_device("cuda")
    free, total = free_memory(device), torch.cuda.get_device_properties(device).total_memory
    assert 0 < free <= total
    held = torch.empty(2**28, dtype=torch.uint8, device=device)
    # Others may use the device as well.
    assert free_memory(device) < free - 2**27
    del held
    assert free_memory(device) > free - 2**27


def test_running_out_of_memory_halves_the_batch_once():
    module = Means(share=0.3).cuda().eval()
    encoder = ImageEncoder(module, preprocess=PLAIN, precision="float32", device="cuda", batch_size=16)
    out = encoder.fit_transform(IMAGES)
    assert max(module.sizes) == 16
    module.sizes.clear()
    assert_array_equal(encoder.transform(IMAGES), out)
    assert max(module.sizes) <= 3
    plain = ImageEncoder(Means(), preprocess=PLAIN, precision="float32", device="cuda")
    assert_allclose(out, plain.fit_transform(IMAGES), atol=1e-5)


@pytest.mark.parametrize("is_on_gpu", [False, True])
def test_pickles_load_where_there_is_no_gpu(is_on_gpu, tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    network = network.cuda() if is_on_gpu else network
    encoder = ImageEncoder(network, preprocess=PLAIN, precision="float32")
    out = encoder.fit_transform(IMAGES)
    assert next(encoder.model.parameters()).is_cuda == is_on_gpu
    (tmp_path / "encoder.pkl").write_bytes(pickle.dumps((encoder, IMAGES)))
    code = (
        "import pickle, sys, torch, numpy as np; assert not torch.cuda.is_available();"
        "encoder, X = pickle.load(open(sys.argv[1], 'rb')); np.save(sys.argv[2], encoder.transform(X))"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "encoder.pkl"), str(tmp_path / "rows.npy")]
    subprocess.run(command, check=True, env=environment)
    assert_allclose(np.load(tmp_path / "rows.npy"), out, atol=1e-3)
