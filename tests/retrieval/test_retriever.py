"""Search across modalities against a few lines of NumPy."""

import pickle
import sys
import tempfile

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import config_context
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.neighbors import NearestNeighbors

from skmm import CCAFusion, CrossModalRetriever, ImageEncoder, KernelCCAFusion, LDAFusion, TextEncoder
from skmm.fusion import ContrastiveFusion
from skmm.metrics import retrieval_report, retrieval_scorer
from skmm.retrieval import ApproximateIndex, ExactIndex

RNG = np.random.default_rng(0)
NAMES = ("a", "b", "c")
WIDTH = 3


def paired(n, rng=RNG):
    """Rows of three modalities with a shared part; about a fifth lacks a modality."""
    shared = rng.normal(size=(n, WIDTH))
    blocks = [shared @ rng.normal(size=(WIDTH, WIDTH)) + 0.3 * rng.normal(size=(n, WIDTH)) for _ in NAMES]
    for i, block in enumerate(blocks):
        block[i :: 3 * len(NAMES)] = np.nan
    columns = [f"{name}{i}" for name in NAMES for i in range(WIDTH)]
    return pd.DataFrame(np.hstack(blocks), columns=columns, index=[f"row{i}" for i in range(n)])


def columns_of(name):
    return [f"{name}{i}" for i in range(WIDTH)]


MODALITIES = [(name, "passthrough", columns_of(name)) for name in NAMES]
X = paired(60)
QUERIES = paired(20, np.random.default_rng(1)).set_axis([f"q{i}" for i in range(20)])
Y = np.arange(60) % 3
OPTIONS = {"embedding": "cca", "n_neighbors": 4}


def fit(**options):
    return CrossModalRetriever(MODALITIES, **{**OPTIONS, **options}).fit(X)


