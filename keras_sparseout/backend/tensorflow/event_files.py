"""Figures and histograms for TensorBoard."""

import os

import tensorflow as tf


class Board:
    """Writes into the subfolder "sparsity" of a TensorBoard folder.

    The file is opened when there is something to write.

    Args:
        log_dir: The folder, as for `keras.callbacks.TensorBoard`.
    """

    def __init__(self, log_dir):
        self.log_dir = log_dir
        self._writer = None

    def write(self, step, figures, histograms):
        """Writes figures and `ActivationHistogram`s by key."""
        if self._writer is None:
            folder = os.path.join(os.fspath(self.log_dir), "sparsity")
            self._writer = tf.summary.create_file_writer(folder)
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "histograms"
        with self._writer.as_default(step=step):
            for key, figure in figures.items():
                tf.summary.scalar(key, figure)
            for key, histogram in histograms.items():
                # tf.summary.histogram wants the activations; these are its buckets.
                tf.summary.write(key, histogram.buckets(), metadata=metadata)
        self._writer.flush()

    def close(self):
        """Closes the file, if there is one; to write again opens another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
