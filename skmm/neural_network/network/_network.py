"""The network: a branch and a tower for each modality, a layer that joins them, joint layers and a linear head."""

from copy import deepcopy

from torch import nn

from ._fusion_layers import (
    AttentionLayer,
    ConcatLayer,
    FilmLayer,
    GatedLayer,
    GivenLayer,
    LowRankLayer,
    MixtureLayer,
    SumLayer,
    TensorLayer,
    WeightedLayer,
)

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

# Entries that the tensor of all products may have in each row.
_MAX_TENSOR = 1024


def make_fusion(fusion, widths, *, rank, n_heads):
    """Give the layer that a string stands for, or wrap a copy of a module."""
    if isinstance(fusion, nn.Module):
        return GivenLayer(deepcopy(fusion), widths)
    make = {
        "concat": ConcatLayer,
        "sum": SumLayer,
        "weighted": WeightedLayer,
        "gated": GatedLayer,
        "attention": lambda widths: AttentionLayer(widths, n_heads),
        "tensor": lambda widths: TensorLayer(widths, widths[0], _MAX_TENSOR),
        "low_rank": lambda widths: LowRankLayer(widths, widths[0], rank),
        "film": FilmLayer,
        "mixture": MixtureLayer,
    }
    return make[fusion](widths)


def _layers(n_in, n_layers, width, activation, dropout):
    """Give ``n_layers`` hidden layers, and the width that comes out."""
    layers = []
    for _ in range(n_layers):
        layers += [nn.Linear(n_in, width), ACTIVATIONS[activation]()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        n_in = width
    return nn.Sequential(*layers), n_in


def run_branch(branch, tensors):
    """Run a branch; a single row in training is normalised by the statistics so far, for it has none of its own."""
    if len(tensors[0]) > 1:
        return branch(*tensors)
    norms = [part for part in branch.modules() if isinstance(part, _BATCH_NORMS) and part.training]
    for norm in norms:
        norm.eval()
    try:
        return branch(*tensors)
    finally:
        for norm in norms:
            norm.train()


class Network(nn.Module):
    """One network over several modalities.

    Parameters
    ----------
    branches : list of (nn.Module or None, int)
        For each modality the module that is trained on its raw input, or None for frozen features, and the number of
        features that come out.

    n_outputs : int
        Outputs of the head.

    fusion : str or nn.Module
        The layer that joins the modalities.

    n_layers, n_joint_layers : int
        Hidden layers of each modality before the fusion, and after it.

    width : int
        Units of each hidden layer.

    activation : str
        Name of the activation.

    dropout : float
        Share of the hidden units set to zero in training.

    rank, n_heads : int
        Parameters of ``fusion="low_rank"`` and ``fusion="attention"``.
    """

    def __init__(
        self, branches, n_outputs, *, fusion, n_layers, n_joint_layers, width, activation, dropout, rank, n_heads
    ):
        super().__init__()
        self.branches = nn.ModuleList(nn.Identity() if module is None else module for module, _ in branches)
        self.is_trained = [module is not None for module, _ in branches]
        towers, widths = [], []
        for _, n_in in branches:
            tower, n_out = _layers(n_in, n_layers, width, activation, dropout)
            if n_layers == 0 and fusion != "concat":
                # All other layers join vectors of one width.
                tower, n_out = nn.Linear(n_in, width), width
            towers.append(tower)
            widths.append(n_out)
        self.towers = nn.ModuleList(towers)
        self.widths = widths
        self.fusion = make_fusion(fusion, widths, rank=rank, n_heads=n_heads)
        # The heads of a mixture are linear, and their biases are in what it gives.
        late = fusion == "mixture"
        self.joint, self.joint_features = _layers(
            self.fusion.out_features, 0 if late else n_joint_layers, width, activation, dropout
        )
        self.head = nn.Linear(self.joint_features, n_outputs, bias=not late)

    def forward(self, inputs, mask=None):
        """Give the outputs.

        Parameters
        ----------
        inputs : list of tuple of Tensor
            The tensors of each modality, with one row per sample in all of them.

        mask : Tensor of shape (n_samples, n_modalities) or None, default=None
            True where a modality is present; None if all are everywhere.

        Returns
        -------
        outputs : Tensor of shape (n_samples, n_outputs)
            Outputs of the head.
        """
        return self.outputs_of(self.hiddens(inputs, mask), mask)

    def outputs_of(self, hiddens, mask):
        """Give the outputs for hidden vectors of the modalities."""
        return self.head(self.join(hiddens, mask)[0])

    def hiddens(self, inputs, mask):
        """Give the hidden vectors of each modality, zero where it is missing."""
        found = []
        for i, (branch, tower) in enumerate(zip(self.branches, self.towers, strict=True)):
            present = None if mask is None else mask[:, i]
            if self.is_trained[i] and present is not None:
                found.append(self._present_hiddens(i, present, inputs[i]))
                continue
            hidden = tower(run_branch(branch, inputs[i]))
            found.append(hidden if present is None else hidden * present[:, None])
        return found

    def _present_hiddens(self, i, present, tensors):
        """Run a branch on the rows that have its modality, so that no others enter its statistics; zeros elsewhere."""
        branch, tower = self.branches[i], self.towers[i]
        if present.all():
            return tower(run_branch(branch, tensors))
        rows = present.nonzero()[:, 0]
        if len(rows) == 0:
            return self.head.weight.new_zeros(len(present), self.widths[i])
        values = tower(run_branch(branch, [tensor[rows] for tensor in tensors]))
        return values.new_zeros(len(present), self.widths[i]).index_copy(0, rows, values)

    def join(self, hiddens, mask):
        """Give the joint representation that enters the head, and the weights of the modalities or None."""
        joint, weights = self.fusion(hiddens, mask)
        return self.joint(joint), weights
