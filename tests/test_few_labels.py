"""Rows without a label, y = -1: scikit-learn's semi-supervised classifiers around and behind estimators of skmm."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from skmm import (
    AnchorFusion,
    AverageFusion,
    CCAFusion,
    ConcatFusion,
    ContrastiveFusion,
    KernelCCAFusion,
    KernelFusion,
    ModalityFuser,
    ModalityImputer,
    ModalityStackingClassifier,
    ModalityVotingClassifier,
    MultimodalNetClassifier,
    PCAFusion,
    PLSFusion,
    ProductFusion,
    TextEncoder,
)

BLOCKS = [("a", "passthrough", slice(0, 3)), ("b", "passthrough", slice(3, 6))]
MEMBERS = [(name, LogisticRegression(), columns) for name, _, columns in BLOCKS]
NET = {"width": 8, "max_epochs": 40, "learning_rate": 0.02, "class_weight": "balanced", "random_state": 0}
SUPCON = ContrastiveFusion(2, objective="supcon", max_epochs=3, random_state=0, device="cpu")


def make_rows(n=240, n_labels=5, missing=True):
    """Return two modalities that tell three classes, y with -1 in most rows, and all of it."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 3
    X = rng.normal(size=(n, 6)) + 2 * np.eye(3)[truth][:, [0, 1, 2, 0, 1, 2]]
    if missing:
        X[n_labels * 3 :: 9, :3] = np.nan
    return X, np.where(np.arange(n) < n_labels * 3, truth, -1), truth


def fused(fusion):
    return make_pipeline(ModalityFuser(BLOCKS, fusion), LogisticRegression())


CLASSIFIERS = [
    fused("concat"),
    fused("lda"),
    fused(CCAFusion(2, target="block")),
    ModalityVotingClassifier(MEMBERS),
    ModalityVotingClassifier(MEMBERS, weights="auto", cv=2),
    ModalityStackingClassifier(MEMBERS, cv=2),
    MultimodalNetClassifier(BLOCKS, device="cpu", **NET),
]


@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda model: str(model)[:60])
def test_self_training_around(classifier):
    X, y, truth = make_rows()
    labelled = y >= 0
    # Where nothing is certain enough, only the labelled rows count.
    alone = clone(classifier).fit(X[labelled], y[labelled])
    taught = SelfTrainingClassifier(classifier, threshold=1 - 1e-12).fit(X, y)
    np.testing.assert_array_equal(taught.predict_proba(X), alone.predict_proba(X))
    taught.set_params(threshold=0.7, max_iter=2).fit(X, y)
    assert taught.classes_.tolist() == [0, 1, 2]
    assert (taught.transduction_ >= 0).sum() > 1.5 * labelled.sum()
    assert taught.score(X, truth) > 0.8
    # Labels that are strings come as objects, beside the number -1.
    names = np.array(["x", "y", "z", -1], dtype=object)
    assert (
        SelfTrainingClassifier(classifier, threshold=0.7, max_iter=2).fit(X, names[y]).predict(X).tolist()
        == names[taught.predict(X)].tolist()
    )


STRATEGIES = [
    AnchorFusion(),
    AverageFusion(),
    CCAFusion(2),
    ConcatFusion(),
    ContrastiveFusion(2, max_epochs=2, random_state=0, device="cpu"),
    KernelCCAFusion(2),
    KernelFusion(),
    ModalityImputer("regression"),
    PCAFusion(2),
    PLSFusion(2),
    ProductFusion(random_state=0),
]
SUPERVISED = [CCAFusion(target="block"), PLSFusion(target="block"), KernelCCAFusion(target="block"), SUPCON]


@pytest.mark.parametrize("fusion", STRATEGIES, ids=lambda fusion: type(fusion).__name__)
def test_semi_supervised_behind_a_fuser_that_learns_from_all_rows(fusion):
    X, y, _ = make_rows()
    features = ModalityFuser(BLOCKS, fusion).fit_transform(X)
    for last in (SelfTrainingClassifier(LogisticRegression()), LabelSpreading("knn")):
        model = make_pipeline(ModalityFuser(BLOCKS, fusion), last).fit(X, y)
        np.testing.assert_array_equal(model.predict(X), clone(last).fit(features, y).predict(features))
        assert model.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("fusion", SUPERVISED, ids=lambda fusion: type(fusion).__name__)
def test_spaces_of_labels_take_minus_1_for_no_label(fusion):
    X, y, truth = make_rows()
    fuser = ModalityFuser(BLOCKS, fusion)
    features = fuser.fit_transform(X, y)
    names = np.array(["x", "y", "z", -1], dtype=object)[y]
    np.testing.assert_array_equal(clone(fuser).fit_transform(X, names), features)
    names[y == -1] = None
    np.testing.assert_array_equal(clone(fuser).fit_transform(X, names), features)
    model = make_pipeline(fuser, SelfTrainingClassifier(LogisticRegression())).fit(X, y)
    assert model.score(X, truth) > 0.65


def test_rows_without_a_label_teach():
    gains = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        truth = np.arange(600) % 2
        X = np.where(rng.random((600, 20)) < 0.25, 1 - truth[:, None], truth[:, None]) + 0.5 * rng.normal(
            size=(600, 20)
        )
        y = np.where(np.arange(600) < 6, truth, -1)
        blocks = [("a", "passthrough", slice(0, 10)), ("b", "passthrough", slice(10, None))]
        fuser = ModalityFuser(blocks)
        alone = make_pipeline(fuser, LogisticRegression()).fit(X[:6], y[:6])
        taught = make_pipeline(fuser, SelfTrainingClassifier(LogisticRegression())).fit(X, y)
        gains.append(taught.score(X[6:], truth[6:]) - alone.score(X[6:], truth[6:]))
    assert np.mean(gains) > 0.03


def test_items_are_encoded_before(tiny_text_model):
    truth = np.arange(60) % 2
    X = pd.DataFrame({"text": [f"the {('cat', 'dog')[k]} {i}" for i, k in enumerate(truth)], "size": truth + 0.1})
    X.loc[50, "text"] = None
    y = np.where(np.arange(60) < 10, truth, -1)
    fuser = ModalityFuser(
        [("text", TextEncoder(str(tiny_text_model), device="cpu"), "text"), ("size", StandardScaler(), ["size"])]
    )
    model = make_pipeline(fuser, SelfTrainingClassifier(LogisticRegression())).fit(X, y)
    assert model.score(X, truth) > 0.9
