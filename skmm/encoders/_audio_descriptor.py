"""Descriptors of sound: classical features, computed by formula and without weights."""

import os
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

from .._optional import import_optional_dependency
from .._sklearn import Interval, StrOptions
from .._typing import PathType
from ..media import LOWEST_CONTRAST, SpectralFeatures, contrast_octaves, load_audio
from ..store import EmbeddingStore
from ._base import ItemEncoder

_N_CHROMA = 12

_STATISTICS = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max, "median": np.median}

_FEATURES = (
    *("mfcc", "mfcc_delta", "mfcc_delta2", "logmel", "chroma", "centroid"),
    *("bandwidth", "rolloff", "contrast", "flatness", "zcr", "rms"),
)


class AudioDescriptor(ItemEncoder):
    """Describe recordings by their spectrum over time, without a neural network.

    Every recording is decoded, mixed down to one channel and resampled to ``target_rate``; its features are computed
    frame by frame by librosa [1]_ and summarised over time. Nothing is learned and nothing is downloaded: a quick
    baseline for words, voices, instruments and noises. Needs ``pip install "skmm[audio]"``.

    Parameters
    ----------
    features : str or list of str, default=("mfcc", "mfcc_delta", "mfcc_delta2")
        One or several of these, each at most once. Their columns follow in this order.

        - ``"mfcc"``: mel-frequency cepstral coefficients [2]_, the shape of the spectrum;
        - ``"mfcc_delta"``, ``"mfcc_delta2"``: their first and second derivative, over 9 frames;
        - ``"logmel"``: power in each mel band, in decibels, at most 80 below the loudest;
        - ``"chroma"``: power in each of the 12 pitch classes, relative to the strongest;
        - ``"centroid"``, ``"bandwidth"``, ``"rolloff"``: centre, spread, and 85 % quantile of the spectrum, in Hz;
        - ``"contrast"``: decibels between peaks and valleys of each octave from 200 Hz on, as many as fit below
          half of ``target_rate``, 6 at most, and of what lies below 200 Hz;
        - ``"flatness"``: how noise-like the spectrum is, 0 for a tone, 1 for white noise;
        - ``"zcr"``: share of the samples at which the waveform changes its sign;
        - ``"rms"``: loudness, the root of the mean square.

    statistics : str or list of str, default=("mean", "std")
        Summaries of the frames of each feature: one or several of "mean", "std", "min", "max" and "median".

    n_mfcc : int, default=20
        Number of cepstral coefficients, at most ``n_mels``.

    n_mels : int, default=64
        Number of mel bands, for ``"mfcc"`` and ``"logmel"``.

    n_fft : int, default=1024
        Length of a frame in samples at ``target_rate``. Shorter recordings are filled up with zeros.

    hop_length : int, default=256
        Samples from one frame to the next.

    target_rate : float, default=16000
        Rate in Hz at which features are computed; recordings are resampled to it.

    sampling_rate : float, default=None
        Rate in Hz of items that are bare arrays, which do not state it. None refuses such items.

    root : str or path-like, default=None
        Folder below which relative paths are looked up, as for :class:`AudioEncoder`.

    store : str, path-like, EmbeddingStore or None, default="auto"
        Where descriptions are kept, so that no item is described twice, as for :class:`AudioEncoder`.

    on_error : {"raise", "missing"}, default="raise"
        What to do with an item that is no sound or cannot be decoded: raise an error that names its row, or return a
        row of NaN and warn once.

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
    AudioEncoder : Pretrained networks.

    Notes
    -----
    Items are those of :class:`AudioEncoder`. A missing item (None, NaN) yields a row of NaN. Silence and recordings of
    a single sample are ordinary items. Columns are on very different scales: let a
    :class:`~sklearn.preprocessing.StandardScaler` follow. They are named after the feature and the statistic:
    "mfcc_mean0", "mfcc_mean1", ..., "mfcc_std0", ...

    References
    ----------
    .. [1] B. McFee et al., "librosa: Audio and music signal analysis in Python", SciPy 2015, pp. 18-24.

    .. [2] S. Davis and P. Mermelstein, "Comparison of parametric representations for monosyllabic word
       recognition in continuously spoken sentences", IEEE Transactions on Acoustics, Speech, and Signal
       Processing 28(4), 1980, pp. 357-366.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.encoders import AudioDescriptor
    >>> times = np.arange(16000) / 16000
    >>> low, high = (np.sin(2 * np.pi * pitch * times) for pitch in (250, 1000))
    >>> descriptor = AudioDescriptor(["centroid", "rms"], statistics="median")
    >>> described = descriptor.fit_transform([(16000, low), (16000, high), None])
    >>> described[:, 0].round()
    array([ 250., 1000.,   nan], dtype=float32)
    >>> descriptor.get_feature_names_out()
    array(['centroid_median0', 'rms_median0'], dtype=object)
    """

    _parameter_constraints: dict = {
        **ItemEncoder._parameter_constraints,
        "root": [str, os.PathLike, None],
        "store": [str, os.PathLike, EmbeddingStore, None],
        "features": [StrOptions(set(_FEATURES)), list, tuple],
        "statistics": [StrOptions(set(_STATISTICS)), list, tuple],
        "n_mfcc": [Interval(Integral, 1, None, closed="left")],
        "n_mels": [Interval(Integral, 1, None, closed="left")],
        "n_fft": [Interval(Integral, 2, None, closed="left")],
        "hop_length": [Interval(Integral, 1, None, closed="left")],
        "target_rate": [Interval(Real, 0, None, closed="neither")],
        "sampling_rate": [Interval(Real, 0, None, closed="neither"), None],
    }

    _prepare_in_threads = True
    _rows_are_items = True
    _window = 64

    _items_are_files = True
    _stores_rows = True
    _not_in_rows = {"root"}

    def __init__(
        self,
        features: str | Sequence[str] = ("mfcc", "mfcc_delta", "mfcc_delta2"),
        *,
        statistics: str | Sequence[str] = ("mean", "std"),
        n_mfcc: int = 20,
        n_mels: int = 64,
        n_fft: int = 1024,
        hop_length: int = 256,
        target_rate: float = 16000,
        sampling_rate: float | None = None,
        root: PathType | None = None,
        store: PathType | EmbeddingStore | None = "auto",
        on_error: str = "raise",
        verbose: bool = False,
    ) -> None:
        self.features = features
        self.statistics = statistics
        self.n_mfcc = n_mfcc
        self.n_mels = n_mels
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.target_rate = target_rate
        self.sampling_rate = sampling_rate
        self.root = root
        self.store = store
        self.on_error = on_error
        self.verbose = verbose

    def _feature_names(self):
        return [
            f"{feature}_{statistic}{i}"
            for feature in _as_list(self.features)
            for statistic in _as_list(self.statistics)
            for i in range(self._width(feature))
        ]

    def _check_parameters(self):
        for parameter, allowed in (("features", _FEATURES), ("statistics", tuple(_STATISTICS))):
            value = getattr(self, parameter)
            names = _as_list(value)
            if not names or not all(name in allowed for name in names) or len(set(names)) < len(names):
                raise ValueError(
                    f"{parameter} must name one or several of {sorted(allowed)}, each at most once, got {value!r}."
                )
        features = _as_list(self.features)
        if self.n_mfcc > self.n_mels and any(feature.startswith("mfcc") for feature in features):
            raise ValueError(f"n_mfcc={self.n_mfcc} must be at most n_mels={self.n_mels}; change one of them.")
        if "contrast" in features and contrast_octaves(self.target_rate) < 1:
            raise ValueError(
                f"'contrast' needs a target_rate of more than {4 * LOWEST_CONTRAST:g} Hz, got {self.target_rate}."
            )

    def _libraries(self):
        return "av", "librosa", "soundfile", "soxr"

    def _fit_width(self):
        n_values = sum(self._width(feature) for feature in _as_list(self.features))
        self.n_features_out_ = len(_as_list(self.statistics)) * n_values

    def _prepare_item(self, item):
        return load_audio(item, self.target_rate, self.sampling_rate)[0]

    def _encode_batch(self, batch, model):
        import_optional_dependency("librosa", "audio")
        statistics = [_STATISTICS[name] for name in _as_list(self.statistics)]
        options = {name: getattr(self, name) for name in ("n_fft", "hop_length", "n_mels", "n_mfcc")}
        rows = []
        for waveform in batch:
            spectral = SpectralFeatures(waveform, self.target_rate, **options)
            frames = [getattr(spectral, feature) for feature in _as_list(self.features)]
            rows.append(np.concatenate([statistic(x, axis=1) for x in frames for statistic in statistics]))
        return np.stack(rows).astype(np.float32)

    def _width(self, feature):
        """Return the number of values per frame of one feature."""
        if feature.startswith("mfcc"):
            return self.n_mfcc
        widths = {"logmel": self.n_mels, "chroma": _N_CHROMA, "contrast": contrast_octaves(self.target_rate) + 1}
        return widths.get(feature, 1)


def _as_list(names):
    return [names] if isinstance(names, str) else list(names)
