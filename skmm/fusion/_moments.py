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
# Columns of which the lower triangle of a matrix is copied to the upper at a time.
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

    The shift, near the means, is subtracted from each row before: products of numbers far from zero would lose what
    varies. Two columns are compared in the rows in which both of their blocks are present. Rows with fewer than
    ``min_present`` blocks are left out: where blocks are compared with each other, those with a single one say nothing
    about agreement, and the variances within blocks should come from much the same rows as the covariances between.
    """

    def __init__(self, shift, blocks, min_present=2):
        n_blocks, n_features = len(blocks), len(shift)
        self.shift = shift
        self.blocks = blocks
        self.min_present = min_present
        # Rows that have both blocks.
        self.counts = np.zeros((n_blocks, n_blocks))
        # Entry (b, j): sum of the shifted column j over the rows that have both its block and block b.
        self.sums = np.zeros((n_blocks, n_features))
        # Only the lower triangle.
        self.products = np.zeros((n_features, n_features), order="F")

    def add(self, X, *, single=False, fill=True):
        """Add rows, whose products are computed in float32 if ``single``, and added up in float64 always.

        A missing cell of a block that is present becomes the shift. With ``fill=False``, return False if a cell is
        missing; the moments must not be used then.
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
        """Return the moments of combinations of columns, given by a matrix of coefficients for each block."""
        result = copy.copy(self)
        result.blocks = consecutive_slices({name: basis.shape[1] for name, basis in bases.items()})
        width = sum(basis.shape[1] for basis in bases.values())
        result.shift, result.sums = np.empty(width), np.empty((len(self.sums), width))
        result.products = np.zeros((width, width), order="F")
        for a, rows in self.blocks.items():
            result.shift[result.blocks[a]] = self.shift[rows] @ bases[a]
            result.sums[:, result.blocks[a]] = self.sums[:, rows] @ bases[a]
            for b, columns in self.blocks.items():
                # Only the lower triangle is stored, where blocks may stand in any order.
                products = (
                    self.products[rows, columns] if rows.start >= columns.start else self.products[columns, rows].T
                )
                if a == b:
                    products = np.tril(products) + np.tril(products, -1).T
                if result.blocks[a].start >= result.blocks[b].start:
                    result.products[result.blocks[a], result.blocks[b]] = bases[a].T @ (products @ bases[b])
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
    """Return the moments of subsets of the rows, each a list of slices or of arrays of positions, with one shift.

    A missing cell of a block that is present counts as the mean of its column.
    """
    for fill in (False, True):
        # If no cell is missing, means of some rows will do as the shift. Means of all rows take one more pass.
        shift = column_means(X if fill else X[:: max(1, len(X) // _ROWS_OF_GUESS)])
        # Rounded to the precision in which it is subtracted, as the means are computed from it.
        shift = shift.astype(np.float32 if single else np.float64)
        moments = [BlockMoments(shift, blocks) for _ in subsets]
        pairs = zip(moments, subsets, strict=True)
        if all(sums.add(X[rows], single=single, fill=fill) for sums, subset in pairs for rows in subset):
            break
    return moments


def consecutive_slices(widths):
    """Return, by name, slices of the given widths that follow each other."""
    ends = np.cumsum(list(widths.values())).tolist()
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def ledoit_wolf_shrinkage(S, target, n_rows, fourth_powers):
    """Return the ridge, in [0, 1], that estimates a covariance matrix best in squared error.

    S is the covariance matrix of so many rows, divided by n - 1; or the matrix of inner products of the rows, which has
    the same eigenvalues but for zeros. The target is its mean variance over all columns that vary; the fourth powers
    are those of the distances of the rows from the mean, summed up.

    O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
    Multivariate Analysis 88 (2004).
    """
    biased = (n_rows - 1) / n_rows
    # In coordinates of the span of its rows, a block has more columns than the matrix.
    n_features = np.trace(S) / target
    squares = biased**2 * np.sum(S**2)
    distance = squares - n_features * (biased * target) ** 2
    error = min((fourth_powers / n_rows - squares) / n_rows, distance)
    return 0.0 if error <= 0 else float(error / distance)
