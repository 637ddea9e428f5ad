"""The trainable modules of branches.

A row's vector does not depend on padding or on the other rows of its batch: steps beyond an item's end are masked in
every layer, and no statistics are taken over a batch.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...encoders import add_adapters
from ...encoders.networks import AudioModel, VideoModel, Window, find_layers
from ..network import Dropout, seeded
from ._base import PADDING, UNKNOWN

# Height and width of the grid to which the features of an image are pooled.
_GRID = 2


class UserModule(nn.Module):
    """A user's module on columns of numbers: maps (n, n_features) to (n, ``out_features``)."""

    # Its dropout, if any, draws from torch's global generator.
    draws_globally = True

    def __init__(self, module, n_features):
        super().__init__()
        self.module = module
        self.out_features = probe(module, next(module.parameters(), torch.empty(0)).new_zeros(2, n_features))

    def forward(self, x):
        """Return one vector per row."""
        return self.module(x)


def probe(module, *inputs):
    """Return the width of a module's output for a batch."""
    was_training = module.training
    with seeded(0, inputs[0].device), torch.no_grad():
        outputs = module.eval()(*inputs)
    module.train(was_training)
    if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2 or len(outputs) != len(inputs[0]):
        got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ValueError(
            f"a branch's module must map {tuple(inputs[0].shape)} to a tensor (n, n_outputs), got {got}; "
            "end it with a layer that does, such as torch.nn.Flatten."
        )
    return outputs.shape[1]


def _inside(x, lengths):
    """Return a mask of shape (n, n_steps, 1) of the steps before each row's end."""
    return (torch.arange(x.shape[1], device=x.device) < lengths[:, None])[:, :, None]


def pool_steps(x, lengths, pooling):
    """Pool (n, n_steps, n_features) over the steps before each row's end."""
    inside = _inside(x, lengths)
    if pooling == "max":
        return x.masked_fill(~inside, -torch.inf).amax(dim=1)
    return x.masked_fill(~inside, 0).sum(dim=1) / lengths[:, None]


class Recurrent(nn.Module):
    """Layers of bidirectional "LSTM" or "GRU", ``kind``, with dropout between them, and the pooling of their states.

    ``n_inputs`` is the width of a step, ``n_hidden`` the number of units in each direction.
    """

    def __init__(self, kind, n_inputs, n_hidden, n_layers, dropout, pooling):
        super().__init__()
        widths = [n_inputs, *[2 * n_hidden] * (n_layers - 1)]
        # One module per layer, since torch's dropout between layers takes no generator.
        self.layers = nn.ModuleList(
            getattr(nn, kind)(width, n_hidden, batch_first=True, bidirectional=True) for width in widths
        )
        self.dropout = Dropout(dropout)
        self.pooling = pooling
        self.out_features = 2 * n_hidden

    def forward(self, x, lengths):
        """Return one vector per row."""
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        for number, layer in enumerate(self.layers):
            if number > 0:
                packed = packed._replace(data=self.dropout(packed.data))
            packed = layer(packed)[0]
        states, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
        return pool_steps(states, lengths, self.pooling)


class Attending(nn.Module):
    """Layers of a Transformer's encoder, and the pooling of their states.

    ``n_features`` is the width of a step, ``n_hidden`` that of the feed-forward layers.
    """

    def __init__(self, n_features, n_hidden, n_layers, n_heads, max_length, dropout, pooling):
        super().__init__()
        # Of the same scale as the embeddings to which they are added.
        self.positions = nn.Parameter(torch.randn(max_length, n_features) * n_features**-0.5)
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        layer = nn.TransformerEncoderLayer(n_features, n_heads, n_hidden, **options)
        # Torch's own dropout takes no generator.
        layer.dropout, layer.dropout1, layer.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
        # nn.TransformerEncoder copies the first layer: draw different weights for each.
        self.layers = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(n_features), enable_nested_tensor=False)
        for weights in self.layers.parameters():
            if weights.ndim > 1:
                nn.init.xavier_uniform_(weights)
        self.pooling = pooling
        self.out_features = n_features

    def forward(self, x, lengths):
        """Return one vector per row."""
        beyond = ~_inside(x, lengths)[:, :, 0]
        states = self.layers(x + self.positions[: x.shape[1]], src_key_padding_mask=beyond)
        return pool_steps(states, lengths, self.pooling)


