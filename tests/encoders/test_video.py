"""VideoEncoder and VideoAudio: image models frame by frame, video models, pooling, and the encoders' contract."""

import os
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn

from skmm import ModalityFuser, _torch
from skmm.encoders import ImageEncoder, VideoAudio, VideoEncoder
from skmm.encoders._base import ItemEncoder
from skmm.exceptions import ItemError
from skmm.media._video import sample_frames

pytest.importorskip("av")


def noise(n_frames=12, height=40, width=48, seed=0):
    """Smooth random frames: what resizing does to noise would say little."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n_frames, 4, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height))) for frame in small])


CLIPS = [noise(5 + 3 * i, 40 + 2 * i, seed=i) for i in range(6)]


class Means(nn.Module):
    """Mean of each channel: its output tells what came in. It notes batch sizes, modes and gradients."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, x):
        self.seen.append((len(x), self.training, torch.is_grad_enabled()))
        return x.mean(dim=(2, 3)) * self.factor


def means():
    return Means().eval()


PLAIN = {"input_size": (3, 4, 4), "mean": (0, 0, 0), "std": (1, 1, 1)}


def encoder(module=None, **options):
    options.setdefault("preprocess", PLAIN)
    options.setdefault("precision", "float32")
    return VideoEncoder(means() if module is None else module, **options)


def grey(values):
    return np.repeat(np.array(values, dtype=np.uint8), 64).reshape(-1, 8, 8)


