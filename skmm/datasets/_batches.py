"""Tables on disk in batches of rows, for what is fitted by ``partial_fit``."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._columns import from_arrow
from .._optional import import_optional_dependency
from .._table_files import common_schema, table_files
from .._typing import PathType

if TYPE_CHECKING:
    import pandas as pd


def iter_batches(
    path: PathType, columns: Sequence[str] | None = None, *, batch_rows: int = 10_000
) -> Iterator["pd.DataFrame"]:
    """Iterate over a table on disk in batches of rows.

    Parameters
    ----------
    path : str or path
        A file (parquet, feather, CSV, JSON lines), a folder of files of one of these formats such as
        :func:`~skmm.encode_dataset` writes, or a folder to which ``datasets.Dataset.save_to_disk`` has written.

    columns : list of str or None, default=None
        Columns to read; None means all.

    batch_rows : int, default=10_000
        Rows of a batch. The last one of each file may have fewer.

    Returns
    -------
    batches : iterator of pandas.DataFrame of shape (n_rows, n_columns)
        The batches. A column of vectors of one length becomes as many columns, ``"text__0"``, ``"text__1"`` and so on,
        with NaN where the vector is missing, so that ``blocks="prefix"`` of a fusion strategy tells them apart.

    Raises
    ------
    ValueError
        If a column is missing, or has types in the files that do not go together.

    See Also
    --------
    skmm.encode_dataset : Writes vectors of items to disk.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import CCAFusion
    >>> from skmm.datasets import iter_batches
    >>> shared = np.random.default_rng(0).normal(size=(100, 2))
    >>> path = Path(tempfile.mkdtemp()) / "table.csv"
    >>> columns = ["text__0", "text__1", "image__0", "image__1"]
    >>> pd.DataFrame(np.hstack([shared, shared[:, ::-1]]), columns=columns).to_csv(path, index=False)
    >>> cca = CCAFusion(2, regularization=0.1, blocks="prefix")
    >>> for X in iter_batches(path, batch_rows=50):
    ...     cca = cca.partial_fit(X)
    >>> cca.correlations_.round(2).tolist()
    [1.0, 1.0]
    """
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {batch_rows!r}.")
    files = table_files(path)
    return _batches(files, common_schema(files, columns), batch_rows)


def _batches(files, schema, batch_rows):
    for file in files:
        for _, table in file.batches(schema, batch_rows):
            yield _frame(table)


def _frame(table):
    """Return a pyarrow Table as a data frame, with vectors as columns of numbers."""
    import pandas as pd

    pa = import_optional_dependency("pyarrow", "arrow")
    frames = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_fixed_size_list(column.type):
            vectors = _matrix(column.combine_chunks())
            frames.append(
                pd.DataFrame(vectors, columns=[f"{name}__{position}" for position in range(vectors.shape[1])])
            )
        else:
            frames.append(from_arrow(column).rename(name))
    return pd.concat(frames, axis=1)


def _matrix(column):
    """Return a column of fixed-size lists as an array with a row for each, NaN where it is null."""
    vectors = np.full((len(column), column.type.list_size), np.nan, dtype=column.type.value_type.to_pandas_dtype())
    present = column.is_valid().to_numpy(zero_copy_only=False)
    vectors[present] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return vectors
