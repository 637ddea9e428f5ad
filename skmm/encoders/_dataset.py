"""Encoding of tables on disk that need not fit into memory: parquet parts out, which are resumed after any end."""

import json
import os
import pickle
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from filelock import FileLock, Timeout
from joblib import Parallel, delayed
from joblib.externals.loky.backend.reduction import dumps
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from .._columns import from_arrow
from .._optional import import_optional_dependency
from .._table_files import common_schema, table_files
from .._torch import available_cpus
from .._typing import PathType
from ..store import public_name
from ._base import ItemEncoder
from ._model import ModelEncoder
from ._run import EncodingRun

# Key of what skmm writes into the schema of a part.
_KEY = b"skmm"
_ERRORS = "errors"
# Parameters of encoders that change nothing in a part.
_NOT_IN_PARTS = {"batch_size", "on_error", "store", "verbose"}


def encode_dataset(
    source: PathType,
    target: PathType,
    encoders: Mapping[str, tuple[Any, str | list[str]]],
    *,
    batch_rows: int = 10_000,
    n_jobs: int = 1,
    devices: str | Sequence[str] = "auto",
    store: PathType | None = None,
    dtype: str = "float32",
    keep: Sequence[str] | None = None,
    overwrite: bool = False,
    verbose: bool = True,
    engine: str = "joblib",
    ray_options: Mapping[str, Any] | None = None,
) -> Bunch:
    """Encode a table on disk that need not fit into memory.

    Rows are read and encoded in batches, each of which becomes a parquet file in the folder ``target``. A run that was
    ended in any way is continued by the same call: parts that are complete are not encoded again.

    Parameters
    ----------
    source : str or path
        A file (parquet, feather, CSV, JSON lines), a folder of files of one of these formats, in sub-folders or not, a
        folder to which ``datasets.Dataset.save_to_disk`` has written, or a folder of media, whose rows are the paths
        of the files, relative to the folder, in the column ``"path"``. Names of folders such as ``year=2020`` are
        columns too, of strings.

    target : str or path
        Folder for the parts, ``part-00000-000000.parquet`` and so on, by file of the source and batch. Their names are
        in the order of the rows. It is not in the source, nor the source in it.

    encoders : dict of str to (transformer, str or list of str)
        Names of the new columns; for each the encoder and the column of items that it encodes. A transformer other
        than an encoder must be fitted; it may take several columns.

    batch_rows : int, default=10_000
        Rows of a part, and in memory at a time for each worker.

    n_jobs : int, default=1
        Number of processes on the CPU, which share its cores; -1 means all cores. On several GPUs it must be 1.

    devices : "auto" or list of str, default="auto"
        GPUs, such as ``["cuda:0", "cuda:1"]``, each of which gets a process of its own. "auto" takes all CUDA devices
        if there are several; otherwise each encoder's own parameter tells.

    store : str, path or None, default=None
        Folder of an :class:`~skmm.EmbeddingStore` that all processes share, for items that repeat between parts or
        that other calls need. None keeps nothing but the parts.

    dtype : {"float32", "float16"}, default="float32"
        Type of the vectors.

    keep : list of str or None, default=None
        Columns of the source to copy. None copies all but those that are encoded.

    overwrite : bool, default=False
        Whether parts of another encoder, or of a source that has changed, are replaced. Otherwise they are an error.

    verbose : bool, default=True
        Whether to show the progress in rows.

    engine : {"joblib", "ray"}, default="joblib"
        What runs the processes. "ray" starts ``n_jobs`` actors in the cluster to which ``ray.init`` has connected, or
        on this machine. Actors for which there is no room take part once there is. All machines need skmm, and must
        see the target, the store and the media at the same absolute paths; the table itself is read here.

    ray_options : dict, default=None
        Options of each actor, such as ``{"num_cpus": 0.5, "num_gpus": 1}``.

    Returns
    -------
    summary : Bunch
        ``path`` of the folder, ``n_rows``, ``n_parts``, ``n_new_parts`` that this call has encoded, and ``n_errors``,
        the rows of all parts with items that could not be encoded.

    Raises
    ------
    ValueError
        If the folder has parts of other encoders, of other parameters or of a source that has changed since, or if a
        column is missing.

    RuntimeError
        If another call is writing to the folder, or a file of the source is changed meanwhile.

    See Also
    --------
    skmm.datasets.iter_batches : Reads the parts, or any such table, in batches.

    Notes
    -----
    **What a part holds.** Vectors are columns of fixed-size lists, of NaN where the item is missing or could not be
    encoded (pyarrow before version 26 reads no null among such lists); the text column ``"errors"`` tells why. The
    metadata of the schema, under the key ``"skmm"``, tell the version, the file and rows of the source, and the
    identity of each encoder: its class, parameters, model, and a digest of all that decides its rows.

    **Files that cells name**, such as pictures, are not looked at again once their part is complete: remove the part
    after a change, and the same call writes it anew. The files of a folder of media are.

    **Ends.** A part is written under a hidden name and renamed when it is complete, so that a part that can be seen is
    whole. At most the part that each worker was at is encoded again.

    **Text files** (CSV, JSON lines) are read twice, first for the types of their columns and the number of rows.

    **Memory** is that of ``batch_rows`` rows for each worker, and as many ahead. Let it be smaller where cells hold the
    bytes of pictures or sounds.

    Items that cannot be read are missing, whatever ``on_error`` of the encoder is. It needs pyarrow:
    ``pip install "skmm[arrow]"``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from skmm import ImageDescriptor, encode_dataset
    >>> folder = Path(tempfile.mkdtemp())
    >>> pd.DataFrame({"name": ["a", "b", "c"], "photo": ["no.png"] * 3}).to_csv(folder / "table.csv", index=False)
    >>> encoders = {"color": (ImageDescriptor("color"), "photo")}
    >>> summary = encode_dataset(folder / "table.csv", folder / "out", encoders, batch_rows=2, verbose=False)
    >>> summary.n_parts, summary.n_rows, summary.n_errors
    (2, 3, 3)
    >>> pd.read_parquet(folder / "out").columns.tolist()
    ['name', 'color', 'errors']
    """
    _check(encoders, batch_rows, n_jobs, dtype, keep)
    _check_engine(engine, ray_options, n_jobs, devices)
    source, target = Path(source).absolute(), Path(target).absolute()
    files = table_files(source)
    _check_places(source, target)
    schema, copied = _schema_to_read(files, encoders, keep)
    root = os.fspath(source) if files[0].kind == "media" else None
    encoders = {name: (_ready(encoder, store, root), column) for name, (encoder, column) in encoders.items()}
    target.mkdir(parents=True, exist_ok=True)
    with _only_writer(target):
        plan = _Plan(files, target, encoders, {"batch_rows": batch_rows, "dtype": dtype, "copied": copied})
        plan.check(overwrite)
        total = None if any(file.n_rows is None for file in files) else sum(file.n_rows for file in files)
        tasks = plan.tasks(schema)
        if engine == "ray":
            results = _run_on_ray(tasks, encoders, n_jobs, ray_options or {})
        else:
            results = _run(tasks, encoders, n_jobs, _devices(devices, n_jobs), target)
        with tqdm(total=total, initial=plan.n_rows_done, desc="encode_dataset", unit="row", disable=not verbose) as bar:
            try:
                for n_rows in results:
                    bar.update(n_rows)
            except BaseException as error:
                bar.close()
                _note_how_to_go_on(error, target)
                raise
    parts = [_metadata(part) for part in target.glob("part-*.parquet")]
    return Bunch(
        path=os.fspath(target),
        n_rows=sum(part.num_rows for part in parts),
        n_parts=len(parts),
        n_new_parts=len(parts) - plan.n_done,
        n_errors=sum(map(_n_errors, parts)),
    )


