"""What y is (classes, several labels, numbers), and how answers of members are aligned with it.

The answers of one member to one method are a matrix with one row per sample. Its columns depend on the
target and the method alone, never on the classes that the member happened to see:

=====================  ==============================  ============  ==============
method                 classes                         labels        numbers
=====================  ==============================  ============  ==============
``predict_proba``      one per class                   P(label)
``decision_function``  one per class, 1 if binary      one per label
``predict``            1, position of the class        one per label  one per output
=====================  ==============================  ============  ==============
"""

import numpy as np
from sklearn.base import is_regressor
from sklearn.dummy import DummyClassifier, DummyRegressor


def weighted_mean(values, sample_weight=None):
    """Return the mean over rows; weights that are all zero count as none."""
    if sample_weight is not None and not np.any(sample_weight):
        sample_weight = None
    return np.average(values, axis=0, weights=sample_weight)


class ClassTarget:
    """One class per row, or several labels that are 0 or 1; y is the target of all rows."""

    def __init__(self, y):
        self.multilabel = y.ndim == 2
        self.classes = [np.array([0, 1])] * y.shape[1] if self.multilabel else [np.unique(y)]

    @property
    def public_classes(self):
        """Value for ``classes_``: an array, or a list with one array per label."""
        return self.classes if self.multilabel else self.classes[0]

    @property
    def binary(self):
        """Whether there is one class per row and two classes in all."""
        return not self.multilabel and len(self.classes[0]) == 2

    def encode(self, y):
        """Return positions in the classes, of shape (n_samples, n_labels)."""
        if self.multilabel:
            return np.asarray(y).astype(int)
        classes, y = self.classes[0], np.asarray(y)
        codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
        unknown = classes[codes] != y
        if unknown.any():
            raise ValueError(
                f"A member predicted the class {str(y[unknown][0])!r}, which y does not have; its classes are "
                f"{classes.tolist()}: fit all members on these."
            )
        return codes[:, None]

    def decode(self, codes):
        """Return the classes at positions of shape (n_samples, n_labels)."""
        return codes if self.multilabel else self.decode_column(codes[:, 0])

    def decode_column(self, codes):
        """Return the classes at positions of shape (n_samples,), of one label."""
        return codes if self.multilabel else self.classes[0][codes]

    def one_hot(self, codes):
        """Return 1 at each position and 0 elsewhere, of shape (n_samples, n_labels, n_classes)."""
        return np.eye(len(self.classes[0]))[codes]

    def prior(self, y, sample_weight=None):
        """Return the frequencies of the classes, of shape (n_labels, n_classes)."""
        return weighted_mean(self.one_hot(self.encode(y)), sample_weight)

    def prior_prediction(self, prior):
        """Return what ``predict`` answers in a row without any modality, of shape (1,) or (1, n_labels)."""
        return self.decode(np.argmax(prior, axis=1)[None])

    def prior_answer(self, prior, method, numeric=False):
        """Return the answer that the prior alone gives, of shape (n_columns,)."""
        if numeric:
            return prior @ np.arange(prior.shape[1])
        if method == "predict":
            return np.argmax(prior, axis=1).astype(float)
        answer = prior[:, 1] if self.multilabel else prior[0]
        if method == "decision_function":
            # The sign says what the prior says, at the scale of a margin.
            answer = 2 * answer - 1
            return answer[1:] if self.binary else answer
        return answer

    def cube(self, answers, method):
        """Turn aligned answers into shape (n_samples, n_labels, n_classes); votes count 1."""
        if method == "predict":
            present = ~np.isnan(answers[:, 0])
            votes = np.full((*answers.shape, len(self.classes[0])), np.nan)
            votes[present] = self.one_hot(answers[present].astype(int))
            return votes
        if self.multilabel:
            return np.stack([1 - answers, answers], axis=-1)
        return answers[:, None, :]

    def public_proba(self, cube):
        """Return probabilities as ``predict_proba`` does: a matrix, or for several labels a list of matrices."""
        return [cube[:, label] for label in range(cube.shape[1])] if self.multilabel else cube[:, 0]

    def suffixes(self, method, numeric=False):
        """Return what tells the columns of one member apart; None for a single column that stands for no class."""
        if self.multilabel:
            return [str(label) for label in range(len(self.classes))]
        if method == "predict" or numeric:
            return [None]
        classes = self.classes[0]
        if method == "decision_function" and self.binary:
            classes = classes[1:]
        return [str(label) for label in classes]

    def to_fit(self, y, member):
        """Return y as a member is fitted on it: a regressor gets the positions of the classes."""
        return self.encode(y)[:, 0] if is_regressor(member) and not self.multilabel else y

    def varying(self, y):
        """Return the positions of the labels that have more than one class in these rows."""
        if self.multilabel:
            return np.flatnonzero(y.min(axis=0) != y.max(axis=0))
        return np.flatnonzero([np.any(y != y[0])])

    def dummy(self, y):
        """Return a fitted estimator that always answers with the prior of y."""
        return DummyClassifier(strategy="prior").fit(np.zeros((len(y), 1)), y)

    def align(self, answers, estimator, method, labels=None, prior=None):
        """Return what a method of a fitted estimator answered, with columns as in the table of this module.

        A class that the estimator has not seen has probability 0, and the lowest score of the row. ``labels`` are the
        positions of the labels that it was fitted on, None for all; the prior answers for the others.
        """
        if not self.multilabel:
            if is_regressor(estimator):
                return np.asarray(answers, dtype=float).reshape(len(answers), -1)
            if method == "predict":
                return self.encode(answers)
            return self._align_classes(np.asarray(answers), estimator, method)
        if labels is None:
            return _label_columns(answers, estimator)
        n_samples = len(answers[0]) if isinstance(answers, list) else len(answers)
        aligned = np.tile(self.prior_answer(prior, method), (n_samples, 1))
        aligned[:, labels] = _label_columns(answers, estimator, single=len(labels) == 1)
        return aligned

    def _align_classes(self, answers, estimator, method):
        classes, seen = self.classes[0], np.asarray(getattr(estimator, "classes_", self.classes[0]))
        if method == "decision_function" and answers.ndim == 1:
            if np.array_equal(seen, classes):
                return answers[:, None]
            answers = np.column_stack([-answers, answers])
        if np.array_equal(seen, classes):
            return answers
        if answers.shape[1] != len(seen):
            raise ValueError(
                f"{type(estimator).__name__}.{method} gave {answers.shape[1]} columns for {len(seen)} classes, "
                "so they cannot be told apart; for SVC use decision_function_shape='ovr'."
            )
        in_target = np.isin(seen, classes)
        lowest = answers.min(axis=1, keepdims=True) if method == "decision_function" else 0
        aligned = np.zeros((len(answers), len(classes)), dtype=answers.dtype) + lowest
        aligned[:, np.searchsorted(classes, seen[in_target])] = answers[:, in_target]
        return aligned[:, 1:] if method == "decision_function" and self.binary else aligned


