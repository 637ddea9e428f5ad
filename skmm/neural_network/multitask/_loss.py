"""What several tasks cost together."""

import torch
from torch import nn

from ..network import make_loss


class TaskLoss(nn.Module):
    """The sum of the losses of several tasks, with fixed weights or ones that are trained.

    Parameters
    ----------
    outputs : TaskOutputs
        What the outputs mean.

    task_weights : sequence of float or None
        Weights of the tasks; None trains them, as homoscedastic uncertainty.

    log_variances : sequence of float or None, default=None
        Logarithms of the variances to start from; None starts from variances of 1.
    """

    def __init__(self, outputs, task_weights, log_variances=None):
        super().__init__()
        self.slices = outputs.slices
        self.task_weights = task_weights
        self.losses = [make_loss(_loss_name(*task)) for task in zip(outputs.kinds, outputs.parts, strict=True)]
        # The exponent of a normal density halves the squared error.
        self.factors = [0.5 if kind == "regression" else 1.0 for kind in outputs.kinds]
        start = [0.0] * len(self.losses) if log_variances is None else list(log_variances)
        self.log_variances = nn.Parameter(torch.tensor(start)) if task_weights is None else None

    def rows(self, outputs, targets):
        """Give the cost of each row, a tensor of shape (n_samples,)."""
        *targets, known = targets
        tasks = zip(self.losses, self.slices, targets, known.T, strict=True)
        return self._combine([own * loss.rows(outputs[:, part], target) for loss, part, target, own in tasks])

    def forward(self, outputs, targets, weights=None):
        """Give the loss of a batch, each task's over the rows that know its target."""
        *targets, known = targets
        weights = known if weights is None else known * weights[:, None]
        tasks = zip(self.losses, self.slices, targets, weights.T, strict=True)
        return self._combine([loss(outputs[:, part], target, own) for loss, part, target, own in tasks])

    def final_weights(self):
        """Give the weight of each task as it is now, a list of float."""
        if self.log_variances is None:
            return list(self.task_weights)
        return (torch.tensor(self.factors) * torch.exp(-self.log_variances.detach().cpu())).tolist()

    def _combine(self, values):
        if self.log_variances is None:
            return sum(weight * value for weight, value in zip(self.task_weights, values, strict=True))
        tasks = zip(self.factors, self.log_variances, values, strict=True)
        return sum(factor * torch.exp(-s) * value + 0.5 * s for factor, s, value in tasks)


def _loss_name(kind, part):
    if kind == "regression":
        return "squared"
    return "binary_cross_entropy" if part.independent else "cross_entropy"
