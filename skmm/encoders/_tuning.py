"""How an encoder is tuned: states below the trained layers, training, and the weights that it changes."""

import hashlib
import math
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight

from .._optional import import_optional_dependency
from .._torch import batch_limit, free_cached_memory, get_model, is_out_of_memory, run_with_backoff
from ..store import digest_of
from ._run import EncodingRun, ProgressBar


@dataclass
class Example:
    """One input of the network with the row that it belongs to: an item can have several, such as frames."""

    row: int
    input: object
    # What the layers below the trained ones make of it; None where all layers are trained.
    state: np.ndarray | None
    # Share of the row that it stands for.
    weight: float
    shape: tuple


class StatesRun(EncodingRun):
    """An encoding that ends below the layers that are trained.

    States are kept in the store, so that they are computed once in a search whatever the folds.

    Parameters
    ----------
    encoder : ModelEncoder
        Fitted encoder.

    items, present
        As for :class:`EncodingRun`.

    split : SplitModel
        The encoder's model in two parts; set before ``collect`` is called.

    probe : object
        An input of the network that stands for all others, where the layers on top do not read inputs; set before.

    reads_inputs : bool
        Whether they do; set before.

    first_row : dict of int to int
        The first row of an equal item, for each row; set by ``collect``.
    """

    def collect(self):
        """Return the examples of all items, in the order of rows; missing and bad items have none."""
        groups = self._group()
        self._items = {}
        self.first_row = {row: rows[0] for _, rows in groups for row in rows}
        with ProgressBar(self.encoder, len(groups), None) as self.bar:
            missing = [group for group in groups if not self._read_states(group)]
            self.bar.update(len(groups) - len(missing))
            if missing:
                self._encode_groups(missing)
        return [
            Example(row, entry, None if states is None else states[i], 1 / len(inputs), shapes[i])
            for row, (inputs, states, shapes) in sorted(
                (row, self._items[group_rows[0]])
                for _, group_rows in groups
                for row in group_rows
                if group_rows[0] in self._items
            )
            for i, entry in enumerate(inputs)
        ]

    def _claim(self, groups):
        return groups

    def _read_states(self, group):
        """Take the states of an item from the store, if they are there and the item itself is not needed."""
        states = None if self.reads_inputs else self._stored_states(group[0])
        if states is not None:
            self._add(group, [self.probe] * len(states), states)
        return states is not None

    def _stored_states(self, key):
        if key is None or self.identity is None or self.split.n_below == 0:
            return None
        return self.store.get_array(self._states_key(key))

    def _states_key(self, key):
        return digest_of("states", key, self.split.n_below)

    def _add(self, group, inputs, states):
        shapes = [self.encoder._input_shape(entry, self.model) for entry in inputs]
        if states is not None:
            shapes = [(shape, state.shape) for shape, state in zip(shapes, states, strict=True)]
            if not self.reads_inputs:
                inputs = [self.probe] * len(inputs)
        self._items[group[1][0]] = inputs, states, shapes

    def _encode_batch(self, groups, prepared):
        """Find the states of prepared items, from the store or the layers below; there are no errors."""
        inputs = [self.encoder._inputs(item) for item in prepared]
        if self.split.n_below == 0:
            for group, entries in zip(groups, inputs, strict=True):
                self._add(group, entries, None)
            return []
        stored = [self._stored_states(key) for key, _ in groups]
        missing = [i for i, states in enumerate(stored) if states is None]
        flat = [(i, entry) for i in missing for entry in inputs[i]]
        states = {i: [None] * len(inputs[i]) for i in missing}
        by_shape = {}
        for position, (_, entry) in enumerate(flat):
            by_shape.setdefault(self.encoder._input_shape(entry, self.model), []).append(position)
        results = [None] * len(flat)
        for positions in by_shape.values():
            for position, state in zip(positions, self._compute([flat[p][1] for p in positions]), strict=True):
                results[position] = state
        results = iter(results)
        for i in missing:
            states[i] = [next(results) for _ in inputs[i]]
        for i, (group, entries) in enumerate(zip(groups, inputs, strict=True)):
            if stored[i] is None:
                self._keep(group[0], states[i])
            self._add(group, entries, states[i] if stored[i] is None else stored[i])
        return []

    def _compute(self, inputs):
        def compute(batch):
            return self.split.states(batch).to(device="cpu").float().numpy()

        limit = batch_limit(self.model.network, self.model.device)
        return run_with_backoff(compute, inputs, limit, lambda: self.encoder._cost(inputs[0], self.model))

    def _keep(self, key, states):
        # Inputs of several shapes make no array.
        if key is not None and self.identity is not None and len({state.shape for state in states}) == 1:
            self.store.put_array(self._states_key(key), np.stack(states))