def unit(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


class BruteForce:
    """What a retriever should answer, from its embedding alone."""

    def __init__(self, retriever, fitted):
        self.retriever = retriever
        self.centers = dict.fromkeys(NAMES, 0.0)
        if retriever.center:
            self.centers = {name: self.raw(fitted, name)[self.present(fitted, name)].mean(axis=0) for name in NAMES}
        self.references = {name: self.vectors(fitted, name)[self.present(fitted, name)] for name in NAMES}

    def raw(self, frame, name):
        block = frame[columns_of(name)].to_numpy(dtype=float)
        embedding = self.retriever.embedding_
        return unit(np.nan_to_num(block) if embedding is None else embedding.transform_modality(block, name))

    def present(self, frame, name):
        return frame[columns_of(name)].notna().all(axis=1).to_numpy()

    def vectors(self, frame, name):
        return unit((self.raw(frame, name) - self.centers[name]) * self.present(frame, name)[:, None])

    def scale(self, vectors, name, own):
        cosines = -np.sort(-(vectors @ self.references[name].T), axis=1)
        return cosines[:, int(own) : self.retriever.n_neighbors + int(own)].mean(axis=1)

    def scores(self, queries, frame, sources, target, weights):
        """Return all scores, -inf for rows without the target, NaN for queries without a source."""
        vectors = {name: self.vectors(queries, name) for name in sources}
        shares = {name: weights[name] * self.present(queries, name) for name in sources}
        composed = unit(sum(weights[name] * vectors[name] for name in sources))
        items = self.vectors(frame, target)
        scores = composed @ items.T
        if self.retriever.hubness is not None:
            total = sum(shares.values())
            scales = sum(
                (shares[name] / np.where(total > 0, total, 1))[:, None] * self.scale(items, name, name == target)
                for name in sources
            )
            scores = 2 * scores - scales - self.scale(composed, target, sources == [target])[:, None]
        scores[:, ~self.present(frame, target)] = -np.inf
        scores[~composed.any(axis=1)] = np.nan
        return scores


def check(retriever, frame, fitted, sources, targets, n=7, weights=None, queries=QUERIES):
    """Compare a search with brute force over the rows of a frame."""
    brute = BruteForce(retriever, fitted)
    results = retriever.search(queries, source=sources, target=targets, n=n, weights=weights)
    expected = np.max(
        [brute.scores(queries, frame, sources, t, weights or dict.fromkeys(sources, 1.0)) for t in targets], axis=0
    )
    for label, scores in zip(queries.index, expected, strict=True):
        answer = results[results["query"] == label]
        if np.isnan(scores).all():
            assert answer.empty
            continue
        best = -np.sort(-scores)[: min(n, np.isfinite(scores).sum())]
        np.testing.assert_allclose(answer["score"], best, atol=2e-5)
        assert answer["rank"].tolist() == list(range(1, len(best) + 1))
        assert answer["label"].is_unique
        np.testing.assert_allclose(answer["score"], scores[frame.index.get_indexer(answer["label"])], atol=2e-5)
        items = frame.loc[answer["label"]].reset_index(drop=True)
        pd.testing.assert_frame_equal(answer[list(frame.columns)].reset_index(drop=True), items, check_dtype=False)


@pytest.mark.parametrize(
    "index",
    ["exact", "ann", NearestNeighbors(), pytest.param(NearestNeighbors(metric="cosine"), marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.parametrize(
    ("sources", "targets"),
    [(["a"], ["b"]), (["a"], ["a"]), (["b"], ["a", "c"]), (["a", "b"], ["c"]), (["a", "b", "c"], ["a", "b", "c"])],
    ids=str,
)
def test_search_is_brute_force(index, sources, targets):
    if index == "ann":
        pytest.importorskip("usearch")
    check(fit(index=index), X, X, sources, targets)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"hubness": None}, marks=pytest.mark.slow),
        pytest.param({"center": False}, marks=pytest.mark.slow),
        {"hubness": None, "center": False},
        {"embedding": None},
        {"embedding": KernelCCAFusion(2)},
        {"embedding": "anchor"},
        {"n_neighbors": 1000},
    ],
    ids=str,
)
def test_options_are_brute_force(options):
    for sources, targets in ((["a"], ["b"]), (["c"], ["c"]), (["b", "c"], ["a"])):
        check(fit(**options), X, X, sources, targets)


def test_weights_of_composed_queries():
    weights = {"a": 0.3, "b": 0.7}
    check(fit(), X, X, ["a", "b"], ["c"], weights=weights)
    retriever = fit()
    alone = retriever.search(QUERIES, source="a", target="c")
    composed = retriever.search(QUERIES, source=["a", "b"], target="c", weights={"a": 1, "b": 0})
    present = QUERIES.index[QUERIES["a0"].notna()]
    rows = alone[alone["query"].isin(present)]
    others = composed[composed["query"].isin(present)]
    # Constants of the query differ, the order does not.
    assert rows["label"].tolist() == others["label"].tolist()


changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 9)),
        st.tuples(st.just("remove"), st.floats(0, 1)),
        st.just(("pickle", None)),
        st.just(("save", None)),
    ),
    max_size=6,
)


@pytest.fixture(scope="module", params=["exact", "ann"])
def pickled(request):
    """Pickle of a fitted retriever."""
    if request.param == "ann":
        pytest.importorskip("usearch")
    return pickle.dumps(fit(index=request.param))


