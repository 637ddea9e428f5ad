"""Where the networks of encoders come from: folders, packages, the hub, modules in memory."""

import copy
import importlib.util
import os
from contextlib import contextmanager, suppress

from ...store._identity import bases_of, checkpoint_files


def looks_like_path(name):
    """Tell whether the name of a model is that of a folder, and cannot be one of the hub."""
    return name.startswith((".", "~")) or os.path.isabs(name) or name.count("/") > 1 or "\\" in name


# Name -> folder, of packages that were found: looking for one takes longer than a store does for its rows.
_package_folders = {}


def package_folder(name):
    """Give the folder of an installed package, which is not imported; None if there is none."""
    if name not in _package_folders:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return None
        _package_folders[name] = os.path.dirname(spec.origin)
    return _package_folders[name]


def folder_signature(folder, cache=None, outer=()):
    """Give what tells the files below a folder, and the bases of adapters: it changes when a model is replaced."""
    where = os.path.realpath(folder)
    if where in outer or not os.path.isdir(where):
        return where
    names = checkpoint_files(folder)
    found = [(name, os.stat(os.path.join(folder, name))) for name in names]
    bases = (base and folder_signature(base, cache, (*outer, where)) for base in bases_of(folder, names, cache))
    return *((name, f.st_ino, f.st_size, f.st_mtime_ns, f.st_ctime_ns) for name, f in found), *bases


def place_of(weights):
    """Give device and dtype of a tensor; those of plain torch for a module without weights."""
    import torch

    return (torch.device("cpu"), torch.float32) if weights is None else (weights.device, weights.dtype)


def ready_module(module, device, dtype, compiled=False):
    """Give the module itself if it is in eval mode where and as it should run, else a copy that is; compiled if asked.

    torch recognises the code that it has compiled before, also in a copy.
    """
    tensors = [*module.parameters(), *module.buffers()]
    fits = all(x.device == device and (x.dtype == dtype or not x.is_floating_point()) for x in tensors)
    if not fits or any(part.training for part in module.modules()):
        module = copy.deepcopy(module).to(device, dtype).eval()
    if not compiled:
        return module
    import torch

    return torch.compile(module, dynamic=True)


def load_from_hub(names, revision, load, marker, cache=None):
    """Load from the local cache if the model is there, else from the hub if that answers at all.

    Parameters
    ----------
    names : list of str
        Names that the loader tries for the model, its own first.

    revision : str or None
        Branch, tag or commit.

    load : callable
        Takes ``local_files_only`` and gives the model.

    marker : str
        File without which a model in the cache is incomplete in a way that the loader would not notice.

    cache : str or None, default=None
        Folder of the cache; None is that of the hub's library.

    Returns
    -------
    model : object
        What ``load`` gave.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    if any(try_to_load_from_cache(name, marker, cache_dir=cache, revision=revision) for name in names):
        # An error here is an incomplete download, to be completed.
        with suppress(OSError, ValueError):
            return load(local_files_only=True)
    # One request: left to itself the library tries for more than a minute to reach a network that is not there.
    # An error status is an answer too: the loader may know other names, and has the better message if not.
    with suppress(HfHubHTTPError):
        HfApi().model_info(names[0], revision=revision, timeout=10)
    return load(local_files_only=False)


@contextmanager
def without_progress_bar():
    """Keep transformers from showing bars of its own while a model loads."""
    from transformers.utils import logging

    shows_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows_bar:
            logging.enable_progress_bar()
