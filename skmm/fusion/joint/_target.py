"""The target as a block of columns, beside those of the modalities."""

import numpy as np
import pandas as pd
from sklearn.utils import check_array

# Name of the block; modalities cannot have it, as their names contain no double underscore.
TARGET = "__target__"


def target_block(y, owner):
    """Return the columns of a target, with NaN where it is missing.

    Numbers, which are floats that are not all whole, are standardised; all else are classes, one-hot, of which -1
    stands for a missing one. Of several targets each has columns of its own.
    """
    # As objects, so that None and NaN among strings stay what they are.
    y = np.array(y, dtype=object) if isinstance(y, list | tuple) else y
    y = check_array(y, ensure_2d=False, dtype=None, ensure_all_finite="allow-nan", input_name="y")
    targets = pd.DataFrame(y).infer_objects()
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
