"""Metrics of retrieval against all orders of ties, against scikit-learn, and from embeddings."""

import pickle
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn.metrics import average_precision_score, ndcg_score, top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GridSearchCV, cross_validate

from skmm import CCAFusion, ModalityFuser, metrics
from skmm.metrics import (
    hit_at_k,
    mean_average_precision,
    mean_reciprocal_rank,
    median_rank,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    retrieval_report,
    retrieval_scorer,
)


def ordered_metrics(relevance, k):
    """Metrics of one query from their definitions, whose items stand in order."""
    relevant = relevance > 0
    ranks = 1 + np.flatnonzero(relevant)
    gains = relevance / np.log2(1 + np.arange(1, len(relevance) + 1))
    best = np.sort(relevance)[::-1] / np.log2(1 + np.arange(1, len(relevance) + 1))
    return [
        float(ranks[0] <= k),
        (ranks <= k).sum() / len(ranks),
        (ranks <= k).sum() / k,
        np.mean(np.arange(1, len(ranks) + 1) / ranks),
        1 / ranks[0],
        gains[:k].sum() / best[:k].sum(),
        gains.sum() / best.sum(),
        ranks[0],
    ]


def expected_metrics(relevance, scores, k):
    """The mean of these metrics over all orders in which no score is below the next."""
    orders = [list(order) for order in permutations(range(len(scores))) if (np.diff(scores[list(order)]) <= 0).all()]
    return np.mean([ordered_metrics(relevance[order], k) for order in orders], axis=0)


def computed_metrics(y_true, y_score, k):
    with_k = [function(y_true, y_score, k=k) for function in (hit_at_k, recall_at_k, precision_at_k)]
    without_k = [function(y_true, y_score) for function in (mean_average_precision, mean_reciprocal_rank)]
    return [*with_k, *without_k, ndcg_at_k(y_true, y_score, k=k), ndcg_at_k(y_true, y_score)]


@pytest.mark.parametrize("k", [1, 2, 4, 6])
@pytest.mark.parametrize("few", [0, 16])
def test_ties_are_expected_values_over_all_orders(k, few, monkeypatch):
    monkeypatch.setattr(metrics, "_FEW", few)
    rng = np.random.default_rng(k)
    y_true, y_score = rng.integers(3, size=(25, 6)), rng.integers(-1, 2, size=(25, 6)).astype(float)
    y_true[:, 0] |= ~y_true.any(axis=1)
    y_true = np.abs(y_true)
    expected = np.array([expected_metrics(*rows, k) for rows in zip(y_true, y_score, strict=True)])
    assert_allclose(computed_metrics(y_true, y_score, k), expected.mean(axis=0)[:-1], rtol=1e-12)
    assert median_rank(y_true, y_score) == pytest.approx(np.median(expected[:, -1]))


