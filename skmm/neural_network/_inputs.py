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

# Bytes of a modality's arrays up to which they are held in memory; the items of others are read batch by batch.
MAX_BYTES_HELD = 256 * 1024**2

# Rows whose arrays tell how many bytes those of all will have, and the number of rows from which this is asked.
_N_PROBED, _MIN_ROWS_TO_READ = 16, 256


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

    def encode(self, X, device):
        """Return None: the arrays are the vectors of the encoder, if there is one."""

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
        examples = arrays.examples if isinstance(arrays, ItemReader) else arrays
        self._formats = [(array.shape[1:], array.dtype.name) for array in examples]
        return arrays, mask

    def prepare(self, X):
        """Return the arrays and the mask of present rows of other data; in place of large arrays, their reader."""
        present = PresentRows(X, self.name)
        if len(present) == 0:
            return tuple(np.zeros((present.n_samples, *shape), dtype) for shape, dtype in self._formats), present.mask
        if self.member._reads_items and len(present) >= _MIN_ROWS_TO_READ:
            reader = ItemReader(self.member, present, X)
            if reader.nbytes > MAX_BYTES_HELD:
                return reader, present.mask
        arrays = present.call(self.member.prepare, present.take(X))
        return tuple(present.scatter(array, fill=0) for array in arrays), present.mask

    def encode(self, X, device):
        """Return the vectors of the encoder of a pretrained branch, zero in missing rows; None for other branches."""
        if not self.member._has_encoder:
            return None
        present = PresentRows(X, self.name)
        if len(present) == 0:
            return np.zeros((present.n_samples, 0), dtype=np.float32)
        return present.scatter(present.call(self.member._encode, present.take(X), device), fill=0)

    def make_module(self):
        """Return the module to train, and the number of its features."""
        module = self.member.make_module()
        return module, module.out_features


class ItemReader:
    """Reads the items of a modality batch by batch, so that the arrays of all are never in memory.

    Parameters
    ----------
    branch : Branch
        Prepares the items.

    present : PresentRows
        Rows that have the modality.

    X : Series, DataFrame or ndarray
        The columns of the modality.
    """

    def __init__(self, branch, present, X):
        self.branch = branch
        self.present = present
        self.X = X
        rows = np.flatnonzero(present.mask)
        self.examples = self._read(present.within(rows[np.linspace(0, len(rows) - 1, _N_PROBED).astype(int)]))

    @property
    def nbytes(self):
        """Bytes that the arrays of all rows would have."""
        return sum(array.nbytes for array in self.examples) / _N_PROBED * len(self.present)

    def __call__(self, rows):
        """Return the arrays of the rows at some positions, zero where the modality is missing."""
        subset, is_present = self.present.within(rows), self.present.mask[rows]
        arrays = self._read(subset) if len(subset) else [array[:0] for array in self.examples]
        results = tuple(np.zeros((len(rows), *array.shape[1:]), array.dtype) for array in arrays)
        for result, array in zip(results, arrays, strict=True):
            result[is_present] = array
        return results

    def _read(self, subset):
        return subset.call(self.branch.prepare, subset.take(self.X))
