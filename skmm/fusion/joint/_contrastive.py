"""Joint embedding by heads that are trained to tell pairs from rows that do not belong together.

The file follows the computation: the estimator; the heads; their training; the objectives. Training has a small loop of
its own: a batch is compared row with row, so that it can neither be a sum over rows, nor be sliced where memory runs
out, as the loop of networks requires.
"""

import math
from functools import partial
from numbers import Integral, Real
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_consistent_length, check_random_state, gen_batches

from ..._columns import CHUNK_OF_ROWS
from ..._sklearn import Interval, StrOptions, fit_context
from ..._torch import note_run, resolve_device
from ..._typing import Blocks, Matrix, RandomState
from .._moments import present_blocks
from ._base import JointEmbedding
from ._cca import CCAFusion
from ._target import check_labels, label_columns

# Errors of the closed-form start name the estimator that the user knows.
_Start = type("ContrastiveFusion", (CCAFusion,), {})

# Key of the weights that are no head's.
_SIMILARITY = "__similarity__"
# Power of the correlations by which the start weighs its components, as measured for retrieval by CCAFusion.
_POWER = 2
# Root mean square of the weights of the start.
_SCALE = 0.2
# Largest factor of cosines: differences of .01 then already decide.
_MAX_FACTOR = 100.0
# Factors of which the best one bounds the mutual information.
_FACTORS = np.geomspace(0.1, _MAX_FACTOR, 25).tolist()
# Share of each target distribution that is spread over the batch: rows that are as good as the pair are no error.
_SMOOTHING = 0.2
# Largest dropout="auto", and what it is in columns per row: emoji and glyphs, with 3 rows per column or fewer, gain by
# it, digits with 50 lose.
_MAX_DROPOUT, _DROPOUT_PER_COLUMN = 0.4, 2.0
# Share of the steps in which the learning rate rises.
_WARM_UP = 0.1
# Fewest pairs of which early_stopping="auto" holds some out, and most that are held out.
_MIN_PAIRS_TO_SPLIT, _MAX_HELD_OUT = 200, 2000


