"""Composites of modalities: their list, the rows that have each of them, and the members fitted on these rows.

Fusers, voters, stackers and networks all fit and apply their members here. Think twice before adding anything.
"""

import re
import reprlib
from contextlib import contextmanager, nullcontext
from copy import copy
from typing import Self

import narwhals.stable.v2 as nw
import numpy as np
from joblib import Parallel, delayed
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, get_tags
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_is_fitted

from ._columns import (
    check_columns,
    check_X,
    column_items,
    column_positions,
    describe_item,
    is_data_frame,
    is_missing_item,
    is_series,
    missing_rows,
    resolve_columns,
)
from ._sklearn import (
    BaseComposition,
    VisualBlock,
    check_feature_names_in,
    check_method_params,
    log_elapsed_time,
    safe_indexing,
)
from .exceptions import BranchItemError, ItemError


def check_block_name(name):
    """Raise unless ``name`` can name a modality or block: a non-empty string without "__"."""
    if not isinstance(name, str) or not name or "__" in name:
        raise ValueError(f"Names of modalities and blocks are non-empty strings without '__', got {name!r}.")


class ModalityComposition(BaseComposition):
    """Base of the estimators with ``modalities=[(name, member, columns), ...]`` as first parameter."""

    # Methods that a member must have, and strings that may stand in its place.
    _member_methods = ("fit", "transform")
    _member_strings = ("passthrough", "drop")

    @property
    def named_modalities_(self):
        """Bunch of the fitted members by name."""
        check_is_fitted(self)
        return Bunch(**{name: member for name, member, _ in self.modalities_})

    @property
    def _is_auto(self):
        """Whether ``fit`` infers the modalities from X."""
        return isinstance(self.modalities, str) and self.modalities == "auto"

    @property
    def _entries(self):
        """The triples: those of the parameter, or those that ``fit`` inferred, of which there are none before it."""
        return getattr(self, "_inferred", []) if self._is_auto else self.modalities

    def _infer(self, X, y):
        """Return the triples that ``modalities="auto"`` stands for."""
        raise NotImplementedError

    @property
    def _modalities(self):
        # Pairs, as scikit-learn's nested parameters want them; what fit inferred is no parameter.
        if self._is_auto:
            return []
        try:
            return [(name, member) for name, member, _ in self.modalities]
        except (TypeError, ValueError):
            return self.modalities

    @_modalities.setter
    def _modalities(self, pairs):
        if not self._is_auto:
            self.modalities = [
                (name, member, columns) for (name, member), (_, _, columns) in zip(pairs, self.modalities, strict=True)
            ]

    def get_params(self, deep: bool = True) -> dict:
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
            # `modalities` may be invalid before fit has validated it, so it is not read without need.
            return
        members = dict(self._modalities)
        for key in nested:
            name = key.partition("__")[0]
            member = params.get(name, members.get(name))
            if isinstance(member, str):
                raise ValueError(f"{name}={member!r} has no parameters, so {key!r} cannot be set; set {name!r} first.")

    def set_params(self, **params) -> Self:
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
        if self._is_auto:
            return
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
                        f"{owner}: modality {name!r} is the string {member!r}; the only strings it may be are "
                        f"{list(self._member_strings)}."
                    )
            elif isinstance(member, type):
                raise TypeError(f"{owner}: modality {name!r} is the class {member.__name__}; pass {member.__name__}().")
            else:
                missing = self._missing_methods(member)
                if missing:
                    raise TypeError(
                        f"{owner}: modality {name!r} needs an estimator with the methods "
                        f"{list(self._member_methods)}, got {type(member).__name__} without {missing}."
                    )
        if all(isinstance(member, str) and member == "drop" for _, member, _ in self.modalities):
            raise ValueError(f"{owner} has no modality to work on: modalities={self.modalities!r}.")

    def _missing_methods(self, member):
        """Return the methods that a member must have and does not."""
        return [method for method in self._member_methods if not hasattr(member, method)]

    def _fit_columns(self, X, y=None):
        """Check X, resolve the columns of each modality in it, and return X as it will be used."""
        is_auto, entries = self._is_auto, self._entries
        X = check_X(self, X, reset=True)
        if is_auto:
            self._inferred = entries = self._infer(X, y)
        self._columns = {}
        for name, member, columns in entries:
            positions, single = resolve_columns(X, columns, name)
            # Only an estimator may want a 1-D column; what passes through is a matrix.
            self._columns[name] = positions, single and not isinstance(member, str)
        return X

    def _positions(self, X, name):
        """Return the positions in X of the columns of one modality; a data frame's are found by name."""
        positions, _ = self._columns[name]
        if not hasattr(self, "feature_names_in_") or not is_data_frame(X):
            return positions
        return column_positions(X, self.feature_names_in_[positions], positions, name)

    def _select(self, X, name, *, reset):
        """Return the columns of one modality: 1-D if a scalar selected them, else 2-D.

        With ``reset=True`` X is the one in which they were resolved; else a data frame's are found by name.
        """
        positions, single = self._columns[name]
        if not reset:
            positions = self._positions(X, name)
        cells = X.iloc if hasattr(X, "iloc") else X
        return cells[:, positions[0] if single else as_slice(positions)]

    def _input_names(self, name):
        """Return the names of the columns of one modality."""
        positions, _ = self._columns[name]
        if hasattr(self, "feature_names_in_"):
            return self.feature_names_in_[positions]
        return np.array([f"x{position}" for position in positions], dtype=object)

    def _active(self):
        """Return the names of the modalities that are not dropped, in order."""
        return [name for name, member, _ in self._entries if not (isinstance(member, str) and member == "drop")]

    def _member_block(self):
        """Return the diagram of the modalities side by side."""
        names, members, columns = zip(*(self._entries or [("modalities", "auto", "")]), strict=True)
        return VisualBlock("parallel", members, names=names, name_details=columns)


