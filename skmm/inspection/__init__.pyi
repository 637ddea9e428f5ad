from ._contributions import modality_contributions as modality_contributions
from ._curve_display import MissingModalityCurveDisplay as MissingModalityCurveDisplay
from ._importance import modality_importance as modality_importance
from ._importance_display import ModalityImportanceDisplay as ModalityImportanceDisplay
from ._joint_display import (
    CanonicalCorrelationDisplay as CanonicalCorrelationDisplay,
    JointEmbeddingDisplay as JointEmbeddingDisplay,
)
from ._robustness import missing_modality_curve as missing_modality_curve