def _check(encoders, batch_rows, n_jobs, dtype, keep):
    """Raise if parameters are wrong."""
    if not isinstance(encoders, Mapping) or not encoders:
        raise ValueError(
            'encoders must be a dict such as {"text_vectors": (TextEncoder(), "caption")} with one entry or more, got '
            f"{encoders!r}."
        )
    for name, entry in encoders.items():
        if not (isinstance(entry, tuple) and len(entry) == 2 and hasattr(entry[0], "transform")):
            raise ValueError(f"encoders[{name!r}] must be a pair (encoder, column), got {entry!r}.")
    if _ERRORS in encoders:
        raise ValueError(f"{_ERRORS!r} is the name of the column of errors; choose another one for the encoder.")
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {batch_rows!r}.")
    if isinstance(keep, str) or len(set(keep or [])) < len(keep or []):
        raise ValueError(f"keep must be a list of columns, each once, or None, got {keep!r}.")
    if n_jobs == 0:
        raise ValueError("n_jobs must be a positive number or -1, got 0.")
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}.")


def _check_engine(engine, ray_options, n_jobs, devices):
    """Raise if parameters of the engine are wrong."""
    if engine not in ("joblib", "ray"):
        raise ValueError(f"engine must be 'joblib' or 'ray', got {engine!r}.")
    if engine == "joblib" and ray_options is not None:
        raise ValueError("ray_options needs engine='ray'; set it.")
    if engine == "ray" and (n_jobs < 1 or devices != "auto"):
        raise ValueError(
            "engine='ray' takes the number of actors as n_jobs, 1 or more, and their GPUs in ray_options, as in "
            f'{{"num_gpus": 1}}; got n_jobs={n_jobs!r} and devices={devices!r}.'
        )


