"""Targets of several tasks, from a data frame, and the parameters that concern them."""

import narwhals.stable.v2 as nw
import numpy as np

from ..._columns import missing_rows

_KINDS = ("classification", "regression")


def as_frame(y):
    """Return a data frame of targets as one of narwhals, or raise."""
    if not nw.dependencies.is_into_dataframe(y):
        raise TypeError(
            f"MultimodalNetMultiTask: y must be a data frame with one column per task, got {type(y).__name__}; "
            "wrap it, as by pandas.DataFrame(y)."
        )
    return nw.from_native(y, eager_only=True)


def read_tasks(frame, tasks):
    """Return the kind of each task: the one in ``tasks``, or one by the type of its column."""
    tasks = tasks or {}
    unknown = sorted(set(tasks) - set(frame.columns), key=str)
    wrong = sorted({str(kind) for kind in tasks.values()} - set(_KINDS))
    if unknown or wrong:
        raise ValueError(
            f"MultimodalNetMultiTask: tasks maps columns of y, {frame.columns}, to 'classification' or "
            f"'regression', got {unknown or wrong}."
        )
    kinds = {}
    for name in frame.columns:
        column = frame[name]
        kinds[name] = tasks.get(name, "regression" if column.dtype.is_float() else "classification")
        if missing_rows(column.to_native()).all():
            raise ValueError(
                f"MultimodalNetMultiTask: the task {name!r} has no target in any row; leave the column out of y."
            )
    return kinds


def read_targets(frame, tasks):
    """Return the targets of tasks, in their order, as an array of objects of shape (n_samples, n_tasks)."""
    missing = [name for name in tasks if name not in frame.columns]
    if missing:
        raise ValueError(
            f"MultimodalNetMultiTask: y lacks the tasks {missing}; it has the columns {list(frame.columns)}; add them, "
            "filled with None where targets are unknown."
        )
    values = np.empty((len(frame), len(tasks)), dtype=object)
    for i, (name, kind) in enumerate(tasks.items()):
        column = frame[name].to_list()
        if kind == "regression":
            try:
                column = [np.nan if value is None else float(value) for value in column]
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"MultimodalNetMultiTask: the task {name!r} is no column of numbers: {error}; pass "
                    f"tasks={{{name!r}: 'classification'}} if it has classes."
                ) from error
            if np.isinf(column).any():
                raise ValueError(
                    f"MultimodalNetMultiTask: the task {name!r} has infinite targets; put NaN in their place."
                )
        values[:, i] = column
    return values


def read_weights(task_weights, n_tasks):
    """Return the weights of the tasks' losses as a list, or None if they are learned."""
    if isinstance(task_weights, str):
        return [1.0] * n_tasks if task_weights == "equal" else None
    weights = np.asarray(task_weights, dtype=np.float64)
    if weights.shape != (n_tasks,) or not (weights >= 0).all() or not weights.any():
        raise ValueError(
            f"MultimodalNetMultiTask: task_weights are {n_tasks} numbers, one per column of y, none below 0 and not "
            f"all 0, got {task_weights!r}."
        )
    return weights.tolist()


def check_classes(classes, kinds, outputs=None):
    """Raise unless ``classes`` maps tasks of classes to their classes, and to those of the fitted outputs."""
    if not isinstance(classes, dict):
        raise TypeError(
            f"MultimodalNetMultiTask: classes maps names of tasks to their classes, got {type(classes).__name__}."
        )
    for name, values in classes.items():
        if kinds.get(name) != "classification":
            raise ValueError(
                f"MultimodalNetMultiTask: {name!r} in classes is no task of classes among {kinds}; leave it out."
            )
        if outputs is not None and not np.array_equal(np.unique(values), outputs[name].classes):
            raise ValueError(
                f"MultimodalNetMultiTask: classes of {name!r} stay those of the first call, "
                f"{outputs[name].classes.tolist()}, got {list(values)}; leave them out, or fit a new network."
            )
