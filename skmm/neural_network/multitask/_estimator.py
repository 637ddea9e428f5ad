"""Several targets of mixed kind at once: task-level fusion."""

from typing import Literal, Self

import numpy as np
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ..._columns import missing_rows
from ..._sklearn import StrOptions, fit_context
from ..._typing import Items, Modalities, RandomState, Table
from .._base import MultimodalNet
from ..network import GradientModulation
from ._outputs import TaskOutputs
from ._targets import as_frame, check_classes, read_targets, read_tasks, read_weights


class MultimodalNetMultiTask(MultimodalNet):
    r"""Predict several targets, classes and numbers, by one neural network over several modalities.

    The tasks share all layers but the last. ``y`` is a data frame with one column per task, and so are predictions.
    Where a target is missing, the row trains the other tasks only.

    Parameters
    ----------
    modalities : list of (str, transformer or branch, columns) or "auto", default="auto"
        "auto" finds out at ``fit`` which modalities the columns of X hold, and chooses a transformer for each
        (:func:`~skmm.infer_modalities`). Triples are as for :class:`MultimodalNetClassifier`.

    fusion : str, FusionLayer, subclass of FusionLayer, or torch.nn.Module, default="concat"
        Layer that joins the modalities, as for :class:`MultimodalNetClassifier`.

    tasks : dict of str to {"classification", "regression"} or None, default=None
        Kind of the tasks whose kind does not follow from the type of their column: columns of floats are regressed, all
        others classified. Integers that are quantities belong here.

    task_weights : "uncertainty", "equal" or list of float, default="uncertainty"
        Weights of the tasks' losses, in the order of the columns of ``y``. "uncertainty" learns them [1]_: with
        :math:`s_t` the logarithm of the task's variance, the loss is

        .. math:: \sum_t c_t e^{-s_t} L_t + s_t / 2,

        :math:`c_t` being 1/2 for numbers and 1 for classes. :math:`L_t` is cross-entropy or, for numbers of mean 0 and
        variance 1, the squared error.

    n_layers : int, default=1
        Hidden layers of each modality before the fusion.

    n_joint_layers : int, default=1
        Hidden layers after the fusion.

    width : int, default=128
        Units of each hidden layer.

    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        Activation of the hidden layers.

    dropout : float, default=0.1
        Share of the hidden units that are set to zero in training; as for :class:`MultimodalNetRegressor`, since some
        tasks may be numbers.

    rank : int, default=8
        Rank of ``fusion="low_rank"``.

    n_heads : int, default=4
        Heads of ``fusion="attention"``; they divide ``width``.

    learning_rate : float, default=0.001
        Highest learning rate of AdamW.

    schedule : {"cosine", "constant"}, default="cosine"
        Course of the learning rate: half a cosine down to 0 after the warm-up, or constant.

    warmup : float, default=0.05
        Share of the steps in which the rate of ``schedule="cosine"`` rises linearly.

    weight_decay : float, default=0.01
        Decoupled weight decay of matrices, as a factor on the learning rate.

    max_grad_norm : float or None, default=None
        Bound on the norm of the gradient of a step; None for none.

    batch_size : int or "auto", default="auto"
        Rows of a step; "auto" is a fortieth of the rows, but at least 64 and at most 200.

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

    warm_start : bool, default=False
        Whether ``fit`` continues with the weights of the previous fit, its tasks, transformers and layers.

    distributed : bool, default=False
        Whether ``fit`` divides each batch among the processes that torch's launcher started, one for each device.
        Every process calls ``fit`` with the same data, and has the same network in the end, that of one process up to
        rounding; transformers are fitted in each (see the guide). Not with ``modulation``.

    device : str, default="auto"
        Device to train on: "auto" for the first of "cuda", "mps" and "cpu" that this machine has, or its name.

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of the network, as for :class:`MultimodalNetClassifier`.

    random_state : int, RandomState instance or None, default=None
        Seed for weights, order of rows, dropout and validation rows. With an int, fits on a CPU are equal bit for bit,
        in threads and processes as well.

    verbose : bool, default=False
        Whether to show a bar over the epochs and name the modality being fitted.

    Attributes
    ----------
    tasks_ : dict of str to {"classification", "regression"}
        Kind of each task, in the order of the columns of ``y``.

    task_weights_ : ndarray of shape (n_tasks,)
        Weights of the tasks' losses at the end of training: the parameter's, or :math:`c_t e^{-s_t}`.

    network_ : torch.nn.Module
        The trained network, in evaluation mode.

    modalities_ : list of (str, transformer or branch, columns)
        The fitted transformers and branches, without what is dropped.

    named_modalities_ : Bunch
        The fitted transformers and branches by name.

    loss_curve_ : list of float
        Mean training loss of each epoch, with those of ``warm_up_head``. With learned weights it may fall below 0.

    validation_scores_ : list of float or None
        Negative mean loss on the validation rows after each epoch; None without validation.

    n_epochs_ : int
        Number of epochs.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    Raises
    ------
    TypeError
        By ``fit`` and ``score`` if ``y`` is no data frame.

    ValueError
        If ``y`` lacks a task, a task has no target at all, or ``tasks`` and ``task_weights`` do not fit its columns.

    See Also
    --------
    MultimodalNetClassifier : A single target, or several labels, of classes.
    MultimodalNetRegressor : One or several numbers.

    Notes
    -----
    Layers, missing modalities, weights, dtypes, persistence, interrupts and randomness are as in
    :class:`MultimodalNetClassifier`.

    References
    ----------
    .. [1] Kendall, A., Gal, Y. and Cipolla, R. (2018). "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
       Geometry and Semantics." CVPR, 7482-7491.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.datasets import load_iris
    >>> from skmm.neural_network import MultimodalNetMultiTask
    >>> X, species = load_iris(return_X_y=True)
    >>> y = pd.DataFrame({"species": species, "petal_width": X[:, 3]})
    >>> modalities = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", [2])]
    >>> net = MultimodalNetMultiTask(modalities, width=32, learning_rate=0.01, random_state=0).fit(X[:, :3], y)
    >>> net.tasks_
    {'species': 'classification', 'petal_width': 'regression'}
    >>> net.predict(X[:2, :3]).shape
    (2, 2)
    >>> net.score(X[:, :3], y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **MultimodalNet._parameter_constraints,
        "tasks": [dict, None],
        "task_weights": [StrOptions({"uncertainty", "equal"}), "array-like"],
    }

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        fusion: object = "concat",
        *,
        tasks: dict[str, str] | None = None,
        task_weights: str | list[float] = "uncertainty",
        n_layers: int = 1,
        n_joint_layers: int = 1,
        width: int = 128,
        activation: str = "relu",
        dropout: float = 0.1,
        rank: int = 8,
        n_heads: int = 4,
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
        self.tasks = tasks
        self.task_weights = task_weights
        self.n_layers = n_layers
        self.n_joint_layers = n_joint_layers
        self.width = width
        self.activation = activation
        self.dropout = dropout
        self.rank = rank
        self.n_heads = n_heads
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
    def partial_fit(self, X: Table, y: Table, classes: dict | None = None, sample_weight: Items = None) -> Self:
        """Train for one epoch at a constant learning rate; the first call fits the transformers.

        The kinds of the tasks and the scales of numbers are learned in the first call.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : DataFrame of shape (n_samples, n_tasks)
            One column per task, with None or NaN where a target is missing.

        classes : dict of str to array-like, default=None
            All classes of tasks that will ever come, by the names of the tasks; needed in the first call for each task
            of which y does not have all classes.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : MultimodalNetMultiTask
            The network.
        """
        if classes is not None and hasattr(self, "network_"):
            check_classes(classes, self.tasks_, dict(zip(self.tasks_, self._outputs.tasks, strict=True)))
        return self._fit(X, y, sample_weight, partial=True, classes=classes)

    def predict(self, X: Table) -> Table:
        """Predict all targets.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        y : pandas.DataFrame of shape (n_samples, n_tasks)
            Classes and numbers, with the index of X.
        """
        import pandas as pd

        outputs = self._compute_outputs(X)
        columns = [task.predict(columns) for task, columns in self._outputs.split(outputs)]
        return pd.DataFrame(dict(zip(self.tasks_, columns, strict=True)), index=getattr(X, "index", None))

    def predict_proba(self, X: Table) -> Table:
        """Predict probabilities of the classes of all tasks that have classes.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        proba : pandas.DataFrame of shape (n_samples, n_classes_of_all_tasks)
            Probabilities, with the levels "task" and "class" in its columns and the index of X.
        """
        import pandas as pd

        outputs = self._compute_outputs(X)
        columns = {
            (name, value): column
            for name, (task, task_outputs) in zip(self.tasks_, self._outputs.split(outputs), strict=True)
            if self.tasks_[name] == "classification"
            for value, column in zip(task.classes, task.proba(task_outputs).T, strict=True)
        }
        index = getattr(X, "index", None)
        if not columns:
            return pd.DataFrame(index=index)
        names = pd.MultiIndex.from_tuples(columns, names=["task", "class"])
        return pd.DataFrame(np.column_stack(list(columns.values())), index, names)

    def score_tasks(self, X: Table, y: Table, sample_weight: Items = None) -> Items:
        """Score each task on the rows that have its target: accuracy of classes, R2 of numbers.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        y : DataFrame of shape (n_samples, n_tasks)
            Targets.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        scores : pandas.Series of shape (n_tasks,)
            Scores by task, NaN for one without any target.
        """
        import pandas as pd

        check_is_fitted(self)
        y, predicted = self._check_y(X, y), self.predict(X)
        weights = None if sample_weight is None else np.asarray(sample_weight)
        scores = {}
        for (task, kind), column in zip(self.tasks_.items(), y.T, strict=True):
            present = ~missing_rows(column)
            task_weights = None if weights is None else weights[present]
            prediction = predicted[task].to_numpy()[present]
            score = accuracy_score if kind == "classification" else r2_score
            truth = np.array(column[present].tolist())
            scores[task] = score(truth, prediction, sample_weight=task_weights) if present.any() else np.nan
        return pd.Series(scores)

    def score(self, X: Table, y: Table, sample_weight: Items = None) -> float:
        """Return the mean of the tasks' scores: accuracy of classes, R2 of numbers.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        y : DataFrame of shape (n_samples, n_tasks)
            Targets.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            The mean over tasks that have a target.
        """
        return float(self.score_tasks(X, y, sample_weight).mean())

    def _check_y(self, X, y, *, reset=False):
        frame = as_frame(y)
        check_consistent_length(X, y)
        if reset:
            self.tasks_ = read_tasks(frame, self.tasks)
            read_weights(self.task_weights, len(self.tasks_))
        return read_targets(frame, self.tasks_)

    def _make_outputs(self, y, weights, classes):
        # Set by the first training.
        self._log_variances = None
        if classes is not None:
            check_classes(classes, self.tasks_)
        return TaskOutputs(y, self.tasks_, weights, classes)

    def _make_criterion(self):
        import torch

        from ._loss import TaskLoss

        weights = read_weights(self.task_weights, len(self.tasks_))
        criterion = TaskLoss(self._outputs, weights, self._log_variances)
        return criterion.to(self._device, getattr(torch, self._dtype))

    def _note_criterion(self, criterion):
        self.task_weights_ = np.array(criterion.final_weights())
        if criterion.log_variances is not None:
            self._log_variances = criterion.log_variances.detach().cpu().tolist()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags
