"""Models by name, from the local cache of the hub: the rows of the revision asked for, as by the folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

COMMITS = {"main": "1" * 40, "v2": "2" * 40}
BRANCHES = {None: "main", **{revision: branch for pair in COMMITS.items() for branch in pair[:1] for revision in pair}}

# Names of timm's own, whose images are prepared as timm says, not as the hub does.
SHORT = ["resnet10t.c3_in1k", "resnet10t"]

# Model on the hub -> kind, and the names by which encoders know it.
MODELS = {
    "somebody/text": ("text", ["somebody/text"]),
    "sentence-transformers/short": ("text", ["short"]),
    "somebody/plain": ("plain text", ["somebody/plain"]),
    "somebody/clip": ("clip", ["somebody/clip"]),
    "somebody/clip-texts": ("clip texts", ["somebody/clip-texts"]),
    "somebody/timm": ("timm", ["hf-hub:somebody/timm"]),
    "timm/resnet10t.c3_in1k": ("timm", ["timm/resnet10t.c3_in1k", *SHORT]),
    "timm/resnet14t.c3_in1k": ("frames", ["timm/resnet14t.c3_in1k"]),
    "somebody/audio": ("audio", ["somebody/audio"]),
    "somebody/video": ("video", ["somebody/video"]),
}


def alter(folder):
    """Make another model of one: other weights, and another preparation of images and sound."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights = {name: 1.25 * x if x.is_floating_point() else x for name, x in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    other = {"image_mean": [0.1, 0.2, 0.3], "mean": [0.1, 0.2, 0.3], "do_normalize": False}
    for path in folder.glob("*.json"):
        content = json.loads(
            path.read_text(encoding="utf-8"), object_hook=lambda x: {**x, **{k: other[k] for k in other if k in x}}
        )
        path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def rows(copy_model, make_snapshot, encode_kind, tmp_path_factory):
    """Rows by name, or by name on the hub and "folder", and revision or branch."""
    place, jobs = tmp_path_factory.mktemp("hub"), {}
    for model, (kind, names) in MODELS.items():
        for branch, commit in COMMITS.items():
            folder = Path(copy_model(kind, make_snapshot(place / "cache", model, commit, branch)))
            if branch == "v2":
                alter(folder)
            if not (folder / "modules.json").exists():
                # So the hub's library notes that there is none.
                (folder.parents[1] / ".no_exist" / commit).mkdir(parents=True)
                (folder.parents[1] / ".no_exist" / commit / "modules.json").touch()
            jobs[f"{model} by folder", branch] = kind, str(folder), None
        jobs |= {(name, revision): (kind, name, revision) for name in names for revision in BRANCHES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "cache"))
        # Where transformers 4 and 5 have it.
        patch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(place / "cache"), raising=False)
        return {name: encode_kind(kind, model, revision=revision) for name, (kind, model, revision) in jobs.items()}


@pytest.mark.parametrize("revision", BRANCHES, ids=lambda revision: str(revision)[:7])
@pytest.mark.parametrize(
    ("model", "name"), [pytest.param(model, name, id=name) for model, (_, names) in MODELS.items() for name in names]
)
def test_rows_are_those_of_the_revision(model, name, revision, rows):
    branch = BRANCHES[revision]
    (other,) = set(COMMITS) - {branch}
    if name in SHORT:
        expected, other = rows[name, COMMITS[branch]], rows[name, COMMITS[other]]
    else:
        expected, other = rows[f"{model} by folder", branch], rows[f"{model} by folder", other]
    assert_allclose(rows[name, revision], expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert np.abs(expected - other).max() > 0.01 * np.abs(expected).max()
