"""A comparison of strategies as one page: tables and drawings, nothing loaded from elsewhere."""

from html import escape

import numpy as np

from ._styles import LEVEL_STYLES

_STYLE = """\
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d9dee3; --paper: #ffffff; --band: #f5f7f9;
  --mark: #D55E00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a3adb8; --line: #3a4048; --paper: #16191d;
  --band: #1e2227; --mark: #ff8a3d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 70rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .87rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: .82rem; vertical-align: bottom; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 8.5rem; }
td.number, th.number { text-align: right; }
td.plot, th.plot { width: 28%; min-width: 9rem; padding-left: 0; padding-right: 0; }
td.plot svg { display: block; width: 100%; height: 1.5rem; overflow: visible; }
td.error { white-space: normal; color: var(--soft); font-size: .87rem; min-width: 14rem; }
tbody tr:nth-child(even) { background: var(--band); }
.axis { display: flex; justify-content: space-between; font-weight: 400; }
.key { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .4rem; }
.legend > span { margin-right: 1rem; white-space: nowrap; }
summary { cursor: pointer; margin-top: 1.2rem; font-weight: 600; }
.better, .worse { font-weight: 600; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--mark); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
@media (max-width: 52rem) { th.wide, td.wide { display: none; } td.plot, th.plot { width: 24%; min-width: 7rem; }
  td.name { min-width: 6rem; } td.verdict { font-size: .87rem; } td, th { padding-left: .3rem; padding-right: .3rem; } }
"""

# Sorts a table by the column whose heading is clicked; the page reads as well without it.
_SCRIPT = """\
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], at = head.cellIndex;
  const up = head.getAttribute("aria-sort") === "descending";
  // A strategy that failed has one wide cell instead of numbers.
  const cell = row => row.cells[Math.min(at, row.cells.length - 1)];
  const value = row => cell(row).dataset.value ?? cell(row).textContent;
  const rows = [...body.rows].sort((a, b) => value(a).localeCompare(value(b), undefined, {numeric: true}));
  const number = row => parseFloat(value(row));
  if (head.classList.contains("number")) rows.sort((a, b) =>
    (isNaN(number(a)) - isNaN(number(b))) || (up ? 1 : -1) * (number(a) - number(b)));
  else if (!up) rows.reverse();
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
});
"""


def page(comparison, title):
    """Give the page as a string."""
    parts = "".join(_section(comparison, metric) for metric in comparison.metrics) or _failures(comparison)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"{parts}{_notes(comparison)}<script>\n{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _section(comparison, metric):
    """Give one scorer's summary, drawing and table."""
    frame = comparison.to_frame(metric)
    heading = "" if comparison.metrics == ["score"] else f"<h2>{escape(metric)}</h2>\n"
    return f"{heading}{_summary(frame)}{_drawing(comparison, frame, metric)}{_table(frame)}"


def _summary(frame):
    """Say in a sentence or two what the table says."""
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
    return f"<p>{text}</p>\n"


