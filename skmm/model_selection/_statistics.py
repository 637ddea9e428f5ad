"""Tests and intervals for scores of overlapping training sets, and for the best of several references."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit
from sklearn.utils import Bunch

# Lowest and highest possible score, by the first word of a scorer's name.
_BOUNDS = {
    **dict.fromkeys(("accuracy", "average", "balanced", "completeness", "f1", "fowlkes", "homogeneity"), (0, 1)),
    **dict.fromkeys(("jaccard", "normalized", "precision", "rand", "recall", "roc", "top", "v"), (0, 1)),
    **dict.fromkeys(("adjusted", "d2", "explained", "r2"), (-np.inf, 1)),
    "matthews": (-1, 1),
    "neg": (-np.inf, 0),
    **dict.fromkeys(("mutual", "positive"), (0, np.inf)),
}


def score_bounds(name):
    """Return the lowest and highest possible score of scikit-learn's scorer of this name, infinite if it has none."""
    return _BOUNDS.get(name.split("_")[0], (-np.inf, np.inf))


def corrected_t_test(differences: ArrayLike, test_share: float, *, confidence: float = 0.95) -> Bunch:
    r"""Paired t-test over folds whose training sets overlap, two-sided.

    Scores of cross-validation are not independent: their training sets share rows, so the ordinary t-test finds
    differences that do not exist. With k differences of mean :math:`\bar d` and variance
    :math:`s^2 = \sum_i (d_i - \bar d)^2 / (k - 1)`, the corrected resampled t-test replaces the factor 1 / k:

    .. math:: t = \frac{\bar d}{\sqrt{\left(\frac{1}{k} + \frac{n_\text{test}}{n_\text{train}}\right) s^2}},

    which is compared with Student's distribution of k - 1 degrees of freedom.

    Parameters
    ----------
    differences : array-like of shape (n_folds,)
        Difference of two scores in each fold, over repeats as well.

    test_share : float
        Size of a test set divided by that of its training set, 0.25 for 5 folds.

    confidence : float, default=0.95
        Confidence of the interval.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        With the following attributes.

        statistic : float
            t; 0 if all differences are 0, infinite if they are all the same otherwise.
        pvalue : float
            Probability of a statistic at least as far from 0, if there is no difference. If all differences are the
            same, and not 0, there is no variance to compare them with, and this is the p-value of the sign test,
            2 to the power of 1 - k.
        df : int
            Degrees of freedom.
        mean, low, high : float
            Mean of the differences and its confidence interval.

    Raises
    ------
    ValueError
        If there are fewer than 2 differences.

    See Also
    --------
    holm : Adjusts the p-values of several tests.
    compare_fusions : Tests strategies of fusion against the best single modality.

    References
    ----------
    .. [1] Nadeau, Bengio (2003). "Inference for the generalization error". Machine Learning 52.
    .. [2] Bouckaert, Frank (2004). "Evaluating the replicability of significance tests for comparing learning
       algorithms". Advances in Knowledge Discovery and Data Mining.

    Examples
    --------
    >>> from skmm.model_selection import corrected_t_test
    >>> result = corrected_t_test([0.02, 0.05, 0.01, 0.03, 0.04], test_share=0.25)
    >>> round(result.statistic, 3), round(result.pvalue, 3)
    (2.828, 0.047)
    """
    differences = np.asarray(differences, dtype=float)
    if differences.ndim != 1 or len(differences) < 2:
        raise ValueError(
            f"The corrected t-test needs the differences of at least 2 folds, got shape {differences.shape}."
        )
    df = len(differences) - 1
    mean = differences.mean()
    # Accuracies of few rows are often equal up to rounding, and their variance would be that of the rounding errors.
    same = np.ptp(differences) <= 1e-10 * np.abs(differences).max()
    spread = 0.0 if same else np.sqrt((1 / len(differences) + test_share) * differences.var(ddof=1))
    if not same:
        statistic = mean / spread
        pvalue = 2 * stdtr(df, -abs(statistic))
    elif mean == 0:
        statistic, pvalue = 0.0, 1.0
    else:
        statistic, pvalue = np.inf * np.sign(mean), 2.0**-df
    half = stdtrit(df, (1 + confidence) / 2) * spread
    return Bunch(
        statistic=float(statistic),
        pvalue=float(pvalue),
        df=df,
        mean=float(mean),
        low=float(mean - half),
        high=float(mean + half),
    )


def holm(pvalues: ArrayLike) -> np.ndarray:
    """Adjust the p-values of several tests by Holm's step-down method.

    If every test with an adjusted p-value below .05 is called significant, at most 5 % of such families of tests have
    any false positive, however the tests depend on each other.

    Parameters
    ----------
    pvalues : array-like of shape (n_tests,)
        One p-value per test.

    Returns
    -------
    adjusted : ndarray of shape (n_tests,)
        Adjusted p-values, in the same order.

    See Also
    --------
    corrected_t_test : Test of two strategies over folds.

    References
    ----------
    .. [1] Holm (1979). "A simple sequentially rejective multiple test procedure". Scandinavian Journal of
       Statistics 6(2).

    Examples
    --------
    >>> from skmm.model_selection import holm
    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(pvalues, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def gain_over_best(scores, references, test_share, confidence):
    """Compare scores with the best of several references, without knowing which reference is best.

    The reference with the highest mean on these folds owes it partly to luck, so no reference is selected. Better than
    the best means better than each: the largest one-sided p-value of all tests is valid without correction (the
    intersection-union principle; Berger, 1982). Worse than the best means worse than any: the smallest p-value times
    the number of references (Bonferroni). The p-value is twice the smaller of these two, and the interval holds all
    true gains that this test does not reject. With one reference both are those of the plain test.

    Returns
    -------
    gain, low, high, p : float
        Difference of the mean to the best mean of a reference, its interval, and the two-sided p-value.
    """
    n_references = len(references)
    tests = [corrected_t_test(scores - reference, test_share, confidence=confidence) for reference in references]
    shared = 1 - (1 - confidence) / n_references
    wide = [corrected_t_test(scores - reference, test_share, confidence=shared) for reference in references]
    p_better = max(_one_sided(test, 1) for test in tests)
    p_worse = n_references * min(_one_sided(test, -1) for test in tests)
    p = float(min(1, 2 * p_better, 2 * p_worse))
    low, high = min(test.low for test in tests), min(test.high for test in wide)
    if p >= 1 - confidence:
        # Where all differences are the same, the interval is a single point, even if the test does not reject 0.
        low, high = min(low, 0.0), max(high, 0.0)
    return min(test.mean for test in tests), low, high, p


def _one_sided(test, sign):
    """Return the one-sided p-value for differences of this sign."""
    return test.pvalue / 2 if sign * test.statistic > 0 else 1 - test.pvalue / 2
