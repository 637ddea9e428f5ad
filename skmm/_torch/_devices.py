"""Devices, precision and settings of torch, which is imported only where it is needed."""

import functools
import os
import sys

from .._optional import imported
from ..exceptions import first_line
from ._batches import is_out_of_memory

_CPU_INFO = "/proc/cpuinfo"

# Where Linux shows accelerators that torch can use: NVIDIA's, the same under Windows' Linux, AMD's.
_ACCELERATORS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


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
