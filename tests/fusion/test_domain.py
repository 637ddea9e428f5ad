"""Standardisation by domain, against scikit-learn's StandardScaler in each domain."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skmm import DomainScaler, ModalityFuser

RNG = np.random.default_rng(0)
FEATURES = ["a__0", "a__1", "b__0"]


def recordings(n=240, n_speakers=4, dtype=np.float64):
    """Return features in which each speaker has a shift and a scale, classes, and speakers."""
    rng = np.random.default_rng(1)
    y, speakers = np.arange(n) % 2, np.arange(n) // 2 % n_speakers
    X = rng.normal(size=(n, 3)) + np.column_stack([2 * y, y, -y])
    X = X * rng.uniform(0.3, 3, size=(n_speakers, 1))[speakers] + rng.normal(scale=20, size=(n_speakers, 3))[speakers]
    frame = pd.DataFrame(X.astype(dtype), columns=FEATURES)
    frame.insert(1, "speaker", np.array(["ann", "bob", "cy", "di"])[speakers])
    return frame, y, speakers


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_without_smoothing_each_domain_has_a_standard_scaler(dtype):
    X, _, _ = recordings(dtype=dtype)
    X.loc[RNG.random(len(X)) < 0.2, ["a__0", "a__1"]] = np.nan
    X["b__0"] = np.where(X["speaker"] == "bob", dtype(3.1), X["b__0"])
    seen, new = X[X["speaker"] != "di"], X[X["speaker"] != "ann"]
    scaler = DomainScaler("speaker", smooth=0).fit(seen)
    assert scaler.domains_ == ["ann", "bob", "cy"]
    for frame in (seen, new, seen[:5]):
        Z = scaler.transform(frame)
        assert Z.dtype == dtype
        for speaker, rows in frame.groupby("speaker").indices.items():
            reference = seen if speaker in scaler.domains_ else frame
            expected = StandardScaler().fit(reference.loc[reference["speaker"] == speaker, FEATURES].to_numpy())
            np.testing.assert_allclose(
                Z[rows],
                expected.transform(frame[FEATURES].to_numpy()[rows]),
                atol=1e-5 if dtype == np.float32 else 1e-9,
            )


def within(features, speakers):
    """Return the mean variance in domains."""
    return sum((speakers == name).sum() * features[speakers == name].var(axis=0) for name in set(speakers)) / len(
        speakers
    )


def test_smoothing_by_a_number_of_rows():
    X, _, _ = recordings()
    features, speakers = X[FEATURES].to_numpy(), X["speaker"].to_numpy()
    scaler = DomainScaler("speaker", smooth=20).fit(X)
    cy = features[speakers == "cy"]
    weight = len(cy) / (len(cy) + 20)
    np.testing.assert_allclose(scaler.means_[2], weight * cy.mean(axis=0) + (1 - weight) * features.mean(axis=0))
    variance = weight * cy.var(axis=0) + (1 - weight) * within(features, speakers)
    np.testing.assert_allclose(scaler.scales_[2], np.sqrt(variance))


def test_smoothing_is_estimated_from_the_spread_of_domains():
    rng = np.random.default_rng(0)
    n_domains, deviations = 4000, np.array([0.0, 2.0, 20.0])
    domains = np.repeat(np.arange(n_domains), 10)
    X = rng.normal(size=(n_domains, 3))[domains] * deviations + 2 * rng.normal(size=(len(domains), 3))
    scaler = DomainScaler(0).fit(np.column_stack([domains, X]))
    # Variance in domains over that of their means, 4 / 0, 4 / 4 and 4 / 400, and no more than 5.
    np.testing.assert_allclose(scaler.smooth_, [5, 1, 0.01], rtol=0.1)
    # It is the best estimate of the mean of a domain, better than either extreme.
    truth = np.random.default_rng(0).normal(size=(n_domains, 3)) * deviations
    errors = [
        ((DomainScaler(0, smooth=smooth).fit(np.column_stack([domains, X])).means_ - truth) ** 2).mean(axis=0)
        for smooth in ("auto", 0, 1e9)
    ]
    assert errors[0][1] < 0.95 * min(errors[1][1], errors[2][1])
    assert errors[0][2] < 1.01 * min(errors[1][2], errors[2][2])
    lonely = DomainScaler(0).fit(np.column_stack([np.arange(9), X[:9]]))
    assert lonely.smooth_.tolist() == [5, 5, 5]
    np.testing.assert_allclose(lonely.means_, (X[:9] + 5 * X[:9].mean(axis=0)) / 6)
    np.testing.assert_allclose(lonely.scales_, np.tile(X[:9].std(axis=0) * np.sqrt(5 / 6), (9, 1)))
    one = DomainScaler("speaker").fit(recordings()[0].assign(speaker="ann"))
    assert one.smooth_.tolist() == [5, 5, 5]
    constant = DomainScaler(0).fit(np.column_stack([domains, np.full(len(domains), 3.1)]))
    assert not constant.transform(np.array([[0, 3.1], [-1, 3.1]])).any()


def test_what_a_domain_does_not_tell_comes_from_all_rows():
    X, _, _ = recordings()
    X.loc[X["speaker"] == "bob", "a__0"] = np.nan
    features, speakers = X[FEATURES].to_numpy(), X["speaker"].to_numpy()
    mean = np.nanmean(features, axis=0)
    scale = np.sqrt(within(features, speakers))
    scale[0] = np.sqrt(within(features[speakers != "bob", 0], speakers[speakers != "bob"]))
    for smooth in (0, 5, "auto"):
        scaler = DomainScaler("speaker", smooth=smooth).fit(X)
        assert scaler.means_[1, 0] == pytest.approx(mean[0])
        assert scaler.scales_[1, 0] == pytest.approx(scale[0])
        for missing in (None, np.nan, ""):
            new = X[:4].assign(speaker=missing)
            np.testing.assert_allclose(scaler.transform(new), (new[FEATURES].to_numpy() - mean) / scale, rtol=1e-9)
    # A single row of a new domain.
    new = X[:1].assign(speaker="eve")
    assert not DomainScaler("speaker", smooth=0).fit(X).transform(new).any()
    difference = new[FEATURES].to_numpy() - mean
    assert np.sign(DomainScaler("speaker").fit(X).transform(new)).tolist() == np.sign(difference).tolist()


def test_rows_without_any_domain_are_scaled_together():
    X, _, _ = recordings()
    scaler = DomainScaler("speaker", smooth=0).fit(X.assign(speaker=None))
    assert scaler.domains_ == []
    expected = StandardScaler().fit_transform(X[FEATURES].to_numpy())
    np.testing.assert_allclose(scaler.transform(X.assign(speaker=None)), expected, atol=1e-9)


def test_containers():
    X, _, speakers = recordings()
    expected = DomainScaler("speaker").fit_transform(X)
    np.testing.assert_array_equal(DomainScaler("speaker").fit_transform(pl.from_pandas(X)), expected)
    np.testing.assert_array_equal(DomainScaler(1).fit_transform(X.to_numpy()), expected)
    codes = X.assign(speaker=speakers).to_numpy(float)
    np.testing.assert_array_equal(DomainScaler(-3).fit_transform(codes), expected)
    named = DomainScaler("speaker").set_output(transform="pandas").fit_transform(X[::-1])
    assert named.columns.tolist() == FEATURES
    assert named.index.tolist() == X.index[::-1].tolist()
    assert DomainScaler(1).fit(codes).get_feature_names_out().tolist() == ["x0", "x2", "x3"]


def fused():
    """Return a pipeline step that fuses the modalities, and passes the speaker on."""
    fuser = ModalityFuser([("a", StandardScaler(), ["a__0", "a__1"]), ("b", "passthrough", ["b__0"])])
    columns = ColumnTransformer(
        [("fused", fuser, FEATURES), ("speaker", "passthrough", ["speaker"])], verbose_feature_names_out=False
    )
    return columns.set_output(transform="pandas")


def test_behind_a_fuser_in_a_stock_search_a_new_speaker_is_understood():
    X, y, speakers = recordings()
    accuracies = {}
    for scaler in (DomainScaler("speaker"), FunctionTransformer(lambda Z: Z.drop(columns="speaker"))):
        model = make_pipeline(fused(), scaler, LogisticRegression())
        scores = cross_val_score(model, X, y, groups=speakers, cv=LeaveOneGroupOut())
        accuracies[type(scaler).__name__] = scores.mean()
    assert accuracies["DomainScaler"] > 0.8 > 0.65 > accuracies["FunctionTransformer"]
    model = make_pipeline(fused(), DomainScaler("speaker"), LogisticRegression())
    grid = {"domainscaler__smooth": [0, "auto"], "columntransformer__fused__fusion": ["concat", "pca"]}
    search = GridSearchCV(model, grid, cv=LeaveOneGroupOut(), error_score="raise").fit(X, y, groups=speakers)
    assert search.best_score_ > 0.8


def test_as_the_transformer_of_a_modality_with_missing_rows():
    X, _, _ = recordings()
    X.loc[:20, FEATURES[:2]] = np.nan
    X.loc[:10, "speaker"] = None
    modality = ("a", DomainScaler("speaker"), ["speaker", *FEATURES[:2]])
    fuser = ModalityFuser([modality, ("b", "passthrough", ["b__0"])]).fit(X)
    assert fuser.get_feature_names_out().tolist() == ["a__a__0", "a__a__1", "b__b__0"]
    assert np.isfinite(fuser.transform(X)).all()
    scaler = fuser.named_modalities_["a"]
    np.testing.assert_array_equal(scaler.means_, clone(scaler).fit(X.loc[11:, ["speaker", *FEATURES[:2]]]).means_)


def test_errors():
    X, _, _ = recordings()
    with pytest.raises(
        ValueError, match=r"'site' must name one column of X, which has the columns \['a__0', 'speaker'"
    ):
        DomainScaler("site").fit(X)
    with pytest.raises(ValueError, match=r"'speaker' must name one column of X, which is an array without names"):
        DomainScaler("speaker").fit(X.to_numpy())
    with pytest.raises(ValueError, match=r"domain=4 is no position of a column: X has n_features = 4"):
        DomainScaler(4).fit(X)
    with pytest.raises(ValueError, match="X has n_features = 1, the column of domains; pass the columns"):
        DomainScaler("speaker").fit(X[["speaker"]])
    with pytest.raises(TypeError, match="the domain of row 2 is a list, which cannot be compared"):
        DomainScaler("speaker").fit(X.assign(speaker=["ann", "bob", *[["cy"]] * (len(X) - 2)]))
    with pytest.raises(ValueError, match="feature names should match"):
        DomainScaler("speaker").fit(X).transform(X[X.columns[::-1]])


def test_skada_around_fused_features():
    pytest.importorskip("skada", reason="needs pip install skada")
    X, y, speakers = recordings()
    is_new = speakers == 3
    # Importing skada turns metadata routing on, which must not reach other tests.
    with config_context(enable_metadata_routing=True):
        from skada import CORALAdapter, PerDomain, make_da_pipeline

        fuser = ModalityFuser([("a", "passthrough", ["a__0", "a__1"]), ("b", "passthrough", ["b__0"])])
        Z = fuser.fit(X[~is_new]).transform(X)
        domains = np.where(is_new, -(speakers + 1), speakers + 1)
        labels = np.where(is_new, -1, y)
        accuracies = []
        for steps in ([StandardScaler()], [PerDomain(StandardScaler())], [PerDomain(StandardScaler()), CORALAdapter()]):
            model = make_da_pipeline(*steps, LogisticRegression()).fit(Z, labels, sample_domain=domains)
            predicted = model.predict(Z[is_new], sample_domain=domains[is_new])
            accuracies.append((predicted == y[is_new]).mean())
    pooled, by_domain, coral = accuracies
    assert min(by_domain, coral) > 0.8 > 0.65 > pooled
    model = make_pipeline(DomainScaler("speaker", smooth=0), LogisticRegression()).fit(X[~is_new], y[~is_new])
    assert model.score(X[is_new], y[is_new]) == pytest.approx(by_domain)
