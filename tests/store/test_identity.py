"""What decides an embedding: encoders share entries of a store exactly where they compute the same."""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from skmm import EmbeddingStore
from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder, _model, _run
from skmm.encoders._run import EncodingRun
from skmm.encoders.networks import ModelSource, cached_snapshot
from skmm.store import _content, _identity, public_name


@pytest.fixture
def store(tmp_path):
    with EmbeddingStore(tmp_path / "store") as store:
        yield store


def identity(encoder, store):
    return EncodingRun(encoder.set_params(store=store), []).identity


def same(store, first, second):
    return identity(first, store) == identity(second, store)


def source_of(folder, cache=None):
    return ModelSource(str(folder), "sentence-transformers", str(folder), True, cache=cache)


class TestPublicNames:
    """Nobody's rows are lost when a private file is moved."""

    def test_the_name_is_that_of_the_package_and_of_the_class(self):
        assert public_name(TextEncoder) == "skmm.TextEncoder"
        assert public_name(torch.nn.Linear) == "torch.Linear"
        assert public_name(type("Mine", (), {"__module__": "__main__"})) == "__main__.Mine"
        assert public_name(type("Mine", (), {"__module__": "users.package._private"})) == "users.Mine"

    @pytest.mark.parametrize("kind", [TextEncoder, ImageEncoder, AudioEncoder, VideoEncoder])
    def test_files_may_move(self, kind, request, make_audio_model, store, monkeypatch):
        name = {TextEncoder: "tiny_text_model", AudioEncoder: None}.get(kind, "tiny_image_model")
        model = make_audio_model("wav2vec2") if name is None else request.getfixturevalue(name)
        before = identity(kind(model), store)
        for class_ in kind.__mro__:
            if class_.__module__.startswith("skmm"):
                monkeypatch.setattr(class_, "__module__", "skmm.elsewhere._moved")
        assert identity(kind(model), store) == before

    def test_modules_of_a_user_may_move(self, store, monkeypatch):
        class Means(torch.nn.Module):
            def forward(self, x):
                return x.mean(dim=(2, 3))

        module, identities = Means().eval(), []
        for place in ("users._old", "users._new", "others"):
            monkeypatch.setattr(Means, "__module__", place)
            # As another process knows it.
            _identity._states.clear()
            encoder = ImageEncoder(module, store=store).fit([None])
            identities.append(identity(encoder, store))
        assert identities[0] == identities[1] != identities[2]

    def test_subclasses_are_encoders_of_their_own(self, tiny_text_model, store):
        class Mine(TextEncoder):
            pass

        assert not same(store, TextEncoder(tiny_text_model), Mine(tiny_text_model))


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
            _model, "cached_snapshot", lambda names, revision, _: found.append((*names, revision)) or tiny_image_model
        )
        first = ImageEncoder("vit_base_patch16_clip_224.openai", revision="main")
        second = ImageEncoder("vit_base_patch16_clip_quickgelu_224.openai", revision="main")
        assert not same(store, first, second)
        assert found == [("timm/vit_base_patch16_clip_224.openai", "main")] * 2

    def test_the_revision_of_a_short_name_is_loaded(self, monkeypatch):
        asked = []
        create = timm.create_model

        def note(name, **options):
            asked.append((name, options.pop("pretrained_cfg_overlay")))
            return create(name, **{**options, "pretrained": False})

        monkeypatch.setattr(timm, "create_model", note)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **options: None)
        ImageEncoder("resnet10t.c3_in1k", revision="abc", device="cpu", store=None).fit([None])
        assert asked == [("resnet10t.c3_in1k", {"hf_hub_id": "timm/resnet10t.c3_in1k@abc"})]

    def test_a_name_that_the_cache_cannot_have(self):
        assert cached_snapshot(["timm/resnet10t@abc"], None) is None

    def test_weights_alone_in_the_cache(self, tmp_path, monkeypatch):
        path = str(tmp_path / "model.safetensors")
        monkeypatch.setattr(
            huggingface_hub, "try_to_load_from_cache", lambda name, file, **options: path if file in path else None
        )
        assert cached_snapshot(["timm/x"], None) == str(tmp_path)

    def test_files_behind_links_count(self, tiny_text_model, tmp_path, store):
        there, moved = tmp_path / "there", tmp_path / "elsewhere"
        shutil.copytree(tiny_text_model, there)
        moved.mkdir()
        for path in there.iterdir():
            (moved / path.name).symlink_to(path)
        (there / "round").symlink_to(there)
        first = TextEncoder(moved)
        assert same(store, TextEncoder(tiny_text_model), first)
        before = identity(first, store), source_of(moved).files
        (pooling,) = there.glob("*_Pooling")
        (pooling / "config.json").write_text((pooling / "config.json").read_text() + " ")
        assert identity(first, store) != before[0]
        assert source_of(moved).files != before[1]

    def test_the_base_of_an_adapter_counts(self, tmp_path, store):
        base, adapter = tmp_path / "base", tmp_path / "adapter"
        for folder in (base, adapter):
            folder.mkdir()
        (base / "model.safetensors").write_text("one")
        (adapter / "adapter_model.safetensors").write_text("change")
        config = adapter / "adapter_config.json"
        config.write_text(json.dumps({"base_model_name_or_path": str(base)}))

        def look():
            return source_of(adapter).identity(store), source_of(adapter).files

        before = look()
        assert look() == before
        (base / "model.safetensors").write_text("longer")
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
            source = source_of(adapter, str(cache))
            return source.identity(store), source.files

        # Not downloaded yet.
        assert look() == (None, None)
        found = []
        for commit in "ab":
            base = make_snapshot(cache, "somebody/base", commit * 40)
            (base / "config.json").write_text("{}")
            (base / "model.safetensors").write_text(commit)
            found.append(look())
            assert look() == found[-1]
        assert None not in found[0] + found[1]
        assert all(one != other for one, other in zip(*found, strict=True))

    def test_an_adapter_is_found_where_its_loader_looks(self, make_snapshot, tmp_path, store, monkeypatch):
        for cache in ("hub", "sentences"):
            adapter = make_snapshot(tmp_path / cache, "somebody/adapter")
            (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/base"}))
            (adapter / "adapter_model.safetensors").write_text("change")
            (make_snapshot(tmp_path / cache, "somebody/base") / "config.json").write_text(cache)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        encoders = [kind("somebody/adapter") for kind in (TextEncoder, ImageEncoder, AudioEncoder)]
        before = [identity(encoder, store) for encoder in encoders]
        assert None not in before
        assert [len(encoder._find_source().files) for encoder in encoders] == [3, 3, 3]
        monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "sentences"))
        now = [identity(encoder, store) for encoder in encoders]
        assert [one == other for one, other in zip(now, before, strict=True)] == [False, False, True]

    def test_a_model_that_is_downloaded_by_transform(
        self, tiny_text_model, make_snapshot, tmp_path, store, monkeypatch
    ):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        encoder = TextEncoder("somebody/model", store=store)
        encoder.n_features_in_, encoder.n_features_out_ = 1, 16
        load = TextEncoder._load_model

        def download(self, source, *place):
            shutil.copytree(tiny_text_model, make_snapshot(tmp_path, source.name), dirs_exist_ok=True)
            return load(self, source_of(tiny_text_model), *place)

        monkeypatch.setattr(TextEncoder, "_load_model", download)
        encoder.transform(["the cat"])
        assert store.info()["entries"] == 1

    def test_a_model_whose_files_are_elsewhere_is_encoded_with_a_warning(self, tiny_text_model, store, monkeypatch):
        load = TextEncoder._load_model
        monkeypatch.setattr(
            TextEncoder,
            "_load_model",
            lambda self, source, *place: load(self, source_of(tiny_text_model), *place),
        )
        with pytest.warns(UserWarning, match="embeddings are not kept.*not in the cache of the hub") as caught:
            TextEncoder("somebody/elsewhere", store=store).fit(["the cat"]).transform(["the cat"])
        assert len(caught) == 1
        assert store.info()["entries"] == 0

    @pytest.mark.parametrize("library", ["torch", "transformers", "sentence-transformers"])
    def test_minor_versions_of_libraries(self, tiny_text_model, store, monkeypatch, library):
        encoder = TextEncoder(tiny_text_model)
        before = identity(encoder, store)
        installed = _content.minor_version
        monkeypatch.setattr(_content, "minor_version", lambda name: "0.1" if name == library else installed(name))
        assert identity(encoder, store) != before

    def test_minor_version(self, monkeypatch):
        monkeypatch.setattr(_content.importlib.metadata, "version", lambda name: "2.15.1+cpu")
        assert _content.minor_version.__wrapped__("torch") == "2.15"
        assert _content.minor_version.__wrapped__("no-such-package") == "2.15"

    def test_settings_of_torch(self, tiny_text_model, store, monkeypatch):
        encoder = TextEncoder(tiny_text_model, device="cpu")
        before = identity(encoder, store)
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
        assert identity(encoder, store) != before

    def test_autocast_around_a_call_changes_no_numbers(self, tiny_image_model):
        encoder = ImageEncoder(tiny_image_model, device="cpu", precision="float32", store=None).fit([None])
        pictures = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
        expected = encoder.transform(pictures)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_allclose(encoder.transform(pictures), expected, atol=1e-6 * np.abs(expected).max())

    def test_device_and_precision_are_those_of_this_machine(self, tiny_text_model, store, monkeypatch):
        encoder = TextEncoder(tiny_text_model)
        found = set()
        for place in [("cpu", "float32"), ("cpu", "bfloat16"), ("cuda", "bfloat16")]:
            monkeypatch.setattr(_run, "expected_place", lambda device, precision, place=place: place)
            found.add(identity(encoder, store))
        assert len(found) == 3


def test_a_module_that_takes_images_of_some_sizes_only(store):
    class Blocks(nn.Module):
        """Means of blocks of 2 x 2 pixels, which need even sides."""

        def forward(self, x):
            if x.shape[2] % 2 or x.shape[3] % 2:
                raise RuntimeError("odd sides")
            return x.mean(dim=(2, 3))

    def preprocess(image):
        return torch.from_numpy(np.array(image, dtype=np.float32)).movedim(2, 0)

    pictures = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
    encoder = ImageEncoder(Blocks().eval(), preprocess=preprocess, store=store)
    X = encoder.fit_transform(pictures)
    np.testing.assert_allclose(X, [[255, 0, 0], [0, 0, 255]])
    np.testing.assert_array_equal(encoder.transform(pictures), X)
    assert (store.hits, store.misses) == (2, 2)
