"""Stock searches over decision-level fusion on pictures and texts, in two processes."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
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
from skmm.datasets import load_glyphs


@pytest.fixture(scope="module")
def glyphs():
    pytest.importorskip("matplotlib")
    return load_glyphs(n_samples=150, random_state=0, return_X_y=True)


def members(text_model):
    image = make_pipeline(ImageDescriptor("hog", cells_per_block=1), StandardScaler(), LogisticRegression(max_iter=200))
    text = make_pipeline(TextEncoder(text_model, batch_size=64), StandardScaler(), LogisticRegression(max_iter=200))
    return [("text", text, "text"), ("image", image, "image")]


def test_search_over_weights_rules_and_nested_parameters(glyphs, tiny_text_model):
    X, y = glyphs
    grid = [
        {"voting": ["soft", "product"], "weights": [None, {"text": 1, "image": 3}]},
        {"voting": ["hard"], "image__logisticregression__C": [0.01, 1]},
        {"text": ["drop"]},
    ]
    search = GridSearchCV(
        ModalityVotingClassifier(members(tiny_text_model)), grid, cv=2, n_jobs=2, error_score="raise"
    ).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 7
    # The tiny model knows nothing: all are better than the most frequent class, none need be good.
    assert (scores > np.bincount(y).max() / len(y)).all()
    assert search.predict(X[:5]).shape == (5,)


def test_search_over_whole_strategies(glyphs, tiny_text_model):
    X, y = glyphs
    blocks = [
        ("text", TextEncoder(tiny_text_model, batch_size=64), "text"),
        ("image", ImageDescriptor("hog", cells_per_block=1), "image"),
    ]
    fused = Pipeline([("fuse", ModalityFuser(blocks)), ("clf", LogisticRegression(max_iter=200))])
    vote = ModalityVotingClassifier(members(tiny_text_model))
    stack = ModalityStackingClassifier(members(tiny_text_model), GaussianNB(), cv=2)
    grid = [
        {"model": [fused], "model__fuse__fusion": ["concat", PCAFusion(16)]},
        {"model": [vote], "model__voting": ["soft", "rank"]},
        {"model": [vote], "model__weights": ["auto"], "model__cv": [2]},
        {
            "model": [stack],
            "model__final_estimator__var_smoothing": [1e-3],
            "model__passthrough": [False, PCAOfImage()],
        },
    ]
    pipe = Pipeline([("model", fused)])
    search = GridSearchCV(pipe, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 7
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_score_ > np.bincount(y).max() / len(y)


def PCAOfImage():
    return ModalityFuser([("image", ImageDescriptor("hog", cells_per_block=1), "image")], PCAFusion(8))


def test_scores_in_processes_are_those_at_home(glyphs, tiny_text_model):
    X, y = glyphs
    X = X.copy()
    X.loc[X.index[::5], "text"] = None
    vote = ModalityVotingClassifier(members(tiny_text_model), "product")
    cv = StratifiedKFold(2)
    one, two = (cross_val_score(vote, X, y, cv=cv, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert one.tolist() == two.tolist()
