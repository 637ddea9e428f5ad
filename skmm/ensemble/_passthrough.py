"""What the final estimator of stacking sees besides the answers: numeric columns, or features of a transformer."""

from numbers import Number

import narwhals.stable.v2 as nw
from sklearn.base import clone
from sklearn.utils import Bunch, get_tags
from sklearn.utils.parallel import Parallel, delayed

from .._columns import column_means, column_positions, fill_missing, is_data_frame, is_missing_item, shortened
from .._composition import as_slice, dense_block, fit_transform, propagated
from .._sklearn import check_method_params, safe_indexing


class Columns:
    """The numeric columns among those of the modalities.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n_samples, n_features)
        Training data.

    positions : list of int
        Columns of the modalities.

    names : ndarray of str
        Names of all columns of X.

    by_name : bool
        Whether columns of data frames are located by name.
    """

    def __init__(self, X, positions, names, by_name):
        self.positions = [position for position in positions if _is_numeric(X, position)]
        if not self.positions:
            raise ValueError(
                "passthrough=True hands on the numeric columns of the modalities, but none is numeric: "
                f"{shortened(str(names[position]) for position in positions)}; pass a transformer, such as a "
                "ModalityFuser."
            )
        self.names = [str(names[position]) for position in self.positions]
        self.by_name = by_name
        self.means = column_means(self._matrix(X))

    def transform(self, X):
        """Return the columns, with each missing cell at its column's mean."""
        return fill_missing(self._matrix(X), self.means)

    def _matrix(self, X):
        positions = self.positions
        if self.by_name and is_data_frame(X):
            positions = column_positions(X, self.names, positions, "passthrough")
        return dense_block(safe_indexing(X, as_slice(positions), axis=1), "passthrough")


def _is_numeric(X, position):
    if is_data_frame(X):
        dtype = nw.from_native(X, eager_only=True)[:, position].dtype
        return dtype.is_numeric() or dtype == nw.Boolean
    if X.dtype != object:
        return X.dtype.kind in "fiub"
    return all(isinstance(cell, Number) or is_missing_item(cell) for cell in X[:, position])


class Features:
    """Features that a transformer, of which a clone is fitted, makes of X."""

    def __init__(self, transformer):
        self.transformer = clone(transformer)

    def folds_of(self, splits):
        """Return the splits in which features are made out of fold: all of them, or none.

        A transformer that learns from y puts the target of the rows it was fitted on into their features.
        """
        return splits if get_tags(self.transformer).target_tags.required else ()

    def fit_transform(self, X, y, request, folds, owner, progress):
        """Fit on all rows, and return the features without gaps that the final estimator is fitted on.

        ``request`` holds the metadata of the transformer's methods, ``folds`` is what :meth:`folds_of` returned, and
        ``progress`` is the fit of the owner, the stacker, of which each fit here is a step.
        """
        template = clone(self.transformer)
        with propagated(progress.subcontext(task_name="passthrough"), owner, self.transformer):
            features = fit_transform(self.transformer, X, y, request)
        features = dense_block(features, "passthrough").astype(float)
        if folds:
            steps = [progress.subcontext(task_name=f"passthrough, fold {i}") for i in range(1, len(folds) + 1)]
            results = Parallel(n_jobs=owner.n_jobs, prefer="threads")(
                delayed(_fold_features)(template, X, y, request, train, test, owner, step)
                for (train, test), step in zip(folds, steps, strict=True)
            )
            for (_, test), held_out in zip(folds, results, strict=True):
                if held_out.shape[1] != features.shape[1]:
                    raise ValueError(
                        f"passthrough: {type(template).__name__} gives {features.shape[1]} columns on all rows, but "
                        f"{held_out.shape[1]} in a fold; fix its number of components."
                    )
                features[test] = held_out
        self.names = self._names(features.shape[1])
        self.means = column_means(features)
        return fill_missing(features, self.means)

    def transform(self, X):
        """Return the features of new rows, with each missing cell at its column's mean."""
        return fill_missing(dense_block(self.transformer.transform(X), "passthrough").astype(float), self.means)

    def _names(self, width):
        try:
            return [str(name) for name in self.transformer.get_feature_names_out()]
        except (AttributeError, ValueError):
            return [str(position) for position in range(width)]


def _fold_features(template, X, y, request, train, test, owner, step):
    transformer = clone(template)
    params = {method: check_method_params(X, values, indices=train) for method, values in request.items()}
    with propagated(step, owner, transformer):
        fit_transform(transformer, safe_indexing(X, train), y[train], Bunch(**params))
    return dense_block(transformer.transform(safe_indexing(X, test)), "passthrough")
