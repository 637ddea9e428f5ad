"""Meaning of a network's outputs: targets from y, and predictions from outputs."""

import numpy as np
from scipy.special import expit, softmax


class ClassOutputs:
    """Outputs of a classifier: one logit per class, one for two classes, one per label of a multilabel y.

    Parameters
    ----------
    y : ndarray of shape (n_samples,) or (n_samples, n_labels)
        Classes, or a matrix of 0 and 1.
    """

    def __init__(self, y):
        self.multilabel = y.ndim == 2
        self.classes = np.array([0, 1]) if self.multilabel else np.unique(y)
        self.n_labels = y.shape[1] if self.multilabel else 1
        # A sigmoid for each of these outputs, else one softmax over all.
        self.independent = self.multilabel or len(self.classes) == 2
        self.n_outputs = self.n_labels if self.independent else len(self.classes)

    @property
    def public_classes(self):
        """Value for ``classes_``: an array, or a list with one array per label."""
        return [self.classes] * self.n_labels if self.multilabel else self.classes

    def encode(self, y, owner, dtype):
        """Return targets: class numbers of shape (n_samples,), or 0 and 1 of shape (n_samples, n_outputs)."""
        y = np.asarray(y)
        if (y.ndim == 2) != self.multilabel or (self.multilabel and y.shape[1] != self.n_labels):
            raise ValueError(
                f"{owner}: y of shape {y.shape} differs from that of the first fit, "
                f"{f'{self.n_labels} labels' if self.multilabel else 'one class per row'}; "
                "pass y in that form, or fit a new network."
            )
        codes = np.minimum(np.searchsorted(self.classes, y), len(self.classes) - 1)
        unknown = self.classes[codes] != y
        if unknown.any():
            raise ValueError(
                f"{owner}: y has the class {str(y[unknown][0])!r}, which the network does not have; its classes are "
                f"{self.classes.tolist()}; fit a new network, or pass all classes in the first partial_fit."
            )
        return codes.reshape(-1, self.n_outputs).astype(dtype) if self.independent else codes.astype(np.int64)

    def strata(self, targets):
        """Return the classes whose shares a split preserves, of shape (n_samples,), or None."""
        return None if self.multilabel else np.ravel(targets)

    def prior(self, targets, weights):
        """Return the outputs of shape (n_outputs,) that predict the class frequencies of the data."""
        if not self.independent:
            targets = np.eye(self.n_outputs)[targets]
        share = np.average(targets, axis=0, weights=weights)
        tiny = np.finfo(np.float64).tiny
        log_share = np.log(np.maximum(share, tiny))
        return log_share - np.log(np.maximum(1 - share, tiny)) if self.independent else log_share

    def predict(self, outputs):
        """Return classes; the first one of a tie."""
        if self.multilabel:
            return (outputs > 0).astype(int)
        codes = (outputs[:, 0] > 0).astype(int) if self.independent else outputs.argmax(axis=1)
        return self.classes[codes]

    def decision(self, outputs):
        """Return logits in the form of ``decision_function``."""
        return outputs[:, 0] if self.independent and not self.multilabel else outputs

    def proba(self, outputs):
        """Return probabilities in the form of ``predict_proba``: a matrix, or a list of matrices for several labels."""
        if not self.independent:
            return softmax(outputs, axis=1)
        pairs = [np.column_stack([expit(-column), expit(column)]) for column in outputs.T]
        return pairs if self.multilabel else pairs[0]


class NumberOutputs:
    """Outputs of a regressor: one per column of y, for numbers of mean 0 and variance 1.

    Parameters
    ----------
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The target.

    weights : ndarray of shape (n_samples,) or None
        Weights of the rows.
    """

    def __init__(self, y, weights):
        self.shape = y.shape[1:]
        self.means = np.average(y, axis=0, weights=weights)
        scales = np.sqrt(np.average((y - self.means) ** 2, axis=0, weights=weights))
        # The deviation of a constant is 0 up to rounding.
        self.scales = np.where(scales > 1e-10 * np.abs(self.means), scales, 1.0)
        self.n_outputs = self.shape[0] if self.shape else 1

    def encode(self, y, owner, dtype):
        """Return targets of shape (n_samples, n_outputs)."""
        y = np.asarray(y, dtype=np.float64)
        if y.shape[1:] != self.shape:
            raise ValueError(
                f"{owner}: y of shape {y.shape} does not have the {self.n_outputs} outputs of the first fit; pass "
                "all of them, or fit a new network."
            )
        return ((y - self.means) / self.scales).reshape(-1, self.n_outputs).astype(dtype)

    def strata(self, targets):
        """Return None: numbers have no shares to preserve."""

    def prior(self, targets, weights):
        """Return the outputs of shape (n_outputs,) that predict the mean."""
        return np.zeros(self.n_outputs)

    def predict(self, outputs):
        """Return numbers in the form of y."""
        return (outputs.reshape(len(outputs), *self.shape) * self.scales + self.means).astype(outputs.dtype)
