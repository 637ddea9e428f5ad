"""A comparison of strategies as one HTML page: tables and drawings, nothing loaded from elsewhere."""

from html import escape
from importlib import resources
from string import Template

import numpy as np

from ._strategies import LEVEL_STYLES

_TEMPLATES = resources.files(__package__) / "templates"
# Columns of the table of numbers after the strategy and its level; two values are the ends of an interval.
_NUMBERS = [
    *((["mean"], ".4f"), (["sd"], ".4f"), (["low", "high"], ".3f")),
    *((["gain"], "+.4f"), (["gain_low", "gain_high"], "+.3f"), (["p"], ".2g"), (["p_holm"], ".2g")),
    *((["fit_time"], ".3g"), (["predict_time"], ".3g")),
]


def comparison_page(comparison, title):
    """Return the page as a string."""
    scores = "".join(_scores(comparison, metric) for metric in comparison.metrics) or _failures(comparison)
    return _fill(
        "comparison.html",
        title=escape(title),
        style=read_template("comparison.css"),
        scores=scores,
        confidence=f"{100 * comparison.confidence:g}",
        script=read_template("comparison.js"),
    )


def read_template(name):
    """Return the text of a file in the folder of templates."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _fill(name, **values):
    return Template(read_template(name)).substitute(values)


def _scores(comparison, metric):
    """Return the summary, the drawings and the numbers of one scorer."""
    frame = comparison.to_frame(metric)
    scored = frame[frame["mean"].notna()]
    joined = frame[frame["gain"].notna()]
    folds = comparison.fold_scores(metric)
    best_single = frame.loc[frame["verdict"] == "best single", "mean"].tolist()
    score_scale = _Scale([*scored["low"], *scored["high"], *folds.to_numpy().ravel()])
    gain_scale = _Scale([0, *joined["gain_low"], *joined["gain_high"]])
    levels = [level for level in LEVEL_STYLES if level in set(scored["level"])]
    return _fill(
        "scores.html",
        heading="" if comparison.metrics == ["score"] else f"<h2>{escape(metric)}</h2>\n",
        summary=f"{_summary(frame)} {escape(comparison.summary(metric))}",
        score_axis=score_scale.axis(".3f"),
        gain_axis=gain_scale.axis("+.3f") if len(joined) else "",
        verdict="verdict" if best_single else "",
        drawings="".join(
            _drawing_row(label, row, folds[label], best_single, score_scale, gain_scale)
            for label, row in scored.iterrows()
        ),
        legend="".join(f"<span>{_key(level)}{level}</span>" for level in levels),
        confidence=f"{100 * comparison.confidence:g}",
        n_folds=len(folds),
        dashed=", dashed lines the best single modality" if best_single else "",
        numbers="".join(_number_row(label, row) for label, row in frame.iterrows()),
    )


def _summary(frame):
    """Return in a sentence or two what the table says."""
    best = frame.iloc[0]
    text = f"<strong>{escape(best.name)}</strong> is highest, with a mean of {best['mean']:.3f}."
    singles = frame[frame["verdict"] == "best single"]
    joined = frame[frame["gain"].notna()]
    if len(singles) and len(joined):
        name = escape(singles.index[0])
        n_better = (joined["verdict"] == "better").sum()
        of_all = f"{n_better} of {len(joined)}" if n_better else f"None of {len(joined)}"
        text += (
            f" The best single modality is <strong>{name}</strong>, with {singles['mean'].iloc[0]:.3f}. {of_all} "
            f"strategies of fusion {'is' if n_better == 1 else 'are'} shown to be better than every single modality."
        )
    return text


def _drawing_row(label, row, folds, best_single, score_scale, gain_scale):
    """Return the row that draws the scores of a strategy on one scale and its gain on another."""
    color = LEVEL_STYLES[row["level"]][0]
    scores = score_scale.draw(row["mean"], row["low"], row["high"], color, folds, best_single)
    gain = gain_drawing = ""
    if not np.isnan(row["gain"]):
        gain = f"{row['gain']:+.3f}"
        gain_drawing = gain_scale.draw(row["gain"], row["gain_low"], row["gain_high"], color, [], [0])
    return (
        f'<tr><td class="name">{_key(row["level"])}{escape(label)}</td><td class="plot">{scores}</td>'
        f'<td class="number">{row["mean"]:.3f}</td><td class="plot wide">{gain_drawing}</td>'
        f'<td class="number">{gain}</td><td class="verdict {row["verdict"]}">{row["verdict"]}</td></tr>\n'
    )


class _Scale:
    """Maps values to percent of a cell's width, with a margin for the points, and draws there."""

    def __init__(self, values):
        self.low, self.high = min(values), max(values)

    def __call__(self, value):
        return f"{3 + 94 * (value - self.low) / ((self.high - self.low) or 1):.2f}%"

    def axis(self, spec):
        return f'<span class="axis"><span>{self.low:{spec}}</span><span>{self.high:{spec}}</span></span>'

    def draw(self, mean, low, high, color, ticks, dashed):
        lines = "".join(self._line(value, "var(--mark)", 0, 24, 'stroke-dasharray="4 3"') for value in dashed)
        lines += "".join(self._line(value, color, 7, 17, 'stroke-opacity=".45"') for value in ticks)
        return (
            f'<svg role="img" aria-label="{mean:.3f}, from {low:.3f} to {high:.3f}">{lines}'
            f'<line x1="{self(low)}" x2="{self(high)}" y1="12" y2="12" stroke="{color}" stroke-width="2.5"/>'
            f'<circle cx="{self(mean)}" cy="12" r="5" fill="{color}" stroke="var(--paper)"/></svg>'
        )

    def _line(self, value, color, top, bottom, attributes):
        return f'<line x1="{self(value)}" x2="{self(value)}" y1="{top}" y2="{bottom}" stroke="{color}" {attributes}/>'


def _key(level):
    return f'<span class="key" style="background:{LEVEL_STYLES[level][0]}"></span>'


def _number_row(label, row):
    """Return the row of a strategy in the table of numbers."""
    if row["error"]:
        cells = f'<td class="error" colspan="{len(_NUMBERS)}">failed in {escape(row["error"])}</td>'
    else:
        cells = "".join(_number_cell(row[columns], spec) for columns, spec in _NUMBERS)
    return f'<tr><td class="name">{escape(label)}</td><td>{row["level"]}</td>{cells}</tr>\n'


def _number_cell(values, spec):
    text = " to ".join(format(value, spec) for value in values.dropna())
    return f'<td class="number" data-value="{values.iloc[0]}">{text}</td>'


def _failures(comparison):
    """Return the errors of all strategies, where none has scores."""
    items = "".join(f"<li>{escape(row.label)}: failed in {escape(row.error)}</li>\n" for row in comparison.rows)
    return f"<p>All strategies failed.</p>\n<ul>\n{items}</ul>\n"
