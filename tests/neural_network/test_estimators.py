"""Both estimators: what they learn, targets, missing modalities, reproducibility, warm starts, search, persistence."""

import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_diabetes, make_multilabel_classification
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_pinball_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data

from skmm import ModalityFuser, MultimodalNetClassifier, MultimodalNetRegressor
from skmm.neural_network import GradientModulation, TextBranch, get_trusted_types
from skmm.neural_network._base import FUSIONS

NAMES = sorted(FUSIONS)
QUICK = {"width": 16, "max_epochs": 20, "random_state": 0}
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
    net = MultimodalNetClassifier(halves, fusion, n_joint_layers=0, width=32, max_epochs=60, random_state=0)
    assert net.fit(X, y).score(X_test, y_test) > 0.95


@pytest.mark.parametrize("fusion", ["concat", "sum", "weighted"])
def test_fusions_that_add_do_not(fusion, xor, halves):
    X, y, X_test, y_test = xor
    net = MultimodalNetClassifier(halves, fusion, n_joint_layers=0, width=32, max_epochs=60, random_state=0)
    assert net.fit(X, y).score(X_test, y_test) < 0.6


def test_single_modalities_are_at_chance(xor, halves):
    X, y, X_test, y_test = xor
    for modality in halves:
        net = MultimodalNetClassifier([modality], width=32, max_epochs=60, random_state=0)
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
        net = MultimodalNetClassifier(halves, "gated", width=32, max_epochs=60, random_state=0, **options).fit(X, y)
        assert net.score(X, y) > 0.95
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
def test_missing_modalities_do_not_count(fusion, small, halves):
    X, y = small
    X = X.copy()
    X[:10, :5] = np.nan
    X[20:25, 5:] = np.nan
    net = MultimodalNetClassifier(halves, fusion, **QUICK).fit(X, y)
    assert np.isfinite(net.predict_proba(X)).all()
    assert np.isfinite(net.transform(X)).all()
    # The rest of the batch has no influence on a row, whatever is missing elsewhere.
    assert_allclose(net.predict_proba(X[:10]), net.predict_proba(X)[:10], rtol=1e-10)


def test_a_cell_is_its_column_mean(small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, **QUICK).fit(X, y)
    holed, filled = X.copy(), X.copy()
    holed[:, 2] = np.nan
    filled[:, 2] = X[:, 2].mean()
    assert_allclose(net.predict_proba(holed), net.predict_proba(filled), rtol=1e-10)