def as_slice(positions):
    """Return positions as a slice if they are neighbours in order: it selects a view, which takes no memory."""
    first, last = positions[0], positions[-1]
    return slice(first, last + 1) if positions == list(range(first, last + 1)) else positions


def check_modalities(composite):
    """Check the list of modalities of a composite, and everything in it that does not depend on X."""
    composite._check_modalities()


def modality_positions(composite, X):
    """Return the positions in X of the columns of each modality that a fitted composite uses, by name."""
    return {name: list(composite._positions(X, name)) for name in composite._active()}


def modality_items(composite, X, name):
    """Return the columns of one modality of a fitted composite, as its member takes them."""
    names = composite._active()
    if name not in names:
        raise ValueError(f"{type(composite).__name__}: there is no modality {name!r}; the modalities are {names}.")
    return composite._select(check_X(composite, X, reset=False), name, reset=False)


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
        """Mask of the present rows, of shape (n_samples,)."""
        mask = np.full(self.n_samples, self.rows is None)
        if self.rows is not None:
            mask[self.rows] = True
        return mask

    def within(self, indices):
        """Return the present rows among those at ``indices``, in their order."""
        subset = copy(self)
        subset.rows = np.asarray(indices)[self.mask[indices]]
        return subset

    def take(self, data):
        """Return the present rows of X or y; ``data`` itself if all rows are present."""
        if data is None or self.rows is None:
            return data
        return safe_indexing(data, self.rows, axis=0)

    def take_params(self, X, params):
        """Return the parameters of a method, with the present rows of those that have one entry per row of X."""
        return params if self.rows is None else check_method_params(X, params, indices=self.rows)

    def narrow(self, outputs):
        """Drop the rows that a step turned into missing ones, from these rows and from its outputs."""
        missing = missing_rows(outputs)
        if not missing.any():
            return outputs
        rows = np.arange(self.n_samples) if self.rows is None else self.rows
        self.rows = rows[~missing]
        return safe_indexing(outputs, np.flatnonzero(~missing), axis=0)

    def scatter(self, values, fill=np.nan):
        """Return an array with one entry per row of X: the values in present rows, ``fill`` in the others."""
        if values.shape[0] != len(self):
            raise ValueError(f"Modality {self.name!r}: its transformer gave {values.shape[0]} rows for {len(self)}.")
        if self.rows is None:
            return values
        full = np.full((self.n_samples, *values.shape[1:]), fill, dtype=values.dtype)
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
            if "2D array" in str(error) or "2-dimensional" in str(error):
                error.add_note("A single name selects a 1-D column; in a list, as in ['name'], it selects a 2-D one.")
            if "array element with a sequence" in str(error):
                error.add_note(
                    "A column of vectors becomes a matrix in ModalityFuser([(name, 'passthrough', columns)]), "
                    "which may be the first step of a pipeline."
                )
            raise


