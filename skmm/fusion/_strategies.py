"""The names by which ``ModalityFuser(fusion="...")`` and model selection know the strategies."""

from ._average import AverageFusion
from ._concat import ConcatFusion
from ._kernel import KernelFusion
from ._product import ProductFusion
from .joint import AnchorFusion, CCAFusion, ContrastiveFusion, KernelCCAFusion, PLSFusion
from .projection import LDAFusion, PCAFusion

STRATEGIES = {
    "anchor": AnchorFusion,
    "average": AverageFusion,
    "cca": CCAFusion,
    "concat": ConcatFusion,
    "contrastive": ContrastiveFusion,
    "kernel": KernelFusion,
    "kernel_cca": KernelCCAFusion,
    "lda": LDAFusion,
    "pca": PCAFusion,
    "pls": PLSFusion,
    "product": ProductFusion,
}
