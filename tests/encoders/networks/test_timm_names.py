"""Short names of timm: what they mean is known without timm once one encoder has asked it."""

import sys

import pytest
import timm
from timm.models import register_model

from skmm import EmbeddingStore, ImageEncoder
from skmm.encoders.networks import _timm_names
from skmm.encoders.networks._timm_names import is_timm, timm_names, users_code


@pytest.fixture
def without_timm(monkeypatch):
    """As if timm had not been imported in this process, and nothing were known; list of the names that it is asked."""
    asked = []
    ask = _timm_names._ask_timm
    monkeypatch.setattr(_timm_names, "_known", {})
    monkeypatch.delitem(sys.modules, "timm")

    def note(name):
        asked.append(name)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "timm", timm)
            return ask(name)

    monkeypatch.setattr(_timm_names, "_ask_timm", note)
    return asked


def test_timm_is_asked_once_for_each_store(without_timm, tmp_path):
    for _ in range(2):
        for _ in range(2):
            assert is_timm("resnet18", False, tmp_path)
            assert not is_timm("clip-ViT-B-32", False, tmp_path)
            assert timm_names("resnet18", tmp_path) == ["timm/resnet18.a1_in1k"]
        # As another process does.
        _timm_names._known.clear()
    assert sorted(without_timm) == ["clip-ViT-B-32", "resnet18"]
    assert is_timm("resnet18", False, tmp_path / "other")
    assert is_timm("resnet18", False, None)
    assert len(without_timm) == 4


def test_another_version_of_timm_is_asked_again(without_timm, tmp_path, monkeypatch):
    is_timm("resnet18", False, tmp_path)
    _timm_names._known.clear()
    monkeypatch.setattr(_timm_names.importlib.metadata, "version", lambda name: "0.0.1")
    is_timm("resnet18", False, tmp_path)
    assert len(without_timm) == 2


def test_names_that_say_it_themselves(tmp_path):
    assert is_timm("timm/anything", False, None)
    assert timm_names("hf-hub:somebody/model", None) == ["somebody/model"]
    assert not is_timm("somebody/model", False, None)
    assert not is_timm(str(tmp_path), True, None)
    (tmp_path / "config.json").write_text("[]")
    assert not is_timm(str(tmp_path), True, None)


@pytest.mark.filterwarnings("ignore:Overwriting users_network")
def test_networks_that_the_user_gave_to_timm(tmp_path, monkeypatch):
    models = [{}, {}, {}]
    found = set()
    for names, factor in zip(models, (1, 1, 2), strict=True):
        source = f"def users_network(pretrained=False, **options): return {factor}"
        exec(source, names | {"__name__": "users_models"}, names)
        names["users_network"].__module__ = "users_models"
        module = type(sys)("users_models")
        monkeypatch.setitem(sys.modules, "users_models", module)
        register_model(names["users_network"])
        found.add(repr(users_code(None, "users_network.tag")))
    assert len(found) == 2
    assert users_code(None, "resnet18") is None
    with EmbeddingStore(tmp_path / "store") as store:
        assert is_timm("users_network", False, store)
        assert store.get_fact(_timm_names._fact_key("users_network")) is None
    assert ImageEncoder("users_network")._settings(None) != ImageEncoder("resnet18")._settings(None)
