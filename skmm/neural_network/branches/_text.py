"""Texts, trained from scratch: words or characters, their embeddings, an LSTM or a Transformer."""

import re
from collections import Counter
from collections.abc import Callable
from numbers import Integral, Real

import numpy as np

from ..._sklearn import Interval, StrOptions
from ...exceptions import RejectedItem
from ._base import PADDING, UNKNOWN, Branch

# Words, and every other character that is no space.
_WORDS = re.compile(r"\w+|[^\w\s]")


class TextBranch(Branch):
    r"""Read texts with an LSTM or a Transformer that is trained with the network.

    Texts are cut into words or characters. The vocabulary is learned in ``fit``, each token has an embedding, and the
    hidden states of a text's tokens are pooled to one vector. For pretrained text models use
    :class:`~skmm.encoders.TextEncoder` as the modality's transformer instead.

    Parameters
    ----------
    architecture : {"lstm", "transformer"}, default="lstm"
        "lstm" is a bidirectional LSTM [1]_, "transformer" an encoder with learned positions and normalisation before
        attention and feed-forward layers [2]_.

    analyzer : {"word", "char"} or callable, default="word"
        How a text is split into tokens: runs of letters and digits and every other character that is no space, single
        characters, or by a callable from str to list of str.

    lowercase : bool, default=True
        Whether texts are converted to lower case first; not for a callable.

    max_features : int, default=20000
        Maximum size of the vocabulary; the most frequent tokens are used.

    min_df : int, default=1
        Minimum number of texts in which a token must occur in ``fit``.

    max_length : int, default=128
        Maximum number of tokens per text; the rest is cut off.

    n_embedding : int, default=64
        Width of the embeddings, and of the Transformer.

    n_hidden : int, default=64
        Units of the LSTM in each direction, or of the Transformer's feed-forward layers.

    n_layers : int, default=1
        Layers of the LSTM or the Transformer.

    n_heads : int, default=4
        Heads of the Transformer's attention, a divisor of ``n_embedding``.

    pooling : {"max", "mean"}, default="max"
        How the states of the tokens become one vector; padding is ignored.

    dropout : float, default=0.1
        Share of the embeddings and states that are set to 0 in training.

    token_dropout : float, default=0.05
        Share of the tokens that training replaces by the unknown token [3]_. It teaches the network to do without
        single words, and trains the embedding of unknown words.

    learning_rate : float, default=None
        Learning rate of this branch; None is that of the network.

    n_frozen_epochs : int, default=0
        Number of first epochs in which the weights of this branch are frozen.

    augment : callable, default=None
        Called in training with the tuple of a batch's tensors, here one of token numbers (n, n_tokens), and a torch
        generator; returns such a tuple.

    Attributes
    ----------
    vocabulary_ : dict of str to int
        Number of each token, from 2 on in order of falling frequency; 0 is padding, 1 the unknown token.

    n_features_in_ : int
        1, the column of texts.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    Raises
    ------
    ValueError
        By ``fit`` if no token is frequent enough or ``n_heads`` does not divide ``n_embedding``; by ``fit`` and
        ``prepare`` if an item is no string.

    See Also
    --------
    skmm.encoders.TextEncoder : Pretrained models of texts.

    Notes
    -----
    ``prepare`` returns one array of token numbers of shape (n_samples, n_tokens), padded with 0. A text's vector does
    not depend on the padding. A text without any token counts as one unknown token.

    References
    ----------
    .. [1] Hochreiter, S. and Schmidhuber, J. (1997). "Long Short-Term Memory." Neural Computation 9(8), 1735-1780.
    .. [2] Vaswani, A. et al. (2017). "Attention Is All You Need." Advances in Neural Information Processing Systems
       30, 5998-6008.
    .. [3] Iyyer, M. et al. (2015). "Deep Unordered Composition Rivals Syntactic Methods for Text Classification."
       Proceedings of ACL, 1681-1691.

    Examples
    --------
    >>> from skmm.neural_network import TextBranch
    >>> branch = TextBranch().fit(["a red dress", "a blue dress, long"])
    >>> branch.vocabulary_
    {'a': 2, 'dress': 3, ',': 4, 'blue': 5, 'long': 6, 'red': 7}
    >>> branch.prepare(["A green dress", "red"])
    (array([[2, 1, 3],
           [7, 0, 0]]),)
    """

    _parameter_constraints: dict = {
        **Branch._parameter_constraints,
        "architecture": [StrOptions({"lstm", "transformer"})],
        "analyzer": [StrOptions({"word", "char"}), callable],
        "lowercase": ["boolean"],
        "max_features": [Interval(Integral, 1, None, closed="left")],
        "min_df": [Interval(Integral, 1, None, closed="left")],
        "max_length": [Interval(Integral, 1, None, closed="left")],
        "n_embedding": [Interval(Integral, 1, None, closed="left")],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "pooling": [StrOptions({"max", "mean"})],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "token_dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        architecture: str = "lstm",
        *,
        analyzer: str | Callable = "word",
        lowercase: bool = True,
        max_features: int = 20000,
        min_df: int = 1,
        max_length: int = 128,
        n_embedding: int = 64,
        n_hidden: int = 64,
        n_layers: int = 1,
        n_heads: int = 4,
        pooling: str = "max",
        dropout: float = 0.1,
        token_dropout: float = 0.05,
        learning_rate: float | None = None,
        n_frozen_epochs: int = 0,
        augment: Callable | None = None,
    ):
        self.architecture = architecture
        self.analyzer = analyzer
        self.lowercase = lowercase
        self.max_features = max_features
        self.min_df = min_df
        self.max_length = max_length
        self.n_embedding = n_embedding
        self.n_hidden = n_hidden
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.pooling = pooling
        self.dropout = dropout
        self.token_dropout = token_dropout
        self.learning_rate = learning_rate
        self.n_frozen_epochs = n_frozen_epochs
        self.augment = augment

    def _make_module(self):
        from ._modules import TextModule

        return TextModule(len(self.vocabulary_) + 2, self)

    def _learn(self, X):
        if self.architecture == "transformer" and self.n_embedding % self.n_heads:
            raise ValueError(
                f"TextBranch: n_heads must divide n_embedding, got n_heads={self.n_heads} and "
                f"n_embedding={self.n_embedding}; change one of them."
            )
        counts, n_texts = Counter(), Counter()
        for tokens in self._read(self._items(X), self._split):
            counts.update(tokens)
            n_texts.update(set(tokens))
        # Ties in alphabetical order, so that the order of the rows does not matter.
        tokens = sorted((token for token in counts if n_texts[token] >= self.min_df), key=lambda t: (-counts[t], t))
        if not tokens:
            reason = (
                f"none of the {len(counts)} tokens occurs in {self.min_df} texts" if counts else "no text has a token"
            )
            raise ValueError(f"TextBranch: the vocabulary is empty, {reason}; lower min_df, or check the column.")
        self.vocabulary_ = {token: number for number, token in enumerate(tokens[: self.max_features], start=2)}

    def _prepare(self, X):
        rows = [
            [self.vocabulary_.get(token, UNKNOWN) for token in tokens[: self.max_length]] or [UNKNOWN]
            for tokens in self._read(self._items(X), self._split)
        ]
        numbers = np.full((len(rows), max(map(len, rows))), PADDING, dtype=np.int64)
        for row, tokens in enumerate(rows):
            numbers[row, : len(tokens)] = tokens
        return (numbers,)

    def _split(self, text):
        """Return the tokens of a text."""
        if not isinstance(text, str):
            raise RejectedItem(f"a text is a string, got an object of type {type(text).__name__}")
        if callable(self.analyzer):
            return list(self.analyzer(text))
        text = text.lower() if self.lowercase else text
        return list(text) if self.analyzer == "char" else _WORDS.findall(text)
