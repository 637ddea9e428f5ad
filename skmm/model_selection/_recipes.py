"""The models that the automatic estimators try, cheap ones first."""

import numpy as np
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR

from .._composition import as_transformer, dense_block
from ..encoders import ItemEncoder
from ..ensemble import ModalityStackingClassifier, ModalityStackingRegressor
from ..fusion import ConcatFusion, ModalityFuser, PCAFusion
from ..neural_network import MultimodalNetClassifier, MultimodalNetRegressor
from ._strategies import TUNED, Strategy, tuned_modalities

# Most rows for a support vector machine, whose time grows with their square.
_MOST_ROWS_OF_SVM = 10_000
# Most classes for gradient boosting, which grows one tree per class and iteration.
_MOST_CLASSES_OF_BOOSTING = 20
# Principal components of an encoder's features that trees get.
_N_COMPONENTS = 30

KINDS = ("single", "linear", "svm", "trees", "boosting", "stack", "net", "tuned")


class Recipes:
    """The strategies that an automatic estimator may try.

    Parameters
    ----------
    modalities : list of (str, transformer, columns)
        At least one.

    y : ndarray of shape (n_samples,)
        Target, which decides what is feasible.

    classifier : bool
        Whether to classify.

    class_weight : "balanced" or None
        For the classifiers that take it.

    random_state : int
        Seed.
    """

    def __init__(self, modalities, y, classifier, class_weight=None, random_state=0):
        self.modalities = [entry for entry in modalities if not (isinstance(entry[1], str) and entry[1] == "drop")]
        self.classifier = classifier
        self.class_weight = class_weight
        self.random_state = random_state
        self.n_samples = len(y)
        self.counts = np.unique(y, return_counts=True)[1] if classifier else np.array([len(y)])

    @property
    def _n_inner_folds(self):
        """Number of folds, at most three, that the smallest class has rows for when half of these are left out."""
        return int(min(3, self.counts.min() // 2)) if self.classifier else 3

    def make(self, kinds):
        """Return the strategies of some kinds, in the order of ``KINDS``, without those that are not feasible."""
        makers = {kind: getattr(self, f"_{kind}") for kind in KINDS if kind in kinds}
        return [strategy for maker in makers.values() for strategy in maker()]

    def _single(self):
        if len(self.modalities) > 1:
            for entry in self.modalities:
                yield Strategy(f"{entry[0]} alone", "single", self._fused([entry], self._linear_model()))

    def _linear(self):
        yield Strategy("linear", "feature", self._fused(self.modalities, self._linear_model()))

    def _svm(self):
        if self.n_samples <= _MOST_ROWS_OF_SVM and self._n_inner_folds > 1:
            yield Strategy("svm", "feature", self._fused(self.modalities, self._svm_model()))

    def _trees(self):
        yield Strategy("trees", "feature", self._by_trees(self._trees_model()))

    def _boosting(self):
        if self.classifier and len(self.counts) > _MOST_CLASSES_OF_BOOSTING:
            return
        yield Strategy("boosting", "feature", self._by_trees(self._boosting_model()))

    def _stack(self):
        if len(self.modalities) < 2:
            return
        members = []
        for name, transformer, columns in self.modalities:
            # Counts of words are sparse.
            dense = FunctionTransformer(dense_block, kw_args={"name": name})
            if contains_encoder(transformer):
                member = make_pipeline(transformer, dense, ConcatFusion(), self._quick_linear_model())
            else:
                member = make_pipeline(
                    as_transformer(for_trees(transformer, self.random_state), name), dense, self._boosting_model()
                )
            members.append((name, member, columns))
        cls = ModalityStackingClassifier if self.classifier else ModalityStackingRegressor
        yield Strategy("stack", "decision", cls(members, cv=3))

    def _net(self):
        options = {"random_state": self.random_state}
        if self.classifier:
            net = MultimodalNetClassifier(self.modalities, class_weight=self.class_weight, **options)
        else:
            net = MultimodalNetRegressor(self.modalities, **options)
        yield Strategy("net", "model", net)

    def _tuned(self):
        tuned = tuned_modalities(self.modalities, self.classifier, self.random_state)
        if tuned is not None and self.n_samples <= _MOST_ROWS_OF_SVM and self._n_inner_folds > 1:
            # The tuned features serve two learners, as the tuning takes nearly all the time.
            learners = [("linear", self._linear_model()), ("svm", self._svm_model())]
            model = VotingClassifier(learners, voting="soft") if self.classifier else VotingRegressor(learners)
            yield Strategy("tuned", TUNED, self._fused(tuned, model))

    def _fused(self, modalities, model):
        return Pipeline([("fuse", ModalityFuser(modalities)), ("estimator", model)])

    def _by_trees(self, model):
        modalities = [
            (name, for_trees(member, self.random_state), columns) for name, member, columns in self.modalities
        ]
        # Trees take the blocks as they are, with NaN where a modality is missing.
        unchanged = FunctionTransformer(feature_names_out="one-to-one")
        return Pipeline([("fuse", ModalityFuser(modalities, unchanged)), ("estimator", model)])

    def _linear_model(self):
        """Return a linear model that finds its penalty, for blocks that :class:`ConcatFusion` has scaled."""
        if not self.classifier or self._n_inner_folds < 3:
            return self._quick_linear_model()
        return LogisticRegressionCV(
            Cs=np.logspace(-4, 0, 5),
            cv=3,
            l1_ratios=(0,),
            scoring="neg_log_loss",
            use_legacy_attributes=False,
            max_iter=1000,
            class_weight=self.class_weight,
        )

    def _quick_linear_model(self):
        """Return a linear model that fits once: ridge finds its penalty in closed form, logistic regression has one."""
        if not self.classifier:
            return RidgeCV(alphas=np.logspace(-2, 6, 17))
        return LogisticRegression(C=0.01, max_iter=1000, class_weight=self.class_weight)

    def _svm_model(self):
        if not self.classifier:
            return TransformedTargetRegressor(SVR(C=10), transformer=StandardScaler())
        svm = SVC(C=3, class_weight=self.class_weight)
        return CalibratedClassifierCV(svm, ensemble=False, cv=self._n_inner_folds)

    def _trees_model(self):
        options = {"n_estimators": 100, "max_features": 0.3, "random_state": self.random_state}
        if self.classifier:
            return ExtraTreesClassifier(min_samples_leaf=2, class_weight=self.class_weight, **options)
        return ExtraTreesRegressor(**options)

    def _boosting_model(self):
        if self.classifier:
            # From 10,000 rows on it sets rows aside to know when to stop, of each class, which takes two of each.
            early_stopping = "auto" if self.counts.min() >= 12 else False
            return HistGradientBoostingClassifier(
                class_weight=self.class_weight, early_stopping=early_stopping, random_state=self.random_state
            )
        return HistGradientBoostingRegressor(random_state=self.random_state)


def contains_encoder(member):
    """Tell whether a transformer is an encoder of items, or a pipeline with one."""
    steps = [step for _, step in member.steps] if isinstance(member, Pipeline) else [member]
    return any(isinstance(step, ItemEncoder) for step in steps)


def for_trees(member, random_state=None):
    """Return a transformer as trees want it.

    An encoder is followed by principal components. A pipeline that begins with skrub's TableVectorizer makes ordinal
    numbers of categories. Imputation and scaling at the end are left out.
    """
    if contains_encoder(member):
        return make_pipeline(member, PCAFusion(_N_COMPONENTS, random_state=random_state))
    if not isinstance(member, Pipeline):
        return member
    steps = [step for _, step in member.steps]
    # Only those at the end: what stands before another step may be what this one needs.
    while steps and isinstance(steps[-1], (SimpleImputer, StandardScaler)):
        steps.pop()
    if not steps:
        return "passthrough"
    if type(steps[0]).__name__ == "TableVectorizer":
        ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
        steps[0] = clone(steps[0]).set_params(low_cardinality=ordinal)
    return make_pipeline(*steps) if len(steps) > 1 else steps[0]
