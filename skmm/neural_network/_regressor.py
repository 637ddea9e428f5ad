"""The regressor: one network over several modalities, for one number or several."""

from collections.abc import Callable
from numbers import Real
from typing import Literal, Self

from sklearn.base import RegressorMixin

from .._columns import check_target
from .._sklearn import Interval, StrOptions, fit_context
from .._typing import Items, Modalities, RandomState, Table
from ._base import MultimodalNet
from ._outputs import NumberOutputs
from .network import GradientModulation, Loss


class MultimodalNetRegressor(RegressorMixin, MultimodalNet):
    """Predict numbers by one neural network over several modalities.

    y holds one number per row or several. Each modality has hidden layers, a fusion layer joins them, and missing
    modalities of a row are left out.

    Parameters
    ----------
    modalities : list of (str, transformer or branch, columns) or "auto", default="auto"
        "auto" finds out at ``fit`` which modalities the columns of X hold, and chooses a transformer for each
        (:func:`~skmm.infer_modalities`). In a triple:

        As for :class:`MultimodalNetClassifier`.

    fusion : str, FusionLayer, subclass of FusionLayer, or torch.nn.Module, default="concat"
        Layer that joins the modalities, as for :class:`MultimodalNetClassifier`: "concat", "sum", "weighted", "gated",
        "attention", "tensor", "low_rank", "film", "mixture", or one of your own.

    n_layers : int, default=1
        Hidden layers of each modality before the fusion.

    n_joint_layers : int, default=1
        Hidden layers after the fusion.

    width : int, default=128
        Units of each hidden layer.

    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        Activation of the hidden layers.

    dropout : float, default=0.1
        Share of the hidden units that are set to zero in training. Less than for classes, since dropout adds noise to
        predicted numbers.

    rank : int, default=8
        Rank of ``fusion="low_rank"``.

    n_heads : int, default=4
        Heads of ``fusion="attention"``; they divide ``width``.

    loss : {"squared", "huber", "quantile"} or callable, default="squared"
        Loss of the network, for a target of mean 0 and variance 1: the squared error, Huber's loss (linear beyond one
        standard deviation), or the pinball loss of a quantile. A callable takes outputs and targets of
        shape (n_samples, n_outputs) and weights (or None) as tensors and returns the weighted mean loss.

    quantile : float, default=0.5
        Quantile that ``loss="quantile"`` predicts.

    learning_rate : float, default=0.001
        Highest learning rate of AdamW.

    schedule : {"cosine", "constant"}, default="cosine"
        Course of the learning rate in ``fit``: half a cosine down to 0 after the warm-up, or constant.

    warmup : float, default=0.05
        Share of the steps in which the rate of ``schedule="cosine"`` rises linearly.

    weight_decay : float, default=0.01
        Decoupled weight decay of matrices, as a factor on the learning rate.

    max_grad_norm : float or None, default=None
        Bound on the norm of the gradient of a step; None for none.

    batch_size : int or "auto", default="auto"
        Rows of a step; "auto" is a fortieth of the rows, but at least 64 and at most 200. A batch that does not fit
        into memory is divided, and the gradients are added.

    accumulate : int, default=1
        Number of slices in which a batch goes through the network, whose gradients are added: memory for smaller
        batches, and the gradient of the whole one.

    max_epochs : int or "auto", default="auto"
        Maximum number of epochs of ``fit``. "auto" gives 600 steps, but at least 30 and at most 100 epochs: with some
        thousand rows, more epochs took time without better scores.

    warm_up_head : bool, default=False
        Whether ``fit`` first trains the layers behind pretrained branches, those whose ``model`` is a name or a folder,
        on the vectors of their encoders. These are computed once and kept in the store, as by the encoder with
        ``store="auto"``. As many epochs as ``max_epochs="auto"`` has come before the others, at most ``patience`` after
        the best one where there is validation; the course of the learning rate then begins again. Other branches are
        trained with the head. ``n_frozen_epochs`` and ``gradual_unfreezing`` of branches count from the end of these
        epochs, for which branches that have them stay frozen, and ``augment`` does not change the vectors. Not in
        ``partial_fit``, nor where ``warm_start`` continues.

    early_stopping : bool or "auto", default="auto"
        Whether ``fit`` validates on held-out rows after each epoch, stops when the score does not improve, and restores
        the best weights; "auto" does so from 10,000 rows on, or where ``X_val`` is passed.

    validation_fraction : float, default=0.1
        Share of the rows to hold out.

    patience : int, default=10
        Epochs without a better validation score after which to stop.

    modulation : GradientModulation or None, default=None
        Slows down the layers of modalities that are ahead of the others, so that all are trained.

    modality_dropout : float, default=0.0
        Probability with which a modality counts as missing in a row, drawn in each step; never all of a row.
        It trains for more missing modalities than the training data has.

    warm_start : bool, default=False
        Whether ``fit`` continues with the weights of the previous fit, its transformers and its layers.

    distributed : bool, default=False
        Whether ``fit`` divides each batch among the processes that torch's launcher started, one for each device.
        Every process calls ``fit`` with the same data, and has the same network in the end, that of one process up to
        rounding; transformers are fitted in each (see the guide). Not with ``modulation``.

    device : str, default="auto"
        Device to train on: "auto" for the first of "cuda", "mps" and "cpu" that this machine has, or its name.

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        "float32" computes in float32; "bfloat16" and "float16" compute the products of a float32 network in half
        precision. "auto" computes in the dtype of the features (see Notes), in bfloat16 where modalities are trained
        from raw items and the hardware computes it natively.

    random_state : int, RandomState instance or None, default=None
        Seed for weights, order of rows, dropout and validation rows. With an int, fits on a CPU are equal bit for bit,
        in threads and processes as well.

    verbose : bool, default=False
        Whether to show a bar over the epochs and name the modality being fitted.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network, in evaluation mode.

    modalities_ : list of (str, transformer, columns)
        The fitted transformers, without what is dropped.

    named_modalities_ : Bunch
        The fitted transformers by name.

    loss_curve_ : list of float
        Mean training loss of each epoch, with those of ``warm_up_head``.

    validation_scores_ : list of float or None
        Negative mean loss on the validation rows after each epoch; None without validation.

    n_epochs_ : int
        Number of epochs.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    MultimodalNetClassifier : The same for classes.
    ModalityStackingRegressor : Joins decisions of one estimator per modality.
    ModalityFuser : Joins features for any estimator.

    Notes
    -----
    Layers, missing modalities, weights, dtypes, persistence, interrupts and randomness are as in
    :class:`MultimodalNetClassifier`. A row without any modality is answered with the mean of the training data.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skmm import MultimodalNetRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> modalities = [("body", "passthrough", slice(0, 4)), ("blood", "passthrough", slice(4, 10))]
    >>> net = MultimodalNetRegressor(modalities, width=32, max_epochs=20, random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.4
    True
    """

    _parameter_constraints: dict = {
        **MultimodalNet._parameter_constraints,
        "loss": [StrOptions({"squared", "huber", "quantile"}), callable],
        "quantile": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        fusion: object = "concat",
        *,
        n_layers: int = 1,
        n_joint_layers: int = 1,
        width: int = 128,
        activation: str = "relu",
        dropout: float = 0.1,
        rank: int = 8,
        n_heads: int = 4,
        loss: str | Callable = "squared",
        quantile: float = 0.5,
        learning_rate: float = 1e-3,
        schedule: str = "cosine",
        warmup: float = 0.05,
        weight_decay: float = 0.01,
        max_grad_norm: float | None = None,
        batch_size: int | str = "auto",
        accumulate: int = 1,
        max_epochs: int | str = "auto",
        warm_up_head: bool = False,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        patience: int = 10,
        modulation: GradientModulation | None = None,
        modality_dropout: float = 0.0,
        warm_start: bool = False,
        distributed: bool = False,
        device: str = "auto",
        precision: str = "auto",
        random_state: RandomState = None,
        verbose: bool = False,
    ):
        self.modalities = modalities
        self.fusion = fusion
        self.n_layers = n_layers
        self.n_joint_layers = n_joint_layers
        self.width = width
        self.activation = activation
        self.dropout = dropout
        self.rank = rank
        self.n_heads = n_heads
        self.loss = loss
        self.quantile = quantile
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.max_epochs = max_epochs
        self.warm_up_head = warm_up_head
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.modulation = modulation
        self.modality_dropout = modality_dropout
        self.warm_start = warm_start
        self.distributed = distributed
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X: Table, y: Items, sample_weight: Items = None) -> Self:
        """Train for one epoch at a constant learning rate; the first call fits the transformers.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Numbers.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : MultimodalNetRegressor
            The network.
        """
        return self._fit(X, y, sample_weight, partial=True)

    def _check_y(self, X, y, *, reset=False):
        return check_target(X, y, type(self).__name__, numeric=True)

    def _make_outputs(self, y, weights, classes):
        return NumberOutputs(y, weights)

    def _make_criterion(self):
        if callable(self.loss):
            return self.loss
        options = {"quantile": self.quantile} if self.loss == "quantile" else {}
        return Loss(self.loss, **options)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
