"""What the networks share: modalities to tensors, the fit, answers, explanations, persistence.

A subclass says with ``_check_y``, ``_make_outputs`` and ``_make_criterion`` what y is, what the outputs mean and what
they should be.
"""

from numbers import Integral, Real

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from .._composition import ModalityComposition, member_step, member_tags
from .._sklearn import HasMethods, Interval, StrOptions, check_sample_weight, safe_indexing
from .._torch import resolve_device, resolve_precision
from .._validation import check_X
from ._inputs import is_trained, make_input
from ._state import ModuleHolder, is_module, on_cpu, to_arrays, to_tensors
from .network import GradientModulation, resolve_epochs, split_validation

FUSIONS = ("attention", "concat", "film", "gated", "low_rank", "mixture", "sum", "tensor", "weighted")
_EXPLAINED = ("attention", "gated", "mixture", "weighted")
_ARCHITECTURE = ("fusion", "n_layers", "n_joint_layers", "width", "activation", "dropout", "rank", "n_heads")

# Modalities of a single unit each whose products come to 1,024.
_MOST_IN_TENSOR = 10

# Rows from which early_stopping="auto" spares some for validation.
_ENOUGH_TO_SPLIT = 10_000


class MultimodalNet(ModuleHolder, CallbackSupportMixin, TransformerMixin, ModalityComposition):
    """Base of the networks over modalities."""

    _parameter_constraints: dict = {
        "modalities": [list, tuple],
        # A module; torch is not imported to tell.
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
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "modulation": [GradientModulation, None],
        "modality_dropout": [Interval(Real, 0, 1, closed="left")],
        "warm_start": ["boolean"],
        "device": [str],
        "precision": [StrOptions({"auto", "full", "bfloat16"})],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
    }

    def _missing_methods(self, member):
        if is_trained(member):
            return []
        return super()._missing_methods(member)

    def _check_y(self, X, y, *, reset=False):
        """Give y as an array, checked against X; with ``reset`` it says what is to be learned."""
        raise NotImplementedError

    def _make_outputs(self, y, weights, classes):
        """Give what the outputs mean; classes, if they are given, are all that will ever come."""
        raise NotImplementedError

    def _make_criterion(self):
        """Give the loss."""
        raise NotImplementedError

    def _note_criterion(self, criterion):
        """Note what the loss learned."""

    def _weigh(self, y, sample_weight):
        """Give the weights of the rows, or None if all count alike."""
        return None if sample_weight is None else check_sample_weight(sample_weight, np.empty(len(y)))

    def transform(self, X):
        """Give the joint hidden representation that enters the head of the network.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        joint : ndarray of shape (n_samples, n_features_out)
            Joint representation of each row, in the dtype of the network; that of a row without any modality is NaN.
        """
        rows, absent = self._answerable(X)
        joint = self._apply(rows, lambda part: self._joined(part)[0])
        joint[absent] = np.nan
        return joint

    @available_if(lambda self: getattr(self, "_architecture", {}).get("fusion", self.fusion) in _EXPLAINED)
    def explain(self, X):
        """Say how much each modality counted in each row; only of fusions that weigh modalities.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        weights : pandas.DataFrame of shape (n_samples, n_modalities)
            Weights in [0, 1] of sum 1 over the modalities present in the row, 0 for the others: the weights of
            "weighted", the gates of "gated" (mean over units) and "mixture", the attention that a modality gets in
            "attention" (mean over heads and the queries of present modalities). NaN in a row without any modality.
        """
        import pandas as pd

        rows, absent = self._answerable(X)
        weights = self._apply(rows, lambda part: self._joined(part)[1])
        weights[absent] = np.nan
        return pd.DataFrame(weights, columns=[part.name for part in self._inputs], index=getattr(X, "index", None))

    def get_feature_names_out(self, input_features=None):
        """Get the names of what ``transform`` gives.

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

    def _joined(self, rows):
        return self.network_.join(self.network_.hiddens(rows.inputs, rows.mask), rows.mask)

    def _fit(self, X, y, sample_weight, X_val=None, y_val=None, *, keep=False, classes=None):
        """Fit, or with ``keep`` go through the rows once, with the network that is there if there is one."""
        if (X_val is None) != (y_val is None):
            raise ValueError(f"{type(self).__name__}: X_val and y_val come together, got only one of them.")
        if X_val is not None and self.early_stopping is False:
            raise ValueError(f"{type(self).__name__}: early_stopping=False makes no use of X_val; leave it out.")
        reset = not (hasattr(self, "network_") and (keep or self.warm_start))
        if reset:
            self.__dict__.pop("network_", None)
            self._check_modalities()
        # Of a network that goes on as well: loss and modulation are those of now.
        self._check_parameters()
        X = self._fit_columns(X) if reset else check_X(self, X, reset=False)
        y = self._check_y(X, y, reset=reset)
        weights = self._weigh(y, sample_weight)
        if reset:
            self._random_state = check_random_state(self.random_state)
            self._outputs = self._make_outputs(y, weights, classes)
        seed = self._random_state.randint(2**31 - 1)
        X, y, weights = _with_weight(X, y, weights, type(self).__name__)
        n_epochs = 1 if keep else resolve_epochs(self.max_epochs, self.batch_size, len(y))
        progress = self._init_callback_context(max_subtasks=len(self._active()) * reset + n_epochs)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        arrays = self._fit_inputs(X, y, weights, progress) if reset else self._prepare(X)
        if reset:
            self._dtype = _common_dtype(arrays[0])
            self._device = resolve_device(self.device)
            if self._device.type == "mps":
                self._dtype = "float32"
        targets = self._outputs.encode(y, type(self).__name__, self._dtype)
        train = self._make_rows(*arrays, targets, weights)
        validation = None
        if X_val is not None:
            X_val = check_X(self, X_val, reset=False)
            y_val = self._outputs.encode(self._check_y(X_val, y_val), type(self).__name__, self._dtype)
            validation = self._make_rows(*self._prepare(X_val), y_val, None)
        elif not keep and (
            self.early_stopping is True or (self.early_stopping == "auto" and len(y) >= _ENOUGH_TO_SPLIT)
        ):
            train, validation = self._split(train, np.random.RandomState(seed))
        if reset:
            self._prior = self._outputs.prior(targets, weights)
        self._train(train, validation, n_epochs, seed, progress, reset, keep)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _check_parameters(self):
        """Raise if parameters do not go together, in a way that their constraints cannot say."""
        if not isinstance(self.fusion, str) and not is_module(self.fusion):
            raise TypeError(
                f"{type(self).__name__}: fusion is one of {list(FUSIONS)} or a torch.nn.Module, got "
                f"{type(self.fusion).__name__}."
            )
        if self.modulation is not None:
            self.modulation._validate_params()
            if callable(getattr(self, "loss", None)):
                raise ValueError(f"{type(self).__name__}: modulation needs one of the named losses, got {self.loss!r}.")
        if self.fusion == "tensor" and len(self._active()) > _MOST_IN_TENSOR:
            raise ValueError(
                f"{type(self).__name__}: fusion='tensor' takes at most {_MOST_IN_TENSOR} modalities, its size doubles "
                f"with each; got {len(self._active())}; use 'low_rank'."
            )
        if self.fusion == "attention" and self.width % self.n_heads:
            raise ValueError(
                f"{type(self).__name__}: fusion='attention' needs a width that n_heads divides, got width={self.width} "
                f"and n_heads={self.n_heads}."
            )

    def _fit_inputs(self, X, y, weights, progress):
        """Fit the transformers and branches; give what :meth:`_prepare` gives."""
        self._inputs, arrays, present = [], [], []
        active = [(name, member, columns) for name, member, columns in self.modalities if name in self._active()]
        for name, member, _ in active:
            part = make_input(name, member)
            step = member_step(progress, f"modality {name}", member)
            own, mask = part.fit(self, self._select(X, name), y, weights, step)
            self._inputs.append(part)
            arrays.append(own)
            present.append(mask)
        self.modalities_ = [
            (name, part.member, columns) for (name, _, columns), part in zip(active, self._inputs, strict=True)
        ]
        return arrays, np.column_stack(present)

    def _prepare(self, X):
        """Give the arrays of each modality, and where they are present of shape (n_samples, n_modalities)."""
        arrays, present = zip(*(part.prepare(self._select(X, part.name)) for part in self._inputs), strict=True)
        return list(arrays), np.column_stack(present)

    def _make_rows(self, arrays, present, targets=None, weights=None):
        """Make tensors, on the CPU; rows without any modality teach nothing and are left out if there are targets."""
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
        rows = Rows([tuple(map(tensor, own)) for own in arrays], mask, targets, weights)
        if targets is None or mask is None or present.any(axis=1).all():
            return rows
        if not present.any():
            raise ValueError(f"{type(self).__name__}: no row has any modality, so there is nothing to learn from.")
        return rows.take(torch.from_numpy(np.flatnonzero(present.any(axis=1))))

    def _split(self, rows, random_state):
        """Split rows into those to learn from and those to validate on."""
        import torch

        strata = self._outputs.strata(rows.targets.numpy() if isinstance(rows.targets, torch.Tensor) else rows.targets)
        parts = split_validation(len(rows), strata, self.validation_fraction, random_state, type(self).__name__)
        return [rows.take(torch.from_numpy(part)) for part in parts]

    def _train(self, train, validation, n_epochs, seed, progress, reset, keep):
        import torch

        from .network import Trainer, seeded

        if train.weights is not None:
            # Of mean 1, so that a weight of 2 is the same as the row twice, whatever batches are.
            train.weights = train.weights / train.weights.mean()
        criterion = self._make_criterion()
        with seeded(seed, self._device):
            if reset:
                self._architecture = {name: getattr(self, name) for name in _ARCHITECTURE}
                self.network_ = self._make_network().to(self._device)
                self._optimizer_state, self._n_epochs_in_all, self.loss_curve_ = {}, 0, []
            branches = [(part.learning_rate, part.n_frozen_epochs, part.augment) for part in self._inputs]
            generator = torch.Generator().manual_seed(seed)
            trainer = Trainer(self.network_, criterion, self._device, branches, self, generator, self._autocast())
            if keep:
                trainer.load_optimizer_state(self._optimizer_state)
            before = None if reset else trainer.save()
            with tqdm(total=n_epochs, desc=type(self).__name__, unit="epoch", disable=not self.verbose) as bar:

                def on_epoch(epoch, loss, score):
                    step = progress.subcontext(task_name="epoch")
                    step.call_on_fit_task_begin(estimator=self)
                    step.call_on_fit_task_end(estimator=self)
                    if self.verbose:
                        bar.set_postfix(loss=loss, **({} if score is None else {"score": score}), refresh=False)
                    bar.update()

                schedule = "constant" if keep else self.schedule
                try:
                    trainer.fit(
                        train, validation, n_epochs, self.patience, schedule, on_epoch, n_before=self._n_epochs_in_all
                    )
                except BaseException as error:
                    # An interrupt leaves what was learned, any other end what there was before.
                    if isinstance(error, KeyboardInterrupt) and trainer.history.losses:
                        self._note(trainer, validation, keep)
                    elif reset:
                        del self.network_
                    else:
                        trainer.restore(before)
                    raise
        self._note(trainer, validation, keep)

    def _note(self, trainer, validation, keep):
        """Note what training left beside the network."""
        losses, scores = trainer.history.losses, trainer.history.scores
        self.loss_curve_ = [*self.loss_curve_, *losses] if keep else losses
        self.validation_scores_ = None if validation is None else scores
        self.n_epochs_ = len(self.loss_curve_)
        self._n_epochs_in_all += len(losses)
        self._optimizer_state = trainer.optimizer_state() if keep else {}
        self._note_criterion(trainer.criterion)

    def _make_network(self):
        """Make the network, on the CPU, with random weights."""
        import torch

        from .network import Network

        branches = [part.make_module() for part in self._inputs]
        network = Network(branches, self._outputs.n_outputs, **self._architecture)
        return network.to(getattr(torch, self._dtype)).eval()

    def _autocast(self):
        """Give the half precision to compute in, or None."""
        import torch

        if self._dtype != "float32" or self.precision == "full":
            return None
        # Layers over frozen features are small: they wait for memory, not for arithmetic.
        if self.precision == "auto" and not any(self.network_.is_trained):
            return None
        dtype = resolve_precision(self.precision, self._device)
        return dtype if dtype == torch.bfloat16 else None

    def _answerable(self, X):
        """Give the rows of X for the network, and the mask of those that have no modality."""
        check_is_fitted(self)
        X = check_X(self, X, reset=False)
        arrays, present = self._prepare(X)
        return self._make_rows(arrays, present), ~present.any(axis=1)

    def _apply(self, rows, function):
        from .network import apply

        return apply(self.network_, rows, function, self._device, self._autocast())

    def _respond(self, X):
        """Give the outputs of the network, and those that stand for the training data where a row has no modality."""
        import warnings

        rows, absent = self._answerable(X)
        outputs = self._apply(rows, lambda part: self.network_(part.inputs, part.mask))
        if absent.any():
            warnings.warn(
                f"{type(self).__name__}: {absent.sum()} of {len(absent)} rows have no modality; they are answered with "
                "the class frequencies, or the mean, of the training data.",
                UserWarning,
                stacklevel=3,
            )
            outputs[absent] = self._prior
        return outputs

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

            from .network import seeded

            try:
                self._device = resolve_device(self.device)
            except ValueError:
                # Trained on a device that this machine does not have.
                self._device = torch.device("cpu")
            if self._device.type == "mps" and self._dtype == "float64":
                # Trained on another, in what this one cannot compute.
                self._device = torch.device("cpu")
            with seeded(0, self._device):
                self.network_ = self._make_network()
            self.network_.load_state_dict(to_tensors(state["network_"]))
            self.network_.to(self._device)

    def _sk_visual_block_(self):
        return self._member_block()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        try:
            members = [member for _, member, _ in self.modalities if not isinstance(member, str)]
            # What a branch reads may be missing, and may be no number.
            found = [None if is_trained(member) else member_tags(member).input_tags for member in members]
        except Exception:
            # Tags are read before fit has said what is wrong with the parameters.
            return tags
        tags.input_tags.allow_nan = all(own is None or own.allow_nan for own in found)
        tags.input_tags.string = any(own is None or own.string for own in found)
        return tags


def _with_weight(X, y, weights, owner):
    """Leave out rows of weight 0, which are as if they were not there."""
    if weights is None or (weights > 0).all():
        return X, y, weights
    if (weights < 0).any() or not weights.any():
        raise ValueError(f"{owner}: weights of rows must not be negative, and not all be 0.")
    rows = np.flatnonzero(weights)
    return safe_indexing(X, rows, axis=0), y[rows], weights[rows]


def _common_dtype(arrays):
    """float64 if all modalities come in it, else float32."""
    return "float64" if all(array.dtype == np.float64 for own in arrays for array in own) else "float32"
