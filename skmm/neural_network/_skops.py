"""The types of skmm that a fitted network may hold, for formats that load nothing unless told to."""

from .. import encoders, fusion
from ._classifier import MultimodalNetClassifier
from ._inputs import BranchInput, FrozenInput
from ._outputs import ClassOutputs, NumberOutputs
from ._regressor import MultimodalNetRegressor
from .branches import AudioBranch, ImageBranch, ModuleBranch, SequenceBranch, TextBranch
from .multitask import MultimodalNetMultiTask, TaskOutputs
from .network import GradientModulation

_CLASSES = [
    AudioBranch,
    BranchInput,
    ClassOutputs,
    FrozenInput,
    GradientModulation,
    ImageBranch,
    ModuleBranch,
    MultimodalNetClassifier,
    MultimodalNetMultiTask,
    MultimodalNetRegressor,
    NumberOutputs,
    SequenceBranch,
    TaskOutputs,
    TextBranch,
    *(
        value
        for room in (encoders, fusion)
        for value in (getattr(room, name) for name in room.__all__)
        if isinstance(value, type)
    ),
]


def get_trusted_types():
    """Give the types of skmm that a file of a fitted network may hold.

    Returns
    -------
    trusted_types : list of str
        Dotted paths, as ``skops.io.load`` takes them. Transformers from elsewhere that skops does not know are not
        among these. A network with a module of one's own is no matter for skops, which stores no tensors:
        ``skops.io.dump`` raises and names the module.

    Examples
    --------
    >>> from skmm.neural_network import get_trusted_types
    >>> get_trusted_types()[-1]
    'skmm.neural_network._text_branch.TextBranch'
    """
    return sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in _CLASSES)
