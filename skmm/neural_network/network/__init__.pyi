from ._fusion_layers import FusionLayer as FusionLayer
from ._fusions import FUSIONS as FUSIONS, weighs_modalities as weighs_modalities
from ._losses import Loss as Loss, weighted_mean as weighted_mean
from ._modulation import GradientModulation as GradientModulation
from ._network import Network as Network
from ._processes import Processes as Processes
from ._randomness import DrawFrom as DrawFrom, Dropout as Dropout, seeded as seeded
from ._rows import Rows as Rows, apply as apply, split_validation as split_validation
from ._training import BranchTraining as BranchTraining, Trainer as Trainer, resolve_epochs as resolve_epochs
