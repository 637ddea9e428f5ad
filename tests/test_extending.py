"""Encoders, a strategy of fusion and a fusion layer that are written from public names alone."""

import inspect
import pickle
from itertools import pairwise
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.multiclass import check_classification_targets

from skmm import EmbeddingStore, MultimodalNetClassifier
from skmm.encoders import ItemEncoder, ModelEncoder
from skmm.exceptions import ItemError, RejectedItem
from skmm.fusion import BlockTransformer, ModalityFuser
from skmm.neural_network import FusionLayer


class HashingEncoder(ItemEncoder):
    """Encode short codes, such as article numbers, by hashed pairs of their characters.

    Parameters
    ----------
    n_bins : int, default=16
        Number of columns.

    on_error : {"raise", "missing"}, default="raise"
        What to do with an item that is not a string.

    verbose : bool, default=False
        Whether to show a progress bar.
    """

    _strings_are_paths = False

    def __init__(self, n_bins=16, *, on_error="raise", verbose=False):
        self.n_bins = n_bins
        self.on_error = on_error
        self.verbose = verbose

    def _fit_width(self):
        self.n_features_out_ = self.n_bins

    def _prepare_item(self, item):
        if not isinstance(item, str):
            raise RejectedItem(f"expected a string, got {type(item).__name__}")
        return item.upper()

    def _encode_batch(self, batch, model):
        rows = np.zeros((len(batch), self.n_bins), dtype=np.float32)
        for row, code in zip(rows, batch, strict=True):
            for pair in pairwise(f" {code} "):
                row[crc32("".join(pair).encode()) % self.n_bins] += 1
        return rows


class ByteEncoder(ModelEncoder):
    """Encode texts by the mean vector of their bytes, with the table of vectors in a folder's "table.npy"."""

    _strings_are_paths = False

    def __init__(
        self,
        model,
        *,
        device="auto",
        precision="auto",
        batch_size="auto",
        compile=False,
        normalize=False,
        store="auto",
        on_error="raise",
        revision=None,
        verbose=False,
    ):
        for name, value in list(locals().items()):
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def _load_model(self, source, device, dtype):
        table = torch.from_numpy(np.load(f"{source.folder}/table.npy")).to(device, dtype)
        return SimpleNamespace(network=torch.nn.EmbeddingBag.from_pretrained(table, mode="mean"), device=device)

    def _probe_item(self, number):
        return ["a", "bc", "def"][number]

    def _prepare_item(self, item):
        return torch.tensor(list(item.encode()))

    def _forward(self, model, batch):
        return torch.cat([model.network(codes[None].to(model.device)) for codes in batch])


CODES = ["AB-1", "ab-1", "XY-77", None, "AB-1"]


def test_an_encoder_takes_at_most_forty_lines():
    assert len(inspect.getsource(HashingEncoder).splitlines()) <= 40
    assert len(inspect.getsource(ByteEncoder).splitlines()) <= 40


@pytest.mark.parametrize("make", [list, np.array, pd.Series, lambda items: pd.DataFrame({"code": items})])
def test_an_encoder_of_items(make):
    column = make(CODES) if make is not np.array else np.array(CODES, dtype=object)
    X = HashingEncoder(8).fit_transform(column)
    assert X.shape == (5, 8)
    assert X.dtype == np.float32
    assert_array_equal(X[0], X[1])
    assert_array_equal(np.isnan(X).all(axis=1), [False, False, False, True, False])
    assert X[2].sum() == 6


def test_an_encoder_of_items_like_any_other():
    encoder = HashingEncoder(4).fit(CODES)
    assert_array_equal(pickle.loads(pickle.dumps(encoder)).transform(CODES), clone(encoder).fit_transform(CODES))
    assert encoder.set_output(transform="pandas").transform(CODES).shape == (5, 4)
    with pytest.raises(ItemError, match=r"HashingEncoder: row 1: .*expected a string, got int"):
        HashingEncoder().fit_transform(["a", 3])
    with pytest.warns(UserWarning, match="1 of 2 items"):
        X = HashingEncoder(on_error="missing").fit_transform(["a", 3])
    assert np.isnan(X[1]).all()
    pipe = make_pipeline(ModalityFuser([("code", HashingEncoder(), "code")]), LogisticRegression())
    frame = pd.DataFrame({"code": [f"{letter}{i}" for i in range(20) for letter in "AB"]})
    grid = {"modalityfuser__code__n_bins": [2, 16]}
    assert GridSearchCV(pipe, grid, error_score="raise").fit(frame, [0, 1] * 20).best_score_ > 0.8


