"""PCAFusion and LDAFusion against scikit-learn's PCA and LDA on the same blocks."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from skmm import ConcatFusion, LDAFusion, PCAFusion

X, Y = load_wine(return_X_y=True)
BLOCKS = {"a": slice(0, 8), "b": slice(8, None)}


def test_pca_of_each_block_is_scikit_learns():
    out = PCAFusion(3, scaling=None, blocks=BLOCKS).fit_transform(X)
    assert_allclose(out[:, :3], PCA(3).fit_transform(X[:, :8]), atol=1e-9)
    assert_allclose(out[:, 3:], PCA(3).fit_transform(X[:, 8:]), atol=1e-9)


def test_joint_pca_is_scikit_learns():
    joined = ConcatFusion(blocks=BLOCKS).fit_transform(X)
    fusion = PCAFusion(4, level="joint", blocks=BLOCKS)
    assert_allclose(fusion.fit_transform(X), PCA(4).fit_transform(joined), atol=1e-9)
    assert_array_equal(fusion.get_feature_names_out(), [f"pcafusion{i}" for i in range(4)])
    assert fusion.n_components_ == {"": 4}


def test_pca_share_of_variance_and_whitening():
    fusion = PCAFusion(0.8, scaling="std", whiten=True, blocks=BLOCKS)
    out = fusion.fit_transform(X)
    for name, columns in BLOCKS.items():
        stock = PCA(0.8).fit(StandardScaler().fit_transform(X[:, columns]))
        assert fusion.n_components_[name] == stock.n_components_
    assert_allclose(out.var(axis=0, ddof=1), 1)


def test_number_of_components_is_an_upper_bound():
    fusion = PCAFusion(6, blocks=BLOCKS).fit(X)
    assert fusion.n_components_ == {"a": 6, "b": 5}
    assert PCAFusion(64, blocks=BLOCKS).fit(X[:4]).n_components_ == {"a": 4, "b": 4}
    assert PCAFusion(None, blocks=BLOCKS).fit(X).n_components_ == {"a": 8, "b": 5}


@pytest.mark.parametrize(("shrinkage", "solver"), [(None, "svd"), ("auto", "eigen"), (0.3, "eigen")])
def test_lda_of_each_block_is_scikit_learns(shrinkage, solver):
    out = LDAFusion(shrinkage=shrinkage, blocks=BLOCKS).fit_transform(X, Y)
    stock = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage)
    assert_allclose(out[:, :2], stock.fit(X[:, :8], Y).transform(X[:, :8]), atol=1e-9)
    assert_allclose(out[:, 2:], stock.fit(X[:, 8:], Y).transform(X[:, 8:]), atol=1e-9)


def test_joint_lda_is_scikit_learns():
    fusion = LDAFusion(1, level="joint", blocks=BLOCKS)
    stock = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=1)
    assert_allclose(fusion.fit_transform(X, Y), stock.fit(X, Y).transform(X), atol=1e-9)
    assert_array_equal(fusion.get_feature_names_out(), ["ldafusion0"])


@pytest.mark.parametrize("labels", [np.array(["x", "y", "z"])[Y], Y == 0, Y + 10.0])
def test_lda_takes_any_labels(labels):
    n_classes = len(np.unique(labels))
    assert LDAFusion(blocks=BLOCKS).fit_transform(X, labels).shape == (len(X), 2 * (n_classes - 1))


@pytest.mark.parametrize("fusion", [PCAFusion(2, blocks=BLOCKS), LDAFusion(blocks=BLOCKS)])
def test_a_block_is_learned_from_the_rows_that_have_it(fusion):
    data = X.copy()
    data[::4, :8] = np.nan
    out = fusion.fit_transform(data, Y)
    has = np.arange(len(X)) % 4 > 0
    alone = type(fusion)(fusion.n_components, blocks={"a": slice(0, 8)}).fit_transform(X[has][:, :8], Y[has])
    # PCA components of a scaled block differ by the factor of the block; directions do not.
    assert_allclose(abs(np.corrcoef(out[has, 0], alone[:, 0])[0, 1]), 1)
    assert_allclose(out[~has, :2], np.broadcast_to(out[has, :2].mean(axis=0), (np.sum(~has), 2)), atol=1e-9)
    everything = type(fusion)(fusion.n_components, blocks=BLOCKS).fit_transform(X, Y)
    assert_allclose(abs(np.corrcoef(out[:, 2], everything[:, 2])[0, 1]), 1)


@pytest.mark.parametrize("level", ["modality", "joint"])
@pytest.mark.parametrize("cls", [PCAFusion, LDAFusion])
def test_rows_without_any_block(cls, level):
    data = X.copy()
    data[5] = np.nan
    out = cls(level=level, blocks=BLOCKS).fit_transform(data, Y)
    assert np.isfinite(out).all()
    # The mean row has the mean scores.
    assert_allclose(out[5], np.delete(out, 5, axis=0).mean(axis=0), atol=1e-9)


def test_a_block_that_is_never_there():
    data = X.copy()
    data[:, :8] = np.nan
    with pytest.raises(ValueError, match="block 'a' is missing in every row"):
        PCAFusion(blocks=BLOCKS).fit(data)
    data = X.copy()
    data[Y != 1, :8] = np.nan
    with pytest.raises(ValueError, match="at least 2 classes in the rows that have block 'a', got 1 class: 1"):
        LDAFusion(blocks=BLOCKS).fit(data, Y)


@pytest.mark.filterwarnings("error")
def test_lda_of_a_class_with_one_row():
    rows = np.flatnonzero((Y != 2) | (np.arange(len(Y)) == len(Y) - 1))
    assert LDAFusion(blocks=BLOCKS).fit_transform(X[rows], Y[rows]).shape == (len(rows), 4)


def test_lda_says_what_is_wrong_with_y():
    with pytest.raises(ValueError, match="Unknown label type"):
        LDAFusion().fit(X, X[:, 0])
    with pytest.raises(ValueError, match="more rows than classes"):
        LDAFusion().fit(X[:5], np.arange(5))
    with pytest.raises(ValueError, match="use shrinkage=None"):
        LDAFusion(shrinkage=0.0).fit(np.column_stack([X, np.ones(len(X))]), Y)
    assert LDAFusion(shrinkage=None).fit_transform(np.column_stack([X, X[:, 0]]), Y).shape == (len(X), 2)


@pytest.mark.parametrize("cls", [PCAFusion, LDAFusion])
@pytest.mark.parametrize("level", ["modality", "joint"])
def test_float32_and_float64_agree(cls, level):
    fusion = cls(2, level=level, blocks=BLOCKS)
    double = fusion.fit_transform(X, Y)
    single = fusion.fit_transform(X.astype(np.float32), Y)
    assert single.dtype == np.float32
    # The columns of wine differ by 1e4 in scale, and LDA's eigenproblem squares that.
    assert_allclose(single, double, rtol=2e-2, atol=2e-3 * np.abs(double).max())
