"""Networks over modalities with default settings, beside logistic regression, voting and stacking on the same features.

Three data sets, each with frozen features of two modalities, and five seeds, each with its own split and random state:

- emoji: 1,600 Noto emoji in 8 groups, MiniLM's embedding of the name and SqueezeNet's of the picture; a fifth of the
  subgroups is left out; balanced accuracy;
- glyphs: 3,048 characters of twelve scripts, MiniLM's embedding of the name and the histogram of gradients of the
  picture; a fifth is left out; balanced accuracy;
- digits: spoken digits (MFCC) paired with handwritten ones (pixels), which is synthetic: nobody wrote and spoke them
  together; one speaker is left out; accuracy.

Logistic regression sees the standardised features of both side by side; voting and stacking have one per modality.
Every fusion of the network is trained with the defaults of ``MultimodalNetClassifier``. The last column says
whether a network's mean lies within one standard deviation (over seeds) of the regression's, or above it.

    OMP_NUM_THREADS=1 python benchmarks/accuracy_networks.py --text-model FOLDER_OR_NAME [--fusions NAME ...]

With ``--fusions`` only networks of these are fitted, and replace their rows in the last results.
"""

import argparse
import json
import time
import warnings

import numpy as np
from _accuracy import ROOT, classifier, data_folder, write
from accuracy_emoji import encode, load_emoji
from accuracy_fsdd import find_data, pair_with_images, read_recordings
from joblib import Parallel, delayed
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from skmm import (
    AudioDescriptor,
    ImageDescriptor,
    ModalityStackingClassifier,
    ModalityVotingClassifier,
    MultimodalNetClassifier,
    TextEncoder,
)
from skmm.datasets import load_glyphs

FUSIONS = ("concat", "sum", "weighted", "gated", "attention", "tensor", "low_rank", "film", "mixture")
SEEDS = range(5)


def read_emoji(text_model):
    """Return blocks, y, splits and score of the emoji."""
    folder, weights = data_folder("emoji_noto"), data_folder("weights") / "squeezenet1_0"
    emoji = load_emoji(folder)
    X, columns = encode(emoji, text_model, weights / "squeezenet1_0.safetensors")
    y = emoji["group"].to_numpy(dtype=object)
    folds = (StratifiedGroupKFold(5, shuffle=True, random_state=seed) for seed in SEEDS)
    splits = [next(fold.split(X, y, emoji["subgroup"])) for fold in folds]
    return {name: X[:, columns[name]].astype(np.float32) for name in columns}, y, splits, balanced_accuracy_score


def read_glyphs(text_model):
    """Return blocks, y, splits and score of the glyphs."""
    X, y = load_glyphs(return_X_y=True)
    blocks = {
        "text": TextEncoder(text_model).fit_transform(X["text"]),
        "image": ImageDescriptor().fit_transform(X["image"]),
    }
    folds = (StratifiedKFold(5, shuffle=True, random_state=seed) for seed in SEEDS)
    splits = [next(fold.split(X, y)) for fold in folds]
    return blocks, y.to_numpy(), splits, balanced_accuracy_score


def read_digits(text_model):
    """Return blocks, y, splits and score of the pairs of spoken and written digits."""
    recordings = read_recordings(find_data(), None)
    positions, images = pair_with_images(recordings)
    recordings = recordings.iloc[positions]
    blocks = {
        "audio": AudioDescriptor().fit_transform(recordings["sound"]),
        "image": ImageDescriptor("pixels", size=8, pixels_per_cell=1).fit_transform(images),
    }
    speakers = recordings["speaker"].to_numpy()
    out = [speakers == speaker for speaker in np.unique(speakers)[SEEDS]]
    splits = [(np.flatnonzero(~test), np.flatnonzero(test)) for test in out]
    return blocks, recordings["digit"].to_numpy(), splits, accuracy_score


