"""Networks trained on raw items: branches and modules in place of transformers, alone and beside frozen features."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from skmm.neural_network import (
    AudioBranch,
    GradientModulation,
    ImageBranch,
    MultimodalNetClassifier,
    MultimodalNetRegressor,
    SequenceBranch,
    TextBranch,
)

RNG = np.random.default_rng(0)
N = 32


@pytest.fixture
def frame():
    """Raw items of which each modality tells one half of four classes, numbers that tell nothing, and y."""
    high, low = RNG.integers(2, size=(2, N))
    items = {
        "text": [f"{'red' if h else 'blue'} number {RNG.integers(100)}" for h in high],
        "image": [RNG.integers(100, size=(12, 12), dtype=np.uint8) + np.uint8(100 * bit) for bit in low],
        "sound": [(8000, 0.1 * RNG.normal(size=800) + np.sin(np.arange(800) * (0.3 + bit))) for bit in low],
        "series": [np.cumsum(RNG.normal(2 * bit - 1, 0.5, size=RNG.integers(5, 15))) for bit in low],
        "a": RNG.normal(size=N),
        "b": RNG.normal(size=N),
    }
    columns = {}
    for name, values in items.items():
        columns[name] = pd.Series([None] * N, dtype=object)
        for row, value in enumerate(values):
            columns[name].iat[row] = value
    return pd.DataFrame(columns).astype({"a": float, "b": float}), 2 * high + low


TEXT = TextBranch(n_embedding=16, n_hidden=16)
IMAGE = ImageBranch(size=8, channels=(8,), n_hidden=16)
SECOND = {
    "image": (IMAGE, "image"),
    "sound": (AudioBranch(n_hidden=16, n_layers=1, n_mels=16, target_rate=8000), "sound"),
    "series": (SequenceBranch(n_hidden=16), "series"),
}
SMALL = {"width": 16, "dropout": 0, "learning_rate": 0.01, "random_state": 0, "device": "cpu"}


@pytest.mark.parametrize("second", SECOND)
def test_raw_items_are_learned(frame, second):
    X, y = frame
    branch, column = SECOND[second]
    net = MultimodalNetClassifier([("text", TEXT, "text"), ("second", branch, column)], max_epochs=60, **SMALL)
    assert net.fit(X, y).score(X, y) == 1
    again = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(again.predict_proba(X), net.predict_proba(X))
    # What was fitted is a clone, and learned its column's content; the parameter stays as it was.
    assert not hasattr(net.modalities[0][1], "vocabulary_")
    assert "blue" in net.named_modalities_.text.vocabulary_


@pytest.mark.parametrize("fusion", ["concat", "gated", "attention", "tensor", "mixture"])
def test_missing_raw_items_are_as_if_never_read(frame, fusion):
    X, y = frame
    X = X.copy()
    X.loc[::3, "text"] = None
    X.loc[1::3, "image"] = None
    modalities = [("text", TEXT, "text"), ("image", IMAGE, "image")]
    net = MultimodalNetClassifier(modalities, fusion, max_epochs=3, **SMALL).fit(X, y)
    proba = net.predict_proba(X)
    assert np.isfinite(proba).all()
    for row in (0, 1, 2):
        np.testing.assert_allclose(net.predict_proba(X.iloc[[row]])[0], proba[row], rtol=1e-4, atol=1e-6)
    # A batch in which a modality is missing everywhere.
    np.testing.assert_allclose(net.predict_proba(X[::3]), proba[::3], rtol=1e-4, atol=1e-6)


def test_frozen_and_trained_modalities_with_a_users_module(frame):
    X, y = frame
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    before = [weights.clone() for weights in module.parameters()]
    modalities = [("text", TEXT, "text"), ("own", module, ["a", "b"]), ("numbers", "passthrough", ["a", "b"])]
    net = MultimodalNetClassifier(modalities, max_epochs=2, **SMALL).fit(X, y)
    assert net.transform(X).shape == (N, 16)
    trained = list(net.network_.branches[1].parameters())
    for old, kept, new in zip(before, module.parameters(), trained, strict=True):
        assert torch.equal(old, kept)
        assert not torch.equal(old, new)
    copy = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(copy.predict_proba(X), net.predict_proba(X))


def test_runs_repeat_bit_for_bit(frame):
    X, y = frame
    net = MultimodalNetClassifier([("text", clone(TEXT), "text"), ("image", IMAGE, "image")], max_epochs=3, **SMALL)
    net.set_params(dropout=0.2, text__token_dropout=0.2)
    first, second = clone(net).fit(X, y), clone(net).fit(X, y)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert first.loss_curve_ == second.loss_curve_


def weights_of(net):
    return [weights.detach().clone() for weights in net.network_.branches[0].parameters()]


def test_frozen_epochs_and_learning_rates_of_branches(frame):
    X, y = frame

    def fit(n_epochs, **params):
        net = MultimodalNetClassifier([("text", clone(TEXT), "text")], schedule="constant", weight_decay=0, **SMALL)
        return net.set_params(max_epochs=n_epochs, **{f"text__{k}": v for k, v in params.items()}).fit(X, y)

    start = weights_of(fit(1, n_frozen_epochs=1))
    frozen, thawed = weights_of(fit(2, n_frozen_epochs=2)), weights_of(fit(3, n_frozen_epochs=2))
    assert all(torch.equal(a, b) for a, b in zip(start, frozen, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(start, thawed, strict=True))
    # Adam's first step is as long as the learning rate.
    slow, usual = weights_of(fit(1, learning_rate=1e-4)), weights_of(fit(1))
    moved = [max((a - b).abs().max().item() for a, b in zip(start, end, strict=True)) for end in (slow, usual)]
    assert moved == pytest.approx([1e-4, 1e-2], rel=0.05)


class Brighter:
    """An augmentation that notes what it was given."""

    def __init__(self):
        self.seen = []

    def __call__(self, tensors, generator):
        (images,) = tensors
        self.seen.append((images.shape, images.dtype, isinstance(generator, torch.Generator)))
        return ((images.float() + 50 * torch.rand(len(images), 1, 1, 1, generator=generator)).clamp(0, 255),)


def test_augmentation_is_for_training_alone(frame):
    X, y = frame
    augment = Brighter()
    branch = ImageBranch(size=8, channels=(8,), n_hidden=16, augment=augment)
    net = MultimodalNetClassifier([("image", branch, "image")], max_epochs=2, batch_size=16, **SMALL).fit(X, y)
    augmented = net.named_modalities_.image.augment
    assert augmented.seen == [((16, 3, 8, 8), torch.uint8, True)] * 4
    net.predict(X)
    assert len(augmented.seen) == 4


def test_raw_items_in_regression(frame):
    X, y = frame
    net = MultimodalNetRegressor([("text", TEXT, "text"), ("image", IMAGE, "image")], max_epochs=80, **SMALL)
    assert net.fit(X, y.astype(float)).score(X, y.astype(float)) > 0.95


def test_a_search_over_a_branch(frame):
    X, y = frame
    net = MultimodalNetClassifier([("text", TEXT, "text")], max_epochs=1, **SMALL)
    search = GridSearchCV(net, {"text__architecture": ["lstm", "transformer"], "fusion": ["concat", "gated"]}, cv=2)
    search.fit(X, y)
    assert set(search.cv_results_["param_text__architecture"]) == {"lstm", "transformer"}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_an_unreadable_item_names_modality_and_row(frame):
    X, y = frame
    X = X.copy()
    X.loc[0, "image"] = None
    X.loc[5, "image"] = "no_such.png"
    with pytest.raises(
        ValueError, match=r"modality 'image', ImageBranch: row 5: 'no_such.png': the file does not exist"
    ):
        MultimodalNetClassifier([("image", IMAGE, "image")], **SMALL).fit(X, y)


def starved(seed):
    """Two classes: a strong modality tells them by one column of sixty, a weak one by the sign of a product."""
    rng = np.random.default_rng(seed)
    sign = rng.choice([-1, 1], size=(2000, 1))
    strong = np.hstack([2 * sign + 0.3 * rng.normal(size=(2000, 1)), rng.normal(size=(2000, 59))])
    a, b = rng.normal(size=(2, 2000, 1))
    return np.hstack([strong, a, np.abs(b) * np.sign(a) * sign]), sign[:, 0]


def weak_alone(modulation, seed):
    """Accuracy where the strong modality is missing, of a network that was trained with both."""
    X, y = starved(seed)
    train, test = slice(0, 800), slice(800, None)
    modalities = [("strong", "passthrough", slice(0, 60)), ("weak", "passthrough", slice(60, 62))]
    params = {**SMALL, "width": 32, "n_joint_layers": 0, "max_epochs": 40}
    net = MultimodalNetClassifier(modalities, modulation=modulation, **params).fit(X[train], y[train])
    X[:, :60] = np.nan
    return net.score(X[test], y[test])


@pytest.mark.slow
def test_modulation_keeps_a_strong_modality_from_starving_a_weak_one():
    plain = np.mean([weak_alone(None, seed) for seed in range(3)])
    modulated = np.mean([weak_alone(GradientModulation(alpha=1.0, noise=False), seed) for seed in range(3)])
    assert modulated > plain + 0.015


def test_only_the_layers_of_the_leader_take_shorter_steps():
    X, y = starved(0)
    modalities = [("strong", "passthrough", slice(0, 60)), ("weak", "passthrough", slice(60, 62))]

    class Fixed(GradientModulation):
        def coefficients(self, scores):
            return scores.new_tensor([0.25, 1.0])

    def steps(modulation):
        nets = [
            MultimodalNetClassifier(
                modalities,
                max_epochs=1,
                modulation=modulation,
                schedule="constant",
                early_stopping=False,
                weight_decay=0,
                batch_size=len(y),
                **{**SMALL, "learning_rate": rate},
            ).fit(X, y)
            for rate in (1e-9, 1e-2)
        ]
        states = [net.network_.state_dict() for net in nets]
        return {name: (states[1][name] - states[0][name]).abs().max().item() for name in states[0]}

    plain, modulated = steps(None), steps(Fixed(noise=False))
    for name in plain:
        factor = 0.25 if name.startswith("towers.0") else 1
        assert modulated[name] == pytest.approx(factor * plain[name], rel=1e-4), name


def test_modulation_without_strength_changes_nothing(frame):
    X, y = frame
    modalities = [("text", TEXT, "text"), ("image", IMAGE, "image")]
    net = MultimodalNetClassifier(modalities, max_epochs=2, **SMALL)
    plain = clone(net).fit(X, y)
    idle = clone(net).set_params(modulation=GradientModulation(alpha=0)).fit(X, y)
    np.testing.assert_array_equal(plain.predict_proba(X), idle.predict_proba(X))
    busy = clone(net).set_params(modulation=GradientModulation(), modulation__alpha=1.0).fit(X, y)
    assert not np.array_equal(plain.predict_proba(X), busy.predict_proba(X))
    np.testing.assert_array_equal(busy.predict_proba(X), clone(busy).fit(X, y).predict_proba(X))


def test_modulation_is_checked(frame):
    X, y = frame
    net = MultimodalNetClassifier([("text", TEXT, "text")], **SMALL)
    with pytest.raises(ValueError, match="The 'alpha' parameter of GradientModulation"):
        clone(net).set_params(modulation=GradientModulation(alpha=-1)).fit(X, y)
    with pytest.raises(ValueError, match="modulation needs one of the named losses"):
        clone(net).set_params(modulation=GradientModulation(), loss=nn.CrossEntropyLoss()).fit(X, y)
