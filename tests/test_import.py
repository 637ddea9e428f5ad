"""What importing skmm costs and offers."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import skmm
from skmm._optional import import_optional_dependency

SUBPACKAGES = [
    "skmm",
    "skmm.datasets",
    "skmm.encoders",
    "skmm.ensemble",
    "skmm.fusion",
    "skmm.inspection",
    "skmm.metrics",
    "skmm.model_selection",
    "skmm.neural_network",
    "skmm.retrieval",
]


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_is_light():
    heavy = (
        "{'torch', 'sentence_transformers', 'transformers', 'sklearn', 'pandas', 'matplotlib', 'librosa', 'soundfile'}"
    )
    assert run(f"import sys, skmm; print(sorted({heavy} & set(sys.modules)))") == "[]\n"


def test_everything_but_encoding_works_without_torch():
    code = (
        "import sys, skmm; from skmm import *; skmm.datasets.load_glyphs\n"
        "TextEncoder(); ImageEncoder(); ImageDescriptor(); AudioEncoder(); AudioDescriptor()\n"
        "MultimodalNetClassifier([('a', 'passthrough', [0])]).get_params(); MultimodalNetRegressor([])\n"
        "print(sorted({'torch', 'sentence_transformers', 'transformers'} & set(sys.modules)))"
    )
    assert run(code) == "[]\n"


@pytest.mark.parametrize("package", SUBPACKAGES)
def test_public_names_exist_and_are_sorted(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert hasattr(module, name)
    assert list(module.__all__) == sorted(module.__all__)
    assert set(module.__all__) <= set(dir(module))


def test_main_classes_are_those_of_the_subpackages():
    homes = [getattr(skmm, name) for name in skmm.__all__ if inspect.ismodule(getattr(skmm, name))]
    for name in skmm.__all__:
        if inspect.isclass(getattr(skmm, name)):
            assert getattr(skmm, name) in [getattr(home, name, None) for home in homes]


def test_unknown_names():
    with pytest.raises(AttributeError, match="skmm attribute Nothing"):
        skmm.Nothing  # noqa: B018 - the access is the test


def test_optional_dependencies():
    assert import_optional_dependency("json", "plot").loads("1") == 1
    with pytest.raises(ImportError, match=r"'no_such_module' is needed here .* pip install \"skmm\[plot\]\""):
        import_optional_dependency("no_such_module", "plot")


def test_extras_named_in_messages_exist():
    project = Path(skmm.__file__).parents[1] / "pyproject.toml"
    if not project.exists():
        pytest.skip("skmm is installed without its pyproject.toml")
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    sources = "".join(path.read_text() for path in Path(skmm.__file__).parent.rglob("*.py"))
    named = set(re.findall(r"skmm\[(\w+)\]", sources)) | set(
        re.findall(r'import_optional_dependency\("[\w.]+", (?:extra=)?"(\w+)"\)', sources)
    )
    assert named
    assert named <= set(extras)
