"""Encoders with a store: what they take from it, what they add, and how several share the work."""

import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone

import skmm
from skmm import EmbeddingStore
from skmm._torch import _devices, _registry
from skmm.encoders import ImageDescriptor, ImageEncoder, TextEncoder, _model
from skmm.media import _columns
from skmm.store import _files, _private_folder, _view
from skmm.store._claims import new_owner
from skmm.store._files import FileDigests

torch = pytest.importorskip("torch")

TEXTS = ["the cat", "a dog sat on the mat", "x y z", "the cat", None, "on the mat", ""]
N_DISTINCT = 4


@pytest.fixture
def store(tmp_path):
    with EmbeddingStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def encoder(tiny_text_model, store):
    return TextEncoder(tiny_text_model, device="cpu", precision="float32", store=store)


@pytest.fixture
def encoded(monkeypatch):
    """List of the texts that go through the network from here on, one list per batch."""
    batches = []
    encode = TextEncoder._encode_batch

    def note(self, batch, model):
        batches.append([item.text for item in batch])
        return encode(self, batch, model)

    monkeypatch.setattr(TextEncoder, "_encode_batch", note)
    return batches


@pytest.fixture
def loads(monkeypatch):
    """List with an entry for each model that is loaded from here on; the registry starts empty."""
    found = []
    load = ImageEncoder._load_model, TextEncoder._load_model
    _registry.clear_models()
    for kind, original in zip((ImageEncoder, TextEncoder), load, strict=True):
        monkeypatch.setattr(
            kind, "_load_model", lambda self, *args, original=original: found.append(1) or original(self, *args)
        )
    yield found
    _registry.clear_models()


class TestRows:
    def test_rows_are_those_of_encoding(self, encoder, encoded, store):
        expected = clone(encoder).set_params(store=None).fit_transform(TEXTS)
        encoded.clear()
        np.testing.assert_allclose(encoder.fit_transform(TEXTS), expected, atol=1e-6)
        assert sum(map(len, encoded)) == N_DISTINCT == store.info()["entries"]
        encoded.clear()
        other = clone(encoder).fit(TEXTS[:1])
        assert other.store is store
        np.testing.assert_allclose(other.transform(TEXTS[::-1]), expected[::-1], atol=1e-6)
        assert encoded == []
        assert (store.hits, store.misses) == (N_DISTINCT, N_DISTINCT)

    def test_only_what_is_new_is_encoded(self, encoder, encoded):
        encoder.fit_transform(TEXTS)
        encoded.clear()
        encoder.transform(["0 1", *TEXTS, "2 3"])
        assert sorted(text for batch in encoded for text in batch) == ["0 1", "2 3"]

    def test_lengths_are_normalized_after_the_store(self, encoder, encoded):
        X = encoder.fit_transform(TEXTS)
        encoded.clear()
        unit = clone(encoder).set_params(normalize=True).fit_transform(TEXTS)
        assert encoded == []
        np.testing.assert_allclose(unit, X / np.linalg.norm(X, axis=1, keepdims=True), rtol=1e-6)

    def test_no_model_is_loaded_for_what_is_there(self, encoder, loads):
        X = encoder.fit_transform(TEXTS)
        assert loads == [1]
        _registry.clear_models()
        other = clone(encoder).set_params(on_error="missing").fit(TEXTS)
        with pytest.warns(UserWarning, match="1 of 8 items could not be encoded"):
            out = other.transform([*TEXTS, 3])
        np.testing.assert_array_equal(out[:-1], X)
        assert loads == [1]

    @pytest.mark.parametrize("kind", ["tiny_image_model", "tiny_clip_model"])
    def test_recipes_of_images_come_from_the_store_as_well(self, kind, store, loads, request):
        model = request.getfixturevalue(kind)
        pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
        X = ImageEncoder(model, store=store).fit_transform(pictures)
        _registry.clear_models()
        other = ImageEncoder(model, store=store).fit(pictures)
        np.testing.assert_array_equal(other.transform(pictures), X)
        assert loads == [1]
        green = [Image.new("RGB", (40, 30), "green")]
        expected = ImageEncoder(model, store=None).fit_transform(green)
        np.testing.assert_allclose(other.transform(green), expected, atol=1e-5)

    def test_bad_items_are_not_kept(self, encoder, store):
        encoder.set_params(on_error="missing")
        for _ in range(2):
            with pytest.warns(UserWarning, match="2 of 3 items could not be encoded"):
                out = encoder.fit_transform([7, "the cat", b"bytes"])
            assert [error.row for error in encoder.errors_] == [0, 2]
            assert np.isnan(out).all(axis=1).tolist() == [True, False, True]
        assert store.info()["entries"] == 1

    def test_a_damaged_entry_is_encoded_again(self, encoder, encoded, store):
        X = encoder.fit_transform(TEXTS)
        connection = store._engine._connection
        connection.execute("UPDATE entries SET value = zeroblob(length(value)) WHERE block > 0")
        encoded.clear()
        for _ in range(2):
            np.testing.assert_allclose(encoder.transform(TEXTS), X, atol=1e-6)
        assert sum(map(len, encoded)) == N_DISTINCT

    def test_a_store_that_cannot_be_used(self, encoder, tmp_path):
        (tmp_path / "file").write_text("")
        expected = encoder.fit_transform(TEXTS)
        encoder.set_params(store=tmp_path / "file" / "store")
        with pytest.warns(UserWarning, match="cannot be used") as caught:
            np.testing.assert_allclose(encoder.fit_transform(TEXTS), expected, atol=1e-6)
        assert len(caught) == 1

    def test_descriptors_have_none(self):
        assert "store" not in ImageDescriptor().get_params()

    def test_bad_stores_are_refused(self, encoder):
        with pytest.raises(ValueError, match="'store' parameter"):
            encoder.set_params(store=3).fit(TEXTS)


