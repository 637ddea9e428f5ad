"""AnchorFusion against its definition; pairs that are added and forgotten leave what a fit without them leaves."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from skmm import AnchorFusion, ModalityFuser

BLOCKS = {"a": slice(0, 6), "b": slice(6, 11), "c": slice(11, None)}
TWO = {"a": slice(0, 6), "b": slice(6, None)}


def linked(n=120, widths=(6, 5, 7), seed=0):
    rng = np.random.default_rng(seed)
    mixing = [np.random.default_rng(p).normal(size=(4, p)) for p in widths]
    latent = rng.normal(size=(n, 4))
    return np.hstack([latent @ M + 0.3 * rng.normal(size=(n, M.shape[1])) for M in mixing]) + np.arange(sum(widths))


def by_definition(query, anchors, k, power):
    """The paper's relative representation of one row, entry by entry."""
    similarities = [query @ anchor / np.linalg.norm(query) / np.linalg.norm(anchor) for anchor in anchors]
    largest = sorted(similarities, reverse=True)[:k]
    powers = np.array([s**power if s in largest and s > 0 else 0.0 for s in similarities])
    return powers / np.linalg.norm(powers)


@pytest.mark.parametrize("scaling", ["std", None])
@pytest.mark.parametrize(("k", "power"), [(5, 8), (30, 1), (1000, 2.5)])
def test_it_is_the_definition(scaling, k, power):
    X, new = linked(), linked(20, seed=1)
    fusion = AnchorFusion(k, power=power, scaling=scaling, blocks=BLOCKS).fit(X)
    out = fusion.transform(new)
    scaler = StandardScaler().fit(X) if scaling else StandardScaler(with_mean=False, with_std=False).fit(X)
    anchors, queries = scaler.transform(X), scaler.transform(new)
    for i, (name, columns) in enumerate(BLOCKS.items()):
        expected = [by_definition(query, anchors[:, columns], k, power) for query in queries[:, columns]]
        assert_allclose(out[:, 120 * i : 120 * (i + 1)], expected, atol=1e-10)
        assert_allclose(fusion.transform_modality(new[:, columns], name), expected, atol=1e-10)
    assert (np.count_nonzero(out, axis=1) <= 3 * k).all()


def test_one_neighbor_predicts_as_the_nearest_one_does():
    X, new = linked(), linked(20, seed=1)
    fusion = AnchorFusion(1, blocks=BLOCKS).fit(X)
    scaler = StandardScaler().fit(X)
    stock = KNeighborsRegressor(1).fit(normalize(scaler.transform(X)[:, :6]), X[:, 6:11])
    expected = stock.predict(normalize(scaler.transform(new)[:, :6]))
    assert_allclose(fusion.predict_modality(new[:, :6], "a", "b"), expected)
    # Of many neighbours it is their weighted mean.
    fusion.set_params(n_neighbors=30).fit(X)
    weights = fusion.transform_modality(new[:, :6], "a")
    expected = weights / weights.sum(axis=1, keepdims=True) @ X[:, 6:11]
    assert_allclose(fusion.predict_modality(new[:, :6], "a", "b"), expected)
    gone = np.full((1, 6), np.nan)
    assert_allclose(fusion.predict_modality(gone, "a", "b"), X[:, 6:11].mean(axis=0)[None])


def test_pairs_find_each_other_and_shuffled_ones_do_not():
    X, new = linked(400, widths=(20, 30)), linked(100, widths=(20, 30), seed=1)
    blocks = {"a": slice(0, 20), "b": slice(20, None)}

    def recall(train):
        fusion = AnchorFusion(blocks=blocks).fit(train)
        a, b = (fusion.transform_modality(new[:, columns], name) for name, columns in blocks.items())
        return np.mean((a @ b.T).argmax(axis=1) == np.arange(100))

    assert recall(X) > 0.5
    shuffled = np.hstack([X[:, :20], np.random.default_rng(0).permutation(X[:, 20:])])
    assert recall(shuffled) < 0.06


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scaling", ["std", None])
def test_batches_are_one_fit(dtype, scaling):
    X, new = linked().astype(dtype), linked(20, seed=1).astype(dtype)
    X[5, :6] = X[70:90, 11:] = X[3, 8] = np.nan
    X[100:110, :11] = np.nan
    fusion = AnchorFusion(20, scaling=scaling, blocks=BLOCKS)
    expected = clone(fusion).fit(X)
    one_by_one, later = clone(fusion), clone(fusion).fit(X[:80]).partial_fit(X[80:])
    for row in X:
        one_by_one.partial_fit(row[None])
    for batches in (one_by_one, later):
        assert batches.n_components_ == expected.n_components_ == 110
        assert_array_equal(batches.n_pairs_, expected.n_pairs_)
        assert_allclose(batches.transform(new), expected.transform(new), atol=1e-5 if dtype == np.float32 else 1e-10)
        assert len(batches.get_feature_names_out()) == batches.transform(new).shape[1]


