"""How fast is the search of CrossModalRetriever, and how well does it find across modalities?

**Speed**, for vectors whose variances fall as 1, 1/2, 1/3, ... over all directions, as those of embeddings do: queries
per second, in batches and one at a time, seconds to build, MB of memory that the index adds to that of the vectors, and
the share of the 10 nearest that is found. Sizes are 10,000 and 100,000 x 384, and with ``--million`` 1,000,000 x 128.
Beside the indexes stand scikit-learn's NearestNeighbors (brute force), a matrix product with a partition, and usearch
bare, on the graph of ApproximateIndex. Seconds are CPU time of this process, on one thread.

**Accuracy**, as mean reciprocal rank (MRR) among held-out items, three draws of a fifth:

- emoji: the name from the picture and back (MiniLM and SqueezeNet);
- glyphs: the same (MiniLM and histograms of gradients);
- grocery store: photos of the test set find the iconic image and the description of their class among 81, with a space
  learned from the training photos; and back, where any photo of the class counts.

The retriever at its defaults, without local scaling, without centring, with other embeddings, and tuned by a stock
GridSearchCV over numbers of components on the training rows.

    OMP_NUM_THREADS=1 python benchmarks/retrieval.py [--text-model FOLDER_OR_NAME] [--million] [--parts speed emoji ...]

A run of some parts leaves the results of the others as they are.
"""

import argparse
import json
import os
import time
import warnings

import numpy as np
import pandas as pd
from _accuracy import ROOT, data_folder, read_grocery, write
from accuracy_emoji import image_encoder, load_emoji
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit
from sklearn.neighbors import NearestNeighbors

from skmm import CrossModalRetriever, ImageDescriptor, KernelCCAFusion, TextEncoder
from skmm.datasets import load_glyphs
from skmm.retrieval import ApproximateIndex, ExactIndex

N_NEIGHBORS = 10
BATCH, SINGLES = 512, 50
DRAWS = 3
MODALITIES = [("text", "passthrough", "text"), ("image", "passthrough", "image")]
# Spaces are compared at length in joint.py.
VARIANTS = {
    "defaults": {},
    "without local scaling": {"hubness": None},
    "without centring": {"center": False},
    "CCA": {"embedding": "cca"},
    "anchors": {"embedding": "anchor"},
}
GRID = {"embedding": [KernelCCAFusion(k, random_state=0) for k in (128, 256)]}


# Speed.


def make_vectors(n, width, rng):
    """Return vectors of length 1 with variances that fall as 1, 1/2, 1/3, ... before they are brought to it."""
    vectors = rng.standard_normal(size=(n, width), dtype=np.float32) / np.sqrt(
        np.arange(1, width + 1, dtype=np.float32)
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class MatrixProduct:
    """What one writes by hand: a product and a partition."""

    def fit(self, X):
        self.X = X
        return self

    def kneighbors(self, queries, n):
        found = []
        for start in range(0, len(queries), 64):
            products = queries[start : start + 64] @ self.X.T
            rows = np.argpartition(products, products.shape[1] - n, axis=1)[:, -n:]
            order = np.argsort(-np.take_along_axis(products, rows, axis=1), axis=1)
            found.append(np.take_along_axis(rows, order, axis=1))
        return np.vstack(found)


class Estimator:
    """An index or NearestNeighbors by its method kneighbors."""

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X):
        self.estimator.fit(X)
        return self

    def kneighbors(self, queries, n):
        return self.estimator.kneighbors(queries, n, return_distance=False)


class Bare:
    """The graph of usearch that an ApproximateIndex has built, asked without its checks."""

    def __init__(self, index):
        self.index = index

    def fit(self, X):
        return self

    def kneighbors(self, queries, n):
        return np.atleast_2d(self.index._graph.search(queries, n, threads=1).keys)


def resident():
    """Return the MB that this process has in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def median_seconds(function, repeats):
    """Return the median of the CPU seconds of some calls."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


def measure_speed(n, width, rng):
    """Return a row of results for each index."""
    X, queries = make_vectors(n, width, rng), make_vectors(BATCH, width, rng)
    approximate = ApproximateIndex()
    indexes = {
        "ExactIndex": Estimator(ExactIndex()),
        "matrix product": MatrixProduct(),
        "NearestNeighbors": Estimator(NearestNeighbors(algorithm="brute", metric="euclidean")),
        "ApproximateIndex": Estimator(approximate),
        "usearch bare": Bare(approximate),
    }
    expected, rows = None, []
    print(
        f"\n{n:,} x {width}: queries/s in batches of {BATCH} and one at a time, s to build, MB, recall@10", flush=True
    )
    for name, index in indexes.items():
        before, start = resident(), time.process_time()
        index.fit(X)
        build, memory = time.process_time() - start, resident() - before
        found = index.kneighbors(queries, N_NEIGHBORS)
        expected = found if expected is None else expected
        recall = np.mean([len(set(a) & set(b)) / N_NEIGHBORS for a, b in zip(expected, found, strict=True)])
        batch = BATCH / median_seconds(lambda index=index: index.kneighbors(queries, N_NEIGHBORS), 5)
        singles = queries[:SINGLES]
        single = SINGLES / median_seconds(
            lambda index=index, singles=singles: [index.kneighbors(query[None], N_NEIGHBORS) for query in singles], 3
        )
        row = {"n": n, "width": width, "index": name, "batch": batch, "single": single, "build": build}
        rows.append({**row, "megabytes": max(memory, 0.0), "recall": recall})
        print(f"{name:18} {batch:9,.0f} {single:9,.0f} {build:8.2f} {memory:8.0f} {recall:6.3f}", flush=True)
        del index
    return rows