class ContrastiveFusion(CallbackSupportMixin, JointEmbedding):
    r"""Map all blocks into one space in which pairs are told from rows that do not belong together.

    For each block a head :math:`f_b` is trained on its columns, so that in batches of n rows, for each pair of blocks,

    .. math:: \log n - \mathcal{L}_{\mathrm{InfoNCE}} = \log n + \frac{1}{n} \sum_i \log
              \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} \le I(f_1(x_1); f_2(x_2)), \qquad
              s_{ij} = \frac{\cos(f_1(x_{1i}), f_2(x_{2j}))}{\tau},

    becomes large: a lower bound of the mutual information, which is at most :math:`\log n` itself. It is taken in both
    directions, and the temperature :math:`\tau` is learned. Training starts from :class:`CCAFusion`, in closed form.

    Parameters
    ----------
    n_components : int, default=128
        Upper bound of the dimensions of the space, with the limits of :class:`CCAFusion`.

    head : {"linear", "mlp"}, default="mlp"
        "linear" weighs the columns of a block; "mlp" adds to that a hidden layer of
        Gaussian error linear units.

    objective : {"infonce", "siglip", "supcon"}, default="infonce"
        What is optimised.

        - ``"infonce"``: the bound above.
        - ``"siglip"``: a logistic regression of which combinations of rows belong together [2]_, which compares each
          combination alone and so depends less on the size of batches.
        - ``"supcon"``: all items of a batch, whatever their modality, are compared with each other, and those of one
          class or one row belong together [3]_. It needs y, in which -1 (of classes) and NaN stand for a missing
          label; y with several columns holds several labels, of which one in common is enough. Rows with a single
          modality and a label are learned from.

    temperature : float, default=0.1
        What cosines are divided by at first; training goes on from there. Small values tell each pair from its nearest
        neighbours, values near 1 tell classes apart that pairs have in common.

    positives : {"pairs", "groups"}, default="pairs"
        What belongs together besides labels: the items of a row, or those of all rows of one of the ``groups`` that
        are passed to ``fit``, such as a picture with several captions, in a row each.

    hidden_features : int, default=512
        Width of the hidden layer of "mlp".

    dropout : float in [0, 1) or "auto", default="auto"
        Share of the columns, and of the hidden units, that is left out at random in each step. "auto" is .4, or two
        columns of the block per row of training where that is less: many rows do without.

    learning_rate : float, default=5e-3
        Largest learning rate of AdamW: it rises in the first tenth of the steps, and falls to 0 as half a cosine.

    weight_decay : float, default=0.1
        Weight decay of AdamW.

    batch_size : int, default=512
        Rows that are compared with each other.

    max_epochs : int, default=60
        Passes over the rows, at most.

    early_stopping : bool or "auto", default="auto"
        Whether pairs are held out to find the number of epochs after which the other half of a pair is retrieved best,
        by mean average precision: the last of those that are as good as the best within a standard error, or 0, the
        start, if none is better. The heads are then trained again on all rows for as many. "auto" holds out if there
        are 200 pairs.

    validation_fraction : float, default=0.1
        Share of the pairs that are held out, 2,000 at most.

    patience : int, default=20
        Epochs without improvement after which the search for their number ends.

    output : {"concat", "mean", "sum"}, default="concat"
        The variates of all blocks side by side, or their mean or sum over the blocks.

    blocks : dict of str to slice or "prefix", default=None
        Columns of each block, as in :class:`ConcatFusion`, at least two.

    device : str, default="auto"
        Device to train on: "auto" is the first of "cuda", "mps" and "cpu" that there is.

    random_state : int, RandomState instance or None, default=None
        Seed of what is held out, of first weights, batches and dropout. Pass an int for output that is the same in
        every fit.

    Attributes
    ----------
    mutual_information_ : ndarray of shape (n_blocks, n_blocks)
        Lower bound of the mutual information of each pair of blocks in nats, by the formula above on the pairs that
        were held out, from heads that were not trained on them, at the temperature that suits these pairs best; NaN
        where there are none. It is at most the logarithm of their number.

    temperature_ : float
        What cosines are divided by after training.

    n_epochs_ : int
        Epochs of training.

    validation_scores_ : list of float or None
        Mean average precision in the rows that were held out, at first and after each epoch; None without these.

    loadings_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Correlation of each column with the variates of its block.

    correlations_ : ndarray of shape (n_components_,)
        Correlation of the variates of each component in the rows of ``fit``, averaged over the pairs of blocks.

    n_pairs_ : ndarray of shape (n_blocks, n_blocks)
        Rows of ``fit`` that have both blocks of a pair, in the order of ``blocks_``; on the diagonal those that have
        the block and any other.

    n_components_ : int
        Number of components.

    blocks_ : dict of str to slice
        Columns of each block, closed.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    CCAFusion : In closed form, by linear functions.
    KernelCCAFusion : In closed form, by functions that need not be linear.

    Notes
    -----
    Variates are compared by their cosine. Columns are brought to unit variance, the variates of each block to mean 0
    and, on average over the components, variance 1. Few of the components mean something by themselves.

    **Missing blocks.** A row counts for the pairs of blocks that it has, and each pair of blocks for its rows. At
    ``transform`` the variates of a missing block are their linear regression on those of the blocks that the row has.
    A row without any block becomes zeros. A block that shares fewer than two rows with any other at ``fit`` raises an
    error.

    **Data larger than memory.** ``partial_fit`` trains for one epoch on more rows.

    Each target distribution of "infonce" and "supcon" is smoothed by a fifth, which serves retrieval where some rows
    are as good as the pair. X in float64 is trained on in float64, at twice the time.

    References
    ----------
    .. [1] A. van den Oord, Y. Li and O. Vinyals, "Representation learning with contrastive predictive coding",
       arXiv:1807.03748 (2018).
    .. [2] X. Zhai, B. Mustafa, A. Kolesnikov and L. Beyer, "Sigmoid loss for language image pre-training", ICCV (2023).
    .. [3] P. Khosla et al., "Supervised contrastive learning", NeurIPS (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.fusion import ContrastiveFusion
    >>> angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 400)
    >>> X = np.column_stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)])
    >>> blocks = {"point": slice(0, 2), "wave": slice(2, 4)}
    >>> fusion = ContrastiveFusion(learning_rate=0.01, max_epochs=20, blocks=blocks, random_state=0).fit(X)
    >>> fusion.transform_modality(X[:5, :2], "point").shape
    (5, 2)
    >>> bool(fusion.mutual_information_[0, 1] > 0)
    True
    """

    _parameter_constraints: dict = {
        name: JointEmbedding._parameter_constraints[name] for name in ("blocks", "n_components", "output")
    } | {
        "head": [StrOptions({"linear", "mlp"})],
        "objective": [StrOptions({"infonce", "siglip", "supcon"})],
        "temperature": [Interval(Real, 1 / _MAX_FACTOR, None, closed="left")],
        "positives": [StrOptions({"pairs", "groups"})],
        "hidden_features": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "random_state": ["random_state"],
    }
    _learns_out_of_fold = True
    _min_blocks = 2

    scaling = "std"
    # Components are no axes of agreement, by which distances could be weighted.
    weighting = None

    def __init__(
        self,
        n_components: int = 128,
        *,
        head: str = "mlp",
        objective: str = "infonce",
        temperature: float = 0.1,
        positives: str = "pairs",
        hidden_features: int = 512,
        dropout: float | str = "auto",
        learning_rate: float = 5e-3,
        weight_decay: float = 0.1,
        batch_size: int = 512,
        max_epochs: int = 60,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        patience: int = 20,
        output: str = "concat",
        blocks: Blocks = None,
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.n_components = n_components
        self.head = head
        self.objective = objective
        self.temperature = temperature
        self.positives = positives
        self.hidden_features = hidden_features
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.output = output
        self.blocks = blocks
        self.device = device
        self.random_state = random_state

    def _needs_y(self):
        return self.objective == "supcon"

    def _validate_fit(self, X, y):
        X, y = super()._validate_fit(X, y)
        return X, None if y is None else check_labels(y)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Matrix, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> Self:
        """Train for one epoch on more rows, at a constant learning rate.

        The first call, which starts from the closed form, learns the scales of the columns. Missing blocks are
        completed by what was seen in the last call. The first call after ``fit`` starts from the beginning.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side, with NaN in missing cells.

        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            Labels, if ``objective="supcon"``.

        groups : array-like of shape (n_samples,), default=None
            Groups of rows that belong together, if ``positives="groups"``.

        Returns
        -------
        self : estimator
            The strategy, trained further.
        """
        first = not hasattr(self, "_trainer_state")
        if first:
            X, y = self._validate_fit(X, y)
            self._resolve_blocks(X)
            self._fit_scale(X)
            self._rng = check_random_state(self.random_state)
        else:
            X = self._validate(X, reset=False)
            y = check_labels(y) if self._needs_y() else None
            check_consistent_length(X, y, groups)
        X = self._scale(X)
        if first:
            self._fit_units(X)
        rows = self._make_rows(X, y, groups)
        progress = self._init_callback_context(max_subtasks=1).call_on_fit_task_begin(estimator=self, X=X, y=y)
        if first:
            trainer = self._start(X, y, slice(None), self._rng)
            self.n_epochs_ = 0
        else:
            trainer = Trainer(self._weights, self, X.dtype, self._rng.randint(2**31 - 1), self._trainer_state)
        trainer.epoch(rows.comparable(), lambda step: 1.0)
        _report_epoch(progress, self)
        self._trainer_state = trainer.state()
        self.n_epochs_ += 1
        self._set_validation()
        self._set_heads(X, rows, trainer)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _fit_blocks(self, X, y, groups=None):
        self.__dict__.pop("_trainer_state", None)
        self._fit_units(X)
        rows = self._make_rows(X, y, groups)
        progress = self._init_callback_context(max_subtasks=None).call_on_fit_task_begin(estimator=self, X=X, y=y)
        rng = check_random_state(self.random_state)
        held_out, seed = self._hold_out(rows, groups, rng), rng.randint(2**31 - 1)
        self._set_validation()
        n_epochs = self.max_epochs
        if held_out.any():
            train, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
            trainer = self._start(X, y, train, np.random.RandomState(seed))
            precisions, information = trainer.fit(rows.take(train), n_epochs, progress, rows.take(validation))
            self._set_validation([float(p.mean()) for p in precisions], information)
            n_epochs = choose_epoch(precisions)
        trainer = self._start(X, y, slice(None), np.random.RandomState(seed))
        trainer.fit(rows, n_epochs, progress)
        self.n_epochs_ = n_epochs
        self._set_heads(X, rows, trainer)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)

    def _make_rows(self, X, y, groups):
        """Return the rows to learn from; raise if there are too few pairs, or no groups where they are needed."""
        owner = type(self).__name__
        if self.positives == "groups" and groups is None:
            raise ValueError(f"{owner}: positives='groups' needs groups; pass them to fit, or use positives='pairs'.")
        counts = present_blocks(X, self.blocks_).astype(float)
        counts = counts.T @ counts
        self._check_pairs(counts, self.blocks_)
        self.n_pairs_ = counts.astype(int)
        codes = np.unique(groups, return_inverse=True)[1].ravel() if self.positives == "groups" else np.arange(len(X))
        labels = None if y is None else label_columns(y, owner).astype(X.dtype)
        filled = self._fill(X)
        inputs = [filled[:, columns] / self._units[name] for name, columns in self.blocks_.items()]
        return Rows(inputs, ~self._missing(X), codes, labels)

    def _fit_units(self, X):
        """Set what blocks are divided by, so that their columns have unit variance."""
        variances = {name: np.nanmean(np.square(X[:, columns])) for name, columns in self.blocks_.items()}
        self._units = {
            name: np.sqrt(variance) if variance > 0 else X.dtype.type(1) for name, variance in variances.items()
        }

    def _hold_out(self, rows, groups, rng):
        """Return the mask of the rows to validate on: whole groups, if there are any, of rows that have two blocks."""
        pairs = rows.present.sum(axis=1) > 1
        n_pairs = np.count_nonzero(pairs)
        held_out = np.zeros(len(pairs), dtype=bool)
        if not self.early_stopping or (self.early_stopping == "auto" and n_pairs < _MIN_PAIRS_TO_SPLIT):
            return held_out
        units = np.arange(len(pairs)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
        sizes = np.bincount(units, weights=pairs)
        candidates = rng.permutation(np.flatnonzero(sizes))
        n_before = np.cumsum(sizes[candidates]) - sizes[candidates]
        chosen = candidates[n_before < min(self.validation_fraction * n_pairs, _MAX_HELD_OUT)]
        held_out = np.isin(units, chosen)
        if np.count_nonzero(held_out & pairs) < 2 or len(chosen) == len(candidates):
            raise ValueError(
                f"{type(self).__name__}: validation_fraction={self.validation_fraction} of {n_pairs} rows with two "
                f"blocks in {len(candidates)} groups leaves too few to learn from or to validate on; change it, or use "
                "early_stopping=False."
            )
        return held_out

    def _start(self, X, y, rows, rng):
        """Return a trainer of heads that are, at first, a canonical correlation analysis of some rows."""
        target = {"target": "block"} if self._needs_y() else {}
        start = _Start(self.n_components, blocks=self.blocks_, **target).fit(X[rows], None if y is None else y[rows])
        factors = np.maximum(start.correlations_, 0) ** _POWER
        self.n_components_ = start.n_components_
        weights = {}
        for name in self.blocks_:
            W = start.weights_[name] * factors
            weights[name] = [W * (_SCALE / np.sqrt(np.mean(W**2)))]
            if self.head == "mlp":
                p, h = len(W), self.hidden_features
                # Of a hidden layer that adds nothing yet.
                inner, bias = rng.uniform(-1, 1, (p, h)), rng.uniform(-1, 1, h)
                weights[name] += [inner / np.sqrt(p), bias / np.sqrt(p), np.zeros((h, W.shape[1]))]
        weights[_SIMILARITY] = [-np.log(self.temperature), -np.log(self.batch_size)]
        return Trainer(weights, self, X.dtype, rng.randint(2**31 - 1))

    def _set_validation(self, scores=None, information=None):
        """Set what the held-out rows told."""
        self.validation_scores_ = scores
        m = len(self.blocks_)
        self.mutual_information_ = np.full((m, m), np.nan) if information is None else information

    def _set_heads(self, X, rows, trainer):
        """Take the trained heads over, and learn the joint space from the variates of all rows."""
        self._weights = trainer.weights()
        self.temperature_ = float(np.exp(-self._weights[_SIMILARITY][0]))
        self._offsets, self._factors, variates = {}, {}, []
        for name, x, present in zip(self.blocks_, rows.inputs, rows.present.T, strict=True):
            z = _in_chunks(x, self._weights[name])
            self._offsets[name] = z[present].mean(axis=0, dtype=np.float64)
            spread = np.sqrt(z[present].var(axis=0, dtype=np.float64).mean())
            self._factors[name] = 1 / spread if spread > 0 else 1.0
            variates.append((z - self._offsets[name]) * self._factors[name])
        signs = self._learn_space(X, variates, self.blocks_)
        self._factors = {name: factor * signs for name, factor in self._factors.items()}

    def _score_block(self, X_block, name):
        z = _in_chunks(X_block / self._units[name].astype(X_block.dtype), self._weights[name])
        return ((z - self._offsets[name]) * self._factors[name]).astype(X_block.dtype)


# The heads.


def apply_head(x, weights, sigmoid=expit, drop=lambda x: x):
    """Return the variates of rows, by a linear head or one with a hidden layer beside it.

    They are arrays or, with the sigmoid of torch, tensors. Units of the hidden layer are Gaussian error linear units,
    approximated by a sigmoid.
    """
    linear, *hidden = weights
    x = drop(x)
    z = x @ linear
    if hidden:
        inner, bias, outer = hidden
        u = x @ inner + bias
        z = z + drop(u * sigmoid(1.702 * u)) @ outer
    return z


def _in_chunks(X_block, weights):
    """Return the variates of rows, without a hidden layer of all of them in memory."""
    weights = [array.astype(X_block.dtype) for array in weights]
    return np.concatenate([apply_head(X_block[rows], weights) for rows in gen_batches(len(X_block), CHUNK_OF_ROWS)])


# Training.


class Rows(NamedTuple):
    """Rows to learn from, as arrays or tensors."""

    inputs: list  # by block, (n_samples, n_block_features)
    present: object  # (n_samples, n_blocks)
    groups: object  # (n_samples,): rows of one group belong together
    labels: object  # (n_samples, n_labels) of 0 and 1, or None

    def take(self, rows):
        """Return the rows at some positions."""
        labels = None if self.labels is None else self.labels[rows]
        return Rows([x[rows] for x in self.inputs], self.present[rows], self.groups[rows], labels)

    def comparable(self):
        """Return the rows that can be compared with others: those that have two blocks, or one and a label."""
        n_blocks = self.present.sum(axis=1)
        comparable = n_blocks > 1
        if self.labels is not None:
            comparable |= (n_blocks > 0) & self.labels.any(axis=1)
        return self.take(np.flatnonzero(comparable))

    def to(self, device):
        """Return the rows as tensors on a device."""
        import torch

        fields = (self.present, self.groups, self.labels)
        inputs = [torch.from_numpy(x).to(device) for x in self.inputs]
        return Rows(inputs, *(None if field is None else torch.from_numpy(field).to(device) for field in fields))

    def same(self):
        """Return which rows belong together, of shape (n_samples, n_samples)."""
        same = self.groups[:, None] == self.groups
        return same if self.labels is None else same | (self.labels @ self.labels.T > 0)


class Trainer:
    """Trains heads and the temperature by AdamW.

    Parameters
    ----------
    weights : dict of str to list of ndarray
        Weights of the head of each block, and the logarithm of the factor of cosines with the bias of "siglip".

    settings : ContrastiveFusion
        Parameters of training.

    dtype : dtype
        Precision of training.

    seed : int
        Seed of batches and dropout.

    state : dict or None, default=None
        State of an earlier optimiser, to continue with.
    """

    def __init__(self, weights, settings, dtype, seed, state=None):
        import torch

        note_run()
        self._torch, self.settings = torch, settings
        self.device = resolve_device(settings.device)
        dtype = np.float32 if self.device.type == "mps" else dtype
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.order = np.random.RandomState(seed)
        self.parameters = self._tensors(weights, dtype)
        flat = [tensor for tensors in self.parameters.values() for tensor in tensors]
        matrices, vectors = (
            [tensor for tensor in flat if (tensor.ndim > 1) == is_matrix] for is_matrix in (True, False)
        )
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            fused=self.device.type in ("cpu", "cuda"),
        )
        if state is not None:
            tensors = {i: {key: torch.tensor(array) for key, array in entry.items()} for i, entry in state.items()}
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": tensors, "param_groups": groups})

    def _tensors(self, weights, dtype=None):
        """Return weights as tensors to train."""
        tensor = self._torch.tensor
        return {
            name: [tensor(np.asarray(array, dtype), device=self.device, requires_grad=True) for array in arrays]
            for name, arrays in weights.items()
        }

    def weights(self):
        """Return the weights as arrays, as the constructor takes them."""
        return {name: [t.detach().cpu().numpy().copy() for t in tensors] for name, tensors in self.parameters.items()}

    def state(self):
        """Return the state of the optimiser as arrays."""
        state = self.optimizer.state_dict()["state"]
        return {i: {key: tensor.cpu().numpy().copy() for key, tensor in entry.items()} for i, entry in state.items()}

    def fit(self, rows, n_epochs, progress, validation=None):
        """Train for some epochs; with rows to validate on, at most until retrieval no longer improves.

        Return then the average precision of each retrieval at first and after each epoch, and the mutual information at
        the best epoch.
        """
        rows = rows.comparable()
        n_steps = n_epochs * self._n_batches(rows)
        precisions = [] if validation is None else [self.precision(validation)]
        scores, best = [p.mean() for p in precisions], self.weights()
        for epoch in range(n_epochs):
            first_step = epoch * self._n_batches(rows)
            self.epoch(rows, lambda step, first=first_step: _rate(first + step, n_steps))
            _report_epoch(progress, self.settings)
            if validation is not None:
                precisions.append(self.precision(validation))
                scores.append(precisions[-1].mean())
                if scores[-1] > max(scores[:-1]):
                    best = self.weights()
                if len(scores) - 1 - int(np.argmax(scores)) == self.settings.patience:
                    break
        if validation is not None:
            self.parameters = self._tensors(best)
            return precisions, self.mutual_information(validation)

    def epoch(self, rows, rate):
        """Train on all rows once; ``rate`` returns the factor on the learning rate in each step."""
        torch, settings = self._torch, self.settings
        self._set_dropout(rows)
        for step, batch in enumerate(np.array_split(self.order.permutation(len(rows.groups)), self._n_batches(rows))):
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate(step)
            with torch.enable_grad():
                loss = self.loss(rows.take(batch).to(self.device))
                if loss is None:
                    continue
                self.optimizer.zero_grad()
                loss.backward()
            if not math.isfinite(loss.detach()):
                raise ValueError(
                    f"{type(settings).__name__}: the loss became {loss.item()}; lower "
                    f"learning_rate={settings.learning_rate}, or look for extreme values in X."
                )
            self.optimizer.step()

    def loss(self, rows):
        """Return the loss of a batch, or None if nothing in it can be compared."""
        points = self._points(rows, self.dropout)
        log_factor, bias = self.parameters[_SIMILARITY]
        factor, same = log_factor.exp().clip(max=_MAX_FACTOR), rows.same()
        if self.settings.objective == "supcon":
            items = self._torch.cat([present.nonzero()[:, 0] for present in rows.present.T])
            points = self._torch.cat([z[present] for z, present in zip(points, rows.present.T, strict=True)])
            return supcon(factor * points @ points.T, same[items][:, items])
        total, n_rows = 0.0, 0
        for a, b, both in _pairs(rows.present):
            similarity = factor * points[a][both] @ points[b][both].T
            positive = same[both][:, both]
            if self.settings.objective == "siglip":
                cost = siglip(similarity + bias, positive)
            else:
                cost = infonce(similarity, positive, _SMOOTHING)
            total = total + len(similarity) * cost
            n_rows += len(similarity)
        return total / n_rows if n_rows else None

    def precision(self, rows):
        """Return the average precision of each retrieval, between all pairs of blocks and both ways."""
        precisions = []
        for _, _, similarity, positive in self._compared(rows.to(self.device)):
            precisions += [average_precision(similarity, positive), average_precision(similarity.T, positive.T)]
        return self._torch.cat(precisions).cpu().numpy()

    def mutual_information(self, rows):
        """Return the lower bounds of mutual information by pair of blocks, NaN where there are no pairs of rows."""
        m = len(rows.inputs)
        bounds = np.full((m, m), np.nan)
        # Rows that belong together are no negatives of each other.
        once = rows.take(np.unique(rows.groups, return_index=True)[1])
        for a, b, similarity, _ in self._compared(once.to(self.device)):
            positive = self._torch.eye(len(similarity), dtype=self._torch.bool, device=self.device)
            costs = [float(infonce(factor * similarity, positive)) for factor in _FACTORS]
            bounds[a, b] = bounds[b, a] = math.log(len(similarity)) - min(costs)
        return bounds

    def _compared(self, rows):
        """Yield each pair of blocks with the cosines of the rows that have both, and which of these belong together."""
        with self._torch.no_grad():
            points, same = self._points(rows), rows.same()
            for a, b, both in _pairs(rows.present):
                yield a, b, points[a][both] @ points[b][both].T, same[both][:, both]

    def _set_dropout(self, rows):
        """Set the share of the columns of each block that is left out in training on these rows."""
        share, n = self.settings.dropout, len(rows.groups)
        self.dropout = [
            min(_MAX_DROPOUT, _DROPOUT_PER_COLUMN * x.shape[1] / n) if share == "auto" else share for x in rows.inputs
        ]

    def _points(self, rows, dropout=None):
        """Return the points of each block, centred and of length 1; those of missing blocks mean nothing."""
        normalize = self._torch.nn.functional.normalize
        heads = list(self.parameters.values())[: len(rows.inputs)]
        points = []
        dropout = [0] * len(heads) if dropout is None else dropout
        for x, weights, present, share in zip(rows.inputs, heads, rows.present.T, dropout, strict=True):
            z = apply_head(x.to(weights[0].dtype), weights, self._torch.sigmoid, partial(self._drop, share=share))
            points.append(normalize(z - z[present].mean(dim=0), dim=1) if present.any() else z)
        return points

    def _drop(self, x, share):
        """Return values with a share set to 0, and the others scaled so that their mean stays."""
        if share == 0:
            return x
        return x * self._torch.empty_like(x).bernoulli_(1 - share, generator=self.generator).div_(1 - share)

    def _n_batches(self, rows):
        return max(1, round(len(rows.groups) / self.settings.batch_size))


