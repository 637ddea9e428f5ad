"""Indexes of vectors against brute force."""

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors

from skmm.retrieval import ApproximateIndex, ExactIndex
from skmm.retrieval._index import AdaptedIndex, largest_products

RNG = np.random.default_rng(0)
WIDTH = 6


def unit(n, width=WIDTH, rng=RNG):
    vectors = rng.normal(size=(n, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make(kind):
    if kind == "ann":
        pytest.importorskip("usearch")
        return ApproximateIndex()
    return ExactIndex() if kind == "exact" else AdaptedIndex(NearestNeighbors())


KINDS = pytest.mark.parametrize("kind", ["exact", "ann", "adapted"])


def check_against_brute_force(index, vectors, queries, n):
    """Compare distances, and what is at the keys, with all products; vectors is a dict of key to vector."""
    keys = np.array(list(vectors))
    products = queries.astype(np.float64) @ np.array(list(vectors.values()), dtype=np.float64).T
    distances, found = index.kneighbors(queries, n)
    np.testing.assert_allclose(1 - distances, -np.sort(-products, axis=1)[:, :n], atol=1e-6)
    assert found.dtype == np.int64
    for row, keys_of_query in enumerate(found):
        assert len(set(keys_of_query)) == n
        chosen = [int(np.flatnonzero(keys == key)[0]) for key in keys_of_query]
        np.testing.assert_allclose(1 - distances[row], products[row, chosen], atol=1e-6)


@pytest.mark.parametrize(("n_queries", "n_vectors", "n"), [(1, 9, 9), (3, 5000, 2500), (300, 9000, 7), (2, 1, 1)])
def test_largest_products_are_those_of_brute_force(n_queries, n_vectors, n):
    queries, vectors = unit(n_queries), unit(n_vectors)
    products, rows = largest_products(queries, vectors, n)
    expected = queries @ vectors.T
    np.testing.assert_allclose(products, -np.sort(-expected, axis=1)[:, :n], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, axis=1), products, atol=1e-6)


def test_more_tiles_than_one_are_merged(monkeypatch):
    monkeypatch.setattr("skmm.retrieval._index._PRODUCTS", 1)
    queries, vectors = unit(20), unit(500)
    np.testing.assert_array_equal(
        largest_products(queries, vectors, 5)[1], np.argsort(-(queries @ vectors.T), axis=1)[:, :5]
    )


def test_of_equal_vectors_the_first_comes_first():
    vectors = np.repeat(unit(3), 4, axis=0)
    rows = largest_products(vectors[:1], vectors, 12)[1][0]
    np.testing.assert_array_equal(rows.reshape(3, 4), np.sort(rows.reshape(3, 4), axis=1))


actions = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9)),
        st.tuples(st.just("remove"), st.floats(0, 1)),
        st.just(("pickle", None)),
    ),
    max_size=12,
)


@KINDS
@settings(max_examples=40, deadline=None)
@given(first=st.integers(1, 12), actions=actions, seed=st.integers(0, 2**16))
def test_any_sequence_of_changes_equals_brute_force(kind, first, actions, seed):
    rng = np.random.default_rng(seed)
    X = unit(first, rng=rng)
    index, vectors = make(kind).fit(X), dict(enumerate(X))
    for action, argument in actions:
        if action == "add":
            X = unit(argument, rng=rng)
            vectors |= dict(zip(index.add(X).tolist(), X, strict=True))
        elif action == "remove":
            removed = [key for key in vectors if rng.random() < argument]
            index.remove(removed)
            vectors = {key: vector for key, vector in vectors.items() if key not in removed}
        else:
            index = pickle.loads(pickle.dumps(index))
        assert index.n_vectors_ == len(vectors)
    if vectors:
        for n in {1, len(vectors)}:
            check_against_brute_force(index, vectors, unit(3, rng=rng), n)
            check_against_brute_force(index, vectors, unit(1, rng=rng), n)
    else:
        assert index.kneighbors(unit(2), 0)[1].shape == (2, 0)


@KINDS
def test_order_and_dtype_of_queries_do_not_matter(kind):
    X, queries = unit(300), unit(40)
    index = make(kind).fit(X)
    expected = index.kneighbors(queries, 5, return_distance=False)
    wide = np.repeat(queries, 2, axis=1)[:, ::2]
    for form in (queries.astype(np.float64), np.asfortranarray(queries), np.asfortranarray(queries, np.float64), wide):
        np.testing.assert_array_equal(index.kneighbors(form, 5, return_distance=False), expected)
    np.testing.assert_array_equal(make(kind).fit(np.asfortranarray(X, np.float64)).kneighbors(queries, 5)[1], expected)