def test_a_column_without_values_has_no_meaning(small, halves):
    X, y = small
    X = X.copy()
    X[:, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = MultimodalNetClassifier(halves, **QUICK).fit(X, y)
    other = X.copy()
    other[:, 1] = 1e9
    assert_array_equal(net.predict_proba(X), net.predict_proba(other))


def test_rows_without_any_modality(small, halves):
    X, y = small
    holed = X.copy()
    holed[:2] = np.nan
    net = MultimodalNetClassifier(halves, **QUICK).fit(holed, y)
    with pytest.warns(UserWarning, match="2 of 32 rows have no modality; they are answered with the class frequencies"):
        proba = net.predict_proba(holed)
    assert_allclose(proba[:2], [np.bincount(y) / 32] * 2, rtol=1e-10)
    assert np.isnan(net.transform(holed)[:2]).all()
    regressor = MultimodalNetRegressor(halves, **QUICK).fit(holed, y)
    with pytest.warns(UserWarning, match="no modality"):
        assert_allclose(regressor.predict(holed)[:2], y.mean())
    binary = MultimodalNetClassifier(halves, **QUICK).fit(X, y > 0)
    with pytest.warns(UserWarning, match="no modality"):
        assert_allclose(binary.predict_proba(holed)[0], [(y == 0).mean(), (y > 0).mean()], rtol=1e-10)


def test_a_modality_missing_everywhere_raises_in_fit_and_not_later(small, halves):
    X, y = small
    empty = X.copy()
    empty[:, :5] = np.nan
    net = MultimodalNetClassifier(halves, **QUICK)
    with pytest.raises(ValueError, match="Modality 'a' is missing in all 32 rows"):
        net.fit(empty, y)
    with pytest.raises(NotFittedError):
        net.predict(X)
    assert np.isfinite(net.fit(X, y).predict_proba(empty)).all()


def test_modality_dropout_readies_for_missing_modalities(halves):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    # The second modality says the same, in many more columns and less clearly.
    X = np.column_stack([np.tile(4.0 * y[:, None], 5), 0.8 * y[:, None] + np.zeros(8)]) + rng.normal(size=(600, 13))
    gone = X[400:].copy()
    gone[:, :5] = np.nan
    scores = {}
    for p in (0.0, 0.5):
        net = MultimodalNetClassifier(halves, width=16, max_epochs=40, modality_dropout=p, random_state=0)
        scores[p] = net.fit(X[:400], y[:400]).score(gone, y[400:])
    assert scores[0.5] > scores[0.0]


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
    net.set_output(transform="pandas")
    assert net.transform(X).columns.tolist() == [f"multimodalnetclassifier{i}" for i in range(16)]


@pytest.mark.parametrize("fusion", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_computes_in_the_dtype_of_X(fusion, dtype, small, halves):
    X, y = small
    net = MultimodalNetRegressor(halves, fusion, **QUICK).fit(X.astype(dtype), y)
    assert {p.dtype for p in net.network_.parameters()} == {torch.float32 if dtype == np.float32 else torch.float64}
    assert net.predict(X.astype(dtype)).dtype == dtype
    assert net.transform(X.astype(dtype)).dtype == dtype


class Half(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X, dtype=np.float32)


def test_one_float32_modality_makes_the_network_float32(small):
    net = MultimodalNetRegressor([("a", Half(), slice(0, 5)), ("b", "passthrough", slice(5, 8))], **QUICK)
    assert net.fit(*small).predict(small[0]).dtype == np.float32


@pytest.mark.parametrize("options", [{}, {"modality_dropout": 0.3}, {"modulation": GradientModulation()}])
def test_fits_are_the_same_bit_for_bit_and_leave_global_states(options, xor, halves):
    X, y, *_ = xor
    torch.manual_seed(3)
    before = torch.get_rng_state()
    settings = {"width": 16, "max_epochs": 3, "batch_size": 128, **options}
    one = MultimodalNetClassifier(halves, "gated", random_state=1, **settings).fit(X, y)
    torch.rand(7)
    other = MultimodalNetClassifier(halves, "gated", random_state=1, **settings).fit(X, y)
    third = MultimodalNetClassifier(halves, "gated", random_state=2, **settings).fit(X, y)
    assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert one.loss_curve_ == other.loss_curve_
    assert one.validation_scores_ == other.validation_scores_
    assert not np.array_equal(one.predict_proba(X), third.predict_proba(X))
    torch.manual_seed(3)
    assert torch.equal(before, torch.get_rng_state())


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
    with pytest.raises(ValueError, match=r"y has the class '5', which the network was not made for; .* \[0, 1, 2\]"):
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


def test_a_search_over_fusions(xor, halves):
    X, y, X_test, y_test = xor
    net = MultimodalNetClassifier(halves, n_joint_layers=0, width=16, max_epochs=40, random_state=0)
    search = GridSearchCV(net, {"fusion": ["concat", "low_rank"], "width": [16, 32]}, cv=2, n_jobs=2).fit(X, y)
    assert search.best_params_["fusion"] == "low_rank"
    assert search.score(X_test, y_test) > 0.9


def test_members_are_cloned_nested_and_shown(small):
    X, y = small
    net = MultimodalNetClassifier(
        [("a", StandardScaler(), slice(0, 5)), ("b", torch.nn.Linear(3, 4), slice(5, 8)), ("c", "drop", [0])], **QUICK
    )
    copied = clone(net).set_params(a__with_mean=False)
    assert net.modalities[0][1].with_mean
    copied.fit(X, y)
    assert [name for name, *_ in copied.modalities_] == ["a", "b"]
    assert not copied.named_modalities_.a.with_mean
    assert not hasattr(copied.modalities[0][1], "scale_")
    assert "StandardScaler" in copied._repr_html_()
    # The user's module is not trained; its copy is.
    assert not torch.equal(copied.modalities[1][1].weight, copied.network_.branches[1].module.weight)


def test_it_ends_a_pipeline_of_fused_features(small):
    X, y = small
    fused = ModalityFuser([("a", "passthrough", slice(0, 5)), ("b", "passthrough", slice(5, 8))])
    net = MultimodalNetClassifier([("all", "passthrough", slice(0, 8))], **QUICK)
    assert cross_val_score(make_pipeline(fused, net), X, y, cv=2).shape == (2,)


@pytest.fixture
def frame():
    """Give texts and numbers, some missing, and classes."""
    X = pd.DataFrame(
        {
            "text": ["a red fox", "two hens", None, "an owl at night"] * 8,
            "weight": [6.0, 2.5, 1.0, np.nan] * 8,
            "height": np.arange(32.0),
        }
    )
    return X, np.array(["fox", "hen", "hen", "owl"] * 8, dtype=object)


def test_branches_are_trained(frame):
    X, y = frame
    net = MultimodalNetClassifier(
        [("text", TextBranch(), "text"), ("numbers", StandardScaler(), ["weight"])],
        "gated",
        width=32,
        learning_rate=0.01,
        random_state=0,
    ).fit(X, y)
    assert net.score(X, y) == 1.0
    assert net.network_.head.weight.dtype == torch.float32
    assert (net.explain(X).loc[2] == [0, 1]).all()
    assert (net.explain(X).loc[3] == [1, 0]).all()
    nothing = pd.DataFrame({"text": [None], "weight": [2.5]})
    assert net.predict(nothing).tolist() == ["hen"]


def test_a_frozen_branch_waits_and_has_its_own_learning_rate(frame):
    X, y = frame
    starts, ends = {}, {}
    for n_frozen in (0, 3, 100):
        for n_epochs in (0, 5):
            branch = TextBranch(n_frozen_epochs=n_frozen, learning_rate=1e-2)
            modalities = [("text", branch, "text"), ("numbers", StandardScaler(), ["weight", "height"])]
            # Without a step, at a rate that changes nothing.
            rate = {"learning_rate": 1e-3} if n_epochs else {"learning_rate": 1e-30, "weight_decay": 0.0}
            if not n_epochs:
                modalities[0] = ("text", branch.set_params(learning_rate=1e-30), "text")
            net = MultimodalNetClassifier(modalities, max_epochs=max(1, n_epochs), random_state=0, **rate).fit(X, y)
            state = torch.cat([p.detach().ravel() for p in net.network_.branches[0].parameters()])
            (ends if n_epochs else starts)[n_frozen] = state
    assert torch.equal(ends[100], starts[100])
    moved = {n: (ends[n] - starts[n]).abs().max() for n in (0, 3)}
    assert moved[0] > moved[3] > 1e-4
    assert all(p.requires_grad for p in net.network_.branches[1].parameters())


def test_augmentation_is_for_training_only(small):
    seen = []

    def augment(tensors, generator):
        assert isinstance(generator, torch.Generator)
        seen.append(len(tensors[0]))
        return tuple(tensor + 1 for tensor in tensors)

    from skmm.neural_network._branches import ModuleBranch

    branch = ModuleBranch(torch.nn.Linear(5, 4), augment=augment)
    net = MultimodalNetClassifier([("a", branch, slice(0, 5)), ("b", "passthrough", slice(5, 8))], **QUICK)
    net.fit(*small)
    assert seen == [32] * 20
    net.predict(small[0])
    assert len(seen) == 20


def test_statistics_of_a_branch_come_from_present_rows(small):
    X, y = small
    X = X.copy()
    X[::2, :5] = np.nan
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(5, momentum=1.0), torch.nn.Linear(5, 3)).double()
    net = MultimodalNetClassifier([("a", module, slice(0, 5)), ("b", "passthrough", slice(5, 8))], **QUICK).fit(X, y)
    norm = net.network_.branches[0].module[0]
    assert_allclose(norm.running_mean.numpy(), X[1::2, :5].mean(axis=0), rtol=1e-6)


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


def test_bad_parameters(small, halves):
    X, y = small
    with pytest.raises(ValueError, match="needs a width that n_heads divides, got width=10 and n_heads=4"):
        MultimodalNetClassifier(halves, "attention", width=10).fit(X, y)
    with pytest.raises(ValueError, match="The 'fusion' parameter of MultimodalNetClassifier must be"):
        MultimodalNetClassifier(halves, "bilinear").fit(X, y)
    with pytest.raises(ValueError, match="modulation needs one of the named losses"):
        MultimodalNetClassifier(halves, loss=lambda o, t, w: o.mean(), modulation=GradientModulation()).fit(X, y)
    with pytest.raises(ValueError, match="The 'alpha' parameter of GradientModulation must be"):
        MultimodalNetClassifier(halves, modulation=GradientModulation(-1)).fit(X, y)
    with pytest.raises(ValueError, match=r"The training loss became (nan|inf): lower learning_rate=1e\+30"):
        MultimodalNetRegressor(halves, learning_rate=1e30, schedule="constant", max_epochs=20).fit(X, y)
    with pytest.raises(ValueError, match="Input modality 'b' contains infinity"):
        MultimodalNetClassifier(halves).fit(np.where(np.arange(8) == 7, np.inf, X), y)
    with pytest.raises(ValueError, match="takes one class per row, or a matrix of 0 and 1"):
        MultimodalNetClassifier(halves).fit(X, np.column_stack([y, y]))
    with pytest.raises(TypeError, match="modality 'a' needs an estimator with the methods"):
        MultimodalNetClassifier([("a", object(), [0])]).fit(X, y)


@pytest.mark.parametrize("fusion", NAMES)
def test_pickles(fusion, small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, fusion, **QUICK).fit(X, y)
    # What is set later is for the next fit.
    net.set_params(width=99)
    data, file = pickle.dumps(net), io.BytesIO()
    assert b"torch" not in data
    joblib.dump(net, file)
    file.seek(0)
    for loaded in (pickle.loads(data), joblib.load(file)):
        assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))
        assert_array_equal(loaded.transform(X), net.transform(X))


