"""Where models come from: found once in a call, files read once, and nothing loaded where a store has all rows."""

import builtins
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import skmm
from skmm import EmbeddingStore
from skmm.encoders import AudioEncoder, ImageEncoder, ModelEncoder, TextEncoder, VideoEncoder, clear_models
from skmm.encoders.networks import ModelSource
from skmm.store import _content

ENCODE = """
import sys
import numpy as np
from skmm import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

store, *names = sys.argv[1:]
rng = np.random.default_rng(0)
images = rng.integers(256, size=(3, 40, 50, 3), dtype=np.uint8)
items = {
    "text": (TextEncoder, ["the cat", "a dog sat on the mat"]),
    "image": (ImageEncoder, images),
    "audio": (AudioEncoder, [(16000, rng.normal(size=4000)) for _ in range(2)]),
    "video": (VideoEncoder, [images]),
}
for pair in names:
    kind, name = pair.split("=")
    encoder, X = items[kind]
    print(encoder(name, device="cpu", store=store).fit_transform(X).sum())
print(sorted({"sentence_transformers", "timm", "torch", "torchvision", "transformers"} & set(sys.modules)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it takes torch to know the devices")
def test_nothing_is_imported(
    tiny_text_model, tiny_image_model, tiny_clip_model, tiny_video_model, make_audio_model, make_snapshot, tmp_path
):
    audio = make_audio_model("wav2vec2")
    pairs = [
        *(("text", tiny_text_model), ("text", tiny_clip_model), ("image", tiny_image_model)),
        *(("image", tiny_clip_model), ("audio", audio), ("video", tiny_image_model), ("video", tiny_video_model)),
    ]
    for name, folder in {
        "somebody/text": tiny_text_model,
        "sentence-transformers/short": tiny_text_model,
        "timm/resnet10t.c3_in1k": tiny_image_model,
        "somebody/clip": tiny_clip_model,
        "somebody/audio": audio,
        "somebody/video": tiny_video_model,
    }.items():
        shutil.copytree(folder, make_snapshot(tmp_path / "hub", name), dirs_exist_ok=True)
    pairs += [
        *(("text", "somebody/text"), ("text", "short"), ("audio", "somebody/audio"), ("video", "somebody/video")),
        *(("image", "timm/resnet10t.c3_in1k"), ("image", "hf-hub:timm/resnet10t.c3_in1k"), ("image", "somebody/clip")),
    ]
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(skmm.__file__).parents[1]),
    }

    def encode():
        arguments = [str(tmp_path / "store"), *(f"{kind}={name}" for kind, name in pairs)]
        command = [sys.executable, "-c", ENCODE, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    first, second = encode(), encode()
    assert first[-1] == "['sentence_transformers', 'timm', 'torch', 'torchvision', 'transformers']"
    assert second[-1] == "[]"
    assert second[:-1] == first[:-1]
    assert len(second) == len(pairs) + 1


CONSTRUCT = """
import sys
from skmm import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

for kind in (AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder):
    encoder = kind("somebody/model")
    repr(encoder), encoder.get_params()
