"""Emoji with three labels per class: what do the rows without a label add?

Names through TextEncoder, pictures through ImageEncoder, and the group to tell. A third of the rows is for testing; of
the others three of each group have a label, and -1 stands for the rest. Printed are the mean balanced accuracy over
draws of rows and labels, its standard deviation, the gain over concatenation with the labelled rows alone, and in how
many draws there is one. Writes ``results/few_labels.json``.

    OMP_NUM_THREADS=1 python benchmarks/few_labels.py [--draws 20] [--labels 3]
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from _accuracy import data_folder, write
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from skmm import (
    AnchorFusion,
    CCAFusion,
    ImageEncoder,
    ModalityFuser,
    ModalityVotingClassifier,
    PCAFusion,
    TextEncoder,
)


def read_features():
    """Return features of names and pictures side by side, their widths, and groups."""
    folder = data_folder("emoji_noto")
    frame = pd.read_csv(folder / "emoji.csv").query("group != 'Flags'")
    texts = TextEncoder().fit_transform(frame["name"])
    images = ImageEncoder().fit_transform([str(folder / path) for path in frame["file"]])
    return np.hstack([texts, images]), texts.shape[1], np.unique(frame["group"], return_inverse=True)[1]


def make_models(width):
    """Return the models by label, and whether each is fitted on the labelled rows alone."""
    text, image = slice(0, width), slice(width, None)
    blocks = [("text", "passthrough", text), ("image", "passthrough", image)]
    linear = LogisticRegression(C=10, max_iter=1000)
    again, spreading = SelfTrainingClassifier(linear), LabelSpreading("knn", n_neighbors=10)
    member = make_pipeline(StandardScaler(), linear)
    vote = ModalityVotingClassifier([("text", member, text), ("image", member, image)])

    def fused(fusion, last):
        return make_pipeline(ModalityFuser(blocks, fusion), last)

    pca, anchors = PCAFusion(64), AnchorFusion(64, output="mean")
    cca = CCAFusion(64, weighting="correlation")
    cca_of_labels = CCAFusion(64, weighting="correlation", target="block")
    # Weighted variates are small.
    of_variates = LogisticRegression(C=1000, max_iter=1000)
    return {
        "concat": (fused("concat", linear), True),
        "concat, self-training": (fused("concat", again), False),
        "self-training of concat": (SelfTrainingClassifier(fused("concat", linear)), False),
        "pca of labelled rows": (fused(pca, linear), True),
        "pca": (fused(pca, linear), False),
        "pca, self-training": (fused(pca, again), False),
        "pca, label spreading": (fused(pca, spreading), False),
        "anchor, self-training": (fused(anchors, again), False),
        "cca": (fused(cca, of_variates), False),
        "cca, self-training": (fused(cca, SelfTrainingClassifier(of_variates)), False),
        "cca with labels": (fused(cca_of_labels, of_variates), False),
        "vote": (vote, True),
        "self-training of vote": (SelfTrainingClassifier(vote), False),
    }


def hide_labels(y, n_labels, rng):
    """Return y with -1 in all but some rows of each class."""
    hidden = np.full_like(y, -1)
    for label in np.unique(y):
        chosen = rng.choice(np.flatnonzero(y == label), n_labels, replace=False)
        hidden[chosen] = label
    return hidden


def score(model, learns_from_labelled, X, y, hidden, X_test, y_test):
    """Fit one model and return its balanced accuracy."""
    model = clone(model)
    if learns_from_labelled:
        model.fit(X[hidden >= 0], hidden[hidden >= 0])
    elif isinstance(model, SelfTrainingClassifier) or _is_semi_supervised(model[-1]):
        model.fit(X, hidden)
    else:
        # The fusion learns from all rows, the classifier from those with a label.
        Z = model[:-1].fit_transform(X, hidden)
        model[-1].fit(Z[hidden >= 0], hidden[hidden >= 0])
    return balanced_accuracy_score(y_test, model.predict(X_test))


def _is_semi_supervised(model):
    return isinstance(model, (SelfTrainingClassifier, LabelSpreading))


def main():
    """Score, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--labels", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    X, width, y = read_features()
    scores = {}
    for draw in range(arguments.draws):
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=draw)
        hidden = hide_labels(y_train, arguments.labels, np.random.default_rng(draw))
        for label, (model, learns_from_labelled) in make_models(width).items():
            scores.setdefault(label, []).append(
                score(model, learns_from_labelled, X_train, y_train, hidden, X_test, y_test)
            )
        print(f"  draw {draw}: {time.perf_counter() - start:.0f} s", flush=True)
    rows = []
    for label, values in scores.items():
        gains = np.subtract(values, scores["concat"])
        row = {"model": label, "mean": np.mean(values), "sd": np.std(values, ddof=1), "gain": gains.mean()}
        rows.append({**row, "n_better": int((gains > 0).sum()), "draws": values})
        print(f"{label:32} {row['mean']:.3f} {row['sd']:.3f} {row['gain']:+.3f} {rows[-1]['n_better']:3}")
    write("few_labels", {**vars(arguments), "rows": rows}, time.perf_counter() - start)


if __name__ == "__main__":
    main()
