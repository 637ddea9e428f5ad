"""The networks that encode sound: how windows are made for them, loading, and pooling over frames."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np

from ..._torch import place, place_of
from ._processors import call_preprocess
from ._source import load_from_hub, without_progress_bar

# Shortest input of any network: one frame of a usual spectrogram.
SHORTEST_SECONDS = 0.025

# Windows for networks that mask padding are padded to a multiple of this, in seconds.
_PADDING_STEP = 0.5

_ARGUMENTS = ("input_values", "input_features", "attention_mask", "is_longer")


@dataclass(eq=False, slots=True)
class Window:
    """A stretch of sound as the input of a network."""

    # Arguments of the network, without the axis of the batch.
    inputs: dict
    # Samples of sound in it, and samples up to which it was filled.
    n_times: int
    n_padded: int

    @property
    def nbytes(self):
        """Bytes of the input."""
        return sum(value.nbytes for value in self.inputs.values())

    @property
    def shape(self):
        """Lengths that all windows of a batch share; those of large inputs sort last."""
        return self.n_padded, *((name, tuple(value.shape)) for name, value in self.inputs.items())


@dataclass
class Recipe:
    """How a waveform becomes the input of a network."""

    # Sampling rate of the network in Hz.
    rate: float
    # Samples that the network needs at least.
    shortest: int
    # Samples up to which its feature extractor fills every window, and beyond which it would cut something off.
    longest: int | None = None
    # Multiple to which windows are padded, with a mask; None where padding would change the network's output.
    step: int | None = None
    # Configuration of a feature extractor of transformers, in JSON.
    extractor: str | None = None
    # Function of the user that turns waveforms into tensors.
    preprocess: Callable | None = None

    def window_of(self, waveform):
        """Return the window of a waveform that is not longer than ``longest``."""
        if len(waveform) < self.shortest:
            waveform = np.pad(waveform, (0, self.shortest - len(waveform)))
        n_times = len(waveform)
        if self.extractor is None:
            import torch

            # A copy: users' functions may write to it.
            inputs = np.array(waveform)
            if self.preprocess is not None:
                inputs = call_preprocess(self.preprocess, inputs)
            if isinstance(inputs, np.ndarray):
                inputs = torch.from_numpy(np.ascontiguousarray(inputs))
            if not isinstance(inputs, torch.Tensor):
                raise ValueError(
                    f"AudioEncoder: preprocess must return a tensor or an array, got {type(inputs).__name__}; convert "
                    "its result, for example with torch.tensor."
                )
            return Window({"": inputs}, n_times, n_times)
        n_padded = n_times if self.longest is None else self.longest
        inputs = _extract(self.extractor, waveform, self.rate)
        if self.step is not None:
            n_padded = ceil(n_times / self.step) * self.step
            behind = (0, n_padded - n_times)
            mask = np.pad(np.ones(n_times, dtype=np.int64), behind)
            inputs = {"input_values": np.pad(inputs["input_values"], behind), "attention_mask": mask}
        return Window(inputs, n_times, n_padded)


@functools.lru_cache(maxsize=16)
def _feature_extractor(config):
    """Return a feature extractor of transformers, by its configuration."""
    import transformers

    config = json.loads(config)
    return getattr(transformers, config["feature_extractor_type"]).from_dict(config)


def _extract(config, waveform, rate):
    """Return the network's arguments for one waveform, from its feature extractor, without the axis of the batch."""
    features = _feature_extractor(config)(waveform, sampling_rate=rate, return_tensors="np")
    inputs = {name: np.asarray(features[name])[0] for name in _ARGUMENTS if name in features}
    return {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in inputs.items()}


