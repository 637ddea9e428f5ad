"""The columns of each modality in X: which they are, and X with some of them replaced."""

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._columns import check_table, resolve_columns
from .._composition import ModalityComposition, modality_positions
from .._sklearn import safe_indexing

# Attributes in which meta-estimators store the estimator that they fitted.
_INNER = ("best_estimator_", "estimator_", "regressor_", "estimator")


def find_composite(estimator):
    """Return the composite of modalities that receives X first in a fitted estimator, or None.

    Parameters
    ----------
    estimator : estimator
        A composite, a pipeline that begins with one, or a search or another wrapper around these.

    Returns
    -------
    composite : ModalityComposition or None
        The estimator that has ``modalities``.
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
        Fitted; its modalities are used if ``modalities`` is None.

    X : DataFrame or array-like of shape (n_samples, n_features)
        Data.

    modalities : dict of str to columns, or None
        Columns of each modality, selected as in the triples of :class:`~skmm.ModalityFuser`.
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
            self.positions = modality_positions(composite, self.X)
        else:
            if not isinstance(modalities, dict) or not modalities:
                raise ValueError(f"modalities must be a dict of names to columns of X, got {modalities!r}.")
            self.positions = {
                name: list(resolve_columns(self.X, columns, name)[0]) for name, columns in modalities.items()
            }
        modality_of = {}
        for name, positions in self.positions.items():
            for position in positions:
                if position in modality_of:
                    raise ValueError(
                        f"Modalities {modality_of[position]!r} and {name!r} share column {position} of X, so one "
                        "cannot be changed without the other; pass modalities={...} in which they are one."
                    )
                modality_of[position] = name
        unused = [position for position in range(self.X.shape[1]) if position not in modality_of]
        self._unused = safe_indexing(self.X, unused, axis=1) if unused else None
        # `replace` joins the unused columns and then those of all modalities; this order restores that of X.
        joined = unused + [position for positions in self.positions.values() for position in positions]
        self._order = np.argsort(joined).tolist()

    @property
    def names(self):
        """Names of the modalities, in order."""
        return list(self.positions)

    @property
    def n_samples(self):
        """Number of rows of X."""
        return self.X.shape[0]

    def table(self, name):
        """Return the columns of one modality, as a data frame or an array like X."""
        return safe_indexing(self.X, self.positions[name], axis=1)

    def replace(self, tables):
        """Return X with other columns in place of those of some modalities.

        Parameters
        ----------
        tables : dict of str to DataFrame or ndarray
            New columns by modality, of the same kind and shape as those of :meth:`table`.

        Returns
        -------
        X : DataFrame or ndarray of shape (n_samples, n_features)
            A new table, in the order of columns of X; X itself if nothing is replaced.
        """
        if not tables:
            return self.X
        columns = [] if self._unused is None else [self._unused]
        columns += [tables[name] if name in tables else self.table(name) for name in self.positions]
        return safe_indexing(_side_by_side(columns), self._order, axis=1)


def _side_by_side(tables):
    first = tables[0]
    if isinstance(first, np.ndarray):
        return np.hstack(tables)
    if nw.dependencies.is_polars_dataframe(first):
        return first.hstack([column for table in tables[1:] for column in table.get_columns()])
    import pandas as pd

    return pd.concat(tables, axis=1)


def blank(table, rows):
    """Return the columns of a modality that is missing in some rows.

    Parameters
    ----------
    table : DataFrame or ndarray of shape (n_samples, n_columns)
        Columns of a modality.

    rows : ndarray of shape (n_samples,), dtype bool
        Rows in which the modality becomes missing.

    Returns
    -------
    table : DataFrame or ndarray of shape (n_samples, n_columns)
        With NaN, None or the missing value of the column's type in these rows; integers become floats.
    """
    if isinstance(table, np.ndarray):
        if table.dtype.kind in "biu":
            table = table.astype(np.float64)
        elif table.dtype.kind not in "f":
            table = table.astype(object)
        return np.where(rows[:, None], np.asarray(np.nan, dtype=table.dtype), table)
    if nw.dependencies.is_polars_dataframe(table):
        return mix(table, table.clear(len(table)), rows)
    return table.mask(_cells(table, rows))


def mix(table, other, rows):
    """Return the columns of a modality, with some rows from another version of it.

    Parameters
    ----------
    table, other : DataFrame or ndarray of shape (n_samples, n_columns)
        Columns of a modality, of one kind.

    rows : ndarray of shape (n_samples,), dtype bool
        Rows that come from ``other``.

    Returns
    -------
    table : DataFrame or ndarray of shape (n_samples, n_columns)
        A new table.
    """
    if isinstance(table, np.ndarray):
        return np.where(rows[:, None], other, table)
    if nw.dependencies.is_polars_dataframe(table):
        import polars as pl

        unchanged = pl.Series(~rows)
        return table.with_columns([column.zip_with(unchanged, other[column.name]) for column in table.get_columns()])
    return table.where(~_cells(table, rows), other)


def shuffle(table, order):
    """Return the rows of a modality in another order; the index of a pandas frame stays as it is."""
    shuffled = safe_indexing(table, order, axis=0)
    return shuffled.set_axis(table.index) if hasattr(table, "iloc") else shuffled


def _cells(table, rows):
    return np.repeat(rows[:, None], table.shape[1], axis=1)
