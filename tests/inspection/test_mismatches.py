"""Rows whose modalities contradict each other: which are found, and how sure that is."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from skmm import CCAFusion, ModalityFuser
from skmm.inspection import _mismatches, find_mismatches
from skmm.inspection._mismatches import _couples, _Fits, _mean_of_largest, fit_tail

N = 240
MODALITIES = [("text", "passthrough", slice(0, 12)), ("image", "passthrough", slice(12, 24))]
FUSER = ModalityFuser(MODALITIES, CCAFusion(8, weighting="correlation"))


def paired(n=N, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 8))
    return np.hstack([shared @ rng.normal(size=(8, 12)) + noise * rng.normal(size=(n, 12)) for _ in range(2)])


def swapped(X, rows):
    X = X.copy()
    X[rows, :12] = X[np.roll(rows, 1), :12]
    return X


@pytest.fixture(scope="module")
def found():
    return find_mismatches(swapped(paired(), [3, 30, 77, 150]), FUSER, fdr=1, n_repeats=2)


def test_swapped_rows_come_first(found):
    assert set(found.index[:4]) == {3, 30, 77, 150}
    assert (found["q_value"].iloc[:4] < 0.1).all()
    # The text of 30 is that of 3, and so on.
    owners = {30: (3, 77), 77: (30, 150), 150: (77, 3), 3: (150, 30)}
    for row in owners:
        assert found.loc[row, "partner"] in owners[row]
        assert str(found.loc[row, "partner"]) in found.loc[row, "reason"]


def test_frame_is_in_order_and_complete(found):
    assert sorted(found.index) == list(range(N))
    assert found["q_value"].is_monotonic_increasing
    assert (found.index != found["partner"]).all()
    for column in ("p_value", "q_value"):
        assert found[column].between(0, 1).all()
    reported = find_mismatches(swapped(paired(), [3, 30, 77, 150]), FUSER, n_repeats=2)
    pd.testing.assert_frame_equal(reported, found[found["q_value"] <= 0.1])


def test_nothing_is_reported_where_nothing_is_wrong():
    counts = [len(find_mismatches(paired(seed=seed), FUSER, n_repeats=1, random_state=seed)) for seed in range(5)]
    assert sum(counts) <= 1


@pytest.mark.slow
def test_false_discoveries_keep_their_rate():
    shares = []
    for seed in range(20):
        rows = np.random.default_rng(seed).choice(500, 25, replace=False)
        reported = find_mismatches(swapped(paired(500, 0.7, seed), rows), FUSER, n_repeats=1, random_state=seed).index
        shares.append(np.mean(~np.isin(reported, rows)) if len(reported) else 0)
    assert np.mean(shares) <= 0.1 + 2 * np.std(shares, ddof=1) / np.sqrt(20)


def test_scores_are_those_of_the_definition(monkeypatch):
    monkeypatch.setattr(_mismatches, "_BLOCK", 500)
    rng = np.random.default_rng(0)
    A, B = (Z / np.linalg.norm(Z, axis=1, keepdims=True) for Z in rng.normal(size=(2, 60, 5)))
    test, codes = np.arange(10, 40), np.arange(60)
    mates = np.roll(test, 1)
    mates = np.r_[np.zeros(10, int), mates, np.zeros(20, int)]
    fits = _Fits(60)
    fits.add(A, B, test, mates, codes)

    cosines = A @ B.T
    first = np.sort(cosines[:, test], axis=1)[:, -10:].mean(axis=1)
    second = np.sort(cosines[test], axis=0)[-10:].mean(axis=0)
    z = 2 * cosines - first[:, None] - second
    for i in test:
        others = np.arange(60) != i
        assert fits.scores[i] == pytest.approx((z[i, others].max() + z[others, i].max() - 2 * z[i, i]) / 2)
        side = int(z[others, i].max() > z[i, others].max())
        assert fits.sides[i] == side
        line = z[:, i] if side else z[i]
        assert fits.partners[i] == np.flatnonzero(others)[line[others].argmax()]
        assert fits.shares[side, i] == pytest.approx((line[others] >= z[i, i]).sum() / 60)
        j = mates[i]
        text_free, image_free = np.arange(60) != j, np.arange(60) != i
        wrong = (z[i, text_free].max() + z[image_free, j].max() - 2 * z[i, j]) / 2
        assert fits.wrong[i] == pytest.approx(wrong)
    assert_allclose(_mean_of_largest(A, B[test]), first)


def test_tail_separates_a_known_mixture():
    rng = np.random.default_rng(0)
    right, wrong = rng.exponential(size=9500), rng.normal(9, 1, size=500)
    scores = np.r_[right, wrong]
    tail = fit_tail(scores, rng.normal(9, 1, size=3000))
    assert tail.n_right == pytest.approx(9500, rel=0.01)
    assert tail.rate == pytest.approx(1, rel=0.15)
    p_values = tail.p_values(right)
    # Those of right pairs are uniform, and the q-values are those of SciPy for as many hypotheses.
    assert np.quantile(p_values, [0.01, 0.05, 0.2, 0.5, 0.9]) == pytest.approx([0.01, 0.05, 0.2, 0.5, 0.9], rel=0.35)
    all_p_values = tail.p_values(scores)
    expected = stats.false_discovery_control(all_p_values) * tail.n_right / len(scores)
    assert_allclose(tail.q_values(all_p_values), np.minimum(expected, 1))


def test_couples_are_of_two_groups():
    rng = np.random.default_rng(0)
    codes = rng.integers(21, size=100)
    couples, mates = _couples(codes, 5, rng)
    assert_array_equal(couples[mates], couples)
    assert (codes[mates] != codes).all()
    assert (pd.Series(couples).groupby(codes).nunique() == 1).all()
    sizes = pd.Series(codes).groupby(couples).nunique()
    assert sorted(sizes) == [2] * 9 + [3]


def test_groups_are_no_partners():
    X = np.repeat(paired(120), 2, axis=0)
    groups = np.repeat(np.arange(120), 2)
    found = find_mismatches(X, FUSER, groups=groups, fdr=1, n_repeats=1)
    assert (groups[found.index] != groups[found["partner"]]).all()


def test_labels_of_frames_and_missing_modalities():
    X = pd.DataFrame(swapped(paired(), [3, 30, 77, 150]), index=[f"row {i}" for i in range(N)])
    X = X.rename(columns=str)
    X.iloc[:3, :12] = np.nan
    X.iloc[5:7, 12:] = np.nan
    X.iloc[9] = np.nan
    text, image = ([str(i) for i in range(*bounds)] for bounds in ((0, 12), (12, 24)))
    fuser = ModalityFuser([("text", "passthrough", text), ("image", "passthrough", image)], FUSER.fusion)
    found = find_mismatches(X, fuser, fdr=1, n_repeats=1)
    left_out = {f"row {i}" for i in (0, 1, 2, 5, 6, 9)}
    assert set(found.index) == set(X.index) - left_out
    assert not left_out & set(found["partner"])
    assert set(found.index[:4]) == {"row 3", "row 30", "row 77", "row 150"}


def test_what_cannot_be_judged_raises():
    with pytest.raises(ValueError, match="takes at least 100 rows with 'text' and 'image'; got 99"):
        find_mismatches(paired(99), FUSER)
    with pytest.raises(ValueError, match="cv=5 folds take at least 10 groups of rows that have both modalities, got 4"):
        find_mismatches(paired(), FUSER, groups=np.arange(N) % 4)
    three = ModalityFuser([(n, "passthrough", slice(8 * i, 8 * i + 8)) for i, n in enumerate("abc")], "cca")
    with pytest.raises(ValueError, match=r"compares two modalities, got \['a', 'b', 'c'\]; pass two names"):
        find_mismatches(paired(), three)
    assert len(find_mismatches(paired(), three, modalities=["a", "c"], fdr=1, n_repeats=1)) == N
    with pytest.raises(ValueError, match="'fdr' parameter"):
        find_mismatches(paired(), FUSER, fdr=0)