@settings(max_examples=10, deadline=None)
@given(changes=changes, seed=st.integers(0, 2**16))
def test_any_sequence_of_changes_equals_brute_force(pickled, changes, seed):
    rng = np.random.default_rng(seed)
    retriever, frame, n_added = pickle.loads(pickled), X, 0
    for change, argument in changes:
        if change == "add":
            rows = paired(argument, rng).set_axis([f"new{n_added + i}" for i in range(argument)])
            n_added += argument
            retriever.add(rows)
            frame = pd.concat([frame, rows])
        elif change == "remove":
            removed = frame.index[rng.random(len(frame)) < argument]
            assert retriever.remove(removed) is retriever
            frame = frame.drop(removed)
        elif change == "pickle":
            retriever = pickle.loads(pickle.dumps(retriever))
        else:
            pytest.importorskip("skops")
            with tempfile.TemporaryDirectory() as folder:
                retriever.save(f"{folder}/saved")
                retriever = CrossModalRetriever.load(f"{folder}/saved")
        assert retriever.labels_.tolist() == frame.index.tolist()
    if len(frame):
        check(retriever, frame, X, ["a"], ["b"], queries=QUERIES.iloc[:4])
        check(retriever, frame, X, ["c", "b"], ["a", "c"], n=1000, queries=QUERIES.iloc[:4])
    else:
        results = retriever.search(QUERIES)
        assert results.empty
        assert list(results.columns) == ["query", "rank", "label", "score", *X.columns]


def test_scores_of_a_row_depend_neither_on_other_queries_nor_on_other_rows():
    retriever = fit()
    together = retriever.search(QUERIES, source="a", target="b", n=60).set_index(["query", "label"])["score"]
    alone = retriever.search(QUERIES.iloc[[3]], source="a", target="b", n=60).set_index(["query", "label"])["score"]
    np.testing.assert_allclose(alone, together.loc[alone.index], atol=1e-6)
    retriever.remove(X.index[::2]).add(paired(30).set_axis([f"new{i}" for i in range(30)]))
    later = retriever.search(QUERIES, source="a", target="b", n=60).set_index(["query", "label"])["score"]
    both = later.index.intersection(together.index)
    assert len(both) > 100
    np.testing.assert_allclose(later.loc[both], together.loc[both], atol=1e-6)


def test_forms_of_queries():
    retriever = fit()
    expected = retriever.search(QUERIES, source="a", target="b")
    for form in (
        QUERIES[columns_of("a")],
        QUERIES[columns_of("a")[::-1]].assign(other=1),
        QUERIES.iloc[:, ::-1],
    ):
        pd.testing.assert_frame_equal(retriever.search(form, source="a", target="b"), expected)
    positions = {label: i for i, label in enumerate(QUERIES.index)}
    expected["query"] = expected["query"].map(positions)
    matrix = QUERIES.to_numpy()
    for form in (matrix, np.asfortranarray(matrix), matrix[:, :WIDTH], pl.DataFrame(QUERIES)):
        results = retriever.search(form, source="a", target="b")
        pd.testing.assert_frame_equal(results, expected)
    single = retriever.search(matrix.astype(np.float32), source="a", target="b")
    assert single["label"].tolist() == expected["label"].tolist()
    results = retriever.search(QUERIES[columns_of("a")])
    assert set(retriever.search(QUERIES, source="a", target=["b", "c"])["label"]) == set(results["label"])


def test_forms_of_the_gallery():
    expected = fit().search(QUERIES, source="a", target="b")
    open_slices = [(name, "passthrough", slice(3 * i, 3 * i + 3)) for i, name in enumerate(NAMES)]
    of_array = CrossModalRetriever(open_slices, **OPTIONS).fit(X.to_numpy())
    results = of_array.search(QUERIES.to_numpy(), source="a", target="b")
    assert [X.index[label] for label in results["label"]] == expected["label"].tolist()
    assert results.columns[4:].tolist() == [f"x{i}" for i in range(9)]
    assert of_array.search(QUERIES, source="a", target="b")["label"].tolist() == results["label"].tolist()
    of_polars = CrossModalRetriever(MODALITIES, **OPTIONS).fit(pl.DataFrame(X))
    results = of_polars.search(pl.DataFrame(QUERIES), source="a", target="b")
    assert [X.index[label] for label in results["label"]] == expected["label"].tolist()
    of_array.add(X.to_numpy()[:5])
    assert of_array.labels_.tolist() == list(range(65))


