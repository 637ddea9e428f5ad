"""Voting over modalities: each member votes with what it sees, or abstains."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from sklearn import get_config
from sklearn.base import ClassifierMixin, RegressorMixin, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.metaestimators import available_if

from .._sklearn import StrOptions
from .._typing import Modalities, Table
from ._base import DecisionComposition, grouped_splits
from ._combine import (
    combine,
    learn_exponents,
    learn_weights,
    log_loss_of_mean,
    log_loss_of_product,
    log_ratios,
    mean,
    median,
    row_weights,
    squared_error,
)

_CALIBRATIONS = ("sigmoid", "isotonic", "temperature")


class ModalityVoting(DecisionComposition):
    """Base of the voters: weights, answers of members, names."""

    _parameter_constraints: dict = {
        "modalities": [list, tuple, StrOptions({"auto"})],
        "weights": ["array-like", dict, StrOptions({"auto"}), None],
        "cv": ["cv_object"],
        "n_jobs": [Integral, None],
        "verbose": ["boolean"],
    }

    def _fixed_weights(self):
        """Return the weights of active members that the parameter sets, or None for "auto"."""
        owner, active = type(self).__name__, self._active()
        weights = self.weights
        if isinstance(weights, str):
            return None
        if weights is None:
            return np.full(len(active), 1 / len(active))
        names = [name for name, _, _ in self._entries]
        if isinstance(weights, dict):
            unknown, missing = set(weights) - set(names), set(active) - set(weights)
            if unknown or missing:
                raise ValueError(
                    f"{owner}: weights need one entry for each of the modalities {active}, got {weights!r}; "
                    f"add {sorted(missing)} and remove {sorted(unknown, key=str)}."
                )
        elif len(weights) != len(names):
            raise ValueError(
                f"{owner}: weights need one entry for each of the {len(names)} modalities, got {len(weights)}."
            )
        else:
            weights = dict(zip(names, weights, strict=True))
        chosen = [weights[name] for name in active]
        if not all(isinstance(weight, Real) for weight in chosen):
            raise TypeError(f"{owner}: weights must be numbers, one for each modality, got {self.weights!r}.")
        chosen = np.array(chosen, dtype=float)
        if not np.isfinite(chosen).all() or (chosen < 0).any() or chosen.sum() == 0:
            raise ValueError(
                f"{owner}: weights must be finite and not negative, with a sum above 0, got {self.weights!r}."
            )
        return chosen / chosen.sum()

    def _fit(self, X, y, sample_weight, groups, params):
        data = self._begin(X, y, sample_weight, groups, params)
        self._check_voting_members()
        weights = self._fixed_weights()
        routed = self._route(data, params)
        splits = self._splits(data, routed) if weights is None else ()
        progress = self._begin_progress(data, splits)
        answers, present = self._fit_members(data, routed, splits, progress)
        if weights is None:
            # A row that no member answers says nothing about the weights.
            row_counts = np.ones(len(data.y)) if data.weights is None else data.weights
            row_counts = row_counts * present.any(axis=0)
            n_members = len(present)
            weights = np.full(n_members, 1 / n_members)
            if row_counts.any():
                weights = self._learn_weights(answers, present, data.y, row_counts)
        self.weights_ = dict(zip(self._active(), weights.tolist(), strict=True))
        progress.call_on_fit_task_end(estimator=self, X=data.X, y=data.y)
        return self

    def _weight_array(self):
        """Return the weights of the members as an array."""
        return np.array(list(self.weights_.values()))

    def _check_voting_members(self):
        """Check the members against the parameters of the voter."""

    def transform(self, X: Table) -> np.ndarray:
        """Return the members' answers side by side.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        answers : ndarray of shape (n_samples, n_features_out)
            Probabilities, votes as positions in ``classes_`` (``voting="hard"``), or predicted numbers;
            NaN where a member abstains.
        """
        _, answers, _ = self._respond(X)
        return np.hstack(answers)

    def _output_names(self):
        return [name for member in self._members for name in self._answer_names(member)]


class ModalityVotingClassifier(ClassifierMixin, ModalityVoting):
    """Classify by the votes of one classifier per modality, each on its own columns.

    With probabilities :math:`p_m(c)` of member m, weights :math:`w_m` that sum to 1 over the members
    present in the row, and class frequencies :math:`\\pi(c)`, the rules are

    - ``"soft"``: :math:`\\sum_m w_m p_m(c)`;
    - ``"hard"``: :math:`\\sum_m w_m [c = \\arg\\max p_m]`, the share of votes;
    - ``"product"``: :math:`\\pi(c) \\prod_m (p_m(c) / \\pi_m(c))^{e_m}` with :math:`e_m = s w_m / \\sum_k w_k^2`, a
      product of experts. With equal weights and :math:`s = 1` every :math:`e_m` is 1, and it is Bayes' rule for
      modalities that are independent given the class;
    - ``"max"``: :math:`\\max_m w_m p_m(c)`;
    - ``"median"``: the weighted median of :math:`p_m(c)`;
    - ``"rank"``: :math:`\\sum_m w_m r_m(c)`, with the rank of the class in the member's order, 0 for the last
      (Borda count).

    All but ``"hard"`` are normalised to sum to 1 over the classes.

    Parameters
    ----------
    modalities : list of (str, classifier, columns) or "auto", default="auto"
        "auto" finds out at ``fit`` which modalities the columns of X hold, and chooses a transformer for each
        (:func:`~skmm.infer_modalities`), with a linear model behind it. In a triple:

        - name: unique, without ``__``;
        - classifier: an estimator with ``fit``, ``predict`` and, unless ``voting="hard"``,
          ``predict_proba``; often a pipeline that begins with an encoder. ``"drop"`` leaves it out;
        - columns: name, position, list of these, slice, mask or callable, as in
          :class:`~sklearn.compose.ColumnTransformer`. Two modalities may select the same columns.

    voting : {"soft", "hard", "product", "max", "median", "rank"}, default="soft"
        How probabilities or votes are combined.

    weights : list of float, dict of str to float, "auto" or None, default=None
        Weight of each modality, by position or by name; None means equal ones. ``"auto"`` learns
        them from out-of-fold answers by minimising, over non-negative weights of sum 1, the squared error of the
        shares of votes for ``"hard"`` (where a member that knows nothing keeps some weight, since shares gain from
        hedging) and the log loss of the weighted mean for the other rules. For ``"product"`` it learns the
        exponents, by the log loss of the product; it hardly depends on the exponent of a member that knows
        nothing, so such a member is not always found out there.

    calibration : {"sigmoid", "isotonic", "temperature"}, dict or None, default=None
        Method of :class:`~sklearn.calibration.CalibratedClassifierCV` for all members, or by name for some of
        them. It is fitted with 5-fold cross-validation within the member's rows, and gives probabilities
        to members that have only a ``decision_function``. "temperature" needs two rows of each class: a member
        without them is calibrated by "sigmoid", with a warning.

    cv : int, splitter, iterable or None, default=None
        Splits of all rows for ``weights="auto"``, as in :class:`~sklearn.model_selection.GridSearchCV`. With
        ``groups`` in ``fit``, a number makes folds that keep groups together.

    n_jobs : int or None, default=None
        Number of jobs over modalities and folds. None means 1 unless in a :obj:`joblib.parallel_config` context, -1
        all processors. Jobs are threads, which share the data and the weights of encoders, unless such a context
        says otherwise.

    verbose : bool, default=False
        Whether to say which modality is being fitted, and how long it took.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or list of ndarray
        Classes in all rows; for several labels, one array per label.

    weights_ : dict of str to float
        Weight of each member, of sum 1.

    sharpness_ : float
        Factor s on the exponents of the product: below 1 if members are too sure of themselves, or repeat each
        other. Learned by ``weights="auto"`` for ``voting="product"``, else 1.

    modalities_ : list of (str, classifier, columns)
        The fitted members, without what is dropped.

    named_modalities_ : Bunch
        The fitted members by name.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ModalityStackingClassifier : Learns how to combine the members.
    ModalityFuser : Joins features in place of decisions.
    sklearn.ensemble.VotingClassifier : Members that all see the same columns.

    Notes
    -----
    **Missing modalities.** A member abstains in rows in which all its columns are missing: it is neither
    fitted on them nor asked, and the weights of the others are scaled up. If all members present in a row have
    weight 0, they count equally. A row without any modality gets the class frequencies of the training
    data, with one warning that says how many there are. ``"product"`` divides by the frequencies in
    the rows that a member was fitted on, so that it holds where classes differ in how often a modality is
    missing.

    **Classes.** Members see the classes of their own rows; answers are aligned to ``classes_``. A class that a
    member has never seen has probability 0 there, and a ratio of 1 in the product. A member with one class
    in its rows always votes for it, one without any row for the prior, with one warning.

    **Several labels.** y may be a matrix of 0 and 1. The rules then apply to each label, and
    ``predict_proba`` gives a list with one array per label, as trees do. Members take such a y or are wrapped in
    :class:`~sklearn.multioutput.MultiOutputClassifier`; calibration is not possible.

    Probabilities are floored at 2e-16 in the product. ``"rank"`` shares are no calibrated probabilities.

    References
    ----------
    .. [1] Kittler, Hatef, Duin, Matas (1998). "On combining classifiers". IEEE Transactions on Pattern
       Analysis and Machine Intelligence 20(3).
    .. [2] Hinton (2002). "Training products of experts by minimizing contrastive divergence". Neural
       Computation 14(8).

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import MultinomialNB
    >>> from sklearn.pipeline import make_pipeline
    >>> from skmm import ModalityVotingClassifier
    >>> X = pd.DataFrame(
    ...     {
    ...         "caption": ["red fox", "grey fox", None, "red hen", "white hen", "small hen"],
    ...         "weight": [6.0, 5.5, 7.0, 1.5, None, 2.0],
    ...     }
    ... )
    >>> y = ["mammal", "mammal", "mammal", "bird", "bird", "bird"]
    >>> vote = ModalityVotingClassifier(
    ...     [
    ...         ("text", make_pipeline(TfidfVectorizer(), MultinomialNB()), "caption"),
    ...         ("table", LogisticRegression(), ["weight"]),
    ...     ],
    ...     voting="product",
    ... ).fit(X, y)
    >>> vote.predict(pd.DataFrame({"caption": ["a hen", None], "weight": [None, 8.0]})).tolist()
    ['bird', 'mammal']
    >>> vote.predict_by_modality(X[2:5])
          text   table
    2     None  mammal
    3     bird    bird
    4     bird    None
    """

    _parameter_constraints: dict = {
        **ModalityVoting._parameter_constraints,
        "voting": [StrOptions({"soft", "hard", "product", "max", "median", "rank"})],
        "calibration": [StrOptions(set(_CALIBRATIONS)), dict, None],
    }

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        voting: Literal["soft", "hard", "product", "max", "median", "rank"] = "soft",
        *,
        weights: Sequence[float] | Mapping[str, float] | Literal["auto"] | None = None,
        calibration: str | Mapping[str, str | None] | None = None,
        cv: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ):
        self.modalities = modalities
        self.voting = voting
        self.weights = weights
        self.calibration = calibration
        self.cv = cv
        self.n_jobs = n_jobs
        self.verbose = verbose

    def predict(self, X: Table) -> np.ndarray:
        """Predict classes.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Classes; of equals the first.
        """
        combined = self._combined(X)
        return self._target.decode(np.argmax(combined, axis=-1))

    @available_if(lambda self: self.voting != "hard")
    def predict_proba(self, X: Table) -> np.ndarray | list[np.ndarray]:
        """Predict the combined distribution over classes; not available for ``voting="hard"``.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes) or list of ndarray of shape (n_samples, 2)
            Probabilities in the order of ``classes_``; for several labels, one array per label.
        """
        combined = self._combined(X)
        return self._target.public_proba(combined)

    def _fit(self, *args):
        # Only the product learns another one.
        self.sharpness_ = 1.0
        return super()._fit(*args)

    def _combined(self, X):
        _, answers, present = self._respond(X)
        self._warn_without_modality(present)
        priors = np.array([member.prior for member in self._members])
        return combine(
            self.voting, self._cubes(answers), present, self._weight_array(), priors, self._prior, self.sharpness_
        )

    def _cubes(self, answers):
        method = self._method_of(None)
        return np.array([self._target.cube(answer, method) for answer in answers])

    def _method_of(self, name):
        return "predict" if self.voting == "hard" else "predict_proba"

    def _learn_weights(self, answers, present, y, row_counts):
        P, codes = self._cubes(answers), self._target.encode(y)
        if self.voting == "hard":
            loss = squared_error(P, self._target.one_hot(codes), present, row_counts)
        elif self.voting == "product":
            priors = np.array([member.prior for member in self._members])
            loss = log_loss_of_product(log_ratios(P, present, priors), codes, self._prior, row_counts)
            weights, self.sharpness_ = learn_exponents(loss, len(P))
            return weights
        else:
            loss = log_loss_of_mean(P, codes, present, row_counts)
        return learn_weights(loss, len(P), present.any(axis=1))

    def _calibration_of(self, name):
        """Return the method by which a member is calibrated, or None."""
        return self.calibration.get(name) if isinstance(self.calibration, dict) else self.calibration

    def _as_fitted(self, name, member):
        method = self._calibration_of(name)
        if method is None:
            return member
        calibrated = CalibratedClassifierCV(member, method=method)
        if get_config()["enable_metadata_routing"]:
            # It passes weights on to the member, so it requests them if the member does.
            router = MetadataRouter(owner=self).add(
                member=member, method_mapping=MethodMapping().add(caller="fit", callee="fit")
            )
            requested = "sample_weight" in router.consumes("fit", ["sample_weight"])
            calibrated.set_fit_request(sample_weight=requested)
        return calibrated

    def _calibrate(self, name, stage, y, groups):
        method = self._calibration_of(name)
        if method is None:
            return stage, None
        n_folds, rare_classes = _calibration_folds(y, groups)
        unit = "row" if groups is None else "group"
        reason = f"only one {unit} of each of the classes {rare_classes}" if rare_classes else None
        if groups is not None:
            cv = grouped_splits(n_folds, y, groups, True, f"calibration={method!r}")
        elif rare_classes:
            # CalibratedClassifierCV refuses a number of folds if a class cannot be in each of them.
            cv = list(StratifiedKFold(n_folds).split(np.zeros(len(y)), y))
        else:
            cv = n_folds
        if method != "temperature" or not rare_classes:
            return CalibratedClassifierCV(stage, method=method, cv=cv), None
        return CalibratedClassifierCV(stage, method="sigmoid", cv=cv), reason

    def _check_voting_members(self):
        owner = type(self).__name__
        if isinstance(self.calibration, dict):
            names = [name for name, _, _ in self._entries]
            wrong = {
                name: method
                for name, method in self.calibration.items()
                if name not in names or method not in (*_CALIBRATIONS, None)
            }
            if wrong:
                raise ValueError(
                    f"{owner}: calibration maps names among {names} to one of {list(_CALIBRATIONS)} or None, "
                    f"got {wrong!r}."
                )
        for name, member in self._active_members():
            if is_regressor(member):
                raise ValueError(
                    f"{owner}: modality {name!r} needs a classifier, got {type(member).__name__}; "
                    "regressors may be members of ModalityStackingClassifier."
                )
            calibration = self._calibration_of(name)
            if calibration is not None and self._target.multilabel:
                raise ValueError(
                    f"{owner}: calibration={calibration!r} of modality {name!r} takes one class per row, got y with "
                    f"{len(self._target.classes)} labels; leave it out."
                )
            method = self._method_of(name)
            if calibration is None and not hasattr(member, method):
                raise TypeError(
                    f"{owner}: modality {name!r} needs predict_proba for voting={self.voting!r}, which "
                    f"{type(member).__name__} does not have; set calibration={{{name!r}: 'sigmoid'}}, or voting='hard'."
                )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self._takes_labels()
        return tags


def _calibration_folds(y, groups):
    """Return the number of folds to calibrate on, and the classes that have too few rows or groups for two folds.

    Five folds, or as many as the rarest class has rows, with groups as many as it has groups; two at the least.
    """
    counts = {}
    for label in np.unique(y).tolist():
        rows = y == label
        counts[label] = int(rows.sum()) if groups is None else len(np.unique(groups[rows]))
    n_folds = max(2, min(5, *counts.values()))
    return n_folds, [label for label, count in counts.items() if count < 2]


class ModalityVotingRegressor(RegressorMixin, ModalityVoting):
    """Predict numbers by the weighted mean or median of one regressor per modality, each on its own columns.

    With predictions :math:`f_m` and weights :math:`w_m` that sum to 1 over the members present in the row,
    it predicts :math:`\\sum_m w_m f_m`, or the weighted median of :math:`f_m`.

    Parameters
    ----------
    modalities : list of (str, regressor, columns) or "auto", default="auto"
        "auto" finds out at ``fit`` which modalities the columns of X hold, and chooses a transformer for each
        (:func:`~skmm.infer_modalities`), with a linear model behind it. In a triple:

        As for :class:`ModalityVotingClassifier`, with estimators that have ``fit`` and ``predict``.

    voting : {"mean", "median"}, default="mean"
        How predictions are combined.

    weights : list of float, dict of str to float, "auto" or None, default=None
        Weight of each modality, by position or by name; None means equal ones. ``"auto"`` learns
        them from out-of-fold predictions by minimising the squared error of their weighted mean over
        non-negative weights of sum 1 (stacked regression); outputs count in units of their standard deviation.

    cv : int, splitter, iterable or None, default=None
        Splits of all rows for ``weights="auto"``, as for :class:`ModalityVotingClassifier`.

    n_jobs : int or None, default=None
        Number of jobs over modalities and folds, as for :class:`ModalityVotingClassifier`.

    verbose : bool, default=False
        Whether to say which modality is being fitted, and how long it took.

    Attributes
    ----------
    weights_ : dict of str to float
        Weight of each member, of sum 1.

    modalities_ : list of (str, regressor, columns)
        The fitted members, without what is dropped.

    named_modalities_ : Bunch
        The fitted members by name.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ModalityStackingRegressor : Learns how to combine the members.
    sklearn.ensemble.VotingRegressor : Members that all see the same columns.

    Notes
    -----
    Missing modalities are as in :class:`ModalityVotingClassifier`, with the mean of y in place of class frequencies.

    References
    ----------
    .. [1] Breiman (1996). "Stacked regressions". Machine Learning 24.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from skmm import ModalityVotingRegressor
    >>> X = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, np.nan], [3.0, 7.0]])
    >>> y = [0.0, 2.0, 4.0, 6.0]
    >>> members = [("a", LinearRegression(), [0]), ("b", LinearRegression(), [1])]
    >>> ModalityVotingRegressor(members).fit(X, y).predict([[np.nan, 5.0], [4.0, 9.0]]).round(6)
    array([4., 8.])
    """

    _parameter_constraints: dict = {
        **ModalityVoting._parameter_constraints,
        "voting": [StrOptions({"mean", "median"})],
    }

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        voting: Literal["mean", "median"] = "mean",
        *,
        weights: Sequence[float] | Mapping[str, float] | Literal["auto"] | None = None,
        cv: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ):
        self.modalities = modalities
        self.voting = voting
        self.weights = weights
        self.cv = cv
        self.n_jobs = n_jobs
        self.verbose = verbose

    def predict(self, X: Table) -> np.ndarray:
        """Predict numbers.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predictions.
        """
        _, answers, present = self._respond(X)
        self._warn_without_modality(present)
        shares = row_weights(self._weight_array(), present)
        values = {"mean": mean, "median": median}[self.voting](np.array(answers), shares)
        values[~present.any(axis=0)] = self._prior
        return self._target.flat(values)

    def _method_of(self, name):
        return "predict"

    def _learn_weights(self, answers, present, y, row_counts):
        truth = np.asarray(y, dtype=float).reshape(len(y), -1)
        scale = truth.std(axis=0)
        scale[scale == 0] = 1
        loss = squared_error(np.array(answers) / scale, truth / scale, present, row_counts)
        return learn_weights(loss, len(answers), present.any(axis=1))
