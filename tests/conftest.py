"""Fixtures of several test modules: tiny models that stand for real ones."""

import os
import string

import pytest

# Before anything imports the hub's library, which reads it once: tests never touch a network.
os.environ["HF_HUB_OFFLINE"] = "1"


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
        # A limit that is no multiple of 8, and no position beyond it.
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
