"""Warnings that point at the line of the caller."""

import sys
import warnings

# Packages whose frames stand between the caller and the code that warns.
_INNER_PACKAGES = {"skmm", "sklearn", "joblib", "concurrent", "contextlib", "functools", "threading"}


def warn(message, category=UserWarning):
    """Warn at the innermost line of code that belongs neither to skmm nor to what calls it for the user.

    Where the whole stack does, as in a thread, the warning points at the outermost line of skmm.

    Parameters
    ----------
    message : str
        Text of the warning.

    category : type, default=UserWarning
        Class of the warning.
    """
    frame = target = sys._getframe(1)
    while frame is not None:
        package = _package(frame)
        if package not in _INNER_PACKAGES:
            target = frame
            break
        if package == "skmm":
            target = frame
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        filename=target.f_code.co_filename,
        lineno=target.f_lineno,
        module=target.f_globals.get("__name__", "<unknown>"),
        registry=target.f_globals.setdefault("__warningregistry__", {}),
    )


def _package(frame):
    """Return the name of the top-level package that a frame's code belongs to."""
    return frame.f_globals.get("__name__", "").partition(".")[0]
