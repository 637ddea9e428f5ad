"""The embedding store: what one encoder has computed is not computed again."""

import lazy_loader

__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["EmbeddingStore"]
