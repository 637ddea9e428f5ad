"""What all branches promise: arrays per row, a module with its width, parameters, pickles, errors that name the row."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skmm._composition import PresentRows
from skmm.exceptions import BranchItemError
from skmm.neural_network import AudioBranch, ImageBranch, SequenceBranch, TextBranch
from skmm.neural_network.branches import ModuleBranch

RNG = np.random.default_rng(0)
TEXTS = ["a small letter", "capital letter with a long tail", "digit", "a"]
IMAGES = list(RNG.integers(256, size=(4, 20, 24, 3), dtype=np.uint8))
SOUNDS = [(8000, RNG.normal(size=n).astype(np.float32)) for n in (4000, 2000, 8000, 100)]
SERIES = [RNG.normal(size=(n, 3)) for n in (7, 12, 1, 20)]

CASES = {
    "lstm": (TextBranch(n_embedding=8, n_hidden=6, n_layers=2), TEXTS),
    "lstm mean": (TextBranch(n_embedding=8, n_hidden=6, pooling="mean"), TEXTS),
    "transformer": (TextBranch("transformer", n_embedding=8, n_hidden=6, n_layers=2), TEXTS),
    "image": (ImageBranch(size=16, channels=(4, 6), n_hidden=5), IMAGES),
    "audio cnn": (AudioBranch(n_hidden=6, n_mels=8, target_rate=8000), SOUNDS),
    "audio gru": (AudioBranch("gru", n_hidden=6, n_layers=1, n_mels=8, target_rate=8000), SOUNDS),
    "sequence cnn": (SequenceBranch(n_hidden=6), SERIES),
    "sequence gru": (SequenceBranch("gru", n_hidden=6, pooling="mean"), SERIES),
    "module": (ModuleBranch(nn.Sequential(nn.Linear(3, 5), nn.ReLU())), RNG.normal(size=(4, 3))),
}
every_branch = pytest.mark.parametrize(("branch", "X"), CASES.values(), ids=CASES)


def make(branch, X, dtype=torch.float64):
    """Give the prepared tensors of a fitted branch, and its module in eval mode."""
    torch.manual_seed(0)
    branch = clone(branch).fit(X)
    return [torch.from_numpy(x) for x in branch.prepare(X)], branch.make_module().to(dtype).eval()


def column(X):
    """Give items as a series of objects; a matrix stays one."""
    if isinstance(X, np.ndarray):
        return X
    items = np.empty(len(X), dtype=object)
    items[:] = X
    return pd.Series(items, name="items")


@every_branch
def test_one_row_per_item_and_one_vector_per_row(branch, X):
    tensors, module = make(branch, X)
    assert all(len(x) == len(X) for x in tensors)
    vectors = module(*tensors)
    assert vectors.shape == (len(X), module.out_features)
    assert torch.isfinite(vectors).all()


@every_branch
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_have_the_dtype_of_the_weights(branch, X, dtype):
    if isinstance(branch, ModuleBranch):
        X = X.astype(np.float32 if dtype == torch.float32 else np.float64)
    tensors, module = make(branch, X, dtype)
    assert module(*tensors).dtype == dtype


@every_branch
def test_a_row_depends_on_its_item_alone(branch, X):
    tensors, module = make(branch, X)
    together = module(*tensors)
    fitted = clone(branch).fit(X)
    for row in range(len(X)):
        alone = [torch.from_numpy(x) for x in fitted.prepare(X[row : row + 1])]
        torch.testing.assert_close(module(*alone)[0], together[row], rtol=1e-10, atol=1e-12)


@every_branch
def test_every_parameter_receives_a_gradient(branch, X):
    tensors, module = make(branch, X)
    # Not the sum: what LayerNorm gives sums to a constant.
    (module(*tensors) * torch.randn(len(X), module.out_features, dtype=torch.float64)).sum().backward()
    for name, weights in module.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.abs().sum() > 0, name


@every_branch
def test_modules_repeat_with_torchs_seed(branch, X):
    (_, first), (_, second) = make(branch, X), make(branch, X)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@every_branch
def test_making_a_module_leaves_the_branch_alone(branch, X):
    fitted = clone(branch).fit(X)
    before = dict(vars(fitted))
    first, second = fitted.make_module(), fitted.make_module()
    assert vars(fitted) == before
    first_weights = {id(weights) for weights in first.parameters()}
    assert first_weights.isdisjoint(id(weights) for weights in second.parameters())


@every_branch
def test_pickle_and_clone(branch, X):
    fitted = clone(branch).fit(X)
    again = pickle.loads(pickle.dumps(fitted))
    for a, b in zip(fitted.prepare(X), again.prepare(X), strict=True):
        np.testing.assert_array_equal(a, b)
    tensors, module = make(branch, X)
    copy = pickle.loads(pickle.dumps(module))
    assert torch.equal(copy(*tensors), module(*tensors))
    assert set(vars(clone(fitted))) == set(fitted.get_params())


@every_branch
def test_containers_agree(branch, X):
    expected = clone(branch).fit(X).prepare(X)
    items = column(X)
    frame = items.to_frame() if isinstance(items, pd.Series) else pd.DataFrame(items, columns=list("abc"))
    for container in (items, frame):
        fitted = clone(branch).fit(container)
        for a, b in zip(fitted.prepare(container), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert list(fitted.feature_names_in_) == list(frame.columns)
    assert fitted.n_features_in_ == frame.shape[1]


@every_branch
def test_other_columns_are_refused(branch, X):
    frame = pd.DataFrame({"a": column(X)}) if not isinstance(X, np.ndarray) else pd.DataFrame(X).add_prefix("a")
    fitted = clone(branch).fit(frame)
    with pytest.raises(ValueError, match="feature names"):
        fitted.prepare(frame.add_prefix("b"))


@every_branch
def test_unfitted(branch, X):
    with pytest.raises(Exception, match="not fitted"):
        clone(branch).prepare(X)
    with pytest.raises(Exception, match="not fitted"):
        clone(branch).make_module()


@every_branch
@pytest.mark.parametrize(
    "params", [{"learning_rate": 0}, {"learning_rate": "fast"}, {"n_frozen_epochs": -1}, {"augment": 1}]
)
def test_bad_parameters(branch, X, params):
    name = next(iter(params))
    with pytest.raises(ValueError, match=f"The '{name}' parameter of {type(branch).__name__} must be"):
        clone(branch).set_params(**params).fit(X)


BAD_ITEMS = {
    "lstm": (7, "int 7: a text is a string, got an object of type int"),
    "image": ("no_such.png", "'no_such.png': the file does not exist"),
    "audio cnn": ("no_such.wav", "'no_such.wav': the file does not exist"),
    "sequence cnn": (np.zeros((5, 2)), "the series has 2 channels where 3 were expected"),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_a_bad_item_names_its_row(case):
    branch, X = CASES[case]
    item, reason = BAD_ITEMS[case]
    fitted = clone(branch).fit(X)
    with pytest.raises(BranchItemError, match=f"{type(branch).__name__}: row 2: .*") as caught:
        fitted.prepare([*X[:2], item, *X[2:]])
    assert caught.value.row == 2
    assert reason in str(caught.value)
    assert "set it to None" in str(caught.value)


def test_in_a_composite_the_row_is_that_of_all_rows():
    branch, X = CASES["image"]
    items = column([None, X[0], None, "no_such.png"])
    present = PresentRows(items, "photo")
    fitted = clone(branch).fit(X)
    with pytest.raises(BranchItemError, match=r"modality 'photo', ImageBranch: row 3: 'no_such.png'"):
        present.call(fitted.prepare, present.take(items))


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_missing_items_are_not_for_branches(case):
    branch, X = CASES[case]
    fitted = clone(branch).fit(X)
    with pytest.raises(ValueError, match=r"row 1: .*the item is missing, and only rows that have one can be read"):
        fitted.prepare(column([X[0], None]))


def test_text_in_polars():
    fitted = TextBranch().fit(pl.Series("t", TEXTS))
    np.testing.assert_array_equal(fitted.prepare(pl.DataFrame({"t": TEXTS})["t"])[0], fitted.prepare(TEXTS)[0])


def test_modules_of_users_are_copied_and_keep_their_weights():
    module = nn.Linear(3, 2)
    X = RNG.normal(size=(4, 3)).astype(np.float32)
    made = ModuleBranch(module).fit(X).make_module()
    assert made.out_features == 2
    assert made.module is not module
    (values,) = ModuleBranch(module).fit(X).prepare(X)
    assert values.dtype == np.float32
    torch.testing.assert_close(made(torch.from_numpy(values)), module(torch.from_numpy(X)))


def test_a_single_missing_number_is_its_columns_mean():
    X = np.array([[1.0, 5.0], [3.0, np.nan], [np.nan, 7.0]])
    (values,) = ModuleBranch(nn.Linear(2, 1)).fit(X).prepare(X)
    np.testing.assert_array_equal(values, [[1, 5], [3, 6], [2, 7]])


def test_a_column_of_vectors_is_a_matrix():
    (values,) = ModuleBranch(nn.Linear(3, 1)).fit(pd.Series([[1, 2, 3], [4, 5, 6]])).prepare(pd.Series([[7, 8, 9]]))
    np.testing.assert_array_equal(values, [[7, 8, 9]])


@pytest.mark.parametrize(
    ("module", "got"), [(nn.Sequential(nn.Linear(3, 2), nn.Flatten(0)), r"\(4,\)"), (nn.LSTM(3, 2), "tuple")]
)
def test_modules_that_give_no_vectors(module, got):
    with pytest.raises(ValueError, match=rf"must map \(2, 3\) to a tensor \(n, n_outputs\), got {got}"):
        ModuleBranch(module).fit(np.zeros((4, 3))).make_module()


def test_modules_of_users_may_live_on_another_device():
    assert ModuleBranch(nn.Linear(3, 2, device="meta")).fit(np.zeros((4, 3))).make_module().out_features == 2
