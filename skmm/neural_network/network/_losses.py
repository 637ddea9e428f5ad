"""Losses of networks: what each row costs, and the weighted mean of these costs.

The functions return the costs of rows, a tensor of shape (n_samples,) in the dtype of the outputs. Outputs of shape
(n_samples, n_outputs) are those of the network, before any softmax or sigmoid. Targets have the same shape or, for
classes that exclude each other, are class numbers of shape (n_samples,).
"""


def cross_entropy(outputs, targets, label_smoothing=0.0):
    """Cross-entropy of classes that exclude each other; targets are class numbers or probabilities.

    With ``label_smoothing`` s a share s of each target is spread evenly over all classes [1]_.

    References
    ----------
    .. [1] Szegedy, C. et al. (2016). "Rethinking the Inception Architecture for Computer Vision." CVPR, 2818-2826.
    """
    from torch.nn import functional

    return functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)


def binary_cross_entropy(outputs, targets, label_smoothing=0.0):
    """Cross-entropy of labels that may hold together, or of two classes; targets are probabilities.

    ``label_smoothing`` s moves them to (1 - s) t + s / 2.
    """
    from torch.nn import functional

    _check_shapes("binary_cross_entropy", outputs, targets)
    targets = (1 - label_smoothing) * targets.to(outputs.dtype) + label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(dim=1)


def focal(outputs, targets, gamma=2.0):
    """Cross-entropy with less weight on rows that are already right: -(1 - p)^gamma log p for the true class [1]_.

    Targets are class numbers, for a softmax over the outputs, or 0 and 1, for a sigmoid of each.

    References
    ----------
    .. [1] Lin, T.-Y. et al. (2017). "Focal Loss for Dense Object Detection." ICCV, 2980-2988.
    """
    import torch
    from torch.nn import functional

    if targets.ndim == 1:
        logs = outputs.log_softmax(dim=1).gather(1, targets[:, None])
    else:
        _check_shapes("focal", outputs, targets)
        # log sigmoid(z) for yes, log(1 - sigmoid(z)) = log sigmoid(-z) for no.
        logs = functional.logsigmoid(outputs * (2 * targets.to(outputs.dtype) - 1))
    # 1 - p without cancellation. Above 0, where powers below 1 have no gradient.
    wrong = (-logs.expm1()).clamp(min=torch.finfo(logs.dtype).tiny)
    return (-(wrong**gamma) * logs).mean(dim=1)


def squared(outputs, targets):
    """Squared error."""
    _check_shapes("squared", outputs, targets)
    return ((outputs - targets) ** 2).mean(dim=1)


def huber(outputs, targets, delta=1.0):
    """Half the squared error up to ``delta``, growing linearly beyond [1]_.

    References
    ----------
    .. [1] Huber, P. J. (1964). "Robust Estimation of a Location Parameter." The Annals of Mathematical Statistics
       35(1), 73-101.
    """
    from torch.nn import functional

    _check_shapes("huber", outputs, targets)
    return functional.huber_loss(outputs, targets, reduction="none", delta=delta).mean(dim=1)


def quantile(outputs, targets, quantile=0.5):
    """Pinball loss, least at the ``quantile`` of the targets [1]_.

    References
    ----------
    .. [1] Koenker, R. and Bassett, G. (1978). "Regression Quantiles." Econometrica 46(1), 33-50.
    """
    import torch

    _check_shapes("quantile", outputs, targets)
    error = targets - outputs
    return torch.maximum(quantile * error, (quantile - 1) * error).mean(dim=1)


def _check_shapes(name, outputs, targets):
    """Raise unless targets have the shape of the outputs: broadcasting would compare every row with every other."""
    if outputs.shape != targets.shape:
        raise ValueError(
            f"loss={name!r}: targets of shape {tuple(targets.shape)} do not match outputs of shape "
            f"{tuple(outputs.shape)}; pass one target for each output."
        )


# Name -> costs of rows. Register losses here.
LOSSES = {
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "focal": focal,
    "huber": huber,
    "quantile": quantile,
    "squared": squared,
}


class Loss:
    """The weighted mean of the costs of rows.

    Parameters
    ----------
    name : str
        Key of ``LOSSES``.

    **options : dict
        Further arguments of the function.
    """

    def __init__(self, name, **options):
        self.name = name
        self.options = options

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        return LOSSES[self.name](outputs, targets, **self.options)

    def __call__(self, outputs, targets, weights=None):
        """Return the mean, a scalar tensor; ``weights`` of rows are none below 0, and 0 is the mean if all are 0."""
        return weighted_mean(self.rows(outputs, targets), weights)


def weighted_mean(costs, weights=None):
    """Return the mean of costs, or their weighted mean; 0 where all weights are 0."""
    import torch

    if weights is None:
        return costs.mean()
    total = weights.sum()
    # Do not divide by a tiny number instead of 0: infinity times 0 would give NaN gradients.
    return (weights * costs).sum() / torch.where(total > 0, total, 1)
