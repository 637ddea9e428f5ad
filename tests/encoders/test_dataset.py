"""Tables on disk: what parts hold, how runs are continued, what ends one, formats, workers, killed processes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from skmm import ImageDescriptor, ImageEncoder, _table_files, encode_dataset
from skmm.datasets import iter_batches
from skmm.encoders import _dataset

N_ROWS = 23


@pytest.fixture
def frame(tmp_path):
    """A table with paths of pictures, one missing, one that is no picture, and numbers."""
    rng = np.random.default_rng(0)
    paths = [os.fspath(tmp_path / f"{number}.png") for number in range(N_ROWS)]
    for path in paths:
        Image.fromarray(rng.integers(255, size=(8, 8, 3), dtype=np.uint8)).save(path)
    Path(paths[5]).write_bytes(b"no picture")
    frame = pd.DataFrame({"row": range(N_ROWS), "photo": paths, "price": rng.normal(size=N_ROWS)})
    frame.loc[3, "photo"] = None
    return frame


@pytest.fixture
def table(frame, tmp_path):
    """The table as a parquet file whose row groups are no batches."""
    path = tmp_path / "table.parquet"
    pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=7)
    return path


def encoders(features="color", **params):
    return {"vectors": (ImageDescriptor(features, **params), "photo")}


def encode(source, target, entries=None, **options):
    options = {"batch_rows": 5, "verbose": False} | options
    return encode_dataset(source, target, encoders() if entries is None else entries, **options)


def vectors_of(folder, name="vectors"):
    return np.stack(pd.read_parquet(folder)[name])


def expected(frame):
    with pytest.warns(UserWarning, match="1 of"):
        return ImageDescriptor("color", on_error="missing").fit_transform(frame["photo"])


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("part-*.parquet"))}


def write_stream(frame, folder):
    """Write a table as Hugging Face's ``save_to_disk`` does, in two files."""
    folder.mkdir()
    files = []
    for number, rows in enumerate((slice(0, 10), slice(10, None))):
        part = pa.Table.from_pandas(frame.iloc[rows], preserve_index=False)
        files.append({"filename": f"data-0000{number}-of-00002.arrow"})
        with pa.ipc.new_stream(folder / files[-1]["filename"], part.schema) as writer:
            writer.write_table(part, max_chunksize=4)
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))


FORMATS = {
    "table.parquet": lambda frame, path: pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=7),
    "table.feather": lambda frame, path: pa.feather.write_feather(frame, path, chunksize=6),
    "table.csv": lambda frame, path: frame.to_csv(path, index=False),
    "table.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "table.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "saved": write_stream,
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name, frame, tmp_path):
    FORMATS[name](frame, tmp_path / name)
    summary = encode(tmp_path / name, tmp_path / "out")
    out = pd.read_parquet(tmp_path / "out")
    assert list(out.columns) == ["row", "price", "vectors", "errors"]
    assert_array_equal(out["row"], frame["row"])
    assert_array_equal(vectors_of(tmp_path / "out"), expected(frame))
    assert np.isnan(out["vectors"][3]).all()
    assert out["errors"].notna().to_numpy().nonzero()[0].tolist() == [5]
    assert out["errors"][5].startswith("vectors: the content is not an image")
    n_parts = 2 + 3 if name == "saved" else 5
    assert summary == {
        "path": os.fspath(tmp_path / "out"),
        "n_rows": N_ROWS,
        "n_parts": n_parts,
        "n_new_parts": n_parts,
        "n_errors": 1,
    }


@pytest.mark.parametrize("batch_rows", [1, 7, 23, 100])
def test_parts_have_the_rows_asked_for(batch_rows, table, tmp_path):
    encode(table, tmp_path / "out", batch_rows=batch_rows)
    lengths = [pq.read_metadata(path).num_rows for path in sorted((tmp_path / "out").glob("part-*"))]
    assert lengths[:-1] == [batch_rows] * (len(lengths) - 1)
    assert sum(lengths) == N_ROWS


