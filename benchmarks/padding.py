"""How fast are texts encoded if each is padded to a multiple of 1, 2, 4 or 8 tokens, and to twice that at least?

Texts per second of the CPU, medians of interleaved runs in one process, without a store.

    python benchmarks/padding.py [--runs 5]
"""

import argparse
import statistics
import time
from unittest import mock

import numpy as np

from skmm import TextEncoder

STEPS = (1, 2, 4, 8)
# Number of texts, fewest and most words.
KINDS = {"200 short texts": (200, 3, 15), "1,500 short texts": (1500, 3, 15), "800 mixed texts": (800, 3, 80)}
WORDS = ["cat", "dog", "rain", "snow", "home", "ran", "sat", "far", "away", "blue", "stone", "tree", "market", "price"]


def main():
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    encoder = TextEncoder(store=None).fit(["a"])
    for kind, (n_texts, fewest, most) in KINDS.items():
        texts = [" ".join(rng.choice(WORDS, rng.integers(fewest, most))) + f" {i}" for i in range(n_texts)]
        seconds = {step: [] for step in STEPS}
        for _ in range(arguments.runs):
            for step in STEPS:
                with mock.patch("skmm.encoders.networks._sentence._WIDTH_STEP", step):
                    start = time.process_time()
                    encoder.transform(texts)
                    seconds[step].append(time.process_time() - start)
        rates = {step: n_texts / statistics.median(times) for step, times in seconds.items()}
        print(kind, {step: f"{rate:.0f}/s, {rate / rates[8]:.2f} x" for step, rate in rates.items()}, flush=True)


if __name__ == "__main__":
    main()
