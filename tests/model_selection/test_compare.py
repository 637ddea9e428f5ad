"""Comparison of strategies on the same folds."""

import pickle
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_diabetes, load_iris, make_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import AdaBoostClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    RepeatedStratifiedKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.validation import check_is_fitted

from skmm import EmbeddingStore, ImageDescriptor, ImageEncoder, TextEncoder
from skmm.inspection import find_duplicates
from skmm.model_selection import _comparison, compare_fusions, corrected_t_test, holm
from skmm.model_selection._strategies import make_strategies

IRIS = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
CLASSIFIER = LogisticRegression()
X, y = load_iris(return_X_y=True)
# Two single modalities and a concatenation; these, a projection of each level and two ensembles.
FEW = {"levels": ("single", "feature"), "exclude": ["pca", "lda", "product", "kernel"]}
FEW_OF_NUMBERS = {**FEW, "exclude": ["pca", "product", "kernel"]}
SOME = {
    "levels": ("single", "feature", "joint", "decision"),
    "exclude": ["lda", "product", "kernel", "pls", "kernel_cca", "average", "vote_weighted", "vote_product"],
}


class Failing(DummyClassifier):
    """Fails, or is interrupted, in the folds whose first row is given."""

    def __init__(self, error=ValueError, limit=np.inf):
        super().__init__()
        self.error = error
        self.limit = limit

    def fit(self, X, y):
        if X[0, 0] < self.limit:
            raise self.error("no luck <here>")
        return super().fit(X, y)


