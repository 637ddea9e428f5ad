"""Callbacks of scikit-learn hear of what composites and encoders do inside a fit."""

import warnings

import pandas as pd
import pytest
from sklearn.callback import ProgressBar
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import (
    ImageDescriptor,
    LDAFusion,
    ModalityFuser,
    ModalityStackingClassifier,
    ModalityVotingClassifier,
    PCAFusion,
    TextEncoder,
)


class Listener:
    """Notes what it hears, at every depth."""

    max_propagation_depth = None

    def __init__(self):
        self.begun, self.ended, self.begun_for = [], [], set()

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.begun.append((type(estimator).__name__, context.task_name))
        # A task that is an estimator's whole fit is told by that estimator, and names where it came from.
        self.begun_for.add((context.source_estimator_name, context.source_task_name))

    def on_fit_task_end(self, estimator, context):
        self.ended.append((type(estimator).__name__, context.task_name))


@pytest.fixture
def scripts(glyphs):
    return glyphs.data[["text", "image"]][::2], glyphs.target[::2]


@pytest.fixture
def pipe(tiny_text_model):
    text = ("text", make_pipeline(TextEncoder(tiny_text_model), PCA(3)), "text")
    image = ("image", ImageDescriptor("hog", size=32), "image")
    return Pipeline([("fuse", ModalityFuser([text, image])), ("clf", LogisticRegression(max_iter=1000))])


def test_encoding_inside_a_fit_is_heard(scripts, pipe):
    listener = Listener()
    pipe.set_callbacks(listener).fit(*scripts)
    assert sorted(listener.begun) == sorted(listener.ended)
    assert ("ModalityFuser", "modality text") in listener.begun_for
    assert ("ModalityFuser", "modality image") in listener.begun_for
    assert ("ModalityFuser", "fusion") in listener.begun
    assert listener.begun.count(("TextEncoder", "encode")) == 100
    assert listener.begun.count(("ImageDescriptor", "encode")) == 100


@pytest.mark.parametrize("n_items", [1, 7, 100, 250])
def test_steps_add_up_whatever_the_number_of_items(n_items):
    listener = Listener()
    encoder = ImageDescriptor("pixels", size=8, on_error="missing").set_callbacks(listener)
    items = pd.Series([bytes([i]) for i in range(n_items)])
    with pytest.warns(UserWarning, match="could not be encoded"):
        encoder.fit_transform(items)
    assert listener.begun.count(("ImageDescriptor", "encode")) == 100
    assert listener.ended.count(("ImageDescriptor", "encode")) == 100


def test_nothing_is_left_behind(scripts, pipe):
    pipe.set_callbacks(Listener()).fit(*scripts)
    for part in [pipe[0], pipe[0].named_modalities_.image, pipe[0].named_modalities_.text[0], pipe[0].fusion_]:
        assert not {name for name in vars(part) if "callback" in name}


def test_strategies_and_callbacks(scripts, pipe):
    listener = Listener()
    pipe.set_params(fuse__fusion=make_pipeline(PCAFusion(3))).set_callbacks(listener).fit(*scripts)
    assert ("Pipeline", "fit-transform") in listener.begun


def member(encoder, *steps):
    return make_pipeline(encoder, *steps, LogisticRegression(max_iter=1000))


@pytest.fixture
def members(tiny_text_model):
    # Both are fitted in two parts, since their encoders may leave rows out.
    text = ("text", member(TextEncoder(tiny_text_model, on_error="missing"), StandardScaler(), PCA(3)), "text")
    return [text, ("image", member(ImageDescriptor("pixels", size=8)), "image")]


