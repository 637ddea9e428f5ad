"""What each modality does in a fitted estimator: importance, contributions, robustness, and drawings of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
