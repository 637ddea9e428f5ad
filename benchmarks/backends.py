"""Is OpenVINO faster than torch on this CPU, and how far off are its rows?

    pip install "skmm[offline,openvino]"
    OMP_NUM_THREADS=1 python benchmarks/backends.py

Texts through all-MiniLM-L6-v2 and crops of photos through image networks, from items to rows without a store: pieces of
English documentation with 6, 50 and all of their words, and images of 224 x 224 pixels. Prints rates, and the ratio to
torch in float32, by processor time, which other work disturbs least: medians of interleaved runs. Cosines are those to
torch's rows: median, 1 % quantile and minimum. The first item waits for the conversion of a network.
"""

import argparse
import inspect
import pydoc
import statistics
import tempfile
import time

import numpy as np
import timm
from sklearn.base import clone
from sklearn.datasets import load_sample_images
from timm.models import save_for_hf

from skmm import ImageEncoder, TextEncoder

MODULES = ("argparse", "asyncio", "collections", "csv", "decimal", "email.message", "inspect", "logging", "pathlib")
TORCH = {"device": "cpu", "precision": "float32", "store": None}
OPENVINO = {"openvino float32": {"backend": "openvino"}, "openvino int8": {"backend": "openvino", "precision": "int8"}}


def documentation(n_texts, n_words):
    """Return different texts, of a number of words or of their own length."""
    names = [f"{module}.{name}" for module in MODULES for name, _ in inspect.getmembers(pydoc.locate(module))]
    texts = list(dict.fromkeys(" ".join((inspect.getdoc(pydoc.locate(name)) or "").split()) for name in names))
    if n_words is not None:
        words = " ".join(texts).split()
        texts = [" ".join(words[i : i + n_words]) for i in range(0, len(words) - n_words, n_words)]
    return [str(text) for text in np.random.default_rng(0).permutation(texts) if text][:n_texts]


def crops(n_images):
    """Return pieces of scikit-learn's two photos."""
    rng, photos = np.random.default_rng(0), load_sample_images().images
    corners = rng.integers((photos[0].shape[0] - 224, photos[0].shape[1] - 224), size=(n_images, 2))
    return [photos[i % 2][y : y + 224, x : x + 224] for i, (y, x) in enumerate(corners)]


def compare(encoder, settings, items, n_runs):
    """Print the rate and the rows of an encoder with each of the settings, beside those of torch."""
    encoders = {"torch float32": encoder.fit(items)}
    for name, values in settings.items():
        encoders[name] = clone(encoder).set_params(**values).fit(items)
    rows, waits, seconds = {}, {}, {name: [] for name in encoders}
    for name, twin in encoders.items():
        start = time.process_time()
        twin.transform(items[:1])
        waits[name] = time.process_time() - start
        rows[name] = twin.transform(items)
    for _ in range(n_runs):
        for name, twin in encoders.items():
            start = time.process_time()
            twin.transform(items)
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    X, *_ = rows.values()
    for name, Y in rows.items():
        cosines = (X * Y).sum(axis=1) / np.linalg.norm(X, axis=1) / np.linalg.norm(Y, axis=1)
        quantiles = ", ".join(f"{value:.4f}" for value in np.quantile(cosines, [0.5, 0.01, 0]))
        print(
            f"  {name}: {len(items) / medians[name]:.0f}/s, {medians['torch float32'] / medians[name]:.2f} times "
            f"torch, cosine {quantiles}, distance {np.abs(X - Y).max() / np.abs(X).max():.1e} of the largest value, "
            f"first item {waits[name]:.1f} s"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-texts", type=int, default=400)
    parser.add_argument("--n-images", type=int, default=64)
    parser.add_argument("--n-runs", type=int, default=5)
    options = parser.parse_args()
    for n_words in (6, 50, None):
        texts = documentation(options.n_texts, n_words)
        print(f"{len(texts)} texts of {n_words or 'all'} words")
        compare(TextEncoder(**TORCH), OPENVINO, texts, options.n_runs)
    images, settings = crops(options.n_images), {"openvino float32": OPENVINO["openvino float32"]}
    print(f"{len(images)} images: tf_efficientnet_lite0")
    compare(ImageEncoder(**TORCH), settings, images, options.n_runs)
    for name in ("mobilenetv3_small_100", "resnet18"):
        with tempfile.TemporaryDirectory() as folder:
            save_for_hf(timm.create_model(name), folder, safe_serialization=True)
            print(f"{len(images)} images: {name}")
            compare(ImageEncoder(folder, **TORCH), settings, images, options.n_runs)


if __name__ == "__main__":
    main()
