from ._cca import CCAFusion as CCAFusion, PLSFusion as PLSFusion
from ._kernel_cca import KernelCCAFusion as KernelCCAFusion
