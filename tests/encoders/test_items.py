"""What tells two items apart: equal ones share a key, and none others do."""

import enum
import functools
import io

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from torch import nn

from skmm import EmbeddingStore
from skmm.encoders import AudioDescriptor, AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder
from skmm.encoders._model import ModelEncoder
from skmm.store import ItemDigests, content_key

RATE = 16_000
WAVE = np.sin(np.arange(3200) / 5).astype(np.float32)
FRAMES = np.random.default_rng(0).integers(256, size=(3, 40, 40, 3), dtype=np.uint8)
PCM = np.arange(12, dtype=np.int16).reshape(3, 4)


@functools.cache
def wav():
    """Content of a file, written once: a file of floats contains the time of day."""
    soundfile = pytest.importorskip("soundfile")
    stream = io.BytesIO()
    soundfile.write(stream, WAVE, RATE, format="WAV", subtype="FLOAT")
    return stream.getvalue()


def digest(item):
    return ItemDigests(b"c" * 32, None).of([item])[0]


def object_array(parts):
    array = np.empty(len(parts), dtype=object)
    for position, part in enumerate(parts):
        array[position] = part
    return array


# Form -> what makes an item of it anew.
FORMS = {
    "bytes": lambda: bytes(bytearray(wav())),
    "bytearray": lambda: bytearray(wav()),
    "memoryview": lambda: memoryview(wav()),
    "dict with an array": lambda: {"sampling_rate": RATE, "array": WAVE.copy()},
    "dict with bytes": lambda: {"bytes": wav(), "path": "gone.wav"},
    "dict with bytes and no path": lambda: {"bytes": wav(), "path": None},
    "pair": lambda: (RATE, WAVE.copy()),
    "pair with an integer of numpy": lambda: (np.int64(RATE), WAVE.copy()),
    "pair with a short integer of numpy": lambda: (np.int16(RATE), WAVE.copy()),
    "pair with a float of numpy": lambda: (np.float32(RATE), WAVE.copy()),
    "pair with a list": lambda: (RATE, WAVE.tolist()),
    "pair with a list of channels": lambda: (RATE, [[x, x] for x in WAVE.tolist()]),
    "list": lambda: [RATE, WAVE.copy()],
}


class TestEqualItemsAreEncodedOnce:
    @pytest.fixture
    def encoded(self, monkeypatch):
        """Numbers of rows that go through a network from here on."""
        numbers = []
        encode = ModelEncoder._encode_batch
        monkeypatch.setattr(
            ModelEncoder,
            "_encode_batch",
            lambda self, batch, model: numbers.append(len(batch)) or encode(self, batch, model),
        )
        return numbers

    def check(self, encoder, make, encoded, tmp_path):
        alone = encoder.set_params(store=None).fit_transform([make()])
        encoded.clear()
        X = encoder.transform([make() for _ in range(5)])
        assert sum(encoded) == 1
        np.testing.assert_array_equal(X, alone[[0] * 5])
        with EmbeddingStore(tmp_path / "store") as store:
            encoder.set_params(store=store)
            for _ in range(2):
                np.testing.assert_array_equal(encoder.transform([make() for _ in range(5)]), X)
            assert sum(encoded) == 2
            assert store.info()["entries"] == 1

    @pytest.mark.parametrize("form", FORMS)
    def test_sound(self, form, make_audio_model, encoded, tmp_path):
        pytest.importorskip("transformers")
        encoder = AudioEncoder(make_audio_model("wav2vec2"), device="cpu", precision="float32")
        self.check(encoder, FORMS[form], encoded, tmp_path)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: list(FRAMES.copy()),
            lambda: tuple(FRAMES.copy()),
            lambda: object_array(list(FRAMES.copy())),
            lambda: (10.0, list(FRAMES.copy())),
        ],
        ids=["list", "tuple", "array of objects", "pair"],
    )
    def test_frames(self, make, tiny_image_model, encoded, tmp_path):
        self.check(VideoEncoder(tiny_image_model, device="cpu", precision="float32"), make, encoded, tmp_path)

    def test_strings_and_paths_of_one_file(self, tiny_image_model, encoded, tmp_path):
        path = tmp_path / "picture.png"
        Image.fromarray(FRAMES[0]).save(path)
        X = ImageEncoder(tiny_image_model, device="cpu", store=None).fit_transform([str(path), path, np.str_(path)])
        assert encoded == [1]
        np.testing.assert_array_equal(X[1:], X[[0, 0]])

    def test_a_path_is_no_text(self, tiny_text_model, tmp_path):
        path = tmp_path / "cat"
        encoder = TextEncoder(tiny_text_model, device="cpu", store=None, on_error="missing")
        with pytest.warns(UserWarning, match="1 of 2 items could not be encoded"):
            X = encoder.fit_transform([str(path), path])
        assert np.isnan(X).all(axis=1).tolist() == [False, True]


