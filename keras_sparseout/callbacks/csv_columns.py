"""Gives a CSVLogger the columns of log keys that come later than the first epoch."""

import csv
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_sparseout.backend import files
from keras_sparseout.callbacks.log_keys import WithLogKeys, with_log_keys


def keep_columns(
    callback: WithLogKeys, in_list: Sequence[keras.callbacks.Callback]
) -> None:
    """Makes CSVLoggers have a column for every key, in whatever epoch it first comes.

    Keras takes the columns from the first epoch. It adds those of validation only if
    that epoch has no key of validation at all: one key of ours would be enough to lose
    "val_loss".

    Call it at the end of an epoch, not before: a fit that fails must leave nothing in a
    logger.

    Args:
        callback: The callback that writes log keys.
        in_list: The callbacks that `fit` was given.
    """
    for place, logger in enumerate(in_list):
        if isinstance(logger, keras.callbacks.CSVLogger) and logger.keys is None:
            ours = with_log_keys(in_list[:place])
            if callback not in in_list:
                ours.append(callback)
            vars(logger)["on_epoch_end"] = _FirstRow(logger, ours)


class _FirstRow:
    """Replaces a CSVLogger's `on_epoch_end` for one call, which sets the columns."""

    def __init__(
        self, logger: keras.callbacks.CSVLogger, ours: Sequence[WithLogKeys]
    ) -> None:
        replaced = vars(logger).get("on_epoch_end")
        # Another callback of ours was here before.
        self.replaced: Callable[..., None] | None = (
            replaced.replaced if isinstance(replaced, _FirstRow) else replaced
        )
        self.logger = logger
        self.ours = ours

    def __call__(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        del vars(self.logger)["on_epoch_end"]
        if self.replaced is not None:
            vars(self.logger)["on_epoch_end"] = self.replaced
        if self.logger.keys is None and logs:
            self.logger.keys = self._columns(logs)
        self.logger.on_epoch_end(epoch, logs)

    def _columns(self, logs: Mapping[str, Any]) -> list[str]:
        ours = {key for callback in self.ours for key in callback.log_keys()}
        keys = sorted(logs)
        # The columns that Keras would add with our keys, and those without them.
        for twins_of in (keys, [key for key in keys if key not in ours]):
            if not any(key.startswith("val_") for key in twins_of):
                keys = _joined(keys, [f"val_{key}" for key in twins_of])
        return _joined(self._header(), _joined(keys, sorted(ours)))

    def _header(self) -> list[str]:
        """Returns the columns of the file if the logger appends to one."""
        if not self.logger.append or self.logger.append_header:
            return []
        with files.open_text(self.logger.filename) as file:
            header = next(csv.reader(file, delimiter=self.logger.sep))
        return header[1:] if header[:1] == ["epoch"] else []


def _joined(first: list[str], others: list[str]) -> list[str]:
    return [*first, *(key for key in others if key not in first)]
