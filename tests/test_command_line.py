"""The command line: commands on small tables, what they print, and their exit status."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import skmm
from skmm.__main__ import main

N_ROWS = 12


@pytest.fixture
def source(tmp_path):
    """A CSV table with paths of pictures, one of which is no picture, and a target."""
    for number in range(N_ROWS):
        color = (250 * (number % 2), 100, 40)
        Image.new("RGB", (16, 16), color).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"no picture")
    photos = [f"{number}.png" for number in range(N_ROWS)]
    frame = pd.DataFrame({"photo": photos, "size": np.linspace(0, 1, N_ROWS) ** 2, "y": np.arange(N_ROWS) % 2})
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def run(capsys, *words):
    """Return the exit status of a command, and what it printed to both outputs."""
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def test_encode_and_info(source, tmp_path, tiny_image_model, capsys):
    words = ["encode", source, tmp_path / "out", "--image", "photo", "--image-model", tiny_image_model]
    words += ["--root", tmp_path, "--batch-rows", 5, "--keep", "y", "--quiet"]
    status, out, err = run(capsys, *words)
    assert status == 1
    assert f"12 rows in 3 parts in {tmp_path / 'out'}, 3 of them new; 1 rows with errors." in out
    assert "row 4: photo_vector: the content is not an image" in out
    assert err == ""
    status, out, _ = run(capsys, *words)
    # The status of a table is that of all its rows, not only of those that the last call has encoded.
    assert status == 1
    assert "0 of them new; 1 rows with errors." in out
    status, out, _ = run(capsys, "info", tmp_path / "out")
    assert status == 0
    assert out.startswith(
        f"12 rows in 3 parts, 1 with errors, written by skmm {skmm.__version__}\ny: int64\nphoto_vector"
    )
    assert f"skmm.ImageEncoder of photo model={str(tiny_image_model)!r}" in out
    assert list(pd.read_parquet(tmp_path / "out")) == ["y", "photo_vector", "errors"]


def test_progress(source, tmp_path, tiny_image_model, capsys):
    words = ["encode", source, tmp_path / "out", "--image", "photo", "--image-model", tiny_image_model]
    _, _, err = run(capsys, *words, "--root", tmp_path)
    assert "12/12" in err


def test_errors(source, tmp_path, capsys):
    status, out, _ = run(capsys, "errors", source, "--image", "photo", "--root", tmp_path)
    assert status == 1
    assert out.splitlines()[0].startswith("row 4, photo: '")
    assert out.splitlines()[-1] == "1 of 12 items cannot be read."
    Image.new("RGB", (16, 16)).save(tmp_path / "4.png")
    status, out, _ = run(capsys, "errors", source, "--image", "photo", "--root", tmp_path)
    assert (status, out) == (0, "0 of 12 items cannot be read.\n")


@pytest.mark.parametrize("target", ["y", "size"])
def test_compare(target, tmp_path, capsys):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "size"])
    frame["y"] = np.where(frame["a"] + frame["size"] > 0, "yes", "no")
    frame["person"] = np.arange(60) // 2
    frame["tags"] = [["red"] if value > 0 else ["blue"] for value in frame["b"]]
    frame.to_json(tmp_path / "table.jsonl", orient="records", lines=True)
    words = ["compare", tmp_path / "table.jsonl", "--target", target, "--groups", "person", "--drop", "b", "--folds", 3]
    words += ["--levels", "single", "feature"]
    status, out, _ = run(capsys, *words, "--html", tmp_path / "page.html")
    assert status == 0
    assert "lists of words" in out
    assert "table alone" in out
    assert f"Page: {tmp_path / 'page.html'}" in out
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert "person" not in out
    assert f"Task: {'regression' if target == 'size' else 'classification'} of {target!r}." in out


def test_compare_rows_without_target_and_whole_numbers(tmp_path, capsys):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(80, 2)), columns=["a", "b"]).assign(tags=[["x"], ["y"]] * 40)
    frame["price"] = (10 * frame["a"]).round() + 40
    frame.loc[3, "price"] = None
    frame.to_json(tmp_path / "table.jsonl", orient="records", lines=True)
    words = ["compare", tmp_path / "table.jsonl", "--target", "price", "--levels", "single", "--folds", 2]
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "1 of 80 rows have no 'price' and are left out." in out
    assert "Task: regression of 'price'." in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encode", "SOURCE", "FOLDER/out", "--text", "photo", "--image", "photo"], "named more than once"),
        (["encode", "SOURCE", "FOLDER/out"], "skmm encode: name a column: --text COLUMN, --image"),
        (["encode", "SOURCE", "FOLDER/out", "--text", "caption"], "has no columns ['caption']; it has ['photo', "),
        (["encode", "FOLDER/no.csv", "FOLDER/out", "--text", "a"], "There is no file or folder"),
        (["errors", "SOURCE", "--image", "picture"], "has no columns ['picture']"),
        (["info", "FOLDER"], "holds no parts"),
        (["compare", "SOURCE", "--target", "price"], "has no columns ['price']"),
    ],
)
def test_commands_that_fail(words, message, source, tmp_path, capsys):
    words = [word.replace("SOURCE", str(source)).replace("FOLDER", str(tmp_path)) for word in words]
    status, _, err = run(capsys, *words)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [[], ["compare", "table.csv"], ["encode"], ["fly"]])
def test_usage(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage: skmm" in capsys.readouterr().err


def test_module():
    command = [sys.executable, "-m", "skmm", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"skmm {skmm.__version__}\n"


def test_interrupt(source, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("skmm.__main__.encode_dataset", interrupt)
    assert main(["encode", str(source), "out", "--image", "photo"]) == 130
