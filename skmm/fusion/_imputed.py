"""What the strategies share that can fill missing blocks in before they join them."""

from sklearn.base import clone

from ._base import BlockTransformer
from ._imputer import ModalityImputer


class ImputedBlockTransformer(BlockTransformer):
    """Base of the strategies with a parameter ``imputer``."""

    _parameter_constraints: dict = {
        **BlockTransformer._parameter_constraints,
        "imputer": [*ModalityImputer._parameter_constraints["strategy"], ModalityImputer, None],
    }

    def _fit_impute(self, X):
        self.imputer_ = self._make_imputer()
        if self.imputer_ is None:
            return X, None
        return self._split(self.imputer_.fit_transform(X))

    def _impute(self, X):
        if self.imputer_ is None:
            return X, None
        return self._split(self.imputer_.transform(X))

    def _make_imputer(self):
        if self.imputer is None:
            return None
        imputer = ModalityImputer(self.imputer) if isinstance(self.imputer, str) else clone(self.imputer)
        if imputer.blocks is not None:
            raise ValueError(
                f"{type(self).__name__} gives its imputer the blocks; leave them at None, got {imputer.blocks!r}."
            )
        # Whatever the global configuration says, what is computed on here are arrays.
        blocks = None if "" in self.blocks_ else self.blocks_
        return imputer.set_params(blocks=blocks).set_output(transform="default")

    def _split(self, filled):
        """Part the indicators, which belong to no block, from the blocks."""
        width = self.n_features_in_
        return (filled, None) if filled.shape[1] == width else (filled[:, :width], filled[:, width:])

    def _added_names(self):
        if self.imputer_ is None:
            return super()._added_names()
        return self.imputer_._added_names()
