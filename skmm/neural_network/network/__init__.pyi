from ._losses import make_loss as make_loss
from ._modulation import GradientModulation as GradientModulation
from ._network import Network as Network
from ._rows import Rows as Rows, apply as apply, seeded as seeded
from ._splitting import split_validation as split_validation
from ._steps import resolve_epochs as resolve_epochs
from ._training import Trainer as Trainer
