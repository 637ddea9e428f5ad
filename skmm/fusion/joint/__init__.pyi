from ._anchor import AnchorFusion as AnchorFusion
from ._cca import CCAFusion as CCAFusion, PLSFusion as PLSFusion
from ._contrastive import ContrastiveFusion as ContrastiveFusion
from ._kernel_cca import KernelCCAFusion as KernelCCAFusion
