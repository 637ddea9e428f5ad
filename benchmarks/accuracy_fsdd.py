"""Spoken digits: a small keyword network and MFCC, and the fusion of spoken with handwritten digits.

1. Words: how many of the 3,000 recordings of the Free Spoken Digit Dataset [1] a pretrained keyword spotter
   (BC-ResNet [2], 35 English words, the ten digits among them) names right, without any training here.
2. Audio: its features through ``AudioEncoder``, and MFCC through ``AudioDescriptor``, each with logistic regression.
3. Fusion: each image of scikit-learn's ``load_digits`` is paired with a recording of the same digit. This pairing is
   synthetic: nobody wrote and spoke these digits together.

4. Domains: the same with each speaker standardised apart (``DomainScaler``), the one left out by their own rows without
   labels: all of them, ten at a time, one at a time; and beside it CORAL [3] of skada, if that is installed, which
   needs these rows when it is fitted.

2 to 4 leave one of the six speakers out at a time, and no image is in training and test at once. Prints one table and
writes ``results/accuracy_fsdd.json``.

Needs the folders ``fsdd`` and ``weights/bcresnet_kws`` below ``../shared/data`` (seen from the project) or below
``$SKMM_DATA``, and ``pip install "skmm[audio]"``.

[1] https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0)
[2] Kim, B., Chang, S., Lee, J. and Sung, D. (2021). "Broadcasted Residual Learning for Efficient Keyword Spotting."
    Proceedings of Interspeech, 4538-4542. Weights: https://github.com/re9ulus/BC-ResNet (MIT)
[3] Sun, B., Feng, J. and Saenko, K. (2016). "Return of Frustratingly Easy Domain Adaptation." AAAI.
"""

import argparse
import json
import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import sklearn
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import skmm
from skmm import (
    AudioDescriptor,
    AudioEncoder,
    CCAFusion,
    ConcatFusion,
    DomainScaler,
    ImageDescriptor,
    LDAFusion,
    ModalityFuser,
    PCAFusion,
)

ROOT = Path(__file__).resolve().parents[1]
RATE = 16_000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The network's classes, in alphabetical order.
WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go"),
    *("happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven"),
    *("sheila", "six", "stop", "three", "tree", "two", "up", "visual", "wow", "yes", "zero"),
)


class SubSpectralNorm(nn.Module):
    """Batch normalisation with statistics of its own for each of five bands of frequencies."""

    def __init__(self, channels, n_bands=5):
        super().__init__()
        self.n_bands = n_bands
        self.bn = nn.BatchNorm2d(channels * n_bands)

    def forward(self, x):
        n, channels, frequencies, times = x.shape
        bands = x.reshape(n, channels * self.n_bands, frequencies // self.n_bands, times)
        return self.bn(bands).reshape(x.shape)


class BroadcastedBlock(nn.Module):
    """Residual block: convolution over frequencies (f2), and one over times of their mean (f1), added to all of them.

    A block that changes the number of channels begins with a pointwise convolution, and has no shortcut around it.
    """

    def __init__(self, inputs, channels, dilation, stride=1):
        super().__init__()
        over_frequencies = nn.Conv2d(channels, channels, (3, 1), (stride, 1), (1, 0), groups=channels)
        self.is_transition = inputs != channels
        widen = [nn.Conv2d(inputs, channels, 1), nn.BatchNorm2d(channels), nn.ReLU()] if self.is_transition else []
        self.f2 = nn.Sequential(*widen, over_frequencies, SubSpectralNorm(channels))
        self.f1 = nn.Sequential(
            nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation), groups=channels),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x):
        y = self.f2(x)
        y = y + self.f1(y.mean(dim=2, keepdim=True))
        return torch.relu(y if self.is_transition else x + y)


class KeywordNet(nn.Module):
    """BC-ResNet-2: log-mel spectrograms (n, 1, 40, n_frames) to the 64 features before the classifier."""

    def __init__(self):
        super().__init__()
        self.input_conv = nn.Conv2d(1, 32, 5, (2, 1), 2)
        inputs, self.order = 32, []
        # Channels, blocks after the transition, dilation over time, stride over frequency.
        for stage, (channels, n_blocks, dilation, stride) in enumerate(
            [(16, 1, 1, 1), (24, 1, 2, 2), (32, 3, 4, 2), (40, 3, 8, 1)], start=1
        ):
            blocks = {f"t{stage}": BroadcastedBlock(inputs, channels, dilation, stride)}
            for i in range(1, n_blocks + 1):
                blocks[f"n{stage}{i}"] = BroadcastedBlock(channels, channels, dilation)
            for name, block in blocks.items():
                self.add_module(name, block)
                self.order.append(name)
            inputs = channels
        self.dw_conv = nn.Conv2d(inputs, inputs, 5, groups=20)
        self.onexone_conv = nn.Conv2d(inputs, 64, 1)
        self.head_conv = nn.Conv2d(64, len(WORDS), 1)

    def forward(self, x):
        x = self.input_conv(x)
        for name in self.order:
            x = getattr(self, name)(x)
        return self.onexone_conv(self.dw_conv(x)).mean(dim=(2, 3))

    def words(self, features):
        """Return the score of each word for the features of ``forward``."""
        return self.head_conv(features[:, :, None, None])[:, :, 0, 0]


