"""Several tasks at once: kinds, missing targets, weights, answers as data frames, scores."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch.nn import functional

from skmm.neural_network import GradientModulation, MultimodalNetMultiTask, TextBranch
from skmm.neural_network.branches import ModuleBranch
from skmm.neural_network.multitask._loss import TaskLoss
from skmm.neural_network.multitask._outputs import TaskOutputs

PARTS = [("a", "passthrough", slice(0, 2)), ("b", "passthrough", slice(2, 4))]
PARAMS = {"width": 32, "dropout": 0.0, "learning_rate": 0.01, "random_state": 0, "device": "cpu"}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 4)).astype(np.float32)
    y = pd.DataFrame(
        {
            "color": np.array(["red", "green", "blue"])[np.digitize(X[:, 0], [-0.5, 0.5])],
            "is_large": X[:, 2] > 0,
            "size": 1000 + 50 * X[:, 1] + 20 * X[:, 3],
        },
        index=np.arange(120) + 7,
    )
    return X, y


@pytest.fixture
def fitted(data):
    return MultimodalNetMultiTask(PARTS, **PARAMS).fit(*data)


def test_all_tasks_are_learned(data, fitted):
    X, y = data
    assert fitted.tasks_ == {"color": "classification", "is_large": "classification", "size": "regression"}
    predicted = fitted.predict(X)
    assert list(predicted.columns) == list(y.columns)
    assert (fitted.score_tasks(X, y) > 0.95).all()
    assert set(predicted["color"]) == {"red", "green", "blue"}
    assert predicted["is_large"].dtype == bool


def test_the_score_is_the_mean_of_scikit_learns(data, fitted):
    X, y = data
    weights = np.random.default_rng(1).random(len(y))
    predicted = fitted.predict(X)
    expected = [
        accuracy_score(y["color"], predicted["color"], sample_weight=weights),
        accuracy_score(y["is_large"], predicted["is_large"], sample_weight=weights),
        r2_score(y["size"], predicted["size"], sample_weight=weights),
    ]
    scores = fitted.score_tasks(X, y, sample_weight=weights)
    assert list(scores.index) == list(y.columns)
    np.testing.assert_allclose(scores, expected)
    assert fitted.score(X, y, sample_weight=weights) == pytest.approx(np.mean(expected))


def test_probabilities(data, fitted):
    X, _ = data
    proba = fitted.predict_proba(pd.DataFrame(X).to_numpy())
    assert proba.columns.names == ["task", "class"]
    assert list(proba["color"].columns) == ["blue", "green", "red"]
    np.testing.assert_allclose(proba.T.groupby(level="task").sum(), 1, rtol=1e-6)
    assert (proba["color"].idxmax(axis=1) == fitted.predict(X)["color"]).all()


def test_answers_have_the_index_of_x(data):
    X, y = data
    X = pd.DataFrame(X, columns=list("abcd"), index=y.index)
    parts = [("a", "passthrough", ["a", "b"]), ("b", "passthrough", ["c", "d"])]
    net = MultimodalNetMultiTask(parts, max_epochs=1, **PARAMS).fit(X, y)
    assert net.predict(X).index.equals(X.index)
    assert net.predict_proba(X).index.equals(X.index)
    assert net.predict_proba(X).shape == (120, 5)
    only_numbers = clone(net).fit(X, y[["size"]])
    assert only_numbers.predict_proba(X).shape == (120, 0)


def test_polars_targets(data, fitted):
    X, y = data
    net = clone(fitted).fit(X, pl.from_pandas(y))
    pd.testing.assert_frame_equal(net.predict(X), fitted.predict(X))


def test_rows_teach_only_the_tasks_whose_target_they_know(data):
    X, y = data
    hidden = y.astype({"color": object, "is_large": object}).copy()
    hidden.loc[hidden.index[::2], "size"] = np.nan
    hidden.loc[hidden.index[1::3], "color"] = None
    net = MultimodalNetMultiTask(PARTS, max_epochs=60, **PARAMS).fit(X, hidden)
    # What is hidden is told all the same.
    assert (net.score_tasks(X, y) > 0.9).all()
    # Whatever would stand there changes nothing.
    assert net.score_tasks(X, hidden)["size"] == pytest.approx(r2_score(y["size"][1::2], net.predict(X)["size"][1::2]))
    nowhere = hidden.assign(color=None)
    assert np.isnan(net.score_tasks(X, nowhere)["color"])
    assert net.score(X, nowhere) == pytest.approx(net.score_tasks(X, nowhere).mean())


def task_outputs():
    y = np.empty((4, 3), dtype=object)
    y[:] = [["a", 0, 1.0], ["b", 1, 3.0], ["c", 0, np.nan], [None, 1, 5.0]]
    outputs = TaskOutputs(y, {"a": "classification", "b": "classification", "c": "regression"}, None)
    return outputs, [torch.from_numpy(t) for t in outputs.encode(y, "test", "float64")]


def test_targets_and_costs_of_tasks():
    outputs, targets = task_outputs()
    assert outputs.n_outputs == 5
    *_, known = targets
    np.testing.assert_array_equal(known, [[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 1]])
    values = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)

    def mean(costs, rows):
        return (costs * weights[rows]).sum() / weights[rows].sum()

    numbers = (torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64) - 3) / np.sqrt(8 / 3)
    yes = torch.tensor([0.0, 1, 0, 1], dtype=torch.float64)
    color = mean(functional.cross_entropy(values[:3, :3], torch.tensor([0, 1, 2]), reduction="none"), slice(0, 3))
    large = mean(functional.binary_cross_entropy_with_logits(values[:, 3], yes, reduction="none"), slice(None))
    size = mean((values[[0, 1, 3], 4] - numbers) ** 2, [0, 1, 3])
    fixed = TaskLoss(outputs, [1.0, 2.0, 0.5])
    torch.testing.assert_close(fixed(values, targets, weights), color + 2 * large + 0.5 * size)
    assert fixed.final_weights() == [1.0, 2.0, 0.5]
    s = [0.3, -0.2, 0.1]
    learned = TaskLoss(outputs, None, s).double()
    expected = sum(
        c * np.exp(-v) * loss + v / 2 for c, v, loss in zip([1, 1, 0.5], s, [color, large, size], strict=True)
    )
    torch.testing.assert_close(learned(values, targets, weights), expected, rtol=1e-6, atol=0)
    np.testing.assert_allclose(learned.final_weights(), np.array([1, 1, 0.5]) * np.exp(-np.array(s)), rtol=1e-6)
    # All targets known: the mean of the rows is the loss.
    full = [target[:2] for target in targets]
    torch.testing.assert_close(learned.rows(values[:2], full).mean(), learned(values[:2], full))


def test_learned_weights_are_least_where_noise_is_most(data):
    X, y = data
    noise = np.random.default_rng(3).normal(size=len(y))
    y = pd.DataFrame({"clear": y["size"], "noisy": (y["size"] - 1000) / 50 + 3 * noise})
    net = MultimodalNetMultiTask(PARTS, width=8, learning_rate=0.02, max_epochs=150, random_state=0).fit(X, y)
    assert net.task_weights_[0] > 3 * net.task_weights_[1]
    equal = clone(net).set_params(task_weights="equal", max_epochs=1).fit(X, y)
    assert equal.task_weights_.tolist() == [1, 1]


def test_a_task_of_weight_0_teaches_nothing(data):
    X, y = data
    shuffled = y.assign(size=y["size"].sample(frac=1, random_state=0).to_numpy())
    net = MultimodalNetMultiTask(PARTS, task_weights=[1, 1, 0], max_epochs=5, **PARAMS)
    first, second = clone(net).fit(X, y), clone(net).fit(X, shuffled)
    pd.testing.assert_frame_equal(first.predict_proba(X), second.predict_proba(X))


def test_kinds_can_be_given(data):
    X, y = data
    counts = pd.DataFrame({"count": np.round(y["size"]).astype(int), "color": y["color"]})
    auto = MultimodalNetMultiTask(PARTS, max_epochs=1, **PARAMS).fit(X, counts)
    assert auto.tasks_ == {"count": "classification", "color": "classification"}
    given = MultimodalNetMultiTask(PARTS, tasks={"count": "regression"}, **PARAMS).fit(X, counts)
    assert given.tasks_ == {"count": "regression", "color": "classification"}
    assert given.score_tasks(X, counts)["count"] > 0.9


def test_pickle_clone_and_repeatable_runs(data, fitted):
    X, y = data
    again = pickle.loads(pickle.dumps(fitted))
    pd.testing.assert_frame_equal(again.predict(X), fitted.predict(X))
    pd.testing.assert_frame_equal(again.predict_proba(X), clone(fitted).fit(X, y).predict_proba(X))
    assert set(vars(clone(fitted))) == set(fitted.get_params(deep=False))


def test_warm_start_goes_on_with_the_weights_of_tasks(data):
    X, y = data
    params = {"warm_start": True, "max_epochs": 5, "schedule": "constant", "batch_size": len(X), **PARAMS}
    net = MultimodalNetMultiTask(PARTS, **params).fit(X, y)
    before, losses = net.task_weights_, net.loss_curve_
    more = net.set_params(max_epochs=1).fit(X, y)
    assert more.loss_curve_[0] < losses[-1]
    # One step of Adam is as long as the learning rate.
    np.testing.assert_allclose(np.log(more.task_weights_), np.log(before), atol=0.0101)
    assert (np.abs(np.log(more.task_weights_ / [1, 1, 0.5])) > 0.0101).all()


def test_missing_modalities_early_stopping_and_a_search(data):
    X, y = data
    X = X.copy()
    X[::5, :2] = np.nan
    X[1::5, 2:] = np.nan
    net = MultimodalNetMultiTask(PARTS, early_stopping=True, max_epochs=3, **PARAMS).fit(X, y)
    assert len(net.validation_scores_) == 3
    assert net.predict(X).notna().all(axis=None)
    search = GridSearchCV(net, {"fusion": ["gated", "tensor"], "task_weights": ["equal", "uncertainty"]}, cv=2).fit(
        X, y
    )
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert np.isfinite(cross_val_score(net, X, y, cv=2)).all()


def test_validation_rows_and_raw_items():
    texts = ["red cat", "red dog", "blue cat", "blue dog"] * 5
    y = pd.DataFrame({"color": [t.split()[0] for t in texts], "length": [float(t.endswith("dog")) for t in texts]})
    X = pd.DataFrame({"text": texts})
    net = MultimodalNetMultiTask([("text", TextBranch(), "text")], max_epochs=40, **PARAMS)
    net.fit(X, y, X_val=X[:8], y_val=y[:8])
    assert net.score(X, y) > 0.95
    assert len(net.validation_scores_) == net.n_epochs_


def test_modulation(data):
    X, y = data
    net = MultimodalNetMultiTask(PARTS, modulation=GradientModulation(), max_epochs=2, **PARAMS).fit(X, y)
    assert np.isfinite(net.loss_curve_).all()


def test_a_row_without_any_modality_is_answered_with_frequencies_and_means(data, fitted):
    _, y = data
    with pytest.warns(UserWarning, match="1 of 1 rows have no modality"):
        answer = fitted.predict(np.full((1, 4), np.nan, dtype=np.float32))
    assert answer["size"].item() == pytest.approx(y["size"].mean(), rel=1e-6)
    assert answer["color"].item() == y["color"].mode().item()


@pytest.mark.parametrize(
    ("params", "change", "error", "message"),
    [
        ({}, lambda y: y.to_numpy(), TypeError, "y must be a data frame with one column per task, got ndarray"),
        ({}, lambda y: y.to_dict(), TypeError, "y must be a data frame with one column per task, got dict"),
        ({}, lambda y: y[:5], ValueError, "inconsistent numbers of samples"),
        ({}, lambda y: y.assign(size=np.nan), ValueError, "the task 'size' has no target in any row"),
        ({}, lambda y: y.assign(size=np.inf), ValueError, "the task 'size' has infinite targets"),
        ({"tasks": {"weight": "regression"}}, None, ValueError, r"tasks maps columns of y, .*, got \['weight'\]"),
        ({"tasks": {"size": "ranking"}}, None, ValueError, r"tasks maps columns of y, .*, got \['ranking'\]"),
        ({"tasks": {"color": "regression"}}, None, ValueError, "the task 'color' is no column of numbers"),
        ({"task_weights": [1, 2]}, None, ValueError, r"task_weights are 3 numbers, .* got \[1, 2\]"),
        ({"task_weights": [1, -2, 1]}, None, ValueError, "task_weights are 3 numbers"),
        ({"task_weights": "learned"}, None, ValueError, "The 'task_weights' parameter"),
    ],
)
def test_errors(data, params, change, error, message):
    X, y = data
    with pytest.raises(error, match=message):
        MultimodalNetMultiTask(PARTS, **params, **PARAMS).fit(X, y if change is None else change(y))


def test_a_task_that_later_data_lack(data, fitted):
    X, y = data
    with pytest.raises(ValueError, match=r"y lacks the tasks \['size'\]; it has the columns \['color', 'is_large'\]"):
        fitted.score(X, y.drop(columns="size"))
    with pytest.raises(ValueError, match="y has the class 'pink', which the network does not have"):
        clone(fitted).fit(X, y, X_val=X, y_val=y.assign(color="pink"))


@pytest.mark.parametrize("task", ["color", "is_large", "size"])
def test_rows_without_any_target_of_a_task(data, fitted, task):
    """As validation rows, as a batch of ``partial_fit`` or with all weights, the other tasks go on."""
    X, y = data
    rows, lacking = slice(0, 20), y.astype(object).assign(**{task: None})[:20]
    net = MultimodalNetMultiTask(PARTS, max_epochs=2, **PARAMS).fit(X, y, X_val=X[rows], y_val=lacking)
    assert np.isfinite(net.validation_scores_).all()
    before = net.network_.head.weight.clone()
    net.partial_fit(X[rows], lacking)
    assert torch.isfinite(net.network_.head.weight).all()
    assert not torch.equal(net.network_.head.weight, before)
    assert net.score_tasks(X[rows], lacking).isna().tolist() == [name == task for name in y.columns]
    few = y.astype(object)
    few.loc[few.index[20:], task] = None
    weights = np.arange(120) >= 20
    with pytest.raises(ValueError, match=f"the task '{task}' has targets only in rows of weight 0; leave the column"):
        clone(fitted).fit(X, few, weights)


PART = {**PARAMS, "schedule": "constant", "batch_size": 200}


def test_calls_of_partial_fit_are_the_epochs_of_a_fit(data):
    X, y = data
    whole = MultimodalNetMultiTask(PARTS, max_epochs=5, **PART).fit(X, y)
    parts = MultimodalNetMultiTask(PARTS, **PART)
    for _ in range(5):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X, y)))
    pd.testing.assert_frame_equal(parts.predict_proba(X), whole.predict_proba(X), rtol=1e-4)
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_, rtol=1e-4)
    np.testing.assert_allclose(parts.task_weights_, whole.task_weights_, rtol=1e-4)
    assert parts.n_epochs_ == 5


def test_partial_fit_with_classes_and_targets_to_come(data):
    X, y = data
    order = np.argsort(y["color"].to_numpy(), kind="stable")
    net = MultimodalNetMultiTask(PARTS, **PARAMS)
    colors = {"color": ["red", "green", "blue"]}
    unknown = y.astype(object).assign(color=None)
    for _ in range(60):
        # Blue alone comes first, and some rows know no color at all.
        for start in range(0, 120, 30):
            rows = order[start : start + 30]
            net.partial_fit(X[rows], y.iloc[rows], classes=colors)
        net.partial_fit(X[:10], unknown[:10])
    assert list(net.predict_proba(X)["color"].columns) == ["blue", "green", "red"]
    assert (net.score_tasks(X, y) > 0.8).all()
    with pytest.raises(ValueError, match="y has the class 'pink', which the network does not have"):
        net.partial_fit(X, y.assign(color="pink"))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"colour": ["red"]}, "'colour' in classes is no task of classes"),
        ({"size": [1, 2]}, "'size' in classes is no task of classes"),
        ({"color": ["red", "green"]}, "y has the class 'blue', which the network does not have"),
        (["red", "green", "blue"], "classes maps names of tasks to their classes, got list"),
    ],
)
def test_classes_that_do_not_fit(data, classes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MultimodalNetMultiTask(PARTS, **PARAMS).partial_fit(*data, classes=classes)


def test_classes_of_tasks_stay_those_of_the_first_call(data, fitted):
    X, y = data
    fitted.partial_fit(X, y, classes={"color": ["blue", "green", "red"], "is_large": [False, True]})
    with pytest.raises(ValueError, match=r"classes of 'color' stay those of the first call, .* got \['red', 'pink'\]"):
        fitted.partial_fit(X, y, classes={"color": ["red", "pink"]})


def test_weights_are_repeated_rows(data):
    X, y = data
    y = y.astype({"color": object}).copy()
    y.loc[y.index[::3], "color"] = None
    y.loc[y.index[1::4], "size"] = np.nan
    counts = np.arange(120) % 4
    net = MultimodalNetMultiTask(PARTS, max_epochs=10, **{**PARAMS, "batch_size": 500})
    one = clone(net).fit(X.astype(float), y, sample_weight=counts)
    rows = np.arange(120).repeat(counts)
    other = clone(net).fit(X[rows].astype(float), y.iloc[rows])
    np.testing.assert_allclose(one.predict(X)["size"], other.predict(X)["size"], rtol=1e-7)
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-6)
    np.testing.assert_allclose(one.task_weights_, other.task_weights_, rtol=1e-7)


def test_an_interrupt_keeps_the_weights_of_tasks(data):
    X, y = data
    seen = []

    def stop(tensors, generator):
        seen.append(1)
        if len(seen) > 3:
            raise KeyboardInterrupt
        return tensors

    branch = ModuleBranch(torch.nn.Linear(2, 3), augment=stop)
    net = MultimodalNetMultiTask([("a", branch, slice(0, 2)), PARTS[1]], **{**PARAMS, "batch_size": 200})
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y)
    assert net.n_epochs_ == 3
    assert len(net.task_weights_) == 3
    assert np.isfinite(net.score(X, y))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform"])
def test_unfitted(method):
    with pytest.raises(NotFittedError):
        getattr(MultimodalNetMultiTask(PARTS, **PARAMS), method)(np.zeros((2, 4)))
