"""Which ridge of CCA is worth being the default, and what does it do where columns outnumber rows?

For each ridge, two scores over 5 stratified folds: the mean correlation of the variates in held-out rows (what CCA is
about), and the balanced accuracy of a logistic regression on the variates (what fusion is for). Data:

- glyphs: MiniLM embeddings of names (384 columns) and HOG of pictures (1,788), 3,048 characters of 12 scripts;
- mfeat: Fourier coefficients (76) and pixel averages (240), and profile correlations (216) and Karhunen-Loeve
  coefficients (64), of 2,000 digits;
- nutrimouse: 120 gene expressions and 21 fatty acids of 40 mice, on 5 diets. For these also the correlations of the
  variates of mice left out one by one.

"auto" is Ledoit-Wolf, "oas" the oracle approximating shrinkage of scikit-learn on the same scaled blocks, "cv" the
choice among ten values by held-out correlation.

Then the choice of "cv", by one fifth of the rows, beside that of ``GridSearchCV`` over the same ten values and five
folds: both in samples of so many rows, judged by what the correlation in the other rows falls short of under the best
of the ten, means over several samples; and the time of either in fits of one ridge (medians).

    OMP_NUM_THREADS=1 python benchmarks/cca_ridge.py
"""

import statistics
import time
import warnings

import numpy as np
from _accuracy import classifier, data_folder, write
from sklearn.covariance import oas
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneOut, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from skmm import CCAFusion, ImageDescriptor, TextEncoder
from skmm.datasets import load_glyphs

RIDGES = (0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0, "auto", "oas", "cv")
# Those that "cv" chooses from.
CANDIDATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
SAMPLES = (30, 100, 200, 500, 1000, 1600)
N_DRAWS = 10


def side_by_side(parts):
    """Give blocks as one matrix, and their columns."""
    ends = np.cumsum([block.shape[1] for block in parts.values()]).tolist()
    return np.hstack(list(parts.values())), {
        name: slice(end - block.shape[1], end) for (name, block), end in zip(parts.items(), ends, strict=True)
    }


def table_of(folder, name):
    return np.loadtxt(folder / f"{name}.csv", delimiter=",", skiprows=1)


def data_sets():
    """Yield name, matrix, blocks, target and number of components."""
    X, y = load_glyphs(return_X_y=True)
    parts = {"text": TextEncoder().fit_transform(X["text"]), "image": ImageDescriptor().fit_transform(X["image"])}
    glyphs = side_by_side(parts)
    for k in (32, 128):
        yield f"glyphs, {k} components", *glyphs, y.to_numpy(), k
    folder = data_folder("mfeat")
    digits = table_of(folder, "mfeat-fou")[:, -1].astype(int)
    for views in (("fou", "pix"), ("fac", "kar")):
        blocks = {view: table_of(folder, f"mfeat-{view}")[:, :-1] for view in views}
        yield f"mfeat, {' and '.join(views)}, 32 components", *side_by_side(blocks), digits, 32
    folder = data_folder("nutrimouse")
    diets = np.loadtxt(folder / "diet.csv", dtype=str, skiprows=1)
    blocks = {"genes": table_of(folder, "gene"), "lipids": table_of(folder, "lipid")}
    yield "nutrimouse, 3 components", *side_by_side(blocks), np.unique(diets, return_inverse=True)[1], 3


def fitted(X, blocks, ridge, k):
    """Fit CCA with a ridge by its name."""
    if ridge == "oas":
        ridge = {name: float(oas(StandardScaler().fit_transform(X[:, own]))[1]) for name, own in blocks.items()}
    return CCAFusion(k, regularization=ridge, blocks=blocks).fit(X)


