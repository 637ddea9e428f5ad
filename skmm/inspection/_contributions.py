"""How much each modality moved the prediction of each row."""

import warnings
from numbers import Integral

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.parallel import Parallel, delayed

from .._sklearn import HasMethods, Interval, StrOptions, validate_params
from ._coalitions import shapley
from ._columns import ModalityColumns
from ._importance import cannot_predict, without

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
    estimator,
    X,
    *,
    modalities=None,
    response_method="auto",
    max_coalitions=1024,
    n_jobs=None,
    random_state=None,
):
    r"""Share out each row's prediction among its modalities.

    With :math:`f_r(S)` for the prediction of row :math:`r` if only the modalities :math:`S` are left, a modality's
    contribution is its Shapley value: the mean of :math:`f_r(S \cup i) - f_r(S)` over the orders in which the
    modalities may come in, with :math:`S` for those that are there before [1]_. Contributions sum to the prediction
    less that without any modality. A modality that is missing in a row contributes nothing, as taking it away changes
    nothing.

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
        What to explain. "auto" is the first of them that the estimator has, for regressors ``predict``. Labels cannot
        be shared out, so a classifier needs one of the first two.

    max_coalitions : int, default=1024
        Bound of the subsets of modalities that are tried. Values are exact where it covers all of them, as it does up
        to 10 modalities, else means over random orders.

    n_jobs : int or None, default=None
        Number of subsets predicted at the same time, in threads. None means 1.

    random_state : int, RandomState instance or None, default=None
        Seed of the orders, where they are drawn.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        With the following attributes. Probabilities have an axis of the classes at the end, as have scores of several
        classes and predictions of several outputs; with several labels it is the probabilities of the labels.

        modalities : list of str
            Names, in the order of the contributions.
        contributions : ndarray of shape (n_samples, n_modalities) or (n_samples, n_modalities, n_outputs)
            What each modality adds, in the units of the prediction.
        base : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Prediction without any modality; other columns of X may make it differ between rows.
        predictions : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Prediction with all modalities.
        response_method : str
            What was explained.

    Raises
    ------
    ValueError
        If a classifier has neither probabilities nor scores, if the estimator has no modalities and none are given,
        if two modalities share a column, or if the estimator fails where a modality is missing.

    See Also
    --------
    modality_importance : What each modality adds to a score over all rows.

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
    everyone, *others = coalitions.members
    predictions = _predict(everyone, estimator, columns, method)
    contributions = np.multiply.outer(coalitions.weights[0], predictions)
    base = None
    with warnings.catch_warnings():
        # A voter warns of rows that have no modality; here that is on purpose.
        warnings.filterwarnings("ignore", message=".*rows have no modality", category=UserWarning)
        # One by one, so that the predictions for all coalitions are never held together.
        answers = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
            delayed(_predict)(members, estimator, columns, method) for members in others
        )
        for members, weights, answer in zip(others, coalitions.weights[1:], answers, strict=True):
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
    wanted = _RESPONSES if response_method == "auto" else (response_method,)
    if is_classifier(estimator):
        wanted = [method for method in wanted if method != "predict"]
    found = [method for method in wanted if hasattr(estimator, method)]
    if not found:
        raise ValueError(
            f"{type(estimator).__name__} has no numbers to share out: response_method={response_method!r} needs "
            f"{' or '.join(wanted) or 'a regressor, since labels are no numbers'}."
        )
    return found[0]


def _predict(members, estimator, columns, method):
    """Give the predictions with only some modalities left, as floats."""
    absent = [name for name, member in zip(columns.names, members, strict=True) if not member]
    try:
        answer = getattr(estimator, method)(without(columns, members))
    except Exception as error:
        if not absent:
            raise
        raise cannot_predict(estimator, absent, error) from error
    if isinstance(answer, list):
        # Several labels; each has the probabilities of 0 and of 1.
        answer = np.column_stack([label[:, -1] for label in answer])
    return np.asarray(answer, dtype=np.float64)
