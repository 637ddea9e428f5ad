"""Random numbers come from generators of the fit: answers do not depend on threads, and global generators stay."""

import threading

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed
from numpy.testing import assert_array_equal
from sklearn.base import clone
from torch import nn

from skmm import ModalityVotingClassifier, MultimodalNetClassifier
from skmm.neural_network import FusionLayer, GradientModulation, ImageBranch, SequenceBranch, TextBranch
from skmm.neural_network.network import FUSIONS, Dropout

RNG = np.random.default_rng(0)
QUICK = {"width": 8, "max_epochs": 2, "batch_size": 8, "device": "cpu"}
N = 24
X = pd.DataFrame(
    {
        "text": [f"word{i % 3} word{i % 5} word{i % 7}" for i in range(N)],
        "image": list(RNG.integers(256, size=(N, 8, 8, 3), dtype=np.uint8)),
        "series": list(RNG.normal(size=(N, 9))),
        "a": RNG.normal(size=N),
        "b": RNG.normal(size=N),
    }
)
Y = np.arange(N) % 2


class NoisyLayer(FusionLayer):
    """A layer that draws its weights and its noise by functions that take no generator."""

    def build(self, widths):
        self.scales = nn.Parameter(torch.rand_like(torch.empty(len(widths))))
        self.out_features = widths[0]

    def forward(self, hiddens, mask):
        joint = sum(scale * h for scale, h in zip(self.scales, hiddens, strict=True))
        return nn.functional.dropout(joint, 0.5, self.training), None


def net(member, columns, fusion="concat", **params):
    modalities = [("raw", member, columns), ("b", "passthrough", ["b"])]
    return MultimodalNetClassifier(modalities, fusion, **{**QUICK, "dropout": 0.4, **params})


TEXT = TextBranch(n_embedding=8, n_hidden=4, token_dropout=0.3)
NETS = {
    "frozen": net("passthrough", ["a"], modality_dropout=0.3, early_stopping=True),
    "modulation": net("passthrough", ["a"], modulation=GradientModulation(alpha=2.0)),
    "lstm": net(clone(TEXT).set_params(n_layers=2, dropout=0.3), "text"),
    "transformer": net(clone(TEXT).set_params(architecture="transformer", n_layers=2, dropout=0.3), "text"),
    "image": net(ImageBranch(size=8, channels=(4,), n_hidden=4, dropout=0.3), "image"),
    "cnn": net(SequenceBranch(n_hidden=4, dropout=0.3), "series"),
    "gru": net(SequenceBranch("gru", n_hidden=4, dropout=0.3), "series"),
    "user's module": net(nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.4)), ["a", "b"]),
    "user's layer": net("passthrough", ["a"], NoisyLayer()),
}


def fit_and_predict(net, seed):
    return clone(net).set_params(random_state=seed).fit(X, Y).predict_proba(X)


@pytest.mark.parametrize("name", [*NETS, *(pytest.param(fusion, marks=pytest.mark.slow) for fusion in FUSIONS)])
def test_fits_in_threads_equal_fits_one_by_one(name):
    fitted = NETS.get(name) or net("passthrough", ["a"], name)
    expected = [fit_and_predict(fitted, seed) for seed in range(4)]
    assert not np.array_equal(*expected[:2])
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for _ in range(2):
        results = Parallel(n_jobs=4, backend="threading")(delayed(fit_and_predict)(fitted, s) for s in range(4))
        for result, proba in zip(results, expected, strict=True):
            assert_array_equal(result, proba)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["frozen", "modulation", "lstm", "transformer", "image", "cnn", "gru"])
def test_layers_of_skmm_never_touch_the_global_generator(name, monkeypatch):
    """Neither while they are made nor while they are trained, so that others may draw from it at the same time."""
    expected = fit_and_predict(NETS[name], 0)
    torch.manual_seed(3)
    before = torch.get_rng_state()

    def refuse(*args, **kwargs):
        raise AssertionError("the global generator was set")

    for function in ("manual_seed", "set_rng_state"):
        monkeypatch.setattr(torch, function, refuse)
    fit = clone(NETS[name]).set_params(random_state=0).fit
    states = []
    fit_epoch = Dropout.forward
    monkeypatch.setattr(
        Dropout, "forward", lambda layer, x: (states.append(torch.get_rng_state()), fit_epoch(layer, x))[1]
    )
    assert_array_equal(fit(X, Y).predict_proba(X), expected)
    assert states
    assert all(torch.equal(before, state) for state in [*states, torch.get_rng_state()])


def test_draws_of_another_thread_change_nothing():
    expected = fit_and_predict(NETS["transformer"], 0)
    done = threading.Event()

    def draw():
        while not done.is_set():
            torch.rand(3)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        assert_array_equal(fit_and_predict(NETS["transformer"], 0), expected)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_voters_answer_the_same_for_any_n_jobs(backend):
    members = [(name, net("passthrough", [name], random_state=0, modality_dropout=0.2), ["a", "b"]) for name in "ab"]
    voter = ModalityVotingClassifier(members)
    expected = clone(voter).fit(X, Y).predict_proba(X)
    from joblib import parallel_config

    with parallel_config(backend):
        assert_array_equal(clone(voter).set_params(n_jobs=2).fit(X, Y).predict_proba(X), expected)


def test_dropout_is_that_of_torch():
    x = torch.rand(200, 300) + 1
    layer = Dropout(0.3)
    layer.generator = torch.Generator().manual_seed(0)
    dropped = layer(x)
    zero = dropped == 0
    assert zero.float().mean().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(dropped[~zero], (x / 0.7)[~zero])
    assert layer.eval()(x) is x
    assert Dropout(0)(x) is x
