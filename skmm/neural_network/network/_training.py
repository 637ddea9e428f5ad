"""The training loop: batches by index, AdamW, schedule, early stopping, best weights.

The loop is skmm's own, and short, for reasons of measurement and of design. skorch is the well-kept library that would
do the job, and as fast (.98 to 1.08 of a bare loop on frozen features) once its ``DataLoader`` gives way to slicing
and its checkpoint of the best weights, which goes through a pickle (1.20), to a copy in memory; what then remains of
it is the order of the calls. Against it stands what a loop of one's own gives: the weights of rows enter the loss
exactly (scikit-learn's check of their equivalence to repeated rows holds at 1e-7, in float64), masks of missing
modalities and gradients per modality are plain tensors, the global random state stays as it was, and skmm depends on
one package less.
"""

import math
from types import SimpleNamespace

import numpy as np

from ..._torch import free_cached_memory, is_out_of_memory
from .._state import to_arrays, to_tensors
from ._rows import in_pieces, precise
from ._steps import resolve_batch_size


class Trainer:
    """Trains a network.

    Parameters
    ----------
    network : Network
        On its device.

    criterion : callable
        Takes outputs, targets and weights (or None), gives the weighted mean loss; its parameters, if it is a module,
        are trained as well.

    device : torch.device
        Where the network is.

    branches : list of (learning_rate, n_frozen_epochs, augment)
        For each modality its own learning rate or None, the epochs in which its branch stays as it is, and its
        augmentation or None.

    settings : object
        Has the parameters of :class:`~skmm.neural_network.MultimodalNetClassifier` that concern training as attributes.

    generator : torch.Generator
        For the order of rows, augmentation and modality dropout.

    autocast : torch.dtype or None, default=None
        Half precision to compute in, or None.
    """

    def __init__(self, network, criterion, device, branches, settings, generator, autocast=None):
        self.network = network
        self.criterion = criterion
        self.device = device
        self.branches = branches
        self.settings = settings
        self.generator = generator
        self.autocast = autocast
        self.optimizer = self._make_optimizer()
        # Rows that fit into memory with their gradients; None while all of a batch do.
        self._fitting = None
        # How well each modality does alone, in the pieces of the batch at hand.
        self._scores = []
        # Freezing for some epochs sets no weights free that their module holds fast.
        self._free = [[p for p in branch.parameters() if p.requires_grad] for branch in network.branches]
        self.history = SimpleNamespace(losses=[], scores=[])

    def _make_optimizer(self):
        """AdamW, with weight decay on matrices only, and a learning rate of its own for a branch that wants one."""
        import torch

        groups, seen, usual, parts = [], set(), self.settings.learning_rate, []
        for m, (branch, (rate, _, _)) in enumerate(zip(self.network.branches, self.branches, strict=True)):
            if rate is not None or self.settings.modulation is not None:
                parts.append((branch, usual if rate is None else rate, m))
        if self.settings.modulation is not None:
            # Groups of their own, for steps of their own length.
            parts += [(tower, usual, m) for m, tower in enumerate(self.network.towers)]
        parts.append((self.network, usual, None))
        if isinstance(self.criterion, torch.nn.Module):
            parts.append((self.criterion, usual, None))
        for module, rate, modality in parts:
            parameters = [p for p in module.parameters() if p not in seen]
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
        """Train for some epochs; however that ends, the network is in evaluation mode, with the best weights so far.

        Parameters
        ----------
        train : Rows
            Rows to learn from.

        validation : Rows or None
            Rows that tell when to stop, and which weights were best.

        n_epochs : int
            Epochs, at most.

        patience : int or None, default=None
            Epochs without a better validation score after which to stop.

        schedule : {"cosine", "constant"}, default="constant"
            Course of the learning rate.

        on_epoch : callable or None, default=None
            Called after each epoch with its number from 0, the mean training loss and the validation score or None.

        n_before : int, default=0
            Epochs that the network has behind it, for branches that wait.

        Returns
        -------
        history : SimpleNamespace
            With the lists ``losses`` and ``scores``.
        """
        train, validation = self._to_device(train), None if validation is None else self._to_device(validation)
        n_batches = math.ceil(len(train) / resolve_batch_size(self.settings.batch_size, len(train)))
        best, waited, checkpoint = -math.inf, 0, None
        try:
            for epoch in range(n_epochs):
                self._freeze(n_before + epoch)
                steps = range(epoch * n_batches, (epoch + 1) * n_batches)
                rates = [self._rate(step, n_epochs * n_batches, schedule) for step in steps]
                loss = self._epoch(train, n_batches, rates)
                score = None if validation is None else -self._loss(validation)
                self.history.losses.append(loss)
                if score is not None:
                    self.history.scores.append(score)
                    if score > best:
                        best, waited = score, 0
                        checkpoint = self.save(checkpoint)
                    else:
                        waited += 1
                if on_epoch is not None:
                    on_epoch(epoch, loss, score)
                if waited == patience:
                    break
        finally:
            if checkpoint is not None:
                self.restore(checkpoint)
            self._freeze(math.inf)
            self.network.eval()
        return self.history

    def _to_device(self, rows):
        """Move rows to the device at once; if they do not fit there, batch by batch later."""
        try:
            return rows.map(lambda tensor: tensor.to(self.device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free_cached_memory()
        return rows

    def _rate(self, step, n_steps, schedule):
        """Give the factor on the learning rates: a linear rise, then half a cosine down to 0."""
        if schedule == "constant":
            return 1.0
        n_warm = max(1, round(self.settings.warmup * n_steps))
        if step < n_warm:
            return (step + 1) / n_warm
        return 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1, n_steps - n_warm)))

    def _freeze(self, epoch):
        for parameters, (_, n_frozen, _) in zip(self._free, self.branches, strict=True):
            for parameter in parameters if n_frozen else ():
                parameter.requires_grad_(epoch >= n_frozen)

    def _epoch(self, train, n_batches, rates):
        """Go once through all rows; give the mean loss."""
        import torch

        self.network.train()
        order = None
        if n_batches > 1:
            order = torch.randperm(len(train), generator=self.generator).to(train.inputs[0][0].device)
        total = torch.zeros((), device=self.device)
        # Batches of equal size, but for one row: a last batch of a row or two would make a wild step.
        ends = [len(train) * (i + 1) // n_batches for i in range(n_batches)]
        for start, end, rate in zip([0, *ends], ends, rates, strict=False):
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
            batch = train if order is None else train.take(order[start:end])
            total += self._step(batch) * (end - start)
        loss = float(total) / len(train)
        if not math.isfinite(loss):
            raise ValueError(
                f"The training loss became {loss}: lower learning_rate={self.settings.learning_rate}, or look for "
                "values of extreme size in X and y."
            )
        return loss

    def _step(self, batch):
        """Update the weights once; give the loss."""
        import torch

        while True:
            self.optimizer.zero_grad(set_to_none=True)
            self._scores = []
            size = self._fitting or len(batch)
            try:
                loss = sum(
                    self._backward(batch.slice(start, start + size), len(batch)) for start in range(0, len(batch), size)
                )
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
            # Outside of the handler: its traceback holds the tensors of the attempt that failed.
            self._fitting = math.ceil(size / 2)
            free_cached_memory()
        if self._scores:
            # Of pieces of a batch that did not fit into memory at once, the mean.
            coefficients = self.settings.modulation.coefficients(torch.stack(self._scores).nanmean(dim=0)).tolist()
            layers = zip(self.network.branches, self.network.towers, strict=True)
            self.settings.modulation.add_noise(layers, coefficients)
            for group in self.optimizer.param_groups:
                if group["modality"] is not None:
                    group["lr"] *= coefficients[group["modality"]]
        if self.settings.max_grad_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        self.optimizer.step()
        return loss

    def _backward(self, rows, n_batch):
        """Add the gradients of some rows of a batch; give their part of its loss."""
        if rows.inputs[0][0].device != self.device:
            rows = rows.map(lambda tensor: tensor.to(self.device))
        inputs = [
            tensors if augment is None else augment(tensors, self.generator)
            for tensors, (_, _, augment) in zip(rows.inputs, self.branches, strict=True)
        ]
        mask = self._drop_modalities(rows)
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
        loss.backward()
        return loss.detach()

    def _criterion(self, outputs, rows):
        """Give the loss of rows: the mean of weight times cost, weights being 1 on average over all rows."""
        outputs = outputs.to(self.network.head.weight.dtype)
        loss = self.criterion(outputs, rows.targets, rows.weights)
        return loss if rows.weights is None else loss * rows.weights.mean()

    def _drop_modalities(self, rows):
        """Give the mask with modalities left out at random, never all that a row has."""
        import torch

        if self.settings.modality_dropout == 0:
            return rows.mask
        shape = len(rows), len(rows.inputs)
        kept = torch.rand(shape, generator=self.generator).to(self.device) >= self.settings.modality_dropout
        if rows.mask is not None:
            kept &= rows.mask
        whole = torch.ones_like(kept) if rows.mask is None else rows.mask
        return torch.where(kept.any(dim=1, keepdim=True), kept, whole)

    def _loss(self, rows):
        """Give the mean loss of rows, weighted, with dropout off."""
        import torch

        self.network.eval()

        def costs(part):
            with precise(self.device, self.autocast):
                outputs = self.network(part.inputs, part.mask)
            return np.array([float(self._criterion(outputs, part)) * len(part)])

        with torch.no_grad():
            total = in_pieces(self.network, rows, costs, self.device).sum()
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
        """Put weights and statistics back that :meth:`save` copied."""
        for saved, tensor in zip(checkpoint, self._state(), strict=True):
            tensor.copy_(saved)

    def optimizer_state(self):
        """Give what the optimiser knows of each weight, as arrays by its name."""
        known = self.optimizer.state
        return {name: to_arrays(known[weights]) for name, weights in self._named_weights() if weights in known}

    def load_optimizer_state(self, state):
        """Take up what an optimiser knew, with the rates of now."""
        groups = self.optimizer.state_dict()["param_groups"]
        places = {
            weights: i for i, weights in enumerate(p for own in self.optimizer.param_groups for p in own["params"])
        }
        known = {places[weights]: to_tensors(state[name]) for name, weights in self._named_weights() if name in state}
        self.optimizer.load_state_dict({"state": known, "param_groups": groups})

    def _state(self):
        return [tensor for module in self._modules() for tensor in module.state_dict().values()]

    def _named_weights(self):
        return [pair for i, module in enumerate(self._modules()) for pair in module.named_parameters(prefix=str(i))]

    def _modules(self):
        import torch

        return [self.network, *([self.criterion] if isinstance(self.criterion, torch.nn.Module) else [])]
