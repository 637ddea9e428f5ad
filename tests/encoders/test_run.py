"""One call of an encoder with a store: what it takes from it, what it adds, and how several calls share the work."""

import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone

import skmm
from skmm import EmbeddingStore, _torch
from skmm._columns import present_rows
from skmm.encoders import ImageEncoder, ItemEncoder, ModelEncoder, TextEncoder, _run
from skmm.encoders._run import EncodingRun
from skmm.exceptions import RejectedItem
from skmm.store import ItemDigests, _content, _engine, _private_folder, digest_of, file_digests, file_signature

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
    loaded = []
    load = ImageEncoder._load_model, TextEncoder._load_model
    _torch.clear_models()
    for kind, original in zip((ImageEncoder, TextEncoder), load, strict=True):
        monkeypatch.setattr(
            kind, "_load_model", lambda self, *args, original=original: loaded.append(1) or original(self, *args)
        )
    yield loaded
    _torch.clear_models()


class TestRows:
    def test_rows_are_those_of_encoding(self, encoder, encoded, store):
        expected = clone(encoder).set_params(store=None).fit_transform(TEXTS)
        encoded.clear()
        first = encoder.fit_transform(TEXTS)
        assert_allclose(first, expected, atol=1e-6)
        assert sum(map(len, encoded)) == N_DISTINCT == store.info()["entries"]
        encoded.clear()
        other = clone(encoder).fit(TEXTS[:1])
        assert other.store is store
        # What the store gave once it gives again, to the bit.
        assert_array_equal(other.transform(TEXTS[::-1]), first[::-1])
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
        assert_allclose(unit, X / np.linalg.norm(X, axis=1, keepdims=True), rtol=1e-6)

    def test_no_model_is_loaded_for_stored_rows(self, encoder, loads):
        X = encoder.fit_transform(TEXTS)
        assert loads == [1]
        _torch.clear_models()
        other = clone(encoder).set_params(on_error="missing").fit(TEXTS)
        with pytest.warns(UserWarning, match="1 of 8 items could not be encoded"):
            out = other.transform([*TEXTS, 3])
        assert_array_equal(out[:-1], X)
        assert loads == [1]

    @pytest.mark.parametrize("kind", ["tiny_image_model", "tiny_clip_model"])
    def test_recipes_of_images_come_from_the_store_as_well(self, kind, store, loads, request):
        model = request.getfixturevalue(kind)
        pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
        X = ImageEncoder(model, precision="float32", store=store).fit_transform(pictures)
        _torch.clear_models()
        other = ImageEncoder(model, precision="float32", store=store).fit(pictures)
        assert_array_equal(other.transform(pictures), X)
        assert loads == [1]
        green = [Image.new("RGB", (40, 30), "green")]
        expected = ImageEncoder(model, precision="float32", store=None).fit_transform(green)
        assert_allclose(other.transform(green), expected, atol=1e-5)

    def test_bad_items_are_not_stored(self, encoder, store):
        encoder.set_params(on_error="missing")
        for _ in range(2):
            with pytest.warns(UserWarning, match="2 of 3 items could not be encoded"):
                out = encoder.fit_transform([7, "the cat", b"bytes"])
            assert [error.row for error in encoder.errors_] == [0, 2]
            assert np.isnan(out).all(axis=1).tolist() == [True, False, True]
        assert store.info()["entries"] == 1

    def test_a_damaged_entry_is_encoded_again(self, encoder, encoded, store):
        X = encoder.fit_transform(TEXTS)
        store._engine._connection.execute("UPDATE entries SET value = zeroblob(length(value)) WHERE block > 0")
        encoded.clear()
        for _ in range(2):
            assert_allclose(encoder.transform(TEXTS), X, atol=1e-6)
        assert sum(map(len, encoded)) == N_DISTINCT

    def test_a_store_that_cannot_be_used(self, encoder, tmp_path):
        (tmp_path / "file").write_text("")
        expected = encoder.fit_transform(TEXTS)
        encoder.set_params(store=tmp_path / "file" / "store")
        with pytest.warns(UserWarning, match="cannot be used") as caught:
            assert_allclose(encoder.fit_transform(TEXTS), expected, atol=1e-6)
        assert len(caught) == 1

    def test_bad_stores_are_refused(self, encoder):
        with pytest.raises(ValueError, match="'store' parameter"):
            encoder.set_params(store=3).fit(TEXTS)

    def test_what_can_be_encoded_but_is_no_text_has_no_row(self, encoder):
        class Impostor:
            def encode(self):
                return b"the cat"

        encoder.set_params(on_error="missing").fit_transform(["the cat"])
        with pytest.warns(UserWarning, match="1 of 2 items could not be encoded"):
            out = encoder.transform(["the cat", Impostor()])
        assert np.isnan(out).all(axis=1).tolist() == [False, True]


