"""ImageEncoder: timm's own evaluation, CLIP-like models, modules in memory, and the encoders' contract."""

import io
import json
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import polars as pl
import pytest
import timm
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from safetensors.torch import load_file
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from torch import nn

from skmm import _torch
from skmm.encoders import ImageEncoder, TextEncoder

RNG = np.random.default_rng(0)


def blob(height=48, width=64, seed=0):
    """Smooth random image: what resizing does to noise would say little."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


IMAGES = [blob(48 + 3 * i, 64 - 2 * i, seed=i) for i in range(9)]


class Means(nn.Module):
    """Mean of each channel: its output tells what came in. It notes batch sizes, modes and gradients."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, x):
        self.seen.append((len(x), self.training, torch.is_grad_enabled(), x.dtype))
        return x.mean(dim=(2, 3)) * self.factor


def means():
    return Means().eval()


def encoder(module=None, **options):
    options.setdefault("preprocess", {"input_size": (3, 32, 32)})
    options.setdefault("precision", "float32")
    return ImageEncoder(means() if module is None else module, **options)


class TestModels:
    def test_timm_models_give_timms_own_features(self, tiny_image_model):
        network = timm.create_model("resnet10t", num_classes=0).eval()
        weights = load_file(f"{tiny_image_model}/model.safetensors")
        network.load_state_dict({name: value for name, value in weights.items() if not name.startswith("fc.")})
        config = timm.data.resolve_data_config(
            pretrained_cfg=json.loads(Path(tiny_image_model, "config.json").read_text())["pretrained_cfg"]
        )
        assert tuple(config["input_size"]) == (3, 32, 32)
        assert config["crop_pct"] == 0.8
        transform = timm.data.create_transform(**config, is_training=False)
        with torch.inference_mode():
            expected = network(torch.stack([transform(Image.fromarray(image)) for image in IMAGES])).numpy()
        out = ImageEncoder(tiny_image_model, precision="float32").fit_transform(IMAGES)
        assert out.dtype == np.float32
        assert_allclose(out, expected, atol=1e-5 * np.abs(expected).max())

    def test_clip_puts_images_and_texts_into_one_space(self, tiny_clip_model):
        from sentence_transformers import SentenceTransformer

        network = SentenceTransformer(tiny_clip_model, device="cpu")
        images = ImageEncoder(tiny_clip_model, precision="float32").fit_transform(IMAGES)
        texts = TextEncoder(tiny_clip_model, precision="float32").fit_transform(["abc", "de"])
        assert images.shape[1] == texts.shape[1] == 12
        assert_allclose(images, network.encode([Image.fromarray(image) for image in IMAGES]), atol=1e-5)
        assert_allclose(texts, network.encode(["abc", "de"]), atol=1e-5)

    def test_clip_is_loaded_once_for_both(self, tiny_clip_model):
        _torch.clear_models()
        ImageEncoder(tiny_clip_model).fit(IMAGES)
        TextEncoder(tiny_clip_model).fit(["abc"])
        assert len(_torch._entries) == 1

    def test_clones_and_threads_share_one_copy(self, tiny_image_model, monkeypatch):
        _torch.clear_models()
        loads = []
        create = timm.create_model
        monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: loads.append(1) or create(*args, **kwargs))
        first = ImageEncoder(tiny_image_model, precision="float32").fit(IMAGES)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: clone(first).fit_transform(IMAGES), range(4)))
        assert loads == [1]
        for result in results:
            assert_allclose(result, results[0], rtol=0, atol=1e-6 * np.abs(result).max())

    def test_half_precision_comes_out_as_float32_and_close(self, tiny_image_model):
        full = ImageEncoder(tiny_image_model, precision="float32").fit_transform(IMAGES)
        half = ImageEncoder(tiny_image_model, precision="bfloat16").fit_transform(IMAGES)
        assert half.dtype == np.float32
        cosine = (full * half).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
        assert (cosine > 0.999).all()
        assert not np.array_equal(full, half)

    @pytest.mark.parametrize("name", ["timm/no_such_model", "resnet18", "someone/some-clip"])
    def test_models_that_cannot_be_had(self, name):
        with pytest.raises(OSError, match=f"ImageEncoder: the model '{name}' could not be loaded .* to provide it"):
            ImageEncoder(name).fit(IMAGES)

    def test_a_hub_out_of_reach_is_asked_once(self, monkeypatch):
        requests = []

        def fail(*args, **options):
            requests.append(args)
            raise ConnectionError("no network")

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
        monkeypatch.setattr(timm, "create_model", None)
        with pytest.raises(OSError, match=r"resnet10t' could not be loaded \(ConnectionError: no network\)"):
            ImageEncoder("resnet10t", store=None).fit(IMAGES)
        assert len(requests) == 1

    def test_folders_that_are_no_checkpoint(self, tmp_path, tiny_image_model):
        with pytest.raises(OSError, match="could not be loaded"):
            ImageEncoder(tmp_path).fit(IMAGES)
        with pytest.raises(OSError, match=r"the model folder '\./nowhere' does not exist"):
            ImageEncoder("./nowhere").fit(IMAGES)
        pickled = tmp_path / "pickled"
        pickled.mkdir()
        shutil.copy(f"{tiny_image_model}/config.json", pickled)
        (pickled / "pytorch_model.bin").write_bytes(b"not read")
        with pytest.raises(OSError, match="no weights in safetensors format"):
            ImageEncoder(pickled).fit(IMAGES)


