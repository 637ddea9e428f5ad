from ._contributions import modality_contributions as modality_contributions
from ._duplicates import find_duplicates as find_duplicates, find_leaks as find_leaks
from ._importance import (
    ModalityImportanceDisplay as ModalityImportanceDisplay,
    modality_importance as modality_importance,
)
from ._information import (
    linear_cka as linear_cka,
    modality_gap as modality_gap,
    mutual_information as mutual_information,
)
from ._joint_display import (
    CanonicalCorrelationDisplay as CanonicalCorrelationDisplay,
    JointEmbeddingDisplay as JointEmbeddingDisplay,
)
from ._mismatches import find_mismatches as find_mismatches
from ._pairs import show_pairs as show_pairs
from ._retrieval_display import RetrievalDisplay as RetrievalDisplay
from ._robustness import (
    MissingModalityCurveDisplay as MissingModalityCurveDisplay,
    missing_modality_curve as missing_modality_curve,
)
