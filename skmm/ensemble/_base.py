"""What voting and stacking share: members on their columns, out-of-fold answers, groups, routing, names, tags."""

from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import ClassifierMixin, TransformerMixin, is_classifier, is_regressor
from sklearn.callback import CallbackSupportMixin
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .._columns import check_groups, check_splits, check_target, check_X
from .._composition import (
    ModalityComposition,
    PresentRows,
    apply_stages,
    as_transformer,
    consumed,
    dense_block,
    fit_stages,
    member_step,
    member_tags,
)
from .._sklearn import check_feature_names_in, check_sample_weight, fit_context, raise_for_params
from .._typing import Table
from .._warnings import warn
from ..encoders import infer_modalities
from ..fusion import ConcatFusion
from ._target import ClassTarget, RealTarget

if TYPE_CHECKING:
    import pandas as pd


class Member:
    """A fitted estimator of one modality.

    Parameters
    ----------
    name : str
        Name of the modality.

    estimator : estimator
        Fitted on the rows that have the modality; for a constant, a dummy that always answers with the prior.

    prior : ndarray
        Class frequencies, or means, of these rows.

    labels : ndarray of int or None, default=None
        Labels of a multilabel target that the estimator was fitted on; None means all.

    constant : str or None, default=None
        Why the member always answers with its prior; None if it does not.

    numeric : bool, default=False
        Whether the estimator is a regressor, whose answers are numbers whatever the target is.

    uncalibrated : str or None, default=None
        Why it was calibrated by another method than the one asked for; None if it was not.
    """

    def __init__(self, name, estimator, prior, labels=None, constant=None, numeric=False, uncalibrated=None):
        self.name = name
        self.estimator = estimator
        self.prior = prior
        self.labels = labels
        self.constant = constant
        self.numeric = numeric
        self.uncalibrated = uncalibrated

    def respond(self, X, present, method, target):
        """Return the answers in present rows, aligned with the target; NaN in the other rows."""
        if self.constant:
            answer = target.prior_answer(self.prior, method, self.numeric)
            return present.scatter(np.tile(answer, (len(present), 1)))
        present, answers = apply_stages(self.estimator, method, present, X)
        if answers is None:
            return np.full((present.n_samples, len(target.suffixes(method, self.numeric))), np.nan)
        aligned = target.align(answers, self.estimator, method, self.labels, self.prior)
        return present.scatter(np.asarray(aligned, dtype=float))


