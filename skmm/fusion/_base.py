"""The base of all strategies of fusion: a matrix whose columns fall into blocks, one per modality."""

from numbers import Integral
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GroupKFold
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data

from .._columns import CHUNK_OF_ROWS, check_groups, column_means, column_variances, describe_item, fill_missing
from .._composition import check_block_name
from .._sklearn import Interval, StrOptions, check_feature_names_in, fit_context
from .._typing import Blocks, Matrix

N_COMPONENTS = [Interval(Integral, 1, None, closed="left")]
SCALING = [StrOptions({"std", "norm"}), None]
LEVEL = [StrOptions({"modality", "joint"})]

# What X is checked for.
_CELLS = {"dtype": [np.float64, np.float32], "ensure_all_finite": "allow-nan"}
# Coefficients whose sizes differ by less than this share count as ties when signs are chosen.
_TIE = 1e-2


def signs_by_largest(coefficients):
    """Return the signs that make the largest coefficient of each column positive, the first of nearly equal ones."""
    sizes = np.abs(coefficients)
    largest = (sizes >= (1 - _TIE) * sizes.max(axis=0)).argmax(axis=0)
    return np.where(coefficients[largest, np.arange(coefficients.shape[1])] < 0, -1.0, 1.0)


class BlockTransformer(TransformerMixin, BaseEstimator):
    """Base of the strategies of fusion: transformers of a matrix whose columns fall into blocks, one per modality.

    A new strategy is a subclass. Its ``__init__`` sets its parameters, among them ``blocks=None``, and it writes three
    methods:

    - ``_fit_blocks(X, y)`` learns from the matrix and sets attributes;
    - ``_transform_blocks(X)`` returns the joined features, an array with a row for each row of X and its dtype;
    - ``_names_out(input_features)`` returns the names of its columns, by ``self._joint_names(n_columns)`` if they are
      made of all blocks, or by ``self._block_names({name: n_columns})`` if of one block each.

    X arrives there as an array of float32 or float64 with NaN in missing cells. If the strategy has a parameter
    ``scaling`` (``"norm"``, ``"std"`` or None, as in :class:`ConcatFusion`), the columns are centred and scaled.
    ``self.blocks_`` maps the name of each block to the slice of its columns, ``self._missing(X)`` returns the mask of
    missing blocks, of shape (n_samples, n_blocks), and ``self._fill(X)`` puts the mean of its column into each missing
    cell. A strategy that learns from ``y`` returns True from ``_needs_y()``, and y arrives as it was passed (strings
    stay strings), else as None; one that needs two blocks sets the class attribute ``_min_blocks = 2``.

    Parameters
    ----------
    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block. ``"prefix"`` reads them from the part of the column names before the
        first ``__``; None means one block. Inside :class:`ModalityFuser` it is set by the fuser.

    Attributes
    ----------
    blocks_ : dict of str to slice
        Columns of each block, as slices from a first column to the one after the last.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ModalityFuser : Takes any strategy as its parameter ``fusion``.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.fusion import BlockTransformer
    >>> class BlockNorms(BlockTransformer):
    ...     def __init__(self, *, scaling="norm", blocks=None):
    ...         self.scaling = scaling
    ...         self.blocks = blocks
    ...
    ...     def _fit_blocks(self, X, y):
    ...         pass
    ...
    ...     def _transform_blocks(self, X):
    ...         filled = self._fill(X)
    ...         blocks = [filled[:, columns] for columns in self.blocks_.values()]
    ...         return np.column_stack([np.linalg.norm(block, axis=1) for block in blocks])
    ...
    ...     def _names_out(self, input_features):
    ...         return self._block_names(dict.fromkeys(self.blocks_, 1))
    >>> norms = BlockNorms(scaling=None, blocks={"a": slice(0, 2), "b": slice(2, 3)})
    >>> norms.fit_transform([[3.0, 4.0, -2.0], [0.0, 0.0, np.nan]])
    array([[5., 2.],
           [0., 2.]])
    >>> norms.get_feature_names_out().tolist()
    ['a__blocknorms0', 'b__blocknorms0']
    """

    _parameter_constraints: dict = {"blocks": [dict, StrOptions({"prefix"}), None]}
    # Groups reach a strategy in any pipeline or search to which they are passed.
    __metadata_request__fit = {"groups": True}
    _min_blocks = 1
    _min_samples = 1
    # Whether ``_fit_blocks`` takes ``groups`` as its third argument.
    _learns_out_of_fold = False
    # Values of a parameter ``weights`` that are learned from y.
    _weights_from_y = ()
    # Whether ``_fit_blocks`` takes X as it came, and sets ``_means``.
    _scales_itself = False

    def __init__(self, *, blocks: Blocks = None):
        self.blocks = blocks

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Matrix, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> Self:
        """Learn how to join the blocks.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side. NaN marks missing cells; a block is missing in a row in which all
            of its columns are NaN.

        y : array-like of shape (n_samples,), default=None
            Target, for the strategies that use one.

        groups : array-like of shape (n_samples,), default=None
            Group of each row, such as a speaker. What a strategy learns out of fold, as by ``weights="cv"`` or
            ``regularization="cv"``, it learns from folds that split no group.

        Returns
        -------
        self : estimator
            The fitted strategy.
        """
        self._fit(X, y, groups)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X: Matrix, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> np.ndarray:
        """Learn how to join the blocks, and join them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side, with NaN in missing cells.

        y : array-like of shape (n_samples,), default=None
            Target, for the strategies that use one.

        groups : array-like of shape (n_samples,), default=None
            Group of each row, such as a speaker. What a strategy learns out of fold, as by ``weights="cv"`` or
            ``regularization="cv"``, it learns from folds that split no group.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features_out)
            Joined features, without NaN.
        """
        X, indicators = self._fit(X, y, groups)
        joined = self._check_joined(self._transform_blocks(X), len(X))
        self._n_features_out = joined.shape[1]
        return _append(joined, indicators)

    def transform(self, X: Matrix) -> np.ndarray:
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
        X, indicators = self._validate(X, reset=False), None
        if getattr(self, "imputer_", None) is not None:
            X, indicators = self._impute(X)
        return _append(self._check_joined(self._transform_blocks(self._scale(X)), len(X)), indicators)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
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
        names = self._names_out(input_features)
        if self._n_features_out not in (None, len(names)):
            raise ValueError(
                f"{type(self).__name__}: _names_out returned {len(names)} names, while _transform_blocks returned "
                f"{self._n_features_out} columns; return one name for each."
            )
        if getattr(self, "imputer_", None) is not None:
            names = np.concatenate([names, self.imputer_._indicator_names()])
        return names

    # What a strategy writes.

    def _fit_blocks(self, X, y):
        """Learn from the scaled matrix."""
        raise NotImplementedError

    def _transform_blocks(self, X):
        """Return the joined blocks of the scaled matrix."""
        raise NotImplementedError

    def _names_out(self, input_features):
        """Return the names of the columns that ``_transform_blocks`` returns."""
        raise NotImplementedError

    def _needs_y(self):
        """Return whether the strategy learns from a target: of its own accord, or by such a value of ``weights``."""
        weights = getattr(self, "weights", None)
        return isinstance(weights, str) and weights in self._weights_from_y

    # What a strategy uses.

    def _missing(self, X):
        """Return the mask of the rows in which each block is missing, of shape (n_samples, n_blocks)."""
        return missing_blocks(X, self.blocks_)

    def _fill(self, X, columns=slice(None)):
        """Put the mean of its column into each missing cell of a scaled matrix, which has these columns."""
        means = self._means[columns] if self._scales is None else np.zeros(X.shape[1])
        return fill_missing(X, means)

    def _block_names(self, count_by_block):
        """Return names ``text__pcafusion0`` ... for columns that are made of one block each."""
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
        """Return names ``pcafusion0`` ... for columns that are made of all blocks."""
        return self._block_names({"": count})

    # What all strategies do before and after.

    def _fit(self, X, y, groups):
        """Fit; return what :meth:`_transform_blocks` takes, and an imputer's columns that tell what was missing."""
        # Only a transform tells.
        self._n_features_out = None
        X, y = self._validate_fit(X, y)
        self._resolve_blocks(X)
        for name in blocks_without_values(X, self.blocks_):
            self._raise_without_values(name)
        indicators = None
        if hasattr(self, "imputer"):
            self.imputer_ = None
            if self.imputer is not None:
                X, indicators = self._fit_impute(X)
        self._fit_scale(X)
        X = self._scale(X)
        if self._learns_out_of_fold and groups is not None:
            self._fit_blocks(X, y, check_groups(groups, len(X)))
        else:
            self._fit_blocks(X, y)
        return X, indicators

    def _check_joined(self, joined, n_samples):
        """Return what ``_transform_blocks`` returned for so many rows, or raise if it is not as it should be."""
        owner = type(self).__name__
        is_matrix = isinstance(joined, np.ndarray) and joined.ndim == 2 and joined.dtype.kind in "fiub"
        if not is_matrix or len(joined) != n_samples:
            raise ValueError(
                f"{owner}: _transform_blocks must return an array of numbers of shape ({n_samples}, n_features_out), "
                f"one row for each row of X, got {describe_item(joined)}."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            # Most often the sum settles it, without memory for a mask.
            is_finite = np.isfinite(joined.sum()) or np.isfinite(joined).all()
        if not is_finite:
            row, column = np.argwhere(~np.isfinite(joined))[0]
            raise ValueError(
                f"{owner}: _transform_blocks returned {joined[row, column]} in row {row}, column {column}; what it "
                "returns must be finite. Missing cells of X are NaN, into which self._fill(X) puts the mean."
            )
        return joined

    def _validate_fit(self, X, y):
        if not self._needs_y():
            return self._validate(X, reset=True, ensure_min_samples=self._min_samples), None
        return self._validate(X, y, reset=True, ensure_min_samples=max(2, self._min_samples), multi_output=True)

    def _validate(self, X, y="no_validation", *, reset, **options):
        """Return X as an array of float32 or float64, and y if there is one."""
        # Arrays of other libraries become NumPy's, whatever the global configuration says.
        with config_context(array_api_dispatch=False):
            return validate_data(self, X, y, reset=reset, **_CELLS, **options)

    def _validate_block(self, X_block):
        """Return one block as an array of float32 or float64."""
        with config_context(array_api_dispatch=False):
            return check_array(X_block, estimator=self, input_name="X_block", **_CELLS)

    def _resolve_blocks(self, X):
        self.blocks_ = resolve_blocks(
            self.blocks,
            X.shape[1],
            getattr(self, "feature_names_in_", None),
            owner=type(self).__name__,
            min_blocks=self._min_blocks,
        )

    def _raise_without_values(self, name):
        subject = f"block {name!r} is missing" if name else "all is missing"
        raise ValueError(
            f"{type(self).__name__}: {subject} in every row of X, so that there is nothing to learn about it; leave "
            "out the modality, or fit on rows that have it."
        )

    def _fit_scale(self, X):
        """Learn mean and scale of every column from the cells that are present."""
        if self._scales_itself:
            self._empty, self._scales = np.zeros(X.shape[1], dtype=bool), None
            return
        self._means = column_means(X)
        self._empty = np.isnan(X).all(axis=0)
        self._scales = None
        if getattr(self, "scaling", None) is not None:
            self._set_scales(column_variances(X, self._means), len(X))

    def _set_scales(self, variances, n_rows):
        """Set the scale of every column, from the variances of the columns in so many rows."""
        # A standard deviation that rounding can make of a constant counts as 0.
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

    def _scale(self, X, columns=slice(None)):
        """Return X, which has these columns, centred and scaled; NaN stays. Without ``scaling`` X itself."""
        if self._empty[columns].any():
            # A column without any value in fit has no meaning later.
            X = X + np.where(self._empty[columns], np.nan, 0.0).astype(X.dtype)
        if self._scales is None:
            return X
        means, scales = self._means[columns], self._scales[columns]
        scaled = np.empty_like(X)
        for rows in gen_batches(len(X), CHUNK_OF_ROWS):
            # In float64, some rows at a time: a large mean leaves float32 few digits for what varies.
            scaled[rows] = (X[rows] - means) / scales
        return scaled

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = self._needs_y()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def resolve_blocks(blocks, n_features, feature_names=None, *, owner, min_blocks=1):
    """Return the blocks of a matrix as closed slices, in the order of ``blocks``.

    Parameters
    ----------
    blocks : dict of str to slice, "prefix" or None
        The constructor parameter. None means one block of all columns; "prefix" reads the part of
        each column's name before the first "__".

    n_features : int
        Columns of the matrix.

    feature_names : array-like of str or None, default=None
        Names of the columns, needed for "prefix".

    owner : str
        Name of the estimator, for the error messages.

    min_blocks : int, default=1
        Fewest blocks that make sense to the estimator.

    Returns
    -------
    slices : dict of str to slice
        Disjoint slices that together cover all columns. The only block of ``blocks=None`` is named "".
    """
    if blocks is None:
        slices = {"": slice(0, n_features)}
    elif blocks == "prefix":
        slices = _blocks_from_prefixes(feature_names, owner)
    else:
        slices = {}
        for name, columns in blocks.items():
            check_block_name(name)
            if not isinstance(columns, slice) or columns.step not in (None, 1):
                raise ValueError(f"{owner}: blocks[{name!r}] must be a slice without a step, got {columns!r}.")
            start, stop, _ = columns.indices(n_features)
            if start >= stop:
                raise ValueError(
                    f"{owner}: block {name!r} selects no column: {columns!r}, while X has n_features = {n_features}."
                )
            slices[name] = slice(start, stop)
        end = 0
        for name, columns in sorted(slices.items(), key=lambda block: block[1].start):
            if columns.start != end:
                raise ValueError(
                    f"{owner}: blocks must cover each column exactly once, but {name!r} starts at column "
                    f"{columns.start} where {end} was expected."
                )
            end = columns.stop
        if end != n_features:
            raise ValueError(f"{owner}: blocks end at column {end}, while X has n_features = {n_features}.")
    if len(slices) < min_blocks:
        raise ValueError(
            f"{owner} needs at least {min_blocks} blocks (modalities), got {len(slices)}; use it as the fusion of a "
            "ModalityFuser with several modalities, or pass blocks={'a': slice(0, k), 'b': slice(k, None)}."
        )
    return slices


def _blocks_from_prefixes(feature_names, owner):
    if feature_names is None:
        raise ValueError(f"{owner}: blocks='prefix' needs a data frame with string column names, got an array.")
    slices = {}
    for position, feature in enumerate(feature_names):
        name, separator, _ = feature.partition("__")
        if not separator:
            raise ValueError(f"{owner}: blocks='prefix' needs names such as 'text__0', got {feature!r}.")
        if name not in slices:
            slices[name] = slice(position, position + 1)
        elif slices[name].stop == position:
            slices[name] = slice(slices[name].start, position + 1)
        else:
            raise ValueError(
                f"{owner}: blocks='prefix' needs contiguous columns, but {name!r} comes back at {feature!r}."
            )
    return slices


def missing_blocks(X, blocks):
    """Return the mask of the rows in which each block of a matrix is missing.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Numbers, with NaN in missing cells.

    blocks : dict of str to slice
        Columns of each block, closed.

    Returns
    -------
    mask : ndarray of shape (n_samples, n_blocks), dtype bool
        True where all columns of the block are NaN.
    """
    mask = np.zeros((len(X), len(blocks)), dtype=bool)
    for i, columns in enumerate(blocks.values()):
        # Only rows that lack the first column can lack all of them.
        candidates = np.flatnonzero(np.isnan(X[:, columns.start]))
        mask[candidates, i] = np.isnan(X[candidates, columns]).all(axis=1)
    return mask


def blocks_without_values(X, blocks):
    """Return the names of the blocks of which every cell is NaN; most often the first rows settle it."""
    return [
        name
        for name, columns in blocks.items()
        if all(np.isnan(X[rows, columns]).all() for rows in gen_batches(len(X), 256))
    ]


def group_folds(groups, n_folds):
    """Return the fold of each row, with no group in two folds."""
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise ValueError(f"What is learned out of fold needs at least 2 groups, got {n_groups}; do not pass groups.")
    folds = np.empty(len(groups), dtype=int)
    for fold, (_, test) in enumerate(GroupKFold(min(n_folds, n_groups)).split(groups, groups=groups)):
        folds[test] = fold
    return folds


def _append(X, indicators):
    return X if indicators is None else np.hstack([X, indicators])
