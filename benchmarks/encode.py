"""How close does encoding come to the bare forward pass, and how far ahead of what else there is?

Items per second, medians of interleaved runs, model set-up outside the clock, every model already warm:

- skmm: ``transform`` of a fitted encoder, from strings or JPEG paths to a float32 matrix;
- bare: a loop that feeds ready tensors to the same model in the same precision: skmm's own batches for texts (or
  sorted batches of 32 if these are faster), batches of 32 for images; the limit;
- others: ``SentenceTransformer.encode`` at its defaults for texts; embetter's ``ImageLoader`` and ``TimmEncoder`` for
  images, one image at a time as it does (needs ``pip install embetter``, left out where that is absent).

Texts: all-MiniLM-L6-v2, 2,000 texts of 1 to 6 sentences of product descriptions. Images: 1,000 photos of 128 pixels,
resized to 224 by the model's own configuration, in timm networks with random weights, on which speed does not depend.

    python benchmarks/encode.py [--runs 3] [--texts 2000] [--images 1000]
"""

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from _accuracy import data_folder, write
from sentence_transformers import SentenceTransformer
from timm.models import save_for_hf

from skmm import ImageEncoder, TextEncoder

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
    encoder = TextEncoder().fit(texts)
    model = encoder._get_model()
    prepared = [encoder._prepare_item(text) for text in texts]
    own = [[prepared[i] for i in batch] for batch in encoder._batches(prepared, model)]
    own = [model.features(batch, None) for batch in own]
    by_length = sorted(texts, key=len)
    by_32 = [model.network.preprocess(by_length[i : i + 32]) for i in range(0, len(texts), 32)]

    def bare(batches):
        with torch.inference_mode():
            for batch in batches:
                model.embed(dict(batch)).float().numpy()

    plain = SentenceTransformer(encoder._find_source()[0], device=str(model.network.device))
    calls = {
        "skmm": lambda: encoder.transform(texts),
        "bare, same batches": lambda: bare(own),
        "bare, sorted batches of 32": lambda: bare(by_32),
        "sentence-transformers": lambda: plain.encode(texts, show_progress_bar=False),
    }
    return interleaved(calls, len(texts), runs)


def time_images(name, paths, runs, folder):
    """Items per second of skmm, the bare loop and, where installed, embetter."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False)
    save_for_hf(network, folder / name, safe_serialization=True)
    encoder = ImageEncoder(folder / name).fit(paths)
    model = encoder._get_model()
    side = model.recipe["input_size"][1]
    batch = torch.rand(32, 3, side, side).to(model.device, model.dtype, memory_format=torch.channels_last)

    def bare():
        with torch.inference_mode():
            for start in range(0, len(paths), 32):
                model.network(batch[: len(paths) - start]).float().cpu().numpy()

    calls = {"skmm": lambda: encoder.transform(paths), "bare": bare}
    try:
        from embetter.vision import ImageLoader, TimmEncoder
    except ImportError:
        pass
    else:
        create = timm.create_model
        # It asks the hub for weights, which random ones stand for here.
        timm.create_model = lambda *args, **kwargs: create(*args, **{**kwargs, "pretrained": False}).eval()
        other = TimmEncoder(name)
        timm.create_model = create
        calls["embetter"] = lambda: other.transform(ImageLoader().fit_transform(paths))
    return interleaved(calls, len(paths), runs)


def main():
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--images", type=int, default=1000)
    arguments = parser.parse_args()
    folder = data_folder("grocery_store")
    start = time.perf_counter()
    rates = {"MiniLM, texts": time_texts(texts_of_mixed_length(folder, arguments.texts), arguments.runs)}
    with tempfile.TemporaryDirectory() as temporary:
        for name in NETWORKS:
            images = photos(folder, arguments.images)
            rates[f"{name}, photos"] = time_images(name, images, arguments.runs, Path(temporary))
    rows = []
    for task, found in rates.items():
        limit = max(rate for name, rate in found.items() if name.startswith("bare"))
        for name, rate in found.items():
            rows.append({"task": task, "what": name, "per_second": rate, "skmm_over_it": found["skmm"] / rate})
            print(f"{task:32} {name:28} {rate:9.1f} items/s   skmm / it {found['skmm'] / rate:5.2f}")
        rows.append({"task": task, "what": "limit", "per_second": limit, "skmm_over_it": found["skmm"] / limit})
    found = {"threads": torch.get_num_threads(), **vars(arguments), "rows": rows}
    write("encode", found, time.perf_counter() - start)


if __name__ == "__main__":
    main()
