"""Voters, stackers and networks that find out the modalities by themselves, and weights of rows in pipelines."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import (
    ModalityStackingClassifier,
    ModalityStackingRegressor,
    ModalityVotingClassifier,
    ModalityVotingRegressor,
    MultimodalNetClassifier,
    MultimodalNetMultiTask,
    MultimodalNetRegressor,
)

NET = {"max_epochs": 60, "width": 8, "learning_rate": 0.02, "early_stopping": False, "random_state": 0, "device": "cpu"}
CLASSIFIERS = [
    ModalityVotingClassifier(),
    ModalityVotingClassifier(weights="auto", voting="product", cv=3),
    ModalityStackingClassifier(cv=3),
    MultimodalNetClassifier(**NET),
]
REGRESSORS = [ModalityVotingRegressor(), ModalityStackingRegressor(cv=3), MultimodalNetRegressor(**NET)]


@pytest.fixture(scope="module")
def frame():
    # Words in lists and vectors need no encoder.
    random = np.random.RandomState(0)
    y = np.tile([0, 1, 2], 30)
    words = [["purrs", "soft"], ["barks", "loud"], ["lays", "small"]]
    X = pd.DataFrame(
        {
            "words": pd.Series([words[label] + [f"w{i % 5}"] for i, label in enumerate(y)], dtype=object),
            "size": y + random.normal(size=90),
            "colour": random.choice(["red", "green"], 90),
        }
    )
    X.loc[3:6, "words"] = None
    return X, y


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=lambda estimator: type(estimator).__name__)
def test_classifiers(estimator, frame):
    X, y = frame
    fitted = clone(estimator).fit(X, y)
    assert [name for name, _, _ in fitted.modalities_] == ["tags", "table"]
    assert fitted.score(X, y) > 0.7
    assert fitted.predict_proba(X.iloc[2:8]).shape == (6, 3)
    weighted = clone(estimator).fit(X, y, sample_weight=np.where(y == 2, 1e-6, 1.0))
    assert (weighted.predict(X) == 2).mean() < (fitted.predict(X) == 2).mean() / 2


@pytest.mark.parametrize("estimator", REGRESSORS, ids=lambda estimator: type(estimator).__name__)
def test_regressors(estimator, frame):
    X, y = frame
    assert clone(estimator).fit(X, y + 0.5 * np.arange(90) / 90, sample_weight=np.ones(90)).score(X, y) > 0.4


def test_vectors():
    random = np.random.RandomState(0)
    y = np.tile([0, 1], 30)
    vectors = list(y[:, None] + random.normal(size=(60, 4)))
    X = pd.DataFrame({"vector": pd.Series(vectors, dtype=object), "noise": random.normal(size=60)})
    for estimator in CLASSIFIERS:
        fitted = clone(estimator).fit(X, y)
        assert [name for name, _, _ in fitted.modalities_] == ["vector", "table"]
        assert fitted.score(X, y) > 0.7


def test_several_tasks(frame):
    X, y = frame
    tasks = pd.DataFrame({"kind": y.astype(str), "number": X["size"]})
    predicted = MultimodalNetMultiTask(**NET).fit(X, tasks).predict(X)
    assert (predicted["kind"] == tasks["kind"]).mean() > 0.7


def test_search_over_explicit_and_inferred(frame):
    X, y = frame
    explicit = [("table", make_pipeline(StandardScaler(), LogisticRegression()), ["size"])]
    search = GridSearchCV(ModalityVotingClassifier(), {"modalities": ["auto", explicit]}, cv=2).fit(X, y)
    assert search.best_params_["modalities"] == "auto"


def test_weights_reach_the_last_step_of_a_pipeline():
    random = np.random.RandomState(0)
    X, y = random.normal(size=(60, 2)), np.arange(60) % 2
    weights = random.uniform(size=60)
    vote = ModalityVotingClassifier([("a", make_pipeline(StandardScaler(), LogisticRegression()), slice(0, 2))])
    vote.fit(X, y, sample_weight=weights)
    scaler = StandardScaler().fit(X)
    expected = LogisticRegression().fit(scaler.transform(X), y, sample_weight=weights)
    assert np.allclose(vote.predict_proba(X), expected.predict_proba(scaler.transform(X)))
    vote.set_params(a=make_pipeline(StandardScaler(), KNeighborsClassifier()))
    with pytest.raises(TypeError, match="'a', KNeighborsClassifier, does not take sample weights; use another"):
        vote.fit(X, y, sample_weight=weights)
