"""Modules in memory: what decides their rows, when these are kept in a store, and in which precision they run."""

import copy
import functools
import gc
import io
import itertools
import threading
import time
import warnings
import weakref
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn
from torchvision import transforms

from skmm import EmbeddingStore, _torch
from skmm.encoders import AudioEncoder, ImageEncoder, VideoEncoder, _model
from skmm.encoders._run import EncodingRun
from skmm.store import _identity

RNG = np.random.default_rng(0)
IMAGES = list(RNG.integers(256, size=(12, 24, 24, 3), dtype=np.uint8))
SOUND = (16_000, np.sin(np.arange(16_000) / 5).astype(np.float32))
PREPROCESS = {"input_size": (3, 16, 16)}


@pytest.fixture
def store(tmp_path):
    with EmbeddingStore(tmp_path / "store") as store:
        yield store


@pytest.fixture(autouse=True)
def nothing_known():
    """Let each test begin as a new process does."""
    _identity._states.clear()
    _model._unidentified_modules.clear()


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


class Net(nn.Module):
    """Small network; subclasses change what they read in each call."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution = nn.Conv2d(3, 4, 3)
        self.n_calls, self.seen, self.seconds, self.factor = 0, {}, [], 1.0

    def forward(self, x):
        return self.convolution(x).relu().mean((2, 3)) * self.factor


def network():
    return Net().eval()


class Counting(Net):
    def forward(self, x):
        self.n_calls += 1
        return super().forward(x)


class Caching(Net):
    def forward(self, x):
        self.seen[len(self.seen)] = x.shape
        return super().forward(x)


class Timing(Net):
    def forward(self, x):
        begin = time.perf_counter()
        rows = super().forward(x)
        self.seconds.append(time.perf_counter() - begin)
        return rows


class Numbering(Net):
    def __init__(self):
        super().__init__()
        # A lock cannot be copied.
        self.lock, self.numbers = threading.Lock(), itertools.count()

    def forward(self, x):
        next(self.numbers)
        with self.lock:
            return super().forward(x)


N_FORWARD = [0]


class CountingInAGlobal(Net):
    def forward(self, x):
        N_FORWARD[0] += len(x)
        return super().forward(x)


@functools.lru_cache
def grid(side):
    return torch.ones(3, side, side) / side


def pixels(image, side=8):
    return torch.from_numpy(np.asarray(image.resize((side, side)), dtype=np.float32)).permute(2, 0, 1) / 255


def with_lru_cache(image):
    return pixels(image) * grid(8)


class WithState:
    """Preprocessing that counts and keeps what it has seen."""

    def __init__(self):
        self.numbers, self.seen = itertools.count(), {}

    def __call__(self, image):
        self.seen[next(self.numbers)] = image.size
        return pixels(image)


def images(module, preprocess=PREPROCESS, **options):
    return ImageEncoder(module, preprocess=preprocess, device="cpu", **options)


def identity(encoder, store):
    encoder.set_params(store=store).fit([None])
    return EncodingRun(encoder, []).identity


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of items in the batches that are encoded from here on, without probes."""
    sizes, encode = [], ImageEncoder._encode_batch
    monkeypatch.setattr(
        ImageEncoder, "_encode_batch", lambda self, batch, model: sizes.append(len(batch)) or encode(self, batch, model)
    )
    return sizes


class WithExtraState(Net):
    """Its state dict holds a tensor that is made in each call."""

    def get_extra_state(self):
        return torch.tensor([self.factor, self.n_calls])

    def set_extra_state(self, state):
        self.factor, self.n_calls = state.tolist()


class WithExtraObject(Net):
    def get_extra_state(self):
        self.seen[len(self.seen)] = io.BytesIO()
        return {"factor": self.factor, "file": self.seen[len(self.seen) - 1]}


class NamingAFunction(Net):
    def extra_repr(self):
        self.seen[len(self.seen)] = lambda x: x
        return f"activation={self.seen[len(self.seen) - 1]}"


