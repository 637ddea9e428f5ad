"""Bundles: estimators with their checkpoints that load anywhere, without a network and without running anything."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import (
    ImageEncoder,
    ModalityFuser,
    ModalityVotingClassifier,
    MultimodalNetClassifier,
    TextEncoder,
    TunedEncoder,
    load_bundle,
    save_bundle,
)
from skmm.encoders import clear_models
from skmm.neural_network import TextBranch

pytest.importorskip("skops")

TEXTS = ["a cat", "the dog", "a mat", "sat on"] * 4
Y = np.tile([0, 1], 8)


@pytest.fixture
def frame():
    pictures = np.random.default_rng(0).integers(256, size=(16, 8, 8, 3), dtype=np.uint8)
    return pd.DataFrame({"text": TEXTS, "picture": pd.Series(list(pictures), dtype=object)})


@pytest.fixture
def models(tiny_text_model, tiny_image_model, tmp_path):
    """Copies that a test may delete."""
    for name, folder in (("words", tiny_text_model), ("pictures", tiny_image_model)):
        shutil.copytree(folder, tmp_path / name)
    return tmp_path


def fuser(models):
    return ModalityFuser(
        [
            ("text", TextEncoder(str(models / "words")), "text"),
            ("again", TextEncoder(str(models / "words"), normalize=True), "text"),
            ("image", ImageEncoder(str(models / "pictures")), "picture"),
        ]
    )


def test_a_bundle_moves_and_needs_nothing_else(frame, models):
    fitted = make_pipeline(fuser(models), LogisticRegression()).fit(frame, Y)
    expected = fitted.predict_proba(frame)
    parameters = str(fitted.get_params())
    save_bundle(models / "bundle", fitted)
    assert str(fitted.get_params()) == parameters
    (models / "bundle").rename(models / "elsewhere")
    for name in ("words", "pictures"):
        shutil.rmtree(models / name)
    clear_models()
    loaded = load_bundle(models / "elsewhere")
    assert np.allclose(loaded.predict_proba(frame), expected, atol=1e-6)
    # Each checkpoint once.
    assert sorted(path.name for path in (models / "elsewhere" / "models").iterdir()) == ["0", "1"]
    # A bundle of what came out of a bundle.
    save_bundle(models / "second", loaded)
    assert np.allclose(load_bundle(models / "second").predict_proba(frame), expected, atol=1e-6)


def test_rows_of_the_store_are_found_again(frame, models):
    encoder = TextEncoder(str(models / "words"), store=str(models / "store")).fit(TEXTS)
    expected = encoder.transform(TEXTS)
    save_bundle(models / "bundle", encoder)
    loaded = load_bundle(models / "bundle")
    clear_models()
    loaded._load_model = lambda *args: pytest.fail("nothing has to be encoded")
    assert np.array_equal(loaded.transform(TEXTS), expected)


def test_tuned_encoders_keep_their_changes(frame, models):
    tuned = TunedEncoder(TextEncoder(str(models / "words")), n_layers=1, max_epochs=2, fallback=False, random_state=0)
    voter = ModalityVotingClassifier([("text", make_pipeline(tuned, LogisticRegression()), "text")]).fit(frame, Y)
    save_bundle(models / "bundle", voter)
    expected = voter.predict_proba(frame)
    shutil.rmtree(models / "words")
    clear_models()
    assert np.allclose(load_bundle(models / "bundle").predict_proba(frame), expected, atol=1e-6)
    assert [path.name for path in (models / "bundle" / "models").iterdir()] == ["0"]


def test_no_file_of_a_bundle_needs_unpickling(frame, models):
    (models / "words" / "notes.py").write_text("raise RuntimeError")
    save_bundle(models / "bundle", fuser(models).fit(frame))
    suffixes = {path.suffix for path in (models / "bundle").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".skops", ".txt"}
    assert json.loads((models / "bundle" / "versions.json").read_text())["numpy"] == np.__version__


def test_errors_say_what_to_do_and_leave_nothing(frame, models):
    target = models / "bundle"
    with pytest.raises(ValueError, match="the model of ImageEncoder is a module in memory; save it as a checkpoint"):
        save_bundle(target, ImageEncoder(torch.nn.Flatten()))
    net = MultimodalNetClassifier([("text", TextBranch(model=str(models / "words")), "text")], max_epochs=1)
    with pytest.raises(
        ValueError, match=r"TextBranch has the pretrained model .* which bundles do not hold; use pickle"
    ):
        save_bundle(target, net)
    (models / "words" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="is an adapter; merge it into its base first"):
        save_bundle(target, fuser(models))
    assert not list(models.glob("bundle*"))
    target.mkdir()
    with pytest.raises(FileExistsError, match=r"save_bundle writes a new folder, and .* exists"):
        save_bundle(target, LogisticRegression())
    with pytest.raises(FileNotFoundError, match=r"is no bundle: it has no file 'estimator.skops'"):
        load_bundle(target)


def test_weights_without_safetensors_are_refused(models):
    for path in (models / "pictures").glob("*.safetensors"):
        torch.save({}, path.with_suffix(".bin"))
        path.unlink()
    with pytest.raises(ValueError, match="has no weights in safetensors format"):
        save_bundle(models / "bundle", ImageEncoder(str(models / "pictures")))


def test_other_versions_warn(models):
    save_bundle(models / "bundle", LogisticRegression().fit([[0], [1]], [0, 1]))
    file = models / "bundle" / "versions.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "scikit-learn": "1.5.2"}))
    with pytest.warns(UserWarning, match=r"written with scikit-learn 1\.5\.2 \(here "):
        load_bundle(models / "bundle")


def test_a_bundle_that_names_a_model_outside_is_refused(models):
    encoder = TextEncoder("bundle:../words")
    save = pytest.importorskip("skops.io")
    (models / "bundle").mkdir()
    save.dump(encoder, models / "bundle" / "estimator.skops")
    (models / "bundle" / "versions.json").write_text("{}")
    with pytest.raises(ValueError, match=r"names the model 'bundle:../words', which is outside of it"):
        load_bundle(models / "bundle")


def test_types_of_other_packages_have_to_be_trusted(models):
    sampling = pytest.importorskip("imblearn.over_sampling")
    save_bundle(models / "bundle", sampling.RandomOverSampler(random_state=3))
    kind = "imblearn.over_sampling._random_over_sampler.RandomOverSampler"
    with pytest.raises(TypeError, match="RandomOverSampler"):
        load_bundle(models / "bundle")
    assert load_bundle(models / "bundle", trusted=[kind]).random_state == 3