class Tuning:
    """The weights that tuning changed.

    Parameters
    ----------
    weights : dict of str to ndarray or (ndarray, ndarray)
        New weights by name, or two factors of what is added to the pretrained ones.

    network : torch.nn.Module
        The pretrained network, by which another one is told.
    """

    def __init__(self, weights, network):
        self.weights = weights
        self._base = self._digest_of_base(network)
        hasher = hashlib.blake2b(self._base[1], digest_size=32)
        for name, values in weights.items():
            for array in values if isinstance(values, tuple) else (values,):
                hasher.update(f"{name} {array.shape} ".encode())
                hasher.update(np.ascontiguousarray(array))
        self.digest = hasher.digest()

    def _digest_of_base(self, network):
        """Return the precision and a digest of the pretrained values of the weights that were changed."""
        parameters = dict(network.named_parameters())
        hasher, dtype = hashlib.blake2b(digest_size=32), ""
        for name in self.weights:
            if name not in parameters:
                return dtype, b""
            dtype = str(parameters[name].dtype)
            hasher.update(np.ascontiguousarray(parameters[name].detach().float().cpu().numpy()))
        return dtype, hasher.digest()

    def model_of(self, model, encoder):
        """Return the tuned copy of the model of an encoder, which shares with it what was not changed."""
        # A module in memory may run as a copy, which is another one in each call.
        base = model.network if encoder._is_named() else encoder.model

        def load():
            # With the network that it comes from, so that no other one takes its id.
            return self.apply(model), base

        return get_model(("tuned", self.digest, id(base), str(model.device), encoder.precision), load)[0]

    def apply(self, model):
        """Return a copy of a model with the changed weights."""
        import torch

        from .networks import copy_network, with_network

        dtype, digest = self._digest_of_base(model.network)
        if digest == b"" or (dtype == self._base[0] and digest != self._base[1]):
            raise ValueError(
                f"The {type(model.network).__name__} has other weights than that from which an encoder was tuned; "
                "provide the model as it was then, or fit again."
            )
        originals = dict(model.network.named_parameters())
        network = copy_network(model.network, [p for name, p in originals.items() if name not in self.weights])
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for name, values in self.weights.items():
                parameters[name].requires_grad_(False)
                if isinstance(values, tuple):
                    up, down = (torch.from_numpy(array) for array in values)
                    parameters[name] += (up @ down).to(parameters[name])
                else:
                    parameters[name].copy_(torch.from_numpy(values))
        return with_network(model, network)