@pytest.mark.parametrize("key_of", [content_key, digest])
class TestKeys:
    @pytest.mark.parametrize("form", FORMS)
    def test_equal_content_has_equal_keys(self, key_of, form):
        key = key_of(FORMS[form]())
        assert key is not None
        assert key_of(FORMS[form]()) == key

    def test_a_mask_without_effect_is_no_content(self, key_of):
        assert key_of(np.ma.array(PCM)) == key_of(np.ma.array(PCM, mask=np.zeros(PCM.shape))) == key_of(PCM)

    def test_buffers_of_equal_bytes_share_a_key(self, key_of):
        assert len({key_of(make(b"abc")) for make in (bytes, bytearray, memoryview, np.bytes_)}) == 1
        assert key_of(memoryview(b"xabcx")[1:4]) == key_of(b"abc")

    def test_all_others_are_apart(self, key_of):
        items = [
            b"abc",
            (RATE, PCM),
            (RATE + 1, PCM),
            (float(RATE), PCM),
            (np.int16(RATE), PCM),
            (np.float32(RATE), PCM),
            (np.timedelta64(RATE, "ns"), PCM),
            (True, PCM),
            (1, PCM),
            (1.0, PCM),
            [RATE, PCM],
            (RATE, PCM.T),
            *((RATE, np.ma.array(PCM, mask=np.eye(*PCM.shape, k))) for k in (0, 1)),
            (RATE, PCM.astype(np.int32)),
            (RATE, PCM.tolist()),
            (RATE, [list(row) for row in PCM]),
            (RATE, object_array(list(PCM))),
            (RATE, [[0.0, 1.0], [2.0]]),
            (RATE, [[0.0], [1.0, 2.0]]),
            (RATE, [0.0, 1.0, 2.0]),
            (RATE, [0, 1, 2]),
            (RATE, [False, True, 2]),
            (RATE, [np.float32(0), 1.0, 2.0]),
            (RATE, (0.0, 1.0, 2.0)),
            (RATE, [b"ab"]),
            (RATE, [bytearray(b"ab")]),
            (RATE, [memoryview(b"ab")]),
            {"sampling_rate": RATE, "array": PCM},
            {"sampling_rate": RATE, "array": PCM, "path": None},
            {"sampling_rate": RATE, "array": PCM, "path": "gone.wav"},
            {"bytes": b"abc"},
            {"bytes": bytearray(b"abc")},
            ((RATE, PCM),),
            [(RATE, PCM)],
        ]
        keys = [key_of(item) for item in items]
        assert None not in keys
        assert len(set(keys)) == len(items)

    def test_what_is_unclear_has_none(self, key_of):
        holds_itself = [1.0]
        holds_itself.append(holds_itself)
        in_dict = {}
        in_dict["array"] = [in_dict]
        deep = [1.0]
        for _ in range(20):
            deep = [deep]
        released = memoryview(b"abc")
        released.release()
        unclear = [
            (RATE, object()),
            [object()],
            {"array": object()},
            {1: PCM},
            object_array([object()]),
            np.zeros(2, dtype=[("x", object)]),
            holds_itself,
            (RATE, holds_itself),
            in_dict,
            object_array([holds_itself]),
            deep,
            (10**5000, PCM),
            memoryview(b"abcdef")[::2],
            memoryview(PCM),
            memoryview(b"abcd").cast("b"),
            memoryview(b"abcd").cast("B", (2, 2)),
            released,
        ]
        assert [key_of(item) for item in unclear] == [None] * len(unclear)

    def test_long_lists_are_told_apart_by_each_number(self, key_of):
        numbers = [float(i) for i in range(10_000)]
        keys = {key_of(numbers)}
        for place in (0, 4095, 4096, 9999):
            keys.add(key_of([*numbers[:place], -1.0, *numbers[place + 1 :]]))
        assert len(keys) == 5


