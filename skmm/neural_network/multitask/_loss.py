"""The joint loss of several tasks."""

import torch
from torch import nn

from ..network import Loss


class TaskLoss(nn.Module):
    """The sum of the losses of several tasks, with fixed or trained weights.

    Parameters
    ----------
    outputs : TaskOutputs
        Meaning of the outputs.

    task_weights : sequence of float or None
        Weights of the tasks; None trains them, as homoscedastic uncertainty.

    log_variances : sequence of float or None, default=None
        Logarithms of the variances to start from; None starts from variances of 1.
    """

    def __init__(self, outputs, task_weights, log_variances=None):
        super().__init__()
        self.slices = outputs.slices
        self.task_weights = task_weights
        self.losses = [Loss(_loss_name(*task)) for task in zip(outputs.kinds, outputs.tasks, strict=True)]
        # The exponent of a normal density halves the squared error.
        self.factors = [0.5 if kind == "regression" else 1.0 for kind in outputs.kinds]
        start = [0.0] * len(self.losses) if log_variances is None else list(log_variances)
        self.log_variances = nn.Parameter(torch.tensor(start)) if task_weights is None else None

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        *targets, is_present = targets
        tasks = zip(self.losses, self.slices, targets, is_present.T, strict=True)
        return self._combine([mask * loss.rows(outputs[:, columns], y) for loss, columns, y, mask in tasks])

    def forward(self, outputs, targets, weights=None):
        """Return the loss of a batch, each task's over the rows that have its target."""
        *targets, is_present = targets
        weights = is_present if weights is None else is_present * weights[:, None]
        tasks = zip(self.losses, self.slices, targets, weights.T, strict=True)
        return self._combine([loss(outputs[:, columns], y, w) for loss, columns, y, w in tasks])

    def final_weights(self):
        """Return the present weight of each task, a list of float."""
        if self.log_variances is None:
            return list(self.task_weights)
        return (torch.tensor(self.factors) * torch.exp(-self.log_variances.detach().cpu())).tolist()

    def _combine(self, values):
        if self.log_variances is None:
            return sum(weight * value for weight, value in zip(self.task_weights, values, strict=True))
        tasks = zip(self.factors, self.log_variances, values, strict=True)
        return sum(factor * torch.exp(-s) * value + 0.5 * s for factor, s, value in tasks)


def _loss_name(kind, outputs):
    if kind == "regression":
        return "squared"
    return "binary_cross_entropy" if outputs.independent else "cross_entropy"
