"""What each modality does in a fitted estimator: importance, contributions, robustness, and drawings of them."""

from ._contributions import modality_contributions
from ._importance import modality_importance
from ._robustness import missing_modality_curve

__all__ = ["missing_modality_curve", "modality_contributions", "modality_importance"]
