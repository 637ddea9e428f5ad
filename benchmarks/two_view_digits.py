"""Does a space that two views of a digit share tell the digits apart better than the pixels?

Two views as in Wang et al., "On deep multi-view representation learning" (ICML 2015), but of scikit-learn's digits of 8
x 8 pixels: view 1 is an image turned by up to 45 degrees, view 2 another image of its class in noise. The views share
nothing but the class. Each of 1,000 images is turned three times; a linear SVM learns the digits of 1,000 turned
images, as they are or in the shared space, which is learned from the pairs without labels, and is tested on the turned
images of 797 others. Errors in percent and seconds of the fit of the space are means over three draws.

    OMP_NUM_THREADS=1 python benchmarks/two_view_digits.py [--turns 3]
"""

import argparse
import os
import time
import warnings

import numpy as np
from _accuracy import write
from scipy.ndimage import rotate
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skmm import CCAFusion, ContrastiveFusion, KernelCCAFusion

COLUMNS = {"turned": slice(0, 64), "noisy": slice(64, None)}
COMPONENTS = 20
METHODS = {
    "raw pixels": None,
    "CCA": CCAFusion(COMPONENTS),
    "kernel CCA": KernelCCAFusion(COMPONENTS, random_state=0),
    "InfoNCE, linear heads": ContrastiveFusion(COMPONENTS, head="linear", random_state=0),
    "InfoNCE": ContrastiveFusion(COMPONENTS, random_state=0),
    "InfoNCE, temperature 1": ContrastiveFusion(COMPONENTS, temperature=1, random_state=0),
    "SigLIP": ContrastiveFusion(COMPONENTS, objective="siglip", random_state=0),
}
DRAWS = 3
N_TRAIN = 1000


def turned(images, rng):
    """Return images turned by up to 45 degrees, flat."""
    angles = rng.uniform(-45, 45, size=len(images))
    return np.array([rotate(image, angle, reshape=False, order=1) for image, angle in zip(images, angles, strict=True)])


def partners(images, classes, rng):
    """Return for each image another one of its class, in uniform noise."""
    others = np.empty_like(images)
    for label in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == label))
        others[rows] = images[np.roll(rows, 1)]
    return np.clip(others + rng.uniform(size=others.shape), 0, 1)


def draw(seed, n_turns):
    """Return pairs of views, and turned images with their classes to train and to test on."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    order = rng.permutation(len(digits.target))
    images, classes = digits.images[order] / 16, digits.target[order]
    train, test = slice(0, N_TRAIN), slice(N_TRAIN, None)
    views = [
        np.hstack([turned(images[train], rng).reshape(N_TRAIN, -1), partner.reshape(N_TRAIN, -1)])
        for partner in (partners(images[train], classes[train], rng) for _ in range(n_turns))
    ]
    X_test = turned(images[test], rng)
    pairs = np.vstack(views).astype(np.float32)
    return pairs, classes[train], X_test.reshape(len(X_test), -1).astype(np.float32), classes[test]


def evaluate(embedding, pairs, y_train, X_test, y_test):
    """Return the error of a linear SVM on the first view, and the seconds of the fit of the space."""
    X_train, seconds = pairs[:N_TRAIN, COLUMNS["turned"]], 0.0
    if embedding is not None:
        start = time.perf_counter()
        embedding = clone(embedding).set_params(blocks=COLUMNS).fit(pairs)
        seconds = time.perf_counter() - start
        X_train, X_test = (embedding.transform_modality(X, "turned") for X in (X_train, X_test))
    svm = make_pipeline(StandardScaler(), LinearSVC(max_iter=20_000, random_state=0)).fit(X_train, y_train)
    return 1 - svm.score(X_test, y_test), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3, help="turned images of each image (default: %(default)s)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    begin = time.perf_counter()
    draws = [draw(seed, arguments.turns) for seed in range(DRAWS)]
    rows = []
    print(f"two views of digits, {arguments.turns * N_TRAIN} pairs, {COMPONENTS} components")
    for name, embedding in METHODS.items():
        error, seconds = np.mean([evaluate(embedding, *data) for data in draws], axis=0).tolist()
        rows.append({"method": name, "error": error, "seconds": seconds})
        print(f"{name:24} {100 * error:5.1f} %   {seconds:6.1f} s", flush=True)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    write("two_view_digits", {"turns": arguments.turns, "threads": threads, "rows": rows}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
