"""EmbeddingStore: rows in, the same rows out or none; limits, sharing, and what goes wrong with files."""

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

import skmm
from skmm import EmbeddingStore
from skmm.store import _claims, _engine, _file, _private_folder
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
    """Give what a folder takes on the disk, as ``du`` counts it."""
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

    def test_claims_are_apart_by_owner_and_end(self, store):
        keys = digests(6)
        assert store.claim(keys[:4], 1).all()
        np.testing.assert_array_equal(store.claim(keys[2:], 2), [False, False, True, True])
        assert store.claim(keys[:4], 1).all()
        store.put_rows(keys[:2], rows_of(2))
        assert not store.claim(keys[:2], 2).any()
        store.release(1)
        assert store.claim(keys[2:], 2).all()

    def test_claims_of_the_dead_run_out(self, store, monkeypatch):
        store.claim(digests(2), 1)
        now = time.time()
        for jump in (601, -601):
            with monkeypatch.context() as patched:
                patched.setattr(_claims.time, "time", lambda jump=jump: now + jump)
                assert store.claim(digests(2), 2).all()
            store.release(2)
            store.claim(digests(2), 1)
        assert not store.claim(digests(2), 2).any()

    def test_claims_of_a_process_that_has_ended_are_void(self, store):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        store.claim(digests(2), gone.pid << 40 | 1)
        assert store.claim(digests(2), 2).all()
        assert not store.claim(digests(2), _claims.new_owner()).any()
        store.release(2)
        # This one lives.
        store.claim(digests(2), _claims.new_owner())
        assert not store.claim(digests(2), 2).any()

    def test_only_what_has_not_begun_is_taken_over(self, store):
        keys = digests(4)
        store.claim(keys[:2], 1, begins=False)
        store.claim(keys[2:], 1, begins=True)
        assert not store.claim(keys, 2).any()
        np.testing.assert_array_equal(store.claim(keys, 2, takes_over=True), [True, True, False, False])
        assert not store.claim(keys[:2], 1).any()
        store.release_entries(keys[1:3])
        np.testing.assert_array_equal(store.claim(keys, 3), [False, True, True, False])


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
    def fill(self, store, n, seed):
        for part in range(0, n, 250):
            store.put_rows(digests(n, seed)[part : part + 250], rows_of(n, 1024, seed)[part : part + 250])

    def test_the_least_recently_used_go(self, tmp_path, monkeypatch):
        now = _engine.time.time()
        monkeypatch.setattr(_engine.time, "time", lambda: now)
        limit = 2**24
        with EmbeddingStore(tmp_path, max_bytes=limit) as store:
            for seed in range(3):
                self.fill(store, 500, seed)
                now += 10
        # More than the resolution of use later the first are read.
        now += 10_000
        with EmbeddingStore(tmp_path, max_bytes=limit) as store:
            assert not np.isnan(read(store, digests(500, 0), 1024)).any()
            now += 10
            for seed in range(3, 5):
                self.fill(store, 500, seed)
                now += 10
                assert store.info()["bytes"] <= limit
            is_there = [~np.isnan(read(store, digests(500, seed), 1024)).any(axis=1) for seed in range(5)]
        # What was read outlives what was written after it.
        assert is_there[1].mean() < 0.2
        assert is_there[0].all()
        assert is_there[4].all()

    @pytest.mark.parametrize("width", [32, 384, 2100, 50_000])
    def test_the_folder_is_never_larger(self, tmp_path, width):
        limit, largest = 2**24, 0
        n_rows = max(4, 40_000 // max(40, width))
        with EmbeddingStore(tmp_path / "store", max_bytes=limit) as store, EmbeddingStore(store.path, limit) as other:
            # The half of the limit is what fits.
            for seed in range(int(0.7 * limit) // (n_rows * (4 * width + 80))):
                keys = digests(n_rows, seed)
                store.claim(keys, 1)
                (store, other)[seed % 2].put_rows(keys, rows_of(n_rows, width))
                # What remembers files counts as well, and goes as well.
                store.put_digests(digests(20, seed + 10_000), digests(20, seed))
                largest = max(largest, folder_bytes(store.path))
            # The newest are there.
            np.testing.assert_array_equal(read(store, keys, width), rows_of(n_rows, width))
            share = store.info()["bytes"] / limit
        assert largest <= limit
        assert share > 0.3

    def test_facts_that_are_not_used_go(self, tmp_path):
        with EmbeddingStore(tmp_path, max_bytes=2**24) as store:
            store.put_digests(digests(100, 1), digests(100, 2))
            keys = digests(100)
            for key in keys:
                store.put_fact(key, {"recipe": "x" * 150_000})
            assert store.get_fact(keys[0]) is None
            assert store.get_digests(digests(100, 1)) == [None] * 100
            assert store.get_fact(keys[-1]) == {"recipe": "x" * 150_000}
            assert folder_bytes(tmp_path) <= 2**24

    def test_a_limit_that_comes_later(self, tmp_path):
        with EmbeddingStore(tmp_path) as store:
            for seed in range(5):
                store.put_rows(digests(1000, seed), rows_of(1000, 1024))
        before = folder_bytes(tmp_path)
        with EmbeddingStore(tmp_path, max_bytes=2**24) as store:
            for seed in range(5, 8):
                store.put_rows(digests(1000, seed), rows_of(1000, 1024))
                assert folder_bytes(tmp_path) <= before + 2**22
            assert store.info()["entries"] < 3000
            np.testing.assert_array_equal(read(store, digests(500, 7), 1024), rows_of(500, 1024))
            store.clear()
            assert folder_bytes(tmp_path) < 2**20

    def test_rows_too_long_for_a_transaction_are_not_kept(self, tmp_path):
        with EmbeddingStore(tmp_path, max_bytes=2**24) as store, warnings.catch_warnings():
            warnings.simplefilter("error")
            store.claim(digests(2), 1)
            store.put_rows(digests(2), rows_of(2, 2**20))
            assert store.info()["entries"] == 0
            assert store.claim(digests(2), 2).all()

    def test_who_reads_without_end_makes_others_wait_once(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_file, "_LOG_TIMEOUT", 0)
        with EmbeddingStore(tmp_path, max_bytes=2**24) as store:
            store.put_rows(digests(10), rows_of(10))
            reader = sqlite3.connect(database(store))
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM entries").fetchone()
            for seed in range(1, 20):
                store.put_rows(digests(100, seed), rows_of(100, 1024))
            assert folder_bytes(tmp_path) > 2**23
            reader.close()
            store.put_rows(digests(100, 20), rows_of(100, 1024))
            for seed in range(12, 21):
                np.testing.assert_array_equal(read(store, digests(100, seed), 1024), rows_of(100, 1024))
        assert not (tmp_path / "embeddings.sqlite-wal").exists()

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
        with pytest.warns(UserWarning, match="cannot be written .*full.*not kept") as caught:
            store.put_rows(digests(5000, 1), rows_of(5000, seed=1))
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.put_rows(digests(5000, 2), rows_of(5000, seed=2))
            # What was there is.
            np.testing.assert_array_equal(read(store, digests(10)), rows_of(10))
            assert np.isnan(read(store, digests(5000, 1))).all()
            assert store.claim(digests(3), 1).all()

    @pytest.mark.parametrize("has_store", [True, False])
    def test_read_only_folder(self, store, monkeypatch, has_store):
        if has_store:
            store.put_rows(digests(10), rows_of(10))
            store.close()
        else:
            store.path.mkdir()
        monkeypatch.setattr(_engine.os, "access", lambda path, mode: mode != os.W_OK)
        if has_store:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                np.testing.assert_array_equal(read(store, digests(10)), rows_of(10))
            with pytest.warns(UserWarning, match="cannot be written .*read-only"):
                store.put_rows(digests(10, 1), rows_of(10))
        else:
            with pytest.warns(UserWarning, match="cannot be used .*read-only"):
                store.put_rows(digests(10, 1), rows_of(10))
        assert {path.name for path in store.path.iterdir()} <= {
            "embeddings.sqlite",
            "embeddings.sqlite-wal",
            "embeddings.sqlite-shm",
        }

    def test_newer_version(self, store):
        store.put_rows(digests(2), rows_of(2))
        store.close()
        connection = sqlite3.connect(database(store))
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        before = database(store).read_bytes()
        with pytest.warns(UserWarning, match=r"newer version of skmm wrote it \(format 99, this one knows 2\)"):
            assert np.isnan(read(store, digests(2))).all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.put_rows(digests(2, 1), rows_of(2))
        assert database(store).read_bytes() == before
        with pytest.raises(OSError, match=r"cannot be cleared .*newer version"):
            store.clear()

    def test_older_version(self, store):
        store.put_rows(digests(2), rows_of(2))
        store.close()
        connection = sqlite3.connect(database(store))
        connection.execute("PRAGMA user_version = 1")
        connection.close()
        before = database(store).read_bytes()
        with pytest.warns(UserWarning, match=r"an older version of skmm wrote it .*clear\(\) makes it anew"):
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
            with pytest.warns(UserWarning, match=r"cannot be used .*not a database.*clear\(\) makes it anew"):
                store.put_rows(digests(2), rows_of(2))
            store.clear()
        store.put_rows(digests(2), rows_of(2))
        np.testing.assert_array_equal(read(store, digests(2)), rows_of(2))

    def test_folder_without_locks(self, store, monkeypatch):
        def refuse(*arguments, **options):
            raise sqlite3.OperationalError("locking protocol")

        monkeypatch.setattr(_file, "_prepare", refuse)
        with pytest.warns(UserWarning, match="cannot be used .*locking protocol.*goes on without"):
            store.put_rows(digests(2), rows_of(2))

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
