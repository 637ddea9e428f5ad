"""Branches: how a network reads one modality, and the part of it that does.

A branch is what a transformer is to a frozen modality: it learns from the column what it must (a vocabulary, a scale)
in ``fit`` and turns items to arrays in ``prepare``, once and without torch. ``make_module`` gives the part of the
network that maps batches of these arrays to one vector per row, and that is trained with the rest of it.
"""

import copy
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..._blocks import dense_block
from ..._missing import is_missing_item
from ..._moments import column_means, fill_missing
from ..._sklearn import HasMethods, Interval, fit_context
from ..._threads import in_order
from ..._torch import available_cpus
from ..._validation import check_columns
from ...exceptions import BranchItemError, RejectedItem
from ...media import column_items, describe_item
from .._state import ModuleHolder, on_cpu


class Branch(ModuleHolder, BaseEstimator):
    """Base of the branches of a network.

    Subclasses write ``_learn``, ``_prepare`` and ``make_module``. Those of items use ``_items`` and ``_read``.
    """

    _parameter_constraints: dict = {
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "n_frozen_epochs": [Interval(Integral, 0, None, closed="left")],
        "augment": [callable, None],
    }

    # Whether a row of numbers is an item, as a waveform or a series can be.
    _rows_are_items = False

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn from a column what its items must be turned to.

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
        self._learn(X)
        return self

    def prepare(self, X):
        """Turn items to arrays.

        Parameters
        ----------
        X : Series, DataFrame, array-like or list of n_samples items
            The column or columns of the modality, no row of it missing.

        Returns
        -------
        arrays : tuple of ndarray
            Each with n_samples as its first dimension; what the module takes, in order.

        Raises
        ------
        ValueError
            If an item cannot be read; it names the row.
        """
        check_is_fitted(self)
        check_columns(self, X, reset=False)
        return self._prepare(X)

    def make_module(self):
        """Make the part of a network that this branch is, with random weights where it was not pretrained.

        Returns
        -------
        module : torch.nn.Module
            Maps tensors of what ``prepare`` gives to a tensor of shape (n_samples, ``module.out_features``), in the
            dtype of its parameters.
        """
        raise NotImplementedError

    def __getstate__(self):
        return on_cpu(super().__getstate__())

    def _learn(self, X):
        """Set the fitted attributes."""

    def _prepare(self, X):
        """Give the tuple of arrays."""
        raise NotImplementedError

    def _items(self, X):
        return column_items(X, type(self).__name__, self._rows_are_items)

    def _read(self, items, function, in_threads=False):
        """Yield ``function(item)`` for each item, or say which one cannot be read."""

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


class ModuleBranch(Branch):
    """A user's own module on columns of numbers.

    Parameters
    ----------
    module : torch.nn.Module
        Maps a float tensor (n, n_features) to (n, n_outputs). It is copied, and starts from the weights it has.

    learning_rate : float, default=None
        Learning rate of this branch; None is that of the network.

    n_frozen_epochs : int, default=0
        First epochs in which the module's weights stay as they are.

    augment : callable, default=None
        Called in training with the tuple of a batch's tensors and a torch generator, gives such a tuple.

    Attributes
    ----------
    means_ : ndarray of shape (n_features,)
        Mean of each column, for single cells that are missing.
    """

    _parameter_constraints: dict = {**Branch._parameter_constraints, "module": [HasMethods(["forward", "parameters"])]}

    def __init__(self, module, *, learning_rate=None, n_frozen_epochs=0, augment=None):
        self.module = module
        self.learning_rate = learning_rate
        self.n_frozen_epochs = n_frozen_epochs
        self.augment = augment

    def _learn(self, X):
        self.means_ = column_means(_matrix(X))

    def _prepare(self, X):
        return (np.ascontiguousarray(fill_missing(_matrix(X), self.means_)),)

    def make_module(self):
        """Make a copy of the user's module.

        Returns
        -------
        module : torch.nn.Module
            Maps a tensor (n, n_features) to (n, ``module.out_features``).
        """
        from ._modules import UserModule

        check_is_fitted(self)
        return UserModule(copy.deepcopy(self.module), self.n_features_in_)


def _matrix(X):
    """Give the columns of a modality as a float matrix; one column of vectors counts as a matrix."""
    if getattr(X, "ndim", 2) == 1:
        X = np.stack([np.atleast_1d(np.asarray(row)) for row in column_items(X, "ModuleBranch")])
    return dense_block(X, "")