@pytest.fixture
def hears_interrupts():
    """A shell starts what runs in its background deaf to Ctrl-C."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


class Interrupting(DummyClassifier):
    """Sends its own process the signal of Ctrl-C."""

    def fit(self, X, y):
        # To this thread: the signal of a process may reach it later, by way of another thread.
        signal.raise_signal(signal.SIGINT)
        return super().fit(X, y)


def strategy(label):
    strategies = make_strategies(IRIS, CLASSIFIER, random_state=0)
    return next(strategy.estimator for strategy in strategies if strategy.label == label)


@pytest.mark.parametrize(
    ("levels", "n_strategies"),
    [(("single", "feature"), 7), pytest.param(("joint", "decision", "model"), 9, marks=pytest.mark.slow)],
    ids=["some", "all_others"],
)
def test_scores_are_those_of_cross_validate(levels, n_strategies):
    cv = RepeatedStratifiedKFold(n_splits=2, n_repeats=1, random_state=1)
    comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, levels=levels, cv=cv, refit=False)
    folds, frame = comparison.fold_scores(), comparison.to_frame()
    assert len(folds.columns) == n_strategies
    for label in folds:
        scores = cross_validate(strategy(label), X, y, cv=cv)["test_score"]
        assert folds[label].tolist() == scores.tolist()
        assert frame.loc[label, "mean"] == pytest.approx(scores.mean())
        assert frame.loc[label, "sd"] == pytest.approx(scores.std(ddof=1))
    assert frame["mean"].is_monotonic_decreasing
    assert (frame[["fit_time", "predict_time"]] > 0).all(axis=None)


def test_gain_p_and_verdict():
    comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **SOME, n_repeats=2)
    frame, folds = comparison.to_frame(), comparison.fold_scores()
    singles, joined = frame[frame["level"] == "single"], frame[frame["level"] != "single"]
    assert singles["gain"].isna().all()
    assert np.allclose(joined["gain"], joined["mean"] - singles["mean"].max())
    assert singles["verdict"].tolist() == ["best single", ""]
    # Sepals are far worse, so that only petals count against being better.
    test = corrected_t_test(folds["vote"] - folds["petal alone"], 30 / 120)
    assert test.mean < 0
    assert joined.loc["vote", "p"] == pytest.approx(min(1, 2 * test.pvalue))
    assert joined["p_holm"].tolist() == holm(joined["p"]).tolist()
    assert (joined["p_holm"] >= joined["p"]).all()
    assert set(joined["verdict"]) == {"no difference shown"}


def test_what_is_better_is_called_better():
    # The classes are the quadrants of two modalities, so that neither alone is enough.
    rng = np.random.default_rng(0)
    data = rng.normal(size=(200, 4))
    target = 2 * (data[:, 0] > 0) + (data[:, 2] > 0)
    frame = compare_fusions(CLASSIFIER, data, target, modalities=IRIS, **FEW).to_frame()
    assert frame.loc["concat", "verdict"] == "better"
    assert frame.loc["concat", "gain_low"] > 0
    assert frame.loc["concat", "p_holm"] < 0.01


@pytest.mark.slow
def test_permuted_labels_show_nothing():
    data, target = make_classification(60, 4, n_informative=4, n_redundant=0, random_state=0)
    called = 0
    for seed in range(100):
        permuted = np.random.default_rng(seed).permutation(target)
        options = {**SOME, "exclude": [*SOME["exclude"], "pca", "cca", "stack"], "random_state": seed, "refit": False}
        comparison = compare_fusions(GaussianNB(), data, permuted, modalities=IRIS, cv=3, **options)
        called += (comparison.to_frame()["verdict"] == "better").any()
    assert called <= 5


def test_the_seed_decides_the_folds():
    frame = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, random_state=3).to_frame()
    same = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, random_state=3).to_frame()
    other = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, random_state=4).to_frame()
    assert frame["mean"].equals(same["mean"])
    assert not frame["mean"].equals(other["mean"])


def test_best_estimator_is_fitted_on_all_rows():
    comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **SOME)
    best = comparison.to_frame().index[0]
    assert comparison.best_strategy_ == best
    expected = strategy(best).fit(X, y).predict_proba(X)
    assert np.allclose(comparison.best_estimator_.predict_proba(X), expected)
    assert not hasattr(compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, refit=False), "best_estimator_")


def test_several_scorers():
    scoring = ["accuracy", "neg_log_loss"]
    comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, scoring=scoring, refit="neg_log_loss")
    assert comparison.metrics == scoring
    assert comparison.to_frame().equals(comparison.to_frame("neg_log_loss"))
    alone = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, scoring="neg_log_loss")
    assert alone.metrics == ["neg_log_loss"]
    named = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, scoring="neg_log_loss", refit="neg_log_loss")
    assert named.to_frame()["mean"].equals(alone.to_frame()["mean"])
    assert comparison.fold_scores().equals(alone.fold_scores())
    assert comparison.best_strategy_ == alone.best_strategy_ == comparison.to_frame("neg_log_loss").index[0]
    assert compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, scoring=set(scoring)).best_metric == "accuracy"
    with pytest.raises(ValueError, match="metric='f1' is not among those scored"):
        comparison.to_frame("f1")


def test_scorer_that_is_a_function():
    def scorer(estimator, X, y):
        return {"right": accuracy_score(y, estimator.predict(X)), "wrong": -accuracy_score(y, estimator.predict(X))}

    comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, scoring=scorer, refit="wrong")
    assert comparison.metrics == ["right", "wrong"]
    assert comparison.best_strategy_ == comparison.to_frame("right").index[-1]
    first = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, scoring=scorer)
    assert first.best_strategy_ == first.to_frame("right").index[0]
    named = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, scoring=get_scorer("balanced_accuracy"))
    assert named.metrics == ["score"]


@pytest.mark.parametrize(
    ("scoring", "lowest", "highest"),
    [
        (None, 0, 1),
        ("accuracy", 0, 1),
        ("balanced_accuracy", 0, 1),
        ("f1_macro", 0, 1),
        ("roc_auc_ovr", 0, 1),
        ("matthews_corrcoef", -1, 1),
        ("neg_log_loss", -np.inf, 0),
        (["accuracy", "neg_log_loss"], 0, 1),
        ({"share": "accuracy"}, 0, 1),
    ],
    ids=str,
)
def test_intervals_stay_within_the_bounds_of_the_score(scoring, lowest, highest):
    # Ten rows a fold: some are all right, so that an interval symmetric around the mean would exceed the bound.
    rows = np.arange(0, 150, 3)
    estimator = LogisticRegression(C=1000, max_iter=1000)
    comparison = compare_fusions(estimator, X[rows], y[rows], modalities=IRIS, **FEW, scoring=scoring, refit=False)
    frame, folds = comparison.to_frame(), comparison.fold_scores()
    plain = {label: corrected_t_test(folds[label], 1 / 4) for label in folds}
    assert max(test.high for test in plain.values()) > highest
    for label, test in plain.items():
        expected = [max(test.low, lowest), min(test.high, highest)]
        assert frame.loc[label, ["low", "high"]].tolist() == pytest.approx(expected)
    assert (frame["low"] <= frame["mean"]).all()


def test_r2_is_bounded_above_only():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(30, 4))
    # A target without signal in the sepals, and without noise in the petals.
    comparison = compare_fusions(Ridge(1e-9), data, data[:, 2], modalities=IRIS, **FEW_OF_NUMBERS)
    frame = comparison.to_frame()
    assert frame["low"].min() < 0
    assert frame["high"].max() <= 1


def test_scores_beyond_the_usual_bounds_are_not_cut():
    def score(estimator, X, y):
        return 2.0 + X[0, 0]

    frame = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, scoring=score, refit=False).to_frame()
    assert frame.loc["concat", "low"] < frame.loc["concat", "mean"] < frame.loc["concat", "high"]


def test_a_strategy_that_fails_is_a_row():
    added = {"fails": Failing(), "fails at times": Failing(limit=X[0, 0] + 0.01), "chance": DummyClassifier()}
    comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, extra=added, cv=StratifiedKFold(5))
    frame = comparison.to_frame()
    assert frame.loc["fails", "error"] == "5 of 5 folds: ValueError: no luck <here>"
    assert frame.loc["fails at times", "error"].startswith("4 of 5 folds: ")
    assert frame["verdict"].tolist()[-2:] == ["failed", "failed"]
    assert frame["mean"].isna().tolist()[-2:] == [True, True]
    assert frame.loc["chance", "verdict"] == "worse"
    assert comparison.best_estimator_ is not None
    with pytest.raises(ValueError, match="no luck") as caught:
        compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, extra=added, on_error="raise")
    assert caught.value.__notes__ == ["This happened in the strategy 'fails'."]


def test_a_score_that_is_no_number_is_an_error():
    def scorer(estimator, X, y):
        return np.nan if isinstance(estimator, DummyClassifier) else 0.5

    frame = compare_fusions(
        CLASSIFIER, X, y, modalities=IRIS, **FEW, scoring=scorer, extra={"chance": DummyClassifier()}
    ).to_frame()
    assert frame.loc["chance", "error"] == "5 of 5 folds: ValueError: score is nan, so there is nothing to compare"
    assert frame.loc["concat", ["gain", "p_holm"]].tolist() == [0, 1]


def test_all_strategies_may_fail():
    comparison = compare_fusions(Failing(), X, y, modalities=IRIS, **FEW)
    assert comparison.best_strategy_ is None
    assert (comparison.to_frame()["verdict"] == "failed").all()
    assert repr(comparison) == "FusionComparison of 3 strategies over 5 folds: all failed"
    for ask in (comparison.fold_scores, comparison.plot):
        with pytest.raises(
            ValueError, match="All strategies failed, so there are no scores; 'sepal alone': 5 of 5 fol"
        ):
            ask()


@pytest.mark.parametrize("stop", [Failing(KeyboardInterrupt), Interrupting()], ids=["raised", "signal"])
@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupted_comparison_keeps_its_rows(stop):
    added = {"stop": stop, "never": DummyClassifier()}
    with pytest.warns(UserWarning, match="interrupted after 3 of 5 strategies"):
        comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, extra=added)
    assert sorted(comparison.to_frame().index) == ["concat", "petal alone", "sepal alone"]
    assert comparison.to_frame().loc["concat", "p_holm"] <= 1
    assert not hasattr(comparison, "best_estimator_")


@pytest.mark.slow
@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupted_comparison_in_processes_keeps_its_rows(tmp_path):
    """The last strategy sends the main process the signal of Ctrl-C once that has the rows of the others, and waits."""
    script = tmp_path / "interrupted.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys, time, warnings
            from pathlib import Path
            from sklearn.datasets import load_iris
            from sklearn.dummy import DummyClassifier
            from sklearn.linear_model import LogisticRegression
            from skmm.model_selection import _runs, compare_fusions

            class Telling(_runs.tqdm):
                def set_postfix_str(self, label, *args, **options):
                    Path(sys.argv[1], label).touch()
                    super().set_postfix_str(label, *args, **options)

            class Interrupting(DummyClassifier):
                def __init__(self, folder=None, process=0):
                    super().__init__()
                    self.folder = folder
                    self.process = process

                def fit(self, X, y):
                    # Nothing outlives the test, whatever goes wrong.
                    signal.alarm(600)
                    # The main process asks for this strategy's scores next.
                    while not Path(self.folder, "stop").exists():
                        time.sleep(0.05)
                    try:
                        Path(self.folder, "interrupted").touch(exist_ok=False)
                        os.kill(self.process, signal.SIGINT)
                    except FileExistsError:
                        pass
                    time.sleep(600)

            if __name__ == "__main__":
                warnings.simplefilter("error", UserWarning)
                warnings.filterwarnings("always", message="compare_fusions was interrupted")
                X, y = load_iris(return_X_y=True)
                modalities = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
                _runs.tqdm = Telling
                comparison = compare_fusions(
                    LogisticRegression(), X, y, modalities=modalities, levels=("single",), cv=2, n_jobs=2,
                    extra={"stop": Interrupting(sys.argv[1], os.getpid())},
                )
                print(sorted(comparison.to_frame().index), comparison.fold_scores().shape)
            """
        ),
        encoding="utf-8",
    )
    folder = tmp_path / "reports"
    folder.mkdir()
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stdout == "['petal alone', 'sepal alone'] (2, 2)\n", done.stderr
    assert "interrupted after 2 of 3 strategies" in done.stderr


