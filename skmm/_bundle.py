"""A fitted estimator and the checkpoints of its encoders in one folder, for machines without a network."""

import importlib.metadata
import json
import os
import pickle
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._optional import import_optional_dependency
from ._skops import get_trusted_types
from ._typing import PathType
from ._warnings import warn
from .encoders import ModelEncoder
from .neural_network import AudioBranch, ImageBranch, TextBranch, VideoBranch

# What a model that lies in the bundle is called in the file of the estimator.
_SCHEME = "bundle:"
_ESTIMATOR, _MODELS, _VERSIONS = "estimator.skops", "models", "versions.json"
_LIBRARIES = (
    "skmm",
    "scikit-learn",
    "numpy",
    "torch",
    "sentence-transformers",
    "transformers",
    "timm",
    "skrub",
    "skops",
)
# Files that a loader would have to unpickle, or run.
_UNSAFE = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".py")
_CONFIGURATIONS = ("config.json", "modules.json")


def save_bundle(path: PathType, estimator: Any) -> None:
    """Write a fitted estimator with the checkpoints of its encoders into a folder.

    The folder can be moved, and be loaded by :func:`load_bundle` on a machine without a network. It holds the
    estimator in skops' format, each checkpoint once (configuration, tokeniser, weights in safetensors format), and the
    versions of the libraries. Of a tuned encoder it holds the changes, beside the checkpoint that they change.

    Parameters
    ----------
    path : str or path-like
        Folder to write, which must not exist.

    estimator : estimator
        Fitted estimator of skmm, or a pipeline or search with some.

    Raises
    ------
    FileExistsError
        If the folder exists.

    ValueError
        If an encoder's model is a module in memory, an adapter, or has no weights in safetensors format; if
        a branch of a network has a pretrained model; or if skops cannot write the estimator.

    See Also
    --------
    load_bundle : Loads the folder.
    get_trusted_types : What a file of an estimator may hold.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skmm import ModalityFuser, load_bundle, save_bundle
    >>> X = pd.DataFrame({"size": [1.0, 2.0, 7.0, 8.0], "colour": ["red", "green", "red", "green"]})
    >>> model = make_pipeline(ModalityFuser(), LogisticRegression()).fit(X, [0, 0, 1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_bundle(f"{folder}/model", model)
    ...     load_bundle(f"{folder}/model").predict(X).tolist()
    [0, 0, 1, 1]
    """
    sio = import_optional_dependency("skops.io", "bundle")
    folder = Path(path)
    if folder.exists():
        raise FileExistsError(f"save_bundle writes a new folder, and {os.fspath(folder)!r} exists; choose another.")
    # Of its own pickle: small, since named models are not in it, and free to be changed.
    copy = pickle.loads(pickle.dumps(estimator))
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    try:
        places = {}
        for encoder in _find(copy, ModelEncoder):
            source = _source_of(encoder)
            if source.folder not in places:
                places[source.folder] = f"{_MODELS}/{len(places)}"
                _copy_checkpoint(source, unfinished / places[source.folder], type(encoder).__name__)
            encoder.model, encoder.revision = _SCHEME + places[source.folder], None
        _check_branches(copy)
        try:
            sio.dump(copy, unfinished / _ESTIMATOR)
        except Exception as error:
            # As of a retriever, whose items are no data of skops.
            way = "; its own method save writes it" if hasattr(estimator, "save") else ""
            raise ValueError(f"save_bundle: skops cannot write this estimator ({error}){way}.") from error
        (unfinished / _VERSIONS).write_text(json.dumps(_versions(), indent=1), encoding="utf-8")
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def load_bundle(path: PathType, *, trusted: Sequence[str] = ()) -> Any:
    """Load a fitted estimator from a folder that :func:`save_bundle` wrote.

    Nothing in the folder is executed: skops builds objects of listed types only, and weights are in safetensors format.

    Parameters
    ----------
    path : str or path-like
        The folder, wherever it lies now.

    trusted : sequence of str, default=()
        Dotted paths of types to trust beside those of :func:`get_trusted_types`, such as your own transformers.

    Returns
    -------
    estimator : estimator
        The fitted estimator.

    Raises
    ------
    FileNotFoundError
        If the folder is no bundle.

    TypeError
        If the estimator holds a type that is not trusted; the message of skops names it.

    Warns
    -----
    UserWarning
        If scikit-learn or skmm has another minor version than when the bundle was written.

    See Also
    --------
    save_bundle : Writes the folder, with an example.

    Examples
    --------
    >>> from skmm import load_bundle
    >>> load_bundle("no such folder")
    Traceback (most recent call last):
    ...
    FileNotFoundError: 'no such folder' is no bundle: it has no file 'estimator.skops'; save_bundle writes one.
    """
    folder = Path(path)
    if not (folder / _ESTIMATOR).is_file():
        raise FileNotFoundError(
            f"{os.fspath(folder)!r} is no bundle: it has no file {_ESTIMATOR!r}; save_bundle writes one."
        )
    sio = import_optional_dependency("skops.io", "bundle")
    _warn_of_versions(json.loads((folder / _VERSIONS).read_text(encoding="utf-8")))
    estimator = sio.load(folder / _ESTIMATOR, trusted=[*get_trusted_types(), *trusted])
    for encoder in _find(estimator, ModelEncoder):
        if isinstance(encoder.model, str) and encoder.model.startswith(_SCHEME):
            place = (folder / encoder.model.removeprefix(_SCHEME)).resolve()
            if folder.resolve() not in place.parents:
                raise ValueError(f"The bundle names the model {encoder.model!r}, which is outside of it.")
            encoder.model = str(place)
    return estimator