def load_network(folder):
    """Rebuild the keyword network around its weights."""
    weights = load_file(folder / "bcresnet2_35words.safetensors")
    # Saved with one dimension, which torch's own counters lack.
    weights = {name: x.reshape(()) if name.endswith("num_batches_tracked") else x for name, x in weights.items()}
    network = KeywordNet()
    network.load_state_dict(weights)
    return network.eval()


def log_mel(waveform):
    """The network's input: one second, the word in its middle as in what it was trained on, in 40 mel bands."""
    missing = max(0, RATE - len(waveform))
    second = np.pad(waveform, (missing // 2, missing - missing // 2))[:RATE]
    mel = librosa.feature.melspectrogram(
        y=second, sr=RATE, n_fft=1024, hop_length=512, n_mels=40, fmax=8000, htk=True, norm=None, pad_mode="reflect"
    )
    return torch.from_numpy(np.log2(mel + 1e-9))[None].float()


def find_data():
    """Return the folder of the data, or say what is missing."""
    folder = Path(os.environ.get("SKMM_DATA", ROOT.parent / "shared" / "data"))
    for part in ("fsdd/recordings", "weights/bcresnet_kws"):
        if not (folder / part).is_dir():
            sys.exit(
                f"{folder / part} is not there. Set SKMM_DATA to a folder that holds fsdd/recordings (those of "
                "github.com/Jakobovski/free-spoken-digit-dataset) and weights/bcresnet_kws."
            )
    return folder


def read_recordings(folder, limit):
    """Table of the recordings: path, digit, speaker."""
    rows = []
    for path in sorted((folder / "fsdd" / "recordings").glob("*.wav")):
        digit, speaker, take = path.stem.split("_")
        if limit is None or int(take) < limit:
            rows.append((str(path), int(digit), speaker))
    return pd.DataFrame(rows, columns=["sound", "digit", "speaker"])


def pair_with_images(recordings, seed=0):
    """Return positions of recordings and images of the same digit, each used once, equally many of each speaker."""
    digits = load_digits()
    rng = np.random.default_rng(seed)
    sounds_of = {key: group.index.to_numpy() for key, group in recordings.groupby(["digit", "speaker"])}
    speakers = recordings["speaker"].unique()
    n_each = min(
        np.bincount(digits.target).min() // len(speakers), min(len(positions) for positions in sounds_of.values())
    )
    sounds, images = [], []
    for digit in range(10):
        candidates = rng.permutation(np.flatnonzero(digits.target == digit))
        for i, speaker in enumerate(speakers):
            sounds.extend(rng.permutation(sounds_of[digit, speaker])[:n_each])
            images.extend(candidates[i * n_each : (i + 1) * n_each])
    return np.array(sounds), digits.images[images] / 16


def leave_one_speaker_out(estimator, X, y, speakers):
    """Return the accuracy for each speaker left out."""
    return cross_val_score(estimator, X, y, groups=speakers, cv=LeaveOneGroupOut(), error_score="raise")


def adapt_with_coral(X, y, speakers):
    """Return the accuracy for each speaker left out, of CORAL from the others to the rows of this one."""
    scores = []
    for _, test in LeaveOneGroupOut().split(X, y, speakers):
        domains = np.ones(len(X), dtype=int)
        # Rows of the target domain are told by a negative number, and their labels are masked.
        domains[test] = -2
        labels = y.copy()
        labels[test] = -1
        # The import of skada turns metadata routing on for good; here it ends with the block.
        with sklearn.config_context(enable_metadata_routing=True):
            from skada import CORALAdapter, make_da_pipeline

            pipe = make_da_pipeline(StandardScaler(), CORALAdapter(), LogisticRegression(max_iter=2000))
            pipe.fit(X, labels, sample_domain=domains)
            scores.append(np.mean(pipe.predict(X[test], sample_domain=domains[test]) == y[test]))
    return scores


def standardise_speakers(X, y, speakers, n_rows=None):
    """Return the accuracy for each speaker left out, standardised with so many of their rows at a time."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]).assign(speaker=speakers)
    scores = []
    for train, test in LeaveOneGroupOut().split(X, y, speakers):
        pipe = make_pipeline(DomainScaler("speaker"), LogisticRegression(max_iter=2000))
        pipe.fit(frame.iloc[train], y[train])
        test = rng.permutation(test)
        batches = np.array_split(test, max(1, len(test) // n_rows) if n_rows else 1)
        predictions = np.concatenate([pipe.predict(frame.iloc[batch]) for batch in batches])
        scores.append(np.mean(predictions == y[test]))
    return scores


def classifier():
    """Return the classifier that stands behind every representation."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def main():
    """Run all three parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="recordings per digit and speaker, at most 50 (default: all)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "accuracy_fsdd.json")
    arguments = parser.parse_args()
    folder = find_data()
    recordings = read_recordings(folder, arguments.limit)
    y, speakers = recordings["digit"].to_numpy(), recordings["speaker"].to_numpy()
    rows = []

    def note(part, name, scores):
        rows.append(
            {"part": part, "name": name, "accuracy": float(np.mean(scores)), "by_speaker": list(map(float, scores))}
        )
        spread = f" ± {np.std(scores):.3f}" if len(scores) > 1 else ""
        print(f"{part:8} {name:44} {np.mean(scores):.3f}{spread}", flush=True)

    print(f"{len(recordings)} recordings, {len(set(speakers))} speakers; accuracy, mean and spread over speakers\n")
    network = load_network(folder / "weights" / "bcresnet_kws")
    encoders = {
        "BC-ResNet": AudioEncoder(network, preprocess=log_mel, target_rate=RATE, window=1.0, precision="float32"),
        "MFCC": AudioDescriptor(),
    }
    features = {name: encoder.fit_transform(recordings["sound"]) for name, encoder in encoders.items()}

    with torch.inference_mode():
        scores = network.words(torch.from_numpy(features["BC-ResNet"])).numpy()
    order = list(np.unique(speakers))

    def by_speaker(is_right):
        return [float(is_right[speakers == speaker].mean()) for speaker in order]

    targets = np.array([WORDS.index(word) for word in DIGITS])
    note("words", "BC-ResNet as it is, among its 35 words", by_speaker(scores.argmax(axis=1) == targets[y]))
    note("words", "BC-ResNet as it is, among the 10 digits", by_speaker(scores[:, targets].argmax(axis=1) == y))

    for name in encoders:
        note(
            "audio",
            f"{name} ({features[name].shape[1]} features)",
            leave_one_speaker_out(classifier(), features[name], y, speakers),
        )

    for name, X in features.items():
        for label, n_rows in (("all rows", None), ("10 rows", 10), ("1 row", 1)):
            scores = standardise_speakers(X, y, speakers, n_rows)
            note("domains", f"{name}, each speaker standardised, {label}", scores)
        if find_spec("skada"):
            note("domains", f"{name}, CORAL of skada", adapt_with_coral(X, y, speakers))

    positions, images = pair_with_images(recordings)
    pixels = ImageDescriptor("pixels", size=8, pixels_per_cell=1).fit_transform(images)
    y, speakers = y[positions], speakers[positions]
    print(f"\n{len(positions)} synthetic pairs of a handwritten and a spoken digit\n")
    note("fusion", "image alone", leave_one_speaker_out(classifier(), pixels, y, speakers))
    for name in encoders:
        sounds = features[name][positions]
        note("fusion", f"audio alone, {name}", leave_one_speaker_out(classifier(), sounds, y, speakers))
        # Encoded once, above: what is compared is the fusion.
        blocks = {"image": pixels, "audio": sounds}
        X = pd.DataFrame({f"{b}__{i}": column for b, block in blocks.items() for i, column in enumerate(block.T)})
        modalities = [
            (b, StandardScaler(), [f"{b}__{i}" for i in range(block.shape[1])]) for b, block in blocks.items()
        ]
        for fusion in (ConcatFusion(), PCAFusion(), LDAFusion(), CCAFusion()):
            pipe = make_pipeline(ModalityFuser(modalities, fusion=fusion), LogisticRegression(max_iter=2000))
            label = f"image + {name}, {type(fusion).__name__}"
            note("fusion", label, leave_one_speaker_out(pipe, X, y, speakers))
        X["speaker"] = speakers
        columns = ["speaker", *modalities[1][2]]
        modalities[1] = ("audio", DomainScaler("speaker"), columns)
        pipe = make_pipeline(ModalityFuser(modalities), LogisticRegression(max_iter=2000))
        label = f"image + {name}, ConcatFusion, speakers standardised"
        note("domains", label, leave_one_speaker_out(pipe, X, y, speakers))

    result = {
        "what": "accuracy, leave one speaker out; the pairs of image and audio are synthetic",
        "n_recordings": len(recordings),
        "n_pairs": len(positions),
        "speakers": order,
        "rows": rows,
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (skmm, sklearn, torch, librosa, np)},
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
