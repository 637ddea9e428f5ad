"""Coefficients are the paper's, scores those of single modalities, and noise is for a leader alone."""

import math

import pytest
import torch
from torch import nn

from skmm.neural_network import GradientModulation
from skmm.neural_network.network import Loss


class Linear(nn.Module):
    """The paper's fusion: one linear map of the concatenated hidden vectors."""

    def __init__(self, n_modalities=2, width=3, n_outputs=4):
        super().__init__()
        self.towers = nn.ModuleList(nn.Linear(width, width) for _ in range(n_modalities))
        self.head = nn.Linear(n_modalities * width, n_outputs, bias=False)

    def hiddens(self, inputs):
        return [tower(x) for tower, x in zip(self.towers, inputs, strict=True)]

    def outputs_of(self, hiddens, mask):
        return self.head(torch.cat(hiddens, dim=1))


@pytest.fixture
def batch():
    torch.manual_seed(0)
    network = Linear().double()
    hiddens = network.hiddens(torch.randn(2, 20, 3, dtype=torch.float64))
    return network, hiddens, torch.randint(4, (20,))


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_two_modalities_are_the_papers():
    found = GradientModulation(alpha=0.3).coefficients(tensor(0.6, 0.4))
    torch.testing.assert_close(found, tensor(1 - math.tanh(0.3 * 0.6 / 0.4), 1))


def test_more_are_compared_with_the_mean_of_the_others():
    found = GradientModulation(alpha=0.3).coefficients(tensor(0.6, 0.3, 0.2))
    torch.testing.assert_close(found, tensor(1 - math.tanh(0.3 * 0.6 / 0.25), 1, 1))
    found = GradientModulation(alpha=0.3).coefficients(tensor(0.6, 0.5, 0.2))
    torch.testing.assert_close(found, tensor(1 - math.tanh(0.3 * 0.6 / 0.35), 1 - math.tanh(0.3 * 0.5 / 0.4), 1))


@pytest.mark.parametrize(
    ("scores", "alpha"),
    [((0.4, 0.4), 1.0), ((0.9, 0.1), 0.0), ((0.9, math.nan), 1.0), ((0.5,), 1.0), ((0.9, 0.0), 0.0)],
)
def test_without_a_lead_or_strength_nothing_changes(scores, alpha):
    assert (GradientModulation(alpha=alpha).coefficients(tensor(*scores)) == 1).all()


def test_a_modality_that_is_not_there_is_not_compared_with():
    found = GradientModulation().coefficients(tensor(0.6, math.nan, 0.4))
    torch.testing.assert_close(found[[0, 2]], GradientModulation().coefficients(tensor(0.6, 0.4)))
    assert found[1] == 1


def test_scores_are_probabilities_of_the_true_class(batch):
    network, hiddens, targets = batch
    scores = GradientModulation().scores(network, hiddens, None, targets, None, Loss("cross_entropy"))
    for m, own in enumerate(network.head.weight.split(3, dim=1)):
        expected = (hiddens[m] @ own.T).softmax(1)[torch.arange(20), targets].mean()
        torch.testing.assert_close(scores[m], expected)
    assert not scores.requires_grad


def test_scores_count_present_rows_by_their_weights(batch):
    network, hiddens, targets = batch
    loss, modulation = Loss("cross_entropy"), GradientModulation()
    mask = torch.ones(20, 2, dtype=torch.bool)
    mask[5:, 0] = False
    weights = torch.rand(20, dtype=torch.float64)
    scores = modulation.scores(network, hiddens, mask, targets, weights, loss)
    for m, rows in enumerate([slice(0, 5), slice(None)]):
        each = [
            modulation.scores(network, [h[[i]] for h in hiddens], None, targets[[i]], None, loss)[m]
            for i in range(20)[rows]
        ]
        expected = (torch.stack(each) * weights[rows]).sum() / weights[rows].sum()
        torch.testing.assert_close(scores[m], expected)
    mask[:, 0] = False
    assert modulation.scores(network, hiddens, mask, targets, weights, loss)[0].isnan()


def gradients(network, hiddens, targets):
    network.zero_grad()
    Loss("cross_entropy")(network.outputs_of(hiddens, None), targets).backward(retain_graph=True)
    return [weights.grad.clone() for weights in network.parameters()]


def test_noise_has_the_spread_of_the_gradient(batch):
    network, hiddens, targets = batch
    before = gradients(network, hiddens, targets)
    differences = []
    for _ in range(300):
        gradients(network, hiddens, targets)
        GradientModulation().add_noise([[tower] for tower in network.towers], [0.25, 1.0])
        differences.append(network.towers[0].weight.grad - before[0])
        assert torch.equal(network.towers[1].weight.grad, before[2])
    spread = torch.stack(differences).std().item()
    assert spread == pytest.approx(before[0].std(correction=0).item(), rel=0.1)


def test_frozen_layers_are_left_alone(batch):
    network, _, _ = batch
    network.zero_grad()
    GradientModulation().add_noise([[network.towers[0]]], [0.5])
    assert network.towers[0].weight.grad is None


def test_without_noise_gradients_stay(batch):
    before = gradients(*batch)
    GradientModulation(noise=False).add_noise([[tower] for tower in batch[0].towers], [0.25, 1.0])
    assert all(torch.equal(old, weights.grad) for old, weights in zip(before, batch[0].parameters(), strict=True))


def test_scoring_leaves_statistics_and_dropout_alone(batch):
    network, hiddens, targets = batch
    network.head = nn.Sequential(nn.BatchNorm1d(6, dtype=torch.float64), nn.Dropout(0.5), network.head)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    score = [GradientModulation().scores(network, hiddens, None, targets, None, Loss("focal")) for _ in range(2)]
    assert torch.equal(*score)
    assert network.training
    assert network.head[1].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
