"""Distillation: a student with fewer modalities learns from the predictions of a teacher that has them all."""

from numbers import Real

import numpy as np
from scipy.special import logit
from sklearn.base import clone, is_classifier
from sklearn.utils.validation import check_is_fitted

from .._sklearn import Interval, StrOptions, validate_params
from .._typing import Items, Table
from ._classifier import MultimodalNetClassifier
from ._outputs import ClassOutputs
from ._regressor import MultimodalNetRegressor
from .multitask import MultimodalNetMultiTask
from .network import weighted_mean

# Bound on a teacher's probabilities, whose logarithms must stay finite.
_MIN_PROBABILITY = 1e-7


@validate_params(
    {
        "modalities": [list, tuple, None],
        "student": [MultimodalNetClassifier, MultimodalNetRegressor, None],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both")],
    },
    prefer_skip_nested_validation=False,
)
def distill(
    teacher: object,
    X: Table,
    y: Items = None,
    *,
    modalities: list[str] | None = None,
    student: MultimodalNetClassifier | MultimodalNetRegressor | None = None,
    temperature: float = 2.0,
    alpha: float | str = "auto",
    sample_weight: Items = None,
) -> MultimodalNetClassifier | MultimodalNetRegressor:
    r"""Train a network on some of the modalities with the predictions of a teacher that has all of them.

    Knowledge distillation [1]_: the student learns from the teacher's probabilities, which carry more information than
    the class of a row and need no label. With logits :math:`z` of the student and :math:`t` of the teacher, both
    divided by the temperature :math:`T`, its loss is

    .. math:: \alpha T^2 \, \mathrm{CE}\big(\sigma(t / T), \sigma(z / T)\big) + (1 - \alpha) \, L(y, z).

    Numbers have no temperature: a student of a regressor learns :math:`\alpha \hat y + (1 - \alpha) y` with
    :math:`\hat y` from the teacher.

    Parameters
    ----------
    teacher : estimator
        Fitted classifier with ``predict_proba``, or regressor: a network, a pipeline or any other estimator. For
        several labels, ``predict_proba`` must return a list with one array per label, for the classes 0 and 1.

    X : DataFrame or array-like of shape (n_samples, n_features)
        Rows to teach with, with all columns of the teacher. They need not be the rows it was fitted on.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Targets, if they are known. Transformers of the student that learn from y get these, or else the classes that
        the teacher predicts.

    modalities : list of str, default=None
        Names of the teacher's modalities that the student has; None if ``student`` is passed.

    student : MultimodalNetClassifier or MultimodalNetRegressor, default=None
        Network to train a clone of. None takes the teacher's parameters with ``modalities`` only, for which it must be
        such a network.

    temperature : float, default=2.0
        Divisor of the logits; the higher, the more the small probabilities of the teacher count.

    alpha : float or "auto", default="auto"
        Share of the teacher's predictions in the loss, from 0 to 1. "auto" is 0.5, or 1 without ``y``.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    student : MultimodalNetClassifier or MultimodalNetRegressor
        The fitted student. It predicts from its modalities; other columns of X are ignored.

    Raises
    ------
    ValueError
        If neither or both of ``modalities`` and ``student`` are passed, a name is not one of the teacher's, or
        ``alpha`` is below 1 without ``y``, or ``y`` or the teacher's probabilities are not of the expected form.

    TypeError
        If the teacher has no ``predict_proba`` or several tasks, or is no network and ``student`` is None.

    References
    ----------
    .. [1] Hinton, G., Vinyals, O. and Dean, J. (2015). "Distilling the Knowledge in a Neural Network." NIPS Deep
       Learning and Representation Learning Workshop.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skmm.neural_network import MultimodalNetClassifier, distill
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> halves = [("upper", "passthrough", slice(0, 32)), ("lower", "passthrough", slice(32, 64))]
    >>> teacher = MultimodalNetClassifier(halves, width=32, max_epochs=30, random_state=0).fit(X, y)
    >>> student = distill(teacher, X, modalities=["lower"])
    >>> student.score(X, y) > 0.9
    True
    """
    check_is_fitted(teacher)
    student = _choose_student(teacher, modalities, student)
    if alpha == "auto":
        alpha = 1.0 if y is None else 0.5
    if y is None and alpha < 1:
        raise ValueError(f"distill: alpha={alpha} needs labels, but y is None; pass y, or alpha=1.")
    if isinstance(student, MultimodalNetRegressor):
        return student.fit(X, blend(teacher.predict(X), y, alpha), sample_weight)
    soft, targets = SoftTargets.of(teacher, X, y)
    trained = Student.__new__(Student)
    # Parameters, callbacks and metadata requests.
    vars(trained).update(vars(student), _soft=soft, _temperature=temperature, _alpha=alpha)
    trained.fit(X, targets, sample_weight)
    # Return a plain network with the fitted attributes.
    state = {name: value for name, value in vars(trained).items() if name not in ("_soft", "_temperature", "_alpha")}
    vars(student).update(state, _outputs=soft.outputs)
    return student


