"""scikit-multimodal: learning from text, images, audio, video and tables together, the scikit-learn way."""

import lazy_loader

__version__ = "0.1.0.dev0"

# Resolved on first use, so that `import skmm` stays cheap.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*__all__, "__version__"])


def __dir__():
    return __all__
