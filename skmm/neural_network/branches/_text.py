"""Texts: words or characters with embeddings, an LSTM or a Transformer from scratch, or a pretrained model."""

import os
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real

import numpy as np

from ..._sklearn import Interval, StrOptions
from ..._typing import PathType
from ...encoders import TextEncoder
from ...exceptions import RejectedItem
from ._base import PADDING, UNKNOWN
from ._pretrained import PretrainedBranch

_DEFAULT_LENGTH = 128

# Words, and every other character that is no space.
_WORDS = re.compile(r"\w+|[^\w\s]")


class TextBranch(PretrainedBranch):
    r"""Read texts with an LSTM, a Transformer or a pretrained language model that is trained with the network.

    By default texts are cut into words or characters. The vocabulary is learned in ``fit``, each token has an
    embedding, and the hidden states of a text's tokens are pooled to one vector. With ``model`` a pretrained language
    model is fine-tuned instead. For a pretrained model without fine-tuning use :class:`~skmm.encoders.TextEncoder` as
    the modality's transformer, which is much faster.

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

    max_length : int, default=None
        Maximum number of tokens per text; the rest is cut off. None is 128, or the limit of ``model``.

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
        Share of the embeddings and states, or of the values after ``model``, that are set to 0 in training.

    token_dropout : float, default=0.05
        Share of the tokens that training replaces by the unknown token [3]_. It teaches the network to do without
        single words, and trains the embedding of unknown words.

    model : str or path-like, default=None
        A checkpoint of sentence-transformers or transformers by its name on the Hugging Face hub, or its local folder,
        as :class:`~skmm.encoders.TextEncoder` takes it. Its tokenizer and pooling take the place of all parameters
        above but ``max_length``, ``dropout`` and, with ``augment=True``, ``token_dropout``. None trains a small network
        from scratch.

    prompt : str, default=None
        For ``model``, and only there: name of a prompt that it declares, else the text to put before each text.

    learning_rate : float, default=None
        Learning rate of this branch. None is 1e-4 for ``model``, 1e-3 for its adapters, else the rate of the network.

    layer_decay : float, default=1.0
        Learning rate of a layer of ``model`` as a share of that of the layer after it: below 1, the first layers, which
        are the most general, change least [4]_.

    n_frozen_epochs : int, default=0
        Number of first epochs in which the weights of this branch are frozen, so that the random layers after a
        pretrained ``model`` do not spoil it.

    gradual_unfreezing : bool, default=False
        Whether after these epochs only the last layer of ``model`` is trained, and in each further epoch one more
        [4]_.

    freeze : bool, default=False
        Whether ``model`` is not trained at all. For frozen features, an encoder as the modality's transformer is much
        faster, since it computes them once.

    adapter : {"lora"}, default=None
        "lora" trains low-rank matrices beside the linear layers of ``model`` in place of its weights [5]_. Needs
        ``pip install "skmm[finetune]"``.

    rank : int, default=8
        Rank of these matrices.

    gradient_checkpointing : bool, default=False
        Whether layers of ``model`` run once more in the backward pass, instead of keeping their inner states: memory
        for longer items and larger batches, at about a third more time.

    compile : bool, default=False
        Whether to run ``model`` through ``torch.compile``. The first batches wait for the compiler, up to minutes, so
        that it can only pay for long training; on a CPU it needs a C++ compiler. Predictions are the same within
        rounding.

    revision : str, default=None
        Branch, tag or commit of a ``model`` on the hub; None is its main branch.

    augment : bool or callable, default=None
        True, for ``model`` alone, replaces a share ``token_dropout`` of the tokens in training by the token that stands
        for a masked or unknown one. A callable is called in training with the tuple of a batch's tensors and a torch
        generator; it returns such a tuple. The tensors are one of token numbers (n, n_tokens), or with ``model`` the
        mask of tokens (n, n_tokens), their numbers, and their types if it has any.

    Attributes
    ----------
    vocabulary_ : dict of str to int
        Number of each token, from 2 on in order of falling frequency; 0 is padding, 1 the unknown token. Not with
        ``model``.

    n_features_in_ : int
        1, the column of texts.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    Raises
    ------
    OSError
        By ``fit`` if ``model`` cannot be loaded; it names the model and the ways to provide it.

    ValueError
        By ``fit`` if no token is frequent enough, ``n_heads`` does not divide ``n_embedding``, or ``model`` does not
        read tokens; by ``fit`` and ``prepare`` if an item is no string.

    See Also
    --------
    skmm.encoders.TextEncoder : Pretrained models of texts.

    Notes
    -----
    ``prepare`` returns one array of token numbers of shape (n_samples, n_tokens), padded with 0. A text's vector does
    not depend on the padding. A text without any token counts as one unknown token.

    ``model`` runs as in its evaluation, without dropout inside: it starts from the vectors of
    :class:`~skmm.encoders.TextEncoder`. Batches are cut to the longest of their texts. A pickled network holds the
    weights, but not the architecture and the tokenizer: to load it, the model must be available as for ``fit``.

    References
    ----------
    .. [1] Hochreiter, S. and Schmidhuber, J. (1997). "Long Short-Term Memory." Neural Computation 9(8), 1735-1780.
    .. [2] Vaswani, A. et al. (2017). "Attention Is All You Need." Advances in Neural Information Processing Systems
       30, 5998-6008.
    .. [3] Iyyer, M. et al. (2015). "Deep Unordered Composition Rivals Syntactic Methods for Text Classification."
       Proceedings of ACL, 1681-1691.
    .. [4] Howard, J. and Ruder, S. (2018). "Universal Language Model Fine-tuning for Text Classification." ACL,
       328-339.
    .. [5] Hu, E. et al. (2022). "LoRA: Low-Rank Adaptation of Large Language Models." ICLR.

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
        **PretrainedBranch._parameter_constraints,
        "model": [str, os.PathLike, None],
        "augment": [callable, "boolean", None],
        "prompt": [str, None],
        "architecture": [StrOptions({"lstm", "transformer"})],
        "analyzer": [StrOptions({"word", "char"}), callable],
        "lowercase": ["boolean"],
        "max_features": [Interval(Integral, 1, None, closed="left")],
        "min_df": [Interval(Integral, 1, None, closed="left")],
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
        "n_embedding": [Interval(Integral, 1, None, closed="left")],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "pooling": [StrOptions({"max", "mean"})],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "token_dropout": [Interval(Real, 0, 1, closed="left")],
    }

    _of_model: dict = {**PretrainedBranch._of_model, "prompt": None}

    def __init__(
        self,
        architecture: str = "lstm",
        *,
        analyzer: str | Callable = "word",
        lowercase: bool = True,
        max_features: int = 20000,
        min_df: int = 1,
        max_length: int | None = None,
        n_embedding: int = 64,
        n_hidden: int = 64,
        n_layers: int = 1,
        n_heads: int = 4,
        pooling: str = "max",
        dropout: float = 0.1,
        token_dropout: float = 0.05,
        model: PathType | None = None,
        prompt: str | None = None,
        learning_rate: float | None = None,
        layer_decay: float = 1.0,
        n_frozen_epochs: int = 0,
        gradual_unfreezing: bool = False,
        freeze: bool = False,
        adapter: str | None = None,
        rank: int = 8,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        revision: str | None = None,
        augment: bool | Callable | None = None,
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
        self.model = model
        self.prompt = prompt
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.n_frozen_epochs = n_frozen_epochs
        self.gradual_unfreezing = gradual_unfreezing
        self.freeze = freeze
        self.adapter = adapter
        self.rank = rank
        self.gradient_checkpointing = gradient_checkpointing
        self.compile = compile
        self.revision = revision
        self.augment = augment

    def _encoder(self):
        options = {"prompt": self.prompt, "max_length": self.max_length, "revision": self.revision}
        return TextEncoder(self.model, **options, device="cpu", precision="float32", store=None)

    def _change(self):
        from ._augment import drop_tokens

        tokenizer = self._start()[1].model.tokenizer
        number = next((n for n in (tokenizer.mask_token_id, tokenizer.unk_token_id) if n is not None), None)
        if number is None:
            raise ValueError(
                f"TextBranch: augment=True needs a token for what is masked or unknown, and the tokenizer of "
                f"{os.fspath(self.model)!r} has none; pass a callable, or None."
            )
        return partial(drop_tokens, share=self.token_dropout, number=number, special=tokenizer.all_special_ids)

    def _pack(self, prepared, run):
        model = run.model
        widths = model.tokenize(prepared, model.prompt_text(self.prompt), self.max_length)
        columns = model.pad(prepared, max(widths))
        # Memory holds the tokens of all rows.
        return tuple(columns[name].astype(np.int32) for name in sorted(columns))

    def _reader(self, prepared, model):
        from ._modules import TextReader

        return TextReader(sorted(prepared[0].tokens), prepared[0].settings, model.tokenizer.padding_side)

    def _make_module(self):
        from ._modules import TextModule

        if self.model is not None:
            return super()._make_module()
        return TextModule(len(self.vocabulary_) + 2, self.max_length or _DEFAULT_LENGTH, self)

    def _learn(self, X):
        self._check_options()
        if self.model is None and self.augment is True:
            raise ValueError(
                "TextBranch: augment=True is for a pretrained model, the small network always has token_dropout; leave "
                "augment=None."
            )
        if self.model is not None:
            super()._learn(X)
            if not self._start()[1].model.takes_tokens:
                raise ValueError(
                    f"TextBranch: the model {os.fspath(self.model)!r} does not read tokens, and cannot be trained; use "
                    "TextEncoder as the transformer of the modality."
                )
            return
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
        if self.model is not None:
            return super()._prepare(X)
        rows = [
            [self.vocabulary_.get(token, UNKNOWN) for token in tokens[: self.max_length or _DEFAULT_LENGTH]]
            or [UNKNOWN]
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
