"""What each modality does in a fitted estimator: importance, contributions, robustness, and drawings of them."""

from ._importance import modality_importance

__all__ = ["modality_importance"]
