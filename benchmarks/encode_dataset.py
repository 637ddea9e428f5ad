"""What does ``encode_dataset`` cost beyond the encoder, what do two processes gain, and does memory grow with the rows?

    OMP_NUM_THREADS=1 python benchmarks/encode_dataset.py [--texts 1000] [--runs 3] [--small 10000] [--large 200000]

- Cost: CPU seconds of ``TextEncoder.fit_transform`` on texts in memory over those of ``encode_dataset`` on the same
  texts from parquet to parquet, in one process, medians of interleaved runs. Where threads are as many, it is the ratio
  of rows per second.
- Two processes: CPU seconds of one process over those of the busier of two, which is how much sooner two would end that
  have a core each; seconds by the clock are printed beside it, and say little where other programs run.
- Memory: the largest resident set of a process of its own for each number of rows, through a hashing vectorizer and a
  projection; the source is a file of one row group, and one of JSON lines.

Models are loaded before the clock runs, and no store is used.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _accuracy import write
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.pipeline import make_pipeline

from skmm import TextEncoder, encode_dataset

# What is asked for: rows per second to those in memory, two processes to one, megabytes more.
LEAST_RATIO, LEAST_GAIN, MOST_MEGABYTES = 0.97, 1.8, 150


def make_texts(n_texts, seed=0):
    """Return distinct texts of 5 to 59 words."""
    rng = np.random.default_rng(seed)
    words = np.array(["cat", "dog", "rain", "snow", "home", "ran", "sat", "far", "and", "away"])
    return [f"{number} " + " ".join(words[rng.integers(10, size=rng.integers(5, 60))]) for number in range(n_texts)]


def cpu_of_workers():
    """Return the CPU seconds of each worker process so far."""
    seconds = {}
    for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if b"LokyProcess" in Path(f"/proc/{number}/cmdline").read_bytes():
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            seconds[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def measure_speed(texts, runs, folder):
    """Return CPU seconds in memory, from disk to disk, and in the busier of two processes, and seconds by the clock."""
    source = Path(folder) / "texts.parquet"
    pq.write_table(pa.table({"text": texts}), source)
    encoder = TextEncoder(store=None)
    # The fewer rows in a part, the fewer texts of one length share a batch.
    batch_rows = -(-len(texts) // 4)

    def encode(n_jobs):
        with tempfile.TemporaryDirectory() as target:
            encode_dataset(
                source, target, {"v": (encoder, "text")}, batch_rows=batch_rows, n_jobs=n_jobs, verbose=False
            )

    encoder.fit_transform(texts[:50])
    encode(2)
    rows = []
    for run in range(runs):
        row = {}
        for way in ("memory", "one", "two") if run % 2 else ("two", "one", "memory"):
            before, start, clock = cpu_of_workers(), time.process_time(), time.perf_counter()
            encoder.fit_transform(texts) if way == "memory" else encode(1 if way == "one" else 2)
            seconds = time.process_time() - start
            if way == "two":
                seconds = max(value - before[number] for number, value in cpu_of_workers().items())
            row |= {way: seconds, f"{way}_clock": time.perf_counter() - clock}
        print("CPU seconds: " + ", ".join(f"{key} {value:.1f}" for key, value in row.items()), flush=True)
        rows.append(row)
    return rows


def measure_memory(source, n):
    """Encode a table with a cheap transformer; print the largest resident set in megabytes."""
    vectorizer = HashingVectorizer(n_features=1024, dtype=np.float32)
    transformer = make_pipeline(vectorizer, TruncatedSVD(64, random_state=0)).fit(make_texts(500))
    with tempfile.TemporaryDirectory() as target:
        summary = encode_dataset(source, target, {"v": (transformer, "text")}, verbose=False)
    assert summary.n_rows == n
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) / 1024)


def main():
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=200_000)
    parser.add_argument("--measure", nargs=2, metavar=("SOURCE", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_memory(arguments.measure[0], int(arguments.measure[1]))
        return
    start, peaks = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("parquet", "jsonl"):
            for n in (arguments.small, arguments.large):
                source = Path(folder) / f"{n}.{ending}"
                table = pa.table({"text": make_texts(n)})
                if ending == "parquet":
                    pq.write_table(table, source, row_group_size=n)
                else:
                    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in table["text"].to_pylist()))
                command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(source), str(n)]
                result = subprocess.run(command, capture_output=True, text=True, check=True)
                peaks[f"{ending}, {n} rows"] = float(result.stdout)
                print(f"{ending}, {n} rows: {float(result.stdout):.0f} MB", flush=True)
        rows = measure_speed(make_texts(arguments.texts), arguments.runs, folder)
    found = {
        "ratio": statistics.median(row["memory"] / row["one"] for row in rows),
        "gain": statistics.median(row["one"] / row["two"] for row in rows),
        "megabytes_more": max(
            peaks[f"{ending}, {arguments.large} rows"] - peaks[f"{ending}, {arguments.small} rows"]
            for ending in ("parquet", "jsonl")
        ),
    }
    print(f"rows per second to those in memory: {found['ratio']:.3f} (at least {LEAST_RATIO})")
    print(f"two processes to one: {found['gain']:.2f} (at least {LEAST_GAIN})")
    print(f"memory: {found['megabytes_more']:+.0f} MB (at most {MOST_MEGABYTES})")
    write("encode_dataset", {**found, "runs": rows, "peaks": peaks}, time.perf_counter() - start)


if __name__ == "__main__":
    main()
