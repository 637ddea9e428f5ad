"""ModalityStackingClassifier and ModalityStackingRegressor: oracles, leakage, missing rows, passthrough, metadata."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binom
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier, StackingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from skmm import LDAFusion, ModalityFuser, ModalityStackingClassifier, ModalityStackingRegressor, PCAFusion

ALL = slice(0, None)
LOGISTIC = LogisticRegression(max_iter=1000)


@pytest.fixture
def iris():
    X, y = load_iris(return_X_y=True)
    X = X + np.random.default_rng(0).normal(size=X.shape)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    y = np.array(["cat", "dog"])[np.arange(90) % 2]
    words = {"cat": ["meow", "fur", "red"], "dog": ["bark", "fur", "red"]}
    X = pd.DataFrame(
        {
            "caption": [" ".join(rng.choice(words[label], 3)) for label in y],
            "price": rng.normal(size=90) + (y == "dog"),
            "weight": rng.normal(size=90),
        }
    )
    return X, y


def stacker(final=None, **kwargs):
    text = make_pipeline(TfidfVectorizer(), MultinomialNB())
    return ModalityStackingClassifier(
        [("text", text, "caption"), ("table", LogisticRegression(), ["price", "weight"])], final, **kwargs
    )


def halves(first=LOGISTIC, second=LOGISTIC):
    return [("a", first, slice(0, 2)), ("b", second, slice(2, None))]


class Spy(ClassifierMixin, BaseEstimator):
    """A final estimator that remembers what it was fitted on."""

    def fit(self, X, y, sample_weight=None):
        self.fit_X_, self.fit_y_, self.fit_weight_ = X, y, sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


class TestOracles:
    @pytest.mark.parametrize("cv", [None, 3, StratifiedKFold(4, shuffle=True, random_state=0), KFold(5)])
    @pytest.mark.parametrize("passthrough", [False, True])
    @pytest.mark.parametrize("binary", [False, True])
    def test_one_modality_of_all_columns_is_a_stacking_classifier(self, iris, cv, passthrough, binary):
        X, y = iris
        # In an order in which plain folds hold all classes.
        order = np.random.default_rng(0).permutation(len(y))
        X, y = X[order], np.where(y == "setosa", "versicolor", y)[order] if binary else y[order]
        kwargs = {"cv": cv, "passthrough": passthrough, "final_estimator": LOGISTIC}
        ours = ModalityStackingClassifier([("a", LOGISTIC, ALL)], **kwargs).fit(X, y)
        stock = StackingClassifier([("a", LOGISTIC)], **kwargs).fit(X, y)
        assert_array_equal(ours.predict(X), stock.predict(X))
        for method in ("predict_proba", "decision_function", "transform"):
            assert_array_equal(getattr(ours, method)(X), getattr(stock, method)(X))
        assert_array_equal(ours.final_estimator_.coef_, stock.final_estimator_.coef_)

    @pytest.mark.parametrize("method", ["predict_proba", "decision_function", "predict"])
    def test_stack_methods_are_scikit_learns(self, iris, method):
        X, y = iris
        ours = ModalityStackingClassifier([("a", LOGISTIC, ALL)], LOGISTIC, stack_method=method).fit(X, y)
        stock = StackingClassifier([("a", LOGISTIC)], LOGISTIC, stack_method=method).fit(X, y)
        assert_array_equal(ours.transform(X), stock.transform(X))
        assert_array_equal(ours.predict_proba(X), stock.predict_proba(X))
        assert ours.stack_method_ == stock.stack_method_ == [method]

    def test_several_members_of_all_columns_are_a_stacking_classifier(self, iris):
        X, y = iris
        members = {"a": LOGISTIC, "b": LinearSVC(random_state=0), "c": DecisionTreeClassifier(random_state=0)}
        ours = ModalityStackingClassifier([(k, m, ALL) for k, m in members.items()], LOGISTIC).fit(X, y)
        stock = StackingClassifier(list(members.items()), LOGISTIC).fit(X, y)
        assert_array_equal(ours.predict_proba(X), stock.predict_proba(X))
        assert ours.stack_method_ == ["predict_proba", "decision_function", "predict_proba"]

    def test_weights_are_used_as_in_a_stacking_classifier(self, iris):
        X, y = iris
        weights = np.random.default_rng(0).random(150)
        ours = ModalityStackingClassifier([("a", LOGISTIC, ALL)], LOGISTIC).fit(X, y, sample_weight=weights)
        stock = StackingClassifier([("a", LOGISTIC)], LOGISTIC).fit(X, y, sample_weight=weights)
        assert_array_equal(ours.predict_proba(X), stock.predict_proba(X))

    def test_prefit_members_are_taken_as_in_a_stacking_classifier(self, iris):
        X, y = iris
        half = np.arange(150) % 2 == 0
        member = clone(LOGISTIC).fit(X[half], y[half])
        ours = ModalityStackingClassifier([("a", member, ALL)], LOGISTIC, cv="prefit").fit(X[~half], y[~half])
        # Its members see encoded classes, ours see the classes themselves.
        encoded = clone(LOGISTIC).fit(X[half], np.unique(y[half], return_inverse=True)[1])
        stock = StackingClassifier([("a", encoded)], LOGISTIC, cv="prefit").fit(X[~half], y[~half])
        assert_array_equal(ours.predict_proba(X), stock.predict_proba(X))
        assert ours.modalities_[0][1] is member

    @pytest.mark.parametrize("passthrough", [False, True])
    @pytest.mark.parametrize("final", [None, LinearRegression()])
    def test_one_modality_of_all_columns_is_a_stacking_regressor(self, passthrough, final):
        X, y = load_diabetes(return_X_y=True)
        ours = ModalityStackingRegressor([("a", Ridge(), ALL)], final, passthrough=passthrough).fit(X, y)
        final = final or make_pipeline(StandardScaler(), RidgeCV())
        stock = StackingRegressor([("a", Ridge())], final, passthrough=passthrough).fit(X, y)
        assert_array_equal(ours.predict(X), stock.predict(X))
        assert_array_equal(ours.transform(X), stock.transform(X))

    @pytest.mark.parametrize("passthrough", [False, True, StandardScaler()])
    @pytest.mark.parametrize("several", [False, True])
    def test_the_unit_of_a_target_makes_no_difference(self, passthrough, several):
        X, y = load_diabetes(return_X_y=True)
        y = (y - y.mean()) / y.std()
        y = np.column_stack([y, y**2]) if several else y
        members = [("a", LinearRegression(), slice(0, 4)), ("b", LinearRegression(), slice(4, None))]
        ours = ModalityStackingRegressor(members, passthrough=passthrough)
        expected = ours.fit(X, y, sample_weight=np.arange(len(y))).predict(X)
        for unit in (1e-6, 1e6):
            out = ours.fit(X, y * unit, sample_weight=np.arange(len(y))).predict(X) / unit
            assert_allclose(out, expected, rtol=1e-5, atol=1e-8)

    def test_weights_reach_the_default_final_regressor(self):
        X, y = load_diabetes(return_X_y=True)
        weights = np.random.default_rng(0).random(len(y))
        members = [("a", Ridge(), ALL)]
        ours = ModalityStackingRegressor(members).fit(X, y, sample_weight=weights)
        with sklearn.config_context(enable_metadata_routing=True):
            requesting = [("a", Ridge().set_fit_request(sample_weight=True), ALL)]
            routed = ModalityStackingRegressor(requesting).fit(X, y, sample_weight=weights)
        features = [
            Ridge().fit(X[train], y[train], weights[train]).predict(X[test]) for train, test in KFold(5).split(X)
        ]
        final = make_pipeline(StandardScaler(), RidgeCV())
        final.fit(
            np.concatenate(features)[:, None],
            y,
            standardscaler__sample_weight=weights,
            ridgecv__sample_weight=weights,
        )
        for stack in (ours, routed):
            assert_allclose(stack.predict(X), final.predict(Ridge().fit(X, y, weights).predict(X)[:, None]))

    def test_members_see_their_own_columns_out_of_fold(self, iris):
        X, y = iris
        ours = ModalityStackingClassifier(halves(), Spy(), cv=KFold(5, shuffle=True, random_state=0)).fit(X, y)
        cv = KFold(5, shuffle=True, random_state=0)
        expected = [
            cross_val_predict(LOGISTIC, X[:, part], y, cv=cv, method="predict_proba")
            for part in (slice(0, 2), slice(2, None))
        ]
        assert_array_equal(ours.final_estimator_.fit_X_, np.hstack(expected))
        assert_array_equal(ours.final_estimator_.fit_y_, y)

    @pytest.mark.parametrize("passthrough", [False, ModalityFuser(halves(StandardScaler(), StandardScaler()), "lda")])
    def test_permuted_labels_stay_at_chance(self, passthrough):
        # Members that know their training rows by heart: with in-sample answers the final estimator would trust them.
        rng = np.random.default_rng(0)
        n = 600
        X, y = rng.normal(size=(2 * n, 4)), rng.integers(0, 2, 2 * n)
        tree = DecisionTreeClassifier(random_state=0)
        ours = ModalityStackingClassifier(halves(tree, tree), Recall(), passthrough=passthrough).fit(X[:n], y[:n])
        # The final estimator sees answers that are no better than chance: within the central 99.9 % of the binomial.
        low, high = binom.ppf([0.0005, 0.9995], n, 0.5) / n
        seen = ours.final_estimator_
        for column in range(2):
            assert low <= np.mean((seen.fit_X_[:, column] > 0.5) == y[:n]) <= high
        if passthrough:
            guess = LogisticRegression().fit(X[:n], y[:n])
            assert guess.score(X[:n], y[:n]) > 0.5
            for column in range(2, seen.fit_X_.shape[1]):
                agreement = np.mean((seen.fit_X_[:, column] > 0) == y[:n])
                assert low <= agreement <= high
        final = ModalityStackingClassifier(halves(tree, tree), passthrough=passthrough).fit(X[:n], y[:n])
        assert low <= final.score(X[n:], y[n:]) <= high
        assert ours.modalities_[0][1].score(X[:n, :2], y[:n]) == 1


class Recall(Spy):
    """A spy of its own name, so that a failure says which test it belongs to."""


class TestMissing:
    def test_splits_are_made_once_and_cut_to_present_rows(self, frame):
        X, y = frame
        X.loc[X.index[::7], "caption"] = None
        cv = StratifiedKFold(3, shuffle=True, random_state=0)
        seen = stacker(Spy(), cv=cv).fit(X, y).final_estimator_.fit_X_
        present = X["caption"].notna().to_numpy()
        prior = np.mean(y[present] == "dog")
        expected = np.full(90, prior)
        for train, test in cv.split(X, y):
            train, test = train[present[train]], test[present[test]]
            member = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(X["caption"].iloc[train], y[train])
            expected[test] = member.predict_proba(X["caption"].iloc[test])[:, 1]
        assert_allclose(seen[:, 0], expected)
        assert_array_equal(seen[:, 2], ~present)
        table = cross_val_predict(LogisticRegression(), X[["price", "weight"]], y, cv=cv, method="predict_proba")
        assert_allclose(seen[:, 1], table[:, 1])

    def test_indicators_are_fixed_at_fit(self, frame):
        X, y = frame
        gone = X.assign(caption=X["caption"].where(X.index % 5 > 0, None))
        without, one = stacker().fit(X, y), stacker().fit(gone, y)
        assert without.get_feature_names_out().tolist() == ["text__dog", "table__dog"]
        assert one.get_feature_names_out().tolist() == ["text__dog", "table__dog", "missingindicator__text"]
        assert without.transform(gone).shape == (90, 2)
        assert_array_equal(without.transform(gone)[::5, 0], np.mean(y == "dog"))
        assert_array_equal(one.transform(X)[:, 2], 0)
        assert_array_equal(one.transform(gone)[:, 2], X.index % 5 == 0)

    def test_members_are_fitted_again_on_all_their_rows(self, frame):
        X, y = frame
        X.loc[X.index[:9], "caption"] = None
        ours = stacker().fit(X, y)
        text = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(X["caption"][9:], y[9:])
        assert_array_equal(
            ours.named_modalities_.text.predict_proba(X["caption"][9:]), text.predict_proba(X["caption"][9:])
        )

    @pytest.mark.parametrize("method", ["predict_proba", "decision_function", "predict"])
    def test_what_stands_for_an_abstention(self, iris, method):
        X, y = iris
        X[(y == "virginica") & (np.arange(150) % 3 > 0), :2] = np.nan
        present = ~np.isnan(X[:, 0])
        ours = ModalityStackingClassifier(halves(), Spy(), stack_method=method).fit(X, y)
        out = ours.transform(X)[~present]
        width = 1 if method == "predict" else 3
        frequencies = np.unique(y[present], return_counts=True)[1] / present.sum()
        expected = {
            "predict_proba": frequencies,
            "predict": np.argmax(frequencies),
            "decision_function": ours.final_estimator_.fit_X_[present, :3].mean(axis=0),
        }[method]
        assert_allclose(out[:, :width], np.broadcast_to(expected, (len(out), width)))

    def test_a_row_without_any_modality(self, frame):
        X, y = frame
        y = np.where(X.index % 9 == 0, "cat", y)
        X.loc[X.index[[1, 2]], ["price", "weight"]] = np.nan
        X.loc[X.index[[1, 2]], "caption"] = None
        weights = np.ones(90)
        text = HistGradientBoostingClassifier(max_iter=2)
        members = [("text", text, ["weight"]), ("table", LogisticRegression(), ["price"])]
        ours = ModalityStackingClassifier(members, Spy()).fit(X, y, sample_weight=weights)
        # It has nothing to teach the final estimator.
        assert len(ours.final_estimator_.fit_X_) == len(ours.final_estimator_.fit_weight_) == 88
        ours = stacker().fit(X, y)
        prior = [np.mean(y == "cat"), np.mean(y == "dog")]
        with pytest.warns(
            UserWarning, match="2 of 5 rows have no modality; they are answered with the class freq"
        ) as caught:
            proba = ours.predict_proba(X[:5])
        assert len(caught) == 1
        assert_allclose(proba[1:3], [prior, prior])
        with pytest.warns(UserWarning, match="no modality"):
            assert_array_equal(ours.predict(X[:5])[1:3], ["cat", "cat"])
        with pytest.warns(UserWarning, match="no modality"):
            assert_allclose(ours.decision_function(X[:5])[1:3], 2 * prior[1] - 1)

    def test_a_regression_row_without_any_modality(self):
        X, y = load_diabetes(return_X_y=True)
        for target in (y, np.column_stack([y, -y])):
            ours = ModalityStackingRegressor([("a", Ridge(), [0, 1]), ("b", Ridge(), [2])]).fit(X, target)
            gone = X[:3].copy()
            gone[1] = np.nan
            with pytest.warns(UserWarning, match="1 of 3 rows have no modality; they are answered with the mean"):
                out = ours.predict(gone)
            assert_allclose(out[1], target.mean(axis=0))
            assert_allclose(out[[0, 2]], ours.predict(X[[0, 2]]))

    def test_constant_members_are_aligned(self, iris):
        X, y = iris
        X[y != "virginica", :2] = np.nan
        with pytest.warns(UserWarning, match="'a' has only one class to be fitted on") as caught:
            ours = ModalityStackingClassifier(halves(), LOGISTIC).fit(X, y)
        assert len(caught) == 1
        assert_array_equal(ours.transform(X)[:, :3], np.tile([0, 0, 1], (150, 1)))
        assert_array_equal(ours.classes_, ["setosa", "versicolor", "virginica"])

    @pytest.mark.parametrize("method", ["predict_proba", "decision_function", "predict"])
    def test_a_class_missing_in_one_member_is_aligned(self, iris, method):
        X, y = iris
        X[y == "setosa", :2] = np.nan
        ours = ModalityStackingClassifier(halves(), LOGISTIC, stack_method=method).fit(X, y)
        seen = y != "setosa"
        out = ours.transform(X)[seen]
        answer = getattr(clone(LOGISTIC).fit(X[seen, :2], y[seen]), method)(X[seen, :2])
        if method == "predict":
            assert_array_equal(out[:, 0], np.where(answer == "versicolor", 1, 2))
        elif method == "predict_proba":
            assert_array_equal(out[:, :3], np.column_stack([np.zeros(len(answer)), answer]))
        else:
            assert_array_equal(out[:, :3], np.column_stack([-np.abs(answer), -answer, answer]))

    def test_classes_missing_in_a_fold_are_aligned(self, iris):
        X, y = iris
        # Unshuffled folds of sorted classes: each fold's training rows lack a class.
        ours = ModalityStackingClassifier(halves(), Spy(), cv=KFold(3)).fit(X, y)
        seen = ours.final_estimator_.fit_X_
        for fold in range(3):
            assert_array_equal(seen[50 * fold : 50 * (fold + 1), fold], 0)
        assert_allclose(seen[:, :3].sum(axis=1), 1)


class TestParameters:
    def test_passthrough_hands_on_numeric_columns_of_the_modalities(self, frame):
        X, y = frame
        X["id"] = np.arange(90)
        X.loc[X.index[3], "price"] = np.nan
        members = [("text", make_pipeline(TfidfVectorizer(), MultinomialNB()), "caption")]
        members.append(("table", HistGradientBoostingClassifier(max_iter=2), ["price", "weight"]))
        ours = ModalityStackingClassifier(members, passthrough=True).fit(X, y)
        assert ours.get_feature_names_out().tolist()[2:] == ["passthrough__price", "passthrough__weight"]
        out = ours.transform(X)
        assert_allclose(out[:, 2:], X[["price", "weight"]].fillna(X[["price", "weight"]].mean()))
        assert_allclose(ours.transform(pl.from_pandas(X)), out)
        assert_allclose(ours.transform(X[["id", "weight", "price", "caption"]]), out)
        objects = ModalityStackingClassifier(
            [("text", members[0][1], 0), ("table", make_pipeline(NumbersOnly(), members[1][1]), [1, 2])],
            passthrough=True,
        )
        assert_allclose(objects.fit(X.to_numpy(dtype=object), y).transform(X.to_numpy(dtype=object))[:, 2:], out[:, 2:])
        with pytest.raises(ValueError, match=r"none is numeric: \['caption'\]"):
            ModalityStackingClassifier(members[:1], passthrough=True).fit(X, y)

    def test_passthrough_of_fused_features(self, iris):
        X, y = iris
        fuser = ModalityFuser(halves(StandardScaler(), StandardScaler()), PCAFusion(1))
        ours = ModalityStackingClassifier(halves(), Spy(), passthrough=fuser).fit(X, y)
        expected = clone(fuser).fit_transform(X, y)
        assert_allclose(ours.final_estimator_.fit_X_[:, 6:], expected)
        assert_allclose(ours.transform(X)[:, 6:], expected)
        assert ours.get_feature_names_out().tolist()[6:] == ["passthrough__a__pcafusion0", "passthrough__b__pcafusion0"]
        assert "passthrough__fusion__n_components" in ours.get_params()

    def test_passthrough_of_a_transformer_that_needs_y_is_out_of_fold(self, iris):
        X, y = iris
        fuser = ModalityFuser(halves(StandardScaler(), StandardScaler()), LDAFusion())
        ours = ModalityStackingClassifier(halves(), Spy(), cv=KFold(3, shuffle=True, random_state=0), passthrough=fuser)
        seen = ours.fit(X, y).final_estimator_.fit_X_[:, 6:]
        train, test = next(KFold(3, shuffle=True, random_state=0).split(X))
        assert_allclose(seen[test], clone(fuser).fit(X[train], y[train]).transform(X[test]))
        assert_allclose(ours.transform(X)[:, 6:], clone(fuser).fit(X, y).transform(X))

    def test_regressors_as_members_get_positions_of_classes(self, iris):
        X, y = iris
        ours = ModalityStackingClassifier(halves(Ridge(), LOGISTIC)).fit(X, y)
        codes = np.unique(y, return_inverse=True)[1]
        assert_allclose(ours.transform(X)[:, 0], Ridge().fit(X[:, :2], codes).predict(X[:, :2]))
        assert ours.stack_method_ == ["predict", "predict_proba"]
        assert ours.get_feature_names_out().tolist()[:2] == ["a", "b__setosa"]
        gone = X.copy()
        gone[:, :2] = np.nan
        assert_allclose(ours.transform(gone)[:, 0], 1)
        assert_allclose(ours.predict_by_modality(X)["a"], ours.transform(X)[:, 0])

    @pytest.mark.parametrize("final", [None, DecisionTreeClassifier(max_depth=3, random_state=0)])
    @pytest.mark.parametrize(
        "member", [MultiOutputClassifier(LOGISTIC), OneVsRestClassifier(LOGISTIC), DecisionTreeClassifier(max_depth=2)]
    )
    def test_several_labels(self, final, member):
        X, y = make_multilabel_classification(200, 6, n_classes=3, random_state=0)
        X[::5, :2] = np.nan
        ours = ModalityStackingClassifier(halves(member, member), final).fit(X, y)
        assert ours.get_feature_names_out().tolist() == [
            *(f"{n}__{i}" for n in "ab" for i in range(3)),
            "missingindicator__a",
        ]
        assert ours.predict(X).shape == y.shape
        proba = ours.predict_proba(X)
        assert_array_equal(np.column_stack([p[:, 1] > 0.5 for p in proba]), ours.predict(X))
        assert ours.score(X, y) > 0.3
        gone = np.full((2, 6), np.nan)
        with pytest.warns(UserWarning, match="2 of 2 rows"):
            assert_array_equal(ours.predict(gone), np.tile(y.mean(axis=0) > 0.5, (2, 1)))

    def test_several_outputs_of_regression(self):
        X, y = load_diabetes(return_X_y=True)
        Y = np.column_stack([y, y**2])
        members = [("a", Ridge(), [0, 1]), ("b", Ridge(), [2])]
        ours = ModalityStackingRegressor(members, Spy2()).fit(X, Y)
        for output in range(2):
            single = ModalityStackingRegressor(members, Spy2()).fit(X, Y[:, output])
            assert_allclose(ours.final_estimator_.fit_X_[:, output::2], single.final_estimator_.fit_X_)
        assert ours.get_feature_names_out().tolist() == ["a__0", "a__1", "b__0", "b__1"]
        assert ModalityStackingRegressor(members).fit(X, Y).predict(X).shape == Y.shape

    def test_nested_parameters_clone_pickle_and_n_jobs(self, frame):
        X, y = frame
        X.loc[X.index[::6], "caption"] = None
        ours = stacker(LogisticRegression()).set_params(
            text__multinomialnb__alpha=0.3, final_estimator__C=0.1, table=GaussianNB()
        )
        assert ours.get_params()["text__multinomialnb__alpha"] == 0.3
        expected = clone(ours).fit(X, y).predict_proba(X)
        assert_array_equal(ours.fit(X, y).predict_proba(X), expected)
        assert_array_equal(pickle.loads(pickle.dumps(ours)).predict_proba(X), expected)
        assert_array_equal(clone(ours).set_params(n_jobs=2).fit(X, y).predict_proba(X), expected)
        assert ours.set_params(text="drop").fit(X, y).get_feature_names_out().tolist() == ["table__dog"]

    def test_availability_follows_the_final_estimator(self, frame):
        X, y = frame
        assert hasattr(stacker(), "predict_proba")
        assert hasattr(stacker(), "decision_function")
        assert not hasattr(stacker(LinearSVC()), "predict_proba")
        assert not hasattr(stacker(GaussianNB()).fit(X, y), "decision_function")

    @pytest.mark.parametrize("container", ["pandas", "polars"])
    def test_set_output(self, frame, container):
        X, y = frame
        X.loc[X.index[::6], "caption"] = None
        ours = stacker(passthrough=True).set_output(transform=container).fit(X, y)
        out = ours.transform(X)
        assert isinstance(out, {"pandas": pd.DataFrame, "polars": pl.DataFrame}[container])
        assert list(out.columns) == [
            *("text__dog", "table__dog", "missingindicator__text"),
            *("passthrough__price", "passthrough__weight"),
        ]

    def test_polars_and_pandas_agree(self, frame):
        X, y = frame
        X.loc[X.index[::6], "caption"] = None
        polars = pl.from_pandas(X)
        assert_allclose(stacker().fit(polars, y).predict_proba(polars), stacker().fit(X, y).predict_proba(X))

    def test_diagram_shows_members_and_final_estimator(self):
        html = stacker(RidgeCV())._repr_html_()
        for part in ("text", "caption", "TfidfVectorizer", "table", "final_estimator", "RidgeCV"):
            assert part in html
        assert "LogisticRegression" in stacker()._repr_html_()


class NumbersOnly(TransformerMixin, BaseEstimator):
    """Makes numbers of an array of objects."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X, dtype=float)

    def __sklearn_is_fitted__(self):
        return True


