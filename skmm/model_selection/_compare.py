"""All strategies of fusion on the same folds."""

import time
import warnings
from dataclasses import replace
from itertools import islice
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from .._sklearn import HasMethods, Interval, StrOptions, safe_indexing, validate_params
from .._validation import check_can_be_sent
from ._comparison import FusionComparison, Row, Run
from ._strategies import LEVELS, make_strategies


@validate_params(
    {
        "modalities": [list, tuple],
        "estimator": [HasMethods(["fit", "predict"])],
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
    X,
    y,
    modalities,
    estimator,
    *,
    levels=LEVELS,
    exclude=(),
    extra=None,
    cv=5,
    n_repeats=1,
    scoring=None,
    refit=True,
    groups=None,
    param_grids=None,
    inner_cv=3,
    confidence=0.95,
    on_error="row",
    n_jobs=None,
    random_state=0,
    verbose=False,
):
    """Compare strategies of fusion with each other, and with the best single modality.

    Every strategy of :func:`fusion_grid` is fitted and scored on the same folds. Each one that joins
    modalities is tested against the best single modality, so that the answer can be that fusion is not worth
    it.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_samples, n_features)
        Data, with one or several columns per modality.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Target.

    modalities : list of (str, transformer, columns)
        At least two modalities, as in :class:`~skmm.ModalityFuser`.

    estimator : classifier or regressor
        Predicts from the features of a modality, or from fused features. Give it ``class_weight="balanced"``, or a
        pipeline that begins with a sampler of imbalanced-learn, if classes are unbalanced.

    levels : sequence of {"single", "feature", "joint", "decision", "model"}, default=all
        Levels of fusion to compare. Without ``"single"`` there are no gains and no tests.

    exclude : sequence of str, default=()
        Strategies to leave out, by their names in :func:`fusion_grid`.

    extra : dict of str to estimator, default=None
        Strategies to add by name: estimators that take X as it is. A pair (estimator, grid) comes with its
        own parameters to search over, used if ``param_grids="auto"``.

    cv : int, splitter or iterable, default=5
        Folds. A number means that many folds of shuffled rows, stratified for classifiers, of whole groups if there
        are ``groups``.

    n_repeats : int, default=1
        How often to draw the folds anew, if ``cv`` is a number. More repeats make the tests more powerful, to a limit
        that the correction for overlap sets.

    scoring : str, callable, list, tuple, set, dict or None, default=None
        One or several scorers, as in :func:`~sklearn.model_selection.cross_validate`. None is the estimator's own.

    refit : bool or str, default=True
        Whether to fit the best strategy on all data. A string names the scorer that says which is best;
        True is the first one.

    groups : array-like of shape (n_samples,), default=None
        Group of each row, for the splits.

    param_grids : dict, "auto" or None, default=None
        Parameters to search over within each training set, by name of the strategy; ``"auto"`` takes those of
        :func:`fusion_grid`. Scores are those of nested cross-validation then.

    inner_cv : int or splitter, default=3
        Folds of that search, as ``cv``.

    confidence : float, default=0.95
        Confidence of all intervals; one less it is the level of the tests.

    on_error : {"row", "raise"}, default="row"
        Whether a strategy that fails becomes a row that says why, or an error. For the best strategy, fitted on all
        data, ``"row"`` means a warning and no ``best_estimator_``.

    n_jobs : int or None, default=None
        Number of fits at the same time, by joblib. None means 1.

    random_state : int, RandomState instance or None, default=0
        Draws the folds if ``cv`` is a number, and for the strategies that draw random numbers.

    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    comparison : FusionComparison
        Scores, times and tests, as a table, a drawing or a page, and the best strategy fitted on all data.

    Raises
    ------
    ValueError
        If parameters do not fit together, or there are fewer than two folds.

    KeyboardInterrupt
        If interrupted before any strategy is finished. Later, also while the best strategy is fitted on all data, it is
        a warning, and the finished rows are returned.

    See Also
    --------
    fusion_grid : The same strategies as a grid for a search.
    FusionComparison : What comes back.

    Notes
    -----
    **Tests.** Differences over folds go into the corrected resampled t-test (:func:`corrected_t_test`), and the
    p-values of all strategies that join modalities through Holm's correction (:func:`holm`). Which modality is the best
    one is not known, only which one looked best on these folds, and to test against that one
    alone would be neither fair nor valid. A strategy is called better only if it is better than every single
    modality, each by its own test, which needs no further correction (the intersection-union principle); worse, if
    it is worse than any, with Bonferroni's correction over the modalities. The gain is the difference to the highest
    mean of a single modality. That mean is the highest by luck as well, so the gain errs to the low side.

    **What it does not correct.** The best row of many is best by luck as well: its score is optimistic for
    ``best_estimator_``. Score on data kept aside if you need that number.

    **Groups** decide the folds, and those of the search within. Voters and stackers that learn from out-of-fold answers
    split the training rows by themselves, without groups.

    **Missing modalities** are treated as each strategy treats them.

    **Encoding.** Encoders that run a network compute no embedding twice, whatever the strategy, fold or process. Other
    transformers are fitted anew each time; one that learns nothing from the rows, such as
    :class:`~skmm.ImageDescriptor`, is better applied once, before, with ``"passthrough"`` in its place.

    References
    ----------
    .. [1] Nadeau, Bengio (2003). "Inference for the generalization error". Machine Learning 52.
    .. [2] Holm (1979). "A simple sequentially rejective multiple test procedure". Scandinavian Journal of
       Statistics 6(2).
    .. [3] Berger (1982). "Multiparameter hypothesis testing and acceptance sampling". Technometrics 24(4).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm.model_selection import compare_fusions
    >>> X, y = load_iris(return_X_y=True)
    >>> modalities = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
    >>> options = {"levels": ("single", "feature"), "exclude": ["product", "kernel"]}
    >>> comparison = compare_fusions(X, y, modalities, LogisticRegression(), **options)
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
    strategies = make_strategies(modalities, estimator, levels, exclude, extra, random_state)
    folds = _Folds(y, is_classifier(estimator), groups, check_random_state(random_state))
    splits = folds.splits(X, cv, n_repeats)
    # A set has no first scorer.
    scoring = sorted(scoring) if isinstance(scoring, set) else scoring
    scorer = check_scoring(estimator, scoring=scoring)
    name = scoring if isinstance(scoring, str) else "score"
    metric = _refit_metric(scoring, refit)
    if param_grids is not None:
        strategies = _tuned(strategies, param_grids, folds.splitter(inner_cv), scoring, metric)

    # One by one, lest a batch with a slow fit hold back what is finished when an interrupt comes.
    runs = Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator")(
        delayed(_score_fold)(strategy, X, y, groups, train, test, scorer, name, on_error)
        for strategy in strategies
        for train, test in splits
    )
    rows, interrupted = _collect(runs, strategies, len(splits), verbose)
    comparison = FusionComparison(
        rows,
        test_share=sum(len(test) / len(train) for train, test in splits) / len(splits),
        confidence=confidence,
        best_metric=metric,
    )
    if interrupted:
        warnings.warn(
            f"compare_fusions was interrupted after {len(rows)} of {len(strategies)} strategies; only these are "
            "compared, and no strategy is fitted on all data.",
            UserWarning,
            stacklevel=3,
        )
    elif refit is not False and comparison.best_strategy_ is not None:
        best = next(strategy for strategy in strategies if strategy.label == comparison.best_strategy_)
        try:
            comparison.best_estimator_ = _fit(best, X, y, groups)
        except (Exception, KeyboardInterrupt) as error:
            # An interrupt is no reason to lose the rows, whatever errors are to do.
            if on_error == "raise" and isinstance(error, Exception):
                error.add_note(f"This happened in the strategy {best.label!r}, as it was fitted on all data.")
                raise
            warnings.warn(
                f"compare_fusions kept all rows, but could not fit the best strategy {best.label!r} on all data "
                f"({error!r}), so there is no best_estimator_.",
                UserWarning,
                stacklevel=3,
            )
    return comparison


def _refit_metric(scoring, refit):
    """Give the name of the scorer that says which strategy is best; None if there is but one."""
    if not isinstance(scoring, (list, tuple, dict)):
        if isinstance(refit, str) and not callable(scoring):
            raise ValueError(f"refit={refit!r} names one of several scorers, but scoring={scoring!r} is a single one.")
        return refit if isinstance(refit, str) else None
    names = list(scoring)
    if isinstance(refit, str) and refit not in names:
        raise ValueError(f"refit={refit!r} is not among the scorers {names}.")
    return refit if isinstance(refit, str) else names[0]


def _collect(runs, strategies, n_splits, verbose):
    """Gather the rows of the strategies as their folds come in; say whether that was interrupted."""
    rows = []
    try:
        with tqdm(total=len(strategies) * n_splits, desc="compare_fusions", unit="fit", disable=not verbose) as bar:
            for strategy in strategies:
                bar.set_postfix_str(strategy.label)
                own = []
                for run in islice(runs, n_splits):
                    own.append(run)
                    bar.update()
                rows.append(Row(strategy.label, strategy.level, own))
    except KeyboardInterrupt:
        if not rows:
            raise
        return rows, True
    return rows, False


def _score_fold(strategy, X, y, groups, train, test, scorer, name, on_error):
    """Fit and score one strategy in one fold; a single score goes by the given name."""
    begin = time.perf_counter()
    try:
        own_groups = None if groups is None else safe_indexing(groups, train)
        fitted = _fit(strategy, safe_indexing(X, train), safe_indexing(y, train), own_groups)
        middle = time.perf_counter()
        scores = scorer(fitted, safe_indexing(X, test), safe_indexing(y, test))
        end = time.perf_counter()
        scores = scores if isinstance(scores, dict) else {name: scores}
        undefined = [key for key, value in scores.items() if not np.isfinite(value)]
        if undefined:
            raise ValueError(f"{undefined[0]} is {scores[undefined[0]]}, so there is nothing to compare")
    except Exception as error:
        if on_error == "raise":
            error.add_note(f"This happened in the strategy {strategy.label!r}.")
            raise
        return Run(error=f"{type(error).__name__}: {error}")
    params = fitted.best_params_ if strategy.tuned else None
    return Run(scores, fit_time=middle - begin, predict_time=end - middle, params=params)


def _fit(strategy, X, y, groups):
    """Fit a clone of a strategy; a search within it splits by the groups too."""
    params = {"groups": groups} if strategy.tuned and groups is not None else {}
    return clone(strategy.estimator).fit(X, y, **params)


class _Folds:
    """Folds of the rows, stratified and by groups where that applies."""

    def __init__(self, y, classifier, groups, random_state):
        self.y, self.classifier, self.groups, self.random_state = y, classifier, groups, random_state

    def splitter(self, cv):
        """Give a splitter; a number becomes one that shuffles."""
        if not isinstance(cv, Integral):
            return check_cv(cv, self.y, classifier=self.classifier)
        # scikit-learn's own choice says whether y can be stratified.
        stratified = isinstance(check_cv(cv, self.y, classifier=self.classifier), StratifiedKFold)
        grouped = self.groups is not None
        kind = {
            (False, False): KFold,
            (False, True): GroupKFold,
            (True, False): StratifiedKFold,
            (True, True): StratifiedGroupKFold,
        }[stratified, grouped]
        # A number, so that the inner folds of all strategies are the same.
        return kind(cv, shuffle=True, random_state=self.random_state.randint(2**31 - 1))

    def splits(self, X, cv, n_repeats):
        """Give all splits as a list."""
        if n_repeats > 1 and not isinstance(cv, Integral):
            raise ValueError(
                f"n_repeats={n_repeats} needs a number of folds as cv, got {cv!r}; pass a splitter that repeats itself."
            )
        splits = [split for _ in range(n_repeats) for split in self.splitter(cv).split(X, self.y, groups=self.groups)]
        if len(splits) < 2:
            raise ValueError(f"cv must give at least 2 splits to compare scores over, got {len(splits)}.")
        return splits


def _tuned(strategies, param_grids, cv, scoring, metric):
    """Give the strategies, with a search around each of those that have a grid."""
    labels = [strategy.label for strategy in strategies]
    if isinstance(param_grids, str):
        param_grids = {strategy.label: strategy.grid for strategy in strategies}
    unknown = sorted(set(param_grids) - set(labels))
    if unknown:
        raise ValueError(f"param_grids: {unknown} are not among the strategies {labels}.")

    def search(strategy):
        grid = param_grids.get(strategy.label)
        if not grid:
            return strategy
        found = GridSearchCV(strategy.estimator, grid, cv=cv, scoring=scoring, refit=metric or True)
        return replace(strategy, estimator=found, tuned=True)

    return [search(strategy) for strategy in strategies]
