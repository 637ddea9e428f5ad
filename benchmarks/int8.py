"""Is int8 faster than float32 on this CPU, and how far off are its rows?

    pip install nncf onnx onnxruntime onnxscript openvino
    python benchmarks/int8.py

The default networks of ``TextEncoder`` and ``ImageEncoder`` in torch, ONNX Runtime and OpenVINO, in float32 and int8,
on ready batches as the encoders make them: 1,500 tokens of texts of one padded width, 8 images. torch quantises linear
layers dynamically, of which the image network has none. ONNX Runtime quantises texts dynamically and images with scales
from calibration, OpenVINO both with scales. Everything runs on one thread, and what counts is its processor time, which
other work disturbs least: medians of interleaved runs. Cosines are those to torch's float32 rows, median and 1 %
quantile, of items like those that calibrated.
"""

import argparse
import copy
import inspect
import logging
import pydoc
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images

from skmm import ImageEncoder, TextEncoder
from skmm.encoders._run import EncodingRun

MODULES = (
    *("argparse", "asyncio", "collections", "csv", "decimal", "email.message", "fractions", "http.client", "inspect"),
    *(
        "ipaddress",
        "json",
        "logging",
        "mailbox",
        "os",
        "pathlib",
        "random",
        "re",
        "sched",
        "shutil",
        "socket",
        "sqlite3",
    ),
    *("statistics", "subprocess", "tarfile", "threading", "typing", "unittest", "urllib.request", "zipfile"),
)

# Batches that calibrate and are not measured.
N_CALIBRATION = 8


class Sentences(torch.nn.Module):
    """MiniLM with its pooling, as one module of plain tensors."""

    def __init__(self, network):
        super().__init__()
        self.network = network[0].auto_model

    def forward(self, input_ids, attention_mask):
        tokens = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(2).to(tokens.dtype)
        return torch.nn.functional.normalize((tokens * weights).sum(1) / weights.sum(1), dim=1)


def network_of(encoder):
    """Return the network that an encoder runs."""
    return EncodingRun(encoder, []).model.network


