"""How long does kernel CCA take, beside one written by hand, and what do landmarks and scaling bring?

Time: blocks that share 16 variables under noise, n rows, p and q columns, m landmarks each, 32 components, ridge .3.
By hand it is the Nystroem method in NumPy: standardised columns, kernels of the landmarks and their eigenvectors,
features of all rows, covariances, Cholesky factors, singular vectors, and the variates of all rows. It has no missing
blocks, targets, loadings or prediction. Seconds of this process are medians of interleaved runs, on as many BLAS
threads as the environment allows:

- fit: ``KernelCCAFusion(32, n_landmarks=m)``; fit and transform: with the variates of all rows, as by hand.

Error: two views of scikit-learn's digits as in Wang et al. (2015): view 1 is the picture turned by up to 45 degrees,
view 2 another picture of the same digit in noise. A linear SVM classifies 20 variates of view 1, weighted or not; two
fifths are held out, three times.

    OMP_NUM_THREADS=1 python benchmarks/kernel_cca.py [--runs 5]
"""

import argparse
import os
import statistics
import time

import numpy as np
from _accuracy import write
from scipy import linalg
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import ShuffleSplit
from sklearn.svm import LinearSVC

from skmm import CCAFusion, KernelCCAFusion

SIZES = ((5_000, 384, 512, 300), (5_000, 384, 512, 1_000), (20_000, 256, 256, 300), (20_000, 256, 256, 1_000))
K, RIDGE = 32, 0.3
EMBEDDINGS = {
    "CCA": CCAFusion(20),
    "kernel CCA, 300 landmarks": KernelCCAFusion(20, n_landmarks=300, random_state=0),
    "kernel CCA": KernelCCAFusion(20, random_state=0),
    "kernel CCA, gamma by the median": KernelCCAFusion(20, gamma="median", random_state=0),
    "kernel CCA, ridge by cross-validation": KernelCCAFusion(20, regularization="cv", random_state=0),
    "kernel CCA, not scaled": KernelCCAFusion(20, scaling=None, random_state=0),
}


def linked(n, p, q, dtype):
    """Return blocks side by side that share 16 variables."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(n, 16))
    return np.hstack([np.tanh(latent @ rng.normal(size=(16, d))) + rng.normal(size=(n, d)) for d in (p, q)]).astype(
        dtype
    )


def by_hand(blocks, n_landmarks):
    """Return the variates of two blocks."""
    rng, features, whitenings = np.random.default_rng(0), [], []
    for X in blocks:
        Z = (X - X.mean(axis=0)) / X.std(axis=0)
        landmarks = Z[rng.choice(len(Z), n_landmarks, replace=False)]
        gamma = 1 / Z.shape[1]
        values, vectors = linalg.eigh(rbf_kernel(landmarks, gamma=gamma))
        varying = values > 1e-10 * values[-1]
        F = rbf_kernel(Z, landmarks, gamma=gamma) @ (vectors[:, varying] / np.sqrt(values[varying]))
        features.append(F - F.mean(axis=0))
        S = features[-1].T @ features[-1] / len(Z)
        S = (1 - RIDGE) * S + RIDGE * np.trace(S) / len(S) * np.eye(len(S))
        whitenings.append(linalg.cholesky(S, lower=True))
    cross = features[0].T @ features[1] / len(features[0])
    whitened = linalg.solve_triangular(whitenings[0], cross, lower=True)
    whitened = linalg.solve_triangular(whitenings[1], whitened.T, lower=True).T
    left, _, right = linalg.svd(whitened, full_matrices=False)
    return [
        F @ linalg.solve_triangular(L.T, W[:, :K])
        for F, L, W in zip(features, whitenings, (left, right.T), strict=True)
    ]


def compare_times(n, p, q, n_landmarks, dtype, runs):
    """Return a row of median seconds, and their ratios to those by hand."""
    X = linked(n, p, q, dtype)
    fusion = KernelCCAFusion(K, n_landmarks=n_landmarks, random_state=0, blocks={"a": slice(0, p), "b": slice(p, None)})
    methods = {
        "by hand": lambda: by_hand([X[:, :p], X[:, p:]], n_landmarks),
        "fit": lambda: fusion.fit(X),
        "fit and transform": lambda: fusion.fit_transform(X),
    }
    seconds = {name: [] for name in methods}
    for _ in range(runs):
        for name, method in methods.items():
            start = time.process_time()
            method()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {f"{name}, over by hand": medians[name] / medians["by hand"] for name in ("fit", "fit and transform")}
    return {"n": n, "p": p, "q": q, "landmarks": n_landmarks, "dtype": dtype.__name__, **medians, **ratios}


def two_views(seed):
    """Return both views side by side, and the digits."""
    rng, digits = np.random.default_rng(seed), load_digits()
    images, y = digits.images / 16, digits.target
    turned = [rotate(image, rng.uniform(-45, 45), reshape=False, order=1) for image in images]
    partners = [rng.choice(np.flatnonzero(y == digit)) for digit in y]
    noisy = np.clip(images[partners] + rng.uniform(size=images.shape), 0, 1)
    return np.hstack([np.reshape(turned, (len(y), -1)), noisy.reshape(len(y), -1)]), y


def svm_error(train, y_train, test, y_test):
    """Return the error of a linear SVM on standardised columns."""
    mean, scale = train.mean(axis=0), train.std()
    classifier = LinearSVC(C=0.1, max_iter=10_000, random_state=0).fit((train - mean) / scale, y_train)
    return 1 - classifier.score((test - mean) / scale, y_test)


def compare_errors():
    """Return the errors on view 1 by method, means over three draws."""
    errors = {}
    for seed, (train, test) in enumerate(ShuffleSplit(3, test_size=0.4, random_state=0).split(np.zeros(1797))):
        X, y = two_views(seed)
        first = X[:, :64]
        errors.setdefault("raw pixels", []).append(svm_error(first[train], y[train], first[test], y[test]))
        for name, embedding in EMBEDDINGS.items():
            for weighting in (None, "correlation"):
                fusion = embedding.set_params(weighting=weighting, blocks={"a": slice(0, 64), "b": slice(64, None)})
                fusion.fit(X[train])
                variates = [fusion.transform_modality(first[rows], "a") for rows in (train, test)]
                label = name if weighting is None else f"{name}, weighted"
                errors.setdefault(label, []).append(svm_error(variates[0], y[train], variates[1], y[test]))
    return {name: float(np.mean(values)) for name, values in errors.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    errors = compare_errors()
    for name, error in errors.items():
        print(f"{name:50} error {error:.3f}", flush=True)
    rows = []
    for size in SIZES:
        for dtype in (np.float64, np.float32):
            rows.append(compare_times(*size, dtype, arguments.runs))
            print(
                "  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()),
                flush=True,
            )
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    write("kernel_cca", {"threads": threads, "errors": errors, "times": rows}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
