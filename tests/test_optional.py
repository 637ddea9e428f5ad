"""Modules that are there only for some: whoever asks gets a whole one, or none."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from skmm._optional import import_optional_dependency, imported


def test_an_error_names_the_extra():
    assert import_optional_dependency("json", "any") is sys.modules["json"]
    with pytest.raises(ImportError, match=r'no_such_package.*pip install "skmm\[sound\]"'):
        import_optional_dependency("no_such_package", "sound")


def test_imported_imports_nothing(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "not_yet.py").write_text("")
    assert imported("not_yet") is None
    assert "not_yet" not in sys.modules
    assert imported("json") is sys.modules["json"]


def test_imported_waits_for_a_module_to_be_whole(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_module.py").write_text("import events_of_test as t; t.begun.set(); t.go.wait(600); whole = True")
    helper = type(sys)("events_of_test")
    helper.begun, helper.go = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "events_of_test", helper)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(__import__, "slow_module")
        assert helper.begun.wait(600)
        asked = pool.submit(lambda: hasattr(imported("slow_module"), "whole"))
        # What does not wait has answered long before.
        with pytest.raises(TimeoutError):
            asked.result(0.5)
        helper.go.set()
        assert asked.result(600)
    # Not by the fixture, which would put it back.
    del sys.modules["slow_module"]
