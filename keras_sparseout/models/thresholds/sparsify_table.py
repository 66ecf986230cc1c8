"""The table that `sparsify` prints: a model before and after."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sparseout.utils.tables import as_html, as_text, dataframe, large

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = ("layer", "kind")
COLUMNS = (
    *_TEXTS,
    *("target", "threshold", "zeros_before", "zeros_after"),
    *("needless_before", "needless_after"),
)


class SparsifyTable:
    """The figures of `sparsify`, before and after.

    `print` shows a table as text. A notebook shows it as HTML if it ends a cell.

    Attributes:
        rows: List of dicts by column, one for each place of a threshold. `threshold` is
            an array if each unit has its own. `target` is None where a budget left the
            layer as it was.
        macs: Multiply-accumulates a sample of the whole model.
        effective_macs_before: How many of them had no zero activation as a factor.
        effective_macs: How many of them have none with the thresholds.
        change: The relative mean-squared change of the outputs that are made of
            numbers, NaN if none is.
        metrics: Dict of (before, after) by name, empty without labels.
        notes: List of lines that say what was left out, and why.
    """

    def __init__(
        self,
        rows: list[dict[str, Any]],
        macs: tuple[float, float, float],
        change: float,
        metrics: Mapping[str, tuple[float, float]],
        notes: Iterable[str] = (),
    ) -> None:
        self.rows = rows
        self.macs, self.effective_macs_before, self.effective_macs = macs
        self.change = change
        self.metrics = dict(metrics)
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
            before, after = (
                f"{large(macs)} ({100 * macs / self.macs:.1f} %)"
                for macs in (self.effective_macs_before, self.effective_macs)
            )
            lines.append(
                f"Of {large(self.macs)} multiply-accumulates a sample, {after} are "
                f"effective, before {before}."
            )
        if math.isnan(self.change):
            lines.append("How much the outputs change is not known: they are strings.")
        else:
            lines.append(f"The outputs change by {self.change:.3g} (relative square).")
        if self.metrics:
            parts = [
                f"{name} {before:.4f} before, {after:.4f} after"
                for name, (before, after) in self.metrics.items()
            ]
            lines.append(f"{'; '.join(parts)}.")
        return [*lines, *self.notes]


def _shown(column: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if column in _TEXTS:
        return str(value)
    if column == "threshold":
        low, high = float(np.min(value)), float(np.max(value))
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return f"{value:.3f}"
