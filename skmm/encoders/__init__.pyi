from ._audio import AudioEncoder as AudioEncoder
from ._audio_descriptor import AudioDescriptor as AudioDescriptor
from ._base import ItemEncoder as ItemEncoder
from ._image import ImageEncoder as ImageEncoder
from ._image_descriptor import ImageDescriptor as ImageDescriptor
from ._infer import (
    InferredModalities as InferredModalities,
    infer_modalities as infer_modalities,
    kind_of_item as kind_of_item,
)
from ._model import ModelEncoder as ModelEncoder, clear_models as clear_models, start_encoder as start_encoder
from ._text import TextEncoder as TextEncoder
from ._tuned import TunedEncoder as TunedEncoder
from ._tuning import add_adapters as add_adapters
from ._video import VideoEncoder as VideoEncoder
from ._video_audio import VideoAudio as VideoAudio
from ._video_descriptor import VideoDescriptor as VideoDescriptor
