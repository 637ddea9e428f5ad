"""Drawing of scores as modalities go missing."""

from typing import Any

from sklearn.utils import Bunch

from .._plot import COLORS, MARKERS, make_axes
from .._typing import Items, Table
from ._robustness import missing_modality_curve
from ._scoring import check_one_result

_VERBS = {
    "remove": "without it",
    "noise": "with noise on it",
    "blur": "with it blurred",
    "drop_words": "with words of it dropped",
    "custom": "with it corrupted",
}


class MissingModalityCurveDisplay:
    """Score against the share of rows that lose a modality, one curve for each.

    Parameters
    ----------
    result : Bunch
        Result of :func:`missing_modality_curve` for one score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the drawing.

    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    missing_modality_curve : Computes what is drawn.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm import ModalityVotingClassifier
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import MissingModalityCurveDisplay
    >>> data = make_multimodal_classification(private=[2, 1], return_X_y=False, random_state=0)
    >>> vote = ModalityVotingClassifier(
    ...     [(name, LogisticRegression(), columns) for name, columns in data.modalities.items()]
    ... ).fit(data.X[:250], data.y[:250])
    >>> display = MissingModalityCurveDisplay.from_estimator(vote, data.X[250:], data.y[250:], random_state=0)
    >>> display.ax_.get_xlabel()
    'rows without it [%]'
    """

    def __init__(self, result: Bunch):
        self.result = result

    @classmethod
    def from_estimator(
        cls, estimator, X: Table, y: Items, *, ax: Any = None, **options
    ) -> "MissingModalityCurveDisplay":
        """Score a fitted estimator as modalities go missing, and draw the curves.

        Parameters
        ----------
        estimator : estimator
            Fitted.

        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, preferably rows that ``fit`` has not seen.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        **options : dict
            Other parameters of :func:`missing_modality_curve`, with one score.

        Returns
        -------
        display : MissingModalityCurveDisplay
            The drawing.
        """
        return cls(missing_modality_curve(estimator, X, y, **options)).plot(ax=ax)

    def plot(self, ax: Any = None) -> "MissingModalityCurveDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure, 600 pixels wide.

        Returns
        -------
        display : MissingModalityCurveDisplay
            This object.
        """
        result = self.result
        check_one_result(result, type(self).__name__)
        ax = make_axes(ax)
        for position, (name, mean, std) in enumerate(
            zip(result.curves, result.scores_mean, result.scores_std, strict=True)
        ):
            color, marker = COLORS[position % len(COLORS)], MARKERS[position % len(MARKERS)]
            ax.plot(100 * result.shares, mean, color=color, marker=marker, markersize=5, label=name)
            ax.fill_between(100 * result.shares, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
        ax.set(xlabel=f"rows {_VERBS[result.corruption]} [%]", ylabel=result.score_name)
        ax.grid(alpha=0.3)
        ax.legend(title="modality")
        self.ax_, self.figure_ = ax, ax.figure
        return self
