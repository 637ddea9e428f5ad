"""What decides an embedding: encoders share entries of a store exactly where they compute the same."""

import copy
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import skmm
from skmm import EmbeddingStore
from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder, _model
from skmm.encoders.networks import _source
from skmm.store import _identity


@pytest.fixture
def store(tmp_path):
    with EmbeddingStore(tmp_path / "store") as store:
        yield store


def same(store, first, second):
    for encoder in (first, second):
        if not encoder._is_named():
            encoder.fit([None])
    return first._identity(store) == second._identity(store)


class TestNamedModels:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, True),
            ({"batch_size": 3, "verbose": True, "on_error": "missing"}, True),
            ({"normalize": True}, True),
            ({"prompt": "query"}, False),
            ({"prompt": "the cat"}, False),
            ({"max_length": 9}, False),
            ({"truncate_dim": 9}, False),
            ({"precision": "bfloat16"}, False),
            ({"compile": True}, False),
        ],
    )
    def test_parameters_of_texts(self, tiny_text_model, store, options, expected):
        usual = {"device": "cpu", "precision": "float32"}
        first = TextEncoder(tiny_text_model, **usual)
        assert same(store, first, TextEncoder(tiny_text_model, **{**usual, **options})) == expected

    def test_a_prompt_by_name_is_its_text(self, tiny_text_model, store):
        first = TextEncoder(tiny_text_model, prompt="query")
        assert same(store, first, TextEncoder(tiny_text_model, prompt="the cat: "))

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"background": "#ffffff"}, True),
            ({"background": "black"}, False),
        ],
    )
    def test_parameters_of_images(self, tiny_image_model, store, options, expected):
        assert same(store, ImageEncoder(tiny_image_model), ImageEncoder(tiny_image_model, **options)) == expected

    @pytest.mark.parametrize(
        "options",
        [{"sampling": "fps"}, {"n_frames": 3}, {"sampling": "fps", "fps": 2.0}, {"pooling": "max"}],
    )
    def test_parameters_of_videos(self, tiny_image_model, store, options):
        assert not same(store, VideoEncoder(tiny_image_model), VideoEncoder(tiny_image_model, **options))

    @pytest.mark.parametrize("options", [{"sampling_rate": 8000}, {"window": 5.0}, {"pooling": "max"}])
    def test_parameters_of_sound(self, make_audio_model, store, options):
        folder = make_audio_model("wav2vec2")
        assert not same(store, AudioEncoder(folder), AudioEncoder(folder, **options))

    def test_kinds_of_encoders_are_apart(self, tiny_clip_model, store):
        assert not same(store, ImageEncoder(tiny_clip_model), TextEncoder(tiny_clip_model))
        assert not same(store, ImageEncoder(tiny_clip_model), VideoEncoder(tiny_clip_model))

    def test_files_count_by_content_wherever_they_are(self, tiny_text_model, tmp_path, store):
        first = TextEncoder(tiny_text_model)
        moved = tmp_path / "elsewhere"
        shutil.copytree(tiny_text_model, moved)
        assert same(store, first, TextEncoder(moved))
        (moved / "README.md").write_text("Other words")
        assert same(store, first, TextEncoder(moved))
        for name in ("model.safetensors", "tokenizer.json", "config.json"):
            (path,) = moved.rglob(name) if name != "config.json" else [next(iter(sorted(moved.rglob(name))))]
            content = path.read_bytes()
            # As long as before.
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            assert not same(store, first, TextEncoder(moved))
            path.write_bytes(content)
            assert same(store, first, TextEncoder(moved))

    def test_short_names_of_timm_that_share_weights(self, tiny_image_model, store, monkeypatch):
        found = []
        monkeypatch.setattr(
            _model, "cached_snapshot", lambda names, revision, _: found.append((names, revision)) or tiny_image_model
        )
        first = ImageEncoder("vit_base_patch16_clip_224.openai", revision="main")
        second = ImageEncoder("vit_base_patch16_clip_quickgelu_224.openai", revision="main")
        assert not same(store, first, second)
        assert found == [(["timm/vit_base_patch16_clip_224.openai"], "main")] * 2

    def test_the_revision_of_a_short_name_is_loaded(self, monkeypatch):
        asked = []
        create = timm.create_model

        def note(name, **options):
            asked.append((name, options.pop("pretrained_cfg_overlay")))
            return create(name, **{**options, "pretrained": False})

        monkeypatch.setattr(timm, "create_model", note)
        ImageEncoder("resnet10t.c3_in1k", revision="abc", device="cpu", store=None).fit([None])
        assert asked == [("resnet10t.c3_in1k", {"hf_hub_id": "timm/resnet10t.c3_in1k@abc"})]

    def test_a_name_that_the_cache_cannot_have(self):
        assert _identity.cached_snapshot(["timm/resnet10t@abc"], None) is None

    def test_weights_alone_in_the_cache(self, tmp_path, monkeypatch):
        path = str(tmp_path / "model.safetensors")
        monkeypatch.setattr(
            huggingface_hub, "try_to_load_from_cache", lambda name, file, **options: path if file in path else None
        )
        assert _identity.cached_snapshot(["timm/x"], None) == str(tmp_path)

    def test_files_behind_links_count(self, tiny_text_model, tmp_path, store):
        there, moved = tmp_path / "there", tmp_path / "elsewhere"
        shutil.copytree(tiny_text_model, there)
        moved.mkdir()
        for path in there.iterdir():
            (moved / path.name).symlink_to(path)
        (there / "round").symlink_to(there)
        first = TextEncoder(moved)
        assert same(store, TextEncoder(tiny_text_model), first)
        before = first._identity(store), _source.folder_signature(moved)
        (pooling,) = there.glob("*_Pooling")
        (pooling / "config.json").write_text((pooling / "config.json").read_text() + " ")
        assert first._identity(store) != before[0]
        assert _source.folder_signature(moved) != before[1]

    def test_the_base_of_an_adapter_counts(self, tmp_path, store):
        base, adapter = tmp_path / "base", tmp_path / "adapter"
        for folder in (base, adapter):
            folder.mkdir()
        (base / "model.safetensors").write_text("one")
        (adapter / "adapter_model.safetensors").write_text("change")
        config = adapter / "adapter_config.json"
        config.write_text(json.dumps({"base_model_name_or_path": str(base)}))

        def look():
            return _identity.folder_digest(str(adapter), store), _source.folder_signature(str(adapter))

        before = look()
        assert look() == before
        (base / "model.safetensors").write_text("two")
        assert all(now != then for now, then in zip(look(), before, strict=True))
        # Adapters of adapters, in a circle.
        (base / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(adapter)}))
        assert look() == look() != before
        for damaged in ("damaged", "[]", '{"base_model_name_or_path": 3}'):
            config.write_text(damaged)
            look()

    def test_the_base_of_an_adapter_on_the_hub_counts(self, make_snapshot, tmp_path, store):
        adapter, cache = tmp_path / "adapter", tmp_path / "cache"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/base"}))
        (adapter / "adapter_model.safetensors").write_text("change")

        def look():
            return [
                function(str(adapter), *arguments, str(cache))
                for function, arguments in ((_identity.folder_digest, [store]), (_source.folder_signature, []))
            ]

        # Not downloaded yet.
        before = look()
        assert before[0] is None
        assert None in before[1]
        found = []
        for commit in "ab":
            base = make_snapshot(cache, "somebody/base", commit * 40)
            (base / "config.json").write_text("{}")
            (base / "model.safetensors").write_text(commit)
            found.append(look())
            assert look() == found[-1]
        assert not {None} & set(found[0] + found[1])
        assert all(one != other for one, other in zip(*found, strict=True))

    def test_an_adapter_is_found_where_its_loader_looks(self, make_snapshot, tmp_path, store, monkeypatch):
        for cache in ("hub", "sentences"):
            adapter = make_snapshot(tmp_path / cache, "somebody/adapter")
            (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/base"}))
            (make_snapshot(tmp_path / cache, "somebody/base") / "config.json").write_text(cache)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        encoders = [kind("somebody/adapter") for kind in (TextEncoder, ImageEncoder, AudioEncoder)]
        before = [encoder._identity(store) for encoder in encoders]
        assert None not in before
        assert [len(encoder._folders()) for encoder in encoders] == [2, 2, 2]
        monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "sentences"))
        now = [encoder._identity(store) for encoder in encoders]
        assert [one == other for one, other in zip(now, before, strict=True)] == [False, False, True]

    def test_a_model_that_is_downloaded_by_transform(
        self, tiny_text_model, make_snapshot, tmp_path, store, monkeypatch
    ):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        encoder = TextEncoder("somebody/model", store=store)
        encoder.n_features_in_, encoder.n_features_out_ = 1, 16
        load = TextEncoder._load_model

        def download(self, source, is_folder, *place):
            shutil.copytree(tiny_text_model, make_snapshot(tmp_path, source), dirs_exist_ok=True)
            return load(self, tiny_text_model, True, *place)

        monkeypatch.setattr(TextEncoder, "_load_model", download)
        encoder.transform(["the cat"])
        assert store.info()["entries"] == 1

    def test_a_model_whose_files_are_elsewhere_is_encoded_with_a_warning(self, tiny_text_model, store, monkeypatch):
        load = TextEncoder._load_model
        monkeypatch.setattr(
            TextEncoder,
            "_load_model",
            lambda self, source, is_folder, *place: load(self, tiny_text_model, True, *place),
        )
        encoder = TextEncoder("somebody/elsewhere", store=store).fit(["the cat"])
        with pytest.warns(UserWarning, match="embeddings are not kept.*not in the cache of the hub") as caught:
            encoder.transform(["the cat"])
        assert len(caught) == 1
        assert store.info()["entries"] == 0

    @pytest.mark.skipif(os.name == "nt", reason="Windows calls the creation of a file st_ctime")
    def test_a_model_replaced_by_one_of_the_same_size_and_time_is_loaded(self, tmp_path):
        path = tmp_path / "model.safetensors"
        path.write_text("one")
        before, times = _source.folder_signature(tmp_path), path.stat()
        path.write_text("two")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert _source.folder_signature(tmp_path) != before

    @pytest.mark.parametrize("library", ["torch", "transformers", "sentence-transformers"])
    def test_minor_versions_of_libraries(self, tiny_text_model, store, monkeypatch, library):
        encoder = TextEncoder(tiny_text_model)
        before = encoder._identity(store)
        known = _identity.minor_version
        monkeypatch.setattr(_model, "minor_version", lambda name: "0.1" if name == library else known(name))
        assert encoder._identity(store) != before

    def test_minor_version(self, monkeypatch):
        monkeypatch.setattr(_identity.importlib.metadata, "version", lambda name: "2.15.1+cpu")
        assert _identity.minor_version.__wrapped__("torch") == "2.15"
        assert _identity.minor_version.__wrapped__("no-such-package") == "2.15"

    def test_settings_of_torch(self, tiny_text_model, store, monkeypatch):
        encoder = TextEncoder(tiny_text_model, device="cpu")
        before = encoder._identity(store)
        monkeypatch.setattr(torch.backends.mkldnn, "deterministic", True)
        assert encoder._identity(store) != before

    def test_autocast_around_a_call_changes_no_numbers(self, tiny_image_model):
        encoder = ImageEncoder(tiny_image_model, device="cpu", precision="float32", store=None).fit([None])
        pictures = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
        expected = encoder.transform(pictures)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_array_equal(encoder.transform(pictures), expected)

    def test_device_and_precision_are_those_of_this_machine(self, tiny_text_model, store, monkeypatch):
        encoder = TextEncoder(tiny_text_model)
        found = set()
        for place in [("cpu", "float32"), ("cpu", "bfloat16"), ("cuda", "bfloat16")]:
            monkeypatch.setattr(_model, "expected_place", lambda device, precision, place=place: place)
            found.add(encoder._identity(store))
        assert len(found) == 3


