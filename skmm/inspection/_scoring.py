"""Scores from recorded predictions: an estimator predicts once, and any rows of its predictions can be scored."""

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import type_of_target

from .._sklearn import BaseScorer, StrOptions, safe_indexing

SCORING = [StrOptions(set(get_scorer_names())), callable, list, tuple, dict, None]
_METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


class Answers:
    """Predictions of a fitted estimator for all rows of X, by each method, computed at the first call.

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
        self._answers = {}

    def __call__(self, method):
        """Return the output of a method, by its name."""
        if method not in self._answers:
            self._answers[method] = getattr(self.estimator, method)(self.X)
        return self._answers[method]


class _Recorded:
    """Stands for an estimator in a scorer, and returns recorded answers, whatever X is."""

    def __init__(self, estimator, answer):
        self._estimator = estimator
        self._answer = answer

    def __getattr__(self, name):
        attribute = getattr(self._estimator, name)
        if name not in _METHODS:
            return attribute

        def method(X):
            return self._answer(name)

        # Scorers read the name of a method.
        method.__name__ = name
        return method


def resolve_scorers(estimator, scoring):
    """Return the scorers by name, with scikit-learn's meaning of ``scoring``.

    Parameters
    ----------
    estimator : estimator
        Fitted.

    scoring : str, callable, list, tuple, dict or None
        One scorer, or several.

    Returns
    -------
    scorers : dict of str to callable
        A single scorer has its string as name, or "score".
    """
    if isinstance(scoring, dict):
        return {name: check_scoring(estimator, scorer) for name, scorer in scoring.items()}
    if isinstance(scoring, (list, tuple)):
        return {name: get_scorer(name) for name in scoring}
    if scoring is None:
        scoring = _usual_scoring(estimator)
    return {scoring if isinstance(scoring, str) else "score": check_scoring(estimator, scoring)}


def has_several(scoring):
    """Tell whether ``scoring`` names several scores, which have one result each."""
    return isinstance(scoring, (list, tuple, dict))


def _usual_scoring(estimator):
    """Return the name of the scorer that equals an estimator's ``score``; None if there is none."""
    if isinstance(estimator, Pipeline):
        return _usual_scoring(estimator.steps[-1][1])
    if hasattr(estimator, "best_estimator_"):
        scorer = estimator.scorer_
        return scorer if isinstance(scorer, BaseScorer) else _usual_scoring(estimator.best_estimator_)
    score = getattr(type(estimator), "score", None)
    return {ClassifierMixin.score: "accuracy", RegressorMixin.score: "r2"}.get(score)


def score(scorer, estimator, answer, make_X, y, sample_weight):
    """Score an estimator on some rows.

    Parameters
    ----------
    scorer : callable
        A scorer of scikit-learn receives recorded answers; any other receives the estimator and X.

    estimator : estimator
        Fitted.

    answer : callable
        Returns the answers for the rows, by the name of the method.

    make_X : callable
        Returns the rows of X.

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
    """Return some rows of an answer, which for several outputs may be a list of arrays."""
    if isinstance(answer, list):
        return [output[rows] for output in answer]
    return safe_indexing(answer, rows)


def mix_answers(answer, other, rows):
    """Return an answer with the rows of a mask from another answer."""
    if isinstance(answer, list):
        return [mix_answers(first, second, rows) for first, second in zip(answer, other, strict=True)]
    answer = np.asarray(answer)
    return np.where(rows.reshape(-1, *[1] * (answer.ndim - 1)), other, answer)


def bootstrap_rows(y, rng, *, classes):
    """Return as many rows, drawn with replacement; if y holds classes, each class keeps its number of rows."""
    n_samples = len(y)
    # Numbers such as counts look like classes, so y alone does not tell.
    if not classes or type_of_target(y) not in ("binary", "multiclass"):
        return rng.randint(n_samples, size=n_samples)
    _, codes = np.unique(np.asarray(y), return_inverse=True)
    rows = np.empty(n_samples, dtype=np.intp)
    for code in range(codes.max() + 1):
        members = np.flatnonzero(codes == code)
        rows[members] = rng.choice(members, size=len(members))
    return rows


def check_one_result(result, owner):
    """Raise if a drawing of one score gets the results of several."""
    if "score_name" not in result:
        raise ValueError(f"{owner} draws the result of one score, got {list(result)}; pass one of these.")
