"""Descriptors of videos: classical features of some frames, pooled over time."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np

from .._sklearn import Interval, StrOptions
from .._typing import PathType
from ..media import sample_frames
from ..store import EmbeddingStore
from ._frames import MOST_FRAMES, POOLINGS, UNIFORM_FRAMES
from ._image_descriptor import ImageDescriptor

# What becomes of the name of a feature, for the poolings that make several columns of it.
_SUFFIXES = {
    "mean_std": ("_mean", "_std"),
    "pyramid": ("", *(f"_half{i}" for i in range(2)), *(f"_quarter{i}" for i in range(4))),
}


class VideoDescriptor(ImageDescriptor):
    """Describe videos by gradients, colours and textures of some of their frames, without a neural network.

    Frames are chosen as by :class:`VideoEncoder`, described as by :class:`ImageDescriptor`, and their descriptions are
    pooled over time. Nothing is learned and nothing is downloaded. Files need ``pip install "skmm[video]"``.

    Parameters
    ----------
    features : str or list of str, default=("hog", "color")
        One or several of "hog", "color", "lbp" and "pixels", as for :class:`ImageDescriptor`.

    size : int or tuple of 2 int, default=(64, 64)
        Height and width in pixels to which each frame is resized; an int means a square.

    orientations, pixels_per_cell, cells_per_block, color_bins : int, default=9, 8, 2 and 8
        As for :class:`ImageDescriptor`.

    sampling : {"uniform", "keyframes", "fps"}, default="uniform"
        Which frames are decoded, as for :class:`VideoEncoder`: those in the middle of equal parts of the time, those
        that the codec stored whole, or those on screen every 1 / ``fps`` seconds.

    n_frames : int or "auto", default="auto"
        Number of frames with "uniform", "auto" being 8; otherwise the most frames, "auto" being 64.

    fps : float, default=1.0
        Frames per second, for ``sampling="fps"`` only.

    pooling : {"mean", "max", "mean_std", "pyramid"}, default="mean"
        How the descriptions of the frames become one, as for :class:`VideoEncoder`: "mean_std" makes two columns of
        each feature, "pyramid" seven.

    background : str or sequence of 3 int, default="white"
        Colour behind transparent pixels, as for :class:`ImageDescriptor`.

    root : str or path-like, default=None
        Folder below which relative paths are looked up, as for :class:`ImageEncoder`.

    store : str, path-like, EmbeddingStore or None, default="auto"
        Where descriptions are kept, so that no video is described twice, as for :class:`ImageEncoder`.

    on_error : {"raise", "missing"}, default="raise"
        What to do with an item that is no video or of which no frame can be decoded: raise an error that names its row,
        or return a row of NaN and warn once.

    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        1, the column of videos.

    feature_names_in_ : ndarray of shape (1,)
        Name of the column seen in ``fit``. Defined only if it came in a data frame.

    n_features_out_ : int
        Number of columns of the output.

    errors_ : list of ItemError
        Items that the last ``fit_transform`` could not decode, with ``row``, ``item`` and ``reason``; empty after
        ``fit``.

    See Also
    --------
    VideoEncoder : Pretrained networks.
    VideoAudio : The sound tracks of videos, for a descriptor of sound.

    Notes
    -----
    Items are those of :class:`VideoEncoder`. A missing item (None, NaN) yields a row of NaN. A frame that is on screen
    at several of the chosen times counts as often.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.encoders import VideoDescriptor
    >>> fade = np.linspace(0, 255, 16).astype(np.uint8)[:, None, None] * np.ones((32, 32), dtype=np.uint8)
    >>> descriptor = VideoDescriptor("pixels", size=8, pooling="pyramid")
    >>> described = descriptor.fit_transform([fade, fade[::-1]])
    >>> described.shape
    (2, 21)
    >>> described[:, 3].round(1)
    array([0.3, 0.7], dtype=float32)
    >>> descriptor.get_feature_names_out()[[0, 3, 6]]
    array(['pixels0', 'pixels0_half0', 'pixels0_half1'], dtype=object)
    """

    _parameter_constraints: dict = {
        **ImageDescriptor._parameter_constraints,
        "sampling": [StrOptions({"uniform", "keyframes", "fps"})],
        "n_frames": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "fps": [Interval(Real, 0, None, closed="neither")],
        "pooling": [StrOptions(set(POOLINGS))],
    }

    # Videos that are held at a time.
    _window = 16
    _prepare_in_threads = True
    _not_in_rows = {"root"}
    # A list is a video.
    _pools_lists = False
    _may_lose_items = False

    def __init__(
        self,
        features: str | Sequence[str] = ("hog", "color"),
        *,
        size: int | tuple[int, int] = (64, 64),
        orientations: int = 9,
        pixels_per_cell: int = 8,
        cells_per_block: int = 2,
        color_bins: int = 8,
        sampling: str = "uniform",
        n_frames: int | str = "auto",
        fps: float = 1.0,
        pooling: str = "mean",
        background: str | Sequence[int] = "white",
        root: PathType | None = None,
        store: PathType | EmbeddingStore | None = "auto",
        on_error: str = "raise",
        verbose: bool = False,
    ) -> None:
        super().__init__(
            features,
            size=size,
            orientations=orientations,
            pixels_per_cell=pixels_per_cell,
            cells_per_block=cells_per_block,
            color_bins=color_bins,
            background=background,
            pooling=pooling,
            root=root,
            store=store,
            on_error=on_error,
            verbose=verbose,
        )
        self.sampling = sampling
        self.n_frames = n_frames
        self.fps = fps

    def _libraries(self):
        return "av", *super()._libraries()

    def _suffixes(self):
        return _SUFFIXES.get(self.pooling, ("",))

    def _fit_width(self):
        super()._fit_width()
        self.n_features_out_ *= len(self._suffixes())

    def _feature_names(self):
        names = super()._feature_names()
        return [f"{name}{suffix}" for suffix in self._suffixes() for name in names]

    def _prepare_item(self, item):
        n_frames = self.n_frames
        if n_frames == "auto":
            n_frames = UNIFORM_FRAMES if self.sampling == "uniform" else MOST_FRAMES
        return _Prepared(
            *sample_frames(item, self.sampling, n_frames, self.fps, self.background, super()._prepare_item)
        )

    def _prepared_bytes(self, prepared):
        return sum(frame.nbytes for frame in prepared.frames) if isinstance(prepared, _Prepared) else 0

    def _encode_batch(self, batch, model):
        pool = POOLINGS[self.pooling]
        return np.stack([pool(super(VideoDescriptor, self)._encode_batch(v.frames, model)[v.samples]) for v in batch])


class _Prepared(NamedTuple):
    """Distinct frames of a video, and their positions in the order of time, each as often as it counts."""

    frames: list
    samples: np.ndarray
