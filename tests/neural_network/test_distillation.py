"""A student learns from a teacher's answers, needs fewer modalities, and beats labels alone where these are few."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch.nn import functional

from skmm import ModalityFuser, TextEncoder, TunedEncoder
from skmm.neural_network import MultimodalNetClassifier, MultimodalNetMultiTask, MultimodalNetRegressor, distill
from skmm.neural_network._distillation import StudentLoss
from skmm.neural_network.network import Loss

WEAK, STRONG = slice(0, 20), slice(20, 24)
PARTS = [("weak", "passthrough", WEAK), ("strong", "passthrough", STRONG)]
PARAMS = {"width": 16, "random_state": 0, "device": "cpu", "early_stopping": False, "learning_rate": 0.01}


def make(n_classes, n_samples=1700, seed=0):
    """Two modalities that tell the same classes, the weak one through more noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n_samples)
    centers = rng.normal(size=(n_classes, 24)) * np.repeat([0.45, 2.5], [20, 4])
    return (centers[y] + rng.normal(size=(n_samples, 24))).astype(np.float32), np.array(["a", "b", "c", "d"])[y]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_student_beats_training_on_few_labels(seed):
    X, y = make(4, seed=seed)
    labelled, unlabelled, test = slice(0, 100), slice(100, 900), slice(900, None)
    teacher = MultimodalNetClassifier(PARTS, max_epochs=40, **PARAMS).fit(X[labelled], y[labelled])
    alone = clone(teacher).set_params(modalities=PARTS[:1]).fit(X[labelled], y[labelled])
    student = distill(teacher, X[unlabelled], modalities=["weak"])
    hidden = X[test].copy()
    hidden[:, STRONG] = np.nan
    assert student.score(hidden, y[test]) > alone.score(hidden, y[test]) + 0.03
    assert type(student) is MultimodalNetClassifier
    assert [name for name, _, _ in student.modalities_] == ["weak"]
    np.testing.assert_array_equal(student.classes_, teacher.classes_)


def test_a_student_with_all_modalities_comes_to_the_teachers_decisions():
    X, y = make(4, 600)
    teacher = MultimodalNetClassifier(PARTS, max_epochs=40, **PARAMS).fit(X, y)
    student = distill(teacher, X, modalities=["weak", "strong"], temperature=1.0)
    assert (student.predict(X) == teacher.predict(X)).mean() > 0.98
    assert np.abs(student.predict_proba(X) - teacher.predict_proba(X)).mean() < 0.02


def test_only_labels_are_plain_training():
    X, y = make(4, 300)
    teacher = MultimodalNetClassifier(PARTS, max_epochs=5, **PARAMS).fit(X, y)
    plain = clone(teacher).set_params(modalities=PARTS[:1]).fit(X, y)
    student = distill(teacher, X, y, modalities=["weak"], alpha=0.0)
    np.testing.assert_allclose(student.predict_proba(X), plain.predict_proba(X), rtol=1e-4, atol=1e-6)
    # The teacher's own answers do count if they may.
    mixed = distill(teacher, X, y, modalities=["weak"])
    assert np.abs(mixed.predict_proba(X) - plain.predict_proba(X)).max() > 1e-3


def test_any_classifier_teaches_and_weights_count():
    X, y = make(2, 300)
    teacher = LogisticRegression().fit(X, y)
    student = MultimodalNetClassifier(PARTS[:1], max_epochs=30, **PARAMS)
    taught = distill(teacher, X, student=student)
    assert not hasattr(student, "network_")
    assert (taught.predict(X) == teacher.predict(X)).mean() > 0.8
    weights = (np.arange(300) < 150).astype(float)
    half = distill(teacher, X, student=student, sample_weight=weights)
    np.testing.assert_allclose(
        half.predict_proba(X), distill(teacher, X[:150], student=student).predict_proba(X), rtol=1e-3, atol=1e-5
    )


class Noted(FunctionTransformer):
    """A transformer that notes the y that it was fitted on."""

    def fit(self, X, y=None):
        self.y_ = y
        return super().fit(X, y)


def test_transformers_of_a_student_learn_from_classes():
    X, y = make(4, 200)
    teacher = MultimodalNetClassifier(PARTS, max_epochs=20, **PARAMS).fit(X, y)
    student = MultimodalNetClassifier([("weak", Noted(), WEAK)], max_epochs=1, **PARAMS)
    assert distill(teacher, X, student=student).named_modalities_["weak"].y_.tolist() == teacher.predict(X).tolist()
    assert distill(teacher, X, y, student=student).named_modalities_["weak"].y_.tolist() == y.tolist()
    labels = np.column_stack([y == "a", y == "b"]).astype(int)
    np.testing.assert_array_equal(
        distill(clone(teacher).fit(X, labels), X, labels, student=student).named_modalities_["weak"].y_, labels
    )


