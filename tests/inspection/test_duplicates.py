"""Equal rows and near duplicates: pairs, groups and thresholds."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.cluster import DBSCAN
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from skmm import ImageDescriptor, _similar
from skmm._similar import SimilarRows, join_groups
from skmm.inspection import find_duplicates, find_leaks

FEATURES = [("features", "passthrough", slice(0, 10))]


def rows_with_copies():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 10))
    X[50] = X[20] = X[80]
    X[60] = X[10] + 1e-3 * rng.normal(size=10)
    X[61] = X[60] + 1e-3 * rng.normal(size=10)
    return X


def test_copies_and_near_copies():
    X = rows_with_copies()
    result = find_duplicates(X, FEATURES)
    frame = result.duplicates
    assert_array_equal(frame.index, [10, 20, 50, 60, 61, 80])
    assert_array_equal(frame["partner"], [60, 50, 20, frame.loc[60, "partner"], 60, 20])
    assert_array_equal(frame["reason"] == "equal", [False, True, True, False, False, True])
    assert (frame["score"] > result.thresholds["features"]).all()
    assert len(np.unique(result.groups)) == 200 - 4
    assert result.groups[20] == result.groups[50] == result.groups[80]
    assert result.groups[10] == result.groups[60] == result.groups[61]
    for train, test in GroupKFold(5).split(X, groups=result.groups):
        assert not set(result.groups[train]) & set(result.groups[test])


@pytest.mark.parametrize("threshold", [0.3, 0.7, 0.99])
def test_groups_are_connected_components(threshold, monkeypatch):
    monkeypatch.setattr(_similar, "_BLOCK", 1000)
    X = rows_with_copies()
    result = find_duplicates(X, FEATURES, threshold=threshold)
    # The mean is that of different rows.
    Z = X - np.delete(X, [50, 80], axis=0).mean(axis=0)
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    expected = DBSCAN(eps=1 - threshold + 1e-9, min_samples=1, metric="cosine").fit_predict(Z)
    assert_array_equal(result.groups, expected)
    cosines = Z @ Z.T
    np.fill_diagonal(cosines, -1)
    frame = result.duplicates
    assert_array_equal(frame.index, np.flatnonzero(cosines.max(axis=1) >= threshold))
    assert_allclose(frame["score"], cosines.max(axis=1)[frame.index])
    assert_allclose(cosines[frame.index, frame["partner"]], frame["score"])
    assert result.thresholds == {"features": threshold}


@pytest.mark.parametrize("n_features", [2, 3, 8, 50])
def test_chance_brings_no_duplicates(n_features):
    X = np.random.default_rng(0).normal(size=(500, n_features))
    result = find_duplicates(X, [("features", "passthrough", slice(0, n_features))])
    assert len(result.duplicates) <= 0.04 * 500


def test_few_rows_are_duplicates_only_if_equal():
    X = np.random.default_rng(0).normal(size=(15, 10))
    X[3], X[7] = X[2], X[6] + 1e-4
    assert_array_equal(find_duplicates(X, FEATURES).duplicates.index, [2, 3])
    assert len(find_duplicates(np.ones((4, 10)), FEATURES).duplicates) == 4
    assert len(np.unique(find_duplicates(np.ones((4, 10)), FEATURES).groups)) == 1


def test_modalities_and_missing_items():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 12)), index=[f"row {i}" for i in range(100)])
    X.columns = [*"abcdefghijkl"]
    X.iloc[5, :6] = X.iloc[3, :6]
    X.iloc[9, 6:] = X.iloc[5, 6:]
    X.iloc[[20, 21, 22], 6:] = np.nan
    modalities = [("first", "passthrough", list("abcdef")), ("second", "passthrough", list("ghijkl"))]
    result = find_duplicates(X, modalities)
    frame = result.duplicates
    assert_array_equal(frame.index, ["row 3", "row 5", "row 5", "row 9"])
    assert_array_equal(frame["modality"], ["first", "first", "second", "second"])
    assert_array_equal(frame["partner"], ["row 5", "row 3", "row 9", "row 5"])
    assert result.groups[3] == result.groups[5] == result.groups[9]
    assert len(np.unique(result.groups)) == 98
    only = find_duplicates(X, modalities, modality="second")
    assert_array_equal(only.duplicates.index, ["row 5", "row 9"])
    assert set(only.thresholds) == {"second"}
    with pytest.raises(ValueError, match=r"modality must be one or several of \['first', 'second'\], got 'third'"):
        find_duplicates(X, modalities, modality="third")


def test_leaks_are_those_of_both_sets_together():
    X = rows_with_copies()
    train, test = np.arange(70), np.arange(70, 200)
    X[150] = X[11] + 1e-3
    leaks = find_leaks(X[train], X[test], FEATURES)
    assert_array_equal(leaks.index, [10, 80])
    assert_array_equal(leaks["partner"], [20, 11])
    assert_array_equal(leaks["reason"] == "equal", [True, False])
    frame = pd.DataFrame(X).add_prefix("c")
    modalities = [("features", "passthrough", list(frame.columns))]
    by_label = find_leaks(frame.iloc[train], frame.iloc[test], modalities)
    assert_array_equal(by_label.index, [80, 150])
    assert_array_equal(by_label["partner"], [20, 11])
    with_gap = X[test].copy()
    with_gap[10] = np.nan
    assert_array_equal(find_leaks(X[train], with_gap, FEATURES).index, [80])
    assert find_leaks(X[:40], X[81:140], FEATURES).empty


def test_blocks_of_leaks_change_nothing(monkeypatch):
    X = rows_with_copies()
    whole = find_leaks(X[:70], X[70:], FEATURES, threshold=0.5)
    monkeypatch.setattr(_similar, "_BLOCK", 500)
    pd.testing.assert_frame_equal(find_leaks(X[:70], X[70:], FEATURES, threshold=0.5), whole)


def test_single_missing_cells_are_the_mean():
    X = rows_with_copies()
    X[0, 3] = np.nan
    similar = SimilarRows(X, "auto")
    assert similar.present.all()
    assert_allclose(similar._rows[0, 3], np.nanmean(X[:, 3]))


def test_join_groups():
    assert_array_equal(join_groups([np.array([0, 0, 1, 2, 3]), np.array([2, 4, 4, 3, 3])]), [0, 0, 0, 1, 1])


def as_jpeg(image, size, quality):
    stream = io.BytesIO()
    Image.fromarray(image).resize((size, size)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def in_brown(image):
    """The image with its yellow skin in another tone."""
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    skin = (hsv[..., 0] > 22) & (hsv[..., 0] < 42) & (hsv[..., 1] > 90)
    hsv[skin] = (hsv[skin] * [0.6, 0.75, 0.72]).astype(np.uint8)
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


@pytest.fixture
def emoji_images():
    """Every third emoji on white, and whether each shows a hand; skipped where the shared data are absent."""
    folder = Path(os.environ.get("SKMM_DATA", Path(__file__).parents[3] / "shared" / "data")) / "emoji_noto"
    if not folder.is_dir():
        pytest.skip("needs the folder emoji_noto of the shared data")
    emoji = pd.read_csv(folder / "emoji.csv")
    is_hand = emoji["subgroup"].str.contains("hand|finger").to_numpy()
    emoji, is_hand = emoji[is_hand | (emoji.index % 3 == 0)], is_hand[is_hand | (emoji.index % 3 == 0)]
    images = []
    for file in emoji["file"]:
        image = Image.open(folder / file).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        images.append(np.asarray(white.convert("RGB")))
    return images, is_hand


@pytest.mark.slow
def test_pictures_of_emoji(emoji_images):
    images, is_hand = emoji_images
    rng = np.random.default_rng(0)
    chosen, hands = rng.choice(len(images), 40, replace=False), np.flatnonzero(is_hand)[:40]
    changed = [
        *(images[i] for i in chosen),
        *(as_jpeg(images[i], size, quality) for i in chosen for size, quality in ((56, 75), (96, 90))),
        *(in_brown(images[i]) for i in hands),
    ]
    X = pd.DataFrame({"image": pd.Series([*images, *changed], dtype=object)})
    result = find_duplicates(X, [("image", ImageDescriptor(), "image")])
    same = result.groups[len(images) :] == result.groups[np.r_[chosen, np.repeat(chosen, 2), hands]]
    assert same[:40].all()
    assert same[40:120].mean() > 0.8
    assert same[120:].mean() > 0.95
    leaks = find_leaks(X[: len(images)], X[len(images) :], [("image", ImageDescriptor(), "image")])
    assert (leaks["reason"].iloc[:40] == "equal").all()


@pytest.mark.parametrize("transformer", ["passthrough", StandardScaler(), PCA(5)], ids=str)
@pytest.mark.parametrize("threshold", [1, "auto"])
def test_copies_are_equal_up_to_rounding(transformer, threshold):
    A = np.random.default_rng(0).normal(size=(60, 30))
    modalities = [("f", transformer, slice(0, 30))]
    leaks = find_leaks(A, A[:10], modalities, threshold=threshold)
    assert leaks["partner"].tolist() == list(range(10))
    result = find_duplicates(np.vstack([A, A[:10]]), modalities, threshold=threshold)
    assert_array_equal(result.groups[60:], result.groups[:10])
    assert len(result.duplicates) == 20


def test_one_direction_is_no_equality():
    rows = np.arange(1, 61.0)[:, None] * [1, 2]
    assert find_duplicates(rows, [("f", "passthrough", [0, 1])], threshold=1).duplicates.empty
