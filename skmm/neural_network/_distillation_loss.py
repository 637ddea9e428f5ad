"""What a student is taught: targets beside a teacher's logits and the loss of both, or numbers of both."""

import numpy as np
from scipy.special import logit

from ._outputs import ClassOutputs

# Bound on a teacher's probabilities, whose logarithms must stay finite.
_LEAST = 1e-7


class SoftTargets:
    """Outputs of a classifier, as :class:`ClassOutputs`, for a y that holds class numbers and a teacher's logits.

    Parameters
    ----------
    outputs : ClassOutputs
        What the outputs mean.
    """

    def __init__(self, outputs):
        self.outputs = outputs
        self.independent = outputs.independent
        self.n_outputs = outputs.n_outputs

    @classmethod
    def of(cls, teacher, X, y):
        """Give the targets of rows, and their y: numbers of the classes, then logits."""
        proba = teacher.predict_proba(X)
        classes = teacher.classes_
        multilabel = isinstance(proba, list)
        if multilabel:
            if not all(np.array_equal(own, [0, 1]) for own in classes):
                found = [np.asarray(own).tolist() for own in classes]
                raise ValueError(f"distill: each of several labels has the classes 0 and 1, the teacher's are {found}.")
            logits = np.column_stack([logit(np.clip(p[:, 1], _LEAST, 1 - _LEAST)) for p in proba])
            outputs = ClassOutputs(np.zeros((1, len(proba)), dtype=int))
        else:
            if not np.allclose(proba.sum(axis=1), 1, atol=1e-3):
                raise ValueError(
                    "distill: the teacher's probabilities of the classes do not sum to 1 in each row; of several "
                    "labels they are a list with one array per label."
                )
            outputs = ClassOutputs(np.asarray(classes))
            clipped = np.clip(proba, _LEAST, 1 - _LEAST)
            logits = logit(clipped[:, 1:]) if outputs.independent else np.log(clipped)
        if y is None:
            # What the teacher would predict, without asking it again.
            y = (logits > 0).astype(int) if multilabel else np.asarray(classes)[proba.argmax(axis=1)]
        codes = outputs.encode(np.asarray(y), "distill", "float64")
        if len(codes) != len(logits):
            raise ValueError(f"distill: X has {len(logits)} rows, y has {len(codes)}.")
        return cls(outputs), np.column_stack([codes, logits])

    def classes_of(self, y):
        """Give the classes of rows, for their weights."""
        codes = y[:, : -self.n_outputs].astype(int)
        return codes if self.outputs.multilabel else self.outputs.classes[codes[:, 0]]

    def encode(self, y, owner, dtype):
        """Give class numbers, or 0 and 1 in the shape of the outputs, and the logits."""
        codes, logits = y[:, : -self.n_outputs], y[:, -self.n_outputs :].astype(dtype)
        return codes.astype(dtype) if self.independent else codes[:, 0].astype(np.int64), logits

    def strata(self, targets):
        """Give the classes, for they come as equals to any split."""
        return None if self.outputs.multilabel else np.ravel(targets[0])

    def prior(self, targets, weights):
        """Give the outputs that stand for the frequencies in the data."""
        return self.outputs.prior(targets[0], weights)


def blend(taught, y, alpha):
    """Give the numbers that a student learns: a teacher's, in part or whole."""
    taught = np.asarray(taught, dtype=np.float64)
    if alpha == 1:
        return taught
    y = np.asarray(y)
    if y.shape != taught.shape:
        raise ValueError(f"distill: y has the shape {y.shape}, the teacher's predictions have {taught.shape}.")
    return alpha * taught + (1 - alpha) * y


class StudentLoss:
    """The loss of a student: of a teacher's probabilities, softened by a temperature, and of the classes.

    Parameters
    ----------
    hard : callable
        Loss of the classes.

    temperature : float
        What logits are divided by.

    alpha : float
        Share of the teacher's part.

    independent : bool
        Whether each output has a sigmoid of its own, instead of one softmax.
    """

    def __init__(self, hard, temperature, alpha, independent):
        self.hard = hard
        self.temperature = temperature
        self.alpha = alpha
        self.independent = independent

    def soft_rows(self, outputs, logits):
        """Give the cost of each row beside the teacher's logits."""
        from torch.nn import functional

        outputs, logits = outputs / self.temperature, logits / self.temperature
        if self.independent:
            costs = functional.binary_cross_entropy_with_logits(outputs, logits.sigmoid(), reduction="none").mean(dim=1)
        else:
            costs = functional.cross_entropy(outputs, logits.softmax(dim=1), reduction="none")
        # Gradients shrink with the square of the temperature.
        return self.temperature**2 * costs

    def rows(self, outputs, targets):
        """Give the cost of each row, a tensor of shape (n_samples,)."""
        classes, logits = targets
        return self.alpha * self.soft_rows(outputs, logits) + (1 - self.alpha) * self.hard.rows(outputs, classes)

    def __call__(self, outputs, targets, weights=None):
        """Give the weighted mean of the costs, a scalar tensor."""
        classes, logits = targets
        costs = self.soft_rows(outputs, logits)
        soft = costs.mean() if weights is None else (weights * costs).sum() / weights.sum()
        return self.alpha * soft + (1 - self.alpha) * self.hard(outputs, classes, weights)
