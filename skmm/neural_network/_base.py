"""Base of the networks over modalities: the fit, predictions, explanations and persistence.

A subclass implements ``_check_y``, ``_make_outputs`` and ``_make_criterion``: the form of y, the meaning of the
network's outputs and its loss.
"""

import math
from functools import partial
from numbers import Integral, Real
from typing import Self

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from .._columns import check_groups, check_X
from .._composition import ModalityComposition, member_step, member_tags
from .._sklearn import HasMethods, Interval, StrOptions, check_sample_weight, fit_context, safe_indexing
from .._torch import resolve_device, resolve_precision
from .._typing import Items, Table
from .._warnings import warn
from ..encoders import infer_modalities
from ._inputs import ItemReader, is_trained, make_input
from ._state import ModuleHolder, is_module, on_cpu, to_arrays, to_tensors
from .network import FUSIONS, GradientModulation, Processes, resolve_epochs, split_validation, weighs_modalities

_ARCHITECTURE = ("fusion", "n_layers", "n_joint_layers", "width", "activation", "dropout", "rank", "n_heads")

# With one unit and a constant 1 per modality, ten modalities have 2^10 = 1,024 products, the bound of fusion="tensor".
_MAX_TENSOR_MODALITIES = 10

# Number of rows from which early_stopping="auto" validates on some of them.
_MIN_ROWS_TO_SPLIT = 10_000


