"""The trainable modules of branches.

A row's vector does not depend on padding or on the other rows of its batch: steps beyond an item's end are masked in
every layer, and no statistics are taken over a batch.
"""

from itertools import pairwise

import torch
from torch import nn

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


def probe(module, inputs):
    """Return the width of a module's output for a batch."""
    was_training = module.training
    with seeded(0, inputs.device), torch.no_grad():
        outputs = module.eval()(inputs)
    module.train(was_training)
    if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2 or len(outputs) != len(inputs):
        got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ValueError(
            f"a branch's module must map {tuple(inputs.shape)} to a tensor (n, n_outputs), got {got}; "
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

    ``n_tokens`` counts padding and the unknown token.
    """

    def __init__(self, n_tokens, settings):
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
            sizes = (settings.n_hidden, settings.n_layers, settings.n_heads, settings.max_length)
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


class Backbone(nn.Module):
    """An existing network that maps images (n, 3, height, width) to (n, ``out_features``), and dropout of its output.

    ``mean`` and ``std`` are those of the channels, by which images from 0 to 1 are normalised. With
    ``freezes_statistics`` batch normalisation uses the statistics of the pretraining: those of small batches are worse.
    """

    # Its dropout, if any, draws from torch's global generator.
    draws_globally = True

    def __init__(self, network, mean, std, out_features, dropout, freezes_statistics):
        super().__init__()
        self.network = network
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1))
        self.dropout = Dropout(dropout)
        self.out_features = out_features
        self.freezes_statistics = freezes_statistics

    def forward(self, images):
        """Return one vector per image."""
        return self.dropout(self.network((images.to(self.mean.dtype) / 255 - self.mean) / self.std))

    def train(self, mode=True):
        """Turn training on or off."""
        super().train(mode)
        if self.freezes_statistics:
            for module in self.network.modules():
                if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                    module.eval()
        return self
