"""Does memory grow with the number of images that are encoded?

Peak memory of the process (the maximum resident set), each size in a process of its own, for paths of distinct JPEG
files of 128 pixels through a small network with random weights. What counts is how much more 20,000 paths take than
1,000, beyond their larger output.

    python benchmarks/encode_memory.py [--small 1000] [--large 20000]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _accuracy import write
from PIL import Image

# Megabytes by which the larger run may exceed the smaller one.
ALLOWED = 200


def make_photos(folder, n):
    """Write distinct JPEG files; give their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        colors = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        paths.append(f"{folder}/{i}.jpg")
        colors.resize((128, 128), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def peak_memory():
    """Give the largest resident set of this process so far, in megabytes."""
    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def measure(folder, n):
    """Encode the first n photos of a folder; print what it took as JSON."""
    from torch import nn

    from skmm import ImageEncoder

    network = nn.Sequential(nn.Conv2d(3, 512, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    encoder = ImageEncoder(network, preprocess={"input_size": (3, 64, 64)})
    paths = [f"{folder}/{i}.jpg" for i in range(n)]
    encoder.fit_transform(paths[:64])
    before, start = peak_memory(), time.perf_counter()
    rows = encoder.transform(paths)
    found = {"images": n, "peak": peak_memory(), "before": before, "output": rows.nbytes / 1024**2}
    print(json.dumps({**found, "seconds": time.perf_counter() - start}))


def main():
    """Measure both sizes, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--large", type=int, default=20_000)
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], int(arguments.measure[1]))
        return
    start, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        make_photos(folder, arguments.large)
        for n in (arguments.small, arguments.large):
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", folder, str(n)]
            rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            print("{images:6} images: peak {peak:.0f} MB, output {output:.0f} MB, {seconds:.0f} s".format(**rows[-1]))
    small, large = (row["peak"] - row["output"] for row in rows)
    verdict = "within" if large - small <= ALLOWED else "NOT within"
    print(f"beyond the output: {large - small:+.0f} MB, {verdict} {ALLOWED} MB")
    write(
        "encode_memory",
        {"megabytes_more": large - small, "allowed": ALLOWED, "rows": rows},
        time.perf_counter() - start,
    )


if __name__ == "__main__":
    main()