class DecisionComposition(CallbackSupportMixin, TransformerMixin, ModalityComposition):
    """Base of the estimators that join decisions of one estimator per modality.

    A subclass fits with ``_fit`` and says with ``_method_of`` which method of a modality's member it calls.
    """

    _member_methods = ("fit", "predict")
    _member_strings = ("drop",)

    # Groups that reach a search or a pipeline reach the inner splits as well, unless set_fit_request says otherwise.
    __metadata_request__fit = {"groups": True}

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Table,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        **params,
    ) -> Self:
        """Fit each member on the rows that have its modality, and learn from out-of-fold answers how to join them.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes, a matrix of 0 and 1 with one column per label, or numbers.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, not negative, for members, final estimator, learned weights, class frequencies and
            means. Of a pipeline the last step gets them; for other steps it takes
            ``sklearn.set_config(enable_metadata_routing=True)``.

        groups : array-like of shape (n_samples,), default=None
            Groups of rows that belong together, such as near-duplicates or the recordings of one person: weights,
            calibration and final estimator are learned from folds that have no group in common with the rows that a
            member is fitted on. With ``enable_metadata_routing=True``, groups passed to a search or pipeline arrive
            here.

        **params : dict
            Metadata that members, ``cv``, ``passthrough`` or the final estimator request; needs
            ``sklearn.set_config(enable_metadata_routing=True)``.

        Returns
        -------
        self : estimator
            The fitted estimator.
        """
        return self._fit(X, y, sample_weight, groups, params)

    def predict_by_modality(self, X: Table) -> "pd.DataFrame":
        """Predict with each member alone.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        predictions : pandas.DataFrame of shape (n_samples, n_members)
            One column per modality, or one per modality and label or output, named ``text__0``. None
            (NaN among numbers) where the modality is missing and its member abstains.
        """
        import pandas as pd

        X, answers, present = self._respond(X, "predict")
        columns, index = {}, getattr(X, "index", None)
        for member, answer, mask in zip(self._members, answers, present, strict=True):
            for suffix, values in zip(self._target.suffixes("predict", member.numeric), answer.T, strict=True):
                if isinstance(self._target, ClassTarget) and not member.numeric:
                    labels = self._target.decode_column(values[mask].astype(int))
                    values = labels
                    if not mask.all():
                        values = np.full(len(mask), None, dtype=object)
                        values[mask] = labels
                        # The dtype is repeated: without it pandas turns strings and None into strings and NaN.
                        values = pd.Series(values, index=index, dtype=object)
                columns[member.name if suffix is None else f"{member.name}__{suffix}"] = values
        return pd.DataFrame(columns, index=index)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Get the names of the columns that ``transform`` returns.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the input columns; they must be those seen in ``fit``.

        Returns
        -------
        feature_names_out : ndarray of str objects
            ``text`` for a member with one column, ``text__cat`` for its column of the class ``cat``.
        """
        check_is_fitted(self)
        check_feature_names_in(self, input_features)
        return np.array(self._output_names(), dtype=object)

    def get_metadata_routing(self) -> MetadataRouter:
        """Get the routing of metadata to the members.

        Returns
        -------
        routing : MetadataRouter
            Routing information.
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        fit = MethodMapping().add(caller="fit", callee="fit")
        for name, member in self._active_members():
            router.add(method_mapping=fit, **{name: self._as_fitted(name, member)})
        if hasattr(self.cv, "split"):
            router.add(cv=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        return router

    def _infer(self, X, y):
        """Return a transformer and a linear model for each modality that X holds."""
        return [
            (name, make_linear_member(name, transformer, is_classifier(self)), columns)
            for name, transformer, columns in infer_modalities(X, y)
        ]

    def _active_members(self):
        active = set(self._active())
        return [(name, member) for name, member, _ in self._entries if name in active]

    def _as_fitted(self, name, member):
        """Return a member as it will be fitted, for its methods and metadata requests."""
        return member

    def _calibrate(self, name, stage, y, groups):
        """Return the last stage of a member as it will be fitted, and why it is not the one asked for, or None."""
        return stage, None

    def _check_members(self):
        """Check modalities and that each member is of the right kind."""
        self._check_modalities()
        if is_classifier(self):
            return
        for name, member in self._active_members():
            if is_classifier(member):
                raise ValueError(
                    f"{type(self).__name__}: modality {name!r} needs a regressor, got {type(member).__name__}; "
                    f"for classes use {type(self).__name__.replace('Regressor', 'Classifier')}."
                )

    def _begin(self, X, y, sample_weight, groups, params):
        """Check all arguments of ``fit``; return X, y, weights and groups as they will be used."""
        raise_for_params(params, self, "fit")
        self._check_members()
        X = self._fit_columns(X, y)
        classifier = is_classifier(self)
        y = check_target(X, y, type(self).__name__, numeric=not classifier)
        self._target = ClassTarget(y) if classifier else RealTarget(y)
        if classifier:
            self.classes_ = self._target.public_classes
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, np.empty(len(y)), ensure_non_negative=True)
        groups = check_groups(groups, len(y))
        self._prior = self._target.prior(y, sample_weight)
        return Bunch(X=X, y=y, weights=sample_weight, groups=groups)

    def _route(self, data, params, final=None):
        """Return the metadata of each member and of the final estimator.

        Without routing, weights go to all of them, and groups to those that take them.
        """
        metadata = {"sample_weight": data.weights, "groups": data.groups}
        metadata = {key: values for key, values in metadata.items() if values is not None}
        if get_config()["enable_metadata_routing"]:
            return process_routing(self, "fit", **params, **metadata)
        routed = {}
        for name, member in self._active_members():
            routed[name] = Bunch(fit=self._accepted(f"modality {name!r}", member, metadata))
        if final is not None:
            routed["final_estimator"] = Bunch(fit=self._accepted("final_estimator", final, metadata))
        return routed

    def _accepted(self, label, estimator, metadata):
        """Return what ``fit`` of an estimator takes of weights and groups; raise if it takes no weights."""
        accepted = {key: values for key, values in metadata.items() if has_fit_parameter(estimator, key)}
        if "sample_weight" in metadata and "sample_weight" not in accepted:
            name, model = estimator.steps[-1] if isinstance(estimator, Pipeline) else (None, estimator)
            if not has_fit_parameter(model, "sample_weight"):
                raise TypeError(
                    f"{type(self).__name__}: {label}, {type(model).__name__}, does not take sample weights; use "
                    "another estimator, or leave the weights out."
                )
            # The last step of a pipeline gets them; for other steps it takes metadata routing.
            accepted[f"{name}__sample_weight"] = metadata["sample_weight"]
        return accepted

    def _splits(self, data, routed):
        """Return the splits of all rows, made once; with groups, no group lies on both sides of a split."""
        owner, y = type(self).__name__, data.y
        if data.groups is not None and (self.cv is None or isinstance(self.cv, Integral)):
            stratified = is_classifier(self) and y.ndim == 1
            splits = grouped_splits(5 if self.cv is None else self.cv, y, data.groups, stratified, owner)
        else:
            cv = check_cv(self.cv, y, classifier=is_classifier(self))
            metadata = {} if data.groups is None else {"groups": data.groups}
            if get_config()["enable_metadata_routing"] and hasattr(self.cv, "split"):
                metadata = routed["cv"].split
            splits = list(cv.split(data.X, y, **metadata))
        return check_splits(splits, len(y), owner)

    def _begin_progress(self, data, splits, n_other_steps=0):
        """Tell callbacks that a fit begins, with a step for each fit of a member and others; return its context."""
        n_member_fits = 0 if splits is None else len(self._active()) * (1 + len(splits))
        progress = self._init_callback_context(max_subtasks=n_member_fits + n_other_steps)
        progress.call_on_fit_task_begin(estimator=self, X=data.X, y=data.y)
        return progress

    def _fit_members(self, data, routed, splits, progress):
        """Fit all members on all their rows and, if there are splits, on folds.

        Return the out-of-fold answers of each member, NaN where it abstains (no answers without splits), and the mask
        of shape (n_members, n_samples) of the rows that have its modality and, with splits, its answer.
        """
        jobs, masks = [], []
        for name, member in self._active_members():
            X = self._select(data.X, name, reset=True)
            present = PresentRows(X, name)
            masks.append(present.mask)
            fit = partial(self._fit_member, name, member, X, data, routed[name].fit)
            step = member_step(progress, f"modality {name}", member)
            jobs.append(delayed(fit)(present, slice(None), step, verbose=self.verbose))
            method = self._method_of(name)
            for fold, (train, test) in enumerate(splits, start=1):
                step = member_step(progress, f"modality {name}, fold {fold}", member)
                jobs.append(delayed(_fit_and_respond)(fit, X, present, train, test, method, self._target, step))
        # Threads share the data, and one copy of each encoder's weights; processes would each copy both.
        results = Parallel(n_jobs=self.n_jobs, prefer="threads")(jobs)
        stride = 1 + len(splits)
        self._members = results[::stride]
        folds = [results[first + 1 : first + stride] for first in range(0, len(results), stride)]
        self._set_modalities()
        self._warn_of_members(folds)
        if not splits:
            return [], np.array(masks)
        answers = [
            self._out_of_fold(member, fold, splits, len(data.y))
            for member, fold in zip(self._members, folds, strict=True)
        ]
        return answers, np.array([answered(mask, answer) for mask, answer in zip(masks, answers, strict=True)])

    def _out_of_fold(self, member, folds, splits, n_samples):
        """Return the answers of one member in all rows, each from the fold that left the row out."""
        width = len(self._target.suffixes(self._method_of(member.name), member.numeric))
        answers = np.full((n_samples, width), np.nan)
        for (_, test), fold in zip(splits, folds, strict=True):
            answers[test] = fold.answers
        return answers

    def _fit_member(self, name, member, X, data, params, present, rows, step, verbose=False):
        """Fit a clone of a member on its present rows and return it as a :class:`Member`.

        X, the columns of the modality, ``data``, which :meth:`_begin` returned, and ``params``, the metadata of
        ``fit``, have all rows, of which the present ones are taken where they are used. The prior of ``rows`` stands
        in for a member without any row to be fitted on.
        """
        target, numeric = self._target, not is_classifier(self) or is_regressor(member)

        def fit_last(stage, inputs, present):
            empty = len(present) == 0
            y = data.y[rows] if empty else present.take(data.y)
            weights = data.weights
            if weights is not None:
                weights = weights[rows] if empty else present.take(weights)
            prior = target.prior(y, weights)
            labels = target.varying(y)
            if empty or len(labels) == 0:
                constant = "no row" if empty else "only one class"
                dummy = target.dummy(y)
                return dummy, Member(name, dummy, prior, constant=constant, numeric=numeric)
            y_fit = target.to_fit(y, member)
            if y.ndim == 1 or len(labels) == y.shape[1]:
                labels = None
            else:
                y_fit = y_fit[:, labels[0]] if len(labels) == 1 else y_fit[:, labels]
            requested = present.take_params(X, params)
            if isinstance(stage, Pipeline):
                of_steps = {key: values for key, values in requested.items() if "__" in key}
                others = {key: values for key, values in requested.items() if "__" not in key}
                requested = {**of_steps, **consumed(stage, "fit", others)}
            final, uncalibrated = self._calibrate(name, stage, y_fit, present.take(data.groups))
            present.call(final.fit, inputs, y_fit, **requested)
            return final, Member(name, final, prior, labels, numeric=numeric, uncalibrated=uncalibrated)

        message = f"modality {name}" if verbose else None
        estimator, fitted, leading = fit_stages(self, member, present, X, data.y, params, step, fit_last, message)
        if leading and estimator is fitted.estimator and not fitted.constant:
            # Calibrated: another estimator than the member's own last stage.
            estimator = Pipeline([*(pair for stage in leading for pair in stage.steps), ("calibrated", estimator)])
        fitted.estimator = estimator
        return fitted

    def _answer_names(self, member, n_skipped=0):
        """Return the names of the columns of a member's answers, without the first ones."""
        suffixes = self._target.suffixes(self._method_of(member.name), member.numeric)
        return [member.name if suffix is None else f"{member.name}__{suffix}" for suffix in suffixes[n_skipped:]]

    def _set_modalities(self):
        columns_of = {name: columns for name, _, columns in self._entries}
        self.modalities_ = [(member.name, member.estimator, columns_of[member.name]) for member in self._members]

    def _warn_of_members(self, folds):
        """Warn once of members that are constants, and once of those calibrated by another method, in any fit."""
        constants, uncalibrated = [], []
        for member, results in zip(self._members, folds, strict=True):
            for attribute, lines in (("constant", constants), ("uncalibrated", uncalibrated)):
                reason = getattr(member, attribute)
                reasons = [getattr(result, attribute) for result in results if getattr(result, attribute)]
                if reason:
                    lines.append(f"modality {member.name!r} has {reason} to be fitted on")
                elif reasons:
                    lines.append(
                        f"modality {member.name!r} has {reasons[0]} to be fitted on in {len(reasons)} of "
                        f"{len(results)} folds"
                    )
        if constants:
            warn(
                f"{type(self).__name__}: {'; '.join(constants)}. Such a member always answers with the class "
                "frequencies, or the mean, of the rows it has (without any: of all rows)."
            )
        if uncalibrated:
            warn(
                f"{type(self).__name__}: {'; '.join(uncalibrated)}, while calibration='temperature' needs 2 of each "
                "class; such a member is calibrated by 'sigmoid'."
            )

    def _presents(self, X):
        """Check X for prediction; return each member's columns and the rows that have its modality."""
        check_is_fitted(self)
        X = check_X(self, X, reset=False)
        columns = [self._select(X, member.name, reset=False) for member in self._members]
        presents = [PresentRows(items, member.name) for items, member in zip(columns, self._members, strict=True)]
        return X, columns, presents

    def _respond(self, X, method=None):
        """Ask all members; return X, their answers, and where they answered of shape (n_members, n_samples)."""
        X, columns, presents = self._presents(X)
        answers = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(member.respond)(items, present, method or self._method_of(member.name), self._target)
            for member, items, present in zip(self._members, columns, presents, strict=True)
        )
        masks = [present.mask for present in presents]
        return X, answers, np.array([answered(mask, answer) for mask, answer in zip(masks, answers, strict=True)])

    def _warn_without_modality(self, present):
        """Warn once of rows that have no modality at all."""
        count = int((~present.any(axis=0)).sum())
        if count:
            answer = "the class frequencies" if is_classifier(self) else "the mean"
            warn(
                f"{type(self).__name__}: {count} of {present.shape[1]} rows have no modality; they are answered with "
                f"{answer} of the training data."
            )

    def _takes_labels(self, *estimators):
        """Tell whether all members, and these other estimators, take a target of several labels."""
        if self._is_auto:
            # Logistic regression takes one class per row.
            return False
        try:
            members = [member for _, member in self._active_members()]
            tags = [get_tags(estimator).classifier_tags for estimator in [*members, *estimators]]
        except Exception:
            # Tags are read before fit has checked the parameters.
            return False
        return all(classifier_tags is None or classifier_tags.multi_label for classifier_tags in tags)

    def _sk_visual_block_(self):
        return self._member_block()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            members = [member_tags(member) for _, member in self._active_members()]
        except Exception:
            # Tags are read before fit has checked the parameters.
            return tags
        tags.input_tags.allow_nan = all(member.input_tags.allow_nan for member in members)
        tags.input_tags.string = self._is_auto or any(member.input_tags.string for member in members)
        # A classifier's multi_output would mean several targets of several classes each.
        is_regression = not isinstance(self, ClassifierMixin)
        tags.target_tags.multi_output = is_regression and all(member.target_tags.multi_output for member in members)
        tags.transformer_tags.preserves_dtype = []
        return tags


