"""What the strategies share that project each block, or all blocks together, to fewer dimensions."""

from ..._array_api import namespace, take_rows
from ..._missing import missing_blocks
from .._imputed import ImputedBlockTransformer


class BlockProjection(ImputedBlockTransformer):
    """Base of the strategies with one projection per block, or one for all blocks together, as ``level`` says.

    A concrete one writes ``_fit_projection`` and ``_width``.
    """

    def _fit_blocks(self, X, y):
        filled = self._fill(X)
        self.projections_ = {}
        for name, columns in self._parts().items():
            present = ~missing_blocks(X, {name: columns})[:, 0]
            self.projections_[name] = self._fit_projection(
                take_rows(filled[:, columns], present), None if y is None else take_rows(y, present), name
            )
        self.n_components_ = {name: self._width(projection) for name, projection in self.projections_.items()}

    def _transform_blocks(self, X):
        xp = namespace(X)
        filled = self._fill(X)
        parts = []
        for name, columns in self._parts().items():
            parts.append(xp.astype(self.projections_[name].transform(filled[:, columns]), X.dtype, copy=False))
        return xp.concat(parts, axis=1)

    def _parts(self):
        """The slices that get a projection each."""
        return self.blocks_ if self.level == "modality" else {"": slice(0, self.n_features_in_)}

    def _names_out(self, input_features):
        return self._block_names(self.n_components_)
