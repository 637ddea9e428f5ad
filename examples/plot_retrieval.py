"""Find a picture by its name, and a name by its picture, among characters that the search has never seen.

The data: characters of 12 scripts, each with its Unicode name and its picture. A joint embedding is learned from the
pairs of four fifths of them. The last fifth is then all that can be found: what ranks first is no memory of a pair.

Two drawings show some queries beside their first five results, with the query's own row framed; a page shows more of
them. What to conclude: most mistakes are near misses, of the right script or of a similar shape, so look at the results
before you trust a figure such as the mean reciprocal rank, in which a near miss counts as much as nonsense.

    python examples/plot_retrieval.py
"""

import argparse
import time
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

from skmm import CrossModalRetriever, ImageDescriptor
from skmm.datasets import load_glyphs
from skmm.inspection import RetrievalDisplay


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-samples", type=int, default=2000, help="number of characters (default: %(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(__file__).parent / "output",
        help="where to write pictures and the page (default: %(default)s)",
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()

    glyphs = load_glyphs(n_samples=arguments.n_samples).data[["text", "image"]]
    train, test = train_test_split(glyphs, test_size=0.2, random_state=0)
    retriever = CrossModalRetriever(
        [
            ("text", TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), min_df=2), "text"),
            ("image", ImageDescriptor("hog", cells_per_block=1), "image"),
        ]
    ).fit(train)
    print(f"Mean reciprocal rank among {len(test)} new characters, both ways: {retriever.score(test):.3f}")

    # What was learned stays; the rows that can be found change.
    retriever.remove(train.index).add(test)
    for source, target in (("text", "image"), ("image", "text")):
        display = RetrievalDisplay.from_estimator(retriever, test, source=source, target=target, random_state=0)
        display.figure_.savefig(arguments.folder / f"retrieval_{source}_to_{target}.png")
    results = retriever.search(test[["text"]].iloc[:50], target="image", n=5)
    RetrievalDisplay(results, test[["text"]]).to_html(arguments.folder / "retrieval.html", title="Characters by name")
    print(f"Drawings and a page: {arguments.folder} ({time.perf_counter() - begin:.0f} s)")


if __name__ == "__main__":
    main()
