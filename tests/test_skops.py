"""Fitted estimators go through skops and back, with no other types than get_trusted_types lists."""

import importlib

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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
    get_trusted_types,
)
from skmm.neural_network import AudioBranch, GradientModulation, ImageBranch, SequenceBranch, TextBranch, VideoBranch
from skmm.retrieval import ApproximateIndex, ExactIndex

sio = pytest.importorskip("skops.io")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6))
Y = np.arange(40) % 2
BLOCKS = {"a": slice(0, 3), "b": slice(3, 6)}


def modalities(*members):
    return [("a", members[0], slice(0, 3)), ("b", members[-1], slice(3, 6))]


PIPELINE = make_pipeline(SimpleImputer(), StandardScaler())
CLASSIFIERS, REGRESSORS = modalities(LogisticRegression()), modalities(make_pipeline(PIPELINE, LinearRegression()))
NET = {"width": 4, "max_epochs": 1, "random_state": 0, "device": "cpu"}
NUMERIC = [
    AnchorFusion(blocks=BLOCKS),
    AverageFusion(blocks=BLOCKS, reduction="random"),
    CCAFusion(blocks=BLOCKS),
    ConcatFusion(blocks=BLOCKS, weights="cv"),
    ContrastiveFusion(max_epochs=1, device="cpu", blocks=BLOCKS),
    DomainScaler(0),
    KernelCCAFusion(blocks=BLOCKS),
    KernelFusion(blocks=BLOCKS),
    LDAFusion(blocks=BLOCKS),
    PCAFusion(blocks=BLOCKS, imputer="regression"),
    PLSFusion(blocks=BLOCKS),
    ProductFusion("compact", max_features=20, blocks=BLOCKS),
    *(ModalityImputer(strategy, blocks=BLOCKS) for strategy in ("mean", "regression", "neighbors")),
    ModalityFuser(modalities("passthrough", PIPELINE)),
    make_pipeline(ModalityFuser(modalities(PIPELINE), fusion="pca"), LogisticRegression()),
    ModalityCascadeClassifier(CLASSIFIERS, costs={"a": 1, "b": 2}),
    ModalityVotingClassifier(CLASSIFIERS),
    ModalityVotingClassifier(modalities(make_pipeline(PIPELINE, LogisticRegression())), weights="auto", cv=2),
    ModalityVotingRegressor(REGRESSORS),
    ModalityStackingClassifier(CLASSIFIERS, cv=2),
    ModalityStackingClassifier(CLASSIFIERS, cv=2, passthrough=ModalityFuser(modalities(PIPELINE))),
    ModalityStackingRegressor(REGRESSORS, cv=2, passthrough=True),
    MultimodalNetClassifier(modalities(PIPELINE), "gated", modulation=GradientModulation(), **NET),
    MultimodalNetRegressor(modalities("passthrough"), **NET),
    ExactIndex(),
    AutoMultimodalClassifier(modalities("passthrough"), strategies=["linear", "svm", "trees", "boosting"], cv=2),
    AutoMultimodalRegressor(strategies=["linear", "stack"], cv=2),
]

ITEMS = {
    "text": ["a cat", "the dog", "a mat", "sat on"],
    "image": list(RNG.integers(256, size=(4, 40, 40, 3), dtype=np.uint8)),
    "sound": [(16000, RNG.normal(size=16000).astype(np.float32)) for _ in range(4)],
    "video": list(RNG.integers(256, size=(4, 5, 40, 40, 3), dtype=np.uint8)),
    "series": list(RNG.normal(size=(4, 9))),
}
FRAME = pd.DataFrame({name: pd.Series(items, dtype=object) for name, items in ITEMS.items()})
OF_ITEMS = [
    (TextBranch(), "text"),
    (ImageBranch(size=8, channels=(4,)), "image"),
    (AudioBranch(), "sound"),
    (SequenceBranch(), "series"),
    (ImageDescriptor(), "image"),
    (AudioDescriptor(), "sound"),
    (VideoDescriptor(), "video"),
]


def load_dumped(fitted):
    data = sio.dumps(fitted)
    assert set(sio.get_untrusted_types(data=data)) <= set(get_trusted_types())
    return sio.loads(data, trusted=get_trusted_types())