def test_what_was_trained_elsewhere_loads_here(small, halves):
    X, y = small
    net = MultimodalNetClassifier(halves, **QUICK).fit(X, y)
    state = net.__getstate__()
    # As it comes from a machine with 99 GPUs.
    state["device"] = state["_device"] = "cuda:98"
    loaded = MultimodalNetClassifier(halves)
    loaded.__setstate__(state)
    assert next(loaded.network_.parameters()).device.type == "cpu"
    assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))


def test_a_module_given_as_fusion_travels_with_the_network(small, halves):
    class_of = torch.nn.Bilinear

    net = MultimodalNetClassifier(halves, Product(class_of(16, 16, 5)), **QUICK).fit(*small)
    loaded = pickle.loads(pickle.dumps(net))
    assert_array_equal(loaded.predict_proba(small[0]), net.predict_proba(small[0]))
    assert clone(net).fit(*small).network_.joint_features == 16


class Product(torch.nn.Module):
    def __init__(self, bilinear):
        super().__init__()
        self.bilinear = bilinear

    def forward(self, hiddens, mask):
        return self.bilinear(*hiddens)


def test_skops_trusts_only_what_is_listed(small, halves, frame):
    sio = pytest.importorskip("skops.io")
    X, y = small
    numbers = [("a", make_pipeline(StandardScaler()), slice(0, 5)), ("b", "passthrough", slice(5, 8))]
    texts = [("text", TextBranch(), "text"), ("numbers", StandardScaler(), ["weight"])]
    for net, data in [
        (MultimodalNetClassifier(numbers, "gated", modulation=GradientModulation(), **QUICK).fit(X, y), X),
        (MultimodalNetRegressor(numbers, **QUICK).fit(X, y), X),
        (MultimodalNetClassifier(halves, **QUICK).partial_fit(X, y), X),
        (MultimodalNetClassifier(texts, **QUICK).fit(*frame), frame[0]),
    ]:
        saved = sio.dumps(net)
        assert set(sio.get_untrusted_types(data=saved)) <= set(get_trusted_types())
        loaded = sio.loads(saved, trusted=get_trusted_types())
        assert_array_equal(loaded.predict(data), net.predict(data))


