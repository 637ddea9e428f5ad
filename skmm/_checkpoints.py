"""Checkpoints of pretrained networks: folders, packages and the hub."""

import importlib.metadata
import importlib.util
import json
import os
from contextlib import suppress

# The file by which libraries know an adapter, which names the checkpoint that it changes.
_ADAPTER = "adapter_config.json"


def checkpoint_files(folder):
    """Give the names of the files below a folder, within it and sorted; folders that are links are looked into."""
    names, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        where = os.path.realpath(parent)
        # A link to a folder above goes round for ever.
        folders[:] = [] if where in seen else sorted(name for name in folders if not name.startswith("."))
        seen.add(where)
        inside = "" if parent == folder else os.path.relpath(parent, folder)
        names += [os.path.join(inside, name) for name in files]
    return sorted(names)


def bases_of(folder, names, cache=None):
    """Give the folders of the bases of the adapters among the files of a checkpoint.

    Parameters
    ----------
    folder : str
        Folder of the checkpoint.

    names : list of str
        Its files, from ``checkpoint_files``.

    cache : str or None, default=None
        Folder of the hub's local cache; None is that of the hub's library.

    Returns
    -------
    folders : list of str or None
        None for a base that is not here, or not yet.
    """
    files = [os.path.join(folder, name) for name in names if os.path.basename(name) == _ADAPTER]
    given = [_read_adapter(path).get("base_model_name_or_path") for path in files]
    bases = [os.path.expanduser(base) for base in given if isinstance(base, str) and base]
    return [base if os.path.isdir(base) else cached_snapshot([base], None, cache) for base in bases]


def _read_adapter(path):
    """Read the configuration of an adapter; what is damaged is for the loader to refuse."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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
        for marker in ("modules.json", "config.json", _ADAPTER, "model.safetensors"):
            # Loaders know more forms of names than the cache does.
            with suppress(ValueError):
                path = try_to_load_from_cache(name, marker, cache_dir=cache, revision=revision)
                if isinstance(path, str):
                    return os.path.dirname(path)
    return None


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
