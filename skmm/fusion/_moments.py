"""Means and covariances of matrices with missing cells, whose columns fall into blocks.

They are summed up in float64, chunk by chunk, so that no copy of the matrix is made.
"""

import copy

import numpy as np
from scipy.linalg import blas
from sklearn.utils import gen_batches

from .._columns import column_means
from ._base import missing_blocks

# Cells whose products are summed up at a time: a few megabytes, so that centred cells are still in the cache when they
# are multiplied.
_CHUNK = 2**21
# Rows from which means are guessed.
_ROWS_OF_GUESS = 256
# Columns that are mirrored at a time.
_TILE = 128


def take_rows(X, mask):
    """Return the rows of a mask; X itself, not a copy, if these are all rows."""
    return X if mask.all() else X[mask]


def present_blocks(X, blocks, min_present=2):
    """Return the mask of the blocks that each row has; False in rows that have fewer than ``min_present`` of them."""
    present = ~missing_blocks(X, blocks)
    present[present.sum(axis=1) < min_present] = False
    return present


class BlockMoments:
    """Sums over rows of shifted columns and of their products, by pair of blocks. Moments of different rows add up.

    Two columns are compared in the rows in which both of their blocks are present. Where blocks are compared with
    each other, rows with a single block are left out: they say nothing about agreement, and the variances within
    blocks should come from much the same rows as the covariances between them.

    Parameters
    ----------
    shift : ndarray of shape (n_features,), dtype float64
        What is subtracted from each row before anything is summed up, near the mean: products of numbers
        far from zero would lose what varies.

    blocks : dict of str to slice
        Columns of each block, closed.

    min_present : int, default=2
        Blocks that a row must have to count.

    Attributes
    ----------
    counts : ndarray of shape (n_blocks, n_blocks)
        Number of rows that have both blocks; on the diagonal, of rows that have the block and count.

    sums : ndarray of shape (n_blocks, n_features)
        Entry (b, j): sum of the shifted column j over the rows that have both its own block and block b.

    products : ndarray of shape (n_features, n_features)
        Sums of products of shifted columns; only the lower triangle.
    """

    def __init__(self, shift, blocks, min_present=2):
        n_blocks, n_features = len(blocks), len(shift)
        self.shift = shift
        self.blocks = blocks
        self.min_present = min_present
        self.counts = np.zeros((n_blocks, n_blocks))
        self.sums = np.zeros((n_blocks, n_features))
        self.products = np.zeros((n_features, n_features), order="F")

    def add(self, X, *, single=False, fill=True):
        """Add rows.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            Rows, with NaN in missing cells.

        single : bool, default=False
            Whether to multiply in float32. The sums of chunks are added in float64 always.

        fill : bool, default=True
            Whether missing cells are handled: one of a block that is present becomes the shift, and a block all of
            whose cells are missing is left out.

        Returns
        -------
        complete : bool
            False if ``fill=False`` and X has missing cells; the moments must not be used then.
        """
        dtype = np.float32 if single else np.float64
        n_features = len(self.shift)
        n_rows = min(len(X), max(1, _CHUNK // n_features))
        shift = self.shift.astype(dtype)
        buffer = np.empty((n_rows, n_features), dtype=dtype)
        ones = np.ones(n_rows, dtype=dtype)
        for rows in gen_batches(len(X), n_rows):
            Z = buffer[: rows.stop - rows.start]
            # Where float32 overflows, the caller repeats the sums in float64.
            with np.errstate(over="ignore", invalid="ignore"):
                np.subtract(X[rows], shift, out=Z)
                sums = ones[: len(Z)] @ Z
            if not np.isnan(sums).any():
                self.counts += len(Z)
                self.sums += sums
            elif fill:
                present = present_blocks(Z, self.blocks, self.min_present)
                np.copyto(Z, 0, where=np.isnan(Z))
                Z[~present.any(axis=1)] = 0
                present = present.astype(dtype)
                self.counts += present.T @ present
                self.sums += present.T @ Z
            else:
                return False
            if single:
                self.products += blas.ssyrk(1.0, Z.T, lower=1)
            else:
                self.products = blas.dsyrk(1.0, Z.T, beta=1.0, c=self.products, lower=1, overwrite_c=1)
        return True

    def __add__(self, other):
        result = copy.copy(self)
        for name in ("counts", "sums", "products"):
            setattr(result, name, getattr(self, name) + getattr(other, name))
        return result

    def projected(self, bases):
        """Return the moments of combinations of the columns of each block.

        Parameters
        ----------
        bases : dict of str to ndarray of shape (n_block_features, n_combinations)
            Their coefficients, by block.

        Returns
        -------
        moments : BlockMoments
            Of the combinations, block after block.
        """
        result = copy.copy(self)
        result.blocks = consecutive_slices({name: basis.shape[1] for name, basis in bases.items()})
        B = np.zeros((len(self.shift), sum(basis.shape[1] for basis in bases.values())), order="F")
        for name, combinations in result.blocks.items():
            B[self.blocks[name], combinations] = bases[name]
        result.shift = self.shift @ B
        result.sums = self.sums @ B
        result.products = np.asfortranarray(B.T @ blas.dsymm(1.0, self.products, B, lower=1))
        return result

    def n_rows(self):
        """Return the number of rows that have each block, by name."""
        return dict(zip(self.blocks, np.diag(self.counts).astype(int).tolist(), strict=True))

    def means(self):
        """Return the mean of each column over the rows that have its block; the shift where there is none."""
        return self.shift + self._shifted_means()

    def covariance(self):
        """Return the covariance matrix, each entry from the rows that have both blocks; 0 if these are fewer than 2."""
        if np.ptp(self.counts) == 0 and self.counts[0, 0] > 1:
            n = self.counts[0, 0]
            S = blas.dsyr(-n, self._shifted_means(), lower=1, a=self.products.copy(order="F"), overwrite_a=1)
            S /= n - 1
        else:
            S = np.zeros_like(self.products)
            for i, rows in enumerate(self.blocks.values()):
                for j, columns in enumerate(self.blocks.values()):
                    n = self.counts[i, j]
                    # Of the two orders of a pair, the one in the lower triangle; blocks may stand in any order.
                    if rows.start >= columns.start and n > 1:
                        correction = np.outer(self.sums[j, rows], self.sums[i, columns]) / n
                        S[rows, columns] = (self.products[rows, columns] - correction) / (n - 1)
        for start in range(0, len(S), _TILE):
            tile, below = slice(start, start + _TILE), slice(start + _TILE, None)
            S[tile, tile] = np.tril(S[tile, tile]) + np.tril(S[tile, tile], -1).T
            S[tile, below] = S[below, tile].T
        return S

    def _shifted_means(self):
        means = np.zeros(len(self.shift))
        for i, columns in enumerate(self.blocks.values()):
            if self.counts[i, i] > 0:
                means[columns] = self.sums[i, columns] / self.counts[i, i]
        return means


def block_moments(X, blocks, subsets=((slice(None),),), *, single=False):
    """Return the moments of subsets of the rows, all with the same shift.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows, with NaN in missing cells. A missing cell of a block that is present counts as the mean of its
        column.

    blocks : dict of str to slice
        Columns of each block, closed.

    subsets : sequence of sequence of slice, default=((slice(None),),)
        The rows of each subset.

    single : bool, default=False
        Whether to multiply in float32.

    Returns
    -------
    moments : list of BlockMoments
        Of each subset.
    """
    # If no cell is missing a guess of the means will do; missing cells need the means themselves, which take one more
    # pass.
    guess = column_means(X[:: max(1, len(X) // _ROWS_OF_GUESS)])
    moments = _sum_subsets(X, blocks, subsets, guess, single=single, fill=False)
    return moments or _sum_subsets(X, blocks, subsets, column_means(X), single=single, fill=True)


def _sum_subsets(X, blocks, subsets, shift, *, single, fill):
    """Return the moments of each subset; None if the first missing cell ended it."""
    # The shift must be a number of the precision in which it is subtracted, as the means are later computed from it.
    shift = shift.astype(np.float32 if single else np.float64)
    moments = [BlockMoments(shift, blocks) for _ in subsets]
    for subset_moments, slices in zip(moments, subsets, strict=True):
        if not all(subset_moments.add(X[rows], single=single, fill=fill) for rows in slices):
            return None
    return moments


def consecutive_slices(widths):
    """Return, by name, slices of the given widths that follow each other."""
    ends = np.cumsum(list(widths.values())).tolist()
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def sum_of_fourth_powers(X_block, varying, means, scales):
    """Return the sum over rows of the fourth power of their distance from the mean, in scaled columns.

    Parameters
    ----------
    X_block : ndarray of shape (n_samples, n_features)
        One block, with NaN in missing cells, which count as means; a missing row adds nothing.

    varying : ndarray of int
        Positions of the columns that count.

    means, scales : ndarray
        Mean of each of them, and what it is divided by.

    Returns
    -------
    total : float
        The sum.
    """
    # A factor of 0 leaves a column out.
    factors, centers = np.zeros(X_block.shape[1]), np.zeros(X_block.shape[1])
    factors[varying], centers[varying] = 1 / scales, means
    total = 0.0
    for rows in gen_batches(len(X_block), max(1, _CHUNK // X_block.shape[1])):
        Z = (X_block[rows] - centers) * factors
        squares = np.vecdot(Z, Z)
        if np.isnan(squares).any():
            squares = np.nansum(Z * Z, axis=1)
        total += np.vecdot(squares, squares)
    return float(total)


def ledoit_wolf_shrinkage(S, target, n_rows, fourth_powers):
    """Return the ridge that estimates a covariance matrix best in squared error, from sums over its rows.

    O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
    Multivariate Analysis 88 (2004).

    Parameters
    ----------
    S : ndarray of shape (n_features, n_features)
        Covariance matrix, divided by n - 1; or the matrix of inner products of its rows, which has the same
        eigenvalues but for zeros, divided by n - 1.

    target : float
        Its mean variance, over all columns that vary.

    n_rows : int
        Rows behind it.

    fourth_powers : float
        Sum over these rows of the fourth power of their distance from the mean.

    Returns
    -------
    shrinkage : float
        In [0, 1].
    """
    biased = (n_rows - 1) / n_rows
    # In coordinates of the span of its rows, a block has more columns than the matrix.
    n_features = np.trace(S) / target
    squares = biased**2 * np.sum(S**2)
    distance = squares - n_features * (biased * target) ** 2
    error = min((fourth_powers / n_rows - squares) / n_rows, distance)
    return 0.0 if error <= 0 else float(error / distance)
