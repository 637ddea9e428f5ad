"""What can each fusion layer of a network learn?

Two modalities of synthetic data, with one kind of signal at a time: private (each modality says a part of its own),
shared (both say the same), and interaction (neither says anything alone). Stock GridSearchCV ranges over the fusion
layers of MultimodalNetClassifier; there is no hidden layer after the fusion, so that what is learned is what the layer
can do.

All layers do well where the modalities add up. Where the signal is in the interaction only, those that add or average
(concat, sum, weighted) stay at chance, a mixture of heads gets part of it, and those that multiply get it.

    python examples/plot_network_fusions.py
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector
from sklearn.model_selection import GridSearchCV

from skmm import MultimodalNetClassifier
from skmm.datasets import make_multimodal_classification

SIGNALS = {
    "private": {"private": 1.0, "shared": 0.0},
    "shared": {"private": 0.0, "shared": 1.5},
    "interaction": {"private": 0.0, "shared": 0.0, "interaction": 3.0},
}
FUSIONS = ["concat", "sum", "weighted", "mixture", "film", "gated", "attention", "tensor", "low_rank"]


def search(signal, n_samples):
    """Return the cross-validated accuracy of each fusion layer."""
    X, y = make_multimodal_classification(n_samples, random_state=0, **SIGNALS[signal])
    names = dict.fromkeys(column.partition("__")[0] for column in X.columns)
    net = MultimodalNetClassifier(
        [(name, "passthrough", make_column_selector(f"^{name}__")) for name in names],
        n_joint_layers=0,
        width=32,
        learning_rate=3e-3,
        max_epochs=60,
        random_state=0,
    )
    results = GridSearchCV(net, {"fusion": FUSIONS}, cv=3, n_jobs=2).fit(X, y).cv_results_
    return dict(zip(results["param_fusion"], results["mean_test_score"], strict=True))


def draw(accuracy, path):
    """Draw the table as a heat map."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(5.5, 5), layout="constrained")
    image = ax.imshow(accuracy, vmin=0.5, vmax=1, cmap="viridis", aspect="auto")
    ax.set_xticks(range(accuracy.shape[1]), accuracy.columns)
    ax.set_yticks(range(accuracy.shape[0]), accuracy.index)
    for (i, j), value in np.ndenumerate(accuracy.to_numpy()):
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.8 else "black")
    ax.set(xlabel="where the signal is", ylabel="fusion", title="What each fusion layer learns")
    fig.colorbar(image, label="accuracy (3-fold cross-validation)")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=900, help="rows of each data set (default: %(default)s)")
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path(__file__).parent / "output" / "network_fusions.png",
        help="where to write the picture (default: %(default)s)",
    )
    arguments = parser.parse_args()
    start = time.perf_counter()
    accuracy = pd.DataFrame({signal: search(signal, arguments.samples) for signal in SIGNALS})
    print(accuracy.to_string(float_format="{:.3f}".format))
    draw(accuracy, arguments.picture)
    print(f"\nPicture: {arguments.picture}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