class FailingOnAll(DummyClassifier):
    """Has the best scores, and fails on all rows of the data at once."""

    def __init__(self, error=ValueError):
        super().__init__()
        self.error = error

    def fit(self, X, y):
        if len(X) == 150:
            raise self.error("too many rows")
        return super().fit(X, y)

    def predict(self, X):
        iris = load_iris()
        return iris.target[(X[:, None] == iris.data).all(axis=2).argmax(axis=1)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_rows_are_kept_if_the_best_strategy_cannot_be_fitted_on_all_data(error):
    added = {"winner": FailingOnAll(error)}
    with pytest.warns(
        UserWarning, match=rf"fit the best strategy 'winner' on all data \({error.__name__}\('too many rows'"
    ):
        comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, extra=added)
    assert comparison.best_strategy_ == "winner"
    assert (comparison.to_frame()["error"] == "").all()
    assert len(comparison.rows) == 4
    assert not hasattr(comparison, "best_estimator_")


def test_an_error_on_all_data_can_be_raised():
    with pytest.raises(ValueError, match="too many rows") as caught:
        compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, extra={"winner": FailingOnAll()}, on_error="raise")
    assert caught.value.__notes__ == ["This happened in the strategy 'winner', as it was fitted on all data."]


def test_interrupted_before_anything_is_finished():
    with pytest.raises(KeyboardInterrupt):
        compare_fusions(Failing(KeyboardInterrupt), X, y, modalities=IRIS, **FEW)


