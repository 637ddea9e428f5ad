"""Fixtures of the tests of encoders: what goes with each kind of named model."""

import shutil

import numpy as np
import pytest

from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder


@pytest.fixture(scope="session")
def items_of_kinds():
    """Items for each kind of named model."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(4, 40, 50, 3), dtype=np.uint8)
    texts = ["the cat", "a dog sat on the mat"]
    sounds = [(16_000, 3 * rng.normal(size=4000)) for _ in range(2)]
    return {
        **{"text": texts, "plain text": texts, "clip texts": texts},
        **{"clip": images, "timm": images, "audio": sounds, "frames": [images], "video": [images]},
    }


@pytest.fixture(scope="session")
def copy_model(request, make_text_model, make_audio_model):
    """Give a function that copies the tiny model of a kind into a folder, and gives that; the test may change it."""

    def copy(kind, folder):
        if kind == "plain text":
            return make_text_model(folder, plain=True)
        name = {
            **{"text": "tiny_text_model", "clip": "tiny_clip_model", "clip texts": "tiny_clip_model"},
            **{"timm": "tiny_image_model", "frames": "tiny_image_model", "video": "tiny_video_model"},
        }.get(kind)
        source = make_audio_model("wav2vec2") if name is None else request.getfixturevalue(name)
        return shutil.copytree(source, folder, dirs_exist_ok=True)

    return copy


@pytest.fixture(scope="session")
def encode_kind(items_of_kinds):
    """Give a function that encodes the items of a kind with a model, without a store."""

    def encode(kind, model, **options):
        encoder = {
            **dict.fromkeys(("text", "plain text", "clip texts"), TextEncoder),
            **{"audio": AudioEncoder, "frames": VideoEncoder, "video": VideoEncoder},
        }.get(kind, ImageEncoder)
        encoder = encoder(model, device="cpu", precision="float32", store=None, **options)
        return encoder.fit(items_of_kinds[kind]).transform(items_of_kinds[kind])

    return encode
