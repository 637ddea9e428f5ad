"""Data sets that come with skmm or with what it depends on, and synthetic ones."""

from ._glyphs import load_glyphs
from ._synthetic import make_multimodal_classification, make_multimodal_xor

__all__ = ["load_glyphs", "make_multimodal_classification", "make_multimodal_xor"]
