"""The training loop: pieces of a batch, batches, schedule, frozen branches, weights, checkpoints, callbacks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skmm import MultimodalNetClassifier
from skmm.neural_network.network import BranchTraining, Loss, Network, Rows, Trainer, apply, seeded

CPU = torch.device("cpu")
USUAL = BranchTraining(), BranchTraining()
SETTINGS = {
    "learning_rate": 0.1,
    "weight_decay": 0.01,
    "warmup": 0.25,
    "batch_size": "auto",
    "accumulate": 1,
    "max_grad_norm": None,
    "modality_dropout": 0.0,
    "modulation": None,
}


def network(branch=None):
    with seeded(0, CPU):
        return Network(
            [(branch, 4), (None, 3)],
            1,
            fusion="gated",
            n_layers=1,
            n_joint_layers=1,
            width=6,
            activation="tanh",
            dropout=0.0,
            rank=1,
            n_heads=1,
        ).double()


def rows(n=40, weights=None, missing=False):
    generator = torch.Generator().manual_seed(0)
    inputs = [(torch.randn(n, width, generator=generator, dtype=torch.float64),) for width in (4, 3)]
    mask = None
    if missing:
        mask = torch.rand(n, 2, generator=generator) < 0.7
        mask[~mask.any(dim=1)] = True
    targets = inputs[0][0][:, :1] * inputs[1][0][:, :1]
    return Rows(inputs, mask, targets, weights)


def trainer(net, branches=USUAL, **settings):
    settings = SimpleNamespace(**{**SETTINGS, **settings})
    generator = torch.Generator().manual_seed(0)
    return Trainer(net, Loss("squared"), CPU, list(branches), settings, generator)


def flat(module):
    return torch.cat([p.detach().ravel() for p in module.parameters()])


class Narrow(torch.nn.Module):
    """A branch with room for few rows."""

    out_features = 4

    def __init__(self, room, error=None):
        super().__init__()
        self.room, self.seen = room, []
        self.error = error or RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.room:
            raise self.error
        return x


def test_a_batch_that_does_not_fit_goes_in_pieces_of_the_same_gradient():
    weights = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data = rows(weights=weights / weights.mean())
    roomy, narrow = network(Narrow(1000)), network(Narrow(11))
    losses = [trainer(net, batch_size=40).fit(data, None, 5).losses for net in (roomy, narrow)]
    assert_allclose(losses[0], losses[1], rtol=1e-10)
    assert_allclose(flat(roomy), flat(narrow), rtol=1e-8)
    # Tried in full once, and from then on in pieces that fit.
    assert narrow.branches[0].seen[:7] == [40, 20, 10, 10, 10, 10, 10]


def test_slices_of_a_batch_add_up_to_its_gradient():
    weights = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data = rows(weights=weights / weights.mean(), missing=True)
    nets = [network(Narrow(1000)) for _ in range(2)]
    losses = [
        trainer(net, batch_size=20, accumulate=n).fit(data, None, 3).losses for net, n in zip(nets, (1, 3), strict=True)
    ]
    assert_allclose(losses[0], losses[1], rtol=1e-10)
    assert_allclose(flat(nets[0]), flat(nets[1]), rtol=1e-8)
    # Of the rows of a slice those that have the modality; a batch holds 20, its slices 7, 7 and 6.
    assert max(nets[1].branches[0].seen) <= 7 < max(nets[0].branches[0].seen)


def test_slices_become_smaller_where_memory_runs_out():
    narrow = network(Narrow(11))
    trainer(narrow, batch_size=40, accumulate=2).fit(rows(), None, 1)
    assert narrow.branches[0].seen == [20, 10, 10, 10, 10]


def test_a_row_that_does_not_fit_raises():
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(network(Narrow(0))).fit(rows(), None, 1)


def test_memory_of_the_machine_runs_out_as_well():
    narrow = network(Narrow(11, MemoryError()))
    trainer(narrow, batch_size=40).fit(rows(), None, 1)
    assert narrow.branches[0].seen == [40, 20, 10, 10, 10, 10]


def test_validation_comes_in_pieces_as_well():
    data = rows(60, weights=torch.arange(60).double())
    roomy, narrow = network(Narrow(1000)), network(Narrow(11))
    scores = [trainer(net, batch_size=10).fit(rows(), data, 2).scores for net in (roomy, narrow)]
    assert_allclose(scores[0], scores[1], rtol=1e-10)
    # What was learned of the room holds on.
    assert narrow.branches[0].seen == [10] * 4 + [60, 30, 15, *[8] * 7, 4] + [10] * 4 + [*[8] * 7, 4]


def test_answers_come_in_pieces_as_well():
    net = network(Narrow(11)).eval()
    found = apply(net, rows(), lambda part: net(part.inputs, part.mask), CPU)
    roomy = network(Narrow(1000)).eval()
    assert_allclose(found, apply(roomy, rows(), lambda part: roomy(part.inputs, part.mask), CPU), rtol=1e-10)


@pytest.mark.parametrize(
    ("n", "batch_size", "expected"), [(401, 200, [133, 134, 134]), (30, "auto", [30]), (640, "auto", [64] * 10)]
)
def test_batches_are_of_equal_size(n, batch_size, expected):
    branch = Narrow(10**6)
    trainer(network(branch), batch_size=batch_size).fit(rows(n), None, 1)
    assert branch.seen == expected


def test_every_row_comes_once_in_an_epoch_in_a_new_order():
    seen = []

    def note(tensors, generator):
        seen.append(tensors[0][:, 0].numpy())
        return tensors

    data = rows(100)
    trainer(network(), [BranchTraining(augment=note), BranchTraining()], batch_size=30).fit(data, None, 2)
    first, second = np.concatenate(seen[:4]), np.concatenate(seen[4:])
    assert not np.array_equal(first, second)
    for epoch in (first, second):
        assert_array_equal(np.sort(epoch), np.sort(data.inputs[0][0][:, 0].numpy()))


def test_the_rate_rises_and_falls():
    made = trainer(network())
    rates = [made._rate(step, 20, "cosine") for step in range(20)]
    assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert_allclose(rates[5], 1)
    assert_allclose(rates[5:], 0.5 * (1 + np.cos(np.pi * np.arange(15) / 15)))
    assert {made._rate(step, 20, "constant") for step in range(20)} == {1.0}


def test_it_is_adamw_with_the_schedule():
    net, other = network(), network()
    data = rows()
    trainer(net, batch_size=40).fit(data, None, 8, schedule="cosine")
    matrices, vectors = ([p for p in other.parameters() if (p.ndim > 1) == big] for big in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0}])
    for rate in [0.05, 0.1, *(0.05 * (1 + np.cos(np.pi * np.arange(6) / 6)))]:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        ((other(data.inputs) - data.targets) ** 2).mean().backward()
        optimizer.step()
    assert_allclose(flat(net), flat(other), rtol=1e-7)


def test_gradients_are_clipped():
    net = network()
    made = trainer(net, max_grad_norm=1e-3)
    made._step(rows(), 40)
    assert_allclose(torch.linalg.vector_norm(torch.cat([p.grad.ravel() for p in net.parameters()])), 1e-3, rtol=1e-3)


class Scaled(torch.nn.Module):
    """A loss that learns."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, outputs, targets, weights=None):
        return self.scale * ((outputs - targets) ** 2).mean()


