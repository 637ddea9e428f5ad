"""AudioEncoder: equal to transformers, item by item; modules in memory; windows; and the encoders' contract."""

import io
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from torch import nn

from skmm import ModalityFuser, _threads, _torch
from skmm.encoders import AudioEncoder, _run
from skmm.encoders._run import EncodingRun

soundfile = pytest.importorskip("soundfile", reason='needs pip install "skmm[audio]"')

KINDS = ["wav2vec2", "wav2vec2_layer", "hubert", "wavlm", "whisper", "ast", "clap"]
WAVES = ["wav2vec2", "wav2vec2_layer", "hubert", "wavlm"]
RATE = 16000


def sound(n_times, seed=0):
    """Noise of a colour and loudness of its own: a recording that differs from others in all that counts."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.normal(size=n_times), rng.normal(size=20), mode="same")
    return (0.05 * (1 + seed) * noise / np.abs(noise).max()).astype(np.float32)


# Below one frame, one frame, several lengths near each other, equal lengths, beyond Whisper's 2 s.
LENGTHS = [1, 400, 5000, 5001, 5120, 9000, 9000, 16000, 30000, 41000]
SOUNDS = [sound(n, seed) for seed, n in enumerate(LENGTHS)]
ITEMS = [(RATE, waveform) for waveform in SOUNDS]


class Means(nn.Module):
    """Mean and mean square of a waveform: its output tells what came in. It notes batches, modes and gradients."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, x):
        self.seen.append((tuple(x.shape), self.training, torch.is_grad_enabled(), x.dtype))
        return torch.stack([x.mean(dim=-1), x.square().mean(dim=-1)], dim=1) * self.factor


