"""Does joining the picture and the name of an emoji beat the better of them?

Noto emoji, 1,600 pictures in 8 groups (Flags are left out): the text is MiniLM's embedding of the name, the image
SqueezeNet's 512 features of the PNG file. Standardised blocks and logistic regression throughout; balanced accuracy
over 5 folds, four times, once stratified (easy: many near-duplicates such as man, woman, person) and once by subgroup
(hard); each strategy against the better single modality by the corrected resampled t-test, two-sided, with Holm's
correction. Beside them stand reference figures that were measured on the same data by a plain logistic regression.

    OMP_NUM_THREADS=1 python benchmarks/accuracy_emoji.py --text-model FOLDER_OR_NAME
"""

import argparse
import time
from itertools import chain

import numpy as np
import pandas as pd
import torch
from _accuracy import compare, data_folder, table, write
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import nn

from skmm import ImageEncoder, TextEncoder

# Five folds alone leave the corrected test little power.
REPEATS = 4

# Text, image and both, in one run of 5 folds outside this package, with other draws of the folds.
REFERENCE = {
    "stratified": {"text": 0.78, "image": 0.68, "both": 0.81},
    "by subgroup": {"text": 0.60, "image": 0.53, "both": 0.64},
}


class Fire(nn.Module):
    """Squeeze by 1x1 convolutions, then expand by 1x1 and 3x3 ones side by side."""

    def __init__(self, n_in, n_squeezed, n_out):
        super().__init__()
        self.squeeze = nn.Conv2d(n_in, n_squeezed, 1)
        self.expand1x1 = nn.Conv2d(n_squeezed, n_out, 1)
        self.expand3x3 = nn.Conv2d(n_squeezed, n_out, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


class SqueezeNet(nn.Module):
    """Feature layers of SqueezeNet 1.0 and their mean over the picture."""

    def __init__(self):
        super().__init__()

        def pool():
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        self.features = nn.Sequential(
            *(nn.Conv2d(3, 96, 7, 2), nn.ReLU(), pool()),
            *(Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128), pool()),
            *(Fire(256, 32, 128), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), pool()),
            Fire(512, 64, 256),
        )

    def forward(self, x):
        return self.features(x).mean((2, 3))


def image_encoder(weights):
    """Return the encoder of pictures: SqueezeNet's 512 features, at 128 pixels on white."""
    network = SqueezeNet().eval()
    network.load_state_dict({key: value for key, value in load_file(weights).items() if key.startswith("features.")})
    return ImageEncoder(network, preprocess={"input_size": (3, 128, 128), "crop_pct": 1.0}, background="white")


def load_emoji(folder):
    """Return a table of emoji: name, path of the picture, group, subgroup."""
    emoji = pd.read_csv(folder / "emoji.csv")
    emoji = emoji[emoji["group"] != "Flags"].reset_index(drop=True)
    return emoji.assign(path=[str(folder / file) for file in emoji["file"]])


def encode(emoji, text_model, weights):
    """Return X, with a row per emoji, and the columns of each view."""
    text = TextEncoder(text_model).fit_transform(emoji["name"])
    image = image_encoder(weights).fit_transform(emoji["path"])
    X = np.hstack([text, image]).astype(float)
    return X, {"text": slice(0, text.shape[1]), "image": slice(text.shape[1], X.shape[1])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text-model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="name of a sentence-transformers model on the hub, or a local folder (default: %(default)s)",
    )
    arguments = parser.parse_args()
    begin = time.perf_counter()
    weights = data_folder("weights") / "squeezenet1_0" / "squeezenet1_0.safetensors"
    emoji = load_emoji(data_folder("emoji_noto"))
    X, columns = encode(emoji, arguments.text_model, weights)
    y = emoji["group"].to_numpy(dtype=object)

    seeds, groups = range(REPEATS), emoji["subgroup"]
    easy = (StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y) for seed in seeds)
    hard = (StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(X, y, groups) for seed in seeds)
    splits = {"stratified": chain.from_iterable(easy), "by subgroup": chain.from_iterable(hard)}
    parts = {}
    for name, folds in splits.items():
        rows, best = compare(columns, X, y, folds, balanced_accuracy_score)
        print(f"emoji, {len(y)} pictures with names, balanced accuracy over 5 folds, {REPEATS} times, {name}\n")
        print(table(rows, best))
        print(
            "reference:", ", ".join(f"{view} {value:.2f}" for view, value in REFERENCE[name].items()), "\n", flush=True
        )
        parts[name] = {"best_single": best, "reference": REFERENCE[name], "rows": rows}
    write("accuracy_emoji", {"score": "balanced accuracy", "splits": parts}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