def _choose_student(teacher, modalities, student):
    """Return an unfitted student for the teacher."""
    if (modalities is None) == (student is None):
        raise ValueError("distill: pass either modalities, names of those the student has, or student, a network.")
    if isinstance(teacher, MultimodalNetMultiTask):
        raise TypeError(
            "distill: a MultimodalNetMultiTask has several tasks, but a student has one; pass a teacher with a "
            "single task."
        )
    cls = MultimodalNetClassifier if is_classifier(teacher) else MultimodalNetRegressor
    if cls is MultimodalNetClassifier and not hasattr(teacher, "predict_proba"):
        raise TypeError(
            f"distill: {type(teacher).__name__} has no predict_proba; pass a teacher that "
            "has, such as a CalibratedClassifierCV of it."
        )
    if student is not None:
        if not isinstance(student, cls):
            raise TypeError(
                f"distill: {type(teacher).__name__} teaches a {cls.__name__}, got a {type(student).__name__}; "
                f"pass student={cls.__name__}(...)."
            )
        return clone(student)
    if not isinstance(teacher, cls):
        raise TypeError(
            f"distill: a {type(teacher).__name__} has no parameters for a network; pass student=, a {cls.__name__}."
        )
    names = [name for name, _, _ in teacher.modalities_]
    unknown = [name for name in modalities if name not in names]
    if unknown or not modalities:
        raise ValueError(f"distill: modalities are some of the teacher's, {names}, got {list(modalities)}.")
    chosen = [entry for entry in teacher.modalities if entry[0] in modalities]
    return clone(teacher).set_params(modalities=chosen)


class Student(MultimodalNetClassifier):
    """A classifier whose targets are classes and, beside them, the logits of a teacher.

    Its y has one row per sample: the numbers of the classes, then the logits.
    """

    def _check_y(self, X, y, *, reset=False):
        return y

    def _weigh(self, y, sample_weight):
        return super()._weigh(self._soft.classes_of(y), sample_weight)

    def _fit_inputs(self, X, y, weights, progress):
        # Transformers that learn from y, such as a TunedEncoder, are for classes.
        return super()._fit_inputs(X, self._soft.classes_of(y), weights, progress)

    def _make_outputs(self, y, weights, classes):
        self.classes_ = self._soft.outputs.public_classes
        return self._soft

    def _make_criterion(self):
        return StudentLoss(super()._make_criterion(), self._temperature, self._alpha, self._soft.independent)


