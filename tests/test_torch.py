"""Devices, precision, batches that run out of memory, and shares of torch's threads."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from skmm import _torch
from skmm._torch import (
    BatchLimit,
    batch_limit,
    divided_threads,
    expected_place,
    forget_limits,
    imported,
    numeric_settings,
    place,
    resolve_device,
    resolve_precision,
    run_with_backoff,
)

torch = pytest.importorskip("torch")


class TestDevice:
    def test_cpu(self):
        assert resolve_device("cpu") == torch.device("cpu")

    @pytest.mark.parametrize(
        ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
    )
    def test_auto_takes_the_first_available(self, monkeypatch, cuda, mps, expected):
        empty = torch.empty
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch, "empty", lambda size, device: empty(size))
        assert resolve_device("auto").type == expected

    def test_cuda_devices_have_an_index(self, monkeypatch):
        empty = torch.empty
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
        monkeypatch.setattr(torch, "empty", lambda size, device: empty(size))
        assert resolve_device("cuda") == torch.device("cuda", 3)
        assert resolve_device("cuda:1") == torch.device("cuda", 1)

    @pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "cpu:x", ""])
    def test_other_devices_are_refused_with_those_available(self, device):
        with pytest.raises(ValueError, match=rf"device='{device}' cannot be used here.*available: .*'cpu', or 'auto'"):
            resolve_device(device)


class TestPrecision:
    @pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
    def test_explicit(self, name):
        assert resolve_precision(name, torch.device("cpu")) is getattr(torch, name)

    @pytest.mark.parametrize(
        ("capability", "expected"),
        [
            ((6, 1), torch.float32),
            ((7, 0), torch.float16),
            ((7, 5), torch.float16),
            ((8, 0), torch.bfloat16),
            ((12, 0), torch.bfloat16),
        ],
    )
    def test_auto_on_cuda_goes_by_compute_capability(self, monkeypatch, capability, expected):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert resolve_precision("auto", torch.device("cuda", 0)) is expected

    def test_auto_on_mps(self):
        assert resolve_precision("auto", torch.device("mps")) is torch.float32

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            ("sse avx2", torch.float32),
            ("sse avx512_bf16", torch.float32),
            ("amx_tile amx_int8", torch.float32),
            ("amx_bf16 sse", torch.bfloat16),
            ("avx512_bf16 amx_bf16", torch.bfloat16),
        ],
    )
    def test_auto_on_cpu_is_half_precision_with_amx_only(self, cpu_info, flags, expected):
        cpu_info.write_text(f"processor\t: 0\nmodel name\t: some amx_bf16 CPU\nflags\t\t: {flags}\n")
        assert resolve_precision("auto", torch.device("cpu")) is expected
        assert expected_place("cpu", "auto") == ("cpu", str(expected).removeprefix("torch."))
        assert expected_place("cpu", "float16") == ("cpu", "float16")

    @pytest.mark.parametrize("content", ["", "processor: 0\n", None])
    def test_auto_on_cpu_without_flags(self, cpu_info, content):
        if content is not None:
            cpu_info.write_text(content)
        assert resolve_precision("auto", torch.device("cpu")) is torch.float32
        assert expected_place("cpu", "auto") == ("cpu", "float32")

    @pytest.fixture
    def cpu_info(self, monkeypatch, tmp_path):
        """Path of the file that stands for /proc/cpuinfo."""
        monkeypatch.setattr(_torch, "_CPU_INFO", tmp_path / "cpuinfo")
        _torch._cpu_has_amx.cache_clear()
        yield tmp_path / "cpuinfo"
        _torch._cpu_has_amx.cache_clear()


class TestExpectedPlace:
    """What a run of a network will use; it is told without torch where that can be."""

    def test_it_is_what_torch_resolves(self):
        for precision in ("auto", "float32", "bfloat16", "float16"):
            device = resolve_device("auto")
            expected = device.type, str(resolve_precision(precision, device)).removeprefix("torch.")
            assert expected_place("auto", precision) == expected

    @pytest.mark.parametrize(("has_accelerator", "expected"), [(False, "cpu"), (True, "cuda")])
    def test_without_torch_the_files_of_accelerators_decide(self, monkeypatch, tmp_path, has_accelerator, expected):
        accelerator = tmp_path / "nvidiactl"
        if has_accelerator:
            accelerator.touch()
        monkeypatch.setattr(_torch, "sys", SimpleNamespace(modules={}, platform="linux"))
        monkeypatch.setattr(_torch, "_ACCELERATORS", (str(accelerator),))
        monkeypatch.setattr(_torch, "resolve_device", lambda device: torch.device("cuda", 0))
        assert expected_place("auto", "float32") == (expected, "float32")


class TestNumericSettings:
    def test_defaults_are_those_of_plain_torch(self, monkeypatch):
        before = numeric_settings()
        monkeypatch.setattr(_torch, "imported", lambda name: None)
        assert numeric_settings() == before

    @pytest.mark.parametrize(
        ("module", "name", "value"),
        [
            (torch, "get_default_dtype", lambda: torch.float64),
            (torch, "get_float32_matmul_precision", lambda: "medium"),
            (torch, "are_deterministic_algorithms_enabled", lambda: True),
            (torch.backends.cudnn, "allow_tf32", False),
        ],
    )
    def test_each_setting_counts(self, monkeypatch, module, name, value):
        before = numeric_settings()
        monkeypatch.setattr(module, name, value)
        assert numeric_settings() != before


class TestPlace:
    """Copies to CUDA, as far as they can be seen without it."""

    @pytest.fixture
    def seen(self, monkeypatch):
        notes, to = [], torch.Tensor.to

        def copy(x, device, dtype, non_blocking):
            notes.append((device.type, non_blocking))
            return to(x, "cpu", dtype)

        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: notes.append("pinned") or x)
        monkeypatch.setattr(torch.Tensor, "to", copy)
        return notes

    def test_to_cuda_from_pinned_memory_without_waiting(self, seen):
        assert place(torch.ones(2), torch.device("cuda", 0), torch.float16).dtype is torch.float16
        assert seen == ["pinned", ("cuda", True)]

    def test_nothing_is_pinned_for_other_devices(self, seen):
        place(torch.ones(2), torch.device("cpu"))
        place(torch.ones(2), torch.device("mps"))
        assert seen == [("cpu", True), ("mps", True)]

    def test_integers_stay_integers(self, seen):
        assert place(torch.ones(2, dtype=torch.int64), torch.device("cuda", 0), torch.float16).dtype is torch.int64


def _limited(limit, error, sizes):
    def function(batch):
        sizes.append(len(batch))
        if len(batch) > limit:
            raise error
        return np.array(batch, dtype=np.float32)[:, None]

    return function


class TestBackoff:
    @pytest.mark.parametrize(
        "error",
        [
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
            RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
            MemoryError(),
        ],
    )
    @pytest.mark.parametrize("n_items", [1, 2, 7, 16])
    def test_halves_until_it_fits_and_keeps_the_order(self, error, n_items):
        sizes = []
        rows = run_with_backoff(_limited(3, error, sizes), list(range(n_items)))
        np.testing.assert_array_equal(rows, np.arange(n_items, dtype=np.float32)[:, None])
        assert sizes[0] == n_items

    def test_goes_on_with_the_size_that_fits(self):
        sizes = []
        run_with_backoff(_limited(2, MemoryError(), sizes), list(range(8)))
        assert sizes == [8, 4, 2, 2, 2, 2]

    def test_what_fits_is_remembered_in_the_unit_of_the_cost(self):
        limit, sizes = BatchLimit(), []
        run_with_backoff(_limited(4, MemoryError(), sizes), list(range(8)), limit, cost=lambda: 10)
        run_with_backoff(_limited(4, MemoryError(), sizes), list(range(8)), limit, cost=lambda: 10)
        assert sizes == [8, 4, 4, 4, 4]
        # Half the cost, twice the number; and never less than one.
        assert [limit.rows(100, cost) for cost in (5, 10, 30, 50)] == [8, 4, 1, 1]

    def test_a_single_item_that_does_not_fit_teaches_nothing(self):
        limit = BatchLimit()
        with pytest.raises(MemoryError):
            run_with_backoff(_limited(0, MemoryError(), []), [1], limit)
        assert limit.rows(8, 1) == 8

    def test_threads_share_one_limit(self):
        network, device = torch.nn.Linear(1, 1), torch.device("cpu")
        with ThreadPoolExecutor(4) as pool:
            limits = set(pool.map(lambda _: batch_limit(network, device), range(32)))
            (limit,) = limits
            list(pool.map(limit.lower, range(100, 3, -1)))
        assert limit.rows(1000, 1) == 4
        assert batch_limit(network, torch.device("meta")) is not limit
        assert batch_limit(torch.nn.Linear(1, 1), device) is not limit

    def test_limits_go_with_the_network_or_on_demand(self):
        network = torch.nn.Linear(1, 1)
        batch_limit(network, "cpu").lower(2)
        assert batch_limit(network, "cpu").rows(8, 1) == 2
        forget_limits()
        assert batch_limit(network, "cpu").rows(8, 1) == 8
        n_limits = len(_torch._limits)
        del network
        assert len(_torch._limits) == n_limits - 1

    def test_no_attempt_is_repeated_without_need(self):
        sizes = []
        run_with_backoff(_limited(8, MemoryError(), sizes), list(range(8)))
        assert sizes == [8]

    def test_one_item_that_does_not_fit(self):
        error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        with pytest.raises(MemoryError, match=r"a single item does not fit.*Tried to allocate") as caught:
            run_with_backoff(_limited(0, error, []), [1, 2, 3])
        assert caught.value.__cause__ is error

    def test_one_item_that_does_not_fit_without_a_reason(self):
        with pytest.raises(MemoryError, match=r"a single item does not fit.*MemoryError"):
            run_with_backoff(_limited(0, MemoryError(), []), [1])

    def test_other_errors_pass(self):
        sizes = []
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            run_with_backoff(_limited(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), sizes), [1, 2])
        assert sizes == [2]

    def test_cached_memory_is_freed_before_the_next_attempt(self, monkeypatch):
        events = []
        monkeypatch.setattr(_torch, "free_cached_memory", lambda: events.append("freed"))

        def function(batch):
            events.append(len(batch))
            if len(batch) > 1:
                raise MemoryError
            return np.zeros((1, 1))

        run_with_backoff(function, [1, 2])
        assert events == [2, "freed", 1, 1]


class TestDividedThreads:
    @pytest.fixture(autouse=True)
    def four(self):
        before = torch.get_num_threads()
        torch.set_num_threads(4)
        yield
        torch.set_num_threads(before)

    def in_a_new_thread(self, ask, *args):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(ask, *args).result()

    def test_each_worker_has_its_share_and_the_caller_what_it_had(self):
        with divided_threads() as divide:
            for n_workers, share in ((1, 4), (2, 2), (3, 1), (8, 1)):
                assert self.in_a_new_thread(lambda n=n_workers: divide(n) or torch.get_num_threads()) == share
        assert torch.get_num_threads() == self.in_a_new_thread(torch.get_num_threads) == 4

    @pytest.mark.parametrize("is_first_over_first", [True, False])
    def test_calls_that_overlap_take_no_share_for_the_whole(self, is_first_over_first):
        shares, is_over = [], [threading.Event(), threading.Event()]

        def call(which, has_begun):
            with divided_threads() as divide:
                shares.append(self.in_a_new_thread(lambda: divide(2) or torch.get_num_threads()))
                has_begun.set()
                assert is_over[which].wait(600)

        with ThreadPoolExecutor(2) as pool:
            calls = []
            for which in range(2):
                has_begun = threading.Event()
                calls.append(pool.submit(call, which, has_begun))
                assert has_begun.wait(600)
            for which in (0, 1) if is_first_over_first else (1, 0):
                is_over[which].set()
                calls[which].result()
        assert shares == [2, 2]
        assert self.in_a_new_thread(torch.get_num_threads) == 4


def test_imported_imports_nothing(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "not_yet.py").write_text("")
    assert imported("not_yet") is None
    assert "not_yet" not in sys.modules
    assert imported("json") is sys.modules["json"]


def test_imported_waits_for_a_module_to_be_whole(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_module.py").write_text("import events_of_test as t; t.begun.set(); t.go.wait(600); whole = True")
    helper = type(sys)("events_of_test")
    helper.begun, helper.go = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "events_of_test", helper)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(__import__, "slow_module")
        assert helper.begun.wait(600)
        asked = pool.submit(lambda: hasattr(imported("slow_module"), "whole"))
        # What does not wait has answered long before.
        with pytest.raises(TimeoutError):
            asked.result(0.5)
        helper.go.set()
        assert asked.result(600)
    # Not by the fixture, which would put it back.
    del sys.modules["slow_module"]
