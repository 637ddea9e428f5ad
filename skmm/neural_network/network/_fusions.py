"""The names of fusion layers, and the layer that the parameter ``fusion`` stands for."""

import copy

# Name -> class in _fusion_layers, and the parameters of a network that its constructor takes. Register layers here.
FUSIONS = {
    "attention": ("AttentionLayer", ["n_heads"]),
    "concat": ("ConcatLayer", []),
    "film": ("FilmLayer", []),
    "gated": ("GatedLayer", []),
    "low_rank": ("LowRankLayer", ["rank"]),
    "mixture": ("MixtureLayer", []),
    "sum": ("SumLayer", []),
    "tensor": ("TensorLayer", []),
    "weighted": ("WeightedLayer", []),
}


def layer_class(name):
    """Return the class that a name stands for."""
    from . import _fusion_layers

    return getattr(_fusion_layers, FUSIONS[name][0])


def weighs_modalities(fusion):
    """Tell whether a layer says how much each modality counted."""
    return getattr(layer_class(fusion) if isinstance(fusion, str) else fusion, "weighs", False)


def needs_same_width(fusion):
    """Tell whether a layer joins hidden vectors of one width only."""
    return getattr(layer_class(fusion) if isinstance(fusion, str) else fusion, "same_width", True)


def make_fusion(fusion, widths, settings):
    """Return the layer, with its parameters, for which the parameter ``fusion`` of a network stands.

    ``widths`` are those of the hidden vectors of each modality, ``settings`` parameters of the network by name, some of
    which layers take.
    """
    import torch

    from ._fusion_layers import FusionLayer, ModuleLayer, check_layer
    from ._randomness import seeded

    if isinstance(fusion, str):
        layer = layer_class(fusion)(**{name: settings[name] for name in FUSIONS[fusion][1]})
        layer.build(widths)
        return layer
    # A layer of the user may draw its weights by functions that take no generator.
    with seeded(int(torch.randint(2**62, ())), torch.device("cpu")):
        layer = fusion() if isinstance(fusion, type) else copy.deepcopy(fusion)
        if not isinstance(layer, FusionLayer):
            layer = ModuleLayer(layer)
        layer.build(widths)
    check_layer(layer, widths)
    return layer
