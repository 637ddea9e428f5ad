"""Does find_mismatches find swapped captions, and does it report right rows no more often than it promises?

Emoji with their names, and photos of groceries (the training part) with the description of their class; texts by
MiniLM, pictures by SqueezeNet. 5 % of the texts are permuted, descriptions across classes, with 20 seeds; or none.
Average precision is that of the scores of all rows, to find those whose text was changed. "False" is the share of right
rows among those that are reported at a false discovery rate of 10 %, 0 where none is reported, as its mean and standard
error over the seeds.

    OMP_NUM_THREADS=1 python benchmarks/mismatches.py [--text-model FOLDER_OR_NAME]
"""

import argparse
import time

import numpy as np
import pandas as pd
from _accuracy import data_folder, read_grocery, write
from accuracy_emoji import encode, image_encoder, load_emoji
from sklearn.metrics import average_precision_score

from skmm import CCAFusion, ModalityFuser, TextEncoder
from skmm.inspection import find_mismatches

SEEDS = 20
SHARE = 0.05
RATE = 0.1


def encode_grocery(text_model, weights):
    """Return X, with a row per photo, the columns of text and image, and the class of each row."""
    photos = read_grocery().query("set == 'train'")
    text = TextEncoder(text_model).fit_transform(photos["description"])
    image = image_encoder(weights).fit_transform(photos["photo"])
    X = np.hstack([text, image])
    return X, {"text": slice(0, text.shape[1]), "image": slice(text.shape[1], X.shape[1])}, photos["product"].to_numpy()


def swap(labels, share, rng):
    """Return the rows from which the texts come: a share of the rows gets that of another one with another label."""
    sources = np.arange(len(labels))
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    received = rng.permutation(rows)
    while (same := np.flatnonzero(labels[received] == labels[rows])).size:
        i, j = same[0], rng.integers(len(rows))
        received[[i, j]] = received[[j, i]]
    sources[rows] = received
    return sources


def evaluate(X, columns, labels, share, seed):
    """Return the average precision, the number of reported rows, and the share of right ones among them."""
    sources = swap(labels, share, np.random.default_rng(seed))
    X = X.copy()
    X[:, columns["text"]] = X[sources, columns["text"]]
    wrong = labels[sources] != labels
    modalities = [(name, "passthrough", view) for name, view in columns.items()]
    fuser = ModalityFuser(modalities, CCAFusion(128, weighting="correlation", power=4))
    frame = find_mismatches(X, fuser, fdr=1, random_state=seed)
    reported = frame.index[frame["q_value"] <= RATE]
    return {
        "average precision": average_precision_score(wrong[frame.index], frame["score"]) if share else np.nan,
        "reported": len(reported),
        "false": float((~wrong[reported]).mean()) if len(reported) else 0.0,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text-model", default="sentence-transformers/all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    begin, rows = time.perf_counter(), []
    weights = data_folder("weights") / "squeezenet1_0" / "squeezenet1_0.safetensors"
    X, columns = encode(load_emoji(data_folder("emoji_noto")), arguments.text_model, weights)
    sets = {
        "emoji": (X.astype(np.float32), columns, np.arange(len(X))),
        "groceries": encode_grocery(arguments.text_model, weights),
    }
    print(f"{'set':10} swapped  average precision  reported  false at {RATE:.0%}")
    for name, data in sets.items():
        for share in (SHARE, 0):
            results = pd.DataFrame([evaluate(*data, share, seed) for seed in range(SEEDS)])
            mean, error = results.mean(), results.std() / np.sqrt(SEEDS)
            rows.append({"set": name, "swapped": share, **mean, "standard error of false": error["false"]})
            precision = f"{mean['average precision']:.3f}" if share else "-"
            false = f"{mean['false']:.3f} ± {error['false']:.3f}"
            print(f"{name:10} {share:7.0%}  {precision:>17}  {mean['reported']:8.1f}  {false}", flush=True)
    rows = [{key: value for key, value in row.items() if value == value} for row in rows]
    write("mismatches", {"seeds": SEEDS, "rows": rows}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
