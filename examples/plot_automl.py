"""From a raw data frame to a model: what the columns hold, which strategies were tried, and what to conclude.

The data: characters of 12 scripts in a data frame as people have them, with a column of names, one of pictures,
one of numbers that tell nothing, and one that identifies the rows. ``infer_modalities`` finds out which is which,
``AutoMultimodalClassifier`` tries strategies of every level of fusion on the same folds and joins the best. The
figure for the choice comes from rows that did not choose. With few rows of many classes the verdict is modest: the
ensemble is ahead of the best single modality, and its interval says that this may be luck. A table of noise does no
harm. More rows (``raw_frame(3000)``) tell more.

    python examples/plot_automl.py
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from skmm import AutoMultimodalClassifier, ImageDescriptor, TextEncoder, infer_modalities
from skmm.datasets import load_glyphs


def raw_frame(n_samples=500):
    """Return characters with a column of noise and one that identifies the rows, and their scripts."""
    glyphs, y = load_glyphs(n_samples=n_samples, random_state=0, return_X_y=True)
    rng = np.random.default_rng(0)
    glyphs = glyphs[["text", "image"]]
    return glyphs.assign(noise=rng.normal(size=len(glyphs)), row_id=np.arange(len(glyphs))), y


def draw(leaderboard, score, metric):
    """Return a figure of the scores by strategy, the best on top, with that of the choice as a line."""
    leaderboard = leaderboard.drop(index="selected").sort_values("mean")
    levels = leaderboard["level"].unique()
    colors = dict(zip(levels, plt.get_cmap("tab10").colors, strict=False))
    figure, axes = plt.subplots(figsize=(7, 0.3 * len(leaderboard) + 1.6), layout="constrained")
    axes.barh(leaderboard.index, leaderboard["mean"], color=[colors[level] for level in leaderboard["level"]])
    axes.axvline(score, color="black", linestyle="--")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colors[level]) for level in levels]
    handles.append(plt.Line2D([], [], color="black", linestyle="--"))
    figure.legend(handles, [*levels, "ensemble, honest"], loc="outside lower center", ncols=3, frameon=False)
    axes.set(xlabel=metric, title="Strategies of the automatic classifier")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text-model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="name of a sentence-transformers model on the hub, or a local folder (default: %(default)s)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(__file__).parent / "output",
        help="where to write pages and pictures (default: %(default)s)",
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)

    X, y = raw_frame()
    modalities = infer_modalities(X, y)
    print(f"{modalities.report.to_string(index=False)}\n\nThe code that this stands for:\n\n{modalities}\n")

    # Pasted and edited: the folder of the text model, and a descriptor of pictures that needs no download.
    encoders = {"text": TextEncoder(arguments.text_model), "image": ImageDescriptor("hog", cells_per_block=1)}
    modalities = [(name, encoders.get(name, transformer), columns) for name, transformer, columns in modalities]

    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
    start = time.perf_counter()
    auto = AutoMultimodalClassifier(modalities, scoring="balanced_accuracy", n_jobs=2).fit(X_train, y_train)
    print(f"{len(auto.leaderboard_)} strategies in {time.perf_counter() - start:.0f} s\n")
    print(pd.DataFrame(auto.leaderboard_)[["level", "mean", "weight"]].round(3).to_string())
    print(f"\n{auto.summary()}\n")
    score = balanced_accuracy_score(y_test, auto.predict(X_test))
    print(f"Balanced accuracy: expected {auto.score_:.3f}, on rows held out {score:.3f}.")

    page, picture = arguments.folder / "automl.html", arguments.folder / "automl.png"
    auto.to_html(page)
    draw(auto.leaderboard_, auto.score_, "balanced accuracy, 5 folds").savefig(picture, dpi=120)
    print(f"\nPage and picture: {page}, {picture}")


if __name__ == "__main__":
    main()
