"""What both stackers share: the matrix that the final estimator sees, and how it is fitted."""

from numbers import Integral

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.dummy import DummyClassifier
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import MethodMapping
from sklearn.utils.validation import check_is_fitted

from .._composition import propagated
from .._sklearn import HasMethods, StrOptions, VisualBlock
from ._base import DecisionComposition
from ._members import Member
from ._passthrough import Columns, Features

METHODS = ("predict_proba", "decision_function", "predict")


def final_has(method):
    """Say whether the final estimator, fitted or as given, has a method."""

    def check(self):
        final = getattr(self, "final_estimator_", self.final_estimator)
        return hasattr(self._default_final() if final is None else final, method)

    return check


class ModalityStacking(DecisionComposition):
    """What both stackers share: the matrix that the final estimator sees, and how it is fitted."""

    _parameter_constraints: dict = {
        "modalities": [list, tuple],
        "final_estimator": [HasMethods(["fit", "predict"]), None],
        "cv": ["cv_object", StrOptions({"prefit"})],
        "passthrough": ["boolean", HasMethods(["fit", "transform"])],
        "n_jobs": [Integral, None],
        "verbose": ["boolean"],
    }

    def _fit(self, X, y, sample_weight, params):
        X, y, weights = self._begin(X, y, sample_weight, params)
        final = self._default_final() if self.final_estimator is None else clone(self.final_estimator)
        self._check_final(final)
        self._methods = {name: self._method_name(name, member) for name, member in self._active_members()}
        others = [("final_estimator", "final_estimator", final)]
        routed = self._route(sample_weight if weights is None else weights, params, others)
        prefit = isinstance(self.cv, str)
        splits = () if prefit else self._splits(X, y, routed)
        features = None if isinstance(self.passthrough, bool) else Features(self.passthrough)
        folds = () if features is None else features.folds_of(splits)
        n_others = 1 if features is None else 2 + len(folds)
        progress = self._begin_progress(X, y, n_others + (0 if prefit else self._n_member_fits(splits)))
        if prefit:
            self._take_prefit(X, y, weights)
            _, answers, present = self._respond(X)
        else:
            answers, present = self._fit_members(X, y, weights, routed, splits, progress)

        self._fills = [self._fill(member, answer) for member, answer in zip(self._members, answers, strict=True)]
        # Fixed here: data without gaps at fit gets no indicator at predict.
        self._indicated = np.flatnonzero(~present.all(axis=1))
        known = present.any(axis=0)
        if not known.any():
            raise ValueError(f"{type(self).__name__}: all {len(y)} rows have no modality; there is nothing to learn.")
        meta = self._join(answers, present, self._fit_passthrough(X, y, routed, features, folds, progress))
        # A row without any modality is answered with the prior, so it has nothing to teach.
        rows = slice(None) if known.all() else np.flatnonzero(known)
        own = {
            key: np.asarray(value)[rows] if np.ndim(value) and len(value) == len(y) else value
            for key, value in routed["final_estimator"].fit.items()
        }
        if is_classifier(self) and y.ndim == 1 and len(np.unique(y[rows])) == 1:
            final, own = DummyClassifier(), {}
        with propagated(progress.subcontext(task_name="final estimator"), self, final):
            self.final_estimator_ = final.fit(meta[rows], y[rows], **own)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _take_prefit(self, X, y, weights):
        """Take fitted members as they are."""
        self._members = []
        for name, member in self._active_members():
            check_is_fitted(member)
            numeric = not is_classifier(self) or is_regressor(member)
            self._members.append(Member(name, member, self._prior, numeric=numeric))
        _, presents = self._presents(X)
        for member in self._members:
            present = presents[member.name]
            if len(present):
                own = None if weights is None else present.take(weights)
                member.prior = self._target.prior(present.take(y), own)
        self.estimators_ = [member.estimator for member in self._members]

    def _fill(self, member, answer):
        """Give what stands for a member where it abstains: its prior, or the mean of its scores."""
        if self._methods[member.name] == "decision_function" and not np.isnan(answer).all():
            return np.nanmean(answer, axis=0)
        return self._target.prior_answer(member.prior, self._methods[member.name], member.numeric)

    def _join(self, answers, present, extra):
        """Put answers, indicators and passed-through features side by side, without gaps."""
        parts = []
        for member, answer, fill, mask in zip(self._members, answers, self._fills, present, strict=True):
            part = np.where(mask[:, None], answer, fill)
            # Of two probabilities one says it all.
            parts.append(part[:, 1:] if self._drops_first(member) else part)
        parts.append((~present[self._indicated]).T.astype(float))
        if extra is not None:
            parts.append(extra)
        return np.hstack(parts)

    def _drops_first(self, member):
        return self._methods[member.name] == "predict_proba" and self._target.binary

    def _fit_passthrough(self, X, y, routed, features, folds, progress):
        self._extra = features
        if self.passthrough is False:
            return None
        if self.passthrough is True:
            positions = sorted({position for name in self._active() for position in self._columns[name][0]})
            by_name = hasattr(self, "feature_names_in_")
            names = self.feature_names_in_ if by_name else [f"x{i}" for i in range(self.n_features_in_)]
            self._extra = Columns(X, positions, names, by_name)
            return self._extra.transform(X)
        request = routed.get("passthrough") or Bunch()
        return features.fit_transform(X, y, request, folds, self, progress)

    def _meta(self, X):
        X, answers, present = self._respond(X)
        extra = None if self._extra is None else self._extra.transform(X)
        return self._join(answers, present, extra), present

    def transform(self, X):
        """Give what the final estimator sees.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Answers of the members, indicators of missing modalities, passed-through features.
        """
        return self._meta(X)[0]

    def _output_names(self):
        names = []
        for member in self._members:
            suffixes = self._target.suffixes(self._methods[member.name], member.numeric)
            suffixes = suffixes[1:] if self._drops_first(member) else suffixes
            names.extend(member.name if suffix is None else f"{member.name}__{suffix}" for suffix in suffixes)
        names.extend(f"missingindicator__{self._members[position].name}" for position in self._indicated)
        if self._extra is not None:
            names.extend(f"passthrough__{name}" for name in self._extra.names)
        return names

    def get_metadata_routing(self):
        """Get the routing of metadata to the members, ``cv``, ``passthrough`` and the final estimator.

        Returns
        -------
        routing : MetadataRouter
            Routing information.
        """
        router = super().get_metadata_routing()
        final = self._default_final() if self.final_estimator is None else self.final_estimator
        router.add(final_estimator=final, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        if not isinstance(self.passthrough, bool):
            callee = "fit_transform" if hasattr(self.passthrough, "fit_transform") else "fit"
            router.add(passthrough=self.passthrough, method_mapping=MethodMapping().add(caller="fit", callee=callee))
        return router

    def _method_of(self, name, member):
        return self._methods[name]

    def _sk_visual_block_(self):
        final = self._default_final() if self.final_estimator is None else self.final_estimator
        last = VisualBlock("parallel", [final], names=["final_estimator"], dash_wrapped=False)
        return VisualBlock("serial", (self._member_block(), last), dash_wrapped=False)
