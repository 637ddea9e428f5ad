"""Choosing a strategy of fusion: grids for searches, and a comparison with tests."""

from ._compare import compare_fusions
from ._comparison import FusionComparison
from ._display import FusionComparisonDisplay
from ._statistics import corrected_t_test, holm
from ._strategies import fusion_grid

__all__ = [
    "FusionComparison",
    "FusionComparisonDisplay",
    "compare_fusions",
    "corrected_t_test",
    "fusion_grid",
    "holm",
]
