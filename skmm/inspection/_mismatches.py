r"""Rows whose modalities contradict each other: how badly a pair fits, and how badly right pairs may fit by chance.

**Score.** A joint space is learned without the row. With the cosine :math:`c` of a text i and an image j in it, and the
means :math:`h` of the k largest cosines of each with held-out rows, :math:`z_{ij} = 2 c_{ij} - h_i - h_j` (cross-domain
local scaling) says how well they fit. The score of a row is how much better its text fits the best other image, and its
image the best other text:

.. math:: s_i = \tfrac12 (\max_{j \ne i} z_{ij} + \max_{j \ne i} z_{ji} - 2 z_{ii}).

**Calibration.** What is known exactly is the distribution of the scores of wrong pairs, from rows that are paired anew
at random. Observed scores are a mixture of it with that of right pairs, whose upper tail is taken as exponential (the
limit for distributions with light tails; those that fall faster make the p-values too large). Both shares and the rate
follow by expectation-maximisation above a threshold that about 5 % of the right pairs exceed.
"""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import gaussian_kde
from sklearn.base import clone
from sklearn.preprocessing import normalize
from sklearn.utils import check_consistent_length, check_random_state, gen_batches

from .._columns import check_groups, check_table, group_codes, row_labels
from .._composition import ModalityComposition, modality_items
from .._sklearn import HasMethods, Interval, safe_indexing, validate_params
from .._typing import Items, RandomState, Table

# Neighbours of the local scaling.
_NEIGHBORS = 10
# Share of the right pairs that exceed the threshold of the tail.
_TAIL = 0.05
# Fewer rows have too few extreme scores to learn a tail from.
_FEWEST_ROWS = 100
# Rows paired anew whose scores are smoothed to a density.
_MOST_WRONG = 5000
# Cosines that are in memory at a time.
_BLOCK = 2**22


