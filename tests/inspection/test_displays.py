"""Drawings hold what was computed."""

import itertools

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import Bunch

from skmm import CCAFusion, ImageDescriptor, ModalityFuser, ModalityVotingClassifier
from skmm._plot import COLORS, GREY
from skmm.datasets import make_multimodal_classification
from skmm.inspection import (
    CanonicalCorrelationDisplay,
    JointEmbeddingDisplay,
    MissingModalityCurveDisplay,
    ModalityImportanceDisplay,
    missing_modality_curve,
    modality_importance,
)

pyplot = pytest.importorskip("matplotlib.pyplot")
colors = pytest.importorskip("matplotlib.colors")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def data():
    return make_multimodal_classification(
        200, n_modalities=3, private=[2, 0.5, 1], shared=1.0, missing_share=0.1, return_X_y=False, random_state=0
    )


@pytest.fixture(scope="module")
def vote(data):
    return ModalityVotingClassifier(
        [(name, LogisticRegression(), columns) for name, columns in data.modalities.items()]
    ).fit(data.X, data.y)


@pytest.fixture(scope="module")
def fuser(data):
    triples = [(name, "passthrough", columns) for name, columns in data.modalities.items()]
    return ModalityFuser(triples, CCAFusion(4)).fit(data.X)


def labels_of(legend):
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("method", ["shapley", "ablation", "permutation"])
def test_importance(data, vote, method):
    display = ModalityImportanceDisplay.from_estimator(vote, data.X, data.y, method=method, random_state=0)
    result = modality_importance(vote, data.X, data.y, method=method, random_state=0)
    ax = display.ax_
    assert display.figure_ is ax.figure
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    widths = dict(zip(names, [bar.get_width() for bar in ax.patches], strict=True))
    assert widths == pytest.approx(dict(zip(result.modalities, result.importances_mean, strict=True)))
    assert list(widths.values()) == sorted(widths.values())
    assert "accuracy" in ax.get_xlabel()
    assert method in ax.get_xlabel().lower()


def test_interactions(data, vote):
    result = modality_importance(vote, data.X, data.y, random_state=0)
    ax = ModalityImportanceDisplay(result).plot(kind="interactions").ax_
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b", "c"]
    image = ax.images[0]
    off_diagonal = ~np.eye(3, dtype=bool)
    drawn = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_allclose(drawn[off_diagonal], result.interactions_mean[off_diagonal])
    assert np.isnan(np.diag(drawn)).all()
    assert image.norm.vmin == -image.norm.vmax
    assert len(ax.texts) == 6
    assert ax.texts[0].get_text().startswith(f"{result.interactions_mean[0, 1]:+.3f}")


def test_interactions_of_one_modality(data, vote):
    result = modality_importance(vote, data.X, data.y, modalities={"a": data.modalities["a"]}, n_repeats=2)
    assert len(ModalityImportanceDisplay(result).plot(kind="interactions").ax_.texts) == 0


@pytest.mark.parametrize(("n_modalities", "length"), [(2, 20), (6, 7), (7, 2), (12, 20)])
def test_interactions_of_many_modalities_stay_readable(n_modalities, length):
    values = np.linspace(-0.1, 0.1, n_modalities**2).reshape(n_modalities, n_modalities)
    result = Bunch(
        modalities=[f"{i:a>{length}}" for i in range(n_modalities)],
        interactions_mean=values,
        interactions_std=np.abs(values),
        score_name="accuracy",
    )
    display = ModalityImportanceDisplay(result).plot(kind="interactions")
    display.figure_.canvas.draw()
    numbers = [text.get_window_extent() for text in display.ax_.texts]
    assert len(numbers) == (n_modalities**2 - n_modalities if n_modalities <= 6 else 0)
    boxes = [numbers, [tick.get_window_extent() for tick in display.ax_.get_xticklabels()]]
    assert not any(a.overlaps(b) for group in boxes for a, b in itertools.combinations(group, 2))


def test_curves(data, vote):
    display = MissingModalityCurveDisplay.from_estimator(
        vote, data.X, data.y, lose=["a", ("a", "b")], shares=[0, 0.5, 1], random_state=0
    )
    result = missing_modality_curve(vote, data.X, data.y, lose=["a", ("a", "b")], shares=[0, 0.5, 1], random_state=0)
    lines = display.ax_.get_lines()
    assert [line.get_label() for line in lines] == ["a", "a + b"]
    for line, mean in zip(lines, result.scores_mean, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [0, 50, 100])
        np.testing.assert_array_equal(line.get_ydata(), mean)
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 2
    assert display.ax_.get_ylabel() == "accuracy"
    custom = missing_modality_curve(vote, data.X, data.y, corruption=lambda item, rng: 0.0, shares=[1], n_repeats=1)
    assert MissingModalityCurveDisplay(custom).plot().ax_.get_xlabel() == "rows with it corrupted [%]"


