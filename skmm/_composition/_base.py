"""What every composite shares: modalities, nested parameters, present rows, the HTML diagram.

Think twice before adding anything.
"""

from contextlib import contextmanager, nullcontext
from copy import copy

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, get_tags
from sklearn.utils.metadata_routing import get_routing_for_object

from .._missing import missing_rows
from .._validation import (
    BaseComposition,
    ItemError,
    VisualBlock,
    check_block_name,
    check_method_params,
    check_X,
    columns_by_name,
    is_data_frame,
    resolve_columns,
    safe_indexing,
)


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


class PresentRows:
    """The rows in which one modality is present, and the way back to all rows.

    Parameters
    ----------
    X : Series, DataFrame or ndarray with n_samples rows
        The columns of the modality.

    name : str
        Name of the modality, for messages.
    """

    def __init__(self, X, name):
        self.name = name
        self.n_samples = X.shape[0]
        missing = missing_rows(X)
        self.rows = None if not missing.any() else np.flatnonzero(~missing)

    def __len__(self):
        return self.n_samples if self.rows is None else len(self.rows)

    def require_some(self):
        """Raise if the modality is missing in every row."""
        if len(self) == 0:
            raise ValueError(
                f"Modality {self.name!r} is missing in all {self.n_samples} rows, so there is nothing to fit its "
                "estimator on; drop the modality, or fit on rows that have it."
            )

    @property
    def mask(self):
        """Mask of the rows, of shape (n_samples,)."""
        mask = np.full(self.n_samples, self.rows is None)
        if self.rows is not None:
            mask[self.rows] = True
        return mask

    def within(self, indices):
        """Give the present rows among those at ``indices``, in their order."""
        part = copy(self)
        part.rows = np.asarray(indices)[self.mask[indices]]
        return part

    def take(self, data):
        """Give the present rows of X or y; ``data`` itself if all rows are present."""
        if data is None or self.rows is None:
            return data
        return safe_indexing(data, self.rows, axis=0)

    def take_params(self, X, params):
        """Give the present rows of each parameter that has one entry per row of X."""
        return params if self.rows is None else check_method_params(X, params, indices=self.rows)

    def narrow(self, outputs):
        """Leave out the rows that a member turned into missing ones, here and in what it gave."""
        missing = missing_rows(outputs)
        if not missing.any():
            return outputs
        rows = np.arange(self.n_samples) if self.rows is None else self.rows
        self.rows = rows[~missing]
        return safe_indexing(outputs, np.flatnonzero(~missing), axis=0)

    def scatter(self, values):
        """Put rows back to their places in a float matrix, NaN elsewhere."""
        if values.shape[0] != len(self):
            raise ValueError(f"Modality {self.name!r}: its transformer gave {values.shape[0]} rows for {len(self)}.")
        if self.rows is None:
            return values
        full = np.full((self.n_samples, values.shape[1]), np.nan, dtype=values.dtype)
        full[self.rows] = values
        return full

    def call(self, function, *args, **kwargs):
        """Call a member's method on present rows; an error says which modality and which row of X."""
        try:
            return function(*args, **kwargs)
        except ItemError as error:
            row = error.row if self.rows is None else int(self.rows[error.row])
            owner = f"modality {self.name!r}, {error.owner}"
            raise type(error)(row, error.item, error.reason, owner) from error
        except Exception as error:
            error.add_note(f"This happened in modality {self.name!r}.")
            raise


def named(modalities):
    """Give the fitted members by name, as attributes and keys."""
    return Bunch(**{name: member for name, member, *_ in modalities})


def member_tags(member):
    """Give a member's tags; a pipeline accepts NaN if its first step does, which its own tags leave out."""
    tags = get_tags(member)
    if isinstance(member, Pipeline):
        tags.input_tags.allow_nan = member_tags(member.steps[0][1]).input_tags.allow_nan
    return tags


def split_lenient(member):
    """Split a pipeline after each step that may turn items into missing rows; these end there for later steps."""
    if isinstance(member, Pipeline) and len(member.steps) > 1:
        first = member.steps[0][1]
        params = first.get_params() if hasattr(first, "get_params") else {}
        lenient = any(key.split("__")[-1] == "on_error" and value == "missing" for key, value in params.items())
        if lenient or getattr(first, "_may_lose_items", False):
            return [member[:1], *split_lenient(member[1:])]
    return [member]


def join_lenient(member, parts):
    """Give the pipeline of which ``parts`` were fitted one by one."""
    if len(parts) > 1:
        member.steps = [step for part in parts for step in part.steps]
    return member


def consumed(part, method, params):
    """Give those of a pipeline's parameters that one part of it asks for."""
    if not params:
        return params
    names = get_routing_for_object(part).consumes(method, params.keys())
    return {name: params[name] for name in names}


def step_of(progress, task_name, member):
    """Give the step of an owner's fit in which a member is fitted, whole or part by part."""
    n_parts = len(split_lenient(member))
    return progress.subcontext(task_name=task_name, max_subtasks=n_parts if n_parts > 1 else 0)


@contextmanager
def propagated(step, owner, member):
    """Report the fit of a member to the owner's callbacks, and hand them on to a member that supports them."""
    with step.propagate_callback_context(member) if hasattr(member, "set_callbacks") else nullcontext():
        step.call_on_fit_task_begin(estimator=owner)
        yield
        step.call_on_fit_task_end(estimator=owner)


@contextmanager
def part_steps(step, owner, parts):
    """Give the steps, for :func:`propagated`, in which the parts of a member are fitted; report what they make up."""
    if len(parts) == 1:
        yield [step]
        return
    step.call_on_fit_task_begin(estimator=owner)
    yield [step.subcontext(task_name=", ".join(name for name, _ in part.steps)) for part in parts]
    step.call_on_fit_task_end(estimator=owner)
