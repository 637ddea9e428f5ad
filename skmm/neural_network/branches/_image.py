"""Images, trained from scratch by a small convolutional network, or a pretrained network fine-tuned."""

import copy
import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real

import numpy as np
from PIL import Image

from ..._sklearn import HasMethods, Interval
from ...encoders import load_image_model
from ...encoders.networks import prepare
from ...media import check_background, load_image
from ._base import Branch

_DEFAULT_SIZE = 64

# Mean and standard deviation of ImageNet's images, for modules in memory.
_DEFAULT_MEAN, _DEFAULT_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageBranch(Branch):
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
        Learning rate of this branch; None is that of the network. A tenth of it or less suits a pretrained ``model``.

    n_frozen_epochs : int, default=0
        Number of first epochs in which the weights of this branch are frozen, so that the random layers after a
        pretrained ``model`` do not spoil it.

    augment : callable, default=None
        Called in training with the tuple of a batch's tensors, here one of images (n, 3, height, width) of dtype
        uint8, and a torch generator; returns such a tuple.

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

    Batch normalisation in a named model keeps the statistics of its pretraining.

    References
    ----------
    .. [1] Wu, Y. and He, K. (2018). "Group Normalization." ECCV, 3-19.

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
        **Branch._parameter_constraints,
        "model": [str, os.PathLike, HasMethods(["forward", "parameters"]), None],
        "size": [Interval(Integral, 1, None, closed="left"), None],
        "channels": [list, tuple],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "background": [str, list, tuple],
    }

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
        n_frozen_epochs: int = 0,
        augment: Callable | None = None,
    ):
        self.model = model
        self.size = size
        self.channels = channels
        self.n_hidden = n_hidden
        self.dropout = dropout
        self.background = background
        self.learning_rate = learning_rate
        self.n_frozen_epochs = n_frozen_epochs
        self.augment = augment

    def _make_module(self):
        import torch

        from ._modules import Backbone, ImageModule, probe

        if self.model is None:
            return ImageModule(self)
        if self._is_named():
            pretrained = self._pretrained()
            network = copy.deepcopy(pretrained.network).requires_grad_(True)
            mean, std = pretrained.recipe["mean"], pretrained.recipe["std"]
        else:
            network, mean, std = copy.deepcopy(self.model), _DEFAULT_MEAN, _DEFAULT_STD
        network = network.float()
        # Two rows, for networks that take statistics over a batch in evaluation mode too.
        width = probe(network, next(network.parameters(), torch.empty(0)).new_zeros(2, 3, *self._shape))
        return Backbone(network, mean, std, width, self.dropout, freezes_statistics=self._is_named())

    def _is_named(self):
        return isinstance(self.model, (str, os.PathLike))

    def _pretrained(self):
        """Return the named network from the registry of the process, with its recipe."""
        model = load_image_model(self.model, "ImageBranch")
        if not isinstance(model.recipe, dict):
            raise ValueError(
                f"ImageBranch: {os.fspath(self.model)!r} is no model of timm; pass one, or a module in memory."
            )
        return model

    def _learn(self, X):
        check_background(self.background)
        if not self.channels or not all(isinstance(n, Integral) and n > 0 for n in self.channels):
            raise ValueError(f"ImageBranch: channels must be positive integers, got {self.channels!r}.")
        self._items(X)
        self._recipe = None
        if self._is_named():
            self._recipe = dict(self._pretrained().recipe)
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
