"""Branches: how a network reads the raw items of one modality."""

from functools import partial
from numbers import Integral, Real
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..._columns import check_columns, column_items, describe_item, is_missing_item
from ..._sklearn import Interval, fit_context
from ..._threads import in_order
from ..._torch import available_cpus
from ..._typing import Items
from ...exceptions import BranchItemError, RejectedItem
from .._state import ModuleHolder, on_cpu
from ..network import BranchTraining

# Token numbers of padding and of words that are not in the vocabulary.
PADDING, UNKNOWN = 0, 1


class Branch(ModuleHolder, BaseEstimator):
    """Base of the branches of a network, which take the place of a transformer.

    ``fit`` learns from the column (a vocabulary, a scale), ``prepare`` turns items to arrays without torch, those of
    all rows once or those of each batch in each epoch, and ``make_module`` makes the module that maps batches of these
    arrays to one vector per row and is trained with the network. Subclasses implement ``_learn``, ``_prepare`` and
    ``_make_module``.
    """

    _parameter_constraints: dict = {
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "n_frozen_epochs": [Interval(Integral, 0, None, closed="left")],
        "augment": [callable, None],
    }

    # Whether a row of numbers is an item, as a waveform or a series can be.
    _rows_are_items = False
    # Whether items are files or texts, which are read in each epoch where the arrays of all take much memory.
    _reads_items = False
    # Names of the changes that ``augment=True`` makes.
    _changes: tuple = ()
    # Whether it starts from the vectors of an encoder, which ``_encode(X, device)`` returns.
    _has_encoder = False

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Items, y: object = None) -> Self:
        """Learn from a column what preparing its items needs.

        Parameters
        ----------
        X : Series, DataFrame, array-like or list of n_samples items
            The column or columns of the modality, no row of it missing.

        y : ignored
            Present for API consistency.

        Returns
        -------
        self : estimator
            The fitted branch.
        """
        check_columns(self, X, reset=True)
        if isinstance(self.augment, (list, tuple)) and not set(self.augment) <= set(self._changes):
            raise ValueError(
                f"{type(self).__name__}: augment is a callable, True, or some of {list(self._changes)}, got "
                f"{list(self.augment)}."
            )
        self._learn(X)
        return self

    def prepare(self, X: Items) -> tuple[np.ndarray, ...]:
        """Turn items to arrays.

        Parameters
        ----------
        X : Series, DataFrame, array-like or list of n_samples items
            The column or columns of the modality, no row of it missing.

        Returns
        -------
        arrays : tuple of ndarray
            Inputs of the module, in order, each with n_samples as its first dimension.

        Raises
        ------
        ValueError
            If an item cannot be read; it names the row.
        """
        check_is_fitted(self)
        check_columns(self, X, reset=False)
        return self._prepare(X)

    def make_module(self):
        """Make the module of this branch, with random weights where it was not pretrained.

        Returns
        -------
        module : torch.nn.Module
            Maps tensors of the prepared arrays to a tensor of shape (n_samples, ``module.out_features``), in the
            dtype of its parameters.
        """
        check_is_fitted(self)
        return self._make_module()

    @property
    def _training(self):
        return BranchTraining(self.learning_rate, self.n_frozen_epochs, self._augment())

    def __getstate__(self):
        return on_cpu(super().__getstate__())

    def _learn(self, X):
        """Set the fitted attributes."""

    def _prepare(self, X):
        """Return the tuple of arrays."""
        raise NotImplementedError

    def _make_module(self):
        """Return the module of the fitted branch."""
        raise NotImplementedError

    def _augment(self):
        """Return what is called on each batch in training, or None."""
        if callable(self.augment) or not self.augment:
            return self.augment or None
        return partial(self._change(), names=self._changes if self.augment is True else tuple(self.augment))

    def _change(self):
        """Return the function that makes the changes of some names."""
        raise NotImplementedError

    def _items(self, X):
        return column_items(X, type(self).__name__, self._rows_are_items)

    def _read(self, items, function, in_threads=False):
        """Yield ``function(item)`` for each item; an error names the item that could not be read."""

        def read(row):
            item = items[row]
            try:
                if is_missing_item(item):
                    raise RejectedItem("the item is missing, and only rows that have one can be read")
                return function(item)
            except RejectedItem as reason:
                raise BranchItemError(row, describe_item(item), str(reason), type(self).__name__) from reason

        n_threads = available_cpus() if in_threads and len(items) > 1 else 0
        for _, result in in_order(read, range(len(items)), n_threads):
            yield result
