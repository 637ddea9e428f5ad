"""Descriptions: equal for what does the same in every process, another one for whatever does something else."""

import collections
import copy
import dataclasses
import enum
import functools
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import skmm
from skmm.store import _describe
from skmm.store._describe import Unidentifiable, describe, describe_parts

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(skmm.__file__).parents[1])}


def defined(source, **names):
    """Give what source code defines, in a module of the user's own that holds other names as well."""
    module = types.ModuleType("users_own")
    vars(module).update(names)
    exec(compile(source, "users_own.py", "exec"), vars(module))
    return vars(module)


def described(source, name="f", **names):
    return describe(defined(source, **names)[name])


class TestFunctions:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("def f(x): return x * 2", "def f(x): return x * 3"),
            ("def f(x): return x * 2", "def f(x): return x * 2.0"),
            ("def f(x): return -0.0", "def f(x): return 0.0"),
            ("def f(x): return x + 2", "def f(x): return x - 2"),
            ("def f(x, n=1): return x * n", "def f(x, n=2): return x * n"),
            ("def f(x, *, n=1): return x * n", "def f(x, *, n=2): return x * n"),
            ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
            ("def f(x): return [y * 2 for y in x]", "def f(x): return [y * 3 for y in x]"),
            ("def f(x): return x.sin()", "def f(x): return x.cos()"),
            ("def f(x): return g(x)\ndef g(x): return x * 2", "def f(x): return g(x)\ndef g(x): return x * 3"),
            ("N = 2\ndef f(x): return x * N", "N = 3\ndef f(x): return x * N"),
            ("N = [2]\ndef f(x): return x * N[0]", "N = [3]\ndef f(x): return x * N[0]"),
            ("N = {'a': (2, 1)}\ndef f(x): return x * N['a']", "N = {'a': (2, 3)}\ndef f(x): return x * N['a']"),
            ("N = 2\ndef f(x): return (lambda y: y * N)(x)", "N = 3\ndef f(x): return (lambda y: y * N)(x)"),
            ("def f(x):\n  try: g(x)\n  except KeyError: h(x)", "def f(x):\n  try: g(x)\n  except IndexError: h(x)"),
            ("def f(x): return abs(x)", "def f(x): return abs(x)\ndef abs(x): return x"),
            ("def f(x): yield x", "def f(x): return x"),
            ("def f(x): return f.n * x\nf.n = 1", "def f(x): return f.n * x\nf.n = 2"),
            ("import torch\ndef f(x): return torch.sin(x)", "import torch\ndef f(x): return torch.cos(x)"),
            ("def f(x): return x\nf.__wrapped__ = 1", "def f(x): return x"),
        ],
    )
    def test_what_does_something_else(self, first, second):
        assert described(first) == described(first)
        assert described(first) != described(second)

    def test_what_a_function_reads_of_modules(self):
        def read(factor, source="def f(x): return x * settings.factor"):
            settings = types.ModuleType("settings_of_users")
            settings.factor, settings.lock = factor, (i for i in "neither read nor looked into")
            return described(source, settings=settings)

        assert read(2) == read(2) != read(3)
        with pytest.raises(Unidentifiable, match="generator"):
            read(2, "def f(x): return x * getattr(settings, 'factor')")

    def test_a_module_that_is_imported_while_the_code_runs(self, monkeypatch):
        for source in (
            "def f(x):\n  import settings_of_users\n  return x * settings_of_users.factor",
            "def f(x):\n  from settings_of_users import factor\n  return x * factor",
        ):
            found = []
            for factor in (2, 2, 3):
                settings = types.ModuleType("settings_of_users")
                settings.factor = factor
                monkeypatch.setitem(sys.modules, "settings_of_users", settings)
                found.append(described(source))
            assert found[0] == found[1] != found[2]
            monkeypatch.delitem(sys.modules, "settings_of_users")
            with pytest.raises(Unidentifiable, match="imports 'settings_of_users', which is not there"):
                described(source)
        described("def f(x):\n  import math\n  return math.sin(x)")

    @pytest.mark.parametrize("value", [np.arange(3.0), torch.arange(3.0), torch.arange(3.0).bfloat16()])
    def test_arrays_and_tensors_count_by_their_values(self, value):
        source = "def f(x): return x * N"
        other = copy.deepcopy(value)
        assert described(source, N=value) == described(source, N=other)
        other[-1] = 5
        assert described(source, N=value) != described(source, N=other)

    def test_where_it_stands_does_not_count(self):
        source = "def f(x):\n    return [y * 2 for y in x]"
        lower = "\n\n\ndef f(x):\n\n    # A comment.\n    return [y * 2 for y in x]"
        names = {"__name__": "another_module"}
        exec(compile(lower, "elsewhere.py", "exec"), names)
        assert described(source) == describe(names["f"])

    def test_closures(self):
        def adder(n):
            return lambda x: x + n

        assert describe(adder(1)) == describe(adder(1))
        assert describe(adder(1)) != describe(adder(2))
        assert describe(adder(np.float32(1))) != describe(adder(np.float64(1)))

    def test_what_wraps_a_function(self):
        for wrap in (
            functools.partial,
            functools.lru_cache(maxsize=None),
            torch.no_grad(),
            functools.cache,
            np.vectorize,
        ):
            assert describe(wrap(lambda x: x * 2)) == describe(wrap(lambda x: x * 2))
            assert describe(wrap(lambda x: x * 2)) != describe(wrap(lambda x: x * 3))
        assert describe(functools.partial(sorted, reverse=True)) != describe(functools.partial(sorted, reverse=False))

    def test_what_a_library_made_for_the_user(self):
        torchvision = pytest.importorskip("torchvision")
        transforms = torchvision.transforms

        def make(size, factor):
            return transforms.Compose([transforms.Resize(size), transforms.Lambda(lambda x: x * factor)])

        assert describe(make(8, 2)) == describe(make(8, 2))
        assert len({repr(describe(make(*given))) for given in [(8, 2), (9, 2), (8, 3)]}) == 3

    def test_functions_of_libraries_that_the_user_replaced(self, monkeypatch):
        source = "import torch.nn.functional as F\ndef f(x): return F.relu(x)"
        before = described(source)
        own = defined("def relu(x): return x")["relu"]
        monkeypatch.setattr(torch.nn.functional, "relu", own)
        assert described(source) != before

    def test_functions_that_call_each_other(self):
        source = "def f(x): return g(x) if x else {}\ndef g(x): return f(x - 1)"
        assert described(source.format(1)) == described(source.format(1)) != described(source.format(2))

    @pytest.mark.parametrize("call", ["eval('N')", "exec('N')", "globals()['N']", "__import__('N').n"])
    def test_code_that_could_read_anything(self, call):
        with pytest.raises(Unidentifiable, match="so that nothing tells what it reads"):
            described(f"def f(x): return x * {call}")
        # What has that name and is the user's own is looked into.
        described(f"def f(x): return x * {call}", **{call.partition("(")[0]: len})

    def test_names_without_a_part_in_numbers(self):
        names = {"log": logging.getLogger("users"), "lock": threading.Lock(), "again": threading.RLock()}
        assert described("def f(x): return log, lock, again, not_there", **names)

    def test_code_that_cannot_be_read(self):
        with pytest.raises(Unidentifiable, match="universal function"):
            describe(np.frompyfunc(lambda x: x, 1, 1))
        assert describe(np.add) != describe(np.subtract)
        assert describe(len) != describe(abs)
        assert describe([1].append) != describe([2].append)
        assert describe(torch.relu) != describe(torch.sigmoid)


