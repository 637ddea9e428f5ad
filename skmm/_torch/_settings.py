"""Settings of torch for a whole process that change numbers, beside what an encoder's own parameters say."""

import os
from contextlib import suppress
from operator import attrgetter

from .._optional import imported

# Where torch is used on a CPU; without these settings being touched it need not be imported to know them.
_USUAL_ON_CPU = {
    "backends.fp32_precision": "none",
    "backends.mkldnn.conv.fp32_precision": "none",
    "backends.mkldnn.deterministic": False,
    "backends.mkldnn.enabled": True,
    "backends.mkldnn.fp32_precision": "none",
    "backends.mkldnn.matmul.fp32_precision": "none",
    "backends.mkldnn.rnn.fp32_precision": "none",
    "backends.mha.get_fastpath_enabled": True,
    "are_deterministic_algorithms_enabled": False,
    "get_default_dtype": "torch.float32",
    "get_float32_matmul_precision": "highest",
}

_ON_CUDA = (
    *("are_deterministic_algorithms_enabled", "get_default_dtype", "get_float32_matmul_precision"),
    *("backends.fp32_precision", "backends.mha.get_fastpath_enabled"),
    *("backends.cuda.matmul." + name for name in ("allow_tf32", "fp32_precision", "allow_fp16_accumulation")),
    *("backends.cuda.matmul." + f"allow_{kind}_reduced_precision_reduction" for kind in ("fp16", "bf16")),
    *("backends.cuda." + f"{kind}_sdp_enabled" for kind in ("cudnn", "flash", "math", "mem_efficient")),
    "backends.cuda.fp16_bf16_reduction_math_sdp_allowed",
    *("backends.cudnn." + name for name in ("allow_tf32", "deterministic", "enabled", "fp32_precision")),
    *("backends.cudnn." + name for name in ("conv.fp32_precision", "rnn.fp32_precision")),
)

_ELSEWHERE = ("are_deterministic_algorithms_enabled", "get_default_dtype", "backends.mha.get_fastpath_enabled")

# Read by the libraries below torch.
_VARIABLES = {
    "cpu": ("DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE"),
    "cuda": ("NVIDIA_TF32_OVERRIDE",),
    "mps": ("PYTORCH_MPS_FAST_MATH",),
}


def numeric_settings(kind):
    """Give the settings that change numbers on a kind of device.

    Parameters
    ----------
    kind : str
        "cuda", "mps", "cpu", ...

    Returns
    -------
    settings : tuple of (str, object)
        Names and values, as plain data; on a CPU those that are not as usual, of which there are none before torch is
        imported.
    """
    found = [(name, os.environ[name]) for name in _VARIABLES.get(kind, ()) if os.environ.get(name)]
    torch = imported("torch")
    if torch is None:
        return tuple(found)
    names = _USUAL_ON_CPU if kind == "cpu" else _ON_CUDA if kind == "cuda" else _ELSEWHERE
    for name in names:
        # Versions of torch differ in what there is, and refuse to tell what was set by another name.
        with suppress(AttributeError, RuntimeError):
            value = attrgetter(name)(torch)
            value = value() if callable(value) else value
            value = value if isinstance(value, bool) else str(value)
            if kind != "cpu" or value != _USUAL_ON_CPU[name]:
                found.append((name, value))
    return tuple(found)
