"""What spoils items, on every kind of item and table."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from skmm.inspection._corruption import corrupt

RNG = np.random.default_rng(0)


def spoil(table, corruption, strength=None, seed=0):
    return corrupt(table, corruption, strength, np.random.RandomState(seed))


def objects(items):
    column = np.empty(len(items), dtype=object)
    for row, item in enumerate(items):
        column[row] = item
    return pd.DataFrame({"item": column})


@pytest.mark.parametrize("kind", ["pandas", "polars", "array"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_on_numbers(kind, dtype):
    X = (RNG.normal(size=(5000, 2)) * [1, 10]).astype(dtype)
    X[::7, 1] = np.nan
    table = {"pandas": pd.DataFrame(X, columns=["a", "b"]), "polars": pl.DataFrame(X, schema=["a", "b"]), "array": X}[
        kind
    ]
    noisy = spoil(table, "noise", 0.5)
    assert type(noisy) is type(table)
    difference = np.asarray(noisy, dtype=float) - X
    np.testing.assert_array_equal(np.isnan(difference), np.isnan(X))
    np.testing.assert_allclose(np.nanstd(difference, axis=0), [0.5, 5], rtol=0.05)
    np.testing.assert_allclose(np.nanmean(difference, axis=0), 0, atol=0.3)
    np.testing.assert_array_equal(np.asarray(spoil(table, "noise", 0)), X)
    np.testing.assert_array_equal(np.asarray(spoil(table, "noise", 0.5)), np.asarray(noisy))
    if kind != "array":
        assert list(noisy.columns) == ["a", "b"]


def test_noise_on_integers_and_gaps_of_pandas():
    table = pd.DataFrame({"n": pd.array([1, None, 30], dtype="Int64")}, index=[5, 6, 7])
    noisy = spoil(table, "noise")
    assert noisy.index.tolist() == [5, 6, 7]
    assert noisy["n"].isna().tolist() == [False, True, False]
    assert spoil(np.arange(6).reshape(3, 2), "noise").dtype == np.float64


@pytest.mark.parametrize("make", [np.asarray, pd.DataFrame])
@pytest.mark.parametrize("gap", [None, np.nan])
def test_noise_on_numbers_in_columns_of_objects(make, gap):
    X = np.array([[1.0, 10], [2, 20], [gap, 30], [4, 40]], dtype=object)
    noisy = np.asarray(spoil(make(X), "noise"), dtype=float)
    expected = spoil(X.astype(float), "noise")
    np.testing.assert_array_equal(noisy, expected)
    assert np.isnan(noisy).sum() == 1


@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: (8000, a), lambda a: {"array": a, "sampling_rate": 8000}])
def test_noise_on_sounds(wrap):
    waves = [np.sin(np.arange(4000) * step).astype(np.float32) for step in (0.1, 0.2)]
    noisy = spoil(objects([wrap(waves[0]), None, wrap(waves[1])]), "noise", 0.3)["item"]
    assert noisy[1] is None
    for wave, item in zip(waves, (noisy[0], noisy[2]), strict=True):
        changed = item if isinstance(item, np.ndarray) else item[1] if isinstance(item, tuple) else item["array"]
        assert type(item) is type(wrap(wave))
        assert changed.dtype == np.float32
        assert np.abs(changed).max() <= 1
        # Where nothing is cut off at the ends of the range, the noise is 0.3 times the sine's deviation.
        inside = np.abs(wave) < 0.3
        assert np.std((changed - wave)[inside]) == pytest.approx(0.3 * np.sqrt(0.5), rel=0.1)


def images():
    return [RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(3)]


@pytest.mark.parametrize("corruption", ["noise", "blur"])
def test_images_of_all_kinds(corruption):
    arrays = images()
    expected = spoil(objects(arrays), corruption)["item"]
    for array, changed in zip(arrays, expected, strict=True):
        assert changed.dtype == np.uint8
        assert changed.shape == array.shape
        assert (changed != array).mean() > 0.5
    for same in (objects([Image.fromarray(array) for array in arrays]), objects([array.copy() for array in arrays])):
        for first, second in zip(expected, spoil(same, corruption)["item"], strict=True):
            np.testing.assert_array_equal(first, second)
    stacked = pl.DataFrame({"item": pl.Series(np.stack(arrays))})
    changed = spoil(stacked, corruption)
    assert changed.schema == stacked.schema
    np.testing.assert_array_equal(np.array(changed["item"].to_list()), np.stack(list(expected)))


def test_blur_is_a_gaussian_of_the_shorter_side():
    image = RNG.random((20, 40))
    (blurred,) = spoil(objects([image]), "blur", 0.1)["item"]
    np.testing.assert_allclose(blurred, gaussian_filter(image, 2.0))
    for array, axes in [((20, 40, 3), (0, 1)), ((3, 20, 40), (1, 2)), ((5, 20, 40, 3), (1, 2)), ((5, 20, 40), (1, 2))]:
        item = RNG.random(array)
        (blurred,) = spoil(objects([item]), "blur", 0.1)["item"]
        np.testing.assert_allclose(blurred, gaussian_filter(item, 2.0, axes=axes))


def test_palette_images_are_not_blurred_by_number():
    image = Image.fromarray(images()[0]).convert("P")
    (blurred,) = spoil(objects([image]), "blur")["item"]
    assert blurred.shape == (20, 30, 3)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_drop_words(make):
    text = " ".join(f"w{i}" for i in range(2000))
    table = make({"text": [text, None, "one", ""]})
    spoilt = list(spoil(table, "drop_words", 0.3)["text"])
    remaining = spoilt[0].split()
    assert len(remaining) / 2000 == pytest.approx(0.7, abs=0.05)
    assert [word for word in text.split() if word in set(remaining)] == remaining
    assert pd.isna(spoilt[1])
    assert spoilt[2:] == ["one", ""]
    # Something is left even if nothing should be.
    assert next(iter(spoil(table, "drop_words", 1.0)["text"])) in text.split()


def test_callables():
    table = pd.DataFrame({"text": ["ab", None, "cd"], "n": [1.0, np.nan, 2.0]})
    spoilt = spoil(table, lambda item, rng: item * 2)
    assert spoilt["text"].tolist()[::2] == ["abab", "cdcd"]
    assert spoilt["n"].tolist()[::2] == [2.0, 4.0]
    assert spoilt.isna().to_numpy().tolist() == table.isna().to_numpy().tolist()
    assert spoilt["n"].dtype == np.float64
    drawn = spoil(table[["n"]], lambda item, rng: rng.uniform())
    assert drawn["n"].dropna().tolist() == np.random.RandomState(0).uniform(size=2).tolist()
    numbers = spoil(np.array([[1.0, 2.0], [np.nan, 3.0]]), lambda item, rng: -item)
    np.testing.assert_array_equal(numbers, [[-1, -2], [np.nan, -3]])


def test_what_does_not_suit():
    texts = objects(["a", "b"])
    with pytest.raises(ValueError, match="'noise' works on numbers, arrays and PIL images, got str; pass a callable"):
        spoil(texts, "noise")
    with pytest.raises(ValueError, match="'blur' works on arrays and PIL images, got str"):
        spoil(texts, "blur")
    with pytest.raises(ValueError, match=r"'blur' works on images and videos, got an array of shape \(4,\)"):
        spoil(objects([np.zeros(4)]), "blur")
    with pytest.raises(ValueError, match="'drop_words' works on strings, got ndarray"):
        spoil(objects(images()), "drop_words")


def test_nothing_present():
    table = objects([None, None])
    for corruption in ("noise", "blur", "drop_words"):
        assert spoil(table, corruption)["item"].tolist() == [None, None]
