"""What both voters share: weights, fit, names of the members' answers."""

from numbers import Integral

import numpy as np

from .._sklearn import StrOptions
from ._base import DecisionComposition


class ModalityVoting(DecisionComposition):
    """What both voters share: weights, answers of members, names."""

    _parameter_constraints: dict = {
        "modalities": [list, tuple],
        "weights": ["array-like", dict, StrOptions({"auto"}), None],
        "cv": ["cv_object"],
        "n_jobs": [Integral, None],
        "verbose": ["boolean"],
    }

    def _given_weights(self):
        """Give the weights of active members by the parameter, or None for "auto"."""
        owner, active = type(self).__name__, self._active()
        weights = self.weights
        if isinstance(weights, str):
            return None
        if weights is None:
            return np.full(len(active), 1 / len(active))
        names = [name for name, _, _ in self.modalities]
        if isinstance(weights, dict):
            unknown, absent = sorted(set(weights) - set(names)), [name for name in active if name not in weights]
            if unknown or absent:
                raise ValueError(
                    f"{owner}: weights need one entry for each of the modalities {active}, got {weights!r}."
                )
        elif len(weights) != len(names):
            raise ValueError(
                f"{owner}: weights need one entry for each of the {len(names)} modalities, got {len(weights)}."
            )
        else:
            weights = dict(zip(names, weights, strict=True))
        chosen = np.array([weights[name] for name in active], dtype=float)
        if not np.isfinite(chosen).all() or (chosen < 0).any() or chosen.sum() == 0:
            raise ValueError(
                f"{owner}: weights must be finite and not negative, with a sum above 0, got {self.weights!r}."
            )
        return chosen / chosen.sum()

    def _fit(self, X, y, sample_weight, params):
        X, y, weights = self._begin(X, y, sample_weight, params)
        self._check_voting_members()
        given = self._given_weights()
        routed = self._route(sample_weight if weights is None else weights, params)
        splits = self._splits(X, y, routed) if given is None else ()
        progress = self._begin_progress(X, y, self._n_member_fits(splits))
        answers, present = self._fit_members(X, y, weights, routed, splits, progress)
        if given is None:
            # Rows without any member say nothing about the weights.
            rows = np.ones(len(y)) if weights is None else weights
            given = self._learn_weights(answers, present, y, rows * present.any(axis=0))
        self.weights_ = given
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _check_voting_members(self):
        """Check what only some rules need."""

    def transform(self, X):
        """Give the members' answers side by side.

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
        names = []
        for member in self._members:
            suffixes = self._target.suffixes(self._method_of_member(member), member.numeric)
            names.extend(member.name if suffix is None else f"{member.name}__{suffix}" for suffix in suffixes)
        return names
