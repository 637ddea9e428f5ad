"""Random numbers from a network's own generators: torch's global one is neither used nor changed.

The layers of skmm draw their weights inside :class:`DrawFrom` and in training from the generator that
:func:`use_generator` sets. Code of users can only draw from the global generator, which :func:`seeded` lends to one
thread at a time.
"""

import threading
from contextlib import contextmanager

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# Functions of torch by which constructors of layers draw weights; all take a generator.
_DRAWING = {"kaiming_uniform_", "normal", "normal_", "rand", "randint", "randn", "randperm", "uniform_"}

_global_generator_lock = threading.RLock()


class DrawFrom(TorchFunctionMode):
    """Context in which this thread draws the weights of new layers from a generator.

    Parameters
    ----------
    generator : torch.Generator
        On the CPU, where layers are made.
    """

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if getattr(function, "__name__", None) in _DRAWING and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
        return function(*args, **kwargs)


@contextmanager
def seeded(seed, device):
    """Seed the global generator for code of users and put it back afterwards; other threads that need it wait."""
    with _global_generator_lock, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class Dropout(nn.Module):
    """Set a share of the values to 0 in training, and scale the others so that the mean stays.

    Parameters
    ----------
    p : float
        The share, from 0 to below 1.
    """

    def __init__(self, p):
        super().__init__()
        self.p = p
        self.generator = None

    def forward(self, x):
        """Return the values, in training with a share of them set to 0."""
        if not self.training or self.p == 0:
            return x
        return x * torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator).div_(1 - self.p)

    def extra_repr(self):
        """Return the share, for ``repr``."""
        return f"p={self.p}"


def use_generator(network, generator):
    """Let all layers with an attribute ``generator`` draw from this one; None is torch's global generator."""
    for module in network.modules():
        if hasattr(module, "generator"):
            module.generator = generator
