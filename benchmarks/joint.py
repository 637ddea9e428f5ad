"""Which joint embedding finds the picture to a name and the name to a picture, with few pairs and with labels?

Noto emoji, as in ``accuracy_emoji.py``: MiniLM's text, SqueezeNet's image, 8 groups as classes. A fifth is held out,
at random (easy: near-duplicates such as man, woman, person stand on both sides) or by subgroup (hard), three times. Of
the other rows 100, 10 or 1 % have both modalities and the rest one of them; 0, 10 or 100 % have a label. Held out, by
cosine, from text to image and back:

- recall@1, 5, 10 and the mean reciprocal rank (MRR) of the other half of the pair;
- mean average precision (MAP) of all items of the class;
- balanced accuracy of a logistic regression on the joint features of both, fitted on the rows that have both, with
  all of their labels, which says whether what serves retrieval serves classification.

Seconds are those of one fit, in this process, on as many BLAS threads as the environment allows. All are means over
three draws.

    OMP_NUM_THREADS=1 python benchmarks/joint.py [--text-model FOLDER_OR_NAME] [--methods CCA ...]

A run of some of the methods, or with ``--complete``, writes no result.
"""

import argparse
import os
import time
import warnings
from itertools import product

import numpy as np
from _accuracy import data_folder, write
from accuracy_emoji import encode, load_emoji
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit
from sklearn.preprocessing import normalize

from skmm import AnchorFusion, CCAFusion, ContrastiveFusion, KernelCCAFusion, PLSFusion
from skmm.metrics import mean_average_precision

EMBEDDINGS = {
    "CCA": CCAFusion(128),
    "CCA sumcor": CCAFusion(128, objective="sumcor"),
    "PLS": PLSFusion(128),
    "kernel CCA": KernelCCAFusion(128, random_state=0),
}
CONTRASTIVE = {f"contrastive, {head}": ContrastiveFusion(128, head=head, random_state=0) for head in ("linear", "mlp")}
METHODS = EMBEDDINGS | {
    f"{name}, weighted": clone(embedding).set_params(weighting="correlation") for name, embedding in EMBEDDINGS.items()
}
METHODS |= {f"anchors, power {power}": AnchorFusion(power=power) for power in (1, 2, 3, 4)}
METHODS |= CONTRASTIVE
DRAWS = 3
PAIRS = (1.0, 0.1, 0.01)
LABELS = (0.0, 0.1, 1.0)
MEASURES = ("recall@1", "recall@5", "recall@10", "MRR", "MAP")


def retrieval(queries, items, classes):
    """Return the measures of retrieval: each query looks for the item in its row, and for those of its class."""
    similarity = normalize(queries) @ normalize(items).T
    # Ties count as misses, so that points that all coincide find nothing.
    ranks = (similarity >= np.diag(similarity)[:, None]).sum(axis=1)
    recalls = [(ranks <= k).mean() for k in (1, 5, 10)]
    precision = mean_average_precision(classes[:, None] == classes, similarity)
    return dict(zip(MEASURES, [*recalls, (1 / ranks).mean(), precision], strict=True))


def weaken(X, y, columns, pairs, labels, rng):
    """Return X with this share of complete rows, the others with one modality, and y with this share of labels."""
    order = rng.permutation(len(X))
    n_pairs = max(2, round(pairs * len(X)))
    X, y = X.copy(), y.copy()
    for rows, view in zip((order[n_pairs::2], order[n_pairs + 1 :: 2]), columns.values(), strict=True):
        X[rows, view] = np.nan
    y[rng.random(len(y)) >= labels] = -1
    return X, y


def evaluate(embedding, X, y, columns, train, test, pairs, labels, seed):
    """Return the measures of one embedding in one draw."""
    X_train, y_train = weaken(X[train], y[train], columns, pairs, labels, np.random.default_rng(seed))
    embedding = clone(embedding).set_params(blocks=columns)
    if isinstance(embedding, ContrastiveFusion):
        embedding.set_params(**({"objective": "supcon"} if labels else {}))
    elif "target" in embedding.get_params():
        embedding.set_params(target="block" if labels else None)
    start = time.perf_counter()
    embedding.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    text, image = (embedding.transform_modality(X[test, view], name) for name, view in columns.items())
    complete = train[~np.isnan(X_train).any(axis=1)]
    classifier = LogisticRegression(max_iter=1000).fit(embedding.transform(X[complete]), y[complete])
    return {
        "to image": retrieval(text, image, y[test]),
        "to text": retrieval(image, text, y[test]),
        "accuracy": balanced_accuracy_score(y[test], classifier.predict(embedding.transform(X[test]))),
        "seconds": seconds,
    }


def mean_of(results):
    """Return the means of results that are numbers or dicts of results."""
    if isinstance(results[0], dict):
        return {key: mean_of([result[key] for result in results]) for key in results[0]}
    return float(np.mean(results))


def splits_of(X, groups):
    """Return the draws of training and test rows, by the name of the way in which they are drawn."""
    options = {"n_splits": DRAWS, "test_size": 0.2, "random_state": 0}
    return {
        "random": list(ShuffleSplit(**options).split(X)),
        "by subgroup": list(GroupShuffleSplit(**options).split(X, groups=groups)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text-model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--complete", action="store_true", help="only with all pairs, with no and all labels")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    begin = time.perf_counter()
    emoji = load_emoji(data_folder("emoji_noto"))
    weights = data_folder("weights") / "squeezenet1_0" / "squeezenet1_0.safetensors"
    X, columns = encode(emoji, arguments.text_model, weights)
    y = np.unique(emoji["group"], return_inverse=True)[1]
    rows = []
    for split, draws in splits_of(X, emoji["subgroup"]).items():
        n_test = np.mean([len(test) for _, test in draws])
        print(f"\nemoji, {split}: recall@1 by chance {1 / n_test:.3f}; each measure from text to image, and back")
        shares = [(1.0, 0.0), (1.0, 1.0)] if arguments.complete else product(PAIRS, LABELS)
        for pairs, labels in shares:
            header = "  ".join(f"{name:11}" for name in [*MEASURES, "accuracy", "seconds"])
            print(f"\n{f'{pairs:.0%} pairs, {labels:.0%} labels':28} {header}")
            for name in arguments.methods:
                result = mean_of(
                    [
                        evaluate(METHODS[name], X, y, columns, train, test, pairs, labels, seed)
                        for seed, (train, test) in enumerate(draws)
                    ]
                )
                rows.append({"split": split, "pairs": pairs, "labels": labels, "method": name, **result})
                values = "  ".join(f"{result['to image'][m]:.3f} {result['to text'][m]:.3f}" for m in MEASURES)
                print(f"{name:28} {values}  {result['accuracy']:<11.3f}  {result['seconds']:.2f}", flush=True)
    if arguments.methods == list(METHODS) and not arguments.complete:
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        write("joint", {"draws": DRAWS, "threads": threads, "rows": rows}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
