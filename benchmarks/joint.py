"""Which joint embedding finds one view of an item by the other, with few pairs and with labels?

Sets, each a pair of views with frozen features (MiniLM's of texts, SqueezeNet's 512 of pictures) and classes:

- emoji: names and pictures of 1,600 emoji, 8 groups; held out at random (easy: near-duplicates such as man, woman,
  person stand on both sides) or by subgroup (hard)
- glyphs: names and pictures of 3,048 characters, 12 scripts; names that repeat are one item with several pictures
- grocery: descriptions of 81 products and 5,421 photos of these, 43 kinds; held out at random (descriptions that are
  known with other photos) or by product (neither has been seen)
- mfeat: Fourier coefficients and pixels of 2,000 handwritten digits

A fifth is held out, three times. Of the other rows 100, 10 or 1 % have both views and the rest one of them; 0, 10 or
100 % have a label. Held out, by cosine, from the first view to the second and back:

- recall@1, 5, 10 (whether a member of the pair is among the first) and the mean reciprocal rank (MRR) of the other
  half of the pair, among the different items of the view;
- mean average precision (MAP) of all items of the class;
- balanced accuracy of a logistic regression on the joint features of both, fitted on the rows that have both, with
  all of their labels, which says whether what serves retrieval serves classification.

Seconds are those of one fit, in this process, on as many BLAS threads as the environment allows. All are means over
three draws. Results are written after each set, so that a run that is cut off keeps those it has.

    OMP_NUM_THREADS=1 python benchmarks/joint.py [--text-model FOLDER_OR_NAME] [--sets emoji ...] [--resume]

``--methods`` looks at some of the methods. ``--complete`` looks at all pairs only, with no and all labels, and
writes nothing.
"""

import argparse
import json
import os
import time
import warnings
from dataclasses import dataclass
from itertools import product

import numpy as np
from _accuracy import ROOT, data_folder, read_grocery, write
from accuracy_emoji import image_encoder, load_emoji
from accuracy_mfeat import load as load_mfeat
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit
from sklearn.preprocessing import normalize

from skmm import AnchorFusion, CCAFusion, ContrastiveFusion, KernelCCAFusion, PLSFusion, TextEncoder
from skmm.datasets import load_glyphs
from skmm.metrics import mean_average_precision

METHODS = {
    "CCA": CCAFusion(128),
    "CCA, weighted": CCAFusion(128, weighting="correlation"),
    "PLS, weighted": PLSFusion(128, weighting="correlation"),
    "kernel CCA, weighted": KernelCCAFusion(128, weighting="correlation", random_state=0),
    "kernel CCA, 300 landmarks": KernelCCAFusion(128, n_landmarks=300, weighting="correlation", random_state=0),
    "anchors": AnchorFusion(),
    "anchors, power 1": AnchorFusion(power=1),
    "contrastive, linear": ContrastiveFusion(128, head="linear", random_state=0),
    "contrastive, mlp": ContrastiveFusion(128, head="mlp", random_state=0),
    "contrastive, temperature .5": ContrastiveFusion(128, temperature=0.5, random_state=0),
}
DRAWS = 3
PAIRS = (1.0, 0.1, 0.01)
LABELS = (0.0, 0.1, 1.0)
MEASURES = ("recall@1", "recall@5", "recall@10", "MRR", "MAP")


@dataclass
class Views:
    """Two views of some items.

    Parameters
    ----------
    first, second : ndarray of shape (n_samples, n_features)
        Features.

    y : ndarray of shape (n_samples,)
        Codes of the classes.

    first_items : ndarray of shape (n_samples,)
        Which item the first view shows, as a code: rows of one belong together.

    groups : array-like of shape (n_samples,), default=None
        Rows of one group are held out together.
    """

    first: np.ndarray
    second: np.ndarray
    y: np.ndarray
    first_items: np.ndarray
    groups: np.ndarray | None = None

    @property
    def X(self):
        return np.hstack([self.first, self.second]).astype(float)

    @property
    def columns(self):
        width = self.first.shape[1]
        return {"first": slice(0, width), "second": slice(width, width + self.second.shape[1])}


def codes(values):
    """Return values as codes."""
    return np.unique(np.asarray(values, dtype=str), return_inverse=True)[1]


def emoji(text, image, by_subgroup=False):
    """Return names and pictures of emoji, in groups."""
    frame = load_emoji(data_folder("emoji_noto"))
    groups = frame["subgroup"] if by_subgroup else None
    return Views(text(frame["name"]), image(frame["path"]), codes(frame["group"]), codes(frame.index), groups)


def glyphs(text, image):
    """Return names and pictures of characters, in scripts."""
    frame = load_glyphs(as_frame=True).frame
    names = frame["text"]
    return Views(text(names), image(frame["image"]), codes(frame["target"]), codes(names))


def grocery(text, image, by_product=False):
    """Return descriptions and photos of products, in kinds."""
    frame = read_grocery()
    groups = frame["product"] if by_product else None
    return Views(
        text(frame["description"]), image(frame["photo"]), codes(frame["kind"]), codes(frame["product"]), groups
    )


def mfeat(text, image):
    """Return Fourier coefficients and pixels of digits."""
    X, columns, y = load_mfeat(data_folder("mfeat"))
    return Views(X[:, columns["fou"]], X[:, columns["pix"]], y, codes(np.arange(len(y))))