@pytest.mark.parametrize("missing", [[0], [2], [0, 1, 4], [4], [0, 1, 2, 3, 4]])
def test_parts_that_are_complete_stay(missing, table, tmp_path):
    folder = tmp_path / "out"
    encode(table, folder)
    before, whole = times(folder), pd.read_parquet(folder)
    for number in missing:
        (folder / f"part-00000-{number:06d}.parquet").unlink()
    (folder / ".part-00000-000002.parquet.77.tmp").write_bytes(b"half of a part")
    # Whoever reads the folder meanwhile does not meet it.
    if len(missing) < 5:
        assert len(pd.read_parquet(folder)) < N_ROWS
    summary = encode(table, folder)
    assert summary.n_new_parts == len(missing)
    assert not list(folder.glob(".part*"))
    after = times(folder)
    assert [int(name[-14:-8]) for name in before if after[name] != before[name]] == missing
    pd.testing.assert_frame_equal(pd.read_parquet(folder), whole)


def test_nothing_to_do_loads_no_model(table, tmp_path, monkeypatch):
    encode(table, tmp_path / "out")
    monkeypatch.setattr(ImageDescriptor, "fit_transform", None)
    assert encode(table, tmp_path / "out").n_new_parts == 0


CHANGES = {
    "batch_rows was 5 and is 6": {"batch_rows": 6},
    "dtype was 'float32' and is 'float16'": {"dtype": "float16"},
    r"copied was \['row', 'price'\] and is \['price'\]": {"keep": ["price"]},
    "encoder 'vectors': features was 'color' and is 'hog'": {"entries": encoders("hog")},
    "encoder 'vectors': pooling was 'mean' and is 'max'": {"entries": encoders(pooling="max")},
    r"its columns of vectors are \['vectors'\], not \['v'\]": {"entries": {"v": (ImageDescriptor("color"), "photo")}},
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_change_is_an_error(message, table, tmp_path):
    folder = tmp_path / "out"
    encode(table, folder)
    before = times(folder)
    with pytest.raises(
        ValueError, match=f"part-00000-000000.parquet' was written by another call: {message}. Pass over"
    ):
        encode(table, folder, **CHANGES[message])
    assert times(folder) == before
    assert encode(table, folder, **CHANGES[message], overwrite=True).n_rows == N_ROWS


def test_what_changes_no_row_is_none(table, tmp_path):
    encode(table, tmp_path / "out")
    again = encode(table, tmp_path / "out", encoders(verbose=True), store=tmp_path / "store")
    assert again.n_new_parts == 0


def test_a_source_that_has_changed(table, frame, tmp_path):
    encode(table, tmp_path / "out")
    pq.write_table(pa.Table.from_pandas(frame.iloc[:12]), table)
    with pytest.raises(ValueError, match=r"the file 'table.parquet' has changed since, from .* bytes of"):
        encode(table, tmp_path / "out")
    summary = encode(table, tmp_path / "out", overwrite=True)
    assert (summary.n_rows, summary.n_parts) == (12, 3)


def test_parts_of_something_else(table, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "part-00000-000000.parquet").write_bytes(table.read_bytes())
    with pytest.raises(ValueError, match="it holds nothing of this source"):
        encode(table, folder)
    (folder / "part-00000-000000.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"is no parquet file .*; remove it"):
        encode(table, folder)


def test_two_calls_at_once(table, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(RuntimeError, match="Another call is writing to"):
        encode(table, tmp_path / "out")
    assert encode(table, tmp_path / "out").n_new_parts == 5


def test_a_row_group_that_cannot_be_read(table, frame, tmp_path):
    content = bytearray(table.read_bytes())
    start = pq.read_metadata(table).row_group(2).column(1).data_page_offset
    content[start - 20 : start + 20] = bytes(40)
    table.write_bytes(content)
    with pytest.raises(OSError) as failure:  # noqa: PT011 the words are those of pyarrow
        encode(table, tmp_path / "out")
    n_parts = len(times(tmp_path / "out"))
    assert 1 <= n_parts <= 2
    assert f"{n_parts} parts in" in failure.value.__notes__[-1]
    assert_array_equal(vectors_of(tmp_path / "out"), expected(frame)[: 5 * n_parts])


def test_a_disk_that_is_full(table, tmp_path, monkeypatch):
    write = pq.write_table

    def fail(out, path):
        if "000003" in path.name:
            path.write_bytes(b"a beginning")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(out, path)

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", fail)
        with pytest.raises(OSError, match="No space left") as failure:
            encode(table, tmp_path / "out")
    assert "rows from 15" in failure.value.__notes__[0]
    assert "3 parts in" in failure.value.__notes__[1]
    assert not list((tmp_path / "out").glob(".part*"))
    assert encode(table, tmp_path / "out").n_new_parts == 2


def test_an_interrupt(table, tmp_path, monkeypatch, capsys):
    write = _dataset._write

    def interrupt(out, path, facts):
        if "000002" in path.name:
            raise KeyboardInterrupt
        write(out, path, facts)

    with monkeypatch.context() as patch:
        patch.setattr(_dataset, "_write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            encode(table, tmp_path / "out")
    assert "2 parts in" in capsys.readouterr().err
    assert encode(table, tmp_path / "out").n_new_parts == 3


def test_folder_of_media(frame, tmp_path):
    folder = tmp_path / "media"
    (folder / "below").mkdir(parents=True)
    for number in (1, 0, 5):
        Path(frame["photo"][number]).rename(folder / "below" / f"{number}.png")
    (folder / ".hidden").write_bytes(b"")
    encode(folder, tmp_path / "out", {"color": (ImageDescriptor("color"), "path")}, keep=["path"], batch_rows=2)
    out = pd.read_parquet(tmp_path / "out")
    assert out["path"].tolist() == ["below/0.png", "below/1.png", "below/5.png"]
    assert [np.isnan(vector).all() for vector in out["color"]] == [False, False, True]
    # Versions of pyarrow before 26 read no null among lists of one length.
    assert pq.read_table(tmp_path / "out")["color"].null_count == 0


def test_several_files_of_one_format(frame, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, rows in {"b.csv": slice(12, None), "a.csv": slice(0, 12)}.items():
        frame.iloc[rows].to_csv(folder / name, index=False)
    encode(folder, tmp_path / "out")
    assert_array_equal(pd.read_parquet(tmp_path / "out")["row"], frame["row"])
    (folder / "c.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"tables of several formats, \['csv', 'parquet'\]"):
        encode(folder, tmp_path / "out")


def test_sub_folders(frame, tmp_path):
    for label, rows in {"2020": slice(0, 12), "a%20b": slice(12, None)}.items():
        folder = tmp_path / "tables" / f"year={label}"
        folder.mkdir(parents=True)
        frame.iloc[rows].to_parquet(folder / "0.parquet")
        # Left there by other programs.
        (folder / "._0.parquet").write_bytes(b"")
        (folder / "_SUCCESS").write_bytes(b"")
    summary = encode(tmp_path / "tables", tmp_path / "out")
    out = pd.read_parquet(tmp_path / "out")
    assert out["year"].tolist() == ["2020"] * 12 + ["a b"] * 11
    assert_array_equal(out["row"], frame["row"])
    assert encode(tmp_path / "tables", tmp_path / "out").n_new_parts == 0
    assert summary.n_parts == 3 + 3
    frame.to_parquet(tmp_path / "tables" / "0.parquet")
    with pytest.raises(
        ValueError, match=r"has tables both in itself and in sub-folders, such as '0.parquet' and 'year"
    ):
        encode(tmp_path / "tables", tmp_path / "out")


def test_a_data_set_of_several_splits(frame, tmp_path):
    (tmp_path / "saved").mkdir()
    write_stream(frame, tmp_path / "saved" / "train")
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(ValueError, match=r"a data set of several splits, \['train'\]; pass the folder of one"):
        encode(tmp_path / "saved", tmp_path / "out")


def test_files_with_other_types(frame, tmp_path):
    """Types of a column that go together become one, in all parts, so that other programs can read them."""
    folder = tmp_path / "tables"
    folder.mkdir()
    frame.to_parquet(folder / "a.parquet")
    frame.assign(row=frame["row"] + 0.5, price=None).to_parquet(folder / "b.parquet")
    encode(folder, tmp_path / "out")
    types = {tuple(pq.read_schema(path).types) for path in (tmp_path / "out").glob("part-*")}
    assert len(types) == 1
    out = pd.read_parquet(tmp_path / "out")
    assert_array_equal(out["row"], [*frame["row"], *(frame["row"] + 0.5)])
    frame.assign(row=["a"] * N_ROWS).to_parquet(folder / "c.parquet")
    with pytest.raises(ValueError, match=r"column 'row' has types that do not go together, \['int64', 'double', "):
        encode(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("ending", "first", "last"),
    [("csv", 1, "b"), *((e, f, last) for e in ("csv", "jsonl") for f, last in [(1, 2.5), (None, "b"), (None, 2.5)])],
)
def test_text_whose_types_change(ending, first, last, tmp_path, monkeypatch):
    """What comes after the first block of a file decides the types as well."""
    monkeypatch.setattr(_table_files, "_BLOCK", 200)
    frame = pd.DataFrame({"x": np.arange(100.0), "changing": [first] * 99 + [last]}, dtype=object)
    path = tmp_path / f"table.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_json(path, orient="records", lines=True)
    scaler = StandardScaler().fit(frame[["x"]])
    summary = encode(path, tmp_path / "out", {"v": (scaler, ["x"])}, batch_rows=30)
    out = pd.read_parquet(tmp_path / "out")
    assert (summary.n_rows, summary.n_parts) == (100, 4)
    assert_array_equal(vectors_of(tmp_path / "out", "v"), scaler.transform(frame[["x"]]).astype(np.float32))
    assert out["changing"].iloc[-1] == last
    kept = out["changing"].iloc[0]
    assert (kept == first or kept == str(first)) if first else (kept == "" or pd.isna(kept))


def test_json_whose_types_do_not_go_together(tmp_path, monkeypatch):
    monkeypatch.setattr(_table_files, "_BLOCK", 200)
    (tmp_path / "table.jsonl").write_text('{"x": 1}\n' * 100 + '{"x": "b"}\n')
    with pytest.raises(ValueError, match="changed from number to string") as failure:
        encode(tmp_path / "table.jsonl", tmp_path / "out", {"v": (StandardScaler(), ["x"])}, keep=[])
    assert failure.value.__notes__[0] == "Rows are counted from row 88."
    (tmp_path / "table.jsonl").write_text('{"x":    1}\n' * 100 + '{"x":  "b"}\n')
    with pytest.raises(ValueError, match=r"column 'x' has types that do not go together, \['int64', 'string'\]"):
        encode(tmp_path / "table.jsonl", tmp_path / "out", {"v": (StandardScaler(), ["x"])}, keep=[])


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_json_with_other_keys_and_dates(end, tmp_path, monkeypatch):
    monkeypatch.setattr(_table_files, "_BLOCK", 120)
    rows = [{"x": number, "day": "2020-01-02"} for number in range(20)] + [{"x": 20, "day": "unknown", "new": "é"}]
    path = tmp_path / "table.jsonl"
    path.write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + end, encoding="utf-8")
    out = pd.concat(iter_batches(path, batch_rows=8))
    assert out["x"].tolist() == list(range(21))
    assert out["day"].tolist() == ["2020-01-02"] * 20 + ["unknown"]
    assert out["new"].notna().sum() == 1
    assert out["new"].iloc[-1] == "é"


def test_csv_from_windows(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfx,text\r\n" + b'1,"a\r\nb"\r\n' * 9)
    encode(path, tmp_path / "out", {"v": (StandardScaler().fit(pd.DataFrame({"x": [0, 1]})), ["x"])})
    assert pd.read_parquet(tmp_path / "out")["text"].tolist() == ["a\r\nb"] * 9
    path.write_bytes("x,text\n1,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"columns \['text'\] of '.*table.csv' are not in UTF-8"):
        next(iter_batches(path))


@pytest.mark.parametrize("lengths", [[0, 23], [23, 0], [0, 0, 10, 0, 13, 0], [1] * 23, [5, 5, 5, 5, 3]])
@pytest.mark.parametrize("batch_rows", [1, 5, 100])
def test_row_groups(lengths, batch_rows, frame, tmp_path):
    path, start = tmp_path / "groups.parquet", 0
    with pq.ParquetWriter(path, pa.Table.from_pandas(frame).schema) as writer:
        for length in lengths:
            writer.write_table(pa.Table.from_pandas(frame.iloc[start : start + length]))
            start += length
    entries = {"v": (StandardScaler().fit(frame[["price"]]), ["price"])}
    encode(path, tmp_path / "out", entries, batch_rows=batch_rows)
    for part in list(times(tmp_path / "out"))[::2]:
        (tmp_path / "out" / part).unlink()
    encode(path, tmp_path / "out", entries, batch_rows=batch_rows)
    assert pd.read_parquet(tmp_path / "out")["row"].tolist() == list(range(N_ROWS))


def test_files_without_rows(frame, tmp_path):
    path = tmp_path / "table.parquet"
    frame.iloc[:0].to_parquet(path)
    assert encode(path, tmp_path / "out").n_parts == 0
    path.write_bytes(b"")
    with pytest.raises(pa.ArrowInvalid) as failure:
        encode(path, tmp_path / "out")
    assert str(path) in failure.value.__notes__[0]


CELLS = {
    "struct of bytes": lambda path: {"bytes": Path(path).read_bytes(), "path": None},
    "struct of path": lambda path: {"bytes": None, "path": path},
    "list of structs": lambda path: [{"bytes": Path(path).read_bytes(), "path": None}] * 2,
    "bytes": lambda path: Path(path).read_bytes(),
}
TYPES = {
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int8(), pa.string()),
}


@pytest.mark.parametrize("form", [*CELLS, *TYPES])
def test_types_of_items(form, frame, tmp_path):
    cells = [CELLS.get(form, str)(path) for path in frame["photo"][:3]] + [None]
    pq.write_table(pa.table({"a photo.ü": pa.array(cells, TYPES.get(form))}), tmp_path / "table.parquet")
    encode(tmp_path / "table.parquet", tmp_path / "out", {"v": (ImageDescriptor("color"), "a photo.ü")}, batch_rows=3)
    rows = ImageDescriptor("color").fit_transform(frame["photo"][:4])
    np.testing.assert_allclose(vectors_of(tmp_path / "out", "v"), rows, rtol=1e-6)


@pytest.mark.parametrize("place", ["tables", "tables/out", "."])
def test_source_and_target_apart(place, frame, tmp_path):
    """Parts among the files of the source would be rows of the next call, and ``overwrite`` would remove the source."""
    (tmp_path / "tables").mkdir()
    source = tmp_path / "tables" / "part-00000-000000.parquet"
    frame.to_parquet(source)
    for each in (source, source.parent):
        if each == source and place == "tables/out":
            continue
        with pytest.raises(ValueError, match=r"lie one in the other; pass a folder beside"):
            encode(each, tmp_path / place, overwrite=True)
    assert len(pd.read_parquet(source)) == N_ROWS
    with pytest.raises(NotADirectoryError, match="is a file; pass a folder"):
        encode(source.parent, source)


def test_media_that_have_changed(frame, tmp_path):
    (tmp_path / "media").mkdir()
    Path(frame["photo"][0]).rename(tmp_path / "media" / "a.png")
    entries = {"color": (ImageDescriptor("color"), "path")}
    encode(tmp_path / "media", tmp_path / "out", entries)
    (tmp_path / "media" / "a.png").rename(tmp_path / "media" / "b.png")
    with pytest.raises(ValueError, match=r"the file 'media' has changed since, from 1 files of digest"):
        encode(tmp_path / "media", tmp_path / "out", entries)
    os.rename(tmp_path / "media" / "b.png", os.fsencode(tmp_path / "media") + b"/\xff.png")
    with pytest.raises(ValueError, match="is not in UTF-8; rename it"):
        encode(tmp_path / "media", tmp_path / "other", entries)


def test_a_source_that_is_changed_meanwhile(table, frame, tmp_path, monkeypatch):
    write = _dataset._write

    def change(out, path, facts):
        os.utime(table, (1, 1))
        write(out, path, facts)

    monkeypatch.setattr(_dataset, "_write", change)
    with pytest.raises(RuntimeError, match=r"table.parquet' was changed while it was read; encode it again"):
        encode(table, tmp_path / "out")


def test_columns_named_twice(frame, tmp_path):
    (tmp_path / "table.csv").write_text("photo,a,a\nb,1,2\n")
    with pytest.raises(ValueError, match=r"several columns of the names \['a'\]; rename them"):
        encode(tmp_path / "table.csv", tmp_path / "out")


def preprocess(image):
    return torch.zeros(3, 16, 16)


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_module_in_memory(n_jobs, table, tmp_path):
    """It has no name, so that its tensors and what it makes of fixed items tell it; addresses in memory do not."""
    folder = tmp_path / "out"

    def entries(seed=0, recipe=None):
        torch.manual_seed(seed)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        return {"v": (ImageEncoder(network.eval(), preprocess=recipe or {"input_size": (3, 16, 16)}), "photo")}

    encode(table, folder, entries(), n_jobs=n_jobs)
    assert encode(table, folder, entries()).n_new_parts == 0
    with pytest.raises(ValueError, match="encoder 'v': the files of its model, the device or the version"):
        encode(table, folder, entries(1))
    encode(table, folder, entries(0, preprocess), overwrite=True)
    facts = json.loads(pq.read_schema(folder / "part-00000-000001.parquet").metadata[b"skmm"])["part"]
    assert facts["encoders"]["v"]["preprocess"] == "<function preprocess>"


def test_an_encoder_that_nothing_tells_apart(table, tmp_path, monkeypatch):
    encode(table, tmp_path / "out")
    monkeypatch.setattr(_dataset, "_identity", lambda encoder: {"class": "skmm.ImageDescriptor", "digest": None})
    with pytest.raises(ValueError, match=r"nothing tells whether the encoders \['vectors'\] are the same; set cache"):
        encode(table, tmp_path / "out")


def test_a_task_holds_its_own_rows_alone():
    table = pa.table({"x": np.arange(100_000), "text": ["a text"] * 100_000})
    ((content, path),) = _dataset._packed([(table.slice(500, 10), "path")])
    assert len(content) < 2000
    assert pa.ipc.open_stream(content).read_all().column("x").to_pylist() == list(range(500, 510))
    assert path == "path"


def test_sparse_rows(table, frame, tmp_path):
    encoder = OneHotEncoder().fit(frame[["row"]])
    with pytest.raises(TypeError, match="sparse matrix; put TruncatedSVD behind it"):
        encode(table, tmp_path / "out", {"v": (encoder, ["row"])}, keep=[])


def test_fitted_transformers(table, frame, tmp_path):
    scaler = StandardScaler().fit(frame[["price", "row"]])
    encode(table, tmp_path / "out", {"numbers": (scaler, ["price", "row"])}, keep=[], dtype="float16")
    assert_array_equal(
        vectors_of(tmp_path / "out", "numbers"), scaler.transform(frame[["price", "row"]]).astype(np.float16)
    )
    assert pq.read_schema(tmp_path / "out" / "part-00000-000000.parquet").field("numbers").type == pa.list_(
        pa.float16(), 2
    )
    with pytest.raises(NotFittedError):
        encode(table, tmp_path / "other", {"numbers": (StandardScaler(), ["price", "row"])})


def test_metadata(table, tmp_path):
    encode(table, tmp_path / "out")
    facts = json.loads(pq.read_schema(tmp_path / "out" / "part-00000-000001.parquet").metadata[b"skmm"])["part"]
    assert facts["file"] == "table.parquet"
    assert facts["encoders"]["vectors"]["class"] == "skmm.ImageDescriptor"
    assert len(facts["encoders"]["vectors"]["digest"]) == 64
    assert facts["version"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entries": {}}, "encoders must be a dict"),
        ({"entries": {"vectors": ImageDescriptor("color")}}, r"encoders\['vectors'\] must be a pair"),
        ({"entries": {"errors": (ImageDescriptor("color"), "photo")}}, "'errors' is the name of the column of errors"),
        (
            {"entries": {"price": (ImageDescriptor("color"), "photo")}},
            r"\['price'\] of the source have the names",
        ),
        ({"entries": {"vectors": (ImageDescriptor("color"), "foto")}}, r"has no columns \['foto'\]; it has \['row', "),
        ({"keep": ["cost"]}, r"has no columns \['cost'\]"),
        ({"keep": "price"}, "keep must be a list of columns, each once"),
        ({"keep": ["price", "price"]}, "keep must be a list of columns, each once"),
        ({"batch_rows": 0}, "batch_rows must be at least 1"),
        ({"n_jobs": 0}, "n_jobs must be a positive number or -1"),
        ({"dtype": "int8"}, "dtype must be 'float32' or 'float16'"),
        ({"devices": "cpu"}, 'devices must be "auto" or a list'),
        ({"devices": ["mps"]}, "devices must name GPUs"),
        ({"devices": ["cuda:0"], "n_jobs": 2}, "n_jobs must be 1"),
        ({"engine": "dask"}, "engine must be 'joblib' or 'ray'"),
        ({"ray_options": {"num_gpus": 1}}, "ray_options needs engine='ray'"),
        ({"engine": "ray", "n_jobs": -1}, "engine='ray' takes the number of actors"),
        ({"engine": "ray", "devices": ["cuda:0"]}, "engine='ray' takes the number of actors"),
    ],
)
def test_wrong_parameters(options, message, table, tmp_path):
    with pytest.raises(ValueError, match=message):
        encode(table, tmp_path / "out", **options)
    assert not list(tmp_path.glob("out/part-*"))


def test_sources_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        encode(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "table.xls").write_bytes(b"")
    with pytest.raises(ValueError, match=r"The format of .* is not known by its name; it must end in"):
        encode(tmp_path / "table.xls", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is empty"):
        encode(tmp_path / "empty", tmp_path / "out")


def test_each_worker_takes_a_device(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    taken = []
    for _ in range(2):
        _dataset._take_device(os.fspath(tmp_path), ["0", "3"])
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["0", "3"]
    with pytest.raises(RuntimeError, match="more workers than devices"):
        _dataset._take_device(os.fspath(tmp_path), ["0", "3"])


@pytest.mark.slow
def test_workers(table, frame, tmp_path):
    summary = encode(table, tmp_path / "out", n_jobs=2)
    assert (summary.n_new_parts, summary.n_errors) == (5, 1)
    assert_array_equal(vectors_of(tmp_path / "out"), expected(frame))
    # As on two GPUs, of which there need be none.
    encode(table, tmp_path / "devices", devices=["cuda:0", "cuda:1"])
    assert_array_equal(vectors_of(tmp_path / "devices"), expected(frame))
    assert not list((tmp_path / "devices").glob(".device-*"))


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_ray(ray, table, frame, tmp_path):
    encode(table, tmp_path / "other", n_jobs=1)
    # For the third actor there is no room.
    options = {"engine": "ray", "n_jobs": 3, "ray_options": {"num_cpus": 1}}
    summary = encode(table, tmp_path / "out", **options)
    assert (summary.n_new_parts, summary.n_errors) == (5, 1)
    for name in times(tmp_path / "other"):
        parts = [pq.read_table(tmp_path / folder / name) for folder in ("out", "other")]
        assert parts[0].schema.equals(parts[1].schema, check_metadata=True)
        assert parts[0].drop_columns("vectors").equals(parts[1].drop_columns("vectors"))
        assert_array_equal(vectors_of(tmp_path / "out" / name), vectors_of(tmp_path / "other" / name))
    (tmp_path / "out" / "part-00000-000002.parquet").unlink()
    assert encode(table, tmp_path / "out", **options, store=tmp_path / "store").n_new_parts == 1
    # Either engine continues what the other has begun.
    (tmp_path / "out" / "part-00000-000003.parquet").unlink()
    assert encode(table, tmp_path / "out").n_new_parts == 1
    assert_array_equal(vectors_of(tmp_path / "out"), expected(frame))
    with pytest.raises(NotADirectoryError):
        encode(table, tmp_path / "out" / "part-00000-000003.parquet", **options)


@pytest.mark.slow
def test_an_error_on_ray(ray, table, frame, tmp_path):
    encoder = FunctionTransformer(_fail).fit(frame[["price"]])
    with pytest.raises(ZeroDivisionError, match="rows from") as failure:
        encode(table, tmp_path / "out", {"v": (encoder, ["price"])}, engine="ray", n_jobs=2)
    assert "parts in" in failure.value.__notes__[-1]


def _fail(X):
    return 1 / 0


_SCRIPT = """
import sys, time
from skmm import ImageDescriptor, encode_dataset

class Slow(ImageDescriptor):
    def _prepare_item(self, item):
        time.sleep(.02)
        return super()._prepare_item(item)

if __name__ == "__main__":
    source, target, n_jobs = sys.argv[1:]
    print("ready", flush=True)
    encoders = {"vectors": (Slow("color"), "photo")}
    encode_dataset(source, target, encoders, batch_rows=2, n_jobs=int(n_jobs), verbose=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_killed_processes(n_jobs, table, frame, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    target, rng = tmp_path / "out", np.random.default_rng(n_jobs)
    command = [sys.executable, script, table, target, str(n_jobs)]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        process.stdout.readline()
        n_parts = len(times(target)) if target.exists() else 0
        while process.poll() is None and (not target.exists() or len(times(target)) == n_parts < 11):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # Whatever can be seen is whole.
        for path in target.glob("part-*.parquet"):
            assert pq.read_table(path).num_rows == min(2, N_ROWS - 2 * int(path.name[-14:-8]))
    before = times(target)
    assert before
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = times(target)
    assert all(after[name] == time for name, time in before.items())
    assert_array_equal(vectors_of(target), expected(frame))


def workers_of(process):
    """Return the numbers of the worker processes of a process."""
    numbers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(number) for number in numbers if b"LokyProcess" in Path(f"/proc/{number}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("end", ["worker killed", "parent killed", "interrupted"])
def test_ends_of_workers(end, table, frame, tmp_path):
    (tmp_path / "script.py").write_text(_SCRIPT)
    target = tmp_path / "out"
    command = [sys.executable, tmp_path / "script.py", table, target, "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None and len(list(target.glob("part-*"))) < 2:
        time.sleep(0.01)
    if end == "interrupted":
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid if end == "parent killed" else workers_of(process)[0], signal.SIGKILL)
    if end == "parent killed":
        process.wait()
    else:
        # What is shown tells how to go on.
        errors = process.communicate(timeout=120)[1].decode()
        assert f"parts in '{target}' are complete; the same call encodes the others." in errors
        assert ("KeyboardInterrupt" if end == "interrupted" else "TerminatedWorkerError") in errors
    assert process.returncode != 0
    before = times(target)
    assert 2 <= len(before) < 12
    # At once, while workers of a parent that was killed still run.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = times(target)
    assert sum(after[name] != time for name, time in before.items()) <= 2
    assert_array_equal(vectors_of(target), expected(frame))