class TestWorkers:
    def test_two_threads_share_the_work(self, encoder, encoded, monkeypatch):
        texts = [f"cat {i}" for i in range(60)]
        encoder.set_params(batch_size=5).fit(texts)
        note = TextEncoder._encode_batch
        begun, known = threading.Barrier(2, timeout=600), threading.local()

        def slow(self, batch, model):
            # Both begin before either has written anything.
            if not hasattr(known, "begun"):
                known.begun = True
                begun.wait()
            time.sleep(0.01)
            return note(self, batch, model)

        monkeypatch.setattr(TextEncoder, "_encode_batch", slow)
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(encoder.transform, [texts, texts])
        np.testing.assert_allclose(first, second, atol=1e-6)
        # At most one batch each twice.
        assert len(texts) <= sum(map(len, encoded)) <= len(texts) + 2 * 5

    def test_four_threads_get_the_same_rows_and_keep_each_once(self, encoder, encoded, store):
        texts = [f"cat {i}" for i in range(120)]
        batch_size, n_workers = 5, 4
        encoder.set_params(batch_size=batch_size).fit(texts)
        expected = clone(encoder).set_params(store=None).fit_transform(texts)
        encoded.clear()
        orders = [np.random.default_rng(i).permutation(len(texts)) for i in range(n_workers)]
        begin = threading.Barrier(n_workers, timeout=600)

        def work(order):
            begin.wait()
            return encoder.transform([texts[i] for i in order])

        with ThreadPoolExecutor(n_workers) as pool:
            for order, X in zip(orders, pool.map(work, orders), strict=True):
                np.testing.assert_allclose(X, expected[order], atol=1e-6)
        assert store.info()["entries"] == len(texts)
        # At most one batch each twice.
        assert len(texts) <= sum(map(len, encoded)) <= len(texts) + n_workers * batch_size

    def test_what_a_slow_worker_has_not_begun_with_is_taken_over(self, tiny_image_model, store, monkeypatch):
        images = np.random.default_rng(0).integers(256, size=(128, 8, 8, 3), dtype=np.uint8)
        batch_size, n_workers = 4, 4
        encoder = ImageEncoder(tiny_image_model, device="cpu", batch_size=batch_size, store=store).fit(images)
        expected = clone(encoder).set_params(store=None).fit_transform(images)
        monkeypatch.setattr(ImageEncoder, "_n_workers", lambda self, model: 1)
        encode, known, batches = ImageEncoder._encode_batch, threading.local(), []
        begun = threading.Barrier(n_workers, timeout=600)

        def note(self, batch, model):
            # All have claimed a window, and one stays in its first batch until nothing else is left.
            is_first = not hasattr(known, "begun")
            if is_first:
                known.begun = True
                is_slow = begun.wait() == 0
            batches.append(len(batch))
            rows = encode(self, batch, model)
            if is_first and is_slow:
                deadline = time.monotonic() + 600
                while store.info()["entries"] < len(images) - len(batch):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            return rows

        monkeypatch.setattr(ImageEncoder, "_encode_batch", note)
        with ThreadPoolExecutor(n_workers) as pool:
            for X in pool.map(encoder.transform, [images] * n_workers):
                np.testing.assert_allclose(X, expected, atol=1e-5)
        assert len(images) <= sum(batches) <= len(images) + n_workers * batch_size

    def test_who_has_stopped_is_not_waited_for_without_end(self, encoder, encoded, store, monkeypatch):
        monkeypatch.setattr(_view, "_PATIENCE", 0.05)
        encoder.fit(TEXTS)
        kept = encoder._kept_rows(np.zeros((1, encoder.n_features_out_), dtype=np.float32))
        (key,) = encoder._store_keys(["the cat"], kept)
        store.claim([key], new_owner())
        assert np.isfinite(encoder.transform(["the cat", "x y z"])).all()
        assert encoded == [["x y z"], ["the cat"]]

    def test_one_at_a_time_where_a_device_is_shared(self, encoder, encoded, loads, monkeypatch):
        monkeypatch.setattr(_model, "expected_place", lambda device, precision: ("cuda", "float32"))
        texts = [f"cat {i}" for i in range(30)]
        encoder.set_params(batch_size=5)
        joblib.Parallel(n_jobs=4, backend="threading")(
            joblib.delayed(clone(encoder).fit_transform)(texts) for _ in range(4)
        )
        assert sum(map(len, encoded)) == len(texts)
        assert loads == [1]

    def test_claims_end_with_the_call(self, encoder, store):
        encoder.set_params(on_error="missing").fit(TEXTS)
        with pytest.warns(UserWarning, match="could not be encoded"):
            encoder.transform(["the cat", 3])
        assert store._engine._connection.execute("SELECT count(*) FROM claims").fetchone() == (0,)

    def test_pickles_lead_workers_to_the_private_folder(self, encoder):
        encoder.set_params(store="auto")
        folder = _private_folder.private_folder()
        dump = pickle.dumps(encoder)
        _private_folder._folder = None
        assert "_private_folder" not in vars(pickle.loads(dump))
        assert _private_folder.private_folder() == folder
        assert os.fsencode(folder) not in pickle.dumps(encoder.set_params(store=None))

    def test_what_joblib_hashes_does_not_depend_on_the_session(self, tiny_text_model, tmp_path):
        encoder = TextEncoder(tiny_text_model)
        before = joblib.hash(encoder)
        _private_folder._folder = tmp_path
        assert joblib.hash(encoder) == before

    def test_forking_after_a_network_ran(self, encoder, monkeypatch):
        X = encoder.fit_transform(TEXTS)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        monkeypatch.setattr(_devices, "_ran_in", None)
        _devices.note_run()
        process = os.getpid()
        monkeypatch.setattr(_devices.os, "getpid", lambda: process + 1)
        # What is there needs no network.
        np.testing.assert_array_equal(encoder.transform(TEXTS), X)
        with pytest.raises(RuntimeError, match="forked from one in which a network had already run"):
            encoder.transform(["0 1 2"])