class Letters(ModelEncoder):
    """Counts letters, without a network: an encoder of texts by a user, with a store. Files of texts are texts."""

    _strings_are_paths = False
    _window = 12

    def __init__(self, model="letters", *, device="cpu", precision="float32", store="auto", on_error="raise"):
        self.model = model
        self.device = device
        self.precision = precision
        self.store = store
        self.on_error = on_error

    batch_size, normalize, verbose, revision, compile = 4, False, False, None, False

    def _find_source(self):
        return None

    def _find_identity(self, run):
        return digest_of("letters")

    def _learn(self, run):
        self.n_features_out_ = 26

    def _get_model(self, run):
        return None

    def _prepare_item(self, item):
        if not isinstance(item, str):
            raise RejectedItem("no text")
        return str(item)

    def _batches(self, prepared, model):
        for start in range(0, len(prepared), self.batch_size):
            yield list(range(start, min(start + self.batch_size, len(prepared))))

    def _encode_batch(self, batch, model):
        return letters_of(batch)


def letters_of(texts):
    return np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32)


def make_texts(n_texts):
    rng = np.random.default_rng(0)
    return list(dict.fromkeys("".join(map(chr, rng.integers(97, 123, size=12))) for _ in range(n_texts)))


class TestTextsThatNameFiles:
    """An encoder of texts by a user, as the base class has it, where the texts happen to be names of files."""

    def test_each_has_a_row_of_its_own(self, store, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        texts = ["aa.txt", "bbb.txt", str(tmp_path / "aa.txt"), "gone.txt"]
        for name in texts[:2]:
            # Equal contents.
            Path(name).write_text("the same")
        for _ in range(2):
            assert_array_equal(Letters(store=store).fit_transform(texts), letters_of(texts))
        assert (store.info()["entries"], store.hits, store.misses) == (4, 4, 4)

    def test_without_a_store(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("aa.txt").write_text("a")
        assert_array_equal(Letters(store=None).fit_transform(["aa.txt", "bb.txt"]), letters_of(["aa.txt", "bb.txt"]))

    def test_paths_and_other_objects_are_no_texts(self, store, tmp_path):
        (tmp_path / "aa.txt").write_text("a")
        lenient = Letters(store=store, on_error="missing")
        with pytest.warns(UserWarning, match="2 of 3 items could not be encoded"):
            X = lenient.fit_transform([tmp_path / "aa.txt", str(tmp_path / "aa.txt"), b"aa.txt"])
        assert np.isnan(X).all(axis=1).tolist() == [True, False, True]
        assert store.info()["entries"] == 1

    def test_of_the_text_encoder(self, encoder, store, tmp_path):
        paths = [tmp_path / "cat", tmp_path / "dog"]
        for path in paths:
            path.write_text("the same")
        texts = [str(path) for path in paths]
        expected = clone(encoder).set_params(store=None).fit_transform(texts)
        assert_allclose(encoder.fit_transform(texts), expected, atol=1e-6)
        assert store.info()["entries"] == 2


@pytest.mark.parametrize("in_threads", [False, True])
def test_a_window_ends_where_its_items_fill_the_memory_meant_for_them(in_threads, monkeypatch):
    batches = []

    class Lengths(ItemEncoder):
        _prepare_in_threads = in_threads
        _window = 4

        def __init__(self, on_error="raise", verbose=False):
            self.on_error = on_error
            self.verbose = verbose

        def _fit_width(self):
            self.n_features_out_ = 1

        def _prepare_item(self, item):
            return np.zeros(item, dtype=np.uint8)

        def _encode_batch(self, batch, model):
            batches.append([item.nbytes for item in batch])
            return np.array([[item.nbytes] for item in batch], dtype=np.float32)

    monkeypatch.setattr(_run, "MAX_BYTES_AHEAD", 100)
    # The item that goes beyond the limit is the last of its window.
    windows = [[40, 41, 42], [120], [1, 2, 3, 4], [99, 5], [6]]
    sizes = [size for window in windows for size in window]
    assert_array_equal(Lengths().fit_transform(sizes)[:, 0], sizes)
    assert batches == windows


def claims_in(store):
    """Return the number of claims in a store."""
    (n_claims,) = store._engine._connection.execute("SELECT count(*) FROM claims").fetchone()
    return n_claims


class TestWorkers:
    """Calls that encode the same items at once: each row is right, stored once, and encoded once."""

    @pytest.fixture
    def batches(self, monkeypatch):
        """Numbers of texts in the batches that are encoded from here on."""
        sizes, encode = [], Letters._encode_batch
        monkeypatch.setattr(
            Letters, "_encode_batch", lambda self, batch, model: sizes.append(len(batch)) or encode(self, batch, model)
        )
        return sizes

    def check(self, results, texts, store, batches):
        for X, order in results:
            assert_array_equal(X, letters_of([texts[i] for i in order]))
        assert store.info()["entries"] == len(texts) == sum(batches)
        assert claims_in(store) == 0

    def test_alone(self, store, batches):
        texts = make_texts(50)
        X = Letters(store=store).fit_transform(texts)
        self.check([(X, range(50))], texts, store, batches)

    @pytest.mark.parametrize("n_before", [0, 3, 11])
    def test_another_encodes_everything_else_meanwhile(self, store, batches, n_before, monkeypatch):
        texts, results = make_texts(50), []
        encode = Letters._encode_batch

        def interrupted(self, batch, model):
            if len(batches) == n_before and not results:
                results.append(None)
                order = [i for i, text in enumerate(texts) if text not in batch]
                results[0] = Letters(store=store).fit_transform([texts[i] for i in order]), order
            return encode(self, batch, model)

        monkeypatch.setattr(Letters, "_encode_batch", interrupted)
        results.append((Letters(store=store).fit_transform(texts), range(50)))
        self.check(results, texts, store, batches)

    @pytest.mark.parametrize("n_workers", [2, 4])
    def test_in_step(self, store, batches, n_workers, monkeypatch):
        """All begin with each batch before any has stored the one before: as often together as can be."""
        texts = make_texts(300)
        barrier, lock, encode = threading.Barrier(n_workers), threading.Lock(), Letters._encode_batch

        def in_step(self, batch, model):
            with lock:
                rows = encode(self, batch, model)
            # Broken as soon as one has finished.
            with suppress(threading.BrokenBarrierError):
                barrier.wait(0.05)
            return rows

        monkeypatch.setattr(Letters, "_encode_batch", in_step)

        def work(_):
            return Letters(store=store).fit_transform(texts), range(len(texts))

        with ThreadPoolExecutor(n_workers) as pool:
            self.check(list(pool.map(work, range(n_workers))), texts, store, batches)

    def test_threads_with_other_orders_and_bad_items(self, store, batches):
        texts, n_workers = make_texts(200), 4
        orders = [np.random.default_rng(i).permutation(len(texts)) for i in range(n_workers)]
        start = threading.Barrier(n_workers)

        def work(order):
            lenient = Letters(store=store, on_error="missing").fit(texts)
            items = [texts[i] for i in order]
            items[50:50] = [3.5, None, b"x"]
            start.wait(600)
            X, errors = EncodingRun(lenient, items, present_rows(items)).encode()
            assert [error.row for error in errors] == [50, 52]
            assert np.isnan(X[50:53]).all()
            return np.delete(X, [50, 51, 52], axis=0), order

        with pytest.warns(UserWarning, match="2 of 203 items"), ThreadPoolExecutor(n_workers) as pool:
            results = list(pool.map(work, orders))
        self.check(results, texts, store, batches)

    def test_own_threads_of_an_image_encoder(self, tiny_image_model, store, monkeypatch):
        images = np.random.default_rng(0).integers(256, size=(48, 8, 8, 3), dtype=np.uint8)
        encoder = ImageEncoder(tiny_image_model, device="cpu", precision="float32", batch_size=4, store=store)
        expected = clone(encoder).set_params(store=None).fit_transform(images)
        monkeypatch.setattr(ImageEncoder, "_n_workers", lambda self, kind: 2)
        monkeypatch.setattr(ImageEncoder, "_window", 4)
        encode, sizes = ImageEncoder._encode_batch, []

        def note(self, batch, model):
            sizes.append(len(batch))
            return encode(self, batch, model)

        monkeypatch.setattr(ImageEncoder, "_encode_batch", note)
        start = threading.Barrier(2)

        def work(order):
            twin = clone(encoder).fit(images)
            start.wait(600)
            return twin.transform(images[order])

        orders = [np.arange(48), np.arange(48)[::-1]]
        with ThreadPoolExecutor(2) as pool:
            for X, order in zip(pool.map(work, orders), orders, strict=True):
                assert_allclose(X, expected[order], atol=1e-5 * np.abs(expected).max())
        assert store.info()["entries"] == 48 == sum(sizes)

    def test_a_worker_that_stops_leaves_nothing_behind(self, store, batches, monkeypatch):
        texts = make_texts(50)
        encode = Letters._encode_batch

        def stop(self, batch, model):
            if len(batches) == 5:
                raise KeyboardInterrupt
            return encode(self, batch, model)

        monkeypatch.setattr(Letters, "_encode_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            Letters(store=store).fit_transform(texts)
        monkeypatch.setattr(Letters, "_encode_batch", encode)
        assert store.info()["entries"] == 20
        assert claims_in(store) == 0
        batches.clear()
        X = Letters(store=store).fit_transform(texts)
        assert_array_equal(X, letters_of(texts))
        assert sum(batches) == 30

    @pytest.mark.parametrize("shift", [-100, 100])
    def test_claims_of_a_worker_that_was_killed_expire(self, store, batches, shift, monkeypatch):
        texts = make_texts(10)
        keys = ItemDigests(digest_of("letters"), store, strings_are_paths=False).of(texts)
        assert store.claim(keys, 1).all()
        assert not store.claim(keys, 2).any()
        now = time.time()
        monkeypatch.setattr(_engine.time, "time", lambda: now + shift)
        X = Letters(store=store).fit_transform(texts)
        self.check([(X, range(10))], texts, store, batches)

    def test_claims_of_a_process_that_has_ended_are_void(self, store):
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        keys = [digest_of("a"), digest_of("b")]
        assert store.claim(keys, process.pid << 32 | 1).all()
        assert store.claim(keys, os.getpid() << 32 | 2).all()
        assert not store.claim(keys, os.getpid() << 32 | 3).any()

    def test_claims_of_others_are_waited_for(self, store, batches):
        texts = make_texts(30)
        keys = ItemDigests(digest_of("letters"), store, strings_are_paths=False).of(texts)
        assert store.claim(keys[:20], 1).all()
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(Letters(store=store).fit_transform, texts)
            while sum(batches) < 10:
                time.sleep(0.01)
            # Half of them are written, the others are given up.
            store.put_rows(keys[:10], letters_of(texts[:10]))
            assert not result.done()
            store.release(1)
            assert_array_equal(result.result(), letters_of(texts))
        assert sum(batches) == 20

    def test_damaged_rows_are_no_reason_to_wait(self, store, batches):
        texts = make_texts(10)
        Letters(store=store).fit_transform(texts)
        store._engine._connection.execute("UPDATE entries SET value = zeroblob(length(value)) WHERE block > 0")
        batches.clear()
        assert_array_equal(Letters(store=store).fit_transform(texts), letters_of(texts))
        assert sum(batches) == 10

    def test_rows_that_are_not_finite_are_claimed_by_nobody(self, store, batches, monkeypatch):
        """They are never stored, so that others need not wait for them."""
        texts, encode = make_texts(30), Letters._encode_batch

        def encode_some(self, batch, model):
            rows = encode(self, batch, model)
            rows[[text in texts[8:20] for text in batch], 0] = np.inf
            if len(batches) == 7:
                # All of the items that are not finite have been encoded by this call.
                results.append(Letters(store=store, on_error="missing").fit_transform(texts[8:20]))
            return rows

        results = []
        monkeypatch.setattr(Letters, "_encode_batch", encode_some)
        with pytest.warns(UserWarning, match="12 of 30 items"):
            X = Letters(store=store, on_error="missing").fit_transform(texts)
        assert np.isnan(X).all(axis=1).tolist() == [False] * 8 + [True] * 12 + [False] * 10
        assert np.isnan(results[0]).all()
        assert store.info()["entries"] == 18
        assert claims_in(store) == 0

    def test_items_whose_content_is_unknown_are_encoded_once_by_each(self, store, batches):
        texts = [*make_texts(20), "\ud800", "\udfff"]
        for _ in range(2):
            batches.clear()
            assert_array_equal(Letters(store=store).fit_transform(texts), letters_of(texts))
        assert sum(batches) == 2
        assert store.info()["entries"] == 20

    def test_workers_start_far_apart(self, monkeypatch):
        def start_of(name):
            monkeypatch.setattr(_run, "current_process", lambda: SimpleNamespace(name=name))
            return _run._start_of_worker()

        assert start_of("MainProcess") == 0
        for kind in ("LokyProcess", "SpawnPoolWorker"):
            for n_workers in (1, 2, 4, 8):
                starts = sorted(start_of(f"{kind}-{i}") for i in range(1, n_workers + 1))
                assert_array_equal(starts, np.arange(n_workers) / n_workers)

    def test_random_numbers_of_the_user_are_left_alone(self, store):
        states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        texts = make_texts(30)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: Letters(store=store).fit_transform(texts), range(3)))
        assert states == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002

    @pytest.mark.slow
    def test_processes(self, store, tmp_path):
        texts = make_texts(400)
        (tmp_path / "notes").mkdir()
        jobs = [(str(store.path), texts, str(tmp_path / "notes" / str(i))) for i in range(3)]
        with get_context("spawn").Pool(3) as pool:
            for X in pool.starmap(encode_and_note, jobs, chunksize=1):
                assert_array_equal(X, letters_of(texts))
        assert store.info()["entries"] == len(texts)
        notes = [path.read_text().split() for path in (tmp_path / "notes").iterdir()]
        assert sum(int(word) for note in notes for word in note) == len(texts)

    @pytest.mark.parametrize(("method", "step"), [("fit", "_get_model"), ("fit_transform", "_encode_batch")])
    def test_one_at_a_time_where_a_device_is_shared(self, encoder, method, step, monkeypatch):
        """A second call begins while the first takes a step; it waits, and then has no need of that step."""
        fcntl = pytest.importorskip("fcntl")
        monkeypatch.setattr(_run, "expected_place", lambda device, precision: ("cuda", "float32"))
        texts, callers, calls = [f"cat {i}" for i in range(30)], [], []
        encoder.set_params(batch_size=5)
        take_step, lock, is_second_here = getattr(TextEncoder, step), fcntl.flock, threading.Event()

        def note_lock(*args):
            if callers:
                is_second_here.set()
            return lock(*args)

        def note_step(self, *args):
            callers.append(threading.get_ident())
            if len(callers) == 1:
                calls.append(pool.submit(getattr(clone(encoder), method), texts))
                is_second_here.wait(600)
            # The second comes here only if nothing makes it wait.
            is_second_here.set()
            return take_step(self, *args)

        monkeypatch.setattr(fcntl, "flock", note_lock)
        monkeypatch.setattr(TextEncoder, step, note_step)
        with ThreadPoolExecutor(1) as pool:
            getattr(clone(encoder), method)(texts)
            calls[0].result()
        assert set(callers) == {threading.get_ident()}


def encode_and_note(store, texts, notes):
    """Encode in a process of its own, and write down the sizes of the batches."""
    encode = Letters._encode_batch
    with open(notes, "w") as file:

        def note(self, batch, model):
            print(len(batch), file=file)
            return encode(self, batch, model)

        Letters._encode_batch = note
        return Letters(store=store).fit_transform(texts)


class TestProcesses:
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
        monkeypatch.setattr(_torch, "_ran_in", None)
        _torch.note_run()
        process = os.getpid()
        monkeypatch.setattr(_torch.os, "getpid", lambda: process + 1)
        # Stored rows need no network.
        assert_array_equal(encoder.transform(TEXTS), X)
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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_real_fork_after_a_network_ran(tiny_text_model, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, tiny_text_model, str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": str(Path(skmm.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    stored, new = done.stdout.splitlines()
    assert stored == "(1, 16)", done.stderr
    assert "forked from one in which a network had already run" in new
    assert "Use joblib's default backend (loky)" in new


class TestFiles:
    def test_a_file_that_is_written_again(self, tiny_image_model, store, tmp_path):
        path = tmp_path / "picture.png"
        encoder = ImageEncoder(tiny_image_model, store=store).fit([None])
        rows = []
        for colour in ("red", "blue", "red"):
            Image.new("RGB", (32, 32), colour).save(path)
            rows.append(encoder.transform([str(path)])[0])
        assert not np.allclose(rows[0], rows[1])
        assert_array_equal(rows[0], rows[2])
        assert store.info()["entries"] == 2

    def test_a_file_replaced_between_key_and_decoding_is_not_stored(
        self, tiny_image_model, store, tmp_path, monkeypatch
    ):
        path, steady = tmp_path / "picture.png", tmp_path / "steady.png"
        for file, colour in ((path, "red"), (steady, "green")):
            Image.new("RGB", (32, 32), colour).save(file)
        encoder = ImageEncoder(tiny_image_model, store=store).fit([None])
        find_digests = ItemDigests.of

        def replace(self, items):
            digests = find_digests(self, items)
            Image.new("RGB", (32, 32), "blue").save(path)
            return digests

        monkeypatch.setattr(ItemDigests, "of", replace)
        encoder.transform([str(path), str(steady)])
        assert store.info()["entries"] == 1
        monkeypatch.undo()
        blue, red = encoder.transform([str(path)]), encoder.transform([Image.new("RGB", (32, 32), "red")])
        Image.new("RGB", (32, 32), "red").save(path)
        assert_allclose(encoder.transform([str(path)]), red, atol=1e-5)
        assert not np.allclose(blue, red)

    @pytest.fixture
    def two_models(self, make_text_model, tmp_path):
        return make_text_model(tmp_path / "first"), make_text_model(tmp_path / "second", seed=1)

    def test_a_model_replaced_between_identity_and_loading(self, two_models, store, tmp_path, monkeypatch):
        first, second = two_models
        encoder = TextEncoder(first, device="cpu", precision="float32", store=store).fit(TEXTS)
        expected = TextEncoder(second, device="cpu", precision="float32", store=None).fit_transform(TEXTS)
        group = EncodingRun._group

        def replace(self):
            groups = group(self)
            first.rename(tmp_path / "before")
            second.rename(first)
            _torch.clear_models()
            return groups

        monkeypatch.setattr(EncodingRun, "_group", replace)
        with pytest.raises(OSError, match="were written to while the model was being loaded; call again"):
            encoder.transform(TEXTS)
        monkeypatch.undo()
        assert store.info()["entries"] == 0
        assert_allclose(encoder.transform(TEXTS), expected, atol=1e-6)

    def test_a_model_replaced_while_it_loads(self, tiny_text_model, store, tmp_path, monkeypatch):
        folder = Path(shutil.copytree(tiny_text_model, tmp_path / "model"))
        load = TextEncoder._load_model

        def touch(self, *args):
            (folder / "new.txt").write_text("new")
            return load(self, *args)

        monkeypatch.setattr(TextEncoder, "_load_model", touch)
        encoder = TextEncoder(folder, device="cpu", store=store)
        with pytest.raises(OSError, match="were written to while the model was being loaded"):
            encoder.fit(TEXTS)
        monkeypatch.undo()
        assert encoder.fit_transform(TEXTS[:2]).shape == (2, 16)


class TestDigestsOfFiles:
    """git's rule: a file is the same while size, time and inode are, unless it is too young for its time to tell."""

    NOW = 1_700_000_000

    @pytest.fixture
    def read(self, monkeypatch):
        """List of the files that are read from here on; the clock stands still, and nothing is remembered."""
        files, hash_file = [], _content._hash_file
        monkeypatch.setattr(_content, "_file_digests", {})
        monkeypatch.setattr(_content, "_hash_file", lambda file, whole: files.append(file[0]) or hash_file(file, whole))
        monkeypatch.setattr(_content, "time", SimpleNamespace(time=lambda: self.NOW))
        return files

    def write(self, path, content, age):
        path.write_bytes(content)
        os.utime(path, (self.NOW - age, self.NOW - age))

    def digests(self, paths, store=None):
        return file_digests([file_signature(path) for path in paths], store)

    @pytest.mark.parametrize("age", [0, 1.5, -1.5])
    def test_young_files_are_read_each_time(self, read, tmp_path, store, age):
        path, digests = tmp_path / "file", set()
        for content in (b"one", b"two", b"six"):
            self.write(path, content, age)
            digests.update(self.digests([path], store))
        assert len(digests) == len(read) == 3

    @pytest.mark.parametrize("age", [2.5, 1e6])
    def test_older_ones_once(self, read, tmp_path, store, age, monkeypatch):
        paths = [tmp_path / name for name in "ab"]
        for path in paths:
            self.write(path, b"content", age)
        first = self.digests([*paths, tmp_path / "absent", tmp_path], store)
        assert first[0] == first[1] is not None
        assert first[2:] == [None, None]
        assert self.digests(paths, store) == self.digests(paths) == first[:2]
        assert len(read) == 2
        # By another process, which finds it in the store.
        monkeypatch.setattr(_content, "_file_digests", {})
        assert self.digests(paths, store) == first[:2]
        assert len(read) == 2

    @pytest.mark.parametrize("change", ["size", "time", "inode", "path"])
    def test_each_part_of_the_rule(self, read, tmp_path, store, change):
        path = tmp_path / "file"
        self.write(path, b"one", 100)
        before = self.digests([path], store)
        if change == "inode":
            self.write(tmp_path / "other", b"two", 100)
            (tmp_path / "other").replace(path)
        elif change == "path":
            path = path.rename(tmp_path / "moved")
        else:
            self.write(path, b"longer" if change == "size" else b"two", 50 if change == "time" else 100)
        assert (self.digests([path], store) == before) == (change == "path")
        assert len(read) == 2

    def test_large_files_are_not_read(self, read, tmp_path, monkeypatch):
        monkeypatch.setattr(_content, "_MAX_HASHED_BYTES", 5)
        path, digests = tmp_path / "file", []
        for content, age in ((b"content", 100), (b"Content", 100), (b"Content", 50), (b"contents", 50)):
            self.write(path, content, age)
            digests += self.digests([path])
        assert digests[0] == digests[1]
        assert len({*digests}) == 3

    def test_large_files_of_models_are_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_content, "_MAX_HASHED_BYTES", 5)
        for name in ("one", "other"):
            self.write(tmp_path / name, b"contents", 100)
        one, other = ([file_signature(tmp_path / name)] for name in ("one", "other"))
        assert file_digests(one) != file_digests(other)
        assert file_digests(one, whole=True) == file_digests(other, whole=True)
