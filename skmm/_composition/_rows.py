"""The rows in which one modality is present."""

from copy import copy

import numpy as np

from .._missing import missing_rows
from .._sklearn import check_method_params, safe_indexing
from ..exceptions import ItemError


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
            raise