NUMBERS = itertools.count()
HARMLESS = {
    "plain": (Net, PREPROCESS),
    "counter": (Counting, PREPROCESS),
    "cache": (Caching, PREPROCESS),
    "timing": (Timing, PREPROCESS),
    "iterator and lock": (Numbering, PREPROCESS),
    "global counter": (CountingInAGlobal, PREPROCESS),
    "tensor as extra state": (WithExtraState, PREPROCESS),
    "object as extra state": (WithExtraObject, PREPROCESS),
    "function in its repr": (NamingAFunction, PREPROCESS),
    "lru_cache in preprocessing": (Net, with_lru_cache),
    "counter and cache in preprocessing": (Net, WithState()),
    "lambda with an iterator": (Net, lambda image: (next(NUMBERS), pixels(image))[1]),
}


class TestKeptOnce:
    """Whatever a module or its preprocessing notes for itself: rows that are the same each time are kept."""

    @pytest.mark.parametrize("kind", HARMLESS)
    def test_in_a_search(self, kind, encoded, store, no_warnings):
        module, preprocess = HARMLESS[kind]
        X, y = np.fromiter(IMAGES, dtype=object, count=len(IMAGES)), np.arange(len(IMAGES)) % 2
        pipe = make_pipeline(images(module().eval(), preprocess, store=store), LogisticRegression())
        GridSearchCV(pipe, {"logisticregression__C": [0.1, 1, 10]}, cv=3, error_score="raise").fit(X, y)
        assert sum(encoded) == len(IMAGES) == store.info()["entries"]

    def test_few_forward_passes_beside_them(self, store):
        encoder = images(CountingInAGlobal().eval(), store=store).fit(IMAGES)
        encoder.transform(IMAGES)
        N_FORWARD[0] = 0
        encoder.transform(IMAGES)
        # One probe tells that the module is still the same.
        assert N_FORWARD[0] == 1

    def test_sound(self, store, no_warnings):
        class Means(Net):
            def forward(self, x):
                self.n_calls += 1
                return torch.stack([x.mean(dim=-1), x.square().mean(dim=-1)], dim=1)

        encoder = AudioEncoder(Means().eval(), store=store)
        expected = encoder.fit_transform([SOUND])
        for _ in range(2):
            assert_array_equal(clone(encoder).fit_transform([SOUND]), expected)
        assert (store.info()["entries"], store.hits) == (1, 2)


class Noise(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) + torch.rand(len(x), 3)


class Alternating(nn.Module):
    def __init__(self):
        super().__init__()
        self.n_calls = 0

    def forward(self, x):
        self.n_calls += 1
        return x.mean((2, 3)) + self.n_calls


class DropoutAlways(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x.mean((2, 3)), 0.5, training=True)


class OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def forward(self, x):
        return x.mean((2, 3)) * self.generator.random()


def python_random(image):
    import random

    return pixels(image) if random.random() >= 0 else None


def numpy_random(image):
    return pixels(image) + float(0 * np.random.rand())  # noqa: NPY002


OTHER_VALUES, DRAWS = "returns other values for the same item", "draws random numbers"
RANDOM = {
    "noise": (Noise(), PREPROCESS, OTHER_VALUES),
    "alternating": (Alternating(), PREPROCESS, OTHER_VALUES),
    "dropout": (DropoutAlways(), PREPROCESS, OTHER_VALUES),
    "generator of its own": (OwnGenerator(), PREPROCESS, OTHER_VALUES),
    "random crop": (
        network(),
        transforms.Compose([transforms.RandomCrop(100, pad_if_needed=True), transforms.ToTensor()]),
        OTHER_VALUES,
    ),
    # These probes show no difference, and yet another item may.
    "rare flip": (
        network(),
        transforms.Compose([transforms.Resize((8, 8)), transforms.RandomHorizontalFlip(1e-9), transforms.ToTensor()]),
        DRAWS,
    ),
    "random of Python": (network(), python_random, DRAWS),
    "random of NumPy": (network(), numpy_random, DRAWS),
}


