"""Rows and their partners side by side, as small pictures and texts, in a notebook."""

from collections.abc import Sequence
from html import escape
from numbers import Integral
from typing import Any

import pandas as pd

from .._sklearn import Interval, validate_params
from .._typing import PathType, Table
from ._retrieval_display import _pandas_frame
from ._thumbnails import item_html, kinds_of_columns


@validate_params(
    {
        "frame": [pd.DataFrame],
        "X": "no_validation",
        "X_partner": "no_validation",
        "columns": ["array-like", tuple, None],
        "max_rows": [Interval(Integral, 1, None, closed="left")],
        "root": "no_validation",
    },
    prefer_skip_nested_validation=True,
)
def show_pairs(
    frame: pd.DataFrame,
    X: Table,
    X_partner: Table | None = None,
    *,
    columns: Sequence[str] | None = None,
    max_rows: int = 20,
    root: PathType | None = None,
) -> "PairsTable":
    """Show rows beside their partners in a notebook, with pictures, spectrograms and texts.

    Parameters
    ----------
    frame : DataFrame
        Result of :func:`find_mismatches` or :func:`find_leaks`, or the ``duplicates`` of :func:`find_duplicates`.

    X : DataFrame
        Data in which the rows were found, with their labels.

    X_partner : DataFrame, default=None
        Data of the partners, the training set of :func:`find_leaks`. None means X.

    columns : sequence of str, default=None
        Columns to show. None means those that hold no numbers.

    max_rows : int, default=20
        Number of rows that are shown, the first.

    root : str or path-like, default=None
        Folder below which relative paths are looked up.

    Returns
    -------
    table : PairsTable
        A notebook shows it; its attribute ``html`` is the same as a text, for a file.

    See Also
    --------
    RetrievalDisplay : Draws results of a search.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from skmm.inspection import find_duplicates, show_pairs
    >>> X = pd.DataFrame({"caption": ["red fox", "grey fox", "red fox", "small hen"]}, index=[*"abcd"])
    >>> result = find_duplicates(X, [("text", TfidfVectorizer(), "caption")])
    >>> show_pairs(result.duplicates, X)
    PairsTable of 2 rows: 'a' and 'c', 'c' and 'a'
    """
    X = _pandas_frame(X, "show_pairs", "X")
    X_partner = X if X_partner is None else _pandas_frame(X_partner, "show_pairs", "X_partner")
    columns = [*(X.select_dtypes(exclude="number") if columns is None else columns)]
    if not columns or not set(columns) <= set(X.columns) & set(X_partner.columns):
        raise ValueError(
            f"show_pairs: columns must name columns of the data, {list(X)}, and are by default those without numbers; "
            f"got {columns}."
        )
    return PairsTable(frame[:max_rows], X[columns], X_partner[columns], root)


class PairsTable:
    """Rows beside their partners, which a notebook shows as a table; :func:`show_pairs` returns it."""

    def __init__(self, frame: pd.DataFrame, rows: pd.DataFrame, partners: pd.DataFrame, root: Any):
        self._frame, self._root = frame, root
        self._kinds = kinds_of_columns([rows, partners], None, "show_pairs")
        facts = [column for column in frame.columns if column != "partner"]
        head = "".join(f"<th>{escape(name)}</th>" for name in ["row", "partner", *facts])
        body = [
            f"<tr><td>{self._items(label, rows, 'X')}</td>"
            f"<td>{self._items(values['partner'], partners, 'X_partner')}</td>"
            + "".join(f"<td>{escape(_text(values[name]))}</td>" for name in facts)
            + "</tr>"
            for label, values in zip(frame.index, frame.to_dict("records"), strict=True)
        ]
        self.html = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"

    def _items(self, label, table, name):
        """Return the label of a row and its items; of rows that share a label those of the first."""
        position = table.index.get_indexer_for([label])[0]
        if position < 0:
            raise ValueError(
                f"show_pairs: {name} has no row {label!r}; pass the data in which the rows were found as X, and of "
                "find_leaks the training set as X_partner."
            )
        row = table.iloc[position]
        cells = [item_html(row[column], self._kinds[column], self._root) for column in table.columns]
        return "".join([f"<p><b>{escape(str(label))}</b></p>", *cells])

    def _repr_html_(self):
        return self.html

    def __repr__(self):
        pairs = [f"{label!r} and {partner!r}" for label, partner in self._frame["partner"].items()]
        return f"PairsTable of {len(pairs)} rows: {', '.join(pairs)}"


def _text(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)
