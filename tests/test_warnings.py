"""Warnings point at the caller's line."""

import sys
import threading
import warnings

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skmm._warnings import warn


def define_in(module, source):
    """Return the names that source code defines, as if it stood in a module."""
    names = {"__name__": module, "warn": warn}
    exec(compile(source, f"/installed/{module.replace('.', '/')}.py", "exec"), names)
    return names


@pytest.fixture
def library():
    """Functions of skmm: one warns, one calls it through another file."""
    inner = define_in("skmm.store._inner", "def warns(): warn('careful', RuntimeWarning)")
    outer = define_in("skmm.encoders._outer", "def calls(function): return function()")
    return inner["warns"], outer["calls"]


def caught(call):
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        call()
    (record,) = records
    return record


def test_cached_properties_stand_between(library):
    warns, _ = library
    lazy = define_in(
        "skmm.encoders._lazy",
        "import functools\nclass Lazy:\n    value = functools.cached_property(lambda self: self.warns())",
    )
    run = lazy["Lazy"]()
    run.warns = warns
    line = sys._getframe().f_lineno + 1
    record = caught(lambda: define_in("skmm.encoders._outer", "def get(run): return run.value")["get"](run))
    assert (record.filename, record.lineno) == (__file__, line)


def test_points_at_the_caller(library):
    warns, calls = library
    line = sys._getframe().f_lineno + 1
    record = caught(lambda: calls(warns))
    assert (record.filename, record.lineno) == (__file__, line)
    assert str(record.message) == "careful"
    assert record.category is RuntimeWarning


def test_skips_scikit_learn():
    inner = define_in("skmm.encoders._inner", "def warns(X):\n    warn('careful')\n    return X")
    pipeline = make_pipeline(FunctionTransformer(inner["warns"]))
    line = sys._getframe().f_lineno + 1
    record = caught(lambda: pipeline.fit_transform(np.ones((2, 1))))
    assert (record.filename, record.lineno) == (__file__, line)


def test_thread_without_a_caller(library):
    warns, calls = library

    def run():
        thread = threading.Thread(target=calls, args=(warns,))
        thread.start()
        thread.join()

    record = caught(run)
    assert (record.filename, record.lineno) == ("/installed/skmm/encoders/_outer.py", 1)


def test_default_filter_shows_a_line_once(library):
    warns, _ = library
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("default")
        for _ in range(3):
            warns()
    assert len(records) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="careful"):
            warns()
