"""The sound tracks of a column of videos, so that one column can feed two modalities."""

import os
from numbers import Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from .._sklearn import Interval
from .._typing import Items, PathType
from ..media import load_sound_track
from ._base import ItemEncoder


class VideoAudio(ItemEncoder, auto_wrap_output_keys=None):
    """Extract the sound tracks of videos, as items for an encoder of audio.

    The first step of a pipeline whose next one encodes audio: the same column of videos then feeds one modality with
    frames and another with sound. Nothing is learned.

    Parameters
    ----------
    target_rate : float or None, default=None
        Rate in Hz of the result, to which sounds are resampled. None keeps that of each file; encoders of audio
        resample themselves.

    mono : bool, default=True
        Whether to return the mean of the channels, rather than all of them.

    root : str or path-like, default=None
        Folder below which relative paths are looked up, as for :class:`VideoEncoder`.

    on_error : {"raise", "missing"}, default="raise"
        What to do with an item that is no video or whose sound cannot be decoded: raise an error that names its row, or
        return None and warn once.

    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        1, the column of videos.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    n_features_out_ : int
        1, the column of sounds.

    errors_ : list of ItemError
        Items whose sound the last ``fit_transform`` could not decode, with ``row``, ``item`` and ``reason``; empty
        after ``fit``.

    Raises
    ------
    ImportError
        If a file is to be decoded and the extra "video" is not installed: ``pip install "skmm[video]"``.

    ValueError
        If an item cannot be decoded and ``on_error`` is "raise".

    See Also
    --------
    VideoEncoder : The frames of videos as vectors.

    Notes
    -----
    The output is one column of objects and no matrix, so ``set_output`` changes nothing. Each object is
    ``(sampling_rate, waveform)`` with a float32 waveform of shape (n_times,), or (n_times, n_channels) if there are
    several. It is None where the video is missing, has no sound track, or consists of frames in memory.

    Items are those of :class:`VideoEncoder`, and files with nothing but sound, which :class:`AudioEncoder` reads alike.
    Of a damaged or truncated video what can be decoded counts; a sound file in that state is an error where it shows. A
    sound of more than 2**30 samples (6 hours at 48 kHz) is an error. All waveforms of a call are in memory together: at
    16 kHz, mono, that is 230 MB per hour.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.encoders import VideoAudio
    >>> silent_film = np.zeros((20, 48, 64), dtype=np.uint8)
    >>> VideoAudio().fit_transform([silent_film, None])
    array([None, None], dtype=object)
    """

    _parameter_constraints: dict = {
        **ItemEncoder._parameter_constraints,
        "root": [str, os.PathLike, None],
        "target_rate": [Interval(Real, 0, None, closed="neither"), None],
        "mono": ["boolean"],
    }

    _prepare_in_threads = True
    _window = 32
    _output_dtype = object
    # A video without sound is a missing item for the step after this one.
    _may_lose_items = True

    _items_are_files = True

    def __init__(
        self,
        *,
        target_rate: float | None = None,
        mono: bool = True,
        root: PathType | None = None,
        on_error: str = "raise",
        verbose: bool = False,
    ) -> None:
        self.target_rate = target_rate
        self.mono = mono
        self.root = root
        self.on_error = on_error
        self.verbose = verbose

    def fit_transform(self, X: Items, y: object = None) -> np.ndarray:
        """Extract the sound, as ``transform`` does, and record what could not be decoded in ``errors_``.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of videos.

        y : ignored
            Present for API consistency.

        Returns
        -------
        sounds : ndarray of shape (n_samples,), dtype object
            Tuples (sampling_rate, waveform), None where there is no sound.
        """
        return super().fit_transform(X)

    def transform(self, X: Items) -> np.ndarray:
        """Extract the sound.

        Parameters
        ----------
        X : Series, one-column DataFrame, array-like or list of n_samples items
            Column of videos.

        Returns
        -------
        sounds : ndarray of shape (n_samples,), dtype object
            Tuples (sampling_rate, waveform), None where there is no sound.

        Raises
        ------
        ValueError
            If an item cannot be decoded and ``on_error="raise"``; it names the row.
        """
        return super().transform(X)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Accept any container and change nothing: the output is a column of objects.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"} or None, default=None
            Ignored.

        Returns
        -------
        self : VideoAudio
            This transformer.
        """
        return self

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Get the name of the output column: that of the input.

        Parameters
        ----------
        input_features : array-like of str of shape (1,) or None, default=None
            Name of the column; None is that seen in ``fit``, or "x0".

        Returns
        -------
        feature_names_out : ndarray of shape (1,), dtype object
            The name.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", ["x0"]) if input_features is None else input_features
        return np.array(names, dtype=object)

    def _fit_width(self):
        self.n_features_out_ = 1

    def _prepare_item(self, item):
        return load_sound_track(item, self.target_rate, self.mono)

    def _encode_batch(self, batch, model):
        sounds = np.empty(len(batch), dtype=object)
        # One by one: NumPy would make a matrix of pairs.
        for row, sound in enumerate(batch):
            sounds[row] = sound
        return sounds
