"""Distillation: a student that needs fewer modalities learns from the answers of a teacher that has them all."""

from numbers import Real

from sklearn.base import clone, is_classifier
from sklearn.utils.validation import check_is_fitted

from .._sklearn import Interval, StrOptions, validate_params
from ._classifier import MultimodalNetClassifier
from ._distillation_loss import SoftTargets, StudentLoss, blend
from ._regressor import MultimodalNetRegressor
from .multitask import MultimodalNetMultiTask


class Student(MultimodalNetClassifier):
    """A classifier whose targets are classes and, beside them, the logits of a teacher.

    Its y has one row per sample: the numbers of the classes, then the logits.
    """

    def _check_y(self, X, y, *, reset=False):
        return y

    def _weigh(self, y, sample_weight):
        return super()._weigh(self._soft.classes_of(y), sample_weight)

    def _make_outputs(self, y, weights, classes):
        self.classes_ = self._soft.outputs.public_classes
        return self._soft

    def _make_criterion(self):
        return StudentLoss(super()._make_criterion(), self._temperature, self._alpha, self._soft.independent)


@validate_params(
    {
        "modalities": [list, tuple, None],
        "student": [MultimodalNetClassifier, MultimodalNetRegressor, None],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both")],
    },
    prefer_skip_nested_validation=False,
)
def distill(teacher, X, y=None, *, modalities=None, student=None, temperature=2.0, alpha="auto", sample_weight=None):
    r"""Train a network on some of the modalities with the answers of a teacher that has all of them.

    Knowledge distillation [1]_: the student learns from the teacher's probabilities, which say more of a row than its
    class does, and which need no label. With logits :math:`z` of the student and :math:`t` of the teacher, both
    divided by the temperature :math:`T`, its loss is

    .. math:: \alpha T^2 \, \mathrm{CE}\big(\sigma(t / T), \sigma(z / T)\big) + (1 - \alpha) \, L(y, z).

    Numbers have no temperature: a student of a regressor learns :math:`\alpha \hat y + (1 - \alpha) y` with
    :math:`\hat y` from the teacher.

    Parameters
    ----------
    teacher : estimator
        Fitted classifier with ``predict_proba``, or regressor. A network or any other estimator; of several labels its
        answers are a list with one array per label, 0 or 1.

    X : DataFrame or array-like of shape (n_samples, n_features)
        Rows to teach with, with all columns of the teacher. They may be others, and more, than it was fitted on.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Targets, if they are known.

    modalities : list of str, default=None
        Names of the teacher's modalities that the student has; None if ``student`` is given.

    student : MultimodalNetClassifier or MultimodalNetRegressor, default=None
        Network to train a clone of. None takes the teacher's parameters with ``modalities`` only, for which it must be
        such a network.

    temperature : float, default=2.0
        What logits are divided by; the higher, the more the small probabilities of the teacher count.

    alpha : float or "auto", default="auto"
        Share of the teacher's answers in the loss, from 0 to 1. "auto" is 0.5, or 1 without ``y``.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    student : MultimodalNetClassifier or MultimodalNetRegressor
        The fitted student. It predicts from its own modalities; the other columns of X are not looked at.

    Raises
    ------
    ValueError
        If neither ``modalities`` nor ``student`` is given or both are, a name is not one of the teacher's, or
        ``alpha`` is below 1 without ``y``, or ``y`` or the teacher's probabilities are not of the expected form.

    TypeError
        If the teacher gives no probabilities, is no network and there is no ``student``, or has several tasks.

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
        raise ValueError(f"distill: alpha={alpha} gives labels a share of the loss, and y is None; pass y, or alpha=1.")
    if isinstance(student, MultimodalNetRegressor):
        return student.fit(X, blend(teacher.predict(X), y, alpha), sample_weight)
    soft, rows = SoftTargets.of(teacher, X, y)
    fitted = Student.__new__(Student)
    # Callbacks and requests of metadata as well as parameters.
    vars(fitted).update(vars(student), _soft=soft, _temperature=temperature, _alpha=alpha)
    fitted.fit(X, rows, sample_weight)
    # A plain network from here on: what it learned, without how.
    state = {name: value for name, value in vars(fitted).items() if name not in ("_soft", "_temperature", "_alpha")}
    vars(student).update(state, _outputs=soft.outputs)
    return student


def _choose_student(teacher, modalities, student):
    """Give an unfitted student of the teacher's kind."""
    if (modalities is None) == (student is None):
        raise ValueError("distill: pass either modalities, names of those the student has, or student, a network.")
    if isinstance(teacher, MultimodalNetMultiTask):
        raise TypeError(
            "distill: a MultimodalNetMultiTask has several tasks, and a student one; pass a teacher of a single task."
        )
    kind = MultimodalNetClassifier if is_classifier(teacher) else MultimodalNetRegressor
    if kind is MultimodalNetClassifier and not hasattr(teacher, "predict_proba"):
        raise TypeError(f"distill: the teacher must give probabilities, {type(teacher).__name__} has no predict_proba.")
    if student is not None:
        if not isinstance(student, kind):
            raise TypeError(
                f"distill: {type(teacher).__name__} teaches a {kind.__name__}, got a {type(student).__name__}."
            )
        return clone(student)
    if not isinstance(teacher, kind):
        raise TypeError(
            f"distill: a {type(teacher).__name__} has no parameters for a network; pass student=, a {kind.__name__}."
        )
    names = [name for name, _, _ in teacher.modalities_]
    unknown = [name for name in modalities if name not in names]
    if unknown or not modalities:
        raise ValueError(f"distill: modalities are some of the teacher's, {names}, got {list(modalities)}.")
    chosen = [entry for entry in teacher.modalities if entry[0] in modalities]
    return clone(teacher).set_params(modalities=chosen)
