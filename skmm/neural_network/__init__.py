"""Model-level fusion: one network over several modalities."""

from ._classifier import MultimodalNetClassifier
from ._regressor import MultimodalNetRegressor

__all__ = ["MultimodalNetClassifier", "MultimodalNetRegressor"]
