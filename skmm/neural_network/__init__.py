"""Model-level fusion: one network over several modalities."""

from ._classifier import MultimodalNetClassifier
from ._distillation import distill
from ._regressor import MultimodalNetRegressor
from ._skops import get_trusted_types
from .branches._image import ImageBranch
from .branches._signal import AudioBranch, SequenceBranch
from .branches._text import TextBranch
from .multitask._estimator import MultimodalNetMultiTask
from .network._modulation import GradientModulation

__all__ = [
    "AudioBranch",
    "GradientModulation",
    "ImageBranch",
    "MultimodalNetClassifier",
    "MultimodalNetMultiTask",
    "MultimodalNetRegressor",
    "SequenceBranch",
    "TextBranch",
    "distill",
    "get_trusted_types",
]
