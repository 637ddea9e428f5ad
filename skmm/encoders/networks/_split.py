"""A network in two: the layers below, which stay as they are, and the layers on top, which are trained."""

import copy

import torch
from torch import nn

# Kinds of modules that list layers, and the largest share of the weights of all layers that one of them has.
_LISTS = nn.ModuleList, nn.Sequential
_LARGEST_SHARE = 0.8
# Share of the weights from which on a list beside others is a stage of its own, and not a stem.
_STAGE_SHARE = 0.1


class _Reached(Exception):
    """The forward pass has come to the end of the lower layers; ``states`` is what they return."""

    def __init__(self, states):
        self.states = states


class _Last(nn.Module):
    """The last of the lower layers: it ends the forward pass with its output."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *args, **kwargs):
        output = self.layer(*args, **kwargs)
        states = output[0] if isinstance(output, tuple) else output
        if not isinstance(states, torch.Tensor):
            raise ValueError(f"a {type(self.layer).__name__} returns a {type(states).__name__}, not a tensor")
        raise _Reached(states)


class _Skipped(nn.Module):
    """Stands for a lower layer, and returns the states that were computed before."""

    def __init__(self, returns_tuple):
        super().__init__()
        self.returns_tuple = returns_tuple
        self.states = None

    def forward(self, *args, **kwargs):
        return (self.states,) if self.returns_tuple else self.states


class SplitModel:
    """The model of an encoder, split below its last layers.

    The layers are the entries of the list of blocks that holds most of the network's weights, such as the 6 layers of
    a BERT-like network or the 7 stages of an EfficientNet, else the modules of the network that have weights, such as
    the 4 stages of a ResNet and what is before them. What comes after the layers belongs to those on top.

    Parameters
    ----------
    model : object
        What an encoder's hooks work with; it is copied.

    n_layers : int or None
        Number of layers on top. None, and all there are, leave nothing below.

    forward : callable
        Maps a model and a list of inputs to a tensor of rows: the encoder's ``_forward``.

    probe : list
        Inputs of the network, by which the split is checked.

    Attributes
    ----------
    top : object
        The model with the layers on top alone; all of its weights can be trained.

    n_below : int
        Number of layers below.

    Raises
    ------
    ValueError
        If the layers on top need more than what the layers below return.
    """

    def __init__(self, model, n_layers, forward, probe):
        self._forward, self._model = forward, model
        network = copy.deepcopy(model.network)
        layers, returns_tuple = find_layers(network, lambda: forward(with_network(model, network), probe))
        self.n_below = 0 if n_layers is None else max(0, len(layers) - n_layers)
        self._below, self._skipped = None, []
        if self.n_below:
            below = copy_network(network, shared=network.parameters())
            _replace(below, layers[self.n_below - 1], _Last)
            for layer in layers[self.n_below :]:
                _replace(below, layer, lambda _: nn.Identity())
            self._below = with_network(model, below)
            for layer in layers[: self.n_below]:
                self._skipped.append(_replace(network, layer, lambda _: _Skipped(returns_tuple)))
        self.top = with_network(model, network.requires_grad_(True))
        if self.n_below and not self._agrees(probe, probe):
            raise ValueError(
                f"{type(model.network).__name__} cannot be split below its last {n_layers} layers, which need more "
                'than what the layers below return; train all layers, with n_layers="all".'
            )

    def reads_inputs(self, entry):
        """Return whether the layers on top read more of an input, a tensor, than what the layers below return."""
        if not isinstance(entry, torch.Tensor):
            return True
        other = ~entry if entry.dtype == torch.uint8 else -entry
        return not self._agrees([entry], [other])

    def _agrees(self, inputs, others):
        """Return whether the rows of other inputs follow from these inputs and the states of the others."""
        try:
            with torch.no_grad():
                rows, expected = self.rows(inputs, self.states(others)), self._forward(self._model, others)
        # Networks of any kind: what they raise does not tell more than that.
        except Exception:
            return False
        return rows.shape == expected.shape and torch.allclose(rows, expected, rtol=1e-3, atol=1e-4)

    def states(self, inputs):
        """Return what the layers below make of inputs of one shape, a tensor with one entry per input."""
        try:
            with torch.no_grad():
                self._forward(self._below, inputs)
        except _Reached as reached:
            return reached.states
        raise RuntimeError("the lower layers did not run")

    def rows(self, inputs, states):
        """Return the rows of inputs of one shape, from the states of the layers below; None if there are none."""
        for layer in self._skipped:
            layer.states = states
        try:
            return self._forward(self.top, inputs)
        finally:
            for layer in self._skipped:
                layer.states = None


def copy_network(network, shared=()):
    """Return a copy of a network that shares some of its weights."""
    return copy.deepcopy(network, {id(weights): weights for weights in shared})


def with_network(model, network):
    """Return a copy of what an encoder's hooks work with that has another network."""
    twin = copy.copy(model)
    twin.network = network
    if hasattr(twin, "_model"):
        # Images of a CLIP-like network run through a model for texts and images.
        twin._model = with_network(twin._model, network)
    return twin