def test_an_encoder_with_a_network(tmp_path):
    table = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    folder = tmp_path / "model"
    folder.mkdir()
    np.save(folder / "table.npy", table)
    with EmbeddingStore(tmp_path / "store") as store:
        texts = ["ab", "b", None, "ab", str(folder / "table.npy")]
        X = ByteEncoder(folder, store=store).fit_transform(texts)
        assert_allclose(X[0], table[[97, 98]].mean(axis=0), rtol=1e-6)
        assert np.isnan(X[2]).all()
        assert store.info()["entries"] == 3
        assert_array_equal(ByteEncoder(folder, store=store).fit_transform(texts), X)
        assert (store.hits, store.misses) == (3, 3)
        np.save(folder / "table.npy", table + 1)
        assert_allclose(ByteEncoder(folder, store=store).fit_transform(["b"])[0], table[98] + 1, rtol=1e-6)


BLOCKS = {"a": slice(0, 1), "b": slice(1, None)}


class CentroidFusion(BlockTransformer):
    """Squared distances of each block to the centroids of the classes; those of a missing block are their means.

    Parameters
    ----------
    shrinkage : float, default=0.1
        Share by which the centroids are moved to the mean of all rows.

    scaling : {"norm", "std"} or None, default="std"
        How the columns are scaled before, as in ConcatFusion.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block.
    """

    def __init__(self, shrinkage=0.1, *, scaling="std", blocks=None):
        self.shrinkage = shrinkage
        self.scaling = scaling
        self.blocks = blocks

    def _needs_y(self):
        return True

    def _fit_blocks(self, X, y):
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        filled, present = self._fill(X), ~self._missing(X)
        self.centroids_, self.mean_distances_ = {}, {}
        for (name, columns), rows in zip(self.blocks_.items(), present.T, strict=True):
            block, labels = filled[rows, columns], y[rows]
            mean = block.mean(axis=0)
            centroids = [block[labels == label].mean(axis=0) if label in labels else mean for label in self.classes_]
            self.centroids_[name] = (1 - self.shrinkage) * np.array(centroids) + self.shrinkage * mean
            self.mean_distances_[name] = self._distances(block, name).mean(axis=0)

    def _distances(self, block, name):
        return ((block[:, None, :] - self.centroids_[name]) ** 2).sum(axis=2)

    def _transform_blocks(self, X):
        filled, missing = self._fill(X), self._missing(X)
        joined = []
        for (name, columns), rows in zip(self.blocks_.items(), missing.T, strict=True):
            distances = self._distances(filled[:, columns], name)
            joined.append(np.where(rows[:, None], self.mean_distances_[name], distances))
        return np.hstack(joined).astype(X.dtype)

    def _names_out(self, input_features):
        return self._block_names(dict.fromkeys(self.blocks_, len(self.classes_)))


def test_it_takes_at_most_sixty_lines():
    assert len(inspect.getsource(CentroidFusion).splitlines()) <= 60


@parametrize_with_checks([CentroidFusion(), CentroidFusion(blocks=BLOCKS)])
def test_estimator_checks(estimator, check):
    check(estimator)


def fusion_data():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    return rng.normal(size=(60, 5)) + 2 * rng.normal(size=(3, 5))[y], y


def test_distances_and_missing_blocks():
    X, y = fusion_data()
    fusion = CentroidFusion(0, scaling=None, blocks={"a": slice(0, 2), "b": slice(2, None)})
    out = fusion.fit_transform(X, y)
    centroids = np.array([X[y == label].mean(axis=0) for label in range(3)])
    squares = (X[:, None] - centroids) ** 2
    assert_allclose(out, np.hstack([squares[:, :, :2].sum(axis=2), squares[:, :, 2:].sum(axis=2)]))
    gone = X.copy()
    gone[7, :2] = np.nan
    assert_allclose(fusion.transform(gone)[7], np.r_[out[:, :3].mean(axis=0), out[7, 3:]])
    assert fusion.transform(X.astype(np.float32)).dtype == np.float32
    assert_array_equal(fusion.get_feature_names_out()[[0, 5]], ["a__centroidfusion0", "b__centroidfusion2"])