FORKED = """
import multiprocessing, os, sys, warnings
import torch
from skmm import TextEncoder

warnings.simplefilter("ignore", DeprecationWarning)
# Whatever the number of cores here: what hangs are threads that a child does not have.
torch.set_num_threads(2)
encoder = TextEncoder(sys.argv[1], device="cpu", precision="float32", store=sys.argv[2])
encoder.fit_transform(["the cat", "a dog"])

def work(text):
    try:
        return encoder.transform([text]).shape
    except RuntimeError as error:
        return str(error)

with multiprocessing.get_context("fork").Pool(1) as pool:
    print(*pool.map(work, ["the cat", "on the mat"]), sep="\\n")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_real_fork_after_a_network_ran(tiny_text_model, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, tiny_text_model, str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": str(Path(skmm.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    kept, new = done.stdout.splitlines()
    assert kept == "(1, 16)", done.stderr
    assert "forked from one in which a network had already run" in new
    assert "Use joblib's default backend (loky)" in new


FORKED_SEARCH = """
import sys, warnings
import joblib, torch
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skmm import TextEncoder

warnings.simplefilter("ignore")
torch.set_num_threads(2)
texts, y = [f"the cat {i}" for i in range(12)], [0, 1] * 6
encoder = TextEncoder(sys.argv[1], device="cpu", precision="float32", store=sys.argv[2])
encoder.fit_transform(["a network runs here"])

