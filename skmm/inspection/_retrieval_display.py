"""Results of a search beside their queries, as a drawing and as a page."""

import functools
import operator
from collections.abc import Callable
from html import escape
from importlib import resources
from os import fspath
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from .._columns import from_arrow, is_data_frame, is_missing_item, shorten
from .._plot import GREEN, GREY, make_axes
from .._sklearn import safe_indexing
from .._typing import Items, PathType, RandomState, Table
from ._thumbnails import PICTURED, item_html, kinds_of_columns, picture_of, text_of

_TEMPLATES = resources.files(__package__) / "templates"
_RESULT_COLUMNS = ["query", "rank", "label", "score"]

# In inches: margins, the gap behind the queries, and what a cell leaves free around its content.
_MARGIN, _GAP, _PADDING = 0.06, 0.12, 0.05
# In points, and the height of a line in inches.
_FONT_SIZE, _LINE = 7.5, 0.135
# Lines of a text below a picture, and of a text alone where no column is pictured.
_CAPTION_LINES, _TEXT_LINES = 2, 5
_WIDTH = 6.0


class RetrievalDisplay:
    """Queries beside their first results, the right ones framed.

    Images are shown as they are, videos by the frame in their middle, sounds by their spectrograms, and all else as
    text.

    Parameters
    ----------
    results : DataFrame of shape (n_results, 4 + n_columns)
        Results of a search with the columns "query", "rank", "label" and "score" and those of the items found, as
        ``CrossModalRetriever.search`` returns them.

    queries : DataFrame of shape (n_queries, n_query_columns)
        Items that were searched for. Its index has the values of the column "query".

    correct : "label", callable, array-like of bool or None, default="label"
        Which results are right. "label" are those whose label is that of the query, so that both are one row; a
        callable takes the query and the label and returns a bool; an array has an entry for each row of ``results``.
        None frames none.

    kinds : dict of str to str, default=None
        Kind of the items in a column, "image", "audio", "video" or "text". Columns that are left out are judged by
        their items.

    root : str or path-like, default=None
        Folder below which relative paths are looked up.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the drawing.

    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    JointEmbeddingDisplay : Points of the modalities in the space that is searched.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm.inspection import RetrievalDisplay
    >>> queries = pd.DataFrame({"text": ["a cat on a mat", "the sea at night"]}, index=["cat", "sea"])
    >>> results = pd.DataFrame(
    ...     [("cat", 1, "cat", 0.91, "cat"), ("cat", 2, "sea", 0.2, "sea"), ("sea", 1, "moon", 0.7, "moon")],
    ...     columns=["query", "rank", "label", "score", "name"],
    ... )
    >>> display = RetrievalDisplay(results, queries).plot()
    >>> display.is_right.tolist()
    [True, False, False]
    """

    def __init__(
        self,
        results: Table,
        queries: Table,
        *,
        correct: str | Callable | ArrayLike | None = "label",
        kinds: dict | None = None,
        root: PathType | None = None,
    ):
        owner = type(self).__name__
        results, queries = _pandas_frame(results, owner, "results"), _pandas_frame(queries, owner, "queries")
        missing = [name for name in _RESULT_COLUMNS if name not in results]
        if missing:
            raise ValueError(f"{owner}: results have no columns {missing}; pass what the search returns.")
        unknown = [query for query in pd.unique(results["query"]) if query not in queries.index]
        if unknown:
            raise ValueError(
                f"{owner}: results are for the queries {unknown[:5]}, which are not in the index of queries; pass the "
                "rows that were searched for."
            )
        if not queries.index.is_unique:
            raise ValueError(f"{owner}: the index of queries holds labels more than once; use reset_index(drop=True).")
        # Queries in the order in which they come, and their results by rank.
        order = np.lexsort((results["rank"].to_numpy(), pd.factorize(results["query"])[0]))
        self.results = results.iloc[order]
        self.queries = queries
        self.items = self.results.drop(columns=_RESULT_COLUMNS)
        self.correct = correct
        self.kinds = kinds_of_columns([queries, self.items], kinds, owner)
        self.root = root
        self.is_right = self._judge(results)[order]

    @classmethod
    def from_estimator(
        cls,
        retriever: Any,
        X_query: Table | Items,
        *,
        source: Any = None,
        target: Any = None,
        n: int = 5,
        max_queries: int = 6,
        correct: str | Callable | ArrayLike | None = "label",
        kinds: dict | None = None,
        root: PathType | None = None,
        random_state: RandomState = None,
        ax: Any = None,
    ) -> "RetrievalDisplay":
        """Search for some rows, and draw the results.

        Parameters
        ----------
        retriever : estimator
            Fitted, with a method ``search(X_query, source=None, target=None, n=10)``.

        X_query : DataFrame, or a column of items of the modality ``source``
            Rows to search for.

        source, target : str, list of str or None, default=None
            Modalities of the queries and of what is found, as ``search`` takes them.

        n : int, default=5
            Results for each query.

        max_queries : int, default=6
            Number of queries; of more rows as many are drawn at random, and stay in order.

        correct : "label", callable, array-like of bool or None, default="label"
            Which results are right, as in the class.

        kinds : dict of str to str, default=None
            Kinds of the columns, as in the class.

        root : str or path-like, default=None
            Folder below which relative paths are looked up; None is that of the retriever's encoders, if it is one.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        ax : matplotlib Axes or None, default=None
            Axes to draw into; None makes a new figure.

        Returns
        -------
        display : RetrievalDisplay
            The drawing.
        """
        X_query = [X_query] if isinstance(X_query, str) else from_arrow(X_query)
        if root is None:
            encoders = [transformer for _, transformer, _ in getattr(retriever, "modalities_", [])]
            roots = {getattr(encoder, "root", None) for encoder in encoders} - {None}
            root = roots.pop() if len(roots) == 1 else None
        if len(X_query) > max_queries:
            rows = np.sort(check_random_state(random_state).choice(len(X_query), max_queries, replace=False))
            X_query = safe_indexing(X_query, rows)
        results = retriever.search(X_query, source=source, target=target, n=n)
        if is_data_frame(X_query):
            queries = _pandas_frame(X_query, cls.__name__, "X_query")
            queries = queries[_columns_of(retriever, source, list(queries.columns))]
        else:
            # Items of one modality are known by their positions, unless they have labels.
            index = X_query.index if isinstance(X_query, pd.Series) else None
            if index is None and isinstance(correct, str) and correct == "label":
                correct = None
            items = pd.Series(list(X_query), index=index, dtype=object)
            queries = pd.DataFrame({source if isinstance(source, str) else "query": items})
        return cls(results, queries, correct=correct, kinds=kinds, root=root).plot(ax, max_queries=max_queries)

    def plot(self, ax: Any = None, *, max_queries: int = 6) -> "RetrievalDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw into, whose width is shared by a query and its results; None makes a new figure, 600 pixels
            wide.

        max_queries : int, default=6
            Queries that are drawn, the first ones.

        Returns
        -------
        display : RetrievalDisplay
            This object.
        """
        groups = self._groups(max_queries)
        n_columns = 1 + max(len(rows) for _, rows in groups)
        is_pictured = any(kind in PICTURED for kind in self.kinds.values())
        has_text = is_pictured and any(kind == "text" for kind in self.kinds.values())
        below = _LINE * ((_CAPTION_LINES if has_text else 0) + 1) + 3 * _PADDING
        header = 2 * _LINE

        def cell_width(width):
            return (width - 2 * _MARGIN - _GAP) / n_columns

        def body_height(width):
            return cell_width(width) - 2 * _PADDING if is_pictured else _TEXT_LINES * _LINE

        note = 0 if self.correct is None else 1.5 * _LINE
        if ax is None:
            height = 2 * _MARGIN + header + note + len(groups) * (body_height(_WIDTH) + below + _PADDING)
            ax = make_axes(height=height)
            ax.figure.set_layout_engine("none")
            ax.set_position([0, 0, 1, 1])
        box = ax.get_window_extent()
        width, height = box.width / ax.figure.dpi, box.height / ax.figure.dpi
        # Axes of a user may be too low for pictures as wide as the columns.
        body = min(body_height(width), (height - 2 * _MARGIN - header - note) / len(groups) - below - _PADDING)
        if body < _LINE:
            raise ValueError(
                f"{type(self).__name__}: axes of {width:.1f} x {height:.1f} inches are too small for {len(groups)} "
                "queries; pass fewer, or larger axes."
            )
        ax.axis("off")
        canvas = _Canvas(ax, self.root, cell_width(width), body, _CAPTION_LINES if has_text else 0)
        lefts = [_MARGIN + i * canvas.width + (_GAP if i else 0) for i in range(n_columns)]
        for position, left in enumerate(lefts):
            name = str(position) if position else "query"
            canvas.write(name, left + canvas.width / 2, _MARGIN + _LINE, ha="center", color="0.35")
        top = _MARGIN + header
        for query, rows in groups:
            canvas.draw_cell(lefts[0], top, self.queries.loc[query], self.kinds, str(query), "", "query")
            for left, row in zip(lefts[1:], rows, strict=False):
                right = self.is_right[row]
                score = f"{self.results['score'].iloc[row]:.2f}"
                label = text_of(self.results["label"].iloc[row])
                state = "right" if right else "other"
                canvas.draw_cell(left, top, self.items.iloc[row], self.kinds, label, score, state)
            top += body + below + _PADDING
        if note:
            meaning = "the query's own row" if isinstance(self.correct, str) else "right"
            canvas.write(f"framed: {meaning}", _MARGIN + _PADDING, top + note / 2, color="0.35")
        ax.set(xlim=(0, width), ylim=(height, 0))
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_html(self, path: PathType, *, title: str = "Search results", max_queries: int = 100) -> None:
        """Write the results as one page that needs nothing from elsewhere.

        Parameters
        ----------
        path : str or path-like
            File to write.

        title : str, default="Search results"
            Heading of the page.

        max_queries : int, default=100
            Queries in the page, the first ones.
        """
        groups = self._groups(max_queries)
        sections = []
        for query, rows in groups:
            cells = [self._cell_html(self.queries.loc[query], "query", f"<span>{escape(text_of(query))}</span>")]
            for row in rows:
                right = self.is_right[row]
                mark = '<span class="mark" role="img" aria-label="right">&#10003;</span> ' if right else ""
                label, score = escape(text_of(self.results["label"].iloc[row])), self.results["score"].iloc[row]
                footer = f'<span>{label}</span><span class="score">{mark}{score:.3f}</span>'
                cells.append(self._cell_html(self.items.iloc[row], "right" if right else "", footer))
            sections.append(f"<section>\n{''.join(cells)}</section>\n")
        style = Template(_read_template("retrieval.css")).substitute(n_columns=1 + max(len(rows) for _, rows in groups))
        page = Template(_read_template("retrieval.html")).substitute(
            title=escape(title), style=style, summary=self._summary(groups), sections="".join(sections)
        )
        Path(fspath(path)).write_text(page, encoding="utf-8")

    def _judge(self, results):
        """Return whether each result is right."""
        correct = self.correct
        if correct is None:
            return np.zeros(len(results), dtype=bool)
        if isinstance(correct, str) and correct == "label":
            correct = operator.eq
        if callable(correct):
            pairs = zip(results["query"], results["label"], strict=True)
            return np.array([bool(correct(query, label)) for query, label in pairs], dtype=bool)
        is_right = np.asarray(correct)
        if is_right.shape != (len(results),) or is_right.dtype.kind != "b":
            raise ValueError(
                f"{type(self).__name__}: correct must be 'label', a callable, None or a bool for each of the "
                f"{len(results)} results, got {shorten(repr(correct))}."
            )
        return is_right

    def _groups(self, max_queries):
        """Return (query, positions of its results) of the first queries."""
        groups = {}
        for position, query in enumerate(self.results["query"]):
            groups.setdefault(query, []).append(position)
        if not groups:
            raise ValueError(f"{type(self).__name__}: there are no results to show.")
        return list(groups.items())[:max_queries]

    def _summary(self, groups):
        n_results = max(len(rows) for _, rows in groups)
        n_right = sum(bool(self.is_right[rows].any()) for _, rows in groups)
        if self.correct is None:
            return f"{len(groups)} queries and the first {n_results} results of each."
        aim = "their own row" if isinstance(self.correct, str) else "a right one"
        return f"{n_right} of {len(groups)} queries find {aim} among the first {n_results} results; it is framed."

    def _cell_html(self, items, state, footer):
        # Pictures first.
        columns = sorted(items.index, key=lambda column: self.kinds[column] == "text")
        shown = "".join(item_html(items[column], self.kinds[column], self.root) for column in columns)
        return f'<article class="{state}"><div>{shown}</div><footer>{footer}</footer></article>\n'


class _Canvas:
    """Cells in axes whose unit is an inch.

    Parameters
    ----------
    ax : matplotlib Axes
        The axes.

    root : str, path-like or None
        Folder of relative paths.

    width, body : float
        Width of a cell, and height of the picture, or of the text, in it.

    caption_lines : int
        Lines of text below a picture.
    """

    def __init__(self, ax, root, width, body, caption_lines):
        self.ax, self.root, self.width, self.body, self.caption_lines = ax, root, width, body, caption_lines

    @property
    def height(self):
        return self.body + _LINE * (self.caption_lines + 1) + 3 * _PADDING

    def draw_cell(self, left, top, items, kinds, label, score, state):
        """Draw the items of one row, with a label and a score below them."""
        from matplotlib.patches import Rectangle

        color, line = {"query": ("none", 0), "right": (GREEN, 2.5), "other": (GREY, 0.5)}[state]
        inset = _PADDING / 2
        box = Rectangle(
            (left + inset, top),
            self.width - 2 * inset,
            self.height,
            edgecolor=color,
            linewidth=line,
            facecolor="0.94" if state == "query" else "none",
            zorder=3 if state == "right" else 0,
        )
        self.ax.add_patch(box)
        present = [(items[column], kinds[column]) for column in items.index if not is_missing_item(items[column])]
        pictured = [(item, kind) for item, kind in present if kind in PICTURED]
        text = " · ".join(text_of(item) for item, kind in present if kind == "text")
        inner, start = self.width - 6 * inset, left + 3 * inset
        if pictured:
            self._draw_pictures(pictured, start, top + _PADDING, inner)
            n_lines, y = self.caption_lines, top + _PADDING + self.body
        else:
            n_lines, y = max(1, int(self.body / _LINE)) + self.caption_lines, top + _PADDING
        for number, line in enumerate(wrapped(text if present else "missing", inner, n_lines)):
            self.write(line, start, y + (number + 0.5) * _LINE)
        base = top + self.height - _PADDING - _LINE / 2
        if score:
            mark = "✓ " if state == "right" else ""
            self.write(mark + score, start + inner, base, ha="right", color="0.35")
            inner -= text_width(mark + score) + 2 * inset
        self.write(next(iter(wrapped(label, inner, 1)), ""), start, base, color="0.35")

    def _draw_pictures(self, items, left, top, width):
        """Draw pictures side by side, in their proportions."""
        share = width / len(items)
        for number, (item, kind) in enumerate(items):
            pixels = picture_of(item, kind, self.root, side=max(64, round(2 * self.ax.figure.dpi * share)))
            x, y = left + (number + 0.5) * share, top + self.body / 2
            if pixels is None:
                self.write("cannot be read", x, y, ha="center", color="0.35")
                continue
            height, breadth = pixels.shape[:2]
            scale = min((share - _PADDING / 2) / breadth, self.body / height)
            half_width, half_height = scale * breadth / 2, scale * height / 2
            extent = (x - half_width, x + half_width, y + half_height, y - half_height)
            self.ax.imshow(pixels, extent=extent, aspect="auto", interpolation="antialiased")

    def write(self, text, x, y, **options):
        options = {"va": "center_baseline", "fontsize": _FONT_SIZE, "parse_math": False} | options
        self.ax.text(x, y, text, **options)


@functools.lru_cache(maxsize=4096)
def text_width(text):
    """Return the width of a text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=_FONT_SIZE), ismath=False)[0] / 72