def test_gradients_of_a_loss_are_clipped_with_the_others():
    net, loss = network(), Scaled()
    settings = SimpleNamespace(**{**SETTINGS, "max_grad_norm": 1e-3})
    Trainer(net, loss, CPU, [BranchTraining()] * 2, settings, torch.Generator())._step(rows(), 40)
    gradients = [p.grad.ravel() for p in [*net.parameters(), loss.scale]]
    assert_allclose(torch.linalg.vector_norm(torch.cat(gradients)), 1e-3, rtol=1e-3)


def test_branches_stay_frozen_for_some_epochs_and_learn_at_their_own_rate():
    net = network(torch.nn.Linear(4, 4))
    seen, start = [], flat(net.branches[0]).clone()
    trainer(net, [BranchTraining(0.01, 2), BranchTraining()], weight_decay=0.0).fit(
        rows(), None, 4, on_epoch=lambda *_: seen.append((flat(net.branches[0]) - start).abs().max())
    )
    assert seen[:2] == [0, 0]
    # The first step of Adam is as long as the rate.
    assert_allclose(seen[2], 0.01, rtol=1e-4)
    assert seen[3] > seen[2]


def test_weights_of_rows_are_repeated_rows():
    counts = torch.tensor([1, 3, 2, 2] * 10)
    data = rows(missing=True)
    repeated = data.take(torch.arange(40).repeat_interleave(counts))
    weighted = rows(missing=True, weights=counts.double() / counts.double().mean())
    nets = [network(), network()]
    histories = [
        trainer(net, batch_size=80).fit(part, part, 10) for net, part in zip(nets, (weighted, repeated), strict=True)
    ]
    assert_allclose(flat(nets[0]), flat(nets[1]), rtol=1e-9)
    assert_allclose(histories[0].losses, histories[1].losses, rtol=1e-10)
    assert_allclose(histories[0].scores, histories[1].scores, rtol=1e-10)


def test_the_best_weights_come_back_with_statistics():
    branch = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 4))
    net, states = network(branch), []
    data, other = rows(), rows(30)
    # The target of other rows has nothing to do with that of the first: it soon gets worse.
    other.targets = -other.targets
    history = trainer(net).fit(
        data,
        other,
        20,
        patience=4,
        on_epoch=lambda *_: states.append({k: v.clone() for k, v in net.state_dict().items()}),
    )
    best = int(np.argmax(history.scores))
    assert len(history.losses) == len(history.scores) == best + 5 < 20
    for key, value in net.state_dict().items():
        assert torch.equal(value, states[best][key]), key
    assert not net.training
    score = -((net(other.inputs) - other.targets) ** 2).mean().item()
    assert_allclose(score, history.scores[best])


def test_modality_dropout_leaves_something_of_every_row():
    made = trainer(network(), modality_dropout=0.8)
    data = rows(2000, missing=True)
    mask = made._drop_modalities(data)
    assert mask.any(dim=1).all()
    assert not (mask & ~data.mask).any()
    assert mask.sum() < data.mask.sum()
    full = made._drop_modalities(rows(4000)).double()
    # Both kept .04, one of them .32, neither .64, where both stay.
    assert_allclose(full.mean(), 0.04 + 0.16 + 0.64, atol=0.02)


class Listener:
    """Notes the tasks that it hears of."""

    max_propagation_depth = None

    def __init__(self):
        self.begun, self.ended = [], []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        self.ended.append(context.task_name)


def test_callbacks_hear_of_modalities_and_epochs(small, halves):
    listener = Listener()
    net = MultimodalNetClassifier(halves, max_epochs=3, random_state=0).set_callbacks(listener)
    net.fit(*small)
    assert listener.begun[1:] == ["modality a", "modality b", "epoch", "epoch", "epoch"]
    assert sorted(listener.begun) == sorted(listener.ended)
