"""Torch: devices and precision, threads, batches that fit into memory, and the models that a process holds.

Torch itself is imported only where it is needed.
"""

import functools
import importlib
import os
import sys
import threading
import weakref
from collections import OrderedDict
from contextlib import contextmanager

import numpy as np
from joblib import cpu_count

from .exceptions import first_line

_CPU_INFO = "/proc/cpuinfo"

# Where Linux shows accelerators that torch can use: NVIDIA's, the same under Windows' Linux, AMD's.
_ACCELERATORS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def imported(name):
    """Return a module if this process has imported it, else None; while another thread is importing it, this waits."""
    return importlib.import_module(name) if name in sys.modules else None


def resolve_device(device):
    """Turn the ``device`` parameter of an estimator into a torch device that works here.

    Parameters
    ----------
    device : str
        "auto" for the first of "cuda", "mps" and "cpu" that this machine has, or any device string
        that torch understands, such as "cuda:1".

    Returns
    -------
    device : torch.device
        The device; always with an index if it is a CUDA device, so that equal devices compare equal.

    Raises
    ------
    ValueError
        If torch does not know the device, or this machine does not have it.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        resolved = torch.device(device)
        if resolved.type == "cuda" and resolved.index is None and torch.cuda.is_available():
            resolved = torch.device("cuda", torch.cuda.current_device())
        # Only a real allocation tells whether a device works; "meta" takes any and computes nothing.
        usable = resolved.type != "meta"
        if resolved.type != "cpu":
            torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        usable, reason = False, f" ({first_line(error)})"
    else:
        reason = ""
    if not usable:
        raise ValueError(
            f"device={device!r} cannot be used here{reason}; available: {', '.join(_available_devices())}, or 'auto'."
        )
    return resolved


def _available_devices():
    import torch

    devices = [f"'cuda:{index}'" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*devices, *(["'mps'"] if torch.backends.mps.is_available() else []), "'cpu'"]


def resolve_precision(precision, device):
    """Turn the ``precision`` parameter of an estimator into a torch dtype.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16", "float16"}
        "auto" is half precision on CUDA (bfloat16 from compute capability 8.0, float16 from 7.0) and on CPUs with AMX.
        It is float32 everywhere else: emulated half precision is far slower, and with AVX512-BF16 alone bfloat16 is
        slower on some CPUs and faster on others (``benchmarks/precision.py``).

    device : torch.device
        Where the model runs.

    Returns
    -------
    dtype : torch.dtype
        The dtype for the weights.
    """
    import torch

    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if capability >= (8, 0) else torch.float16 if capability >= (7, 0) else torch.float32
    if device.type == "cpu" and _cpu_has_amx():
        return torch.bfloat16
    return torch.float32


def expected_place(device, precision):
    """Return the results of ``resolve_device`` and ``resolve_precision`` by name, without importing torch if possible.

    Parameters
    ----------
    device, precision : str
        Parameters of an estimator.

    Returns
    -------
    kind : str
        "cuda", "mps", "cpu", ...

    dtype : str
        Name of the precision.
    """
    is_cpu = device == "cpu" or (
        device == "auto"
        and "torch" not in sys.modules
        and sys.platform == "linux"
        and not any(os.path.exists(path) for path in _ACCELERATORS)
    )
    if is_cpu:
        auto = "bfloat16" if precision == "auto" and _cpu_has_amx() else "float32"
        return "cpu", auto if precision == "auto" else precision
    device = resolve_device(device)
    return device.type, str(resolve_precision(precision, device)).removeprefix("torch.")


@functools.lru_cache(maxsize=1)
def _cpu_has_amx():
    """Return whether Linux lists matrix units for bfloat16; elsewhere no CPU is known to have them."""
    try:
        with open(_CPU_INFO, encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "amx_bf16" in flags


def numeric_settings():
    """Return the settings of torch for the whole process that change results beyond rounding.

    Returns
    -------
    settings : tuple
        Default dtype, precision of float32 matrix products, use of TF32 in cuDNN, use of deterministic algorithms;
        torch's defaults if it has not been imported.
    """
    torch = imported("torch")
    if torch is None:
        return "torch.float32", "highest", True, False
    return (
        str(torch.get_default_dtype()),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
    )


def place_of(weights):
    """Return device and dtype of a tensor; those of plain torch for a module without weights."""
    import torch

    return (torch.device("cpu"), torch.float32) if weights is None else (weights.device, weights.dtype)


def place(x, device, dtype=None):
    """Copy a tensor to a device, and its floats to a dtype; to CUDA asynchronously."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, dtype if x.is_floating_point() else None, non_blocking=True)


# Calls that divide torch's threads at the moment, and the number of threads before the first of them.
_n_divisions, _n_undivided = 0, None
_divisions_lock = threading.Lock()


