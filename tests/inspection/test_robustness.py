"""Curves of scores as modalities go missing."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from skmm import ImageDescriptor, ModalityFuser, ModalityVotingClassifier
from skmm.datasets import make_multimodal_classification
from skmm.inspection import missing_modality_curve


def triples(data, member="passthrough"):
    return [(name, member, columns) for name, columns in data.modalities.items()]


@pytest.fixture(scope="module")
def data():
    return make_multimodal_classification(300, private=[2, 1], return_X_y=False, random_state=0)


@pytest.fixture(scope="module")
def model(data):
    return make_pipeline(ModalityFuser(triples(data)), LogisticRegression()).fit(data.X, data.y)


def columns_of(name, X):
    return [column for column in X if column.startswith(name)]


def test_ends_are_the_scores_with_and_without(data, model):
    result = missing_modality_curve(model, data.X, data.y, lose=["a", "b", ("a", "b")], random_state=0)
    assert result.curves == ["a", "b", "a + b"]
    np.testing.assert_allclose(result.shares, np.arange(11) / 10)
    assert result.scores.shape == (3, 11, 5)
    assert (result.scores[:, 0] == model.score(data.X, data.y)).all()
    for row, name in enumerate("ab"):
        alone = model.score(data.X.assign(**dict.fromkeys(columns_of(name, data.X), np.nan)), data.y)
        assert (result.scores[row, -1] == alone).all()
    np.testing.assert_allclose(result.scores[2, -1], 0.5)
    np.testing.assert_allclose(result.scores_mean, result.scores.mean(axis=2))
    np.testing.assert_allclose(result.scores_std[:, [0, -1]], 0, atol=1e-12)
    # The stronger modality is the greater loss, and both are the greatest.
    assert result.scores_mean[2, 5] < result.scores_mean[0, 5] < result.scores_mean[1, 5] < result.scores_mean[1, 0]
    assert (result.corruption, result.score_name) == ("remove", "accuracy")


@pytest.mark.parametrize("corruption", ["remove", "noise", lambda item, rng: -item])
def test_shared_answers_are_those_of_each_table(data, model, corruption):
    def own_accuracy(estimator, X, y):
        return np.mean(estimator.predict(X) == y)

    results = missing_modality_curve(
        model,
        data.X,
        data.y,
        corruption=corruption,
        shares=[0.0, 0.3, 0.8],
        scoring={"recorded": "accuracy", "direct": own_accuracy},
        n_repeats=2,
        random_state=0,
    )
    np.testing.assert_array_equal(results["recorded"].scores, results["direct"].scores)
    assert results["direct"].corruption == (corruption if isinstance(corruption, str) else "custom")
    assert (results["direct"].scores[:, 2] < results["direct"].scores[:, 0]).all()


def test_rows_that_are_lost_stay_lost(data):
    seen = []

    def spy(estimator, X, y):
        seen.append(X["a__0"].isna().to_numpy())
        return 0.0

    model = make_pipeline(ModalityFuser(triples(data)), LogisticRegression()).fit(data.X, data.y)
    missing_modality_curve(model, data.X, data.y, lose=["a"], shares=[0.2, 0.5, 0.9], scoring=spy, n_repeats=1)
    _, *masks = seen
    assert [mask.sum() for mask in masks] == [60, 150, 270]
    assert (masks[0] <= masks[1]).all()
    assert (masks[1] <= masks[2]).all()


class Counting(LogisticRegression):
    """Counts how often it is asked."""

    asked = 0

    def predict_proba(self, X):
        type(self).asked += 1
        return super().predict_proba(X)


@pytest.mark.parametrize(("corruption", "asked"), [("remove", 3), ("noise", 9)])
def test_answers_are_asked_for_once(data, corruption, asked):
    model = make_pipeline(ModalityFuser(triples(data)), Counting()).fit(data.X, data.y)
    Counting.asked = 0
    missing_modality_curve(model, data.X, data.y, scoring="neg_log_loss", corruption=corruption, n_repeats=4)
    assert Counting.asked == asked


def test_regression_labels_and_weights(data):
    y = data.X["a__0"] + data.y
    model = make_pipeline(ModalityFuser(triples(data)), LinearRegression()).fit(data.X, y)
    result = missing_modality_curve(model, data.X, y, shares=[0, 1])
    assert result.score_name == "r2"
    assert result.scores_mean[0, 1] < result.scores_mean[0, 0]
    labels = np.column_stack([data.y, 1 - data.y])
    many = make_pipeline(ModalityFuser(triples(data)), MultiOutputClassifier(LogisticRegression())).fit(data.X, labels)
    result = missing_modality_curve(many, data.X, labels, shares=[0, 1])
    assert (result.scores[:, 0] == many.score(data.X, labels)).all()
    weight = np.arange(len(y)) % 2
    weighted = missing_modality_curve(model, data.X, y, shares=[0.0], sample_weight=weight, n_repeats=1)
    assert weighted.scores[0, 0, 0] == model.score(data.X, y, sample_weight=weight)


def test_glyphs_with_a_corruption_of_their_own_for_each(glyphs):
    X, y = glyphs.data, glyphs.target
    model = make_pipeline(
        ModalityFuser(
            [
                ("text", CountVectorizer(binary=True), "text"),
                ("image", ImageDescriptor("hog", cells_per_block=1), "image"),
            ]
        ),
        LogisticRegression(max_iter=200),
    ).fit(X, y)
    result = missing_modality_curve(
        model, X, y, corruption={"text": "drop_words", "image": "blur"}, shares=[0, 1], n_repeats=1, random_state=0
    )
    assert result.curves == ["text", "image"]
    assert (result.scores_mean[:, 1] < result.scores_mean[:, 0]).all()
    harder = missing_modality_curve(
        model, X, y, lose=["image"], corruption="blur", strength=0.3, shares=[1], n_repeats=1
    )
    assert harder.scores_mean[0, 0] < result.scores_mean[1, 1]


def test_repeatable_parallel_and_quiet(data, recwarn):
    vote = ModalityVotingClassifier(triples(data, LogisticRegression())).fit(data.X, data.y)
    options = {"lose": ["a", ("a", "b")], "shares": [0.5, 1.0], "random_state": 1}
    first, second = (missing_modality_curve(vote, data.X, data.y, n_jobs=n_jobs, **options) for n_jobs in (None, 2))
    np.testing.assert_array_equal(first.scores, second.scores)
    assert len(recwarn) == 0
    other = missing_modality_curve(vote, data.X, data.y, **{**options, "random_state": 2})
    assert (other.scores != first.scores).any()


def test_errors(data, model):
    X, y = data.X, data.y
    with pytest.raises(ValueError, match=r"lose must list modalities of \['a', 'b'\], .* got \['c'\]"):
        missing_modality_curve(model, X, y, lose=["c"])
    with pytest.raises(ValueError, match="lose must list"):
        missing_modality_curve(model, X, y, lose=[()])
    with pytest.raises(ValueError, match=r"shares must be a list of numbers in \[0, 1\], got \[2.0\]"):
        missing_modality_curve(model, X, y, shares=[2])
    with pytest.raises(ValueError, match=r"corruption must map each of \['a', 'b'\] to a callable or one of"):
        missing_modality_curve(model, X, y, corruption={"a": "noise"})
    with pytest.raises(ValueError, match="'corruption' parameter"):
        missing_modality_curve(model, X, y, corruption="fog")
    svc = SVC().fit(X, y)
    with pytest.raises(ValueError, match=r"SVC cannot predict with the modalities \['a'\] missing"):
        missing_modality_curve(svc, X, y, modalities=data.modalities)
    assert missing_modality_curve(svc, X, y, modalities=data.modalities, corruption="noise").scores.min() < 0.97
    with pytest.raises(ValueError, match="'blur' works on arrays and PIL images, got float") as caught:
        missing_modality_curve(model, X, y, corruption="blur")
    assert caught.value.__notes__[0].startswith("This happened in the modality 'a'; leave it out of lose=[...]")
