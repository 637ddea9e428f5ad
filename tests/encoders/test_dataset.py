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
from filelock import FileLock
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from skmm import ImageDescriptor, encode_dataset
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
    column = pd.read_parquet(folder)[name]
    width = max(len(vector) for vector in column if vector is not None)
    return np.array([np.full(width, np.nan) if vector is None else vector for vector in column])


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
    assert out["vectors"][3] is None
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
    assert out["color"].isna().tolist() == [False, False, True]


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
        ({"batch_rows": 0}, "batch_rows must be at least 1"),
        ({"n_jobs": 0}, "n_jobs must be a positive number or -1"),
        ({"dtype": "int8"}, "dtype must be 'float32' or 'float16'"),
        ({"devices": "cpu"}, 'devices must be "auto" or a list'),
        ({"devices": ["mps"]}, "devices must name GPUs"),
        ({"devices": ["cuda:0"], "n_jobs": 2}, "n_jobs must be 1"),
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
