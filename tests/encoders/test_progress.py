"""The bar of ``verbose``: how many items are done, how many a second, and how long the rest will take."""

import re

import numpy as np
import pytest

from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(8, 32, 32, 3), dtype=np.uint8)
ITEMS = {
    "text": [f"cat {i}" for i in range(8)],
    "image": list(IMAGES),
    "audio": [(16000, RNG.normal(size=4000)) for _ in range(8)],
    "video": [[image] * 4 for image in IMAGES],
}


@pytest.fixture
def encoder(kind, tiny_text_model, tiny_image_model, make_audio_model, tiny_video_model):
    make, model = {
        "text": (TextEncoder, tiny_text_model),
        "image": (ImageEncoder, tiny_image_model),
        "audio": (AudioEncoder, make_audio_model("wav2vec2")),
        "video": (VideoEncoder, tiny_video_model),
    }[kind]
    return make(model, device="cpu", precision="float32", batch_size=2, verbose=True)


@pytest.fixture
def bar(encoder, monkeypatch, capsys):
    """Give a function that encodes, each batch of two items in a second, and gives what the bar showed."""
    now, encode = [1e9], type(encoder)._encode_batch

    def take_a_second(self, batch, model):
        assert len(batch) == 2
        now[0] += 1
        return encode(self, batch, model)

    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(type(encoder), "_encode_batch", take_a_second)
    monkeypatch.setattr(ImageEncoder, "_n_workers", lambda self, kind: 1)

    def run(items):
        encoder.fit_transform(items)
        lines = capsys.readouterr().err.split("\r")
        # Without the drawing; the end is shown twice.
        return list(dict.fromkeys(re.sub(r"\|.*\|", "", line).strip() for line in lines if line.strip()))

    return run


@pytest.mark.parametrize("kind", ITEMS)
def test_items_a_second_and_time_left(kind, encoder, bar):
    name = type(encoder).__name__
    assert bar(ITEMS[kind]) == [
        f"{name}:   0% 0/8 [00:00<?, ?item/s]",
        f"{name}:  25% 2/8 [00:01<00:03,  2.00item/s]",
        f"{name}:  50% 4/8 [00:02<00:02,  2.00item/s]",
        f"{name}:  75% 6/8 [00:03<00:01,  2.00item/s]",
        f"{name}: 100% 8/8 [00:04<00:00,  2.00item/s]",
    ]


@pytest.mark.parametrize("kind", ["text"])
def test_what_a_store_has_counts_as_done(encoder, bar):
    assert bar(ITEMS["text"][:4])[-1].startswith("TextEncoder: 100% 4/4 ")
    assert [line.split()[2] for line in bar(ITEMS["text"])][:3] == ["0/8", "6/8", "8/8"]


@pytest.mark.parametrize("kind", ["text"])
def test_nothing_is_shown_unasked(encoder, bar):
    encoder.set_params(verbose=False)
    assert bar(ITEMS["text"]) == []
