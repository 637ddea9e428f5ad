"""Layers that join the hidden vectors of modalities into one, and the base class of such layers."""

import math

import torch
from torch import nn

from ._randomness import seeded

# Entries that the tensor of all products may have in each row.
_MAX_ENTRIES = 1024


class FusionLayer(nn.Module):
    """Base class of layers that join the hidden vectors of the modalities into one.

    A subclass takes its options in ``__init__``, makes its parameters in ``build``, as soon as the widths are known,
    and joins vectors in ``forward``. A network takes an instance, of which it builds a copy, or the class if all
    options have defaults: ``MultimodalNetClassifier(modalities, fusion=MyLayer())``.

    Attributes
    ----------
    out_features : int
        Width of the joint vectors; ``build`` sets it.

    weighs : bool
        Class attribute. Whether ``forward`` returns weights of the modalities, which the network's ``explain`` shows;
        False by default.

    same_width : bool
        Class attribute. Whether all hidden vectors must have one width; True by default. With ``n_layers=0`` each
        modality is then mapped linearly to ``width`` units.

    is_late : bool
        Class attribute. Whether the linear head follows directly and without bias, as late fusion needs it; False by
        default.

    See Also
    --------
    MultimodalNetClassifier : Takes such a layer as ``fusion``.

    Notes
    -----
    A layer should return what it would return without the missing modalities. Their vectors are zero, which is enough
    for sums; means and products need ``mask``.

    Weights are drawn from the network's ``random_state``. A layer that draws random numbers in ``forward`` may do so
    from torch's global generator, which the network seeds for it.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from skmm.neural_network import FusionLayer, MultimodalNetClassifier
    >>> class ProductLayer(FusionLayer):
    ...     def build(self, widths):
    ...         self.maps = torch.nn.ModuleList(torch.nn.Linear(width, widths[0]) for width in widths)
    ...         self.out_features = widths[0]
    ...
    ...     def forward(self, hiddens, mask):
    ...         factors = [1 + layer(h) for layer, h in zip(self.maps, hiddens)]
    ...         return torch.stack(factors).prod(dim=0), None
    >>> X, y = load_iris(return_X_y=True)
    >>> halves = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
    >>> net = MultimodalNetClassifier(halves, fusion=ProductLayer(), width=16, random_state=0).fit(X, y)
    >>> net.score(X, y) > 0.9
    True
    """

    weighs = False
    same_width = True
    is_late = False

    def __init__(self):
        super().__init__()

    def build(self, widths: list[int]) -> None:
        """Make the parameters and set ``out_features``.

        Parameters
        ----------
        widths : list of int
            Width of the hidden vectors of each modality.
        """
        raise NotImplementedError

    def forward(
        self, hiddens: list[torch.Tensor], mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Join the hidden vectors.

        Parameters
        ----------
        hiddens : list of Tensor of shape (n_samples, width)
            Hidden vectors of each modality, zero where it is missing.

        mask : Tensor of shape (n_samples, n_modalities), dtype bool, or None
            True where a modality is present; None if nothing is missing.

        Returns
        -------
        joint : Tensor of shape (n_samples, out_features)
            Joint vectors.

        weights : Tensor of shape (n_samples, n_modalities) or None
            How much each modality counted, of sum 1 over the present ones; None if the layer has no such weights.
        """
        raise NotImplementedError


def masked_softmax(scores, mask, dim):
    """Softmax over the present modalities, exactly 0 for missing ones; all 0 where none is present.

    Computed in float32 at least: the three digits of half precision are too few for weights of sum 1.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is None:
        return torch.softmax(scores, dim)
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~mask, lowest), dim) * mask


class ConcatLayer(FusionLayer):
    """The hidden vectors side by side."""

    same_width = False

    def build(self, widths):
        """Make the parameters."""
        self.out_features = sum(widths)

    def forward(self, hiddens, mask):
        """Return the joint vectors, and no weights."""
        return torch.cat(hiddens, dim=1), None


