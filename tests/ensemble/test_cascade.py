"""The cascade: thresholds that keep the score, rows that stop before dear modalities, order, missing modalities."""

import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline

from skmm import ImageDescriptor, ImageEncoder, ModalityCascadeClassifier, ModalityVotingClassifier
from skmm.ensemble._cascade import _Thresholds, _without_store

COSTS = {"cheap": 1, "middle": 5, "dear": 100}


class Counter(TransformerMixin, BaseEstimator):
    """Counts the rows that it transforms."""

    rows = 0

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        Counter.rows += len(X)
        return X


@pytest.fixture(scope="module")
def data():
    random = np.random.RandomState(0)
    y = random.randint(3, size=900)
    X = pd.DataFrame({"dear": y + random.normal(scale=0.2, size=900)})
    X["cheap"] = y + random.normal(scale=0.7, size=900)
    X["middle"] = y + random.normal(scale=0.5, size=900)
    return X, y


def members(counted=False):
    dear = make_pipeline(Counter(), LogisticRegression(C=100)) if counted else LogisticRegression(C=100)
    classifiers = {"dear": dear, "cheap": LogisticRegression(C=100), "middle": LogisticRegression(C=100)}
    return [(name, classifier, [name]) for name, classifier in classifiers.items()]


def test_rows_stop_and_the_score_stays(data):
    train, test, y_train, y_test = train_test_split(*data, random_state=0)
    cascade = ModalityCascadeClassifier(members(counted=True), costs=COSTS, tolerance=0.01).fit(train, y_train)
    assert cascade.order_ == ["cheap", "middle", "dear"]
    Counter.rows = 0
    predicted = cascade.predict(test)
    needed = cascade.stages(test)
    assert Counter.rows == 2 * needed["dear"].sum() < 2 * len(test)
    assert needed["cheap"].all()
    assert (needed["middle"] | ~needed["dear"]).all()
    everything = ModalityVotingClassifier(members(), voting="product", weights="auto").fit(train, y_train)
    assert accuracy_score(y_test, predicted) > everything.score(test, y_test) - 0.03
    assert cascade.n_encoded_["cheap"] == len(train) > cascade.n_encoded_["dear"]


def test_curve_of_cost_and_score(data):
    cascade = ModalityCascadeClassifier(members(), costs=COSTS).fit(*data)
    curve = cascade.curve()
    assert curve["share"].iloc[0] == 1
    assert (curve["score"].iloc[1:] >= curve["score"].iloc[0] - curve["tolerance"].iloc[1:] - 1e-12).all()
    assert curve["cost"].iloc[-1] < curve["cost"].iloc[1] < curve["cost"].iloc[0]
    row = curve[curve["tolerance"] == 0.005].iloc[0]
    n_encoded = [cascade.n_encoded_[name] * cost for name, cost in COSTS.items()]
    assert row["cost"] == pytest.approx(sum(n_encoded) / len(data[1]))


def test_without_stops_it_is_the_product_of_all(data):
    X, y = data
    cascade = ModalityCascadeClassifier(members(), costs=COSTS).fit(X, y)
    cascade.thresholds_ = dict.fromkeys(cascade.thresholds_, np.inf)
    product = ModalityVotingClassifier(members(), voting="product", weights="auto").fit(X, y)
    # The weights are found by an iteration, which begins from another order of the members.
    assert np.allclose(cascade.predict_proba(X), product.predict_proba(X), atol=1e-3)


def test_thresholds_are_those_of_brute_force():
    random = np.random.RandomState(0)
    y = random.randint(2, size=120)
    stages = []
    for scale in (1.5, 0.7, 0.3):
        p = 1 / (1 + np.exp(-(2 * y - 1 + random.normal(scale=scale, size=120)) / scale))
        stages.append(np.column_stack([1 - p, p]))
    present = np.ones((3, 120), dtype=bool)
    search = _Thresholds(stages, present, [1, 5, 100], lambda proba: np.mean(np.argmax(proba, axis=1) == y))
    for tolerance in (0, 0.02):
        lowest = search.score(search.none) - tolerance
        quantiles = [np.quantile(certainty, np.linspace(0, 1, 50)) for certainty in search.certainty[:2]]
        trials = [np.array([*pair, np.inf]) for pair in itertools.product(*[[*q, np.inf] for q in quantiles])]
        costs = [search.cost(trial) for trial in trials if search.score(trial) >= lowest]
        chosen = search.choose(tolerance)
        assert search.score(chosen) >= lowest
        # One threshold after the other: near the best pair.
        assert search.cost(chosen) <= 1.25 * min(costs)


def test_missing_modalities(data):
    X, y = data[0].copy(), data[1]
    X.loc[:99, "cheap"] = np.nan
    X.loc[50:149, "middle"] = np.nan
    X.loc[80:119, "dear"] = np.nan
    cascade = ModalityCascadeClassifier(members(), costs=COSTS).fit(X, y)
    with pytest.warns(UserWarning, match="20 of 900 rows have no modality"):
        needed = cascade.stages(X)
    assert not needed["cheap"][:100].any()
    assert not needed[80:100].to_numpy().any()
    with pytest.warns(UserWarning, match="20 of 20 rows have no modality"):
        proba = cascade.predict_proba(X[80:100])
    assert np.allclose(proba, np.bincount(y) / 900)
    # A row does not depend on its neighbours.
    rows = np.r_[0:80, 100:900:7]
    assert np.allclose(cascade.predict_proba(X.iloc[rows[::2]]), cascade.predict_proba(X.iloc[rows])[::2])


