"""Indexes of vectors: exact, approximate, and any estimator with ``kneighbors``.

All find the largest inner products. Vectors are known by their keys: 0, 1, ... in the order in which they were added,
which are never used again.
"""

from numbers import Integral
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from .._optional import import_optional_dependency
from .._sklearn import Interval, fit_context
from .._typing import Matrix

# Queries that are compared with the vectors together: more of them do not make the matrix product faster.
_QUERIES = 256
# Inner products in memory at once, which stay in the cache of a processor.
_PRODUCTS = 2**20
# An approximate index is built again when more of its nodes are removed ones than this many times those that are left.
_REMOVED_PER_VECTOR = 1.0
# Vectors up to which an approximate index compares all: a graph saves little then, and may miss one after removals.
_COMPARED_ALL = 1000

_POSITIVE = [Interval(Integral, 1, None, closed="left")]


class GrowingArray:
    """Array to which rows are appended in amortised constant time.

    Parameters
    ----------
    values : ndarray
        The first rows, which are not copied.
    """

    def __init__(self, values):
        self._buffer, self._size = values, len(values)

    def __len__(self):
        return self._size

    @property
    def values(self):
        """The rows, as a view."""
        return self._buffer[: self._size]

    def append(self, values):
        """Append rows."""
        end = self._size + len(values)
        if end > len(self._buffer):
            buffer = np.empty((max(end, 2 * self._size), *self._buffer.shape[1:]), dtype=self._buffer.dtype)
            buffer[: self._size] = self.values
            self._buffer = buffer
        self._buffer[self._size : end] = values
        self._size = end

    def truncate(self, size):
        """Drop the rows from this one on."""
        self._size = size

    def __getstate__(self):
        return {"_buffer": self.values, "_size": self._size}


class VectorIndex(BaseEstimator):
    """Base of the indexes: checks, and the way from vectors to keys.

    A subclass writes ``_build(X, keys)``, ``_insert(X, keys)``, ``_delete(keys)``, ``_contains(keys)``,
    ``_search(X, n)``, which returns distances and keys in order, ``_keys()``, the sorted keys, and ``_vectors()``, in
    the order of these.
    """

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Matrix, y: None = None) -> Self:
        """Index vectors, in place of all others.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Vectors. Their keys are 0, 1, ...

        y : None
            Ignored.

        Returns
        -------
        self : estimator
            The index.
        """
        X = self._check(X, reset=True)
        return self._restore(X, np.arange(len(X)), len(X))

    def check_library(self):
        """Raise if a library that the index needs is not installed."""

    def _restore(self, X, keys, next_key):
        """Index vectors, which may be none, under keys in ascending order."""
        self.n_features_in_, self.n_vectors_, self._next_key = X.shape[1], len(X), next_key
        self._build(X, keys)
        return self

    def _check(self, X, *, reset, min_samples=1):
        """Return vectors as a contiguous matrix in float32; raise if one is not finite, or has another width."""
        if not reset and _is_as_wanted(X, self) and len(X) >= min_samples:
            return X
        return validate_data(self, X, reset=reset, dtype=np.float32, order="C", ensure_min_samples=min_samples)

    def add(self, X: Matrix) -> np.ndarray:
        """Add vectors.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Vectors.

        Returns
        -------
        keys : ndarray of shape (n_samples,)
            Their keys.
        """
        check_is_fitted(self)
        X = self._check(X, reset=False, min_samples=0)
        keys = np.arange(self._next_key, self._next_key + len(X))
        self._insert(X, keys)
        self._next_key += len(X)
        self.n_vectors_ += len(X)
        return keys

    def remove(self, keys: ArrayLike) -> Self:
        """Remove vectors.

        Parameters
        ----------
        keys : array-like of int
            Keys of the vectors.

        Returns
        -------
        self : estimator
            The index.
        """
        check_is_fitted(self)
        keys = np.asarray(keys)
        if keys.size and keys.dtype.kind not in "iu":
            raise TypeError(f"{type(self).__name__}: keys are whole numbers, got values of the type {keys.dtype}.")
        keys = np.unique(keys.astype(np.int64))
        unknown = keys[~self._contains(keys)]
        if len(unknown):
            raise KeyError(f"{type(self).__name__}: there are no vectors with the keys {unknown[:10].tolist()}.")
        self._delete(keys)
        self.n_vectors_ -= len(keys)
        return self

    def kneighbors(
        self, X: Matrix, n_neighbors: int = 5, return_distance: bool = True
    ) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
        """Find the vectors with the largest inner products.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Queries.

        n_neighbors : int, default=5
            Number of vectors to find.

        return_distance : bool, default=True
            Whether to return the distances.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors)
            1 minus the inner products, in ascending order: cosine distances of vectors of length 1. Only if
            ``return_distance=True``.

        keys : ndarray of shape (n_queries, n_neighbors)
            Keys of the vectors.
        """
        if not hasattr(self, "n_vectors_"):
            # Asked first, as scikit-learn takes as long to find out as a part of an approximate search.
            check_is_fitted(self)
        X = self._check(X, reset=False)
        if not 0 <= n_neighbors <= self.n_vectors_:
            raise ValueError(
                f"{type(self).__name__}: n_neighbors is between 0 and the number of vectors, {self.n_vectors_}, got "
                f"{n_neighbors}."
            )
        if n_neighbors == 0:
            distances, keys = np.empty((len(X), n_neighbors), np.float32), np.empty((len(X), n_neighbors), np.int64)
        else:
            distances, keys = self._search(X, n_neighbors)
        return (distances, keys) if return_distance else keys


