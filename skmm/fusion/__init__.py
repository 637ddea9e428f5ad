"""Feature-level fusion and joint embedding."""

from ._average import AverageFusion
from ._cca import CCAFusion
from ._concat import ConcatFusion
from ._fuser import ModalityFuser
from ._imputer import ModalityImputer
from ._kernel import KernelFusion
from ._kernel_cca import KernelCCAFusion
from ._lda import LDAFusion
from ._pca import PCAFusion
from ._pls import PLSFusion
from ._product import ProductFusion

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