def check_round_trip(fitted, X):
    loaded = load_dumped(fitted)
    assert type(loaded) is type(fitted)
    method = next(name for name in ("predict", "prepare", "transform", "kneighbors") if hasattr(fitted, name))
    for result, expected in zip(getattr(loaded, method)(X), getattr(fitted, method)(X), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("estimator", NUMERIC, ids=lambda estimator: type(estimator).__name__)
def test_estimators_of_numbers(estimator):
    check_round_trip(clone(estimator).fit(X, Y), X)


def test_table_of_dates_and_categories():
    days = pd.date_range("2024-01-01", periods=40)
    frame = pd.DataFrame(
        {"day": days, "colour": ["red", "green", None, "blue"] * 10, "many": [f"v{i // 2}" for i in range(40)]}
    )
    check_round_trip(make_pipeline(ModalityFuser(), LogisticRegression()).fit(frame, Y), frame)


def test_several_tasks():
    fitted = MultimodalNetMultiTask(modalities("passthrough"), **NET).fit(
        X, pd.DataFrame({"class": Y, "number": X[:, 0]})
    )
    pd.testing.assert_frame_equal(load_dumped(fitted).predict(X), fitted.predict(X))


@pytest.mark.parametrize(("estimator", "column"), OF_ITEMS, ids=lambda value: type(value).__name__)
def test_estimators_of_items(estimator, column):
    check_round_trip(clone(estimator).fit(FRAME[column]), FRAME[column])


def test_sound_of_videos():
    fitted = VideoAudio(target_rate=8000).fit(FRAME["video"])
    assert load_dumped(fitted).get_params() == fitted.get_params()


def test_encoders(tiny_text_model, tiny_image_model, tiny_clip_model, tiny_video_model, make_audio_model):
    options = {"device": "cpu", "store": None}
    encoders = [
        (TextEncoder(tiny_text_model, **options), "text"),
        (ImageEncoder(tiny_image_model, **options), "image"),
        (AudioEncoder(make_audio_model("wav2vec2"), **options), "sound"),
        (VideoEncoder(tiny_video_model, **options), "video"),
        (TextEncoder(tiny_clip_model, **options), "text"),
        (ImageEncoder(tiny_clip_model, **options), "image"),
        (VideoEncoder(tiny_clip_model, **options), "video"),
        (TextBranch(model=tiny_text_model), "text"),
        (ImageBranch(tiny_image_model), "image"),
        (AudioBranch(model=make_audio_model("wav2vec2")), "sound"),
        (VideoBranch(tiny_video_model), "video"),
    ]
    for encoder, column in encoders:
        check_round_trip(encoder.fit(FRAME[column]), FRAME[column])
    tuned = TunedEncoder(encoders[0][0], n_layers=1, max_epochs=1, fallback=False, random_state=0)
    texts = pd.Series([f"a cat {letter}" for letter in "abcdefghijkl"])
    check_round_trip(tuned.fit(texts, [0, 1] * 6), texts)
    fuser = ModalityFuser([("text", encoders[4][0], "text"), ("image", ImageDescriptor(), "image")])
    check_round_trip(fuser.fit(FRAME), FRAME)
    zero_shot = ZeroShotClassifier(encoders[5][0], encoders[4][0], classes={0: ["cat", "kitten"], 1: "dog"}, reject=-1)
    check_round_trip(zero_shot.fit(FRAME["image"], [0, 1, 0, -1]), FRAME["image"])
    member = make_pipeline(encoders[0][0], LogisticRegression())
    check_round_trip(ModalityVotingClassifier([("text", member, "text")]).fit(FRAME, Y[:4]), FRAME)


def test_the_docstring_explains_what_skops_says_of_a_module():
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4)).eval()
    encoder = ImageEncoder(network, preprocess={"input_size": (3, 8, 8)}, device="cpu", store=None)
    # The name that follows depends on the version of torch.
    text = "Cannot directly construct"
    with pytest.raises(RuntimeError, match=text):
        sio.dumps(encoder)
    assert text in get_trusted_types.__doc__


def test_every_public_estimator_is_covered():
    rooms = [
        importlib.import_module(f"skmm.{name}")
        for name in ("encoders", "ensemble", "fusion", "neural_network", "retrieval")
    ]
    public = {getattr(room, name) for room in rooms for name in room.__all__}
    public = {cls for cls in public if isinstance(cls, type) and issubclass(cls, BaseEstimator)}
    # Base classes for users are not stored themselves.
    leaves = {cls for cls in public if not any(issubclass(other, cls) for other in public - {cls})}
    covered = {type(estimator) for estimator in [*NUMERIC, *(estimator for estimator, _ in OF_ITEMS)]}
    assert leaves <= covered | {
        # Items and graphs are written by CrossModalRetriever.save.
        ApproximateIndex,
        CrossModalRetriever,
        AudioEncoder,
        GradientModulation,
        ImageEncoder,
        MultimodalNetMultiTask,
        TextEncoder,
        TunedEncoder,
        VideoAudio,
        VideoBranch,
        VideoEncoder,
        ZeroShotClassifier,
    }


def test_trusted_types_exist_and_are_skmms_and_skrubs_but_for_a_few():
    paths = get_trusted_types()
    assert paths == sorted(set(paths))
    for path in paths:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
    assert [path for path in paths if not path.startswith(("skmm.", "skrub."))] == [
        "numpy.dtype",
        "scipy.sparse._csr.csr_array",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
    ]
