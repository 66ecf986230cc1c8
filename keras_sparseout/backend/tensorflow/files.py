"""Files as Keras' callbacks open them: also on the file systems of TensorFlow."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import tensorflow as tf

from keras_sparseout.utils.types import PathLike


def open_text(path: PathLike) -> AbstractContextManager[Iterator[str]]:
    """Opens a text file for reading."""
    return tf.io.gfile.GFile(path)