def test_labels_that_follow_are_new(tmp_path):
    pytest.importorskip("skops")
    retriever = CrossModalRetriever([(name, "passthrough", slice(3 * i, 3 * i + 3)) for i, name in enumerate(NAMES)])
    retriever.set_params(**OPTIONS).fit(X.to_numpy()).remove(range(40))
    retriever.save(tmp_path / "saved")
    for each in (retriever, CrossModalRetriever.load(tmp_path / "saved")):
        assert each.add(X.to_numpy()[:30]).labels_.tolist() == [*range(40, 90)]


def test_what_is_later_written_to_the_frame_is_not_found():
    frame = X.copy()
    retriever = CrossModalRetriever(MODALITIES, **OPTIONS).fit(frame)
    expected = retriever.search(QUERIES)
    if int(pd.__version__.partition(".")[0]) >= 3:
        frame["a0"] = 7.0
        pd.testing.assert_frame_equal(retriever.search(QUERIES), expected)


def test_rows_without_any_modality_cannot_be_found_and_are_told_once():
    empty = X.copy()
    empty.iloc[4] = np.nan
    with pytest.warns(UserWarning, match="1 rows have none of the modalities") as caught:
        retriever = CrossModalRetriever(MODALITIES, **OPTIONS).fit(empty)
    assert len(caught) == 1
    assert "row4" not in set(retriever.search(QUERIES, n=100)["label"])
    with pytest.warns(UserWarning, match=r"2 queries have none of the modalities \['a'\], the first .* 'q0'"):
        results = retriever.search(QUERIES.iloc[[0, 9]], source="a")
    assert results.empty
    # A gallery may lack a modality altogether.
    retriever.add(X[columns_of("c")].iloc[[1]].set_axis(["partial"]))
    assert "partial" in set(retriever.search(QUERIES, source="a", target="c", n=100)["label"])
    assert "partial" not in set(retriever.search(QUERIES, source="a", target="b", n=100)["label"])


