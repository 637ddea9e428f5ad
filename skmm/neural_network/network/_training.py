"""The training loop: batches by index, AdamW, schedule, early stopping, best weights.

The loop is skmm's own for four reasons. Weights of rows enter the loss exactly, so that a row of weight 2 equals the
row twice. Masks of missing modalities and gradients of single modalities are plain tensors. All random numbers come
from generators of the fit, so that fits in threads repeat. And skmm depends on one package less: skorch would do the
job, but as fast only with its ``DataLoader`` and its checkpoints replaced.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from ..._torch import free_cached_memory, is_out_of_memory
from .._state import to_arrays, to_tensors
from ._processes import Processes
from ._rows import in_batches, precise, read_ahead

# Number of steps that max_epochs="auto" aims at, and its bounds.
_N_STEPS = 600
_MIN_EPOCHS, _MAX_EPOCHS = 30, 100


def resolve_batch_size(batch_size, n_samples):
    """Return the number of rows of a step, from 1 to ``n_samples``."""
    if batch_size == "auto":
        # Few rows need small batches for enough steps per epoch; many steps cost time.
        batch_size = min(200, max(64, n_samples // 40))
    return min(batch_size, n_samples)


def resolve_epochs(max_epochs, batch_size, n_samples):
    """Return the number of epochs, at least 1."""
    if max_epochs != "auto":
        return max_epochs
    n_steps = math.ceil(n_samples / resolve_batch_size(batch_size, n_samples))
    return min(_MAX_EPOCHS, max(_MIN_EPOCHS, math.ceil(_N_STEPS / n_steps)))


class BranchTraining(NamedTuple):
    """How a branch is trained: ``augment`` is called on each batch; the other fields are as in the branches."""

    # None is that of the network.
    learning_rate: float | None = None
    n_frozen_epochs: int = 0
    augment: Callable | None = None
    layer_decay: float = 1.0
    gradual_unfreezing: bool = False


def layers_of(branch):
    """Return the weights of each layer of a branch, from the last layer to the first."""
    return branch.layer_weights() if hasattr(branch, "layer_weights") else [list(branch.parameters())]


class Trainer:
    """Trains a network.

    Parameters
    ----------
    network : Network
        On its device.

    criterion : callable
        Takes outputs, targets and weights (or None) and returns the weighted mean loss. If it is a module, its
        parameters are trained as well.

    device : torch.device
        Where the network is.

    branches : list of BranchTraining
        One for each modality.

    settings : object
        Has the parameters of :class:`~skmm.neural_network.MultimodalNetClassifier` that concern training as attributes.

    generator : torch.Generator
        On the CPU. For the order of rows, augmentation, dropout and modality dropout.

    autocast : torch.dtype or None, default=None
        Half precision to compute in, or None.

    processes : Processes or None, default=None
        The processes that train together; None is this one alone.
    """

    def __init__(self, network, criterion, device, branches, settings, generator, autocast=None, processes=None):
        import torch

        self.network = network
        self.criterion = criterion
        self.device = device
        self.branches = branches
        self.settings = settings
        self.generator = generator
        self.autocast = autocast
        self.processes = Processes(False) if processes is None else processes
        # For the layers, which draw on the device.
        self.device_generator = generator
        if device.type != "cpu":
            self.device_generator = torch.Generator(device).manual_seed(generator.initial_seed())
        self.optimizer = self._make_optimizer()
        # Scales the loss up, where gradients in float16 would become 0.
        self.scaler = torch.amp.GradScaler(device.type, enabled=autocast == torch.float16)
        # Rows whose forward and backward pass fit into memory; None while a whole batch does.
        self._n_rows_fitting = None
        # Scores of single modalities, one tensor for each slice of the current batch.
        self._scores = []
        # Weights of each layer of each branch that may be frozen and released; those frozen beforehand stay frozen.
        self._trainable = [
            [[p for p in layer if p.requires_grad] for layer in layers_of(branch)] for branch in network.branches
        ]
        # Of all epochs, and the number of those that count for frozen branches.
        self.history = SimpleNamespace(losses=[], scores=[], n_counted=0)
        # The best score on validation rows so far, and the weights that had it.
        self._best, self._checkpoint = -math.inf, None

    def _make_optimizer(self):
        """Return AdamW with weight decay on matrices only and the learning rates of the branches."""
        import torch

        # Weights with their learning rates, and the modality whose gradient modulation shortens their steps.
        layers, default_rate = [], self.settings.learning_rate
        for m, (branch, training) in enumerate(zip(self.network.branches, self.branches, strict=True)):
            rate = default_rate if training.learning_rate is None else training.learning_rate
            layers += [(w, rate * training.layer_decay**depth, m) for depth, w in enumerate(layers_of(branch))]
        if self.settings.modulation is not None:
            layers += [(tower.parameters(), default_rate, m) for m, tower in enumerate(self.network.towers)]
        layers.append((self.network.parameters(), default_rate, None))
        if isinstance(self.criterion, torch.nn.Module):
            layers.append((self.criterion.parameters(), default_rate, None))
        groups, seen = [], set()
        for weights, rate, modality in layers:
            parameters = [p for p in weights if p not in seen]
            seen.update(parameters)
            for decay, group in (
                (self.settings.weight_decay, [p for p in parameters if p.ndim > 1]),
                (0.0, [p for p in parameters if p.ndim <= 1]),
            ):
                if group:
                    rates = {"lr": rate, "initial_lr": rate, "weight_decay": decay}
                    groups.append({"params": group, "modality": modality, **rates})
        return torch.optim.AdamW(groups, fused=self.device.type in ("cpu", "cuda"))

    def fit(self, train, validation, n_epochs, patience=None, schedule="constant", on_epoch=None, n_before=0):
        """Train for some epochs; then, or after an error, the network has its best weights and is in evaluation mode.

        Returns ``history``, with the lists ``losses`` and ``scores``. A further call goes on from there; the best
        weights are those of all calls.

        Parameters
        ----------
        train : Rows
            Rows to learn from.

        validation : Rows or None
            Rows whose loss decides which weights are best, and when to stop: ``patience`` epochs after these.

        n_epochs : int
            Epochs, at most.

        patience : int or None, default=None
            None never stops early.

        schedule : {"cosine", "constant"}, default="constant"
            Course of the learning rate.

        on_epoch : callable or None, default=None
            Called after each epoch with its number from 0, the mean training loss and the validation score or None.

        n_before : int, default=0
            Epochs that the network was trained before, which count for frozen branches; ``-math.inf`` leaves them
            frozen.
        """
        import torch

        from ._randomness import use_generator

        train, validation = self._to_device(train), None if validation is None else self._to_device(validation)
        n_batches = math.ceil(len(train) / resolve_batch_size(self.settings.batch_size, len(train)))
        n_waited = 0
        # Modules of users may start from other weights in each process.
        self.processes.copy_first(self._state())
        use_generator(self.network, self.device_generator)
        try:
            for epoch in range(n_epochs):
                self._freeze(n_before + epoch)
                steps = range(epoch * n_batches, (epoch + 1) * n_batches)
                rates = [self._rate(step, n_epochs * n_batches, schedule) for step in steps]
                with torch.enable_grad():
                    loss = self._epoch(train, n_batches, rates)
                score = None if validation is None else -self._loss(validation)
                self.history.losses.append(loss)
                self.history.n_counted += math.isfinite(n_before)
                if score is not None:
                    self.history.scores.append(score)
                    if score > self._best:
                        self._best, n_waited = score, 0
                        self._checkpoint = self.save(self._checkpoint)
                    else:
                        n_waited += 1
                if on_epoch is not None:
                    on_epoch(epoch, loss, score)
                if n_waited == patience:
                    break
        finally:
            if self._checkpoint is not None:
                self.restore(self._checkpoint)
            self._freeze(math.inf)
            use_generator(self.network, None)
            self.network.eval()
        return self.history

    def _to_device(self, rows):
        """Move rows to the device, unless they are to be moved batch by batch: they do not fit, or are read so."""
        if rows.readers is not None:
            return rows
        try:
            return rows.map(lambda tensor: tensor.to(self.device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free_cached_memory()
        return rows

    def _rate(self, step, n_steps, schedule):
        """Return the factor on the learning rates: a linear rise, then half a cosine down to 0."""
        if schedule == "constant":
            return 1.0
        n_warm = max(1, round(self.settings.warmup * n_steps))
        if step < n_warm:
            return (step + 1) / n_warm
        return 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1, n_steps - n_warm)))

    def _freeze(self, epoch):
        """Freeze the branches that are still to be left as they are in this epoch, and release the others."""
        for layers, training in zip(self._trainable, self.branches, strict=True):
            for depth, parameters in enumerate(layers):
                n_frozen = training.n_frozen_epochs + depth * training.gradual_unfreezing
                for parameter in parameters if n_frozen else ():
                    parameter.requires_grad_(epoch >= n_frozen)

    def _epoch(self, train, n_batches, rates):
        """Train on all rows once and return the mean loss."""
        import torch

        self.network.train()
        order = None
        if n_batches > 1:
            order = torch.randperm(len(train), generator=self.generator).to(self.device)
            self.processes.copy_first([order])
            order = order.to(train.inputs[0][0].device)
        total = torch.zeros((), device=self.device)
        # Batch sizes differ by one row at most: a last batch of a few rows would give a noisy step.
        ends = [len(train) * (i + 1) // n_batches for i in range(n_batches)]
        starts = [0, *ends[:-1]]
        spans = zip(starts, ends, strict=True)
        batches = (train if order is None else train.take(order[start:end]) for start, end in spans)
        shares = read_ahead(train, map(self.processes.share, batches))
        for share, start, end, rate in zip(shares, starts, ends, rates, strict=True):
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
            total += self._step(share, end - start) * (end - start)
        loss = float(self.processes.add(total)) / len(train)
        # Running statistics are those of each process's rows.
        self.processes.copy_first(buffer for module in self._modules() for buffer in module.buffers())
        if not math.isfinite(loss):
            raise ValueError(
                f"The training loss became {loss}: lower learning_rate={self.settings.learning_rate}, or look for "
                "extreme values in X and y."
            )
        return loss

    def _step(self, share, n_batch):
        """Update the weights once, and return what a share of a batch of ``n_batch`` rows contributes to the loss."""
        import torch

        loss = self._add_gradients(share, n_batch)
        if self.processes.n > 1:
            self.processes.add_gradients([p for group in self.optimizer.param_groups for p in group["params"]])
        self.scaler.unscale_(self.optimizer)
        if self._scores:
            self._modulate()
        if self.settings.max_grad_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _add_gradients(self, batch, n_batch):
        """Set the gradients to those of a share of a batch, in slices if asked for or where memory runs out.

        Returns what the share contributes to the loss.
        """
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            self._scores = []
            size = min(self._n_rows_fitting or n_batch, max(1, math.ceil(len(batch) / self.settings.accumulate)))
            try:
                return sum(
                    self._backward(batch.slice(start, start + size), n_batch) for start in range(0, len(batch), size)
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
            # Outside of the handler: its traceback holds the tensors of the attempt that failed.
            self._n_rows_fitting = math.ceil(size / 2)
            free_cached_memory()

    def _modulate(self):
        """Shorten the steps of modalities that are ahead of the others."""
        import torch

        modulation = self.settings.modulation
        coefficients = modulation.coefficients(torch.stack(self._scores).nanmean(dim=0)).tolist()
        layers = zip(self.network.branches, self.network.towers, strict=True)
        modulation.add_noise(layers, coefficients, self.device_generator)
        for group in self.optimizer.param_groups:
            if group["modality"] is not None:
                group["lr"] *= coefficients[group["modality"]]

    def _backward(self, rows, n_batch):
        """Add the gradients of some rows of a batch, and return what they contribute to its loss."""
        if rows.inputs[0][0].device != self.device:
            rows = rows.map(lambda tensor: tensor.to(self.device))
        inputs = [
            tensors
            if training.augment is None or getattr(branch, "reads_vectors", False)
            else training.augment(tensors, self.generator)
            for tensors, training, branch in zip(rows.inputs, self.branches, self.network.branches, strict=True)
        ]
        mask = self._drop_modalities(rows)
        with self._seeded_for_users_modules():
            with precise(self.device, self.autocast):
                hiddens = self.network.hiddens(inputs, mask)
                outputs = self.network.outputs_of(hiddens, mask)
                if self.settings.modulation is not None:
                    self._scores.append(
                        self.settings.modulation.scores(
                            self.network, hiddens, mask, rows.targets, rows.weights, self.criterion
                        )
                    )
            loss = self._criterion(outputs, rows) * (len(rows) / n_batch)
            # Gradient checkpointing runs layers, and draws for them, once more.
            self.scaler.scale(loss).backward()
        return loss.detach()

    def _seeded_for_users_modules(self):
        """Return a context in which torch's global generator, from which modules of users draw, is seeded."""
        import torch

        from ._randomness import seeded

        if not self.network.draws_globally:
            return nullcontext()
        return seeded(int(torch.randint(2**62, (), generator=self.generator)), self.device)

    def _criterion(self, outputs, rows):
        """Return the mean of weight times cost, where weights have mean 1 over all training rows."""
        outputs = outputs.to(self.network.head.weight.dtype)
        loss = self.criterion(outputs, rows.targets, rows.weights)
        return loss if rows.weights is None else loss * rows.weights.mean()

    def _drop_modalities(self, rows):
        """Return the mask with modalities left out at random, never all of a row."""
        import torch

        if self.settings.modality_dropout == 0:
            return rows.mask
        shape = len(rows), len(rows.inputs)
        present = torch.rand(shape, generator=self.generator).to(self.device) >= self.settings.modality_dropout
        if rows.mask is not None:
            present &= rows.mask
        undropped = torch.ones_like(present) if rows.mask is None else rows.mask
        return torch.where(present.any(dim=1, keepdim=True), present, undropped)

    def _loss(self, rows):
        """Return the weighted mean loss of rows, with dropout off."""
        import torch

        self.network.eval()

        def costs(batch):
            with precise(self.device, self.autocast):
                outputs = self.network(batch.inputs, batch.mask)
            return np.array([float(self._criterion(outputs, batch)) * len(batch)])

        share = self.processes.share(rows)
        with torch.no_grad():
            total = in_batches(self.network, share, costs, self.device).sum() if len(share) else 0.0
        total = self.processes.add_number(total, self.device)
        return float(total / (len(rows) if rows.weights is None else rows.weights.sum().item()))

    def save(self, checkpoint=None):
        """Copy all weights and statistics, into the tensors of an earlier copy if there is one."""
        state = self._state()
        if checkpoint is None:
            return [tensor.clone() for tensor in state]
        for saved, tensor in zip(checkpoint, state, strict=True):
            saved.copy_(tensor)
        return checkpoint

    def restore(self, checkpoint):
        """Set weights and statistics to what :meth:`save` copied."""
        for saved, tensor in zip(checkpoint, self._state(), strict=True):
            tensor.copy_(saved)

    def optimizer_state(self):
        """Return the optimiser's state of each weight, as arrays by the weight's name."""
        state = self.optimizer.state
        return {name: to_arrays(state[weights]) for name, weights in self._named_weights() if weights in state}

    def load_optimizer_state(self, state):
        """Continue with the state of an earlier optimiser, at the present learning rates."""
        groups = self.optimizer.state_dict()["param_groups"]
        weights = [weights for group in self.optimizer.param_groups for weights in group["params"]]
        positions = {weights: i for i, weights in enumerate(weights)}
        states = {positions[w]: to_tensors(state[name]) for name, w in self._named_weights() if name in state}
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})

    def _state(self):
        return [tensor for module in self._modules() for tensor in module.state_dict().values()]

    def _named_weights(self):
        return [pair for i, module in enumerate(self._modules()) for pair in module.named_parameters(prefix=str(i))]

    def _modules(self):
        import torch

        return [self.network, *([self.criterion] if isinstance(self.criterion, torch.nn.Module) else [])]
