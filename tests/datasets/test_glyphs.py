"""The glyphs are what they claim: real characters, their names without the answer, drawn whole."""

import re
import sys

import numpy as np
import pandas as pd
import pytest

from skmm.datasets._glyphs import load_glyphs

SCRIPTS = [
    "Arabic",
    "Armenian",
    "Canadian",
    "Cyrillic",
    "Georgian",
    "Greek",
    "Hebrew",
    "Lao",
    "Latin",
    "Lisu",
    "Nko",
    "Tifinagh",
]


@pytest.fixture(scope="module")
def glyphs():
    return load_glyphs()


def row_of(glyphs, character):
    return glyphs.frame[glyphs.frame["codepoint"] == ord(character)].iloc[0]


def test_size_and_classes(glyphs):
    assert len(glyphs.data) == 3048
    assert glyphs.target_names == SCRIPTS
    counts = dict(zip(SCRIPTS, np.bincount(glyphs.target), strict=True))
    assert (counts["Latin"], counts["Lisu"], counts["Nko"]) == (966, 48, 54)
    assert sum(counts.values()) == 3048


def test_parts_of_the_bunch(glyphs):
    assert glyphs.data.columns.tolist() == glyphs.feature_names == ["text", "image", "codepoint"]
    assert glyphs.frame.columns.tolist() == ["text", "image", "codepoint", "target"]
    pd.testing.assert_frame_equal(glyphs.frame[glyphs.feature_names], glyphs.data)
    pd.testing.assert_series_equal(glyphs.frame["target"], glyphs.target)
    assert glyphs.DESCR.startswith(".. _glyphs_dataset:")
    assert glyphs.data["codepoint"].is_monotonic_increasing
    assert glyphs.data["codepoint"].is_unique


@pytest.mark.parametrize(
    ("character", "text", "script"),
    [
        ("A", "capital letter a", "Latin"),
        ("é", "small letter e with acute", "Latin"),
        ("Ω", "capital letter omega", "Greek"),
        ("ж", "small letter zhe", "Cyrillic"),
        ("א", "letter alef", "Hebrew"),
        ("ᐁ", "e", "Canadian"),
        ("ᑴ", "kwe", "Canadian"),
        ("ᑵ", "west-cree kwe", "Canadian"),
        ("\N{NKO DIGIT ZERO}", "digit zero", "Nko"),
        ("ກ", "letter ko", "Lao"),
    ],
)
def test_known_characters(glyphs, character, text, script):
    row = row_of(glyphs, character)
    assert row["text"] == text
    assert glyphs.target_names[row["target"]] == script


def test_no_text_names_a_script(glyphs):
    words = re.compile("|".join([*SCRIPTS, "syllabics"]), re.IGNORECASE)
    assert [text for text in glyphs.data["text"] if words.search(text)] == []
    assert all(type(text) is str and text and text == text.strip().lower() for text in glyphs.data["text"])


def test_images_are_whole_and_not_blank(glyphs):
    images = np.stack(list(glyphs.data["image"]))
    assert images.dtype == np.uint8
    assert images.shape == (3048, 64, 64)
    assert (images == 255).any(axis=(1, 2)).all()
    assert (images < 128).sum(axis=(1, 2)).min() >= 5


def test_no_character_is_cut_off(glyphs, monkeypatch):
    # On a larger canvas there must be as much ink: nothing was lost over an edge.
    monkeypatch.setattr("skmm.datasets._glyphs._SIDE", 128)
    monkeypatch.setattr("skmm.datasets._glyphs._BASELINE", 46 + 32)
    larger = np.stack(list(load_glyphs().data["image"]))
    images = np.stack(list(glyphs.data["image"]))
    np.testing.assert_array_equal(larger[:, 32:96, 32:96], images)
    np.testing.assert_array_equal((larger < 255).sum(axis=(1, 2)), (images < 255).sum(axis=(1, 2)))


def test_characters_stand_on_one_line(glyphs):
    for character in "AHZx":
        rows_with_ink = np.flatnonzero((row_of(glyphs, character)["image"] < 128).any(axis=1))
        assert rows_with_ink.max() == 45


def test_same_shapes_in_other_scripts_look_the_same(glyphs):
    latin, greek, cyrillic = (
        row_of(glyphs, character)["image"]
        for character in ("A", "\N{GREEK CAPITAL LETTER ALPHA}", "\N{CYRILLIC CAPITAL LETTER A}")
    )
    np.testing.assert_array_equal(latin, greek)
    np.testing.assert_array_equal(latin, cyrillic)
    assert (row_of(glyphs, "B")["image"] != latin).any()


def test_forms_agree(glyphs):
    arrays = load_glyphs(as_frame=False)
    assert arrays.frame is None
    assert arrays.data.shape == (3048, 3)
    assert arrays.data.dtype == object
    assert isinstance(arrays.target, np.ndarray)
    np.testing.assert_array_equal(arrays.target, glyphs.target)
    assert arrays.data[:, 0].tolist() == glyphs.data["text"].tolist()
    assert arrays.data[:, 2].tolist() == glyphs.data["codepoint"].tolist()
    np.testing.assert_array_equal(np.stack(arrays.data[:, 1]), np.stack(list(glyphs.data["image"])))


@pytest.mark.parametrize("as_frame", [True, False])
def test_return_X_y(as_frame):
    X, y = load_glyphs(n_samples=24, as_frame=as_frame, return_X_y=True)
    bunch = load_glyphs(n_samples=24, as_frame=as_frame)
    assert type(X) is type(bunch.data)
    np.testing.assert_array_equal(y, bunch.target)
    assert list(np.asarray(X)[:, 2]) == list(np.asarray(bunch.data)[:, 2])


@pytest.mark.parametrize("n_samples", [12, 24, 60, 100, 500, 3047, 3048])
def test_subset_has_the_size_and_every_class(n_samples):
    y = load_glyphs(n_samples=n_samples).target
    assert len(y) == n_samples
    assert np.bincount(y, minlength=12).min() >= min(5, n_samples // 12)


def test_subset_keeps_proportions(glyphs):
    y = load_glyphs(n_samples=1000).target
    np.testing.assert_allclose(np.bincount(y), np.bincount(glyphs.target) * 1000 / 3048, atol=1)


def test_subset_rows_are_rows_of_the_whole(glyphs):
    subset = load_glyphs(n_samples=50)
    assert subset.data["codepoint"].is_monotonic_increasing
    for row in subset.frame.itertuples():
        full = row_of(glyphs, chr(row.codepoint))
        assert (row.text, row.target) == (full["text"], full["target"])
        np.testing.assert_array_equal(row.image, full["image"])


def test_subset_follows_random_state():
    def drawn(**options):
        return load_glyphs(n_samples=50, **options).data["codepoint"].tolist()

    assert drawn() == drawn() == drawn(random_state=0)
    assert drawn(random_state=1) == drawn(random_state=1) != drawn()


@pytest.mark.parametrize("n_samples", [0, 11, 3049, -1, 20.0, True, "all"])
def test_bad_n_samples(n_samples):
    with pytest.raises(ValueError, match="n_samples must be an int from 12"):
        load_glyphs(n_samples=n_samples)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"skmm\[plot\]"):
        load_glyphs()
