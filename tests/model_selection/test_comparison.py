"""Drawing and page of a comparison."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from skmm.model_selection import FusionComparisonDisplay, compare_fusions
from skmm.model_selection._strategies import make_strategies

X, y = load_iris(return_X_y=True)
IRIS = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
VOID = {"meta", "circle", "line"}


class Failing(DummyClassifier):
    """Fails with what must not become markup."""

    def fit(self, X, y):
        raise ValueError("<script>alert(1)</script>")


class Page(HTMLParser):
    """Checks that tags are closed in order, and gathers rows of tables, attributes and drawings."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tables, self.attributes, self.drawings = [], [], [], 0
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        self.drawings += tag == "svg"
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def comparison():
    added = {"<b>chance</b>": DummyClassifier(), "fails": Failing()}
    options = {"levels": ("single", "feature", "joint"), "scoring": ["accuracy", "neg_log_loss"]}
    return compare_fusions(LogisticRegression(), X, y, modalities=IRIS, extra=added, **options)


def test_page_holds_all_numbers_and_loads_nothing(comparison, tmp_path):
    html = comparison.to_html(title="Sepals & petals")
    # A page that is written is not returned, so that notebooks do not print it.
    assert comparison.to_html(tmp_path / "page.html", title="Sepals & petals") is None
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html
    page = Page(html)
    # Two tables for each scorer: one that draws, one of numbers.
    assert len(page.tables) == 4
    frame = comparison.to_frame()
    for table in page.tables[:2]:
        assert [row[0] for row in table[1:]] == [
            label for label in frame.index if len(table) > len(frame) or label != "fails"
        ]
    numbers = {row[0]: row for row in page.tables[1][1:]}
    assert numbers["concat"][2] == f"{frame.loc['concat', 'mean']:.4f}"
    assert numbers["concat"][7] == f"{frame.loc['concat', 'p']:.2g}"
    assert numbers["fails"][2] == "failed in 5 of 5 folds: ValueError: <script>alert(1)</script>"
    # All strategies that were scored draw their scores, and those that join modalities a gain, for both scorers.
    n_scored, n_joined = frame["mean"].notna().sum(), frame["gain"].notna().sum()
    assert page.drawings == 2 * (n_scored + n_joined)
    assert "Sepals &amp; petals" in html
    assert html.count("<script>") == 1
    assert "<b>chance" not in html
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert not re.search(r"https?://|url\(|@import", html)
    assert "prefers-color-scheme: dark" in html


def test_drawn_positions_are_those_of_the_numbers(comparison):
    html, frame = comparison.to_html(), comparison.to_frame("accuracy").dropna(subset="mean")
    points = [float(x) for x in re.findall(r'<circle cx="([\d.]+)%"', html)]
    # The means come first in their rows, gains second where there are any.
    has_gain = frame["gain"].notna().to_numpy()
    starts = np.cumsum([0, *(1 + has_gain[:-1])])
    drawn = np.array(points)[starts]
    scale = np.polyfit(frame["mean"], drawn, 1)
    assert np.allclose(np.polyval(scale, frame["mean"]), drawn, atol=0.01)
    assert ((drawn >= 3) & (drawn <= 97)).all()


def test_page_when_all_failed():
    failed = compare_fusions(Failing(), X, y, modalities=IRIS, levels=("single", "feature"), cv=2)
    page = failed.to_html()
    Page(page)
    assert "All strategies failed" in page
    assert "&lt;script&gt;alert(1)" in page


def test_page_without_single_modalities():
    html = compare_fusions(LogisticRegression(), X, y, modalities=IRIS, levels=("feature",), cv=2).to_html()
    assert Page(html).drawings == 5
    assert "best single modality is" not in html


def test_summary_counts_what_is_better():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(200, 4))
    target = 2 * (data[:, 0] > 0) + (data[:, 2] > 0)
    levels = ("single", "feature")
    html = compare_fusions(LogisticRegression(), data, target, modalities=IRIS, levels=levels, n_repeats=2).to_html()
    assert "5 of 5 strategies of fusion are shown to be better than every single modality." in html
    assert '<td class="verdict better">better</td>' in html