class SumLayer(FusionLayer):
    """The sum of the hidden vectors."""

    def build(self, widths):
        """Make the parameters."""
        self.out_features = widths[0]

    def forward(self, hiddens, mask):
        """Return the joint vectors, and no weights."""
        return sum(hiddens), None


class WeightedLayer(FusionLayer):
    """The mean of the hidden vectors, weighted by a softmax over one learned score per modality."""

    weighs = True

    def build(self, widths):
        """Make the parameters."""
        self.scores = nn.Parameter(torch.zeros(len(widths)))
        self.out_features = widths[0]

    def forward(self, hiddens, mask):
        """Return the joint vectors and the weights of the modalities, of sum 1 over the present ones."""
        weights = masked_softmax(self.scores.expand(len(hiddens[0]), -1), mask, dim=1)
        return torch.einsum("nm,mnd->nd", weights, torch.stack(hiddens)), weights


class GatedLayer(FusionLayer):
    """Gated multimodal unit [1]_ for any number of modalities.

    Each modality offers tanh of a linear map of its hidden vector. For every unit, gates that depend on all modalities
    weigh these offers. The gates of a unit are a softmax over the present modalities: for two of
    them that is the sigmoid z and 1 - z of the paper.

    References
    ----------
    .. [1] Arevalo, Solorio, Montes-y-Gómez, González (2017). "Gated multimodal units for information fusion". ICLR
       workshop.
    """

    weighs = True

    def build(self, widths):
        """Make the parameters."""
        width = widths[0]
        self.offers = nn.ModuleList(nn.Linear(width, width) for _ in widths)
        self.gates = nn.Linear(sum(widths), sum(widths))
        self.out_features = width

    def forward(self, hiddens, mask):
        """Return the joint vectors and the gates, averaged over units; of sum 1 over the present modalities."""
        offers = torch.stack([torch.tanh(offer(h)) for offer, h in zip(self.offers, hiddens, strict=True)], dim=1)
        scores = self.gates(torch.cat(hiddens, dim=1)).view_as(offers)
        gates = masked_softmax(scores, None if mask is None else mask[:, :, None], dim=1)
        return (gates * offers).sum(dim=1), gates.mean(dim=2)


class AttentionLayer(FusionLayer):
    """One Transformer layer over one token per modality [1]_, then the mean of the present tokens.

    Normalisation comes first in each half, and a learned vector says which modality a token is.

    References
    ----------
    .. [1] Vaswani et al. (2017). "Attention is all you need". NeurIPS.
    """

    weighs = True

    def __init__(self, n_heads):
        super().__init__()
        self.n_heads = n_heads

    def build(self, widths):
        """Make the parameters."""
        width = widths[0]
        self.kinds = nn.Parameter(torch.randn(len(widths), width) / math.sqrt(width))
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        # Without bias: a constant added to all keys cancels in the softmax.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)
        self.norm_units = nn.LayerNorm(width)
        self.units = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.out_features = width

    def forward(self, hiddens, mask):
        """Return the joint vectors and the attention each modality gets: the mean over heads and present queries."""
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
        # Not by einsum, which autocast would compute in half precision.
        weights = (share[:, :, None] * attention.mean(dim=1)).sum(dim=1)
        return torch.einsum("nm,nmd->nd", share.to(tokens.dtype), tokens), weights