class Trainer:
    """Trains the layers on top, with a linear layer behind them that predicts the target.

    Everything runs in evaluation mode: without dropout, and with the statistics of pretraining in batch normalisation,
    a fit depends on its seed alone, whatever other threads do.

    Parameters
    ----------
    split : SplitModel
        The model; its top is changed.

    forward : callable
        Maps a list of examples of one shape to a tensor with one row each.

    target : Target
        What is predicted.

    settings : TunedEncoder
        ``learning_rate``, ``batch_size``, ``patience``, ``adapter`` and ``rank``.

    rng : numpy.random.RandomState
        Shuffles the examples.
    """

    def __init__(self, split, examples, target, settings, rng):
        import torch

        self.split, self.examples, self.target, self.settings, self.rng = split, examples, target, settings, rng
        self.network = split.top.network
        self.device = split.top.device
        if next(self.network.parameters(), None) is None:
            raise ValueError(f"TunedEncoder: a {type(self.network).__name__} has no weights that could be trained.")
        if settings.adapter == "lora":
            add_adapters(self.network, settings.rank, rng)
        self.dtype = next(self.network.parameters()).dtype
        self.is_half = self.dtype != torch.float32
        self.network.float()
        self.shapes = np.unique([str(example.shape) for example in examples], return_inverse=True)[1]
        self.rows = np.array([example.row for example in examples])
        self.weights = np.array([example.weight for example in examples], dtype=np.float32)
        self._limit = None
        self._head = self._means = self._scales = None
        self._torch = torch

    def vectors(self):
        """Return the mean vector of the inputs of each row, as a dict from rows to arrays."""
        torch, totals = self._torch, {}
        for batch in self._batches(np.arange(len(self.examples)), shuffle=False):
            with torch.no_grad():
                vectors = self._forward(batch).cpu().numpy()
            for position, vector in zip(batch, vectors, strict=True):
                row = self.rows[position]
                totals[row] = totals.get(row, 0) + self.weights[position] * vector
        return totals

    def fit(self, train_rows, validation_rows, start, n_epochs):
        """Train on the examples of some rows, and keep the weights with which those of other rows cost least.

        Parameters
        ----------
        train_rows, validation_rows : ndarray of int
            Rows to learn from, and rows that decide when to stop.

        start : dict of int to ndarray
            Vectors before training, which the linear layer standardises by.

        n_epochs : int
            Epochs, at most.
        """
        torch = self._torch
        train, validation = (np.flatnonzero(np.isin(self.rows, rows)) for rows in (train_rows, validation_rows))
        before = np.stack([start[row] for row in train_rows])
        self._means = torch.from_numpy(before.mean(axis=0)).to(self.device)
        # Features that hardly vary before training may do so after it.
        deviations = before.std(axis=0)
        least = max(_LEAST_DEVIATION * np.sqrt(np.mean(deviations**2)), 1e-6)
        self._scales = torch.from_numpy(np.maximum(deviations, least).astype(np.float32)).to(self.device)
        # From zero: weights that fit the pretrained vectors would leave little to learn.
        self._head = torch.nn.utils.skip_init(torch.nn.Linear, before.shape[1], self.target.n_outputs).to(self.device)
        torch.nn.init.zeros_(self._head.weight), torch.nn.init.zeros_(self._head.bias)
        parameters = self._trainable(train[:1])
        rate = self.settings.learning_rate
        optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate}, {"params": self._head.parameters(), "lr": max(rate, _HEAD_RATE)}],
            weight_decay=_WEIGHT_DECAY,
        )
        epochs = [self._batches(train, shuffle=True) for _ in range(n_epochs)]
        n_steps = sum(map(len, epochs))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / (_WARM_UP * n_steps), 1) * (1 - step / n_steps)
        )
        best, checkpoint, n_waited = math.inf, None, 0
        for batches in epochs:
            for batch in batches:
                optimizer.zero_grad()
                self._add_gradients(batch)
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
            loss = self._loss(validation)
            if not math.isfinite(loss):
                raise ValueError(f"TunedEncoder: the loss became {loss}; lower learning_rate={rate}.")
            if loss < best:
                best, checkpoint, n_waited = loss, _copies(parameters), 0
            else:
                n_waited += 1
            if n_waited == self.settings.patience:
                break
        with torch.no_grad():
            for parameter, values in zip(parameters, checkpoint, strict=True):
                parameter.copy_(values)

    def changes(self):
        """Return the weights that were trained, by their names in the network."""
        if self.settings.adapter == "lora":
            return adapter_factors(self.network)
        return {name: p.detach().cpu().numpy().copy() for name, p in self.network.named_parameters() if p.requires_grad}

    def _trainable(self, positions):
        """Return the weights that have a part in the rows, and freeze all others."""
        rows = self._forward(positions)
        if not rows.requires_grad:
            raise ValueError(f"TunedEncoder: a {type(self.network).__name__} returns rows without gradients.")
        rows.sum().backward()
        for parameter in self.network.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def _batches(self, positions, shuffle):
        """Return arrays of the positions of examples of one shape; in a random order, if asked for."""
        size, batches = self.settings.batch_size, []
        for shape in np.unique(self.shapes[positions]):
            same = positions[self.shapes[positions] == shape]
            same = self.rng.permutation(same) if shuffle else same
            batches += [same[start : start + size] for start in range(0, len(same), size)]
        return [batches[i] for i in self.rng.permutation(len(batches))] if shuffle else batches

    def _forward(self, positions):
        torch, examples = self._torch, [self.examples[position] for position in positions]
        states = None
        if examples[0].state is not None:
            states = torch.from_numpy(np.stack([example.state for example in examples])).to(self.device)
        with torch.autocast(self.device.type, self.dtype) if self.is_half else nullcontext():
            return self.split.rows([example.input for example in examples], states).float()

    def _costs(self, positions):
        """Return the sum of the weighted costs of examples, and of their weights."""
        outputs = self._head((self._forward(positions) - self._means) / self._scales)
        costs, weights = self.target.costs(outputs, self.rows[positions])
        weights = weights * self._torch.from_numpy(self.weights[positions]).to(self.device)
        return (costs * weights).sum(), weights.sum()

    def _add_gradients(self, batch):
        """Add the gradients of a batch, in smaller and smaller slices while memory runs out."""
        size = self._limit or len(batch)
        while True:
            try:
                for start in range(0, len(batch), size):
                    costs, _ = self._costs(batch[start : start + size])
                    (costs / self.settings.batch_size).backward()
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
            size = self._limit = math.ceil(size / 2)
            for parameter in [*self.network.parameters(), *self._head.parameters()]:
                parameter.grad = None
            free_cached_memory()

    def _loss(self, positions):
        with self._torch.no_grad():
            sums = [self._costs(batch) for batch in self._batches(positions, shuffle=False)]
        return float(sum(costs for costs, _ in sums) / sum(weights for _, weights in sums))


