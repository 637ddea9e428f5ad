"""Feature-level fusion and joint embedding."""

from ._average import AverageFusion
from ._cca import CCAFusion
from ._concat import ConcatFusion
from ._fuser import ModalityFuser
from ._imputer import ModalityImputer
from ._kernel import KernelFusion
from ._kernel_cca import KernelCCAFusion
from ._pls import PLSFusion
from ._product import ProductFusion
from ._projection import LDAFusion, PCAFusion

__all__ = [
    "AverageFusion",
    "CCAFusion",
    "ConcatFusion",
    "KernelCCAFusion",
    "KernelFusion",
    "LDAFusion",
    "ModalityFuser",
    "ModalityImputer",
    "PCAFusion",
    "PLSFusion",
    "ProductFusion",
]
