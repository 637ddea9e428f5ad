"""Signals over time: sound, by a small network on log-mel frames or a pretrained one, and series of numbers."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real

import narwhals.stable.v2 as nw
import numpy as np

from ..._columns import is_data_frame
from ..._optional import import_optional_dependency
from ..._sklearn import Interval, StrOptions
from ..._typing import PathType
from ...encoders import AudioEncoder
from ...exceptions import RejectedItem
from ...media import SpectralFeatures, load_audio
from ._base import Branch
from ._pretrained import PretrainedBranch

# Range of a log-mel spectrogram in decibels below its loudest value.
_RANGE = 80.0


class _SignalBranch(Branch):
    """Base of the branches that read steps of numbers."""

    _parameter_constraints: dict = {
        **Branch._parameter_constraints,
        "architecture": [StrOptions({"cnn", "gru"})],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "kernel_size": [Interval(Integral, 1, None, closed="left")],
        "pooling": [StrOptions({"max", "mean"})],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    _rows_are_items = True

    def _learn(self, X):
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"{type(self).__name__}: kernel_size must be odd, got {self.kernel_size}; take one more or one less."
            )
        self._items(X)

    def _make_module(self):
        from ._modules import SignalModule

        return SignalModule(self._n_channels(), self)

    def _n_channels(self):
        """Return the number of values per step."""
        raise NotImplementedError


def _pad(rows):
    """Return signals of several lengths as one array, padded with 0, and their lengths."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    steps = np.zeros((len(rows), lengths.max(), rows[0].shape[1]), dtype=rows[0].dtype)
    for padded, row in zip(steps, rows, strict=True):
        padded[: len(row)] = row
    return steps, lengths


