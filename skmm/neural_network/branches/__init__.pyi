from ._base import Branch as Branch, ModuleBranch as ModuleBranch
from ._image import ImageBranch as ImageBranch
from ._signal import AudioBranch as AudioBranch, SequenceBranch as SequenceBranch
from ._text import TextBranch as TextBranch
