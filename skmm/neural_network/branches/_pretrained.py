"""Base of the branches that can train a pretrained network: its encoder, and how its layers are trained."""

import copy
import os
from functools import partial
from numbers import Integral, Real

from ..._sklearn import Interval, StrOptions
from ...encoders import start_encoder
from ...exceptions import BranchItemError, ItemError
from ..network import BranchTraining
from ._base import Branch

# Learning rates of pretrained networks by default, and of adapters, whose weights start at random.
_LEARNING_RATE, _ADAPTER_RATE = 1e-4, 1e-3


class PretrainedBranch(Branch):
    """Base of the branches with a parameter ``model``: the network of an encoder, on arrays of its prepared items.

    Subclasses implement ``_encoder``, ``_pack`` and ``_reader``, and override the hooks of :class:`Branch` for
    ``model=None``.
    """

    _parameter_constraints: dict = {
        **Branch._parameter_constraints,
        "model": [str, os.PathLike],
        "layer_decay": [Interval(Real, 0, 1, closed="right")],
        "gradual_unfreezing": ["boolean"],
        "freeze": ["boolean"],
        "adapter": [StrOptions({"lora"}), None],
        "rank": [Interval(Integral, 1, None, closed="left")],
        "gradient_checkpointing": ["boolean"],
        "compile": ["boolean"],
        "revision": [str, None],
    }

    _reads_items = True

    # Parameters that need a model, and their values where there is none.
    _of_model: dict = {
        "layer_decay": 1,
        "gradual_unfreezing": False,
        "freeze": False,
        "adapter": None,
        "gradient_checkpointing": False,
        "compile": False,
        "revision": None,
    }

    def _encoder(self):
        """Return the encoder whose network is trained, on the CPU in float32."""
        raise NotImplementedError

    def _prepare_item(self, encoder, item):
        """Return an item as the encoder prepares it."""
        return encoder._prepare_item(item)

    def _pack(self, prepared, run):
        """Return the arrays of items that the encoder has prepared."""
        raise NotImplementedError

    def _reader(self, prepared, model):
        """Return what maps the network and tensors of such arrays to vectors, see PretrainedModule."""
        raise NotImplementedError

    def _adapt(self, encoder):
        """Let a fitted encoder prepare items as the branch does, and its identity say so."""

    @property
    def _has_encoder(self):
        return self._is_named()

    def _encode(self, X, device):
        """Return the vectors of the encoder, from the store where it holds them."""
        encoder = self._encoder().set_params(store="auto", device=device).fit(X)
        self._adapt(encoder)
        try:
            return encoder.transform(X)
        except ItemError as error:
            raise BranchItemError(error.row, error.item, error.reason, type(self).__name__) from error

    def _is_named(self):
        return isinstance(self.model, (str, os.PathLike))

    def _check_options(self):
        """Raise if options do not go together."""
        name = type(self).__name__
        for option, usual in self._of_model.items():
            if self.model is None and getattr(self, option) != usual:
                raise ValueError(
                    f"{name}: {option} is for a pretrained network; pass one as model, or leave {option}={usual!r}."
                )
        if self.freeze and self.adapter is not None:
            raise ValueError(f"{name}: freeze=True leaves nothing to train in an adapter; use one of the two.")

    def _start(self):
        """Return the fitted encoder, and its run, which has the model."""
        encoder, run, _ = start_encoder(self._encoder(), type(self).__name__, self._facts)
        return encoder, run

    def _learn(self, X):
        self._items(X)
        *_, self._facts = start_encoder(self._encoder(), type(self).__name__)

    def _prepare(self, X):
        encoder, run = self._start()
        read = partial(self._prepare_item, encoder)
        return self._pack(list(self._read(self._items(X), read, encoder._prepare_in_threads)), run)

    def _make_module(self):
        import torch

        from ._modules import PretrainedModule

        encoder, run = self._start()
        prepared = [self._prepare_item(encoder, encoder._probe_item(0)) for _ in range(2)]
        inputs = [torch.from_numpy(array) for array in self._pack(prepared, run)]
        network, reader = copy.deepcopy(run.model.network), self._reader(prepared, run.model)
        return PretrainedModule(network, reader, inputs, self, self._is_named())

    @property
    def _training(self):
        rate = self.learning_rate
        if rate is None and self._is_named():
            rate = _LEARNING_RATE if self.adapter is None else _ADAPTER_RATE
        return BranchTraining(rate, self.n_frozen_epochs, self._augment(), self.layer_decay, self.gradual_unfreezing)
