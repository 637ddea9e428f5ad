"""Pictures as the processors of transformers prepare them: one by one, from plain data, at a reduced scale."""

import io

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sentence_transformers import SentenceTransformer

from skmm.encoders import ImageEncoder, TextEncoder, VideoEncoder, _image, clear_models
from skmm.encoders.networks import _sentence
from skmm.encoders.networks._processors import ProcessorRecipe, recipe_for


def picture(width, height, seed=0):
    """Smooth random picture: what resizing does to noise would say little."""
    small = Image.fromarray(np.random.default_rng(seed).integers(256, size=(4, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def recipe_of(processor):
    return recipe_for(processor, lambda image: processor(images=[image], return_tensors="pt"))


@pytest.mark.parametrize(
    ("kind", "options", "enough"),
    [
        ("CLIPImageProcessor", {}, 224),
        ("SiglipImageProcessor", {"size": {"height": 96, "width": 64}}, 96),
        # Half the picture would be cut from one decoded at half its scale.
        ("CLIPImageProcessor", {"do_resize": False, "crop_size": {"height": 48, "width": 48}}, None),
    ],
)
def test_recipes_give_the_processors_pixels(kind, options, enough):
    processor = getattr(transformers, kind)(**options)
    recipe = recipe_of(processor)
    assert recipe.enough == enough
    again = ProcessorRecipe(**vars(recipe))
    for size in [(300, 200), (40, 90)]:
        expected = processor(images=[picture(*size)], return_tensors="pt")["pixel_values"]
        assert_array_equal(again(picture(*size)), expected[0])


def test_what_is_not_one_tensor_of_one_shape_has_none():
    clip = transformers.CLIPImageProcessor
    assert recipe_of(clip(do_center_crop=False)) is None
    processor = clip(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})

    def features(image, **more):
        return {**processor(images=[image], return_tensors="pt"), "modality": "image", **more}

    assert recipe_for(processor, features) is not None
    assert recipe_for(processor, lambda image: features(image, mask=torch.ones(1))) is None
    assert recipe_for(processor, lambda image: {"pixel_values": features(image)["pixel_values"] / 2}) is None
    for unknown in (None, object(), "clip"):
        assert recipe_for(unknown, features) is None


@pytest.fixture
def fresh_models():
    clear_models()
    yield
    clear_models()


@pytest.fixture
def scales(monkeypatch):
    """What images were decoded for."""
    seen = []

    def note(item, background, enough):
        image = load(item, background, enough)
        seen.append((enough, image.shape[:2]))
        return image

    load = _image.load_image
    monkeypatch.setattr(_image, "load_image", note)
    return seen


def test_clip_decodes_large_jpegs_at_a_reduced_scale(tiny_clip_model, scales):
    photos = [picture(800, 600, seed) for seed in range(3)]
    encoder = ImageEncoder(tiny_clip_model, precision="float32", store=None).fit(photos)
    out = encoder.transform([jpeg(photo) for photo in photos])
    assert scales[-3:] == [(32, (75, 100))] * 3
    expected = SentenceTransformer(tiny_clip_model, device="cpu").encode(photos)
    cosine = (out * expected).sum(axis=1) / np.linalg.norm(out, axis=1) / np.linalg.norm(expected, axis=1)
    assert (cosine > 0.999).all()
    # Other pictures are further off than that.
    assert cosine.min() > (out[0] @ expected[1]) / np.linalg.norm(out[0]) / np.linalg.norm(expected[1])


def test_without_a_recipe_the_network_prepares_its_pictures(tiny_clip_model, scales, fresh_models, monkeypatch):
    photos = [picture(80 + seed, 60, seed) for seed in range(5)]
    expected = ImageEncoder(tiny_clip_model, precision="float32", store=None).fit_transform(photos)
    clear_models()
    monkeypatch.setattr(_sentence, "recipe_for", lambda *_: None)
    encoder = ImageEncoder(tiny_clip_model, precision="float32", store=None)
    assert_allclose(encoder.fit_transform(photos), expected, atol=1e-6)
    assert scales[-1][0] is None


def test_video_takes_frames_as_the_processor_does(tiny_clip_model):
    frames = [picture(80, 60, seed) for seed in range(4)]
    out = VideoEncoder(tiny_clip_model, precision="float32", n_frames=4, store=None).fit_transform([frames])
    each = ImageEncoder(tiny_clip_model, precision="float32", store=None).fit_transform(frames)
    assert_allclose(out, each.mean(axis=0, keepdims=True), atol=1e-6)


def test_texts_ask_for_no_processor(tiny_clip_model, fresh_models, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(_sentence, "recipe_for", fail)
    assert TextEncoder(tiny_clip_model, store=None).fit_transform(["abc"]).shape == (1, 12)
