"""How long do all metrics of retrieval take, in how much memory, and are they those of scikit-learn?

Embeddings in float32 of as many queries as items, 128 wide as a joint space is, or 384 as an encoder's features. Either
the item in the query's row is the relevant one, or those of its group, of 5 or of an eighth of the rows. Seconds of CPU
and memory beyond the embeddings are those of ``retrieval_report``: hit, recall, precision and nDCG at 1, 5 and 10, mean
average precision, mean reciprocal rank and median rank, in both directions. scikit-learn has average precision and nDCG
of a matrix of scores; they are computed on the same rows in one direction, of 2,000 only.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py
"""

import time
import tracemalloc

import numpy as np
from _accuracy import write
from sklearn.metrics import average_precision_score, ndcg_score
from sklearn.preprocessing import normalize

from skmm.metrics import mean_average_precision, ndcg_at_k, retrieval_report

SIZES = ((2000, 128), (10_000, 128), (10_000, 384))
REPEATS = 3


def measure(function):
    """Return the result, the median of CPU seconds, and the largest memory in MB of one more call."""
    seconds = []
    for _ in range(REPEATS):
        begin = time.process_time()
        result = function()
        seconds.append(time.process_time() - begin)
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, float(np.median(seconds)), peak / 1e6


def main():
    begin, rows = time.perf_counter(), []
    print(f"{'':34}{'seconds':>9}{'MB':>7}{'MRR':>8}{'MAP':>8}{'nDCG@10':>9}")
    for n, width in SIZES:
        rng = np.random.default_rng(0)
        queries = rng.normal(size=(n, width)).astype(np.float32)
        items = queries + 3 * rng.normal(size=(n, width)).astype(np.float32)
        for relevant, groups in {"one": None, "5": np.arange(n) // 5, "an eighth": np.arange(n) % 8}.items():
            report, seconds, memory = measure(
                lambda q=queries, x=items, g=groups: retrieval_report(q, x, query_groups=g, output_dict=True)
            )
            values = report["queries -> items"]
            row = {"rows": n, "width": width, "relevant": relevant, "seconds": seconds, "MB": memory, **values}
            label = f"{n:,} x {width}, {relevant} relevant"
            print(
                f"{label:34}{seconds:9.2f}{memory:7.0f}{values['mrr']:8.4f}{values['map']:8.4f}{values['ndcg@10']:9.4f}"
            )
            if n == SIZES[0][0]:
                row["same as scikit-learn"] = compare(queries, items, groups)
            rows.append(row)
    write("metrics", {"rows": rows}, time.perf_counter() - begin)


def compare(queries, items, groups):
    """Print both metrics that scikit-learn has beside ours; return the largest difference."""
    scores = normalize(queries.astype(float)) @ normalize(items.astype(float)).T
    groups = np.arange(len(queries)) if groups is None else groups
    relevance = groups[:, None] == groups
    pairs = {
        "average precision": (
            lambda: np.mean([average_precision_score(t, s) for t, s in zip(relevance, scores, strict=True)]),
            lambda: mean_average_precision(relevance, scores),
        ),
        "nDCG@10": (lambda: ndcg_score(relevance, scores, k=10), lambda: ndcg_at_k(relevance, scores, k=10)),
    }
    differences = []
    for name, functions in pairs.items():
        results = []
        for function in functions:
            begin = time.process_time()
            results.append((function(), time.process_time() - begin))
        (theirs, slow), (ours, fast) = results
        differences.append(abs(theirs - ours))
        print(f"  {name}: scikit-learn {theirs:.6f} in {slow:.2f} s, skmm {ours:.6f} in {fast:.2f} s")
    return max(differences)


if __name__ == "__main__":
    main()
