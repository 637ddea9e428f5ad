"""The target as a block of columns, beside those of the modalities."""

import numpy as np
import pandas as pd
from sklearn.utils import check_array

# Name of the block; modalities cannot have it, as their names contain no double underscore.
TARGET = "__target__"


def check_labels(y):
    """Return a target as an array of shape (n_samples,) or (n_samples, n_targets), in which labels may be missing."""
    # As objects, so that None and NaN among strings stay what they are.
    y = np.array(y, dtype=object) if isinstance(y, list | tuple) else y
    return check_array(y, ensure_2d=False, dtype=None, ensure_all_finite="allow-nan", input_name="y")


def target_block(y, owner):
    """Return the columns of a target, with NaN where it is missing.

    Numbers, which are floats that are not all whole, are standardised; all else are classes, one-hot, of which -1
    stands for a missing one. Of several targets each has columns of its own.
    """
    targets = pd.DataFrame(check_labels(y)).infer_objects()
    blocks = []
    for _, values in targets.items():
        if values.dtype.kind == "f" and (values.dropna() % 1).any():
            blocks.append((values - values.mean()) / (values.std() or 1))
        else:
            labelled = values[values.notna() & (values != -1)]
            blocks.append(pd.get_dummies(labelled, dtype=float).reindex(values.index))
    columns = pd.concat(blocks, axis=1)
    if columns.nunique().max() < 2 or columns.shape[1] == 0:
        raise ValueError(
            f"{owner}: target='block' needs at least 2 classes or values in y, got one or none in "
            f"{len(columns.dropna(how='all'))} rows with a label; -1 (of classes) and NaN stand for a missing label."
        )
    return columns.to_numpy()


def label_columns(y, owner):
    """Return the classes or labels of a target as columns of 0 and 1, with 0 where it is missing."""
    columns = np.nan_to_num(target_block(y, owner))
    if not np.isin(columns, (0, 1)).all():
        raise ValueError(f"{owner}: y holds numbers, and classes are needed; bin them, or use another objective.")
    return columns
