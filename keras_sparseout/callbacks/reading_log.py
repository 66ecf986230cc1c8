"""The readings of a training run: their figures, and where in the run they were."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_sparseout.callbacks.progress import Progress
from keras_sparseout.utils.tables import columns

Row = dict[str, float]


class ReadingLog:
    """Rows of figures, one a reading, each with its place in epochs.

    Args:
        progress: The `Progress` of training.

    Attributes:
        rows: List of dicts, with the place under "epoch".
        read_at: How many batches of the epoch were over at the last reading.
        logs: Dict of Keras' logs of the epochs, by the index of the epoch's last row.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.rows: list[Row] = []
        self.logs: dict[int, dict[str, Any]] = {}
        self.read_at = 0
        self._rows_of_epoch: list[tuple[Row, int]] = []

    @property
    def unread(self) -> int:
        """How many batches there were since the last reading."""
        return self.progress.batches - self.read_at

    def due(self, every: int) -> bool:
        """Whether there were executions of `every` batches since the last reading."""
        return self.progress.counted - self.read_at >= every

    @property
    def history(self) -> dict[str, list[float]]:
        """The rows as a dict of lists by key."""
        return columns(self.rows)

    def history_with(self, *keys: str) -> dict[str, list[float]]:
        """Returns the `history`, with those of `keys` that Keras' logs have.

        They are NaN in rows that do not end an epoch.
        """
        history = self.history
        for key in keys:
            if any(key in logs for logs in self.logs.values()):
                history[key] = [
                    self.logs.get(row, {}).get(key, np.nan)
                    for row in range(len(self.rows))
                ]
        return history

    def begin_epoch(self) -> None:
        """Notes that an epoch begins."""
        self.read_at, self._rows_of_epoch = 0, []

    def skip(self) -> None:
        """Leaves out the batches since the last reading."""
        self.read_at = self.progress.batches

    def add(self, figures: Mapping[str, float]) -> None:
        """Adds the figures of a reading that was taken now."""
        # A long run has many rows: they share one text for each key.
        row = {"epoch": self.progress.position}
        row.update((sys.intern(key), figure) for key, figure in figures.items())
        self.rows.append(row)
        self._rows_of_epoch.append((row, self.progress.batches))
        self.skip()

    def end_epoch(
        self, figures: Mapping[str, float], logs: Mapping[str, Any] | None
    ) -> None:
        """Adds figures of the whole epoch to its last row, and keeps Keras' logs of it.

        If the length of the data was unknown, the places of the rows are known only
        now.
        """
        if figures and not self._rows_of_epoch:
            self.add({})
        whole = self.progress.batches
        for row, batches in self._rows_of_epoch:
            row["epoch"] = self.progress.epoch + (batches / whole if whole else 1.0)
        if self._rows_of_epoch:
            self.rows[-1].update(figures)
            self.logs[len(self.rows) - 1] = dict(logs or {})
