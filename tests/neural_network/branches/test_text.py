"""Tokens, vocabulary, padding and dropout of TextBranch."""

import numpy as np
import pytest
import torch

from skmm.neural_network import TextBranch


def test_tokens_are_words_and_marks():
    branch = TextBranch().fit(["It's 20 €, no?"])
    assert set(branch.vocabulary_) == {"it", "'", "s", "20", "€", ",", "no", "?"}


def test_characters_callables_and_case():
    assert set(TextBranch(analyzer="char").fit(["Ab a"]).vocabulary_) == {"a", "b", " "}
    assert set(TextBranch(lowercase=False).fit(["Ab ab"]).vocabulary_) == {"Ab", "ab"}
    assert set(TextBranch(analyzer=str.split).fit(["A-b c"]).vocabulary_) == {"A-b", "c"}


def test_the_vocabulary_goes_by_frequency_and_then_the_alphabet():
    texts = ["b b c", "b a", "a d"]
    assert TextBranch().fit(texts).vocabulary_ == {"b": 2, "a": 3, "c": 4, "d": 5}
    assert TextBranch().fit(texts[::-1]).vocabulary_ == TextBranch().fit(texts).vocabulary_
    assert TextBranch(max_features=1).fit(texts).vocabulary_ == {"b": 2}
    # In two texts: "b" and "a".
    assert TextBranch(min_df=2).fit(texts).vocabulary_ == {"b": 2, "a": 3}


def test_unknown_tokens_long_texts_and_texts_without_tokens():
    branch = TextBranch(max_length=3).fit(["a b c d"])
    (numbers,) = branch.prepare(["b x", "d c b a", "   "])
    np.testing.assert_array_equal(numbers, [[3, 1, 0], [5, 4, 3], [1, 0, 0]])
    assert numbers.dtype == np.int64


@pytest.mark.parametrize("architecture", ["lstm", "transformer"])
def test_the_order_of_words_matters(architecture):
    branch = TextBranch(architecture).fit(["a b c"])
    module = branch.make_module().eval()
    forward, backward = (module(torch.from_numpy(branch.prepare([text])[0])) for text in ("a b c", "c b a"))
    assert not torch.allclose(forward, backward, atol=1e-4)


def test_layers_of_the_transformer_start_from_weights_of_their_own():
    module = TextBranch("transformer", n_layers=2).fit(["a"]).make_module()
    first, second = (layer.linear1.weight for layer in module.states.layers.layers)
    assert not torch.equal(first, second)


def test_token_dropout_is_for_training_and_spares_padding():
    branch = TextBranch(dropout=0, token_dropout=0.5).fit(["a b c d"])
    module = branch.make_module()
    tokens = torch.from_numpy(branch.prepare(["a b c d", "a"])[0])
    seen = []
    module.embedding.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    for _ in range(20):
        module.train()(tokens)
    seen = torch.stack(seen)
    assert (seen[:, tokens == 0] == 0).all()
    share = (seen[:, tokens != 0] == 1).double().mean()
    assert 0.3 < share < 0.7
    seen = []
    module.embedding.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    module.eval()(tokens)
    assert torch.equal(seen[-1], tokens)


@pytest.mark.parametrize(
    ("params", "texts", "message"),
    [
        ({"min_df": 2}, ["a", "b"], "the vocabulary is empty, none of the 2 tokens occurs in 2 texts; lower min_df"),
        ({}, [" ", "\n"], "the vocabulary is empty, no text has a token; lower min_df, or check the column"),
        ({"architecture": "transformer", "n_heads": 5}, ["a"], "n_heads must divide n_embedding, got n_heads=5 and"),
        ({}, ["a", 3.5], "TextBranch: row 1: float 3.5: a text is a string"),
    ],
)
def test_errors(params, texts, message):
    with pytest.raises(ValueError, match=message):
        TextBranch(**params).fit(texts)
