"""Counts, sums and products of the blocks of a matrix, in one pass and chunk by chunk.

Moments are sums over rows: those of parts add up.
"""

import copy

import numpy as np
from scipy.linalg import blas

from ..._array_api import chunks_of_rows, like, namespace, to_numpy
from ..._missing import column_means, missing_blocks

# Cells of a chunk: a few megabytes, so that what is centred there is still in the cache when it is multiplied.
_CHUNK = 2**21
# Of arrays that may live on a GPU, where transfers of products cost more than memory.
_CHUNK_ELSEWHERE = 2**25
_ROWS_OF_GUESS = 256
# Columns that are mirrored at a time.
_TILE = 128


def present_with_others(X, blocks, together=2):
    """Mask, by row and block, of the blocks that are there, in rows that have so many together."""
    present = ~missing_blocks(X, blocks)
    present[present.sum(axis=1) < together] = False
    return present


class BlockMoments:
    """Sums over rows of shifted columns and of their products, by pair of blocks.

    Two columns meet in the rows in which both of their blocks are present. Where blocks are compared, rows with fewer
    than two are left out: they say nothing about agreement, and the variances within blocks should come from much the
    same rows as the covariances between them (with two blocks, from just the same).

    Parameters
    ----------
    shift : ndarray of shape (n_features,), dtype float64
        What is subtracted from each row before anything is summed up, near the mean: products of numbers
        far from zero would lose what varies.

    blocks : dict of str to slice
        Columns of each block, closed.

    together : int, default=2
        Blocks that a row must have to count.

    Attributes
    ----------
    counts : ndarray of shape (n_blocks, n_blocks)
        Number of rows that have both blocks; on the diagonal, that have the block and another one.

    sums : ndarray of shape (n_blocks, n_features)
        Sum of each shifted column over the rows that have its own block and the one of the row.

    products : ndarray of shape (n_features, n_features)
        Sums of products of shifted columns; only the lower triangle.
    """

    def __init__(self, shift, blocks, together=2):
        n_blocks, n_features = len(blocks), len(shift)
        self.shift = shift
        self.blocks = blocks
        self.together = together
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
            Whether a missing cell of a block that is present becomes the shift, and a block all of whose
            cells are missing is left out.

        Returns
        -------
        done : bool
            False if ``fill=False`` and X has missing cells; the moments are useless then.
        """
        if not isinstance(X, np.ndarray):
            return self._add_elsewhere(X, single=single, fill=fill)
        dtype = np.float32 if single else np.float64
        n_features = len(self.shift)
        n_rows = min(len(X), max(1, _CHUNK // n_features))
        shift = self.shift.astype(dtype)
        buffer = np.empty((n_rows, n_features), dtype=dtype)
        ones = np.ones(n_rows, dtype=dtype)
        for rows in chunks_of_rows(X, n_rows):
            Z = buffer[: rows.stop - rows.start]
            # What overflows float32 is no covariance, and is done again in float64.
            with np.errstate(over="ignore", invalid="ignore"):
                np.subtract(X[rows], shift, out=Z)
                sums = ones[: len(Z)] @ Z
            if not np.isnan(sums).any():
                self.counts += len(Z)
                self.sums += sums
            elif fill:
                present = present_with_others(Z, self.blocks, self.together)
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

    def _add_elsewhere(self, X, *, single, fill):
        """Add rows of another library than NumPy: multiplied where they are, summed up here."""
        xp = namespace(X)
        shift = like(self.shift, X, precise=not single)
        n_rows = max(1, _CHUNK_ELSEWHERE // len(self.shift))
        for rows in chunks_of_rows(X, n_rows):
            Z = X[rows, :] - shift
            missing = xp.isnan(Z)
            present = np.ones((Z.shape[0], len(self.blocks)))
            if bool(xp.any(missing)):
                if not fill:
                    return False
                present = present_with_others(Z, self.blocks, self.together).astype(np.float64)
                kept = like(present.any(axis=1)[:, None], Z)
                Z = xp.where(missing, xp.zeros_like(Z), Z) * kept
            self.counts += present.T @ present
            self.sums += to_numpy(like(present, Z).T @ Z)
            self.products += to_numpy(Z.T @ Z)
        return True

    def __add__(self, other):
        result = copy.copy(self)
        for name in ("counts", "sums", "products"):
            setattr(result, name, getattr(self, name) + getattr(other, name))
        return result

    def projected(self, bases):
        """Give the moments of combinations of the columns of each block.

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
        ends = np.cumsum([basis.shape[1] for basis in bases.values()]).tolist()
        result.blocks = {
            name: slice(end - basis.shape[1], end) for (name, basis), end in zip(bases.items(), ends, strict=True)
        }
        B = np.zeros((len(self.shift), ends[-1]), order="F")
        for name, own in result.blocks.items():
            B[self.blocks[name], own] = bases[name]
        result.shift = self.shift @ B
        result.sums = self.sums @ B
        result.products = np.asfortranarray(B.T @ blas.dsymm(1.0, self.products, B, lower=1))
        return result

    def n_rows(self):
        """Number of rows that have each block."""
        return dict(zip(self.blocks, np.diag(self.counts).astype(int).tolist(), strict=True))

    def means(self):
        """Mean of each column over the rows that have its block; the shift where there is none."""
        return self.shift + self._own_means()

    def covariance(self):
        """Covariance matrix, each entry from the rows that have both blocks; 0 where these are fewer than 2."""
        if np.ptp(self.counts) == 0 and self.counts[0, 0] > 1:
            n = self.counts[0, 0]
            S = blas.dsyr(-n, self._own_means(), lower=1, a=self.products.copy(order="F"), overwrite_a=1)
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

    def _own_means(self):
        means = np.zeros(len(self.shift))
        for i, columns in enumerate(self.blocks.values()):
            if self.counts[i, i] > 0:
                means[columns] = self.sums[i, columns] / self.counts[i, i]
        return means


