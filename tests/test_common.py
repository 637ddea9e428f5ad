"""scikit-learn's own estimator checks over every public estimator that takes numeric X."""

import pytest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmm import (
    AnchorFusion,
    AverageFusion,
    CCAFusion,
    ConcatFusion,
    ContrastiveFusion,
    CrossModalRetriever,
    DomainScaler,
    KernelCCAFusion,
    KernelFusion,
    LDAFusion,
    ModalityCascadeClassifier,
    ModalityFuser,
    ModalityImputer,
    ModalityStackingClassifier,
    ModalityStackingRegressor,
    ModalityVotingClassifier,
    ModalityVotingRegressor,
    MultimodalNetClassifier,
    MultimodalNetRegressor,
    PCAFusion,
    PLSFusion,
    ProductFusion,
)
from skmm.retrieval import ApproximateIndex, ExactIndex

# Open slices, so that the instances fit whatever number of columns a check comes with.
BLOCKS = {"a": slice(0, 1), "b": slice(1, None)}


def modalities(*members):
    return [("a", members[0], slice(0, 1)), ("b", members[-1], slice(1, None))]


STRATEGIES = [
    ConcatFusion(),
    ConcatFusion(scaling=None, blocks=BLOCKS),
    ConcatFusion(scaling="norm", blocks=BLOCKS),
    ConcatFusion(weights="cv", blocks=BLOCKS),
    AverageFusion(blocks=BLOCKS),
    AverageFusion(3, reduction="random", blocks=BLOCKS),
    AverageFusion(2, weights="cv", blocks=BLOCKS),
    PCAFusion(),
    PCAFusion(blocks=BLOCKS),
    PCAFusion(2, level="joint", scaling="norm", blocks=BLOCKS),
    PCAFusion(0.9, scaling=None, whiten=True, blocks=BLOCKS),
    PCAFusion(imputer="regression", blocks=BLOCKS),
    LDAFusion(blocks=BLOCKS),
    LDAFusion(1, level="joint", shrinkage=None, blocks=BLOCKS),
    KernelFusion(blocks=BLOCKS),
    KernelFusion(5, kernel="poly", weights="alignment", n_landmarks=15, blocks=BLOCKS),
    KernelCCAFusion(blocks=BLOCKS),
    KernelCCAFusion(2, kernel="linear", n_landmarks=15, output="mean", blocks=BLOCKS),
    ProductFusion(blocks=BLOCKS),
    ProductFusion("hadamard", max_features=20, blocks=BLOCKS),
    ProductFusion("compact", max_features=20, scaling=None, blocks=BLOCKS),
    CCAFusion(blocks=BLOCKS),
    CCAFusion(regularization=0.1, scaling=None, output="mean", blocks=BLOCKS),
    CCAFusion(regularization="auto", output="sum", blocks=BLOCKS),
    CCAFusion(objective="sumcor", regularization=0, blocks=BLOCKS),
    PLSFusion(blocks=BLOCKS),
    PLSFusion(scaling=None, output="sum", blocks=BLOCKS),
    AnchorFusion(blocks=BLOCKS),
    AnchorFusion(3, power=1, scaling=None, output="mean", blocks=BLOCKS),
    CCAFusion(target="block", weighting="correlation"),
    CCAFusion(regularization="cv", target="block", blocks=BLOCKS),
    PLSFusion(target="block", blocks=BLOCKS),
    KernelCCAFusion(target="block", blocks=BLOCKS),
    ContrastiveFusion(max_epochs=2, hidden_features=8, device="cpu", blocks=BLOCKS),
    ContrastiveFusion(objective="supcon", head="linear", max_epochs=2, device="cpu", blocks=BLOCKS),
]
SCALERS = [DomainScaler(-1), DomainScaler(-1, smooth=0)]
IMPUTERS = [
    ModalityImputer(),
    ModalityImputer("zero", add_indicator=True, blocks=BLOCKS),
    ModalityImputer("regression", blocks=BLOCKS),
    ModalityImputer("neighbors", n_neighbors=2, blocks=BLOCKS),
]
FUSERS = [
    ModalityFuser(),
    ModalityFuser(fusion="lda"),
    ModalityFuser(modalities("passthrough")),
    ModalityFuser(modalities("passthrough"), fusion="pca"),
    ModalityFuser(modalities("passthrough"), fusion="lda"),
    ModalityFuser(modalities("passthrough"), fusion="cca"),
    ModalityFuser(modalities("passthrough"), fusion="pls"),
    ModalityFuser(modalities(StandardScaler(), make_pipeline(SimpleImputer(), StandardScaler()))),
    ModalityFuser(modalities("passthrough"), fusion=make_pipeline(PCAFusion(2), StandardScaler())),
    ModalityFuser(modalities("passthrough"), fusion=StandardScaler()),
    ModalityFuser(modalities("passthrough", StandardScaler()), fusion="concat", n_jobs=2),
]
# Members take NaN: a single NaN cell makes the first modality missing, and is a cell of the second. No
# boosting, calibration or scaling here, whose weights are not equivalent to repeated rows in scikit-learn either.
TREE = DecisionTreeClassifier(max_depth=3, random_state=0)
TREES = modalities(TREE)
# Two votes tie too often for the accuracy that a check wants.
THREE_TREES = [*TREES, ("c", TREE, slice(0, None))]
REGRESSION_TREES = modalities(DecisionTreeRegressor(max_depth=3, random_state=0))
UNSCALED = ModalityFuser(modalities("passthrough"), fusion=ConcatFusion(scaling=None))
VOTERS = [
    ModalityVotingClassifier(TREES),
    ModalityVotingRegressor(REGRESSION_TREES, weights={"a": 1, "b": 2}),
]
CASCADES = [ModalityCascadeClassifier(TREES, costs={"a": 1, "b": 2}, cv=3)]
STACKERS = [
    ModalityStackingClassifier(TREES, cv=3),
    ModalityStackingRegressor(REGRESSION_TREES, cv=3),
]
# Few units and steps; with dropout, one row of weight 2 and the row twice would draw different numbers.
SMALL = {"width": 8, "dropout": 0.0, "learning_rate": 0.02, "max_epochs": 40, "random_state": 0}
NETWORKS = [
    MultimodalNetClassifier(modalities("passthrough"), **SMALL),
    MultimodalNetRegressor(modalities("passthrough"), **SMALL),
]
RETRIEVERS = [ExactIndex(), ApproximateIndex(), CrossModalRetriever(modalities("passthrough"), "cca")]
VARIANTS = [
    CrossModalRetriever(modalities("passthrough"), hubness=None, index="ann"),
    ModalityVotingClassifier(THREE_TREES, voting="hard"),
    ModalityVotingClassifier(TREES, voting="product", n_jobs=2),
    ModalityVotingClassifier(TREES, voting="max"),
    ModalityVotingClassifier(THREE_TREES, voting="median"),
    ModalityVotingClassifier(TREES, voting="rank", weights=[0.4, 0.6]),
    ModalityVotingClassifier(TREES, weights="auto", cv=3),
    ModalityVotingClassifier(THREE_TREES, weights="auto", voting="hard", cv=3),
    ModalityVotingClassifier(TREES, weights="auto", voting="product", cv=3),
    ModalityVotingRegressor(REGRESSION_TREES, voting="median", weights="auto", cv=3),
    ModalityStackingClassifier(THREE_TREES, TREE, cv=3),
    ModalityStackingClassifier(THREE_TREES, TREE, cv=3, stack_method="predict", n_jobs=2),
    ModalityStackingClassifier(TREES, cv=3, passthrough=UNSCALED),
    ModalityStackingRegressor(REGRESSION_TREES, DecisionTreeRegressor(random_state=0), cv=3, passthrough=True),
]


@parametrize_with_checks(
    [*STRATEGIES, *SCALERS, *IMPUTERS, *FUSERS, *VOTERS, *CASCADES, *STACKERS, *NETWORKS, *RETRIEVERS]
)
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(VARIANTS)
def test_sklearn_checks_of_variants(estimator, check):
    check(estimator)
