"""The strategies of fusion that a grid or a comparison ranges over, with a small range of parameters each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sklearn.base import clone, is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from .._composition import as_transformer, check_modalities, dense_block
from .._plot import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from .._typing import Modalities, RandomState
from ..encoders import ModelEncoder, TunedEncoder
from ..ensemble import (
    ModalityStackingClassifier,
    ModalityStackingRegressor,
    ModalityVotingClassifier,
    ModalityVotingRegressor,
)
from ..fusion import (
    AverageFusion,
    CCAFusion,
    ConcatFusion,
    KernelCCAFusion,
    KernelFusion,
    LDAFusion,
    ModalityFuser,
    PCAFusion,
    PLSFusion,
    ProductFusion,
)
from ..neural_network import MultimodalNetClassifier, MultimodalNetRegressor

LEVELS = ("single", "feature", "joint", "decision", "model")
# Level whose strategies train encoders, which takes minutes: only on demand.
TUNED = "tuned"
# Level of the strategies that the caller adds.
EXTRA = "extra"
# Colour and marker of each level in drawings; levels differ in both.
LEVEL_STYLES = {
    "single": (GREY, "o"),
    "feature": (BLUE, "s"),
    "joint": (ORANGE, "D"),
    "decision": (GREEN, "^"),
    "model": (PURPLE, "v"),
    TUNED: (VERMILION, "X"),
    EXTRA: (SKY, "P"),
}


@dataclass
class Strategy:
    """One way to predict from the modalities: its label, level, estimator and the parameters worth a search.

    ``tuned`` tells that the estimator is a search over these parameters.
    """

    label: str
    level: str
    estimator: object
    grid: dict = field(default_factory=dict)
    tuned: bool = False


def fusion_grid(
    modalities: Modalities,
    estimator: Any,
    levels: Sequence[str] = LEVELS,
    *,
    exclude: Sequence[str] = (),
    extra: dict | None = None,
    tune: bool = True,
    step: str = "model",
    random_state: RandomState = None,
) -> list[dict]:
    """Return a parameter grid that ranges over strategies of fusion, for scikit-learn's searches.

    The grid is for a pipeline of one step, named ``"model"``, which holds a whole strategy: at first any estimator,
    such as ``estimator`` itself. It works in :class:`~sklearn.model_selection.GridSearchCV`,
    :class:`~sklearn.model_selection.RandomizedSearchCV` and
    :class:`~sklearn.model_selection.HalvingGridSearchCV`.

    ====================================  ==========  ======================================================
    strategy                              level       searched over
    ====================================  ==========  ======================================================
    ``"text alone"``, one per modality    single
    ``"concat"``                          feature     ``scaling``
    ``"pca"``                             feature     ``n_components``
    ``"lda"`` (classifiers)               feature     ``shrinkage``
    ``"product"``                         feature     ``max_features``
    ``"kernel"``                          feature     ``n_components``
    ``"cca"``                             joint       ``n_components``, ``output``
    ``"pls"``                             joint       ``n_components``, ``output``
    ``"kernel_cca"``                      joint       ``n_components``
    ``"average"``                         joint       ``n_components``
    ``"vote"``                            decision
    ``"vote_weighted"``                   decision
    ``"vote_product"`` (classifiers)      decision    ``weights``
    ``"stack"``                           decision    ``final_estimator__C`` (classifiers)
    ``"net"``                             model       ``fusion``
    ``"text tuned"``, one per encoder     tuned
    ``"concat_tuned"``                    tuned       ``scaling``
    ====================================  ==========  ======================================================

    Parameters
    ----------
    modalities : list of (str, transformer, columns)
        At least two modalities, as in :class:`~skmm.ModalityFuser`.

    estimator : classifier or regressor
        Predicts from the features of a modality, or from fused features.

    levels : sequence of {"single", "feature", "joint", "decision", "model", "tuned"}, default=all but "tuned"
        Levels of fusion to range over. "tuned" tunes the encoders of modalities to the target
        (:class:`~skmm.encoders.TunedEncoder`), those within pipelines as well, which takes seconds to minutes a fit.

    exclude : sequence of str, default=()
        Strategies to leave out, by the names in the table.

    extra : dict of str to estimator, default=None
        Strategies to add by name: estimators that take X as it is. A pair (estimator, grid) comes with
        its own parameters to search over.

    tune : bool, default=True
        Whether to search over the parameters in the table; False gives one candidate per strategy, at its
        defaults.

    step : str, default="model"
        Name of the step of the pipeline that holds the strategy.

    random_state : int, RandomState instance or None, default=None
        For the strategies that draw random numbers.

    Returns
    -------
    grid : list of dict
        One dict per strategy, all values lists.

    Raises
    ------
    ValueError
        If a name or level is unknown, if there are fewer than two modalities, or if nothing remains.

    TypeError
        If ``estimator`` is neither a classifier nor a regressor.

    See Also
    --------
    compare_fusions : Compares the strategies on the same folds, with tests.

    Notes
    -----
    Features are scaled so that each modality has the same total variance (:class:`~skmm.ConcatFusion`), for a single
    modality and for the members of voters and stackers as well, so ``estimator`` needs no scaler before
    it. To tune ``estimator`` in every strategy, pass a search over it, such as
    :class:`~sklearn.linear_model.LogisticRegressionCV`. The network is the one strategy that does without
    ``estimator``; it takes over its ``class_weight``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import Pipeline
    >>> from skmm.model_selection import fusion_grid
    >>> X, y = load_iris(return_X_y=True)
    >>> modalities = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", slice(2, 4))]
    >>> estimator = LogisticRegression()
    >>> grid = fusion_grid(modalities, estimator, levels=("single", "feature"))
    >>> grid[2]["model__fuse__fusion__scaling"]
    ['norm', 'std']
    >>> search = GridSearchCV(Pipeline([("model", estimator)]), grid, cv=3).fit(X, y)
    >>> len(search.cv_results_["params"])
    13
    """
    strategies = make_strategies(modalities, estimator, levels, exclude, extra, random_state)
    grids = [strategy.grid if tune else {} for strategy in strategies]
    return [
        {step: [strategy.estimator], **{f"{step}__{key}": list(values) for key, values in grid.items()}}
        for strategy, grid in zip(strategies, grids, strict=True)
    ]


def make_strategies(modalities, estimator, levels=LEVELS, exclude=(), extra=None, random_state=None):
    """Return the strategies of some levels, without those excluded and with those added; singles come first."""
    check_modalities(ModalityFuser(modalities))
    modalities = [entry for entry in modalities if not (isinstance(entry[1], str) and entry[1] == "drop")]
    if len(modalities) < 2:
        raise ValueError(f"To compare fusions takes at least 2 modalities, got {len(modalities)}: {modalities!r}.")
    if not (is_classifier(estimator) or is_regressor(estimator)):
        raise TypeError(f"estimator must be a classifier or a regressor, got {estimator!r}.")
    if isinstance(levels, str) or not set(levels) <= {*LEVELS, TUNED}:
        raise ValueError(f"levels must be a sequence of {[*LEVELS, TUNED]}, got {levels!r}.")

    makers = {
        **{"single": _single, "feature": _feature, "joint": _joint, "decision": _decision, "model": _model},
        TUNED: _tuned,
    }
    # In the order of the levels, since the references of the tests come first.
    chosen = [level for level in makers if level in levels]
    strategies = [strategy for level in chosen for strategy in makers[level](modalities, estimator, random_state)]
    _check_excluded(exclude, [strategy.label for strategy in strategies])
    strategies = [strategy for strategy in strategies if strategy.label not in exclude]
    for label, addition in (extra or {}).items():
        if label in [strategy.label for strategy in strategies]:
            raise ValueError(f"extra: there is a strategy {label!r} already; choose another name, or exclude that one.")
        added, grid = addition if isinstance(addition, tuple) else (addition, {})
        strategies.append(Strategy(label, EXTRA, added, grid))
    if not strategies:
        raise ValueError(f"No strategy remains of levels={levels!r} without {list(exclude)}.")
    return strategies


def _check_excluded(exclude, labels):
    if isinstance(exclude, str):
        raise ValueError(f"exclude must be a sequence of names such as [{exclude!r}], got the string {exclude!r}.")
    unknown = [label for label in exclude if label not in labels]
    if unknown:
        raise ValueError(
            f"exclude: {unknown} are not among the strategies of these levels, modalities and this estimator: {labels}."
        )


def _fused(modalities, estimator, fusion):
    return Pipeline([("fuse", ModalityFuser(modalities, fusion)), ("estimator", estimator)])


def _single(modalities, estimator, random_state):
    for modality in modalities:
        yield Strategy(f"{modality[0]} alone", "single", _fused([modality], estimator, "concat"))


def _feature(modalities, estimator, random_state):
    fusions = {
        "concat": (ConcatFusion(), {"scaling": ["norm", "std"]}),
        "pca": (PCAFusion(random_state=random_state), {"n_components": [16, 64, None]}),
    }
    if is_classifier(estimator):
        fusions["lda"] = (LDAFusion(), {"shrinkage": ["auto", 0.5]})
    # Products and kernel features have unit size; without scaling a regularised estimator would hardly use them.
    product = Pipeline([("join", ProductFusion(random_state=random_state)), ("scale", ConcatFusion())])
    fusions["product"] = (product, {"join__max_features": [512, 2048]})
    kernel = Pipeline([("join", KernelFusion(random_state=random_state)), ("scale", ConcatFusion())])
    fusions["kernel"] = (kernel, {"join__n_components": [32, 128]})
    yield from _with_fusions("feature", fusions, modalities, estimator)


def _joint(modalities, estimator, random_state):
    fusions = {
        "cca": (CCAFusion(), {"n_components": [8, 32], "output": ["concat", "mean"]}),
        "pls": (PLSFusion(), {"n_components": [8, 32], "output": ["concat", "mean"]}),
        "kernel_cca": (KernelCCAFusion(random_state=random_state), {"n_components": [8, 32]}),
        "average": (AverageFusion(random_state=random_state), {"n_components": [16, 64]}),
    }
    yield from _with_fusions("joint", fusions, modalities, estimator)


def _with_fusions(level, fusions, modalities, estimator):
    for label, (fusion, grid) in fusions.items():
        prefixed = {f"fuse__fusion__{key}": values for key, values in grid.items()}
        yield Strategy(label, level, _fused(modalities, estimator, fusion), prefixed)


def _decision(modalities, estimator, random_state):
    members = [(name, _member(name, transformer, estimator), columns) for name, transformer, columns in modalities]
    if is_regressor(estimator):
        yield Strategy("vote", "decision", ModalityVotingRegressor(members))
        yield Strategy("vote_weighted", "decision", ModalityVotingRegressor(members, weights="auto"))
        yield Strategy("stack", "decision", ModalityStackingRegressor(members))
        return
    # Voters average probabilities, which some classifiers have only once they are calibrated.
    options = {} if hasattr(estimator, "predict_proba") else {"calibration": "sigmoid"}
    yield Strategy("vote", "decision", ModalityVotingClassifier(members, **options))
    yield Strategy("vote_weighted", "decision", ModalityVotingClassifier(members, weights="auto", **options))
    product = ModalityVotingClassifier(members, "product", **options)
    yield Strategy("vote_product", "decision", product, {"weights": [None, "auto"]})
    stack = ModalityStackingClassifier(members, LogisticRegression(max_iter=1000))
    yield Strategy("stack", "decision", stack, {"final_estimator__C": [0.1, 1, 10]})


def _model(modalities, estimator, random_state):
    options = {"fusion": "gated", "random_state": random_state}
    if is_classifier(estimator):
        weights = (value for key, value in estimator.get_params().items() if key.split("__")[-1] == "class_weight")
        net = MultimodalNetClassifier(modalities, class_weight=next(weights, None), **options)
    else:
        net = MultimodalNetRegressor(modalities, **options)
    yield Strategy("net", "model", net, {"fusion": ["gated", "concat", "low_rank"]})


def tuned_modalities(modalities, classifier, random_state):
    """Return the modalities with their encoders tuned to the target; None if there is no encoder with a network."""
    options = {"target_type": "classification" if classifier else "continuous", "random_state": random_state}
    tuned = [(name, _with_tuning(member, options), columns) for name, member, columns in modalities]
    return tuned if any(before[1] is not after[1] for before, after in zip(modalities, tuned, strict=True)) else None


def _tuned(modalities, estimator, random_state):
    tuned = tuned_modalities(modalities, not is_regressor(estimator), random_state)
    if tuned is None:
        raise ValueError(
            'levels: "tuned" needs a modality whose transformer is an encoder with a network, such as TextEncoder.'
        )
    changed = [after for before, after in zip(modalities, tuned, strict=True) if before[1] is not after[1]]
    for modality in changed:
        yield Strategy(f"{modality[0]} tuned", TUNED, _fused([modality], estimator, "concat"))
    yield from _with_fusions(TUNED, {"concat_tuned": (ConcatFusion(), {"scaling": ["norm", "std"]})}, tuned, estimator)


def _with_tuning(member, options):
    """Return a transformer in which encoders with a network are tuned; itself if there are none."""
    if isinstance(member, ModelEncoder):
        return TunedEncoder(member, **options)
    if isinstance(member, Pipeline):
        steps = [(name, _with_tuning(step, options)) for name, step in member.steps]
        if any(before[1] is not after[1] for before, after in zip(member.steps, steps, strict=True)):
            return clone(member).set_params(steps=steps)
    return member


def _member(name, transformer, estimator):
    """Return the estimator of one modality, with the same scaling as on the other levels."""
    # Vectorizers return sparse matrices.
    dense = FunctionTransformer(dense_block, kw_args={"name": name})
    return Pipeline(
        [
            ("encode", as_transformer(transformer, name)),
            ("dense", dense),
            ("scale", ConcatFusion()),
            ("estimator", estimator),
        ]
    )
