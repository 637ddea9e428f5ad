"""Layers that join the hidden vectors of modalities into one.

Each takes ``hiddens``, a list of one tensor of shape (n_samples, width) per modality that is zero where the modality
is missing, and ``mask``, a bool tensor of shape (n_samples, n_modalities) that is True where it is present, or None if
nothing is missing. It gives the joint vectors of shape (n_samples, out_features), and how much each modality counted,
of shape (n_samples, n_modalities), or None where the layer has no such weights. What stands in a missing modality's
place never matters: a layer gives what it would give without that modality.
"""

import math

import torch
from torch import nn


def masked_softmax(scores, mask, dim):
    """Softmax over the present modalities, exactly 0 for missing ones; all 0 where none is present.

    Half precision is left for it: three digits are too few for weights of sum 1.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is None:
        return torch.softmax(scores, dim)
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~mask, lowest), dim) * mask


class ConcatLayer(nn.Module):
    """The hidden vectors side by side."""

    def __init__(self, widths):
        super().__init__()
        self.out_features = sum(widths)

    def forward(self, hiddens, mask):
        """Give the joint vectors, and no weights."""
        return torch.cat(hiddens, dim=1), None


class SumLayer(nn.Module):
    """The sum of the hidden vectors."""

    def __init__(self, widths):
        super().__init__()
        self.out_features = widths[0]

    def forward(self, hiddens, mask):
        """Give the joint vectors, and no weights."""
        return sum(hiddens), None


class WeightedLayer(nn.Module):
    """The mean of the hidden vectors, weighted by a softmax over one learned score per modality."""

    def __init__(self, widths):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(len(widths)))
        self.out_features = widths[0]

    def forward(self, hiddens, mask):
        """Give the joint vectors and the weights of the modalities, of sum 1 over the present ones."""
        weights = masked_softmax(self.scores.expand(len(hiddens[0]), -1), mask, dim=1)
        return torch.einsum("nm,mnd->nd", weights, torch.stack(hiddens)), weights


class GatedLayer(nn.Module):
    """Gated multimodal unit [1]_ for any number of modalities.

    Each modality offers tanh of a linear map of its hidden vector; for every unit a gate, which sees all modalities,
    says how much of each offer it takes. The gates of a unit are a softmax over the present modalities: for two of
    them that is the sigmoid z and 1 - z of the paper.

    References
    ----------
    .. [1] Arevalo, Solorio, Montes-y-Gómez, González (2017). "Gated multimodal units for information fusion". ICLR
       workshop.
    """

    def __init__(self, widths):
        super().__init__()
        width = widths[0]
        self.offers = nn.ModuleList(nn.Linear(width, width) for _ in widths)
        self.gates = nn.Linear(sum(widths), sum(widths))
        self.out_features = width

    def forward(self, hiddens, mask):
        """Give the joint vectors and the gates, averaged over units; of sum 1 over the present modalities."""
        offers = torch.stack([torch.tanh(offer(h)) for offer, h in zip(self.offers, hiddens, strict=True)], dim=1)
        scores = self.gates(torch.cat(hiddens, dim=1)).view_as(offers)
        gates = masked_softmax(scores, None if mask is None else mask[:, :, None], dim=1)
        return (gates * offers).sum(dim=1), gates.mean(dim=2)


class AttentionLayer(nn.Module):
    """One Transformer layer over one token per modality [1]_, then the mean of the present tokens.

    Normalisation comes first in each half, and a learned vector says which modality a token is.

    References
    ----------
    .. [1] Vaswani et al. (2017). "Attention is all you need". NeurIPS.
    """

    def __init__(self, widths, n_heads):
        super().__init__()
        width = widths[0]
        self.n_heads = n_heads
        self.kinds = nn.Parameter(torch.randn(len(widths), width) / math.sqrt(width))
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        # What is added to all keys alike never shows in a softmax over them.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)
        self.norm_units = nn.LayerNorm(width)
        self.units = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.out_features = width

    def forward(self, hiddens, mask):
        """Give the joint vectors and the attention each modality gets: the mean over heads and present queries."""
        tokens = torch.stack(hiddens, dim=1) + self.kinds
        normed = self.norm_attention(tokens)
        shape = (*tokens.shape[:2], self.n_heads, -1)
        query, key, value = (layer(normed).view(shape) for layer in (self.query, self.key, self.value))
        scores = torch.einsum("nihd,njhd->nhij", query, key) / math.sqrt(query.shape[-1])
        attention = masked_softmax(scores, None if mask is None else mask[:, None, None, :], dim=3)
        tokens = tokens + self.mix(torch.einsum("nhij,njhd->nihd", attention, value).flatten(2))
        tokens = tokens + self.units(self.norm_units(tokens))
        if mask is None:
            return tokens.mean(dim=1), attention.mean(dim=(1, 2))
        share = mask / mask.sum(dim=1, keepdim=True).clamp(min=1).to(attention.dtype)
        # Not by einsum, which autocast would bring to half precision.
        weights = (share[:, :, None] * attention.mean(dim=1)).sum(dim=1)
        return torch.einsum("nm,nmd->nd", share.to(tokens.dtype), tokens), weights


class TensorLayer(nn.Module):
    """Tensor fusion [1]_: a linear map of the products of all hidden units across modalities, up to all at once.

    A 1 is put before each hidden vector, so that products of fewer modalities, down to single units, are in the tensor
    as well; of a missing modality the 1 remains. With ``max_entries`` each modality is first mapped to as many units
    as keep the tensor's size within it.

    References
    ----------
    .. [1] Zadeh, Chen, Poria, Cambria, Morency (2017). "Tensor fusion network for multimodal sentiment analysis".
       EMNLP.
    """

    def __init__(self, widths, out_features, max_entries=None):
        super().__init__()
        self.maps = None
        if max_entries is not None:
            # The largest whole number whose power stays within the bound; a root of 32.0 may come as 31.99.
            side = max(2, int(max_entries ** (1 / len(widths)) + 1e-9))
            narrow = [min(width, side - 1) for width in widths]
            self.maps = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, narrow, strict=True))
            widths = narrow
        self.joint = nn.Linear(math.prod(width + 1 for width in widths), out_features)
        self.out_features = out_features

    def forward(self, hiddens, mask):
        """Give the joint vectors, and no weights."""
        if self.maps is not None:
            hiddens = [layer(h) for layer, h in zip(self.maps, hiddens, strict=True)]
            if mask is not None:
                hiddens = [h * mask[:, i, None] for i, h in enumerate(hiddens)]
        tensor = _with_one(hiddens[0])
        for h in hiddens[1:]:
            tensor = torch.einsum("ni,nj->nij", tensor, _with_one(h)).flatten(1)
        return self.joint(tensor), None


class LowRankLayer(nn.Module):
    """Low-rank tensor fusion [1]_: tensor fusion whose linear map is a sum of ``rank`` products of one factor each.

    With :math:`z_m = (1, h_m)` it gives :math:`b + \\sum_r \\prod_m W_m^{(r)} z_m`, without ever making the tensor.

    References
    ----------
    .. [1] Liu et al. (2018). "Efficient low-rank multimodal fusion with modality-specific factors". ACL.
    """

    def __init__(self, widths, out_features, rank):
        super().__init__()
        # Products over modalities, summed over the rank, start out at about the scale of one linear map.
        scale = rank ** (-0.5 / len(widths))
        self.factors = nn.ParameterList(
            scale * torch.randn(rank, width + 1, out_features) / math.sqrt(width + 1) for width in widths
        )
        with torch.no_grad():
            for factor in self.factors:
                # The 1 weighs as much as all units together, or products would drown what a modality says alone.
                factor[:, 0] = scale
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.out_features = out_features

    def forward(self, hiddens, mask):
        """Give the joint vectors, and no weights."""
        product = None
        for h, factor in zip(hiddens, self.factors, strict=True):
            mapped = torch.einsum("ni,rio->rno", _with_one(h), factor)
            product = mapped if product is None else product * mapped
        return product.sum(dim=0) + self.bias, None


class FilmLayer(nn.Module):
    """Modalities in series, each scaled and shifted by those before it [1]_.

    The state begins as the first present modality; each next one becomes the new state after feature-wise linear
    modulation by the old: (1 + scale) h + shift, with scale and shift linear in the old state.

    References
    ----------
    .. [1] Perez, Strub, de Vries, Dumoulin, Courville (2018). "FiLM: visual reasoning with a general conditioning
       layer". AAAI.
    """

    def __init__(self, widths):
        super().__init__()
        width = widths[0]
        self.scales_shifts = nn.ModuleList(nn.Linear(width, 2 * width) for _ in widths[1:])
        self.out_features = width

    def forward(self, hiddens, mask):
        """Give the joint vectors, and no weights."""
        state = hiddens[0]
        for i, (layer, h) in enumerate(zip(self.scales_shifts, hiddens[1:], strict=True), start=1):
            scale, shift = layer(state).chunk(2, dim=1)
            modulated = (1 + scale) * h + shift
            if mask is not None:
                begun, present = mask[:, :i].any(dim=1, keepdim=True), mask[:, i, None]
                modulated = torch.where(present, torch.where(begun, modulated, h), state)
            state = modulated
        return state, None


class MixtureLayer(nn.Module):
    """A learned gate over one head per modality: late fusion inside the network [1]_.

    The joint vector holds the hidden vectors, each times its gate, and the gates; a linear map without bias makes of it
    the sum over modalities of gate times head, each head having its own weights and bias.

    References
    ----------
    .. [1] Jacobs, Jordan, Nowlan, Hinton (1991). "Adaptive mixtures of local experts". Neural Computation 3(1).
    """

    def __init__(self, widths):
        super().__init__()
        self.gate = nn.Linear(sum(widths), len(widths))
        self.out_features = sum(widths) + len(widths)

    def forward(self, hiddens, mask):
        """Give the joint vectors and the gates, of sum 1 over the present modalities."""
        gates = masked_softmax(self.gate(torch.cat(hiddens, dim=1)), mask, dim=1)
        return torch.cat([*(gates[:, i, None] * h for i, h in enumerate(hiddens)), gates], dim=1), gates


class GivenLayer(nn.Module):
    """A user's module, called with the hidden vectors and a mask; it gives the joint vectors."""

    def __init__(self, module, widths):
        super().__init__()
        self.module = module
        parameter = next(module.parameters(), torch.empty(0))
        hiddens = [parameter.new_zeros(2, width) for width in widths]
        was_training = module.training
        with torch.no_grad():
            # In eval mode two rows do not move the statistics of a normalisation.
            joint = module.eval()(hiddens, parameter.new_ones(2, len(widths), dtype=torch.bool))
        module.train(was_training)
        if not isinstance(joint, torch.Tensor) or joint.ndim != 2 or len(joint) != 2:
            got = f"shape {tuple(joint.shape)}" if isinstance(joint, torch.Tensor) else type(joint).__name__
            raise ValueError(
                f"fusion={type(module).__name__}: a module given as fusion must turn a list of {len(widths)} tensors "
                f"of shape (2, {widths[0]}) and a mask of shape (2, {len(widths)}) into a tensor of shape (2, n), "
                f"got {got}."
            )
        self.out_features = joint.shape[1]

    def forward(self, hiddens, mask):
        """Give the joint vectors, and no weights."""
        if mask is None:
            mask = torch.ones(len(hiddens[0]), len(hiddens), dtype=torch.bool, device=hiddens[0].device)
        return self.module(hiddens, mask), None


def _with_one(hidden):
    """Put a column of ones before the units."""
    return torch.cat([hidden.new_ones(len(hidden), 1), hidden], dim=1)
