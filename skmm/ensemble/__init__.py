"""Decision-level fusion: voting and stacking over modalities."""

from ._stacking import ModalityStackingClassifier, ModalityStackingRegressor
from ._voting import ModalityVotingClassifier, ModalityVotingRegressor

__all__ = [
    "ModalityStackingClassifier",
    "ModalityStackingRegressor",
    "ModalityVotingClassifier",
    "ModalityVotingRegressor",
]
