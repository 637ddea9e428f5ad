"""Members: one estimator per modality, fitted on and asked about the rows that have its modality."""

from copy import copy

import numpy as np
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch

from .._composition import consumed, join_lenient, part_steps, propagated, split_lenient
from .._sklearn import log_elapsed_time


class Member:
    """A fitted estimator of one modality.

    Parameters
    ----------
    name : str
        Name of the modality.

    estimator : estimator
        Fitted on the rows that have the modality; for a constant, one that says the same.

    prior : ndarray
        What the target says of the prior in these rows.

    labels : ndarray of int or None, default=None
        Labels of a multilabel target that the estimator was fitted on; None means all.

    constant : str or None, default=None
        Why the member always answers with its prior; None if it does not.

    numeric : bool, default=False
        Whether the estimator is a regressor, whose answers are numbers whatever the target is.
    """

    def __init__(self, name, estimator, prior, labels=None, constant=None, numeric=False):
        self.name = name
        self.estimator = estimator
        self.prior = prior
        self.labels = labels
        self.constant = constant
        self.numeric = numeric

    def respond(self, X, present, method, target):
        """Answer for present rows, aligned; NaN in the other rows."""
        width = len(target.suffixes(method, self.numeric))
        if self.constant:
            answers = np.tile(target.prior_answer(self.prior, method, self.numeric), (len(present), 1))
            return present.scatter(answers.reshape(len(present), width))
        *lead, last = split_lenient(self.estimator)
        own, inputs = copy(present), present.take(X)
        for part in lead:
            if len(own):
                inputs = own.narrow(own.call(part.transform, inputs))
        if len(own) == 0:
            return np.full((present.n_samples, width), np.nan)
        answers = own.call(getattr(last, method), inputs)
        answers = target.align(answers, last, method, self.labels, self.prior)
        return own.scatter(np.asarray(answers, dtype=float))


class MemberSpec(Bunch):
    """What it takes to fit one member: owner, name, estimator, X, params, numeric, calibration, verbose.

    X holds the columns of the modality for all rows and is never copied; rows are taken at the point of use.
    """


def fit_member(spec, y, weights, present, rows, target, step):
    """Fit a clone of a member on its present rows.

    Parameters
    ----------
    spec : MemberSpec
        The member, and the columns of its modality in all rows.

    y : ndarray
        Target of all rows.

    weights : ndarray of shape (n_samples,) or None
        Sample weights of all rows, for the prior.

    present : PresentRows
        Rows to fit on.

    rows : ndarray of int or slice
        Rows whose prior stands in for a member without any row.

    target : ClassTarget or RealTarget
        What y is.

    step : CallbackContext
        The step of the owner's fit that this is.

    Returns
    -------
    member : Member
        The fitted member.
    """
    estimator = clone(spec.estimator)
    parts = split_lenient(estimator)
    with part_steps(step, spec.owner, parts) as steps:
        return _fit_parts(spec, y, weights, present, rows, target, estimator, parts, steps)


def _fit_parts(spec, y, weights, present, rows, target, estimator, parts, steps):
    """Fit the parts of a clone of a member, and make a member of them again."""
    *lead, last = parts
    params = present.take_params(spec.X, spec.params)
    # What an encoder cannot read is missing for what follows it, as if it had never been there.
    present, inputs = copy(present), present.take(spec.X)
    for part, step in zip(lead, steps[:-1], strict=True):
        with propagated(step, spec.owner, part):
            if len(present):
                own = consumed(part, "fit_transform", params)
                inputs = present.narrow(present.call(part.fit_transform, inputs, present.take(y), **own))
    if lead:
        params = consumed(last, "fit", present.take_params(spec.X, spec.params))
    empty = len(present) == 0
    y_own = y[rows] if empty else present.take(y)
    w_own = None if weights is None else (weights[rows] if empty else present.take(weights))
    prior = target.prior(y_own, w_own)
    labels = target.varying(y_own)
    if empty or len(labels) == 0:
        reason = "no row" if empty else "only one class"
        with propagated(steps[-1], spec.owner, last):
            return Member(spec.name, target.stand_in(y_own), prior, constant=reason, numeric=spec.numeric)

    y_fit = target.to_fit(y_own, spec.estimator)
    if y_own.ndim == 1 or len(labels) == y_own.shape[1]:
        labels = None
    else:
        y_fit = y_fit[:, labels[0]] if len(labels) == 1 else y_fit[:, labels]
    if spec.calibration is not None:
        last = present.call(calibrated, last, spec.calibration, y_fit)
    message = f"modality {spec.name}" if spec.verbose else None
    with log_elapsed_time(type(spec.owner).__name__, message), propagated(steps[-1], spec.owner, last):
        present.call(last.fit, inputs, y_fit, **params)
    if not lead:
        estimator = last
    elif spec.calibration is not None:
        estimator = Pipeline([*(step for part in lead for step in part.steps), ("calibrated", last)])
    else:
        estimator = join_lenient(estimator, [*lead, last])
    return Member(spec.name, estimator, prior, labels, numeric=spec.numeric)


def fit_and_respond(spec, y, weights, present, train, test, method, target, step):
    """Fit a member on the present rows of a fold; give its answers for the rows left out, and why it is constant."""
    member = fit_member(spec, y, weights, present.within(train), train, target, step)
    return member.respond(spec.X, present.within(test), method, target)[test], member.constant


def calibrated(estimator, method, y=None):
    """Wrap a member for calibration on its own rows: five folds, or as many as the rarest class has rows."""
    cv = 5
    if y is not None:
        classes, counts = np.unique(y, return_counts=True)
        cv = min(5, int(counts.min()))
        if cv < 2:
            if method == "temperature":
                raise ValueError(
                    f"calibration='temperature' needs at least 2 rows of each class, got 1 of "
                    f"{classes[counts == 1].tolist()}; use 'sigmoid' or 'isotonic'."
                )
            # A plain number is refused by CalibratedClassifierCV if a class cannot be in every fold.
            cv = list(StratifiedKFold(2).split(np.zeros(len(y)), y))
    return CalibratedClassifierCV(estimator, method=method, cv=cv)


def check_partition(splits, n_samples, owner):
    """Raise unless every row is left out exactly once."""
    left_out = np.sort(np.concatenate([test for _, test in splits]))
    if not np.array_equal(left_out, np.arange(n_samples)):
        raise ValueError(
            f"{owner}: cv must leave out every row exactly once, as KFold does, but its {len(splits)} splits leave "
            f"out {len(np.unique(left_out))} of {n_samples} rows, {len(left_out)} times in all."
        )
