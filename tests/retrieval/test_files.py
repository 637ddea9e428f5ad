"""Retrievers in folders."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

from skmm import CrossModalRetriever, ImageEncoder, TextEncoder, save_bundle

pytest.importorskip("skops")

RNG = np.random.default_rng(0)
N = 30
X = pd.DataFrame({f"{name}{i}": RNG.normal(size=N) for name in "ab" for i in range(3)}).assign(
    word=[f"word{i % 5}" if i % 4 else None for i in range(N)],
    count=np.arange(N),
    flag=np.arange(N) % 2 == 0,
    day=pd.date_range("2024-01-01", periods=N),
    picture=pd.Series([RNG.integers(256, size=(i % 3 + 1, 2), dtype=np.uint8) for i in range(N)], dtype=object),
    mixed=pd.Series([None, 1, 2.5, "x", True] * 6, dtype=object),
)
MODALITIES = [(name, "passthrough", [f"{name}{i}" for i in range(3)]) for name in "ab"]


class Vectorizer(TfidfVectorizer):
    """A transformer of a user."""


def fit(**options):
    return CrossModalRetriever(MODALITIES, "cca", **options).fit(X, np.arange(N) % 2)


def saved(retriever, tmp_path, **options):
    retriever.save(tmp_path / "saved", **options)
    return CrossModalRetriever.load(tmp_path / "saved")


@pytest.mark.parametrize("index", ["exact", "ann", NearestNeighbors()], ids=str)
def test_a_loaded_retriever_answers_alike_and_goes_on(index, tmp_path):
    if index == "ann":
        pytest.importorskip("usearch")
    retriever = fit(index=index).remove([3, 4, 5])
    before = retriever.search(X, source="a", target="b")
    loaded = saved(retriever, tmp_path)
    pd.testing.assert_frame_equal(loaded.search(X, source="a", target="b"), before)
    np.testing.assert_array_equal(loaded.predict_proba(X), retriever.predict_proba(X))
    pd.testing.assert_frame_equal(retriever.search(X, source="a", target="b"), before)
    for each in (retriever, loaded):
        each.add(X.iloc[3:5], [0, 1]).remove(range(6, 12))
    assert loaded.labels_.tolist() == retriever.labels_.tolist()
    pd.testing.assert_frame_equal(loaded.search(X, n=4), retriever.search(X, n=4))


def test_no_file_is_a_pickle(tmp_path):
    fit().save(tmp_path / "saved")
    names = [path.name for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert sorted(names) == [
        "arrays.npz",
        "estimator.skops",
        "items.json",
        "labels.json",
        "manifest.json",
        "versions.json",
    ]
    assert b"pickle" not in (tmp_path / "saved" / "arrays.npz").read_bytes()


def test_encoders_and_labels_that_are_strings(tmp_path, tiny_text_model, tiny_image_model):
    frame = pd.DataFrame({"name": [f"a {i}" for i in range(9)]}, index=list("abcdefghi"))
    frame["photo"] = list(RNG.integers(256, size=(9, 40, 40, 3), dtype=np.uint8))
    options = {"device": "cpu", "store": None}
    modalities = [
        ("text", TextEncoder(tiny_text_model, **options), "name"),
        ("image", ImageEncoder(tiny_image_model, **options), "photo"),
    ]
    retriever = CrossModalRetriever(modalities, "cca").fit(frame)
    loaded = saved(retriever, tmp_path)
    assert loaded.labels_.tolist() == list("abcdefghi")
    results, expected = (each.search("a 3", source="text", n=3) for each in (loaded, retriever))
    assert results["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(results["score"], expected["score"], atol=1e-5)


def test_without_items(tmp_path):
    loaded = saved(fit(), tmp_path, items=False)
    assert loaded.search(X, n=1).columns.tolist() == ["query", "rank", "label", "score"]
    loaded.add(X.iloc[:2], labels=["new", "newer"])
    assert len(loaded.labels_) == N + 2
    with pytest.raises(ValueError, match="saved without"):
        loaded.set_params(rerank=lambda queries, candidates: np.ones(len(queries))).search(X)


def test_a_damaged_graph_is_built_again(tmp_path):
    pytest.importorskip("usearch")
    retriever = fit(index="ann")
    retriever.save(tmp_path / "saved")
    graph = tmp_path / "saved" / "graph-1.usearch"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 255
    graph.write_bytes(data)
    (tmp_path / "saved" / "graph-0.usearch").unlink()
    with pytest.warns(UserWarning, match=r"graph-\d.usearch.* built again") as caught:
        loaded = CrossModalRetriever.load(tmp_path / "saved")
    assert len(caught) == 2
    pd.testing.assert_frame_equal(loaded.search(X, n=3), retriever.search(X, n=3))


@pytest.mark.parametrize("name", ["arrays.npz", "labels.json", "items.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_other_damage_is_an_error(name, damage, tmp_path):
    fit().save(tmp_path / "saved")
    file = tmp_path / "saved" / name
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        data[10] ^= 255
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    with pytest.raises((ValueError, FileNotFoundError), match=name.replace(".", r"\.")):
        CrossModalRetriever.load(tmp_path / "saved")


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no retriever"):
        CrossModalRetriever.load(tmp_path)
    retriever = fit()
    retriever.save(tmp_path / "saved")
    with pytest.raises(FileExistsError, match="exists; choose another"):
        retriever.save(tmp_path / "saved")
    strange = CrossModalRetriever(MODALITIES, "cca").fit(X.assign(thing=[object()] * N))
    with pytest.raises(TypeError, match=r"column 'thing' holds builtins.object. Pass items=False"):
        strange.save(tmp_path / "other")
    saved(strange, tmp_path / "more", items=False)
    dated = CrossModalRetriever(MODALITIES, "cca").fit(X.set_index("day"))
    with pytest.raises(TypeError, match="labels that are strings and numbers, got Timestamp"):
        dated.save(tmp_path / "other")
    numbered = CrossModalRetriever([("a", "passthrough", slice(0, 3)), ("b", "passthrough", slice(3, 6))], "cca")
    numbered.fit(X.iloc[:, :6].set_axis(np.arange(6) + 0.5, axis=1))
    with pytest.raises(TypeError, match="named by strings or integers"):
        numbered.save(tmp_path / "other")
    with pytest.raises(ValueError, match="save cannot write rerank="):
        fit(rerank=lambda queries, candidates: None).save(tmp_path / "other")
    assert not [path for path in tmp_path.iterdir() if path.name not in ("saved", "more")]


def test_types_of_others_must_be_trusted(tmp_path):
    text = ("text", Vectorizer(), "word")
    CrossModalRetriever([text, MODALITIES[0]], "cca").fit(X).save(tmp_path / "saved")
    with pytest.raises(Exception, match="Vectorizer"):
        CrossModalRetriever.load(tmp_path / "saved")


def test_the_manifest_names_all_files(tmp_path):
    fit().save(tmp_path / "saved")
    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    assert sorted(manifest["checksums"]) == ["arrays.npz", "items.json", "labels.json"]


def test_a_bundle_names_the_way(tmp_path):
    with pytest.raises(ValueError, match=r"skops cannot write this estimator .*; its own method save writes it"):
        save_bundle(tmp_path / "bundle", fit())
