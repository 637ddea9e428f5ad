"""How many items do the workers of a search encode twice, and what do claims in the store cost or save?

    OMP_NUM_THREADS=1 python benchmarks/workers.py

A stock grid search with 2 and with 4 processes over texts. The forward pass is replaced by a pause that grows with the
number of tokens, so that the network's speed and the load of the machine hardly matter. Side by side: with claims, and
without them, when workers only start at different places. Prints the share that is encoded twice and the seconds,
medians of several runs.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from joblib.externals.loky import get_reusable_executor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skmm import TextEncoder

SECONDS_PER_TOKEN = 5e-5


class SlowEncoder(TextEncoder):
    """Text encoder that pauses instead of running the network, and writes down how many texts it encodes."""

    def _learn(self, run):
        if os.environ["SKMM_CLAIMS"] == "0":
            run.store.claim = lambda keys, owner: np.ones(len(keys), dtype=bool)
        super()._learn(run)

    def _encode_batch(self, batch, model):
        time.sleep(SECONDS_PER_TOKEN * sum(len(item.tokens["input_ids"]) for item in batch))
        with open(os.environ["SKMM_COUNTS"], "a") as file:
            file.write(f"{len(batch)}\n")
        return np.array([[len(item.text)] * 384 for item in batch], dtype=np.float32)


SlowEncoder.__init__ = TextEncoder.__init__


def make_texts(n_texts):
    rng = np.random.default_rng(0)
    words = ["cat", "dog", "rain", "snow", "home", "ran", "sat", "far", "and", "away"]
    return [f"{i} " + " ".join(rng.choice(words, size=rng.integers(5, 60))) for i in range(n_texts)]


def search(texts, n_jobs, claims):
    """Return the number of texts that a search encodes, and its seconds."""
    y = np.arange(len(texts)) % 7
    with tempfile.TemporaryDirectory() as folder:
        # New workers, which see the environment.
        get_reusable_executor().shutdown(wait=True)
        os.environ |= {"SKMM_CLAIMS": str(int(claims)), "SKMM_COUNTS": f"{folder}/counts"}
        pipe = make_pipeline(SlowEncoder(store=f"{folder}/store"), Ridge())
        start = time.perf_counter()
        GridSearchCV(pipe, {"ridge__alpha": [1, 10]}, cv=5, n_jobs=n_jobs, refit=False).fit(texts, y)
        seconds = time.perf_counter() - start
        return sum(map(int, Path(f"{folder}/counts").read_text().split())), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-texts", type=int, default=1152)
    parser.add_argument("--n-runs", type=int, default=3)
    options = parser.parse_args()
    texts = make_texts(options.n_texts)
    for n_jobs in (2, 4):
        runs = {True: [], False: []}
        for _ in range(options.n_runs):
            for claims, results in runs.items():
                results.append(search(texts, n_jobs, claims))
        for claims, results in runs.items():
            share = statistics.median(count / len(texts) - 1 for count, _ in results)
            seconds = statistics.median(seconds for _, seconds in results)
            print(f"{n_jobs} workers, {'with' if claims else 'without'} claims: {share:.1%} twice, {seconds:.1f} s")


if __name__ == "__main__":
    main()
