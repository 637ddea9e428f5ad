"""What the names of models mean to timm; what it said once is kept, so that few have to import it again."""

import importlib.metadata
import json
import os
import sys

from ..._optional import imported
from ...store import describe, digest_of, find_store, library_version

# (folder of a store, short name) of what that store has been told, or asked for, in this process -> answer.
_known = {}


def is_timm(source, is_folder, store):
    """Tell whether a folder or a hub name is a model of timm; everything else is for sentence-transformers.

    Parameters
    ----------
    source : str
        Folder, or name of a model.

    is_folder : bool
        Which of these.

    store : EmbeddingStore or None
        Where it is kept what timm says of short names.
    """
    if is_folder:
        return _architecture(source) is not None
    if source.startswith(("timm/", "hf-hub:", "hf_hub:")):
        return True
    return "/" not in source and _short_name(source, store)["is_model"]


def _architecture(folder):
    """Give the name of timm's that the files of a checkpoint in its format tell, None for all others."""
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            return json.load(file).get("architecture")
    except (OSError, ValueError, AttributeError):
        return None


def without_scheme(source):
    """Give a name without what tells timm that it is one on the hub."""
    return source.removeprefix("hf-hub:").removeprefix("hf_hub:")


def timm_names(source, store):
    """Give the names that a model of timm has on the hub: one, or none that timm knows of."""
    name = without_scheme(source)
    return [name] if "/" in name else _short_name(name, store)["names"]


def _short_name(name, store):
    store = find_store(store)
    place = None if store is None else (store.path, name)
    if "timm" not in sys.modules and place is not None and place not in _known:
        _known[place] = store.get_fact(_fact_key(name))
    if "timm" not in sys.modules and _known.get(place) is not None:
        return _known[place]
    answer = _ask_timm(name)
    # Names that the user taught timm in this process mean nothing to others.
    if place is not None and _known.get(place) != answer and users_code(None, name) is None:
        if store.get_fact(_fact_key(name)) != answer:
            store.put_fact(_fact_key(name), answer)
        _known[place] = answer
    return answer


def _fact_key(name):
    return digest_of("short name of timm", name, importlib.metadata.version("timm"))


def _ask_timm(name):
    import timm

    found = timm.get_pretrained_cfg(name)
    names = [found.hf_hub_id] if found is not None and found.hf_hub_id else []
    return {"is_model": timm.is_model(name.partition(".")[0]), "names": names}


def users_code(folder, name):
    """Describe the function that makes a network if the user gave it to timm, under a name of a model; None if not.

    Parameters
    ----------
    folder : str or None
        Folder with the files of the model.

    name : str or None
        Short name of the model.
    """
    timm = imported("timm")
    architecture = name.partition(".")[0] if name is not None else folder and _architecture(folder)
    if timm is None or not architecture or not timm.is_model(architecture):
        return None
    make = timm.models.model_entrypoint(architecture)
    return describe(make) if library_version(make.__module__) is None else None
