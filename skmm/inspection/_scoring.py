"""Scores from recorded predictions: an estimator predicts once, and any rows of its predictions can be scored."""

import warnings

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.parallel import delayed

from .._sklearn import BaseScorer, StrOptions, safe_indexing
from .._threads import parallel_results

SCORING = [StrOptions(set(get_scorer_names())), callable, list, tuple, dict, None]
_METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


class Answers:
    """Predictions of a fitted estimator for the rows of X, by the name of the method, computed at the first call."""

    def __init__(self, estimator, make_X, predict=None):
        self.estimator = estimator
        self._make_X = make_X
        self._predict = predict or (lambda method: getattr(estimator, method)(make_X()))
        self._answers = {}

    def __call__(self, method):
        if method not in self._answers:
            self._answers[method] = self._predict(method)
        return self._answers[method]

    def take(self, rows):
        """Return the predictions for some rows, without predicting again."""
        return Answers(
            self.estimator,
            lambda: safe_indexing(self._make_X(), rows, axis=0),
            lambda method: _take(self(method), rows),
        )

    def mix(self, other, rows, make_X):
        """Return the predictions with the rows of a mask from those for another X; ``make_X`` mixes both."""
        return Answers(self.estimator, make_X, lambda method: _mix(self(method), other(method), rows))

    def score(self, scorer, y, sample_weight):
        """Return the score: scikit-learn's scorers read these predictions, others get the estimator and X."""
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        if isinstance(scorer, BaseScorer):
            return float(scorer(_Recorded(self.estimator, self), None, y, **weights))
        return float(scorer(self.estimator, self._make_X(), y, **weights))


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
    """Return a dict of scorers, with scikit-learn's meaning of ``scoring``; "score" is one that has no name."""
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


def _take(answer, rows):
    """Return some rows of an answer, which for several outputs may be a list of arrays."""
    return [output[rows] for output in answer] if isinstance(answer, list) else safe_indexing(answer, rows)


def _mix(answer, other, rows):
    """Return an answer with the rows of a mask from another answer."""
    if isinstance(answer, list):
        return [_mix(first, second, rows) for first, second in zip(answer, other, strict=True)]
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


def in_threads(n_jobs, function, arguments):
    """Yield ``function(*args)`` for each of the arguments, in order; results need not be in memory together."""
    with warnings.catch_warnings():
        # Voters warn of rows without any modality, which are intended here.
        warnings.filterwarnings("ignore", message=".*rows have no modality", category=UserWarning)
        tasks = (delayed(function)(*args) for args in arguments)
        yield from parallel_results(tasks, n_jobs=n_jobs, prefer="threads")


def cannot_predict(estimator, removed, error, remedy=""):
    """Return the error for an estimator that fails where modalities are missing."""
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    return ValueError(
        f"{type(estimator).__name__} cannot predict with the modalities {removed} missing ({reason}); {remedy}put the "
        "modalities into a composite that handles missing ones, such as ModalityFuser."
    )


def check_one_result(result, owner):
    """Raise if a drawing of one score gets the results of several."""
    if "score_name" not in result:
        raise ValueError(f"{owner} draws the result of one score, got {list(result)}; pass one of these.")
