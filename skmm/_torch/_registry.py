"""The models that a process keeps: one copy of each, shared by threads, bounded in number and in memory."""

import threading
from collections import OrderedDict

from ._batches import forget_limits
from ._memory import free_cached_memory, free_memory, is_out_of_memory

# Enough for one model per modality in two variants.
MAX_MODELS = 8

# Share that the models kept on a device have, at most, of the memory that would be free without them.
_SHARE = 1 / 2


class _Entry:
    """A place for one model, with the lock under which it is loaded."""

    def __init__(self):
        self.lock = threading.Lock()
        self.is_loaded = False
        self.model = None

    @property
    def device(self):
        return getattr(self.model, "device", None)


# The least recently used first.
_entries = OrderedDict()
_entries_lock = threading.Lock()


def get_model(key, load):
    """Get the model of a key, loading it if this process does not hold it yet.

    Threads that ask for the same key at the same time load it once; a load that fails leaves nothing
    behind, so the next call tries again. At most ``MAX_MODELS`` models stay in memory, and those of a device take no
    more than half of what would be free there without them. The least recently used one goes first, and never the one
    just loaded; whoever still works with a model keeps it alive. Where one does not fit beside the others, all of them
    go.

    Parameters
    ----------
    key : hashable
        All that decides what the model computes: content, revision, device, dtype.

    load : callable
        Called without arguments, gives the model. Models that count by their size have the attributes ``network``, a
        module, and ``device``.

    Returns
    -------
    model : object
        What ``load`` gave, the same object for every caller.
    """
    with _entries_lock:
        entry = _entries.setdefault(key, _Entry())
        _entries.move_to_end(key)
        while len(_entries) > MAX_MODELS:
            _entries.popitem(last=False)
    with entry.lock:
        if not entry.is_loaded:
            try:
                entry.model = _load_alone_if_need_be(load)
            except BaseException:
                with _entries_lock:
                    if _entries.get(key) is entry:
                        del _entries[key]
                raise
            entry.is_loaded = True
            _make_room_beside(entry)
        return entry.model


def _load_alone_if_need_be(load):
    try:
        return load()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside of the handler: its traceback holds what was loaded so far.
    with _entries_lock:
        for key in [key for key, entry in _entries.items() if entry.is_loaded]:
            del _entries[key]
    free_cached_memory()
    return load()


def _make_room_beside(newest):
    """Let go of the least recently used models where those of one device take too much of its memory."""
    free = None if newest.device is None else free_memory(newest.device)
    if free is None:
        return
    with _entries_lock:
        older = [(key, entry) for key, entry in _entries.items() if entry is not newest]
        older = [(key, entry) for key, entry in older if entry.device == newest.device]

        def taken():
            return _bytes_of([newest, *(entry for _, entry in older)])

        room = _SHARE * (free + taken())
        while older and taken() > room:
            del _entries[older.pop(0)[0]]


def _bytes_of(entries):
    """Give what the weights of models take; those that several share count once."""
    networks = [entry.model.network for entry in entries]
    return sum({id(x): x.nbytes for network in networks for x in (*network.parameters(), *network.buffers())}.values())


def move_model(key, new_key):
    """Keep the model of a key under another one, unless that has a model already."""
    with _entries_lock:
        entry = _entries.pop(key, None)
        if entry is not None:
            _entries.setdefault(new_key, entry)


def clear_models():
    """Let go of all models that encoders keep in this process.

    Encoders stay usable: they load their model again when they next need it. What was learned about batches
    that do not fit into memory is forgotten as well. Memory is free once no
    running ``transform`` uses the models any more.

    Without a call the least recently used models go when a process holds more than eight, or when those on a
    device take more memory than is left free there. Where the free memory is not known, as on a CPU under macOS
    or Windows, only their number counts.

    Examples
    --------
    >>> from skmm.encoders import clear_models
    >>> clear_models()
    """
    with _entries_lock:
        _entries.clear()
    forget_limits()
    free_cached_memory()
