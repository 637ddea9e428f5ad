"""How many pictures does a cascade leave unopened, and what does that cost in accuracy?

Emoji (name, then picture; 8 groups, folds stratified) and glyphs (name, then picture): 5 folds; on each the cascade at
several tolerances beside the product of both modalities. Printed are the accuracy on the test rows, the difference to
that of both modalities, the pictures encoded for them (forward passes counted), and their share.

    OMP_NUM_THREADS=1 python benchmarks/cascade.py [--sets emoji glyphs]
"""

import argparse
import time

import numpy as np
import pandas as pd
from _accuracy import data_folder, write
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline

from skmm import ConcatFusion, ImageDescriptor, ImageEncoder, ModalityCascadeClassifier, TextEncoder
from skmm.datasets import load_glyphs

TOLERANCES = (0.0, 0.005, 0.01, 0.02)


def emoji():
    folder = data_folder("emoji_noto")
    frame = pd.read_csv(folder / "emoji.csv")
    frame = frame[frame["group"] != "Flags"]
    X = pd.DataFrame({"text": frame["name"], "image": [str(folder / file) for file in frame["file"]]})
    return X.reset_index(drop=True), frame["group"].to_numpy(), ImageEncoder()


def glyphs():
    data = load_glyphs()
    return data.data[["text", "image"]], data.target.to_numpy(), ImageDescriptor()


def count_forward(model):
    """Return a list to which each call of the member's first step adds the number of its rows."""
    counts = []
    transform = model.transform

    def counted(X, *args, **kwargs):
        counts.append(len(X))
        return transform(X, *args, **kwargs)

    model.transform = counted
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["emoji", "glyphs"])
    options = parser.parse_args()
    begin, results = time.perf_counter(), {}
    for name in options.sets:
        X, y, image = {"emoji": emoji, "glyphs": glyphs}[name]()
        members = [
            ("text", make_pipeline(TextEncoder(), ConcatFusion(), LogisticRegression(C=0.03, max_iter=1000)), "text"),
            ("image", make_pipeline(image, ConcatFusion(), LogisticRegression(C=0.03, max_iter=1000)), "image"),
        ]
        rows = {}
        for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(X, y):
            for tolerance in TOLERANCES:
                cascade = ModalityCascadeClassifier(members, costs={"text": 1, "image": 10}, tolerance=tolerance)
                cascade.fit(X.iloc[train], y[train])
                thresholds = cascade.thresholds_
                cascade.thresholds_ = dict.fromkeys(thresholds, np.inf)
                everything = np.mean(cascade.predict(X.iloc[test]) == y[test])
                cascade.thresholds_ = thresholds
                counts = count_forward(cascade.named_modalities_["image"][0])
                accuracy = np.mean(cascade.predict(X.iloc[test]) == y[test])
                rows.setdefault(tolerance, []).append((accuracy, accuracy - everything, sum(counts) / len(test)))
        print(f"\n{name}: tolerance, accuracy, difference to both modalities, share of the pictures encoded")
        results[name] = {}
        for tolerance, values in rows.items():
            accuracy, difference, share = np.mean(values, axis=0)
            results[name][str(tolerance)] = {"accuracy": accuracy, "difference": difference, "share": share}
            print(f"  {tolerance:<6} {accuracy:.4f} {difference:+.4f} {share:.3f}")
    write("cascade", {"sets": results}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