# Least deviation of a feature, relative to that of all, by which it is divided.
_LEAST_DEVIATION = 0.1

# Weight decay, least learning rate of the linear layer behind the network, and share of the steps in which rates rise.
_WEIGHT_DECAY, _HEAD_RATE, _WARM_UP = 0.01, 1e-3, 0.1


def _copies(parameters):
    return [parameter.detach().clone() for parameter in parameters]


def add_adapters(network, rank, rng, owner="TunedEncoder"):
    """Put low-rank adapters beside all linear layers of a network, by peft; all other weights are frozen."""
    import torch

    peft = import_optional_dependency("peft", "finetune")
    linear = {name: module for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    if not linear:
        raise ValueError(
            f'{owner}: adapter="lora" is for linear layers, and {type(network).__name__} has none that is '
            "trained; use adapter=None."
        )
    network.requires_grad_(False)
    # Apart from the network: in networks of transformers peft looks for names of older checkpoints.
    layers = torch.nn.ModuleDict({str(i): module for i, module in enumerate(linear.values())})
    with torch.random.fork_rng(devices=[]):
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(layers))
        peft.inject_adapter_in_model(config, layers)
    # By a generator of their own, so that other threads change nothing.
    generator = torch.Generator().manual_seed(rng.randint(2**31))
    for name, layer in zip(linear, layers.values(), strict=True):
        weights = layer.lora_A["default"].weight
        torch.nn.init.kaiming_uniform_(weights.data, a=math.sqrt(5), generator=generator)
        network.set_submodule(name, layer)


def adapter_factors(network):
    """Return the two factors of what each adapter adds, by the name of the weights that it adds to."""
    factors = {}
    for name, module in network.named_modules():
        if hasattr(module, "lora_A"):
            up, down = module.lora_B["default"].weight, module.lora_A["default"].weight
            scale = module.scaling["default"]
            # Layers that do not run, such as those of the other half of a CLIP-like network, stay at 0.
            if not up.any():
                continue
            factors[f"{name}.weight"] = (scale * up).detach().cpu().numpy(), down.detach().cpu().numpy()
    return factors


class Target:
    """What the layers on top learn to predict.

    Parameters
    ----------
    kind : {"classes", "labels", "numbers"}
        Classes that exclude each other, a matrix of 0 and 1, or numbers.

    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The target of all rows.

    class_weight : dict, "balanced" or None
        Weights of classes.

    device : torch.device
        Where costs are computed.

    Attributes
    ----------
    n_outputs : int
        Outputs of the network.

    values : ndarray of shape (n_samples, n_outputs)
        Numbers with mean 0 and variance 1, or 0 and 1 for each class or label.
    """

    def __init__(self, kind, y, class_weight, device):
        import torch

        self.kind = kind
        if kind == "classes":
            y, weights = np.unique(y, return_inverse=True)[1], compute_sample_weight(class_weight, y)
            self.values = np.eye(y.max() + 1, dtype=np.float32)[y]
        else:
            weights = np.ones(len(y))
            self.values = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
            if kind == "numbers":
                scales = self.values.std(axis=0)
                self.values = (self.values - self.values.mean(axis=0)) / np.where(scales > 0, scales, 1)
            self.values = self.values.astype(np.float32)
        self.n_outputs = self.values.shape[1]
        self._targets = torch.from_numpy(y if kind == "classes" else self.values).to(device)
        self._weights = torch.from_numpy(weights.astype(np.float32)).to(device)

    def costs(self, outputs, rows):
        """Return the costs of outputs for rows, and the weights of the rows, as tensors of shape (len(rows),)."""
        from torch.nn import functional

        rows = torch_index(rows, outputs.device)
        targets = self._targets[rows]
        if self.kind == "classes":
            costs = functional.cross_entropy(outputs, targets, reduction="none")
        elif self.kind == "labels":
            costs = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(dim=1)
        else:
            costs = ((outputs - targets) ** 2).mean(dim=1)
        return costs, self._weights[rows]

    def probe_costs(self, vectors, train_rows, rows):
        """Return the squared errors for rows of a ridge regression on vectors, which is fitted on other rows."""
        inputs = {
            name: np.stack([vectors[row] for row in part]) for name, part in (("fit", train_rows), ("test", rows))
        }
        probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13))).fit(
            inputs["fit"], self.values[train_rows]
        )
        errors = probe.predict(inputs["test"]).reshape(len(rows), -1) - self.values[rows]
        return (errors**2).sum(axis=1)


def torch_index(positions, device):
    """Return an array of positions as an index of tensors on a device."""
    import torch

    return torch.from_numpy(positions).to(device)