def test_all_scores_equal():
    y_true = np.zeros((1, 2000))
    y_true[0, :3] = 1
    scores = np.zeros((1, 2000))
    assert recall_at_k(y_true, scores, k=500) == pytest.approx(0.25)
    assert hit_at_k(y_true, scores, k=500) == pytest.approx(1 - 1500 * 1499 * 1498 / (2000 * 1999 * 1998))
    assert median_rank(y_true, scores) == pytest.approx(2001 / 4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equal_to_scikit_learn(dtype):
    rng = np.random.default_rng(0)
    y_true = rng.integers(4, size=(50, 300)) * (rng.random((50, 300)) < 0.2)
    y_true[:25, 1:] = 0
    y_true[:, 0] = 1
    # Without ties; most are negative.
    y_score = (rng.permuted(np.tile(np.arange(300.0), (50, 1)), axis=1) - 280).astype(dtype)
    precision = [average_precision_score(t > 0, s) for t, s in zip(y_true, y_score, strict=True)]
    assert_allclose(mean_average_precision(y_true, y_score), np.mean(precision), atol=1e-9)
    tied = np.round(y_score / 7)
    for k in (None, 1, 10, 1000):
        assert_allclose(ndcg_at_k(y_true, y_score, k=k), ndcg_score(y_true, y_score, k=k), atol=1e-9)
        assert_allclose(ndcg_at_k(y_true, tied, k=k), ndcg_score(y_true, tied, k=k), atol=1e-9)
    labels = rng.integers(300, size=50)
    one_hot = sparse.csr_array(np.eye(300)[labels])
    for k in (1, 5, 50):
        expected = top_k_accuracy_score(labels, y_score, k=k, labels=np.arange(300))
        assert_allclose(hit_at_k(one_hot, y_score, k=k), expected)
        assert recall_at_k(one_hot, y_score, k=k) == hit_at_k(one_hot, y_score, k=k)
    assert mean_reciprocal_rank(one_hot, y_score) == pytest.approx(mean_average_precision(one_hot, y_score))


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    y_true, y_score = rng.random((40, 30)) < 0.1, rng.integers(9, size=(40, 30))
    whole = computed_metrics(y_true, y_score, 3)
    monkeypatch.setattr(metrics, "_BLOCK", 100)
    assert_allclose(computed_metrics(y_true, y_score, 3), whole, rtol=1e-14)


def test_queries_without_relevant_items_are_left_out():
    y_true, y_score = np.array([[0, 1, 0], [0, 0, 0]]), np.array([[0.1, 0.5, 0.9], [0.1, 0.5, 0.9]])
    assert mean_reciprocal_rank(y_true, y_score) == mean_reciprocal_rank(y_true[:1], y_score[:1]) == 0.5
    with pytest.raises(ValueError, match="No query has a relevant item"):
        mean_reciprocal_rank(y_true[1:], y_score[1:])


def test_wrong_matrices_raise():
    with pytest.raises(ValueError, match=r"y_true has the shape \(2, 3\) and y_score \(2, 2\)"):
        recall_at_k(np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="y_true is negative in some cells"):
        ndcg_at_k([[-1, 1]], [[1, 2]])
    with pytest.raises(ValueError, match="y_score contains NaN"):
        median_rank([[0, 1]], [[np.nan, 1]])
    with pytest.raises(ValueError, match="'k' parameter"):
        hit_at_k([[0, 1]], [[0, 1]], k=0)


def embeddings(n=80, dtype=np.float64):
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(n, 4)).astype(dtype)
    return texts, texts + rng.normal(size=(n, 4)).astype(dtype), rng.integers(6, size=n)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("grouped", [False, True])
