"""What every strategy keeps to: missing blocks and cells, odd columns, names, containers, seeds, dtypes."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from skmm import (
    AnchorFusion,
    AverageFusion,
    CCAFusion,
    ConcatFusion,
    ContrastiveFusion,
    KernelCCAFusion,
    KernelFusion,
    LDAFusion,
    ModalityFuser,
    ModalityImputer,
    PCAFusion,
    PLSFusion,
    ProductFusion,
)

BLOCKS = {"a": slice(0, 4), "b": slice(4, 6), "c": slice(6, None)}
Y = np.arange(90) % 3
STRATEGIES = [
    AnchorFusion(10),
    AnchorFusion(5, scaling=None, output="mean"),
    AverageFusion(3),
    AverageFusion(3, weights="cv"),
    AverageFusion(3, reduction="random", random_state=0),
    CCAFusion(2),
    ConcatFusion(),
    ConcatFusion(weights="cv"),
    ConcatFusion(imputer=ModalityImputer("regression", add_indicator=True)),
    ContrastiveFusion(2, hidden_features=8, max_epochs=5, device="cpu", random_state=0),
    KernelCCAFusion(2),
    KernelCCAFusion(2, kernel="poly", n_landmarks=20, random_state=0),
    KernelFusion(4),
    KernelFusion(4, weights="alignment", n_landmarks=20, random_state=0),
    LDAFusion(),
    LDAFusion(level="joint", shrinkage=None),
    ModalityImputer("regression", add_indicator=True),
    ModalityImputer("neighbors"),
    PCAFusion(2),
    PCAFusion(2, level="joint", whiten=True, imputer="neighbors"),
    PLSFusion(2),
    ProductFusion(),
    ProductFusion("hadamard", max_features=30, random_state=0),
    ProductFusion("compact", max_features=30, random_state=0),
]


def data(dtype=np.float64):
    """Linked blocks; some rows lack blocks, one lacks all, some lack a cell; one column is constant."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(90, 2)) + Y[:, None]
    X = np.hstack([latent @ rng.normal(size=(2, p)) + 0.5 * rng.normal(size=(90, p)) for p in (4, 2, 3)])
    X[:, 1] = 0.1
    X[:20, 0:4] = np.nan
    X[10:35, 4:6] = np.nan
    X[40:44, 6:] = np.nan
    X[50] = np.nan
    X[60, 2] = X[61, 7] = np.nan
    return X.astype(dtype)


@pytest.fixture(params=STRATEGIES, ids=str)
def strategy(request):
    return clone(request.param).set_params(blocks=BLOCKS)


@pytest.mark.parametrize("dispatch", [False, True])
def test_arrays_of_other_libraries_become_numpys(strategy, dispatch, monkeypatch):
    torch = pytest.importorskip("torch")
    X = data()
    expected = clone(strategy).fit(X, Y).transform(X)
    # Scikit-learn asks the environment whether SciPy dispatches as well.
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    with sklearn.config_context(array_api_dispatch=dispatch):
        out = strategy.fit(torch.asarray(X), Y).transform(torch.asarray(X))
        assert isinstance(out, np.ndarray)
        assert_array_equal(out, expected)
        if hasattr(strategy, "transform_modality"):
            block = torch.asarray(X[:, BLOCKS["a"]])
            assert_array_equal(strategy.transform_modality(block, "a"), strategy.transform_modality(block.numpy(), "a"))
            assert strategy.score(torch.asarray(X)) == strategy.score(X)


def test_finite_and_independent_of_other_rows(strategy):
    X = data()
    before = X.copy()
    out = strategy.fit_transform(X, Y)
    assert np.isfinite(out).all()
    assert_allclose(strategy.transform(X), out, atol=1e-9)
    rows = [50, 3, 15, 61, 80]
    assert_allclose(strategy.transform(X[rows]), out[rows], atol=1e-9)
    for name, columns in BLOCKS.items():
        only = np.full((2, 9), np.nan)
        only[:, columns] = X[80, columns]
        assert np.isfinite(strategy.transform(only)).all(), name
    assert_array_equal(X, before)