def _find(value, kind, seen=None):
    """Yield the objects of some kind in an estimator: its parameters, fitted attributes, lists and dicts."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, (str, bytes, np.ndarray, type)) or np.isscalar(value):
        return
    seen.add(id(value))
    if isinstance(value, kind):
        yield value
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, (list, tuple, set)):
        inner = value
    else:
        inner = getattr(value, "__dict__", {}).values()
    for each in list(inner):
        yield from _find(each, kind, seen)


def _source_of(encoder):
    """Return the source of an encoder's model; raise unless its checkpoint is on this machine."""
    name = type(encoder).__name__
    source = encoder._find_source()
    if source is None:
        raise ValueError(
            f"save_bundle: the model of {name} is a module in memory; save it as a checkpoint, and pass its folder."
        )
    if source.folder is None or source.files is None:
        raise ValueError(
            f"save_bundle: the files of {name}'s model {source.name!r} are not on this machine; encode once."
        )
    return source


def _copy_checkpoint(source, target, owner):
    """Copy the files of a checkpoint that are read without unpickling."""
    names = [name for name, _ in source.files]
    if any(os.path.basename(name) == "adapter_config.json" for name in names):
        raise ValueError(f"save_bundle: {owner}'s model {source.name!r} is an adapter; merge it into its base first.")
    safe = [name for name in names if not name.lower().endswith(_UNSAFE)]
    if not any(name.endswith(".safetensors") for name in safe):
        raise ValueError(
            f"save_bundle: {owner}'s model {source.name!r} has no weights in safetensors format, which load without "
            "running anything; convert them, or choose another revision."
        )
    if not any(name in _CONFIGURATIONS for name in safe):
        raise ValueError(
            f"save_bundle: the folder of {owner}'s model {source.name!r} has no {' or '.join(_CONFIGURATIONS)}; write "
            "its name with that of its hub, as in 'timm/resnet18.a1_in1k'."
        )
    for name in safe:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(os.path.join(source.folder, name), target / name)


def _check_branches(estimator):
    """Raise if a branch of a network has a pretrained model, whose files it reads when it predicts."""
    for branch in _find(estimator, (AudioBranch, ImageBranch, TextBranch, VideoBranch)):
        if branch.model is not None:
            raise ValueError(
                f"save_bundle: {type(branch).__name__} has the pretrained model {branch.model!r}, which bundles do not "
                "hold; use pickle."
            )


def _versions():
    """Return the versions of the libraries that decide what an estimator does."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _warn_of_versions(written):
    """Warn if a library whose attributes are in the file has another minor version."""
    present = _versions()
    others = [
        f"{library} {written[library]} (here {present.get(library)})"
        for library in ("scikit-learn", "skmm")
        if library in written and written[library].split(".")[:2] != present.get(library, "").split(".")[:2]
    ]
    if others:
        warn(f"The bundle was written with {' and '.join(others)}; its estimator may not work, or predict otherwise.")
