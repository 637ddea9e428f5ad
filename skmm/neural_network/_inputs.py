"""Inputs of the network for each modality: arrays with one row per sample, and the mask of present rows."""

import numpy as np
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch, check_array

from .._columns import missing_rows
from .._composition import PresentRows, as_transformer, fit_transform_modality, transform_modality
from ._state import is_module
from .branches import Branch, ModuleBranch
from .network import BranchTraining

_NO_PARAMS = Bunch(fit={}, fit_transform={}, transform={})


def is_trained(member):
    """Tell whether a member is trained with the network, as branches and modules are."""
    return is_module(member) or isinstance(member, Branch)


def make_input(name, member):
    """Return the input of the network for a modality."""
    if not is_trained(member):
        return FrozenInput(name, member)
    return BranchInput(name, ModuleBranch(member) if is_module(member) else member)


class FrozenInput:
    """Features from a transformer, computed once before training and scaled to mean 0 and variance 1.

    Parameters
    ----------
    name : str
        Name of the modality.

    member : transformer or "passthrough"
        Computes the features.
    """

    # Nothing is trained here.
    training = BranchTraining()

    def __init__(self, name, member):
        self.name = name
        self.member = member

    def fit(self, owner, X, y, weights, step):
        """Fit a clone of the transformer on the present rows; return the arrays and the mask of present rows.

        X, the columns of the modality, y and ``weights`` (or None) have all rows, and so have the arrays, which are
        zero where the modality is missing. ``owner`` is the network, and ``step`` this step of its fit, for callbacks.
        """
        self.member, block = fit_transform_modality(
            owner, self.name, as_transformer(self.member, self.name), X, y, _NO_PARAMS, step
        )
        self._shape = block.shape[1], block.dtype.name
        block = self._check(block)
        # A column without any value has neither mean nor variance.
        with np.errstate(invalid="ignore"):
            scaler = StandardScaler().fit(block, sample_weight=weights)
        self._empty = np.isnan(scaler.mean_)
        self._means = np.where(self._empty, 0, scaler.mean_)
        self._scales = np.where(self._empty, 1, scaler.scale_)
        return self._arrays(block)

    def prepare(self, X):
        """Return the arrays and the mask of present rows of other data."""
        return self._arrays(self._check(transform_modality(self.name, self.member, X, self._shape, {})))

    def make_module(self):
        """Return None, since there is nothing to train, and the number of features."""
        return None, self._shape[0]

    def _check(self, block):
        return check_array(
            block, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", input_name=f"modality {self.name!r}"
        )

    def _arrays(self, block):
        present = ~missing_rows(block)
        # In float64: with a large mean, float32 has few digits left for the variation. Missing cells become the mean;
        # columns without values in fit become 0.
        scaled = (block - self._means) / self._scales
        scaled[:, self._empty] = 0
        return (np.nan_to_num(scaled, copy=False, nan=0.0).astype(block.dtype, copy=False),), present


class BranchInput:
    """Arrays that a branch prepares from raw items, for the module that is trained on them.

    Parameters
    ----------
    name : str
        Name of the modality.

    member : Branch
        Prepares the arrays and makes the module.
    """

    def __init__(self, name, member):
        self.name = name
        self.member = member

    @property
    def training(self):
        """How the branch is trained, a BranchTraining."""
        return self.member._training

    def fit(self, owner, X, y, weights, step):
        """Fit a clone of the branch on the present rows, as :meth:`FrozenInput.fit` does."""
        present = PresentRows(X, self.name)
        present.require_some()
        self.member = clone(self.member)
        present.call(self.member.fit, present.take(X), present.take(y))
        arrays, mask = self.prepare(X)
        self._formats = [(array.shape[1:], array.dtype.name) for array in arrays]
        return arrays, mask

    def prepare(self, X):
        """Return the arrays and the mask of present rows of other data."""
        present = PresentRows(X, self.name)
        if len(present) == 0:
            return tuple(np.zeros((present.n_samples, *shape), dtype) for shape, dtype in self._formats), present.mask
        arrays = present.call(self.member.prepare, present.take(X))
        return tuple(present.scatter(array, fill=0) for array in arrays), present.mask

    def make_module(self):
        """Return the module to train, and the number of its features."""
        module = self.member.make_module()
        return module, module.out_features
