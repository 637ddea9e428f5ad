from ._audio import (
    SHORTEST_SECONDS as SHORTEST_SECONDS,
    AudioModel as AudioModel,
    Recipe as Recipe,
    Window as Window,
    load_audio_model as load_audio_model,
    save_audio_model as save_audio_model,
)
from ._efficientnet import efficientnet_lite0_folder as efficientnet_lite0_folder
from ._openvino import import_openvino as import_openvino, openvino_model as openvino_model
from ._processors import ProcessorRecipe as ProcessorRecipe
from ._sentence import (
    SentenceModel as SentenceModel,
    Text as Text,
    load_sentence_transformer as load_sentence_transformer,
    sentence_hub_place as sentence_hub_place,
    stored_prompt as stored_prompt,
)
from ._source import (
    ModelSource as ModelSource,
    cached_snapshot as cached_snapshot,
    find_local_folder as find_local_folder,
    package_folder as package_folder,
    without_progress_bar as without_progress_bar,
)
from ._split import (
    SplitModel as SplitModel,
    copy_network as copy_network,
    find_layers as find_layers,
    with_network as with_network,
)
from ._timm import (
    USUAL_SIDE as USUAL_SIDE,
    ClipModel as ClipModel,
    ImageModel as ImageModel,
    data_config as data_config,
    enough_pixels as enough_pixels,
    is_timm as is_timm,
    load_timm as load_timm,
    prepare as prepare,
    save_image_model as save_image_model,
    timm_hub_place as timm_hub_place,
)
from ._video import (
    VideoModel as VideoModel,
    is_video_model as is_video_model,
    load_video_model as load_video_model,
    save_video_model as save_video_model,
)