# Accuracy.


def as_frame(text, image, **columns):
    """Return features as a frame with a column of vectors for each modality."""
    return pd.DataFrame({"text": list(text), "image": list(image), **columns})


def read_emoji(text_model):
    """Return the emoji as features."""
    emoji = load_emoji(data_folder("emoji_noto"))
    weights = data_folder("weights") / "squeezenet1_0" / "squeezenet1_0.safetensors"
    text = TextEncoder(text_model).fit_transform(emoji["name"])
    return as_frame(text, image_encoder(weights).fit_transform(emoji["path"]))


def read_glyphs(text_model):
    """Return the glyphs as features."""
    X, _ = load_glyphs(return_X_y=True)
    return as_frame(TextEncoder(text_model).fit_transform(X["text"]), ImageDescriptor().fit_transform(X["image"]))


def evaluate_pairs(X):
    """Return the MRR of every variant, and tuned, over draws of held-out rows."""
    draws = list(ShuffleSplit(DRAWS, test_size=0.2, random_state=0).split(X))
    results = {}
    for name, options in VARIANTS.items():
        retriever = CrossModalRetriever(MODALITIES, **options)
        scores = [clone(retriever).fit(X.iloc[train]).score(X.iloc[test]) for train, test in draws]
        results[name] = float(np.mean(scores))
        print(f"{name:32} {results[name]:.3f}", flush=True)
    scores, best = [], []
    for train, test in draws:
        search = GridSearchCV(CrossModalRetriever(MODALITIES), GRID, cv=KFold(2, shuffle=True, random_state=0))
        search.fit(X.iloc[train])
        scores.append(search.score(X.iloc[test]))
        best.append(str(search.best_params_))
    results["tuned"] = float(np.mean(scores))
    print(f"{'tuned':32} {results['tuned']:.3f}  {best}", flush=True)
    return {"MRR": results, "tuned": best}


def encode_grocery(text_model):
    """Return photos with their classes and sets, and iconic images and descriptions of the classes, as features."""
    photos = read_grocery()
    products, classes = np.unique(photos["product"], return_inverse=True)
    each = photos.drop_duplicates("product").set_index("product").loc[products]
    weights = data_folder("weights") / "squeezenet1_0" / "squeezenet1_0.safetensors"
    encoder = image_encoder(weights)
    photo, iconic = encoder.fit_transform(photos["photo"]), encoder.transform(each["iconic"])
    return photo, iconic, TextEncoder(text_model).fit_transform(each["description"]), classes, photos["set"].to_numpy()


def evaluate_grocery(photo, other, classes, sets):
    """Return the MRR from photos of the test set to what describes their class, and back."""

    def frame(rows):
        return pd.DataFrame({"photo": list(photo[rows]), "other": list(other[classes[rows]])})

    train, test = np.flatnonzero(sets == "train"), np.flatnonzero(sets == "test")
    modalities = [("photo", "passthrough", "photo"), ("other", "passthrough", "other")]
    results = {}
    for name, options in VARIANTS.items():
        retriever = CrossModalRetriever(modalities, **options).fit(frame(train), groups=classes[train])
        retriever.remove(retriever.labels_)
        retriever.add(pd.DataFrame({"other": list(other)}), labels=[f"class {c}" for c in range(len(other))])
        retriever.add(pd.DataFrame({"photo": list(photo[test])}), labels=test.tolist())
        found = retriever.search(pd.DataFrame({"photo": list(photo[test])}), target="other", n=len(other))
        right = found["label"].str.removeprefix("class ").astype(int) == classes[test][found["query"]]
        forward = (1 / found["rank"][right]).mean()
        found = retriever.search(pd.DataFrame({"other": list(other)}), target="photo", n=len(test))
        right = classes[found["label"].astype(int)] == found["query"]
        backward = (1 / found[right].groupby("query")["rank"].min()).mean()
        results[name] = {"from photos": float(forward), "to photos": float(backward)}
        print(f"{name:32} {forward:.3f} {backward:.3f}", flush=True)
    return {"MRR": results}


def evaluate(name, arguments):
    """Return the results of one part."""
    if name == "speed":
        sizes = [(10_000, 384), (100_000, 384), *([(1_000_000, 128)] if arguments.million else [])]
        rng = np.random.default_rng(0)
        return [row for size in sizes for row in measure_speed(*size, rng)]
    if name in ("emoji", "glyphs"):
        print(f"\n{name}: MRR among held-out items, both ways", flush=True)
        return evaluate_pairs({"emoji": read_emoji, "glyphs": read_glyphs}[name](arguments.text_model))
    photo, iconic, description, classes, sets = encode_grocery(arguments.text_model)
    results = {}
    for other, features in {"iconic image": iconic, "description": description}.items():
        print(f"\ngrocery store, photos and {other}: MRR from photos and to photos", flush=True)
        results[other] = evaluate_grocery(photo, features, classes, sets)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text-model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--million", action="store_true", help="also 1,000,000 x 128, which takes minutes")
    names = ["speed", "emoji", "glyphs", "grocery"]
    parser.add_argument("--parts", nargs="+", default=names, choices=names)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    path = ROOT / "benchmarks" / "results" / "retrieval.json"
    for name in arguments.parts:
        begin = time.perf_counter()
        result = evaluate(name, arguments)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        parts = {part: before[part] for part in names if part in before} | {name: result}
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        write("retrieval", {"threads": threads, "draws": DRAWS, **parts}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
