"""Feature-level fusion by linear discriminants."""

from numbers import Integral, Real

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ..._sklearn import Interval, StrOptions
from ..._typing import Blocks
from .._base import LEVEL, N_COMPONENTS, SCALING, signs_by_largest
from .._moments import ledoit_wolf_shrinkage
from ._pca import BlockProjection

# Share of the mean variance of the columns that the scatter within classes is raised by if it is singular.
_FLOOR = 1e-4
# Minimum share of a column's variance within classes that shrinkage adds; below it products of rows lose precision.
_SMALLEST_TARGET = 1e-10
# The scatter between classes is shrunk as well, at 1 to nothing; the directions just below 1 are the limit.
_LARGEST_SHRINKAGE = 1 - 1e-6


class LDAFusion(BlockProjection):
    r"""Reduce the blocks to the directions that separate the classes.

    With the scatter between classes :math:`S_b` and within classes :math:`S_w` of a block, or of
    all blocks side by side, the projection is

    .. math:: W = \arg\max_{W^\top S_w W = I} \operatorname{tr}(W^\top S_b W).

    Parameters
    ----------
    n_components : int, float or None, default=None
        Upper bound of the number of components per projection; it is clipped to the number of
        classes less one and to the columns of the block. A float in (0, 1): as many as explain this share of the
        variance between classes that as many as possible do. None: as many as possible, which are few in any case.

    level : {"modality", "joint"}, default="modality"
        One projection per block, or one of the concatenated blocks.

    shrinkage : "auto", float in [0, 1] or None, default="auto"
        Shrinkage of :math:`S_w`, without which a projection of many columns fits noise. "auto" is the Ledoit-Wolf
        estimate, None is none (the singular value decomposition then handles collinear columns).

    scaling : {"norm", "std"} or None, default="std"
        How the columns are scaled before the projection, as in :class:`ConcatFusion`. Shrinkage by a
        number depends on it, the rest does not.

    imputer : {"mean", "zero", "regression", "neighbors"}, ModalityImputer or None, default=None
        What fills in missing blocks before all else, as in :class:`ConcatFusion`. None: as the notes say.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block, as in :class:`ConcatFusion`.

    Attributes
    ----------
    projections_ : dict of str to Discriminants
        The fitted projections by block; for ``level="joint"`` one, named "". Their ``scalings_``, of shape
        (n_features, n_components), are the directions, and ``explained_variance_ratio_`` the shares of the variance
        between classes that they explain.

    n_components_ : dict of str to int
        Number of components of each projection.

    imputer_ : ModalityImputer or None
        What missing blocks are filled in by.

    blocks_ : dict of str to slice
        Columns of each block, closed.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    PCAFusion : Unsupervised counterpart.

    Notes
    -----
    The labels are learned by heart where rows are few and columns many; score with cross-validation,
    as a pipeline does, never on the rows that the projection was learned from. Where the scatter within
    classes is singular (a column that is constant within each class, say), a ten-thousandth of the mean
    variance of the columns is added to its diagonal.

    With shrinkage the scatter matrices of a block with no more columns than rows are formed, and the time of a fit
    grows with the cube of the columns: seconds for 2,000 of them. Of wider blocks they are not, with the same result,
    and the time grows with the columns and the square of the rows: seconds for 20,000 columns and 200 rows.

    **Missing blocks** are handled as by :class:`PCAFusion`. A block that is missing at ``fit`` in all rows but those of
    one class raises an error.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skmm.fusion import LDAFusion
    >>> X, y = load_iris(return_X_y=True)
    >>> fusion = LDAFusion(blocks={"sepal": slice(0, 2), "petal": slice(2, 4)})
    >>> fusion.fit_transform(X, y).shape
    (150, 4)
    >>> fusion.n_components_
    {'sepal': 2, 'petal': 2}
    """

    _parameter_constraints: dict = {
        **BlockProjection._parameter_constraints,
        "n_components": [*N_COMPONENTS, Interval(Real, 0, 1, closed="neither"), None],
        "level": LEVEL,
        "shrinkage": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both"), None],
        "scaling": SCALING,
    }

    def __init__(
        self,
        n_components: int | float | None = None,
        *,
        level: str = "modality",
        shrinkage: float | str | None = "auto",
        scaling: str | None = "std",
        imputer: object = None,
        blocks: Blocks = None,
    ):
        self.n_components = n_components
        self.level = level
        self.shrinkage = shrinkage
        self.scaling = scaling
        self.imputer = imputer
        self.blocks = blocks

    def _needs_y(self):
        return True

    def _fit_blocks(self, X, y):
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        super()._fit_blocks(X, y)

    def _fit_projection(self, X, y, name):
        n_classes = len(np.unique(y))
        rows = f" in the rows that have block {name!r}" if name else ""
        if n_classes < 2:
            remedy = "leave out the modality" if name else "fit on rows of more classes"
            raise ValueError(f"LDAFusion needs at least 2 classes{rows}, got 1 class: {y[0]}; {remedy}.")
        if len(X) <= n_classes:
            raise ValueError(
                f"LDAFusion needs more rows than classes{rows}, got {len(X)} rows of {n_classes} classes; "
                "is y a continuous target?"
            )
        bound = min(n_classes - 1, X.shape[1])
        k = min(self.n_components, bound) if isinstance(self.n_components, Integral) else bound
        discriminants = fit_discriminants(X, y, self.shrinkage, k)
        by_share = self.n_components is not None and not isinstance(self.n_components, Integral)
        return discriminants.explaining(self.n_components) if by_share else discriminants


