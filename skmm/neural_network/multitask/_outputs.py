"""Meaning of the outputs of a network for several tasks."""

from itertools import pairwise

import numpy as np

from ..._columns import missing_rows
from .._outputs import ClassOutputs, NumberOutputs


class TaskOutputs:
    """Outputs of several tasks side by side.

    Parameters
    ----------
    y : ndarray of shape (n_samples, n_tasks), dtype object
        Targets; None or NaN where one is missing.

    tasks : dict of str to {"classification", "regression"}
        Kind of each task.

    weights : ndarray of shape (n_samples,) or None
        Weights of the rows.

    classes : dict of str to array-like or None, default=None
        All classes of tasks, by their names; other tasks have the classes in y.
    """

    def __init__(self, y, tasks, weights, classes=None):
        self.kinds = list(tasks.values())
        self.tasks = []
        classes = classes or {}
        for column, (name, kind) in zip(y.T, tasks.items(), strict=True):
            present = ~missing_rows(column)
            if weights is not None and not weights[present].any():
                raise ValueError(
                    f"MultimodalNetMultiTask: the task {name!r} has targets only in rows of weight 0; leave the column "
                    "out of y, or weigh some of these rows."
                )
            if kind == "classification":
                self.tasks.append(ClassOutputs(_classes(classes[name] if name in classes else column[present])))
            else:
                task_weights = None if weights is None else weights[present]
                self.tasks.append(NumberOutputs(column[present].astype(np.float64), task_weights))
        ends = np.cumsum([0, *(task.n_outputs for task in self.tasks)]).tolist()
        self.slices = [slice(start, end) for start, end in pairwise(ends)]
        self.n_outputs = ends[-1]

    def encode(self, y, owner, dtype):
        """Return the target of each task, and the mask of present targets of shape (n_samples, n_tasks)."""
        is_present = np.column_stack([~missing_rows(column) for column in y.T])
        targets = []
        for task, kind, column, present in zip(self.tasks, self.kinds, y.T, is_present.T, strict=True):
            values = _classes(column[present]) if kind == "classification" else column[present]
            encoded = task.encode(values, owner, dtype)
            target = np.zeros((len(y), *encoded.shape[1:]), dtype=encoded.dtype)
            target[present] = encoded
            targets.append(target)
        return (*targets, is_present.astype(dtype))

    def strata(self, targets):
        """Return None: a split preserves no shares."""

    def prior(self, targets, weights):
        """Return the outputs of shape (n_outputs,) that predict class frequencies and means of the data."""
        *targets, is_present = targets
        priors = []
        for task, target, present in zip(self.tasks, targets, is_present.T > 0, strict=True):
            priors.append(task.prior(target[present], None if weights is None else weights[present]))
        return np.concatenate(priors)

    def split(self, outputs):
        """Return each task with its columns of the outputs."""
        return [(task, outputs[:, columns]) for task, columns in zip(self.tasks, self.slices, strict=True)]


def _classes(column):
    """Return classes as an array of a sortable type instead of objects."""
    return np.array(list(column))
