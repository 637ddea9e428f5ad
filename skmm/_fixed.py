"""Estimators that return predictions made already, since scorers ask for an estimator."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin


class FixedNumbers(RegressorMixin, BaseEstimator):
    """Regressor that predicts the output it holds, whatever X is.

    Parameters
    ----------
    output : ndarray of shape (n_samples,) or None
        Predictions.
    """

    def __init__(self, output=None):
        self.output = output

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        return self.output


class FixedClasses(ClassifierMixin, BaseEstimator):
    """Classifier that predicts the probabilities it holds, whatever X is.

    Parameters
    ----------
    output : ndarray of shape (n_samples, n_classes) or None
        Probabilities, in the order of the classes.

    classes : ndarray of shape (n_classes,)
        The classes.
    """

    def __init__(self, output=None, classes=None):
        self.output = output
        self.classes = classes

    @property
    def classes_(self):
        return self.classes

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        return self.classes[np.argmax(self.output, axis=1)]

    def predict_proba(self, X):
        # Scorers want rows that sum to 1.
        return self.output / self.output.sum(axis=1, keepdims=True)
