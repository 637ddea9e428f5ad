"""Fusion of arrays of other libraries, through scikit-learn's array API dispatch.

SciPy reads ``SCIPY_ARRAY_API`` when it is imported, and dispatch needs it, so these tests run in a process of their
own, which the last of them starts; in other processes they are left out.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import (
    AverageFusion,
    CCAFusion,
    ConcatFusion,
    KernelCCAFusion,
    KernelFusion,
    LDAFusion,
    ModalityFuser,
    ModalityImputer,
    ModalityVotingClassifier,
    PCAFusion,
    PLSFusion,
    ProductFusion,
)
from skmm._array_api import to_numpy
from skmm._sklearn import convert_to_numpy

DISPATCH = os.environ.get("SCIPY_ARRAY_API") == "1"
elsewhere = pytest.mark.skipif(not DISPATCH, reason="run by test_all_of_this_with_dispatch in a process of its own")

TWO = {"a": slice(0, 6), "b": slice(6, None)}
THREE = {"a": slice(0, 6), "b": slice(6, 9), "c": slice(9, None)}
STRATEGIES = [
    AverageFusion(3, blocks=TWO),
    AverageFusion(3, reduction="random", scaling=None, random_state=0, blocks=THREE),
    AverageFusion(3, weights="cv", imputer="regression", blocks=THREE),
    ConcatFusion(blocks=TWO),
    ConcatFusion(weights={"a": 1, "b": 2}, blocks=TWO),
    ConcatFusion(weights="cv", scaling="std", blocks=TWO),
    ConcatFusion(imputer="mean", blocks=TWO),
    ConcatFusion(imputer=ModalityImputer("zero", add_indicator=True), blocks=TWO),
    ModalityImputer("zero", blocks=TWO),
    ModalityImputer("regression", blocks=THREE),
    ModalityImputer("regression", regularization=0, add_indicator=True, blocks=THREE),
    PCAFusion(3, blocks=TWO),
    PCAFusion(3, level="joint", scaling="std", whiten=True, blocks=TWO),
    PCAFusion(0.9, scaling=None, blocks=TWO),
    LDAFusion(shrinkage=None, blocks=TWO),
    LDAFusion(1, level="joint", shrinkage=None, scaling=None, blocks=TWO),
    CCAFusion(3, blocks=TWO),
    CCAFusion(3, regularization=0, scaling=None, output="sum", blocks=TWO),
    CCAFusion(3, regularization="auto", output="mean", blocks=THREE),
    CCAFusion(3, regularization="cv", blocks=TWO),
    PLSFusion(3, blocks=THREE),
    ProductFusion(blocks=TWO),
    ProductFusion(n_components=2, scaling="std", blocks=THREE),
    ProductFusion("hadamard", max_features=20, random_state=0, blocks=THREE),
    ProductFusion("compact", n_components=3, max_features=20, random_state=0, blocks=THREE),
]
# The second device of array_api_strict is the CPU, too, but refuses to be mixed with the first, as a GPU does.
LIBRARIES = ["array_api_strict", "array_api_strict device1", "torch"]


def data(dtype="float64", missing=False):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3)) @ rng.normal(size=(3, 13)) + 0.5 * rng.normal(size=(80, 13)) + 3
    if missing:
        X[::5, :6] = np.nan
        X[1::7, 9:] = np.nan
        X[2, 0] = np.nan
    return X.astype(dtype), np.arange(80) % 3


def array(library, X):
    library, _, device = library.partition(" ")
    xp = pytest.importorskip(library)
    return xp.asarray(X, device=xp.Device(device)) if device else xp.asarray(X)


@pytest.fixture
def dispatch():
    with sklearn.config_context(array_api_dispatch=True):
        yield


def same(ours, expected, like, tolerance):
    assert type(ours) is type(like)
    assert str(ours.dtype) == str(like.dtype)
    assert ours.device == like.device
    assert_allclose(to_numpy(ours), expected, atol=tolerance * np.abs(expected).max())


@elsewhere
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("fusion", STRATEGIES, ids=lambda fusion: type(fusion).__name__)
@pytest.mark.parametrize("library", LIBRARIES)
def test_same_as_numpy(library, fusion, dtype, missing, dispatch):
    X, y = data(dtype, missing)
    tolerance = 1e-9 if dtype == "float64" else 2e-4
    expected = clone(fusion).fit(X, y)
    A, b = array(library, X), array(library, y)
    ours = clone(fusion)
    same(ours.fit_transform(A, b), expected.transform(X), A, tolerance)
    same(ours.transform(A[:7, :]), expected.transform(X[:7]), A, tolerance)
    # Labels are often NumPy's still.
    same(ours.fit(A, y).transform(A), expected.transform(X), A, tolerance)


@elsewhere
@pytest.mark.parametrize("cls", [CCAFusion, PLSFusion])
@pytest.mark.parametrize("library", LIBRARIES)
def test_joint_embeddings(library, cls, dispatch):
    X, _ = data(missing=True)
    expected, A = cls(3, blocks=THREE).fit(X), array(library, X)
    ours = cls(3, blocks=THREE).fit(A)
    # What was learned is NumPy's, so it goes with arrays of any library.
    assert_allclose(ours.correlations_, expected.correlations_)
    assert_allclose(ours.transform(X), expected.transform(X), atol=1e-10)
    same(ours.transform_modality(A[:, :6], "a"), expected.transform_modality(X[:, :6], "a"), A, 1e-9)
    same(ours.predict_modality(A[:, :6], "a", "c"), expected.predict_modality(X[:, :6], "a", "c"), A, 1e-9)
    assert_allclose(ours.score(A), expected.score(X))
    streamed = cls(3, blocks=THREE).partial_fit(A[:50, :]).partial_fit(A[50:, :])
    again = cls(3, blocks=THREE).partial_fit(X[:50]).partial_fit(X[50:])
    assert_allclose(streamed.correlations_, again.correlations_)


@elsewhere
@pytest.mark.parametrize("fusion", STRATEGIES, ids=lambda fusion: type(fusion).__name__)
def test_fitted_with_one_library_and_used_with_another(fusion, dispatch):
    X, y = data(missing=True)
    expected = clone(fusion).fit(X, y).transform(X)
    ours = clone(fusion).fit(array("torch", X), array("torch", y))
    if isinstance(fusion, (PCAFusion, LDAFusion)):
        with pytest.raises(ValueError, match="must use the same namespace"):
            ours.transform(X)
        return
    assert_allclose(ours.transform(X), expected, atol=1e-9 * np.abs(expected).max())
    same(ours.transform(array("array_api_strict", X)), expected, array("array_api_strict", X), 1e-9)


@elsewhere
@pytest.mark.parametrize("library", LIBRARIES)
def test_more_columns_than_rows(library, dispatch):
    X = data()[0][:5]
    assert_allclose(
        CCAFusion(blocks=TWO).fit(array(library, X)).correlations_, CCAFusion(blocks=TWO).fit(X).correlations_
    )


@elsewhere
def test_what_scikit_learns_lda_cannot_do(dispatch):
    X, y = data()
    A, b = array("torch", X), array("torch", y)
    with pytest.raises(
        ValueError, match="arrays only without shrinkage, as scikit-learn's LDA does, got shrinkage='auto'"
    ):
        LDAFusion(blocks=TWO).fit(A, b)
    constant = array("torch", X[y])
    with pytest.raises(ValueError, match="no class varies in the rows that have block 'a'"):
        LDAFusion(shrinkage=None, blocks=TWO).fit(constant, b)


@elsewhere
@pytest.mark.parametrize("library", LIBRARIES)
def test_before_a_ridge(library, dispatch):
    X, y = data(missing=True)
    for fusion in (ConcatFusion(blocks=TWO), PCAFusion(3, blocks=TWO), CCAFusion(3, blocks=TWO)):
        A, b = array(library, X), array(library, y.astype(float))
        ours = make_pipeline(clone(fusion), Ridge(solver="svd")).fit(A, b)
        same(ours.predict(A), make_pipeline(fusion, Ridge(solver="svd")).fit(X, y).predict(X), A, 1e-9)


@elsewhere
@pytest.mark.parametrize("fusion", STRATEGIES, ids=lambda fusion: type(fusion).__name__)
def test_no_data_leave_their_device(fusion, dispatch, monkeypatch):
    X, y = data(missing=True)
    X, y = np.tile(X, (10, 1)), np.tile(y, 10)
    monkeypatch.setattr("skmm.fusion._weights.PROBE_ROWS", 50)
    A, b = array("array_api_strict device1", X), array("array_api_strict device1", y)
    moved = []

    def convert(array, xp):
        moved.append(array.shape)
        return convert_to_numpy(array, xp)

    monkeypatch.setattr("skmm._array_api.convert_to_numpy", convert)
    clone(fusion).fit(A, b).transform(A)
    # Moments, masks and labels are; features of the rows are not, but of the few that weights are learned from.
    assert moved
    assert all(len(shape) < 2 or shape[0] <= 50 or shape[1] <= 2 for shape in moved), moved


@elsewhere
def test_what_imputers_cannot_do(dispatch):
    A = array("torch", data()[0])
    for fusion in (ModalityImputer("neighbors", blocks=TWO), ConcatFusion(imputer="neighbors", blocks=TWO)):
        with pytest.raises(TypeError, match=r"ModalityImputer\(strategy='neighbors'\) takes NumPy arrays only"):
            fusion.fit(A)


@elsewhere
@pytest.mark.parametrize("library", LIBRARIES)
def test_composites_of_columns_take_numpy_arrays_only(library, dispatch):
    X, y = data()
    modalities = [(name, "passthrough", columns) for name, columns in TWO.items()]
    fuser = ModalityFuser(modalities).fit(X)
    voter = ModalityVotingClassifier([(name, GaussianNB(), columns) for name, columns in TWO.items()])
    for use in (clone(fuser).fit, fuser.transform, lambda A: voter.fit(A, y)):
        with pytest.raises(TypeError, match=f"takes data frames and NumPy arrays, got {library.split()[0]}"):
            use(array(library, X))


@elsewhere
@pytest.mark.parametrize("cls", [KernelCCAFusion, KernelFusion])
def test_strategies_of_numpy_arrays_only(cls, dispatch):
    X, _ = data()
    A = array("torch", X)
    with pytest.raises(TypeError, match=f"{cls.__name__} takes NumPy arrays only, got torch; convert X first"):
        cls(blocks=TWO).fit(A)
    fitted = cls(blocks=TWO).fit(X)
    with pytest.raises(TypeError, match="NumPy arrays only"):
        fitted.transform(A)


@elsewhere
def test_a_joint_embedding_of_numpy_arrays_only(dispatch):
    X, _ = data()
    A = array("torch", X)
    fitted = KernelCCAFusion(blocks=TWO).fit(X)
    for use in (
        lambda: fitted.score(A),
        lambda: fitted.transform_modality(A[:, TWO["a"]], "a"),
        lambda: fitted.predict_modality(A[:, TWO["a"]], source="a", target="b"),
    ):
        with pytest.raises(TypeError, match="KernelCCAFusion takes NumPy arrays only, got torch; convert X first"):
            use()


@elsewhere
@pytest.mark.parametrize("library", LIBRARIES)
def test_after_a_scaler(library, dispatch):
    X, _ = data()
    A = array(library, X)
    expected = CCAFusion(2, blocks=TWO).fit_transform(StandardScaler().fit_transform(X))
    same(CCAFusion(2, blocks=TWO).fit_transform(StandardScaler().fit_transform(A)), expected, A, 1e-9)


@pytest.mark.skipif(DISPATCH, reason="this is the process of its own")
def test_all_of_this_with_dispatch():
    pytest.importorskip("array_api_strict")
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", __file__]
    ran = subprocess.run(
        command, env={**os.environ, "SCIPY_ARRAY_API": "1"}, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    # All but this one ran.
    assert "passed, 1 skipped" in ran.stdout, ran.stdout[-500:]
