"""ConcatFusion and what all strategies share: blocks, scaling, filling."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import StandardScaler

from skmm import CCAFusion, ConcatFusion, PCAFusion

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (50, 6)) * np.array([1, 10, 100, 1, 1, 1])
BLOCKS = {"wide": slice(0, 5), "narrow": slice(5, None)}


@pytest.mark.parametrize("scaling", ["std", "norm"])
def test_blocks_share_the_variance_equally(scaling):
    out = ConcatFusion(scaling=scaling, blocks=BLOCKS).fit_transform(X)
    variances = out.var(axis=0)
    assert_allclose(variances[:5].sum(), 3)
    assert_allclose(variances[5:].sum(), 3)
    assert_allclose(out.mean(axis=0), 0, atol=1e-12)
    if scaling == "norm":
        assert_allclose(variances[:5] / variances[0], X.var(axis=0)[:5] / X[:, 0].var())
    else:
        assert_allclose(variances[:5], 3 / 5)


def test_one_block_or_equal_widths_are_standard_scaling():
    expected = StandardScaler().fit_transform(X)
    assert_allclose(ConcatFusion(scaling="std").fit_transform(X), expected)
    assert_allclose(ConcatFusion(scaling="std", blocks={"a": slice(0, 3), "b": slice(3, 6)}).fit_transform(X), expected)


def test_constant_columns_get_no_share():
    data = X.copy()
    data[:, 1] = 7.0
    out = ConcatFusion(scaling="std", blocks=BLOCKS).fit_transform(data)
    assert_allclose(out[:, :5].var(axis=0), [3 / 4, 0, 3 / 4, 3 / 4, 3 / 4], atol=1e-12)
    assert np.isfinite(ConcatFusion(scaling="norm", blocks=BLOCKS).fit_transform(np.ones((5, 6)))).all()


@pytest.mark.parametrize("scaling", ["std", "norm", None])
def test_missing_cells_become_the_mean_of_their_column(scaling):
    data = X.copy()
    data[:4, :5] = np.nan
    data[7, 2] = np.nan
    fusion = ConcatFusion(scaling=scaling, blocks=BLOCKS)
    out = fusion.fit_transform(data)
    means = np.nanmean(data, axis=0) if scaling is None else np.zeros(6)
    assert_allclose(out[:4, :5], np.broadcast_to(means[:5], (4, 5)), atol=1e-12)
    assert_allclose(out[7, 2], means[2], atol=1e-12)
    assert_allclose(fusion.transform(np.full((1, 6), np.nan))[0], means, atol=1e-12)
    # The block with gaps is scaled by its own rows alone.
    alone = ConcatFusion(scaling=scaling, blocks={"wide": slice(0, 5)}).fit_transform(data[4:, :5])
    ratio = out[8:, :5] / alone[4:]
    assert_allclose(ratio, ratio[0, 0], rtol=1e-9)


def test_without_scaling_complete_data_comes_back_unchanged():
    assert_array_equal(ConcatFusion(scaling=None, blocks=BLOCKS).fit_transform(X), X)


@pytest.mark.parametrize("scaling", ["std", "norm", None])
def test_a_column_without_any_value_becomes_zero(scaling):
    data = X.copy()
    data[:, 2] = np.nan
    fusion = ConcatFusion(scaling=scaling, blocks=BLOCKS).fit(data)
    assert_array_equal(fusion.transform(data)[:, 2], 0)
    assert_array_equal(fusion.transform(X)[:, 2], 0)


def test_input_is_not_changed():
    data = X.copy()
    data[0, 0] = np.nan
    before = data.copy()
    ConcatFusion(blocks=BLOCKS).fit_transform(data)
    assert_array_equal(data, before)


def test_float32_keeps_its_precision():
    shifted = (X / 100 + 1000).astype(np.float32)
    out = ConcatFusion(blocks=BLOCKS).fit_transform(shifted)
    assert out.dtype == np.float32
    expected = ConcatFusion(blocks=BLOCKS).fit_transform(shifted.astype(np.float64))
    assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


def test_blocks_from_prefixes():
    frame = pd.DataFrame(X, columns=["wide__a", "wide__b", "wide__c", "wide__d", "wide__e", "narrow__f"])
    fusion = ConcatFusion(blocks="prefix")
    assert_allclose(fusion.fit_transform(frame), ConcatFusion(blocks=BLOCKS).fit_transform(X))
    assert fusion.blocks_ == {"wide": slice(0, 5), "narrow": slice(5, 6)}
    assert_array_equal(fusion.get_feature_names_out(), frame.columns)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"a": slice(0, 3)}, "end at column 3, while X has n_features = 6"),
        ({"a": slice(0, 3), "b": slice(4, 6)}, "'b' starts at column 4 where 3 was expected"),
        ({"a": slice(0, 4), "b": slice(3, 6)}, "'b' starts at column 3 where 4 was expected"),
        ({"a": slice(0, 6), "b": slice(6, 9)}, "'b' selects no column"),
        ({"a": slice(0, 6, 2)}, "a slice without a step"),
        ({"a": [0, 1]}, "a slice without a step"),
        ({"a__b": slice(0, 6)}, "without '__'"),
        ({1: slice(0, 6)}, "non-empty strings"),
        ("prefix", "needs a data frame with string column names"),
        ("suffix", "'blocks' parameter of ConcatFusion"),
    ],
)
def test_wrong_blocks(blocks, message):
    with pytest.raises(ValueError, match=message):
        ConcatFusion(blocks=blocks).fit(X)


@pytest.mark.parametrize(
    ("names", "message"),
    [(list("abcdef"), "such as 'text__0', got 'a'"), (["a__0", "b__0", "a__1"] * 2, "'a' comes back at 'a__1'")],
)
def test_wrong_prefixes(names, message):
    frame = pd.DataFrame(X, columns=[f"{name}{'_' * (i > 2)}" for i, name in enumerate(names)])
    with pytest.raises(ValueError, match=message):
        ConcatFusion(blocks="prefix").fit(frame)


@pytest.mark.parametrize("strategy", [ConcatFusion(), PCAFusion(), CCAFusion(blocks=BLOCKS)])
def test_infinite_values_are_refused(strategy):
    data = X.copy()
    data[3, 3] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        strategy.fit(data)
