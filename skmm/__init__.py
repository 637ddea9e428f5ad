"""scikit-multimodal: learning from text, images and tables together, the scikit-learn way."""

import importlib

__version__ = "0.1.0.dev0"

_HOMES = {
    "AudioDescriptor": "encoders",
    "AudioEncoder": "encoders",
    "AverageFusion": "fusion",
    "CCAFusion": "fusion",
    "ConcatFusion": "fusion",
    "EmbeddingStore": "store",
    "ImageDescriptor": "encoders",
    "ImageEncoder": "encoders",
    "KernelCCAFusion": "fusion",
    "KernelFusion": "fusion",
    "LDAFusion": "fusion",
    "ModalityFuser": "fusion",
    "ModalityImputer": "fusion",
    "ModalityStackingClassifier": "ensemble",
    "ModalityStackingRegressor": "ensemble",
    "ModalityVotingClassifier": "ensemble",
    "ModalityVotingRegressor": "ensemble",
    "MultimodalNetClassifier": "neural_network",
    "MultimodalNetMultiTask": "neural_network",
    "MultimodalNetRegressor": "neural_network",
    "PCAFusion": "fusion",
    "PLSFusion": "fusion",
    "ProductFusion": "fusion",
    "TextEncoder": "encoders",
    "VideoAudio": "encoders",
    "VideoEncoder": "encoders",
}
_SUBPACKAGES = ("datasets", "encoders", "ensemble", "fusion", "inspection", "model_selection", "neural_network")

__all__ = sorted([*_HOMES, *_SUBPACKAGES, "__version__"])


def __getattr__(name):
    # Resolved on first use, so that `import skmm` stays as cheap as what it imports: nothing.
    if name in _SUBPACKAGES:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