class Frames(nn.Module):
    """Frames of 100 samples, which are its features."""

    def forward(self, x):
        return x[:, : x.shape[1] // 100 * 100].reshape(len(x), -1, 100)


def encoder(module=None, **options):
    options.setdefault("precision", "float32")
    return AudioEncoder(Means().eval() if module is None else module, **options)


def network_of(folder):
    from transformers import AutoFeatureExtractor, AutoModel

    return AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def frames_of(folder, waveform):
    """What transformers gives for one waveform: its frames, or the vector that the model itself makes."""
    extractor, network = network_of(folder)
    inputs = extractor(waveform, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        if hasattr(network, "get_audio_features"):
            features = network.get_audio_features(**inputs)
            return getattr(features, "pooler_output", features)[0].numpy()
        if network.config.is_encoder_decoder:
            network = network.get_encoder()
        output = network(**inputs)
    pooled = getattr(output, "pooler_output", None)
    return (output.last_hidden_state if pooled is None else pooled)[0].numpy()


class TestModels:
    @pytest.mark.parametrize("pooling", ["mean", "max", "first"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_equal_transformers(self, make_audio_model, kind, pooling):
        folder = make_audio_model(kind)
        # AST hears no more than 0.655 s at once.
        chosen = [i for i in (2, 3, 6, 7) if kind != "ast" or LENGTHS[i] <= 10480]
        out = AudioEncoder(folder, precision="float32", pooling=pooling).fit_transform([ITEMS[i] for i in chosen])
        assert out.dtype == np.float32
        pool = {"mean": lambda x: x.mean(axis=0), "max": lambda x: x.max(axis=0), "first": lambda x: x[0]}[pooling]
        for row, i in zip(out, chosen, strict=True):
            frames = frames_of(folder, SOUNDS[i])
            if kind == "whisper":
                # 50 frames per second, of which what is padded does not count.
                frames = frames[: int(np.ceil(LENGTHS[i] / 320))]
            expected = frames if frames.ndim == 1 else pool(frames)
            assert_allclose(row, expected, atol=1e-5 * max(1, np.abs(expected).max()))

    @pytest.mark.parametrize("batch_size", [1, 3, 100, "auto"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_rows_do_not_depend_on_the_batch(self, make_audio_model, kind, batch_size):
        fitted = AudioEncoder(make_audio_model(kind), precision="float32", store=None, batch_size=batch_size).fit(ITEMS)
        alone = np.vstack([fitted.transform([item]) for item in ITEMS])
        assert len(np.unique(alone.round(4), axis=0)) == len(ITEMS)
        tolerance = 1e-5 * np.abs(alone).max()
        assert_allclose(fitted.transform(ITEMS), alone, atol=tolerance)
        order = np.random.default_rng(1).permutation(len(ITEMS))
        assert_allclose(fitted.transform([ITEMS[i] for i in order]), alone[order], atol=tolerance)
        assert_allclose(fitted.transform(ITEMS[3:5]), alone[3:5], atol=tolerance)

    @pytest.mark.parametrize("kind", KINDS)
    def test_silence_is_sound(self, make_audio_model, kind):
        fitted = AudioEncoder(make_audio_model(kind), precision="float32").fit(ITEMS)
        assert np.isfinite(fitted.transform([(RATE, np.zeros(n)) for n in (1, 400, 8000)])).all()

    @pytest.mark.parametrize("kind", ["wav2vec2_layer", "whisper", "clap"])
    def test_half_precision_comes_out_as_float32_and_close(self, make_audio_model, kind):
        full = AudioEncoder(make_audio_model(kind), precision="float32").fit_transform(ITEMS)
        half = AudioEncoder(make_audio_model(kind), precision="bfloat16").fit_transform(ITEMS)
        assert half.dtype == np.float32
        cosine = (full * half).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
        assert (cosine > 0.99).all()
        assert not np.array_equal(full, half)

    def test_masked_windows_share_batches(self, make_audio_model, monkeypatch):
        """Lengths within half a second of each other; without a mask only equal lengths go together."""
        from skmm.encoders.networks._audio import AudioModel

        sizes = []
        embed = AudioModel.embed
        monkeypatch.setattr(
            AudioModel, "embed", lambda self, batch, pooling: sizes.append(len(batch)) or embed(self, batch, pooling)
        )
        for kind, expected in {"wav2vec2_layer": [5, 5], "wavlm": [2, 2, 1, 1, 1, 1, 1, 1]}.items():
            fitted = AudioEncoder(make_audio_model(kind), batch_size=100).fit(ITEMS)
            sizes.clear()
            fitted.transform([*ITEMS[:8], (RATE, sound(15000, 20)), (RATE, sound(14000, 21))])
            assert sorted(sizes, reverse=True) == expected

    def test_only_the_encoder_of_whisper_is_kept(self, make_audio_model):
        model = EncodingRun(AudioEncoder(make_audio_model("whisper")).fit(ITEMS), []).model
        assert type(model.network).__name__ == "WhisperEncoder"

    def test_clones_and_threads_share_one_copy(self, make_audio_model, monkeypatch):
        import transformers

        folder = make_audio_model("wav2vec2")
        _torch.clear_models()
        loads = []
        load = transformers.AutoModel.from_pretrained
        monkeypatch.setattr(
            transformers.AutoModel,
            "from_pretrained",
            lambda *a, **options: loads.append(options) or load(*a, **options),
        )
        first = AudioEncoder(folder, precision="float32").fit(ITEMS)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: clone(first).fit_transform(ITEMS), range(4)))
        assert len(loads) == 1
        assert loads[0]["use_safetensors"] is True
        assert loads[0]["trust_remote_code"] is False
        for result in results:
            assert_allclose(result, results[0], rtol=0, atol=1e-6 * np.abs(result).max())

    def test_models_that_cannot_be_had(self, tmp_path, make_audio_model, tiny_text_model):
        with pytest.raises(OSError, match=r"AudioEncoder: the model 'a/b' could not be loaded .* to provide it"):
            AudioEncoder("a/b").fit(ITEMS)
        with pytest.raises(OSError, match="the model 'a/b' at revision 'v2' could not be loaded"):
            AudioEncoder("a/b", revision="v2").fit(ITEMS)
        with pytest.raises(OSError, match=r"the model folder '\./nowhere' does not exist"):
            AudioEncoder("./nowhere").fit(ITEMS)
        with pytest.raises(OSError, match="could not be loaded"):
            AudioEncoder(tmp_path).fit(ITEMS)
        with pytest.raises(OSError, match="could not be loaded"):
            AudioEncoder(tiny_text_model).fit(ITEMS)

    def test_weights_in_pickles_are_refused(self, make_audio_model, tmp_path):
        from safetensors.torch import load_file

        folder = tmp_path / "m"
        shutil.copytree(make_audio_model("wav2vec2"), folder)
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(OSError, match="weights in safetensors format"):
            AudioEncoder(folder).fit(ITEMS)

    def test_images_are_no_sound(self, tmp_path):
        from transformers import ViTConfig, ViTImageProcessor, ViTModel

        size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        ViTModel(ViTConfig(**size, image_size=32)).save_pretrained(tmp_path)
        ViTImageProcessor().save_pretrained(tmp_path)
        with pytest.raises(OSError, match="could not be loaded"):
            AudioEncoder(tmp_path).fit(ITEMS)

    def test_a_model_in_the_hubs_cache_needs_no_network(self, make_audio_model, tmp_path, monkeypatch):
        import huggingface_hub.constants

        folder = make_audio_model("hubert")
        repo = tmp_path / "models--somebody--tiny"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text("1" * 40)
        shutil.copytree(folder, repo / "snapshots" / ("1" * 40))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
        # Where transformers 4 has it.
        monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path), raising=False)
        out = AudioEncoder("somebody/tiny", precision="float32").fit_transform(ITEMS)
        expected = AudioEncoder(folder, precision="float32").fit_transform(ITEMS)
        assert_allclose(out, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


class TestModules:
    def test_what_the_module_gets(self):
        out = encoder().fit_transform(ITEMS[1:])
        assert_allclose(out, [[x.mean(), np.square(x).mean()] for x in SOUNDS[1:]], atol=1e-6)

    def test_what_is_shorter_than_25_ms_is_filled_up(self):
        module = Means().eval()
        out = encoder(module, target_rate=8000).fit_transform([(8000, [1.0, 1.0])])
        assert module.seen[-1][0] == (1, 200)
        assert_allclose(out, [[0.01, 0.01]], rtol=1e-6)

    def test_target_rate(self):
        module = Means().eval()
        encoder(module, target_rate=8000).fit_transform([(RATE, sound(3000))])
        assert module.seen[-1][0] == (1, 1500)
        encoder(module).fit_transform([(8000, sound(3000))])
        assert module.seen[-1][0] == (1, 6000)

    def test_a_callable_gets_a_waveform_at_the_target_rate(self):
        seen = []

        def preprocess(waveform):
            seen.append((waveform.shape, waveform.dtype))
            return torch.from_numpy(waveform[:100].reshape(4, 25).copy())

        out = encoder(nn.Flatten(), preprocess=preprocess, target_rate=8000).fit_transform([(RATE, sound(3000))])
        assert seen[-1] == ((1500,), np.float32)
        assert out.shape == (1, 100)

    def test_callables_that_give_no_tensor(self):
        with pytest.raises(ValueError, match="preprocess must return a tensor or an array, got list"):
            encoder(preprocess=lambda waveform: waveform.tolist()).fit(ITEMS)

    @pytest.mark.parametrize("pooling", ["mean", "max", "first"])
    def test_frames_are_pooled(self, pooling):
        waveform = sound(1000)
        frames = waveform.reshape(10, 100)
        expected = {"mean": frames.mean(axis=0), "max": frames.max(axis=0), "first": frames[0]}[pooling]
        assert_allclose(encoder(Frames(), pooling=pooling).fit_transform([(RATE, waveform)]), [expected], atol=1e-6)

    @pytest.mark.parametrize("module", [nn.Unflatten(1, (1, 1, -1)), nn.Flatten(0)])
    def test_what_gives_no_rows(self, module):
        with pytest.raises(ValueError, match=r"must map \(1, 16000\) to a tensor \(n, n_features\) or"):
            encoder(module).fit(ITEMS)

    def test_a_module_is_never_changed(self):
        module = Means().train()
        out = encoder(module, precision="bfloat16").fit_transform(ITEMS)
        assert module.training
        assert module.factor.dtype == torch.float32
        assert module.factor.requires_grad
        assert module.seen == []
        assert out.shape == (len(ITEMS), 2)

    def test_it_runs_in_eval_and_inference_mode(self):
        module = Means().eval()
        encoder(module).fit_transform(ITEMS)
        assert {(training, grad) for _, training, grad, _ in module.seen} == {(False, False)}

    def test_clones_share_the_module_and_keep_their_settings(self):
        original = encoder(batch_size=3).set_output(transform="pandas")
        twin = clone(original)
        assert twin.model is original.model
        assert twin.batch_size == 3
        assert isinstance(twin.fit_transform(ITEMS), pd.DataFrame)
        assert not hasattr(original, "n_features_out_")

    def test_pickles(self, make_audio_model):
        for kind in ("wav2vec2", "clap"):
            named = AudioEncoder(make_audio_model(kind)).fit(ITEMS)
            packed = pickle.dumps(named)
            assert len(packed) < 5000
            assert_array_equal(pickle.loads(packed).transform(ITEMS), named.transform(ITEMS))
        in_memory = encoder(nn.Sequential(nn.Unflatten(1, (1, -1)), nn.AdaptiveAvgPool1d(3), nn.Flatten()).eval())
        in_memory.fit(ITEMS)
        assert_array_equal(pickle.loads(pickle.dumps(in_memory)).transform(ITEMS), in_memory.transform(ITEMS))

    @pytest.mark.parametrize("options", [{"preprocess": torch.from_numpy}, {"target_rate": 8000}])
    def test_what_named_models_bring_themselves(self, make_audio_model, options):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is for a module in memory; leave it at None"):
            AudioEncoder(make_audio_model("wav2vec2"), **options).fit(ITEMS)

    @pytest.mark.parametrize(
        "options",
        [
            {"model": 3},
            {"pooling": "sum"},
            {"window": 0},
            {"window": "1s"},
            {"target_rate": 0},
            {"sampling_rate": -1},
            {"sampling_rate": "8000"},
            {"preprocess": "mel"},
            {"batch_size": 0},
            {"on_error": "ignore"},
        ],
    )
    def test_parameters(self, options):
        with pytest.raises(ValueError, match=f"The '{next(iter(options))}' parameter of AudioEncoder must be"):
            encoder().set_params(**options).fit(ITEMS)


class TestWindows:
    @pytest.mark.parametrize("kind", WAVES)
    def test_each_window_is_encoded_by_itself(self, make_audio_model, kind):
        folder, waveform = make_audio_model(kind), SOUNDS[-1]
        parts = [waveform[:16000], waveform[16000:32000], waveform[32000:]]
        plain = AudioEncoder(folder, precision="float32")
        for pooling in ("mean", "max", "first"):
            plain.set_params(pooling=pooling)
            alone = plain.fit_transform([(RATE, part) for part in parts])
            expected = {
                "mean": np.average(alone, axis=0, weights=[16000, 16000, 9000]),
                "max": alone.max(axis=0),
                "first": alone[0],
            }[pooling]
            cut = clone(plain).set_params(window=1.0).fit_transform([ITEMS[0], (RATE, waveform), ITEMS[2]])
            assert_allclose(cut[1], expected, atol=1e-5 * np.abs(expected).max())
        assert not np.allclose(cut[1], plain.transform([(RATE, waveform)])[0], atol=1e-3)

    def test_none_does_not_cut(self, make_audio_model):
        long = (RATE, sound(31 * RATE))
        module = Means().eval()
        encoder(module, window=None).fit_transform([long])
        assert module.seen[-1][0] == (1, 31 * RATE)
        encoder(module).fit_transform([long])
        assert [shape for shape, *_ in module.seen[-2:]] == [(1, RATE), (1, 30 * RATE)]

    @pytest.mark.parametrize(("kind", "longest"), [("whisper", 32000), ("clap", 32000), ("ast", 10480)])
    def test_models_with_a_window_of_their_own(self, make_audio_model, kind, longest):
        """Nothing beyond it is lost: two windows are their mean, weighted by length."""
        folder = make_audio_model(kind)
        waveform = sound(longest + 8000, 3)
        fitted = AudioEncoder(folder, precision="float32").fit(ITEMS)
        assert fitted._recipe.longest == longest
        parts = fitted.transform([(RATE, waveform[:longest]), (RATE, waveform[longest:])])
        expected = np.average(parts, axis=0, weights=[longest, 8000])
        assert_allclose(fitted.transform([(RATE, waveform)])[0], expected, atol=1e-5)
        whole = AudioEncoder(folder, precision="float32", window=None).fit_transform([(RATE, waveform)])
        assert_allclose(whole[0], expected, atol=1e-5)

    def test_a_full_window_of_ast_fills_its_frames_exactly(self, make_audio_model):
        extractor, _ = network_of(make_audio_model("ast"))
        # Without a bottom of padding below the last frame, nor a frame cut off.
        shorter, full, longer = (
            extractor(sound(n), sampling_rate=RATE, return_tensors="np")["input_values"][0]
            for n in (10480 - 1, 10480, 10480 + 160)
        )
        padding = extractor(np.zeros(400, np.float32), sampling_rate=RATE, return_tensors="np")["input_values"][0, -1]
        assert_array_equal(shorter[-1], padding)
        assert not np.array_equal(full[-1], padding)
        assert full.shape == longer.shape

    def test_a_remainder_without_a_frame_is_left_out(self):
        module = Means().eval()
        out = encoder(module, window=1.0).fit_transform([(RATE, np.r_[SOUNDS[7], np.ones(399, np.float32)])])
        assert_allclose(out[0], [SOUNDS[7].mean(), np.square(SOUNDS[7]).mean()], atol=1e-6)

    def test_windows_of_several_recordings_share_batches(self):
        module = Means().eval()
        fitted = encoder(module, window=0.1, batch_size=4, store=None).fit(ITEMS)
        module.seen.clear()
        fitted.transform([(RATE, sound(3200, i)) for i in range(3)])
        assert [shape for shape, *_ in module.seen] == [(4, 1600), (2, 1600)]


class TestContract:
    def test_batch_size_auto_goes_by_length(self):
        module = Means().eval()
        encoder(module, store=None).fit_transform([(RATE, sound(10 * RATE, i)) for i in range(5)])
        assert [shape[0] for shape, *_ in module.seen[1:]] == [3, 2]

    def test_equal_recordings_are_encoded_once(self):
        module = Means().eval()
        fitted = encoder(module, store=None).fit(ITEMS)
        module.seen.clear()
        out = fitted.transform([ITEMS[2], ITEMS[3], (RATE, SOUNDS[2].copy()), None, ITEMS[3], (8000, SOUNDS[2])])
        assert sum(shape[0] for shape, *_ in module.seen) == 3
        assert_array_equal(out[0], out[2])
        assert np.isnan(out[3]).all()
        assert not np.allclose(out[0], out[5])

    def test_more_recordings_than_a_window_of_the_encoder(self):
        items = [(RATE, np.full(400 + i % 3, i / 200)) for i in range(200)]
        assert_allclose(encoder().fit_transform(items)[:, 0], np.arange(200) / 200, atol=1e-6)

    def test_containers(self, tmp_path):
        waves = np.stack([sound(4000, i) for i in range(4)])
        pcm = np.round(waves * 2**15).astype(np.int16)
        waves = (pcm / 2**15).astype(np.float32)
        paths = [tmp_path / f"{i}.wav" for i in range(4)]
        for path, samples in zip(paths, pcm, strict=True):
            soundfile.write(path, samples, RATE)
        pairs = [(RATE, wave) for wave in waves]
        column = pd.Series(pairs, index=[5, 6, 7, 8])
        objects = np.empty(4, dtype=object)
        objects[:] = pairs
        records = [{"sampling_rate": RATE, "array": wave.tolist()} for wave in waves]
        fitted = encoder(sampling_rate=RATE).fit(pairs)
        expected = fitted.transform(pairs)
        for X in [
            [[RATE, wave] for wave in waves],
            column,
            column.to_frame("sound"),
            objects,
            objects[:, None],
            records,
            pd.Series(records),
            pl.Series(records),
            pl.DataFrame({"sound": records}),
            pd.Series(map(str, paths)),
            np.array(paths, dtype=object),
            pl.Series(map(str, paths)),
            pl.DataFrame({"sound": [path.read_bytes() for path in paths]}),
            list(waves),
            list(pcm),
            pd.Series(list(pcm)),
            waves,
            pcm,
            waves[:, None, :],
            pl.Series(waves),
            pl.Series(pcm),
            pl.Series(pcm.tolist(), dtype=pl.List(pl.Int16)),
            pl.Series(waves.tolist(), dtype=pl.List(pl.Float32)),
        ]:
            assert_allclose(fitted.transform(X), expected, atol=1e-6)

    def test_nested_columns_with_missing_and_ragged_values(self):
        column = pl.Series([[16384, None], None, [16384] * 400], dtype=pl.List(pl.Int16))
        lenient = encoder(on_error="missing", sampling_rate=RATE)
        with pytest.warns(UserWarning, match="1 of 3 items"):
            out = lenient.fit_transform(column)
        assert [error.row for error in lenient.errors_] == [0]
        assert_array_equal(out, np.array([[np.nan] * 2, [np.nan] * 2, [0.5, 0.25]], np.float32))

    def test_bare_waveforms_without_a_rate(self):
        with pytest.raises(ValueError, match=r"row 0: .*the sampling rate of a bare waveform is unknown"):
            encoder().fit_transform(SOUNDS)

    def test_files_are_resampled_to_the_rate_of_the_model(self, make_audio_model, tmp_path):
        times = np.arange(3 * 8000) / 8000
        path = tmp_path / "sound.flac"
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * 300 * times), 8000)
        same = (RATE, 0.5 * np.sin(2 * np.pi * 300 * np.arange(3 * RATE) / RATE))
        out = AudioEncoder(make_audio_model("wav2vec2_layer"), precision="float32").fit_transform([str(path), same])
        assert_allclose(out[0], out[1], atol=0.05 * np.abs(out).max())

    def test_bad_items(self, tmp_path):
        buffer = io.BytesIO()
        soundfile.write(buffer, sound(4000), RATE, format="WAV")
        broken = tmp_path / "broken.wav"
        broken.write_bytes(buffer.getvalue()[:3000])
        nan = (RATE, np.array([0, np.nan]))
        items = [ITEMS[2], str(broken), None, "nowhere.wav", ITEMS[7], b"text", 3.5, nan, "", tmp_path]
        with pytest.raises(ValueError, match=r"AudioEncoder: row 1: '.*broken\.wav': the file is truncated"):
            encoder().fit_transform(items)
        lenient = encoder(on_error="missing")
        with pytest.warns(UserWarning, match="6 of 10 items could not be encoded"):
            out = lenient.fit_transform(items)
        rows = [1, 3, 5, 6, 7, 9]
        assert [error.row for error in lenient.errors_] == rows
        assert [error.row for error in lenient.find_errors(items)] == rows
        assert [error.row for error in encoder().find_errors(items)] == rows
        assert lenient.errors_[4].item == "pair of int 16000 and array of shape (2,) and dtype float64"
        assert_array_equal(np.flatnonzero(np.isnan(out).all(axis=1)), sorted([*rows, 2, 8]))
        assert_array_equal(out[[0, 4]], lenient.transform([ITEMS[2], ITEMS[7]]))

    def test_long_recordings_are_held_one_at_a_time(self, monkeypatch):
        items = [(RATE, sound(RATE * (1 + i % 3), i)) for i in range(12)]
        expected = encoder().fit_transform(items)
        windows = []
        encode = _run.EncodingRun._encode_window

        def note(self, window):
            windows.append(window)
            return encode(self, window)

        monkeypatch.setattr(_run.EncodingRun, "_encode_window", note)
        for module in (_run, _threads):
            monkeypatch.setattr(module, "MAX_BYTES_AHEAD", 4 * RATE * 3)
        assert_allclose(encoder(store=None).fit_transform(items), expected, atol=1e-6)
        seconds = [sum(item[0].n_times for _, item in window) / RATE for window in windows]
        assert sum(seconds) == 24
        # Each window ends with the recording that exceeds the bytes.
        assert max(seconds) <= 6

    def test_out_of_memory_halves_the_batch(self):
        class Tight(Means):
            def forward(self, x):
                if len(x) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return super().forward(x)

        items = [(RATE, sound(3200, i)) for i in range(5)]
        module = Tight().eval()
        for window in (30.0, 0.1):
            module.seen.clear()
            out = encoder(module, window=window).fit_transform(items)
            assert max(shape[0] for shape, *_ in module.seen) == 2
            assert_allclose(out, encoder(window=window).fit_transform(items), atol=1e-6)

    def test_values_that_are_not_finite_are_errors(self):
        class Overflow(Means):
            def forward(self, x):
                return super().forward(x) / 0

        with pytest.raises(ValueError, match=r"row \d: .* values that are not finite"):
            encoder(Overflow().eval()).fit_transform(ITEMS)

    def test_normalize(self):
        assert_allclose(np.linalg.norm(encoder(normalize=True).fit_transform(ITEMS), axis=1), 1, rtol=1e-5)

    def test_transform_changes_neither_encoder_nor_input(self, make_audio_model):
        items = [(RATE, waveform.copy()) for waveform in SOUNDS]
        fitted = AudioEncoder(make_audio_model("wav2vec2_layer")).fit(items)
        before = dict(vars(fitted))
        fitted.transform(items)
        assert vars(fitted) == before
        for (_, waveform), original in zip(items, SOUNDS, strict=True):
            assert_array_equal(waveform, original)

    def test_names_and_containers_out(self):
        for container, kind in {"pandas": pd.DataFrame, "polars": pl.DataFrame}.items():
            out = encoder().set_output(transform=container).fit_transform(ITEMS)
            assert isinstance(out, kind)
            assert list(out.columns) == ["0", "1"]

    def test_in_a_search(self, make_audio_model):
        items = pd.Series([(RATE, sound(2000 + 100 * (i % 3), i)) for i in range(20)])
        y = np.arange(20) % 2
        pipe = Pipeline([("encode", AudioEncoder(make_audio_model("wav2vec2"))), ("clf", LogisticRegression())])
        search = GridSearchCV(pipe, {"clf__C": [0.1, 1]}, cv=2, error_score="raise").fit(items, y)
        direct = AudioEncoder(make_audio_model("wav2vec2")).fit_transform(items)
        expected = LogisticRegression(C=search.best_params_["clf__C"]).fit(direct, y)
        assert_allclose(search.predict_proba(items), expected.predict_proba(direct), atol=1e-6)

    def test_in_a_fuser_with_missing_recordings(self):
        frame = pd.DataFrame({"sound": [ITEMS[2], None, ITEMS[3], ITEMS[7]], "weight": [1.0, 2.0, 3.0, 4.0]})
        fuser = ModalityFuser([("sound", encoder(), "sound"), ("table", "passthrough", ["weight"])])
        out = fuser.fit_transform(frame)
        assert out.shape == (4, 3)
        assert np.isfinite(out).all()
        assert_allclose(out[1, :2], out[[0, 2, 3], :2].mean(axis=0), atol=1e-6)

    def test_verbose_shows_a_bar(self, capsys):
        encoder(verbose=True).fit_transform(ITEMS)
        assert "AudioEncoder: 100%" in capsys.readouterr().err