def _check_places(source, target):
    """Raise if parts would be written among the files of the source, for which the next call would take them."""
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"The target {os.fspath(target)!r} is a file; pass a folder.")
    source, target = source.resolve(), target.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise ValueError(
            f"The target {os.fspath(target)!r} and the source {os.fspath(source)!r} lie one in the other; pass "
            "a folder beside the source."
        )


def _schema_to_read(files, encoders, keep):
    """Return the columns to read, with their types, and the names of those that are copied."""
    encoded = list(dict.fromkeys(name for _, column in encoders.values() for name in _names(column)))
    copied = [name for name in files[0].schema.names if name not in encoded] if keep is None else list(keep)
    clashes = [name for name in copied if name in encoders or name == _ERRORS]
    if clashes:
        raise ValueError(
            f"The columns {clashes} of the source have the names of new ones; name the columns to copy in keep, or "
            "rename the new ones."
        )
    return common_schema(files, dict.fromkeys([*copied, *encoded])), copied


def _names(column):
    return [column] if isinstance(column, str) else list(column)


def _ready(encoder, store, root):
    """Return an encoder as it is used, which takes items that cannot be read for missing; others must be fitted."""
    if not isinstance(encoder, ItemEncoder):
        check_is_fitted(encoder)
        return encoder
    params = encoder.get_params(deep=False)
    settings = {"on_error": "missing", "store": None if store is None else os.path.abspath(store), "verbose": False}
    if root is not None:
        settings["root"] = root
    return clone(encoder).set_params(**{key: value for key, value in settings.items() if key in params})


def _identity(encoder):
    """Return what tells two encoders apart, as strings: parameters to be read, and a digest of all that decides."""
    described = {"class": public_name(type(encoder))}
    if not isinstance(encoder, ItemEncoder):
        return described | {"digest": joblib.hash(encoder)}
    params = encoder.get_params(deep=False)
    # Addresses in memory are others in the next process.
    texts = {key: re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)) for key, value in params.items()}
    described |= {key: text[:200] for key, text in texts.items() if key not in _NOT_IN_PARTS}
    # The digest is made for the store.
    encoder = clone(encoder).set_params(store="auto")
    if isinstance(encoder, ModelEncoder) and not isinstance(encoder.model, (str, os.PathLike)):
        # What a module in memory makes of fixed items is a part of it.
        encoder.fit([None])
    run = EncodingRun(encoder)
    return described | {"digest": None if run.identity is None else run.identity.hex()}