def test_columns_named_like_those_of_the_result_get_a_prefix():
    frame = X.assign(label="x", score=1.0, price=3)
    results = CrossModalRetriever(MODALITIES, **OPTIONS).fit(frame).search(QUERIES)
    assert results.columns[-3:].tolist() == ["item_label", "item_score", "price"]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda r: r.search(QUERIES, source="z"), ValueError, r"no modality 'z'; the modalities are \['a', 'b', 'c'\]"),
        (lambda r: r.search(QUERIES, target="z"), ValueError, "no modality 'z'"),
        (lambda r: r.search(QUERIES, target=[]), ValueError, "target names no modality"),
        (lambda r: r.search(QUERIES[["a0"]]), ValueError, r"of no modality all"),
        (lambda r: r.search(QUERIES[["a0"]], source="a"), ValueError, "of no modality all"),
        (lambda r: r.search(QUERIES[columns_of("b")], source="a"), ValueError, "source 'a' needs the columns"),
        (lambda r: r.search(QUERIES, n=0), ValueError, "at least 1, got 0"),
        (lambda r: r.search(QUERIES.iloc[:0]), ValueError, "0 sample"),
        (lambda r: r.search([], source="a"), ValueError, "Found 0 queries"),
        (lambda r: r.search(np.ones((2, 5)), source="a"), ValueError, r"has 3 columns, got an array of shape \(2, 5\)"),
        (lambda r: r.search(np.ones((2, 5))), ValueError, "X has 5 features, but CrossModalRetriever is expecting 9"),
        (lambda r: r.search(["x"], source="a"), ValueError, "pass a data frame, or an array with these"),
        (lambda r: r.search("x"), ValueError, "or pass source, one of"),
        (lambda r: r.search({"a": 1}, source="a"), TypeError, "are a list, array or series, got dict"),
        (lambda r: r.search(QUERIES, weights={"a": 1}), ValueError, r"lacks the sources \['b', 'c'\]"),
        (lambda r: r.search(QUERIES, source="a", weights={"a": -1}), ValueError, "numbers from 0"),
        (lambda r: r.search(QUERIES, source="a", weights={"q": 1}), ValueError, "no modality 'q'"),
        (lambda r: r.search(QUERIES.replace(QUERIES.iloc[1, 0], np.inf)), ValueError, "infinity in row 1"),
        (lambda r: r.kneighbors(X.iloc[1:2], 61), ValueError, "n_neighbors=61, but only 60"),
        (lambda r: r.kneighbors(QUERIES, source="a"), ValueError, "Query 0 has none of the modalities"),
        (lambda r: r.add(X.iloc[:2]), ValueError, r"labels \['row0', 'row1'\] already"),
        (lambda r: r.add(QUERIES.iloc[[0, 0]]), ValueError, r"unique, got \['q0'\] several times"),
        (lambda r: r.add(QUERIES, labels=[1]), ValueError, "1 labels for 20 rows"),
        (lambda r: r.add(QUERIES, np.arange(20)), ValueError, "fit got no classes"),
        (lambda r: r.add(QUERIES[["a0"]]), ValueError, "of no modality all"),
        (lambda r: r.remove(["row0", "nobody"]), KeyError, r"no rows with the labels \['nobody'\]"),
        (lambda r: r.remove("row0"), TypeError, "sequence of labels"),
        (lambda r: r.score(QUERIES[columns_of("a")]), ValueError, "two modalities"),
    ],
)
def test_errors(call, error, match):
    retriever = fit()
    with pytest.raises(error, match=match):
        call(retriever)
    # Nothing was changed on the way.
    assert retriever.labels_.tolist() == X.index.tolist()
    check(retriever, X, X, ["a"], ["b"])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"embedding": LDAFusion()}, ValueError, "embedding"),
        ({"embedding": CCAFusion(blocks={"a": slice(0, 1)})}, ValueError, "sets 'blocks' of its embedding"),
        ({"index": "fast"}, ValueError, "index"),
        ({"modalities": [MODALITIES[0], ("b", "passthrough", ["b0"])], "embedding": None}, ValueError, "widths differ"),
        ({"modalities": [MODALITIES[0]]}, ValueError, "at least 2 blocks"),
    ],
)
def test_errors_of_fit(options, error, match):
    with pytest.raises(error, match=match):
        fit(**options) if "modalities" not in options else CrossModalRetriever(**{**OPTIONS, **options}).fit(X)


def test_labels_must_be_unique():
    with pytest.raises(ValueError, match=r"unique, got \['row0'\] several times"):
        CrossModalRetriever(MODALITIES, **OPTIONS).fit(pd.concat([X, X.iloc[:1]]))


def test_kneighbors_are_positions_in_labels():
    retriever = fit().remove(["row0", "row7", "row59"])
    rows = QUERIES[QUERIES["a0"].notna()]
    distances, positions = retriever.kneighbors(rows, 3, source="a", target="b")
    results = retriever.search(rows, n=3, source="a", target="b")
    assert retriever.labels_[positions].ravel().tolist() == results["label"].tolist()
    np.testing.assert_allclose(-distances.ravel(), results["score"], atol=1e-6)
    np.testing.assert_array_equal(retriever.kneighbors(rows, 3, False, source="a", target="b"), positions)


