"""The target as a block: CCA with one more block, LDA, and graph embedding by pairs and classes."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skmm import CCAFusion, KernelCCAFusion, ModalityFuser, PLSFusion
from skmm.fusion.joint._target import target_block

BLOCKS = {"a": slice(0, 5), "b": slice(5, 9)}
WITH_TARGET = {**BLOCKS, "target": slice(9, None)}
CLASSES = np.array(["ape", "bee", "cat", "dog"])


def labelled(n=400, seed=0):
    """Two blocks that share two variables, one of which depends on the class."""
    rng = np.random.default_rng(seed)
    y = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    latent = rng.normal(size=(n, 2)) + np.column_stack([y, np.zeros(n)])
    return np.hstack([latent @ rng.normal(size=(2, p)) + rng.normal(size=(n, p)) for p in (5, 4)]), y


def cosines(ours, theirs):
    k = ours.shape[1]
    return np.abs(np.corrcoef(ours.T, theirs.T)[:k, k:].diagonal())


FUSIONS = [
    CCAFusion(3),
    CCAFusion(3, objective="sumcor", regularization="auto"),
    CCAFusion(3, regularization="cv"),
    PLSFusion(3),
]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("n", [400, 9])
@pytest.mark.parametrize("missing", [False, True])
def test_it_is_one_more_block(fusion, n, missing):
    X, y = labelled(n)
    one_hot = np.eye(4)[y]
    if missing:
        # Rows with one modality and a label, with both and none, with one alone.
        X[::4, :5] = X[1::8, 5:] = np.nan
        y[2::4] = y[4::8] = -1
        one_hot[y == -1] = np.nan
    ours = clone(fusion).set_params(target="block", blocks=BLOCKS).fit(X, y)
    theirs = clone(fusion).set_params(blocks=WITH_TARGET).fit(np.hstack([X, one_hot]))
    assert_allclose(ours.correlations_, theirs.correlations_)
    assert_array_equal(ours.n_pairs_, theirs.n_pairs_)
    for name in BLOCKS:
        assert_allclose(ours.weights_[name], theirs.weights_[name], rtol=1e-6, atol=1e-9)
        assert_allclose(ours.loadings_[name], theirs.loadings_[name], rtol=1e-6, atol=1e-9)
        assert ours.regularization_[name] == pytest.approx(theirs.regularization_[name])
    assert ours.weights_.keys() == ours.loadings_.keys() == ours.regularization_.keys() == BLOCKS.keys()
    new, _ = labelled(20, seed=1)
    new[:5, :5] = np.nan
    assert ours.transform(new).shape == (20, 2 * ours.n_components_)
    assert_allclose(
        ours.transform(new)[5:], theirs.transform(np.hstack([new, np.ones((20, 4))]))[5:, : 2 * ours.n_components_]
    )
    assert ours.score(new) == pytest.approx(clone(ours).fit(X, y).score(new, y="ignored"))


@pytest.mark.parametrize("regularization", [0.0, 0.2, "cv"])
def test_linear_kernels_are_cca(regularization):
    X, y = labelled()
    y[50:150] = -1
    options = {"regularization": regularization, "target": "block", "blocks": BLOCKS}
    ours = KernelCCAFusion(2, kernel="linear", random_state=0, **options).fit(X, y)
    theirs = CCAFusion(2, **options).fit(X, y)
    assert_allclose(ours.correlations_, theirs.correlations_, atol=1e-7)
    assert_array_equal(ours.n_pairs_, theirs.n_pairs_)
    assert_allclose(ours.transform(X), theirs.transform(X), atol=1e-6)
    assert_allclose(pickle.loads(pickle.dumps(ours)).transform(X), ours.transform(X))


@pytest.mark.parametrize("blocks", [None, {"all": slice(None)}])
def test_one_block_and_classes_are_discriminant_analysis(blocks):
    X, y = labelled()
    fusion = CCAFusion(regularization=0, target="block", blocks=blocks)
    lda = LinearDiscriminantAnalysis(solver="svd").fit(X, y)
    out = fusion.fit_transform(X, y)
    assert fusion.n_components_ == 3
    assert_allclose(
        linalg.subspace_angles(fusion.weights_[next(iter(fusion.blocks_))], lda.scalings_[:, :3]), 0, atol=1e-7
    )
    assert_allclose(cosines(out, lda.transform(X)), 1)
    # The share of its variance between classes.
    between = [np.sum([(y == c).mean() * out[y == c, k].mean() ** 2 for c in range(4)]) for k in range(3)]
    assert_allclose(fusion.correlations_**2, between / out.var(axis=0))
    # Rows without a label say nothing.
    more = np.vstack([X, X[:50] + 1])
    assert_allclose(clone(fusion).fit(more, np.r_[y, np.full(50, -1)]).transform(X), out, atol=1e-9)


# min over (phi, psi) of sum_ij w_ij ||phi(x_i) - psi(y_j)||^2, over all items of both modalities at a constant sum of
# their squares, is the eigenproblem Z'WZ v = mu Z'Z v if all items have the same sum of weights. A class as an item of
# its own, at the place where that costs least, ties its m items together as weights of 1 / m between all of them do.


def graph_eigenvectors(Z, W):
    """Eigenvectors, smallest cost first, of a graph with the weights W of the rows of Z, and its eigenvalues."""
    laplacian = np.diag(W.sum(axis=1)) - W
    assert_allclose(W.sum(axis=1), W[0].sum())
    costs, vectors = linalg.eigh(Z.T @ laplacian @ Z, Z.T @ Z)
    return W[0].sum() - costs, vectors


def items_of_both(X, rows_a, rows_b):
    centered = [
        X[rows, columns] - X[rows, columns].mean(axis=0)
        for rows, columns in zip((rows_a, rows_b), BLOCKS.values(), strict=True)
    ]
    return linalg.block_diag(*centered)


def same_class(y):
    return (y[:, None] == y) / np.bincount(y)[y]


def test_classes_alone_are_weights_of_one_over_the_size_of_the_class():
    X, y = labelled()
    a, b = slice(0, 200), slice(200, 400)
    halves = X.copy()
    halves[a, BLOCKS["b"]] = halves[b, BLOCKS["a"]] = np.nan
    fusion = CCAFusion(3, objective="sumcor", regularization=0, target="block", blocks=BLOCKS).fit(halves, y)
    _, vectors = graph_eigenvectors(items_of_both(X, a, b), same_class(y))
    for name, columns in BLOCKS.items():
        assert_allclose(cosines(X[:, columns] @ fusion.weights_[name], X[:, columns] @ vectors[columns, :3]), 1)


@pytest.mark.parametrize("objective", ["maxvar", "sumcor"])
def test_pairs_and_classes_are_weights_of_pairs_or_of_the_same_class(objective):
    X, y = labelled()
    fusion = CCAFusion(3, objective=objective, regularization=0, target="block", blocks=BLOCKS).fit(X, y)
    Z, n = items_of_both(X, slice(None), slice(None)), len(X)
    paired = np.roll(np.eye(2 * n), n, axis=0)
    classes = same_class(np.r_[y, y])
    # A component whose agreement is mu has mu classes to one pair: mu v = (P + 2 C / mu) v. All of them at once:
    ZZ, P, C = Z.T @ Z, Z.T @ paired @ Z, 2 * Z.T @ classes @ Z
    agreements = linalg.eig(np.block([[P, C], [ZZ, 0 * ZZ]]), linalg.block_diag(ZZ, ZZ), right=False).real
    for k, agreement in enumerate(np.sort(agreements)[::-1][:3]):
        values, vectors = graph_eigenvectors(Z, paired + 2 * classes / agreement)
        leading = np.argmin(np.abs(values - agreement))
        assert_allclose(values[leading], agreement)
        for name, columns in BLOCKS.items():
            ours = X[:, columns] @ fusion.weights_[name][:, [k]]
            assert_allclose(cosines(ours, X[:, columns] @ vectors[columns][:, [leading]]), 1)


def test_kinds_of_targets():
    rows, one_hot = np.arange(6), np.eye(3)[[0, 1, 2, 0, 1, 2]]
    words = np.array(["ape", "bee", "cat"] * 2, dtype=object)
    one_hot[4] = np.nan
    words[4] = None
    numbers = np.array([0.0, 1, 2, 0, np.nan, 2])
    for y in (
        words,
        words.tolist(),
        pd.Series(words, dtype="category"),
        pd.Series(words, dtype="string"),
        numbers,
        np.where(rows == 4, -1, rows % 3),
        pd.Series(numbers, dtype="Int64"),
        numbers[:, None],
    ):
        assert_array_equal(target_block(y, "CCAFusion"), one_hot)
    numbers = np.array([0.5, -1, 2, np.nan, 3, 1])
    assert_allclose(np.nanstd(target_block(numbers, "CCAFusion"), ddof=1), 1)
    assert_allclose(np.nanmean(target_block(numbers * 1e-9 + 1, "CCAFusion")), 0, atol=1e-6)
    assert_array_equal(np.isnan(target_block(numbers, "CCAFusion"))[:, 0], np.isnan(numbers))
    several = pd.DataFrame({"kind": words, "size": numbers})
    assert_array_equal(target_block(several, "CCAFusion"), np.hstack([one_hot, target_block(numbers, "CCAFusion")]))
    assert target_block([[0, 1], [1, 0], [1, 1]], "CCAFusion").shape == (3, 4)


@pytest.mark.parametrize(("y", "n_labels"), [([1, 1, 1], 3), ([-1, -1, -1], 0), ([np.nan] * 3, 0), ([1, -1, -1], 1)])
def test_targets_that_tell_nothing(y, n_labels):
    with pytest.raises(ValueError, match=f"at least 2 classes or values in y, got one or none in {n_labels} rows"):
        CCAFusion(target="block", blocks=BLOCKS).fit(np.eye(3, 9), y)


def test_numbers_and_several_targets():
    X, y = labelled()
    rng = np.random.default_rng(0)
    price = X[:, 0] + rng.normal(size=400)
    targets = np.column_stack([y, price, 7 * price + rng.normal(size=400)])
    targets[:40] = np.nan
    ours = CCAFusion(3, target="block", blocks=BLOCKS).fit(X, targets)
    columns = np.hstack([OneHotEncoder(sparse_output=False).fit_transform(targets[:, :1])[:, :4], targets[:, 1:]])
    columns[:40] = np.nan
    theirs = CCAFusion(3, blocks=WITH_TARGET).fit(np.hstack([X, columns]))
    assert_allclose(ours.transform(X), theirs.transform(np.hstack([X, columns]))[:, :6])
    # Units do not matter, and neither does a permutation of the classes.
    other = np.column_stack([3 - targets[:, 0], targets[:, 1] * 1e6 + 0.5, targets[:, 2]])
    assert_allclose(clone(ours).fit(X, other).transform(X), ours.transform(X), atol=1e-6)


@pytest.mark.parametrize("cls", [CCAFusion, PLSFusion, KernelCCAFusion])
def test_labels_help_and_permuted_ones_do_not(cls):
    X, y = labelled(600)
    rng = np.random.default_rng(0)
    X = X + 2 * rng.normal(size=X.shape)
    train, new = slice(0, 400), slice(400, 600)

    def accuracy(labels, **options):
        fusion = cls(1, blocks=BLOCKS, **options).fit(X[train], labels)
        model = LogisticRegression().fit(fusion.transform(X[train]), y[train])
        return model.score(fusion.transform(X[new]), y[new])

    without = accuracy(None)
    assert accuracy(y[train], target="block") > without - 0.01
    assert abs(accuracy(rng.permutation(y[train]), target="block") - without) < 0.05


def test_rows_with_one_modality_and_a_label_are_learned_from():
    X, y = labelled(1000)
    X += 4 * np.random.default_rng(0).normal(size=X.shape)
    half = X.copy()
    half[10:510, 5:] = half[510:, :5] = np.nan
    fusion = CCAFusion(1, target="block", blocks=BLOCKS).fit(half[:800], y[:800])
    assert fusion.n_pairs_.tolist() == [[510, 10, 510], [10, 300, 300], [510, 300, 800]]
    few = clone(fusion).fit(X[:10], y[:10])
    for name, columns in BLOCKS.items():
        by_all, by_few = (cosines(f.transform_modality(X[800:, columns], name), y[800:, None]) for f in (fusion, few))
        assert by_all > by_few + 0.05


def test_in_a_fuser_with_strings_and_missing_labels():
    X, y = labelled()
    names = CLASSES[y].astype(object)
    names[::3] = None
    columns = [("a", "passthrough", BLOCKS["a"]), ("b", "passthrough", BLOCKS["b"])]
    fuser = ModalityFuser(columns, CCAFusion(2, target="block"))
    assert_allclose(fuser.fit_transform(X, names), CCAFusion(2, target="block", blocks=BLOCKS).fit_transform(X, names))
    assert fuser.__sklearn_tags__().target_tags.required
    scores = cross_val_score(make_pipeline(fuser, LogisticRegression()), X, y, error_score="raise")
    assert scores.mean() > 0.4


def test_what_a_target_asks_for():
    X, y = labelled()
    with pytest.raises(ValueError, match="requires y to be passed"):
        CCAFusion(target="block", blocks=BLOCKS).fit(X)
    assert not hasattr(CCAFusion(target="block").fit(X, y), "score")
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        CCAFusion(target="block", blocks=BLOCKS).fit(X, y[:-1])
    with pytest.raises(ValueError, match="'target' parameter of PLSFusion"):
        PLSFusion(target="y", blocks=BLOCKS).fit(X, y)
    with pytest.raises(ValueError, match="at least 2 with block '__target__'"):
        # Both labels stand in rows without any block.
        CCAFusion(target="block", blocks=BLOCKS).fit(np.vstack([X, np.full((2, 9), np.nan)]), [*[-1] * 400, 0, 1])
    fusion = PLSFusion(target="block", blocks=BLOCKS)
    assert not hasattr(fusion, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        fusion.partial_fit(X, y)
    assert "learns from no target" in str(caught.value.__cause__)
    # Without the parameter y is not looked at.
    assert_array_equal(
        CCAFusion(2, blocks=BLOCKS).fit(X, [None] * 400).transform(X), CCAFusion(2, blocks=BLOCKS).fit_transform(X)
    )
    # Ridges by block leave the target without one.
    by_block = CCAFusion(2, regularization={"a": 0.1, "b": 0.2}, target="block", blocks=BLOCKS).fit(X, y)
    three = CCAFusion(2, regularization={"a": 0.1, "b": 0.2, "target": 0}, blocks=WITH_TARGET)
    assert by_block.regularization_ == {"a": 0.1, "b": 0.2}
    assert_allclose(
        by_block.transform(X), three.fit(np.hstack([X, np.eye(4)[y]])).transform(np.hstack([X, np.eye(4)[y]]))[:, :4]
    )