def search(error_score):
    pipe = make_pipeline(encoder, RidgeClassifier())
    with joblib.parallel_config(backend="multiprocessing"):
        found = GridSearchCV(pipe, {"ridgeclassifier__alpha": [0.1, 1]}, cv=2, n_jobs=2, error_score=error_score)
        return found.fit(texts, y).best_score_

for error_score in ("raise", float("nan")):
    try:
        search(error_score)
    except Exception as error:
        print(type(error).__name__, "Use joblib's default backend (loky), or encode everything" in str(error))
encoder.transform(texts)
print(search("raise"))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_search_that_forks_after_a_network_ran(tiny_text_model, tmp_path):
    root = str(Path(skmm.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", FORKED_SEARCH, tiny_text_model, str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": root, "JOBLIB_START_METHOD": "fork"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    raised, failed, score = done.stdout.splitlines()
    assert raised == "RuntimeError True", done.stderr
    # All fits failed, and the report on that quotes why.
    assert failed == "ValueError True"
    # Encoded before the fork, everything is found in the store.
    assert 0 <= float(score) <= 1


class TestKeys:
    def test_transparency_in_a_palette_tells_images_apart(self):
        keys = set()
        for alpha in (0, 255):
            image = Image.new("P", (2, 2))
            image.putpalette([255, 0, 0, alpha], "RGBA")
            keys.add(_columns.content_key(image))
        assert len(keys) == 2

    def test_what_can_be_encoded_but_is_no_text_has_no_key(self, encoder):
        class Impostor:
            def encode(self):
                return b"the cat"

        encoder.set_params(on_error="missing").fit_transform(["the cat"])
        with pytest.warns(UserWarning, match="1 of 2 items could not be encoded"):
            out = encoder.transform(["the cat", Impostor()])
        assert np.isnan(out).all(axis=1).tolist() == [False, True]


class TestFiles:
    def test_a_file_that_is_written_again(self, tiny_image_model, store, tmp_path):
        path = tmp_path / "picture.png"
        encoder = ImageEncoder(tiny_image_model, store=store).fit([None])
        rows = []
        for colour in ("red", "blue", "red"):
            Image.new("RGB", (32, 32), colour).save(path)
            rows.append(encoder.transform([str(path)])[0])
        assert not np.allclose(rows[0], rows[1])
        np.testing.assert_array_equal(rows[0], rows[2])
        assert store.info()["entries"] == 2

    def test_a_file_replaced_between_key_and_decoding_is_not_kept(self, tiny_image_model, store, tmp_path, monkeypatch):
        path, steady = tmp_path / "picture.png", tmp_path / "steady.png"
        for place, colour in ((path, "red"), (steady, "green")):
            Image.new("RGB", (32, 32), colour).save(place)
        encoder = ImageEncoder(tiny_image_model, store=store).fit([None])
        find_keys = ImageEncoder._store_keys

        def replace(self, items, kept):
            keys = find_keys(self, items, kept)
            if len(items) == 2:
                Image.new("RGB", (32, 32), "blue").save(path)
            return keys

        monkeypatch.setattr(ImageEncoder, "_store_keys", replace)
        encoder.transform([str(path), str(steady)])
        assert store.info()["entries"] == 1
        monkeypatch.undo()
        blue, red = encoder.transform([str(path)]), encoder.transform([Image.new("RGB", (32, 32), "red")])
        Image.new("RGB", (32, 32), "red").save(path)
        np.testing.assert_allclose(encoder.transform([str(path)]), red, atol=1e-5)
        assert not np.allclose(blue, red)

    def test_a_model_replaced_between_identity_and_loading(self, make_text_model, store, tmp_path, monkeypatch):
        first = make_text_model(tmp_path / "first")
        second = make_text_model(tmp_path / "second", seed=1)
        encoder = TextEncoder(first, device="cpu", precision="float32", store=store).fit(TEXTS)
        expected = TextEncoder(second, device="cpu", precision="float32", store=None).fit_transform(TEXTS)
        look_up = _view.KeptRows.look_up

        def replace(self, groups, report):
            first.rename(tmp_path / "before")
            second.rename(first)
            return look_up(self, groups, report)

        monkeypatch.setattr(_view.KeptRows, "look_up", replace)
        with pytest.raises(OSError, match="was written to while the model was loaded; call again"):
            encoder.transform(TEXTS)
        monkeypatch.undo()
        assert store.info()["entries"] == 0
        np.testing.assert_allclose(encoder.transform(TEXTS), expected, atol=1e-6)

    def test_a_model_replaced_while_it_loads(self, make_text_model, store, tmp_path, monkeypatch):
        folder = make_text_model(tmp_path / "model")
        load = TextEncoder._load_model

        def touch(self, *args):
            (folder / "new.txt").write_text("new")
            return load(self, *args)

        monkeypatch.setattr(TextEncoder, "_load_model", touch)
        encoder = TextEncoder(folder, device="cpu", store=store)
        with pytest.raises(OSError, match="was written to while the model was loaded"):
            encoder.fit(TEXTS)
        monkeypatch.undo()
        assert encoder.fit_transform(TEXTS[:2]).shape == (2, 16)

    @pytest.fixture
    def hashed(self, monkeypatch):
        """List of the files that are read from here on, with nothing remembered; times have whole seconds."""
        found = []
        read, signature = _files._hash_file, _files._file_signature
        monkeypatch.setattr(_files, "_seen_files", {})
        monkeypatch.setattr(_files, "_hash_file", lambda path, s: found.append(path) or read(path, s))

        def coarse(path):
            full = signature(path)
            return full and (*full[:-2], *(t // 10**9 * 10**9 for t in full[-2:]))

        monkeypatch.setattr(_files, "_file_signature", coarse)
        return found

    def test_a_change_within_the_resolution_of_the_clock(self, hashed, tmp_path, store):
        path = tmp_path / "file"
        digests = set()
        for content in (b"one", b"two", b"six"):
            path.write_bytes(content)
            digests.add(FileDigests(store).of([path])[0])
        assert len(digests) == len(hashed) == 3

    def test_old_files_are_read_once(self, hashed, tmp_path, store, monkeypatch):
        paths = [tmp_path / name for name in "ab"]
        for path in paths:
            path.write_bytes(b"content")
        now = time.time()
        monkeypatch.setattr(_files.time, "time", lambda: now + 10)
        first = FileDigests(store).of([*paths, tmp_path / "absent", tmp_path])
        assert first[0] == first[1] is not None
        assert first[2:] == [None, None]
        assert FileDigests(store).of(paths) == first[:2]
        assert len(hashed) == 2
        # By another process, which finds it in the store.
        monkeypatch.setattr(_files, "_seen_files", {})
        assert FileDigests(store).of(paths) == first[:2]
        assert len(hashed) == 2
        assert FileDigests().of(paths) == first[:2]
        paths[0].write_bytes(b"other and longer")
        assert FileDigests(store).of(paths)[0] != first[0]
