"""Scores of answers that an estimator gave once, for any rows of them."""

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import type_of_target

from .._sklearn import BaseScorer, StrOptions, safe_indexing

SCORING = [StrOptions(set(get_scorer_names())), callable, list, tuple, dict, None]
_METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


class Answers:
    """Answers of a fitted estimator for all rows of X, each computed when first asked for.

    Parameters
    ----------
    estimator : estimator
        Fitted.

    X : DataFrame or ndarray of shape (n_samples, n_features)
        Data.
    """

    def __init__(self, estimator, X):
        self.estimator = estimator
        self.X = X
        self._known = {}

    def __call__(self, method):
        """Give what a method answers."""
        if method not in self._known:
            self._known[method] = getattr(self.estimator, method)(self.X)
        return self._known[method]


class _Recorded:
    """Stands for an estimator in a scorer, and gives answers that are there already, whatever X."""

    def __init__(self, estimator, answer):
        self._estimator = estimator
        self._answer = answer

    def __getattr__(self, name):
        found = getattr(self._estimator, name)
        if name not in _METHODS:
            return found

        def method(X):
            return self._answer(name)

        # Scorers ask a method for its name.
        method.__name__ = name
        return method


def resolve_scorers(estimator, scoring):
    """Give the scorers by name, in scikit-learn's sense of ``scoring``.

    Parameters
    ----------
    estimator : estimator
        Fitted.

    scoring : str, callable, list, tuple, dict or None
        One scorer, or several.

    Returns
    -------
    scorers : dict of str to callable
        A single scorer has the name that it was given, or "score".
    """
    if isinstance(scoring, dict):
        return {name: check_scoring(estimator, scorer) for name, scorer in scoring.items()}
    if isinstance(scoring, (list, tuple)):
        return {name: get_scorer(name) for name in scoring}
    if scoring is None:
        scoring = _usual_scoring(estimator)
    return {scoring if isinstance(scoring, str) else "score": check_scoring(estimator, scoring)}


def has_several(scoring):
    """Tell whether ``scoring`` names several scores, and so wants a result for each."""
    return isinstance(scoring, (list, tuple, dict))


def _usual_scoring(estimator):
    """Give what an estimator's own ``score`` computes from its predictions; None if that is not known."""
    if isinstance(estimator, Pipeline):
        return _usual_scoring(estimator.steps[-1][1])
    if hasattr(estimator, "best_estimator_"):
        own = estimator.scorer_
        return own if isinstance(own, BaseScorer) else _usual_scoring(estimator.best_estimator_)
    score = getattr(type(estimator), "score", None)
    return {ClassifierMixin.score: "accuracy", RegressorMixin.score: "r2"}.get(score)


def score(scorer, estimator, answer, make_X, y, sample_weight):
    """Score an estimator on some rows.

    Parameters
    ----------
    scorer : callable
        A scorer of scikit-learn is handed answers that are there; any other gets the estimator and X.

    estimator : estimator
        Fitted.

    answer : callable
        Gives the answers of the rows to a method, by its name.

    make_X : callable
        Gives the rows of X.

    y : array-like of shape (n_samples, ...)
        Target of the rows.

    sample_weight : array-like of shape (n_samples,) or None
        Weights of the rows.

    Returns
    -------
    score : float
        Higher is better.
    """
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    if isinstance(scorer, BaseScorer):
        return float(scorer(_Recorded(estimator, answer), None, y, **weights))
    return float(scorer(estimator, make_X(), y, **weights))


def take_answer(answer, rows):
    """Give some rows of an answer, which for several outputs may be a list of arrays."""
    if isinstance(answer, list):
        return [part[rows] for part in answer]
    return safe_indexing(answer, rows)


def mix_answers(answer, other, rows):
    """Give an answer with the rows in a mask taken from another one."""
    if isinstance(answer, list):
        return [mix_answers(part, alternative, rows) for part, alternative in zip(answer, other, strict=True)]
    answer = np.asarray(answer)
    return np.where(rows.reshape(-1, *[1] * (answer.ndim - 1)), other, answer)


def bootstrap_rows(y, rng, *, classes):
    """Draw as many rows with replacement; if y holds classes, as many of each as there are."""
    n_samples = len(y)
    # Numbers may look like classes, as counts do, so that y alone does not tell.
    if not classes or type_of_target(y) not in ("binary", "multiclass"):
        return rng.randint(n_samples, size=n_samples)
    _, codes = np.unique(np.asarray(y), return_inverse=True)
    rows = np.empty(n_samples, dtype=np.intp)
    for code in range(codes.max() + 1):
        own = np.flatnonzero(codes == code)
        rows[own] = rng.choice(own, size=len(own))
    return rows


def check_one_result(result, owner):
    """Raise if a drawing of one score is given the results of several."""
    if "score_name" not in result:
        raise ValueError(f"{owner} draws the result of one score, got {list(result)}; pass one of these.")
