from ._canonical import _CUT as _CUT, CONSTANT as CONSTANT, ledoit_wolf as ledoit_wolf
from ._cca import CCAFusion as CCAFusion
from ._kernel_cca import KernelCCAFusion as KernelCCAFusion
from ._moments import BlockMoments as BlockMoments
from ._pls import PLSFusion as PLSFusion
