"""Drawing of a comparison of strategies."""

from textwrap import fill

import numpy as np
from sklearn.utils import check_consistent_length

from .._plot import VERMILION, make_axes
from .._sklearn import safe_indexing
from ._compare import compare_fusions
from ._comparison import FusionComparison, Row, Run
from ._strategies import EXTRA, LEVELS
from ._styles import LEVEL_STYLES

# Longer names leave too little of a figure 600 pixels wide.
_NAME_WIDTH = 20


class FusionComparisonDisplay:
    """Means of all strategies with their intervals, beside the best single modality.

    Short strokes are the folds. At the right stand the gains, with a star if the verdict is better or worse.

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

    @classmethod
    def from_estimator(cls, estimator, X, y, modalities, *, ax=None, **options):
        """Compare strategies of fusion with one estimator, and draw.

        Parameters
        ----------
        estimator : classifier or regressor
            Predicts from the features of a modality, or from fused features; fitted anew in every fold.

        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        modalities : list of (str, transformer, columns)
            At least two modalities, as in :class:`~skmm.ModalityFuser`.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        **options : dict
            Other parameters of :func:`compare_fusions`; ``refit`` is False unless given, as a drawing needs no fit
            on all data. Of several scorers the first is drawn, or the one that ``refit`` names.

        Returns
        -------
        display : FusionComparisonDisplay
            Drawn already.
        """
        return cls.from_comparison(compare_fusions(X, y, modalities, estimator, **{"refit": False, **options}), ax=ax)

    @classmethod
    def from_predictions(
        cls, y_true, predictions, folds, *, levels=None, metric, score_name=None, confidence=0.95, ax=None
    ):
        """Draw strategies whose predictions are there already, each out of fold.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        predictions : dict of str to array-like of shape (n_samples, ...)
            By strategy, the prediction of each row by a model that was fitted on all other folds, as
            :func:`~sklearn.model_selection.cross_val_predict` gives it, in any form that ``metric`` takes.

        folds : array-like of shape (n_samples,)
            For each row the fold that it was left out in, the same for all strategies.

        levels : dict of str to {"single", "feature", "joint", "decision", "model"}, default=None
            Levels of strategies, ``"extra"`` for those it does not have. Gains and tests need some that are
            ``"single"``.

        metric : callable
            ``metric(y_true, y_pred)`` gives a score that is higher for better predictions.

        score_name : str, default=None
            Name of the score; None means that of the metric.

        confidence : float, default=0.95
            Confidence of the intervals.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : FusionComparisonDisplay
            Drawn already.

        Raises
        ------
        ValueError
            If there are fewer than two folds, or if ``levels`` has unknown strategies or levels.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.metrics import accuracy_score
        >>> from sklearn.model_selection import cross_val_predict
        >>> from skmm.model_selection import FusionComparisonDisplay
        >>> X, y = load_iris(return_X_y=True)
        >>> folds = np.arange(len(y)) % 5
        >>> splits = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(5)]
        >>> views = {"sepal": X[:, :2], "petal": X[:, 2:], "both": X}
        >>> estimator = LogisticRegression(max_iter=200)
        >>> predictions = {name: cross_val_predict(estimator, view, y, cv=splits) for name, view in views.items()}
        >>> levels = {"sepal": "single", "petal": "single", "both": "feature"}
        >>> display = FusionComparisonDisplay.from_predictions(
        ...     y, predictions, folds, levels=levels, metric=accuracy_score
        ... )
        >>> display.frame["mean"].round(2).to_dict()
        {'petal': 0.96, 'both': 0.96, 'sepal': 0.8}
        """
        levels = levels or {}
        if not set(levels) <= set(predictions) or not set(levels.values()) <= {*LEVELS, EXTRA}:
            raise ValueError(
                f"levels must give strategies among {list(predictions)} a level of {[*LEVELS, EXTRA]}, got {levels!r}."
            )
        check_consistent_length(y_true, folds, *predictions.values())
        folds = np.asarray(folds)
        tests = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
        if len(tests) < 2:
            raise ValueError(f"folds must name at least 2 folds to compare scores over, got {len(tests)}.")
        name = score_name or getattr(metric, "__name__", "score")

        def run(y_pred, test):
            score = metric(safe_indexing(y_true, test), safe_indexing(y_pred, test))
            return Run({name: float(score)})

        rows = [
            Row(label, levels.get(label, EXTRA), [run(y_pred, test) for test in tests])
            for label, y_pred in predictions.items()
        ]
        share = np.mean([len(test) / (len(folds) - len(test)) for test in tests])
        return cls.from_comparison(FusionComparison(rows, share, confidence), ax=ax)

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