def chosen(clip, n=8):
    return clip[(2 * np.arange(n) + 1) * len(clip) // (2 * n)]


@pytest.fixture(scope="module")
def video_files(make_video, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        make_video(frames=list(clip), path=folder / f"{i}.mkv") and folder / f"{i}.mkv" for i, clip in enumerate(CLIPS)
    ]


class TestImageModels:
    @pytest.mark.parametrize("kind", ["tiny_image_model", "tiny_clip_model"])
    def test_frames_are_encoded_as_images_are(self, kind, request):
        model = request.getfixturevalue(kind)
        image_encoder = ImageEncoder(model, precision="float32").fit([None])
        expected = [image_encoder.transform(chosen(clip)).mean(axis=0) for clip in CLIPS]
        out = VideoEncoder(model, precision="float32").fit_transform(CLIPS)
        assert out.dtype == np.float32
        assert_allclose(out, expected, atol=1e-5 * np.abs(expected).max())

    def test_files_give_what_their_frames_give(self, tiny_image_model, video_files):
        # The codec is lossless.
        fitted = VideoEncoder(tiny_image_model, precision="float32").fit(CLIPS)
        assert_allclose(fitted.transform(video_files), fitted.transform(CLIPS), atol=1e-5)

    def test_one_copy_for_images_and_videos(self, tiny_image_model):
        _torch.clear_models()
        ImageEncoder(tiny_image_model).fit([None])
        VideoEncoder(tiny_image_model).fit([None])
        assert len(_torch._entries) == 1

    def test_it_runs_in_eval_and_inference_mode(self):
        module = means().train()
        fitted = encoder(module).fit(CLIPS)
        fitted.transform(CLIPS)
        assert module.training
        assert module.seen == []
        module.eval()
        fitted.transform(CLIPS)
        assert {(training, grad) for _, training, grad in module.seen} == {(False, False)}

    def test_preprocess_of_a_named_model(self, tiny_image_model):
        with pytest.raises(ValueError, match="VideoEncoder: preprocess is for a module in memory"):
            VideoEncoder(tiny_image_model, preprocess=PLAIN).fit(CLIPS)

    @pytest.mark.parametrize("name", ["timm/no_such_model", "resnet18", "someone/some-video-model"])
    def test_models_that_cannot_be_had(self, name):
        with pytest.raises(OSError, match=f"VideoEncoder: the model '{name}' could not be loaded .* to provide it"):
            VideoEncoder(name).fit(CLIPS)


class TestVideoModels:
    def direct(self, folder, frames):
        """The network called as the documentation of transformers does."""
        from transformers import AutoImageProcessor, AutoModel

        network = AutoModel.from_pretrained(folder).eval()
        pixels = AutoImageProcessor.from_pretrained(folder)(list(frames), return_tensors="pt")
        with torch.inference_mode():
            return network(**pixels).last_hidden_state[0].numpy()

    def test_videomae(self, tiny_video_model, video_files):
        expected = [self.direct(tiny_video_model, chosen(clip, 4)).mean(axis=0) for clip in CLIPS]
        fitted = VideoEncoder(tiny_video_model, precision="float32").fit(CLIPS)
        assert fitted.n_features_out_ == 16
        assert_allclose(fitted.transform(CLIPS), expected, atol=1e-5 * np.abs(expected).max())
        assert_allclose(fitted.transform(video_files), expected, atol=1e-5 * np.abs(expected).max())

    @pytest.mark.parametrize("kind", ["Timesformer", "Vivit"])
    def test_models_with_a_class_token(self, kind, tmp_path):
        import transformers

        size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        patches = {"tubelet_size": [2, 16, 16]} if kind == "Vivit" else {"patch_size": 16}
        config = getattr(transformers, f"{kind}Config")(
            image_size=32, num_frames=4, initializer_range=0.3, **size, **patches
        )
        options = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        processor = transformers.VivitImageProcessor if kind == "Vivit" else transformers.VideoMAEImageProcessor
        processor(**options).save_pretrained(tmp_path)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            # With a classifier and, for ViViT, without the pooler, as the hub's checkpoints are.
            network = getattr(transformers, f"{kind}ForVideoClassification")(config)
        network.save_pretrained(tmp_path)
        out = VideoEncoder(tmp_path, precision="float32").fit_transform(CLIPS)
        expected = [self.direct(tmp_path, chosen(clip, 4))[0] for clip in CLIPS]
        assert_allclose(out, expected, atol=1e-5 * np.abs(expected).max())

    def test_checkpoints_with_a_video_processor(self, tiny_video_model, tmp_path):
        transformers = pytest.importorskip("transformers")
        if not hasattr(transformers, "VideoMAEVideoProcessor"):
            pytest.skip("this version of transformers has image processors only")
        folder = tmp_path / "model"
        shutil.copytree(tiny_video_model, folder)
        (folder / "preprocessor_config.json").unlink()
        options = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        transformers.VideoMAEVideoProcessor(**options).save_pretrained(folder)
        expected = VideoEncoder(tiny_video_model, precision="float32").fit_transform(CLIPS)
        assert_allclose(VideoEncoder(folder, precision="float32").fit_transform(CLIPS), expected, atol=1e-4)

    def test_more_frames_than_a_clip(self, tiny_video_model):
        clip = CLIPS[4]
        fitted = VideoEncoder(tiny_video_model, precision="float32", n_frames=10, pooling="max").fit(CLIPS)
        frames = chosen(clip, 10)
        parts = [frames[0:4], frames[4:8], frames[6:10]]
        expected = np.max([self.direct(tiny_video_model, part).mean(axis=0) for part in parts], axis=0)
        assert_allclose(fitted.transform([clip])[0], expected, atol=1e-5 * np.abs(expected).max())

    def test_fewer_frames_than_a_clip(self, tiny_video_model):
        fitted = VideoEncoder(tiny_video_model, precision="float32", sampling="keyframes").fit(CLIPS)
        pair = CLIPS[0][:2]
        expected = self.direct(tiny_video_model, pair[[0, 0, 1, 1]]).mean(axis=0)
        assert_allclose(fitted.transform([pair])[0], expected, atol=1e-5 * np.abs(expected).max())

    def test_one_copy_per_process_and_none_in_pickles(self, tiny_video_model, monkeypatch):
        from transformers import AutoModel

        _torch.clear_models()
        loads, load = [], AutoModel.from_pretrained
        monkeypatch.setattr(AutoModel, "from_pretrained", lambda *args, **kw: loads.append(1) or load(*args, **kw))
        first = VideoEncoder(tiny_video_model, precision="float32").fit(CLIPS)
        with ThreadPoolExecutor(3) as pool:
            results = list(pool.map(lambda _: clone(first).fit_transform(CLIPS), range(3)))
        assert loads == [1]
        packed = pickle.dumps(first)
        assert len(packed) < os.path.getsize(f"{tiny_video_model}/model.safetensors") / 4
        for result in [*results, pickle.loads(packed).transform(CLIPS)]:
            assert_allclose(result, first.transform(CLIPS), rtol=0, atol=1e-6 * np.abs(result).max())

    def test_weights_that_are_missing_are_an_error(self, tiny_video_model, tmp_path):
        from safetensors.torch import load_file, save_file

        folder = tmp_path / "model"
        shutil.copytree(tiny_video_model, folder)
        weights = load_file(folder / "model.safetensors")
        weights.pop(next(name for name in weights if "layer.1." in name))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(OSError, match="the checkpoint lacks 1 weights of the model"):
            VideoEncoder(folder).fit(CLIPS)

    def test_pickled_weights_are_never_read(self, tiny_video_model, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(tiny_video_model, folder)
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(b"not read")
        with pytest.raises(OSError, match="weights in safetensors format"):
            VideoEncoder(folder).fit(CLIPS)


class TestSamplingAndPooling:
    def test_uniform(self):
        out = encoder(n_frames=4).fit_transform([grey(range(0, 200, 10))])
        assert_allclose(out, [[np.mean([20, 70, 120, 170]) / 255] * 3], rtol=1e-6)

    def test_keyframes(self, make_video):
        video = make_video(45, gop=20)
        out = encoder(sampling="keyframes").fit_transform([video])
        assert_allclose(out, [[np.mean([0, 100, 200]) / 255] * 3], rtol=1e-6)

    def test_fps(self, make_video):
        fitted = encoder(sampling="fps", fps=2.5).fit([None])
        expected = [[np.mean([0, 20, 40, 60, 80, 100, 120]) / 255] * 3]
        assert_allclose(fitted.transform([make_video(25)]), expected, rtol=1e-6)
        assert_allclose(fitted.transform([(10, grey(range(0, 125, 5)))]), expected, rtol=1e-6)
        with pytest.raises(ItemError, match=r"row 0: .* pass \(frame_rate, frames\)"):
            fitted.transform([grey(range(25))])

    def test_the_number_of_frames_has_a_bound(self):
        module = means()
        encoder(module, sampling="keyframes", store=None).fit([None]).transform([grey(range(200))])
        assert sum(n for n, *_ in module.seen[1:]) == 64

    def test_poolings(self):
        values = np.array([10, 90, 50, 20, 60, 70, 0, 40])
        frames, v = [grey(values)], values / 255
        quarters = v.reshape(4, 2).mean(axis=1)
        expected = {
            "mean": [v.mean()],
            "max": [v.max()],
            "mean_std": [v.mean(), v.std()],
            "pyramid": [v.mean(), v[:4].mean(), v[4:].mean(), *quarters],
        }
        for pooling, columns in expected.items():
            out = encoder(pooling=pooling).fit_transform(frames)
            assert_allclose(out[0], np.repeat(columns, 3), rtol=1e-5)

    @pytest.mark.parametrize("n_frames", [1, 2, 3, 5, 7])
    def test_pyramid_of_any_number_of_frames(self, n_frames):
        values = np.arange(n_frames) * 30
        out = encoder(pooling="pyramid", n_frames=n_frames).fit_transform([grey(values)])[0, ::3] * 255
        assert_allclose(out[0], values.mean(), rtol=1e-5)
        # Symmetric, and in the order of time.
        assert_allclose(out[1] + out[2], 2 * values.mean(), rtol=1e-5)
        assert (np.diff(out[3:]) >= 0).all()
        assert_allclose(
            out[[3, 6]], values[[0, -1]] if n_frames < 5 else [values[:2].mean(), values[-2:].mean()], rtol=1e-5
        )

    def test_pyramid_tells_before_from_after(self):
        fitted = encoder(pooling="pyramid").fit([None])
        forward, backward = fitted.transform([grey([0] * 8 + [200] * 8), grey([200] * 8 + [0] * 8)])
        assert_allclose(forward[:3], backward[:3])
        assert_allclose(forward[3:6], backward[6:9])
        assert np.abs(forward - backward).max() > 0.5

    def test_repeated_frames_are_encoded_once_and_count_as_often(self):
        module = means()
        fitted = encoder(module, store=None).fit([None])
        module.seen.clear()
        out = fitted.transform([grey([0, 30, 90])])
        assert sum(n for n, *_ in module.seen) == 3
        assert_allclose(out * 255, [[(3 * 0 + 2 * 30 + 3 * 90) / 8] * 3], rtol=1e-5)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"sampling": "random"},
            {"pooling": "median"},
            {"n_frames": 0},
            {"fps": 0.0},
            {"fps": float("inf")},
            {"n_frames": "all"},
        ],
    )
    def test_wrong_parameters(self, wrong):
        with pytest.raises(ValueError, match=f"'{next(iter(wrong))}' parameter of VideoEncoder"):
            encoder(**wrong).fit(CLIPS)