def _drawing(comparison, frame, metric):
    """Give a table that draws scores, with folds as ticks, on one scale and gains on another."""
    frame = frame[frame["mean"].notna()]
    folds = comparison.fold_scores(metric)
    scores = _Scale([*frame["low"], *frame["high"], *folds.to_numpy().ravel()])
    joined = frame[frame["gain"].notna()]
    gains = _Scale([0, *joined["gain_low"], *joined["gain_high"]])
    reference = frame.loc[frame["verdict"] == "best single", "mean"].tolist()
    rows = []
    for label, row in frame.iterrows():
        color = LEVEL_STYLES[row["level"]][0]
        drawn = scores.draw(row["mean"], row["low"], row["high"], color, folds[label], reference)
        gain = difference = ""
        if label in joined.index:
            gain = f"{row['gain']:+.3f}"
            difference = gains.draw(row["gain"], row["gain_low"], row["gain_high"], color, [], [0])
        rows.append(
            f'<tr><td class="name">{_key(row["level"])}{escape(label)}</td><td class="plot">{drawn}</td>'
            f'<td class="number">{row["mean"]:.3f}</td><td class="plot wide">{difference}</td>'
            f'<td class="number">{gain}</td><td class="verdict {row["verdict"]}">{row["verdict"]}</td></tr>\n'
        )
    legend = "".join(f"<span>{_key(level)}{level}</span>" for level in LEVEL_STYLES if level in set(frame["level"]))
    dashed = ", dashed lines the best single modality" if reference else ""
    return (
        '<div class="scroll"><table>\n<thead><tr><th>strategy</th>'
        f'<th class="plot">{scores.axis(".3f")}</th><th class="number">mean</th>'
        f'<th class="plot wide">{gains.axis("+.3f") if len(joined) else ""}</th><th class="number">gain</th>'
        f"<th>{'verdict' if reference else ''}</th></tr></thead>\n"
        f'<tbody>\n{"".join(rows)}</tbody></table></div>\n<p class="legend soft">{legend}</p>\n'
        f'<p class="soft">Points are means, bars their {100 * comparison.confidence:g} % intervals, ticks the '
        f"{len(folds)} folds{dashed}.</p>\n"
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

    def _line(self, value, color, top, bottom, more):
        return f'<line x1="{self(value)}" x2="{self(value)}" y1="{top}" y2="{bottom}" stroke="{color}" {more}/>'


def _key(level):
    return f'<span class="key" style="background:{LEVEL_STYLES[level][0]}"></span>'


def _table(frame):
    """Give all numbers, sortable by every column."""
    heads = [
        ("strategy", ""),
        ("level", ""),
        ("mean", "number"),
        ("sd", "number"),
        ("interval", "number"),
        ("gain", "number"),
        ("interval of the gain", "number"),
        ("p", "number"),
        ("p (Holm)", "number"),
        ("fit [s]", "number"),
        ("predict [s]", "number"),
    ]
    body = []
    for label, row in frame.iterrows():
        if row["error"]:
            body.append(
                f'<tr><td class="name">{escape(label)}</td><td>{row["level"]}</td>'
                f'<td class="error" colspan="{len(heads) - 2}">failed in {escape(row["error"])}</td></tr>\n'
            )
            continue
        cells = [
            _number(row["mean"], ".4f"),
            _number(row["sd"], ".4f"),
            _interval(row["low"], row["high"], ".3f"),
            _number(row["gain"], "+.4f"),
            _interval(row["gain_low"], row["gain_high"], "+.3f"),
            _number(row["p"], ".2g"),
            _number(row["p_holm"], ".2g"),
            _number(row["fit_time"], ".3g"),
            _number(row["predict_time"], ".3g"),
        ]
        body.append(f'<tr><td class="name">{escape(label)}</td><td>{row["level"]}</td>{"".join(cells)}</tr>\n')
    head = "".join(f'<th class="{kind}"><button type="button">{name}</button></th>' for name, kind in heads)
    return (
        f"<details open><summary>All numbers</summary>\n"
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{''.join(body)}</tbody></table></div></details>\n"
    )


def _number(value, spec):
    return f'<td class="number" data-value="{value}">{"" if np.isnan(value) else format(value, spec)}</td>'


def _interval(low, high, spec):
    text = "" if np.isnan(low) else f"{low:{spec}} to {high:{spec}}"
    return f'<td class="number" data-value="{low}">{text}</td>'


def _failures(comparison):
    """Give what went wrong if nothing went right."""
    items = "".join(f"<li>{escape(row.label)}: failed in {escape(row.error)}</li>\n" for row in comparison.rows)
    return f"<p>All strategies failed.</p>\n<ul>\n{items}</ul>\n"


def _notes(comparison):
    """Say how the numbers were made."""
    level = f"{100 * comparison.confidence:g} %"
    return (
        "<h2>How to read this</h2>\n"
        "<p>All strategies were fitted and scored on the same folds. Intervals and tests are those of the corrected "
        "resampled t-test, which knows that training sets overlap (Nadeau and Bengio, 2003). Gain is the difference to "
        "the highest mean of a single modality. A strategy is called better only if it is better than every single "
        f"modality, at {level} confidence after Holm's correction over all strategies that join modalities; intervals "
        "are those of each strategy by itself, without it.</p>\n"
        "<p>The highest of many means is high by luck as well: score the strategy that you choose on data kept "
        "aside.</p>\n"
    )
