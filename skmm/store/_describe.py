"""Descriptions of functions, objects and networks as plain data, equal in every process where they do the same."""

import builtins
import copyreg
import enum
import functools
import hashlib
import importlib.util
import logging
import re
import sys
import threading
import types

import numpy as np

from .._optional import imported
from ..exceptions import first_line
from ._code import library_version, names_read

# What counts by its value alone.
_LEAVES = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented))

# Built-in types whose content a class of the user's may inherit, the special before the general.
_BUILTIN_VALUES = (int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset)

_DESCRIPTORS = (
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
)

# No part in any number.
_NEUTRAL = (logging.Logger, type(threading.Lock()), type(threading.RLock()))

# Entries of a class that do nothing, or tell where it stands in its file.
_CLASS_NOTES = (
    *("__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__"),
    *("__dict__", "__doc__", "__firstlineno__", "__module__", "__orig_bases__", "__parameters__", "__qualname__"),
    *("__slotnames__", "__static_attributes__", "__type_params__", "__weakref__", "_abc_impl"),
)

# Read through these, anything can have a say.
_READS_ANYTHING = frozenset({"__import__", "eval", "exec", "globals"})

# Parts that are looked at before giving up: more than any preprocessing has, and still done in seconds.
_MOST_PARTS = 200_000


class Unidentifiable(Exception):
    """Nothing tells what decides the numbers of an encoder; the text is the reason."""


def describe(thing):
    """Describe a callable, or another object, as plain data that is the same in every process.

    Functions count by their bytecode, constants, defaults and closures, and by the values of the global names that
    they read, all of it looked into in turn; classes by all their methods; objects by their class and attributes;
    arrays and tensors by their values. Libraries count by their version. What code reads from files, the
    environment or the clock while it runs does not show.

    Parameters
    ----------
    thing : object
        What decides numbers.

    Returns
    -------
    description : nested tuples of plain data
        Equal only for things that do the same.

    Raises
    ------
    Unidentifiable
        If something hides what it holds.
    """
    return _looked_into(_Describer().describe, thing)


def describe_parts(network):
    """Describe a network as ``describe`` does, all but the values of its tensors."""
    return _looked_into(_Describer().parts_of, network)


def _looked_into(look, thing):
    try:
        return look(thing)
    except RecursionError:
        raise Unidentifiable("it is nested too deeply to be looked into") from None


def tensors_of(module):
    """Give the state of a module by name, with the buffers that its state dict leaves out."""
    return {**dict(module.named_buffers()), **module.state_dict(keep_vars=True)}


def tensor_digest(module):
    """Give a digest of the values of a module's tensors, and of what else its state holds."""
    import torch

    # Processors have instructions for this one.
    hasher = hashlib.sha256()
    for name, x in sorted(tensors_of(module).items()):
        if isinstance(x, torch.Tensor):
            hasher.update(repr((name, str(x.dtype), tuple(x.shape))).encode())
            hasher.update(_tensor_values(x, name))
        else:
            hasher.update(repr((name, describe(x))).encode())
    return hasher.digest()


def _tensor_values(x, name):
    import torch

    try:
        return x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise Unidentifiable(f"the values of its {name!r} cannot be read: {first_line(error)}") from error


def _name_of(thing):
    return f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _is_library(kind):
    """Tell whether a class is not the user's."""
    # Some compilers of extensions give their classes a descriptor there.
    return not isinstance(kind.__module__, str) or library_version(kind.__module__) is not None


