"""The networks of sentence-transformers, which encode texts, images or both: loading and feeding them."""

import dataclasses
import functools
import json
import os
import threading

import numpy as np
from PIL import Image

from ..._torch import place
from ._processors import PIXELS, recipe_for
from ._source import load_from_hub, without_progress_bar

# Texts per call of the tokenizer: bounds its lists of Python integers, and is enough for its threads.
_TOKENIZE_ROWS = 512

# Texts are padded to a multiple of so many tokens, and to no fewer than twice as many. With 8, short texts took a fifth
# longer on CPUs (`benchmarks/padding.py`); with 1, GPUs would run many small batches.
_WIDTH_STEP = 4

# Characters of a long text that are tried first, and looked at in the end, for each token that the network reads.
_FIRST_CHARACTERS = 40
_MOST_CHARACTERS = 1000

_TOKEN_COLUMNS = {"input_ids", "attention_mask", "token_type_ids"}


@dataclasses.dataclass(slots=True, eq=False)
class Text:
    """A text on its way through the encoder.

    Parameters
    ----------
    text : str
        The text.

    tokens : dict of str to ndarray or None
        Columns of integers, filled in by :meth:`SentenceModel.tokenize`.

    settings : dict or None
        What holds for the whole call of the tokenizer.
    """

    text: str
    tokens: dict | None = None
    settings: dict | None = None


