"""Which scaling and which weights of blocks does concatenation want, where what follows heeds scale?

Ridge classification (penalty chosen among 7 by leave-one-out error) on the six views of mfeat, and on these with a
seventh of 240 columns of noise, each block scaled and weighted by ConcatFusion; accuracy over 5 stratified folds,
each variant against ``scaling="norm"`` without weights by the corrected resampled t-test, with Holm's correction.

    OMP_NUM_THREADS=1 python benchmarks/accuracy_concat.py
"""

import time

import numpy as np
from _accuracy import against, data_folder, table, write
from accuracy_mfeat import load
from joblib import Parallel, delayed
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline

from skmm import ConcatFusion

REFERENCE = "norm"
VARIANTS = {
    "norm": ConcatFusion(),
    "norm, weights cv": ConcatFusion(weights="cv"),
    "std": ConcatFusion(scaling="std"),
    "none": ConcatFusion(scaling=None),
}


def score_fold(columns, X, y, train, test):
    """Return the accuracy of every variant in one fold."""
    scores = {}
    for label, fusion in VARIANTS.items():
        model = make_pipeline(fusion.set_params(blocks=columns), RidgeClassifierCV(np.logspace(-1, 5, 7)))
        scores[label] = model.fit(X[train], y[train]).score(X[test], y[test])
    return scores


def main():
    begin = time.perf_counter()
    X, columns, y = load(data_folder("mfeat"))
    noise = np.random.default_rng(0).normal(size=(len(X), 240))
    data = {
        "six views": (X, columns),
        "six views and noise": (np.hstack([X, noise]), {**columns, "noise": slice(X.shape[1], X.shape[1] + 240)}),
    }
    splits = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))
    parts = []
    for name, (Z, blocks) in data.items():
        folds = Parallel(n_jobs=2)(delayed(score_fold)(blocks, Z, y, *split) for split in splits)
        scores = {label: np.array([fold[label] for fold in folds]) for label in VARIANTS}
        rows, _ = against(scores, splits, REFERENCE)
        print(f"mfeat, {name}, accuracy over 5 stratified folds\n")
        print(table(rows, REFERENCE), "\n", flush=True)
        parts.append({"data": name, "rows": rows})
    write("accuracy_concat", {"score": "accuracy", "reference": REFERENCE, "parts": parts}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
