"""Reranking of what a search has found."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer

from skmm import CrossModalRetriever

RNG = np.random.default_rng(0)
N = 40
X = pd.DataFrame({f"x{i}": RNG.normal(size=N) for i in range(3)}).assign(
    name=[f"cat {'abcdefgh'[i % 8]} dog {'ijkl'[i % 4]}" for i in range(N)], price=np.arange(N)
)
MODALITIES = [("text", TfidfVectorizer(token_pattern=r"\w"), "name"), ("table", "passthrough", ["x0", "x1", "x2"])]
QUERIES = pd.DataFrame({"name": ["cat a dog i", "cat b dog j"]}, index=["one", "two"])


def fit(rerank, **options):
    return CrossModalRetriever(MODALITIES, "cca", rerank=rerank, **options).fit(X)


@pytest.fixture(scope="module")
def cross_encoder(make_text_model, tmp_path_factory):
    """Folder of a tiny random cross-encoder."""
    pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = make_text_model(tmp_path_factory.mktemp("models") / "plain", plain=True)
    network = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    target = tmp_path_factory.mktemp("models") / "cross"
    network.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return str(target)


def test_a_cross_encoder_scores_pairs_of_items(cross_encoder):
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(cross_encoder, device="cpu")
    for rerank in (encoder, cross_encoder):
        retriever = fit(rerank, n_rerank=10)
        first = clone(retriever).set_params(rerank=None).fit(X)
        for queries, texts in ((QUERIES, QUERIES["name"]), ("cat a dog i", ["cat a dog i"])):
            results = retriever.search(queries, source="text", target="text", n=4)
            candidates = first.search(queries, source="text", target="text", n=10)
            for (_, answer), (_, before), text in zip(
                results.groupby("query", sort=False), candidates.groupby("query", sort=False), texts, strict=True
            ):
                scores = encoder.predict([(text, name) for name in before["name"]])
                np.testing.assert_allclose(answer["score"], -np.sort(-scores)[:4], atol=1e-5)
                assert set(answer["label"]) <= set(before["label"])
                assert answer["rank"].tolist() == [1, 2, 3, 4]


def test_a_callable_gets_rows():
    seen = []

    def by_price(queries, candidates):
        seen.append((queries, candidates))
        return candidates["price"]

    results = fit(by_price, n_rerank=15).search(QUERIES, target="table", n=3)
    queries, candidates = seen[0]
    assert len(seen) == 1
    assert len(queries) == len(candidates) == 30
    assert list(queries.columns) == ["name"]
    assert list(candidates.columns) == list(X.columns)
    for label, answer in results.groupby("query"):
        prices = candidates["price"][queries["name"] == QUERIES.loc[label, "name"]]
        assert answer["price"].tolist() == sorted(prices)[::-1][:3]
        assert answer["score"].tolist() == answer["price"].tolist()
    assert len(fit(by_price, n_rerank=2).search(QUERIES, n=9)) == 18


def test_a_cross_encoder_needs_one_item_on_each_side(cross_encoder):
    retriever = fit(cross_encoder)
    with pytest.raises(ValueError, match="name one source and one target, of one column each"):
        retriever.search(QUERIES, target=["text", "table"])
    with pytest.raises(ValueError, match="pass a callable"):
        retriever.search(QUERIES, target="table")


@pytest.mark.parametrize("scores", [[1.0], [[1.0] * 20], [np.nan] * 20])
def test_scores_are_checked(scores):
    with pytest.raises(ValueError, match="rerank must return one score, and no NaN, for each of 20 pairs"):
        fit(lambda queries, candidates: scores, n_rerank=10).search(QUERIES)


def test_an_empty_gallery_is_not_scored():
    def fail(queries, candidates):
        raise AssertionError

    assert fit(fail).remove(range(N)).search(QUERIES).empty
