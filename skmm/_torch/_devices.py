"""What every torch model needs around it: device, precision, batches that fit.

torch is imported inside the functions only, so this module costs nothing to import.
"""

import functools
import os
import sys

from ..exceptions import first_line
from ._memory import is_out_of_memory

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
