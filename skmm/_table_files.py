"""Tables on disk, read in batches of rows: parquet, feather, CSV, JSON lines, saved data sets, folders of media."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ._optional import import_optional_dependency

if TYPE_CHECKING:
    import pyarrow

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
# Bytes of text that are read at a time, in which a row must fit.
_BLOCK = 16 << 20
# Bytes of a column of parquet that are read at a time.
_BUFFER = 1 << 20


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

    name : str
        Its path relative to the source.

    labels : tuple of (str, str or None)
        Columns that the names of its folders tell, as in ``year=2020/a.parquet``.
    """

    path: Path
    kind: str
    name: str
    labels: tuple[tuple[str, str | None], ...] = ()

    @cached_property
    def signature(self) -> str:
        """Size and time of the last change, by which a file that has changed is noticed."""
        if self.kind == "media":
            digest = hashlib.sha256()
            for name in self._media:
                status = (self.path / name).stat()
                digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
            return f"{len(self._media)} files of digest {digest.hexdigest()[:16]}"
        status = self.path.stat()
        return f"{status.st_size} bytes of {status.st_mtime_ns}"

    def check_unchanged(self) -> None:
        """Raise if the file is not as it was when its signature was read first."""
        if replace(self).signature != self.signature:
            raise RuntimeError(f"{os.fspath(self.path)!r} was changed while it was read; encode it again.")

    @cached_property
    def n_rows(self) -> int | None:
        """Number of rows; None where only reading them all would tell."""
        if self.kind == "media":
            return len(self._media)
        if self.kind == "parquet":
            return self._parquet().metadata.num_rows
        return self._read_text[1] if self.kind in ("csv", "jsonl") else None

    @cached_property
    def schema(self) -> "pyarrow.Schema":
        """Names and types of the columns."""
        pa = _pyarrow()
        with self._named():
            if self.kind == "media":
                schema = pa.schema({"path": pa.string()})
            elif self.kind == "parquet":
                schema = self._parquet().schema_arrow
            elif self.kind in ("csv", "jsonl"):
                schema = self._read_text[0]
            else:
                with self._open() as reader:
                    schema = reader.schema
        for name, _ in self.labels:
            schema = schema.append(pa.field(name, pa.string()))
        repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if repeated:
            raise ValueError(f"{os.fspath(self.path)!r} has several columns of the names {repeated}; rename them.")
        return schema

    def batches(self, schema: "pyarrow.Schema", batch_rows: int, skip=lambda number: False) -> Iterator:
        """Yield the number of each batch of rows, and the batch as a pyarrow Table; the last may be shorter.

        Parameters
        ----------
        schema : pyarrow.Schema
            Columns to read, and their types.

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
        with self._named():
            for table in self._tables(schema, batch_rows, number * batch_rows):
                waiting.append(self._typed(table, schema))
                n_waiting += table.num_rows
                while n_waiting >= batch_rows:
                    joined = pa.concat_tables(waiting)
                    if not skip(number):
                        yield number, joined.slice(0, batch_rows)
                    waiting, n_waiting, number = [joined.slice(batch_rows)], n_waiting - batch_rows, number + 1
        if n_waiting and not skip(number):
            yield number, pa.concat_tables(waiting)

    @contextmanager
    def _named(self):
        """Add the path to the errors of pyarrow, which do not tell it."""
        try:
            yield
        except (OSError, _pyarrow().ArrowException) as error:
            error.add_note(f"This happened in {os.fspath(self.path)!r}.")
            raise

    def _typed(self, table, schema):
        """Return the columns of a schema, in its types, those of the labels among them."""
        pa = _pyarrow()
        for name, label in self.labels:
            table = table.append_column(name, pa.array([label] * table.num_rows, pa.string()))
        table = table.select(schema.names)
        if table.schema.types == schema.types:
            return table
        # The metadata stay.
        return table.cast(pa.schema(list(schema), metadata=table.schema.metadata))

    def _tables(self, schema, batch_rows, first):
        """Yield tables of any length, from the row ``first`` on."""
        pa = _pyarrow()
        labels = {name for name, _ in self.labels}
        columns = [name for name in schema.names if name not in labels]
        if self.kind == "media":
            for start in range(first, len(self._media), batch_rows):
                yield pa.table({"path": self._media[start : start + batch_rows]})
        elif self.kind == "parquet":
            parquet = self._parquet()
            lengths = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
            ends = list(accumulate(lengths))
            groups = [group for group, end in enumerate(ends) if end > first]
            row = ends[groups[0]] - lengths[groups[0]] if groups else first
            for batch in parquet.iter_batches(batch_rows, row_groups=groups, columns=columns):
                yield pa.Table.from_batches([batch]).slice(max(0, first - row))
                row += batch.num_rows
        else:
            with self._open({name: schema.field(name).type for name in columns}) as reader:
                n_skipped = first
                for batch in reader:
                    if n_skipped < batch.num_rows:
                        yield pa.Table.from_batches([batch]).slice(n_skipped)
                    n_skipped = max(0, n_skipped - batch.num_rows)

    def _parquet(self):
        return _pyarrow(".parquet").ParquetFile(self.path, buffer_size=_BUFFER)

    def _open(self, types=None):
        """Return a reader of record batches, to be used in ``with``; of CSV and JSON, of columns of given types."""
        pa = _pyarrow()
        if self.kind == "csv":
            return self._open_csv(types, list(types))
        if self.kind == "jsonl":
            json = _pyarrow(".json")
            parsing = json.ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior="ignore")
            return json.open_json(self.path, json.ReadOptions(block_size=_BLOCK), parsing)
        if self.kind == "stream":
            return pa.ipc.open_stream(pa.memory_map(os.fspath(self.path)))
        return _RecordBatches(pa.ipc.open_file(pa.memory_map(os.fspath(self.path))))

    def _open_csv(self, types, columns=None):
        csv = _pyarrow(".csv")
        # Texts may hold line breaks.
        parsing = csv.ParseOptions(delimiter="\t" if self.path.suffix == ".tsv" else ",", newlines_in_values=True)
        converting = csv.ConvertOptions(column_types=types, include_columns=columns)
        return csv.open_csv(self.path, csv.ReadOptions(block_size=_BLOCK), parsing, converting)

    @cached_property
    def _read_text(self):
        """Schema of a text file, and its number of rows. All of it is read: its beginning does not tell the types."""
        return self._read_csv() if self.kind == "csv" else self._read_json()

    def _read_csv(self):
        pa = _pyarrow()
        types = {}
        while True:
            with self._open_csv(types) as reader:
                schema = reader.schema
                wrong = [field.name for field in schema if pa.types.is_binary(field.type)]
                if wrong:
                    raise ValueError(
                        f"The columns {wrong} of {os.fspath(self.path)!r} are not in UTF-8; save the file in it."
                    )
                try:
                    return schema, sum(batch.num_rows for batch in reader)
                except pa.ArrowInvalid as error:
                    place = re.search(r"In CSV column #(\d+)", str(error))
                    field = schema.field(int(place[1])) if place else None
                    if field is None or field.type == pa.string():
                        raise
            # Once more, with a type that takes what came later.
            wider = {pa.null(): pa.int64(), pa.int64(): pa.float64()}
            types[field.name] = wider.get(field.type, pa.string())

    def _read_json(self):
        pa, json = _pyarrow(), _pyarrow(".json")
        schemas, n_rows, rest = [], 0, b""
        with open(self.path, "rb") as file:
            while block := file.read(_BLOCK):
                lines, _, rest = (rest + block).rpartition(b"\n")
                if len(block) < _BLOCK:
                    lines, rest = lines + b"\n" + rest, b""
                if lines.strip():
                    try:
                        table = json.read_json(pa.BufferReader(lines), json.ReadOptions(block_size=len(lines)))
                    except pa.ArrowInvalid as error:
                        error.add_note(f"Rows are counted from row {n_rows}.")
                        raise
                    n_rows += table.num_rows
                    schemas = [_unified([*schemas, table.schema], "jsonl")]
        if not schemas:
            raise ValueError(f"{os.fspath(self.path)!r} has no rows.")
        return schemas[0], n_rows

    @cached_property
    def _media(self):
        """Paths of the files below the folder, in order, relative to it."""
        names = _files_below(self.path)
        wrong = next((name for name in names if name.encode(errors="replace").decode() != name), None)
        if wrong is not None:
            raise ValueError(f"The file name {wrong!r} in {os.fspath(self.path)!r} is not in UTF-8; rename it.")
        return names


def _files_below(folder):
    """Return the paths of all files below a folder that are not hidden, in order, relative to it."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def _unified(schemas, kind):
    """Return one schema for tables of a format, with the columns of all of them."""
    pa = _pyarrow()
    types = {}
    for schema in schemas:
        for field in schema:
            types.setdefault(field.name, []).append(field.type)
    return pa.schema({name: _common_type(name, list(dict.fromkeys(types[name])), kind) for name in types})