def test_groups_stay_together():
    seen = []

    class Spy(DummyClassifier):
        def fit(self, X, y):
            seen.append(set(X[:, 0]))
            return super().fit(X, y)

    groups = np.arange(150) // 3 % 25
    data = np.column_stack([groups, X[:, 1:]])
    options = {"groups": groups, "levels": ("single",), "extra": {"spy": Spy()}, "refit": False}
    compare_fusions(CLASSIFIER, data, y, modalities=IRIS, cv=5, **options)
    # Each fold leaves whole groups out, each of them once.
    left_out = [set(groups) - rows for rows in seen]
    assert sorted(group for fold in left_out for group in fold) == list(range(25))
    by_splitter = compare_fusions(CLASSIFIER, data, y, modalities=IRIS, cv=GroupKFold(5), **options)
    assert len(by_splitter.fold_scores()) == 5


class Recording(ClassifierMixin, BaseEstimator):
    """Records the first column and the groups of the rows that come to ``fit``."""

    seen = []

    def __init__(self, strength=1):
        self.strength = strength

    def fit(self, X, y, *, groups=None):
        Recording.seen.append((X[:, 0], groups))
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def after_a_step(estimator):
    return make_pipeline(FunctionTransformer(), estimator)


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (Recording(), {}),
        (after_a_step(Recording()), {}),
        (after_a_step(after_a_step(Recording())), {}),
        (after_a_step(GridSearchCV(Recording(), {"strength": [1, 2]}, cv=GroupKFold(2))), {}),
        (Recording(), {"strength": [1, 2]}),
        (after_a_step(Recording()), {"recording__strength": [1, 2]}),
    ],
    ids=["alone", "pipeline", "pipelines", "search in a pipeline", "tuned", "pipeline tuned"],
)
def test_groups_come_to_every_estimator_that_takes_them(estimator, grid):
    groups = np.arange(150) // 3
    data = np.column_stack([np.arange(150), X[:, 1:]])
    Recording.seen.clear()
    compare_fusions(
        CLASSIFIER,
        data,
        y,
        modalities=IRIS,
        levels=("single",),
        extra={"records": estimator},
        groups=groups,
        param_grids={"records": grid},
        cv=2,
        on_error="raise",
    )
    assert len(Recording.seen) >= 2
    for rows, received in Recording.seen:
        assert received.tolist() == groups[rows.astype(int)].tolist()