class Discriminants:
    """A fitted projection: directions that separate the classes, best first, and the variances between classes.

    These are in units of the variance within classes, along each direction, and in total along all that there are. The
    scores of the origin are zero.
    """

    def __init__(self, scalings, variances, total, origin=0.0):
        self.scalings_ = scalings
        self.origin_ = origin
        self.variances_ = variances
        self.total_ = total

    @property
    def n_components_(self):
        """Number of directions."""
        return self.scalings_.shape[1]

    @property
    def explained_variance_ratio_(self):
        """Shares of the variance between classes; NaN if shrinkage leaves none in sum."""
        return self.variances_ / self.total_ if self.total_ > 0 else np.full_like(self.variances_, np.nan)

    def transform(self, X):
        """Return the scores of rows."""
        return (X - self.origin_) @ self.scalings_

    def explaining(self, share):
        """Return as few of the directions as explain this share of the variance that all of them do."""
        explained = np.cumsum(np.maximum(np.nan_to_num(self.variances_), 0))
        k = 1 + int(np.count_nonzero(explained[:-1] < share * explained[-1]))
        return Discriminants(self.scalings_[:, :k], self.variances_[:k], self.total_, self.origin_)


def fit_discriminants(X, y, shrinkage, n_components):
    r"""Return the directions :math:`\arg\max_{W^\top S_w W = I} \operatorname{tr}(W^\top S_b W)`.

    There are more rows than classes and at least two classes. The largest coefficient of each direction is positive.
    """
    labels = np.unique(y, return_inverse=True)[1]
    discriminants = None
    if _varies_within_classes(X, labels):
        if shrinkage is None:
            # Collinear columns do no harm.
            lda = LinearDiscriminantAnalysis(solver="svd", n_components=n_components).fit(X, labels)
            ratio = lda.explained_variance_ratio_
            discriminants = Discriminants(lda.scalings_[:, :n_components], ratio, 1.0, lda.xbar_)
        elif shrinkage != 0 or X.shape[1] <= len(X):
            discriminants = _by_scatters(X, labels, n_components, shrinkage)
    if discriminants is None:
        # The scatter within classes is singular.
        variance = X.var(axis=0, dtype=np.float64).mean()
        # If all columns are constant, any floor will do.
        varies = variance > (8 * np.finfo(X.dtype).eps * np.abs(X).max()) ** 2
        discriminants = _by_scatters(X, labels, n_components, 0.0, floor=_FLOOR * variance if varies else 1.0)
    # Solvers leave the signs open.
    discriminants.scalings_ = discriminants.scalings_ * signs_by_largest(discriminants.scalings_)
    return discriminants


def _varies_within_classes(X, labels):
    """Return whether any class has rows that differ by more than rounding."""
    tolerance = 8 * np.finfo(X.dtype).eps * np.abs(X).max()
    return any(np.ptp(X[labels == label], axis=0).max() > tolerance for label in np.unique(labels))


