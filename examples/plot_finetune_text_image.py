"""A pretrained language model and a pretrained CNN, trained end to end as one estimator.

MiniLM reads a text, EfficientNet-Lite0 looks at a picture, and a small head joins them. ``make_joint`` trains all of
it; ``make_frozen`` trains the same head on features that the two networks give as they are.

The data: emoji with their names, in eight groups, if a copy of them is at ``../shared/data`` or below ``$SKMM_DATA`` (a
folder ``emoji_noto`` with ``emoji.csv`` and the pictures), and no subgroup on both sides of a split. Else the
characters of ``load_glyphs``, of which the script is to tell. Both networks come with ``pip install "skmm[offline]"``.

Training end to end wins on all 1,601 emoji (``--n-samples 0 --n-seeds 5``): balanced accuracy .759 in the mean of five
splits, .716 on frozen features, and better on each of the five, although it sees pictures of 64 pixels and the frozen
networks those of 224. It takes two minutes of one CPU core for each, the head alone seconds. On the 400 that are drawn
by default, in a minute and a half of one core for all, it has too little to learn from: .625 and .603, better on two
of three.

    python examples/plot_finetune_text_image.py [--n-samples 400] [--n-seeds 3]
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from skmm import ImageEncoder, MultimodalNetClassifier, TextEncoder
from skmm.datasets import load_glyphs
from skmm.neural_network import ImageBranch, TextBranch

TEXTS = "sentence-transformers/all-MiniLM-L6-v2"
IMAGES = "timm/tf_efficientnet_lite0.in1k"
HEAD = {"class_weight": "balanced", "batch_size": 32, "early_stopping": False}


def make_joint(seed, n_epochs=5):
    """Return the network that is trained from texts and pictures, of a width of 64 pixels, to classes."""
    return MultimodalNetClassifier(
        [("text", TextBranch(model=TEXTS), "text"), ("image", ImageBranch(IMAGES, size=64), "image")],
        max_epochs=n_epochs,
        random_state=seed,
        **HEAD,
    )


def make_frozen(seed, n_epochs=20):
    """Return the same head on the features of the pretrained networks."""
    return MultimodalNetClassifier(
        [("text", TextEncoder(TEXTS), "text"), ("image", ImageEncoder(IMAGES), "image")],
        max_epochs=n_epochs,
        random_state=seed,
        **HEAD,
    )


def load(n_samples, seed=0):
    """Return texts and pictures, classes, and the groups that a split keeps together, None for characters."""
    folder = Path(os.environ.get("SKMM_DATA", Path(__file__).parents[2] / "shared" / "data")) / "emoji_noto"
    if not (folder / "emoji.csv").is_file():
        X, y = load_glyphs(n_samples=n_samples, random_state=seed, return_X_y=True)
        return X, y.to_numpy(), None
    emoji = pd.read_csv(folder / "emoji.csv").query("group != 'Flags'")
    if n_samples is not None and n_samples < len(emoji):
        emoji = emoji.sample(n_samples, random_state=seed)
    X = pd.DataFrame({"text": emoji["name"], "image": [str(folder / file) for file in emoji["file"]]})
    return X, emoji["group"].to_numpy(), emoji["subgroup"].to_numpy()


def split(y, groups, seed):
    """Return the rows to train on, and a quarter to test on."""
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    return next(kind(4, shuffle=True, random_state=seed).split(y, y, groups))


def plot(scores, path):
    """Draw the scores of both, with a line for each split."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(4, 3.6), layout="constrained")
    ax.plot(list(scores), np.array(list(scores.values())), color="0.7", zorder=1)
    for name, values in scores.items():
        ax.scatter([name] * len(values), values, s=25, zorder=2)
    ax.set(ylabel="balanced accuracy, a line for each split", ylim=(0, 1), xmargin=0.4)
    path.parent.mkdir(exist_ok=True)
    fig.savefig(path, dpi=150)
    print(f"\nPicture: {path}")


def main():
    """Train both on each split, print their balanced accuracy, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-samples", type=int, default=400, help="rows to use, 0 for all (default: %(default)s)")
    parser.add_argument("--n-seeds", type=int, default=3, help="number of splits (default: %(default)s)")
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path(__file__).parent / "output" / "finetune_text_image.png",
        help="where to write the picture (default: %(default)s)",
    )
    arguments = parser.parse_args()
    X, y, groups = load(arguments.n_samples or None)
    what = "characters" if groups is None else "emoji"
    print(f"{len(X)} {what}, balanced accuracy on a quarter of them (chance: {1 / len(np.unique(y)):.2f})\n")
    scores = {"frozen": [], "end to end": []}
    for seed in range(arguments.n_seeds):
        train, test = split(y, groups, seed)
        for name, make in (("frozen", make_frozen), ("end to end", make_joint)):
            start = time.perf_counter()
            network = make(seed).fit(X.iloc[train], y[train])
            scores[name].append(balanced_accuracy_score(y[test], network.predict(X.iloc[test])))
            print(f"split {seed}  {name:12} {scores[name][-1]:.3f}  ({time.perf_counter() - start:.0f} s)", flush=True)
    gains = np.subtract(scores["end to end"], scores["frozen"])
    means = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in scores.items())
    print(f"\n{means}; end to end is better in {(gains > 0).sum()} of {len(gains)} splits, by {gains.mean():+.3f}")
    plot(scores, arguments.picture)


if __name__ == "__main__":
    main()
