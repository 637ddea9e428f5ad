"""Does it pay to tune an encoder to the target, and how should its vectors reach the learner behind it?

For each set: pretrained and tuned encoder (:class:`skmm.TunedEncoder` at its defaults), with a linear model, gradient
boosting and a support vector machine behind each, on the same folds. Printed are means and standard deviations over
folds, the difference with its corrected resampled t-test, the processor time of a fit of the encoder with what lies
below the trained layers computed before, and how often the encoder stayed as it was since tuning showed no gain on
rows that were held out. Results are written after each set, so that a run that is cut off keeps those it has.

- babies: price of 5,085 baby products by title and table (R2)
- drama: whether 800 films are dramas, by description (AUC)
- monsters text, monsters image: holiness of the monsters of a game, by description or picture (balanced accuracy)
- emoji text, emoji image: group of 1,600 emoji by name or picture, no subgroup on both sides (balanced accuracy)
- fsdd: spoken digits by a keyword network, one speaker left out at a time (accuracy)

``--cross-fit`` compares, on babies, three ways to encode the rows that the learner is fitted on: as
``TunedEncoder.fit_transform`` does, by encoders of five folds that did not see them, and by these with each fold's
space rotated onto that of the encoder fitted on all rows (orthogonal Procrustes).

    OMP_NUM_THREADS=1 python benchmarks/tuned.py [--sets babies drama ...] [--folds 2] [--resume] [--cross-fit]
"""

import argparse
import json
import time
import warnings
from itertools import islice

import numpy as np
import pandas as pd
from _accuracy import ROOT, data_folder, write
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import KFold, LeaveOneGroupOut, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR

from skmm import AudioEncoder, ImageEncoder, TextEncoder, TunedEncoder
from skmm.model_selection import corrected_t_test

# Columns beyond which trees get principal components, so that a fit takes seconds.
MOST_COLUMNS = 384


def babies():
    """Return titles with the columns of the table, and prices."""
    frame = pd.read_csv(data_folder("babies_prices") / "babies_r_us.csv")
    table = frame.drop(columns=["int_id", "ext_id", "SKU", "brand", "price", "title"])
    codes = OrdinalEncoder().set_output(transform="pandas").fit_transform(table.select_dtypes(exclude="number"))
    table = pd.concat([table.select_dtypes("number"), codes], axis=1).to_numpy(float)
    splits = KFold(5, shuffle=True, random_state=0).split(table)
    return TextEncoder(), list(frame["title"]), frame["price"].to_numpy(float), splits, r2_score, table


def drama():
    """Return descriptions, and whether a film is a drama."""
    frame = pd.read_csv(data_folder("imdb_drama") / "imdb.csv")
    y = frame["Genre_is_Drama"].to_numpy(int)
    splits = StratifiedKFold(5, shuffle=True, random_state=0).split(y, y)
    return TextEncoder(), list(frame["Description"]), y, splits, roc_auc_score, None


def monsters(column):
    """Return descriptions or pictures of monsters, and their holiness."""
    folder = data_folder("dcss_monsters")
    frame = pd.read_csv(folder / "monsters.csv").dropna(subset=[column])
    y = np.unique(frame["holiness"], return_inverse=True)[1]
    splits = StratifiedKFold(5, shuffle=True, random_state=0).split(y, y)
    items = list(frame["text"]) if column == "text" else [str(folder / path) for path in frame["image"]]
    return TextEncoder() if column == "text" else ImageEncoder(), items, y, splits, balanced_accuracy_score, None


def emoji(column):
    """Return names or pictures of emoji, and their groups."""
    folder = data_folder("emoji_noto")
    frame = pd.read_csv(folder / "emoji.csv").query("group != 'Flags'")
    y = np.unique(frame["group"], return_inverse=True)[1]
    splits = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(y, y, frame["subgroup"])
    items = list(frame["name"]) if column == "text" else [str(folder / path) for path in frame["file"]]
    return TextEncoder() if column == "text" else ImageEncoder(), items, y, splits, balanced_accuracy_score, None


