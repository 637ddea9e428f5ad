"""Rows beside their partners."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from skmm import ImageDescriptor
from skmm.inspection import find_duplicates, find_leaks, show_pairs


@pytest.fixture(scope="module")
def pictures():
    images = list(np.random.default_rng(0).integers(256, size=(6, 10, 10), dtype=np.uint8))
    images[4] = images[1]
    captions = ["a <b>", "fox & hen", "c", "d", None, "f"]
    return pd.DataFrame(
        {"image": pd.Series(images, dtype=object), "caption": captions, "size": np.arange(6.0)}
    ).set_axis([*"uvwxyz"])


MODALITIES = [("image", ImageDescriptor(), "image")]


def test_rows_and_partners_stand_side_by_side(pictures):
    frame = find_duplicates(pictures, MODALITIES).duplicates
    table = show_pairs(frame, pictures)
    assert repr(table) == "PairsTable of 2 rows: 'v' and 'y', 'y' and 'v'"
    rows = re.findall("<tr>.*?</tr>", table._repr_html_())
    assert re.findall("<th>(.*?)</th>", rows[0]) == ["row", "partner", "modality", "score", "reason"]
    cells = re.findall("<td>(.*?)</td>", rows[1])
    assert "<b>v</b>" in cells[0]
    assert "fox &amp; hen" in cells[0]
    assert "<b>y</b>" in cells[1]
    assert "missing" in cells[1]
    assert cells[2:] == ["image", "1", "equal"]
    assert table.html.count("data:image/png;base64,") == 4
    assert "<p>3" not in table.html
    assert repr(show_pairs(frame, pictures, max_rows=1)) == "PairsTable of 1 rows: 'v' and 'y'"
    assert "img" not in show_pairs(frame, pictures, columns=["size"]).html


def test_partners_of_another_set_and_polars(pictures):
    train, test = pictures.iloc[:3], pictures.iloc[3:]
    leaks = find_leaks(train, test, MODALITIES)
    cells = re.findall("<td>(.*?)</td>", show_pairs(leaks, test, train).html)
    assert "<b>y</b>" in cells[0]
    assert "<b>v</b>" in cells[1]
    texts = pl.DataFrame({"caption": ["a", "b", "a"]})
    frame = pd.DataFrame({"partner": [2], "reason": ["equal"]}, index=[0])
    assert "<b>2</b>" in show_pairs(frame, texts).html


def test_unknown_columns_and_arrays_raise(pictures):
    frame = find_duplicates(pictures, MODALITIES).duplicates
    with pytest.raises(ValueError, match=r"columns must name columns of the data, .* got \['who'\]"):
        show_pairs(frame, pictures, columns=["who"])
    with pytest.raises(ValueError, match=r"by default those without numbers; got \[\]"):
        show_pairs(frame, pictures[["size"]])
    with pytest.raises(ValueError, match="X must be a data frame, got ndarray"):
        show_pairs(frame, np.ones((6, 2)))


def test_partners_of_other_data_raise():
    train = pd.DataFrame({"text": ["red fox", "blue hen", "tall man"]}, index=[*"abc"])
    test = pd.DataFrame({"text": ["grey cat", "red fox", "old owl"]}, index=[*"xyz"])
    leaks = find_leaks(train, test, [("text", TfidfVectorizer(), "text")])
    assert "red fox" in show_pairs(leaks, test, train).html
    with pytest.raises(ValueError, match="X_partner has no row 'a'; pass the data in which the rows were found"):
        show_pairs(leaks, test)
