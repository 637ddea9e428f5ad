"""How long does a fit of CCA take, beside scikit-learn and cca_zoo, and which correlations does it reach?

Two blocks that share 32 latent variables under noise, n rows, p and q columns, 16 components. Seconds per fit are
medians of interleaved runs, in this process and on as many BLAS threads as the environment allows; correlations are the
mean over the components, in the rows of the fit:

- skmm: ``CCAFusion(16, regularization=0)`` on one matrix, float64 or float32;
- skmm, ridge: ``CCAFusion(16)``; skmm, ridge by cross-validation: ``CCAFusion(16, regularization="cv")``, which
  chooses among ten values;
- cca_zoo: ``CCA``, ``MCCA`` and ``GCCA`` of 16 components on the two blocks, in the same precision (needs
  ``pip install cca-zoo``);
- scikit-learn: ``CCA``, in float64, run once and not at the largest size.

What was not run is in the result too, with the reason.

Also a block of 5,000 columns in 500 rows. MCCA, GCCA and scikit-learn are run once where a run takes over 3 seconds.

    OMP_NUM_THREADS=1 python benchmarks/cca.py [--runs 3] [--sizes 2000 10000 50000]

A run of some of the sizes writes a result of its own name.
"""

import argparse
import os
import statistics
import time
import warnings

import numpy as np
from _accuracy import write
from sklearn.cross_decomposition import CCA

from skmm import CCAFusion

SIZES = {2_000: (256, 128), 10_000: (768, 384), 50_000: (768, 384)}
K = 16
LONG = 3.0
ROWS_FOR_STOCK = 10_000
OTHERS = ("cca_zoo CCA", "cca_zoo MCCA", "cca_zoo GCCA", "scikit-learn CCA")


def linked(n, p, q, dtype):
    """Blocks side by side that share 32 variables."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p + q))
    X += 0.3 * rng.normal(size=(n, 32)) @ rng.normal(size=(32, p + q))
    return X.astype(dtype)


def correlation(variates):
    """Mean correlation of the pairs of variates."""
    a, b = variates
    return float(np.mean([np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(a.shape[1])]))


def contenders(X, p):
    """Give for each method a function that fits and gives its two variates."""
    blocks = {"a": slice(0, p), "b": slice(p, None)}
    A, B = np.ascontiguousarray(X[:, :p]), np.ascontiguousarray(X[:, p:])

    def ours(**options):
        fusion = CCAFusion(K, blocks=blocks, **options)
        return lambda: fusion.fit(X), lambda fitted: np.split(fitted.transform(X), 2, axis=1)

    found = {
        "skmm": ours(regularization=0),
        "skmm, ridge": ours(),
        "skmm, ridge by cross-validation": ours(regularization="cv"),
    }
    try:
        from cca_zoo import linear
    except ImportError:
        pass
    else:
        for name in ("CCA", "MCCA", "GCCA"):
            model = getattr(linear, name)(K)
            found[f"cca_zoo {name}"] = (lambda model=model: model.fit([A, B]), lambda fitted: fitted.transform([A, B]))
    if len(X) <= ROWS_FOR_STOCK and X.dtype == np.float64:
        stock = CCA(K, max_iter=500)
        found["scikit-learn CCA"] = (lambda: stock.fit(A, B), lambda fitted: fitted.transform(A, B))
    return found


def reason_not_run(method, X):
    """Say why :func:`contenders` leaves a method out."""
    if method.startswith("cca_zoo"):
        return "cca-zoo is not installed"
    if len(X) > ROWS_FOR_STOCK:
        return f"takes longer than at {ROWS_FOR_STOCK} rows, where it takes minutes"
    return "computes in float64 whatever it gets"


def compare(X, p, runs):
    """Give a row per method: median seconds and the mean correlation, or why it was not run."""
    methods = contenders(X, p)
    seconds = {name: [] for name in methods}
    reached = {}
    for _ in range(runs):
        for name, (fit, variates) in methods.items():
            if seconds[name] and seconds[name][0] > LONG and not name.startswith("skmm") and name != "cca_zoo CCA":
                continue
            start = time.perf_counter()
            fitted = fit()
            seconds[name].append(time.perf_counter() - start)
            if name not in reached:
                reached[name] = correlation(variates(fitted))
    own = statistics.median(seconds["skmm"])
    ridged = statistics.median(seconds["skmm, ridge"])
    rows = []
    setting = {"n": len(X), "p": p, "q": X.shape[1] - p, "dtype": X.dtype.name}
    for name, times in seconds.items():
        middle = statistics.median(times)
        base = ridged if name.startswith("skmm") else own
        rows.append(
            setting
            | {
                "method": name,
                "seconds": middle,
                "runs": len(times),
                "over_skmm": middle / base,
                "correlation": reached[name],
            }
        )
    absent = [name for name in OTHERS if name not in methods]
    return rows + [setting | {"method": name, "not_run": reason_not_run(name, X)} for name in absent]


def report(rows):
    first = rows[0]
    print(f"\nn={first['n']}, p={first['p']}, q={first['q']}, {first['dtype']}")
    for row in rows:
        if "not_run" in row:
            print(f"  {row['method']:32} not run: {row['not_run']}", flush=True)
            continue
        base = "skmm, ridge" if row["method"].startswith("skmm") else "skmm"
        print(
            f"  {row['method']:32} {row['seconds']:9.3f} s ({row['runs']} runs) {row['over_skmm']:8.2f} x {base:12} "
            f"mean correlation {row['correlation']:.7f}",
            flush=True,
        )


def main():
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    begin = time.perf_counter()
    rows = []
    for n in arguments.sizes:
        for dtype in (np.float64, np.float32):
            rows.append(compare(linked(n, *SIZES[n], dtype), SIZES[n][0], arguments.runs))
            report(rows[-1])
    wide = linked(500, 5_000, 384, np.float64)
    times = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        CCAFusion(K, blocks={"a": slice(0, 5_000), "b": slice(5_000, None)}).fit(wide)
        times.append(time.perf_counter() - start)
    print(f"\nn=500, p=5000, q=384, float64: {statistics.median(times):.3f} s")
    found = {
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "runs": arguments.runs,
        "rows": [row for part in rows for row in part],
        "wide": {"n": 500, "p": 5_000, "q": 384, "seconds": statistics.median(times)},
    }
    name = "cca" if arguments.sizes == list(SIZES) else "_".join(["cca", *map(str, arguments.sizes)])
    write(name, found, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
