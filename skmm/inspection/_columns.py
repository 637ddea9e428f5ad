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

    The estimator may be a composite, a pipeline that begins with one, or a search or another wrapper around these.
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
        self.names = list(self.positions)
        self.n_samples = self.X.shape[0]
        unused = [position for position in range(self.X.shape[1]) if position not in modality_of]
        self._unused = [safe_indexing(self.X, unused, axis=1)] if unused else []
        # `replace` joins the unused columns and then those of all modalities; this order restores that of X.
        self._order = np.argsort([*unused, *modality_of]).tolist()

    def table(self, name):
        """Return the columns of one modality, as a data frame or an array like X."""
        return safe_indexing(self.X, self.positions[name], axis=1)

    def replace(self, tables):
        """Return X with other columns, by modality, in place of those that :meth:`table` returns."""
        if not tables:
            return self.X
        columns = [*self._unused, *(tables[name] if name in tables else self.table(name) for name in self.names)]
        return safe_indexing(_side_by_side(columns), self._order, axis=1)

    def left_out(self, members):
        """Return the names of the modalities that a mask leaves out."""
        return [name for name, member in zip(self.names, members, strict=True) if not member]

    def only(self, members):
        """Return X with only the modalities of a mask present."""
        return self.replace({name: blank(self.table(name)) for name in self.left_out(members)})


def _side_by_side(tables):
    first = tables[0]
    if isinstance(first, np.ndarray):
        return np.hstack(tables)
    if nw.dependencies.is_polars_dataframe(first):
        return first.hstack([column for table in tables[1:] for column in table.get_columns()])
    import pandas as pd

    return pd.concat(tables, axis=1)


def blank(table):
    """Return the columns of a modality that is missing in all rows.

    Cells are NaN, None or the missing value of the column's type; integers become floats.
    """
    if isinstance(table, np.ndarray):
        dtype = {"f": table.dtype, "b": float, "i": float, "u": float}.get(table.dtype.kind, object)
        return np.full(table.shape, np.nan, dtype=dtype)
    if nw.dependencies.is_polars_dataframe(table):
        return table.clear(len(table))
    return table.mask(np.ones(table.shape, dtype=bool))


def mix(table, other, rows):
    """Return the columns of a modality, with the rows of a mask from another version of it."""
    if isinstance(table, np.ndarray):
        return np.where(rows[:, None], other, table)
    if nw.dependencies.is_polars_dataframe(table):
        import polars as pl

        unchanged = pl.Series(~rows)
        return table.with_columns([column.zip_with(unchanged, other[column.name]) for column in table.get_columns()])
    return table.where(np.repeat(~rows[:, None], table.shape[1], axis=1), other)


def shuffle(table, order):
    """Return the rows of a modality in another order; the index of a pandas frame stays as it is."""
    shuffled = safe_indexing(table, order, axis=0)
    return shuffled.set_axis(table.index) if hasattr(table, "iloc") else shuffled