def moments_of_parts(X, blocks, parts, *, single=False):
    """Give the moments of parts of the rows, all about one shift.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows, with NaN in missing cells. A missing cell of a block that is present counts as the mean of its
        column.

    blocks : dict of str to slice
        Columns of each block, closed.

    parts : list of list of slice
        The rows of each part.

    single : bool, default=False
        Whether to multiply in float32.

    Returns
    -------
    moments : list of BlockMoments
        Of each part.
    """
    # A guess does where nothing is missing; else missing cells get the mean, which takes a pass of its own.
    moments = _add_parts(X, blocks, parts, guess_means(X), single=single, fill=False)
    return moments or _add_parts(X, blocks, parts, column_means(X), single=single, fill=True)


def _add_parts(X, blocks, parts, shift, **options):
    moments = [BlockMoments(shift, blocks) for _ in parts]
    for part, slices in zip(moments, parts, strict=True):
        if not all(part.add(X[rows, :], **options) for rows in slices):
            return None
    return moments


def guess_means(X):
    """Mean of each column over some rows from all over X."""
    return column_means(X[:: max(1, X.shape[0] // _ROWS_OF_GUESS), :])


def sum_of_fourth_powers(X_block, kept, means, scales):
    """Sum over rows of the fourth power of their distance from the mean, in scaled columns.

    Parameters
    ----------
    X_block : ndarray of shape (n_samples, n_features)
        One block, with NaN in missing cells, which count as means; a missing row adds nothing.

    kept : ndarray of int
        Positions of the columns that count.

    means, scales : ndarray
        Mean of each of them, and what it is divided by.

    Returns
    -------
    total : float
        The sum.
    """
    # Weights of 0 leave columns out.
    factors, centers = np.zeros(X_block.shape[1]), np.zeros(X_block.shape[1])
    factors[kept], centers[kept] = 1 / scales, means
    xp = namespace(X_block)
    factors, centers = like(factors, X_block, precise=True), like(centers, X_block, precise=True)
    total = 0.0
    for rows in chunks_of_rows(X_block, max(1, _CHUNK // X_block.shape[1])):
        Z = (X_block[rows, :] - centers) * factors
        squares = xp.vecdot(Z, Z)
        if bool(xp.any(xp.isnan(squares))):
            Z = xp.where(xp.isnan(Z), xp.zeros_like(Z), Z)
            squares = xp.vecdot(Z, Z)
        total += float(xp.vecdot(squares, squares))
    return total
