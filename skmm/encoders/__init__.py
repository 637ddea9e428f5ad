"""Encoders: transformers from a column of items to a matrix of features."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# Branches of networks share this loader; it is not for users.
__all__.remove("load_image_model")