def test_classes_of_neighbours():
    y = np.where(np.arange(60) % 5 == 0, -1, Y)
    retriever = CrossModalRetriever(MODALITIES, **OPTIONS).fit(X, y)
    assert retriever.classes_.tolist() == [0, 1, 2]
    brute = BruteForce(retriever, X)
    scores = np.max([brute.scores(QUERIES, X, list(NAMES), t, dict.fromkeys(NAMES, 1.0)) for t in NAMES], axis=0)
    scores[:, y == -1] = -np.inf
    nearest = np.argsort(-scores, axis=1)[:, :4]
    shares = np.stack([(y[nearest] == c).mean(axis=1) for c in range(3)], axis=1)
    np.testing.assert_allclose(retriever.predict_proba(QUERIES), shares)
    np.testing.assert_array_equal(retriever.predict(QUERIES), shares.argmax(axis=1))
    assert retriever.predict(QUERIES[columns_of("b")]).shape == (20,)
    with pytest.warns(UserWarning, match="frequencies of the classes"):
        alone = retriever.predict_proba(QUERIES[columns_of("a")].iloc[:1])
    np.testing.assert_allclose(alone, [[16 / 48] * 3])
    retriever.add(QUERIES, np.full(20, 2))
    with pytest.raises(ValueError, match=r"classes that fit did not see: \[9\]"):
        retriever.add(QUERIES.set_axis(range(20)), np.full(20, 9))
    many = clone(retriever).set_params(n_neighbors=100).fit(X, y)
    np.testing.assert_allclose(many.predict_proba(QUERIES.iloc[1:2]), [[1 / 3] * 3])
    without = fit()
    for name in ("predict", "predict_proba", "classes_"):
        assert not hasattr(without, name)
    assert not hasattr(CrossModalRetriever(MODALITIES, **OPTIONS).fit(X, RNG.normal(size=60)), "predict")


def test_classes_that_are_strings():
    y = pd.Series(np.array(["red", "green", None], dtype=object)[Y])
    retriever = CrossModalRetriever(MODALITIES, **OPTIONS).fit(X, y)
    assert retriever.classes_.tolist() == ["green", "red"]
    assert set(retriever.predict(QUERIES)) <= {"green", "red"}
    retriever.remove(X.index)
    with pytest.raises(ValueError, match="no row has a class"):
        retriever.predict(QUERIES)


def mean_reciprocal_rank(scores, relevant):
    ranks = (scores[:, None, :] > np.where(relevant, scores, -np.inf).max(axis=1)[:, None, None]).sum(axis=2)[:, 0] + 1
    return (1 / ranks).mean()


@pytest.mark.parametrize("grouped", [False, True])
def test_score_is_the_reciprocal_rank_both_ways(grouped):
    retriever = fit()
    groups = np.arange(20) // 3 if grouped else np.arange(20)
    brute, expected = BruteForce(retriever, X), []
    for source in NAMES:
        for target in NAMES:
            if source != target:
                scores = brute.scores(QUERIES, QUERIES, [source], target, {source: 1.0})
                targets = brute.present(QUERIES, target)
                relevant = (groups[:, None] == groups) & targets
                rows = brute.present(QUERIES, source) & relevant.any(axis=1)
                expected.append(mean_reciprocal_rank(scores[rows], relevant[rows]))
    assert retriever.score(QUERIES, groups=groups if grouped else None) == pytest.approx(np.mean(expected), abs=1e-6)


def test_grid_search_over_embeddings_and_groups():
    grid = {"embedding": ["cca", "pls", KernelCCAFusion(2)], "hubness": ["csls", None]}
    search = GridSearchCV(CrossModalRetriever(MODALITIES), grid, cv=2).fit(X)
    assert 0 < search.best_score_ <= 1
    assert len(search.best_estimator_.search(QUERIES, n=2, source="a", target="b")) == 2 * QUERIES["a0"].notna().sum()
    groups = np.arange(60) // 2
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(CrossModalRetriever(MODALITIES, "cca"), {"center": [True]}, cv=GroupKFold(2))
        search.fit(X, groups=groups)
    folds = [
        CrossModalRetriever(MODALITIES, "cca").fit(X.iloc[train]).score(X.iloc[test], groups=groups[test])
        for train, test in GroupKFold(2).split(X, groups=groups)
    ]
    assert search.best_score_ == pytest.approx(np.mean(folds))


