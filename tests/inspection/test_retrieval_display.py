"""RetrievalDisplay: what is drawn and written, that it fits, and that pages need nothing from elsewhere."""

import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer

from skmm import CrossModalRetriever, ImageDescriptor
from skmm._plot import GREEN
from skmm.inspection import RetrievalDisplay
from skmm.inspection._retrieval_display import text_width, wrapped
from skmm.inspection._thumbnails import picture_of, spectrogram

pyplot = pytest.importorskip("matplotlib.pyplot")
colors = pytest.importorskip("matplotlib.colors")

RNG = np.random.default_rng(0)
LONG = 'a title <of> the "longest" $kind$, with $5 & wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww ' * 4


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


def gallery(n=12):
    return pd.DataFrame(
        {
            "image": [RNG.integers(256, size=(30 + i, 40, 3), dtype=np.uint8) for i in range(n)],
            "text": [f"picture {i}" if i % 2 else LONG for i in range(n)],
        },
        index=[f"row {i}" for i in range(n)],
    )


class Retriever:
    """Finds rows in a fixed order, with the contract of a search."""

    def __init__(self, items):
        self.items = items

    def search(self, X_query, source=None, target=None, n=10):
        queries = X_query.index if isinstance(X_query, pd.DataFrame) else range(len(X_query))
        rows = [
            (query, rank, label, 1 / rank, *self.items.loc[label])
            for number, query in enumerate(queries)
            for rank, label in enumerate(np.roll(self.items.index, -number)[:n], start=1)
        ]
        return pd.DataFrame(rows, columns=["query", "rank", "label", "score", *self.items.columns])


def frames_of(display):
    """Bounds of the frames of right results."""
    return [patch.get_bbox() for patch in display.ax_.patches if colors.to_hex(patch.get_edgecolor()) == GREEN.lower()]


def check_fits(display):
    """No text leaves the figure or overlaps another; no picture leaves the figure."""
    display.figure_.canvas.draw()
    limits = display.figure_.bbox
    texts = [text.get_window_extent() for text in display.ax_.texts if text.get_text().strip()]
    for box in [*texts, *(image.get_window_extent() for image in display.ax_.images)]:
        assert box.x0 >= limits.x0
        assert box.x1 <= limits.x1
        assert box.y0 >= limits.y0
        assert box.y1 <= limits.y1
    for one, other in itertools.combinations(texts, 2):
        assert not one.overlaps(other)


class Page(HTMLParser):
    """The addresses, the classes of cells and the text of a page."""

    def __init__(self, html):
        super().__init__()
        self.sources, self.states, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.sources += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "article":
            self.states.append(attrs["class"])

    def handle_data(self, data):
        self.text += data


def page_of(display, path):
    display.to_html(path, title='Results of <my> "search"')
    return Page(path.read_text(encoding="utf-8"))


class TestDrawing:
    def test_right_results_are_framed(self):
        items = gallery()
        display = RetrievalDisplay.from_estimator(Retriever(items), items.iloc[:4], n=5)
        # Query i finds row i first.
        assert display.is_right.tolist() == [True, False, False, False, False] * 4
        frames = frames_of(display)
        assert len(frames) == 4
        assert len({round(frame.x0, 6) for frame in frames}) == 1
        assert display.figure_ is display.ax_.figure
        assert len(display.ax_.images) == 4 * 6
        assert display.figure_.get_figwidth() * display.figure_.dpi == 600
        assert sum(text.get_text().startswith("✓") for text in display.ax_.texts) == 4
        assert display.ax_.texts[-1].get_text() == "framed: the query's own row"

    def test_own_judgement(self):
        items = gallery()
        results = Retriever(items).search(items.iloc[:3], n=4)
        by_call = RetrievalDisplay(results, items, correct=lambda query, label: int(label[4:]) % 2 == 0)
        shuffled = results.sample(frac=1, random_state=0)
        by_array = RetrievalDisplay(shuffled, items, correct=shuffled["label"].str[4:].astype(int) % 2 == 0)
        expected = [[True, False, True, False], [False, True, False, True], [True, False, True, False]]
        # Shuffled queries come in another order, their results by rank all the same.
        assert by_call.is_right.reshape(3, 4).tolist() == expected
        order = [int(query[4:]) for query in by_array.results["query"].iloc[::4]]
        assert by_array.is_right.reshape(3, 4).tolist() == [expected[query] for query in order]
        assert by_array.results["rank"].tolist() == [1, 2, 3, 4] * 3
        plain = RetrievalDisplay(results, items, correct=None).plot()
        assert not frames_of(plain)
        assert "framed" not in plain.ax_.texts[-1].get_text()

    @pytest.mark.parametrize("columns", [["image", "text"], ["image"], ["text"]])
    @pytest.mark.parametrize("figsize", [None, (6, 9), (12, 7)])
    def test_everything_fits(self, columns, figsize):
        items = gallery()
        ax = None if figsize is None else pyplot.subplots(figsize=figsize)[1]
        results = Retriever(items[columns]).search(items[["text"]].iloc[:4], n=5)
        results["label"] = "label " + results["label"] + " of many letters"
        check_fits(RetrievalDisplay(results, items[["text"]]).plot(ax))

    def test_one_result_and_queries_of_unequal_numbers(self):
        items = gallery()
        check_fits(RetrievalDisplay.from_estimator(Retriever(items), items.iloc[:2], n=1))
        results = Retriever(items).search(items.iloc[:2], n=3).drop(index=[4, 5])
        display = RetrievalDisplay(results, items).plot()
        check_fits(display)
        assert len(display.ax_.images) == 2 + 3 + 1

    def test_rows_are_drawn_at_random_in_order(self):
        items = gallery()
        first, second = (
            RetrievalDisplay.from_estimator(Retriever(items), items, max_queries=3, random_state=0) for _ in range(2)
        )
        assert first.results.equals(second.results)
        assert first.queries.index.is_monotonic_increasing or len(first.queries) == 3
        assert len(first.queries) == 3

    def test_only_what_was_searched_for_is_shown(self):
        items = gallery().assign(id=range(12))
        retriever = Retriever(items)
        retriever.modalities_ = [("words", None, "text"), ("picture", None, ["image"])]
        for source, columns in (("words", ["text"]), (["picture"], ["image"]), (None, ["image", "text"])):
            display = RetrievalDisplay.from_estimator(retriever, items[:1], source=source)
            assert list(display.queries.columns) == columns

    @pytest.mark.parametrize("make", [list, np.array])
    def test_queries_that_are_no_frame(self, make):
        items = gallery()
        display = RetrievalDisplay.from_estimator(Retriever(items), make(["sea", "a cat"]), source="text", correct=None)
        assert display.queries["text"].tolist() == ["sea", "a cat"]
        assert display.kinds == {"text": "text", "image": "image"}

    def test_polars(self):
        items = gallery()[["text"]]
        results = Retriever(items).search(items.iloc[:2])
        results["query"] = results["query"].map({"row 0": 0, "row 1": 1})
        display = RetrievalDisplay(pl.from_pandas(results), pl.DataFrame({"text": ["x", "y"]}), correct=None).plot()
        check_fits(display)


