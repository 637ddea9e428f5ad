"""Which modalities the columns of a data frame hold, told from their types and contents."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import ArrayLike
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import check_consistent_length

from .._columns import check_table, column_items, is_data_frame, is_missing_item, missing_rows, shorten
from .._typing import PathType, Table
from .._warnings import warn
from ._audio_descriptor import AudioDescriptor
from ._image import ImageEncoder
from ._text import TextEncoder
from ._video import VideoEncoder

# Items of a column that are looked at one by one.
_N_SAMPLE = 500
# Share of the items that must agree for a rule to hold, since real columns have odd cells.
_MOST = 0.9
# Rows from which on it means something that all values of a column differ.
_MIN_ROWS = 20
# Whole numbers in this range may be years.
_YEARS = 1500, 2100
# Most channels of a waveform, and its fewest samples for it to be no picture.
_MOST_CHANNELS, _FEWEST_SAMPLES = 8, 1000

_IMAGE_SUFFIXES = {"bmp", "gif", "heic", "heif", "jfif", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp"}
_AUDIO_SUFFIXES = {"aac", "aif", "aiff", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wma"}
_VIDEO_SUFFIXES = {"3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "webm", "wmv"}
_DOCUMENT_SUFFIXES = {"csv", "doc", "docx", "htm", "html", "json", "md", "pdf", "rtf", "tsv", "txt", "xml"}
_KIND_OF_SUFFIX = {
    **dict.fromkeys(_IMAGE_SUFFIXES, "image"),
    **dict.fromkeys(_AUDIO_SUFFIXES, "audio"),
    **dict.fromkeys(_VIDEO_SUFFIXES, "video"),
    **dict.fromkeys(_DOCUMENT_SUFFIXES, "document"),
}
# First bytes of files; in RIFF and ISO containers, the kind stands behind them.
_KIND_OF_START = {
    b"\xff\xd8\xff": "image",
    b"\x89PNG": "image",
    b"GIF8": "image",
    b"BM": "image",
    b"II*\0": "image",
    b"MM\0*": "image",
    b"fLaC": "audio",
    b"OggS": "audio",
    b"ID3": "audio",
    b"\xff\xfb": "audio",
    b"\xff\xf3": "audio",
    b"\x1aE\xdf\xa3": "video",
}
_KIND_OF_RIFF = {b"WEBP": "image", b"WAVE": "audio", b"AVI ": "video"}
_KIND_OF_BRAND = {b"heic": "image", b"heix": "image", b"mif1": "image", b"avif": "image", b"M4A ": "audio"}

_URL = re.compile(r"[a-z][a-z0-9+.-]+://\S+", re.IGNORECASE)
_NUMBER = re.compile(r"[-+(]?\s*[$€£¥]?\s*[-+]?\d[\d\s.,']*(e[-+]?\d+)?\s*[%$€£¥]?\s*\)?", re.IGNORECASE)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?!\d)|.*\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)", re.I)
# Thai and its neighbours, Khmer, and the scripts of Japanese and Chinese.
_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]{2}")
# Not "paid", "bid" or "humid".
_NAME_OF_IDENTIFIER = re.compile(
    r"(?i:(^|[_\s.-])(id|ids|uuid|guid|sku|isbn|ean|upc|index)$)|[a-z]I[dD]$"
    r"|(?i:^(user|customer|client|product|order|item|row|record|session|patient)id$)"
)


@dataclass
class Verdict:
    """What one column holds, why, and what else a user may do with it."""

    kind: str
    reason: str
    alternative: str = ""


class InferredModalities(list):
    """Modalities as :func:`infer_modalities` returns them: a list of triples that prints as code.

    Parameters
    ----------
    triples : list of (str, transformer, columns)
        The modalities.

    report : pandas.DataFrame of shape (n_columns, 4)
        For each column of X its name, its modality (``"left out"`` if it has none), the reason, and an alternative.

    See Also
    --------
    infer_modalities : Returns one.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm import infer_modalities
    >>> modalities = infer_modalities(pd.DataFrame({"title": ["a red fox", "a grey goose"], "n": [1.5, 2]}))
    >>> [(name, columns) for name, _, columns in modalities]
    [('text', 'title'), ('table', ['n'])]
    >>> modalities.report["modality"].tolist()
    ['text', 'table']
    """

    def __init__(self, triples, report):
        super().__init__(triples)
        self.report = report

    @property
    def code(self) -> str:
        """Python code that makes the list, with the imports that it needs, to paste and edit."""
        imports, lines = {}, []
        for name, transformer, columns in self:
            lines.append(f"    ({name!r}, {_code(transformer, imports)}, {columns!r}),")
        heads = [f"from {module} import {', '.join(sorted(imports[module]))}" for module in sorted(imports)]
        return "\n".join([*heads, "", "modalities = [", *lines, "]"])

    def __str__(self):
        return self.code

    def __reduce__(self):
        return InferredModalities, (list(self), self.report)


def infer_modalities(X: Table, y: ArrayLike | None = None, *, root: PathType | None = None) -> InferredModalities:
    """Find out which modalities the columns of X hold, and choose a transformer for each.

    The result is the list of triples that a user would have written for
    :class:`~skmm.ModalityFuser` and the other composites. Printed, it is code to paste and edit. It is what
    ``modalities="auto"`` stands for.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_samples, n_features)
        Data, with one or several columns per modality. An array of numbers is one table.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Target. Columns that copy it are left out.

    root : str or path, default=None
        Folder that relative paths in X start from; None means the working directory.

    Returns
    -------
    modalities : InferredModalities
        A list of triples (name, transformer, columns), with a data frame ``report`` that has a line for each column.

    Raises
    ------
    ValueError
        If no column of X can be used, several have one name, or numbers are infinite.

    TypeError
        If X is no data frame or array of skmm's, such as one that is evaluated lazily.

    Warns
    -----
    UserWarning
        If columns are left out that look as if they were meant to be used: copies of the target, and paths
        of files that do not exist.

    See Also
    --------
    ModalityFuser : Applies the transformers and fuses what they give.

    Notes
    -----
    ==========================================  =============  =====================================================
    column                                      modality       transformer
    ==========================================  =============  =====================================================
    numbers, booleans, categories, dates,       ``"table"``    imputation and scaling; before these, unless all are
    strings that repeat or are short                           numbers, :class:`skrub.TableVectorizer`
    free texts                                  ``"text"``     :class:`~skmm.TextEncoder`
    images, paths or bytes of image files,      ``"image"``    :class:`~skmm.ImageEncoder`
    lists of these
    waveforms, files of sound                   ``"audio"``    :class:`~skmm.AudioDescriptor`
    stacks of frames, files of video            ``"video"``    :class:`~skmm.VideoEncoder`
    lists of words                              ``"tags"``     counts of the words
    arrays or lists of numbers of one length    ``"vector"``   passed through
    ==========================================  =============  =====================================================

    All columns of the table are one modality; any other column is one of its own. If there are several of a kind, each
    is named by the kind and its column, such as ``"text_title"``. Texts stay apart, rather than joined into one.

    Left out are columns without any value or with a single one, copies of the target, identifiers (numbers that
    count the rows, and codes that differ in at least 95 % of them), addresses and documents, since nothing is
    downloaded or opened.

    At most 500 items of each column are looked at, evenly spread over the rows.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm import infer_modalities
    >>> X = pd.DataFrame(
    ...     {
    ...         "title": ["red fox at night", "a grey goose", "two red hens", None],
    ...         "weight": [6.0, 4.5, None, 1.5],
    ...         "legs": [4, 2, 2, 4],
    ...         "batch": [1, 1, 1, 1],
    ...     }
    ... )
    >>> modalities = infer_modalities(X)
    >>> print(modalities)
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from skmm import TextEncoder
    <BLANKLINE>
    modalities = [
        ('text', TextEncoder(), 'title'),
        ('table', make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler()), ['weight', 'legs']),
    ]
    >>> modalities.report[["column", "modality", "reason"]]
       column  modality                     reason
    0   title      text  free text: 3 words or so
    1  weight     table                    numbers
    2    legs     table                    numbers
    3   batch  left out         one value in all rows
    """
    X = check_table("infer_modalities", X)
    if not is_data_frame(X) and X.dtype.kind in "biuf":
        report = _report([("all", "table", Verdict("table", "numbers", _ALTERNATIVES["table"]))])
        return InferredModalities([("table", make_table_transformer(all_numbers=True), slice(0, None))], report)
    labels = list(X.columns) if is_data_frame(X) else list(range(X.shape[1]))
    duplicates = sorted({str(label) for label, count in Counter(labels).items() if count > 1})
    if duplicates:
        raise ValueError(f"X has several columns of one name: {shorten(', '.join(duplicates))}; rename or drop them.")
    named = is_data_frame(X) and all(isinstance(label, str) for label in labels)
    selectors = labels if named else list(range(len(labels)))
    if y is not None:
        check_consistent_length(X, y)
    columns = [Column(label, _column(X, position), y, root) for position, label in enumerate(labels)]
    verdicts = [judge(column) for column in columns]

    triples, modality_of = [], dict.fromkeys(range(len(labels)), "left out")
    counts, names = Counter(verdict.kind for verdict in verdicts), set()
    for position, verdict in enumerate(verdicts):
        if verdict.kind in _TRANSFORMERS:
            several = counts[verdict.kind] > 1
            name = _unique(f"{verdict.kind}_{labels[position]}" if several else verdict.kind, names)
            names.add(name)
            transformer = _TRANSFORMERS[verdict.kind]()
            if root is not None and verdict.kind in ("image", "audio", "video"):
                transformer.set_params(root=os.fspath(root))
            if verdict.kind == "text" and not all(isinstance(item, str) for item in columns[position].present):
                transformer.set_params(on_error="missing")
            triples.append((name, transformer, selectors[position]))
            modality_of[position] = name
    table = [position for position, verdict in enumerate(verdicts) if verdict.kind == "table"]
    if table:
        transformer = make_table_transformer(all(columns[position].is_numeric for position in table))
        triples.append(("table", transformer, [selectors[position] for position in table]))
        modality_of.update(dict.fromkeys(table, "table"))
    report = _report((labels[position], modality_of[position], verdict) for position, verdict in enumerate(verdicts))
    _tell(verdicts, labels)
    if not triples:
        reasons = "; ".join(f"{label!r}: {verdict.reason}" for label, verdict in zip(labels, verdicts, strict=True))
        raise ValueError(f"No column of X can be used ({shorten(reasons)}); pass modalities yourself.")
    return InferredModalities(triples, report)


def make_table_transformer(all_numbers: bool = False) -> Pipeline:
    """Return the transformer of a table for learners that want imputed and scaled numbers, such as linear models."""
    steps = [SimpleImputer(keep_empty_features=True), StandardScaler()]
    if not all_numbers:
        # Imported where it is needed: it loads matplotlib, which takes a second.
        from skrub import TableVectorizer

        # skrub's own encoder, which drops a column of two, warns whenever a category is new.
        one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        steps.insert(0, TableVectorizer(low_cardinality=one_hot))
    return make_pipeline(*steps)


_TRANSFORMERS = {
    "text": TextEncoder,
    "image": lambda: ImageEncoder(on_error="missing"),
    "audio": lambda: AudioDescriptor(on_error="missing"),
    "video": lambda: VideoEncoder(on_error="missing"),
    "tags": lambda: CountVectorizer(analyzer=list, binary=True),
    "vector": lambda: "passthrough",
}
_ALTERNATIVES = {
    "text": "TextEncoder(model=...) for another language; the table, if its values are categories",
    "image": "ImageEncoder(model=...), ImageDescriptor() without a network",
    "audio": "AudioEncoder() for a network, which is downloaded once",
    "video": "VideoAudio() for the sound of videos",
    "tags": "join the words into one text, for TextEncoder()",
    "vector": 'leave it out with "drop", if it repeats what another column holds',
    "table": "TextEncoder(), if its values are texts",
}


class Column:
    """One column: its items, those that are looked at, and how many differ.

    Parameters
    ----------
    label : object
        Its name, or its position.

    values : Series or ndarray of shape (n_samples,)
        Its cells.

    y : array-like or None
        Target.

    root : path or None
        Folder that relative paths start from.
    """

    def __init__(self, label, values, y=None, root=None):
        self.label = label
        self.values = values
        self.y = y
        self.root = root

    @cached_property
    def dtype(self):
        """Type of the column in the words of narwhals; None for a column of objects."""
        if isinstance(self.values, np.ndarray) and self.values.dtype == object:
            return None
        values = self.values
        if isinstance(values, np.ndarray):
            values = nw.new_series("", values, backend="pandas").to_native()
        dtype = nw.from_native(values, series_only=True).dtype
        return None if dtype in (nw.Object, nw.Unknown) else dtype

    @property
    def is_numeric(self):
        """Whether the column has a type of numbers, which scikit-learn takes as they are."""
        return self.dtype is not None and self.dtype.is_numeric() and not self.dtype.is_decimal()

    @cached_property
    def present(self):
        """Items that are not missing."""
        return [item for item in column_items(self.values, "infer_modalities") if not is_missing_item(item)]

    @cached_property
    def sample(self):
        """Some of the present items, evenly spread."""
        n_items = min(_N_SAMPLE, len(self.present))
        return [self.present[position * len(self.present) // n_items] for position in range(n_items)]

    @cached_property
    def n_distinct(self):
        """Number of different present items; None if they cannot be counted, as arrays cannot."""
        try:
            return len(set(self.present))
        except TypeError:
            return None

    @property
    def all_differ(self):
        """Whether nearly all present items differ, in so many rows that this is no accident."""
        n_present = len(self.present)
        return self.n_distinct is not None and n_present >= _MIN_ROWS and self.n_distinct >= 0.95 * n_present

    def most(self, condition):
        """Tell whether a condition holds for nearly all items of the sample."""
        return sum(map(bool, map(condition, self.sample))) >= _MOST * len(self.sample)

    def with_strings(self):
        """Return a copy whose items are strings: the odd numbers, paths or bytes among them as they are printed."""
        column = Column(self.label, self.values, self.y, self.root)
        column.present = [item if isinstance(item, str) else str(item) for item in self.present]
        return column


def judge(column):
    """Return the verdict on one column: that of the first rule that has one."""
    for rule in (_judge_values, _judge_type, _judge_objects, _judge_paths, _judge_strings):
        verdict = rule(column)
        if verdict is not None:
            break
    if not verdict.alternative:
        verdict.alternative = _ALTERNATIVES.get(verdict.kind, "")
    return verdict


def _judge_values(column):
    """Leave out columns that can teach nothing, or that teach the target itself."""
    n_rows = len(column.values)
    if not column.present:
        return Verdict("empty", "no value in any row")
    if column.n_distinct == 1 and len(column.present) == n_rows > 1:
        return Verdict("constant", "one value in all rows")
    if column.y is not None and column.n_distinct is not None and _copies(column):
        return Verdict(
            "target", "tells the target in every row that has it", "name it in modalities, if it is known beforehand"
        )
    return None


def _copies(column):
    """Tell whether a column names the target: equal numbers, or values and classes that belong together one to one."""
    import pandas as pd

    targets = np.asarray(column.y)
    present = ~missing_rows(column.values)
    if present.sum() < max(_MIN_ROWS, len(targets) / 2):
        return False
    numbers = np.asarray(column.present, dtype=float) if column.is_numeric else None
    for target in targets.T.reshape(-1, len(targets))[:, present]:
        if numbers is not None and target.dtype.kind in "iuf" and _differ_in_unit(numbers, target):
            return True
        codes, classes = pd.factorize(target)
        if len(classes) <= len(target) / 2 and len(classes) == column.n_distinct:
            return np.array_equal(codes, pd.factorize(pd.Series(column.present))[0])
    return False


def _differ_in_unit(numbers, target):
    """Tell whether numbers are those of the target, in another unit if need be; of few values, all may be by chance."""
    if np.array_equal(numbers, target):
        return True
    if len(np.unique(target)) <= _MIN_ROWS or numbers.std() == 0:
        return False
    return bool(abs(np.corrcoef(numbers, target)[0, 1]) > 1 - 1e-12)


def _judge_type(column):
    """Judge a column by its dtype: numbers, booleans, categories and times belong to the table."""
    dtype = column.dtype
    if dtype is None:
        return None
    if (dtype.is_integer() or dtype.is_float()) and _counts_rows(column):
        return Verdict("identifier", "numbers that identify the rows", "the table, if their order means something")
    if dtype.is_numeric():
        _check_finite(column)
        return Verdict("table", "numbers")
    if dtype == nw.Boolean:
        return Verdict("table", "true or false")
    if dtype in (nw.Categorical, nw.Enum):
        return Verdict("table", "categories")
    if dtype.is_temporal():
        return Verdict("table", "dates or times")
    return None


def _check_finite(column):
    """Raise if numbers are infinite, which no imputation and no linear model takes."""
    infinite = np.flatnonzero(np.isinf(np.asarray(column.present, dtype=float)))
    if len(infinite):
        rows = np.flatnonzero(~missing_rows(column.values))[infinite]
        raise ValueError(
            f"Column {column.label!r} of X has infinite numbers in {len(rows)} row{'s' * (len(rows) > 1)}, the first "
            f"is row {rows[0]}; replace them, by NaN if they stand for missing values."
        )


def _counts_rows(column):
    """Tell whether whole numbers are those of the rows, or differ in all rows and are called an identifier."""
    if not column.all_differ:
        return False
    numbers = np.asarray(column.present, dtype=float)
    # pandas makes floats of integers among which some are missing.
    if not (np.isfinite(numbers) & (numbers % 1 == 0)).all():
        return False
    steps = np.diff(numbers)
    # Folds leave rows out: of the numbers of all rows at least a third is there. Years may count as well.
    years = numbers.min() >= _YEARS[0] and numbers.max() <= _YEARS[1]
    counts = (steps > 0).all() and steps.mean() <= 3 and not years
    return bool(counts or _NAME_OF_IDENTIFIER.search(str(column.label)))


def _judge_objects(column):
    """Judge items that are no strings: pictures, waveforms, frames, bytes, lists."""
    if column.most(lambda item: isinstance(item, (str, os.PathLike))):
        return None
    kinds = [kind_of_item(item) for item in column.sample]
    kind = max(set(kinds), key=kinds.count)
    if kinds.count(kind) < _MOST * len(kinds):
        return Verdict("table", "values of several types")
    if kind == "tags" and not any(map(len, column.present)):
        return Verdict("empty", "no word in any row")
    if kind == "vector" and len({len(item) for item in column.sample}) > 1:
        return Verdict(
            "ragged", "sequences of numbers of different lengths", "AudioEncoder(sampling_rate=...), if they are sound"
        )
    if kind == "waveform":
        return Verdict("waveform", "waveforms without a sampling rate", "AudioDescriptor(sampling_rate=...)")
    reasons = {
        "image": "pictures",
        "audio": "sound",
        "video": "videos",
        "tags": "lists of words",
        "vector": "vectors of numbers",
        "table": "single values",
    }
    if kind in reasons:
        return Verdict(kind, reasons[kind])
    return Verdict(
        "unknown", f"items of the type {type(column.sample[0]).__name__}", "an encoder of your own, from ItemEncoder"
    )


def kind_of_item(item):
    """Return the kind of one item that is no string; None if it is none that skmm knows."""
    if isinstance(item, Mapping):
        if item.get("array") is not None and "sampling_rate" in item:
            return "audio"
        content = item.get("bytes") or item.get("path")
        return None if content is None else kind_of_item(content)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return kind_of_bytes(bytes(item[:32]))
    if isinstance(item, (str, os.PathLike)):
        return _KIND_OF_SUFFIX.get(suffix_of(item))
    if type(item).__module__.partition(".")[0] == "PIL":
        return "image"
    if isinstance(item, tuple) and len(item) == 2 and np.ndim(item[0]) == 0 and np.ndim(item[1]) > 0:
        return "audio"
    if isinstance(item, (list, tuple)) or (isinstance(item, np.ndarray) and item.dtype.kind in "OUS"):
        return _kind_of_list(list(item))
    if isinstance(item, np.ndarray) or hasattr(item, "__array__"):
        return _kind_of_array(np.shape(item))
    return "table" if np.isscalar(item) or hasattr(item, "isoformat") or type(item).__name__ == "Decimal" else None


def _kind_of_list(items):
    """Return what a list in one cell holds: words, pictures, or numbers."""
    if all(isinstance(item, str) for item in items):
        return "image" if items and all(kind_of_item(item) == "image" for item in items) else "tags"
    if all(np.isscalar(item) for item in items):
        return "vector"
    kinds = {kind_of_item(item) for item in items}
    return "image" if kinds == {"image"} else None


def _kind_of_array(shape):
    """Return what an array of some shape is as an item."""
    if len(shape) == 1:
        return "vector"
    if len(shape) == 2 and min(shape) <= _MOST_CHANNELS and max(shape) >= _FEWEST_SAMPLES:
        return "waveform"
    if len(shape) == 2 or (len(shape) == 3 and (shape[-1] in (1, 3, 4))):
        return "image"
    return "video" if len(shape) == 4 else None


def kind_of_bytes(start):
    """Return the kind of a file from its first bytes; None if they are not those of a medium."""
    if start.startswith(b"RIFF"):
        return _KIND_OF_RIFF.get(start[8:12])
    if start[4:8] == b"ftyp":
        return _KIND_OF_BRAND.get(start[8:12], "video")
    return next((kind for magic, kind in _KIND_OF_START.items() if start.startswith(magic)), None)


def suffix_of(path):
    """Return the suffix of a path in lower case, without its dot."""
    return os.path.splitext(os.fsdecode(path))[1][1:].lower()


def _judge_paths(column):
    """Judge strings that are paths of files, or addresses."""
    if column.most(lambda item: isinstance(item, str) and _URL.fullmatch(item)):
        return Verdict("address", "addresses, and nothing is downloaded", "download the files and pass their paths")
    kinds = [_KIND_OF_SUFFIX.get(suffix_of(item)) if _may_be_path(item) else None for item in column.sample]
    kind = max(set(kinds), key=kinds.count)
    if kind is None or kinds.count(kind) < _MOST * len(kinds):
        return None
    if kind == "document":
        return Verdict("document", "paths of documents", "read them into a column of texts")
    folder = Path(column.root or ".")
    if not any(os.path.exists(folder / os.fsdecode(item)) for item in column.sample):
        return Verdict(
            "absent",
            f"names of {kind} files, none of which exists in {os.fspath(folder)!r}",
            "pass their folder: modalities=infer_modalities(X, y, root=...)",
        )
    return Verdict(kind, f"paths of {kind} files")


def _may_be_path(item):
    return isinstance(item, os.PathLike) or (isinstance(item, str) and len(item) < 1000 and "\n" not in item)


def _judge_strings(column):
    """Judge strings: codes, or words."""
    column = column.with_strings()
    return _judge_codes(column) or _judge_words(column)


def _judge_codes(column):
    """Judge strings that are no words: dates, numbers, codes that identify the rows."""
    if column.most(_DATE.match) and _are_dates(column.sample):
        return Verdict("table", "dates or times as text")
    digits = column.most(lambda item: sum(map(str.isdigit, item)) >= 0.5 * len(item.strip()))
    if column.all_differ and _are_codes(column):
        return Verdict("identifier", "codes that identify the rows", "the table, if they mean something")
    if column.most(_NUMBER.fullmatch):
        return Verdict("table", "numbers as text", "numbers, once signs and units are removed")
    return Verdict("table", "codes that repeat") if digits else None


def _are_dates(items):
    import pandas as pd

    return pd.to_datetime(pd.Series(items, dtype=object), errors="coerce", format="mixed").notna().mean() >= _MOST


def _are_codes(column):
    """Tell whether strings that all differ are codes rather than words: numbers of many digits, hashes, e-mails."""
    if column.most(_NUMBER.fullmatch):
        # Prices and measures may all differ as well.
        return column.most(lambda item: item.strip().isdigit() and len(item.strip()) >= 8) or bool(
            _NAME_OF_IDENTIFIER.search(str(column.label))
        )
    single = column.most(lambda item: len(_words(item)) == 1)
    if single and (_NAME_OF_IDENTIFIER.search(str(column.label)) or column.most(lambda item: "@" in item)):
        return True
    if column.most(lambda item: not any(map(str.isalpha, item))):
        return True
    tokens = [token for item in column.sample for token in _words(item)]
    return sum(any(map(str.isdigit, token)) for token in tokens) >= _MOST * len(tokens)


def _judge_words(column):
    """Judge strings that are words: free texts, or categories."""
    n_words = float(np.mean([len(_words(item)) for item in column.sample]))
    share = 0 if column.n_distinct is None else column.n_distinct / len(column.present)
    if column.most(_is_json):
        return Verdict("text", "JSON", "expand its fields into columns")
    if n_words >= 10 or (n_words >= 4 and share >= 0.1) or (n_words >= 1.5 and share >= 0.5):
        return Verdict("text", f"free text: {n_words:.0f} words or so")
    if column.all_differ:
        return Verdict("text", "words that all differ")
    return Verdict("table", f"categories: {column.n_distinct} different strings")


def _words(item):
    """Return the words of a string; of languages that put no space between words, pairs of letters."""
    return _WITHOUT_SPACES.sub(r"\g<0> ", item).split()


def _is_json(item):
    if item[:1] not in ("{", "["):
        return False
    try:
        json.loads(item)
    except ValueError:
        return False
    return True


def _column(X, position):
    """Return one column of X as a series or array."""
    if hasattr(X, "iloc"):
        return X.iloc[:, position]
    return nw.from_native(X, eager_only=True)[:, position].to_native() if is_data_frame(X) else X[:, position]


def _unique(name, names):
    """Return a name for a modality that is none of those in use, made of letters, digits and single underscores."""
    name = re.sub(r"\W+", "_", name)
    name = base = re.sub(r"_+", "_", name).strip("_")
    number = 2
    while name in names:
        name, number = f"{base}_{number}", number + 1
    return name


def _report(rows):
    import pandas as pd

    return pd.DataFrame(
        [(label, modality, verdict.reason, verdict.alternative) for label, modality, verdict in rows],
        columns=["column", "modality", "reason", "alternative"],
    )


def _tell(verdicts, labels):
    """Warn of columns that are left out although a user may count on them."""
    surprising = [
        f"{label!r} {verdict.reason} ({verdict.alternative})"
        for label, verdict in zip(labels, verdicts, strict=True)
        if verdict.kind in ("target", "absent")
    ]
    if surprising:
        warn(f"infer_modalities leaves out columns of X: {'; '.join(surprising)}.")


def _code(transformer, imports):
    """Return the code that makes a transformer, and add what it needs to the imports, names by module."""
    if isinstance(transformer, str):
        return repr(transformer)
    if isinstance(transformer, Pipeline):
        imports.setdefault("sklearn.pipeline", set()).add("make_pipeline")
        return f"make_pipeline({', '.join(_code(step, imports) for _, step in transformer.steps)})"
    text = re.sub(r"\n\s*", " ", repr(transformer))
    nested = [value for value in transformer.get_params().values() if hasattr(value, "get_params")]
    for kind in {type(transformer), *(type(value) for value in nested if f"{type(value).__name__}(" in text)}:
        package = kind.__module__.partition("._")[0]
        module = "skmm" if package.startswith("skmm") and hasattr(sys.modules["skmm"], kind.__name__) else package
        imports.setdefault(module, set()).add(kind.__name__)
    return re.sub(r"<class '(\w+)'>", r"\1", text)
