"""Encoders that learn from the target."""

import math
import os
from numbers import Integral, Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import wilcoxon
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d, get_tags
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from .._columns import check_groups
from .._sklearn import Interval, StrOptions, fit_context
from .._typing import Items, PathType, RandomState
from .._warnings import warn
from ..exceptions import ItemError
from ..store import ItemDigests
from ._model import ModelEncoder
from ._run import EncodingRun
from ._tuning import StatesRun, Target, Trainer, Tuning

# Level of the test whether the gain on held-out rows is above 0.
_LEVEL = 0.05

# Steps that max_epochs="auto" aims at, and its bounds.
_N_STEPS, _MIN_EPOCHS, _MAX_EPOCHS = 600, 3, 20

# Rows below which nothing is tuned, and held-out rows or groups with which the test can find a gain.
_FEWEST_ROWS, _FEWEST_HELD_OUT = 10, 5


class TunedEncoder(TransformerMixin, BaseEstimator):
    """Tune the last layers of a pretrained encoder to the target, then encode with them.

    ``fit`` puts a linear layer behind the network of the encoder, trains both to predict y, and throws the linear layer
    away. Vectors of a tuned encoder keep what matters for the target: on many tables with texts or images they make
    the estimators behind them more accurate, on others they do not [1]_. The encoder is therefore compared with what it
    was before, on rows that are held out, and stays as it was where tuning does not pay.

    The layers below the trained ones run once for each item: what they return is kept in the store of the encoder.

    Parameters
    ----------
    encoder : TextEncoder, ImageEncoder, AudioEncoder, VideoEncoder or other ModelEncoder
        The pretrained encoder. It is cloned, and its model never changed.

    n_layers : int or "all", default=2
        Number of last layers to train, with all that comes after them: blocks of a transformer, stages of a
        convolutional network. "all" trains the whole network; all inputs of the network are in memory then.

    adapter : {"lora"} or None, default=None
        "lora" trains low-rank updates [2]_ of the linear layers among those alone: a few percent of their weights,
        which is all that pickles hold then. It needs ``pip install "skmm[finetune]"``.

    rank : int, default=8
        Rank of the updates of ``adapter="lora"``.

    target_type : {"auto", "classification", "continuous"}, default="auto"
        Whether y holds classes (or a matrix of 0 and 1, one column per label), or numbers, which are learned by squared
        error. "auto" takes floats with a fractional part for numbers and all else for classes, as scikit-learn's
        ``type_of_target`` does; whole numbers such as prices need "continuous".

    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, where y holds one class per row.

    learning_rate : float, default=5e-4
        Highest learning rate of AdamW, which it reaches after a tenth of the steps, to go down to 0.

    max_epochs : int or "auto", default="auto"
        Times that all rows are gone through, at most. "auto" aims at 600 steps, with 3 to 20 epochs.

    batch_size : int, default=32
        Inputs of the network per step.

    patience : int, default=2
        Epochs without a lower loss on the rows that are held out after which training stops. The weights of the best
        epoch are taken.

    validation_fraction : float, default=0.1
        Share of the rows, or of the groups, that is held out, and never learned from; five at least, where there are
        ten. Equal items are held out together.

    fallback : bool, default=True
        Whether to encode with the pretrained weights if the tuned ones are not better. Ridge regressions on vectors of
        both predict y for the rows that are held out; the squared errors of the tuned ones must be lower in the mean,
        and by Wilcoxon's signed-rank test at a level of .05. Of items with several inputs it takes the mean vectors.

    random_state : int, RandomState instance or None, default=None
        Chooses the rows that are held out, and the order of training.

    verbose : bool, default=False
        Whether to print the losses.

    Attributes
    ----------
    encoder_ : estimator
        The fitted encoder, tuned or not.

    tuned_ : bool
        Whether it encodes with tuned weights.

    validation_scores_ : dict of str to float
        "frozen" and "tuned": coefficients of determination, on rows that were held out, of ridge regressions on vectors
        of the pretrained and of the tuned encoder; of classes and labels that of their indicators. Empty if nothing was
        trained, or y does not vary in these rows.

    n_features_in_ : int
        1, the column of items.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    n_features_out_ : int
        Width of the vectors.

    errors_ : list of ItemError
        Items that could not be encoded by the last ``fit`` or ``fit_transform``.

    See Also
    --------
    skmm.neural_network.MultimodalNetClassifier : Networks that are trained on several modalities at once.

    Notes
    -----
    Each input of the network, such as a frame of a video or a window of a recording, learns the target of its item.
    Dropout is off in training, and batch normalisation keeps the statistics of pretraining. Items that are missing or
    bad have no part in ``fit`` and rows of NaN.

    States below the trained layers are in memory during ``fit``, and in the store: 1.5 KB for each token of the default
    text model, 88 KB for each image of the default image model. Pickles hold the weights that were changed, no others.

    Layers are trained in torch, also if the encoder has another ``backend``, which the tuned encoder then runs with.

    ``fit_transform`` returns what ``fit(X, y).transform(X)`` does. Vectors of the rows that an encoder was tuned on
    tell more about y than those of other rows; estimators behind it that fit their training rows closely can believe in
    this too much, so that cross-validation is the judge.

    References
    ----------
    .. [1] Arazi, A. et al. (2026). "MulTaBench: Benchmarking Multimodal Tabular Learning with Text and Images."
       arXiv:2605.10616.
    .. [2] Hu, E. et al. (2022). "LoRA: Low-Rank Adaptation of Large Language Models." ICLR.

    Examples
    --------
    >>> from skmm.encoders import TextEncoder, TunedEncoder
    >>> texts = [f"{size} {animal}" for size in ("small", "big", "old", "young") for animal in ("cat", "dog", "car")]
    >>> y = [0, 0, 1] * 4
    >>> encoder = TunedEncoder(TextEncoder(), n_layers=1, max_epochs=1, random_state=0)
    >>> encoder.fit_transform(texts, y).shape
    (12, 384)
    """

    __metadata_request__fit = {"groups": True}
    # For skrub, which then fits a clone to each of several columns.
    __single_column_transformer__ = True

    _parameter_constraints: dict = {
        "encoder": [ModelEncoder],
        "n_layers": [StrOptions({"all"}), Interval(Integral, 1, None, closed="left")],
        "adapter": [StrOptions({"lora"}), None],
        "rank": [Interval(Integral, 1, None, closed="left")],
        "target_type": [StrOptions({"auto", "classification", "continuous"})],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "fallback": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
    }

    def __init__(
        self,
        encoder: ModelEncoder,
        *,
        n_layers: int | str = 2,
        adapter: str | None = None,
        rank: int = 8,
        target_type: str = "auto",
        class_weight: dict | str | None = None,
        learning_rate: float = 5e-4,
        max_epochs: int | str = "auto",
        batch_size: int = 32,
        patience: int = 2,
        validation_fraction: float = 0.1,
        fallback: bool = True,
        random_state: RandomState = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.n_layers = n_layers
        self.adapter = adapter
        self.rank = rank
        self.target_type = target_type
        self.class_weight = class_weight
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.fallback = fallback
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Items, y: ArrayLike, *, groups: ArrayLike | None = None) -> Self:
        """Tune the encoder.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of items.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        groups : array-like of shape (n_samples,), default=None
            Groups of rows that belong together; whole groups are held out.

        Returns
        -------
        self : estimator
            The tuned encoder.
        """
        self._tune(X, y, groups)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X: Items, y: ArrayLike, *, groups: ArrayLike | None = None) -> np.ndarray:
        """Tune the encoder, and encode the same items.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of items.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.

        groups : array-like of shape (n_samples,), default=None
            Groups of rows that belong together; whole groups are held out.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features_out_), dtype float32
            One row per item, NaN for missing ones.
        """
        return self._tune(X, y, groups, warns=False).transform(X)

    def transform(self, X: Items) -> np.ndarray:
        """Encode a column of items.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of items.

        Returns
        -------
        X_out : ndarray of shape (n_samples, n_features_out_), dtype float32
            One row per item, NaN for missing ones.
        """
        check_is_fitted(self)
        return self.encoder_.transform(X)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Get the names of the output columns, as those of the encoder.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            If it is passed, the column's name is left out.

        Returns
        -------
        feature_names_out : ndarray of shape (n_features_out_,), dtype object
            Names.
        """
        check_is_fitted(self)
        return self.encoder_.get_feature_names_out(input_features)

    def find_errors(self, X: Items) -> list[ItemError]:
        """List the items that cannot be read, without encoding any.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of items. Missing items are no errors.

        Returns
        -------
        errors : list of ItemError
            One per bad item in row order.
        """
        return getattr(self, "encoder_", self.encoder).find_errors(X)

    def save_encoder(self, path: PathType) -> None:
        """Write the tuned model as a checkpoint, from which an encoder of the same class loads it.

        Parameters
        ----------
        path : str or path-like
            Folder, which is created. It holds the network; parameters of the encoder, such as ``prompt`` or
            ``truncate_dim``, have to be passed again.

        Raises
        ------
        ValueError
            If the encoder's model is a module in memory, or one that has no checkpoint of its own.
        """
        check_is_fitted(self)
        from .networks import without_progress_bar

        with without_progress_bar():
            self.encoder_._save_model(EncodingRun(self.encoder_).torch_model, os.fspath(path))

    @property
    def n_features_in_(self):
        """Number of columns: 1."""
        return self.encoder_.n_features_in_

    @property
    def n_features_out_(self):
        """Width of the vectors."""
        return self.encoder_.n_features_out_

    @property
    def feature_names_in_(self):
        """Name of the column, if ``fit`` saw a data frame."""
        return self.encoder_.feature_names_in_

    @property
    def errors_(self):
        """Items that could not be encoded."""
        return self.encoder_.errors_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "encoder_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.encoder).input_tags
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _tune(self, X, y, groups, warns=True):
        """Fit, and return the fitted encoder."""
        from .networks import SplitModel

        encoder, rng = clone(self.encoder), check_random_state(self.random_state)
        encoder._validate_params()
        kind, y = self._check_target(y)
        run = encoder._start(X, StatesRun)
        # Layers are trained in torch, whatever runs the encoder.
        run.model = run.torch_model
        if run.rows is not None:
            raise ValueError(
                "TunedEncoder cannot learn from a column with lists of images; pass one image per row, with the target "
                "of its list, and groups that keep the images of a list together."
            )
        check_consistent_length(run.items, y)
        groups = check_groups(groups, len(y))
        probe = encoder._probe_inputs(run.model)[:1]
        run.split = SplitModel(run.model, None if self.n_layers == "all" else self.n_layers, encoder._forward, probe)
        run.probe, run.reads_inputs = probe[0], encoder._top_reads_inputs or run.split.reads_inputs(probe[0])
        trained = self._train(run, run.collect(), kind, y, groups, rng)
        encoder.errors_ = run.errors
        if warns:
            run.warn_of_errors()
        self.encoder_ = encoder
        self.tuned_, self.validation_scores_ = (False, {}) if trained is None else trained
        return encoder

    def _train(self, run, examples, kind, y, groups, rng):
        """Train, tune the encoder of the run if that pays, and return whether it did with the scores; None if not."""
        encoder = run.encoder
        if len(np.unique([example.row for example in examples])) < _FEWEST_ROWS:
            self._warn_of_few_rows(len(np.unique([example.row for example in examples])))
            return None
        target = Target(kind, y, self.class_weight, run.model.device)
        trainer = Trainer(run.split, examples, target, self, rng)
        frozen = trainer.vectors()
        bad = [row for row, vector in frozen.items() if not np.isfinite(vector).all()]
        for row in sorted(bad):
            run.errors += run._reject((None, [row]), "the encoder returned values that are not finite")
        rows = np.array(sorted(frozen.keys() - set(bad)), dtype=np.intp)
        if len(rows) < _FEWEST_ROWS:
            self._warn_of_few_rows(len(rows))
            return None
        if groups is None and len({run.first_row[row] for row in rows}) < len(rows):
            # What was learned by heart must not look like a gain.
            groups = np.array([run.first_row.get(row, row) for row in range(len(y))])
        train, held_out = self._hold_out(rows, y if kind == "classes" else None, groups, rng)
        n_epochs = self.max_epochs
        if n_epochs == "auto":
            n_inputs = np.isin(trainer.rows, train).sum()
            n_epochs = int(np.clip(math.ceil(_N_STEPS * self.batch_size / n_inputs), _MIN_EPOCHS, _MAX_EPOCHS))
        trainer.fit(train, held_out, frozen, n_epochs)
        tuned = trainer.vectors()
        costs = {
            name: target.probe_costs(vectors, train, held_out)
            for name, vectors in (("frozen", frozen), ("tuned", tuned))
        }
        spread = ((target.values[held_out] - target.values[train].mean(axis=0)) ** 2).sum()
        scores = {name: float(1 - cost.sum() / spread) for name, cost in costs.items()} if spread > 0 else {}
        gains = costs["frozen"] - costs["tuned"]
        if groups is not None and len(np.unique(groups[held_out])) >= _FEWEST_HELD_OUT:
            gains = np.array([gains[groups[held_out] == group].mean() for group in np.unique(groups[held_out])])
        is_tuned = not self.fallback or _is_better(gains)
        if self.verbose:
            named = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
            print(f"[TunedEncoder] R2 on {len(held_out)} held-out rows: {named}; tuned_={is_tuned}")
        if is_tuned:
            encoder._tuning = Tuning(trainer.changes(), run.model.network)
        if len(examples) == len(rows) and not trainer.is_half and _rows_are_vectors(encoder):
            # Rows of the layers on top: the network need not run as a whole.
            _store_rows(encoder, run, tuned if is_tuned else frozen)
        return is_tuned, scores

    def _warn_of_few_rows(self, n_rows):
        warn(
            f"TunedEncoder: {n_rows} rows have an item, too few to tune an encoder on, which takes {_FEWEST_ROWS}; it "
            "stays as it was pretrained."
        )

    def _check_target(self, y):
        """Return what y is, "classes", "labels" or "numbers", and y as an array."""
        y = check_array(
            y, ensure_2d=False, dtype="numeric" if self.target_type == "continuous" else None, input_name="y"
        )
        y = column_or_1d(y) if y.ndim == 2 and y.shape[1] == 1 else y
        y = np.array(y.tolist()) if y.dtype == object else y
        found = type_of_target(y, input_name="y")
        if self.class_weight is not None and found not in ("binary", "multiclass"):
            raise ValueError(f"TunedEncoder: class_weight is for one class per row, and y is {found}; use None.")
        if self.target_type == "continuous" or (self.target_type == "auto" and found.startswith("continuous")):
            return "numbers", y.astype(np.float64)
        if found in ("binary", "multiclass"):
            return "classes", y
        if found == "multilabel-indicator":
            return "labels", y
        raise ValueError(
            f"TunedEncoder: y of shape {y.shape} is {found}, which target_type={self.target_type!r} cannot learn; pass "
            'one class per row, a matrix of 0 and 1, or numbers with target_type="continuous".'
        )

    def _hold_out(self, rows, classes, groups, rng):
        """Return the rows to train on, and those that are held out."""
        n_held_out = max(_FEWEST_HELD_OUT, round(self.validation_fraction * len(rows)))
        if groups is not None:
            n_groups = len(np.unique(groups[rows]))
            if n_groups < 2:
                raise ValueError("TunedEncoder: all rows are in one group, so that none can be held out.")
            # Of few groups, one is held out; its rows are compared then.
            n_held_out = max(1, round(self.validation_fraction * n_groups))
            if n_groups >= 2 * _FEWEST_HELD_OUT:
                n_held_out = max(_FEWEST_HELD_OUT, n_held_out)
            splitter = GroupShuffleSplit(1, test_size=n_held_out, random_state=rng)
            train, held_out = next(splitter.split(rows, groups=groups[rows]))
        else:
            counts = np.unique(classes[rows], return_counts=True)[1] if classes is not None else np.zeros(1)
            can_stratify = counts.min() > 1 and n_held_out >= len(counts) <= len(rows) - n_held_out
            kind = StratifiedShuffleSplit if can_stratify else ShuffleSplit
            splitter = kind(1, test_size=n_held_out, random_state=rng)
            train, held_out = next(splitter.split(rows, classes[rows] if can_stratify else None))
        return rows[np.sort(train)], rows[np.sort(held_out)]


def _is_better(gains):
    """Return whether gains are above 0, by their mean and, since few large ones may decide it, by their ranks."""
    # Where all gains are equal to 0 there are no ranks.
    return bool(gains.mean() > 0 and wilcoxon(gains, alternative="greater").pvalue < _LEVEL)


def _rows_are_vectors(encoder):
    """Return whether an encoder stores what its network returns, as it is."""
    kind = type(encoder)
    is_plain = (
        kind._encode_batch is ModelEncoder._encode_batch and kind._encode_prepared is ModelEncoder._encode_prepared
    )
    return is_plain and encoder.backend == "torch"


def _store_rows(encoder, states_run, vectors):
    """Put rows of the fitted encoder into its store."""
    run = EncodingRun(encoder, states_run.items, sorted(vectors))
    if run.identity is None:
        return
    keys = ItemDigests(run.identity, run.store, encoder._strings_are_paths).of([run.items[row] for row in run.present])
    rows = {key: vectors[row] for key, row in zip(keys, run.present, strict=True) if key is not None}
    if rows:
        run.store.put_rows(list(rows), np.stack(list(rows.values())))