print({"av", "sentence_transformers", "soundfile", "timm", "torch", "transformers"} & set(sys.modules))
"""


def test_construction_imports_nothing():
    environment = {**os.environ, "PYTHONPATH": str(Path(skmm.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", CONSTRUCT], capture_output=True, text=True, env=environment)
    assert done.stdout == "set()\n", done.stderr


@pytest.fixture
def notes(monkeypatch):
    """What is found out from here on: sources, identities, files read for their digests; none is remembered."""
    notes = {"sources": [], "identities": [], "digests": [], "configs": []}

    def note(target, name, kind, what):
        original = getattr(target, name)

        def noting(*args, **options):
            notes[kind].append(what(*args))
            return original(*args, **options)

        monkeypatch.setattr(target, name, noting)

    note(ModelEncoder, "_find_source", "sources", lambda encoder: encoder)
    note(ModelSource, "identity", "identities", lambda source, store: source)
    note(_content, "_hash_file", "digests", lambda signature, whole: signature[0])

    def is_config(path):
        return isinstance(path, (str, os.PathLike)) and os.path.basename(path) == "config.json"

    opened = builtins.open

    def open_and_note(path, *args, **options):
        if is_config(path):
            notes["configs"].append(sys._getframe(1).f_globals["__name__"])
        return opened(path, *args, **options)

    monkeypatch.setattr(builtins, "open", open_and_note)
    monkeypatch.setattr(_content, "_file_digests", {})
    clear_models()
    yield notes
    clear_models()


def count(notes):
    counts = {kind: len(seen) for kind, seen in notes.items()}
    for seen in notes.values():
        seen.clear()
    return counts


class TestOnceInACall:
    """The source of a model, its files and its identity are found once in a call, and files are read once at all."""

    KINDS = ["text", "clip texts", "plain text", "timm", "clip", "audio", "frames", "video"]

    @pytest.fixture
    def make(self, copy_model, items_of_kinds, tmp_path):
        def make(kind, **options):
            folder = Path(copy_model(kind, tmp_path / "model"))
            # Files that are younger than two seconds are read again.
            for path in folder.rglob("*"):
                os.utime(path, (1.7e9, 1.7e9))
            encoder = {
                **dict.fromkeys(("text", "plain text", "clip texts"), TextEncoder),
                **{"audio": AudioEncoder, "frames": VideoEncoder, "video": VideoEncoder},
            }.get(kind, ImageEncoder)
            return encoder(folder, device="cpu", precision="float32", **options), list(items_of_kinds[kind])

        return make

    @pytest.mark.parametrize("kind", KINDS)
    def test_with_a_store(self, kind, make, notes, tmp_path):
        encoder, X = make(kind, store=tmp_path / "store")
        count(notes)
        encoder.fit_transform(X)
        files = list(notes["digests"])
        own = [module for module in notes["configs"] if module.startswith("skmm.")]
        counts = count(notes)
        # Once for the call, and once to see that nothing was written while the model was loaded.
        assert counts["sources"] <= 2
        assert counts["identities"] == 1
        assert len(own) <= 6
        # What loaders read for themselves is not ours to count, but it is a handful.
        assert counts["configs"] <= 20
        assert 0 < len(files) == len(set(files))
        for call in (encoder.transform, encoder.transform, clone(encoder).fit_transform):
            call(X)
            counts = count(notes)
            assert counts["sources"] == counts["identities"] == 1
            assert counts["digests"] == 0
            assert counts["configs"] <= 3
        # Another process finds the digests in the store.
        _content._file_digests.clear()
        clone(encoder).fit_transform(X)
        assert count(notes)["digests"] == 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_without_a_store(self, kind, make, notes):
        encoder, X = make(kind, store=None)
        encoder.fit(X)
        count(notes)
        encoder.transform(X)
        counts = count(notes)
        assert counts["sources"] == 1
        assert counts["identities"] == counts["digests"] == 0

    def test_a_search_reads_each_file_once(self, make, notes, tmp_path):
        encoder, X = make("text", store=tmp_path / "store")
        pipe = make_pipeline(encoder, LogisticRegression())
        texts = np.array([f"{X[i % 2]} {i}" for i in range(12)], dtype=object)
        GridSearchCV(pipe, {"logisticregression__C": [0.1, 1, 10]}, cv=2, error_score="raise").fit(texts, [0, 1] * 6)
        assert len(notes["digests"]) == len(set(notes["digests"])) > 0


class TestSources:
    def test_are_frozen(self, tiny_text_model):
        source = TextEncoder(tiny_text_model)._find_source()
        assert (source.loader, source.is_local) == ("sentence-transformers", True)
        with pytest.raises(dataclasses.FrozenInstanceError):
            source.folder = "elsewhere"

    def test_files_that_are_no_part_of_the_model_do_not_count(self, tiny_text_model, tmp_path):
        folder = Path(shutil.copytree(tiny_text_model, tmp_path / "model"))
        with EmbeddingStore(tmp_path / "store") as store:
            before = TextEncoder(folder)._find_source().identity(store)
            (folder / "onnx").mkdir()
            for name in ("README.md", "picture.PNG", ".gitattributes", "onnx/model.bin", "weights.h5"):
                (folder / name).write_text("other")
                assert TextEncoder(folder)._find_source().identity(store) == before
            (folder / "other.json").write_text("{}")
            assert TextEncoder(folder)._find_source().identity(store) != before
