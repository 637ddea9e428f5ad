"""Settings of torch that change numbers."""

import subprocess
import sys

import pytest

from skmm._torch._settings import numeric_settings

torch = pytest.importorskip("torch")


def test_a_cpu_without_special_settings_has_none():
    assert numeric_settings("cpu") == ()
    code = (
        "import sys; from skmm._torch._settings import numeric_settings as f; print(f('cpu'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "() False\n"


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ("torch.set_float32_matmul_precision('medium')", ["cpu", "cuda"]),
        ("torch.backends.mkldnn.enabled = False", ["cpu"]),
        ("torch.backends.mkldnn.deterministic = True", ["cpu"]),
        ("torch.set_default_dtype(torch.float64)", ["cpu", "cuda", "mps"]),
        ("torch.use_deterministic_algorithms(True)", ["cpu", "cuda", "mps"]),
        ("torch.backends.mha.set_fastpath_enabled(False)", ["cpu", "cuda", "mps"]),
        # By this name torch sets the precision of matrix products everywhere.
        ("torch.backends.cuda.matmul.allow_tf32 = True", ["cpu", "cuda"]),
        ("torch.backends.cudnn.allow_tf32 = False", ["cuda"]),
        ("torch.backends.cudnn.deterministic = True", ["cuda"]),
        ("torch.backends.cudnn.enabled = False", ["cuda"]),
        ("torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False", ["cuda"]),
        ("torch.backends.cuda.enable_flash_sdp(False)", ["cuda"]),
        ("os.environ['ONEDNN_DEFAULT_FPMATH_MODE'] = 'BF16'", ["cpu"]),
        ("os.environ['NVIDIA_TF32_OVERRIDE'] = '0'", ["cuda"]),
        ("torch.backends.cudnn.benchmark = True; torch.set_num_threads(1); torch.set_grad_enabled(False)", []),
    ],
)
def test_settings_count_on_the_devices_whose_numbers_they_change(change, kinds):
    code = f"""
import os, torch
from skmm._torch._settings import numeric_settings
kinds = "cpu", "cuda", "mps"
before = [numeric_settings(kind) for kind in kinds]
{change}
print(*(kind for kind, settings in zip(kinds, before) if numeric_settings(kind) != settings))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == kinds


def test_what_newer_versions_of_torch_set_by_other_names():
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this version of torch has no such setting")
    before, usual = [numeric_settings(kind) for kind in ("cpu", "cuda")], torch.backends.mkldnn.matmul.fp32_precision
    try:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        assert numeric_settings("cpu") == (("backends.mkldnn.matmul.fp32_precision", "bf16"),)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = usual
    assert [numeric_settings(kind) for kind in ("cpu", "cuda")] == before
