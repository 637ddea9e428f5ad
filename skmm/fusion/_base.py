"""What all fusion strategies share: a matrix whose columns fall into blocks, one per modality.

A concrete strategy writes ``_fit_blocks`` and ``_transform_blocks``. The matrix arrives there
scaled as ``scaling`` says, still with NaN where something is missing; a filled cell is the mean of
its column.
"""

from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .._array_api import chunks_of_rows, float_dtypes, like, namespace, to_numpy
from .._blocks import resolve_blocks
from .._missing import column_means, column_variances, fill_missing, holds_numbers
from .._sklearn import Interval, StrOptions, check_feature_names_in, fit_context

N_COMPONENTS = [Interval(Integral, 1, None, closed="left")]
SCALING = [StrOptions({"std", "norm"}), None]
LEVEL = [StrOptions({"modality", "joint"})]

# Coefficients whose sizes differ by less than this share count as ties when signs are chosen.
_TIE = 1e-2


def signs_by_largest(coefficients):
    """Give the signs that make the largest coefficient of each column positive, the first of nearly equal ones."""
    sizes = np.abs(coefficients)
    largest = (sizes >= (1 - _TIE) * sizes.max(axis=0)).argmax(axis=0)
    return np.where(coefficients[largest, np.arange(coefficients.shape[1])] < 0, -1.0, 1.0)


def _append(X, added):
    return X if added is None else namespace(X).concat([X, added], axis=1)