class Point(collections.namedtuple("Point", "x y")):
    pass


@dataclasses.dataclass
class Record:
    factor: int
    names: list = dataclasses.field(default_factory=list)


class Slotted:
    __slots__ = ("__hidden", "factor")

    def __init__(self, factor):
        self.factor = self.__hidden = factor


class Named(dict):
    pass


class Quiet:
    """Tells pickles nothing of what it holds."""

    def __init__(self, factor):
        self._factor = factor

    def __getstate__(self):
        return {}

    def __repr__(self):
        return "Quiet()"

    def __eq__(self, other):
        return True

    __hash__ = None


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class TestObjects:
    @pytest.mark.parametrize(
        ("make", "values"),
        [
            (Point, [(1, 2), (1, 3)]),
            (Record, [(1,), (2,), (1, ["a"])]),
            (Slotted, [(1,), (2,)]),
            (Named, [([("a", 1)],), ([("a", 2)],), ()]),
            (Quiet, [(1,), (2,)]),
            (Colour, [(1,), (2,)]),
            (re.compile, [("a",), ("b",), ("a", re.I)]),
            (np.array, [([1, "a"], object), ([1, "b"], object), ([1, 2],), ([1.0, 2.0],), ([[1], [2]],)]),
            (np.ma.masked_array, [([1, 2], [0, 1]), ([1, 2], [1, 0])]),
            (np.float32, [(1,), (2,)]),
            (np.dtype, [("f4",), ("f8",)]),
            (
                lambda *x: x,
                [(1,), (True,), (1.0,), ("1",), (b"1",), (None,), ((1,),), ([1],), ({1},), (bytearray(b"1"),)],
            ),
            (lambda *x: dict(x), [(("a", 1), ("b", 2)), (("a", 2), ("b", 1))]),
            (set, [("ab",), ("ac",), ()]),
            (collections.deque, [([1],), ([2],)]),
            (collections.defaultdict, [(list,), (dict,)]),
            (pd.Series, [([1, 2],), ([1, 3],), (["a", "b"],)]),
            (lambda f: Record(1, [f]), [(len,), (abs,)]),
            (torch.device, [("cpu",), ("meta",)]),
        ],
    )
    def test_content_counts(self, make, values):
        assert [describe(make(*given)) for given in values] == [describe(make(*given)) for given in values]
        assert len({repr(describe(make(*given))) for given in values}) == len(values)

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("class C:\n  def f(self, x): return x * 2", "class C:\n  def f(self, x): return x * 3"),
            ("class C:\n  n = 2", "class C:\n  n = 3"),
            ("class C:\n  n = [2]", "class C:\n  n = [3]"),
            ("class B:\n  n = 2\nclass C(B): pass", "class B:\n  n = 3\nclass C(B): pass"),
            ("class C:\n  @property\n  def n(self): return 2", "class C:\n  @property\n  def n(self): return 3"),
            ("class C:\n  @staticmethod\n  def n(): return 2", "class C:\n  @staticmethod\n  def n(): return 3"),
            ("class C:\n  @classmethod\n  def n(cls): return 2", "class C:\n  @classmethod\n  def n(cls): return 3"),
            (
                "class M(type):\n  n = 2\nclass C(metaclass=M): pass",
                "class M(type):\n  n = 3\nclass C(metaclass=M): pass",
            ),
            ("class C:\n  def f(self): return N\nN = 1", "class C:\n  def f(self): return N\nN = 2"),
            (
                "import functools\nclass C:\n  @functools.cached_property\n  def n(self): return 2",
                "import functools\nclass C:\n  @functools.cached_property\n  def n(self): return 3",
            ),
        ],
    )
    def test_the_code_of_a_class_counts(self, before, after):
        first, again, second = (defined(source)["C"] for source in (before, before, after))
        assert describe(first()) == describe(again()) != describe(second())

    def test_a_class_that_has_been_pickled_is_the_same(self):
        before = describe(Slotted(1))
        pickle.dumps(Slotted(1))
        assert describe(Slotted(1)) == before

    def test_what_refers_to_itself(self):
        def make(content):
            thing = [content]
            thing.append(thing)
            return thing

        assert describe(make(1)) == describe(make(1)) != describe(make(2))

    def test_what_is_shared_does_not_grow_without_bounds(self, monkeypatch):
        thing = [1]
        for _ in range(200):
            thing = [thing, thing]
        assert describe(thing) == describe(copy.deepcopy(thing))
        monkeypatch.setattr(_describe, "_MOST_PARTS", 100)
        with pytest.raises(Unidentifiable, match="more than 100 objects"):
            describe(list(range(200)))

    def test_what_is_nested_too_deeply(self):
        thing = []
        for _ in range(5000):
            thing = [thing]
        with pytest.raises(Unidentifiable, match="nested too deeply"):
            describe(thing)

    def test_what_hides(self):
        for thing in ((i for i in ()), threading.local(), sys.stdout):
            with pytest.raises(Unidentifiable, match="does not tell what it holds"):
                describe({"a": [thing]})

    def test_plain_data(self):
        json.dumps(describe(np.dtype("f4")))


