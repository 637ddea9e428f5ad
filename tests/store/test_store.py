"""EmbeddingStore: rows in, the same rows out or none; limits, sharing, and what goes wrong with files."""

import multiprocessing
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

import skmm
from skmm import EmbeddingStore
from skmm.store import _engine, _private_folder
from skmm.store._store import find_store

RNG = np.random.default_rng(0)


def digests(n, seed=0):
    return [row.tobytes() for row in np.random.default_rng(seed).integers(2**63, size=(n, 4), dtype=np.uint64)]


def rows_of(n, width=7, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def read(store, keys, width=7):
    out = np.full((len(keys), width), np.nan, dtype=np.float32)
    store.get_rows(keys, width, out.__setitem__)
    return out


def database(store):
    return store.path / "embeddings.sqlite"


def folder_bytes(folder):
    """Return what a folder takes on the disk, as ``du`` counts it."""
    return sum(512 * path.stat().st_blocks for path in (folder, *folder.iterdir()))


@pytest.fixture
def store(tmp_path):
    with EmbeddingStore(tmp_path / "store") as store:
        yield store


class TestRows:
    @pytest.mark.parametrize("width", [1, 2, 7, 384])
    @pytest.mark.parametrize("n", [1, 3, 1201])
    def test_what_is_put_is_got(self, store, n, width):
        keys, rows = digests(n), rows_of(n, width)
        assert np.isnan(read(store, keys, width)).all()
        store.put_rows(keys, rows)
        order = RNG.permutation(n)
        np.testing.assert_array_equal(read(store, [keys[i] for i in order], width), rows[order])
        # Others, and the same with another width, are not there.
        assert np.isnan(read(store, digests(n, seed=1), width)).all()
        assert np.isnan(read(store, keys, width + 2)).all()

    def test_extreme_values(self, store):
        rows = np.array([[np.inf, -np.inf, np.nan, -0.0, 1e-45, np.finfo(np.float32).max, 0]], dtype=np.float32)
        store.put_rows(digests(1), rows)
        assert read(store, digests(1)).tobytes() == rows.tobytes()

    def test_what_is_there_first_stays(self, store):
        keys, rows = digests(4), rows_of(4)
        store.put_rows(keys[:2], rows[:2])
        store.put_rows(keys, rows + 1)
        np.testing.assert_array_equal(read(store, keys), np.concatenate([rows[:2], rows[2:] + 1]))

    def test_digests_that_share_64_bits_are_told_apart(self, store):
        key = digests(1)[0]
        other = key[:8] + digests(1, seed=1)[0][8:]
        store.put_rows([key], rows_of(1))
        assert np.isnan(read(store, [other])).all()
        # The newer one takes the place.
        store.put_rows([other], rows_of(1, seed=1))
        np.testing.assert_array_equal(read(store, [other]), rows_of(1, seed=1))
        assert np.isnan(read(store, [key])).all()

    def test_facts_and_digests(self, store):
        fact = {"width": 384, "recipe": {"mean": [0.5, 0.25], "name": "ä" * 5000, "none": None}}
        first, second, third = digests(3)
        assert store.get_fact(first) is None
        store.put_fact(first, fact)
        assert store.get_fact(first) == fact
        store.put_digests([second], [third])
        assert store.get_digests([third, second]) == [None, third]
        assert store.info()["entries"] == 0


class TestObject:
    def test_info_repr_and_clear(self, tmp_path):
        store = EmbeddingStore(tmp_path / "store", max_bytes=2**30)
        assert "empty" in repr(store)
        assert not store.path.exists()
        store.put_rows(digests(1234), rows_of(1234))
        store.hits, store.misses = 5, 1234
        info = store.info()
        assert 1234 * 7 * 4 < info["bytes"] == sum(path.stat().st_size for path in store.path.iterdir())
        assert info == {"entries": 1234, "bytes": info["bytes"], "max_bytes": 2**30, "hits": 5, "misses": 1234}
        assert repr(store).startswith(f"<EmbeddingStore({str(store.path)!r}, max_bytes=1073741824): 1,234 entries, ")
        assert repr(store).endswith(" bytes, 5 hits, 1,234 misses>")
        store.close()
        size = database(store).stat().st_size
        assert store.info()["bytes"] == sum(path.stat().st_size for path in store.path.iterdir()) >= size
        store.clear()
        assert store.info()["entries"] == 0
        assert np.isnan(read(store, digests(1234))).all()
        assert database(store).stat().st_size < size

    def test_closing_lets_go_and_the_next_use_opens_again(self, tmp_path):
        with EmbeddingStore(tmp_path / "store") as store:
            store.put_rows(digests(2), rows_of(2))
        # The last to close folds the log into the database.
        assert sorted(path.name for path in store.path.iterdir()) == ["embeddings.sqlite"]
        np.testing.assert_array_equal(read(store, digests(2)), rows_of(2))
        store.close()

    def test_copies_are_the_store_itself_and_pickles_its_path(self, store):
        store.put_rows(digests(2), rows_of(2))
        assert clone(store, safe=False) is store
        other = pickle.loads(pickle.dumps(store))
        assert other.path == store.path
        assert other.hits == 0
        np.testing.assert_array_equal(read(other, digests(2)), rows_of(2))
        other.close()

    def test_path_is_fixed_when_the_store_is_made(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert EmbeddingStore("here").path == tmp_path / "here"
        monkeypatch.setenv("HOME", str(tmp_path))
        assert EmbeddingStore("~/there").path == tmp_path / "there"

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((3,), TypeError, "path must be a str or path-like, got int"),
            (("a", 10), ValueError, "max_bytes must be an integer of at least 16777216 or None, got 10"),
            (("a", 1e9), ValueError, "max_bytes must be an integer"),
        ],
    )
    def test_bad_arguments(self, arguments, error, message):
        with pytest.raises(error, match=message):
            EmbeddingStore(*arguments)

    def test_parameter_forms_of_encoders(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        store = EmbeddingStore(tmp_path)
        assert find_store(None) is None
        assert find_store(store) is store
        assert find_store("a") is find_store(Path("a")) is find_store(str(tmp_path / "a"))
        assert find_store("auto").path == _private_folder.private_folder()


class TestLimit:
    LIMIT = 2**24

    def fill(self, store, n, seed):
        for start in range(0, n, 250):
            store.put_rows(digests(n, seed)[start : start + 250], rows_of(n, 1024, seed)[start : start + 250])

    def test_the_least_recently_used_half_goes(self, tmp_path, monkeypatch):
        seconds = _engine.time.time()
        monkeypatch.setattr(_engine.time, "time", lambda: seconds)
        with EmbeddingStore(tmp_path, max_bytes=self.LIMIT) as store:
            for seed in range(3):
                self.fill(store, 500, seed)
                seconds += 10
        # The first are read, later than the resolution of use.
        seconds += 10_000
        with EmbeddingStore(tmp_path, max_bytes=self.LIMIT) as store:
            assert not np.isnan(read(store, digests(500, 0), 1024)).any()
            for seed in range(3, 6):
                seconds += 10
                self.fill(store, 500, seed)
            is_stored = [~np.isnan(read(store, digests(500, seed), 1024)).any(axis=1) for seed in range(6)]
            n_entries = store.info()["entries"]
        # What was read outlives what was written after it and not read.
        assert not is_stored[1].any()
        assert is_stored[0].all()
        assert is_stored[5].all()
        # About half of the 2,000 or more rows that fit.
        assert 1000 <= n_entries <= 2000

    @pytest.mark.parametrize("width", [pytest.param(32, marks=pytest.mark.slow), 384, 2100, 50_000])
    def test_size_of_the_database(self, tmp_path, width):
        n_rows = max(4, 40_000 // max(40, width))
        with EmbeddingStore(tmp_path, self.LIMIT) as store, EmbeddingStore(tmp_path, self.LIMIT) as other:
            for seed in range(3 * self.LIMIT // 2 // (n_rows * (4 * width + 40))):
                keys = digests(n_rows, seed)
                (store, other)[seed % 2].put_rows(keys, rows_of(n_rows, width))
                # What the store records of files counts as well, and goes as well.
                store.put_digests(digests(20, seed + 10_000), digests(20, seed))
                assert database(store).stat().st_size <= self.LIMIT
                # The log, about 16 MiB.
                assert folder_bytes(tmp_path) <= self.LIMIT + 2**26
                # The newest are stored.
                np.testing.assert_array_equal(read(other, keys, width), rows_of(n_rows, width))
            assert store.info()["entries"] * 4 * width > self.LIMIT / 8
            assert store.get_digests(digests(20, 10_000)) == [None] * 20
        assert [path.name for path in tmp_path.iterdir()] == ["embeddings.sqlite"]

    def test_facts_that_are_not_used_go(self, tmp_path):
        with EmbeddingStore(tmp_path, max_bytes=self.LIMIT) as store:
            store.put_digests(digests(100, 1), digests(100, 2))
            keys = digests(200)
            for key in keys:
                store.put_fact(key, {"recipe": "x" * 150_000})
            assert store.get_fact(keys[0]) is None
            assert store.get_digests(digests(100, 1)) == [None] * 100
            assert store.get_fact(keys[-1]) == {"recipe": "x" * 150_000}
            assert database(store).stat().st_size <= self.LIMIT

    def test_a_limit_that_comes_later(self, tmp_path):
        with EmbeddingStore(tmp_path) as store:
            for seed in range(5):
                store.put_rows(digests(1000, seed), rows_of(1000, 1024))
        size = database(store).stat().st_size
        assert size > self.LIMIT
        with EmbeddingStore(tmp_path, max_bytes=self.LIMIT) as store:
            for seed in range(5, 8):
                store.put_rows(digests(1000, seed), rows_of(1000, 1024))
            assert store.info()["entries"] < 5000
            np.testing.assert_array_equal(read(store, digests(500, 7), 1024), rows_of(500, 1024))
            store.close()
            assert database(store).stat().st_size <= size + 2**20
            store.clear()
            assert database(store).stat().st_size < 2**20

    def test_a_batch_larger_than_the_limit_is_stored_in_part(self, tmp_path):
        keys, rows = digests(300), rows_of(300, 20_000)
        with EmbeddingStore(tmp_path, max_bytes=self.LIMIT) as store, warnings.catch_warnings():
            warnings.simplefilter("error")
            store.put_rows(keys, rows)
            is_stored = ~np.isnan(read(store, keys, 20_000)).any(axis=1)
            assert 50 <= is_stored.sum() < 300
            np.testing.assert_array_equal(read(store, keys, 20_000)[is_stored], rows[is_stored])

    def test_a_row_larger_than_the_limit_is_refused(self, tmp_path):
        with EmbeddingStore(tmp_path, max_bytes=self.LIMIT) as store:
            with pytest.warns(UserWarning, match=r"cannot be written .*full.*not stored"):
                store.put_rows(digests(1), rows_of(1, 2**22))
            assert store.info()["entries"] == 0

    def test_whoever_reads_for_long_blocks_no_writer(self, tmp_path):
        with EmbeddingStore(tmp_path, max_bytes=self.LIMIT) as store, warnings.catch_warnings():
            warnings.simplefilter("error")
            store.put_rows(digests(10), rows_of(10))
            reader = sqlite3.connect(database(store))
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM entries").fetchone()
            for seed in range(1, 40):
                self.fill(store, 250, seed)
            reader.close()
            self.fill(store, 250, 40)
            np.testing.assert_array_equal(read(store, digests(250, 40), 1024), rows_of(250, 1024, 40))
        assert not (tmp_path / "embeddings.sqlite-wal").exists()
        assert database(store).stat().st_size <= self.LIMIT

    def test_reading_writes_nothing(self, store):
        store.put_rows(digests(50), rows_of(50))
        store.close()
        before = database(store).read_bytes()
        for _ in range(2):
            read(store, digests(50))
            store.close()
        assert database(store).read_bytes() == before


class TestTrouble:
    """One warning, and no error."""

    def test_full_disk(self, store):
        store.put_rows(digests(10), rows_of(10))
        connection = store._engine._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.warns(UserWarning, match="cannot be written .*full.*not stored") as caught:
            store.put_rows(digests(5000, 1), rows_of(5000, seed=1))
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.put_rows(digests(5000, 2), rows_of(5000, seed=2))
            # What was there is.
            np.testing.assert_array_equal(read(store, digests(10)), rows_of(10))
            assert np.isnan(read(store, digests(5000, 1))).all()

    def test_newer_version(self, store):
        store.put_rows(digests(2), rows_of(2))
        store.close()
        connection = sqlite3.connect(database(store))
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        before = database(store).read_bytes()
        with pytest.warns(UserWarning, match=r"newer version of skmm wrote it \(format 99, this one knows 3\)"):
            assert np.isnan(read(store, digests(2))).all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.put_rows(digests(2, 1), rows_of(2))
        assert database(store).read_bytes() == before
        with pytest.raises(OSError, match=r"cannot be cleared .*newer version"):
            store.clear()

    @pytest.mark.parametrize("version", [1, 2])
    def test_older_version(self, store, version):
        store.put_rows(digests(2), rows_of(2))
        store.close()
        connection = sqlite3.connect(database(store))
        connection.execute(f"PRAGMA user_version = {version}")
        connection.close()
        before = database(store).read_bytes()
        with pytest.warns(UserWarning, match=r"an older version of skmm wrote it .*clear\(\) recreates it"):
            store.put_rows(digests(2, 1), rows_of(2))
        assert database(store).read_bytes() == before
        store.clear()
        store.put_rows(digests(2, 1), rows_of(2))
        np.testing.assert_array_equal(read(store, digests(2, 1)), rows_of(2))

    def test_database_of_something_else(self, store):
        store.path.mkdir()
        connection = sqlite3.connect(database(store))
        connection.execute("CREATE TABLE mine (x)")
        connection.close()
        with pytest.warns(UserWarning, match="a database of something else"):
            store.put_rows(digests(2), rows_of(2))
        with pytest.raises(OSError, match="something else"):
            store.clear()

    @pytest.mark.parametrize("content", [b"no database at all " * 50, b""])
    def test_no_database(self, store, content):
        store.path.mkdir()
        database(store).write_bytes(content)
        if content:
            with pytest.warns(UserWarning, match=r"cannot be used .*not a database.*clear\(\) recreates it"):
                store.put_rows(digests(2), rows_of(2))
            store.clear()
        store.put_rows(digests(2), rows_of(2))
        np.testing.assert_array_equal(read(store, digests(2)), rows_of(2))

    def test_folder_without_locks(self, store, monkeypatch):
        def refuse(*arguments, **options):
            raise sqlite3.OperationalError("locking protocol")

        monkeypatch.setattr(_engine, "_prepare", refuse)
        with pytest.warns(UserWarning, match="cannot be used .*locking protocol.*goes on without"):
            store.put_rows(digests(2), rows_of(2))

    @pytest.mark.parametrize("use", ["put_rows", "read", "info", "claim"])
    def test_a_folder_that_is_deleted_is_created_again(self, store, use):
        store.put_rows(digests(3), rows_of(3))
        shutil.rmtree(store.path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if use == "read":
                assert np.isnan(read(store, digests(3))).all()
            elif use == "info":
                assert store.info()["entries"] == 0
            elif use == "claim":
                assert store.claim(digests(3), 1).all()
            store.put_rows(digests(2, 1), rows_of(2))
            other = EmbeddingStore(store.path)
            np.testing.assert_array_equal(read(other, digests(2, 1)), rows_of(2))
        assert other.info()["entries"] == store.info()["entries"] == 2
        other.close()

    def test_a_private_folder_that_is_deleted_is_replaced(self):
        first = find_store("auto")
        first.put_rows(digests(3), rows_of(3))
        shutil.rmtree(first.path)
        first.put_rows(digests(3, 1), rows_of(3))
        # Others might enter what is not created as private.
        assert not first.path.exists()
        second = find_store("auto")
        second.put_rows(digests(3), rows_of(3))
        assert second.path != first.path
        assert second.path.stat().st_mode & 0o077 == 0

    def test_a_path_of_a_file(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        store = EmbeddingStore(tmp_path / "file")
        with pytest.warns(UserWarning, match=r"cannot be used \(its path is that of a file, and a store is a folder\)"):
            store.put_rows(digests(2), rows_of(2))
        with pytest.raises(OSError, match=r"cannot be cleared \(its path is that of a file"):
            store.clear()
        assert (tmp_path / "file").read_text() == "mine"

    def test_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        store = EmbeddingStore(tmp_path / "file" / "store")
        with pytest.warns(UserWarning, match="cannot be used"):
            assert np.isnan(read(store, digests(2))).all()
        assert store.info()["entries"] == 0

    def test_no_private_folder(self, monkeypatch):
        def refuse(**options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(_private_folder.tempfile, "mkdtemp", refuse)
        monkeypatch.setattr("skmm.store._store._shared", {})
        with pytest.warns(UserWarning, match="No private folder .*No space left"):
            assert find_store("auto") is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert find_store("auto") is None


@pytest.fixture
def public_folder():
    """A folder that every user may enter, unlike ``tmp_path``."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    (folder / "store").chmod(0o755)
    shutil.rmtree(folder)


def run_without_privileges(function, meanwhile=lambda: None):
    """Call a function in a child process that is not root, after another was called in this process."""
    (messages, message), (signals, signal) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(signals, 1)
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            function()
            os.write(message, b"done")
        except BaseException:
            os.write(message, traceback.format_exc().encode()[-10_000:])
        finally:
            os._exit(0)
    meanwhile()
    os.write(signal, b".")
    os.waitpid(child, 0)
    answer = os.read(messages, 10_000).decode()
    for end in (messages, message, signals, signal):
        os.close(end)
    assert answer == "done", answer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
class TestReadOnly:
    """A store that this process may read and not write, as another user's or one on a read-only mount."""

    def protect(self, folder, mode=0o555):
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(mode)

    def check(self, folder):
        store = EmbeddingStore(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(read(store, digests(10)), rows_of(10))
            assert store.get_fact(digests(1, 5)[0]) == {"width": 7}
            assert store.info()["entries"] == 10
            assert "10 entries" in repr(store)
        with pytest.warns(UserWarning, match=r"cannot be written .*readonly.*not stored") as caught:
            store.put_rows(digests(10, 1), rows_of(10))
        assert len(caught) == 1
        with warnings.catch_warnings(), store.one_at_a_time():
            warnings.simplefilter("error")
            store.put_rows(digests(10, 2), rows_of(10))
        np.testing.assert_array_equal(read(store, digests(10)), rows_of(10))
        with pytest.raises(OSError, match="cannot be cleared"):
            store.clear()

    def fill(self, store):
        store.put_rows(digests(10), rows_of(10))
        store.put_fact(digests(1, 5)[0], {"width": 7})

    @pytest.mark.parametrize("mode", [0o555, 0o777], ids=["folder", "file"])
    def test_closed(self, public_folder, mode):
        with EmbeddingStore(public_folder / "store") as store:
            self.fill(store)
        self.protect(store.path, mode)
        run_without_privileges(lambda: self.check(store.path))

    def test_in_use(self, public_folder):
        store = EmbeddingStore(public_folder / "store")

        def write():
            # After the fork, which closes files; the rows are in the log alone.
            self.fill(store)
            assert (store.path / "embeddings.sqlite-wal").stat().st_size > 2**14
            self.protect(store.path)

        run_without_privileges(lambda: self.check(store.path), write)
        store.close()

    @pytest.mark.parametrize("suffixes", [["", "-wal"], ["", "-wal", "-shm"]])
    def test_left_behind_by_a_killed_process(self, public_folder, tmp_path, suffixes):
        store = EmbeddingStore(tmp_path)
        self.fill(store)
        store.close()
        # As in use, with nothing new in the log.
        store.info()
        copy = public_folder / "store"
        copy.mkdir()
        for suffix in suffixes:
            shutil.copy(f"{database(store)}{suffix}", copy)
        store.close()
        self.protect(copy)
        run_without_privileges(lambda: self.check(copy))

    def test_no_store_yet(self, public_folder):
        (public_folder / "store").mkdir(mode=0o555)

        def check(folder, reason):
            store = EmbeddingStore(folder)
            with pytest.warns(UserWarning, match=f"cannot be used .*{reason}") as caught:
                store.put_rows(digests(2), rows_of(2))
            assert len(caught) == 1
            assert np.isnan(read(store, digests(2))).all()

        run_without_privileges(lambda: check(public_folder / "store", "holds no store.*read-only"))
        run_without_privileges(lambda: check(public_folder / "store" / "below", "Permission denied"))

    def test_a_store_that_becomes_writable(self, public_folder):
        with EmbeddingStore(public_folder / "store") as store:
            self.fill(store)
        self.protect(store.path)

        def check():
            reader = EmbeddingStore(store.path)
            np.testing.assert_array_equal(read(reader, digests(10)), rows_of(10))

        run_without_privileges(check)
        store.path.chmod(0o755)
        database(store).chmod(0o644)
        store.put_rows(digests(10, 1), rows_of(10))
        np.testing.assert_array_equal(read(store, digests(10, 1)), rows_of(10))


def open_new_stores(folder, n_stores, barrier, failures):
    """Open new stores at the same time as other processes, write to them and read; pass on what goes wrong."""
    messages = []
    for number in range(n_stores):
        barrier.wait()
        try:
            with warnings.catch_warnings(), EmbeddingStore(folder / str(number)) as store:
                warnings.simplefilter("error")
                store.put_rows(digests(3), rows_of(3))
                np.testing.assert_array_equal(read(store, digests(3)), rows_of(3))
        except Exception as error:
            messages.append(f"{number}: {error}")
    failures.put(messages)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_processes_that_create_a_store_at_the_same_time(tmp_path):
    n_processes, context = 4, multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(n_processes), context.Queue()
    arguments = (tmp_path, 150, barrier, failures)
    processes = [context.Process(target=open_new_stores, args=arguments) for _ in range(n_processes)]
    for process in processes:
        process.start()
    messages = [message for _ in processes for message in failures.get()]
    for process in processes:
        process.join()
    assert messages == []


def test_a_store_that_is_created_while_its_file_is_checked(tmp_path, monkeypatch):
    path, threads = tmp_path / "embeddings.sqlite", []
    check = _engine._holds_store

    def create_meanwhile(statement):
        if statement == "PRAGMA user_version" and not threads:
            threads.append(threading.Thread(target=lambda: _engine.Engine(path).close()))
            threads[0].start()
            # Time enough for one that is not kept waiting by a lock.
            threads[0].join(0.5)

    def interrupted_check(connection):
        connection.set_trace_callback(create_meanwhile)
        return check(connection)

    monkeypatch.setattr(_engine, "_holds_store", interrupted_check)
    engine = _engine.Engine(path)
    threads[0].join()
    assert engine.count()[0] == 0
    engine.close()


class TestPrivateFolder:
    def test_for_this_user_alone(self):
        folder = _private_folder.private_folder()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert _private_folder.private_folder() == folder

    def test_adopted_only_where_it_is_private_and_needed(self, tmp_path):
        public = tmp_path / "public"
        public.mkdir(mode=0o755)
        _private_folder.adopt_folder(public)
        _private_folder.adopt_folder(tmp_path / "absent")
        assert _private_folder._folder is None
        private = tmp_path / "private"
        private.mkdir(mode=0o700)
        _private_folder.adopt_folder(str(private))
        assert _private_folder.private_folder() == private
        other = tmp_path / "other"
        other.mkdir(mode=0o700)
        _private_folder.adopt_folder(other)
        assert _private_folder.private_folder() == private
        # One that has gone is replaced.
        private.rmdir()
        _private_folder.adopt_folder(other)
        assert _private_folder.private_folder() == other

    def test_removed_at_exit_and_swept_after_a_kill(self, tmp_path):
        code = (
            "import sys, os, signal; from skmm.store._store import find_store\n"
            "store = find_store('auto'); store.put_fact(bytes(32), {}); print(store.path, flush=True)\n"
            "if sys.argv[1] == 'fork' and os.fork() == 0: sys.exit()\n"
            "if sys.argv[1] == 'fork': os.wait(); assert store.path.exists()\n"
            "if sys.argv[1] == 'kill': os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(skmm.__file__).parents[1]), "TMPDIR": str(tmp_path)}

        def run(how):
            done = subprocess.run([sys.executable, "-c", code, how], env=environment, capture_output=True, text=True)
            assert done.stderr == ""
            return Path(done.stdout.split("\n")[0])

        assert not run("exit").exists()
        assert not run("fork").exists()
        killed = run("kill")
        assert killed.exists()
        # An owner that lives, and one that is just being born, keep theirs.
        alive = tmp_path / "skmm-store-alive"
        shutil.copytree(killed, alive)
        alive.chmod(0o700)
        newborn = tmp_path / "skmm-store-newborn"
        newborn.mkdir(mode=0o700)
        with open(alive / "owner", "a") as file:
            _private_folder.fcntl.flock(file, _private_folder.fcntl.LOCK_EX)
            run("exit")
        assert not killed.exists()
        assert alive.exists()
        assert newborn.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_opens_its_own_connection(store):
    store.put_rows(digests(3), rows_of(3))
    store.hits = 5
    here, there = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fresh = store._engine._opened is None and store.hits == 0
            store.put_rows(digests(3, 1), rows_of(3, seed=1))
            os.write(here[1], b".")
            os.read(there[0], 1)
            store.put_rows(digests(3, 2), rows_of(3, seed=2))
            store.close()
            code = 0 if fresh else 1
        finally:
            os._exit(code)
    assert os.read(here[0], 1) == b"."
    np.testing.assert_array_equal(read(store, digests(3, 1)), rows_of(3, seed=1))
    # With locks of the parent's alone, the log would go from under the child here.
    store.close()
    assert (store.path / "embeddings.sqlite-wal").exists()
    os.write(there[1], b".")
    assert os.waitpid(child, 0)[1] == 0
    for end in (*here, *there):
        os.close(end)
    np.testing.assert_array_equal(read(store, digests(3, 2)), rows_of(3, seed=2))
    assert store.hits == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_threads_read_on_while_the_process_forks(store):
    keys, rows = digests(50), rows_of(50)
    store.put_rows(keys, rows)
    is_over = threading.Event()

    def read_on():
        n_wrong = 0
        while not is_over.is_set():
            n_wrong += not np.array_equal(read(store, keys), rows)
        return n_wrong

    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("error")
        # That a child of several threads may hang is what the hooks are for.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        readers = [pool.submit(read_on) for _ in range(2)]
        try:
            for _ in range(10):
                child = os.fork()
                if child == 0:
                    os._exit(0 if np.array_equal(read(store, keys), rows) else 1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            is_over.set()
        assert [reader.result() for reader in readers] == [0, 0]
