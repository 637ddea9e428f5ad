"""Does another decoder of JPEG files beat Pillow's at a reduced scale?

    pip install simplejpeg torchvision
    python benchmarks/decoders.py

Photos of 1600 x 1200 pixels, mosaics of scikit-learn's two, are decoded for a network of 224 x 224 pixels. Pillow
("draft") and simplejpeg decode at half the scale; simplejpeg at three eighths as well, which Pillow does not offer, and
torchvision in full. Prints processor time of one thread, medians of interleaved runs, of the decoding alone and with
the resizing to the network's input, and how far that input is from Pillow's.
"""

import argparse
import functools
import io
import statistics
import time

import numpy as np
import simplejpeg
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.io import decode_jpeg

from skmm.encoders.networks import data_config, prepare
from skmm.media import load_image

RECIPE = data_config({"input_size": (3, 224, 224)})


def make_photos(n_photos):
    """Return the bytes of JPEG files."""
    rng, samples, files = np.random.default_rng(0), load_sample_images().images, []
    for number in range(n_photos):
        mosaic = np.tile(np.roll(samples[number % 2], rng.integers(300), axis=1), (3, 3, 1))[:1200, :1600]
        stream = io.BytesIO()
        Image.fromarray(mosaic).save(stream, "JPEG", quality=int(rng.integers(80, 96)))
        files.append(stream.getvalue())
    return files


def simplejpeg_at_least(height, width):
    return functools.partial(simplejpeg.decode_jpeg, min_height=height, min_width=width)


def torchvision_in_full(file):
    pixels = torch.frombuffer(bytearray(file), dtype=torch.uint8)
    return decode_jpeg(pixels, mode="RGB").permute(1, 2, 0).numpy()


DECODERS = {
    "Pillow, 1/2": functools.partial(load_image, enough=224),
    "Pillow, full": load_image,
    "simplejpeg, 1/2": simplejpeg_at_least(600, 800),
    "simplejpeg, 3/8": simplejpeg_at_least(448, 448),
    "simplejpeg, full": simplejpeg.decode_jpeg,
    "torchvision, full": torchvision_in_full,
}


def seconds_of(function):
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-photos", type=int, default=10)
    parser.add_argument("--n-runs", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = make_photos(options.n_photos)
    decoding = {name: [] for name in DECODERS}
    whole, inputs = {name: [] for name in DECODERS}, {}
    for _ in range(options.n_runs):
        for name, decode in DECODERS.items():
            seconds, photos = seconds_of(lambda decode=decode: [decode(file) for file in files])
            decoding[name].append(seconds)
            seconds, tensors = seconds_of(lambda p=photos: [prepare(Image.fromarray(photo), RECIPE) for photo in p])
            whole[name].append(decoding[name][-1] + seconds)
            inputs[name] = np.stack([np.asarray(tensor, dtype=np.float32) for tensor in tensors])
    reference = next(iter(DECODERS))
    for name in DECODERS:
        rates = [len(files) / statistics.median(seconds[name]) for seconds in (decoding, whole)]
        ratios = [statistics.median(s[reference]) / statistics.median(s[name]) for s in (decoding, whole)]
        distance = np.abs(inputs[name] - inputs[reference])
        print(
            f"{name}: {rates[0]:.0f}/s ({ratios[0]:.2f}), with resizing {rates[1]:.0f}/s ({ratios[1]:.2f}); "
            f"distance of 255: mean {distance.mean():.2f}, largest {distance.max():.0f}"
        )


if __name__ == "__main__":
    main()
