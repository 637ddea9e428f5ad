from ._lda import LDAFusion as LDAFusion
from ._pca import PCAFusion as PCAFusion
from ._reduction import (
    principal_axes as principal_axes,
    random_axes as random_axes,
    rotations_to_agree as rotations_to_agree,
)
from ._wide import primal_weights as primal_weights, row_space as row_space
