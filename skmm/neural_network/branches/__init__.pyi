from ._base import Branch as Branch
from ._image import ImageBranch as ImageBranch
from ._signal import AudioBranch as AudioBranch, SequenceBranch as SequenceBranch
from ._text import TextBranch as TextBranch
from ._users_module import ModuleBranch as ModuleBranch
from ._video import VideoBranch as VideoBranch