class AudioBranch(_SignalBranch, PretrainedBranch):
    """Read recordings with layers on log-mel frames, or a pretrained network, that are trained with the network.

    With ``model`` a pretrained network is fine-tuned. For a pretrained network without fine-tuning use
    :class:`~skmm.encoders.AudioEncoder` as the modality's transformer, which is much faster. Needs
    ``pip install "skmm[audio]"``.

    Parameters
    ----------
    architecture : {"cnn", "gru"}, default="cnn"
        "cnn" is convolutions over time with the mel bands as channels [1]_, "gru" a bidirectional GRU [2]_.

    n_hidden : int, default=64
        Channels of the convolutions, or units of the GRU in each direction.

    n_layers : int, default=3
        Number of layers. Each convolution halves the number of frames.

    kernel_size : int, default=5
        Number of frames that a convolution sees at once, odd.

    pooling : {"max", "mean", "first"}, default="mean"
        How the frames become one vector; padding is ignored. "first", the vector of the first frame, is for ``model``
        alone.

    dropout : float, default=0.1
        Share of the pooled values that are set to 0 in training.

    n_mels : int, default=40
        Number of mel bands: fewer than the 64 of :class:`~skmm.encoders.AudioDescriptor`, since the first layer has
        weights for each of them, which little data does not suffice to learn.

    n_fft : int, default=1024
        Length of a frame in samples at ``target_rate``. Shorter recordings are padded with zeros.

    hop_length : int, default=256
        Samples from one frame to the next.

    target_rate : float, default=16000
        Rate in Hz that recordings are resampled to.

    sampling_rate : float, default=None
        Rate in Hz of items that are bare arrays, which do not state it. None refuses such items.

    max_seconds : float, default=10.0
        Maximum duration in seconds; the rest is cut off.

    model : str or path-like, default=None
        A network of transformers by its name on the Hugging Face hub, or the local folder of its checkpoint, as
        :class:`~skmm.encoders.AudioEncoder` takes it. The parameters above have no meaning then, but for ``pooling``,
        ``dropout``, ``sampling_rate`` and ``max_seconds``. None trains a small network from scratch.

    learning_rate : float, default=None
        Learning rate of this branch. None is 1e-4 for ``model``, 1e-3 for its adapters, else the rate of the network.

    layer_decay : float, default=1.0
        Learning rate of a layer of ``model`` as a share of that of the layer after it: below 1, the first layers, which
        are the most general, change least [3]_.

    n_frozen_epochs : int, default=0
        Number of first epochs in which the weights of this branch are frozen, so that the random layers after a
        pretrained ``model`` do not spoil it.

    gradual_unfreezing : bool, default=False
        Whether after these epochs only the last layer of ``model`` is trained, and in each further epoch one more
        [3]_.

    freeze : bool, default=False
        Whether ``model`` is not trained at all. For frozen features, an encoder as the modality's transformer is much
        faster, since it computes them once.

    adapter : {"lora"}, default=None
        "lora" trains low-rank matrices beside the linear layers of ``model`` in place of its weights [4]_. Needs
        ``pip install "skmm[finetune]"``.

    rank : int, default=8
        Rank of these matrices.

    gradient_checkpointing : bool, default=False
        Whether layers of ``model`` run once more in the backward pass, instead of keeping their inner states: memory
        for longer items and larger batches, at about a third more time.

    compile : bool, default=False
        Whether to run ``model`` through ``torch.compile``. The first batches wait for the compiler, up to minutes, so
        that it can only pay for long training; on a CPU it needs a C++ compiler. Predictions are the same within
        rounding.

    revision : str, default=None
        Branch, tag or commit of a ``model`` on the hub; None is its main branch.

    augment : bool, sequence of str, or callable, default=None
        Random changes of recordings in training: some of "noise" (up to a fifth of the deviation of the recording),
        "shift" (by up to a tenth of its length; what leaves it at one end comes in at the other) and "mask" (silence in
        up to a tenth of its length, and in up to a fifth of the bands of a spectrogram [5]_), or True for all. A
        callable is called with the tuple of a batch's tensors and a torch generator; it returns such a tuple. The
        tensors are frames (n, n_frames, n_mels) and their numbers (n,); with ``model`` lengths (n, n_windows, ...),
        then the inputs of the network for windows of at most 30 seconds, such as waveforms (n, n_windows, n_times).

    Attributes
    ----------
    n_features_in_ : int
        1, the column of recordings.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    Raises
    ------
    OSError
        By ``fit`` if ``model`` cannot be loaded; it names the model and the ways to provide it.

    ValueError
        By ``fit`` if ``kernel_size`` is even; by ``prepare`` if an item cannot be decoded; it names the row.

    See Also
    --------
    SequenceBranch : Series of numbers.
    skmm.encoders.AudioEncoder : Pretrained networks.

    Notes
    -----
    Items are those of :class:`~skmm.encoders.AudioEncoder`. Decibels are relative to the loudest value of the
    recording, which becomes 1, and 80 below it becomes -1: the volume of a recording has no influence. ``prepare``
    returns an array of frames (n_samples, n_frames, n_mels), padded with 0, and their numbers (n_samples,).

    ``model`` runs as in its evaluation, without dropout inside: it starts from the vectors of
    :class:`~skmm.encoders.AudioEncoder`. Networks without a mask for padding, such as wav2vec 2.0 base, read recordings
    of different lengths one by one. Batches of 8 to 16 recordings suit the memory of a CPU. A pickled network holds the
    weights, but not the architecture: to load it, the model must be available as for ``fit``.

    References
    ----------
    .. [1] Choi, S. et al. (2019). "Temporal Convolution for Real-time Keyword Spotting on Mobile Devices." Interspeech,
       3372-3376.
    .. [2] Cho, K. et al. (2014). "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
       Translation." EMNLP, 1724-1734.
    .. [3] Howard, J. and Ruder, S. (2018). "Universal Language Model Fine-tuning for Text Classification." ACL,
       328-339.
    .. [4] Hu, E. et al. (2022). "LoRA: Low-Rank Adaptation of Large Language Models." ICLR.
    .. [5] Park, D. et al. (2019). "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition."
       Interspeech, 2613-2617.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.neural_network import AudioBranch
    >>> recordings = [(16000, np.sin(np.arange(n) / 10)) for n in (8000, 16000)]
    >>> frames, n_frames = AudioBranch().fit(recordings).prepare(recordings)
    >>> frames.shape, n_frames
    ((2, 63, 40), array([32, 63]))
    """

    _parameter_constraints: dict = {
        **PretrainedBranch._parameter_constraints,
        **_SignalBranch._parameter_constraints,
        "augment": [callable, "boolean", list, tuple, None],
        "model": [str, os.PathLike, None],
        "pooling": [StrOptions({"max", "mean", "first"})],
        "n_mels": [Interval(Integral, 1, None, closed="left")],
        "n_fft": [Interval(Integral, 2, None, closed="left")],
        "hop_length": [Interval(Integral, 1, None, closed="left")],
        "target_rate": [Interval(Real, 0, None, closed="neither")],
        "max_seconds": [Interval(Real, 0, None, closed="neither")],
        "sampling_rate": [Interval(Real, 0, None, closed="neither"), None],
    }

    _changes = ("noise", "shift", "mask")

    def __init__(
        self,
        architecture: str = "cnn",
        *,
        n_hidden: int = 64,
        n_layers: int = 3,
        kernel_size: int = 5,
        pooling: str = "mean",
        dropout: float = 0.1,
        n_mels: int = 40,
        n_fft: int = 1024,
        hop_length: int = 256,
        target_rate: float = 16000,
        sampling_rate: float | None = None,
        max_seconds: float = 10.0,
        model: PathType | None = None,
        learning_rate: float | None = None,
        layer_decay: float = 1.0,
        n_frozen_epochs: int = 0,
        gradual_unfreezing: bool = False,
        freeze: bool = False,
        adapter: str | None = None,
        rank: int = 8,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        revision: str | None = None,
        augment: bool | Sequence[str] | Callable | None = None,
    ):
        self.architecture = architecture
        self.n_hidden = n_hidden
        self.n_layers = n_layers
        self.kernel_size = kernel_size
        self.pooling = pooling
        self.dropout = dropout
        self.n_mels = n_mels
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.target_rate = target_rate
        self.sampling_rate = sampling_rate
        self.max_seconds = max_seconds
        self.model = model
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.n_frozen_epochs = n_frozen_epochs
        self.gradual_unfreezing = gradual_unfreezing
        self.freeze = freeze
        self.adapter = adapter
        self.rank = rank
        self.gradient_checkpointing = gradient_checkpointing
        self.compile = compile
        self.revision = revision
        self.augment = augment

    def _n_channels(self):
        return self.n_mels

    def _learn(self, X):
        self._check_options()
        if self.model is not None:
            PretrainedBranch._learn(self, X)
            return
        if self.pooling == "first":
            raise ValueError('AudioBranch: pooling="first" is for a pretrained model; use "mean" or "max".')
        _SignalBranch._learn(self, X)

    def _make_module(self):
        return (_SignalBranch if self.model is None else PretrainedBranch)._make_module(self)

    def _encoder(self):
        options = {"sampling_rate": self.sampling_rate, "pooling": self.pooling, "revision": self.revision}
        return AudioEncoder(self.model, **options, device="cpu", precision="float32", store=None)

    def _change(self):
        from ._augment import change_frames, change_windows

        return change_frames if self.model is None else change_windows

    def _adapt(self, encoder):
        # Longer recordings are cut.
        encoder._prepare_item = partial(self._prepare_item, encoder)
        encoder._version = ("max_seconds", self.max_seconds)

    def _prepare_item(self, encoder, item):
        rate = encoder._recipe.rate
        waveform, _ = load_audio(item, rate, self.sampling_rate)
        return encoder._cut(waveform[: max(1, round(self.max_seconds * rate))])

    def _pack(self, prepared, run):
        # Samples, samples with padding, and the length of each input of the network; 0 where there is no window.
        extents = np.zeros((len(prepared), max(map(len, prepared)), 2 + len(prepared[0][0].inputs)), dtype=np.int64)
        for row, windows in zip(extents, prepared, strict=True):
            for extent, window in zip(row, windows, strict=False):
                extent[:] = window.n_times, window.n_padded, *(len(values) for values in window.inputs.values())
        arrays = [extents]
        for position, (name, values) in enumerate(prepared[0][0].inputs.items(), start=2):
            shape = *extents.shape[:2], extents[:, :, position].max(), *values.shape[1:]
            arrays.append(np.zeros(shape, dtype=np.float32 if values.dtype.kind == "f" else np.int8))
            for row, windows in zip(arrays[-1], prepared, strict=True):
                for padded, window in zip(row, windows, strict=False):
                    padded[: len(window.inputs[name])] = window.inputs[name]
        return tuple(arrays)

    def _reader(self, prepared, model):
        from ._modules import WindowReader

        return WindowReader(list(prepared[0][0].inputs), model.recipe, self.pooling)

    def _prepare(self, X):
        if self.model is not None:
            return PretrainedBranch._prepare(self, X)
        import_optional_dependency("librosa", "audio")
        return _pad(list(self._read(self._items(X), self._to_frames, in_threads=True)))

    def _to_frames(self, item):
        """Decode one recording to frames of shape (n_frames, n_mels)."""
        waveform, _ = load_audio(item, self.target_rate, self.sampling_rate)
        waveform = waveform[: max(1, round(self.max_seconds * self.target_rate))]
        spectral = SpectralFeatures(
            waveform, self.target_rate, n_fft=self.n_fft, hop_length=self.hop_length, n_mels=self.n_mels
        )
        decibels = spectral.logmel.T
        return 1 + (decibels - decibels.max()) / (_RANGE / 2)