class TestModules:
    def test_what_the_module_gets(self):
        black, white = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        out = encoder().fit_transform([black, white])
        assert_allclose(out, [-mean / std, (1 - mean) / std], rtol=1e-5)
        plain = {"input_size": (3, 8, 8), "mean": (0, 0, 0), "std": (1, 1, 1)}
        assert_allclose(encoder(preprocess=plain).fit_transform([black, white]), [[0] * 3, [1] * 3])

    def test_a_callable_gets_a_pil_image(self):
        def preprocess(image):
            assert isinstance(image, Image.Image)
            assert image.mode == "RGB"
            return torch.from_numpy(np.asarray(image.resize((4, 4)), dtype=np.float32).transpose(2, 0, 1).copy())

        flat = np.full((9, 9, 3), 7, np.uint8)
        assert_allclose(encoder(preprocess=preprocess).fit_transform([flat]), [[7, 7, 7]])

    def test_a_module_is_never_changed(self):
        module = Means().train()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        out = encoder(module, precision="bfloat16").fit_transform(IMAGES)
        assert module.training
        assert module.factor.dtype == torch.float32
        assert module.factor.requires_grad
        assert_array_equal(module.factor.detach(), before["factor"])
        assert module.seen == []
        assert out.shape == (9, 3)

    def test_it_runs_in_eval_and_inference_mode(self):
        module = means()
        encoder(module).fit_transform(IMAGES)
        assert module.seen
        assert {(training, grad) for _, training, grad, _ in module.seen} == {(False, False)}

    def test_changed_weights_are_seen(self):
        module = means()
        fitted = encoder(module).fit(IMAGES)
        before = fitted.transform(IMAGES)
        with torch.no_grad():
            module.factor.mul_(2)
        assert_allclose(fitted.transform(IMAGES), 2 * before, rtol=1e-6)

    def test_clones_share_the_module_and_keep_their_settings(self):
        original = encoder(batch_size=3).set_output(transform="pandas")
        twin = clone(original)
        assert twin.model is original.model
        assert twin is not original
        assert twin.batch_size == 3
        assert isinstance(twin.fit_transform(IMAGES), pd.DataFrame)
        assert not hasattr(original, "n_features_out_")

    def test_pickles(self, tiny_image_model):
        named = ImageEncoder(tiny_image_model).fit(IMAGES)
        packed = pickle.dumps(named)
        assert len(packed) < 5000
        assert_array_equal(pickle.loads(packed).transform(IMAGES), named.transform(IMAGES))
        in_memory = encoder(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()).fit(IMAGES)
        unpickled = pickle.loads(pickle.dumps(in_memory))
        assert_array_equal(unpickled.transform(IMAGES), in_memory.transform(IMAGES))

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            (nn.Identity(), r"must map \(1, 3, 32, 32\) to a tensor \(n, n_features\), got \(1, 3, 32, 32\)"),
            (3, "'model' parameter of ImageEncoder"),
        ],
    )
    def test_what_is_no_encoder(self, module, message):
        with pytest.raises((ValueError, TypeError), match=message):
            encoder(module).fit(IMAGES)

    @pytest.mark.parametrize(
        ("preprocess", "message"),
        [
            ({"size": 3}, r"preprocess knows the keys .* got \['size'\]"),
            ({"input_size": (1, 8, 8)}, r"input_size is \(3, height, width\), got \(1, 8, 8\)"),
            ("resize", "'preprocess' parameter"),
        ],
    )
    def test_wrong_preprocessing(self, preprocess, message):
        with pytest.raises(ValueError, match=message):
            encoder(preprocess=preprocess).fit(IMAGES)

    def test_preprocess_of_a_named_model(self, tiny_image_model):
        with pytest.raises(ValueError, match="preprocess is for a module in memory; leave it at None"):
            encoder(tiny_image_model).fit(IMAGES)

    def test_callables_that_give_different_shapes(self):
        def preprocess(image):
            return torch.zeros(3, image.height, image.width)

        with pytest.raises(ValueError, match="preprocess must return tensors of one shape"):
            encoder(preprocess=preprocess).fit_transform(IMAGES)


