"""One copy of each model in a process, a bounded number of them, and loading again where memory runs out."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from skmm import _torch
from skmm._torch import batch_limit, clear_models, get_model, rename_model

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def empty_registry():
    clear_models()
    yield
    clear_models()


class TestRegistry:
    def test_one_load_per_key(self):
        loads = []
        first = get_model("a", lambda: loads.append("a") or object())
        assert get_model("a", lambda: loads.append("a") or object()) is first
        assert get_model("b", lambda: loads.append("b") or object()) is not first
        assert loads == ["a", "b"]

    def test_threads_that_ask_at_once_load_once(self):
        loads, n_threads = [], 8
        start = threading.Barrier(n_threads)
        others_wait = threading.Event()

        def load():
            loads.append(1)
            # Long enough for all the others to arrive while this one loads.
            others_wait.wait(0.2)
            return object()

        def ask():
            start.wait()
            return get_model("a", load)

        with ThreadPoolExecutor(n_threads) as pool:
            models = {id(future.result()) for future in [pool.submit(ask) for _ in range(n_threads)]}
        assert len(loads) == len(models) == 1

    def test_another_key_does_not_wait_for_a_load(self):
        is_loading, may_finish = threading.Event(), threading.Event()

        def slow():
            is_loading.set()
            assert may_finish.wait(600)
            return "slow"

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(get_model, "slow", slow)
            assert is_loading.wait(600)
            assert get_model("fast", lambda: "fast") == "fast"
            may_finish.set()
            assert future.result() == "slow"

    def test_failed_load_leaves_nothing_behind(self):
        def fail():
            raise OSError("no such model")

        for _ in range(2):
            with pytest.raises(OSError, match="no such model"):
                get_model("a", fail)
        assert get_model("a", lambda: "model") == "model"

    def test_least_recently_used_goes_first(self, monkeypatch):
        monkeypatch.setattr(_torch, "MAX_MODELS", 2)
        loads = []
        for key in ["a", "b", "a", "c", "a", "b"]:
            get_model(key, lambda key=key: loads.append(key) or key)
        assert loads == ["a", "b", "c", "b"]

    def test_clear(self):
        loads = []
        get_model("a", lambda: loads.append(1))
        clear_models()
        get_model("a", lambda: loads.append(1))
        assert len(loads) == 2

    def test_the_number_of_models_is_bounded(self):
        for key in range(20):
            get_model(key, object)
        assert list(_torch._entries) == list(range(12, 20))

    def test_a_model_moves_to_another_key_unless_that_has_one(self):
        first, second = get_model("a", object), get_model("b", object)
        rename_model("a", "c")
        assert get_model("c", object) is first
        rename_model("c", "b")
        assert get_model("b", object) is second
        rename_model("no such key", "d")
        assert list(_torch._entries) == ["b"]

    def test_a_model_may_be_none(self):
        loads = []
        for _ in range(2):
            assert get_model("a", lambda: loads.append(1)) is None
        assert len(loads) == 1

    def test_limits_of_batches_are_cleared_with_the_models(self):
        network = torch.nn.Linear(1, 1)
        batch_limit(network, "cpu").lower(2)
        clear_models()
        assert batch_limit(network, "cpu").rows(8, 1) == 8

    def test_a_model_that_does_not_fit_beside_others_is_loaded_alone(self):
        get_model("a", object)

        def load():
            if len(_torch._entries) > 1:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return "large"

        assert get_model("b", load) == "large"
        assert list(_torch._entries) == ["b"]

    def test_a_model_that_does_not_fit_at_all_is_an_error(self):
        attempts = []

        def load():
            attempts.append(1)
            raise MemoryError("too large")

        with pytest.raises(MemoryError, match="too large"):
            get_model("b", load)
        assert len(attempts) == 2
        assert list(_torch._entries) == []