@pytest.mark.parametrize("grid", [{}, {"n_estimators": [2, 3]}], ids=["plain", "tuned"])
def test_groups_beside_estimators_that_cannot_be_asked(grid):
    estimator = AdaBoostClassifier(n_estimators=2)
    comparison = compare_fusions(
        CLASSIFIER,
        X,
        y,
        modalities=IRIS,
        levels=("single",),
        extra={"boosted": estimator, "in a pipeline": make_pipeline(StandardScaler(), estimator)},
        groups=np.arange(150) // 3,
        param_grids={"boosted": grid},
        inner_cv=GroupKFold(2),
        cv=2,
        on_error="raise",
    )
    assert comparison.to_frame().loc["boosted", "mean"] > 0.5


@pytest.mark.parametrize("groups", [None, np.arange(150) % 30], ids=["rows", "groups"])
@pytest.mark.filterwarnings("ignore:The groups parameter is ignored")
def test_nested_search(groups):
    cv = StratifiedKFold(3) if groups is None else StratifiedGroupKFold(3)
    grid = {"fuse__fusion__n_components": [1, 2]}
    comparison = compare_fusions(
        CLASSIFIER,
        X,
        y,
        modalities=IRIS,
        **SOME,
        groups=groups,
        cv=StratifiedKFold(3),
        inner_cv=cv,
        param_grids={"pca": grid},
    )
    search = GridSearchCV(strategy("pca"), grid, cv=cv)
    expected, chosen = [], []
    for train, test in StratifiedKFold(3).split(X, y):
        params = {} if groups is None else {"groups": groups[train]}
        fitted = clone(search).fit(X[train], y[train], **params)
        expected.append(fitted.score(X[test], y[test]))
        chosen.append(fitted.best_params_)
    assert comparison.fold_scores()["pca"].tolist() == expected
    assert comparison.chosen_params() == {"pca": chosen}


