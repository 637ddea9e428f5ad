from ._average import AverageFusion as AverageFusion
from ._base import BlockTransformer as BlockTransformer
from ._concat import ConcatFusion as ConcatFusion
from ._domain import DomainScaler as DomainScaler
from ._fuser import ModalityFuser as ModalityFuser
from ._imputer import ModalityImputer as ModalityImputer
from ._kernel import KernelFusion as KernelFusion
from ._product import ProductFusion as ProductFusion
from ._strategies import STRATEGIES as STRATEGIES
from .joint import (
    AnchorFusion as AnchorFusion,
    CCAFusion as CCAFusion,
    ContrastiveFusion as ContrastiveFusion,
    KernelCCAFusion as KernelCCAFusion,
    PLSFusion as PLSFusion,
)
from .projection import LDAFusion as LDAFusion, PCAFusion as PCAFusion
