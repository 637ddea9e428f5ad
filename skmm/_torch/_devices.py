"""What every torch model needs around it: device, precision, batches that fit.

torch is imported inside the functions only, so this module costs nothing to import.
"""

import functools
import os
import sys
import threading
import weakref
from contextlib import contextmanager

from .._optional import imported

_CPU_INFO = "/proc/cpuinfo"

# Where Linux shows accelerators that torch can use: NVIDIA's, the same under Windows' Linux, AMD's.
_ACCELERATORS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")

_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


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
        "auto" is half precision only where the hardware computes it natively: on CUDA bfloat16 from
        compute capability 8.0 and float16 from 7.0, on CPUs with AVX512-BF16 or AMX bfloat16. It is
        float32 everywhere else, since emulated half precision is far slower.

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
    if device.type == "cpu" and _cpu_computes_bfloat16():
        return torch.bfloat16
    return torch.float32


def expected_place(device, precision):
    """Tell what ``resolve_device`` and ``resolve_precision`` give, importing torch only where it takes torch to know.

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
        auto = "bfloat16" if precision == "auto" and _cpu_computes_bfloat16() else "float32"
        return "cpu", auto if precision == "auto" else precision
    device = resolve_device(device)
    return device.type, str(resolve_precision(precision, device)).removeprefix("torch.")


def place(x, device, dtype=None):
    """Copy a tensor to a device, and its floats to a dtype; to CUDA while the caller goes on."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, dtype if x.is_floating_point() else None, non_blocking=True)


@functools.lru_cache(maxsize=1)
def _cpu_computes_bfloat16():
    if "torch" not in sys.modules and os.path.exists(_CPU_INFO):
        # What torch would find out, without the seconds that importing it takes.
        return _kernel_lists_bfloat16()
    import torch

    # Private in torch, and absent from its older versions: whatever is missing is read from the kernel's list.
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if all(checks):
        return any(check() for check in checks)
    return _kernel_lists_bfloat16()


def _kernel_lists_bfloat16():
    try:
        with open(_CPU_INFO, encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def first_line(error):
    """Give the first line of an exception's text, for a message that quotes it; its type if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_out_of_memory(error):
    """Tell whether an exception says that a device, or the machine, ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    import torch

    is_typed = isinstance(error, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError))
    return is_typed or any(text in str(error).lower() for text in _OUT_OF_MEMORY_TEXTS)


class BatchLimit:
    """How large a batch may be, as far as running out of memory has taught. Threads may share one."""

    def __init__(self):
        self._lock = threading.Lock()
        self._cost = None

    def rows(self, n_rows, cost):
        """Give how many of ``n_rows`` items of one cost to try at a time."""
        return n_rows if self._cost is None else max(1, min(n_rows, int(self._cost // cost)))

    def lower(self, cost):
        """Note that more than ``cost`` in all does not fit."""
        with self._lock:
            self._cost = cost if self._cost is None else min(self._cost, cost)


_limits = weakref.WeakKeyDictionary()
_limits_lock = threading.Lock()


def batch_limit(network, device):
    """Get the one limit of a network on a device; it is forgotten with the network, or by ``clear_models``.

    Parameters
    ----------
    network : object
        The network, or whatever stands for it from one call to the next.

    device : torch.device
        Where it runs.

    Returns
    -------
    limit : BatchLimit
        The same object for every caller.
    """
    with _limits_lock:
        return _limits.setdefault(network, {}).setdefault(str(device), BatchLimit())


def forget_limits():
    """Forget what running out of memory has taught."""
    with _limits_lock:
        _limits.clear()


def run_with_backoff(function, batch, limit=None, cost=1):
    """Apply a function to a batch, in smaller and smaller pieces while memory runs out.

    Parameters
    ----------
    function : callable
        Takes a list of items and gives an ndarray with one row per item.

    batch : list
        Items, at least one.

    limit : BatchLimit or None, default=None
        Where what was learned is kept, and what pieces start from; None forgets it.

    cost : float, default=1
        What each item takes of the limit, in any unit that stays the same from call to call.

    Returns
    -------
    rows : ndarray of shape (len(batch), ...)
        What the function gave, in the order of the items.

    Raises
    ------
    MemoryError
        If a single item does not fit. Every other error of the function is passed on as it is.
    """
    import numpy as np

    limit = BatchLimit() if limit is None else limit
    start, parts = 0, []
    while start < len(batch):
        piece = batch[start : start + limit.rows(len(batch), cost)]
        try:
            parts.append(function(piece))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(piece) == 1:
                raise MemoryError(
                    f"a single item does not fit into the device's memory ({first_line(error)}); "
                    'use a smaller model or shorter items, precision="bfloat16", or device="cpu".'
                ) from error
        else:
            start += len(piece)
            continue
        # Outside of the handler: its traceback holds the tensors of the attempt that failed.
        limit.lower((len(piece) + 1) // 2 * cost)
        free_cached_memory()
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def free_cached_memory():
    """Give memory that torch keeps for later back to the device, if torch is in use."""
    torch = imported("torch")
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


# Calls that divide torch's threads now, and the number of threads before the first of them.
_n_divisions, _n_undivided = 0, None
_divisions_lock = threading.Lock()


@contextmanager
def divided_threads():
    """Share torch's threads among workers, which are threads themselves.

    Yields
    ------
    divide : callable
        To be called in each worker with the number of workers. The caller's own number of threads is as before in
        the end.
    """
    global _n_divisions, _n_undivided
    import torch

    with _divisions_lock:
        # Threads start with what was set last: one that comes while others divide would take their share for all.
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
        # What a worker sets is also what threads start with that come later.
        torch.set_num_threads(n_threads)
        with _divisions_lock:
            _n_divisions -= 1


# The process in which a network ran on several threads of torch: its forked children lack these threads.
_ran_in = None


def note_run():
    """Note that a network is about to run in this process."""
    global _ran_in
    import torch

    check_not_forked()
    if torch.get_num_threads() > 1:
        _ran_in = os.getpid()


def check_not_forked():
    """Raise if this process was forked from one in which a network had run: torch would wait for ever.

    Raises
    ------
    RuntimeError
        It names the ways around.
    """
    if _ran_in is not None and _ran_in != os.getpid():
        raise RuntimeError(
            "This process was forked from one in which a network had already run, and torch hangs in such a process. "
            "Use joblib's default backend (loky), or encode everything before the fork with a store, so that the "
            "forked processes find it there."
        )
