"""What a comparison of strategies found: scores, times, tests, and how to show them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ._html import page
from ._statistics import corrected_t_test, gain_over_best, holm

# Verdicts of a row.
BETTER, WORSE, EQUAL, BEST_SINGLE, FAILED = "better", "worse", "no difference shown", "best single", "failed"


@dataclass
class Run:
    """One strategy in one fold: its scores by metric, times in seconds, and what a search within it chose."""

    scores: dict = field(default_factory=dict)
    fit_time: float = np.nan
    predict_time: float = np.nan
    params: dict | None = None
    error: str = ""


@dataclass
class Row:
    """All runs of one strategy."""

    label: str
    level: str
    runs: list

    @property
    def error(self):
        """Say what went wrong, if anything did."""
        errors = [run.error for run in self.runs if run.error]
        return f"{len(errors)} of {len(self.runs)} folds: {errors[0]}" if errors else ""

    def scores(self, metric):
        """Give the scores of all folds."""
        return np.array([run.scores[metric] for run in self.runs], dtype=float)


class FusionComparison:
    """Scores of strategies of fusion on the same folds, with intervals and tests.

    It is what :func:`compare_fusions` returns.

    Parameters
    ----------
    rows : list of Row
        One per strategy, with one run per fold.

    test_share : float
        Size of a test set divided by that of its training set.

    confidence : float, default=0.95
        Confidence of all intervals; one less it is the level of the tests.

    best_metric : str or None, default=None
        Name of the scorer that says which strategy is best. None means the first.

    Attributes
    ----------
    metrics : list of str
        Names of the scorers; ``"score"`` for one that has no name.

    best_strategy_ : str or None
        Name of the strategy of the highest mean; None if all failed.

    best_estimator_ : estimator
        This strategy, fitted on all data. Only if ``refit`` is not False, nothing was interrupted and the fit did not
        fail. Of a strategy that was tuned it is the fitted :class:`~sklearn.model_selection.GridSearchCV`.

    See Also
    --------
    compare_fusions : Makes it.
    FusionComparisonDisplay : What ``plot`` gives.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm.model_selection import compare_fusions
    >>> X, y = load_iris(return_X_y=True)
    >>> modalities = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
    >>> comparison = compare_fusions(X, y, modalities, LogisticRegression(), levels=("single", "feature"))
    >>> comparison
    FusionComparison of 7 strategies over 5 folds: petal alone is highest, with a mean score of 0.967
    >>> comparison.fold_scores().shape
    (5, 7)
    """

    def __init__(self, rows, test_share, confidence=0.95, best_metric=None):
        self.rows = rows
        self.test_share = test_share
        self.confidence = confidence
        self.best_metric = best_metric

    @property
    def _finished(self):
        return [row for row in self.rows if not row.error]

    @property
    def metrics(self):
        """Names of the scorers."""
        return list(self._finished[0].runs[0].scores) if self._finished else []

    @property
    def best_strategy_(self):
        """Name of the strategy of the highest mean."""
        if not self._finished:
            return None
        metric = self._check_metric(None)
        return max(self._finished, key=lambda row: row.scores(metric).mean()).label

    def _check_metric(self, metric):
        if not self._finished:
            raise ValueError(
                f"All strategies failed, so there are no scores; {self.rows[0].label!r}: {self.rows[0].error}"
            )
        metric = metric or self.best_metric or self.metrics[0]
        if metric not in self.metrics:
            raise ValueError(f"metric={metric!r} is not among those scored: {self.metrics}.")
        return metric

    def fold_scores(self, metric=None):
        """Give the scores of all folds.

        Parameters
        ----------
        metric : str or None, default=None
            Name of a scorer; None means the one that says which strategy is best.

        Returns
        -------
        scores : pandas.DataFrame of shape (n_folds, n_strategies)
            One column per strategy that did not fail.
        """
        import pandas as pd

        metric = self._check_metric(metric)
        return pd.DataFrame({row.label: row.scores(metric) for row in self._finished})

    def chosen_params(self):
        """Give the parameters that the search within each fold chose, for the strategies that were tuned.

        Returns
        -------
        params : dict of str to list of dict
            One dict per fold, by strategy.
        """
        return {row.label: [run.params for run in row.runs] for row in self._finished if row.runs[0].params is not None}

    def to_frame(self, metric=None):
        """Give one row per strategy, the best first.

        Parameters
        ----------
        metric : str or None, default=None
            Name of a scorer; None means the one that says which strategy is best.

        Returns
        -------
        frame : pandas.DataFrame
            With the strategies as index, and the columns

            - ``level``: what is joined, ``"single"`` for nothing;
            - ``mean``, ``sd``: of the scores over folds;
            - ``low``, ``high``: confidence interval of the mean, corrected for the overlap of training sets;
            - ``gain``, ``gain_low``, ``gain_high``: difference to the highest mean of a single modality, and its
              interval;
            - ``p``, ``p_holm``: two-sided p-value of the gain, as it is and by Holm's correction;
            - ``verdict``: ``"better"``, ``"worse"`` or ``"no difference shown"`` by ``p_holm``; ``"best single"``
              for the highest single modality, ``"failed"`` for a strategy without scores;
            - ``fit_time``, ``predict_time``: mean seconds to fit, and to predict and score;
            - ``error``: what went wrong in how many folds, or an empty string.
        """
        import pandas as pd

        records = [self._record(row, metric) for row in self.rows]
        frame = pd.DataFrame(records).set_index("strategy")
        tested = frame["p"].notna()
        frame.loc[tested, "p_holm"] = holm(frame.loc[tested, "p"])
        clear = frame["p_holm"] < 1 - self.confidence
        frame.loc[tested, "verdict"] = EQUAL
        frame.loc[clear, "verdict"] = np.where(frame.loc[clear, "gain"] > 0, BETTER, WORSE)
        singles = frame.loc[frame["level"] == "single", "mean"].dropna()
        if len(singles):
            frame.loc[singles.idxmax(), "verdict"] = BEST_SINGLE
        return frame.sort_values("mean", ascending=False, kind="stable", na_position="last")

    def _record(self, row, metric):
        """Give what can be said of a strategy without the other tests."""
        blank = dict.fromkeys(
            ("mean", "sd", "low", "high", "gain", "gain_low", "gain_high", "p", "p_holm"), float("nan")
        )
        record = {"strategy": row.label, "level": row.level, **blank, "verdict": ""}
        times = {name: np.mean([getattr(run, name) for run in row.runs]) for name in ("fit_time", "predict_time")}
        if row.error:
            return {**record, "verdict": FAILED, **times, "error": row.error}
        metric = self._check_metric(metric)
        scores = row.scores(metric)
        # What is true of differences is true of scores: those of overlapping training sets vary less than they should.
        interval = corrected_t_test(scores, self.test_share, confidence=self.confidence)
        record.update(mean=interval.mean, sd=scores.std(ddof=1), low=interval.low, high=interval.high)
        references = [other.scores(metric) for other in self._finished if other.level == "single"]
        if references and row.level != "single":
            gain, low, high, p = gain_over_best(scores, references, self.test_share, self.confidence)
            record.update(gain=gain, gain_low=low, gain_high=high, p=p)
        return {**record, **times, "error": ""}

    def plot(self, metric=None, *, ax=None):
        """Draw the means of all strategies with their intervals.

        Parameters
        ----------
        metric : str or None, default=None
            Name of a scorer; None means the one that says which strategy is best.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : FusionComparisonDisplay
            Holds the table, the axes and the figure.
        """
        # It makes comparisons itself.
        from ._display import FusionComparisonDisplay

        return FusionComparisonDisplay.from_comparison(self, metric, ax=ax)

    def to_html(self, path=None, *, title="Comparison of fusions"):
        """Write a page with tables and drawings of all scorers, which opens without a network.

        Parameters
        ----------
        path : str, Path or None, default=None
            Where to write it.

        title : str, default="Comparison of fusions"
            Heading of the page.

        Returns
        -------
        html : str
            The page.
        """
        html = page(self, title)
        if path is not None:
            Path(path).write_text(html, encoding="utf-8")
        return html

    def __repr__(self):
        counted = f"FusionComparison of {len(self.rows)} strategies over {len(self.rows[0].runs)} folds"
        if self.best_strategy_ is None:
            return f"{counted}: all failed"
        metric = self._check_metric(None)
        mean = self.fold_scores()[self.best_strategy_].mean()
        return f"{counted}: {self.best_strategy_} is highest, with a mean {metric} of {mean:.3g}"
