"""The models that a process holds: one copy of each, shared by threads and bounded in number."""

import threading
from collections import OrderedDict

from ._batches import forget_limits, free_cached_memory, is_out_of_memory

# Enough for one model per modality in two variants.
MAX_MODELS = 8


class _Entry:
    """A place for one model, with the lock under which it is loaded."""

    def __init__(self):
        self.lock = threading.Lock()
        self.is_loaded = False
        self.model = None


# The least recently used first.
_entries = OrderedDict()
_entries_lock = threading.Lock()


def get_model(key, load):
    """Return the model of a key, loaded if this process does not hold it yet.

    Threads that ask for the same key at the same time load it once. A load that fails leaves nothing behind, so the
    next call tries again. At most ``MAX_MODELS`` models stay in memory, and the least recently used one is dropped
    first; whoever still works with a model keeps it alive. If a model does not fit beside the others, all of them
    are dropped and loading is tried once more.

    Parameters
    ----------
    key : hashable
        Everything that decides what the model computes: files, revision, device, dtype.

    load : callable
        Called without arguments, returns the model.

    Returns
    -------
    model : object
        Result of ``load``, the same object for every caller.
    """
    with _entries_lock:
        entry = _entries.setdefault(key, _Entry())
        _entries.move_to_end(key)
        while len(_entries) > MAX_MODELS:
            _entries.popitem(last=False)
    # Checked without the lock as well: a model that is loaded stays so.
    if entry.is_loaded:
        return entry.model
    with entry.lock:
        if not entry.is_loaded:
            try:
                entry.model = _load_alone_if_necessary(load)
            except BaseException:
                with _entries_lock:
                    if _entries.get(key) is entry:
                        del _entries[key]
                raise
            entry.is_loaded = True
        return entry.model


def _load_alone_if_necessary(load):
    try:
        return load()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside of the handler: its traceback refers to everything loaded so far.
    with _entries_lock:
        for key in [key for key, entry in _entries.items() if entry.is_loaded]:
            del _entries[key]
    free_cached_memory()
    return load()


def rename_model(key, new_key):
    """Move the model of a key to another key, unless that one has a model already."""
    with _entries_lock:
        entry = _entries.pop(key, None)
        if entry is not None:
            _entries.setdefault(new_key, entry)


def clear_models() -> None:
    """Drop all models that encoders hold in this process.

    Encoders stay usable: they load their model again when they next need it. Batch sizes that were learned from running
    out of memory are forgotten as well. Memory is free once no running ``transform`` uses the models any more.

    Without a call, the least recently used model is dropped when a process holds more than eight.

    Examples
    --------
    >>> from skmm.encoders import clear_models
    >>> clear_models()
    """
    with _entries_lock:
        _entries.clear()
    forget_limits()
    free_cached_memory()
