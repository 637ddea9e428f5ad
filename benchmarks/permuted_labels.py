"""How often does compare_fusions call a strategy better where there is nothing to find?

A hundred times the labels of 60 rows are permuted, so that no strategy can be better than a single modality, and all
strategies but the network are compared. The level of the tests, 5 %, bounds the share of comparisons in which any
strategy at all is called better. Beside it, on the same scores: the ordinary paired t-test against the single modality
that looked best, without corrections.

    OMP_NUM_THREADS=1 python benchmarks/permuted_labels.py
"""

import time
import warnings

import numpy as np
from _accuracy import write
from joblib import Parallel, delayed
from scipy.stats import ttest_rel
from sklearn.datasets import make_classification
from sklearn.naive_bayes import GaussianNB

from skmm.model_selection import compare_fusions

N_SEEDS = 100
MODALITIES = [("a", "passthrough", slice(0, 2)), ("b", "passthrough", slice(2, 4))]


def run(X, y, seed):
    """Return whether any strategy is called better, by compare_fusions and by the plain test."""
    permuted = np.random.default_rng(seed).permutation(y)
    levels = ("single", "feature", "joint", "decision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"levels": levels, "random_state": seed, "refit": False, "on_error": "raise"}
        comparison = compare_fusions(GaussianNB(), X, permuted, modalities=MODALITIES, **options)
        frame, folds = comparison.to_frame(), comparison.fold_scores()
        best = folds[frame.index[frame["verdict"] == "best single"][0]]
        plain = [
            ttest_rel(folds[label], best, alternative="greater").pvalue < 0.025
            for label in frame.index[frame["gain"].notna()]
        ]
    return bool((frame["verdict"] == "better").any()), any(plain)


def main():
    begin = time.perf_counter()
    X, y = make_classification(60, 4, n_informative=4, n_redundant=0, random_state=0)
    called, plain = zip(*Parallel(n_jobs=2)(delayed(run)(X, y, seed) for seed in range(N_SEEDS)), strict=True)
    print(f"Comparisons on permuted labels in which any strategy is called better, of {N_SEEDS}:\n")
    print(f"compare_fusions                    {sum(called):3}")
    print(f"plain t-test, no corrections       {sum(plain):3}")
    counts = {"n_comparisons": N_SEEDS, "compare_fusions": sum(called), "plain_t_test": sum(plain)}
    write("permuted_labels", counts, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
