"""The classifier: one network over several modalities, for classes and for labels."""

from collections.abc import Callable
from numbers import Real
from typing import Literal, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import compute_sample_weight

from .._columns import check_target
from .._sklearn import Interval, StrOptions, fit_context
from .._typing import Items, Modalities, RandomState, Table
from ._base import MultimodalNet
from ._outputs import ClassOutputs
from .network import GradientModulation, Loss


class MultimodalNetClassifier(ClassifierMixin, MultimodalNet):
    """Classify by one neural network over several modalities.

    y holds one class per row, or several labels. Each modality has hidden layers, a fusion layer joins them, and
    missing modalities of a row are left out.

    Parameters
    ----------
    modalities : list of (str, transformer, columns) or "auto", default="auto"
        "auto" finds out at ``fit`` which modalities the columns of X hold, and chooses a transformer for each
        (:func:`~skmm.infer_modalities`). In a triple:

        - name: unique, without ``__``;
        - transformer: computes features of the columns, once and before training, such as an encoder or a pipeline of
          scalers; ``"passthrough"`` for columns of numbers; a branch that is trained with the network on raw items,
          such as :class:`TextBranch` or :class:`ImageBranch`; a ``torch.nn.Module`` to be trained on columns of
          numbers; or ``"drop"``;
        - columns: name, position, list of these, slice, mask or callable, as in
          :class:`~sklearn.compose.ColumnTransformer`. For a single name or position the transformer gets a 1-D column,
          as encoders and vectorizers expect, for a list a 2-D one.

    fusion : str, FusionLayer, subclass of FusionLayer, or torch.nn.Module, default="concat"
        Layer that joins the hidden vectors :math:`h_m` of the modalities:

        - ``"concat"``: side by side; with ``n_layers=0`` this is early fusion;
        - ``"sum"``: their sum; ``"weighted"``: their mean with learned weights;
        - ``"gated"``: for each unit, a gate over the modalities that depends on all of them (GMU [1]_);
        - ``"attention"``: a Transformer layer with one token per modality, then the mean of the tokens;
        - ``"tensor"``: products of units across all modalities (TFN [2]_), of at most 1,024 entries;
        - ``"low_rank"``: the same with a map of low rank, without computing the products (LMF [3]_);
        - ``"film"``: in series, each modality scaled and shifted by those before it (FiLM [4]_);
        - ``"mixture"``: late, one head per modality and a gate over the heads that depends on all modalities, without
          joint layers.

        For a layer of your own, extend :class:`FusionLayer`. Any other module is called with a list of tensors of shape
        (n_samples, width) that are zero where a modality is missing, and a bool mask of shape (n_samples,
        n_modalities), and must return a tensor of shape (n_samples, n).

    n_layers : int, default=1
        Hidden layers of each modality before the fusion.

    n_joint_layers : int, default=1
        Hidden layers after the fusion.

    width : int, default=128
        Units of each hidden layer.

    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        Activation of the hidden layers.

    dropout : float, default=0.3
        Share of the hidden units that are set to zero in training. Encoders give many features for few rows: for
        classes, 0.3 was better than 0.1 with the fusions that multiply.

    rank : int, default=8
        Rank of ``fusion="low_rank"``.

    n_heads : int, default=4
        Heads of ``fusion="attention"``; they divide ``width``.

    loss : {"cross_entropy", "focal"} or callable, default="cross_entropy"
        Loss of the network: cross-entropy, or the focal loss, which has less weight on rows that are already right. A
        callable takes logits of shape (n_samples, n_outputs), targets and weights (or None) as tensors and
        returns the weighted mean loss; targets are class numbers of shape (n_samples,), or for two classes and several
        labels 0 and 1 of shape (n_samples, n_outputs).

    label_smoothing : float, default=0.0
        Share of each target that ``loss="cross_entropy"`` spreads evenly over the classes; 0 for other losses.

    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of the classes, which multiply those of the rows; "balanced" weighs each class by the inverse of its
        frequency.

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
    classes_ : ndarray of shape (n_classes,) or list of ndarray
        Classes; for several labels, one array per label.

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
    MultimodalNetRegressor : The same for numbers.
    ModalityStackingClassifier : Joins decisions of one estimator per modality.
    ModalityFuser : Joins features for any estimator.

    Notes
    -----
    **Network.** Columns of frozen features are scaled to mean 0 and variance 1. Each modality has ``n_layers`` hidden
    layers, the fusion joins them, ``n_joint_layers`` hidden layers and a linear head follow.

    **Missing modalities.** A modality is missing in a row in which all of its columns are missing (None, NaN, an empty
    string), or which its encoder could not read. Its hidden vector is zero there, and the fusion returns what it would
    return without that modality; weights and gates have sum 1 over the others. A row without any modality is left out
    of training and answered with the class frequencies of the training data, with one warning. A single NaN cell
    counts as the mean of its column.

    **Weights.** A row of weight 2 has the same effect as the row twice: exactly if all rows fit into a batch, otherwise
    in expectation. Rows of weight 0 are left out. Transformers, and branches when they learn a vocabulary or a scale,
    ignore the weights of the other rows.

    **Memory.** The arrays of a branch's items are held up to 256 MB for each modality. Beyond that, items are read
    again in each epoch, by threads that are a batch or two ahead of the network.

    **Types.** With ``precision="auto"`` the network computes in float64 if the features of all modalities are float64,
    else in float32.

    **Persistence.** A pickle holds the weights as arrays: a network trained on a GPU loads on a machine without one.

    **Interrupts.** A ``KeyboardInterrupt`` after the first epoch leaves a fitted network with its weights so far (with
    validation: the best ones) and is raised again. Before that, and after an error, a network that was fitted before
    and continues (``warm_start``, ``partial_fit``) has its earlier weights, and any other is unfitted.

    **Randomness.** All layers draw from generators of the fit. Torch's global generator is used only for modules of
    yours, one fit at a time, and has its earlier state afterwards.

    References
    ----------
    .. [1] Arevalo, Solorio, Montes-y-Gómez, González (2017). "Gated multimodal units for information fusion". ICLR
       workshop.
    .. [2] Zadeh, Chen, Poria, Cambria, Morency (2017). "Tensor fusion network for multimodal sentiment analysis".
       EMNLP.
    .. [3] Liu et al. (2018). "Efficient low-rank multimodal fusion with modality-specific factors". ACL.
    .. [4] Perez, Strub, de Vries, Dumoulin, Courville (2018). "FiLM: visual reasoning with a general conditioning
       layer". AAAI.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skmm import MultimodalNetClassifier
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> halves = [("upper", "passthrough", slice(0, 32)), ("lower", "passthrough", slice(32, 64))]
    >>> net = MultimodalNetClassifier(halves, fusion="gated", width=32, max_epochs=40, random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.95
    True
    >>> net.explain(X[:2]).shape
    (2, 2)
    >>> X[0, :32] = float("nan")
    >>> net.explain(X[:1]).to_numpy().tolist()
    [[0.0, 1.0]]
    """

    _parameter_constraints: dict = {
        **MultimodalNet._parameter_constraints,
        "loss": [StrOptions({"cross_entropy", "focal"}), callable],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
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
        dropout: float = 0.3,
        rank: int = 8,
        n_heads: int = 4,
        loss: str | Callable = "cross_entropy",
        label_smoothing: float = 0.0,
        class_weight: dict | list[dict] | str | None = None,
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
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
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
    def partial_fit(self, X: Table, y: Items, classes: Items = None, sample_weight: Items = None) -> Self:
        """Train for one epoch at a constant learning rate; the first call fits the transformers.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes, or a matrix of 0 and 1.

        classes : array-like of shape (n_classes,), default=None
            All classes that will ever come; needed in the first call unless y has them all.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : MultimodalNetClassifier
            The network.
        """
        first = self._outputs.classes if hasattr(self, "network_") else None
        if classes is not None and first is not None and not np.array_equal(np.unique(classes), first):
            raise ValueError(
                f"MultimodalNetClassifier: classes stay those of the first call, {first.tolist()}, got "
                f"{list(classes)}; leave classes out, or fit a new network."
            )
        return self._fit(X, y, sample_weight, partial=True, classes=classes)

    def predict_proba(self, X: Table) -> np.ndarray | list[np.ndarray]:
        """Predict probabilities.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes) or list of ndarray of shape (n_samples, 2)
            Probabilities in the order of ``classes_``; for several labels, one array per label.
        """
        outputs = self._compute_outputs(X)
        return self._outputs.proba(outputs)

    def decision_function(self, X: Table) -> np.ndarray:
        """Return the logits.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        decision : ndarray of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
            For two classes the log-odds of the second, for several labels those of each, else one logit per class.
        """
        outputs = self._compute_outputs(X)
        return self._outputs.decision(outputs)

    def _check_y(self, X, y, *, reset=False):
        return check_target(X, y, type(self).__name__, numeric=False)

    def _make_outputs(self, y, weights, classes):
        # The classes of each label are 0 and 1.
        outputs = ClassOutputs(y if classes is None or y.ndim == 2 else np.asarray(classes))
        self.classes_ = outputs.public_classes
        return outputs

    def _check_parameters(self):
        super()._check_parameters()
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(
                f"MultimodalNetClassifier: label_smoothing needs loss='cross_entropy', got "
                f"label_smoothing={self.label_smoothing} and loss={self.loss!r}; set one of them to its default."
            )

    def _make_criterion(self):
        if callable(self.loss):
            return self.loss
        if self.loss == "focal":
            return Loss("focal")
        name = "binary_cross_entropy" if self._outputs.independent else "cross_entropy"
        return Loss(name, label_smoothing=self.label_smoothing)

    def _weigh(self, y, sample_weight):
        weights = super()._weigh(y, sample_weight)
        if self.class_weight is None:
            return weights
        if isinstance(self.class_weight, str):
            return _balance(y, np.ones(len(y)) if weights is None else weights)
        class_weights = compute_sample_weight(self.class_weight, y)
        return class_weights if weights is None else weights * class_weights

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _balance(y, weights):
    """Return weights of rows with which all classes, of each label, have the same total weight."""
    balanced = weights
    for column in y.reshape(len(y), -1).T:
        codes = np.unique(column, return_inverse=True)[1]
        totals = np.bincount(codes, weights)
        balanced = balanced * weights.sum() / np.where(totals > 0, totals, 1)[codes]
    return balanced
