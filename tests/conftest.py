"""Fixtures of several test modules: tiny models that stand for real ones."""

import io
import json
import os
import shutil
import string
from fractions import Fraction

import numpy as np
import pytest

from skmm.store import _private_folder, _store

# Before anything imports the hub's library, which reads it once: tests never touch a network.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def empty_store():
    """Let each test begin with a private store of its own, and leave none behind."""
    before, _private_folder._folder, _private_folder._owner_file = _private_folder._folder, None, None
    yield
    # A process may have few files open.
    for store in list(_store._stores):
        store.close()
    if _private_folder._owner_file is not None:
        _private_folder._owner_file.close()
    if _private_folder._folder is not None:
        shutil.rmtree(_private_folder._folder, ignore_errors=True)
    _private_folder._folder = before


@pytest.fixture(scope="session")
def glyphs():
    """120 characters of 12 scripts as pictures and names; not to be changed in place."""
    pytest.importorskip("matplotlib")
    from skmm.datasets import load_glyphs

    return load_glyphs(n_samples=120)


@pytest.fixture(scope="session")
def make_snapshot():
    """Give a function that makes the folder of a model in a cache with the hub's own layout, and gives it."""

    def make(cache, name, commit="0123456789abcdef0123456789abcdef01234567", branch="main"):
        model = cache / f"models--{name.replace('/', '--')}"
        for folder in (model / "refs", model / "snapshots" / commit):
            folder.mkdir(parents=True, exist_ok=True)
        (model / "refs" / branch).write_text(commit)
        return model / "snapshots" / commit

    return make


