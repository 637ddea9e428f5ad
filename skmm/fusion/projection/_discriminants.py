"""Fitted discriminant analyses: of blocks of any width, and where the scatter within classes is singular."""

import warnings
from numbers import Real

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from ..._array_api import like, namespace, take_rows, to_numpy
from ..._sklearn import get_namespace_and_device
from .._base import signs_by_largest
from ..joint import ledoit_wolf

# Share of the mean variance of the columns that the scatter within classes is raised by where it is singular.
_FLOOR = 1e-4
# Share of a column's scatter within classes that shrinkage has to give it; with less, products lose the rest.
_CUT = 1e-10
# Scikit-learn shrinks the scatter between classes as well, at 1 to nothing; the directions just before are the limit.
_MOST = 1 - 1e-6


def fit_discriminants(X, y, shrinkage, n_components):
    """Give a fitted :class:`~sklearn.discriminant_analysis.LinearDiscriminantAnalysis`.

    A matrix of columns by columns is only made where the columns are no more than the rows.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        More rows than classes.

    y : ndarray of shape (n_samples,)
        At least two classes.

    shrinkage : "auto", float in [0, 1] or None
        As in :class:`LDAFusion`.

    n_components : int
        No more than there are columns, nor classes less one.

    Returns
    -------
    lda : LinearDiscriminantAnalysis
        With discriminants whose largest coefficient is positive. That of a shrunk X with more columns than rows has
        no ``covariance_``.

    Raises
    ------
    LinAlgError
        If no class varies, and X is no NumPy array.
    """
    wide = X.shape[1] > X.shape[0]
    if isinstance(shrinkage, Real):
        shrinkage = min(shrinkage, _MOST)
    solver = "svd" if shrinkage is None else "eigen"
    lda = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage, n_components=n_components)
    lda.set_output(transform="default")
    # Without shrinkage rows that are few leave directions in which nothing varies.
    singular = (wide and shrinkage == 0) or not _varies_within_classes(X, y)
    if not singular:
        try:
            with warnings.catch_warnings():
                # Of a class with one row; it adds nothing to the scatter, and there is nothing to reshape.
                warnings.filterwarnings("ignore", message="Only one sample available")
                if wide and shrinkage == "auto":
                    return _fix_signs(_fit_wide(lda, X, y))
                if wide and shrinkage is not None:
                    return _fix_signs(_fit_rows(lda, X, y, shrinkage=shrinkage))
                return _fix_signs(lda.fit(X, _with(y, X)))
        except linalg.LinAlgError:
            pass
    if not isinstance(X, np.ndarray):
        raise linalg.LinAlgError("no class varies")
    variance = X.var(axis=0, dtype=np.float64).mean()
    # Of columns that are all constant, any will do.
    floor = _FLOOR * variance if variance > (8 * np.finfo(X.dtype).eps * np.abs(X).max()) ** 2 else 1.0
    return _fix_signs(_fit_rows(lda, X, y, floor=floor))


def keep_share(lda, share):
    """Keep the leading discriminants that explain this share of the variance between classes that all of them do."""
    ratios = np.maximum(np.nan_to_num(to_numpy(lda.explained_variance_ratio_).astype(np.float64)), 0)
    total = np.cumsum(ratios)
    count = 1 + int(np.count_nonzero(total[:-1] < share * total[-1]))
    lda.set_params(n_components=count)
    lda._max_components = lda._n_features_out = count
    lda.explained_variance_ratio_ = lda.explained_variance_ratio_[:count]
    return lda


def _varies_within_classes(X, y):
    """Tell whether any class has rows that differ by more than rounding."""
    xp = namespace(X)
    tolerance = 8 * xp.finfo(X.dtype).eps * float(xp.max(xp.abs(X)))
    groups = (take_rows(X, y == label) for label in np.unique(y))
    return any(float(xp.max(xp.max(Z, axis=0) - xp.min(Z, axis=0))) > tolerance for Z in groups)


def _with(y, X):
    """Give labels that go with X: of another library, and where it lives, they are positions of classes."""
    if isinstance(X, np.ndarray):
        return y
    xp, _, device = get_namespace_and_device(X)
    return xp.asarray(np.unique(y, return_inverse=True)[1], device=device)


def _fix_signs(lda):
    """Make the largest coefficient of each discriminant positive; solvers leave it open."""
    lda.scalings_ = lda.scalings_ * like(signs_by_largest(to_numpy(lda.scalings_)), lda.scalings_)
    return lda


class _RaisedCovariance(BaseEstimator):
    """Covariance of the rows, shrunk towards its mean variance, with a constant added to the diagonal."""

    def __init__(self, n_features, shrinkage=0.0, floor=0.0):
        self.n_features = n_features
        self.shrinkage = shrinkage
        self.floor = floor

    def fit(self, X, y=None):
        S = np.cov(X, rowvar=False, bias=True).reshape(X.shape[1], -1)
        # The columns may be fewer than those of the block, of which they are coordinates.
        raised = self.shrinkage * np.trace(S) / self.n_features + self.floor
        self.covariance_ = (1 - self.shrinkage) * S + raised * np.eye(len(S))
        return self


