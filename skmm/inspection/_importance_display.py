"""Drawing of the importance of modalities and of their interactions."""

import numpy as np

from .._plot import BLUE, make_axes
from ._importance import modality_importance
from ._predictions import importance_of_predictions
from ._scoring import check_one_result

# Of a figure 600 pixels wide; with more, colours alone tell the interactions.
_MAX_NUMBERED = 6


class ModalityImportanceDisplay:
    """Bars of what each modality adds, or a table of what pairs do together.

    Parameters
    ----------
    result : Bunch
        What :func:`modality_importance` gives for one score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes that were drawn into.

    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    modality_importance : What it draws.

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

    def __init__(self, result):
        self.result = result

    @classmethod
    def from_estimator(cls, estimator, X, y, *, kind="importance", ax=None, **options):
        """Measure the importance of the modalities of a fitted estimator, and draw it.

        Parameters
        ----------
        estimator : estimator
            Fitted on all modalities.

        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, best such as ``fit`` has not seen.

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
            Drawn already.
        """
        return cls(modality_importance(estimator, X, y, **options)).plot(ax=ax, kind=kind)

    @classmethod
    def from_predictions(
        cls,
        y_true,
        predictions,
        *,
        metric=None,
        n_repeats=10,
        sample_weight=None,
        random_state=None,
        kind="importance",
        ax=None,
    ):
        """Draw the Shapley values of modalities from predictions that are there already.

        They may come from one model with modalities taken away, or from one model for each subset.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        predictions : dict of tuple of str to array-like of shape (n_samples, ...)
            Predictions from each subset of the modalities: ``()`` for none, ``("text",)`` or ``"text"`` for one, up to
            all of them. In any form that ``metric`` takes.

        metric : callable, default=None
            ``metric(y_true, y_pred)`` gives a score that is higher for better predictions. None means the accuracy for
            classes and R² for numbers.

        n_repeats : int, default=10
            Number of bootstrap samples of rows.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights for the metric.

        random_state : int, RandomState instance or None, default=None
            Seed of the bootstrap samples.

        kind : {"importance", "interactions"}, default="importance"
            What to draw.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : ModalityImportanceDisplay
            Drawn already.

        Raises
        ------
        ValueError
            If a subset has no predictions.

        Examples
        --------
        >>> from skmm.inspection import ModalityImportanceDisplay
        >>> y, image = [0, 0, 1, 1], [0, 1, 0, 1]
        >>> predictions = {(): [0, 0, 0, 0], "text": y, "image": image, ("text", "image"): y}
        >>> display = ModalityImportanceDisplay.from_predictions(y, predictions)
        >>> dict(zip(display.result.modalities, display.result.importances_mean.tolist()))
        {'text': 0.5, 'image': 0.0}
        """
        result = importance_of_predictions(y_true, predictions, metric, n_repeats, sample_weight, random_state)
        return cls(result).plot(ax=ax, kind=kind)

    def plot(self, ax=None, *, kind="importance"):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure, 600 pixels wide.

        kind : {"importance", "interactions"}, default="importance"
            What to draw: bars in order of importance, or the pairs, with synergy above 0 and redundancy below; in
            numbers as well for up to 6 modalities.

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
            # Cells of more modalities are narrower than a number.
            if np.isfinite(value) and len(pairs) <= _MAX_NUMBERED:
                # White on the dark ends of the colours.
                color = "white" if abs(value) > 0.6 * bound else "black"
                text = f"{value:+.3f}\n± {2 * result.interactions_std[i, j]:.3f}"
                ax.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
        # Some 50 letters fit beside each other, those of the names to the left of the cells among them.
        crowded = (len(pairs) + 1) * max(len(str(name)) for name in result.modalities) > 50
        ax.set_xticks(places, result.modalities, rotation=90 if crowded else 0)
        ax.set_yticks(places, result.modalities)
        ax.figure.colorbar(image, ax=ax, label="redundancy < 0 < synergy")
        spread = " (± 2 standard deviations)" if len(pairs) <= _MAX_NUMBERED else ""
        ax.set_title(f"interactions, in {result.score_name}{spread}", fontsize=10)
