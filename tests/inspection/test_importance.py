"""Importances of modalities: what is built into the data is found, by every method."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, get_scorer, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.svm import SVC

from skmm import ModalityFuser, ModalityVotingClassifier
from skmm.datasets import make_multimodal_classification, make_multimodal_xor
from skmm.inspection import modality_importance
from skmm.inspection._scoring import bootstrap_rows

METHODS = ["shapley", "ablation", "permutation"]


def fused(data, *steps):
    return make_pipeline(
        ModalityFuser([(name, "passthrough", columns) for name, columns in data.modalities.items()]), *steps
    )


def split_fit(estimator, data):
    half = len(data.y) // 2
    return estimator.fit(data.X[:half], data.y[:half]), data.X[half:], data.y[half:]


@pytest.fixture(scope="module")
def ranked():
    data = make_multimodal_classification(
        4000, n_modalities=3, shared=0, private=[1.0, 0.5, 0.75], n_noise=1, return_X_y=False, random_state=0
    )
    return split_fit(fused(data, LogisticRegression()), data)


@pytest.fixture(scope="module")
def small():
    data = make_multimodal_classification(120, n_modalities=3, missing_share=0.2, return_X_y=False, random_state=0)
    return split_fit(fused(data, LogisticRegression()), data)


@pytest.mark.parametrize("method", METHODS)
def test_ranks_as_built_and_noise_covers_zero(ranked, method):
    result = modality_importance(*ranked, method=method, random_state=0)
    assert result.modalities == ["a", "b", "c", "noise0"]
    a, b, c, noise = result.importances_mean
    assert a > c > b > 0.005
    assert abs(noise) <= 2 * result.importances_std[3]
    assert (result.importances_std[:3] * 2 < result.importances_mean[:3]).all()
    assert result.importances.shape == (4, 10)
    np.testing.assert_allclose(result.importances_std, result.importances.std(axis=1))
    assert result.full_score == ranked[0].score(*ranked[1:])
    assert (result.method, result.score_name) == (method, "accuracy")


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_is_redundant(method):
    data = make_multimodal_classification(
        1000, shared=0, private=[2, 1], n_redundant=1, return_X_y=False, random_state=0
    )
    # Each of the two alone is as good as both: a vote of trees that split on either.
    model = ModalityVotingClassifier(
        [(name, LogisticRegression(), columns) for name, columns in data.modalities.items()], weights=[2, 1, 2]
    )
    result = modality_importance(*split_fit(model, data), method=method, scoring="neg_log_loss", random_state=0)
    copies = result.interactions_mean[0, 2]
    assert copies < -2 * result.interactions_std[0, 2] < 0
    assert copies == result.interactions_mean.min()
    if method != "permutation":
        assert result.importances_mean[0] == pytest.approx(result.importances_mean[2])


@pytest.mark.parametrize("method", METHODS)
def test_xor_is_synergy(method):
    data = make_multimodal_xor(2000, n_noise=1, return_X_y=False, random_state=0)
    model = fused(data, PolynomialFeatures(2), LogisticRegression(C=0.01, max_iter=1000))
    result = modality_importance(*split_fit(model, data), method=method, random_state=0)
    assert result.full_score > 0.95
    # With two signs each alone is worth nothing, so their interaction is all there is above chance.
    assert result.interactions_mean[0, 1] == pytest.approx(result.full_score - 0.5, abs=0.05)
    assert np.abs(result.interactions_mean[2]).max() < 0.05
    if method == "shapley":
        np.testing.assert_allclose(result.importances_mean[:2], (result.full_score - 0.5) / 2, atol=0.03)


def test_shapley_shares_out_the_score_exactly(small):
    model, X, y = small
    blanked = X.mask(np.ones(X.shape, dtype=bool))
    for scoring in ("accuracy", "neg_log_loss", "roc_auc"):
        result = modality_importance(model, X, y, scoring=scoring, n_repeats=2, random_state=0)
        scorer = get_scorer(scoring)
        assert result.full_score == scorer(model, X, y)
        assert result.empty_score == scorer(model, blanked, y)
        assert result.importances_mean.sum() == pytest.approx(result.full_score - result.empty_score, abs=1e-12)


def test_shapley_is_the_mean_over_orders(small):
    model, X, y = small
    names = ["a", "b", "c"]

    def value(present):
        removed = [column for column in X if column[0] not in present]
        return model.score(X.assign(**dict.fromkeys(removed, np.nan)), y)

    expected = np.zeros(3)
    for order in itertools.permutations(range(3)):
        for k, i in enumerate(order):
            preceding = [names[j] for j in order[:k]]
            expected[i] += (value([*preceding, names[i]]) - value(preceding)) / 6
    result = modality_importance(model, X, y, n_repeats=2, random_state=0)
    np.testing.assert_allclose(result.importances_mean, expected, atol=1e-12)


def test_ablation_by_hand(small):
    model, X, y = small

    def without(*names):
        return model.score(X.assign(**{column: np.nan for column in X if column[0] in names}), y)

    result = modality_importance(model, X, y, method="ablation", random_state=0)
    full = model.score(X, y)
    np.testing.assert_allclose(result.importances_mean, [full - without(name) for name in "abc"], atol=1e-12)
    assert result.interactions_mean[0, 2] == pytest.approx(full - without("a") - without("c") + without("a", "c"))
    np.testing.assert_allclose(np.diag(result.interactions_mean), 0, atol=1e-12)
    np.testing.assert_array_equal(result.interactions_mean, result.interactions_mean.T)


def test_one_column_per_modality_is_permutation_importance():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = X @ [2, 1, 0]
    model = LinearRegression().fit(X, y)
    ours = modality_importance(
        model, X, y, modalities={"a": 0, "b": [1], "c": slice(2, 3)}, method="permutation", n_repeats=60, random_state=0
    )
    theirs = permutation_importance(model, X, y, n_repeats=60, random_state=1)
    error = 5 * np.hypot(ours.importances_std, theirs.importances_std) / np.sqrt(60)
    assert (np.abs(ours.importances_mean - theirs.importances_mean) <= error).all()
    assert ours.score_name == "r2"
    # What a linear model loses by shuffling a column is known: twice its share of the variance.
    np.testing.assert_allclose(ours.importances_mean, [8 / 5, 2 / 5, 0], atol=0.1)


def test_bootstrap_tells_the_error_of_a_score(ranked):
    model, X, y = ranked
    result = modality_importance(model, X, y, method="ablation", n_repeats=200, interactions=False, random_state=0)
    right = model.predict(X) == y
    blanked = X.assign(**{column: np.nan for column in X if column.startswith("a__")})
    gain = right.astype(float) - (model.predict(blanked) == y)
    assert result.importances_std[0] == pytest.approx(gain.std() / np.sqrt(len(y)), rel=0.2)
    assert result.interactions_mean is None


def test_bootstrap_keeps_classes_and_only_classes():
    y = np.repeat([0, 1, 2], [30, 9, 1])
    rng = np.random.RandomState(0)
    rows = bootstrap_rows(y, rng, classes=True)
    np.testing.assert_array_equal(y[rows], y)
    assert len(np.unique(rows)) < 40
    assert (y[bootstrap_rows(y, rng, classes=False)] != y).any()
    labels = np.eye(3, dtype=int)[y]
    assert (labels[bootstrap_rows(labels, rng, classes=True)] != labels).any()


def test_many_modalities_are_sampled(small):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 12))
    y = X[:, 0] + 0.5 * X[:, 1] > 0
    model = HistGradientBoostingClassifier(max_iter=30).fit(X[:200], y[:200])
    modalities = {f"m{i}": [i] for i in range(12)}
    result = modality_importance(
        model, X[200:], y[200:], modalities=modalities, max_coalitions=150, n_repeats=5, random_state=0
    )
    assert result.importances_mean.sum() == pytest.approx(result.full_score - result.empty_score)
    assert np.argsort(result.importances_mean)[::-1][:2].tolist() == [0, 1]


def test_scorers_share_answers(small):
    model, X, y = small
    scoring = {"acc": "accuracy", "loss": "neg_log_loss", "own": lambda m, X, y: -abs(m.predict(X) - y).mean() + 1}
    results = modality_importance(model, X, y, scoring=scoring, n_repeats=3, random_state=0)
    assert list(results) == ["acc", "loss", "own"]
    # Another way to the same number, by way of the estimator and X instead of recorded answers.
    np.testing.assert_allclose(results["acc"].importances, results["own"].importances, atol=1e-12)
    alone = modality_importance(model, X, y, scoring="neg_log_loss", n_repeats=3, random_state=0)
    np.testing.assert_array_equal(alone.importances, results["loss"].importances)
    assert list(modality_importance(model, X, y, scoring=["accuracy"], random_state=0)) == ["accuracy"]
    assert results["own"].score_name == "own"


class Counting(LogisticRegression):
    """Counts how often it is asked."""

    asked = 0

    def predict_proba(self, X):
        type(self).asked += 1
        return super().predict_proba(X)


def test_every_coalition_is_asked_once():
    data = make_multimodal_classification(60, n_modalities=3, return_X_y=False, random_state=0)
    model = fused(data, Counting()).fit(data.X, data.y)
    Counting.asked = 0
    modality_importance(model, data.X, data.y, scoring=["neg_log_loss", "roc_auc"], n_repeats=7)
    assert Counting.asked == 8


def test_default_score_is_the_estimators_own(small):
    model, X, y = small

    class Odd(BaseEstimator):
        def fit(self, X, y):
            return self

        def predict(self, X):
            return np.asarray(X)[:, 0]

        def score(self, X, y, sample_weight=None):
            return float(np.nansum(np.asarray(X)))

    result = modality_importance(Odd(), X, y, modalities={"a": ["a__0"]}, n_repeats=2)
    assert result.full_score == float(np.nansum(X))
    assert result.importances_mean[0] == pytest.approx(np.nansum(X["a__0"]))
    for scoring in ("neg_log_loss", None):
        search = GridSearchCV(model, {"logisticregression__C": [1.0]}, cv=2, scoring=scoring).fit(X, y)
        assert modality_importance(search, X, y, n_repeats=2).full_score == search.score(X, y)


def test_sample_weight(small):
    model, X, y = small
    weight = np.random.default_rng(0).integers(0, 3, len(y))
    repeated = np.repeat(np.arange(len(y)), weight)
    weighted = modality_importance(model, X, y, sample_weight=weight, scoring="neg_log_loss", random_state=0)
    plain = modality_importance(model, X.iloc[repeated], y[repeated], scoring="neg_log_loss", random_state=0)
    np.testing.assert_allclose(weighted.importances_mean, plain.importances_mean)
    np.testing.assert_allclose(weighted.interactions_mean, plain.interactions_mean, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_repeatable_and_the_same_in_parallel(small, method):
    first, second = (
        modality_importance(*small, method=method, n_jobs=n_jobs, random_state=3, n_repeats=3) for n_jobs in (None, 2)
    )
    np.testing.assert_array_equal(first.importances, second.importances)
    np.testing.assert_array_equal(first.interactions_std, second.interactions_std)
    other = modality_importance(*small, method=method, random_state=4, n_repeats=3)
    assert (other.importances != first.importances).any()


@pytest.mark.parametrize("method", METHODS)
def test_voters_are_quiet_without_any_modality(method, recwarn):
    data = make_multimodal_classification(60, return_X_y=False, random_state=0)
    vote = ModalityVotingClassifier(
        [(name, LogisticRegression(), columns) for name, columns in data.modalities.items()]
    )
    result = modality_importance(vote.fit(data.X, data.y), data.X, data.y, method=method, random_state=0)
    assert len(recwarn) == 0
    if method == "shapley":
        assert result.empty_score == 0.5


def test_X_and_estimator_stay_as_they_are(small):
    model, X, y = small
    copy, state = X.copy(deep=True), dict(vars(model))
    modality_importance(model, X, y, n_repeats=2)
    pd.testing.assert_frame_equal(X, copy)
    assert vars(model) == state


def test_an_estimator_that_cannot_do_without():
    data = make_multimodal_classification(60, return_X_y=False, random_state=0)
    model = SVC().fit(data.X, data.y)
    with pytest.raises(
        ValueError, match=r"SVC cannot predict with the modalities \['a'\] missing .*use method='permutation'"
    ):
        modality_importance(model, data.X, data.y, modalities=data.modalities, method="ablation")
    result = modality_importance(model, data.X, data.y, modalities=data.modalities, method="permutation")
    assert (result.importances_mean > 0).all()


def test_bad_arguments(small):
    model, X, y = small
    with pytest.raises(ValueError, match="'method' parameter"):
        modality_importance(model, X, y, method="loco")
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        modality_importance(model, X, y[:-1])
    with pytest.raises(ValueError, match="modalities must be a dict"):
        modality_importance(model, X, y, modalities={})
    with pytest.raises(ValueError, match="looks like it is a metric"):
        modality_importance(model, X, y, scoring=accuracy_score)
    with pytest.raises(ValueError, match="pos_label"):
        modality_importance(model, X, y, scoring=make_scorer(accuracy_score, response_method="predict", pos_label=9))