class Spy2(LinearRegression):
    """Remembers what it was fitted on."""

    def fit(self, X, y):
        self.fit_X_ = X
        return super().fit(X, y)


class TestMetadata:
    def test_groups_are_routed_to_the_splitter(self, iris):
        X, y = iris
        groups = np.arange(150) % 7
        with sklearn.config_context(enable_metadata_routing=True):
            ours = ModalityStackingClassifier(halves(), Spy(), cv=GroupKFold(3)).fit(X, y, groups=groups)
        explicit = list(GroupKFold(3).split(X, y, groups))
        expected = ModalityStackingClassifier(halves(), Spy(), cv=explicit).fit(X, y)
        assert_array_equal(ours.final_estimator_.fit_X_, expected.final_estimator_.fit_X_)
        plain = ModalityStackingClassifier(halves(), Spy(), cv=GroupKFold(3)).fit(X, y, groups=groups)
        assert_array_equal(plain.final_estimator_.fit_X_, expected.final_estimator_.fit_X_)

    def test_weights_are_routed_and_follow_present_rows(self, frame):
        X, y = frame
        X.loc[X.index[:9], "caption"] = None
        weights = np.random.default_rng(0).random(90)
        with sklearn.config_context(enable_metadata_routing=True):
            text = make_pipeline(TfidfVectorizer(), MultinomialNB().set_fit_request(sample_weight=True))
            table = LogisticRegression().set_fit_request(sample_weight=False)
            final = Spy().set_fit_request(sample_weight=True)
            ours = ModalityStackingClassifier(
                [("text", text, "caption"), ("table", table, ["price", "weight"])], final
            ).fit(X, y, sample_weight=weights)
            expected = clone(text).fit(X["caption"][9:], y[9:], sample_weight=weights[9:])
        assert_array_equal(ours.final_estimator_.fit_weight_, weights)
        caption = X["caption"][9:]
        assert_array_equal(ours.named_modalities_.text.predict_proba(caption), expected.predict_proba(caption))
        assert_array_equal(
            ours.named_modalities_.table.coef_, LogisticRegression().fit(X[["price", "weight"]], y).coef_
        )

    def test_weights_that_cannot_be_used_raise(self, frame):
        X, y = frame
        final = make_pipeline(StandardScaler(), KNeighborsClassifier())
        with pytest.raises(TypeError, match="final_estimator, KNeighborsClassifier, does not take sample weights"):
            stacker(final).set_params(text="drop").fit(X, y, sample_weight=np.ones(90))

    def test_metadata_is_routed_to_a_passthrough(self, iris):
        X, y = iris
        with sklearn.config_context(enable_metadata_routing=True):
            scaler = StandardScaler().set_fit_request(sample_weight=True)
            requesting = clone(LOGISTIC).set_fit_request(sample_weight=False)
            ours = ModalityStackingClassifier(halves(requesting, requesting), requesting, passthrough=scaler)
            weights = np.where(y == "setosa", 1.0, 0.0)
            ours.fit(X, y, sample_weight=weights)
        expected = StandardScaler().fit(X, sample_weight=weights).transform(X)
        assert_allclose(ours.transform(X)[:, 6:], expected)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"final_estimator": Ridge()}, ValueError, r"final_estimator must be a classifier, got Ridge\(\)"),
        ({"a": LinearSVC(), "stack_method": "predict_proba"}, ValueError, "'a' needs predict_proba .* use 'auto'"),
        ({"stack_method": "guess"}, ValueError, "'stack_method' parameter"),
        ({"cv": ShuffleSplit(3, random_state=0)}, ValueError, "leave out every row exactly once, as KFold does"),
        ({"cv": "loo"}, ValueError, "'cv' parameter"),
        ({"cv": "prefit"}, NotFittedError, "not fitted"),
        ({"passthrough": "all"}, ValueError, "'passthrough' parameter"),
        ({"a": "passthrough"}, ValueError, r"only strings it may be are \['drop'\]"),
        ({"modalities": [("final_estimator", LOGISTIC, [0])]}, ValueError, "cannot be named 'final_estimator'"),
    ],
)
def test_wrong_parameters_get_one_clear_sentence(iris, parameters, error, message):
    ours = ModalityStackingClassifier(halves()).set_params(**parameters)
    with pytest.raises(error, match=message):
        ours.fit(*iris)


def test_wrong_regressors_get_one_clear_sentence(iris):
    X, _ = iris
    with pytest.raises(ValueError, match="'a' needs a regressor, got LogisticRegression"):
        ModalityStackingRegressor(halves()).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="final_estimator must be a regressor, got LogisticRegression"):
        ModalityStackingRegressor(halves(Ridge(), Ridge()), LogisticRegression()).fit(X, X[:, 0])


def test_nothing_but_missing_rows(iris):
    X, y = iris
    with pytest.warns(UserWarning, match="no row"), pytest.raises(ValueError, match="all 150 rows have no modality"):
        ModalityStackingClassifier(halves()).fit(np.full(X.shape, np.nan), y)


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "decision_function", "transform", "predict_by_modality"]
)
def test_unfitted(iris, method):
    with pytest.raises(NotFittedError):
        getattr(ModalityStackingClassifier(halves()), method)(iris[0])
