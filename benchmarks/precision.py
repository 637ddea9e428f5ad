"""Is half precision faster on this CPU?

    python benchmarks/precision.py

Texts of two lengths through all-MiniLM-L6-v2, pictures through mobilenetv3_small and resnet18 with random weights;
float32 and bfloat16 side by side, medians of interleaved runs. Prints rates, and the time of bfloat16 relative to
float32: above 1, half precision is slower.
"""

import argparse
import statistics
import tempfile
import time

import numpy as np
import timm
from timm.models import save_for_hf

from skmm import ImageEncoder, TextEncoder

PRECISIONS = ("float32", "bfloat16")


def compare(make, items, n_runs):
    """Return the median seconds of each precision."""
    encoders = {precision: make(precision).fit(items) for precision in PRECISIONS}
    seconds = {precision: [] for precision in PRECISIONS}
    for encoder in encoders.values():
        encoder.transform(items)
    for _ in range(n_runs):
        for precision, encoder in encoders.items():
            start = time.perf_counter()
            encoder.transform(items)
            seconds[precision].append(time.perf_counter() - start)
    return {precision: statistics.median(values) for precision, values in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-items", type=int, default=200)
    parser.add_argument("--n-runs", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    words = np.array(["cat", "dog", "rain", "snow", "home", "ran", "sat", "far", "and", "away"])
    pictures = rng.integers(256, size=(options.n_items, 128, 128, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        jobs = {}
        for n_words in (6, 50):
            texts = [f"{i} " + " ".join(rng.choice(words, size=n_words)) for i in range(options.n_items)]
            jobs[f"texts of {n_words} words"] = (lambda p: TextEncoder(precision=p, store=None)), texts
        for name in ("mobilenetv3_small_100", "resnet18"):
            save_for_hf(timm.create_model(name), f"{folder}/{name}", safe_serialization=True)
            jobs[name] = (lambda p, name=name: ImageEncoder(f"{folder}/{name}", precision=p, store=None)), pictures
        for name, (make, items) in jobs.items():
            seconds = compare(make, items, options.n_runs)
            rates = ", ".join(f"{precision} {len(items) / value:.0f}/s" for precision, value in seconds.items())
            print(f"{name}: {rates}, time of bfloat16 {seconds['bfloat16'] / seconds['float32']:.2f} of float32")


if __name__ == "__main__":
    main()