def test_keys_of_kept_stores_stay_as_they_are(tmp_path):
    path = tmp_path / "file.PNG"
    path.write_bytes(b"content of a file")
    palette = Image.new("P", (2, 2))
    palette.putpalette([255, 0, 0])
    kept = {
        "aaa344205d839187ef7309e6a68a482b": b"abc",
        "7e32c1bfc64a7faee70c3e18bc405db2": PCM,
        "b8fb47699165fb7ccac4eed7fc0f9d23": np.array(["2020-01-01"], dtype="M8[D]"),
        "26760e6856a92ea2cf1d299a63e1907c": Image.new("RGB", (3, 2), "red"),
        "06d6f4d5c620a67ef93a27f379abea4e": palette,
        "ca4d38642cf4ce72df4d7a3816c5cedc": path,
        "e87211a3d825dea7db46d851d1d10fbd": (RATE, PCM),
        "7b52f249dd8e4d788578702e10266b83": (1.5, PCM),
    }
    assert [digest(item).hex()[:32] for item in kept.values()] == list(kept)
    assert digest(str(path)) == digest(path)
    assert digest((np.int64(RATE), PCM)) == digest((RATE, PCM))


def test_a_tuple_of_samples_does_not_get_the_row_of_a_list():
    encoder = AudioDescriptor(sampling_rate=RATE, on_error="missing")
    with pytest.warns(UserWarning, match="1 of 2 items could not be encoded"):
        X = encoder.fit_transform([WAVE.tolist(), tuple(WAVE.tolist())])
    assert np.isnan(X).all(axis=1).tolist() == [False, True]


def test_numbers_of_other_types_do_not_share_a_row():
    samples = (3000 * WAVE).astype(np.int16)
    encoder = AudioDescriptor(on_error="missing")
    with pytest.warns(UserWarning, match="1 of 2 items could not be encoded"):
        X = encoder.fit_transform([(RATE, list(samples)), (RATE, samples.tolist())])
    assert np.isnan(X).all(axis=1).tolist() == [False, True]


def test_a_file_beside_its_bytes_that_appears_later_counts(tmp_path):
    path = tmp_path / "sound.wav"
    item = {"bytes": b"abc", "path": str(path)}
    before = digest(item)
    path.write_bytes(b"def")
    assert None not in (before, digest(item))
    assert digest(item) != before
    assert digest(str(tmp_path / "gone.wav")) is None