def test_measured_costs_decide_the_order(data, monkeypatch):
    clock = iter(np.arange(100.0) ** 2)
    monkeypatch.setattr("skmm.ensemble._cascade.time.perf_counter", lambda: next(clock))
    # Each later member takes longer by this clock.
    cascade = ModalityCascadeClassifier(members()).fit(*data)
    assert cascade.order_ == ["dear", "cheap", "middle"]
    assert list(cascade.costs_) == ["dear", "cheap", "middle"]


def test_scoring(data):
    X, y = data
    y = np.minimum(y, 1)
    cascade = ModalityCascadeClassifier(members(), costs=COSTS, scoring="balanced_accuracy", tolerance=0.02).fit(X, y)
    assert (
        cascade.curve()["score"].iloc[0]
        != ModalityCascadeClassifier(members(), costs=COSTS).fit(X, y).curve()["score"].iloc[0]
    )


@pytest.mark.slow
def test_search_and_single_member(data):
    X, y = data
    search = GridSearchCV(
        ModalityCascadeClassifier(members(), costs=COSTS, cv=2), {"tolerance": [0, 0.05], "cheap__C": [1, 100]}, cv=2
    )
    assert search.fit(X, y).best_score_ > 0.8
    alone = ModalityCascadeClassifier(members()[:1], costs={"dear": 1}).fit(X, y)
    assert alone.thresholds_ == {"dear": np.inf}
    assert alone.stages(X).to_numpy().all()


def test_bad_input(data):
    X, y = data
    with pytest.raises(
        ValueError, match=r"costs need one entry for each of the modalities \['dear', 'cheap', 'middle'\]"
    ):
        ModalityCascadeClassifier(members(), costs={"dear": 1}).fit(X, y)
    with pytest.raises(ValueError, match=r"costs must be positive numbers, got \{'cheap': 0\}"):
        ModalityCascadeClassifier(members(), costs={**COSTS, "cheap": 0}).fit(X, y)
    with pytest.raises(ValueError, match=r"costs must be positive numbers, got \{'dear': inf\}"):
        ModalityCascadeClassifier(members(), costs={**COSTS, "dear": np.inf}).fit(X, y)
    with pytest.raises(ValueError, match=r"the score of the out-of-fold predictions, .* is nan"):
        ModalityCascadeClassifier(members(), costs=COSTS, scoring=lambda estimator, X, y: np.nan).fit(X, y)
    with pytest.raises(TypeError, match="modality 'dear' needs a classifier with predict_proba, got LinearRegression"):
        ModalityCascadeClassifier([("dear", LinearRegression(), ["dear"])]).fit(X, y)
    with pytest.raises(ValueError, match="takes one class per row, got y with 2 labels"):
        ModalityCascadeClassifier(members()).fit(X, np.column_stack([y > 0, y > 1]).astype(int))


def test_costs_are_measured_where_items_cannot_be_read(tmp_path):
    for i in range(40):
        Image.new("RGB", (8, 8), (6 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"damaged")
    X = pd.DataFrame({"photo": [str(tmp_path / f"{i}.png") for i in range(40)], "size": np.linspace(0, 1, 40)})
    cascade = ModalityCascadeClassifier(
        [
            ("image", make_pipeline(ImageDescriptor(on_error="missing"), LogisticRegression()), "photo"),
            ("size", LogisticRegression(), ["size"]),
        ],
    )
    with pytest.warns(UserWarning, match="could not be encoded"):
        cascade.fit(X, np.arange(40) >= 20)
    assert cascade.order_ == ["size", "image"]
    assert all(cost > 0 for cost in cascade.costs_.values())


def test_the_tolerance_weighs_rows(data):
    X, y = data
    weights = np.where(y == 1, 20.0, 0.05)
    weighted = ModalityCascadeClassifier(members(), costs=COSTS).fit(X, y, sample_weight=weights)
    repeats = ModalityCascadeClassifier(members(), costs=COSTS).fit(X, y)
    assert weighted.curve()["score"][0] > repeats.curve()["score"][0]
    search = weighted.curve().iloc[1:]
    assert (search["score"] >= weighted.curve()["score"][0] - search["tolerance"]).all()
    # A callable gets no weights.
    called = ModalityCascadeClassifier(members(), costs=COSTS, scoring=lambda estimator, X, y: estimator.score(X, y))
    assert called.fit(X, y, sample_weight=weights).curve()["score"][0] != weighted.curve()["score"][0]


def test_networks_in_memory_are_not_copied_to_be_timed():
    torch = pytest.importorskip("torch")
    network = torch.nn.Linear(2, 2)
    encoder = ImageEncoder(network, preprocess=np.asarray)
    pipeline = make_pipeline(encoder, LogisticRegression())
    timed = _without_store(pipeline)
    assert timed is not pipeline
    assert timed[0].store is None
    assert timed[0].model is network