def test_a_pipeline_with_a_tuned_encoder_teaches(tiny_text_model):
    n = 150
    rng, y = np.random.default_rng(0), np.arange(n) % 3
    texts = [f"{('cat', 'dog', 'bird')[k]} {letter}" for k, letter in zip(y, rng.choice([*"abcdefgh"], n), strict=True)]
    X = pd.DataFrame({"text": texts, "size": y + rng.normal(size=n), "age": rng.normal(size=n)})
    names = np.array(["x", "y", "z"])[y]
    tuned = TunedEncoder(
        TextEncoder(str(tiny_text_model), device="cpu"), n_layers=1, max_epochs=3, fallback=False, random_state=0
    )
    fuser = ModalityFuser([("text", tuned, "text"), ("table", StandardScaler(), ["size", "age"])])
    teacher = make_pipeline(fuser, LogisticRegression()).fit(X, names)
    table = MultimodalNetClassifier([("table", StandardScaler(), ["size", "age"])], max_epochs=30, **PARAMS)
    student = distill(teacher, X, student=table)
    np.testing.assert_array_equal(student.classes_, teacher.classes_)
    # The table is all it needs, and tells it half.
    assert 0.4 < student.score(X[["size", "age"]], names) < teacher.score(X, names)
    # A tuned encoder of its own learns what the teacher says.
    text = distill(teacher, X, student=table.set_params(modalities=[("text", tuned, "text")]))
    expected = clone(tuned).fit(texts, teacher.predict(X)).transform(texts)
    np.testing.assert_array_equal(text.named_modalities_["text"].transform(texts), expected)
    assert (text.predict(X[["text"]]) == teacher.predict(X)).mean() > 0.9
    network = MultimodalNetClassifier(fuser.modalities, max_epochs=30, **PARAMS).fit(X, names)
    assert distill(network, X, modalities=["text"]).score(X[["text"]], names) > 0.9


def test_several_labels():
    X, y = make(4, 400)
    labels = np.column_stack([(y == "a") | (y == "b"), (y == "a") | (y == "c")]).astype(int)
    teacher = MultimodalNetClassifier(PARTS, max_epochs=30, **PARAMS).fit(X, labels)
    student = distill(teacher, X, modalities=["strong"])
    assert (student.predict(X) == teacher.predict(X)).mean() > 0.9
    assert len(student.predict_proba(X)) == 2


def test_numbers():
    X, _ = make(2, 900)
    y = X[:, 20] + X[:, 0]
    train, more = slice(0, 60), slice(60, 900)
    teacher = MultimodalNetRegressor(PARTS, max_epochs=60, **PARAMS).fit(X[train], y[train])
    student = distill(teacher, X[more], modalities=["strong"])
    assert type(student) is MultimodalNetRegressor
    expected = clone(student).fit(X[more], teacher.predict(X[more]).astype(float))
    np.testing.assert_array_equal(student.predict(X), expected.predict(X))
    blended = distill(teacher, X[train], y[train], modalities=["strong"], alpha=0.25)
    target = 0.25 * teacher.predict(X[train]).astype(float) + 0.75 * y[train]
    np.testing.assert_array_equal(blended.predict(X), clone(student).fit(X[train], target).predict(X))
    other = distill(KNeighborsRegressor().fit(X[train], y[train]), X[train], student=clone(student))
    assert np.isfinite(other.predict(X)).all()


def test_the_loss_is_hintons():
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
    classes, weights = torch.randint(3, (8,), generator=generator), torch.rand(8, generator=generator).double()
    loss = StudentLoss(Loss("cross_entropy"), temperature=3.0, alpha=0.7, independent=False)
    p, q = (t / 3).softmax(1), (z / 3).log_softmax(1)
    rows = 0.7 * 9 * -(p * q).sum(1) + 0.3 * functional.cross_entropy(z, classes, reduction="none")
    torch.testing.assert_close(loss.rows(z, (classes, t)), rows)
    torch.testing.assert_close(loss(z, (classes, t), weights), (weights * rows).sum() / weights.sum())
    torch.testing.assert_close(loss(z, (classes, t)), rows.mean())


def test_two_classes_are_a_softmax_of_one_logit_and_0():
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(2, 8, 1, generator=generator, dtype=torch.float64)
    classes = torch.randint(2, (8,), generator=generator)
    both = [torch.cat([torch.zeros_like(x), x], dim=1) for x in (z, t)]
    one = StudentLoss(Loss("binary_cross_entropy"), 2.0, 0.5, True)
    two = StudentLoss(Loss("cross_entropy"), 2.0, 0.5, False)
    torch.testing.assert_close(one(z, (classes[:, None].double(), t)), two(both[0], (classes, both[1])))


