"""The networks that encode images: what they are fed with, and loading those of timm."""

import copy
import functools
import inspect
import json
import os
from collections.abc import Mapping

import numpy as np

from ..._torch import place, place_of
from ...exceptions import RejectedItem
from ._processors import PIXELS, ProcessorRecipe, call_preprocess
from ._source import check_hub_answers

# Pixels per side of an input where no model states them.
USUAL_SIDE = 224

# Pixels of a thin image once its shorter side is as long as the network's: 400 MB where a resize computes in float32.
_MOST_PIXELS = 2**25


class ImageModel:
    """A network that maps images (n, 3, height, width) to (n, n_features), and the recipe of its input.

    The recipe is timm's data configuration, for images prepared as uint8 tensors and normalised here, or what turns a
    PIL image into the network's own input.
    """

    def __init__(self, network, recipe):
        self.network = self.compiles = network
        self.recipe = recipe
        self.device, self.dtype = place_of(next(network.parameters(), None))

    def forward(self, images):
        """Run the network on a tensor of images, as it takes them."""
        return self.network(images)

    def embed(self, batch):
        """Return a tensor with one row per prepared image."""
        import torch

        shapes = {tuple(image.shape) for image in batch}
        if len(shapes) > 1:
            raise ValueError(
                f"preprocess must return tensors of one shape, got {sorted(shapes)[:3]}; resize or crop in it."
            )
        # Channels last, as images have them and convolutions run fastest.
        stacked = torch.stack([image.movedim(0, 2) for image in batch])
        n_images, height, width, _ = stacked.shape
        images = place(stacked, self.device)
        if isinstance(self.recipe, dict):
            # In float32 for precision, in place to save memory, and with a mean for each value of a line for speed.
            mean = torch.tensor(self.recipe["mean"], device=self.device).repeat(width)
            std = torch.tensor(self.recipe["std"], device=self.device).repeat(width)
            images = images.view(n_images * height, -1).float().mul_(1 / (255 * std)).sub_(mean / std)
            images = images.view(n_images, height, width, 3)
        images = images.movedim(3, 1).to(self.dtype, memory_format=torch.channels_last)
        rows = self.forward(images)
        if not isinstance(rows, torch.Tensor) or rows.ndim != 2:
            got = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
            raise ValueError(
                f"the module must map {tuple(images.shape)} to a tensor (n, n_features), got {got}; "
                "pool over positions inside the module."
            )
        return rows


class ClipModel:
    """A network of sentence-transformers, fed with images."""

    def __init__(self, model):
        self._model = model
        self.network, self.device, self.recipe = model.network, model.device, model.image_recipe

    def embed(self, batch):
        """Return a tensor with one row per image, as the recipe prepares them; without one, per PIL image."""
        return self._model.embed(self._model.image_features(batch))


def is_timm(name, folder):
    """Return whether a folder or a name on the hub is a model of timm; all others are for sentence-transformers.

    Short names are timm's, except those that begin with "clip-".
    """
    if folder is not None:
        return _architecture(folder) is not None
    return name.startswith(("timm/", "hf-hub:", "hf_hub:")) or ("/" not in name and not name.startswith("clip-"))


def _architecture(folder):
    """Return the architecture that a checkpoint in timm's format names, None for all others."""
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            return json.load(file).get("architecture")
    except (OSError, ValueError, AttributeError):
        return None


def timm_hub_place(name):
    """Return the names that a model of timm has on the hub, one or none that timm knows, and None for its cache."""
    name = name.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if "/" in name:
        return (name,), None
    import timm

    config = timm.get_pretrained_cfg(name)
    return () if config is None or not config.hf_hub_id else (config.hf_hub_id,), None


def load_timm(source, device, dtype):
    """Load a network of timm without its classifier."""
    import timm
    import torch
    from timm.data import resolve_model_data_config

    if source.is_local:
        network = _create_from_folder(source.folder)
    else:
        at_revision = f"@{source.revision}" if source.revision else ""
        name, overlay = source.name, {}
        if "/" in name:
            name = f"hf-hub:{source.hub_names[0]}{at_revision}"
            # Before version 1.0.26 timm unpickled any file that a configuration on the hub names.
            overlay["hf_hub_filename"] = None
        elif source.revision and source.hub_names:
            overlay["hf_hub_id"] = source.hub_names[0] + at_revision
        if source.folder is None and source.hub_names:
            check_hub_answers(source)
        network = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    recipe = data_config(resolve_model_data_config(network))
    network = network.to(device, dtype, memory_format=torch.channels_last)
    return ImageModel(network.eval().requires_grad_(False), recipe)


