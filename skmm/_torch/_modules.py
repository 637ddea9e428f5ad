"""Modules in memory: where they are, and copies that are ready to run."""

import copy


def place_of(weights):
    """Give device and dtype of a tensor; those of plain torch for a module without weights."""
    import torch

    return (torch.device("cpu"), torch.float32) if weights is None else (weights.device, weights.dtype)


def ready_module(module, device, dtype, compiled=False):
    """Give the module itself if it is in eval mode where and as it should run, else a copy that is; compiled if asked.

    torch recognises the code that it has compiled before, also in a copy.
    """
    tensors = [*module.parameters(), *module.buffers()]
    fits = all(x.device == device and (x.dtype == dtype or not x.is_floating_point()) for x in tensors)
    if not fits or any(part.training for part in module.modules()):
        module = copy.deepcopy(module).to(device, dtype).eval()
    if not compiled:
        return module
    import torch

    return torch.compile(module, dynamic=True)
