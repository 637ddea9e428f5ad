"""Targets of several tasks, from a data frame, and the parameters that concern them."""

import narwhals.stable.v2 as nw
import numpy as np

from ..._missing import missing_rows

_KINDS = ("classification", "regression")


def as_frame(y):
    """Give a data frame of targets as one of narwhals, or raise."""
    if not nw.dependencies.is_into_dataframe(y):
        raise TypeError(
            f"MultimodalNetMultiTask: y must be a data frame with one column per task, got {type(y).__name__}."
        )
    return nw.from_native(y, eager_only=True)


def read_tasks(frame, given):
    """Give the kind of each task: the one given, or the one that the type of its column tells."""
    given = given or {}
    unknown = sorted(set(given) - set(frame.columns), key=str)
    wrong = sorted({str(kind) for kind in given.values()} - set(_KINDS))
    if unknown or wrong:
        raise ValueError(
            f"MultimodalNetMultiTask: tasks maps columns of y, {frame.columns}, to 'classification' or "
            f"'regression', got {unknown or wrong}."
        )
    found = {}
    for name in frame.columns:
        column = frame[name]
        found[name] = given.get(name, "regression" if column.dtype.is_float() else "classification")
        if missing_rows(column.to_native()).all():
            raise ValueError(f"MultimodalNetMultiTask: the task {name!r} has no target in any row.")
    return found


def read_targets(frame, tasks):
    """Give the targets of tasks, in their order, as an array of objects of shape (n_samples, n_tasks)."""
    absent = [name for name in tasks if name not in frame.columns]
    if absent:
        raise ValueError(
            f"MultimodalNetMultiTask: y lacks the tasks {absent}; it has the columns {list(frame.columns)}."
        )
    values = np.empty((len(frame), len(tasks)), dtype=object)
    for i, (name, kind) in enumerate(tasks.items()):
        column = frame[name].to_list()
        if kind == "regression":
            try:
                column = [np.nan if value is None else float(value) for value in column]
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"MultimodalNetMultiTask: the task {name!r} is no column of numbers: {error}."
                ) from error
            if np.isinf(column).any():
                raise ValueError(f"MultimodalNetMultiTask: the task {name!r} has infinite targets.")
        values[:, i] = column
    return values


def read_weights(given, n_tasks):
    """Give the weights of the tasks' losses as a list, or None if they are learned."""
    if isinstance(given, str):
        return [1.0] * n_tasks if given == "equal" else None
    weights = np.asarray(given, dtype=np.float64)
    if weights.shape != (n_tasks,) or not (weights >= 0).all() or not weights.any():
        raise ValueError(
            f"MultimodalNetMultiTask: task_weights are {n_tasks} numbers, one per column of y, none below 0 and not "
            f"all 0, got {given!r}."
        )
    return weights.tolist()


def check_classes(classes, tasks, parts=None):
    """Raise unless classes are given by tasks of classes, and are those that the tasks' parts of the outputs have."""
    if not isinstance(classes, dict):
        raise TypeError(
            f"MultimodalNetMultiTask: classes maps names of tasks to their classes, got {type(classes).__name__}."
        )
    for name, given in classes.items():
        if tasks.get(name) != "classification":
            raise ValueError(f"MultimodalNetMultiTask: {name!r} in classes is no task of classes among {tasks}.")
        if parts is not None and not np.array_equal(np.unique(given), parts[name].classes):
            raise ValueError(
                f"MultimodalNetMultiTask: classes of {name!r} stay those of the first call, "
                f"{parts[name].classes.tolist()}, got {list(given)}."
            )
