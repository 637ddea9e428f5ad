"""The size of a batch goes by the memory that is free, which is faked here: limits of containers, GPUs."""

import numpy as np
import pytest

from skmm._torch import _memory
from skmm._torch._memory import free_memory, size_that_fits

torch = pytest.importorskip("torch")

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")
MIB = 2**20


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Give a function that sets up the files of a Linux machine: what is available, own groups, files of groups."""

    def set_up(available=None, own="", groups=()):
        (tmp_path / "own").write_text(own)
        if available is not None:
            (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {available // 1024} kB\n")
        for name, content in dict(groups).items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    monkeypatch.setattr(_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(_memory, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(_memory, "_GROUPS", tmp_path / "groups")
    return set_up


class TestCpu:
    def test_what_the_system_says(self, machine):
        machine(300 * MIB)
        assert free_memory(CPU) == 300 * MIB

    def test_elsewhere_nothing_is_known(self, machine):
        machine()
        assert free_memory(CPU) is None

    def test_limit_of_a_container_v2(self, machine):
        stat = f"anon 5\ninactive_file {20 * MIB}\nactive_file 7"
        own = {"memory.max": 500 * MIB, "memory.current": 200 * MIB, "memory.stat": stat}
        machine(9000 * MIB, "0::/\n", own)
        assert free_memory(CPU) == 320 * MIB

    def test_limit_of_a_container_v1(self, machine):
        # The path is that of the machine outside, which is not there.
        stat = f"inactive_file 3\ntotal_inactive_file {20 * MIB}"
        own = {
            "memory/memory.limit_in_bytes": 500 * MIB,
            "memory/memory.usage_in_bytes": 200 * MIB,
            "memory/memory.stat": stat,
        }
        machine(9000 * MIB, "5:cpu,cpuacct:/docker/abc\n4:hugetlb,memory:/docker/abc\n0::/docker/abc\n", own)
        assert free_memory(CPU) == 320 * MIB

    @pytest.mark.parametrize(("outer", "inner"), [(100, 400), (400, 100)])
    def test_the_tightest_of_nested_groups_counts(self, machine, outer, inner):
        groups = {
            "slice/memory.max": outer * MIB,
            "slice/memory.current": 10 * MIB,
            "slice/job/memory.max": inner * MIB,
            "slice/job/memory.current": 10 * MIB,
        }
        machine(9000 * MIB, "0::/slice/job\n", groups)
        assert free_memory(CPU) == 90 * MIB

    def test_beside_groups_of_v1_those_of_v2_have_a_mount_of_their_own(self, machine):
        machine(900 * MIB, "0::/\n", {"unified/memory.max": 50 * MIB, "unified/memory.current": 0})
        assert free_memory(CPU) == 50 * MIB

    def test_no_limit(self, machine):
        groups = {
            "memory.max": "max",
            "memory.current": 200 * MIB,
            "memory/memory.limit_in_bytes": 9223372036854771712,
            "memory/memory.usage_in_bytes": 200 * MIB,
        }
        machine(300 * MIB, "4:memory:/\n0::/\n", groups)
        assert free_memory(CPU) == 300 * MIB

    def test_a_limit_that_is_exceeded_leaves_nothing(self, machine):
        machine(300 * MIB, "0::/\n", {"memory.max": 100, "memory.current": 200})
        assert free_memory(CPU) == 0

    def test_this_machine(self):
        free = free_memory(CPU)
        assert free is None or 0 <= free < 2**50


class TestGpu:
    def test_cuda_counts_what_torch_keeps_for_later(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {CUDA: (700, 1000)}[device])
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 200)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
        assert free_memory(CUDA) == 850

    def test_mps(self, monkeypatch):
        monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1000)
        monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 300)
        assert free_memory(MPS) == 700

    def test_others_are_not_known(self):
        assert free_memory(torch.device("meta")) is None


class TestSize:
    @pytest.mark.parametrize(
        ("device", "free", "expected"),
        [
            (CUDA, 10**9, 256),
            (CUDA, 2 * 256 * 100, 256),
            (CUDA, 2 * 256 * 100 - 1, 128),
            (CUDA, 2 * 33 * 100, 32),
            (CUDA, 0, 1),
            (CPU, 4 * 256 * 100, 256),
            (CPU, 4 * 100 * 100, 64),
            (CPU, None, 256),
        ],
    )
    def test_halves_until_it_fits(self, monkeypatch, device, free, expected):
        monkeypatch.setattr(_memory, "free_memory", lambda asked: free if asked == device else 0)
        assert size_that_fits(256, 100, device) == expected

    def test_never_more_than_asked(self, monkeypatch):
        monkeypatch.setattr(_memory, "free_memory", lambda device: 2**60)
        assert all(size_that_fits(size, 1, CPU) == size for size in np.arange(1, 100))