SETS = {
    "emoji": emoji,
    "emoji by subgroup": lambda text, image: emoji(text, image, by_subgroup=True),
    "glyphs": glyphs,
    "grocery": grocery,
    "grocery by product": lambda text, image: grocery(text, image, by_product=True),
    "mfeat": mfeat,
}


def retrieval(queries, items, query_pairs, item_pairs, query_classes, item_classes):
    """Return the measures of retrieval: each query looks for the items of its pair, and for those of its class."""
    similarity = normalize(queries) @ normalize(items).T
    paired = query_pairs[:, None] == item_pairs
    best = np.where(paired, similarity, -np.inf).max(axis=1)
    # Ties count as misses, so that points that all coincide find nothing.
    ranks = 1 + (~paired & (similarity >= best[:, None])).sum(axis=1)
    recalls = [(ranks <= k).mean() for k in (1, 5, 10)]
    precision = mean_average_precision(query_classes[:, None] == item_classes, similarity)
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


def evaluate(embedding, views, X, train, test, pairs, labels, seed):
    """Return the measures of one embedding in one draw."""
    columns, y = views.columns, views.y
    X_train, y_train = weaken(X[train], y[train], columns, pairs, labels, np.random.default_rng(seed))
    embedding = clone(embedding).set_params(blocks=columns)
    if isinstance(embedding, ContrastiveFusion):
        embedding.set_params(**({"objective": "supcon"} if labels else {}))
    elif "target" in embedding.get_params():
        embedding.set_params(target="block" if labels else None)
    start = time.perf_counter()
    embedding.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    # Of rows that show the same first view, one is looked for and with.
    items = test[np.unique(views.first_items[test], return_index=True)[1]]
    first = embedding.transform_modality(X[items, columns["first"]], "first")
    second = embedding.transform_modality(X[test, columns["second"]], "second")
    pair_codes = views.first_items[items], views.first_items[test]
    complete = train[~np.isnan(X_train).any(axis=1)]
    accuracy = np.nan
    if len(np.unique(y[complete])) > 1:
        classifier = LogisticRegression(max_iter=1000).fit(embedding.transform(X[complete]), y[complete])
        accuracy = balanced_accuracy_score(y[test], classifier.predict(embedding.transform(X[test])))
    return {
        "to second": retrieval(first, second, *pair_codes, y[items], y[test]),
        "to first": retrieval(second, first, *pair_codes[::-1], y[test], y[items]),
        "accuracy": accuracy,
        "seconds": seconds,
    }


def mean_of(results):
    """Return the means of results that are numbers or dicts of results."""
    if isinstance(results[0], dict):
        return {key: mean_of([result[key] for result in results]) for key in results[0]}
    return float(np.mean(results))


def splits_of(views):
    """Return the draws of training and test rows."""
    options = {"n_splits": DRAWS, "test_size": 0.2, "random_state": 0}
    splitter = ShuffleSplit(**options) if views.groups is None else GroupShuffleSplit(**options)
    return list(splitter.split(views.y, groups=views.groups))


def compare(name, views, methods, shares):
    """Return and print a row of measures for each method and share of pairs and labels."""
    X, draws, rows = views.X, splits_of(views), []
    n_first = np.mean([len(np.unique(views.first_items[test])) for _, test in draws])
    n_second = np.mean([len(test) for _, test in draws])
    print(f"\n{name}: {n_first:.0f} items of the first view, {n_second:.0f} of the second; each measure both ways")
    for pairs, labels in shares:
        header = "  ".join(f"{measure:11}" for measure in [*MEASURES, "accuracy", "seconds"])
        print(f"\n{f'{pairs:.0%} pairs, {labels:.0%} labels':28} {header}")
        for method in methods:
            result = mean_of(
                [
                    evaluate(METHODS[method], views, X, train, test, pairs, labels, seed)
                    for seed, (train, test) in enumerate(draws)
                ]
            )
            rows.append({"set": name, "pairs": pairs, "labels": labels, "method": method, **result})
            values = "  ".join(f"{result['to second'][m]:.3f} {result['to first'][m]:.3f}" for m in MEASURES)
            print(f"{method:28} {values}  {result['accuracy']:<11.3f}  {result['seconds']:.2f}", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text-model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--complete", action="store_true", help="only with all pairs, with no and all labels")
    parser.add_argument("--resume", action="store_true", help="add to the results that are there")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    begin = time.perf_counter()
    weights = data_folder("weights") / "squeezenet1_0" / "squeezenet1_0.safetensors"
    text, image = TextEncoder(arguments.text_model).fit_transform, image_encoder(weights).fit_transform
    path = ROOT / "benchmarks" / "results" / "joint.json"
    rows = json.loads(path.read_text())["rows"] if arguments.resume else []
    shares = [(1.0, 0.0), (1.0, 1.0)] if arguments.complete else list(product(PAIRS, LABELS))
    for name in arguments.sets:
        results = compare(name, SETS[name](text, image), arguments.methods, shares)
        rows = [row for row in rows if (row["set"], row["method"]) not in product([name], arguments.methods)] + results
        if not arguments.complete:
            threads = os.environ.get("OMP_NUM_THREADS", "all")
            write("joint", {"draws": DRAWS, "threads": threads, "rows": rows}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