def test_students_are_ordinary_networks():
    X, y = make(4, 200)
    frame = pd.DataFrame(X).add_prefix("x")
    parts = [("weak", "passthrough", [f"x{i}" for i in range(20)]), ("strong", "passthrough", ["x20", "x21"])]
    teacher = MultimodalNetClassifier(parts, "gated", max_epochs=2, class_weight="balanced", **PARAMS).fit(frame, y)
    student = distill(teacher, frame, y, modalities=["strong"])
    again = distill(teacher, frame, y, modalities=["strong"])
    np.testing.assert_array_equal(student.predict_proba(frame), again.predict_proba(frame))
    copy = pickle.loads(pickle.dumps(student))
    np.testing.assert_array_equal(copy.predict_proba(frame), student.predict_proba(frame))
    # Columns of modalities that it does not have need not be there.
    np.testing.assert_array_equal(student.predict_proba(frame[["x20", "x21"]]), student.predict_proba(frame))
    assert set(vars(student)) == set(vars(clone(student).fit(frame, y)))
    assert student.explain(frame).columns.tolist() == ["strong"]


def test_callbacks_hear_of_a_student():
    X, y = make(2, 50)
    for net, target in ((MultimodalNetClassifier, y), (MultimodalNetRegressor, X[:, 0])):
        teacher = net(PARTS, max_epochs=1, **PARAMS).fit(X, target)
        heard = Heard()
        distill(teacher, X, student=net(PARTS[:1], max_epochs=3, **PARAMS).set_callbacks(heard))
        assert heard.tasks[-3:] == ["epoch"] * 3


class Heard:
    """A callback that notes the tasks that it hears of."""

    max_propagation_depth = None

    def __init__(self):
        self.tasks = []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        pass


@pytest.fixture(scope="module")
def teacher():
    return MultimodalNetClassifier(PARTS, max_epochs=1, **PARAMS).fit(*make(2, 50))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({}, ValueError, "pass either modalities, names of those the student has, or student, a network"),
        ({"modalities": ["sound"]}, ValueError, r"some of the teacher's, \['weak', 'strong'\], got \['sound'\]"),
        ({"modalities": []}, ValueError, r"some of the teacher's, .* got \[\]"),
        ({"modalities": ["weak"], "alpha": 0.5}, ValueError, r"alpha=0\.5 needs labels, but y is None"),
        ({"modalities": ["weak"], "temperature": 0}, ValueError, "The 'temperature' parameter of distill"),
        ({"student": MultimodalNetRegressor(PARTS)}, TypeError, "teaches a MultimodalNetClassifier, got a Multi"),
        ({"modalities": ["weak"], "y": ["a"] * 3}, ValueError, "X has 50 rows, y has 3"),
        ({"modalities": ["weak"], "y": ["z"] * 50}, ValueError, "distill: y has the class 'z'"),
    ],
)
def test_errors(teacher, params, error, message):
    X, _ = make(2, 50)
    with pytest.raises(error, match=message):
        distill(teacher, X, params.pop("y", None), **params)


def test_teachers_that_cannot_teach():
    X, y = make(2, 50)
    with pytest.raises(TypeError, match="LinearSVC has no predict_proba; pass a teacher that has, such as"):
        distill(LinearSVC().fit(X, y), X, student=MultimodalNetClassifier(PARTS))
    with pytest.raises(TypeError, match=r"a Ridge has no parameters for a network; pass student=, a MultimodalNetReg"):
        distill(Ridge().fit(X, X[:, 0]), X, modalities=["weak"])
    tasks = MultimodalNetMultiTask(PARTS, max_epochs=1, **PARAMS).fit(X, pd.DataFrame({"a": y, "b": X[:, 0]}))
    for options in ({"modalities": ["weak"]}, {"student": MultimodalNetRegressor(PARTS)}):
        with pytest.raises(TypeError, match="a MultimodalNetMultiTask has several tasks, but a student has one"):
            distill(tasks, X, **options)
    student = MultimodalNetClassifier(PARTS)
    with pytest.raises(ValueError, match=r"the classes 0 and 1, the teacher's are \[\['a', 'b'\], \['a', 'b'\]\]"):
        distill(DecisionTreeClassifier().fit(X, np.column_stack([y, y])), X, student=student)
    labels = np.column_stack([y == "a", X[:, 0] > 0]).astype(int)
    with pytest.raises(ValueError, match="probabilities of the classes do not sum to 1 in each row"):
        distill(OneVsRestClassifier(LogisticRegression()).fit(X, labels), X, student=student)
    with pytest.raises(ValueError, match=r"y has the shape \(50, 1\), the teacher's predictions have \(50,\)"):
        distill(Ridge().fit(X, X[:, 0]), X, X[:, :1], student=MultimodalNetRegressor(PARTS))
    with pytest.raises(Exception, match="not fitted"):
        distill(MultimodalNetClassifier(PARTS), X, modalities=["weak"])
