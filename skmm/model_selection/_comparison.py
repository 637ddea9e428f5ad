"""Strategies of fusion on the same folds: how to compare them, what comes out, and how to draw it."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.parallel import delayed

from .._columns import check_can_be_sent
from .._plot import VERMILION, make_axes
from .._similar import SimilarRows, join_groups
from .._sklearn import HasMethods, Interval, StrOptions, safe_indexing, validate_params
from .._threads import parallel_results
from .._typing import Items, Modalities, PathType, RandomState, Table
from .._warnings import warn
from ..encoders import ItemEncoder, infer_modalities
from ..fusion import ModalityFuser
from ._html import comparison_page
from ._runs import Folds, Row, Run, collect_rows, fit_strategy, score_fold, with_searches
from ._statistics import corrected_t_test, gain_over_best, holm, score_bounds
from ._strategies import EXTRA, LEVEL_STYLES, LEVELS, make_strategies

# What follows from the test of a fusion against the best single modality.
_ADVICE = {
    "better": "So fusion is worth it here; tuning its parameters, or the encoders to the target, may give more.",
    "unclear": "That is not enough to show that fusion is worth it, with {tried} tried on these folds: "
    "{single!r} costs less. More rows, or repeated folds, would tell.",
    "worse": "So fusion does harm here: use {single!r} instead, and look at the other modalities' items for errors.",
}
# Parameters of a penalty, and by what they are multiplied to see whether another one is better.
_PENALTIES = ("__C", "__alpha")
_FACTORS = (0.1, 0.01, 10, 100)
# With more rows near duplicates are not looked for: the time grows with the square. Fewer test rows that have one than
# this share are not worth a warning.
_MOST_ROWS_FOR_DUPLICATES = 5000
_SHARE_OF_DUPLICATES = 0.01
# Letters per line of a strategy's name; longer lines leave too little of a figure 600 pixels wide.
_NAME_WIDTH = 20


@validate_params(
    {
        "estimator": [HasMethods(["fit", "predict"])],
        "modalities": [list, tuple, StrOptions({"auto"})],
        "levels": ["array-like", tuple],
        "exclude": ["array-like", tuple],
        "extra": [dict, None],
        "cv": ["cv_object"],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "scoring": [str, callable, list, tuple, set, dict, None],
        "refit": ["boolean", str],
        "groups": ["array-like", None],
        "param_grids": [StrOptions({"auto"}), dict, None],
        "inner_cv": ["cv_object"],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
        "on_error": [StrOptions({"row", "raise"})],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
    },
    prefer_skip_nested_validation=False,
)
def compare_fusions(
    estimator: Any,
    X: Table,
    y: Items,
    *,
    modalities: Modalities | Literal["auto"] = "auto",
    levels: Sequence[str] = LEVELS,
    exclude: Sequence[str] = (),
    extra: dict | None = None,
    cv: Any = 5,
    n_repeats: int = 1,
    scoring: Any = None,
    refit: bool | str = True,
    groups: Items = None,
    param_grids: dict | str | None = None,
    inner_cv: Any = 3,
    confidence: float = 0.95,
    on_error: str = "row",
    n_jobs: int | None = None,
    random_state: RandomState = 0,
    verbose: bool = False,
) -> "FusionComparison":
    """Compare strategies of fusion with each other, and with the best single modality.

    Every strategy of :func:`fusion_grid` is fitted and scored on the same folds. Each one that joins
    modalities is tested against the best single modality, so that the answer can be that fusion is not worth
    it.

    Parameters
    ----------
    estimator : classifier or regressor
        Predicts from the features of a modality, or from fused features. If classes are unbalanced, set its
        ``class_weight="balanced"``, or pass a pipeline that begins with a sampler of imbalanced-learn.

    X : DataFrame or array-like of shape (n_samples, n_features)
        Data, with one or several columns per modality.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Target.

    modalities : list of (str, transformer, columns) or "auto", default="auto"
        At least two modalities, as in :class:`~skmm.ModalityFuser`; "auto" finds them out
        (:func:`~skmm.infer_modalities`).

    levels : sequence of {"single", "feature", "joint", "decision", "model", "tuned"}, default=all but "tuned"
        Levels of fusion to compare; see :func:`fusion_grid`. Without ``"single"`` there are no gains and no tests.

    exclude : sequence of str, default=()
        Strategies to leave out, by their names in :func:`fusion_grid`.

    extra : dict of str to estimator, default=None
        Strategies to add by name: estimators that take X as it is. A pair (estimator, grid) comes with its
        own parameters to search over, used if ``param_grids="auto"``.

    cv : int, splitter or iterable, default=5
        Folds. A number means that many folds of shuffled rows, stratified for classifiers, of whole groups if there
        are ``groups``.

    n_repeats : int, default=1
        How often to draw the folds, if ``cv`` is a number. More repeats make the tests more powerful, up to a limit
        that the correction for overlap sets.

    scoring : str, callable, list, tuple, set, dict or None, default=None
        One or several scorers, as in :func:`~sklearn.model_selection.cross_validate`. None is the accuracy or R2, not
        the estimator's own ``score``, which may be another for each strategy.

    refit : bool or str, default=True
        Whether to fit the best strategy on all data. A string names the scorer that says which is best;
        True is the first one.

    groups : array-like of shape (n_samples,), default=None
        Group of each row. No group is split between training and test rows, nor between the inner folds of
        estimators that learn from such folds: see the notes.

    param_grids : dict, "auto" or None, default=None
        Parameters to search over within each training set, by name of the strategy; ``"auto"`` takes those of
        :func:`fusion_grid`. The scores are then those of nested cross-validation.

    inner_cv : int or splitter, default=3
        Folds of that search, as ``cv``.

    confidence : float, default=0.95
        Confidence of all intervals. The level of the tests is 1 less the confidence.

    on_error : {"row", "raise"}, default="row"
        Whether a strategy that fails becomes a row with the error, or raises it. If the best strategy cannot be fitted
        on all data, ``"row"`` means a warning and no ``best_estimator_``.

    n_jobs : int or None, default=None
        Number of fits at the same time, by joblib. None means 1.

    random_state : int, RandomState instance or None, default=0
        Seed of the folds if ``cv`` is a number, and of the strategies that draw random numbers.

    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    comparison : FusionComparison
        Scores, times and tests, as a table, a drawing or a page, and the best strategy fitted on all data.

    Raises
    ------
    ValueError
        If parameters contradict each other, a name is unknown, or there are fewer than two folds.

    KeyboardInterrupt
        If interrupted before any strategy is finished. A later interrupt becomes a warning, and the finished rows are
        returned.

    See Also
    --------
    fusion_grid : The same strategies as a grid for a search.
    FusionComparison : The result.

    Notes
    -----
    **Tests.** Differences over folds are tested by the corrected resampled t-test (:func:`corrected_t_test`), and the
    p-values of all strategies that join modalities are adjusted by Holm's method (:func:`holm`). Which modality is the
    best one is not known, only which one scored highest on these folds. So a strategy is called better only if it is
    better than every single modality, each by its own test, which needs no further correction (the intersection-union
    principle [1]_); worse, if it is worse than any, with Bonferroni's correction over the modalities. The gain is the
    difference to the highest mean of a single modality, which is partly high by luck: the gain tends to be too small.

    **Intervals** of scores with known bounds are cut there, for example those of accuracy at 0 and 1 and those of
    R² at 1. What is cut off is impossible, so the confidence stays what it is. Bounds are known for scikit-learn's
    scorers by name, and for the accuracy and R² of estimators' own ``score``.

    **What it does not correct.** The best row of many is also partly best by luck: its score is too optimistic for
    ``best_estimator_``. If you need that number, score on data that was not used here.

    **Penalties.** The gain over a modality whose penalty is wrong says little. Without ``param_grids``, the best single
    modality is therefore tried with its ``C`` or ``alpha`` multiplied by 0.1, 0.01, 10 and 100; a warning tells if one
    of these is better (p < 0.1 on the same folds).

    **Near duplicates** in training and test rows make scores too high. Of up to 5,000 rows, those of modalities whose
    encoder has a store are looked at, and a warning tells if 1 % of the test rows or more have one among the training
    rows of their fold, by the "auto" threshold of :func:`~skmm.inspection.find_duplicates`.

    **Groups** decide the folds, those of the searches, and those within every estimator whose ``fit`` takes ``groups``:
    stackers, voters that learn their weights, networks that stop early. Pipelines and searches pass them on by
    metadata routing, to scikit-learn's splitters by group as well.

    **Encoding.** Encoders and descriptors compute no row twice, whatever the strategy, fold or process. Other
    transformers are fitted in each fold; one that learns nothing from the rows is better applied once beforehand, with
    ``"passthrough"`` in its place.

    References
    ----------
    .. [1] Berger (1982). "Multiparameter hypothesis testing and acceptance sampling". Technometrics 24(4).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm.model_selection import compare_fusions
    >>> X, y = load_iris(return_X_y=True)
    >>> modalities = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
    >>> options = {"levels": ("single", "feature"), "exclude": ["product", "kernel"]}
    >>> comparison = compare_fusions(LogisticRegression(), X, y, modalities=modalities, **options)
    >>> comparison.to_frame()[["level", "mean", "gain", "verdict"]].round(2)
                   level  mean  gain              verdict
    strategy
    petal alone   single  0.97   NaN          best single
    concat       feature  0.96 -0.01  no difference shown
    pca          feature  0.96 -0.01  no difference shown
    lda          feature  0.95 -0.02  no difference shown
    sepal alone   single  0.81   NaN
    """
    check_consistent_length(X, y, groups)
    check_can_be_sent(X, n_jobs)
    if isinstance(modalities, str):
        modalities = list(infer_modalities(X, y))
    strategies = make_strategies(modalities, estimator, levels, exclude, extra, random_state)
    folds = Folds(y, is_classifier(estimator), groups, check_random_state(random_state))
    splits = folds.splits(X, cv, n_repeats)
    # A set has no first scorer.
    scoring = sorted(scoring) if isinstance(scoring, set) else scoring
    names = _scorer_names(estimator, scoring)
    scorer = check_scoring(estimator, scoring=names["score"] if scoring is None else scoring)
    if isinstance(refit, str) and refit not in names and not callable(scoring):
        raise ValueError(f"refit={refit!r} is not among the scorers {list(names)}; pass one of these, or True.")
    best_metric = refit if isinstance(refit, str) else next(iter(names), None)
    if param_grids is not None:
        strategies = with_searches(strategies, param_grids, folds.splitter(inner_cv), scoring, best_metric)

    # In batches of one: a batch with a slow fit would hold back finished runs when an interrupt comes.
    runs = parallel_results(
        (
            # Each modality alone is fitted by one strategy, which tells of its items once.
            delayed(score_fold)(
                *(strategy, X, y, groups, train, test, scorer, best_metric or "score", on_error),
                tells=strategy.level == "single" and number == 0,
            )
            for strategy in strategies
            for number, (train, test) in enumerate(splits)
        ),
        n_jobs=n_jobs,
        batch_size=1,
    )
    rows, interrupted = collect_rows(runs, strategies, len(splits), verbose)
    comparison = FusionComparison(
        rows,
        test_share=sum(len(test) / len(train) for train, test in splits) / len(splits),
        confidence=confidence,
        best_metric=best_metric,
        bounds={name: score_bounds(scorer) for name, scorer in names.items() if isinstance(scorer, str)},
    )
    if interrupted:
        warnings.warn(
            f"compare_fusions was interrupted after {len(rows)} of {len(strategies)} strategies; only these are "
            "compared, and no strategy is fitted on all data.",
            UserWarning,
            stacklevel=3,
        )
        return comparison
    _warn_of_duplicates(X, y, modalities, splits)
    if param_grids is None:
        _warn_of_penalty(comparison, strategies, X, y, groups, splits, scorer, best_metric or "score")
    if refit is not False and comparison.best_strategy_ is not None:
        best = next(strategy for strategy in strategies if strategy.label == comparison.best_strategy_)
        try:
            comparison.best_estimator_ = fit_strategy(best, X, y, groups)
        except (Exception, KeyboardInterrupt) as error:
            # An interrupt must not lose the rows, whatever on_error says.
            if on_error == "raise" and isinstance(error, Exception):
                error.add_note(f"This happened in the strategy {best.label!r}, as it was fitted on all data.")
                raise
            warnings.warn(
                f"compare_fusions has all rows, but could not fit the best strategy {best.label!r} on all data "
                f"({error!r}), so there is no best_estimator_.",
                UserWarning,
                stacklevel=3,
            )
    return comparison


def _warn_of_duplicates(X, y, modalities, splits):
    """Warn if test rows have near duplicates among the training rows, by features that are in the store."""
    members = [(name, member, columns) for name, member, columns in modalities if _reads_store(member)]
    if not members or len(X) > _MOST_ROWS_FOR_DUPLICATES:
        return
    fuser = ModalityFuser(members, FunctionTransformer())
    try:
        joined = fuser.fit_transform(X, y)
    except Exception:
        # The strategies have met this error already; their rows name it.
        return
    similar = {name: SimilarRows(joined[:, columns], "auto").pairs()[0] for name, columns in fuser.blocks_.items()}
    groups = join_groups(list(similar.values()))
    share = np.mean(np.concatenate([np.isin(groups[test], groups[train]) for train, test in splits]))
    if share >= _SHARE_OF_DUPLICATES:
        warn(
            f"compare_fusions: {share:.0%} of the test rows are equal, or nearly so, to training rows of their fold in "
            f"one of the modalities {list(similar)}, so that scores may be too high for new items. Look at "
            "skmm.inspection.find_duplicates(X, modalities), and pass its groups as groups=, joined with your own if "
            "there are any."
        )


def _reads_store(member):
    """Tell whether the features of a modality come from an encoder with a store."""
    encoder = member.steps[0][1] if isinstance(member, Pipeline) else member
    return isinstance(encoder, ItemEncoder) and getattr(encoder, "store", None) is not None


def _warn_of_penalty(comparison, strategies, X, y, groups, splits, scorer, name):
    """Warn if the best single modality would be better with another penalty, which makes gains look too large."""
    frame = comparison.to_frame() if comparison.metrics else None
    singles = [] if frame is None else frame.index[frame["verdict"] == "best single"]
    if len(singles) == 0:
        return
    single = next(strategy for strategy in strategies if strategy.label == singles[0])
    keys = [key for key in single.estimator.get_params() if key.startswith("estimator__") and key.endswith(_PENALTIES)]
    values = [single.estimator.get_params()[key] for key in keys]
    if len(keys) != 1 or not isinstance(values[0], Real) or values[0] <= 0:
        return
    metric = comparison.best_metric or comparison.metrics[0]
    scores, trials = comparison.fold_scores()[single.label].to_numpy(), {}
    for factor in _FACTORS:
        value = values[0] * factor
        trial = replace(single, estimator=clone(single.estimator).set_params(**{keys[0]: value}))
        runs = [score_fold(trial, X, y, groups, train, test, scorer, name, "row") for train, test in splits]
        if not any(run.error for run in runs):
            trials[value] = np.array([run.scores[metric] for run in runs]) - scores
    best = max(trials, key=lambda value: trials[value].mean(), default=None)
    if best is None or trials[best].mean() <= 0:
        return
    if corrected_t_test(trials[best], comparison.test_share).pvalue < 0.1:
        parameter = keys[0].removeprefix("estimator__")
        warn(
            f"compare_fusions: {single.label!r} has a mean {metric} of {scores.mean() + trials[best].mean():.3f} with "
            f"{parameter}={best:g}, and {scores.mean():.3f} with {values[0]:g}: gains over a modality that is tuned "
            "badly say little. Pass an estimator that finds its penalty, such as LogisticRegressionCV or RidgeCV, or "
            "param_grids."
        )


def _scorer_names(estimator, scoring):
    """Return the names of the scores, with the scorer of each; none if a function names them when it is called."""
    if callable(scoring):
        return {}
    if scoring is None:
        return {"score": "accuracy" if is_classifier(estimator) else "r2"}
    return scoring if isinstance(scoring, dict) else {name: name for name in np.atleast_1d(scoring).tolist()}


class FusionComparison:
    """Scores of strategies of fusion on the same folds, with intervals and tests.

    :func:`compare_fusions` returns it.

    Parameters
    ----------
    rows : list of Row
        One per strategy, with one run per fold.

    test_share : float
        Size of a test set divided by that of its training set.

    confidence : float, default=0.95
        Confidence of all intervals. The level of the tests is 1 less the confidence.

    best_metric : str or None, default=None
        Name of the scorer that decides which strategy is best. None means the first.

    bounds : dict of str to (float, float), default=None
        Lowest and highest possible value of scores, by name of the scorer; intervals are cut there.

    Attributes
    ----------
    metrics : list of str
        Names of the scorers; ``"score"`` for one that has no name.

    best_strategy_ : str or None
        Name of the strategy of the highest mean; None if all failed.

    best_estimator_ : estimator
        This strategy, fitted on all data. Only if ``refit`` is not False, nothing was interrupted and the fit did not
        fail. If the strategy was tuned, it is the fitted :class:`~sklearn.model_selection.GridSearchCV`.

    See Also
    --------
    compare_fusions : Makes the comparison.
    FusionComparisonDisplay : Its drawing.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm.model_selection import compare_fusions
    >>> X, y = load_iris(return_X_y=True)
    >>> modalities = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
    >>> comparison = compare_fusions(
    ...     LogisticRegression(), X, y, modalities=modalities, levels=("single", "feature")
    ... )
    >>> comparison
    FusionComparison of 7 strategies over 5 folds: petal alone is highest, with a mean score of 0.967
    >>> comparison.fold_scores().shape
    (5, 7)
    """

    def __init__(
        self,
        rows: list,
        test_share: float,
        confidence: float = 0.95,
        best_metric: str | None = None,
        bounds: dict | None = None,
    ):
        self.rows = rows
        self.test_share = test_share
        self.confidence = confidence
        self.best_metric = best_metric
        self.bounds = bounds

    @property
    def _finished(self):
        return [row for row in self.rows if not row.error]

    @property
    def metrics(self) -> list[str]:
        """Names of the scorers."""
        return list(self._finished[0].runs[0].scores) if self._finished else []

    @property
    def best_strategy_(self) -> str | None:
        """Name of the strategy of the highest mean."""
        if not self._finished:
            return None
        metric = self._check_metric(None)
        return max(self._finished, key=lambda row: row.scores(metric).mean()).label

    def _check_metric(self, metric):
        if not self._finished:
            raise ValueError(
                f"All strategies failed, so there are no scores; {self.rows[0].label!r}: {self.rows[0].error}"
            )
        metric = metric or self.best_metric or self.metrics[0]
        if metric not in self.metrics:
            raise ValueError(f"metric={metric!r} is not among those scored: {self.metrics}.")
        return metric

    def fold_scores(self, metric: str | None = None) -> Table:
        """Return the scores of all folds.

        Parameters
        ----------
        metric : str or None, default=None
            Name of a scorer; None means the one that decides which strategy is best.

        Returns
        -------
        scores : pandas.DataFrame of shape (n_folds, n_strategies)
            One column per strategy that did not fail.
        """
        import pandas as pd

        metric = self._check_metric(metric)
        return pd.DataFrame({row.label: row.scores(metric) for row in self._finished})

    def chosen_params(self) -> dict[str, list[dict]]:
        """Return the parameters that the search within each fold chose, for the strategies that were tuned.

        Returns
        -------
        params : dict of str to list of dict
            One dict per fold, by strategy.
        """
        return {row.label: [run.params for run in row.runs] for row in self._finished if row.runs[0].params is not None}

    def to_frame(self, metric: str | None = None) -> Table:
        """Return one row per strategy, the best first.

        Parameters
        ----------
        metric : str or None, default=None
            Name of a scorer; None means the one that decides which strategy is best.

        Returns
        -------
        frame : pandas.DataFrame
            With the strategies as index, and the columns

            - ``level``: level of fusion, ``"single"`` for one modality;
            - ``mean``, ``sd``: mean and standard deviation of the scores over folds;
            - ``low``, ``high``: confidence interval of the mean, corrected for the overlap of training sets and cut at
              the bounds of the score;
            - ``gain``, ``gain_low``, ``gain_high``: difference to the highest mean of a single modality, and its
              interval;
            - ``p``, ``p_holm``: two-sided p-value of the gain, plain and adjusted by Holm's method;
            - ``verdict``: ``"better"``, ``"worse"`` or ``"no difference shown"`` by ``p_holm``; ``"best single"``
              for the highest single modality, ``"failed"`` for a strategy without scores;
            - ``fit_time``, ``predict_time``: mean seconds to fit, and to predict and score;
            - ``error``: in how many folds the strategy failed and the first error, or an empty string.
        """
        import pandas as pd

        columns = [*("strategy", "level", "mean", "sd", "low", "high", "gain", "gain_low", "gain_high"), "p", "p_holm"]
        columns += ["verdict", "fit_time", "predict_time", "error"]
        records = [self._record(row, metric) for row in self.rows]
        frame = pd.DataFrame(records, columns=columns).set_index("strategy")
        tested = frame["p"].notna()
        frame.loc[tested, "p_holm"] = holm(frame.loc[tested, "p"])
        clear = frame["p_holm"] < 1 - self.confidence
        frame.loc[tested, "verdict"] = "no difference shown"
        frame.loc[clear, "verdict"] = np.where(frame.loc[clear, "gain"] > 0, "better", "worse")
        singles = frame.loc[frame["level"] == "single", "mean"].dropna()
        if len(singles):
            frame.loc[singles.idxmax(), "verdict"] = "best single"
        return frame.sort_values("mean", ascending=False, kind="stable", na_position="last")

    def _record(self, row, metric):
        """Return the row of a strategy in the table, without the comparison with other tests."""
        record = {
            "strategy": row.label,
            "level": row.level,
            "verdict": "failed" if row.error else "",
            "error": row.error,
        }
        record |= {name: np.mean([getattr(run, name) for run in row.runs]) for name in ("fit_time", "predict_time")}
        if row.error:
            return record
        metric = self._check_metric(metric)
        lowest, highest = self._bounds(metric)
        scores = row.scores(metric)
        # Scores need the same correction as differences: with overlapping training sets they vary too little.
        interval = corrected_t_test(scores, self.test_share, confidence=self.confidence)
        record |= {"mean": interval.mean, "sd": scores.std(ddof=1)}
        record |= {"low": max(interval.low, lowest), "high": min(interval.high, highest)}
        references = [other.scores(metric) for other in self._finished if other.level == "single"]
        if references and row.level != "single":
            gain, low, high, p = gain_over_best(scores, references, self.test_share, self.confidence)
            largest = highest - lowest
            record |= {"gain": gain, "gain_low": max(low, -largest), "gain_high": min(high, largest), "p": p}
        return record

    def _bounds(self, metric):
        """Return the lowest and highest possible score; infinite if not known, or if scores exceed them."""
        low, high = (self.bounds or {}).get(metric, (-np.inf, np.inf))
        scores = np.concatenate([row.scores(metric) for row in self._finished])
        # An estimator may have a score of its own kind.
        return (low, high) if low <= scores.min() and scores.max() <= high else (-np.inf, np.inf)

    def plot(self, metric: str | None = None, *, ax: Any = None) -> "FusionComparisonDisplay":
        """Draw the means of all strategies with their intervals.

        Parameters
        ----------
        metric : str or None, default=None
            Name of a scorer; None means the one that decides which strategy is best.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : FusionComparisonDisplay
            Drawing, with the table, the axes and the figure.
        """
        return FusionComparisonDisplay.from_comparison(self, metric, ax=ax)

    def to_html(self, path: PathType | None = None, *, title: str = "Comparison of fusions") -> str | None:
        """Write or return a page with tables and drawings of all scorers, which opens without a network.

        Parameters
        ----------
        path : str, Path or None, default=None
            File to write the page to. None returns the page.

        title : str, default="Comparison of fusions"
            Heading of the page.

        Returns
        -------
        html : str or None
            The page; None if it was written to ``path``.
        """
        html = comparison_page(self, title)
        if path is None:
            return html
        Path(path).write_text(html, encoding="utf-8")
        return None

    def summary(self, metric: str | None = None, *, strategy: str | None = None) -> str:
        """Say in a paragraph what each modality tells, what fusion gains, and what to try next.

        Parameters
        ----------
        metric : str or None, default=None
            Name of a scorer; None means the one that decides which strategy is best.

        strategy : str or None, default=None
            The fusion to speak of; its gain is tested alone. None means the one of the highest mean; as it was chosen
            for that, all are tested, with Holm's correction.

        Returns
        -------
        text : str
            Some sentences.
        """
        frame = self.to_frame(metric)
        metric = self._check_metric(metric)
        finished = frame[frame["mean"].notna()]
        singles, joined = finished[finished["level"] == "single"], finished[finished["level"] != "single"]
        sentences = []
        if len(singles):
            scores = ", ".join(f"{label} {mean:.3f}" for label, mean in singles["mean"].items())
            sentences.append(f"Mean {metric} over {len(self.fold_scores(metric))} folds: {scores}.")
        if len(joined):
            label = joined.index[0] if strategy is None else strategy
            best = joined.loc[label]
            sentences.append(
                f"{'The best fusion' if strategy is None else 'Fusion'}, {label!r}, has {best['mean']:.3f}"
            )
            if len(singles):
                interval = f"{100 * self.confidence:g} % interval {best['gain_low']:+.3f} to {best['gain_high']:+.3f}"
                sentences[-1] += f", a gain of {best['gain']:+.3f} over {singles.index[0]} ({interval})."
                clear = best["p" if strategy else "p_holm"] < 1 - self.confidence
                tried = "1 strategy" if len(joined) == 1 else f"{len(joined)} strategies"
                advice = ("better" if best["gain"] > 0 else "worse") if clear else "unclear"
                sentences.append(_ADVICE[advice].format(single=singles.index[0], fusion=label, tried=tried))
            else:
                sentences[-1] += "."
        failed = frame.index[frame["error"] != ""].tolist()
        if failed:
            sentences.append(f"Failed: {', '.join(failed)}; the column 'error' says why.")
        return " ".join(sentences)

    def __repr__(self):
        size = f"FusionComparison of {len(self.rows)} strategies over {len(self.rows[0].runs)} folds"
        if self.best_strategy_ is None:
            return f"{size}: all failed"
        metric = self._check_metric(None)
        mean = self.fold_scores()[self.best_strategy_].mean()
        return f"{size}: {self.best_strategy_} is highest, with a mean {metric} of {mean:.3g}"


class FusionComparisonDisplay:
    """Means of all strategies with their intervals, beside the best single modality.

    Short strokes are the folds. The gains stand at the right, with a star if the verdict is better or worse.

    Parameters
    ----------
    frame : pandas.DataFrame
        Table of a comparison, as :meth:`FusionComparison.to_frame` returns it.

    fold_scores : pandas.DataFrame of shape (n_folds, n_strategies)
        Scores of all folds, by strategy.

    score_name : str, default="score"
        Name of the score, for the axis.

    confidence : float, default=0.95
        Confidence of the intervals, for the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the drawing.

    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    compare_fusions : Computes what is drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm.model_selection import FusionComparisonDisplay, compare_fusions
    >>> X, y = load_iris(return_X_y=True)
    >>> modalities = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
    >>> comparison = compare_fusions(
    ...     LogisticRegression(), X, y, modalities=modalities, levels=("single", "joint")
    ... )
    >>> display = FusionComparisonDisplay.from_comparison(comparison)
    >>> display.ax_.get_xlabel()
    'score, mean and 95 % interval over 5 folds'
    """

    def __init__(self, frame: Table, fold_scores: Table, *, score_name: str = "score", confidence: float = 0.95):
        self.frame = frame
        self.fold_scores = fold_scores
        self.score_name = score_name
        self.confidence = confidence

    @classmethod
    def from_comparison(
        cls, comparison: FusionComparison, metric: str | None = None, *, ax: Any = None
    ) -> "FusionComparisonDisplay":
        """Draw a comparison that :func:`compare_fusions` returned.

        Parameters
        ----------
        comparison : FusionComparison
            Scores of strategies.

        metric : str or None, default=None
            Name of a scorer; None means the one that decides which strategy is best.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : FusionComparisonDisplay
            The drawing.
        """
        display = cls(
            comparison.to_frame(metric),
            comparison.fold_scores(metric),
            score_name=metric or comparison.best_metric or comparison.metrics[0],
            confidence=comparison.confidence,
        )
        return display.plot(ax=ax)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Table,
        y: Items,
        *,
        modalities: Modalities | Literal["auto"] = "auto",
        ax: Any = None,
        **options,
    ) -> "FusionComparisonDisplay":
        """Compare strategies of fusion with one estimator, and draw.

        Parameters
        ----------
        estimator : classifier or regressor
            Predicts from the features of a modality, or from fused features; a clone is fitted in every fold.

        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        modalities : list of (str, transformer, columns) or "auto", default="auto"
            At least two modalities, as in :func:`compare_fusions`.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        **options : dict
            Other parameters of :func:`compare_fusions`. ``refit`` is False by default, as a drawing needs no fit on
            all data. Of several scorers the first is drawn, or the one that ``refit`` names.

        Returns
        -------
        display : FusionComparisonDisplay
            The drawing.
        """
        comparison = compare_fusions(estimator, X, y, modalities=modalities, **{"refit": False, **options})
        return cls.from_comparison(comparison, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: Items,
        predictions: dict,
        folds: Items,
        *,
        levels: dict[str, str] | None = None,
        metric: Callable,
        score_name: str | None = None,
        confidence: float = 0.95,
        ax: Any = None,
    ) -> "FusionComparisonDisplay":
        """Draw strategies from their out-of-fold predictions.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        predictions : dict of str to array-like of shape (n_samples, ...)
            By strategy, the prediction of each row by a model that was fitted on all other folds, as
            :func:`~sklearn.model_selection.cross_val_predict` returns it, in any form that ``metric`` takes.

        folds : array-like of shape (n_samples,)
            For each row the fold that it was left out in, the same for all strategies.

        levels : dict of str to {"single", "feature", "joint", "decision", "model"}, default=None
            Level of each strategy; a strategy without one is ``"extra"``. Gains and tests need at least one
            ``"single"``.

        metric : callable
            ``metric(y_true, y_pred)`` returns a score that is higher for better predictions.

        score_name : str, default=None
            Name of the score; None means that of the metric.

        confidence : float, default=0.95
            Confidence of the intervals.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : FusionComparisonDisplay
            The drawing.

        Raises
        ------
        ValueError
            If there are fewer than two folds, or if ``levels`` has unknown strategies or levels.

        Examples
        --------
        >>> from sklearn.metrics import accuracy_score
        >>> from skmm.model_selection import FusionComparisonDisplay
        >>> y, folds = [0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2]
        >>> predictions = {"text": [0, 1, 1, 1, 0, 0], "image": [1, 1, 0, 1, 1, 1], "both": y}
        >>> levels = {"text": "single", "image": "single", "both": "feature"}
        >>> display = FusionComparisonDisplay.from_predictions(
        ...     y, predictions, folds, levels=levels, metric=accuracy_score
        ... )
        >>> display.frame["mean"].round(2).to_dict()
        {'both': 1.0, 'text': 0.67, 'image': 0.67}
        """
        levels = levels or {}
        if not set(levels) <= set(predictions) or not set(levels.values()) <= set(LEVEL_STYLES):
            raise ValueError(
                f"levels must map strategies of {list(predictions)} to levels of {list(LEVEL_STYLES)}, got {levels!r}."
            )
        check_consistent_length(y_true, folds, *predictions.values())
        folds = np.asarray(folds)
        tests = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
        if len(tests) < 2:
            raise ValueError(f"folds must name at least 2 folds to compare scores over, got {len(tests)}.")
        name = score_name or getattr(metric, "__name__", "score")

        def run(y_pred, test):
            score = metric(safe_indexing(y_true, test), safe_indexing(y_pred, test))
            return Run({name: float(score)})

        rows = [
            Row(label, levels.get(label, EXTRA), [run(y_pred, test) for test in tests])
            for label, y_pred in predictions.items()
        ]
        share = np.mean([len(test) / (len(folds) - len(test)) for test in tests])
        of_sklearn = getattr(metric, "__module__", "").startswith("sklearn.metrics")
        bounds = {name: score_bounds(metric.__name__)} if of_sklearn else None
        return cls.from_comparison(FusionComparison(rows, share, confidence, bounds=bounds), ax=ax)

    def plot(self, ax: Any = None) -> "FusionComparisonDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure, 600 pixels wide.

        Returns
        -------
        display : FusionComparisonDisplay
            This object.
        """
        frame = self.frame[self.frame["mean"].notna()]
        positions = np.arange(len(frame))[::-1]
        ax = make_axes(ax, height=1.4 + 0.3 * len(frame))
        reference = frame.loc[frame["verdict"] == "best single", "mean"]
        if len(reference):
            ax.axvline(reference.iloc[0], color=VERMILION, linestyle="--", zorder=1, label="best single")
        for position, (label, row) in zip(positions, frame.iterrows(), strict=True):
            color, marker = LEVEL_STYLES[row["level"]]
            folds = self.fold_scores[label]
            ax.plot(folds, np.full(len(folds), position), "|", color=color, alpha=0.5, markersize=6, zorder=2)
            ax.errorbar(
                row["mean"],
                position,
                xerr=[[row["mean"] - row["low"]], [row["high"] - row["mean"]]],
                color=color,
                marker=marker,
                capsize=3,
                zorder=3,
                label=row["level"],
            )
            if not np.isnan(row["gain"]):
                star = "*" if row["verdict"] in ("better", "worse") else ""
                ax.annotate(
                    f"{row['gain']:+.3f}{star}",
                    (1.01, position),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize=8,
                )
        ax.set_yticks(positions, [fill(label, _NAME_WIDTH) for label in frame.index])
        interval = f"mean and {100 * self.confidence:g} % interval over {len(self.fold_scores)} folds"
        ax.set(xlabel=f"{self.score_name}, {interval}", ylim=(-0.6, len(frame) - 0.4))
        if frame["gain"].notna().any():
            ax.annotate("gain", (1.01, len(frame) - 0.45), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
        ax.grid(axis="x", alpha=0.3)
        # One entry for each level, in the order of the levels.
        handles = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
        labels = [label for label in ("best single", *LEVEL_STYLES) if label in handles]
        handles = [handles[label] for label in labels]
        ax.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=8)
        self.ax_, self.figure_ = ax, ax.figure
        return self
