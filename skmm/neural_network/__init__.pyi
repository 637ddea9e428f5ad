from ._classifier import MultimodalNetClassifier as MultimodalNetClassifier
from ._distillation import distill as distill
from ._regressor import MultimodalNetRegressor as MultimodalNetRegressor
from .branches import (
    AudioBranch as AudioBranch,
    ImageBranch as ImageBranch,
    SequenceBranch as SequenceBranch,
    TextBranch as TextBranch,
    VideoBranch as VideoBranch,
)
from .multitask import MultimodalNetMultiTask as MultimodalNetMultiTask
from .network import FusionLayer as FusionLayer, GradientModulation as GradientModulation
