"""What is missing does not count: modalities, cells, columns, rows; and modality dropout."""

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skmm import MultimodalNetClassifier, MultimodalNetRegressor
from skmm.neural_network import ImageBranch, SequenceBranch, TextBranch
from skmm.neural_network.branches import ModuleBranch
from skmm.neural_network.network import FUSIONS, Network, seeded

NAMES = sorted(FUSIONS)
RNG = np.random.default_rng(0)
QUICK = {"width": 16, "max_epochs": 20, "random_state": 0}


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


def test_statistics_of_a_branch_come_from_present_rows(small):
    X, y = small
    X = X.copy()
    X[::2, :5] = np.nan
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(5, momentum=1.0), torch.nn.Linear(5, 3)).double()
    net = MultimodalNetClassifier([("a", module, slice(0, 5)), ("b", "passthrough", slice(5, 8))], **QUICK).fit(X, y)
    norm = net.network_.branches[0].module[0]
    assert_allclose(norm.running_mean.numpy(), X[1::2, :5].mean(axis=0), rtol=1e-6)


def text(architecture):
    branch = TextBranch(architecture, n_embedding=8, n_hidden=4, token_dropout=0.3)
    return branch, ["a b c", "d", "b b", "a c d e", "e", "c a"], ["e d c b a e", "x"]


BRANCHES = {
    "features": (None, RNG.normal(size=(6, 4)), 1e3 * RNG.normal(size=(2, 4))),
    "module": (
        ModuleBranch(torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3), torch.nn.Dropout(0.3))),
        RNG.normal(size=(6, 4)),
        1e3 * RNG.normal(size=(2, 4)),
    ),
    "lstm": text("lstm"),
    "transformer": text("transformer"),
    "image": (
        ImageBranch(size=8, channels=(4,), n_hidden=5, dropout=0.3),
        RNG.integers(256, size=(6, 9, 9, 3), dtype=np.uint8),
        np.zeros((2, 9, 9, 3), dtype=np.uint8),
    ),
    "cnn": (SequenceBranch(n_hidden=4, dropout=0.3), RNG.normal(size=(6, 7)), 1e3 * RNG.normal(size=(2, 7))),
    "gru": (SequenceBranch("gru", n_hidden=4, dropout=0.3), RNG.normal(size=(6, 7)), 1e3 * RNG.normal(size=(2, 7))),
}


def read(branch, items):
    """Give a module or None, its width, and tensors of some items by a branch that was fitted to others."""
    if branch is None:
        return None, 4, [torch.from_numpy(items)]
    module = branch.make_module()
    return module, module.out_features, [torch.from_numpy(array) for array in branch.prepare(items)]


def passes(branch, items, fusion, mask, training):
    """Give the outputs, gradients and statistics of a network whose first modality has these items."""
    with seeded(0, torch.device("cpu")):
        module, width, tensors = read(branch, items)
        other = torch.randn(6, 3, dtype=torch.float64)
        network = Network(
            [(module, width), (None, 3), (None, 3)],
            2,
            fusion=fusion,
            n_layers=1,
            n_joint_layers=1,
            width=8,
            activation="gelu",
            dropout=0.3,
            rank=2,
            n_heads=2,
        )
        network.double().train(training)
        outputs = network([tensors, (other,), (other + 1,)], mask)
        outputs.square().sum().backward()
    return [outputs, *(weights.grad for weights in network.parameters()), *network.buffers()]


@pytest.mark.parametrize("fusion", NAMES)
@pytest.mark.parametrize("kind", BRANCHES)
def test_what_stands_in_place_of_a_missing_item_changes_nothing(kind, fusion):
    branch, items, others = BRANCHES[kind]
    if branch is not None:
        branch = clone(branch).fit(items)
    changed = [others[0], *items[1:4], others[1], items[5]]
    changed = changed if isinstance(items, list) else np.array(changed)
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[[0, 4], 0] = False
    mask[1, 1] = False
    # A row that has nothing but the first.
    mask[2, 1:] = False
    for training in (True, False):
        first, second = (passes(branch, x, fusion, mask, training) for x in (items, changed))
        for one, other in zip(first, second, strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
        # Where it is there, an item does count.
        whole = passes(branch, changed, fusion, None, training)
        assert not torch.equal(whole[0], first[0])


@pytest.mark.parametrize("fusion", NAMES)
def test_a_modality_that_a_batch_lacks_learns_nothing_from_it(fusion):
    branch, items, _ = BRANCHES["module"]
    branch = clone(branch).fit(items)
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[:, 0] = False
    with seeded(0, torch.device("cpu")):
        module, width, tensors = read(branch, items)
        sizes = {"n_layers": 1, "n_joint_layers": 1, "width": 8, "rank": 2, "n_heads": 2}
        parts = [(module, width), (None, 3), (None, 3)]
        network = Network(parts, 2, fusion=fusion, activation="relu", dropout=0.0, **sizes).double()
        before = [statistic.clone() for statistic in module.buffers()]
        other = torch.randn(6, 3, dtype=torch.float64)
        network.train()([tensors, (other,), (other,)], mask).square().sum().backward()
    for weights in [*network.branches[0].parameters(), *network.towers[0].parameters()]:
        assert weights.grad is None or not weights.grad.any()
    for statistic, old in zip(module.buffers(), before, strict=True):
        assert torch.equal(statistic, old)


def test_a_single_present_row_has_no_statistics_of_its_own(small):
    X, y = small
    X = X.copy()
    X[1:, :5] = np.nan
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3))
    net = MultimodalNetClassifier([("a", module, slice(0, 5)), ("b", "passthrough", slice(5, 8))], **QUICK).fit(X, y)
    norm = net.network_.branches[0].module[0]
    assert norm.num_batches_tracked == 0
    assert (norm.running_mean == 0).all()
    assert not torch.equal(net.network_.branches[0].module[1].weight, module[1].weight)
    assert np.isfinite(net.predict_proba(X)).all()
