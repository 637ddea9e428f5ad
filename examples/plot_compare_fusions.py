"""Is fusion worth it, and which? Strategies compared on the same folds, with classes and near-duplicates as they come.

The data: some 3,000 characters of 12 scripts, each with its picture and its Unicode name. Two things make scores of
such data look better than they are, and both are handled here:

- Classes are unbalanced: Latin has twenty times the characters of Lisu. Scored is balanced accuracy, and the
  classifier weights its classes.
- Characters have near-duplicates: "letter a with grave" and "letter a with acute" differ by a stroke. In folds that
  are merely stratified one of them is learned and the other scored. In folds of whole groups (script and
  name up to "with") the scores are those of letters never seen.

``compare_fusions`` scores each strategy on the same folds and tests it against the best single modality.

    python examples/plot_compare_fusions.py
"""

import argparse
import time
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_selector
from sklearn.linear_model import LogisticRegression

from skmm import ImageDescriptor, TextEncoder
from skmm.datasets import load_glyphs
from skmm.model_selection import compare_fusions

COLUMNS = ["level", "mean", "low", "high", "gain", "p_holm", "verdict", "fit_time"]


def embed(glyphs, text_model):
    """Encode both columns once; return one data frame with columns text__0, ..., image__hog0, ..."""
    encoders = {"text": TextEncoder(text_model), "image": ImageDescriptor("hog", cells_per_block=1)}
    tables = [
        encoder.set_output(transform="pandas").fit_transform(glyphs[name]).add_prefix(f"{name}__")
        for name, encoder in encoders.items()
    ]
    return pd.concat(tables, axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text-model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="name of a sentence-transformers model on the hub, or a local folder (default: %(default)s)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(__file__).parent / "output",
        help="where to write pages and pictures (default: %(default)s)",
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)

    glyphs, y = load_glyphs(return_X_y=True)
    counts = y.value_counts()
    X = embed(glyphs, arguments.text_model)
    groups = y.astype(str) + " " + glyphs["text"].str.partition(" with ")[0]
    print(f"{len(y)} characters; {len(counts)} classes of {counts.min()} to {counts.max()}; {groups.nunique()} groups.")

    modalities = [(name, "passthrough", make_column_selector(f"^{name}__")) for name in ("text", "image")]
    estimator = LogisticRegression(class_weight="balanced", C=0.1, tol=1e-3, max_iter=1000)
    for label, fold_groups in {"stratified": None, "groups": groups}.items():
        start = time.perf_counter()
        options = {"groups": fold_groups, "n_repeats": 2, "scoring": "balanced_accuracy", "n_jobs": 2, "verbose": True}
        comparison = compare_fusions(estimator, X, y, modalities=modalities, **options)
        seconds = time.perf_counter() - start
        counted = f"{len(comparison.rows)} strategies in {seconds:.0f} s"
        print(f"\nBalanced accuracy over 5 folds, twice, {label} ({counted}):\n")
        print(comparison.to_frame()[COLUMNS].round(3).to_string(na_rep=""))
        page, picture = (arguments.folder / f"compare_fusions_{label}.{kind}" for kind in ("html", "png"))
        comparison.to_html(page, title=f"Scripts of characters, folds: {label}")
        comparison.plot().figure_.savefig(picture, dpi=120)
        print(f"\nPage and picture: {page}, {picture}\n", flush=True)


if __name__ == "__main__":
    main()
