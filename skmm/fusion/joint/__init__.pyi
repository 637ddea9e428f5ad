from ._cca import CCAFusion as CCAFusion
from ._kernel_cca import KernelCCAFusion as KernelCCAFusion
from ._pls import PLSFusion as PLSFusion