class _Plan:
    """What is to be written, and what has been.

    Parameters
    ----------
    files : list of TableFile
        Files of the source.

    target : Path
        Folder of the parts.

    encoders : dict of str to (transformer, columns)
        The encoders.

    settings : dict
        Other parameters that decide what a part holds.
    """

    def __init__(self, files, target, encoders, settings):
        self.files, self.target, self.encoders, self.settings = files, target, encoders, settings
        self.identities = {
            name: {**_identity(encoder), "columns": _names(column)} for name, (encoder, column) in encoders.items()
        }
        self.n_rows_done = self.n_done = 0

    def facts(self, file):
        """Return what the metadata of a part tell of its origin."""
        return {
            "file": file.name,
            "signature": file.signature,
            "encoders": self.identities,
            **self.settings,
            "version": sys.modules["skmm"].__version__,
        }

    def check(self, overwrite):
        """Compare the parts in the folder with what this call would write; raise where they differ, or remove them."""
        for path in sorted(self.target.glob(".part-*.tmp")):
            path.unlink()
        for path in sorted(self.target.glob("part-*.parquet")):
            metadata = _metadata(path)
            difference = self._difference(path, _facts_of(metadata))
            if difference is None:
                self.n_done += 1
                self.n_rows_done += metadata.num_rows
            elif overwrite:
                path.unlink()
            else:
                raise ValueError(
                    f"{os.fspath(path)!r} was written by another call: {difference}. Pass overwrite=True to replace "
                    "such parts, or another target."
                )

    def _difference(self, path, facts):
        """Return in words how a part differs from what this call would write; None if it does not."""
        number = int(path.name.split("-")[1])
        if facts is None or number >= len(self.files):
            return "it holds nothing of this source"
        unknown = [name for name, identity in self.identities.items() if identity["digest"] is None]
        if unknown:
            return f"nothing tells whether the encoders {unknown} are the same; set cache_key"
        expected = json.loads(json.dumps(self.facts(self.files[number])))
        for key, value in expected.items():
            if facts.get(key) == value or key == "version":
                continue
            if key == "signature":
                return f"the file {facts['file']!r} has changed since, from {facts[key]} to {value}"
            if key == "encoders":
                return _difference_of_encoders(facts[key], value)
            return f"{key} was {facts.get(key)!r} and is {value!r}"
        return None

    def tasks(self, schema):
        """Yield for each part that is missing its table, its path, its metadata, and where its rows are from."""
        for file_number, file in enumerate(self.files):
            facts = self.facts(file)
            for number, table in file.batches(
                schema, self.settings["batch_rows"], lambda number, at=file_number: self.path(at, number).exists()
            ):
                origin = f"{os.fspath(file.path)!r}, rows from {number * self.settings['batch_rows']}"
                yield table, self.path(file_number, number), facts, origin
            file.check_unchanged()

    def path(self, file_number, number):
        """Return the path of a part."""
        return self.target / f"part-{file_number:05d}-{number:06d}.parquet"


def _difference_of_encoders(old, new):
    """Return in words how the encoders of two calls differ."""
    if set(old) != set(new):
        return f"its columns of vectors are {sorted(old)}, not {sorted(new)}"
    name = next(name for name in new if old[name] != new[name])
    changed = [key for key in new[name] if key != "digest" and old[name].get(key) != new[name][key]]
    changes = ", ".join(f"{key} was {old[name].get(key)} and is {new[name][key]}" for key in changed)
    return f"encoder {name!r}: {changes or 'the files of its model, the device or the version of a library changed'}"