def test_groups_reach_the_embedding():
    class Recorder(CCAFusion):
        def fit(self, X, y=None, groups=None):
            self.seen_ = groups
            return super().fit(X, y)

    groups = np.arange(60) // 2
    retriever = CrossModalRetriever(MODALITIES, Recorder()).fit(X, groups=groups)
    np.testing.assert_array_equal(retriever.embedding_.seen_, groups)
    with pytest.raises(ValueError, match="groups must have one entry"):
        clone(retriever).fit(X, groups=groups[:3])


def test_parameters_of_members_are_nested():
    retriever = CrossModalRetriever([("text", TfidfVectorizer(), "name"), MODALITIES[0]], "cca")
    retriever.set_params(text__ngram_range=(1, 2))
    assert retriever.get_params()["text__ngram_range"] == (1, 2)
    frame = X.assign(name=[f"word{i % 7} thing" for i in range(60)])
    retriever.fit(frame)
    assert set(retriever.named_modalities_) == {"text", "a"}
    for queries in (["word3"], "word3", pd.Series(["word3"]), np.array(["word3"])):
        results = retriever.search(queries, source="text", n=3)
        assert len(results) == 3
    assert retriever.search(frame["name"].iloc[4:6], source="text", n=1)["query"].tolist() == ["row4", "row5"]
    with pytest.raises(ValueError, match="or pass source"):
        retriever.search(["word3"])
    assert "TfidfVectorizer" in retriever._repr_html_()
    assert "CCAFusion" in retriever._repr_html_()


def test_modalities_that_are_found_out(tiny_text_model):
    frame = pd.DataFrame({"size": RNG.normal(size=20), "name": [f"a text of {i} words {i % 4}" for i in range(20)]})
    retriever = CrossModalRetriever([("text", TextEncoder(tiny_text_model), "name"), ("size", "passthrough", ["size"])])
    assert retriever.fit(frame).search("a text of 3", source="text", n=1)["size"].notna().all()


def test_encoders_that_share_a_space(tiny_clip_model):
    options = {"device": "cpu", "store": None}
    frame = pd.DataFrame({"name": list("abcdefgh")})
    frame["photo"] = list(RNG.integers(256, size=(8, 40, 40, 3), dtype=np.uint8))
    text = TextEncoder(tiny_clip_model, **options).fit(frame["name"])
    image = ImageEncoder(tiny_clip_model, **options).fit(frame["photo"])
    retriever = CrossModalRetriever(
        [("text", text, "name"), ("image", image, "photo")], None, hubness=None, center=False
    ).fit(frame)
    results = retriever.search("a", source="text", n=8)
    similarities = unit(text.transform(["a"])) @ unit(image.transform(frame["photo"])).T
    np.testing.assert_allclose(results["score"], -np.sort(-similarities[0]), atol=1e-5)
    assert results["label"].tolist() == np.argsort(-similarities[0]).tolist()
    # Without the gap of modalities, vectors of both are spread around the same point.
    centered = clone(retriever).set_params(center=True).fit(frame)
    for name in ("text", "image"):
        vectors = unit(centered.named_modalities_[name].transform(frame["name" if name == "text" else "photo"]))
        np.testing.assert_allclose(centered._centers[name], vectors.mean(axis=0), atol=1e-6)


def test_items_are_encoded_once():
    class Counter(TfidfVectorizer):
        n_rows = 0

        def fit_transform(self, X, y=None):
            Counter.n_rows += len(X)
            return super().fit_transform(X)

        def transform(self, X):
            Counter.n_rows += len(X)
            return super().transform(X)

    frame = X.assign(name=[f"word{i % 7}" for i in range(60)])
    CrossModalRetriever([("text", Counter(), "name"), MODALITIES[0]], "cca").fit(frame)
    assert Counter.n_rows == 60


