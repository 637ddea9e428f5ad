"""The video models of transformers: whether a checkpoint holds one, its loading, and its input."""

import json
import os

from ..._torch import place
from ._processors import ProcessorRecipe, processor_of
from ._source import cached_file, load_from_hub, without_progress_bar

# What represents the whole clip in the last layer: the mean of all tokens, or the first token.
_SUMMARIES = {"timesformer": "first", "videomae": "mean", "vivit": "first"}


def is_video_model(name, folder, revision):
    """Return whether a folder, or a model on the hub, is a video model that can be loaded."""
    return _model_type(name, folder, revision) in _SUMMARIES


def _model_type(name, folder, revision):
    path = _hub_config(name, revision) if folder is None else os.path.join(folder, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file).get("model_type")
    # No configuration of transformers: the library that tries to load the model next has the better message.
    except (OSError, TypeError, ValueError, AttributeError):
        return None


def _hub_config(name, revision):
    """Return the path of a model's configuration in the local cache, downloaded if necessary; None if there is none."""
    from huggingface_hub import HfApi, hf_hub_download

    path = cached_file(name, "config.json", revision)
    if path is not None:
        return path
    try:
        # A single request first: without a network, the download alone would try again for more than a minute.
        HfApi().model_info(name, revision=revision, timeout=10)
        return hf_hub_download(name, "config.json", revision=revision)
    except (OSError, ValueError):
        return None


class VideoModel:
    """A video model of transformers, in eval mode, which takes clips of a fixed number of frames; and its recipe."""

    def __init__(self, network, recipe):
        self.network = self.compiles = network
        self.recipe = recipe
        self.device = network.device
        self.summary = _SUMMARIES[network.config.model_type]

    def embed(self, batch):
        """Return a tensor with one row per clip, each a tensor (clip_length, 3, height, width)."""
        import torch

        tokens = self.network(place(torch.stack(batch), self.device, self.network.dtype)).last_hidden_state
        return tokens[:, 0] if self.summary == "first" else tokens.mean(dim=1)


def load_video_model(source, device, dtype):
    """Load a video model, in eval mode, on a device and in a dtype."""
    from transformers import AutoModel

    model_type = _model_type(source.name, source.folder, source.revision)
    # ViViT's pooler is not part of most checkpoints, and not used.
    options = {"add_pooling_layer": False} if model_type == "vivit" else {}

    def load(local_files_only):
        origin = {"revision": source.revision, "local_files_only": local_files_only, "trust_remote_code": False}
        processor = _load_processor(source.location, origin)
        loaded = AutoModel.from_pretrained(
            source.location, dtype=dtype, use_safetensors=True, output_loading_info=True, **options, **origin
        )
        return processor, *loaded

    with without_progress_bar():
        if source.is_local:
            processor, network, report = load(local_files_only=True)
        else:
            processor, network, report = load_from_hub(source, load, "config.json")
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(f"the checkpoint lacks {len(missing)} weights of the model, such as {missing[0]!r}")
    recipe = ProcessorRecipe(processor.to_json_string(), network.config.num_frames)
    # Where it cannot be recreated, the error then names the model.
    processor_of(recipe.processor)
    return VideoModel(network.to(device).eval().requires_grad_(False), recipe)


def save_video_model(model, folder):
    """Write a video model, and what prepares its frames, as a checkpoint into a folder."""
    model.network.save_pretrained(folder)
    processor_of(model.recipe.processor).save_pretrained(folder)


def _load_processor(location, origin):
    """Load what prepares frames: older checkpoints bring an image processor, newer ones a video processor."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(location, **origin)
    except (OSError, ValueError):
        from transformers import AutoVideoProcessor

        return AutoVideoProcessor.from_pretrained(location, **origin)
