"""What stacking hands to its final estimator besides the members' answers: numeric columns, or fused features."""

from numbers import Number

import narwhals.stable.v2 as nw
import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.utils import Bunch, get_tags

from .._blocks import dense_block
from .._composition import propagated
from .._missing import is_missing_item
from .._moments import column_means, fill_missing
from .._sklearn import check_method_params, safe_indexing
from .._validation import columns_by_name, is_data_frame


class Columns:
    """The numeric columns of X among given positions.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n_samples, n_features)
        Training data.

    positions : list of int
        Columns of the modalities.

    names : ndarray of str
        Names of all columns of X.

    by_name : bool
        Whether columns of data frames are found by name.
    """

    def __init__(self, X, positions, names, by_name):
        self.positions = [position for position in positions if _is_numeric(X, position)]
        if not self.positions:
            raise ValueError(
                "passthrough=True hands on the numeric columns of the modalities, but none is numeric: "
                f"{[str(names[position]) for position in positions]}; pass a transformer, such as a ModalityFuser."
            )
        self.names = [str(names[position]) for position in self.positions]
        self.by_name = by_name
        self.means = column_means(self._matrix(X))

    def transform(self, X):
        """Give the columns, with each missing cell at its column's mean."""
        return fill_missing(self._matrix(X), self.means)

    def _matrix(self, X):
        positions = self.positions
        if self.by_name and is_data_frame(X):
            positions = columns_by_name(X, self.names, "passthrough")
        first, last = positions[0], positions[-1]
        if positions == list(range(first, last + 1)):
            positions = slice(first, last + 1)
        part = safe_indexing(X, positions, axis=1)
        if is_data_frame(part):
            part = nw.from_native(part, eager_only=True)
            columns = [part[:, i].cast(nw.Float64).to_numpy() for i in range(part.shape[1])]
            return np.column_stack(columns)
        if part.dtype == object:
            part = np.where([[is_missing_item(cell) for cell in row] for row in part], np.nan, part)
        return dense_block(part, "passthrough")


def _is_numeric(X, position):
    if is_data_frame(X):
        dtype = nw.from_native(X, eager_only=True)[:, position].dtype
        return dtype.is_numeric() or dtype == nw.Boolean
    if X.dtype != object:
        return X.dtype.kind in "fiub"
    return all(isinstance(cell, Number) or is_missing_item(cell) for cell in X[:, position])


class Features:
    """What a transformer makes of X.

    Parameters
    ----------
    transformer : estimator
        Cloned and fitted on all rows by ``fit_transform``.
    """

    def __init__(self, transformer):
        self.transformer = clone(transformer)

    def folds_of(self, splits):
        """Give those of the splits in which features have to be made out of fold: all or none.

        A transformer that has seen a row's target tells it in the row's features.
        """
        return splits if get_tags(self.transformer).target_tags.required else ()

    def fit_transform(self, X, y, request, folds, owner, progress):
        """Fit on all rows; give the features that the final estimator is fitted on.

        Parameters
        ----------
        X : DataFrame or ndarray of shape (n_samples, n_features)
            Training data.

        y : ndarray
            Target of all rows.

        request : Bunch
            Metadata for the transformer's methods.

        folds : sequence of (train, test)
            What ``folds_of`` gave.

        owner : estimator
            Has ``n_jobs``, and the callbacks to report to.

        progress : CallbackContext
            The owner's fit, of which each fit is a step.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Features without gaps.
        """
        template = clone(self.transformer)
        with propagated(progress.subcontext(task_name="passthrough"), owner, self.transformer):
            features = _fit_transform(self.transformer, X, y, request)
        features = dense_block(features, "passthrough").astype(float)
        if folds:
            steps = [progress.subcontext(task_name=f"passthrough, fold {i}") for i in range(1, len(folds) + 1)]
            parts = Parallel(n_jobs=owner.n_jobs, prefer="threads")(
                delayed(_fold_features)(template, X, y, request, train, test, owner, step)
                for (train, test), step in zip(folds, steps, strict=True)
            )
            for (_, test), part in zip(folds, parts, strict=True):
                if part.shape[1] != features.shape[1]:
                    raise ValueError(
                        f"passthrough: {type(template).__name__} gives {features.shape[1]} columns on all rows, but "
                        f"{part.shape[1]} in a fold; fix its number of components."
                    )
                features[test] = part
        self.names = self._names(features.shape[1])
        self.means = column_means(features)
        return fill_missing(features, self.means)

    def transform(self, X):
        """Give the features of new rows, with each missing cell at its column's mean."""
        return fill_missing(dense_block(self.transformer.transform(X), "passthrough").astype(float), self.means)

    def _names(self, width):
        try:
            return [str(name) for name in self.transformer.get_feature_names_out()]
        except (AttributeError, ValueError):
            return [str(position) for position in range(width)]


def _fit_transform(transformer, X, y, request):
    if hasattr(transformer, "fit_transform"):
        return transformer.fit_transform(X, y, **request.get("fit_transform", {}))
    return transformer.fit(X, y, **request.get("fit", {})).transform(X)


def _fold_features(template, X, y, request, train, test, owner, step):
    transformer = clone(template)
    params = Bunch(**{method: check_method_params(X, values, indices=train) for method, values in request.items()})
    with propagated(step, owner, transformer):
        _fit_transform(transformer, safe_indexing(X, train), y[train], params)
    return dense_block(transformer.transform(safe_indexing(X, test)), "passthrough")
