"""Which modality does a fused model live on, what do two of them do together, and what if one is spoilt?

The data: characters of 12 scripts, each with its Unicode name and its picture, and with 20 random numbers as a third
modality that says nothing. The model concatenates all three and is a logistic regression.

- Ablation takes away one modality and leaves the others: what name and picture both tell is then counted for neither.
  Shapley values average over all subsets of modalities and share out the whole score.
- The interaction of name and picture is below 0: in part they tell the same (redundancy).
- The noise is worth less than nothing: the model has learned from it, and is better when fitted without it.
- Single characters: what each modality adds to the probability of the script that the model says.
- Robustness: accuracy as more and more characters lose a modality, or have it blurred, or lose half of its words. A
  blurred picture does more harm than none, so what is known to be spoilt had better be left out.

    python examples/plot_modality_importance.py
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skmm import ImageDescriptor, ModalityFuser
from skmm.datasets import load_glyphs
from skmm.inspection import (
    MissingModalityCurveDisplay,
    ModalityImportanceDisplay,
    missing_modality_curve,
    modality_contributions,
    modality_importance,
)

NOISE = [f"noise{i}" for i in range(20)]


def load(n_samples):
    """Return characters with three modalities, and the names of their scripts."""
    data = load_glyphs(n_samples=n_samples)
    noise = np.random.default_rng(0).normal(size=(n_samples, len(NOISE)))
    X = data.data.join(pd.DataFrame(noise, columns=NOISE, index=data.data.index))
    return X, np.array(data.target_names)[data.target]


def make_model(*names):
    """Return a model of some modalities."""
    modalities = [
        ("text", TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), min_df=3), "text"),
        ("image", ImageDescriptor("hog", cells_per_block=1), "image"),
        ("noise", "passthrough", NOISE),
    ]
    return make_pipeline(
        ModalityFuser([triple for triple in modalities if triple[0] in names]), LogisticRegression(max_iter=1000)
    )


def draw(importance, curves, path):
    """Draw importance, interactions and two kinds of robustness."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    ModalityImportanceDisplay(importance).plot(axes[0, 0])
    ModalityImportanceDisplay(importance).plot(axes[0, 1], kind="interactions")
    for ax, curve in zip(axes[1], curves, strict=True):
        MissingModalityCurveDisplay(curve).plot(ax)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path(__file__).parent / "output" / "modality_importance.png",
        help="where to write the picture (default: %(default)s)",
    )
    arguments = parser.parse_args()
    start = time.perf_counter()

    X, y = load(1500)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, test_size=0.4, random_state=0)
    model = make_model("text", "image", "noise").fit(X_train, y_train)

    results = {
        method: modality_importance(model, X_test, y_test, method=method, random_state=0)
        for method in ("shapley", "ablation")
    }
    shapley = results["shapley"]
    table = pd.DataFrame(
        {
            name: [
                f"{mean:.3f} ± {2 * std:.3f}" for mean, std in zip(r.importances_mean, r.importances_std, strict=True)
            ]
            for name, r in results.items()
        },
        index=shapley.modalities,
    )
    print(f"Accuracy {shapley.full_score:.3f} with all modalities, {shapley.empty_score:.3f} without any.\n")
    print(table.to_string())
    print(f"\nThe Shapley values sum to {shapley.importances_mean.sum():.3f}.")
    redundancy, error = (values[0, 1] for values in (shapley.interactions_mean, shapley.interactions_std))
    print(f"Interaction of text and image: {redundancy:+.3f} ± {2 * error:.3f}.")
    clean = make_model("text", "image").fit(X_train, y_train).score(X_test, y_test)
    print(f"Fitted without the noise: accuracy {clean:.3f}.\n")
    assert np.isclose(shapley.importances_mean.sum(), shapley.full_score - shapley.empty_score)
    assert redundancy < 0
    assert shapley.importances_mean[2] < 0
    assert clean > shapley.full_score

    examples = X_test.iloc[:8]
    rows = modality_contributions(model, examples)
    predicted = rows.predictions.argmax(axis=1)
    print("What each modality adds to the probability of the script that the model says:\n")
    explained = pd.DataFrame(
        rows.contributions[np.arange(len(examples)), :, predicted],
        columns=rows.modalities,
        index=examples["text"].str[:30],
    )
    explained.insert(0, "says", model.classes_[predicted])
    print(explained.to_string(float_format="{:+.2f}".format))

    lose = ["text", "image", ("text", "image")]
    removed = missing_modality_curve(model, X_test, y_test, lose=lose, random_state=0)
    spoilt = missing_modality_curve(
        model,
        X_test,
        y_test,
        lose=lose,
        corruption={"text": "drop_words", "image": "blur"},
        n_repeats=2,
        random_state=0,
    )
    image = removed.curves.index("image")
    none, blurred = (curve.scores_mean[image, -1] for curve in (removed, spoilt))
    print(f"\nAccuracy without any picture {none:.3f}, with all of them blurred {blurred:.3f}.")
    assert blurred < none
    draw(shapley, [removed, spoilt], arguments.picture)
    print(f"\nPicture: {arguments.picture}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
