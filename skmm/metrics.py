r"""Metrics of retrieval: how far up the items that belong to a query stand among all items, by their scores.

All metrics are computed from the places of the relevant items. For a relevant item, a is the number of items with a
higher score and t the number with an equal one, itself included; p and r count the relevant ones among these. If ties
are broken at random, it has each of the ranks a + 1, ..., a + t with the same probability, and a metric is its expected
value. Each metric stands in a function that takes the :class:`Places` of a block of queries and returns one value per
query.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array, check_consistent_length, gen_batches

from ._columns import check_groups, group_codes
from ._composition import ModalityComposition, modality_items
from ._sklearn import Interval, StrOptions, safe_indexing, validate_params
from ._typing import Matrix

__all__ = [
    "hit_at_k",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "median_rank",
    "ndcg_at_k",
    "precision_at_k",
    "recall_at_k",
    "retrieval_report",
    "retrieval_scorer",
]

# Scores that are in memory at a time.
_BLOCK = 2**22
# Up to so many relevant items of a query, counting what is above each is faster than sorting all scores.
_FEW = 16
# Scores of embeddings that differ by less than so many roundings are equal: products of equal rows may differ by that.
_ROUNDINGS = 4
_K = [Interval(Integral, 1, None, closed="left")]
_MATRICES = {"y_true": ["array-like", "sparse matrix"], "y_score": ["array-like"]}


class Places(NamedTuple):
    """Places of the relevant items of a block of queries, query by query and best first.

    Attributes
    ----------
    query : ndarray of shape (n_relevant,)
        Number of the query in the block; queries without a relevant item have none.

    above, tied, relevant_above, relevant_tied : ndarray of shape (n_relevant,)
        The numbers a, t, p and r of each relevant item.

    gain, best_gain : ndarray of shape (n_relevant,)
        Relevance of each relevant item, and the same with the largest first for each query.

    first : ndarray of shape (n_queries,)
        Position, in these arrays, of the best item of each query.

    n_items : int
        Number of items.
    """

    query: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    relevant_above: np.ndarray
    relevant_tied: np.ndarray
    gain: np.ndarray
    best_gain: np.ndarray
    first: np.ndarray
    n_items: int

    def sums(self, values):
        """Return the sum of values of relevant items, by query."""
        return np.add.reduceat(values, self.first)

    def counts(self):
        """Return the number of relevant items, by query."""
        return np.diff(self.first, append=len(self.query))

    def n_within(self, k):
        """Return the expected number of relevant items among the k first, by query."""
        reaches = np.flatnonzero(self.above < k)
        shares = np.minimum(k - self.above[reaches], self.tied[reaches]) / self.tied[reaches]
        return np.bincount(self.query[reaches], shares, self.query[-1] + 1)[self.query[self.first]]


def _hits(places, k):
    """Return the probability that a relevant item is among the k first."""
    a, t, r = (counts[places.first] for counts in (places.above, places.tied, places.relevant_tied))
    m = np.clip(k - a, 0, t)
    # The best relevant items are tied with others: the probability that all r of them stand behind the m first places.
    misses = (m < t).astype(np.float64)
    for i in range(int(r.max())):
        misses *= np.where(i < r, np.maximum(t - m - i, 0) / np.maximum(t - i, 1), 1)
    return 1 - misses


def _recalls(places, k):
    return places.n_within(k) / places.counts()


def _precisions(places, k):
    return places.n_within(k) / k


def _average_precisions(places):
    a, t, p, r = places.above, places.tied, places.relevant_above, places.relevant_tied
    harmonic = _cumulated(1 / np.arange(1, places.n_items + 1))
    # At the j-th of the tied ranks, p + 1 + (j - 1) c relevant items are expected up to there; mean over j of their
    # share of a + j ranks.
    c = (r - 1) / np.maximum(t - 1, 1)
    return places.sums(c + (p + 1 - c - c * a) * (harmonic[a + t] - harmonic[a]) / t) / places.counts()


def _reciprocal_ranks(places):
    a, t, r = (counts[places.first] for counts in (places.above, places.tied, places.relevant_tied))
    harmonic = _cumulated(1 / np.arange(1, places.n_items + 1))
    values = (harmonic[a + t] - harmonic[a]) / t
    for i in np.flatnonzero(r > 1):
        # Probability that the first of r relevant items among t tied ones is the j-th of these.
        j = np.arange(1, t[i] - r[i] + 2)
        first = r[i] / t[i] * np.cumprod(np.r_[1.0, (t[i] - j[:-1] - r[i] + 1) / (t[i] - j[:-1])])
        values[i] = first @ (1 / (a[i] + j))
    return values


def _first_ranks(places):
    """Return the expected rank of the best relevant item."""
    a, t, r = (counts[places.first] for counts in (places.above, places.tied, places.relevant_tied))
    return a + (t + 1) / (r + 1)


def _ndcgs(places, k=None):
    k = places.n_items if k is None else k
    discounts = 1 / np.log2(np.arange(2, places.n_items + 2))
    discounts[k:] = 0
    cumulated = _cumulated(discounts)
    counts = places.counts()
    reaches = np.flatnonzero(places.above < k)
    a, t = places.above[reaches], places.tied[reaches]
    gains = places.gain[reaches] * (cumulated[a + t] - cumulated[a]) / t
    ranks = np.arange(len(places.query)) - np.repeat(places.first, counts)
    best = places.sums(places.best_gain * discounts[ranks])
    return np.bincount(places.query[reaches], gains, places.query[-1] + 1)[places.query[places.first]] / best


def _cumulated(values):
    """Return the sums of the first 0, 1, ..., n values."""
    return np.r_[0.0, np.cumsum(values)]


_WITH_K = {"hit": _hits, "recall": _recalls, "precision": _precisions, "ndcg": _ndcgs}
_WITHOUT_K = {"map": _average_precisions, "mrr": _reciprocal_ranks, "ndcg": _ndcgs, "median_rank": _first_ranks}


def _summary(name, values):
    """Return the mean of a metric over the queries, or the median of ranks."""
    return float(np.median(values) if name == "median_rank" else np.mean(values))


@validate_params({**_MATRICES, "k": _K}, prefer_skip_nested_validation=True)
def hit_at_k(y_true: Matrix, y_score: Matrix, *, k: int = 10) -> float:
    """Return the share of the queries that find at least one relevant item among the k items with the highest scores.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_queries, n_items)
        Relevance; items are relevant where it is above 0. Queries without a relevant item are left out.

    y_score : array-like of shape (n_queries, n_items)
        Scores, higher for items that fit better; they may be negative.

    k : int, default=10
        Number of items that are looked at.

    Returns
    -------
    share : float
        Share of the queries; where scores are equal, its expected value over their orders.

    See Also
    --------
    recall_at_k : How many of the relevant items are found.
    sklearn.metrics.top_k_accuracy_score : The same for one relevant item each, where no scores are equal.

    Examples
    --------
    >>> from skmm.metrics import hit_at_k
    >>> y_true, y_score = [[0, 1, 1], [0, 0, 1]], [[0.9, 0.8, 0.1], [0.7, 0.2, -0.3]]
    >>> hit_at_k(y_true, y_score, k=1), hit_at_k(y_true, y_score, k=2)
    (0.0, 0.5)
    """
    return _score_matrix("hit", y_true, y_score, k)


@validate_params({**_MATRICES, "k": _K}, prefer_skip_nested_validation=True)
def recall_at_k(y_true: Matrix, y_score: Matrix, *, k: int = 10) -> float:
    """Return the share of the relevant items that are among the k items with the highest scores.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_queries, n_items)
        Relevance; items are relevant where it is above 0. Queries without a relevant item are left out.

    y_score : array-like of shape (n_queries, n_items)
        Scores, higher for items that fit better; they may be negative.

    k : int, default=10
        Number of items that are looked at.

    Returns
    -------
    recall : float
        Mean over the queries; where scores are equal, its expected value over their orders. It equals
        :func:`hit_at_k` if each query has one relevant item.

    See Also
    --------
    hit_at_k : Whether any relevant item is found.
    precision_at_k : How many of the k items are relevant.

    Examples
    --------
    >>> from skmm.metrics import recall_at_k
    >>> y_true, y_score = [[0, 1, 1], [0, 0, 1]], [[0.9, 0.8, 0.1], [0.7, 0.2, -0.3]]
    >>> recall_at_k(y_true, y_score, k=2)
    0.25
    """
    return _score_matrix("recall", y_true, y_score, k)


@validate_params({**_MATRICES, "k": _K}, prefer_skip_nested_validation=True)
def precision_at_k(y_true: Matrix, y_score: Matrix, *, k: int = 10) -> float:
    """Return the share of relevant items among the k items with the highest scores.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_queries, n_items)
        Relevance; items are relevant where it is above 0. Queries without a relevant item are left out.

    y_score : array-like of shape (n_queries, n_items)
        Scores, higher for items that fit better; they may be negative.

    k : int, default=10
        Number of items that are looked at. The number of relevant ones is divided by k even if there are fewer items.

    Returns
    -------
    precision : float
        Mean over the queries; where scores are equal, its expected value over their orders.

    See Also
    --------
    recall_at_k : How many of the relevant items are found.

    Examples
    --------
    >>> from skmm.metrics import precision_at_k
    >>> y_true, y_score = [[0, 1, 1], [0, 0, 1]], [[0.9, 0.8, 0.1], [0.7, 0.2, -0.3]]
    >>> precision_at_k(y_true, y_score, k=2)
    0.25
    """
    return _score_matrix("precision", y_true, y_score, k)


@validate_params(_MATRICES, prefer_skip_nested_validation=True)
def mean_average_precision(y_true: Matrix, y_score: Matrix) -> float:
    """Return the mean over the queries of the precision at the rank of each relevant item, averaged over these.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_queries, n_items)
        Relevance; items are relevant where it is above 0. Queries without a relevant item are left out.

    y_score : array-like of shape (n_queries, n_items)
        Scores, higher for items that fit better; they may be negative.

    Returns
    -------
    precision : float
        Mean average precision; where scores are equal, its expected value over their orders.

    See Also
    --------
    sklearn.metrics.average_precision_score : Equal for each query where no scores are equal. Equal scores are one
        threshold there, so that all of their items stand at the last of their ranks.

    Examples
    --------
    >>> from skmm.metrics import mean_average_precision
    >>> y_true, y_score = [[0, 1, 1], [0, 0, 1]], [[0.9, 0.8, 0.1], [0.7, 0.2, -0.3]]
    >>> round(mean_average_precision(y_true, y_score), 3)
    0.458
    """
    return _score_matrix("map", y_true, y_score)


@validate_params(_MATRICES, prefer_skip_nested_validation=True)
def mean_reciprocal_rank(y_true: Matrix, y_score: Matrix) -> float:
    """Return the mean over the queries of 1 over the rank of the best relevant item.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_queries, n_items)
        Relevance; items are relevant where it is above 0. Queries without a relevant item are left out.

    y_score : array-like of shape (n_queries, n_items)
        Scores, higher for items that fit better; they may be negative.

    Returns
    -------
    reciprocal_rank : float
        Mean reciprocal rank (MRR); where scores are equal, its expected value over their orders.

    See Also
    --------
    mean_average_precision : The same if each query has one relevant item.
    median_rank : Typical rank of the best relevant item.

    Examples
    --------
    >>> from skmm.metrics import mean_reciprocal_rank
    >>> y_true, y_score = [[0, 1, 1], [0, 0, 1]], [[0.9, 0.8, 0.1], [0.7, 0.2, -0.3]]
    >>> round(mean_reciprocal_rank(y_true, y_score), 3)
    0.417
    """
    return _score_matrix("mrr", y_true, y_score)


@validate_params({**_MATRICES, "k": [*_K, None]}, prefer_skip_nested_validation=True)
def ndcg_at_k(y_true: Matrix, y_score: Matrix, *, k: int | None = None) -> float:
    r"""Return the normalised discounted cumulative gain of the k items with the highest scores.

    The gain of an item is its relevance over :math:`\log_2(1 + \text{rank})`. The sum of all gains is divided by the
    largest that an order of the items can have.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_queries, n_items)
        Relevance, 0 or more, which may be graded. Queries without a relevant item are left out.

    y_score : array-like of shape (n_queries, n_items)
        Scores, higher for items that fit better; they may be negative.

    k : int or None, default=None
        Number of items that count; None means all.

    Returns
    -------
    ndcg : float
        Mean over the queries; where scores are equal, its expected value over their orders.

    See Also
    --------
    sklearn.metrics.ndcg_score : Equal, also where scores are equal, but counts queries without a relevant item as 0.

    Examples
    --------
    >>> from skmm.metrics import ndcg_at_k
    >>> y_true, y_score = [[0, 2, 1], [0, 0, 1]], [[0.9, 0.8, 0.1], [0.7, 0.2, -0.3]]
    >>> round(ndcg_at_k(y_true, y_score), 3), round(ndcg_at_k(y_true, y_score, k=2), 3)
    (0.585, 0.24)
    """
    return _score_matrix("ndcg", y_true, y_score, k)


@validate_params(_MATRICES, prefer_skip_nested_validation=True)
def median_rank(y_true: Matrix, y_score: Matrix) -> float:
    """Return the median over the queries of the rank of the best relevant item, from 1.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_queries, n_items)
        Relevance; items are relevant where it is above 0. Queries without a relevant item are left out.

    y_score : array-like of shape (n_queries, n_items)
        Scores, higher for items that fit better; they may be negative.

    Returns
    -------
    rank : float
        Median of the ranks; where scores are equal, of the expected rank over their orders.

    See Also
    --------
    mean_reciprocal_rank : Counts the first ranks most.

    Examples
    --------
    >>> from skmm.metrics import median_rank
    >>> y_true, y_score = [[0, 1, 1], [0, 0, 1]], [[0.9, 0.8, 0.1], [0.7, 0.2, -0.3]]
    >>> median_rank(y_true, y_score)
    2.5
    """
    return _score_matrix("median_rank", y_true, y_score)


@validate_params(
    {
        "queries": ["array-like"],
        "items": ["array-like"],
        "query_groups": ["array-like", None],
        "item_groups": ["array-like", None],
        "k": [*_K, "array-like", tuple],
        "metric": [StrOptions({"cosine", "dot"})],
        "names": ["array-like", tuple],
        "output_dict": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def retrieval_report(
    queries: Matrix,
    items: Matrix,
    *,
    query_groups: ArrayLike | None = None,
    item_groups: ArrayLike | None = None,
    k: int | Sequence[int] = (1, 5, 10),
    metric: str = "cosine",
    names: Sequence[str] = ("queries", "items"),
    output_dict: bool = False,
) -> str | dict[str, dict[str, float]]:
    """Compute all metrics of retrieval between two sets of embeddings, in both directions.

    Parameters
    ----------
    queries, items : array-like of shape (n_queries, n_features) and (n_items, n_features)
        Embeddings in one space. Rows that are all NaN, or all 0 as ``transform_modality`` returns them for missing
        items, are left out.

    query_groups, item_groups : array-like of shape (n_queries,) and (n_items,), default=None
        Group of each row, such as its class or the picture that it is a caption of: all items of a query's group are
        relevant. None means that the item in the query's row is the relevant one. One set of groups serves for both
        if there are as many queries as items.

    k : int or sequence of int, default=(1, 5, 10)
        Numbers of items for which hits, recall, precision and nDCG are computed.

    metric : {"cosine", "dot"}, default="cosine"
        Scores: the cosine of two embeddings, or their product. Scores that differ by no more than rounding are equal.

    names : sequence of two str, default=("queries", "items")
        Names of both sets, by which the directions are called.

    output_dict : bool, default=False
        Whether to return numbers in place of a text.

    Returns
    -------
    report : str or dict of str to dict of str to float
        A table, or by direction ("queries -> items" and "items -> queries") the metrics: "hit@1" and so on, "recall@1",
        "precision@1", "ndcg@1", "map", "mrr", "median_rank", and "n_queries", the number of queries that are counted.
        Queries without a relevant item are left out.

    Raises
    ------
    ValueError
        If the widths differ, if the numbers of rows differ and there are no groups, or if no query has a relevant item.

    See Also
    --------
    retrieval_scorer : One of these metrics as a scorer for searches.
    mean_reciprocal_rank, mean_average_precision : Metrics of any scores.

    Notes
    -----
    Scores are computed and evaluated in blocks, so memory does not grow with their number.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.metrics import retrieval_report
    >>> rng = np.random.default_rng(0)
    >>> texts = rng.normal(size=(100, 4))
    >>> images = texts + 0.5 * rng.normal(size=(100, 4))
    >>> print(retrieval_report(texts, images, k=[1, 10], names=["text", "image"]))
                  text -> image  image -> text
    hit@1                 0.380          0.330
    hit@10                0.910          0.920
    recall@1              0.380          0.330
    recall@10             0.910          0.920
    precision@1           0.380          0.330
    precision@10          0.091          0.092
    ndcg@1                0.380          0.330
    ndcg@10               0.645          0.640
    map                   0.565          0.553
    mrr                   0.565          0.553
    median_rank           2.000          2.000
    n_queries               100            100
    """
    sides = _Sides(queries, items, query_groups, item_groups, metric, names)
    ks = np.unique(np.atleast_1d(k))
    if not np.issubdtype(ks.dtype, np.integer) or not len(ks) or ks[0] < 1:
        raise ValueError(f"k must be a number of items from 1 up, or several, got {k!r}.")
    metrics = {f"{name}@{n}": partial(function, k=n) for name, function in _WITH_K.items() for n in ks.tolist()}
    metrics |= {name: function for name, function in _WITHOUT_K.items() if name not in _WITH_K}
    report = {direction: _evaluate(blocks, metrics) for direction, blocks in sides.directions()}
    return report if output_dict else _table(report)


@validate_params(
    {"metric": [str], "source": [str], "target": [str], "groups": [str, Integral, callable, None]},
    prefer_skip_nested_validation=True,
)
def retrieval_scorer(
    metric: str, *, source: str, target: str, groups: str | int | Callable | None = None
) -> "RetrievalScorer":
    """Make a scorer of retrieval from one modality to another, for ``scoring=`` of searches and cross-validation.

    Parameters
    ----------
    metric : str
        "hit@k", "recall@k", "precision@k" or "ndcg@k" with a number, such as "recall@10"; "map", "mrr", or
        "neg_median_rank", the negative of the median rank.

    source : str
        Name of the modality of the queries.

    target : str
        Name of the modality of the items.

    groups : str, int or callable, default=None
        Column of X, its name or position, with the group of each row; or a function of X and y that returns the groups.
        All items of a query's group are relevant. None means that the item in the query's row is the relevant one.

    Returns
    -------
    scorer : callable
        Takes a fitted estimator with ``transform_modality``, such as a :class:`~skmm.ModalityFuser` with a joint
        embedding, X, and y, which is ignored unless ``groups`` reads it. Scores are cosines; rows in which one of
        the modalities is missing are left out.

    See Also
    --------
    retrieval_report : All metrics at once.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skmm import CCAFusion, ModalityFuser
    >>> from skmm.metrics import retrieval_scorer
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.normal(size=(200, 5))
    >>> X = np.hstack([shared @ rng.normal(size=(5, p)) + 0.3 * rng.normal(size=(200, p)) for p in (20, 30)])
    >>> modalities = [("text", "passthrough", slice(0, 20)), ("image", "passthrough", slice(20, 50))]
    >>> scorer = retrieval_scorer("recall@10", source="text", target="image")
    >>> grid = {"fusion__n_components": [1, 5]}
    >>> search = GridSearchCV(ModalityFuser(modalities, CCAFusion()), grid, scoring=scorer, cv=3).fit(X)
    >>> search.best_params_
    {'fusion__n_components': 5}
    """
    return RetrievalScorer(metric, source, target, groups)


class RetrievalScorer:
    """Scorer that :func:`retrieval_scorer` makes."""

    def __init__(self, metric, source, target, groups):
        self.metric, self.source, self.target, self.groups = metric, source, target, groups
        self._sign, name = (-1, "median_rank") if metric == "neg_median_rank" else (1, metric)
        kind, at, k = name.partition("@")
        functions = _WITH_K if at else {key: _WITHOUT_K[key] for key in _WITHOUT_K if key != "median_rank"}
        if self._sign < 0:
            functions = _WITHOUT_K
        if kind not in functions or (at and not (k.isdecimal() and int(k) > 0)):
            raise ValueError(
                f"metric={metric!r} is no metric of retrieval; pass one of "
                f"{[f'{key}@10' for key in _WITH_K] + ['ndcg', 'map', 'mrr', 'neg_median_rank']}, with any number "
                "after @."
            )
        self._name, self._function = name, partial(functions[kind], k=int(k)) if at else functions[kind]

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Return the score of a fitted estimator on X."""
        if not hasattr(estimator, "transform_modality"):
            raise TypeError(
                f"{type(estimator).__name__} has no transform_modality, which retrieval needs; pass a ModalityFuser "
                "with a joint embedding, such as fusion='cca'."
            )
        both = [self._embed(estimator, X, name) for name in (self.source, self.target)]
        groups = self.groups
        if groups is not None:
            groups = groups(X, y) if callable(groups) else self._column(X)
        sides = _Sides(*both, groups, None, "cosine", (self.source, self.target))
        (_, blocks), _ = sides.directions()
        return self._sign * _evaluate(blocks, {self._name: self._function})[self._name]

    def _column(self, X):
        try:
            return safe_indexing(X, self.groups, axis=1)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"{self!r}: X has no column {self.groups!r}; pass its name or position.") from error

    def __repr__(self):
        groups = "" if self.groups is None else f", groups={self.groups!r}"
        return f"retrieval_scorer({self.metric!r}, source={self.source!r}, target={self.target!r}{groups})"

    @staticmethod
    def _embed(estimator, X, name):
        items = modality_items(estimator, X, name) if isinstance(estimator, ModalityComposition) else X
        return estimator.transform_modality(items, name)


