"""Networks as estimators: members, searches, data frames, routing, dtypes, devices, bad parameters."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import ModalityFuser, MultimodalNetClassifier, MultimodalNetRegressor
from skmm.neural_network import GradientModulation, TextBranch

QUICK = {"width": 16, "max_epochs": 20, "random_state": 0}


def test_a_search_over_fusions(xor, halves):
    X, y, X_test, y_test = xor
    net = MultimodalNetClassifier(halves, n_joint_layers=0, learning_rate=0.01, max_epochs=15, random_state=0)
    search = GridSearchCV(net, {"fusion": ["concat", "low_rank"], "width": [16, 32]}, cv=2).fit(X, y)
    assert search.best_params_["fusion"] == "low_rank"
    assert search.score(X_test, y_test) > 0.9


def test_members_are_cloned_nested_and_shown(small):
    X, y = small
    net = MultimodalNetClassifier(
        [("a", StandardScaler(), slice(0, 5)), ("b", torch.nn.Linear(3, 4), slice(5, 8)), ("c", "drop", [0])], **QUICK
    )
    copied = clone(net).set_params(a__with_mean=False)
    assert net.modalities[0][1].with_mean
    copied.fit(X, y)
    assert [name for name, *_ in copied.modalities_] == ["a", "b"]
    assert not copied.named_modalities_.a.with_mean
    assert not hasattr(copied.modalities[0][1], "scale_")
    assert "StandardScaler" in copied._repr_html_()
    # The user's module is not trained; its copy is.
    assert not torch.equal(copied.modalities[1][1].weight, copied.network_.branches[1].module.weight)


def test_it_ends_a_pipeline_of_fused_features(small):
    X, y = small
    fused = ModalityFuser([("a", "passthrough", slice(0, 5)), ("b", "passthrough", slice(5, 8))])
    net = MultimodalNetClassifier([("all", "passthrough", slice(0, 8))], **QUICK)
    assert cross_val_score(make_pipeline(fused, net), X, y, cv=2).shape == (2,)


def test_branches_are_trained(frame):
    X, y = frame
    net = MultimodalNetClassifier(
        [("text", TextBranch(), "text"), ("numbers", StandardScaler(), ["weight"])],
        "gated",
        width=32,
        learning_rate=0.01,
        random_state=0,
    ).fit(X, y)
    assert net.score(X, y) == 1.0
    assert net.network_.head.weight.dtype == torch.float32
    assert (net.explain(X).loc[2] == [0, 1]).all()
    assert (net.explain(X).loc[3] == [1, 0]).all()
    nothing = pd.DataFrame({"text": [None], "weight": [2.5]})
    assert net.predict(nothing).tolist() == ["hen"]


class Half(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X, dtype=np.float32)


def test_one_float32_modality_makes_the_network_float32(small):
    net = MultimodalNetRegressor([("a", Half(), slice(0, 5)), ("b", "passthrough", slice(5, 8))], **QUICK)
    assert net.fit(*small).predict(small[0]).dtype == np.float32


def test_polars_is_pandas(frame):
    pl = pytest.importorskip("polars")
    X, y = frame
    modalities = [("text", TextBranch(), "text"), ("numbers", StandardScaler(), ["weight", "height"])]
    weights = np.r_[0, np.ones(31)]
    nets = [
        MultimodalNetClassifier(modalities, **QUICK).fit(data, y, sample_weight=weights)
        for data in (X, pl.from_pandas(X))
    ]
    assert_array_equal(nets[0].predict_proba(X), nets[1].predict_proba(pl.from_pandas(X)))
    assert_array_equal(nets[0].predict_proba(X), nets[0].predict_proba(X[["height", "text", "weight"]]))


def test_weights_are_routed(small, halves):
    X, y = small
    weights = np.arange(32) % 4
    with config_context(enable_metadata_routing=True):
        net = MultimodalNetClassifier(halves, **QUICK).set_fit_request(sample_weight=True)
        net = net.set_score_request(sample_weight=True)
        routed = cross_validate(net, X, y, cv=2, params={"sample_weight": weights}, return_estimator=True)
    half = next(iter(StratifiedKFold(2).split(X, y)))[0]
    direct = MultimodalNetClassifier(halves, **QUICK).fit(X[half], y[half], sample_weight=weights[half])
    assert_array_equal(routed["estimator"][0].predict_proba(X), direct.predict_proba(X))


def test_a_bar_on_request(small, halves, capsys):
    MultimodalNetClassifier(halves, verbose=True, **QUICK).fit(*small)
    shown = capsys.readouterr()
    assert "MultimodalNetClassifier" in shown.err
    assert "20/20" in shown.err
    assert "modality a" in shown.out
    MultimodalNetClassifier(halves, **QUICK).fit(*small)
    assert capsys.readouterr() == ("", "")


def test_a_device_that_is_not_there(small, halves):
    with pytest.raises(ValueError, match="device='cuda:98' cannot be used here"):
        MultimodalNetClassifier(halves, device="cuda:98").fit(*small)


def test_bad_parameters(small, halves):
    X, y = small
    with pytest.raises(ValueError, match="needs a width that n_heads divides, got width=10 and n_heads=4"):
        MultimodalNetClassifier(halves, "attention", width=10).fit(X, y)
    choices = "'attention', 'concat', 'film', 'gated', 'low_rank', 'mixture', 'sum', 'tensor', 'weighted'"
    with pytest.raises(ValueError, match=f"The 'fusion' parameter of MultimodalNetClassifier .* among {{{choices}}}"):
        MultimodalNetClassifier(halves, "gate").fit(X, y)
    with pytest.raises(ValueError, match="modulation needs one of the named losses"):
        MultimodalNetClassifier(halves, loss=lambda o, t, w: o.mean(), modulation=GradientModulation()).fit(X, y)
    with pytest.raises(ValueError, match=r"takes at most 10 modalities, .* got 11; use 'low_rank'"):
        MultimodalNetClassifier([(f"m{i}", "passthrough", [i % 8]) for i in range(11)], "tensor").fit(X, y)
    for loss in ("focal", lambda o, t, w: o.mean()):
        with pytest.raises(ValueError, match=r"needs loss='cross_entropy', got label_smoothing=0\.1 and"):
            MultimodalNetClassifier(halves, loss=loss, label_smoothing=0.1).fit(X, y)
    going_on = MultimodalNetClassifier(halves, warm_start=True, **QUICK).fit(X, y)
    with pytest.raises(ValueError, match="label_smoothing needs loss='cross_entropy'"):
        going_on.set_params(loss="focal", label_smoothing=0.1).fit(X, y)
    assert going_on.predict(X).shape == (32,)
    with pytest.raises(ValueError, match="The 'alpha' parameter of GradientModulation must be"):
        MultimodalNetClassifier(halves, modulation=GradientModulation(-1)).fit(X, y)
    with pytest.raises(ValueError, match=r"The training loss became (nan|inf): lower learning_rate=1e\+30"):
        MultimodalNetRegressor(halves, learning_rate=1e30, schedule="constant", max_epochs=20).fit(X, y)
    with pytest.raises(ValueError, match="Input modality 'b' contains infinity"):
        MultimodalNetClassifier(halves).fit(np.where(np.arange(8) == 7, np.inf, X), y)
    with pytest.raises(ValueError, match="takes one class per row, or a matrix of 0 and 1"):
        MultimodalNetClassifier(halves).fit(X, np.column_stack([y, y]))
    with pytest.raises(TypeError, match="modality 'a' needs an estimator with the methods"):
        MultimodalNetClassifier([("a", object(), [0])]).fit(X, y)