@pytest.mark.parametrize("scaling", ["std", None])
def test_what_is_forgotten_leaves_no_trace(scaling):
    X, new = linked(), linked(20, seed=1)
    persons = np.array(["ann", "bob", "cid", "dot"])[np.arange(120) % 4]
    X[persons == "bob"] = 50 * X[persons == "bob"] + 1000
    fusion = AnchorFusion(20, scaling=scaling, blocks=BLOCKS).fit(X, persons)
    places = fusion.transform(X).shape[1]
    fusion.forget(["bob"])
    kept = persons != "bob"
    without = clone(fusion).fit(X[kept], persons[kept])
    assert_array_equal(fusion.n_pairs_, without.n_pairs_)
    # The forgotten keep their columns, as zeros, so that what was fitted to the space goes on.
    out = fusion.transform(new).reshape(20, 3, 120)
    assert out.reshape(20, -1).shape[1] == places
    assert_array_equal(out[:, :, ~kept], 0)
    assert_allclose(out[:, :, kept], without.transform(new).reshape(20, 3, 90), atol=1e-9)
    assert_allclose(fusion.predict_modality(new[:, :6], "a", "b"), without.predict_modality(new[:, :6], "a", "b"))
    assert fusion.score(new) == pytest.approx(without.score(new) * 90 / 120)
    stored = np.concatenate([np.ravel(value) for value in vars(fusion).values() if isinstance(value, np.ndarray)])
    assert not np.isin(stored, X[~kept]).any()
    with pytest.raises(ValueError, match=r"AnchorFusion: no stored pair has the labels \['bob'\]"):
        fusion.forget(["ann", "bob"])
    assert fusion.n_pairs_[0, 0] == 90
    # The next pairs take their places.
    fusion.partial_fit(X[kept][:30], ["eve"] * 30)
    assert fusion.n_components_ == 120
    assert fusion.n_pairs_[0, 1] == 120
    fusion.partial_fit(X[kept][:1], ["eve"])
    assert fusion.n_components_ == 121


def test_the_time_to_forget_does_not_grow(monkeypatch):
    touched, stores = [], []
    count = AnchorFusion._count
    monkeypatch.setattr(AnchorFusion, "_count", lambda *args: touched.append(len(args[1])) or count(*args))
    fusion = AnchorFusion(blocks=BLOCKS).fit(linked(500)).forget([7])
    for _ in range(400):
        fusion.partial_fit(linked(1))
        stores.append(id(fusion._anchors))
    assert touched == [500] + [1] * 401
    # In all of these calls the store is copied once.
    assert len(set(stores)) == 2


def test_everything_can_be_forgotten():
    X = linked()
    fusion = AnchorFusion(blocks=BLOCKS).fit(X).forget(range(120))
    assert_array_equal(fusion.n_pairs_, 0)
    assert_array_equal(fusion.transform(X), 0)
    assert_array_equal(fusion.predict_modality(X[:, :6], "a", "b"), 0)
    assert_allclose(fusion.partial_fit(X).transform(X), clone(fusion).fit(X).transform(X), atol=1e-12)


def test_labels_of_all_kinds():
    X = linked(6)
    fusion = AnchorFusion(blocks=BLOCKS)
    for y, label, n_left in (
        (None, 5, 5),
        ([0, 0, 1, 1, 2, 2], np.int64(0), 4),
        (pd.Series(["x", "y", None] * 2, dtype="string"), "x", 4),
        (np.array([0.5, 1, np.nan] * 2), None, 4),
        (pd.Series(["x", "y", "z"] * 2, dtype="category"), "z", 4),
    ):
        assert fusion.fit(X, y).forget([label]).n_pairs_[0, 0] == n_left
    several = pd.DataFrame({"kind": ["x", "y", "x"] * 2, "size": [1, 2, 3] * 2})
    assert fusion.fit(X, several).forget([["x", 3]]).n_pairs_[0, 0] == 4
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fusion.fit(X, [1, 2])


