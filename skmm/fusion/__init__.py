"""Feature-level fusion and joint embedding."""

from ._cca import CCAFusion
from ._concat import ConcatFusion
from ._fuser import ModalityFuser
from ._pls import PLSFusion
from ._projection import LDAFusion, PCAFusion

__all__ = ["CCAFusion", "ConcatFusion", "LDAFusion", "ModalityFuser", "PCAFusion", "PLSFusion"]