class NumberColumns(TransformerMixin, BaseEstimator):
    """Pass columns on; each column of vectors, such as embeddings, becomes one column for each of their elements.

    What "passthrough" stands for. A cell without a vector becomes a row of NaN.

    Parameters
    ----------
    modality : str, default="passthrough"
        Name of the modality, for messages.

    Attributes
    ----------
    vectors_ : dict of int to (int, str)
        Length and dtype of the vectors, by the position of their column.
    """

    def __init__(self, modality="passthrough"):
        self.modality = modality

    def fit(self, X, y=None):
        """Learn which columns hold vectors, and how long these are."""
        check_columns(self, X, reset=True)
        shapes = {position: _vector_shape(_column_of(X, position)) for position in _object_columns(X)}
        self.vectors_ = {position: shape for position, shape in shapes.items() if shape is not None}
        return self

    def transform(self, X):
        """Return X as a table, or as a matrix where it has columns of vectors."""
        if not self.vectors_:
            return _as_table(X)
        names = self._names()
        columns = [_column_of(X, position) for position in range(self.n_features_in_)]
        return np.hstack(
            [
                _stack_vectors(column, *self.vectors_[position], names[position])
                if position in self.vectors_
                else dense_block(_as_table(column), self.modality)
                for position, column in enumerate(columns)
            ]
        )

    def get_feature_names_out(self, input_features=None):
        """Get the names of the columns; "vector_0", "vector_1", ... for those of a column of vectors."""
        names = []
        for position, name in enumerate(self._names(input_features)):
            length, _ = self.vectors_.get(position, (None, None))
            names += [name] if length is None else [f"{name}_{i}" for i in range(length)]
        return np.array(names, dtype=object)

    def _names(self, input_features=None):
        return check_feature_names_in(self, input_features)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.no_validation = True
        tags.input_tags.allow_nan = True
        return tags


def _column_of(X, position):
    """Return one column of a data frame or an array; X itself if it is a column."""
    if len(X.shape) == 1:
        return X
    return X.iloc[:, position] if hasattr(X, "iloc") else X[:, position]


def _as_table(X):
    """Return a column as a table with one column; a table as it is."""
    if len(X.shape) == 2:
        return X
    return X.to_frame() if is_series(X) else X[:, np.newaxis]


def _object_columns(X):
    """Return the positions of the columns whose type allows cells that are vectors."""
    dtypes = X.dtypes if is_data_frame(X) else [X.dtype] * (1 if len(X.shape) == 1 else X.shape[1])
    # By name: "object", "list<item: float>[pyarrow]", "fixed_size_list<...", "List(Float64)", "Array(Float64, ...".
    return [
        i for i, dtype in enumerate(map(str, dtypes)) if re.match("object|(fixed_size_|large_)?list|array", dtype, re.I)
    ]


def _vector_shape(column):
    """Return the length and the dtype of the vectors in a column by the first of them; None if it holds no vectors."""
    items = column_items(column, "passthrough")
    first = next((item for item in items if not is_missing_item(item)), None)
    if not isinstance(first, (list, tuple, np.ndarray)):
        return None
    first = np.asarray(first)
    if first.ndim != 1 or first.dtype.kind not in "biuf":
        return None
    return len(first), "float32" if first.dtype == np.float32 else "float64"