def test_missing_blocks():
    X, new = linked(), linked(30, seed=1)
    X[:40, BLOCKS["a"]] = X[40:60, BLOCKS["b"]] = np.nan
    X[60:70, 6:] = np.nan
    fusion = AnchorFusion(20, blocks=BLOCKS).fit(X)
    # Rows with a single block are no anchors, and say nothing about scales.
    assert fusion.n_pairs_.tolist() == [[70, 50, 70], [50, 90, 90], [70, 90, 110]]
    assert_allclose(fusion.transform(new), clone(fusion).fit(np.delete(X, range(60, 70), axis=0)).transform(new))
    variates = fusion.transform(new).reshape(30, 3, 110)
    assert_array_equal(variates[:, 0, :40], 0)
    gone = new.copy()
    gone[:10, BLOCKS["a"]] = np.nan
    gone[10] = np.nan
    out = fusion.transform(gone).reshape(30, 3, 110)
    assert_allclose(out[:10, 0], variates[:10, 1:].mean(axis=1))
    assert_array_equal(out[10], 0)
    assert_allclose(out[11:], variates[11:])
    for output in ("mean", "sum"):
        joined = clone(fusion).set_params(output=output).fit(X)
        assert_allclose(joined.transform(gone), getattr(out, output)(axis=1), atol=1e-12)
        assert joined.get_feature_names_out()[0] == "anchorfusion0"
    X[:, BLOCKS["c"]] = np.nan
    X[65] = [*[np.nan] * 11, *[1] * 7]
    with pytest.raises(ValueError, match="no row has block 'c' and another one"):
        AnchorFusion(blocks=BLOCKS).fit(X)


def test_constant_columns_and_cells_say_nothing():
    X, new = linked(), linked(20, seed=1)
    wide = np.insert(X, [0, 6], [1e8, 0.1], axis=1)
    blocks = {"a": slice(0, 7), "b": slice(7, 13), "c": slice(13, None)}
    fusion = AnchorFusion(20, blocks=blocks).fit(wide)
    expected = AnchorFusion(20, blocks=BLOCKS).fit(X)
    assert_allclose(fusion.transform(np.insert(new, [0, 6], [7.0, 3.0], axis=1)), expected.transform(new), atol=1e-10)
    one = np.column_stack([X[:, :6], np.full(120, 0.1)])
    assert_array_equal(AnchorFusion(blocks=TWO).fit(one).transform_modality(one[:, 6:], "b"), 0)
    # A missing cell is the mean of the anchors.
    for scaling in ("std", None):
        fusion = AnchorFusion(20, scaling=scaling, blocks=BLOCKS).fit(X)
        gone, filled = new.copy(), new.copy()
        gone[:, 2], filled[:, 2] = np.nan, X[:, 2].mean()
        assert_allclose(fusion.transform(gone), fusion.transform(filled), atol=1e-10)


def test_high_powers_do_not_underflow():
    X = linked().astype(np.float32)
    out = AnchorFusion(power=200, blocks=BLOCKS).fit(X[:60]).transform(X[60:])
    assert_allclose(np.linalg.norm(out.reshape(60, 3, 60), axis=2), 1, rtol=1e-5)


def test_in_a_fuser_as_a_string_and_pickled():
    X = linked()
    y = np.where(X[:, 0] > X[:, 0].mean(), "warm", "cold")
    modalities = [(name, "passthrough", columns) for name, columns in BLOCKS.items()]
    fuser = ModalityFuser(modalities, "anchor").fit(X, y)
    assert_array_equal(fuser.transform(X), AnchorFusion(blocks=BLOCKS).fit(X).transform(X))
    model = make_pipeline(ModalityFuser(modalities, AnchorFusion(output="mean")), LogisticRegression()).fit(X, y)
    assert model.score(X, y) > 0.8
    # A classifier of the space goes on when pairs are forgotten.
    model[0].fusion_.forget(["warm"])
    assert model.predict(X).shape == (120,)
    loaded = pickle.loads(pickle.dumps(fuser))
    loaded.fusion_.forget(["warm"])
    assert_array_equal(loaded.fusion_.n_pairs_, (y == "cold").sum())
