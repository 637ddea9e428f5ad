from ._lda import LDAFusion as LDAFusion
from ._pca import PCAFusion as PCAFusion, principal_axes as principal_axes