def test_indexes_given_as_objects():
    pytest.importorskip("usearch")
    index = ApproximateIndex(8)
    retriever = fit(index=index)
    assert all(each.connectivity == 8 for each in retriever.indexes_.values())
    assert not hasattr(index, "n_vectors_")
    check(fit(index=ExactIndex()), X, X, ["a"], ["b"])


def test_a_missing_library_is_told_before_anything_is_encoded(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    monkeypatch.setattr("skmm.retrieval._retriever.ModalityFuser", None)
    with pytest.raises(ImportError, match=r"skmm\[ann\]"):
        fit(index="ann")


def test_contrastive_embedding_with_groups():
    embedding = ContrastiveFusion(4, max_epochs=1, device="cpu", positives="groups", random_state=0)
    retriever = CrossModalRetriever(MODALITIES, embedding).fit(X, groups=np.arange(60) // 2)
    check(retriever, X, X, ["a"], ["b"])


def test_a_failed_fit_leaves_no_fitted_retriever():
    retriever = fit()
    with pytest.raises(ValueError, match="at least 2 blocks"):
        retriever.set_params(b="drop", c="drop").fit(X)
    assert not hasattr(retriever, "fuser_")


@pytest.mark.parametrize("center", [True, False])
def test_vectors_are_those_that_are_compared(center):
    retriever = fit(hubness=None, center=center)
    vectors = {name: retriever.transform_modality(QUERIES, name) for name in "ab"}
    missing = QUERIES[columns_of("a")].isna().any(axis=1)
    assert missing.any()
    np.testing.assert_array_equal(np.isnan(vectors["a"]).all(axis=1), missing)
    np.testing.assert_allclose(np.linalg.norm(vectors["a"][~missing], axis=1), 1, rtol=1e-5)
    cosines = vectors["a"] @ retriever.transform_modality(X, "b").T
    found = retriever.search(QUERIES[~missing], source="a", target="b", n=1)
    np.testing.assert_allclose(found["score"], np.nanmax(cosines[~missing], axis=1), rtol=1e-4)
    # A block alone, as a fuser takes it.
    np.testing.assert_array_equal(retriever.transform_modality(QUERIES[columns_of("a")].to_numpy(), "a"), vectors["a"])
    with pytest.raises(ValueError, match="there is no modality 'video'"):
        retriever.transform_modality(QUERIES, "video")


def test_scorers_of_retrieval():
    complete = X.dropna()
    scorer = retrieval_scorer("recall@5", source="a", target="b")
    search = GridSearchCV(
        CrossModalRetriever(MODALITIES, "cca"), {"embedding": [CCAFusion(1), CCAFusion(3)]}, scoring=scorer, cv=3
    ).fit(complete)
    assert search.best_params_["embedding"].n_components == 3
    report = retrieval_report(
        *(search.best_estimator_.transform_modality(complete, name) for name in "ab"), k=(5,), output_dict=True
    )
    forward = next(iter(report.values()))
    assert scorer(search.best_estimator_, complete) == pytest.approx(forward["recall@5"])


def test_masks_are_no_labels():
    retriever = fit()
    with pytest.raises(TypeError, match="takes labels, not a mask; pass those where it is True"):
        retriever.remove(X["a0"] > 0)
    assert len(retriever.labels_) == len(X)
    with pytest.raises(TypeError, match="keys are whole numbers"):
        ExactIndex().fit(np.eye(3)).remove([1.9])


def test_the_class_minus_one_is_told():
    with pytest.warns(UserWarning, match="y has the class 1 alone; -1, NaN and None stand for a missing label"):
        CrossModalRetriever(MODALITIES, "cca").fit(X, np.where(np.arange(60) % 2, 1, -1))


def test_small_weights_are_weights():
    retriever = fit()
    options = {"source": ["a", "b"], "target": "c"}
    large = retriever.search(QUERIES, weights={"a": 1, "b": 2}, **options)
    small = retriever.search(QUERIES, weights={"a": 1e-200, "b": 2e-200}, **options)
    pd.testing.assert_frame_equal(small, large)