def test_trusted_types_exist():
    for path in get_trusted_types():
        module, _, name = path.rpartition(".")
        assert path.startswith("skmm.")
        assert hasattr(__import__(module, fromlist=[name]), name)


def test_a_bar_on_request(small, halves, capsys):
    MultimodalNetClassifier(halves, verbose=True, **QUICK).fit(*small)
    shown = capsys.readouterr()
    assert "MultimodalNetClassifier" in shown.err
    assert "20/20" in shown.err
    assert "modality a" in shown.out
    MultimodalNetClassifier(halves, **QUICK).fit(*small)
    assert capsys.readouterr() == ("", "")


def test_half_precision_computes_float32_networks(small, halves):
    X, y = small
    full = MultimodalNetRegressor(halves, precision="full", **QUICK).fit(X.astype(np.float32), y)
    half = MultimodalNetRegressor(halves, precision="bfloat16", **QUICK).fit(X.astype(np.float32), y)
    assert half.predict(X.astype(np.float32)).dtype == np.float32
    assert not np.array_equal(half.predict(X.astype(np.float32)), full.predict(X.astype(np.float32)))
    assert_allclose(half.predict(X.astype(np.float32)), full.predict(X.astype(np.float32)), atol=0.1)
    # float64 stays what it is.
    exact = [MultimodalNetRegressor(halves, precision=p, **QUICK).fit(X, y).predict(X) for p in ("full", "bfloat16")]
    assert_array_equal(*exact)