class TestRandom:
    """Modules whose rows are others each time, or may be, are encoded in each call, with one warning."""

    @pytest.mark.parametrize("kind", RANDOM)
    def test_not_kept_with_one_warning(self, kind, encoded, store):
        module, preprocess, reason = RANDOM[kind]
        encoder = images(module.eval(), preprocess, store=store)
        message = f"ImageEncoder: embeddings are not kept in the store .*{reason}.*; pass cache_key"
        with pytest.warns(UserWarning, match=message) as caught:
            rows = [clone(encoder).fit_transform(IMAGES) for _ in range(2)]
        assert len(caught) == 1
        assert np.isfinite(rows).all()
        assert sum(encoded) == 2 * len(IMAGES)
        assert store.info()["entries"] == 0

    def test_the_warning_keeps_no_module_alive(self, store):
        module = Noise().eval()
        reference = weakref.ref(module)
        with pytest.warns(UserWarning, match=OTHER_VALUES):
            images(module, store=store).fit_transform(IMAGES)
        del module
        gc.collect()
        assert reference() is None

    @pytest.mark.parametrize("kind", RANDOM)
    def test_nothing_is_asked_without_a_store(self, kind, no_warnings):
        module, preprocess, _ = RANDOM[kind]
        images(module.eval(), preprocess, store=None).fit_transform(IMAGES)

    @pytest.mark.parametrize("kind", RANDOM)
    def test_a_cache_key_keeps_them(self, kind, encoded, store, no_warnings):
        module, preprocess, _ = RANDOM[kind]
        encoder = images(module.eval(), preprocess, store=store, cache_key="mine")
        first = encoder.fit_transform(IMAGES)
        assert_array_equal(clone(encoder).fit_transform(IMAGES), first)
        assert sum(encoded) == len(IMAGES) == store.info()["entries"]


class CountingInABuffer(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("n_forward", torch.zeros(1))

    def forward(self, x):
        self.n_forward += 1
        return super().forward(x)


def change_factor(module):
    module.factor += 0.5


def change_tensor(module):
    with torch.no_grad():
        module.convolution.bias[1] += 1e-3


def change_data(module):
    # Past torch's own count of changes.
    module.convolution.bias.data[1] += 1e-3


def change_layer(module):
    module.extra = nn.Sequential(nn.Identity(), getattr(module, "extra", nn.Identity())).eval()


class TestChanges:
    """A module that is another one in the next call begins rows of its own, with one warning that says why."""

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (change_factor, "it returns other values for the same item"),
            (change_tensor, "its tensors changed"),
            (change_data, "its tensors changed"),
            (change_layer, "its repr changed"),
        ],
    )
    def test_one_warning_names_the_reason(self, change, reason, store):
        module = network()
        encoder = images(module, store=store).fit(IMAGES)
        encoder.transform(IMAGES)

        def change_and_encode():
            change(module)
            expected = clone(encoder).set_params(store=None).fit_transform(IMAGES)
            assert_allclose(encoder.transform(IMAGES), expected, atol=1e-5)

        message = f"Net: the rows that a store holds of this module are not used any more, since {reason}"
        with pytest.warns(UserWarning, match=message) as caught:
            [change_and_encode() for _ in range(3)]
        assert len(caught) == 1
        assert store.info()["entries"] == 4 * len(IMAGES)

    def test_a_buffer_that_counts(self, store):
        encoder = images(CountingInABuffer().eval(), store=store).fit(IMAGES)
        with pytest.warns(UserWarning, match="its tensors changed between two calls; pass cache_key") as caught:
            [encoder.transform(IMAGES) for _ in range(3)]
        assert len(caught) == 1

    @pytest.mark.parametrize("change", [change_factor, change_tensor, change_layer])
    def test_a_cache_key_overrides_them(self, change, encoded, store, no_warnings):
        module = network()
        encoder = images(module, store=store, cache_key="first").fit(IMAGES)
        first = encoder.transform(IMAGES)
        change(module)
        assert_array_equal(encoder.transform(IMAGES), first)
        assert sum(encoded) == len(IMAGES)
        encoder.set_params(cache_key="second").transform(IMAGES)
        assert sum(encoded) == 2 * len(IMAGES)

    def test_other_parameters_are_no_changes(self, store, no_warnings):
        module = network()
        for options in ({}, {"background": "black"}, {"preprocess": {"input_size": (3, 8, 8)}}, {}):
            images(module, **options, store=store).fit_transform(IMAGES)
        assert store.info()["entries"] == 3 * len(IMAGES)


