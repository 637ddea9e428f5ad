"""What each modality does in a fitted estimator: importance, contributions, robustness, and drawings of them."""

from ._contributions import modality_contributions
from ._curve_display import MissingModalityCurveDisplay
from ._importance import modality_importance
from ._importance_display import ModalityImportanceDisplay
from ._joint_display import CanonicalCorrelationDisplay, JointEmbeddingDisplay
from ._robustness import missing_modality_curve

__all__ = [
    "CanonicalCorrelationDisplay",
    "JointEmbeddingDisplay",
    "MissingModalityCurveDisplay",
    "ModalityImportanceDisplay",
    "missing_modality_curve",
    "modality_contributions",
    "modality_importance",
]
