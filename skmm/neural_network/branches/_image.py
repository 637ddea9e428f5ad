"""Images, trained from scratch by a small convolutional network, or a pretrained network fine-tuned."""

import copy
import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real

import numpy as np
from PIL import Image

from ..._sklearn import HasMethods, Interval
from ..._torch import place_of
from ...encoders import ImageEncoder
from ...encoders.networks import prepare
from ...media import check_background, load_image
from ._pretrained import PretrainedBranch

_DEFAULT_SIZE = 64

# Mean and standard deviation of ImageNet's images, for modules in memory.
_DEFAULT_MEAN, _DEFAULT_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageBranch(PretrainedBranch):
    """Read images with a convolutional network that is trained with the network.

    By default a small network starts from random weights: layers of 3 x 3 convolutions, group normalisation [1]_ and
    ReLU, each halving the image, then a dense layer. With ``model`` a pretrained network is fine-tuned instead. For a
    pretrained network without fine-tuning use :class:`~skmm.encoders.ImageEncoder` as the modality's transformer, which
    is much faster.

    Parameters
    ----------
    model : str, path-like or torch.nn.Module, default=None
        - None is the small network;
        - a model of `timm <https://huggingface.co/timm>`_ by its hub name ("timm/..."), its short name ("resnet18"),
          or the local folder of a checkpoint in timm's format, without its classifier;
        - a module in memory, which maps a float tensor (n, 3, height, width), normalised like ImageNet, to
          (n, n_outputs). It is copied, and starts from the weights it has.

    size : int, default=None
        Height and width in pixels to which images are resized. None is that of a named model, else 64. Named models
        resize and crop as in their evaluation, the others change the aspect ratio.

    channels : tuple of int, default=(32, 64, 128)
        Channels of the small network's layers.

    n_hidden : int, default=128
        Units of the small network's dense layer.

    dropout : float, default=0.1
        Share of the values before and after the dense layer, or after ``model``, that are set to 0 in training.

    background : str or sequence of 3 int, default="white"
        Colour behind transparent pixels: a name, a code such as "#ffffff", or red, green and blue from 0 to 255.

    learning_rate : float, default=None
        Learning rate of this branch. None is 1e-4 for a named ``model``, 1e-3 for its adapters, else the rate of the
        network.

    layer_decay : float, default=1.0
        Learning rate of a layer of ``model`` as a share of that of the layer after it: below 1, the first layers, which
        are the most general, change least [2]_.

    n_frozen_epochs : int, default=0
        Number of first epochs in which the weights of this branch are frozen, so that the random layers after a
        pretrained ``model`` do not spoil it.

    gradual_unfreezing : bool, default=False
        Whether after these epochs only the last layer of ``model`` is trained, and in each further epoch one more
        [2]_.

    freeze : bool, default=False
        Whether ``model`` is not trained at all. For frozen features, an encoder as the modality's transformer is much
        faster, since it computes them once.

    adapter : {"lora"}, default=None
        "lora" trains low-rank matrices beside the linear layers of ``model`` in place of its weights [3]_. Needs
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
        Random changes of images in training: some of "crop" (at least four fifths of each side), "flip" (left and
        right) and "color" (brightness, contrast and saturation by a fifth), or True for all. A callable is called with
        the tuple of a batch's tensors, here one of images (n, 3, height, width) of dtype uint8, and a torch generator;
        it returns such a tuple. None and False change nothing.

    Attributes
    ----------
    n_features_in_ : int
        1, the column of images.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    Raises
    ------
    OSError
        By ``fit`` if the model cannot be loaded; it names the model and the ways to provide it.

    ValueError
        By ``prepare`` if an item cannot be decoded; it names the row.

    See Also
    --------
    skmm.encoders.ImageEncoder : Pretrained networks that are not trained any further.

    Notes
    -----
    Items are those of :class:`~skmm.encoders.ImageEncoder`: paths, bytes, PIL images, arrays. ``prepare`` returns one
    array of shape (n_samples, 3, height, width), dtype uint8.

    A pickled network holds its weights, but not the architecture of a named model: to load it, the model must be
    available as for ``fit``.

    A named model runs as in its evaluation, without dropout inside and with the statistics of its pretraining in batch
    normalisation: it starts from the vectors of :class:`~skmm.encoders.ImageEncoder`.

    References
    ----------
    .. [1] Wu, Y. and He, K. (2018). "Group Normalization." ECCV, 3-19.
    .. [2] Howard, J. and Ruder, S. (2018). "Universal Language Model Fine-tuning for Text Classification." ACL,
       328-339.
    .. [3] Hu, E. et al. (2022). "LoRA: Low-Rank Adaptation of Large Language Models." ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.neural_network import ImageBranch
    >>> images = np.random.default_rng(0).integers(256, size=(5, 48, 64, 3), dtype=np.uint8)
    >>> branch = ImageBranch(size=32).fit(images)
    >>> branch.prepare(images)[0].shape
    (5, 3, 32, 32)
    """

    _parameter_constraints: dict = {
        **PretrainedBranch._parameter_constraints,
        "augment": [callable, "boolean", list, tuple, None],
        "model": [str, os.PathLike, HasMethods(["forward", "parameters"]), None],
        "size": [Interval(Integral, 1, None, closed="left"), None],
        "channels": [list, tuple],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "background": [str, list, tuple],
    }

    _changes = ("crop", "flip", "color")

    def __init__(
        self,
        model: object = None,
        *,
        size: int | None = None,
        channels: Sequence[int] = (32, 64, 128),
        n_hidden: int = 128,
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
        augment: bool | Sequence[str] | Callable | None = None,
    ):
        self.model = model
        self.size = size
        self.channels = channels
        self.n_hidden = n_hidden
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
        options = {"background": self.background, "revision": self.revision}
        return ImageEncoder(self.model, **options, device="cpu", precision="float32", store=None)

    def _change(self):
        from ._augment import change_images

        return change_images

    def _adapt(self, encoder):
        if self.size is not None:
            encoder._recipe, encoder._version = self._recipe, ("size", self.size)

    def _make_module(self):
        import torch

        from ._modules import ImageModule, ImageReader, PretrainedModule

        if self.model is None:
            return ImageModule(self)
        mean, std = _DEFAULT_MEAN, _DEFAULT_STD
        if self._is_named():
            network = copy.deepcopy(self._start()[1].model.network)
            mean, std = self._recipe["mean"], self._recipe["std"]
        else:
            network = copy.deepcopy(self.model).float()
        device, _ = place_of(next(network.parameters(), None))
        images = torch.zeros(2, 3, *self._shape, dtype=torch.uint8, device=device)
        return PretrainedModule(network, ImageReader(mean, std), [images], self, self._is_named())

    def _learn(self, X):
        self._check_options()
        check_background(self.background)
        if not self.channels or not all(isinstance(n, Integral) and n > 0 for n in self.channels):
            raise ValueError(f"ImageBranch: channels must be positive integers, got {self.channels!r}.")
        self._items(X)
        self._recipe = None
        if self._is_named():
            super()._learn(X)
            if "mean" not in (self._facts["recipe"] or ()):
                raise ValueError(
                    f"ImageBranch: {os.fspath(self.model)!r} is no model of timm; pass one, or a module in memory."
                )
            self._recipe = dict(self._facts["recipe"])
            if self.size is not None:
                self._recipe["input_size"] = (3, self.size, self.size)
            self._shape = tuple(self._recipe["input_size"][1:])
        else:
            self._shape = (self.size or _DEFAULT_SIZE,) * 2

    def _prepare(self, X):
        items = self._items(X)
        images = np.empty((len(items), 3, *self._shape), dtype=np.uint8)
        for row, image in enumerate(self._read(items, self._resize, in_threads=True)):
            images[row] = image
        return (images,)

    def _resize(self, item):
        """Decode one image and return it at the network's size, channels first."""
        image = Image.fromarray(load_image(item, self.background, max(self._shape)))
        if self._recipe is not None:
            return np.asarray(prepare(image, self._recipe))
        height, width = self._shape
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
