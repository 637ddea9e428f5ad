"""Drawing of a comparison of strategies."""

from textwrap import fill

import numpy as np

from .._plot import VERMILION, make_axes
from ._styles import LEVEL_STYLES

# Longer names leave too little of a figure 600 pixels wide.
_NAME_WIDTH = 20


class FusionComparisonDisplay:
    """Means of all strategies with their intervals, beside the best single modality.

    Parameters
    ----------
    frame : pandas.DataFrame
        Table of a comparison, as :meth:`FusionComparison.to_frame` gives it.

    fold_scores : pandas.DataFrame of shape (n_folds, n_strategies)
        Scores of all folds, by strategy.

    score_name : str, default="score"
        Name of the score, for the axis.

    confidence : float, default=0.95
        Confidence of the intervals, for the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes that were drawn into.

    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    compare_fusions : What it draws.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm.model_selection import FusionComparisonDisplay, compare_fusions
    >>> X, y = load_iris(return_X_y=True)
    >>> modalities = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
    >>> comparison = compare_fusions(X, y, modalities, LogisticRegression(), levels=("single", "joint"))
    >>> display = FusionComparisonDisplay.from_comparison(comparison)
    >>> display.ax_.get_xlabel()
    'score, mean and 95 % interval over 5 folds'
    """

    def __init__(self, frame, fold_scores, *, score_name="score", confidence=0.95):
        self.frame = frame
        self.fold_scores = fold_scores
        self.score_name = score_name
        self.confidence = confidence

    @classmethod
    def from_comparison(cls, comparison, metric=None, *, ax=None):
        """Draw what :func:`compare_fusions` returned.

        Parameters
        ----------
        comparison : FusionComparison
            Scores of strategies.

        metric : str or None, default=None
            Name of a scorer; None means the one that says which strategy is best.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : FusionComparisonDisplay
            Drawn already.
        """
        display = cls(
            comparison.to_frame(metric),
            comparison.fold_scores(metric),
            score_name=metric or comparison.best_metric or comparison.metrics[0],
            confidence=comparison.confidence,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure, 600 pixels wide.

        Returns
        -------
        display : FusionComparisonDisplay
            This object.
        """
        frame = self.frame[self.frame["mean"].notna()]
        positions = np.arange(len(frame))[::-1]
        ax = make_axes(ax, height=1.4 + 0.3 * len(frame))
        reference = frame.loc[frame["verdict"] == "best single", "mean"]
        if len(reference):
            ax.axvline(reference.iloc[0], color=VERMILION, linestyle="--", zorder=1, label="best single")
        shown = set()
        for position, (label, row) in zip(positions, frame.iterrows(), strict=True):
            color, marker = LEVEL_STYLES[row["level"]]
            folds = self.fold_scores[label]
            ax.plot(folds, np.full(len(folds), position), "|", color=color, alpha=0.5, markersize=6, zorder=2)
            ax.errorbar(
                row["mean"],
                position,
                xerr=[[row["mean"] - row["low"]], [row["high"] - row["mean"]]],
                color=color,
                marker=marker,
                capsize=3,
                zorder=3,
                label=None if row["level"] in shown else row["level"],
            )
            shown.add(row["level"])
            if row["gain"] == row["gain"]:
                star = "*" if row["verdict"] in ("better", "worse") else ""
                ax.annotate(
                    f"{row['gain']:+.3f}{star}",
                    (1.01, position),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize=8,
                )
        ax.set_yticks(positions, [fill(label, _NAME_WIDTH) for label in frame.index])
        interval = f"mean and {100 * self.confidence:g} % interval over {len(self.fold_scores)} folds"
        ax.set(xlabel=f"{self.score_name}, {interval}", ylim=(-0.6, len(frame) - 0.4))
        if len(reference):
            ax.annotate("gain", (1.01, len(frame) - 0.45), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
        ax.grid(axis="x", alpha=0.3)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=8)
        self.ax_, self.figure_ = ax, ax.figure
        return self
