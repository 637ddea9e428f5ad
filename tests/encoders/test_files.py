"""Files in dicts and struct columns, as data sets hand them out, and paths below a root."""

import io
import os
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from skmm import (
    EmbeddingStore,
    ModalityFuser,
    ModalityStackingClassifier,
    ModalityVotingClassifier,
    MultimodalNetClassifier,
)
from skmm.encoders import (
    AudioDescriptor,
    AudioEncoder,
    ImageDescriptor,
    ImageEncoder,
    VideoAudio,
    VideoDescriptor,
    VideoEncoder,
)
from skmm.media import locate_file

RATE = 16_000


def network():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())


def audio_network():
    return nn.Sequential(nn.Unflatten(1, (1, -1)), nn.AdaptiveAvgPool1d(4), nn.Flatten())


PLAIN = {"input_size": (3, 32, 32)}
ENCODERS = {
    "image": lambda **options: ImageEncoder(network(), preprocess=PLAIN, **options),
    "image descriptor": lambda **options: ImageDescriptor("pixels", **options),
    "audio": lambda **options: AudioEncoder(audio_network(), **options),
    "audio descriptor": lambda **options: AudioDescriptor("rms", **options),
    "video descriptor": lambda **options: VideoDescriptor("pixels", n_frames=2, **options),
    "video": lambda **options: VideoEncoder(network(), preprocess=PLAIN, n_frames=2, **options),
    "sound of a video": lambda **options: VideoAudio(**options),
}


@pytest.fixture
def files(make_video):
    """Two files for each encoder."""
    rng = np.random.default_rng(0)
    photos, sounds = [], []
    for _ in range(2):
        photo = io.BytesIO()
        Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(photo, "PNG")
        photos.append(photo.getvalue())
        soundfile = pytest.importorskip("soundfile", reason='needs pip install "skmm[audio]"')
        sound = io.BytesIO()
        soundfile.write(sound, rng.uniform(-0.5, 0.5, size=3200), RATE, format="WAV")
        sounds.append(sound.getvalue())
    clips = [
        make_video(
            frames=list(rng.integers(256, size=(3, 32, 32, 3), dtype=np.uint8)),
            sound=[rng.integers(-999, 999, size=1600).astype(np.int16)],
            sampling_rate=RATE,
        )
        for _ in range(2)
    ]
    by_kind = {"image": photos, "audio": sounds, "video": clips, "sound": clips}
    return {kind: by_kind[kind.split()[0]] for kind in ENCODERS}


def same(rows, other):
    """Compare rows of numbers, or of pairs of a rate and a waveform."""
    for row, expected in zip(rows, other, strict=True):
        for value, value_expected in zip(row, expected, strict=True) if isinstance(row, tuple) else [(row, expected)]:
            assert_array_equal(value, value_expected)


COLUMNS = {
    "list": list,
    "pandas": pd.Series,
    "pandas of Arrow": lambda dicts: pd.Series(pa.array(dicts), dtype=pd.ArrowDtype(pa.array(dicts).type)),
    "polars": pl.Series,
    "Arrow": pa.array,
    "Table": lambda dicts: pa.table({"file": pa.chunked_array([dicts[:1], dicts[1:]])}),
}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("container", COLUMNS)
def test_dicts_of_files_are_read_from_any_container(kind, container, files, tmp_path):
    """Bytes come first, else the path counts; what has neither is missing."""
    first, second = files[kind]
    (tmp_path / "second").write_bytes(second)
    dicts = [
        {"bytes": first, "path": "gone"},
        {"bytes": None, "path": str(tmp_path / "second")},
        {"bytes": None, "path": None},
    ]
    encoder = ENCODERS[kind]()
    expected = encoder.fit_transform([first, tmp_path / "second", None])
    same(encoder.fit_transform(COLUMNS[container](dicts)), expected)


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "sound of a video"])
def test_equal_bytes_share_a_row_of_the_store(kind, files, tmp_path):
    first, second = files[kind]
    store = EmbeddingStore(tmp_path / "store")
    encoder = ENCODERS[kind](store=store)
    forms = [first, {"bytes": first, "path": "a"}, {"path": "b", "bytes": first}, {"bytes": first}, bytearray(first)]
    rows = encoder.fit_transform([*forms, {"bytes": second, "path": "a"}])
    assert store.info()["entries"] == 2
    same(rows[1:5], [rows[0]] * 4)
    assert not np.array_equal(rows[5], rows[0])


