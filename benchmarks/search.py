"""What does a search over a pipeline with an encoder cost, with and without the embedding store?

``GridSearchCV`` with 8 candidates and 5 folds over all-MiniLM-L6-v2 and a logistic regression; seconds, medians of
interleaved runs, models loaded outside the clock where a package keeps them:

- a: embeddings computed outside, the search over the classifier alone; the limit, as "encode" is one pass;
- skmm cold and warm: ``TextEncoder`` with an empty store, and with one that holds everything; one and two workers,
  these started outside the clock;
- b: scikit-learn's ``Pipeline(memory=...)`` around ``TextEncoder(store=None)``;
- c: skrub's ``TextEncoder``; d: embetter's ``SentenceEncoder``, plain and in its ``cached`` (each left out where the
  package is absent). With ``--slow``, in place of the searches with two workers; these encode again and again, and
  run once.

Texts: names of characters, short as they are, and eight of them in a row; with ``--slow`` only these, and with a ridge
classifier, so that the encoder dominates. Also the rate at which 10,000 texts are read from a warm store.

    python benchmarks/search.py [--runs 3] [--samples 240] [--slow]
"""

import argparse
import gc
import statistics
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from _accuracy import write
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skmm import TextEncoder
from skmm.datasets import load_glyphs

STRENGTHS = [10.0**i for i in range(-4, 4)]
CLASSIFIERS = {"logistic": (LogisticRegression(max_iter=200), "clf__C"), "ridge": (RidgeClassifier(), "clf__alpha")}


def seconds(call):
    """Time one call, as timeit does without the garbage collector, which stops for half a second now and then."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    finally:
        gc.enable()


def run_search(classifier, steps, X, y, n_jobs=1, memory=None):
    """Search once."""
    last, parameter = CLASSIFIERS[classifier]
    pipe = Pipeline([*steps, ("clf", last)], memory=memory)
    GridSearchCV(pipe, {parameter: STRENGTHS}, cv=5, n_jobs=n_jobs, error_score="raise").fit(X, y)


def ready(texts):
    """Load the model in a worker."""
    TextEncoder(store=None).fit_transform(texts)


def others(folder):
    """Give steps of other packages, by name, with what must be empty before each run."""
    found = {}
    name = TextEncoder()._find_source().folder
    try:
        from skrub import TextEncoder as SkrubEncoder
    except ImportError:
        pass
    else:
        found["c skrub"] = lambda run: [("encode", SkrubEncoder(name, n_components=None))]
    try:
        from embetter.text import SentenceEncoder
        from embetter.utils import cached
    except ImportError:
        pass
    else:
        found["d embetter"] = lambda run: [("encode", SentenceEncoder(name))]
        found["d embetter cached"] = lambda run: [
            ("encode", cached(str(folder / f"cached{run}"), SentenceEncoder(name)))
        ]
    return found


def time_searches(classifier, texts, y, runs, slow):
    """Seconds of each way to search."""
    search = partial(run_search, classifier)
    found = {}
    plain = TextEncoder(store=None).fit(texts)
    embedded = plain.transform(texts)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ways = {
            "encode": lambda run: plain.transform(texts),
            "a precomputed": lambda run: search([], embedded, y),
        }
        if not slow:
            ways["a precomputed, 2 workers"] = lambda run: search([], embedded, y, n_jobs=2)
        for n_jobs, label in ((1, ""),) if slow else ((1, ""), (2, ", 2 workers")):
            for state in ("cold", "warm"):
                # The warm search finds what the cold one before it left.
                ways[f"skmm {state}{label}"] = lambda run, n_jobs=n_jobs: search(
                    [("encode", TextEncoder(store=folder / f"store{n_jobs}{run}"))], texts, y, n_jobs
                )
        fast = set(ways)
        if slow:
            ways["b memory"] = lambda run: search(
                [("encode", TextEncoder(store=None))], texts, y, memory=str(folder / f"memory{run}")
            )
            for name, steps in others(folder).items():
                ways[name] = lambda run, steps=steps: search(steps(run), texts, y)
        if not slow:
            Parallel(n_jobs=2)(delayed(ready)(texts[:20]) for _ in range(4))
        for run in range(runs):
            for name, way in ways.items():
                if run and name not in fast:
                    continue
                found.setdefault(name, []).append(seconds(lambda way=way, run=run: way(run)))
    return {name: statistics.median(times) for name, times in found.items()}


def time_warm_transform(runs, n_texts=10_000):
    """Rows per second of a store that holds everything; the rows are random, which reading does not notice."""

    class Random(TextEncoder):
        def _encode_batch(self, batch, model):
            return np.random.default_rng(0).normal(size=(len(batch), 384)).astype(np.float32)

    texts = [f"Item number {i}, which is {'red' if i % 2 else 'green'} and costs {i % 97}." for i in range(n_texts)]
    with tempfile.TemporaryDirectory() as folder:
        encoder = Random(store=folder).fit(texts)
        encoder.transform(texts)
        return n_texts / statistics.median(seconds(lambda: encoder.transform(texts)) for _ in range(3 * runs))


def main():
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=240)
    parser.add_argument("--slow", action="store_true", help="also time what encodes again: b, c and d")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    X, y = load_glyphs(n_samples=arguments.samples, return_X_y=True)
    names = X["text"].tolist()
    rows_of_names = [" ".join(names[(i + 31 * k) % len(names)] for k in range(8)) for i in range(len(names))]
    tasks = {"eight names": rows_of_names} if arguments.slow else {"names": names, "eight names": rows_of_names}
    rows = []
    for task, texts in tasks.items():
        classifier = "ridge" if arguments.slow else "logistic"
        found = time_searches(classifier, pd.Series(texts), y, arguments.runs, arguments.slow)
        for name, taken in found.items():
            n_workers = ", 2 workers" if "2 workers" in name else ""
            limit = found["a precomputed" + n_workers] + found["encode"] * ("cold" in name)
            rows.append({"task": task, "classifier": classifier, "what": name, "seconds": taken})
            rows[-1] |= {"over_limit": taken / limit, "over_skmm_cold": taken / found["skmm cold"]}
            print(f"{task:12} {classifier:8} {name:28} {taken:8.2f} s   / limit {taken / limit:6.2f}   ", end="")
            print(f"/ skmm cold {taken / found['skmm cold']:6.2f}", flush=True)
    rate = time_warm_transform(arguments.runs)
    print(f"warm transform of 10,000 texts: {rate:,.0f} rows/s")
    name = "search_slow" if arguments.slow else "search"
    write(name, {**vars(arguments), "warm_rows_per_second": rate, "rows": rows}, time.perf_counter() - start)


if __name__ == "__main__":
    main()
