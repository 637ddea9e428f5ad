"""Steps that turn items into missing rows, wherever they stand in a member: later steps never see those rows."""

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skmm import (
    ModalityFuser,
    ModalityStackingClassifier,
    ModalityStackingRegressor,
    ModalityVotingClassifier,
    ModalityVotingRegressor,
    MultimodalNetClassifier,
)
from skmm._composition import join_stages, split_stages

N = 60
BAD = [3, 10, 17]


class Lengths(TransformerMixin, BaseEstimator):
    """Encodes texts by their counts of letters; a text of ``bad`` is a missing row."""

    def __init__(self, bad="?", on_error="missing"):
        self.bad = bad
        self.on_error = on_error

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        rows = [[np.nan] * 3 if self.bad in text else [text.count(letter) for letter in "abc"] for text in X]
        return np.array(rows, dtype=float).reshape(len(X), 3)

    def __sklearn_is_fitted__(self):
        return True


class Halves(TransformerMixin, BaseEstimator):
    """Loses the rows whose first column is above a limit; as in ``VideoAudio``, no parameter says so."""

    _may_lose_items = True

    def __init__(self, limit=1e9):
        self.limit = limit

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.where(X[:, :1] > self.limit, np.nan, X)

    def __sklearn_is_fitted__(self):
        return True


def lower(texts):
    return [text.lower() for text in texts]


PLACES = {
    "first": (Lengths(), StandardScaler()),
    "in a pipeline": (make_pipeline(Lengths()), StandardScaler()),
    "first in a pipeline": (make_pipeline(Lengths(), PCA(2)), StandardScaler()),
    "two pipelines deep": (make_pipeline(make_pipeline(Lengths(), StandardScaler()), PCA(2)), StandardScaler()),
    "second": (FunctionTransformer(lower), Lengths(), StandardScaler()),
    "second in a pipeline": (make_pipeline(FunctionTransformer(lower), Lengths()), StandardScaler()),
    "twice": (make_pipeline(Lengths()), make_pipeline(Halves(), StandardScaler())),
    "without a parameter": (Lengths("nothing"), make_pipeline(FunctionTransformer(), Halves(50)), StandardScaler()),
    "in a union": (FeatureUnion([("a", Lengths()), ("b", Lengths())]), StandardScaler()),
}