class TestContract:
    def test_batches_hold_frames_of_several_videos(self, monkeypatch):
        monkeypatch.setattr(VideoEncoder, "_n_workers", lambda self, kind: 1)
        module = means()
        fitted = encoder(module, batch_size=20, store=None).fit(CLIPS)
        module.seen.clear()
        fitted.transform([noise(30, seed=i) for i in range(5)])
        assert [n for n, *_ in module.seen] == [16, 16, 8]
        module.seen.clear()
        encoder(module, batch_size=3, store=None).fit(CLIPS).transform([noise(30)])
        assert [n for n, *_ in module.seen][1:] == [3, 3, 2]

    def test_out_of_memory_halves_the_batch(self):
        class Tight(Means):
            def forward(self, x):
                if len(x) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return super().forward(x)

        module = Tight().eval()
        out = encoder(module).fit_transform(CLIPS)
        assert max(n for n, *_ in module.seen) == 2
        assert_allclose(out, encoder().fit_transform(CLIPS), atol=1e-6)

    def test_videos_are_held_by_the_bytes_of_their_frames(self):
        fitted = encoder(n_frames=4).fit([None])
        video = fitted._prepare_item(noise(9))
        assert len(video.inputs) == 4
        assert fitted._prepared_bytes(video) == 4 * 3 * 4 * 4

    def test_more_videos_than_a_window(self):
        fitted = encoder(n_frames=2).fit([None])
        assert 2 * fitted._window < 150
        out = fitted.transform([grey([i, i]) for i in range(150)])
        assert_allclose(out[:, 0] * 255, np.arange(150), atol=1e-3)

    def test_equal_videos_are_encoded_once(self, video_files):
        module = means()
        fitted = encoder(module, store=None).fit([None])
        module.seen.clear()
        out = fitted.transform([CLIPS[1], video_files[2], CLIPS[1].copy(), None, str(video_files[2])])
        # A path and a string name one file.
        assert sum(n for n, *_ in module.seen) == 2 * 8
        assert_array_equal(out[0], out[2])
        assert np.isnan(out[3]).all()

    def test_containers(self, video_files):
        fitted = encoder().fit([None])
        expected = fitted.transform(CLIPS)
        column = pd.Series(CLIPS, index=range(5, 11))
        contents = [path.read_bytes() for path in video_files]
        for X in [
            column,
            column.to_frame("video"),
            [list(clip) for clip in CLIPS],
            [(25, clip) for clip in CLIPS],
            pd.Series(map(str, video_files)),
            np.array(video_files, dtype=object),
            pl.Series(map(str, video_files)),
            pl.DataFrame({"video": contents}),
            pd.DataFrame({"video": contents}),
        ]:
            assert_allclose(fitted.transform(X), expected, atol=1e-6)
        array = np.stack([clip[:5, :40] for clip in CLIPS])
        assert_allclose(fitted.transform(array), fitted.transform(list(array)))

    def test_missing(self):
        items = [None, CLIPS[0], float("nan"), pd.NA, ""]
        out = encoder().fit_transform(items)
        assert_array_equal(np.isnan(out).all(axis=1), [True, False, True, True, True])

    def test_bad_videos(self, tmp_path, video_files):
        broken = tmp_path / "broken.mkv"
        broken.write_bytes(video_files[0].read_bytes()[:100])
        items = [CLIPS[0], str(broken), None, "nowhere.mp4", video_files[1], b"text" * 100, 3.5, tmp_path, CLIPS[1][:0]]
        with pytest.raises(ValueError, match=r"VideoEncoder: row 1: '.*broken\.mkv': "):
            encoder().fit_transform(items)
        lenient = encoder(on_error="missing")
        with pytest.warns(UserWarning, match="6 of 9 items could not be encoded"):
            out = lenient.fit_transform(items)
        bad = [1, 3, 5, 6, 7, 8]
        assert [error.row for error in lenient.errors_] == bad
        assert [error.row for error in lenient.find_errors(items)] == bad
        assert [error.row for error in encoder().find_errors(items)] == bad
        assert_array_equal(np.isnan(out).all(axis=1), [False, True, True, True, False, True, True, True, True])
        assert_allclose(out[[0, 4]], lenient.transform([CLIPS[0], video_files[1]]), atol=1e-6)

    def test_a_damaged_tail_costs_its_frames_only(self, video_files):
        content = video_files[5].read_bytes()
        truncated = content[: int(0.7 * len(content))]
        frames, _ = sample_frames(truncated, "keyframes", 1000)
        assert frames
        whole, cut = encoder().fit([None]).transform([content, truncated])
        assert np.isfinite(cut).all()
        assert np.abs(whole - cut).max() > 1e-4

    def test_clones_share_the_module_and_keep_their_settings(self):
        original = encoder(batch_size=3, pooling="max", fps=2.0, n_frames=5).set_output(transform="pandas")
        twin = clone(original)
        assert twin.model is original.model
        assert twin.get_params() == original.get_params()
        assert isinstance(twin.fit_transform(CLIPS), pd.DataFrame)
        assert not hasattr(original, "n_features_out_")

    def test_pickles(self, tiny_image_model):
        named = VideoEncoder(tiny_image_model).fit(CLIPS)
        packed = pickle.dumps(named)
        assert len(packed) < 5000
        assert_array_equal(pickle.loads(packed).transform(CLIPS), named.transform(CLIPS))
        in_memory = encoder(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()).fit(CLIPS)
        assert_array_equal(pickle.loads(pickle.dumps(in_memory)).transform(CLIPS), in_memory.transform(CLIPS))

    def test_normalize(self):
        out = encoder(normalize=True, pooling="pyramid").fit_transform(CLIPS)
        assert_allclose(np.linalg.norm(out, axis=1), 1, rtol=1e-6)

    def test_transform_changes_neither_encoder_nor_input(self, tiny_video_model):
        clips = [clip.copy() for clip in CLIPS]
        fitted = VideoEncoder(tiny_video_model).fit(clips)
        before = dict(vars(fitted))
        fitted.transform(clips)
        assert vars(fitted) == before
        for clip, original in zip(clips, CLIPS, strict=True):
            assert_array_equal(clip, original)

    def test_names_and_containers_out(self):
        for container, kind in {"pandas": pd.DataFrame, "polars": pl.DataFrame}.items():
            out = encoder(pooling="mean_std").set_output(transform=container).fit_transform(CLIPS)
            assert isinstance(out, kind)
            assert list(out.columns) == ["0", "1", "2", "3", "4", "5"]

    def test_in_a_search(self, video_files):
        X = pd.DataFrame({"video": [str(path) for path in video_files] * 2})
        fuser = ModalityFuser([("video", encoder(), "video")])
        pipe = Pipeline([("fuse", fuser), ("clf", LogisticRegression())])
        grid = {"fuse__video__pooling": ["mean", "pyramid"], "fuse__video__n_frames": [2, 8]}
        search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(X, np.arange(12) % 2)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_verbose_shows_a_bar(self, capsys):
        encoder(verbose=True).fit_transform(CLIPS)
        assert "VideoEncoder: 100%" in capsys.readouterr().err

    def test_what_to_install(self, make_video, monkeypatch):
        video = make_video(3)
        # Python refuses what it knows not to be there.
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(ImportError, match=r'pip install "skmm\[video\]"'):
            encoder().fit_transform([video])
        # Frames in memory do not need it.
        assert encoder().fit_transform(CLIPS).shape == (6, 3)


