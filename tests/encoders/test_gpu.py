"""What CUDA changes: precision, copies, memory that runs out, turns, pickles that go to a machine without it."""

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from torch import nn
from torch._dynamo.utils import counters

from skmm import EmbeddingStore
from skmm._torch import place, resolve_device, resolve_precision
from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, TunedEncoder, VideoEncoder, clear_models

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(20, 40, 40, 3), dtype=np.uint8)
SOUNDS = [(16000, RNG.normal(size=4000 + 100 * (i % 3))) for i in range(8)]
TEXTS = [f"the cat {i} sat on the mat" + " cat" * (i % 5) for i in range(20)]
CLIPS = [list(IMAGES[i : i + 6]) for i in range(5)]
PLAIN = {"input_size": (3, 32, 32)}
KINDS = ["text", "timm", "clip", "module", "audio", "video"]


class Means(nn.Module):
    """Mean of each channel."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.mean(dim=(2, 3)) * self.factor


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No network of another test, and none of the batches that did not fit; convolutions in all digits of float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    clear_models()
    yield
    clear_models()


@pytest.fixture
def make(request, make_audio_model):
    def make(kind, **options):
        if kind == "text":
            return TextEncoder(request.getfixturevalue("tiny_text_model"), **options), TEXTS
        if kind == "audio":
            return AudioEncoder(make_audio_model("wav2vec2_layer"), **options), SOUNDS
        if kind == "video":
            return VideoEncoder(request.getfixturevalue("tiny_video_model"), **options), CLIPS
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


def assert_near(found, expected):
    """Compare rows in float32: other kernels sum in another order."""
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("batch_size", [3, "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_equal_those_of_the_cpu(kind, batch_size, make):
    encoder, X = make(kind, device="cpu", precision="float32")
    expected = encoder.fit_transform(X)
    on_gpu, _ = make(kind, device="cuda", precision="float32", batch_size=batch_size)
    assert_near(on_gpu.fit_transform(X), expected)


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


def change_forward(monkeypatch, encoder, change):
    """Let ``change(run, batch, device)`` stand for the network; give a list that gets the size of each batch."""
    forward, sizes = type(encoder)._forward, []

    def note(self, model, batch):
        sizes.append(len(batch))
        return change(lambda: forward(self, model, batch), batch, model.device)

    monkeypatch.setattr(type(encoder), "_forward", note)
    return sizes


@pytest.mark.parametrize("kind", KINDS)
def test_running_out_of_memory_halves_the_batch_once(kind, make, monkeypatch):
    encoder, X = make(kind, device="cuda", precision="float32", batch_size=16, store=None)
    expected = encoder.fit_transform(X)

    def ask_for_much(run, batch, device):
        total = torch.cuda.get_device_properties(device).total_memory
        torch.empty(int(0.3 * total) * len(batch), dtype=torch.uint8, device=device)
        return run()

    sizes = change_forward(monkeypatch, encoder, ask_for_much)
    assert_near(encoder.transform(X), expected)
    assert max(sizes) == min(16, len(X))
    sizes.clear()
    assert_near(encoder.transform(X), expected)
    # Four ask for more than there is.
    assert max(sizes) <= 3


@pytest.mark.filterwarnings("ignore:.* items could not be encoded")
@pytest.mark.parametrize("kind", KINDS)
def test_bad_and_missing_items_change_nothing_around_them(kind, make):
    encoder, X = make(kind, device="cuda", batch_size=3, on_error="missing", store=None)
    expected = encoder.fit_transform(X)
    bad = {"text": 3.5, "audio": (16000, [np.nan, 1.0])}.get(kind, b"no media")
    mixed, rows = [bad, None], []
    for i, item in enumerate(X):
        rows.append(len(mixed))
        mixed += [item, *[bad, None][: i % 3]]
    out = encoder.fit_transform(mixed)
    assert_array_equal(out[rows], expected)
    others = np.setdiff1d(np.arange(len(mixed)), rows)
    assert np.isnan(out[others]).all()
    assert [error.row for error in encoder.errors_] == [row for row in others if mixed[row] is not None]


@pytest.mark.filterwarnings("ignore:.* items could not be encoded")
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_not_finite_are_missing_rows(kind, make, monkeypatch):
    encoder, X = make(kind, device="cuda", on_error="missing", store=None)
    expected = encoder.fit_transform(X)

    def overflow(run, batch, device):
        rows = run().clone()
        rows[0, -1] = torch.inf
        return rows

    sizes = change_forward(monkeypatch, encoder, overflow)
    out = encoder.transform(X)
    is_missing = np.isnan(out).all(axis=1)
    assert 0 < is_missing.sum() == len(sizes) < len(X)
    assert_array_equal(out[~is_missing], expected[~is_missing])


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not (shutil.which("gcc") or shutil.which("clang")),
    reason="torch.compile needs triton and a C compiler on CUDA",
)
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_networks_give_the_same_rows(kind, make):
    encoder, X = make(kind, device="cuda", precision="float32")
    expected = encoder.fit_transform(X)
    torch._dynamo.reset()
    counters.clear()
    compiled = clone(encoder).set_params(compile=True)
    assert_near(compiled.fit_transform(X), expected)
    assert counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_found_again_for_this_kind_of_device_alone(kind, make, monkeypatch, tmp_path):
    with EmbeddingStore(tmp_path) as store:
        encoder, X = make(kind, device="cuda", precision="float32", store=store)
        out = encoder.fit_transform(X)
        assert store.info()["entries"] == len(X)
        batches, encode = [], type(encoder)._encode_batch
        monkeypatch.setattr(
            type(encoder), "_encode_batch", lambda self, *args: batches.append(1) or encode(self, *args)
        )
        assert_array_equal(clone(encoder).fit_transform(X), out)
        assert batches == []
        assert_near(clone(encoder).set_params(device="cpu").fit_transform(X), out)
        assert batches
        assert store.info()["entries"] == 2 * len(X)


TURNS = """
import os, sys
from joblib import Parallel, delayed
from skmm import TextEncoder

class Noting(TextEncoder):
    def _encode_batch(self, batch, model):
        with open(os.environ["NOTES"], "a") as file:
            file.write(f"{os.getpid()} {len(batch)}\\n")
        return super()._encode_batch(batch, model)

if __name__ == "__main__":
    texts = [f"the cat {i}" for i in range(60)]
    encoder = Noting(sys.argv[1], device="cuda", batch_size=4)
    asked = [texts[:40], texts[20:], texts]
    rows = Parallel(n_jobs=2, batch_size=1)(delayed(encoder.fit_transform)(some) for some in asked)
    assert (rows[2][:40] == rows[0]).all() and (rows[2][20:] == rows[1]).all()
"""


def test_processes_take_turns_and_encode_nothing_twice(tiny_text_model, tmp_path):
    (tmp_path / "turns.py").write_text(TURNS)
    environment = {**os.environ, "NOTES": str(tmp_path / "notes"), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, str(tmp_path / "turns.py"), tiny_text_model], check=True, env=environment)
    batches = [tuple(map(int, line.split())) for line in (tmp_path / "notes").read_text().splitlines()]
    assert sum(rows for _, rows in batches) == 60
    # Any two of the calls meet all items.
    assert sum(one != other for (one, _), (other, _) in pairwise(batches)) <= 1


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


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_tuned_encoders(tiny_text_model, precision):
    y = np.arange(len(TEXTS)) % 2
    encoder = TunedEncoder(
        TextEncoder(tiny_text_model, precision=precision), n_layers=1, fallback=False, random_state=0
    )
    rows = encoder.fit_transform(TEXTS, y)
    assert next(iter(encoder.encoder_._tuning.weights.values())).dtype == np.float32
    again = pickle.loads(pickle.dumps(encoder))
    again.encoder_.set_params(device="cpu", precision="float32", store=None)
    tolerance = 0.05 if precision == "auto" else 1e-4
    assert_allclose(again.transform(TEXTS), rows, rtol=0, atol=tolerance * np.abs(rows).max())
