"""Estimators that choose the transformers, the fusion and the learners by themselves."""

import time
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state
from sklearn.utils.parallel import delayed
from sklearn.utils.validation import check_is_fitted

from .._columns import check_can_be_sent, check_groups, check_splits, check_target, check_X
from .._composition import check_modalities
from .._fixed import FixedClasses, FixedNumbers
from .._sklearn import Interval, StrOptions, fit_context, safe_indexing
from .._threads import parallel_results
from .._typing import Modalities, PathType, RandomState, Table
from .._warnings import warn
from ..encoders import infer_modalities
from ..fusion import ModalityFuser
from ._comparison import FusionComparison
from ._recipes import KINDS, Recipes
from ._runs import Folds, Row, Run, fit_strategy, silent_on_items
from ._statistics import score_bounds
from ._strategies import EXTRA, Strategy

# Rounds of the greedy selection, and so the finest weight of a member is one in as many.
_N_ROUNDS = 20
# Scorers that count all classes alike.
_BALANCED_SCORERS = {"balanced_accuracy", "f1_macro", "precision_macro", "recall_macro", "jaccard_macro"}


class _AutoMultimodal(BaseEstimator):
    """Base of the automatic estimators: strategies in order of cost, out-of-fold predictions, a greedy ensemble."""

    # Groups that reach a search or a pipeline reach the folds as well.
    __metadata_request__fit = {"groups": True}

    _parameter_constraints: dict = {
        "modalities": [list, tuple, StrOptions({"auto"})],
        "scoring": [str, callable, None],
        "cv": ["cv_object"],
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "strategies": [StrOptions({"auto"}), list, tuple, dict],
        "ensemble": ["boolean"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
    }

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        *,
        scoring: Any = None,
        cv: Any = 5,
        time_limit: float | None = None,
        strategies: Sequence[str] | dict | Literal["auto"] = "auto",
        ensemble: bool = True,
        n_jobs: int | None = None,
        random_state: RandomState = 0,
        verbose: bool = False,
    ):
        self.modalities = modalities
        self.scoring = scoring
        self.cv = cv
        self.time_limit = time_limit
        self.strategies = strategies
        self.ensemble = ensemble
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Try strategies on folds, select among them, and fit those selected on all rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,)
            Target.

        groups : array-like of shape (n_samples,), default=None
            Groups of rows that belong together, such as near-duplicates or the recordings of one person. No group
            is split between training and test rows.

        Returns
        -------
        self : estimator
            The fitted estimator.
        """
        clock = _Clock(self.time_limit)
        # After a fit that fails, the estimator is not fitted.
        self.__dict__.pop("weights_", None)
        X = check_X(self, X, reset=True)
        check_can_be_sent(X, self.n_jobs)
        y = self._check_y(X, y)
        groups = check_groups(groups, len(y))
        random_state = check_random_state(self.random_state)
        self.modalities_ = list(infer_modalities(X, y) if isinstance(self.modalities, str) else self.modalities)
        check_modalities(ModalityFuser(self.modalities_))
        strategies = self._make_strategies(y, random_state.randint(2**31 - 1))
        folds = Folds(y, self._classifies, groups, random_state)
        splits = check_splits(folds.splits(X, self._n_folds(y), n_repeats=1), len(y), type(self).__name__)
        self._check_scoring(y, splits)

        finished, outputs, self.interrupted_ = self._try(strategies, X, y, groups, splits, clock)
        if not outputs:
            raise ValueError(
                f"{type(self).__name__}: every strategy failed; {finished[0].label!r}: {finished[0].error}"
            )
        labels = list(outputs)
        stacked = np.array([outputs[label] for label in labels])
        honest = [self._score_unselected(stacked, y, test) for _, test in splits]
        finished.append(Row("selected", EXTRA, [Run({self._metric: score}) for score in honest]))
        self.score_ = float(np.mean(honest))
        self.comparison_ = FusionComparison(
            finished,
            test_share=sum(len(test) / len(train) for train, test in splits) / len(splits),
            bounds={self._metric: score_bounds(self._metric)},
        )
        weights = self._select(stacked, y, np.arange(len(y)))
        self.best_strategy_ = labels[int(np.argmax([self._score(output, y) for output in stacked]))]
        self._refit(strategies, dict(zip(labels, weights, strict=True)), X, y, groups)
        return self

    def predict(self, X: Table) -> np.ndarray:
        """Predict.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Classes or numbers.
        """
        return self._decide(self._respond(X))

    def to_html(self, path: PathType | None = None, *, title: str = "Automatic choice of the fusion") -> str | None:
        """Write or return a page with the scores of all strategies, which opens without a network.

        Parameters
        ----------
        path : str, Path or None, default=None
            File to write the page to. None returns the page.

        title : str, default="Automatic choice of the fusion"
            Heading of the page.

        Returns
        -------
        page : str or None
            The page, if no path was passed.
        """
        check_is_fitted(self)
        return self.comparison_.to_html(path, title=title)

    def summary(self) -> str:
        """Say in a paragraph what each modality tells, what fusion gains, and what to try next.

        Returns
        -------
        text : str
            Some sentences.
        """
        check_is_fitted(self)
        return self.comparison_.summary(strategy="selected")

    def __sklearn_is_fitted__(self):
        return hasattr(self, "weights_")

    @property
    def _metric(self):
        """Name of the score."""
        if self.scoring is None:
            return "accuracy" if self._classifies else "r2"
        return self.scoring if isinstance(self.scoring, str) else "score"

    def _make_strategies(self, y, random_state):
        """Return the strategies to try, cheap ones first, then those that the user adds."""
        class_weight = "balanced" if self._classifies and self._metric in _BALANCED_SCORERS else None
        recipes = Recipes(self.modalities_, y, self._classifies, class_weight, random_state)
        if isinstance(self.strategies, str):
            # Only a limit tells that there is time for tuning.
            return recipes.make([kind for kind in KINDS if kind != "tuned" or self.time_limit is not None])
        names = [name for name in self.strategies if not isinstance(self.strategies, dict)]
        added = self.strategies if isinstance(self.strategies, dict) else {}
        unknown = [name for name in names if name not in KINDS]
        if unknown:
            raise ValueError(f"{type(self).__name__}: strategies are names of {list(KINDS)}, got {unknown}.")
        if "selected" in added:
            raise ValueError(f"{type(self).__name__}: 'selected' names the procedure as a whole; rename that strategy.")
        strategies = [*recipes.make(names), *(Strategy(name, EXTRA, model) for name, model in added.items())]
        if not strategies:
            raise ValueError(
                f"{type(self).__name__}: none of the strategies {names} can be used for these {len(y)} rows and "
                f"modalities {[name for name, *_ in self.modalities_]}; see the notes of {type(self).__name__}."
            )
        return strategies

    def _n_folds(self, y):
        """Return ``cv``; a number at most the size of the smallest class that has two rows or more."""
        if not isinstance(self.cv, Integral) or not self._classifies:
            return self.cv
        classes, counts = np.unique(y, return_counts=True)
        n_folds = int(max(2, min(self.cv, counts[counts > 1].min(initial=self.cv))))
        if n_folds < self.cv:
            rarest = classes[counts > 1][counts[counts > 1].argmin()]
            warn(
                f"{type(self).__name__}: {n_folds} folds instead of cv={self.cv}, since the class {str(rarest)!r} has "
                f"{counts[counts > 1].min()} rows. Join rare classes, or leave them out."
            )
        return n_folds

    def _try(self, strategies, X, y, groups, splits, clock):
        """Fit strategies on the folds while there is time.

        Return a row for each, the out-of-fold outputs of those that did not fail, and whether time or the user ended
        it before all were tried.
        """
        rows, outputs = [], {}
        for number, strategy in enumerate(strategies):
            begin = time.perf_counter()
            try:
                runs, output = self._try_one(strategy, X, y, groups, splits, clock if outputs else _Clock(None))
            except KeyboardInterrupt:
                if not outputs:
                    raise
                warn(f"{type(self).__name__} was interrupted in the strategy {strategy.label!r}.")
                return rows, outputs, True
            if runs is None:
                if self.verbose:
                    print(f"{strategy.label}: no time")
                return rows, outputs, True
            rows.append(Row(strategy.label, strategy.level, runs))
            if rows[-1].error:
                warn(f"{type(self).__name__}: the strategy {strategy.label!r} failed, {rows[-1].error}")
            else:
                outputs[strategy.label] = output
            if self.verbose:
                scores = "failed" if rows[-1].error else f"{np.mean(rows[-1].scores(self._metric)):.4f}"
                print(
                    f"{number + 1} of {len(strategies)}, {strategy.label}: {scores}, "
                    f"{time.perf_counter() - begin:.1f} s, {clock.elapsed:.1f} s in all"
                )
        return rows, outputs, False

    def _try_one(self, strategy, X, y, groups, splits, clock):
        """Return the runs of a strategy and its out-of-fold outputs; None if time is over."""
        if clock.is_over:
            return None, None
        tasks = (delayed(_fit_fold)(self, strategy, X, y, groups, train, test) for train, test in splits)
        results = parallel_results(tasks, n_jobs=self.n_jobs, batch_size=1)
        output = np.full((len(y), *self._output_shape()), np.nan)
        runs = []
        for (_, test), (run, values) in zip(splits, results, strict=True):
            runs.append(run)
            if run.error:
                continue
            output[test] = values
            try:
                run.scores[self._metric] = self._score(values, y[test])
            except Exception as error:
                run.error = f"{type(error).__name__}: {error}"
            if clock.is_over and len(runs) < len(splits):
                results.close()
                return None, None
        return runs, output

    def _select(self, outputs, y, rows):
        """Return the weight of each strategy, chosen by their outputs in some rows."""
        outputs, y = outputs[:, rows], y[rows]
        if not self.ensemble:
            scores = [self._score(output, y) for output in outputs]
            return np.eye(len(outputs))[int(np.argmax(scores))]
        return select(outputs, lambda output: self._score(output, y))

    def _score_unselected(self, outputs, y, test):
        """Return the score in the rows of a fold of what the other rows select."""
        others = np.setdiff1d(np.arange(len(y)), test)
        weights = self._select(outputs, y, others)
        return self._score(np.tensordot(weights, outputs[:, test], axes=1), y[test])

    def _score(self, output, y):
        """Return the score of an output."""
        predicted = self._predicted(output)
        score = float(check_scoring(predicted, scoring=self.scoring)(predicted, np.zeros((len(y), 1)), y))
        if not np.isfinite(score):
            raise ValueError(f"{self._metric} is {score}, so there is nothing to choose by")
        return score

    def _check_scoring(self, y, splits):
        """Raise, before anything is fitted, if the score cannot be computed on a fold whatever is predicted."""
        if self._classifies:
            perfect = (y[:, None] == self.classes_).astype(float)
            constant = np.full_like(perfect, 1 / len(self.classes_))
        else:
            perfect, constant = y, np.full(len(y), y.mean())
        scorer = check_scoring(self._predicted(perfect), scoring=self.scoring)
        for number, (_, test) in enumerate(splits, start=1):
            begin = f"{type(self).__name__}: scoring={self._metric!r} cannot be computed on fold {number}"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    # Some scores are undefined for one of these, others for the other.
                    outputs = [self._predicted(output[test]) for output in (perfect, constant)]
                    scores = [scorer(output, np.zeros((len(test), 1)), y[test]) for output in outputs]
            except Exception as error:
                raise ValueError(f"{begin} of {len(splits)}: {error}") from error
            if np.isnan(scores).all():
                raise ValueError(
                    f"{begin} of {len(splits)}, whose {len(test)} rows make it NaN whatever is predicted; use fewer "
                    "folds, or another score."
                )

    def _refit(self, strategies, weights, X, y, groups):
        """Fit the strategies of positive weight on all rows, the one of the largest weight first."""
        by_label = {strategy.label: strategy for strategy in strategies}
        self.estimators_, last = {}, None
        chosen = sorted((label for label in weights if weights[label] > 0), key=lambda label: -weights[label])
        for label in chosen:
            try:
                self.estimators_[label] = fit_strategy(by_label[label], X, y, groups)
            except KeyboardInterrupt:
                if not self.estimators_:
                    raise
                warn(f"{type(self).__name__} was interrupted before {label!r} was fitted on all rows.")
                self.interrupted_ = True
                break
            except Exception as error:
                last = error
                warn(
                    f"{type(self).__name__} goes without the strategy {label!r}, which failed on all rows: "
                    f"{type(error).__name__}: {error}"
                )
        if not self.estimators_:
            raise last
        total = sum(weights[label] for label in self.estimators_)
        self.weights_ = {label: float(weights[label] / total) for label in self.estimators_}

    @property
    def leaderboard_(self) -> Table:
        """Table of the strategies, the best first, with the weights of those selected."""
        check_is_fitted(self)
        frame = self.comparison_.to_frame()
        frame.insert(1, "weight", [self.weights_.get(label, 0.0) for label in frame.index])
        return frame.drop(columns=["predict_time"])

    def _respond(self, X):
        """Return the weighted mean of the outputs of the members."""
        check_is_fitted(self)
        X = check_X(self, X, reset=False)
        return sum(weight * self._output_of(self.estimators_[label], X) for label, weight in self.weights_.items())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        return tags


class AutoMultimodalClassifier(ClassifierMixin, _AutoMultimodal):
    """Classify from texts, images, sound, videos and tables, without naming any of them.

    It finds out what the columns of X hold, tries models in order of their cost on the same folds, and predicts with
    the mean of those that are best together.

    Parameters
    ----------
    modalities : list of (str, transformer, columns) or "auto", default="auto"
        As in :class:`~skmm.ModalityFuser`; "auto" finds them out (:func:`~skmm.infer_modalities`).

    scoring : str, callable or None, default=None
        Score to choose by, as in :class:`~sklearn.model_selection.GridSearchCV`; None means accuracy. With
        "balanced_accuracy" or a mean over the classes ("f1_macro", ...), models weigh classes alike. A callable
        ``scoring(estimator, X, y)`` gets an estimator that returns predictions made before, and zeros as X.

    cv : int, splitter or iterable, default=5
        Folds; each row is left out exactly once. A number means that many folds of shuffled rows, stratified, of whole
        groups if there are ``groups``; it is lowered to the size of the smallest class.

    time_limit : float or None, default=None
        Seconds after which no further strategy is tried; the first is always. Fitting what is chosen on all rows comes
        on top. A limit also says that there is time to tune encoders to the target, as the last strategy;
        without one this is left out.

    strategies : list of str, dict of str to estimator, or "auto", default="auto"
        Which to try, of "single", "linear", "svm", "trees", "boosting", "stack", "net" and "tuned"; see the notes. A
        dict of estimators that take X as it is replaces them.

    ensemble : bool, default=True
        Whether to predict with a weighted mean of strategies. False chooses the best one.

    n_jobs : int or None, default=None
        Number of folds fitted at the same time, by joblib. None means 1.

    random_state : int, RandomState instance or None, default=0
        For folds and models.

    verbose : bool, default=False
        Whether to print the score and the time of each strategy.

    Attributes
    ----------
    leaderboard_ : pandas.DataFrame
        One row per strategy, the best first, as :meth:`FusionComparison.to_frame` returns them, with the weight of
        each in the ensemble. The row "selected" is the procedure as a whole: in each fold the score of what the other
        folds select, so that no row takes part in the choice it judges.

    score_ : float
        Mean score of "selected".

    best_strategy_ : str
        The strategy of the best score.

    weights_ : dict of str to float
        Weight of each strategy in the ensemble.

    estimators_ : dict of str to estimator
        These, fitted on all rows.

    modalities_ : list of (str, transformer, columns)
        The modalities, not fitted.

    comparison_ : FusionComparison
        All scores, with intervals, tests and drawings.

    interrupted_ : bool
        Whether the time limit or an interrupt ended ``fit`` before all strategies had been tried.

    classes_ : ndarray of shape (n_classes,)
        The classes.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    compare_fusions : Compares strategies of fusion with one estimator of yours.
    infer_modalities : Finds out what the columns hold.

    Notes
    -----
    ============  ====================================================================================================
    strategy      model
    ============  ====================================================================================================
    ``single``    each modality alone, with the model of ``linear``
    ``linear``    :class:`~skmm.fusion.ConcatFusion`, then logistic regression or ridge with a penalty by
                  cross-validation
    ``svm``       :class:`~skmm.fusion.ConcatFusion`, then a support vector machine (at most 10,000 rows, and of
                  each class at least 4)
    ``trees``     30 principal components of each encoder's features and the columns of the table, then extremely
                  randomised trees
    ``boosting``  the same, then gradient boosting on histograms (at most 20 classes)
    ``stack``     linear models on encoders' features and boosting on the table, stacked
    ``net``       a network with hidden layers for each modality (:class:`~skmm.MultimodalNetClassifier`)
    ``tuned``     encoders tuned to the target (:class:`~skmm.TunedEncoder`), then a linear model and a support vector
                  machine
    ============  ====================================================================================================

    Half of the weights of the ensemble go equally to the five best strategies (at most half of all). The other half is
    selected greedily, with replacement, by the score of the mean of the out-of-fold
    predictions [1]_.

    A strategy that fails becomes a row with its error, and a warning. If ``fit`` is interrupted, what has
    been finished is used.

    References
    ----------
    .. [1] R. Caruana, A. Niculescu-Mizil, G. Crew and A. Ksikes, "Ensemble selection from libraries of models", ICML
       2004.

    Examples
    --------
    >>> from skmm import AutoMultimodalClassifier
    >>> from skmm.datasets import make_multimodal_classification
    >>> data = make_multimodal_classification(120, return_X_y=False, random_state=0)
    >>> auto = AutoMultimodalClassifier(
    ...     [(name, "passthrough", columns) for name, columns in data.modalities.items()],
    ...     strategies=["single", "linear", "trees"],
    ... ).fit(data.X, data.y)
    >>> sorted(auto.leaderboard_.index)
    ['a alone', 'b alone', 'linear', 'selected', 'trees']
    >>> auto.predict_proba(data.X[:2]).shape
    (2, 2)
    """

    _classifies = True

    def predict_proba(self, X: Table) -> np.ndarray:
        """Predict probabilities.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``.
        """
        return self._respond(X)

    def _check_y(self, X, y):
        y = check_target(X, y, type(self).__name__, numeric=False)
        if y.ndim == 2:
            raise ValueError(f"{type(self).__name__} takes one class per row, got y of shape {y.shape}.")
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs rows of at least 2 classes, got 1 class: {self.classes_[0]!r}."
            )
        return y

    def _output_shape(self):
        return (len(self.classes_),)

    def _output_of(self, estimator, X):
        """Return probabilities in the order of the classes; 0 for classes that the estimator has not seen."""
        proba = estimator.predict_proba(X)
        output = np.zeros((len(proba), len(self.classes_)))
        output[:, np.searchsorted(self.classes_, estimator.classes_)] = proba
        return output

    def _decide(self, output):
        return self.classes_[np.argmax(output, axis=1)]

    def _predicted(self, output=None):
        return FixedClasses(output, self.classes_)


class AutoMultimodalRegressor(RegressorMixin, _AutoMultimodal):
    """Predict numbers from texts, images, sound, videos and tables, without naming any of them.

    As :class:`AutoMultimodalClassifier`.

    Parameters
    ----------
    modalities : list of (str, transformer, columns) or "auto", default="auto"
        As in :class:`~skmm.ModalityFuser`; "auto" finds them out (:func:`~skmm.infer_modalities`).

    scoring : str, callable or None, default=None
        Score to choose by, as for :class:`AutoMultimodalClassifier`; None means R2.

    cv : int, splitter or iterable, default=5
        Folds; each row is left out exactly once. A number means that many folds of shuffled rows, of whole groups if
        there are ``groups``.

    time_limit : float or None, default=None
        Seconds after which no further strategy is tried, as for :class:`AutoMultimodalClassifier`.

    strategies : list of str, dict of str to estimator, or "auto", default="auto"
        Which to try, as for :class:`AutoMultimodalClassifier`.

    ensemble : bool, default=True
        Whether to predict with a weighted mean of strategies. False chooses the best one.

    n_jobs : int or None, default=None
        Number of folds fitted at the same time, by joblib. None means 1.

    random_state : int, RandomState instance or None, default=0
        For folds and models.

    verbose : bool, default=False
        Whether to print the score and the time of each strategy.

    Attributes
    ----------
    leaderboard_ : pandas.DataFrame
        One row per strategy, the best first, with the weight of each in the ensemble.

    score_ : float
        Mean score of "selected", the procedure as a whole.

    best_strategy_ : str
        The strategy of the best score.

    weights_ : dict of str to float
        Weight of each strategy in the ensemble.

    estimators_ : dict of str to estimator
        These, fitted on all rows.

    modalities_ : list of (str, transformer, columns)
        The modalities, not fitted.

    comparison_ : FusionComparison
        All scores, with intervals, tests and drawings.

    interrupted_ : bool
        Whether the time limit or an interrupt ended ``fit`` before all strategies had been tried.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    AutoMultimodalClassifier : For classes, with notes on the strategies.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skmm import AutoMultimodalRegressor
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> auto = AutoMultimodalRegressor(strategies=["linear", "svm"], cv=3).fit(X, y)
    >>> round(auto.score_, 1)
    0.5
    >>> auto.modalities_[0][0]
    'table'
    """

    _classifies = False

    def _check_y(self, X, y):
        y = check_target(X, y, type(self).__name__, numeric=True)
        if y.ndim == 2:
            raise ValueError(f"{type(self).__name__} takes one number per row, got y of shape {y.shape}.")
        return y

    def _output_shape(self):
        return ()

    def _output_of(self, estimator, X):
        return estimator.predict(X)

    def _decide(self, output):
        return output

    def _predicted(self, output=None):
        return FixedNumbers(output)


class _Clock:
    """Seconds since it was made, and whether they exceed a limit."""

    def __init__(self, limit):
        self.limit, self.begin = limit, time.perf_counter()

    @property
    def elapsed(self):
        return time.perf_counter() - self.begin

    @property
    def is_over(self):
        return self.limit is not None and self.elapsed > self.limit


def _fit_fold(auto, strategy, X, y, groups, train, test):
    """Return the run of a strategy in one fold, without its score, and its outputs in the test rows."""
    begin = time.perf_counter()
    try:
        train_groups = None if groups is None else groups[train]
        # The fits on all rows tell of these, once.
        with silent_on_items():
            estimator = fit_strategy(strategy, safe_indexing(X, train), y[train], train_groups)
            fitted = time.perf_counter()
            values = auto._output_of(estimator, safe_indexing(X, test))
        if not np.isfinite(values).all():
            raise ValueError("its predictions are not finite")
    except Exception as error:
        return Run(error=f"{type(error).__name__}: {error}"), None
    return Run(fit_time=fitted - begin, predict_time=time.perf_counter() - fitted), values


def select(outputs, score):
    """Return weights of outputs: half of them by greedy selection, half equal ones for the best outputs.

    A greedy selection alone follows the noise of few rows. The best are five, or half of all if these are fewer.
    """
    scores = np.array([score(output) for output in outputs])
    best = np.argsort(-scores, kind="stable")[: min(5, (len(outputs) + 1) // 2)]
    equal = np.isin(np.arange(len(outputs)), best) / len(best)
    return (select_greedily(outputs, score) + equal) / 2


def select_greedily(outputs, score, n_rounds=_N_ROUNDS):
    """Return weights of outputs whose mean has a high score: each round adds the one that helps most, again or anew.

    Parameters
    ----------
    outputs : ndarray of shape (n_strategies, n_samples, ...)
        What each strategy predicts.

    score : callable
        ``score(output)`` returns a number that is higher for better predictions.

    n_rounds : int, default=20
        Rounds; of all rounds the best is taken, the earliest of equals.

    Returns
    -------
    weights : ndarray of shape (n_strategies,)
        Not negative, with a sum of 1.
    """
    total, counts = np.zeros_like(outputs[0]), np.zeros(len(outputs))
    best_score, best_counts = -np.inf, counts
    for n_added in range(1, n_rounds + 1):
        scores = [score((total + output) / n_added) for output in outputs]
        chosen = int(np.argmax(scores))
        total, counts = total + outputs[chosen], counts + np.eye(len(outputs))[chosen]
        if scores[chosen] > best_score:
            best_score, best_counts = scores[chosen], counts
    return best_counts / best_counts.sum()
