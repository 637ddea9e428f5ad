"""Does joining six views of handwritten digits beat the best of them, and plain concatenation, if views are missing?

UCI multiple features: 2,000 digits in 10 classes, as Fourier coefficients (fou, 76), profile correlations (fac, 216),
Karhunen-Loeve coefficients (kar, 64), pixel averages (pix, 240), Zernike moments (zer, 47) and morphology (mor, 6).
All of these, or all but a random 20 or 50 % of the views of all digits, in training and test rows alike; every digit
keeps one. Standardised features and logistic regression throughout; accuracy over 10 stratified folds; each strategy
against the best single view, and against concatenation, by the corrected resampled t-test, two-sided, with Holm's
correction over the strategies. A view alone answers with the most frequent digit where it is missing.

    OMP_NUM_THREADS=1 python benchmarks/accuracy_mfeat.py
"""

import time

import numpy as np
from _accuracy import FUSIONS, against, classifier, data_folder, fused, score_folds, table, write
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline

from skmm import CCAFusion, ConcatFusion, ModalityImputer, ModalityVotingClassifier

VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")
MISSING = (0.0, 0.2, 0.5)
IMPUTED = {
    "regression + concat": make_pipeline(ModalityImputer("regression"), ConcatFusion()),
    "neighbors + concat": make_pipeline(ModalityImputer("neighbors"), ConcatFusion()),
    "indicator + concat": ModalityImputer(add_indicator=True),
    "regression + cca": make_pipeline(ModalityImputer("regression"), CCAFusion(32)),
}


def load(folder):
    """Return all views side by side, the columns of each, and the digits."""
    parts, columns, start = [], {}, 0
    for view in VIEWS:
        data = np.loadtxt(folder / f"mfeat-{view}.csv", delimiter=",", skiprows=1)
        parts.append(data[:, :-1])
        columns[view] = slice(start, start + data.shape[1] - 1)
        start = columns[view].stop
    return np.hstack(parts), columns, data[:, -1].astype(int)


def without(X, columns, share, rng):
    """Take each view from each digit with the given probability, but never all of them."""
    gone = rng.random((len(X), len(columns))) < share
    emptied = np.flatnonzero(gone.all(axis=1))
    gone[emptied, rng.integers(len(columns), size=len(emptied))] = False
    X = X.copy()
    for absent, part in zip(gone.T, columns.values(), strict=True):
        X[absent, part] = np.nan
    return X


def main():
    begin = time.perf_counter()
    complete, columns, y = load(data_folder("mfeat"))
    blocks = [(view, "passthrough", part) for view, part in columns.items()]
    voter = ModalityVotingClassifier([(view, classifier(), part) for view, part in columns.items()])
    estimators = {**fused(blocks, {**FUSIONS, **IMPUTED}), "vote soft": voter}
    splits = list(StratifiedKFold(10, shuffle=True, random_state=0).split(complete, y))
    parts = []
    for share in MISSING:
        X = without(complete, columns, share, np.random.default_rng(0))
        scores = score_folds(estimators, columns, X, y, splits, accuracy_score)
        rows, best = against(scores, splits)
        by_concat, _ = against(scores, splits, "fuse concat")
        print(f"mfeat, {len(y)} digits, {share:.0%} of the views missing, accuracy over 10 stratified folds\n")
        print(table(rows, best), "\n")
        print(table(by_concat, "fuse concat"), "\n", flush=True)
        parts.append({"missing": share, "best_single": best, "rows": rows, "against_concat": by_concat})
    write("accuracy_mfeat", {"score": "accuracy", "missing": parts}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
