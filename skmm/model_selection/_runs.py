"""Fit and score strategies of fusion, all on the same folds."""

import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from numbers import Integral

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter
from tqdm.auto import tqdm

from .._sklearn import safe_indexing


@dataclass
class Run:
    """One strategy in one fold: its scores by metric, times in seconds, and what a search within it chose."""

    scores: dict = field(default_factory=dict)
    fit_time: float = np.nan
    predict_time: float = np.nan
    params: dict | None = None
    error: str = ""


@dataclass
class Row:
    """All runs of one strategy."""

    label: str
    level: str
    runs: list

    @property
    def error(self):
        """How many runs failed, and the first error; an empty string if none did."""
        errors = [run.error for run in self.runs if run.error]
        return f"{len(errors)} of {len(self.runs)} folds: {errors[0]}" if errors else ""

    def scores(self, metric):
        """Return the scores of all folds."""
        return np.array([run.scores[metric] for run in self.runs], dtype=float)


class Folds:
    """Folds of the rows, stratified for classes, and of whole groups if there are groups."""

    def __init__(self, y, classifier, groups, random_state):
        self.y, self.classifier, self.groups, self.random_state = y, classifier, groups, random_state

    def splitter(self, cv):
        """Return a splitter; a number of folds becomes one that shuffles."""
        if not isinstance(cv, Integral):
            return check_cv(cv, self.y, classifier=self.classifier)
        # scikit-learn's own choice tells whether y can be stratified.
        kind = type(check_cv(cv, self.y, classifier=self.classifier))
        if self.groups is not None:
            kind = StratifiedGroupKFold if kind is StratifiedKFold else GroupKFold
        # A number as seed, so that the inner folds of all strategies are the same.
        return kind(cv, shuffle=True, random_state=self.random_state.randint(2**31 - 1))

    def splits(self, X, cv, n_repeats):
        """Return all splits as a list of (training rows, test rows)."""
        if n_repeats > 1 and not isinstance(cv, Integral):
            raise ValueError(
                f"n_repeats={n_repeats} needs a number of folds as cv, got {cv!r}; pass a splitter that repeats itself."
            )
        splits = [split for _ in range(n_repeats) for split in self.splitter(cv).split(X, self.y, groups=self.groups)]
        if len(splits) < 2:
            raise ValueError(f"cv must give at least 2 splits to compare scores over, got {len(splits)}.")
        return splits


def with_searches(strategies, param_grids, cv, scoring, metric):
    """Return the strategies, with a search around each of those that have a grid."""
    labels = [strategy.label for strategy in strategies]
    if isinstance(param_grids, str):
        param_grids = {strategy.label: strategy.grid for strategy in strategies}
    unknown = sorted(set(param_grids) - set(labels))
    if unknown:
        raise ValueError(f"param_grids: {unknown} are not among the strategies {labels}.")

    options = {"cv": cv, "scoring": scoring, "refit": metric or True}
    return [
        replace(
            strategy, estimator=GridSearchCV(strategy.estimator, param_grids[strategy.label], **options), tuned=True
        )
        if param_grids.get(strategy.label)
        else strategy
        for strategy in strategies
    ]


@contextmanager
def silent_on_items():
    """Silence the warnings that items cannot be encoded, which each fit would repeat."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* items could not be encoded and count as missing")
        yield


def score_fold(strategy, X, y, groups, train, test, scorer, name, on_error, tells=False):
    """Return the run of a strategy in one fold; a scorer that returns a single number gets the name.

    Items that cannot be encoded are told of if ``tells``.
    """
    begin = time.perf_counter()
    try:
        train_groups = None if groups is None else safe_indexing(groups, train)
        with nullcontext() if tells else silent_on_items():
            estimator = fit_strategy(strategy, safe_indexing(X, train), safe_indexing(y, train), train_groups)
            fitted = time.perf_counter()
            scores = scorer(estimator, safe_indexing(X, test), safe_indexing(y, test))
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
    params = estimator.best_params_ if strategy.tuned else None
    return Run(scores, fit_time=fitted - begin, predict_time=end - fitted, params=params)


def collect_rows(runs, strategies, n_splits, verbose):
    """Gather the runs of each strategy as they come in; return the rows, and whether an interrupt came."""
    rows = []
    try:
        with tqdm(total=len(strategies) * n_splits, desc="compare_fusions", unit="fit", disable=not verbose) as bar:
            for strategy in strategies:
                bar.set_postfix_str(strategy.label)
                finished = []
                for run in islice(runs, n_splits):
                    finished.append(run)
                    bar.update()
                rows.append(Row(strategy.label, strategy.level, finished))
    except KeyboardInterrupt:
        if not rows:
            raise
        return rows, True
    return rows, False


def fit_strategy(strategy, X, y, groups):
    """Return a fitted clone of a strategy; everything in it that can take the groups gets them.

    Voters, stackers and networks take them directly. A pipeline or a search passes them on to its steps and to its
    splitter by metadata routing.
    """
    estimator = clone(strategy.estimator)
    if groups is None:
        return estimator.fit(X, y)
    if has_fit_parameter(estimator, "groups"):
        return estimator.fit(X, y, groups=groups)
    with config_context(enable_metadata_routing=True):
        if _requests_groups(estimator):
            return estimator.fit(X, y, groups=groups)
    # A search hands groups to its splitter without routing as well.
    return estimator.fit(X, y, **({"groups": groups} if strategy.tuned else {}))


def _requests_groups(estimator):
    """Request groups for every nested estimator whose ``fit`` takes them; return whether any part of it uses groups."""
    for nested in estimator.get_params(deep=True).values():
        if hasattr(nested, "set_fit_request") and has_fit_parameter(nested, "groups"):
            nested.set_fit_request(groups=True)
    try:
        return bool(get_routing_for_object(estimator).consumes("fit", ["groups"]))
    except (NotImplementedError, ValueError):
        # AdaBoost and some linear models of scikit-learn cannot be asked.
        return False
