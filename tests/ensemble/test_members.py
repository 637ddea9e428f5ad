"""Members of voters: abstention, constants, alignment of classes, several labels and outputs."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_diabetes, make_multilabel_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from skmm import ModalityFuser, ModalityStackingClassifier, ModalityVotingClassifier, ModalityVotingRegressor

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


class TestMissing:
    def test_members_never_see_rows_without_their_modality(self, frame):
        X, y = frame
        X.loc[X.index[[0, 4]], "caption"] = None
        X.loc[X.index[[4, 7]], ["price", "weight"]] = np.nan
        X.loc[X.index[9], "price"] = np.nan
        members = [("text", Recorder(), "caption"), ("table", Recorder(), ["price", "weight"])]
        weights = np.arange(90.0)
        ours = ModalityVotingClassifier(members).fit(X, y, sample_weight=weights)
        text, table = ours.named_modalities_.values()
        for member, gone in ((text, [0, 4]), (table, [4, 7])):
            assert_array_equal(member.fit_X_.index, np.delete(X.index, gone))
            assert_array_equal(member.fit_y_, np.delete(y, gone))
            assert_array_equal(member.fit_weight_, np.delete(weights, gone))
        with pytest.warns(UserWarning, match="1 of 10 rows have no modality"):
            ours.predict(X[:10])
        assert len(text.asked_X_) == len(table.asked_X_) == 8

    @pytest.mark.parametrize("voting", RULES)
    def test_the_others_decide_where_a_modality_is_missing(self, frame, voting):
        X, y = frame
        ours = voter(voting=voting).fit(X, y)
        gone = X.assign(caption=None)
        alone = LogisticRegression().fit(X[["price", "weight"]], y)
        assert_array_equal(ours.predict(gone), alone.predict(X[["price", "weight"]]))
        if voting in ("soft", "max", "median", "product"):
            assert_allclose(ours.predict_proba(gone), alone.predict_proba(X[["price", "weight"]]))

    @pytest.mark.parametrize("voting", RULES)
    def test_rows_are_independent_of_each_other(self, frame, voting):
        X, y = frame
        X.loc[X.index[::4], "caption"] = ""
        X.loc[X.index[::7], ["price", "weight"]] = np.nan
        ours = voter(voting=voting).fit(X, y)
        rows = [1, 4, 7, 50]
        assert_array_equal(ours.predict(X.iloc[rows]), ours.predict(X)[rows])

    @pytest.mark.parametrize("voting", RULES)
    def test_a_row_without_any_modality_gets_the_prior_and_one_warning(self, frame, voting):
        X, y = frame
        y = np.where(y == "owl", "dog", y)
        ours = voter(voting=voting).fit(X, y)
        gone = X.assign(caption=None, price=np.nan, weight=np.nan)[:3]
        with pytest.warns(UserWarning, match="3 of 3 rows have no modality") as caught:
            assert_array_equal(ours.predict(gone), ["dog"] * 3)
        assert len(caught) == 1
        if voting != "hard":
            with pytest.warns(UserWarning, match="no modality"):
                assert_allclose(ours.predict_proba(gone), np.tile([1 / 3, 2 / 3], (3, 1)))

    def test_the_prior_is_weighted(self, frame):
        X, y = frame
        ours = voter().set_params(text=Recorder(), table=Recorder()).fit(X, y, sample_weight=1.0 + 2 * (y == "owl"))
        with pytest.warns(UserWarning, match="no modality"):
            proba = ours.predict_proba(X.assign(caption=None, price=np.nan, weight=np.nan)[:1])
        assert_allclose(proba, [[0.2, 0.2, 0.6]])

    def test_a_regression_row_without_any_modality_gets_the_mean(self):
        X, y = load_diabetes(return_X_y=True)
        for target in (y, np.column_stack([y, -y])):
            ours = ModalityVotingRegressor([("a", Ridge(), [0, 1]), ("b", Ridge(), [2])]).fit(X, target)
            X_gone = X[:3].copy()
            X_gone[1] = np.nan
            with pytest.warns(UserWarning, match=r"1 of 3 rows have no modality; they are answered with the mean"):
                out = ours.predict(X_gone)
            assert_allclose(out[1], target.mean(axis=0))
            assert_allclose(out[[0, 2]], ours.predict(X[[0, 2]]))

    @pytest.mark.parametrize("voting", ["mean", "median"])
    def test_regressors_abstain(self, voting):
        X, y = load_diabetes(return_X_y=True)
        members = [("a", Ridge(), [0, 1]), ("b", Ridge(), [2]), ("c", Ridge(), [3])]
        ours = ModalityVotingRegressor(members, voting, weights=[1, 1, 2]).fit(X, y)
        gone = X.copy()
        gone[:, [2, 3]] = np.nan
        assert_allclose(ours.predict(gone), ours.modalities_[0][1].predict(X[:, :2]))

    def test_an_absent_member_is_a_constant_with_one_warning(self, frame):
        X, y = frame
        with pytest.warns(UserWarning, match="modality 'text' has no row to be fitted on") as caught:
            ours = voter().fit(X.assign(caption=None), y)
        assert len(caught) == 1
        assert_allclose(ours.transform(X)[:, :3], 1 / 3)
        with pytest.warns(UserWarning, match="'a' has no row"):
            ours = ModalityVotingRegressor([("a", Ridge(), [0]), ("b", Ridge(), [1])]).fit(
                [[np.nan, 1], [np.nan, 2]], [3, 5]
            )
        assert_allclose(ours.transform([[7, 1]])[0, 0], 4)

    def test_a_member_with_one_class_votes_for_it_with_one_warning(self, frame):
        X, y = frame
        X.loc[y != "cat", "caption"] = None
        with pytest.warns(UserWarning, match="modality 'text' has only one class to be fitted on") as caught:
            ours = voter().fit(X, y)
        assert len(caught) == 1
        assert_array_equal(ours.classes_, ["cat", "dog", "owl"])
        assert_array_equal(ours.transform(X[:1].assign(caption="hoot"))[0, :3], [1, 0, 0])

    def test_constant_members_in_folds_warn_once(self, frame):
        X, y = frame
        X.loc[X.index[60:], "caption"] = None
        X.loc[(y != "cat") & (X.index >= X.index[30]), "caption"] = None
        with pytest.warns(UserWarning, match="'text' has only one class to be fitted on in 1 of 3 folds") as caught:
            voter(weights="auto", cv=KFold(3)).fit(X, y)
        assert len(caught) == 1


class TestClasses:
    def test_a_class_missing_in_one_member_is_aligned(self, frame):
        X, y = frame
        X.loc[y == "cat", ["price", "weight"]] = np.nan
        ours = voter().fit(X, y)
        assert_array_equal(ours.named_modalities_.table.classes_, ["dog", "owl"])
        out = ours.transform(X[:6])
        table = LogisticRegression().fit(X.loc[y != "cat", ["price", "weight"]], y[y != "cat"])
        seen = X[:6].loc[y[:6] != "cat", ["price", "weight"]]
        assert_array_equal(out[y[:6] != "cat", 4:], table.predict_proba(seen))
        assert_array_equal(out[y[:6] != "cat", 3], 0)
        assert np.isnan(out[y[:6] == "cat", 3:]).all()
        assert ours.score(X, y) > 0.8

    @pytest.mark.parametrize("voting", RULES)
    @pytest.mark.parametrize("labels", [[0, 1, 2], [-3, 10, 11], ["a", "b", "c"], [0.0, 1.0, 2.0]])
    def test_labels_of_any_kind_decide_nothing(self, iris, voting, labels):
        X, y = iris
        X = X + np.random.default_rng(0).normal(size=X.shape)
        codes = np.unique(y, return_inverse=True)[1]
        expected = np.array(labels)[ModalityVotingClassifier(halves(), voting).fit(X, codes).predict(X)]
        assert_array_equal(
            ModalityVotingClassifier(halves(), voting).fit(X, np.array(labels)[codes]).predict(X), expected
        )

    def test_series_of_strings_as_target(self, iris):
        X, y = iris
        expected = ModalityVotingClassifier(halves()).fit(X, y).predict(X)
        for target in (pd.Series(y), pd.Series(y, dtype=object), pl.Series(y), list(y)):
            assert_array_equal(ModalityVotingClassifier(halves()).fit(X, target).predict(X), expected)

    @pytest.mark.parametrize("voting", RULES)
    def test_several_labels_are_decided_each_for_itself(self, voting):
        X, y = make_multilabel_classification(200, 6, n_classes=4, random_state=0)
        ours = ModalityVotingClassifier(halves(MultiOutputClassifier(LogisticRegression())), voting).fit(X, y)
        for label in range(4):
            alone = ModalityVotingClassifier(halves(LogisticRegression()), voting).fit(X, y[:, label])
            assert_array_equal(ours.predict(X)[:, label], alone.predict(X))
            if voting != "hard":
                assert_allclose(ours.predict_proba(X)[label], alone.predict_proba(X))
        assert [list(classes) for classes in ours.classes_] == [[0, 1]] * 4
        assert ours.get_feature_names_out().tolist() == [f"{name}__{label}" for name in "ab" for label in range(4)]

    def test_members_may_answer_several_labels_in_any_form(self):
        # Forests give a list of matrices, MLPs and one-vs-rest one matrix.
        X, y = make_multilabel_classification(200, 6, n_classes=3, random_state=0)
        members = [("a", RandomForestClassifier(5, random_state=0), ALL), ("b", OneVsRestClassifier(GaussianNB()), ALL)]
        out = ModalityVotingClassifier(members).fit(X, y).predict_proba(X)
        forest = RandomForestClassifier(5, random_state=0).fit(X, y).predict_proba(X)
        matrix = OneVsRestClassifier(GaussianNB()).fit(X, y).predict_proba(X)
        for label in range(3):
            assert_allclose(out[label][:, 1], (forest[label][:, 1] + matrix[:, label]) / 2)

    def test_several_labels_of_which_some_are_constant_for_a_member(self):
        X, y = make_multilabel_classification(200, 6, n_classes=3, random_state=0)
        X[y[:, 1] == 1, 3:] = np.nan
        member = MultiOutputClassifier(LogisticRegression())
        ours = ModalityVotingClassifier([("a", member, slice(0, 3)), ("b", member, slice(3, None))]).fit(X, y)
        present = y[:, 1] == 0
        out = ours.transform(X)[present]
        assert_array_equal(out[:, 4], 0)
        for label in (0, 2):
            expected = LogisticRegression().fit(X[present, 3:], y[present, label]).predict_proba(X[present, 3:])[:, 1]
            assert_allclose(out[:, 3 + label], expected)

    def test_several_labels_of_which_one_is_left_for_a_member(self):
        X, y = make_multilabel_classification(200, 6, n_classes=2, random_state=0)
        X[y[:, 1] == 1, 3:] = np.nan
        for member in (RandomForestClassifier(5, random_state=0), DecisionTreeClassifier(max_depth=2)):
            ours = ModalityVotingClassifier([("a", member, slice(0, 3)), ("b", member, slice(3, None))]).fit(X, y)
            present = y[:, 1] == 0
            out = ours.transform(X)[present]
            assert_array_equal(out[:, 3], 0)
            assert_array_equal(out[:, 2], ours.modalities_[1][1].predict_proba(X[present, 3:])[:, 1])

    def test_several_outputs_of_regression(self):
        X, y = load_diabetes(return_X_y=True)
        Y = np.column_stack([y, y**2])
        members = [("a", Ridge(), [0, 1]), ("b", Ridge(), [2])]
        for voting in ("mean", "median"):
            ours = ModalityVotingRegressor(members, voting).fit(X, Y)
            for output in range(2):
                single = ModalityVotingRegressor(members, voting).fit(X, Y[:, output])
                assert_allclose(ours.predict(X)[:, output], single.predict(X))
        assert ours.get_feature_names_out().tolist() == ["a__0", "a__1", "b__0", "b__1"]


def test_members_of_any_kind():
    """Trees on gaps, a neural network, a fuser with a classifier, and a voter, each as one member."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = y[:, None] + rng.normal(size=(80, 4))
    X[rng.random(X.shape) < 0.1] = np.nan
    frame = pd.DataFrame(X, columns=list("abcd"))
    fused = make_pipeline(ModalityFuser([("a", "passthrough", ["a"]), ("b", "passthrough", ["b"])]), GaussianNB())
    voter = ModalityVotingClassifier([("c", GaussianNB(), ["c"]), ("d", GaussianNB(), ["d"])])
    members = [
        ("trees", HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5), ["a", "b"]),
        ("net", MLPClassifier((8,), max_iter=500, random_state=0), ["c"]),
        ("fused", fused, ["a", "b"]),
        ("voter", voter, ["c", "d"]),
    ]
    for composite in (ModalityVotingClassifier(members), ModalityStackingClassifier(members, cv=3)):
        composite.fit(frame, y)
        assert composite.score(frame, y) > 0.75
        assert list(composite.predict_by_modality(frame).columns) == ["trees", "net", "fused", "voter"]
