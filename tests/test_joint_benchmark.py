"""The measures of the benchmark of joint embeddings, and what it leaves of pairs and labels."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import average_precision_score, top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield importlib.import_module("joint")


def test_measures_are_those_of_scikit_learn(benchmark):
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(60, 4))
    items, classes = queries + rng.normal(size=(60, 4)), rng.integers(3, size=60)
    rows = np.arange(60)
    measures = benchmark.retrieval(queries, items, rows, rows, classes, classes)
    similarity = cosine_similarity(queries, items)
    for k in (1, 5, 10):
        assert_allclose(measures[f"recall@{k}"], top_k_accuracy_score(np.arange(60), similarity, k=k))
    precision = [average_precision_score(classes == label, row) for label, row in zip(classes, similarity, strict=True)]
    assert_allclose(measures["MAP"], np.mean(precision))
    one_relevant = [average_precision_score(np.arange(60) == i, row) for i, row in enumerate(similarity)]
    assert_allclose(measures["MRR"], np.mean(one_relevant))
    assert benchmark.retrieval(np.zeros((60, 4)), items, rows, rows, classes, classes)["recall@10"] == 0
    # Of several items that belong to a query, the nearest counts.
    several = benchmark.retrieval(queries, items, rows // 2, rows // 2, classes, classes)
    assert_allclose(several["recall@1"], np.mean(similarity.argmax(axis=1) // 2 == rows // 2))


def test_shares_of_pairs_and_labels(benchmark):
    columns = {"text": slice(0, 2), "image": slice(2, 5)}
    X, y = benchmark.weaken(np.ones((1000, 5)), np.arange(1000), columns, 0.1, 0.1, np.random.default_rng(0))
    missing = np.isnan(X)
    assert_array_equal(missing.sum(axis=0), 450)
    assert (~missing.any(axis=1)).sum() == 100
    assert not missing.all(axis=1).any()
    assert 60 < (y >= 0).sum() < 140
    assert (y[y >= 0] == np.flatnonzero(y >= 0)).all()
