from ._batches import iter_batches as iter_batches
from ._glyphs import load_glyphs as load_glyphs
from ._synthetic import (
    make_multimodal_classification as make_multimodal_classification,
    make_multimodal_xor as make_multimodal_xor,
)