def wrapped(text, width, n_lines):
    """Return at most so many lines of a text, none wider than a width in inches; what is cut off becomes "…"."""
    lines, rest = [], text
    while rest and len(lines) < n_lines:
        is_last = len(lines) == n_lines - 1
        if text_width(rest) <= width:
            lines.append(rest)
            break
        # Characters that fit, by bisection; at least one.
        low, high = 1, min(len(rest), 200)
        while low < high:
            middle = (low + high + 1) // 2
            fits = text_width(rest[:middle].rstrip() + ("…" if is_last else "")) <= width
            low, high = (middle, high) if fits else (low, middle - 1)
        if is_last:
            lines.append(rest[:low].rstrip() + "…")
            break
        space = rest.rfind(" ", 0, low + 1)
        low = space if space > 0 else low
        lines.append(rest[:low].rstrip())
        rest = rest[low:].lstrip()
    return lines


def _columns_of(retriever, source, header):
    """Return the columns of the modalities that are searched for, in the order of a header; all if that is unknown."""
    sources = [source] if isinstance(source, str) else source
    columns = set()
    for name, _, selected in getattr(retriever, "modalities_", ()):
        if sources is None or name in sources:
            columns |= (
                {selected} if isinstance(selected, str) else set(selected) if isinstance(selected, list) else set()
            )
    return [column for column in header if column in columns] or header


def _pandas_frame(frame, owner, name):
    """Return a data frame as one of pandas."""
    frame = from_arrow(frame)
    if not is_data_frame(frame):
        raise ValueError(f"{owner}: {name} must be a data frame, got {type(frame).__name__}.")
    if hasattr(frame, "iloc"):
        return frame
    return pd.DataFrame({column: pd.Series(frame[column].to_list()) for column in frame.columns})


def _read_template(name):
    return (_TEMPLATES / name).read_text(encoding="utf-8")
