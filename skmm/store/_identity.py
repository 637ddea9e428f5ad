"""What decides the numbers an encoder gives, as a digest: only encoders with the same one share entries of a store."""

import functools
import hashlib
import importlib.metadata
import os
import sys
import weakref

import numpy as np

from .._checkpoints import bases_of, checkpoint_files
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


def folder_digest(folder, store, cache=None, outer=()):
    """Give a digest of the files of a checkpoint, whatever the folder is called, and of the bases of adapters.

    Parameters
    ----------
    folder : str
        Folder.

    store : EmbeddingStore
        What remembers the digests of files.

    cache : str or None, default=None
        Folder of the hub's local cache, in which bases may be; None is that of the hub's library.

    outer : tuple of str, default=()
        Folders of which this one is the base.

    Returns
    -------
    digest : bytes or None
        Digest of names and contents; None if the base of an adapter is not here, or not yet.

    Raises
    ------
    Unidentifiable
        If a file cannot be read.
    """
    folder = os.path.realpath(folder)
    if folder in outer:
        return digest_of("again", outer.index(folder))
    found = checkpoint_files(folder)
    names = [name for name in found if _is_read(name)]
    paths = [os.path.join(folder, name) for name in names]
    digests = FileDigests(store).of(paths)
    if None in digests:
        raise Unidentifiable(f"{paths[digests.index(None)]!r} cannot be read")
    bases = bases_of(folder, found, cache)
    adapted = [None if base is None else folder_digest(base, store, cache, (*outer, folder)) for base in bases]
    if None in adapted:
        return None
    versions = [minor_version("peft")] * bool(adapted)
    return digest_of("files", list(zip(names, digests, strict=True)), *versions, *adapted)


def _is_read(name):
    *folders, file = name.split(os.sep)
    is_ignored = file.startswith(".") or file.lower().endswith(_IGNORED_ENDINGS)
    return not is_ignored and not any(folder in _IGNORED_FOLDERS for folder in folders)


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
    digest = digest_of("module", _known_tensor_digest(module), describe_parts(module), rows.shape, rows.tobytes())
    if digest not in _steady:
        if not np.array_equal(rows, _single_threaded(encode_probe), equal_nan=True):
            raise Unidentifiable("the module gives other numbers each time")
        _steady.add(digest)
    return digest


# Digests of modules that gave the same numbers twice. Workers get a module anew with each task.
_steady = set()

# Module -> (what changes with its tensors, digest of their values).
_tensor_digests = weakref.WeakKeyDictionary()


def _known_tensor_digest(module):
    """Give the digest of a module's tensors, computed only where they have changed."""
    versions = _tensor_versions(module)
    known = _tensor_digests.get(module)
    if versions is None or known is None or known[0] != versions:
        known = _tensor_digests[module] = versions, tensor_digest(module)
    return known[1]


def _single_threaded(function):
    """Call a function on one thread of torch: other numbers of threads round otherwise."""
    with divided_threads() as divide:
        divide(sys.maxsize)
        return function()


def _tensor_versions(module):
    """Give what changes whenever a tensor of the module is written to, None if that cannot be seen."""
    try:
        tensors = tensors_of(module).items()
        # Who writes through ``data`` goes past torch's own count of versions.
        return [(name, id(x), x.data_ptr(), x._version, _sum_of_bits(x)) for name, x in tensors]
    except (AttributeError, NotImplementedError, RuntimeError):
        return None


def _sum_of_bits(x):
    import torch

    # Where integers of 64 bits fit in, their sum is as fast as memory.
    n_bytes = x.numel() * x.element_size()
    kind = torch.int64 if n_bytes % 8 == 0 and x.data_ptr() % 8 == 0 else torch.uint8
    return x.detach().contiguous().reshape(-1).view(kind).sum().item()
