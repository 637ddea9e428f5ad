"""How much memory is free for a batch: that of a GPU, or of this process on a CPU."""

from pathlib import Path

from .._optional import imported

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")

# Share of the free memory for what is under way at a time. A CPU's serves other processes as well.
_SHARE = {"cpu": 1 / 4}
_SHARE_ELSEWHERE = 1 / 2


def size_that_fits(size, bytes_each, device):
    """Halve the size of a batch until it fits into the memory that is free.

    Halving, so that what else takes a little memory changes nothing.

    Parameters
    ----------
    size : int
        Largest size, in any unit: the one that is fastest where there is memory enough.

    bytes_each : float
        Memory that one of these units takes.

    device : torch.device
        Where the batch is to be.

    Returns
    -------
    size : int
        At least 1; as given where nothing is known of the device's memory.
    """
    free = free_memory(device)
    if free is None:
        return size
    room = free * _SHARE.get(device.type, _SHARE_ELSEWHERE)
    while size > 1 and size * bytes_each > room:
        size //= 2
    return size


def free_memory(device):
    """Give the bytes that this process can still take on a device; None where that is not known.

    Parameters
    ----------
    device : torch.device
        The device. On a CPU what the system says is available counts, and the limits of the control groups (v1 and v2)
        in which the process runs, such as that of its container.

    Returns
    -------
    n_bytes : int or None
        With what torch keeps for later on a GPU, and what holds nothing but copies of files on a CPU.
    """
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        import torch

        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    if device.type != "cpu":
        return None
    return min([*_available_in_system(), *_left_in_groups()], default=None)


def _available_in_system():
    """Yield what Linux says is available without swapping."""
    for line in _lines(_MEMINFO):
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])


def _left_in_groups():
    """Yield what each limit leaves that the control groups of this process have, and those around them."""
    for line in _lines(_OWN_GROUPS):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts, names = (_GROUPS, _GROUPS / "unified"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mounts = (_GROUPS / "memory",)
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        # In a container the path may be that of the machine outside, which is not there: its own group is the mount.
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            for group in (mount / inner, *(mount / outer for outer in inner.parents)):
                yield from _left_in_group(group, *names)


def _left_in_group(group, limit, used, reclaimable):
    try:
        most, taken = int((group / limit).read_text()), int((group / used).read_text())
    # No such group, no such controller, or "max": no limit.
    except (OSError, ValueError):
        return
    cached = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.split()[0] == reclaimable]
    yield max(0, most - taken + sum(cached))


def _lines(path):
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error):
    """Tell whether an exception says that a device, or the machine, ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    import torch

    is_typed = isinstance(error, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError))
    return is_typed or any(text in str(error).lower() for text in _OUT_OF_MEMORY_TEXTS)


def free_cached_memory():
    """Give memory that torch keeps for later back to the device, if torch is in use."""
    torch = imported("torch")
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
