"""Canonical variates from a covariance matrix: two blocks by Hotelling, more by MAXVAR or SUMCOR."""

from typing import NamedTuple

import numpy as np
from scipy import linalg

# Variance along a direction, relative to the largest of the block, below which products in float64 leave too few
# digits: an error of 1e-15 there moves a correlation by up to 1e-5.
_CUT = 1e-10
# Smallest relative pivot for which Cholesky factors are used; what is left of a column when those before it are known.
_PIVOT = 1e-8
# A column that was computed is rounded more than once; one that varies less than so many roundings is constant.
CONSTANT = 16
# Share of the ridge's scale below which a variate does not vary.
FLAT = 1e-10


class BlockCovariance(NamedTuple):
    """Covariance of the columns that vary, scaled, and what is known about each block."""

    matrix: np.ndarray
    blocks: dict  # name -> slice of the matrix
    columns: dict  # name -> positions of these columns in the block
    widths: dict  # name -> columns of the block
    scales: dict  # name -> what these columns were divided by
    targets: dict  # name -> variance that a full ridge gives every column
    noises: dict  # name -> variance that rounding of X can make, along the worst direction
    n_rows: dict  # name -> rows behind the block

    def of(self, moments):
        """Give the covariance of other rows in the same columns and scales."""
        return _restrict(moments.covariance(), *self._layout(moments.blocks))

    def in_units(self, bases):
        """Give coefficients of all columns of each block in their own units, from those of these columns."""
        coefficients = {}
        for name, basis in bases.items():
            coefficients[name] = np.zeros((self.widths[name], basis.shape[1]))
            coefficients[name][self.columns[name]] = basis / self.scales[name][:, None]
        return coefficients

    def _layout(self, blocks):
        kept = np.concatenate([self.columns[name] + columns.start for name, columns in blocks.items()])
        return kept, np.concatenate([self.scales[name] for name in blocks])


def block_covariance(moments, dtype, standardized, targets=None):
    """Scale the covariance of moments, and leave out columns that do not vary.

    Parameters
    ----------
    moments : BlockMoments
        Moments of the rows.

    dtype : dtype
        Of the rows; its rounding tells which columns vary.

    standardized : dict of str to bool
        Whether the columns of a block are brought to unit variance.

    targets : dict of str to float, default=None
        The ridge's scale by block, where it is not the mean variance of the columns.

    Returns
    -------
    covariance : BlockCovariance
        Of the columns that vary. A block of which none does has no columns.
    """
    S = moments.covariance()
    variances = np.diag(S).copy()
    # Twelve times the variance of a number that is rounded once.
    rounding = np.finfo(dtype).eps ** 2 * (moments.means() ** 2 + variances)
    varies = variances > CONSTANT * rounding
    n_rows = moments.n_rows()
    blocks, positions, scales, found, noises = {}, {}, {}, {}, {}
    end = 0
    for name, columns in moments.blocks.items():
        positions[name] = np.flatnonzero(varies[columns])
        here = positions[name] + columns.start
        # Factors of whole blocks have no influence; at a mean variance of 1 products in float32 stay in its range.
        mean = variances[here].mean() if len(here) else 1.0
        units = variances[here] if standardized[name] else np.full(len(here), mean)
        scales[name] = np.sqrt(units)
        blocks[name] = slice(end, end := end + len(here))
        found[name] = float(targets[name] / mean) if name in (targets or {}) else 1.0
        spread = (1 + np.sqrt(len(here) / max(n_rows[name] - 1, 1))) ** 2
        noises[name] = float((rounding[here] / units).max(initial=0) * spread)
    widths = {name: columns.stop - columns.start for name, columns in moments.blocks.items()}
    result = BlockCovariance(S, blocks, positions, widths, scales, found, noises, n_rows)
    return result._replace(matrix=_restrict(S, *result._layout(moments.blocks)))


def _restrict(S, kept, scales):
    if not np.array_equal(kept, np.arange(len(S))):
        S = S[np.ix_(kept, kept)]
    S /= scales
    S /= scales[:, None]
    return S