def _stack_vectors(column, length, dtype, name):
    """Return the vectors of a column as the rows of a matrix, NaN where there is none."""
    items = column_items(column, "passthrough")
    matrix = np.full((len(items), length), np.nan, dtype=dtype)
    for row, item in enumerate(items):
        if is_missing_item(item):
            continue
        try:
            vector = np.asarray(item, dtype=dtype)
        except (TypeError, ValueError) as error:
            raise BranchItemError(
                row, describe_item(item), f"no vector of numbers ({error})", f"column {name!r}"
            ) from error
        if vector.shape != (length,):
            reason = f"its shape is {vector.shape}, while fit saw vectors of {length} numbers"
            raise BranchItemError(row, describe_item(item), reason, f"column {name!r}")
        matrix[row] = vector
    return matrix


def as_transformer(member, name="passthrough"):
    """Return the transformer that the member of a modality stands for; "passthrough" is one that changes no number."""
    return NumberColumns(name) if isinstance(member, str) else member


def fit_transform(transformer, X, y, routed):
    """Fit a transformer and return what it makes of the same rows, by the shorter way that it has."""
    if hasattr(transformer, "fit_transform"):
        return transformer.fit_transform(X, y, **routed.fit_transform)
    return transformer.fit(X, y, **routed.fit).transform(X, **routed.transform)


def fit_stages(owner, member, present, X, y, params, step, fit_last, message=None):
    """Fit a clone of a member on the rows that have its modality, one stage of its pipeline after the other.

    Parameters
    ----------
    owner : estimator
        The composite, whose callbacks are told.

    member : estimator
        Cloned before it is fitted.

    present : PresentRows
        Rows to fit on.

    X : Series, DataFrame or ndarray with n_samples rows
        The columns of the modality in all rows.

    y : ndarray or None
        Target of all rows.

    params : dict
        Metadata of the member, for all rows.

    step : CallbackContext
        Step of the owner's fit that this is.

    fit_last : callable
        Fits the last stage: ``fit_last(stage, inputs, present)`` returns the fitted stage and a result.

    message : str or None, default=None
        What to print with the time that the fit took.

    Returns
    -------
    estimator : estimator
        The fitted clone; the fitted last stage alone if ``fit_last`` returned another estimator than it was given.

    result : object
        What ``fit_last`` returned.

    leading : list of pipelines
        The fitted stages before the last.
    """
    estimator = clone(member)
    *leading, last = stages = split_stages(estimator)
    present, inputs = copy(present), present.take(X)
    with log_elapsed_time(type(owner).__name__, message), stage_steps(step, owner, stages) as steps:
        for stage, stage_step in zip(leading, steps[:-1], strict=True):
            with propagated(stage_step, owner, stage):
                if len(present):
                    requested = consumed(stage, "fit_transform", present.take_params(X, params))
                    outputs = present.call(stage.fit_transform, inputs, present.take(y), **requested)
                    # What an encoder cannot read is missing for the steps after it.
                    inputs = present.narrow(outputs)
        with propagated(steps[-1], owner, last):
            fitted, result = fit_last(last, inputs, present)
    return (join_stages(estimator, stages) if fitted is last else fitted), result, leading


def apply_stages(estimator, method, present, X, params=None):
    """Call a method of a fitted member on the rows that have its modality.

    Returns
    -------
    present : PresentRows
        The rows that are left after all stages.

    outputs : object
        What the method returned for these rows; None if there are none.
    """
    *leading, last = split_stages(estimator)
    present, inputs = copy(present), present.take(X)
    for stage in [*leading, last]:
        if len(present) == 0:
            return present, None
        name = method if stage is last else "transform"
        requested = consumed(stage, name, present.take_params(X, params)) if params else {}
        inputs = present.call(getattr(stage, name), inputs, **requested)
        if stage is not last:
            inputs = present.narrow(inputs)
    return present, inputs


