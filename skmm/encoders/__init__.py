"""Encoders: transformers from a column of items to a matrix of features."""

from .._torch import clear_models
from ._descriptors import ImageDescriptor
from ._image import ImageEncoder
from ._text import TextEncoder
from ._video import VideoEncoder
from ._video_audio import VideoAudio

__all__ = ["ImageDescriptor", "ImageEncoder", "TextEncoder", "VideoAudio", "VideoEncoder", "clear_models"]