class SequenceBranch(_SignalBranch):
    """Read series of numbers, such as those of a sensor, with layers that are trained with the network.

    Parameters
    ----------
    architecture : {"cnn", "gru"}, default="cnn"
        "cnn" is convolutions over time [1]_, "gru" a bidirectional GRU [2]_.

    n_hidden : int, default=64
        Channels of the convolutions, or units of the GRU in each direction.

    n_layers : int, default=2
        Number of layers. Each convolution halves the number of steps.

    kernel_size : int, default=5
        Number of steps that a convolution sees at once, odd.

    pooling : {"max", "mean"}, default="max"
        How the steps become one vector; padding is ignored.

    dropout : float, default=0.1
        Share of the pooled values that are set to 0 in training.

    max_length : int, default=None
        Maximum number of steps; the rest is cut off. None uses all.

    learning_rate : float, default=None
        Learning rate of this branch; None is that of the network.

    n_frozen_epochs : int, default=0
        Number of first epochs in which the weights of this branch are frozen.

    augment : callable, default=None
        Called in training with the tuple of a batch's tensors, here steps (n, n_steps, n_channels) and their numbers
        (n,), and a torch generator; returns such a tuple.

    Attributes
    ----------
    mean_ : ndarray of shape (n_channels,)
        Mean of each channel over all steps of ``fit``.

    scale_ : ndarray of shape (n_channels,)
        Standard deviation of each channel, 1 for a constant one, by which steps are divided.

    n_features_in_ : int
        Columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,), dtype object
        Names of the columns, if ``fit`` saw a data frame.

    Raises
    ------
    ValueError
        By ``fit`` if ``kernel_size`` is even; by ``fit`` and ``prepare`` if an item is no series, or the number of its
        channels differs; it names the row.

    See Also
    --------
    AudioBranch : Recordings.

    Notes
    -----
    X is one column of arrays (n_steps,) or (n_steps, n_channels), whose lengths may differ, or an array (n_samples,
    n_steps, n_channels), or several columns of numbers, which are the steps of one channel. Missing readings (NaN)
    count as the channel's mean; those at the end of a series are cut off, so that a table may hold series of several
    lengths.

    ``prepare`` returns an array of standardised steps (n_samples, n_steps, n_channels), padded with 0, and their
    numbers (n_samples,).

    References
    ----------
    .. [1] Wang, Z., Yan, W. and Oates, T. (2017). "Time Series Classification from Scratch with Deep Neural Networks: A
       Strong Baseline." IJCNN, 1578-1585.
    .. [2] Cho, K. et al. (2014). "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
       Translation." EMNLP, 1724-1734.

    Examples
    --------
    >>> from skmm.neural_network import SequenceBranch
    >>> series = [[0.0, 2.0, 4.0], [2.0]]
    >>> steps, n_steps = SequenceBranch().fit(series).prepare(series)
    >>> steps[:, :, 0].round(2), n_steps
    (array([[-1.41,  0.  ,  1.41],
           [ 0.  ,  0.  ,  0.  ]]), array([3, 1]))
    """

    _parameter_constraints: dict = {
        **_SignalBranch._parameter_constraints,
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        architecture: str = "cnn",
        *,
        n_hidden: int = 64,
        n_layers: int = 2,
        kernel_size: int = 5,
        pooling: str = "max",
        dropout: float = 0.1,
        max_length: int | None = None,
        learning_rate: float | None = None,
        n_frozen_epochs: int = 0,
        augment: Callable | None = None,
    ):
        self.architecture = architecture
        self.n_hidden = n_hidden
        self.n_layers = n_layers
        self.kernel_size = kernel_size
        self.pooling = pooling
        self.dropout = dropout
        self.max_length = max_length
        self.learning_rate = learning_rate
        self.n_frozen_epochs = n_frozen_epochs
        self.augment = augment

    def _n_channels(self):
        return len(self.mean_)

    def _items(self, X):
        if is_data_frame(X):
            frame = nw.from_native(X, eager_only=True)
            if frame.shape[1] > 1:
                X = frame.to_numpy()
        return super()._items(X)

    def _learn(self, X):
        super()._learn(X)
        steps = np.concatenate(self._series(X, None))
        if not np.isfinite(steps).any():
            raise ValueError("SequenceBranch: the series hold no number; check the columns.")
        # StandardScaler would have NaN as the mean of a channel without any reading.
        present = np.isfinite(steps)
        count = np.maximum(present.sum(axis=0), 1)
        steps = np.where(present, steps, 0).astype(np.float64)
        self.mean_ = steps.sum(axis=0) / count
        deviation = np.sqrt((np.where(present, steps - self.mean_, 0) ** 2).sum(axis=0) / count)
        self.scale_ = np.where(deviation > 1e-12 * np.abs(self.mean_), deviation, 1.0)

    def _prepare(self, X):
        rows = self._series(X, len(self.mean_))
        dtype = np.result_type(*{row.dtype for row in rows})
        rows = [np.nan_to_num((row - self.mean_) / self.scale_).astype(dtype) for row in rows]
        return _pad(rows)

    def _series(self, X, n_channels):
        """Return each item as an array (n_steps, n_channels); None takes the number of channels of the first item."""

        def to_series(item):
            nonlocal n_channels
            try:
                series = np.asarray(item)
                if series.dtype.kind not in "biufO":
                    raise TypeError("strings, dates and complex numbers are converted without an error")
                series = series if series.dtype == np.float32 else series.astype(np.float64)
            except (TypeError, ValueError):
                raise RejectedItem(
                    "a series is an array of real numbers, of shape (n_steps,) or (n_steps, n_channels); convert it"
                ) from None
            if series.ndim not in (1, 2) or series.size == 0:
                raise RejectedItem(
                    "a series has the shape (n_steps,) or (n_steps, n_channels) and at least one step, got "
                    f"{series.shape}"
                )
            if np.isinf(series).any():
                raise RejectedItem("the series has infinite values; replace them by NaN, which counts as missing")
            series = series.reshape(len(series), -1)
            n_channels = n_channels or series.shape[1]
            if series.shape[1] != n_channels:
                raise RejectedItem(
                    f"the series has {series.shape[1]} channels where {n_channels} were expected; fill missing ones "
                    "with NaN"
                )
            read = np.flatnonzero(~np.isnan(series).all(axis=1))
            n_steps = read[-1] + 1 if len(read) else 1
            return series[: n_steps if self.max_length is None else min(n_steps, self.max_length)]

        return list(self._read(self._items(X), to_series))
