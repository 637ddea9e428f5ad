"""One copy of each model in a process, and how many are kept: by their number, and by memory, which is faked here."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from skmm._torch import _registry
from skmm._torch._batches import batch_limit
from skmm._torch._registry import clear_models, get_model

torch = pytest.importorskip("torch")

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


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
        monkeypatch.setattr(_registry, "MAX_MODELS", 2)
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


def model_of(n_bytes, device=CPU, network=None):
    """Stand-in for a model whose weights and buffers take that many bytes."""
    if network is None:
        network = torch.nn.Module()
        network.register_parameter("weight", torch.nn.Parameter(torch.zeros(n_bytes // 8)))
        network.register_buffer("table", torch.zeros(n_bytes // 2, dtype=torch.uint8))
    return SimpleNamespace(network=network, device=device)


class TestMemory:
    @pytest.fixture
    def free(self, monkeypatch):
        """Free memory by device, which tests may change."""
        free = {CPU: None, CUDA: None}
        monkeypatch.setattr(_registry, "free_memory", free.__getitem__)
        return free

    @pytest.fixture
    def use(self):
        """Give a function that gets the model of a key, and the list of the keys that were loaded."""
        loads = []

        def use(key, n_bytes, device=CPU, network=None):
            return get_model(key, lambda: loads.append(key) or model_of(n_bytes, device, network))

        return use, loads

    def test_models_stay_while_they_take_no_more_than_is_free(self, free, use):
        use, loads = use
        free[CPU] = 3000
        for key in "abcabc":
            use(key, 1000)
        assert loads == list("abc")

    def test_the_least_recently_used_go_first_and_no_more_than_need_be(self, free, use):
        use, loads = use
        for key in "abcda":
            use(key, 1000)
        # Of 5000 + 1000 bytes without them, models may take 3000.
        free[CPU] = 1000
        use("e", 1000)
        assert loads == list("abcde")
        assert list(_registry._entries) == ["d", "a", "e"]

    def test_the_one_just_loaded_stays(self, free, use):
        use, loads = use
        use("small", 1000)
        free[CPU] = 0
        big = use("big", 9000)
        assert list(_registry._entries) == ["big"]
        assert use("big", 9000) is big
        assert loads == ["small", "big"]

    def test_who_uses_a_model_keeps_it(self, free, use):
        use, _ = use
        first = use("a", 1000)
        free[CPU] = 0
        use("b", 1000)
        assert first.network.weight.nbytes + first.network.table.nbytes == 1000

    def test_each_device_has_its_own_memory(self, free, use):
        use, _ = use
        use("on cpu", 8000)
        use("old", 1000, CUDA)
        free[CUDA] = 1500
        use("new", 1000, CUDA)
        assert list(_registry._entries) == ["on cpu", "new"]

    def test_a_network_of_two_models_counts_once(self, free, use):
        use, _ = use
        network = use("a", 1000).network
        free[CPU] = 1000
        use("b", 1000, network=network)
        assert list(_registry._entries) == ["a", "b"]
        use("c", 1000)
        assert list(_registry._entries) == ["c"]

    def test_where_nothing_is_known_their_number_counts(self, free, use):
        use, _ = use
        for key in range(20):
            use(key, 10**6)
        assert list(_registry._entries) == list(range(12, 20))

    def test_a_model_that_does_not_fit_beside_others_is_loaded_alone(self, use):
        use, _ = use
        use("a", 1000)

        def load():
            if len(_registry._entries) > 1:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return "large"

        assert get_model("b", load) == "large"
        assert list(_registry._entries) == ["b"]

    def test_a_model_that_does_not_fit_at_all_is_an_error(self, use):
        use, _ = use
        attempts = []

        def load():
            attempts.append(1)
            raise MemoryError("too large")

        with pytest.raises(MemoryError, match="too large"):
            get_model("b", load)
        assert len(attempts) == 2
        assert list(_registry._entries) == []
