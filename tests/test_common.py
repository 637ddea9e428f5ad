"""scikit-learn's own estimator checks over every public estimator that takes numeric X."""

from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmm import CCAFusion, ConcatFusion, LDAFusion, ModalityFuser, PCAFusion

# Open slices, so that the instances fit whatever number of columns a check comes with.
BLOCKS = {"a": slice(0, 1), "b": slice(1, None)}


def modalities(*members):
    return [("a", members[0], slice(0, 1)), ("b", members[-1], slice(1, None))]


STRATEGIES = [
    ConcatFusion(),
    ConcatFusion(scaling=None, blocks=BLOCKS),
    ConcatFusion(scaling="norm", blocks=BLOCKS),
    PCAFusion(),
    PCAFusion(blocks=BLOCKS),
    PCAFusion(2, level="joint", scaling="norm", blocks=BLOCKS),
    PCAFusion(0.9, scaling=None, whiten=True, blocks=BLOCKS),
    LDAFusion(blocks=BLOCKS),
    LDAFusion(1, level="joint", shrinkage=None, blocks=BLOCKS),
    CCAFusion(blocks=BLOCKS),
    CCAFusion(regularization=0.1, scaling=None, output="mean", blocks=BLOCKS),
]
FUSERS = [
    ModalityFuser(modalities("passthrough")),
    ModalityFuser(modalities("passthrough"), fusion="pca"),
    ModalityFuser(modalities("passthrough"), fusion="lda"),
    ModalityFuser(modalities("passthrough"), fusion="cca"),
    ModalityFuser(modalities(StandardScaler(), make_pipeline(SimpleImputer(), StandardScaler()))),
    ModalityFuser(modalities("passthrough"), fusion=make_pipeline(PCAFusion(2), StandardScaler())),
    ModalityFuser(modalities("passthrough"), fusion=StandardScaler()),
    ModalityFuser(modalities("passthrough", StandardScaler()), fusion="concat", n_jobs=2),
]


@parametrize_with_checks([*STRATEGIES, *FUSERS])
def test_sklearn_checks(estimator, check):
    check(estimator)
