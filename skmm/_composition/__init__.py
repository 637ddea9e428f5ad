"""What every composite shares: modalities, the rows that have them, members and their pipelines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
