"""Imports of optional dependencies, with an error that says what to install."""

import importlib


def import_optional_dependency(name, extra):
    """Import a module that only an extra of skmm installs.

    Parameters
    ----------
    name : str
        Dotted name of the module.

    extra : str
        Name of the extra in ``pyproject.toml`` that brings the module.

    Returns
    -------
    module : module
        The imported module.

    Raises
    ------
    ImportError
        If the module, or something that it imports, is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"'{name}' is needed here and could not be imported ({error}); install it with: "
            f'pip install "skmm[{extra}]"'
        ) from error
