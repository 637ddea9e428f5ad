"""Stacking over modalities: a final estimator learns from out-of-fold answers of the members."""

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils.metaestimators import available_if

from .._sklearn import StrOptions, fit_context
from ._stacking_base import METHODS, ModalityStacking, final_has


class ModalityStackingClassifier(ClassifierMixin, ModalityStacking):
    """Learn to combine one classifier per modality, each on its own columns.

    A final classifier is fitted on what the members say of rows that they were not fitted on: the splits of
    ``cv`` are made once on all rows, and each member is fitted and asked on those of its rows that fall
    into them. The members are then fitted again on all their rows.

    Parameters
    ----------
    modalities : list of (str, classifier, columns)
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
        exactly once. ``"prefit"`` takes members that are fitted already, as they are; then X must not be the
        data that they were fitted on.

    stack_method : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        What members are asked. ``"auto"`` takes the first of these that a member has.

    passthrough : bool or transformer, default=False
        What the final estimator sees besides the answers: nothing; True, the numeric columns of
        the modalities; or what a transformer makes of X, such as the fused features of a
        :class:`~skmm.ModalityFuser`. A transformer whose tags say that it needs y is fitted out of fold too. Missing
        cells are replaced by their column's mean.

    n_jobs : int or None, default=None
        Number of fits at the same time. None means 1. They run in threads, which share the data and the
        weights of encoders; a ``joblib.parallel_config(backend="loky")`` changes that.

    verbose : bool, default=False
        Whether to say which modality is being fitted on all rows, and how long it took.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or list of ndarray
        Classes in all rows; for several labels, one array per label.

    estimators_ : list of estimators
        The members fitted on all their rows, without what is dropped.

    named_estimators_ : Bunch
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
        "stack_method": [StrOptions({"auto", *METHODS})],
    }

    def __init__(
        self,
        modalities,
        final_estimator=None,
        *,
        cv=None,
        stack_method="auto",
        passthrough=False,
        n_jobs=None,
        verbose=False,
    ):
        self.modalities = modalities
        self.final_estimator = final_estimator
        self.cv = cv
        self.stack_method = stack_method
        self.passthrough = passthrough
        self.n_jobs = n_jobs
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, **params):
        """Fit the final estimator on out-of-fold answers, and the members on all their rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes, or a matrix of 0 and 1.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the members and the final estimator. Those that are pipelines need
            ``sklearn.set_config(enable_metadata_routing=True)``.

        **params : dict
            Metadata that members, ``cv``, ``passthrough`` or the final estimator request, such as ``groups``;
            needs ``sklearn.set_config(enable_metadata_routing=True)``.

        Returns
        -------
        self : ModalityStackingClassifier
            The fitted stacker.
        """
        self._fit(X, y, sample_weight, params)
        self.stack_method_ = list(self._methods.values())
        return self

    @available_if(final_has("predict"))
    def predict(self, X):
        """Predict classes.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Classes.
        """
        meta, present = self._meta(X)
        self._warn_absent(present)
        y = np.asarray(self.final_estimator_.predict(meta))
        if not present.any(axis=0).all():
            y = y.copy()
            y[~present.any(axis=0)] = self._target.decode(np.argmax(self._prior, axis=1)[None])
        return y

    @available_if(final_has("predict_proba"))
    def predict_proba(self, X):
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

    @available_if(final_has("decision_function"))
    def decision_function(self, X):
        """Give the scores of the classes, if the final estimator does.

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

    def _final_answer(self, X, method):
        meta, present = self._meta(X)
        self._warn_absent(present)
        answers = getattr(self.final_estimator_, method)(meta)
        answers = self._target.align(answers, self.final_estimator_, method)
        absent = ~present.any(axis=0)
        if absent.any():
            answers = np.where(absent[:, None], self._target.prior_answer(self._prior, method), answers)
        return answers

    def _default_final(self):
        # Before fit the kind of target is unknown; both have the same methods.
        several = getattr(getattr(self, "_target", None), "multilabel", False)
        return OneVsRestClassifier(LogisticRegression()) if several else LogisticRegression()

    def _check_final(self, final):
        if not is_classifier(final):
            raise ValueError(f"{type(self).__name__}: final_estimator must be a classifier, got {final!r}.")

    def _method_name(self, name, member):
        wanted = METHODS if self.stack_method == "auto" else (self.stack_method,)
        if is_regressor(member):
            wanted = ("predict",)
        for method in wanted:
            if hasattr(member, method):
                return method
        raise ValueError(
            f"{type(self).__name__}: modality {name!r} needs {self.stack_method} for "
            f"stack_method={self.stack_method!r}, which {type(member).__name__} does not have; use 'auto'."
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        final = self._default_final() if self.final_estimator is None else self.final_estimator
        tags.classifier_tags.multi_label = self._takes_labels(final)
        return tags


class ModalityStackingRegressor(RegressorMixin, ModalityStacking):
    """Learn to combine one regressor per modality, each on its own columns.

    A final regressor is fitted on what the members predict for rows that they were not fitted on: the splits of
    ``cv`` are made once on all rows, and each member is fitted and asked on those of its rows that fall
    into them. The members are then fitted again on all their rows.

    Parameters
    ----------
    modalities : list of (str, regressor, columns)
        - name: unique, without ``__``;
        - regressor: an estimator with ``fit`` and ``predict``, often a pipeline that begins with an encoder.
          ``"drop"`` leaves it out;
        - columns: name, position, list of these, slice, mask or callable, as in
          :class:`~sklearn.compose.ColumnTransformer`. Two modalities may select the same columns.

    final_estimator : regressor or None, default=None
        Regressor that combines the predictions. None means :class:`~sklearn.linear_model.RidgeCV`.

    cv : int, splitter, iterable, "prefit" or None, default=None
        Splits of all rows, as in :class:`~sklearn.model_selection.GridSearchCV`; each row is left out
        exactly once. ``"prefit"`` takes members that are fitted already, as they are; then X must not be the
        data that they were fitted on.

    passthrough : bool or transformer, default=False
        What the final estimator sees besides the predictions: nothing; True, the numeric columns of
        the modalities; or what a transformer makes of X, such as the fused features of a
        :class:`~skmm.ModalityFuser`. A transformer whose tags say that it needs y is fitted out of fold too. Missing
        cells are replaced by their column's mean.

    n_jobs : int or None, default=None
        Number of fits at the same time. None means 1. They run in threads, which share the data and the
        weights of encoders; a ``joblib.parallel_config(backend="loky")`` changes that.

    verbose : bool, default=False
        Whether to say which modality is being fitted on all rows, and how long it took.

    Attributes
    ----------
    estimators_ : list of regressors
        The members fitted on all their rows, without what is dropped.

    named_estimators_ : Bunch
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
    A member abstains in rows in which all its columns are missing: it is neither fitted on them nor asked. The final
    estimator then sees the mean of y in the member's own rows, and 1 in an indicator column. There is an indicator
    for each modality that was missing in any row at ``fit``, and none for others. A row without any modality is
    left out of the final fit and gets the mean of the training data, with one warning that says how
    many there are. A member without any row to be fitted on always predicts the mean, with one warning.

    ``transform`` uses the members fitted on all rows. So ``fit_transform``, as in scikit-learn, gives in-sample
    predictions; the final estimator never sees those.

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

    _parameter_constraints: dict = {**ModalityStacking._parameter_constraints}

    def __init__(self, modalities, final_estimator=None, *, cv=None, passthrough=False, n_jobs=None, verbose=False):
        self.modalities = modalities
        self.final_estimator = final_estimator
        self.cv = cv
        self.passthrough = passthrough
        self.n_jobs = n_jobs
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, **params):
        """Fit the final estimator on out-of-fold predictions, and the members on all their rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the members and the final estimator. Those that are pipelines need
            ``sklearn.set_config(enable_metadata_routing=True)``.

        **params : dict
            Metadata that members, ``cv``, ``passthrough`` or the final estimator request, such as ``groups``;
            needs ``sklearn.set_config(enable_metadata_routing=True)``.

        Returns
        -------
        self : ModalityStackingRegressor
            The fitted stacker.
        """
        return self._fit(X, y, sample_weight, params)

    def predict(self, X):
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
        meta, present = self._meta(X)
        self._warn_absent(present)
        y = np.asarray(self.final_estimator_.predict(meta))
        absent = ~present.any(axis=0)
        if absent.any():
            y = np.array(y, dtype=float)
            y[absent] = self._prior[0] if y.ndim == 1 else self._prior
        return y

    def _default_final(self):
        return RidgeCV()

    def _check_final(self, final):
        if not is_regressor(final):
            raise ValueError(f"{type(self).__name__}: final_estimator must be a regressor, got {final!r}.")

    def _method_name(self, name, member):
        return "predict"