class TensorLayer(FusionLayer):
    """Tensor fusion [1]_: a linear map of the products of all hidden units across modalities, up to all at once.

    A 1 is put before each hidden vector, so that products of fewer modalities, down to single units, are in the tensor
    as well; of a missing modality the 1 remains. Unless ``max_entries`` is None, each modality is first mapped to so
    few units that the tensor has at most that many entries.

    References
    ----------
    .. [1] Zadeh, Chen, Poria, Cambria, Morency (2017). "Tensor fusion network for multimodal sentiment analysis".
       EMNLP.
    """

    def __init__(self, max_entries=_MAX_ENTRIES):
        super().__init__()
        self.max_entries = max_entries
        self.maps = None

    def build(self, widths):
        """Make the parameters."""
        self.out_features = widths[0]
        if self.max_entries is not None:
            # The largest whole number whose power stays within the bound; a root of 32.0 may come as 31.99.
            side = max(2, int(self.max_entries ** (1 / len(widths)) + 1e-9))
            narrow = [min(width, side - 1) for width in widths]
            self.maps = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, narrow, strict=True))
            widths = narrow
        self.joint = nn.Linear(math.prod(width + 1 for width in widths), self.out_features)

    def forward(self, hiddens, mask):
        """Return the joint vectors, and no weights."""
        if self.maps is not None:
            hiddens = [layer(h) for layer, h in zip(self.maps, hiddens, strict=True)]
            if mask is not None:
                hiddens = [h * mask[:, i, None] for i, h in enumerate(hiddens)]
        tensor = _with_one(hiddens[0])
        for h in hiddens[1:]:
            tensor = torch.einsum("ni,nj->nij", tensor, _with_one(h)).flatten(1)
        return self.joint(tensor), None


class LowRankLayer(FusionLayer):
    """Low-rank tensor fusion [1]_: tensor fusion whose linear map is a sum of ``rank`` products of one factor each.

    With :math:`z_m = (1, h_m)` it returns :math:`b + \\sum_r \\prod_m W_m^{(r)} z_m`, without ever making the tensor.

    References
    ----------
    .. [1] Liu et al. (2018). "Efficient low-rank multimodal fusion with modality-specific factors". ACL.
    """

    def __init__(self, rank):
        super().__init__()
        self.rank = rank

    def build(self, widths):
        """Make the parameters."""
        self.out_features = widths[0]
        # Products over modalities, summed over the rank, start out at about the scale of one linear map.
        scale = self.rank ** (-0.5 / len(widths))
        self.factors = nn.ParameterList(
            scale * torch.randn(self.rank, width + 1, self.out_features) / math.sqrt(width + 1) for width in widths
        )
        with torch.no_grad():
            for factor in self.factors:
                # The 1 weighs as much as all units together, or the products would hide the single modalities.
                factor[:, 0] = scale
        self.bias = nn.Parameter(torch.zeros(self.out_features))

    def forward(self, hiddens, mask):
        """Return the joint vectors, and no weights."""
        product = None
        for h, factor in zip(hiddens, self.factors, strict=True):
            mapped = torch.einsum("ni,rio->rno", _with_one(h), factor)
            product = mapped if product is None else product * mapped
        return product.sum(dim=0) + self.bias, None


class FilmLayer(FusionLayer):
    """Modalities in series, each scaled and shifted by those before it [1]_.

    The state begins as the first present modality; each next one becomes the new state after feature-wise linear
    modulation by the old: (1 + scale) h + shift, with scale and shift linear in the old state.

    References
    ----------
    .. [1] Perez, Strub, de Vries, Dumoulin, Courville (2018). "FiLM: visual reasoning with a general conditioning
       layer". AAAI.
    """

    def build(self, widths):
        """Make the parameters."""
        width = widths[0]
        self.scales_shifts = nn.ModuleList(nn.Linear(width, 2 * width) for _ in widths[1:])
        self.out_features = width

    def forward(self, hiddens, mask):
        """Return the joint vectors, and no weights."""
        state = hiddens[0]
        for i, (layer, h) in enumerate(zip(self.scales_shifts, hiddens[1:], strict=True), start=1):
            scale, shift = layer(state).chunk(2, dim=1)
            modulated = (1 + scale) * h + shift
            if mask is not None:
                begun, present = mask[:, :i].any(dim=1, keepdim=True), mask[:, i, None]
                modulated = torch.where(present, torch.where(begun, modulated, h), state)
            state = modulated
        return state, None