def test_ready_ranges_are_searched():
    options = {**SOME, "levels": ("single", "joint"), "scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"}
    options["exclude"] = ["pls", "kernel_cca", "average"]
    added = {"chance": (DummyClassifier(), {"strategy": ["prior", "uniform"]})}
    comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, param_grids="auto", extra=added, **options)
    chosen = comparison.chosen_params()
    assert set(chosen) == {"cca", "chance"}
    # The classes are equally frequent, which no training set is exactly.
    assert {params["strategy"] for params in chosen["chance"]} == {"uniform"}
    assert set(chosen["cca"][0]) == {"fuse__fusion__n_components", "fuse__fusion__output"}


def test_regression():
    data, target = load_diabetes(return_X_y=True)
    modalities = [("a", "passthrough", slice(0, 3)), ("b", "passthrough", slice(3, None))]
    levels = ("single", "feature", "decision")
    comparison = compare_fusions(Ridge(), data, target, modalities=modalities, levels=levels, scoring="r2", n_repeats=2)
    frame = comparison.to_frame()
    assert "lda" not in frame.index
    assert "vote_product" not in frame.index
    assert (frame["error"] == "").all()
    assert frame.loc["concat", "p"] < 0.05
    assert frame.loc["concat", "gain"] > 0
    assert len(comparison.fold_scores()) == 10


@pytest.mark.parametrize("library", [pd, pl])
def test_data_frames_with_text_and_gaps(library):
    levels = ("single", "feature", "joint", "decision")
    rng = np.random.default_rng(0)
    target = np.array(["no", "yes"])[np.arange(60) % 2]
    words = ["red fox" if label == "yes" else "grey hen" for label in target]
    frame = library.DataFrame({"caption": [None if i % 5 == 0 else word for i, word in enumerate(words)]})
    weight = (np.arange(60) % 2 + rng.normal(size=60)).tolist()
    frame = frame.assign(weight=weight) if library is pd else frame.with_columns(pl.Series("weight", weight))
    modalities = [("text", TfidfVectorizer(), "caption"), ("table", StandardScaler(), ["weight"])]
    comparison = compare_fusions(
        LogisticRegression(class_weight="balanced"), frame, target, modalities=modalities, levels=levels, cv=2
    )
    table = comparison.to_frame()
    assert (table["error"] == "").all()
    assert set(comparison.best_estimator_.predict(frame)) == {"no", "yes"}
    assert table.loc["stack", "mean"] > table.loc["table alone", "mean"]


def test_items_of_glyphs(glyphs):
    X, scripts = glyphs.data, glyphs.target
    modalities = [("text", TfidfVectorizer(), "text"), ("image", ImageDescriptor("hog", size=32), "image")]
    options = {"levels": ("single", "feature"), "scoring": "balanced_accuracy", "cv": 3, "refit": False}
    options["exclude"] = ["product", "kernel", "pca", "lda"]
    frame = compare_fusions(
        LogisticRegression(class_weight="balanced"), X, scripts, modalities=modalities, **options
    ).to_frame()
    assert (frame["error"] == "").all()
    assert (frame["mean"] > 2 / 12).all()
    assert frame.loc["concat", "gain"] > 0


class CountingEncoder(TextEncoder):
    """Counts the rows that go through the network."""

    rows = 0

    def _encode_batch(self, batch, model):
        CountingEncoder.rows += len(batch)
        return super()._encode_batch(batch, model)


