"""The base of the strategies that project each block, or all blocks together, to fewer dimensions."""

import numpy as np

from .._base import missing_blocks
from .._imputer import ImputedBlockTransformer
from .._moments import take_rows


class BlockProjection(ImputedBlockTransformer):
    """Base of the strategies with one projection per block, or one for all blocks together, as ``level`` says.

    A concrete one writes ``_fit_projection(X, y, name)``, which returns an object with ``transform`` and
    ``n_components_``.
    """

    def _fit_blocks(self, X, y):
        filled = self._fill(X)
        self.projections_ = {}
        for name, columns in self._projected_slices().items():
            present = ~missing_blocks(X, {name: columns})[:, 0]
            self.projections_[name] = self._fit_projection(
                take_rows(filled[:, columns], present), None if y is None else y[present], name
            )
        self._count_components()

    def _count_components(self):
        self.n_components_ = {name: int(projection.n_components_) for name, projection in self.projections_.items()}

    def _transform_blocks(self, X):
        filled = self._fill(X)
        slices = self._projected_slices()
        scores = [self.projections_[name].transform(filled[:, columns]) for name, columns in slices.items()]
        return np.hstack(scores).astype(X.dtype, copy=False)

    def _projected_slices(self):
        """Return the slices of columns that get a projection each."""
        return self.blocks_ if self.level == "modality" else {"": slice(0, self.n_features_in_)}

    def _names_out(self, input_features):
        return self._block_names(self.n_components_)
