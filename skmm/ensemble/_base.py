"""What voting and stacking share: members on their own columns, out-of-fold answers, routing, names, tags."""

import warnings

import numpy as np
from sklearn import get_config
from sklearn.base import ClassifierMixin, TransformerMixin, is_classifier, is_regressor
from sklearn.callback import CallbackSupportMixin
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .._composition import ModalityComposition, PresentRows, member_tags, step_of
from .._sklearn import check_feature_names_in, check_sample_weight, raise_for_params
from .._validation import check_target, check_X
from ._members import MemberSpec, calibrated, check_partition, fit_and_respond, fit_member
from ._target import ClassTarget, RealTarget


class DecisionComposition(CallbackSupportMixin, TransformerMixin, ModalityComposition):
    """Base of the estimators that join decisions of one estimator per modality.

    A subclass says with ``_method_of`` what it asks a member.
    """

    _member_methods = ("fit", "predict")
    _member_strings = ("drop",)

    @property
    def named_estimators_(self):
        """Bunch of the fitted members by name."""
        check_is_fitted(self)
        return Bunch(**{member.name: member.estimator for member in self._members})

    def predict_by_modality(self, X):
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

        X, presents = self._presents(X)
        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads")
        answers = parallel(
            delayed(member.respond)(self._select(X, member.name), presents[member.name], "predict", self._target)
            for member in self._members
        )
        columns, index = {}, getattr(X, "index", None)
        for member, answer in zip(self._members, answers, strict=True):
            mask = answered(presents[member.name].mask, answer)
            for suffix, values in zip(self._target.suffixes("predict", member.numeric), answer.T, strict=True):
                if isinstance(self._target, ClassTarget) and not member.numeric:
                    decoded = values[mask].astype(int)
                    if not self._target.multilabel:
                        decoded = self._target.classes[0][decoded]
                    values = decoded
                    if not mask.all():
                        values = np.full(len(mask), None, dtype=object)
                        values[mask] = decoded
                        # Said twice, or pandas reads strings and None as strings and NaN.
                        values = pd.Series(values, index=index, dtype=object)
                columns[member.name if suffix is None else f"{member.name}__{suffix}"] = values
        return pd.DataFrame(columns, index=index)

    def get_feature_names_out(self, input_features=None):
        """Get the names of what ``transform`` gives.

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

    def get_metadata_routing(self):
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

    def _active_members(self):
        active = set(self._active())
        return [(name, member) for name, member, _ in self.modalities if name in active]

    def _calibration_of(self, name):
        """Give the method by which a member is calibrated, or None."""
        return None

    def _as_fitted(self, name, member):
        """Give a member as it will be fitted, for its methods and metadata requests."""
        method = self._calibration_of(name)
        if method is None:
            return member
        wrapped = calibrated(member, method)
        if get_config()["enable_metadata_routing"]:
            # The wrapper hands weights on, so it wants them if what it wraps does.
            router = MetadataRouter(owner=self).add(
                member=member, method_mapping=MethodMapping().add(caller="fit", callee="fit")
            )
            wants = "sample_weight" in router.consumes("fit", ["sample_weight"])
            wrapped.set_fit_request(sample_weight=wants)
        return wrapped

    def _check_members(self):
        """Check modalities and that each member is of the right kind."""
        self._check_modalities()
        if is_classifier(self):
            return
        for name, member in self._active_members():
            if is_classifier(member):
                raise ValueError(
                    f"{type(self).__name__}: modality {name!r} needs a regressor, got {type(member).__name__}."
                )

    def _route(self, sample_weight, params, others=()):
        """Give each member its metadata; without routing, the sample weights go to all that fit."""
        given = params if sample_weight is None else {**params, "sample_weight": sample_weight}
        if get_config()["enable_metadata_routing"]:
            return process_routing(self, "fit", **given)
        parts = [*((f"modality {name!r}", name, member) for name, member in self._active_members()), *others]
        for label, _, part in parts:
            if sample_weight is not None and not has_fit_parameter(part, "sample_weight"):
                remedy = (
                    "a pipeline takes them only after sklearn.set_config(enable_metadata_routing=True), with "
                    "set_fit_request(sample_weight=True) on the steps that want them"
                    if isinstance(part, Pipeline)
                    else "use another estimator, or leave the weights out"
                )
                raise TypeError(
                    f"{type(self).__name__}: {label}, {type(part).__name__}, does not take sample weights; {remedy}."
                )
        return {key: Bunch(fit=given) for _, key, _ in parts}

    def _begin(self, X, y, sample_weight, params):
        """Check all that is given to ``fit``; give X, y and weights as they will be used."""
        raise_for_params(params, self, "fit")
        self._check_members()
        X = self._fit_columns(X)
        classifier = is_classifier(self)
        y = check_target(X, y, type(self).__name__, numeric=not classifier)
        self._target = ClassTarget(y) if classifier else RealTarget(y)
        if classifier:
            self.classes_ = self._target.public_classes
        weights = None if sample_weight is None else check_sample_weight(sample_weight, np.empty(len(y)))
        self._prior = self._target.prior(y, weights)
        return X, y, weights

    def _splits(self, X, y, routed):
        """Give the splits of all rows, made once."""
        cv = check_cv(self.cv, y, classifier=is_classifier(self))
        request = routed.get("cv") if hasattr(self.cv, "split") else None
        metadata = request.split if request else {}
        splits = [(np.asarray(train), np.asarray(test)) for train, test in cv.split(X, y, **metadata)]
        splits = [tuple(np.flatnonzero(rows) if rows.dtype == bool else rows for rows in split) for split in splits]
        check_partition(splits, len(y), type(self).__name__)
        return splits

    def _begin_progress(self, X, y, n_steps):
        """Tell callbacks that a fit of that many steps begins; give the context of the fit."""
        progress = self._init_callback_context(max_subtasks=n_steps)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        return progress

    def _n_member_fits(self, splits):
        """Number of fits of members, each a step of the fit."""
        return len(self._active()) * (1 + len(splits))

    def _fit_members(self, X, y, weights, routed, splits, progress):
        """Fit all members on all their rows and, given splits, on folds as well; give out-of-fold answers.

        Returns
        -------
        answers : list of ndarray of shape (n_samples, n_columns)
            Out-of-fold answers of each member, NaN where it abstains; empty without splits.

        present : ndarray of shape (n_members, n_samples), dtype bool
            Where each member's modality is present and, given splits, its member answered.
        """
        # Threads share the data, and one copy of each encoder's weights; both would be copied to processes.
        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads")
        jobs, presents = [], []
        for name, member in self._active_members():
            own = self._select(X, name)
            present = PresentRows(own, name)
            presents.append(present)
            numeric = not is_classifier(self) or is_regressor(member)
            spec = MemberSpec(
                owner=self,
                name=name,
                estimator=member,
                X=own,
                params=routed[name].fit,
                numeric=numeric,
                calibration=self._calibration_of(name),
                verbose=self.verbose,
            )
            step = step_of(progress, f"modality {name}", member)
            jobs.append(delayed(fit_member)(spec, y, weights, present, slice(None), self._target, step))
            quiet = MemberSpec(**{**spec, "verbose": False})
            method = self._method_of(name, member)
            for fold, (train, test) in enumerate(splits, start=1):
                step = step_of(progress, f"modality {name}, fold {fold}", member)
                job = delayed(fit_and_respond)
                jobs.append(job(quiet, y, weights, present, train, test, method, self._target, step))
        done = parallel(jobs)
        step = 1 + len(splits)
        self._members = done[::step]
        self.estimators_ = [member.estimator for member in self._members]
        answers = []
        for first, member in zip(range(0, len(done), step), self._members, strict=True):
            width = len(self._target.suffixes(self._method_of_member(member), member.numeric))
            full = np.full((len(y), width), np.nan)
            for (_, test), (part, _) in zip(splits, done[first + 1 : first + step], strict=True):
                full[test] = part
            answers.append(full)
        self._warn_constant([[reason for _, reason in done[i + 1 : i + step]] for i in range(0, len(done), step)])
        masks = [present.mask for present in presents]
        if not splits:
            return [], np.array(masks)
        return answers, np.array([answered(mask, answer) for mask, answer in zip(masks, answers, strict=True)])

    def _method_of_member(self, member):
        return self._method_of(member.name, dict(self._active_members())[member.name])

    def _warn_constant(self, folds):
        """Say in one warning which members are constants, in all or in some folds."""
        found = []
        for member, reasons in zip(self._members, folds, strict=True):
            constant = [reason for reason in reasons if reason]
            if member.constant:
                found.append(f"modality {member.name!r} has {member.constant} to be fitted on")
            elif constant:
                found.append(
                    f"modality {member.name!r} has {constant[0]} to be fitted on in {len(constant)} of "
                    f"{len(reasons)} folds"
                )
        if found:
            warnings.warn(
                f"{type(self).__name__}: {'; '.join(found)}. Such a member always answers with the class "
                "frequencies, or the mean, of the rows it has (without any: of all rows).",
                UserWarning,
                stacklevel=4,
            )

    def _presents(self, X):
        """Check X for prediction; find the present rows of each member, and warn of rows that have none."""
        check_is_fitted(self)
        X = check_X(self, X, reset=False)
        presents = {member.name: PresentRows(self._select(X, member.name), member.name) for member in self._members}
        return X, presents

    def _respond(self, X):
        """Ask all members; give answers, and where they are present of shape (n_members, n_samples)."""
        X, presents = self._presents(X)
        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads")
        answers = parallel(
            delayed(member.respond)(
                self._select(X, member.name), presents[member.name], self._method_of_member(member), self._target
            )
            for member in self._members
        )
        masks = [present.mask for present in presents.values()]
        return X, answers, np.array([answered(mask, answer) for mask, answer in zip(masks, answers, strict=True)])

    def _warn_absent(self, present):
        """Warn once of rows that have no modality at all."""
        count = int((~present.any(axis=0)).sum())
        if count:
            answer = "the class frequencies" if is_classifier(self) else "the mean"
            warnings.warn(
                f"{type(self).__name__}: {count} of {present.shape[1]} rows have no modality; they are answered with "
                f"{answer} of the training data.",
                UserWarning,
                stacklevel=4,
            )

    def _takes_labels(self, *others):
        """Say whether all members, and the other estimators given, take a target of several labels."""
        try:
            members = [member for _, member in self._active_members()]
            kinds = [get_tags(estimator).classifier_tags for estimator in [*members, *others]]
        except Exception:
            # Tags are read before fit has said what is wrong with the parameters.
            return False
        return all(kind is None or kind.multi_label for kind in kinds)

    def _sk_visual_block_(self):
        return self._member_block()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            members = [member_tags(member) for _, member in self._active_members()]
        except Exception:
            # Tags are read before fit has said what is wrong with the parameters.
            return tags
        tags.input_tags.allow_nan = all(member.input_tags.allow_nan for member in members)
        tags.input_tags.string = any(member.input_tags.string for member in members)
        # Of a classifier this would mean several targets of several classes each.
        several = not isinstance(self, ClassifierMixin)
        tags.target_tags.multi_output = several and all(member.target_tags.multi_output for member in members)
        tags.transformer_tags.preserves_dtype = []
        return tags


def answered(mask, answer):
    """Take out of a member's present rows those that its own encoder could not read: NaN throughout."""
    return mask & ~np.isnan(answer).all(axis=1)