def _label_columns(answers, estimator, single=False):
    """Return one column per label; an estimator of a ``single`` label has the classes 0 and 1."""
    if isinstance(answers, list):
        columns = [
            answer[:, list(classes).index(1)] if 1 in classes else np.zeros(len(answer))
            for answer, classes in zip(answers, estimator.classes_, strict=True)
        ]
        return np.column_stack(columns)
    answers = np.asarray(answers)
    if single and answers.ndim == 2:
        return answers[:, 1:]
    return answers.reshape(len(answers), -1)


class RealTarget:
    """One number per row, or several; y is the target of all rows."""

    def __init__(self, y):
        self.n_outputs = None if y.ndim == 1 else y.shape[1]

    def prior(self, y, sample_weight=None):
        """Return the mean of each output."""
        return np.atleast_1d(weighted_mean(y, sample_weight))

    def prior_prediction(self, prior):
        """Return what ``predict`` answers in a row without any modality, of shape (1,) or (1, n_outputs)."""
        return self.flat(prior[None])

    def prior_answer(self, prior, method, numeric=True):
        """Return the answer that the means alone give."""
        return prior

    def flat(self, values):
        """Return predictions in the shape of y."""
        return values[:, 0] if self.n_outputs is None else values

    def suffixes(self, method, numeric=True):
        """Return what tells the columns of one member apart; None for a single one."""
        return [None] if self.n_outputs is None else [str(output) for output in range(self.n_outputs)]

    def to_fit(self, y, member):
        """Return y as a member is fitted on it."""
        return y

    def varying(self, y):
        """Return the positions of the outputs that need a fit: all."""
        return np.arange(self.n_outputs or 1)

    def dummy(self, y):
        """Return a fitted estimator that always answers with the mean of y."""
        return DummyRegressor().fit(np.zeros((len(y), 1)), y)

    def align(self, answers, estimator, method, labels=None, prior=None):
        """Return predictions with one column per output."""
        return np.asarray(answers, dtype=float).reshape(len(answers), -1)