class TestItems:
    def test_sounds_and_videos(self, tmp_path):
        pytest.importorskip("soundfile")
        from scipy.io import wavfile

        wavfile.write(tmp_path / "a.wav", 8000, np.zeros(4000, dtype=np.int16))
        clip = np.stack([np.full((20, 20, 3), 40 * i, dtype=np.uint8) for i in range(5)])
        items = pd.DataFrame({"sound": ["a.wav", (8000, RNG.normal(size=9000))], "video": [clip, None]}, index=[3, 4])
        display = RetrievalDisplay.from_estimator(Retriever(items), items, n=2, root=tmp_path)
        assert display.kinds == {"sound": "audio", "video": "video"}
        assert len(display.ax_.images) == 2 * 3 + 3
        check_fits(display)
        page = page_of(display, tmp_path / "page.html")
        assert len(page.sources) == 9

    def test_the_middle_frame(self):
        clip = np.stack([np.full((20, 20, 3), 40 * i, dtype=np.uint8) for i in range(5)])
        assert np.unique(picture_of(clip, "video")).tolist() == [80]

    def test_a_spectrogram_shows_the_pitch(self):
        times = np.arange(16000) / 16000
        for pitch in (1000, 6000):
            picture = spectrogram(np.sin(2 * np.pi * pitch * times), 16000, 100).astype(int).sum(axis=2)
            assert picture.shape == (100, 100)
            # Half the rate is at the top.
            assert 100 * (1 - pitch / 8000) == pytest.approx(picture.mean(axis=1).argmax(), abs=2)
        assert spectrogram(np.zeros(10, dtype=np.float32), 16000, 50).shape == (50, 50, 3)

    def test_lists_of_images_pil_and_large_ones(self):
        picture = Image.new("RGB", (400, 100), "red")
        assert picture_of(picture, "image", side=64).shape == (16, 64, 3)
        assert picture_of([picture, picture], "image", side=64).shape == (16, 64, 3)

    def test_items_that_cannot_be_read_and_missing_ones(self, tmp_path):
        items = pd.DataFrame({"image": ["nowhere.png", None, np.zeros((8, 8), dtype=np.uint8)], "n": [1.25, np.nan, 3]})
        display = RetrievalDisplay.from_estimator(Retriever(items), items.iloc[:1], n=3, kinds={"image": "image"})
        written = [text.get_text() for text in display.ax_.texts]
        assert written.count("cannot be read") == 2
        assert "missing" in written
        assert "1.25" in written
        check_fits(display)
        page = page_of(display, tmp_path / "page.html")
        assert "'nowhere.png' cannot be read" in page.text
        assert "missing" in page.text

    def test_kinds(self):
        items = pd.DataFrame({"name": ["cat.png", "dog", "cow"], "wave": list(RNG.normal(size=(3, 5000)))})
        judged = RetrievalDisplay.from_estimator(Retriever(items), items)
        assert judged.kinds == {"name": "text", "wave": "text"}
        assert len(judged.ax_.images) == 0
        assert any("array of" in text.get_text() for text in judged.ax_.texts)
        told = RetrievalDisplay.from_estimator(Retriever(items), items, kinds={"wave": "audio"})
        assert len(told.ax_.images) == 3 + 9