def _by_scatters(X, labels, n_components, shrinkage, floor=0.0):
    """Return the directions from shrunk scatters, with ``floor`` added to every variance; None if they are singular."""
    try:
        solve = _solve_columns if X.shape[1] <= len(X) else _solve_rows
        return solve(X.astype(np.float64), labels, n_components, lambda Z: _shrink(Z, shrinkage, floor))
    except linalg.LinAlgError:
        return None


def _shrink(X, shrinkage, floor):
    r"""Return r and d of a shrunk covariance matrix :math:`(1 - r) \Sigma + \operatorname{diag}(d)`.

    As in scikit-learn, the shrinkage of Ledoit and Wolf is that of standardised columns, so that d differs by column.
    """
    if shrinkage != "auto":
        shrinkage = min(shrinkage, _LARGEST_SHRINKAGE)
        return shrinkage, np.full(X.shape[1], shrinkage * X.var(axis=0).mean() + floor)
    scaler = StandardScaler().set_output(transform="default")
    Z = scaler.fit_transform(X)
    n_samples, n_features = Z.shape
    # Inner products of rows or of columns, whichever are fewer, have the same eigenvalues but for zeros.
    gram = Z @ Z.T if n_samples <= n_features else Z.T @ Z
    mean_variance = np.trace(gram) / (n_samples * n_features)
    if mean_variance == 0:
        return 0.0, np.zeros(n_features)
    fourth_powers = np.sum((Z**2).sum(axis=1) ** 2)
    free = n_samples - 1
    r = ledoit_wolf_shrinkage(gram / free, mean_variance * n_samples / free, n_samples, fourth_powers)
    return r, r * mean_variance * scaler.scale_**2


def _solve_columns(X, labels, n_components, shrink):
    """Return the directions from the scatter matrices of the columns."""

    def covariance(Z):
        r, d = shrink(Z)
        return (1 - r) * np.cov(Z, rowvar=False, bias=True).reshape(Z.shape[1], -1) + np.diag(d)

    within = sum(
        count / len(X) * covariance(X[labels == label]) for label, count in enumerate(np.bincount(labels).tolist())
    )
    values, W = linalg.eigh(covariance(X) - within, within)
    return Discriminants(W[:, ::-1][:, :n_components], values[::-1][:n_components], values.sum())


def _solve_rows(X, labels, n_components, shrink):
    r"""Return the directions of more columns than rows, in time that grows with the columns, not with their cube.

    Both scatters are the sum of a diagonal matrix and of products of rows: :math:`S_w = D_w + C^\top V C` and
    :math:`S_t = D_t + t (C^\top C + M^\top M)`, with the rows :math:`C` centred in their class, and the centres of the
    classes :math:`M`. Whitening by :math:`S_w^{-1/2}` then takes an inverse of as many rows as there are samples, and
    the leading eigenvectors of the whitened :math:`S_t` come by Lanczos iterations, to the last digits.
    """
    n_samples, n_features = X.shape
    counts = np.bincount(labels)
    r, total = shrink(X)
    t = (1 - r) / n_samples
    C = X.copy()
    means = np.empty((len(counts), n_features))
    within, shares = np.zeros(n_features), np.empty(n_samples)
    for label, count in enumerate(counts):
        rows = labels == label
        r, target = shrink(C[rows])
        means[label] = C[rows].mean(axis=0)
        within += count / n_samples * target
        shares[rows] = (1 - r) / n_samples
        C[rows] -= means[label]
    if (within <= _SMALLEST_TARGET * (shares @ C**2)).any():
        raise linalg.LinAlgError("singular scatter within classes")
    # In units in which D_w is the identity.
    units = np.sqrt(within)
    C /= units
    M = (means - counts / n_samples @ means) * np.sqrt(counts)[:, None] / units
    D = total / within

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

    operator = LinearOperator((n_features, n_features), matvec=whitened_total, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=n_features)
    values, directions = eigsh(operator, n_components, which="LA", v0=start)
    order = np.argsort(values)[::-1]
    # The trace of the whitened scatter between classes.
    cross = C @ M.T
    squares = t * (np.trace(gram) + np.sum(M**2) - np.sum(K * (gram @ gram)) - np.sum(cross * (K @ cross)))
    trace = np.sum(D * (1 - np.einsum("ij,ij->j", C, K @ C))) + squares - n_features
    return Discriminants(whiten(directions[:, order]) / units[:, None], values[order] - 1, trace)
