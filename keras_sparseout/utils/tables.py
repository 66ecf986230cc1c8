"""Tables: as text, as HTML, and as those of pandas, which is optional."""

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# While a long table scrolls, its heading stays in sight.
_STYLE = {
    "div": "max-height: 32em; overflow: auto",
    "th": "padding: 0 0.5em; position: sticky; top: 0; background: white; color: black",
    "td": "padding: 0 0.5em",
}


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turns rows into a list for each key, with NaN where a row lacks the key.

    Example:

    >>> columns([{"epoch": 0}, {"epoch": 1, "rate": 0.5}])
    {'epoch': [0, 1], 'rate': [nan, 0.5]}
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key, math.nan) for row in rows] for key in keys}


def dataframe(
    columns: Mapping[str, Sequence[Any]], index: Sequence[Any] | None = None
) -> "pd.DataFrame":
    """Turns columns into a pandas.DataFrame."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "to_dataframe() needs pandas, which is not installed. Install it: "
            "pip install pandas"
        ) from error
    return pd.DataFrame(columns, index=index)


def as_text(
    columns: Sequence[str],
    texts: Collection[str],
    rows: Iterable[Sequence[str]],
    lines: Iterable[str] = (),
) -> str:
    """Writes a table as text.

    Args:
        columns: The heading.
        texts: Which columns hold text, at the left; figures are at the right.
        rows: The cells of each row.
        lines: What stands below the table.

    Example:

    >>> print(as_text(["layer", "zeros"], ["layer"], [["a", "0.5"]], ["A note."]))
    layer  zeros
    a        0.5
    A note.
    """
    cells = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shown = [
        "  ".join(
            cell.ljust(width) if column in texts else cell.rjust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([*shown, *lines])


def as_html(
    columns: Sequence[str],
    texts: Collection[str],
    rows: Iterable[Sequence[str]],
    lines: Iterable[str] = (),
) -> str:
    """Writes a table as HTML; the arguments are those of `as_text`."""
    head = _html_row("th", columns, columns, texts)
    body = "\n".join(_html_row("td", row, columns, texts) for row in rows)
    below = "<br>\n".join(html.escape(line) for line in lines)
    return (
        f'<div style="{_STYLE["div"]}">\n<table>\n<thead>\n{head}\n</thead>\n<tbody>\n'
        f"{body}\n</tbody>\n</table>\n</div>\n<p>{below}</p>"
    )


def _html_row(
    tag: str, cells: Sequence[str], columns: Sequence[str], texts: Collection[str]
) -> str:
    parts = []
    for column, cell in zip(columns, cells, strict=True):
        side = "left" if column in texts else "right"
        style = f"text-align: {side}; {_STYLE[tag]}"
        parts.append(f'<{tag} style="{style}">{html.escape(cell)}</{tag}>')
    return f"<tr>{''.join(parts)}</tr>"


def large(number: float) -> str:
    """Writes a large number with three digits or less.

    Example:

    >>> large(5_430_000.0), large(12.0)
    ('5.4 M', '12')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.3g}"
