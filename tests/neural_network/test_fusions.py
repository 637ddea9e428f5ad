"""What the fusions learn, and what they cannot: interactions, single modalities, the linear model."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from skmm import MultimodalNetClassifier
from skmm.neural_network.network import FUSIONS

NAMES = sorted(FUSIONS)
INTERACTING = ("attention", "film", "gated", "low_rank", "tensor")


@pytest.mark.parametrize("fusion", NAMES)
def test_every_fusion_overfits_32_rows(fusion, small, halves):
    net = MultimodalNetClassifier(
        halves, fusion, width=32, dropout=0.0, learning_rate=0.01, max_epochs=150, random_state=0
    )
    assert net.fit(*small).score(*small) == 1.0


@pytest.mark.parametrize("fusion", INTERACTING)
def test_fusions_that_multiply_learn_an_interaction(fusion, xor, halves):
    X, y, X_test, y_test = xor
    # No joint layer: it is the fusion that must see both.
    net = MultimodalNetClassifier(
        halves, fusion, n_joint_layers=0, width=32, max_epochs=25, learning_rate=0.01, random_state=0
    )
    assert net.fit(X, y).score(X_test, y_test) > 0.9


@pytest.mark.parametrize("fusion", ["concat", "sum", "weighted"])
def test_fusions_that_add_do_not(fusion, xor, halves):
    X, y, X_test, y_test = xor
    net = MultimodalNetClassifier(
        halves, fusion, n_joint_layers=0, width=32, max_epochs=25, learning_rate=0.01, random_state=0
    )
    assert net.fit(X, y).score(X_test, y_test) < 0.6


def test_single_modalities_are_at_chance(xor, halves):
    X, y, X_test, y_test = xor
    for modality in halves:
        net = MultimodalNetClassifier([modality], width=32, max_epochs=25, learning_rate=0.01, random_state=0)
        assert net.fit(X, y).score(X_test, y_test) < 0.6


def test_without_layers_it_is_logistic_regression():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6)) * [1, 2, 3, 1, 10, 0.1] + 5
    y = (X @ [1, 1, -1, 1, 0.1, 5] + 10 * rng.normal(size=300) > 40).astype(int)
    net = MultimodalNetClassifier(
        [("a", "passthrough", slice(0, 2)), ("b", "passthrough", slice(2, None))],
        n_layers=0,
        n_joint_layers=0,
        weight_decay=0.0,
        learning_rate=0.05,
        batch_size=300,
        max_epochs=1500,
        random_state=0,
    ).fit(X, y)
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(StandardScaler().fit_transform(X), y)
    assert_allclose(net.predict_proba(X), model.predict_proba(StandardScaler().fit_transform(X)), atol=1e-4)
    assert_allclose(net.network_.head.weight.detach().numpy(), model.coef_, rtol=1e-2, atol=1e-2)
