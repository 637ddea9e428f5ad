"""What the accuracy benchmarks share: data folders, strategies, folds, the test against the best single view."""

import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skmm
from skmm import (
    AverageFusion,
    CCAFusion,
    ConcatFusion,
    KernelCCAFusion,
    KernelFusion,
    LDAFusion,
    ModalityFuser,
    ModalityStackingClassifier,
    ModalityVotingClassifier,
    PCAFusion,
    PLSFusion,
    ProductFusion,
)
from skmm.model_selection import corrected_t_test, holm

ROOT = Path(__file__).resolve().parents[1]
RULES = ("soft", "hard", "product", "max", "median", "rank")
# Every fusion of features and joint embedding.
FUSIONS = {
    "concat": ConcatFusion(),
    "average": AverageFusion(),
    "average, not aligned": AverageFusion(align=False),
    "average, random maps": AverageFusion(reduction="random", random_state=0),
    "average, weights cv": AverageFusion(weights="cv"),
    "product, outer": ProductFusion(random_state=0),
    "product, hadamard": ProductFusion("hadamard", max_features=1024, random_state=0),
    "product, compact": ProductFusion("compact", max_features=1024, random_state=0),
    "pca": PCAFusion(64),
    "lda": LDAFusion(),
    "cca": CCAFusion(32),
    "pls": PLSFusion(32),
    "kernel": KernelFusion(random_state=0),
    "kernel, alignment": KernelFusion(weights="alignment", random_state=0),
    "kernel_cca": KernelCCAFusion(32, random_state=0),
}


def data_folder(name):
    """Give a folder of the shared data, or end with a message that says how to provide it."""
    base = Path(os.environ.get("SKMM_DATA", ROOT.parent / "shared" / "data"))
    folder = base / name
    if not folder.is_dir():
        sys.exit(
            f"This benchmark needs the folder {name!r}, which is not at ../shared/data next to the project; "
            "set the environment variable SKMM_DATA to the folder that holds it."
        )
    return folder


