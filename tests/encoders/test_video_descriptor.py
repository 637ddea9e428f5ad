"""VideoDescriptor: the frames of VideoEncoder, the features of ImageDescriptor, and their pooling."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import EmbeddingStore, ImageDescriptor, ModalityFuser, VideoDescriptor
from skmm.encoders._video_descriptor import _SUFFIXES

RNG = np.random.default_rng(0)
CLIPS = [RNG.integers(256, size=(n, 24, 32, 3), dtype=np.uint8) for n in (5, 8, 13, 1)]
OPTIONS = {"features": ("hog", "color", "lbp"), "size": 24, "color_bins": 4}


def described(frames):
    return ImageDescriptor(**OPTIONS).fit_transform(list(frames))


def chosen(clip, n=8):
    return clip[(2 * np.arange(n) + 1) * len(clip) // (2 * n)]


def stretches(rows):
    """Halves and quarters of 8 rows."""
    return [rows, rows[:4], rows[4:], rows[:2], rows[2:4], rows[4:6], rows[6:]]


EXPECTED = {
    "mean": lambda rows: rows.mean(axis=0),
    "max": lambda rows: rows.max(axis=0),
    "mean_std": lambda rows: np.concatenate([rows.mean(axis=0), rows.std(axis=0)]),
    "pyramid": lambda rows: np.concatenate([stretch.mean(axis=0) for stretch in stretches(rows)]),
}


@pytest.mark.parametrize("pooling", EXPECTED)
def test_rows_are_pooled_from_the_descriptions_of_frames(pooling):
    descriptor = VideoDescriptor(**OPTIONS, pooling=pooling)
    rows = descriptor.fit_transform([*CLIPS, None])
    expected = [EXPECTED[pooling](described(chosen(clip))) for clip in CLIPS]
    assert_allclose(rows[:-1], expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(rows[-1]).all()
    assert rows.dtype == np.float32
    # A row depends on its video alone.
    assert_array_equal(descriptor.transform(CLIPS[::-1]), rows[:-1][::-1])
    assert len(set(descriptor.get_feature_names_out())) == descriptor.n_features_out_ == rows.shape[1]


@pytest.mark.parametrize(
    ("options", "choose"),
    [
        ({"n_frames": 2}, lambda clip: chosen(clip, 2)),
        ({"sampling": "keyframes"}, lambda clip: clip),
        ({"sampling": "keyframes", "n_frames": 1}, lambda clip: clip[len(clip) // 2 :][:1]),
    ],
)
def test_frames_are_those_of_the_encoder(options, choose):
    rows = VideoDescriptor(**OPTIONS, **options).fit_transform(CLIPS)
    assert_allclose(rows, [described(choose(clip)).mean(axis=0) for clip in CLIPS], rtol=1e-5, atol=1e-6)


def test_files_and_frames_in_memory_agree(make_video, tmp_path):
    content = make_video(frames=list(CLIPS[2]))
    (tmp_path / "clip").write_bytes(content)
    forms = [content, CLIPS[2], list(CLIPS[2]), (10.0, CLIPS[2]), "clip", {"bytes": None, "path": "clip"}]
    rows = VideoDescriptor(**OPTIONS, root=tmp_path).fit_transform(forms)
    assert_allclose(rows, [rows[0]] * len(rows), atol=1e-6)


def test_names():
    column = pd.Series(CLIPS, name="film")
    options = {"features": "color", "color_bins": 2}
    assert VideoDescriptor(**options).fit(column).get_feature_names_out()[0] == "film_color_r0"
    for pooling, suffixes in _SUFFIXES.items():
        names = VideoDescriptor(**options, pooling=pooling).fit(CLIPS).get_feature_names_out()
        assert names[::6].tolist() == [f"color_r0{suffix}" for suffix in suffixes]


def test_videos_are_described_once(tmp_path, monkeypatch):
    n_encoded = []
    encode = VideoDescriptor._encode_batch
    monkeypatch.setattr(
        VideoDescriptor,
        "_encode_batch",
        lambda self, batch, model: n_encoded.append(len(batch)) or encode(self, batch, model),
    )
    store = EmbeddingStore(tmp_path)
    first = VideoDescriptor(**OPTIONS, store=store).fit_transform([*CLIPS, CLIPS[0]])
    assert_array_equal(VideoDescriptor(**OPTIONS, store=store, root=tmp_path).fit_transform(CLIPS), first[:4])
    assert sum(n_encoded) == 4
    for options in ({"pooling": "max"}, {"n_frames": 3}, {"sampling": "keyframes"}):
        VideoDescriptor(**OPTIONS, store=store).set_params(**options).fit_transform(CLIPS)
    assert sum(n_encoded) == 16


def test_a_list_is_one_video_and_an_empty_one_is_bad():
    descriptor = VideoDescriptor(**OPTIONS, on_error="missing")
    with pytest.warns(UserWarning, match="a video without frames"):
        rows = descriptor.fit_transform([list(CLIPS[0]), [], [CLIPS[0][0], b"bad"]])
    assert_array_equal(np.isnan(rows).all(axis=1), [False, True, True])
    assert [error.row for error in descriptor.errors_] == [1, 2]
    with pytest.raises(ValueError, match=r"row 1: .*a video without frames"):
        VideoDescriptor(**OPTIONS).fit_transform([CLIPS[0], []])


def test_a_modality_of_videos():
    X = pd.DataFrame({"film": [*CLIPS, None], "x": np.arange(5.0)})
    fuser = ModalityFuser(
        [("film", make_pipeline(VideoDescriptor("color"), StandardScaler()), "film"), ("x", "passthrough", ["x"])]
    )
    assert np.isfinite(fuser.fit_transform(X)).all()
    assert fuser.get_feature_names_out()[0] == "film__color_r0"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"pooling": "min"}, "'pooling' parameter"), ({"n_frames": 0}, "'n_frames' parameter"), ({"fps": 0}, "'fps'")],
)
def test_wrong_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        VideoDescriptor(**options).fit(CLIPS)
