"""Drawing of scores as modalities go missing."""

from .._plot import COLORS, MARKERS, make_axes
from ._predictions import curve_of_predictions
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
        What :func:`missing_modality_curve` gives for one score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes that were drawn into.

    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    missing_modality_curve : What it draws.

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

    def __init__(self, result):
        self.result = result

    @classmethod
    def from_estimator(cls, estimator, X, y, *, ax=None, **options):
        """Score a fitted estimator as modalities go missing, and draw the curves.

        Parameters
        ----------
        estimator : estimator
            Fitted.

        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, best such as ``fit`` has not seen.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        **options : dict
            Other parameters of :func:`missing_modality_curve`, with one score.

        Returns
        -------
        display : MissingModalityCurveDisplay
            Drawn already.
        """
        return cls(missing_modality_curve(estimator, X, y, **options)).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_pred,
        predictions,
        *,
        metric=None,
        shares=None,
        n_repeats=5,
        sample_weight=None,
        random_state=None,
        ax=None,
    ):
        """Draw the curves from predictions with all modalities and with some missing in all rows.

        At each share, rows drawn at random have their predictions replaced by those without the modality. A
        prediction must not depend on other rows.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        y_pred : array-like of shape (n_samples, ...)
            Predictions with all modalities, in any form that ``metric`` takes.

        predictions : dict of str to array-like of shape (n_samples, ...)
            For each curve, the predictions where its modality is missing in all rows.

        metric : callable, default=None
            ``metric(y_true, y_pred)`` gives a score that is higher for better predictions. None means the accuracy for
            classes and R² for numbers.

        shares : array-like of float, default=None
            Shares of rows, in [0, 1]. None means 0, 0.1, ..., 1.

        n_repeats : int, default=5
            Number of random choices of the rows.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights for the metric.

        random_state : int, RandomState instance or None, default=None
            Seed of the rows.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : MissingModalityCurveDisplay
            Drawn already.

        Examples
        --------
        >>> from skmm.inspection import MissingModalityCurveDisplay
        >>> without = {"text": [0, 1, 0, 1], "image": [0, 0, 1, 1]}
        >>> display = MissingModalityCurveDisplay.from_predictions([0, 0, 1, 1], [0, 0, 1, 1], without, shares=[0, 1])
        >>> display.result.scores_mean
        array([[1. , 0.5],
               [1. , 1. ]])
        """
        result = curve_of_predictions(
            y_true, y_pred, predictions, metric, shares, n_repeats, sample_weight, random_state
        )
        return cls(result).plot(ax=ax)

    def plot(self, ax=None):
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
