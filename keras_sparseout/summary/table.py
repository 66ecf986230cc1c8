"""The table that `activation_sparsity` returns, as text, HTML and data."""

import html
import math

from keras_sparseout.utils.tables import dataframe

_TEXTS = ("layer", "kind", "shape")
COLUMNS = (*_TEXTS, "hoyer", "zeros", "dead", "rms", "needless_macs")
# The heading stays in sight where a long table scrolls.
_STYLE = {
    "div": "max-height: 32em; overflow: auto",
    "th": "padding: 0 0.5em; position: sticky; top: 0; background: white; color: black",
    "td": "padding: 0 0.5em",
}


class SparsityTable:
    """The figures of `activation_sparsity`.

    `print` shows it as text, a notebook in which it ends a cell as a table of HTML.

    Attributes:
        rows: List of dicts by column, one a layer.
        macs: Multiply-accumulates a sample of the whole model, listed layers or not, so
            far as they could be counted; `notes` name what was not.
        effective_macs: How many of them have no factor that is a zero activation.
        macs_by_kind: Dict of the same two, (effective, all), by the class of the layer
            that has the products, the largest first.
        notes: List of lines on what the figures leave out or hold.
    """

    def __init__(self, rows, macs_by_kind, notes=()):
        self.rows = rows
        self.macs_by_kind = macs_by_kind
        self.effective_macs = sum(part for part, _ in macs_by_kind.values())
        self.macs = sum(macs for _, macs in macs_by_kind.values())
        self.notes = list(notes)

    def to_dataframe(self):
        """Returns `rows` as a pandas.DataFrame, with NaN for None."""
        return dataframe(
            {
                c: [math.nan if row[c] is None else row[c] for row in self.rows]
                for c in COLUMNS
            }
        )

    def __str__(self):
        cells = [COLUMNS, *self._cells()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if column in _TEXTS else cell.rjust(width)
                for column, cell, width in zip(COLUMNS, line, widths, strict=True)
            ).rstrip()
            for line in cells
        ]
        return "\n".join([*lines, *self._lines()])

    __repr__ = __str__

    def _repr_html_(self):
        body = "\n".join(_html_row("td", cells) for cells in self._cells())
        lines = "<br>\n".join(html.escape(line) for line in self._lines())
        return (
            f'<div style="{_STYLE["div"]}">\n<table>\n<thead>\n'
            f"{_html_row('th', COLUMNS)}\n</thead>\n<tbody>\n{body}\n</tbody>\n"
            f"</table>\n</div>\n<p>{lines}</p>"
        )

    def _cells(self):
        return [[_shown(c, row[c]) for c in COLUMNS] for row in self.rows]

    def _lines(self):
        """Returns the lines below the table."""
        lines = []
        if self.macs:
            lines.append(
                f"{_large(self.effective_macs)} of {_large(self.macs)} "
                "multiply-accumulates a sample are effective "
                f"({self.effective_macs / self.macs:.0%})".replace("%", " %")
            )
        if len(self.macs_by_kind) > 1:
            parts = [
                f"{kind} {_large(effective)} of {_large(macs)}"
                for kind, (effective, macs) in self.macs_by_kind.items()
            ]
            lines.append(f"By kind: {', '.join(parts)}.")
        return [*lines, *self.notes]


def _html_row(tag, cells):
    parts = []
    for column, cell in zip(COLUMNS, cells, strict=True):
        side = "left" if column in _TEXTS else "right"
        style = f"text-align: {side}; {_STYLE[tag]}"
        parts.append(f'<{tag} style="{style}">{html.escape(cell)}</{tag}>')
    return f"<tr>{''.join(parts)}</tr>"


def _shown(column, value):
    if value is None:
        return "-"
    if column in _TEXTS:
        return str(value)
    return f"{value:.3g}" if column == "rms" else f"{value:.3f}"


def _large(number):
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.3g}"
