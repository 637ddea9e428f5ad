"""Stacking over modalities: a final estimator learns from out-of-fold answers of the members."""

from numbers import Integral
from typing import Any, Literal

import numpy as np
from sklearn import get_config
from sklearn.base import ClassifierMixin, RegressorMixin, clone, is_classifier, is_regressor
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .._composition import propagated
from .._sklearn import HasMethods, StrOptions, VisualBlock
from .._typing import Modalities, Table
from ._base import DecisionComposition, Member
from ._passthrough import Columns, Features

_METHODS = ("predict_proba", "decision_function", "predict")


def _final_has(method):
    """Return a check of whether the final estimator, fitted or not, has a method."""

    def check(self):
        final = getattr(self, "final_estimator_", self.final_estimator)
        return hasattr(self._default_final() if final is None else final, method)

    return check


class ModalityStacking(DecisionComposition):
    """Base of the stackers: the matrix that the final estimator sees, and how that is fitted."""

    _parameter_constraints: dict = {
        "modalities": [list, tuple, StrOptions({"auto"})],
        "final_estimator": [HasMethods(["fit", "predict"]), None],
        "cv": ["cv_object", StrOptions({"prefit"})],
        "passthrough": ["boolean", HasMethods(["fit", "transform"])],
        "n_jobs": [Integral, None],
        "verbose": ["boolean"],
    }

    def _fit(self, X, y, sample_weight, groups, params):
        data = self._begin(X, y, sample_weight, groups, params)
        final = clone(self._final())
        self._check_final(final)
        self._methods = {name: self._method_name(name, member) for name, member in self._active_members()}
        routed = self._route(data, params, final)
        prefit = isinstance(self.cv, str)
        splits = None if prefit else self._splits(data, routed)
        features = None if isinstance(self.passthrough, bool) else Features(self.passthrough)
        folds = () if features is None else features.folds_of(splits or ())
        n_final_steps = 1 if features is None else 2 + len(folds)
        progress = self._begin_progress(data, splits, n_final_steps)
        if prefit:
            self._use_prefit(data)
            _, answers, present = self._respond(data.X)
        else:
            answers, present = self._fit_members(data, routed, splits, progress)

        self._fills = [self._fill(member, answer) for member, answer in zip(self._members, answers, strict=True)]
        # Fixed here: data without gaps at fit gets no indicator at predict.
        self._indicated = np.flatnonzero(~present.all(axis=1))
        if not present.any():
            raise ValueError(
                f"{type(self).__name__}: all {len(data.y)} rows have no modality; pass rows in which one is not "
                "all None or NaN."
            )
        meta = self._join(answers, present, self._fit_passthrough(data, routed, features, folds, progress))
        self._fit_final(final, meta, data.y, present.any(axis=0), routed["final_estimator"].fit, progress)
        progress.call_on_fit_task_end(estimator=self, X=data.X, y=data.y)
        return self

    def _fit_final(self, final, meta, y, present, params, progress):
        """Fit the final estimator on the rows that have any modality; the others are answered with the prior."""
        rows = slice(None) if present.all() else np.flatnonzero(present)
        params = {
            key: np.asarray(values)[rows] if np.ndim(values) and len(values) == len(y) else values
            for key, values in params.items()
        }
        if is_classifier(self) and y.ndim == 1 and len(np.unique(y[rows])) == 1:
            final, params = DummyClassifier(), {}
        with propagated(progress.subcontext(task_name="final estimator"), self, final):
            self.final_estimator_ = final.fit(meta[rows], y[rows], **params)

    def _final(self):
        return self._default_final() if self.final_estimator is None else self.final_estimator

    def _use_prefit(self, data):
        """Use fitted members as they are."""
        self._members = []
        for name, member in self._active_members():
            check_is_fitted(member)
            numeric = not is_classifier(self) or is_regressor(member)
            self._members.append(Member(name, member, self._prior, numeric=numeric))
        _, _, presents = self._presents(data.X)
        for member, present in zip(self._members, presents, strict=True):
            if len(present):
                weights = None if data.weights is None else present.take(data.weights)
                member.prior = self._target.prior(present.take(data.y), weights)
        self._set_modalities()

    def _fill(self, member, answer):
        """Return the answer that stands for a member where it abstains: its prior, or the mean of its scores."""
        if self._methods[member.name] == "decision_function" and not np.isnan(answer).all():
            return np.nanmean(answer, axis=0)
        return self._target.prior_answer(member.prior, self._methods[member.name], member.numeric)

    def _join(self, answers, present, extra):
        """Return answers, indicators and passed-through features side by side, without gaps."""
        columns = []
        for member, answer, fill, mask in zip(self._members, answers, self._fills, present, strict=True):
            filled = np.where(mask[:, None], answer, fill)
            # One of two probabilities determines the other.
            columns.append(filled[:, 1:] if self._drops_first(member) else filled)
        columns.append((~present[self._indicated]).T.astype(float))
        if extra is not None:
            columns.append(extra)
        return np.hstack(columns)

    def _drops_first(self, member):
        return self._methods[member.name] == "predict_proba" and self._target.binary

    def _fit_passthrough(self, data, routed, features, folds, progress):
        self._extra = features
        if self.passthrough is False:
            return None
        if self.passthrough is True:
            positions = sorted({position for name in self._active() for position in self._columns[name][0]})
            by_name = hasattr(self, "feature_names_in_")
            names = self.feature_names_in_ if by_name else [f"x{i}" for i in range(self.n_features_in_)]
            self._extra = Columns(data.X, positions, names, by_name)
            return self._extra.transform(data.X)
        request = Bunch(fit={}, transform={}, fit_transform={})
        request.update(routed.get("passthrough", {}))
        if not get_config()["enable_metadata_routing"] and has_fit_parameter(self.passthrough, "groups"):
            request.fit = request.fit_transform = {} if data.groups is None else {"groups": data.groups}
        return features.fit_transform(data.X, data.y, request, folds, self, progress)

    def _meta(self, X, warns=True):
        """Return the matrix that the final estimator sees, and the mask of answers; warn of rows without any."""
        X, answers, present = self._respond(X)
        if warns:
            self._warn_without_modality(present)
        extra = None if self._extra is None else self._extra.transform(X)
        return self._join(answers, present, extra), present

    def predict(self, X: Table) -> np.ndarray:
        """Predict classes, labels or numbers.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predictions in the form of the target.
        """
        meta, present = self._meta(X)
        y, silent = np.asarray(self.final_estimator_.predict(meta)), ~present.any(axis=0)
        if silent.any():
            answer = self._target.prior_prediction(self._prior)
            y = y.astype(np.result_type(y, answer))
            y[silent] = answer
        return y

    def transform(self, X: Table) -> np.ndarray:
        """Return the features that the final estimator sees.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Answers of the members, indicators of missing modalities, passed-through features.
        """
        return self._meta(X, warns=False)[0]

    def _output_names(self):
        names = [
            name for member in self._members for name in self._answer_names(member, int(self._drops_first(member)))
        ]
        names.extend(f"missingindicator__{self._members[position].name}" for position in self._indicated)
        if self._extra is not None:
            names.extend(f"passthrough__{name}" for name in self._extra.names)
        return names

    def get_metadata_routing(self) -> MetadataRouter:
        """Get the routing of metadata to the members, ``cv``, ``passthrough`` and the final estimator.

        Returns
        -------
        routing : MetadataRouter
            Routing information.
        """
        router = super().get_metadata_routing()
        router.add(final_estimator=self._final(), method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        if not isinstance(self.passthrough, bool):
            callee = "fit_transform" if hasattr(self.passthrough, "fit_transform") else "fit"
            router.add(passthrough=self.passthrough, method_mapping=MethodMapping().add(caller="fit", callee=callee))
        return router

    def _method_of(self, name):
        return self._methods[name]

    def _sk_visual_block_(self):
        last = VisualBlock("parallel", [self._final()], names=["final_estimator"], dash_wrapped=False)
        return VisualBlock("serial", (self._member_block(), last), dash_wrapped=False)


class ModalityStackingClassifier(ClassifierMixin, ModalityStacking):
    """Learn to combine one classifier per modality, each on its own columns.

    A final classifier is fitted on what the members say of rows that they were not fitted on: the splits of
    ``cv`` are made once on all rows, and each member is fitted and asked on those of its rows that fall
    into them. The members are then fitted again on all their rows.

    Parameters
    ----------
    modalities : list of (str, classifier, columns) or "auto", default="auto"
        "auto" finds out at ``fit`` which modalities the columns of X hold, and chooses a transformer for each
        (:func:`~skmm.infer_modalities`), with a linear model behind it. In a triple:

        - name: unique, without ``__``;
        - classifier: an estimator with ``fit`` and ``predict``, often a pipeline that begins with an encoder. A
          regressor gets the positions of the classes as its target. ``"drop"`` leaves it out;
        - columns: name, position, list of these, slice, mask or callable, as in
          :class:`~sklearn.compose.ColumnTransformer`. Two modalities may select the same columns.

    final_estimator : classifier or None, default=None
        Classifier that combines the answers. None means
        :class:`~sklearn.linear_model.LogisticRegression`; for several labels, one per label.

    cv : int, splitter, iterable, "prefit" or None, default=None
        Splits of all rows, as in :class:`~sklearn.model_selection.GridSearchCV`; each row is left out
        exactly once. With ``groups`` in ``fit``, a number makes folds that keep groups together. ``"prefit"`` takes
        members that are fitted already, as they are; then X must not be the data that they were fitted on.

    stack_method : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        What members are asked. ``"auto"`` takes the first of these that a member has.

    passthrough : bool or transformer, default=False
        What the final estimator sees besides the answers: nothing; True, the numeric columns of
        the modalities; or what a transformer makes of X, such as the fused features of a
        :class:`~skmm.ModalityFuser`. A transformer whose tags say that it needs y is fitted out of fold too. Missing
        cells are replaced by their column's mean.

    n_jobs : int or None, default=None
        Number of jobs over modalities and folds. None means 1 unless in a :obj:`joblib.parallel_config` context, -1
        all processors. Jobs are threads, which share the data and the weights of encoders, unless such a context
        says otherwise.

    verbose : bool, default=False
        Whether to say which modality is being fitted on all rows, and how long it took.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or list of ndarray
        Classes in all rows; for several labels, one array per label.

    modalities_ : list of (str, estimator, columns)
        The members fitted on all their rows, without what is dropped.

    named_modalities_ : Bunch
        The fitted members by name.

    final_estimator_ : classifier
        The fitted final estimator.

    stack_method_ : list of str
        What each member is asked.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ModalityVotingClassifier : Combines the members by a rule.
    ModalityFuser : Joins features in place of decisions.
    sklearn.ensemble.StackingClassifier : Members that all see the same columns.

    Notes
    -----
    **Missing modalities.** A member abstains in rows in which all its columns are missing: it is neither fitted on
    them nor asked. The final estimator then sees the frequencies of the classes in the member's own rows (for
    ``decision_function`` the mean of its out-of-fold scores), and 1 in an indicator column. There is an indicator
    for each modality that was missing in any row at ``fit``, and none for others. A row without any modality is
    left out of the final fit and gets the class frequencies of the training data, with one warning that
    says how many there are.

    **Classes.** Answers are aligned to ``classes_``, whatever classes a member has seen, in a fold or in all: a
    class that it has not seen has probability 0, and the lowest score of the row. A member with one class in its
    rows always answers with it, one without any row with the prior, with one warning.

    **What is in sample.** ``transform`` uses the members fitted on all rows. So ``fit_transform``, as in
    scikit-learn, gives in-sample answers; the final estimator never sees those.

    References
    ----------
    .. [1] Wolpert (1992). "Stacked generalization". Neural Networks 5(2).
    .. [2] Breiman (1996). "Stacked regressions". Machine Learning 24.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import MultinomialNB
    >>> from sklearn.pipeline import make_pipeline
    >>> from skmm import ModalityStackingClassifier
    >>> X = pd.DataFrame(
    ...     {
    ...         "caption": ["red fox", "grey fox", None, "red hen", "white hen", "small hen"],
    ...         "weight": [6.0, 5.5, 7.0, 1.5, 2.5, 2.0],
    ...     }
    ... )
    >>> y = ["mammal", "mammal", "mammal", "bird", "bird", "bird"]
    >>> stack = ModalityStackingClassifier(
    ...     [
    ...         ("text", make_pipeline(TfidfVectorizer(), MultinomialNB()), "caption"),
    ...         ("table", LogisticRegression(), ["weight"]),
    ...     ],
    ...     cv=3,
    ... ).fit(X, y)
    >>> stack.predict(pd.DataFrame({"caption": ["a hen", None], "weight": [1.0, 8.0]})).tolist()
    ['bird', 'mammal']
    >>> stack.get_feature_names_out().tolist()
    ['text__mammal', 'table__mammal', 'missingindicator__text']
    """

    _parameter_constraints: dict = {
        **ModalityStacking._parameter_constraints,
        "stack_method": [StrOptions({"auto", *_METHODS})],
    }

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        final_estimator: Any = None,
        *,
        cv: Any = None,
        stack_method: Literal["auto", "predict_proba", "decision_function", "predict"] = "auto",
        passthrough: Any = False,
        n_jobs: int | None = None,
        verbose: bool = False,
    ):
        self.modalities = modalities
        self.final_estimator = final_estimator
        self.cv = cv
        self.stack_method = stack_method
        self.passthrough = passthrough
        self.n_jobs = n_jobs
        self.verbose = verbose

    @available_if(_final_has("predict_proba"))
    def predict_proba(self, X: Table) -> np.ndarray | list[np.ndarray]:
        """Predict probabilities of the classes, if the final estimator does.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes) or list of ndarray of shape (n_samples, 2)
            Probabilities in the order of ``classes_``; for several labels, one array per label.
        """
        proba = self._final_answer(X, "predict_proba")
        return self._target.public_proba(self._target.cube(proba, "predict_proba"))

    @available_if(_final_has("decision_function"))
    def decision_function(self, X: Table) -> np.ndarray:
        """Return the scores of the classes, if the final estimator has them.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        scores : ndarray of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
            Scores; 1-D for two classes. A row without any modality has twice the frequency of the class, minus 1.
        """
        scores = self._final_answer(X, "decision_function")
        return scores[:, 0] if self._target.binary else scores

    def _fit(self, *args):
        super()._fit(*args)
        self.stack_method_ = list(self._methods.values())
        return self

    def _final_answer(self, X, method):
        meta, present = self._meta(X)
        answers = getattr(self.final_estimator_, method)(meta)
        answers = self._target.align(answers, self.final_estimator_, method)
        silent = ~present.any(axis=0)
        if silent.any():
            answers = np.where(silent[:, None], self._target.prior_answer(self._prior, method), answers)
        return answers

    def _default_final(self):
        # Before fit the kind of target is unknown; both have the same methods.
        several = getattr(getattr(self, "_target", None), "multilabel", False)
        return OneVsRestClassifier(LogisticRegression()) if several else LogisticRegression()

    def _check_final(self, final):
        if not is_classifier(final):
            raise ValueError(f"{type(self).__name__}: final_estimator must be a classifier, got {final!r}.")

    def _method_name(self, name, member):
        methods = _METHODS if self.stack_method == "auto" else (self.stack_method,)
        if is_regressor(member):
            methods = ("predict",)
        for method in methods:
            if hasattr(member, method):
                return method
        raise ValueError(
            f"{type(self).__name__}: modality {name!r} needs {self.stack_method} for "
            f"stack_method={self.stack_method!r}, which {type(member).__name__} does not have; use 'auto'."
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self._takes_labels(self._final())
        return tags


class ModalityStackingRegressor(RegressorMixin, ModalityStacking):
    """Learn to combine one regressor per modality, each on its own columns.

    A final regressor is fitted on what the members predict for rows that they were not fitted on, as by
    :class:`ModalityStackingClassifier`.

    Parameters
    ----------
    modalities : list of (str, regressor, columns) or "auto", default="auto"
        "auto" finds out at ``fit`` which modalities the columns of X hold, and chooses a transformer for each
        (:func:`~skmm.infer_modalities`), with a linear model behind it. In a triple:

        As for :class:`ModalityStackingClassifier`, with regressors that have ``fit`` and ``predict``.

    final_estimator : regressor or None, default=None
        Regressor that combines the predictions. None means :class:`~sklearn.linear_model.RidgeCV` after a
        :class:`~sklearn.preprocessing.StandardScaler`, so that the unit of y makes no difference.

    cv : int, splitter, iterable, "prefit" or None, default=None
        Splits of all rows, as for :class:`ModalityStackingClassifier`.

    passthrough : bool or transformer, default=False
        What the final estimator sees besides the predictions, as for :class:`ModalityStackingClassifier`.

    n_jobs : int or None, default=None
        Number of jobs over modalities and folds, as for :class:`ModalityStackingClassifier`.

    verbose : bool, default=False
        Whether to say which modality is being fitted on all rows, and how long it took.

    Attributes
    ----------
    modalities_ : list of (str, regressor, columns)
        The members fitted on all their rows, without what is dropped.

    named_modalities_ : Bunch
        The fitted members by name.

    final_estimator_ : regressor
        The fitted final estimator.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ModalityVotingRegressor : Combines the members by a mean or median.
    sklearn.ensemble.StackingRegressor : Members that all see the same columns.

    Notes
    -----
    Missing modalities, and what is in sample, are as in :class:`ModalityStackingClassifier`, with the mean of y in
    place of class frequencies.

    References
    ----------
    .. [1] Wolpert (1992). "Stacked generalization". Neural Networks 5(2).
    .. [2] Breiman (1996). "Stacked regressions". Machine Learning 24.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from skmm import ModalityStackingRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 3))
    >>> y = X[:, 0] + 2 * X[:, 2]
    >>> members = [("a", LinearRegression(), [0, 1]), ("b", LinearRegression(), [2])]
    >>> round(ModalityStackingRegressor(members).fit(X, y).score(X, y), 2)
    1.0
    """

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        final_estimator: Any = None,
        *,
        cv: Any = None,
        passthrough: Any = False,
        n_jobs: int | None = None,
        verbose: bool = False,
    ):
        self.modalities = modalities
        self.final_estimator = final_estimator
        self.cv = cv
        self.passthrough = passthrough
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _default_final(self):
        # Scaled, as a ridge's penalty on predictions would depend on the unit of y.
        ridge, scaler = RidgeCV(), StandardScaler()
        if get_config()["enable_metadata_routing"]:
            ridge.set_fit_request(sample_weight=True)
            scaler.set_fit_request(sample_weight=True)
        return make_pipeline(scaler, ridge)

    def _accepted(self, label, estimator, metadata):
        if label == "final_estimator" and self.final_estimator is None:
            weights = metadata.get("sample_weight")
            return {} if weights is None else {f"{step}__sample_weight": weights for step in estimator.named_steps}
        return super()._accepted(label, estimator, metadata)

    def _check_final(self, final):
        if not is_regressor(final):
            raise ValueError(f"{type(self).__name__}: final_estimator must be a regressor, got {final!r}.")

    def _method_name(self, name, member):
        return "predict"
