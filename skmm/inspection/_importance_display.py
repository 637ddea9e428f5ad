"""Drawing of the importance of modalities and of their interactions."""

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from .._plot import BLUE, make_axes
from .._typing import Items, Table
from ._importance import modality_importance
from ._scoring import check_one_result

# Largest number of modalities whose interactions are written as numbers; more do not fit in 600 pixels.
_MAX_NUMBERED = 6


class ModalityImportanceDisplay:
    """Bars of the importance of each modality, or a table of the interactions of pairs.

    Parameters
    ----------
    result : Bunch
        Result of :func:`modality_importance` for one score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the drawing.

    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    modality_importance : Computes what is drawn.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm import ModalityVotingClassifier
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import ModalityImportanceDisplay
    >>> data = make_multimodal_classification(private=[2, 1], return_X_y=False, random_state=0)
    >>> vote = ModalityVotingClassifier(
    ...     [(name, LogisticRegression(), columns) for name, columns in data.modalities.items()]
    ... ).fit(data.X[:250], data.y[:250])
    >>> display = ModalityImportanceDisplay.from_estimator(vote, data.X[250:], data.y[250:], random_state=0)
    >>> display.ax_.get_xlabel()
    'Shapley value of accuracy (bars: 2 standard deviations)'
    """

    def __init__(self, result: Bunch):
        self.result = result

    @classmethod
    def from_estimator(
        cls, estimator, X: Table, y: Items, *, kind: str = "importance", ax: Any = None, **options
    ) -> "ModalityImportanceDisplay":
        """Measure the importance of the modalities of a fitted estimator, and draw it.

        Parameters
        ----------
        estimator : estimator
            Fitted on all modalities.

        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, preferably rows that ``fit`` has not seen.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        kind : {"importance", "interactions"}, default="importance"
            What to draw.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        **options : dict
            Other parameters of :func:`modality_importance`, with one score.

        Returns
        -------
        display : ModalityImportanceDisplay
            The drawing.
        """
        return cls(modality_importance(estimator, X, y, **options)).plot(ax=ax, kind=kind)

    def plot(self, ax: Any = None, *, kind: str = "importance") -> "ModalityImportanceDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure, 600 pixels wide.

        kind : {"importance", "interactions"}, default="importance"
            What to draw: bars in order of importance, or the pairs, with synergy above 0 and redundancy below 0. For up
            to 6 modalities, the numbers are written as well.

        Returns
        -------
        display : ModalityImportanceDisplay
            This object.
        """
        check_one_result(self.result, type(self).__name__)
        if kind not in ("importance", "interactions"):
            raise ValueError(f"{type(self).__name__}: kind must be 'importance' or 'interactions', got {kind!r}.")
        if kind == "interactions" and self.result.interactions_mean is None:
            raise ValueError(
                f"{type(self).__name__}: the result has no interactions; compute it with interactions=True."
            )
        n_modalities = len(self.result.modalities)
        ax = make_axes(ax, height=1.3 + (0.35 if kind == "importance" else 0.5) * max(n_modalities, 3))
        (self._plot_bars if kind == "importance" else self._plot_pairs)(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_bars(self, ax):
        result = self.result
        order = np.argsort(result.importances_mean, kind="stable")
        ax.barh(
            [result.modalities[i] for i in order],
            result.importances_mean[order],
            xerr=2 * result.importances_std[order],
            color=BLUE,
            error_kw={"capsize": 3, "elinewidth": 1.2},
        )
        ax.axvline(0, color="black", linewidth=0.8)
        measure = {
            "shapley": "Shapley value of",
            "ablation": "ablation: loss of",
            "permutation": "permutation: loss of",
        }
        ax.set_xlabel(f"{measure[result.method]} {result.score_name} (bars: 2 standard deviations)")
        ax.grid(axis="x", alpha=0.3)
        ax.set_axisbelow(True)

    def _plot_pairs(self, ax):
        result = self.result
        pairs = np.where(np.eye(len(result.modalities), dtype=bool), np.nan, result.interactions_mean)
        bound = max(np.nanmax(np.abs(pairs)), 1e-12) if np.isfinite(pairs).any() else 1.0
        image = ax.imshow(pairs, cmap="PuOr_r", vmin=-bound, vmax=bound, aspect="auto")
        places = range(len(result.modalities))
        for (i, j), value in np.ndenumerate(pairs):
            # With more modalities, cells are narrower than a number.
            if np.isfinite(value) and len(pairs) <= _MAX_NUMBERED:
                # White on dark colours.
                color = "white" if abs(value) > 0.6 * bound else "black"
                text = f"{value:+.3f}\n± {2 * result.interactions_std[i, j]:.3f}"
                ax.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
        # About 50 letters fit in the width of the figure, including the names to the left of the cells.
        crowded = (len(pairs) + 1) * max(len(str(name)) for name in result.modalities) > 50
        ax.set_xticks(places, result.modalities, rotation=90 if crowded else 0)
        ax.set_yticks(places, result.modalities)
        ax.figure.colorbar(image, ax=ax, label="redundancy < 0 < synergy")
        spread = " (± 2 standard deviations)" if len(pairs) <= _MAX_NUMBERED else ""
        ax.set_title(f"interactions, in {result.score_name}{spread}", fontsize=10)
