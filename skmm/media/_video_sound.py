"""Decoding of the sound tracks of videos."""

import numpy as np

from ..exceptions import RejectedItem
from ._container import decoded_frames, has_decoder, is_file, open_container, open_item, reason_of, video_stream
from ._video import frames_in_memory


def load_sound(item, sampling_rate=None, mono=True):
    """Decode the sound track of a video.

    Parameters
    ----------
    item : object
        A video in any form that :func:`sample_frames` takes, or a file with nothing but sound.

    sampling_rate : int or None, default=None
        Samples per second of the result; None keeps those of the file.

    mono : bool, default=True
        Whether to give the mean of the channels.

    Returns
    -------
    sound : tuple of (int, ndarray) or None
        Samples per second, and samples of float32 of shape (n_samples,), or (n_samples, n_channels) if there
        are several. None if there is no sound track, or the item is frames in memory.

    Raises
    ------
    RejectedItem
        If the item is no video, or nothing of its sound can be decoded.
    """
    if not is_file(item):
        frames_in_memory(item)
        return None
    with open_item(item) as stream, open_container(stream) as container:
        track = container.streams.best("audio")
        if track is None:
            if video_stream(container) is None:
                raise RejectedItem("the file has neither a video stream nor a sound track")
            return None
        return _decode_sound(container, track, sampling_rate, mono)


def _decode_sound(container, track, sampling_rate, mono):
    """Decode a sound track as far as it can be decoded."""
    import av

    if not has_decoder(track):
        raise RejectedItem("the codec of the sound track is not known")
    rate = sampling_rate or track.codec_context.sample_rate
    if not rate:
        raise RejectedItem("the sound track does not state its sampling rate")
    resampler = av.AudioResampler(format="fltp", rate=rate)
    parts = []
    try:
        for frame in decoded_frames(container, track):
            frame.pts = None
            parts.extend(resampler.resample(frame))
        parts.extend(resampler.resample(None))
    except (av.error.FFmpegError, ValueError) as error:
        raise RejectedItem(f"the sound track cannot be converted ({reason_of(error)})") from error
    arrays = [part.to_ndarray() for part in parts]
    arrays = [part.mean(axis=0, keepdims=True) if mono else part for part in arrays]
    if not sum(part.shape[1] for part in arrays):
        raise RejectedItem("nothing of the sound track can be decoded")
    sound = np.concatenate(arrays, axis=1)
    return int(rate), np.ascontiguousarray(sound[0] if len(sound) == 1 else sound.T, dtype=np.float32)
