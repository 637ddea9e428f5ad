"""Names for the types in public signatures."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, TypeAlias

from numpy.typing import ArrayLike

# One eager pandas or polars DataFrame, a pyarrow Table, or a 2-D array of shape (n_samples, n_features).
Table: TypeAlias = Any

# A column of items: a series or another column of Arrow, a data frame with one column, an array or a sequence.
Items: TypeAlias = Any

# A matrix of shape (n_samples, n_features): an array or a data frame of numbers.
Matrix: TypeAlias = Any

# A column, several or a selector of columns, as ColumnTransformer takes them.
Columns: TypeAlias = str | int | Sequence[str] | Sequence[int] | slice | Callable[[Any], Any] | ArrayLike

# (name, transformer or estimator, columns) of each modality.
Modalities: TypeAlias = Sequence[tuple[str, Any, Columns]]

# Name of each block -> its columns in a matrix; or "prefix", which reads them from the names of the columns.
Blocks: TypeAlias = Mapping[str, slice] | str | None

# A file or folder.
PathType: TypeAlias = str | PathLike

# Seed or generator, as scikit-learn takes them.
RandomState: TypeAlias = Any
