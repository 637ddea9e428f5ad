"""Members: an estimator fitted on, and applied to, the rows that have its modality.

Fusers, voters, stackers and networks all fit and apply their members here.
"""

from copy import copy

import numpy as np
from sklearn.base import clone
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from .._blocks import dense_block
from .._sklearn import log_elapsed_time
from ._pipelines import consumed, join_stages, propagated, split_stages, stage_steps
from ._rows import PresentRows


def as_transformer(member):
    """Return the transformer that a member stands for; "passthrough" is one that changes nothing."""
    if isinstance(member, str):
        return FunctionTransformer(feature_names_out="one-to-one", accept_sparse=True)
    return member


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
