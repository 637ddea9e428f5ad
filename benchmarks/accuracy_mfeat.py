"""Does joining six views of handwritten digits beat the best of them?

UCI multiple features: 2,000 digits in 10 classes, as Fourier coefficients (fou, 76), profile correlations (fac, 216),
Karhunen-Loeve coefficients (kar, 64), pixel averages (pix, 240), Zernike moments (zer, 47) and morphology (mor, 6).
Standardised views and logistic regression throughout; accuracy over 10 stratified folds, twice; each strategy against
the best single view by the corrected resampled t-test, two-sided, with Holm's correction over the strategies.

    OMP_NUM_THREADS=1 python benchmarks/accuracy_mfeat.py
"""

import time

import numpy as np
from _accuracy import compare, data_folder, table, write
from sklearn.metrics import accuracy_score
from sklearn.model_selection import RepeatedStratifiedKFold

VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")


def load(folder):
    """Give all views side by side, the columns of each, and the digits."""
    parts, columns, start = [], {}, 0
    for view in VIEWS:
        data = np.loadtxt(folder / f"mfeat-{view}.csv", delimiter=",", skiprows=1)
        parts.append(data[:, :-1])
        columns[view] = slice(start, start + data.shape[1] - 1)
        start = columns[view].stop
    return np.hstack(parts), columns, data[:, -1].astype(int)


def main():
    begin = time.perf_counter()
    X, columns, y = load(data_folder("mfeat"))
    cv = RepeatedStratifiedKFold(n_splits=10, n_repeats=2, random_state=0)
    rows, best = compare(columns, X, y, cv.split(X, y), accuracy_score)
    print(f"mfeat, {len(y)} digits, accuracy over 10 stratified folds, twice\n")
    print(table(rows, best))
    write("accuracy_mfeat", {"score": "accuracy", "best_single": best, "rows": rows}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
