"""Drawings of a joint embedding: the points of each modality of a row, and how well modalities agree."""

from copy import copy
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .._columns import check_table, missing_rows
from .._plot import BLUE, COLORS, GREY, MARKERS, VERMILION, make_axes
from .._sklearn import safe_indexing
from .._typing import Items, Matrix, RandomState, Table
from ..fusion import ModalityFuser
from ._columns import find_composite


def _find_joint(estimator):
    """Return the joint embedding in a fitted estimator, and the fuser that contains it or None."""
    fuser = find_composite(estimator)
    check_is_fitted(estimator if fuser is None else fuser)
    joint = fuser.fusion_ if isinstance(fuser, ModalityFuser) else estimator
    while isinstance(joint, Pipeline):
        joint = joint.steps[0][1]
    if not hasattr(joint, "transform_modality"):
        raise ValueError(
            f"{type(estimator).__name__} has no joint embedding; fit a CCAFusion or another strategy that has "
            "transform_modality, alone, as the fusion of a ModalityFuser or as the first step of a pipeline."
        )
    return joint, fuser


def _embed(joint, fuser, X):
    """Return the points of each modality in the joint space, NaN in rows without the modality."""
    if fuser is None:
        X = validate_data(joint, X, reset=False, ensure_all_finite="allow-nan")
    else:
        # A copy of the fuser that returns the features that enter the fusion.
        encoder = copy(fuser)
        encoder.fusion_ = FunctionTransformer()
        X = encoder.transform(X)
    embeddings = {}
    for name, columns in joint.blocks_.items():
        block = safe_indexing(X, columns, axis=1)
        embeddings[name] = np.array(joint.transform_modality(block, name))
        embeddings[name][missing_rows(block)] = np.nan
    return embeddings


def _some_rows(n_samples, max_rows, random_state):
    """Return sorted numbers of at most ``max_rows`` rows, drawn at random."""
    if max_rows is None or max_rows >= n_samples:
        return np.arange(n_samples)
    return np.sort(check_random_state(random_state).choice(n_samples, max_rows, replace=False))


