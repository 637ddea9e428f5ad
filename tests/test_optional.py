"""Modules that only an extra installs."""

import sys

import pytest

from skmm._optional import import_optional_dependency


def test_an_error_names_the_extra():
    assert import_optional_dependency("json", "any") is sys.modules["json"]
    with pytest.raises(ImportError, match=r'no_such_package.*pip install "skmm\[sound\]"'):
        import_optional_dependency("no_such_package", "sound")
