from ._cascade import ModalityCascadeClassifier as ModalityCascadeClassifier
from ._stacking import (
    ModalityStackingClassifier as ModalityStackingClassifier,
    ModalityStackingRegressor as ModalityStackingRegressor,
)
from ._voting import (
    ModalityVotingClassifier as ModalityVotingClassifier,
    ModalityVotingRegressor as ModalityVotingRegressor,
)
