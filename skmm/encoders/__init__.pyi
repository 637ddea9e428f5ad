from ._audio import AudioEncoder as AudioEncoder
from ._audio_descriptor import AudioDescriptor as AudioDescriptor
from ._base import ItemEncoder as ItemEncoder
from ._image import ImageEncoder as ImageEncoder, load_image_model as load_image_model
from ._image_descriptor import ImageDescriptor as ImageDescriptor
from ._model import ModelEncoder as ModelEncoder, clear_models as clear_models
from ._text import TextEncoder as TextEncoder
from ._tuned import TunedEncoder as TunedEncoder
from ._video import VideoEncoder as VideoEncoder
from ._video_audio import VideoAudio as VideoAudio
