"""The network: a branch and a tower for each modality, a layer that joins them, joint layers and a linear head."""

import math
from contextlib import contextmanager

import torch
from torch import nn

from ._fusions import make_fusion, needs_same_width
from ._randomness import Dropout
from ._rows import slices

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}

# Rows by which the vectors of pretrained branches are standardised, at most.
_ROWS_TO_STANDARDIZE = 1000

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _layers(n_in, n_layers, width, activation, dropout):
    """Return ``n_layers`` hidden layers and the width of their output."""
    layers = []
    for _ in range(n_layers):
        layers += [nn.Linear(n_in, width), ACTIVATIONS[activation]()]
        if dropout > 0:
            layers.append(Dropout(dropout))
        n_in = width
    return nn.Sequential(*layers), n_in


def run_branch(branch, tensors):
    """Run a branch. In training, a single row is normalised by the running statistics: it has no variance itself."""
    if len(tensors[0]) > 1:
        return branch(*tensors)
    norms = [module for module in branch.modules() if isinstance(module, _BATCH_NORMS) and module.training]
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

    fusion : str, FusionLayer, subclass of FusionLayer, or nn.Module
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
            if n_layers == 0 and needs_same_width(fusion):
                tower, n_out = nn.Linear(n_in, width), width
            towers.append(tower)
            widths.append(n_out)
        self.towers = nn.ModuleList(towers)
        self.widths = widths
        self.fusion = make_fusion(fusion, widths, {"rank": rank, "n_heads": n_heads})
        late = self.fusion.is_late
        self.joint, self.joint_features = _layers(
            self.fusion.out_features, 0 if late else n_joint_layers, width, activation, dropout
        )
        self.head = nn.Linear(self.joint_features, n_outputs, bias=not late)
        # Modules of users draw from torch's global generator.
        self.draws_globally = not isinstance(fusion, str) or any(
            getattr(branch, "draws_globally", False) for branch in self.branches
        )

    def forward(self, inputs, mask=None):
        """Return the outputs, of shape (n_samples, n_outputs).

        ``inputs`` are a tuple of tensors for each modality; ``mask``, of shape (n_samples, n_modalities), is True where
        a modality is present, and None if nothing is missing.
        """
        return self.outputs_of(self.hiddens(inputs, mask), mask)

    def standardize(self, rows, device):
        """Let pretrained branches standardise their vectors by those of some rows, before any training."""
        for m, branch in enumerate(self.branches):
            if hasattr(branch, "standardize"):
                present = torch.arange(len(rows)) if rows.mask is None else rows.mask[:, m].nonzero()[:, 0]
                present = present[:: math.ceil(len(present) / _ROWS_TO_STANDARDIZE)]
                weights = torch.ones(len(rows)) if rows.weights is None else rows.weights
                batches = (batch.inputs[0] for batch in slices(rows.modality(m).take(present)))
                branch.standardize(([x.to(device) for x in tensors] for tensors in batches), weights[present])

    @contextmanager
    def reading_vectors(self):
        """Context in which pretrained branches take vectors of the encoder, which they only standardise."""
        branches = [branch for branch in self.branches if hasattr(branch, "reads_vectors")]
        for branch in branches:
            branch.reads_vectors = branch.is_named
        try:
            yield
        finally:
            for branch in branches:
                branch.reads_vectors = False

    def outputs_of(self, hiddens, mask):
        """Return the outputs for hidden vectors of the modalities."""
        return self.head(self.join(hiddens, mask)[0])

    def hiddens(self, inputs, mask):
        """Return the hidden vectors of each modality, zero where it is missing."""
        if mask is None:
            layers = zip(self.branches, self.towers, inputs, strict=True)
            return [tower(run_branch(branch, tensors)) for branch, tower, tensors in layers]
        return [
            self._present_hiddens(m, mask[:, m], tensors)
            if self.is_trained[m]
            else self.towers[m](self.branches[m](*tensors)) * mask[:, m, None]
            for m, tensors in enumerate(inputs)
        ]

    def _present_hiddens(self, i, present, tensors):
        """Run a branch on the rows that have its modality, so that its statistics come from these; zeros elsewhere."""
        branch, tower = self.branches[i], self.towers[i]
        if present.all():
            return tower(run_branch(branch, tensors))
        rows = present.nonzero()[:, 0]
        if len(rows) == 0:
            return self.head.weight.new_zeros(len(present), self.widths[i])
        values = tower(run_branch(branch, [tensor[rows] for tensor in tensors]))
        return values.new_zeros(len(present), self.widths[i]).index_copy(0, rows, values)

    def join(self, hiddens, mask):
        """Return the joint representation that enters the head, and the weights of the modalities or None."""
        joint, weights = self.fusion(hiddens, mask)
        return self.joint(joint), weights