class MultimodalNet(ModuleHolder, CallbackSupportMixin, TransformerMixin, ModalityComposition):
    """Base of the networks over modalities."""

    _parameter_constraints: dict = {
        "modalities": [list, tuple, StrOptions({"auto"})],
        # An object or class with a method forward: torch is not imported to recognise its modules.
        "fusion": [StrOptions(set(FUSIONS)), HasMethods(["forward"])],
        "n_layers": [Interval(Integral, 0, None, closed="left")],
        "n_joint_layers": [Interval(Integral, 0, None, closed="left")],
        "width": [Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"gelu", "relu", "silu", "tanh"})],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "rank": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "schedule": [StrOptions({"cosine", "constant"})],
        "warmup": [Interval(Real, 0, 1, closed="both")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "accumulate": [Interval(Integral, 1, None, closed="left")],
        "warm_up_head": ["boolean"],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "modulation": [GradientModulation, None],
        "modality_dropout": [Interval(Real, 0, 1, closed="left")],
        "warm_start": ["boolean"],
        "distributed": ["boolean"],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
    }

    # Groups that reach a search or a pipeline reach the split for validation as well, unless set_fit_request says
    # otherwise.
    __metadata_request__fit = {"groups": True}

    # For subclasses.

    def _check_y(self, X, y, *, reset=False):
        """Return y as an array, checked against X; with ``reset`` learn what is to be predicted."""
        raise NotImplementedError

    def _make_outputs(self, y, weights, classes):
        """Return the meaning of the outputs; ``classes``, if not None, are all classes that will ever come."""
        raise NotImplementedError

    def _make_criterion(self):
        """Return the loss."""
        raise NotImplementedError

    def _note_criterion(self, criterion):
        """Set the fitted attributes of the loss."""

    def _weigh(self, y, sample_weight):
        """Return the weights of the rows, or None if all are equal."""
        return None if sample_weight is None else check_sample_weight(sample_weight, np.empty(len(y)))

    # The fit, top-down.

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Table,
        y: Items,
        sample_weight: Items = None,
        *,
        groups: Items = None,
        X_val: Table = None,
        y_val: Items = None,
    ) -> Self:
        """Fit the transformers, then train the network.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs), or DataFrame
            Classes, or a matrix of 0 and 1 with one column per label; numbers; for several tasks a data frame with one
            column per task, with None or NaN where a target is missing.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the loss, the scale of numbers in y and the scales of features.

        groups : array-like of shape (n_samples,), default=None
            Group of each row, such as its speaker or patient. A split for validation keeps groups whole, so that the
            validation rows belong to other groups than the training rows; not used otherwise. With
            ``enable_metadata_routing=True``, groups passed to a search or pipeline arrive here.

        X_val : DataFrame or array-like, default=None
            Rows to validate on, in place of a share of X.

        y_val : array-like or DataFrame, default=None
            Target of ``X_val``.

        Returns
        -------
        self : estimator
            The fitted network.
        """
        return self._fit(X, y, sample_weight, X_val, y_val, groups)

    def _fit(self, X, y, sample_weight, X_val=None, y_val=None, groups=None, *, partial=False, classes=None):
        """Fit; with ``partial`` train for one epoch, with the network that was fitted before if there is one."""
        owner = type(self).__name__
        continues = hasattr(self, "network_") and (partial or self.warm_start)
        self._check_validation_data(X_val, y_val)
        if not continues:
            self.__dict__.pop("network_", None)
            self._check_modalities()
        X = check_X(self, X, reset=False) if continues else self._fit_columns(X, y)
        # In a warm start as well: loss and modulation may have been set since.
        self._check_parameters()
        y = self._check_y(X, y, reset=not continues)
        weights = self._weigh(y, sample_weight)
        groups = check_groups(groups, len(y))
        if not continues:
            self._random_state = check_random_state(self.random_state)
            self._outputs = self._make_outputs(y, weights, classes)
        processes = Processes(self.distributed)
        seed = processes.agree(self._random_state.randint(2**31 - 1))
        X, y, weights, groups = _drop_rows_without_weight(X, y, weights, groups, owner)
        n_epochs = 1 if partial else resolve_epochs(self.max_epochs, self.batch_size, len(y))
        warms_up = self.warm_up_head and not continues and not partial
        n_warm = resolve_epochs("auto", self.batch_size, len(y)) if warms_up else 0
        n_tasks = len(self._active()) * (not continues) + n_warm + n_epochs
        progress = self._init_callback_context(max_subtasks=n_tasks)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        arrays, present = self._prepare(X) if continues else self._fit_inputs(X, y, weights, progress)
        if not continues:
            self._device, self._dtype = self._choose_device_and_dtype(arrays)
        targets = self._outputs.encode(y, owner, self._dtype)
        if not continues:
            self._prior = self._outputs.prior(targets, weights)
        train = self._make_rows(arrays, present, targets, weights, self._encode(X) if warms_up else None)
        validation = None
        if X_val is not None:
            validation = self._make_validation_rows(X_val, y_val, warms_up)
        elif not partial and self._splits(len(y)):
            groups = None if groups is None else groups[present.any(axis=1)]
            train, validation = self._split(train, groups, np.random.RandomState(seed))
        schedule = "constant" if partial else self.schedule
        self._train(train, validation, (n_warm, n_epochs), schedule, seed, progress, continues, partial, processes)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _check_validation_data(self, X_val, y_val):
        """Raise if only one of X and y is passed, or if they have no use."""
        if (X_val is None) != (y_val is None):
            raise ValueError(f"{type(self).__name__}: X_val and y_val come together, got only one of them; pass both.")
        if X_val is not None and self.early_stopping is False:
            raise ValueError(f"{type(self).__name__}: early_stopping=False makes no use of X_val; leave it out.")

    def _check_parameters(self):
        """Raise if parameters exclude each other, which their constraints cannot tell."""
        is_layer = is_module(self.fusion) or isinstance(self.fusion, type)
        if not isinstance(self.fusion, str) and not is_layer:
            raise TypeError(
                f"{type(self).__name__}: fusion is one of {list(FUSIONS)}, a FusionLayer or a torch.nn.Module, got "
                f"{type(self.fusion).__name__}."
            )
        if self.modulation is not None:
            self.modulation._validate_params()
            if self.distributed:
                raise ValueError(
                    f"{type(self).__name__}: modulation needs whole batches in one process; set modulation=None, or "
                    "distributed=False."
                )
            if callable(getattr(self, "loss", None)):
                raise ValueError(
                    f"{type(self).__name__}: modulation needs one of the named losses, got {self.loss!r}; set "
                    "loss to a name, or modulation=None."
                )
        if self.fusion == "tensor" and len(self._active()) > _MAX_TENSOR_MODALITIES:
            raise ValueError(
                f"{type(self).__name__}: fusion='tensor' takes at most {_MAX_TENSOR_MODALITIES} modalities, its size "
                f"doubles with each; got {len(self._active())}; use 'low_rank'."
            )
        if self.fusion == "attention" and self.width % self.n_heads:
            raise ValueError(
                f"{type(self).__name__}: fusion='attention' needs a width that n_heads divides, got width={self.width} "
                f"and n_heads={self.n_heads}; change one of them."
            )

    def _fit_inputs(self, X, y, weights, progress):
        """Fit the transformers and branches, and return the same as :meth:`_prepare`."""
        self._inputs, self.modalities_, arrays, masks = [], [], [], []
        names = self._active()
        for name, member, columns in self._entries:
            if name in names:
                modality = make_input(name, member)
                step = member_step(progress, f"modality {name}", member)
                tensors, mask = modality.fit(self, self._select(X, name, reset=True), y, weights, step)
                self._inputs.append(modality)
                self.modalities_.append((name, modality.member, columns))
                arrays.append(tensors)
                masks.append(mask)
        return arrays, np.column_stack(masks)

    def _prepare(self, X):
        """Return the arrays of each modality, and the mask of present ones of shape (n_samples, n_modalities)."""
        prepared = [modality.prepare(self._select(X, modality.name, reset=False)) for modality in self._inputs]
        return [arrays for arrays, _ in prepared], np.column_stack([mask for _, mask in prepared])

    def _encode(self, X):
        """Return the vectors of the encoder for each pretrained branch, None for each other modality."""
        device = str(self._device)
        vectors = [modality.encode(self._select(X, modality.name, reset=False), device) for modality in self._inputs]
        if all(rows is None for rows in vectors):
            raise ValueError(
                f"{type(self).__name__}: warm_up_head=True needs a branch with the name or the folder of a pretrained "
                "model; pass one, or leave warm_up_head=False."
            )
        return vectors

    def _choose_device_and_dtype(self, arrays):
        """Return the device, and float64 only if all modalities have it and nothing else is asked for."""
        device = resolve_device(self.device)
        is_double = not any(isinstance(tensors, ItemReader) for tensors in arrays) and all(
            array.dtype == np.float64 for tensors in arrays for array in tensors
        )
        return device, "float64" if is_double and self.precision == "auto" and device.type != "mps" else "float32"

    def _make_rows(self, arrays, present, targets=None, weights=None, vectors=None):
        """Return tensors on the CPU; with targets, without the rows that have no modality and teach nothing."""
        import torch

        from .network import Rows

        def tensor(array):
            array = np.ascontiguousarray(array, dtype=self._dtype if array.dtype.kind == "f" else None)
            return torch.from_numpy(array if array.flags.writeable else array.copy())

        mask = None if present.all() else torch.from_numpy(present)
        if weights is not None:
            weights = tensor(weights)
        if targets is not None:
            targets = tensor(targets) if isinstance(targets, np.ndarray) else tuple(map(tensor, targets))
        if vectors is not None:
            vectors = [None if rows is None else tensor(rows) for rows in vectors]
        inputs, readers = [], []
        for source in arrays:
            is_read = isinstance(source, ItemReader)
            inputs.append((torch.arange(len(present)),) if is_read else tuple(map(tensor, source)))
            readers.append(partial(_read, source, tensor) if is_read else None)
        rows = Rows(inputs, mask, targets, weights, vectors, readers if any(readers) else None)
        if targets is None or mask is None or present.any(axis=1).all():
            return rows
        if not present.any():
            raise ValueError(
                f"{type(self).__name__}: no row has any modality, so there is nothing to learn from; pass rows in "
                "which a modality is not all None or NaN."
            )
        return rows.take(torch.from_numpy(np.flatnonzero(present.any(axis=1))))

    def _make_validation_rows(self, X, y, warms_up):
        X = check_X(self, X, reset=False)
        y = self._outputs.encode(self._check_y(X, y), type(self).__name__, self._dtype)
        return self._make_rows(*self._prepare(X), y, vectors=self._encode(X) if warms_up else None)

    def _splits(self, n_samples):
        """Tell whether some of the rows are for validation."""
        return n_samples >= _MIN_ROWS_TO_SPLIT if self.early_stopping == "auto" else self.early_stopping

    def _split(self, rows, groups, random_state):
        """Split rows into those to learn from and those to validate on."""
        import torch

        strata = self._outputs.strata(rows.targets.numpy() if isinstance(rows.targets, torch.Tensor) else rows.targets)
        indices = split_validation(
            len(rows), strata, self.validation_fraction, random_state, type(self).__name__, groups
        )
        return [rows.take(torch.from_numpy(rows_of_split)) for rows_of_split in indices]

    def _train(self, train, validation, n_epochs_of, schedule, seed, progress, continues, partial, processes):
        """Make the network, or take the one of an earlier fit, and train it.

        ``n_epochs_of`` are the numbers of epochs on vectors of the encoder and on items.
        """
        import torch

        from .network import Trainer

        n_warm, n_epochs = n_epochs_of
        if train.weights is not None:
            # Of mean 1, so that a weight of 2 is the same as the row twice, whatever the batches are.
            train.weights = train.weights / train.weights.mean()
        generator = torch.Generator().manual_seed(seed)
        criterion = self._make_criterion()
        if not continues:
            self._architecture = {name: getattr(self, name) for name in _ARCHITECTURE}
            self.network_ = self._make_network(generator).to(self._device)
            if n_warm:
                with self.network_.reading_vectors():
                    self.network_.standardize(train.with_vectors(), self._device)
            else:
                self.network_.standardize(train, self._device)
            self._optimizer_state, self._n_epochs_in_all, self.loss_curve_ = {}, 0, []
        branches = [modality.training for modality in self._inputs]
        if processes.rank > 0:
            # The weights are the same, and what layers draw for the rows of each process is not.
            generator.manual_seed(seed + processes.rank)
        trainer = Trainer(
            self.network_, criterion, self._device, branches, self, generator, self._autocast(), processes
        )
        if partial:
            trainer.load_optimizer_state(self._optimizer_state)
        checkpoint = trainer.save() if continues else None
        is_silent = not self.verbose or processes.rank > 0
        with tqdm(total=n_warm + n_epochs, desc=type(self).__name__, unit="epoch", disable=is_silent) as bar:

            def on_epoch(epoch, loss, score):
                step = progress.subcontext(task_name="epoch")
                step.call_on_fit_task_begin(estimator=self)
                step.call_on_fit_task_end(estimator=self)
                if self.verbose:
                    bar.set_postfix(loss=loss, **({} if score is None else {"score": score}), refresh=False)
                bar.update()

            try:
                if n_warm:
                    with self.network_.reading_vectors():
                        held_out = None if validation is None else validation.with_vectors()
                        course = n_warm, self.patience, schedule, on_epoch, -math.inf
                        trainer.fit(train.with_vectors(), held_out, *course)
                    train.vectors = None
                trainer.fit(train, validation, n_epochs, self.patience, schedule, on_epoch, self._n_epochs_in_all)
            except BaseException as error:
                # An interrupt keeps what was learned, any other error the state before the call.
                if isinstance(error, KeyboardInterrupt) and trainer.history.losses:
                    self._note_training(trainer, validation, partial)
                elif continues:
                    trainer.restore(checkpoint)
                else:
                    del self.network_
                raise
        self._note_training(trainer, validation, partial)

    def _make_network(self, generator):
        """Make the network, on the CPU, with weights from a generator."""
        import torch

        from .network import DrawFrom, Network

        with DrawFrom(generator):
            branches = [modality.make_module() for modality in self._inputs]
            network = Network(branches, self._outputs.n_outputs, **self._architecture)
        return network.to(getattr(torch, self._dtype)).eval()

    def _autocast(self):
        """Return the half precision to compute in, or None."""
        import torch

        if self.precision != "auto":
            return None if self.precision == "float32" else getattr(torch, self.precision)
        # Layers over frozen features are small: memory limits their speed, not arithmetic.
        if self._dtype != "float32" or not any(self.network_.is_trained):
            return None
        return torch.bfloat16 if resolve_precision("auto", self._device) == torch.bfloat16 else None

    def _note_training(self, trainer, validation, partial):
        """Set the fitted attributes of the training."""
        losses, scores = trainer.history.losses, trainer.history.scores
        self.loss_curve_ = [*self.loss_curve_, *losses] if partial else losses
        self.validation_scores_ = None if validation is None else scores
        self.n_epochs_ = len(self.loss_curve_)
        self._n_epochs_in_all += trainer.history.n_counted
        self._optimizer_state = trainer.optimizer_state() if partial else {}
        self._note_criterion(trainer.criterion)

    # After the fit.

    def predict(self, X: Table) -> np.ndarray:
        """Predict classes, labels or numbers.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predictions in the form of the target; numbers in the dtype of the network.
        """
        outputs = self._compute_outputs(X)
        return self._outputs.predict(outputs)

    def transform(self, X: Table) -> np.ndarray:
        """Return the joint hidden representation that enters the head of the network.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        joint : ndarray of shape (n_samples, n_features_out)
            Joint representation of each row, in the dtype of the network; NaN in a row without any modality.
        """
        rows, is_empty = self._rows_of(X)
        joint = self._apply(rows, lambda batch: self._join(batch)[0])
        joint[is_empty] = np.nan
        return joint

    @available_if(lambda self: weighs_modalities(getattr(self, "_architecture", {}).get("fusion", self.fusion)))
    def explain(self, X: Table) -> Table:
        """Return how much each modality counted in each row; only for fusions that weigh modalities.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        weights : pandas.DataFrame of shape (n_samples, n_modalities)
            Weights in [0, 1] of sum 1 over the modalities present in the row, 0 for the others: the weights of
            "weighted", the gates of "gated" (mean over units) and "mixture", the attention that a modality gets in
            "attention" (mean over heads and the queries of present modalities), or those of a :class:`FusionLayer`.
            NaN in a row without any modality.
        """
        import pandas as pd

        rows, is_empty = self._rows_of(X)
        weights = self._apply(rows, lambda batch: self._join(batch)[1])
        weights[is_empty] = np.nan
        names = [modality.name for modality in self._inputs]
        return pd.DataFrame(weights, columns=names, index=getattr(X, "index", None))

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return the names of the columns of ``transform``.

        Parameters
        ----------
        input_features : ignored
            Present for API consistency.

        Returns
        -------
        feature_names_out : ndarray of str objects
            ``multimodalnetclassifier0`` and so on.
        """
        check_is_fitted(self)
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{i}" for i in range(self.network_.joint_features)], dtype=object)

    def _compute_outputs(self, X):
        """Return the outputs of the network; rows without any modality get those that predict the training data."""
        rows, is_empty = self._rows_of(X)
        outputs = self._apply(rows, lambda batch: self.network_(batch.inputs, batch.mask))
        if is_empty.any():
            warn(
                f"{type(self).__name__}: {is_empty.sum()} of {len(is_empty)} rows have no modality; they are answered "
                "with the class frequencies, or the mean, of the training data."
            )
            outputs[is_empty] = self._prior
        return outputs

    def _rows_of(self, X):
        """Return the rows of X for the network, and the mask of those that have no modality."""
        check_is_fitted(self)
        X = check_X(self, X, reset=False)
        arrays, present = self._prepare(X)
        return self._make_rows(arrays, present), ~present.any(axis=1)

    def _apply(self, rows, function):
        from .network import apply

        return apply(self.network_, rows, function, self._device, self._autocast())

    def _join(self, rows):
        return self.network_.join(self.network_.hiddens(rows.inputs, rows.mask), rows.mask)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "network_")

    def __getstate__(self):
        state = super().__getstate__().copy()
        if "network_" in state:
            # Arrays instead of modules: they load on any device, and are safe to read.
            state["network_"] = to_arrays(self.network_.state_dict())
            state["_device"] = str(self._device)
        return on_cpu(state)

    def __setstate__(self, state):
        super().__setstate__(state)
        if "network_" in state:
            import torch

            try:
                self._device = resolve_device(self.device)
            except ValueError:
                # Trained on a device that this machine does not have.
                self._device = torch.device("cpu")
            if self._device.type == "mps" and self._dtype == "float64":
                # MPS cannot compute in float64.
                self._device = torch.device("cpu")
            self.network_ = self._make_network(torch.Generator())
            self.network_.load_state_dict(to_tensors(state["network_"]))
            self.network_.to(self._device)

    def _infer(self, X, y):
        return list(infer_modalities(X, y))

    def _missing_methods(self, member):
        if is_trained(member):
            return []
        return super()._missing_methods(member)

    def _sk_visual_block_(self):
        return self._member_block()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        try:
            members = [member for _, member, _ in self._entries if not isinstance(member, str)]
            # Items of a branch may be missing, and need not be numbers.
            inputs = [None if is_trained(member) else member_tags(member).input_tags for member in members]
        except Exception:
            # Tags are read before fit has checked the parameters.
            return tags
        tags.input_tags.allow_nan = all(member is None or member.allow_nan for member in inputs)
        tags.input_tags.string = self._is_auto or any(member is None or member.string for member in inputs)
        return tags


def _read(reader, tensor, positions):
    """Return the input of the network that a reader returns for the rows at some positions."""
    return tuple(map(tensor, reader(positions.numpy())))


def _drop_rows_without_weight(X, y, weights, groups, owner):
    """Leave out rows of weight 0, so that they have no influence at all."""
    if weights is None or (weights > 0).all():
        return X, y, weights, groups
    if (weights < 0).any() or not weights.any():
        raise ValueError(
            f"{owner}: weights of rows must not be negative, and not all be 0; leave out rows by weight 0."
        )
    rows = np.flatnonzero(weights)
    return safe_indexing(X, rows, axis=0), y[rows], weights[rows], None if groups is None else groups[rows]
