"""Sound to vectors, with the audio networks of transformers, or any module."""

import os
from collections import defaultdict
from collections.abc import Callable
from math import ceil
from numbers import Real
from typing import Any

import numpy as np

from .._sklearn import HasMethods, Interval, StrOptions
from .._typing import PathType
from ..media import load_audio
from ..store import EmbeddingStore
from ._model import ModelEncoder, ready_module
from .networks import SHORTEST_SECONDS, AudioModel, Recipe, load_audio_model, save_audio_model

# Seconds of sound per batch with batch_size="auto".
_SECONDS_PER_BATCH = {"cpu": 30}
_SECONDS_PER_BATCH_ELSEWHERE = 600

# Rate of a module in memory if none is stated: that of nearly all speech models.
_USUAL_RATE = 16_000


class AudioEncoder(ModelEncoder):
    """Encode recordings as vectors with a pretrained network.

    Nothing is trained, and nothing is loaded before ``fit``; all encoders of a process share one copy of a named model.
    Recordings are decoded, mixed down to one channel and resampled to the network's rate in threads; long ones are cut
    into windows, whose vectors are pooled. Files need ``pip install "skmm[audio]"``.

    Parameters
    ----------
    model : str, path-like or torch.nn.Module, default="facebook/wav2vec2-base-960h"
        - an audio model of transformers by its name on the Hugging Face hub, or the local folder of its checkpoint:
          wav2vec 2.0 [1]_, HuBERT, WavLM and others that take the waveform, Whisper [2]_ (its encoder), AST [3]_, CLAP
          [4]_ (the audio half of a space shared with texts);
        - a module in memory, which maps a float tensor of waveforms (n, n_times), or of what ``preprocess`` makes of
          them, to (n, n_features), or to (n, n_frames, n_features), which is then pooled. It is never changed: a copy
          runs where it is in training mode, or on another device or in another precision.

        Weights of named models load from safetensors files, and code that a checkpoint brings along never runs.

    preprocess : callable, default=None
        For a module in memory, and only there. Maps the waveform of a window, a float32 array (n_times,) at
        ``target_rate``, to a tensor such as a log-mel spectrogram. None passes the waveform itself.

    target_rate : float, default=None
        For a module in memory, and only there: the rate in Hz that it was made for, to which recordings are resampled.
        None is 16,000. Named models state theirs.

    sampling_rate : float, default=None
        Rate in Hz of items that are bare arrays, which do not state it. None refuses such items. Files and pairs
        (sampling_rate, waveform) state their own.

    pooling : {"mean", "max", "first"}, default="mean"
        How the frames of a recording become one row: their mean, their maximum, or the first one. Frames of padding
        alone do not count. AST and CLAP return one vector per window, and only windows are pooled.

    window : float, default=30.0
        Longest stretch in seconds that is encoded at once. Longer recordings are cut into windows of that length; the
        mean weighs each by its length, the maximum is over all of them, the first is that of the first window. None
        cuts only where the model demands it: Whisper at 30 s, AST at 10.24 s, CLAP at 10 s.

    device : str, default="auto"
        "auto" for the first of "cuda", "mps" and "cpu" that is there, or a torch device such as "cuda:1".

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of weights and computation. "auto" is half precision on GPUs and on CPUs with AMX, else "float32";
        a module in memory stays in its own. Rows are float32 always.

    batch_size : int or "auto", default="auto"
        Maximum number of windows per batch. "auto" goes by their length: 30 s on CPU, 600 s elsewhere.
        A batch that does not fit into memory is halved.

    compile : bool, default=False
        Whether to run the network through ``torch.compile``, which pays for many items only: see :class:`ImageEncoder`.

    normalize : bool, default=False
        Whether to scale each row to unit length.

    root : str or path-like, default=None
        Folder below which relative paths are looked up, as for :class:`ImageEncoder`.

    store, cache_key : default="auto" and None
        Where embeddings are kept, and how a module in memory is known there, as for :class:`ImageEncoder`.

    on_error : {"raise", "missing"}, default="raise"
        What to do with an item that is no sound or cannot be decoded: raise an error that names its row, or return a
        row of NaN and warn once.

    revision : str, default=None
        Branch, tag or commit of a model on the hub; None is its main branch.

    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        1, the column of recordings.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    n_features_out_ : int
        Width of the model's vectors.

    logit_scale_ : float or None
        Factor of cosine similarities in the loss of CLAP; None for networks without one.

    errors_ : list of ItemError
        Items that the last ``fit_transform`` could not encode, with ``row``, ``item`` and ``reason``; empty after
        ``fit``.

    Raises
    ------
    OSError
        If the model cannot be loaded; it names the model and the ways to provide it.

    ValueError
        If the device cannot be used, parameters do not go together, or an item cannot be decoded and ``on_error`` is
        "raise".

    ImportError
        If an item is a file, or is to be resampled, and the extra "audio" is not installed.

    See Also
    --------
    AudioDescriptor : Classical features, without weights.
    TextEncoder : Texts.

    Notes
    -----
    An item is a path or the bytes of a file that libsndfile or FFmpeg reads (WAV, FLAC, OGG, MP3, M4A, ...), a pair
    ``(sampling_rate, waveform)``, a dict with "sampling_rate" and "array", or with "bytes" or "path", or a bare
    waveform; an array of two dimensions is a column of bare waveforms, one per row. The waveform of one item has the
    shape (n_times,), or two axes, the shorter of which holds the channels (the last one if both are equal): their mean
    is taken. Integers of 8, 16 and 32 bits are divided by their full scale, floats are taken as they are.

    A file that ends before its header says is an item that cannot be decoded, as are values that are NaN or infinite.
    Silence and recordings of a single sample are ordinary items; what is shorter than the network's first frame (25 ms
    at least) is filled up with zeros. Missing items (None, NaN, ``pd.NA``, an empty path) yield rows of NaN. Equal
    items are encoded once per call. At most 64 recordings, twice that while others are decoded ahead, are in memory at
    a time.

    A row depends on its recording alone up to rounding (1e-5 in float32 on CPU): windows of one shape share a batch,
    and only networks that were trained with an attention mask and whose convolutions ignore padding (those with
    ``feat_extract_norm="layer"``) are given padded ones, with their mask. In float32 rows equal what transformers
    computes from the same waveform alone.

    Pickles hold the parameters, not the weights of named models; a module in memory travels with its encoder, and
    clones share it.

    References
    ----------
    .. [1] Baevski, A. et al. (2020). "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech
       Representations." Advances in Neural Information Processing Systems 33, 12449-12460.
    .. [2] Radford, A. et al. (2023). "Robust Speech Recognition via Large-Scale Weak Supervision."
       Proceedings of ICML, 28492-28518.
    .. [3] Gong, Y., Chung, Y.-A. and Glass, J. (2021). "AST: Audio Spectrogram Transformer." Proceedings of
       Interspeech, 571-575.
    .. [4] Wu, Y. et al. (2023). "Large-Scale Contrastive Language-Audio Pretraining with Feature Fusion and
       Keyword-to-Caption Augmentation." Proceedings of ICASSP, 1-5.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from skmm.encoders import AudioEncoder
    >>> network = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 8, 80, 40), nn.Flatten())
    >>> encoder = AudioEncoder(network, target_rate=8000)
    >>> times = np.arange(8000) / 8000
    >>> recordings = [(8000, np.sin(2 * np.pi * pitch * times)) for pitch in (110, 220, 440)]
    >>> encoder.fit_transform(recordings).shape
    (3, 1592)
    """

    _parameter_constraints: dict = {
        **ModelEncoder._parameter_constraints,
        "model": [str, os.PathLike, HasMethods(["forward", "parameters"])],
        "preprocess": [callable, None],
        "target_rate": [Interval(Real, 0, None, closed="neither"), None],
        "sampling_rate": [Interval(Real, 0, None, closed="neither"), None],
        "pooling": [StrOptions({"mean", "max", "first"})],
        "window": [Interval(Real, 0, None, closed="neither"), None],
        "root": [str, os.PathLike, None],
        "cache_key": [str, None],
    }

    _prepare_in_threads = True
    _not_in_rows = {"preprocess", "cache_key", "root"}
    _items_are_files = True
    _rows_are_items = True
    _logit_scale = "logit_scale_a"
    _window = 64

    def __init__(
        self,
        model: Any = "facebook/wav2vec2-base-960h",
        *,
        preprocess: Callable | None = None,
        target_rate: float | None = None,
        sampling_rate: float | None = None,
        pooling: str = "mean",
        window: float | None = 30.0,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | str = "auto",
        compile: bool = False,
        normalize: bool = False,
        root: PathType | None = None,
        store: PathType | EmbeddingStore | None = "auto",
        cache_key: str | None = None,
        on_error: str = "raise",
        revision: str | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.preprocess = preprocess
        self.target_rate = target_rate
        self.sampling_rate = sampling_rate
        self.pooling = pooling
        self.window = window
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.compile = compile
        self.normalize = normalize
        self.root = root
        self.store = store
        self.cache_key = cache_key
        self.on_error = on_error
        self.revision = revision
        self.verbose = verbose

    def _save_model(self, model, folder):
        save_audio_model(model, folder)

    def _check_parameters(self):
        if self._is_named():
            for name in ("preprocess", "target_rate", "cache_key"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"AudioEncoder: {name} is for a module in memory; leave it at None, since the model "
                        f"{os.fspath(self.model)!r} brings its own."
                    )

    def _find_loader(self, name, folder):
        return "transformers-audio"

    def _find_facts(self, model):
        # Plain data or the user's own callable, for the threads that prepare items and for pickles; never weights.
        self._recipe = model.recipe
        return {**super()._find_facts(model), "recipe": vars(model.recipe)}

    def _use_facts(self, facts):
        self._recipe = Recipe(**facts["recipe"])

    def _libraries(self):
        return "av", "soundfile", "soxr", "torch", "transformers"

    def _probe_item(self, number):
        """Return noise of a second, half a second, or a second and a half, so that no part of it is silent."""
        rate = ceil(self._recipe.rate)
        noise = np.random.PCG64(number).random_raw((2, 1, 3)[number] * rate // 2).view(np.int64) / 2**65
        return rate, noise.astype(np.float32)

    def _get_model(self, run):
        if run.source is not None:
            return super()._get_model(run)
        rate = _USUAL_RATE if self.target_rate is None else self.target_rate
        recipe = Recipe(rate, ceil(SHORTEST_SECONDS * rate), preprocess=self.preprocess)
        return AudioModel(ready_module(self), recipe)

    def _load_model(self, source, device, dtype):
        return load_audio_model(source, device, dtype)

    def _prepare_item(self, item):
        recipe = getattr(self, "_recipe", None)
        waveform, _ = load_audio(item, None if recipe is None else recipe.rate, self.sampling_rate)
        return waveform if recipe is None else self._cut(waveform)

    def _cut(self, waveform):
        """Return the windows of a waveform, each as the network's input."""
        recipe = self._recipe
        limits = [recipe.longest, None if self.window is None else max(1, round(self.window * recipe.rate))]
        length = max(min([limit for limit in limits if limit is not None], default=len(waveform)), recipe.shortest)
        windows = [waveform[start : start + length] for start in range(0, len(waveform), length)]
        # A last window shorter than one frame is dropped: it would be mostly padding.
        if len(windows) > 1 and len(windows[-1]) < recipe.shortest:
            windows.pop()
        return [recipe.window_of(window) for window in windows]

    def _batches(self, prepared, model):
        # The largest first, so that what does not fit into memory shows at once.
        for positions in reversed(_equal_shapes([recording[0] for recording in prepared])):
            n_rows = self._rows_per_batch(prepared[positions[0]][0], model)
            batch, n_windows = [], 0
            for position in positions:
                batch.append(position)
                n_windows += len(prepared[position])
                if n_windows >= n_rows:
                    yield batch
                    batch, n_windows = [], 0
            if batch:
                yield batch

    def _rows_per_batch(self, window, model):
        if self.batch_size != "auto":
            return self.batch_size
        n_seconds = _SECONDS_PER_BATCH.get(model.device.type, _SECONDS_PER_BATCH_ELSEWHERE)
        return max(1, int(n_seconds * self._recipe.rate) // window.n_padded)

    def _encode_prepared(self, batch, model):
        windows = [window for recording in batch for window in recording]
        rows = [None] * len(windows)
        for same_shape in _equal_shapes(windows):
            n_rows = self._rows_per_batch(windows[same_shape[0]], model)
            for start in range(0, len(same_shape), n_rows):
                positions = same_shape[start : start + n_rows]
                vectors = super()._encode_prepared([windows[i] for i in positions], model)
                for i, vector in zip(positions, vectors, strict=True):
                    rows[i] = vector
        widths = {len(row): window.n_times for row, window in zip(rows, windows, strict=True)}
        if len(widths) > 1:
            examples = ", ".join(f"{width} for {n_times} samples" for width, n_times in sorted(widths.items()))
            raise ValueError(
                f"{type(self).__name__}: the number of features that the model returns depends on the length of the "
                f"recording ({examples}); let it pool over time, or return (n, n_frames, n_features), which is pooled."
            )
        rows = iter(rows)
        return np.stack([self._pool_windows(np.stack([next(rows) for _ in windows]), windows) for windows in batch])

    def _pool_windows(self, rows, windows):
        if len(rows) == 1 or self.pooling == "first":
            return rows[0]
        if self.pooling == "max":
            return rows.max(axis=0)
        return np.average(rows, axis=0, weights=[window.n_times for window in windows]).astype(np.float32)

    def _cost(self, prepared, model):
        return prepared.n_padded

    def _prepared_bytes(self, prepared):
        return sum(window.nbytes for window in prepared) if isinstance(prepared, list) else 0

    def _inputs(self, prepared):
        return prepared

    def _forward(self, model, batch):
        return model.embed(batch, self.pooling)


def _equal_shapes(windows):
    """Return lists of the positions of windows of one shape, in increasing order of the shapes."""
    positions_of = defaultdict(list)
    for position, window in enumerate(windows):
        positions_of[window.shape].append(position)
    return [positions_of[shape] for shape in sorted(positions_of)]