class TestCacheKey:
    def test_it_goes_with_the_settings_around_the_module(self, store):
        module = network()
        first = images(module, cache_key="mine")
        assert identity(first, store) == identity(images(network(), cache_key="mine"), store)
        for other in (
            images(module, cache_key="yours"),
            images(module),
            images(module, cache_key="mine", background="black"),
            images(module, {"input_size": (3, 8, 8)}, cache_key="mine"),
            VideoEncoder(module, preprocess=PREPROCESS, device="cpu", cache_key="mine"),
        ):
            assert identity(other, store) != identity(first, store)

    @pytest.mark.parametrize("kind", [AudioEncoder, ImageEncoder, VideoEncoder])
    def test_named_models_have_none(self, kind, tiny_image_model, make_audio_model):
        model = make_audio_model("wav2vec2") if kind is AudioEncoder else tiny_image_model
        with pytest.raises(ValueError, match=f"{kind.__name__}: cache_key is for a module in memory; leave it at None"):
            kind(model, cache_key="mine").fit([None])
        with pytest.raises(ValueError, match=f"'cache_key' parameter of {kind.__name__}"):
            kind(network(), cache_key=3).fit([None])


class TestIdentity:
    def test_equal_modules_share(self, store):
        module = network()
        expected = identity(images(module), store)
        for other in (images(module, batch_size=2, normalize=True), images(copy.deepcopy(module)), images(network())):
            assert identity(other, store) == expected

    def test_encoders_with_other_settings_take_turns(self, store):
        n_calls = []

        class Counted(nn.Module):
            def forward(self, x):
                n_calls.append(len(x))
                return x.mean(dim=(2, 3))

        first = images(Counted().eval())
        second = images(first.model, background="black")
        known = [identity(encoder, store) for encoder in (first, second)]
        n_calls.clear()
        assert [identity(encoder, store) for encoder in (first, second)] == known
        # Each encodes the first of the fixed items, for its width and for its identity, no more.
        assert len(n_calls) == 4

    def test_number_of_threads(self, store):
        n_threads, identities = torch.get_num_threads(), set()
        try:
            for n in (1, 3):
                torch.set_num_threads(n)
                _identity._states.clear()
                identities.add(identity(images(network()), store))
                assert torch.get_num_threads() == n
        finally:
            torch.set_num_threads(n_threads)
        assert len(identities) == 1

    def test_a_hook_counts_while_it_is_there(self, store):
        module = network()
        before = identity(images(module), store)
        handle = module.convolution.register_forward_hook(lambda module, inputs, output: output + 1)
        with pytest.warns(UserWarning, match="other values"):
            assert identity(images(module), store) != before
        handle.remove()
        assert identity(images(module), store) == before

    def test_tensors_that_are_not_read(self, store):
        identities = set()
        for unread in (torch.ones(3), torch.tensor([1.0, 2, 1]), torch.ones(4, dtype=torch.bfloat16)[1:]):
            module = network()
            module.register_buffer("unread", unread, persistent=len(identities) != 1)
            identities.add(identity(images(module), store))
        assert len(identities) == 3

    def test_extra_state_that_is_not_read(self, store):
        module = WithExtraState().eval()
        before = identity(images(module), store)
        module.n_calls = 1
        with pytest.warns(UserWarning, match="its tensors changed"):
            assert identity(images(module), store) != before
        module.n_calls = 0
        assert identity(images(module), store) == before

    def test_other_layers_of_the_same_state(self, store):
        pools = [
            nn.Sequential(nn.Flatten(2), pool(1), nn.Flatten()).eval()
            for pool in (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d)
        ]
        assert identity(images(pools[0]), store) != identity(images(pools[1]), store)

    def test_preprocessing_counts_by_what_it_returns(self, store):
        module = network()
        first = identity(images(module, pixels), store)
        assert identity(images(module, lambda image: pixels(image)), store) == first
        assert identity(images(module, functools.partial(pixels, side=8)), store) == first
        assert identity(images(module, functools.partial(pixels, side=9)), store) != first
        assert identity(images(module, lambda image: 2 * pixels(image)), store) != first

    def test_preprocessing_that_refuses_a_probe(self, store, no_warnings):
        def refuse_thin(image):
            if image.width < 200:
                raise ZeroDivisionError("too thin")
            return pixels(image)

        assert identity(images(network(), refuse_thin), store) != identity(images(network(), pixels), store)

    @pytest.mark.slow
    def test_the_same_in_another_process(self, store):
        with get_context("spawn").Pool(1) as pool:
            assert pool.apply(identity_in_a_process, (store.path,)) == identity_in_a_process(store.path)


