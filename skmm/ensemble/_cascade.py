"""A cascade over modalities: a row whose class is certain enough does not need the dearer ones."""

import time
from collections.abc import Mapping
from copy import copy, deepcopy
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import ClassifierMixin, is_regressor
from sklearn.metrics import check_scoring
from sklearn.utils.validation import check_is_fitted

from .._composition import PresentRows
from .._fixed import FixedClasses
from .._sklearn import Interval, StrOptions, safe_indexing
from .._typing import Modalities, Table
from ._base import DecisionComposition, answered
from ._combine import combine, learn_exponents, log_loss_of_product, log_ratios

if TYPE_CHECKING:
    import pandas as pd

# Rows that a member predicts to measure what a row costs.
_N_TIMED = 16
# Certainties that thresholds are chosen from.
_N_CANDIDATES = 50
# Tolerances of the curve of cost and score.
_TOLERANCES = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)


class ModalityCascadeClassifier(ClassifierMixin, DecisionComposition):
    r"""Classify by one modality after the other, cheap ones first, until the class is certain enough.

    Stage :math:`s` combines the members of the first :math:`s` modalities by the product rule of
    :class:`ModalityVotingClassifier`. A row whose most likely class has a probability of at least the threshold
    :math:`t_s` stops there: the modalities after it are not even encoded. The thresholds are learned from out-of-fold
    predictions: they make the mean cost of a row small, while the score stays within ``tolerance`` of that of all
    modalities.

    Parameters
    ----------
    modalities : list of (str, classifier, columns) or "auto", default="auto"
        As for :class:`ModalityVotingClassifier`: classifiers with ``predict_proba``.

    costs : dict of str to float or None, default=None
        Cost of a row by modality, in any unit, such as seconds or money. None measures the seconds that each member
        takes to predict 16 of the training rows, without its store; they decide the order of the modalities.

    tolerance : float, default=0.005
        How much lower than that of all modalities the score may be, out of fold.

    scoring : str, callable or None, default=None
        Score that the tolerance is of, as in :class:`~sklearn.model_selection.GridSearchCV`; None means accuracy. A
        callable ``scoring(estimator, X, y)`` gets an estimator that returns predictions made before, and zeros as X.
        Accuracy and scores with a name count rows by the ``sample_weight`` of ``fit``, a callable does not get it.

    cv : int, splitter, iterable or None, default=None
        Splits for the out-of-fold predictions, as for :class:`ModalityStackingClassifier`.

    n_jobs : int or None, default=None
        Number of members and folds fitted at the same time, in threads. None means 1.

    verbose : bool, default=False
        Whether to say which modality is being fitted, and how long it took.

    Attributes
    ----------
    order_ : list of str
        Names of the modalities, the cheapest first.

    costs_ : dict of str to float
        Cost of a row by modality, as given or measured.

    thresholds_ : dict of str to float
        Probability from which a row stops after each modality; infinite for those after which none does.

    n_encoded_ : dict of str to int
        How many of the training rows needed each modality, out of fold.

    modalities_ : list of (str, classifier, columns)
        The fitted members, in the order given.

    named_modalities_ : Bunch
        The fitted members by name.

    classes_ : ndarray of shape (n_classes,)
        The classes.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ModalityVotingClassifier : Asks all modalities for every row.

    Notes
    -----
    **Missing modalities.** A member abstains where its modality is missing, and the row goes on to the next. A row that
    has no modality gets the class frequencies.

    **What the tolerance promises.** It holds for the out-of-fold predictions that chose the thresholds. On new rows the
    loss varies around that, by about the square root of the share of rows that change divided by their number.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm import ModalityCascadeClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=400)
    >>> cheap, dear = y + rng.normal(size=400) / 4, y + rng.normal(size=400) / 9
    >>> cascade = ModalityCascadeClassifier(
    ...     [("cheap", LogisticRegression(C=100), [0]), ("dear", LogisticRegression(C=100), [1])],
    ...     costs={"cheap": 1, "dear": 50},
    ... ).fit(np.column_stack([cheap, dear]), y)
    >>> cascade.order_
    ['cheap', 'dear']
    >>> cascade.n_encoded_["dear"] < 200
    True
    """

    _parameter_constraints: dict = {
        "modalities": [list, tuple, StrOptions({"auto"})],
        "costs": [dict, None],
        "tolerance": [Interval(Real, 0, None, closed="left")],
        "scoring": [str, callable, None],
        "cv": ["cv_object"],
        "n_jobs": [Integral, None],
        "verbose": ["boolean"],
    }

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        *,
        costs: Mapping[str, float] | None = None,
        tolerance: float = 0.005,
        scoring: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ):
        self.modalities = modalities
        self.costs = costs
        self.tolerance = tolerance
        self.scoring = scoring
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
        y : ndarray of shape (n_samples,)
            Classes; of equals the first.
        """
        proba, _ = self._run(X)
        return self.classes_[np.argmax(proba, axis=1)]

    def predict_proba(self, X: Table) -> np.ndarray:
        """Predict probabilities, each row those of the stage at which it stops.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``.
        """
        return self._run(X)[0]

    def stages(self, X: Table) -> "pd.DataFrame":
        """Tell which modalities each row needs.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        needed : pandas.DataFrame of shape (n_samples, n_modalities)
            A column of booleans for each modality, in the order of the cascade: whether the row was predicted with it.
        """
        import pandas as pd

        _, needed = self._run(X)
        return pd.DataFrame(needed.T, columns=self.order_, index=getattr(X, "index", None))

    def curve(self) -> "pd.DataFrame":
        """Return what a row costs, and what the score is, at several tolerances, out of fold.

        Returns
        -------
        curve : pandas.DataFrame
            With the columns ``tolerance``, ``cost`` (mean of a row), ``share`` (of the cost of all modalities)
            and ``score``; the first row, of the tolerance NaN, uses all modalities.
        """
        import pandas as pd

        check_is_fitted(self)
        return pd.DataFrame(self._curve, columns=["tolerance", "cost", "share", "score"])

    def transform(self, X: Table) -> np.ndarray:
        """Return the probabilities of ``predict_proba``.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities.
        """
        return self.predict_proba(X)

    def _method_of(self, name):
        return "predict_proba"

    def _output_names(self):
        return [f"cascade__{label}" for label in self._target.suffixes("predict_proba")]

    def _fit(self, X, y, sample_weight, groups, params):
        data = self._begin(X, y, sample_weight, groups, params)
        self._check_cascade()
        routed = self._route(data, params)
        splits = self._splits(data, routed)
        progress = self._begin_progress(data, splits)
        answers, present = self._fit_members(data, routed, splits, progress)
        self.costs_ = self._measure(data.X) if self.costs is None else self._stated_costs()
        names = self._active()
        order = sorted(range(len(names)), key=lambda position: self.costs_[names[position]])
        self.order_ = [names[position] for position in order]
        P, present = self._cubes(answers)[order], present[order]
        counts = np.ones(len(data.y)) if data.weights is None else data.weights
        self._learn_stages(P, present, self._target.encode(data.y), counts)
        stages = [self._stage(P[:n], present[:n]) for n in range(1, len(order) + 1)]
        search = _Thresholds(stages, present, [self.costs_[name] for name in self.order_], self._scorer(data))
        everything = search.cost(search.none), search.score(search.none)
        if not np.isfinite(everything[1]):
            raise ValueError(
                f"{type(self).__name__}: the score of the out-of-fold predictions, scoring={self.scoring!r}, is "
                f"{everything[1]}, so there is nothing that a tolerance could be of."
            )
        self._curve = [(np.nan, everything[0], 1.0, everything[1])]
        for tolerance in _TOLERANCES:
            cost, score = search.judge(search.choose(tolerance))
            self._curve.append((tolerance, cost, cost / everything[0], score))
        thresholds = search.choose(self.tolerance)
        self.thresholds_ = dict(zip(self.order_, thresholds.tolist(), strict=True))
        needed = search.needed(thresholds)
        self.n_encoded_ = dict(zip(self.order_, needed.sum(axis=1).tolist(), strict=True))
        progress.call_on_fit_task_end(estimator=self, X=data.X, y=data.y)
        return self

    def _check_cascade(self):
        """Check what only this estimator wants: one class per row, and probabilities of every member."""
        owner = type(self).__name__
        if self._target.multilabel:
            raise ValueError(f"{owner} takes one class per row, got y with {len(self._target.classes)} labels.")
        for name, member in self._active_members():
            if is_regressor(member) or not hasattr(member, "predict_proba"):
                raise TypeError(
                    f"{owner}: modality {name!r} needs a classifier with predict_proba, got {type(member).__name__}; "
                    "wrap it in CalibratedClassifierCV."
                )

    def _stated_costs(self):
        """Return the costs that the parameter states."""
        active = self._active()
        if set(self.costs) != set(active):
            raise ValueError(
                f"{type(self).__name__}: costs need one entry for each of the modalities {active}, got {self.costs!r}."
            )
        wrong = {name: cost for name, cost in self.costs.items() if not (isinstance(cost, Real) and 0 < cost < np.inf)}
        if wrong:
            raise ValueError(f"{type(self).__name__}: costs must be positive numbers, got {wrong!r}.")
        return {name: float(self.costs[name]) for name in active}

    def _measure(self, X):
        """Return the seconds that each member takes for a row, without a store."""
        costs = {}
        for member in self._members:
            items = self._select(X, member.name, reset=True)
            present = PresentRows(items, member.name)
            rows = np.flatnonzero(present.mask)[:_N_TIMED]
            if len(rows) == 0:
                costs[member.name] = 0.0
                continue
            timed = copy(member)
            timed.estimator = _without_store(member.estimator)
            sample = safe_indexing(items, rows)
            present = PresentRows(sample, member.name)
            # The first call may load a model.
            for _ in range(2):
                begin = time.perf_counter()
                timed.respond(sample, present, "predict_proba", self._target)
                costs[member.name] = (time.perf_counter() - begin) / len(rows)
        return costs

    def _cubes(self, answers):
        return np.array([self._target.cube(answer, "predict_proba") for answer in answers])

    def _learn_stages(self, P, present, codes, counts):
        """Learn the exponents of the product of each stage, and keep the priors of the members in its order."""
        by_name = {member.name: member for member in self._members}
        self._priors = np.array([by_name[name].prior for name in self.order_])
        self._exponents = []
        for n in range(1, len(P) + 1):
            able = present[:n].any(axis=0)
            loss = log_loss_of_product(
                log_ratios(P[:n], present[:n], self._priors[:n]), codes, self._prior, counts * able
            )
            self._exponents.append(learn_exponents(loss, n) if able.any() else (np.full(n, 1 / n), 1.0))

    def _stage(self, P, present):
        """Return the probabilities of the stage that combines these members."""
        weights, sharpness = self._exponents[len(P) - 1]
        combined = combine("product", P, present, weights, self._priors[: len(P)], self._prior, sharpness)
        return self._target.public_proba(combined)

    def _scorer(self, data):
        """Return a function from probabilities to the score."""
        weights = {} if data.weights is None or callable(self.scoring) else {"sample_weight": data.weights}

        def score(proba):
            predicted = FixedClasses(proba, self.classes_)
            scorer = check_scoring(predicted, scoring=self.scoring)
            return float(scorer(predicted, np.zeros((len(data.y), 1)), data.y, **weights))

        return score

    def _run(self, X):
        """Return the probabilities of all rows, and which modality each row was predicted with, in order."""
        X, columns, presents = self._presents(X)
        positions = {member.name: position for position, member in enumerate(self._members)}
        n_stages, n_samples = len(self.order_), X.shape[0]
        P = np.full((n_stages, n_samples, *self._prior.shape), np.nan)
        present = np.zeros((n_stages, n_samples), dtype=bool)
        proba = np.zeros((n_samples, len(self.classes_)))
        active = np.arange(n_samples)
        for stage, name in enumerate(self.order_):
            member, items = self._members[positions[name]], columns[positions[name]]
            rows = presents[positions[name]].within(active)
            answers = member.respond(items, rows, "predict_proba", self._target)
            present[stage] = answered(rows.mask, answers)
            P[stage] = self._cubes([answers])[0]
            proba[active] = self._stage(P[: stage + 1, active], present[: stage + 1, active])
            certain = present[: stage + 1, active].any(axis=0) & (proba[active].max(axis=1) >= self.thresholds_[name])
            active = active[~certain]
            if len(active) == 0:
                break
        self._warn_without_modality(np.array([rows.mask for rows in presents]))
        return proba, present


class _Thresholds:
    """The search for thresholds of the stages, on out-of-fold probabilities.

    Parameters
    ----------
    stages : list of ndarray of shape (n_samples, n_classes)
        Probabilities of each stage.

    present : ndarray of shape (n_stages, n_samples), dtype bool
        Where the modality of each stage is present.

    costs : list of float
        Cost of a row by stage.

    score : callable
        Score of probabilities.
    """

    def __init__(self, stages, present, costs, score):
        self.stages = np.array(stages)
        self.certainty = self.stages.max(axis=2)
        self.present = present
        # A row that has had no modality yet is certain of nothing.
        self.certainty[~np.logical_or.accumulate(present, axis=0)] = -np.inf
        self.costs = np.array(costs, dtype=float)
        self.score_of = score
        self.none = np.full(len(self.stages), np.inf)
        self._scores = {}

    def needed(self, thresholds):
        """Return which rows are predicted with the modality of each stage, of shape (n_stages, n_samples)."""
        stopped = np.logical_or.accumulate(self.certainty >= thresholds[:, None], axis=0)
        reached = np.vstack([np.ones(stopped.shape[1], dtype=bool), ~stopped[:-1]])
        return reached & self.present

    def cost(self, thresholds):
        """Return the mean cost of a row."""
        return float(self.costs @ self.needed(thresholds).mean(axis=1))

    def score(self, thresholds):
        """Return the score of the rows as they stop, which takes longest and is remembered."""
        key = tuple(thresholds.tolist())
        if key not in self._scores:
            stopped = self.certainty >= thresholds[:, None]
            stopped[-1] = True
            self._scores[key] = self.score_of(self.stages[np.argmax(stopped, axis=0), np.arange(stopped.shape[1])])
        return self._scores[key]

    def judge(self, thresholds):
        """Return the mean cost and the score."""
        return self.cost(thresholds), self.score(thresholds)

    def choose(self, tolerance):
        """Return thresholds of small cost whose score is at most ``tolerance`` below that of all modalities.

        One stage after the other gets the threshold of the lowest cost, given the others, until nothing changes.
        """
        lowest = self.score(self.none) - tolerance
        thresholds = self.none.copy()
        for _ in range(3):
            before = thresholds.copy()
            # After the last stage there is nothing to save.
            for stage in range(len(thresholds) - 1):
                certainty = self.certainty[stage][np.isfinite(self.certainty[stage])]
                candidates = (
                    np.unique(np.quantile(certainty, np.linspace(0, 1, _N_CANDIDATES))) if len(certainty) else []
                )
                for candidate in candidates:
                    # In ascending order: the first that will do costs least.
                    trial = thresholds.copy()
                    trial[stage] = candidate
                    if self.cost(trial) < self.cost(thresholds) and self.score(trial) >= lowest:
                        thresholds = trial
                        break
            if (thresholds == before).all():
                break
        return thresholds


def _without_store(estimator):
    """Return a fitted estimator whose encoders keep nothing: a copy that shares networks that are in memory."""
    params = estimator.get_params()
    stores = [key for key in params if key.rpartition("__")[2] == "store"]
    shared = {id(value): value for key, value in params.items() if key.rpartition("__")[2] == "model"}
    return deepcopy(estimator, shared).set_params(**dict.fromkeys(stores)) if stores else estimator