class TestUnchanged:
    """Rows are kept only of files that are the same after decoding as when their digest was computed."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda path: path,
            lambda path: str(path),
            lambda path: [path, PCM],
            lambda path: (10.0, (str(path), PCM)),
            lambda path: {"bytes": None, "path": str(path)},
            lambda path: object_array([path, PCM]),
        ],
        ids=["path", "string", "list", "pair", "dict", "array of objects"],
    )
    def test_files_wherever_an_item_names_them(self, make, tmp_path):
        path = tmp_path / "sound.wav"
        path.write_bytes(b"abc")
        digests = ItemDigests(b"c" * 32, None)
        keys = digests.of([make(path), PCM])
        assert digests.are_unchanged(keys).tolist() == [True, True]
        path.write_bytes(b"defg")
        assert digests.are_unchanged(keys).tolist() == [False, True]

    def test_texts_name_no_files(self, tmp_path):
        path = tmp_path / "note.txt"
        path.write_bytes(b"abc")
        digests = ItemDigests(b"c" * 32, None, strings_are_paths=False)
        keys = digests.of([str(path), "gone.txt"])
        path.write_bytes(b"defg")
        assert digests.are_unchanged(keys).tolist() == [True, True]


# What writes itself as the name of its member, other than enum.StrEnum.
class Colour(str, enum.Enum):  # noqa: UP042
    RED = "red"


class Shouted(str):
    """Text that writes itself in another way."""

    def __str__(self):
        return self.upper()

    def encode(self, *args):
        return self.upper().encode(*args)


class Whole(float):
    """Number that writes itself without its digits."""

    def __repr__(self):
        return "1"


class TestSubclassesOfPlainTypes:
    """They count by their content, in the key as in the encoder, however they write themselves."""

    @pytest.mark.parametrize("text", [Colour.RED, Shouted("red"), np.str_("red")])
    def test_texts(self, text, tiny_text_model, tmp_path):
        with EmbeddingStore(tmp_path / "store") as store:
            encoder = TextEncoder(tiny_text_model, device="cpu", precision="float32", store=store)
            expected = clone(encoder).set_params(store=None).fit_transform(["red", "cat"])
            np.testing.assert_allclose(encoder.fit_transform([text]), expected[:1], atol=1e-6)
            np.testing.assert_allclose(encoder.fit_transform(["red"]), expected[:1], atol=1e-6)
            assert store.info()["entries"] == 1
        assert content_key(text, strings_are_paths=False) == content_key("red", strings_are_paths=False)

    def test_paths(self, tmp_path):
        path = tmp_path / "red"
        path.write_bytes(b"abc")

        class Kind(str, enum.Enum):  # noqa: UP042
            PATH = str(path)

        assert digest(Kind.PATH) == digest(str(path)) == digest(path) is not None
        assert content_key(Kind.PATH) == content_key(path)

    @pytest.mark.parametrize("key_of", [content_key, digest])
    def test_numbers(self, key_of):
        assert key_of((Whole(1), PCM)) != key_of((Whole(2), PCM))


class TestArraysOfOtherLibraries:
    """Tensors and series are known by their numbers, as arrays are."""

    @pytest.mark.parametrize("key_of", [content_key, digest])
    @pytest.mark.parametrize("make", [torch.from_numpy, pd.Series, pl.Series, pa.array], ids=lambda f: f.__module__)
    @pytest.mark.parametrize("form", [lambda x: x, lambda x: (RATE, x), lambda x: {"sampling_rate": RATE, "array": x}])
    def test_equal_content_has_equal_keys(self, key_of, make, form):
        keys = [key_of(form(make(wave.copy()))) for wave in (WAVE, WAVE, -WAVE)]
        assert keys[0] == keys[1] != keys[2] is not None
        assert keys[0] is not None

    def test_tensors_that_learn_are_known(self):
        assert digest((RATE, torch.ones(3, requires_grad=True))) == digest((RATE, torch.ones(3)))

    def test_waveforms_are_kept(self, tmp_path):
        network = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.AdaptiveAvgPool1d(4), nn.Flatten()).eval()
        items = [(RATE, torch.from_numpy(WAVE * factor)) for factor in (1, 0.5, 0.25)]
        with EmbeddingStore(tmp_path / "store") as store:
            X = [AudioEncoder(network, store=store).fit_transform(items) for _ in range(3)]
            assert (store.info()["entries"], store.hits, store.misses) == (3, 6, 3)
        np.testing.assert_array_equal(X[1], X[0])
        np.testing.assert_array_equal(X[2], X[0])
