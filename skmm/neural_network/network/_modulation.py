"""On-the-fly gradient modulation: a modality that is ahead learns more slowly until the others have caught up."""

from numbers import Real
from typing import TYPE_CHECKING

from sklearn.base import BaseEstimator

from ..._sklearn import Interval

if TYPE_CHECKING:
    import torch


class GradientModulation(BaseEstimator):
    r"""Slow the layers of a modality down while it is ahead of the others.

    Once a strong modality explains the target, little error is left to learn from, and layers of a weak one stay
    undertrained. On-the-fly gradient modulation with generalisation enhancement (OGM-GE) [1]_ measures in every batch
    how well each modality does alone. With :math:`s_m` its score, the discrepancy is

    .. math:: \rho_m = s_m \Big/ \frac{1}{M - 1} \sum_{l \neq m} s_l

    and the steps of its layers are multiplied by

    .. math:: k_m = 1 - \tanh(\alpha \rho_m) \text{ if } \rho_m > 1, \text{ else } 1.

    For two modalities this is the paper's; the mean over all others is its extension to more. The layers of the fusion
    and behind it keep their steps. The paper multiplies gradients, which in its plain gradient descent is the same as
    multiplying steps; AdamW divides gradients by their size, which would undo it.

    Parameters
    ----------
    alpha : float, default=0.5
        Strength; 0 changes nothing.

    noise : bool, default=True
        Whether the gradients of modalities that are slowed down get Gaussian noise of their own standard deviation,
        which the paper adds for the sake of generalisation.

    Raises
    ------
    ValueError
        By ``fit`` of the network if ``alpha`` is negative.

    See Also
    --------
    MultimodalNetClassifier : Takes it as ``modulation``.

    Notes
    -----
    **Limits.** The benefit is shown here on one case only, which was built for it: synthetic data whose strong modality
    leaves almost no loss to the weak one, which then answers better alone than after training without modulation. On
    real data no gain has been measured; compare scores with and without before relying on it.

    A modality's score is the weighted mean of exp(-cost) over the rows that have it, with the cost of the row's output
    when all other modalities are missing. Under cross-entropy that is the probability of the true class, as in the
    paper, whose linear fusion makes that output by leaving out the other terms; other losses, and other
    fusions, get their score the same way. A modality that no row of the batch has is neither slowed down nor compared
    with.

    References
    ----------
    .. [1] Peng, X., Wei, Y., Deng, A., Wang, D. and Hu, D. (2022). "Balanced Multimodal Learning via On-the-fly
       Gradient Modulation." CVPR, 8238-8247.

    Examples
    --------
    >>> import torch
    >>> from skmm.neural_network import GradientModulation
    >>> GradientModulation(alpha=0.5).coefficients(torch.tensor([0.8, 0.4])).round(decimals=2)
    tensor([0.2400, 1.0000])
    """

    _parameter_constraints: dict = {"alpha": [Interval(Real, 0, None, closed="left")], "noise": ["boolean"]}

    def __init__(self, alpha: float = 0.5, *, noise: bool = True):
        self.alpha = alpha
        self.noise = noise

    def coefficients(self, scores: "torch.Tensor") -> "torch.Tensor":
        """Return the factor on the steps of each modality's layers.

        Parameters
        ----------
        scores : Tensor of shape (n_modalities,)
            Score of each modality alone, above 0; NaN for one that no row has.

        Returns
        -------
        coefficients : Tensor of shape (n_modalities,)
            From 0 to 1.
        """
        present = ~scores.isnan()
        n_others = (present.sum() - present.to(scores.dtype)).clamp(min=1)
        filled = scores.nan_to_num()
        ratios = filled * n_others / (filled.sum() - filled)
        # The ratio is infinite where all others score 0 or are missing: nothing to be ahead of.
        ahead = present & (ratios > 1) & ratios.isfinite()
        return scores.new_ones(()).where(~ahead, 1 - (self.alpha * ratios).tanh())

    def scores(self, network, hiddens, mask, targets, weights, criterion):
        """Return how well each modality predicts alone in a batch.

        Parameters
        ----------
        network : Network
            Has ``outputs_of(hiddens, mask)``, which returns outputs for the hidden vectors of the modalities.

        hiddens : list of Tensor of shape (n_samples, width)
            Hidden vectors of each modality.

        mask : Tensor of shape (n_samples, n_modalities) or None
            True where a modality is present; None if nothing is missing.

        targets : Tensor
            What the criterion takes.

        weights : Tensor of shape (n_samples,) or None
            Weights of the rows.

        criterion : Loss
            Its ``rows(outputs, targets)`` returns the cost of each row.

        Returns
        -------
        scores : Tensor of shape (n_modalities,)
            From 0 to 1 for losses that are not negative, NaN for a modality that is in no row of positive weight.
        """
        import torch

        was_training = network.training
        with torch.no_grad():
            # Without dropout, and without a change of running statistics.
            network.eval()
            n_samples, n_modalities = len(hiddens[0]), len(hiddens)
            present = hiddens[0].new_ones(n_samples, n_modalities, dtype=torch.bool) if mask is None else mask
            scores = []
            for m in range(n_modalities):
                alone = torch.zeros_like(present)
                alone[:, m] = present[:, m]
                single = [hidden if i == m else torch.zeros_like(hidden) for i, hidden in enumerate(hiddens)]
                costs = criterion.rows(network.outputs_of(single, alone), targets)
                row_weights = alone[:, m] if weights is None else alone[:, m] * weights
                scores.append((row_weights * (-costs).exp()).sum() / row_weights.sum())
            network.train(was_training)
            return torch.stack(scores)

    def add_noise(self, layers, coefficients, generator=None):
        """Add noise to the gradients of layers that are slowed down.

        Parameters
        ----------
        layers : iterable of sequence of torch.nn.Module
            The layers of each modality.

        coefficients : sequence of float
            Factors on their steps.

        generator : torch.Generator or None, default=None
            Draws the noise; None is torch's global generator.
        """
        import torch

        if not self.noise:
            return
        for modules, coefficient in zip(layers, coefficients, strict=True):
            gradients = [weights.grad for module in modules for weights in module.parameters()]
            for gradient in gradients if coefficient < 1 else ():
                if gradient is not None:
                    noise = torch.empty_like(gradient).normal_(generator=generator)
                    # The shorter step shortens the noise as well; in the paper it does not, and is that much louder.
                    gradient.add_(noise * gradient.std(correction=0))