class Loudness(ItemEncoder):
    """The simplest encoder of audio items: root mean square, and the sampling rate."""

    def __init__(self, on_error="raise", verbose=False):
        self.on_error = on_error
        self.verbose = verbose

    def _fit_width(self):
        self.n_features_out_ = 2

    def _prepare_item(self, item):
        rate, wave = item
        return [np.sqrt(np.mean(wave**2)), rate]

    def _encode_batch(self, batch, model):
        return np.array(batch)


@pytest.fixture(scope="module")
def sounding(make_video):
    """Videos with sound of one level each."""
    return [make_video(5 + i, sound=np.full((1, 800), 3000 * (i + 1), np.int16)) for i in range(4)]


class TestVideoAudio:
    def test_a_column_of_audio_items(self, sounding, make_video):
        out = VideoAudio().fit_transform([sounding[0], make_video(5), None, CLIPS[0], sounding[1], sounding[0]])
        assert out.shape == (6,)
        assert out.dtype == object
        assert [item is None for item in out] == [False, True, True, True, False, False]
        rate, wave = out[4]
        assert rate == 8000
        assert wave.dtype == np.float32
        assert_array_equal(wave, np.full(800, 6000 / 2**15, np.float32))
        assert out[5] is out[0]

    def test_rate_and_channels(self, make_video):
        stereo = np.stack([np.full(8000, 8000), np.full(8000, 4000)]).astype(np.int16)
        video = make_video(5, sound=stereo)
        (mono,) = VideoAudio().fit_transform([video])
        assert_allclose(mono[1], 6000 / 2**15, rtol=1e-6)
        (both,) = VideoAudio(mono=False).fit_transform([video])
        assert_array_equal(both[1], stereo.T / np.float32(2**15))
        (slower,) = VideoAudio(target_rate=4000).fit_transform([video])
        assert slower[0] == 4000
        assert abs(len(slower[1]) - 4000) <= 1

    def test_bad_videos(self, sounding):
        items = [sounding[0], b"text" * 100, "nowhere.mp4", sounding[1]]
        with pytest.raises(ItemError, match="VideoAudio: row 1: 400 bytes: "):
            VideoAudio().fit_transform(items)
        lenient = VideoAudio(on_error="missing")
        with pytest.warns(UserWarning, match="2 of 4 items could not be encoded"):
            out = lenient.fit_transform(items)
        assert [item is None for item in out] == [False, True, True, False]
        assert [error.row for error in lenient.errors_] == [1, 2]
        assert [error.row for error in lenient.find_errors(items)] == [1, 2]

    def test_one_column_feeds_two_modalities(self, sounding, make_video):
        X = pd.DataFrame({"video": [*sounding, None, make_video(5)]})
        sound = make_pipeline(VideoAudio(), Loudness())
        fuser = ModalityFuser([("picture", encoder(), "video"), ("sound", sound, "video")])
        fuser.fit(X)
        block = fuser.named_modalities_["sound"].transform(X["video"])
        assert_allclose(block[:4, 0], 3000 * np.arange(1, 5) / 2**15, rtol=1e-5)
        assert np.isnan(block[4:]).all()
        assert list(fuser.get_feature_names_out()) == [*(f"picture__{i}" for i in range(3)), "sound__0", "sound__1"]
        y = [0, 1] * 3
        pipe = clone(make_pipeline(fuser, LogisticRegression())).fit(X, y)
        assert pipe.predict(X).shape == (6,)
        assert_array_equal(pickle.loads(pickle.dumps(pipe)).predict(X), pipe.predict(X))

    def test_set_output_passes_it_by(self, sounding):
        pipe = make_pipeline(VideoAudio(), Loudness()).set_output(transform="pandas")
        out = pipe.fit_transform(sounding)
        assert isinstance(out, pd.DataFrame)
        assert list(out.columns) == ["0", "1"]
        with config_context(transform_output="polars"):
            assert isinstance(VideoAudio().fit_transform(sounding), np.ndarray)
            assert isinstance(VideoAudio().fit(sounding).transform(sounding), np.ndarray)

    def test_names(self, sounding):
        assert list(VideoAudio().fit(sounding).get_feature_names_out()) == ["x0"]
        frame = pd.DataFrame({"film": sounding})
        assert list(VideoAudio().fit(frame).get_feature_names_out()) == ["film"]
        assert list(VideoAudio().fit(frame).get_feature_names_out(["a"])) == ["a"]

    def test_rows_do_not_depend_on_each_other(self, sounding):
        fitted = VideoAudio().fit(sounding)
        whole = fitted.transform(sounding * 20)
        for i, video in enumerate(sounding):
            (alone,) = fitted.transform([video])
            assert_array_equal(whole[76 + i][1], alone[1])

    def test_parameters_and_state(self, sounding):
        with pytest.raises(ValueError, match="'target_rate' parameter of VideoAudio"):
            VideoAudio(target_rate=0).fit(sounding)
        fitted = VideoAudio(target_rate=4000).fit(sounding)
        before = dict(vars(fitted))
        fitted.transform(sounding)
        assert vars(fitted) == before
        assert clone(fitted).get_params() == fitted.get_params()