class _Sides:
    """Two sets of embeddings, and which of their rows belong together."""

    def __init__(self, queries, items, query_groups, item_groups, metric, names):
        both = [
            check_array(rows, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", input_name=name)
            for rows, name in ((queries, "queries"), (items, "items"))
        ]
        if both[0].shape[1] != both[1].shape[1]:
            raise ValueError(
                f"queries have {both[0].shape[1]} features and items {both[1].shape[1]}; map both into one space first."
            )
        self.names = tuple(names)
        if len(self.names) != 2:
            raise ValueError(f"names must be two, of the queries and of the items, got {names!r}.")
        groups = self._groups(*map(len, both), query_groups, item_groups)
        present = [~(np.isnan(rows).all(axis=1) | ~rows.any(axis=1)) for rows in both]
        if query_groups is None and item_groups is None:
            # The pair of a row is what counts, so a row counts only with both.
            present = [present[0] & present[1]] * 2
        both = [rows if mask.all() else rows[mask] for rows, mask in zip(both, present, strict=True)]
        self.groups = [codes[mask] for codes, mask in zip(groups, present, strict=True)]
        for rows, name in zip(both, self.names, strict=True):
            if not len(rows):
                raise ValueError(f"All rows of {name!r} are NaN or 0, which stands for missing items.")
            if np.isnan(rows).any():
                raise ValueError(
                    f"Rows of {name!r} are NaN in some features only; leave them out, or impute these features."
                )
        lengths = [np.linalg.norm(rows, axis=1) for rows in both]
        if metric == "cosine":
            both = [rows / norms[:, None] for rows, norms in zip(both, lengths, strict=True)]
            lengths = [np.ones(len(rows)) for rows in both]
        self.rows = both
        epsilon = max(np.finfo(rows.dtype).eps for rows in both)
        self.tolerances = [
            _ROUNDINGS * epsilon * lengths[0] * lengths[1].max(),
            _ROUNDINGS * epsilon * lengths[1] * lengths[0].max(),
        ]

    @staticmethod
    def _groups(n_queries, n_items, query_groups, item_groups):
        """Return the groups of queries and items as numbers; without groups the numbers of the rows."""
        if query_groups is None and item_groups is None:
            if n_queries != n_items:
                raise ValueError(
                    f"There are {n_queries} queries and {n_items} items, so rows do not say which belong together; "
                    "pass query_groups and item_groups."
                )
            return [np.arange(n_queries)] * 2
        if query_groups is None or item_groups is None:
            if n_queries != n_items:
                raise ValueError(
                    f"There are {n_queries} queries and {n_items} items, so both query_groups and item_groups are "
                    "needed."
                )
            shared = item_groups if query_groups is None else query_groups
            query_groups = item_groups = shared
        groups = [check_groups(query_groups, n_queries), check_groups(item_groups, n_items)]
        return group_codes(*groups)

    def directions(self):
        """Yield the name of each direction and its blocks of places."""
        for a, b in ((0, 1), (1, 0)):
            yield f"{self.names[a]} -> {self.names[b]}", self._blocks(a, b)

    def _blocks(self, a, b):
        queries, items = self.rows[a], self.rows[b]
        order = np.argsort(self.groups[b], kind="stable")
        codes = self.groups[b][order]
        starts, ends = (np.searchsorted(codes, self.groups[a], side=side) for side in ("left", "right"))
        for rows in gen_batches(len(queries), max(1, _BLOCK // len(items))):
            relevant = [order[s:e] for s, e in zip(starts[rows], ends[rows], strict=True)]
            yield _places(queries[rows] @ items.T, relevant, tolerances=self.tolerances[a][rows])


def _score_matrix(name, y_true, y_score, k=None):
    """Return a metric of a matrix of scores."""
    y_true = check_array(y_true, accept_sparse="csr", dtype=None, input_name="y_true")
    y_score = check_array(y_score, dtype=[np.float64, np.float32], input_name="y_score")
    check_consistent_length(y_true, y_score)
    if y_true.shape != y_score.shape:
        raise ValueError(f"y_true has the shape {y_true.shape} and y_score {y_score.shape}; they must be equal.")
    options = {} if k is None else {"k": k}
    function = (_WITH_K if options else _WITHOUT_K)[name]
    return _evaluate(_matrix_blocks(y_true, y_score), {name: partial(function, **options)})[name]


def _matrix_blocks(y_true, y_score) -> Iterator[Places]:
    for rows in gen_batches(len(y_score), max(1, _BLOCK // y_score.shape[1])):
        relevance = y_true[rows]
        relevance = relevance if isinstance(relevance, np.ndarray) else relevance.toarray()
        if relevance.dtype.kind not in "bu" and (relevance < 0).any():
            raise ValueError("y_true is negative in some cells; relevance is 0, or more for items that are relevant.")
        relevant = [np.flatnonzero(row) for row in relevance]
        gains = [row[columns] for row, columns in zip(relevance, relevant, strict=True)]
        yield _places(y_score[rows], relevant, gains)


def _places(scores, relevant, gains=None, tolerances=None):
    """Return the places of the relevant items of a block of queries, given their positions for each query."""
    queries = np.array([i for i, items in enumerate(relevant) if len(items)], dtype=np.intp)
    counts = np.array([len(relevant[i]) for i in queries], dtype=np.intp)
    first = np.cumsum(counts) - counts
    query = np.repeat(queries, counts)
    slack = np.zeros(len(scores), scores.dtype) if tolerances is None else tolerances.astype(scores.dtype)
    gain, best_gain = np.ones((2, len(query)))
    above, reached = np.empty((2, len(query)), dtype=np.intp)
    relevant_above, relevant_reached = np.zeros(len(query), dtype=np.intp), np.ones(len(query), dtype=np.intp)
    for i, start, count in zip(queries, first.tolist(), counts.tolist(), strict=True):
        span = slice(start, start + count)
        values = scores[i, relevant[i]]
        if count > 1:
            order = np.argsort(-values)
            values = values[order]
        if gains is not None:
            gain[span] = gains[i][order] if count > 1 else gains[i]
            best_gain[span] = np.sort(gains[i])[::-1]
        # What is above the upper bound is above an item; what reaches the lower one is above it or tied with it.
        upper, lower = values + slack[i], values - slack[i]
        above[span], reached[span] = _count_above(scores[i], upper, lower)
        if count > 1:
            relevant_above[span], relevant_reached[span] = _count_above(values, upper, lower)
    tied, relevant_tied = reached - above, relevant_reached - relevant_above
    return Places(query, above, tied, relevant_above, relevant_tied, gain, best_gain, first, scores.shape[1])


def _count_above(scores, upper, lower):
    """Return how many of the scores are above each of the upper bounds, and how many reach each of the lower ones."""
    if len(upper) <= _FEW:
        above = [np.count_nonzero(scores > bound) for bound in upper]
        return above, [np.count_nonzero(scores >= bound) for bound in lower]
    ordered = np.sort(scores)
    above = len(scores) - np.searchsorted(ordered, upper, side="right")
    return above, len(scores) - np.searchsorted(ordered, lower, side="left")


def _evaluate(blocks, metrics):
    """Return each metric, and the number of queries that have a relevant item."""
    by_block = [
        {name: function(places) for name, function in metrics.items()} for places in blocks if len(places.first)
    ]
    if not by_block:
        raise ValueError("No query has a relevant item, so there is nothing to evaluate.")
    values = {name: np.concatenate([block[name] for block in by_block]) for name in metrics}
    n_queries = len(next(iter(values.values())))
    return {**{name: _summary(name, values[name]) for name in metrics}, "n_queries": n_queries}


def _table(report):
    """Return a report as a text with a column for each direction."""
    names = list(next(iter(report.values())))
    first = max(map(len, names))
    lines = ["  ".join([" " * first, *report])]
    for name in names:
        form = "d" if name == "n_queries" else ".3f"
        lines.append("  ".join([f"{name:{first}}", *(f"{report[key][name]:{len(key)}{form}}" for key in report)]))
    return "\n".join(lines)