def test_no_item_is_encoded_twice(tiny_text_model, glyphs):
    X, scripts = glyphs.data, glyphs.target
    modalities = [("text", CountingEncoder(tiny_text_model), "text"), ("other", TfidfVectorizer(), "text")]
    CountingEncoder.rows = 0
    # Scripts of five characters are too few for the folds of a stacker.
    options = {**SOME, "exclude": [*SOME["exclude"], "stack"], "cv": 2}
    frame = compare_fusions(CLASSIFIER, X, scripts, modalities=modalities, **options).to_frame()
    assert (frame["error"] == "").all()
    assert CountingEncoder.rows == X["text"].nunique()


@pytest.mark.slow
def test_processes_give_the_same():
    one = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW)
    two = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, n_jobs=2)
    assert one.fold_scores().equals(two.fold_scores())


def test_progress_and_pickling(capsys):
    comparison = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **FEW, verbose=True)
    assert "15/15" in capsys.readouterr().err
    back = pickle.loads(pickle.dumps(comparison))
    assert back.to_frame().equals(comparison.to_frame())
    check_is_fitted(back.best_estimator_)


def test_without_single_modalities_there_are_no_gains():
    frame = compare_fusions(CLASSIFIER, X, y, modalities=IRIS, levels=("feature",)).to_frame()
    assert frame["gain"].isna().all()
    assert frame["verdict"].tolist() == [""] * 5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cv": StratifiedKFold(5), "n_repeats": 2}, ValueError, "n_repeats=2 needs a number of folds as cv"),
        (
            {"cv": [(np.arange(100), np.arange(100, 150))]},
            ValueError,
            "at least 2 splits to compare scores over, got 1",
        ),
        ({"param_grids": {"pcaa": {}}}, ValueError, r"\['pcaa'\] are not among the strategies"),
        ({"refit": "f1"}, ValueError, r"refit='f1' is not among the scorers \['score'\]; pass one of these, or True"),
        ({"refit": "f1", "scoring": ["accuracy"]}, ValueError, r"refit='f1' is not among the scorers \['accuracy'\]"),
        ({"confidence": 1}, ValueError, "'confidence' parameter"),
        ({"on_error": "ignore"}, ValueError, "'on_error' parameter"),
        ({"groups": [0, 1]}, ValueError, "inconsistent numbers of samples"),
        ({"levels": ("none",)}, ValueError, "levels must be a sequence of"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        compare_fusions(CLASSIFIER, X, y, modalities=IRIS, **options)


def test_a_single_modality_with_the_wrong_penalty_is_told():
    random = np.random.default_rng(0)
    y = np.arange(120) % 2
    X = np.column_stack([y[:, None] / 4 + random.normal(size=(120, 60)), random.normal(size=(120, 60))])
    modalities = [("wide", "passthrough", slice(0, 60)), ("noise", "passthrough", slice(60, 120))]
    options = {"modalities": modalities, "levels": ("single",), "refit": False, "scoring": "neg_log_loss"}
    message = (
        r"'wide alone' has a mean neg_log_loss of -\d\.\d+ with C=10, and -\d\.\d+ with 1000: .*LogisticRegressionCV"
    )
    with pytest.warns(UserWarning, match=message):
        compare_fusions(LogisticRegression(C=1000, max_iter=2000), X, y, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        compare_fusions(LogisticRegression(C=0.03), X, y, **options)


def test_summary_says_what_follows():
    random = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = np.column_stack([y + random.normal(size=200), y + random.normal(size=200)])
    modalities = [("a", "passthrough", [0]), ("b", "passthrough", [1])]
    options = {"modalities": modalities, "levels": ("single", "feature"), "refit": False, "cv": 10}
    comparison = compare_fusions(LogisticRegression(), X, y, **options)
    text = comparison.summary()
    frame = comparison.to_frame()
    assert text.startswith("Mean score over 10 folds: ")
    best = frame[frame["level"] != "single"].iloc[0]
    assert f"The best fusion, {best.name!r}, has {best['mean']:.3f}, a gain of {best['gain']:+.3f} over" in text
    assert ("So fusion is worth it here" in text) == (best["verdict"] == "better")
    assert "Fusion, 'concat', has" in comparison.summary(strategy="concat")
    assert text.partition(".")[0] in comparison.to_html()


def test_one_score_for_all_strategies():
    # By itself, a search scores by its own loss, and a voter of its results by accuracy.
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, scoring="neg_log_loss", cv=2)
    options = {
        "modalities": IRIS,
        "levels": ("single", "decision"),
        "exclude": ["stack", "vote_weighted", "vote_product"],
        "cv": 2,
        "refit": False,
    }
    comparison = compare_fusions(search, X, y, **options)
    assert (comparison.fold_scores() >= 0).all(axis=None)
    named = compare_fusions(search, X, y, scoring="accuracy", **options)
    assert_array_equal(comparison.fold_scores(), named.fold_scores())


def test_unreadable_items_are_told_of_once(tiny_image_model):
    pictures = list(np.random.RandomState(0).randint(256, size=(24, 8, 8, 3), dtype=np.uint8))
    pictures[3] = pictures[17] = b"no picture"
    X = pd.DataFrame({"picture": pd.Series(pictures, dtype=object), "size": np.arange(24.0) % 7})
    modalities = [
        ("image", ImageEncoder(tiny_image_model, on_error="missing"), "picture"),
        ("table", "passthrough", ["size"]),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compare_fusions(
            LogisticRegression(), X, np.arange(24) % 2, modalities=modalities, cv=2, levels=("single", "feature")
        )
    messages = [str(warning.message) for warning in caught if "could not be encoded" in str(warning.message)]
    # In the training and test rows of one fold, and where the best strategy is fitted on all rows.
    assert 1 <= len(messages) <= 3


def pictures(n_copies):
    """90 random pictures, of which some are copies of others, and numbers."""
    random = np.random.default_rng(0)
    images = list(random.integers(256, size=(90, 12, 12), dtype=np.uint8))
    images[90 - n_copies :] = images[:n_copies]
    return pd.DataFrame({"image": pd.Series(images, dtype=object), "size": random.normal(size=90)}), np.arange(90) % 2


PICTURES = [("image", ImageDescriptor(), "image"), ("size", "passthrough", ["size"])]


class TestDuplicatesAcrossFolds:
    options = {"levels": ("single",), "refit": False, "cv": 3}

    def test_are_told(self):
        X, y = pictures(9)
        with pytest.warns(
            UserWarning, match=r"\d+% of the test rows are equal, or nearly so, .* \['image'\]"
        ) as caught:
            compare_fusions(CLASSIFIER, X, y, modalities=PICTURES, **self.options)
        assert any(warning.filename == __file__ for warning in caught)
        groups = find_duplicates(X, PICTURES, modality="image").groups
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*nearly so")
            compare_fusions(CLASSIFIER, X, y, modalities=PICTURES, groups=groups, **self.options)

    @pytest.mark.parametrize("case", ["none", "no store", "many rows", "a bad item"])
    def test_are_not_looked_for_or_not_found(self, case, monkeypatch):
        X, y = pictures(0 if case == "none" else 9)
        modalities = PICTURES
        if case == "no store":
            modalities = [("image", ImageDescriptor(store=None), "image"), PICTURES[1]]
        if case == "many rows":
            monkeypatch.setattr(_comparison, "_MOST_ROWS_FOR_DUPLICATES", 89)
        if case == "a bad item":
            X.at[4, "image"] = "no file"
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*nearly so")
            frame = compare_fusions(CLASSIFIER, X, y, modalities=modalities, **self.options).to_frame()
        assert frame.loc["size alone", "error"] == ""

    def test_cost_no_encoding(self, tmp_path):
        X, y = pictures(9)
        with EmbeddingStore(tmp_path) as store, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            modalities = [("image", ImageDescriptor(store=store), "image"), PICTURES[1]]
            compare_fusions(CLASSIFIER, X, y, modalities=modalities, **self.options)
            assert store.misses == 81