class SoftTargets:
    """Outputs of a classifier, as :class:`ClassOutputs`, for a y that holds class numbers and a teacher's logits.

    Parameters
    ----------
    outputs : ClassOutputs
        Meaning of the outputs.
    """

    def __init__(self, outputs):
        self.outputs = outputs
        self.independent = outputs.independent
        self.n_outputs = outputs.n_outputs

    @classmethod
    def of(cls, teacher, X, y):
        """Return the targets, and y for the student: numbers of the classes, then logits."""
        proba = teacher.predict_proba(X)
        classes = teacher.classes_
        multilabel = isinstance(proba, list)
        if multilabel:
            if not all(np.array_equal(label, [0, 1]) for label in classes):
                got = [np.asarray(label).tolist() for label in classes]
                raise ValueError(
                    f"distill: each of several labels has the classes 0 and 1, the teacher's are {got}; "
                    "fit the teacher on a matrix of 0 and 1."
                )
            logits = np.column_stack([logit(np.clip(p[:, 1], _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)) for p in proba])
            outputs = ClassOutputs(np.zeros((1, len(proba)), dtype=int))
        else:
            if not np.allclose(proba.sum(axis=1), 1, atol=1e-3):
                raise ValueError(
                    "distill: the teacher's probabilities of the classes do not sum to 1 in each row; for several "
                    "labels predict_proba must return a list with one array per label."
                )
            outputs = ClassOutputs(np.asarray(classes))
            clipped = np.clip(proba, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
            logits = logit(clipped[:, 1:]) if outputs.independent else np.log(clipped)
        if y is None:
            # The teacher's predictions, from its probabilities.
            y = (logits > 0).astype(int) if multilabel else np.asarray(classes)[proba.argmax(axis=1)]
        codes = outputs.encode(np.asarray(y), "distill", "float64")
        if len(codes) != len(logits):
            raise ValueError(f"distill: X has {len(logits)} rows, y has {len(codes)}; pass one target for each row.")
        return cls(outputs), np.column_stack([codes, logits])

    def classes_of(self, y):
        """Return the classes of rows, for their weights."""
        codes = y[:, : -self.n_outputs].astype(int)
        return codes if self.outputs.multilabel else self.outputs.classes[codes[:, 0]]

    def encode(self, y, owner, dtype):
        """Return class numbers, or 0 and 1 in the shape of the outputs, and the logits."""
        codes, logits = y[:, : -self.n_outputs], y[:, -self.n_outputs :].astype(dtype)
        return codes.astype(dtype) if self.independent else codes[:, 0].astype(np.int64), logits

    def strata(self, targets):
        """Return the classes, whose shares a split preserves; None for several labels."""
        return None if self.outputs.multilabel else np.ravel(targets[0])

    def prior(self, targets, weights):
        """Return the outputs that predict the class frequencies of the data."""
        return self.outputs.prior(targets[0], weights)


def blend(predictions, y, alpha):
    """Return the target of a student of numbers: a mean of the teacher's predictions and y."""
    predictions = np.asarray(predictions, dtype=np.float64)
    if alpha == 1:
        return predictions
    y = np.asarray(y)
    if y.shape != predictions.shape:
        raise ValueError(
            f"distill: y has the shape {y.shape}, the teacher's predictions have {predictions.shape}; "
            "pass y in the shape of the predictions."
        )
    return alpha * predictions + (1 - alpha) * y


class StudentLoss:
    """The loss of a student: ``alpha`` times that of the teacher's softened probabilities, the rest of the classes.

    Parameters
    ----------
    hard : callable
        Loss of the classes.

    temperature : float
        Divisor of the logits.

    alpha : float
        Share of the teacher's predictions.

    independent : bool
        Whether each output has a sigmoid, instead of one softmax over all.
    """

    def __init__(self, hard, temperature, alpha, independent):
        self.hard = hard
        self.temperature = temperature
        self.alpha = alpha
        self.independent = independent

    def soft_rows(self, outputs, logits):
        """Return the cost of each row against the teacher's logits."""
        from torch.nn import functional

        outputs, logits = outputs / self.temperature, logits / self.temperature
        if self.independent:
            costs = functional.binary_cross_entropy_with_logits(outputs, logits.sigmoid(), reduction="none").mean(dim=1)
        else:
            costs = functional.cross_entropy(outputs, logits.softmax(dim=1), reduction="none")
        # Gradients shrink with the square of the temperature.
        return self.temperature**2 * costs

    def rows(self, outputs, targets):
        """Return the cost of each row, a tensor of shape (n_samples,)."""
        classes, logits = targets
        return self.alpha * self.soft_rows(outputs, logits) + (1 - self.alpha) * self.hard.rows(outputs, classes)

    def __call__(self, outputs, targets, weights=None):
        """Return the weighted mean of the costs, a scalar tensor."""
        classes, logits = targets
        soft = weighted_mean(self.soft_rows(outputs, logits), weights)
        return self.alpha * soft + (1 - self.alpha) * self.hard(outputs, classes, weights)
