"""How close does encoding come to the bare forward pass, and how far ahead of what else there is?

Items per second, medians of interleaved runs, model set-up outside the clock, every model already warm:

- skmm: ``transform`` of a fitted encoder, from strings or JPEG paths to a float32 matrix;
- bare: a loop that feeds ready tensors to the same model in the same precision, at torch's own number of threads: for
  texts the better of skmm's own batches and sorted batches of 32, for images batches of 32; the limit;
- others: ``SentenceTransformer.encode`` at its defaults for texts; embetter's ``ImageLoader`` and ``TimmEncoder`` for
  images, one image at a time as it does (needs ``pip install embetter``, left out where that is absent).

Texts: all-MiniLM-L6-v2, 2,000 texts of 1 to 6 sentences of product descriptions. Images: 1,000 photos of 128 pixels,
resized to 224 by the model's own configuration, in timm networks with random weights, on which speed does not depend.
"one worker" is the encoder with all threads on one batch at a time instead of a batch per worker.

Decoding and the forward pass share the cores, so what no encoder can exceed is the ceiling 1 / (1/F + 1/D): F is the
better of the bare loop and "a batch per core" (ready tensors in the encoder's own batches, each on one thread), and D
decoding and resizing alone, on all cores, at the reduced scale that JPEG allows. Large photos are the small ones blown
up to 1,600 x 1,200 pixels; their limit is this ceiling.

Nothing is kept in a store here: what is rates there is not encoded.

    python benchmarks/encode.py [--runs 3] [--texts 2000] [--images 1000] [--large 150]
"""

import argparse
import re
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import timm
import torch
from _accuracy import data_folder, write
from PIL import Image
from sentence_transformers import SentenceTransformer
from timm.models import save_for_hf

from skmm import ImageEncoder, TextEncoder
from skmm._torch import available_cpus, divided_threads, resolve_device, resolve_precision
from skmm.encoders._run import EncodingRun

NETWORKS = ("mobilenetv3_small_100", "resnet18")


def texts_of_mixed_length(folder, n_texts):
    """Give distinct texts of 1 to 6 sentences."""
    files = sorted((folder / "iconic-images-and-descriptions").rglob("*_Description.txt"))
    sentences = [s for file in files for s in re.split(r"(?<=[.!?])\s+", file.read_text(encoding="utf-8").strip()) if s]
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(sentences, rng.integers(1, 7))) + f" {i}" for i in range(n_texts)]


def photos(folder, n_images):
    """Give paths of distinct photos."""
    lines = (folder / "train.txt").read_text(encoding="utf-8").splitlines()
    paths = [folder / line.split(",")[0].strip() for line in lines]
    order = np.random.default_rng(0).permutation(len(paths))[:n_images]
    return [str(paths[i]) for i in order]


def enlarged(paths, folder):
    """Give paths of the photos blown up to 1,600 x 1,200 pixels."""
    out = []
    for i, path in enumerate(paths):
        out.append(str(folder / f"large_{i}.jpg"))
        Image.open(path).resize((1600, 1200), Image.Resampling.BICUBIC).save(out[-1], quality=92)
    return out


def interleaved(calls, n_items, runs):
    """Time calls in turn; give for each the median of items per second."""
    seconds = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: n_items / statistics.median(times) for name, times in seconds.items()}


def time_texts(texts, runs):
    """Items per second of skmm, the bare loops, and sentence-transformers."""
    encoder = TextEncoder(store=None).fit(texts)
    model = EncodingRun(encoder).model
    prepared = [encoder._prepare_item(text) for text in texts]
    own = [[prepared[i] for i in batch] for batch in encoder._batches(prepared, model)]
    own = [model.features(batch, None) for batch in own]
    by_length = sorted(texts, key=len)
    by_32 = [model.network.preprocess(by_length[i : i + 32]) for i in range(0, len(texts), 32)]

    def bare(batches):
        with torch.inference_mode():
            for batch in batches:
                model.embed(dict(batch)).float().numpy()

    plain = SentenceTransformer(encoder._find_source().folder, device=str(model.network.device))
    calls = {
        "skmm": lambda: encoder.transform(texts),
        "bare, same batches": lambda: bare(own),
        "bare, sorted batches of 32": lambda: bare(by_32),
        "sentence-transformers": lambda: plain.encode(texts, show_progress_bar=False),
    }
    return interleaved(calls, len(texts), runs)


def one_worker(encoder, paths):
    """Encode with all threads on one batch at a time."""
    with mock.patch.object(ImageEncoder, "_n_workers", return_value=1):
        encoder.transform(paths)


