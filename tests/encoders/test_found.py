"""Who finds everything in a store loads no model: neither torch nor what builds on it is imported."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import skmm

ENCODE = """
import sys
import numpy as np
from skmm import AudioEncoder, ImageEncoder, TextEncoder, VideoEncoder

store, *names = sys.argv[1:]
rng = np.random.default_rng(0)
images = rng.integers(256, size=(3, 40, 50, 3), dtype=np.uint8)
items = {
    "text": (TextEncoder, ["the cat", "a dog sat on the mat"]),
    "image": (ImageEncoder, images),
    "audio": (AudioEncoder, [(16000, rng.normal(size=4000)) for _ in range(2)]),
    "video": (VideoEncoder, [images]),
}
for pair in names:
    kind, name = pair.split("=")
    encoder, X = items[kind]
    print(encoder(name, device="cpu", store=store).fit_transform(X).sum())
print(sorted({"sentence_transformers", "timm", "torch", "torchvision", "transformers"} & set(sys.modules)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it takes torch to know the devices")
def test_nothing_is_imported(
    tiny_text_model, tiny_image_model, tiny_clip_model, tiny_video_model, make_audio_model, make_snapshot, tmp_path
):
    audio = make_audio_model("wav2vec2")
    pairs = [
        *(("text", tiny_text_model), ("text", tiny_clip_model), ("image", tiny_image_model)),
        *(("image", tiny_clip_model), ("audio", audio), ("video", tiny_image_model), ("video", tiny_video_model)),
    ]
    for name, folder in {
        "somebody/text": tiny_text_model,
        "sentence-transformers/short": tiny_text_model,
        "timm/resnet10t.c3_in1k": tiny_image_model,
        "somebody/clip": tiny_clip_model,
        "somebody/audio": audio,
        "somebody/video": tiny_video_model,
    }.items():
        shutil.copytree(folder, make_snapshot(tmp_path / "hub", name), dirs_exist_ok=True)
    pairs += [
        *(("text", "somebody/text"), ("text", "short"), ("audio", "somebody/audio"), ("video", "somebody/video")),
        *(("image", "timm/resnet10t.c3_in1k"), ("image", "hf-hub:timm/resnet10t.c3_in1k"), ("image", "somebody/clip")),
    ]
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(skmm.__file__).parents[1]),
    }

    def encode():
        arguments = [str(tmp_path / "store"), *(f"{kind}={name}" for kind, name in pairs)]
        command = [sys.executable, "-c", ENCODE, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    first, second = encode(), encode()
    assert first[-1] == "['sentence_transformers', 'timm', 'torch', 'torchvision', 'transformers']"
    assert second[-1] == "[]"
    assert second[:-1] == first[:-1]
    assert len(second) == len(pairs) + 1
