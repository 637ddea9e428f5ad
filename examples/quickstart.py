"""Which fusion of text and image tells scripts apart? The main job of skmm, from a data frame to a search.

The data: some 3,000 characters of 12 scripts, each with its picture and its Unicode name. Neither names the
script: "small letter ka" may be Cyrillic or Georgian, and many shapes look alike. A language model encodes the
names, classical descriptors the pictures; stock ``GridSearchCV`` then chooses how to fuse them.

The store of the encoder would spare a search from encoding a text twice, but descriptors have none. So this script
embeds once, first, and searches over the fusion of the embeddings after that.

    python examples/quickstart.py
    python examples/quickstart.py --text-model intfloat/e5-small-v2     # any model of the hub, or a folder
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from skmm import CCAFusion, ImageDescriptor, LDAFusion, ModalityFuser, PCAFusion, TextEncoder
from skmm.datasets import load_glyphs

SCORING = "balanced_accuracy"


def embed(glyphs, text_model):
    """Encode both columns once; return one data frame with columns text__0, ..., image__hog0, ..."""
    encoders = {
        "text": TextEncoder(text_model, verbose=True),
        "image": ImageDescriptor("hog", cells_per_block=1, verbose=True),
    }
    tables = []
    for name, encoder in encoders.items():
        features = encoder.set_output(transform="pandas").fit_transform(glyphs[name])
        tables.append(features.add_prefix(f"{name}__"))
    return pd.concat(tables, axis=1)


def search(X, y, names, fusions, cv, refit=True):
    """Search over fusions of the named modalities and the classifier's C."""
    modalities = [(name, "passthrough", make_column_selector(f"^{name}__")) for name in names]
    pipe = Pipeline([("fuse", ModalityFuser(modalities)), ("clf", LogisticRegression(tol=1e-3, max_iter=1000))])
    grid = {"fuse__fusion": fusions, "clf__C": [0.1, 1]}
    return GridSearchCV(pipe, grid, cv=cv, scoring=SCORING, refit=refit, n_jobs=2).fit(X, y)


def best_by_strategy(fitted, label=None):
    """Return one row per strategy, at its best C, sorted by score."""
    results = pd.DataFrame(fitted.cv_results_)
    fusion = results["param_fuse__fusion"].map(lambda value: value if isinstance(value, str) else repr(value))
    table = pd.DataFrame(
        {
            "strategy": fusion if label is None else label,
            "C": results["param_clf__C"],
            "mean": results["mean_test_score"],
            "sd": results["std_test_score"],
            "fit_seconds": results["mean_fit_time"],
        }
    )
    return table.loc[table.groupby("strategy")["mean"].idxmax()]


def draw(table, fitted, X, glyphs, target_names, y, path):
    """Draw what the table says, and what the best fusion still confuses."""
    import matplotlib.pyplot as plt
    from sklearn.model_selection import cross_val_predict

    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained", width_ratios=[1.1, 1])
    colors = ["#999999" if single else "#0072B2" for single in table["single"]]
    bars = left.barh(table["strategy"], table["mean"], xerr=table["sd"], color=colors, capsize=3)
    left.bar_label(bars, [f"{mean:.2f}" for mean in table["mean"]], label_type="center", color="white", weight="bold")
    left.axvline(
        table.loc[table["single"], "mean"].max(), color="#D55E00", linestyle="--", label="best single modality"
    )
    left.set(xlabel="balanced accuracy, 5-fold cross-validation", xlim=(0, 1), title="What fusion gains")
    left.legend(loc="lower right", framealpha=1)

    predicted = cross_val_predict(fitted.best_estimator_, X, y, cv=fitted.cv, n_jobs=2)
    wrong = np.flatnonzero(predicted != y)
    right.set(title=f"{len(wrong)} of {len(y)} characters are still confused, such as", xticks=[], yticks=[])
    right.spines[:].set_visible(False)
    shown = wrong[:: max(1, len(wrong) // 12)][:12]
    for i, row in enumerate(shown):
        cell = right.inset_axes([0.02 + (i % 4) * 0.25, 0.72 - (i // 4) * 0.33, 0.2, 0.2])
        cell.imshow(glyphs["image"].iloc[row], cmap="gray")
        cell.set(xticks=[], yticks=[])
        cell.set_title(f"{target_names[y.iloc[row]]}\n(taken for {target_names[predicted[row]]})", fontsize=8)
        name = glyphs["text"].iloc[row]
        cell.set_xlabel(name if len(name) <= 20 else name[:19] + "…", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text-model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="name of a sentence-transformers model on the hub, or a local folder (default: %(default)s)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path(__file__).parent / "output" / "quickstart.png",
        help="where to write the picture (default: %(default)s)",
    )
    arguments = parser.parse_args()
    start = time.perf_counter()

    bunch = load_glyphs()
    glyphs, y, target_names = bunch.data, bunch.target, bunch.target_names
    print(f"{len(glyphs)} characters of {len(target_names)} scripts, each with a picture and a name.")
    print(glyphs[["text"]].assign(script=[target_names[label] for label in y]).sample(4, random_state=1).to_string())

    print("\nEncode each modality once:", flush=True)
    X = embed(glyphs, arguments.text_model)

    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    print("\nSearch for the best single modality ...", flush=True)
    singles = [
        best_by_strategy(search(X, y, [name], ["concat"], cv, refit=False), f"{name} alone")
        for name in ("text", "image")
    ]
    print("Search over fusion strategies ...", flush=True)
    # Of so many columns PCA finds the leading components by random projections.
    fusions = ["concat", PCAFusion(128, random_state=0), LDAFusion(), CCAFusion(128)]
    fitted = search(X, y, ["text", "image"], fusions, cv)

    table = pd.concat([*singles, best_by_strategy(fitted)], ignore_index=True)
    table["single"] = table["strategy"].str.endswith("alone")
    table = table.sort_values("mean", ignore_index=True)
    table["gain"] = table["mean"] - table.loc[table["single"], "mean"].max()
    print("\nBalanced accuracy, each strategy at its best C; gain is over the best single modality:\n")
    shown = table[::-1][["strategy", "C", "mean", "sd", "gain", "fit_seconds"]]
    formats = {"mean": "{:.3f}".format, "sd": "{:.3f}".format, "gain": "{:+.3f}".format, "fit_seconds": "{:.2f}".format}
    print(shown.to_string(index=False, formatters=formats))

    draw(table, fitted, X, glyphs, target_names, y, arguments.picture)
    print(f"\nPicture: {arguments.picture}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