class _Describer:
    """One look at a thing and all that it depends on."""

    def __init__(self):
        # id -> number in the order of appearance. What is seen stays alive, so that no other thing gets its id.
        self._numbers, self._alive = {}, []
        self._n_parts = 0
        self._torch = imported("torch")

    def describe(self, thing):
        """Describe a thing; what has its own identity and was seen before counts as that."""
        self._n_parts += 1
        if self._n_parts > _MOST_PARTS:
            raise Unidentifiable(f"it depends on more than {_MOST_PARTS:,} objects")
        kind = type(thing)
        if kind in _LEAVES:
            return kind.__name__, hex(thing) if kind is int else repr(thing)
        value = self._value(thing)
        if value is not None:
            return value
        if id(thing) in self._numbers:
            return "again", self._numbers[id(thing)]
        self._note(thing)
        return self._described(thing)

    def _note(self, thing):
        self._numbers[id(thing)] = len(self._numbers)
        self._alive.append(thing)

    def _all(self, things):
        return tuple(map(self.describe, things))

    def _items(self, mapping):
        return tuple((name, self.describe(mapping[name])) for name in sorted(mapping, key=str))

    def _value(self, thing):
        """Describe what counts by its value, or by what it consists of; None for all else.

        Which of equal constants are one object differs between processes.
        """
        kind = type(thing)
        if kind is tuple:
            return "tuple", *self._all(thing)
        if kind in (set, frozenset):
            return kind.__name__, *self._unordered(thing)
        if kind is bytearray:
            return "bytearray", bytes(thing)
        if isinstance(thing, np.generic):
            return "scalar", thing.dtype.str, thing.tobytes()
        if isinstance(thing, np.dtype):
            return "dtype", str(thing)
        if kind is np.ndarray:
            if thing.dtype == object:
                return "objects", thing.shape, self._all(thing.ravel())
            if not thing.dtype.hasobject:
                return "array", str(thing.dtype), thing.shape, hashlib.blake2b(thing.tobytes()).digest()
        if kind is types.CodeType:
            return self._code(thing)
        if kind is types.MethodType:
            return "method", *self._all((thing.__func__, thing.__self__))
        if kind in (types.BuiltinFunctionType, types.MethodWrapperType):
            return self._builtin(thing)
        torch = self._torch
        if torch is None:
            return None
        if isinstance(thing, torch.Tensor):
            values = hashlib.blake2b(_tensor_values(thing, type(thing).__name__)).digest()
            return "tensor", _name_of(kind), str(thing.dtype), tuple(thing.shape), values
        if isinstance(thing, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
            return "torch", repr(thing)
        if isinstance(thing, torch.fx.Graph):
            return "graph", str(thing)
        return None

    def _unordered(self, things):
        """Describe the members of a set, each as if it were the first: their order is another in each process."""
        found, before = [], dict(self._numbers)
        for thing in things:
            self._numbers = dict(before)
            found.append(self.describe(thing))
        self._numbers = before
        return sorted(found, key=repr)

    def _described(self, thing):
        if isinstance(thing, type):
            return self._class(thing)
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if isinstance(thing, types.ModuleType):
            return self._module(thing)
        if isinstance(thing, enum.Enum):
            return "enum", thing.name, *self._all((type(thing), thing.value))
        if type(thing) is list:
            return "list", *self._all(thing)
        if type(thing) in (dict, types.MappingProxyType):
            return "dict", *((self.describe(name), self.describe(value)) for name, value in thing.items())
        if isinstance(thing, functools.partial):
            return "partial", *self._all((thing.func, thing.args, thing.keywords, vars(thing)))
        if isinstance(thing, (staticmethod, classmethod)):
            return type(thing).__name__, self.describe(thing.__func__)
        if isinstance(thing, property):
            return "property", *self._all((thing.fget, thing.fset, thing.fdel))
        if hasattr(thing, "cache_parameters") and hasattr(thing, "__wrapped__"):
            return "cached", *self._all((thing.__wrapped__, thing.cache_parameters()))
        if isinstance(thing, _DESCRIPTORS):
            return "descriptor", thing.__name__, self.describe(thing.__objclass__)
        if isinstance(thing, np.ufunc):
            return self._ufunc(thing)
        if isinstance(thing, _NEUTRAL):
            return "neutral", _name_of(type(thing))
        if self._torch is not None and isinstance(thing, self._torch.nn.Module):
            return self._network(thing)
        return self._object(thing)

    def _builtin(self, function):
        owner = function.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            module = function.__module__ or "builtins"
            version = library_version(module)
            if version is None:
                raise Unidentifiable(f"it calls {_name_of(function)}, whose code cannot be read")
            return "builtin", module, function.__qualname__, version
        return "builtin method", function.__name__, self.describe(owner)

    def _ufunc(self, function):
        # Others may have a function of the user's behind their name.
        for library in ("numpy", "scipy.special"):
            if getattr(sys.modules.get(library), function.__name__, None) is function:
                return "ufunc", library, function.__name__, library_version(library)
        raise Unidentifiable(f"it calls the universal function {function.__name__!r}, whose code cannot be read")

    def _code(self, code):
        # Where it stands, in which file and line, does not count.
        return (
            "code",
            sys.implementation.cache_tag,
            code.co_code,
            code.co_exceptiontable,
            code.co_flags,
            (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
            (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
            self._all(code.co_consts),
        )

    def _function(self, function):
        cells = tuple(self._cell(cell) for cell in function.__closure__ or ())
        given = self._all((function.__defaults__, function.__kwdefaults__))
        home, code = function.__globals__.get("__name__"), function.__code__
        version = library_version(home) if isinstance(home, str) else None
        if version is not None:
            # One that a library made for the user holds what the user gave.
            held = (cells, given) if cells or "<locals>" in code.co_qualname else ()
            return "library function", home, code.co_qualname, version, held
        chains, imports = names_read(code)
        read = tuple((chain, self._read(function.__globals__, chain)) for chain in chains)
        package = function.__globals__.get("__package__") or ""
        imported = tuple((found, self._imported(*found, package)) for found in imports)
        return "function", self.describe(code), cells, given, self._items(vars(function)), read, imported

    def _cell(self, cell):
        try:
            return self.describe(cell.cell_contents)
        except ValueError:
            return "empty"

    def _read(self, names, chain):
        """Describe what code finds that takes attributes of a global name."""
        name, *attributes = chain
        if name not in names:
            if name in _READS_ANYTHING:
                raise Unidentifiable(f"its code calls {name}, so that nothing tells what it reads")
            return self.describe(getattr(builtins, name)) if hasattr(builtins, name) else "absent"
        return self._reached(names[name], attributes)

    def _reached(self, thing, attributes):
        """Describe what is reached from a thing: attributes of modules are followed, other things are taken whole."""
        for attribute in attributes:
            if not isinstance(thing, types.ModuleType):
                break
            is_library = library_version(thing.__name__) is not None
            try:
                thing = getattr(thing, attribute)
            except AttributeError:
                return "absent"
            # A library's own objects go with its version; of these may be the user's: functions put in their place.
            kinds = (type, types.FunctionType, types.ModuleType, *_LEAVES)
            if is_library and not isinstance(thing, kinds):
                return "library", attribute
        return self.describe(thing)

    def _imported(self, name, level, names, package):
        try:
            name = importlib.util.resolve_name("." * level + name, package)
        except ImportError:
            return "absent"
        if library_version(name) is not None:
            return "library", library_version(name)
        if name not in sys.modules:
            raise Unidentifiable(f"its code imports {name!r}, which is not there before it runs")
        module = sys.modules[name]
        if not names or "*" in names:
            return self.describe(module)
        return tuple((name, self._reached(module, [name])) for name in names)

    def _module(self, module):
        version = library_version(module.__name__)
        if version is not None:
            return "library module", module.__name__, version
        names = {name: value for name, value in vars(module).items() if not name.startswith("__")}
        return "module", self._items(names)

    def _class(self, kind):
        if _is_library(kind):
            name = _name_of(kind) if isinstance(kind.__module__, str) else kind.__qualname__
            return "library class", name, library_version(name), self._patches(kind)
        own = {name: value for name, value in vars(kind).items() if name not in _CLASS_NOTES}
        return "class", kind.__name__, self._all((type(kind), *kind.__mro__[1:])), self._items(own)

    def _patches(self, kind):
        """Describe the methods of a library's class that are the user's own."""
        found = {}
        for name, method in ((name, value) for base in kind.__mro__ for name, value in vars(base).items()):
            if isinstance(method, types.FunctionType):
                home = method.__globals__.get("__name__")
                if isinstance(home, str) and home in sys.modules and library_version(home) is None:
                    found.setdefault(name, method)
        return self._items(found)

    def _object(self, thing):
        kind = type(thing)
        is_user = not _is_library(kind)
        parts = [self.describe(kind)]
        if is_user:
            # Past whatever the class tells of itself.
            parts.append(self._items(getattr(thing, "__dict__", {})))
            parts.append(self._items(_slots(thing)))
        value = next((value for value in _BUILTIN_VALUES if isinstance(thing, value)), None)
        if value is not None and not isinstance(thing, dict):
            parts.append(self.describe(value(thing)))
        elif value is not None:
            parts.append(self.describe(dict(thing.items())))
        if not is_user or any(map(_is_library, _unlike_builtins(kind))):
            parts.append(self._pickled(thing))
        return "object", *parts

    def _pickled(self, thing):
        """Describe what a pickle of a thing would hold."""
        try:
            reduce = copyreg.dispatch_table.get(type(thing))
            held = thing.__reduce_ex__(4) if reduce is None else reduce(thing)
        # Classes refuse in many ways.
        except Exception as error:
            raise Unidentifiable(
                f"it depends on a {_name_of(type(thing))}, which does not tell what it holds"
            ) from error
        if isinstance(held, str):
            module = getattr(thing, "__module__", None)
            if not isinstance(module, str) or library_version(module) is None:
                raise Unidentifiable(f"it depends on {held!r}, whose code cannot be read")
            return "library", module, held, library_version(module)
        return self._all(list(part) if hasattr(part, "__next__") else part for part in held)

    def _network(self, network):
        """Describe a network by its tensors, and by the class, the attributes and the hooks of each of its parts."""
        return "network", tensor_digest(network), *self.parts_of(network)

    def parts_of(self, network):
        """Describe all of a network but its tensors."""
        parts = list(network.named_modules())
        for _, part in parts:
            self._numbers.setdefault(id(part), len(self._numbers))
        text = re.sub("0x[0-9a-fA-F]+", "", repr(network))
        return text, tuple((name, self.describe(type(part)), self._state(part)) for name, part in parts)

    def _state(self, part):
        import torch

        state = {name: value for name, value in vars(part).items() if name not in _torch_state()}
        # What the compiler wraps is a part of its own.
        is_compiled = state.pop("_compiled_call_impl", None) is not None or hasattr(part, "_orig_mod")
        if is_compiled and hasattr(part, "_orig_mod"):
            state = {}
        if isinstance(part, torch.fx.GraphModule):
            # Its graph is there as code, and this as the method of a class of its own.
            state = {name: value for name, value in state.items() if not name.startswith("_")}
            state["forward"] = type(part).forward
        hooks = [
            (
                name,
                key in part._forward_hooks_with_kwargs,
                key in part._forward_pre_hooks_with_kwargs,
                self.describe(hook),
            )
            for name in ("_forward_hooks", "_forward_pre_hooks")
            for key, hook in getattr(part, name).items()
        ]
        return self._items(state), tuple(hooks), is_compiled


@functools.lru_cache(maxsize=1)
def _torch_state():
    """Give the attributes in which torch keeps tensors, children, hooks, and what only training asks for."""
    import torch

    return frozenset(vars(torch.nn.Module()))


def _unlike_builtins(kind):
    """Give the bases of a class that may hold what neither its attributes nor the value of a built-in type show."""
    return [base for base in kind.__mro__[1:] if base is not object and base not in _BUILTIN_VALUES]


def _slots(thing):
    slots = [
        (name, slot)
        for kind in type(thing).__mro__
        for name, slot in vars(kind).items()
        if isinstance(slot, types.MemberDescriptorType) and not _is_library(kind)
    ]
    return {name: slot.__get__(thing) for name, slot in slots if hasattr(thing, name)}
