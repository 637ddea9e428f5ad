"""What the outputs of a network for several tasks mean."""

from itertools import pairwise

import numpy as np

from ..._missing import missing_rows
from .._outputs import ClassOutputs, NumberOutputs


class TaskOutputs:
    """Outputs of several tasks side by side.

    Parameters
    ----------
    y : ndarray of shape (n_samples, n_tasks), dtype object
        Targets; None or NaN where one is not known.

    tasks : dict of str to {"classification", "regression"}
        Kind of each task.

    weights : ndarray of shape (n_samples,) or None
        Weights of the rows.

    classes : dict of str to array-like or None, default=None
        All classes of tasks, by their names; of others those in y are all.
    """

    def __init__(self, y, tasks, weights, classes=None):
        self.kinds = list(tasks.values())
        self.parts = []
        classes = classes or {}
        for column, (name, kind) in zip(y.T, tasks.items(), strict=True):
            known = ~missing_rows(column)
            if kind == "classification":
                self.parts.append(ClassOutputs(_classes(classes[name] if name in classes else column[known])))
            else:
                own = None if weights is None else weights[known]
                self.parts.append(NumberOutputs(column[known].astype(np.float64), own))
        ends = np.cumsum([0, *(part.n_outputs for part in self.parts)]).tolist()
        self.slices = [slice(start, end) for start, end in pairwise(ends)]
        self.n_outputs = ends[-1]

    def encode(self, y, owner, dtype):
        """Give a target per task, and which rows know it, of shape (n_samples, n_tasks)."""
        known = np.column_stack([~missing_rows(column) for column in y.T])
        targets = []
        for part, kind, column, own in zip(self.parts, self.kinds, y.T, known.T, strict=True):
            found = part.encode(_classes(column[own]) if kind == "classification" else column[own], owner, dtype)
            target = np.zeros((len(y), *found.shape[1:]), dtype=found.dtype)
            target[own] = found
            targets.append(target)
        return (*targets, known.astype(dtype))

    def strata(self, targets):
        """Give None: nothing is kept the shares of."""

    def prior(self, targets, weights):
        """Give the outputs that stand for frequencies and means in the data, of shape (n_outputs,)."""
        *targets, known = targets
        found = []
        for part, target, own in zip(self.parts, targets, known.T > 0, strict=True):
            found.append(part.prior(target[own], None if weights is None else weights[own]))
        return np.concatenate(found)

    def split(self, outputs):
        """Give each task's part and its columns of the outputs."""
        return [(part, outputs[:, own]) for part, own in zip(self.parts, self.slices, strict=True)]


def _classes(column):
    """Give classes as an array of their own type, which can be sorted."""
    return np.array(list(column))