@validate_params(
    {
        "fuser": [HasMethods(["fit", "transform_modality"])],
        "y": ["array-like", None],
        "modalities": ["array-like", tuple, None],
        "groups": ["array-like", None],
        "fdr": [Interval(Real, 0, 1, closed="right")],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def find_mismatches(
    X: Table,
    fuser: Any,
    y: Items = None,
    *,
    modalities: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    fdr: float = 0.1,
    cv: int = 5,
    n_repeats: int = 4,
    random_state: RandomState = 0,
) -> pd.DataFrame:
    r"""Find rows whose modalities contradict each other, such as a photo with the caption of another one.

    Each row is judged in joint spaces that were learned without it. It is conspicuous if its caption fits the photo
    of another row better than its own, and its photo another caption.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_samples, n_features)
        Data. Rows in which one of both modalities is missing are left out.

    fuser : ModalityFuser
        With a joint embedding as ``fusion``. Clones of it are fitted. Those found best are
        ``CCAFusion(128, weighting="correlation", power=4)`` and its like (``benchmarks/mismatches.py``).

    y : array-like of shape (n_samples,), default=None
        Target, for strategies that use one.

    modalities : sequence of two str, default=None
        Names of the modalities to compare. None means those of the fuser, if there are two.

    groups : array-like of shape (n_samples,), default=None
        Group of each row, such as the photo of several captions. No group is split between the rows that a space is
        learned from and those that are judged, and a row's partner is of another group.

    fdr : float in (0, 1], default=0.1
        Share of right rows, among those that are reported, that is accepted on average. 1 reports all rows, the most
        conspicuous first.

    cv : int, default=5
        Number of folds.

    n_repeats : int, default=4
        How often to draw the folds; scores are averaged.

    random_state : int, RandomState instance or None, default=0
        Seed of the folds, and of the random pairs.

    Returns
    -------
    mismatches : DataFrame
        One row per reported row of X, most conspicuous first, with its label as index (its position if X is no pandas
        DataFrame).

        Columns: ``partner``, the label of the other row whose item fits best; ``score``, how much better others fit
        than the row itself, in units of twice the cosine; ``p_value``, the probability that a right pair scores as
        high; ``q_value``, the smallest ``fdr`` at which the row is reported; ``reason``, the same in words.

    Raises
    ------
    ValueError
        If fewer than 100 rows have both modalities, or it is unclear which two modalities are meant.

    See Also
    --------
    find_duplicates : Rows that are too alike.
    skmm.metrics.retrieval_report : How well a joint space finds pairs, on which the power depends.

    Notes
    -----
    The false discovery rate is controlled by the method of Benjamini and Hochberg [1]_ with the p-values of an
    empirical null distribution [2]_: the scores of right pairs are taken to have an exponential upper tail, which is
    separated from the scores of wrong pairs, known from rows that are paired at random. If the space tells pairs
    badly, no row is reported, and ``fdr=1`` is still an order in which to look at the data.

    The partner's row is not necessarily wrong itself.

    References
    ----------
    .. [1] Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate", Journal of the Royal Statistical
       Society B 57 (1995).
    .. [2] B. Efron, "Large-scale simultaneous hypothesis testing: the choice of a null hypothesis", Journal of the
       American Statistical Association 99 (2004).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm import CCAFusion, ModalityFuser
    >>> from skmm.inspection import find_mismatches
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.normal(size=(300, 8))
    >>> texts, images = (shared @ rng.normal(size=(8, 20)) + 0.3 * rng.normal(size=(300, 20)) for _ in range(2))
    >>> texts[[10, 20, 30]] = texts[[20, 30, 10]]
    >>> modalities = [("text", "passthrough", slice(0, 20)), ("image", "passthrough", slice(20, 40))]
    >>> fuser = ModalityFuser(modalities, CCAFusion(8, weighting="correlation"))
    >>> found = find_mismatches(np.hstack([texts, images]), fuser, n_repeats=1)
    >>> sorted(found.index.tolist())
    [10, 20, 30]
    """
    X = check_table(fuser, X)
    check_consistent_length(X, y)
    groups = check_groups(groups, X.shape[0])
    rng = check_random_state(random_state)
    space = _fit(fuser, X, y)
    names = _two_names(space, modalities)
    rows = np.flatnonzero(np.logical_and(*(_has_direction(_embed(space, X, name)) for name in names)))
    if len(rows) < max(_FEWEST_ROWS, 2 * cv):
        raise ValueError(
            f"find_mismatches learns how badly right pairs fit, which takes at least {max(_FEWEST_ROWS, 2 * cv)} rows "
            f"with {names[0]!r} and {names[1]!r}; got {len(rows)}."
        )
    labels = row_labels(X)[rows]
    X, y = safe_indexing(X, rows), None if y is None else safe_indexing(y, rows)
    codes = np.arange(len(rows)) if groups is None else group_codes(groups[rows])[0]
    couples, mates = _couples(codes, cv, rng)

    fits = _Fits(len(rows))
    for _ in range(n_repeats):
        folds = (rng.permutation(couples.max() + 1) % cv)[couples]
        for fold in range(cv):
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            space = _fit(fuser, safe_indexing(X, train), None if y is None else safe_indexing(y, train))
            both = [normalize(_embed(space, X, name)) for name in names]
            fits.add(*both, test, mates, codes)
    scores, wrong = fits.scores / n_repeats, fits.wrong / n_repeats
    tail = fit_tail(scores, wrong)
    p_values = tail.p_values(scores)
    q_values = tail.q_values(p_values)
    order = np.lexsort((-scores, q_values))
    order = order[q_values[order] <= fdr]
    partners = labels[fits.partners[order]]
    sides = fits.sides[order]
    reasons = [
        f"{names[side]} fits {share:.0%} of the other {names[1 - side]}s at least as well as its own, best that of row "
        f"{partner}"
        for side, share, partner in zip(sides, fits.shares[sides, order] / n_repeats, partners.tolist(), strict=True)
    ]
    columns = {
        "partner": partners,
        "score": scores[order],
        "p_value": p_values[order],
        "q_value": q_values[order],
        "reason": np.array(reasons, dtype=object),
    }
    return pd.DataFrame(columns, index=labels[order])


def _fit(fuser, X, y):
    return clone(fuser).fit(X) if y is None else clone(fuser).fit(X, y)


def _embed(space, X, name):
    """Return the rows of one modality in the joint space."""
    return space.transform_modality(
        modality_items(space, X, name) if isinstance(space, ModalityComposition) else X, name
    )


def _has_direction(rows):
    return ~np.isnan(rows).any(axis=1) & rows.any(axis=1)


def _two_names(space, modalities):
    """Return the names of the two modalities that are compared."""
    names = list(getattr(space, "blocks_", ())) if modalities is None else list(modalities)
    if len(names) != 2:
        raise ValueError(
            f"find_mismatches compares two modalities, got {names}; pass two names as modalities=('text', 'image')."
        )
    return names


def _couples(codes, cv, rng):
    """Put groups together at random, two by two; return the couple of each row, and a random row of the other group."""
    n_groups = codes.max() + 1
    if n_groups < 2 * cv:
        raise ValueError(
            f"cv={cv} folds take at least {2 * cv} groups of rows that have both modalities, got {n_groups}."
        )
    couple_of_group = np.empty(n_groups, dtype=np.intp)
    couple_of_group[rng.permutation(n_groups)] = np.minimum(np.arange(n_groups) // 2, n_groups // 2 - 1)
    couples = couple_of_group[codes]
    mates = np.empty(len(codes), dtype=np.intp)
    order = np.argsort(couples, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(couples[order])) + 1):
        for code in np.unique(codes[members]):
            same = codes[members] == code
            mates[members[same]] = rng.choice(members[~same], size=same.sum())
    return couples, mates


class _Fits:
    """Scores of rows, and of rows paired anew, summed over repeats, and the best other row of each.

    ``sides`` is 0 if the item of the first modality has the partner, 1 if that of the second; ``shares``, by side, are
    those of the items of the other modality that fit it at least as well as its own.
    """

    def __init__(self, n_rows):
        self.scores, self.wrong = np.zeros((2, n_rows))
        self.shares = np.zeros((2, n_rows))
        self.margins = np.full(n_rows, -np.inf)
        self.partners, self.sides = np.zeros((2, n_rows), dtype=np.intp)

    def add(self, A, B, test, mates, codes):
        """Add the rows of one fold, given all rows of both modalities in its space, at unit length."""
        means = [_mean_of_largest(P, Q[test]) for P, Q in ((A, B), (B, A))]
        for rows in gen_batches(len(test), max(1, _BLOCK // len(A))):
            rows = test[rows]
            paired = 2 * (A[rows] * B[rows]).sum(axis=1) - means[0][rows] - means[1][rows]
            mate = mates[rows]
            # The first item of the row with the second item of its mate.
            mixed = 2 * (A[rows] * B[mate]).sum(axis=1) - means[0][rows] - means[1][mate]
            for side, (P, Q) in enumerate(((A, B), (B, A))):
                this, other = means[side], means[1 - side]
                fits = 2 * P[rows] @ Q.T - this[rows][:, None] - other
                fits[codes[rows][:, None] == codes] = -np.inf
                partners = fits.argmax(axis=1)
                margins = fits[np.arange(len(rows)), partners] - paired
                self.scores[rows] += margins / 2
                self.shares[side, rows] += (fits >= paired[:, None]).mean(axis=1)
                better = margins > self.margins[rows]
                chosen = rows[better]
                self.margins[chosen], self.partners[chosen] = margins[better], partners[better]
                self.sides[chosen] = side
                # Of a pair made anew each item may find its own partner, and not the other item.
                seeking = rows if side == 0 else mate
                excluded = mate if side == 0 else rows
                fits = 2 * P[seeking] @ Q.T - this[seeking][:, None] - other
                fits[np.arange(len(rows)), excluded] = -np.inf
                self.wrong[rows] += (fits.max(axis=1) - mixed) / 2


def _mean_of_largest(P, Q):
    """Return the mean of the largest cosines of each row of P with those of Q."""
    k = min(_NEIGHBORS, len(Q))
    means = np.empty(len(P))
    for rows in gen_batches(len(P), max(1, _BLOCK // len(Q))):
        means[rows] = np.partition(P[rows] @ Q.T, len(Q) - k, axis=1)[:, len(Q) - k :].mean(axis=1)
    return means


class Tail(NamedTuple):
    """Distribution of the scores of right pairs: exponential above a threshold.

    Attributes
    ----------
    n_right : float
        Number of right pairs.

    ordered : ndarray of shape (n_samples,)
        All scores in order.

    threshold, rate : float
        Where the tail begins, and how fast it falls.

    n_above : float
        Number of right pairs above the threshold.
    """

    n_right: float
    ordered: np.ndarray
    threshold: float
    rate: float
    n_above: float

    def p_values(self, scores):
        """Return the probabilities that right pairs have such scores or higher."""
        n_all = len(self.ordered)
        between = np.searchsorted(self.ordered, self.threshold, side="right") - np.searchsorted(self.ordered, scores)
        excess = np.maximum(scores - self.threshold, 0)
        counts = np.where(
            scores > self.threshold, self.n_above * np.exp(-self.rate * excess), self.n_above + np.maximum(between, 0)
        )
        return np.minimum(counts / min(self.n_right, n_all), 1)

    def q_values(self, p_values):
        """Return the adjusted p-values of Benjamini and Hochberg, for as many hypotheses as there are right pairs."""
        order = np.argsort(p_values)
        ratios = self.n_right * p_values[order] / np.arange(1, len(p_values) + 1)
        q_values = np.empty(len(p_values))
        q_values[order] = np.minimum(np.minimum.accumulate(ratios[::-1])[::-1], 1)
        return q_values


def fit_tail(scores, wrong, n_rounds=10, n_steps=300):
    """Return the tail of the scores of right pairs in a mixture with wrong ones, of which a sample is given.

    The threshold and the share of wrong pairs, on which it depends, are found in turns.
    """
    density = gaussian_kde(wrong[:_MOST_WRONG])
    share = 0.1
    for _ in range(n_rounds):
        threshold = np.quantile(scores, (1 - share) * (1 - _TAIL))
        excess = scores[scores > threshold] - threshold
        wrong_above = max((wrong > threshold).mean(), 0.2)
        wrong_densities = density(threshold + excess) / wrong_above
        right, rate = 0.5, 1 / excess.mean()
        for _ in range(n_steps):
            densities = right * rate * np.exp(-rate * excess)
            weights = densities / (densities + (1 - right) * wrong_densities)
            right, rate = weights.mean(), weights.sum() / (weights @ excess)
        share = min((1 - right) * len(excess) / len(scores) / wrong_above, 0.5)
    return Tail((1 - share) * len(scores), np.sort(scores), threshold, rate, right * len(excess))