@KINDS
def test_errors(kind):
    index = make(kind).fit(unit(4))
    for width in (WIDTH - 1, WIDTH + 1):
        for method in (index.kneighbors, index.add):
            with pytest.raises(ValueError, match=f"X has {width} features, but .* is expecting {WIDTH}"):
                method(unit(2, width))
    with pytest.raises(ValueError, match=r"number of vectors, 4, got 5"):
        index.kneighbors(unit(2), 5)
    with pytest.raises(ValueError, match="NaN"):
        index.kneighbors(np.full((1, WIDTH), np.nan))
    with pytest.raises(ValueError, match="infinity"):
        index.add(np.full((1, WIDTH), np.inf))
    with pytest.raises(KeyError, match=r"no vectors with the keys \[9\]"):
        index.remove([1, 9])
    with pytest.raises(KeyError, match=r"no vectors with the keys \[-1\]"):
        index.remove([-1])
    index.remove([1])
    with pytest.raises(KeyError, match=r"no vectors with the keys \[1\]"):
        index.remove([1])


def test_the_callers_matrix_is_neither_copied_nor_changed():
    X = unit(10)
    original = X.copy()
    index = ExactIndex().fit(X)
    assert np.shares_memory(index._rows.values, X)
    index.remove([0, 3])
    index.add(unit(30))
    np.testing.assert_array_equal(X, original)


def test_adding_copies_each_row_few_times():
    index, buffers = ExactIndex().fit(unit(1)), set()
    for row in unit(1000):
        index.add(row[None])
        buffers.add(id(index._rows._buffer))
    assert len(buffers) <= 12


def test_recall_and_removal_of_most(monkeypatch):
    pytest.importorskip("usearch")
    X, queries = unit(4000, 24), unit(200, 24)
    index = ApproximateIndex(expansion_search=256).fit(X)

    def recall(rows):
        exact = rows[largest_products(queries, X[rows], 10)[1]]
        found = index.kneighbors(queries, 10, return_distance=False)
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])

    assert recall(np.arange(4000)) > 0.9
    graph = index._graph
    index.remove(np.arange(1900))
    assert index._graph is graph
    assert recall(np.arange(1900, 4000)) > 0.9
    index.remove(np.arange(1900, 3900))
    assert index._graph is not graph
    assert recall(np.arange(3900, 4000)) > 0.99


def test_a_graph_that_finds_too_few_is_searched_exactly():
    pytest.importorskip("usearch")

    class Blind:
        def __init__(self, graph):
            self.graph = graph

        def search(self, X, n, **options):
            return self.graph.search(X, 1, **options)

        def __getattr__(self, name):
            return getattr(self.graph, name)

        def __len__(self):
            return len(self.graph)

    X, queries = unit(50), unit(1)
    index = ApproximateIndex().fit(X)
    index._graph = Blind(index._graph)
    np.testing.assert_array_equal(index.kneighbors(queries, 5)[1], ExactIndex().fit(X).kneighbors(queries, 5)[1])


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(ImportError, match=r"skmm\[ann\]"):
        ApproximateIndex().fit(unit(3))


def test_the_library_has_the_defects_that_are_guarded_against():
    # If this fails, a guard may have become superfluous.
    usearch = pytest.importorskip("usearch.index")
    index = usearch.Index(ndim=WIDTH, metric="ip", dtype="f32")
    index.add(np.arange(5, 8), unit(3))
    assert (index.search(unit(2), 6).keys[:, 3:] == 0).all()
    with pytest.raises(TypeError):
        pickle.dumps(index)


def test_an_index_that_returns_too_few_neighbours_is_an_error():
    class Short(NearestNeighbors):
        def kneighbors(self, X, n_neighbors, return_distance):
            return super().kneighbors(X, max(1, n_neighbors - 1), return_distance=return_distance)

    with pytest.raises(ValueError, match=r"Short.kneighbors returned an array of shape \(2, 2\)"):
        AdaptedIndex(Short()).fit(unit(9)).kneighbors(unit(2), 3)


def test_clones():
    index = clone(ApproximateIndex(8, n_jobs=-1))
    assert index.get_params()["connectivity"] == 8
    assert index._threads == 0