def fit_transform_modalities(composite, X, y, routed, progress):
    """Fit the transformers of all modalities of a composite, side by side if its ``n_jobs`` says so.

    Parameters
    ----------
    composite : ModalityComposition
        With checked modalities, and columns resolved in X.

    X : DataFrame or ndarray of shape (n_samples, n_features)
        All columns.

    y : ndarray or None
        Target.

    routed : Bunch
        Metadata by modality.

    progress : CallbackContext
        The composite's fit.

    Returns
    -------
    fitted : list of tuple
        Name, fitted transformer and columns of each modality that is not dropped.

    blocks : dict of str to ndarray of shape (n_samples, n_block_features)
        What the transformers return, by modality.
    """
    active = composite._active()
    chosen = [(name, member, columns) for name, member, columns in composite._entries if name in active]
    tasks = [
        delayed(fit_transform_modality)(
            composite,
            name,
            as_transformer(member, name),
            composite._select(X, name, reset=True),
            y,
            routed[name],
            member_step(progress, f"modality {name}", member),
        )
        for name, member, _ in chosen
    ]
    results = Parallel(n_jobs=composite.n_jobs)(tasks)
    fitted = [
        (name, transformer, columns) for (name, _, columns), (transformer, _) in zip(chosen, results, strict=True)
    ]
    return fitted, {name: block for (name, *_), (_, block) in zip(chosen, results, strict=True)}


def fit_transform_modality(owner, name, member, X, y, routed, step):
    """Fit a clone of a transformer on the rows that have its modality; return it and its block for all rows."""
    present = PresentRows(X, name)
    present.require_some()

    def fit_last(stage, inputs, present):
        present.require_some()
        requested = {
            method: consumed(stage, method, present.take_params(X, params)) for method, params in routed.items()
        }
        outputs = present.call(fit_transform, stage, inputs, present.take(y), Bunch(**requested))
        return stage, present.scatter(dense_block(outputs, name))

    message = f"modality {name}" if owner.verbose else None
    transformer, block, _ = fit_stages(
        owner, member, present, X, y, routed.get("fit_transform", {}), step, fit_last, message
    )
    return transformer, block


def transform_modality(name, transformer, X, shape, params):
    """Apply a fitted transformer to the rows that have its modality; return a block of known width and dtype."""
    width, dtype = shape
    present, outputs = apply_stages(transformer, "transform", PresentRows(X, name), X, params)
    if outputs is None:
        return np.full((present.n_samples, width), np.nan, dtype=dtype)
    block = present.scatter(dense_block(outputs, name))
    if block.shape[1] != width:
        raise ValueError(
            f"Modality {name!r}: {type(transformer).__name__} gave {width} columns in fit and {block.shape[1]} now."
        )
    return block


def dense_block(output, name, max_bytes=2**31):
    """Turn what a modality's transformer returned into a dense 2-D float array.

    float32 stays float32, everything else becomes float64. A sparse output is densified while the
    result stays under ``max_bytes`` (2 GiB by default).
    """
    if sparse.issparse(output):
        size = output.shape[0] * output.shape[1] * max(output.dtype.itemsize, 4)
        if size > max_bytes:
            raise ValueError(
                f"Modality {name!r}: its sparse output of shape {output.shape} would take {size / 2**30:.1f} GiB "
                f"as a dense block, the bound is {max_bytes / 2**30:.0f} GiB; reduce it first, "
                "for example with TruncatedSVD."
            )
        output = output.toarray()
    labels = getattr(output, "columns", None)
    if not isinstance(output, np.ndarray):
        frame, output = output, output.to_numpy() if is_data_frame(output) else np.asarray(output)
        if output.dtype == object and labels is not None:
            # With NaN for the missing cells of columns of nullable numbers.
            output = nw.from_native(frame, eager_only=True).to_numpy()
    if output.ndim != 2:
        raise ValueError(
            f"Modality {name!r}: its transformer must return a 2-D matrix, got an array of shape {output.shape}."
        )
    if output.dtype.kind in "mM":
        raise ValueError(f"Modality {name!r} holds dates or times, not numbers; give it a transformer.")
    if np.iscomplexobj(output):
        raise ValueError(f"Complex data not supported: modality {name!r} holds complex numbers.")
    if output.dtype == np.float32:
        return output
    try:
        return output.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        # Cells that NumPy cannot convert: missing ones of other kinds than None, or no numbers.
        labels = range(output.shape[1]) if labels is None else labels
        return np.column_stack([_column_of_floats(*column, name) for column in zip(output.T, labels, strict=True)])