def estimators(columns, seed, fusions, **settings):
    """Return everything that is compared, by its label in the table; of given fusions the networks alone."""
    passed = [(view, "passthrough", part) for view, part in columns.items()]
    networks = {
        f"net {fusion}": MultimodalNetClassifier(passed, fusion, device="cpu", random_state=seed, **settings)
        for fusion in fusions or FUSIONS
    }
    if fusions:
        return networks
    members = [(view, classifier(), part) for view, part in columns.items()]
    found = {f"{view} alone": ModalityVotingClassifier([member]) for view, member in zip(columns, members, strict=True)}
    found["concat + regression"] = classifier()
    found["vote soft"] = ModalityVotingClassifier(members)
    found["stack"] = ModalityStackingClassifier(members)
    return found | networks


def score_seed(columns, X, y, train, test, score, seed, fusions, **settings):
    """Return the score and the seconds of the fit of everything with one seed."""
    scores = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for label, estimator in estimators(columns, seed, fusions, **settings).items():
            start = time.perf_counter()
            estimator.fit(X[train], y[train])
            seconds = time.perf_counter() - start
            scores[label] = score(y[test], estimator.predict(X[test])), seconds
    return scores


def compare(blocks, y, splits, score, kept=(), fusions=(), **settings):
    """Return one row per strategy, with its scores and where it stands beside logistic regression.

    With ``fusions`` only these are fitted; the other rows are those that are kept.
    """
    ends = np.cumsum([block.shape[1] for block in blocks.values()])
    columns = {view: slice(end - blocks[view].shape[1], end) for view, end in zip(blocks, map(int, ends), strict=True)}
    X = np.hstack(list(blocks.values())).astype(np.float32)
    seeds = Parallel(n_jobs=2)(
        delayed(score_seed)(columns, X, y, *split, score, seed, fusions, **settings)
        for seed, split in zip(SEEDS, splits, strict=True)
    )
    rows = []
    for label in seeds[0]:
        scores, seconds = (np.array([found[label][i] for found in seeds]) for i in (0, 1))
        rows.append({"strategy": label, "mean": scores.mean(), "sd": scores.std(ddof=1), "scores": scores.tolist()})
        rows[-1]["seconds"] = np.median(seconds)
    fresh = {row["strategy"]: row for row in rows}
    rows = [fresh.get(row["strategy"], row) for row in kept] or rows
    reference = next(row for row in rows if row["strategy"] == "concat + regression")
    for row in rows:
        row["within_one_sd"] = bool(row["mean"] >= reference["mean"] - reference["sd"])
    return rows


def main():
    """Compare on all data sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text-model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="name of a sentence-transformers model on the hub, or a local folder (default: %(default)s)",
    )
    parser.add_argument("--fusions", nargs="+", choices=FUSIONS, default=(), help="fit only networks of these")
    arguments = parser.parse_args()
    last = {}
    if arguments.fusions:
        last = json.loads((ROOT / "benchmarks" / "results" / "accuracy_networks.json").read_text())["data"]
    begin = time.perf_counter()
    parts = {}
    for name, read in {"emoji": read_emoji, "glyphs": read_glyphs, "digits": read_digits}.items():
        blocks, y, splits, score = read(arguments.text_model)
        kept = last[name]["rows"] if last else ()
        rows = compare(blocks, y, splits, score, kept, arguments.fusions)
        widths = ", ".join(f"{view} {block.shape[1]}" for view, block in blocks.items())
        print(f"\n{name}: {len(y)} rows, features: {widths}; {score.__name__}, {len(SEEDS)} seeds\n")
        print(f"{'strategy':22} {'mean':>6} {'sd':>6} {'fit s':>7}  within one sd of the regression, or above")
        for row in rows:
            verdict = "yes" if row["within_one_sd"] else "NO"
            print(
                f"{row['strategy']:22} {row['mean']:6.3f} {row['sd']:6.3f} {row['seconds']:7.1f}  {verdict}", flush=True
            )
        parts[name] = {"n_samples": len(y), "score": score.__name__, "rows": rows}
    write("accuracy_networks", {"seeds": len(SEEDS), "data": parts}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
