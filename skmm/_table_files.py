"""Tables on disk, read in batches of rows: parquet, feather, CSV, JSON lines, saved data sets, folders of media."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from ._optional import import_optional_dependency

_KIND_OF_SUFFIX = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def _pyarrow(module=""):
    return import_optional_dependency(f"pyarrow{module}", "arrow")


@dataclass(frozen=True)
class TableFile:
    """One file of rows.

    Parameters
    ----------
    path : Path
        The file; of a folder of media, the folder.

    kind : {"parquet", "feather", "csv", "jsonl", "stream", "media"}
        Its format; "stream" is Arrow's format of streams, in which Hugging Face saves data sets.
    """

    path: Path
    kind: str

    @cached_property
    def signature(self) -> str:
        """Size and time of the last change, by which a file that has changed is noticed."""
        if self.kind == "media":
            return f"{len(self._media)} files"
        status = self.path.stat()
        return f"{status.st_size} bytes of {status.st_mtime_ns}"

    @cached_property
    def n_rows(self) -> int | None:
        """Number of rows; None where only reading them all would tell."""
        if self.kind == "media":
            return len(self._media)
        if self.kind == "parquet":
            return self._parquet().metadata.num_rows
        return None

    @cached_property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        if self.kind == "media":
            return ["path"]
        if self.kind == "parquet":
            return self._parquet().schema_arrow.names
        with self._open() as reader:
            return reader.schema.names

    def batches(self, columns: list[str], batch_rows: int, skip=lambda number: False) -> Iterator:
        """Yield the number of each batch of rows, and the batch as a pyarrow Table; the last may be shorter.

        Parameters
        ----------
        columns : list of str
            Columns to read.

        batch_rows : int
            Rows of a batch.

        skip : callable, default=none
            Tells by the number of a batch whether it is left out.
        """
        pa = _pyarrow()
        waiting, n_waiting, number = [], 0, 0
        if self.n_rows is not None:
            while number * batch_rows < self.n_rows and skip(number):
                number += 1
        for table in self._tables(columns, batch_rows, number * batch_rows):
            waiting.append(table)
            n_waiting += table.num_rows
            while n_waiting >= batch_rows:
                joined = pa.concat_tables(waiting)
                if not skip(number):
                    yield number, joined.slice(0, batch_rows)
                waiting, n_waiting, number = [joined.slice(batch_rows)], n_waiting - batch_rows, number + 1
        if n_waiting and not skip(number):
            yield number, pa.concat_tables(waiting)

    def _tables(self, columns, batch_rows, first):
        """Yield tables of any length, from the row ``first`` on."""
        pa = _pyarrow()
        if self.kind == "media":
            for start in range(first, len(self._media), batch_rows):
                yield pa.table({"path": self._media[start : start + batch_rows]}).select(columns)
        elif self.kind == "parquet":
            parquet = self._parquet()
            lengths = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
            ends = list(accumulate(lengths))
            groups = [group for group, end in enumerate(ends) if end > first]
            row = ends[groups[0]] - lengths[groups[0]] if groups else first
            for batch in parquet.iter_batches(batch_rows, row_groups=groups, columns=columns):
                yield pa.Table.from_batches([batch]).select(columns).slice(max(0, first - row))
                row += batch.num_rows
        else:
            with self._open(columns) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch]).select(columns)

    def _parquet(self):
        return _pyarrow(".parquet").ParquetFile(self.path, memory_map=True)

    def _open(self, columns=None):
        """Return a reader of record batches, to be used in ``with``."""
        if self.kind == "csv":
            csv = _pyarrow(".csv")
            delimiter = "\t" if self.path.suffix == ".tsv" else ","
            # Texts may hold line breaks.
            parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
            return csv.open_csv(
                self.path, parse_options=parsing, convert_options=csv.ConvertOptions(include_columns=columns)
            )
        pa = _pyarrow()
        if self.kind == "jsonl":
            return _pyarrow(".json").open_json(self.path)
        if self.kind == "stream":
            return pa.ipc.open_stream(pa.memory_map(os.fspath(self.path)))
        return _RecordBatches(pa.ipc.open_file(pa.memory_map(os.fspath(self.path))))

    @cached_property
    def _media(self):
        """Paths of the files below the folder, in order, relative to it."""
        files = (path for path in self.path.rglob("*") if path.is_file())
        names = (path.relative_to(self.path) for path in files)
        return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


class _RecordBatches:
    """Iterates over the record batches of an Arrow file, as its readers of streams do."""

    def __init__(self, file):
        self._file = file
        self.schema = file.schema

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.__exit__(*error)

    def __iter__(self):
        return map(self._file.get_batch, range(self._file.num_record_batches))


def table_files(source) -> list[TableFile]:
    """Return the files of rows that a source consists of.

    Parameters
    ----------
    source : str or path
        A file (parquet, feather, CSV, JSON lines), a folder of files of one of these formats, a folder to which
        ``datasets.Dataset.save_to_disk`` has written, or a folder of media.

    Returns
    -------
    files : list of TableFile
        The files, in the order of their names.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {os.fspath(path)!r}.")
    if path.is_file():
        if path.suffix.lower() not in _KIND_OF_SUFFIX:
            raise ValueError(
                f"The format of {os.fspath(path)!r} is not known by its name; it must end in one of "
                f"{sorted(_KIND_OF_SUFFIX)}."
            )
        return [TableFile(path, _KIND_OF_SUFFIX[path.suffix.lower()])]
    if (path / "state.json").is_file():
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return [TableFile(path / file["filename"], "stream") for file in state["_data_files"]]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _KIND_OF_SUFFIX)
    kinds = {_KIND_OF_SUFFIX[file.suffix.lower()] for file in files}
    if len(kinds) > 1:
        raise ValueError(f"The folder {os.fspath(path)!r} has tables of several formats, {sorted(kinds)}; pass one.")
    if files:
        return [TableFile(file, *kinds) for file in files]
    media = TableFile(path, "media")
    if not media.n_rows:
        raise ValueError(f"The folder {os.fspath(path)!r} is empty.")
    return [media]
