"""Scores of a fitted estimator as more and more rows lose a modality, and their drawing."""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch, check_consistent_length, check_random_state

from .._plot import COLORS, MARKERS, make_axes
from .._sklearn import HasMethods, Interval, StrOptions, check_sample_weight, validate_params
from .._typing import Items, RandomState, Table
from ._columns import ModalityColumns, blank, mix
from ._corruption import STRENGTHS, corrupt
from ._scoring import (
    SCORING,
    Answers,
    cannot_predict,
    check_one_result,
    has_several,
    in_threads,
    resolve_scorers,
)

# What happens to the rows in the label of the axis, by corruption.
_VERBS = {
    "remove": "without it",
    "noise": "with noise on it",
    "blur": "with it blurred",
    "drop_words": "with words of it dropped",
    "custom": "with it corrupted",
}


@validate_params(
    {
        "estimator": [HasMethods(["fit"])],
        "modalities": [dict, None],
        "lose": [list, None],
        "shares": ["array-like", None],
        "corruption": [StrOptions({"remove", *STRENGTHS}), callable, dict],
        "strength": [Interval(Real, 0, None, closed="left"), None],
        "scoring": SCORING,
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "sample_weight": ["array-like", None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def missing_modality_curve(
    estimator: Any,
    X: Table,
    y: Items,
    *,
    modalities: dict | None = None,
    lose: list | None = None,
    shares: ArrayLike | None = None,
    corruption: str | Callable | dict = "remove",
    strength: float | None = None,
    scoring: Any = None,
    n_repeats: int = 5,
    sample_weight: ArrayLike | None = None,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> Bunch | dict[str, Bunch]:
    """Score a fitted estimator as a growing share of the rows loses modalities, or has them corrupted.

    Rows are chosen at random. A row that loses a modality at one share also lacks it at all larger shares.

    Parameters
    ----------
    estimator : estimator
        Fitted. Its prediction for a row must not depend on the other rows.

    X : DataFrame or array-like of shape (n_samples, n_features)
        Data, preferably rows that ``fit`` has not seen.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Target.

    modalities : dict of str to columns, default=None
        Columns of each modality, as in :func:`modality_importance`. None means the modalities of the estimator,
        or of the first step of a pipeline.

    lose : list of str or tuple of str, default=None
        Curves to compute: each entry is a modality, or several that are lost in the same rows. None means each
        modality alone.

    shares : array-like of float, default=None
        Shares of rows, in [0, 1]. None means 0, 0.1, ..., 1.

    corruption : {"remove", "noise", "blur", "drop_words"}, callable or dict, default="remove"
        - ``"remove"``: the modality is missing;
        - ``"noise"``: normal noise is added to numbers, with a standard deviation of ``strength`` (default: 1) times
          that of the column; or to arrays, PIL images and sounds (waveforms alone, with their rate or in a dict), in
          units of the standard deviation within the items of the column. Arrays stay within their range;
        - ``"blur"``: images and videos are blurred by a Gaussian whose standard deviation is ``strength`` (default:
          0.05) times the shorter side;
        - ``"drop_words"``: each word of a text is dropped with probability ``strength`` (default: 0.5); at least one
          remains;
        - callable: takes an item and a random state, and returns an item;
        - dict: one of these for each modality that is lost.

    strength : float, default=None
        Strength of the corruption, in the units that ``corruption`` describes.

    scoring : str, callable, list, tuple or dict, default=None
        One or several scores, as in :func:`modality_importance`. With scikit-learn's own scorers the estimator predicts
        once with all modalities, and once for each curve (for each of its repeats if the corruption is random), not
        for each share.

    n_repeats : int, default=5
        Number of random choices of the rows.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights for the scores.

    n_jobs : int or None, default=None
        Number of curves computed at the same time, in threads. None means 1.

    random_state : int, RandomState instance or None, default=None
        Seed of the rows and of the corruption.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch` or dict of str to Bunch
        A dict if there are several scores. With the following attributes.

        curves : list of str
            Names of the curves: modalities, joined by " + ".
        shares : ndarray of shape (n_shares,)
            Shares of rows.
        scores : ndarray of shape (n_curves, n_shares, n_repeats)
            Scores of each repeat.
        scores_mean, scores_std : ndarray of shape (n_curves, n_shares)
            Mean and standard deviation over the repeats.
        corruption : str
            The parameter ``corruption`` if it is a string, otherwise "custom".
        score_name : str
            Name of the score.

    Raises
    ------
    ValueError
        If ``lose`` or ``corruption`` contains an unknown name, if ``shares`` leaves [0, 1], if a corruption does not
        suit the items, or if the estimator fails where a modality is missing.

    See Also
    --------
    MissingModalityCurveDisplay : Draws the result.
    modality_importance : Importance of each modality.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skmm import ModalityFuser
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import missing_modality_curve
    >>> data = make_multimodal_classification(private=[2, 1], return_X_y=False, random_state=0)
    >>> fuser = ModalityFuser([(name, "passthrough", columns) for name, columns in data.modalities.items()])
    >>> model = make_pipeline(fuser, LogisticRegression()).fit(data.X[:250], data.y[:250])
    >>> result = missing_modality_curve(model, data.X[250:], data.y[250:], shares=[0, 0.5, 1], random_state=0)
    >>> result.curves
    ['a', 'b']
    >>> result.scores_mean.round(2)
    array([[0.99, 0.9 , 0.82],
           [0.99, 0.98, 0.97]])
    """
    columns = ModalityColumns(estimator, X, modalities)
    check_consistent_length(columns.X, y)
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, np.empty(columns.n_samples))
    groups = _check_lost(lose, columns.names)
    corruptions = _check_corruption(corruption, groups)
    shares = _check_shares(shares)
    scorers = resolve_scorers(estimator, scoring)
    rng = check_random_state(random_state)
    draws = [(rng.permutation(columns.n_samples), rng.randint(2**31 - 1)) for _ in range(n_repeats)]

    intact = Answers(estimator, lambda: columns.X)
    for scorer in scorers.values():
        # First with all modalities, so that an error is raised as it is, and so that all threads share the answers.
        intact.score(scorer, y, sample_weight)
    arguments = (corruptions, strength, shares, draws, intact, scorers, columns, y, sample_weight)
    by_curve = list(in_threads(n_jobs, _curve, ((group, *arguments) for group in groups)))
    # Of shape (n_curves, n_shares, n_repeats, n_scores).
    scores = np.moveaxis(np.array(by_curve), 1, 2)
    results = {
        name: Bunch(
            curves=[" + ".join(group) for group in groups],
            shares=shares,
            scores=scores[..., position],
            scores_mean=scores[..., position].mean(axis=-1),
            scores_std=scores[..., position].std(axis=-1),
            corruption=corruption if isinstance(corruption, str) else "custom",
            score_name=name,
        )
        for position, name in enumerate(scorers)
    }
    return results if has_several(scoring) else results[next(iter(scorers))]


def _check_shares(shares):
    """Return the shares of rows as an array; None means 0, 0.1, ..., 1."""
    shares = np.linspace(0, 1, 11) if shares is None else np.asarray(shares, dtype=float)
    if shares.ndim != 1 or not len(shares) or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"shares must be a list of numbers in [0, 1], got {shares.tolist()}.")
    return shares


def _check_lost(lose, names):
    """Return the modalities that are lost together, as tuples of names."""
    groups = [(entry,) if isinstance(entry, str) else tuple(entry) for entry in (names if lose is None else lose)]
    unknown = [name for group in groups for name in group if name not in names]
    if unknown or not all(groups) or not groups:
        raise ValueError(f"lose must list modalities of {names}, or tuples of them, got {lose!r}.")
    return groups


def _check_corruption(corruption, groups):
    """Return the corruption of each modality that is lost."""
    lost = dict.fromkeys(name for group in groups for name in group)
    if not isinstance(corruption, dict):
        return dict.fromkeys(lost, corruption)
    kinds = ["remove", *STRENGTHS]
    for name in lost:
        if not callable(corruption.get(name)) and corruption.get(name) not in kinds:
            raise ValueError(
                f"corruption must map each of {list(lost)} to a callable or one of {kinds}, got {corruption!r}."
            )
    return corruption


def _curve(group, corruptions, strength, shares, draws, intact, scorers, columns, y, sample_weight):
    """Return the scores of all repeats of one curve, of shape (n_repeats, n_shares, n_scores)."""
    removed = [name for name in group if corruptions[name] == "remove"]
    random = len(removed) < len(group)
    scores, lost = [], None
    for order, seed in draws:
        if lost is None or random:
            rng = np.random.RandomState(seed)
            tables = {name: _corrupted(columns.table(name), name, corruptions[name], strength, rng) for name in group}
            X = columns.replace(tables)
            lost = Answers(intact.estimator, lambda X=X: X)
        try:
            scores.append([])
            for share in shares:
                # Rows that come first in the order, so that a larger share contains the smaller ones.
                rows = np.isin(np.arange(len(order)), order[: round(share * len(order))])
                mixed = intact.mix(lost, rows, partial(_mix_tables, columns, tables, rows))
                scores[-1].append([mixed.score(scorer, y, sample_weight) for scorer in scorers.values()])
        except Exception as error:
            if not removed:
                raise
            raise cannot_predict(intact.estimator, removed, error) from error
    return scores


def _mix_tables(columns, tables, rows):
    """Return X with the rows of a mask from other tables of some modalities."""
    return columns.replace({name: mix(columns.table(name), table, rows) for name, table in tables.items()})


def _corrupted(table, name, corruption, strength, rng):
    """Return the columns of a modality, removed or corrupted in all rows; an error names the modality."""
    if corruption == "remove":
        return blank(table)
    try:
        return corrupt(table, corruption, strength, rng)
    except Exception as error:
        error.add_note(
            f"This happened in the modality {name!r}; leave it out of lose=[...], or pass a dict with a corruption for "
            "each modality."
        )
        raise


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
        cls, estimator: Any, X: Table, y: Items, *, ax: Any = None, **options
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