class TextModule(nn.Module):
    """Embeddings of tokens, and an LSTM or Transformer over them, with the parameters of a :class:`TextBranch`.

    ``n_tokens`` counts padding and the unknown token; ``max_length`` is the most that a text has.
    """

    def __init__(self, n_tokens, max_length, settings):
        super().__init__()
        width, dropout, pooling = settings.n_embedding, settings.dropout, settings.pooling
        self.token_dropout = settings.token_dropout
        # Set in training, for the dropout of tokens.
        self.generator = None
        self.embedding = nn.Embedding(n_tokens, width, padding_idx=PADDING)
        with torch.no_grad():
            self.embedding.weight.mul_(width**-0.5)
            # An unknown word has no influence at first; token dropout trains its embedding.
            self.embedding.weight[UNKNOWN] = 0
        if settings.architecture == "lstm":
            self.states = Recurrent("LSTM", width, settings.n_hidden, settings.n_layers, dropout, pooling)
        else:
            sizes = (settings.n_hidden, settings.n_layers, settings.n_heads, max_length)
            self.states = Attending(width, *sizes, dropout, pooling)
        self.dropout = Dropout(dropout)
        self.out_features = self.states.out_features

    def forward(self, tokens):
        """Return one vector per text."""
        lengths = (tokens != PADDING).sum(dim=1)
        tokens = tokens[:, : int(lengths.max())]
        if self.training and self.token_dropout:
            uniform = torch.rand(tokens.shape, device=tokens.device, generator=self.generator)
            tokens = tokens.masked_fill((uniform < self.token_dropout) & (tokens != PADDING), UNKNOWN)
        return self.dropout(self.states(self.dropout(self.embedding(tokens)), lengths))


