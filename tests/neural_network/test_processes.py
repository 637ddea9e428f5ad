"""Training in several processes: the weights of one process with the same batches."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from skmm import MultimodalNetClassifier, MultimodalNetRegressor
from skmm.neural_network import GradientModulation, ImageBranch
from skmm.neural_network.network import Processes, Rows

N = 45


def data():
    """Give pictures and numbers, some missing, and classes."""
    rng = np.random.default_rng(0)
    images = np.empty(N, dtype=object)
    for row in range(N):
        images[row] = rng.integers(256, size=(12, 12, 3), dtype=np.uint8) if row % 4 else None
    X = pd.DataFrame({"image": pd.Series(images, dtype=object), "a": rng.normal(size=N), "b": rng.normal(size=N)})
    X.loc[3::4, ["a", "b"]] = np.nan
    return X, np.arange(N) % 3, 0.5 + rng.random(N)


def cases():
    """Give networks, by name, of which no layer draws at random."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU())
    # Of 16 channels two are normalised together; alone, their biases would have no gradient but rounding.
    members = [("image", ImageBranch(size=8, channels=(16,), n_hidden=8, dropout=0), "image")]
    options = {
        "width": 8,
        "dropout": 0,
        "precision": "float32",
        "random_state": 0,
        "max_epochs": 3,
        "learning_rate": 0.01,
    }
    both = [*members, ("numbers", "passthrough", ["a", "b"])]
    return {
        "missing rows": MultimodalNetClassifier(both, batch_size=8, **options),
        "validation": MultimodalNetClassifier(
            both, "gated", batch_size=8, early_stopping=True, validation_fraction=0.3, **options
        ),
        "a module": MultimodalNetClassifier([("own", module, ["a", "b"]), *members], batch_size=5, **options),
        "clipped, accumulated": MultimodalNetClassifier(
            both, batch_size=20, accumulate=3, max_grad_norm=0.1, **options
        ),
        # Some shares have no row.
        "single rows": MultimodalNetRegressor(both, batch_size=1, **options),
    }


def fit_all(seed, **options):
    """Give the weights, losses and validation scores of all networks; the seed is for the user's module."""
    X, y, weights = data()
    results = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        nets = cases()
    for name, net in nets.items():
        fitted = net.set_params(**options).fit(X, y, sample_weight=weights)
        flat = torch.cat([weights.detach().cpu().ravel() for weights in fitted.network_.parameters()])
        results[name] = np.concatenate([flat, fitted.loss_curve_, fitted.validation_scores_ or []])
    return results


# On a GPU sums have another order, and products may have fewer digits.
TOLERANCE = {"cpu": {"rtol": 1e-4, "atol": 1e-5}, "cuda": {"rtol": 0.05, "atol": 0.02}}

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


@pytest.mark.parametrize(
    "device",
    [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])],
)
def test_the_weights_of_one_process(tmp_path, device):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", str(Path(__file__).resolve()), device]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    process = subprocess.run([*command, str(tmp_path)], env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    expected = fit_all(seed=0, device=device)
    first, second = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1))
    for name, values in expected.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], values, **TOLERANCE[device], err_msg=name)


def test_shares_of_rows():
    rows = Rows([(torch.arange(11),)], None)
    for n in (1, 2, 3, 20):
        shares = []
        for rank in range(n):
            processes = Processes(False)
            processes.rank, processes.n = rank, n
            shares.append(processes.share(rows).inputs[0][0])
        assert torch.equal(torch.cat(shares), torch.arange(11))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_needs_a_launcher():
    X, y, _ = data()
    with pytest.raises(RuntimeError, match=r"start the script by torchrun, and call torch.distributed.init_process_g"):
        cases()["missing rows"].set_params(device="cpu", distributed=True).fit(X, y)


def test_needs_whole_batches_for_modulation():
    X, y, _ = data()
    net = cases()["missing rows"].set_params(device="cpu", distributed=True, modulation=GradientModulation())
    with pytest.raises(ValueError, match="modulation needs whole batches in one process"):
        net.fit(X, y)


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    device, folder = sys.argv[1:]
    np.savez(f"{folder}/{rank}.npz", **fit_all(seed=rank, distributed=True, device=device))
    torch.distributed.destroy_process_group()