def identity_in_a_process(path):
    return identity(images(network(), pixels), EmbeddingStore(path))


class Spectrum(nn.Module):
    """Spectrogram inside the module."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(201, 8)
        self.register_buffer("window", torch.hann_window(400))

    def forward(self, x):
        return self.line(torch.stft(x, 400, 160, window=self.window, return_complex=True).abs().transpose(1, 2))


class Shifted(nn.Module):
    """Constant that is no buffer."""

    def __init__(self):
        super().__init__()
        self.convolution, self.mean = nn.Conv2d(3, 8, 3), torch.full((1, 3, 1, 1), 0.5)

    def forward(self, x):
        return self.convolution(x - self.mean).mean((2, 3))


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return torch.fft.rfft2(x * self.weight).abs().mean(3).flatten(1)


def quantised():
    layers = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(layers, {nn.Linear}, dtype=torch.qint8)


class TestPrecision:
    @pytest.fixture(params=[False, True], ids=["without AMX", "with AMX"])
    def has_amx(self, request, monkeypatch):
        monkeypatch.setattr(_torch, "_cpu_has_amx", lambda: request.param)
        return request.param

    @pytest.mark.parametrize("make", [Spectrum, Shifted, Fourier, quantised])
    def test_auto_leaves_modules_in_their_own(self, make, has_amx, no_warnings):
        kind, item = (AudioEncoder, SOUND) if make is Spectrum else (ImageEncoder, IMAGES[0])
        module = make().eval()
        auto = kind(module, device="cpu").fit_transform([item])
        single = kind(module, device="cpu", precision="float32", store=None).fit_transform([item])
        assert_allclose(auto, single, atol=1e-6 * np.abs(single).max())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_whatever_it_is(self, dtype, has_amx):
        seen = []

        class Means(nn.Module):
            def __init__(self):
                super().__init__()
                self.factor = nn.Parameter(torch.ones(1, dtype=dtype))

            def forward(self, x):
                seen.append(x.dtype)
                return x.mean((2, 3)) * self.factor

        out = images(Means().eval(), store=None).fit_transform(IMAGES)
        assert set(seen) == {dtype}
        assert out.dtype == np.float32
        seen.clear()
        images(Means().eval(), store=None, precision="float16").fit_transform(IMAGES)
        assert set(seen) == {torch.float16}

    def test_a_cache_key_does_not_join_precisions(self, store, has_amx):
        """On a CPU with AMX "auto" is no half precision for a module in memory."""
        module = network()
        identities = {
            identity(images(module, cache_key="mine", precision=precision), store)
            for precision in ("auto", "bfloat16", "float16")
        }
        assert len(identities) == 3

    def test_named_models_follow_the_cpu(self, tiny_image_model, has_amx):
        encoder = ImageEncoder(tiny_image_model, device="cpu", store=None).fit([None])
        dtype = EncodingRun(encoder, []).model.dtype
        assert dtype == (torch.bfloat16 if has_amx else torch.float32)

    @pytest.mark.parametrize("options", [{}, {"precision": "bfloat16"}])
    def test_modules_that_cannot_be_copied(self, options):
        module = Numbering().train(not options)
        with pytest.raises(ValueError, match=r'the module Numbering .*cannot be copied .*eval\(\).* precision="auto"'):
            images(module, **options).fit(IMAGES)
        assert images(module.eval()).fit_transform(IMAGES).shape == (12, 4)


class TestWidth:
    """Rows of another width than in fit: which items, what was expected, what to do."""

    def test_cut_after_fit(self):
        module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)).eval()
        encoder = images(module, store=None).fit(IMAGES)
        module[2] = nn.Identity()
        with pytest.raises(
            ValueError, match=r"ImageEncoder: .* array of shape \(2, 3\) for rows 1, 2, .*\(2, 10\) was"
        ) as caught:
            encoder.transform([None, *IMAGES[:2]])
        assert "10 features when the encoder was fitted" in str(caught.value)
        assert "call fit again" in str(caught.value)

    def test_lengths_of_recordings(self):
        network = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 8, 80, 40), nn.Flatten()).eval()

        def sound(seconds, pitch=3):
            return 8000, np.sin(np.arange(int(8000 * seconds)) / pitch).astype(np.float32)

        encoder = AudioEncoder(network, target_rate=8000, store=None).fit([None])
        assert encoder.transform([sound(1)]).shape == (1, encoder.n_features_out_)
        with pytest.raises(ValueError, match=r"AudioEncoder: .* for rows 0, 1, .* pooling over time"):
            encoder.transform([sound(2), sound(2, 4)])
        with pytest.raises(ValueError, match=r"AudioEncoder: .* for row 1, "):
            encoder.transform([sound(1), sound(0.5)])
        message = (
            r"AudioEncoder: the number of features .* depends on the length .*792 for 4000 .* 1592 for 8000 samples"
        )
        with pytest.raises(ValueError, match=message):
            clone(encoder).set_params(window=1.0).fit_transform([sound(1.5)])


class TestFormsOfPreprocessing:
    """What a function may return: a tensor, an array, and what processors of transformers do."""

    NET = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()

    @pytest.mark.parametrize("kind", [ImageEncoder, VideoEncoder])
    def test_accepted(self, kind):
        from transformers import CLIPImageProcessor

        processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
        item = IMAGES[0] if kind is ImageEncoder else IMAGES[:2]
        forms = [
            lambda image: processor(image, return_tensors="pt").pixel_values[0],
            lambda image: processor(image, return_tensors="pt").pixel_values,
            lambda image: processor(image, return_tensors="pt"),
            lambda image: processor([image], return_tensors="np"),
            lambda image: processor(image),
            lambda image: dict(processor(image, return_tensors="np")),
            lambda image: processor(image, return_tensors="np").pixel_values[0],
            lambda image: np.flip(np.flip(processor(image, return_tensors="np").pixel_values[0], 1), 1),
        ]
        rows = [kind(self.NET, preprocess=form, store=None).fit_transform([item, item]) for form in forms]
        for row in rows[1:]:
            assert_allclose(row, rows[0], atol=1e-6)

    @pytest.mark.parametrize(
        ("preprocess", "what"),
        [
            (lambda image: image.resize((8, 8)), "got Image"),
            (lambda image: None, "got NoneType"),
            (lambda image: np.zeros((8, 8), np.float32), r"got ndarray of shape \(8, 8\)"),
            (lambda image: torch.zeros(2, 3, 8, 8), r"got Tensor of shape \(2, 3, 8, 8\)"),
        ],
    )
    @pytest.mark.parametrize("kind", [ImageEncoder, VideoEncoder])
    def test_others_are_named(self, kind, preprocess, what):
        with pytest.raises(ValueError, match=rf"preprocess must map an image to a tensor .*{what}"):
            kind(self.NET, preprocess=preprocess).fit([None])

    def test_of_sound(self):
        net = nn.Sequential(nn.Flatten(), nn.Linear(200, 4)).eval()
        forms = [
            lambda wave: wave[:200].copy(),
            lambda wave: torch.from_numpy(wave[:200].copy()),
            lambda wave: wave[:200],
        ]
        rows = [AudioEncoder(net, preprocess=form, store=None).fit_transform([SOUND]) for form in forms]
        assert_allclose(rows, [rows[0]] * 3, atol=1e-6)
        with pytest.raises(ValueError, match="AudioEncoder: preprocess must return a tensor or an array, got list"):
            AudioEncoder(net, preprocess=lambda wave: wave.tolist()).fit([None])
