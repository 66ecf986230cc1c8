"""The readings of a training run: what they gave, and where they were taken."""

import sys

from keras_sparseout.utils.tables import columns


class ReadingLog:
    """Rows of figures, one a reading, with the place of each in epochs.

    Args:
        progress: The `Progress` of training.

    Attributes:
        rows: List of dicts, with the place under "epoch".
        read_at: At which batch of the epoch the last reading was taken.
        logs: Dict of Keras' logs of the epochs, by the index of the epoch's last row.
    """

    def __init__(self, progress):
        self.progress = progress
        self.rows, self.logs = [], {}
        self.read_at = 0
        self._open = []

    @property
    def unread(self):
        """How many batches there were since the last reading."""
        return self.progress.batches - self.read_at

    def due(self, every):
        """Whether there were executions of `every` batches since the last reading."""
        return self.progress.counted - self.read_at >= every

    @property
    def history(self):
        """The rows as a dict of lists by key."""
        return columns(self.rows)

    def begin_epoch(self):
        """Notes that an epoch begins."""
        self.read_at, self._open = 0, []

    def skip(self):
        """Leaves out the batches since the last reading."""
        self.read_at = self.progress.batches

    def add(self, figures):
        """Adds the figures of a reading that was taken now."""
        # A long run has many rows: they share one text for each key.
        row = {"epoch": self.progress.position}
        row.update((sys.intern(key), figure) for key, figure in figures.items())
        self.rows.append(row)
        self._open.append((row, self.progress.batches))
        self.skip()

    def end_epoch(self, figures, logs):
        """Adds figures of the whole epoch to its last row, and Keras' logs beside it.

        Only now the places are known where the length of the data was not.
        """
        if figures and not self._open:
            self.add({})
        for row, batches in self._open:
            whole = self.progress.batches
            row["epoch"] = self.progress.epoch + (batches / whole if whole else 1.0)
        if self._open:
            self.rows[-1].update(figures)
            self.logs[len(self.rows) - 1] = dict(logs or {})