def time_images(name, paths, runs, folder, with_others=False):
    """Items per second of skmm, the bare loop, decoding alone, and what the two allow together; and of others."""
    if not (folder / name).exists():
        torch.manual_seed(0)
        save_for_hf(timm.create_model(name, pretrained=False), folder / name, safe_serialization=True)
    encoder = ImageEncoder(folder / name, store=None).fit(paths)

    def decode():
        with ThreadPoolExecutor(available_cpus()) as pool:
            for _ in pool.map(encoder._prepare_item, paths):
                pass

    calls = {"skmm": lambda: encoder.transform(paths), "bare": bare_forward(encoder, len(paths)), "decode": decode}
    if EncodingRun(encoder).model.device.type == "cpu":
        calls["a batch per core"] = forward_per_core(encoder, len(paths))
    if with_others:
        calls["skmm, one worker"] = lambda: one_worker(encoder, paths)
        try:
            from embetter.vision import ImageLoader, TimmEncoder
        except ImportError:
            pass
        else:
            create = timm.create_model

            # It asks the hub for weights, which random ones stand for here.
            def create_random(*args, **kwargs):
                return create(*args, **{**kwargs, "pretrained": False}).eval()

            with mock.patch.object(timm, "create_model", create_random):
                other = TimmEncoder(name)
            calls["embetter"] = lambda: other.transform(ImageLoader().fit_transform(paths))
    rates = interleaved(calls, len(paths), runs)
    forward = max(rates["bare"], rates.get("a batch per core", 0))
    return {**rates, "ceiling, 1/(1/F + 1/D)": 1 / (1 / forward + 1 / rates["decode"])}


def ready_batch(encoder, n_rows):
    """Return a tensor of images as the encoder's network takes it."""
    model = EncodingRun(encoder).model
    side = model.recipe["input_size"][1]
    return torch.rand(n_rows, 3, side, side).to(model.device, model.dtype, memory_format=torch.channels_last)


def bare_forward(encoder, n_images):
    """Return a function that runs the encoder's network on ready images, in batches of 32; on a GPU of 256."""
    n_rows = 32 if EncodingRun(encoder).model.device.type == "cpu" else 256
    network, batch = EncodingRun(encoder).model.network, ready_batch(encoder, n_rows)

    def forward():
        with torch.inference_mode():
            for start in range(0, n_images, n_rows):
                network(batch[: n_images - start]).float().cpu().numpy()

    return forward


def forward_per_core(encoder, n_images):
    """Return a function that runs the encoder's network on that many ready images, a batch of 8 on each core."""
    network, batch = EncodingRun(encoder).model.network, ready_batch(encoder, 8)
    n_workers = available_cpus()

    def work(start):
        with torch.inference_mode():
            return network(batch[: n_images - start]).float().cpu().numpy()

    def forward():
        with (
            divided_threads() as divide,
            ThreadPoolExecutor(n_workers, initializer=divide, initargs=(n_workers,)) as pool,
        ):
            for _ in pool.map(work, range(0, n_images, 8)):
                pass

    return forward


def main():
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--large", type=int, default=150)
    arguments = parser.parse_args()
    folder = data_folder("grocery_store")
    start = time.perf_counter()
    rates_of = {"MiniLM, texts": time_texts(texts_of_mixed_length(folder, arguments.texts), arguments.runs)}
    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        images = photos(folder, arguments.images)
        for name in NETWORKS:
            rates_of[f"{name}, photos"] = time_images(name, images, arguments.runs, temporary, name == NETWORKS[0])
        large = enlarged(images[: arguments.large], temporary)
        rates_of[f"{NETWORKS[0]}, large photos"] = time_images(NETWORKS[0], large, arguments.runs, temporary)
    rows = []
    for task, rates in rates_of.items():
        of_limit = "ceiling" if "large" in task else "bare"
        limit = max(rate for name, rate in rates.items() if name.startswith(of_limit))
        for name, rate in rates.items():
            rows.append({"task": task, "what": name, "per_second": rate, "skmm_over_it": rates["skmm"] / rate})
            print(f"{task:32} {name:28} {rate:9.1f} items/s   skmm / it {rates['skmm'] / rate:5.2f}")
        rows.append({"task": task, "what": "limit", "per_second": limit, "skmm_over_it": rates["skmm"] / limit})
    device = resolve_device("auto")
    machine = {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability()}
    machine["precision"] = str(resolve_precision("auto", device))
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    machine["packages"] = {name: version(name) for name in ("sentence-transformers", "timm", "torch", "transformers")}
    print(machine)
    rates = {**machine, **vars(arguments), "rows": rows}
    # What was measured on a GPU stands beside what was measured on a CPU.
    write("encode" if device.type == "cpu" else f"encode_{device.type}", rates, time.perf_counter() - start)


if __name__ == "__main__":
    main()