class AudioModel:
    """A network that takes windows of sound, a module in memory or an encoder of transformers, and its recipe."""

    def __init__(self, network, recipe):
        self.network = network
        # Of CLAP only the audio half runs.
        self.compiles = getattr(network, "audio_model", network)
        self.recipe = recipe
        self.device, self.dtype = place_of(next(network.parameters(), None))

    def embed(self, batch, pooling):
        """Return a tensor with one row per window of one shape."""
        import torch

        inputs = {}
        for name in batch[0].inputs:
            stacked = torch.stack([torch.as_tensor(window.inputs[name]) for window in batch])
            inputs[name] = place(stacked, self.device, self.dtype)
        rows = self._run(inputs)
        if not isinstance(rows, torch.Tensor) or rows.ndim not in (2, 3):
            got = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
            shape = tuple(next(iter(inputs.values())).shape)
            raise ValueError(
                f"AudioEncoder: the module must map {shape} to a tensor (n, n_features) or (n, n_frames, n_features), "
                f"got {got}."
            )
        return rows if rows.ndim == 2 else self._pool(rows, batch, pooling)

    def _run(self, inputs):
        """Return the network's own vector of each window, or its frames."""
        if "" in inputs:
            return self.network(inputs[""])
        if hasattr(self.network, "get_audio_features"):
            output = self.network.get_audio_features(**inputs)
            # Up to version 4 of transformers this is the vector itself.
            return getattr(output, "pooler_output", output)
        output = self.network(**inputs)
        pooled = getattr(output, "pooler_output", None)
        if pooled is None and not hasattr(output, "last_hidden_state"):
            raise ValueError(
                f"AudioEncoder: a {type(self.network).__name__} returns no hidden states to pool; pass the network "
                "that encodes sound as a module in memory."
            )
        return output.last_hidden_state if pooled is None else pooled

    def _pool(self, frames, batch, pooling):
        import torch

        if pooling == "first":
            return frames[:, 0]
        n_frames = frames.shape[1]
        heard = [self._n_frames_heard(window, n_frames) for window in batch]
        is_heard = torch.arange(n_frames, device=frames.device) < torch.tensor(heard, device=frames.device)[:, None]
        is_heard = is_heard[:, :, None]
        if pooling == "max":
            return frames.masked_fill(~is_heard, float("-inf")).amax(dim=1)
        # In float32: a sum over thousands of frames loses digits in half precision.
        return frames.float().masked_fill(~is_heard, 0).sum(dim=1) / is_heard.sum(dim=1)

    def _n_frames_heard(self, window, n_frames):
        """Return how many of the network's frames hold sound, and not padding alone."""
        if window.n_times == window.n_padded:
            mask = window.inputs.get("attention_mask")
            # Some feature extractors pad their frames, and say so.
            return int(mask.sum()) if mask is not None and mask.shape == (n_frames,) else n_frames
        if self.recipe.step is not None:
            return _n_conv_frames(self.network.config, window.n_times)
        return max(1, ceil(n_frames * window.n_times / window.n_padded))


def _n_conv_frames(config, n_times):
    """Return how many frames the convolutions of a network such as wav2vec 2.0 make of a waveform."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        n_times = (n_times - kernel) // stride + 1
    return n_times


def load_audio_model(source, device, dtype):
    """Load an audio network of transformers, and its feature extractor."""
    from transformers import AutoFeatureExtractor, AutoModel

    def load(local_files_only):
        options = {
            "revision": source.revision or "main",
            "local_files_only": local_files_only,
            "trust_remote_code": False,
        }
        extractor = AutoFeatureExtractor.from_pretrained(source.location, **options)
        if not hasattr(extractor, "sampling_rate"):
            raise ValueError(f"its feature extractor is a {type(extractor).__name__}, which does not take sound")
        return extractor, AutoModel.from_pretrained(source.location, dtype=dtype, use_safetensors=True, **options)

    with without_progress_bar():
        if source.is_local:
            extractor, network = load(local_files_only=True)
        else:
            extractor, network = load_from_hub(source, load, "config.json")
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    network = network.to(device).eval().requires_grad_(False)
    return AudioModel(network, _recipe_for(extractor, network.config))


def save_audio_model(model, folder):
    """Write an audio network of transformers, and its feature extractor, as a checkpoint into a folder."""
    if model.recipe.extractor is None:
        raise ValueError(
            f"AudioEncoder: a {type(model.network).__name__} in memory has no checkpoint format; save the module of "
            "encoder_ itself, with safetensors or torch.save."
        )
    if model.network.config.is_encoder_decoder:
        raise ValueError(
            f"AudioEncoder: a {type(model.network).__name__} is half of a network, and has no checkpoint of its own."
        )
    model.network.save_pretrained(folder)
    _feature_extractor(model.recipe.extractor).save_pretrained(folder)


def _recipe_for(extractor, config):
    """Return how windows are made for a network, by its feature extractor and configuration."""
    rate, kind = extractor.sampling_rate, type(extractor).__name__
    shortest, longest, step = ceil(SHORTEST_SECONDS * rate), None, None
    if kind == "WhisperFeatureExtractor":
        longest = extractor.n_samples
    elif kind == "ClapFeatureExtractor":
        longest = extractor.nb_max_samples
    elif kind == "ASTFeatureExtractor":
        # Frames of 25 ms, one every 10 ms, none beyond the end.
        longest = (extractor.max_length - 1) * rate // 100 + rate // 40
    elif hasattr(config, "conv_kernel") and hasattr(config, "conv_stride"):
        field = 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            field = (field - 1) * stride + kernel
        shortest = max(shortest, field)
        # Group normalisation runs over time, so that padding would change all frames; an adapter makes fewer frames.
        if (
            getattr(extractor, "return_attention_mask", False)
            and getattr(config, "feat_extract_norm", None) == "layer"
            and not getattr(config, "add_adapter", False)
        ):
            step = max(1, int(_PADDING_STEP * rate))
    extractor = extractor.to_json_string()
    # Where it cannot be recreated, the error then names the model.
    _feature_extractor(extractor)
    return Recipe(rate, shortest, longest, step, extractor)