def test_a_decoded_sound_is_known_by_its_waveform(tmp_path):
    store = EmbeddingStore(tmp_path)
    wave = np.sin(np.arange(1600) / 9)
    sounds = [{"array": wave, "sampling_rate": RATE, "path": path} for path in ("a.wav", "b.wav", None)]
    rows = ENCODERS["audio"](store=store).fit_transform([*sounds, (RATE, wave)])
    same(rows, [rows[0]] * 4)
    # A pair is another form, and keeps a row of its own.
    assert store.info()["entries"] == 2


@pytest.mark.parametrize("kind", ENCODERS)
def test_relative_paths_are_below_the_root(kind, files, tmp_path, monkeypatch):
    for place in ("here", "elsewhere"):
        (tmp_path / place / "sub").mkdir(parents=True)
        for name, content in zip("ab", files[kind], strict=True):
            (tmp_path / place / "sub" / name).write_bytes(content)
    store = {} if kind == "sound of a video" else {"store": EmbeddingStore(tmp_path / "store")}
    encoder = ENCODERS[kind](root=tmp_path / "here", **store)
    items = ["sub/a", {"path": "sub/b"}, None, "", str(tmp_path / "here" / "sub" / "a")]
    rows = encoder.fit_transform(items)
    same(rows, ENCODERS[kind]().fit_transform([*files[kind], None, None, files[kind][0]]))
    # Served elsewhere, with the rows that the store has.
    monkeypatch.chdir(tmp_path)
    served = pickle.loads(pickle.dumps(encoder)) if not store else encoder
    same(served.set_params(root="elsewhere").transform(items), rows)
    if store:
        assert store["store"].info()["entries"] == 2
    for name in ("a", "b"):
        (tmp_path / "elsewhere" / "sub" / name).unlink()
    with pytest.raises(ValueError, match=r"row 0: .elsewhere.sub.a.: the file does not exist"):
        served.transform(["sub/a"])
    assert str(served.find_errors([None, "sub/a"])[0]).count(os.path.join("elsewhere", "sub", "a")) == 1


def test_frames_of_a_list_are_below_the_root_as_well(files, tmp_path):
    for name, content in zip("ab", files["image"], strict=True):
        (tmp_path / name).write_bytes(content)
    expected = ENCODERS["video"]().fit_transform([files["image"]])
    paths = np.array(["a", "b"])
    for frames in (["a", "b"], ("a", {"path": "b"}), (10.0, ["a", "b"]), paths, paths.astype(object)):
        assert_array_equal(ENCODERS["video"](root=tmp_path).fit_transform([frames]), expected)
    column = pl.Series([["a", "b"], None])
    assert_array_equal(ENCODERS["video"](root=tmp_path).fit_transform(column)[:1], expected)


def test_a_root_leaves_other_items_as_they_are():
    wave, url, path = [0.5, 0.25, 0.125], "https://example.org/a.png", os.path.join("top", "a")
    for item in (None, "", wave, url, "data:image/png;base64,AAAA", b"x", (RATE, wave), {"other": 1}, np.zeros(3)):
        located = locate_file(item, "top")
        assert located is item or located == item
    assert locate_file("a", "top") == locate_file({"path": "a"}, "top") == path
    assert locate_file(os.path.abspath("a"), "top") == os.path.abspath("a")


COMPOSITES = {
    "fuser": lambda encoder: ModalityFuser([("photo", encoder, [0])]),
    "network": lambda encoder: MultimodalNetClassifier([("photo", encoder, [0])], max_epochs=1, random_state=0),
    "voter": lambda encoder: ModalityVotingClassifier([("photo", make_pipeline(encoder, LogisticRegression()), [0])]),
    "stacker": lambda encoder: ModalityStackingClassifier(
        [("photo", make_pipeline(encoder, LogisticRegression()), [0])], cv=2
    ),
}


@pytest.mark.parametrize("kind", COMPOSITES)
def test_a_member_of_a_fitted_composite_is_given_another_root(kind, files, tmp_path):
    for place in ("here", "elsewhere"):
        (tmp_path / place).mkdir()
        for name, content in zip("ab", files["image"], strict=True):
            (tmp_path / place / name).write_bytes(content)
    fitted = COMPOSITES[kind](ENCODERS["image descriptor"](root=tmp_path / "here"))
    X = np.array([["a"], ["b"]] * 4, dtype=object)
    answers = fitted.fit(X, [0, 1] * 4).transform(X)
    (tmp_path / "here" / "a").unlink()
    with pytest.raises(
        ValueError, match=r"modality 'photo', ImageDescriptor: row 0: .*here.a.: the file does not exist"
    ):
        fitted.transform(X)
    member = fitted.named_modalities_.photo
    (member[0] if kind in ("voter", "stacker") else member).set_params(root=tmp_path / "elsewhere")
    assert_array_equal(fitted.transform(X), answers)
