"""How long does one row take, and what of that is not the network?

Milliseconds of one call, medians of interleaved runs in one process, every model warm:

- texts: ``transform`` of a fitted ``TextEncoder`` (all-MiniLM-L6-v2) on a list of one text, beside tokenizer and
  network called by hand, and ``SentenceTransformer.encode``;
- images: ``transform`` of a fitted ``ImageEncoder`` (EfficientNet-Lite0 with random weights, on which speed does not
  depend) on an array, a PIL image and the path of a JPEG file, beside decoding, timm's own transform and the network
  by hand;
- pipeline: ``predict`` of a logistic regression on a ``ModalityFuser`` of a text, an image file and a table, for a
  data frame of one row, beside the sum of the passes by hand, and beside scikit-learn's ``ColumnTransformer`` around
  these passes; the target is at most 3 ms above the sum;
- wide frames: ``transform`` of a fuser of two tables on a pandas frame, beside the same numbers as an array, and beside
  scikit-learn's ``ColumnTransformer``, which fuses nothing, on the same input; the target is at most 1.5 times the
  array.

New items are other ones in each run, the same for all ways; known items are in the store already. The stores are
"auto", which is a private folder, None, and a folder of one's own. What is above the bare pass is the median of the
differences within runs. On a machine with other work, the time of the CPU is the better measure, with one thread
(``OMP_NUM_THREADS=1``): threads of torch that wait for each other count as busy, and wait for whatever else runs.

    python benchmarks/latency.py [--runs 60] [--wide-runs 30] [--profile]

``--profile`` prints where the time of one-row predictions with the default store goes, by cProfile, and measures
nothing; functions that other functions call are counted in these as well.
"""

import argparse
import cProfile
import gc
import pstats
import random
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from _accuracy import write
from PIL import Image
from sentence_transformers import SentenceTransformer
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf

from skmm import ImageEncoder, ModalityFuser, TextEncoder
from skmm.encoders._run import EncodingRun

NETWORK = "efficientnet_lite0"
NUMBERS = [f"number {i}" for i in range(8)]
WORDS = ["cat", "dog", "rain", "snow", "home", "ran", "sat", "far", "away", "blue", "old", "stone", "tree", "under"]

# Targets: milliseconds above the bare passes, and times the array.
MOST_ABOVE, MOST_TIMES = 3, 1.5


