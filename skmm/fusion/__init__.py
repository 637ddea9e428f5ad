"""Feature-level fusion and joint embedding."""

from ._average import AverageFusion
from ._concat import ConcatFusion
from ._fuser import ModalityFuser
from ._imputer import ModalityImputer
from ._kernel import KernelFusion
from ._product import ProductFusion
from .joint._cca import CCAFusion
from .joint._kernel_cca import KernelCCAFusion
from .joint._pls import PLSFusion
from .projection._lda import LDAFusion
from .projection._pca import PCAFusion

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
