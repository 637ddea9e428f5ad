"""Tests over folds that overlap, and against the best of several references."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import make_moons
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.svm import SVC

from skmm.model_selection import corrected_t_test, holm
from skmm.model_selection._statistics import gain_over_best


def test_corrected_t_test_by_hand():
    # Nadeau and Bengio's definition in numbers: three splits into 90 rows to train on and 10 to test on, so that
    # n_test / n_train = 1 / 9. Differences 1, 2, 3: mean 2, variance ((-1)^2 + 0 + 1^2) / 2 = 1.
    # t = 2 / sqrt((1/3 + 1/9) * 1) = 2 / (2/3) = 3. With 2 degrees of freedom Student's distribution is known in
    # closed form: P(T > t) = (1 - t / sqrt(t^2 + 2)) / 2.
    result = corrected_t_test([1, 2, 3], 1 / 9)
    assert result.statistic == pytest.approx(3)
    assert result.df == 2
    assert result.pvalue == pytest.approx(1 - 3 / math.sqrt(11))
    # The quantile in closed form: t = a sqrt(2 / (1 - a^2)) with a = .95; the half width is t times 2/3.
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) * 2 / 3
    assert (result.mean, result.low, result.high) == pytest.approx((2, 2 - half, 2 + half))


def test_corrected_t_test_of_scikit_learns_example():
    # "Statistical comparison of models using grid search" in scikit-learn's documentation compares two support vector
    # machines over 10 times 10 folds, by the same test and by code of its own.
    X, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    cv = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel, random_state=0), X, y, cv=cv, scoring="roc_auc")
        for kernel in ("rbf", "linear")
    )
    result = corrected_t_test(rbf - linear, 10 / 90)
    # The p-value there is one-sided.
    assert (result.statistic, result.pvalue / 2) == pytest.approx((0.750, 0.227), abs=5e-4)
    assert stats.ttest_rel(rbf, linear).statistic == pytest.approx(2.611, abs=5e-4)


def test_without_overlap_it_is_the_ordinary_paired_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 12))
    corrected, plain = corrected_t_test(a - b, 0, confidence=0.9), stats.ttest_rel(a, b)
    interval = plain.confidence_interval(0.9)
    assert (corrected.statistic, corrected.pvalue) == pytest.approx((plain.statistic, plain.pvalue))
    assert (corrected.low, corrected.high) == pytest.approx((interval.low, interval.high))


def test_correction_holds_where_the_ordinary_test_does_not():
    # Random splits of 100 rows, 20 to test on, of two rules that do not learn and are equally good. Scores of test sets
    # that share rows correlate by .2, which is the correlation that the correction assumes.
    rng = np.random.default_rng(0)
    corrected, ordinary = [], []
    for _ in range(400):
        rows = rng.normal(size=100)
        differences = np.array([rng.permutation(rows)[:20].mean() for _ in range(15)])
        corrected.append(corrected_t_test(differences, 20 / 80).pvalue)
        ordinary.append(stats.ttest_1samp(differences, 0).pvalue)
    assert np.mean(np.array(ordinary) < 0.05) > 0.2
    # 5 % and three standard errors.
    assert np.mean(np.array(corrected) < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_equal_differences():
    assert corrected_t_test([0, 0, 0], 0.5).pvalue == 1
    better = corrected_t_test([0.5, 0.5, 0.5], 0.5)
    assert (better.statistic, better.low, better.high) == (np.inf, 0.5, 0.5)
    # The sign test: of the 8 ways in which three signs can fall, 2 are all the same.
    assert better.pvalue == 2 / 8
    assert corrected_t_test([-0.5, -0.5], 0.5).statistic == -np.inf
    # Equal but for rounding.
    rounded = np.array([0.95, 0.9, 0.85]) - np.array([0.9, 0.85, 0.8])
    assert np.ptp(rounded) > 0
    assert corrected_t_test(rounded, 0.5).pvalue == 2 / 8


def test_accuracies_that_often_differ_by_the_same_are_not_called_different():
    """Two folds of ten rows: of equally good strategies one is often better by one row in both."""
    rng = np.random.default_rng(0)
    right = rng.binomial(10, 0.9, size=(1000, 2, 2)) / 10
    results = [gain_over_best(scores, [reference], 1.0, 0.95) for scores, reference in right]
    same = np.ptp(right[:, 0] - right[:, 1], axis=1) < 1e-12
    assert sum(p < 1 for (*_, p) in np.array(results)[same]) > 100
    assert np.mean([p < 0.05 for *_, p in results]) <= 0.05
    for gain, low, high, p in results:
        assert low <= gain <= high
        assert (p < 0.05) == (low > 0 or high < 0)


@pytest.mark.parametrize("differences", [[0.1], [], [[0.1, 0.2]]])
def test_too_few_differences(differences):
    with pytest.raises(ValueError, match="differences of at least 2 folds, got shape"):
        corrected_t_test(differences, 0.25)


def test_holm_by_its_definition():
    # The smallest of m is multiplied by m, the next by m - 1, ...; none falls below the one before, none exceeds 1.
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]).tolist() == [1, 1]
    assert holm([0.3]).tolist() == [0.3]
    assert holm([]).tolist() == []


def test_gain_over_one_reference_is_the_plain_test():
    rng = np.random.default_rng(1)
    scores, reference = rng.normal(size=(2, 10))
    test = corrected_t_test(scores - reference, 0.2, confidence=0.9)
    gain = gain_over_best(scores, [reference], 0.2, 0.9)
    assert gain == pytest.approx((test.mean, test.low, test.high, test.pvalue))


def test_gain_is_over_the_best_mean_and_the_interval_agrees_with_the_test():
    rng = np.random.default_rng(2)
    decided = []
    for shift in np.linspace(-3, 3, 200):
        scores, *references = rng.normal(size=(4, 8)) + np.array([[shift], [0], [0.3], [-1]])
        gain, low, high, p = gain_over_best(scores, references, 0.1, 0.95)
        assert gain == pytest.approx(scores.mean() - max(reference.mean() for reference in references))
        assert low <= gain <= high
        assert (p < 0.05) == (low > 0 or high < 0)
        decided.append(p < 0.05)
    assert 20 < sum(decided) < 180


def test_gain_over_the_best_of_equals_is_rarely_called_anything():
    # Independent folds, so that no correction is needed and the level is exact.
    rng = np.random.default_rng(3)
    results = [gain_over_best(scores[0], scores[1:], 0, 0.95) for scores in rng.normal(size=(1000, 4, 10))]
    better = np.mean([p < 0.05 and gain > 0 for gain, _, _, p in results])
    worse = np.mean([p < 0.05 and gain < 0 for gain, _, _, p in results])
    # 2.5 % each at the most; three standard errors of 1,000 draws are 1.5 %.
    assert better < 0.04
    assert worse < 0.04


def test_a_strategy_worse_than_the_best_alone_is_called_worse():
    rng = np.random.default_rng(4)
    low, high = rng.normal(size=10), rng.normal(size=10) + 10
    gain, _, _, p = gain_over_best(low + 5 + rng.normal(size=10), [low, high], 0.1, 0.95)
    assert gain < 0
    assert p < 0.001
