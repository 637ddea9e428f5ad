"""What a network shows of itself: weights of modalities, the joint representation."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from skmm import MultimodalNetClassifier

QUICK = {"width": 16, "max_epochs": 20, "random_state": 0}


@pytest.mark.parametrize("fusion", ["attention", "gated", "mixture", "weighted"])
def test_explain(fusion, small, halves):
    X, y = small
    X = pd.DataFrame(X, columns=[f"c{i}" for i in range(8)], index=range(100, 132))
    X.iloc[0, :5] = np.nan
    X.iloc[1] = np.nan
    weights = MultimodalNetClassifier(halves, fusion, **QUICK).fit(X, y).explain(X)
    assert weights.columns.tolist() == ["a", "b"]
    assert weights.index.tolist() == list(range(100, 132))
    assert weights.iloc[0].tolist() == [0, 1]
    assert weights.iloc[1].isna().all()
    rest = weights.iloc[2:].to_numpy()
    assert (rest >= 0).all()
    assert_allclose(rest.sum(axis=1), 1)


def test_explain_is_there_for_fusions_that_weigh(small, halves):
    net = MultimodalNetClassifier(halves, "tensor", **QUICK).fit(*small)
    assert not hasattr(net, "explain")


def test_gates_find_the_modality_that_knows(halves):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(600, 10)), rng.integers(0, 2, 600)
    X[:, :5] += 2 * y[:, None]
    net = MultimodalNetClassifier(halves, "weighted", width=16, max_epochs=40, learning_rate=0.01, random_state=0)
    assert net.fit(X, y).explain(X)["a"].mean() > 0.55


def test_transform_is_what_enters_the_head(small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, "gated", **QUICK).fit(X, y)
    joint = net.transform(X)
    head = net.network_.head
    logits = joint @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    assert_allclose(logits, net.decision_function(X), rtol=1e-10)


def test_explain_is_of_the_fusion_that_was_fitted(small, halves):
    X, y = small
    gated = MultimodalNetClassifier(halves, "gated", **QUICK).fit(X, y)
    before = gated.explain(X)
    pd.testing.assert_frame_equal(gated.set_params(fusion="concat").explain(X), before)
    assert not hasattr(MultimodalNetClassifier(halves, **QUICK).fit(X, y).set_params(fusion="gated"), "explain")
    assert hasattr(MultimodalNetClassifier(halves, "gated"), "explain")


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_transform_gives_frames(container, small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, **QUICK).fit(X, y).set_output(transform=container)
    names = net.get_feature_names_out().tolist()
    assert list(net.transform(X).columns) == names == [f"multimodalnetclassifier{i}" for i in range(16)]