def _metadata(path):
    try:
        return import_optional_dependency("pyarrow.parquet", "arrow").read_metadata(path)
    except Exception as error:
        raise ValueError(f"{os.fspath(path)!r} is no parquet file ({error}); remove it.") from error


def _facts_of(metadata):
    """Return what skmm has written into the metadata of a part; None if nothing."""
    entries = metadata.schema.to_arrow_schema().metadata or {}
    return json.loads(entries[_KEY])["part"] if _KEY in entries else None


def _n_errors(metadata):
    """Return the number of rows with errors, from the statistics of the last column."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return sum(
        group.num_rows - group.column(metadata.num_columns - 1).statistics.null_count
        for group in groups
        if group.num_rows
    )


def _run(tasks, encoders, n_jobs, devices, target):
    """Yield the number of rows of each part that is written, in worker processes if there are several."""
    n_jobs = len(devices) or joblib.effective_n_jobs(n_jobs)
    if n_jobs == 1 and not devices:
        for task in tasks:
            yield _write_part(encoders, *task)
        return
    for claim in target.glob(".device-*"):
        claim.unlink()
    options = {"initializer": _take_device, "initargs": (os.fspath(target), devices)} if devices else {}
    threads = max(1, available_cpus() // n_jobs)
    with joblib.parallel_config(backend="loky", inner_max_num_threads=threads, **options):
        # Batches that wait are in memory.
        parallel = Parallel(n_jobs, return_as="generator_unordered", pre_dispatch=n_jobs + 1, batch_size=1)
        content = bytes(dumps(encoders))
        yield from parallel(delayed(_write_packed_part)(content, *task) for task in _packed(tasks))
    for claim in target.glob(".device-*"):
        claim.unlink()


def _run_on_ray(tasks, encoders, n_jobs, options):
    """Yield as ``_run`` does, from actors of Ray, with a part in the queue of each beside the one that it is at."""
    ray = import_optional_dependency("ray", "ray")
    content = ray.put(bytes(dumps(encoders)))
    # Not tasks, whose processes end after each where they hold a GPU.
    actor_class = ray.remote(**options)(_Writer) if options else ray.remote(_Writer)
    actors = [actor_class.remote() for _ in range(n_jobs)]
    # Those for which there is no room are never waited for alone while others work.
    starting, working, free = {actor.start.remote(): actor for actor in actors}, {}, []
    try:
        for task in _packed(tasks):
            while not free:
                done = ray.wait([*starting, *working])[0][0]
                n_rows = ray.get(done)
                free += [starting.pop(done)] * 2 if done in starting else [working.pop(done)]
                if n_rows is not None:
                    yield n_rows
            actor = free.pop(0)
            working[actor.write.remote(content, *task)] = actor
        while working:
            done = ray.wait(list(working))[0][0]
            del working[done]
            yield ray.get(done)
    finally:
        for actor in actors:
            ray.kill(actor)


class _Writer:
    """An actor of Ray, whose process keeps its models."""

    def start(self):
        """Do nothing: the answer tells that the actor runs."""

    def write(self, *task):
        """Write a part; return its number of rows."""
        return _write_packed_part(*task)


def _packed(tasks):
    """Yield the arguments of ``_write_packed_part`` behind the encoders, for each task."""
    pa = import_optional_dependency("pyarrow", "arrow")
    for table, *others in tasks:
        # A pickled table would hold the memory of all that it is a slice of.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        yield sink.getvalue(), *others


def _devices(devices, n_jobs):
    """Return the numbers of the GPUs that get a process each; an empty list if the encoders' own parameter tells."""
    if isinstance(devices, str):
        if devices != "auto":
            raise ValueError(f'devices must be "auto" or a list such as ["cuda:0", "cuda:1"], got {devices!r}.')
        import torch

        count = torch.cuda.device_count()
        devices = [f"cuda:{number}" for number in range(count)] if count > 1 and n_jobs == 1 else []
    wrong = [device for device in devices if not (device.startswith("cuda:") and device[5:].isdigit())]
    if wrong:
        raise ValueError(f'devices must name GPUs, as in ["cuda:0", "cuda:1"], got {wrong}.')
    if devices and n_jobs != 1:
        raise ValueError(f"Each of the devices {list(devices)} gets a process, so n_jobs must be 1, got {n_jobs}.")
    return [device[5:] for device in devices]


