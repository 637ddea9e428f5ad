from ._auto import (
    AutoMultimodalClassifier as AutoMultimodalClassifier,
    AutoMultimodalRegressor as AutoMultimodalRegressor,
)
from ._comparison import (
    FusionComparison as FusionComparison,
    FusionComparisonDisplay as FusionComparisonDisplay,
    compare_fusions as compare_fusions,
)
from ._statistics import corrected_t_test as corrected_t_test, holm as holm
from ._strategies import fusion_grid as fusion_grid
