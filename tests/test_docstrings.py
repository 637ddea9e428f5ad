"""Every public name is documented as numpydoc wants it, and documents what it has."""

import importlib
import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from numpydoc.docscrape import ClassDoc, FunctionDoc
from numpydoc.validate import validate
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

import skmm
from skmm import (
    AnchorFusion,
    AudioDescriptor,
    AudioEncoder,
    AutoMultimodalClassifier,
    AutoMultimodalRegressor,
    AverageFusion,
    CCAFusion,
    ConcatFusion,
    ContrastiveFusion,
    CrossModalRetriever,
    DomainScaler,
    ImageDescriptor,
    ImageEncoder,
    KernelCCAFusion,
    KernelFusion,
    LDAFusion,
    ModalityCascadeClassifier,
    ModalityFuser,
    ModalityImputer,
    ModalityStackingClassifier,
    ModalityStackingRegressor,
    ModalityVotingClassifier,
    ModalityVotingRegressor,
    MultimodalNetClassifier,
    MultimodalNetMultiTask,
    MultimodalNetRegressor,
    PCAFusion,
    PLSFusion,
    ProductFusion,
    TextEncoder,
    TunedEncoder,
    VideoAudio,
    VideoDescriptor,
    VideoEncoder,
    ZeroShotClassifier,
)
from skmm.neural_network import AudioBranch, GradientModulation, ImageBranch, SequenceBranch, TextBranch, VideoBranch
from skmm.retrieval import ApproximateIndex, ExactIndex

PACKAGES = [
    "skmm.datasets",
    "skmm.encoders",
    "skmm.ensemble",
    "skmm.fusion",
    "skmm.inspection",
    "skmm.metrics",
    "skmm.model_selection",
    "skmm.neural_network",
    "skmm.retrieval",
]
# Left out of numpydoc's checks: ES01 and EX01 would force an extended summary and an example on every
# method, SA01 cross-references; GL08 is checked here by name; RT02 and YD01 concern styles not used here.
IGNORED = {"ES01", "EX01", "SA01", "SA04", "GL01", "GL02", "RT02", "YD01", "GL08", "PR10"}

OBJECTS = [
    (f"{package}.{name}", getattr(importlib.import_module(package), name))
    for package in PACKAGES
    for name in importlib.import_module(package).__all__
]
METHODS = [
    (f"{path}.{name}", method)
    for path, cls in OBJECTS
    if inspect.isclass(cls)
    for name, method in inspect.getmembers(cls, inspect.isfunction)
    if not name.startswith("_") and method.__module__.startswith("skmm")
]


@pytest.mark.parametrize("path", [path for path, _ in OBJECTS + METHODS])
def test_numpydoc(path):
    found = [f"{code}: {text}" for code, text in validate(path)["errors"] if code not in IGNORED]
    assert not found


@pytest.mark.parametrize(("path", "thing"), OBJECTS)
def test_every_public_name_has_an_example(path, thing):
    doc = ClassDoc(thing) if inspect.isclass(thing) else FunctionDoc(thing)
    assert any(line.startswith(">>>") for line in doc["Examples"]), path


