"""Targets and what their errors cost: classes, labels, numbers, losses, weights of classes and of rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_multilabel_classification
from sklearn.metrics import mean_pinball_loss
from sklearn.utils import compute_sample_weight
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data

from skmm import MultimodalNetClassifier, MultimodalNetRegressor
from skmm.neural_network._classifier import _balance
from skmm.neural_network.network import FUSIONS

NAMES = sorted(FUSIONS)
QUICK = {"width": 16, "max_epochs": 20, "random_state": 0}


def test_classes_are_of_any_kind(small, halves):
    X, y = small
    names = np.array(["fox", "hen", "owl"], dtype=object)[y]
    net = MultimodalNetClassifier(halves, **QUICK).fit(X, names)
    assert net.classes_.tolist() == ["fox", "hen", "owl"]
    assert_array_equal(net.predict(X), net.classes_[net.predict_proba(X).argmax(axis=1)])
    assert_array_equal(net.predict(X), net.classes_[net.decision_function(X).argmax(axis=1)])
    assert_array_equal(net.predict_proba(X), MultimodalNetClassifier(halves, **QUICK).fit(X, y).predict_proba(X))


def test_several_labels(halves):
    X, y = make_multilabel_classification(n_samples=300, n_features=10, n_classes=3, random_state=0)
    net = MultimodalNetClassifier(halves, **{**QUICK, "learning_rate": 0.02}).fit(X, y)
    assert [classes.tolist() for classes in net.classes_] == [[0, 1]] * 3
    proba, decision = net.predict_proba(X), net.decision_function(X)
    assert [p.shape for p in proba] == [(300, 2)] * 3
    assert decision.shape == (300, 3)
    assert_array_equal(net.predict(X), (decision > 0).astype(int))
    assert_array_equal(net.predict(X), np.column_stack([p.argmax(axis=1) for p in proba]))
    assert (net.predict(X) == y).mean() > 0.8


def test_several_outputs_of_different_scale(halves):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 8))
    y = np.column_stack([1e6 + 1e4 * X[:, 0], 1e-3 * X[:, 7]])
    net = MultimodalNetRegressor(halves, width=32, learning_rate=0.01, max_epochs=60, random_state=0).fit(X, y)
    assert net.predict(X).shape == (300, 2)
    assert net.score(X, y) > 0.9
    single = MultimodalNetRegressor(halves, **QUICK).fit(X, y[:, 0])
    assert single.predict(X).shape == (300,)


def test_quantiles(halves):
    X, y = load_diabetes(return_X_y=True)
    settings = {"learning_rate": 0.01, "max_epochs": 40, "width": 16, "random_state": 0}
    for quantile in (0.1, 0.9):
        net = MultimodalNetRegressor(halves, loss="quantile", quantile=quantile, **settings).fit(X, y)
        assert abs((y < net.predict(X)).mean() - quantile) < 0.06
        constant = np.full(len(y), np.quantile(y, quantile))
        assert mean_pinball_loss(y, net.predict(X), alpha=quantile) < mean_pinball_loss(y, constant, alpha=quantile)


@pytest.mark.parametrize("loss", ["squared", "huber", lambda o, t, w: (o - t).abs().mean()])
def test_losses_of_the_regressor(loss, halves):
    X, y = load_diabetes(return_X_y=True)
    net = MultimodalNetRegressor(halves, loss=loss, width=16, learning_rate=0.01, max_epochs=30, random_state=0)
    assert net.fit(X, y).score(X, y) > 0.4


def test_focal_loss_and_smoothing_make_less_sure(xor, halves):
    X, y, *_ = xor
    sure = {}
    for name, options in {"plain": {}, "focal": {"loss": "focal"}, "smooth": {"label_smoothing": 0.2}}.items():
        net = MultimodalNetClassifier(
            halves, "gated", width=32, max_epochs=20, learning_rate=0.01, random_state=0, **options
        )
        assert net.fit(X, y).score(X, y) > 0.95
        sure[name] = net.predict_proba(X).max(axis=1).mean()
    assert sure["plain"] > sure["focal"]
    assert sure["plain"] > sure["smooth"]


def test_class_weights_are_row_weights(small, halves):
    X, y = small
    weights = {0: 1.0, 1: 3.0, 2: 0.5}
    one = MultimodalNetClassifier(halves, class_weight=weights, **QUICK).fit(X, y)
    other = MultimodalNetClassifier(halves, **QUICK).fit(X, y, sample_weight=np.array([1.0, 3.0, 0.5])[y])
    assert_array_equal(one.predict_proba(X), other.predict_proba(X))


def test_a_balanced_rare_class_is_found(halves):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 8)), np.r_[np.zeros(380), np.ones(20)].astype(int)
    X[y == 1, 0] += 2
    settings = {"width": 8, "max_epochs": 20, "learning_rate": 0.02, "random_state": 0}
    plain = MultimodalNetClassifier(halves, **settings).fit(X, y)
    balanced = MultimodalNetClassifier(halves, class_weight="balanced", **settings).fit(X, y)
    assert balanced.predict(X).sum() > plain.predict(X).sum() + 10


def test_weights_of_zero_are_absent_rows(small, halves):
    X, y = small
    weights = np.r_[np.zeros(8), np.ones(24)]
    X_odd = X.copy()
    X_odd[:8] = 1e6
    one = MultimodalNetClassifier(halves, **QUICK).fit(X_odd, y, sample_weight=weights)
    other = MultimodalNetClassifier(halves, **QUICK).fit(X[8:], y[8:])
    assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-10)


def test_weights_that_make_no_sense(small, halves):
    with pytest.raises(ValueError, match="at least one non-zero number"):
        MultimodalNetClassifier(halves, **QUICK).fit(*small, sample_weight=np.zeros(32))
    message = "MultimodalNetClassifier: weights of rows must not be negative, and not all be 0"
    with pytest.raises(ValueError, match=message):
        MultimodalNetClassifier(halves, **QUICK).fit(*small, sample_weight=-np.ones(32))
    with pytest.raises(ValueError, match=message):
        MultimodalNetClassifier(halves, class_weight={0: 0, 1: 0, 2: 0}, **QUICK).fit(*small)


@pytest.mark.parametrize("fusion", NAMES)
@pytest.mark.parametrize("net", [MultimodalNetClassifier, MultimodalNetRegressor])
def test_weights_are_repeated_rows_in_every_fusion(net, fusion, halves):
    settings = {"width": 8, "dropout": 0.0, "learning_rate": 0.02, "max_epochs": 30}
    check_sample_weight_equivalence_on_dense_data(net.__name__, net(halves, fusion, **settings))


@pytest.mark.parametrize("several", [False, True])
def test_balanced_classes_count_rows_by_their_weights(several, small, halves):
    X, y = small
    y = np.column_stack([y > 0, y == 2]).astype(int) if several else y
    counts = np.arange(32) % 4
    settings = {"class_weight": "balanced", "width": 8, "dropout": 0.0, "batch_size": 100, "random_state": 0}
    one = MultimodalNetClassifier(halves, max_epochs=20, **settings).fit(X, y, sample_weight=counts)
    other = MultimodalNetClassifier(halves, max_epochs=20, **settings).fit(X.repeat(counts, 0), y.repeat(counts, 0))
    assert_allclose(one.decision_function(X), other.decision_function(X), rtol=1e-7)


@pytest.mark.parametrize("several", [False, True])
def test_balanced_is_scikit_learns(several):
    y = np.random.default_rng(0).integers(0, 2, size=(40, 3)) if several else np.repeat([0, 1, 2], [5, 10, 25])
    found, expected = _balance(y, np.ones(len(y))), compute_sample_weight("balanced", y)
    assert_allclose(found / found.mean(), expected / expected.mean(), rtol=1e-12)


def test_a_single_class_is_always_the_answer(small, halves):
    X, _ = small
    net = MultimodalNetClassifier(halves, **QUICK).fit(X, np.full(32, "owl"))
    assert net.classes_.tolist() == ["owl"]
    assert (net.predict(X) == "owl").all()
    assert net.predict_proba(X).tolist() == [[1.0]] * 32


@pytest.mark.parametrize("loss", ["focal", "huber", "quantile"])
def test_weights_are_repeated_rows_under_every_loss(loss, small, halves):
    X, y = small
    net = MultimodalNetClassifier if loss == "focal" else MultimodalNetRegressor
    net = net(halves, loss=loss, width=8, dropout=0.0, batch_size=100, max_epochs=20, random_state=0)
    counts = np.arange(32) % 4
    one = clone(net).fit(X, y, sample_weight=counts)
    other = clone(net).fit(X.repeat(counts, 0), y.repeat(counts, 0))
    assert_allclose(one.transform(X), other.transform(X), rtol=1e-7, atol=1e-12)