def test_display(comparison):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    display = comparison.plot()
    assert isinstance(display, FusionComparisonDisplay)
    frame = comparison.to_frame().dropna(subset="mean")
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == frame.index.tolist()
    assert display.ax_.get_yticks().tolist() == list(range(len(frame)))[::-1]
    assert display.ax_.get_xlabel() == "accuracy, mean and 95 % interval over 5 folds"
    assert display.figure_.get_size_inches()[0] == 6
    means = {container[0].get_xdata()[0] for container in display.ax_.containers}
    assert means == set(frame["mean"])
    gains = [text.get_text() for text in display.ax_.texts]
    assert f"{frame.loc['concat', 'gain']:+.3f}" in gains
    # What is shown to differ from the best single modality has a star.
    assert f"{frame.loc['<b>chance</b>', 'gain']:+.3f}*" in gains
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["best single", "single", "feature", "joint", "extra"]
    pyplot.close(display.figure_)


def test_display_without_gains_has_no_column_of_gains():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    display = compare_fusions(LogisticRegression(), X, y, modalities=IRIS, levels=("single",), cv=2).plot()
    assert len(display.ax_.texts) == 0
    pyplot.close(display.figure_)


def test_long_names_leave_room():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    added = {"a name that is longer than any of the others, by far": DummyClassifier()}
    display = compare_fusions(
        LogisticRegression(), X, y, modalities=IRIS, levels=("single",), extra=added, refit=False
    ).plot()
    display.figure_.canvas.draw()
    assert display.ax_.get_position().width > 0.6
    box = display.ax_.xaxis.label.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= display.figure_.bbox.width
    pyplot.close(display.figure_)


def test_display_into_given_axes(comparison):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, ax = pyplot.subplots()
    display = FusionComparisonDisplay.from_comparison(comparison, "neg_log_loss", ax=ax)
    assert display.ax_ is ax
    assert ax.get_xlabel().startswith("neg_log_loss, mean")
    pyplot.close(figure)


def test_display_from_estimator():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    options = {"levels": ("single", "feature"), "exclude": ["product", "kernel"], "scoring": "balanced_accuracy"}
    display = FusionComparisonDisplay.from_estimator(LogisticRegression(), X, y, modalities=IRIS, **options)
    expected = compare_fusions(LogisticRegression(), X, y, modalities=IRIS, **options).to_frame()
    times = ["fit_time", "predict_time"]
    assert display.frame.drop(columns=times).equals(expected.drop(columns=times))
    assert display.ax_.get_xlabel().startswith("balanced_accuracy, mean")
    pyplot.close(display.figure_)


def test_display_from_predictions():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    options = {"levels": ("single", "feature"), "exclude": ["lda", "product", "kernel"], "cv": cv}
    comparison = compare_fusions(LogisticRegression(), X, y, modalities=IRIS, **options)
    strategies = make_strategies(IRIS, LogisticRegression(), options["levels"], options["exclude"], random_state=0)
    predictions = {s.label: cross_val_predict(s.estimator, X, y, cv=cv) for s in strategies}
    folds = np.empty(len(y), dtype=int)
    for number, (_, test) in enumerate(cv.split(X, y)):
        folds[test] = number
    levels = {s.label: s.level for s in strategies}
    _, ax = pyplot.subplots()
    display = FusionComparisonDisplay.from_predictions(
        y, predictions, folds, levels=levels, metric=accuracy_score, score_name="accuracy", confidence=0.9, ax=ax
    )
    assert display.ax_ is ax
    assert ax.get_xlabel() == "accuracy, mean and 90 % interval over 5 folds"
    comparison.confidence = 0.9
    times = ["fit_time", "predict_time"]
    pd.testing.assert_frame_equal(display.frame.drop(columns=times), comparison.to_frame().drop(columns=times))
    for levels, text in [({"none": "single"}, "must map strategies of"), ({"concat": "deep"}, "to levels of")]:
        with pytest.raises(ValueError, match=text):
            FusionComparisonDisplay.from_predictions(y, predictions, folds, levels=levels, metric=accuracy_score)
    with pytest.raises(ValueError, match="at least 2 folds to compare scores over, got 1"):
        FusionComparisonDisplay.from_predictions(y, predictions, np.zeros(len(y)), metric=accuracy_score)
    unknown = FusionComparisonDisplay.from_predictions(y, {"mine": y}, folds, metric=accuracy_score)
    assert unknown.frame.loc["mine", ["level", "mean"]].tolist() == ["extra", 1.0]
    assert np.isnan(unknown.frame.loc["mine", "gain"])
    pyplot.close("all")


def test_repr(comparison):
    best = comparison.to_frame().iloc[0]
    highest = f"{best.name} is highest, with a mean accuracy of {best['mean']:.3g}"
    assert repr(comparison) == f"FusionComparison of 13 strategies over 5 folds: {highest}"