def fitted():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 4)), np.arange(20) % 2
    blocks = {"a": slice(0, 2), "b": slice(2, None)}
    modalities = [("a", "passthrough", slice(0, 2)), ("b", "passthrough", slice(2, None))]
    yield AnchorFusion(blocks=blocks).fit(X)
    yield AverageFusion(blocks=blocks).fit(X)
    yield ConcatFusion(blocks=blocks).fit(X)
    yield ContrastiveFusion(max_epochs=1, blocks=blocks).fit(X)
    yield DomainScaler(0).fit(X)
    yield PCAFusion(blocks=blocks).fit(X)
    yield ProductFusion(blocks=blocks).fit(X)
    yield KernelFusion(blocks=blocks).fit(X)
    yield KernelCCAFusion(blocks=blocks).fit(X)
    yield LDAFusion(blocks=blocks).fit(X, y)
    yield CCAFusion(blocks=blocks).fit(X)
    yield PLSFusion(blocks=blocks).fit(X)
    yield ModalityFuser(modalities).fit(X)
    yield ModalityImputer(blocks=blocks).fit(X)
    classifiers = [(name, LogisticRegression(), columns) for name, _, columns in modalities]
    regressors = [(name, LinearRegression(), columns) for name, _, columns in modalities]
    yield ModalityCascadeClassifier(classifiers, costs={"a": 1, "b": 2}).fit(X, y)
    yield ModalityVotingClassifier(classifiers).fit(X, y)
    yield ModalityVotingRegressor(regressors).fit(X, y)
    yield ModalityStackingClassifier(classifiers).fit(X, y)
    yield ModalityStackingRegressor(regressors).fit(X, y)
    yield MultimodalNetClassifier(modalities, max_epochs=1).fit(X, y)
    yield MultimodalNetMultiTask(modalities, max_epochs=1).fit(X, pd.DataFrame({"a": y, "b": X[:, 0]}))
    yield MultimodalNetRegressor(modalities, max_epochs=1).fit(X, y)
    yield AutoMultimodalClassifier(strategies=["linear"], cv=2).fit(X, y)
    yield AutoMultimodalRegressor(strategies=["linear"], cv=2).fit(X, y)
    yield CrossModalRetriever(modalities, "cca").fit(X, y)
    yield ExactIndex().fit(X)
    yield ApproximateIndex().fit(X)
    yield TextBranch().fit(["a"])
    yield ImageBranch().fit(rng.random((3, 8, 8)))
    yield AudioBranch().fit(["a.wav"])
    yield SequenceBranch().fit(X)
    yield VideoBranch(torch.nn.Flatten()).fit(rng.random((3, 2, 16, 16)))
    yield ImageDescriptor().fit(rng.random((3, 64, 64)))
    yield VideoDescriptor().fit(rng.random((3, 2, 16, 16)))
    yield VideoAudio().fit(rng.random((3, 2, 16, 16)))
    yield AudioDescriptor().fit(["a.wav"])
    yield AudioEncoder(torch.nn.Identity()).fit(["a.wav"])
    yield ZeroShotClassifier(FunctionTransformer(), FunctionTransformer(word_lengths), classes=["a", "b"]).fit(X)


def word_lengths(texts):
    return [[len(word) for word in text.split()[:4]] for text in texts]


def check_attributes(estimator):
    documented = {parameter.name for parameter in ClassDoc(type(estimator))["Attributes"]}
    properties = {name for name, _ in inspect.getmembers(type(estimator), lambda value: isinstance(value, property))}
    real = {name for name in [*vars(estimator), *properties] if name.endswith("_") and not name.startswith("_")}
    # Only X with column names gives this one.
    assert documented - {"feature_names_in_"} == real - {"feature_names_in_"}
    assert "feature_names_in_" in documented
    assert set(clone(estimator).__dict__) == set(estimator.get_params(deep=False)) - set(
        getattr(estimator, "named_modalities_", {})
    )
    check_is_fitted(estimator)


@pytest.mark.parametrize("estimator", list(fitted()), ids=lambda estimator: type(estimator).__name__)
def test_documented_attributes_are_the_fitted_ones(estimator):
    check_attributes(estimator)


def test_documented_attributes_of_text_encoders(tiny_text_model):
    check_attributes(TextEncoder(str(tiny_text_model)).fit(["a"]))
    tuned = TunedEncoder(TextEncoder(str(tiny_text_model)), max_epochs=1, n_layers=1, random_state=0)
    check_attributes(tuned.fit([*"abcdefghijkl"], [0, 1] * 6))


@pytest.mark.parametrize("encoder", [ImageEncoder, VideoEncoder])
def test_documented_attributes_of_encoders_of_images(encoder, tiny_image_model):
    check_attributes(encoder(tiny_image_model).fit([None]))


def test_every_public_estimator_is_covered_here():
    covered = {type(estimator) for estimator in fitted()} | {TextEncoder, ImageEncoder, TunedEncoder, VideoEncoder}
    # Bases for estimators of users.
    covered |= {skmm.fusion.BlockTransformer, skmm.encoders.ItemEncoder, skmm.encoders.ModelEncoder}
    # Parameters only: nothing is fitted.
    covered |= {GradientModulation}
    assert {thing for _, thing in OBJECTS if inspect.isclass(thing) and issubclass(thing, BaseEstimator)} == covered