class BlockTransformer(TransformerMixin, BaseEstimator):
    """Base of the transformers of a matrix that knows its blocks."""

    _parameter_constraints: dict = {"blocks": [dict, StrOptions({"prefix"}), None]}
    _min_blocks = 1
    _min_samples = 1
    _numpy_only = False

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Learn how to join the blocks.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side. NaN marks missing cells; a block is missing in a row in which all
            of its columns are NaN.

        y : array-like of shape (n_samples,), default=None
            Target, for the strategies that use one.

        Returns
        -------
        self : estimator
            The fitted strategy.
        """
        self._fit(X, y)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X, y=None):
        """Learn how to join the blocks, and join them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side, with NaN in missing cells.

        y : array-like of shape (n_samples,), default=None
            Target, for the strategies that use one.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features_out)
            Joined features, without NaN.
        """
        X, added = self._fit(X, y)
        return _append(self._transform_blocks(X), added)

    def transform(self, X):
        """Join the blocks.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side, with NaN in missing cells.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features_out)
            Joined features, without NaN.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=float_dtypes(X), ensure_all_finite="allow-nan", reset=False)
        self._check_library(X)
        X, added = self._impute(X)
        return _append(self._transform_blocks(self._scale(X)), added)

    def _fit(self, X, y):
        X, y = self._validate_fit(X, y)
        self._check_library(X)
        self._resolve_blocks(X)
        for name, columns in self.blocks_.items():
            self._check_seen(name, holds_numbers(X[:, columns]))
        X, added = self._fit_impute(X)
        self._fit_scale(X)
        X = self._scale(X)
        self._fit_blocks(X, y)
        return X, added

    def _check_seen(self, name, seen):
        """Raise unless some row of ``fit`` has the block."""
        if not seen:
            what = f"block {name!r} is missing" if name else "all is missing"
            raise ValueError(
                f"{type(self).__name__}: {what} in every row of X, so that there is nothing to learn about it; leave "
                "out the modality, or fit on rows that have it."
            )

    def _fit_impute(self, X):
        """Fill in what is missing, for a strategy that can; the second are columns to append to what comes out."""
        return X, None

    def _impute(self, X):
        """Fill in as ``_fit_impute`` has learned to."""
        return X, None

    def _check_library(self, X):
        if self._numpy_only and not isinstance(X, np.ndarray):
            raise TypeError(
                f"{type(self).__name__} takes NumPy arrays only, got {type(X).__module__}; convert X first."
            )

    def _resolve_blocks(self, X):
        self.blocks_ = resolve_blocks(
            self.blocks,
            X.shape[1],
            getattr(self, "feature_names_in_", None),
            owner=type(self).__name__,
            min_blocks=self._min_blocks,
        )

    def _validate_fit(self, X, y):
        X = validate_data(
            self,
            X,
            dtype=float_dtypes(X),
            ensure_all_finite="allow-nan",
            ensure_min_samples=self._min_samples,
        )
        return X, None

    def _fit_scale(self, X):
        """Learn mean and scale of every column from the cells that are there."""
        self._means = column_means(X)
        xp = namespace(X)
        self._empty = to_numpy(xp.all(xp.isnan(X), axis=0))
        self._scales = None
        if getattr(self, "scaling", None) is None:
            return
        self._set_scales(column_variances(X, self._means), X.shape[0])

    def _set_scales(self, variances, n_rows):
        """Keep the scale of every column, from the variances of the columns in so many rows."""
        # What summing up a constant leaves is no variance.
        rounding = 10 * np.finfo(np.float64).eps * np.sqrt(n_rows) * np.abs(self._means)
        variances = np.where(np.sqrt(variances) <= rounding, 0, variances)
        share = len(variances) / len(self.blocks_)
        self._scales = np.ones(len(variances))
        for columns in self.blocks_.values():
            if self.scaling == "std":
                scales = np.sqrt(np.where(variances[columns] > 0, variances[columns], 1))
                total = np.count_nonzero(variances[columns] > 0)
            else:
                scales = 1.0
                total = variances[columns].sum()
            self._scales[columns] = scales * (np.sqrt(total / share) if total > 0 else 1.0)

    def _scale(self, X):
        """Centre and scale; NaN stays. Without ``scaling`` X itself."""
        if self._scales is None and not self._empty.any():
            return X
        scaled = namespace(X).empty_like(X)
        for columns in self.blocks_.values():
            scaled[:, columns] = self._scale_columns(X[:, columns], columns)
        return scaled

    def _scale_columns(self, Z, columns):
        """Centre and scale these columns; Z holds nothing else."""
        if self._empty[columns].any():
            # What fit never saw has no meaning later.
            Z = Z + like(np.where(self._empty[columns], np.nan, 0.0), Z)
        if self._scales is None:
            return Z
        xp = namespace(Z)
        means, scales = (like(values[columns], Z, precise=True) for values in (self._means, self._scales))
        scaled = xp.empty_like(Z)
        for rows in chunks_of_rows(Z):
            # In float64, some rows at a time: a large mean leaves float32 few digits for what varies.
            scaled[rows, :] = xp.astype((Z[rows, :] - means) / scales, Z.dtype)
        return scaled

    def _fill(self, X):
        """Put the mean of its column into each missing cell of a scaled matrix."""
        means = self._means if self._scales is None else np.zeros(X.shape[1])
        return fill_missing(X, means)

    def _fit_blocks(self, X, y):
        """Learn from the scaled matrix."""
        raise NotImplementedError

    def _transform_blocks(self, X):
        """Join the blocks of the scaled matrix."""
        raise NotImplementedError

    def _block_names(self, count_by_block):
        """Names ``text__pcafusion0`` ... for columns that belong to a block each."""
        suffix = type(self).__name__.lower()
        return np.array(
            [
                f"{name}__{suffix}{i}" if name else f"{suffix}{i}"
                for name, count in count_by_block.items()
                for i in range(count)
            ],
            dtype=object,
        )

    def _joint_names(self, count):
        """Names ``pcafusion0`` ... for columns that belong to all blocks."""
        return self._block_names({"": count})

    def get_feature_names_out(self, input_features=None):
        """Get the names of the output columns.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the input columns.

        Returns
        -------
        feature_names_out : ndarray of str objects
            ``text__pcafusion0`` for a column made of one block, ``pcafusion0`` for one made of all.
        """
        check_is_fitted(self)
        input_features = check_feature_names_in(self, input_features)
        return np.concatenate([self._names_out(input_features), self._added_names()])

    def _added_names(self):
        """Names of the columns that ``_impute`` appends."""
        return np.array([], dtype=object)

    def _names_out(self, input_features):
        raise NotImplementedError

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