def text_batches(network, n_words, n_batches):
    """Return batches of tokens: overlapping texts of English documentation, of one number of words."""
    names = [f"{module}.{name}" for module in MODULES for name, _ in inspect.getmembers(pydoc.locate(module))]
    words = " ".join(inspect.getdoc(pydoc.locate(name)) or "" for name in names).split()
    texts = [" ".join(words[i : i + n_words]) for i in range(0, len(words), n_words // 3)]
    tokens = [network.tokenizer(text)["input_ids"] for text in dict.fromkeys(texts)]
    width = -(-int(np.median([len(ids) for ids in tokens])) // 4) * 4
    rows = [ids for ids in tokens if width - 4 < len(ids) <= width]
    n_rows = 1_500 // width
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, values in enumerate(rows):
        ids[row, : len(values)], mask[row, : len(values)] = values, 1
    order = np.random.default_rng(0).permutation(len(rows))
    batches = [order[i : i + n_rows] for i in range(0, len(rows) - n_rows + 1, n_rows)][:n_batches]
    if len(batches) < n_batches:
        raise ValueError(f"there are texts for {len(batches)} batches, of {n_batches}; lower --n-batches")
    return [{"input_ids": ids[batch], "attention_mask": mask[batch]} for batch in batches]


def image_batches(n_batches):
    """Return batches of 8 random crops of scikit-learn's two photos, normalised."""
    rng = np.random.default_rng(0)
    photos, crops = load_sample_images().images, []
    for _ in range(8 * n_batches):
        photo = photos[rng.integers(2)]
        top, left = rng.integers(photo.shape[0] - 224), rng.integers(photo.shape[1] - 224)
        crops.append(photo[top : top + 224, left : left + 224].transpose(2, 0, 1) / np.float32(127.5) - 1)
    return [{"x": np.stack(crops[i : i + 8])} for i in range(0, len(crops), 8)]


def torch_runner(module):
    def run(batch):
        tensors = [torch.from_numpy(values) for values in batch.values()]
        if tensors[0].ndim == 4:
            tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return module(*tensors).numpy()

    return run


def onnx_runner(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, batch)[0]


def openvino_runner(model):
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda batch: next(iter(compiled(batch).values()))


def make_runners(module, batches, folder):
    """Return a function from a batch to its rows for each library and precision; the last batches calibrate."""
    import nncf
    import openvino
    from onnxruntime import quantization

    is_text = len(batches[0]) == 2
    names, calibration = list(batches[0]), batches[-N_CALIBRATION:]
    example = tuple(torch.from_numpy(values) for values in batches[0].values())
    sizes = {0: torch.export.Dim("n", min=1, max=1024)} | ({1: torch.export.Dim("width", max=512)} if is_text else {})
    path = f"{folder}/float32.onnx"
    options = {"dynamic_shapes": (sizes,) * len(names), "dynamo": True, "external_data": False, "verbose": False}
    torch.onnx.export(module, example, path, input_names=names, **options)
    int8 = f"{folder}/int8.onnx"
    quantization.shape_inference.quant_pre_process(path, f"{folder}/ready.onnx", skip_symbolic_shape=True)
    if is_text:
        quantization.quantize_dynamic(f"{folder}/ready.onnx", int8, per_channel=True)
    else:
        reader = type("Reader", (quantization.CalibrationDataReader,), {"get_next": lambda self: next(items, None)})
        items = iter(calibration)
        quantization.quantize_static(f"{folder}/ready.onnx", int8, reader(), per_channel=True)
    model = openvino.convert_model(path)
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if is_text else {}
    quantized = nncf.quantize(model, nncf.Dataset(calibration), subset_size=len(calibration), **kind)
    runners = {
        "torch float32": torch_runner(module),
        "onnxruntime float32": onnx_runner(path),
        "onnxruntime int8": onnx_runner(int8),
        "openvino float32": openvino_runner(model),
        "openvino int8": openvino_runner(quantized),
    }
    if is_text:
        dynamic = torch.ao.quantization.quantize_dynamic(copy.deepcopy(module), {torch.nn.Linear}, torch.qint8)
        runners["torch int8"] = torch_runner(dynamic)
    return runners


def compare(runners, batches, n_runs):
    """Return the median seconds of each runner, and its rows."""
    seconds = {name: [] for name in runners}
    rows = {name: np.concatenate([run(batch) for batch in batches]) for name, run in runners.items()}
    for _ in range(n_runs):
        for name, run in runners.items():
            start = time.process_time()
            for batch in batches:
                run(batch)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}, rows


def cosines(X, Y):
    return (X * Y).sum(axis=1) / np.linalg.norm(X, axis=1) / np.linalg.norm(Y, axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-batches", type=int, default=12)
    parser.add_argument("--n-runs", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    sentences = network_of(TextEncoder(device="cpu", precision="float32", store=None))
    images = network_of(ImageEncoder(device="cpu", precision="float32", store=None))
    n_batches, jobs = options.n_batches + N_CALIBRATION, {}
    for n_words in (6, 50):
        jobs[f"texts of {n_words} words"] = Sentences(sentences), text_batches(sentences, n_words, n_batches)
    jobs["images"] = images, image_batches(n_batches)
    for name, (module, batches) in jobs.items():
        with tempfile.TemporaryDirectory() as folder:
            runners = make_runners(module.eval(), batches, Path(folder))
            batches = batches[: options.n_batches]
            seconds, rows = compare(runners, batches, options.n_runs)
        n_rows = len(rows["torch float32"])
        print(f"{name} ({n_rows} rows)")
        for runner, value in seconds.items():
            similarity = cosines(rows[runner], rows["torch float32"])
            print(
                f"  {runner}: {n_rows / value:.0f}/s, {seconds['torch float32'] / value:.2f} times torch float32, "
                f"cosine {np.median(similarity):.4f}, {np.quantile(similarity, 0.01):.4f}"
            )


if __name__ == "__main__":
    main()
