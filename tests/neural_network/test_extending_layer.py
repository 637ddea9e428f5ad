"""A fusion layer from public names alone: a new layer needs no more than this file shows."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skmm import MultimodalNetClassifier
from skmm.neural_network import FusionLayer

QUICK = {"width": 8, "max_epochs": 3, "random_state": 0}


class MaxLayer(FusionLayer):
    """For each unit the maximum over the present modalities, after a linear map for each modality."""

    weighs = True

    def __init__(self, temperature=1.0):
        super().__init__()
        self.temperature = temperature

    def build(self, widths):
        self.maps = torch.nn.ModuleList(torch.nn.Linear(width, widths[0]) for width in widths)
        self.out_features = widths[0]

    def forward(self, hiddens, mask):
        mapped = torch.stack([layer(h) for layer, h in zip(self.maps, hiddens, strict=True)], dim=1) / self.temperature
        if mask is not None:
            mapped = mapped.masked_fill(~mask[:, :, None], -1e9)
        joint, winners = mapped.max(dim=1)
        return joint, torch.nn.functional.one_hot(winners, len(hiddens)).to(joint.dtype).mean(dim=1)


@pytest.mark.parametrize("fusion", [MaxLayer(), MaxLayer])
def test_a_layer_is_taken_as_an_object_or_a_class(fusion, small, halves):
    X, y = small
    X = X.copy()
    X[:4, :5] = np.nan
    net = MultimodalNetClassifier(halves, fusion, **QUICK).fit(X, y)
    weights = net.explain(X)
    assert (weights.loc[:3, "a"] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert net.transform(X).shape == (32, 8)
    # Weights come from random_state, and the object of the user stays unbuilt.
    assert_array_equal(clone(net).fit(X, y).predict_proba(X), net.predict_proba(X))
    assert fusion is MaxLayer or not hasattr(fusion, "maps")
    assert_array_equal(pickle.loads(pickle.dumps(net)).predict_proba(X), net.predict_proba(X))


def test_a_layer_is_trained(small, halves):
    X, y = small
    layers = [MultimodalNetClassifier(halves, MaxLayer(), **{**QUICK, "max_epochs": n}).fit(X, y) for n in (1, 2)]
    first, second = (net.network_.fusion.maps[0].weight for net in layers)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("n_layers", [0, 1])
def test_layers_join_vectors_of_one_width_unless_they_say_otherwise(n_layers, small, halves):
    class Side(FusionLayer):
        same_width = False

        def build(self, widths):
            self.widths = widths
            self.out_features = sum(widths)

        def forward(self, hiddens, mask):
            return torch.cat(hiddens, dim=1), None

    X, y = small
    net = MultimodalNetClassifier(halves, Side(), n_layers=n_layers, **QUICK).fit(X, y)
    assert net.network_.fusion.widths == ([8, 8] if n_layers else [5, 3])
    concat = MultimodalNetClassifier(halves, "concat", n_layers=n_layers, **QUICK).fit(X, y)
    assert net.network_.joint_features == concat.network_.joint_features
    assert not hasattr(net, "explain")
    maximum = MultimodalNetClassifier(halves, MaxLayer(), n_layers=n_layers, **QUICK).fit(X, y)
    assert {layer.in_features for layer in maximum.network_.fusion.maps} == {8}


def test_layers_can_be_searched(small, halves):
    net = MultimodalNetClassifier(halves, **{**QUICK, "max_epochs": 1})
    search = GridSearchCV(net, {"fusion": ["sum", MaxLayer(), MaxLayer(0.1)]}, cv=2, error_score="raise")
    assert search.fit(*small).cv_results_["mean_test_score"].shape == (3,)


class Unready(MaxLayer):
    def build(self, widths):
        super().build(widths)
        del self.out_features


class Bare(MaxLayer):
    def forward(self, hiddens, mask):
        return super().forward(hiddens, mask)[0]


class Narrow(MaxLayer):
    def forward(self, hiddens, mask):
        joint, weights = super().forward(hiddens, mask)
        return joint[:, 1:], weights


class Unweighed(MaxLayer):
    weighs = False


@pytest.mark.parametrize(
    ("fusion", "error", "message"),
    [
        (
            Unready(),
            ValueError,
            "fusion=Unready: build must set out_features to the width of the joint vectors, got None",
        ),
        (Bare(), TypeError, r"fusion=Bare: forward must return a tuple \(joint, weights\).* got shape \(2, 8\)"),
        (Narrow(), ValueError, r"fusion=Narrow: forward must return joint of shape \(2, 8\).* got shape \(2, 7\)"),
        (Unweighed(), ValueError, "fusion=Unweighed: forward must return weights as None where weighs is False"),
        (FusionLayer(), NotImplementedError, None),
        (7, ValueError, "The 'fusion' parameter of MultimodalNetClassifier must be"),
    ],
)
def test_layers_that_are_not_as_they_should_be(fusion, error, message, small, halves):
    with pytest.raises(error, match=message):
        MultimodalNetClassifier(halves, fusion, **QUICK).fit(*small)
