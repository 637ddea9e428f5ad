"""ModalityVotingClassifier and ModalityVotingRegressor: oracles, parameters, outputs, metadata, errors."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, make_multilabel_classification
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier, VotingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict, cross_val_score
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import get_tags

from skmm import (
    ModalityFuser,
    ModalityStackingClassifier,
    ModalityStackingRegressor,
    ModalityVotingClassifier,
    ModalityVotingRegressor,
)

RULES = ("soft", "hard", "product", "max", "median", "rank")
ALL = slice(0, None)


def voter(**kwargs):
    return ModalityVotingClassifier(
        [
            ("text", make_pipeline(TfidfVectorizer(), MultinomialNB()), "caption"),
            ("table", LogisticRegression(), ["price", "weight"]),
        ],
        **kwargs,
    )


def halves(member=None):
    member = LogisticRegression(max_iter=500) if member is None else member
    return [("a", member, slice(0, 2)), ("b", member, slice(2, None))]


class Recorder(ClassifierMixin, BaseEstimator):
    """Remembers what it was fitted on and asked about; says the first class it saw."""

    def fit(self, X, y, sample_weight=None):
        self.fit_X_, self.fit_y_, self.fit_weight_ = X, y, sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        self.asked_X_ = X
        return np.eye(len(self.classes_))[np.zeros(len(X), dtype=int)]

    def predict(self, X):
        return self.classes_[np.zeros(len(X), dtype=int)]


class TestOracles:
    @pytest.mark.parametrize(
        ("voting", "member"),
        [("soft", LogisticRegression(max_iter=500)), ("soft", GaussianNB()), ("hard", LinearSVC()), ("hard", SVC())],
    )
    def test_one_modality_of_all_columns_is_a_voting_classifier(self, iris, voting, member):
        X, y = iris
        ours = ModalityVotingClassifier([("a", member, ALL)], voting).fit(X, y)
        stock = VotingClassifier([("a", member)], voting=voting).fit(X, y)
        assert_array_equal(ours.predict(X), stock.predict(X))
        if voting == "soft":
            assert_array_equal(ours.predict_proba(X), stock.predict_proba(X))
        assert_array_equal(ours.transform(X), stock.transform(X))

    @pytest.mark.parametrize("voting", ["soft", "hard"])
    def test_several_modalities_of_all_columns_are_a_voting_classifier(self, iris, voting):
        X, y = iris
        X = X + np.random.default_rng(0).normal(size=X.shape)
        members = {"a": LogisticRegression(max_iter=500), "b": GaussianNB(), "c": DecisionTreeClassifier(max_depth=2)}
        weights = [1, 2, 4]
        ours = ModalityVotingClassifier([(k, m, ALL) for k, m in members.items()], voting, weights=weights).fit(X, y)
        stock = VotingClassifier(list(members.items()), voting=voting, weights=weights).fit(X, y)
        assert_array_equal(ours.predict(X), stock.predict(X))
        if voting == "soft":
            assert_allclose(ours.predict_proba(X), stock.predict_proba(X))

    def test_a_regressor_of_all_columns_is_a_voting_regressor(self):
        X, y = load_diabetes(return_X_y=True)
        ours = ModalityVotingRegressor([("a", Ridge(), ALL)]).fit(X, y)
        assert_array_equal(ours.predict(X), VotingRegressor([("a", Ridge())]).fit(X, y).predict(X))
        members = {"a": Ridge(), "b": LinearRegression()}
        ours = ModalityVotingRegressor([(k, m, ALL) for k, m in members.items()], weights={"a": 3, "b": 1}).fit(X, y)
        stock = VotingRegressor(list(members.items()), weights=[3, 1]).fit(X, y)
        assert_allclose(ours.predict(X), stock.predict(X))
        assert_allclose(ours.transform(X), stock.transform(X))

    def test_product_is_bayes_rule_for_independent_gaussians(self):
        # Exact posteriors: members that know the densities of two classes with priors .3 and .7.
        means, prior = np.array([[0.0, 1.0], [2.0, -1.0]]), np.array([0.3, 0.7])

        class Density(ClassifierMixin, BaseEstimator):
            def __init__(self, column=0):
                self.column = column

            def fit(self, X, y):
                self.classes_ = np.unique(y)
                return self

            def predict_proba(self, X):
                p = prior * np.exp(-((X - means[:, self.column]) ** 2) / 2)
                return p / p.sum(axis=1, keepdims=True)

            def predict(self, X):
                return self.classes_[np.argmax(self.predict_proba(X), axis=1)]

        rng = np.random.default_rng(0)
        y = np.repeat([0, 1], [300, 700])
        X = means[y] + rng.normal(size=(1000, 2))
        ours = ModalityVotingClassifier([("a", Density(0), [0]), ("b", Density(1), [1])], "product").fit(X, y)
        joint = prior * np.exp(-((X[:, None, :] - means) ** 2).sum(axis=2) / 2)
        assert_allclose(ours.predict_proba(X), joint / joint.sum(axis=1, keepdims=True), rtol=1e-9, atol=1e-12)
        # With a modality gone, Bayes' rule is what the other says.
        X[:, 1] = np.nan
        assert_allclose(ours.predict_proba(X), Density(0).fit(X, y).predict_proba(X[:, :1]), rtol=1e-9, atol=1e-12)

    def test_product_of_fitted_naive_bayes_is_naive_bayes(self, iris):
        X, y = iris
        ours = ModalityVotingClassifier(halves(GaussianNB()), "product").fit(X, y)
        # Where a probability falls below the floor of 2e-16, the product is not exact.
        assert_allclose(ours.predict_proba(X), GaussianNB().fit(X, y).predict_proba(X), atol=1e-3)
        assert_array_equal(ours.predict(X), GaussianNB().fit(X, y).predict(X))

    def test_product_corrects_for_modalities_missing_by_class(self):
        # The member of b sees class 1 in half of the rows, though it is 20 % of all: its own prior must go.
        rng = np.random.default_rng(0)
        y = (rng.random(20000) < 0.2).astype(int)
        X = y[:, None] * [1.0, 1.5] + rng.normal(size=(20000, 2))
        full = LinearDiscriminantAnalysis().fit(X, y).predict_proba(X)
        X_gone = X.copy()
        X_gone[(y == 0) & (rng.random(20000) < 0.75), 1] = np.nan
        members = [("a", LinearDiscriminantAnalysis(), [0]), ("b", LinearDiscriminantAnalysis(), [1])]
        out = ModalityVotingClassifier(members, "product").fit(X_gone, y).predict_proba(X)
        assert np.abs(out - full).mean() < 0.01
        assert np.abs(ModalityVotingClassifier(members).fit(X_gone, y).predict_proba(X) - full).mean() > 0.05

    @pytest.mark.parametrize("voting", ["soft", "max", "median", "rank"])
    def test_auto_weights_find_out_noise(self, voting):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, 2000)
        X = np.column_stack([y + rng.normal(size=2000), rng.normal(size=2000)])
        members = [("signal", LogisticRegression(), [0]), ("noise", HistGradientBoostingClassifier(max_iter=10), [1])]
        ours = ModalityVotingClassifier(members, voting, weights="auto").fit(X, y)
        assert ours.weights_["noise"] < 0.05
        assert_allclose(sum(ours.weights_.values()), 1)

    def test_auto_weights_of_two_equal_signals_are_even(self):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, 4000)
        X = y[:, None] + rng.normal(size=(4000, 2))
        for voting in ("soft", "hard", "product"):
            members = [("a", LogisticRegression(), [0]), ("b", LogisticRegression(), [1])]
            ours = ModalityVotingClassifier(members, voting, weights="auto").fit(X, y)
            assert_allclose(list(ours.weights_.values()), 0.5, atol=0.05)

    def test_auto_weights_find_out_noise_in_regression(self):
        rng = np.random.default_rng(0)
        y = rng.normal(size=(2000, 2))
        X = np.column_stack([y + rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2))])
        for target in (y, y[:, 0], y * [1, 1e4]):
            ours = ModalityVotingRegressor([("a", Ridge(), [0, 1]), ("b", Ridge(), [2, 3])], weights="auto")
            assert ours.fit(X, target).weights_["b"] < 0.05

    def test_auto_weights_of_regression_are_least_squares_on_the_simplex(self):
        X, y = load_diabetes(return_X_y=True)
        members = [("a", Ridge(), slice(0, 4)), ("b", Ridge(), slice(4, None))]
        ours = ModalityVotingRegressor(members, weights="auto", cv=KFold(5)).fit(X, y)
        a, b = (cross_val_predict(Ridge(), X[:, part], y, cv=KFold(5)) for _, _, part in members)
        share = np.clip(((a - b) @ (y - b)) / ((a - b) @ (a - b)), 0, 1)
        assert_allclose(list(ours.weights_.values()), [share, 1 - share], atol=1e-4)


class TestParameters:
    def test_weights_by_list_and_by_name(self, frame):
        X, y = frame
        by_list = voter(weights=[1, 3]).fit(X, y)
        by_name = voter(weights={"table": 3, "text": 1}).fit(X, y)
        assert by_list.weights_ == {"text": 0.25, "table": 0.75}
        assert_array_equal(by_name.predict_proba(X), by_list.predict_proba(X))
        dropped = voter(weights=[1, 3]).set_params(table="drop").fit(X, y)
        assert dropped.weights_ == {"text": 1}
        assert list(dropped.named_modalities_) == ["text"]

    def test_drop_leaves_a_member_out(self, frame):
        X, y = frame
        ours = voter().set_params(text="drop").fit(X, y)
        alone = LogisticRegression().fit(X[["price", "weight"]], y)
        assert_array_equal(ours.predict_proba(X), alone.predict_proba(X[["price", "weight"]]))

    @pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
    def test_calibration_is_scikit_learns(self, iris, method):
        X, y = iris
        ours = ModalityVotingClassifier([("a", LinearSVC(random_state=0), ALL)], calibration=method).fit(X, y)
        stock = CalibratedClassifierCV(LinearSVC(random_state=0), method=method, cv=5).fit(X, y)
        assert_array_equal(ours.predict_proba(X), stock.predict_proba(X))

    def test_calibration_by_name(self, iris):
        X, y = iris
        ours = ModalityVotingClassifier(halves(), calibration={"b": "sigmoid"}).fit(X, y)
        assert isinstance(ours.named_modalities_.a, LogisticRegression)
        assert isinstance(ours.named_modalities_.b, CalibratedClassifierCV)

    def test_calibration_with_rare_classes(self, iris):
        X, y = iris
        few = np.r_[:50, 50:53, 100:101]
        ours = ModalityVotingClassifier(halves(), calibration="sigmoid")
        with pytest.warns(UserWarning, match="least populated class"):
            ours.fit(X[few], y[few])
        assert np.isfinite(ours.predict_proba(X)).all()
        tempered = ModalityVotingClassifier(halves(), calibration="temperature")
        with pytest.warns(UserWarning, match=r"'a' has only one row of each of the classes \['virginica'\]") as caught:
            tempered.fit(X[few], y[few])
        assert sum("calibration='temperature'" in str(warning.message) for warning in caught) == 1
        assert_array_equal(tempered.predict_proba(X), ours.predict_proba(X))

    def test_temperature_falls_back_for_the_member_with_a_single_row_alone(self, iris):
        X, y = iris
        X[np.flatnonzero(y == "virginica")[1:], :2] = np.nan
        ours = ModalityVotingClassifier(halves(), calibration="temperature", weights="auto", cv=3)
        with pytest.warns(UserWarning, match="such a member is calibrated by 'sigmoid'") as caught:
            ours.fit(X, y)
        (message,) = (str(warning.message) for warning in caught if "temperature" in str(warning.message))
        assert "modality 'a' has only one row" in message
        assert "'b'" not in message
        methods = {name: member.method for name, member in ours.named_modalities_.items()}
        assert methods == {"a": "sigmoid", "b": "temperature"}

    def test_nested_parameters_and_clone(self, frame):
        X, y = frame
        ours = voter().set_params(text__multinomialnb__alpha=0.5, table__C=0.1, voting="product", weights=[1, 2])
        assert ours.get_params()["text__multinomialnb__alpha"] == 0.5
        copy = clone(ours)
        assert copy.get_params()["table__C"] == 0.1
        assert_array_equal(copy.fit(X, y).predict(X), ours.fit(X, y).predict(X))
        for _, member, _ in ours.modalities:
            with pytest.raises(NotFittedError):
                sklearn.utils.validation.check_is_fitted(member)

    @pytest.mark.parametrize("weights", [None, "auto"])
    def test_pickle_and_n_jobs(self, frame, weights):
        X, y = frame
        X.loc[X.index[::5], "caption"] = None
        ours = voter(weights=weights).fit(X, y)
        assert_array_equal(pickle.loads(pickle.dumps(ours)).predict_proba(X), ours.predict_proba(X))
        assert_array_equal(voter(weights=weights, n_jobs=2).fit(X, y).predict_proba(X), ours.predict_proba(X))

    def test_n_jobs_shares_the_data(self):
        X, y = np.random.default_rng(0).normal(size=(50, 4)), np.arange(50) % 2
        ours = ModalityVotingClassifier(halves(Recorder()), n_jobs=2).fit(X, y)
        for _, member, _ in ours.modalities_:
            assert np.shares_memory(member.fit_X_, X)

    def test_the_same_columns_twice_with_different_members(self, iris):
        X, y = iris
        ours = ModalityVotingClassifier([("a", GaussianNB(), [0]), ("b", QuadraticDiscriminantAnalysis(), [0])])
        assert ours.fit(X, y).transform(X).shape == (150, 6)

    def test_members_may_be_composites(self, frame):
        X, y = frame
        fused = make_pipeline(
            ModalityFuser([("x", StandardScaler(), ["price"]), ("y", StandardScaler(), ["weight"])]), GaussianNB()
        )
        inner = ModalityVotingClassifier([("p", GaussianNB(), ["price"]), ("w", GaussianNB(), ["weight"])])
        both = ["price", "weight"]
        ours = ModalityVotingClassifier(
            [
                ("fused", fused, both),
                ("vote", inner, both),
                ("text", make_pipeline(TfidfVectorizer(), MultinomialNB()), "caption"),
            ]
        )
        assert ours.fit(X, y).score(X, y) > 0.8
        assert "vote__p__var_smoothing" in ours.get_params()

    def test_availability_of_predict_proba(self, frame):
        X, y = frame
        assert not hasattr(voter(voting="hard"), "predict_proba")
        assert hasattr(voter(), "predict_proba")
        assert not hasattr(voter(), "decision_function")
        assert hasattr(voter(voting="hard").fit(X, y).set_params(voting="max"), "predict_proba")


class TestOutputs:
    @pytest.mark.parametrize("container", ["pandas", "polars"])
    def test_set_output(self, frame, container):
        X, y = frame
        ours = voter().set_output(transform=container).fit(X, y)
        out = ours.transform(X)
        assert isinstance(out, {"pandas": pd.DataFrame, "polars": pl.DataFrame}[container])
        names = [f"{name}__{label}" for name in ("text", "table") for label in ("cat", "dog", "owl")]
        assert list(out.columns) == names == ours.get_feature_names_out().tolist()
        assert voter(voting="hard").fit(X, y).get_feature_names_out().tolist() == ["text", "table"]

    def test_pandas_polars_and_arrays_agree(self, frame):
        X, y = frame
        X.loc[X.index[::5], "caption"] = None
        X.loc[X.index[::7], ["price", "weight"]] = np.nan
        ours = voter().fit(X, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = ours.predict_proba(X)
            polars = pl.from_pandas(X)
            assert_allclose(voter().fit(polars, y).predict_proba(polars), expected)
            assert_allclose(ours.predict_proba(polars), expected)
            shuffled = X[["weight", "caption", "price"]].assign(more=1)
            assert_allclose(ours.predict_proba(shuffled), expected)

    def test_predict_by_modality(self, frame):
        X, y = frame
        X.loc[X.index[[0, 3]], "caption"] = None
        ours = voter().fit(X, y)
        out = ours.predict_by_modality(X)
        assert list(out.columns) == ["text", "table"]
        assert_array_equal(out.index, X.index)
        assert out["text"].isna().to_numpy().nonzero()[0].tolist() == [0, 3]
        kept = np.delete(np.arange(90), [0, 3])
        assert_array_equal(out["text"].iloc[kept], ours.named_modalities_.text.predict(X["caption"].iloc[kept]))
        assert_array_equal(out["table"], ours.named_modalities_.table.predict(X[["price", "weight"]]))

    def test_predict_by_modality_of_numbers_and_labels(self):
        X, y = load_diabetes(return_X_y=True)
        ours = ModalityVotingRegressor([("a", Ridge(), [0]), ("b", Ridge(), [1])]).fit(X, y)
        gone = X[:4].copy()
        gone[2, 1] = np.nan
        out = ours.predict_by_modality(gone)
        assert_allclose(out["a"], ours.modalities_[0][1].predict(X[:4, :1]))
        assert out["b"].isna().tolist() == [False, False, True, False]
        X, y = make_multilabel_classification(50, 4, n_classes=2, random_state=0)
        ours = ModalityVotingClassifier(halves(DecisionTreeClassifier(max_depth=2))).fit(X, y)
        out = ours.predict_by_modality(X)
        assert_array_equal(out[["a__0", "a__1"]], ours.modalities_[0][1].predict(X[:, :2]))

    def test_diagram_has_one_column_per_modality(self, frame):
        html = voter()._repr_html_()
        for part in ("text", "caption", "TfidfVectorizer", "table", "LogisticRegression"):
            assert part in html
        assert html.count("sk-parallel-item") >= 2

    def test_verbose_says_which_modality(self, frame, capsys):
        voter(verbose=True, weights="auto", cv=3).fit(*frame)
        printed = capsys.readouterr().out
        assert printed.count("modality text") == 1
        assert "[ModalityVotingClassifier]" in printed


class TestMetadata:
    def test_weights_reach_members_without_routing(self, iris):
        X, y = iris
        weights = np.random.default_rng(0).random(150)
        ours = ModalityVotingClassifier(halves()).fit(X, y, sample_weight=weights)
        for (_, member, columns), (_, fitted, _) in zip(halves(), ours.modalities_, strict=True):
            assert_array_equal(fitted.coef_, member.fit(X[:, columns], y, sample_weight=weights).coef_)

    def test_weights_that_a_member_does_not_take_raise(self, frame):
        X, y = frame
        with pytest.raises(TypeError, match="'a', KNeighborsClassifier, does not take sample weights; use another"):
            ModalityVotingClassifier([("a", KNeighborsClassifier(), [1])]).fit(X, y, sample_weight=np.ones(90))

    @pytest.mark.parametrize("calibration", [None, "sigmoid"])
    def test_weights_are_routed_to_pipelines(self, frame, calibration):
        X, y = frame
        X.loc[X.index[:9], "caption"] = None
        weights = np.random.default_rng(0).random(90)
        with sklearn.config_context(enable_metadata_routing=True):
            text = make_pipeline(TfidfVectorizer(), MultinomialNB().set_fit_request(sample_weight=True))
            table = LogisticRegression().set_fit_request(sample_weight=False)
            ours = ModalityVotingClassifier(
                [("text", text, "caption"), ("table", table, ["price", "weight"])], calibration=calibration
            ).fit(X, y, sample_weight=weights)
            expected = clone(text)
            if calibration:
                expected = CalibratedClassifierCV(expected, method=calibration, cv=5)
            expected.fit(X["caption"][9:], y[9:], sample_weight=weights[9:])
        assert_allclose(
            ours.named_modalities_.text.predict_proba(X["caption"][9:]), expected.predict_proba(X["caption"][9:])
        )
        if not calibration:
            plain = LogisticRegression().fit(X[["price", "weight"]], y)
            assert_array_equal(ours.named_modalities_.table.coef_, plain.coef_)

    def test_weights_nobody_asked_for_raise_with_routing(self, iris):
        X, y = iris
        with (
            sklearn.config_context(enable_metadata_routing=True),
            pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"),
        ):
            ModalityVotingClassifier(halves()).fit(X, y, sample_weight=np.ones(150))

    def test_groups_reach_the_splitter_of_auto_weights(self, iris):
        X, y = iris
        groups = np.arange(150) % 7
        with sklearn.config_context(enable_metadata_routing=True):
            ours = ModalityVotingClassifier(halves(), weights="auto", cv=GroupKFold(3)).fit(X, y, groups=groups)
        explicit = list(GroupKFold(3).split(X, y, groups))
        expected = ModalityVotingClassifier(halves(), weights="auto", cv=explicit).fit(X, y)
        assert ours.weights_ == expected.weights_
        plain = ModalityVotingClassifier(halves(), weights="auto", cv=GroupKFold(3)).fit(X, y, groups=groups)
        assert plain.weights_ == expected.weights_

    def test_weights_weigh_the_learned_weights(self):
        # Where the signal is in column 0 for half of the rows and in column 1 for the others, weights decide.
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, 2000)
        first = np.arange(2000) % 2 == 0
        X = rng.normal(size=(2000, 2))
        X[first, 0] += 3 * y[first]
        X[~first, 1] += 3 * y[~first]
        ours = ModalityVotingClassifier(
            [("a", LogisticRegression(), [0]), ("b", LogisticRegression(), [1])], weights="auto", cv=KFold(4)
        )
        assert ours.fit(X, y, sample_weight=np.where(first, 1.0, 0.01)).weights_["a"] > 0.9
        assert ours.fit(X, y, sample_weight=np.where(first, 0.01, 1.0)).weights_["a"] < 0.1


class WithoutPredict(BaseEstimator):
    def fit(self, X, y):
        return self


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"weights": [1]}, ValueError, "one entry for each of the 2 modalities, got 1"),
        ({"weights": {"a": 1}}, ValueError, r"one entry for each of the modalities \['a', 'b'\], got {'a': 1}"),
        ({"weights": {"a": 1, "b": 1, "c": 1}}, ValueError, r"modalities \['a', 'b'\]"),
        ({"weights": [-1, 2]}, ValueError, "not negative"),
        ({"weights": [0, 0]}, ValueError, "sum above 0"),
        ({"weights": [np.nan, 1]}, ValueError, "finite"),
        ({"weights": [[1], [2]]}, TypeError, r"numbers, one for each modality, got \[\[1\], \[2\]\]"),
        ({"weights": {"a": "much", "b": 1}}, TypeError, "numbers, one for each modality, got {'a': 'much'"),
        ({"weights": "best"}, ValueError, "'weights' parameter of ModalityVotingClassifier must be"),
        ({"voting": "loud"}, ValueError, "'voting' parameter"),
        ({"calibration": {"c": "sigmoid"}}, ValueError, r"names among \['a', 'b'\] .* got {'c': 'sigmoid'}"),
        ({"calibration": {"a": "platt"}}, ValueError, "got {'a': 'platt'}"),
        ({"cv": KFold(3, shuffle=True).split(np.zeros(9)), "weights": "auto"}, ValueError, "exactly once"),
        ({"a": Ridge()}, ValueError, "'a' needs a classifier, got Ridge"),
        (
            {"a": LinearSVC()},
            TypeError,
            "'a' needs predict_proba for voting='soft', which LinearSVC does not have; set",
        ),
        ({"a": WithoutPredict()}, TypeError, r"'a' needs .* got WithoutPredict without \['predict'\]"),
        ({"a": "passthrough"}, ValueError, r"only strings it may be are \['drop'\]"),
        ({"a": "drop", "b": "drop"}, ValueError, "no modality to work on"),
        ({"modalities": [("weights", GaussianNB(), [0])]}, ValueError, "cannot be named 'weights'"),
        ({"modalities": [("a", GaussianNB(), [9])]}, ValueError, "n_features = 4"),
    ],
)
def test_wrong_parameters_get_one_clear_sentence(iris, parameters, error, message):
    ours = ModalityVotingClassifier(halves()).set_params(**parameters)
    with pytest.raises(error, match=message):
        ours.fit(*iris)


def test_wrong_targets_get_one_clear_sentence(iris):
    X, y = iris
    ours = ModalityVotingClassifier(halves())
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        ours.fit(X, X[:, 0] + 0.1234)
    with pytest.raises(
        ValueError, match=r"one column per label, got y of shape \(150, 2\) that is multiclass-multioutput"
    ):
        ours.fit(X, np.column_stack([np.arange(150) % 3, np.arange(150) % 3]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ours.fit(X, y[:-1])
    with pytest.raises(ValueError, match="calibration='sigmoid' of modality 'a' takes one class per row, got y with 2"):
        ModalityVotingClassifier(halves(DecisionTreeClassifier()), calibration="sigmoid").fit(
            X, np.column_stack([y == "setosa", y == "virginica"]).astype(int)
        )
    with pytest.raises(ValueError, match="'a' needs a regressor, got LogisticRegression"):
        ModalityVotingRegressor(halves()).fit(X, X[:, 0])


@pytest.mark.parametrize("values", [(-1, 1), (1, 2), (0, 2)])
@pytest.mark.parametrize("ours", [ModalityVotingClassifier, ModalityStackingClassifier], ids=lambda cls: cls.__name__)
def test_several_labels_are_0_and_1(iris, ours, values):
    X, y = iris
    labels = np.where(np.column_stack([y == "setosa", y == "virginica"]), values[1], values[0])
    low, high = values
    message = rf"several labels as a matrix of 0 and 1, got y with the values \[{low}, {high}\]; pass \(y == {high}\)"
    with pytest.raises(ValueError, match=message):
        ours(halves(DecisionTreeClassifier())).fit(X, labels)
    expected = ours(halves(DecisionTreeClassifier(random_state=0))).fit(X, (labels == high).astype(int)).predict(X)
    boolean = ours(halves(DecisionTreeClassifier(random_state=0))).fit(X, labels == high).predict(X)
    assert_array_equal(boolean, expected)


@pytest.mark.parametrize(
    "ours",
    [ModalityVotingClassifier, ModalityStackingClassifier, ModalityVotingRegressor, ModalityStackingRegressor],
    ids=lambda cls: cls.__name__,
)
def test_negative_weights_raise(iris, ours):
    X, y = iris
    weights = np.ones(150)
    weights[7] = -1
    member = LogisticRegression() if "Classifier" in ours.__name__ else Ridge()
    target = y if "Classifier" in ours.__name__ else X[:, 0]
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        ours(halves(member)).fit(X, target, sample_weight=weights)


def test_warnings_point_at_the_line_of_the_caller(frame):
    X, y = frame
    with pytest.warns(UserWarning, match="no row to be fitted on") as caught:
        vote = voter(weights="auto", n_jobs=2).fit(X.assign(caption=None), y)
    assert {warning.filename for warning in caught} == {__file__}
    gone = X.assign(caption=None, price=np.nan, weight=np.nan)
    for method in (vote.predict, vote.predict_proba, lambda X: vote.score(X, y)):
        with pytest.warns(UserWarning, match="no modality") as caught:
            method(gone)
        assert {warning.filename for warning in caught} == {__file__}
    with pytest.warns(UserWarning, match="no row to be fitted on") as caught:
        cross_val_score(voter(), X.assign(caption=None), y, cv=2)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("voting", ["soft", "hard", "product"])
def test_weights_learned_without_any_answer_are_equal(frame, voting):
    X, y = frame
    empty = X.assign(caption=None, price=np.nan, weight=np.nan)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vote = voter(voting=voting, weights="auto", cv=2).fit(empty, y)
    assert {warning.category for warning in caught} == {UserWarning}
    assert len(set(vote.weights_.values())) == 1


def test_errors_of_members_say_which_modality(iris):
    X, y = iris
    X[3, 2] = np.inf
    with pytest.raises(ValueError, match="infinity") as caught:
        ModalityVotingClassifier(halves()).fit(X, y)
    assert caught.value.__notes__ == ["This happened in modality 'b'."]


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "transform", "predict_by_modality", "get_feature_names_out"]
)
def test_unfitted(iris, method):
    with pytest.raises(NotFittedError):
        getattr(ModalityVotingClassifier(halves()), method)(iris[0])
    with pytest.raises(NotFittedError):
        _ = ModalityVotingRegressor(halves(Ridge())).named_modalities_


def test_tags_follow_the_members():
    def tags(member):
        return get_tags(ModalityVotingClassifier(halves(member)))

    assert tags(HistGradientBoostingClassifier()).input_tags.allow_nan
    assert not tags(LogisticRegression()).input_tags.allow_nan
    assert tags(DecisionTreeClassifier()).classifier_tags.multi_label
    assert not tags(LogisticRegression()).classifier_tags.multi_label
    assert get_tags(ModalityVotingRegressor(halves(Ridge()))).target_tags.multi_output
