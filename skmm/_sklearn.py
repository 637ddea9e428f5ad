"""The only door to scikit-learn's private names: the other modules import them from here."""

from sklearn.base import _fit_context as fit_context
from sklearn.metrics._scorer import _BaseScorer as BaseScorer
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._indexing import _get_column_indices as get_column_indices
from sklearn.utils._metadata_requests import _raise_for_params as raise_for_params
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions as UnsortedStrOptions, validate_params
from sklearn.utils._repr_html.estimator import _VisualBlock as VisualBlock
from sklearn.utils._user_interface import _print_elapsed_time as log_elapsed_time
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.validation import (
    _check_feature_names as check_feature_names,
    _check_feature_names_in as check_feature_names_in,
    _check_method_params as check_method_params,
    _check_n_features as check_n_features,
    _check_sample_weight as check_sample_weight,
    _get_feature_names as get_feature_names,
)

__all__ = [
    "BaseComposition",
    "BaseScorer",
    "HasMethods",
    "Interval",
    "StrOptions",
    "VisualBlock",
    "check_feature_names",
    "check_feature_names_in",
    "check_method_params",
    "check_n_features",
    "check_sample_weight",
    "fit_context",
    "get_column_indices",
    "get_feature_names",
    "log_elapsed_time",
    "raise_for_params",
    "safe_indexing",
    "validate_params",
]


class StrOptions(UnsortedStrOptions):
    """Strings that a parameter may be. Messages list them in alphabetical order: a set has another in each process."""

    def __str__(self):
        return f"a str among {{{', '.join(map(repr, sorted(self.options)))}}}"