def choose_epoch(precisions):
    """Return the last epoch whose retrieval is worse than the best by no more than its standard error; 0 if none gains.

    The best of many epochs is so by chance where retrieval no longer changes, and the rate falls until the last.
    """
    best = int(np.argmax([p.mean() for p in precisions]))
    losses = [precisions[best] - p for p in precisions]
    return max(e for e, loss in enumerate(losses) if loss.mean() <= loss.std() / np.sqrt(len(loss))) if best else 0


def _pairs(present):
    """Yield each pair of blocks with the mask of the rows that have both, at least two."""
    for b in range(present.shape[1]):
        for a in range(b):
            both = present[:, a] & present[:, b]
            if both.sum() > 1:
                yield a, b, both


def _rate(step, n_steps):
    """Return the factor on the learning rate: a linear rise, then half a cosine down to 0."""
    n_warm = max(1, round(_WARM_UP * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1, n_steps - n_warm)))


def _report_epoch(progress, estimator):
    step = progress.subcontext(task_name="epoch").call_on_fit_task_begin(estimator=estimator)
    step.call_on_fit_task_end(estimator=estimator)


# The objectives. Similarities of rows of one block with rows of another come with the mask of those that belong
# together, of which each row and column has one at least.


def infonce(similarity, positive, smoothing=0.0):
    """Return the cross-entropy of which rows belong together, from one block to the other and back."""
    return (_cross_entropy(similarity, positive, smoothing) + _cross_entropy(similarity.T, positive.T, smoothing)) / 2


