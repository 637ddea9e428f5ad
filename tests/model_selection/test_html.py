"""The page of a comparison: its script sorts the table of numbers. What the page says is in test_comparison.py."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from skmm.model_selection import compare_fusions
from skmm.model_selection._html import read_template

IRIS = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]

# As much of a browser's document as the script needs, then two clicks on each heading.
CLICKS = """
const table = %s;
const body = { rows: table.rows.map(cells => ({ cells: cells.map(([value, textContent]) =>
  ({ dataset: value === null ? {} : { value }, textContent }))})), append: (...rows) => { body.rows = rows; } };
const headings = { cells: [] };
headings.cells = table.headings.map((kind, cellIndex) => {
  const attributes = {};
  return {
    cellIndex, parentNode: headings, classList: { contains: name => kind === name },
    closest: () => ({ tBodies: [body] }), getAttribute: name => attributes[name] ?? null,
    setAttribute: (name, value) => { attributes[name] = value; }, removeAttribute: name => { delete attributes[name]; },
  };
});
const document = { querySelectorAll: () => headings.cells.map(cell =>
  ({ closest: () => cell, addEventListener: (event, act) => { cell[event] = act; } })) };
%s
const orders = [];
for (const cell of [...headings.cells, ...headings.cells]) {
  cell.click();
  const first = cell.getAttribute("aria-sort");
  const rows = body.rows.map(row => row.cells[0].textContent);
  cell.click();
  orders.push([[first, rows], [cell.getAttribute("aria-sort"), body.rows.map(row => row.cells[0].textContent)],
    headings.cells.map(other => other.getAttribute("aria-sort")).filter(Boolean).length]);
}
console.log(JSON.stringify(orders));
"""


class Numbers(HTMLParser):
    """The kinds of the headings with a button, and each cell of the last table as its value, if any, and its text."""

    def __init__(self, html):
        super().__init__()
        self.headings, self.rows, self.is_in_cell = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "table":
            self.headings, self.rows = [], []
        elif tag == "tr":
            self.rows.append([])
        elif tag == "th":
            self.headings.append(attrs.get("class"))
        elif tag == "td":
            self.rows[-1].append([attrs.get("data-value"), ""])
            self.is_in_cell = True

    def handle_endtag(self, tag):
        if tag == "td":
            self.is_in_cell = False

    def handle_data(self, data):
        if self.is_in_cell:
            self.rows[-1][-1][1] += data


class Failing(DummyClassifier):
    """Has no numbers."""

    def fit(self, X, y):
        raise ValueError("no luck")


@pytest.mark.skipif(shutil.which("node") is None, reason="running the script of a page needs node")
def test_clicks_on_headings_sort_the_numbers():
    X, y = load_iris(return_X_y=True)
    options = {"levels": ("single", "feature"), "exclude": ["kernel"], "extra": {"fails": Failing()}, "cv": 2}
    comparison = compare_fusions(LogisticRegression(), X, y, modalities=IRIS, **options)
    html, frame = comparison.to_html(), comparison.to_frame()
    script = read_template("comparison.js")
    assert script in html
    table = Numbers(html)
    table.rows = [row for row in table.rows if row]
    assert [row[0][1] for row in table.rows] == list(frame.index)
    program = CLICKS % (json.dumps({"headings": table.headings, "rows": table.rows}), script)
    ran = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, check=True)
    orders = json.loads(ran.stdout)
    keys = ["mean", "sd", "low", "gain", "gain_low", "p", "p_holm", "fit_time", "predict_time"]
    assert len(orders) == 2 * (2 + len(keys))
    # The second time each heading is clicked, rows stand as another left them.
    for (first, second, n_marked), key in zip(orders, 2 * [None, "level", *keys], strict=True):
        assert (first[0], second[0], n_marked) == ("descending", "ascending", 1)
        assert sorted(first[1]) == sorted(second[1]) == sorted(frame.index)
        if key is None:
            assert first[1] == second[1][::-1] == sorted(frame.index, reverse=True)
        elif key == "level":
            assert frame.loc[first[1], "level"].is_monotonic_decreasing
            assert frame.loc[second[1], "level"].is_monotonic_increasing
        else:
            # What has no number comes last, whichever the direction.
            for (_, labels), factor in ((first, -1), (second, 1)):
                values = factor * frame.loc[labels, key].to_numpy()
                np.testing.assert_array_equal(values, np.sort(values))
