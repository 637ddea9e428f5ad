from ._classifier import MultimodalNetClassifier as MultimodalNetClassifier
from ._distillation import distill as distill
from ._regressor import MultimodalNetRegressor as MultimodalNetRegressor
from ._skops import get_trusted_types as get_trusted_types
from .branches import (
    AudioBranch as AudioBranch,
    ImageBranch as ImageBranch,
    SequenceBranch as SequenceBranch,
    TextBranch as TextBranch,
)
from .multitask import MultimodalNetMultiTask as MultimodalNetMultiTask
from .network import GradientModulation as GradientModulation
