"""Grids that range over strategies of fusion, in scikit-learn's own searches."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - the import is what makes the search available
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, ParameterGrid, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skmm import ModalityFuser, TextEncoder, TunedEncoder
from skmm.model_selection import compare_fusions, fusion_grid
from skmm.model_selection._strategies import LEVELS, make_strategies

IRIS = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
CLASSIFIER = LogisticRegression()
X, y = load_iris(return_X_y=True)


def mixed_frame():
    rng = np.random.default_rng(0)
    target = np.arange(40) % 2
    words = np.where(target, "red fox", "grey hen").astype(object)
    words[::5] = None
    frame = pd.DataFrame({"caption": words, "weight": target + rng.normal(size=40), "height": rng.normal(size=40)})
    frame.loc[1::7, ["weight", "height"]] = np.nan
    modalities = [("text", TfidfVectorizer(), "caption"), ("table", StandardScaler(), ["weight", "height"])]
    return frame, target, modalities


def labels(*args, **kwargs):
    return [strategy.label for strategy in make_strategies(*args, **kwargs)]


def test_levels_come_in_order_and_can_be_chosen():
    everything = labels(IRIS, CLASSIFIER)
    assert everything[:4] == ["sepal alone", "petal alone", "concat", "pca"]
    assert everything[-2:] == ["stack", "net"]
    assert labels(IRIS, CLASSIFIER, ("decision", "single"))[:3] == ["sepal alone", "petal alone", "vote"]
    assert len(fusion_grid(IRIS, CLASSIFIER, tune=False)) == len(everything)


def test_tuned_encoders_are_a_level_of_their_own(tiny_text_model):
    encoder = TextEncoder(tiny_text_model, device="cpu", on_error="missing")
    pipeline = Pipeline([("encode", encoder), ("scale", StandardScaler())], memory=None, verbose=True)
    modalities = [("text", encoder, "text"), ("title", pipeline, "title"), ("table", "passthrough", ["number"])]
    assert "concat_tuned" not in labels(modalities, CLASSIFIER)
    strategies = make_strategies(modalities, CLASSIFIER, ("tuned",))
    assert [strategy.label for strategy in strategies] == ["text tuned", "title tuned", "concat_tuned"]
    text, title, table = strategies[-1].estimator[0].modalities
    assert text[1].encoder is encoder
    assert title[1].verbose
    assert isinstance(title[1][0], TunedEncoder)
    assert isinstance(title[1][1], StandardScaler)
    assert table[1] == "passthrough"
    assert text[1].target_type == "classification"
    assert make_strategies(modalities, Ridge(), ("tuned",))[0].estimator[0].modalities[0][1].target_type == "continuous"
    with pytest.raises(ValueError, match='"tuned" needs a modality'):
        make_strategies(IRIS, CLASSIFIER, ("tuned",))


def test_a_comparison_with_tuned_encoders(tiny_text_model):
    n = 30
    frame = pd.DataFrame({"text": [f"the {word} {i}" for i, word in enumerate(["cat", "dog"] * (n // 2))]})
    frame["number"] = np.arange(n) % 7.0
    frame.loc[4, "text"] = None
    encoder = TextEncoder(tiny_text_model, device="cpu")
    modalities = [("text", encoder, "text"), ("table", "passthrough", ["number"])]
    comparison = compare_fusions(
        CLASSIFIER,
        frame,
        np.arange(n) % 2,
        modalities=modalities,
        levels=("single", "tuned"),
        cv=2,
        groups=np.arange(n) // 2,
        on_error="raise",
    )
    assert set(comparison.to_frame().index) == {"text alone", "table alone", "text tuned", "concat_tuned"}


def test_strategies_can_be_left_out_and_added():
    dummy = DummyClassifier()
    grid = fusion_grid(
        IRIS,
        CLASSIFIER,
        ["single", "model"],
        exclude=["net"],
        extra={"chance": (dummy, {"strategy": ["prior", "uniform"]}), "plain": CLASSIFIER},
        step="fusion",
    )
    assert grid[2:] == [
        {"fusion": [dummy], "fusion__strategy": ["prior", "uniform"]},
        {"fusion": [CLASSIFIER]},
    ]
    assert len(grid) == 4


def test_dropped_modalities_are_left_out():
    three = [*IRIS, ("none", "drop", slice(0, 1))]
    assert labels(three, CLASSIFIER) == labels(IRIS, CLASSIFIER)


def test_one_name_for_each_strategy_of_fusion():
    shorthands = {"average", "cca", "concat", "kernel", "kernel_cca", "lda", "pca", "pls", "product"}
    assert set(labels(IRIS, CLASSIFIER, ("feature", "joint"))) == shorthands
    for name in shorthands:
        ModalityFuser(IRIS, name).fit(X, y)
    assert not [label for label in labels(IRIS, CLASSIFIER, LEVELS[1:]) if " " in label]


@pytest.mark.parametrize(
    ("estimator", "levels"),
    [
        (LinearSVC(), ("single",)),
        pytest.param(CLASSIFIER, LEVELS, marks=pytest.mark.slow),
        pytest.param(LinearSVC(), LEVELS, marks=pytest.mark.slow),
        pytest.param(Ridge(), LEVELS, marks=pytest.mark.slow),
    ],
    ids=["some", "LogisticRegression", "LinearSVC", "Ridge"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_candidate_fits_and_predicts(estimator, levels):
    data, target = load_diabetes(return_X_y=True) if isinstance(estimator, Ridge) else (X, y)
    modalities = [("a", "passthrough", slice(0, 3)), ("b", StandardScaler(), slice(3, None))]
    pipe = Pipeline([("model", estimator)])
    seen = set()
    for params in ParameterGrid(fusion_grid(modalities, estimator, levels, random_state=0)):
        fitted = pipe.set_params(**params).fit(data, target)
        assert fitted.predict(data).shape == target.shape
        assert fitted.score(data, target) > 0.2
        seen.add(str(params))
    assert len(seen) == len(ParameterGrid(fusion_grid(modalities, estimator, levels)))


@pytest.mark.filterwarnings("ignore:.*rows have no modality")
def test_text_and_gaps():
    frame, target, modalities = mixed_frame()
    for strategy in make_strategies(modalities, CLASSIFIER, LEVELS[:4]):
        assert strategy.estimator.fit(frame, target).score(frame, target) > 0.6, strategy.label


def test_votes_calibrate_classifiers_without_probabilities():
    for estimator, calibration in [(LinearSVC(), "sigmoid"), (CLASSIFIER, None)]:
        *votes, _ = make_strategies(IRIS, estimator, ("decision",))
        assert [vote.estimator.calibration for vote in votes] == 3 * [calibration]


def test_networks_take_class_weights_over():
    weighted = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    for estimator, expected in [(weighted, "balanced"), (CLASSIFIER, None), (GaussianNB(), None)]:
        (net,) = make_strategies(IRIS, estimator, ("model",))
        assert net.estimator.class_weight == expected


def test_members_see_what_single_modalities_see():
    strategies = {strategy.label: strategy.estimator for strategy in make_strategies(IRIS, CLASSIFIER)}
    vote, alone = strategies["vote"].fit(X, y), strategies["sepal alone"].fit(X, y)
    assert vote.predict_by_modality(X)["sepal"].to_numpy().tolist() == alone.predict(X).tolist()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GridSearchCV, {}),
        (RandomizedSearchCV, {"n_iter": 6, "random_state": 0}),
        (HalvingGridSearchCV, {"min_resources": 60, "random_state": 0}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_scikit_learns_searches(kind, options):
    grid = fusion_grid(IRIS, CLASSIFIER, levels=("single", "feature"), exclude=["product", "kernel"])
    search = kind(Pipeline([("model", CLASSIFIER)]), grid, cv=3, error_score="raise", **options).fit(X, y)
    assert search.best_score_ > 0.9
    assert isinstance(search.best_estimator_["model"]["fuse"], ModalityFuser)
    assert search.predict(X).shape == y.shape


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RandomizedSearchCV, HalvingGridSearchCV])
@pytest.mark.filterwarnings("ignore:The least populated class in y")
def test_searches_over_all_levels(kind):
    options = {"n_iter": 16} if kind is RandomizedSearchCV else {"min_resources": 50, "factor": 2}
    added = {"chance": DummyClassifier()}
    grid = fusion_grid(IRIS, CLASSIFIER, exclude=["cca"], extra=added, tune=False, random_state=0)
    search = kind(Pipeline([("model", CLASSIFIER)]), grid, cv=2, error_score="raise", random_state=0, **options)
    search.fit(X, y)
    tried = {str(params["model"]) for params in search.cv_results_["params"]}
    assert tried == {str(candidates["model"][0]) for candidates in grid}
    assert len(tried) == 16
    assert search.best_score_ > 0.9


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"levels": ("single", "sum")}, ValueError, "levels must be a sequence of"),
        ({"levels": "single"}, ValueError, "levels must be a sequence of"),
        (
            {"exclude": ["cca", "ccaa", "kernel cca"]},
            ValueError,
            r"exclude: \['ccaa', 'kernel cca'\] are not .*'kernel_cca'",
        ),
        (
            {"exclude": "cca"},
            ValueError,
            r"exclude must be a sequence of names such as \['cca'\], got the string 'cca'",
        ),
        ({"extra": {"cca": CLASSIFIER}}, ValueError, "there is a strategy 'cca' already"),
        ({"levels": ("model",), "exclude": ["net"]}, ValueError, "No strategy remains"),
        ({"modalities": IRIS[:1]}, ValueError, "at least 2 modalities, got 1"),
        ({"modalities": [("a", "passthrough")]}, ValueError, r"each modality is a tuple"),
        ({"estimator": StandardScaler()}, TypeError, "must be a classifier or a regressor, got StandardScaler"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"modalities": IRIS, "estimator": CLASSIFIER, **change}
    with pytest.raises(error, match=message):
        fusion_grid(**arguments)
