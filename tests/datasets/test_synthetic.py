"""Synthetic modalities hold the signals they are said to hold, and no others."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from skmm import ModalityFuser
from skmm.datasets import make_multimodal_classification, make_multimodal_xor

MAKERS = [make_multimodal_classification, make_multimodal_xor]
N = 20_000
# Five standard errors of a share of N rows at most.
TOLERANCE = 5 * 0.5 / np.sqrt(N)


def projections(data, signal):
    return {
        name: data.X[data.modalities[name]].to_numpy() @ direction
        for name, direction in data.directions[signal].items()
    }


@pytest.mark.parametrize(("n_modalities", "signal"), [(2, 3.0), (2, 0.7), (3, 1.5), (4, 2.0)])
def test_xor_is_as_predictable_as_its_formula_says(n_modalities, signal):
    data = make_multimodal_xor(N, n_modalities=n_modalities, signal=signal, return_X_y=False, random_state=0)
    positive = sum((values > 0).ravel().astype(int) for values in projections(data, "interaction").values())
    expected = (1 + (2 * norm.cdf(signal) - 1) ** n_modalities) / 2
    assert np.mean(positive % 2 == data.y) == pytest.approx(expected, abs=TOLERANCE)


def test_xor_hides_from_single_modalities_and_from_linear_models():
    data = make_multimodal_xor(4000, n_modalities=3, return_X_y=False, random_state=0)
    columns = list(data.modalities.values())
    for chosen in [*columns, columns[0] + columns[1], data.X.columns]:
        scores = cross_val_score(LogisticRegression(), data.X[chosen], data.y)
        assert np.mean(scores) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(4000))
    # Nor do two of three modalities tell by their product.
    hidden = [values.ravel() for values in projections(data, "interaction").values()]
    two = (hidden[0] * hidden[1]).reshape(-1, 1)
    assert np.mean(cross_val_score(LogisticRegression(), two, data.y)) == pytest.approx(0.5, abs=0.04)
    three = np.prod(hidden, axis=0).reshape(-1, 1)
    assert np.mean(cross_val_score(LogisticRegression(), three, data.y)) > 0.95


def test_private_signal_is_as_strong_as_built_and_independent():
    data = make_multimodal_classification(
        N, n_modalities=3, shared=0, private=[2, 1, 0], return_X_y=False, random_state=0
    )
    assert list(data.directions) == ["private"]
    values = {name: value.ravel() for name, value in projections(data, "private").items()}
    assert list(values) == ["a", "b"]
    for name, strength in {"a": 2, "b": 1}.items():
        assert np.mean((values[name] > 0) == data.y) == pytest.approx(norm.cdf(strength), abs=TOLERANCE)
        # Linear discriminant analysis is the best rule here, and finds nothing beyond that direction.
        X = data.X[data.modalities[name]]
        assert LinearDiscriminantAnalysis().fit(X, data.y).score(X, data.y) == pytest.approx(
            norm.cdf(strength), abs=0.02
        )
    within = [np.corrcoef(values["a"][data.y == label], values["b"][data.y == label])[0, 1] for label in (0, 1)]
    assert np.abs(within).max() < 0.05
    # Two independent signals add up as the sides of a right triangle.
    X = data.X[data.modalities["a"] + data.modalities["b"]]
    assert LinearDiscriminantAnalysis().fit(X, data.y).score(X, data.y) == pytest.approx(norm.cdf(np.sqrt(5)), abs=0.02)


def test_shared_signal_is_the_same_in_all_modalities():
    data = make_multimodal_classification(
        N, n_modalities=3, n_features=[4, 7, 2], shared=1.0, private=0, return_X_y=False, random_state=0
    )
    values = projections(data, "shared")
    np.testing.assert_allclose(values["b"], values["a"])
    np.testing.assert_allclose(values["c"], values["a"])
    assert np.mean((values["a"].ravel() > 0) == data.y) == pytest.approx(norm.cdf(1), abs=TOLERANCE)


def test_interaction_is_visible_in_two_modalities_together():
    data = make_multimodal_classification(
        N, n_modalities=3, shared=0, private=0, interaction=2, return_X_y=False, random_state=0
    )
    values = {name: value.ravel() for name, value in projections(data, "interaction").items()}
    assert list(values) == ["a", "b"]
    accuracy = norm.cdf(2) ** 2 + norm.cdf(-2) ** 2
    assert np.mean((values["a"] * values["b"] < 0) == data.y) == pytest.approx(accuracy, abs=TOLERANCE)
    assert LinearDiscriminantAnalysis().fit(data.X, data.y).score(data.X, data.y) < 0.53


def test_several_classes():
    data = make_multimodal_classification(
        N, n_classes=4, shared=1, private=[2, 0.5], interaction=6, n_features=9, return_X_y=False, random_state=0
    )
    assert np.bincount(data.y).tolist() == [N // 4] * 4
    centers = {
        signal: np.array([projections(data, signal)["a"][data.y == label].mean(axis=0) for label in range(4)])
        for signal in data.directions
    }
    for signal, strength in {"shared": 1, "private": 2}.items():
        np.testing.assert_allclose(np.linalg.norm(centers[signal], axis=1), strength, atol=0.1)
        distances = np.linalg.norm(centers[signal][:, None] - centers[signal][None], axis=-1)
        np.testing.assert_allclose(distances[np.triu_indices(4, 1)], strength * np.sqrt(8 / 3), atol=0.1)
    np.testing.assert_allclose(centers["interaction"], 0, atol=0.3)
    # The corners that a row is near to in two modalities sum to its class.
    corners = centers["private"] / 2
    near = [np.argmax(values @ corners.T, axis=1) for values in projections(data, "interaction").values()]
    assert np.mean(sum(near) % 4 == data.y) > 0.99


def test_directions_are_orthonormal():
    data = make_multimodal_classification(50, n_classes=3, interaction=1, return_X_y=False, random_state=0)
    for name in "ab":
        basis = np.hstack([data.directions[signal][name] for signal in ("shared", "private", "interaction")])
        np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-12)


@pytest.mark.parametrize("make", MAKERS)
def test_noise_and_copies(make):
    data = make(N, n_noise=2, n_redundant=1, return_X_y=False, random_state=0)
    assert list(data.modalities) == ["a", "b", "copy0", "noise0", "noise1"]
    np.testing.assert_array_equal(data.X[data.modalities["copy0"]], data.X[data.modalities["a"]])
    noise = data.X[data.modalities["noise0"] + data.modalities["noise1"]]
    np.testing.assert_allclose(noise.cov(), np.eye(noise.shape[1]), atol=0.06)
    assert LinearDiscriminantAnalysis().fit(noise, data.y).score(noise, data.y) < 0.53


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_added_leaves_the_rest_as_it_was(make):
    X, y = make(random_state=0)
    X_more, y_more = make(n_noise=1, n_redundant=1, missing_share=0.3, random_state=0)
    np.testing.assert_array_equal(y_more, y)
    present = X_more[X.columns].notna().to_numpy()
    np.testing.assert_array_equal(X_more[X.columns].to_numpy()[present], X.to_numpy()[present])


@pytest.mark.parametrize("make", MAKERS)
def test_missing_modalities(make):
    data = make(N, n_noise=1, missing_share=0.4, return_X_y=False, random_state=0)
    gaps = np.array([data.X[columns].isna().all(axis=1) for columns in data.modalities.values()])
    cells = np.array([data.X[columns].isna().any(axis=1) for columns in data.modalities.values()])
    np.testing.assert_array_equal(gaps, cells)
    assert not gaps.all(axis=0).any()
    # A third of the rows that would lose everything keeps any one modality.
    np.testing.assert_allclose(gaps.mean(axis=1), 0.4 - 0.4**3 / 3, atol=TOLERANCE)


@pytest.mark.parametrize("make", MAKERS)
def test_shape_names_and_seeds(make):
    X, y = make(101, n_features=[6, 3], random_state=3)
    assert isinstance(X, pd.DataFrame)
    assert X.columns.tolist() == [f"a__{i}" for i in range(6)] + [f"b__{i}" for i in range(3)]
    assert np.bincount(y).tolist() == [51, 50]
    same, y_again = make(101, n_features=[6, 3], random_state=np.random.RandomState(3))
    pd.testing.assert_frame_equal(same, X)
    np.testing.assert_array_equal(y_again, y)
    assert not make(101, n_features=[6, 3], random_state=4)[0].equals(X)


def test_modalities_fit_into_triples():
    data = make_multimodal_classification(30, return_X_y=False, random_state=0)
    fuser = ModalityFuser([(name, "passthrough", columns) for name, columns in data.modalities.items()]).fit(data.X)
    assert fuser.blocks_ == {"a": slice(0, 10), "b": slice(10, 20)}


@pytest.mark.parametrize("make", MAKERS)
def test_bad_arguments(make):
    with pytest.raises(ValueError, match=r"n_features has 3 entries for n_modalities=2: \[1, 2, 3\]"):
        make(n_features=[1, 2, 3])
    with pytest.raises(ValueError, match=r"n_features must be an int in the range .* in every modality"):
        make(n_features=[0, 2])
    with pytest.raises(ValueError, match=r"n_features must be an int in the range .* in every modality"):
        make(n_features=[2.5, 3])
    with pytest.raises(ValueError, match=r"'missing_share' parameter .* in the range"):
        make(missing_share=1.0)
    with pytest.raises(ValueError, match="'n_modalities' parameter"):
        make(n_modalities=27)


def test_bad_arguments_of_classification():
    with pytest.raises(ValueError, match="private has 1 entries for n_modalities=2"):
        make_multimodal_classification(private=[1])
    with pytest.raises(ValueError, match=r"private must be a float in the range .* in every modality"):
        make_multimodal_classification(private=[1, -1])
    with pytest.raises(ValueError, match=r"private must be a float in the range .* in every modality"):
        make_multimodal_classification(private=[1, np.nan])
    with pytest.raises(ValueError, match="interaction=1 needs two modalities, got n_modalities=1"):
        make_multimodal_classification(n_modalities=1, interaction=1)
    with pytest.raises(ValueError, match=r"'a' needs n_features of at least 4 .*\['shared', 'private'\], got 3"):
        make_multimodal_classification(n_classes=3, n_features=3)