class TestPage:
    def test_contents(self, tmp_path):
        items = gallery()
        display = RetrievalDisplay.from_estimator(Retriever(items), items[["text"]].iloc[:3], n=4)
        page = page_of(display, tmp_path / "page.html")
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert page.states == ["query", "right", "", "", ""] * 3
        assert len(page.sources) == 12
        assert all(source.startswith("data:image/png;base64,") for source in page.sources)
        assert "3 of 3 queries find their own row among the first 4 results" in page.text
        assert 'Results of <my> "search"' in page.text
        assert "<my>" not in html
        assert "<of>" not in html
        assert not re.search(r"https?:|@import|url\(", html)

    def test_queries_are_limited(self, tmp_path):
        items = gallery()
        display = RetrievalDisplay(Retriever(items).search(items, n=2), items, correct=None)
        display.to_html(tmp_path / "page.html", max_queries=2)
        page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
        assert page.states.count("query") == 2
        assert "2 queries and the first 2 results of each." in page.text


class TestTexts:
    @pytest.mark.parametrize("width", [0.3, 0.8, 3.0])
    @pytest.mark.parametrize("n_lines", [1, 2, 5])
    def test_lines_are_narrow_enough(self, width, n_lines):
        for text in (LONG, "short", "two words", "w" * 90, ""):
            lines = wrapped(text, width, n_lines)
            assert len(lines) <= n_lines
            assert all(text_width(line) <= width for line in lines)
            joined = "".join(lines).replace(" ", "")
            assert joined.endswith("…") or joined == text.replace(" ", "")
            assert text.replace(" ", "").startswith(joined.rstrip("…"))

    def test_words_stay_whole(self):
        assert wrapped("alpha beta gamma", 1.1 * text_width("alpha beta"), 3) == ["alpha beta", "gamma"]


class TestErrors:
    def test_what_does_not_fit(self):
        items = gallery()
        results = Retriever(items).search(items.iloc[:2])
        with pytest.raises(ValueError, match=r"results have no columns \['score'\]"):
            RetrievalDisplay(results.drop(columns="score"), items)
        with pytest.raises(ValueError, match=r"queries \['row 0', 'row 1'\], which are not in the index of queries"):
            RetrievalDisplay(results, items.reset_index())
        with pytest.raises(ValueError, match="the index of queries holds labels more than once"):
            RetrievalDisplay(results, pd.concat([items, items]))
        with pytest.raises(ValueError, match="results must be a data frame, got list"):
            RetrievalDisplay([1], items)
        with pytest.raises(ValueError, match="kinds must map columns of"):
            RetrievalDisplay(results, items, kinds={"image": "picture"})
        with pytest.raises(ValueError, match="kinds must map columns of"):
            RetrievalDisplay(results, items, kinds={"picture": "image"})
        for correct in ("class", [True], np.zeros(20)):
            with pytest.raises(ValueError, match="correct must be 'label', a callable, None or a bool for each of the"):
                RetrievalDisplay(results, items, correct=correct)
        with pytest.raises(ValueError, match="no results to show"):
            RetrievalDisplay(results.iloc[:0], items).plot()
        with pytest.raises(ValueError, match="are too small for 2 queries"):
            RetrievalDisplay(results, items).plot(pyplot.subplots(figsize=(4, 1))[1])


def test_items_keep_their_labels():
    X = pd.DataFrame({"name": [f"fox{i} {'red' if i % 2 else 'grey'}" for i in range(20)], "size": np.arange(20.0)})
    X["weight"] = X["size"] ** 2
    modalities = [("text", TfidfVectorizer(), "name"), ("table", "passthrough", ["size", "weight"])]
    retriever = CrossModalRetriever(modalities, "cca").fit(X)
    queries = X["name"].iloc[[12, 10, 11]]
    display = RetrievalDisplay.from_estimator(retriever, queries, source="text", target="text", n=2)
    assert display.queries.iloc[:, 0].to_dict() == queries.to_dict()
    assert display.is_right.reshape(3, 2)[:, 0].all()
    # The position of an item in a list is no label of a row.
    display = RetrievalDisplay.from_estimator(retriever, ["red"], source="text", target="text", n=2)
    assert not display.is_right.any()
    pyplot.close("all")


def test_paths_are_those_of_the_retriever(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    X = pd.DataFrame({"name": [f"fox {i}" for i in range(12)], "picture": ["a.png"] * 12})
    retriever = Retriever(X)
    retriever.modalities_ = [("text", None, "name"), ("image", ImageDescriptor(root=tmp_path), "picture")]
    display = RetrievalDisplay.from_estimator(retriever, X[:2], correct=None)
    assert display.root == tmp_path
    display.to_html(tmp_path / "page.html")
    assert "cannot be read" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    pyplot.close("all")
