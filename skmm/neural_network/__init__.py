"""Model-level fusion: one network over several modalities."""

from ._classifier import MultimodalNetClassifier
from ._distillation import distill
from ._image_branch import ImageBranch
from ._modulation import GradientModulation
from ._multitask import MultimodalNetMultiTask
from ._regressor import MultimodalNetRegressor
from ._signal_branches import AudioBranch, SequenceBranch
from ._text_branch import TextBranch
from ._trusted import get_trusted_types

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