@pytest.fixture
def frames():
    """The same rows twice: with texts that cannot be encoded, and with None in their place; and a target."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 2
    texts = ["a" * rng.integers(1, 9) + "b" * (2 * label + rng.integers(1, 5)) + "c" for label in y]
    broken = pd.DataFrame({"text": texts, "price": y + rng.normal(size=N)})
    absent = broken.astype({"text": object})
    for row in BAD:
        broken.loc[row, "text"] = "?" + "a" * 60
        absent.loc[row, "text"] = None
    return broken, absent, y


def composites(steps):
    def members(final):
        return [("text", make_pipeline(*steps, final), "text"), ("table", final, ["price"])]

    text = ("text", make_pipeline(*steps), "text")
    table = ("table", StandardScaler(), ["price"])
    logistic = members(LogisticRegression())
    return {
        "fuser": ModalityFuser([text, table]),
        "voter": ModalityVotingClassifier(logistic),
        "voter with learned weights": ModalityVotingClassifier(logistic, voting="product", weights="auto", cv=3),
        "calibrated voter": ModalityVotingClassifier(logistic, calibration="sigmoid"),
        "stacker": ModalityStackingClassifier(logistic, cv=3),
        "voting regressor": ModalityVotingRegressor(members(Ridge())),
        "stacking regressor": ModalityStackingRegressor(members(Ridge()), cv=3),
        "network": MultimodalNetClassifier([text, table], width=4, max_epochs=1, random_state=0),
    }


def ask(composite, X):
    names = ["predict_proba", "predict", "transform"]
    return getattr(composite, next(name for name in names if hasattr(composite, name)))(X)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", composites(PLACES["first"]))
def test_rows_lost_anywhere_in_a_member_are_missing(frames, place, kind):
    broken, absent, y = frames
    composite = composites(PLACES[place])[kind]
    expected = ask(clone(composite).fit(absent, y), absent)
    fitted = clone(composite).fit(broken, y)
    assert_allclose(ask(fitted, broken), expected, rtol=1e-6)
    assert_allclose(ask(fitted, absent), expected, rtol=1e-6)
    # The member keeps the structure that it was given.
    member, template = fitted.named_modalities_.text, composite.modalities[0][1]
    if kind != "calibrated voter":
        assert [type(step) for _, step in member.steps] == [type(step) for _, step in template.steps]


def test_stages_are_joined_to_the_pipeline_they_came_from():
    inner = make_pipeline(FunctionTransformer(lower), Lengths())
    member = make_pipeline(inner, make_pipeline(StandardScaler(), Halves(), PCA(2)), LogisticRegression())
    names = [[name for name, _ in stage.steps] for stage in split_stages(member)]
    assert names == [
        ["pipeline-1"],
        ["pipeline-2"],
        ["pipeline-2", "logisticregression"],
    ]
    leaves = [*inner, *member[1], member[2]]
    stages = split_stages(member)
    for stage in stages:
        stage.steps = [(name, clone(step)) for name, step in stage.steps]
    joined = join_stages(member, stages)
    assert joined is member
    assert joined[0] is inner
    assert [type(step) for step in (*joined[0], *joined[1], joined[2])] == [type(step) for step in leaves]
    assert not {id(step) for step in (*joined[0], *joined[1], joined[2])} & {id(step) for step in leaves}


@pytest.mark.parametrize("member", [StandardScaler(), make_pipeline(StandardScaler(), PCA(2)), Lengths()])
def test_a_member_that_loses_no_row_is_one_stage(member):
    assert split_stages(member) == [member]


def test_steps_may_be_a_tuple_and_cached(frames, tmp_path):
    broken, absent, y = frames
    steps = (("encode", Lengths()), ("scale", StandardScaler()), ("pca", PCA(2)))
    member = Pipeline(steps, memory=joblib.Memory(tmp_path, verbose=0))
    fuser = ModalityFuser([("text", member, "text"), ("table", "passthrough", ["price"])])
    plain = ModalityFuser([("text", make_pipeline(*PLACES["first"], PCA(2)), "text"), fuser.modalities[1]])
    assert_allclose(fuser.fit(broken, y).transform(broken), plain.fit(absent, y).transform(absent))


class Noting(TransformerMixin, BaseEstimator):
    """Changes nothing, and counts its fits."""

    n_fits = 0

    def fit(self, X, y=None):
        Noting.n_fits += 1
        return self

    def transform(self, X):
        return X

    def __sklearn_is_fitted__(self):
        return True


INNER = {
    "one stage": [("note", Noting()), ("scale", StandardScaler())],
    "one that ends a stage": [("note", Noting()), ("halves", Halves())],
    "two stages": [("note", Noting()), ("halves", Halves()), ("pca", PCA(2))],
    "deeper": [("inner", make_pipeline(Noting(), StandardScaler())), ("halves", Halves()), ("pca", PCA(2))],
}


@pytest.mark.parametrize("steps", INNER.values(), ids=INNER)
def test_pipelines_in_a_pipeline_keep_their_memory(frames, tmp_path, steps):
    broken, _, y = frames
    rows = []
    Noting.n_fits = 0
    for memory in (None, tmp_path, tmp_path):
        inner = clone(Pipeline(steps)).set_params(memory=memory and joblib.Memory(memory, verbose=0))
        fuser = ModalityFuser([("text", make_pipeline(Lengths(), inner, StandardScaler()), "text")])
        rows.append(fuser.fit(broken, y).transform(broken))
    assert Noting.n_fits == 2
    assert_allclose(rows[1:], [rows[0]] * 2)
