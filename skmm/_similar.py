"""Rows of a matrix that are equal or nearly so, by the cosine of their deviations from the mean."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.utils import gen_batches

from ._columns import column_means, fill_missing

# Neighbours that are taken for similar, but different rows; the share of the distance of the middle one that is near,
# and the number of neighbours of a row that may be nearer than that by chance.
_NEIGHBORS = (5, 10, 20)
_NEAR = 1 / 3
_BY_CHANCE = 0.01
# Rows whose neighbours are looked at to choose a threshold.
_SAMPLE = 1000
# Cosines that are in memory at a time.
_BLOCK = 2**22
# Distances up to that are rounding.
_ROUNDING = 1e-6


class SimilarRows:
    """Reference rows, without missing ones, among which near duplicates are looked for.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        Rows of floats; those that are all NaN are missing, and similar to none. Single missing cells are the mean.

    threshold : float or "auto"
        Smallest cosine of rows that are near duplicates; 1 means that only rows are that are equal up to rounding.

    Attributes
    ----------
    threshold : float
        The same as a number.

    first : ndarray of shape (n_samples,)
        Position of the first row that equals each row.
    """

    def __init__(self, rows, threshold):
        self.present = ~np.isnan(rows).all(axis=1)
        self._means = np.nan_to_num(column_means(rows))
        self._rows = fill_missing(rows, self._means)
        self._positions = {}
        keys = [row.tobytes() for row in self._rows]
        for position in np.flatnonzero(self.present).tolist():
            self._positions.setdefault(keys[position], position)
        self.first = np.array([self._positions.get(key, -1) for key in keys], dtype=np.intp)
        self.first[~self.present] = np.flatnonzero(~self.present)
        self._different = np.array(list(self._positions.values()), dtype=np.intp)
        self._mean = self._rows[self._different].mean(axis=0, dtype=np.float64) if len(self._different) else 0
        self._directions, self._lengths = self._polar(self._rows[self._different])
        self.threshold = self._choose_threshold() if threshold == "auto" else float(threshold)

    def _polar(self, rows):
        """Return the directions of rows from the mean, and their distances to it."""
        rows = (rows - self._mean).astype(rows.dtype)
        lengths = np.linalg.norm(rows, axis=1)
        return np.divide(rows, lengths[:, None], out=np.zeros_like(rows), where=lengths[:, None] > 0), lengths

    def _are_near(self, cosines, lengths):
        """Return the mask of the near ones among the cosines of rows of some lengths with the reference rows."""
        if self.threshold < 1:
            return cosines >= self.threshold
        # In few dimensions many rows have one direction.
        alike = np.abs(lengths[:, None] - self._lengths) <= _ROUNDING * self._lengths
        return alike & (cosines >= 1 - _ROUNDING)

    def _choose_threshold(self):
        """Return the cosine at a third of the median distance, 1 - cosine, to the tenth different neighbour.

        It is less in few dimensions: the number of neighbours grows with a power of the distance, and within that of
        the threshold it is to be .01. Too few rows have no such neighbours, and only equal rows are near then.
        """
        Z = self._directions
        if len(Z) <= _NEIGHBORS[-1]:
            return 1.0
        sample = Z[:: -(-len(Z) // _SAMPLE)]
        places = [len(Z) - 1 - k for k in _NEIGHBORS]
        close, similar, far = np.median([1 - np.partition(Z @ z, places)[places] for z in sample], axis=0)
        if close <= _ROUNDING:
            return 1.0
        dimensions = np.log(_NEIGHBORS[2] / _NEIGHBORS[0]) / np.log(far / close)
        chance = (_BY_CHANCE / _NEIGHBORS[1]) ** (1 / dimensions)
        return float(1 - min(_NEAR, chance) * similar)

    def pairs(self):
        """Return the group of each row, its most similar other row, the cosine, and whether both are equal.

        The other row is -1 and the cosine NaN where no row is near.

        Groups are the connected components of near duplicates, numbered in the order of their first rows.
        """
        Z, n = self._directions, len(self._directions)
        groups = np.arange(n)
        best, partner = np.full(n, np.nan), np.full(n, -1)
        for rows in gen_batches(n, max(1, _BLOCK // max(n, 1))):
            cosines = Z[rows] @ Z.T
            places = np.arange(rows.start, rows.stop)
            cosines[places - rows.start, places] = -np.inf
            are_near = self._are_near(cosines, self._lengths[rows])
            a, b = np.nonzero(are_near)
            if not len(a):
                continue
            near = np.unique(a)
            cosines = np.where(are_near[near], cosines[near], -np.inf)
            partner[places[near]] = cosines.argmax(axis=1)
            best[places[near]] = np.minimum(cosines.max(axis=1), 1)
            graph = coo_array((np.ones(len(a)), (groups[places[a]], groups[b])), shape=(n, n))
            groups = connected_components(graph, directed=False)[1][groups]
        # From the different rows to all: the others equal the first of their kind.
        of_kind = np.full(len(self.first), -1)
        of_kind[self._different] = np.arange(n)
        kinds = of_kind[self.first]
        all_groups = np.where(kinds >= 0, groups[kinds] if n else 0, n + np.arange(len(kinds)))
        partners, cosines = np.full((2, len(kinds)), np.nan)
        has = (kinds >= 0) & (partner[kinds] >= 0 if n else False)
        partners[has], cosines[has] = self._different[partner[kinds[has]]], best[kinds[has]]
        copies = np.flatnonzero((self.first != np.arange(len(kinds))) & (kinds >= 0))
        # The partner of the first of equal rows is the second, that of all others the first.
        partners[self.first[copies[::-1]]] = copies[::-1]
        partners[copies] = self.first[copies]
        equal = np.isin(np.arange(len(kinds)), np.r_[copies, self.first[copies]])
        cosines[equal] = 1
        return _numbered(all_groups), np.nan_to_num(partners, nan=-1).astype(np.intp), cosines, equal

    def nearest(self, rows):
        """Return, for other rows, the most similar reference row, the cosine, and whether both are equal."""
        partners, cosines = np.full(len(rows), -1), np.full(len(rows), np.nan)
        equal = np.zeros(len(rows), dtype=bool)
        present = np.flatnonzero(~np.isnan(rows).all(axis=1))
        rows = fill_missing(rows, self._means)
        Z, lengths = self._polar(rows)
        for batch in gen_batches(len(present), max(1, _BLOCK // max(len(self._different), 1))):
            places = present[batch]
            if not len(self._different):
                break
            fits = Z[places] @ self._directions.T
            fits = np.where(self._are_near(fits, lengths[places]), fits, -np.inf)
            best = fits.max(axis=1)
            near = np.isfinite(best)
            partners[places[near]] = self._different[fits[near].argmax(axis=1)]
            cosines[places[near]] = np.minimum(best[near], 1)
        for row in present:
            position = self._positions.get(rows[row].tobytes())
            if position is not None:
                partners[row], cosines[row], equal[row] = position, 1, True
        return partners, cosines, equal


def join_groups(groupings):
    """Return the groups of rows that any of several groupings, with numbers from 0, puts together."""
    n = len(groupings[0])
    groups = np.arange(n)
    for other in groupings:
        graph = coo_array((np.ones(n), (groups, n + other)), shape=(2 * n, 2 * n))
        groups = connected_components(graph, directed=False)[1][groups]
    return _numbered(groups)


def _numbered(groups):
    """Return groups numbered from 0 in the order of their first rows."""
    _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]