@pytest.mark.parametrize("scaling", ["norm", None])
def test_in_a_fuser_and_a_search(scaling):
    X, y = fusion_data()
    frame = pd.DataFrame(X, columns=list("pqrst"))
    frame.loc[::7, ["p", "q"]] = np.nan
    fuser = ModalityFuser(
        [("first", "passthrough", ["p", "q"]), ("second", "passthrough", ["r", "s", "t"])],
        fusion=CentroidFusion(scaling=scaling),
    )
    grid = {"modalityfuser__fusion__shrinkage": [0.0, 0.5]}
    search = GridSearchCV(make_pipeline(fuser, LogisticRegression()), grid, cv=3, error_score="raise").fit(frame, y)
    assert search.best_score_ > 0.8
    names = search.best_estimator_[0].get_feature_names_out()
    assert list(names[:4]) == [*(f"first__centroidfusion{i}" for i in range(3)), "second__centroidfusion0"]


class Halving(CentroidFusion):
    def _transform_blocks(self, X):
        return super()._transform_blocks(X)[::2]


class Listing(CentroidFusion):
    def _transform_blocks(self, X):
        return super()._transform_blocks(X).tolist()


class Flat(CentroidFusion):
    def _transform_blocks(self, X):
        return super()._transform_blocks(X)[:, 0]


class Wording(CentroidFusion):
    def _transform_blocks(self, X):
        return super()._transform_blocks(X).astype(str)


class Unfilled(CentroidFusion):
    def _transform_blocks(self, X):
        return X


class Infinite(CentroidFusion):
    def _transform_blocks(self, X):
        joined = super()._transform_blocks(X)
        joined[-1, 0] = -np.inf
        return joined