@pytest.fixture(scope="session")
def make_text_model():
    """Give a function that saves a tiny random BERT in sentence-transformers' format, by seed."""
    torch = pytest.importorskip("torch")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertConfig, BertModel, BertTokenizerFast

    def make(folder, seed=0, plain=False, include_prompt=True, **options):
        letters = list(string.ascii_lowercase + string.digits)
        words = ["cat", "dog", "mat", "on", "the", "sat", ":"]
        vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *("##" + x for x in letters)]
        transformer = folder.parent / (folder.name + "_transformer")
        transformer.mkdir(parents=True)
        (transformer / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
        # A limit that is no multiple of 4, and no position beyond it.
        tokenizer = BertTokenizerFast(str(transformer / "vocab.txt"), model_max_length=30)
        config = BertConfig(
            vocab_size=len(vocab),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=30,
            # Large enough that different texts get clearly different vectors.
            initializer_range=0.3,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = BertModel(config)
        tokenizer.save_pretrained(transformer)
        network.save_pretrained(transformer)
        if plain:
            transformer.rename(folder)
            return folder
        first = modules.Transformer(str(transformer))
        pooling = modules.Pooling(16, pooling_mode="mean", include_prompt=include_prompt)
        model = sentence_transformers.SentenceTransformer(modules=[first, pooling], device="cpu", **options)
        model.save_pretrained(str(folder))
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_text_model(make_text_model, tmp_path_factory):
    """Path of a tiny random text model, with the prompt "query"; 16 features, texts of 30 tokens at most."""
    return str(make_text_model(tmp_path_factory.mktemp("models") / "tiny_text", prompts={"query": "the cat: "}))


@pytest.fixture(scope="session")
def tiny_image_model(tmp_path_factory):
    """Path of a small random timm model in the hub's format: 32 pixels, 512 features."""
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("models") / "tiny_image"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    data = {"input_size": (3, 32, 32), "mean": (0.5, 0.4, 0.3), "crop_pct": 0.8, "classifier": "fc"}
    timm.models.save_for_hf(network, folder, model_config={"pretrained_cfg": data}, safe_serialization=True)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_clip_model(tmp_path_factory):
    """Path of a tiny random CLIP in transformers' format: 32 pixels, texts of 16 tokens, 12 features."""
    torch = pytest.importorskip("torch")
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny_clip"
    folder.mkdir()
    symbols = ["<|startoftext|>", "<|endoftext|>", *(c + end for c in string.ascii_lowercase for end in ("", "</w>"))]
    (folder / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={**size, **ends, "vocab_size": len(symbols), "max_position_embeddings": 16},
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CLIPModel(config)
    network.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return str(folder)


# Shares of red and blue in the luma of BT.709, BT.601 and BT.2020, by FFmpeg's numbers of color spaces.
LUMA = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def to_yuv(rgb, color_space):
    """Return luma and the differences of colour of an 8-bit picture, of shape (3, height, width), by their formula."""
    red, green, blue = np.moveaxis(rgb / 255, 2, 0)
    share_red, share_blue = LUMA[color_space]
    luma = share_red * red + (1 - share_red - share_blue) * green + share_blue * blue
    differences = [(blue - luma) / (2 - 2 * share_blue), (red - luma) / (2 - 2 * share_red)]
    return np.rint([16 + 219 * luma, *(128 + 224 * values for values in differences)]).astype(np.uint8)


@pytest.fixture(scope="session")
def make_video():
    """Give a function that writes a video of plain grey frames, frame i of the value 5 * i; it gives the bytes."""
    av = pytest.importorskip("av")

    def make(
        n_frames=25,
        *,
        codec="ffv1",
        container="matroska",
        pixels="bgr0",
        rate=10,
        gop=10,
        size=(48, 64),
        stamps=None,
        frames=None,
        sound=None,
        sampling_rate=8000,
        sound_codec="pcm_s16le",
        options=None,
        path=None,
        aspect=None,
        color_space=None,
    ):
        stream = io.BytesIO()
        if frames is None:
            frames = [np.full((*size, 3), 5 * i, dtype=np.uint8) for i in range(n_frames)]
        with av.open(stream if path is None else str(path), "w", format=container, options=options or {}) as file:
            video = track = None
            if len(frames):
                video = file.add_stream(codec, rate=rate)
                video.height, video.width = frames[0].shape[:2]
                video.pix_fmt = pixels
                video.codec_context.gop_size = gop
                # Enough that each frame keeps its grey.
                video.bit_rate = 4_000_000
                if aspect is not None:
                    video.codec_context.sample_aspect_ratio = Fraction(aspect)
                if color_space is not None:
                    video.codec_context.colorspace = color_space
                if pixels == "yuva420p":
                    # Frames out of order have no transparency.
                    video.options = {"auto-alt-ref": "0"}
            if sound is not None:
                layout = "stereo" if len(sound) == 2 else "mono"
                track = file.add_stream(sound_codec, rate=sampling_rate, layout=layout)
            for i, pixels_of_frame in enumerate(frames):
                form = "rgba" if pixels_of_frame.shape[2] == 4 else "rgb24"
                if color_space is not None:
                    pixels_of_frame, form = to_yuv(pixels_of_frame, color_space), "yuv444p"
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_of_frame), format=form)
                frame = frame.reformat(format=pixels)
                frame.pts = i if stamps is None else stamps[i]
                file.mux(video.encode(frame))
            if sound is not None:
                samples = np.ascontiguousarray(np.asarray(sound).T.reshape(1, -1))
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
                frame.sample_rate = sampling_rate
                frame.pts = 0
                file.mux(track.encode(frame))
            for part in (video, track):
                if part is not None:
                    file.mux(part.encode())
        return stream.getvalue() if path is None else path.read_bytes()

    return make


@pytest.fixture(scope="session")
def tiny_video_model(tmp_path_factory):
    """Path of a tiny random VideoMAE in the hub's format: clips of 4 frames of 32 pixels, 16 features."""
    torch = pytest.importorskip("torch")
    from transformers import VideoMAEConfig, VideoMAEImageProcessor, VideoMAEModel

    folder = tmp_path_factory.mktemp("models") / "tiny_video"
    config = VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        # Large enough that different clips get clearly different vectors.
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = VideoMAEModel(config)
    network.save_pretrained(folder)
    processor = VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def make_audio_model(tmp_path_factory):
    """Give a function that saves a tiny random audio model and its feature extractor, and gives its path."""
    torch = pytest.importorskip("torch")
    import transformers

    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    waves = {
        **size,
        "conv_dim": (8, 8, 8),
        "conv_kernel": (10, 8, 4),
        "conv_stride": (5, 4, 4),
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
        "initializer_range": 0.3,
    }
    layer = {"feat_extract_norm": "layer"}
    whisper = {
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
        **{"d_model": 16, "vocab_size": 9, "num_mel_bins": 8, "max_source_positions": 100, "init_std": 0.3},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    }
    clap_audio = {
        **{"spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4},
        **{"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "num_hidden_layers": 2},
        **{"hidden_size": 16, "projection_dim": 12},
    }
    clap = {
        "text_config": {**size, "vocab_size": 20, "max_position_embeddings": 16},
        "audio_config": clap_audio,
        "projection_dim": 12,
    }
    clap_hears = {
        **{"feature_size": 16, "sampling_rate": 16000, "hop_length": 160, "max_length_s": 2},
        **{"truncation": "rand_trunc", "frequency_max": 8000},
    }
    ast_hears = {"max_length": 64, "num_mel_bins": 32}
    # Kind -> family, configuration, feature extractor, its settings.
    kinds = {
        "wav2vec2": ("Wav2Vec2", waves, "Wav2Vec2", {"return_attention_mask": False}),
        "wav2vec2_layer": ("Wav2Vec2", {**waves, **layer}, "Wav2Vec2", {"return_attention_mask": True}),
        "hubert": ("Hubert", waves, "Wav2Vec2", {"return_attention_mask": False}),
        "wavlm": ("WavLM", waves, "Wav2Vec2", {"return_attention_mask": True, "do_normalize": False}),
        "whisper": ("Whisper", whisper, "Whisper", {"feature_size": 8, "chunk_length": 2}),
        "ast": ("AST", {**size, **ast_hears, "initializer_range": 0.3}, "AST", ast_hears),
        "clap": ("Clap", clap, "Clap", clap_hears),
    }
    made = {}

    def make(kind):
        if kind not in made:
            family, config, hears, settings = kinds[kind]
            folder = tmp_path_factory.mktemp("models") / kind
            with torch.random.fork_rng():
                torch.manual_seed(0)
                network = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**config))
            network.save_pretrained(folder)
            getattr(transformers, f"{hears}FeatureExtractor")(**settings).save_pretrained(folder)
            made[kind] = str(folder)
        return made[kind]

    return make