class SentenceModel:
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
        self.network = self.compiles = network
        self.device = network.device
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

    def _tokens(self, texts, prompt, max_length=None):
        options = {"text": {"padding": False}, "common": {"return_tensors": None}}
        if max_length is not None:
            limit = self.network.max_seq_length
            options["text"] |= {"truncation": True, "max_length": min(max_length, limit or max_length)}
        with self.lock:
            return dict(self.network.preprocess(texts, prompt=prompt, processing_kwargs=options))

    def prompt_text(self, prompt):
        """Return what stands before each text: the prompt of that name, else the text itself; the default for None."""
        if prompt is None:
            prompt = self.network.default_prompt_name
        return self.network.prompts.get(prompt, prompt)

    def tokens_added(self, prompt):
        """Return the number of tokens that stand beside those of a text: special ones, and those of the prompt."""
        return len(self._tokens([""], prompt)["input_ids"][0])

    def _head(self, text, prompt, max_length):
        """Return the beginning of a long text that has all the tokens that count; tokenizers work through all of it."""
        limits = [limit for limit in (self.network.max_seq_length, max_length) if limit is not None]
        if not limits:
            return text
        n_characters, most = (n * min(limits) for n in (_FIRST_CHARACTERS, _MOST_CHARACTERS))
        while 2 * n_characters < min(len(text), most):
            tokens = self._tokens([text[:n_characters]], prompt, max_length)["input_ids"][0]
            if len(tokens) >= min(limits):
                # Twice as many, since the cut may change the tokens next to it.
                return text[: 2 * n_characters]
            n_characters *= 4
        return text[:most]

    def tokenize(self, items, prompt, max_length=None):
        """Fill in the tokens of texts, truncated to what the network reads, not padded; return the padded widths."""
        for start in range(0, len(items), _TOKENIZE_ROWS):
            chunk = items[start : start + _TOKENIZE_ROWS]
            features = self._tokens([self._head(item.text, prompt, max_length) for item in chunk], prompt, max_length)
            columns = {name: features.pop(name) for name in _TOKEN_COLUMNS & features.keys()}
            for row, item in enumerate(chunk):
                item.tokens = {name: np.array(values[row], dtype=np.int32) for name, values in columns.items()}
                item.tokens.setdefault("attention_mask", np.ones_like(item.tokens["input_ids"]))
                item.settings = features
        return [self.padded_width(item) for item in items]

    def padded_width(self, item):
        """Return the width a text is padded to: a function of this text alone, so a row depends on no other."""
        n_tokens = len(item.tokens["input_ids"])
        width = max(2, -(-n_tokens // _WIDTH_STEP)) * _WIDTH_STEP
        # Beyond its limit the network may have no position embeddings.
        limit = self.network.max_seq_length
        return width if limit is None else max(n_tokens, min(width, limit))

    def features(self, batch, prompt):
        """Return the input of the network for texts of one padded width."""
        import torch

        if not self.takes_tokens:
            with self.lock:
                return self.network.preprocess([item.text for item in batch], prompt=prompt)
        columns = self.pad(batch, self.padded_width(batch[0]))
        return {**batch[0].settings, **{name: torch.from_numpy(values) for name, values in columns.items()}}

    def pad(self, items, width):
        """Return the tokens of texts as arrays of shape (len(items), width), by name."""
        fill = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        is_left = self.tokenizer.padding_side == "left"
        columns = {}
        for name in items[0].tokens:
            columns[name] = np.full((len(items), width), fill.get(name, 0), dtype=np.int64)
            for row, item in zip(columns[name], items, strict=True):
                n_tokens = len(item.tokens[name])
                row[width - n_tokens if is_left else 0 :][:n_tokens] = item.tokens[name]
        return columns

    @functools.cached_property
    def image_recipe(self):
        """How pictures are prepared one by one, with no lock; None where only the network as a whole can do it."""
        processor = getattr(self.network[0], "processor", None)
        # Of texts and images, or of images alone.
        processor = getattr(processor, "image_processor", processor)
        return recipe_for(processor, lambda image: self._preprocess([image]))

    @functools.cached_property
    def _image_settings(self):
        """What stands beside the pixels in the input of the network, and is the same for all pictures."""
        features = self._preprocess([Image.new("RGB", (8, 8))])
        return {name: value for name, value in features.items() if name != PIXELS}

    def _preprocess(self, images):
        with self.lock:
            return self.network.preprocess(images)

    def image_features(self, images):
        """Return the input of the network for images that its recipe has prepared; without one, for PIL images."""
        import torch

        if self.image_recipe is None:
            return self._preprocess(images)
        return {**self._image_settings, PIXELS: torch.stack(images)}

    def forward(self, features):
        """Run the network on features that are on its device."""
        return self.network(features)["sentence_embedding"]

    def embed(self, features):
        """Run the network; give a tensor with one row per item."""
        import torch

        weights = next(self.network.parameters(), None)
        dtype = None if weights is None else weights.dtype
        features = {
            name: place(x, self.device, dtype) if isinstance(x, torch.Tensor) else x for name, x in features.items()
        }
        return self.forward(features)[:, : self.network.truncate_dim]


def load_sentence_transformer(source, device, dtype):
    """Load a network of sentence-transformers, in eval mode, on a device and in a dtype."""
    from sentence_transformers import SentenceTransformer

    def load(local_files_only):
        return SentenceTransformer(
            source.location,
            device=str(device),
            revision=source.revision,
            local_files_only=local_files_only,
            trust_remote_code=False,
            model_kwargs={"dtype": dtype, "use_safetensors": True},
        )

    with without_progress_bar():
        if source.is_local:
            _refuse_foreign_classes(source.folder)
            network = load(local_files_only=True)
        else:
            # Without this file a model could load with another pooling than its own.
            network = load_from_hub(source, load, "modules.json")
    tokenizer = getattr(network[0], "tokenizer", None)
    if getattr(tokenizer, "eos_token", None) is not None and tokenizer.pad_token is None:
        # Generative models are made without padding; it is masked, whatever it is.
        tokenizer.pad_token = tokenizer.eos_token
    weights = next(network.parameters(), None)
    if weights is not None and weights.dtype != dtype:
        # Networks without a transformer take no dtype when they load.
        network.to(dtype)
    return SentenceModel(network.eval().requires_grad_(False))


def _refuse_foreign_classes(folder):
    """Raise if a checkpoint names modules that sentence-transformers lacks: up to version 5 it ran their code."""
    for name in _module_classes(folder, "modules.json"):
        if not name.startswith("sentence_transformers."):
            raise ValueError(f"its module {name!r} is not one of sentence-transformers, and foreign code never runs")


def _module_classes(folder, file, inside=""):
    """Yield the classes that a checkpoint names for its modules, and for those within routers."""
    try:
        with open(os.path.join(folder, inside, file), encoding="utf-8") as stream:
            content = json.load(stream)
    except FileNotFoundError:
        return
    if isinstance(content, list):
        modules = [(module["path"], module["type"]) for module in content]
    else:
        modules = content.get("types", {}).items()
    for path, name in modules:
        yield name
        for inner in ("router_config.json", "config.json"):
            yield from _module_classes(folder, inner, os.path.join(inside, path))


def sentence_hub_place(name):
    """Return the names that a model of sentence-transformers may have on the hub, and the folder of its cache."""
    names = (name,) if "/" in name else (name, f"sentence-transformers/{name}")
    return names, os.environ.get("SENTENCE_TRANSFORMERS_HOME")


def stored_prompt(folder, prompt):
    """Return what ``SentenceModel.prompt_text`` gives, from the files of the model."""
    try:
        with open(os.path.join(folder, "config_sentence_transformers.json"), encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError):
        config = {}
    if prompt is None:
        prompt = config.get("default_prompt_name")
    return (config.get("prompts") or {}).get(prompt, prompt)
