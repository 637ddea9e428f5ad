"""What every composite shares: modalities, nested parameters, present rows, the HTML diagram.

Think twice before adding anything.
"""

import numpy as np
from sklearn.utils import Bunch

from .._blocks import check_block_name
from .._sklearn import BaseComposition, VisualBlock, safe_indexing
from .._validation import check_X, columns_by_name, is_data_frame, resolve_columns


class ModalityComposition(BaseComposition):
    """Base of the estimators with ``modalities=[(name, member, columns), ...]`` as first parameter."""

    # Methods that a member must have, and strings that may stand in its place.
    _member_methods = ("fit", "transform")
    _member_strings = ("passthrough", "drop")

    @property
    def _modalities(self):
        # Pairs, as scikit-learn's nested parameters want them.
        try:
            return [(name, member) for name, member, _ in self.modalities]
        except (TypeError, ValueError):
            return self.modalities

    @_modalities.setter
    def _modalities(self, pairs):
        self.modalities = [
            (name, member, columns) for (name, member), (_, _, columns) in zip(pairs, self.modalities, strict=True)
        ]

    def get_params(self, deep=True):
        """Get the parameters of this estimator and of the members of its modalities.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the members and their parameters, as ``name`` and ``name__parameter``.

        Returns
        -------
        params : dict
            Parameter names mapped to their values.
        """
        return self._get_params("_modalities", deep=deep)

    def _check_shorthands(self, params):
        """Raise if a parameter is to be set on a string, such as "drop"."""
        nested = [key for key in params if "__" in key]
        if not nested:
            # Nothing is to be looked at, which may not be what it should be before fit has checked it.
            return
        members = dict(self._modalities)
        for key in nested:
            name = key.partition("__")[0]
            member = params.get(name, members.get(name))
            if isinstance(member, str):
                raise ValueError(f"{name}={member!r} has no parameters, so {key!r} cannot be set; set {name!r} first.")

    def set_params(self, **params):
        """Set parameters of this estimator or of its members.

        Parameters
        ----------
        **params : dict
            Parameters as ``get_params`` names them; ``name="drop"`` leaves a modality out.

        Returns
        -------
        self : estimator
            This estimator.
        """
        self._check_shorthands(params)
        self._set_params("_modalities", **params)
        return self

    def _check_modalities(self):
        """Check the list of modalities and everything in it that does not depend on X."""
        owner = type(self).__name__
        for entry in self.modalities:
            if not isinstance(entry, (tuple, list)) or len(entry) != 3:
                raise ValueError(f"{owner}: each modality is a tuple (name, estimator, columns), got {entry!r}.")
        names = [name for name, _, _ in self.modalities]
        parameters = self._get_param_names()
        for name, member, _ in self.modalities:
            check_block_name(name)
            if names.count(name) > 1:
                raise ValueError(f"{owner}: names of modalities are unique, got {name!r} {names.count(name)} times.")
            if name in parameters:
                raise ValueError(f"{owner}: a modality cannot be named {name!r}, which is one of its parameters.")
            if isinstance(member, str):
                if member not in self._member_strings:
                    raise ValueError(
                        f"{owner}: modality {name!r} is the string {member!r}; the strings known here are "
                        f"{list(self._member_strings)}."
                    )
            elif isinstance(member, type):
                raise TypeError(f"{owner}: modality {name!r} is the class {member.__name__}; pass {member.__name__}().")
            else:
                absent = self._absent_methods(member)
                if absent:
                    raise TypeError(
                        f"{owner}: modality {name!r} needs an estimator with the methods "
                        f"{list(self._member_methods)}, got {type(member).__name__} without {absent}."
                    )
        if all(isinstance(member, str) and member == "drop" for _, member, _ in self.modalities):
            raise ValueError(f"{owner} has no modality to work on: modalities={self.modalities!r}.")

    def _absent_methods(self, member):
        """Give the methods that a member must have and has not."""
        return [method for method in self._member_methods if not hasattr(member, method)]

    def _fit_columns(self, X):
        """Check X, resolve each modality's columns in it, and give X back."""
        X = check_X(self, X, reset=True)
        self._columns = {}
        for name, member, columns in self.modalities:
            positions, single = resolve_columns(X, columns, name)
            # Only an estimator may want a 1-D column; what passes through is a matrix.
            self._columns[name] = positions, single and not isinstance(member, str)
        return X

    def _positions(self, X, name):
        """Give the positions in X of the columns of one modality; a data frame's are found by name."""
        positions, _ = self._columns[name]
        if is_data_frame(X) and hasattr(self, "feature_names_in_"):
            return columns_by_name(X, self.feature_names_in_[positions], name)
        return positions

    def _select(self, X, name):
        """Give the columns of one modality: 1-D if a scalar selected them, else 2-D."""
        _, single = self._columns[name]
        positions = self._positions(X, name)
        if single:
            return safe_indexing(X, positions[0], axis=1)
        first, last = positions[0], positions[-1]
        # Of neighbouring columns an array gives a view, which costs no memory and keeps the order in memory.
        together = positions == list(range(first, last + 1))
        return safe_indexing(X, slice(first, last + 1) if together else positions, axis=1)

    def _input_names(self, name):
        """Names of the columns of one modality."""
        positions, _ = self._columns[name]
        if hasattr(self, "feature_names_in_"):
            return self.feature_names_in_[positions]
        return np.array([f"x{position}" for position in positions], dtype=object)

    def _active(self):
        """Names of the modalities that are not dropped, in order."""
        return [name for name, member, _ in self.modalities if not (isinstance(member, str) and member == "drop")]

    def _member_block(self):
        """Diagram of the modalities side by side."""
        names, members, columns = zip(*self.modalities, strict=True)
        return VisualBlock("parallel", members, names=names, name_details=columns)


def named(modalities):
    """Give the fitted members by name, as attributes and keys."""
    return Bunch(**{name: member for name, member, *_ in modalities})


def check_modalities(composite):
    """Check the list of modalities of a composite, and everything in it that does not depend on X."""
    composite._check_modalities()


def modality_positions(composite, X):
    """Return the positions in X of the columns of each modality that a fitted composite uses, by name."""
    return {name: list(composite._positions(X, name)) for name in composite._active()}