def _cross_entropy(similarity, positive, smoothing):
    targets = positive / positive.sum(dim=1, keepdim=True)
    targets = (1 - smoothing) * targets + smoothing / len(targets)
    return -(targets.to(similarity.dtype) * similarity.log_softmax(dim=1)).sum(dim=1).mean()


def siglip(similarity, positive):
    """Return the cost of a logistic regression of which rows belong together, for each row."""
    from torch.nn import functional

    signs = 2 * positive.to(similarity.dtype) - 1
    return -functional.logsigmoid(signs * similarity).sum() / len(similarity)


def supcon(similarity, positive):
    """Return the cross-entropy of which items belong together, among all items but oneself; None if no two do."""
    import torch

    oneself = torch.eye(len(positive), dtype=torch.bool, device=positive.device)
    positive = positive & ~oneself
    has_any = positive.any(dim=1)
    if not has_any.any():
        return None
    logs = similarity.masked_fill(oneself, -math.inf).log_softmax(dim=1).masked_fill(oneself, 0)
    return -((logs * positive).sum(dim=1)[has_any] / positive.sum(dim=1)[has_any]).mean()


def average_precision(similarity, positive):
    """Return the average precision with which each row finds those that belong to it; for one, 1 over its rank."""
    import torch

    order = similarity.argsort(dim=1, descending=True)
    relevant = positive.gather(1, order)
    ranks = torch.arange(1, similarity.shape[1] + 1, dtype=similarity.dtype, device=similarity.device)
    return (relevant.cumsum(dim=1) / ranks * relevant).sum(dim=1) / relevant.sum(dim=1)
