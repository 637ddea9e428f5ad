"""What happens to a fusion when one modality goes missing at predict time?

The data: some 3,000 characters of 12 scripts, each with its picture and its Unicode name. Models learn from complete
data. Then more and more test samples lose their picture, or their name. In such a row the member of the missing
modality abstains: a voter gives its weight to the other, a stacker sees the class frequencies in its place. A stacker
that has met missing rows at fit has an indicator for them as well, and knows how to do without.

All of these go smoothly towards the accuracy of the modality that remains, and none of them below it by more than
TOLERANCE, here 0.03. Two go below it at all: the stacker that has never met a gap, when most names are missing, and
the plain mean, which trusts the picture as much as the name, by up to 0.015 beside the name alone.

    python examples/plot_missing_modalities.py
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import ImageDescriptor, ModalityStackingClassifier, ModalityVotingClassifier, TextEncoder
from skmm.datasets import load_glyphs

SHARES = np.arange(0, 1, 0.1)
TOLERANCE = 0.03
NAMES = ("text", "image")


def embed(glyphs, text_model):
    """Encode both columns once; return one data frame with columns text__0, ..., image__hog0, ..."""
    encoders = {"text": TextEncoder(text_model), "image": ImageDescriptor("hog", cells_per_block=1)}
    tables = [
        encoder.set_output(transform="pandas").fit_transform(glyphs[name]).add_prefix(f"{name}__")
        for name, encoder in encoders.items()
    ]
    return pd.concat(tables, axis=1)


def lose(X, name, share, seed=0):
    """Return a copy of X in which a modality is missing in a share of the rows; more shares contain the fewer."""
    order = np.random.default_rng(seed).permutation(len(X))
    X = X.copy()
    X.loc[X.index[order[: round(share * len(X))]], [c for c in X.columns if c.startswith(f"{name}__")]] = np.nan
    return X


def models():
    """Return the voters and stackers of the figure, by label."""
    member = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    modalities = [(name, member, make_column_selector(f"^{name}__")) for name in NAMES]
    return {
        "vote, mean": ModalityVotingClassifier(modalities),
        "vote, product": ModalityVotingClassifier(modalities, "product"),
        "stack": ModalityStackingClassifier(modalities, LogisticRegression(C=10, max_iter=1000)),
        "stack, fitted with gaps": ModalityStackingClassifier(modalities, LogisticRegression(C=10, max_iter=1000)),
    }


def draw(curves, alone, path):
    """Draw accuracy against the share of rows that lose a modality, one panel for each modality."""
    import matplotlib.pyplot as plt

    colors = dict(zip(models(), ("#0072B2", "#56B4E9", "#D55E00", "#E69F00"), strict=True))
    markers = dict(zip(models(), "osD^", strict=True))
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    for ax, lost in zip(axes, NAMES, strict=True):
        remaining = NAMES[1 - NAMES.index(lost)]
        ax.axhline(alone[remaining], color="black", linestyle="--", label=f"the other modality alone ({remaining})")
        ax.axhspan(alone[remaining] - TOLERANCE, alone[remaining], color="black", alpha=0.12, lw=0, label="tolerance")
        for label, values in curves[lost].items():
            ax.plot(SHARES * 100, values, color=colors[label], marker=markers[label], markersize=4, label=label)
        ax.set(xlabel=f"rows without {lost} at predict time [%]", title=f"{lost} goes missing")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    axes[0].set_ylabel("accuracy on the test set")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text-model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="name of a sentence-transformers model on the hub, or a local folder (default: %(default)s)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path(__file__).parent / "output" / "missing_modalities.png",
        help="where to write the picture (default: %(default)s)",
    )
    arguments = parser.parse_args()
    start = time.perf_counter()

    glyphs, y = load_glyphs(return_X_y=True)
    X = embed(glyphs, arguments.text_model)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, test_size=0.4, random_state=0)
    # A fifth of the training rows loses its text, another fifth its picture; some lose none, none loses both.
    half = np.arange(len(X_train)) % 2 == 0
    X_gaps = pd.concat([lose(X_train[half], "text", 0.4), lose(X_train[~half], "image", 0.4)]).loc[X_train.index]

    fitted = {label: model.fit(X_gaps if "gaps" in label else X_train, y_train) for label, model in models().items()}
    single = fitted["vote, mean"].predict_by_modality(X_test)
    alone = {name: np.mean(single[name] == y_test.to_numpy()) for name in NAMES}
    curves = {
        lost: {
            label: [model.score(lose(X_test, lost, share), y_test) for share in SHARES]
            for label, model in fitted.items()
        }
        for lost in NAMES
    }

    for lost in NAMES:
        remaining = NAMES[1 - NAMES.index(lost)]
        table = pd.DataFrame(curves[lost], index=pd.Index((SHARES * 100).astype(int), name="% missing"))
        print(f"\nAccuracy as {lost} goes missing; {remaining} alone has {alone[remaining]:.3f}:\n")
        print(table.T.to_string(float_format="{:.3f}".format))
        below = (alone[remaining] - table.to_numpy()).max()
        print(f"\nFurthest below {remaining} alone: {max(below, 0):.3f} (tolerance {TOLERANCE}).")
        assert below <= TOLERANCE, f"{lost} missing: {below:.3f} below {remaining} alone"
    draw(curves, alone, arguments.picture)
    print(f"\nPicture: {arguments.picture}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