class Convolutions(nn.Module):
    """Convolutions over time, each followed by a pooling to half the steps, and the pooling of the last.

    ``n_channels`` is the width of a step, ``n_hidden`` that after each layer; ``kernel_size`` is odd.
    """

    def __init__(self, n_channels, n_hidden, n_layers, kernel_size, pooling):
        super().__init__()
        widths = [n_channels, *[n_hidden] * n_layers]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(n_in, n_out, kernel_size, padding=kernel_size // 2) for n_in, n_out in pairwise(widths)
        )
        # Over the channels of one step, so that padding has no influence.
        self.norms = nn.ModuleList(nn.LayerNorm(n_hidden) for _ in self.convolutions)
        self.pooling = pooling
        self.out_features = n_hidden

    def forward(self, x, lengths):
        """Return one vector per row."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x.transpose(1, 2)).transpose(1, 2)).relu()
            x = x.masked_fill(~_inside(x, lengths), 0)
            x = nn.functional.max_pool1d(x.transpose(1, 2), 2, ceil_mode=True).transpose(1, 2)
            lengths = (lengths + 1) // 2
        return pool_steps(x, lengths, self.pooling)


class SignalModule(nn.Module):
    """A convolutional or recurrent network over steps of numbers, with the parameters of a branch of signals."""

    def __init__(self, n_channels, settings):
        super().__init__()
        size = (n_channels, settings.n_hidden, settings.n_layers)
        if settings.architecture == "gru":
            self.states = Recurrent("GRU", *size, settings.dropout, settings.pooling)
        else:
            self.states = Convolutions(*size, settings.kernel_size, settings.pooling)
        self.dropout = Dropout(settings.dropout)
        self.out_features = self.states.out_features

    def forward(self, steps, lengths):
        """Return one vector per row."""
        steps = steps[:, : int(lengths.max())].to(next(self.parameters()).dtype)
        return self.dropout(self.states(steps, lengths))


class ImageModule(nn.Module):
    """A small convolutional network on images, with the parameters of an :class:`ImageBranch`."""

    def __init__(self, settings):
        super().__init__()
        layers, n_in = [], 3
        for n_out in settings.channels:
            # Normalisation over groups of channels instead of the batch: rows stay independent.
            norm = nn.GroupNorm(_n_groups(n_out), n_out)
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
            n_in = n_out
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_GRID), nn.Flatten())
        self.head = nn.Linear(n_in * _GRID**2, settings.n_hidden)
        self.dropout = Dropout(settings.dropout)
        self.out_features = settings.n_hidden

    def forward(self, images):
        """Return one vector per image."""
        images = images.to(self.head.weight.dtype) / 127.5 - 1
        return self.dropout(self.head(self.dropout(self.layers(images))).relu())


def _n_groups(n_channels):
    """Return the largest number of groups up to 8 that divides the channels."""
    return next(n_groups for n_groups in range(8, 0, -1) if n_channels % n_groups == 0)


class PretrainedModule(nn.Module):
    """An existing network, and dropout of its output.

    Parameters
    ----------
    network : nn.Module
        It is changed; weights that need no gradient stay as they are.

    reader : callable
        Maps the network and tensors with one row per item to vectors; its ``sizes`` maps the tensors to the work that
        each row takes, and its ``rows_at_once`` are read at a time where no gradient is needed.

    inputs : list of Tensor
        Tensors of two items: of one, networks that take statistics over a batch have none.

    settings : PretrainedBranch
        Has the parameters.

    is_named : bool
        Whether it runs in evaluation mode, without dropout inside and with the statistics of its pretraining: it then
        starts from the vectors of the encoder, and draws nothing at random.
    """

    def __init__(self, network, reader, inputs, settings, is_named):
        super().__init__()
        self.network, self.reader = network, reader
        self.dropout = Dropout(settings.dropout)
        self.is_fixed = is_named or settings.freeze
        # The dropout of a user's module, if any, draws from torch's global generator.
        self.draws_globally = not self.is_fixed
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.is_named = is_named
        # Whether the input is vectors of the encoder, see Network.reading_vectors.
        self.reads_vectors = False
        self.out_features = probe(self, *inputs)
        self.mean = self.mean.repeat(self.out_features)
        self.layers = []
        if settings.layer_decay < 1 or settings.gradual_unfreezing or settings.gradient_checkpointing:
            self.layers, _ = find_layers(network, lambda: reader(network, *inputs))
        if is_named:
            network.requires_grad_(True)
        if settings.freeze:
            network.requires_grad_(False)
        elif settings.adapter == "lora":
            rng = np.random.RandomState(int(torch.randint(2**31 - 1, ())))
            with seeded(0, inputs[0].device):
                add_adapters(network, settings.rank, rng, type(settings).__name__)
        if is_named and not settings.freeze:
            self._freeze_unused(inputs)
        if settings.gradient_checkpointing:
            for name in self.layers:
                network.set_submodule(name, _Checkpointed(network.get_submodule(name)))
        if settings.compile:
            # In place, so that the names of weights stay. Batches have many shapes.
            network.compile(dynamic=True)

    def forward(self, *tensors):
        """Return one vector per row."""
        if self.reads_vectors:
            return self._finish(tensors[0])
        n_rows = self.reader.rows_at_once
        is_trained = torch.is_grad_enabled() and any(p.requires_grad for p in self.network.parameters())
        if is_trained or self.network.training or len(tensors[0]) <= n_rows:
            return self._finish(self.reader(self.network, *tensors))
        # Rows of about one size together: less padding, and memory for a few of them.
        order = self.reader.sizes(*tensors).argsort(descending=True)
        with torch.no_grad():
            batches = [[tensor[rows] for tensor in tensors] for rows in order.split(n_rows)]
            vectors = torch.cat([self.reader(self.network, *batch) for batch in batches])
        return self._finish(vectors[order.argsort()])

    def _finish(self, vectors):
        return self.dropout((vectors - self.mean) / self.scale if self.is_named else vectors)

    def standardize(self, batches, weights):
        """Set the mean and scale, by which vectors are standardised, to those of the present vectors of some rows.

        ``batches`` yields the tensors of the rows, in the order of their ``weights``.

        The scale is one for all features: divided by its own, a feature that hardly varies would react to the smallest
        step of the layers before it.
        """
        if not self.is_named:
            return
        self.eval()
        with torch.no_grad():
            vectors = torch.cat([self(*tensors).cpu() for tensors in batches]).double()
        shares = (weights / weights.sum()).to(vectors)[:, None]
        mean = (shares * vectors).sum(dim=0)
        scale = (shares * (vectors - mean).square()).sum(dim=0).mean().sqrt()
        self.mean.copy_(mean)
        # Of a single row, or where nothing varies, there is no scale.
        self.scale.copy_(torch.where(scale > 1e-6 * vectors.abs().max(), scale, 1))

    def train(self, mode=True):
        """Turn training on or off."""
        super().train(mode)
        if self.is_fixed:
            self.network.eval()
        return self

    def layer_weights(self):
        """Return the weights of each layer, from the last to the first, then those of what is before the layers.

        What is behind the layers counts to the last of them.
        """
        before, weights = [], {name: [] for name in self.layers}
        for name, parameter in self.network.named_parameters():
            layer = next((layer for layer in self.layers if name.startswith(f"{layer}.")), None)
            if layer is None and any(weights.values()):
                layer = self.layers[-1]
            (before if layer is None else weights[layer]).append(parameter)
        return [*reversed(weights.values()), before]

    def _freeze_unused(self, inputs):
        """Freeze weights that have no part in the vectors, such as the image half of a network for texts."""
        with torch.enable_grad():
            self.reader(self.network, *inputs).sum().backward()
        for parameter in self.network.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None


class _Checkpointed(nn.Module):
    """A layer that runs again in the backward pass, instead of keeping what is inside of it in memory."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *args, **kwargs):
        if not torch.is_grad_enabled():
            return self.layer(*args, **kwargs)
        return checkpoint(self.layer, *args, use_reentrant=False, **kwargs)