def _is_as_wanted(X, index):
    """Return whether an array needs no conversion; scikit-learn's checks take longer than an approximate search."""
    return (
        type(X) is np.ndarray
        and X.dtype == np.float32
        and X.flags.c_contiguous
        and X.shape[1:] == (index.n_features_in_,)
        and not hasattr(index, "feature_names_in_")
        and bool(np.isfinite(X.sum()))
    )


class ExactIndex(VectorIndex):
    """Find the vectors with the largest inner products, exactly.

    Queries are compared with tiles of the vectors by matrix products, and of each tile only what exceeds the best so
    far is looked at. The vectors are one matrix in float32, of which no copy is made.

    Attributes
    ----------
    n_vectors_ : int
        Number of vectors.

    n_features_in_ : int
        Their width.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ApproximateIndex : Faster, and finds most of them.

    Notes
    -----
    Adding takes amortised constant time, since the matrix doubles where it is full. When a vector is removed, the last
    one takes its place. A query of ``fit`` in float32 and C order is not copied.

    Examples
    --------
    >>> from skmm.retrieval import ExactIndex
    >>> index = ExactIndex().fit([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> index.kneighbors([[1.0, 0.1]], n_neighbors=2, return_distance=False)
    array([[0, 2]])
    >>> index.add([[0.8, 0.6]])
    array([3])
    >>> index.remove([0]).kneighbors([[1.0, 0.1]], n_neighbors=2, return_distance=False)
    array([[3, 2]])
    """

    _parameter_constraints: dict = {}

    def _build(self, X, keys):
        self._rows = GrowingArray(X)
        self._key_of_row = GrowingArray(keys)
        row_of_key = np.full(self._next_key, -1)
        row_of_key[keys] = np.arange(len(keys))
        self._row_of_key = GrowingArray(row_of_key)
        # The matrix may be the caller's, which is not written to.
        self._is_shared = True

    def _insert(self, X, keys):
        self._row_of_key.append(np.arange(len(self._rows), len(self._rows) + len(X)))
        self._own()
        self._rows.append(X)
        self._key_of_row.append(keys)

    def _own(self):
        """Copy the matrix before it is changed for the first time."""
        if self._is_shared:
            self._rows, self._is_shared = GrowingArray(self._rows.values.copy()), False

    def _delete(self, keys):
        self._own()
        rows, key_of_row, row_of_key = self._rows.values, self._key_of_row.values, self._row_of_key.values
        size = len(rows) - len(keys)
        removed = row_of_key[keys]
        row_of_key[keys] = -1
        # Rows from the end take the free places.
        free = np.sort(removed[removed < size])
        moved = np.setdiff1d(np.arange(size, len(rows)), removed)
        rows[free], key_of_row[free] = rows[moved], key_of_row[moved]
        row_of_key[key_of_row[free]] = free
        self._rows.truncate(size)
        self._key_of_row.truncate(size)

    def _contains(self, keys):
        in_range = (keys >= 0) & (keys < len(self._row_of_key))
        return in_range & (self._row_of_key.values[np.where(in_range, keys, 0)] >= 0)

    def _keys(self):
        return np.sort(self._key_of_row.values)

    def _vectors(self):
        return self._rows.values[self._row_of_key.values[self._keys()]]

    def _search(self, X, n):
        products, rows = largest_products(X, self._rows.values, n)
        return 1 - products, self._key_of_row.values[rows]


def largest_products(queries, vectors, n):
    """Return the n largest inner products of each query with the rows of a matrix, and these rows, in order.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, n_features), dtype float32
        Queries.

    vectors : ndarray of shape (n_vectors, n_features), dtype float32
        Vectors, n or more of them.

    n : int
        Number of vectors to find.

    Returns
    -------
    products : ndarray of shape (n_queries, n)
        Inner products, in descending order.

    rows : ndarray of shape (n_queries, n)
        Rows of the vectors; of equal products the first comes first.
    """
    products, rows = np.empty((len(queries), n), np.float32), np.empty((len(queries), n), np.int64)
    for start in range(0, len(queries), _QUERIES):
        batch = slice(start, start + _QUERIES)
        products[batch], rows[batch] = _largest_of_batch(queries[batch], vectors, n)
    return products, rows


