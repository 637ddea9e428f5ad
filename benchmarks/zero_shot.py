"""Classes that no row of the training data had, known by their texts alone, and with a few labels each.

No checkpoint of CLIP can be downloaded everywhere, so that the space of texts and images is a joint embedding, fitted
on the pairs of other classes, and far weaker than CLIP's:

- emoji: a fifth of the 97 subgroups is held out; pictures of these are classified by the subgroups' names
  ("animal bird"), among those with 12 emoji at least;
- grocery store: a fifth of the 81 classes is held out; photos are classified by a description and a name of each class.

Of the held-out rows 0, 1, 2, 4 or 8 per class have a label; the others are for testing. Printed are balanced accuracy
and log loss, means over draws: of texts alone ("prompts"), of texts and labels (ZeroShotClassifier at its defaults),
of texts and labels with the temperature alone calibrated, and of a logistic regression on the labels alone, on the
image's features in the joint space. Writes ``results/zero_shot.json``.

    OMP_NUM_THREADS=1 python benchmarks/zero_shot.py [--draws 10] [--data emoji grocery]
"""

import argparse
import time
import warnings
from functools import partial

import numpy as np
from _accuracy import data_folder, read_grocery, write
from accuracy_emoji import encode, load_emoji
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, normalize

from skmm import CCAFusion, ImageEncoder, KernelCCAFusion, TextEncoder, ZeroShotClassifier

EMBEDDINGS = {"CCA": CCAFusion(64), "kernel CCA": KernelCCAFusion(64, random_state=0)}
SHOTS = (0, 1, 2, 4, 8)
SMALLEST_CLASS = 12


def read_emoji():
    """Return features with a row per emoji, the columns of each view, the classes, and the texts of each class."""
    emoji = load_emoji(data_folder("emoji_noto"))
    X, columns = encode(
        emoji,
        "sentence-transformers/all-MiniLM-L6-v2",
        data_folder("weights") / "squeezenet1_0" / "squeezenet1_0.safetensors",
    )
    y = emoji["subgroup"].to_numpy(dtype=object)
    return X, columns, y, {name: name.replace("-", " ") for name in set(y)}


def encode_grocery():
    """Return the same of the grocery store, with a row per photo."""
    photos = read_grocery()
    each = photos.drop_duplicates("product")
    texts = {row.product: [f"{row.product} {row.kind}".replace("-", " "), row.description] for row in each.itertuples()}
    y = photos["product"].to_numpy(dtype=object)
    embedded = {name: TextEncoder().fit_transform(pair).mean(axis=0) for name, pair in texts.items()}
    text = np.stack([embedded[name] for name in y])
    image = ImageEncoder(verbose=True).fit_transform(photos["photo"])
    X = np.hstack([text, image]).astype(float)
    return X, {"text": slice(0, text.shape[1]), "image": slice(text.shape[1], X.shape[1])}, y, texts


def evaluate(embedding, X, columns, y, texts, train, test, rng):
    """Return number of labels -> method -> (balanced accuracy, log loss)."""
    embedding = embedding.set_params(blocks=columns).fit(X[train])
    sides = {name: FunctionTransformer(partial(embedding.transform_modality, name=name)) for name in columns}
    names, counts = np.unique(y[test].astype(str), return_counts=True)
    names = names[counts >= SMALLEST_CLASS]
    options = {
        "image": sides["image"],
        "text": make_pipeline(TextEncoder(), sides["text"]),
        "classes": {name: texts[name] for name in names},
        "templates": "{}",
    }
    rows = rng.permutation(test[np.isin(y[test].astype(str), names)])
    images, y = X[:, columns["image"]], y.astype(str)
    place = np.array([(y[rows[:i]] == y[row]).sum() for i, row in enumerate(rows)])
    held_out = rows[place >= max(SHOTS)]
    results = {}
    for n_labels in SHOTS:
        labelled = rows[place < n_labels]
        methods = {"prompts": ZeroShotClassifier(**options).fit()}
        if n_labels:
            methods["temperature"] = ZeroShotClassifier(alpha=0, **options).fit(images[labelled], y[labelled])
            methods["prompts and labels"] = ZeroShotClassifier(**options).fit(images[labelled], y[labelled])
            regression = make_pipeline(sides["image"], FunctionTransformer(normalize), LogisticRegression(C=100))
            methods["labels alone"] = regression.fit(images[labelled], y[labelled])
        results[n_labels] = {"chance": (1 / len(names), np.log(len(names)))}
        for method, model in methods.items():
            answers = model.predict_proba(images[held_out])
            accuracy = balanced_accuracy_score(y[held_out], model.classes_[answers.argmax(axis=1)])
            results[n_labels][method] = accuracy, log_loss(y[held_out], answers, labels=model.classes_)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--data", nargs="+", default=["emoji", "grocery"], choices=["emoji", "grocery"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    begin = time.perf_counter()
    table = []
    for data in arguments.data:
        X, columns, y, texts = {"emoji": read_emoji, "grocery": encode_grocery}[data]()
        splits = GroupShuffleSplit(arguments.draws, test_size=0.2, random_state=0)
        draws = list(splits.split(X, groups=y))
        for name, embedding in EMBEDDINGS.items():
            results = [
                evaluate(embedding, X, columns, y, texts, *draw, np.random.default_rng(seed))
                for seed, draw in enumerate(draws)
            ]
            print(f"\n{data}, {name}: balanced accuracy and log loss, means over {len(draws)} draws of classes")
            for n_labels in SHOTS:
                print(f"  {n_labels} labels per class")
                for method in results[0][n_labels]:
                    values = np.array([result[n_labels][method] for result in results])
                    (accuracy, loss), error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
                    table.append({"data": data, "embedding": name, "labels": n_labels, "method": method})
                    table[-1] |= {"accuracy": accuracy, "log_loss": loss, "standard_error": error[0]}
                    print(f"    {method:20} {accuracy:.3f} (standard error {error[0]:.3f})  {loss:.2f}", flush=True)
    if len(arguments.data) == 2:
        write("zero_shot", {"draws": arguments.draws, "rows": table}, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