def network(pool=None, factor=1.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), pool or nn.AdaptiveAvgPool2d(1), nn.Flatten(), Scale(factor)]
        return nn.Sequential(*layers).eval()


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Double:
    def __init__(self, factor=2):
        self.factor = factor

    def __call__(self, image):
        return torch.from_numpy(np.asarray(image.resize((8, 8)), dtype=np.float32)).permute(2, 0, 1) * self.factor


RARE_FACTOR = 1


class Rare(nn.Module):
    """Does nothing to the input that modules are tried with."""

    def forward(self, x):
        return x * RARE_FACTOR if len(x) == 3 else x


def rarely_scaled(image):
    return Double(RARE_FACTOR if image.size == (7, 7) else 1)(image)


class Opaque:
    def __init__(self):
        self.factors = (factor for factor in (1, 2))

    def __call__(self, image):
        return Double()(image)


def plain(image, factor=2):
    return Double(factor)(image)


PREPROCESS = {"input_size": (3, 16, 16)}


def images(module, preprocess=PREPROCESS, **options):
    return ImageEncoder(module, preprocess=preprocess, precision="float32", **options)


class TestModules:
    def test_equal_modules_share(self, store):
        module = network()
        assert same(store, images(module), images(module, batch_size=2, normalize=True))
        assert same(store, images(module), images(copy.deepcopy(module)))
        assert same(store, images(module), images(network()))

    def test_a_changed_attribute(self, store):
        module = network()
        first = images(module).fit([None])._identity(store)
        module[-1].factor = 1.5
        assert images(module).fit([None])._identity(store) != first

    def test_a_hook(self, store):
        module = network()
        first = images(module).fit([None])._identity(store)
        handle = module[0].register_forward_hook(lambda module, inputs, output: output + 1)
        assert images(module).fit([None])._identity(store) != first
        handle.remove()
        assert images(module).fit([None])._identity(store) == first

    def test_a_tensor_written_to(self, store):
        module = network()
        first = images(module).fit([None])._identity(store)
        with torch.no_grad():
            module[0].bias[1] += 1e-3
        second = images(module).fit([None])._identity(store)
        # Past torch's own count of changes.
        module[0].bias.data[1] += 1e-3
        assert len({first, second, images(module).fit([None])._identity(store)}) == 3

    def test_a_tensor_that_the_probe_does_not_read(self, store):
        module = network()
        module.unread = nn.Parameter(torch.ones(3))
        found = {images(module).fit([None])._identity(store)}
        module.unread.data[1] = 2
        found.add(images(module).fit([None])._identity(store))
        module.unread.data = torch.ones(4, dtype=torch.bfloat16)[1:]
        found.add(images(module).fit([None])._identity(store))
        assert len(found) == 3

    def test_other_layers_of_the_same_state(self, store):
        assert not same(store, images(network()), images(network(nn.AdaptiveMaxPool2d(1))))

    def test_settings_around_the_module(self, store):
        module = network()
        first = images(module)
        assert not same(store, first, images(module, preprocess={"input_size": (3, 20, 20)}))
        assert not same(store, first, images(module, background="black"))
        assert not same(store, first, VideoEncoder(module, preprocess=PREPROCESS, precision="float32"))

    def test_callables(self, store):
        module = network()
        first = images(module, Double())
        assert same(store, first, images(module, Double()))
        assert not same(store, first, images(module, Double(3)))
        assert same(store, images(module, plain), images(module, plain))
        halves = [functools.partial(plain, factor=0.5) for _ in range(2)]
        assert same(store, images(module, halves[0]), images(module, halves[1]))
        assert not same(store, images(module, halves[0]), images(module, plain))

    def test_what_the_probe_does_not_show(self, store, monkeypatch):
        module = nn.Sequential(network(), Rare()).eval()
        found = set()
        for factor in (1, 1, 2):
            monkeypatch.setattr(sys.modules[__name__], "RARE_FACTOR", factor)
            found.add(images(module).fit([None])._identity(store))
            found.add(images(network(), rarely_scaled).fit([None])._identity(store))
        assert len(found) == 4

    def test_the_same_in_another_process(self, store, tmp_path):
        (tmp_path / "others.py").write_text(
            "from tests_identity import *\nimport sys\n"
            "encoder = images(network(), plain).fit([None])\n"
            "print(encoder._identity(EmbeddingStore(sys.argv[1])).hex())\n"
        )
        shutil.copy(__file__, tmp_path / "tests_identity.py")
        here = subprocess.run(
            [sys.executable, "others.py", str(store.path)],
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(skmm.__file__).parents[1]), "PATH": "", "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
        )
        there = subprocess.run(
            [sys.executable, "others.py", str(store.path)],
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(skmm.__file__).parents[1]), "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert len(here.stdout) == 65, here.stderr
        assert here.stdout == there.stdout

    @pytest.mark.parametrize(
        ("encoder", "reason"),
        [
            (images(nn.Sequential(network(), Noise()).eval()), "other numbers each time"),
            (images(network(), Opaque()), "generator, which does not tell what it holds"),
        ],
    )
    def test_what_cannot_be_identified_is_encoded_without_a_store(self, store, encoder, reason):
        pictures = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
        encoder.set_params(store=store).fit(pictures)
        with pytest.warns(UserWarning, match=f"embeddings are not kept.*{reason}") as caught:
            out = encoder.transform(pictures)
        assert len(caught) == 1
        assert np.isfinite(out).all()
        assert store.info()["entries"] == 0