@pytest.mark.parametrize(
    ("fusion", "message"),
    [
        (
            Halving(),
            r"Halving: _transform_blocks must return .* \(60, n_features_out\).*got array of shape \(30, 6\)",
        ),
        (Listing(), "Listing: _transform_blocks must return an array .*got builtins.list object"),
        (Flat(), r"Flat: _transform_blocks must return .*got array of shape \(60,\) and dtype float64"),
        (Wording(), "Wording: _transform_blocks must return an array of numbers .*and dtype <U"),
        (Unfilled(), r"Unfilled: _transform_blocks returned nan in row 7, column 1; .*finite.*_fill\(X\)"),
        (Infinite(), "Infinite: _transform_blocks returned -inf in row 59, column 0; "),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("is_fuser", [False, True])
def test_strategies_that_return_what_they_should_not(fusion, message, is_fuser):
    X, y = fusion_data()
    X[7, 1] = np.nan
    members = [(name, "passthrough", columns) for name, columns in BLOCKS.items()]
    estimator = ModalityFuser(members, fusion) if is_fuser else clone(fusion).set_params(blocks=BLOCKS)
    with pytest.raises(ValueError, match=message):
        estimator.fit_transform(X, y)
    if not is_fuser:
        with pytest.raises(ValueError, match=message):
            estimator.fit(X, y).transform(X)


class Unnamed(CentroidFusion):
    def _names_out(self, input_features):
        return super()._names_out(input_features)[1:]


def test_a_strategy_with_too_few_names():
    X, y = fusion_data()
    fusion = Unnamed(blocks=BLOCKS)
    fusion.fit_transform(X, y)
    with pytest.raises(ValueError, match=r"Unnamed: _names_out returned 5 names, .* 6 columns; return one"):
        fusion.get_feature_names_out()
    with pytest.raises(ValueError, match="Unnamed: _names_out returned 5 names"):
        fusion.set_output(transform="pandas").fit_transform(X, y)


@pytest.fixture
def small():
    """Return 32 rows of 8 random features, and three classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 8)), np.arange(32) % 3


@pytest.fixture
def halves():
    """Return two modalities, of 5 columns and of the rest."""
    return [("a", "passthrough", slice(0, 5)), ("b", "passthrough", slice(5, None))]


QUICK = {"width": 8, "max_epochs": 3, "random_state": 0}


class MaxLayer(FusionLayer):
    """For each unit the maximum over the present modalities, after a linear map for each modality."""

    weighs = True

    def __init__(self, temperature=1.0):
        super().__init__()
        self.temperature = temperature

    def build(self, widths):
        self.maps = torch.nn.ModuleList(torch.nn.Linear(width, widths[0]) for width in widths)
        self.out_features = widths[0]

    def forward(self, hiddens, mask):
        mapped = torch.stack([layer(h) for layer, h in zip(self.maps, hiddens, strict=True)], dim=1) / self.temperature
        if mask is not None:
            mapped = mapped.masked_fill(~mask[:, :, None], -1e9)
        joint, winners = mapped.max(dim=1)
        return joint, torch.nn.functional.one_hot(winners, len(hiddens)).to(joint.dtype).mean(dim=1)


@pytest.mark.parametrize("fusion", [MaxLayer(), MaxLayer])
def test_a_layer_is_taken_as_an_object_or_a_class(fusion, small, halves):
    X, y = small
    X = X.copy()
    X[:4, :5] = np.nan
    net = MultimodalNetClassifier(halves, fusion, **QUICK).fit(X, y)
    weights = net.explain(X)
    assert (weights.loc[:3, "a"] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert net.transform(X).shape == (32, 8)
    # Weights come from random_state, and the object of the user stays unbuilt.
    assert_array_equal(clone(net).fit(X, y).predict_proba(X), net.predict_proba(X))
    assert fusion is MaxLayer or not hasattr(fusion, "maps")
    assert_array_equal(pickle.loads(pickle.dumps(net)).predict_proba(X), net.predict_proba(X))


def test_a_layer_is_trained(small, halves):
    X, y = small
    layers = [MultimodalNetClassifier(halves, MaxLayer(), **{**QUICK, "max_epochs": n}).fit(X, y) for n in (1, 2)]
    first, second = (net.network_.fusion.maps[0].weight for net in layers)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("n_layers", [0, 1])
def test_layers_join_vectors_of_one_width_unless_they_say_otherwise(n_layers, small, halves):
    class Side(FusionLayer):
        same_width = False

        def build(self, widths):
            self.widths = widths
            self.out_features = sum(widths)

        def forward(self, hiddens, mask):
            return torch.cat(hiddens, dim=1), None

    X, y = small
    net = MultimodalNetClassifier(halves, Side(), n_layers=n_layers, **QUICK).fit(X, y)
    assert net.network_.fusion.widths == ([8, 8] if n_layers else [5, 3])
    concat = MultimodalNetClassifier(halves, "concat", n_layers=n_layers, **QUICK).fit(X, y)
    assert net.network_.joint_features == concat.network_.joint_features
    assert not hasattr(net, "explain")
    maximum = MultimodalNetClassifier(halves, MaxLayer(), n_layers=n_layers, **QUICK).fit(X, y)
    assert {layer.in_features for layer in maximum.network_.fusion.maps} == {8}


def test_layers_can_be_searched(small, halves):
    net = MultimodalNetClassifier(halves, **{**QUICK, "max_epochs": 1})
    search = GridSearchCV(net, {"fusion": ["sum", MaxLayer(), MaxLayer(0.1)]}, cv=2, error_score="raise")
    assert search.fit(*small).cv_results_["mean_test_score"].shape == (3,)


class Unready(MaxLayer):
    def build(self, widths):
        super().build(widths)
        del self.out_features


class Bare(MaxLayer):
    def forward(self, hiddens, mask):
        return super().forward(hiddens, mask)[0]


class Narrow(MaxLayer):
    def forward(self, hiddens, mask):
        joint, weights = super().forward(hiddens, mask)
        return joint[:, 1:], weights


class Unweighed(MaxLayer):
    weighs = False


@pytest.mark.parametrize(
    ("fusion", "error", "message"),
    [
        (
            Unready(),
            ValueError,
            "fusion=Unready: build must set out_features to the width of the joint vectors, got None",
        ),
        (Bare(), TypeError, r"fusion=Bare: forward must return a tuple \(joint, weights\).* got shape \(2, 8\)"),
        (Narrow(), ValueError, r"fusion=Narrow: forward must return joint of shape \(2, 8\).* got shape \(2, 7\)"),
        (Unweighed(), ValueError, "fusion=Unweighed: forward must return weights as None where weighs is False"),
        (FusionLayer(), NotImplementedError, None),
        (7, ValueError, "The 'fusion' parameter of MultimodalNetClassifier must be"),
    ],
)
def test_layers_that_are_not_as_they_should_be(fusion, error, message, small, halves):
    with pytest.raises(error, match=message):
        MultimodalNetClassifier(halves, fusion, **QUICK).fit(*small)