def ledoit_wolf(S, target, n_rows, fourth):
    """Ridge that estimates a covariance matrix best in squared error, from sums over its rows.

    O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
    Multivariate Analysis 88 (2004).

    Parameters
    ----------
    S : ndarray of shape (n_features, n_features)
        Covariance matrix, divided by n - 1.

    target : float
        Its mean variance, over all columns that vary.

    n_rows : int
        Rows behind it.

    fourth : float
        Sum over these rows of the fourth power of their distance from the mean.

    Returns
    -------
    shrinkage : float
        In [0, 1].
    """
    biased = (n_rows - 1) / n_rows
    # A block in coordinates of its rows has more columns than the matrix.
    n_features = np.trace(S) / target
    squares = biased**2 * np.sum(S**2)
    distance = squares - n_features * (biased * target) ** 2
    error = min((fourth / n_rows - squares) / n_rows, distance)
    return 0.0 if error <= 0 else float(error / distance)


class _Cholesky(NamedTuple):
    """Whitening by the triangular factor of the ridged covariance of a block."""

    factor: np.ndarray
    pivot: float  # the smallest, relative to its column's variance

    @property
    def rank(self):
        return len(self.factor)

    def left(self, M):
        return self._trsm(1.0, self.factor, M, lower=1)

    def right(self, M):
        return self._trsm(1.0, self.factor, M, side=1, lower=1, trans_a=1)

    def weights(self, directions):
        return self._trsm(1.0, self.factor, directions, lower=1, trans_a=1)

    @property
    def _trsm(self):
        return linalg.get_blas_funcs("trsm", (self.factor,))


class _Eigenvectors(NamedTuple):
    """Whitening in the directions that vary."""

    scaled: np.ndarray
    pivot: float

    @property
    def rank(self):
        return self.scaled.shape[1]

    def left(self, M):
        return self.scaled.T @ M

    def right(self, M):
        return M @ self.scaled

    def weights(self, directions):
        return self.scaled @ directions


def block_whitening(covariance, name, ridge):
    """Give what whitens the ridged covariance of one block."""
    own, target, noise = covariance.blocks[name], covariance.targets[name], covariance.noises[name]
    # Symmetric, so that the transpose, in the order of the Fortran routines, is the same.
    ridged = ((1 - ridge) * covariance.matrix[own, own]).T
    ridged.T.flat[:: len(ridged) + 1] += ridge * target
    variances = np.diag(ridged)
    potrf = linalg.get_lapack_funcs("potrf", (ridged,))
    factor, failed = potrf(ridged, lower=1)
    pivot = 0.0 if failed else (np.diag(factor) ** 2 / variances).min()
    # Written so that NaN fails.
    if pivot > _PIVOT and pivot * variances.min() > 100 * noise:
        return _Cholesky(factor, pivot)
    values, vectors = linalg.eigh(ridged)
    kept = values > max(_CUT * values[-1], (1 - ridge) * noise)
    return _Eigenvectors(vectors[:, kept] / np.sqrt(values[kept]), pivot)


class CanonicalWeights(NamedTuple):
    """Weights of the columns that vary, scaled, and what was met on the way to them."""

    weights: dict  # name -> (n_columns, n_components), variates of unit variance
    ranks: dict  # name -> int, directions of the block that took part
    pivot: float  # smallest relative pivot of a block, 0 where one had no Cholesky factor


def canonical_weights(covariance, ridges, n_components, objective):
    """Solve for the weights under which the blocks agree most.

    Parameters
    ----------
    covariance : BlockCovariance
        Covariance of all blocks.

    ridges : dict of str to float
        Ridge of each block, in [0, 1].

    n_components : int
        Upper bound of the number of components.

    objective : {"maxvar", "sumcor"}
        What "most" means for more than two blocks.

    Returns
    -------
    solution : CanonicalWeights
        The weights, best agreement first.
    """
    weights, whitenings = leading_directions(covariance, ridges, n_components, objective)
    ranks = {name: whitening.rank for name, whitening in whitenings.items()}
    pivot = min(whitening.pivot for whitening in whitenings.values())
    return CanonicalWeights(_to_unit_variance(weights, covariance), ranks, pivot)


