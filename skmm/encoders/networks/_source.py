"""Where the networks of encoders come from: folders, packages, the hub, modules in memory."""

import os
from contextlib import contextmanager

from ..._checkpoints import bases_of, checkpoint_files


def folder_signature(folder, cache=None, outer=()):
    """Give what tells the files below a folder, and the bases of adapters: it changes when a model is replaced."""
    where = os.path.realpath(folder)
    if where in outer or not os.path.isdir(where):
        return where
    names = checkpoint_files(folder)
    found = [(name, os.stat(os.path.join(folder, name))) for name in names]
    bases = (base and folder_signature(base, cache, (*outer, where)) for base in bases_of(folder, names, cache))
    return *((name, f.st_ino, f.st_size, f.st_mtime_ns, f.st_ctime_ns) for name, f in found), *bases


@contextmanager
def without_progress_bar():
    """Keep transformers from showing bars of its own while a model loads."""
    from transformers.utils import logging

    shows_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows_bar:
            logging.enable_progress_bar()
