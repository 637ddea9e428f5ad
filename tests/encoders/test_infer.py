"""Modalities that are inferred from columns: forty awkward ones, real tables, and what the result is good for."""

import io
import pickle
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline

from skmm import ModalityFuser, infer_modalities
from skmm.encoders import AudioDescriptor, ImageEncoder, TextEncoder, VideoEncoder
from skmm.encoders._infer import Column

N = 60
RANDOM = np.random.RandomState(0)
WORDS = [
    "amber bright castle dragon elder forest garden harbour island jungle kettle lantern meadow needle orchard pepper "
    "quartz ribbon saddle timber umbrella velvet willow yellow zephyr"
][0].split()


def sentence(n_words):
    return " ".join(RANDOM.choice(WORDS, n_words))


def png(seed):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (seed, 0, 0)).save(stream, "png")
    return stream.getvalue()


UUIDS = [f"{i * 2654435761 % 2**32:08x}-0000-4000-8000-{i:012d}" for i in range(N)]
COLUMNS = {
    # name: (cells, modality that is expected)
    "zip": ([f"{10001 + 7 * (i % 30):05d}" for i in range(N)], "table"),
    "zip_numbers": ([10001 + 7 * (i % 30) for i in range(N)], "table"),
    "isbn": ([f"978-3-16-{148410 + i}-0" for i in range(N)], "left out"),
    "isbn_digits": ([str(9783161484100 + 11 * i) for i in range(N)], "left out"),
    "json": ([f'{{"size": {i}, "colour": "{WORDS[i % 25]}"}}' for i in range(N)], "text"),
    "urls": ([f"https://example.org/items/{i}" for i in range(N)], "left out"),
    "image_urls": ([f"https://example.org/{i}.jpg" for i in range(N)], "left out"),
    "files_that_do_not_exist": ([f"photos/{i}.jpg" for i in range(N)], "left out"),
    "documents": ([f"letters/{i}.pdf" for i in range(N)], "left out"),
    "phone": ([f"+1-555-{i:03d}-{7 * i:04d}" for i in range(N)], "left out"),
    "phone_spaces": ([f"({200 + i}) 555-0{i:03d}" for i in range(N)], "left out"),
    "e_mail": ([f"{WORDS[i % 25]}.{WORDS[i // 25]}@example.org" for i in range(N)], "left out"),
    "uuid": (UUIDS, "left out"),
    "hash": ([f"{i * 2654435761 % 2**32:08x}{i:08x}" for i in range(N)], "left out"),
    "mixed": ([1, "a", 2.5, None] * (N // 4), "table"),
    "all_missing": ([None] * N, "left out"),
    "all_nan": ([np.nan] * N, "left out"),
    "constant": ([7] * N, "left out"),
    "constant_text": (["the same words in every row"] * N, "left out"),
    "constant_but_missing": ([7, None] * (N // 2), "table"),
    "many_categories": ([f"category {i // 3}" for i in range(N)], "table"),
    "colours": (["red", "green", "blue"] * (N // 3), "table"),
    "dates_as_text": ([f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(N)], "table"),
    "times_as_text": ([f"2024-01-01T{i % 24:02d}:{i:02d}:00" for i in range(N)], "table"),
    "american_dates": ([f"{1 + i % 12}/{1 + i % 28}/2024" for i in range(N)], "table"),
    "dates_in_words": ([f"{1 + i % 28} March {1960 + i}" for i in range(N)], "table"),
    "dates": (pd.date_range("2024-01-01", periods=N), "table"),
    "durations": (pd.to_timedelta(np.arange(N) ** 2, unit="h"), "table"),
    "tags": ([[WORDS[i % 25], WORDS[i % 7]] for i in range(N)], "tags"),
    "tags_as_text": ([f"{WORDS[i % 25]} | {WORDS[i % 7]} | {WORDS[i % 3]}" for i in range(N)], "text"),
    "prices": ([f"${10 + i:,}.99" for i in range(N)], "table"),
    "percent": ([f"{i}.5 %" for i in range(N)], "table"),
    "thousands": ([f"{1000 * i:,}" for i in range(N)], "table"),
    "decimals": ([Decimal(i) / 7 for i in range(N)], "table"),
    "booleans": ([True, False] * (N // 2), "table"),
    "nullable": (pd.array([1, None, 3] * (N // 3), dtype="Int64"), "table"),
    "nullable_booleans": (pd.array([True, None, False] * (N // 3), dtype="boolean"), "table"),
    "arrow": (pd.array([1.5, None, 3] * (N // 3), dtype="double[pyarrow]"), "table"),
    "categories": (pd.Categorical(["a", "b", None] * (N // 3)), "table"),
    "row_number": (np.arange(N), "left out"),
    "row_number_from_7": (np.arange(7, N + 7), "left out"),
    "customer_id": (RANDOM.permutation(10**6)[:N], "left out"),
    "customerid": (RANDOM.permutation(10**6)[:N], "left out"),
    "orderId": (RANDOM.permutation(10**6)[:N], "left out"),
    "patient_id": (np.r_[np.nan, RANDOM.permutation(10**6)[1:N]], "left out"),
    "paid": (RANDOM.permutation(10**6)[:N], "table"),
    "bid": (RANDOM.permutation(10**6)[:N], "table"),
    "rank": (RANDOM.permutation(N), "table"),
    "years": ([1990 + i % 30 for i in range(N)], "table"),
    "amounts": (RANDOM.permutation(10**6)[:N], "table"),
    "titles": ([sentence(2) + f" {WORDS[i % 25]}" for i in range(N)], "text"),
    "reviews": ([sentence(20) for _ in range(N)], "text"),
    "reviews_that_repeat": ([sentence(20)] * (N // 2) + [sentence(20)] * (N // 2), "text"),
    "names": (np.array([f"{a}{b}" for a in "ABCDEFGH" for b in WORDS])[:N], "text"),
    "bytes_of_images": ([png(i) for i in range(N)], "image"),
    "dicts_of_images": ([{"bytes": png(i), "path": None} for i in range(N)], "image"),
    "pil": ([Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(N)], "image"),
    "pixels": ([np.full((4, 4, 3), i, dtype=np.uint8) for i in range(N)], "image"),
    "lists_of_images": ([[Image.new("RGB", (4, 4), (i, 0, 0))] * 2 for i in range(N)], "image"),
    "waveforms": ([(8000, np.full(100 + i, 0.1)) for i in range(N)], "audio"),
    "dicts_of_sound": ([{"array": np.full(100 + i, 0.1), "sampling_rate": 8000} for i in range(N)], "audio"),
    "bytes_of_sound": ([b"RIFF\0\0\0\0WAVEfmt " + bytes([i]) for i in range(N)], "audio"),
    "frames": ([np.full((2, 4, 4, 3), i, dtype=np.uint8) for i in range(N)], "video"),
    "vectors": ([np.full(5, i / 7) for i in range(N)], "vector"),
    "lists_of_paths": ([np.array([f"{i}.png", f"{i}b.png"], dtype=object) for i in range(N)], "image"),
    "lists_of_numbers": ([[i / 7, 1.0, 2.0] for i in range(N)], "vector"),
    "ragged": ([np.full(5 + i % 2, 0.1) for i in range(N)], "left out"),
    "objects": ([object() for _ in range(N)], "left out"),
}


def kinds(X, y=None, **options):
    """Map each column to the kind of its modality; warnings are the business of other tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = infer_modalities(X, y, **options).report
    return {row.column: row.modality.partition("_")[0] for row in report.itertuples()}


@pytest.mark.parametrize("name", COLUMNS)
def test_awkward_column(name):
    cells, expected = COLUMNS[name]
    series = pd.Series(list(cells), dtype=object) if isinstance(cells, list) and name != "mixed" else pd.Series(cells)
    # A column of numbers beside it, since nothing to use at all is an error.
    X = pd.DataFrame({name: series, "number": np.linspace(0, 1, N)})
    assert kinds(X) == {name: expected, "number": "table"}


def test_ten_thousand_categories():
    X = pd.DataFrame({"shop": [f"shop{i % 10_000}" for i in range(30_000)], "x": np.linspace(0, 1, 30_000)})
    assert kinds(X) == {"shop": "table", "x": "table"}


def test_one_row():
    X = pd.DataFrame({"caption": ["a red fox"], "price": [3.0], "day": pd.to_datetime(["2024-01-01"])})
    assert kinds(X) == {"caption": "text", "price": "table", "day": "table"}


def test_polars_and_arrow_agree_with_pandas():
    columns = ("zip", "json", "urls", "phone", "colours", "dates_as_text", "titles", "prices", "amounts", "row_number")
    X = pd.DataFrame({name: list(COLUMNS[name][0]) for name in columns})
    assert kinds(pl.from_pandas(X)) == kinds(X)
    assert kinds(pl.from_pandas(X).to_arrow()) == kinds(X)


def test_copies_of_the_target_are_left_out_with_a_warning():
    y = np.array(["cat", "dog", "hen"] * 20)
    X = pd.DataFrame({"code": np.unique(y, return_inverse=True)[1], "x": RANDOM.normal(size=N)})
    with pytest.warns(UserWarning, match="'code' tells the target in every row"):
        modalities = infer_modalities(X, y)
    assert [columns for _, _, columns in modalities] == [["x"]]
    prices = RANDOM.normal(size=N)
    with pytest.warns(UserWarning, match="'copy' tells the target"):
        infer_modalities(pd.DataFrame({"copy": prices, "x": RANDOM.normal(size=N)}), prices)
    for copy in (2 * prices + 1, np.where(np.arange(N) == 7, np.nan, prices)):
        with pytest.warns(UserWarning, match="'copy' tells the target"):
            infer_modalities(pd.DataFrame({"copy": copy, "x": RANDOM.normal(size=N)}), prices)
    # Numbers that all differ, and so do those of the target, are no copy of it.
    assert kinds(X[["x"]], prices) == {"x": "table"}


def test_files(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    X = pd.DataFrame({"photo": [f"{i}.png" for i in range(3)], "x": [1.0, 2, 3]})
    assert kinds(X, root=tmp_path) == {"photo": "image", "x": "table"}
    with pytest.warns(UserWarning, match=r"'photo' names of image files, none of which exists in '\.' .*root="):
        infer_modalities(X)
    X["photo"] = [str(tmp_path / name) for name in X["photo"]]
    assert kinds(X) == {"photo": "image", "x": "table"}


def test_transformers_and_names():
    X = pd.DataFrame({name: list(COLUMNS[name][0]) for name in ("titles", "reviews", "pil", "waveforms", "frames")})
    X["a  b%c"] = X["reviews"].str.upper()
    modalities = infer_modalities(X)
    assert [(name, type(transformer)) for name, transformer, _ in modalities] == [
        ("text_titles", TextEncoder),
        ("text_reviews", TextEncoder),
        ("image", ImageEncoder),
        ("audio", AudioDescriptor),
        ("video", VideoEncoder),
        ("text_a_b_c", TextEncoder),
    ]
    X.columns = range(X.shape[1])
    assert [columns for _, _, columns in infer_modalities(X)] == [0, 1, 2, 3, 4, 5]


def test_code_makes_the_same_modalities():
    X = pd.DataFrame({name: list(COLUMNS[name][0]) for name in ("titles", "tags", "colours", "amounts")})
    modalities = infer_modalities(X)
    scope = {}
    exec(str(modalities), scope)
    assert str(scope["modalities"]) == str(list(modalities))
    assert str(pickle.loads(pickle.dumps(modalities)).report) == str(modalities.report)


def test_nothing_to_use():
    X = pd.DataFrame({"id": np.arange(N), "empty": [None] * N})
    with pytest.raises(ValueError, match=r"No column of X can be used .*'empty': no value in any row"):
        infer_modalities(X)


@pytest.mark.parametrize("make", [np.array, lambda rows: np.array(rows, dtype=object)], ids=["numbers", "objects"])
def test_arrays(make):
    X = make([[1.0, 2], [3, 4.5], [5, 6]])
    assert [name for name, _, _ in infer_modalities(X)] == ["table"]
    assert ModalityFuser().fit_transform(X).shape == (3, 2)


def test_table_of_everything():
    names = ("mixed", "dates_as_text", "dates", "durations", "prices", "booleans", "nullable", "nullable_booleans")
    X = pd.DataFrame({name: COLUMNS[name][0] for name in (*names, "arrow", "categories", "colours", "amounts")})
    fuser = ModalityFuser().fit(X)
    features = fuser.transform(X)
    assert np.isfinite(features).all()
    assert features.shape[0] == N
    # New categories and missing cells are no error.
    X.loc[:5, "colours"] = "violet"
    X.loc[:5, "dates"] = None
    assert np.isfinite(fuser.transform(X)).all()


def test_numbers_take_no_table_vectorizer():
    ((_, table, columns),) = infer_modalities(pd.DataFrame({"a": [1.0, None], "b": [2, 3]}))
    assert columns == ["a", "b"]
    assert isinstance(table, Pipeline)
    assert [name for name, _ in table.steps] == ["simpleimputer", "standardscaler"]


def test_fuser_is_cloned_without_what_it_inferred():
    X = pd.DataFrame({"a": [1.0, 2, 3], "b": [2.0, 3, 1]})
    fuser = ModalityFuser().fit(X)
    assert [name for name, _, _ in fuser.modalities_] == ["table"]
    assert clone(fuser).get_params() == ModalityFuser().get_params()
    assert pickle.loads(pickle.dumps(fuser)).transform(X).shape == (3, 2)
    assert "auto" in ModalityFuser()._repr_html_()
    assert "simpleimputer" in fuser._repr_html_().lower()


def test_odd_items_among_strings():
    cells = {
        "colours": [("red" if i % 20 else 5) for i in range(N)],
        "notes": [(f"a red fox jumps over {i} dogs" if i % 20 else b"ab") for i in range(N)],
        "paths": [Path(f"folder{i % 3}/a.xyz") for i in range(N)],
        "ragged": [tuple(range(i % 3 + 1)) for i in range(N)],
        "no_words": [[] for _ in range(N)],
    }
    X = pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in cells.items()})
    assert kinds(X, np.arange(N) % 2) == {
        "colours": "table",
        "notes": "text",
        "paths": "table",
        "ragged": "left out",
        "no_words": "left out",
    }
    # What cannot be read as a text counts as missing, rather than failing.
    assert [transformer.on_error for name, transformer, _ in infer_modalities(X) if name == "text"] == ["missing"]
    assert infer_modalities(pd.DataFrame({"t": ["a red fox runs", "two hens lay"]}))[0][1].on_error == "raise"


def test_languages_without_spaces():
    X = pd.DataFrame(
        {
            "chinese": [f"这是一个非常好的产品我很喜欢它{i}" for i in range(N)],
            "japanese": [f"とても良い商品でした。また買います{i}" for i in range(N)],
            "thai": [f"สินค้าดีมากจะซื้ออีก{i}" for i in range(N)],
            "city": ["東京", "大阪", "京都"] * (N // 3),
        }
    )
    assert kinds(X) == {"chinese": "text", "japanese": "text", "thai": "text", "city": "table"}


def test_sample_covers_all_rows():
    # 500 of 998 items are looked at, of all rows.
    X = pd.DataFrame({"a": ["red", "blue"] * 250 + [f"a red fox jumps over {i} dogs" for i in range(498)]})
    assert 200 < sum(len(item) > 4 for item in Column("a", X["a"]).sample) < 300


@pytest.mark.parametrize("n_splits", [2, 5])
def test_numbers_of_rows_are_left_out_in_folds_as_well(n_splits):
    X = pd.DataFrame({"number": np.arange(200), "x": np.linspace(0, 1, 200)})
    for train, test in KFold(n_splits, shuffle=True, random_state=0).split(X):
        assert kinds(X.iloc[train]) == kinds(X.iloc[test][:20].assign(number=range(20))) == kinds(X)


def test_target_of_another_length():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        infer_modalities(pd.DataFrame({"a": [1.0, 2, 3]}), [0, 1])


def test_years_in_order_are_no_numbers_of_rows():
    years = pd.DataFrame({"year": np.arange(1950, 2010), "row": np.arange(60)})
    report = infer_modalities(years.assign(x=np.sin(years["year"]))).report.set_index("column")
    assert report["modality"].to_dict() == {"year": "table", "row": "left out", "x": "table"}


def test_waveforms_with_channels_are_no_pictures():
    frame = pd.DataFrame({"sound": [np.zeros((2, 8000), dtype=np.float32)] * 3, "x": [1.0, 2.0, 5.0]})
    report = infer_modalities(frame).report
    assert report["reason"][0] == "waveforms without a sampling rate"
    assert "sampling_rate" in report["alternative"][0]


def test_infinite_numbers_are_named():
    frame = pd.DataFrame({"a": [1.0, 2.0, 5.0], "b": [None, 2.0, np.inf]})
    with pytest.raises(ValueError, match=r"Column 'b' of X has infinite numbers in 1 row, the first is row 2; replace"):
        infer_modalities(frame)


def test_columns_of_one_name():
    frame = pd.DataFrame([[1.0, 2.0, 3.0]], columns=["a", "b", "a"])
    with pytest.raises(ValueError, match="several columns of one name: a; rename"):
        infer_modalities(frame)


def test_frames_that_are_no_table():
    pl = pytest.importorskip("polars")
    with pytest.raises(TypeError, match="LazyFrame; collect or convert it first"):
        infer_modalities(pl.LazyFrame({"a": [1.0]}))
    with pytest.raises(ValueError, match="2-dimensional"):
        infer_modalities(pd.Series([1.0]))
