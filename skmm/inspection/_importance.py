"""Importance of each modality to a fitted estimator, interactions of pairs, and their drawing."""

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.utils import Bunch, check_consistent_length, check_random_state

from .._plot import BLUE, make_axes
from .._sklearn import HasMethods, Interval, StrOptions, check_sample_weight, safe_indexing, validate_params
from .._typing import Items, RandomState, Table
from ._coalitions import leave_out, shapley
from ._columns import ModalityColumns, shuffle
from ._scoring import (
    SCORING,
    Answers,
    bootstrap_rows,
    cannot_predict,
    check_one_result,
    has_several,
    in_threads,
    resolve_scorers,
)

# Largest number of modalities whose interactions are written as numbers; more do not fit in 600 pixels.
_MAX_NUMBERED = 6


@validate_params(
    {
        "estimator": [HasMethods(["fit"])],
        "modalities": [dict, None],
        "method": [StrOptions({"permutation", "ablation", "shapley"})],
        "scoring": SCORING,
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "interactions": ["boolean"],
        "max_coalitions": [Interval(Integral, 1, None, closed="left")],
        "sample_weight": ["array-like", None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def modality_importance(
    estimator: Any,
    X: Table,
    y: Items,
    *,
    modalities: dict | None = None,
    method: str = "shapley",
    scoring: Any = None,
    n_repeats: int = 10,
    interactions: bool = True,
    max_coalitions: int = 1024,
    sample_weight: ArrayLike | None = None,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> Bunch | dict[str, Bunch]:
    r"""Measure how much each modality adds to the score of a fitted estimator.

    Nothing is fitted: all columns of a modality are removed from X together, or shuffled. With :math:`v(S)` for the
    score of the estimator where only the modalities :math:`S` of all :math:`N` are present, the importance of one
    modality and the interaction of two are

    - ``"ablation"``: :math:`v(N) - v(N \setminus i)`, and
      :math:`v(N) - v(N \setminus i) - v(N \setminus j) + v(N \setminus ij)`;
    - ``"permutation"``: the same, with modalities outside of :math:`S` shuffled between rows instead of removed (two
      modalities in the same order);
    - ``"shapley"``: the means of :math:`v(S \cup i) - v(S)`, and of
      :math:`v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)`, over the orders in which modalities can join, with
      :math:`S` for those that joined earlier: Shapley values [1]_ and the Shapley interaction index [2]_.

    An interaction above 0 is synergy: the two modalities together tell more than each alone would add. One below 0 is
    redundancy: both tell the same, so each seems dispensable while the other is present. Only Shapley values add up to
    the score, :math:`\sum_i \phi_i = v(N) - v(\emptyset)`; the other methods assign nothing to either of
    two redundant modalities.

    Parameters
    ----------
    estimator : estimator
        Fitted on all modalities. It must be able to predict where some are missing, as :class:`~skmm.ModalityFuser` and
        voters are, except for ``method="permutation"``.

    X : DataFrame or array-like of shape (n_samples, n_features)
        Data, preferably rows that ``fit`` has not seen.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Target.

    modalities : dict of str to columns, default=None
        Columns of each modality, selected as in :class:`~skmm.ModalityFuser`. None means the modalities of the
        estimator, or of the first step of a pipeline. Other columns are not changed.

    method : {"shapley", "ablation", "permutation"}, default="shapley"
        Method to measure importance, see above.

    scoring : str, callable, list, tuple or dict, default=None
        One or several scores, as in :func:`~sklearn.inspection.permutation_importance`; a callable returns one number.
        None means the estimator's own ``score``. The estimator predicts once for all repeats and all of scikit-learn's
        own scorers; with any other callable it predicts for each repeat.

    n_repeats : int, default=10
        Number of permutations; for the other methods, number of bootstrap samples of rows (for a classifier, within
        each class), which measure the uncertainty that comes from the rows of X.

    interactions : bool, default=True
        Whether to compute interactions of pairs.

    max_coalitions : int, default=1024
        Largest number of subsets of modalities for ``method="shapley"``. If it covers all subsets, as it does up to 10
        modalities, values are exact; otherwise they are means over random orders.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights for the scores.

    n_jobs : int or None, default=None
        Number of subsets evaluated at the same time, in threads. None means 1.

    random_state : int, RandomState instance or None, default=None
        Seed of permutations, bootstrap samples and orders.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch` or dict of str to Bunch
        A dict if there are several scores. With the following attributes.

        modalities : list of str
            Names, in the order of the arrays.
        importances_mean : ndarray of shape (n_modalities,)
            Importance of each modality: for permutations the mean of the repeats, otherwise the value on all rows.
        importances_std : ndarray of shape (n_modalities,)
            Standard deviation over the repeats.
        importances : ndarray of shape (n_modalities, n_repeats)
            Importances in each repeat.
        interactions_mean, interactions_std : ndarray of shape (n_modalities, n_modalities)
            Interaction of each pair, in the same way; 0 on the diagonal. NaN for a pair that no sampled subset tells
            anything about. None if ``interactions=False``.
        full_score : float
            Score with all modalities.
        empty_score : float
            Score without any modality. Only for ``method="shapley"``.
        method : str
            The parameter ``method``.
        score_name : str
            Name of the score.

    Raises
    ------
    ValueError
        If neither the estimator nor ``modalities`` names modalities, if two modalities share a column, or if the
        estimator fails where a modality is missing.

    See Also
    --------
    modality_contributions : Contribution of each modality to the prediction of each row.
    missing_modality_curve : Scores as more and more rows lose a modality.
    ModalityImportanceDisplay : Draws the result.

    References
    ----------
    .. [1] L. S. Shapley, "A value for n-person games", Contributions to the Theory of Games II (1953).
    .. [2] M. Grabisch and M. Roubens, "An axiomatic approach to the concept of interaction among players in
       cooperative games", International Journal of Game Theory 28 (1999).

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm import ModalityVotingClassifier
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import modality_importance
    >>> data = make_multimodal_classification(private=[2, 1], n_noise=1, return_X_y=False, random_state=0)
    >>> vote = ModalityVotingClassifier(
    ...     [(name, LogisticRegression(), columns) for name, columns in data.modalities.items()]
    ... ).fit(data.X[:250], data.y[:250])
    >>> result = modality_importance(vote, data.X[250:], data.y[250:], random_state=0)
    >>> dict(zip(result.modalities, result.importances_mean.round(2).tolist()))
    {'a': 0.3, 'b': 0.19, 'noise0': 0.03}
    """
    columns = ModalityColumns(estimator, X, modalities)
    check_consistent_length(columns.X, y)
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, np.empty(columns.n_samples))
    scorers = resolve_scorers(estimator, scoring)
    rng = check_random_state(random_state)
    m, n_samples = len(columns.names), columns.n_samples
    coalitions = shapley(m, interactions, max_coalitions, rng) if method == "shapley" else leave_out(m, interactions)
    permuted = method == "permutation"
    if permuted:
        draws = [rng.permutation(n_samples) for _ in range(n_repeats)]
    else:
        draws = [bootstrap_rows(y, rng, classes=is_classifier(estimator)) for _ in range(n_repeats)]

    evaluate = _permuted_scores if permuted else _ablated_scores
    all_modalities, *subsets = coalitions.members
    arguments = (estimator, scorers, columns, y, sample_weight, draws)
    full = evaluate(all_modalities, *arguments)
    reduced = in_threads(n_jobs, evaluate, ((members, *arguments) for members in subsets))
    # Of shape (n_coalitions, n_scores, 1 + n_repeats): the value on all rows, then that of each draw.
    values = np.array([full, *reduced])
    weights = [coalitions.resample(rng) for _ in draws]
    results = {
        name: _summarise(columns.names, method, name, coalitions, weights, values[:, position])
        for position, name in enumerate(scorers)
    }
    return results if has_several(scoring) else results[next(iter(scorers))]


def _ablated_scores(members, estimator, scorers, columns, y, sample_weight, draws):
    """Return the scores with all modalities but the members removed, on all rows and on each draw of rows."""
    X = columns.only(members)
    answers = Answers(estimator, lambda: X)
    scores = []
    try:
        for rows in (np.arange(columns.n_samples), *draws):
            drawn, targets = answers.take(rows), safe_indexing(y, rows, axis=0)
            weights = None if sample_weight is None else sample_weight[rows]
            scores.append([drawn.score(scorer, targets, weights) for scorer in scorers.values()])
    except Exception as error:
        if members.all():
            raise
        remedy = "use method='permutation', which removes nothing, or "
        raise cannot_predict(estimator, columns.left_out(members), error, remedy) from error
    return np.transpose(scores)


def _permuted_scores(members, estimator, scorers, columns, y, sample_weight, orders):
    """Return the scores with all modalities but the members shuffled: their mean, then that of each order."""
    shuffled = columns.left_out(members)
    scores = []
    for order in orders if shuffled else orders[:1]:
        X = columns.replace({name: shuffle(columns.table(name), order) for name in shuffled})
        answers = Answers(estimator, lambda X=X: X)
        scores.append([answers.score(scorer, y, sample_weight) for scorer in scorers.values()])
    scores = np.transpose(scores)
    mean = scores.mean(axis=1, keepdims=True)
    return np.hstack([mean, np.broadcast_to(scores, (len(scorers), len(orders)))])


def _summarise(names, method, score_name, coalitions, weights, values):
    """Return the result of one score.

    ``weights`` are those of each repeat; ``values``, of shape (n_coalitions, 1 + n_repeats), are the scores on all rows
    and in each repeat.
    """
    importances = np.column_stack([w.T @ draw for w, draw in zip(weights, values[:, 1:].T, strict=True)])
    pairs = [None, None]
    if coalitions.pair_weights is not None:
        by_draw = np.einsum("cij,cr->ijr", coalitions.pair_weights, values)
        pairs = [by_draw[..., 0], by_draw[..., 1:].std(axis=-1)]
    result = Bunch(
        modalities=names,
        importances_mean=coalitions.weights.T @ values[:, 0],
        importances_std=importances.std(axis=1),
        importances=importances,
        interactions_mean=pairs[0],
        interactions_std=pairs[1],
        full_score=float(values[0, 0]),
        method=method,
        score_name=score_name,
    )
    if method == "shapley":
        empty = np.flatnonzero(~coalitions.members.any(axis=1))[0]
        result.empty_score = float(values[empty, 0])
    return result


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
        cls, estimator: Any, X: Table, y: Items, *, kind: str = "importance", ax: Any = None, **options
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
