"""Modules of users on columns of numbers."""

import copy
from collections.abc import Callable

import numpy as np

from ..._columns import column_items, column_means, fill_missing
from ..._composition import dense_block
from ..._sklearn import HasMethods
from ._base import Branch


class ModuleBranch(Branch):
    """A user's own module on columns of numbers.

    Parameters
    ----------
    module : torch.nn.Module
        Maps a float tensor (n, n_features) to (n, n_outputs). It is copied, and starts from the weights it has.

    learning_rate : float, default=None
        Learning rate of this branch; None is that of the network.

    n_frozen_epochs : int, default=0
        Number of first epochs in which the module's weights are frozen.

    augment : callable, default=None
        Called in training with the tuple of a batch's tensors and a torch generator, returns such a tuple.

    Attributes
    ----------
    means_ : ndarray of shape (n_features,)
        Mean of each column, for single cells that are missing.
    """

    _parameter_constraints: dict = {**Branch._parameter_constraints, "module": [HasMethods(["forward", "parameters"])]}

    def __init__(
        self,
        module: object,
        *,
        learning_rate: float | None = None,
        n_frozen_epochs: int = 0,
        augment: Callable | None = None,
    ):
        self.module = module
        self.learning_rate = learning_rate
        self.n_frozen_epochs = n_frozen_epochs
        self.augment = augment

    def _learn(self, X):
        self.means_ = column_means(_matrix(X))

    def _prepare(self, X):
        return (np.ascontiguousarray(fill_missing(_matrix(X), self.means_)),)

    def _make_module(self):
        from ._modules import UserModule

        return UserModule(copy.deepcopy(self.module), self.n_features_in_)


def _matrix(X):
    """Return the columns of a modality as a float matrix; one column of vectors counts as a matrix."""
    if getattr(X, "ndim", 2) == 1:
        X = np.stack([np.atleast_1d(np.asarray(row)) for row in column_items(X, "ModuleBranch")])
    return dense_block(X, "")
