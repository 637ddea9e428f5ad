"""Several targets of mixed kind at once: task-level fusion."""

import numpy as np
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ..._missing import missing_rows
from ..._sklearn import StrOptions, fit_context
from .._base import MultimodalNet
from ._outputs import TaskOutputs
from ._targets import as_frame, check_classes, read_targets, read_tasks, read_weights


class MultimodalNetMultiTask(MultimodalNet):
    r"""Predict several targets, classes and numbers, by one neural network over several modalities.

    The tasks share all layers but the last. ``y`` is a data frame with one column per task, and so is what ``predict``
    gives. A target may be missing in a row, which then teaches the other tasks only.

    Parameters
    ----------
    modalities : list of (str, transformer or branch, columns)
        As for :class:`MultimodalNetClassifier`.

    fusion : str or torch.nn.Module, default="concat"
        Layer that joins the modalities, as for :class:`MultimodalNetClassifier`.

    tasks : dict of str to {"classification", "regression"} or None, default=None
        Kind of the tasks of which the type of the column does not tell: columns of floats are regressed, all others
        classified. Integers that are quantities belong here.

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
        Share of the hidden units that are set to zero in training.

    rank : int, default=8
        Rank of ``fusion="low_rank"``.

    n_heads : int, default=4
        Heads of ``fusion="attention"``; they divide ``width``.

    learning_rate : float, default=0.001
        Highest learning rate of AdamW.

    schedule : {"cosine", "constant"}, default="cosine"
        Course of the learning rate: after the warm-up down to 0 in half a cosine, or constant.

    warmup : float, default=0.05
        Share of the steps in which the rate of ``schedule="cosine"`` rises linearly.

    weight_decay : float, default=0.01
        Decoupled weight decay of matrices, as a factor on the learning rate.

    max_grad_norm : float or None, default=None
        Bound on the norm of the gradient of a step; None for none.

    batch_size : int or "auto", default="auto"
        Rows of a step; "auto" is a fortieth of the rows, but at least 64 and at most 200.

    max_epochs : int or "auto", default="auto"
        Times that ``fit`` goes through the rows, at most. "auto" is as many as make 600 steps, but at least 30 and at
        most 100: on some thousand rows more of them cost time and made nothing better.

    early_stopping : bool or "auto", default="auto"
        Whether ``fit`` validates after each epoch on rows that it spares, stops when that gets no better, and keeps the
        weights that were best; "auto" does so from 10,000 rows on, or where ``X_val`` is given.

    validation_fraction : float, default=0.1
        Share of the rows to spare.

    patience : int, default=10
        Epochs without a better validation score after which to stop.

    modulation : GradientModulation or None, default=None
        Slows down the layers of modalities that are ahead of the others, so that these are not starved.

    modality_dropout : float, default=0.0
        Probability with which a modality counts as missing in a row, drawn anew in each step; never all of a row.

    warm_start : bool, default=False
        Whether ``fit`` goes on from the weights of the fit before, with its tasks, transformers and layers.

    device : str, default="auto"
        Device to train on: "auto" for the first of "cuda", "mps" and "cpu" that this machine has, or its name.

    precision : {"auto", "full", "bfloat16"}, default="auto"
        Precision of products in float32 networks, as for :class:`MultimodalNetClassifier`.

    random_state : int, RandomState instance or None, default=None
        Seed for weights, order of rows, dropout and spared rows. With an int, fits on a CPU are the same bit for bit.

    verbose : bool, default=False
        Whether to show a bar over the epochs and name the modality being fitted.

    Attributes
    ----------
    tasks_ : dict of str to {"classification", "regression"}
        Kind of each task, in the order of the columns of ``y``.

    task_weights_ : ndarray of shape (n_tasks,)
        Weights of the tasks' losses at the end of training: those given, or :math:`c_t e^{-s_t}`.

    network_ : torch.nn.Module
        The trained network, in evaluation mode.

    modalities_ : list of (str, transformer or branch, columns)
        The fitted transformers and branches, without what is dropped.

    named_modalities_ : Bunch
        The fitted transformers and branches by name.

    loss_curve_ : list of float
        Mean training loss of each epoch. With learned weights it may fall below 0.

    validation_scores_ : list of float or None
        Negative mean loss on the validation rows after each epoch; None if there are none.

    n_epochs_ : int
        Epochs done.

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
    Missing modalities, weights, dtypes, interrupts and persistence are as in :class:`MultimodalNetClassifier`.

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
    >>> parts = [("sepal", "passthrough", slice(0, 2)), ("petal", "passthrough", [2])]
    >>> net = MultimodalNetMultiTask(parts, width=32, learning_rate=0.01, random_state=0).fit(X[:, :3], y)
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
        modalities,
        fusion="concat",
        *,
        tasks=None,
        task_weights="uncertainty",
        n_layers=1,
        n_joint_layers=1,
        width=128,
        activation="relu",
        dropout=0.1,
        rank=8,
        n_heads=4,
        learning_rate=1e-3,
        schedule="cosine",
        warmup=0.05,
        weight_decay=0.01,
        max_grad_norm=None,
        batch_size="auto",
        max_epochs="auto",
        early_stopping="auto",
        validation_fraction=0.1,
        patience=10,
        modulation=None,
        modality_dropout=0.0,
        warm_start=False,
        device="auto",
        precision="auto",
        random_state=None,
        verbose=False,
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
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.modulation = modulation
        self.modality_dropout = modality_dropout
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Fit the transformers, then train the network.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : DataFrame of shape (n_samples, n_tasks)
            One column per task, with None or NaN where a target is not known.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        X_val : DataFrame or array-like, default=None
            Rows to validate on, in place of a share of X.

        y_val : DataFrame, default=None
            Targets of ``X_val``.

        Returns
        -------
        self : MultimodalNetMultiTask
            The fitted network.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Go once through some rows, at a constant learning rate; the first call fits the transformers to them.

        The kinds of the tasks and the scales of numbers are learned in the first call.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : DataFrame of shape (n_samples, n_tasks)
            One column per task, with None or NaN where a target is not known.

        classes : dict of str to array-like, default=None
            All classes that will ever come of tasks, by the names of the tasks; needed in the first call for each task
            of classes of which y does not have them all.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : MultimodalNetMultiTask
            The network.
        """
        if classes is not None and hasattr(self, "network_"):
            check_classes(classes, self.tasks_, dict(zip(self.tasks_, self._outputs.parts, strict=True)))
        return self._fit(X, y, sample_weight, keep=True, classes=classes)

    def predict(self, X):
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

        outputs = self._respond(X)
        columns = [part.predict(own) for part, own in self._outputs.split(outputs)]
        return pd.DataFrame(dict(zip(self.tasks_, columns, strict=True)), index=getattr(X, "index", None))

    def predict_proba(self, X):
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

        outputs = self._respond(X)
        found = {
            (task, value): column
            for task, (part, own) in zip(self.tasks_, self._outputs.split(outputs), strict=True)
            if self.tasks_[task] == "classification"
            for value, column in zip(part.classes, part.proba(own).T, strict=True)
        }
        index = getattr(X, "index", None)
        if not found:
            return pd.DataFrame(index=index)
        columns = pd.MultiIndex.from_tuples(found, names=["task", "class"])
        return pd.DataFrame(np.column_stack(list(found.values())), index, columns)

    def score_tasks(self, X, y, sample_weight=None):
        """Score each task where its target is known: accuracy of classes, R2 of numbers.

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
            Scores by task, NaN for one without any known target.
        """
        import pandas as pd

        check_is_fitted(self)
        y, predicted = self._check_y(X, y), self.predict(X)
        weights = None if sample_weight is None else np.asarray(sample_weight)
        scores = {}
        for (task, kind), column in zip(self.tasks_.items(), y.T, strict=True):
            known = ~missing_rows(column)
            own = None if weights is None else weights[known]
            guess = predicted[task].to_numpy()[known]
            score = accuracy_score if kind == "classification" else r2_score
            truth = np.array(column[known].tolist())
            scores[task] = score(truth, guess, sample_weight=own) if known.any() else np.nan
        return pd.Series(scores)

    def score(self, X, y, sample_weight=None):
        """Give the mean of the tasks' scores: accuracy of classes, R2 of numbers.

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
            The mean over tasks that have a known target.
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
        # None has been learned yet.
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
