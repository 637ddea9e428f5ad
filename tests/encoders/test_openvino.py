"""backend="openvino": the rows of torch, and what cannot run there."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from torch import nn

from skmm import EmbeddingStore
from skmm.encoders import ImageEncoder, TextEncoder, TunedEncoder, VideoEncoder, _model
from skmm.encoders._run import EncodingRun
from skmm.encoders.networks import ImageModel, data_config, openvino_model

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason='needs pip install "skmm[openvino]"')

# Several widths, in batches of several sizes.
TEXTS = ["cat", "the cat sat on the mat", "a dog on the mat", "cat dog", "on " * 12, "the mat", "on " * 25, "dog", "a"]
IMAGES = np.random.default_rng(0).integers(256, size=(19, 40, 50, 3), dtype=np.uint8)


VIDEOS = [IMAGES[i : i + 3] for i in range(8)]


@pytest.fixture(params=["text", "plain text", "timm", "frames"])
def encoder_and_items(request, tmp_path, copy_model):
    kinds = {"timm": (ImageEncoder, IMAGES), "frames": (VideoEncoder, VIDEOS)}
    kind, items = kinds.get(request.param, (TextEncoder, TEXTS))
    return kind(copy_model(request.param, tmp_path / "model"), device="cpu", precision="float32", store=None), items


@pytest.fixture
def text_encoder(tiny_text_model):
    return TextEncoder(tiny_text_model, backend="openvino", store=None)


def max_distance(X, Y):
    return np.abs(X - Y).max() / np.abs(Y).max()


def test_rows_are_those_of_torch(encoder_and_items):
    encoder, items = encoder_and_items
    expected = encoder.fit_transform(items)
    encoder = clone(encoder).set_params(backend="openvino", device="auto", precision="auto")
    X = encoder.fit_transform(items)
    assert X.dtype == np.float32
    assert 0 < max_distance(X, expected) < 1e-5
    # A row depends on its item alone.
    assert max_distance(np.concatenate([encoder.transform(items[i : i + 1]) for i in range(len(items))]), X) < 1e-6
    assert max_distance(pickle.loads(pickle.dumps(encoder)).transform(items), X) < 1e-6


def test_threads_share_a_network(text_encoder):
    X = text_encoder.fit_transform(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for Y in pool.map(lambda _: text_encoder.transform(TEXTS), range(12)):
            assert max_distance(Y, X) < 1e-6


def test_prompts_and_cuts(tiny_text_model):
    settings = {"prompt": "the mat ", "max_length": 9, "truncate_dim": 5, "normalize": True, "store": None}
    encoder = TextEncoder(tiny_text_model, device="cpu", precision="float32", **settings)
    expected = encoder.fit_transform(TEXTS)
    assert max_distance(encoder.set_params(backend="openvino").fit_transform(TEXTS), expected) < 1e-5


def test_int8_rounds_weights_and_inputs(text_encoder):
    X = text_encoder.fit_transform(TEXTS)
    encoder = clone(text_encoder).set_params(precision="int8")
    Y = encoder.fit_transform(TEXTS)
    assert max_distance(np.concatenate([encoder.transform([text]) for text in TEXTS]), Y) < 1e-6
    assert max_distance(Y, X) > 1e-4
    assert np.median((X * Y).sum(axis=1) / np.linalg.norm(X, axis=1) / np.linalg.norm(Y, axis=1)) > 0.99


def test_weights_are_rounded_to_the_nearest_of_255_values():
    import openvino
    from openvino import opset13 as opset

    from skmm.encoders.networks import _openvino

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((7, 12), (7, 5))]
    weights[0][2] = 0
    inputs = opset.parameter([-1, 12], np.float32)
    hidden = opset.matmul(inputs, opset.constant(weights[0]), False, True)
    network = openvino.Model([opset.matmul(hidden, opset.constant(weights[1]), False, False)], [inputs])
    _openvino._quantize_weights(network)
    # Nothing rounds the inputs.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = openvino.Core().compile_model(network, "CPU", settings)
    scales = [np.abs(values).max(axis=i, keepdims=True) / 127 for i, values in zip((1, 0), weights, strict=True)]
    scales[0][2] = 1
    rounded = [scale * np.rint(values / scale) for scale, values in zip(scales, weights, strict=True)]
    X = rng.normal(size=(4, 12)).astype(np.float32)
    assert_allclose(compiled([X])[0], X @ rounded[0].T @ rounded[1], rtol=1e-4, atol=1e-4)


def test_the_store_keeps_rows_apart(tiny_text_model, tmp_path):
    with EmbeddingStore(tmp_path / "store") as store:
        encoder = TextEncoder(tiny_text_model, device="cpu", precision="float32", store=store)
        settings = [{"backend": "torch"}, {"backend": "openvino"}, {"backend": "openvino", "precision": "int8"}]
        encoders = [clone(encoder).set_params(**params) for params in settings]
        rows = [encoder.fit_transform(TEXTS) for encoder in encoders]
        assert store.misses == 3 * len(TEXTS)
        for encoder, X in zip(encoders, rows, strict=True):
            assert_array_equal(encoder.transform(TEXTS), X)
        assert store.misses == 3 * len(TEXTS)
        automatic = clone(encoders[1]).set_params(precision="auto", device="auto")
        assert EncodingRun(automatic).identity == EncodingRun(encoders[1]).identity


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"device": "cuda"}, "device='cuda' does not go with backend='openvino'; set it to 'auto'"),
        ({"precision": "bfloat16"}, "precision='bfloat16' does not go with backend='openvino'"),
        ({"compile": True}, "compile=True does not go with backend='openvino'; set it to False"),
        ({"backend": "torch", "precision": "int8"}, "precision='int8' needs backend='openvino'"),
    ],
)
def test_parameters_that_do_not_go_together(text_encoder, params, message):
    with pytest.raises(ValueError, match=f"TextEncoder: {message}"):
        text_encoder.set_params(**params).fit(TEXTS)


def test_images_have_no_int8(tiny_image_model):
    with pytest.raises(ValueError, match="'precision' parameter of ImageEncoder"):
        ImageEncoder(tiny_image_model, backend="openvino", precision="int8").fit(IMAGES)


def test_networks_that_stay_in_torch(tiny_clip_model, tiny_video_model):
    with pytest.raises(ValueError, match="ImageEncoder: a module in memory runs in torch alone; set backend"):
        ImageEncoder(nn.Flatten(), backend="openvino").fit(IMAGES)
    models = [(ImageEncoder, tiny_clip_model, IMAGES), (TextEncoder, tiny_clip_model, TEXTS)]
    for kind, model, items in [*models, (VideoEncoder, tiny_video_model, VIDEOS)]:
        encoder = kind(model, backend="openvino", store=None)
        with pytest.raises(ValueError, match=r"cannot run in OpenVINO .*; leave backend at 'torch'"):
            encoder.fit_transform(items)


def test_a_network_that_takes_another_way_for_other_inputs():
    class Fickle(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3)) * (2 if images.sum() > 0 else 1)

    recipe = data_config({"input_size": (3, 8, 8), "mean": (0.1,) * 3, "std": (1.0,) * 3})
    with pytest.raises(ValueError, match="its rows are others there"):
        openvino_model(ImageModel(Fickle(), recipe), "float32", 1)


def test_nothing_is_reported(text_encoder):
    text_encoder.fit_transform(TEXTS)
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_a_missing_package_names_the_extra(text_encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r'pip install "skmm\[openvino\]"'):
        text_encoder.fit(TEXTS)


def test_a_network_is_converted_once(text_encoder, monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return openvino_model(*args)

    monkeypatch.setattr(_model, "openvino_model", counted)
    _model.clear_models()
    text_encoder.fit(TEXTS)
    assert calls == []
    for _ in range(2):
        clone(text_encoder).fit_transform(TEXTS)
    assert len(calls) == 1


@pytest.mark.slow
def test_tuning_trains_in_torch(encoder_and_items, tmp_path):
    encoder, items = encoder_and_items
    classes = np.arange(len(items)) % 2
    items, y = [*items, *items[::-1]], np.concatenate([classes, classes[::-1]])
    settings = {"fallback": False, "n_layers": 1, "max_epochs": 3, "learning_rate": 1e-2, "random_state": 0}
    expected = TunedEncoder(encoder, **settings).fit_transform(items, y)
    tuned = TunedEncoder(clone(encoder).set_params(backend="openvino"), **settings)
    X = tuned.fit_transform(items, y)
    # Nearer to rows of the tuned network in torch than to those of the pretrained one.
    assert max_distance(X, expected) < min(1e-4, max_distance(X, clone(encoder).fit_transform(items)) / 5)
    tuned.save_encoder(tmp_path / "tuned")
    saved = clone(encoder).set_params(model=tmp_path / "tuned")
    assert max_distance(saved.fit_transform(items), expected) < 1e-4


def test_int8_needs_linear_layers():
    model = ImageModel(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), data_config({"input_size": (3, 8, 8)}))
    assert torch.allclose(
        openvino_model(model, "float32", 1).forward(torch.ones(1, 3, 8, 8)), torch.ones(1, 3), atol=1e-6
    )
    with pytest.raises(ValueError, match="it has no linear layers to quantize"):
        openvino_model(model, "int8", 1)
