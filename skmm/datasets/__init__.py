"""Data sets that come with skmm or with what it depends on."""

from ._glyphs import load_glyphs

__all__ = ["load_glyphs"]
