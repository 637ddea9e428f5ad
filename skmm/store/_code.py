"""What code is made of: which library a module belongs to, and which global names a function reads."""

import dis
import functools
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
import types

# Wherever they are installed, these count by their version.
_LIBRARIES = ("PIL", "numpy", "sentence_transformers", "timm", "torch", "torchvision", "transformers")

# The file of a worker's main module is that of whoever started it; the functions in it are the user's.
_MAIN = ("__main__", "__mp_main__")

_INSTALLED = ("site-packages", "dist-packages")

_LOADS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_LOADS_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_BETWEEN = ("EXTENDED_ARG", "CACHE", "NOP")


@functools.lru_cache(maxsize=4096)
def library_version(name):
    """Give the version of the library that a module belongs to, None if it is the user's own code.

    Parameters
    ----------
    name : str
        Full name of the module.

    Returns
    -------
    version : str or None
        "" for what comes with Python, whose version goes with every description of code, and for this package.
    """
    top = name.partition(".")[0]
    if top in _MAIN:
        return None
    # Compilers of extensions make modules for the types of their functions.
    if top == __package__.partition(".")[0] or top in sys.builtin_module_names or top.startswith("_cython_"):
        return ""
    folders = _folders(name) or _folders(top)
    if top not in _LIBRARIES and not any(folder in folders for folder in _INSTALLED):
        return "" if _comes_with_python(top, folders) else None
    # Without one it may change as the user's own code does.
    return _version_of(top)


def _folders(name):
    """Give the parts of the path of a module, () if it is not known."""
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if module is None and "." not in name:
        path = getattr(importlib.util.find_spec(name), "origin", None)
    return tuple(os.path.realpath(path).split(os.sep)) if isinstance(path, str) else ()


def _comes_with_python(top, folders):
    if top not in sys.stdlib_module_names:
        return False
    # A module of that name may be the user's; those that are frozen into Python have no file.
    homes = [os.path.realpath(sysconfig.get_path(kind)).split(os.sep) for kind in ("stdlib", "platstdlib")]
    return not folders or any(list(folders[: len(home)]) == home for home in homes)


def _version_of(top):
    version = getattr(sys.modules.get(top), "__version__", None)
    if not isinstance(version, str):
        names = _distributions().get(top, [])
        version = ",".join(importlib.metadata.version(name) for name in sorted(set(names))) or None
    return None if version is None else version.split("+")[0]


@functools.lru_cache(maxsize=1)
def _distributions():
    return importlib.metadata.packages_distributions()


@functools.lru_cache(maxsize=4096)
def names_read(code):
    """Give the global names that code reads, each with the attributes that it takes of it right away.

    Parameters
    ----------
    code : code
        Code; what is defined within it counts too.

    Returns
    -------
    chains : list of tuple of str
        ("np", "float32") for ``np.float32``, sorted.

    imports : list of (str, int, tuple of str)
        What the code imports while it runs, sorted: the module, the level of a relative import, names taken from it.
    """
    chains, imports, chain, given = set(), set(), (), []
    for step in dis.get_instructions(code):
        if step.opname in _BETWEEN:
            continue
        if step.opname in _LOADS_ATTRIBUTE and chain:
            chain = (*chain, step.argval)
            continue
        chains.add(chain)
        chain = (step.argval,) if step.opname in _LOADS_GLOBAL else ()
        if step.opname == "IMPORT_NAME":
            level, names = given[-2:]
            imports.add((step.argval, level, names or ()))
        given.append(step.argval)
    chains.add(chain)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_read(constant)
            chains.update(inner[0])
            imports.update(inner[1])
    return sorted(chains - {()}), sorted(imports)