def test_a_modality_fitted_in_parts_is_heard(scripts, tiny_text_model):
    listener = Listener()
    text = ("text", make_pipeline(TextEncoder(tiny_text_model, on_error="missing"), StandardScaler(), PCA(3)), "text")
    fuser = ModalityFuser([text]).set_callbacks(listener)
    fuser.fit(*scripts)
    assert listener.begun.count(("TextEncoder", "encode")) == 100
    assert ("StandardScaler", "fit") in listener.begun
    assert ("ModalityFuser", "modality text") in listener.begun
    assert {("ModalityFuser", "textencoder"), ("ModalityFuser", "standardscaler, pca")} <= listener.begun_for
    assert sorted(listener.begun) == sorted(listener.ended)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_encoding_inside_a_voter_is_heard(scripts, members, n_jobs):
    listener = Listener()
    vote = ModalityVotingClassifier(members, weights="auto", cv=2, n_jobs=n_jobs)
    Pipeline([("vote", vote)]).set_callbacks(listener).fit(*scripts)
    # Each member once on all rows, and once in each fold.
    assert listener.begun.count(("TextEncoder", "encode")) == 300
    assert listener.begun.count(("ImageDescriptor", "encode")) == 300
    assert ("ModalityVotingClassifier", "modality image, fold 2") in listener.begun
    assert ("ModalityVotingClassifier", "imagedescriptor") in listener.begun_for
    assert sorted(listener.begun) == sorted(listener.ended)
    assert not {name for part in [vote, *vote.named_modalities_.values()] for name in vars(part) if "callback" in name}


@pytest.mark.parametrize("needs_y", [False, True])
def test_encoding_inside_a_stacker_is_heard(scripts, members, needs_y):
    listener = Listener()
    fused = ModalityFuser(
        [("image", ImageDescriptor("pixels", size=16), "image")], LDAFusion() if needs_y else "concat"
    )
    final = make_pipeline(StandardScaler(), LogisticRegression())
    stack = ModalityStackingClassifier(members[:1], final, cv=2, passthrough=fused)
    stack.set_callbacks(listener).fit(*scripts)
    assert listener.begun.count(("TextEncoder", "encode")) == 300
    assert listener.begun.count(("ImageDescriptor", "encode")) == (300 if needs_y else 100)
    assert ("ModalityStackingClassifier", "final estimator") in listener.begun_for
    assert sorted(listener.begun) == sorted(listener.ended)
    left = [*stack.named_modalities_.values(), stack.final_estimator_, stack.passthrough]
    assert not {name for part in left for name in vars(part) if "callback" in name}


def test_members_that_cannot_be_fitted_are_steps_as_well(members):
    listener = Listener()
    X = pd.DataFrame({"text": ["a cat", "the dog", None, None], "number": [1.0, 2.0, 3.0, 4.0]})
    vote = ModalityVotingClassifier([members[0], ("number", LogisticRegression(), ["number"])])
    with pytest.warns(UserWarning, match="only one class"):
        vote.set_callbacks(listener).fit(X, [0, 0, 1, 1])
    assert ("ModalityVotingClassifier", "modality text") in listener.ended
    assert sorted(listener.begun) == sorted(listener.ended)


@pytest.mark.parametrize("kind", ["fuser", "voter"])
@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_progress_bar_of_a_search_reaches_the_encoders(scripts, pipe, members, kind, n_jobs, capsys):
    pytest.importorskip("rich")
    vote = Pipeline([("vote", ModalityVotingClassifier(members))])
    model, name = (pipe, "clf__C") if kind == "fuser" else (vote, "vote__image__logisticregression__C")
    search = GridSearchCV(model, {name: [0.1, 1]}, cv=2, error_score="raise", n_jobs=n_jobs)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The estimator Modality.* does not support")
        search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*scripts)
    printed = capsys.readouterr().out
    # A bar for each of two candidates in two folds, and one for the fit on all rows.
    assert printed.count("TextEncoder") == printed.count("ImageDescriptor") == 5


def test_progress_bar_of_a_pipeline_names_the_encoder_and_where_it_stands(scripts, pipe, capsys):
    pytest.importorskip("rich")
    pipe.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*scripts)
    lines = capsys.readouterr().out.splitlines()
    (image,) = (line for line in lines if "ImageDescriptor" in line)
    (text,) = (line for line in lines if "TextEncoder" in line)
    assert "ModalityFuser - modality image | ImageDescriptor - fit" in image
    assert "Pipeline - fit-transform-textencoder | TextEncoder - fit" in text
    assert "100%" in image
    assert "100%" in text
