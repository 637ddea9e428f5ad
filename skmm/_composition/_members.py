"""Transformers of single modalities, fitted on and applied to the rows that have theirs."""

import numpy as np
from sklearn.base import clone
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from .._blocks import dense_block
from .._sklearn import log_elapsed_time
from ._pipelines import consumed, join_lenient, part_steps, propagated, split_lenient
from ._rows import PresentRows


def as_transformer(member):
    """Give the transformer that a member stands for."""
    if isinstance(member, str):
        return FunctionTransformer(feature_names_out="one-to-one", accept_sparse=True)
    return member


def fit_transform(transformer, X, y, routed):
    """Fit a transformer and apply it to the same rows, by the shorter way that it has."""
    if hasattr(transformer, "fit_transform"):
        return transformer.fit_transform(X, y, **routed.fit_transform)
    return transformer.fit(X, y, **routed.fit).transform(X, **routed.transform)


def fit_transform_modality(owner, name, member, X, y, routed, step):
    """Fit a clone of one transformer on the rows that have its modality; give it and its block."""
    present = PresentRows(X, name)
    transformer = clone(member)
    message = f"modality {name}" if owner.verbose else None
    parts = split_lenient(transformer)
    with log_elapsed_time(type(owner).__name__, message), part_steps(step, owner, parts) as steps:
        outputs = present.take(X)
        for part, own_step in zip(parts, steps, strict=True):
            present.require_some()
            params = {method: consumed(part, method, present.take_params(X, routed[method])) for method in routed}
            with propagated(own_step, owner, part):
                outputs = present.call(fit_transform, part, outputs, present.take(y), Bunch(**params))
            outputs = present.narrow(outputs) if len(parts) > 1 else outputs
    return join_lenient(transformer, parts), present.scatter(dense_block(outputs, name))


def transform_modality(name, transformer, X, shape, params):
    """Apply one fitted transformer to the rows that have its modality; give a block of known width and dtype."""
    present = PresentRows(X, name)
    width, dtype = shape
    parts = split_lenient(transformer)
    outputs = present.take(X)
    for part in parts:
        if len(present) == 0:
            return np.full((present.n_samples, width), np.nan, dtype=dtype)
        own = consumed(part, "transform", present.take_params(X, params))
        outputs = present.call(part.transform, outputs, **own)
        outputs = present.narrow(outputs) if len(parts) > 1 else outputs
    block = present.scatter(dense_block(outputs, name))
    if block.shape[1] != width:
        raise ValueError(
            f"Modality {name!r}: {type(transformer).__name__} gave {width} columns in fit and {block.shape[1]} now."
        )
    return block