def classifier():
    """Give the one classifier of all rows."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def strategies(columns):
    """Give every strategy over views with the given columns, by its label in the table.

    Parameters
    ----------
    columns : dict of str to slice
        Columns of each view.
    """
    members = [(view, classifier(), part) for view, part in columns.items()]
    blocks = [(view, "passthrough", part) for view, part in columns.items()]
    found = fused(blocks, FUSIONS)
    # The rules are applied to the members fitted for "vote soft", which do not depend on the rule.
    found["vote soft"] = ModalityVotingClassifier(members)
    found["vote soft, calibrated"] = ModalityVotingClassifier(members, calibration="temperature")
    for rule in ("soft", "hard", "product"):
        found[f"vote {rule}, weights auto"] = ModalityVotingClassifier(members, rule, weights="auto")
    final = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    found["stack"] = ModalityStackingClassifier(members)
    found["stack + columns"] = ModalityStackingClassifier(members, final, passthrough=True)
    pca = ModalityFuser(blocks, PCAFusion(64))
    found["stack + fused pca"] = ModalityStackingClassifier(members, final, passthrough=pca)
    return found


def fused(blocks, fusions):
    """Give the classifier on each fusion of the same blocks, by its label in the table."""
    return {
        f"fuse {label}": make_pipeline(ModalityFuser(blocks, fusion), classifier()) for label, fusion in fusions.items()
    }


def score_fold(estimators, columns, X, y, train, test, score):
    """Give the score of every strategy, and of every view alone, in one fold."""
    scores = {}
    labels, counts = np.unique(y[train], return_counts=True)
    # What a view alone answers where it is missing.
    most_frequent = labels[counts.argmax()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for label, estimator in estimators.items():
            fitted = clone(estimator).fit(X[train], y[train])
            if label == "vote soft":
                alone = fitted.predict_by_modality(X[test])
                for view in columns:
                    answers = np.where(pd.isna(alone[view]), most_frequent, alone[view]).astype(y.dtype)
                    scores[f"{view} alone"] = score(y[test], answers)
                for rule in RULES:
                    fitted.set_params(voting=rule)
                    scores[f"vote {rule}"] = score(y[test], fitted.predict(X[test]))
            else:
                scores[label] = score(y[test], fitted.predict(X[test]))
    return scores


def compare(columns, X, y, splits, score):
    """Score all strategies on the same folds and test each against the best single view.

    Returns
    -------
    rows : list of dict
        One per strategy, best first.
    """
    splits = list(splits)
    return against(score_folds(strategies(columns), columns, X, y, splits, score), splits)


def score_folds(estimators, columns, X, y, splits, score):
    """Score strategies, "vote soft" among them, and every view alone on the same folds, by label."""
    folds = Parallel(n_jobs=2)(delayed(score_fold)(estimators, columns, X, y, *split, score) for split in splits)
    return {label: np.array([fold[label] for fold in folds]) for label in folds[0]}


def against(scores, splits, reference=None):
    """Test each strategy against one of them, the best single view by default.

    Returns
    -------
    rows : list of dict
        One per strategy, best first.
    """
    singles = [label for label in scores if label.endswith(" alone")]
    best = reference or max(singles, key=lambda label: scores[label].mean())
    test_share = np.mean([len(test) / len(train) for train, test in splits])
    rows = [
        {"strategy": label, "mean": values.mean(), "sd": values.std(ddof=1), "folds": values.tolist()}
        for label, values in scores.items()
    ]
    joined = [row for row in rows if row["strategy"] not in (*singles, best)]
    for row in joined:
        difference = scores[row["strategy"]] - scores[best]
        row["gain"] = difference.mean()
        test = corrected_t_test(difference, test_share)
        row["t"], row["p"] = test.statistic, test.pvalue
    for row, p in zip(joined, holm([row["p"] for row in joined]), strict=True):
        row["p_holm"] = p
        row["verdict"] = "no difference shown" if p >= 0.05 else ("better" if row["gain"] > 0 else "worse")
    return sorted(rows, key=lambda row: -row["mean"]), best


def table(rows, best):
    """Give the rows as text."""
    lines = [f"{'strategy':26} {'mean':>6} {'sd':>6} {'gain':>7} {'p':>8} {'p Holm':>8}  against {best}"]
    for row in rows:
        line = f"{row['strategy']:26} {row['mean']:6.3f} {row['sd']:6.3f}"
        if "p" in row:
            line += f" {row['gain']:+7.3f} {row['p']:8.1e} {row['p_holm']:8.1e}  {row['verdict']}"
        lines.append(line)
    return "\n".join(lines)


def read_grocery():
    """Return a row for each photo of the grocery store: its path, set, product, kind, and what describes the product.

    The latter are the text of its description and the path of its iconic image, one for each of the 81 products.
    """
    folder = data_folder("grocery_store")
    options = {"names": ["photo", "number", "kind"], "skipinitialspace": True}
    sets = ("train", "val", "test")
    photos = pd.concat([pd.read_csv(folder / f"{name}.txt", **options).assign(set=name) for name in sets])
    products = pd.read_csv(folder / "classes.csv", skipinitialspace=True)
    products = products.rename(columns=lambda name: name.rpartition(" (")[0])
    texts = [f"{folder}{path.strip()}" for path in products["Product Description Path"]]
    products["description"] = [Path(path).read_text(encoding="utf-8").strip() for path in texts]
    rows = products.set_index("Class ID").loc[photos["number"]].reset_index(drop=True)
    return pd.DataFrame(
        {
            "photo": [f"{folder}/{path}" for path in photos["photo"]],
            "set": photos["set"].to_numpy(),
            "product": rows["Class Name"],
            "kind": rows["Coarse Class Name"],
            "description": rows["description"],
            "iconic": [f"{folder}{path.strip()}" for path in rows["Iconic Image Path"]],
        }
    )


def write(name, parts, seconds):
    """Write the one JSON of a benchmark."""
    versions = {"python": platform.python_version(), "skmm": skmm.__version__, "scikit-learn": sklearn.__version__}
    content = {"benchmark": name, "versions": versions, "seconds": round(seconds), **parts}
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    rounded = json.loads(json.dumps(content, default=float), parse_float=lambda text: float(f"{float(text):.6g}"))
    path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    print(f"\nWritten: {path.relative_to(ROOT)} ({time.strftime('%H:%M:%S', time.gmtime(seconds))} in all)")