def test_joint_embedding(data, fuser):
    display = JointEmbeddingDisplay.from_estimator(fuser, data.X, data.y, components=(2, 0), max_rows=None)
    present = {name: data.X[columns].notna().all(axis=1).to_numpy() for name, columns in data.modalities.items()}
    for name, points in display.embeddings.items():
        np.testing.assert_array_equal(np.isnan(points).any(axis=1), ~present[name])
        block = data.X[data.modalities[name]].to_numpy()
        expected = fuser.fusion_.transform_modality(block, name)[:, [2, 0]]
        np.testing.assert_allclose(points[present[name]], expected[present[name]])
    ax = display.ax_
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("component 2", "component 0")
    assert labels_of(ax.get_legend()) == ["a", "b", "c", "0", "1"]
    # A line for each row: closed through three modalities, open between two, a point for one.
    lengths = [len(line.get_xdata()) for line in ax.get_lines()[:200]]
    n_present = np.sum(list(present.values()), axis=0)
    assert lengths == np.choose(n_present, [0, 1, 2, 4]).tolist()


def test_joint_embedding_of_some_rows_by_modality(data, fuser):
    display = JointEmbeddingDisplay.from_estimator(fuser, data.X, max_rows=30, random_state=0)
    assert display.embeddings["a"].shape == (30, 2)
    assert labels_of(display.ax_.get_legend()) == ["a", "b", "c"]
    other = JointEmbeddingDisplay.from_estimator(fuser, data.X, max_rows=30, random_state=0)
    np.testing.assert_array_equal(other.embeddings["a"], display.embeddings["a"])


def test_more_classes_than_colours():
    rng = np.random.default_rng(0)
    y = np.repeat(list("abcdefghij"), [9, 1, 8, 1, 7, 6, 5, 1, 4, 1])
    display = JointEmbeddingDisplay({"one": rng.normal(size=(43, 2)), "two": rng.normal(size=(43, 2))}, y).plot()
    assert labels_of(display.ax_.get_legend()) == ["one", "two", "a", "c", "e", "f", "g", "i", "4 others"]
    sizes = {}
    for points in display.ax_.collections:
        if len(points.get_offsets()):
            color = colors.to_hex(points.get_facecolor()[0]).upper()
            sizes[color] = sizes.get(color, 0) + len(points.get_offsets())
    assert sizes == dict(zip([*COLORS, GREY], [18, 16, 14, 12, 10, 8, 8], strict=True))


def test_canonical_correlations(data, fuser):
    display = CanonicalCorrelationDisplay.from_estimator(fuser, data.X)
    fit, other = display.ax_.get_lines()[:2]
    np.testing.assert_array_equal(fit.get_ydata(), fuser.fusion_.correlations_)
    assert labels_of(display.ax_.get_legend()) == ["fit", "X"]
    assert other.get_ydata().mean() == pytest.approx(fuser.fusion_.score(data.X.to_numpy()))
    alone = CanonicalCorrelationDisplay.from_estimator(fuser)
    assert alone.correlations_in_X is None
    assert alone.ax_.get_legend() is None
    with pytest.raises(ValueError, match="at least 2 rows that have the same two modalities"):
        CanonicalCorrelationDisplay.from_estimator(fuser, data.X[:1])


def test_pipelines_and_strategies_alone(data, fuser):
    points = JointEmbeddingDisplay.from_estimator(fuser, data.X).embeddings["b"]
    for estimator in (
        make_pipeline(CCAFusion(4, blocks="prefix"), LogisticRegression()),
        make_pipeline(ModalityFuser(fuser.modalities, CCAFusion(4)), LogisticRegression()),
        CCAFusion(4, blocks="prefix"),
    ):
        display = JointEmbeddingDisplay.from_estimator(estimator.fit(data.X, data.y), data.X, random_state=0)
        assert display.embeddings["b"].shape == points.shape


def test_strategies_alone_check_the_columns_of_X(data):
    fusion = CCAFusion(4, blocks="prefix").fit(data.X)
    reordered, narrow = data.X[data.X.columns[::-1]], data.X.iloc[:, 1:]
    for draw in (JointEmbeddingDisplay.from_estimator, CanonicalCorrelationDisplay.from_estimator):
        for X in (reordered, narrow):
            with pytest.raises(ValueError, match="feature names"):
                draw(fusion, X)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_rows_may_be_lists(data, fuser):
    for estimator in (fuser, CCAFusion(4, blocks=fuser.blocks_).fit(data.X.to_numpy())):
        expected = JointEmbeddingDisplay.from_estimator(estimator, data.X.to_numpy(), random_state=0)
        drawn = JointEmbeddingDisplay.from_estimator(estimator, data.X.to_numpy().tolist(), random_state=0)
        np.testing.assert_array_equal(drawn.embeddings["a"], expected.embeddings["a"])