def _largest_of_batch(queries, vectors, n):
    """Return the largest inner products of few queries, tile by tile of the vectors."""
    width = max(n, _PRODUCTS // len(queries))
    buffer = np.empty((len(queries), min(width, len(vectors))), np.float32)
    best = rows = None
    for start in range(0, len(vectors), width):
        tile = vectors[start : start + width]
        products = np.matmul(queries, tile.T, out=buffer) if len(tile) == buffer.shape[1] else queries @ tile.T
        if best is None:
            rows = np.argpartition(products, len(tile) - n, axis=1)[:, len(tile) - n :]
            best = np.take_along_axis(products, rows, axis=1)
        else:
            best, rows = _merge(best, rows, products, start)
    order = np.lexsort((rows, -best), axis=1)
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _merge(best, rows, products, start):
    """Return the best products so far and their rows, with those of a tile that starts at this row."""
    n_queries, n = best.shape
    queries, columns = np.divmod(np.flatnonzero(products > best.min(axis=1)[:, None]), products.shape[1])
    if len(queries) == 0:
        return best, rows
    counts = np.bincount(queries, minlength=n_queries)
    most = counts.max()
    places = n + np.arange(len(queries)) - np.repeat(np.cumsum(counts) - counts, counts)
    candidates = np.full((n_queries, n + most), -np.inf, np.float32)
    candidate_rows = np.zeros((n_queries, n + most), np.int64)
    candidates[:, :n], candidate_rows[:, :n] = best, rows
    candidates[queries, places], candidate_rows[queries, places] = products[queries, columns], start + columns
    largest = np.argpartition(candidates, most, axis=1)[:, most:]
    return np.take_along_axis(candidates, largest, axis=1), np.take_along_axis(candidate_rows, largest, axis=1)


class ApproximateIndex(VectorIndex):
    """Find most of the vectors with the largest inner products, by a graph of neighbours (HNSW) of usearch.

    Needs ``pip install "skmm[ann]"``. The time of a query grows with the logarithm of the number of vectors.

    Parameters
    ----------
    connectivity : int, default=16
        Neighbours of each vector in the graph. More find more, and take more memory and time.

    expansion_add : int, default=128
        Candidates that are looked at to find the neighbours of a new vector.

    expansion_search : int, default=128
        Candidates that are looked at in a search, at least ``n_neighbors``.

    n_jobs : int or None, default=None
        Threads that build the graph and search. None means 1, -1 all processors.

    Attributes
    ----------
    n_vectors_ : int
        Number of vectors.

    n_features_in_ : int
        Their width.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ExactIndex : Finds all of them.

    Notes
    -----
    Vectors should have about the same length, as inner products of long ones with most others are large. What is
    removed stays in the graph as a node that is never found, until half of the nodes are of this kind: the graph is
    then built again. Up to 1,000 vectors are all compared. Where the graph yields fewer than ``n_neighbors`` vectors,
    the query is answered exactly.

    References
    ----------
    .. [1] Y. A. Malkov and D. A. Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical
       navigable small world graphs", IEEE Transactions on Pattern Analysis and Machine Intelligence 42 (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.retrieval import ApproximateIndex
    >>> X = np.random.default_rng(0).normal(size=(1000, 16))
    >>> index = ApproximateIndex().fit(X / np.linalg.norm(X, axis=1, keepdims=True))
    >>> index.kneighbors(X[:3], n_neighbors=1, return_distance=False).ravel()
    array([0, 1, 2])
    """

    _parameter_constraints: dict = {
        "connectivity": [Interval(Integral, 2, None, closed="left")],
        "expansion_add": _POSITIVE,
        "expansion_search": _POSITIVE,
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        connectivity: int = 16,
        *,
        expansion_add: int = 128,
        expansion_search: int = 128,
        n_jobs: int | None = None,
    ):
        self.connectivity = connectivity
        self.expansion_add = expansion_add
        self.expansion_search = expansion_search
        self.n_jobs = n_jobs

    def check_library(self):
        """Raise if usearch is not installed."""
        import_optional_dependency("usearch.index", "ann")

    def _make_graph(self):
        usearch = import_optional_dependency("usearch.index", "ann")
        return usearch.Index(
            ndim=self.n_features_in_,
            metric="ip",
            dtype="f32",
            connectivity=self.connectivity,
            expansion_add=self.expansion_add,
            expansion_search=self.expansion_search,
        )

    @property
    def _threads(self):
        # 0 stands for all processors.
        return 1 if self.n_jobs is None else max(self.n_jobs, 0)

    def _build(self, X, keys):
        self._graph, self._n_removed = self._make_graph(), 0
        self._insert(X, keys)

    def _restore(self, X, keys, next_key, graph=None):
        if graph is None:
            return super()._restore(X, keys, next_key)
        self.n_features_in_, self.n_vectors_, self._next_key = X.shape[1], len(X), next_key
        self._load(graph)
        return self

    def _load(self, graph):
        """Load a graph from bytes, which must be sound: damaged ones can crash the process."""
        # Nodes of removed vectors are not written.
        self._graph, self._n_removed = self._make_graph(), 0
        self._graph.load(graph)

    def graph_bytes(self):
        """Return the graph as bytes.

        Returns
        -------
        graph : bytes
            What the library writes, vectors included.
        """
        check_is_fitted(self)
        return bytes(self._graph.save())

    def _insert(self, X, keys):
        self._graph.add(keys, X, threads=self._threads)

    def _delete(self, keys):
        self._graph.remove(keys)
        self._n_removed += len(keys)
        remaining = self.n_vectors_ - len(keys)
        if self._n_removed > _REMOVED_PER_VECTOR * remaining:
            self._build(self._vectors(), self._keys())

    def _contains(self, keys):
        # Keys are unsigned in the library.
        return (keys >= 0) & self._graph.contains(np.maximum(keys, 0))

    def _keys(self):
        return np.sort(np.fromiter(self._graph.keys, dtype=np.int64, count=len(self._graph)))

    def _vectors(self):
        keys = self._keys()
        if len(keys) == 0:
            return np.empty((0, self.n_features_in_), np.float32)
        return np.vstack(self._graph.get(keys))

    def _search(self, X, n):
        expansion = max(self.expansion_search, n)
        if self._graph.expansion_search != expansion:
            self._graph.expansion_search = expansion
        matches = self._graph.search(X, n, threads=self._threads, exact=self.n_vectors_ <= _COMPARED_ALL)
        if len(X) == 1 and len(matches) == n:
            # One query has no dimension of its own, and no places for what is not found.
            return matches.distances[None], matches.keys[None].astype(np.int64)
        if len(X) == 1:
            keys, distances, short = np.empty((1, n), np.int64), np.empty((1, n), np.float32), np.array([0])
        else:
            keys, distances = matches.keys.astype(np.int64), matches.distances
            short = np.flatnonzero(matches.counts < n)
        if len(short):
            products, rows = largest_products(X[short], self._vectors(), n)
            keys[short], distances[short] = self._keys()[rows], 1 - products
        return distances, keys

    def __getstate__(self):
        state = super().__getstate__()
        if "_graph" in state:
            # The library's object cannot be pickled.
            state = {**state, "_graph": self.graph_bytes()}
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if isinstance(state.get("_graph"), bytes):
            self._load(state["_graph"])


class AdaptedIndex(ExactIndex):
    """Search by any estimator with ``fit`` and ``kneighbors``, which is fitted again whenever vectors change.

    All vectors should have the same length, and all queries: inner products, cosines and Euclidean distances then
    order them alike. The estimator only finds; the inner products are computed here.

    Parameters
    ----------
    estimator : estimator with ``fit`` and ``kneighbors``
        Cloned before it is fitted.
    """

    def __init__(self, estimator):
        self.estimator = estimator

    def _build(self, X, keys):
        super()._build(X, keys)
        self._refit()

    def _insert(self, X, keys):
        super()._insert(X, keys)
        self._refit()

    def _delete(self, keys):
        super()._delete(keys)
        self._refit()

    def _refit(self):
        if len(self._rows):
            self.estimator_ = clone(self.estimator).fit(self._rows.values)

    def _search(self, X, n):
        rows = np.asarray(self.estimator_.kneighbors(X, n_neighbors=n, return_distance=False))
        if rows.shape != (len(X), n):
            raise ValueError(
                f"{type(self.estimator).__name__}.kneighbors returned an array of shape {rows.shape} for {len(X)} "
                f"queries and n_neighbors={n}; it must return the positions of the neighbours, of shape "
                f"{(len(X), n)}."
            )
        products = np.einsum("qd,qnd->qn", X, self._rows.values[rows])
        order = np.argsort(-products, axis=1, kind="stable")
        return 1 - np.take_along_axis(products, order, axis=1), self._key_of_row.values[
            np.take_along_axis(rows, order, axis=1)
        ]


def make_index(index):
    """Return an unfitted index for the parameter of a retriever."""
    if isinstance(index, str):
        return {"exact": ExactIndex, "ann": ApproximateIndex}[index]()
    return clone(index) if isinstance(index, VectorIndex) else AdaptedIndex(index)
