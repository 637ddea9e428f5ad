"""Checkpoints that bring code, in files or in pickles: none of it runs. Whoever runs it leaves a mark."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

KINDS = ["text", "plain text", "clip texts", "clip", "audio", "video"]

# Files of a checkpoint that may name code -> the classes of transformers that would look for it.
NAMING = {
    "config.json": ("AutoConfig", "AutoModel"),
    "tokenizer_config.json": ("AutoTokenizer",),
    "preprocessor_config.json": ("AutoFeatureExtractor", "AutoImageProcessor", "AutoProcessor", "AutoVideoProcessor"),
    "processor_config.json": ("AutoProcessor", "AutoImageProcessor"),
}

# Names of sentence-transformers' classes that all its versions know.
ROUTER = "sentence_transformers.base.modules.router.Router"
DENSE = "sentence_transformers.models.Dense"


@pytest.fixture
def marks(tmp_path):
    """Folder in which foreign code leaves a file for each module of it that runs."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def write_code(folder, name, marks):
    """Write a module that leaves its mark as soon as it is imported."""
    folder.joinpath(f"{name}.py").write_text(
        f"import pathlib\npathlib.Path({str(marks / name)!r}).touch()\nclass Planted:\n    pass\n", encoding="utf-8"
    )


def edit(path, **values):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


def plant(folder, marks):
    """Let the configurations of a checkpoint name code beside them; give the names of its modules."""
    planted = []
    for file, classes in NAMING.items():
        if folder.joinpath(file).exists():
            code = f"planted_{file.removesuffix('.json')}"
            named = {name: f"{code}.Planted" for name in classes}
            if "AutoTokenizer" in named:
                named["AutoTokenizer"] = [None, named["AutoTokenizer"]]
            edit(folder / file, auto_map=named)
            write_code(folder, code, marks)
            planted.append(code)
    return planted


class Malicious:
    """Leaves its mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def check_mark(path, marks):
    """The file would have left its mark, had anybody read it as a pickle."""
    assert not any(marks.iterdir())
    torch.load(path, weights_only=False)
    assert [mark.name for mark in marks.iterdir()] == ["unpickled"]


class TestCode:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_models_that_transformers_knows_is_passed_over(self, kind, copy_model, encode_kind, marks, tmp_path):
        folder = copy_model(kind, tmp_path / "model")
        expected = encode_kind(kind, str(folder))
        assert "planted_config" in plant(folder, marks)
        assert_allclose(encode_kind(kind, str(folder)), expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        assert not any(marks.iterdir())

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_other_models_is_refused(self, kind, copy_model, encode_kind, marks, tmp_path):
        folder = copy_model(kind, tmp_path / "model")
        plant(folder, marks)
        edit(folder / "config.json", model_type="planted", architectures=["Planted"])
        with pytest.raises(OSError, match="could not be loaded"):
            encode_kind(kind, str(folder))
        assert not any(marks.iterdir())

    @pytest.mark.parametrize("kind", ["text", "clip"])
    @pytest.mark.parametrize("named_by", ["modules.json", "router_config.json", "config.json"])
    def test_of_modules_is_refused(self, kind, named_by, copy_model, encode_kind, marks, tmp_path):
        folder = copy_model("text", tmp_path / "model")
        write_code(folder, "planted", marks)
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        last = {"idx": 2, "name": "2", "path": "2_Planted", "type": "planted.Planted"}
        (folder / "2_Planted").mkdir()
        if named_by != "modules.json":
            last["type"] = ROUTER
            routes = {"types": {"0_Planted": "planted.Planted"}, "structure": {"a": ["0_Planted"]}, "parameters": {}}
            (folder / "2_Planted" / named_by).write_text(json.dumps(routes), encoding="utf-8")
        (folder / "modules.json").write_text(json.dumps([*modules, last]), encoding="utf-8")
        with pytest.raises(OSError, match=r"could not be loaded .*planted\.Planted"):
            encode_kind(kind, str(folder))
        assert not any(marks.iterdir())


class TestPickles:
    @pytest.mark.parametrize("kind", [*KINDS, "timm", "frames"])
    def test_are_refused_unread(self, kind, copy_model, encode_kind, marks, tmp_path):
        folder = copy_model(kind, tmp_path / "model")
        (folder / "model.safetensors").unlink()
        weights = folder / "pytorch_model.bin"
        torch.save(Malicious(marks / "unpickled"), weights)
        with pytest.raises(OSError, match=r"could not be loaded .* weights in safetensors format"):
            encode_kind(kind, str(folder))
        check_mark(weights, marks)

    def test_of_further_modules_are_read_as_weights_only(self, copy_model, encode_kind, marks, tmp_path):
        folder = copy_model("text", tmp_path / "model")
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        last = {"idx": 2, "name": "2", "path": "2_Dense", "type": DENSE}
        (folder / "modules.json").write_text(json.dumps([*modules, last]), encoding="utf-8")
        (folder / "2_Dense").mkdir()
        dense = {"in_features": 16, "out_features": 3, "activation_function": "torch.nn.modules.linear.Identity"}
        (folder / "2_Dense" / "config.json").write_text(json.dumps(dense), encoding="utf-8")
        weights = folder / "2_Dense" / "pytorch_model.bin"
        torch.save({"linear.weight": torch.eye(3, 16), "linear.bias": torch.zeros(3)}, weights)
        whole = encode_kind("text", str(copy_model("text", tmp_path / "without")))
        assert_allclose(encode_kind("text", str(folder)), whole[:, :3], rtol=0, atol=1e-6 * np.abs(whole[:, :3]).max())
        torch.save(Malicious(marks / "unpickled"), weights)
        with pytest.raises(OSError, match="could not be loaded"):
            encode_kind("text", str(folder))
        check_mark(weights, marks)


class TestTimm:
    """What a configuration says of where weights come from does not count."""

    def test_folder(self, copy_model, encode_kind, marks, tmp_path):
        folder = copy_model("timm", tmp_path / "model")
        expected = encode_kind("timm", str(folder))
        evil = folder / "evil.bin"
        torch.save(Malicious(marks / "unpickled"), evil)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        elsewhere = {"source": "hf-hub", "hf_hub_id": "nobody/elsewhere", "url": evil.as_uri(), "custom_load": True}
        edit(
            folder / "config.json",
            model_args={"checkpoint_path": str(evil)},
            pretrained_cfg={**config["pretrained_cfg"], **elsewhere},
        )
        assert_allclose(encode_kind("timm", str(folder)), expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        check_mark(evil, marks)

    @pytest.mark.parametrize("file", ["pytorch_model.bin", "evil.bin"])
    def test_hub(self, file, copy_model, encode_kind, make_snapshot, marks, tmp_path, monkeypatch):
        folder = copy_model("timm", make_snapshot(tmp_path / "hub", "somebody/evil"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        (folder / "model.safetensors").unlink()
        torch.save(Malicious(marks / "unpickled"), folder / file)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        edit(folder / "config.json", pretrained_cfg={**config["pretrained_cfg"], "hf_hub_filename": file})
        with pytest.raises(OSError, match="'hf-hub:somebody/evil' could not be loaded"):
            encode_kind("timm", "hf-hub:somebody/evil")
        check_mark(folder / file, marks)