def find_layers(network, run):
    """Return the names of the layers of a network in the order in which they run, and whether they return tuples.

    ``run`` is a function without arguments that runs the network.
    """
    finished, returns_tuple, handles = [], {}, []
    for name, module in network.named_modules():

        def note(_, inputs, output, name=name):
            finished.append(name)
            returns_tuple[name] = isinstance(output, tuple)

        handles.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    layers = sorted(_Tree(network, returns_tuple).layers(), key=finished.index)
    return layers, any(returns_tuple[name] for name in layers)


class _Tree:
    """The modules of a network that run.

    What does not run has no part in the rows, such as the text half of a network that encodes images; and looking up
    embeddings takes no time. The weights of both are not counted.
    """

    def __init__(self, network, running):
        self._modules = dict(network.named_modules())
        self._running = running
        self._sizes = dict.fromkeys(self._modules, 0)
        for name in set(running):
            size = 0
            if not isinstance(self._modules[name], nn.Embedding):
                size = sum(p.numel() for p in self._modules[name].parameters(recurse=False))
            for outer in _outer_names(name):
                self._sizes[outer] += size

    def layers(self):
        """Return the names of the layers: the entries of the outermost list that holds most of the weights."""
        for name, module in self._modules.items():
            if isinstance(module, _LISTS) and self._holds_layers(name):
                # Lists side by side are the stages of a network.
                parent = name.rpartition(".")[0]
                least = max(1, _STAGE_SHARE * self._sizes[parent])
                lists = [n for n in self._children(parent, False) if isinstance(self._modules[n], _LISTS)]
                is_stage = sum(self._sizes[n] >= least for n in lists) > 1
                return self._children(parent if is_stage else name)
        # Without a list: the modules of the first module that has several.
        name = ""
        while len(children := self._children(name)) == 1:
            (name,) = children
        return children

    def _children(self, name, running=True):
        names = (f"{name}.{child}".removeprefix(".") for child, _ in self._modules[name].named_children())
        return [child for child in names if self._sizes[child] and (child in self._running or not running)]

    def _holds_layers(self, name):
        sizes = [self._sizes[child] for child in self._children(name)]
        # The modules of a whole network, one of which does nearly all the work, are not its layers.
        return len(sizes) > 1 and 2 * sum(sizes) >= self._sizes[""] and max(sizes) <= _LARGEST_SHARE * sum(sizes)


def _outer_names(name):
    """Return the names of a module, of all that it is inside of, and of the network, which is ""."""
    parts = name.split(".") if name else []
    return ["", *(".".join(parts[: i + 1]) for i in range(len(parts)))]


def _replace(network, name, make):
    """Replace a module of a network by what a function makes of it, and return that."""
    parent, _, child = name.rpartition(".")
    parent = network.get_submodule(parent)
    parent._modules[child] = module = make(parent._modules[child])
    return module
