"""What decides the numbers an encoder gives, as a digest: only encoders with the same one share entries of a store."""

import functools
import hashlib
import importlib.metadata
import json
import os
import weakref
from contextlib import suppress

import numpy as np

from .._torch import divided_threads
from ._describe import Unidentifiable, describe_parts, tensor_digest, tensors_of
from ._files import FileDigests

# Raised whenever the code changes what encoders compute beyond rounding.
_FORMAT = 1

# Files of a checkpoint that no loader here reads: documentation, and weights in the formats of other frameworks.
_IGNORED_ENDINGS = (
    ".gif",
    ".gguf",
    ".h5",
    ".jpeg",
    ".jpg",
    ".md",
    ".msgpack",
    ".onnx",
    ".ot",
    ".pdf",
    ".png",
    ".tflite",
)
_IGNORED_FOLDERS = ("onnx", "openvino", "coreml")

# The file by which libraries know an adapter, which names the checkpoint that it changes.
_ADAPTER = "adapter_config.json"

# What stands for libraries in the identity: changes of rounding come with minor versions.
_MINOR_PARTS = 2


def digest_of(*parts):
    """Give a digest of 32 bytes of plain data."""
    return hashlib.blake2b(repr((_FORMAT, *parts)).encode(), digest_size=32, person=b"skmm identity").digest()


@functools.lru_cache(maxsize=64)
def minor_version(package):
    """Give the minor version of an installed package as text, "" if there is none; it is not imported."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
    return ".".join(version.split("+")[0].split(".")[:_MINOR_PARTS])


def checkpoint_files(folder):
    """Give the names of the files below a folder, within it and sorted; folders that are links are looked into."""
    names, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        where = os.path.realpath(parent)
        # A link to a folder above goes round for ever.
        folders[:] = [] if where in seen else sorted(name for name in folders if not name.startswith("."))
        seen.add(where)
        names += [os.path.relpath(os.path.join(parent, name), folder) for name in files]
    return sorted(names)


def bases_of(folder):
    """Give the bases of the adapters among the files of a checkpoint, as they are written there."""
    files = [os.path.join(folder, name) for name in checkpoint_files(folder) if os.path.basename(name) == _ADAPTER]
    bases = [_read_adapter(path).get("base_model_name_or_path") for path in files]
    return [os.path.expanduser(base) for base in bases if base]


def _read_adapter(path):
    """Read the configuration of an adapter; what is damaged is for the loader to refuse."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def folder_digest(folder, store, outer=()):
    """Give a digest of the files of a checkpoint, whatever the folder is called, and of the bases of adapters.

    Parameters
    ----------
    folder : str
        Folder.

    store : EmbeddingStore
        What remembers the digests of files.

    outer : tuple of str, default=()
        Folders of which this one is the base.

    Returns
    -------
    digest : bytes
        Digest of names and contents.

    Raises
    ------
    Unidentifiable
        If a file cannot be read, or an adapter is for what is no folder.
    """
    folder = os.path.realpath(folder)
    if folder in outer:
        return digest_of("again", outer.index(folder))
    names = [name for name in checkpoint_files(folder) if _is_read(name)]
    paths = [os.path.join(folder, name) for name in names]
    digests = FileDigests(store).of(paths)
    if None in digests:
        raise Unidentifiable(f"{paths[digests.index(None)]!r} cannot be read")
    bases = bases_of(folder)
    missing = [base for base in bases if not os.path.isdir(base)]
    if missing:
        raise Unidentifiable(f"its files change the weights of {missing[0]!r}, which is no folder here")
    adapted = [(minor_version("peft"), folder_digest(base, store, (*outer, folder))) for base in bases]
    return digest_of("files", list(zip(names, digests, strict=True)), *adapted)


def _is_read(name):
    *folders, file = name.split(os.sep)
    is_ignored = file.startswith(".") or file.lower().endswith(_IGNORED_ENDINGS)
    return not is_ignored and not any(folder in _IGNORED_FOLDERS for folder in folders)


def cached_snapshot(names, revision, cache=None):
    """Give the folder of the hub's local cache with a model's files, None if it is not there.

    Parameters
    ----------
    names : list of str
        Names that the model may have on the hub.

    revision : str or None
        Branch, tag or commit.

    cache : str or None, default=None
        Folder of the cache; None is that of the hub's library.

    Returns
    -------
    folder : str or None
        The folder.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        # Of a model whose configuration a library brings along, only the weights are there.
        for marker in ("modules.json", "config.json", "model.safetensors"):
            # Loaders know more forms of names than the cache does.
            with suppress(ValueError):
                path = try_to_load_from_cache(name, marker, cache_dir=cache, revision=revision)
                if isinstance(path, str):
                    return os.path.dirname(path)
    return None


def module_digest(module, encode_probe):
    """Give a digest of a module in memory.

    What can be described counts, and for what cannot, such as a hook around the call, what it makes of a fixed input.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    encode_probe : callable
        Called without arguments, gives the rows of the fixed input as an ndarray.

    Returns
    -------
    digest : bytes
        Digest.

    Raises
    ------
    Unidentifiable
        If the module holds what cannot be read, or gives other rows each time.
    """
    rows = _single_threaded(encode_probe)
    known = _tensor_digests.get(module)
    versions = _tensor_versions(module)
    if known is None or versions is None or known[0] != versions:
        if not np.array_equal(rows, _single_threaded(encode_probe), equal_nan=True):
            raise Unidentifiable("the module gives other numbers each time")
        known = versions, tensor_digest(module)
        _tensor_digests[module] = known
    return digest_of("module", known[1], describe_parts(module), rows.shape, rows.tobytes())


# Module -> (identities and versions of its tensors, digest of their values).
_tensor_digests = weakref.WeakKeyDictionary()


def _single_threaded(function):
    """Call a function on one thread of torch: other numbers of threads round otherwise."""
    import torch

    with divided_threads(torch.get_num_threads()) as divide:
        divide()
        return function()


def _tensor_versions(module):
    """Give what changes whenever torch writes to a tensor of the module, None if that is not tracked."""
    try:
        return [(name, id(x), x.data_ptr(), x._version) for name, x in tensors_of(module).items()]
    except (AttributeError, RuntimeError):
        return None
