"""A row is that of its item, whatever stands beside it: order, batches, threads, bad items. Nothing is kept here."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skmm.encoders import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder, _run

RNG = np.random.default_rng(0)
N = 13
WORDS = np.array(["the", "cat", "sat", "on", "mat", "dog", "a", "b", "c", "d", "e"])
TEXTS = [" ".join(RNG.choice(WORDS, size=2 + 3 * (i % 7))) + f" {i}" for i in range(N)]
IMAGES = list(RNG.integers(256, size=(N, 40, 44, 3), dtype=np.uint8))
SOUNDS = [(16_000, RNG.normal(size=4000 + 800 * (i % 3))) for i in range(N)]
CLIPS = [list(RNG.integers(256, size=(1 + i % 4, 40, 40, 3), dtype=np.uint8)) for i in range(N)]
ITEMS = {"text": TEXTS, "image": IMAGES, "sound": SOUNDS, "frames": CLIPS, "clips": CLIPS}


def bad(kind, i):
    """Bad items, of which no two are equal."""
    media = f"no media {i}".encode()
    return {"text": 3.5 + i, "image": media, "sound": (16_000, [np.nan, i])}.get(kind, media)


@pytest.fixture
def make(request, make_audio_model):
    """Give a function that makes a fitted encoder of a kind."""

    def make(kind, **options):
        options = {"device": "cpu", "precision": "float32", "store": None, **options}
        if kind == "sound":
            return AudioEncoder(make_audio_model("wav2vec2_layer"), **options).fit(SOUNDS)
        model, encoder = {
            "text": ("tiny_text_model", TextEncoder),
            "image": ("tiny_image_model", ImageEncoder),
            "frames": ("tiny_image_model", VideoEncoder),
            "clips": ("tiny_video_model", VideoEncoder),
        }[kind]
        return encoder(request.getfixturevalue(model), **options).fit(ITEMS[kind])

    return make


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_same(kind, found, expected):
    """Rows agree within 1e-6 of their largest value: kernels add up in another order for other numbers of rows."""
    assert len(np.unique(expected.round(4), axis=0)) == len(expected)
    assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ITEMS)
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100, "auto"])
def test_batch_size_and_order_and_neighbours(kind, batch_size, make):
    items, expected = ITEMS[kind], make(kind).transform(ITEMS[kind])
    encoder = make(kind, batch_size=batch_size)
    order = np.random.default_rng(1).permutation(N)
    assert_same(kind, encoder.transform([items[i] for i in order]), expected[order])
    assert_same(kind, encoder.transform(items[4:7]), expected[4:7])
    assert_same(kind, encoder.transform(items[9:10]), expected[9:10])


@pytest.mark.parametrize("kind", ITEMS)
def test_threads_of_torch_and_of_the_caller(kind, make, torch_threads):
    items, encoder = ITEMS[kind], make(kind)
    torch_threads(1)
    expected = encoder.transform(items)
    torch_threads(3)
    assert_same(kind, encoder.transform(items), expected)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(encoder.transform, [items] * 4):
            assert_same(kind, found, expected)


def mixtures(kind):
    """Give places of bad items between the good ones, and these: few and many, alone, in a row, at both ends."""
    rng = np.random.default_rng(2)
    for n_good in (1, 2, N):
        for n_bad, start in ((1, 0), (7, n_good), (40, 1)):
            is_bad = np.zeros(n_good + n_bad, dtype=bool)
            is_bad[start : start + n_bad] = True
            yield is_bad, ITEMS[kind][:n_good]
        yield rng.permutation(n_good + 5) < 5, ITEMS[kind][:n_good]


@pytest.mark.filterwarnings("ignore:.* items could not be encoded")
@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("kind", ITEMS)
def test_bad_items_do_not_change_the_rows_around_them(kind, n_workers, make, monkeypatch, torch_threads):
    torch_threads(4)
    monkeypatch.setattr(ImageEncoder, "_n_workers", lambda self, kind: n_workers)
    monkeypatch.setattr(_run, "available_cpus", lambda: n_workers)
    encoder = make(kind, batch_size=2, on_error="missing")
    # Several windows.
    monkeypatch.setattr(type(encoder), "_window", 3)
    expected = encoder.transform(ITEMS[kind])
    for is_bad, good in mixtures(kind):
        rest = iter(good)
        out = encoder.transform([bad(kind, i) if wrong else next(rest) for i, wrong in enumerate(is_bad)])
        assert np.isnan(out[is_bad]).all()
        assert_allclose(out[~is_bad], expected[: len(good)], rtol=0, atol=1e-6 * np.abs(expected).max())


def test_bad_items_alone_are_reported_before_all_of_them_are_read(make, monkeypatch):
    encoder = make("sound")
    read = []
    monkeypatch.setattr(AudioEncoder, "_window", 2)
    prepare = AudioEncoder._prepare_item
    monkeypatch.setattr(AudioEncoder, "_prepare_item", lambda self, item: read.append(1) or prepare(self, item))
    with pytest.raises(ValueError, match="row 0"):
        encoder.transform([bad("sound", i) for i in range(1000)])
    assert len(read) < 100
