"""The table that `activation_sparsity` returns, as text, HTML and data."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from keras_sparseout.utils.tables import as_html, as_text, dataframe, large

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = ("layer", "kind", "shape")
COLUMNS = (*_TEXTS, "hoyer", "zeros", "dead", "rms", "needless_macs")


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
        return as_text(COLUMNS, _TEXTS, self._cells(), self._lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(COLUMNS, _TEXTS, self._cells(), self._lines())

    def _cells(self) -> list[list[str]]:
        return [[_shown(c, row[c]) for c in COLUMNS] for row in self.rows]

    def _lines(self) -> list[str]:
        """Returns the lines below the table."""
        lines = []
        if self.macs:
            lines.append(
                f"{large(self.effective_macs)} of {large(self.macs)} "
                "multiply-accumulates a sample are effective "
                f"({self.effective_macs / self.macs:.0%})".replace("%", " %")
            )
        if len(self.macs_by_kind) > 1:
            parts = [
                f"{kind} {large(effective)} of {large(macs)}"
                for kind, (effective, macs) in self.macs_by_kind.items()
            ]
            lines.append(f"By kind: {', '.join(parts)}.")
        return [*lines, *self.notes]


def _shown(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column in _TEXTS:
        return str(value)
    return f"{value:.3g}" if column == "rms" else f"{value:.3f}"
