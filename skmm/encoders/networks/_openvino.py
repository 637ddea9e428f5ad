"""Networks of torch that OpenVINO runs on a CPU."""

import copy
import sys
import warnings

import numpy as np

from ..._optional import import_optional_dependency
from ..._torch import available_cpus, note_run
from ...exceptions import first_line
from ._sentence import Text
from ._timm import ImageModel

# Largest distance of rows to those of torch in float32, as a share of the largest value.
_TOLERANCES = {"float32": 1e-3, "int8": 0.2}

# Neighbouring inputs of a linear layer that share a scale with "int8".
_GROUP_SIZE = 128


def import_openvino():
    """Import OpenVINO, which does not report that to its makers."""
    # Without this package it has nothing to report with; it would do so already when it is imported.
    sys.modules.setdefault("openvino_telemetry", None)
    return import_optional_dependency("openvino", "openvino")


class _CompiledNetwork:
    """A function of tensors that OpenVINO runs.

    Parameters
    ----------
    function : callable
        Maps tensors to a tensor. Their first two axes, and others, may have other sizes than in the example.

    example : tuple of Tensor
        Inputs to trace the function with.

    precision : {"float32", "int8"}
        Precision of linear layers.

    n_streams : int
        Number of threads that call it at a time.
    """

    def __init__(self, function, example, precision, n_streams):
        import torch

        openvino = import_openvino()
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        with warnings.catch_warnings(), torch.no_grad():
            # A network that another input takes through other code shows when its rows are compared.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(function, example, check_trace=False)
        # It holds the weights.
        self._decoder = TorchScriptPythonDecoder(traced)
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        self._n_threads = available_cpus()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self._n_threads,
            "NUM_STREAMS": n_streams,
        }
        converted = frontend.convert(frontend.load(self._decoder))
        if precision == "int8":
            _quantize_weights(converted)
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(_GROUP_SIZE)
        self._compiled = openvino.Core().compile_model(converted, "CPU", settings)

    def __call__(self, *tensors):
        import torch

        note_run(self._n_threads)
        # Threads cannot share a request, which takes no time to create.
        request = self._compiled.create_infer_request()
        return torch.from_numpy(request.infer([np.ascontiguousarray(x.numpy()) for x in tensors])[0])


def _quantize_weights(converted):
    """Round the weights of linear layers to 8 bits, with a scale for each output; inputs are rounded as they come."""
    from openvino import opset13 as opset

    n_layers = 0
    for operation in converted.get_ordered_ops():
        weights = operation.input_value(1).get_node() if operation.get_type_name() == "MatMul" else None
        if weights is None or weights.get_type_name() != "Constant" or len(weights.shape) != 2:
            continue
        values = weights.data
        axis = 1 if operation.get_attributes()["transpose_b"] else 0
        scales = np.maximum(np.abs(values).max(axis=axis, keepdims=True), np.finfo(np.float32).tiny) / 127
        rounded = opset.convert(opset.constant(np.rint(values / scales).astype(np.int8)), "f32")
        operation.input(1).replace_source_output(opset.multiply(rounded, opset.constant(scales)).output(0))
        n_layers += 1
    if n_layers == 0:
        raise ValueError("it has no linear layers to quantize")


def openvino_model(model, precision, n_streams):
    """Return a copy of a model whose network runs in OpenVINO.

    Parameters
    ----------
    model : ImageModel or SentenceModel
        The model, on a CPU in float32.

    precision : {"float32", "int8"}
        Precision of linear layers; all else is in float32.

    n_streams : int
        Number of threads that run it at a time; they share the processor.

    Raises
    ------
    ImportError
        If OpenVINO is not installed.

    ValueError
        If the network cannot be converted.
    """
    import torch

    twin = copy.copy(model)
    try:
        if isinstance(model, ImageModel) and isinstance(model.recipe, dict):
            shape = model.recipe["input_size"]
            twin.forward = _CompiledNetwork(model.network, (torch.zeros(2, *shape),), precision, n_streams)
            probe = list(torch.randint(256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
        elif getattr(model, "takes_tokens", False):
            probe, twin.forward = _compile_sentences(model, precision, n_streams)
        else:
            raise ValueError("it is neither a network of timm nor one of texts that reads tokens")
        with torch.inference_mode():
            rows, expected = twin.embed(probe), model.embed(probe)
        if not torch.allclose(rows, expected, rtol=0, atol=_TOLERANCES[precision] * expected.abs().max()):
            raise ValueError("its rows are others there")
    except ImportError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(
            f"the network cannot run in OpenVINO ({reason}); leave backend at 'torch', or choose another model."
        ) from error
    return twin


def _compile_sentences(model, precision, n_streams):
    """Return features to compare rows by, and a function from features to rows; the pooling stays in torch."""
    import torch

    transformer, *others = model.network
    texts = [Text("a text")]
    model.tokenize(texts, None)
    features = model.features(texts, None)
    names = sorted(name for name, values in features.items() if isinstance(values, torch.Tensor))

    def token_embeddings(*columns):
        return transformer(dict(zip(names, columns, strict=True)))["token_embeddings"]

    compiled = _CompiledNetwork(token_embeddings, tuple(features[name] for name in names), precision, n_streams)

    def forward(features):
        features = {**features, "token_embeddings": compiled(*(features[name] for name in names))}
        for module in others:
            features = module(features)
        return features["sentence_embedding"]

    # Three texts, and another width.
    return features | {name: features[name][:, :-1].repeat(3, 1) for name in names}, forward
