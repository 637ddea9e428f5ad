"""Encoders: transformers from a column of items to a matrix of features."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# Other rooms share these; they are not for users.
for _name in ("add_adapters", "kind_of_item", "start_encoder"):
    __all__.remove(_name)