def _column_of_floats(column, label, name):
    """Return a column of objects as float64, NaN where a cell is missing; raise at the first that is no number."""
    values = np.full(len(column), np.nan)
    for row, cell in enumerate(column):
        if not is_missing_item(cell):
            try:
                values[row] = cell
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"Modality {name!r}: column {label!r} holds {reprlib.repr(cell)}, which is not a number ({error}); "
                    "give the modality an encoder or a transformer."
                ) from error
    return values


def member_tags(member):
    """Return a member's tags; a pipeline accepts NaN if its first step does, which its own tags leave out."""
    tags = get_tags(member)
    if isinstance(member, Pipeline):
        tags.input_tags.allow_nan = member_tags(member.steps[0][1]).input_tags.allow_nan
    return tags


def _places(pipeline):
    """Yield (pipeline, position) of each step, with the steps of pipelines in a pipeline in place of them."""
    for position, (_, step) in enumerate(pipeline.steps):
        if isinstance(step, Pipeline):
            yield from _places(step)
        else:
            yield pipeline, position


def _may_lose_rows(step):
    """Tell whether the output of a step may have missing rows: that of an encoder with ``on_error="missing"``, say."""
    if isinstance(step, Pipeline):
        return _may_lose_rows(step.steps[-1][1])
    if getattr(step, "_may_lose_items", False):
        return True
    params = step.get_params() if hasattr(step, "get_params") else {}
    return any(key.rpartition("__")[2] == "on_error" and value == "missing" for key, value in params.items())


def split_stages(member):
    """Return the stages of a member, pipelines that each end with a step that may turn items into missing rows.

    A pipeline inside a pipeline is split likewise. A member without such a step before its last is one stage.
    """
    if not isinstance(member, Pipeline):
        return [member]
    stages = [[]]
    for name, step in member.steps:
        for inner in split_stages(step):
            if stages[-1] and _may_lose_rows(stages[-1][-1][1]):
                stages.append([])
            stages[-1].append((name, inner))
    if len(stages) == 1:
        return [member]
    return [type(member)(steps, memory=member.memory, verbose=member.verbose) for steps in stages]


def join_stages(member, stages):
    """Put the fitted steps of stages back to their places in the member, and return it."""
    if len(stages) > 1:
        fitted = [pipeline.steps[position][1] for stage in stages for pipeline, position in _places(stage)]
        for (pipeline, position), step in zip(list(_places(member)), fitted, strict=True):
            steps = list(pipeline.steps)
            steps[position] = (steps[position][0], step)
            pipeline.steps = steps
    return member


def consumed(stage, method, params):
    """Return those parameters of a member that a method of one of its stages asks for."""
    if not params:
        return params
    names = get_routing_for_object(stage).consumes(method, params.keys())
    return {name: params[name] for name in names}


def member_step(progress, task_name, member):
    """Return the step of a composite's fit in which a member is fitted, in one stage or in several."""
    n_stages = len(split_stages(member))
    return progress.subcontext(task_name=task_name, max_subtasks=n_stages if n_stages > 1 else 0)


@contextmanager
def propagated(step, owner, member):
    """Report the fit of a member to the owner's callbacks, and pass them on to a member that supports them."""
    with step.propagate_callback_context(member) if hasattr(member, "set_callbacks") else nullcontext():
        step.call_on_fit_task_begin(estimator=owner)
        yield
        step.call_on_fit_task_end(estimator=owner)


@contextmanager
def stage_steps(step, owner, stages):
    """Return the steps in which the stages of a member are fitted, for :func:`propagated`, and report their sum."""
    if len(stages) == 1:
        yield [step]
        return
    step.call_on_fit_task_begin(estimator=owner)
    yield [step.subcontext(task_name=", ".join(name for name, _ in stage.steps)) for stage in stages]
    step.call_on_fit_task_end(estimator=owner)
