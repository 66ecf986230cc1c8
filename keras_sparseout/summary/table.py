"""The table that `activation_sparsity` returns, as text, HTML and data."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from keras_sparseout.utils.tables import dataframe

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = ("layer", "kind", "shape")
COLUMNS = (*_TEXTS, "hoyer", "zeros", "dead", "rms", "needless_macs")
# While a long table scrolls, its heading stays in sight.
_STYLE = {
    "div": "max-height: 32em; overflow: auto",
    "th": "padding: 0 0.5em; position: sticky; top: 0; background: white; color: black",
    "td": "padding: 0 0.5em",
}


class SparsityTable:
    """The figures of `activation_sparsity`.

    `print` shows a table as text. A notebook shows it as HTML if it ends a cell.

    Attributes:
        rows: List of dicts by column, one a layer.
        macs: Multiply-accumulates a sample of the whole model, in listed layers and
            others. `notes` names those that could not be counted.
        effective_macs: How many of them have no zero activation as a factor.
        macs_by_kind: Dict of (effective, all) multiply-accumulates a sample, by class
            of the layer that they belong to, the largest first.
        notes: List of lines that say what the figures leave out, or how to read them.
    """

    def __init__(
        self,
        rows: list[dict[str, Any]],
        macs_by_kind: dict[str, tuple[float, float]],
        notes: Iterable[str] = (),
    ) -> None:
        self.rows = rows
        self.macs_by_kind = macs_by_kind
        self.effective_macs = sum(part for part, _ in macs_by_kind.values())
        self.macs = sum(macs for _, macs in macs_by_kind.values())
        self.notes = list(notes)

    def to_dataframe(self) -> "pd.DataFrame":
        """Returns `rows` as a pandas.DataFrame, with NaN in place of None."""
        return dataframe(
            {
                c: [math.nan if row[c] is None else row[c] for row in self.rows]
                for c in COLUMNS
            }
        )

    def __str__(self) -> str:
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

    def _repr_html_(self) -> str:
        body = "\n".join(_html_row("td", cells) for cells in self._cells())
        lines = "<br>\n".join(html.escape(line) for line in self._lines())
        return (
            f'<div style="{_STYLE["div"]}">\n<table>\n<thead>\n'
            f"{_html_row('th', COLUMNS)}\n</thead>\n<tbody>\n{body}\n</tbody>\n"
            f"</table>\n</div>\n<p>{lines}</p>"
        )

    def _cells(self) -> list[list[str]]:
        return [[_shown(c, row[c]) for c in COLUMNS] for row in self.rows]

    def _lines(self) -> list[str]:
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


def _html_row(tag: str, cells: Sequence[str]) -> str:
    parts = []
    for column, cell in zip(COLUMNS, cells, strict=True):
        side = "left" if column in _TEXTS else "right"
        style = f"text-align: {side}; {_STYLE[tag]}"
        parts.append(f'<{tag} style="{style}">{html.escape(cell)}</{tag}>')
    return f"<tr>{''.join(parts)}</tr>"


def _shown(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column in _TEXTS:
        return str(value)
    return f"{value:.3g}" if column == "rms" else f"{value:.3f}"


def _large(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.3g}"