def make_linear_member(name, transformer, classifier):
    """Return a pipeline of a transformer, ConcatFusion and a linear model; the wider the features, the more penalty."""
    # Counts of words are sparse.
    dense = FunctionTransformer(dense_block, kw_args={"name": name})
    if classifier:
        model = LogisticRegression(C=0.1 if isinstance(transformer, Pipeline) else 0.01, max_iter=1000)
    else:
        model = RidgeCV(alphas=np.logspace(-2, 6, 17))
    return make_pipeline(as_transformer(transformer, name), dense, ConcatFusion(), model)


def _fit_and_respond(fit, X, present, train, test, method, target, step):
    """Fit a member on the present rows of a fold; return its answers in the rows left out, and what is odd about it."""
    member = fit(present.within(train), train, step)
    answers = member.respond(X, present.within(test), method, target)[test]
    return Bunch(answers=answers, constant=member.constant, uncalibrated=member.uncalibrated)


def answered(mask, answer):
    """Return the rows in which a member answered: those of the mask, less those in which its answer is all NaN."""
    return mask & ~np.isnan(answer).all(axis=1)


def grouped_splits(n_splits, y, groups, stratified, owner):
    """Return splits that keep each group on one side, ``stratified`` with the shares of classes that groups allow."""
    n_groups = len(np.unique(groups))
    if n_groups < n_splits:
        raise ValueError(
            f"{owner}: {n_splits} folds need at least {n_splits} groups, got {n_groups}; pass a smaller cv, or no "
            "groups."
        )
    splitter = StratifiedGroupKFold(n_splits) if stratified else GroupKFold(n_splits)
    return list(splitter.split(np.zeros(len(y)), y, groups))