def test_report_equals_the_metrics_of_the_whole_matrix(metric, grouped, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK", 1000)
    texts, images, groups = embeddings()
    images, item_groups = (images[:70], groups[:70]) if grouped else (images, None)
    report = retrieval_report(
        texts,
        images,
        query_groups=groups if grouped else None,
        item_groups=item_groups,
        metric=metric,
        names=("text", "image"),
        output_dict=True,
    )
    y_score = cosine_similarity(texts, images) if metric == "cosine" else texts @ images.T
    y_true = groups[:, None] == item_groups if grouped else np.eye(80)
    for direction, truth, scores in (("text -> image", y_true, y_score), ("image -> text", y_true.T, y_score.T)):
        for k in (1, 5, 10):
            for function in (hit_at_k, recall_at_k, precision_at_k, ndcg_at_k):
                name = f"{function.__name__.partition('_')[0]}@{k}"
                assert_allclose(report[direction][name], function(truth, scores, k=k), atol=1e-9)
        assert_allclose(report[direction]["map"], mean_average_precision(truth, scores), atol=1e-9)
        assert_allclose(report[direction]["mrr"], mean_reciprocal_rank(truth, scores), atol=1e-9)
        assert report[direction]["median_rank"] == median_rank(truth, scores)
        assert report[direction]["n_queries"] == len(truth)


def test_one_set_of_groups_serves_both_sides():
    texts, images, groups = embeddings()
    expected = retrieval_report(texts, images, query_groups=groups, item_groups=groups)
    assert retrieval_report(texts, images, query_groups=groups) == expected
    assert retrieval_report(texts, images, item_groups=groups) == expected


def test_copies_are_tied_whatever_the_rounding():
    texts, images, _ = embeddings(300, np.float32)
    report = retrieval_report(np.repeat(texts, 3, axis=0), np.repeat(images, 3, axis=0), output_dict=True)
    single = retrieval_report(texts, images, output_dict=True)
    for direction in report:
        # Each rank r becomes the mean of 3 r - 2, 3 r - 1 and 3 r.
        assert report[direction]["median_rank"] == pytest.approx(3 * single[direction]["median_rank"] - 1)
        assert report[direction]["hit@1"] == pytest.approx(single[direction]["hit@1"] / 3)


def test_missing_rows_are_left_out():
    texts, images, groups = embeddings()
    with_gaps, with_zeros = texts.copy(), images.copy()
    with_gaps[:3] = np.nan
    with_zeros[3:5] = 0
    assert retrieval_report(with_gaps, with_zeros) == retrieval_report(texts[5:], images[5:])
    here, there = np.r_[3:80], np.r_[0:3, 5:80]
    by_group = retrieval_report(with_gaps, with_zeros, query_groups=groups)
    options = {"query_groups": groups[here], "item_groups": groups[there]}
    assert by_group == retrieval_report(texts[here], images[there], **options)
    with pytest.raises(ValueError, match="All rows of 'items' are NaN or 0"):
        retrieval_report(texts, np.zeros_like(texts), query_groups=groups)
    with_gaps[9, 0] = np.nan
    with pytest.raises(ValueError, match="Rows of 'queries' are NaN in some features only"):
        retrieval_report(with_gaps, images)


def test_wrong_embeddings_raise():
    texts, images, groups = embeddings()
    with pytest.raises(ValueError, match="queries have 4 features and items 3"):
        retrieval_report(texts, images[:, :3])
    with pytest.raises(ValueError, match="There are 80 queries and 79 items, so rows do not say"):
        retrieval_report(texts, images[1:])
    with pytest.raises(ValueError, match="both query_groups and item_groups are needed"):
        retrieval_report(texts, images[1:], query_groups=groups)
    with pytest.raises(ValueError, match="groups must have one entry for each of the 80 rows"):
        retrieval_report(texts, images, query_groups=groups[1:])
    with pytest.raises(ValueError, match="No query has a relevant item"):
        retrieval_report(texts, images, query_groups=groups, item_groups=groups + 100)
    with pytest.raises(ValueError, match="groups are missing in some rows; leave these rows out"):
        retrieval_report(texts, images, query_groups=["a", "b"] * 38 + ["a", None, None, None])
    with pytest.raises(ValueError, match=r"k must be a number of items from 1 up, or several, got \[0\]"):
        retrieval_report(texts, images, k=[0])
    with pytest.raises(ValueError, match="names must be two"):
        retrieval_report(texts, images, names=["text"])


def paired_frame(n=150):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(n, 4))
    X = pd.DataFrame(shared @ rng.normal(size=(4, 12)) + 0.3 * rng.normal(size=(n, 12))).add_prefix("x")
    return X.assign(photo=np.arange(n) // 3), np.arange(n) // 3


PAIRED = [
    ("text", "passthrough", [f"x{i}" for i in range(5)]),
    ("image", "passthrough", [f"x{i}" for i in range(5, 12)]),
]


class TestScorer:
    def test_of_frames_and_arrays(self):
        X, _ = paired_frame()
        by_position = [("text", "passthrough", slice(0, 5)), ("image", "passthrough", slice(5, 12))]
        scorer = retrieval_scorer("mrr", source="text", target="image")
        for table, modalities in ((X, PAIRED), (X.to_numpy(), by_position)):
            fuser = ModalityFuser(modalities, CCAFusion(3)).fit(table)
            cells = X.to_numpy()
            both = fuser.transform_modality(cells[:, :5], "text"), fuser.transform_modality(cells[:, 5:12], "image")
            report = retrieval_report(*both, output_dict=True)["queries -> items"]
            assert scorer(fuser, table) == report["mrr"]
            for name in ("hit@5", "recall@1", "precision@10", "ndcg@5", "map"):
                assert retrieval_scorer(name, source="text", target="image")(fuser, table) == report[name]
            ranks = retrieval_scorer("neg_median_rank", source="text", target="image")
            assert ranks(fuser, table) == -report["median_rank"]

    @pytest.mark.parametrize("groups", ["photo", 12, lambda X, y: y])
    def test_groups(self, groups):
        X, y = paired_frame()
        fuser = ModalityFuser(PAIRED, CCAFusion(3)).fit(X)
        both = fuser.transform_modality(X, "text"), fuser.transform_modality(X, "image")
        expected = retrieval_report(*both, query_groups=y, output_dict=True)["queries -> items"]["recall@10"]
        if groups == 12:
            by_position = [("text", "passthrough", slice(0, 5)), ("image", "passthrough", slice(5, 12))]
            X = X.to_numpy()
            fuser = ModalityFuser(by_position, CCAFusion(3)).fit(X)
        scorer = retrieval_scorer("recall@10", source="text", target="image", groups=groups)
        assert scorer(fuser, X, y) == pytest.approx(expected)

    def test_missing_modalities_are_left_out(self):
        X, _ = paired_frame()
        fuser = ModalityFuser(PAIRED, CCAFusion(3)).fit(X)
        scorer = retrieval_scorer("mrr", source="text", target="image")
        with_gaps = X.copy()
        with_gaps.iloc[:20, :5] = np.nan
        assert scorer(fuser, with_gaps) == pytest.approx(scorer(fuser, X.iloc[20:]))

    def test_in_a_search_and_in_other_processes(self):
        X, _ = paired_frame()
        scorer = retrieval_scorer("recall@10", source="text", target="image")
        assert (
            repr(pickle.loads(pickle.dumps(scorer))) == "retrieval_scorer('recall@10', source='text', target='image')"
        )
        search = GridSearchCV(
            ModalityFuser(PAIRED, CCAFusion()), {"fusion__n_components": [1, 4]}, scoring=scorer, cv=3
        )
        assert search.fit(X).best_params_ == {"fusion__n_components": 4}
        scoring = {"recall": scorer, "back": retrieval_scorer("mrr", source="image", target="text")}
        assert set(cross_validate(ModalityFuser(PAIRED, "cca"), X, scoring=scoring, cv=2)) > {
            "test_recall",
            "test_back",
        }

    @pytest.mark.parametrize("metric", ["recall", "recall@0", "recall@x", "map@3", "median_rank", "accuracy"])
    def test_unknown_metrics(self, metric):
        with pytest.raises(ValueError, match=f"metric='{metric}' is no metric of retrieval; pass one of "):
            retrieval_scorer(metric, source="text", target="image")

    def test_unknown_columns_and_modalities(self):
        X, _ = paired_frame()
        fuser = ModalityFuser(PAIRED, CCAFusion(3)).fit(X)
        with pytest.raises(ValueError, match=r"there is no modality 'sound'; the modalities are \['text', 'image'\]"):
            retrieval_scorer("mrr", source="text", target="sound")(fuser, X)
        with pytest.raises(ValueError, match=r"groups='who'\): X has no column 'who'; pass its name or position"):
            retrieval_scorer("mrr", source="text", target="image", groups="who")(fuser, X)

    def test_without_a_joint_embedding(self):
        X, _ = paired_frame()
        with pytest.raises(TypeError, match="ModalityFuser has no transform_modality, which retrieval needs"):
            retrieval_scorer("mrr", source="text", target="image")(ModalityFuser(PAIRED).fit(X), X)