@contextmanager
def divided_threads():
    """Share torch's threads among workers, which are threads themselves.

    Yields
    ------
    divide : callable
        To be called in each worker with the number of workers. At the end the caller's number of threads is restored.
    """
    global _n_divisions, _n_undivided
    import torch

    with _divisions_lock:
        # New threads start with the number that was set last, which may be the share of a worker.
        if _n_divisions == 0:
            _n_undivided = torch.get_num_threads()
        _n_divisions += 1
        n_threads = _n_undivided

    def divide(n_workers):
        share = max(1, n_threads // n_workers)
        # Each call makes torch drop the kernels that it has prepared.
        if torch.get_num_threads() != share:
            torch.set_num_threads(share)

    try:
        yield divide
    finally:
        # The number that a worker sets is also the default of threads created later.
        torch.set_num_threads(n_threads)
        with _divisions_lock:
            _n_divisions -= 1


# The process in which a network ran on several threads of torch: its forked children lack these threads.
_ran_in = None


def note_run(n_threads=None):
    """Record that a network is about to run in this process, on a number of threads, by default torch's."""
    global _ran_in
    import torch

    check_not_forked()
    if (torch.get_num_threads() if n_threads is None else n_threads) > 1:
        _ran_in = os.getpid()


def check_not_forked():
    """Raise if this process was forked from one in which a network had run: torch would hang.

    Raises
    ------
    RuntimeError
        Names the alternatives.
    """
    if _ran_in is not None and _ran_in != os.getpid():
        raise RuntimeError(
            "This process was forked from one in which a network had already run, and torch hangs in such a process. "
            "Use joblib's default backend (loky), or encode everything before the fork with a store, so that the "
            "forked processes find it there."
        )


def available_cpus():
    """Return the number of threads that this process may keep busy: in joblib's workers their share of the cores."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = cpu_count()
    return min(cores, int(limit)) if limit.isdigit() and int(limit) else cores


_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error):
    """Return whether an exception says that a device, or the machine, ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    import torch

    is_typed = isinstance(error, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError))
    return is_typed or any(text in str(error).lower() for text in _OUT_OF_MEMORY_TEXTS)


def free_cached_memory():
    """Return memory that torch caches to the device, if torch is in use."""
    torch = imported("torch")
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


class BatchLimit:
    """How large a batch may be, learned from running out of memory. Threads may share one."""

    def __init__(self):
        self._lock = threading.Lock()
        self._cost = None

    @property
    def is_known(self):
        """Whether memory has run out before."""
        return self._cost is not None

    def rows(self, n_rows, cost):
        """Return how many of ``n_rows`` items of one cost to try at a time."""
        return max(1, min(n_rows, int(self._cost // cost))) if self.is_known else n_rows

    def lower(self, cost):
        """Record that more than ``cost`` in total does not fit."""
        with self._lock:
            self._cost = cost if self._cost is None else min(self._cost, cost)


_limits = weakref.WeakKeyDictionary()


_limits_lock = threading.Lock()


def batch_limit(network, device):
    """Return the limit of a network on a device; it is forgotten with the network, or by ``clear_models``.

    Parameters
    ----------
    network : object
        The network, or an object that represents it from one call to the next.

    device : torch.device
        Device on which it runs.

    Returns
    -------
    limit : BatchLimit
        The same object for every caller.
    """
    with _limits_lock:
        return _limits.setdefault(network, {}).setdefault(str(device), BatchLimit())


def forget_limits():
    """Forget all limits."""
    with _limits_lock:
        _limits.clear()


def run_with_backoff(function, batch, limit=None, cost=lambda: 1):
    """Apply a function to a batch, in smaller and smaller batches while memory runs out.

    Parameters
    ----------
    function : callable
        Maps a list of items to an ndarray with one row per item.

    batch : list
        Items, at least one.

    limit : BatchLimit or None, default=None
        Limit to start from and to update; None starts without one.

    cost : callable, default=lambda: 1
        Returns the share of the limit that each item takes, in any unit that stays the same from call to call.

    Returns
    -------
    rows : ndarray of shape (len(batch), ...)
        Results of the function, in the order of the items.

    Raises
    ------
    MemoryError
        If a single item does not fit. Every other error of the function is passed on unchanged.
    """
    limit = BatchLimit() if limit is None else limit
    start, results = 0, []
    note_run()
    while start < len(batch):
        attempt = batch[start : start + limit.rows(len(batch), cost())] if limit.is_known else batch[start:]
        try:
            results.append(function(attempt))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(attempt) == 1:
                raise MemoryError(
                    f"a single item does not fit into the device's memory ({first_line(error)}); "
                    'use a smaller model or shorter items, precision="bfloat16", or device="cpu".'
                ) from error
        else:
            start += len(attempt)
            continue
        # Outside of the handler: its traceback refers to the tensors of the attempt that failed.
        limit.lower((len(attempt) + 1) // 2 * cost())
        free_cached_memory()
    return results[0] if len(results) == 1 else np.concatenate(results)


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