def test_items_are_encoded_for_the_embedding(glyphs):
    X, y = glyphs.data, glyphs.target
    fuser = ModalityFuser(
        [("text", CountVectorizer(), "text"), ("image", ImageDescriptor("hog", cells_per_block=1), "image")],
        CCAFusion(2),
    ).fit(X)
    display = JointEmbeddingDisplay.from_estimator(fuser, X, y)
    np.testing.assert_allclose(
        display.embeddings["text"], fuser.transform(X)[:, :2], atol=1e-6 * np.abs(fuser.transform(X)).max()
    )


def test_joint_displays_from_predictions(data, fuser):
    drawn = JointEmbeddingDisplay.from_estimator(fuser, data.X, data.y, components=(2, 0), max_rows=40, random_state=0)
    embeddings = {}
    for name, columns in data.modalities.items():
        embeddings[name] = fuser.fusion_.transform_modality(data.X[columns].to_numpy(), name).copy()
        embeddings[name][data.X[columns].isna().all(axis=1)] = np.nan
    other = JointEmbeddingDisplay.from_predictions(embeddings, data.y, components=(2, 0), max_rows=40, random_state=0)
    assert labels_of(other.ax_.get_legend()) == ["a", "b", "c", "0", "1"]
    for name, points in drawn.embeddings.items():
        np.testing.assert_allclose(other.embeddings[name], points)
    np.testing.assert_array_equal(other.y, drawn.y)
    other = {name: points[:100] for name, points in embeddings.items()}
    display = CanonicalCorrelationDisplay.from_predictions(embeddings, other)
    expected = CanonicalCorrelationDisplay.from_estimator(fuser, data.X[:100])
    np.testing.assert_allclose(display.correlations_in_X, expected.correlations_in_X)
    assert display.correlations.mean() == pytest.approx(fuser.fusion_.score(data.X.to_numpy()))
    with pytest.raises(ValueError, match=r"components must be two numbers below 4, .* got \(0, 9\)"):
        JointEmbeddingDisplay.from_predictions(embeddings, components=(0, 9))


@pytest.mark.parametrize("kind", ["importance", "interactions"])
def test_given_axes_and_files(data, vote, fuser, kind, tmp_path):
    result = modality_importance(vote, data.X, data.y, n_repeats=2)
    curve = missing_modality_curve(vote, data.X, data.y, n_repeats=2, shares=[0, 1])
    for draw in (
        lambda ax: ModalityImportanceDisplay(result).plot(ax, kind=kind),
        lambda ax: MissingModalityCurveDisplay(curve).plot(ax),
        lambda ax: JointEmbeddingDisplay.from_estimator(fuser, data.X, ax=ax),
        lambda ax: CanonicalCorrelationDisplay([0.9, 0.1]).plot(ax),
    ):
        figure, ax = pyplot.subplots()
        display = draw(ax)
        assert display.ax_ is ax
        assert display.figure_ is figure
        figure.savefig(tmp_path / "figure.png")


def test_errors(data, vote, fuser):
    several = modality_importance(vote, data.X, data.y, scoring=["accuracy", "neg_log_loss"], n_repeats=1)
    with pytest.raises(ValueError, match=r"draws the result of one score, got \['accuracy', 'neg_log_loss'\]"):
        ModalityImportanceDisplay(several).plot()
    with pytest.raises(ValueError, match="kind must be 'importance' or 'interactions', got 'pie'"):
        ModalityImportanceDisplay(several["accuracy"]).plot(kind="pie")
    alone = modality_importance(vote, data.X, data.y, interactions=False, n_repeats=1)
    with pytest.raises(ValueError, match="no interactions; compute it with interactions=True"):
        ModalityImportanceDisplay(alone).plot(kind="interactions")
    curves = missing_modality_curve(vote, data.X, data.y, scoring=["accuracy"], n_repeats=1)
    with pytest.raises(ValueError, match="draws the result of one score"):
        MissingModalityCurveDisplay(curves).plot()
    for unfitted in (clone(fuser), CCAFusion(4), make_pipeline(clone(fuser), LogisticRegression())):
        with pytest.raises(NotFittedError):
            JointEmbeddingDisplay.from_estimator(unfitted, data.X)
        with pytest.raises(NotFittedError):
            CanonicalCorrelationDisplay.from_estimator(unfitted)
    with pytest.raises(ValueError, match="ModalityVotingClassifier has no joint embedding; fit a CCAFusion"):
        JointEmbeddingDisplay.from_estimator(vote, data.X)
    with pytest.raises(ValueError, match=r"components must be two numbers below 4, .* got \(0, 4\)"):
        JointEmbeddingDisplay.from_estimator(fuser, data.X, components=(0, 4))
