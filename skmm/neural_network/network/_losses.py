"""Losses of networks: what each row costs, and their weighted mean.

Every loss is a small object that is called with outputs, targets and weights. It holds numbers only, so it pickles, and
computes in the dtype of the outputs.
"""

from numbers import Real

from ..._sklearn import Interval


class Loss:
    """Base of the losses: the weighted mean of the costs of rows, which subclasses return from ``rows``."""

    # Option -> (default, allowed values).
    _options: dict = {}

    def __init__(self, **options):
        unknown = sorted(set(options) - set(self._options))
        if unknown:
            options = f"it has {sorted(self._options)}" if self._options else "it has none"
            raise ValueError(f"{type(self).__name__} has no option {unknown}; {options}.")
        for name, (default, allowed) in self._options.items():
            value = options.get(name, default)
            if not allowed.is_satisfied_by(value):
                raise ValueError(f"{type(self).__name__}: {name} must be {allowed}, got {value!r}.")
            setattr(self, name, value)

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        raise NotImplementedError

    def __call__(self, outputs, targets, weights=None):
        """Return the weighted mean of the costs.

        Parameters
        ----------
        outputs : Tensor of shape (n_samples, n_outputs)
            Outputs of the network, before any softmax or sigmoid.

        targets : Tensor of shape (n_samples,) or (n_samples, n_outputs)
            Targets of the rows.

        weights : Tensor of shape (n_samples,) or None, default=None
            Weights of the rows, none below 0; None for equal weights.

        Returns
        -------
        loss : Tensor of shape ()
            The mean; 0 where all weights are 0.
        """
        import torch

        costs = self.rows(outputs, targets)
        if weights is None:
            return costs.mean()
        total = weights.sum()
        # Do not divide by a tiny number instead of 0: infinity times 0 would give NaN gradients.
        return (weights * costs).sum() / torch.where(total > 0, total, 1)


class CrossEntropy(Loss):
    """Cross-entropy of classes that exclude each other, outputs being logits.

    Targets are class numbers of shape (n_samples,), or probabilities of shape (n_samples, n_outputs). With
    ``label_smoothing`` s a share s of each target is spread evenly over all classes [1]_.

    References
    ----------
    .. [1] Szegedy, C. et al. (2016). "Rethinking the Inception Architecture for Computer Vision." CVPR, 2818-2826.
    """

    _options = {"label_smoothing": (0.0, Interval(Real, 0, 1, closed="left"))}

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=self.label_smoothing)


class BinaryCrossEntropy(Loss):
    """Cross-entropy of independent yes-or-no outputs, given as logits; their mean over a row's outputs.

    One output is binary classification, several are labels that may hold together. Targets are probabilities in the
    shape of the outputs. ``label_smoothing`` s moves them to (1 - s) t + s / 2.
    """

    _options = {"label_smoothing": (0.0, Interval(Real, 0, 1, closed="left"))}

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        from torch.nn import functional

        _check_shapes(self, outputs, targets)
        targets = (1 - self.label_smoothing) * targets.to(outputs.dtype) + self.label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(dim=1)


class Focal(Loss):
    """Cross-entropy with less weight on rows that are already right: -(1 - p)^gamma log p for the true class [1]_.

    Targets are class numbers of shape (n_samples,), for a softmax over the outputs, or 0 and 1 in the shape of the
    outputs, for a sigmoid of each. ``gamma=0`` is the plain cross-entropy.

    References
    ----------
    .. [1] Lin, T.-Y. et al. (2017). "Focal Loss for Dense Object Detection." ICCV, 2980-2988.
    """

    _options = {"gamma": (2.0, Interval(Real, 0, None, closed="left"))}

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        import torch
        from torch.nn import functional

        if targets.ndim == 1:
            logs = outputs.log_softmax(dim=1).gather(1, targets[:, None])
        else:
            _check_shapes(self, outputs, targets)
            # log sigmoid(z) for yes, log(1 - sigmoid(z)) = log sigmoid(-z) for no.
            logs = functional.logsigmoid(outputs * (2 * targets.to(outputs.dtype) - 1))
        # 1 - p without cancellation. Above 0, where powers below 1 have no gradient.
        wrong = (-logs.expm1()).clamp(min=torch.finfo(logs.dtype).tiny)
        return (-(wrong**self.gamma) * logs).mean(dim=1)


class Squared(Loss):
    """Squared error, its mean over a row's outputs."""

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        _check_shapes(self, outputs, targets)
        return ((outputs - targets) ** 2).mean(dim=1)


class Huber(Loss):
    """Half the squared error up to ``delta``, growing linearly beyond [1]_; its mean over a row's outputs.

    References
    ----------
    .. [1] Huber, P. J. (1964). "Robust Estimation of a Location Parameter." The Annals of Mathematical Statistics
       35(1), 73-101.
    """

    _options = {"delta": (1.0, Interval(Real, 0, None, closed="neither"))}

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        from torch.nn import functional

        _check_shapes(self, outputs, targets)
        return functional.huber_loss(outputs, targets, reduction="none", delta=self.delta).mean(dim=1)


class Quantile(Loss):
    """Pinball loss, least at the ``quantile`` of the targets [1]_; its mean over a row's outputs.

    References
    ----------
    .. [1] Koenker, R. and Bassett, G. (1978). "Regression Quantiles." Econometrica 46(1), 33-50.
    """

    _options = {"quantile": (0.5, Interval(Real, 0, 1, closed="neither"))}

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        import torch

        _check_shapes(self, outputs, targets)
        error = targets - outputs
        return torch.maximum(self.quantile * error, (self.quantile - 1) * error).mean(dim=1)


def _check_shapes(loss, outputs, targets):
    """Raise unless targets have the shape of the outputs: broadcasting would compare every row with every other."""
    if outputs.shape != targets.shape:
        raise ValueError(
            f"{type(loss).__name__}: targets of shape {tuple(targets.shape)} do not match outputs of shape "
            f"{tuple(outputs.shape)}."
        )


LOSSES = {
    "binary_cross_entropy": BinaryCrossEntropy,
    "cross_entropy": CrossEntropy,
    "focal": Focal,
    "huber": Huber,
    "quantile": Quantile,
    "squared": Squared,
}


def make_loss(name, **options):
    """Return a loss by its name.

    Parameters
    ----------
    name : {"binary_cross_entropy", "cross_entropy", "focal", "huber", "quantile", "squared"}
        Name of the loss.

    **options : dict
        Options of the loss: ``label_smoothing`` of both cross-entropies (default 0), ``gamma`` of "focal"
        (2), ``delta`` of "huber" (1), ``quantile`` of "quantile" (0.5).

    Returns
    -------
    loss : Loss
        Called with outputs, targets and weights it returns a scalar tensor.

    Raises
    ------
    ValueError
        If the name is unknown, the loss has no such option, or its value is out of range.

    Examples
    --------
    >>> import torch
    >>> from skmm.neural_network.network import make_loss
    >>> loss = make_loss("quantile", quantile=0.9)
    >>> loss(torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]]), torch.tensor([3.0, 1.0]))
    tensor(0.7000)
    """
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)}, got {name!r}.")
    return LOSSES[name](**options)
