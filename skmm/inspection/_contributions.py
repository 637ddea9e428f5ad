"""How much each modality moved the prediction of each row."""

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import Bunch, check_random_state

from .._sklearn import HasMethods, Interval, StrOptions, validate_params
from .._typing import RandomState, Table
from ._coalitions import shapley
from ._columns import ModalityColumns
from ._scoring import cannot_predict, in_threads

_RESPONSES = ("predict_proba", "decision_function", "predict")


@validate_params(
    {
        "estimator": [HasMethods(["fit"])],
        "modalities": [dict, None],
        "response_method": [StrOptions({"auto", *_RESPONSES})],
        "max_coalitions": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def modality_contributions(
    estimator: Any,
    X: Table,
    *,
    modalities: dict | None = None,
    response_method: str = "auto",
    max_coalitions: int = 1024,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> Bunch:
    r"""Attribute each row's prediction to its modalities.

    With :math:`f_r(S)` for the prediction of row :math:`r` where only the modalities :math:`S` are present, a
    modality's contribution is its Shapley value: the mean of :math:`f_r(S \cup i) - f_r(S)` over the orders in which
    modalities can join, with :math:`S` for those that joined earlier [1]_. Contributions sum to the prediction
    minus the prediction without any modality. A modality that is missing in a row contributes nothing, because removing
    it changes nothing.

    Parameters
    ----------
    estimator : estimator
        Fitted on all modalities, and able to predict with some missing.

    X : DataFrame or array-like of shape (n_samples, n_features)
        Rows to explain.

    modalities : dict of str to columns, default=None
        Columns of each modality, as in :func:`modality_importance`. None means the modalities of the
        estimator, or of the first step of a pipeline.

    response_method : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        Method whose output is explained. "auto" is the first of them that the estimator has, for regressors
        ``predict``. Labels are no numbers, so a classifier needs one of the first two.

    max_coalitions : int, default=1024
        Largest number of subsets of modalities to predict with. If it covers all subsets, as it does up to 10
        modalities, values are exact; otherwise they are means over random orders.

    n_jobs : int or None, default=None
        Number of subsets predicted at the same time, in threads. None means 1.

    random_state : int, RandomState instance or None, default=None
        Seed of the random orders.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        With the following attributes. Probabilities and scores of several classes have a last axis of classes, and
        predictions of several outputs one of outputs. With several labels, the last axis has each label's probability.

        modalities : list of str
            Names, in the order of the contributions.
        contributions : ndarray of shape (n_samples, n_modalities) or (n_samples, n_modalities, n_outputs)
            Contribution of each modality, in the units of the prediction.
        base : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Prediction without any modality. It can differ between rows if X has columns of no modality.
        predictions : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Prediction with all modalities.
        response_method : str
            Method whose output was explained.

    Raises
    ------
    ValueError
        If a classifier has neither probabilities nor scores, if neither the estimator nor ``modalities`` names
        modalities, if two modalities share a column, or if the estimator fails where a modality is missing.

    See Also
    --------
    modality_importance : Contribution of each modality to a score over all rows.

    References
    ----------
    .. [1] L. S. Shapley, "A value for n-person games", Contributions to the Theory of Games II (1953).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from skmm import ModalityVotingRegressor
    >>> from skmm.inspection import modality_contributions
    >>> X = np.array([[0.0, 0.0], [2.0, 4.0], [4.0, np.nan]])
    >>> vote = ModalityVotingRegressor([("a", LinearRegression(), [0]), ("b", LinearRegression(), [1])])
    >>> result = modality_contributions(vote.fit(X, [1.0, 2.0, 7.0]), X)
    >>> result.base.round(2), result.predictions.round(2)
    (array([3.33, 3.33, 3.33]), array([0.67, 2.67, 6.33]))
    >>> result.contributions.round(2)
    array([[-1.67, -1.  ],
           [ 0.33, -1.  ],
           [ 3.  ,  0.  ]])
    """
    columns = ModalityColumns(estimator, X, modalities)
    method = _choose_response(estimator, response_method)
    coalitions = shapley(len(columns.names), False, max_coalitions, check_random_state(random_state))
    all_modalities, *subsets = coalitions.members
    predictions = _predict(all_modalities, estimator, columns, method)
    contributions = np.multiply.outer(coalitions.weights[0], predictions)
    base = None
    answers = in_threads(n_jobs, _predict, ((members, estimator, columns, method) for members in subsets))
    for members, weights, answer in zip(subsets, coalitions.weights[1:], answers, strict=True):
        for i in np.flatnonzero(weights):
            contributions[i] += weights[i] * answer
        if not members.any():
            base = answer
    return Bunch(
        modalities=columns.names,
        contributions=np.moveaxis(contributions, 0, 1),
        base=base,
        predictions=predictions,
        response_method=method,
    )


def _choose_response(estimator, response_method):
    """Return the name of the method whose output is explained."""
    methods = _RESPONSES if response_method == "auto" else (response_method,)
    if is_classifier(estimator):
        methods = [method for method in methods if method != "predict"]
    available = [method for method in methods if hasattr(estimator, method)]
    if not available:
        raise ValueError(
            f"{type(estimator).__name__} has no numbers to attribute: response_method={response_method!r} needs "
            f"{' or '.join(methods) or 'a regressor, since labels are no numbers'}."
        )
    return available[0]


def _predict(members, estimator, columns, method):
    """Return the predictions where only some modalities are present, as floats."""
    try:
        answer = getattr(estimator, method)(columns.only(members))
    except Exception as error:
        if members.all():
            raise
        raise cannot_predict(estimator, columns.left_out(members), error) from error
    if isinstance(answer, list):
        # One array for each label, with the probabilities of 0 and of 1.
        answer = np.column_stack([label[:, -1] for label in answer])
    return np.asarray(answer, dtype=np.float64)
