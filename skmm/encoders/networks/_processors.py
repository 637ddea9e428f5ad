"""The image and video processors of transformers, which make of a picture what a network takes."""

import functools
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...exceptions import RejectedItem

# Largest difference, as a share of the range of values, between the inputs that are made of one picture at two sizes;
# those of a processor that crops before it resizes differ more.
_MOST_APART = 0.05

# Name of the pictures in the input of transformers' networks.
PIXELS = "pixel_values"


@dataclass(eq=False)
class ProcessorRecipe:
    """How a picture becomes the input of a network: data only, for threads, pickles and the store."""

    # Configuration of an image or video processor of transformers, in JSON.
    processor: str
    # Frames that the network reads at a time; None where it takes single pictures.
    clip_length: int | None = None
    # Pixels per side that the processor makes use of; None if it has to see pictures in full.
    enough: int | None = None

    def __call__(self, image):
        """Turn a PIL image into a tensor (3, height, width)."""
        # One at a time: memory never holds all pictures at full size.
        (pixels,) = processor_of(self.processor)([image], return_tensors="pt").values()
        return pixels.reshape(pixels.shape[-3:])


@functools.lru_cache(maxsize=16)
def processor_of(config):
    """Return a processor of transformers, by its configuration."""
    import transformers

    config = json.loads(config)
    kind = config.get("video_processor_type") or config["image_processor_type"]
    return getattr(transformers, kind).from_dict(config)


def recipe_for(processor, features):
    """Return the recipe of an image processor of transformers; None where it does not make the whole input on its own.

    ``features`` maps a PIL image to the whole input of the network, by the network's own means. The recipe yields
    tensors of one shape, whatever the size of the picture.
    """
    try:
        recipe = ProcessorRecipe(processor.to_json_string())
        shape = recipe(_picture(64, 64)).shape
    # Not a processor of transformers, or one of a user.
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    side = max(shape[1:])
    pictures = [_picture(6 * side, 4 * side), _picture(3 * side, 2 * side)]
    full, half = map(recipe, pictures)
    if not full.shape == half.shape == shape or not all(map(_is_whole_input, (full, half), map(features, pictures))):
        return None
    if (full - half).abs().max() <= _MOST_APART * (full.max() - full.min()):
        recipe.enough = side
    return recipe


def _is_whole_input(pixels, features):
    """Return whether pixels are the only tensor in the input of a network, for one picture."""
    import torch

    tensors = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
    return tensors.keys() == {PIXELS} and torch.equal(tensors[PIXELS], pixels[None])


def _picture(width, height):
    """Return a picture whose colours change slowly, at the same pace whatever its size."""
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, np.newaxis]
    colours = np.stack(np.broadcast_arrays(x, y, x * y), axis=2)
    return Image.fromarray(np.rint(255 * colours).astype(np.uint8))


def call_preprocess(function, item):
    """Return what a user's ``preprocess`` makes of an item; raise RejectedItem if it fails."""
    try:
        return function(item)
    except MemoryError:
        raise
    except Exception as error:
        raise RejectedItem(f"preprocess raised {type(error).__name__} ({error})") from error
