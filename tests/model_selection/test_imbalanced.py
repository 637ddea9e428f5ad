"""Unbalanced classes: class weights and imbalanced-learn's samplers, on fused features and in comparisons."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.preprocessing import StandardScaler

from skmm import CCAFusion, ConcatFusion, ModalityFuser
from skmm.model_selection import compare_fusions

SAMPLERS = [SMOTE(k_neighbors=3, random_state=0), RandomUnderSampler(random_state=0)]
IDS = [type(sampler).__name__ for sampler in SAMPLERS]
N_ROWS, N_RARE = 240, 30


@pytest.fixture(scope="module")
def data():
    """Text and numbers of which each tells part of a rare class, with gaps in both."""
    rng = np.random.default_rng(0)
    target = np.arange(N_ROWS) % (N_ROWS // N_RARE) == 0
    words = np.where(rng.random(N_ROWS) < np.where(target, 0.7, 0.3), "red fox", "grey hen").astype(object)
    frame = pd.DataFrame(
        {"caption": words, "weight": 1.2 * target + rng.normal(size=N_ROWS), "height": rng.normal(size=N_ROWS)}
    )
    frame.loc[3::11, "caption"] = None
    frame.loc[5::11, ["weight", "height"]] = np.nan
    return frame, np.where(target, "rare", "common")


@pytest.fixture(scope="module")
def modalities():
    return [("text", TfidfVectorizer(), "caption"), ("table", StandardScaler(), ["weight", "height"])]


class Counting(ClassifierMixin, BaseEstimator):
    """Learns nothing but how many rows of each class it was fitted on."""

    def fit(self, X, y):
        self.classes_, self.seen_ = np.unique(y), Counter(y)
        self.finite_ = bool(np.isfinite(X).all())
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=IDS)
@pytest.mark.parametrize("fusion", [ConcatFusion(), CCAFusion(2)], ids=["concat", "cca"])
def test_samplers_after_the_fuser_balance_fused_features(data, modalities, sampler, fusion):
    X, y = data
    pipe = make_pipeline(ModalityFuser(modalities, fusion), sampler, Counting()).fit(X, y)
    n_each = N_ROWS - N_RARE if isinstance(sampler, SMOTE) else N_RARE
    assert pipe[-1].seen_ == {"rare": n_each, "common": n_each}
    assert pipe[-1].finite_
    # Rows that are predicted are neither added nor left out.
    assert pipe.predict(X).shape == y.shape


@pytest.mark.parametrize("sampler", SAMPLERS, ids=IDS)
def test_samplers_work_in_searches_and_by_groups(data, modalities, sampler):
    X, y = data
    pipe = make_pipeline(ModalityFuser(modalities), sampler, LogisticRegression())
    grid = {"modalityfuser__fusion": ["concat", "pca"]}
    search = GridSearchCV(pipe, grid, cv=StratifiedKFold(3), scoring="balanced_accuracy", error_score="raise").fit(X, y)
    assert search.best_score_ > 0.6
    groups = np.arange(N_ROWS) // 4
    scores = cross_val_score(pipe, X, y, groups=groups, cv=StratifiedGroupKFold(3), scoring="balanced_accuracy")
    assert (scores > 0.55).all()


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(class_weight="balanced"),
        make_pipeline(SAMPLERS[1], LogisticRegression()),
        pytest.param(make_pipeline(SAMPLERS[0], LogisticRegression()), marks=pytest.mark.slow),
    ],
    ids=["class_weight", *IDS[::-1]],
)
def test_comparisons_take_class_weights_and_samplers(data, modalities, estimator):
    X, y = data
    excluded = ["lda", "product", "kernel", "pls", "kernel_cca", "average", "vote_weighted", "vote_product", "stack"]
    levels = ("single", "feature", "joint", "decision")
    options = {"scoring": "balanced_accuracy", "levels": levels, "exclude": excluded, "cv": 3}
    plain = compare_fusions(LogisticRegression(), X, y, modalities=modalities, **options, refit=False).to_frame()
    weighted = compare_fusions(estimator, X, y, modalities=modalities, **options)
    frame = weighted.to_frame()
    assert (frame["error"] == "").all()
    for label in ("concat", "pca", "cca", "table alone", "vote"):
        assert frame.loc[label, "mean"] > plain.loc[label, "mean"] + 0.05, label
    assert (weighted.best_estimator_.predict(X) == "rare").sum() > N_RARE