def fsdd():
    """Return spoken digits, and which they are."""
    from accuracy_fsdd import RATE, load_network, log_mel, read_recordings

    recordings = read_recordings(data_folder("fsdd").parent, None)
    encoder = AudioEncoder(
        load_network(data_folder("weights/bcresnet_kws")), preprocess=log_mel, target_rate=RATE, window=1.0
    )
    y, speakers = recordings["digit"].to_numpy(), recordings["speaker"].to_numpy()
    splits = LeaveOneGroupOut().split(y, y, speakers)
    return encoder, list(recordings["sound"]), y, splits, accuracy_score, None


# From cheap to dear.
SETS = {
    "drama": drama,
    "monsters text": lambda: monsters("text"),
    "emoji text": lambda: emoji("text"),
    "emoji image": lambda: emoji("image"),
    "monsters image": lambda: monsters("image"),
    "fsdd": fsdd,
    "babies": babies,
}


def learners(score):
    """Return the learners behind the encoder, by name."""
    if score is r2_score:
        found = {
            "linear": RidgeCV(np.logspace(-1, 5, 13)),
            "boosting": HistGradientBoostingRegressor(random_state=0),
            "svm": SVR(C=10),
        }
    else:
        found = {
            "linear": LogisticRegression(C=0.1, max_iter=1000),
            "boosting": HistGradientBoostingClassifier(random_state=0),
            "svm": SVC(C=10, class_weight="balanced", random_state=0),
        }
    return {name: make_pipeline(StandardScaler(), learner) for name, learner in found.items()}


def scores_of(rows, y, train, test, score, table):
    """Return the score of each learner on the rows of an encoder, for training rows and test rows in turn."""
    scores = {}
    for name, learner in learners(score).items():
        Z_train, Z_test = rows
        if name == "boosting" and Z_train.shape[1] > MOST_COLUMNS:
            pca = PCA(100, random_state=0).fit(Z_train)
            Z_train, Z_test = pca.transform(Z_train), pca.transform(Z_test)
        if name == "svm" and score is r2_score:
            # Prices are skewed, and this learner has a scale of its own.
            scale, center = y[train].std(), y[train].mean()
            answers = learner.fit(Z_train, (y[train] - center) / scale).predict(Z_test) * scale + center
        else:
            if table is not None and name == "boosting":
                Z_train, Z_test = np.hstack([Z_train, table[train]]), np.hstack([Z_test, table[test]])
            learner.fit(Z_train, y[train])
            answers = learner.predict(Z_test)
            if score is roc_auc_score:
                has_probabilities = hasattr(learner, "predict_proba")
                answers = (
                    learner.predict_proba(Z_test)[:, 1] if has_probabilities else learner.decision_function(Z_test)
                )
        scores[name] = score(y[test], answers)
    return scores


