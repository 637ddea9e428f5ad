from ._estimator import MultimodalNetMultiTask as MultimodalNetMultiTask
from ._outputs import TaskOutputs as TaskOutputs