class Scale(nn.Module):
    def __init__(self, factor=2.0):
        super().__init__()
        self._factor = factor

    def forward(self, x):
        return x * self._factor


def network(factor=2.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), Scale(factor)).eval()


class TestNetworks:
    def test_equal_networks(self):
        assert describe(network()) == describe(copy.deepcopy(network())) == describe(network().train())
        assert describe(network()) == describe(pickle.loads(pickle.dumps(network())))
        used = network()
        used(torch.ones(1, 3))
        assert describe(network()) == describe(used)

    @pytest.mark.parametrize(
        "change",
        [
            lambda it: setattr(it[2], "_factor", 3.0),
            lambda it: setattr(it[1], "eps", 0.5),
            lambda it: setattr(it[0], "forward", lambda x: x),
            lambda it: it[0].weight.data.mul_(2),
            lambda it: it[1].running_mean.add_(1),
            lambda it: it[0].register_forward_hook(lambda module, given, out: out * 2),
            lambda it: it[0].register_forward_pre_hook(lambda module, given: None),
            lambda it: it[0].register_forward_hook(lambda module, given, kw, out: None, with_kwargs=True),
            lambda it: setattr(it, "unused", torch.ones(2)),
            lambda it: it.append(nn.Identity()),
        ],
    )
    def test_changes(self, change):
        changed = network()
        change(changed)
        assert describe(changed) != describe(network())

    def test_hooks_do_not_count_by_their_number(self):
        first, second = network(), network()
        second[0].register_forward_hook(len).remove()
        for it in (first, second):
            it[0].register_forward_hook(lambda module, given, out: out * 2)
        assert describe(first) == describe(second)

    def test_other_code_of_the_same_name(self):
        found = set()
        for factor in (2, 2, 3):
            source = f"from torch import nn\nclass C(nn.Module):\n  def forward(self, x): return x * {factor}"
            found.add(repr(describe_parts(nn.Sequential(defined(source)["C"]()))))
        assert len(found) == 2

    def test_a_method_of_a_library_that_the_user_replaced(self, monkeypatch):
        before = describe(network())
        monkeypatch.setattr(nn.Linear, "forward", lambda self, x: x)
        assert describe(network()) != before

    def test_addresses_in_texts_do_not_count(self):
        class Odd(nn.Module):
            def extra_repr(self):
                return repr(object())

        assert describe(Odd()) == describe(Odd())

    def test_traced_graphs(self):
        def graph(factor):
            return torch.fx.symbolic_trace(network(factor))

        assert describe(graph(2.0)) == describe(graph(2.0)) != describe(graph(3.0))


