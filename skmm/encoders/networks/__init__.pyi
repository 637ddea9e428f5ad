from ._audio import (
    SHORTEST_SECONDS as SHORTEST_SECONDS,
    AudioModel as AudioModel,
    Recipe as Recipe,
    load_audio_model as load_audio_model,
)
from ._processors import ProcessorRecipe as ProcessorRecipe
from ._sentence import (
    SentenceModel as SentenceModel,
    Text as Text,
    hub_cache as hub_cache,
    hub_names as hub_names,
    load_sentence_transformer as load_sentence_transformer,
    stored_prompt as stored_prompt,
)
from ._source import folder_signature as folder_signature
from ._timm import (
    USUAL_SIDE as USUAL_SIDE,
    ClipModel as ClipModel,
    ImageModel as ImageModel,
    data_config as data_config,
    enough_pixels as enough_pixels,
    load_timm as load_timm,
    prepare as prepare,
)
from ._timm_names import is_timm as is_timm, timm_names as timm_names, users_code as users_code
from ._video import is_video_model as is_video_model, load_video_model as load_video_model
