"""The command line: encode a table, look at what was encoded, find items that cannot be read, compare fusions.

Exit status: 0 if all went well, 1 if there are items that could not be read, which are listed, 2 if a command cannot do
what it was asked for, 130 if it was interrupted.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from ._optional import import_optional_dependency
from ._table_files import table_files
from .datasets import iter_batches
from .encoders import (
    AudioDescriptor,
    AudioEncoder,
    ImageDescriptor,
    ImageEncoder,
    TextEncoder,
    VideoEncoder,
    encode_dataset,
    infer_modalities,
)

_ENCODERS = {"text": TextEncoder, "image": ImageEncoder, "audio": AudioEncoder, "video": VideoEncoder}
# What reads files of each kind without a network.
_READERS = {"text": TextEncoder, "image": ImageDescriptor, "audio": AudioDescriptor, "video": VideoEncoder}
# Whole numbers of more different values are no classes.
_MOST_CLASSES = 20
# Most items that are listed.
_MOST_LISTED = 20


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the command line.

    Parameters
    ----------
    arguments : list of str, default=None
        Words after ``skmm``; None means those of the process.

    Returns
    -------
    status : int
        0, 1 if items could not be read, 2 if the command failed, or 130 if it was interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        # As a shell has it of programs that a signal ends.
        return 130
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        print(f"skmm {options.name}: {error}{notes}", file=sys.stderr)
        return 2


def _parser():
    parser = argparse.ArgumentParser(prog="skmm", description="Multimodal learning: texts, images, sounds, tables.")
    parser.add_argument("--version", action="version", version=f"skmm {sys.modules['skmm'].__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="command")

    encode = commands.add_parser("encode", help="encode columns of a table of any size into a folder of parquet files")
    encode.set_defaults(command=_encode)
    encode.add_argument("source", help="parquet, feather, CSV or JSON lines file, a folder of these, or of media")
    encode.add_argument("target", help="folder to write to; the same command goes on where an earlier one ended")
    for kind in _ENCODERS:
        _add_columns(encode, kind)
        encode.add_argument(f"--{kind}-model", metavar="NAME", help=f"model for {kind} columns, or its folder")
    encode.add_argument("--root", help="folder that relative paths start from")
    encode.add_argument("--batch-rows", type=int, default=10_000, metavar="N", help="rows of a file (default: 10000)")
    encode.add_argument("--n-jobs", type=int, default=1, metavar="N", help="processes on the CPU (default: 1)")
    encode.add_argument("--devices", nargs="+", metavar="DEVICE", help="GPUs, such as cuda:0 cuda:1 (default: all)")
    encode.add_argument("--store", help="folder in which rows are kept for other calls")
    encode.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="type of the vectors")
    encode.add_argument("--keep", nargs="*", metavar="COLUMN", help="columns to copy (default: all others)")
    encode.add_argument("--overwrite", action="store_true", help="replace files that another command has written")
    encode.add_argument("--quiet", action="store_true", help="show no progress")

    info = commands.add_parser("info", help="tell what a folder that `encode` has written holds")
    info.set_defaults(command=_info)
    info.add_argument("folder")

    errors = commands.add_parser("errors", help="list the items of a table that cannot be read")
    errors.set_defaults(command=_errors)
    errors.add_argument("source", help="as of `encode`")
    for kind in _READERS:
        _add_columns(errors, kind)
    errors.add_argument("--root", help="folder that relative paths start from")

    compare = commands.add_parser("compare", help="compare strategies of fusion with each other and with one modality")
    compare.set_defaults(command=_compare)
    compare.add_argument("source", help="a table that fits into memory, in a format of `encode`")
    compare.add_argument("--target", required=True, metavar="COLUMN", help="what is to be predicted")
    compare.add_argument("--groups", metavar="COLUMN", help="rows of one group are never split between folds")
    compare.add_argument("--drop", nargs="*", default=[], metavar="COLUMN", help="columns to leave out")
    compare.add_argument("--root", help="folder that relative paths start from")
    compare.add_argument("--task", choices=["classification", "regression"], help="(default: by the target)")
    compare.add_argument("--scoring", help="name of a score of scikit-learn (default: accuracy or r2)")
    compare.add_argument("--folds", type=int, default=5, metavar="N", help="number of folds (default: 5)")
    compare.add_argument("--levels", nargs="+", metavar="LEVEL", help="single, feature, joint, decision, model, tuned")
    compare.add_argument("--n-jobs", type=int, default=1, metavar="N", help="fits at the same time (default: 1)")
    compare.add_argument("--html", metavar="FILE", help="write a page with tables and drawings")
    return parser


def _add_columns(parser, kind):
    parser.add_argument(f"--{kind}", nargs="+", default=[], metavar="COLUMN", help=f"columns of {kind}")


def _columns(options, encoders):
    """Return the kind of each column that the options name, at least one."""
    columns = {column: kind for kind in encoders for column in getattr(options, kind)}
    if len(columns) < sum(len(getattr(options, kind)) for kind in encoders):
        raise ValueError("a column is named more than once; name each for one kind.")
    if not columns:
        raise ValueError(f"name a column: {', '.join(f'--{kind} COLUMN' for kind in encoders)}.")
    return columns


def _encode(options):
    encoders = {}
    for column, kind in _columns(options, _ENCODERS).items():
        params = {"model": getattr(options, f"{kind}_model"), "root": options.root if kind != "text" else None}
        encoder = _ENCODERS[kind](**{key: value for key, value in params.items() if value is not None})
        encoders[f"{column}_vector"] = encoder, column
    summary = encode_dataset(
        options.source,
        options.target,
        encoders,
        batch_rows=options.batch_rows,
        n_jobs=options.n_jobs,
        devices=options.devices or "auto",
        store=options.store,
        dtype=options.dtype,
        keep=options.keep,
        overwrite=options.overwrite,
        verbose=not options.quiet,
    )
    print(
        f"{summary.n_rows} rows in {summary.n_parts} parts in {summary.path}, {summary.n_new_parts} of them new; "
        f"{summary.n_errors} rows with errors."
    )
    if summary.n_errors:
        _list_errors(options.target)
    return 1 if summary.n_errors else 0


def _list_errors(folder):
    """Print the first rows of a folder of parts that have errors."""
    n_listed, row = 0, 0
    for batch in iter_batches(folder, ["errors"]):
        for number, reason in enumerate(batch["errors"]):
            if isinstance(reason, str) and n_listed < _MOST_LISTED:
                print(f"row {row + number}: {reason}")
                n_listed += 1
        row += len(batch)


def _info(options):
    parquet = import_optional_dependency("pyarrow.parquet", "arrow")
    parts = sorted(Path(options.folder).glob("part-*.parquet"))
    if not parts:
        raise ValueError(f"{options.folder!r} holds no parts; it is no folder that `skmm encode` has written to.")
    schema = parquet.read_schema(parts[0])
    if b"skmm" not in (schema.metadata or {}):
        raise ValueError(f"{os.fspath(parts[0])!r} was not written by skmm.")
    facts = json.loads(schema.metadata[b"skmm"])["part"]
    n_rows = sum(parquet.read_metadata(part).num_rows for part in parts)
    n_errors = sum(batch["errors"].notna().sum() for batch in iter_batches(options.folder, ["errors"]))
    print(f"{n_rows} rows in {len(parts)} parts, {n_errors} with errors, written by skmm {facts['version']}")
    for field in schema:
        print(f"{field.name}: {field.type}")
        encoder = facts["encoders"].get(field.name)
        if encoder is not None:
            params = ", ".join(f"{key}={value}" for key, value in encoder.items() if key in ("model", "revision"))
            print(f"    {encoder['class']} of {', '.join(encoder['columns'])} {params}".rstrip())
    return 0


def _errors(options):
    columns = _columns(options, _READERS)
    files = table_files(options.source)
    root = options.source if files[0].kind == "media" else options.root
    readers = {
        column: _READERS[kind](**({} if kind == "text" or root is None else {"root": root}))
        for column, kind in columns.items()
    }
    row = n_errors = 0
    for batch in iter_batches(options.source, list(readers)):
        for column, reader in readers.items():
            for error in reader.find_errors(batch[column]):
                print(f"row {row + error.row}, {column}: {error.item}: {error.reason}")
                n_errors += 1
        row += len(batch)
    print(f"{n_errors} of {row * len(readers)} items cannot be read.")
    return 1 if n_errors else 0


def _compare(options):
    import pandas as pd
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV

    from .model_selection import compare_fusions

    X = pd.concat(iter_batches(options.source), ignore_index=True)
    missing = [name for name in (options.target, options.groups, *options.drop) if name and name not in X]
    if missing:
        raise ValueError(f"{options.source!r} has no columns {missing}; it has {list(X)}.")
    is_missing = X[options.target].isna()
    if is_missing.any():
        print(f"{is_missing.sum()} of {len(X)} rows have no {options.target!r} and are left out.\n")
        X = X[~is_missing].reset_index(drop=True)
    y, groups = X.pop(options.target), X[options.groups] if options.groups else None
    X = X.drop(columns=[*options.drop, *([options.groups] if options.groups else [])])
    modalities = infer_modalities(X, y, root=options.root)
    print(f"{modalities.report.to_string(index=False)}\n")
    is_number = pd.api.types.is_numeric_dtype(y) and not pd.api.types.is_bool_dtype(y)
    regresses = options.task == "regression" or (
        options.task is None and is_number and (y.nunique() > _MOST_CLASSES or (y % 1 != 0).any())
    )
    print(f"Task: {'regression' if regresses else 'classification'} of {options.target!r}.\n")
    if regresses:
        estimator = RidgeCV(alphas=[10**power for power in range(-2, 5)])
    else:
        estimator = LogisticRegressionCV(
            Cs=[0.0001, 0.001, 0.01, 0.1, 1],
            cv=3,
            l1_ratios=(0,),
            scoring="neg_log_loss",
            use_legacy_attributes=False,
            max_iter=1000,
        )
    comparison = compare_fusions(
        estimator,
        X,
        y,
        modalities=modalities,
        cv=options.folds,
        groups=groups,
        **({"levels": options.levels} if options.levels else {}),
        scoring=options.scoring,
        refit=False,
        n_jobs=options.n_jobs,
        verbose=True,
    )
    print(comparison.to_frame()[["level", "mean", "low", "high", "gain", "verdict"]].round(3).to_string(na_rep=""))
    print(f"\n{comparison.summary()}")
    if options.html:
        comparison.to_html(options.html)
        print(f"\nPage: {options.html}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
