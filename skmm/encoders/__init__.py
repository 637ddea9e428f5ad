"""Encoders: transformers from a column of items to a matrix of features."""

from .._registry import clear_models
from ._audio import AudioEncoder
from ._audio_descriptors import AudioDescriptor
from ._descriptors import ImageDescriptor
from ._image import ImageEncoder
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