def _common_type(name, types, kind):
    pa = _pyarrow()
    if len(types) == 1:
        return types[0]
    types = [each.value_type if pa.types.is_dictionary(each) else each for each in types]
    try:
        schemas = [pa.schema({name: each}) for each in types]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        # In CSV all is text, in JSON what reads as a date is.
        if kind == "csv" or (
            kind == "jsonl" and all(pa.types.is_temporal(each) or pa.types.is_string(each) for each in types)
        ):
            return pa.string()
        raise ValueError(
            f"The column {name!r} has types that do not go together, {[str(each) for each in types]}; write it in one."
        ) from None


def common_schema(files: Sequence[TableFile], columns: Iterable[str] | None = None) -> "pyarrow.Schema":
    """Return the names and types of columns that files have in common.

    Parameters
    ----------
    files : list of TableFile
        The files.

    columns : list of str or None, default=None
        Names of columns, each once. None means those of the first file.

    Returns
    -------
    schema : pyarrow.Schema
        The columns, each of a type that takes the cells of all files.

    Raises
    ------
    ValueError
        If a file does not have a column, or has cells of a type that does not go with those of other files.
    """
    columns = list(files[0].schema.names if columns is None else columns)
    for file in files:
        missing = [name for name in columns if name not in file.schema.names]
        if missing:
            raise ValueError(f"{os.fspath(file.path)!r} has no columns {missing}; it has {file.schema.names}.")
    schema = _unified([file.schema for file in files], files[0].kind) if len(files) > 1 else files[0].schema
    return _pyarrow().schema([schema.field(name) for name in columns])


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
        A file (parquet, feather, CSV, JSON lines), a folder of files of one of these formats, in sub-folders or not, a
        folder to which ``datasets.Dataset.save_to_disk`` has written, or a folder of media.

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
        return [TableFile(path, _KIND_OF_SUFFIX[path.suffix.lower()], path.name)]
    if (path / "dataset_dict.json").is_file():
        splits = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
        raise ValueError(f"{os.fspath(path)!r} is a data set of several splits, {splits}; pass the folder of one.")
    if (path / "state.json").is_file():
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return [TableFile(path / file["filename"], "stream", file["filename"]) for file in state["_data_files"]]
    return _files_of_folder(path)