def score(X, blocks, y, ridge, k):
    """Mean held-out correlation and balanced accuracy over 5 folds."""
    found = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(X, y):
        fusion = fitted(X[train], blocks, ridge, k)
        model = classifier().fit(fusion.transform(X[train]), y[train])
        accuracy = balanced_accuracy_score(y[test], model.predict(fusion.transform(X[test])))
        found.append((fusion.score(X[test]), accuracy))
    return np.mean(found, axis=0)


def leave_one_out(X, blocks, ridge, k):
    """Correlations of the variates of rows that were left out."""
    rows = [fitted(X[train], blocks, ridge, k).transform(X[test])[0] for train, test in LeaveOneOut().split(X)]
    a, b = np.split(np.array(rows), 2, axis=1)
    return [float(np.corrcoef(a[:, i], b[:, i])[0, 1]) for i in range(k)]


def fit_timed(estimator, X):
    """Give the seconds of a fit, and the fitted estimator."""
    start = time.perf_counter()
    estimator.fit(X)
    return time.perf_counter() - start, estimator


def choices(X, blocks, k, n_rows):
    """Mean shortfall in correlation, and median time in fits, of two ways to choose a ridge in ``n_rows`` rows."""
    folds = KFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(CCAFusion(k, blocks=blocks), {"regularization": CANDIDATES}, cv=folds)
    shortfalls, times = {"cv": [], "grid": []}, {"fit": [], "cv": [], "grid": []}
    rng = np.random.default_rng(0)
    for _ in range(N_DRAWS if X.shape[1] < 1000 else 3):
        order = rng.permutation(len(X))
        sample, others = X[order[:n_rows]], X[order[n_rows:]]
        reached = {}
        for ridge in CANDIDATES:
            taken, fusion = fit_timed(CCAFusion(k, regularization=ridge, blocks=blocks), sample)
            times["fit"].append(taken)
            reached[ridge] = fusion.score(others)
        taken, fusion = fit_timed(CCAFusion(k, regularization="cv", blocks=blocks), sample)
        times["cv"].append(taken)
        taken, found = fit_timed(search, sample)
        times["grid"].append(taken)
        chosen = {"cv": next(iter(fusion.regularization_.values())), "grid": found.best_params_["regularization"]}
        for way, ridge in chosen.items():
            shortfalls[way].append(max(reached.values()) - reached[ridge])
    fit = statistics.median(times["fit"])
    return {
        way: {"shortfall": float(np.mean(shortfalls[way])), "fits": statistics.median(times[way]) / fit}
        for way in shortfalls
    }


def main():
    """Score, print, and write."""
    warnings.simplefilter("ignore")
    begin = time.perf_counter()
    rows = []
    for name, X, blocks, y, k in data_sets():
        print(f"\n{name}: {len(X)} rows", flush=True)
        for ridge in RIDGES:
            correlation, accuracy = score(X, blocks, y, ridge, k)
            row = {"data": name, "ridge": ridge, "correlation": correlation, "accuracy": accuracy}
            line = f"  {ridge!s:6} held-out correlation {correlation:.3f}   balanced accuracy {accuracy:.3f}"
            if name.startswith("nutrimouse"):
                row["left_out"] = leave_one_out(X, blocks, ridge, k)
                line += "   left out one by one " + " ".join(f"{value:.2f}" for value in row["left_out"])
            rows.append(row)
            print(line, flush=True)
    chosen = []
    for name, X, blocks, _, k in data_sets():
        if k == 128:
            continue
        print(f"\n{name}: choosing", flush=True)
        # Rows must outnumber components for anything to be left that they have in common.
        for n_rows in (n for n in SAMPLES if 2 * k < n <= 0.8 * len(X)):
            found = choices(X, blocks, k, n_rows)
            chosen.append({"data": name, "n_rows": n_rows, **found})
            line = [f"{way} {row['shortfall']:.4f} below, {row['fits']:.1f} fits" for way, row in found.items()]
            print(f"  {n_rows:5} rows: {'   '.join(line)}", flush=True)
    write("cca_ridge", {"rows": rows, "choices": chosen}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