def test_a_device_that_is_not_there(small, halves):
    with pytest.raises(ValueError, match="device='cuda:98' cannot be used here"):
        MultimodalNetClassifier(halves, device="cuda:98").fit(*small)


def test_polars_is_pandas(frame):
    pl = pytest.importorskip("polars")
    X, y = frame
    modalities = [("text", TextBranch(), "text"), ("numbers", StandardScaler(), ["weight", "height"])]
    weights = np.r_[0, np.ones(31)]
    nets = [
        MultimodalNetClassifier(modalities, **QUICK).fit(data, y, sample_weight=weights)
        for data in (X, pl.from_pandas(X))
    ]
    assert_array_equal(nets[0].predict_proba(X), nets[1].predict_proba(pl.from_pandas(X)))
    assert_array_equal(nets[0].predict_proba(X), nets[0].predict_proba(X[["height", "text", "weight"]]))


def test_weights_are_routed(small, halves):
    X, y = small
    weights = np.arange(32) % 4
    with config_context(enable_metadata_routing=True):
        net = MultimodalNetClassifier(halves, **QUICK).set_fit_request(sample_weight=True)
        net = net.set_score_request(sample_weight=True)
        routed = cross_validate(net, X, y, cv=2, params={"sample_weight": weights}, return_estimator=True)
    half = next(iter(StratifiedKFold(2).split(X, y)))[0]
    direct = MultimodalNetClassifier(halves, **QUICK).fit(X[half], y[half], sample_weight=weights[half])
    assert_array_equal(routed["estimator"][0].predict_proba(X), direct.predict_proba(X))


@pytest.mark.parametrize("fusion", NAMES)
@pytest.mark.parametrize("net", [MultimodalNetClassifier, MultimodalNetRegressor])
def test_weights_are_repeated_rows_in_every_fusion(net, fusion, halves):
    settings = {"width": 8, "dropout": 0.0, "learning_rate": 0.02, "max_epochs": 30}
    check_sample_weight_equivalence_on_dense_data(net.__name__, net(halves, fusion, **settings))
