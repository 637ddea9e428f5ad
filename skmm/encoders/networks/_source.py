"""Where the weights of a named model come from: a folder, an installed package or the hub."""

import dataclasses
import importlib.util
import json
import os
from contextlib import contextmanager, suppress

from ..._warnings import warn
from ...store import Unidentifiable, digest_of, file_digests, file_signature, minor_versions

# Files of a checkpoint that no loader reads: documentation, and weights in the formats of other frameworks.
_IGNORED_EXTENSIONS = (
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

# Extensions of files with weights, of which a checkpoint has at least one.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")

# The file by which libraries recognise an adapter; it names the checkpoint that the adapter changes.
_ADAPTER = "adapter_config.json"

# Folders of packages that have been found: searching for one takes longer than reading rows from a store.
_package_folders = {}


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A named model: which library loads it, and from which files. Found once per call.

    Parameters
    ----------
    name : str
        Path or name as the user wrote it.

    loader : {"sentence-transformers", "timm", "transformers-audio", "transformers-video"}
        What loads the model.

    folder : str or None
        Folder with its files; None for a model on the hub that has not been downloaded.

    is_local : bool
        Whether the folder was given as a path or belongs to an installed package; else it is part of the hub's cache.

    hub_names : tuple of str
        Names that the model may have on the hub.

    revision : str or None
        Branch, tag or commit on the hub.

    cache : str or None
        Folder of the hub's cache; None is that of the hub's library.

    Attributes
    ----------
    location : str
        What loaders take: the folder of a local model, else the name on the hub.

    files : tuple or None
        Names and signatures of the files, of the bases of adapters as well; None where some are not there yet.
    """

    name: str
    loader: str
    folder: str | None
    is_local: bool
    hub_names: tuple = ()
    revision: str | None = None
    cache: str | None = None
    location: str = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "location", self.folder if self.is_local else self.name)

    def __getattr__(self, name):
        """Find the files when they are first asked for; ``functools.cached_property`` has one lock for all sources."""
        if name != "files":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        paths = None if self.folder is None else _paths_of(os.path.realpath(self.folder), self.cache)
        # The cache of the hub may hold the configuration alone.
        is_complete = paths is not None and (self.is_local or any(name.endswith(_WEIGHTS) for name in paths))
        files = tuple(zip(paths, map(file_signature, paths.values()), strict=True)) if is_complete else None
        object.__setattr__(self, "files", files)
        return files

    def identity(self, store):
        """Return a digest of the contents of all files, wherever they lie; None if some are not there yet.

        Parameters
        ----------
        store : EmbeddingStore
            Remembers the digests of files.

        Raises
        ------
        Unidentifiable
            If a file cannot be read.
        """
        if self.files is None:
            return None
        names, signatures = zip(*self.files, strict=True) if self.files else ((), ())
        digests = file_digests(signatures, store, whole=True)
        if None in digests:
            raise Unidentifiable(f"{names[digests.index(None)]!r} cannot be read")
        versions = minor_versions(["peft"] if _ADAPTER in map(os.path.basename, names) else [])
        return digest_of("files", list(zip(names, digests, strict=True)), versions)


def find_local_folder(model, owner):
    """Return the folder that a path names; None for a name on the hub.

    Parameters
    ----------
    model : str or path-like
        Path or name.

    owner : str
        Name of the estimator, for the error message.

    Raises
    ------
    OSError
        If it is a path, and there is no such folder.
    """
    name = os.fspath(model)
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):
        return os.path.realpath(folder)
    looks_like_path = (
        name.startswith((".", "~")) or os.path.isabs(name) or name.count("/") > 1 or "\\" in name
    ) and not name.startswith(("hf-hub:", "hf_hub:"))
    if looks_like_path or not isinstance(model, str) or os.path.exists(folder):
        problem = "is a file" if os.path.exists(folder) else "does not exist"
        raise OSError(
            f"{owner}: the model folder {name!r} {problem} (seen from {os.getcwd()!r}); pass the folder of a "
            "checkpoint, with its config.json or modules.json, or the name of a model on the hub."
        )
    return None


def package_folder(module, subfolder):
    """Return a folder inside an installed package, which is not imported; None if there is none."""
    if module not in _package_folders:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return None
        _package_folders[module] = os.path.dirname(spec.origin)
    folder = os.path.join(_package_folders[module], subfolder)
    return folder if os.path.isdir(folder) else None


def _paths_of(folder, cache, outer=()):
    """Return the paths of the files that loaders read, by name, and those of the bases of adapters; None if one lacks.

    A checkpoint that is its own base is read once.
    """
    if folder in outer:
        return {}
    names = [name for name in _file_names(folder) if _is_read(name)]
    paths = {name: os.path.join(folder, name) for name in names}
    for number, base in enumerate(_bases_of(folder, names, cache)):
        base_paths = None if base is None else _paths_of(os.path.realpath(base), cache, (*outer, folder))
        if base_paths is None:
            return None
        paths |= {os.path.join(f"base {number}", name): path for name, path in base_paths.items()}
    return paths


def _file_names(folder):
    """Return the sorted names of the files below a folder, a real path; folders that are links are followed."""
    names, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = folder if parent == folder else os.path.realpath(parent)
        # A link to a folder above would lead around in a circle.
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        seen.add(real)
        inside = "" if parent == folder else os.path.relpath(parent, folder)
        names += [os.path.join(inside, name) for name in files]
    return sorted(names)


def _is_read(name):
    *folders, file = name.split(os.sep)
    is_ignored = file.startswith(".") or file.lower().endswith(_IGNORED_EXTENSIONS)
    return not is_ignored and not any(folder in _IGNORED_FOLDERS for folder in folders)


def _bases_of(folder, names, cache):
    """Return the folders of the bases of the adapters among the files of a checkpoint; None for one that lacks."""
    paths = [os.path.join(folder, name) for name in names if os.path.basename(name) == _ADAPTER]
    bases = [_read_json(path).get("base_model_name_or_path") for path in paths]
    bases = [os.path.expanduser(base) for base in bases if isinstance(base, str) and base]
    return [base if os.path.isdir(base) else cached_snapshot([base], None, cache) for base in bases]


def _read_json(path):
    """Read a JSON object; anything else is for the loader to refuse."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def cached_snapshot(hub_names, revision, cache=None):
    """Return the folder of the hub's local cache with a model's files, None if it is not there.

    Parameters
    ----------
    hub_names : list of str
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
    for name in hub_names:
        # Some libraries bring the configuration of a model, so that only its weights are in the cache.
        for marker in ("modules.json", "config.json", _ADAPTER, "model.safetensors"):
            path = cached_file(name, marker, revision, cache)
            if path is not None:
                return os.path.dirname(path)
    return None


def cached_file(name, file, revision, cache=None):
    """Return the path of a file of a model in the hub's local cache, None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    # Loaders accept more forms of names than the cache does.
    with suppress(ValueError):
        path = try_to_load_from_cache(name, file, cache_dir=cache, revision=revision)
        return path if isinstance(path, str) else None
    return None


def load_from_hub(source, load, marker):
    """Load a model from the local cache if it is there, else from the hub.

    Parameters
    ----------
    source : ModelSource
        The model.

    load : callable
        Takes ``local_files_only`` and returns the model.

    marker : str
        File without which a model in the cache may be incomplete without the loader noticing.

    Returns
    -------
    model : object
        Result of ``load``.
    """
    if any(cached_file(name, marker, source.revision, source.cache) for name in source.hub_names):
        # An error here is an incomplete download, to be completed.
        with suppress(OSError, ValueError):
            return load(local_files_only=True)
    try:
        check_hub_answers(source)
    except Exception:
        if source.folder is None:
            raise
        model = load(local_files_only=True)
        warn(
            f"The model {source.name!r} was loaded from the local cache, which has no {marker!r} of it, while the hub "
            "cannot be asked whether there is one. If the model was downloaded as a whole, all is well."
        )
        return model
    return load(local_files_only=False)


def check_hub_answers(source):
    """Raise an error if the hub cannot be asked for a model.

    That is one request: the library itself tries for more than a minute to reach a network that is not there. An error
    status is an answer too: the loader may try other names, and has the better message if it finds none.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with suppress(HfHubHTTPError):
        HfApi().model_info(source.hub_names[0], revision=source.revision, timeout=10)


@contextmanager
def without_progress_bar():
    """Keep transformers from showing its own progress bars while a model loads."""
    from transformers.utils import logging

    shows_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows_bar:
            logging.enable_progress_bar()