def leading_directions(covariance, ridges, n_components, objective):
    """Give the weights of each block, not yet of unit variance, and what whitened it; see :func:`canonical_weights`."""
    S, blocks = covariance.matrix, covariance.blocks
    whitenings = {name: block_whitening(covariance, name, ridges[name]) for name in blocks}
    ranks = {name: whitening.rank for name, whitening in whitenings.items()}
    k = min(n_components, *ranks.values())
    if len(blocks) == 2:
        (a, own_a), (b, own_b) = blocks.items()
        whitened = whitenings[b].right(whitenings[a].left(S[own_a, own_b]))
        directions = leading_pairs(whitened, k)
    else:
        directions = _leading_stacks(S, blocks, whitenings, ranks, k, objective)
    weights = {
        name: whitening.weights(np.asfortranarray(direction))
        for (name, whitening), direction in zip(whitenings.items(), directions, strict=True)
    }
    return weights, whitenings


def leading_pairs(M, k):
    """Give the k leading left and right singular vectors of a matrix, as columns.

    The eigenvectors of the smaller product span them; within their span the decomposition is exact, so that small
    singular values keep their digits and vectors of a zero one stay orthonormal.
    """
    if M.shape[0] < M.shape[1]:
        right, left = leading_pairs(M.T, k)
        return left, right
    n = M.shape[1]
    product = linalg.get_blas_funcs("syrk", (M,))(1.0, M, trans=1, lower=1)
    _, V = linalg.eigh(product, lower=True, subset_by_index=[n - k, n - 1], overwrite_a=True, check_finite=False)
    Q, R = linalg.qr(M @ V, mode="economic", check_finite=False)
    left, _, right = linalg.svd(R, check_finite=False)
    return Q @ left, V @ right.T


def _leading_stacks(S, blocks, whitenings, ranks, k, objective):
    ends = np.cumsum(list(ranks.values()))
    slices = [slice(end - rank, end) for end, rank in zip(ends, ranks.values(), strict=True)]
    agreement = np.eye(ends[-1], dtype=S.dtype)
    for i, (a, own_a) in enumerate(blocks.items()):
        for j, (b, own_b) in enumerate(blocks.items()):
            if j < i or (j == i and objective == "maxvar"):
                agreement[slices[i], slices[j]] = whitenings[b].right(whitenings[a].left(S[own_a, own_b]))
    n = len(agreement)
    _, vectors = linalg.eigh(agreement, lower=True, subset_by_index=[n - k, n - 1], overwrite_a=True)
    return [vectors[own, ::-1] for own in slices]


def _to_unit_variance(weights, covariance):
    """Scale the weights, and leave out components that fewer than two blocks have a part in."""
    variances = {}
    for name, own in covariance.blocks.items():
        W = weights[name]
        lengths = np.maximum((W**2).sum(axis=0), np.finfo(float).tiny)
        variances[name] = np.maximum((W * (covariance.matrix[own, own] @ W)).sum(axis=0), 0)
        # A direction of a singular block that only the ridge gave a length; no weights for it.
        scale = np.diag(covariance.matrix[own, own]).mean()
        variances[name][variances[name] <= FLAT * scale * lengths] = 0
    largest = {name: values.max() for name, values in variances.items()}
    parts = {name: values > FLAT * largest[name] for name, values in variances.items()}
    kept = np.sum(list(parts.values()), axis=0) >= 2
    # Blocks that agree in nothing at all still get one.
    kept[0] |= not kept.any()
    return {
        name: W[:, kept] * np.where(parts[name], 1 / np.sqrt(np.where(parts[name], variances[name], 1.0)), 0.0)[kept]
        for name, W in weights.items()
    }
