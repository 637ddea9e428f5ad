"""Encoders: transformers from a column of items to a matrix of features."""

from .._torch._registry import clear_models
from ._audio import AudioEncoder
from ._audio_descriptor import AudioDescriptor
from ._image import ImageEncoder
from ._image_descriptor import ImageDescriptor
from ._text import TextEncoder
from ._video import VideoEncoder
from ._video_audio import VideoAudio

__all__ = [
    "AudioDescriptor",
    "AudioEncoder",
    "ImageDescriptor",
    "ImageEncoder",
    "TextEncoder",
    "VideoAudio",
    "VideoEncoder",
    "clear_models",
]