class TestContract:
    def test_batch_size(self, monkeypatch):
        monkeypatch.setattr(ImageEncoder, "_n_workers", lambda self, kind: 1)
        module = means()
        fitted = encoder(module, batch_size=4, store=None).fit(IMAGES)
        module.seen.clear()
        fitted.transform(IMAGES)
        assert [n for n, *_ in module.seen] == [4, 4, 1]

    def test_equal_images_are_encoded_once(self):
        module = means()
        fitted = encoder(module, store=None).fit(IMAGES)
        module.seen.clear()
        out = fitted.transform([IMAGES[0], IMAGES[1], IMAGES[0].copy(), None, IMAGES[1]])
        assert sum(n for n, *_ in module.seen) == 2
        assert_array_equal(out[0], out[2])
        assert np.isnan(out[3]).all()

    def test_more_images_than_a_window(self):
        images = [np.full((4, 4), i, np.uint8) for i in range(200)]
        plain = {"input_size": (3, 4, 4), "mean": (0, 0, 0), "std": (1, 1, 1)}
        out = encoder(preprocess=plain).fit_transform(images)
        assert_allclose(out[:, 0] * 255, np.arange(200), atol=1e-3)

    def test_containers(self, tmp_path):
        array = np.stack([blob(seed=i) for i in range(4)])
        paths = []
        for i, image in enumerate(array):
            paths.append(tmp_path / f"{i}.png")
            Image.fromarray(image).save(paths[-1])
        fitted = encoder().fit(array)
        expected = fitted.transform(array)
        column = pd.Series(list(array), index=[5, 6, 7, 8])
        for X in [
            list(array),
            column,
            column.to_frame("photo"),
            pd.Series(map(str, paths)),
            np.array(paths, dtype=object),
            pl.Series(map(str, paths)),
            pl.DataFrame({"photo": [path.read_bytes() for path in paths]}),
            [Image.fromarray(image) for image in array],
            array.transpose(0, 3, 1, 2),
        ]:
            assert_allclose(fitted.transform(X), expected, atol=1e-6)

    @pytest.mark.parametrize("n_pictures", [1, 2])
    def test_large_jpegs_are_decoded_at_reduced_scale(self, n_pictures, tmp_path, monkeypatch):
        path = tmp_path / "large.jpg"
        # Phones put a smaller picture, or how to light a screen, behind the first: Pillow calls that MPO.
        behind = [Image.fromarray(blob(80, 100, seed=1))] * (n_pictures - 1)
        Image.fromarray(blob(800, 1000)).save(path, "MPO", quality=95, save_all=True, append_images=behind)
        with Image.open(path) as image:
            assert image.format == ("JPEG" if n_pictures == 1 else "MPO")
        drafts = []
        from PIL import JpegImagePlugin

        draft = JpegImagePlugin.JpegImageFile.draft

        def note(image, mode, size):
            result = draft(image, mode, size)
            drafts.append(image.size)
            return result

        monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", note)
        fitted = encoder().fit(IMAGES)
        reduced = fitted.transform([path])
        assert drafts == [(125, 100)]
        assert_allclose(reduced, fitted.transform([np.asarray(Image.open(path))]), atol=0.01)

    def test_bad_images(self, tmp_path):
        broken = tmp_path / "broken.jpg"
        buffer = io.BytesIO()
        Image.fromarray(blob()).save(buffer, "JPEG")
        broken.write_bytes(buffer.getvalue()[:300])
        items = [IMAGES[0], str(broken), None, "nowhere.png", IMAGES[1], b"text", 3.5]
        with pytest.raises(ValueError, match=r"ImageEncoder: row 1: '.*broken\.jpg': "):
            encoder().fit_transform(items)
        lenient = encoder(on_error="missing")
        with pytest.warns(UserWarning, match="4 of 7 items could not be encoded"):
            out = lenient.fit_transform(items)
        assert [error.row for error in lenient.errors_] == [1, 3, 5, 6]
        assert [error.row for error in encoder().find_errors(items)] == [1, 3, 5, 6]
        assert_array_equal(np.isnan(out).all(axis=1), [False, True, True, True, False, True, True])
        assert_array_equal(out[[0, 4]], lenient.transform(IMAGES[:2]))

    def test_workers_and_threads_change_no_more_than_rounding(self, monkeypatch):
        torch.manual_seed(0)
        network = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=0).eval()
        # Two full windows, so that batches are the same ones for any number of workers.
        images = [blob(40, 40, seed=i) for i in range(64)]
        fitted = encoder(network, store=None).fit(images)
        run, seen = ImageEncoder._encode_batch, set()

        def note(self, batch, model):
            seen.add((threading.current_thread() is not threading.main_thread(), torch.get_num_threads()))
            return run(self, batch, model)

        monkeypatch.setattr(ImageEncoder, "_encode_batch", note)
        n_threads, found = torch.get_num_threads(), {}
        try:
            for ways in [(1, 1), (1, 2), (2, 2)]:
                n_workers, n_in_all = ways
                torch.set_num_threads(n_in_all)
                monkeypatch.setattr(ImageEncoder, "_n_workers", lambda self, kind, n=n_workers: n)
                found[ways] = fitted.transform(images)
                assert torch.get_num_threads() == n_in_all
        finally:
            torch.set_num_threads(n_threads)
        assert seen == {(False, 1), (False, 2), (True, 1)}
        for rows in found.values():
            assert_allclose(rows, found[1, 1], rtol=0, atol=1e-5 * np.abs(rows).max())

    def test_images_of_their_own_size_are_held_by_their_bytes(self, tiny_image_model):
        fitted = encoder().fit(IMAGES)
        assert fitted._prepared_bytes(fitted._prepare_item(IMAGES[0])) == 3 * 32 * 32
        assert fitted._prepared_bytes(Image.new("RGB", (40, 30))) == 3600

    def test_an_error_stops_the_threads(self):
        items = [np.full((4, 4), i % 256, np.uint16) for i in range(300)]
        items[40] = "nowhere.png"
        before = set(threading.enumerate())
        with pytest.raises(ValueError, match="row 40") as caught:
            encoder().fit(IMAGES).transform(items)
        # Also while the error, and with it the frames of the call, is kept.
        assert not [thread for thread in set(threading.enumerate()) - before if "ThreadPool" in thread.name]
        assert caught.value

    def test_transparency_shows_the_background(self):
        clear = np.zeros((8, 8, 4), np.uint8)
        plain = {"input_size": (3, 8, 8), "mean": (0, 0, 0), "std": (1, 1, 1)}
        out = encoder(preprocess=plain, background=(255, 0, 51)).fit_transform([clear])
        assert_allclose(out, [[1, 0, 0.2]], atol=1e-6)
        with pytest.raises(ValueError, match="background must be a color"):
            encoder(background="no color").fit(IMAGES)

    def test_out_of_memory_halves_the_batch(self):
        class Tight(Means):
            def forward(self, x):
                if len(x) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return super().forward(x)

        module = Tight().eval()
        out = encoder(module).fit_transform(IMAGES)
        assert max(n for n, *_ in module.seen) == 2
        assert_allclose(out, encoder().fit_transform(IMAGES), atol=1e-6)

    @pytest.mark.parametrize("is_copied", [False, True])
    def test_batches_that_fit_are_remembered(self, is_copied, monkeypatch):
        monkeypatch.setattr(ImageEncoder, "_n_workers", lambda self, kind: 1)
        tried = []

        class Tight(Means):
            def forward(self, x):
                tried.append(len(x))
                if len(x) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return super().forward(x)

        fitted = encoder(Tight().train(is_copied), batch_size=8, store=None).fit(IMAGES)
        fitted.transform(IMAGES)
        assert tried == [1, 8, 4, *[2] * 4, 1]
        tried.clear()
        clone(fitted).fit_transform(IMAGES)
        assert tried == [1, *[2] * 4, 1]

    def test_values_that_are_not_finite_are_errors(self):
        class Overflow(Means):
            def forward(self, x):
                return super().forward(x) * float("inf")

        fitted = encoder(Overflow().eval()).fit(IMAGES)
        with pytest.raises(ValueError, match=r"row 0: .* values that are not finite"):
            fitted.transform(IMAGES)

    def test_normalize(self):
        out = encoder(normalize=True).fit_transform(IMAGES)
        assert_allclose(np.linalg.norm(out, axis=1), 1, rtol=1e-6)

    def test_transform_changes_neither_encoder_nor_input(self, tiny_image_model):
        images = [image.copy() for image in IMAGES]
        fitted = ImageEncoder(tiny_image_model).fit(images)
        before = dict(vars(fitted))
        fitted.transform(images)
        assert vars(fitted) == before
        for image, original in zip(images, IMAGES, strict=True):
            assert_array_equal(image, original)

    def test_names_and_containers_out(self):
        for container, kind in {"pandas": pd.DataFrame, "polars": pl.DataFrame}.items():
            out = encoder().set_output(transform=container).fit_transform(IMAGES)
            assert isinstance(out, kind)
            assert list(out.columns) == ["0", "1", "2"]

    def test_in_a_search(self, tiny_image_model):
        images = pd.Series([blob(seed=i) // (1 + i % 2) for i in range(20)])
        y = np.arange(20) % 2
        pipe = Pipeline([("encode", ImageEncoder(tiny_image_model)), ("clf", LogisticRegression())])
        search = GridSearchCV(pipe, {"clf__C": [0.1, 1]}, cv=2, error_score="raise").fit(images, y)
        assert search.best_score_ > 0.5

    def test_verbose_shows_a_bar(self, capsys):
        encoder(verbose=True).fit_transform(IMAGES)
        assert "ImageEncoder: 100%" in capsys.readouterr().err