class MixtureLayer(FusionLayer):
    """A learned gate over one head per modality: late fusion inside the network [1]_.

    The joint vector holds the hidden vectors, each times its gate, and the gates; a linear map without bias makes of it
    the sum over modalities of gate times head, each head having its own weights and bias.

    References
    ----------
    .. [1] Jacobs, Jordan, Nowlan, Hinton (1991). "Adaptive mixtures of local experts". Neural Computation 3(1).
    """

    weighs = True
    is_late = True

    def build(self, widths):
        """Make the parameters."""
        self.gate = nn.Linear(sum(widths), len(widths))
        self.out_features = sum(widths) + len(widths)

    def forward(self, hiddens, mask):
        """Return the joint vectors and the gates, of sum 1 over the present modalities."""
        gates = masked_softmax(self.gate(torch.cat(hiddens, dim=1)), mask, dim=1)
        return torch.cat([*(gates[:, i, None] * h for i, h in enumerate(hiddens)), gates], dim=1), gates


class ModuleLayer(FusionLayer):
    """A module of the user that is no :class:`FusionLayer`: it takes hidden vectors and a mask, and returns vectors."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def build(self, widths):
        """Find the width of the joint vectors."""
        joint = probe_layer(self.module, widths)
        if not isinstance(joint, torch.Tensor) or joint.ndim != 2 or len(joint) != 2:
            raise ValueError(
                f"fusion={type(self.module).__name__}: a module given as fusion must turn a list of {len(widths)} "
                f"tensors of shape (2, {widths[0]}) and a mask of shape (2, {len(widths)}) into a tensor of shape "
                f"(2, n), got {_shape_or_type(joint)}."
            )
        self.out_features = joint.shape[1]

    def forward(self, hiddens, mask):
        """Return the joint vectors, and no weights."""
        if mask is None:
            mask = torch.ones(len(hiddens[0]), len(hiddens), dtype=torch.bool, device=hiddens[0].device)
        return self.module(hiddens, mask), None


def probe_layer(layer, widths):
    """Return the output of a layer for two rows, in evaluation mode so that no statistics change."""
    parameter = next(layer.parameters(), torch.empty(0))
    hiddens = [parameter.new_zeros(2, width) for width in widths]
    was_training = layer.training
    with seeded(0, parameter.device), torch.no_grad():
        outputs = layer.eval()(hiddens, parameter.new_ones(2, len(widths), dtype=torch.bool))
    layer.train(was_training)
    return outputs


def check_layer(layer, widths):
    """Raise unless a layer of the user returns joint vectors and weights as :class:`FusionLayer` says."""
    n_features = getattr(layer, "out_features", None)
    if not isinstance(n_features, int) or n_features < 1:
        raise ValueError(
            f"fusion={type(layer).__name__}: build must set out_features to the width of the joint vectors, got "
            f"{n_features!r}."
        )
    outputs = probe_layer(layer, widths)
    if not isinstance(outputs, tuple) or len(outputs) != 2:
        raise TypeError(
            f"fusion={type(layer).__name__}: forward must return a tuple (joint, weights), weights being None if the "
            f"layer has none, got {_shape_or_type(outputs)}."
        )
    for name, tensor, shape in zip(
        ("joint", "weights"), outputs, ((2, n_features), (2, len(widths)) if layer.weighs else None), strict=True
    ):
        got = None if tensor is None else getattr(tensor, "shape", type(tensor))
        if got != shape:
            raise ValueError(
                f"fusion={type(layer).__name__}: forward must return {name} "
                f"{'as None where weighs is False' if shape is None else f'of shape {shape} for two rows'}, got "
                f"{'None' if tensor is None else _shape_or_type(tensor)}."
            )


def _shape_or_type(value):
    return f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"


def _with_one(hidden):
    """Put a column of ones before the units."""
    return torch.cat([hidden.new_ones(len(hidden), 1), hidden], dim=1)