ELSEWHERE = """
import functools, hashlib, sys
import joblib
import numpy as np
import timm
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torchvision import transforms
from skmm.store._describe import describe

FACTORS = {"a", "b", "c", "d", "e"}
TABLE = np.arange(3.0)
PAIRS = ((1.5, "x"), frozenset({"p", "q", "r"}))

class Base:
    names = {"x", "y", "z"}

    def __call__(self, x):
        return super().__repr__()

class Step(Base):
    def __init__(self):
        self.helper = helper

def helper(x, scale=(0.5, 0.5)):
    return x * TABLE + scale[0] if x in {"u", "v", "w"} else PAIRS

class Net(nn.Module):
    def forward(self, x):
        return helper(x) in FACTORS

class Child(Net):
    def __init__(self):
        super().__init__()
        self.layer, self.step = nn.Linear(3, 2), Step()

    def forward(self, x):
        return super().forward(self.layer(F.relu(x)))

def look(thing):
    return hashlib.sha256(repr(describe(thing)).encode()).hexdigest()

def make_things():
    torch.manual_seed(0)
    rows = np.random.default_rng(0).normal(size=(9, 3))
    scaler = make_pipeline(StandardScaler(), PCA(2)).fit(rows)
    yield from (helper, Step(), Net(), Child(), lambda x: Step())
    yield lambda image: torch.from_numpy(scaler.transform(np.asarray(image)))
    yield scaler.transform
    yield functools.partial(F.interpolate, size=(2, 2), mode="bilinear")
    steps = [transforms.Resize(8), transforms.Lambda(lambda image: helper(image)), transforms.ToTensor()]
    yield transforms.Compose(steps)
    hooked = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    hooked[0].register_forward_hook(lambda module, given, out: out * TABLE[1])
    yield hooked
    yield torch.compile(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))
    network = timm.create_model("resnet10t", num_classes=0).eval()
    yield network
    yield timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))

if __name__ == "__main__":
    things = list(make_things())
    print(*map(look, things))
    # Workers get what is defined here anew with each task.
    for _ in range(2):
        print(*joblib.Parallel(n_jobs=2)(joblib.delayed(look)(thing) for thing in things))
"""


def test_the_same_in_every_process(tmp_path):
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    found = set()
    for seed in ("1", "2"):
        environment = {**ENVIRONMENT, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        found.update(done.stdout.splitlines())
    columns = list(zip(*(line.split() for line in found), strict=True))
    assert [len(set(column)) for column in columns] == [1] * 13
    assert len({column[0] for column in columns}) == 13
