"""Event files, from which TensorBoard reads figures and histograms."""

import os
from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from keras_sparseout.utils.types import PathLike, Tensor


class Histogram(Protocol):
    """A histogram, as `keras_sparseout.metrics.ActivationHistogram` is one."""

    def buckets(self) -> Tensor:
        """Returns rows of (left edge, right edge, count)."""


class EventFile:
    """A file in the subfolder "sparsity" of a TensorBoard folder.

    It is opened when there is something to write.

    Args:
        log_dir: The folder, as for `keras.callbacks.TensorBoard`.
    """

    def __init__(self, log_dir: PathLike) -> None:
        self.log_dir = log_dir
        self._writer: Any = None

    def write(
        self,
        step: int,
        figures: Mapping[str, float],
        histograms: Mapping[str, Histogram],
    ) -> None:
        """Writes figures and histograms by key."""
        if self._writer is None:
            folder = os.path.join(os.fspath(self.log_dir), "sparsity")
            self._writer = tf.summary.create_file_writer(folder)
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "histograms"
        with self._writer.as_default(step=step):
            for key, figure in figures.items():
                tf.summary.scalar(key, figure)
            for key, histogram in histograms.items():
                # tf.summary.histogram wants the activations; these are buckets.
                tf.summary.write(key, histogram.buckets(), metadata=metadata)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file, if it is open. The next `write` opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
