"""Descriptors of images: classical features, computed by formula and without weights."""

import os
from collections.abc import Sequence
from numbers import Integral

import numpy as np
from PIL import Image
from skimage.feature import hog, local_binary_pattern

from .._sklearn import Interval, StrOptions
from .._typing import PathType
from ..media import check_background, load_image
from ..store import EmbeddingStore
from ._base import ItemEncoder

_FEATURES = ("color", "hog", "lbp", "pixels")

_LBP_NEIGHBORS = 8
_LBP_RADIUS = 1
_LBP_PATTERNS = _LBP_NEIGHBORS + 2


class ImageDescriptor(ItemEncoder):
    """Describe images by gradients, colours and textures, without a neural network.

    Every image is decoded, put on a background where it is transparent, and resized to ``size``; its descriptors are
    computed from that and joined. Nothing is learned and nothing is downloaded: a quick baseline, and enough where
    shape or colour alone tells the classes apart.

    Parameters
    ----------
    features : str or list of str, default=("hog", "color")
        One or several of these, each at most once. Their columns follow in this order.

        - ``"hog"``: histograms of oriented gradients [1]_, the shape of edges and where they are. In each pixel of a
          colour image the channel of the steepest gradient counts.
        - ``"color"``: one histogram each of red, green and blue over the whole image, as shares of the pixels that sum
          to 1 per channel.
        - ``"lbp"``: histogram of local binary patterns [2]_ of the grey image, its texture. Uniform patterns of 8
          neighbours at a distance of 1 pixel: 10 shares that sum to 1.
        - ``"pixels"``: a thumbnail, the mean red, green and blue of each cell, from 0 to 1.

    size : int or tuple of 2 int, default=(64, 64)
        Height and width in pixels to which each image is resized; an int means a square. The aspect ratio is not kept.

    orientations : int, default=9
        Number of bins for the direction of a gradient, over 180 degrees. Only for ``"hog"``.

    pixels_per_cell : int, default=8
        Side of a cell in pixels of the resized image. Pixels beyond the last whole cell are left out. Only for
        ``"hog"`` and ``"pixels"``.

    cells_per_block : int, default=2
        Side in cells of the blocks, one cell apart, in which gradients are normalized. Only for ``"hog"``.

    color_bins : int, default=8
        Number of bins of equal width per colour channel, from 2 to 256. Only for ``"color"``.

    background : str or sequence of 3 int, default="white"
        Colour behind transparent pixels: a name or code that Pillow knows, such as ``"#ffffff"``, or red, green and
        blue from 0 to 255.

    pooling : {"mean", "max"}, default="mean"
        How the descriptions of the images in a list become one row, where a cell of the column is a list of images:
        their mean, or the largest value of each feature.

    root : str or path-like, default=None
        Folder below which relative paths are looked up, as for :class:`ImageEncoder`.

    store : str, path-like, EmbeddingStore or None, default="auto"
        Where descriptions are kept, so that no item is described twice, as for :class:`ImageEncoder`.

    on_error : {"raise", "missing"}, default="raise"
        What to do with an item that cannot be decoded: raise an error that names its row, or return a row of NaN and
        warn once.

    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns seen in ``fit``, always 1.

    feature_names_in_ : ndarray of shape (1,)
        Name of the column seen in ``fit``. Defined only if it came in a data frame.

    n_features_out_ : int
        Number of columns of the output.

    errors_ : list of ItemError
        Items that the last ``fit_transform`` could not decode, with ``row``, ``item`` and ``reason``; empty after
        ``fit``.

    See Also
    --------
    ImageEncoder : Pretrained networks.
    VideoDescriptor : The frames of videos.

    Notes
    -----
    Items may be paths, bytes of image files, dicts with "bytes" or "path", PIL images, or arrays that are grey or have
    1, 3 or 4 channels on the last or the first axis. Arrays are bool, uint8, uint16, or floats from 0 to 1; other
    integers must lie in 0 to 255. A list of these is one row. A missing item (None, NaN, an empty list) yields a row of
    NaN. A file that declares more pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` is an item that cannot be decoded. Resized
    images alone are in memory, at most 256 at a time. Columns are named after the descriptor: "hog0", "hog1", ...,
    "color_r0", ...

    References
    ----------
    .. [1] N. Dalal and B. Triggs, "Histograms of oriented gradients for human detection", CVPR 2005,
       pp. 886-893.

    .. [2] T. Ojala, M. Pietikainen and T. Maenpaa, "Multiresolution gray-scale and rotation invariant texture
       classification with local binary patterns", IEEE Transactions on Pattern Analysis and Machine
       Intelligence 24(7), 2002, pp. 971-987.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.encoders import ImageDescriptor
    >>> black, stripes = np.zeros((2, 32, 32), dtype=np.uint8)
    >>> stripes[:, ::2] = 255
    >>> descriptor = ImageDescriptor("color", color_bins=2)
    >>> descriptor.fit_transform([black, stripes, None]).round(1)
    array([[1. , 0. , 1. , 0. , 1. , 0. ],
           [0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
           [nan, nan, nan, nan, nan, nan]], dtype=float32)
    >>> descriptor.get_feature_names_out()[:3]
    array(['color_r0', 'color_r1', 'color_g0'], dtype=object)
    """

    _parameter_constraints: dict = {
        **ItemEncoder._parameter_constraints,
        "pooling": [StrOptions({"mean", "max"})],
        "root": [str, os.PathLike, None],
        "store": [str, os.PathLike, EmbeddingStore, None],
        "features": [StrOptions(set(_FEATURES)), list, tuple],
        "size": [Interval(Integral, 1, None, closed="left"), tuple, list],
        "orientations": [Interval(Integral, 1, None, closed="left")],
        "pixels_per_cell": [Interval(Integral, 1, None, closed="left")],
        "cells_per_block": [Interval(Integral, 1, None, closed="left")],
        "color_bins": [Interval(Integral, 2, 256, closed="both")],
        "background": [str, tuple, list],
    }

    _items_are_files = True
    _stores_rows = True
    # Each image of a list is stored by itself.
    _not_in_rows = {"root", "pooling"}
    _pools_lists = True
    # An empty list is a missing item for the step after this one.
    _may_lose_items = True

    def __init__(
        self,
        features: str | Sequence[str] = ("hog", "color"),
        *,
        size: int | tuple[int, int] = (64, 64),
        orientations: int = 9,
        pixels_per_cell: int = 8,
        cells_per_block: int = 2,
        color_bins: int = 8,
        background: str | Sequence[int] = "white",
        pooling: str = "mean",
        root: PathType | None = None,
        store: PathType | EmbeddingStore | None = "auto",
        on_error: str = "raise",
        verbose: bool = False,
    ) -> None:
        self.features = features
        self.size = size
        self.orientations = orientations
        self.pixels_per_cell = pixels_per_cell
        self.cells_per_block = cells_per_block
        self.color_bins = color_bins
        self.background = background
        self.pooling = pooling
        self.root = root
        self.store = store
        self.on_error = on_error
        self.verbose = verbose

    def _feature_names(self):
        names = []
        for feature in self._feature_list():
            if feature == "color":
                names += [f"color_{channel}{i}" for channel in "rgb" for i in range(self.color_bins)]
            else:
                names += [f"{feature}{i}" for i in range(self._width(feature))]
        return names

    def _check_parameters(self):
        features = self._feature_list()
        if not features or not all(name in _FEATURES for name in features) or len(set(features)) < len(features):
            raise ValueError(
                f"features must name one or several of {list(_FEATURES)}, each at most once, got {self.features!r}."
            )
        size = self._shape()
        if len(size) != 2 or not all(isinstance(side, Integral) and side >= 1 for side in size):
            raise ValueError(f"size must be a height and a width of at least 1 pixel, got {self.size!r}.")
        check_background(self.background)
        cells = min(size) // self.pixels_per_cell
        if "pixels" in features and cells < 1:
            raise ValueError(
                f"pixels_per_cell={self.pixels_per_cell} leaves no whole cell in images of size={self.size!r}; "
                "make the cells smaller or the size larger."
            )
        if "hog" in features and cells < self.cells_per_block:
            raise ValueError(
                f"cells_per_block={self.cells_per_block} with pixels_per_cell={self.pixels_per_cell} makes blocks of "
                f"{self.cells_per_block * self.pixels_per_cell} pixels, which do not fit into images of "
                f"size={self.size!r}; make the cells or blocks smaller or the size larger."
            )

    def _libraries(self):
        return "pillow", "scikit-image"

    def _fit_width(self):
        self.n_features_out_ = sum(self._width(feature) for feature in self._feature_list())

    def _prepare_item(self, item):
        image = load_image(item, self.background)
        height, width = self._shape()
        if image.shape[:2] == (height, width):
            return image
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    def _encode_batch(self, batch, model):
        images = np.stack(batch)
        blocks = [getattr(self, f"_{feature}")(images) for feature in self._feature_list()]
        return np.hstack(blocks).astype(np.float32)

    def _feature_list(self):
        return [self.features] if isinstance(self.features, str) else list(self.features)

    def _shape(self):
        return (self.size, self.size) if isinstance(self.size, Integral) else tuple(self.size)

    def _width(self, feature):
        """Return the number of columns of one descriptor."""
        rows, columns = (side // self.pixels_per_cell for side in self._shape())
        if feature == "hog":
            block = self.cells_per_block
            return (rows - block + 1) * (columns - block + 1) * block**2 * self.orientations
        if feature == "color":
            return 3 * self.color_bins
        return _LBP_PATTERNS if feature == "lbp" else 3 * rows * columns

    def _hog(self, images):
        cell = (self.pixels_per_cell, self.pixels_per_cell)
        block = (self.cells_per_block, self.cells_per_block)

        def describe(image):
            # The channels of a grey image are equal: one is enough, and takes a third of the time.
            is_grey = np.array_equal(image[:, :, 0], image[:, :, 1]) and np.array_equal(image[:, :, 0], image[:, :, 2])
            return hog(
                image[:, :, 0] if is_grey else image,
                orientations=self.orientations,
                pixels_per_cell=cell,
                cells_per_block=block,
                channel_axis=None if is_grey else -1,
            )

        return np.stack([describe(image) for image in images])

    def _color(self, images):
        n_images, bins = len(images), self.color_bins
        n_pixels = images.shape[1] * images.shape[2]
        # One long histogram, with separate bins for each image and channel.
        codes = (images.reshape(n_images, n_pixels, 3).astype(np.intp) * bins) >> 8
        codes += bins * (3 * np.arange(n_images)[:, np.newaxis, np.newaxis] + np.arange(3))
        counts = np.bincount(codes.ravel(), minlength=n_images * 3 * bins)
        return counts.reshape(n_images, 3 * bins) / n_pixels

    def _lbp(self, images):
        # Luma of ITU-R BT.601 in integers: patterns compare neighbours, so that rounding errors would show.
        grey = ((images.astype(np.uint32) @ np.array([299, 587, 114], dtype=np.uint32) + 500) // 1000).astype(np.uint8)

        def describe(image):
            patterns = local_binary_pattern(image, _LBP_NEIGHBORS, _LBP_RADIUS, method="uniform").astype(np.intp)
            return np.bincount(patterns.ravel(), minlength=_LBP_PATTERNS) / patterns.size

        return np.stack([describe(image) for image in grey])

    def _pixels(self, images):
        cell = self.pixels_per_cell
        rows, columns = images.shape[1] // cell, images.shape[2] // cell
        cells = images[:, : rows * cell, : columns * cell].reshape(len(images), rows, cell, columns, cell, 3)
        return cells.mean(axis=(2, 4)).reshape(len(images), -1) / 255