def test_names_and_containers(strategy):
    X = data()
    expected = strategy.fit_transform(X, Y)
    names = list(strategy.get_feature_names_out())
    assert len(names) == len(set(names)) == expected.shape[1]
    for container in ("pandas", "polars"):
        with sklearn.config_context(transform_output=container):
            out = clone(strategy).fit_transform(X, Y)
        assert list(out.columns) == names
        assert_allclose(out.to_numpy(), expected)


def test_numbers_as_target_and_containers(strategy):
    if isinstance(strategy, LDAFusion):
        pytest.skip("needs classes")
    X, y = data(), np.sin(np.arange(90))
    expected = strategy.fit_transform(X, y)
    for container in ("pandas", "polars"):
        with sklearn.config_context(transform_output=container):
            assert_allclose(clone(strategy).fit_transform(X, y).to_numpy(), expected)


def test_float32_stays_and_agrees(strategy):
    double = strategy.fit_transform(data(), Y)
    single = strategy.fit_transform(data(np.float32), Y)
    assert single.dtype == np.float32
    assert strategy.transform(data()).dtype == np.float64
    assert_allclose(single, double, atol=2e-3 * np.abs(double).max())


def test_fits_are_reproducible(strategy):
    X = data()
    assert_array_equal(strategy.fit(X, Y).transform(X), clone(strategy).fit(X, Y).transform(X))


def test_results_depend_on_neither_threads_nor_the_order_of_rows(strategy):
    X = data()
    expected = strategy.fit(X, Y).transform(X)
    tolerance = 1e-6 * np.abs(expected).max()
    with threadpool_limits(2):
        assert_allclose(clone(strategy).fit(X, Y).transform(X), expected, atol=tolerance)
    options = strategy.get_params()
    if options.get("n_landmarks") == 20 or options.get("weights") == "cv" or "batch_size" in options:
        # Landmarks and batches are drawn, and folds dealt, by position.
        return
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(90)
        out = clone(strategy).fit(X[order], Y[order]).transform(X)
        if isinstance(strategy, AnchorFusion):
            # Its columns are the rows of the fit, in their order.
            assert_allclose(out @ out.T, expected @ expected.T, atol=tolerance)
        else:
            assert_allclose(out, expected, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_two_rows(strategy, dtype):
    X = data(dtype)[70:72]
    if isinstance(strategy, LDAFusion):
        with pytest.raises(ValueError, match=r"LDAFusion needs more rows than classes.*, got 2 rows of 2 classes"):
            strategy.fit(X, [0, 1])
        return
    out = strategy.fit_transform(X, [0, 1])
    assert np.isfinite(out).all()
    assert np.isfinite(strategy.transform(data(dtype))).all()
    # What little is learned still tells the two apart.
    assert np.abs(out[0] - out[1]).max() > 1e-3


def test_columns_twice(strategy):
    X = data()
    twice = np.hstack([X[:, :4], X[:, [0, 2]], X[:, 4:6], X[:, [4]], X[:, 6:]])
    blocks = {"a": slice(0, 6), "b": slice(6, 9), "c": slice(9, None)}
    out = strategy.set_params(blocks=blocks).fit_transform(twice, Y)
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1e3


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_without_any_row_at_fit(strategy, name):
    X = data()
    X[:, BLOCKS[name]] = np.nan
    with pytest.raises(
        ValueError, match=f"^{type(strategy).__name__}: block '{name}' is missing in every row of X.*leave out"
    ):
        strategy.fit(X, Y)
    modalities = [(name, "passthrough", columns) for name, columns in BLOCKS.items()]
    with pytest.raises(ValueError, match=f"{name!r}"):
        ModalityFuser(modalities, fusion=strategy.set_params(blocks=None)).fit(X, Y)
    with pytest.raises(ValueError, match="missing in every row of X"):
        clone(strategy).set_params(blocks={"all": slice(0, 9), "none": slice(9, None)}).fit(
            np.hstack([data(), np.full((90, 2), np.nan)]), Y
        )


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_without_any_row_at_transform(strategy, name):
    X = data()
    gone = X.copy()
    gone[:, BLOCKS[name]] = np.nan
    out = strategy.fit(X, Y).transform(gone)
    assert np.isfinite(out).all()
    # As if it were missing in one row among others that have it.
    for i in (3, 15, 50, 61, 80):
        mixed = X.copy()
        mixed[i] = gone[i]
        assert_allclose(strategy.transform(mixed)[i], out[i], atol=1e-9)
