"""Videos: a pretrained network on frames or clips, fine-tuned."""

import os
from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np

from ..._sklearn import HasMethods, Interval
from ...encoders import VideoEncoder
from ._pretrained import PretrainedBranch


class VideoBranch(PretrainedBranch):
    """Read videos with a pretrained network on their frames or clips that is trained with the network.

    A few frames of each video are decoded, and the vectors of its frames or clips are pooled over time. For a
    pretrained network without fine-tuning use :class:`~skmm.encoders.VideoEncoder` as the modality's transformer, which
    is much faster. Needs ``pip install "skmm[video]"``.

    Parameters
    ----------
    model : str, path-like or torch.nn.Module, default="timm/tf_efficientnet_lite0.in1k"
        - an image model of `timm <https://huggingface.co/timm>`_, as :class:`ImageBranch` takes it, without its
          classifier;
        - a video model of transformers (VideoMAE, TimeSformer, ViViT), by its hub name or the local folder of its
          checkpoint;
        - a module in memory, which maps a float tensor of frames (n, 3, height, width) to (n, n_outputs). It is copied,
          and starts from the weights it has.

    preprocess : dict, default=None
        For a module in memory, and only there: size and normalisation of frames, as for
        :class:`~skmm.encoders.ImageEncoder`.

    sampling : {"uniform", "keyframes", "fps"}, default="uniform"
        Which frames are decoded, as for :class:`~skmm.encoders.VideoEncoder`.

    n_frames : int or "auto", default="auto"
        Number of frames, or the most of them, as for :class:`~skmm.encoders.VideoEncoder`.

    fps : float, default=1.0
        Frames per second, for ``sampling="fps"`` only.

    pooling : {"mean", "max", "mean_std", "pyramid"}, default="mean"
        How the vectors of the frames, or of the clips, become one, as for :class:`~skmm.encoders.VideoEncoder`.

    dropout : float, default=0.1
        Share of the pooled values that are set to 0 in training.

    background : str or sequence of 3 int, default="white"
        Colour behind transparent pixels: a name, a code such as "#ffffff", or red, green and blue from 0 to 255.

    learning_rate : float, default=None
        Learning rate of this branch. None is 1e-4 for a named ``model``, 1e-3 for its adapters, else the rate of the
        network.

    layer_decay : float, default=1.0
        Learning rate of a layer of ``model`` as a share of that of the layer after it: below 1, the first layers, which
        are the most general, change least [1]_.

    n_frozen_epochs : int, default=0
        Number of first epochs in which the weights of this branch are frozen, so that the random layers after a
        pretrained ``model`` do not spoil it.

    gradual_unfreezing : bool, default=False
        Whether after these epochs only the last layer of ``model`` is trained, and in each further epoch one more
        [1]_.

    freeze : bool, default=False
        Whether ``model`` is not trained at all. For frozen features, an encoder as the modality's transformer is much
        faster, since it computes them once.

    adapter : {"lora"}, default=None
        "lora" trains low-rank matrices beside the linear layers of ``model`` in place of its weights [2]_. Needs
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

    augment : callable, default=None
        Called in training with the tuple of a batch's tensors and a torch generator; returns such a tuple. The tensors
        are frames (n, n_frames, 3, height, width) of dtype uint8, or prepared clips (n, n_clips, n_frames, 3, height,
        width), and their positions in the order of time (n, n_samples), -1 beyond the end.

    Attributes
    ----------
    n_features_in_ : int
        1, the column of videos.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    Raises
    ------
    OSError
        By ``fit`` if the model cannot be loaded; it names the model and the ways to provide it.

    ValueError
        By ``fit`` if the model is of another kind; by ``prepare`` if an item cannot be decoded; it names the row.

    See Also
    --------
    skmm.encoders.VideoEncoder : Pretrained networks that are not trained any further.
    ImageBranch : Single images.

    Notes
    -----
    Items are those of :class:`~skmm.encoders.VideoEncoder`. ``prepare`` returns the frames, or clips, and their
    positions, as described for ``augment``. 8 frames of 224 x 224 take 1.2 MB: from 256 videos on they are decoded
    again in each epoch, while the network trains on others.

    A named model runs as in its evaluation, without dropout inside and with the statistics of its pretraining in batch
    normalisation: it starts from the vectors of :class:`~skmm.encoders.VideoEncoder`. Batches of 4 to 8 videos suit the
    memory of a CPU. A pickled network holds its weights, but not the architecture of a named model: to load it, the
    model must be available as for ``fit``.

    References
    ----------
    .. [1] Howard, J. and Ruder, S. (2018). "Universal Language Model Fine-tuning for Text Classification." ACL,
       328-339.
    .. [2] Hu, E. et al. (2022). "LoRA: Low-Rank Adaptation of Large Language Models." ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from skmm.neural_network import VideoBranch
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> clips = np.random.default_rng(0).integers(256, size=(2, 20, 48, 64, 3), dtype=np.uint8)
    >>> branch = VideoBranch(network, preprocess={"input_size": (3, 32, 32)}).fit(list(clips))
    >>> branch.prepare(list(clips))[0].shape
    (2, 8, 3, 32, 32)
    """

    _parameter_constraints: dict = {
        **PretrainedBranch._parameter_constraints,
        "model": [str, os.PathLike, HasMethods(["forward", "parameters"])],
        "preprocess": [dict, None],
        **{name: VideoEncoder._parameter_constraints[name] for name in ("sampling", "n_frames", "fps", "pooling")},
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "background": [str, list, tuple],
    }

    def __init__(
        self,
        model: object = "timm/tf_efficientnet_lite0.in1k",
        *,
        preprocess: dict | None = None,
        sampling: str = "uniform",
        n_frames: int | str = "auto",
        fps: float = 1.0,
        pooling: str = "mean",
        dropout: float = 0.1,
        background: str | Sequence[int] = "white",
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
        augment: Callable | None = None,
    ):
        self.model = model
        self.preprocess = preprocess
        self.sampling = sampling
        self.n_frames = n_frames
        self.fps = fps
        self.pooling = pooling
        self.dropout = dropout
        self.background = background
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

    def _encoder(self):
        names = ("preprocess", "sampling", "n_frames", "fps", "pooling", "background", "revision")
        options = {name: getattr(self, name) for name in names}
        return VideoEncoder(self.model, **options, device="cpu", precision="float32", store=None)

    def _learn(self, X):
        self._check_options()
        super()._learn(X)
        encoder, _ = self._start()
        if isinstance(encoder._recipe, dict) or encoder._clip_length is not None:
            return
        raise ValueError(
            f"VideoBranch: {os.fspath(self.model)!r} is neither a model of timm nor a video model; pass one of these, "
            "or a module in memory."
        )

    def _pack(self, prepared, run):
        n_inputs = max(len(video.inputs) for video in prepared)
        inputs = np.zeros((len(prepared), n_inputs, *prepared[0].inputs[0].shape), prepared[0].inputs[0].numpy().dtype)
        samples = np.full((len(prepared), max(len(video.samples) for video in prepared)), -1, dtype=np.int64)
        for i, video in enumerate(prepared):
            for j, values in enumerate(video.inputs):
                inputs[i, j] = values
            samples[i, : len(video.samples)] = video.samples
        return inputs, samples

    def _reader(self, prepared, model):
        from ._modules import FrameReader

        return FrameReader(model.recipe, self.pooling)