class JointEmbeddingDisplay:
    """Two components of a joint embedding: a point for each modality of a row, and lines between them.

    Colours are classes, markers are modalities. Short lines mean that the modalities of a row agree.

    Parameters
    ----------
    embeddings : dict of str to ndarray of shape (n_samples, 2)
        Points of each modality; NaN where it is missing.

    y : array-like of shape (n_samples,) or None, default=None
        Class of each row, for the colours; None colours by modality.

    components : tuple of (int, int), default=(0, 1)
        Numbers of the two components, for the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the drawing.

    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    CanonicalCorrelationDisplay : How well the modalities agree, for all components.
    skmm.CCAFusion : A joint embedding.

    Examples
    --------
    >>> from skmm import CCAFusion
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import JointEmbeddingDisplay
    >>> X, y = make_multimodal_classification(n_classes=3, shared=2.0, private=0.0, random_state=0)
    >>> fusion = CCAFusion(2, blocks="prefix").fit(X)
    >>> display = JointEmbeddingDisplay.from_estimator(fusion, X, y, random_state=0)
    >>> display.ax_.get_xlabel()
    'component 0'
    """

    def __init__(self, embeddings: dict[str, np.ndarray], y: Items = None, *, components: tuple[int, int] = (0, 1)):
        self.embeddings = embeddings
        self.y = y
        self.components = components

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Table,
        y: Items = None,
        *,
        components: tuple[int, int] = (0, 1),
        max_rows: int | None = 150,
        random_state: RandomState = None,
        ax: Any = None,
    ) -> "JointEmbeddingDisplay":
        """Draw the modalities of X in the joint space of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted joint embedding, a :class:`~skmm.ModalityFuser` with one, or a pipeline that begins with either.

        X : DataFrame or array-like of shape (n_samples, n_features)
            Data.

        y : array-like of shape (n_samples,) or None, default=None
            Class of each row, for the colours.

        components : tuple of (int, int), default=(0, 1)
            The two components to draw.

        max_rows : int or None, default=150
            Largest number of rows to draw, chosen at random; None means all.

        random_state : int, RandomState instance or None, default=None
            Seed of the choice of rows.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : JointEmbeddingDisplay
            The drawing.
        """
        joint, fuser = _find_joint(estimator)
        X = check_table(estimator, X)
        check_consistent_length(X, y)
        rows = _some_rows(X.shape[0], max_rows, random_state)
        embeddings = _embed(joint, fuser, safe_indexing(X, rows, axis=0))
        y = None if y is None else safe_indexing(y, rows)
        return cls.from_predictions(embeddings, y, components=components, max_rows=None, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        embeddings: dict[str, Matrix],
        y: Items = None,
        *,
        components: tuple[int, int] = (0, 1),
        max_rows: int | None = 150,
        random_state: RandomState = None,
        ax: Any = None,
    ) -> "JointEmbeddingDisplay":
        """Draw the points of modalities in a joint space.

        Parameters
        ----------
        embeddings : dict of str to array-like of shape (n_samples, n_components)
            Points of each modality in the joint space, as ``transform_modality`` returns them; NaN where it is missing.

        y : array-like of shape (n_samples,) or None, default=None
            Class of each row, for the colours.

        components : tuple of (int, int), default=(0, 1)
            The two components to draw.

        max_rows : int or None, default=150
            Largest number of rows to draw, chosen at random; None means all.

        random_state : int, RandomState instance or None, default=None
            Seed of the choice of rows.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : JointEmbeddingDisplay
            The drawing.

        Examples
        --------
        >>> from skmm.inspection import JointEmbeddingDisplay
        >>> text, image = [[0.0, 1.0], [2.0, 0.0]], [[0.1, 0.9], [1.8, 0.1]]
        >>> display = JointEmbeddingDisplay.from_predictions({"text": text, "image": image}, ["cat", "dog"])
        >>> display.embeddings["image"].shape
        (2, 2)
        """
        embeddings = {name: np.asarray(values) for name, values in embeddings.items()}
        check_consistent_length(*embeddings.values(), y)
        n_samples, n_components = next(iter(embeddings.values())).shape
        if not all(0 <= component < n_components for component in components) or len(components) != 2:
            raise ValueError(
                f"{cls.__name__}: components must be two numbers below {n_components}, the number of components, got "
                f"{components!r}."
            )
        rows = _some_rows(n_samples, max_rows, random_state)
        points = {name: values[rows][:, list(components)] for name, values in embeddings.items()}
        return cls(points, None if y is None else safe_indexing(y, rows), components=components).plot(ax=ax)

    def plot(self, ax: Any = None) -> "JointEmbeddingDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure, 600 pixels wide.

        Returns
        -------
        display : JointEmbeddingDisplay
            This object.
        """
        ax = make_axes(ax, height=4.5)
        paths = np.stack(list(self.embeddings.values()), axis=1)
        for path in paths:
            points = path[~np.isnan(path).any(axis=1)]
            # With three or more modalities, the line returns to the first.
            corners = np.vstack([points, points[:1]]) if len(points) > 2 else points
            ax.plot(*corners.T, color=GREY, linewidth=0.6, alpha=0.6, zorder=1)
        groups = self._groups()
        for position, (name, points) in enumerate(self.embeddings.items()):
            marker = MARKERS[position % len(MARKERS)]
            modality_color = COLORS[position % len(COLORS)]
            for color, (_, rows) in zip((*COLORS, GREY), groups, strict=False):
                color = modality_color if self.y is None else color
                ax.scatter(
                    *points[rows].T, s=26, color=color, marker=marker, linewidth=0.4, edgecolor="white", zorder=2
                )
            # In the legend, markers are black if colours stand for classes.
            ax.scatter([], [], s=26, color=modality_color if self.y is None else "black", marker=marker, label=name)
        if self.y is not None:
            for color, (label, _) in zip((*COLORS, GREY), groups, strict=False):
                ax.plot([], [], color=color, linewidth=6, solid_capstyle="butt", label=label)
        ax.set(xlabel=f"component {self.components[0]}", ylabel=f"component {self.components[1]}")
        ax.grid(alpha=0.3)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _groups(self):
        """Return the label and the rows of each colour: each class, or the most frequent classes and all others."""
        if self.y is None:
            return [("", slice(None))]
        y = np.asarray(self.y)
        labels, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        if len(labels) <= len(COLORS):
            return [(str(label), codes == code) for code, label in enumerate(labels)]
        frequent = np.sort(np.argsort(-counts, kind="stable")[: len(COLORS)])
        groups = [(str(labels[code]), codes == code) for code in frequent]
        return [*groups, (f"{len(labels) - len(frequent)} others", ~np.isin(codes, frequent))]


class CanonicalCorrelationDisplay:
    """Correlations between the modalities in a joint embedding, component by component.

    Parameters
    ----------
    correlations : ndarray of shape (n_components,)
        Correlations in the rows of ``fit``, averaged over the pairs of modalities.

    correlations_in_X : ndarray of shape (n_components,) or None, default=None
        The same in other rows. If they are much smaller, the agreement in the rows of ``fit`` is partly chance.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the drawing.

    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    JointEmbeddingDisplay : The rows in two of the components.

    Examples
    --------
    >>> from skmm import CCAFusion
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import CanonicalCorrelationDisplay
    >>> X, y = make_multimodal_classification(shared=2.0, private=0.0, random_state=0)
    >>> fusion = CCAFusion(5, blocks="prefix").fit(X[:250])
    >>> display = CanonicalCorrelationDisplay.from_estimator(fusion, X[250:])
    >>> display.correlations_in_X.round(1).tolist()[0]
    1.0
    """

    def __init__(self, correlations: np.ndarray, correlations_in_X: np.ndarray | None = None):
        self.correlations = correlations
        self.correlations_in_X = correlations_in_X

    @classmethod
    def from_estimator(cls, estimator: Any, X: Table = None, *, ax: Any = None) -> "CanonicalCorrelationDisplay":
        """Draw the correlations in the rows that an estimator was fitted on, and those in other rows.

        Parameters
        ----------
        estimator : estimator
            A fitted joint embedding, a :class:`~skmm.ModalityFuser` with one, or a pipeline that begins with either.

        X : DataFrame or array-like of shape (n_samples, n_features), default=None
            Rows that ``fit`` has not seen. None draws only the correlations in the rows of ``fit``.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : CanonicalCorrelationDisplay
            The drawing.
        """
        joint, fuser = _find_joint(estimator)
        return cls(joint.correlations_, None if X is None else _correlations(_embed(joint, fuser, X))).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls, embeddings: dict[str, Matrix], embeddings_in_X: dict[str, Matrix] | None = None, *, ax: Any = None
    ) -> "CanonicalCorrelationDisplay":
        """Draw the correlations between modalities, from their points in a joint space.

        Parameters
        ----------
        embeddings : dict of str to array-like of shape (n_samples, n_components)
            Points of each modality of the rows of ``fit`` in the joint space, as ``transform_modality`` returns them;
            NaN where it is missing.

        embeddings_in_X : dict of str to array-like of shape (n_other_samples, n_components), default=None
            The same for rows that ``fit`` has not seen.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : CanonicalCorrelationDisplay
            The drawing.

        Examples
        --------
        >>> from skmm.inspection import CanonicalCorrelationDisplay
        >>> text, image = [[0.0, 1.0], [2.0, 0.0], [4.0, 1.0]], [[1.0, 1.0], [2.0, 2.0], [3.0, 1.0]]
        >>> CanonicalCorrelationDisplay.from_predictions({"text": text, "image": image}).correlations.round(2).tolist()
        [1.0, -1.0]
        """
        return cls(_correlations(embeddings), None if embeddings_in_X is None else _correlations(embeddings_in_X)).plot(
            ax=ax
        )

    def plot(self, ax: Any = None) -> "CanonicalCorrelationDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure, 600 pixels wide.

        Returns
        -------
        display : CanonicalCorrelationDisplay
            This object.
        """
        ax = make_axes(ax, height=3.5)
        numbers = np.arange(len(self.correlations))
        ax.plot(numbers, self.correlations, color=BLUE, marker="o", markersize=5, label="fit")
        if self.correlations_in_X is not None:
            ax.plot(numbers, self.correlations_in_X, color=VERMILION, marker="s", markersize=5, label="X")
            ax.legend(title="rows of")
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set(xlabel="component", ylabel="correlation between modalities")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _correlations(embeddings):
    """Return the correlation of each component, averaged over pairs of modalities, in the rows that have both."""
    matrices = [np.asarray(values, dtype=float) for values in embeddings.values()]
    by_pair = []
    for a, b in combinations(matrices, 2):
        both = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1))
        if np.count_nonzero(both) > 1:
            a, b = (points[both] - points[both].mean(axis=0) for points in (a, b))
            scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
            by_pair.append(np.divide((a * b).sum(axis=0), scale, out=np.zeros_like(scale), where=scale > 0))
    if not by_pair:
        raise ValueError(
            "CanonicalCorrelationDisplay: correlations need at least 2 rows that have the same two modalities; pass "
            "more rows."
        )
    return np.mean(by_pair, axis=0)