def _files_of_folder(path):
    """Return the tables of a folder and its sub-folders, or the folder of media that it is."""
    names = [Path(name) for name in _files_below(path) if not any(part.startswith("_") for part in Path(name).parts)]
    tables = [name for name in names if name.suffix.lower() in _KIND_OF_SUFFIX]
    in_folder = [name for name in tables if len(name.parts) == 1]
    if in_folder and len(in_folder) < len(tables):
        raise ValueError(
            f"The folder {os.fspath(path)!r} has tables both in itself and in sub-folders, such as "
            f"{os.fspath(in_folder[0])!r} and {os.fspath(next(name for name in tables if len(name.parts) > 1))!r}; "
            "pass a folder that has either."
        )
    if in_folder or (tables and len(tables) == len(names)):
        kinds = {_KIND_OF_SUFFIX[name.suffix.lower()] for name in tables}
        if len(kinds) > 1:
            raise ValueError(
                f"The folder {os.fspath(path)!r} has tables of several formats, {sorted(kinds)}; pass one."
            )
        return [TableFile(path / name, *kinds, name.as_posix(), _labels(name)) for name in tables]
    media = TableFile(path, "media", path.name)
    if not media.n_rows:
        raise ValueError(f"The folder {os.fspath(path)!r} is empty.")
    return [media]


def _labels(name):
    """Return the columns and values in the names of folders, as in ``year=2020/a.parquet``."""
    pairs = (part.split("=", 1) for part in name.parts[:-1] if "=" in part)
    return tuple((key, None if label == "__HIVE_DEFAULT_PARTITION__" else unquote(label)) for key, label in pairs)
