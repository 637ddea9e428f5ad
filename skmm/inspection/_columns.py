"""The columns of each modality: found in the estimator, taken out of X, and put back changed."""

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._composition import ModalityComposition
from .._sklearn import safe_indexing
from .._validation import check_table, resolve_columns

# Where meta-estimators keep what they fitted.
_INNER = ("best_estimator_", "estimator_", "regressor_", "estimator")


def find_composite(estimator):
    """Give the composite of modalities that sees X first in a fitted estimator, or None.

    Parameters
    ----------
    estimator : estimator
        A composite, a pipeline that begins with one, or a search or another wrapper around these.

    Returns
    -------
    composite : ModalityComposition or None
        The part that has ``modalities``.
    """
    if isinstance(estimator, ModalityComposition):
        return estimator
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
        return find_composite(steps[0]) if steps else None
    if hasattr(estimator, "calibrated_classifiers_"):
        return find_composite(estimator.calibrated_classifiers_[0])
    inner = [getattr(estimator, name) for name in _INNER if hasattr(estimator, name)]
    return find_composite(inner[0]) if inner else None


class ModalityColumns:
    """The columns of each modality in one X.

    Parameters
    ----------
    estimator : estimator
        Fitted; its modalities are taken if none are given.

    X : DataFrame or array-like of shape (n_samples, n_features)
        Data.

    modalities : dict of str to columns, or None
        Columns of each modality, as a modality's triple selects them.
    """

    def __init__(self, estimator, X, modalities):
        self.X = check_table(estimator, X)
        if modalities is None:
            composite = find_composite(estimator)
            if composite is None:
                raise ValueError(
                    f"{type(estimator).__name__} neither has modalities nor begins with a step that has them; pass "
                    "modalities={'text': 'caption', 'table': ['price', 'weight']}, with a name for each group of "
                    "columns of X."
                )
            check_is_fitted(composite)
            self.positions = {name: list(composite._positions(self.X, name)) for name in composite._active()}
        else:
            if not isinstance(modalities, dict) or not modalities:
                raise ValueError(f"modalities must be a dict of names to columns of X, got {modalities!r}.")
            self.positions = {
                name: list(resolve_columns(self.X, columns, name)[0]) for name, columns in modalities.items()
            }
        owners = {}
        for name, positions in self.positions.items():
            for position in positions:
                if position in owners:
                    raise ValueError(
                        f"Modalities {owners[position]!r} and {name!r} share column {position} of X, so one cannot be "
                        "changed without the other; pass modalities={...} in which they are one."
                    )
                owners[position] = name
        others = [position for position in range(self.X.shape[1]) if position not in owners]
        self._others = self._take(others) if others else None
        # Where each column of X lies once all others and then all modalities stand side by side.
        order = others + [position for positions in self.positions.values() for position in positions]
        self._order = np.argsort(order).tolist()

    @property
    def names(self):
        """Names of the modalities, in order."""
        return list(self.positions)

    @property
    def n_samples(self):
        """Number of rows of X."""
        return self.X.shape[0]

    def part(self, name):
        """Give the columns of one modality, a data frame or an array as X is."""
        return self._take(self.positions[name])

    def replace(self, parts):
        """Give X with other columns in place of those of some modalities.

        Parameters
        ----------
        parts : dict of str to DataFrame or ndarray
            New columns by modality, of the kind and shape that :meth:`part` gives.

        Returns
        -------
        X : DataFrame or ndarray of shape (n_samples, n_features)
            A new table, in the order of columns of X; X itself if nothing is replaced.
        """
        if not parts:
            return self.X
        pieces = [] if self._others is None else [self._others]
        pieces += [parts[name] if name in parts else self.part(name) for name in self.positions]
        return self._take(self._order, _side_by_side(pieces))

    def _take(self, positions, X=None):
        return safe_indexing(self.X if X is None else X, positions, axis=1)


def _side_by_side(pieces):
    first = pieces[0]
    if isinstance(first, np.ndarray):
        return np.hstack(pieces)
    if nw.dependencies.is_polars_dataframe(first):
        return first.hstack([column for piece in pieces[1:] for column in piece.get_columns()])
    import pandas as pd

    return pd.concat(pieces, axis=1)


def blank(part, rows):
    """Make a modality missing in some rows.

    Parameters
    ----------
    part : DataFrame or ndarray of shape (n_samples, n_columns)
        Columns of a modality.

    rows : ndarray of shape (n_samples,), dtype bool
        Where to take everything away.

    Returns
    -------
    part : DataFrame or ndarray of shape (n_samples, n_columns)
        With NaN, None or what the column's type has for them; integers become floats for that.
    """
    if isinstance(part, np.ndarray):
        if part.dtype.kind in "biu":
            part = part.astype(np.float64)
        elif part.dtype.kind not in "f":
            part = part.astype(object)
        return np.where(rows[:, None], np.asarray(np.nan, dtype=part.dtype), part)
    if nw.dependencies.is_polars_dataframe(part):
        return mix(part, part.clear(len(part)), rows)
    return part.mask(_mask(part, rows))


def mix(part, other, rows):
    """Take some rows of a modality from another version of it.

    Parameters
    ----------
    part, other : DataFrame or ndarray of shape (n_samples, n_columns)
        Columns of a modality, of one kind.

    rows : ndarray of shape (n_samples,), dtype bool
        Where to take ``other``.

    Returns
    -------
    part : DataFrame or ndarray of shape (n_samples, n_columns)
        A new table.
    """
    if isinstance(part, np.ndarray):
        return np.where(rows[:, None], other, part)
    if nw.dependencies.is_polars_dataframe(part):
        import polars as pl

        keep = pl.Series(~rows)
        return part.with_columns([column.zip_with(keep, other[column.name]) for column in part.get_columns()])
    return part.where(~_mask(part, rows), other)


def shuffle(part, order):
    """Give the rows of a modality in another order, at the index that they have."""
    shuffled = safe_indexing(part, order, axis=0)
    return shuffled.set_axis(part.index) if hasattr(part, "iloc") else shuffled


def _mask(part, rows):
    return np.repeat(rows[:, None], part.shape[1], axis=1)
