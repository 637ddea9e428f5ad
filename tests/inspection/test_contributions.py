"""Contributions of modalities to single predictions."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skmm import ModalityFuser, ModalityVotingClassifier, ModalityVotingRegressor
from skmm.datasets import make_multimodal_classification
from skmm.inspection import modality_contributions


def triples(data, member="passthrough"):
    return [(name, member, columns) for name, columns in data.modalities.items()]


@pytest.fixture(scope="module")
def data():
    return make_multimodal_classification(
        90, n_modalities=3, n_classes=3, missing_share=0.3, return_X_y=False, random_state=0
    )


@pytest.fixture(scope="module")
def classifier(data):
    return make_pipeline(ModalityFuser(triples(data)), LogisticRegression()).fit(data.X, data.y)


def present(data):
    return np.column_stack([data.X[columns].notna().all(axis=1) for columns in data.modalities.values()])


def test_they_sum_to_the_prediction(data, classifier):
    result = modality_contributions(classifier, data.X)
    assert result.modalities == ["a", "b", "c"]
    assert result.response_method == "predict_proba"
    assert result.contributions.shape == (90, 3, 3)
    np.testing.assert_array_equal(result.predictions, classifier.predict_proba(data.X))
    np.testing.assert_allclose(result.base + result.contributions.sum(axis=1), result.predictions, atol=1e-12)
    np.testing.assert_allclose(result.contributions.sum(axis=2), 0, atol=1e-12)
    np.testing.assert_allclose(result.base, np.tile(result.base[:1], (90, 1)), atol=1e-12)


def test_a_missing_modality_contributes_nothing(data, classifier):
    contributions = modality_contributions(classifier, data.X).contributions
    is_present = present(data)
    np.testing.assert_allclose(contributions[~is_present], 0, atol=1e-12)
    assert (np.abs(contributions[is_present]).max(axis=1) > 1e-6).all()


def test_a_linear_model_gives_weight_times_deviation(data):
    rng = np.random.default_rng(0)
    y = rng.normal(size=90)
    model = make_pipeline(ModalityFuser(triples(data)), LinearRegression()).fit(data.X, y)
    features = model[0].transform(data.X)
    means = model[0].transform(data.X.mask(np.ones(data.X.shape, dtype=bool)))
    terms = (features - means) * model[1].coef_
    expected = np.column_stack([terms[:, columns].sum(axis=1) for columns in model[0].blocks_.values()])
    result = modality_contributions(model, data.X)
    assert result.response_method == "predict"
    np.testing.assert_allclose(result.contributions, expected, atol=1e-10)


def test_a_vote_of_two_by_hand():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 2)), rng.normal(size=30)
    vote = ModalityVotingRegressor([("a", LinearRegression(), [0]), ("b", LinearRegression(), [1])]).fit(X, y)
    a, b = (np.asarray(vote.named_modalities_[name].predict(X[:, [i]])) for i, name in enumerate("ab"))
    both = (a + b) / 2
    expected = np.column_stack([(a - y.mean()) / 2 + (both - b) / 2, (b - y.mean()) / 2 + (both - a) / 2])
    result = modality_contributions(vote, X)
    np.testing.assert_allclose(result.contributions, expected, atol=1e-12)
    np.testing.assert_allclose(result.base, y.mean())


def test_decision_functions(data):
    binary = data.y % 2
    model = make_pipeline(ModalityFuser(triples(data)), LinearSVC()).fit(data.X, binary)
    result = modality_contributions(model, data.X)
    assert result.response_method == "decision_function"
    assert result.contributions.shape == (90, 3)
    np.testing.assert_allclose(result.base + result.contributions.sum(axis=1), model.decision_function(data.X))


def test_several_labels(data):
    y = np.column_stack([data.y == 0, data.y == 1]).astype(int)
    model = make_pipeline(ModalityFuser(triples(data)), MultiOutputClassifier(LogisticRegression())).fit(data.X, y)
    result = modality_contributions(model, data.X)
    assert result.contributions.shape == (90, 3, 2)
    np.testing.assert_array_equal(result.predictions[:, 1], model.predict_proba(data.X)[1][:, 1])


def test_other_columns_stay():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "rest"])
    y = X["rest"] + X["a"]
    model = make_pipeline(ModalityFuser([(name, "passthrough", [name]) for name in X]), LinearRegression()).fit(X, y)
    result = modality_contributions(model, X, modalities={"a": "a", "b": "b"})
    np.testing.assert_allclose(result.base, X["rest"] + X["a"].mean(), atol=1e-10)


def test_many_modalities_are_sampled():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 12))
    model = make_pipeline(ModalityFuser([(f"m{i}", "passthrough", [i]) for i in range(12)]), LinearRegression()).fit(
        X, X @ np.arange(12)
    )
    # Linear in the modalities, so any order of them gives the exact values.
    sampled = modality_contributions(model, X, max_coalitions=60, random_state=0)
    np.testing.assert_allclose(sampled.contributions, (X - X.mean(axis=0)) * np.arange(12), atol=1e-9)


def test_parallel_is_the_same(data, classifier):
    first, second = (modality_contributions(classifier, data.X, n_jobs=n_jobs) for n_jobs in (None, 2))
    np.testing.assert_array_equal(first.contributions, second.contributions)


def test_no_warning_of_rows_without_modalities(data, recwarn):
    vote = ModalityVotingClassifier(triples(data, LogisticRegression())).fit(data.X, data.y)
    modality_contributions(vote, data.X)
    assert len(recwarn) == 0


def test_errors(data, classifier):
    ridge = make_pipeline(ModalityFuser(triples(data)), RidgeClassifier()).fit(data.X, data.y)
    with pytest.raises(
        ValueError, match=r"Pipeline has no numbers to attribute: .*'predict_proba' needs predict_proba"
    ):
        modality_contributions(ridge, data.X, response_method="predict_proba")
    with pytest.raises(ValueError, match="labels are no numbers"):
        modality_contributions(ridge, data.X, response_method="predict")
    complete = data.X.fillna(0)
    linear = LinearRegression().fit(complete, data.y)
    with pytest.raises(ValueError, match=r"LinearRegression cannot predict with .* missing .* ModalityFuser"):
        modality_contributions(linear, complete, modalities=data.modalities)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        modality_contributions(linear, data.X, modalities=data.modalities)
