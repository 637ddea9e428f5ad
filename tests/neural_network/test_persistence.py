"""Fitted networks on file: pickle, joblib, skops, other machines."""

import copy
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import MultimodalNetClassifier, MultimodalNetRegressor, TextEncoder, get_trusted_types
from skmm.neural_network import (
    GradientModulation,
    ImageBranch,
    SequenceBranch,
    TextBranch,
    distill,
)
from skmm.neural_network.branches import ModuleBranch
from skmm.neural_network.network import FUSIONS

NAMES = sorted(FUSIONS)
QUICK = {"width": 16, "max_epochs": 20, "random_state": 0}


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float64_loads_where_a_device_computes_float32_only(dtype, small, halves, monkeypatch):
    X, y = small
    X = X.astype(dtype)
    net = MultimodalNetClassifier(halves, **QUICK).fit(X, y)
    data, moved = pickle.dumps(net), []
    monkeypatch.setattr("skmm.neural_network._base.resolve_device", lambda device: torch.device("mps"))
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *args: moved.extend(args) or module)
    pickle.loads(data)
    assert moved[-1] == torch.device("cpu" if dtype == np.float64 else "mps")


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


def numbers_and_pipelines(small):
    X, y = small
    modalities = [("a", make_pipeline(StandardScaler()), slice(0, 5)), ("b", "passthrough", slice(5, 8))]
    return MultimodalNetRegressor(modalities, loss="quantile", modulation=GradientModulation(), **QUICK), X, y


def classes_of_text(frame):
    modalities = [("text", TextBranch(n_hidden=8), "text"), ("numbers", StandardScaler(), ["weight"])]
    return MultimodalNetClassifier(modalities, "attention", **QUICK), *frame


def encoded_text(frame, model):
    X, y = frame
    encoder = TextEncoder(model, device="cpu", store=None)
    return MultimodalNetClassifier([("text", encoder, "text"), ("n", "passthrough", ["height"])], **QUICK), X, y


def images_and_series(small):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"image": list(rng.integers(256, size=(8, 9, 9, 3), dtype=np.uint8))})
    X["series"] = [rng.normal(size=n) for n in (3, 5, 4, 6, 3, 5, 4, 6)]
    image = ImageBranch(size=8, channels=(4,), n_hidden=8)
    modalities = [("image", image, "image"), ("series", SequenceBranch(n_hidden=8), "series")]
    return MultimodalNetClassifier(modalities, "film", **{**QUICK, "max_epochs": 2}), X, np.arange(8) % 2


@pytest.fixture(params=["numbers", "text", "encoder", "images"])
def case(request, small, frame):
    """Give an unfitted network, X and y."""
    if request.param == "encoder":
        return encoded_text(frame, request.getfixturevalue("tiny_text_model"))
    return {"numbers": numbers_and_pipelines, "text": classes_of_text, "images": images_and_series}[request.param](
        frame if request.param == "text" else small
    )


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_skops_trusts_only_what_is_listed(case, method):
    sio = pytest.importorskip("skops.io")
    net, X, y = case
    saved = sio.dumps(getattr(net, method)(X, y))
    assert set(sio.get_untrusted_types(data=saved)) <= set(get_trusted_types())
    loaded = sio.loads(saved, trusted=get_trusted_types())
    assert_array_equal(loaded.predict(X), net.predict(X))
    assert_array_equal(loaded.transform(X), net.transform(X))


def test_files_go_on_where_the_network_was(case):
    net, X, y = case
    loaded = pickle.loads(pickle.dumps(net.partial_fit(X, y)))
    assert_array_equal(loaded.transform(X), net.transform(X))
    assert_array_equal(loaded.partial_fit(X, y).transform(X), net.partial_fit(X, y).transform(X))
    assert not hasattr(clone(loaded), "network_")
    assert_array_equal(clone(loaded).fit(X, y).transform(X), clone(net).fit(X, y).transform(X))


def test_files_hold_arrays_of_the_cpu_alone(case, monkeypatch):
    net, X, y = case
    net.partial_fit(X, y)
    moved = []
    to_cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(tensor) or to_cpu(tensor))
    state = net.__getstate__()
    # Wherever it was, each tensor of the network was asked for on the CPU.
    assert len(moved) == len(state["network_"]) == len(net.network_.state_dict())
    for arrays in (state["network_"], *state["_optimizer_state"].values()):
        assert {type(array) for array in arrays.values()} == {np.ndarray}


def own_modules(place):
    """Give an unfitted network with a user's module in one of the places where one can be."""
    linear = torch.nn.Linear(5, 3)
    parts = [("a", "passthrough", slice(0, 5)), ("b", "passthrough", slice(5, 8))]
    if place == "fusion":
        return MultimodalNetClassifier(parts, Product(torch.nn.Bilinear(16, 16, 5)), **QUICK)
    parts[0] = ("a", linear if place == "modality" else ModuleBranch(linear), slice(0, 5))
    return MultimodalNetClassifier(parts, **QUICK)


@pytest.mark.parametrize("place", ["fusion", "modality", "branch"])
def test_skops_names_the_module_that_it_cannot_hold(place, small):
    sio = pytest.importorskip("skops.io")
    net = own_modules(place)
    name = "persistence.Product" if place == "fusion" else "torch.nn.modules.linear.Linear"
    for one in (net, net.fit(*small)):
        with pytest.raises(TypeError, match=f"cannot store a module of the user, got .*{name}; use one of these two"):
            sio.dumps(one)
        for copied in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
            assert repr(copied) == repr(one)
    assert_array_equal(copy.copy(net).predict_proba(small[0]), net.predict_proba(small[0]))


@pytest.mark.parametrize("place", ["fusion", "modality", "branch"])
def test_modules_of_users_go_to_files_on_the_cpu(place, small, monkeypatch):
    def modules(net):
        return [net.fusion, *(getattr(member, "module", member) for _, member, _ in net.modalities)]

    net = own_modules(place)
    # A device without memory stands for a GPU; what is moved from it comes without values.
    [module] = [module for module in modules(net) if isinstance(module, torch.nn.Module)]
    module.to("meta")
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: module.to_empty(device=device))
    loaded = pickle.loads(pickle.dumps(net))
    devices = {w.device.type for m in modules(loaded) if isinstance(m, torch.nn.Module) for w in m.parameters()}
    assert devices == {"cpu"}
    # The module itself stays where it was.
    assert {weights.device.type for weights in module.parameters()} == {"meta"}


def test_skops_holds_students(small, halves):
    sio = pytest.importorskip("skops.io")
    X, y = small
    teacher = MultimodalNetClassifier(halves, **QUICK).fit(X, y)
    for student in (
        distill(teacher, X, modalities=["a"]),
        distill(MultimodalNetRegressor(halves, **QUICK).fit(X, y), X, y, modalities=["a"]),
    ):
        loaded = sio.loads(sio.dumps(student), trusted=get_trusted_types())
        assert_array_equal(loaded.predict(X), student.predict(X))
