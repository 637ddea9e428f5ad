"""Groups: what learns out of fold never learns from a row whose near-duplicate the member was fitted on."""

from contextlib import nullcontext

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedGroupKFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import (
    ModalityStackingClassifier,
    ModalityStackingRegressor,
    ModalityVotingClassifier,
    ModalityVotingRegressor,
)

N_GROUPS, SIZE = 40, 5
COPIES, SIGNAL = slice(0, 10), slice(10, 12)


@pytest.fixture
def duplicates():
    """Ten columns of noise that all rows of a group share, two columns of signal, classes by group."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(N_GROUPS), SIZE)
    y = (np.arange(N_GROUPS) % 2)[groups]
    noise = rng.normal(size=(N_GROUPS, 10))[groups] + 0.01 * rng.normal(size=(len(y), 10))
    signal = rng.normal(size=(len(y), 2)) + 0.8 * y[:, None]
    order = rng.permutation(len(y))
    return np.hstack([noise, signal])[order], y[order], groups[order]


class Witness:
    """A member that knows the groups of its rows, which are its column, and notes those it was asked about unseen."""

    def fit(self, X, y, sample_weight=None):
        self.groups_ = set(X[:, 0])
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.array([float(group in self.groups_) for group in X[:, 0]])


class WitnessClassifier(Witness, ClassifierMixin, BaseEstimator):
    """Says by its probability whether it has seen the group of a row."""

    def predict_proba(self, X):
        seen = super().predict(X)
        return np.column_stack([1 - seen, seen])

    def predict(self, X):
        return self.classes_[super().predict(X).astype(int)]


class WitnessRegressor(Witness, RegressorMixin, BaseEstimator):
    """Predicts 1 in a row whose group it has seen, else 0."""


class Spy(ClassifierMixin, BaseEstimator):
    """A final estimator that remembers what it was fitted on."""

    def fit(self, X, y):
        self.fit_X_, self.classes_ = X, np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


class SpyRegressor(RegressorMixin, BaseEstimator):
    """A final estimator that remembers what it was fitted on."""

    def fit(self, X, y):
        self.fit_X_ = X
        return self

    def predict(self, X):
        return np.zeros(len(X))


@pytest.mark.parametrize("cv", [None, 3])
def test_a_stacker_asks_members_about_groups_that_they_have_not_seen(duplicates, cv):
    _, y, groups = duplicates
    X = groups[:, None].astype(float)
    for stack in (
        ModalityStackingClassifier([("a", WitnessClassifier(), [0])], Spy(), cv=cv),
        ModalityStackingRegressor([("a", WitnessRegressor(), [0])], SpyRegressor(), cv=cv),
    ):
        assert stack.fit(X, y).final_estimator_.fit_X_.any()
        assert not stack.fit(X, y, groups=groups).final_estimator_.fit_X_.any()
        # By name as well.
        assert not stack.fit(X, y, groups=[f"speaker {group}" for group in groups]).final_estimator_.fit_X_.any()


def test_folds_are_those_of_scikit_learn(duplicates):
    X, y, groups = duplicates
    members = [("a", LogisticRegression(), COPIES), ("b", LogisticRegression(), SIGNAL)]
    ours = ModalityStackingClassifier(members, Spy(), cv=4).fit(X, y, groups=groups)
    stock = ModalityStackingClassifier(members, Spy(), cv=list(StratifiedGroupKFold(4).split(X, y, groups))).fit(X, y)
    assert_array_equal(ours.final_estimator_.fit_X_, stock.final_estimator_.fit_X_)
    members = [("a", Ridge(), COPIES), ("b", Ridge(), SIGNAL)]
    ours = ModalityVotingRegressor(members, weights="auto").fit(X, y, groups=groups)
    stock = ModalityVotingRegressor(members, weights="auto", cv=list(GroupKFold(5).split(X, y, groups))).fit(X, y)
    assert ours.weights_ == stock.weights_
    labels = np.column_stack([y, 1 - y])
    members = [("a", KNeighborsClassifier(), COPIES), ("b", KNeighborsClassifier(), SIGNAL)]
    ours = ModalityVotingClassifier(members, weights="auto").fit(X, labels, groups=groups)
    splits = list(GroupKFold(5).split(X, labels, groups))
    assert ours.weights_ == ModalityVotingClassifier(members, weights="auto", cv=splits).fit(X, labels).weights_


@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_weights_do_not_trust_a_member_that_knows_near_duplicates(duplicates, voting):
    X, y, groups = duplicates
    near = KNeighborsClassifier(3)
    vote = ModalityVotingClassifier([("copies", near, COPIES), ("signal", near, SIGNAL)], voting, weights="auto")
    assert vote.fit(X, y).weights_["copies"] > 0.9
    assert vote.fit(X, y, groups=groups).weights_["copies"] < 0.5
    near = KNeighborsRegressor(3)
    vote = ModalityVotingRegressor([("copies", near, COPIES), ("signal", near, SIGNAL)], weights="auto")
    assert vote.fit(X, y).weights_["copies"] > 0.9
    assert vote.fit(X, y, groups=groups).weights_["copies"] < 0.5


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_calibration_is_learned_from_other_groups(duplicates, method):
    X, y, groups = duplicates
    member = [("copies", KNeighborsClassifier(3), COPIES)]
    vote = ModalityVotingClassifier(member, calibration=method)
    # New rows of unseen groups: noise, of which a member can only be sure by mistake.
    new = np.random.default_rng(1).normal(size=X.shape)
    trusting, careful = (
        np.abs(vote.fit(X, y, groups=chosen).predict_proba(new)[:, 1] - 0.5).mean() for chosen in (None, groups)
    )
    assert trusting > 0.25
    assert careful < 0.7 * trusting


@pytest.fixture(params=["voter", "stacker"])
def composite(request):
    near = KNeighborsClassifier(3)
    members = [("copies", near, COPIES), ("signal", near, SIGNAL)]
    if request.param == "voter":
        return ModalityVotingClassifier(members, weights="auto")
    return ModalityStackingClassifier(members)


def trusts_copies(fitted):
    """Tell whether a fitted composite gives the member of the near-duplicates more weight than the other."""
    weights = list(fitted.weights_.values()) if hasattr(fitted, "weights_") else fitted.final_estimator_.coef_[0]
    return weights[0] > weights[1]


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_groups_reach_inner_folds_through_a_cross_validation(duplicates, composite, in_pipeline):
    X, y, groups = duplicates
    options = {"params": {"groups": groups}, "cv": GroupKFold(4), "error_score": "raise", "return_estimator": True}
    for requested in (None, True, False):
        with sklearn.config_context(enable_metadata_routing=True):
            if requested is not None:
                composite.set_fit_request(groups=requested)
            model = make_pipeline(StandardScaler(), composite) if in_pipeline else composite
            fitted = cross_validate(model, X, y, **options)["estimator"]
        assert {trusts_copies(model[-1] if in_pipeline else model) for model in fitted} == {requested is False}


def test_groups_reach_inner_folds_without_routing(duplicates, composite):
    X, y, groups = duplicates
    model = make_pipeline(StandardScaler(), composite)
    assert trusts_copies(model.fit(X, y)[-1])
    assert not trusts_copies(model.fit(X, y, **{f"{model.steps[-1][0]}__groups": groups})[-1])


def test_groups_reach_inner_folds_through_a_search(duplicates, composite):
    X, y, groups = duplicates
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(composite, {"signal__n_neighbors": [3, 9]}, cv=GroupKFold(4)).fit(X, y, groups=groups)
        assert not trusts_copies(search.best_estimator_)
        search.set_params(estimator=composite.set_fit_request(groups=False)).fit(X, y, groups=groups)
        assert trusts_copies(search.best_estimator_)


def test_groups_reach_a_composite_inside_another(duplicates):
    X, y, groups = duplicates
    near = KNeighborsClassifier(3)
    inner = ModalityVotingClassifier([("copies", near, COPIES), ("signal", near, SIGNAL)], weights="auto")
    outer = ModalityVotingClassifier([("all", inner, slice(0, None))])
    for routing in (False, True):
        with sklearn.config_context(enable_metadata_routing=routing):
            weights = outer.fit(X, y, groups=groups).named_modalities_["all"].weights_
        assert weights == inner.fit(X, y, groups=groups).weights_


class GroupNotes(TransformerMixin, BaseEstimator):
    """A transformer that learns from y, and notes in the class which groups each fit of it got."""

    fits = []

    def fit(self, X, y, groups=None):
        self.fits.append(None if groups is None else (len(X), np.array_equal(X[:, 0], groups)))
        return self

    def transform(self, X):
        return X

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


@pytest.mark.parametrize("routing", [False, True])
def test_groups_reach_a_passthrough(duplicates, routing):
    _, y, groups = duplicates
    X = groups[:, None].astype(float)
    GroupNotes.fits.clear()
    with sklearn.config_context(enable_metadata_routing=routing):
        notes = GroupNotes().set_fit_request(groups=True) if routing else GroupNotes()
        stack = ModalityStackingClassifier([("a", KNeighborsClassifier(), [0])], cv=4, passthrough=notes)
        stack.fit(X, y, groups=groups)
    assert [right for _, right in GroupNotes.fits] == [True] * 5
    assert [size for size, _ in GroupNotes.fits] == [200, 150, 150, 150, 150]


@pytest.mark.parametrize("routing", [False, True])
def test_a_splitter_gets_the_groups_and_others_go_their_way(duplicates, routing):
    X, y, groups = duplicates
    members = [("a", LogisticRegression(), COPIES), ("b", LogisticRegression(), SIGNAL)]
    explicit = ModalityStackingClassifier(members, Spy(), cv=list(GroupKFold(4).split(X, y, groups))).fit(X, y)
    with sklearn.config_context(enable_metadata_routing=routing):
        ours = ModalityStackingClassifier(members, Spy(), cv=GroupKFold(4)).fit(X, y, groups=groups)
        assert_array_equal(ours.final_estimator_.fit_X_, explicit.final_estimator_.fit_X_)
        plain = ModalityStackingClassifier(members, Spy(), cv=KFold(4))
        with pytest.warns(UserWarning, match="groups parameter is ignored") if not routing else nullcontext():
            plain.fit(X, y, groups=groups)
    expected = ModalityStackingClassifier(members, Spy(), cv=KFold(4)).fit(X, y)
    assert_array_equal(plain.final_estimator_.fit_X_, expected.final_estimator_.fit_X_)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.arange(200) % 3, "5 folds need at least 5 groups, got 3"),
        (np.arange(7), r"groups must have one entry for each of the 200 rows, got shape \(7,\)"),
        (np.zeros((200, 2)), r"got shape \(200, 2\)"),
    ],
)
def test_wrong_groups_get_one_clear_sentence(duplicates, composite, groups, message):
    X, y, _ = duplicates
    with pytest.raises(ValueError, match=message):
        composite.fit(X, y, groups=groups)
