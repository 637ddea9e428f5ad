"""How much does training on frozen features cost beside a bare PyTorch loop, and beside scikit-learn's MLPClassifier?

Seconds per epoch, medians of interleaved runs: two modalities of 512 and 384 float32 features, 10 classes, 128 units,
steps of 200 rows, a tenth of the rows spared for a validation pass after each epoch. What an epoch costs is the
difference between a long and a short fit, so that checks, scaling and set-up are not in it.

- skmm: ``MultimodalNetClassifier`` with ``early_stopping=True``, which also keeps a copy of the best weights;
- bare: the same layers, AdamW with the same flags, batches ``X[order[start:stop]]`` of tensors, the same validation
  pass;
- MLPClassifier: one hidden layer on the concatenated features with ``early_stopping=True`` (only where the layers are
  such).

"early" concatenates the features themselves, "towers" the hidden layers of the modalities (the default).

    OMP_NUM_THREADS=1 python benchmarks/train.py [--runs 5] [--device cpu]
"""

import argparse
import statistics
import time
import warnings

import numpy as np
import torch
from _accuracy import write
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import nn

from skmm import MultimodalNetClassifier

WIDTHS = (512, 384)
N_CLASSES, UNITS, BATCH = 10, 128, 200
MODALITIES = [("a", "passthrough", slice(0, 512)), ("b", "passthrough", slice(512, 896))]
N_EPOCHS = {1000: (5, 55), 5000: (2, 22), 20000: (1, 7)}


def skmm_fit(kind, X, y, n_epochs, device):
    """Fit skmm's network."""
    MultimodalNetClassifier(
        MODALITIES,
        n_layers=0 if kind == "early" else 1,
        width=UNITS,
        dropout=0.0,
        batch_size=BATCH,
        max_epochs=n_epochs,
        early_stopping=True,
        patience=n_epochs,
        device=device,
        random_state=0,
    ).fit(X, y)


class Towers(nn.Module):
    """One hidden layer for each modality, one over both, a head."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Linear(width, UNITS), nn.ReLU()) for width in WIDTHS)
        self.joint = nn.Sequential(nn.Linear(2 * UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, N_CLASSES))

    def forward(self, a, b):
        """Give logits."""
        return self.joint(torch.cat([self.a(a), self.b(b)], dim=1))


class Early(nn.Module):
    """One hidden layer over both modalities, a head."""

    def __init__(self):
        super().__init__()
        self.joint = nn.Sequential(nn.Linear(sum(WIDTHS), UNITS), nn.ReLU(), nn.Linear(UNITS, N_CLASSES))

    def forward(self, a, b):
        """Give logits."""
        return self.joint(torch.cat([a, b], dim=1))


def bare_fit(kind, X, y, n_epochs, device):
    """Train the same layers in a loop over slices of tensors."""
    torch.manual_seed(0)
    network = (Early() if kind == "early" else Towers()).to(device)
    a, b, y = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (X[:, :512], X[:, 512:], y))
    n_train = len(y) * 9 // 10
    n_batches = -(-n_train // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    criterion = nn.CrossEntropyLoss()
    for _ in range(n_epochs):
        network.train()
        order, total = torch.randperm(n_train).to(device), torch.zeros((), device=device)
        for start in range(0, n_batches * BATCH, BATCH):
            rows = order[start : start + BATCH]
            optimizer.zero_grad(set_to_none=True)
            loss = criterion(network(a[rows], b[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        network.eval()
        with torch.no_grad():
            float(total), float(criterion(network(a[n_train:], b[n_train:]), y[n_train:]))


def sklearn_fit(kind, X, y, n_epochs, device):
    """Fit scikit-learn's network of one hidden layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        MLPClassifier(
            (UNITS,),
            batch_size=BATCH,
            max_iter=n_epochs,
            early_stopping=True,
            n_iter_no_change=n_epochs,
            random_state=0,
        ).fit(X, y)


def per_epoch(fit, kind, X, y, epochs, device):
    """Give the seconds that one epoch more takes."""
    seconds = []
    for n_epochs in epochs:
        start = time.perf_counter()
        fit(kind, X, y, n_epochs, device)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return (seconds[1] - seconds[0]) / (epochs[1] - epochs[0])


def main():
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    rng = np.random.default_rng(0)
    rows = []
    for n_samples, epochs in N_EPOCHS.items():
        X = rng.normal(size=(n_samples, sum(WIDTHS))).astype(np.float32)
        y = rng.integers(0, N_CLASSES, n_samples)
        for kind in ("early", "towers"):
            calls = {"skmm": skmm_fit, "bare": bare_fit}
            if kind == "early" and arguments.device == "cpu":
                calls["MLPClassifier"] = sklearn_fit
            found = {name: [] for name in calls}
            for call in calls.values():
                call(kind, X, y, 1, arguments.device)
            for _ in range(arguments.runs):
                for name, call in calls.items():
                    found[name].append(per_epoch(call, kind, X, y, epochs, arguments.device))
            median = {name: statistics.median(seconds) for name, seconds in found.items()}
            for name, seconds in median.items():
                over = median["skmm"] / seconds
                print(
                    f"{n_samples:6} rows  {kind:6}  {name:14} {1e3 * seconds:8.2f} ms/epoch   skmm / it {over:5.2f}   "
                    f"skmm - it {1e3 * (median['skmm'] - seconds):6.2f} ms"
                )
                rows.append(
                    {"n_samples": n_samples, "layers": kind, "what": name, "seconds": seconds, "skmm_over_it": over}
                )
    name = "train" if arguments.device == "cpu" else f"train_{arguments.device}"
    write(name, {"threads": torch.get_num_threads(), "rows": rows}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