@dataclass
class ImageReader:
    """Reads images of dtype uint8, normalised by the mean and standard deviation of each channel."""

    mean: tuple
    std: tuple
    rows_at_once = 32

    def __call__(self, network, images):
        weights = next(network.parameters(), None)
        dtype = torch.float32 if weights is None else weights.dtype
        mean, std = (torch.tensor(x, dtype=dtype, device=images.device)[:, None, None] for x in (self.mean, self.std))
        return network((images.to(dtype) / 255 - mean) / std)

    def sizes(self, images):
        """Return the same number for all."""
        return torch.zeros(len(images), device=images.device)


@dataclass
class TextReader:
    """Reads columns of tokens, whose names are in alphabetical order, the mask first."""

    names: list
    # What stands beside them in the input of the network.
    settings: dict
    padding_side: str
    rows_at_once = 32

    def __call__(self, network, *columns):
        n_tokens = int(self.sizes(*columns).max())
        start, stop = (-n_tokens, None) if self.padding_side == "left" else (0, n_tokens)
        inputs = {name: column[:, start:stop].long() for name, column in zip(self.names, columns, strict=True)}
        return network({**self.settings, **inputs})["sentence_embedding"][:, : network.truncate_dim]

    def sizes(self, mask, *columns):
        """Return the number of tokens of each text."""
        return mask.sum(dim=1)


@dataclass
class WindowReader:
    """Reads windows of recordings, and pools their vectors weighted by their lengths."""

    # Names of the network's arguments.
    names: list
    recipe: object
    pooling: str
    rows_at_once = 4

    def __call__(self, network, extents, *inputs):
        model, of_shape = AudioModel(network, self.recipe), defaultdict(list)
        for i, windows in enumerate(extents.tolist()):
            for j, (n_times, *shape) in enumerate(windows):
                if n_times > 0:
                    of_shape[tuple(shape)].append((i, j, n_times))
        vectors = [[] for _ in extents]
        for (n_padded, *lengths), same_shape in of_shape.items():
            batch = []
            for i, j, n_times in same_shape:
                values = [x[i, j, :length] for x, length in zip(inputs, lengths, strict=True)]
                values = [x if x.is_floating_point() else x.long() for x in values]
                batch.append(Window(dict(zip(self.names, values, strict=True)), n_times, n_padded))
            for (i, j, n_times), vector in zip(same_shape, model.embed(batch, self.pooling), strict=True):
                vectors[i].append((j, n_times, vector))
        return torch.stack([self._pool(windows) for windows in vectors]).to(model.dtype)

    def _pool(self, windows):
        _, n_times, vectors = zip(*sorted(windows, key=lambda window: window[0]), strict=True)
        if self.pooling == "first":
            return vectors[0]
        vectors = torch.stack(vectors)
        if self.pooling == "max":
            return vectors.amax(dim=0)
        shares = vectors.new_tensor(n_times) / sum(n_times)
        return shares @ vectors

    def sizes(self, extents, *inputs):
        """Return the number of samples of each recording, with padding."""
        return extents[:, :, 1].sum(dim=1)


# Into how many equal stretches each level of the pyramid cuts the time.
_PYRAMID = (1, 2, 4)


def _pyramid(vectors):
    n = len(vectors)
    stretches = [vectors[j * n // k : -(-(j + 1) * n // k)] for k in _PYRAMID for j in range(k)]
    return torch.cat([stretch.mean(dim=0) for stretch in stretches])


# As VideoEncoder pools vectors in the order of time.
_POOLINGS = {
    "mean": lambda vectors: vectors.mean(dim=0),
    "max": lambda vectors: vectors.amax(dim=0),
    "mean_std": lambda vectors: torch.cat([vectors.mean(dim=0), vectors.std(dim=0, correction=0)]),
    "pyramid": _pyramid,
}


@dataclass
class FrameReader:
    """Reads frames of dtype uint8, or prepared clips, and the positions of these in the order of time."""

    recipe: object
    pooling: str
    rows_at_once = 4

    def __call__(self, network, inputs, samples):
        n_inputs = samples.amax(dim=1) + 1
        flat = inputs[torch.arange(inputs.shape[1], device=inputs.device) < n_inputs[:, None]]
        if isinstance(self.recipe, dict):
            vectors = ImageReader(self.recipe["mean"], self.recipe["std"])(network, flat)
        else:
            vectors = VideoModel(network, self.recipe).embed(list(flat))
        videos = zip(vectors.split(n_inputs.tolist()), samples, strict=True)
        return torch.stack([_POOLINGS[self.pooling](rows[order[order >= 0]]) for rows, order in videos])

    def sizes(self, inputs, samples):
        """Return the number of distinct frames or clips of each video."""
        return samples.amax(dim=1)
