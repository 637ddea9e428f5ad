"""Standardisation by domain: speakers, sites, cameras."""

from numbers import Integral, Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from .._columns import check_table, column_items, column_means, column_variances, is_data_frame, missing_rows, shortened
from .._sklearn import Interval, StrOptions, check_feature_names, check_feature_names_in, check_n_features, fit_context
from .._typing import Table

# Rows that the mean variance in domains counts for beside that of one, and the mean of all rows at most: on spoken
# digits 3 and 10 do as well.
_SMOOTH = 5


class DomainScaler(TransformerMixin, BaseEstimator):
    r"""Standardise the rows of each domain by themselves.

    A domain is where rows come from: a speaker, a site, a camera. Its mean and variance in each column are mixed with
    the mean of all rows and the mean variance in domains, as far as its number of rows is small,

    .. math:: \bar x_d' = w_d \bar x_d + (1 - w_d) \bar x, \qquad s_d'^2 = v_d s_d^2 + (1 - v_d) s^2, \qquad
              w_d = \frac{n_d}{n_d + m}, \quad v_d = \frac{n_d}{n_d + 5},

    with :math:`m = \min(s^2 / \tau^2, 5)` and the variance :math:`\tau^2` of the means of domains: an empirical Bayes
    estimate as in scikit-learn's :class:`~sklearn.preprocessing.TargetEncoder`, with a bound for new domains that are
    further away than those of ``fit`` are from each other.

    A domain that ``fit`` has not seen is standardised by its own rows, as far as they are in the same call of
    ``transform``.

    Parameters
    ----------
    domain : str or int
        Name or position of the column of X that tells the domain of each row: strings, numbers or other values that
        can be compared. The column is left out of the output.

    smooth : "auto" or float, default="auto"
        Number of rows that the statistics of all count for beside those of a domain. "auto" is the estimate above for
        means, and 5 for variances. With 0 each domain is
        standardised by its rows alone, and one that comes with a single row becomes zero.

    Attributes
    ----------
    domains_ : list
        Domains seen in ``fit``.

    means_ : ndarray of shape (n_domains, n_features_out)
        What is subtracted in each of them.

    scales_ : ndarray of shape (n_domains, n_features_out)
        What is divided by in each of them. 1 where the variance is 0.

    smooth_ : ndarray of shape (n_features_out,)
        Number of rows that the mean of all rows counts for in each column.

    n_features_in_ : int
        Number of columns seen in ``fit``, the domain among them.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    sklearn.preprocessing.StandardScaler : One mean and variance for all rows.

    Notes
    -----
    Domains should have like shares of the classes: differences in the mean that come from the classes are removed with
    those that come from the domain.

    **Missing values.** NaN is left out of the statistics and stays NaN, so that missing blocks can be fused
    afterwards. A row without a domain (None, NaN, an empty string) is standardised by the mean of all
    rows and the mean variance in domains.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm.fusion import DomainScaler
    >>> X = pd.DataFrame({"site": ["a", "a", "b", "b"], "height": [1.0, 3.0, 101.0, 105.0]})
    >>> scaler = DomainScaler("site", smooth=0).fit(X)
    >>> scaler.transform(X).ravel().tolist()
    [-1.0, 1.0, -1.0, 1.0]
    >>> scaler.transform(pd.DataFrame({"site": ["c", "c"], "height": [50.0, 51.0]})).ravel().tolist()
    [-1.0, 1.0]
    """

    _parameter_constraints: dict = {
        "domain": [str, Integral],
        "smooth": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, domain: str | int, *, smooth: float | str = "auto") -> None:
        self.domain = domain
        self.smooth = smooth

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Table, y: ArrayLike | None = None) -> Self:
        """Learn the mean and variance of each domain.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Numbers, with NaN in missing cells, and the column of domains.

        y : ignored
            Present for API consistency.

        Returns
        -------
        self : DomainScaler
            The fitted scaler.
        """
        X, rows_of = self._split(X, reset=True)
        rows_of.pop(None, None)
        self.domains_ = list(rows_of)
        statistics = [_statistics(X[rows]) for rows in rows_of.values()]
        counts, means, variances = np.array(statistics).reshape(-1, 3, X.shape[1]).swapaxes(0, 1)
        self._mean, total = column_means(X), counts.sum(axis=0)
        # Where no domain has two values, nothing is known of the variance in domains.
        can_tell = total > (counts > 0).sum(axis=0)
        self._variance = column_variances(X, self._mean)
        np.divide((counts * variances).sum(axis=0), total, out=self._variance, where=can_tell)
        self.smooth_ = self._estimate_smooth(counts, means, can_tell)
        self.means_, self.scales_ = self._mix(counts, means, variances)
        return self

    def transform(self, X: Table) -> np.ndarray:
        """Standardise the rows of each domain.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Rows, with all of a new domain together.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features - 1)
            Standardised columns, without the domain. NaN stays.
        """
        check_is_fitted(self)
        X, rows_of = self._split(X, reset=False)
        fitted = dict(zip(self.domains_, zip(self.means_, self.scales_, strict=True), strict=True))
        fitted[None] = self._mix(*np.zeros((3, X.shape[1])))
        scaled = np.empty_like(X)
        for domain, rows in rows_of.items():
            mean, scale = fitted[domain] if domain in fitted else self._mix(*_statistics(X[rows]))
            scaled[rows] = (X[rows] - mean) / scale
        return scaled

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Get the names of the output columns: those of X without the domain.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the input columns.

        Returns
        -------
        feature_names_out : ndarray of str objects
            Names.
        """
        check_is_fitted(self)
        return np.delete(check_feature_names_in(self, input_features), self._position)

    def _split(self, X, *, reset):
        """Return the columns to scale, and the rows of each domain; those without one are the rows of None."""
        owner = type(self).__name__
        X = check_table(self, X)
        check_feature_names(self, X, reset=reset)
        check_n_features(self, X, reset=reset)
        if reset:
            self._position = self._find_domain(X)
        cells = X.iloc if hasattr(X, "iloc") else X
        column = cells[:, self._position]
        missing, domains = missing_rows(column), column_items(column, owner)
        rows_of = {}
        for row, domain in enumerate(domains.tolist() if isinstance(domains, np.ndarray) else domains):
            try:
                rows_of.setdefault(None if missing[row] else domain, []).append(row)
            except TypeError as error:
                raise TypeError(
                    f"{owner}: the domain of row {row} is a {type(domain).__name__}, which cannot be compared; use "
                    "strings or numbers."
                ) from error
        features = cells[:, [i for i in range(X.shape[1]) if i != self._position]]
        features = check_array(features, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", estimator=self)
        return features, rows_of

    def _find_domain(self, X):
        """Return the position of the column of domains."""
        owner, n_features = type(self).__name__, X.shape[1]
        if isinstance(self.domain, str):
            header = list(X.columns) if is_data_frame(X) else None
            if header is None or header.count(self.domain) != 1:
                has = "is an array without names" if header is None else f"has the columns {shortened(header)}"
                raise ValueError(
                    f"{owner}: domain={self.domain!r} must name one column of X, which {has}; pass the name of a "
                    "column of a data frame, or a position."
                )
            position = header.index(self.domain)
        elif -n_features <= self.domain < n_features:
            position = int(self.domain) % n_features
        else:
            raise ValueError(
                f"{owner}: domain={self.domain} is no position of a column: X has n_features = {n_features}."
            )
        if n_features == 1:
            raise ValueError(
                f"{owner}: X has n_features = 1, the column of domains; pass the columns to standardise beside it."
            )
        return position

    def _estimate_smooth(self, counts, means, can_tell):
        """Return the rows that the mean of all counts for: variance in domains over the variance of their means."""
        if self.smooth != "auto":
            return np.full(counts.shape[1], float(self.smooth))
        has_values = counts > 0
        total, n_domains = counts.sum(axis=0), has_values.sum(axis=0)
        center = (means * has_values).sum(axis=0) / np.maximum(n_domains, 1)
        squares = (has_values * (means - center) ** 2).sum(axis=0) / np.maximum(n_domains - 1, 1)
        within = self._variance * total / np.maximum(total - n_domains, 1)
        # Means of finitely many rows vary by themselves.
        noise = within * (has_values / np.maximum(counts, 1)).sum(axis=0) / np.maximum(n_domains, 1)
        between = np.maximum(squares - noise, 0)
        smooth = np.full(len(within), float(_SMOOTH))
        np.divide(within, between, out=smooth, where=can_tell & (between > 0))
        return np.minimum(smooth, _SMOOTH)

    def _mix(self, counts, means, variances):
        """Return what to subtract from the rows of domains, and what to divide by."""
        of_means = _weights(counts, self.smooth_)
        of_variances = _weights(counts, _SMOOTH if self.smooth == "auto" else self.smooth)
        variances = of_variances * variances + (1 - of_variances) * self._variance
        scales = np.sqrt(np.where(variances > 0, variances, 1))
        return of_means * means + (1 - of_means) * self._mean, scales

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _statistics(X):
    """Return the number of values in each column, their means and their variances."""
    means = column_means(X)
    return (~np.isnan(X)).sum(axis=0), means, column_variances(X, means)


def _weights(counts, smooth):
    """Return the share of so many rows beside those of ``smooth``; 0 for no row."""
    total = counts + smooth
    return np.divide(counts, total, out=np.zeros(total.shape), where=counts > 0)