def _fit_rows(lda, X, y, *, shrinkage=0.0, floor=0.0):
    """Fit, where the same is added to the variance of every column, in coordinates of the span of the rows.

    Outside of the span there is nothing to tell classes apart by.
    """
    estimator = _RaisedCovariance(X.shape[1], shrinkage, floor)
    lda.set_params(solver="eigen", shrinkage=None, covariance_estimator=estimator)
    if X.shape[1] <= X.shape[0]:
        # Without any scatter between classes their shares are undefined; nobody reads these.
        with np.errstate(invalid="ignore"):
            return lda.fit(X, y)
    center = X.mean(axis=0, dtype=np.float64)
    Z = X - center
    basis = linalg.qr(Z.T, mode="economic")[0]
    with np.errstate(invalid="ignore"):
        lda.fit(Z @ basis, y)
    lda.n_features_in_ = X.shape[1]
    lda.means_ = (lda.means_ @ basis.T + center).astype(X.dtype)
    lda.scalings_ = basis @ lda.scalings_[:, : lda.n_components]
    lda.coef_ = lda.coef_ @ basis.T
    lda.intercept_ = lda.intercept_ - lda.coef_ @ center
    del lda.covariance_
    return lda


def _fit_wide(lda, X, y):
    r"""Fit with the shrinkage of Ledoit and Wolf in time that grows with the columns, not with their cube.

    Scikit-learn shrinks the covariance of standardised columns, so that in their own units its target is a diagonal
    matrix, and both scatters are the sum of a diagonal matrix and of products of rows:
    :math:`S_w = D_w + C^\top V C` and :math:`S_t = D_t + t (C^\top C + M^\top M)`, with the rows :math:`C` centred in
    their class, and the centres of the classes :math:`M`. Whitening by :math:`S_w^{-1/2}` then takes an inverse of
    as many rows as there are samples, and the leading eigenvectors of the whitened :math:`S_t` come by Lanczos
    iterations, to the last digits.
    """
    lda.classes_, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
    n_samples, n_features = X.shape
    priors = counts / n_samples
    C = X.astype(np.float64)
    shrinkage_of_all, total = _shrinkage_and_target(C)
    means = np.empty((len(counts), n_features))
    within, shares = np.zeros(n_features), np.empty(n_samples)
    for i, prior in enumerate(priors):
        rows = labels == i
        means[i] = C[rows].mean(axis=0)
        shrinkage, target = _shrinkage_and_target(C[rows])
        within += prior * target
        shares[rows] = (1 - shrinkage) / n_samples
        C[rows] -= means[i]
    if (within <= _CUT * (shares @ C**2)).any():
        raise linalg.LinAlgError("singular scatter within classes")
    # In units in which D_w is the identity.
    units = np.sqrt(within)
    C /= units
    M = (means - priors @ means) * np.sqrt(counts)[:, None] / units
    D, t = total / within, (1 - shrinkage_of_all) / n_samples

    roots = np.sqrt(shares)
    gram = C @ C.T
    values, vectors = linalg.eigh(roots[:, None] * gram * roots)
    values = np.sqrt(1 + np.maximum(values, 0))
    vectors *= roots[:, None]
    # S_w^{-1/2} = I - C' H C, and S_w^{-1} = I - C' K C.
    H = (vectors / (values * (values + 1))) @ vectors.T
    K = (vectors / values**2) @ vectors.T

    def whiten(u):
        return u - C.T @ (H @ (C @ u))

    def whitened_total(u):
        u = whiten(u)
        return whiten(D * u + t * (C.T @ (C @ u) + M.T @ (M @ u)))

    k = lda.n_components
    start = np.random.default_rng(0).normal(size=n_features)
    found, directions = eigsh(
        LinearOperator((n_features, n_features), matvec=whitened_total, dtype=np.float64), k, which="LA", v0=start
    )
    order = np.argsort(found)[::-1]
    cross = C @ M.T
    squares = t * (np.trace(gram) + np.sum(M**2) - np.sum(K * (gram @ gram)) - np.sum(cross * (K @ cross)))
    trace = np.sum(D * (1 - np.einsum("ij,ij->j", C, K @ C))) + squares - n_features

    lda.n_features_in_ = n_features
    lda.priors_ = priors.astype(X.dtype)
    lda.means_ = means.astype(X.dtype)
    lda._max_components = lda._n_features_out = k
    lda.explained_variance_ratio_ = (found[order] - 1) / trace
    lda.scalings_ = whiten(directions[:, order]) / units[:, None]
    scaled = (means / units).T
    lda.coef_ = ((scaled - C.T @ (K @ (C @ scaled))) / units[:, None]).T
    lda.intercept_ = -0.5 * np.sum(means * lda.coef_, axis=1) + np.log(priors)
    if len(counts) == 2:
        lda.coef_ = lda.coef_[1:] - lda.coef_[:1]
        lda.intercept_ = lda.intercept_[1:] - lda.intercept_[:1]
    return lda


def _shrinkage_and_target(X):
    """Give the shrinkage of a covariance matrix by Ledoit and Wolf, and what it adds to each variance."""
    scaler = StandardScaler()
    Z = scaler.fit_transform(X)
    n_samples, n_features = Z.shape
    gram = Z @ Z.T
    mean_variance = np.trace(gram) / (n_samples * n_features)
    if mean_variance == 0:
        return 0.0, np.zeros(n_features)
    free = n_samples - 1
    fourth = np.sum(np.diag(gram) ** 2)
    shrinkage = ledoit_wolf(gram / free, mean_variance * n_samples / free, n_samples, fourth)
    return shrinkage, shrinkage * mean_variance * scaler.scale_**2
