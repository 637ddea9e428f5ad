from ._compare import compare_fusions as compare_fusions
from ._comparison import FusionComparison as FusionComparison
from ._display import FusionComparisonDisplay as FusionComparisonDisplay
from ._statistics import corrected_t_test as corrected_t_test, holm as holm
from ._strategies import fusion_grid as fusion_grid
