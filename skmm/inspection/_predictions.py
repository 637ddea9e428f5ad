"""Importance and robustness from predictions that are there already, whatever made them."""

import numpy as np
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import Bunch, check_consistent_length, check_random_state
from sklearn.utils.multiclass import type_of_target

from .._sklearn import check_sample_weight, safe_indexing
from ._coalitions import shapley
from ._importance import assemble
from ._robustness import check_shares, first_rows
from ._scoring import bootstrap_rows, mix_answers

_CLASSES = ("binary", "multiclass")


class _Metric:
    """A metric of y and predictions, for any rows of them."""

    def __init__(self, metric, y_true, y_pred, sample_weight):
        own, said = type_of_target(y_true), "multiclass" if np.ndim(y_pred) == 2 else type_of_target(y_pred)
        # Numbers may look like classes, but hardly so if they are floats, or if what is predicted lies between them.
        whole = np.asarray(y_true).dtype.kind != "f"
        self.classes = own == "binary" or (whole and own in _CLASSES and said in _CLASSES)
        self.metric = metric or (accuracy_score if self.classes else r2_score)
        self.name = getattr(self.metric, "__name__", "score").removesuffix("_score")
        self.y_true = y_true
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, np.empty(len(y_true)))
        self.sample_weight = sample_weight

    def __call__(self, y_pred, rows=None):
        if rows is None:
            rows = np.arange(len(self.y_true))
        weights = {} if self.sample_weight is None else {"sample_weight": self.sample_weight[rows]}
        return float(self.metric(safe_indexing(self.y_true, rows), safe_indexing(y_pred, rows), **weights))


def importance_of_predictions(y_true, predictions, metric, n_repeats, sample_weight, random_state):
    """Give the Shapley values of modalities, of which each subset has predictions.

    Parameters are those of :meth:`ModalityImportanceDisplay.from_predictions`.

    Returns
    -------
    result : Bunch
        As :func:`modality_importance` gives it.
    """
    by_members = {
        frozenset([members] if isinstance(members, str) else members): np.asarray(y_pred)
        for members, y_pred in predictions.items()
    }
    check_consistent_length(y_true, *by_members.values())
    names = list(dict.fromkeys(n for key in predictions for n in ([key] if isinstance(key, str) else key)))
    rng = check_random_state(random_state)
    coalitions = shapley(len(names), True, 2 ** len(names), rng)
    subsets = [tuple(name for name, there in zip(names, row, strict=True) if there) for row in coalitions.members]
    absent = [subset for subset in subsets if frozenset(subset) not in by_members]
    if absent:
        raise ValueError(
            f"Shapley values of {names} need predictions from every subset of them, () included; "
            f"{absent} are not among the predictions."
        )
    score = _Metric(metric, y_true, by_members[frozenset(names)], sample_weight)
    draws = [None, *(bootstrap_rows(y_true, rng, classes=score.classes) for _ in range(n_repeats))]
    values = np.array([[score(by_members[frozenset(subset)], rows) for rows in draws] for subset in subsets])
    return assemble(names, "shapley", score.name, coalitions, [coalitions.weights] * n_repeats, values)


def curve_of_predictions(y_true, y_pred, lost, metric, shares, n_repeats, sample_weight, random_state):
    """Give scores as a growing share of the rows has the predictions without some modalities.

    Parameters are those of :meth:`MissingModalityCurveDisplay.from_predictions`.

    Returns
    -------
    result : Bunch
        As :func:`missing_modality_curve` gives it.
    """
    y_pred, lost = np.asarray(y_pred), {name: np.asarray(other) for name, other in lost.items()}
    check_consistent_length(y_true, y_pred, *lost.values())
    shares = check_shares(shares)
    score = _Metric(metric, y_true, y_pred, sample_weight)
    n_samples, rng = len(y_pred), check_random_state(random_state)
    orders = [rng.permutation(n_samples) for _ in range(n_repeats)]
    scores = np.array(
        [
            [[score(mix_answers(y_pred, other, first_rows(order, share))) for order in orders] for share in shares]
            for other in lost.values()
        ]
    )
    return Bunch(
        curves=list(lost),
        shares=shares,
        scores=scores,
        scores_mean=scores.mean(axis=-1),
        scores_std=scores.std(axis=-1),
        corruption="remove",
        score_name=score.name,
    )