def _take_device(folder, devices):
    """Let a new worker process see the first GPU that none has taken."""
    for device in devices:
        try:
            os.close(os.open(f"{folder}/.device-{device}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        return
    raise RuntimeError("There are more workers than devices.")


def _write_packed_part(encoders, table, *others):
    """Do what ``_write_part`` does in a process that has been sent its arguments."""
    pa = import_optional_dependency("pyarrow", "arrow")
    with pa.ipc.open_stream(table) as reader:
        return _write_part(_unpickled(encoders), reader.read_all(), *others)


# Modules in memory would be new ones for each part.
_unpickled = lru_cache(maxsize=1)(pickle.loads)


def _write_part(encoders, table, path, facts, origin):
    """Encode a table and write it; return its number of rows."""
    pa = import_optional_dependency("pyarrow", "arrow")
    try:
        reasons = [[] for _ in range(table.num_rows)]
        out = table.select(facts["copied"])
        for name, (encoder, column) in encoders.items():
            items = from_arrow(table.column(column) if isinstance(column, str) else table.select(column))
            vectors, errors = _encode(encoder, items)
            for error in errors:
                reasons[error.row].append(f"{name}: {error.reason}")
            out = out.append_column(name, _fixed_size_lists(vectors, facts["dtype"]))
        out = out.append_column(_ERRORS, pa.array(["; ".join(row) or None for row in reasons], pa.string()))
        _write(out, path, facts)
    except Exception as error:
        error.add_note(f"This happened in {origin}.")
        raise
    return table.num_rows


def _encode(encoder, items):
    """Return the vectors of a column, and the errors of its items."""
    if not isinstance(encoder, ItemEncoder):
        vectors = encoder.transform(items)
        if sparse.issparse(vectors):
            raise TypeError("It returns a sparse matrix; put TruncatedSVD behind it in a pipeline, for vectors.")
        return np.asarray(vectors, dtype=np.float32), []
    with warnings.catch_warnings():
        # The column of errors tells more than a warning for each part.
        warnings.filterwarnings("ignore", message=".*could not be encoded and count as missing")
        return encoder.fit_transform(items), encoder.errors_


def _fixed_size_lists(vectors, dtype):
    """Return an array of pyarrow with a list of numbers for each row."""
    pa = import_optional_dependency("pyarrow", "arrow")
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"An encoder must return vectors of one length, got an array of shape {vectors.shape}.")
    values = pa.array(np.ascontiguousarray(vectors, dtype=dtype).ravel())
    # Not null where a row is missing: pyarrow before version 26 could not read that.
    return pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])


def _write(table, path, facts):
    """Write a part under another name, and rename it once it is complete."""
    parquet = import_optional_dependency("pyarrow.parquet", "arrow")
    content = json.dumps({"version": facts["version"], "part": facts})
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: content.encode()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        parquet.write_table(table, temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _only_writer(target):
    """Hold the lock of a folder, so that no two calls write to it at once."""
    lock = FileLock(target / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(
            f"Another call is writing to {os.fspath(target)!r}; wait until it has ended, or choose another target."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _note_how_to_go_on(error, target):
    """Add to an error how many parts are complete, and how to go on."""
    n_parts = len(list(target.glob("part-*.parquet")))
    note = f"{n_parts} parts in {os.fspath(target)!r} are complete; the same call encodes the others."
    if isinstance(error, KeyboardInterrupt):
        # Its notes are seldom shown.
        print(note, file=sys.stderr)
    else:
        error.add_note(note)