def save_image_model(model, folder):
    """Write a network of timm, or a CLIP-like one, as a checkpoint into a folder."""
    if isinstance(model, ClipModel):
        model.network.save_pretrained(folder, safe_serialization=True)
        return
    config = getattr(model.network, "pretrained_cfg", None)
    if config is None:
        raise ValueError(
            f"ImageEncoder: a {type(model.network).__name__} in memory has no checkpoint format; save the module of "
            "encoder_ itself, with safetensors or torch.save."
        )
    import torch
    from timm.models import save_for_hf

    # Files have channels first.
    network = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format)
    save_for_hf(network, folder, safe_serialization=True)


def _create_from_folder(folder):
    """Create a network from timm's own files; its "local-dir:" reads safetensors only in newer versions."""
    import timm

    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    weights = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    if not weights:
        raise FileNotFoundError("no weights in safetensors format")
    # Weights come from this file, whatever the configuration says.
    origin = {"source": "file", "file": os.path.join(folder, weights[0]), "state_dict": None, "custom_load": False}
    overlay = {**config.get("pretrained_cfg", config), **origin}
    # Arguments of the network alone; those of the function could make it load other weights.
    excluded = {"num_classes", *inspect.signature(timm.create_model).parameters}
    options = {name: value for name, value in config.get("model_args", {}).items() if name not in excluded}
    return timm.create_model(
        config["architecture"], pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **options
    )


def data_config(settings):
    """Return timm's data configuration as plain data, with ImageNet's usual values for what is left out."""
    usual = {
        "input_size": (3, USUAL_SIDE, USUAL_SIDE),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
    }
    config = {name: settings.get(name, value) for name, value in usual.items()}
    unknown = sorted(set(settings) - set(usual))
    if unknown:
        raise ValueError(f"preprocess knows the keys {sorted(usual)}, got {unknown}; remove them, or pass a callable.")
    if len(config["input_size"]) != 3 or config["input_size"][0] != 3:
        raise ValueError(
            f"preprocess: images have 3 channels, so input_size is (3, height, width), got {config['input_size']!r}."
        )
    return config


def prepare(image, recipe):
    """Turn an RGB PIL image into the input of a network.

    The recipe is timm's data configuration, a processor of transformers, or the user's own function, which yield a
    tensor (3, height, width); or None, which leaves the image to the network. RejectedItem is raised if the image is so
    thin that to resize it would take too much memory, or the user's function fails.
    """
    if callable(recipe) and not isinstance(recipe, ProcessorRecipe):
        return _input_tensor(call_preprocess(recipe, image))
    _check_proportions(image, recipe)
    if recipe is None:
        return image
    return geometry(json.dumps(recipe))(image) if isinstance(recipe, dict) else recipe(image)


def _input_tensor(inputs):
    """Turn what a user's function returns into a tensor (3, height, width): processors add names and a batch axis."""
    import torch

    if isinstance(inputs, Mapping) and PIXELS in inputs:
        inputs = inputs[PIXELS]
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        (inputs,) = inputs
    tensor = torch.from_numpy(np.ascontiguousarray(inputs)) if isinstance(inputs, np.ndarray) else inputs
    if isinstance(tensor, torch.Tensor) and tensor.ndim == 4 and len(tensor) == 1:
        (tensor,) = tensor
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 3:
        shape = f" of shape {tuple(inputs.shape)}" if hasattr(inputs, "shape") else ""
        raise ValueError(
            f"preprocess must map an image to a tensor (channels, height, width), got {type(inputs).__name__}{shape}; "
            "convert its result, for example with torchvision's ToTensor."
        )
    return tensor


def enough_pixels(recipe):
    """Return the pixels per side that a recipe makes use of; None if it has to see images in full."""
    return max(recipe["input_size"][1:]) if isinstance(recipe, dict) else getattr(recipe, "enough", None)


def _check_proportions(image, recipe):
    if isinstance(recipe, dict) and recipe["crop_mode"] == "squash":
        return
    side = enough_pixels(recipe) or USUAL_SIDE
    if isinstance(recipe, dict):
        side /= recipe["crop_pct"]
    n_pixels = side**2 * max(image.size) / min(image.size)
    if n_pixels > _MOST_PIXELS:
        raise RejectedItem(
            f"too thin to be resized: of {image.width} x {image.height} pixels, with {side:.0f} for the shorter side, "
            f"it would have {n_pixels / 1e6:.0f} million, the limit is {_MOST_PIXELS / 1e6:.0f}; crop it"
        )


@functools.lru_cache(maxsize=16)
def geometry(config):
    """Return timm's evaluation transform up to normalisation: PIL image to uint8 tensor."""
    from timm.data import create_transform

    return create_transform(**json.loads(config), is_training=False, use_prefetcher=True)
