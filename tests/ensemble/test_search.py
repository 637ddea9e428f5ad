"""Stock searches over decision-level fusion on pictures and texts, in two processes."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import (
    ImageDescriptor,
    ModalityFuser,
    ModalityStackingClassifier,
    ModalityVotingClassifier,
    PCAFusion,
    TextEncoder,
)


@pytest.fixture
def scripts(glyphs):
    return glyphs.data, glyphs.target


def members():
    image = make_pipeline(ImageDescriptor("hog", cells_per_block=1), StandardScaler(), LogisticRegression(max_iter=200))
    text = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 3)), MultinomialNB(alpha=0.1))
    return [("text", text, "text"), ("image", image, "image")]


@pytest.mark.slow
def test_search_over_weights_rules_and_nested_parameters(scripts):
    X, y = scripts
    grid = [
        {"voting": ["soft", "product"], "weights": [None, {"text": 1, "image": 3}, "auto"]},
        {"voting": ["hard"], "image__logisticregression__C": [0.01, 1], "text__multinomialnb__alpha": [0.1]},
        {"text": ["drop"]},
    ]
    vote = ModalityVotingClassifier(members(), cv=2)
    search = GridSearchCV(vote, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 9
    assert (scores > np.bincount(y).max() / len(y)).all()
    assert search.predict(X[:5]).shape == (5,)


def test_search_over_whole_strategies(scripts):
    X, y = scripts
    text = ("text", TfidfVectorizer(analyzer="char"), "text")
    image = ("image", ImageDescriptor("hog", cells_per_block=1), "image")
    fused = Pipeline([("fuse", ModalityFuser([text, image])), ("clf", LogisticRegression(max_iter=200))])
    stack = ModalityStackingClassifier(members(), GaussianNB(), cv=2)
    grid = [
        {"model": [fused], "model__fuse__fusion": ["concat", PCAFusion(8)]},
        {"model": [ModalityVotingClassifier(members())], "model__voting": ["soft", "rank"]},
        {
            "model": [stack],
            "model__final_estimator__var_smoothing": [1e-3],
            "model__passthrough": [False, ModalityFuser([text, image], PCAFusion(4))],
        },
    ]
    search = GridSearchCV(Pipeline([("model", fused)]), grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 6
    assert search.best_score_ > np.bincount(y).max() / len(y)
    assert type(search.best_estimator_["model"]) in (Pipeline, ModalityVotingClassifier, ModalityStackingClassifier)


def test_a_member_may_be_a_pipeline_with_a_text_encoder(scripts, tiny_text_model):
    X, y = scripts
    X = X.copy()
    X.loc[X.index[::5], "text"] = None
    text = make_pipeline(TextEncoder(tiny_text_model), StandardScaler(), LogisticRegression(max_iter=200))
    vote = ModalityVotingClassifier([("text", text, "text"), members()[1]], "product", n_jobs=2).fit(X, y)
    own = vote.predict_by_modality(X)
    assert own["text"].isna().to_numpy().nonzero()[0].tolist() == list(range(0, len(X), 5))
    assert vote.predict(X[::5]).tolist() == own["image"][::5].tolist()


def test_scores_in_processes_are_those_at_home(scripts):
    X, y = scripts
    X = X.copy()
    X.loc[X.index[::5], "text"] = None
    vote = ModalityVotingClassifier(members(), "product")
    one, two = (cross_val_score(vote, X, y, cv=2, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert one.tolist() == two.tolist()
