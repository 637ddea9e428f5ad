"""Training that goes on, stops early or is broken off: warm starts, partial_fit, validation, interrupts."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skmm import MultimodalNetClassifier, MultimodalNetMultiTask, MultimodalNetRegressor
from skmm.neural_network import GradientModulation
from skmm.neural_network.branches import ModuleBranch
from skmm.neural_network.network import split_validation

QUICK = {"width": 16, "max_epochs": 20, "random_state": 0}


def test_warm_start_goes_on(small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, warm_start=True, dropout=0.0, width=16, max_epochs=10, random_state=0)
    first = net.fit(X, y).loss_curve_
    weights = net.network_.head.weight.clone()
    second = net.fit(X, y).loss_curve_
    assert second[0] < first[0]
    assert not torch.equal(weights, net.network_.head.weight)
    net.set_params(warm_start=False)
    assert_allclose(net.fit(X, y).loss_curve_, first)


def test_warm_start_wants_the_same_classes(small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, warm_start=True, **QUICK).fit(X, y)
    with pytest.raises(ValueError, match=r"y has the class '5', which the network does not have; .* \[0, 1, 2\]"):
        net.fit(X, y + 3 * (y == 2))


def test_partial_fit_learns_and_goes_on_after_pickling(xor, halves):
    X, y, X_test, y_test = xor
    net = MultimodalNetClassifier(halves, "gated", width=32, learning_rate=0.01, random_state=0)
    for start in range(0, 1000, 100):
        net.partial_fit(X[start : start + 100], y[start : start + 100], classes=[0, 1])
    copied = pickle.loads(pickle.dumps(net))
    for _ in range(10):
        for model in (net, copied):
            for start in range(0, 1000, 100):
                model.partial_fit(X[start : start + 100], y[start : start + 100])
    assert net.n_epochs_ == len(net.loss_curve_) == 110
    assert net.validation_scores_ is None
    assert net.score(X_test, y_test) > 0.95
    assert_array_equal(net.predict_proba(X), copied.predict_proba(X))


def test_partial_fit_with_classes_to_come(small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, **QUICK).partial_fit(X[y < 2], y[y < 2], classes=[0, 1, 2, 3])
    assert net.classes_.tolist() == [0, 1, 2, 3]
    assert net.partial_fit(X, y).predict_proba(X).shape == (32, 4)
    with pytest.raises(ValueError, match="y has the class '7'"):
        net.partial_fit(X, y + 7)
    assert MultimodalNetRegressor(halves, **QUICK).partial_fit(X, y).n_epochs_ == 1


def test_early_stopping_and_validation(xor, halves):
    X, y, X_val, y_val = xor
    settings = {"width": 32, "learning_rate": 0.01, "random_state": 0}
    auto = MultimodalNetClassifier(halves, "gated", max_epochs=3, **settings)
    assert len(auto.fit(np.tile(X, (10, 1)), np.tile(y, 10)).validation_scores_) == 3
    assert auto.fit(np.tile(X, (10, 1))[1:], np.tile(y, 10)[1:]).validation_scores_ is None
    assert len(auto.set_params(early_stopping=True).fit(X[:100], y[:100]).validation_scores_) == 3
    given = MultimodalNetClassifier(halves, "gated", max_epochs=200, patience=3, **settings)
    given.fit(X[:300], y[:300], X_val=X_val, y_val=y_val)
    scores = given.validation_scores_
    assert given.n_epochs_ == len(scores) < 200
    assert int(np.argmax(scores)) == len(scores) - 4
    # The weights are those of the best epoch.
    proba = given.predict_proba(X_val)[np.arange(len(y_val)), y_val]
    assert_allclose(-np.log(proba).mean(), -max(scores), rtol=1e-8)


def test_validation_that_makes_no_sense(small, halves):
    X, y = small
    with pytest.raises(ValueError, match="X_val and y_val come together"):
        MultimodalNetClassifier(halves).fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="early_stopping=False makes no use of X_val"):
        MultimodalNetClassifier(halves, early_stopping=False).fit(X, y, X_val=X, y_val=y)
    with pytest.raises(ValueError, match=r"validation_fraction=0.01 of 32 rows leaves no row to validate on"):
        MultimodalNetClassifier(halves, early_stopping=True, validation_fraction=0.01, **QUICK).fit(X, y)


def test_partial_fit_never_spares_rows(small, halves, monkeypatch):
    X, y = small
    monkeypatch.setattr("skmm.neural_network._base._MIN_ROWS_TO_SPLIT", 10)
    for early_stopping in ("auto", True):
        net = MultimodalNetClassifier(halves, early_stopping=early_stopping, validation_fraction=0.5, **QUICK)
        assert net.partial_fit(X, y).validation_scores_ is None
        assert net.fit(X, y).validation_scores_ is not None


def test_partial_fit_is_the_steps_of_one_adamw(small, halves):
    X, y = small
    settings = {"schedule": "constant", "batch_size": 32, "dropout": 0.0, "width": 16, "random_state": 0}
    whole = MultimodalNetClassifier(halves, "gated", max_epochs=4, **settings).fit(X, y)
    steps = MultimodalNetClassifier(halves, "gated", **settings)
    for _ in range(4):
        steps = pickle.loads(pickle.dumps(steps.partial_fit(X, y)))
    assert_array_equal(steps.predict_proba(X), whole.predict_proba(X))
    assert steps.loss_curve_ == whole.loss_curve_


def test_partial_fit_takes_the_parameters_of_now(small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, "gated", learning_rate=0.01, **QUICK).partial_fit(X, y).partial_fit(X, y)
    before = net.network_.head.weight.detach().clone()
    net.set_params(learning_rate=1e-12, weight_decay=0.0, modulation=GradientModulation()).partial_fit(X, y)
    # Steps of Adam are about as long as the rate.
    assert (net.network_.head.weight - before).abs().max() < 1e-9


def test_classes_stay_those_of_the_first_call(small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, **QUICK).partial_fit(X, y, classes=[2, 1, 0])
    net.partial_fit(X, y, classes=np.array([0, 1, 2]))
    message = r"classes stay those of the first call, \[0, 1, 2\], got \[0, 1, 2, 3\]"
    with pytest.raises(ValueError, match=message):
        net.partial_fit(X, y, classes=[0, 1, 2, 3])
    labels = np.column_stack([y > 0, y > 1]).astype(int)
    several = MultimodalNetClassifier(halves, **QUICK).partial_fit(X, labels, classes=[0, 1])
    assert several.partial_fit(X, labels, classes=[0, 1]).predict(X).shape == (32, 2)


def branch_of(net):
    return torch.cat([weights.detach().ravel() for weights in net.network_.branches[0].parameters()]).clone()


def test_branches_wait_through_calls_of_partial_fit(small):
    X, y = small
    modalities = [("a", ModuleBranch(torch.nn.Linear(5, 4), n_frozen_epochs=2), slice(0, 5)), ("b", "passthrough", [5])]
    net = MultimodalNetClassifier(modalities, **QUICK)
    states = [branch_of(net.partial_fit(X, y)) for _ in range(3)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[1], states[2])
    # A network that goes on has its first epochs behind it.
    warm = MultimodalNetClassifier(modalities, warm_start=True, **{**QUICK, "max_epochs": 2}).fit(X, y)
    before = branch_of(warm)
    assert all(weights.requires_grad for weights in warm.network_.parameters())
    assert not torch.equal(branch_of(warm.fit(X, y)), before)


def test_what_a_users_module_holds_fast_is_never_trained(small):
    X, y = small
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    module[0].requires_grad_(False)
    branch = ModuleBranch(module, n_frozen_epochs=1)
    net = MultimodalNetClassifier([("a", branch, slice(0, 5))], **QUICK).fit(X.astype(np.float32), y)
    trained = net.network_.branches[0].module
    assert torch.equal(trained[0].weight, module[0].weight)
    assert not torch.equal(trained[1].weight, module[1].weight)


class Ending:
    """An augmentation that ends the training with an error after some batches."""

    def __init__(self, n_batches, error=KeyboardInterrupt):
        self.n_batches = n_batches
        self.error = error

    def __call__(self, tensors, generator):
        self.n_batches -= 1
        if self.n_batches < 0:
            raise self.error("stop")
        return tensors


def ending(net, *args):
    return net.set_params(a=ModuleBranch(torch.nn.Linear(5, 4), augment=Ending(*args)))


@pytest.fixture
def breakable(halves):
    """Give an unfitted network with a batch of all rows."""
    modalities = [("a", "passthrough", slice(0, 5)), ("b", "passthrough", slice(5, None))]
    return MultimodalNetClassifier(modalities, batch_size=100, dropout=0.5, width=16, random_state=0)


def test_an_interrupt_leaves_what_was_learned(small, breakable):
    X, y = small
    with pytest.raises(KeyboardInterrupt):
        ending(breakable, 3).fit(X, y)
    assert breakable.n_epochs_ == len(breakable.loss_curve_) == 3
    # Dropout is off.
    assert_array_equal(breakable.predict_proba(X), breakable.predict_proba(X))
    loaded = pickle.loads(pickle.dumps(breakable))
    assert_array_equal(loaded.predict_proba(X), breakable.predict_proba(X))


def test_an_interrupt_leaves_the_best_weights_of_validation(small, breakable):
    X, y = small
    with pytest.raises(KeyboardInterrupt):
        ending(breakable, 8).set_params(learning_rate=0.1).fit(X, y, X_val=X, y_val=(y + 1) % 3)
    proba = breakable.predict_proba(X)[np.arange(32), (y + 1) % 3]
    assert len(breakable.validation_scores_) == 8
    assert breakable.validation_scores_[-1] < max(breakable.validation_scores_)
    assert_allclose(np.log(proba).mean(), max(breakable.validation_scores_), rtol=1e-6)


@pytest.mark.parametrize(("n_batches", "error"), [(0, KeyboardInterrupt), (2, ZeroDivisionError)])
def test_a_first_fit_that_fails_leaves_nothing(small, breakable, n_batches, error):
    with pytest.raises(error):
        ending(breakable, n_batches, error).fit(*small)
    with pytest.raises(NotFittedError):
        breakable.predict(small[0])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_later_fit_that_fails_leaves_the_network_of_before(small, breakable, method):
    X, y = small
    net = ending(breakable, 1000, ZeroDivisionError).set_params(max_epochs=3, warm_start=True, batch_size=16).fit(X, y)
    before, losses = net.predict_proba(X), net.loss_curve_
    augment = net.named_modalities_.a.augment
    augment.n_batches = 1
    with pytest.raises(ZeroDivisionError):
        getattr(net, method)(X, y)
    assert_array_equal(net.predict_proba(X), before)
    assert net.loss_curve_ == losses
    augment.n_batches = 1000
    assert not np.array_equal(getattr(net, method)(X, y).predict_proba(X), before)


@pytest.mark.parametrize("search", [False, True])
def test_validation_rows_are_routed(small, halves, search):
    X, y = small
    X_val, y_val = X[:9] + 0.1, y[:9]
    with config_context(enable_metadata_routing=True):
        net = MultimodalNetClassifier(halves, **QUICK).set_fit_request(X_val=True, y_val=True)
        pipe = Pipeline([("scale", StandardScaler()), ("net", net)], transform_input=["X_val"])
        if search:
            chosen = GridSearchCV(pipe, {"net__fusion": ["concat", "gated"]}, cv=2).fit(X, y, X_val=X_val, y_val=y_val)
            fitted = chosen.best_estimator_
        else:
            fitted = pipe.fit(X, y, X_val=X_val, y_val=y_val)
    scaler = StandardScaler().fit(X)
    direct = clone(fitted[-1]).fit(scaler.transform(X), y, X_val=scaler.transform(X_val), y_val=y_val)
    assert fitted[-1].validation_scores_ == direct.validation_scores_
    assert len(direct.validation_scores_) == direct.n_epochs_


@pytest.fixture
def validation_groups(monkeypatch):
    """Return a list of the pairs of groups, of training and validation, that later fits split; None without groups."""
    splits = []

    def note(n_samples, strata, fraction, random_state, owner, groups):
        train, validation = split_validation(n_samples, strata, fraction, random_state, owner, groups)
        splits.append(None if groups is None else (set(groups[train]), set(groups[validation])))
        return train, validation

    monkeypatch.setattr("skmm.neural_network._base.split_validation", note)
    return splits


@pytest.mark.parametrize("how", ["weights", "missing", "plain"])
def test_groups_of_the_validation_split_stay_whole(how, small, halves, validation_groups):
    X, y = small
    X, groups = X.copy(), np.array([f"speaker {i // 4}" for i in range(32)])
    weights = np.ones(32)
    if how == "weights":
        weights[:4] = 0
    if how == "missing":
        X[:4] = np.nan
    net = MultimodalNetClassifier(halves, early_stopping=True, validation_fraction=0.2, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.fit(X, y, weights, groups=groups)
    [(train, validation)] = validation_groups
    assert not train & validation
    assert train | validation == set(groups) - ({"speaker 0"} if how != "plain" else set())
    assert len(net.validation_scores_) == net.n_epochs_


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_groups_are_routed_by_a_search(small, halves, validation_groups, in_pipeline):
    """As with voters and stackers: by default, and not after ``set_fit_request(groups=False)``."""
    X, y = small
    groups = np.arange(32) // 4
    net = MultimodalNetClassifier(halves, early_stopping=True, validation_fraction=0.3, **QUICK)
    fusion = "net__fusion" if in_pipeline else "fusion"
    with config_context(enable_metadata_routing=True):
        model = Pipeline([("scale", StandardScaler()), ("net", net)]) if in_pipeline else net
        search = GridSearchCV(model, {fusion: ["concat", "sum"]}, cv=GroupKFold(2)).fit(X, y, groups=groups)
        assert [len(train | validation) for train, validation in validation_groups] == [4, 4, 4, 4, 8]
        assert not any(train & validation for train, validation in validation_groups)
        validation_groups.clear()
        net.set_fit_request(groups=False)
        search.fit(X, y, groups=groups)
        assert validation_groups == [None] * 5


@pytest.mark.parametrize("cls", [MultimodalNetClassifier, MultimodalNetRegressor, MultimodalNetMultiTask])
def test_every_network_requests_groups_only(cls, halves):
    requests = cls(halves).get_metadata_routing().fit.requests
    assert {name for name, request in requests.items() if request} == {"groups"}


def test_groups_need_one_entry_per_row(small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, early_stopping=True, **QUICK)
    with pytest.raises(ValueError, match=r"groups must have one entry for each of the 32 rows, got shape \(31,\)"):
        net.fit(X, y, groups=np.arange(31))
    with pytest.raises(ValueError, match="groups contains NaN"):
        net.fit(X, y, groups=np.where(y == 0, np.nan, y))
    # Without a split they have no effect.
    net = MultimodalNetClassifier(halves, **QUICK)
    assert_array_equal(net.fit(X, y, groups=y).predict_proba(X), clone(net).fit(X, y).predict_proba(X))