class Items:
    """Rows of a text, an image file and numbers, all of them new; row after row in the same sizes."""

    def __init__(self, folder):
        self._folder = folder
        self._rng = np.random.default_rng(0)
        self._n_made = 0

    def make(self):
        """Return a row, with its image as array, PIL image and path."""
        self._n_made += 1
        small = self._rng.integers(256, size=(24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC)
        path = self._folder / f"{self._n_made}.jpg"
        image.save(path, quality=90)
        numbers = self._rng.normal(size=len(NUMBERS))
        text = " ".join(self._rng.choice(WORDS, size=12))
        frame = pd.DataFrame({"text": [text], "image": [str(path)], **dict(zip(NUMBERS, numbers, strict=True))})
        return {"text": text, "array": np.asarray(image), "pil": image, "path": str(path), "frame": frame}


class Bare:
    """The networks of two fitted encoders, called by hand: what no encoder can be faster than."""

    def __init__(self, texts, images):
        run = EncodingRun(texts, [])
        self._text_network = run.model.network
        self.plain = SentenceTransformer(run.source.location, device=str(self._text_network.device))
        model = EncodingRun(images, []).model
        self._image_network, self._dtype = model.network, model.dtype
        self._transform = create_transform(**resolve_model_data_config(model.network), is_training=False)

    def text(self, text):
        """Tokenize and encode one text."""
        with torch.inference_mode():
            features = self._text_network.tokenizer([text], return_tensors="pt", truncation=True)
            return self._text_network(features.data)["sentence_embedding"].float().numpy()

    def image(self, item):
        """Decode, resize and encode one image."""
        if isinstance(item, str):
            with Image.open(item) as file:
                item = file.convert("RGB")
        elif isinstance(item, np.ndarray):
            item = Image.fromarray(item)
        with torch.inference_mode():
            pixels = self._transform(item)[None].to(self._dtype, memory_format=torch.channels_last)
            return self._image_network(pixels).float().numpy()


def interleaved(ways, make, runs, warm=8):
    """Call each way once a run on one new item, in an order of its own.

    Returns
    -------
    seconds : dict of str to list of (float, float)
        Of each way, for each run: seconds on the clock, and seconds of the CPU in all threads.
    """
    order, seconds = list(ways), {name: [] for name in ways}
    shuffle = random.Random(0).shuffle
    for run in range(warm + runs):
        item = make()
        shuffle(order)
        gc.collect()
        gc.disable()
        try:
            for name in order:
                start, start_cpu = time.perf_counter(), time.process_time()
                ways[name](item)
                taken = time.perf_counter() - start, time.process_time() - start_cpu
                if run >= warm:
                    seconds[name].append(taken)
        finally:
            gc.enable()
    return seconds


def above(seconds, bare):
    """Return rows of milliseconds, on the clock and of the CPU, with how many of them are above the bare pass."""
    rows = []
    bare = 1000 * np.array(seconds[bare])
    for name, times in seconds.items():
        times = 1000 * np.array(times)
        (ms, cpu_ms), (above_ms, above_cpu_ms) = np.median(times, axis=0), np.median(times - bare, axis=0)
        rows.append({"what": name, "ms": ms, "above": above_ms, "cpu_ms": cpu_ms, "above_cpu": above_cpu_ms})
    return rows


def show(task, rows):
    """Print rows of one task."""
    print(f"\n{task:36} {'ms':>8} {'above bare':>11} {'CPU ms':>8} {'above bare':>11}")
    for row in rows:
        numbers = f"{row['ms']:8.2f} {row['above']:+11.2f} {row['cpu_ms']:8.2f} {row['above_cpu']:+11.2f}"
        print(f"  {row['what']:34} {numbers}", flush=True)
    return [{"task": task, **row} for row in rows]


def time_texts(encoders, bare, known, make, runs):
    """Milliseconds of one text."""
    ways = {
        "tokenizer and network by hand": lambda item: bare.text(item["text"]),
        "SentenceTransformer.encode": lambda item: bare.plain.encode([item["text"]], show_progress_bar=False),
    }
    for store, encoder in encoders.items():
        ways[f"new, store={store}"] = lambda item, encoder=encoder: encoder.transform([item["text"]])
        if store != "None":
            encoder.transform([known["text"]])
            ways[f"known, store={store}"] = lambda item, encoder=encoder: encoder.transform([known["text"]])
    return above(interleaved(ways, make, runs), "tokenizer and network by hand")


def time_images(kind, encoders, bare, known, make, runs):
    """Milliseconds of one image."""
    ways = {"transform and network by hand": lambda item: bare.image(item[kind])}
    for store, encoder in encoders.items():
        ways[f"new, store={store}"] = lambda item, encoder=encoder: encoder.transform([item[kind]])
        if store != "None":
            encoder.transform([known[kind]])
            ways[f"known, store={store}"] = lambda item, encoder=encoder: encoder.transform([known[kind]])
    return above(interleaved(ways, make, runs), "transform and network by hand")


def pipelines(stores, network, X, y):
    """Return fitted pipelines by store."""
    fitted = {}
    for name, store in stores.items():
        modalities = [
            ("text", TextEncoder(store=store), "text"),
            ("image", ImageEncoder(network, store=store), "image"),
            ("table", StandardScaler(), NUMBERS),
        ]
        fitted[name] = make_pipeline(ModalityFuser(modalities), LogisticRegression(max_iter=300)).fit(X, y)
    return fitted


def plain_pipeline(bare, X, y):
    """Return a fitted pipeline of scikit-learn's own around the passes by hand."""
    columns = [
        ("text", FunctionTransformer(lambda column: np.vstack([bare.text(item) for item in column])), "text"),
        ("image", FunctionTransformer(lambda column: np.vstack([bare.image(item) for item in column])), "image"),
        ("table", StandardScaler(), NUMBERS),
    ]
    return make_pipeline(ColumnTransformer(columns), LogisticRegression(max_iter=300)).fit(X, y)


def time_pipelines(fitted, bare, plain, known, make, runs):
    """Milliseconds of the prediction for one row."""

    def by_hand(item):
        bare.text(item["text"])
        bare.image(item["path"])

    ways = {
        "both passes by hand": by_hand,
        "ColumnTransformer around them": lambda item: plain.predict(item["frame"]),
    }
    for store, pipeline in fitted.items():
        ways[f"new, store={store}"] = lambda item, pipeline=pipeline: pipeline.predict(item["frame"])
        if store != "None":
            pipeline.predict(known["frame"])
            ways[f"known, store={store}"] = lambda item, pipeline=pipeline: pipeline.predict(known["frame"])
    return above(interleaved(ways, make, runs), "both passes by hand")


def wide_frames(n_rows, n_columns, n_missing):
    """Return frames of the same numbers with different blocks of columns in memory, and the array."""
    rng = np.random.default_rng(0)
    # Whole numbers, which all types of columns hold.
    values = rng.integers(100, size=(n_rows, n_columns)).astype(np.float64)
    values[:n_missing, : n_columns // 2] = np.nan
    names = [f"column {i}" for i in range(n_columns)]
    frames = {"one block": pd.DataFrame(values, columns=names)}
    frames["one by one"] = pd.DataFrame({name: values[:, i].copy() for i, name in enumerate(names)})
    kinds = {name: "int64" for i, name in enumerate(names) if i % 2 and i >= n_columns // 2}
    frames["floats and integers"] = frames["one block"].astype(kinds)
    return frames, values


def time_wide(member, n_rows, n_missing, runs, n_columns=1200):
    """Milliseconds of a fuser of two tables, by the form of its input."""
    half = n_columns // 2
    frames, values = wide_frames(max(n_rows, 300), n_columns, n_missing)
    parts = [("left", member, slice(0, half)), ("right", member, slice(half, None))]
    ways = {}
    for name, X in {"array": values, **{f"frame, {name}": frame for name, frame in frames.items()}}.items():
        for suffix, composite in (("", ModalityFuser), (", ColumnTransformer", ColumnTransformer)):
            fitted = composite(parts).fit(X)
            ways[name + suffix] = lambda _, fitted=fitted, X=X[:n_rows]: fitted.transform(X)
    return interleaved(ways, lambda: None, runs, warm=3)


def show_wide(runs):
    """Time and print wide frames."""
    rows = []
    members = {"passthrough": "passthrough", "StandardScaler": StandardScaler()}
    print(f"\n{'two tables of 600 columns':81} {'CPU ms':>8} {'/ array':>8}")
    for n_rows, n_missing in ((300, 0), (300, 30), (1, 0), (1, 1)):
        for label, member in members.items():
            seconds = time_wide(member, n_rows, n_missing, runs)
            missing = f", {n_missing} missing" if n_missing else ""
            array = np.array(seconds["array"])
            for name, times in seconds.items():
                # Of the CPU, which other processes do not slow down.
                times_array = np.median(np.array(times) / array, axis=0)[1]
                task = f"{n_rows} x 1,200, {label}{missing}"
                row = {"task": task, "what": name, "ms": 1000 * np.median(times, axis=0)[1], "times_array": times_array}
                rows.append(row)
                print(f"  {task:36} {name:42} {row['ms']:8.2f} {times_array:8.2f}", flush=True)
    return rows


def profile(pipeline, make, runs):
    """Print where the time of one-row predictions goes, per call."""
    frames = [make()["frame"] for _ in range(runs)]
    profiler = cProfile.Profile()
    with profiler:
        for frame in frames:
            pipeline.predict(frame)
    print(f"In {runs} calls:")
    pstats.Stats(profiler).strip_dirs().sort_stats("cumulative").print_stats(90)
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(40)


def main():
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--wide-runs", type=int, default=30)
    parser.add_argument("--profile", action="store_true", help="print where the time of a prediction goes, and end")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        torch.manual_seed(0)
        save_for_hf(timm.create_model(NETWORK, pretrained=False), folder / NETWORK, safe_serialization=True)
        stores = {"auto": "auto", "None": None, "folder": folder / "store"}
        make = Items(folder).make
        training = pd.concat([make()["frame"] for _ in range(24)], ignore_index=True)
        y = np.arange(len(training)) % 2
        fitted = pipelines(stores, folder / NETWORK, training, y)
        known = make()
        if arguments.profile:
            fitted["auto"].predict(known["frame"])
            profile(fitted["auto"], make, arguments.runs)
            return
        encoders = {name: pipeline[0].named_modalities_ for name, pipeline in fitted.items()}
        texts = {name: members["text"] for name, members in encoders.items()}
        images = {name: members["image"] for name, members in encoders.items()}
        bare = Bare(texts["None"], images["None"])
        rows = show("one text", time_texts(texts, bare, known, make, arguments.runs))
        for kind in ("array", "pil", "path"):
            times = time_images(kind, images, bare, known, make, arguments.runs)
            rows += show(f"one image, {kind}", times)
        plain = plain_pipeline(bare, training, y)
        rows += show("one row: text, image, table", time_pipelines(fitted, bare, plain, known, make, arguments.runs))
    wide = show_wide(arguments.wide_runs)
    predictions = [row for row in rows if row["task"].startswith("one row") and "store" in row["what"]]
    for unit in ("above", "above_cpu"):
        name = "milliseconds" if unit == "above" else "milliseconds of the CPU"
        print(f"\none row: at most {max(row[unit] for row in predictions):.1f} {name} above the passes by hand", end="")
    print(f" (target {MOST_ABOVE})")
    for n_rows in (300, 1):
        of_frames = [row for row in wide if row["task"].startswith(f"{n_rows} x") and "Column" not in row["what"]]
        worst = max(row["times_array"] for row in of_frames)
        print(f"wide frames, {n_rows} x 1,200: at most {worst:.1f} times the array (target {MOST_TIMES})")
    machine = {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability()}
    write("latency", {**machine, **vars(arguments), "rows": rows, "wide": wide}, time.perf_counter() - start)


if __name__ == "__main__":
    main()
