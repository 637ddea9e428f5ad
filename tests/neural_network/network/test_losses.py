"""Losses equal those of torch and scikit-learn, weigh rows, and refuse what they cannot compare."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_pinball_loss, mean_squared_error
from torch.nn import functional

from skmm.neural_network.network._losses import LOSSES, Loss


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    classes = torch.randint(4, (12,), generator=generator)
    labels = torch.randint(2, (12, 4), generator=generator)
    numbers = 2 * torch.randn(12, 4, generator=generator, dtype=torch.float64)
    weights = torch.rand(12, generator=generator, dtype=torch.float64)
    return outputs, {"classes": classes, "labels": labels, "numbers": numbers}, weights


KINDS = [
    ("cross_entropy", "classes"),
    ("binary_cross_entropy", "labels"),
    ("focal", "classes"),
    ("focal", "labels"),
    ("squared", "numbers"),
    ("huber", "numbers"),
    ("quantile", "numbers"),
]


def test_cross_entropy_is_scikit_learns_log_loss(data):
    outputs, targets, weights = data
    expected = log_loss(targets["classes"], outputs.softmax(1), sample_weight=weights, labels=range(4))
    assert Loss("cross_entropy")(outputs, targets["classes"], weights).item() == pytest.approx(expected, rel=1e-12)


def test_binary_cross_entropy_is_the_mean_log_loss_of_the_labels(data):
    outputs, targets, weights = data
    expected = np.mean(
        [log_loss(targets["labels"][:, j], outputs[:, j].sigmoid(), sample_weight=weights) for j in range(4)]
    )
    loss = Loss("binary_cross_entropy")(outputs, targets["labels"], weights)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantile_is_scikit_learns_pinball_loss(data, quantile):
    outputs, targets, weights = data
    expected = mean_pinball_loss(targets["numbers"], outputs, sample_weight=weights, alpha=quantile)
    loss = Loss("quantile", quantile=quantile)(outputs, targets["numbers"], weights)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_squared_is_scikit_learns_mean_squared_error(data):
    outputs, targets, weights = data
    expected = mean_squared_error(targets["numbers"], outputs, sample_weight=weights)
    assert Loss("squared")(outputs, targets["numbers"], weights).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("delta", [0.3, 1.0, 5.0])
def test_huber_is_torchs_and_tends_to_half_the_squared_error(data, delta):
    outputs, targets, _ = data
    loss = Loss("huber", delta=delta)(outputs, targets["numbers"])
    torch.testing.assert_close(loss, functional.huber_loss(outputs, targets["numbers"], delta=delta))
    wide = Loss("huber", delta=1e6)(outputs, targets["numbers"])
    torch.testing.assert_close(2 * wide, functional.mse_loss(outputs, targets["numbers"]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_is_torchs(data, smoothing):
    outputs, targets, _ = data
    loss = Loss("cross_entropy", label_smoothing=smoothing)(outputs, targets["classes"])
    expected = functional.cross_entropy(outputs, targets["classes"], label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)


def test_label_smoothing_of_one_output_is_that_of_two_classes(data):
    outputs, targets, _ = data
    logit, yes = outputs[:, :1], targets["labels"][:, :1]
    both = torch.cat([torch.zeros_like(logit), logit], dim=1)
    torch.testing.assert_close(
        Loss("binary_cross_entropy", label_smoothing=0.2)(logit, yes),
        Loss("cross_entropy", label_smoothing=0.2)(both, yes[:, 0]),
    )


def test_cross_entropy_takes_probabilities(data):
    outputs, targets, weights = data
    one_hot = functional.one_hot(targets["classes"], 4).double()
    loss = Loss("cross_entropy")
    torch.testing.assert_close(loss(outputs, one_hot, weights), loss(outputs, targets["classes"], weights))


@pytest.mark.parametrize(("kind", "plain"), [("classes", "cross_entropy"), ("labels", "binary_cross_entropy")])
def test_focal_without_gamma_is_the_cross_entropy(data, kind, plain):
    outputs, targets, weights = data
    torch.testing.assert_close(
        Loss("focal", gamma=0)(outputs, targets[kind], weights), Loss(plain)(outputs, targets[kind], weights)
    )


def test_focal_is_its_formula(data):
    outputs, targets, _ = data
    p = outputs.softmax(1)[torch.arange(12), targets["classes"]].numpy()
    loss = Loss("focal", gamma=1.5)(outputs, targets["classes"])
    assert loss.item() == pytest.approx(np.mean(-((1 - p) ** 1.5) * np.log(p)), rel=1e-12)


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_focal_has_finite_gradients_where_a_row_is_certain(gamma, dtype):
    outputs = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], dtype=dtype, requires_grad=True)
    Loss("focal", gamma=gamma)(outputs, torch.tensor([0, 0])).backward()
    assert torch.isfinite(outputs.grad).all()


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_integer_weights_are_repetitions(data, name, kind):
    outputs, targets, _ = data
    repeats = torch.arange(12) % 3
    loss = Loss(name)
    weighted = loss(outputs, targets[kind], repeats.double())
    repeated = loss(outputs.repeat_interleave(repeats, 0), targets[kind].repeat_interleave(repeats, 0))
    torch.testing.assert_close(weighted, repeated)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_gradients_are_those_of_finite_differences(data, name, kind):
    outputs, targets, weights = data
    loss = Loss(name)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets[kind], weights), outputs.requires_grad_())


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_outputs(data, name, kind, dtype):
    outputs, targets, weights = data
    target = targets[kind].to(dtype) if kind == "numbers" else targets[kind]
    assert Loss(name)(outputs.to(dtype), target, weights.to(dtype)).dtype == dtype


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_rows_that_all_weigh_nothing_cost_nothing(data, name, kind):
    outputs, targets, weights = data
    outputs.requires_grad_()
    loss = Loss(name)(outputs, targets[kind], 0 * weights)
    loss.backward()
    assert loss.item() == 0
    assert (outputs.grad == 0).all()


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_losses_pickle(data, name, kind):
    outputs, targets, weights = data
    loss = Loss(name)
    copy = pickle.loads(pickle.dumps(loss))
    assert copy(outputs, targets[kind], weights) == loss(outputs, targets[kind], weights)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "focal", "squared", "huber", "quantile"])
def test_shapes_are_not_broadcast(data, name):
    outputs, targets, _ = data
    with pytest.raises(ValueError, match=r"targets of shape \(12, 1\) do not match outputs of shape \(12, 4\)"):
        Loss(name)(outputs, targets["numbers"][:, :1])


def test_every_loss_is_tested_here():
    assert {name for name, _ in KINDS} == set(LOSSES)