def run(name, n_folds):
    """Score one set; return rows of the table."""
    encoder, items, y, splits, score, table = SETS[name]()
    items = np.array([*items, None], dtype=object)[:-1]
    splits = list(islice(splits, n_folds))
    scores, seconds, n_tuned = {"frozen": [], "tuned": []}, [], 0
    for fold, (train, test) in enumerate(splits):
        tuned = TunedEncoder(encoder, random_state=fold)
        if fold == 0:
            # States of all items, and rows of the pretrained encoder, are in the store from here on.
            encoder.fit(items).transform(items)
            TunedEncoder(encoder, max_epochs=1, random_state=0).fit(items, np.arange(len(items)) % 2)
        start = time.process_time()
        rows = tuned.fit_transform(items[train], y[train]), tuned.transform(items[test])
        seconds.append(time.process_time() - start)
        n_tuned += tuned.tuned_
        frozen = encoder.fit(items[train])
        frozen_rows = frozen.transform(items[train]), frozen.transform(items[test])
        scores["frozen"].append(scores_of(frozen_rows, y, train, test, score, table))
        scores["tuned"].append(scores_of(rows, y, train, test, score, table))
        print(
            f"  {name}, fold {fold}: {tuned.validation_scores_} {scores['frozen'][-1]} {scores['tuned'][-1]}",
            flush=True,
        )
    test_share = np.mean([len(test) / len(train) for train, test in splits])
    rows = []
    for learner in scores["frozen"][0]:
        frozen, tuned = (np.array([fold[learner] for fold in scores[kind]]) for kind in ("frozen", "tuned"))
        p = corrected_t_test(tuned - frozen, test_share).pvalue if len(splits) > 1 else np.nan
        row = {
            **{"set": name, "learner": learner, "frozen": frozen.mean(), "frozen_sd": frozen.std(ddof=1)},
            **{"tuned": tuned.mean(), "tuned_sd": tuned.std(ddof=1), "gain": (tuned - frozen).mean(), "p": p},
            **{"standard_error": (tuned - frozen).std(ddof=1) / np.sqrt(len(splits))},
            **{"cpu_seconds": np.median(seconds), "n_tuned": n_tuned, "n_folds": len(splits)},
        }
        rows.append(row)
        print(
            f"{name:15} {learner:9} {row['frozen']:6.3f} {row['frozen_sd']:6.3f} {row['tuned']:6.3f} "
            f"{row['tuned_sd']:6.3f} {row['gain']:+7.3f} {p:7.3f} {row['cpu_seconds']:8.0f} {n_tuned:3}/{len(splits)}",
            flush=True,
        )
    return rows


def cross_fit():
    """Compare ways to encode the rows that the learner is fitted on, on the first fold of babies."""
    encoder, items, y, splits, score, table = babies()
    items = np.array(items, dtype=object)
    train, test = next(iter(splits))
    tuned = TunedEncoder(encoder, random_state=0, fallback=False)
    plain, of_test = tuned.fit_transform(items[train], y[train]), tuned.transform(items[test])
    folded, rotated = np.empty_like(plain), np.empty_like(plain)
    for fold, (inner, outer) in enumerate(KFold(5, shuffle=True, random_state=0).split(train)):
        inner_tuned = TunedEncoder(encoder, random_state=fold, fallback=False).fit(items[train[inner]], y[train[inner]])
        rows = inner_tuned.transform(items[train])
        folded[outer] = rows[outer]
        rotation, _ = orthogonal_procrustes(rows - rows.mean(axis=0), plain - plain.mean(axis=0))
        rotated[outer] = (rows[outer] - rows.mean(axis=0)) @ rotation + plain.mean(axis=0)
    ways = {"as fit_transform": plain, "cross-fitted": folded, "cross-fitted, rotated": rotated}
    results = {way: scores_of((rows, of_test), y, train, test, score, table) for way, rows in ways.items()}
    for way, scores in results.items():
        print(f"{way:24}", {name: round(value, 3) for name, value in scores.items()})
    return results


def main():
    """Score, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--folds", type=int, help="folds of each set, at most (default: all, 5, or one per speaker)")
    parser.add_argument("--resume", action="store_true", help="keep the results of the sets that are not run now")
    parser.add_argument("--cross-fit", action="store_true", help="compare ways to encode training rows, and end")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    if arguments.cross_fit:
        write("tuned_cross_fit", {"babies": cross_fit()}, time.perf_counter() - start)
        return
    header = f"{'frozen':>6} {'sd':>6} {'tuned':>6} {'sd':>6} {'gain':>7} {'p':>7} {'CPU s':>8} tuned"
    print(f"{'set':15} {'learner':9} {header}")
    path = ROOT / "benchmarks" / "results" / "tuned.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if arguments.resume and path.exists() else []
    rows = [row for row in rows if row["set"] not in arguments.sets]
    for name in arguments.sets:
        rows += run(name, arguments.folds)
        done = list(dict.fromkeys(row["set"] for row in rows))
        left = [name for name in SETS if name not in done]
        write("tuned", {"sets_done": done, "sets_left": left, "rows": rows}, time.perf_counter() - start)
    worse = [row for row in rows if row["gain"] < -row["standard_error"]]
    print(f"\nworse than frozen by more than a standard error: {[(row['set'], row['learner']) for row in worse]}")


if __name__ == "__main__":
    main()
