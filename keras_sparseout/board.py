"""Figures and histograms for TensorBoard."""

import os

import tensorflow as tf


class Board:
    """Writes into the subfolder "sparsity" of a TensorBoard folder.

    Args:
        log_dir: The folder, as for `keras.callbacks.TensorBoard`.
    """

    def __init__(self, log_dir):
        self._writer = tf.summary.create_file_writer(
            os.path.join(os.fspath(log_dir), "sparsity")
        )

    def write(self, step, figures, histograms):
        """Writes figures and `ActivationHistogram`s by key."""
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "histograms"
        with self._writer.as_default(step=step):
            for key, figure in figures.items():
                tf.summary.scalar(key, figure)
            for key, histogram in histograms.items():
                # tf.summary.histogram wants the activations; these are its buckets.
                tf.summary.write(key, histogram.buckets(), metadata=metadata)
        self._writer.flush()
